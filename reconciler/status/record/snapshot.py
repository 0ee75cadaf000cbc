"""One version of an object: its status, and which manager owns which field.

A set of owned fields is a tree (FieldsV1): ``f:name`` is a member, ``k:{…}`` an item of a keyed list, ``v:…`` an item
of a set, ``.`` the value itself. An empty tree is a leaf: the manager owns the value as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

import msgspec

from reconciler.meta.documents import is_object
from reconciler.status.record.conversion import copy_json, digest

if TYPE_CHECKING:
    from reconciler._core.wire import JSONObject, ManagedFieldsEntry
    from reconciler.status.record.mutations import Path

__all__ = ["FieldTree", "Snapshot", "field_trees", "owned_by_others_only", "owners_of", "owns"]

FieldTree = Mapping[str, Any]

_MOVED = ("resourceVersion", "generation", "managedFields")
_NOT_SENT = frozenset({"managedFields", "uid"})
_NOT_KEPT = frozenset({"apiVersion", "kind", "metadata", "spec", "status"})


class Snapshot(msgspec.Struct, frozen=True):
    """A version of the object; later changes to the caller's object do not affect it.

    Attributes:
        version: its resourceVersion; ``""`` if it was never stored.
        uid: its uid; ``""`` if it was never stored.
        generation: its generation; None for kinds without one.
        status: ``{}`` if it has none. Do not change it.
        managed_fields: as the server keeps them; empty if they were stripped.
        rest: fingerprint of everything except the status and what every write changes; empty unless requested.
        around: what `frame` is made of: the members beside spec and status; empty unless requested. It may have those
            two as well. Do not change it.
    """

    version: str
    uid: str
    generation: int | None
    status: JSONObject
    managed_fields: tuple[ManagedFieldsEntry, ...] = ()
    rest: bytes = b""
    around: Mapping[str, Any] = msgspec.field(default_factory=dict)

    @classmethod
    def of(
        cls,
        document: Mapping[str, Any],
        *,
        with_rest: bool = False,
        with_frame: bool = False,
        private: bool = False,
    ) -> Snapshot:
        """Return the snapshot of a whole object.

        Args:
            document: the object.
            with_rest: compute `rest` too, for writes to the main resource.
            with_frame: keep what `frame` needs, for updates.
            private: nobody can change the document's metadata, so it is shared.

        Raises:
            TypeError: its status is not an object.
        """
        metadata, status = document.get("metadata") or {}, document.get("status") or {}
        generation, managed_fields = metadata.get("generation"), metadata.get("managedFields")
        if type(status) is not dict and not is_object(status):
            raise TypeError(f"the status is a {type(status).__name__}, not an object, so it has no fields to record")
        return cls(
            version=str(metadata.get("resourceVersion") or ""),
            uid=str(metadata.get("uid") or ""),
            generation=generation if isinstance(generation, int) else None,
            status=copy_json(status),
            managed_fields=tuple(managed_fields) if _are_objects(managed_fields) else (),
            rest=_rest(document) if with_rest else b"",
            around=_around(document, private=private) if with_frame else {},
        )

    @property
    def frame(self) -> JSONObject:
        """Return what an update sends around the status. Do not change its values.

        It has the metadata, which a status write may change for some kinds, and the members beside spec and status. The
        server keeps those members in any case. But if an update leaves one out, the server forgets who owns its fields
        (seen on kube-apiserver 1.36), and a later apply would not remove them. The spec does not have this problem.
        """
        metadata = {name: value for name, value in self.around["metadata"].items() if name not in _NOT_SENT}
        kept = {member: value for member, value in self.around.items() if member not in _NOT_KEPT}
        return {**kept, "metadata": metadata}


def _are_objects(value: Any) -> TypeGuard[list[Any]]:
    return type(value) is list and set(map(type, value)) <= {dict}


def _rest(document: Mapping[str, Any]) -> bytes:
    metadata = {k: v for k, v in (document.get("metadata") or {}).items() if k not in _MOVED}
    return digest({**{k: v for k, v in document.items() if k != "status"}, "metadata": metadata})


def _around(document: Mapping[str, Any], *, private: bool) -> Mapping[str, Any]:
    if private:
        return document
    copied: JSONObject = copy_json({name: value for name, value in document.items() if name not in ("spec", "status")})
    return copied


def field_trees(managed_fields: Sequence[ManagedFieldsEntry]) -> Iterator[tuple[str, FieldTree]]:
    """Yield the manager and the tree below ``status`` of each entry of ``managedFields`` that has one."""
    for entry in managed_fields:
        tree = (entry.get("fieldsV1") or {}).get("f:status")
        if isinstance(tree, Mapping):
            yield str(entry.get("manager", "")), tree


def owns(managed_fields: Sequence[ManagedFieldsEntry], manager: str, path: Path) -> bool:
    """Return whether a manager owns the status field at a path."""
    return any(_covers(tree, path) for name, tree in field_trees(managed_fields) if name == manager)


def owned_by_others_only(managed_fields: Sequence[ManagedFieldsEntry], manager: str, path: Path) -> bool:
    """Return whether the status field at a path has owners, and this manager is not one of them."""
    owners = owners_of(managed_fields, path)
    return bool(owners) and manager not in owners


def owners_of(managed_fields: Sequence[ManagedFieldsEntry], path: Path) -> set[str]:
    """Return the managers that own the status field at a path."""
    return {name for name, tree in field_trees(managed_fields) if _covers(tree, path)}


def _covers(tree: FieldTree, path: Path) -> bool:
    for depth, key in enumerate(path):
        child = tree.get(f"f:{key}")
        if not isinstance(child, Mapping):
            return depth > 0 and not tree
        tree = child
    return True
