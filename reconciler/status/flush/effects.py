"""Hold what a flush asks of its driver, what it is aimed at, and what comes out."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Hashable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from reconciler.backoff import Backoff
from reconciler.clock import Clock
from reconciler.meta import GroupVersionKind, Request, Version
from reconciler.status.flush.memory import StatusMemory
from reconciler.status.record.forms import StatusForms
from reconciler.status.record.mutations import Path
from reconciler.status.record.snapshot import Snapshot
from reconciler.status.writer import Strategy

__all__ = ["BACKOFF", "Effect", "Flow", "Flushed", "Outcome", "Policy", "Read", "Report", "Sleep", "Target", "Write"]

BACKOFF = Backoff(base=0.01, factor=4, maximum=1.0, jitter=0.5)
"""Before each repetition: about 10, 40, 160, 640 ms. client-go's RetryOnConflict starts at 10 ms as well; the spread
keeps replicas that met once from meeting again."""


class Read(msgspec.Struct, frozen=True):
    """Ask for a consistent read of the whole object."""


class Write(msgspec.Struct, frozen=True):
    """Ask for one send of a body.

    Attributes:
        body: what to send.
        strategy: how.
        subresource: where; None is the main resource.
    """

    body: dict[str, Any]
    strategy: Strategy
    subresource: str | None


class Sleep(msgspec.Struct, frozen=True):
    """Ask for a pause of so many seconds."""

    seconds: float


Effect = Read | Write | Sleep


class Target(msgspec.Struct, frozen=True):
    """Name the object and the client.

    Attributes:
        gvk: the object's kind.
        request: its name and namespace.
        identity: server, client and field manager.
        field_manager: under which writes are recorded; ``""`` when that is not known.
        former_field_manager: under which earlier releases recorded them; ``""`` if there was no such name.
        warnings: returns the ``Warning`` headers of the last answer.
        memory: what was learned over the client.
    """

    gvk: GroupVersionKind
    request: Request
    identity: Hashable
    field_manager: str
    former_field_manager: str
    warnings: Callable[[], Sequence[str]]
    memory: StatusMemory

    def __str__(self) -> str:
        return f"{self.gvk} {self.request}"


class Policy(msgspec.Struct, frozen=True):
    """Say how a batcher sends.

    Attributes:
        strategy: merge patch, update or apply.
        subresource: ``"status"``; ``"auto"`` falls back to the main resource; None is the main resource.
        limit: writes, and reads, that one flush makes at most.
        token: where each write leaves a random id, so that a lost answer can be told.
        clock: dates what is learned.
        rng: spreads pauses and makes ids.
        conditional: whether each write names the version that it was computed for.
        forms: what the kind's model says of texts that mean the same; None for untyped kinds.
        backoff: pauses between repetitions.
        patience: seconds that inside kopf, where a try costs an event, must have passed as well before giving up.
    """

    strategy: Strategy
    subresource: str | None
    limit: int
    token: Path | None
    clock: Clock
    rng: random.Random
    conditional: bool = True
    forms: StatusForms | None = None
    backoff: Backoff = BACKOFF
    patience: float = 10.0

    def snapshot(self, document: Mapping[str, Any], *, last: bool = False) -> Snapshot:
        """Take out of an object what writes of this kind need; of the `last` version only what tells what it is."""
        framed = self.strategy == "update" and not last
        return Snapshot.of(document, whole=self.subresource != "status", framed=framed)


class Report(NamedTuple):
    """Tell the cycle of a write that was applied and answered."""

    before: Version
    after: Version
    exact: bool


Outcome = Literal["written", "unchanged", "ignored", "gone"]
"""A write took effect; there was nothing to write; the server stored nothing of what was sent; the object is gone."""


class Flushed(msgspec.Struct, frozen=True):
    """Hold how a flush ended without error.

    Attributes:
        outcome: see `Outcome`.
        document: the whole object at the version now known; None when that is still the one given.
        tip: that version.
        considered: the status that the body may go on from; at most its own changes are newer than what it saw.
        reports: for the cycle, one for each write of which something may be concluded.
        fields: paths that the write named.
        trimmed: list entries that ``keep_last`` dropped.
    """

    outcome: Outcome
    document: dict[str, Any] | None
    tip: Snapshot
    considered: Mapping[str, Any]
    reports: tuple[Report, ...] = ()
    fields: Sequence[Path] = ()
    trimmed: int = 0


Flow = Generator[Effect, Any, Flushed]
