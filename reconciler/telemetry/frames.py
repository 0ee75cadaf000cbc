"""Whose code a stack frame is: the program's own, a library's, Python's, or this package's.

An operator is often installed into ``site-packages`` like its libraries. So its own code is recognized as the package
that this library called, wherever it is.
"""

from __future__ import annotations

import sysconfig
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

__all__ = ["own_frames", "owner_of"]

_HERE = str(Path(__file__).resolve().parent.parent) + "/"
_PYTHON = tuple({sysconfig.get_path(name).rstrip("/") + "/" for name in ("stdlib", "platstdlib")})
_INSTALLED = ("/site-packages/", "/dist-packages/")


@lru_cache(1024)
def owner_of(filename: str) -> str:
    """Return whose code a file is.

    Returns:
        ``"reconciler"``, ``"python"``, the name of an installed package, or ``""`` for code that is not installed.
    """
    if filename.startswith(_HERE):
        return "reconciler"
    for folder in _INSTALLED:
        _, found, rest = filename.rpartition(folder)
        if found:
            return rest.partition("/")[0].removesuffix(".py")
    return "python" if filename.startswith(("<frozen ", *_PYTHON)) else ""


def own_frames(filenames: Iterable[str]) -> Sequence[bool]:
    """Return for each frame of a stack, outermost first, whether it is the program's own code.

    Own is what is not installed, and the package of the outermost frame that is neither Python's nor this library's.
    """
    owners = [owner_of(filename) for filename in filenames]
    entry = next((owner for owner in owners if owner not in ("python", "reconciler")), "")
    return [owner in ("", entry) for owner in owners]
