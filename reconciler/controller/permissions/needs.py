"""Say what a controller must be allowed to do: what its watches, its status and its finalizer need, and more."""

from __future__ import annotations

from collections.abc import Sequence

from reconciler.controller.permissions.permissions import Permission
from reconciler.controller.reconciler import Reconciler
from reconciler.controller.resource_reconciler import ResourceReconciler
from reconciler.controller.wake.watches import OwnerMapper, Watch
from reconciler.objects import KindLike

__all__ = ["needs_of"]


def needs_of(reconciler: Reconciler, kind: KindLike, watches: Sequence[Watch]) -> list[Permission]:
    """Return all that a controller needs; what its reconciler declares comes last.

    A finalizer is put on and taken off by a patch of the object. A controller that sets owner references needs
    ``update`` of the owners' ``finalizers`` where the admission plugin OwnerReferencesPermissionEnforcement is on, as
    in OpenShift.
    """
    needs = [Permission(kind, "get", "list", "watch")]
    finalizes = False
    if isinstance(reconciler, ResourceReconciler):
        needs += _for_the_status(reconciler, kind)
        finalizes = type(reconciler).finalize is not ResourceReconciler.finalize
        if finalizes or reconciler.finalizer is not None:
            needs.append(Permission(kind, "patch"))
    if finalizes or any(isinstance(watch.mapper, OwnerMapper) for watch in watches):
        needs.append(Permission(kind, "update", subresource="finalizers"))
    needs += [Permission(watch.kind, "get", "list", "watch") for watch in watches]
    needs.append(Permission("v1/Event", "create", "patch"))
    return [*needs, *(reconciler.permissions or ())]


def _for_the_status(reconciler: ResourceReconciler, kind: KindLike) -> list[Permission]:
    subresource = reconciler.status_subresource
    strategy = reconciler.status_strategy
    needs = []
    if subresource is not None:
        needs.append(Permission(kind, "update" if strategy == "update" else "patch", subresource="status"))
    # Without the subresource the status is a part of the object. An apply takes earlier patches over by a patch of the
    # object's managed fields.
    if subresource is None or strategy == "apply":
        needs.append(Permission(kind, "patch"))
    return needs
