"""The parts that the stand-ins share: reads, owned objects, conditions, and pods, which run without a node."""

from __future__ import annotations

import contextlib
import hashlib
import math
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from reconciler import errors
from reconciler._core.wire import JSONObject
from reconciler.clock import Clock
from reconciler.controller import Outcome, Reconciler, Result, Watch
from reconciler.meta import Request, owner_reference
from reconciler.meta.documents import format_time, parse_time
from reconciler.meta.metadata import controller_of, selector_text

POD = "v1/Pod"
CLAIM = "v1/PersistentVolumeClaim"
_PASSING = (
    errors.AlreadyExists,
    errors.Conflict,
    errors.Forbidden,
    errors.ServerError,
    errors.TooManyRequests,
    errors.TransportError,
)
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
        """Read the object and call `sync`, or `finish` if it is being deleted."""
        try:
            found = await self.client.get(self.kind, request.name, request.namespace)
            doc = found.to_dict()
            wait = await (self.finish(doc) if is_terminating(doc) else self.sync(doc))
        except errors.NotFound:
            return None
        except _PASSING:
            wait = 1.0
        return None if wait is None else Result(requeue_after=wait) if wait > 0 else Result(again=True)

    async def sync(self, doc: JSONObject) -> float | None:
        """Make the cluster match an object; return the seconds until the next step, None for none."""
        raise NotImplementedError

    async def finish(self, _doc: JSONObject, /) -> float | None:
        """Called for an object that is being deleted; returns as `sync` does."""
        return None

    async def same_namespace(self, other: Any) -> list[Request]:
        """Map an object to the primary objects in its namespace."""
        return [Request(each.name, each.namespace) for each in await self.client.list(self.kind, other.namespace)]

    def now(self) -> str:
        """Return the current time as Kubernetes writes it."""
        return format_time(self.clock.now())

    def age(self, timestamp: str) -> float:
        """Return the seconds since a time."""
        return (self.clock.now() - parse_time(timestamp)).total_seconds()

    async def owned(self, kind: str, owner: JSONObject) -> list[JSONObject]:
        """Return the objects that an object controls, oldest first; it adopts those that nobody controls."""
        namespace, selector = owner["metadata"]["namespace"], owner["spec"]["selector"]
        found = await self.client.list(kind, namespace, label_selector=selector_text(selector))
        documents = [
            await self._adopt(each, owner)
            if controller_of(each) is None and not is_terminating(each) and self.can_adopt(owner, each)
            else each
            for each in (each.to_dict() for each in found)
        ]
        return sorted(
            (each for each in documents if (controller_of(each) or {}).get("uid") == owner["metadata"]["uid"]),
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
        owners = [*(metadata.get("ownerReferences") or ()), owner_reference(owner)]
        return (await self.client.update({**doc, "metadata": {**metadata, "ownerReferences": owners}})).to_dict()

    async def delete(self, objects: Iterable[JSONObject]) -> None:
        """Delete objects that still exist and are not being deleted already."""
        for each in objects:
            if not is_terminating(each):
                with contextlib.suppress(errors.NotFound):
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
    return {"namespace": owner["metadata"]["namespace"], "ownerReferences": [owner_reference(owner)], **metadata}


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
    """Return a short name for a template, of the letters that Kubernetes uses. Kubernetes would choose another one."""
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


AFTER = "testing.reconciler.dev/after"
"""The annotation of a pod with the seconds until it is ready, or ends; ``never`` for a pod that does not."""

EXIT_CODE = "testing.reconciler.dev/exit-code"
"""The annotation of a pod with the exit code of its containers; with one other than 0 the pod fails."""


class PodRunner(WorkloadReconciler):
    """A stand-in for the kubelet: pods run at once, and are ready or end after a delay.

    Args:
        clock: the source of time.
        delays: the seconds by the kind of the controlling owner; an empty kind is that of every other pod. Without
            it, other pods are left alone.
    """

    kind = POD
    owned_kinds = ()

    def __init__(self, clock: Clock, delays: Mapping[str, float]) -> None:
        super().__init__(clock)
        self._delays = delays
        self._due: dict[str, float] = {}

    async def sync(self, doc: JSONObject) -> float | None:
        """Run a pod, or end it when it is time to."""
        metadata = doc["metadata"]
        normal = self._delay(doc)
        ends = doc["spec"].get("restartPolicy") != "Always"
        if normal is None or not is_active(doc):
            return None
        if _is_outdated(doc):
            self._due.pop(metadata["uid"], None)
        elif ready_since(doc) and not ends:
            return None
        annotations = metadata.get("annotations") or {}
        try:
            delay = normal if AFTER not in annotations else _seconds(annotations[AFTER])
            code = int(annotations.get(EXIT_CODE) or 0)
        except ValueError as error:
            raise errors.TerminalError(f"an annotation of pod {metadata['name']} is invalid: {error}") from None
        # Creation times are whole seconds, so the pod's own age is not exact.
        due = self._due.setdefault(metadata["uid"], self.clock.monotonic() + delay)
        wait = due - self.clock.monotonic()
        if wait > 0:
            await self.write_status(doc, self._running(doc, ready=ends))
            return None if math.isinf(wait) else wait
        await self.write_status(doc, self._ended(doc, code) if ends or code else self._running(doc, ready=True))
        del self._due[metadata["uid"]]
        return None

    async def finish(self, doc: JSONObject, /) -> float | None:
        """Remove a pod at once that has a grace period, since a node was named for it."""
        if self._delay(doc) is not None and doc["metadata"].get("deletionGracePeriodSeconds"):
            await self.client.delete(doc, grace_period=0)
        return None

    def _delay(self, doc: JSONObject) -> float | None:
        """Return the seconds until a pod is ready, or ends; None for one that is left alone."""
        return self._delays.get((controller_of(doc) or {}).get("kind", ""), self._delays.get(""))

    def _running(self, doc: JSONObject, *, ready: bool) -> JSONObject:
        status = doc.get("status") or {}
        if status.get("phase") == "Running" and not ready and not _is_outdated(doc):
            return dict(status)
        return self._status(doc, "Running", "running", {}, "" if ready else "ContainersNotReady")

    def _ended(self, doc: JSONObject, code: int) -> JSONObject:
        phase, reason = ("Failed", "PodFailed") if code else ("Succeeded", "PodCompleted")
        ended = {"exitCode": code, "reason": "Error" if code else "Completed", "finishedAt": self.now()}
        return self._status(doc, phase, "terminated", ended, reason)

    def _status(self, doc: JSONObject, phase: str, state: str, details: JSONObject, reason: str) -> JSONObject:
        """Return the status of a pod whose containers are in a state; `reason` is why it is not ready, or empty."""
        before, now = doc.get("status") or {}, self.now()
        started = before.get("startTime") or now
        states, ready = {state: {"startedAt": started, **details}}, not reason
        known = _containers(doc)
        return {
            **before,
            **_address(doc),
            "phase": phase,
            "startTime": started,
            "conditions": _conditions(now, reason),
            "containerStatuses": [
                _container(each, states, known.get(each["name"], {}), ready=ready) for each in doc["spec"]["containers"]
            ],
        }


def _seconds(text: str) -> float:
    return math.inf if text == "never" else float(text)


def _address(doc: JSONObject) -> JSONObject:
    """Return an address that is most probably unique."""
    number = zlib.crc32(doc["metadata"]["uid"].encode())
    address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    return {"podIP": address, "podIPs": [{"ip": address}]}


def _containers(doc: JSONObject) -> dict[str, JSONObject]:
    """Return the statuses of a pod's containers by name."""
    status: JSONObject = doc.get("status") or {}
    return {each["name"]: each for each in status.get("containerStatuses") or ()}


def _is_outdated(doc: JSONObject) -> bool:
    """Return whether a container runs an image that is not the pod's any more, so that it must restart."""
    known = _containers(doc)
    containers: list[JSONObject] = doc["spec"]["containers"]
    return any(known.get(each["name"], each).get("image") != each.get("image") for each in containers)


def _container(container: JSONObject, state: JSONObject, before: JSONObject, *, ready: bool) -> JSONObject:
    restarted = bool(before) and before["image"] != container.get("image", "")
    return {
        "name": container["name"],
        "image": container.get("image", ""),
        "imageID": "",
        "ready": ready,
        "started": "running" in state,
        "restartCount": before.get("restartCount", 0) + restarted,
        "state": state,
    }


def _conditions(now: str, reason: str) -> list[JSONObject]:
    """Return the conditions of a pod that runs, and why it is not ready; empty if it is."""
    times = {"lastProbeTime": None, "lastTransitionTime": now}
    found: list[JSONObject] = [{"type": kind, "status": "True", **times} for kind in ("PodScheduled", "Initialized")]
    why = {"reason": reason} if reason else {}
    return found + [{"type": kind, "status": str(not reason), **times, **why} for kind in ("ContainersReady", "Ready")]
