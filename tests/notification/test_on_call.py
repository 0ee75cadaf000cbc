"""What the operator says about deliveries that fail or wait: log lines, Events and explanations."""

from __future__ import annotations

import asyncio
import logging

import pytest

from reconciler.meta import Request
from reconciler.notification import RetryableDeliveryError
from reconciler.notification.channels.limits import LimitedChannel
from reconciler.notification.policies import ChannelPolicySpec, PolicyTable
from reconciler.notification.routing_config import ReceiverConfig
from tests.notification.world import Recorder, World, virtual, world

KEY = Request("disk-full", "default")
BUSY = RetryableDeliveryError("503 from the receiver")


async def events(w: World) -> list[str]:
    found = await w.client.list("v1/Event", "default")
    return [f"{each['type']} {each['reason']}: {each['message']}" for each in found]


@pytest.fixture(autouse=True)
def _info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "reconciler.notification")


@virtual
async def test_each_failed_attempt_is_logged_and_the_recovery(caplog: pytest.LogCaptureFixture) -> None:
    pager = Recorder("pager", [BUSY, BUSY, None])
    async with world() as w, w.operator(pager):
        await w.create("pager")
        await asyncio.sleep(500)
    first, second, recovery = [each.getMessage() for each in caplog.records if "receiver pager" in each.getMessage()]
    assert first == (
        "receiver pager: attempt 1 of default/disk-full failed: 503 from the receiver; "
        "next attempt at 2026-01-01T00:00:30Z"
    )
    assert second.startswith("receiver pager: attempt 2 of default/disk-full failed: 503 from the receiver; next ")
    assert recovery == "receiver pager delivers again, after 2 failed attempts in 90 s"


@virtual
async def test_the_last_attempt_says_that_none_follows(caplog: pytest.LogCaptureFixture) -> None:
    async with world() as w, w.operator(Recorder("pager", [BUSY])):
        await w.create("pager", maxAttempts=1)
        await asyncio.sleep(10)
    assert "attempt 1 of default/disk-full failed: 503 from the receiver; not retried" in caplog.text


@virtual
async def test_a_thousand_failures_of_one_receiver_are_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    async with world() as w, w.operator(Recorder("pager", [BUSY]), workers=10):
        for number in range(300):
            await w.create("pager", name=f"n-{number}", maxAttempts=2)
        await asyncio.sleep(200)
    lines = [each.getMessage() for each in caplog.records if "receiver pager" in each.getMessage()]
    assert 2 <= len(lines) <= 6
    assert any("other attempts since the last line" in line for line in lines)


@virtual
async def test_an_open_breaker_is_named() -> None:
    channel = LimitedChannel(Recorder("pager", [BUSY]), ReceiverConfig(breaker_failures=1, breaker_open_seconds=3000))
    async with world() as w, w.operator(channel) as (controller, _):
        await w.create("pager", name="first")
        await asyncio.sleep(5)
        await w.create("pager")
        await asyncio.sleep(5)
        assert controller.explain(KEY).waits_for.endswith(
            "; pager: circuit breaker open: too many consecutive failures"
        )
        assert "Warning DeliveryDeferred: pager: circuit breaker open: too many consecutive failures" in await events(w)


@virtual
async def test_a_quota_is_named_by_its_policy() -> None:
    policies = PolicyTable()
    policies.set("modest", ChannelPolicySpec.model_validate({"namespaces": ["default"], "ratePerMinute": 0.5}))
    async with world() as w, w.operator(Recorder("pager"), policies=policies) as (controller, _):
        await w.create("pager", name="first")
        await asyncio.sleep(5)
        await w.create("pager")
        await asyncio.sleep(5)
        quota = "policy 'modest' allows namespace default 0.5 deliveries a minute"
        assert f"; a slot of pager: {quota}; the next in " in controller.explain(KEY).waits_for
        assert f"Normal WaitsForQuota: {quota}" in await events(w)
