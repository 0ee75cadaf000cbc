"""Permissions that a reconciler declares, and the RBAC rules made from them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from reconciler.errors import ConfigurationError
from reconciler.objects.kinds import KindLike, gvk_from, is_built_in, presumed_resource_type

__all__ = ["AccessRule", "Permission", "Verb", "access_rules", "full_name", "rbac_verbs"]

Verb = Literal["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "apply"]
"""A verb of RBAC. ``"apply"`` means ``create`` and ``patch``, which a server-side apply needs."""

_EXPANDED = {"apply": ("create", "patch")}


def rbac_verbs(verb: str) -> tuple[str, ...]:
    """Return the verbs of RBAC that a verb of a `Permission` means."""
    return _EXPANDED.get(verb, (verb,))


class Permission:
    """A declared permission: verbs that a reconciler uses on a kind, besides those for its watches and its status.

    ::

        class DatabaseReconciler(ResourceReconciler[Database]):
            permissions = [Permission("apps/v1/Deployment", "apply"), Permission("v1/Secret", "get")]

    Args:
        kind: ``"apps/v1/Deployment"``, a GroupVersionKind or a Resource class.
        verbs: of RBAC, or ``"apply"``; ``client.delete_all_of`` is ``"deletecollection"``.
        subresource: such as ``"status"`` or ``"scale"``. Default ``""``: the object itself.

    Raises:
        ConfigurationError: the kind is invalid, a verb is unknown, or there is no verb.
    """

    __slots__ = ("kind", "subresource", "verbs")

    def __init__(self, kind: KindLike, *verbs: Verb, subresource: str = "") -> None:
        try:
            gvk_from(kind)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"Permission: {error}") from error
        unknown = [verb for verb in verbs if verb not in get_args(Verb)]
        if unknown or not verbs:
            what = f"unknown verb {unknown[0]!r}" if unknown else "no verb is given"
            raise ConfigurationError(f"Permission({kind!r}): {what}; the verbs are {', '.join(get_args(Verb))}")
        self.kind = kind
        self.verbs: tuple[str, ...] = tuple(verbs)
        self.subresource = subresource

    def __repr__(self) -> str:
        subresource = f", subresource={self.subresource!r}" if self.subresource else ""
        return f"Permission({str(gvk_from(self.kind))!r}, {', '.join(map(repr, self.verbs))}{subresource})"


@dataclass(frozen=True, slots=True)
class AccessRule:
    """One rule of a role: some verbs on one resource.

    Attributes:
        group: the API group, ``""`` for the core kinds.
        resource: plural, with the subresource (``"databases/status"``).
        verbs: of RBAC, sorted.
        namespaced: whether the objects live in namespaces.
        names: the objects it applies to. Default: all.
        namespace: where it applies, whatever the manager watches. Default: where the manager watches.
        presumed: whether plural and scope are guessed from the kind, because they are not known.
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
    """Return the rules for permissions, one per resource, in the order in which the resources first appear."""
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
        verbs.setdefault(key, set()).update(*map(rbac_verbs, permission.verbs))
    return [
        AccessRule(rule.group, rule.resource, tuple(sorted(verbs[key])), rule.namespaced, presumed=rule.presumed)
        for key, rule in found.items()
    ]


def full_name(group: str, resource: str) -> str:
    """Return the name of a resource in kubectl's form: ``databases.example.com/status``."""
    plural, _, subresource = resource.partition("/")
    return "".join((plural, f".{group}" if group else "", f"/{subresource}" if subresource else ""))
