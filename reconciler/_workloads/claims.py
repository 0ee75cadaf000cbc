"""The stand-in for the controllers and drivers that bind claims to volumes, grow them and protect them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reconciler._core.wire import JSONObject
from reconciler._workloads import base
from reconciler.client import Client
from reconciler.controller import Watch
from reconciler.errors import AlreadyExists
from reconciler.meta import Request
from reconciler.meta.documents import parse_quantity

_CLASS = "storage.k8s.io/v1/StorageClass"
_DEFAULT = "storageclass.kubernetes.io/is-default-class"
_PROTECTION = "kubernetes.io/pvc-protection"
_BOUND = {"pv.kubernetes.io/bind-completed": "yes", "pv.kubernetes.io/bound-by-controller": "yes"}


async def provide_class(client: Client) -> None:
    """Create a default StorageClass whose claims can grow, if there is no class."""
    if await client.live.list(_CLASS):
        return
    try:
        await client.create(
            {
                "apiVersion": "storage.k8s.io/v1",
                "kind": "StorageClass",
                "metadata": {"name": "stand-in", "annotations": {_DEFAULT: "true"}},
                "provisioner": "testing.reconciler.dev/claims",
                "allowVolumeExpansion": True,
            }
        )
    except AlreadyExists:
        return


class Claims(base.WorkloadReconciler):
    """Binds claims, whatever their class; grows them unless their class forbids it; keeps those that a pod uses.

    There are no PersistentVolumes.
    """

    kind = base.CLAIM
    owned_kinds = ()

    def watches(self) -> Sequence[Watch]:
        """Return the watches on pods, which use claims, and on classes."""
        return [Watch(base.POD, mapper=_used_claims), Watch(_CLASS, mapper=lambda _: ())]

    async def sync(self, doc: JSONObject) -> float | None:
        """Bind a claim, or grow it."""
        asked = doc["spec"]["resources"]["requests"]["storage"]
        status = doc.get("status") or {}
        if status.get("phase") != "Bound":
            doc = await self._bind(doc)
            bound = {"phase": "Bound", "accessModes": doc["spec"]["accessModes"], "capacity": {"storage": asked}}
            await self.write_status(doc, bound)
        elif parse_quantity(asked) > parse_quantity(status["capacity"]["storage"]) and await self._can_grow(doc):
            await self.write_status(doc, {**status, "capacity": {**status["capacity"], "storage": asked}})
        return None

    async def finish(self, doc: JSONObject, /) -> float | None:
        """Let a claim go that no pod uses."""
        metadata = doc["metadata"]
        finalizers = metadata.get("finalizers") or []
        pods = await self.client.list(base.POD, metadata["namespace"])
        if _PROTECTION in finalizers and not any(metadata["name"] in _claims_of(pod) for pod in pods):
            kept = [each for each in finalizers if each != _PROTECTION]
            await self.client.update({**doc, "metadata": {**metadata, "finalizers": kept}})
        return None

    async def _bind(self, doc: JSONObject) -> JSONObject:
        metadata, spec = doc["metadata"], doc["spec"]
        finalizers = metadata.get("finalizers") or []
        given = {"volumeName": f"pvc-{metadata['uid']}"}
        if default := await self._default_class():
            given["storageClassName"] = default
        changed = {
            **metadata,
            "annotations": {**(metadata.get("annotations") or {}), **_BOUND},
            "finalizers": finalizers if _PROTECTION in finalizers else [*finalizers, _PROTECTION],
        }
        return (await self.client.update({**doc, "metadata": changed, "spec": {**given, **spec}})).to_dict()

    async def _default_class(self) -> str | None:
        found = await self.client.list(_CLASS)
        return next((each.name for each in found if each.annotations.get(_DEFAULT) == "true"), None)

    async def _can_grow(self, doc: JSONObject) -> bool:
        """Return whether the class allows it. A class that does not exist does, so that samples work as they are."""
        name = doc["spec"].get("storageClassName")
        classes = {each.name: each.to_dict() for each in await self.client.list(_CLASS)}
        return name not in classes or bool(classes[name].get("allowVolumeExpansion"))


def _used_claims(pod: Any) -> list[Request]:
    return [Request(name, pod.namespace) for name in _claims_of(pod)]


def _claims_of(pod: Mapping[str, Any]) -> list[str]:
    """Return the names of the claims that a pod uses."""
    volumes = pod["spec"].get("volumes") or ()
    return [each["persistentVolumeClaim"]["claimName"] for each in volumes if "persistentVolumeClaim" in each]
