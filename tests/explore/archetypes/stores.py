"""The kind that the operators of this folder reconcile, what users do with it, and the table of the operators."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from reconciler import ConditionedStatus, Model, ObjectMeta, Resource, ResourceReconciler
from reconciler.client import Client
from reconciler.errors import Conflict, NotFound
from reconciler.meta.metadata import controller_of
from reconciler.testing.explore import World

SIEVE, ACTO, ANVIL = "Sieve (OSDI '22)", "Acto (SOSP '23)", "Anvil (OSDI '24)"


class StoreSpec(Model):
    replicas: int = 1
    size: int = 1
    sidecar: bool = False
    bucket: str = "shared"


class StoreStatus(ConditionedStatus):
    secret: str = ""
    phase: str = ""
    observed: int = 0
    replicas: int = 0
    digest: str = ""


class Store(Resource[StoreSpec, StoreStatus], group="example.com", version="v1"):
    """A database, a queue or a cache: what people write operators for."""


def named(store: Store, suffix: str = "", kind: str = "ConfigMap", **fields: Any) -> dict[str, Any]:
    """Return an object for a store, without an owner."""
    name = f"{store.name}-{suffix}" if suffix else store.name
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": store.namespace}, **fields}


class StoreReconciler(ResourceReconciler[Store]):
    """What the operators share."""

    async def put(self, store: Store, suffix: str = "", kind: str = "ConfigMap", **data: str) -> None:
        """Create or change an object that the store owns."""
        field = "stringData" if kind == "Secret" else "data"
        await self.client.apply(named(store, suffix, kind, **{field: data}), owner=store)

    async def remove(self, store: Store, suffix: str = "") -> None:
        """Delete an object if the store owns it, and nobody has put another one in its place."""
        with contextlib.suppress(NotFound, Conflict):
            found = await self.client.live.get(
                "v1/ConfigMap", named(store, suffix)["metadata"]["name"], store.namespace
            )
            owner = controller_of(found)
            if owner is not None and owner["uid"] == store.uid:
                await self.client.delete(found)


async def at_version_0(client: Client, kind: str, namespace: str) -> dict[str, Any]:
    """Return the objects of a kind by name, as the reflectors of client-go list them: from any server, however old."""
    found = {}
    async with contextlib.aclosing(client.watch(kind, namespace, resource_version="0")) as events:
        async for event in events:
            if event.type == "BOOKMARK":
                return found
            found[event.object.name] = event.object
    return found


# what users do


def store(name: str = "ida", **spec: Any) -> Store:
    """Return a new store."""
    return Store(metadata=ObjectMeta(name=name, namespace="default"), spec=StoreSpec(**spec))


async def life(world: World) -> None:
    """Create a store, resize it, and delete it."""
    made = await world.create(store(replicas=2))
    await world.settle()
    await world.patch(made, {"spec": {"size": 5}})
    await world.settle()
    await world.delete(made)


async def creation(world: World) -> None:
    """Create a store."""
    await world.create(store())


async def resize(world: World) -> None:
    """Create a store, and resize it."""
    made = await world.create(store())
    await world.settle()
    await world.patch(made, {"spec": {"size": 5}})


async def scaling(world: World) -> None:
    """Scale a store down in two steps."""
    made = await world.create(store(replicas=3))
    await world.settle()
    await world.patch(made, {"spec": {"replicas": 2}})
    await world.settle()
    await world.patch(made, {"spec": {"replicas": 1}})


async def rebirth(world: World) -> None:
    """Delete a store, and create another one of the same name."""
    made = await world.create(store())
    await world.settle()
    await world.delete(made)
    await world.settle()
    assert not list(await world.client.list(Store, made.namespace))
    await world.create(store())


Scenario = Callable[[World], Awaitable[None]]


@dataclass(frozen=True)
class Archetype:
    """An operator with a bug, and its mended form.

    Attributes:
        broken: the operator with the bug; its docstring says what the bug is.
        mended: the mended form.
        found_by: the name of the oracle that finds it.
        source: who found this kind of bug in real operators.
        scenario: what the user does.
        owns: the kinds that its stores own.
        resource: the kind, if the operator does not state it.
    """

    broken: Any
    mended: Any
    found_by: str
    source: str = SIEVE
    scenario: Scenario = life
    owns: tuple[str, ...] = ("v1/ConfigMap",)
    resource: type[Store] | None = None
