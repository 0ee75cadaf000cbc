"""Calls of channels: concurrent, isolated, limited in time; and what counts as an attempt."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from reconciler.clock import current_clock
from reconciler.notification import (
    DeferredDeliveryError,
    FileChannel,
    Message,
    PermanentDeliveryError,
    Redactor,
    RetryableDeliveryError,
    UnknownDeliveryError,
)
from reconciler.notification.channel import ChannelRegistry
from reconciler.notification.delivery import Deliverer
from reconciler.notification.schedule import Delivery, DeliveryVerdict
from tests.notification.world import world

pytestmark = pytest.mark.virtual_time


class Scripted:
    """A channel with scripted behavior."""

    def __init__(self, name: str, action: Callable[[], Awaitable[Any]]) -> None:
        self.name = name
        self.action = action
        self.calls = 0

    async def deliver(self, message: Message) -> None:
        self.calls += 1
        await self.action()


def raising(error: BaseException) -> Callable[[], Awaitable[None]]:
    async def action() -> None:
        raise error

    return action


def sleeping(seconds: float) -> Callable[[], Awaitable[None]]:
    async def action() -> None:
        await asyncio.sleep(seconds)

    return action


def message(channel: str) -> Message:
    return Message(
        name="n", namespace="ns", uid="u", type="Simple", priority="Low", subject="s", body="b", channel=channel
    )


def deliverer(*channels: Any, timeout: float = 30.0) -> Deliverer:
    return Deliverer(
        ChannelRegistry(channels),
        timeout=timeout,
        redactor=Redactor(),
        now=lambda: current_clock().now(),
    )


async def delivered(*channels: Any, **options: Any) -> dict[str, Delivery]:
    results: list[Delivery] = []
    await deliverer(*channels, **options).deliver([message(channel.name) for channel in channels], results)
    return {result.channel: result for result in results}


async def only(error: BaseException) -> Delivery:
    return (await delivered(Scripted("a", raising(error))))["a"]


async def test_channels_deliver_concurrently() -> None:
    clock = current_clock()
    began = clock.now()
    results = await delivered(*(Scripted(f"c{n}", sleeping(10 + n)) for n in range(5)))
    assert (clock.now() - began).total_seconds() == 14
    assert {name: result.seconds for name, result in results.items()} == {f"c{n}": 10 + n for n in range(5)}
    assert all((result.ended - result.started).total_seconds() == result.seconds for result in results.values())


async def test_at_most_max_concurrent_deliveries_run_at_once() -> None:
    running, most = 0, 0

    async def action() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(1)
        running -= 1

    channels = [Scripted(f"c{number}", action) for number in range(7)]
    async with world() as w, w.operator(*channels, workers=10, max_concurrent=2):
        await w.create(*(channel.name for channel in channels))
        await asyncio.sleep(10)
        status = await w.status()
    assert (most, status["phase"]) == (2, "Sent")
    assert {attempt["durationSeconds"] for attempt in status["deliveryAttempts"]} == {1}, "waiting is not counted"


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (RetryableDeliveryError("503"), DeliveryVerdict.RETRYABLE),
        (PermanentDeliveryError("404"), DeliveryVerdict.PERMANENT),
        (DeferredDeliveryError("open", retry_after=30), DeliveryVerdict.DEFERRED),
        (UnknownDeliveryError("no response"), DeliveryVerdict.UNKNOWN),
        (OSError(13, "Permission denied"), DeliveryVerdict.DOUBTFUL),
        (ValueError("permanent failure"), DeliveryVerdict.DOUBTFUL),
        (TimeoutError(), DeliveryVerdict.DOUBTFUL),
        (SystemExit(3), DeliveryVerdict.DOUBTFUL),
        (asyncio.CancelledError(), DeliveryVerdict.DOUBTFUL),
        (ExceptionGroup("several", [ValueError()]), DeliveryVerdict.DOUBTFUL),
        (BaseException("odd"), DeliveryVerdict.DOUBTFUL),
    ],
)
async def test_the_type_of_the_error_decides_and_not_its_text(error: BaseException, verdict: DeliveryVerdict) -> None:
    assert (await only(error)).verdict is verdict


async def test_a_subclass_of_an_error_counts_as_that_error() -> None:
    class Gone(PermanentDeliveryError):
        pass

    assert (await only(Gone("410"))).verdict is DeliveryVerdict.PERMANENT


@pytest.mark.parametrize(
    "error", [ValueError(), SystemExit(1), asyncio.CancelledError(), BaseException(), PermanentDeliveryError()]
)
async def test_whatever_a_channel_raises_the_others_deliver(error: BaseException) -> None:
    good = Scripted("good", sleeping(5))
    results = await delivered(Scripted("bad", raising(error)), good)
    assert results["good"].verdict is DeliveryVerdict.DELIVERED
    assert results["bad"].verdict is not DeliveryVerdict.DELIVERED


async def test_a_valid_retry_after_is_returned_and_an_invalid_one_is_not() -> None:
    for given, kept in ((5, 5.0), (0, None), (-1, None), (float("nan"), None), (float("inf"), None), ("soon", None)):
        result = await only(RetryableDeliveryError("429", retry_after=given))  # type: ignore[arg-type]
        assert result.retry_after == kept


async def test_a_delivery_that_times_out_is_an_attempt_of_unknown_outcome() -> None:
    slow = Scripted("slow", sleeping(1e6))
    result = (await delivered(slow, timeout=7.5))["slow"]
    assert (result.verdict, result.seconds, result.error) == (DeliveryVerdict.UNKNOWN, 7.5, "no response within 7.5 s")


async def test_a_channel_that_is_a_plain_function_has_delivered_when_it_returns() -> None:
    class Plain:
        name = "plain"
        calls = 0

        def deliver(self, message: Message) -> None:
            self.calls += 1

    plain = Plain()
    assert (await delivered(plain))["plain"].verdict is DeliveryVerdict.DELIVERED
    assert plain.calls == 1


async def test_the_error_for_an_unknown_channel_lists_the_registered_ones() -> None:
    results: list[Delivery] = []
    await deliverer(Scripted("a", sleeping(0)), Scripted("b", sleeping(0))).deliver([message("telegraph")], results)
    assert results[0].verdict is DeliveryVerdict.UNKNOWN_CHANNEL
    assert results[0].error == "unknown channel 'telegraph'; registered channels: a, b"


async def test_a_delivery_cancelled_at_shutdown_is_not_an_attempt_and_earlier_results_are_kept() -> None:
    """B14: a delivery cancelled at shutdown was recorded as a failed attempt."""

    async def stubborn() -> None:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError as error:
            raise RuntimeError("connection lost") from error

    channels = (Scripted("fast", sleeping(1)), Scripted("slow", sleeping(100)), Scripted("stubborn", stubborn))
    results: list[Delivery] = []
    task = asyncio.create_task(deliverer(*channels).deliver([message(c.name) for c in channels], results))
    await asyncio.sleep(2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [(result.channel, result.verdict) for result in results] == [("fast", DeliveryVerdict.DELIVERED)]


async def test_a_shutdown_while_waiting_for_a_slot_is_not_an_attempt() -> None:
    channels = Scripted("a", sleeping(100)), Scripted("b", sleeping(100))
    async with world() as w:
        async with w.operator(*channels, max_concurrent=1, grace=1):
            await w.create("a", "b")
            await asyncio.sleep(2)
        status = await w.status()
    assert (status.get("deliveryAttempts", []), sum(channel.calls for channel in channels)) == ([], 1)


async def test_a_slot_is_always_released() -> None:
    """B11: a panic leaked the reservation of its attempt."""
    bad, good = Scripted("bad", raising(SystemExit(1))), Scripted("good", sleeping(1))
    async with world() as w, w.operator(bad, good, workers=4, max_concurrent=1):
        for name in "abc":
            await w.create("bad", "good", name=name, maxAttempts=1)
        await asyncio.sleep(10)
        assert [(await w.status(name))["phase"] for name in "abc"] == ["PartiallySent"] * 3


async def test_a_secret_in_an_error_is_not_in_the_result() -> None:
    """B12: network errors carried the webhook's URL, which is a secret, into status and logs."""
    url = "https://hooks.slack.com/services/T0/B0/abcdefghijklmnop"
    result = await only(ConnectionError(f"cannot connect to {url}"))
    assert result.error == "ConnectionError: cannot connect to https://hooks.slack.com/services/[REDACTED]"


async def test_the_file_channel_takes_no_virtual_time(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    (tmp_path / "occupied").touch()
    began = loop.time()
    timer = asyncio.create_task(asyncio.sleep(30))
    for _ in range(20):
        results = await delivered(FileChannel(tmp_path / "n"), FileChannel(tmp_path / "occupied" / "n", name="bad"))
        assert results["file"].verdict is DeliveryVerdict.DELIVERED
        assert results["bad"].verdict is DeliveryVerdict.RETRYABLE
        assert {result.seconds for result in results.values()} == {0}
    assert loop.time() == began
    timer.cancel()
