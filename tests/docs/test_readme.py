"""The README is also the project's page on the package index, where only absolute links work."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
HERE = "https://github.com/kube-reconciler/kube-reconciler"
DEFINED = dict(re.findall(r"^\[(.+)\]: (\S+)$", README, re.MULTILINE))


def test_every_link_is_absolute_and_names_a_page_and_a_heading_that_exist() -> None:
    assert re.findall(r"\]\((?!https://)[^)]*\)", README) == []
    assert len(DEFINED) > 15
    for target in DEFINED.values():
        assert target.startswith("https://"), target
        path, _, heading = target.removeprefix(f"{HERE}/blob/main/").partition("#")
        assert (ROOT / path).is_file(), target
        if heading:
            titles = re.findall(r"^#+ (.*)$", (ROOT / path).read_text(), re.MULTILINE)
            assert heading in {title.lower().replace(" ", "-") for title in titles}


def test_every_defined_link_is_used() -> None:
    text = re.sub(r"(?m)^\[.+\]: .*$", "", README).lower()
    assert [label for label in DEFINED if f"[{label}]".lower() not in text] == []


def test_the_package_index_shows_where_the_project_is() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(project["urls"]) == {"Homepage", "Documentation", "Repository", "Changelog", "Issues"}
    for url in project["urls"].values():
        path = url.removeprefix(HERE).removeprefix("/blob/main/")
        assert url.startswith(HERE)
        assert path in {"", "/issues"} or (ROOT / path).is_file()
