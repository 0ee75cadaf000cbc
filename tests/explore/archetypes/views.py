"""Bugs of operators that trust what they see: late events, earlier states, steps that nobody showed them, memory."""

from __future__ import annotations

import contextlib
import hashlib
import json

from reconciler import Outcome, Result, StatusBatcher
from reconciler.clock import current_clock
from reconciler.errors import NotFound
from reconciler.objects.kinds import to_document
from reconciler.testing.explore import World
from tests.explore.archetypes.stores import (
    ACTO,
    ANVIL,
    SIEVE,
    Archetype,
    Store,
    StoreReconciler,
    StoreStatus,
    at_version_0,
    named,
    rebirth,
    resize,
    scaling,
    store,
)


class VolumeDeletedInThePast(StoreReconciler):
    """Deletes the volume of a store that is being deleted, and reads stores at version 0.

    After a restart it may read the store's earlier incarnation, which was being deleted, and delete the new volume.
    """

    async def reconcile_object(self, store: Store, status: StatusBatcher[StoreStatus]) -> Outcome:
        seen = (await at_version_0(self.client.live, Store, store.namespace)).get(store.name)
        if seen is not None and self.is_dying(seen, store):
            await self.remove(store, "volume")
        else:
            await self.put(store, "volume")
        return None

    def is_dying(self, seen: Store, store: Store) -> bool:
        return bool(seen.metadata.deletion_timestamp)

    async def finalize(self, store: Store, status: StatusBatcher[StoreStatus]) -> Outcome:
        """Say goodbye; the garbage collector deletes the volume."""


class MendedVolumeDeletedInThePast(VolumeDeletedInThePast):
    def is_dying(self, seen: Store, store: Store) -> bool:
        return seen.uid == store.uid and bool(seen.metadata.deletion_timestamp)


class StepNotObserved(StoreReconciler):
    """Remembers how many replicas it saw last, and deletes the volume of the last one: it must see every step."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, int] = {}

    async def reconcile_object(self, store: Store, status: StatusBatcher[StoreStatus]) -> Outcome:
        wanted = store.spec.replicas
        for number in range(wanted):
            await self.put(store, str(number))
        for number in self.superfluous(store):
            await self.remove(store, str(number))
        self.seen[store.uid] = wanted
        return None

    def superfluous(self, store: Store) -> list[int]:
        before = self.seen.get(store.uid, 0)
        return [before - 1] if before > store.spec.replicas else []


class MendedStepNotObserved(StepNotObserved):
    def superfluous(self, store: Store) -> list[int]:
        return list(range(store.spec.replicas, 10))


class StatusAsMemory(StoreReconciler):
    """Believes its status, and does not look: what somebody has deleted does not come back."""

    async def reconcile_object(self, store: Store, status: StatusBatcher[StoreStatus]) -> Outcome:
        if self.is_needed(store):
            await self.put(store, size=str(store.spec.size))
            status.set(phase="Created", observed=store.spec.size)
        return None

    def is_needed(self, store: Store) -> bool:
        return store.status.phase != "Created" or store.status.observed != store.spec.size


class MendedStatusAsMemory(StatusAsMemory):
    def is_needed(self, store: Store) -> bool:
        return True


class EdgeTriggered(StoreReconciler):
    """Does nothing if the spec is the one that it saw last, although the world may have changed."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, int] = {}

    async def reconcile_object(self, store: Store, status: StatusBatcher[StoreStatus]) -> Outcome:
        if not self.is_new(store):
            return None
        await self.put(store, size=str(store.spec.size))
        self.seen[store.uid] = store.metadata.generation
        return None

    def is_new(self, store: Store) -> bool:
        return self.seen.get(store.uid) != store.metadata.generation


class MendedEdgeTriggered(EdgeTriggered):
    def is_new(self, store: Store) -> bool:
        return True


class ReplacedInTheCache(StoreReconciler):
    """Deletes what does not fit, to create it anew: a cache that lags shows what is gone, or does not fit any more."""

    async def reconcile_object(self, store: Store, status: StatusBatcher[StoreStatus]) -> Outcome:
        size = str(store.spec.size)
        try:
            found = await self.client.get("v1/ConfigMap", store.name, store.namespace)
        except NotFound:
            await self.put(store, size=size)
            return None
        if found["data"]["size"] != size:
            await self.replace(store)
        return None

    async def replace(self, store: Store) -> None:
        await self.remove(store)
        await self.put(store, size=str(store.spec.size))


class MendedReplacedInTheCache(ReplacedInTheCache):
    async def replace(self, store: Store) -> None:
        await self.put(store, size=str(store.spec.size))


class StatusInTheHash(StoreReconciler):
    """Hashes the whole store, with its status, to see whether it changed: its own write changes the hash."""

    async def reconcile_object(self, store: Store, status: StatusBatcher[StoreStatus]) -> Outcome:
        digest = hashlib.sha256(json.dumps(self.hashed(store), sort_keys=True).encode()).hexdigest()
        if digest != store.status.digest:
            await self.put(store, size=str(store.spec.size))
            status.set(digest=digest)
        return None

    def hashed(self, store: Store) -> object:
        return to_document(store)


class MendedStatusInTheHash(StatusInTheHash):
    def hashed(self, store: Store) -> object:
        return to_document(store)["spec"]


class TimeOfTheReconcile(StoreReconciler):
    """Writes the time of each reconcile: every reconcile writes, and wakes others."""

    async def reconcile_object(self, store: Store, status: StatusBatcher[StoreStatus]) -> Outcome:
        await self.put(store, **self.stamp())
        return None

    def stamp(self) -> dict[str, str]:
        return {"checked": current_clock().now().isoformat()}


class MendedTimeOfTheReconcile(TimeOfTheReconcile):
    def stamp(self) -> dict[str, str]:
        return {}


class MapperForgotten(StoreReconciler):
    """Needs a secret of the user, and gives up if it is not there yet: nothing tells it of the secret."""

    async def reconcile_object(self, store: Store, status: StatusBatcher[StoreStatus]) -> Outcome:
        try:
            await self.client.live.get("v1/Secret", "license", store.namespace)
        except NotFound:
            return self.when_missing()
        await self.put(store, licensed="yes")
        return None

    def when_missing(self) -> Outcome:
        return None


class MendedMapperForgotten(MapperForgotten):
    def when_missing(self) -> Outcome:
        return Result(requeue_after=10)


async def accident(world: World) -> None:
    """Create a store, and delete what the operator has made for it."""
    made = await world.create(store())
    await world.settle()
    with contextlib.suppress(NotFound):
        await world.delete(named(made))


async def accident_repaired(world: World) -> None:
    """The same, and say that it must come back."""
    world.finally_(lambda: world.objects("v1/ConfigMap") != [])
    await accident(world)


async def license_last(world: World) -> None:
    """Create a store, and then the license that it needs."""
    await world.create(store())
    await world.settle()
    await world.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "license", "namespace": "default"}})


ARCHETYPES = [
    Archetype(VolumeDeletedInThePast, MendedVolumeDeletedInThePast, "final-state", SIEVE, rebirth),
    Archetype(StepNotObserved, MendedStepNotObserved, "final-state", SIEVE, scaling),
    Archetype(StatusAsMemory, MendedStatusAsMemory, "asserted", ANVIL, accident_repaired),
    Archetype(EdgeTriggered, MendedEdgeTriggered, "final-state", SIEVE, accident),
    Archetype(ReplacedInTheCache, MendedReplacedInTheCache, "others", SIEVE, resize),
    Archetype(StatusInTheHash, MendedStatusInTheHash, "stable", ACTO),
    Archetype(TimeOfTheReconcile, MendedTimeOfTheReconcile, "stable", ACTO, resize),
    Archetype(MapperForgotten, MendedMapperForgotten, "stable", SIEVE, license_last),
]
