"""Say what an informer watches; two that watch the same are one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from reconciler.cache._object import CachedObject
from reconciler.cache._selector import LabelSelector, matches_fields, parse_fields
from reconciler.cache._wire import Transform
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
    """

    gvk: GroupVersionKind
    namespaces: tuple[str, ...] | None = None
    label_selector: str | None = None
    field_selector: str | None = None
    metadata_only: bool = False
    managed_fields: bool = False
    transform: Transform | None = None
    _labels: LabelSelector = field(init=False, repr=False, compare=False)
    _fields: tuple[tuple[str, str, str], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_labels", LabelSelector(self.label_selector or ""))
        object.__setattr__(self, "_fields", parse_fields(self.field_selector or ""))

    @property
    def selective(self) -> bool:
        """Say whether a selector narrows the watch."""
        return bool(self.label_selector or self.field_selector)

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

    def selectors(self) -> list[tuple[str, str]]:
        """Return the selectors as query parameters."""
        given = (("labelSelector", self.label_selector), ("fieldSelector", self.field_selector))
        return [(name, text) for name, text in given if text]

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
