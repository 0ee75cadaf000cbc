"""Durations: wherever seconds are accepted, a timedelta and a text such as "30s" are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from reconciler import Client, Manager, Result, StatusBatcher
from reconciler.apiserver import APIServer
from reconciler.client import Retries
from reconciler.controller import ControllerOptions, Watch
from reconciler.errors import ConfigurationError
from reconciler.http import HTTPRequest, HTTPResponse, Transport
from reconciler.manager import LeaderElection, ShardRing
from reconciler.notification.channels.limits import ReceiverConfig
from reconciler.notification.operator import NotificationOptions
from reconciler.workqueue import WorkQueue

MAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "default"}, "data": {"k": "v"}}

FIELDS: dict[str, Callable[[Any], float | None]] = {
    "timeout": lambda given: ControllerOptions(timeout=given).timeout,
    "debounce": lambda given: ControllerOptions(debounce=given).debounce,
    "sync_timeout": lambda given: ControllerOptions().replace(sync_timeout=given).sync_timeout,
    "stuck_after": lambda given: ControllerOptions(stuck_after=given).stuck_after,
    "mapper_timeout": lambda given: Watch("v1/Pod", mapper_timeout=given).mapper_timeout,
    "requeue_after": lambda given: Result(requeue_after=given).requeue_after,
    "lease_duration": lambda given: LeaderElection("a", lease_duration=given).lease_duration,
    "renew_deadline": lambda given: LeaderElection("a", lease_duration=60, renew_deadline=given).renew_deadline,
    "retry_period": lambda given: (
        ShardRing("a", ["v1/Pod"], lease_duration="5m", renew_deadline="2m", retry_period=given).retry_period
    ),
    "deadline": lambda given: Retries(deadline=given).deadline,
    "flush_timeout": lambda given: StatusBatcher(Client(APIServer()), MAP, flush_timeout=given).flush_timeout,
    "delivery": lambda given: NotificationOptions(timeout=given).timeout,
    "breaker": lambda given: ReceiverConfig(breaker_open_seconds=given).breaker_open_seconds,
}


@pytest.mark.parametrize("given", [30, 30.0, timedelta(seconds=30), "30s", "0.5m"])
@pytest.mark.parametrize("name", FIELDS)
def test_a_field_holds_the_seconds_of_a_duration(name: str, given: object) -> None:
    assert FIELDS[name](given) == 30


@pytest.mark.parametrize("name", sorted(FIELDS.keys() - {"breaker"}))
def test_a_text_that_is_not_a_duration_is_refused_with_the_name_of_the_field(name: str) -> None:
    with pytest.raises((ConfigurationError, ValueError), match="'soon' is not a valid duration: write numbers"):
        FIELDS[name]("soon")


def test_a_default_is_used_and_fields_are_compared_and_shown() -> None:
    assert LeaderElection("a") == LeaderElection("a", lease_duration="15s")
    assert LeaderElection("a").retry_period == 2.0
    assert "sync_timeout=120.0" in repr(ControllerOptions())
    with pytest.raises(ConfigurationError, match="lease_duration: 'soon' is not a valid duration"):
        LeaderElection("a", lease_duration="soon")
    with pytest.raises(ConfigurationError, match="grace_period must be seconds of 0 or more, a timedelta or a text"):
        Manager(Client(APIServer()), grace_period=-1)


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
        with pytest.raises(TimeoutError, match=r"not as wanted within 90\.0 s"):
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
