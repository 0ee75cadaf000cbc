"""Take the stack of a write, as far as it says who asked for it."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from types import FrameType
from typing import Protocol

__all__ = ["formatted", "stack_of"]

MAX_FRAMES = 24

_BETWEEN = frozenset(
    (
        "aiohttp",
        "asyncio",
        "concurrent",
        "contextlib",
        "functools",
        "httpx",
        "httpx2",
        "kr8s",
        "kubernetes",
        "kubernetes_asyncio",
        "lightkube",
        "pluggy",
        "pydantic",
        "pytest",
        "_pytest",
        "pytest_asyncio",
        "reconciler",
        "requests",
        "tenacity",
        "threading",
        "urllib3",
    )
)
"""Packages that only carry a write that somebody else asked for."""


class _Written(Protocol):
    @property
    def stack(self) -> Sequence[str]: ...


def stack_of(frame: FrameType | None) -> Sequence[str]:
    """Return the frames that lead to one, innermost last, without those of clients and HTTP libraries.

    When there are only such, they are all shown.
    """
    frames = list(traceback.walk_stack(frame))
    asked = [entry for entry in frames if _package_of(entry[0]) not in _BETWEEN] or frames
    summary = traceback.StackSummary.extract(iter(asked[:MAX_FRAMES]))
    return tuple(reversed(summary.format()))


def formatted(write: _Written) -> str:
    """Return the stack of a write as a text."""
    return "".join(write.stack).rstrip("\n")


def _package_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]
