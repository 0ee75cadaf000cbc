"""Hold what a batcher needs of one version of an object, safe from what the caller does to the object meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from reconciler.status.record.json_values import copy_json, digest

__all__ = ["Snapshot"]

_MOVED = ("resourceVersion", "generation", "managedFields")
_NOT_SENT = ("managedFields", "uid")
_NOT_KEPT = frozenset({"apiVersion", "kind", "metadata", "spec", "status"})


class Snapshot(msgspec.Struct, frozen=True):
    """Be one version of the object.

    Attributes:
        version: its resourceVersion; ``""`` when it was never stored.
        uid: its uid; ``""`` when it was never stored.
        generation: of its desired state; None for kinds without.
        status: ``{}`` when it has none. Not to be changed.
        managed_fields: as the server keeps them; empty when they were stripped.
        rest: fingerprint of all that is neither status nor moved by every write; empty when it was not asked for.
        frame: what an update sends around the status; empty when it was not asked for. Not to be changed.
    """

    version: str
    uid: str
    generation: int | None
    status: dict[str, Any]
    managed_fields: tuple[Mapping[str, Any], ...] = ()
    rest: bytes = b""
    frame: Mapping[str, Any] = msgspec.field(default_factory=dict)

    @classmethod
    def of(cls, document: Mapping[str, Any], *, whole: bool = False, framed: bool = False) -> Snapshot:
        """Take what is needed out of a whole object.

        Args:
            document: the object.
            whole: take the `rest` too, for writes of the whole object.
            framed: take the `frame` too, for updates.
        """
        metadata = document.get("metadata") or {}
        generation = metadata.get("generation")
        return cls(
            version=str(metadata.get("resourceVersion") or ""),
            uid=str(metadata.get("uid") or ""),
            generation=generation if isinstance(generation, int) else None,
            status=copy_json(document.get("status") or {}),
            managed_fields=tuple(metadata.get("managedFields") or ()),
            rest=_rest(document) if whole else b"",
            frame=_frame(document) if framed else {},
        )


def _rest(document: Mapping[str, Any]) -> bytes:
    metadata = {k: v for k, v in (document.get("metadata") or {}).items() if k not in _MOVED}
    return digest({**{k: v for k, v in document.items() if k != "status"}, "metadata": metadata})


def _frame(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata, which some kinds let a write of the status change, and members beside spec and status.

    The server keeps those members in any case, but where an update leaves one out, it forgets who owns its fields (seen
    on kube-apiserver 1.36); a later apply would not remove them then. For spec alone it knows better.
    """
    metadata = dict(document.get("metadata") or {})
    for member in _NOT_SENT:
        metadata.pop(member, None)
    kept = {member: value for member, value in document.items() if member not in _NOT_KEPT}
    copied: dict[str, Any] = copy_json({**kept, "metadata": metadata})
    return copied
