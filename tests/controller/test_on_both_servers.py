"""The echo rule on the embedded server and on a real kube-apiserver: exactly one reconcile per object.

A real server sends the event of a write before its response in about a quarter of all writes.
"""

from __future__ import annotations

import asyncio

from reconciler.cache import Cache, CachedClient
from reconciler.controller import Controller, ResourceReconciler
from reconciler.meta import Request
from reconciler.objects import ConditionedStatus, Model, ObjectMeta, Resource
from reconciler.testing import Cluster

OBJECTS = 100


class GadgetSpec(Model):
    size: int = 1


class GadgetStatus(ConditionedStatus):
    seen_size: int | None = None
    foreign: str | None = None


class Gadget(Resource[GadgetSpec, GadgetStatus], group="controller.reconciler.dev", version="v1"):
    """A gadget."""


class Gadgets(ResourceReconciler[Gadget]):
    def __init__(self) -> None:
        self.sizes: dict[str, list[int]] = {}

    async def reconcile_object(self, obj, status):
        self.sizes.setdefault(obj.name, []).append(obj.spec.size)
        status.set(seen_size=obj.spec.size)
        status.set_condition("Ready", True, reason="Fine", message=f"size {obj.spec.size}")

    async def finalize(self, obj, status):
        return None


async def until(condition) -> None:
    """Wait for a condition that must become true; the limit only ends a hanging test."""
    async with asyncio.timeout(50):
        while not condition():  # noqa: ASYNC110 - what is awaited has no event to wait for
            await asyncio.sleep(0.01)


async def resize(cluster: Cluster, name: str, size: int) -> None:
    await cluster.client.patch(Gadget, name, cluster.namespace, patch={"spec": {"size": size}})


async def test_each_object_is_reconciled_exactly_once_and_again_for_each_change(cluster: Cluster) -> None:
    await cluster.install(Gadget)
    reconciler = Gadgets()
    names = [f"g{number}" for number in range(OBJECTS)]
    async with Cache(cluster.client, namespaces=[cluster.namespace]) as cache:
        controller = Controller(reconciler, cache=cache, client=CachedClient(cluster.client, cache), workers=8)
        await controller.start()
        for name in names:
            metadata = ObjectMeta(name=name, namespace=cluster.namespace)
            await cluster.client.create(Gadget(metadata=metadata, spec=GadgetSpec()))
        await until(lambda: controller.statistics().reconciles >= OBJECTS and not controller.queue.keys())

        # The events of all those writes come before that of this change, so when it is reconciled, no echo is left.
        await resize(cluster, names[0], 2)
        await until(lambda: reconciler.sizes[names[0]][-1] == 2 and not controller.queue.keys())
        assert {name: sizes for name, sizes in reconciler.sizes.items() if name != names[0] and sizes != [1]} == {}
        assert reconciler.sizes[names[0]] == [1, 2]
        assert controller.statistics().reconciles == OBJECTS + 1
        assert cluster.writes(name=names[5]) == [200]
        assert cluster.writes(name=names[5], subresource="") == [200]

        for name in names:
            await cluster.client.delete(Gadget, name, cluster.namespace)
        await until(lambda: controller.statistics().echo.known == 0 and not controller.queue.keys())
        assert len(await cluster.client.list(Gadget, cluster.namespace)) == 0
        await controller.stop()


async def test_foreign_changes_at_any_moment_are_reconciled(cluster: Cluster) -> None:
    await cluster.install(Gadget)
    reconciler = Gadgets()
    key = Request("g", cluster.namespace)
    async with Cache(cluster.client, namespaces=[cluster.namespace]) as cache:
        controller = Controller(reconciler, cache=cache, client=CachedClient(cluster.client, cache), workers=2)
        await controller.start()
        await cluster.client.create(Gadget(metadata=ObjectMeta(name="g", namespace=key.namespace), spec=GadgetSpec()))
        for size in range(2, 40):
            await resize(cluster, "g", size)
            patch = {"status": {"foreign": str(size)}}
            await cluster.client.patch(Gadget, *key, patch=patch, subresource="status")
        await until(lambda: reconciler.sizes.get("g", [0])[-1] == 39 and not controller.queue.keys())
        stored = await cluster.client.get(Gadget, *key)
        assert (stored.status.seen_size, stored.status.foreign) == (39, "39")
        assert stored.status.observed_generation == stored.generation
        await controller.stop()


async def test_a_change_is_told_with_its_fields_and_writers(cluster: Cluster) -> None:
    await cluster.install(Gadget)
    reconciler, key = Gadgets(), Request("g", cluster.namespace)
    metadata = ObjectMeta(name="g", namespace=cluster.namespace)
    await cluster.client.create(Gadget(metadata=metadata, spec=GadgetSpec(size=1)))
    async with Cache(cluster.client, namespaces=[cluster.namespace]) as cache:
        controller = Controller(reconciler, cache=cache, client=CachedClient(cluster.client, cache))
        await controller.start()
        await until(lambda: reconciler.sizes.get("g") == [1] and controller.explain(key).state == "idle")
        change = {"apiVersion": "controller.reconciler.dev/v1", "kind": "Gadget", "spec": {"size": 2}}
        change["metadata"] = {"name": "g", "namespace": cluster.namespace, "labels": {"a/b": "c"}}
        await cluster.client.apply(change, field_manager="kubectl-apply", force=True)
        await until(lambda: reconciler.sizes["g"] == [1, 2] and controller.explain(key).state == "idle")
        (told,) = controller.explain(key).runs[-1].changes
        assert [(field.path, field.before, field.after, field.managers) for field in told.fields()[0]] == [
            ("spec.size", "1", "2", ("kubectl-apply",)),
            ("metadata.labels[a/b]", None, '"c"', ("kubectl-apply",)),
        ]
        patch = {"status": {"foreign": "other"}}
        await cluster.client.patch(
            Gadget, "g", cluster.namespace, patch=patch, subresource="status", field_manager="other"
        )
        await until(lambda: len(reconciler.sizes["g"]) == 3 and controller.explain(key).state == "idle")
        (told,) = controller.explain(key).runs[-1].changes
        assert [(field.path, field.managers) for field in told.fields()[0]] == [("status.foreign", ("other",))]
        await controller.stop(grace=1)
