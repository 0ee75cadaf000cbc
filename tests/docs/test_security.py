"""The pages on security and on guarantees: every promise names the tests that hold it, and these exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()
GUARANTEES = (ROOT / "docs" / "guarantees.md").read_text()
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def test_every_test_that_the_page_names_exists() -> None:
    named = TEST.findall(PAGE)
    assert len(named) > 50
    assert len(named) == PAGE.count("::"), "a test is not written as `tests/directory/file.py::name`"
    assert [f"{file}::{name}" for file, name in named if name not in _functions(ROOT / file)] == []


def test_every_promise_names_a_test() -> None:
    promises = PAGE.partition("## What is promised")[2].partition("\n## ")[0]
    rows = [line for line in promises.splitlines() if line.startswith("| ") and not line.startswith("| promise |")]
    assert len(rows) > 30
    assert [row for row in rows if not TEST.search(row)] == []


def test_every_guarantee_names_its_tests_and_campaigns_and_these_exist() -> None:
    sessions = re.findall(r'@nox.session\((?:name="([\w-]+)")?[^)]*\)\ndef (\w+)', (ROOT / "noxfile.py").read_text())
    campaigns = {name or function for name, function in sessions}
    described = (ROOT / "docs" / "reliability.md").read_text()
    rows = [line.split(" | ") for line in GUARANTEES.splitlines() if line.startswith("| ") and "held by" not in line]
    assert len(rows) > 10
    for guarantee, _condition, _rules, tests, judged in rows:
        assert TEST.search(tests), guarantee
        assert [f"{file}::{name}" for file, name in TEST.findall(tests) if name not in _functions(ROOT / file)] == []
        named = re.findall(r"`([\w-]+)`", judged)
        assert named, guarantee
        assert [name for name in named if name not in campaigns or f"nox -s {name}" not in described] == []


def _functions(file: Path) -> set[str]:
    """Return the names of a file's tests, or the empty set if there is no such file."""
    found = set()
    for node in ast.parse(file.read_text()).body if file.exists() else []:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            found.add(node.name)
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):  # of a state machine
            found.add(node.targets[0].id)
    return {name for name in found if name.lower().startswith("test")}
