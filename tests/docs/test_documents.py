"""Every Python block of the README and the docs pages runs, in order, as a reader would type it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from sybil import Document, Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

from reconciler.status.write_interception import listeners

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SYBIL = Sybil(parsers=[SkipParser(), PythonCodeBlockParser()], path=str(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_code_of_the_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    document: Document = SYBIL.parse(page)
    for example in document.examples():
        example.evaluate()
    assert not listeners(), "the page leaves a guard on, which later tests would notice"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_has_at_most_120_columns_so_that_the_site_does_not_cut_it(page: Path) -> None:
    blocks = re.findall(r"^```(?:python|yaml)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    assert [line for block in blocks for line in block.splitlines() if len(line) > 120] == []


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    missing = [page.name for page in PAGES[1:] if page.name != "index.md" and f"({page.name})" not in index]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_type_checker_accepts_the_reconcilers_that_a_reader_copies(page: Path) -> None:
    """A function that is annotated with Outcome and ends without a return is an error of mypy; None is its type."""
    silent = [
        each.name
        for block in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
        for each in ast.walk(ast.parse(block))
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
        and isinstance(each.returns, ast.Name)
        and each.returns.id == "Outcome"
        and not isinstance(each.body[-1], ast.Return | ast.Raise)
    ]
    assert silent == []
