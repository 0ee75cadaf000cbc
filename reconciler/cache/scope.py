"""Say what an informer watches; two that watch the same are one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from reconciler.cache.reflector.wire import Transform
from reconciler.cache.store.object import CachedObject
from reconciler.cache.store.partition import Partition
from reconciler.cache.store.selector import LabelSelector, matches_fields, parse_fields
from reconciler.meta import GroupVersionKind

__all__ = ["Scope"]


@dataclass(frozen=True, slots=True)
class Scope:
    """Be the identity of an informer.

    Attributes:
        gvk: the kind.
        namespaces: those that are watched, sorted; None for all of them, and for cluster-scoped kinds.
        label_selector: in the API's syntax; None for everything.
        field_selector: the same for fields.
        metadata_only: hold nothing but metadata.
        managed_fields: hold ``metadata.managedFields`` too.
        transform: what is applied to each object.
        partition: the part that this process answers for; None for all of it.
    """

    gvk: GroupVersionKind
    namespaces: tuple[str, ...] | None = None
    label_selector: str | None = None
    field_selector: str | None = None
    metadata_only: bool = False
    managed_fields: bool = False
    transform: Transform | None = None
    partition: Partition | None = None
    _labels: LabelSelector = field(init=False, repr=False, compare=False)
    _fields: tuple[tuple[str, str, str], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_labels", LabelSelector(self.labels or ""))
        object.__setattr__(self, "_fields", parse_fields(self.field_selector or ""))

    @property
    def selective(self) -> bool:
        """Say whether a selector narrows what this process answers for."""
        return bool(self.label_selector or self.field_selector)

    @property
    def streams(self) -> int:
        """Return how many watches this takes: one for each namespace."""
        return 1 if self.namespaces is None else len(self.namespaces)

    @property
    def labels(self) -> str | None:
        """Return all that labels have to fulfil, the partition's condition counted in."""
        of_partition = self.partition.labels if self.partition is not None else None
        return ",".join(text for text in (self.label_selector, of_partition) if text) or None

    @property
    def leaves(self) -> bool:
        """Say whether an object may leave the watch alive."""
        return bool(self.labels or self.field_selector)

    @property
    def whole(self) -> bool:
        """Say whether complete objects are held."""
        return not self.metadata_only

    def of_whole_objects(self) -> Scope:
        """Return the same with complete objects."""
        return replace(self, metadata_only=False)

    def covers(self, namespace: str | None) -> bool:
        """Say whether a namespace is watched; None asks for all of them, or for a cluster-scoped kind."""
        return self.namespaces is None or namespace in self.namespaces

    def selects(self, cached: CachedObject) -> bool:
        """Say whether an object is surely selected; a field selector of other fields than the name leaves it open."""
        return self._labels.matches(cached.labels) and bool(matches_fields(self._fields, cached.request))

    def has_left(self, cached: CachedObject) -> bool:
        """Say whether an object's labels put it outside."""
        return not self._labels.matches(cached.labels)

    def selectors(self) -> list[tuple[str, str]]:
        """Return the selectors as query parameters."""
        hashes = self.partition.hashes if self.partition is not None else None
        given = (("labelSelector", self.labels), ("fieldSelector", self.field_selector), ("shardSelector", hashes))
        return [(name, str(text)) for name, text in given if text]

    def __str__(self) -> str:
        parts = [str(self.gvk)]
        if self.namespaces is not None:
            parts.append(f"in {', '.join(self.namespaces)}")
        parts += [f"where {text}" for _, text in self.selectors()]
        if self.metadata_only:
            parts.append("(metadata only)")
        if self.transform is not None:
            parts.append(f"through {getattr(self.transform, '__qualname__', 'a transform')}")
        return " ".join(parts)
