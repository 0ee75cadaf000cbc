"""The timeline of a key: what is drawn where, from the document of the endpoint."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from reconciler.manager.console.timeline import Mark, timeline_of

NOW = datetime(2026, 11, 27, 12, 0, 0, tzinfo=UTC)


def run(
    ago: float, result: str = "success", seconds: float = 1.0, reasons: str = "event", **more: Any
) -> dict[str, Any]:
    started = (NOW - timedelta(seconds=ago)).isoformat()
    plain = {"started": started, "seconds": seconds, "reasons": [reasons], "result": result}
    return plain | {"writes": 0, "status_written": False, "echoes_dropped": 0} | more


def failed(ago: float, *, terminal: bool = False, **more: Any) -> dict[str, Any]:
    return run(ago, "error", error={"terminal": terminal, "timed_out": False}, **more)


def drawn(marks: tuple[Mark, ...], lane: str) -> list[tuple[str, float, float]]:
    return [(mark.kind, round(mark.start, 3), round(mark.end, 3)) for mark in marks if mark.lane == lane]


def test_retries_and_their_backoffs_reach_to_the_next_one() -> None:
    key = {"runs": [failed(4, reasons="retry"), failed(8)], "due_in_seconds": 5.0}  # newest first
    line = timeline_of(key, NOW)
    assert drawn(line.marks, "reconciles") == [("error", -8, -7), ("error", -4, -3), ("next", 5, 5)]
    assert drawn(line.marks, "waits") == [("retry", -7, -4), ("retry", -3, 5)]
    assert drawn(line.marks, "woken by") == [("change", -8, -8), ("retry", -4, -4)]
    assert line.start < -8
    assert line.end > 5
    assert line.beyond is None


def test_a_change_ends_a_delay() -> None:
    key = {"runs": [run(2), run(10, "requeue_after", requeue_after_seconds=60.0)]}
    assert drawn(timeline_of(key, NOW).marks, "waits") == [("delay", -9, -2)]


def test_a_terminal_error_and_a_success_wait_for_nothing() -> None:
    assert drawn(timeline_of({"runs": [failed(5, terminal=True), run(9)]}, NOW).marks, "waits") == []


def test_writes_and_the_events_that_they_caused() -> None:
    key = {"runs": [run(5, writes=1, status_written=True, echoes_dropped=1)]}
    assert drawn(timeline_of(key, NOW).marks, "writes") == [("write", -4, -4), ("echo", -4, -4)]


def test_what_is_in_progress_reaches_to_now() -> None:
    key = {"runs": [run(9, "requeue", reasons="again")], "in_progress_seconds": 3.0, "current_reasons": ["again"]}
    line = timeline_of(key, NOW)
    assert drawn(line.marks, "reconciles")[-1] == ("active", -3, 0)
    assert drawn(line.marks, "waits") == [("again", -8, -3)]
    assert drawn(line.marks, "woken by")[-1] == ("again", -3, -3)


def test_a_ready_key_waits_for_a_worker() -> None:
    line = timeline_of({"runs": [], "ready_seconds": 7.0, "next_reasons": ["owned: Deployment"]}, NOW)
    assert drawn(line.marks, "waits") == [("queue", -7, 0)]
    assert drawn(line.marks, "woken by") == [("change", -7, -7)]


def test_a_far_future_is_beyond_the_edge() -> None:
    line = timeline_of({"runs": [run(20)], "due_in_seconds": 3600.0}, NOW)
    assert line.beyond == 3600
    assert line.end < 30


def test_a_burst_is_enlarged() -> None:
    key = {"runs": [run(3600 + ago / 10, seconds=0.01) for ago in range(10)]}
    line = timeline_of(key, NOW, "reconciles")
    places = [line.place(mark.start) for mark in line.marks if mark.lane == "reconciles"]
    assert min(after - before for before, after in itertools.pairwise(places)) > 0.08
    assert len(timeline_of(key, NOW, 60.0).marks) == 0


@pytest.mark.parametrize("ago", [0.0, 0.004, 0.7, 5, 90, 4000, 50_000, 3_000_000])
@pytest.mark.parametrize("span", ["all", "reconciles", 30.0])
def test_the_axis_has_some_ticks_in_order(ago: float, span: Any) -> None:
    line = timeline_of({"runs": [run(ago, seconds=0.001)]}, NOW, span)
    places = [line.place(tick.at) for tick in line.ticks]
    assert places == sorted(places)
    assert len({tick.label for tick in line.ticks}) == len(line.ticks) <= 8
    assert all(0 <= place <= 1 for place in places)


def test_nothing_is_remembered() -> None:
    line = timeline_of({"runs": []}, NOW)
    assert (line.marks, line.start < 0 < line.end) == ((), True)
