"""Bugs that a crash, a cancellation or a lost response between two steps shows."""

from __future__ import annotations

import contextlib
import secrets

from reconciler import Outcome, StatusBatcher, effect
from reconciler.errors import AlreadyExists, NotFound
from reconciler.meta import set_controller_reference
from tests.explore.archetypes.stores import (
    ANVIL,
    Archetype,
    Store,
    StoreReconciler,
    StoreStatus,
    creation,
    named,
    resize,
)


class NameRecordedLate(StoreReconciler):
    """Creates a Secret under a random name, and then records the name: after a crash in between, it creates another."""

    async def reconcile_object(self, store: Store, status: StatusBatcher[StoreStatus]) -> Outcome:
        if not store.status.secret:
            name = self.name_for(store)
            await self.put(store, name, "Secret", user="admin")
            status.set(secret=name)
        return None

    def name_for(self, store: Store) -> str:
        return secrets.token_hex(4)


class MendedNameRecordedLate(NameRecordedLate):
    def name_for(self, store: Store) -> str:
        return store.uid[:8]


class NamePerAttempt(StoreReconciler):
    """Draws a name in each attempt: a create whose response is lost is repeated under another name."""

    async def reconcile_object(self, store: Store, status: StatusBatcher[StoreStatus]) -> Outcome:
        if store.status.phase != "Started":
            job = named(store, self.job_name(store))
            set_controller_reference(job, store)
            with contextlib.suppress(AlreadyExists):
                await self.client.create(job)
            status.set(phase="Started")
        return None

    def job_name(self, store: Store) -> str:
        return f"job-{secrets.token_hex(4)}"


class MendedNamePerAttempt(NamePerAttempt):
    def job_name(self, store: Store) -> str:
        return "job-1"


class PasswordDrawnTwice(StoreReconciler):
    """Draws a password until the status says that there is one: a crash draws another."""

    async def reconcile_object(self, store: Store, status: StatusBatcher[StoreStatus]) -> Outcome:
        if store.status.phase != "Ready":
            await self.put_password(store)
            status.set(phase="Ready")
        return None

    async def put_password(self, store: Store) -> None:
        await self.put(store, "password", "Secret", password=secrets.token_hex(8))


class MendedPasswordDrawnTwice(PasswordDrawnTwice):
    async def put_password(self, store: Store) -> None:
        secret = named(store, "password", "Secret", stringData={"password": secrets.token_hex(8)})
        set_controller_reference(secret, store)
        try:
            await self.client.create(secret)
        except AlreadyExists:
            return


class ResizeForgotten(StoreReconciler):
    """Resizes the volume only in the reconcile that changes the store: a crash in between leaves it small forever."""

    async def reconcile_object(self, store: Store, status: StatusBatcher[StoreStatus]) -> Outcome:
        size = str(store.spec.size)
        found = await self.found_size(store)
        if found != size:
            await self.put(store, "config", size=size)
            await self.put(store, "volume", size=size)
        return None

    async def found_size(self, store: Store) -> str:
        try:
            config = await self.client.get("v1/ConfigMap", f"{store.name}-config", store.namespace)
        except NotFound:
            return ""
        return str(config["data"]["size"])


class MendedResizeForgotten(ResizeForgotten):
    async def found_size(self, store: Store) -> str:
        return "not compared: an apply that changes nothing is cheap"


class GenerationObservedFirst(StoreReconciler):
    """Reports the generation as observed, and then does the work: after a crash, nobody does it."""

    async def reconcile_object(self, store: Store, status: StatusBatcher[StoreStatus]) -> Outcome:
        if store.status.observed != store.metadata.generation:
            await self.report(store)
            await self.put(store, size=str(store.spec.size))
            await self.report(store)
        return None

    async def report(self, store: Store) -> None:
        patch = {"status": {"observed": store.metadata.generation}}
        await self.client.patch(Store, store.name, store.namespace, patch=patch, subresource="status")


class MendedGenerationObservedFirst(GenerationObservedFirst):
    async def reconcile_object(self, store: Store, status: StatusBatcher[StoreStatus]) -> Outcome:
        if store.status.observed != store.metadata.generation:
            await self.put(store, size=str(store.spec.size))
            await self.report(store)
        return None


class ExistsIsAnError(StoreReconciler):
    """Takes its own object, which an interrupted attempt created, for an obstacle: it never becomes ready."""

    async def reconcile_object(self, store: Store, status: StatusBatcher[StoreStatus]) -> Outcome:
        if store.status.phase == "Ready":
            return None
        volume = named(store, "volume")
        set_controller_reference(volume, store)
        try:
            await self.client.create(volume)
        except AlreadyExists:
            status.set(phase=self.phase_of_existing())
            return None
        status.set(phase="Ready")
        return None

    def phase_of_existing(self) -> str:
        return "Failed"


class MendedExistsIsAnError(ExistsIsAnError):
    def phase_of_existing(self) -> str:
        return "Ready"


class ChargedTwice(StoreReconciler):
    """Charges the customer, and then records it: after a crash in between, it charges again."""

    async def reconcile_object(self, store: Store, status: StatusBatcher[StoreStatus]) -> Outcome:
        if store.status.phase != "Paid":
            await self.charge(store)
            status.set(phase="Paid")
        return None

    @effect(once=True)
    async def charge(self, store: Store) -> None:
        """Charge."""


class MendedChargedTwice(ChargedTwice):
    """The payment service takes a key, and charges once for each: the effect may be repeated."""

    @effect
    async def charge(self, store: Store) -> None:
        """Charge, with the store's uid as the key."""


class FinalizerHangs(StoreReconciler):
    """Fails to delete what is gone already: after a crash in between, the finalizer stays forever."""

    async def reconcile_object(self, store: Store, status: StatusBatcher[StoreStatus]) -> Outcome:
        await self.put(store, "data")
        return None

    async def finalize(self, store: Store, status: StatusBatcher[StoreStatus]) -> Outcome:
        try:
            await self.client.live.get("v1/ConfigMap", f"{store.name}-data", store.namespace)
        except NotFound:
            return self.when_gone()
        await self.remove(store, "data")
        return None

    def when_gone(self) -> Outcome:
        raise RuntimeError("the data is not there: somebody must look")


class MendedFinalizerHangs(FinalizerHangs):
    def when_gone(self) -> Outcome:
        return None


ARCHETYPES = [
    Archetype(NameRecordedLate, MendedNameRecordedLate, "counts", owns=("v1/Secret",)),
    Archetype(NamePerAttempt, MendedNamePerAttempt, "counts", ANVIL),
    Archetype(PasswordDrawnTwice, MendedPasswordDrawnTwice, "counts", owns=("v1/Secret",)),
    Archetype(ResizeForgotten, MendedResizeForgotten, "final-state", scenario=resize),
    Archetype(GenerationObservedFirst, MendedGenerationObservedFirst, "final-state", ANVIL, resize),
    Archetype(ExistsIsAnError, MendedExistsIsAnError, "final-state", ANVIL, creation),
    Archetype(ChargedTwice, MendedChargedTwice, "effects", scenario=creation),
    Archetype(FinalizerHangs, MendedFinalizerHangs, "left-behind", ANVIL),
]
