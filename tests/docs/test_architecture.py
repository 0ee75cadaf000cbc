"""The architecture page names files and packages that exist, and all packages."""

from __future__ import annotations

import pkgutil
import re
from pathlib import Path

import reconciler

HOUSE = Path(reconciler.__file__).parent
PAGE = HOUSE.parent / "docs" / "architecture.md"


def test_every_place_that_the_walk_names_exists() -> None:
    named = re.findall(r"`((?:[a-z]+/)+_?\w*(?:\.py)?)`", PAGE.read_text())
    assert len(named) > 20
    assert [place for place in named if not (HOUSE / place).exists() and not place.startswith("reconciler/")] == []


def test_the_table_of_rooms_has_them_all() -> None:
    rooms = {module.name for module in pkgutil.iter_modules(reconciler.__path__)} - {"__main__", "_version"}
    table = PAGE.read_text().partition("cli      ")[2].partition("```")[0]
    left = " ".join(line[:26] for line in ("cli      " + table).splitlines())
    assert set(re.findall(r"[a-z_]+", left)) == rooms


def test_the_page_names_every_room_in_a_room() -> None:
    inner = {f"{path.parent.relative_to(HOUSE)}/" for path in HOUSE.glob("*/*/__init__.py")}
    assert {place for place in inner if f"`{place}`" not in PAGE.read_text()} == set()


def test_the_picture_names_rooms_that_exist() -> None:
    picture = (PAGE.parent / "architecture.svg").read_text()
    named = re.findall(r">([a-z]+(?:/[a-z]+)*/)<", picture)
    assert len(named) >= 6
    assert [place for place in named if not (HOUSE / place).is_dir()] == []
