"""Mutations: recorded changes of a status, which can be applied to any version of it.

A mutation has the paths that it writes, and states whether it is idempotent. This decides what may be repeated after a
conflict and after an unknown outcome.

An item of a keyed list is found by its key without a search through the list. Two keys are equal as
`reconciler.meta.equal` compares JSON, so here they become hashable values that are equal exactly then. The embedded
server has its own code for this.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, Self

import msgspec

from reconciler.meta import PathError, equal, find_condition, set_condition
from reconciler.meta.documents import (
    copy_json,
    delete_path,
    format_path,
    get_path,
    identical,
    is_object,
    merge_patch,
    set_path,
)
from reconciler.meta.metadata import are_conditions, has_condition
from reconciler.status.documents import to_json

if TYPE_CHECKING:
    from reconciler._core.wire import JSONObject

Key = tuple[str, ...]

_PLAIN = frozenset({str, int, float, type(None)})
"""Types whose values are equal in Python exactly if they are equal as JSON."""


def item_key(item: Any, key: Key) -> Hashable:
    """Return the values of an item's key members, for comparison; None for an item that is not an object."""
    if type(item) is not dict and not is_object(item):
        return None
    values = tuple([item.get(member) for member in key])
    return values if _PLAIN.issuperset(map(type, values)) else tuple(map(_hashable, values))


def _hashable(value: Any) -> Hashable:
    if isinstance(value, bool):
        return bool, value  # in Python, True equals 1
    if isinstance(value, list):
        return list, tuple(map(_hashable, value))
    if is_object(value):
        return frozenset((name, _hashable(member)) for name, member in value.items() if member is not None)
    hashable: Hashable = value
    return hashable


class KeyIndex:
    """The position of each item of a list by its key, while the list is changed in place.

    Items that are added at the end are noticed. Everything else that changes the list replaces it by another one.

    Args:
        items: the list.
        key: the members that identify an item.
    """

    def __init__(self, items: list[Any], key: Key) -> None:
        self.items = items
        self.key = key
        self._positions: dict[Hashable, int] = {}  # of the first item with a key, plus `_dropped`
        self._indexed = self._dropped = 0
        self._is_unique = True

    def find(self, item: Any) -> int | None:
        """Find the first item with the key of this one; return its position, or None."""
        size = len(self.items)
        for index in range(self._indexed, size):
            position = index + self._dropped
            first = self._positions.setdefault(item_key(self.items[index], self.key), position)
            self._is_unique = self._is_unique and first == position
        self._indexed = size
        found = self._positions.get(item_key(item, self.key))
        return None if found is None else found - self._dropped

    def drop(self, count: int) -> None:
        """Remove items from the start of the list."""
        if self._is_unique and count <= self._indexed:
            for item in islice(self.items, count):
                del self._positions[item_key(item, self.key)]
            self._indexed -= count
            self._dropped += count
        else:
            self._positions, self._indexed, self._is_unique = {}, 0, True
        del self.items[:count]


def first_by_key(items: Sequence[Any], key: Key) -> dict[Hashable, Any]:
    """Return the first item for each key."""
    return {item_key(item, key): item for item in reversed(items)}


Path = tuple[str, ...]

PathLike = str | Sequence[str]
"""``"a.b"``, or a sequence of keys, for keys that contain a dot."""

_HIDDEN = frozenset({"value", "document", "item", "members", "message", "function"})
"""Fields that a mutation's ``repr`` and rich's leave out, since they contain values of the caller."""


class ApplyStatistics(msgspec.Struct):
    """Counts of what applying mutations did besides changing the status, and what they know about its lists.

    Attributes:
        trimmed: list entries that ``keep_last`` dropped.
        indexes: of keyed lists, by their paths.
    """

    trimmed: int = 0
    indexes: dict[Path, KeyIndex] = msgspec.field(default_factory=dict)

    def index(self, path: Path, key: Path, items: list[Any]) -> KeyIndex:
        """Return the index of the list at a path; the one of an earlier mutation, if it is the same list."""
        found = self.indexes.get(path)
        if found is None or found.items is not items or found.key != key:
            found = self.indexes[path] = KeyIndex(items, key)
        return found


class Mutation(msgspec.Struct, frozen=True):
    """A recorded change of a status."""

    verb: ClassVar[str]
    idempotent: ClassVar[bool] = True

    @property
    def paths(self) -> Sequence[Path]:
        """Return the paths that it writes; empty if only running it would show them."""
        raise NotImplementedError

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [(name, getattr(self, name)) for name in self.__struct_fields__ if name not in _HIDDEN]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    def may_be_repeated(
        self,
        before: Mapping[str, Any] | None = None,  # noqa: ARG002 - for overrides
        now: Mapping[str, Any] | None = None,  # noqa: ARG002
    ) -> bool:
        """Return whether it may be applied to a newer version although it may have been applied already.

        Args:
            before: the status that it was computed on when it was sent.
            now: the status that it would be applied to. None: any.
        """
        return self.idempotent

    def leaves_unchanged(self, status: Mapping[str, Any], /) -> bool:  # noqa: ARG002 - for overrides
        """Return whether `apply` certainly changes nothing, and does not raise; False may be wrong.

        Nearly every reconcile records the status that the object has already.
        """
        return False

    def apply(self, status: JSONObject, statistics: ApplyStatistics, /) -> None:
        """Change a status in place, sharing nothing with it. If this raises, the status is unchanged.

        Raises:
            PathError: the path leads through a value that is not an object.
            TypeError: the value at the path is of a type that the verb cannot change.
        """
        raise NotImplementedError


class _OnePath(Mutation, frozen=True):
    path: Path

    @property
    def paths(self) -> Sequence[Path]:
        return (self.path,)


class Set(_OnePath, frozen=True):
    """A mutation that sets the value at a path; None removes it.

    Attributes:
        value: replaces the current value as a whole.
        overwrite: whether to overwrite another writer's change when replayed on a newer version. None: only if the
            batcher's own field manager owns the field.
    """

    verb: ClassVar[str] = "set"
    value: Any
    overwrite: bool | None = None

    def leaves_unchanged(self, status: Mapping[str, Any], /) -> bool:
        """Return whether the status has exactly this value."""
        return self.value is not None and identical(get_path(status, self.path), self.value)

    def apply(self, status: JSONObject, _statistics: ApplyStatistics, /) -> None:
        """Replace the value; an ``observedGeneration`` never decreases."""
        value, path = self.value, self.path
        if value is None:
            delete_path(status, path)
        elif path[-1] != "observedGeneration" or not _is_lower(value, get_path(status, path)):
            value = value if type(value) in _PLAIN else copy_json(value)
            if len(path) == 1:
                status[path[0]] = value
            else:
                set_path(status, path, value)

    @property
    def is_generation(self) -> bool:
        """Return whether this is an ``observedGeneration``, which never decreases."""
        return self.path[-1] == "observedGeneration"


class Merge(Mutation, frozen=True):
    """A mutation that merges an object into the one at a path (RFC 7386); null members are removed."""

    verb: ClassVar[str] = "merge"
    path: Path
    document: Mapping[str, Any]

    @property
    def paths(self) -> Sequence[Path]:
        """Return the path of every leaf."""
        return list(leaves(self.document, self.path))

    def apply(self, status: JSONObject, _statistics: ApplyStatistics, /) -> None:
        """Merge at the path, or into the whole status if the path is empty."""
        target = get_path(status, self.path) if self.path else status
        merged = merge_patch(target, copy_json(self.document))
        if self.path:
            set_path(status, self.path, merged)
        else:
            status.clear()
            status.update(merged)


class Append(_OnePath, frozen=True):
    """A mutation that adds an item to the end of a list.

    Attributes:
        item: what to add.
        keep_last: how many entries to keep; the oldest are dropped. None: all.
        key: members that identify an item. If the list has an item with the same values, nothing is added.
        dropped_path: path of a number that is increased by the number of dropped entries.
    """

    verb: ClassVar[str] = "append"
    item: Any
    keep_last: int | None = None
    key: Path | None = None
    dropped_path: Path | None = None

    @property
    def paths(self) -> Sequence[Path]:
        """Return the path of the list, and that of the counter of dropped entries."""
        return (self.path,) if self.dropped_path is None else (self.path, self.dropped_path)

    @property
    def idempotent(self) -> bool:  # type: ignore[override]  # computed here, fixed elsewhere
        """Return whether the item has a key; without one it cannot be distinguished from its own copy."""
        return self.key is not None

    def may_be_repeated(self, before: Mapping[str, Any] | None = None, now: Mapping[str, Any] | None = None) -> bool:
        """Return whether the list shows if the item was added; a bounded list may have dropped it since.

        The oldest items are dropped first. So if an item that was added earlier is still there, this one would be too.
        """
        if self.key is None or self.keep_last is None:
            return self.key is not None
        if before is None or now is None:
            return False
        older, items = get_path(before, self.path) or [], get_path(now, self.path) or []
        if any(same_key(item, self.item, self.key) for item in items):
            return True
        return any(equal(item, older[-1]) for item in items) if older else not items

    def apply(self, status: JSONObject, statistics: ApplyStatistics, /) -> None:
        """Append, then drop the oldest entries beyond the bound."""
        items = _list_at(status, self.path)
        index = None if self.key is None else statistics.index(self.path, self.key, items)
        if index is not None and index.find(self.item) is not None:
            return
        before = None if self.dropped_path is None else _number_at(status, self.dropped_path)
        items.append(copy_json(self.item))
        over = 0 if self.keep_last is None else max(0, len(items) - self.keep_last)
        if index is None:
            items = items[over:] if over else items
        elif over:
            index.drop(over)
        set_path(status, self.path, items)
        if over and self.dropped_path is not None and before is not None:
            set_path(status, self.dropped_path, before + over)
        statistics.trimmed += over


class Upsert(_OnePath, frozen=True):
    """A mutation that replaces the list item with the same key in place, or adds the item to the end."""

    verb: ClassVar[str] = "upsert"
    item: Any
    key: Path = ()

    def apply(self, status: JSONObject, statistics: ApplyStatistics, /) -> None:
        """Replace the first item with the key, or append."""
        items = _list_at(status, self.path)
        position = statistics.index(self.path, self.key, items).find(self.item)
        if position is None:
            items.append(copy_json(self.item))
        else:
            items[position] = copy_json(self.item)
        set_path(status, self.path, items)


class Increment(_OnePath, frozen=True):
    """A mutation that adds to a number; a missing one counts as 0. The additions of two writers add up."""

    verb: ClassVar[str] = "increment"
    idempotent: ClassVar[bool] = False
    by: int | float = 1

    def apply(self, status: JSONObject, _statistics: ApplyStatistics, /) -> None:
        """Add to the number at the path."""
        set_path(status, self.path, _number_at(status, self.path) + self.by)


class Remove(_OnePath, frozen=True):
    """A mutation that removes the value at a path, if there is one."""

    verb: ClassVar[str] = "remove"

    def apply(self, status: JSONObject, _statistics: ApplyStatistics, /) -> None:
        """Remove the member."""
        delete_path(status, self.path)


class RemoveItem(_OnePath, frozen=True):
    """A mutation that removes the list items that have the given members; other items stay."""

    verb: ClassVar[str] = "remove an item of"
    members: Mapping[str, Any]

    def apply(self, status: JSONObject, _statistics: ApplyStatistics, /) -> None:
        """Remove every item whose members have these values."""
        items = _list_at(status, self.path)
        kept = [item for item in items if not same_key(item, self.members, tuple(self.members))]
        if len(kept) < len(items):
            set_path(status, self.path, kept)


class SetCondition(Mutation, frozen=True):
    """A mutation that sets one of a list of conditions by the rules of metav1.Condition.

    Attributes:
        path: the path of the list.
        generation: the generation of the version that was read, also if the condition is replayed on a newer one. A
            higher one that is already stored stays. None for kinds without a generation.
        now: when it was recorded, which is the transition time if the condition's status changes.
    """

    verb: ClassVar[str] = "set_condition"
    path: Path
    type: str
    status: bool | str
    reason: str
    message: str
    generation: int | None
    now: datetime

    @property
    def paths(self) -> Sequence[Path]:
        """Return the path of the conditions."""
        return (self.path,)

    def leaves_unchanged(self, status: Mapping[str, Any], /) -> bool:
        """Return whether the status has exactly this condition."""
        conditions = get_path(status, self.path)
        return are_conditions(conditions) and has_condition(
            conditions,
            self.type,
            self.status,
            reason=self.reason,
            message=self.message,
            observed_generation=self.generation,
        )

    def apply(self, status: JSONObject, _statistics: ApplyStatistics, /) -> None:
        """Set the condition of its type; the transition time changes only with the condition's status."""
        conditions: list[Any] = copy_json(_list_at(status, self.path))
        if not are_conditions(conditions):
            raise TypeError(f"{format_path(self.path)!r} has items that are not objects")
        present: JSONObject = find_condition(conditions, self.type) or {}
        observed = self.generation
        if observed is not None and _is_lower(observed, present.get("observedGeneration")):
            observed = present["observedGeneration"]
        set_condition(
            conditions,
            self.type,
            self.status,
            reason=self.reason,
            message=self.message,
            observed_generation=observed,
            now=self.now,
        )
        set_path(status, self.path, conditions)


class Mutate(Mutation, frozen=True):
    """A mutation that runs a function on a private copy of the status, which then becomes the new status.

    The function runs once for each version that is tried, so it must depend on its argument alone and do no I/O. Its
    return value is ignored.
    """

    verb: ClassVar[str] = "mutate"
    idempotent: ClassVar[bool] = False
    function: Callable[[JSONObject], object]

    @classmethod
    def by(cls, function: Callable[[JSONObject], object]) -> Self:
        """Return the mutation that runs a function."""
        if not callable(function):
            raise TypeError(f"mutate takes a function of the status, not a {type(function).__name__}")
        return cls(function)

    @property
    def paths(self) -> Sequence[Path]:
        """Return nothing: a function does not show what it writes."""
        return ()

    def apply(self, status: JSONObject, _statistics: ApplyStatistics, /) -> None:
        """Run the function, and keep its copy if it did not raise."""
        copied = copy_json(status)
        if inspect.iscoroutine(returned := self.function(copied)):
            returned.close()
            raise TypeError("mutate() takes a plain function: it may run several times and must not do I/O")
        fresh = to_json(copied, "status")
        status.clear()
        status.update(fresh)


DECISIONS = (Set, Merge, Remove)
"""Mutations that decide a field's value regardless of the current one; the others build on the current value."""


def apply_all(mutations: Iterable[Mutation], status: Mapping[str, Any]) -> tuple[JSONObject, ApplyStatistics]:
    """Apply mutations in order to a copy of a status; return it, and what else they did."""
    result: JSONObject = copy_json(status)
    statistics = ApplyStatistics()
    for mutation in mutations:
        mutation.apply(result, statistics)
    return result, statistics


_LEAVES = frozenset({str, int, float, bool, list})


def leaves(document: Mapping[str, Any], path: Path = ()) -> dict[Path, Any]:
    """Return everything in a document except objects that have members, by path."""
    found: dict[Path, Any] = {}
    for key, value in document.items():
        if value and type(value) not in _LEAVES and is_object(value):
            found |= leaves(value, (*path, key))
        else:
            found[*path, key] = value
    return found


def same_key(left: Any, right: Any, key: Path) -> bool:
    """Return whether two list items have the same values in the members of a key."""
    if not (is_object(left) and is_object(right)):
        return False
    return all(equal(left.get(member), right.get(member)) for member in key)


def _list_at(status: JSONObject, path: Path) -> list[Any]:
    value = get_path(status, path)
    if value is None:
        _check_parents(status, path)
        return []
    if not isinstance(value, list):
        raise TypeError(f"{format_path(path)!r} holds a {type(value).__name__}, not a list")
    return value


def _number_at(status: JSONObject, path: Path) -> int | float:
    value = get_path(status, path)
    if value is None:
        _check_parents(status, path)
        return 0
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{format_path(path)!r} holds a {type(value).__name__}, not a number to increment")
    return value


def _check_parents(status: JSONObject, path: Path) -> None:
    for depth in range(1, len(path)):
        value = get_path(status, path[:depth])
        if value is not None and not isinstance(value, dict):
            raise PathError(
                f"{format_path(path)!r} leads through {format_path(path[:depth])!r}, which is not an object"
            )


def _is_lower(value: Any, than: Any) -> bool:
    return {type(value), type(than)} <= {int, float} and bool(value < than)
