"""Hold what was asked of a status as values: recorded once, applied to whatever version is current.

A mutation knows which paths it writes and whether applying it twice is the same as once. That decides what may be
repeated after a conflict, and after an answer that was lost.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, TypeGuard

import msgspec

from reconciler.meta import (
    PathError,
    delete_path,
    equal,
    find_condition,
    format_path,
    get_path,
    is_object,
    merge_patch,
    set_condition,
    set_path,
)
from reconciler.status.record.json_values import copy_json, plain

__all__ = [
    "DECISIONS",
    "Append",
    "Context",
    "Increment",
    "Merge",
    "Mutate",
    "Mutation",
    "Path",
    "Remove",
    "RemoveItem",
    "Set",
    "SetCondition",
    "Upsert",
    "apply_all",
    "same_key",
]

Path = tuple[str, ...]


class Context(msgspec.Struct):
    """Collect what applying mutations did beside the status.

    Attributes:
        trimmed: list entries that ``keep_last`` dropped.
    """

    trimmed: int = 0


@dataclass(frozen=True, slots=True)
class Mutation(ABC):
    """Be one recorded change of a status."""

    verb: ClassVar[str]
    idempotent: ClassVar[bool] = True

    @property
    @abstractmethod
    def paths(self) -> Sequence[Path]:
        """Return the paths it writes; empty when only running it would tell."""

    def may_be_repeated(
        self,
        before: Mapping[str, Any] | None = None,  # noqa: ARG002 - for overrides
        now: Mapping[str, Any] | None = None,  # noqa: ARG002
    ) -> bool:
        """Return whether applying it is harmless although it may have been applied already, and others wrote since.

        Args:
            before: the status that it was sent for.
            now: the status that it would be applied to. None: any.
        """
        return self.idempotent

    @abstractmethod
    def apply(self, status: dict[str, Any], context: Context, /) -> None:
        """Change a status in place, sharing nothing with it afterwards; if it raises, nothing was changed.

        Raises:
            PathError: the path leads through a value that is no object.
            TypeError: the value there is of a kind that the verb cannot change.
        """


@dataclass(frozen=True, slots=True)
class _OnePath(Mutation):
    path: Path

    @property
    def paths(self) -> Sequence[Path]:
        return (self.path,)


@dataclass(frozen=True, slots=True)
class Set(_OnePath):
    """Put a value at a path; None removes it.

    Attributes:
        value: replaces what is there, whole.
        overwrite: on a newer version, whether to write over what another writer put there. None: only if the field
            is owned by the batcher's own field manager.
    """

    verb: ClassVar[str] = "set"
    value: Any = field(repr=False)
    overwrite: bool | None = None

    def apply(self, status: dict[str, Any], _context: Context, /) -> None:
        """Replace the value; an ``observedGeneration`` only rises."""
        if self.value is None:
            delete_path(status, self.path)
        elif not (self.rises and _is_lower(self.value, get_path(status, self.path))):
            set_path(status, self.path, copy_json(self.value))

    @property
    def rises(self) -> bool:
        """Say whether this is a generation, which never goes back."""
        return self.path[-1] == "observedGeneration"


@dataclass(frozen=True, slots=True)
class Merge(Mutation):
    """Merge an object into the one at a path, by RFC 7386; null members remove."""

    verb: ClassVar[str] = "merge"
    path: Path
    document: Mapping[str, Any] = field(repr=False)

    @property
    def paths(self) -> Sequence[Path]:
        """Return the path of every leaf."""
        return [path for path, _ in leaves(self.document, self.path)]

    def apply(self, status: dict[str, Any], _context: Context, /) -> None:
        """Merge at the path, or into the whole status when the path is empty."""
        target = get_path(status, self.path) if self.path else status
        merged = merge_patch(target, copy_json(self.document))
        if self.path:
            set_path(status, self.path, merged)
        else:
            status.clear()
            status.update(merged)


@dataclass(frozen=True, slots=True)
class Append(_OnePath):
    """Add an item to the end of a list.

    Attributes:
        item: what to add.
        keep_last: how many entries the list may have afterwards; the oldest go. None: no bound.
        key: members that name an item; one with the same values in the list already means that nothing is added.
        dropped_path: of a number to which is added how many entries went over the bound.
    """

    verb: ClassVar[str] = "append"
    item: Any = field(repr=False)
    keep_last: int | None = None
    key: Path | None = None
    dropped_path: Path | None = None

    @property
    def paths(self) -> Sequence[Path]:
        """Return the list's path, and that of the count of what was dropped."""
        return (self.path,) if self.dropped_path is None else (self.path, self.dropped_path)

    @property
    def idempotent(self) -> bool:  # type: ignore[override]  # computed here, fixed elsewhere
        """Say that only an item with a key can be told from its own copy."""
        return self.key is not None

    def may_be_repeated(self, before: Mapping[str, Any] | None = None, now: Mapping[str, Any] | None = None) -> bool:
        """Return whether the list tells that the item was never added; a bounded one may have lost it again.

        The oldest items go first. So the item would still be there if one is that was added before it.
        """
        if self.key is None or self.keep_last is None:
            return self.key is not None
        if before is None or now is None:
            return False
        older, items = get_path(before, self.path) or [], get_path(now, self.path) or []
        if any(same_key(item, self.item, self.key) for item in items):
            return True
        return any(equal(item, older[-1]) for item in items) if older else not items

    def apply(self, status: dict[str, Any], context: Context, /) -> None:
        """Append, then drop from the front what is over the bound."""
        items = _list_at(status, self.path)
        if self.key is not None and any(same_key(item, self.item, self.key) for item in items):
            return
        items = [*items, copy_json(self.item)]
        over = 0 if self.keep_last is None else max(0, len(items) - self.keep_last)
        before = None if self.dropped_path is None else _number_at(status, self.dropped_path)
        set_path(status, self.path, items[over:])
        if over and self.dropped_path is not None and before is not None:
            set_path(status, self.dropped_path, before + over)
        context.trimmed += over


@dataclass(frozen=True, slots=True)
class Upsert(_OnePath):
    """Replace the item of a list that has the same key, in its place; without one, add to the end."""

    verb: ClassVar[str] = "upsert"
    item: Any = field(repr=False)
    key: Path = ()

    def apply(self, status: dict[str, Any], _context: Context, /) -> None:
        """Replace the first item of the key, or append."""
        items = list(_list_at(status, self.path))
        fresh = copy_json(self.item)
        for index, item in enumerate(items):
            if same_key(item, self.item, self.key):
                items[index] = fresh
                break
        else:
            items.append(fresh)
        set_path(status, self.path, items)


@dataclass(frozen=True, slots=True)
class Increment(_OnePath):
    """Add to a number; absent counts as 0. Two writers' additions add up."""

    verb: ClassVar[str] = "increment"
    idempotent: ClassVar[bool] = False
    by: int | float = 1

    def apply(self, status: dict[str, Any], _context: Context, /) -> None:
        """Add to the number at the path."""
        set_path(status, self.path, _number_at(status, self.path) + self.by)


@dataclass(frozen=True, slots=True)
class Remove(_OnePath):
    """Remove what is at a path, if anything is."""

    verb: ClassVar[str] = "remove"

    def apply(self, status: dict[str, Any], _context: Context, /) -> None:
        """Remove the member."""
        delete_path(status, self.path)


@dataclass(frozen=True, slots=True)
class RemoveItem(_OnePath):
    """Remove the items of a list that have certain members; others stay."""

    verb: ClassVar[str] = "remove an item of"
    members: Mapping[str, Any] = field(repr=False)

    def apply(self, status: dict[str, Any], _context: Context, /) -> None:
        """Remove every item whose members have these values."""
        items = _list_at(status, self.path)
        kept = [item for item in items if not same_key(item, self.members, tuple(self.members))]
        if len(kept) < len(items):
            set_path(status, self.path, kept)


@dataclass(frozen=True, slots=True)
class SetCondition(Mutation):
    """Set one of a list of conditions by the rules of metav1.Condition.

    Attributes:
        path: of the list.
        generation: the generation of the version that was read, also when the condition is replayed on a newer one;
            a higher one that is there already stays. None for kinds without generation.
        now: when it was recorded: the transition time if the status flips.
    """

    verb: ClassVar[str] = "set_condition"
    path: Path
    type: str
    status: bool | str
    reason: str
    message: str = field(repr=False)
    generation: int | None
    now: datetime

    @property
    def paths(self) -> Sequence[Path]:
        """Return where the conditions are."""
        return (self.path,)

    def apply(self, status: dict[str, Any], _context: Context, /) -> None:
        """Set the condition of its type; the transition time moves only when the status flips."""
        conditions: list[Any] = copy_json(_list_at(status, self.path))
        if not all(isinstance(condition, dict) for condition in conditions):
            raise TypeError(f"{format_path(self.path)!r} holds items that are no objects")
        present: dict[str, Any] = find_condition(conditions, self.type) or {}
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


@dataclass(frozen=True, slots=True)
class Mutate(Mutation):
    """Run a function on a private copy of the status; what it leaves there is the new status.

    It runs once for every version that is tried, so it depends on its argument alone and does no I/O. What it returns
    is ignored.
    """

    verb: ClassVar[str] = "mutate"
    idempotent: ClassVar[bool] = False
    function: Callable[[dict[str, Any]], object] = field(repr=False)

    @property
    def paths(self) -> Sequence[Path]:
        """Return nothing: a function does not tell."""
        return ()

    def apply(self, status: dict[str, Any], _context: Context, /) -> None:
        """Run the function, and take over its copy when it did not raise."""
        copied = copy_json(status)
        if inspect.iscoroutine(returned := self.function(copied)):
            returned.close()
            raise TypeError("mutate() takes a plain function: it may run several times and must not do I/O")
        fresh = plain(copied, "status")
        status.clear()
        status.update(fresh)


DECISIONS = (Set, Merge, Remove)
"""Mutations that say what a field is to be, whatever it is; the others depend on what is there."""


def apply_all(mutations: Iterable[Mutation], status: Mapping[str, Any]) -> tuple[dict[str, Any], Context]:
    """Return a new status with mutations applied in order, and what else they did."""
    result: dict[str, Any] = copy_json(status)
    context = Context()
    for mutation in mutations:
        mutation.apply(result, context)
    return result, context


def leaves(document: Mapping[str, Any], path: Path = ()) -> list[tuple[Path, Any]]:
    """Return path and value of everything in a document that is no object with members."""
    found: list[tuple[Path, Any]] = []
    for key, value in document.items():
        if value and is_object(value):
            found += leaves(value, (*path, key))
        else:
            found.append(((*path, key), value))
    return found


def same_key(left: Any, right: Any, key: Path) -> bool:
    """Say whether two items of a list have the same values in the members of a key."""
    if not (is_object(left) and is_object(right)):
        return False
    return all(equal(left.get(member), right.get(member)) for member in key)


def _list_at(status: dict[str, Any], path: Path) -> list[Any]:
    value = get_path(status, path)
    if value is None:
        _check_way(status, path)
        return []
    if not isinstance(value, list):
        raise TypeError(f"{format_path(path)!r} holds a {type(value).__name__}, not a list")
    return value


def _number_at(status: dict[str, Any], path: Path) -> int | float:
    value = get_path(status, path)
    if value is None:
        _check_way(status, path)
        return 0
    if not _is_number(value):
        raise TypeError(f"{format_path(path)!r} holds a {type(value).__name__}, not a number to increment")
    return value


def _check_way(status: dict[str, Any], path: Path) -> None:
    for depth in range(1, len(path)):
        value = get_path(status, path[:depth])
        if value is not None and not isinstance(value, dict):
            raise PathError(f"{format_path(path)!r} leads through {format_path(path[:depth])!r}, which is no object")


def _is_lower(value: Any, than: Any) -> bool:
    return _is_number(value) and _is_number(than) and bool(value < than)


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
