"""Tenants: a namespace with many requests, or with hanging receivers, does not delay other namespaces.

What is compared is the order of deliveries, and virtual time in units of one delivery.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from reconciler.errors import Invalid
from reconciler.notification import (
    DeferredDeliveryError,
    Message,
    NotificationRequest,
    RetryableDeliveryError,
)
from reconciler.notification.channels.limits import LimitedChannel
from reconciler.notification.routing_config import ReceiverConfig
from reconciler.objects import InvalidObject
from tests.notification.world import TIMELINE, World, document, offsets, virtual, world

BUSY = RetryableDeliveryError("503")


@dataclass
class Slow:
    """A slow receiver that records its calls with their times."""

    name: str
    seconds: float = 10.0
    outcome: Callable[[Message], BaseException | None] = lambda _: None
    calls: list[tuple[float, str, str]] = field(default_factory=list)
    inside: int = 0
    most: int = 0

    async def deliver(self, message: Message) -> None:
        self.calls.append((asyncio.get_running_loop().time(), message.namespace, message.name))
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            message.mark_sent()
            await asyncio.sleep(self.seconds)
        finally:
            self.inside -= 1
        if (error := self.outcome(message)) is not None:
            raise error

    def first(self, namespace: str) -> float:
        return next(time for time, where, _ in self.calls if where == namespace)

    def order(self) -> list[str]:
        return [namespace for _, namespace, _ in self.calls]


def guarded(channel: Any, **limits: Any) -> LimitedChannel:
    return LimitedChannel(channel, ReceiverConfig(**limits))


async def send(
    w: World, namespace: str, *channels: str, name: str = "n", spec: dict[str, Any] | None = None, **policy: Any
) -> None:
    made = document(channels, name=name, spec=spec, **policy)
    made["metadata"]["namespace"] = namespace
    await w.client.create(made)


async def flood(w: World, namespace: str, *channels: str, count: int, **options: Any) -> None:
    for number in range(count):
        await send(w, namespace, *channels, name=f"n-{number}", **options)


async def phases(w: World, namespace: str) -> list[str | None]:
    return [each.status.phase for each in await w.client.list(NotificationRequest, namespace)]


CRITICAL = {"priority": "Critical"}


@virtual
@pytest.mark.timeout(120)
@pytest.mark.parametrize(("workers", "count"), [(1, 200), (4, 1000), (10, 200)])
@pytest.mark.parametrize("limited", [True, False])
async def test_a_thousand_requests_of_one_namespace_delay_no_other(workers: int, count: int, limited: bool) -> None:
    slow, other = Slow("slow"), Slow("other", seconds=0.1)
    channels = [guarded(slow), guarded(other)] if limited else [slow, other]
    async with world() as w, w.operator(*channels, workers=workers) as (controller, reconciler):
        await flood(w, "a", "slow", count=count, spec=CRITICAL)
        await asyncio.sleep(95)
        begun = asyncio.get_running_loop().time()
        await send(w, "b", "slow", spec=CRITICAL)
        await send(w, "c", "other", spec=CRITICAL)
        await asyncio.sleep(60)
        writes, calls = w.writes, len(slow.calls) + len(other.calls)
        assert reconciler.statistics().waiting == count + 2 - calls
        assert controller.statistics().storms == 0
    assert slow.first("b") - begun <= slow.seconds
    assert other.first("c") - begun < 1
    assert writes <= calls, "waiting writes nothing"
    assert slow.most == (min(4, workers) if limited else workers)


@virtual
@pytest.mark.timeout(120)
async def test_fifty_namespaces_share_a_receiver_fairly() -> None:
    slow = Slow("slow")
    names = [f"ns-{number}" for number in range(50)]
    async with world() as w, w.operator(guarded(slow), workers=10):
        await flood(w, names[0], "slow", count=200)
        for namespace in names[1:]:
            await flood(w, namespace, "slow", count=4)
        await asyncio.sleep(2000)
        assert {await_phase for name in names for await_phase in await phases(w, name)} == {"Sent"}
    order = slow.order()
    start = order.index(names[1])
    for turn in range(3):  # each round has every namespace once
        found = order[start + 50 * turn : start + 50 * (turn + 1)]
        assert sorted(found) == sorted(names)


@virtual
async def test_priorities_count_within_a_namespace_and_not_between_namespaces() -> None:
    slow = Slow("slow")
    async with world() as w, w.operator(guarded(slow, max_concurrent=1), workers=4):
        await send(w, "a", "slow", name="first")
        await asyncio.sleep(1)
        for number, priority in enumerate(["Low", "Medium", "High", "Critical"] * 2):
            await send(w, "a", "slow", name=f"{priority}-{number}".lower(), spec={"priority": "Critical"})
            await send(w, "b", "slow", name=f"{priority}-{number}".lower(), spec={"priority": priority})
        await asyncio.sleep(300)
    assert slow.order()[1:] == ["b", "a"] * 8
    of_b = [name.partition("-")[0] for _, namespace, name in slow.calls if namespace == "b"]
    assert of_b == ["critical"] * 2 + ["high"] * 2 + ["medium"] * 2 + ["low"] * 2


@virtual
async def test_an_endless_stream_of_urgent_requests_does_not_starve_its_own_namespace() -> None:
    slow = Slow("slow", seconds=60)
    async with world() as w, w.operator(guarded(slow, max_concurrent=1), workers=1, timeout=100):
        await send(w, "a", "slow", name="first")
        await send(w, "a", "slow", name="low", spec={"priority": "Low"})
        for number in range(400):
            await send(w, "a", "slow", name=f"n-{number}", spec=CRITICAL)
            await asyncio.sleep(50)
        assert (await w.client.get(NotificationRequest, "low", "a")).status.phase == "Sent"


@virtual
async def test_receivers_that_hang_take_no_worker_from_another_namespace_or_receiver() -> None:
    hanging = [Slow(f"h-{number}", seconds=10_000) for number in range(20)]
    slow, good = Slow("shared", seconds=10_000), Slow("good", seconds=0.1)
    async with world() as w, w.operator(*hanging, slow, good, workers=10, timeout=30):
        for channel in hanging:
            await send(w, "a", channel.name, name=channel.name)
        for number in range(5):
            await send(w, f"x-{number}", "shared")
        await asyncio.sleep(5)
        begun = asyncio.get_running_loop().time()
        await send(w, "b", "good")
        await asyncio.sleep(1)
        assert good.first("b") - begun < 1
        await asyncio.sleep(60)
        begun = asyncio.get_running_loop().time()
        await send(w, "b", "good", name="again")
        await asyncio.sleep(1)
        assert good.calls[-1][0] - begun < 1


@virtual
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("error", "limits"),
    [
        (BUSY, {"breaker_failures": 10_000}),
        (BUSY, {}),
        (DeferredDeliveryError("429", retry_after=20), {}),
    ],
)
async def test_hundreds_of_failing_or_deferred_requests_delay_no_other_namespace(
    error: BaseException, limits: dict[str, Any]
) -> None:
    slow = Slow("slow", outcome=lambda message: error if message.namespace == "a" else None)
    other = Slow("other", seconds=0.1)
    async with world() as w, w.operator(guarded(slow, **limits), guarded(other), workers=10) as (controller, _):
        await flood(w, "a", "slow", count=300)
        for moment in range(5):
            await asyncio.sleep(100)
            begun = asyncio.get_running_loop().time()
            await send(w, "b", "slow", name=f"n-{moment}")
            await send(w, "c", "other", name=f"n-{moment}")
            await asyncio.sleep(1)
            assert other.calls[-1][0] - begun < 1
            await asyncio.sleep(99)
            found = await w.client.get(NotificationRequest, f"n-{moment}", "b")
            assert found.status.phase == "Sent"
            assert found.status.total_attempts == 1
        assert controller.statistics().storms == 0


@virtual
async def test_a_restart_over_a_backlog_delays_no_other_namespace() -> None:
    slow = Slow("slow")
    async with world() as w:
        await flood(w, "a", "slow", count=300)
        await send(w, "z", "slow")
        async with w.operator(guarded(slow), workers=2):
            await asyncio.sleep(11)
        assert slow.first("z") <= slow.seconds


# What waiting must not change


@virtual
@pytest.mark.parametrize("guarantee", ["AtLeastOnce", "Bounded", "AtMostOnce"])
async def test_waiting_uses_no_attempt_writes_nothing_and_keeps_the_timeline(guarantee: str) -> None:
    slow = Slow("slow", seconds=1000)
    pager = Slow("pager", seconds=0, outcome=lambda _: BUSY)
    async with world() as w, w.operator(guarded(slow, max_concurrent=1), pager, workers=4, timeout=2000):
        await send(w, "default", "slow", name="first")
        await asyncio.sleep(1)
        writes = w.writes
        await send(w, "default", "slow", name="waits", spec={"delivery": guarantee})
        await asyncio.sleep(500)
        assert w.writes == writes
        assert await w.status("waits") == {}
        await send(w, "default", "slow", "pager", name="half")
        await asyncio.sleep(498)
        half = await w.status("half")
        assert offsets(half, "pager") == TIMELINE
        assert [each["state"] for each in half["channels"]] == ["Pending", "Failed"]
        await asyncio.sleep(2100)
        assert {name: (await w.status(name))["totalAttempts"] for name in ("waits", "half")} == {"waits": 1, "half": 6}
        assert (await w.status("half"))["phase"] == "PartiallySent"
        effective = w.server.log.cycles(NotificationRequest, subresource="status", effective=True)
        most = 1 if guarantee == "AtLeastOnce" else 2
        assert all(len(cycle) <= most for cycle in effective)


@virtual
async def test_a_request_deleted_while_waiting_blocks_no_other_request() -> None:
    slow = Slow("slow")
    async with world() as w, w.operator(guarded(slow, max_concurrent=1), workers=4) as (_, reconciler):
        await flood(w, "a", "slow", count=5)
        await asyncio.sleep(1)
        for number in range(5):
            if not any(name == f"n-{number}" for _, _, name in slow.calls):
                await w.client.delete(NotificationRequest, f"n-{number}", "a")
        await asyncio.sleep(1)
        assert reconciler.statistics().waiting == 0
        await send(w, "b", "slow")
        await asyncio.sleep(20)
        assert await phases(w, "b") == ["Sent"]
    assert slow.order() == ["a", "b"]


@virtual
async def test_an_outage_shows_in_the_status_and_the_next_request_in_turn_is_the_probe() -> None:
    back = [False]
    slow = Slow("slow", seconds=1, outcome=lambda _: None if back[0] else BUSY)
    channel = guarded(slow, breaker_failures=3, breaker_open_seconds=100)
    async with world() as w, w.operator(channel, workers=10):
        await flood(w, "a", "slow", count=100)
        await asyncio.sleep(10)
        writes = w.writes
        assert {each.status.channels[0].reason for each in await w.client.list(NotificationRequest, "a")} <= {
            "Deferred",
            "AttemptFailed",
        }
        await asyncio.sleep(1000)
        assert w.writes - writes < 50, "those that wait for the receiver write nothing"
        await send(w, "b", "slow")
        await asyncio.sleep(1)
        back[0] = True
        begun = asyncio.get_running_loop().time()
        await asyncio.sleep(250)
        assert slow.first("b") - begun <= 110
        assert await phases(w, "b") == ["Sent"]


@virtual
async def test_a_receiver_that_stays_down_fails_a_request_after_the_deferral_limit() -> None:
    down = Slow("down", seconds=1, outcome=lambda _: BUSY)
    channel = guarded(down, breaker_failures=1, breaker_open_seconds=4000)
    async with world() as w, w.operator(channel, workers=10):
        await flood(w, "a", "down", count=100, maxAttempts=1)
        await asyncio.sleep(3 * 24 * 3600)
        assert set(await phases(w, "a")) == {"Failed"}


@virtual
@pytest.mark.timeout(120)
@pytest.mark.parametrize("refusal", [413, 422, 503])
async def test_a_namespace_whose_statuses_cannot_be_saved_stops_no_other(
    refusal: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reconciler.notification.policies.UNSAVED_NAMESPACE_LIMIT", 20)
    monkeypatch.setattr("reconciler.notification.policies.UNSAVED_LIMIT", 50)
    pager = Slow("pager", seconds=0.1)
    async with world() as w:
        w.server.faults.add(status=refusal, times=None, subresource="status", namespace="noisy")
        w.server.faults.add(status=refusal, times=None, subresource="status", namespace="noisy-too")
        await flood(w, "noisy", "pager", count=80)
        await flood(w, "noisy-too", "pager", count=80)
        async with w.operator(pager, workers=4):
            await asyncio.sleep(600)
            await flood(w, "calm", "pager", count=3)
            await asyncio.sleep(60)
            assert await phases(w, "calm") == ["Sent"] * 3
            noisy = [name for _, namespace, name in pager.calls if namespace == "noisy"]
            assert len(noisy) == len(set(noisy)), "no call is repeated while its result is unsaved"
            assert len(noisy) == (20 if refusal == 503 else 80)


@virtual
@pytest.mark.parametrize("refusal", [413, 422])
async def test_a_request_whose_status_is_refused_ends_with_a_status_that_fits(refusal: int) -> None:
    pager = Slow("pager", outcome=lambda _: BUSY)
    async with world() as w, w.operator(pager):
        await w.create("pager", spec={"ttlSecondsAfterFinished": 5000})
        await asyncio.sleep(20)
        w.server.faults.add(status=refusal, times=1, subresource="status")
        await asyncio.sleep(2000)
        status = await w.status()
        assert (status["phase"], status["reason"], len(pager.calls)) == ("Failed", "StatusRefused", 2)
        assert "deliveryAttempts" not in status or status["deliveryAttempts"] == []
        await asyncio.sleep(6000)
        assert await phases(w, "default") == []


@virtual
async def test_a_request_whose_status_is_refused_is_deleted_in_time_and_not_at_the_next_attempt() -> None:
    async with world() as w, w.operator(Slow("pager", outcome=lambda _: BUSY)):
        await w.create("pager", spec={"ttlSecondsAfterFinished": 5}, initialBackoffSeconds=30, jitter=0)
        await asyncio.sleep(20)
        w.server.faults.add(status=422, times=1, subresource="status")
        await asyncio.sleep(40)
        assert await phases(w, "default") == []


@virtual
async def test_a_request_that_could_outgrow_etcd_is_not_delivered() -> None:
    pager = Slow("pager")
    people = ["\U0001f4a3" * 316 + f"{number:04}" for number in range(64)]
    async with world() as w:
        async with w.operator(pager):
            recipients = {f"kind-{number}": people for number in range(15)}
            await w.create("pager", spec={"recipients": recipients}, maxAttempts=10)
            await asyncio.sleep(10)
        status = await w.status()
    assert (status["phase"], status["reason"], pager.calls) == ("Failed", "RequestTooLarge", [])


async def test_the_names_of_extensions_and_of_kinds_of_recipients_are_bounded() -> None:
    async with world() as w:
        for member in ({"extensions": {"x" * 257: "a"}}, {"recipients": {"x" * 257: ["a"]}}):
            made = {**document(["pager"]), "spec": {**document(["pager"])["spec"], **member}}
            with pytest.raises(InvalidObject, match="at most 256 characters"):
                NotificationRequest.from_dict(made)
            with pytest.raises(Invalid, match="at most 256 characters"):
                await w.client.create(made)


# A shared receiver that fails for one namespace


def fails_for(*namespaces: str) -> Callable[[Message], BaseException | None]:
    return lambda message: BUSY if message.namespace in namespaces else None


@virtual
@pytest.mark.timeout(120)
async def test_a_receiver_that_fails_for_one_namespace_is_not_down_for_others() -> None:
    pager = Slow("pager", seconds=1, outcome=fails_for("noisy"))
    channel = guarded(pager, breaker_failures=3, breaker_open_seconds=30, max_concurrent=2)
    async with world() as w, w.operator(channel, workers=4):
        await flood(w, "noisy", "pager", count=20)
        for number in range(6):
            await asyncio.sleep(20)
            await send(w, "calm", "pager", name=f"n-{number}")
        await asyncio.sleep(20)
        assert channel.breaker.only_for == "noisy"
        assert await phases(w, "calm") == ["Sent"] * 6
        calm = [await w.client.get(NotificationRequest, f"n-{number}", "calm") for number in range(6)]
        assert [each.status.total_attempts for each in calm] == [1] * 6
        called = [time for time, namespace, _ in pager.calls if namespace == "noisy"]
        assert len(called) < 15, "the breaker is open for the namespace whose messages fail"


@virtual
async def test_a_receiver_that_fails_for_two_namespaces_is_down_for_all_and_one_success_ends_it() -> None:
    failing = ["a", "b"]
    pager = Slow("pager", seconds=0, outcome=lambda message: BUSY if message.namespace in failing else None)
    channel = guarded(pager, breaker_failures=3, breaker_open_seconds=30)

    async def call(namespace: str) -> bool:
        message = Message(
            name="n",
            namespace=namespace,
            uid="u",
            type="Simple",
            priority="Low",
            subject="s",
            body="b",
            channel="pager",
        )
        before = len(pager.calls)
        with contextlib.suppress(DeferredDeliveryError, RetryableDeliveryError):
            await channel.deliver(message)
        return len(pager.calls) > before

    assert [await call("a") for _ in range(5)] == [True] * 3 + [False] * 2
    assert [await call("b") for _ in range(5)] == [True] * 3 + [False] * 2
    assert not await call("c")
    await asyncio.sleep(30)
    assert [await call("a"), await call("c")] == [True, False], "the probe fails"
    await asyncio.sleep(30)
    assert [await call("c"), await call("a")] == [True, True], "the probe succeeds"
    assert channel.breaker.state == "closed"
