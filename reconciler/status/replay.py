"""Rules for applying mutations again: to a newer version, after an unknown outcome, and in the next reconcile.

Appends, increments, conditions and functions are valid for any version. A value that was *set* was decided on the
version read: on a newer one it is repeated only where nobody else has changed the field since.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from reconciler.meta import equal
from reconciler.meta.documents import Version, copy_json, delete_path, format_path, get_path, is_older
from reconciler.status.mutations import (
    Increment,
    Merge,
    Mutation,
    Remove,
    Set,
    SetCondition,
    Upsert,
    apply_all,
    item_key,
    leaves,
)

if TYPE_CHECKING:
    from reconciler.status.mutations import Path

MAX_MUTATIONS = 1000
"""Mutations kept for one object. A controller that fails to save for so long loses the oldest, which are counted."""

MAX_WRITES = 8
"""Unanswered writes that are remembered for one object; it is unlikely that an older one is still applied."""

MAX_MARKS = 8
"""Marks in the field of a token: those of the newest writes. A write that follows one without a response must not
remove the evidence of it, and neither may another batcher with the same token."""

Marks = tuple[str, ...]


class Replayable(NamedTuple):
    """The result of `select_replayable`.

    Attributes:
        kept: the mutations to apply to the newer version, in order.
        contested: those that would overwrite another writer's change.
        paths: the paths of these changes.
    """

    kept: list[Mutation]
    contested: list[Mutation]
    paths: list[Path]


class _Decision(NamedTuple):
    path: Path
    value: Any
    overwrite: bool | None


def select_replayable(
    mutations: Sequence[Mutation],
    base: Mapping[str, Any],
    fresh: Mapping[str, Any],
    *,
    owned: Callable[[Path], bool],
    reset: Callable[[Path], bool] = lambda _: False,
) -> Replayable:
    """Divide mutations into those that may be applied to a newer status and those that may not.

    A field is not contested if nobody changed it, or if it has the desired value already. A set to the value that was
    there when it was recorded requested no change, so another writer's change stays. Otherwise the field is contested,
    unless the mutation overwrites, or `owned` shows that the change was made under the batcher's own field manager.
    Generations are never contested, since they never decrease.

    Args:
        mutations: in the order of their calls.
        base: the status that they were recorded on.
        fresh: the newer status.
        owned: returns whether the batcher's own field manager owns a field of the newer version.
        reset: returns whether another writer restored the value that a field had before. Default: nobody did.
    """
    last = {decision.path: decision.value for mutation in mutations for decision in _decisions(mutation)}
    result = Replayable([], [], [])
    for mutation in mutations:
        unchanged, contested = [], []
        for decision in _decisions(mutation):
            before, now = get_path(base, decision.path), get_path(fresh, decision.path)
            wanted = last[decision.path]
            if equal(wanted, now) or (equal(before, now) and not reset(decision.path)):
                continue
            if equal(wanted, before):
                unchanged.append(decision.path)
            elif not (owned(decision.path) if decision.overwrite is None else decision.overwrite):
                contested.append(decision.path)
        if contested:
            result.contested.append(mutation)
            result.paths.extend(contested)
        else:
            result.kept.extend(_without(mutation, unchanged))
    return result


def _decisions(mutation: Mutation) -> list[_Decision]:
    if isinstance(mutation, Set):
        return [] if mutation.is_generation else [_Decision(mutation.path, mutation.value, mutation.overwrite)]
    if isinstance(mutation, Remove):
        return [_Decision(mutation.path, None, None)]
    if isinstance(mutation, Merge):
        return [_Decision(path, value, None) for path, value in leaves(mutation.document, mutation.path).items()]
    return []


def _without(mutation: Mutation, paths: Iterable[Path]) -> list[Mutation]:
    paths = list(paths)
    if not paths:
        return [mutation]
    if not isinstance(mutation, Merge):
        return []
    document = copy_json(mutation.document)
    for path in paths:
        delete_path(document, path[len(mutation.path) :])
    return [Merge(mutation.path, document)]


@dataclass(slots=True)
class _MutationRun:
    """Mutations of one kind that follow one another on one member of the status.

    Attributes:
        kind: the kind.
        positions: where the last one for each target is.
        paths: their paths.
        parents: everything above these paths.
    """

    kind: str
    positions: dict[Hashable, int] = field(default_factory=dict)
    paths: set[Path] = field(default_factory=set)
    parents: set[Path] = field(default_factory=set)

    def overlaps(self, path: Path) -> bool:
        """Return whether a path leads to a part of a value that was written, or to a value that contains one."""
        return path in self.parents or any(path[:length] in self.paths for length in range(1, len(path)))

    def add(self, path: Path, target: Hashable, position: int) -> None:
        self.positions[target] = position
        self.paths.add(path)
        self.parents.update(path[:length] for length in range(1, len(path)))


def compacted(mutations: Sequence[Mutation]) -> list[Mutation]:
    """Return fewer mutations with the same effect: a controller that retries records the same ones again and again.

    Of the values that are set at one path the last stays, of the conditions of one type too, with the time of its
    transition; increments of a number are added; of the upserts of one item the last takes the place of the first.
    Whatever else is recorded for the same member of the status in between, or a function, prevents that.
    """
    kept: list[Mutation] = []
    runs: dict[str, _MutationRun] = {}
    for mutation in mutations:
        kind, target = _target(mutation)
        if kind is None:
            for member in {path[0] for path in mutation.paths} or list(runs):
                runs.pop(member, None)
            kept.append(mutation)
            continue
        path = mutation.paths[0]
        run = runs.get(path[0])
        if run is None or run.kind != kind or run.overlaps(path):
            run = runs[path[0]] = _MutationRun(kind)
        position = run.positions.get(target)
        if position is None:
            run.add(path, target, len(kept))
            kept.append(mutation)
        else:
            kept[position] = _combined(kept[position], mutation)
    return kept


def _target(mutation: Mutation) -> tuple[str | None, Hashable]:
    """Return the kind and the target of a mutation, which is combined with the one before of both; None for others."""
    if isinstance(mutation, (Set, Remove)):
        return "value", mutation.path
    if isinstance(mutation, Increment):
        return "increment", mutation.path
    if isinstance(mutation, SetCondition):
        return "condition", (mutation.path, mutation.type)
    if isinstance(mutation, Upsert):
        return "upsert", (mutation.path, mutation.key, item_key(mutation.item, mutation.key))
    return None, None


def _combined(earlier: Mutation, later: Mutation) -> Mutation:
    """Return one mutation for two of one kind and target."""
    if isinstance(earlier, Increment) and isinstance(later, Increment):
        return msgspec.structs.replace(later, by=earlier.by + later.by)
    if isinstance(earlier, SetCondition) and isinstance(later, SetCondition):
        now = earlier.now if str(earlier.status) == str(later.status) else later.now
        generations = [each.generation for each in (earlier, later) if each.generation is not None]
        return msgspec.structs.replace(later, now=now, generation=max(generations, default=None))
    if isinstance(later, Set) and later.is_generation:
        computed, _ = apply_all((earlier, later), {})
        return msgspec.structs.replace(later, value=get_path(computed, later.path))
    return later


def marks_at(status: Mapping[str, Any], token: Path | None) -> Marks:
    """Return the marks of the newest writes at the path of a token, the newest last."""
    stored = get_path(status, token) if token else None
    return tuple(stored.split()) if isinstance(stored, str) else ()


def with_mark(marks: Marks, mark: str) -> str:
    """Return what a write with a mark leaves at the path of the token."""
    return " ".join((*marks, mark)[-MAX_MARKS:])


def has_mark(mark: str, before: Marks, now: Marks) -> bool | None:
    """Return whether a write left its mark; None if that cannot be told.

    Every write adds its mark behind those that it found, and the oldest are dropped first. So if the newest mark that
    the write found is still there, its own would be too.

    Args:
        mark: the write's.
        before: the marks in the version that it was sent on.
        now: those in a version in which it would be visible.
    """
    if mark in now:
        return True
    complete = before[-1] in now if before else len(now) < MAX_MARKS
    return False if complete else None


class UnansweredWrites(NamedTuple):
    """Writes that may have been applied, or may still be; the marks stored in the object show which one was.

    Attributes:
        marks: those that were stored when they were sent.
        version: the resourceVersion that the first was conditional on.
        writes: the mark of each write, and the mutations in it.
    """

    marks: Marks
    version: Version
    writes: tuple[tuple[str, tuple[Mutation, ...]], ...] = ()

    def settle(
        self, marks: Marks, version: Version, mutations: Sequence[Mutation]
    ) -> tuple[list[Mutation], UnansweredWrites | None]:
        """Leave out what an earlier write stored; return the remaining mutations, and the writes that stay unanswered.

        A version older than the writes shows nothing: a write conditional on it is refused, and the object is read
        again. If the marks do not show whether one of the writes was applied, see `repeatable`.

        Args:
            marks: those in a version of the object.
            version: its resourceVersion.
            mutations: those in the writes, and others.
        """
        if is_older(version, self.version):
            return list(mutations), self
        found = [has_mark(mark, self.marks, marks) for mark, _ in self.writes]
        if True in found:
            applied = set(map(id, self.writes[found.index(True)][1]))
            return [each for each in mutations if id(each) not in applied], None
        if None in found:
            return self.repeatable(mutations), None
        return list(mutations), self

    def repeatable(self, mutations: Sequence[Mutation]) -> list[Mutation]:
        """Return the mutations except those in the writes that must not be applied twice."""
        unanswered = {id(each) for _, sent in self.writes for each in sent}
        return [each for each in mutations if id(each) not in unanswered or each.may_be_repeated()]

    def with_write(self, mark: str, mutations: Sequence[Mutation]) -> UnansweredWrites:
        """Return these writes and one more."""
        return UnansweredWrites(self.marks, self.version, (*self.writes, (mark, tuple(mutations)))[-MAX_WRITES:])


@dataclass(frozen=True, slots=True)
class Unsaved:
    """Mutations that could not be saved, for a later batcher on the same object.

    A batcher hands it to the running reconcile, and the batcher of the next reconcile takes it back. The body then sees
    the object with the mutations applied. Everyone in between needs only these:

    Attributes:
        mutations: in the order of their calls.
        base: the status that they were recorded on. Do not change it.
        dropped: how many older ones were dropped because there were too many.
        unanswered: writes of them that may have been applied; None if there are none.
    """

    mutations: tuple[Mutation, ...]
    base: Mapping[str, Any] = field(repr=False)
    dropped: int = 0
    unanswered: UnansweredWrites | None = None

    @classmethod
    def of(
        cls, mutations: Sequence[Mutation], base: Mapping[str, Any], unanswered: UnansweredWrites | None = None
    ) -> Unsaved:
        """Keep the newest mutations, `MAX_MUTATIONS` at most, without those that later ones make superfluous.

        What is in an unanswered write stays as it was sent.
        """
        mutations = mutations if unanswered is not None else compacted(mutations)
        over = max(0, len(mutations) - MAX_MUTATIONS)
        return cls(tuple(mutations[over:]), base, over, unanswered)

    @property
    def paths(self) -> tuple[str, ...]:
        """Return the paths that they write, each once, for logs."""
        return tuple(dict.fromkeys(format_path(path) for mutation in self.mutations for path in mutation.paths))

    def __len__(self) -> int:
        return len(self.mutations)
