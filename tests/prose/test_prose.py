"""The wording check: what it refuses, and what it accepts although it looks alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.prose.__main__ import findings


def words(path: Path, text: str) -> list[str]:
    path.write_text(text)
    return [found for _, found, _ in findings(path)]


@pytest.mark.parametrize(
    "docstring",
    [
        "Hold the objects.",
        "Writes objects of a cluster.",
        "Carries the delay.",
        "What a reconcile reads.",
        "How a batcher sends.",
    ],
)
def test_a_class_docstring_that_is_not_a_noun_phrase_is_refused(tmp_path: Path, docstring: str) -> None:
    assert words(tmp_path / "a.py", f'class A:\n    """{docstring}"""\n') == [docstring.partition(" ")[0]]


@pytest.mark.parametrize(
    "docstring",
    ["A store of objects.", "Writes that may have been applied.", "Reads from the API server.", "Counts of requests."],
)
def test_a_noun_phrase_is_accepted(tmp_path: Path, docstring: str) -> None:
    assert words(tmp_path / "a.py", f'class A:\n    """{docstring}"""\n') == []


def test_a_function_docstring_is_an_imperative(tmp_path: Path) -> None:
    page = tmp_path / "a.py"
    assert words(page, 'def a():\n    """Return whether it is due."""\n') == []
    assert words(page, 'def a():\n    """Whether it is due."""\n') == ["Whether"]


def test_prose_of_a_page_is_checked_and_its_code_is_not(tmp_path: Path) -> None:
    page = tmp_path / "a.md"
    assert words(page, "The clock in force.\n\n```\nin force\n```\n\n`in force`\n") == ["in force"]
    assert words(page, "Return whether a text is a name.\n") == ["whether a text"]
