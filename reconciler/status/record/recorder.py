"""Give a batcher its verbs: each checks what it is given, and records one mutation a path."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, overload

from reconciler.clock import Clock
from reconciler.status.record.fields import StatusFields
from reconciler.status.record.json_values import plain
from reconciler.status.record.mutations import (
    Append,
    Increment,
    Merge,
    Mutate,
    Mutation,
    Path,
    Remove,
    RemoveItem,
    Set,
    SetCondition,
    Upsert,
)

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    S = TypeVar("S", default=Any)
else:
    from typing import TypeVar

    S = TypeVar("S")  # the default is for type checkers: at run time this room loads the standard library only

__all__ = ["Recorder"]

_NOTHING: Any = object()

PathLike = str | Sequence[str]
"""``"a.b"``, or a sequence of keys for keys that contain a dot."""


class Recorder(ABC, Generic[S]):
    """Record what a status is to become.

    A verb takes effect on `StatusBatcher.current` at once and on the server at the end of the block. A path is
    ``"a.b"``, or a sequence of keys; names are those on the wire. For a typed kind Python's names are taken as well,
    and a field that its status model does not have is refused with `UnknownStatusField`. Values may be models,
    dataclasses, enums and aware datetimes; they are copied. A null means that the field is absent.

    Every verb may be called from any thread, and raises `StatusNotOpen` outside the block.
    """

    _fields: StatusFields
    _clock: Clock

    @abstractmethod
    def _record(self, mutation: Mutation) -> None:
        """Apply and keep a mutation."""

    @abstractmethod
    def _generation(self) -> int | None:
        """Return the generation of the version that was read."""

    @overload
    def set(self, model: S, /, *, overwrite: bool | None = None) -> None: ...
    @overload
    def set(self, path: PathLike, value: object, /, *, overwrite: bool | None = None) -> None: ...
    @overload
    def set(self, /, *, overwrite: bool | None = None, **fields: object) -> None: ...
    def set(
        self, target: Any = None, value: object = _NOTHING, /, *, overwrite: bool | None = None, **fields: object
    ) -> None:
        """Set fields, each replaced whole.

        ::

            status.set(DatabaseStatus(phase="Ready"))      # the fields that were set in the model
            status.set(phase="Ready", total_size=3)
            status.set("storage.phase", "Bound")

        Replayed on a newer version, a field that another writer changed in between is not overwritten:
        `StatusContested` is raised instead. An ``observedGeneration`` only rises.

        Args:
            target: a status model, a mapping, or a path.
            value: the value for a path.
            overwrite: True overwrites another writer's change, False never does. Default None: only where the batcher's
                own field manager owns the field, that is, made the change itself. A field of the name ``overwrite`` is
                set by its path.
            fields: values by name.

        Raises:
            UnknownStatusField: the kind's status model has no such field.
            PathError: the path leads through a value that is no object.
            TypeError, ValueError: a value that JSON cannot say.
        """
        values: dict[Path, Any] = {}
        if value is not _NOTHING:
            path = self._fields.path(target)
            values[path] = plain(value, ".".join(path))
        elif isinstance(target, str):
            raise TypeError(f"set({target!r}) needs a value: set({target!r}, value)")
        elif target is not None:
            values |= {(key,): item for key, item in self._fields.model_values(target).items()}
        if fields:
            values |= {(key,): item for key, item in self._fields.members(fields).items()}
        for path, item in values.items():
            self._record(Set(path, item, overwrite))

    @overload
    def merge(self, document: Mapping[str, Any], /) -> None: ...
    @overload
    def merge(self, path: PathLike, document: Mapping[str, Any], /) -> None: ...
    @overload
    def merge(self, /, **fields: object) -> None: ...
    def merge(self, target: Any = None, document: Any = None, /, **fields: object) -> None:
        """Merge into what is there, by RFC 7386: members replace members, lists replace lists, a null removes.

        ::

            status.merge("storage", {"phase": "Bound", "error": None})
            status.merge(storage={"phase": "Bound"})

        A member that another writer changed in between is contested, as in `set`.

        Args:
            target: a mapping to merge into the whole status, or a path.
            document: what to merge at the path.
            fields: members to merge into the whole status.

        Raises:
            UnknownStatusField, PathError, TypeError, ValueError: as `set`.
        """
        if document is not None:
            path = self._fields.path(target)
            self._record(Merge(path, _object(plain(document, ".".join(path)))))
            return
        members = self._fields.members({**_object(target if target is not None else {}), **fields})
        if members:
            self._record(Merge((), members))

    def append(
        self,
        path: PathLike,
        item: object,
        /,
        *,
        keep_last: int | None = None,
        count_dropped: PathLike | None = None,
        key: PathLike | None = None,
    ) -> None:
        """Add an item to the end of a list, which is made if it is not there.

        Two writers' items are both kept. After a lost answer only an append with `key` can be repeated.

        Args:
            path: of the list.
            item: what to add.
            keep_last: how many entries to keep; the oldest go, counted in ``statistics().trimmed``. Default: all. Give
                one, or another bound: an object may have about 1.5 MiB. What limits attempts must not live in such a
                list; keep a counter beside it.
            count_dropped: a number of the status to which is added how many entries were dropped, so that readers of
                the object see that the list is not all. Default: none.
            key: one or more members that name an item (``"attempt"``, or ``["channel", "attempt"]``). If the list has
                an item with the same values, nothing is added.

        Raises:
            UnknownStatusField: the kind's status model has no such field.
            TypeError: there is something else than a list or a number, or the item lacks the key.
            ValueError: keep_last is less than 1, or missing with `count_dropped`.
        """
        if keep_last is not None and keep_last < 1:
            raise ValueError(f"keep_last must be 1 or more, not {keep_last}; remove() empties a list")
        if count_dropped is not None and keep_last is None:
            raise ValueError("count_dropped counts what keep_last drops: give both")
        keys = self._fields.path(path)
        value = plain(item, ".".join(keys))
        counter = None if count_dropped is None else self._fields.path(count_dropped)
        self._record(Append(keys, value, keep_last, None if key is None else _key_of(value, key), counter))

    def upsert(self, path: PathLike, item: Mapping[str, Any] | Any, /, *, key: PathLike) -> None:
        """Replace the item of a list that has the same key, in its place; add it to the end if there is none.

        Args:
            path: of the list.
            item: the whole item.
            key: one or more members that name an item.

        Raises:
            UnknownStatusField: the kind's status model has no such field.
            TypeError: there is something else than a list, or the item lacks the key.
        """
        keys = self._fields.path(path)
        value = plain(item, ".".join(keys))
        self._record(Upsert(keys, value, _key_of(value, key)))

    def increment(self, path: PathLike, /, by: float = 1) -> None:
        """Add to a number; absent counts as 0. Two writers' additions add up.

        After a lost answer it cannot be repeated (`StatusOutcomeUnknown`), unless the batcher has a ``token=``.

        Args:
            path: of the number.
            by: what to add, may be negative. Default 1.

        Raises:
            UnknownStatusField: the kind's status model has no such field.
            TypeError: there is something else than a number, or `by` is none.
            ValueError: `by` is not finite.
        """
        if isinstance(by, bool) or not isinstance(by, (int, float)):
            raise TypeError(f"increment adds a number, not a {type(by).__name__}")
        if not math.isfinite(by):
            raise ValueError("increment adds a finite number")
        self._record(Increment(self._fields.path(path), by))

    def remove(self, path: PathLike, /, *, item: Mapping[str, Any] | None = None) -> None:
        """Remove a field, or items of a list, if they are there.

        ::

            status.remove("error")
            status.remove("channels", item={"name": "mail"})
            status.remove("conditions", item={"type": "Degraded"})

        The removal of a field is contested like `set`; that of items leaves other writers' items alone.

        Args:
            path: of the field, or of the list.
            item: members and their values; every item of the list that has them goes. Default: the whole field goes.

        Raises:
            UnknownStatusField: the kind's status model has no such field.
            TypeError: with `item`, there is something else than a list.
            ValueError: `item` is empty.
        """
        keys = self._fields.path(path)
        if item is None:
            self._record(Remove(keys))
            return
        members = plain(item, ".".join(keys))
        if not isinstance(members, dict) or not members:
            raise ValueError("item names the members of the items to remove: {'name': 'mail'}; without it all go")
        self._record(RemoveItem(keys, members))

    def set_condition(
        self, type: str, status: bool | str, *, reason: str, message: str = "", path: PathLike = "conditions"
    ) -> None:
        """Set one of ``conditions`` by the rules of metav1.Condition.

        ``lastTransitionTime`` moves only when the status flips; ``observedGeneration`` is that of the version read,
        also when the condition is replayed on a newer one, and only rises.

        Args:
            type: the condition's type, unique in the list.
            status: a bool, or ``"True"``, ``"False"``, ``"Unknown"``.
            reason: a CamelCase word for programs.
            message: a sentence for people. Default: empty.
            path: of the list of conditions. Default ``"conditions"``.

        Raises:
            UnknownStatusField: the kind's status model has no such field.
            TypeError: there is something else than a list of objects.
            ValueError: the status is none of the three, or the reason is empty.
        """
        keys = self._fields.path(path)
        self._record(SetCondition(keys, type, status, reason, message, self._generation(), self._clock.now()))

    def mutate(self, function: Callable[[dict[str, Any]], object], /) -> None:
        """Change the status by a function of it.

        ::

            status.mutate(lambda s: s["queue"].pop(0))

        It gets a private copy of the whole status and changes it in place; what it returns is ignored. It runs at
        once, and again on every newer version that is tried, so it depends on its argument alone and does no I/O.
        After a lost answer it cannot be repeated.

        Raises:
            TypeError: it is a coroutine function, or leaves something that JSON cannot say.
        """
        if not callable(function):
            raise TypeError(f"mutate takes a function of the status, not a {type(function).__name__}")
        self._record(Mutate(function))

    def record(self, *mutations: Mutation) -> None:
        """Record mutations that exist already: those in `StatusError.unsaved`, once what stopped them is cured."""
        for mutation in mutations:
            self._record(mutation)


def _object(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"merge takes an object, not a {type(value).__name__}")
    return value


def _key_of(item: Any, key: PathLike) -> Path:
    members = (key,) if isinstance(key, str) else tuple(key)
    if not members:
        raise TypeError("a key names at least one member of an item")
    lacking = [member for member in members if not isinstance(item, Mapping) or item.get(member) is None]
    if lacking:
        raise TypeError(f"the item has no {', '.join(lacking)}: every item of a keyed list has its key")
    return members
