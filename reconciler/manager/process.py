"""Process-wide settings of a manager: signal handlers, the garbage collector and the stacks of threads."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import threading
import weakref
from collections.abc import Callable, Iterator

_log = logging.getLogger("reconciler.manager")

EXIT_CODE = 1
"""Exit code after a second signal; controller-runtime's."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_DEFAULT_THRESHOLDS = ((700, 10, 10), (2000, 10, 10))
"""The garbage collector's thresholds: those of Python 3.11 and 3.12, and those of 3.13 and newer.

The collector of 3.14.0 to 3.14.4 is another one, with thresholds of (2000, 10, 0). It examines old objects in parts by
itself. Python 3.14.5 returned to the collector of 3.13."""

_THRESHOLDS = (2000, 2, 100)
"""So a collection of the two young generations examines about 6,000 objects, not 22,000 as with a threshold of ten for
the middle one. Full collections, which take longest, become rarer than by default."""

_STACK_SIZE = 8 * 2**20
"""Bytes of address space for the stack of a thread: what glibc reserves. Memory is used only as far as it is needed."""


class _SignalHandler:
    """The handler of SIGTERM and SIGINT while managers run in an event loop; the process has one for all of them.

    Attributes:
        stops: the functions that stop the managers.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.stops: list[Callable[[], None]] = []
        self._loop = loop
        self._seen = False
        self._before = {number: signal.getsignal(number) for number in _SIGNALS}
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._handle, number)

    def add(self, stop: Callable[[], None]) -> None:
        """Add a manager; one that starts while the others drain is stopped at once."""
        self.stops.append(stop)
        if self._seen:
            stop()

    def remove(self) -> None:
        """Restore the handlers that were set before."""
        for number, handler in self._before.items():
            self._loop.remove_signal_handler(number)
            if handler is not None:
                signal.signal(number, handler)

    def _handle(self, number: signal.Signals) -> None:
        if self._seen:
            # Nothing here may block before the exit, so buffers are not flushed.
            os.write(2, f"{number.name} received again: exiting immediately\n".encode())
            os._exit(EXIT_CODE)
        self._seen = True
        _log.info("%s received: draining; send it again to exit immediately", number.name)
        for stop in self.stops:
            stop()


_handlers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _SignalHandler] = weakref.WeakKeyDictionary()


@contextlib.contextmanager
def handled_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Handle SIGTERM and SIGINT until the block ends: the first signal calls `stop`, the next one exits immediately.

    Blocks of several managers may overlap: a signal calls the `stop` of each, and the handlers that were set before are
    restored at the end of the last block. Outside the main thread, where Python delivers no signals, nothing is
    changed.
    """
    if threading.current_thread() is not threading.main_thread():
        _log.debug("not in the main thread: signals are not handled")
        yield
        return
    loop = asyncio.get_running_loop()
    handler = _handlers.get(loop)
    if handler is None:
        handler = _handlers[loop] = _SignalHandler(loop)
    handler.add(stop)
    try:
        yield
    finally:
        handler.stops.remove(stop)
        if not handler.stops:
            del _handlers[loop]
            handler.remove()


_collector_lock = threading.Lock()
_thresholds: list[tuple[int, int, int]] = []
"""The garbage collector's thresholds at the start of each open block; the first are those of the program."""


@contextlib.contextmanager
def tuned_garbage_collector() -> Iterator[Callable[[], None]]:
    """Exclude all existing objects from garbage collections, and yield a function that does so again.

    An operator has about 50,000 functions, classes and models that live as long as the process. A full collection over
    them blocks the event loop for 20 to 100 ms, and happens every few thousand reconciles. They are not collected once
    more before: imports leave next to no garbage. The other collections become shorter, unless the program has set its
    own thresholds. The end of the last of several overlapping blocks restores all settings. A program that has frozen
    objects itself tunes the collector itself: nothing is changed, since unfreezing would include its objects.
    """
    if not _thresholds and gc.get_freeze_count():
        yield lambda: None
        return
    with _collector_lock:
        _thresholds.append(gc.get_threshold())
        if _thresholds[-1] in _DEFAULT_THRESHOLDS:
            gc.set_threshold(*_THRESHOLDS)
    gc.freeze()
    try:
        yield gc.freeze
    finally:
        with _collector_lock:
            before = _thresholds.pop()
            if not _thresholds:
                gc.set_threshold(*before)
                gc.unfreeze()


def enlarge_stacks() -> None:
    """Let threads that start from now on have stacks of 8 MB, unless the program has set their size.

    With musl (Alpine) they would have 1 MB or less. Python's limit of recursion lets C code go deeper: a document with
    3,000 levels, decoded in a thread, would end the process.
    """
    threading.stack_size(threading.stack_size() or _STACK_SIZE)  # without an argument it is reset, too
