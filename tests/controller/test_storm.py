"""The detection of tight loops."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from reconciler.controller.reconcile.watchdogs import TightLoops


class Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def monotonic(self) -> float:
        return self.time

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.time, UTC)


def test_eleventh_reconcile_within_ten_seconds_is_a_storm():
    clock = Clock()
    alarm = TightLoops(clock)
    for _ in range(10):
        assert alarm.note("k", {"event"}) is None
        clock.time += 0.9
    storm = alarm.note("k", {"event", "owned: Pod"})
    assert str(storm) == "k was reconciled 11 times within 10 s, because of: event x11, owned: Pod x1"


def test_ten_reconciles_within_ten_seconds_are_normal():
    clock = Clock()
    alarm = TightLoops(clock)
    for _ in range(100):
        assert alarm.note("k", set()) is None
        clock.time += 1.0


def test_keys_are_counted_separately():
    alarm = TightLoops(Clock())
    assert not any(alarm.note(key, set()) for _ in range(10) for key in range(50))


def test_a_key_is_found_among_very_many_others_of_which_few_are_remembered():
    clock = Clock()
    alarm = TightLoops(clock)
    for number in range(40_000):
        alarm.note(number, {"event"})
        if number % 2000 == 0:
            alarm.note("k", {"event"})
        clock.time += 0.0002
    assert alarm.is_in_loop("k")
    assert alarm.storms == 1
    assert len(alarm) == 5_000


def test_as_many_keys_as_are_remembered_are_all_found():
    clock = Clock()
    alarm = TightLoops(clock)
    for _ in range(11):
        for key in range(5_000):
            alarm.note(key, set())
        clock.time += 0.5
    assert alarm.storms == 5_000


def test_a_key_is_reported_again_only_after_a_while():
    clock = Clock()
    alarm = TightLoops(clock)
    reported = []
    for _ in range(7000):
        if alarm.note("k", set()):
            reported.append(round(clock.time))
        clock.time += 0.1
    assert reported == [1, 301, 601]
    assert alarm.storms == 3


def test_of_many_storms_a_few_are_logged_and_the_others_counted():
    clock = Clock()
    alarm = TightLoops(clock)

    def burst() -> list[str]:
        storms = [alarm.note(key, {"event"}) for _ in range(11) for key in range(1000)]
        return [str(storm) for storm in storms if storm is not None and storm.logged]

    first = burst()
    assert len(first) == 10
    assert first[0] == "0 was reconciled 11 times within 10 s, because of: event x11"
    assert first[9] == f"{first[0].replace('0', '9', 1)}; further ones are counted but not logged"
    assert alarm.storms == 1000
    clock.time += 301
    second = burst()
    assert len(second) == 10
    assert second[0].endswith("event x11; 990 other tight loops were counted but not logged")
    assert second[1].endswith("event x11")
    assert alarm.storms == 2000


def test_idle_keys_are_dropped_although_only_reconciles_that_were_asked_for_follow():
    clock = Clock()
    alarm = TightLoops(clock=clock)
    for key in range(100):
        alarm.note(key, {"event"})
    clock.time += 10
    alarm.note(0, {"requeue_after"}, by_timer=True)
    assert len(alarm) == 0


def test_interrupted_storms_are_not_reported_again():
    clock = Clock()
    alarm = TightLoops(clock)
    reported = 0
    for _ in range(10):  # a burst every 30 s
        reported += sum(alarm.note("k", set()) is not None for _ in range(20))
        clock.time += 30
    assert reported == 1


def test_idle_keys_cost_nothing():
    clock = Clock()
    alarm = TightLoops(clock)
    for key in range(1000):
        alarm.note(key, set())
        clock.time += 1
    assert len(alarm) <= 11


@pytest.mark.parametrize(
    ("reasons", "by_timer"),
    [
        ({"retry"}, True),
        ({"again"}, False),
        ({"again"}, True),
        ({"requeue_after", "again"}, True),
        ({"enqueue: mine"}, True),
        ({"source: builds", "retry"}, True),
    ],
)
def test_reconciles_that_were_asked_for_do_not_count(reasons, by_timer):
    alarm = TightLoops(Clock())
    assert not any(alarm.note("k", reasons, by_timer=by_timer) for _ in range(100))
    assert len(alarm) == 0


@pytest.mark.parametrize(
    ("reasons", "by_timer"),
    [
        ({"event"}, False),
        ({"event"}, True),  # debounced
        ({"retry", "event"}, False),
        ({"owned: Pod"}, True),
        ({"enqueue: mine"}, False),
        ({"source: builds", "again"}, False),
    ],
)
def test_reconciles_that_nobody_asked_for_count(reasons, by_timer):
    alarm = TightLoops(Clock())
    assert any(alarm.note("k", reasons, by_timer=by_timer) for _ in range(11))
