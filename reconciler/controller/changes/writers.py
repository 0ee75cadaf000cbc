"""The field managers that wrote the changed fields of an object, from its ``metadata.managedFields``."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

import msgspec

from reconciler._core.wire import UNDECODABLE
from reconciler.controller.changes.fields import Item, Path

__all__ = ["ManagedFields"]

_MAX_NAMES = 3
_MAX_LENGTH = 128


class _Entry(msgspec.Struct, gc=False, rename="camel"):
    manager: str = ""
    subresource: str = ""
    time: str = ""
    fields: msgspec.Raw = msgspec.field(default=msgspec.Raw(b"null"), name="fieldsV1")


class _Metadata(msgspec.Struct, gc=False, rename="camel"):
    managed_fields: list[_Entry] | None = None


class _Object(msgspec.Struct, gc=False):
    metadata: _Metadata


_decode = msgspec.json.Decoder(_Object).decode


class ManagedFields:
    """The managed fields of one version of an object.

    Args:
        received: the object as the API server sent it; None if that is not known.
    """

    def __init__(self, received: msgspec.Raw | bytes | None) -> None:
        self._entries: list[_Entry] = []
        if received is not None:
            try:
                self._entries = _decode(received).metadata.managed_fields or []
            except UNDECODABLE:
                return

    def writers_of(self, path: Path) -> tuple[str, ...]:
        """Return the managers that wrote a field last, three at most; none if that is not known.

        A removed field has no manager any more. The managers of the latest change are returned then. Times of managed
        fields are whole seconds, so there may be several.
        """
        depths = [_owned_depth(tree, path) for tree in self._trees]
        deepest = max(depths, default=0)
        owners = [entry for entry, depth in zip(self._entries, depths, strict=True) if depth == deepest > 0]
        if not owners:
            place = "status" if path[:1] == ("status",) else ""
            owners = [entry for entry in self._entries if entry.subresource == place] or self._entries
        latest = max((entry.time for entry in owners), default="")
        return _names(entry.manager for entry in owners if entry.time == latest)

    def all_writers(self) -> tuple[str, ...]:
        """Return the managers of the object, the first one first; three at most."""
        return _names(entry.manager for entry in sorted(self._entries, key=lambda entry: entry.time))

    @cached_property
    def _trees(self) -> list[Any]:
        return [msgspec.json.decode(entry.fields) for entry in self._entries]


def _owned_depth(tree: Any, path: Path) -> int:
    """Return how many steps of a path lead to a leaf of FieldsV1, or to its end; 0 if the path leaves the tree.

    A leaf is a field without owned parts: it contains everything below it if it is atomic, and nothing otherwise. So
    the owner of more of the path takes precedence.
    """
    for depth, step in enumerate(path):
        if not isinstance(tree, dict):
            return 0
        if not tree:
            return depth
        tree = _below(tree, step)
        if tree is None:
            return 0
    return len(path)


def _below(tree: dict[str, Any], step: str | Item) -> Any:
    if isinstance(step, str):
        return tree.get(f"f:{step}")
    for name, below in tree.items():
        if name == f"i:{step.position}" or (name.startswith("k:") and _has(step.value, name[2:])):
            return below
    return None


def _has(item: Any, keys: str) -> bool:
    try:
        wanted = msgspec.json.decode(keys)
    except UNDECODABLE:
        return False
    return isinstance(item, dict) and isinstance(wanted, dict) and all(item.get(key) == wanted[key] for key in wanted)


def _names(managers: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name[:_MAX_LENGTH] for name in managers if name))[:_MAX_NAMES]
