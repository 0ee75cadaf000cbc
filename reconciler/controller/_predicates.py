"""Decide which events matter.

A predicate judges a `CacheEvent`; predicates combine with ``&``, ``|`` and ``~``. The ``…_changed`` ones judge updates
alone: that an object appeared, went, or was repeated by a resync always passes. They filter events, not memory or
traffic; for those, use selectors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from reconciler.cache import EventType

if TYPE_CHECKING:
    from reconciler.cache import CachedObject, CacheEvent

__all__ = [
    "Predicate",
    "annotations_changed",
    "generation_changed",
    "labels_changed",
    "passes_all",
    "resource_version_changed",
]


class Predicate:
    """Wrap a function that says whether an event matters.

    Args:
        judge: gets the event; must be quick and do no I/O.
        name: what ``repr`` shows. Default: the function's name.
    """

    def __init__(self, judge: Callable[[CacheEvent], bool], *, name: str | None = None) -> None:
        self._judge = judge
        self._name: str = name or str(getattr(judge, "__name__", "predicate"))

    @classmethod
    def of_object(cls, judge: Callable[[CachedObject], bool]) -> Predicate:
        """Make a predicate that judges the object alone: the new one of an update, the last one of a deletion."""
        return cls(lambda event: judge(event.object), name=getattr(judge, "__name__", "predicate"))

    @classmethod
    def of_update(cls, judge: Callable[[CachedObject, CachedObject], bool], *, name: str | None = None) -> Predicate:
        """Make a predicate that judges old and new object of an update and lets every other event pass."""

        def judge_update(event: CacheEvent) -> bool:
            if event.type is not EventType.UPDATED or event.old is None or event.new is None:
                return True
            return judge(event.old, event.new)

        return cls(judge_update, name=name or getattr(judge, "__name__", "predicate"))

    def __call__(self, event: CacheEvent, /) -> bool:
        """Say whether the event matters."""
        return self._judge(event)

    def __and__(self, other: Predicate) -> Predicate:
        return Predicate(lambda event: self(event) and other(event), name=f"({self!r} & {other!r})")

    def __or__(self, other: Predicate) -> Predicate:
        return Predicate(lambda event: self(event) or other(event), name=f"({self!r} | {other!r})")

    def __invert__(self) -> Predicate:
        return Predicate(lambda event: not self(event), name=f"~{self!r}")

    def __repr__(self) -> str:
        return self._name


def passes_all(predicates: Sequence[Callable[[CacheEvent], bool]], event: CacheEvent) -> bool:
    """Say whether an event passes every predicate; none at all lets everything pass."""
    return all(predicate(event) for predicate in predicates)


def _generation_changed(old: CachedObject, new: CachedObject) -> bool:
    if not old.generation and not new.generation:
        return True  # kinds without a generation (ConfigMap, Node): it cannot tell, so nothing is held back
    return old.generation != new.generation or old.deletion_timestamp != new.deletion_timestamp


generation_changed = Predicate.of_update(_generation_changed, name="generation_changed")
"""Pass updates that moved ``metadata.generation``: of the spec or, for kinds without the status subresource, of
anything; and the mark of deletion. Kinds without a generation pass always. Nobody notices a status that was wiped."""

labels_changed = Predicate.of_update(lambda old, new: old.labels != new.labels, name="labels_changed")
"""Pass updates that changed a label."""

annotations_changed = Predicate.of_update(
    lambda old, new: old.annotations != new.annotations, name="annotations_changed"
)
"""Pass updates that changed an annotation."""

resource_version_changed = Predicate.of_update(
    lambda old, new: old.version != new.version, name="resource_version_changed"
)
"""Pass updates that changed anything at all."""
