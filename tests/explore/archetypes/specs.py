"""Bugs that only another way to the same spec shows: `explore.states` walks it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from reconciler import Outcome, StatusBatcher
from tests.explore.archetypes.stores import Store, StoreReconciler, StoreStatus, named


class SidecarStays(StoreReconciler):
    """Creates the sidecar, and never deletes it: back at the old spec, it is still there."""

    async def reconcile_object(self, store: Store, status: StatusBatcher[StoreStatus]) -> Outcome:
        if store.spec.sidecar:
            await self.put(store, "sidecar")
        else:
            await self.without_sidecar(store)
        return None

    async def without_sidecar(self, store: Store) -> None:
        """Do nothing."""


class MendedSidecarStays(SidecarStays):
    async def without_sidecar(self, store: Store) -> None:
        await self.remove(store, "sidecar")


class KeysStay(StoreReconciler):
    """Patches the keys that it wants, and never removes one that it does not want any more."""

    async def reconcile_object(self, store: Store, status: StatusBatcher[StoreStatus]) -> Outcome:
        await self.put(store)
        keys: dict[str, Any] = {f"replica-{number}": "yes" for number in range(min(store.spec.replicas, 3))}
        patch = {"data": self.unwanted() | keys}
        await self.client.patch("v1/ConfigMap", store.name, store.namespace, patch=patch)
        return None

    def unwanted(self) -> dict[str, Any]:
        return {}


class MendedKeysStay(KeysStay):
    def unwanted(self) -> dict[str, Any]:
        return {f"replica-{number}": None for number in range(3)}


class OnlyGrows(StoreReconciler):
    """Ignores a smaller size in silence: the same spec ends differently, depending on the way to it."""

    async def reconcile_object(self, store: Store, status: StatusBatcher[StoreStatus]) -> Outcome:
        await self.put(store, size=str(max(store.spec.size, self.lower_bound(store))))
        status.set(observed=max(store.spec.size, self.lower_bound(store)))
        return None

    def lower_bound(self, store: Store) -> int:
        return store.status.observed


class MendedOnlyGrows(OnlyGrows):
    def lower_bound(self, store: Store) -> int:
        return store.spec.size


class NameFromTheSpec(StoreReconciler):
    """Names its object after a field: when the field changes, the old object is left behind."""

    async def reconcile_object(self, store: Store, status: StatusBatcher[StoreStatus]) -> Outcome:
        await self.client.apply(named(store, self.suffix(store)) | {"data": {"bucket": store.spec.bucket}}, owner=store)
        return None

    def suffix(self, store: Store) -> str:
        return store.spec.bucket.encode().hex()[:12] or "none"


class MendedNameFromTheSpec(NameFromTheSpec):
    def suffix(self, store: Store) -> str:
        return "bucket"


@dataclass(frozen=True)
class StateArchetype:
    """An operator with a bug that the state space of its kind shows, and its mended form."""

    broken: Any
    mended: Any
    found_by: set[str]


STATE_ARCHETYPES = [
    StateArchetype(SidecarStays, MendedSidecarStays, {"back-again", "same-end"}),
    StateArchetype(KeysStay, MendedKeysStay, {"back-again", "same-end"}),
    StateArchetype(OnlyGrows, MendedOnlyGrows, {"back-again", "same-end"}),
    StateArchetype(NameFromTheSpec, MendedNameFromTheSpec, {"back-again", "same-end"}),
]
