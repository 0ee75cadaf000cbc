"""The work of a cluster's controllers, done immediately: garbage collection, namespaces, the server's finalizers."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from reconciler.apiserver.storage.cluster import Cluster, Resource
from reconciler.apiserver.storage.store import Store, Stored
from reconciler.apiserver.verbs.delete import Deleter

__all__ = ["GarbageCollector"]

_FOREGROUND = "foregroundDeletion"
_ORPHAN = "orphan"


class GarbageCollector:
    """A commit hook that deletes dependents (``"garbage"``) and the content of namespaces (``"namespaces"``)."""

    def __init__(self, cluster: Cluster, deleter: Deleter, active: Collection[str]) -> None:
        self._cluster = cluster
        self._deleter = deleter
        self._garbage, self._namespaces = "garbage" in active, "namespaces" in active
        self._dependents: dict[str, dict[tuple[Store, str], Resource]] = {}
        self._uids: dict[str, tuple[Resource, str]] = {}
        self._in_namespace: dict[str, int] = {}
        cluster.commit_hooks.append(self._committed)

    def _committed(self, resource: Resource, old: Stored | None, new: Stored | None) -> None:
        self.index(resource, old, new)
        if new is None and old is not None:
            if self._garbage:
                self._collect_dependents(old.uid)
                self._continue_owners(old)
            self._finish_namespace(old.doc["metadata"].get("namespace", ""))
        elif new is not None and new.doc["metadata"].get("deletionTimestamp"):
            self._continue_deletion(resource, new)

    # indexes

    def index(self, resource: Resource, old: Stored | None, new: Stored | None) -> None:
        """Keep the indexes current after a commit; a loaded object counts as a new one."""
        info = resource.info
        current = new or old
        if current is None:
            return
        before, after = _owner_uids(old), _owner_uids(new)
        place = (resource.store, current.key)
        for uid in before - after:
            held = self._dependents.get(uid, {})
            held.pop(place, None)
            if not held:
                self._dependents.pop(uid, None)
        for uid in after:
            self._dependents.setdefault(uid, {})[place] = resource
        if old is None and new is not None:
            self._uids[new.uid] = (resource, new.key)
        elif new is None and old is not None:
            self._uids.pop(old.uid, None)
        if info.namespaced and (old is None) != (new is None):
            namespace = current.doc["metadata"]["namespace"]
            self._in_namespace[namespace] = self._in_namespace.get(namespace, 0) + (1 if old is None else -1)

    def _dependents_of(self, uid: str) -> list[tuple[Resource, Stored]]:
        found = []
        for (_, key), resource in list(self._dependents.get(uid, {}).items()):
            stored = resource.store.objects.get(key)
            if stored is not None:
                found.append((resource, stored))
        return found

    # owners

    def _collect_dependents(self, uid: str) -> None:
        """Delete the objects that only the removed object owned; remove the reference from those with other owners."""
        for resource, stored in self._dependents_of(uid):
            current = resource.store.objects.get(stored.key)
            if current is None or uid not in _owner_uids(current):
                continue
            if any(other in self._uids for other in _owner_uids(current)):
                self._remove_owner(resource, current, uid)
            else:
                held = current.doc["metadata"].get("finalizers") or ()
                policy = "Orphan" if _ORPHAN in held else "Foreground" if _FOREGROUND in held else "Background"
                self._deleter.delete_stored(resource, current, {"propagationPolicy": policy})

    def _continue_owners(self, gone: Stored) -> None:
        """Continue the deletion of owners that waited for a dependent."""
        for uid in _owner_uids(gone):
            place = self._uids.get(uid)
            owner = place[0].store.objects.get(place[1]) if place else None
            if place and owner is not None and owner.doc["metadata"].get("deletionTimestamp"):
                self._continue_deletion(place[0], owner)

    def _continue_deletion(self, resource: Resource, stored: Stored) -> None:
        finalizers = (stored.doc["metadata"].get("finalizers") or []) if self._garbage else ()
        if _ORPHAN in finalizers:
            for other, dependent in self._dependents_of(stored.uid):
                self._remove_owner(other, dependent, stored.uid)
            self._remove_finalizer(resource, stored, _ORPHAN)
        elif _FOREGROUND in finalizers:
            for other, dependent in self._dependents_of(stored.uid):
                if not dependent.doc["metadata"].get("deletionTimestamp"):
                    self._deleter.delete_stored(other, dependent, {"propagationPolicy": "Foreground"})
            if not any(_blocks(dependent, stored.uid) for _, dependent in self._dependents_of(stored.uid)):
                self._remove_finalizer(resource, stored, _FOREGROUND)
        elif resource.info.plural == "namespaces" and not resource.info.group and self._namespaces:
            self._empty_namespace(stored)

    def _remove_owner(self, resource: Resource, stored: Stored, uid: str) -> None:
        owners = [owner for owner in stored.doc["metadata"].get("ownerReferences") or [] if owner.get("uid") != uid]
        self._set_metadata(resource, stored, "ownerReferences", owners)

    def _remove_finalizer(self, resource: Resource, stored: Stored, finalizer: str) -> None:
        current = resource.store.objects.get(stored.key)
        if current is None or current.uid != stored.uid:
            return
        kept = [name for name in current.doc["metadata"].get("finalizers") or [] if name != finalizer]
        if kept:
            self._set_metadata(resource, current, "finalizers", kept)
        else:
            self._cluster.remove(resource, current)

    def _set_metadata(self, resource: Resource, stored: Stored, field: str, value: list[Any]) -> None:
        metadata = {**stored.doc["metadata"], field: value}
        if not value:
            del metadata[field]
        self._cluster.replace(resource, stored, {**stored.doc, "metadata": metadata})

    # namespaces

    def _empty_namespace(self, stored: Stored) -> None:
        name = stored.key
        for resource in self._cluster.registry.resources():
            if resource.info.namespaced:
                for key in list(resource.store.keys(name)):
                    found = resource.store.objects.get(key)
                    if found is not None and not found.doc["metadata"].get("deletionTimestamp"):
                        self._deleter.delete_stored(resource, found, {"gracePeriodSeconds": 0})
        self._finish_namespace(name)

    def _finish_namespace(self, name: str) -> None:
        """Remove a namespace that is being deleted, after its last object is gone."""
        if not self._namespaces:
            return
        namespaces = self._cluster.registry.built_in("namespaces")
        stored = namespaces.store.objects.get(name)
        if stored is None or self._in_namespace.get(name, 0) or not stored.doc["metadata"].get("deletionTimestamp"):
            return
        self._in_namespace.pop(name, None)
        doc = {**stored.doc, "spec": {}}
        if stored.doc["metadata"].get("finalizers"):
            if stored.doc.get("spec"):
                self._cluster.replace(namespaces, stored, {**doc, "metadata": dict(doc["metadata"])})
        else:
            self._cluster.remove(namespaces, stored, doc)


def _owner_uids(stored: Stored | None) -> set[str]:
    if stored is None:
        return set()
    return {owner["uid"] for owner in stored.doc["metadata"].get("ownerReferences") or [] if owner.get("uid")}


def _blocks(dependent: Stored, uid: str) -> bool:
    owners = dependent.doc["metadata"].get("ownerReferences") or []
    return any(owner.get("uid") == uid and owner.get("blockOwnerDeletion") for owner in owners)
