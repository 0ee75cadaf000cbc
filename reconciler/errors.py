"""The errors of this library; packages with errors of their own derive them from `ReconcilerError`.

The tree::

    ReconcilerError
    ├── ConfigurationError            a kubeconfig, option or file is unusable
    ├── MissingExtra                  an optional dependency is not installed
    ├── TerminalError                 raised by a reconciler: a retry cannot help
    ├── TransportError
    │   ├── NotSent                   no connection: a retry is safe
    │   └── OutcomeUnknown            sent, but the response was lost: it may have taken effect
    │       └── InvalidResponse       a response: not valid HTTP, or too large
    └── APIError                      the server answered with a failure
        ├── BadRequest                400
        ├── Unauthorized              401
        ├── Forbidden                 403
        ├── NotFound                  404
        │   └── NotServed             404 in plain text: the path is not served
        ├── MethodNotAllowed          405
        ├── NotAcceptable             406
        ├── Conflict                  409: a stale resourceVersion
        ├── AlreadyExists             409: on create
        ├── FieldManagerConflict      409: another manager owns an applied field
        ├── Expired                   410: the requested version was compacted
        ├── RequestTooLarge           413
        ├── UnsupportedMediaType      415
        ├── Invalid                   422
        ├── TooManyRequests           429
        └── ServerError               every 5xx
            ├── ServerUnavailable     503
            └── ServerTimeout         504
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
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


_MAX_RETRY_AFTER = 3600.0  # as in reconciler._core.backoff; leaf modules do not import one another


def error_text(error: BaseException) -> str:
    """Return the text of an exception, or its type's name if the text is empty or ``__str__`` raises.

    Use it for exceptions of foreign code: a failing ``__str__`` must not end the code that reports the exception.
    """
    try:
        return str(error) or type(error).__name__
    except Exception:  # noqa: BLE001 - foreign code
        return type(error).__name__


def describe_error(error: BaseException) -> str:
    """Return the type and the text of an exception for a log line; only the type if the text is empty.

    For a group, as of a TaskGroup, its first three exceptions follow: its own text only has their number.
    """
    name, text = type(error).__name__, error_text(error)
    described = name if text == name else f"{name}: {text}"
    if not isinstance(error, BaseExceptionGroup):
        return described
    return f"{described}: {'; '.join(map(describe_error, error.exceptions[:3]))}"


class RepeatedFailures:
    """A log of the failures of user code that is called again and again: only the first is logged above DEBUG.

    Args:
        logger: the logger.
        level: of the first failure.
        message: what failed and what follows from it, with placeholders. The error is appended.
    """

    def __init__(self, logger: logging.Logger, level: int, message: str) -> None:
        self._logger = logger
        self._level = level
        self._message = f"{message}: %s"
        self._logged: set[Hashable] = set()

    def log(self, error: BaseException, *arguments: object, kind: Hashable = None) -> None:
        """Log a failure with its traceback. The arguments fill the placeholders; each kind has a first failure."""
        level = logging.DEBUG if kind in self._logged else self._level
        self._logged.add(kind)
        self._logger.log(level, self._message, *arguments, describe_error(error), exc_info=error, stacklevel=2)


class ReconcilerError(Exception):
    """The base of every error that this library raises on purpose.

    Attributes:
        retry_after: seconds that the server asked to wait before the next attempt; None if it did not. A controller
            whose reconcile raises the error waits at least that long.
    """

    retry_after: float | None = None


class ConfigurationError(ReconcilerError):
    """A kubeconfig, option or file is unusable; the message says what to do."""


_GLIBC_ONLY = "needs glibc: on Alpine use an image such as python:3.13-slim"


class MissingExtra(ReconcilerError):
    """An optional dependency is missing; the message is the command that installs it.

    Args:
        module: the import name that was not found.
        extra: the distribution's extra that installs it.
        purpose: what needs it, as the subject of a sentence.
        problem: why it cannot be imported although it was found. Default: it was not found.
    """

    def __init__(self, module: str, *, extra: str, purpose: str, problem: str = "") -> None:
        where = f" ({_GLIBC_ONLY})" if extra in ("cel", "re2") else ""
        why = f". What is installed cannot be imported: {problem}" if problem else ""
        super().__init__(f"{purpose} needs {module}: pip install 'kube-reconciler[{extra}]'{where}{why}")
        self.module = module
        self.extra = extra


class _Importing:
    def __init__(self, extra: str, purpose: str, module: str) -> None:
        self._extra, self._purpose, self._module = extra, purpose, module

    def __enter__(self) -> None: ...

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, ImportError):
            missing = (error.name or "a library").partition(".")[0]
            if missing != "reconciler":
                problem = "" if isinstance(error, ModuleNotFoundError) else str(error)
                module = self._module or missing
                raise MissingExtra(module, extra=self._extra, purpose=self._purpose, problem=problem) from error


def importing(*, extra: str, purpose: str, module: str = "") -> _Importing:
    """Return a context for imports of an optional dependency.

    Args:
        extra: the distribution's extra that installs it.
        purpose: what needs it, as the subject of a sentence.
        module: what the error names. Default: the module that was not found.

    Raises:
        MissingExtra: at the end of the block, if an import in it failed.
    """
    return _Importing(extra, purpose, module)


class TerminalError(ReconcilerError):
    """An error that a retry cannot fix: the controller reports it and waits for the next event of the key.

    Only a change reconciles the key again: a change of the object by someone else, or of an object that the controller
    watches for it. The key's earlier failures and its timer are cleared. Explicit requests stay: ``Controller.enqueue``
    during the reconcile, with or without a delay. An ExceptionGroup is terminal if all of its exceptions are. Chain the
    cause with ``raise TerminalError("…") from error``.
    """


class TransportError(ReconcilerError):
    """A request got no response."""


class NotSent(TransportError):
    """The connection could not be made, so the request certainly had no effect."""


class OutcomeUnknown(TransportError):
    """A request was sent and its response was lost; it may or may not have taken effect."""


class InvalidResponse(OutcomeUnknown):
    """An unusable response: it is not valid HTTP, or larger than its limit. The client never retries it.

    A write may have taken effect.
    """


@dataclass(frozen=True, slots=True)
class Cause:
    """An entry of ``status.details.causes``: the reason, the message and the field."""

    reason: str
    message: str
    field: str = ""


class APIError(ReconcilerError):
    """A failure that the API server answered with.

    Attributes:
        status: the HTTP status code.
        reason: the machine-readable reason of the Status object (``"NotFound"``), or ``""``.
        message: the server's message.
        details: the ``details`` of the Status object; ``{}`` if there are none.
        causes: the entries of ``details.causes``.
        body: the decoded Status object; None if the response was not one.
        retry_after: seconds that the server asked to wait, 3600 at most; None if it did not.
        request: verb and path, or ``""``.
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
        self.causes = _causes(body)
        self.retry_after = retry_after
        self.request = request
        head = f"{status} {reason}".rstrip()
        super().__init__(f"{request}: {head}: {message}" if request else f"{head}: {message}")


class BadRequest(APIError):
    """400: the request was malformed."""


class Unauthorized(APIError):
    """401: the credentials were rejected."""


class Forbidden(APIError):
    """403: the credentials do not allow this verb on this resource."""


class NotFound(APIError):
    """404: the object, its namespace, its kind or the subresource does not exist."""


class NotServed(NotFound):
    """404 in plain text: nothing is served at this path; the kind is missing, not the object."""


class MethodNotAllowed(APIError):
    """405: the resource does not support this verb."""


class NotAcceptable(APIError):
    """406: the server does not support the requested format."""


class Conflict(APIError):
    """409: the resourceVersion sent is not the stored one."""


class AlreadyExists(APIError):
    """409: an object with this name exists."""


class FieldManagerConflict(APIError):
    """409: an apply without force changes a field of another manager; a retry never helps."""


class Expired(APIError):
    """410: the requested resourceVersion or continue token was compacted."""


class RequestTooLarge(APIError):
    """413, or etcd's limit of about 1.5 MiB per object, which the server answers with a 500."""


class UnsupportedMediaType(APIError):
    """415: the server does not support this content type."""


class Invalid(APIError):
    """422: validation rejected the object; `causes` names the fields, and the text those that the message does not."""

    def __str__(self) -> str:
        """Return the message, and the first ten causes that are not a part of it."""
        known = super().__str__()
        causes = [each for each in self.causes if each.message and each.message not in self.message]
        shown = "; ".join(f"{each.field}: {each.message}" if each.field else each.message for each in causes[:10])
        return f"{known} ({shown}{'; …' if len(causes) > 10 else ''})" if shown else known


class TooManyRequests(APIError):
    """429: the server sheds load; `retry_after` has the seconds to wait, if the server sent them."""


class ServerError(APIError):
    """5xx: the server failed; a write may or may not have taken effect."""


class ServerUnavailable(ServerError):
    """503: the server, or a proxy in front of it, is not ready."""


class ServerTimeout(ServerError):
    """504: the server timed out."""


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
    """Return the typed error for a failed response.

    Args:
        status: the HTTP status code, or the ``code`` of an ERROR event in a watch.
        body: the decoded Status object, if the response was one.
        text: the beginning of the response's text if it was not one.
        retry_after: the Retry-After header in seconds; without it, ``retryAfterSeconds`` of the Status applies. The
            maximum is 3600.
        request: verb and path, prepended to the message.
    """
    body = body if isinstance(body, Mapping) else None
    retry_after = _wait_asked(retry_after, body)
    reason = str((body or {}).get("reason") or "")
    message = str((body or {}).get("message") or text or "no message")
    cls = _BY_STATUS.get(status) or (ServerError if status >= 500 else APIError)
    if status == 404 and body is None:
        # A missing object is answered with a Status; the plain "404 page not found" comes from the router.
        cls, message = NotServed, "nothing is served at this path; is the CustomResourceDefinition installed?"
    elif status == 409:
        cls = _conflict_kind(reason, body)
    elif status == 500 and "request is too large" in message:
        cls = RequestTooLarge
    return cls(message, status=status, reason=reason, body=body, retry_after=retry_after, request=request)


def _wait_asked(header: float | None, body: Mapping[str, Any] | None) -> float | None:
    details = (body or {}).get("details")
    asked = details.get("retryAfterSeconds") if header is None and isinstance(details, Mapping) else header
    if isinstance(asked, bool) or not isinstance(asked, (int, float)) or not asked >= 0:
        return None
    return float(min(asked, _MAX_RETRY_AFTER))


def _conflict_kind(reason: str, body: Mapping[str, Any] | None) -> type[APIError]:
    if reason == "AlreadyExists":
        return AlreadyExists
    return FieldManagerConflict if any(c.reason == "FieldManagerConflict" for c in _causes(body)) else Conflict


def _causes(body: Mapping[str, Any] | None) -> Sequence[Cause]:
    details = (body or {}).get("details")
    causes = details.get("causes") if isinstance(details, Mapping) else ()
    return tuple(
        Cause(str(c.get("reason", "")), str(c.get("message", "")), str(c.get("field", "")))
        for c in (causes if isinstance(causes, (list, tuple)) else ())
        if isinstance(c, Mapping)
    )
