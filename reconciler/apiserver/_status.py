"""Say no the way the API server does: every refusal is a Status object with the real server's words.

Handlers raise `Refusal`; the server turns it into the answer. The texts were compared with kube-apiserver 1.36.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = [
    "FieldError",
    "Refusal",
    "already_exists",
    "bad_request",
    "conflict",
    "expired",
    "forbidden",
    "internal_error",
    "invalid",
    "method_not_allowed",
    "not_acceptable",
    "not_found",
    "not_served",
    "qualified",
    "too_large_resource_version",
    "unsupported_media_type",
]


class Refusal(Exception):
    """Carry the Status that a request is answered with.

    Args:
        code: the HTTP status code.
        reason: the machine-readable reason.
        message: the words for people.
        details: the Status's details, or None.
        metadata: what stands in the Status's metadata, such as a fresh ``continue`` token.
        text: answer with this plain text instead of a Status.
    """

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        details: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
        text: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.metadata = metadata
        self.text = text

    def status(self) -> dict[str, Any]:
        """Return the Status object."""
        document: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": self.metadata or {},
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            document["reason"] = self.reason
        if self.details:
            document["details"] = self.details
        document["code"] = self.code
        return document


@dataclass(frozen=True, slots=True)
class FieldError:
    """Hold one cause of an Invalid answer: ``field: message``."""

    field: str
    message: str
    reason: str = "FieldValueInvalid"

    def cause(self) -> dict[str, str]:
        """Return the entry for ``details.causes``."""
        return {"reason": self.reason, "message": self.message, "field": self.field}

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


def qualified(plural: str, group: str) -> str:
    """Return ``plural.group``, or the plural alone for the core group."""
    return f"{plural}.{group}" if group else plural


def _details(name: str, group: str, kind: str, **more: Any) -> dict[str, Any]:
    found = {"name": name, "group": group, "kind": kind, **more}
    return {key: value for key, value in found.items() if value not in ("", None, [])}


def not_found(plural: str, group: str, name: str) -> Refusal:
    """Make the 404 for an object that is not there."""
    return Refusal(
        404, "NotFound", f'{qualified(plural, group)} "{name}" not found', details=_details(name, group, plural)
    )


def not_served() -> Refusal:
    """Make the plain-text 404 for a path that nothing serves."""
    return Refusal(404, "NotFound", "404 page not found", text="404 page not found\n")


def already_exists(plural: str, group: str, name: str) -> Refusal:
    """Make the 409 for a create under a name that is taken."""
    return Refusal(
        409,
        "AlreadyExists",
        f'{qualified(plural, group)} "{name}" already exists',
        details=_details(name, group, plural),
    )


_MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"


def conflict(plural: str, group: str, name: str, why: str = _MODIFIED) -> Refusal:
    """Make the 409 for a stale resourceVersion or a failed precondition."""
    return Refusal(
        409,
        "Conflict",
        f'Operation cannot be fulfilled on {qualified(plural, group)} "{name}": {why}',
        details=_details(name, group, plural),
    )


def invalid(kind: str, group: str, name: str, errors: Sequence[FieldError]) -> Refusal:
    """Make the 422 that lists what validation found."""
    texts = [str(error) for error in errors]
    summary = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    return Refusal(
        422,
        "Invalid",
        f'{qualified(kind, group)} "{name}" is invalid: {summary}',
        details=_details(name, group, kind, causes=[error.cause() for error in errors]),
    )


def bad_request(message: str) -> Refusal:
    """Make a 400."""
    return Refusal(400, "BadRequest", message)


def forbidden(plural: str, group: str, name: str, why: str, *, causes: Sequence[FieldError] = ()) -> Refusal:
    """Make the 403 of an admission rule."""
    return Refusal(
        403,
        "Forbidden",
        f'{qualified(plural, group)} "{name}" is forbidden: {why}',
        details=_details(name, group, plural, causes=[error.cause() for error in causes]),
    )


def method_not_allowed() -> Refusal:
    """Make the 405 for a verb that the resource does not support."""
    return Refusal(
        405, "MethodNotAllowed", "the server does not allow this method on the requested resource", details={}
    )


def not_acceptable(accepted: Iterable[str]) -> Refusal:
    """Make the 406 for an Accept header that names nothing the server can write."""
    return Refusal(
        406,
        "NotAcceptable",
        f"only the following media types are accepted: {', '.join(accepted)}",
    )


def unsupported_media_type(accepted: Iterable[str], hint: str = "") -> Refusal:
    """Make the 415 for a body in a form that the server does not read."""
    message = f"the body of the request was in an unknown format - accepted media types include: {', '.join(accepted)}"
    return Refusal(415, "UnsupportedMediaType", f"{message} ({hint})" if hint else message)


def expired(message: str, *, metadata: dict[str, Any] | None = None) -> Refusal:
    """Make the 410 for a version or token that history no longer reaches."""
    return Refusal(410, "Expired", message, metadata=metadata)


def too_large_resource_version(asked: int, current: int) -> Refusal:
    """Make the 504 for a version that lies in the future."""
    return Refusal(
        504,
        "Timeout",
        f"Timeout: Too large resource version: {asked}, current: {current}",
        details={
            "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            "retryAfterSeconds": 1,
        },
    )


def internal_error(message: str, reason: str = "InternalError") -> Refusal:
    """Make a 500."""
    return Refusal(500, reason, message)
