"""The guard against controllers that write a status more than once per cycle, whatever client they use."""

from __future__ import annotations

import contextlib
import logging
import math
import sys
import threading
import traceback
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import FrameType, TracebackType
from typing import Any, Literal, Self

from reconciler._core.durations import DurationLike, seconds_of
from reconciler._core.lru import LRU
from reconciler.clock import Clock, current_clock
from reconciler.meta import Request, request_of
from reconciler.meta.cycle import current_cycle
from reconciler.status.documents import document_of
from reconciler.status.errors import TooManyStatusWrites
from reconciler.status.write_interception import Addressed, listen, stop_listening, watched

MAX_OBJECTS = 1024
"""Objects whose last cycles are kept; beyond it, the one written longest ago is forgotten."""

MAX_WRITES = 32
"""Writes of one cycle that are kept with their stacks; further ones are counted."""

MAX_FOUND = 256
"""Cycles with too many writes that are kept; further ones are only counted and logged."""

MAX_CYCLES = 8
"""Cycles of one object that may run at the same time."""

MAX_FRAMES = 24
"""Frames of a stack that are kept."""

_TRANSPORTS = {
    *("aiohttp", "httpx", "httpx2", "requests", "urllib3"),
    *("kr8s", "kubernetes", "kubernetes_asyncio", "lightkube", "reconciler"),
    *("pluggy", "pydantic", "pytest", "_pytest", "pytest_asyncio", "tenacity"),
}
"""Packages that only transport a write, as the standard library does; the caller above them requested it."""

_logger = logging.getLogger("reconciler.status")


@dataclass(frozen=True, slots=True)
class StatusWrite:
    """One status write that the server accepted.

    Attributes:
        request: method and path.
        code: of the response, 200 to 299.
        at: monotonic second at which it was sent.
        stack: where it was sent from, as `traceback` prints it; innermost last, without the frames of HTTP libraries.
    """

    request: str
    code: int
    at: float
    stack: Sequence[str] = field(repr=False)


@dataclass(slots=True)
class StatusWrites:
    """The writes of one object's status in one cycle.

    Attributes:
        object: kind, namespace and name.
        kind: ``"cycle"``: too many in one cycle. ``"storm"``: cycle after cycle without a pause.
        count: how many writes.
        writes: the first of them, 32 at most.
    """

    object: str
    kind: Literal["cycle", "storm"] = "cycle"
    count: int = 0
    writes: list[StatusWrite] = field(default_factory=list)

    def __str__(self) -> str:
        """Return what was written, when, and from where."""
        seconds = self.writes[-1].at - self.writes[0].at
        if self.kind == "storm":
            head = (
                f"{self.count} status writes to {self.object} in cycles that follow each other without a pause "
                f"({seconds:.3f} s). The watch event of each write may trigger the next cycle: ignore the events of "
                "your own writes, and write nothing when nothing changed, as reconciler.StatusBatcher does"
            )
        else:
            head = (
                f"{self.count} status writes to {self.object} in one cycle ({seconds:.3f} s), where one is enough: "
                "record them in a reconciler.StatusBatcher around the whole cycle, which writes once"
            )
        places: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        for number, write in enumerate(self.writes, 1):
            places[f"{write.request} ({write.code})", "".join(write.stack).rstrip("\n")].append(str(number))
        lines = [head]
        for (request, stack), numbers in places.items():
            lines.append(f"write {', '.join(numbers)}: {request} by\n{stack}")
        if self.count > len(self.writes):
            lines.append(f"and {self.count - len(self.writes)} more")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class GuardStatistics:
    """The counters of a guard.

    Attributes:
        requests: status writes that were sent.
        writes: those that the server accepted.
        objects: objects that are remembered.
        found: cycles with too many writes.
        libraries: the HTTP libraries that are imported and watched.
    """

    requests: int
    writes: int
    objects: int
    found: int
    libraries: Sequence[str]


@dataclass(slots=True)
class _Cycle:
    token: object
    seen: StatusWrites


@dataclass(slots=True)
class _History:
    """The recent writes of one object.

    Attributes:
        cycles: the last cycles, the newest last.
        burst: writes of any cycle, each soon after the one before.
        last: when the newest was answered.
    """

    cycles: deque[_Cycle] = field(default_factory=lambda: deque(maxlen=MAX_CYCLES))
    burst: StatusWrites | None = None
    last: float = -math.inf


@dataclass(frozen=True, eq=False)
class _Mark:
    request: Request | None


_mark: ContextVar[_Mark | None] = ContextVar("guarded_cycle", default=None)


class guard:  # noqa: N801 - a context manager that reads as a word, like contextlib.suppress
    """A counter of this process's status writes; it reports where they come from if a cycle makes more than one.

    ::

        from reconciler.status import guard

        guard.install()                      # at the start of an existing controller; logs a warning with the stacks

        with guard(fail=True):               # in a test: raises TooManyStatusWrites at the end
            reconcile(obj)

    It is notified of the writes of every client that sends through urllib3 or requests (``kubernetes``), aiohttp
    (``kubernetes_asyncio``, ``kubernetes.aio``, kopf), httpx (kr8s), httpx2 (lightkube) or this library's client, in
    the whole process and in all threads. A library that is imported later is watched from then on; the guard imports
    none. At the end the libraries are as they were.

    A **write** is a PUT or PATCH of ``/status``, or a PATCH of the object that contains ``status``, which the server
    accepted. A refused one, for example by a conflict, or one without a response is a request, but not a write.

    A **cycle** is what is marked as one: a block of `guard.cycle`, or a reconcile of this library's controllers.
    Without marks, writes to one object belong together if each is sent less than `window` seconds after the one before
    was answered. A loop that works longer between its writes needs the mark, or a longer window. In addition, more than
    `burst` writes to one object, in marked cycles that follow each other that closely, are a **storm**: each cycle
    writes once, and its own write triggers the next one.

    Args:
        limit: writes to one object that a cycle may make. Default 1.
        window: seconds. Default 1.0.
        burst: writes in a row. Default 5.
        fail: whether the end of the block, or `check`, raises. Default False: each finding is logged as a warning when
            it is found and each time the number of its writes has doubled.
        clock: default: the current clock.

    Raises:
        ValueError: an option is out of range.
    """

    def __init__(
        self,
        *,
        limit: int = 1,
        window: DurationLike = 1.0,
        burst: int = 5,
        fail: bool = False,
        clock: Clock | None = None,
    ) -> None:
        if limit < 1 or burst < 1:
            raise ValueError(f"limit and burst must be 1 or more, not {limit!r} and {burst!r}")
        self._limit = limit
        self._window = seconds_of("window", window, zero=True)
        self._burst = burst
        self._fail = fail
        self._clock = clock
        self._lock = threading.Lock()
        self._histories: LRU[Addressed, _History] = LRU(MAX_OBJECTS)
        self._found: list[StatusWrites] = []
        self._requests = self._writes = self._findings = 0

    @classmethod
    def install(cls, **options: Any) -> Self:
        """Start watching without a block; return the guard, whose `uninstall` stops it.

        It has the same options; with `fail` nothing is logged, and only `check` raises.
        """
        return cls(**options).__enter__()

    def uninstall(self) -> None:
        """Stop watching. Does nothing if the guard is not installed."""
        stop_listening(self)

    @staticmethod
    @contextlib.contextmanager
    def cycle(obj: Any = None) -> Iterator[None]:
        """Mark a block as one cycle, including tasks and ``asyncio.to_thread`` started in it, but no other threads.

        Args:
            obj: the object of the cycle, in any form that `StatusBatcher` accepts, or a `Request`; writes to other
                objects are then not marked. Default: all writes are.
        """
        request = obj if obj is None or isinstance(obj, Request) else request_of(document_of(obj))
        token = _mark.set(_Mark(request))
        try:
            yield
        finally:
            _mark.reset(token)

    @property
    def found(self) -> Sequence[StatusWrites]:
        """Return the cycles with too many writes, oldest first; 256 at most."""
        with self._lock:
            return tuple(self._found)

    def statistics(self) -> GuardStatistics:
        """Return what was counted so far."""
        with self._lock:
            return GuardStatistics(self._requests, self._writes, len(self._histories), self._findings, watched())

    def check(self) -> None:
        """Raise if a cycle made too many writes.

        Raises:
            TooManyStatusWrites: the message has the stack of each write.
        """
        if self.found:
            raise TooManyStatusWrites("\n\n".join(map(str, self.found)))

    def __enter__(self) -> Self:
        listen(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        libraries = watched()
        self.uninstall()
        if not libraries:
            _logger.warning("the status guard saw nothing: none of the HTTP libraries that it supports was imported")
        if self._fail and self.found:
            try:
                self.check()
            except TooManyStatusWrites as failure:
                if error is None:
                    raise
                error.add_note(str(failure))

    def on_write(self, addressed: Addressed, request: str, frame: FrameType | None) -> Callable[[int | None], None]:
        """Called before a write is sent; see `WriteListener`."""
        clock = self._clock or current_clock()
        at, token, stack = clock.monotonic(), _token_for(addressed), _stack_of(frame)
        with self._lock:
            self._requests += 1

        def ended(code: int | None) -> None:
            if code is not None and 200 <= code < 300:
                self._accepted(addressed, token, StatusWrite(request, code, at, stack), clock.monotonic())

        return ended

    def on_request(self, request: str, frame: FrameType | None) -> None:
        """Called before any request of another library; see `WriteListener`."""

    def _accepted(self, addressed: Addressed, token: object, write: StatusWrite, now: float) -> None:
        with self._lock:
            self._writes += 1
            history = self._histories[addressed] = self._histories.get(addressed) or _History()
            soon = write.at - history.last < self._window
            history.last = now
            seen = self._cycle_of(history, token, soon, str(addressed))
            news = self._count(seen, write, self._limit)
            if history.burst is None or not soon:
                history.burst = StatusWrites(str(addressed), "storm")
            if token is not None and seen.count <= self._limit:
                news = self._count(history.burst, write, self._burst) or news
        if news is not None and not self._fail:
            _logger.warning("%s", news)

    @staticmethod
    def _cycle_of(history: _History, token: object, soon: bool, name: str) -> StatusWrites:
        for cycle in history.cycles:
            if cycle.token is token and (token is not None or soon):
                return cycle.seen
        if token is None:  # the unmarked cycle before has ended
            unmarked = [cycle for cycle in history.cycles if cycle.token is None]
            for cycle in unmarked:
                history.cycles.remove(cycle)
        history.cycles.append(_Cycle(token, StatusWrites(name)))
        return history.cycles[-1].seen

    def _count(self, seen: StatusWrites, write: StatusWrite, limit: int) -> str | None:
        """Count a write; return the warning to log, if any."""
        seen.count += 1
        if len(seen.writes) < MAX_WRITES:
            seen.writes.append(write)
        over = seen.count - limit
        if over == 1:
            self._findings += 1
            if len(self._found) < MAX_FOUND:
                self._found.append(seen)
        return str(seen) if over > 0 and over & (over - 1) == 0 else None


def _token_for(addressed: Addressed) -> object:
    """Return what identifies the running cycle; None if none is marked."""
    mark = _mark.get()
    own = Request(addressed.name, addressed.namespace)
    if mark is not None and mark.request in (None, own):
        return mark
    return current_cycle.get()


def callers_of(frame: FrameType | None) -> list[tuple[FrameType, int]]:
    """Return the frames that lead to one and their lines, innermost first, without clients and HTTP libraries."""
    ignored = _TRANSPORTS | sys.stdlib_module_names
    return [each for each in traceback.walk_stack(frame) if _package_of(each[0]) not in ignored]


def _stack_of(frame: FrameType | None) -> Sequence[str]:
    """Return the callers of a frame as text, innermost last; all frames if there are no callers."""
    callers = callers_of(frame) or list(traceback.walk_stack(frame))
    summary = traceback.StackSummary.extract(iter(callers[:MAX_FRAMES]))
    return tuple(reversed(summary.format()))


def _package_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]
