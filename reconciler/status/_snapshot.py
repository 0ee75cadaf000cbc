"""Hold what a batcher needs of one version of an object, safe from what the caller does to the object meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reconciler.meta import uid_of, version_of
from reconciler.status._json import copy_json

__all__ = ["Snapshot"]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Be one version of the object.

    Attributes:
        version: its resourceVersion; ``""`` when it was never stored.
        uid: its uid; ``""`` when it was never stored.
        generation: of its desired state; None for kinds without.
        status: ``{}`` when it has none. Not to be changed.
        managed_fields: as the server keeps them; empty when they were stripped.
    """

    version: str
    uid: str
    generation: int | None
    status: dict[str, Any]
    managed_fields: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Snapshot:
        """Take what is needed out of a whole object."""
        metadata = document.get("metadata") or {}
        generation = metadata.get("generation")
        return cls(
            version=version_of(document),
            uid=uid_of(document),
            generation=generation if isinstance(generation, int) else None,
            status=copy_json(document.get("status") or {}),
            managed_fields=tuple(metadata.get("managedFields") or ()),
        )
