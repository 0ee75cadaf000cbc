"""The metadata of objects: kind, name, uid and version, owner references, finalizers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from reconciler.meta.documents import is_object
from reconciler.meta.reference import GroupVersionKind, Request, path_segment

if TYPE_CHECKING:
    from reconciler._core.wire import JSONObject, OwnerReferenceObject


def _metadata(obj: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata = obj.get("metadata")
    return metadata if type(metadata) is dict or is_object(metadata) else {}


def gvk_of(obj: Mapping[str, Any]) -> GroupVersionKind:
    """Return an object's kind.

    Raises:
        ValueError: apiVersion or kind is missing.
    """
    api_version, kind = obj.get("apiVersion"), obj.get("kind")
    if not api_version or not kind:
        raise ValueError(f"object {name_of(obj)!r} has no apiVersion or no kind")
    group, _, version = str(api_version).rpartition("/")
    return GroupVersionKind(group, version, str(kind))


def name_of(obj: Mapping[str, Any]) -> str:
    """Return ``metadata.name``; ``""`` if there is none."""
    return str(_metadata(obj).get("name") or "")


def namespace_of(obj: Mapping[str, Any]) -> str | None:
    """Return ``metadata.namespace``; None if there is none."""
    namespace = _metadata(obj).get("namespace")
    return str(namespace) if namespace else None


def uid_of(obj: Mapping[str, Any]) -> str:
    """Return ``metadata.uid``; ``""`` if there is none."""
    return str(_metadata(obj).get("uid") or "")


def version_of(obj: Mapping[str, Any]) -> str:
    """Return ``metadata.resourceVersion``; ``""`` if there is none."""
    return str(_metadata(obj).get("resourceVersion") or "")


def request_of(obj: Mapping[str, Any] | HasDocument) -> Request:
    """Return the name and namespace of an object: a document, or an instance of a class, also of lightkube."""
    metadata = _metadata(obj if isinstance(obj, dict) else _document(obj))
    namespace = metadata.get("namespace")
    return Request(str(metadata.get("name") or ""), str(namespace) if namespace else None)


class AlreadyOwned(ValueError):
    """The object has another controller."""


class HasDocument(Protocol):
    """An object that can return its document, such as an instance of a Resource class."""

    def to_dict(self) -> JSONObject:
        """Return the document."""
        ...


def owner_reference(owner: Mapping[str, Any] | HasDocument, *, controller: bool = True) -> OwnerReferenceObject:
    """Return the reference to add to an object that `owner` owns.

    Raises:
        ValueError: the owner lacks apiVersion, kind, name or uid (it was never stored), or its name is invalid.
    """
    owner = _document(owner)
    gvk = gvk_of(owner)
    name, uid = name_of(owner), uid_of(owner)
    if not name or not uid:
        raise ValueError(f"{gvk.kind} {name!r} has no uid: only an object read from the server can own another")
    path_segment(name, "owner's name")
    reference: OwnerReferenceObject = {"apiVersion": gvk.api_version, "kind": gvk.kind, "name": name, "uid": uid}
    if controller:
        reference["controller"] = reference["blockOwnerDeletion"] = True
    return reference


def _document(obj: Mapping[str, Any] | HasDocument) -> Mapping[str, Any]:
    return obj if isinstance(obj, Mapping) else obj.to_dict()


def controller_of(obj: Mapping[str, Any]) -> JSONObject | None:
    """Return the owner reference marked as controller, or None."""
    for reference in (obj.get("metadata") or {}).get("ownerReferences") or ():
        if reference.get("controller"):
            return dict(reference)
    return None


def set_controller_reference(obj: JSONObject, owner: Mapping[str, Any] | HasDocument) -> None:
    """Make `owner` the controller of `obj`, in place; a reference to it at another API version is replaced.

    Raises:
        AlreadyOwned: another object is its controller.
        ValueError: the owner is in another namespace, or it is namespaced and the object is cluster-scoped.
    """
    owner = _document(owner)
    reference = owner_reference(owner)
    owner_namespace = namespace_of(owner)
    if owner_namespace and owner_namespace != namespace_of(obj):
        raise ValueError(
            f"{reference['kind']} {name_of(owner)!r} in namespace {owner_namespace!r} cannot own {name_of(obj)!r} "
            f"in {namespace_of(obj)!r}: an owner is cluster-scoped or in the same namespace"
        )
    current = controller_of(obj)
    if current is not None and current.get("uid") != reference["uid"]:
        raise AlreadyOwned(f"{name_of(obj)!r} is already controlled by {current.get('kind')} {current.get('name')!r}")
    group = GroupVersionKind.parse(f"{reference['apiVersion']}/{reference['kind']}").group
    references = [
        r
        for r in (obj.get("metadata") or {}).get("ownerReferences") or []
        if not (r.get("uid") == reference["uid"] and str(r.get("apiVersion", "")).rpartition("/")[0] == group)
    ]
    obj.setdefault("metadata", {})["ownerReferences"] = [*references, reference]


def has_finalizer(obj: Mapping[str, Any], finalizer: str) -> bool:
    """Return whether an object has a finalizer."""
    return finalizer in ((obj.get("metadata") or {}).get("finalizers") or ())


def add_finalizer(obj: JSONObject, finalizer: str) -> bool:
    """Add a finalizer in place; return whether it was missing."""
    if has_finalizer(obj, finalizer):
        return False
    metadata = obj.setdefault("metadata", {})
    metadata["finalizers"] = [*(metadata.get("finalizers") or ()), finalizer]
    return True


def remove_finalizer(obj: JSONObject, finalizer: str) -> bool:
    """Remove every copy of a finalizer in place; return whether there was one."""
    if not has_finalizer(obj, finalizer):
        return False
    metadata = obj["metadata"]
    metadata["finalizers"] = [f for f in metadata["finalizers"] if f != finalizer]
    return True
