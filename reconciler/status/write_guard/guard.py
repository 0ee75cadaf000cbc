"""Find the controller that writes a status more than once a cycle, whatever client it uses."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import FrameType, TracebackType
from typing import Any, Literal, Self

from reconciler.clock import Clock, current_clock
from reconciler.meta import Request, current_cycle, request_of
from reconciler.status.errors import TooManyStatusWrites
from reconciler.status.record.documents import document_of
from reconciler.status.write_guard.clients import listen, stop_listening, watched
from reconciler.status.write_guard.requests import Addressed
from reconciler.status.write_guard.stacks import formatted, stack_of

__all__ = ["GuardStatistics", "StatusWrite", "StatusWrites", "guard"]

MAX_OBJECTS = 1024
"""Objects whose last cycles are kept; beyond it the one written longest ago is forgotten."""

MAX_WRITES = 32
"""Writes of one cycle that are kept with their stacks; further ones are counted."""

MAX_FOUND = 256
"""Cycles with too many writes that are kept; further ones are counted, and logged all the same."""

MAX_CYCLES = 8
"""Cycles of one object that may run at the same time."""

_logger = logging.getLogger("reconciler.status")


@dataclass(frozen=True, slots=True)
class StatusWrite:
    """Be one write of a status that the server accepted.

    Attributes:
        request: method and path.
        code: of the answer, 200 to 299.
        at: monotonic second at which it was sent.
        stack: where it was sent from, as `traceback` prints it; innermost last, without the frames of HTTP libraries.
    """

    request: str
    code: int
    at: float
    stack: Sequence[str] = field(repr=False)


@dataclass(slots=True)
class StatusWrites:
    """Be the writes of one object's status in one cycle.

    Attributes:
        object: kind, namespace and name.
        kind: ``"cycle"``: too many in one cycle. ``"storm"``: one or more a cycle, but cycle after cycle without pause.
        count: how many.
        writes: the first of them, 32 at most.
    """

    object: str
    kind: Literal["cycle", "storm"] = "cycle"
    count: int = 0
    writes: list[StatusWrite] = field(default_factory=list)

    def __str__(self) -> str:
        """Tell what was written when, and from where."""
        seconds = self.writes[-1].at - self.writes[0].at
        if self.kind == "storm":
            head = (
                f"{self.count} status writes to {self.object} in cycles that follow each other without a pause "
                f"({seconds:.3f} s). Each write may be what wakes the next cycle: do not wake on the event of your own "
                "write, and write nothing when nothing changed, as reconciler.StatusBatcher does"
            )
        else:
            head = (
                f"{self.count} status writes to {self.object} in one cycle ({seconds:.3f} s), where one is enough: "
                "record them in a reconciler.StatusBatcher around the whole cycle, which writes once"
            )
        places: dict[tuple[str, str], list[str]] = {}
        for number, write in enumerate(self.writes, 1):
            places.setdefault((f"{write.request} ({write.code})", formatted(write)), []).append(str(number))
        lines = [head]
        for (request, stack), numbers in places.items():
            lines.append(f"write {', '.join(numbers)}: {request} by\n{stack}")
        if self.count > len(self.writes):
            lines.append(f"and {self.count - len(self.writes)} more")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class GuardStatistics:
    """Count what a guard saw.

    Attributes:
        requests: status writes that were sent.
        writes: of them, how many the server accepted.
        objects: objects that are remembered.
        found: cycles with too many writes.
        libraries: the HTTP libraries that are loaded and watched.
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
class _Trail:
    """Be what is known of one object.

    Attributes:
        cycles: the last ones, the newest last.
        burst: writes of whatever cycle, each soon after the one before.
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
    """Count the status writes of this process, and say where they come from when a cycle makes more than one.

    ::

        from reconciler.status import guard

        guard.install()                      # at the start of a controller that exists; logs a warning with the stacks

        with guard(fail=True):               # in a test: raises TooManyStatusWrites at the end
            reconcile(obj)

    It hears of the writes of every client that sends through urllib3 or requests (``kubernetes``), aiohttp
    (``kubernetes_asyncio``, ``kubernetes.aio``, kopf, this library), httpx (kr8s) or httpx2 (lightkube), in the whole
    process and in all threads. A library that is loaded later is watched from then on; none is loaded for it. At the
    end everything is as it was.

    A **write** is a PUT or PATCH of ``/status``, or a PATCH of the object that names ``status``, which the server
    accepted. One that was refused, as by a conflict, or got no answer is a request, but no write.

    A **cycle** is what is marked as one: a block of `guard.cycle`, or a reconcile of this library's controllers.
    Without marks, writes to one object belong together as long as each is sent less than `window` seconds after the one
    before was answered; a loop that works for longer between its writes needs the mark, or a longer window.
    Besides, more than `burst` writes to one object in marked cycles that follow each other that closely are a
    **storm**: each cycle writes once, and its own write wakes the next one.

    Args:
        limit: writes to one object that a cycle may make. Default 1.
        window: seconds. Default 1.0.
        burst: writes in a row. Default 5.
        fail: whether the end of the block, or `check`, raises. Default False: each finding is logged as a warning,
            when it is found and each time the number of its writes has doubled.
        clock: default: the clock in force.

    Raises:
        ValueError: an option is out of its range.
    """

    def __init__(
        self,
        *,
        limit: int = 1,
        window: float = 1.0,
        burst: int = 5,
        fail: bool = False,
        clock: Clock | None = None,
    ) -> None:
        if limit < 1 or burst < 1:
            raise ValueError(f"limit and burst must be 1 or more, not {limit!r} and {burst!r}")
        if not window >= 0:
            raise ValueError(f"window must be 0 seconds or more, not {window!r}")
        self._limit = limit
        self._window = window
        self._burst = burst
        self._fail = fail
        self._clock = clock
        self._lock = threading.Lock()
        self._trails: OrderedDict[Addressed, _Trail] = OrderedDict()
        self._found: list[StatusWrites] = []
        self._requests = self._writes = self._findings = 0

    @classmethod
    def install(
        cls,
        *,
        limit: int = 1,
        window: float = 1.0,
        burst: int = 5,
        fail: bool = False,
        clock: Clock | None = None,
    ) -> Self:
        """Begin to watch, without a block; return the guard, whose `uninstall` ends it.

        Takes the same options; with `fail` nothing is logged, and only `check` raises.
        """
        return cls(limit=limit, window=window, burst=burst, fail=fail, clock=clock).__enter__()

    def uninstall(self) -> None:
        """Watch no more. Harmless when it is not installed."""
        stop_listening(self)

    @staticmethod
    @contextlib.contextmanager
    def cycle(obj: Any = None) -> Iterator[None]:
        """Mark a block as one cycle, also for tasks and ``asyncio.to_thread`` begun in it, but for no other threads.

        Args:
            obj: the object that it is the cycle of, in any form that `StatusBatcher` takes, or a `Request`; writes to
                others are not marked then. Default: all writes are.
        """
        request = obj if obj is None or isinstance(obj, Request) else request_of(document_of(obj))
        token = _mark.set(_Mark(request))
        try:
            yield
        finally:
            _mark.reset(token)

    @property
    def found(self) -> Sequence[StatusWrites]:
        """Return the cycles that made too many writes, oldest first; 256 at most."""
        with self._lock:
            return tuple(self._found)

    def statistics(self) -> GuardStatistics:
        """Return what was counted so far."""
        with self._lock:
            return GuardStatistics(self._requests, self._writes, len(self._trails), self._findings, watched())

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
            _logger.warning("the status guard saw nothing: no HTTP library that it knows was loaded")
        if self._fail and self.found:
            try:
                self.check()
            except TooManyStatusWrites as failure:
                if error is None:
                    raise
                error.add_note(str(failure))

    def began(self, addressed: Addressed, request: str, frame: FrameType | None) -> Callable[[int | None], None]:
        """Hear of a write that is about to be sent; called by what watches the HTTP libraries."""
        clock = self._clock or current_clock()
        at, token, stack = clock.monotonic(), _token_for(addressed), stack_of(frame)
        with self._lock:
            self._requests += 1

        def ended(code: int | None) -> None:
            if code is not None and 200 <= code < 300:
                self._took(addressed, token, StatusWrite(request, code, at, stack), clock.monotonic())

        return ended

    def _took(self, addressed: Addressed, token: object, write: StatusWrite, now: float) -> None:
        with self._lock:
            self._writes += 1
            trail = self._trails.setdefault(addressed, _Trail())
            self._trails.move_to_end(addressed)
            while len(self._trails) > MAX_OBJECTS:
                self._trails.popitem(last=False)
            soon = write.at - trail.last < self._window
            trail.last = now
            seen = self._cycle_of(trail, token, soon, str(addressed))
            news = self._count(seen, write, self._limit)
            if trail.burst is None or not soon:
                trail.burst = StatusWrites(str(addressed), "storm")
            if token is not None and seen.count <= self._limit:
                news = self._count(trail.burst, write, self._burst) or news
        if news is not None and not self._fail:
            _logger.warning("%s", news)

    @staticmethod
    def _cycle_of(trail: _Trail, token: object, soon: bool, name: str) -> StatusWrites:
        for cycle in trail.cycles:
            if cycle.token is token and (token is not None or soon):
                return cycle.seen
        if token is None:  # the unmarked one before has ended
            unmarked = [cycle for cycle in trail.cycles if cycle.token is None]
            for cycle in unmarked:
                trail.cycles.remove(cycle)
        trail.cycles.append(_Cycle(token, StatusWrites(name)))
        return trail.cycles[-1].seen

    def _count(self, seen: StatusWrites, write: StatusWrite, limit: int) -> str | None:
        """Add a write; return what is to be told of it, if anything is."""
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
    """Return what the running cycle is known by; None when nothing marks one."""
    mark = _mark.get()
    own = Request(addressed.name, addressed.namespace)
    if mark is not None and mark.request in (None, own):
        return mark
    return current_cycle.get()
