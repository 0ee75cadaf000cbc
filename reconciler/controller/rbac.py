"""The RBAC permissions that a controller needs, and a check of its requests against them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from reconciler.controller.permissions import AccessRule, Permission, full_name, rbac_verbs
from reconciler.controller.reconciler import Reconciler
from reconciler.controller.resource_reconciler import ResourceReconciler, defines_finalize, strategy_of
from reconciler.controller.wake.watches import OwnerMapper, Watch
from reconciler.http import HTTPRequest, HTTPResponse, Transport
from reconciler.objects.kinds import KindLike

__all__ = ["PermissionCheck", "required_permissions"]

_log = logging.getLogger("reconciler.controller")

_WRITE_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch"}

_NAMESPACE_SUBRESOURCES = ("status", "finalize")


def required_permissions(reconciler: Reconciler, kind: KindLike, watches: Sequence[Watch]) -> list[Permission]:
    """Return everything that a controller needs; the permissions that its reconciler declares come last.

    A finalizer is added and removed by a patch of the object. A controller that sets owner references needs ``update``
    of the owners' ``finalizers`` if the admission plugin OwnerReferencesPermissionEnforcement is on, as in OpenShift.
    """
    permissions = [Permission(kind, "get", "list", "watch")]
    finalizes = False
    if isinstance(reconciler, ResourceReconciler):
        permissions += _for_status(reconciler, kind)
        finalizes = defines_finalize(reconciler)
        if finalizes or reconciler.finalizer is not None:
            permissions.append(Permission(kind, "patch"))
    if finalizes or any(isinstance(watch.mapper, OwnerMapper) for watch in watches):
        permissions.append(Permission(kind, "update", subresource="finalizers"))
    permissions += [Permission(watch.kind, "get", "list", "watch") for watch in watches]
    permissions.append(Permission("v1/Event", "create", "patch"))
    return [*permissions, *(reconciler.permissions or ())]


def _for_status(reconciler: ResourceReconciler, kind: KindLike) -> list[Permission]:
    subresource = reconciler.status_subresource
    strategy = strategy_of(reconciler, kind)
    permissions = []
    if subresource is not None:
        permissions.append(Permission(kind, "update" if strategy == "update" else "patch", subresource="status"))
    # Without the subresource the status is part of the object. An apply takes over earlier patches
    # by a patch of the object's managed fields.
    if subresource is None or strategy == "apply":
        permissions.append(Permission(kind, "patch"))
    return permissions


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
        access = _access_of(request)
        if access is not None:
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


def _access_of(request: HTTPRequest) -> tuple[str, str, str] | None:
    """Return group, resource and verb of a request as a `Permission` names them; None for other paths."""
    match request.path.strip("/").split("/"):
        case ["api", _, *rest]:
            group = ""
        case ["apis", group, _, *rest]:
            pass
        case _:
            return None
    if len(rest) > 2 and rest[0] == "namespaces" and rest[2] not in _NAMESPACE_SUBRESOURCES:
        rest = rest[2:]
    match rest:
        case [resource]:
            named = False
        case [resource, _]:
            named = True
        case [plural, _, subresource, *_]:
            resource, named = f"{plural}/{subresource}", True
        case _:
            return None
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
