"""A thread that reports code that blocks the event loop.

A blocked loop runs nothing else: no other reconcile, no watch, no renewal of a lease, no response to a probe. Without a
report, all that is seen of it is a restart by Kubernetes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import selectors
import sys
import threading
import traceback
from collections.abc import Callable
from types import FrameType
from typing import NamedTuple

from reconciler.clock import Clock, process_time
from reconciler.telemetry.logs import own_frames
from reconciler.telemetry.registry import EventLoopCounters

_log = logging.getLogger("reconciler.manager")

LIMIT = 1.0
"""Seconds; the default timeout of a Kubernetes probe."""

INTERVAL = 0.2
"""Seconds between two looks at the loop, so that a block is reported after 1 to 1.2 seconds."""

LIVENESS_LIMIT = 60.0
"""Seconds after which ``/healthz`` fails. Few calls take as long and end; twice the usual timeout of a DNS lookup."""

_SAME_PLACE = 60.0
"""Seconds in which the same line of code is logged once; further blocks are only counted."""

_MAX_PLACES = 100
_RUN_ONCE = asyncio.BaseEventLoop._run_once.__code__  # type: ignore[attr-defined]  # noqa: SLF001
_SELECTORS = selectors.__file__
_LOOP_FILES = ("asyncio/runners.py", "asyncio/base_events.py", "asyncio/events.py")
_DEBUGGERS = frozenset({"bdb", "pdb", "pydevd", "_pydevd_bundle"})


class LoopBlock(NamedTuple):
    """A block that is in progress.

    Attributes:
        seconds: how long it has lasted.
        where: the line of code, and the task.
    """

    seconds: float
    where: str

    def __str__(self) -> str:
        return f"the event loop has been blocked for {self.seconds:.0f} s by {self.where}"


class BlockedLoopDetector:
    """The rule for when the event loop counts as blocked, without threads and clocks.

    Time counts only if the process ran. A process that was stopped, by a signal or a debugger, or that got no CPU, used
    no CPU time, and this detector was called late. If native code held the interpreter lock, it was called late too,
    but the process used CPU time.

    Attributes:
        seconds: how long the block in progress has lasted.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._reported = False

    def check(self, *, alive: bool, elapsed: float, cpu: float) -> bool:
        """Return True once per block, when it has lasted longer than a second.

        Args:
            alive: whether the loop has given a sign of life since the last call.
            elapsed: seconds since the last call.
            cpu: seconds of CPU time that the process used in them.
        """
        if alive:
            self.seconds, self._reported = 0.0, False
            return False
        if elapsed <= 2 * INTERVAL or cpu >= elapsed / 2:
            self.seconds += elapsed
        if self._reported or self.seconds <= LIMIT:
            return False
        self._reported = True
        return True


class BlockedLoopWatchdog:
    """A daemon thread that logs which line of code blocks the event loop for more than a second.

    Under virtual time it starts no thread. It does not report a program that a Python debugger has halted.

    Attributes:
        block: the block in progress, once it has lasted longer than a second; None if there is none.
    """

    def __init__(self, clock: Clock, counters: EventLoopCounters) -> None:
        self._now: Callable[[], float] = clock.monotonic
        self._virtual = bool(getattr(clock, "virtual", False))
        self._counters = counters
        self._stopped = threading.Event()
        self._alive = True  # the loop has answered, or was not asked
        self._logged: dict[str, float] = {}
        self.block: LoopBlock | None = None

    def start(self) -> None:
        """Watch the running loop, which is that of the calling thread."""
        if not self._virtual:
            arguments = asyncio.get_running_loop(), threading.get_ident()
            threading.Thread(target=self._watch, args=arguments, name="event loop watchdog", daemon=True).start()

    def stop(self) -> None:
        """Stop the thread, without waiting for it."""
        self._stopped.set()

    def _set_alive(self) -> None:
        self._alive = True

    def _watch(self, loop: asyncio.AbstractEventLoop, thread: int) -> None:
        detector = BlockedLoopDetector()
        now, cpu = self._now(), process_time()
        while not self._stopped.wait(INTERVAL) and not loop.is_closed():
            before, cpu_before = now, cpu
            now, cpu = self._now(), process_time()
            frame = sys._current_frames().get(thread)  # noqa: SLF001 - documented, despite its name
            idle = _waits_for_events(frame) or not loop.is_running()  # or between two calls of run_until_complete
            alive = idle or self._alive
            if detector.check(alive=alive, elapsed=now - before, cpu=cpu - cpu_before):
                self._report(frame, loop)
            self._follow(detector.seconds)
            if alive and not idle:
                self._alive = False
                with contextlib.suppress(RuntimeError):  # the loop was closed just now
                    loop.call_soon_threadsafe(self._set_alive)

    def _follow(self, seconds: float) -> None:
        """Update the block in progress, and log when it becomes fatal."""
        before = self.block
        if before is None:
            return
        self.block = LoopBlock(seconds, before.where) if seconds else None
        if before.seconds < LIVENESS_LIMIT <= seconds:
            _log.error("%s: /healthz fails now, so that Kubernetes restarts the process", self.block)

    def _report(self, frame: FrameType | None, loop: asyncio.AbstractEventLoop) -> None:
        stack = _stack(frame)
        if any(each.f_globals.get("__name__", "").partition(".")[0] in _DEBUGGERS for each in stack):
            return
        self._counters.blocked += 1
        where, task = _where(stack), _task(loop)
        self.block = LoopBlock(LIMIT, where + task)
        now = self._now()
        if now - self._logged.get(where, -_SAME_PLACE) < _SAME_PLACE:
            return
        if len(self._logged) >= _MAX_PLACES:
            self._logged.clear()
        self._logged[where] = now
        _log.warning(
            "the event loop has been blocked for more than %g s by %s%s: nothing else runs, not even health checks; "
            "await something that does not block, or move the call into a thread with asyncio.to_thread",
            LIMIT,
            where,
            task,
        )


def _waits_for_events(frame: FrameType | None) -> bool:
    """Return whether this is asyncio's loop in its selector. It need not be woken to show that it is not blocked.

    The loop itself must have called the selector: it calls callbacks, too, which may block in native code.
    """
    if frame is None or frame.f_back is None:
        return False
    return frame.f_code.co_filename == _SELECTORS and frame.f_back.f_code is _RUN_ONCE


def _stack(frame: FrameType | None) -> list[FrameType]:
    """Return a frame and its callers, outermost first."""
    return [] if frame is None else [each for each, _ in traceback.walk_stack(frame)][::-1]


def _where(stack: list[FrameType]) -> str:
    """Return the innermost line of the program's own code and, if that is another one, the innermost line."""
    if not stack:
        return "unknown code"
    # What the loop runs comes after the frames of the loop itself; before them is what started it.
    loops = (number for number, each in enumerate(stack) if each.f_code.co_filename.endswith(_LOOP_FILES))
    inner = stack[max(loops, default=-1) + 1 :]
    own = own_frames(each.f_code.co_filename for each in inner)
    last = next((each for each, is_own in zip(reversed(inner), reversed(own), strict=True) if is_own), stack[-1])
    return _line(last) if last is stack[-1] else f"{_line(last)}, which called {_line(stack[-1])}"


def _line(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno} ({frame.f_code.co_qualname})"


def _task(loop: asyncio.AbstractEventLoop) -> str:
    task = asyncio.current_task(loop)
    return "" if task is None else f" in the task '{task.get_name()}'"
