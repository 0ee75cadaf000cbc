"""The verbs delete and deletecollection, and what a cluster's controllers do after them, done immediately.

Deletion: finalizers, grace periods, preconditions, propagation policies. After it: garbage collection, the contents of
namespaces, the server's own finalizers.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from reconciler._core.wire import JSONObject
from reconciler.apiserver.cluster import APIResource, ClusterStorage, Endpoint, timestamp
from reconciler.apiserver.encoding.json_documents import with_condition
from reconciler.apiserver.encoding.refusals import FieldError, Refusal, not_registered
from reconciler.apiserver.encoding.text import go_bool, go_int, recorded
from reconciler.apiserver.store import ObjectStore, Stored
from reconciler.apiserver.verbs.decoding import check_write_options, read_unstored_object
from reconciler.apiserver.verbs.read import selector_of
from reconciler.apiserver.verbs.routing import Call
from reconciler.apiserver.verbs.views import WHOLE
from reconciler.apiserver.verbs.write_rules import Admitted, Outdated, WriteResult, is_removable

if TYPE_CHECKING:
    from reconciler.apiserver.admission import ConfiguredAdmission


_IMMORTAL = frozenset({"default", "kube-system", "kube-public"})
_READERS_RUN_AFTER = 32
"""Deletions of a collection after which watches get a turn, so that their readers do not fall behind the history."""
_POLICIES = ("Foreground", "Background", "Orphan")
_EXPECTED = re.compile(r"^the object provided is unrecognized \(must be of type DeleteOptions\): ")
_SHOWN = re.compile(r" \([^()]*\)$")


@dataclass(frozen=True, slots=True)
class Deleter:
    """The implementation of the verbs delete and deletecollection; it raises a `Refusal` as the real server."""

    cluster: ClusterStorage
    admission: ConfiguredAdmission

    async def delete(self, call: Call) -> WriteResult:
        """Delete an object, or mark it as being deleted if finalizers or a grace period hold it."""
        options = _delete_options(call)
        check_write_options(call, options)
        info, old = call.endpoint.info, call.existing()
        check_preconditions(call, old, options.get("preconditions") or {})
        if info.plural == "namespaces" and not info.group and call.name in _IMMORTAL:
            raise Refusal.forbidden(info.plural, info.group, call.name, "this namespace may not be deleted")
        await self._admit(call, old, options)
        written = self.delete_stored(call.endpoint.resource, old, options, dry_run=call.dry_run)
        if written.stored is None and info.deleted_whole:
            written.stored = self._as_answered(call.endpoint.resource, old, written)
        elif written.stored is None:
            written.document = _success_status(call, old)
        return written

    async def _admit(self, call: Call, old: Stored, options: JSONObject) -> None:
        """Return if a deletion is allowed; raise `Outdated` if the object changed meanwhile."""
        if not self.admission.active:
            return
        write = Admitted(call, "DELETE", call.name, None, call.endpoint.to_served(old.doc), options)
        if self.admission.applies(write):
            await self.admission.mutate(write)
            await self.admission.validate(write)
            if call.endpoint.store.objects.get(old.key) is not old:
                raise Outdated

    def _as_answered(self, resource: APIResource, old: Stored, written: WriteResult) -> Stored:
        """Return the object that the response to a deletion shows; pods show the deletion marks."""
        if resource.info.plural != "pods":
            return old
        if written.after is not None and written.after is not old:
            return written.after
        marked = self._mark_deleted(resource, old, [], 0)
        return old if marked is None else Stored(old.key, old.rv, marked, old.custom)

    def delete_stored(
        self, resource: APIResource, old: Stored, options: JSONObject, *, dry_run: bool = False
    ) -> WriteResult:
        """Delete a stored object, or mark it; `stored` of the result is None if it was removed.

        Preconditions are not checked.
        """
        metadata = old.doc["metadata"]
        finalizers = _finalizers_for_policy(list(metadata.get("finalizers") or ()), options)
        if resource.info.plural == "customresourcedefinitions" and not metadata.get("deletionTimestamp"):
            finalizers.append(_CLEANUP)
        grace = _grace_seconds(resource, old.doc, options)
        if not finalizers and grace == 0 and is_removable(resource, {**old.doc, "metadata": {}}):
            if dry_run:
                return WriteResult(200, before=old, after=old)
            gone = self.cluster.remove(resource, self._mark_pod_deleted(resource, old))
            return WriteResult(200, before=old, after=gone)
        doc = self._mark_deleted(resource, old, finalizers, grace)
        if doc is None:
            return WriteResult(200, old, before=old, after=old)
        if dry_run:
            return WriteResult(200, Stored(old.key, old.rv, doc, old.custom), before=old, after=old)
        new = self.cluster.put(resource, old.key, doc)
        return WriteResult(200, new, before=old, after=new)

    def _mark_pod_deleted(self, resource: APIResource, old: Stored) -> Stored:
        """Store the deletion marks of a pod, which it gets even with a grace period of 0, and return what is stored."""
        if resource.info.plural != "pods" or resource.info.group:
            return old
        marked = self._mark_deleted(resource, old, [], 0)
        return old if marked is None else self.cluster.put(resource, old.key, marked)

    def _mark_deleted(self, resource: APIResource, old: Stored, finalizers: list[str], grace: int) -> JSONObject | None:
        """Return the document with the deletion marks, or None if it has them all."""
        metadata = dict(old.doc["metadata"])
        if finalizers != (metadata.get("finalizers") or []):
            metadata["finalizers"] = finalizers
            if not finalizers:
                del metadata["finalizers"]
        held = metadata.get("deletionGracePeriodSeconds")
        if not metadata.get("deletionTimestamp") or (held is not None and grace < held):
            if not metadata.get("deletionTimestamp") and metadata.get("generation"):
                metadata["generation"] += 1
            metadata["deletionTimestamp"] = timestamp(self.cluster.clock.now() + timedelta(seconds=grace))
            metadata["deletionGracePeriodSeconds"] = grace
        if metadata == old.doc["metadata"]:
            return None
        doc = {**old.doc, "metadata": metadata}
        if resource.info.plural == "customresourcedefinitions" and _CLEANUP in finalizers:
            status = doc.get("status") or {}
            terminating = recorded("texts.json")["terminating"]
            conditions = with_condition(status.get("conditions"), terminating, self.cluster.now())
            doc["status"] = {**status, "conditions": conditions}
        if resource.info.plural == "namespaces" and not resource.info.group:
            doc["status"] = {**(doc.get("status") or {}), "phase": "Terminating"}
        return doc

    async def delete_collection(self, call: Call) -> WriteResult:
        """Delete all selected objects, each with a resourceVersion of its own; return them as they were."""
        options = _delete_options(call)
        check_write_options(call, options)
        endpoint, selector = call.endpoint, selector_of(call)
        rv = self.cluster.revisions.current
        found = (endpoint.store.objects[key] for key in list(endpoint.store.keys(call.namespace)))
        chosen = [stored for stored in found if selector.empty or selector.matches(stored.doc)]
        for number, stored in enumerate(chosen, 1):
            await self._delete_selected(call, stored, options)
            if number % _READERS_RUN_AFTER == 0:
                await asyncio.sleep(0)
        metadata = {"resourceVersion": str(rv)}
        if endpoint.resource.custom:
            metadata["continue"] = ""
        return WriteResult(200, document=msgspec.Raw(WHOLE.encode_list(endpoint, chosen, metadata)))

    async def _delete_selected(self, call: Call, stored: Stored, options: JSONObject) -> None:
        endpoint = call.endpoint
        while (current := endpoint.store.objects.get(stored.key)) is not None and current.uid == stored.uid:
            check_preconditions(call, current, options.get("preconditions") or {})
            try:
                await self._admit(call, current, options)
            except Outdated:
                continue
            self.delete_stored(endpoint.resource, current, options, dry_run=call.dry_run)
            return


def _delete_options(call: Call) -> JSONObject:
    options: JSONObject = {}
    if call.request.body.strip():
        options = _decode_options(call)
        kind = options.get("kind")
        if kind == "Status":
            raise Refusal.bad_request("converting (v1.Status) to (v1.DeleteOptions): unknown conversion")
        if kind not in (None, "", "DeleteOptions"):
            raise Refusal.bad_request(not_registered(kind, options.get("apiVersion", "")))
    query = {} if call.request.body else call.query
    if "propagationPolicy" in query:
        options["propagationPolicy"] = query["propagationPolicy"]
    if "gracePeriodSeconds" in query:
        try:
            options["gracePeriodSeconds"] = go_int(query["gracePeriodSeconds"])
        except ValueError as error:
            raise Refusal.bad_request(str(error)) from None
    # A resourceVersion in the query is a precondition of a deletion too.
    if conditions := {key: query[key] for key in ("uid", "resourceVersion") if query.get(key)}:
        options["preconditions"] = conditions
    if "orphanDependents" in query:
        options["orphanDependents"] = go_bool(query["orphanDependents"])
    _check_policy(options)
    return options


def _decode_options(call: Call) -> JSONObject:
    try:
        return read_unstored_object(call.request, "DeleteOptions")
    except Refusal as refusal:
        # The real server decodes the options without naming the expected type.
        words = _EXPECTED.sub("", _SHOWN.sub("", refusal.message))
        raise Refusal(refusal.code, refusal.reason, words, details=refusal.details) from None


def _check_policy(options: JSONObject) -> None:
    policy, orphan = options.get("propagationPolicy"), options.get("orphanDependents")
    if policy is not None and orphan is not None:
        message = "orphanDependents and deletionPropagation cannot be both set"
        raise Refusal.option_invalid("DeleteOptions", FieldError.invalid("propagationPolicy", policy, message))
    if policy is not None and policy not in _POLICIES:
        error = FieldError.not_supported("propagationPolicy", policy, (*_POLICIES, "nil"))
        raise Refusal.option_invalid("DeleteOptions", error)
    if orphan is not None:
        options["propagationPolicy"] = "Orphan" if orphan else "Background"


def check_preconditions(call: Call, old: Stored, preconditions: JSONObject) -> None:
    """Raise the 409 for an object without the uid and resourceVersion that were asked for."""
    info = call.endpoint.info
    for key, name, stored, might in (
        ("uid", "UID", old.uid, "deleted and then recreated"),
        ("resourceVersion", "ResourceVersion", str(old.rv), "modified"),
    ):
        asked = preconditions.get(key)
        if asked is not None and asked != stored:
            why = (
                f"the {name} in the precondition ({asked}) does not match the {name} in record ({stored}). "
                f"The object might have been {might}"
            )
            if info.plural == "namespaces" and not info.group and key == "uid":
                why = f"Precondition failed: UID in precondition: {asked}, UID in object meta: {stored}"
                raise Refusal.conflict(info.plural, info.group, call.name, why)
            raise Refusal.conflict(info.kind, info.group, old.doc["metadata"]["name"], why)


def _finalizers_for_policy(finalizers: list[str], options: JSONObject) -> list[str]:
    policy = options.get("propagationPolicy")
    if policy is None:
        return finalizers
    kept = [name for name in finalizers if name not in ("orphan", "foregroundDeletion")]
    if policy == "Orphan":
        kept.append("orphan")
    elif policy == "Foreground":
        kept.append("foregroundDeletion")
    return kept


def _grace_seconds(resource: APIResource, doc: JSONObject, options: JSONObject) -> int:
    """Return the grace period of a pod on a node, in seconds; 0 for anything else."""
    if resource.info.plural != "pods" or resource.info.group:
        return 0
    spec, status = doc.get("spec") or {}, doc.get("status") or {}
    if not spec.get("nodeName") or status.get("phase") in ("Succeeded", "Failed"):
        return 0
    asked = options.get("gracePeriodSeconds")
    return max(0, int(asked if asked is not None else spec.get("terminationGracePeriodSeconds", 30)))


def _success_status(call: Call, old: Stored) -> JSONObject:
    info = call.endpoint.info
    details = {"name": call.name, "group": info.group, "kind": info.plural, "uid": old.uid}
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {key: value for key, value in details.items() if value},
    }


_FOREGROUND = "foregroundDeletion"
_ORPHAN = "orphan"
_CLEANUP = "customresourcecleanup.apiextensions.k8s.io"
"""The finalizer of a definition that is being deleted; removed when its last custom resource is gone."""


class GarbageCollector:
    """A commit hook that deletes dependents (``"garbage"``) and the content of namespaces (``"namespaces"``).

    It always deletes the objects of a definition that is being deleted.
    """

    def __init__(self, cluster: ClusterStorage, deleter: Deleter, active: Collection[str]) -> None:
        self._cluster = cluster
        self._deleter = deleter
        self._garbage, self._namespaces = "garbage" in active, "namespaces" in active
        self._definitions = cluster.registry.built_in("customresourcedefinitions", "apiextensions.k8s.io")
        self._dependents: dict[str, dict[tuple[ObjectStore, str], APIResource]] = {}
        cluster.commit_hooks.append(self._committed)

    def _committed(self, resource: APIResource, old: Stored | None, new: Stored | None) -> None:
        self.index(resource, old, new)
        if new is None and old is not None:
            if self._garbage:
                self.collect_dependents(old.uid)
                self._continue_owners(old)
            self._finish_namespace(old.doc["metadata"].get("namespace", ""))
            if resource.custom and not resource.store.objects:
                self._finish_definition(resource)
        elif new is not None and new.doc["metadata"].get("deletionTimestamp"):
            self._continue_deletion(resource, new)
        elif new is not None and self._garbage and _owner_references(new) != _owner_references(old):
            self._collect_orphan(resource, new)

    def index(self, resource: APIResource, old: Stored | None, new: Stored | None) -> None:
        """Keep the index of dependents current after a commit; a loaded object counts as a new one."""
        before, after = _owner_uids(old), _owner_uids(new)
        for uid in before.keys() - after.keys():
            held = self._dependents.get(uid, {})
            held.pop((resource.store, old.key if old else ""), None)
            if not held:
                self._dependents.pop(uid, None)
        if new is not None:
            for uid in after:
                self._dependents.setdefault(uid, {})[resource.store, new.key] = resource

    def _dependents_of(self, uid: str) -> list[tuple[APIResource, Stored]]:
        places = [(resource, key) for (_, key), resource in self._dependents.get(uid, {}).items()]
        found = ((resource, resource.store.objects.get(key)) for resource, key in places)
        return [(resource, stored) for resource, stored in found if stored is not None]

    # owners

    def collect_dependents(self, uid: str) -> None:
        """Collect the objects that the removed object owned."""
        for resource, stored in self._dependents_of(uid):
            current = resource.store.objects.get(stored.key)
            if current is not None and uid in _owner_uids(current):
                self._collect_orphan(resource, current)

    def _collect_orphan(self, resource: APIResource, stored: Stored) -> None:
        """Delete an object whose owners are all absent; of an object with others, remove the references to absent ones.

        It makes no difference whether an owner was removed before or after the reference to it was stored.
        """
        owners = _owner_references(stored)
        present = [owner for owner in owners if self._is_present(owner, resource, stored)]
        if present and len(present) < len(owners):
            self._set_metadata(resource, stored, "ownerReferences", present)
        elif len(present) < len(owners):
            held = stored.doc["metadata"].get("finalizers") or ()
            policy = "Orphan" if _ORPHAN in held else "Foreground" if _FOREGROUND in held else "Background"
            self._deleter.delete_stored(resource, stored, {"propagationPolicy": policy})

    def _is_present(self, owner: JSONObject, resource: APIResource, dependent: Stored) -> bool:
        """Return whether an owner may exist: it does, or the reference cannot be resolved, or was not copied to a fork.

        As for the real garbage collector, the kind and the name must be those of the object with this uid, and a
        namespaced owner is in the namespace of its dependent.
        """
        endpoint = self._cluster.registry.by_kind(owner["apiVersion"], owner["kind"])
        if endpoint is None or not endpoint.store.complete:
            return True
        misplaced = endpoint.info.namespaced and not resource.info.namespaced
        return misplaced or _find_owner(endpoint, owner, dependent) is not None

    def _continue_owners(self, gone: Stored) -> None:
        """Continue the deletion of owners that waited for a dependent."""
        for reference in _owner_references(gone):
            endpoint = self._cluster.registry.by_kind(reference["apiVersion"], reference["kind"])
            owner = None if endpoint is None else _find_owner(endpoint, reference, gone)
            if endpoint is not None and owner is not None and owner.doc["metadata"].get("deletionTimestamp"):
                self._continue_deletion(endpoint.resource, owner)

    def _continue_deletion(self, resource: APIResource, stored: Stored) -> None:
        finalizers = stored.doc["metadata"].get("finalizers") or ()
        if _CLEANUP in finalizers:
            self._withdraw(stored)
        if self._garbage and _ORPHAN in finalizers:
            for other, dependent in self._dependents_of(stored.uid):
                owners = [owner for owner in _owner_references(dependent) if owner.get("uid") != stored.uid]
                self._set_metadata(other, dependent, "ownerReferences", owners)
            self._remove_finalizer(resource, stored, _ORPHAN)
        elif self._garbage and _FOREGROUND in finalizers:
            for other, dependent in self._dependents_of(stored.uid):
                if not dependent.doc["metadata"].get("deletionTimestamp"):
                    self._delete_in_foreground(other, dependent)
            if not any(_blocks(dependent, stored.uid) for _, dependent in self._dependents_of(stored.uid)):
                self._remove_finalizer(resource, stored, _FOREGROUND)
        elif resource.info.plural == "namespaces" and not resource.info.group and self._namespaces:
            for each in self._cluster.registry.resources():
                if each.info.namespaced:
                    self._delete_all(each, each.store.keys(stored.key))
            self._finish_namespace(stored.key)

    def _delete_in_foreground(self, resource: APIResource, dependent: Stored) -> None:
        """Delete a dependent of an object that waits for it, which it no longer blocks if they own each other."""
        if any(_is_waiting(each) for _, each in self._dependents_of(dependent.uid)):
            owners = [{**owner, "blockOwnerDeletion": False} for owner in _owner_references(dependent)]
            dependent = self._set_metadata(resource, dependent, "ownerReferences", owners)
        self._deleter.delete_stored(resource, dependent, {"propagationPolicy": "Foreground"})

    def _remove_finalizer(self, resource: APIResource, stored: Stored, finalizer: str) -> None:
        """Remove a finalizer of an object that is being deleted, and the object with its last one."""
        current = resource.store.objects.get(stored.key)
        if current is None or current.uid != stored.uid:
            return
        finalizers = current.doc["metadata"].get("finalizers") or []
        if kept := [name for name in finalizers if name != finalizer]:
            if kept != finalizers:
                self._set_metadata(resource, current, "finalizers", kept)
        else:
            self._cluster.remove(resource, current)

    def _set_metadata(self, resource: APIResource, stored: Stored, field: str, value: list[Any]) -> Stored:
        metadata = {**stored.doc["metadata"], field: value}
        if not value:
            del metadata[field]
        return self._cluster.put(resource, stored.key, {**stored.doc, "metadata": metadata})

    # the content of namespaces and definitions

    def _delete_all(self, resource: APIResource, keys: Iterable[str]) -> None:
        for key in list(keys):
            found = resource.store.objects.get(key)
            if found is not None and not found.doc["metadata"].get("deletionTimestamp"):
                self._deleter.delete_stored(resource, found, {"gracePeriodSeconds": 0})

    def _withdraw(self, definition: Stored) -> None:
        """Delete all objects of a definition that is being deleted; objects with finalizers block it."""
        spec = definition.doc["spec"]
        kind = self._cluster.registry.resource(spec["group"], spec["names"]["plural"])
        if kind is not None:
            self._delete_all(kind, kind.store.objects)
            if not kind.store.objects:
                self._remove_finalizer(self._definitions, definition, _CLEANUP)

    def _finish_definition(self, kind: APIResource) -> None:
        """Continue the deletion of a definition after its last object is gone."""
        stored = self._definitions.store.objects.get(f"{kind.info.plural}.{kind.info.group}")
        if stored is not None and stored.doc["metadata"].get("deletionTimestamp"):
            self._withdraw(stored)

    def _finish_namespace(self, name: str) -> None:
        """Remove a namespace that is being deleted, after its last object is gone."""
        namespaces = self._cluster.registry.built_in("namespaces")
        stored = namespaces.store.objects.get(name) if self._namespaces else None
        if stored is None or not stored.doc["metadata"].get("deletionTimestamp"):
            return
        spans = (each.store.now.span(name) for each in self._cluster.registry.resources() if each.info.namespaced)
        if any(start < stop for start, stop in spans):
            return
        doc = {**stored.doc, "spec": {}}
        if not stored.doc["metadata"].get("finalizers"):
            self._cluster.remove(namespaces, stored, doc)
        elif stored.doc.get("spec"):
            self._cluster.put(namespaces, stored.key, {**doc, "metadata": dict(doc["metadata"])})


def _owner_uids(stored: Stored | None) -> dict[str, None]:
    """Return the uids of the owners, in order."""
    return dict.fromkeys(owner["uid"] for owner in _owner_references(stored) if owner.get("uid"))


def _owner_references(stored: Stored | None) -> list[JSONObject]:
    return [] if stored is None else stored.doc["metadata"].get("ownerReferences") or []


def _find_owner(endpoint: Endpoint, reference: JSONObject, dependent: Stored) -> Stored | None:
    """Return the object that a reference means: one with its name and uid, in the namespace of the dependent."""
    found = endpoint.resource.find(dependent.doc["metadata"].get("namespace"), reference["name"])
    return found if found is not None and found.uid == reference["uid"] else None


def _is_waiting(stored: Stored) -> bool:
    """Return whether an object is being deleted, after its dependents."""
    metadata = stored.doc["metadata"]
    return bool(metadata.get("deletionTimestamp")) and _FOREGROUND in (metadata.get("finalizers") or ())


def _blocks(dependent: Stored, uid: str) -> bool:
    owners = _owner_references(dependent)
    return any(owner.get("uid") == uid and owner.get("blockOwnerDeletion") for owner in owners)
