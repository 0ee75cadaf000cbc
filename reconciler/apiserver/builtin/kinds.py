"""The built-in kinds: their types, as Go declares them, their list and descriptions, and the forms of documents.

``kinds.json`` has what discovery does not tell: the attributes of `KindInfo` that differ from their defaults, by group
and plural; ``*`` stands for all kinds of a group. ``skeletons.json`` has the fields that Go writes even if they are
empty: structs and numbers. Events have two forms: that of the core group, in which they are stored, and that of
events.k8s.io.
"""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec

from reconciler._core.wire import JSONObject
from reconciler.apiserver.builtin.rule import ValuePlace, condition, getter
from reconciler.apiserver.encoding.text import recorded
from reconciler.apiserver.encoding.versions import NEWEST, recorded_for
from reconciler.apiserver.schema import ANYTHING, Node

Completion = Callable[[JSONObject], JSONObject]
_NODES: dict[tuple[str, str], Node] = {}
_WITH_UIDS = ("core.", "meta.")
"""The groups in which ``uid`` is the uid of an object; elsewhere it is that of a user."""
_OBJECTS = re.compile(r"\[?@([\w.]+)")


def _with(value: JSONObject, defaults: JSONObject) -> JSONObject:
    missing = {key: default for key, default in defaults.items() if value.get(key, "") == ""}
    return {**value, **missing} if missing else value


def _step(row: JSONObject) -> Completion:
    """Return the function that fills in the values of a row if its condition is met."""
    conditions = [condition(each) for each in row["if"].split(" and ")] if "if" in row else []
    plain = {key: default for key, default in row.items() if key != "if" and "." not in key}
    inner: dict[str, JSONObject] = {}
    for member, _, key in (path.partition(".") for path in row if path not in plain and path != "if"):
        inner.setdefault(member, {})[key] = row[f"{member}.{key}"]

    def complete(value: JSONObject) -> JSONObject:
        if not all(applies(ValuePlace(value, None, "")) for applies in conditions):
            return value
        value = _with(value, plain)
        for member, defaults in inner.items():
            whole = _with(value.get(member) or {}, defaults)
            value = value if whole is value.get(member) else {**value, member: whole}
        return value

    return complete


def _image_pull_policy(value: JSONObject) -> JSONObject:
    name = str(value.get("image") or "").rpartition("/")[2]
    latest = "@" not in name and name.partition(":")[2] in ("", "latest")
    return _with(value, {"imagePullPolicy": "Always" if latest else "IfNotPresent"})


def _pod_spec(value: JSONObject) -> JSONObject:
    account = value.get("serviceAccountName") or value.get("serviceAccount")
    if account:
        value = {**value, "serviceAccountName": account, "serviceAccount": account}
    if value.get("hostNetwork"):
        for key in ("containers", "initContainers"):
            if isinstance(value.get(key), list):
                value = {**value, key: [_on_host(container) for container in value[key]]}
    return value


def _on_host(container: JSONObject) -> JSONObject:
    ports = [_with(port, {"hostPort": port.get("containerPort", 0)}) for port in container.get("ports") or ()]
    return {**container, "ports": ports} if ports else container


def _claim_templates(value: JSONObject) -> JSONObject:
    known = value.get("volumeClaimTemplates") or []
    claims = [_complete_claim(claim) for claim in known]
    return value if claims == known else {**value, "volumeClaimTemplates": claims}


_complete_claim = _step({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "status.phase": "Pending"})


def _limits(value: JSONObject) -> JSONObject:
    """Return a container limit with defaults derived from its maximum and minimum."""
    if value.get("type") != "Container":
        return value
    limits = {**(value.get("max") or {}), **(value.get("default") or {})}
    requests = {**(value.get("min") or {}), **limits, **(value.get("defaultRequest") or {})}
    found = {"default": limits, "defaultRequest": requests}
    return {**value, **{key: amounts for key, amounts in found.items() if amounts}}


def _probe(value: JSONObject) -> JSONObject:
    """Return a probe without those numbers that are zero and have defaults: they count as missing."""
    defaults = recorded("builtin/defaults.json")["core.v1.Probe"]
    return {key: member for key, member in value.items() if member != 0 or key not in defaults}


_COMPUTED_FIELDS: dict[str, Completion] = {
    "apps.v1.StatefulSetSpec": _claim_templates,
    "core.v1.Container": _image_pull_policy,
    "core.v1.EphemeralContainer": _image_pull_policy,
    "core.v1.LimitRangeItem": _limits,
    "core.v1.NodeSpec": lambda value: {"podCIDRs": [value["podCIDR"]], **value} if value.get("podCIDR") else value,
    "core.v1.NodeStatus": lambda value: {"allocatable": value["capacity"], **value} if value.get("capacity") else value,
    "core.v1.PodSpec": _pod_spec,
    "core.v1.Probe": _probe,
    "core.v1.ServicePort": lambda value: {**value, "targetPort": value.get("targetPort") or value.get("port", 0)},
    "core.v1.Volume": lambda value: value if value.keys() - {"name"} else {**value, "emptyDir": {}},
}


def completion_of(name: str, release: str = NEWEST) -> Completion | None:
    """Return the function that fills in the defaults of a type of ``types.json``, or None if it has none.

    The function returns a new value if something was missing, and its argument otherwise.
    """
    rows = recorded_for("builtin/defaults.json", release).get(name, [])
    computed = [_COMPUTED_FIELDS[name]] if name in _COMPUTED_FIELDS else []
    steps = [*computed, *map(_step, rows if isinstance(rows, list) else [rows])]

    def complete(value: JSONObject) -> JSONObject:
        for step in steps:
            value = step(value)
        return value

    return steps[0] if len(steps) == 1 else complete if steps else None


def type_node(name: str, release: str = NEWEST) -> Node:
    """Return the node of a named type, such as ``core.v1.Pod``, in a Kubernetes version; types may be recursive."""
    node = _NODES.get((name, release))
    if node is None:
        package, _, kind = name.rpartition(".")
        go_name = f"{package.rpartition('.')[2]}.{kind}"
        node = _NODES[name, release] = Node("object", name=go_name, complete=completion_of(name, release))
        members = recorded_for("builtin/types.json", release)["types"][name]
        node.map_type = "atomic" if members.get("|") == "atomic" else "granular"
        for key, text in members.items():
            if key != "|":
                node.properties[key] = _member(text, release)
            if key == "uid" and name.startswith(_WITH_UIDS):
                node.properties[key].name = "types.UID"
            elif key == "propagationPolicy":
                node.properties[key].name = "v1.DeletionPropagation"
        if name in ("core.v1.ContainerPort", "core.v1.ServicePort"):
            # The protocol is part of an item's key even if the item does not set it.
            node.properties["protocol"].default = "TCP"
    return node


def _member(text: str, release: str) -> Node:
    """Return the node of a member from its short form in ``types.json``."""
    form, *attributes = text.split("|")
    node = _form(form, release)
    for attribute in attributes:
        word, _, rest = attribute.partition(":")
        if word in ("set", "map"):
            node.list_type, node.map_keys = word, tuple(rest.split(",")) if rest else ()
        elif word in ("atomic", "granular"):
            # Only this member of a type that others share is merged so.
            node = copy.copy(node)
            node.map_type = word
        elif word == "merge":
            node.merge, node.merge_key = True, rest
    return node


def _form(form: str, release: str) -> Node:
    if form == "*":
        return ANYTHING
    if form.startswith("@"):
        return type_node(form[1:], release)
    if form.startswith("?"):
        named = type_node(form[2:], release)
        return Node(properties=named.properties, name=named.name, complete=named.complete)
    if form.startswith("["):
        items = _form(form[1:-1], release)
        return Node("array", items=items, name=f"[]{items.name or 'interface {}'}")
    if form.startswith("{"):
        values = _form(form[1:-1], release)
        return Node("object", additional=values, name=f"map[string]{values.name or 'interface {}'}")
    kind, node_format, go_type = recorded("builtin/scalars.json")[form]
    return Node(kind, node_format, int_or_string=form == "o", name=go_type)


def built_in_node(group: str, version: str, kind: str, release: str = NEWEST) -> Node | None:
    """Return the node of a built-in kind, or None if its type is unknown."""
    name = type_name(group, version, kind)
    return None if name is None else type_node(name, release)


def type_name(group: str, version: str, kind: str) -> str | None:
    """Return the name of a built-in kind's type, or None if it is unknown."""
    name: str | None = recorded("builtin/types.json")["kinds"].get(f"{group}/{version}/{kind}")
    return name


@functools.cache
def member_types(name: str) -> dict[str, str]:
    """Return the members of a type that are objects, or lists of them, with the names of their types."""
    found = ((key, _OBJECTS.match(text)) for key, text in recorded("builtin/types.json")["types"].get(name, {}).items())
    return {key: match[1] for key, match in found if match is not None}


def metadata_node() -> Node:
    """Return the node of ``metadata``."""
    return type_node("meta.v1.ObjectMeta")


@functools.lru_cache(maxsize=512)  # each server asks for those of all built-in kinds
def place_of(node: Node | None) -> Node:
    """Return the node of whole documents of a kind: its members, and those of metadata."""
    node = node or ANYTHING
    return Node("object", properties={**node.properties, "metadata": metadata_node()}, preserve=node.preserve)


_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
_SUBRESOURCES = {"status", "scale", "approval", "binding", "ephemeralcontainers", "eviction", "finalize", "token"}
"""The subresources that are served."""
REVIEWS = ("authentication.k8s.io", "authorization.k8s.io")
"""The groups of kinds that are answered and never stored."""
FieldReader = Callable[[JSONObject], str]
"""Returns the text of a field of a stored document; empty if the field is missing."""
_EXCLUDED = frozenset({"customresourcedefinitions"})
"""The kinds whose fields are set elsewhere."""


@dataclass(frozen=True, slots=True, eq=False)
class KindInfo:
    """The description of a kind, without its versions.

    Attributes:
        group: the API group; ``""`` is the core group.
        plural: the name in paths.
        kind: the name in documents.
        namespaced: whether objects belong to namespaces.
        singular: the singular name.
        list_kind: the kind of lists.
        short_names: the short names that kubectl accepts.
        categories: categories such as ``all``.
        subresources: the subresources of a built-in kind.
        verbs: the supported verbs; ``create`` alone for kinds that are answered and never stored.
        stored_as: the group whose objects these are in another form; None for a separate kind.
        generation: whether ``metadata.generation`` is maintained.
        unconditional: whether a PUT may omit the resourceVersion.
        create_on_update: whether a PUT creates a missing object.
        names: the rule for names: ``subdomain``, ``label``, ``label-1035``, or ``path``, which excludes ``.``, ``..``
            and names with ``/`` or ``%``.
        generation_of: the member of metadata whose changes increment the generation, too.
        fixed_in_status: the members of metadata that writes to the status do not change.
        born_with_status: whether an object keeps the status that it is created with, or its strategy sets it.
        free_finalizers: the subresources through which any finalizer is accepted; an empty one stands for all.
        validated_once: whether the kind's own rules for updates do not cover metadata; the rules of every kind do.
        validated_as_new: whether updates are also validated like creations.
        deleted_whole: whether a deletion returns the object instead of a Status.
        replicas_in_bookmarks: whether the object of a bookmark has ``replicas: 0``.
        etcd_name: the name of the kind in etcd, which messages show, if it is not the plural.
        selectable: the fields that field selectors accept, besides name and namespace: their paths, or
            ``field=path`` for one that is stored elsewhere; after ``|`` the value of an absent one, if it has any.
        unselectable: the message about other fields, if the kind has one of its own; braces stand for the field.
        warning: the warning for clients that use the kind; empty for none.
        release: the version of Kubernetes of the server.
    """

    group: str
    plural: str
    kind: str
    namespaced: bool
    singular: str = ""
    list_kind: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    generation: bool = False
    unconditional: bool = True
    create_on_update: bool = False
    names: str = "subdomain"
    generation_of: str = ""
    fixed_in_status: tuple[str, ...] = ()
    born_with_status: bool = False
    free_finalizers: tuple[str, ...] = ()
    validated_once: bool = False
    validated_as_new: bool = False
    deleted_whole: bool = False
    replicas_in_bookmarks: bool = False
    etcd_name: str = ""
    selectable: tuple[str, ...] = ()
    unselectable: str = "field label not supported: {}"
    warning: str = ""
    subresources: frozenset[str] = frozenset()
    stored_as: str | None = None
    verbs: tuple[str, ...] = _VERBS
    release: str = NEWEST

    @property
    def internal_group(self) -> str:
        """The group in whose form the objects are stored, and which validation errors name."""
        return self.group if self.stored_as is None else self.stored_as


def _kind(group: str, resource: JSONObject, release: str) -> KindInfo:
    plural, kind = resource["resource"], resource["responseKind"]["kind"]
    subresources = {each["subresource"] for each in resource.get("subresources", ())}
    traits = recorded_for("builtin/kinds.json", release)
    described = {
        "group": group,
        "plural": plural,
        "kind": kind,
        "namespaced": resource["scope"] == "Namespaced",
        "singular": resource["singularResource"],
        "list_kind": f"{kind}List",
        "short_names": resource.get("shortNames", ()),
        "categories": resource.get("categories", ()),
        "subresources": subresources & _SUBRESOURCES,
        "verbs": resource["verbs"],
        "release": release,
    }
    return msgspec.convert(described | traits.get(f"{group}/*", {}) | traits.get(f"{group}/{plural}", {}), KindInfo)


def _built_in(release: str) -> Iterator[tuple[KindInfo, tuple[str, ...]]]:
    """Yield the recorded kinds that are stored, and those of reviews, with their versions."""
    for group in recorded_for("builtin/discovery.json", release):
        name = group["metadata"].get("name", "")
        served: dict[str, list[tuple[str, JSONObject]]] = {}
        for version in group["versions"]:
            for resource in version["resources"]:
                if "watch" in resource["verbs"] or name in REVIEWS:
                    served.setdefault(resource["resource"], []).append((version["version"], resource))
        for versions in served.values():
            yield _kind(name, versions[0][1], release), tuple(version for version, _ in versions)


@functools.cache
def built_in_kinds(release: str) -> tuple[tuple[KindInfo, tuple[str, ...]], ...]:
    """Return each built-in kind of a Kubernetes version with its served versions, the preferred one first."""
    return tuple(_built_in(release))


BUILT_IN = built_in_kinds(NEWEST)


@functools.lru_cache(maxsize=1024)
def field_reader(paths: str) -> FieldReader:
    """Return a function that reads a field of a document: the first of some paths that is set, or what is after ``|``.

    Paths are those of rules, with commas between them.
    """
    paths, _, absent = paths.partition("|")
    getters = [getter(path.removeprefix(".")) for path in paths.split(",")]

    def read(doc: JSONObject) -> str:
        place = ValuePlace(doc, None, "")
        found = next((value for get in getters if (value := get(place)) not in (None, "")), absent)
        return str(found).lower() if isinstance(found, bool) else str(found)

    return read


def selectable_fields(info: KindInfo) -> dict[str, FieldReader]:
    """Return the fields of a kind that field selectors accept, with their readers."""
    fields = (each.partition("=") for each in info.selectable)
    return {field.partition("|")[0]: field_reader(paths or field) for field, _, paths in fields}


def skeleton_of(info: KindInfo, version: str) -> JSONObject:
    """Return the fields that an empty document of a built-in kind has besides its type; a required field is None."""
    node = None if info.plural in _EXCLUDED else built_in_node(info.group, version, info.kind, info.release)
    found: JSONObject = {"metadata": {}}
    for key in ("spec", "status"):
        child = node.properties.get(key) if node is not None else None
        if child is not None and child.properties:
            found[key] = {}
    always: JSONObject = recorded("builtin/skeletons.json").get(f"{info.group}/{info.plural}", {})
    return found | always


def shown_empty(info: KindInfo, skeleton: JSONObject) -> JSONObject:
    """Return the fields of the object in a bookmark, besides its metadata."""
    shown = {key: value for key, value in skeleton.items() if key != "metadata"}
    if info.replicas_in_bookmarks:
        shown["spec"] = {"replicas": 0, **shown["spec"]}
    return shown


def filled(document: JSONObject, skeleton: JSONObject) -> JSONObject:
    """Return a document with the missing fields of a skeleton added, except nulls; complete parts are shared."""
    missing = {}
    for key, empty in skeleton.items():
        if empty is None:
            continue
        value = document.get(key)
        if value is None:
            missing[key] = filled({}, empty) if isinstance(empty, dict) else empty
        elif isinstance(empty, dict) and isinstance(value, dict):
            whole = filled(value, empty)
            if whole is not value:
                missing[key] = whole
    return {**document, **missing} if missing else document


def to_events_group(doc: JSONObject) -> JSONObject:
    """Return an Event of the core group as one of events.k8s.io/v1."""
    names = recorded("builtin/events.json")
    shown = {names.get(key, key): value for key, value in doc.items() if value != ""}
    return {**shown, "apiVersion": "events.k8s.io/v1"}


def from_events_group(doc: JSONObject) -> JSONObject:
    """Return an Event of events.k8s.io/v1 as one of the core group."""
    names = {new: old for old, new in recorded("builtin/events.json").items()}
    stored = {names.get(key, key): value for key, value in doc.items()}
    for key in ("reportingComponent", "reportingInstance"):
        stored.setdefault(key, "")
    return {**stored, "apiVersion": "v1"}
