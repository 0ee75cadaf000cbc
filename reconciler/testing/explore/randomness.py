"""Random numbers that a seed repeats, another stream for each process of an operator."""

from __future__ import annotations

import contextlib
import os
import random
import sys
from collections.abc import Iterator
from types import FrameType
from unittest import mock

from reconciler.testing.world import current_process


@contextlib.contextmanager
def seeded_randomness(seed: int) -> Iterator[None]:
    """Let `os.urandom`, and so `uuid.uuid4` and `secrets`, return what a seed determines, until the block ends.

    Each process of the operator has its own stream: the same numbers again would hide a name that is drawn twice.
    The server and the user draw from the system; an operator sees nothing of that.
    """
    streams: dict[int, random.Random] = {}
    state, system = random.getstate(), os.urandom

    def urandom(size: int, /) -> bytes:
        process = current_process.get()
        if process is None or _is_importing():
            return system(size)
        stream = streams.get(process.number)
        if stream is None:
            stream = streams[process.number] = random.Random(f"{seed}/{process.number}")  # noqa: S311 - repeatable
        return stream.randbytes(size)

    with mock.patch.object(os, "urandom", urandom), mock.patch.object(random, "_urandom", urandom):
        try:
            yield
        finally:
            random.setstate(state)


def _is_importing() -> bool:
    """Return whether a module is being imported, which happens in the first run only."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the documented way to the stack, without its source
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False
