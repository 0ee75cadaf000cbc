"""The parts that the stand-ins share: reads, owned objects, pods and conditions."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import msgspec

from reconciler.clock import Clock
from reconciler.controller import Outcome, Reconciler, Result, Watch
from reconciler.errors import (
    AlreadyExists,
    Conflict,
    Forbidden,
    NotFound,
    ServerError,
    TooManyRequests,
    TransportError,
)
from reconciler.meta import Request, format_time, parse_time
from reconciler.wire import JSONObject

__all__ = [
    "POD",
    "WorkloadReconciler",
    "hash_of",
    "is_active",
    "is_terminating",
    "owned_metadata",
    "pod_of",
    "ready_since",
    "scaled",
    "set_condition",
    "without_zeros",
]

POD = "v1/Pod"
_PASSING = (AlreadyExists, Conflict, Forbidden, ServerError, TooManyRequests, TransportError)
"""What passes: another client was faster, the namespace is being deleted, the server has a fault."""

_LETTERS = "bcdfghjklmnpqrstvwxz2456789"


class WorkloadReconciler(Reconciler):
    """The base of the stand-ins: it reads the object, and tries again when another client was faster.

    Args:
        clock: the source of time.
    """

    kind: ClassVar[str]
    """The kind of the primary objects."""
    owned_kinds: ClassVar[tuple[str, ...]] = (POD,)

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def watches(self) -> Sequence[Watch]:
        """Return the watches on kinds besides the owned ones."""
        return ()

    async def reconcile(self, request: Request, /) -> Outcome:
        """Read the object and call `sync`, unless it is being deleted."""
        try:
            found = await self.client.get(self.kind, request.name, request.namespace)
            doc = found.to_dict()
            return None if is_terminating(doc) else await self.sync(doc)
        except NotFound:
            return None
        except _PASSING:
            return Result(requeue_after=1.0)

    async def sync(self, doc: JSONObject) -> Outcome:
        """Make the cluster match an object."""
        raise NotImplementedError

    def now(self) -> str:
        """Return the current time as Kubernetes writes it."""
        return format_time(self.clock.now())

    def age(self, timestamp: str) -> float:
        """Return the seconds since a time."""
        return (self.clock.now() - parse_time(timestamp)).total_seconds()

    async def owned(self, kind: str, owner: JSONObject) -> list[JSONObject]:
        """Return the objects that an object controls, oldest first; it adopts those that nobody controls."""
        namespace, selector = owner["metadata"]["namespace"], owner["spec"]["selector"]
        found = await self.client.list(kind, namespace, label_selector=_selector_text(selector))
        documents = [
            await self._adopt(each, owner)
            if _controller_uid(each) is None and not is_terminating(each) and self.can_adopt(owner, each)
            else each
            for each in (each.to_dict() for each in found)
        ]
        return sorted(
            (each for each in documents if _controller_uid(each) == owner["metadata"]["uid"]),
            key=lambda each: (each["metadata"]["creationTimestamp"], each["metadata"]["name"]),
        )

    def can_adopt(self, _owner: JSONObject, _candidate: JSONObject, /) -> bool:
        """Return whether an object may control another one that its selector selects and that nobody controls."""
        return True

    async def _adopt(self, doc: JSONObject, owner: JSONObject) -> JSONObject:
        metadata = doc["metadata"]
        # The cache may not know yet that the owner is gone, and that it left this object behind.
        current = await self.client.live.get(self.kind, owner["metadata"]["name"], metadata["namespace"])
        if current.uid != owner["metadata"]["uid"] or is_terminating(current.to_dict()):
            return doc
        owners = [*(metadata.get("ownerReferences") or ()), _reference(owner)]
        return (await self.client.update({**doc, "metadata": {**metadata, "ownerReferences": owners}})).to_dict()

    async def delete(self, objects: Iterable[JSONObject]) -> None:
        """Delete objects that exist still, and are not being deleted already."""
        for each in objects:
            if not is_terminating(each):
                with contextlib.suppress(NotFound):
                    await self.client.delete(each)

    async def write_status(self, doc: JSONObject, status: JSONObject, **annotations: str) -> None:
        """Write the status of an object, and annotations, unless they are as stored."""
        metadata = doc["metadata"]
        wanted = {**(metadata.get("annotations") or {}), **annotations}
        if status == (doc.get("status") or {}) and wanted == (metadata.get("annotations") or {}):
            return
        if annotations:
            metadata = {**metadata, "annotations": wanted}
        await self.client.update({**doc, "metadata": metadata, "status": status}, subresource="status")

    def available(self, pods: Sequence[JSONObject], min_ready_seconds: float) -> tuple[int, float | None]:
        """Return how many pods are available, and the seconds until the next one is."""
        ages = [self.age(since) for since in map(ready_since, pods) if since is not None]
        waits = [min_ready_seconds - age for age in ages if age < min_ready_seconds]
        return len(ages) - len(waits), min(waits, default=None)


def _selector_text(selector: JSONObject) -> str:
    terms = [f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items()]
    for each in selector.get("matchExpressions") or ():
        values = f"({','.join(each.get('values') or ())})"
        words = {"In": f"{each['key']} in {values}", "NotIn": f"{each['key']} notin {values}"}
        terms.append(words.get(each["operator"]) or ("!" if each["operator"] == "DoesNotExist" else "") + each["key"])
    return ",".join(terms)


def _controller_uid(doc: JSONObject) -> str | None:
    owners = doc["metadata"].get("ownerReferences") or ()
    return next((owner["uid"] for owner in owners if owner.get("controller")), None)


def is_terminating(doc: JSONObject) -> bool:
    """Return whether an object is being deleted."""
    return "deletionTimestamp" in doc["metadata"]


def is_active(pod: JSONObject) -> bool:
    """Return whether a pod runs or will run."""
    return not is_terminating(pod) and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")


def ready_since(pod: JSONObject) -> str | None:
    """Return the time since which an active pod is ready; None if it is not."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    ready = [each for each in conditions if each["type"] == "Ready" and each["status"] == "True"]
    return ready[0].get("lastTransitionTime") if ready and is_active(pod) else None


def owned_metadata(owner: JSONObject, **metadata: Any) -> JSONObject:
    """Return the metadata of an object that another one controls."""
    return {"namespace": owner["metadata"]["namespace"], "ownerReferences": [_reference(owner)], **metadata}


def _reference(owner: JSONObject) -> JSONObject:
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def pod_of(owner: JSONObject, labels: JSONObject | None = None, **metadata: Any) -> JSONObject:
    """Return the pod of an owner's template.

    Args:
        owner: the controlling object.
        labels: more labels than those of the template.
        metadata: such as ``name``; a generated name by default.
    """
    template = owner["spec"]["template"]
    described = template.get("metadata") or {}
    named = metadata or {"generateName": f"{owner['metadata']['name']}-"}
    named["labels"] = {**(described.get("labels") or {}), **(labels or {})}
    if described.get("annotations"):
        named["annotations"] = described["annotations"]
    spec = template["spec"]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": owned_metadata(owner, **named), "spec": spec}


def hash_of(value: Any) -> str:
    """Return a short name for a template, of the letters that Kubernetes uses; another one than Kubernetes chooses."""
    digest = hashlib.blake2b(msgspec.json.encode(value, order="sorted"), digest_size=9).digest()
    return "".join(_LETTERS[byte % len(_LETTERS)] for byte in digest)


def set_condition(conditions: Sequence[JSONObject], new: JSONObject, now: str) -> list[JSONObject]:
    """Return conditions with a new one; one with the same status and reason stays as it is."""
    old = next((each for each in conditions if each["type"] == new["type"]), None)
    if old is not None and (old["status"], old.get("reason")) == (new["status"], new.get("reason")):
        return list(conditions)
    same = old is not None and old["status"] == new["status"]
    changed = {**new, "lastTransitionTime": old["lastTransitionTime"] if old is not None and same else now}
    return [*(each for each in conditions if each is not old), changed]


def scaled(value: int | str, total: int, rounded: Callable[[float], int] = math.ceil) -> int:
    """Return a number of pods that is given as itself, or as a percentage of a total."""
    return value if isinstance(value, int) else rounded(int(value.removesuffix("%")) * total / 100)


def without_zeros(status: JSONObject) -> JSONObject:
    """Return a status without zeros, as Go writes most counts."""
    return {name: value for name, value in status.items() if value not in (0, None, [])}
