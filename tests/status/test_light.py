"""Importing the batcher costs a controller next to nothing."""

from __future__ import annotations

import subprocess
import sys

ALLOWED = {"errors", "clock", "backoff", "http", "meta", "status", "_version"}

PROGRAM = """
import sys
import msgspec
before = set(sys.modules)
import reconciler.status
import reconciler
reconciler.StatusBatcher
new = set(sys.modules) - before
print(*sorted(new))
"""


def loaded() -> set[str]:
    done = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_importing_the_batcher_loads_only_the_standard_library_msgspec_and_the_rooms_below():
    foreign = {name.split(".")[0] for name in loaded()} - set(sys.stdlib_module_names) - {"reconciler"}
    assert foreign == set()


def test_of_this_library_it_loads_only_the_rooms_below():
    rooms = {name.split(".")[1] for name in loaded() if name.startswith("reconciler.")}
    assert rooms <= ALLOWED
    assert "status" in rooms
