"""Keep the garbage collector's passes short in a process that lives for its manager."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator

__all__ = ["settled_heap"]


@contextlib.contextmanager
def settled_heap() -> Iterator[Callable[[], None]]:
    """Collect what is garbage, and give what lets later passes skip all that is there when it is called.

    Modules, classes and models of an operator are some 200,000 objects that live as long as the process. A full pass
    over them stops the loop for 30 to 100 ms, and does so every few thousand reconciles. The pass that cannot be spared
    comes here, before anything works. At the end of the block everything is as usual again.
    """
    gc.collect()
    try:
        yield gc.freeze
    finally:
        gc.unfreeze()
