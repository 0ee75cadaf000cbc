"""The operator as a user sees it: on an API server, in a manager, with virtual time.

The names of the tests say what a fault would do to a user; B1 to B18 are the numbers under which such faults were found
in another controller of this kind.
"""

from __future__ import annotations

import asyncio
import io
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler import Client, Manager
from reconciler.apiserver import APIServer
from reconciler.clock import current_clock
from reconciler.errors import APIError, Conflict, Invalid
from reconciler.meta.documents import format_micro_time, parse_time
from reconciler.notification import (
    ConsoleChannel,
    DeferredDeliveryError,
    FileChannel,
    NotificationOperator,
    NotificationOptions,
    NotificationRequest,
    PermanentDeliveryError,
    RetryableDeliveryError,
)
from reconciler.testing import virtual_time
from tests.depth import examples
from tests.notification.world import DOWN, TIMELINE, Recorder, World, document, offsets, virtual, world

# The timeline


@virtual
async def test_the_default_timeline_with_the_built_in_channels(tmp_path: Path) -> None:
    (tmp_path / "occupied").touch()
    stream = io.StringIO()
    async with (
        world() as w,
        w.operator(ConsoleChannel(stream), FileChannel(tmp_path / "occupied" / "n")) as (controller, _),
    ):
        created = await w.create("console", "file")
        phases: list[str] = []
        async for event in w.client.watch(NotificationRequest, "default", resource_version=created.resource_version):
            if event.type == "MODIFIED":
                phases.append(event.object.status.phase)
                if phases[-1] == "PartiallySent":
                    break
        status = await w.status()
        assert current_clock().now() == parse_time(status["queuedAt"]) + timedelta(seconds=450)
        await asyncio.sleep(86_400)
        cycles, writes = controller.statistics().reconciles, w.writes
    assert offsets(status, "file") == TIMELINE
    assert offsets(status, "console") == [0]
    assert stream.getvalue() == "[High] [Escalation] Disk almost full\n93 %\n"
    assert phases == ["Retrying"] * 4 + ["PartiallySent"]
    assert (cycles, writes) == (5, 5)
    assert status["completionTime"] == status["deliveryAttempts"][-1]["timestamp"]
    assert (status["totalAttempts"], status["successfulDeliveries"], status["failedDeliveries"]) == (6, 1, 1)
    assert "Not a directory" in status["channels"][1]["lastError"]
    assert status["observedGeneration"] == 1


@virtual
async def test_the_stored_due_time_follows_the_policy_after_every_reconcile() -> None:
    pager = Recorder("pager", [DOWN])
    async with world() as w, w.operator(pager):
        await w.create("pager")
        await asyncio.sleep(0.001)
        start = parse_time((await w.status())["queuedAt"])
        for moment, delay, due in ((0, 30, 30), (30, 60, 90), (90, 120, 210), (210, 240, 450)):
            await asyncio.sleep(moment + 1 - asyncio.get_running_loop().time())
            (channel,) = (await w.status())["channels"]
            assert (channel["delaySeconds"], channel["state"]) == (delay, "Retrying")
            assert parse_time(channel["nextAttemptTime"]) == start + timedelta(seconds=due)


@virtual
async def test_b1_a_failing_channel_is_not_attempted_five_times_without_backoff() -> None:
    pager = Recorder("pager", [ConnectionError(f"error {n}") for n in range(5)])
    async with world() as w, w.operator(pager) as (controller, _):
        await w.create("pager")
        await asyncio.sleep(449)
        assert (await w.status())["phase"] == "Retrying"
        await asyncio.sleep(2)
        status = await w.status()
        await asyncio.sleep(3600)
        assert controller.statistics().reconciles == 5
    assert pager.calls == TIMELINE
    assert (status["phase"], status["reason"]) == ("Failed", "MaxRetriesExhausted")
    assert [entry["attempt"] for entry in status["deliveryAttempts"]] == [1, 2, 3, 4, 5]


@virtual
async def test_b9_b10_channels_have_separate_timers_and_the_end_does_not_wait_for_another_backoff() -> None:
    slow = Recorder("slow", [DOWN], action=lambda: asyncio.sleep(10))
    fast = Recorder("fast", [DOWN, None])
    gone = Recorder("gone", [PermanentDeliveryError("410")])
    async with world() as w, w.operator(slow, fast, gone):
        await w.create("slow", "fast", "gone", maxAttempts=2)
        await asyncio.sleep(60)
        status = await w.status()
    # Both were attempted at 0; the backoffs start when the attempts end, at 10 and 0.
    assert (fast.calls, slow.calls, gone.calls) == ([0, 30], [0, 40], [0])
    assert status["phase"] == "PartiallySent"
    assert parse_time(status["completionTime"]) == parse_time(status["queuedAt"]) + timedelta(seconds=50)


# Disturbances


@settings(deadline=None, max_examples=examples(15))
@given(st.lists(st.floats(0, 460), min_size=1, max_size=12))
def test_watch_events_at_any_time_cause_neither_call_nor_write(moments: list[float]) -> None:
    async def main() -> tuple[list[float], list[float], int]:
        console, pager = Recorder("console"), Recorder("pager", [DOWN])
        async with world() as w, w.operator(console, pager):
            await w.create("console", "pager")
            for number, moment in enumerate(sorted(moments)):
                await asyncio.sleep(max(moment - asyncio.get_running_loop().time(), 0))
                await w.annotate(str(number))
            await asyncio.sleep(3600)
            return console.calls, pager.calls, w.writes

    with virtual_time():
        console, pager, writes = asyncio.run(main())
    assert (console, writes) == ([0], 5)
    # Never early, and late only by the time of a reconcile that waits in place.
    assert [round(call, 3) for call in pager] == TIMELINE


@settings(deadline=None, max_examples=examples(10))
@given(st.lists(st.floats(0.5, 200), min_size=1, max_size=5))
def test_restarts_at_any_time_keep_the_due_times(lives: list[float]) -> None:
    async def main() -> tuple[list[float], list[float], str]:
        console, pager = Recorder("console"), Recorder("pager", [DOWN])
        async with world() as w:
            await w.create("console", "pager")
            for life in lives:
                async with w.operator(console, pager):
                    await asyncio.sleep(life)
            async with w.operator(console, pager):
                await asyncio.sleep(3600)
            return console.calls, pager.calls, (await w.status())["phase"]

    with virtual_time():
        console, pager, phase = asyncio.run(main())
    assert (len(console), phase) == (1, "PartiallySent")
    assert pager == pytest.approx(TIMELINE, abs=0.01)


@virtual
async def test_b8_watch_events_while_waiting_do_not_change_the_jitter() -> None:
    pager = Recorder("pager", [DOWN])
    async with world() as w, w.operator(pager):
        await w.create("pager", jitter=0.5)
        await asyncio.sleep(1)
        (before,) = (await w.status())["channels"]
        for number in range(10):
            await w.annotate(str(number))
            await asyncio.sleep(1)
        (after,) = (await w.status())["channels"]
        await asyncio.sleep(50)
    assert before == after
    assert pager.calls[1] == pytest.approx(before["delaySeconds"], abs=1e-3)


@virtual
async def test_b2_two_reconciles_with_the_same_results_write_the_same_status() -> None:
    names = [f"c{n}" for n in range(8)]
    async with world() as w, w.operator(*(Recorder(name, [DOWN]) for name in names)):
        await w.create(*names)
        await asyncio.sleep(1)
        first = await w.status()
        await w.annotate("somebody")
        await asyncio.sleep(1)
        assert (await w.status()) == first
        assert w.writes == 1


@virtual
async def test_a_finished_request_does_not_change() -> None:
    console = Recorder("console")
    async with world() as w, w.operator(console):
        await w.create("console")
        await asyncio.sleep(1)
        before = await w.status()
        await w.annotate("somebody")
        await asyncio.sleep(100)
        assert ((await w.status()), w.writes, console.calls) == (before, 1, [0])


@virtual
async def test_a_finished_request_does_not_change_after_a_restart() -> None:
    console = Recorder("console")
    async with world() as w:
        async with w.operator(console):
            await w.create("console")
            await asyncio.sleep(1)
        async with w.operator(console):
            await asyncio.sleep(100)
        assert (console.calls, w.writes) == ([0], 1)


@virtual
async def test_deleting_a_request_cancels_it_and_a_new_one_with_the_same_name_is_independent() -> None:
    """B16: memory by name was used for the recreated request."""
    console, pager = Recorder("console"), Recorder("pager", [DOWN])
    async with world() as w, w.operator(console, pager):
        await w.create("console", "pager")
        await asyncio.sleep(10)
        await w.client.delete(NotificationRequest, "disk-full", "default")
        await asyncio.sleep(3600)
        assert (len(console.calls), len(pager.calls)) == (1, 1)
        await w.create("console", "pager")
        await asyncio.sleep(1)
        assert (len(console.calls), len(pager.calls)) == (2, 2)
        assert len({message.idempotency_key for message in console.messages}) == 2


@virtual
async def test_a_request_that_is_being_deleted_is_not_delivered() -> None:
    console = Recorder("console")
    async with world() as w:
        doc = document(["console"])
        doc["metadata"]["finalizers"] = ["example.com/hold"]
        await w.client.create(NotificationRequest.from_dict(doc))
        await w.client.delete(NotificationRequest, "disk-full", "default")
        async with w.operator(console):
            await asyncio.sleep(100)
    assert console.calls == []


@virtual
async def test_a_reconcile_slightly_before_the_due_time_waits_in_place() -> None:
    pager = Recorder("pager", [DOWN, None])
    async with world() as w, w.operator(pager) as (controller, reconciler):
        await w.create("pager")
        await asyncio.sleep(29.97)
        await w.annotate("somebody")
        await asyncio.sleep(100)
        assert (controller.statistics().reconciles, reconciler.statistics().early) == (2, 0)
    assert pager.calls == [0, 30]


class Behind:
    """A clock that is one day behind."""

    def monotonic(self) -> float:
        return current_clock().monotonic()

    def now(self) -> datetime:
        return current_clock().now() - timedelta(days=1)


@virtual
async def test_a_clock_that_is_behind_delays_a_request_by_one_backoff_at_most() -> None:
    pager = Recorder("pager", [DOWN, None])
    async with world() as w:
        async with w.operator(pager):
            await w.create("pager")
            await asyncio.sleep(10)
        async with w.operator(pager, clock=Behind()):
            for number in range(100):
                await w.annotate(str(number))
                await asyncio.sleep(1)
    assert pager.calls == [0, 40]


@virtual
async def test_a_phase_that_lags_behind_the_attempts_is_corrected_without_a_call() -> None:
    pager = Recorder("pager")
    async with world() as w:
        await w.create("pager")
        entry = {"channel": "pager", "attempt": 1, "timestamp": "2026-01-01T00:00:00Z", "result": "success"}
        patch = {"status": {"phase": "Retrying", "deliveryAttempts": [entry]}}
        await w.client.patch(NotificationRequest, "disk-full", "default", patch=patch, subresource="status")
        async with w.operator(pager):
            await asyncio.sleep(10)
        assert ((await w.status())["phase"], pager.calls) == ("Sent", [])


# Failing writes


@pytest.mark.parametrize("write", range(5))
@pytest.mark.parametrize(
    "fault",
    [
        {"status": 409},
        {"status": 409, "times": 3},
        {"status": 500},
        {"status": 500, "after_commit": True},
        {"status": 503, "times": 4},
        {"lost": True},
        {"lost": True, "after_commit": True},
        {"status": 429, "retry_after": 2},
    ],
    ids=str,
)
@virtual
async def test_b3_a_failing_status_write_neither_loses_an_attempt_nor_repeats_a_delivery(
    fault: dict[str, Any], write: int
) -> None:
    console, pager = Recorder("console"), Recorder("pager", [DOWN])
    async with world() as w, w.operator(console, pager):
        if write:
            await w.create("console", "pager")
            await asyncio.sleep(TIMELINE[write] - 1)
        w.server.faults.add(subresource="status", **fault)
        if not write:
            await w.create("console", "pager")
        await asyncio.sleep(3600)
        status = await w.status()
    assert len(console.calls) == 1, "a channel that delivered was called again"
    assert pager.calls == pytest.approx(TIMELINE, abs=0.1)
    assert (status["phase"], status["totalAttempts"], status["successfulDeliveries"]) == ("PartiallySent", 6, 1)
    assert [entry["attempt"] for entry in status["deliveryAttempts"] if entry["channel"] == "pager"] == [1, 2, 3, 4, 5]


@virtual
async def test_b3_a_delivered_channel_never_ends_failed_although_its_write_fails_for_minutes() -> None:
    console = Recorder("console")
    async with world() as w, w.operator(console):
        fault = w.server.faults.add(subresource="status", status=503, times=None)
        await w.create("console")
        await asyncio.sleep(300)
        fault.remove()
        await asyncio.sleep(3600)
        status = await w.status()
    assert console.calls == [0]
    assert (status["phase"], status["totalAttempts"]) == ("Sent", 1)


@virtual
async def test_status_fields_of_other_writers_survive_and_so_does_the_attempt() -> None:
    """L8: a write based on a cached object overwrote the fields of other writers."""

    async def meanwhile() -> None:
        condition = {
            "type": "Acknowledged",
            "status": "True",
            "reason": "Seen",
            "message": "by Ada",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
        await w.client.patch(
            NotificationRequest,
            "disk-full",
            "default",
            patch={"status": {"conditions": [condition]}},
            subresource="status",
        )

    pager = Recorder("pager", action=meanwhile)
    async with world() as w, w.operator(pager):
        await w.create("pager")
        await asyncio.sleep(100)
        status = await w.status()
    assert pager.calls == [0]
    assert status["phase"] == "Sent"
    assert {condition["type"] for condition in status["conditions"]} == {
        "Acknowledged",
        "Ready",
        "RoutingResolved",
    }


# Shutdown


@virtual
async def test_b14_a_shutdown_during_a_reconcile_records_the_deliveries_and_nothing_else() -> None:
    fast, slow = Recorder("fast"), Recorder("slow", action=lambda: asyncio.sleep(25))
    async with world() as w:
        async with w.operator(fast, slow, grace=2):
            await w.create("fast", "slow")
            await asyncio.sleep(1)
        status = await w.status()
        assert [(entry["channel"], entry["result"]) for entry in status["deliveryAttempts"]] == [("fast", "success")]
        assert (status["phase"], status["totalAttempts"]) == ("Retrying", 1)
        async with w.operator(fast, slow):
            await asyncio.sleep(100)
        status = await w.status()
    assert (len(fast.calls), len(slow.calls)) == (1, 2)
    assert (status["phase"], status["totalAttempts"]) == ("Sent", 2)


@virtual
async def test_a_shutdown_before_any_delivery_does_not_change_the_request() -> None:
    slow = Recorder("slow", action=lambda: asyncio.sleep(25))
    async with world() as w:
        async with w.operator(slow, grace=2):
            await w.create("slow")
            await asyncio.sleep(1)
        assert (await w.status(), w.writes, len(slow.calls)) == ({}, 0, 1)


# A cache that lags behind


@pytest.mark.parametrize("fate", ["deleted", "made anew", "being deleted"])
@virtual
async def test_a_deleted_request_in_a_stale_cache_is_not_delivered(fate: str) -> None:
    pager = Recorder("pager", [DOWN])
    async with world() as w:
        doc = document(["pager"])
        if fate == "being deleted":
            doc["metadata"]["finalizers"] = ["example.com/hold"]
        await w.client.create(NotificationRequest.from_dict(doc))
        async with w.operator(pager):
            await asyncio.sleep(10)
        w.server.faults.add(verb="watch", resource="notificationrequests", stall=True, times=None)
        async with w.operator(pager):
            await asyncio.sleep(5)
            await w.client.delete(NotificationRequest, "disk-full", "default")
            if fate == "made anew":
                await w.create("pager")
            await asyncio.sleep(25)
            assert pager.calls == [0]


@virtual
@pytest.mark.parametrize(("guarantee", "reads"), [("AtLeastOnce", True), ("Bounded", False), ("AtMostOnce", False)])
async def test_a_new_leader_with_a_stale_cache_does_not_repeat_deliveries(guarantee: str, reads: bool) -> None:
    pager = Recorder("pager", [RetryableDeliveryError("503")])
    async with world() as w:
        async with w.operator(pager):
            await w.create("pager", spec={"delivery": guarantee})
            await asyncio.sleep(10)
        assert len(pager.calls) == 1
        w.server.faults.add(verb="watch", resource="notificationrequests", stall=True, times=None)
        async with w.operator(pager) as (_, reconciler):
            await asyncio.sleep(5)
            found = await w.client.get(NotificationRequest, "disk-full", "default")
            (channel,) = found.to_dict()["status"]["channels"]
            ahead = channel | {
                "attempts": 2,
                "nextAttemptTime": format_micro_time(current_clock().now() + timedelta(seconds=60)),
                "delaySeconds": 60,
            }
            await w.client.patch(
                NotificationRequest,
                "disk-full",
                "default",
                patch={"status": {"channels": [ahead]}},
                subresource="status",
            )
            await asyncio.sleep(50)
            assert len(pager.calls) == 1
            found_out = reconciler.statistics()
            assert (found_out.stale > 0, found_out.live_reads > 0) == (True, reads)


@virtual
@pytest.mark.parametrize("guarantee", ["AtLeastOnce", "Bounded", "AtMostOnce"])
@pytest.mark.parametrize("recreated", [False, True])
async def test_a_request_whose_deletion_the_cache_has_not_seen_is_not_delivered(
    guarantee: str, recreated: bool
) -> None:
    pager = Recorder("pager", [RetryableDeliveryError("503")])
    async with world() as w:
        async with w.operator(pager):
            first = await w.create("pager", spec={"delivery": guarantee})
            await asyncio.sleep(10)
        w.server.faults.add(verb="watch", resource="notificationrequests", stall=True, times=None)
        async with w.operator(pager):
            await asyncio.sleep(5)
            await w.client.delete(NotificationRequest, "disk-full", "default")
            if recreated:
                await w.create("pager", spec={"delivery": guarantee})
            await asyncio.sleep(40)
            assert [message.uid for message in pager.messages].count(first.uid) == 1


@virtual
async def test_a_recreated_request_is_delivered_and_the_deleted_one_is_not() -> None:
    pager = Recorder("pager")
    async with world() as w, w.operator(pager):
        w.server.faults.add(verb="get", resource="notificationrequests", latency=5)
        await w.create("pager")
        await asyncio.sleep(1)
        await w.client.delete(NotificationRequest, "disk-full", "default")
        second = await w.create("pager")
        await asyncio.sleep(100)
    assert [message.uid for message in pager.messages] == [second.uid]


@virtual
async def test_each_request_is_read_from_the_server_once_and_not_at_every_attempt() -> None:
    pager = Recorder("pager", [DOWN])
    async with world() as w, w.operator(pager) as (_, reconciler):
        await w.create("pager")
        await asyncio.sleep(1000)
        found = reconciler.statistics()
        assert (found.live_reads, found.failed, found.delivered, found.finished) == (1, 5, 0, 1)
    assert len(pager.calls) == 5


@virtual
async def test_the_remembered_progress_is_limited_and_forgotten_progress_costs_a_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("reconciler.notification.reconciler.PROGRESS_LIMIT", 2)
    pager = Recorder("pager", [DOWN, DOWN, DOWN, None])
    async with world() as w, w.operator(pager) as (_, reconciler):
        for number in range(3):
            await w.create("pager", name=f"n-{number}")
        await asyncio.sleep(1)
        assert len(reconciler._written) == 2
        await asyncio.sleep(100)
        assert (len(reconciler._written), len(reconciler._open)) == (0, 0)
        assert reconciler.statistics().live_reads > 3
    assert len(pager.calls) == 6


# What cannot work


@virtual
async def test_an_unknown_channel_fails_by_name_and_is_not_retried() -> None:
    console = Recorder("console")
    async with world() as w, w.operator(console) as (controller, _):
        await w.create("console", "telegraph")
        await w.create("telegraph", name="other")
        await asyncio.sleep(86_400)
        first, second = await w.status(), await w.status("other")
        assert controller.statistics().reconciles == 2
    assert (first["phase"], second["phase"], second["reason"]) == ("PartiallySent", "Failed", "UnknownChannel")
    assert "unknown channel 'telegraph'; registered channels: console" in second["message"]


@virtual
async def test_b7_a_channel_that_disappears_in_a_rollout_is_deferred_until_it_returns() -> None:
    console, pager = Recorder("console"), Recorder("pager", [DOWN, None])
    async with world() as w:
        async with w.operator(console, pager):
            await w.create("console", "pager")
            await asyncio.sleep(10)
        async with w.operator(console):
            await asyncio.sleep(100)
            status = await w.status()
            assert (status["phase"], status["reason"]) == ("Retrying", "DeliveryDeferred")
        async with w.operator(console, pager):
            await asyncio.sleep(100)
        status = await w.status()
    assert (status["phase"], len(console.calls), len(pager.calls)) == ("Sent", 1, 2)


@pytest.mark.parametrize(
    "changes",
    [
        {"retryPolicy": {"maxAttempts": 0}},
        {"retryPolicy": {"initialBackoffSeconds": 0}},
        {"retryPolicy": {"initialBackoffSeconds": 100, "maxBackoffSeconds": 10}},
        {"retryPolicy": {"maxAttempts": "five"}},
        {"type": "Nonsense"},
        {"channels": []},
        {"subject": None},
    ],
    ids=str,
)
@virtual
async def test_an_invalid_request_that_the_server_accepted_fails_and_is_not_retried(
    changes: dict[str, Any],
) -> None:
    crd = NotificationRequest.crd()
    version = crd["spec"]["versions"][0]
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    status_schema = version["schema"]["openAPIV3Schema"]["properties"]["status"]
    version["schema"]["openAPIV3Schema"] = {"type": "object", "properties": {"spec": anything, "status": status_schema}}
    console = Recorder("console")
    async with APIServer() as server, Client(server) as client:
        await server.apply(crd)
        w = World(server, client)
        async with w.operator(console) as (controller, _):
            doc = document(["console"])
            doc["spec"] |= changes
            await server.apply(doc)
            await asyncio.sleep(86_400)
            (found,) = await client.list("notify.reconciler.dev/v1alpha1/NotificationRequest", "default")
            status = found.to_dict()["status"]
            assert controller.statistics().reconciles <= 3
    assert (status["phase"], status["reason"]) == ("Failed", "InvalidSpec")
    assert "spec." in status["message"]
    assert (console.calls, w.writes) == ([], 1)


@virtual
async def test_the_server_rejects_changes_of_the_spec_and_invalid_specs() -> None:
    async with world() as w:
        await w.create("console")
        with pytest.raises(Invalid, match="delete the request and create another one"):
            await w.client.patch(NotificationRequest, "disk-full", "default", patch={"spec": {"subject": "other"}})
        for number, bad in enumerate(
            ({"maxAttempts": 0}, {"initialBackoffSeconds": 60, "maxBackoffSeconds": 30}, {"jitter": 2})
        ):
            doc = document(["console"], name=f"bad-{number}")
            doc["spec"]["retryPolicy"] = bad
            with pytest.raises(APIError) as refused:
                await w.server.apply(doc)
            assert not isinstance(refused.value, Conflict)


# The rest


@virtual
async def test_b4_a_duplicate_channel_is_delivered_once() -> None:
    console = Recorder("console")
    async with world() as w, w.operator(console):
        await w.create("console", "console")
        await asyncio.sleep(1)
        assert ((await w.status())["phase"], len(console.calls)) == ("Sent", 1)


@virtual
async def test_b5_a_deferral_uses_no_attempt_and_is_stored() -> None:
    busy = DeferredDeliveryError("429", retry_after=20)
    pager = Recorder("pager", [busy, busy, None])
    async with world() as w:
        async with w.operator(pager):
            await w.create("pager", maxAttempts=1)
            await asyncio.sleep(30)
            status = await w.status()
            assert (status["reason"], status["totalAttempts"]) == ("DeliveryDeferred", 0)
        async with w.operator(pager):
            await asyncio.sleep(30)
        status = await w.status()
    assert pager.calls == [0, 20, 40]
    assert (status["phase"], status["totalAttempts"]) == ("Sent", 1)


@virtual
async def test_b6_the_message_is_correct_after_every_reconcile() -> None:
    pager = Recorder("pager", [DOWN, DOWN, None])
    async with world() as w, w.operator(Recorder("console"), pager):
        await w.create("console", "pager")
        said = []
        for _ in range(3):
            await asyncio.sleep(0.5)
            said.append((await w.status())["message"])
            await asyncio.sleep(59.5)
    assert "Delivered to 1 of 2 channels (console); pager will be retried at 2026-01-01T00:00:30" in said[0]
    assert "(attempt 3 of 5)" in said[1]
    assert said[2] == "Delivered to 2 of 2 channels (console, pager)" or "attempt" in said[2]


@virtual
async def test_b12_no_secret_of_an_error_reaches_the_status_or_an_event() -> None:
    secret = "https://hooks.slack.com/services/T0/B0/hunter2hunter2"
    async with world() as w, w.operator(Recorder("pager", [ConnectionError(f"cannot reach {secret}")])):
        await w.create("pager", maxAttempts=1)
        await asyncio.sleep(10)
        status = await w.status()
        events = await w.client.list("v1/Event", "default")
    assert "[REDACTED]" in status["message"]
    assert "hunter2" not in str(status) + str([event.to_dict() for event in events])


@virtual
async def test_channels_get_the_values_of_the_request() -> None:
    pager = Recorder("pager", [DOWN, None])
    async with world() as w, w.operator(pager):
        created = await w.create("pager")
        await asyncio.sleep(60)
    first, second = pager.messages
    assert (first.name, first.namespace, first.uid, first.channel) == ("disk-full", "default", created.uid, "pager")
    assert (first.type, first.priority, first.subject, first.body) == ("Escalation", "High", "Disk almost full", "93 %")
    assert (first.attempt, second.attempt) == (1, 2)
    assert first.idempotency_key == second.idempotency_key


@virtual
async def test_the_condition_ready_follows_the_phase() -> None:
    pager = Recorder("pager", [DOWN, None])
    async with world() as w, w.operator(pager):
        await w.create("pager")
        await asyncio.sleep(1)
        waiting = await w.condition("Ready")
        await asyncio.sleep(60)
        sent = await w.condition("Ready")
    assert (waiting["type"], waiting["status"], waiting["reason"]) == ("Ready", "False", "AllDeliveriesRetrying")
    assert (sent["status"], sent["reason"], sent["observedGeneration"]) == ("True", "AllDeliveriesSucceeded", 1)


@virtual
async def test_an_event_is_emitted_only_when_the_phase_changes() -> None:
    async with world() as w, w.operator(Recorder("pager", [DOWN])):
        await w.create("pager")
        await asyncio.sleep(1000)
        events = [event.to_dict() for event in await w.client.list("v1/Event", "default")]
    assert sorted((event["type"], event["reason"], event.get("count", 1)) for event in events) == [
        ("Normal", "AllDeliveriesRetrying", 1),
        ("Warning", "MaxRetriesExhausted", 1),
    ]


@virtual
async def test_requests_do_not_wait_for_each_other() -> None:
    slow = Recorder("slow", action=lambda: asyncio.sleep(20))
    async with world() as w, w.operator(slow, workers=10):
        for number in range(10):
            await w.create("slow", name=f"n-{number}")
        await asyncio.sleep(21)
        assert [(await w.status(f"n-{number}"))["phase"] for number in range(10)] == ["Sent"] * 10


@virtual
async def test_a_longer_retry_after_is_honored() -> None:
    pager = Recorder("pager", [RetryableDeliveryError("429", retry_after=100), None])
    async with world() as w, w.operator(pager):
        await w.create("pager")
        await asyncio.sleep(200)
    assert pager.calls == [0, 100]


async def test_the_console_hides_the_secrets_that_the_operator_knows(tmp_path: Path) -> None:
    (tmp_path / "pager").write_text("swordfish-of-the-pager")
    operator = NotificationOperator(NotificationOptions(credentials=tmp_path))
    manager = Manager(Client(APIServer()), console="127.0.0.1:0")
    operator.add_to(manager)
    assert manager.console is not None
    assert "swordfish" not in manager.console.redact("cannot reach https://pager/swordfish-of-the-pager")
