"""The guard of protected endpoints: it admits a request, or refuses it with a status and a reason."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import logging
from collections import Counter
from collections.abc import Sequence

from reconciler.clock import Clock
from reconciler.errors import ConfigurationError
from reconciler.manager.endpoints.reviews import Reviewer, ReviewFailed
from reconciler.manager.endpoints.security import EndpointSecurity, is_token, read_token

__all__ = ["Guard", "Refusal", "sent_token"]

_log = logging.getLogger("reconciler.manager")

_LOG_INTERVAL = 60.0
"""Seconds between two log lines about refusals with the same status; those between are counted."""


class Refusal(Exception):
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
            Refusal: the request is refused.
        """
        if not self._security.authenticates:
            return None
        try:
            return await self._admit(method, path, authorization)
        except Refusal as refusal:
            self._log_refusal(path, refusal)
            raise

    async def close(self) -> None:
        """Cancel the reviews in progress."""
        await self._reviewer.close()

    async def _admit(self, method: str, path: str, authorization: Sequence[str]) -> str:
        token = _token_of(authorization)
        if token is None:
            raise Refusal(401, "send 'Authorization: Bearer TOKEN'")
        if self._security.authentication is None:
            if not _equal(token, self._fixed_token()):
                raise Refusal(401, "the token is not valid")
            return "token"
        verb = "get" if method == "HEAD" else method.lower()
        try:
            user = await self._reviewer.user(token)
            if user is None:
                raise Refusal(401, "the token is not valid, or has expired")
            if not await self._reviewer.is_allowed(user, verb, path):
                raise Refusal(
                    403, f"{user.name!r} may not {verb} {path}: grant it with nonResourceURLs in a ClusterRole"
                )
        except ReviewFailed as error:
            raise Refusal(503, "the token cannot be checked now; the log of this process has the reason") from error
        return user.name

    def _fixed_token(self) -> str:
        if self._security.token_file is None:
            return self._security.token or ""
        try:
            return read_token(self._security.token_file)
        except ConfigurationError as error:
            raise Refusal(503, "the token cannot be checked now; the log of this process has the reason") from error

    def _log_refusal(self, path: str, refusal: Refusal) -> None:
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
