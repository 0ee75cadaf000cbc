"""Circuit breaker, rate and concurrency limits of a receiver: deliveries above them are deferred without an attempt."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from reconciler.notification import (
    DeferredDeliveryError,
    Message,
    PermanentDeliveryError,
    RetryableDeliveryError,
    UnknownDeliveryError,
)
from reconciler.notification.channels import limits
from reconciler.notification.channels.limits import BreakerState, CircuitBreaker, LimitedChannel
from reconciler.notification.routing_config import ReceiverConfig
from tests.depth import examples
from tests.notification.world import Recorder, virtual, world

FAULTS = (RetryableDeliveryError, UnknownDeliveryError)
BUSY = RetryableDeliveryError("503")


def told(name: str = "a") -> Message:
    members: dict[str, Any] = {"namespace": "default", "uid": name, "type": "Simple", "priority": "Low"}
    return Message(name=name, subject="s", body="b", channel="pager", **members)


def guarded(channel: Recorder, **limits: Any) -> LimitedChannel:
    return LimitedChannel(channel, ReceiverConfig(**limits))


async def deliver(channel: LimitedChannel, name: str = "a") -> str:
    try:
        await channel.deliver(told(name))
    except DeferredDeliveryError as error:
        return f"deferred {error.retry_after:g}"
    except Exception as error:  # noqa: BLE001 - the outcome is what is looked at
        return str(error)
    return "delivered"


# The breaker


@virtual
async def test_the_breaker_opens_after_consecutive_failures_and_lets_one_message_through() -> None:
    pager = Recorder("pager", [BUSY] * 6 + [None])
    channel = guarded(pager, breaker_failures=5, breaker_open_seconds=30)
    assert [await deliver(channel) for _ in range(5)] == ["503"] * 5
    assert await deliver(channel) == "deferred 30"
    await asyncio.sleep(29)
    assert await deliver(channel) == "deferred 1"
    assert len(pager.calls) == 5
    await asyncio.sleep(1)
    assert await deliver(channel) == "503"
    assert await deliver(channel) == "deferred 30"
    await asyncio.sleep(30)
    assert await deliver(channel) == "delivered"
    assert [await deliver(channel) for _ in range(3)] == ["delivered"] * 3


@virtual
async def test_twenty_concurrent_messages_make_one_probe() -> None:
    pager = Recorder("pager", [BUSY], action=lambda: asyncio.sleep(1))
    channel = guarded(pager, breaker_failures=1, breaker_open_seconds=10, max_concurrent=50)
    await deliver(channel)
    await asyncio.sleep(10)
    outcomes = await asyncio.gather(*(deliver(channel, str(number)) for number in range(20)))
    assert sorted(outcomes) == ["503"] + ["deferred 10"] * 19
    assert len(pager.calls) == 2


@virtual
async def test_b5_neither_permanent_errors_nor_cancelled_calls_open_the_breaker() -> None:
    pager = Recorder("pager", [PermanentDeliveryError("404")])
    channel = guarded(pager, breaker_failures=2)
    assert [await deliver(channel) for _ in range(5)] == ["404"] * 5
    slow = Recorder("slow", action=lambda: asyncio.sleep(60))
    channel = guarded(slow, breaker_failures=1)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await channel.deliver(told())
    assert channel.breaker.state == "closed"


@virtual
async def test_b5_an_open_breaker_uses_no_attempt() -> None:
    pager = Recorder("pager", [BUSY, BUSY, BUSY, None])
    channel = LimitedChannel(pager, ReceiverConfig(breaker_failures=3, breaker_open_seconds=1000))
    async with world() as w, w.operator(channel):
        for name in "abc":
            await w.create("pager", name=name, maxAttempts=2)
        await asyncio.sleep(2000)
        found = [await w.status(name) for name in "abc"]
    assert [status["phase"] for status in found] == ["Sent"] * 3
    assert [status["totalAttempts"] for status in found] == [2, 2, 2]


class BreakerMachine(RuleBasedStateMachine):
    """A model of the circuit breaker's observable behavior."""

    @initialize(limit=st.integers(1, 3))
    def begin(self, limit: int) -> None:
        self.now = 0.0
        self.limit = limit
        self.seen: list[BreakerState] = []
        self.breaker = CircuitBreaker(
            "r",
            clock=lambda: self.now,
            failures=limit,
            open_seconds=10,
            on_change=lambda _name, state: self.seen.append(state),
        )
        self.in_a_row = 0
        self.opened: float | None = None

    @rule(seconds=st.sampled_from([1.0, 5.0, 10.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(outcome=st.sampled_from(["ok", "fails", "refused", "cancelled"]))
    def call(self, outcome: str) -> None:
        may_call = self.opened is None or self.now >= self.opened + 10
        called, wait = False, 1.0
        try:
            with self.breaker.call(FAULTS):
                called = True
                match outcome:
                    case "fails":
                        raise BUSY
                    case "refused":
                        raise PermanentDeliveryError("404")
                    case "cancelled":
                        raise asyncio.CancelledError
        except (RetryableDeliveryError, PermanentDeliveryError, asyncio.CancelledError):
            pass
        except DeferredDeliveryError as error:
            wait = error.retry_after
        assert called == may_call
        assert 0 < wait <= 10
        if not called or outcome == "cancelled":
            return
        if outcome == "fails":
            self.in_a_row += 1
            if self.opened is not None or self.in_a_row >= self.limit:
                self.opened = self.now
        else:
            self.in_a_row, self.opened = 0, None

    @invariant()
    def state_is_told(self) -> None:
        if not hasattr(self, "breaker"):
            return
        expected = "closed" if self.opened is None else "half-open" if self.now >= self.opened + 10 else "open"
        assert self.breaker.state == expected
        assert all(one != other for one, other in zip(self.seen, self.seen[1:], strict=False))


TestBreaker = BreakerMachine.TestCase
TestBreaker.settings = settings(max_examples=examples(100), stateful_step_count=30, deadline=None)


# Rate and concurrency


@virtual
async def test_messages_above_the_rate_limit_are_deferred_and_delivered_later() -> None:
    pager = Recorder("pager")
    channel = LimitedChannel(pager, ReceiverConfig(rate_per_minute=60))
    async with world() as w, w.operator(channel, workers=10):
        for number in range(10):
            await w.create("pager", name=f"n-{number}")
        await asyncio.sleep(120)
        statuses = [await w.status(f"n-{number}") for number in range(10)]
    assert [status["phase"] for status in statuses] == ["Sent"] * 10
    assert {status["totalAttempts"] for status in statuses} == {1}
    assert all(later - earlier >= 0.99 for earlier, later in zip(pager.calls, pager.calls[1:], strict=False))


@virtual
async def test_the_concurrency_limit_of_a_receiver_holds() -> None:
    running, most = 0, 0

    async def work() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(1)
        running -= 1

    pager = Recorder("pager", action=work)
    async with world() as w, w.operator(guarded(pager, max_concurrent=3), workers=20):
        for number in range(10):
            await w.create("pager", name=f"n-{number}")
        await asyncio.sleep(10)
    assert (most, len(pager.calls)) == (3, 10)


# One channel for each namespace


@virtual
@pytest.mark.parametrize(("limit", "asked"), [({"rate_per_minute": 1}, 60), ({"max_concurrent": 1}, 5)])
async def test_a_receiver_of_a_namespace_defers_what_exceeds_its_limits_and_not_others(
    limit: dict[str, Any], asked: float
) -> None:
    slow = Recorder("pager", action=lambda: asyncio.sleep(0.5))
    channel = limits.NamespacedChannel("pager", lambda _: guarded(slow, **limit))
    first = asyncio.create_task(channel.deliver(told()))
    await asyncio.sleep(0)
    with pytest.raises(DeferredDeliveryError, match="is reached") as caught:
        await channel.deliver(told("b"))
    assert caught.value.retry_after == asked
    await channel.deliver(replace(told(), namespace="other"))
    await first
    assert len(slow.calls) == 2


@virtual
@pytest.mark.parametrize("error", [None, BUSY])
async def test_namespaces_that_have_not_delivered_for_long_hold_no_connection(
    error: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "NAMESPACE_LIMIT", 2)
    connected: list[str] = []

    class Connected(Recorder):
        def close(self) -> None:
            connected.remove(self.name)

    def build(namespace: str) -> LimitedChannel:
        connected.append(namespace)
        return guarded(Connected(namespace, [error]))

    channel = limits.NamespacedChannel("pager", build)
    for namespace in ("a", "b", "a", "c", "a"):
        with contextlib.suppress(RetryableDeliveryError):
            await channel.deliver(replace(told(), namespace=namespace))
    assert connected == ["a", "c"]
    await channel.close()
    assert connected == []
