"""The types around a flush: what it requests from its driver, its target, and its result."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec

from reconciler.meta import GroupVersionKind, Request
from reconciler.meta.scalars import Version
from reconciler.status.flush.memory import StatusMemory, memory_of
from reconciler.status.record.mutations import Path
from reconciler.status.record.snapshot import Snapshot
from reconciler.status.writer import Strategy

if TYPE_CHECKING:
    from reconciler._core.wire import JSONObject

__all__ = [
    "Effect",
    "Effects",
    "FlushResult",
    "Outcome",
    "Read",
    "Sleep",
    "Target",
    "Write",
    "WriteReport",
]


class Read(msgspec.Struct, frozen=True):
    """A request for a consistent read of the whole object."""


class Write(msgspec.Struct, frozen=True):
    """A request to send a body once.

    Attributes:
        body: the body.
        strategy: how it is sent.
        subresource: where it is sent; None is the main resource.
    """

    body: JSONObject
    strategy: Strategy
    subresource: str | None


class Sleep(msgspec.Struct, frozen=True):
    """A request for a pause, in seconds."""

    seconds: float


Effect = Read | Write | Sleep


class Target(msgspec.Struct, frozen=True):
    """The object and the client.

    Attributes:
        gvk: the object's kind.
        request: its name and namespace.
        writer: the `StatusWriter` or `SyncStatusWriter`.
    """

    gvk: GroupVersionKind
    request: Request
    writer: Any

    # What only a flush needs is computed when it asks, since most reconciles have nothing to write.

    @property
    def field_manager(self) -> str:
        """Return the name that writes are recorded under; ``""`` if it is not known."""
        return str(getattr(self.writer, "field_manager", "") or "")

    @property
    def former_field_manager(self) -> str:
        """Return the name that earlier releases recorded them under; ``""`` if there was none."""
        return str(getattr(self.writer, "former_field_manager", "") or "")

    @property
    def warnings(self) -> Sequence[str]:
        """Return the ``Warning`` headers of the last response."""
        found: Sequence[str] = getattr(self.writer, "warnings", ())
        return found

    @property
    def memory(self) -> StatusMemory:
        """Return what was learned over the client."""
        return memory_of(getattr(self.writer, "client", self.writer))

    def __str__(self) -> str:
        return f"{self.gvk} {self.request}"


class WriteReport(NamedTuple):
    """A write that was applied and answered, as it is reported to the reconcile; see `reconciler.meta.Cycle.wrote`."""

    before: Version
    after: Version
    exact: bool


Outcome = Literal["written", "unchanged", "ignored", "gone"]
"""A write took effect; there was nothing to write; the server stored nothing of what was sent; the object is gone."""


class FlushResult(msgspec.Struct, frozen=True):
    """The result of a flush that did not fail.

    Attributes:
        outcome: see `Outcome`.
        document: the whole object at the newest known version; None if that is still the given one.
        tip: that version.
        base: the status that the body continues from; it differs from what the body saw by the body's own changes only.
        reports: one for each write from which the reconcile can conclude something.
        fields: paths that the write contained.
        trimmed: list entries that ``keep_last`` dropped.
    """

    outcome: Outcome
    document: JSONObject | None
    tip: Snapshot
    base: Mapping[str, Any]
    reports: tuple[WriteReport, ...] = ()
    fields: Sequence[Path] = ()
    trimmed: int = 0


Effects = Generator[Effect, Any, FlushResult]
