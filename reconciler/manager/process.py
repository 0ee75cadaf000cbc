"""Let the first signal ask for an orderly end, and the second one end the process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator

__all__ = ["EXIT_CODE", "handled_signals"]

_log = logging.getLogger("reconciler.manager")

EXIT_CODE = 1
"""Exit code of a process that a second signal ended; controller-runtime's."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def handled_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Handle SIGTERM and SIGINT until the block ends: the first calls `stop`, the next ends the process at once.

    Outside the main thread, where Python delivers no signals, nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        _log.debug("not in the main thread: signals are left to whoever handles them")
        yield
        return
    loop = asyncio.get_running_loop()
    seen = False

    def handle(number: signal.Signals) -> None:
        nonlocal seen
        if seen:
            # Nothing that could block comes before the exit; buffers are not flushed.
            os.write(2, f"{number.name} again: exit at once\n".encode())
            os._exit(EXIT_CODE)
        seen = True
        _log.info("%s: draining; once more exits at once", number.name)
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
