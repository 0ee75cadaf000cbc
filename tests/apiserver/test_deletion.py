"""Deletion: finalizers, preconditions, owners and namespaces."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from reconciler import Client
from reconciler.apiserver import APIServer
from tests.apiserver.api import CONFIG_MAPS, WIDGETS, Api, definition, widget

pytestmark = pytest.mark.virtual_time

HELD = {"finalizers": ["example.com/held"]}


def owned_by(*owners: dict[str, Any], blocks: bool = False) -> dict[str, Any]:
    return {
        "ownerReferences": [
            {
                "apiVersion": "example.com/v1",
                "kind": "Widget",
                "name": owner["metadata"]["name"],
                "uid": owner["metadata"]["uid"],
                **({"blockOwnerDeletion": True} if blocks else {}),
            }
            for owner in owners
        ]
    }


async def test_a_delete_returns_a_status(api: Api) -> None:
    (made,) = await api.make("a")
    gone = await api.delete(f"{WIDGETS}/a")
    assert gone["status"] == "Success"
    uid = made["metadata"]["uid"]
    assert gone["details"] == {"name": "a", "group": "example.com", "kind": "widgets", "uid": uid}
    assert (await api.delete(f"{WIDGETS}/a")).status == 404


async def test_a_finalizer_holds_a_deleted_object_until_it_is_removed(api: Api) -> None:
    await api.make("a", meta=HELD)
    marked = await api.delete(f"{WIDGETS}/a")
    metadata = marked["metadata"]
    assert metadata["deletionTimestamp"] == "2026-01-01T00:00:00Z"
    assert metadata["deletionGracePeriodSeconds"] == 0
    assert metadata["generation"] == 2
    assert (await api.delete(f"{WIDGETS}/a")).version == marked.version
    freed = await api.patch(f"{WIDGETS}/a", {"metadata": {"finalizers": []}})
    assert (freed.status, freed.version) == (200, marked.version)
    assert "finalizers" not in freed["metadata"]
    assert (await api.get(f"{WIDGETS}/a")).status == 404


async def test_an_object_being_deleted_can_be_changed_but_accepts_no_new_finalizer(api: Api) -> None:
    await api.make("a", meta=HELD)
    await api.delete(f"{WIDGETS}/a")
    changed = await api.patch(f"{WIDGETS}/a", {"spec": {"size": 5}})
    assert changed["metadata"]["generation"] == 3
    refused = await api.patch(f"{WIDGETS}/a", {"metadata": {"finalizers": ["example.com/held", "example.com/new"]}})
    assert refused.status == 422
    assert 'found new finalizers []string{"example.com/new"}' in refused["message"]
    revived = await api.patch(f"{WIDGETS}/a", {"metadata": {"deletionTimestamp": None}})
    assert revived["metadata"]["deletionTimestamp"]


async def test_the_name_of_an_object_being_deleted_is_taken(api: Api) -> None:
    await api.make("a", meta=HELD)
    await api.delete(f"{WIDGETS}/a")
    again = await api.post(WIDGETS, widget("a"))
    assert again["message"] == 'object is being deleted: widgets.example.com "a" already exists'


async def test_config_maps_have_no_generation(api: Api) -> None:
    await api.post(CONFIG_MAPS, {"metadata": {"name": "a", **HELD}})
    marked = await api.delete(f"{CONFIG_MAPS}/a")
    assert "generation" not in marked["metadata"]


@pytest.mark.parametrize(
    ("precondition", "says"),
    [
        ({"uid": "zz"}, "the UID in the precondition (zz) does not match the UID in record"),
        ({"resourceVersion": "1"}, "the ResourceVersion in the precondition (1) does not match the ResourceVersion in"),
    ],
)
async def test_a_failed_precondition(api: Api, precondition: dict[str, str], says: str) -> None:
    (made,) = await api.make("a")
    refused = await api.delete(f"{WIDGETS}/a", {"preconditions": precondition})
    assert (refused.status, refused["reason"]) == (409, "Conflict")
    assert says in refused["message"]
    assert refused["details"]["kind"] == "Widget"
    met = {"uid": made["metadata"]["uid"], "resourceVersion": made.version}
    assert (await api.delete(f"{WIDGETS}/a", {"preconditions": met})).status == 200


async def test_an_unknown_policy_is_refused(api: Api) -> None:
    await api.make("a")
    refused = await api.delete(f"{WIDGETS}/a", propagationPolicy="Sideways")
    assert 'propagationPolicy: Unsupported value: "Sideways"' in refused["message"]
    both = await api.delete(f"{WIDGETS}/a", {"propagationPolicy": "Orphan", "orphanDependents": True})
    assert "cannot be both set" in both["message"]


async def test_background_deletion_deletes_dependents_after_their_owner(api: Api) -> None:
    (owner,) = await api.make("owner")
    await api.make("child", meta=owned_by(owner.body))
    await api.post(CONFIG_MAPS, {"metadata": {"name": "leaf", **owned_by(owner.body)}})
    stream = await api.watch(resourceVersion=owner.version)
    await api.delete(f"{WIDGETS}/owner")
    assert (await api.get(f"{WIDGETS}/child")).status == 404
    assert (await api.get(f"{CONFIG_MAPS}/leaf")).status == 404
    events = [(event["type"], event["object"]["metadata"]["name"]) for event in await stream.take(3)]
    assert events == [("ADDED", "child"), ("DELETED", "owner"), ("DELETED", "child")]


async def test_a_dependent_with_another_owner_loses_only_the_reference(api: Api) -> None:
    one, two = await api.make("one", "two")
    await api.make("child", meta=owned_by(one.body, two.body))
    await api.delete(f"{WIDGETS}/one")
    child = await api.get(f"{WIDGETS}/child")
    assert [owner["name"] for owner in child["metadata"]["ownerReferences"]] == ["two"]
    await api.delete(f"{WIDGETS}/two")
    assert (await api.get(f"{WIDGETS}/child")).status == 404


async def test_foreground_deletion_waits_for_blocking_dependents(api: Api) -> None:
    (owner,) = await api.make("owner")
    await api.make("child", meta={**owned_by(owner.body, blocks=True), **HELD})
    marked = await api.delete(f"{WIDGETS}/owner", propagationPolicy="Foreground")
    assert marked["metadata"]["finalizers"] == ["foregroundDeletion"]
    assert (await api.get(f"{WIDGETS}/child"))["metadata"]["deletionTimestamp"]
    assert (await api.get(f"{WIDGETS}/owner")).status == 200
    await api.patch(f"{WIDGETS}/child", {"metadata": {"finalizers": ["foregroundDeletion"]}})
    await api.patch(f"{WIDGETS}/child", {"metadata": {"finalizers": None}})
    assert (await api.get(f"{WIDGETS}/child")).status == 404
    assert (await api.get(f"{WIDGETS}/owner")).status == 404


async def test_an_orphan_stays_without_the_reference(api: Api) -> None:
    (owner,) = await api.make("owner")
    await api.make("child", meta=owned_by(owner.body))
    await api.delete(f"{WIDGETS}/owner", {"propagationPolicy": "Orphan"})
    assert (await api.get(f"{WIDGETS}/owner")).status == 404
    assert "ownerReferences" not in (await api.get(f"{WIDGETS}/child"))["metadata"]


async def test_a_chain_of_owners_is_deleted_completely(api: Api) -> None:
    (above,) = await api.make("n0")
    for index in range(1, 6):
        (above,) = await api.make(f"n{index}", meta=owned_by(above.body))
    await api.delete(f"{WIDGETS}/n0")
    assert (await api.get(WIDGETS))["items"] == []


async def test_a_collection_is_deleted_by_selector_and_shown_as_it_was(api: Api) -> None:
    await api.make("a", meta={"labels": {"go": "yes"}})
    await api.make("b", meta={"labels": {"go": "yes"}, **HELD})
    await api.make("c")
    gone = await api.delete(WIDGETS, labelSelector="go=yes")
    assert gone.names == ["a", "b"]
    assert all("deletionTimestamp" not in item["metadata"] for item in gone["items"])
    left = await api.get(WIDGETS)
    assert left.names == ["b", "c"]


async def test_watches_keep_up_with_the_deletion_of_a_large_collection() -> None:
    async with APIServer(history=64) as server, Client(server) as client:
        for number in range(1000):
            metadata = {"name": f"c{number}", "namespace": "default"}
            await client.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
        version = (await client.list("v1/ConfigMap", "default")).resource_version

        async def deleted() -> int:
            count = 0
            async for event in client.watch("v1/ConfigMap", "default", resource_version=version, timeout=60):
                count += event.type == "DELETED"
            return count

        watches = [asyncio.create_task(deleted()) for _ in range(3)]
        await asyncio.sleep(1)
        await client.delete_all_of("v1/ConfigMap", "default")
        assert await asyncio.gather(*watches) == [1000, 1000, 1000]


@pytest.mark.virtual_time
async def test_watches_keep_up_with_the_deletion_of_a_large_namespace() -> None:
    async with APIServer(history=256) as server:
        api = Api(server)
        for number in range(2000):
            await api.post("/api/v1/namespaces/large/configmaps", {"metadata": {"name": f"c{number}"}})
        version = server.statistics().resource_version
        watches = [await api.watch("/api/v1/configmaps", resourceVersion=str(version)) for _ in range(20)]
        taking = [asyncio.create_task(watch.take(2000)) for watch in watches]
        await asyncio.sleep(0)
        await api.delete("/api/v1/namespaces/large")
        await api.post(CONFIG_MAPS, {"metadata": {"name": "after"}})
        for events in await asyncio.gather(*taking):
            assert {event["type"] for event in events} == {"DELETED"}
        for number in range(600):
            await api.post(CONFIG_MAPS, {"metadata": {"name": f"after{number}"}})
        assert server.statistics().events_dropped > 2000, "the history is bounded again"


async def test_a_deleted_namespace_deletes_its_objects(api: Api) -> None:
    await api.post("/api/v1/namespaces", {"metadata": {"name": "team"}})
    inside = "/apis/example.com/v1/namespaces/team/widgets"
    await api.post(inside, widget("a"))
    await api.post("/api/v1/namespaces/team/configmaps", {"metadata": {"name": "b"}})
    marked = await api.delete("/api/v1/namespaces/team")
    assert marked["status"]["phase"] == "Terminating"
    assert (await api.get("/api/v1/namespaces/team")).status == 404
    assert (await api.get(inside))["items"] == []


async def test_a_namespace_being_deleted_waits_for_finalizers_and_accepts_no_objects(api: Api) -> None:
    await api.post("/api/v1/namespaces", {"metadata": {"name": "team"}})
    inside = "/apis/example.com/v1/namespaces/team/widgets"
    await api.post(inside, widget("a", meta=HELD))
    await api.delete("/api/v1/namespaces/team")
    refused = await api.post(inside, widget("b"))
    assert (refused.status, refused["details"]["causes"][0]["reason"]) == (403, "NamespaceTerminating")
    assert (await api.get("/api/v1/namespaces/team"))["status"]["phase"] == "Terminating"
    await api.patch(f"{inside}/a", {"metadata": {"finalizers": None}})
    assert (await api.get("/api/v1/namespaces/team")).status == 404


async def test_a_pod_on_a_node_gets_its_grace_period(api: Api) -> None:
    pods = "/api/v1/namespaces/default/pods"
    containers = [{"name": "c", "image": "i"}]
    await api.post(pods, {"metadata": {"name": "idle"}, "spec": {"containers": containers}})
    await api.post(pods, {"metadata": {"name": "busy"}, "spec": {"containers": containers, "nodeName": "n1"}})
    gone = await api.delete(f"{pods}/idle")
    assert gone["metadata"]["deletionGracePeriodSeconds"] == 0
    assert (await api.get(f"{pods}/idle")).status == 404
    marked = await api.delete(f"{pods}/busy")
    assert marked["metadata"]["deletionGracePeriodSeconds"] == 30
    assert marked["metadata"]["deletionTimestamp"] == "2026-01-01T00:00:30Z"
    await api.delete(f"{pods}/busy", {"gracePeriodSeconds": 0})
    assert (await api.get(f"{pods}/busy")).status == 404


async def test_a_deleted_definition_deletes_its_objects_and_ends_their_watches(server: APIServer, api: Api) -> None:
    await api.make("a", "b")
    stream = await api.watch(resourceVersion=(await api.get(WIDGETS)).version)
    await api.delete("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.example.com")
    assert [event["type"] for event in await stream.take(2)] == ["DELETED", "DELETED"]
    assert (await api.get(WIDGETS)).body == "404 page not found\n"
    await server.apply(definition())
    assert (await api.get(WIDGETS))["items"] == []


async def test_a_definition_waits_for_objects_with_finalizers(api: Api) -> None:
    place = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.example.com"
    await api.make("a", meta=HELD)
    await api.delete(place)
    assert (await api.get(place))["metadata"]["deletionTimestamp"]
    await api.patch(f"{WIDGETS}/a", {"metadata": {"finalizers": None}})
    assert (await api.get(place)).status == 404
