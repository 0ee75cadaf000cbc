"""The calls and the memory of a call: they show what is not linear without measuring time."""

from __future__ import annotations

import contextlib
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

BYTES_A_CHARACTER = 1500


def check_linear(parse: Callable[[str], Any], text: Callable[[int], str], most: int = 40_000) -> None:
    """Check that the calls and the memory to parse a text, valid or not, grow with its length only."""
    text_of_half, whole = text(most // 2), text(most)
    half = _calls(parse, text_of_half)
    assert _calls(parse, whole) <= max(2.3 * half, 5000), f"{half} calls for half the text"
    assert _peak(parse, whole) <= BYTES_A_CHARACTER * len(whole) + 2**20


def _calls(parse: Callable[[str], Any], text: str) -> int:
    count = 0

    def profile(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(profile)
    try:
        with contextlib.suppress(ValueError):
            parse(text)
    finally:
        sys.setprofile(None)
    return count


def _peak(parse: Callable[[str], Any], text: str) -> int:
    tracemalloc.start()
    try:
        with contextlib.suppress(ValueError):
            parse(text)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
