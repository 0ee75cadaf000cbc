"""The wording check: what it refuses, and what it accepts although it looks alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.prose.__main__ import findings


def words(path: Path, text: str) -> list[str]:
    path.write_text(text)
    return [found for _, found, _ in findings(path)]


@pytest.mark.parametrize("docstring", ["A store of objects.", "Decodes watch events.", "Return whether it is due."])
def test_a_docstring_may_begin_with_any_word(tmp_path: Path, docstring: str) -> None:
    assert words(tmp_path / "a.py", f'class A:\n    """{docstring}"""\n') == []


def test_docstrings_comments_and_messages_are_checked(tmp_path: Path) -> None:
    page = tmp_path / "a.py"
    assert words(page, 'def a():\n    """The clock in force."""\n') == ["in force"]
    assert words(page, "a = 1  # in vain\n") == ["in vain"]
    assert words(page, 'raise ValueError("a header that is none")\n') == ["that is none"]


def test_prose_of_a_page_is_checked_and_its_code_is_not(tmp_path: Path) -> None:
    page = tmp_path / "a.md"
    assert words(page, "The clock in force.\n\n```\nin force\n```\n\n`in force`\n") == ["in force"]
    assert words(page, "Return whether a text is a name.\n") == ["whether a text"]
