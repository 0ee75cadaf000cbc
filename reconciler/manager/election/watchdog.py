"""A watchdog thread that ends the process when workers outlive the lease, even if the event loop is blocked.

It cannot help against native code that holds the interpreter lock, which blocks every thread of the process.
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

_INTERVAL = 0.2
"""Seconds between checks. A thread's timeout does not advance while the machine is suspended, so it must be short."""


class Watchdog:
    """A timer that ends the process unless it is extended or disarmed in time.

    Under virtual time it starts no thread.

    Args:
        clock: source of time; suspensions count.
        end: called in the thread when the time is up. Default: one line on stderr, then ``os._exit(70)``.
    """

    def __init__(self, clock: Clock, *, end: Callable[[], None] | None = None) -> None:
        self._now = boottime_of(clock)
        self._virtual = bool(getattr(clock, "virtual", False))
        self._end = end or _exit
        self._until = math.inf
        self._disarmed = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        if self._thread is None and not self._virtual:
            self._thread = threading.Thread(target=self._watch, name="lease watchdog", daemon=True)
            self._thread.start()

    def extend(self, until: float) -> None:
        """Set the time at which the process ends."""
        self._until = until

    def disarm(self) -> None:
        """Stop the thread."""
        self._disarmed.set()

    def _watch(self) -> None:
        while not self._disarmed.wait(min(_INTERVAL, max(0.0, self._until - self._now()))):
            if self._now() >= self._until:
                self._end()
                return


def _exit() -> None:
    # Nothing here may block before the exit, so buffers are not flushed.
    os.write(2, b"the lease expired and workers have not stopped: exiting\n")
    os._exit(EXIT_CODE)
