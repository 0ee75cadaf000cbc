"""A write as admission sees it, its result, and the rules of writes for all kinds.

The rules are about names, versions, metadata, what a request may change, and comparisons.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from reconciler._core.wire import JSONObject, JSONValue, ManagedFieldsEntry
from reconciler.apiserver.builtin.kinds import KindInfo
from reconciler.apiserver.builtin.rule_table import violations
from reconciler.apiserver.cluster import BLOCKING, APIResource, CustomContents, Endpoint, Registry
from reconciler.apiserver.encoding.formats import name_problems
from reconciler.apiserver.encoding.json_documents import value_at
from reconciler.apiserver.encoding.refusals import FieldError, Findings, Refusal
from reconciler.apiserver.encoding.text import go_int, recorded
from reconciler.apiserver.store import Stored
from reconciler.apiserver.verbs.decoding import OWNER_FIELDS
from reconciler.apiserver.verbs.routing import Call

_MAX_ANNOTATIONS = 256 * 1024
_STANDARD_FINALIZERS = ("kubernetes", "orphan", "foregroundDeletion")
_CHECKED = frozenset({"annotations", "finalizers", "labels", "ownerReferences"})


_DELETION = ("deletionTimestamp", "deletionGracePeriodSeconds")


@dataclass(slots=True)
class WriteResult:
    """The result of a write.

    Attributes:
        code: the HTTP status.
        stored: the version to return; None to return `document`.
        document: another document to return.
        before: the version before, if there was one.
        after: the version after; the same object as `before` if nothing changed.
    """

    code: int
    stored: Stored | None = None
    document: Any = None
    before: Stored | None = None
    after: Stored | None = None


class Outdated(Exception):
    """The object changed while webhooks were called: the write must be made again on its new version."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """A write that is up for admission.

    Attributes:
        call: the request.
        operation: what is done to the object.
        name: its name; empty if the server generates it.
        doc: the new object in the version of the request; None for a deletion.
        before: the stored object in the version of the request; None for a new one.
        options: the options of a deletion.
    """

    call: Call
    operation: Literal["CREATE", "UPDATE", "DELETE"]
    name: str
    doc: JSONObject | None
    before: JSONObject | None
    options: JSONObject = field(default_factory=dict)


SYSTEM_METADATA = ("uid", "creationTimestamp", *_DELETION, "generation", "selfLink")
"""The fields of metadata that only the server changes."""

_MAX_REPLICAS = 2**31 - 1
_WRITTEN_BY = {"status": "status", "approval": "status", "finalize": "spec"}
"""The member of an object that a subresource writes."""


_deterministic = msgspec.json.Encoder(order="deterministic").encode


def same_json(one: JSONValue, other: JSONValue) -> bool:
    """Return whether two values are the same JSON; true is not 1."""
    return one == other and _deterministic(one) == _deterministic(other)


def same_except_times(one: JSONObject, other: JSONObject) -> bool:
    """Return whether two documents are the same JSON, except for the times of their ``managedFields``."""
    mine, theirs = one["metadata"].get("managedFields"), other["metadata"].get("managedFields")
    if mine and theirs and mine != theirs and _untimed(mine) == _untimed(theirs):
        one = {**one, "metadata": {**one["metadata"], "managedFields": theirs}}
    return same_json(one, other)


def _untimed(entries: list[ManagedFieldsEntry]) -> list[JSONObject]:
    return [{key: value for key, value in entry.items() if key != "time"} for entry in entries]


def is_removable(resource: APIResource, doc: JSONObject) -> bool:
    """Return whether only finalizers hold an object that is being deleted: no grace period, no namespace content."""
    if resource.info.group:
        return True
    if resource.info.plural == "namespaces":
        return not (doc.get("spec") or {}).get("finalizers")
    return resource.info.plural != "pods" or not doc["metadata"].get("deletionGracePeriodSeconds")


def check_place(call: Call, metadata: JSONObject) -> None:
    """Check name and namespace, which must be given, against the path; set the namespace."""
    check_name_given(call, metadata)
    check_name_and_namespace(call, metadata)


def check_name_given(call: Call, metadata: JSONObject) -> None:
    """Check that a document has a name."""
    if not metadata.get("name"):
        problem = f"the name of the object ({call.name} based on URL) was undeterminable: name must be provided"
        raise Refusal.bad_request(problem)


def check_name_and_namespace(call: Call, metadata: JSONObject) -> None:
    """Check name and namespace against the path; set the namespace."""
    check_namespace(call, metadata)
    check_name(call, metadata)


def check_name(call: Call, metadata: JSONObject) -> None:
    """Check the name of a document against the path."""
    name = metadata.get("name")
    if call.name and name and name != call.name:
        raise Refusal.bad_request(f"the name of the object ({name}) does not match the name on the URL ({call.name})")


def check_namespace(call: Call, metadata: JSONObject) -> None:
    """Check the namespace against the path, and set it."""
    if not call.endpoint.info.namespaced:
        metadata.pop("namespace", None)
        return
    if (metadata.get("namespace") or call.namespace) != call.namespace:
        raise Refusal.bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    metadata["namespace"] = call.namespace


def validate_contents(
    call: Call, doc: JSONObject, before: JSONObject | None, errors: list[FieldError]
) -> Iterable[FieldError]:
    """Return the errors of a document's contents that neither its strategy nor its metadata has."""
    contents = call.endpoint.contents
    if not isinstance(contents, CustomContents):
        return _taken(call.endpoint, doc) if not errors else ()
    blocked = any(error.reason in BLOCKING for error in errors)
    return [*contents.check(doc, before, call.subresource, blocked=blocked), *_replicas_errors(call.endpoint, doc)]


def _replicas_errors(endpoint: Endpoint, doc: JSONObject) -> Findings:
    for path in () if endpoint.scale is None else endpoint.scale[:2]:
        replicas = value_at(doc, path)
        if isinstance(replicas, int) and replicas < 0:
            yield FieldError.invalid(path, replicas, "should be a non-negative integer")
        elif isinstance(replicas, int) and replicas > _MAX_REPLICAS:
            yield FieldError.invalid(path, replicas, f"should be less than or equal to {_MAX_REPLICAS}")


def _taken(endpoint: Endpoint, doc: JSONObject) -> Findings:
    """Yield the errors of a Service about addresses and ports that another one has."""
    spec = doc.get("spec") or {}
    ports = [(port.get("nodePort"), port.get("protocol")) for port in spec.get("ports") or ()]
    address = spec.get("clusterIP") if spec.get("clusterIP") != "None" else None
    if endpoint.info.plural != "services" or not (address or any(number for number, _ in ports)):
        return
    others = [each.doc["spec"] for each in endpoint.store.objects.values() if each.uid != doc["metadata"].get("uid")]
    if address and any(other.get("clusterIP") == address for other in others):
        why = f"failed to allocate IP {address}: provided IP is already allocated"
        yield FieldError.invalid("spec.clusterIPs", spec.get("clusterIPs") or [address], why)
        return
    held = {(port.get("nodePort"), port.get("protocol")) for other in others for port in other.get("ports") or ()}
    for index, port in enumerate(ports):
        if port[0] and port in held:
            yield FieldError.invalid(f"spec.ports[{index}].nodePort", port[0], "provided port is already allocated")


_PRIORITIES = {"": 0, "system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}
"""The values of the priority classes that every cluster has, and of pods without a class."""
_SHOWN = {"priority": "the integer value of priority", "preemptionPolicy": "the string value of PreemptionPolicy"}


def admitted_priority(call: Call, doc: JSONObject, registry: Registry) -> JSONObject:
    """Return what the spec of a new pod gets from its priority class, or the default one; nothing for other kinds.

    Raises:
        Refusal: 403, the class does not exist, or the pod has another priority.
    """
    if (call.endpoint.info.group, call.endpoint.info.plural) != ("", "pods"):
        return {}
    spec, metadata = doc.get("spec") or {}, doc["metadata"]
    pod = metadata.get("name") or metadata.get("generateName") or "Unknown"
    classes, default = _priority_classes(registry)
    name = spec.get("priorityClassName") or default
    if name not in classes:
        raise Refusal.forbidden("pods", "", pod, f"no PriorityClass with name {name} was found")
    given = {"priority": classes[name].get("value", 0), "preemptionPolicy": classes[name]["preemptionPolicy"]}
    for key, shown in _SHOWN.items():
        if spec.get(key) not in (None, given[key]):
            why = f"{shown} ({spec[key]}) must not be provided in pod spec; priority admission controller computed"
            raise Refusal.forbidden("pods", "", pod, f"{why} {given[key]} from the given PriorityClass name")
    return given | ({"priorityClassName": name} if name else {})


def check_default_class(call: Call, doc: JSONObject, registry: Registry) -> None:
    """Raise the 403 for a priority class that is the default beside another one."""
    info = call.endpoint.info
    if (info.group, info.plural) == ("scheduling.k8s.io", "priorityclasses") and doc.get("globalDefault"):
        _, default = _priority_classes(registry)
        if default not in ("", doc["metadata"]["name"]):
            why = f"PriorityClass {default} is already marked as default. Only one default can exist"
            raise Refusal.forbidden(info.plural, info.group, doc["metadata"]["name"], why)


def _priority_classes(registry: Registry) -> tuple[dict[str, JSONObject], str]:
    """Return the priority classes by name, and the name of the default one, or an empty string."""
    stored = registry.built_in("priorityclasses", "scheduling.k8s.io").store.objects
    known = {name: {"value": value, "preemptionPolicy": "PreemptLowerPriority"} for name, value in _PRIORITIES.items()}
    classes = known | {name: each.doc for name, each in stored.items()}
    return classes, next((name for name, each in classes.items() if each.get("globalDefault")), "")


def check_resource_version(call: Call, old: Stored, metadata: JSONObject) -> None:
    """Check that a resourceVersion is the stored one."""
    info, asked = call.endpoint.info, metadata.get("resourceVersion")
    if not asked:
        return
    number = _number(asked)
    if number != old.rv and (number or not info.unconditional):
        raise Refusal.conflict(info.plural, info.group, call.name)


def drop_resource_version(call: Call, metadata: JSONObject) -> None:
    """Remove the resourceVersion of an object that an update or apply creates; a dry run returns it."""
    if version := metadata.get("resourceVersion"):
        _number(version)
    if not call.dry_run:
        metadata.pop("resourceVersion", None)


def _number(version: str) -> int:
    try:
        return go_int(version, signed=False)
    except ValueError as error:
        raise Refusal.internal_error(str(error)) from None


def uid_conflict(call: Call, uid: str, stored: str) -> Refusal:
    """Return the 409 for a uid that is not the stored one."""
    info = call.endpoint.info
    place = f"{call.namespace}/{call.name}" if info.namespaced else call.name
    kept = f"{info.group}/{info.plural}" if call.endpoint.resource.custom else info.etcd_name or info.plural
    # A dry run does not reach etcd, so its keys have no root.
    root = "" if call.query.get("dryRun") else "/registry"
    key = f"{root}/{kept}/{place}"
    why = recorded("texts.json")["precondition"].format(key, uid, stored)
    return Refusal.conflict(info.plural, info.group, call.name, why)


def restrict_to_subresource(call: Call, before: JSONObject, doc: JSONObject) -> JSONObject:
    """Return a document in which only what the request may write has changed: the subresource, or everything else."""
    member = _WRITTEN_BY.get(call.subresource)
    if member is not None:
        changed = {**before, "metadata": dict(before["metadata"])}
        if not call.endpoint.resource.custom and member == "status":
            # Controllers of built-in kinds write metadata together with the status.
            changed["metadata"] = dict(doc["metadata"])
            restore(changed["metadata"], before["metadata"], call.endpoint.info.fixed_in_status)
        restore(changed, doc, (member,))
        return changed
    if call.subresource == "ephemeralcontainers":
        added = (doc.get("spec") or {}).get("ephemeralContainers")
        spec = {key: value for key, value in before["spec"].items() if key != "ephemeralContainers"}
        spec |= {"ephemeralContainers": added} if added else {}
        return {**before, "metadata": dict(before["metadata"]), "spec": spec}
    if "status" in call.endpoint.subresources:
        restore(doc, before, ("status",))
    return doc


def restore(doc: JSONObject, before: JSONObject, keys: Iterable[str]) -> None:
    """Give members of a document the values that they have in another one, in place."""
    for key in keys:
        if key in before:
            doc[key] = before[key]
        else:
            doc.pop(key, None)


def bumps_generation(call: Call, before: JSONObject, doc: JSONObject) -> bool:
    """Return whether a change increments the generation: of anything but status and metadata, and a part of that."""
    endpoint, member = call.endpoint, call.endpoint.info.generation_of
    old_part, new_part = (value_at(each, f"metadata.{member}", {}) for each in (before, doc))
    if member and not call.subresource and old_part != new_part:
        return True
    apart = {"metadata", "status"} if "status" in endpoint.subresources else {"metadata"}
    pairs = ((before.get(key), doc.get(key)) for key in (before.keys() | doc.keys()) - apart)
    return any(old is not new and not same_json({"": old}, {"": new}) for old, new in pairs)


def validate_metadata(info: KindInfo, metadata: JSONObject, *, custom: bool) -> list[FieldError]:
    """Return what is wrong with the metadata of an object to be created."""
    name, errors = metadata.get("name", ""), _validate_prefix(metadata, info.names)
    if not name:
        errors.append(FieldError.required("metadata.name", "name or generateName is required"))
    else:
        errors += (FieldError.invalid("metadata.name", name, problem) for problem in name_problems(name, info.names))
    return errors + _validate_maps(metadata) + ([] if custom else _validate_standard_finalizers(info, metadata, ""))


def _validate_prefix(metadata: JSONObject, rule: str) -> list[FieldError]:
    """Return what is wrong with a name prefix; a trailing dash is allowed, because a suffix follows it."""
    prefix = metadata.get("generateName", "")
    begun = f"{prefix[:-2]}a" if len(prefix) > 1 and prefix.endswith("-") else prefix
    found = name_problems(begun, rule) if prefix else []
    return [FieldError.invalid("metadata.generateName", prefix, problem) for problem in found]


def _validate_standard_finalizers(info: KindInfo, metadata: JSONObject, subresource: str) -> list[FieldError]:
    if {"", subresource} & {*info.free_finalizers}:
        return []
    message = "name is neither a standard finalizer name nor is it fully qualified"
    return [
        FieldError.invalid(f"metadata.finalizers[{index}]", name, message)
        for index, name in enumerate(metadata.get("finalizers") or ())
        if "/" not in name and name not in _STANDARD_FINALIZERS
    ]


def _validate_maps(metadata: JSONObject) -> list[FieldError]:
    if metadata.keys().isdisjoint(_CHECKED):
        return []
    errors = violations("meta.v1.ObjectMeta", metadata, None, "metadata")
    annotations = metadata.get("annotations") or {}
    if sum(len(key) + len(value) for key, value in annotations.items()) > _MAX_ANNOTATIONS:
        message = f"Too long: may not be more than {_MAX_ANNOTATIONS} bytes"
        errors.append(FieldError("metadata.annotations", message, "FieldValueTooLong"))
    return errors + _validate_owners(metadata.get("ownerReferences") or [])


def _validate_owners(owners: list[JSONObject]) -> list[FieldError]:
    field = "metadata.ownerReferences"
    errors = []
    for owner in owners:
        if owner.get("kind") == "Event" and owner.get("apiVersion") in ("v1", "events.k8s.io/v1"):
            group, _, version = owner["apiVersion"].rpartition("/")
            message = f"{group}/{version}, Kind=Event is disallowed from being an owner"
            errors.append(FieldError.invalid_struct(field, _in_order(owner), message))
    controllers = [f"{owner.get('kind')}/{owner.get('name')}" for owner in owners if owner.get("controller")]
    if len(controllers) > 1:
        found = f'Found "true" in references for {controllers[0]} and {controllers[1]}'
        message = f"Only one reference can have Controller set to true. {found}"
        errors.append(FieldError.invalid_struct(field, [_in_order(owner) for owner in owners], message))
    return errors


def _in_order(owner: JSONObject) -> JSONObject:
    return {key: owner[key] for key in OWNER_FIELDS if key in owner}


def validate_metadata_update(call: Call, metadata: JSONObject, before: JSONObject) -> list[FieldError]:
    """Return what is wrong with a change of metadata; fields of the server that the client omits count as unchanged.

    The real server validates metadata more than once, and reports its findings each time.
    """
    info = call.endpoint.info
    errors = [
        FieldError.invalid(f"metadata.{key}", metadata.get(key, ""), "field is immutable")
        for key in ("name", "uid", "deletionTimestamp")
        if (metadata.get(key) or key == "name") and metadata.get(key) != before.get(key)
    ]
    grace = metadata.get("deletionGracePeriodSeconds")
    if grace is not None and grace != before.get("deletionGracePeriodSeconds"):
        errors.append(FieldError.invalid("metadata.deletionGracePeriodSeconds", grace, "field is immutable"))
    if before.get("deletionTimestamp"):
        known = before.get("finalizers") or []
        if added := [f'"{name}"' for name in metadata.get("finalizers") or [] if name not in known]:
            message = "no new finalizers can be added if the object is being deleted, found new finalizers []string"
            errors.append(FieldError.forbidden("metadata.finalizers", f"{message}{{{', '.join(added)}}}"))
    prefix = _validate_prefix(metadata, "path")
    maps = _validate_maps({key: value for key, value in metadata.items() if value is not before.get(key)})
    found = [*prefix, *maps, *(errors + maps) * (1 if info.validated_once else 2)]
    if call.endpoint.resource.custom:
        return found
    # The kind's own rules apply besides those of every kind.
    finalizers = _validate_standard_finalizers(info, metadata, call.subresource)
    found += [] if info.validated_once else finalizers
    if not call.subresource and info.validated_as_new:
        found += [*_validate_prefix(metadata, info.names), *_validate_maps(metadata), *finalizers]
    return found
