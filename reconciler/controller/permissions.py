"""Permissions that a reconciler declares, the RBAC rules made from them, and a check of requests against them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from reconciler.errors import ConfigurationError
from reconciler.http import HTTPRequest, HTTPResponse, Transport, resource_of_path
from reconciler.objects.kinds import KindLike, gvk_from, is_built_in, presumed_resource_type

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


_log = logging.getLogger("reconciler.controller")

_WRITE_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch"}


class PermissionCheck:
    """A transport that warns about requests which the declared permissions do not cover, once per verb and resource.

    Args:
        transport: sends the requests.
        name: the reconciler's name, for the warning.
        rules: the permissions.
    """

    def __init__(self, transport: Transport, *, name: str, rules: Sequence[AccessRule]) -> None:
        self._transport = transport
        self._name = name
        self._covered = {(rule.group, rule.resource, verb) for rule in rules for verb in rule.verbs}

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        """Send a request, covered or not."""
        access = access_of(request)
        if access is not None and access not in self._covered:
            self._compare(*access)
        return await self._transport.send(request)

    def _compare(self, group: str, resource: str, verb: str) -> None:
        needed = {(group, resource, each) for each in rbac_verbs(verb)}
        if needed <= self._covered:
            return
        self._covered |= needed
        subresource = resource.partition("/")[2]
        _log.warning(
            "%s does not declare the permission to %s %s, so the role of 'reconciler manifests' will forbid it. "
            "Add Permission(KIND, %r%s) to its permissions",
            self._name,
            verb,
            full_name(group, resource),
            verb,
            f", subresource={subresource!r}" if subresource else "",
        )


def access_of(request: HTTPRequest) -> tuple[str, str, str] | None:
    """Return group, resource and verb of a request as a `Permission` names them; None for other paths."""
    found = resource_of_path(request.path)
    if found is None:
        return None
    group, resource, named = found
    verb = _verb(request, named=named)
    if verb == "patch" and "/" not in resource and "apply" in request.headers.get("content-type", ""):
        verb = "apply"  # creates the object if it does not exist
    return group, resource, verb


def _verb(request: HTTPRequest, *, named: bool) -> str:
    if request.method == "DELETE":
        return "delete" if named else "deletecollection"
    if request.method != "GET":
        return _WRITE_VERBS.get(request.method, request.method.lower())
    if named:
        return "get"
    return "watch" if any(name == "watch" and value not in ("0", "false") for name, value in request.query) else "list"
