"""Hold what a batcher needs of one version of an object, safe from what the caller does to the object meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from reconciler.meta import uid_of, version_of
from reconciler.status._json import copy_json, digest

__all__ = ["Snapshot"]

_MOVED = ("resourceVersion", "generation", "managedFields")
_NOT_SENT = ("managedFields", "uid")


class Snapshot(msgspec.Struct, frozen=True):
    """Be one version of the object.

    Attributes:
        version: its resourceVersion; ``""`` when it was never stored.
        uid: its uid; ``""`` when it was never stored.
        generation: of its desired state; None for kinds without.
        status: ``{}`` when it has none. Not to be changed.
        metadata: what an update sends of it. Not to be changed.
        managed_fields: as the server keeps them; empty when they were stripped.
        rest: fingerprint of all that is neither status nor moved by every write; empty when it was not asked for.
    """

    version: str
    uid: str
    generation: int | None
    status: dict[str, Any]
    metadata: Mapping[str, Any] = msgspec.field(default_factory=dict)
    managed_fields: tuple[Mapping[str, Any], ...] = ()
    rest: bytes = b""

    @classmethod
    def of(cls, document: Mapping[str, Any], *, whole: bool = False) -> Snapshot:
        """Take what is needed out of a whole object.

        Args:
            document: the object.
            whole: take the `rest` too, for writes of the whole object.
        """
        metadata = document.get("metadata") or {}
        generation = metadata.get("generation")
        return cls(
            version=version_of(document),
            uid=uid_of(document),
            generation=generation if isinstance(generation, int) else None,
            status=copy_json(document.get("status") or {}),
            metadata=copy_json({k: v for k, v in metadata.items() if k not in _NOT_SENT}),
            managed_fields=tuple(metadata.get("managedFields") or ()),
            rest=_rest(document) if whole else b"",
        )


def _rest(document: Mapping[str, Any]) -> bytes:
    metadata = {k: v for k, v in (document.get("metadata") or {}).items() if k not in _MOVED}
    return digest({**{k: v for k, v in document.items() if k != "status"}, "metadata": metadata})
