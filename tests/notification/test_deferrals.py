"""Deferred deliveries: they follow the limits of the receiver, use no attempt, and wait for the routing."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from reconciler.notification import Message, NotificationMetrics, RetryableDeliveryError
from reconciler.notification.channel import ChannelRegistry
from reconciler.notification.channels.limits import LimitedChannel
from reconciler.notification.router import ConfigMapSource, RoutingTable
from reconciler.notification.routing_config import ReceiverConfig
from tests.notification.test_limits import deliver, guarded
from tests.notification.test_routing import GOOD, KINDS, built
from tests.notification.world import Recorder, World, virtual, world

BUSY = RetryableDeliveryError("503")


# Limits


@virtual
@pytest.mark.parametrize("guarantee", ["AtLeastOnce", "Bounded", "AtMostOnce"])
async def test_waiting_for_a_slow_receiver_is_not_an_attempt_and_never_ends_in_failure(
    guarantee: str,
) -> None:
    pager = Recorder("pager", action=lambda: asyncio.sleep(20))
    channel = LimitedChannel(pager, ReceiverConfig(max_concurrent=2))
    async with world() as w, w.operator(channel, workers=50, timeout=30):
        for number in range(20):
            await w.create("pager", name=f"n-{number}", spec={"delivery": guarantee}, maxAttempts=1)
        await asyncio.sleep(3000)
        statuses = [await w.status(f"n-{number}") for number in range(20)]
    assert [status["phase"] for status in statuses] == ["Sent"] * 20
    assert {status["totalAttempts"] for status in statuses} == {1}
    assert len(pager.calls) == 20


@virtual
async def test_a_hundred_messages_above_the_rate_limit_are_delivered_at_the_rate_without_polling() -> None:
    pager = Recorder("pager")
    channel = LimitedChannel(pager, ReceiverConfig(rate_per_minute=60))
    async with world() as w, w.operator(channel, workers=50) as (controller, _):
        for number in range(100):
            await w.create("pager", name=f"n-{number}")
        await asyncio.sleep(150)
        assert len(pager.calls) == 100
        assert w.writes < 300
        assert controller.statistics().results["error"] == 0


@virtual
async def test_waiting_for_the_limits_does_not_count_for_the_breaker() -> None:
    pager = Recorder("pager", [BUSY])
    channel = guarded(pager, rate_per_minute=60, breaker_failures=3, breaker_open_seconds=1000)
    async with world() as w, w.operator(channel, workers=10):
        for number in range(5):
            await w.create("pager", name=f"n-{number}", maxAttempts=1)
        await asyncio.sleep(1.5)
        assert (len(pager.calls), channel.breaker.state) == (2, "closed")
        await asyncio.sleep(60)
        assert (len(pager.calls), channel.breaker.state) == (3, "open")
        await asyncio.sleep(945)
        assert (len(pager.calls), channel.breaker.state) == (4, "open")  # one probe


def gauge(registry: CollectorRegistry) -> dict[str, float]:
    name = "notification_channel_circuit_breaker_state{"
    lines = generate_latest(registry).decode().splitlines()
    return {line.split('"')[1]: float(line.split()[-1]) for line in lines if line.startswith(name)}


@virtual
async def test_the_metric_shows_the_current_state_of_the_breaker() -> None:
    registry, channels = CollectorRegistry(), ChannelRegistry([Recorder("console")])
    NotificationMetrics(registry).watch(channels=channels)
    channel = guarded(Recorder("pager", [BUSY]), breaker_failures=1, breaker_open_seconds=10)
    channels.replace([channel])
    assert gauge(registry) == {"pager": 0}
    await deliver(channel)
    assert gauge(registry) == {"pager": 2}
    await asyncio.sleep(10)
    assert gauge(registry) == {"pager": 1}
    channels.replace([])
    assert gauge(registry) == {}


# Routing that is not loaded yet


async def config_map(w: World, text: str) -> None:
    await w.client.create(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "rules", "namespace": "default"},
            "data": {"routing.yaml": text},
        }
    )


@virtual
@pytest.mark.parametrize("named", [False, True])
async def test_a_request_waits_for_the_first_routing_configuration(named: bool) -> None:
    registry = ChannelRegistry([Recorder("console"), Recorder("log")])
    routing = RoutingTable(registry, kinds=KINDS, build=built)
    async with world() as w, w.operator(registry=registry, router=routing):
        follow = asyncio.create_task(ConfigMapSource(w.cache, "default", "rules", routing).run())
        await w.create(*(["pager:oncall"] if named else []), spec={"priority": "Critical"})
        await asyncio.sleep(60)
        status = await w.status()
        if named:
            assert (status["phase"], status["channels"][0]["reason"]) == ("Retrying", "Deferred")
            assert "not loaded yet" in status["channels"][0]["lastError"]
        else:
            condition = await w.condition("RoutingResolved")
            assert (condition["status"], condition["reason"]) == ("False", "RoutingPending")
            assert "phase" not in status
            assert w.writes == 1, "waiting writes nothing"
        await config_map(w, GOOD)
        await asyncio.sleep(10)
        assert (await w.status())["phase"] == "Sent"
        follow.cancel()


@virtual
async def test_an_invalid_first_configuration_fails_no_request_and_shows_in_its_condition() -> None:
    registry = ChannelRegistry([Recorder("console"), Recorder("log")])
    routing = RoutingTable(registry, kinds=KINDS, build=built)
    async with world() as w, w.operator(registry=registry, router=routing):
        await config_map(w, "route: {receiver: nobody}")
        follow = asyncio.create_task(ConfigMapSource(w.cache, "default", "rules", routing).run())
        await w.create()
        await asyncio.sleep(60)
        condition = await w.condition("RoutingResolved")
        assert (condition["status"], condition["reason"]) == ("False", "RoutingFailed")
        assert "unknown receiver 'nobody'" in condition["message"]
        await w.client.patch("v1/ConfigMap", "rules", "default", patch={"data": {"routing.yaml": GOOD}})
        await asyncio.sleep(10)
        assert (await w.status())["phase"] == "Sent"
        assert (await w.condition("RoutingResolved"))["reason"] == "RoutingRuleMatched"
        follow.cancel()


def test_a_new_configuration_keeps_the_channels_of_receivers_that_it_does_not_change() -> None:
    registry = ChannelRegistry([Recorder("console"), Recorder("log")])
    routing = RoutingTable(registry, kinds=KINDS, build=built)
    routing.load(GOOD)
    before = {name: registry.get(name) for name in registry}
    routing.load(GOOD.replace("number: 1", "number: 9"))
    same = {name for name in registry if registry.get(name) is before[name]}
    assert {name for name in before if name not in same} == {"pager:storage:0"}


def many(count: int) -> str:
    names = "".join(f"  - {{name: r{number}, pager_configs: [{{number: {number}}}]}}\n" for number in range(count))
    routes = "".join(f"    - {{receiver: r{number}, continue: true}}\n" for number in range(count))
    return f"route:\n  receiver: r0\n  routes:\n{routes}receivers:\n{names}"


@virtual
@pytest.mark.parametrize(("count", "phase"), [(64, "Sent"), (65, "Failed")])
async def test_routing_to_too_many_channels_is_reported(count: int, phase: str) -> None:
    registry = ChannelRegistry([Recorder("console")])
    routing = RoutingTable(registry, kinds=KINDS, build=built)
    routing.load(many(count))
    async with world() as w, w.operator(registry=registry, router=routing):
        await w.create()
        await asyncio.sleep(10)
        assert (await w.status())["phase"] == phase
        reason = (await w.condition("RoutingResolved"))["reason"]
    assert reason == ("RoutingRuleMatched" if phase == "Sent" else "TooManyChannels")


@virtual
async def test_the_errors_of_many_channels_fit_into_the_status() -> None:
    class Down:
        def __init__(self, name: str) -> None:
            self.name = name

        async def deliver(self, message: Message) -> None:
            raise RetryableDeliveryError("ä" * 5000)

    registry = ChannelRegistry([Recorder("console")])
    routing = RoutingTable(registry, kinds=KINDS, build=lambda name, _config: Down(name))
    routing.load(many(64))
    async with world() as w, w.operator(registry=registry, router=routing):
        await w.create(maxAttempts=10)
        await asyncio.sleep(10_000)
        status = await w.status()
    assert (status["phase"], len(status["deliveryAttempts"])) == ("Failed", 640)
