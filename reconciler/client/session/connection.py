"""One connection to an API server, shared by clients: it sends requests, retries them and types their failures."""

from __future__ import annotations

import asyncio
import copy
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol, runtime_checkable

from reconciler._core.cycle import current_cycle
from reconciler._version import __version__
from reconciler.client.session.answers import failure
from reconciler.client.session.discovery import Discovery
from reconciler.client.session.memory import FieldTakeovers, InvalidItemLog, WarningLog, WrittenDocuments
from reconciler.client.session.retry import Attempts, Retries, RetryOn, is_unknown, may_retry, retry
from reconciler.client.session.server_clock import ServerClock
from reconciler.clock import Clock, current_clock
from reconciler.errors import ReconcilerError, TransportError, Unauthorized
from reconciler.http import HTTPRequest, HTTPResponse, Transport

__all__ = ["JSON", "TIMEOUT", "ClientStatistics", "Connection", "accept_header"]

JSON = "application/json"

TIMEOUT = 65.0
"""Seconds for one request: a little more than the API server's limit (``--request-timeout``, 60 s), to receive its
504."""

_RECONCILE_ID_HEADER = "x-reconcile-id"
"""Ignored by kube-apiserver; the request log of the embedded server shows it."""


@runtime_checkable
class _Renewable(Protocol):
    async def renew(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class ClientStatistics:
    """Counters of a client and of all that share its connection.

    Attributes:
        requests: requests sent, retries included.
        retries: requests sent because an earlier attempt failed.
        unanswered: requests without a response.
        refused: requests answered with a status of 400 or more.
        warnings: different warnings of the server that are remembered, at most 256.
    """

    requests: int
    retries: int
    unanswered: int
    refused: int
    warnings: int


class Connection:
    """A connection to one API server, with everything learned about it: kinds, warnings, clock, documents.

    Args:
        transport: sends the requests.
        credentials: renews the credentials, and limits the streams; the transport by default.
        user_agent: the User-Agent header.
        retries: how often and how fast requests are retried.
        clock: the current clock by default.
        rng: source of the jitter.

    Attributes:
        identity: identifies server and credentials; equal for connections derived by `through`.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        credentials: object | None = None,
        user_agent: str | None = None,
        retries: Retries | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.transport = transport
        self.identity = object()
        self.retries = retries or Retries()
        self.rng = rng or random.Random()  # noqa: S311 - jitter
        self.discovery = Discovery(self)
        self.written = WrittenDocuments()
        self.takeovers = FieldTakeovers()
        self.server_clock = ServerClock(lambda: self.clock)
        self.invalid_items = InvalidItemLog()
        self._warnings = WarningLog()
        self._credentials = credentials or transport  # kept by `through`: a wrapper need not know of credentials
        self._clock = clock
        self._counts: Counter[str] = Counter()
        self._headers = {"accept": JSON, "user-agent": user_agent or f"kube-reconciler/{__version__}"}

    @property
    def clock(self) -> Clock:
        """Return the source of time: the given one, or the current one."""
        return self._clock or current_clock()

    def through(self, transport: Transport, retries: Retries | None = None) -> Connection:
        """Return a connection with another transport, and other retries if given. Everything else is shared."""
        other = copy.copy(self)
        other.transport = transport
        other.retries = retries or self.retries
        return other

    @property
    def max_streams(self) -> int | None:
        """The limit of streams that the transport may have open at once; None for no limit."""
        return getattr(self._credentials, "max_streams", None)

    def monotonic(self) -> float:
        """Return the monotonic time in seconds, in which delays are measured."""
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
        """Return a request with this client's headers and timeout.

        Inside a reconcile, a header holds the reconcile id, which groups the requests in a request log.
        """
        headers = {**self._headers, "accept": accept}
        reconcile_id = getattr(current_cycle.get(), "reconcile_id", None)
        if reconcile_id is not None:
            headers[_RECONCILE_ID_HEADER] = reconcile_id
        if body:
            headers["content-type"] = content_type
        return HTTPRequest(method, path, query, headers, body, stream, TIMEOUT)

    async def send(self, request: HTTPRequest) -> HTTPResponse:
        """Send a request once and return the response, whatever its status. A cancelled call may have been executed."""
        if "user-agent" not in request.headers:
            request = replace(request, headers={**self._headers, **request.headers})
        self._counts["requests"] += 1
        sent = self.server_clock.steady_time()
        try:
            response = await self.transport.send(request)
        except TransportError:
            self._counts["unanswered"] += 1
            raise
        self._counts["refused"] += response.status >= 400
        if response.warnings:
            self._warnings.log(request, response.warnings)
        date = response.headers.get("date")
        if date is not None and self.server_clock.is_new(date):
            self.server_clock.record(date, sent=sent, received=self.server_clock.steady_time())
        return response

    async def once(self, request: HTTPRequest) -> HTTPResponse:
        """Send a request without retries and return a successful response.

        A request refused for its credentials (401) was not executed. If the credentials can be renewed, it is sent
        again. A cancelled call may have been executed.

        Raises:
            APIError: the server reported a failure.
            TransportError: there was no response.
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
        """Read the credentials again, if the transport can, and return whether they changed.

        A cancelled call leaves the credentials as they were.
        """
        return isinstance(self._credentials, _Renewable) and await self._credentials.renew()

    async def _exchange(self, request: HTTPRequest) -> HTTPResponse:
        response = await self.send(request)
        if 200 <= response.status < 300:
            return response
        await response.close()
        raise failure(request, response, self.now())

    async def execute(self, request: HTTPRequest, retry_on: RetryOn, attempts: Attempts | None = None) -> HTTPResponse:
        """Send a request, retry it where that is allowed, and return a successful response.

        A cancelled call may have been executed; it is not retried.

        Args:
            request: what to send.
            retry_on: the failures after which it is safe to send the request again.
            attempts: records whether an attempt may have taken effect.

        Raises:
            APIError: the server reported a failure in its last response.
            TransportError: there was no response to the last attempt.
        """

        async def send() -> HTTPResponse:
            try:
                return await self.once(request)
            except ReconcilerError as error:
                if attempts is not None and is_unknown(error):
                    attempts.unknown = True
                raise

        async def again() -> HTTPResponse:
            self._counts["retries"] += 1
            return await send()

        def allowed(error: BaseException) -> bool:
            return may_retry(error, retry_on)

        def left() -> float:
            return self.retries.deadline - (self.monotonic() - started)

        started = self.monotonic()
        try:
            return await send()
        except ReconcilerError as error:
            if self.retries.attempts == 1 or not allowed(error):
                raise
            first = error
        return await retry(again, first, retries=self.retries, allowed=allowed, left=left, rng=self.rng)

    def statistics(self) -> ClientStatistics:
        """Return the counters."""
        counts = self._counts
        return ClientStatistics(
            requests=counts["requests"],
            retries=counts["retries"],
            unanswered=counts["unanswered"],
            refused=counts["refused"],
            warnings=len(self._warnings),
        )


def accept_header(*, is_list: bool = False, metadata_only: bool) -> str:
    """Return the Accept header for whole objects or for their metadata alone."""
    if not metadata_only:
        return JSON
    return f"{JSON};as=PartialObjectMetadata{'List' if is_list else ''};g=meta.k8s.io;v=v1,{JSON}"
