"""The list of built-in kinds, and the description of any kind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from reconciler.apiserver.encoding.data_files import recorded
from reconciler.wire import JSONObject

__all__ = ["BUILT_IN", "DEPRECATED", "REVIEWS", "KindInfo", "recorded_groups"]


_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


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
    extra_subresources: tuple[str, ...] = ()
    stored_as: str | None = None
    verbs: tuple[str, ...] = _VERBS

    @property
    def internal_group(self) -> str:
        """The group of the kind in validation errors."""
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


_ADMISSION = "admissionregistration.k8s.io"
_ROLES = frozenset({"roles", "rolebindings", "clusterroles", "clusterrolebindings"})
_CREATED_BY_PUT = _ROLES | {"endpoints", "events", "leases", "limitranges", "runtimeclasses", "services"}
_VERSIONED_PUTS = frozenset(
    {
        "csidrivers",
        "csinodes",
        "csistoragecapacities",
        "customresourcedefinitions",
        "leases",
        "poddisruptionbudgets",
        "runtimeclasses",
        "volumeattachments",
    }
)
"""The kinds whose PUT must contain the resourceVersion, besides those of admission."""
_WITHOUT_GENERATION = frozenset({"controllerrevisions", "resourceclaims", "resourceclaimtemplates"})
_WITH_GENERATION = frozenset(
    {
        "customresourcedefinitions",
        "endpointslices",
        "ingressclasses",
        "ingresses",
        "networkpolicies",
        "poddisruptionbudgets",
        "pods",
        "podtemplates",
        "priorityclasses",
        "replicationcontrollers",
    }
)
_GROUPS_WITH_GENERATION = frozenset({_ADMISSION, "apps", "batch", "flowcontrol.apiserver.k8s.io", "resource.k8s.io"})
_NAMES = {
    "namespaces": "label",
    "services": "label",
    **dict.fromkeys((*_ROLES, "apiservices", "certificatesigningrequests"), "path"),
}
_SERVED_SUBRESOURCES = ("scale", "approval", "binding", "ephemeralcontainers", "eviction", "resize", "token")
REVIEWS = ("authentication.k8s.io", "authorization.k8s.io")
"""The groups of kinds that are answered and never stored."""


def _kind(group: str, resource: JSONObject) -> KindInfo:
    plural = str(resource["resource"])
    subresources = {each["subresource"] for each in resource.get("subresources", ())}
    generation = plural in _WITH_GENERATION or group in _GROUPS_WITH_GENERATION
    return KindInfo(
        group,
        plural,
        str(resource["responseKind"]["kind"]),
        resource["scope"] == "Namespaced",
        singular=str(resource["singularResource"]),
        short_names=tuple(resource.get("shortNames", ())),
        categories=tuple(resource.get("categories", ())),
        status="status" in subresources,
        generation=generation and plural not in _WITHOUT_GENERATION,
        unconditional=plural not in _VERSIONED_PUTS and group != _ADMISSION,
        create_on_update=plural in _CREATED_BY_PUT,
        names=_NAMES.get(plural, "subdomain"),
        extra_subresources=tuple(name for name in _SERVED_SUBRESOURCES if name in subresources),
        stored_as="" if group == "events.k8s.io" else None,
        verbs=tuple(resource["verbs"]),
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

DEPRECATED = {("", "endpoints"): "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"}
"""The warnings for using a kind."""
