"""The stand-ins for the Deployment and the ReplicaSet controller."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

from reconciler._core.wire import JSONObject
from reconciler._workloads import base


class ReplicaSets(base.WorkloadReconciler):
    """Creates and deletes the pods of ReplicaSets, and counts them in the status."""

    kind = "apps/v1/ReplicaSet"

    async def sync(self, doc: JSONObject) -> float | None:
        """Create or delete pods, and write the status."""
        spec, pods = doc["spec"], await self.owned(base.POD, doc)
        active = [pod for pod in pods if base.is_active(pod)]
        missing = spec["replicas"] - len(active)
        for _ in range(missing):
            await self.client.create(base.pod_of(doc))
        if missing < 0:
            surplus = active[::-1]  # those that are not ready go first, then the newest
            surplus.sort(key=lambda pod: base.ready_since(pod) is not None)
            await self.delete(surplus[:-missing])
        wanted = (spec["template"].get("metadata") or {}).get("labels") or {}
        available, wait = self.available(active, spec.get("minReadySeconds") or 0)
        counts = {
            "fullyLabeledReplicas": sum(wanted.items() <= pod["metadata"]["labels"].items() for pod in active),
            "readyReplicas": sum(base.ready_since(pod) is not None for pod in active),
            "availableReplicas": available,
        }
        status = {
            "replicas": len(active),
            **base.without_zeros(counts),
            "terminatingReplicas": sum(map(base.is_terminating, pods)),
            "observedGeneration": doc["metadata"]["generation"],
        }
        await self.write_status(doc, status)
        return wait


_REPLICA_SET = "apps/v1/ReplicaSet"
_HASH = "pod-template-hash"
_REVISION = "deployment.kubernetes.io/revision"
_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


class Deployments(base.WorkloadReconciler):
    """Creates a ReplicaSet for each template of a Deployment, moves the replicas to the newest, and writes the status.

    A Deployment that is scaled during a rollout gets its replicas in the newest ReplicaSet, not in proportion.
    """

    kind = "apps/v1/Deployment"
    owned_kinds = (_REPLICA_SET,)

    async def sync(self, doc: JSONObject) -> float | None:
        """Move one step toward the newest template, and write the status."""
        sets = await self.owned(_REPLICA_SET, doc)
        template = _without_hash(doc["spec"]["template"])
        new = next((each for each in sets if _without_hash(each["spec"]["template"]) == template), None)
        old = [each for each in sets if each is not new]
        paused = bool(doc["spec"].get("paused"))
        created = new is None and not paused and (_rolls(doc) or not any(map(_pods, old)))
        if created:
            new = await self._create(doc, old)
        elif paused:
            await self._scale_paused(doc, sets)
        else:
            await self._roll(doc, new, old)
        if new is not None:
            new = await self._renew(doc, new, old)
        return await self._write(doc, new, old, created=created)

    # ReplicaSets

    async def _create(self, doc: JSONObject, old: Sequence[JSONObject]) -> JSONObject:
        spec, template = doc["spec"], doc["spec"]["template"]
        name = base.hash_of(template)
        labels = {**template["metadata"]["labels"], _HASH: name}
        selector = {**spec["selector"], "matchLabels": {**(spec["selector"].get("matchLabels") or {}), _HASH: name}}
        metadata = base.owned_metadata(doc, name=f"{doc['metadata']['name']}-{name}", labels=labels)
        document = {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {**metadata, "annotations": _annotations(doc, old)},
            "spec": {
                "replicas": _new_replicas(doc, 0, old),
                "minReadySeconds": spec.get("minReadySeconds") or 0,
                "selector": selector,
                "template": {**template, "metadata": {**template["metadata"], "labels": labels}},
            },
        }
        return (await self.client.create(document)).to_dict()

    async def _renew(self, doc: JSONObject, new: JSONObject, old: Sequence[JSONObject]) -> JSONObject:
        """Return the newest ReplicaSet with the annotations and the settings that the Deployment has now."""
        known = new["metadata"].get("annotations") or {}
        wanted = {**known, **_annotations(doc, old, int(known.get(_REVISION) or 0))}
        spec = {**new["spec"], "minReadySeconds": doc["spec"].get("minReadySeconds") or 0}
        if wanted == known and spec["minReadySeconds"] == (new["spec"].get("minReadySeconds") or 0):
            return new
        changed = {**new, "metadata": {**new["metadata"], "annotations": wanted}, "spec": spec}
        return (await self.client.update(changed)).to_dict()

    async def _roll(self, doc: JSONObject, new: JSONObject | None, old: Sequence[JSONObject]) -> None:
        if not _rolls(doc):
            for each in old:
                await self._scale(each, 0)
            if new is not None and not any(map(_pods, old)):
                await self._scale(new, doc["spec"]["replicas"])
            return
        if new is None:
            return
        replicas = _new_replicas(doc, new["spec"]["replicas"], old)
        if replicas == new["spec"]["replicas"]:
            await self._scale_down(doc, new, old)
        await self._scale(new, replicas)

    async def _scale_down(self, doc: JSONObject, new: JSONObject, old: Sequence[JSONObject]) -> None:
        """Scale old ReplicaSets down as far as enough pods stay available; first pods that are not available."""
        least = doc["spec"]["replicas"] - _limits(doc)[1]
        unavailable = new["spec"]["replicas"] - _count(new, "availableReplicas")
        spare = sum(each["spec"]["replicas"] for each in (new, *old)) - least - unavailable
        available = sum(_count(each, "availableReplicas") for each in (new, *old)) - least
        for each in old:
            replicas = each["spec"]["replicas"]
            broken = max(0, min(spare, replicas - _count(each, "availableReplicas")))
            healthy = max(0, min(available, spare - broken, replicas - broken))
            spare, available = spare - broken - healthy, available - healthy
            await self._scale(each, replicas - broken - healthy)

    async def _scale_paused(self, doc: JSONObject, sets: Sequence[JSONObject]) -> None:
        """Scale the only ReplicaSet with replicas, or the newest; several, of a rollout, stay as they are."""
        active = [each for each in sets if each["spec"]["replicas"]] or sets[-1:]
        if len(active) == 1:
            await self._scale(active[0], doc["spec"]["replicas"])

    async def _scale(self, each: JSONObject, replicas: int) -> None:
        if each["spec"]["replicas"] != replicas:
            changed = (await self.client.update({**each, "spec": {**each["spec"], "replicas": replicas}})).to_dict()
            each.update(changed)

    async def _clean_up(self, doc: JSONObject, old: Sequence[JSONObject]) -> None:
        """Delete the oldest ReplicaSets without pods, beyond the limit of the history."""
        unused = [each for each in old if not each["spec"]["replicas"] and not _pods(each)]
        unused.sort(key=lambda each: int((each["metadata"].get("annotations") or {}).get(_REVISION) or 0))
        await self.delete(unused[: max(0, len(unused) - doc["spec"].get("revisionHistoryLimit", 10))])

    # status

    async def _write(
        self, doc: JSONObject, new: JSONObject | None, old: Sequence[JSONObject], *, created: bool
    ) -> float | None:
        sets = [*old, *([] if new is None else [new])]
        total, available = (sum(each["spec"]["replicas"] for each in sets), _sum(sets, "availableReplicas"))
        counts = {
            "observedGeneration": doc["metadata"]["generation"],
            "replicas": _sum(sets, "replicas"),
            "updatedReplicas": 0 if new is None else _count(new, "replicas"),
            "readyReplicas": _sum(sets, "readyReplicas"),
            "availableReplicas": available,
            "unavailableReplicas": max(0, total - available),
        }
        before = doc.get("status") or {}
        enough = available >= doc["spec"]["replicas"] - _limits(doc)[1]
        status = {**base.without_zeros(counts), "terminatingReplicas": _sum(sets, "terminatingReplicas")}
        status["conditions"] = before.get("conditions") or []
        self._set(status, _condition("Available", str(enough), *(_ENOUGH if enough else _TOO_FEW)))
        wait = self._progress(doc, status, new, created=created)
        if before.get("collisionCount"):
            status["collisionCount"] = before["collisionCount"]
        revision = {} if new is None else {_REVISION: new["metadata"]["annotations"][_REVISION]}
        await self.write_status(doc, status, **revision)
        if _is_complete(doc, status):
            await self._clean_up(doc, old)
        return wait

    def _progress(self, doc: JSONObject, status: JSONObject, new: JSONObject | None, *, created: bool) -> float | None:
        """Set the condition Progressing of a status, and return the seconds until its deadline."""
        deadline, paused = doc["spec"].get("progressDeadlineSeconds"), bool(doc["spec"].get("paused"))
        conditions: list[JSONObject] = status["conditions"]
        current = next((each for each in conditions if each["type"] == "Progressing"), None)
        if deadline is None or deadline == 2**31 - 1:
            status["conditions"] = [each for each in conditions if each is not current]
            return None
        reached = "" if current is None else current["reason"]
        grown = _has_progressed(doc.get("status") or {}, status)
        if reached == "ProgressDeadlineExceeded" and not (grown or created or paused):
            return None
        if grown and current is not None and not created:
            # Each progress starts the deadline again, also if the condition stays the same.
            renewed = {**current, "lastUpdateTime": self.now()}
            status["conditions"] = [renewed if each is current else each for each in conditions]
            current = renewed
        left = float(deadline) if current is None else deadline - self.age(current["lastUpdateTime"])
        name = doc["metadata"]["name"] if new is None else new["metadata"]["name"]
        what = f'{"Deployment" if new is None else "ReplicaSet"} "{name}"'
        if paused or reached == "DeploymentPaused":
            reason, text = ("DeploymentPaused", "paused") if paused else ("DeploymentResumed", "resumed")
            condition, left = _progressing("Unknown", reason, f"Deployment is {text}"), 0.0
        elif created:
            condition = _progressing("True", "NewReplicaSetCreated", f'Created new replica set "{name}"')
            left = float(deadline)
        elif reached == "NewReplicaSetAvailable" and status.get("replicas") == status.get("updatedReplicas"):
            return None
        elif _is_complete(doc, status):
            condition = _progressing("True", "NewReplicaSetAvailable", f"{what} has successfully progressed.")
            left = 0.0
        elif left > 0:
            condition = _progressing("True", "ReplicaSetUpdated", f"{what} is progressing.")
        else:
            condition = _progressing("False", "ProgressDeadlineExceeded", f"{what} has timed out progressing.")
        self._set(status, condition)
        return left if left > 0 else None

    def _set(self, status: JSONObject, condition: JSONObject) -> None:
        new = {**condition, "lastUpdateTime": self.now()}
        status["conditions"] = base.set_condition(status["conditions"], new, self.now())


def _condition(kind: str, status: str, reason: str, message: str) -> JSONObject:
    return {"type": kind, "status": status, "reason": reason, "message": message}


_progressing = functools.partial(_condition, "Progressing")
_ENOUGH = "MinimumReplicasAvailable", "Deployment has minimum availability."
_TOO_FEW = "MinimumReplicasUnavailable", "Deployment does not have minimum availability."


def _without_hash(template: JSONObject) -> JSONObject:
    metadata = template.get("metadata") or {}
    labels = {name: value for name, value in (metadata.get("labels") or {}).items() if name != _HASH}
    return {**template, "metadata": {**metadata, "labels": labels}}


def _rolls(doc: JSONObject) -> bool:
    return bool((doc["spec"].get("strategy") or {}).get("type") != "Recreate")


def _limits(doc: JSONObject) -> tuple[int, int]:
    """Return how many pods may exist beyond the replicas, and how many of the replicas may be unavailable."""
    replicas = doc["spec"]["replicas"]
    if not _rolls(doc) or not replicas:
        return 0, 0
    rolling = (doc["spec"].get("strategy") or {}).get("rollingUpdate") or {}
    surge = base.scaled(rolling.get("maxSurge", "25%"), replicas)
    unavailable = base.scaled(rolling.get("maxUnavailable", "25%"), replicas, math.floor)
    return surge, min(replicas, unavailable if surge or unavailable else 1)


def _new_replicas(doc: JSONObject, current: int, old: Sequence[JSONObject]) -> int:
    """Return the replicas that the newest ReplicaSet may have now."""
    replicas: int = doc["spec"]["replicas"]
    if not _rolls(doc) or current > replicas:
        return replicas
    room: int = replicas + _limits(doc)[0] - current - sum(each["spec"]["replicas"] for each in old)
    return current + max(0, min(room, replicas - current))


def _annotations(doc: JSONObject, old: Sequence[JSONObject], revision: int = 0) -> JSONObject:
    """Return the annotations of the newest ReplicaSet; `revision` is the one that it has."""
    past = [int((each["metadata"].get("annotations") or {}).get(_REVISION) or 0) for each in old]
    replicas = doc["spec"]["replicas"]
    annotations = (doc["metadata"].get("annotations") or {}).items()
    return {
        **{name: value for name, value in annotations if name not in (_REVISION, _APPLIED)},
        "deployment.kubernetes.io/desired-replicas": str(replicas),
        "deployment.kubernetes.io/max-replicas": str(replicas + _limits(doc)[0]),
        _REVISION: str(max(revision, max(past, default=0) + 1)),
    }


def _count(each: JSONObject, name: str) -> int:
    return int((each.get("status") or {}).get(name) or 0)


def _sum(sets: Sequence[JSONObject], name: str) -> int:
    return sum(_count(each, name) for each in sets)


def _pods(each: JSONObject) -> int:
    return _count(each, "replicas") + _count(each, "terminatingReplicas")


def _is_complete(doc: JSONObject, status: JSONObject) -> bool:
    replicas = doc["spec"]["replicas"]
    counted = (status.get(name, 0) for name in ("replicas", "updatedReplicas", "availableReplicas"))
    return all(count == replicas for count in counted)


def _has_progressed(before: JSONObject, after: JSONObject) -> bool:
    def grown(name: str) -> bool:
        return bool(after.get(name, 0) > before.get(name, 0))

    def outdated(status: JSONObject) -> int:
        return int(status.get("replicas", 0) - status.get("updatedReplicas", 0))

    shrunk = outdated(after) < outdated(before)
    return shrunk or any(map(grown, ("updatedReplicas", "readyReplicas", "availableReplicas")))
