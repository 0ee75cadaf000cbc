"""The routing configuration as an object with a status, and the fallback channel."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconciler import Client, Manager
from reconciler.apiserver import APIServer
from reconciler.errors import ConfigurationError
from reconciler.notification import NotificationOperator, NotificationOptions, NotificationRequest
from reconciler.notification.api import RoutingConfigObject
from reconciler.notification.channel import ChannelRegistry
from reconciler.notification.router import RoutingTable
from tests.notification.world import Recorder, document, virtual, world

GOOD = "route: {receiver: x}\nreceivers: [{name: x, channels: [pager]}]\n"
BAD = "route: {receiver: y}\nreceivers:\n  - name: x\n    channels: [nowhere]\n"
SECRET = "route: {receiver: x}\nreceivers: [{name: x, discord_configs: [{url_credential: hook}]}]\n"


def configuration(text: str, name: str = "main") -> dict[str, Any]:
    head = {"apiVersion": "notify.reconciler.dev/v1alpha1", "kind": "RoutingConfig", "metadata": {"name": name}}
    return {**head, "spec": {"config": text}}


@contextlib.asynccontextmanager
async def operator(server: APIServer, *channels: Any, **options: Any) -> AsyncIterator[Client]:
    async with Client(server) as client:
        await server.apply(NotificationRequest, RoutingConfigObject)
        manager = Manager(client)
        settings = NotificationOptions(console=False, log=False, channels=channels, routing_resource="main", **options)
        NotificationOperator(settings).add_to(manager)
        async with manager.running():
            yield client


async def status(client: Client, name: str = "main") -> dict[str, Any]:
    return (await client.get(RoutingConfigObject, name)).to_dict().get("status") or {}


async def change(client: Client, text: str) -> None:
    await client.patch(RoutingConfigObject, "main", patch={"spec": {"config": text}})
    await asyncio.sleep(1)


@virtual
async def test_the_status_says_what_is_in_use_since_when_and_what_is_wrong_with_the_latest() -> None:
    pager = Recorder("pager")
    async with APIServer() as server:
        async with operator(server, pager) as client:
            await client.create(configuration(GOOD))
            await client.create(configuration(BAD, "other"))
            await asyncio.sleep(1)
            first = await status(client)
            assert (first["valid"], first["activeGeneration"], first.get("errors", [])) == (True, 1, [])
            await change(client, BAD)
            second = await status(client)
            assert (second["valid"], second["activeGeneration"]) == (False, 1)
            assert second["inForceSince"] == first["inForceSince"]
            assert [(error["line"], error["place"]) for error in second["errors"]] == [
                (1, "route.receiver"),
                (4, "receivers[0].channels[0]"),
            ]
            (ready,) = second["conditions"]
            assert (ready["status"], ready["reason"]) == ("False", "Invalid")
            assert ready["message"].startswith("line 1: route.receiver: unknown receiver 'y'")
            assert ready["message"].endswith("the previous one is in use")
            await client.create(document([]))
            await asyncio.sleep(10)
            found = await client.get(NotificationRequest, "disk-full", "default")
            assert found.status.phase == "Sent"
            await change(client, GOOD + "# better\n")
            third = await status(client)
            assert (third["valid"], third["activeGeneration"], third["errors"]) == (True, 3, [])
            assert third["inForceSince"] > first["inForceSince"]
            assert "valid" not in await status(client, "other")
        await asyncio.sleep(60)
        async with operator(server, pager) as client:  # a restart
            await asyncio.sleep(1)
            assert (await status(client))["valid"] is True


@virtual
async def test_a_credential_that_is_added_later_makes_the_configuration_valid(tmp_path: Path) -> None:
    async with APIServer() as server, operator(server, credentials=tmp_path) as client:
        await client.create(configuration(SECRET))
        await asyncio.sleep(1)
        found = await status(client)
        assert found["valid"] is False
        assert "credential 'hook' not found" in found["errors"][0]["message"]
        assert found["conditions"][0]["message"].endswith("none is in use")
        (tmp_path / "hook").write_text("https://discord.example/api/webhooks/1/x")
        await asyncio.sleep(61)
        assert (await status(client))["valid"] is True


@virtual
async def test_without_the_object_requests_wait_for_it() -> None:
    pager = Recorder("pager")
    async with APIServer() as server, operator(server, pager) as client:
        await client.create(document([]))
        await asyncio.sleep(60)
        assert pager.calls == []
        await client.create(configuration(GOOD))
        await asyncio.sleep(10)
        assert len(pager.calls) == 1


def test_only_one_source_of_routing_can_be_set() -> None:
    with pytest.raises(ConfigurationError, match="only one of the routing file, the routing ConfigMap and the Routing"):
        NotificationOptions(routing_resource="main", routing_config_map="a/b")


# The fallback channel


def table(text: str) -> tuple[ChannelRegistry, RoutingTable, Recorder]:
    last = Recorder("last")
    registry = ChannelRegistry([last])
    routing = RoutingTable(registry)
    with contextlib.suppress(ConfigurationError):
        routing.load(text)
    return registry, routing, last


@virtual
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("route: {receiver: x}\nreceivers: [{name: x}]", "the receivers x have no channels"),
        ("route: {receiver: nobody}\nreceivers: [{name: x}]", "the routing configuration is invalid: "),
    ],
)
async def test_the_fallback_channel_says_when_and_why_it_was_used(text: str, why: str) -> None:
    registry, routing, last = table(text)
    async with world() as w, w.operator(registry=registry, router=routing, fallback="last"):
        await w.create()
        await asyncio.sleep(10)
        condition = await w.condition("RoutingResolved")
        events = [each.to_dict() for each in await w.client.list("v1/Event", "default")]
        assert (await w.status())["phase"] == "Sent"
    assert (condition["status"], condition["reason"]) == ("True", "RoutingFallback")
    assert condition["message"].startswith(f"fallback channel last: {why}")
    assert condition["lastTransitionTime"]
    assert "RoutingFallback" in {event["reason"] for event in events}
    assert len(last.calls) == 1


@virtual
async def test_the_fallback_channel_is_for_requests_that_name_none() -> None:
    last = Recorder("last")
    async with world() as w, w.operator(last, fallback="last"):
        await w.create(name="routed")
        await w.create("nowhere", name="named")
        await asyncio.sleep(10)
        assert (await w.status("routed"))["phase"] == "Sent"
        assert (await w.condition("RoutingResolved", "routed"))["message"].endswith("the operator has no routing")
        assert (await w.status("named"))["reason"] == "UnknownChannel"
    assert len(last.calls) == 1


def test_a_fallback_channel_must_exist() -> None:
    with pytest.raises(ConfigurationError, match="unknown fallback channel 'pager'; channels: console, log"):
        NotificationOperator(NotificationOptions(fallback_channel="pager"))


async def test_the_example_is_accepted_and_valid(tmp_path: Path) -> None:
    file = Path(__file__).parents[2] / "examples" / "notification" / "routing-config.yaml"
    example = yaml.safe_load(file.read_text())
    (tmp_path / "pagerduty-on-call").write_text("k" * 32)
    async with APIServer() as server, Client(server) as client:
        await server.apply(RoutingConfigObject)
        await client.create(example, field_validation="Strict")
    operator = NotificationOperator(NotificationOptions(credentials=tmp_path, routing_resource="main"))
    assert operator.routing is not None
    assert operator.routing.load(example["spec"]["config"])
    assert operator.routing.resolve({"priority": "Critical"}).channels == ("pagerduty:on-call",)
