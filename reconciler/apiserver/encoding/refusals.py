"""Error responses: `Status` objects with the same reasons and messages as kube-apiserver.

Handlers raise `Refusal`, which the server turns into the response. The messages were compared with kube-apiserver 1.36.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

from reconciler._core.wire import JSONObject, StatusObject
from reconciler.apiserver.encoding.text import go_json, quoted

_MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"


@dataclass(eq=False)
class Refusal(Exception):
    """The error response to a request. The other constructors make those of an API server.

    Attributes:
        code: the HTTP status code.
        reason: the machine-readable reason.
        message: the message for people.
        details: the Status's details; ``{}`` is written, None is omitted.
        metadata: the Status's metadata, such as a new ``continue`` token.
        text: a plain-text body to send instead of a Status.
    """

    code: int
    reason: str
    message: str
    _: KW_ONLY
    details: JSONObject | None = None
    metadata: JSONObject | None = None
    text: str | None = None

    def __str__(self) -> str:
        return self.message

    def status(self) -> StatusObject:
        """Return the Status object."""
        document: StatusObject = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": self.metadata or {},
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            document["reason"] = self.reason
        if self.details is not None:
            document["details"] = self.details
        document["code"] = self.code
        return document

    @classmethod
    def not_found(cls, plural: str, group: str, name: str) -> Refusal:
        """Return the 404 for an object that does not exist."""
        message = f"{qualified(plural, group)} {quoted(name)} not found"
        return cls(404, "NotFound", message, details=_details(name, group, plural))

    @classmethod
    def not_served(cls) -> Refusal:
        """Return the plain-text 404 for a path that is not served."""
        return cls(404, "NotFound", "404 page not found", text="404 page not found\n")

    @classmethod
    def no_such_resource(cls) -> Refusal:
        """Return the 404 for an unknown resource of a built-in group."""
        return cls(404, "NotFound", "the server could not find the requested resource", details={})

    @classmethod
    def needs_a_node(cls, plural: str, name: str, subresource: str) -> Refusal:
        """Return the 501 for a request that a kubelet would answer."""
        message = f'the embedded API server has no nodes, so it cannot serve "{subresource}" of {plural} {quoted(name)}'
        return cls(501, "NotImplemented", message, details=_details(name, "", plural))

    @classmethod
    def already_exists(
        cls, plural: str, group: str, name: str, *, deleting: bool = False, generated: bool = False
    ) -> Refusal:
        """Return the 409 for a create with a name that is taken, perhaps by an object that is being deleted."""
        prefix = "object is being deleted: " if deleting else ""
        message = f"{prefix}{qualified(plural, group)} {quoted(name)} already exists"
        details = _details(name, group, plural)
        if generated:
            message += ", the server was not able to generate a unique name for the object"
            details["retryAfterSeconds"] = 1
        return cls(409, "AlreadyExists", message, details=details)

    @classmethod
    def conflict(cls, plural: str, group: str, name: str, why: str = _MODIFIED) -> Refusal:
        """Return the 409 for a stale resourceVersion or a failed precondition."""
        message = f"Operation cannot be fulfilled on {qualified(plural, group)} {quoted(name)}: {why}"
        return cls(409, "Conflict", message, details=_details(name, group, plural))

    @classmethod
    def apply_conflict(cls, conflicts: Sequence[tuple[str, Sequence[str]]]) -> Refusal:
        """Return the 409 for an apply that changes fields of other managers, given as messages name them."""
        causes = [
            FieldError(path, f"conflict with {manager}", "FieldManagerConflict")
            for manager, paths in conflicts
            for path in paths
        ]
        if len(causes) == 1:
            text = f"1 conflict: {causes[0].message}: {causes[0].field}"
        else:
            named = ("\n- ".join((f"conflicts with {manager}:", *paths)) for manager, paths in conflicts)
            text = f"{len(causes)} conflicts: " + "\n".join(named)
        details = {"causes": [cause.cause() for cause in causes]}
        return cls(409, "Conflict", f"Apply failed with {text}", details=details)

    @classmethod
    def invalid(cls, kind: str, group: str, name: str, errors: Sequence[FieldError]) -> Refusal:
        """Return the 422 that lists the errors of validation; the message lists equal errors once."""
        message = f"{qualified(kind, group)} {quoted(name)} is invalid: {aggregate(str(error) for error in errors)}"
        return cls(422, "Invalid", message, details=_details(name, group, kind, errors))

    @classmethod
    def option_invalid(cls, options: str, *errors: FieldError) -> Refusal:
        """Return the 422 for a parameter such as dryRun; `options` is a kind such as ``ListOptions``."""
        return cls.invalid(options, "meta.k8s.io", "", errors)

    @classmethod
    def bad_request(cls, message: str) -> Refusal:
        """Return a 400."""
        return cls(400, "BadRequest", message)

    @classmethod
    def cannot_be_handled(cls, kind: str, version: str, wanted: str, problem: str) -> Refusal:
        """Return the 400 for a document that is not of the wanted kind, or cannot be decoded as it."""
        return cls.bad_request(
            f'{kind} in version "{version.rpartition("/")[2]}" cannot be handled as a {wanted}: {problem}'
        )

    @classmethod
    def forbidden(cls, plural: str, group: str, name: str, why: str, *, causes: Sequence[FieldError] = ()) -> Refusal:
        """Return the 403 of an admission rule."""
        message = f"{qualified(plural, group)} {quoted(name)} is forbidden: {why}"
        return cls(403, "Forbidden", message, details=_details(name, group, plural, causes))

    @classmethod
    def method_not_allowed(cls) -> Refusal:
        """Return the 405 for a verb that the path does not support."""
        message = "the server does not allow this method on the requested resource"
        return cls(405, "MethodNotAllowed", message, details={})

    @classmethod
    def verb_not_supported(cls, verb: str, plural: str, group: str) -> Refusal:
        """Return the 405 for a verb that a subresource of a custom resource does not support."""
        message = f'{verb} is not supported on resources of kind "{qualified(plural, group)}"'
        return cls(405, "MethodNotAllowed", message, details=_details("", group, plural))

    @classmethod
    def too_large(cls, why: str) -> Refusal:
        """Return the 413 for a request that is too large for any API server."""
        return cls(413, "RequestEntityTooLarge", f"Request entity too large: {why}")

    @classmethod
    def unsupported_media_type(cls, accepted: Iterable[str], hint: str = "") -> Refusal:
        """Return the 415 for a body of an unsupported media type."""
        message = (
            f"the body of the request was in an unknown format - accepted media types include: {', '.join(accepted)}"
        )
        return cls(415, "UnsupportedMediaType", f"{message} ({hint})" if hint else message)

    @classmethod
    def expired(cls, message: str, *, metadata: JSONObject | None = None) -> Refusal:
        """Return the 410 for a resourceVersion or token that is older than the history."""
        return cls(410, "Expired", message, metadata=metadata)

    @classmethod
    def too_large_resource_version(cls, asked: int, current: int) -> Refusal:
        """Return the 504 for a resourceVersion in the future."""
        causes = [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]
        message = f"Timeout: Too large resource version: {asked}, current: {current}"
        return cls(504, "Timeout", message, details={"causes": causes, "retryAfterSeconds": 1})

    @classmethod
    def failed(cls, problem: str) -> Refusal:
        """Return the 500 for a problem that the request did not cause."""
        details = {"causes": [{"message": problem}]}
        return cls(500, "InternalError", f"Internal error occurred: {problem}", details=details)

    @classmethod
    def internal_error(cls, message: str) -> Refusal:
        """Return a 500; it has no reason, as in the real server."""
        return cls(500, "", message)


@dataclass(frozen=True, slots=True)
class FieldError:
    """One cause of an ``Invalid`` response: ``field: message``.

    The constructors are those of Kubernetes' ``field`` package.
    """

    field: str
    message: str
    reason: str = "FieldValueInvalid"

    @classmethod
    def required(cls, field: str, message: str = "") -> FieldError:
        """Return the error for a missing value."""
        return cls(field, f"Required value: {message}" if message else "Required value", "FieldValueRequired")

    @classmethod
    def invalid(cls, field: str, value: Any, message: str) -> FieldError:
        """Return the error for an invalid value."""
        return cls(field, f"Invalid value: {quoted(value)}: {message}")

    @classmethod
    def invalid_struct(cls, field: str, value: Any, message: str) -> FieldError:
        """Return the error for an invalid Go struct, or list of structs: their fields are shown in their order."""
        return cls(field, f"Invalid value: {go_json(value, sort=False)}: {message}")

    @classmethod
    def not_supported(cls, field: str, value: Any, supported: Iterable[str]) -> FieldError:
        """Return the error for a value that is not one of those that are supported."""
        known = ", ".join(f'"{each}"' for each in supported)
        return cls(field, f"Unsupported value: {quoted(value)}: supported values: {known}", "FieldValueNotSupported")

    @classmethod
    def duplicate(cls, field: str, value: Any) -> FieldError:
        """Return the error for a value that occurs twice."""
        return cls(field, f"Duplicate value: {quoted(value)}", "FieldValueDuplicate")

    @classmethod
    def forbidden(cls, field: str, message: str) -> FieldError:
        """Return the error for a value that must not be set or changed."""
        return cls(field, f"Forbidden: {message}", "FieldValueForbidden")

    def cause(self) -> dict[str, str]:
        """Return the entry for ``details.causes``."""
        return {"reason": self.reason, "message": self.message, "field": self.field}

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


Findings = Iterator[FieldError]


def qualified(plural: str, group: str) -> str:
    """Return ``plural.group``, or the plural alone for the core group."""
    return f"{plural}.{group}" if group else plural


def _details(name: str, group: str, kind: str, causes: Sequence[FieldError] = ()) -> JSONObject:
    found: JSONObject = {"name": name, "group": group, "kind": kind}
    found = {key: value for key, value in found.items() if value}
    if causes:
        found["causes"] = [error.cause() for error in causes]
    return found


def aggregate(problems: Iterable[str]) -> str:
    """Return several problems as one message, as Go's aggregated errors show them."""
    different = list(dict.fromkeys(problems))
    return different[0] if len(different) == 1 else f"[{', '.join(different)}]"


def not_registered(kind: str, version: str) -> str:
    """Return the message for a kind that the server does not know in a version."""
    return f'no kind "{kind}" is registered for version "{version}" in scheme "pkg/runtime/scheme.go:111"'
