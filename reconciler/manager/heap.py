"""Keep the garbage collector's passes short in a process that lives for its manager."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator

__all__ = ["settled_heap"]

_DEFAULTS = ((700, 10, 10), (2000, 10, 10), (2000, 10, 0))
"""Thresholds of Python 3.11 to 3.14."""

_YOUNG = 10_000
"""New objects, beyond those that have gone, until a pass over the young ones: some 2 MB."""


@contextlib.contextmanager
def settled_heap() -> Iterator[Callable[[], None]]:
    """Collect what is garbage, and give what lets later passes skip all that is there when it is called.

    Modules, classes and models of an operator are some 200,000 objects that live as long as the process. A full pass
    over them stops the loop for 30 to 100 ms, and does so every few thousand reconciles. The pass that cannot be spared
    comes here, before anything works. Passes over young objects come more rarely, too, unless the program has chosen
    how often: a reconcile makes hundreds of objects that soon go by themselves. At the end of the block everything is
    as usual again.
    """
    threshold = gc.get_threshold()
    gc.collect()
    try:
        if threshold in _DEFAULTS:
            gc.set_threshold(_YOUNG, *threshold[1:])
        yield gc.freeze
    finally:
        gc.set_threshold(*threshold)
        gc.unfreeze()
