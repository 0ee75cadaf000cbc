"""Speak to one API server: headers, timeouts, typed failures, repetition where it is safe."""

from __future__ import annotations

import asyncio
import copy
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol, runtime_checkable

from reconciler._version import __version__
from reconciler.client.session.answers import WarningLog, failure
from reconciler.client.session.discovery import Discovery
from reconciler.client.session.listing import InvalidLog
from reconciler.client.session.retry import Repeat, RetryPolicy, Trail, is_unknown, may_repeat
from reconciler.client.session.server_time import ServerTime
from reconciler.client.session.settled import Settled
from reconciler.client.session.takeover import Takeovers
from reconciler.clock import Clock, current_clock
from reconciler.errors import ReconcilerError, TransportError, Unauthorized
from reconciler.http import HTTPRequest, HTTPResponse, Transport
from reconciler.meta import current_cycle

__all__ = ["JSON", "TIMEOUT", "ClientStatistics", "Connection", "accepted"]

JSON = "application/json"

_CYCLE_HEADER = "x-reconcile-id"
"""The real server ignores it; the log of the embedded one reads it."""

TIMEOUT = 65.0
"""Seconds for one exchange: a little over the API server's own limit (``--request-timeout``, 60 s), to hear its 504."""


@runtime_checkable
class _Renewing(Protocol):
    async def renew(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class ClientStatistics:
    """Count what a client did, together with those that share its connection.

    Attributes:
        requests: sent, repetitions included.
        repetitions: of them, how many were sent because an earlier one failed.
        unanswered: how many brought no answer.
        refused: how many were answered with 400 and above.
        warnings: different warnings of the server that are remembered, at most 256.
    """

    requests: int
    repetitions: int
    unanswered: int
    refused: int
    warnings: int


class Connection:
    """Carry the requests of one client, and of those that share it.

    Attributes:
        invalid: logs the objects that lists leave out.
        identity: names the server and the credentials; equal for connections made of one another.

    Args:
        transport: sends them.
        user_agent: the User-Agent header.
        retry: how often and how fast to repeat.
        clock: the clock in force by default.
        rng: source of the jitter.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        user_agent: str | None = None,
        retry: RetryPolicy | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.transport = transport
        self._credentials: object = transport  # kept by `through`: what is put around it need not know of them
        self.identity = object()  # kept by `through`: the same server and the same credentials
        self.retry = retry or RetryPolicy()
        self.rng = rng or random.Random()  # noqa: S311 - jitter
        self.discovery = Discovery(self)
        self.settled = Settled()
        self.takeovers = Takeovers()
        self.server_time = ServerTime()
        self._clock = clock
        self._warnings = WarningLog()
        self.invalid = InvalidLog()
        self._counts: Counter[str] = Counter()
        self._headers = {"accept": JSON, "user-agent": user_agent or f"kube-reconciler/{__version__}"}

    def through(self, transport: Transport, retry: RetryPolicy | None = None) -> Connection:
        """Return a connection that differs in its transport, and in its policy if one is given; the rest is shared."""
        other = copy.copy(self)
        other.transport = transport
        other.retry = retry or self.retry
        return other

    @property
    def max_streams(self) -> int | None:
        """Return how many streams the transport may have open at once; None if it has no limit."""
        return getattr(self._credentials, "max_streams", None)

    def monotonic(self) -> float:
        """Return the time that delays are measured in."""
        return (self._clock or current_clock()).monotonic()

    def now(self) -> datetime:
        """Return the wall time."""
        return (self._clock or current_clock()).now()

    def request(
        self,
        method: str,
        path: str,
        query: Sequence[tuple[str, str]] = (),
        *,
        body: bytes = b"",
        content_type: str = JSON,
        accept: str = JSON,
        stream: bool = False,
    ) -> HTTPRequest:
        """Make a request with the headers and the timeout of this client.

        Inside a reconcile it carries the reconcile's id in a header, by which a log of requests can be read in cycles.
        """
        headers = {**self._headers, "accept": accept}
        cycle = getattr(current_cycle.get(), "reconcile_id", None)
        if cycle is not None:
            headers[_CYCLE_HEADER] = cycle
        if body:
            headers["content-type"] = content_type
        return HTTPRequest(method, path, query, headers, body, stream, TIMEOUT)

    async def send(self, request: HTTPRequest) -> HTTPResponse:
        """Send once; return the answer whatever its status. A cancelled call may have been executed."""
        if "user-agent" not in request.headers:
            request = replace(request, headers={**self._headers, **request.headers})
        self._counts["requests"] += 1
        sent = self.monotonic()
        try:
            response = await self.transport.send(request)
        except TransportError:
            self._counts["unanswered"] += 1
            raise
        self._counts["refused"] += response.status >= 400
        if response.warnings:
            self._warnings.take(request, response.warnings)
        date = response.headers.get("date")
        if date is not None and self.server_time.is_news(date):
            received = self.now()
            self.server_time.heard(date, sent=received - timedelta(seconds=self.monotonic() - sent), received=received)
        return response

    async def once(self, request: HTTPRequest) -> HTTPResponse:
        """Send until it is executed or fails, never twice; return a successful answer.

        A request that is refused for its credentials was not executed: if the transport can renew them, it is sent
        again. A cancelled call may have been executed.

        Raises:
            APIError: the server's failure, typed.
            TransportError: no answer.
        """
        try:
            return await self._exchange(request)
        except Unauthorized:
            try:
                async with asyncio.timeout(request.timeout):
                    renewed = await self.renew()
            except TimeoutError:
                renewed = False
            if not renewed:
                raise
        return await self._exchange(request)

    async def renew(self) -> bool:
        """Let the transport read its credentials anew, if it can; say whether they are others now.

        A cancelled call leaves those that were there.
        """
        return isinstance(self._credentials, _Renewing) and await self._credentials.renew()

    async def _exchange(self, request: HTTPRequest) -> HTTPResponse:
        response = await self.send(request)
        if 200 <= response.status < 300:
            return response
        await response.close()
        raise failure(request, response, self.now())

    async def execute(self, request: HTTPRequest, repeat: Repeat, trail: Trail | None = None) -> HTTPResponse:
        """Send, and repeat where the policy and `repeat` allow it; return a successful answer.

        A cancelled call may have been executed; it repeats nothing.

        Args:
            request: what to send.
            repeat: after which failures it is harmless to send it again.
            trail: is told when an attempt may have taken effect.

        Raises:
            APIError: the server's last failure, typed.
            TransportError: the last attempt brought no answer.
        """

        async def send() -> HTTPResponse:
            try:
                return await self.once(request)
            except ReconcilerError as error:
                if trail is not None and is_unknown(error):
                    trail.unknown = True
                raise

        def allowed(error: BaseException) -> bool:
            return may_repeat(error, repeat)

        began = self.monotonic()
        try:
            return await send()
        except ReconcilerError as error:
            if self.retry.attempts == 1 or not allowed(error):
                raise
            first = error
        # Loading tenacity takes 50 ms, and most programs never need it.
        from reconciler.client.session.repeating import repeat as go_on

        async def again() -> HTTPResponse:
            self._counts["repetitions"] += 1
            return await send()

        def left() -> float:
            return self.retry.deadline - (self.monotonic() - began)

        return await go_on(again, first, policy=self.retry, may_repeat=allowed, left=left, rng=self.rng)

    def statistics(self) -> ClientStatistics:
        """Return what was counted so far."""
        counts = self._counts
        return ClientStatistics(
            requests=counts["requests"],
            repetitions=counts["repetitions"],
            unanswered=counts["unanswered"],
            refused=counts["refused"],
            warnings=len(self._warnings),
        )


def accepted(suffix: str, *, metadata_only: bool) -> str:
    """Return the Accept header for whole objects, or for their metadata alone; `suffix` is ``"List"`` or empty."""
    return f"{JSON};as=PartialObjectMetadata{suffix};g=meta.k8s.io;v=v1,{JSON}" if metadata_only else JSON
