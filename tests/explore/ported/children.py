"""kopf's example of children: for each object a Pod that the object adopts, and its uid in the status."""

from __future__ import annotations

import contextlib
import hashlib
from typing import Any

from reconciler import ConditionedStatus, Model, ObjectMeta, Outcome, Resource, ResourceReconciler, StatusBatcher
from reconciler.controller import Permission
from reconciler.errors import NotFound
from reconciler.meta import set_controller_reference
from reconciler.meta.metadata import controller_of
from reconciler.testing.explore import World

POD = "v1/Pod"


class KopfExampleSpec(Model):
    duration: int = 0
    field: str = "default-value"


class KopfExampleStatus(ConditionedStatus):
    children: list[str] = []


class KopfExample(Resource[KopfExampleSpec, KopfExampleStatus], group="kopf.dev", version="v1"):
    """An object with a Pod."""


class KopfExampleReconciler(ResourceReconciler[KopfExample]):
    """Keeps a Pod as the object describes it.

    The original lets the API server name the Pod, and forgets changes: a create whose response is lost makes a second
    Pod, and the Pod depends on the moment of its creation. Here the name is that of its content.
    """

    permissions = (Permission(POD, "get", "list", "watch", "create", "delete"),)

    async def reconcile_object(self, obj: KopfExample, status: StatusBatcher[KopfExampleStatus]) -> Outcome:
        pods = {each.name: each for each in await self.client.live.list(POD, obj.namespace) if is_child(each, obj)}
        pod = pod_for(obj)
        wanted = pods.pop(pod["metadata"]["name"], None) or await self.client.create(pod)
        for other in pods.values():
            with contextlib.suppress(NotFound):
                await self.client.delete(other)
        status.set(children=[wanted.uid])
        return None


def is_child(pod: Any, obj: KopfExample) -> bool:
    return (controller_of(pod) or {}).get("uid") == obj.uid


def pod_for(obj: KopfExample) -> dict[str, Any]:
    container = {
        "name": "the-only-one",
        "image": "busybox",
        "command": ["sh", "-x", "-c"],
        "args": [f'echo "FIELD=$FIELD"\nsleep {obj.spec.duration}\n'],
        "env": [{"name": "FIELD", "value": obj.spec.field}],
    }
    digest = hashlib.sha256(f"{obj.spec.duration} {obj.spec.field}".encode()).hexdigest()[:8]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"{obj.name}-{digest}", "namespace": obj.namespace},
        "spec": {"containers": [container]},
    }
    set_controller_reference(pod, obj)
    return pod


async def life(world: World) -> None:
    """Create an object, change it, and delete it."""
    made = await world.create(
        KopfExample(metadata=ObjectMeta(name="child", namespace="default"), spec=KopfExampleSpec())
    )
    await world.settle()
    await world.patch(made, {"spec": {"duration": 5}})
    await world.settle()
    await world.delete(made)
