"""The retry timeline under disturbances that hypothesis chooses.

Writes by others, restarts of the manager, and status writes that fail before or after they take effect. In all cases no
attempt is early, lost or counted twice, no delivery is repeated, and a reconcile writes once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from reconciler import Client, Manager
from reconciler.apiserver import APIServer
from reconciler.errors import Conflict
from reconciler.notification import Message, NotificationReconciler, NotificationRequest
from reconciler.testing import virtual_time
from tests.depth import examples

DELAYS = [30, 60, 120, 240]
END = 2000
NAME, NAMESPACE = "disk-full", "default"

Disturbance = tuple[float, str]
FOREIGN = ["annotation", "label", "foreign condition", "foreign condition changed"]
REMOVED = ["due times removed", "channels removed"]
PROCESS = ["restart", "cut watches", "compact"]
FAULTS = [
    "status write 409",
    "status write 500",
    "status write 503",
    "status write lost before it landed",
    "status write lost after it landed",
    "status write 500 after it landed",
]


@dataclass
class Sink:
    """A channel that records each call and fails on demand."""

    name: str
    fails: bool
    calls: list[float] = field(default_factory=list)

    async def deliver(self, message: Message) -> None:
        self.calls.append(asyncio.get_running_loop().time())
        assert message.attempt == len(self.calls)
        if self.fails:
            raise ConnectionError(f"attempt {message.attempt} found no route")


@dataclass
class Story:
    """The result of one run."""

    console: Sink
    pager: Sink
    status: dict[str, Any]
    cycles: int
    writes: int


async def play(disturbances: Sequence[Disturbance], event_order: Any = "seeded") -> Story:
    """Run one request to its end while the disturbances happen at their times."""
    console, pager = Sink("console", fails=False), Sink("pager", fails=True)
    cycles = 0
    async with APIServer(event_order=event_order) as server, Client(server, user_agent="somebody else") as client:
        await server.apply(NotificationRequest)
        await client.create(
            NotificationRequest.from_dict(
                {
                    "metadata": {"name": NAME, "namespace": NAMESPACE},
                    "spec": {
                        "type": "Simple",
                        "subject": "s",
                        "body": "b",
                        "channels": ["console", "pager"],
                        "retryPolicy": {"jitter": 0},
                    },
                }
            )
        )
        pending = sorted(disturbances)
        loop = asyncio.get_running_loop()
        while True:
            restart = False
            async with Client(server, user_agent="the operator") as own:
                manager = Manager(own)
                controller = manager.add_controller(NotificationReconciler(channels=[console, pager]))
                async with manager.running():
                    while pending and not restart:
                        moment, what = pending.pop(0)
                        await asyncio.sleep(max(0.0, moment - loop.time()))
                        restart = what == "restart"
                        await disturb(server, client, what, moment)
                    if not restart:
                        await asyncio.sleep(max(0.0, END - loop.time()))
                cycles += controller.statistics().reconciles
            if not restart:
                break
        found = await client.get(NotificationRequest, NAME, NAMESPACE)
        writes = [
            entry for entry in server.requests(subresource="status", user_agent="the operator") if entry.effective
        ]
    return Story(console, pager, found.to_dict().get("status") or {}, cycles, len(writes))


async def disturb(server: APIServer, client: Client, what: str, moment: float) -> None:
    """Cause one disturbance."""
    address = (NotificationRequest, NAME, NAMESPACE)
    match what:
        case "annotation":
            await client.patch(*address, patch={"metadata": {"annotations": {"at": str(moment)}}})
        case "label":
            await client.patch(*address, patch={"metadata": {"labels": {"at": str(int(moment))}}})
        case "foreign condition" | "foreign condition changed":
            await write_foreign_condition(client, str(moment))
        case "due times removed" | "channels removed":
            await remove_from_status(client, what)
        case "cut watches":
            server.cut_watches()
        case "compact":
            server.compact()
            server.cut_watches()
        case "restart":
            pass
        case "status write lost before it landed":
            fail_next_status_write(server, lost=True)
        case "status write lost after it landed":
            fail_next_status_write(server, lost=True, after_commit=True)
        case "status write 500 after it landed":
            fail_next_status_write(server, status=500, after_commit=True)
        case _:
            fail_next_status_write(server, status=int(what.rsplit(maxsplit=1)[-1]))


def fail_next_status_write(server: APIServer, **how: Any) -> None:
    """Make the operator's next status write fail."""
    server.faults.add(times=1, subresource="status", user_agent="the operator", **how)


async def remove_from_status(client: Client, what: str) -> None:
    """Remove a part of the status whose content follows from the rest."""
    found = (await client.get(NotificationRequest, NAME, NAMESPACE)).to_dict()
    channels = (found.get("status") or {}).get("channels") or []
    due = ("nextAttemptTime", "delaySeconds")
    left = [{key: value for key, value in each.items() if key not in due} for each in channels]
    patch = {
        "metadata": {"resourceVersion": found["metadata"]["resourceVersion"]},
        "status": {"channels": left if what == "due times removed" else []},
    }
    with contextlib.suppress(Conflict):
        await client.patch(NotificationRequest, NAME, NAMESPACE, patch=patch, subresource="status")


async def write_foreign_condition(client: Client, message: str) -> None:
    """Set another condition as another controller would: read, change, write, retry."""
    for _ in range(10):
        found = (await client.get(NotificationRequest, NAME, NAMESPACE)).to_dict()
        conditions = [c for c in (found.get("status") or {}).get("conditions") or [] if c["type"] != "Acknowledged"]
        conditions.append(
            {
                "type": "Acknowledged",
                "status": "True",
                "reason": "Seen",
                "message": message,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
        )
        patch = {
            "metadata": {"resourceVersion": found["metadata"]["resourceVersion"]},
            "status": {"conditions": conditions},
        }
        with contextlib.suppress(Conflict):
            await client.patch(NotificationRequest, NAME, NAMESPACE, patch=patch, subresource="status")
            return
    raise AssertionError("ten conflicts in a row")


def check(story: Story, disturbances: Sequence[Disturbance]) -> None:
    """Check the guarantees."""
    gaps = [after - before for before, after in zip(story.pager.calls, story.pager.calls[1:], strict=False)]
    assert all(gap >= delay - 1e-3 for gap, delay in zip(gaps, DELAYS, strict=True)), f"early: {story.pager.calls}"
    assert len(story.pager.calls) == 5
    assert len(story.console.calls) == 1
    status = story.status
    assert status["phase"] == "PartiallySent"
    assert status["totalAttempts"] == 6
    assert [(a["channel"], a["attempt"]) for a in status["deliveryAttempts"] if a["channel"] == "pager"] == [
        ("pager", attempt) for attempt in range(1, 6)
    ]
    assert story.writes <= story.cycles
    assert story.cycles <= 5 + 2 * len(disturbances), "it woke itself"
    faults = sum(1 for _, what in disturbances if what.startswith("status write"))
    assert story.writes <= 5 + faults
    if any(what.startswith("foreign condition") for _, what in disturbances):
        assert any(c["type"] == "Acknowledged" for c in status["conditions"])


def run(disturbances: Sequence[Disturbance]) -> None:
    with virtual_time():
        story = asyncio.run(play(disturbances))
    check(story, disturbances)


moments = st.floats(min_value=0, max_value=500, allow_nan=False).map(lambda moment: round(moment, 3)) | st.sampled_from(
    [0.0, 29.999, 30.0, 30.001, 90.0, 210.0, 449.99, 450.0]
)


@settings(max_examples=examples(40), deadline=None)
@given(st.lists(st.tuples(moments, st.sampled_from(FOREIGN)), max_size=12))
@example([(0.0, "foreign condition"), (30.0, "foreign condition"), (30.0, "annotation")])
def test_writes_by_others_at_any_time(disturbances: list[Disturbance]) -> None:
    run(disturbances)


@settings(max_examples=examples(40), deadline=None)
@given(st.lists(st.tuples(moments, st.sampled_from(FOREIGN + REMOVED)), max_size=8))
@example([(1.0, "due times removed"), (31.0, "channels removed"), (91.0, "due times removed")])
def test_parts_of_the_status_removed_by_others(disturbances: list[Disturbance]) -> None:
    run(disturbances)


@settings(max_examples=examples(30), deadline=None)
@given(st.lists(st.tuples(moments, st.sampled_from(PROCESS)), max_size=6))
@example([(15.0, "restart"), (29.999, "restart"), (60.0, "compact"), (449.99, "restart")])
def test_restarts_and_broken_watches_at_any_time(disturbances: list[Disturbance]) -> None:
    run(disturbances)


@pytest.mark.parametrize("cycle", range(5), ids=lambda cycle: f"cycle {cycle + 1}")
@pytest.mark.parametrize("fault", FAULTS)
def test_status_write_fails_in_each_reconcile_in_turn(fault: str, cycle: int) -> None:
    before = [0.0, 20.0, 80.0, 200.0, 440.0][cycle]
    run([(before, fault)])


@settings(max_examples=examples(40), deadline=None)
@given(st.lists(st.tuples(moments, st.sampled_from(FOREIGN + REMOVED + PROCESS + FAULTS)), max_size=10))
def test_everything_at_once(disturbances: list[Disturbance]) -> None:
    run(disturbances)
