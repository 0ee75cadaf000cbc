"""Discovery: how kinds are served."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from reconciler import Model, Resource
from reconciler.client import Client, Retries
from reconciler.errors import NotServed, ServerUnavailable
from reconciler.meta import GroupVersionKind

pytestmark = pytest.mark.virtual_time


class Thing(Resource[Model], group="things.io", version="v1", plural="thingies"):
    pass


@pytest.fixture
def client(script: Any) -> Client:
    return Client(script, retries=Retries(attempts=1))


async def test_a_class_needs_no_discovery(script: Any, client: Client) -> None:
    assert await client.resource_type(Thing) is Thing.resource_type
    assert script.discovered == []


async def test_a_group_and_version_is_discovered_once(script: Any, client: Client) -> None:
    deployment = await client.resource_type("apps/v1/Deployment")
    assert deployment.gvk == GroupVersionKind("apps", "v1", "Deployment")
    assert (deployment.plural, deployment.namespaced) == ("deployments", True)
    assert deployment.subresources == {"status", "scale"}
    assert await client.resource_type("apps/v1/Deployment") is deployment
    node = await client.resource_type("v1/Node")
    assert (node.plural, node.namespaced, node.subresources) == ("nodes", False, frozenset())
    assert (await client.resource_type("v1/Pod")).subresources == {"eviction"}
    assert script.discovered == ["/apis/apps/v1", "/api/v1"]


async def test_concurrent_lookups_cause_one_request(script: Any, client: Client) -> None:
    await asyncio.gather(*(client.resource_type("v1/Node") for _ in range(20)))
    assert script.discovered == ["/api/v1"]


async def test_a_kind_installed_at_run_time_is_found(script: Any, client: Client) -> None:
    for kind in ("things.io/v1/Gadget", "apps/v1/Gadget"):
        with pytest.raises(NotServed):
            await client.resource_type(kind)
    script.apis["/apis/things.io/v1"] = [("gadgets", "Gadget", False)]
    script.apis["/apis/apps/v1"].append(("gadgets", "Gadget", False))
    assert (await client.resource_type("things.io/v1/Gadget")).plural == "gadgets"
    assert (await client.resource_type("apps/v1/Gadget")).plural == "gadgets"


async def test_lookups_of_unknown_kinds_are_limited_to_one_per_second(script: Any, client: Client) -> None:
    async def miss() -> None:
        with pytest.raises(NotServed):
            await client.resource_type("v1/Nope")

    began = asyncio.get_running_loop().time()
    for _ in range(10):
        await miss()
    assert asyncio.get_running_loop().time() == began
    for _ in range(60):
        await miss()
    assert asyncio.get_running_loop().time() - began == pytest.approx(60, abs=0.1)
    assert len(script.discovered) == 70


async def test_a_missing_kind_is_never_answered_from_memory(script: Any, client: Client) -> None:
    for _ in range(50):
        with pytest.raises(NotServed):
            await client.resource_type("example.com/v1/Late")
    script.apis["/apis/example.com/v1"].append(("lates", "Late", True))
    assert (await client.resource_type("example.com/v1/Late")).plural == "lates"


async def test_unknown_kinds_of_one_group_delay_no_other_group(script: Any, client: Client) -> None:
    for _ in range(30):
        with pytest.raises(NotServed):
            await client.resource_type("v1/Nope")
    began = asyncio.get_running_loop().time()
    await client.resource_type("v1/Node")
    with pytest.raises(NotServed):
        await client.resource_type("apps/v1/Nope")
    assert asyncio.get_running_loop().time() == began


async def test_concurrent_lookups_of_an_unknown_kind_cause_one_request(script: Any, client: Client) -> None:
    missed = await asyncio.gather(*(client.resource_type("v1/Nope") for _ in range(20)), return_exceptions=True)
    assert [type(error) for error in missed] == [NotServed] * 20
    assert len(script.discovered) == 1


async def test_the_first_lookup_in_each_group_is_not_delayed(script: Any, client: Client) -> None:
    for number in range(30):
        script.apis[f"/apis/g{number}.io/v1"] = [("gadgets", "Gadget", False)]
    began = asyncio.get_running_loop().time()
    for number in range(30):
        await client.resource_type(f"g{number}.io/v1/Gadget")
    assert asyncio.get_running_loop().time() == began
    assert len(script.discovered) == 30


async def test_one_failing_group_breaks_nothing_else(script: Any, client: Client) -> None:
    script.broken.add("/apis/metrics.k8s.io/v1")
    with pytest.raises(ServerUnavailable, match=r"GET /apis/metrics\.k8s\.io/v1"):
        await client.resource_type("metrics.k8s.io/v1/PodMetrics")
    assert (await client.resource_type("v1/Node")).plural == "nodes"
    script.broken.clear()
    script.apis["/apis/metrics.k8s.io/v1"] = [("pods", "PodMetrics", True)]
    assert (await client.resource_type("metrics.k8s.io/v1/PodMetrics")).plural == "pods"


async def test_a_path_that_is_no_longer_served_is_discovered_again(script: Any, client: Client) -> None:
    script.answers({"kind": "Node"})
    await client.get("v1/Node", "n")
    script.apis["/api/v1"] = [("nodez", "Node", False)]
    script.says(b"404 page not found", 404).answers({"kind": "Node"})
    with pytest.raises(NotServed):
        await client.get("v1/Node", "n")
    await client.get("v1/Node", "n")
    assert script.last.path == "/api/v1/nodez/n"


async def test_the_error_suggests_the_kind_that_was_meant(client: Client) -> None:
    with pytest.raises(NotServed, match="apps/v1/Deploymnet is not served: apps/v1 has no such kind, but Deployment"):
        await client.resource_type("apps/v1/Deploymnet")
    with pytest.raises(
        NotServed, match=r"the server does not serve nope.io/v2; is the CustomResourceDefinition installed\?"
    ):
        await client.resource_type("nope.io/v2/Thing")
    with pytest.raises(ValueError, match="is not a valid kind"):
        await client.resource_type("Deployment")
    with pytest.raises(TypeError, match="is not a valid kind"):
        await client.resource_type(Resource)
