"""The depth of the tests: a quarter of the examples by default, and everything in ``nox -s thorough``."""

from __future__ import annotations

import os

THOROUGH = os.environ.get("TEST_DEPTH") == "thorough"


def examples(number: int) -> int:
    """Return how many examples a property test tries: `number` in a thorough run, a quarter of it otherwise."""
    return number if THOROUGH else max(5, number // 4)
