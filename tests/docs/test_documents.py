"""Every Python block of the README and the docs pages runs, in order, as a reader would type it."""

from __future__ import annotations

from pathlib import Path

import pytest
from sybil import Document, Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

from reconciler.status.write_guard.interception import listeners

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


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    missing = [page.name for page in PAGES[1:] if page.name != "index.md" and f"({page.name})" not in index]
    assert missing == []
