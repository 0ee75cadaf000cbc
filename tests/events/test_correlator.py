"""The correlator: client-go's numbers for aggregation, counting and filtering."""

from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.events import Correlation, Correlator, EventSubject, Occurrence

START = datetime(2026, 1, 1, tzinfo=UTC)


def occurrence(
    message: str = "m",
    *,
    at: float = 0.0,
    name: str = "db1",
    type: str = "Normal",
    reason: str = "Made",
    version: str = "1",
) -> Occurrence:
    subject = EventSubject("example.com/v1", "Database", name, "prod", f"uid-{name}", version)
    return Occurrence(subject, type, reason, message, START + timedelta(seconds=at), at)


def correlator(size: int = 4096) -> Correlator:
    numbers = count(1)
    return Correlator(lambda occurrence: f"{occurrence.subject.name}.{next(numbers)}", size=size)


def decided(decision: Correlation | None) -> Correlation:
    assert decision is not None
    return decision


def test_an_identical_event_raises_the_count_and_keeps_name_and_first_time() -> None:
    c = correlator()
    first = decided(c.decide(occurrence(at=0)))
    second = decided(c.decide(occurrence(at=60, version="2")))
    assert (first.name, first.count, first.first) == ("db1.1", 1, START)
    assert (second.name, second.count, second.first) == ("db1.1", 2, START)


@pytest.mark.parametrize(
    "other",
    [occurrence("n"), occurrence(name="db2"), occurrence(type="Warning"), occurrence(reason="Lost")],
    ids=["message", "object", "type", "reason"],
)
def test_different_event_is_a_new_event(other: Occurrence) -> None:
    c = correlator()
    c.decide(occurrence())
    assert decided(c.decide(other)).count == 1


def test_from_the_tenth_different_message_on_similar_events_are_combined() -> None:
    c = correlator()
    decisions = [decided(c.decide(occurrence(f"m{n}", at=n))) for n in range(12)]
    assert [d.message for d in decisions[:9]] == [f"m{n}" for n in range(9)]
    assert [d.message for d in decisions[9:]] == [f"(combined from similar events): m{n}" for n in (9, 10, 11)]
    assert [d.count for d in decisions] == [1] * 10 + [2, 3]
    assert len({d.name for d in decisions[9:]}) == 1
    assert decisions[9].first == START + timedelta(seconds=9)


def test_repeated_message_is_never_combined() -> None:
    c = correlator()
    decisions = [decided(c.decide(occurrence(at=n))) for n in range(20)]
    assert [d.count for d in decisions] == list(range(1, 21))
    assert {d.message for d in decisions} == {"m"}


def test_count_of_similar_events_is_reset_after_600_quiet_seconds() -> None:
    def tenth(gap: float) -> str:
        c = correlator()
        for n in range(9):
            c.decide(occurrence(f"m{n}"))
        return decided(c.decide(occurrence("m9", at=gap))).message

    assert tenth(600) == "(combined from similar events): m9"
    assert tenth(600.1) == "m9"


def test_slow_steady_stream_is_combined() -> None:
    c = correlator()
    messages = [decided(c.decide(occurrence(f"m{n}", at=n * 500))).message for n in range(12)]
    assert [m.startswith("(combined") for m in messages] == [False] * 9 + [True] * 3


def test_memory_of_messages_is_bounded() -> None:
    c = correlator()
    for n in range(500):
        c.decide(occurrence(f"m{n}"))
    (messages,) = c._messages.values()
    assert len(messages.seen) < 10


def test_bucket_never_holds_more_than_the_burst() -> None:
    c = correlator()
    c.decide(occurrence())
    passed = [c.decide(occurrence(at=1e6)) is not None for _ in range(30)]
    assert sum(passed) == 25


def test_25_events_pass_at_once_and_then_one_every_300_seconds() -> None:
    c = correlator()
    passed = [c.decide(occurrence()) is not None for _ in range(30)]
    assert passed == [True] * 25 + [False] * 5
    assert c.decide(occurrence(at=299)) is None
    assert c.decide(occurrence(at=301)) is not None
    assert c.decide(occurrence(at=302)) is None


def test_a_filtered_event_is_counted_in_the_next_one_that_passes() -> None:
    c = correlator()
    for _ in range(30):
        c.decide(occurrence())
    assert decided(c.decide(occurrence(at=301))).count == 31


def test_events_of_one_object_and_type_share_the_filter_for_all_reasons() -> None:
    c = correlator()
    for n in range(25):
        c.decide(occurrence(reason=f"R{n}"))
    assert c.decide(occurrence(reason="Another")) is None
    assert c.decide(occurrence(type="Warning")) is not None
    assert c.decide(occurrence(name="db2")) is not None


def test_least_recently_used_entry_is_evicted() -> None:
    c = correlator(size=2)
    for name in ("a", "b", "a", "c"):
        c.decide(occurrence(name=name))
    assert decided(c.decide(occurrence(name="a"))).count == 3
    assert decided(c.decide(occurrence(name="b"))).count == 1


def test_reading_an_entry_counts_as_use() -> None:
    c = correlator(size=2)
    for n in range(9):
        c.decide(occurrence(f"m{n}", name="a"))
    c.decide(occurrence(name="b"))
    c.decide(occurrence("m0", name="a"))
    c.decide(occurrence(name="c"))
    assert decided(c.decide(occurrence("m9", name="a"))).message == "(combined from similar events): m9"


@settings(deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from("abcdefghijklm"), st.sampled_from(["x", "y"]), st.floats(0, 700)), max_size=80
    )
)
def test_counts_of_stored_events_add_up_to_the_occurrences(steps: list[tuple[str, str, float]]) -> None:
    """Each occurrence is in exactly one count, combined or filtered or not."""
    c = correlator()
    now, counts = 0.0, dict[str, int]()
    for message, name, gap in steps:
        now += gap
        c.decide(occurrence(message, name=name, at=now))
    for decision in c._stored.values():
        counts[decision.name] = decision.count
    assert sum(counts.values()) == len(steps)


@settings(deadline=None)
@given(gaps=st.lists(st.floats(0, 400), max_size=120))
def test_never_more_pass_than_burst_and_refill_allow(gaps: list[float]) -> None:
    c = correlator()
    now, passed = 0.0, 0
    for gap in gaps:
        now += gap
        passed += c.decide(occurrence(at=now)) is not None
    assert passed <= 25 + now / 300 + 1e-6
