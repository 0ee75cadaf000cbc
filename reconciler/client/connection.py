"""One connection to an API server, shared by clients: requests, retries, typed failures, discovery of kinds, its clock.

A time that one machine stores is read by another. A due time means the same on both if both use the server's clock,
which `ServerClock` estimates from the ``Date`` of responses.
"""

from __future__ import annotations

import asyncio
import copy
import difflib
import email.utils
import logging
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, runtime_checkable

from reconciler._version import __version__
from reconciler.client.memory import InvalidItemLog, Reported, WrittenDocuments, warning_text
from reconciler.client.requests import decode, failure
from reconciler.client.retry import Retries, RetryOn, RetryState, is_unknown, may_retry, retry
from reconciler.clock import Clock, boottime_of, current_clock
from reconciler.errors import APIError, NotServed, OutcomeUnknown, ReconcilerError, TransportError
from reconciler.http import HTTPRequest, HTTPResponse, Transport
from reconciler.meta import GroupVersionKind
from reconciler.meta.cycle import current_cycle
from reconciler.meta.metadata import ResourceType
from reconciler.objects import InvalidObject

_Kinds = dict[str, ResourceType]

_BURST = 10
_PER_SECOND = 1.0

_VERSION_TIMEOUT = 5.0
_VERSION_PAUSE = 60.0
"""Seconds for the server's version, which is answered from memory, and until it is asked for again."""

_PAGES_CACHED_SINCE = 34
"""The minor version of Kubernetes whose API server reads pages from snapshots of its cache (ListFromCacheSnapshot)."""


class _GroupVersion:
    """The discovered kinds of one API group and version.

    Attributes:
        kinds: its kinds by name; None before the first response.
        asked: when the newest response was asked for, in lookups of the whole client.
        lock: held during a request.
        tokens: requests that may be sent at once.
        filled: when `tokens` was last computed.
    """

    def __init__(self) -> None:
        self.kinds: _Kinds | None = None
        self.asked = -1
        self.lock = asyncio.Lock()
        self.tokens = float(_BURST)
        self.filled = 0.0


class DiscoveryCache:
    """A memory of how kinds are served.

    Each group and version is discovered separately, so that one that fails affects no other. That a kind is *not*
    served is never answered from memory: it may just have been installed. Instead, discovery of an unknown kind is
    rate-limited per group and version: ten lookups at once, then one per second.

    Args:
        connection: sends the requests.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._groups: defaultdict[tuple[str, str], _GroupVersion] = defaultdict(_GroupVersion)
        self._lookups = 0
        self._pages_are_cached: bool | None = None
        self._asking_version = asyncio.Lock()
        self._version_failed = False  # the last time
        self._ask_version_at = 0.0

    async def pages_are_cached(self) -> bool:
        """Return whether the server answers the pages of a list from memory: Kubernetes 1.34 and newer do.

        The server's version is asked for once. A server that refuses to tell it counts as an older one, and so does
        for a minute one that does not answer twice in a row, since a proxy may not let the request pass.

        Raises:
            TransportError: there was no response within 5 s, for the first time.
        """
        async with self._asking_version:
            if self._pages_are_cached is None and self._connection.clock.monotonic() >= self._ask_version_at:
                request = self._connection.request("GET", "/version")
                try:
                    async with asyncio.timeout(_VERSION_TIMEOUT):
                        info = decode(request, await self._connection.once(request))
                except (APIError, InvalidObject):
                    return False
                except (TransportError, TimeoutError) as error:
                    if not self._version_failed:
                        self._version_failed = True
                        if isinstance(error, TransportError):
                            raise
                        raise OutcomeUnknown(f"no response to GET /version within {_VERSION_TIMEOUT:g} s") from None
                    self._version_failed = False
                    self._ask_version_at = self._connection.clock.monotonic() + _VERSION_PAUSE
                    return False
                self._pages_are_cached = _minor_version(info) >= _PAGES_CACHED_SINCE
        return bool(self._pages_are_cached)

    async def find(self, gvk: GroupVersionKind) -> ResourceType:
        """Discover how a kind is served, unless it is known. Cancellation leaves what was known before.

        Raises:
            NotServed: the server does not serve the kind.
            APIError: discovery of its group failed for another reason.
            TransportError: there was no response.
        """
        group = self._groups[gvk.group, gvk.version]
        found = (group.kinds or {}).get(gvk.kind)
        if found is not None:
            return found
        self._lookups += 1
        lookup = self._lookups
        async with group.lock:
            # A response that was asked for after this call began is as good as one of its own.
            if group.asked < lookup:
                await self._ask(group, gvk)
            found = (group.kinds or {}).get(gvk.kind)
        if found is None:
            raise self._not_served(gvk)
        return found

    def known(self) -> list[ResourceType]:
        """Return the kinds that were discovered. Thread-safe."""
        return [each for group in list(self._groups.values()) for each in list((group.kinds or {}).values())]

    def forget(self, gvk: GroupVersionKind) -> None:
        """Discover a kind again when it is next used: what was known of it proved wrong."""
        (self._groups[gvk.group, gvk.version].kinds or {}).pop(gvk.kind, None)

    async def _ask(self, group: _GroupVersion, gvk: GroupVersionKind) -> None:
        await asyncio.sleep(self._wait(group))
        self._lookups += 1
        asked = self._lookups
        request = self._connection.request("GET", gvk.path)
        try:
            response = await self._connection.execute(request, RetryOn.UNKNOWN)
        except NotServed:
            group.kinds = {}
        else:
            group.kinds = _kinds(gvk, decode(request, response).get("resources"))
        group.asked = asked

    def _wait(self, group: _GroupVersion) -> float:
        """Take a token and return the seconds until it is available."""
        now = self._connection.clock.monotonic()
        group.tokens = min(_BURST, group.tokens + max(0.0, now - group.filled) * _PER_SECOND) - 1
        group.filled = now
        return max(0.0, -group.tokens / _PER_SECOND)

    def _not_served(self, gvk: GroupVersionKind) -> NotServed:
        kinds = self._groups[gvk.group, gvk.version].kinds
        if not kinds:
            hint = f"the server does not serve {gvk.api_version}; is the CustomResourceDefinition installed?"
        else:
            similar = difflib.get_close_matches(gvk.kind, kinds, n=1) or sorted(kinds)[:5]
            hint = f"{gvk.api_version} has no such kind, but {', '.join(similar)}"
        return NotServed(f"{gvk} is not served: {hint}", status=404, request=f"GET {gvk.path}")


def _minor_version(info: Mapping[str, Any]) -> int:
    """Return the minor version that a server behaves as; providers append a plus sign (``"34+"``)."""
    digits = str(info.get("emulationMinor") or info.get("minor") or "").rstrip("+")
    return int(digits) if digits.isdecimal() and len(digits) < 10 else 0  # int() refuses thousands of digits


def _kinds(gvk: GroupVersionKind, resources: Any) -> _Kinds:
    """Return the kinds in an APIResourceList. A name with a slash is a subresource of the resource before the slash.

    Malformed entries are left out, since an aggregated API server is foreign code.
    """
    subresources: dict[str, set[str]] = {}
    plurals: dict[str, Mapping[str, Any]] = {}
    for resource in resources if isinstance(resources, list) else ():
        if not isinstance(resource, dict) or not resource.get("name"):
            continue
        plural, _, subresource = str(resource["name"]).partition("/")
        if subresource:
            subresources.setdefault(plural, set()).add(subresource)
        else:
            plurals.setdefault(str(resource.get("kind") or ""), resource)
    return {
        kind: ResourceType(
            GroupVersionKind(gvk.group, gvk.version, kind),
            str(resource["name"]),
            bool(resource.get("namespaced")),
            frozenset(subresources.get(str(resource["name"]), ())),
            str(resource.get("singularName") or ""),
            tuple(map(str, names if isinstance(names := resource.get("shortNames"), list) else ())),
        )
        for kind, resource in plurals.items()
    }


JSON = "application/json"

TIMEOUT = 65.0
"""Seconds for one request: a little more than the API server's limit (``--request-timeout``, 60 s), to receive its
504."""

_RECONCILE_ID_HEADER = "x-reconcile-id"
"""Ignored by kube-apiserver; the request log of the embedded server shows it."""


@runtime_checkable
class _Renewable(Protocol):
    async def renew(self) -> bool: ...


_logger = logging.getLogger("reconciler.client")


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


_MAX_WARNINGS = 256

_LOGGED_SKEW = timedelta(seconds=2)
"""A larger skew is logged: certificates, leases and log lines suffer from it too."""

_RESOLUTION = timedelta(seconds=1)
"""``Date`` is truncated to whole seconds."""

_STEP = timedelta(seconds=0.1)
"""A smaller difference between wall clock and boot time is the time between two readings, not a step."""

_ZERO = timedelta()


class ServerClock:
    """The offset of the API server's clock, bounded by each response whose ``Date`` differs from the one before.

    It is an offset from the machine's *steady time*: the wall time of the first call, continued by boot time. So a step
    of the wall clock does not move it.

    A response was made at a server time from D to D + 1 s, after the request was sent and before the response arrived.
    So the offset lies within two bounds. The intersection over all responses narrows down. A response that contradicts
    it, because the server's clock was set, starts a new one. The estimate does not move while it is within the bounds:
    machines whose clocks agree have an offset of exactly 0. It is wrong by at most 1 s and the time of one exchange.

    Args:
        clock: returns the machine's clock.

    Attributes:
        offset: how far the server's clock is ahead of the steady time.
    """

    __slots__ = ("_clock", "_date", "_high", "_logged", "_low", "_machine", "_zero", "offset")

    def __init__(self, clock: Callable[[], Clock] = current_clock) -> None:
        self.offset = _ZERO
        self._clock = clock
        self._machine: tuple[Clock | None, Callable[[], float]] = (None, float)  # the clock, and its boot time
        self._zero: datetime | None = None  # the steady time at second 0 of boot time
        self._date = ""
        self._low = timedelta.min
        self._high = timedelta.max
        self._logged = False

    def steady_time(self, clock: Clock | None = None) -> datetime:
        """Return the machine's steady time."""
        clock = clock or self._clock()
        machine = self._machine
        if machine[0] is not clock:
            machine = self._machine = clock, boottime_of(clock)
        seconds = timedelta(seconds=machine[1]())
        if self._zero is None:
            self._zero = clock.now() - seconds
        return self._zero + seconds

    @property
    def ahead(self) -> timedelta:
        """The offset of the server's clock from the wall clock, whose steps are included."""
        return self._ahead_of(self._clock())

    def now(self, clock: Clock | None = None) -> datetime:
        """Return the server's time as told from a machine's clock: the given one, or the one it was measured with."""
        own = self._clock()
        return (clock or own).now() + self._ahead_of(own)

    def _ahead_of(self, clock: Clock) -> timedelta:
        stepped = self.steady_time(clock) - clock.now()
        return self.offset + (stepped if abs(stepped) > _STEP else _ZERO)

    def is_new(self, date: str) -> bool:
        """Return whether a ``Date`` differs from the last one, and so may narrow the bounds."""
        return date != self._date

    def record(self, date: str, *, sent: datetime, received: datetime) -> None:
        """Narrow the bounds by a response.

        Args:
            date: its ``Date``; ignored if it is malformed, or at the end of time.
            sent: the steady time when the request was sent.
            received: the steady time when the response arrived.
        """
        self._date = date
        try:
            server = email.utils.parsedate_to_datetime(date)
            server = server if server.tzinfo is not None else server.replace(tzinfo=UTC)
            low, high = server - received, server + _RESOLUTION - sent
        except (ValueError, TypeError, IndexError, OverflowError):  # an error would hide that the request succeeded
            return
        self._low, self._high = max(self._low, low), min(self._high, high)
        if self._low > self._high:
            self._low, self._high = low, high
        if not self._low <= self.offset <= self._high:
            self.offset = _ZERO if self._low <= _ZERO <= self._high else self._low + (self._high - self._low) / 2
        self._log()

    def _log(self) -> None:
        """Log a skew once, until it is gone."""
        ahead = self.ahead
        large = abs(ahead) > _LOGGED_SKEW
        if large and not self._logged:
            _logger.warning(
                "the API server's clock is %.1f s %s this machine's; stored times follow the server's clock",
                abs(ahead.total_seconds()),
                "ahead of" if ahead > _ZERO else "behind",
            )
        self._logged = large


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
        self.discovery = DiscoveryCache(self)
        self.written = WrittenDocuments()
        self.server_clock = ServerClock(current_clock if clock is None else lambda: clock)
        self.invalid_items = InvalidItemLog()
        self._warnings = Reported(_MAX_WARNINGS)
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
        for warning in response.warnings:
            text = warning_text(warning)
            if self._warnings.is_new(text):
                _logger.warning("API server warning for %s: %s", request.label, text)
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
        response = await self.send(request)
        if response.status == 401:
            await response.close()
            if await self._renewed(request.timeout):
                response = await self.send(request)
        if 200 <= response.status < 300:
            return response
        await response.close()
        raise failure(request, response, self.clock.now())

    async def _renewed(self, timeout: float | None) -> bool:  # noqa: ASYNC109 - that of a request
        try:
            async with asyncio.timeout(timeout):
                return await self.renew()
        except TimeoutError:
            return False

    async def renew(self) -> bool:
        """Read the credentials again, if the transport can, and return whether they changed.

        A cancelled call leaves the credentials as they were.
        """
        return isinstance(self._credentials, _Renewable) and await self._credentials.renew()

    async def execute(
        self, request: HTTPRequest, retry_on: RetryOn, attempts: RetryState | None = None
    ) -> HTTPResponse:
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
            return self.retries.deadline - (self.clock.monotonic() - started)

        started = self.clock.monotonic()
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
