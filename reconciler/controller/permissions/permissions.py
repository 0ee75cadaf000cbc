"""Declare what a reconciler does to objects, and turn that into rules of Kubernetes' RBAC."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from reconciler.errors import ConfigurationError
from reconciler.objects import KindLike, gvk_from, is_built_in, presumed_resource_type

__all__ = ["AccessRule", "Permission", "Verb", "access_rules", "full_name"]

Verb = Literal["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "apply"]
"""A verb of RBAC. ``"apply"`` stands for ``create`` and ``patch``, which a server-side apply needs."""

_WRITTEN_OUT = {"apply": ("create", "patch")}


class Permission:
    """Declare what a reconciler does to the objects of a kind, beyond what its watches and its status need anyway.

    ::

        class DatabaseReconciler(ResourceReconciler[Database]):
            permissions = [Permission("apps/v1/Deployment", "apply"), Permission("v1/Secret", "get")]

    Args:
        kind: ``"apps/v1/Deployment"``, a GroupVersionKind or a Resource class.
        verbs: of RBAC, or ``"apply"``; ``client.delete_all_of`` is ``"deletecollection"``.
        subresource: such as ``"status"`` or ``"scale"``. Default: the object itself.

    Raises:
        ConfigurationError: it names no kind, no verb, or a verb that there is not.
    """

    __slots__ = ("kind", "subresource", "verbs")

    def __init__(self, kind: KindLike, *verbs: Verb, subresource: str = "") -> None:
        try:
            gvk_from(kind)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"Permission: {error}") from error
        unknown = [verb for verb in verbs if verb not in get_args(Verb)]
        if unknown or not verbs:
            what = f"{unknown[0]!r} is no verb" if unknown else "no verb is given"
            raise ConfigurationError(f"Permission({kind!r}): {what}: give some of {', '.join(get_args(Verb))}")
        self.kind = kind
        self.verbs: tuple[str, ...] = tuple(verbs)
        self.subresource = subresource

    def __repr__(self) -> str:
        subresource = f", subresource={self.subresource!r}" if self.subresource else ""
        return f"Permission({str(gvk_from(self.kind))!r}, {', '.join(map(repr, self.verbs))}{subresource})"


@dataclass(frozen=True, slots=True)
class AccessRule:
    """Allow some verbs on one resource: one rule of a role.

    Attributes:
        group: the API group, ``""`` for the core kinds.
        resource: plural, with the subresource (``"databases/status"``).
        verbs: of RBAC, sorted.
        namespaced: whether the objects live in namespaces.
        names: the objects it is about. Default: all.
        namespace: where it holds, whatever the manager watches. Default: where the manager watches.
        presumed: the plural and the scope are those of a regular kind, because nothing known says them.
    """

    group: str
    resource: str
    verbs: tuple[str, ...]
    namespaced: bool = True
    names: tuple[str, ...] = ()
    namespace: str | None = None
    presumed: bool = False

    def __str__(self) -> str:
        return f"{', '.join(self.verbs)} of {full_name(self.group, self.resource)}"


def access_rules(permissions: Iterable[Permission]) -> list[AccessRule]:
    """Return the rules for some permissions, one a resource, in the order in which the resources are first named."""
    verbs: dict[tuple[str, str], set[str]] = {}
    found: dict[tuple[str, str], AccessRule] = {}
    for permission in permissions:
        served = presumed_resource_type(permission.kind)
        resource = f"{served.plural}/{permission.subresource}" if permission.subresource else served.plural
        key = served.gvk.group, resource
        presumed = not isinstance(permission.kind, type) and not is_built_in(served.gvk.group)
        earlier = found.get(key)
        if earlier is None or (earlier.presumed and not presumed):
            found[key] = AccessRule(*key, (), served.namespaced, presumed=presumed)
        verbs.setdefault(key, set()).update(*(_WRITTEN_OUT.get(verb, (verb,)) for verb in permission.verbs))
    return [
        AccessRule(rule.group, rule.resource, tuple(sorted(verbs[key])), rule.namespaced, presumed=rule.presumed)
        for key, rule in found.items()
    ]


def full_name(group: str, resource: str) -> str:
    """Return a resource as kubectl names it: ``databases.example.com/status``."""
    plural, _, subresource = resource.partition("/")
    return "".join((plural, f".{group}" if group else "", f"/{subresource}" if subresource else ""))
