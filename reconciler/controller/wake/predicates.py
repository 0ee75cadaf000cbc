"""Decide which events matter.

A predicate judges a `CacheEvent`; predicates combine with ``&``, ``|`` and ``~``. The ``…_changed`` ones judge updates
alone: that an object appeared, went, was repeated by a resync, or that another one took its name always passes. They
filter events, not memory or traffic; for those, use selectors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from reconciler.cache import EventType, LabelSelector

if TYPE_CHECKING:
    from reconciler.cache import CachedObject, CacheEvent

__all__ = [
    "Predicate",
    "annotations_changed",
    "generation_changed",
    "labels_changed",
    "labels_match",
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
        self._name = name or _name(judge)

    @classmethod
    def of_object(cls, judge: Callable[[CachedObject], bool]) -> Predicate:
        """Make a predicate that judges the object alone: the new one of an update, the last one of a deletion."""
        return cls(lambda event: judge(event.object), name=_name(judge))

    @classmethod
    def of_types(cls, *types: EventType) -> Predicate:
        """Make a predicate that passes events of these types: ``~Predicate.of_types(EventType.DELETED)``."""
        return cls(lambda event: event.type in types, name=f"of_types({', '.join(each.name for each in types)})")

    @classmethod
    def of_update(cls, judge: Callable[[CachedObject, CachedObject], bool], *, name: str | None = None) -> Predicate:
        """Make a predicate that judges old and new object of an update and lets every other event pass.

        Two objects of one name are told apart by their uid: what has taken the place of another is no update of it. Nor
        is content that changed without a new version (`CacheEvent.rewritten`).
        """

        def judge_update(event: CacheEvent) -> bool:
            old, new = event.old, event.new
            if event.type is not EventType.UPDATED or event.rewritten:
                return True
            if old is None or new is None or old.uid != new.uid:
                return True
            return judge(old, new)

        return cls(judge_update, name=name or _name(judge))

    def __call__(self, event: CacheEvent, /) -> bool:
        """Say whether the event matters."""
        return self._judge(event)

    def __and__(self, other: Callable[[CacheEvent], bool]) -> Predicate:
        return Predicate(lambda event: self(event) and other(event), name=f"({self!r} & {_name(other)})")

    def __or__(self, other: Callable[[CacheEvent], bool]) -> Predicate:
        return Predicate(lambda event: self(event) or other(event), name=f"({self!r} | {_name(other)})")

    def __invert__(self) -> Predicate:
        return Predicate(lambda event: not self(event), name=f"~{self!r}")

    def __repr__(self) -> str:
        return self._name


def _name(judge: Callable[..., bool]) -> str:
    return repr(judge) if isinstance(judge, Predicate) else str(getattr(judge, "__name__", "predicate"))


def labels_match(selector: str | Mapping[str, str]) -> Predicate:
    """Return a predicate that passes events of the objects which a label selector selects.

    An update passes if the object was selected before it as well: that it has left is news.

    Args:
        selector: in the API's syntax (``"app=web,tier in (a,b)"``), or a mapping of what must be equal.

    Raises:
        ValueError: the selector cannot be read.
    """
    text = selector if isinstance(selector, str) else ",".join(f"{key}={value}" for key, value in selector.items())
    labels = LabelSelector(text)

    def judge(event: CacheEvent) -> bool:
        return any(obj is not None and labels.matches(obj.labels) for obj in (event.new, event.old))

    return Predicate(judge, name=f"labels_match({text!r})")


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
