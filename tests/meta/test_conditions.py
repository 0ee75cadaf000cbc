"""Conditions: one per type, and a transition time that changes only with the status."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.meta import condition_is_true, find_condition, set_condition
from reconciler.meta.metadata import keep_transition_times

T0 = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_new_condition_is_appended_with_the_time() -> None:
    conditions: list[dict[str, Any]] = []
    assert set_condition(conditions, "Ready", True, reason="Up", message="1 of 1", observed_generation=3, now=T0)
    assert conditions == [
        {
            "type": "Ready",
            "status": "True",
            "reason": "Up",
            "message": "1 of 1",
            "observedGeneration": 3,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
    ]


def test_the_same_condition_again_is_no_change() -> None:
    conditions: list[dict[str, Any]] = []
    set_condition(conditions, "Ready", True, reason="Up", now=T0)
    before = [dict(c) for c in conditions]
    assert not set_condition(conditions, "Ready", "True", reason="Up", now=T0 + timedelta(hours=1))
    assert conditions == before


def test_the_transition_time_changes_only_with_the_status() -> None:
    conditions: list[dict[str, Any]] = []
    set_condition(conditions, "Ready", True, reason="Up", now=T0)
    later = T0 + timedelta(hours=1)
    assert set_condition(conditions, "Ready", True, reason="StillUp", message="m", observed_generation=2, now=later)
    assert conditions[0]["lastTransitionTime"] == "2026-01-01T00:00:00Z"
    assert (conditions[0]["reason"], conditions[0]["message"], conditions[0]["observedGeneration"]) == (
        "StillUp",
        "m",
        2,
    )
    assert set_condition(conditions, "Ready", False, reason="Down", now=later)
    assert conditions[0]["lastTransitionTime"] == "2026-01-01T01:00:00Z"


def test_a_condition_without_transition_time_gets_one() -> None:
    conditions: list[dict[str, Any]] = [{"type": "Ready", "status": "True", "reason": "Up", "message": "a"}]
    set_condition(conditions, "Ready", True, reason="Up", message="b", now=T0)
    assert conditions[0]["lastTransitionTime"] == "2026-01-01T00:00:00Z"


def test_unknown_members_of_a_condition_are_kept() -> None:
    conditions: list[dict[str, Any]] = [{"type": "Ready", "status": "True", "severity": "low"}]
    set_condition(conditions, "Ready", False, reason="Down", now=T0)
    assert conditions[0]["severity"] == "low"


@pytest.mark.parametrize("status", ["true", "yes", "", None, 1])
def test_an_invalid_status_is_rejected(status: Any) -> None:
    with pytest.raises(ValueError, match="status of condition 'Ready' must be a bool, 'True', 'False' or 'Unknown'"):
        set_condition([], "Ready", status, reason="Up", now=T0)


def test_an_empty_reason_is_rejected_as_by_the_api() -> None:
    with pytest.raises(ValueError, match="condition 'Ready' needs a reason"):
        set_condition([], "Ready", True, reason="", now=T0)


def test_find() -> None:
    conditions: list[dict[str, Any]] = []
    for name, status in (("A", True), ("B", False), ("C", "Unknown")):
        set_condition(conditions, name, status, reason="R", now=T0)
    assert find_condition(conditions, "B") is conditions[1]
    assert find_condition(conditions, "X") is None
    assert [condition_is_true(conditions, name) for name in "ABCX"] == [True, False, False, False]


steps = st.tuples(st.sampled_from("AB"), st.sampled_from(["True", "False", "Unknown"]), st.sampled_from(["R1", "R2"]))


@settings(deadline=None)
@given(st.lists(steps, max_size=12))
def test_any_sequence_leaves_one_entry_per_type_with_the_time_of_its_last_transition(
    history: list[tuple[str, str, str]],
) -> None:
    conditions: list[dict[str, Any]] = []
    flips: dict[str, str] = {}
    statuses: dict[str, str] = {}
    for hour, (name, status, reason) in enumerate(history):
        now = T0 + timedelta(hours=hour)
        set_condition(conditions, name, status, reason=reason, now=now)
        if statuses.get(name) != status:
            flips[name] = now.strftime("%Y-%m-%dT%H:%M:%SZ")
        statuses[name] = status
    assert {c["type"]: c["status"] for c in conditions} == statuses
    assert {c["type"]: c["lastTransitionTime"] for c in conditions} == flips
    assert len(conditions) == len(statuses)


OLD = {"type": "Ready", "status": "True", "reason": "Up", "lastTransitionTime": "2026-01-01T00:00:00Z"}
LATER = "2026-01-02T00:00:00Z"


@pytest.mark.parametrize(
    ("condition", "time"),
    [
        ({**OLD, "lastTransitionTime": LATER}, OLD["lastTransitionTime"]),
        ({**OLD, "reason": "Changed", "lastTransitionTime": LATER}, OLD["lastTransitionTime"]),
        ({**OLD, "status": "False", "lastTransitionTime": LATER}, LATER),
        ({**OLD, "type": "Other", "lastTransitionTime": LATER}, LATER),
        ({**OLD, "lastTransitionTime": None}, None),
    ],
)
def test_the_transition_time_of_a_rewritten_condition_is_kept_unless_its_status_changes(
    condition: Any, time: Any
) -> None:
    after = {"conditions": [condition], "phase": "A"}
    keep_transition_times({"conditions": [OLD]}, after)
    assert after == {"conditions": [{**condition, "lastTransitionTime": time}], "phase": "A"}
    assert condition.get("lastTransitionTime") != OLD["lastTransitionTime"], "the caller's own is left alone"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ([{**OLD, "lastTransitionTime": None}], [{**OLD, "lastTransitionTime": LATER}]),
        ([{"type": "Ready", "status": "True"}], [{**OLD, "lastTransitionTime": LATER}]),
        ([["Ready"]], [{**OLD, "lastTransitionTime": LATER}]),
        ([{"type": ["x"]}], [{"type": ["x"], "lastTransitionTime": LATER}]),
        ({"Ready": OLD}, [OLD]),
        ([OLD], {"Ready": OLD}),
        ([OLD], ["Ready", None, 1]),
        (None, [OLD]),
    ],
)
def test_conditions_without_a_time_are_unchanged(old: Any, new: Any) -> None:
    after = {"conditions": new}
    keep_transition_times({"conditions": old}, after)
    assert after == {"conditions": new}
