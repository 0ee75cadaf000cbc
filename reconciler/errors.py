"""Name every error that crosses a room's border.

The tree::

    ReconcilerError
    ├── ConfigurationError            kubeconfig, option or file that cannot be used
    ├── MissingExtra                  an optional dependency is not installed
    ├── TerminalError                 raised by a reconciler: retrying cannot help
    ├── TransportError
    │   ├── NotSent                   the connection could not be made; repeating is safe
    │   └── OutcomeUnknown            sent, but the answer was lost; it may have been applied
    │       └── InvalidResponse       an answer came that is not valid HTTP, or larger than its limit
    └── APIError                      the server answered with a failure
        ├── BadRequest                400
        ├── Unauthorized              401
        ├── Forbidden                 403
        ├── NotFound                  404
        │   └── NotServed             404 in plain text: nothing is served at this path
        ├── MethodNotAllowed          405
        ├── NotAcceptable             406
        ├── Conflict                  409, a stale resourceVersion
        ├── AlreadyExists             409, on create
        ├── FieldManagerConflict      409, another manager owns an applied field
        ├── Expired                   410, the version asked for was compacted
        ├── RequestTooLarge           413
        ├── UnsupportedMediaType      415
        ├── Invalid                   422
        ├── TooManyRequests           429
        └── ServerError               every 5xx
            ├── ServerUnavailable     503
            └── ServerTimeout         504

Rooms with errors of their own derive them from `ReconcilerError`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = [
    "APIError",
    "AlreadyExists",
    "BadRequest",
    "Cause",
    "ConfigurationError",
    "Conflict",
    "Expired",
    "FieldManagerConflict",
    "Forbidden",
    "Invalid",
    "InvalidResponse",
    "MethodNotAllowed",
    "MissingExtra",
    "NotAcceptable",
    "NotFound",
    "NotSent",
    "NotServed",
    "OutcomeUnknown",
    "ReconcilerError",
    "RequestTooLarge",
    "ServerError",
    "ServerTimeout",
    "ServerUnavailable",
    "TerminalError",
    "TooManyRequests",
    "TransportError",
    "Unauthorized",
    "UnsupportedMediaType",
    "error_from_response",
]


_LONGEST_RETRY_AFTER = 3600.0  # as in reconciler.backoff; leaves do not import one another


class ReconcilerError(Exception):
    """Be the base of every error that this library raises on purpose.

    Attributes:
        retry_after: seconds that the server asked to wait before the next attempt; None if it did not. A controller
            whose reconcile raises the error waits so long, at least.
    """

    retry_after: float | None = None


class ConfigurationError(ReconcilerError):
    """Say that a kubeconfig, an option or a file cannot be used, and what to do."""


class MissingExtra(ReconcilerError):
    """Say which optional dependency is missing and the command that installs it.

    Args:
        module: the import name that was not found.
        extra: the extra of the distribution that brings it.
        purpose: what needed it, as the subject of a sentence.
    """

    def __init__(self, module: str, *, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs {module}: pip install 'kube-reconciler[{extra}]'")
        self.module = module
        self.extra = extra


class TerminalError(ReconcilerError):
    """Tells the controller that retrying cannot help: it reports the error and forgets the key.

    Only a change runs the key again: of the object, by someone else, or of what the controller watches for it. The
    failures and the timer of earlier outcomes of the key are cleared. What others asked for stays:
    ``Controller.enqueue`` during the run, with or without a delay. An ExceptionGroup is terminal if all of its
    exceptions are. Chain the cause with ``raise TerminalError("…") from error``.
    """


class TransportError(ReconcilerError):
    """Say that a request brought no answer."""


class NotSent(TransportError):
    """Say that the connection could not be made, so the request surely had no effect."""


class OutcomeUnknown(TransportError):
    """Say that a request was sent and its answer was lost: it may or may not have taken effect."""


class InvalidResponse(OutcomeUnknown):
    """An answer that cannot be used: it is not valid HTTP, or larger than its limit. The client never retries it.

    A write may have taken effect.
    """


@dataclass(frozen=True, slots=True)
class Cause:
    """Hold one entry of ``status.details.causes``: which field, why, in words."""

    reason: str
    message: str
    field: str = ""


class APIError(ReconcilerError):
    """Carry a failure that the API server answered with.

    Attributes:
        status: the HTTP status code.
        reason: the machine-readable reason of the Status object (``"NotFound"``), or ``""``.
        message: the server's own words.
        details: the Status object's ``details``, ``{}`` when there are none.
        causes: the entries of ``details.causes``.
        body: the decoded Status object, or None when the answer was not one.
        retry_after: seconds that the server asked to wait, 3600 at most; None if it did not.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        reason: str = "",
        body: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
        request: str = "",
    ) -> None:
        self.status = status
        self.reason = reason
        self.message = message
        self.body = body
        details = (body or {}).get("details") or {}
        self.details: Mapping[str, Any] = details if isinstance(details, Mapping) else {}
        self.causes: Sequence[Cause] = tuple(
            Cause(str(c.get("reason", "")), str(c.get("message", "")), str(c.get("field", "")))
            for c in self.details.get("causes") or ()
            if isinstance(c, Mapping)
        )
        self.retry_after = retry_after
        self.request = request
        head = f"{status} {reason}".rstrip()
        super().__init__(f"{request}: {head}: {message}" if request else f"{head}: {message}")


class BadRequest(APIError):
    """400: the request was malformed."""


class Unauthorized(APIError):
    """401: the credentials were not accepted."""


class Forbidden(APIError):
    """403: the credentials do not allow this verb on this resource."""


class NotFound(APIError):
    """404: the object, its namespace, its kind or the subresource does not exist."""


class NotServed(NotFound):
    """404 in plain text: nothing is served at this path, so it is the kind, not the object, that is missing."""


class MethodNotAllowed(APIError):
    """405: the resource does not support this verb."""


class NotAcceptable(APIError):
    """406: the server cannot answer in the form asked for."""


class Conflict(APIError):
    """409: the resourceVersion sent is not the stored one."""


class AlreadyExists(APIError):
    """409: an object of this name exists."""


class FieldManagerConflict(APIError):
    """409: an apply without force touches a field that another manager owns; repeating never helps."""


class Expired(APIError):
    """410: the resourceVersion or continue token asked for was compacted away."""


class RequestTooLarge(APIError):
    """413, or etcd's limit of about 1.5 MiB an object, which the server answers as a 500."""


class UnsupportedMediaType(APIError):
    """415: the server does not read this content type."""


class Invalid(APIError):
    """422: validation refused the object; `causes` names the fields."""


class TooManyRequests(APIError):
    """429: the server sheds load; `retry_after` says for how long, in seconds, if it said so."""


class ServerError(APIError):
    """5xx: the server failed; a write may or may not have been applied."""


class ServerUnavailable(ServerError):
    """503: the server or what stands before it is not ready."""


class ServerTimeout(ServerError):
    """504: the server gave up waiting."""


_BY_STATUS: dict[int, type[APIError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    405: MethodNotAllowed,
    406: NotAcceptable,
    410: Expired,
    413: RequestTooLarge,
    415: UnsupportedMediaType,
    422: Invalid,
    429: TooManyRequests,
    503: ServerUnavailable,
    504: ServerTimeout,
}


def error_from_response(
    status: int,
    body: Mapping[str, Any] | None = None,
    *,
    text: str = "",
    retry_after: float | None = None,
    request: str = "",
) -> APIError:
    """Make the typed error for a failed answer.

    Args:
        status: the HTTP status code, or the ``code`` of an ERROR event in a watch.
        body: the decoded Status object, if the answer was one.
        text: the beginning of the answer's text when it was not one.
        retry_after: the Retry-After header in seconds; without it, the ``retryAfterSeconds`` of the Status count. More
            than 3600 is 3600.
        request: verb and path, put before the message.
    """
    body = body if isinstance(body, Mapping) else None
    retry_after = _wait_asked(retry_after, body)
    reason = str((body or {}).get("reason") or "")
    message = str((body or {}).get("message") or text or "no message")
    cls = _BY_STATUS.get(status) or (ServerError if status >= 500 else APIError)
    if status == 404 and body is None:
        # For an object that is not there the server answers a Status; the plain "404 page not found" is the router's.
        cls, message = NotServed, "nothing is served at this path; is the CustomResourceDefinition installed?"
    error = cls(message, status=status, reason=reason, body=body, retry_after=retry_after, request=request)
    if status == 409:
        error = _conflict_kind(error)(
            message, status=status, reason=reason, body=body, retry_after=retry_after, request=request
        )
    elif status == 500 and "request is too large" in message:
        error = RequestTooLarge(
            message, status=status, reason=reason, body=body, retry_after=retry_after, request=request
        )
    return error


def _wait_asked(header: float | None, body: Mapping[str, Any] | None) -> float | None:
    details = (body or {}).get("details")
    asked = details.get("retryAfterSeconds") if header is None and isinstance(details, Mapping) else header
    if isinstance(asked, bool) or not isinstance(asked, (int, float)) or not asked >= 0:
        return None
    return float(min(asked, _LONGEST_RETRY_AFTER))


def _conflict_kind(error: APIError) -> type[APIError]:
    if error.reason == "AlreadyExists":
        return AlreadyExists
    if any(cause.reason == "FieldManagerConflict" for cause in error.causes):
        return FieldManagerConflict
    return Conflict
