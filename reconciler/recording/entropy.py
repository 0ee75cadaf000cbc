"""Random numbers of reconciles: a recorder keeps what each one drew, and a replay returns it again."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

Draw = Callable[[Callable[[], Any]], Any]
"""Called for each number; its argument draws one from the usual source."""


@contextlib.contextmanager
def drawn_through(draw: Draw) -> Iterator[None]:
    """Draw all numbers of `random`, `secrets` and `uuid.uuid4` through a function until the block ends.

    That includes `os.urandom`. A function of `random` that a module imported by name before is not included, and
    neither is a `random.Random` of your own.
    """
    drawn, bits, system = random.random, random.getrandbits, os.urandom

    class DrawnRandom(random.Random):
        def random(self) -> float:
            return float(draw(drawn))

        def getrandbits(self, k: int, /) -> int:
            return int(draw(lambda: bits(k)))

    def urandom(size: int, /) -> bytes:
        return bytes(draw(lambda: system(size)))

    through = DrawnRandom()
    with contextlib.ExitStack() as stack:
        for name in random.__all__:
            if isinstance(getattr(getattr(random, name), "__self__", None), random.Random) and name not in _STATE:
                stack.enter_context(mock.patch.object(random, name, getattr(through, name)))
        stack.enter_context(mock.patch.object(random, "_urandom", urandom))
        stack.enter_context(mock.patch.object(os, "urandom", urandom))
        yield


_STATE = frozenset({"seed", "getstate", "setstate"})
"""Functions that act on the usual generator itself."""
