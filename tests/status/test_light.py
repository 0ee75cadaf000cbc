"""Importing the batcher is cheap."""

from __future__ import annotations

import subprocess
import sys

ALLOWED = {"_core", "_version", "clock", "errors", "http", "meta", "status"}

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

WHAT_AN_ASYNCIO_PROGRAM_HAS = "import asyncio, dataclasses, hashlib, logging, random, urllib.parse\n"

MOST_MODULES = 55
"""Of this library. tests/benchmarks/import_cost.py measures their cost relative to pydantic."""


def loaded(before: str = "") -> set[str]:
    done = subprocess.run([sys.executable, "-c", before + PROGRAM], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_importing_the_batcher_loads_only_the_standard_library_msgspec_and_lower_packages():
    foreign = {name.split(".")[0] for name in loaded()} - set(sys.stdlib_module_names) - {"reconciler"}
    assert foreign == set()


def test_apart_from_few_own_modules_it_loads_nothing_new_to_an_asyncio_program():
    new = loaded(WHAT_AN_ASYNCIO_PROGRAM_HAS)
    assert {name for name in new if not name.startswith("reconciler")} == set()
    assert len(new) <= MOST_MODULES


def test_the_guard_is_loaded_on_first_use():
    assert not {name for name in loaded() if "guard" in name}
    program = "from reconciler.status import guard; guard.install().uninstall()\n"
    done = subprocess.run([sys.executable, "-c", program + PROGRAM], check=True, capture_output=True, text=True)
    assert done.returncode == 0


def test_of_this_library_it_loads_only_lower_packages():
    rooms = {name.split(".")[1] for name in loaded() if name.startswith("reconciler.")}
    assert rooms <= ALLOWED
    assert "status" in rooms
