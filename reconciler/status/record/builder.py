"""The arguments of a batcher's verbs, checked and turned into mutations."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reconciler.meta.conditions import check_condition
from reconciler.meta.scalars import encodable
from reconciler.status.record.conversion import to_json
from reconciler.status.record.mutations import (
    Append,
    Increment,
    Merge,
    Mutate,
    Mutation,
    Path,
    PathLike,
    Remove,
    RemoveItem,
    Set,
    SetCondition,
    Upsert,
)

if TYPE_CHECKING:
    from reconciler._core.wire import JSONObject
    from reconciler.clock import Clock
    from reconciler.status.record.schema import FieldNames

__all__ = ["UNSET", "MutationBuilder"]

UNSET: Any = object()
"""The default of an argument for which None is a value."""


class MutationBuilder:
    """A builder of the mutations of one batcher. `StatusBatcher` has the same methods and documents their arguments.

    Args:
        names: the field names of the kind's status.
        clock: the time of conditions.
    """

    def __init__(self, names: FieldNames, clock: Clock) -> None:
        self._names = names
        self._clock = clock

    def set(self, target: Any, value: object, overwrite: bool | None, fields: Mapping[str, object]) -> list[Mutation]:
        """Return one mutation for each field."""
        found: list[Mutation] = []
        if value is not UNSET:
            path = self._names.path(target)
            found.append(Set(path, to_json(value, ".".join(path)), overwrite))
        elif isinstance(target, str):
            raise TypeError(f"set({target!r}) needs a value: set({target!r}, value)")
        elif target is not None:
            found += [Set((key,), item, overwrite) for key, item in self._names.model_values(target).items()]
        for name, item in fields.items():
            found.append(Set(self._names.path((name,)), to_json(item, name), overwrite))
        return found

    def merge(self, target: Any, document: Any, fields: Mapping[str, object]) -> list[Mutation]:
        """Return one mutation; none if there is nothing to merge."""
        if document is not None:
            path = self._names.path(target)
            return [Merge(path, _object(to_json(document, ".".join(path))))]
        members = self._names.members({**_object(target if target is not None else {}), **fields})
        return [Merge((), members)] if members else []

    def append(
        self, path: PathLike, item: object, keep_last: int | None, count_dropped: PathLike | None, key: PathLike | None
    ) -> Mutation:
        """Return an append."""
        if keep_last is not None and keep_last < 1:
            raise ValueError(f"keep_last must be 1 or more, not {keep_last}; remove() empties a list")
        if count_dropped is not None and keep_last is None:
            raise ValueError("count_dropped counts the entries that keep_last drops: pass both")
        keys, value = self._item(path, item)
        counter = None if count_dropped is None else self._names.path(count_dropped)
        return Append(keys, value, keep_last, None if key is None else _key_of(value, key), counter)

    def upsert(self, path: PathLike, item: object, key: PathLike) -> Mutation:
        """Return an upsert."""
        keys, value = self._item(path, item)
        return Upsert(keys, value, _key_of(value, key))

    def increment(self, path: PathLike, by: float) -> Mutation:
        """Return an increment."""
        if isinstance(by, bool) or not isinstance(by, (int, float)):
            raise TypeError(f"increment adds a number, not a {type(by).__name__}")
        if not math.isfinite(by):
            raise ValueError("increment adds a finite number")
        return Increment(self._names.path(path), by)

    def remove(self, path: PathLike, item: Mapping[str, Any] | None) -> Mutation:
        """Return the removal of a field, or of list items."""
        if item is None:
            return Remove(self._names.path(path))
        keys, members = self._item(path, item)
        if not isinstance(members, dict) or not members:
            raise ValueError("item names the members of the items to remove: {'name': 'mail'}; without it all go")
        return RemoveItem(keys, members)

    def set_condition(
        self, type: str, status: bool | str, *, reason: str, message: str, path: PathLike, generation: int | None
    ) -> Mutation:
        """Return the mutation that sets a condition, dated now."""
        keys = self._names.path(path)
        try:
            sendable = (type + reason + message).isascii()
        except (TypeError, AttributeError):  # not texts
            sendable = False
        if not sendable:
            type, reason, message = _text("type", type), _text("reason", reason), _text("message", message)  # noqa: A001
        if keys == ("conditions",) and self._names.demands_api_conditions:
            check_condition(type, reason, message)
        return SetCondition(keys, type, status, reason, message, generation, self._clock.now())

    @staticmethod
    def mutate(function: Callable[[JSONObject], object]) -> Mutation:
        """Return the mutation that runs a function."""
        if not callable(function):
            raise TypeError(f"mutate takes a function of the status, not a {type(function).__name__}")
        return Mutate(function)

    def _item(self, path: PathLike, item: object) -> tuple[Path, Any]:
        keys = self._names.path(path)
        return keys, to_json(item, ".".join(keys))


def _text(name: str, value: object) -> str:
    if name == "message" and isinstance(value, str):
        return encodable(value)  # it may be the text of an error, which names a file
    text = to_json(value, f"the {name} of a condition")
    if not isinstance(text, str):
        raise TypeError(f"the {name} of a condition must be a string, not a {type(value).__name__}")
    return text


def _object(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"merge takes an object, not a {type(value).__name__}")
    return value


def _key_of(item: Any, key: str | Sequence[str]) -> Path:
    members = (key,) if isinstance(key, str) else tuple(key)
    if not members:
        raise TypeError("a key must name at least one member of an item")
    missing = [member for member in members if not isinstance(item, Mapping) or item.get(member) is None]
    if missing:
        raise TypeError(f"the item has no {', '.join(missing)}: every item of a keyed list must have its key")
    return members
