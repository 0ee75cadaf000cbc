"""Delivery guarantees, fixed channels of a request, leader checks and ttl, as a user sees them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from reconciler.errors import NotFound
from reconciler.manager import NotLeader
from reconciler.meta.documents import parse_time
from reconciler.notification import (
    DeferredDeliveryError,
    NotificationRequest,
    RetryableDeliveryError,
    UnknownDeliveryError,
)
from reconciler.notification.router import Resolution
from reconciler.notification.schedule import StatusChange
from tests.notification.world import DOWN, Recorder, World, virtual, world

BUSY = RetryableDeliveryError("503")
LOST = UnknownDeliveryError("no response")


async def killed_during_the_call(w: World, guarantee: str, **policy: object) -> None:
    """Run the operator until its first call, and kill it without recording the result."""
    reached = asyncio.Event()

    async def hang() -> None:
        reached.set()
        await asyncio.sleep(1e6)

    pager = Recorder("pager", action=hang)
    async with w.operator(pager, grace=0.0):
        await w.create("pager", spec={"delivery": guarantee}, **policy)
        await reached.wait()
        w.server.faults.add(status=403, subresource="status")
    w.server.faults.clear()
    assert len(pager.calls) == 1


@virtual
async def test_at_least_once_repeats_a_call_whose_result_was_lost_with_the_process() -> None:
    pager = Recorder("pager")
    async with world() as w:
        await killed_during_the_call(w, "AtLeastOnce")
        async with w.operator(pager):
            await asyncio.sleep(1000)
        status = await w.status()
    assert (len(pager.calls), status["phase"], status["totalAttempts"]) == (1, "Sent", 1)


@virtual
async def test_bounded_counts_a_lost_call_and_backs_off_as_after_a_failure() -> None:
    pager = Recorder("pager", [BUSY])
    async with world() as w:
        await killed_during_the_call(w, "Bounded", maxAttempts=3)
        begun = asyncio.get_running_loop().time()
        async with w.operator(pager):
            await asyncio.sleep(1000)
        status = await w.status()
    assert len(pager.calls) == 2
    assert pager.calls[0] - begun == pytest.approx(30, abs=0.1)
    assert (status["phase"], status["totalAttempts"]) == ("Failed", 3)
    assert [entry["result"] for entry in status["deliveryAttempts"]] == ["unknown", "failure", "failure"]


@virtual
async def test_at_most_once_never_repeats_a_call_of_unknown_outcome() -> None:
    pager = Recorder("pager")
    async with world() as w:
        await killed_during_the_call(w, "AtMostOnce")
        async with w.operator(pager):
            await asyncio.sleep(1000)
        status = await w.status()
    assert pager.calls == []
    assert (status["phase"], status["reason"]) == ("Failed", "DeliveryUnknown")
    (channel,) = status["channels"]
    assert (channel["state"], channel["reason"], channel["attempts"]) == ("Unknown", "OutcomeUnknown", 1)
    assert "may have delivered" in status["message"]


@virtual
@pytest.mark.parametrize("error", [LOST, DOWN, TimeoutError()])
async def test_at_most_once_ends_with_an_error_after_which_the_message_may_have_arrived(error: BaseException) -> None:
    pager, other = Recorder("pager", [error]), Recorder("other")
    async with world() as w, w.operator(pager, other):
        await w.create("pager", "other", spec={"delivery": "AtMostOnce"})
        await asyncio.sleep(1000)
        status = await w.status()
    assert (len(pager.calls), len(other.calls)) == (1, 1)
    assert (status["phase"], status["reason"]) == ("PartiallySent", "DeliveryUnknown")


@virtual
async def test_at_most_once_retries_rejected_and_deferred_deliveries() -> None:
    pager = Recorder("pager", [BUSY, DeferredDeliveryError("open", retry_after=5), None])
    async with world() as w, w.operator(pager):
        await w.create("pager", spec={"delivery": "AtMostOnce"})
        await asyncio.sleep(1000)
        status = await w.status()
    assert (len(pager.calls), status["phase"], status["totalAttempts"]) == (3, "Sent", 2)
    assert [entry["result"] for entry in status["deliveryAttempts"]] == ["failure", "success"]


@virtual
@pytest.mark.parametrize(("guarantee", "writes"), [("AtLeastOnce", 3), ("Bounded", 6), ("AtMostOnce", 6)])
async def test_a_write_ahead_attempt_costs_one_more_write_per_reconcile(guarantee: str, writes: int) -> None:
    pager, other = Recorder("pager", [BUSY, BUSY, None]), Recorder("other")
    async with world() as w, w.operator(pager, other):
        await w.create("pager", "other", spec={"delivery": guarantee})
        await asyncio.sleep(1000)
        assert (await w.status())["phase"] == "Sent"
        assert w.writes == writes


@virtual
async def test_a_write_ahead_attempt_that_conflicts_is_not_followed_by_a_call() -> None:
    async with world() as w:
        w.server.faults.add(status=409, times=1, subresource="status")
        pager = Recorder("pager")
        async with w.operator(pager):
            await w.create("pager", spec={"delivery": "Bounded"})
            await asyncio.sleep(100)
        status = await w.status()
    assert (len(pager.calls), status["phase"], status["totalAttempts"]) == (1, "Sent", 1)


@virtual
async def test_b14_a_cancellation_before_anything_was_sent_is_not_an_attempt_under_any_guarantee() -> None:
    for guarantee in ("AtLeastOnce", "Bounded", "AtMostOnce"):
        async with world() as w:
            first = Recorder("pager", action=lambda: asyncio.sleep(1e6))
            async with w.operator(first, grace=0.0):
                await w.create("pager", spec={"delivery": guarantee})
                await asyncio.sleep(1)
            assert not (await w.status()).get("deliveryAttempts")
            second = Recorder("pager")
            async with w.operator(second):
                await asyncio.sleep(100)
            status = await w.status()
        assert (len(second.calls), status["phase"], status["totalAttempts"]) == (1, "Sent", 1)


@virtual
async def test_a_cancellation_after_the_message_was_sent_is_an_attempt_of_unknown_outcome() -> None:
    for guarantee, calls, phase in (("AtLeastOnce", 1, "Sent"), ("Bounded", 1, "Sent"), ("AtMostOnce", 0, "Failed")):
        async with world() as w:
            first = Recorder("pager", action=lambda: asyncio.sleep(1e6))
            async with w.operator(first, grace=0.0):
                await w.create("pager", spec={"delivery": guarantee})
                await asyncio.sleep(1)
                first.messages[0].mark_sent()
            (entry,) = (await w.status())["deliveryAttempts"]
            assert entry["result"] == "unknown"
            second = Recorder("pager")
            async with w.operator(second):
                await asyncio.sleep(100)
            assert (len(second.calls), (await w.status())["phase"]) == (calls, phase)


# Routing


class Table:
    """A router whose result can change at any time."""

    def __init__(self, *channels: str) -> None:
        self.channels = channels
        self.asked: list[Mapping[str, str]] = []

    def resolve(self, attributes: Mapping[str, str]) -> Resolution:
        self.asked.append(attributes)
        return Resolution(receivers=("oncall",), channels=tuple(dict.fromkeys(self.channels)))


@virtual
async def test_a_request_is_routed_once_and_the_result_is_written_before_the_first_call() -> None:
    table = Table("pager", "pager", "other")
    seen: list[object] = []

    async with world() as w:

        async def look() -> None:
            seen.append([channel["name"] for channel in (await w.status())["channels"]])

        pager, other = Recorder("pager", [DOWN, None], action=look), Recorder("other")
        async with w.operator(pager, other, router=table):
            await w.create(spec={"extensions": {"team": "storage", "type": "forged"}})
            await asyncio.sleep(1000)
            status, condition = await w.status(), await w.condition("RoutingResolved")
        writes = w.writes
    assert seen == [["pager", "other"]] * 2
    assert [dict(asked) for asked in table.asked] == [
        {"team": "storage", "type": "Escalation", "priority": "High", "namespace": "default", "name": "disk-full"}
    ]
    assert (len(pager.calls), len(other.calls), status["phase"], writes) == (2, 1, "Sent", 3)
    assert (condition["status"], condition["reason"]) == ("True", "RoutingRuleMatched")


@virtual
@pytest.mark.parametrize("change", ["none", "progress", "deletion"])
async def test_a_routed_request_is_not_read_because_its_first_write_finds_out_what_a_read_would(change: str) -> None:
    pager = Recorder("pager")
    async with world() as w, w.operator(pager, router=Table("pager")) as (_, reconciler):
        save_as_is = reconciler._save_routing

        async def save(*given: Any) -> bool:
            w.server.faults.add(verb="watch", resource="notificationrequests", stall=True, times=None)
            if change == "progress":
                delivered = {"name": "pager", "state": "Delivered", "reason": "Delivered", "attempts": 1}
                await w.client.patch(
                    NotificationRequest,
                    "disk-full",
                    "default",
                    patch={"status": {"channels": [delivered]}},
                    subresource="status",
                )
            elif change == "deletion" and await w.client.list(NotificationRequest):
                await w.client.delete(NotificationRequest, "disk-full", "default")
            return await save_as_is(*given)

        reconciler._save_routing = save  # type: ignore[method-assign]
        await w.create()
        await asyncio.sleep(30)
        found = reconciler.statistics()
    assert len(pager.calls) == (change == "none")
    assert (found.live_reads, found.stale > 0) == (0, change != "none")


@virtual
async def test_b7_a_routing_change_during_retries_neither_adds_nor_removes_a_channel() -> None:
    table = Table("console", "file")
    console, file, log = Recorder("console"), Recorder("file", [DOWN]), Recorder("log", [DOWN])
    async with world() as w, w.operator(console, file, log, router=table):
        await w.create()
        await asyncio.sleep(10)
        table.channels = ("log",)
        await asyncio.sleep(1000)
        status = await w.status()
    assert (len(console.calls), len(file.calls), len(log.calls)) == (1, 5, 0)
    assert status["phase"] == "PartiallySent"


@virtual
@pytest.mark.parametrize(("router", "reason"), [(None, "NoRouting"), (Table(), "NoChannels")])
async def test_a_request_without_channels_fails_with_the_reason(router: Table | None, reason: str) -> None:
    async with world() as w, w.operator(Recorder("pager"), router=router):
        await w.create()
        await asyncio.sleep(100)
        status, condition = await w.status(), await w.condition("RoutingResolved")
        assert w.writes == 1
    assert (status["phase"], status["reason"]) == ("Failed", "NoChannelsResolved")
    assert (condition["status"], condition["reason"]) == ("False", reason)


@virtual
async def test_a_routed_channel_that_is_missing_before_its_first_call_is_deferred() -> None:
    async with world() as w:
        async with w.operator(Recorder("other"), router=Table("pager")):
            await w.create()
            await asyncio.sleep(30)
            (channel,) = (await w.status())["channels"]
            assert (channel["state"], channel["reason"], channel["attempts"]) == ("Pending", "Deferred", 0)
        pager = Recorder("pager")
        async with w.operator(pager):
            await asyncio.sleep(100)
        assert (len(pager.calls), (await w.status())["phase"]) == (1, "Sent")


# The fence, and what others hear


@virtual
async def test_a_process_that_is_not_the_leader_makes_no_call() -> None:
    pager = Recorder("pager")
    async with world() as w, w.operator(pager) as (_, reconciler):
        binding = reconciler._binding
        assert binding is not None

        def refuse() -> None:
            raise NotLeader("the lease was lost")

        binding.check_leader = refuse
        await w.create("pager")
        await asyncio.sleep(100)
        assert pager.calls == []
        binding.check_leader = None
        await asyncio.sleep(1000)
        assert len(pager.calls) == 1


class Notes:
    """An observer that records its notifications."""

    def __init__(self) -> None:
        self.records: list[StatusChange] = []

    def status_saved(self, record: StatusChange) -> None:
        self.records.append(record)
        raise RuntimeError("an observer must not harm anybody")

    @property
    def attempts(self) -> list[tuple[str, int, str]]:
        return [(each.channel, each.attempt, each.result) for note in self.records for each in note.attempts]


@virtual
async def test_observers_are_notified_of_an_attempt_once_and_after_its_write() -> None:
    notes, pager = Notes(), Recorder("pager", [BUSY, None])
    async with world() as w:
        w.server.faults.add(status=403, times=3, subresource="status")
        async with w.operator(pager, observers=[notes]):
            await w.create("pager")
            await asyncio.sleep(0.02)
            assert (len(pager.calls), notes.attempts) == (1, [])
            await asyncio.sleep(1)
            assert notes.attempts == [("pager", 1, "failure")], "told when it is saved, not with the next attempt"
            await asyncio.sleep(1000)
            assert (await w.status())["phase"] == "Sent"
    assert notes.attempts == [("pager", 1, "failure"), ("pager", 2, "success")]
    assert [note.finished for note in notes.records] == [False, True]


# Retention


@virtual
async def test_a_finished_request_is_deleted_after_its_ttl_and_not_before() -> None:
    async with world() as w, w.operator(Recorder("pager", [BUSY, None])) as (_, reconciler):
        await w.create("pager", spec={"ttlSecondsAfterFinished": 100})
        await w.create("pager", name="kept")
        await asyncio.sleep(129)
        await w.annotate("somebody")
        assert (await w.status())["phase"] == "Sent"
        await asyncio.sleep(2)
        with pytest.raises(NotFound):
            await w.status()
        assert (await w.status("kept"))["phase"] == "Sent"
        assert reconciler.statistics().expired == 1


@virtual
async def test_a_ttl_that_expired_while_no_operator_ran_is_applied_at_the_next_start() -> None:
    async with world() as w:
        async with w.operator(Recorder("pager")):
            await w.create("pager", spec={"ttlSecondsAfterFinished": 60})
            await asyncio.sleep(1)
        await asyncio.sleep(1000)
        assert (await w.status())["phase"] == "Sent"
        async with w.operator(Recorder("pager")):
            await asyncio.sleep(1)
            assert len(await w.client.list(NotificationRequest, "default")) == 0


@virtual
async def test_a_deleted_request_is_cancelled() -> None:
    pager = Recorder("pager", [BUSY])
    async with world() as w, w.operator(pager) as (controller, _):
        await w.create("pager")
        await asyncio.sleep(40)
        await w.client.delete(NotificationRequest, "disk-full", "default")
        await asyncio.sleep(10_000)
        assert controller.statistics().results["error"] == 0
    assert pager.calls == [0, 30]


# What a write that fails leaves behind


@virtual
@pytest.mark.parametrize("guarantee", ["Bounded", "AtMostOnce"])
@pytest.mark.parametrize(
    "fault",
    [
        {"status": 409},
        {"status": 403, "times": 3},
        {"status": 500, "times": 12},
        {"status": 500, "after_commit": True, "times": 12},
        {"lost": True, "times": 12},
    ],
)
async def test_a_write_ahead_attempt_whose_write_failed_is_neither_used_up_nor_counted_as_made(
    guarantee: str, fault: dict[str, Any]
) -> None:
    pager = Recorder("pager")
    async with world() as w:
        w.server.faults.add(subresource="status", **fault)
        async with w.operator(pager):
            await w.create("pager", spec={"delivery": guarantee})
            await asyncio.sleep(1000)
        status = await w.status()
    assert (len(pager.calls), status["phase"], status["totalAttempts"]) == (1, "Sent", 1)
    assert [entry["result"] for entry in status["deliveryAttempts"]] == ["success"]


@virtual
async def test_a_write_ahead_attempt_of_another_process_is_not_removed() -> None:
    """Its call may have been made, so the entry stays, although this process wrote the same attempt ahead."""
    pager = Recorder("pager")
    async with world() as w:
        entry = {"channel": "pager", "attempt": 1, "timestamp": "2025-12-31T23:59:59Z", "result": "unknown"}

        async def other() -> None:
            await w.client.patch(
                NotificationRequest,
                "disk-full",
                "default",
                patch={"status": {"deliveryAttempts": [entry]}},
                subresource="status",
            )

        async with w.operator(pager) as (_, reconciler):
            begun = False

            async def write(*given: Any, **options: Any) -> Any:
                nonlocal begun
                if not begun:
                    begun = True
                    await other()
                return await write_as_is(*given, **options)

            write_as_is = reconciler._write_ahead
            reconciler._write_ahead = write  # type: ignore[method-assign]
            await w.create("pager", spec={"delivery": "AtMostOnce"})
            await asyncio.sleep(1000)
        status = await w.status()
    assert pager.calls == []
    assert (status["phase"], status["reason"]) == ("Failed", "DeliveryUnknown")
    assert [parse_time(each["timestamp"]) for each in status["deliveryAttempts"]] == [parse_time(entry["timestamp"])]


@virtual
async def test_there_is_no_further_call_while_an_earlier_result_is_unsaved() -> None:
    """So a process that dies loses the results of one reconcile, however long the server rejected its writes."""
    pager = Recorder("pager", [BUSY])
    async with world() as w:
        async with w.operator(pager):
            w.server.faults.add(status=503, times=None, subresource="status")
            await w.create("pager", initialBackoffSeconds=10, maxBackoffSeconds=10)
            await asyncio.sleep(300)
            assert len(pager.calls) == 1
            w.server.faults.clear()
            await asyncio.sleep(1000)
        status = await w.status()
    assert (len(pager.calls), status["totalAttempts"]) == (5, 5)


@virtual
@pytest.mark.parametrize("guarantee", ["Bounded", "AtMostOnce"])
async def test_observers_are_notified_when_the_result_is_saved_and_not_when_the_write_ahead_attempt_is(
    guarantee: str,
) -> None:
    notes, pager = Notes(), Recorder("pager")

    async with world() as w:

        async def refuse() -> None:
            w.server.faults.add(status=503, times=None, subresource="status")

        pager.action = refuse
        async with w.operator(pager, observers=[notes]):
            await w.create("pager", spec={"delivery": guarantee})
            await asyncio.sleep(100)
            assert (len(pager.calls), notes.attempts) == (1, [])
            w.server.faults.clear()
            await asyncio.sleep(1000)
            assert (await w.status())["phase"] == "Sent"
    assert notes.attempts == [("pager", 1, "success")]
    assert len(pager.calls) == 1


@virtual
async def test_routed_channels_whose_write_failed_are_written_before_the_first_call() -> None:
    """Otherwise a process could die after a call, and its successor could use other channels."""
    pager = Recorder("pager")
    async with world() as w:

        async def look() -> None:
            seen.append([channel["name"] for channel in (await w.status()).get("channels", [])])

        seen: list[list[str]] = []
        pager.action = look
        w.server.faults.add(status=500, times=12, subresource="status")
        async with w.operator(pager, router=Table("pager")):
            await w.create()
            await asyncio.sleep(1000)
    assert seen == [["pager"]]


@virtual
async def test_during_an_api_server_outage_there_are_no_calls_whose_results_would_be_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("reconciler.notification.policies.UNSAVED_NAMESPACE_LIMIT", 5)
    pager = Recorder("pager")
    async with world() as w:
        fault = w.server.faults.add(status=503, times=None, subresource="status")
        async with w.operator(pager, workers=2):
            for number in range(40):
                await w.create("pager", name=f"n-{number}")
            await asyncio.sleep(300)
            assert len(pager.calls) <= 6
            fault.remove()
            await asyncio.sleep(3000)
        statuses = [await w.status(f"n-{number}") for number in range(40)]
    assert {status["phase"] for status in statuses} == {"Sent"}
    assert len(pager.calls) == 40
