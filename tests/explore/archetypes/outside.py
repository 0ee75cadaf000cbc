"""Bugs around finalizers, owners, and what lives outside the cluster."""

from __future__ import annotations

from reconciler import Outcome, Permission, Reconciler, Request, StatusBatcher, effect
from reconciler.errors import Conflict, NotFound
from reconciler.meta.metadata import controller_of
from reconciler.testing.explore import World
from tests.explore.archetypes.stores import (
    ACTO,
    ANVIL,
    SIEVE,
    Archetype,
    Store,
    StoreReconciler,
    StoreStatus,
    creation,
    life,
    named,
    resize,
    store,
)

FINALIZER = "example.com/account"


class _Accounts(Reconciler):
    """Has an account outside the cluster for each store, and handles the finalizer itself."""

    async def reconcile(self, request: Request) -> Outcome:
        try:
            found = await self.client.get(Store, request.name, request.namespace)
        except NotFound:
            return None
        if not found.metadata.deletion_timestamp:
            await self.live(found)
        elif FINALIZER in found.metadata.finalizers:
            await self.die(found)
        return None

    async def live(self, store: Store) -> None:
        await self.set_finalizers(store, FINALIZER)
        await self.register(store.uid)

    async def die(self, store: Store) -> None:
        await self.unregister(store.uid)
        await self.set_finalizers(store)

    async def set_finalizers(self, store: Store, *finalizers: str) -> None:
        if list(finalizers) != list(store.metadata.finalizers):
            metadata = {"finalizers": list(finalizers), "resourceVersion": store.metadata.resource_version}
            await self.client.patch(Store, store.name, store.namespace, patch={"metadata": metadata})

    @effect
    async def register(self, uid: str) -> None:
        """Open the account."""

    @effect(undoes="register")
    async def unregister(self, uid: str) -> None:
        """Close the account."""


class FinalizerRemovedFirst(_Accounts):
    """Removes the finalizer, and then closes the account: after a crash in between, nobody knows of it."""

    async def die(self, store: Store) -> None:
        await self.set_finalizers(store)
        await self.unregister(store.uid)


class FinalizerAddedLate(_Accounts):
    """Opens the account, and then adds the finalizer: if the store is deleted while the operator is down, it stays."""

    async def live(self, store: Store) -> None:
        await self.register(store.uid)
        await self.set_finalizers(store, FINALIZER)


class MendedAccounts(_Accounts):
    """The finalizer is there before the account, and goes after it."""


class OwnerForgotten(StoreReconciler):
    """Creates an object without an owner reference: nothing deletes it."""

    async def reconcile_object(self, store: Store, status: StatusBatcher[StoreStatus]) -> Outcome:
        await self.client.apply(named(store, "data"), owner=self.owner_of(store))
        return None

    def owner_of(self, store: Store) -> Store | None:
        return None


class MendedOwnerForgotten(OwnerForgotten):
    def owner_of(self, store: Store) -> Store | None:
        return store


class BucketTakenOver(StoreReconciler):
    """Writes to an object of a given name, even if another store owns it: two stores take it from each other."""

    async def reconcile_object(self, store: Store, status: StatusBatcher[StoreStatus]) -> Outcome:
        bucket = named(store) | {"data": {"used-by": store.name}}
        bucket["metadata"]["name"] = self.bucket_of(store)
        await self.client.apply(bucket, owner=store, force=True)
        return None

    def bucket_of(self, store: Store) -> str:
        return store.spec.bucket


class MendedBucketTakenOver(BucketTakenOver):
    def bucket_of(self, store: Store) -> str:
        return f"{store.name}-{store.spec.bucket}"


async def two_stores(world: World) -> None:
    """Create two stores that name the same bucket."""
    for name in ("ida", "eve"):
        await world.create(store(name))
        await world.settle()


class PermissionForgotten(StoreReconciler):
    """Declares what it needs to create an object, and not what it needs to change it."""

    permissions = [Permission("v1/ConfigMap", "create", "get")]

    async def reconcile_object(self, store: Store, status: StatusBatcher[StoreStatus]) -> Outcome:
        await self.put(store, size=str(store.spec.size))
        return None


class MendedPermissionForgotten(PermissionForgotten):
    permissions = [Permission("v1/ConfigMap", "create", "get", "patch")]


class DeletedByName(StoreReconciler):
    """Deletes by name what it has read: another object of this name may have taken the place of that."""

    async def reconcile_object(self, store: Store, status: StatusBatcher[StoreStatus]) -> Outcome:
        if store.spec.sidecar:
            await self.put(store, "sidecar")
        else:
            await self.remove_sidecar(store)
        return None

    async def remove_sidecar(self, store: Store) -> None:
        try:
            found = await self.client.get("v1/ConfigMap", f"{store.name}-sidecar", store.namespace)
            owner = controller_of(found)
            if owner is not None and owner["uid"] == store.uid:
                await self.client.delete("v1/ConfigMap", found.name, found.namespace, uid=self.condition(found.uid))
        except (NotFound, Conflict):
            return

    def condition(self, uid: str) -> str | None:
        return None


class MendedDeletedByName(DeletedByName):
    def condition(self, uid: str) -> str | None:
        return uid


async def without_sidecar(world: World) -> None:
    """Create a store with a sidecar, and take the sidecar away."""
    made = await world.create(store(sidecar=True))
    await world.settle()
    await world.patch(made, {"spec": {"sidecar": False}})


class ErrorSwallowed(StoreReconciler):
    """Logs an error and goes on: nobody tries again."""

    async def reconcile_object(self, store: Store, status: StatusBatcher[StoreStatus]) -> Outcome:
        try:
            await self.put(store, size=str(store.spec.size))
        except Exception as error:  # noqa: BLE001 - this is the bug
            self.failed(error)
        return None

    def failed(self, error: Exception) -> None:
        """Log."""


class MendedErrorSwallowed(ErrorSwallowed):
    def failed(self, error: Exception) -> None:
        raise error


class ConflictSwallowed(StoreReconciler):
    """Takes a conflict for somebody else's success: its own change is lost, and no event of the object repeats it."""

    async def reconcile_object(self, store: Store, status: StatusBatcher[StoreStatus]) -> Outcome:
        try:
            found = await self.client.live.get("v1/ConfigMap", store.name, store.namespace)
        except NotFound:
            await self.put(store, size=str(store.spec.size))
            return None
        found["data"] = {"size": str(store.spec.size)}
        try:
            await self.client.update(found)
        except Conflict as conflict:
            self.conflicted(conflict)
        return None

    def conflicted(self, conflict: Conflict) -> None:
        """Go on."""


class MendedConflictSwallowed(ConflictSwallowed):
    def conflicted(self, conflict: Conflict) -> None:
        raise conflict


ARCHETYPES = [
    Archetype(FinalizerRemovedFirst, MendedAccounts, "effects", owns=(), resource=Store),
    Archetype(FinalizerAddedLate, MendedAccounts, "effects", ANVIL, owns=(), resource=Store),
    Archetype(OwnerForgotten, MendedOwnerForgotten, "left-behind", ACTO),
    Archetype(BucketTakenOver, MendedBucketTakenOver, "others", ACTO, two_stores, owns=()),
    Archetype(PermissionForgotten, MendedPermissionForgotten, "permissions", ACTO, life),
    Archetype(DeletedByName, MendedDeletedByName, "others", SIEVE, without_sidecar),
    Archetype(ErrorSwallowed, MendedErrorSwallowed, "final-state", ACTO, creation),
    Archetype(ConflictSwallowed, MendedConflictSwallowed, "final-state", ANVIL, resize, owns=()),
]
