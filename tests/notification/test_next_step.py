"""The next step in `kubectl get notif`, and dry runs."""

from __future__ import annotations

import asyncio

from reconciler.meta.documents import parse_time
from reconciler.notification.api import ChannelPolicySpec
from reconciler.notification.channel import ChannelRegistry
from reconciler.notification.policies import PolicyTable
from reconciler.notification.router import RoutingTable
from tests.notification.world import DOWN, Recorder, virtual, world

# The next step


@virtual
async def test_the_status_says_the_next_step_and_its_time() -> None:
    pager, file = Recorder("pager", [DOWN, DOWN, None]), Recorder("file", [DOWN, None])
    async with world() as w, w.operator(pager, file):
        await w.create("pager", "file", spec={"ttlSecondsAfterFinished": 3600})
        await asyncio.sleep(1)
        status = await w.status()
        assert status["nextStep"] == "attempt 2 on pager and 1 more"
        assert (parse_time(status["nextStepTime"]) - parse_time(status["queuedAt"])).total_seconds() == 30
        await asyncio.sleep(30)
        assert (await w.status())["nextStep"] == "attempt 3 on pager"
        await asyncio.sleep(100)
        status = await w.status()
        assert (status["phase"], status["nextStep"]) == ("Sent", "deletion")
        assert (parse_time(status["nextStepTime"]) - parse_time(status["completionTime"])).total_seconds() == 3600


@virtual
async def test_a_request_that_has_ended_and_is_kept_has_no_next_step() -> None:
    async with world() as w, w.operator(Recorder("pager", [DOWN, None])):
        await w.create("pager")
        await asyncio.sleep(100)
        status = await w.status()
    assert status["nextStep"] == "none"
    assert "nextStepTime" not in status


# Dry run


@virtual
async def test_a_dry_run_says_who_would_get_what_and_delivers_nothing() -> None:
    pager = Recorder("pager")
    spec = {"dryRun": True, "recipients": {"pager": ["ann", "bob"]}}
    async with world() as w, w.operator(pager):
        await w.create("pager", "nowhere", spec=spec)
        await asyncio.sleep(10)
        status = await w.status()
    assert (status["phase"], status["reason"]) == ("DryRun", "DryRun")
    assert status["message"] == "Dry run: would deliver over pager to ann, bob; unknown channels: nowhere"
    assert pager.calls == []


@virtual
async def test_a_dry_run_is_routed_and_checked_like_any_other_request() -> None:
    pager = Recorder("pager")
    registry = ChannelRegistry([pager])
    table = RoutingTable(registry)
    table.load("route: {receiver: x}\nreceivers: [{name: x, channels: [pager]}]")
    policies = PolicyTable()
    policies.set("low", ChannelPolicySpec(priorities=["Low"]))
    async with world() as w, w.operator(registry=registry, router=table, policies=policies):
        await w.create(name="refused", spec={"dryRun": True})
        await w.create(name="fine", spec={"dryRun": True, "priority": "Low"})
        await asyncio.sleep(10)
        assert (await w.status("refused"))["reason"] == "PolicyDenied"
        assert (await w.status("fine"))["message"] == "Dry run: would deliver over pager"
        assert (await w.condition("RoutingResolved", "fine"))["message"] == "receivers x: channels pager"
    assert pager.calls == []
