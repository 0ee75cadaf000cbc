"""Process-wide settings while a manager runs: signal handlers and the garbage collector."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator

__all__ = ["EXIT_CODE", "handled_signals", "tuned_garbage_collector"]

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


@contextlib.contextmanager
def handled_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Handle SIGTERM and SIGINT until the block ends: the first signal calls `stop`, the next one exits immediately.

    Outside the main thread, where Python delivers no signals, nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        _log.debug("not in the main thread: signals are not handled")
        yield
        return
    loop = asyncio.get_running_loop()
    seen = False

    def handle(number: signal.Signals) -> None:
        nonlocal seen
        if seen:
            # Nothing here may block before the exit, so buffers are not flushed.
            os.write(2, f"{number.name} received again: exiting immediately\n".encode())
            os._exit(EXIT_CODE)
        seen = True
        _log.info("%s received: draining; send it again to exit immediately", number.name)
        stop()

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number in _SIGNALS:
        loop.add_signal_handler(number, handle, number)
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            if handler is not None:
                signal.signal(number, handler)


@contextlib.contextmanager
def tuned_garbage_collector() -> Iterator[Callable[[], None]]:
    """Exclude all existing objects from garbage collections, and yield a function that does so again.

    An operator has about 50,000 functions, classes and models that live as long as the process. A full collection over
    them blocks the event loop for 20 to 100 ms, and happens every few thousand reconciles. They are not collected once
    more before: imports leave next to no garbage. The other collections become shorter, unless the program has set its
    own thresholds. The end of the block restores all settings.
    """
    thresholds = gc.get_threshold()
    gc.freeze()
    try:
        if thresholds in _DEFAULT_THRESHOLDS:
            gc.set_threshold(*_THRESHOLDS)
        yield gc.freeze
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
