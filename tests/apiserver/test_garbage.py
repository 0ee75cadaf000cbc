"""Garbage collection of objects whose owner was absent before them, on the embedded server and on a real cluster."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from reconciler import Client
from reconciler.apiserver import APIServer
from tests.testing.test_controller_manager import built

GONE = "0c1ebc91-91d1-4b0f-a7b6-6a7b0a3f2b7e"
CASES: dict[str, tuple[list[dict[str, Any]], list[str] | None]] = {
    "an absent owner": ([{"name": "gone", "uid": GONE}], None),
    "an owner that was replaced by one of the same name": ([{"name": "owner", "uid": GONE}], None),
    "the uid of an owner under another name": ([{"name": "other"}], None),
    "the uid of an owner under another kind": ([{"kind": "Secret", "name": "owner"}], None),
    "an owner in another namespace": ([{"name": "elsewhere", "uid": "elsewhere"}], None),
    "an absent owner and a present one": ([{"name": "gone", "uid": GONE}, {"name": "owner"}], ["owner"]),
    "a present owner": ([{"name": "owner"}], ["owner"]),
    "no owner": ([], []),
    "an owner of an unknown kind": ([{"apiVersion": "none.example.com/v1", "kind": "None", "name": "a"}], ["a"]),
    "an absent owner of the whole cluster": ([{"kind": "Namespace", "name": "gone", "uid": GONE}], None),
    "an owner of the whole cluster": ([{"kind": "Namespace", "name": "garbage", "uid": "garbage"}], ["garbage"]),
}


def named(name: str, namespace: str = "garbage", **metadata: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace, **metadata}}


async def collected(client: Client, *, late: bool) -> dict[str, list[str] | None]:
    """Return the owners that each object still has, or None if it was deleted; `late` references are added later."""
    uids = {}
    for namespace, name in (("garbage", "owner"), ("garbage-2", "elsewhere")):
        space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
        uids[namespace] = (await client.create(space))["metadata"]["uid"]
        uids[name] = (await client.create(named(name, namespace)))["metadata"]["uid"]
    for number, (owners, _) in enumerate([*CASES.values(), ([{"name": "gone", "uid": GONE}], None)]):
        references = [
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                **owner,
                "uid": uids.get(owner.get("uid", "owner"), owner.get("uid")),
            }
            for owner in owners
        ]
        name, metadata = f"case-{number}", {"ownerReferences": references}
        await client.create(named(name) if late else named(name, **metadata))
        if late:
            await client.patch("v1/ConfigMap", name, "garbage", patch={"metadata": metadata})
    await client.wait_gone("v1/ConfigMap", f"case-{len(CASES)}", "garbage", timeout=60)  # the last one
    await asyncio.sleep(2)
    found = {each["metadata"]["name"]: each["metadata"] for each in await client.list("v1/ConfigMap", "garbage")}
    names = {
        case: [owner["name"] for owner in found[f"case-{number}"].get("ownerReferences") or []]
        if f"case-{number}" in found
        else None
        for number, case in enumerate(CASES)
    }
    for namespace in ("garbage", "garbage-2"):
        await client.delete("v1/Namespace", namespace)
        await client.wait_gone("v1/Namespace", namespace, timeout=60)
    return names


EXPECTED = {case: kept for case, (_, kept) in CASES.items()}


@pytest.mark.virtual_time
@pytest.mark.parametrize("late", [False, True])
async def test_the_embedded_server_collects_dependents_of_absent_owners(late: bool) -> None:
    async with APIServer() as server, Client(server) as client:
        assert await collected(client, late=late) == EXPECTED


@pytest.mark.control_plane
@pytest.mark.timeout(180)
async def test_the_real_one_does_the_same() -> None:
    async with built() as plane, plane.client() as client:
        assert await collected(client, late=False) == EXPECTED
        assert await collected(client, late=True) == EXPECTED


@pytest.mark.virtual_time
async def test_dependents_with_finalizers_are_marked_and_their_own_dependents_follow() -> None:
    async with APIServer() as server, Client(server) as client:
        owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": GONE}
        held = await client.create(named("held", finalizers=["example.com/held"], ownerReferences=[owner]))
        held = await client.get("v1/ConfigMap", "held", "garbage")
        assert held["metadata"]["deletionTimestamp"]
        mine = {**owner, "name": "held", "uid": held["metadata"]["uid"]}
        await client.create(named("child", ownerReferences=[mine]))
        assert await client.get("v1/ConfigMap", "child", "garbage")
        await client.patch("v1/ConfigMap", "held", "garbage", patch={"metadata": {"finalizers": None}})
        assert not list(await client.list("v1/ConfigMap", "garbage"))


@pytest.mark.virtual_time
async def test_a_server_without_garbage_collection_keeps_them() -> None:
    async with APIServer(controllers=()) as server, Client(server) as client:
        owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": GONE}
        await client.create(named("a", ownerReferences=[owner]))
        assert await client.get("v1/ConfigMap", "a", "garbage")


async def deleted_in_a_circle(client: Client) -> list[str]:
    """Return the objects that remain of three that own each other, after the first was deleted in the foreground."""
    await client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "garbage"}})
    uids = {name: (await client.create(named(name)))["metadata"]["uid"] for name in ("a", "b", "c")}
    for name, owner in (("a", "c"), ("b", "a"), ("c", "b")):
        reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": owner, "uid": uids[owner]}
        owners = [{**reference, "controller": True, "blockOwnerDeletion": True}]
        await client.patch("v1/ConfigMap", name, "garbage", patch={"metadata": {"ownerReferences": owners}})
    await client.delete("v1/ConfigMap", "a", "garbage", propagation="Foreground")
    for _ in range(60):
        remaining = [each["metadata"]["name"] for each in await client.list("v1/ConfigMap", "garbage")]
        if not set(remaining) & set(uids):
            return []
        await asyncio.sleep(0.5)
    return remaining


@pytest.mark.virtual_time
async def test_objects_that_own_each_other_are_deleted() -> None:
    async with APIServer() as server, Client(server) as client:
        assert await deleted_in_a_circle(client) == []


@pytest.mark.control_plane
@pytest.mark.timeout(180)
async def test_the_real_one_deletes_them_too() -> None:
    async with built() as plane, plane.client() as client:
        assert await deleted_in_a_circle(client) == []
