"""What may only become smaller: the walks of four flows through the library, and its size.

A bound is what was counted when it was set, two percent more for the calls of a walk. Lower it when a count falls.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks import size
from tests.benchmarks.flow import Steps

ROOT = Path(__file__).parents[2]
WALKS = {
    "watch event to status write and echo": Steps(files=45, calls=361, changes=188),
    "get, the server's part": Steps(files=10, calls=27, changes=17),
    "flush over an official client": Steps(files=16, calls=127, changes=67),
    "notification over one channel": Steps(files=67, calls=789, changes=366),
}
MODULES, CODE_LINES, PUBLIC_NAMES, AMBIGUOUS_CLASSES = 292, 56_460, 193, 0


@pytest.fixture(scope="module")
def walks() -> dict[str, list[int]]:
    """Return the walks, measured in a process of their own."""
    command = [sys.executable, "-m", "tests.benchmarks.flow", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found: dict[str, list[int]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", WALKS)
def test_a_walk_does_not_become_longer(walks: dict[str, list[int]], name: str) -> None:
    walk, most = Steps(*walks[name]), WALKS[name]
    assert 0 < walk.files <= most.files
    assert walk.calls <= most.calls
    assert walk.changes <= most.changes


def test_the_library_does_not_grow() -> None:
    found = size.measure()
    assert found.modules.total() <= MODULES
    assert found.lines.total() <= CODE_LINES
    assert found.names.total() <= PUBLIC_NAMES
    assert len(found.ambiguous) <= AMBIGUOUS_CLASSES, found.ambiguous
