"""Write and read owner references."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciler.meta.reference import GroupVersionKind, gvk_of, name_of, namespace_of, path_segment, uid_of

__all__ = ["AlreadyOwned", "controller_of", "owner_reference", "set_controller_reference"]


class AlreadyOwned(ValueError):
    """Say that an object has another controller."""


def owner_reference(owner: Mapping[str, Any], *, controller: bool = True) -> dict[str, Any]:
    """Return the reference to put on an object that `owner` owns.

    Raises:
        ValueError: the owner lacks apiVersion, kind, name or uid, so it was never stored; or its name is not valid.
    """
    gvk = gvk_of(owner)
    name, uid = name_of(owner), uid_of(owner)
    if not name or not uid:
        raise ValueError(f"{gvk.kind} {name!r} has no uid: only an object read from the server can own another")
    path_segment(name, "owner's name")
    reference: dict[str, Any] = {"apiVersion": gvk.api_version, "kind": gvk.kind, "name": name, "uid": uid}
    if controller:
        reference |= {"controller": True, "blockOwnerDeletion": True}
    return reference


def controller_of(obj: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the owner reference marked as controller, or None."""
    for reference in (obj.get("metadata") or {}).get("ownerReferences") or ():
        if reference.get("controller"):
            return dict(reference)
    return None


def set_controller_reference(obj: dict[str, Any], owner: Mapping[str, Any]) -> None:
    """Make `owner` the controller of `obj`, in place; the same owner at another API version is updated.

    Raises:
        AlreadyOwned: another object is its controller.
        ValueError: owner and object cannot be related: other namespaces, or a namespaced owner of a cluster object.
    """
    reference = owner_reference(owner)
    owner_namespace = namespace_of(owner)
    if owner_namespace and owner_namespace != namespace_of(obj):
        raise ValueError(
            f"{reference['kind']} {name_of(owner)!r} in namespace {owner_namespace!r} cannot own {name_of(obj)!r} "
            f"in {namespace_of(obj)!r}: an owner is cluster-scoped or in the same namespace"
        )
    current = controller_of(obj)
    if current is not None and current.get("uid") != reference["uid"]:
        raise AlreadyOwned(f"{name_of(obj)!r} is controlled by {current.get('kind')} {current.get('name')!r} already")
    group = GroupVersionKind.parse(f"{reference['apiVersion']}/{reference['kind']}").group
    references = [
        r
        for r in (obj.get("metadata") or {}).get("ownerReferences") or []
        if not (r.get("uid") == reference["uid"] and str(r.get("apiVersion", "")).rpartition("/")[0] == group)
    ]
    obj.setdefault("metadata", {})["ownerReferences"] = [*references, reference]
