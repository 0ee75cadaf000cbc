"""Durations: wherever seconds are accepted, a timedelta and a text such as "30s" are."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from reconciler import Client, Manager, Outcome, Reconciler, Recording, Request, Result, StatusBatcher
from reconciler.apiserver import APIServer
from reconciler.cache import Cache
from reconciler.client import Retries
from reconciler.controller import ChannelSource, Watch
from reconciler.errors import ConfigurationError
from reconciler.events import EventRecorder
from reconciler.http import HTTPRequest, HTTPResponse, Transport
from reconciler.manager import LeaderElection, ShardRing
from reconciler.notification import DeferredDeliveryError, RetryableDeliveryError
from reconciler.notification.channels.limits import ReceiverConfig
from reconciler.notification.operator import NotificationOptions
from reconciler.status import guard
from reconciler.testing.control_plane import ControlPlane
from reconciler.testing.explore import Budget, World
from reconciler.workqueue import ExponentialBackoff, FastSlow, WithMaxWait, WorkQueue

MAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "default"}, "data": {"k": "v"}}

FIELDS: dict[str, Callable[[Any], float | None]] = {
    "Watch.mapper_timeout": lambda given: Watch("v1/Pod", mapper_timeout=given).mapper_timeout,
    "Result.requeue_after": lambda given: Result(requeue_after=given).requeue_after,
    "LeaderElection.lease_duration": lambda given: LeaderElection("a", lease_duration=given).lease_duration,
    "LeaderElection.renew_deadline": lambda given: (
        LeaderElection("a", lease_duration=60, renew_deadline=given).renew_deadline
    ),
    "ShardRing.retry_period": lambda given: (
        ShardRing("a", ["v1/Pod"], lease_duration="5m", renew_deadline="2m", retry_period=given).retry_period
    ),
    "Retries.deadline": lambda given: Retries(deadline=given).deadline,
    "StatusBatcher.flush_timeout": lambda given: StatusBatcher(_client(), MAP, flush_timeout=given).flush_timeout,
    "NotificationOptions.timeout": lambda given: NotificationOptions(timeout=given).timeout,
    "Budget.seconds": lambda given: Budget(seconds=given).seconds,
    "Fault.latency": lambda given: APIServer().faults.add(latency=(0, given)).effects["latency"][1],  # type: ignore[typeddict-item, index]
    "Fault.stale": lambda given: APIServer().faults.add(stale=given).effects["stale"],
    "ExponentialBackoff": lambda given: ExponentialBackoff(given, given).when("a"),
    "FastSlow": lambda given: FastSlow(given, given, 1).when("a"),
    "WithMaxWait": lambda given: WithMaxWait(FastSlow("1h", "1h", 1), given).when("a"),
}
"""What holds the seconds that it was given."""

CALLS: dict[str, Callable[[Any], object]] = {
    "add_controller(timeout=)": lambda given: _add(timeout=given),
    "add_controller(stuck_after=)": lambda given: _add(stuck_after=given),
    "add_controller(debounce=)": lambda given: _add(debounce=given),
    "add_controller(sync_timeout=)": lambda given: _add(sync_timeout=given),
    "ChannelSource": lambda given: ChannelSource(asyncio.Queue(), mapper_timeout=given),
    "Manager": lambda given: Manager(_client(), grace_period=given),
    "Cache": lambda given: Cache(_client(), resync=given),
    "Recording": lambda given: Recording("/nowhere", keep=given),
    "Fault.retry_after": lambda given: APIServer().faults.add(status=429, retry_after=given),
    "chaos": lambda given: APIServer().faults.chaos(latency=given),
    "stand-ins": lambda given: APIServer(controllers={"jobs": given}),
    "cycles": lambda given: APIServer().log.cycles(gap=given),
    "StatusWriteGuard": lambda given: guard(window=given),
    "ReceiverConfig": lambda given: ReceiverConfig(breaker_open_seconds=given),
    "ControlPlane": lambda given: ControlPlane(start_timeout=given),
}
INVALID = [math.nan, math.inf, -1, timedelta(seconds=-1), "-1s", True, [], 10**400, b"5"]


class Nodes(Reconciler):
    async def reconcile(self, request: Request, /) -> Outcome:
        return None


def _client() -> Client:
    return Client(APIServer())


def _add(**options: Any) -> object:
    return Manager(_client()).add_controller(Nodes(), resource="v1/Node", **options)


async def _add_rate_limited(given: Any) -> None:
    WorkQueue[str]().add_rate_limited("a", at_least=given)


async def _later(given: Any) -> None:
    World(lambda _: None).later(given, lambda: asyncio.sleep(0))


async def _delete(given: Any) -> None:
    async with APIServer() as server:
        await Client(server).delete("v1/ConfigMap", "a", "default", grace_period=given)


AWAITED: dict[str, Callable[[Any], Awaitable[object]]] = {
    "Cache.informer": lambda given: Cache(_client()).informer("v1/Pod", resync=given),
    "Cache.wait_synced": lambda given: Cache(_client()).wait_synced(given),
    "Cache.refresh": lambda given: Cache(_client()).refresh(given),
    "EventRecorder.close": lambda given: EventRecorder(_client(), source="a").close(given),
    "wait_gone": lambda given: _client().wait_gone("v1/ConfigMap", "a", "default", timeout=given),
    "watch": lambda given: anext(_client().watch("v1/ConfigMap", timeout=given)),
    "delete": _delete,
    "WorkQueue.add_rate_limited": _add_rate_limited,
    "World.settle": lambda given: World(lambda _: None).settle(limit=given),
    "World.later": _later,
}


@pytest.mark.parametrize("given", [30, 30.0, Decimal(30), timedelta(seconds=30), "30s", "0.5m"])
@pytest.mark.parametrize("name", FIELDS)
def test_a_field_holds_the_seconds_of_a_duration(name: str, given: object) -> None:
    assert FIELDS[name](given) == 30


@pytest.mark.parametrize("error", [RetryableDeliveryError, DeferredDeliveryError])
def test_a_receiver_may_ask_for_any_wait_and_an_invalid_one_is_ignored(error: Callable[..., Any]) -> None:
    for given in (30, Decimal(30), timedelta(seconds=30), "0.5m"):
        assert error("busy", retry_after=given).retry_after == 30
    for given in (*INVALID, "soon"):
        assert error("busy", retry_after=given).retry_after is None


@pytest.mark.parametrize("name", CALLS)
async def test_an_option_takes_durations(name: str) -> None:
    for given in (300, timedelta(minutes=5), "5m"):
        CALLS[name](given)


@pytest.mark.parametrize("name", [*FIELDS, *CALLS, *AWAITED])
async def test_what_is_not_a_duration_is_refused_with_the_same_words(name: str) -> None:
    refused = r"must be seconds (above 0|of 0 or more), a timedelta or a text such as '30s', not "
    for given in INVALID:
        with pytest.raises((ConfigurationError, ValueError), match=refused):
            await _result(name, given)
    with pytest.raises((ConfigurationError, ValueError), match="'soon' is not a valid duration: write numbers"):
        await _result(name, "soon")


async def _result(name: str, given: object) -> None:
    if name in AWAITED:
        await AWAITED[name](given)
    else:
        {**FIELDS, **CALLS}[name](given)


def test_the_message_names_the_parameter_and_its_controller() -> None:
    assert LeaderElection("a") == LeaderElection("a", lease_duration="15s")
    assert LeaderElection("a").retry_period == 2.0
    with pytest.raises(ConfigurationError, match="lease_duration: 'soon' is not a valid duration"):
        LeaderElection("a", lease_duration="soon")
    with pytest.raises(ConfigurationError, match="controller 'node': timeout must be seconds above 0"):
        _add(timeout=0)
    with pytest.raises(ValueError, match=r"not 0; to reconcile once more now, return Result\(again=True\)"):
        Result(requeue_after=0)


@pytest.mark.virtual_time
async def test_calls_take_durations() -> None:
    class Bodies:
        def __init__(self, transport: Transport) -> None:
            self._transport = transport

        async def send(self, request: HTTPRequest, /) -> HTTPResponse:
            sent.append(request)
            return await self._transport.send(request)

    sent: list[HTTPRequest] = []
    async with APIServer() as server:
        client = Client(server).through(Bodies)
        await client.create(MAP)
        with pytest.raises(TimeoutError, match=r"not as wanted within 90 s"):
            await client.wait_gone("v1/ConfigMap", "a", "default", timeout="1m30s")
        await client.delete("v1/ConfigMap", "a", "default", grace_period=timedelta(milliseconds=1500))
        assert b'"gracePeriodSeconds":2' in sent[-1].body
        async for _ in client.watch("v1/ConfigMap", timeout="1500ms"):
            pass
        assert ("timeoutSeconds", "2") in sent[-1].query


@pytest.mark.virtual_time
@pytest.mark.parametrize("after", [90, timedelta(minutes=1.5), "1m30s"])
async def test_a_key_is_ready_after_a_duration(after: Any) -> None:
    queue: WorkQueue[str] = WorkQueue()
    start = asyncio.get_running_loop().time()
    queue.add("a", after=after)
    assert await queue.get() == "a"
    assert asyncio.get_running_loop().time() - start == 90
