"""The built-in kinds: their list and descriptions, the fields that field selectors accept, and the forms of documents.

``kinds.json`` has what discovery does not tell: the attributes of `KindInfo` that differ from their defaults, by group
and plural; ``*`` stands for all kinds of a group. ``skeletons.json`` has the fields that Go writes even if they are
empty: structs and numbers. Events have two forms: that of the core group, in which they are stored, and that of
events.k8s.io.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from reconciler.apiserver.builtin.types import built_in_node
from reconciler.apiserver.encoding.data_files import recorded
from reconciler.apiserver.encoding.json_documents import value_at
from reconciler.wire import JSONObject

__all__ = [
    "BUILT_IN",
    "REVIEWS",
    "FieldReader",
    "KindInfo",
    "field_reader",
    "filled",
    "from_events_group",
    "recorded_groups",
    "selectable_fields",
    "shown_empty",
    "skeleton_of",
    "to_events_group",
]


_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
_SERVED_SUBRESOURCES = ("scale", "approval", "binding", "ephemeralcontainers", "eviction", "resize", "token")
REVIEWS = ("authentication.k8s.io", "authorization.k8s.io")
"""The groups of kinds that are answered and never stored."""
FieldReader = Callable[[JSONObject], str]
"""Returns the text of a field of a stored document; empty if the field is missing."""
_EXCLUDED = frozenset({"customresourcedefinitions"})
"""The kinds whose fields are set elsewhere."""


@dataclass(frozen=True, slots=True)
class KindInfo:
    """The description of a kind, without its versions.

    Attributes:
        group: the API group; ``""`` is the core group.
        plural: the name in paths.
        kind: the name in documents.
        namespaced: whether objects belong to namespaces.
        singular: the singular name; derived from the kind if empty.
        list_kind: the kind of lists; derived from the kind if empty.
        short_names: the short names that kubectl accepts.
        categories: categories such as ``all``.
        extra_subresources: the subresources other than ``/status``.
        verbs: the supported verbs; ``create`` alone for kinds that are answered and never stored.
        stored_as: the group whose objects these are in another form; None for a separate kind.
        status: whether ``/status`` is served and separate.
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
            ``field=path`` for one that is stored elsewhere.
        warning: the warning for clients that use the kind; empty for none.
    """

    group: str
    plural: str
    kind: str
    namespaced: bool
    singular: str = ""
    list_kind: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    status: bool = False
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
    warning: str = ""
    extra_subresources: tuple[str, ...] = ()
    stored_as: str | None = None
    verbs: tuple[str, ...] = _VERBS

    @property
    def internal_group(self) -> str:
        """The group in whose form the objects are stored, and which validation errors name."""
        return self.group if self.stored_as is None else self.stored_as

    @property
    def list_name(self) -> str:
        """The kind of lists."""
        return self.list_kind or f"{self.kind}List"

    @property
    def singular_name(self) -> str:
        """The singular name."""
        return self.singular or self.kind.lower()


def recorded_groups() -> list[JSONObject]:
    """Return the built-in groups with their versions and resources, as in aggregated discovery of a real server."""
    groups: list[JSONObject] = recorded("builtin/discovery.json")
    return groups


def _kind(group: str, resource: JSONObject) -> KindInfo:
    plural = str(resource["resource"])
    subresources = {each["subresource"] for each in resource.get("subresources", ())}
    traits = recorded("builtin/kinds.json")
    own: dict[str, Any] = {**traits.get(f"{group}/*", {}), **traits.get(f"{group}/{plural}", {})}
    own = {name: tuple(value) if isinstance(value, list) else value for name, value in own.items()}
    return KindInfo(
        group,
        plural,
        str(resource["responseKind"]["kind"]),
        resource["scope"] == "Namespaced",
        singular=str(resource["singularResource"]),
        short_names=tuple(resource.get("shortNames", ())),
        categories=tuple(resource.get("categories", ())),
        status="status" in subresources,
        extra_subresources=tuple(name for name in _SERVED_SUBRESOURCES if name in subresources),
        verbs=tuple(resource["verbs"]),
        **own,
    )


def _built_in() -> Iterator[tuple[KindInfo, tuple[str, ...]]]:
    """Yield the recorded kinds that are stored, and those of reviews, with their versions."""
    for group in recorded_groups():
        versions: dict[str, tuple[str, ...]] = {}
        kinds: dict[str, JSONObject] = {}
        name = group["metadata"].get("name", "")
        for version in group["versions"]:
            for resource in version["resources"]:
                if "watch" in resource["verbs"] or name in REVIEWS:
                    plural = resource["resource"]
                    kinds.setdefault(plural, resource)
                    versions[plural] = (*versions.get(plural, ()), version["version"])
        for plural, resource in kinds.items():
            yield _kind(name, resource), versions[plural]


BUILT_IN = tuple(_built_in())
"""Each built-in kind with its served versions, the preferred one first."""


def field_reader(path: str) -> FieldReader:
    """Return a function that reads the text at a dotted path of a document; empty if the field is missing."""

    def read(doc: JSONObject) -> str:
        found = value_at(doc, path, "")
        return str(found).lower() if isinstance(found, bool) else str(found)

    return read


def _first_address(doc: JSONObject) -> str:
    addresses = value_at(doc, "status.podIPs") or [{"ip": value_at(doc, "status.podIP", "")}]
    return str(addresses[0].get("ip") or "")


_COMPUTED: dict[tuple[str, str], dict[str, FieldReader]] = {
    ("", "pods"): {
        "spec.hostNetwork": lambda doc: str(bool(value_at(doc, "spec.hostNetwork"))).lower(),
        "status.podIP": _first_address,
        "status.podIPs": lambda _doc: "",  # accepted, and the same for all pods
    },
    ("", "events"): {
        "source": lambda doc: str(value_at(doc, "source.component") or doc.get("reportingComponent") or "")
    },
}


def selectable_fields(info: KindInfo) -> dict[str, FieldReader]:
    """Return the fields of a kind that field selectors accept, with their readers."""
    paths = (each.partition("=") for each in info.selectable)
    found = {field: field_reader(path or field) for field, _, path in paths}
    return {**found, **_COMPUTED.get((info.group, info.plural), {})}


def skeleton_of(info: KindInfo, version: str) -> JSONObject:
    """Return the fields that an empty document of a built-in kind has besides its type; a required field is None."""
    node = None if info.plural in _EXCLUDED else built_in_node(info.group, version, info.kind)
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
