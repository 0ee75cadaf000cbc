"""The pictures of the dashboards, which ``nox -s dashboards`` draws, can show every panel and alert."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.alerts.__main__ import rules
from tests.dashboards.__main__ import DASHBOARDS, PICTURES, alerts, panels

LIMIT = 150_000
"""Bytes of a picture."""


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_panel_can_be_drawn_and_no_variable_is_left(name: str, tmp_path: Path) -> None:
    from tests.dashboards.draw import draw  # matplotlib, which other tests need not wait for

    drawn = panels(DASHBOARDS[name])
    targets = [target for panel in drawn for target in panel.get("targets", [])]
    assert len(targets) > 10
    for target in targets:
        assert "$" not in target["expr"]
        target["series"] = [{"labels": {"channel": "pager"}, "points": [(0, 0.0), (180, 1.0)]}]
    draw(drawn, tmp_path / "drawn.png")
    assert (tmp_path / "drawn.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("name", DASHBOARDS)
def test_no_two_panels_share_a_place(name: str) -> None:
    places = [
        (x, y)
        for panel in panels(DASHBOARDS[name])
        for position in (panel["gridPos"],)
        for x in range(position["x"], position["x"] + position["w"])
        for y in range(position["y"], position["y"] + position["h"])
    ]
    assert len(places) == len(set(places))
    assert max(x for x, _ in places) < 24


def test_every_alert_is_in_the_picture() -> None:
    groups = rules()["groups"]
    assert isinstance(groups, list)
    names = [rule["alert"] for group in groups for rule in group["rules"]]
    assert [panel["title"].partition(":")[0] for panel in alerts()] == names


def test_the_pictures_are_small() -> None:
    assert {
        name: size for name in (*DASHBOARDS, "alerts") if (size := (PICTURES / f"{name}.png").stat().st_size) > LIMIT
    } == {}
