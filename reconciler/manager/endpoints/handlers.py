"""The handlers of ``/healthz``, ``/readyz``, ``/metrics`` and ``/debug/recording``, and the health checks."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from reconciler._core.redaction import redact
from reconciler._core.user_code import is_cancelled
from reconciler.clock import Clock
from reconciler.errors import describe_error
from reconciler.manager.endpoints.server import EndpointRequest, EndpointResponse, Handler, LoopBlocked, MainLoop
from reconciler.manager.event_loop import LIVENESS_LIMIT
from reconciler.manager.waiting import Wait
from reconciler.telemetry.registry import MetricsRegistry

_log = logging.getLogger("reconciler.manager")

Check = Callable[[], object | Awaitable[object]]
"""A function, plain or ``async``, that fails by raising or by returning False."""

CHECK_TIMEOUT = 10.0
"""Timeout of one check, in seconds; the kubelet's own default is 1 s."""


class Checks:
    """The checks of one endpoint.

    Args:
        endpoint: ``healthz`` or ``readyz``.
    """

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._checks: dict[str, Check] = {"ping": lambda: True}
        self._failing: set[str] = set()

    @property
    def names(self) -> Collection[str]:
        """Return the names of all checks."""
        return self._checks.keys()

    def add(self, name: str, check: Check) -> None:
        """Add a check.

        Raises:
            TypeError: the check is not a function.
            ValueError: the name is taken, empty, or contains a slash.
        """
        given: object = check
        if not callable(given):
            if inspect.iscoroutine(given):
                given.close()  # else Python warns that it was never awaited
            raise TypeError(
                f"a {self.endpoint} check is a function without parameters, not {given!r}: write it without ()"
            )
        if not name or "/" in name:
            raise ValueError(f"{name!r} is not a valid name of a {self.endpoint} check: pass a name without '/'")
        if name in self._checks:
            raise ValueError(f"a {self.endpoint} check named {name!r} already exists")
        self._checks[name] = check

    async def run(self, names: Sequence[str]) -> dict[str, str | None]:
        """Run checks concurrently; return why each failed, or None. Cancellation cancels them."""
        return dict(zip(names, await asyncio.gather(*map(self._run, names)), strict=True))

    async def _run(self, name: str) -> str | None:
        reason = None
        try:
            async with asyncio.timeout(CHECK_TIMEOUT):
                result = self._checks[name]()
                if inspect.isawaitable(result):
                    result = await result
            if result is False:
                reason = "returned False"
        except TimeoutError:
            reason = f"timed out after {CHECK_TIMEOUT:g} s"
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and is_cancelled():
                raise
            reason = describe_error(error)
        self._log_change(name, reason)
        return reason

    def _log_change(self, name: str, reason: str | None) -> None:
        """Log a check when it starts to fail and when it passes again, not at every probe."""
        if reason is not None and name not in self._failing:
            self._failing.add(name)
            _log.warning("%s check %s failed: %s", self.endpoint, name, reason)
        elif reason is None and name in self._failing:
            self._failing.discard(name)
            _log.info("%s check %s passes again", self.endpoint, name)


def _report(endpoint: str, results: Mapping[str, str | None], excluded: Collection[str], *, failed: bool) -> str:
    """Return the results in controller-runtime's format; the reasons of failures go to the log only."""
    lines = [
        f"[+]{name} ok" if reason is None else f"[-]{name} failed: reason withheld" for name, reason in results.items()
    ]
    lines += [f"[+]{name} excluded: ok" for name in excluded]
    return "\n".join([*lines, f"{endpoint} check {'failed' if failed else 'passed'}", ""])


class Turns:
    """Turns of answers that take long in the event loop: one at a time, and after each one a rest as long as it took.

    So many requests at once take half of the time of the event loop, and others run between any two of them.

    Attributes:
        seconds: how long the last turn took.
    """

    def __init__(self, clock: Clock) -> None:
        self.seconds = 0.0
        self._now = clock.monotonic
        self._until = 0.0
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, and have it while the block runs. Cancellation gives it up."""
        async with self._lock:
            await asyncio.sleep(max(0.0, self._until - self._now()))
            began = self._now()
            try:
                yield
            finally:
                ended = self._now()
                self.seconds = ended - began
                self._until = ended + self.seconds


_LIVE_PATIENCE = 0.5
"""Seconds that ``/healthz`` waits for the event loop; a kubelet waits 1 s by default."""

_READY_PATIENCE = 5.0
"""Seconds that ``/readyz`` waits for the event loop, if it is not known that it is blocked."""

_MAX_SCRAPES = 4
"""Concurrent scrapes; each takes a thread."""


def health(checks: Checks, main: MainLoop, *, live: bool, waits: Callable[[], Sequence[Wait]] = tuple) -> Handler:
    """Return the handler of ``/healthz`` or ``/readyz``: it runs all checks, or the one that the path names.

    ``?verbose`` lists the results and what the manager waits for, ``?exclude=name`` excludes a check. The status is 200
    if all pass, 500 if one fails, and 404 if the named check does not exist.

    The handler is called in the thread of the servers, the checks in the event loop. While that is blocked, the
    response names the code that blocks it: ``/readyz`` fails at once, ``/healthz`` after `LIVENESS_LIMIT`, since a
    restart loses work and a block may end.
    """

    async def run(request: EndpointRequest) -> EndpointResponse:
        query = list(request.query)
        excluded = {value for name, value in query if name == "exclude"} & set(checks.names)
        names = [request.path] if request.path else [name for name in checks.names if name not in excluded]
        results = await checks.run(names)
        failed = any(reason is not None for reason in results.values())
        if failed or any(name == "verbose" for name, _ in query):
            text = _report(checks.endpoint, results, sorted(excluded), failed=failed)
            texts = [redact(each.text) if request.is_trusted else each.what for each in waits()]
            text = "".join(f"waiting: {each}\n" for each in texts) + text
            return EndpointResponse(500 if failed else 200, text.encode())
        return EndpointResponse(200, b"ok")

    async def handle(request: EndpointRequest) -> EndpointResponse:
        if request.path and request.path not in checks.names:
            return EndpointResponse(404, f"404: no {checks.endpoint} check named {request.path!r}\n".encode())
        try:
            return await main.run(lambda: run(request), patience=_LIVE_PATIENCE if live else _READY_PATIENCE)
        except LoopBlocked as error:
            block = main.watchdog.block
            if not live or (block is not None and block.seconds >= LIVENESS_LIMIT):
                return EndpointResponse(
                    500, f"[-]event-loop failed: {error}\n{checks.endpoint} check failed\n".encode()
                )
            if block is None:
                return EndpointResponse(200, b"ok")
            return EndpointResponse(200, f"ok, but {error}. This check fails after {LIVENESS_LIMIT:g} s\n".encode())

    return handle


def metrics(registry: MetricsRegistry) -> Handler:
    """Return the handler of ``/metrics``: it renders in a thread, and answers 503 to more than four scrapes at once."""
    scrapes = 0

    async def handle(request: EndpointRequest) -> EndpointResponse:
        nonlocal scrapes
        if scrapes == _MAX_SCRAPES:
            return EndpointResponse(503, f"503: {_MAX_SCRAPES} scrapes are in progress; try again later\n".encode())
        scrapes += 1
        try:
            content_type, body = await asyncio.to_thread(registry.render, request.accept)
        finally:
            scrapes -= 1
        return EndpointResponse(200, body, content_type)

    return handle


def debug_recording(segments: Callable[[], Sequence[Path]]) -> Handler:
    """Return the handler of ``/debug/recording``: the names of the segments, or one with ``?segment=``.

    A recording contains objects, so only trusted readers get it.

    Args:
        segments: returns the files; none if nothing is recorded.
    """

    async def handle(request: EndpointRequest) -> EndpointResponse:
        if not request.is_trusted:
            return EndpointResponse(403, b"403: a recording is only served to local requests and to users\n")
        found = {path.name: path for path in segments()}
        name = dict(request.query).get("segment")
        if not found:
            return EndpointResponse(503, b"503: the operator does not record: it needs --record or recording=\n")
        if name is None:
            return EndpointResponse(200, msgspec.json.encode(sorted(found)), "application/json")
        try:
            data = await asyncio.to_thread(found[name].read_bytes)
        except (KeyError, FileNotFoundError):  # the ring has dropped it
            return EndpointResponse(404, b"404: the recording has no such segment\n")
        return EndpointResponse(200, data, "application/octet-stream")

    return handle
