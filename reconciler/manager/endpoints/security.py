"""Protection of the endpoints: TLS, tokens, and what the user of a token may do.

With ``authentication="kubernetes"`` the API server decides: a TokenReview names the user, a SubjectAccessReview its
permissions. Decisions are kept for a minute, refusals for ten seconds, in bounded numbers. A token is kept only as a
hash, and a decision about a path belongs to the user with all groups, not only to the name.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import logging
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import msgspec

from reconciler._core.lru import LRU
from reconciler._core.user_code import cancel_and_wait
from reconciler._core.wire import JSONObject
from reconciler.client import Client
from reconciler.clock import Clock
from reconciler.errors import ConfigurationError, ReconcilerError
from reconciler.http import HTTPRequest

_log = logging.getLogger("reconciler.manager")
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
S = TypeVar("S")


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSecurity:
    """TLS and authentication for ``/metrics``, ``/debug`` and the console. ``/healthz`` and ``/readyz`` stay open.

    ::

        EndpointSecurity(authentication="kubernetes")       # tokens of the cluster, and its RBAC
        EndpointSecurity(token_file="/etc/operator/token")  # one fixed token
        EndpointSecurity(certificates="/etc/operator/tls")  # TLS only

    Attributes:
        authentication: ``"kubernetes"``: clients send a bearer token of the cluster. A TokenReview checks it, and a
            SubjectAccessReview whether its user may ``get`` the path; grant that with ``nonResourceURLs`` in a
            ClusterRole. As controller-runtime's ``WithAuthenticationAndAuthorization``. Default: None.
        token: a bearer token that clients must send instead. Default: None.
        token_file: a file with that token, which is read again at each request. Default: None.
        certificates: a directory with ``tls.crt`` and ``tls.key``, which are reloaded when they change. Default: a new
            self-signed certificate at each start, which needs the extra ``tls``.
        tls: whether to serve HTTPS. False sends tokens in clear text: only for loopback, or behind a proxy that
            encrypts. Default True.

    Raises:
        ConfigurationError: the options contradict each other, or a token is empty or cannot be sent in a header.
    """

    authentication: Literal["kubernetes"] | None = None
    token: str | None = field(default=None, repr=False)
    token_file: str | os.PathLike[str] | None = None
    certificates: str | os.PathLike[str] | None = None
    tls: bool = True

    def __post_init__(self) -> None:
        if self.authentication not in (None, "kubernetes"):
            raise ConfigurationError(
                f"authentication={self.authentication!r} is not valid: use 'kubernetes', or a token"
            )
        if sum(each is not None for each in (self.authentication, self.token, self.token_file)) > 1:
            raise ConfigurationError("set only one of authentication, token and token_file")
        if self.certificates is not None and not self.tls:
            raise ConfigurationError("certificates are not used without TLS: omit certificates, or tls=False")
        if self.token is not None and not is_token(self.token):
            raise ConfigurationError("token is empty, or has characters that cannot be sent in a header")
        if self.token_file is not None:
            read_token(self.token_file)

    @property
    def authenticates(self) -> bool:
        """Return whether clients must send a token."""
        return bool(self.authentication or self.token or self.token_file)


def read_token(file: str | os.PathLike[str]) -> str:
    """Read the token in a file, without white space around it.

    Raises:
        ConfigurationError: the file cannot be read, or does not contain a token.
    """
    try:
        token = Path(file).read_text(encoding="ascii").strip()
    except OSError as error:
        raise ConfigurationError(f"token_file={str(file)!r}: cannot read the token: {error.strerror}") from error
    except ValueError:
        token = ""
    if not is_token(token):
        raise ConfigurationError(
            f"token_file={str(file)!r}: the file is empty, or has characters that cannot be sent in a header"
        ) from None
    return token


def is_token(token: str) -> bool:
    """Return whether it is not empty, and can be sent in a header."""
    return token.isascii() and token.isprintable() and " " not in token and token != ""


ACCEPTED_SECONDS = 60.0
"""How long a token or a permission is valid after a review; controller-runtime's number for tokens."""

REFUSED_SECONDS = 10.0
"""How long a refusal is valid: a granted permission takes effect soon."""

_TIMEOUT = 5.0
"""Seconds for a review; Prometheus gives a whole scrape 10 s by default."""

_MAX_DECISIONS = 1000
_MAX_REVIEWS = 16
"""Reviews in progress from which on unknown tokens are refused."""

_RATE, _BURST = 20.0, 30.0
"""Reviews of unknown tokens a second: those of controller-runtime's client for all of its requests.

The API server shares its time among users, so guessed tokens would slow down this process's own requests.
"""

_TOKENS = "/apis/authentication.k8s.io/v1/tokenreviews"
_ACCESS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"


class ReviewFailed(ReconcilerError):
    """The API server could not be asked, or its response is not a review."""


class ReviewedUser(msgspec.Struct, frozen=True, rename={"name": "username"}):
    """A user as a TokenReview describes it. All of it decides what the user may do.

    Attributes:
        name: the user name, such as ``system:serviceaccount:monitoring:prometheus``.
        uid: the unique id; ``""`` if there is none.
        groups: the groups, in the server's order.
        extra: further attributes.
    """

    name: str = ""
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: dict[str, tuple[str, ...]] = {}


class _TokenStatus(msgspec.Struct):
    authenticated: bool = False
    user: ReviewedUser = ReviewedUser()


class _AccessStatus(msgspec.Struct):
    allowed: bool
    denied: bool = False


class _Review(msgspec.Struct, Generic[S]):
    status: S


class _Claims(msgspec.Struct):
    exp: float | None = None


class _Decisions(Generic[K, V]):
    """Decisions with an expiry; the one unused for longest is dropped when there are too many."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._known: LRU[K, tuple[float, V]] = LRU(_MAX_DECISIONS)

    def __contains__(self, key: K) -> bool:
        """Return whether there is a decision, expired or not."""
        return key in self._known

    def get(self, key: K) -> V | None:
        until, value = self._known.get(key, (0.0, None))
        if value is None or until <= self._now():
            return None
        self._known.move_to_end(key)
        return value

    def put(self, key: K, value: V, seconds: float) -> None:
        self._known[key] = self._now() + seconds, value


class Reviewer:
    """The reviews of one process.

    Args:
        client: sends them; its identity needs ``create`` on both kinds of reviews.
    """

    def __init__(self, client: Client, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        # Separate, so that guessed tokens do not push out those that are in use.
        self._users: _Decisions[bytes, ReviewedUser] = _Decisions(clock.monotonic)
        self._invalid: _Decisions[bytes, bool] = _Decisions(clock.monotonic)
        self._access: _Decisions[tuple[bytes, str, str], tuple[bool]] = _Decisions(clock.monotonic)
        self._pending: dict[Hashable, asyncio.Task[Any]] = {}
        self._budget, self._budget_at = _BURST, clock.monotonic()

    async def user(self, token: str) -> ReviewedUser | None:
        """Return the user of a token; None if it is not valid. Cancellation leaves the review to others that wait.

        Raises:
            ReviewFailed: there is no decision.
        """
        key = hashlib.sha256(token.encode()).digest()
        if (known := self._users.get(key)) is not None:
            return known
        if self._invalid.get(key):
            return None
        if key not in self._pending and key not in self._users:
            self._spend()
        return await self._once(key, lambda: self._review_token(key, token))

    async def is_allowed(self, user: ReviewedUser, verb: str, path: str) -> bool:
        """Return whether a user may use a verb on a path. Cancellation leaves the review to others that wait.

        Raises:
            ReviewFailed: there is no decision.
        """
        key = msgspec.json.encode(user, order="deterministic"), verb, path
        if (known := self._access.get(key)) is not None:
            return known[0]
        return await self._once(key, lambda: self._review_access(key, user))

    async def close(self) -> None:
        """Cancel the reviews in progress."""
        await cancel_and_wait(list(self._pending.values()))

    def _spend(self) -> None:
        """Take the review of an unknown token from the budget.

        Raises:
            ReviewFailed: there are too many.
        """
        now = self._clock.monotonic()
        self._budget, self._budget_at = min(_BURST, self._budget + (now - self._budget_at) * _RATE), now
        if self._budget < 1 or len(self._pending) >= _MAX_REVIEWS:
            raise ReviewFailed("too many unknown tokens at once")
        self._budget -= 1

    async def _once(self, key: Hashable, review: Callable[[], Awaitable[S]]) -> S:
        """Run a review, or wait for the same one that is in progress already."""
        task = self._pending.get(key)
        if task is None:
            task = self._pending[key] = asyncio.ensure_future(review())
            task.add_done_callback(lambda done: self._forget(key, done))
        # Not awaited directly: the cancellation of one client would be that of all that wait.
        await asyncio.wait({task})
        if task.cancelled():
            raise ReviewFailed("the manager is stopping")
        result: S = task.result()
        return result

    def _forget(self, key: Hashable, task: asyncio.Task[Any]) -> None:
        del self._pending[key]
        if not task.cancelled():
            task.exception()  # else asyncio logs it if nobody waits any more

    async def _review_token(self, key: bytes, token: str) -> ReviewedUser | None:
        status = await self._send(_TOKENS, "TokenReview", {"token": token}, _Review[_TokenStatus])
        if not status.authenticated or not status.user.name:
            self._invalid.put(key, True, REFUSED_SECONDS)
            return None
        self._users.put(key, status.user, min(ACCEPTED_SECONDS, self._seconds_left(token)))
        return status.user

    async def _review_access(self, key: tuple[bytes, str, str], user: ReviewedUser) -> bool:
        _, verb, path = key
        spec = {
            "user": user.name,
            "uid": user.uid,
            "groups": user.groups,
            "extra": user.extra,
            "nonResourceAttributes": {"path": path, "verb": verb},
        }
        status = await self._send(_ACCESS, "SubjectAccessReview", spec, _Review[_AccessStatus])
        allowed = status.allowed and not status.denied
        self._access.put(key, (allowed,), ACCEPTED_SECONDS if allowed else REFUSED_SECONDS)
        return allowed

    async def _send(self, path: str, kind: str, spec: JSONObject, answer: type[_Review[S]]) -> S:
        """Create a review, and return its status."""
        group = path.split("/")[2]
        body = msgspec.json.encode({"apiVersion": f"{group}/v1", "kind": kind, "spec": spec})
        headers = {"content-type": "application/json", "accept": "application/json"}
        try:
            async with asyncio.timeout(_TIMEOUT):
                response = await self._client.send(
                    HTTPRequest("POST", path, headers=headers, body=body, timeout=_TIMEOUT)
                )
        except TimeoutError:
            raise ReviewFailed(f"the API server did not answer a {kind} within {_TIMEOUT:g} s") from None
        except ReconcilerError as error:
            raise ReviewFailed(f"the API server cannot be asked: {error}") from error
        if response.status == 403:
            plural = path.rpartition("/")[2]
            raise ReviewFailed(
                f"this process may not create {plural}.{group}: grant it; "
                "'reconciler manifests MODULE:ATTR --authentication kubernetes' prints the role"
            )
        if response.status != 201:
            raise ReviewFailed(f"the API server answered a {kind} with status {response.status}")
        try:
            return msgspec.json.decode(response.body, type=answer).status
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise ReviewFailed(f"the response to a {kind} is not valid") from None

    def _seconds_left(self, token: str) -> float:
        """Return the seconds until a JSON web token expires; infinity for other tokens.

        It is not verified here: it only shortens the time of a decision.
        """
        payload = token.split(".")[1] if token.count(".") == 2 else ""
        try:
            claims = msgspec.json.decode(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)), type=_Claims)
        except (ValueError, msgspec.MsgspecError, RecursionError):
            return float("inf")
        if claims.exp is None:
            return float("inf")
        server_time = self._clock.now() + self._client.clock_offset  # the server issued the token
        return claims.exp - server_time.timestamp()


_LOG_INTERVAL = 60.0
"""Seconds between two log lines about refusals with the same status; those between are counted."""


class AccessRefused(Exception):
    """A request that is refused. The message is for the client and shows no token.

    Attributes:
        status: 401 without a valid token, 403 without permission, 503 without a decision.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Guard:
    """A check of the tokens of requests. Without a decision of the API server a request is refused.

    A client sends ``Authorization: Bearer TOKEN``; a browser, which asks its user, sends the token as the password of
    ``Basic``, with any user name.
    """

    def __init__(self, security: EndpointSecurity, reviewer: Reviewer, clock: Clock) -> None:
        self._security = security
        self._reviewer = reviewer
        self._clock = clock
        self._logged: dict[int, float] = {}
        self._unlogged: Counter[int] = Counter()

    async def admit(self, method: str, path: str, authorization: Sequence[str]) -> str | None:
        """Return the name of the user whose request is admitted; None if clients do not authenticate.

        Args:
            method: of HTTP; HEAD needs the permission of GET.
            path: the path of the endpoint, not what follows it: permissions are for whole endpoints.
            authorization: all headers of this name.

        Raises:
            AccessRefused: the request is refused.
        """
        if not self._security.authenticates:
            return None
        try:
            return await self._admit(method, path, authorization)
        except AccessRefused as refusal:
            self._log_refusal(path, refusal)
            raise

    async def close(self) -> None:
        """Cancel the reviews in progress."""
        await self._reviewer.close()

    async def _admit(self, method: str, path: str, authorization: Sequence[str]) -> str:
        token = _token_of(authorization)
        if token is None:
            raise AccessRefused(401, "send 'Authorization: Bearer TOKEN'")
        if self._security.authentication is None:
            if not _equal(token, self._fixed_token()):
                raise AccessRefused(401, "the token is not valid")
            return "token"
        verb = "get" if method == "HEAD" else method.lower()
        try:
            user = await self._reviewer.user(token)
            if user is None:
                raise AccessRefused(401, "the token is not valid, or has expired")
            if not await self._reviewer.is_allowed(user, verb, path):
                raise AccessRefused(
                    403, f"{user.name!r} may not {verb} {path}: grant it with nonResourceURLs in a ClusterRole"
                )
        except ReviewFailed as error:
            raise AccessRefused(
                503, "the token cannot be checked now; the log of this process has the reason"
            ) from error
        return user.name

    def _fixed_token(self) -> str:
        if self._security.token_file is None:
            return self._security.token or ""
        try:
            return read_token(self._security.token_file)
        except ConfigurationError as error:
            raise AccessRefused(
                503, "the token cannot be checked now; the log of this process has the reason"
            ) from error

    def _log_refusal(self, path: str, refusal: AccessRefused) -> None:
        status, now = refusal.status, self._clock.monotonic()
        if now - self._logged.get(status, -_LOG_INTERVAL) < _LOG_INTERVAL:
            self._unlogged[status] += 1
            return
        more = self._unlogged.pop(status, 0)
        text = f"; {more} more since the last such line" if more else ""
        _log.warning("refused a request for %s with %d: %s%s", path, status, refusal.__cause__ or refusal, text)
        self._logged[status] = now


def _token_of(authorization: Sequence[str]) -> str | None:
    """Return the token of a request; None if there is none, or several headers."""
    if len(authorization) != 1:
        return None
    token = (sent_token(authorization[0]) or "").strip()
    return token if is_token(token) else None


def sent_token(header: str) -> str | None:
    """Return what an ``Authorization`` header proves its sender with: a bearer token, or the password of ``Basic``."""
    scheme, _, value = header.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(value.strip(), validate=True).decode().partition(":")[2]
    except (binascii.Error, ValueError):
        return None


def _equal(one: str, other: str) -> bool:
    """Return whether two tokens are equal, in a time that does not depend on either."""
    return hmac.compare_digest(hashlib.sha256(one.encode()).digest(), hashlib.sha256(other.encode()).digest())
