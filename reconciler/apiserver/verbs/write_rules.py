"""A write as admission sees it, its result, and the rules of writes for all kinds.

The rules are about names, versions, what a request may change, and comparisons.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import msgspec

from reconciler._core.wire import JSONObject, JSONValue, ManagedFieldsEntry
from reconciler.apiserver.cluster import BLOCKING, APIResource, CustomContents, Endpoint
from reconciler.apiserver.encoding.json_documents import value_at
from reconciler.apiserver.encoding.refusals import FieldError, Findings, Refusal
from reconciler.apiserver.encoding.text import GO_TYPES, go_int, go_json, go_syntax, go_value, quoted
from reconciler.apiserver.managed_fields import path_element
from reconciler.apiserver.requests.routing import Call
from reconciler.apiserver.schema import ANYTHING, Node, item_key
from reconciler.apiserver.store import Stored


@dataclass(slots=True)
class WriteResult:
    """The result of a write.

    Attributes:
        code: the HTTP status.
        stored: the version to return; None to return `document`.
        document: another document to return.
        before: the version before, if there was one.
        after: the version after; the same object as `before` if nothing changed.
        warnings: texts for Warning headers.
    """

    code: int
    stored: Stored | None = None
    document: Any = None
    before: Stored | None = None
    after: Stored | None = None
    warnings: list[str] = field(default_factory=list)


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
        dry_run: whether nothing will be stored.
        options: the options of a deletion.
    """

    call: Call
    operation: Literal["CREATE", "UPDATE", "DELETE"]
    name: str
    doc: JSONObject | None
    before: JSONObject | None
    dry_run: bool
    options: JSONObject = field(default_factory=dict)


class AdmissionControl(Protocol):
    """The admission of writes, after their documents are decoded and before they are committed."""

    active: bool
    """Whether anyone is asked about any write."""

    def applies(self, write: Admitted, /) -> bool:
        """Return whether anyone is asked about writes of this kind."""
        ...

    async def mutate(self, write: Admitted, /) -> JSONObject | None:
        """Return the object, changed or not, which the caller owns; raise a `Refusal` if the write is denied."""
        ...

    async def validate(self, write: Admitted, /) -> None:
        """Return if the write is allowed; raise a `Refusal` if it is denied."""
        ...


SYSTEM_METADATA = (
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "selfLink",
)
"""The fields of metadata that only the server changes."""
_TYPE_META = ("apiVersion", "kind")
_MAX_REPLICAS = 2**31 - 1
_WRITTEN_BY = {"status": "status", "approval": "status", "finalize": "spec"}
"""The member of an object that a subresource writes."""


def can_track_owners(call: Call, doc: JSONObject, before: JSONObject) -> bool:
    """Return whether field owners can be tracked; otherwise the real server drops all of them.

    They cannot if a part that the request does not write has the wrong type; the parts that it writes are checked
    elsewhere.
    """
    if needs_conversion(call, before):
        return not any(schema_mismatch(call, each) for each in (before, doc))
    if not call.endpoint.resource.custom or "status" not in call.endpoint.subresources:
        return True
    if call.subresource == "status":
        ignored = {key: value for key, value in doc.items() if key not in (*_TYPE_META, "metadata", "status")}
    else:
        ignored = {"status": doc["status"]} if "status" in doc else {}
    ignored = {key: value for key, value in ignored.items() if value is not before.get(key)}
    return all("duplicate entries" in problem for problem in type_errors(ignored, call.endpoint.schema))


def needs_conversion(call: Call, before: JSONObject) -> bool:
    """Return whether tracking owners converts a document, because managers wrote it in other versions.

    A converted document must match the schema as a whole; one that is not may have duplicates in its lists.
    """
    endpoint = call.endpoint
    entries = (before.get("metadata") or {}).get("managedFields") or ()
    if all(entry.get("apiVersion") == endpoint.api_version for entry in entries):
        return False
    versions = {each.api_version for each in endpoint.resource.endpoints.values()} - {endpoint.api_version}
    return any(entry.get("apiVersion") in versions for entry in entries)


def schema_mismatch(call: Call, doc: JSONObject) -> str:
    """Return how a document violates the schema, in the words of structured-merge-diff, or nothing."""
    content = {key: value for key, value in doc.items() if key not in _TYPE_META}
    problems = list(type_errors(content, call.endpoint.schema))
    if len(problems) < 2:
        return "".join(problems)
    return "errors:\n" + "\n".join(f"  {problem}" for problem in problems)


def managed_fields_of(old: Stored | None) -> list[ManagedFieldsEntry]:
    """Return the ``managedFields`` of a stored object; an empty list if there are none."""
    return [] if old is None else list(old.doc["metadata"].get("managedFields") or ())


def same_json(one: JSONObject, other: JSONObject) -> bool:
    """Return whether two documents are the same JSON; true is not 1."""
    if one != other:
        return False
    deterministic = msgspec.json.Encoder(order="deterministic").encode
    return deterministic(one) == deterministic(other)


def differs_only_in_times(one: JSONObject, other: JSONObject) -> bool:
    """Return whether two documents differ only in the times of their ``managedFields``."""
    mine, theirs = one["metadata"].get("managedFields"), other["metadata"].get("managedFields")
    if not mine or not theirs or mine == theirs or _untimed(mine) != _untimed(theirs):
        return False
    return same_json({**one, "metadata": {**one["metadata"], "managedFields": theirs}}, other)


def _untimed(entries: list[ManagedFieldsEntry]) -> list[JSONObject]:
    return [{key: value for key, value in entry.items() if key != "time"} for entry in entries]


def is_removable(resource: APIResource, doc: JSONObject) -> bool:
    """Return whether only finalizers hold an object that is being deleted: no grace period, no namespace content."""
    if resource.info.group:
        return True
    if resource.info.plural == "namespaces":
        return not (doc.get("spec") or {}).get("finalizers")
    return resource.info.plural != "pods" or not doc["metadata"].get("deletionGracePeriodSeconds")


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


def check_resource_version(call: Call, old: Stored, metadata: JSONObject) -> None:
    """Check that a resourceVersion is the stored one."""
    info, asked = call.endpoint.info, metadata.get("resourceVersion")
    if not asked:
        return
    number = _number(asked)
    if number != old.rv and (number or not info.unconditional):
        raise Refusal.conflict(info.plural, info.group, call.name)


def drop_resource_version(metadata: JSONObject, *, dry_run: bool) -> None:
    """Remove the resourceVersion of an object that an update or apply creates; a dry run returns it."""
    version = metadata.get("resourceVersion")
    if version:
        _number(version)
    if not dry_run:
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
    why = (
        f"StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: Precondition "
        f"failed: UID in precondition: {uid}, UID in object meta: {stored}"
    )
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


# Violations of a schema, as in structured-merge-diff.

_NO_KEY: Mapping[type, str] = {
    dict: "associative list without keys has an element that's a map type",
    list: "not supported: associative list with lists as elements",
    type(None): "associative list without keys has an element that's an explicit null",
}


def type_errors(value: JSONValue, node: Node, path: str = "") -> Iterator[str]:
    """Yield how an applied configuration violates the schema, in the words of structured-merge-diff."""
    if node is ANYTHING or value is None:
        return
    if node.type == "object" or node.properties:
        yield from _object_problems(value, node, path)
    elif node.type == "array":
        yield from _list_problems(value, node, path)
    else:
        problem = _scalar_problem(value, node)
        if problem:
            yield f"{path}: {problem}"


def _object_problems(value: JSONValue, node: Node, path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{path}: expected map, got {_boxed(value)}"
        return
    for key, member in value.items():
        child = node.child(key)
        if child is None:
            if not node.preserve:
                yield f"{path}.{key}: field not declared in schema"
        else:
            yield from type_errors(member, child, f"{path}.{key}")


def _list_problems(value: JSONValue, node: Node, path: str) -> Iterator[str]:
    if not isinstance(value, list):
        yield f"{path}: expected list, got {_boxed(value)}"
        return
    seen: set[str] = set()
    for index, item in enumerate(value):
        where = f"[{index}]"
        if node.list_type in ("set", "map"):
            problem = _key_error(item, node)
            if problem:
                # structured-merge-diff reports nothing more about such a list.
                yield f"{path}: element {index}: {problem}"
                return
            element, where = path_element(item, node), _bracketed(item, node)
            if element in seen:
                yield f"{path}: duplicate entries for key {where}"
            seen.add(element)
        if node.items is not None:
            yield from type_errors(item, node.items, f"{path}{where}")


def _key_error(item: JSONValue, node: Node) -> str:
    """Return why an item of a set or keyed list has no path element, or nothing."""
    if node.list_type == "set":
        return _NO_KEY.get(type(item), "")
    if not isinstance(item, dict):
        return f"associative list with keys may not have {'a null element' if item is None else 'non-map elements'}"
    if path_element(item, node) != "k:{}":
        return ""
    keys = go_json(list(node.map_keys)).replace('","', '" "')
    return (
        f"associative list with keys has an element that omits all key fields {keys} (and doesn't have default values "
        "for any key fields)"
    )


def _bracketed(item: JSONValue, node: Node) -> str:
    if node.list_type == "set":
        return f"[={_shown(item)}]"
    return f"[{','.join(f'{key}={_shown(value)}' for key, value in sorted(item_key(item, node).items()))}]"


def _shown(value: JSONValue) -> str:
    """Return a value as structured-merge-diff shows it in a path."""
    if isinstance(value, dict):
        return "".join(f"{key}={_shown(member)}" for key, member in value.items())
    if isinstance(value, list):
        return f"[{','.join(map(_shown, value))}]"
    return quoted(value)


def _scalar_problem(value: JSONValue, node: Node) -> str:
    if node.format == "quantity" or (node.type == "string" and node.format not in ("", "byte")):
        return "" if not isinstance(value, (dict, list)) else f"expected any scalar, got {_boxed(value)}"
    if not node.type:
        return ""
    if node.type in ("integer", "number"):
        fits = isinstance(value, (int, float)) and not isinstance(value, bool)
        return "" if fits else f"expected numeric (int or float), got {GO_TYPES[type(value)]}"
    if node.type == "boolean":
        return "" if isinstance(value, bool) else f"expected boolean, got {_boxed(value)}"
    shown = f"&value.valueUnstructured{{Value:{go_syntax(value)}}}"
    return "" if isinstance(value, str) else f"expected string, got {shown}"


def _boxed(value: JSONValue) -> str:
    """Return a value as structured-merge-diff shows it in an error."""
    return f"&{{{go_value(value)}}}"
