"""The contributing guide names every session and folder of tests, files that exist, and three for a recipe at most."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()


def test_every_place_that_the_guide_names_exists() -> None:
    places = re.findall(r"`((?:reconciler|tests|docs)/[\w/.-]+)`", PAGE)
    assert len(places) > 30
    assert [place for place in places if not (ROOT / place).exists() and "THEME" not in place] == []


def test_a_recipe_has_at_most_three_steps() -> None:
    recipes = PAGE.partition("## How to add")[2].partition("\n## ")[0].split("\n**")[1:]
    assert len(recipes) >= 5
    assert [recipe[:40] for recipe in recipes if len(re.findall(r"^\d\. ", recipe, re.MULTILINE)) > 3] == []


def test_every_room_that_a_change_may_be_in_is_on_the_map() -> None:
    rooms = {path.parent.name for path in (ROOT / "reconciler").glob("*/__init__.py")}
    small = {"events", "http", "meta", "telemetry", "testing", "webhook"}
    assert {room for room in rooms - small if f"`reconciler/{room}/" not in PAGE} == set()


def test_every_session_of_nox_is_named() -> None:
    found = re.findall(
        r'^@nox\.session\((?:name="([\w-]+)")?.*\)\ndef (\w+)', (ROOT / "noxfile.py").read_text(), re.MULTILINE
    )
    sessions = {name or function for name, function in found} - {"tests"}
    assert len(sessions) > 10
    assert {each for each in sessions if not re.search(rf"`(?:nox -s )?{each}\b", PAGE)} == set()


def test_every_folder_of_tests_is_on_the_map() -> None:
    packages = {path.stem for room in ("reconciler", "reconciler/_core") for path in (ROOT / room).iterdir()}
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and not path.name.startswith("_")}
    assert {each for each in folders - packages if f"`tests/{each}/`" not in PAGE} == set()


def test_each_action_of_a_workflow_is_pinned_to_a_commit_and_names_its_version() -> None:
    texts = [path.read_text() for path in (ROOT / ".github" / "workflows").iterdir()]
    used = [line.strip() for text in texts for line in text.splitlines() if "uses:" in line]
    assert len(used) > 10
    assert [line for line in used if not re.fullmatch(r"- uses: [\w/-]+@[0-9a-f]{40} # v[\d.]+", line)] == []
