"""Reasons as sentences, for ``reconciler explain`` and the console."""

from __future__ import annotations

import pytest

from reconciler.controller.wake.reasons import because


@pytest.mark.parametrize(
    ("reasons", "clause"),
    [
        ([], "of an unnamed reason"),
        (["event"], "the object appeared or changed"),
        (["owned: Secret"], "an object that it owns changed (Secret)"),
        (["event", "retry"], "the object appeared or changed, and the backoff after a failure had passed"),
        (
            ["event", "owned: Pod", "owned: Secret", "custom"],
            "the object appeared or changed, an object that it owns changed (Pod, Secret), and custom",
        ),
        (["enqueue: a: b"], "the operator enqueued it (a: b)"),
    ],
)
def test_reasons_are_one_clause(reasons: list[str], clause: str) -> None:
    assert because(reasons) == clause
