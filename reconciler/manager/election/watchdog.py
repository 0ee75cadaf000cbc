"""End the process when workers outlive the lease, from a thread that no blocked event loop can hold up.

A thread that runs native code and keeps the interpreter's lock holds up every other one; nothing in the process helps
against that.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable

from reconciler.clock import Clock, boottime_of

__all__ = ["EXIT_CODE", "Watchdog"]

EXIT_CODE = 70
"""Exit code of a process whose workers outlived its lease: ``EX_SOFTWARE`` of sysexits.h."""

_LOOK_EVERY = 0.2
"""Seconds. Waits of threads do not go on while the machine is suspended, so the clock is looked at often."""


class Watchdog:
    """Exit at a moment that is put off again and again, unless disarmed before.

    Under virtual time there is no thread: real time means nothing there.

    Args:
        clock: tells the time, suspensions counted in.
        end: is called in the thread when the time is over. Default: one line on stderr, then ``os._exit(70)``.
    """

    def __init__(self, clock: Clock, *, end: Callable[[], None] | None = None) -> None:
        self._now = boottime_of(clock)
        self._virtual = bool(getattr(clock, "virtual", False))
        self._end = end or _exit
        self._until = math.inf
        self._disarmed = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Watch from now on."""
        if self._thread is None and not self._virtual:
            self._thread = threading.Thread(target=self._watch, name="lease watchdog", daemon=True)
            self._thread.start()

    def extend(self, until: float) -> None:
        """Put the end off to a moment of the clock."""
        self._until = until

    def disarm(self) -> None:
        """Watch no more."""
        self._disarmed.set()

    def _watch(self) -> None:
        while not self._disarmed.wait(min(_LOOK_EVERY, max(0.0, self._until - self._now()))):
            if self._now() >= self._until:
                self._end()
                return


def _exit() -> None:
    # Nothing that could block comes before the exit; buffers are not flushed.
    os.write(2, b"the lease has ended and workers have not stopped: exit\n")
    os._exit(EXIT_CODE)
