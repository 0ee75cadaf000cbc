"""The watch over a plan from beside its event loop: bounds of time, Ctrl-C, and code that lets nothing else run."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from reconciler.clock import process_time
from reconciler.controller.reconcile.watchdogs import CodePlace, place_of_thread
from reconciler.testing.operator_process import current_process

_LOOK = 0.5
"""Seconds between two looks."""

_BUSY = 0.01
"""CPU seconds between two looks from which the process does something."""

_LOOKS = 4
"""Looks at which the event loop may be busy until the code that keeps it busy is broken off."""

_ATTEMPTS = 3
"""How often code is broken off, which may catch the exception."""


class EventLoopBlocked(BaseException):
    """Breaks off code of the operator that does not return to the event loop."""


class PlanWatch:
    """A watch that ends a plan which does not come to its end.

    Args:
        seconds: CPU seconds of this process, and seconds without progress, after which the plan stops.
        progress: returns a value that changes while something happens.
        stop: called in the event loop when the plan must stop.

    Attributes:
        stopped: why the plan must stop, such as ``"600 s of CPU time"``; empty if it need not.
        blocked: the code that was broken off; None for none.
    """

    def __init__(self, seconds: float, progress: Callable[[], object], stop: Callable[[], None]) -> None:
        self.stopped = ""
        self.blocked: CodePlace | None = None
        self._seconds = seconds
        self._progress = progress
        self._stop = stop
        self._noticed: asyncio.Future[None]  # when the plan must stop
        self._ended = threading.Event()
        self._returned = True  # whether the event loop did something else since the latest look
        self._breaks = False
        self._until = process_time() + seconds

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch until the block ends. In the main thread Ctrl-C stops the plan, and a second one raises."""
        self._loop, self._main = asyncio.get_running_loop(), threading.get_ident()
        self._noticed = self._loop.create_future()
        self._ended.clear()
        self._has_signals = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGINT, self._on_signal) if self._has_signals else None
        thread = threading.Thread(target=self._look, name="plan-watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()
            if self._has_signals:
                signal.signal(signal.SIGINT, before)

    async def until_stopped(self, work: Awaitable[Any]) -> bool:
        """Wait for work; return False if the plan must stop earlier. The work is cancelled then."""
        task: asyncio.Future[Any] = asyncio.ensure_future(work)
        await asyncio.wait([task, self._noticed], return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            return False
        task.result()
        return True

    def _end(self, why: str) -> None:
        self.stopped = why
        self._loop.call_soon_threadsafe(self._notice)

    def _notice(self) -> None:
        if not self._noticed.done():
            self._noticed.set_result(None)
        self._stop()

    def _return(self) -> None:
        self._returned = True

    def _look(self) -> None:
        seen, used, idle, busy = self._progress(), process_time(), 0.0, 0
        while not self._ended.wait(_LOOK):
            if self.stopped:
                busy = 0 if self._returned else busy + 1
                self._returned = False
                self._loop.call_soon_threadsafe(self._return)
                if busy and busy % _LOOKS == 0:
                    self._break_off(busy // _LOOKS)
                continue
            progress, cpu = self._progress(), process_time()
            is_idle = progress == seen and cpu - used < _BUSY  # a process that gets little of the CPU is not idle
            seen, used, idle = progress, cpu, idle + _LOOK if is_idle else 0.0
            if cpu >= self._until:
                self._end(f"{self._seconds:g} s of CPU time")
            elif idle >= self._seconds:
                self._end(f"{self._seconds:g} s in which nothing happened")

    def _break_off(self, attempt: int) -> None:
        self.blocked = place_of_thread(self._main)
        if not self._has_signals:
            return
        if attempt > _ATTEMPTS:
            print(f"reconciler: no plan: code of the operator cannot be stopped at {self.blocked}", file=sys.stderr)
            sys.stderr.flush()
            os._exit(1)
        self._breaks = True
        signal.pthread_kill(self._main, signal.SIGINT)

    def _on_signal(self, *_: object) -> None:
        if self._breaks:
            self._breaks = False
            if current_process.get() is not None:  # not in the event loop itself, which is busy no more
                raise EventLoopBlocked(f"it lets nothing else run at {self.blocked}")
        elif self.stopped:
            raise KeyboardInterrupt
        else:
            self._end("Ctrl-C")
