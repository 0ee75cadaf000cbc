"""The mutations: each is a change that compiles, in code that runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants.__main__ import ROOMS, ROOT
from tests.mutants.mutations import mutations_of

SOURCE = b'''
def f(a: int = 1, *, b: "x < y" = True) -> bool:
    """a < b"""
    if a < 2 and not b:
        _log.info("a < b", a + 1)
        return g(a - 1)
    assert a != 3
    raise ValueError(f"{a + 1}")
'''


def test_mutations_of_a_source() -> None:
    assert [(each.before, each.after) for each in mutations_of(SOURCE)] == [
        ("1", "(2)"),
        ("True", "(False)"),
        ("a < 2", "(a <= 2)"),
        ("a < 2 and not b", "(a < 2 or not b)"),
        ("2", "(3)"),
        ("not b", "(b)"),
        ("return g(a - 1)", "return None"),
        ("a - 1", "(a + 1)"),
        ("1", "(2)"),
    ]


def test_every_mutant_of_a_package_compiles() -> None:
    for path in (Path(__file__).parents[2] / "reconciler" / "workqueue").glob("**/*.py"):
        source = path.read_bytes()
        for mutation in mutations_of(source):
            compile(mutation.applied(source), str(path), "exec")


@pytest.mark.parametrize("pattern", [pattern for patterns in ROOMS.values() for pattern in patterns])
def test_every_pattern_of_sources_finds_files(pattern: str) -> None:
    assert list(ROOT.glob(pattern))
