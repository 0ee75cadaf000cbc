"""Name the errors of this room.

The tree, under `reconciler.errors.ReconcilerError`::

    StatusError                     what was recorded is not saved
    ├── StatusConflict              the object is newer: at a checkpoint, or once more after every replay
    ├── StatusContested             someone else changed a field since it was read that this batcher was to set
    ├── StatusOutcomeUnknown        the answer was lost, and repeating could count twice
    ├── StatusUnavailable           the server was not reached, or shed load, until the budget was used up
    ├── StatusRejected              the server refused; repeating the same cannot help
    │   ├── StatusInvalid           422: fields do not fit the kind's schema
    │   └── StatusTooLarge          the object is beyond the server's limit
    ├── StatusSubresourceMissing    the kind is served without ``/status``
    ├── StatusNotOpen               used outside its block
    └── UnknownStatusField          recording a field that the status model does not have

and, of the guard::

    TooManyStatusWrites             a cycle wrote a status more than once; an AssertionError as well
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from reconciler.errors import ReconcilerError
from reconciler.meta import format_path
from reconciler.status.record.mutations import Mutation

__all__ = [
    "MAX_NAMED",
    "StatusConflict",
    "StatusContested",
    "StatusError",
    "StatusInvalid",
    "StatusNotOpen",
    "StatusOutcomeUnknown",
    "StatusRejected",
    "StatusSubresourceMissing",
    "StatusTooLarge",
    "StatusUnavailable",
    "TooManyStatusWrites",
    "UnknownStatusField",
    "describe",
]

MAX_NAMED = 12
"""How many mutations or fields a message names."""


class StatusError(ReconcilerError):
    """Say that what was recorded is not saved.

    Attributes:
        unsaved: the mutations, in the order of their calls; `StatusBatcher.record` takes them again.
        retryable: whether the same write may succeed later. False: do not repeat it, something must change first.
    """

    retryable: bool = True

    def __init__(self, message: str, *, unsaved: Sequence[Mutation] = ()) -> None:
        self.unsaved: tuple[Mutation, ...] = tuple(unsaved)
        super().__init__(f"{message} Not saved: {describe(self.unsaved)}." if self.unsaved else message)


class StatusConflict(StatusError):
    """Say that the object is newer than the version that the status was computed for."""


class StatusContested(StatusError):
    """Say that another writer changed fields, since they were read, that this batcher was to set.

    Attributes:
        paths: the fields, as people write them (``"a.b"``).
    """

    def __init__(self, message: str, *, paths: Iterable[str] = (), unsaved: Sequence[Mutation] = ()) -> None:
        self.paths = tuple(paths)
        super().__init__(message, unsaved=unsaved)


class StatusOutcomeUnknown(StatusError):
    """Say that it cannot be told whether the write took effect, so that repeating it could count twice.

    A controller that must not guess derives counters from entries with a key, or gives the batcher a ``token=``.
    """


class StatusUnavailable(StatusError):
    """Say that no request got through in time; nothing was written."""


class StatusRejected(StatusError):
    """Say that the server refused the write, and would refuse it again."""

    retryable = False


class StatusInvalid(StatusRejected):
    """Say which fields do not fit the kind's schema.

    Attributes:
        fields: the paths that the server named.
    """

    def __init__(self, message: str, *, fields: Iterable[str] = (), unsaved: Sequence[Mutation] = ()) -> None:
        self.fields = tuple(fields)
        super().__init__(message, unsaved=unsaved)


class StatusTooLarge(StatusRejected):
    """Say that the object is beyond the server's limit of about 1.5 MiB, and which fields are the largest."""


class StatusSubresourceMissing(StatusError):
    """Say that the kind is served without the ``status`` subresource, so its status cannot be written there."""

    retryable = False


class StatusNotOpen(StatusError):
    """Say that a batcher is used before its block began or after it ended."""

    retryable = False


class UnknownStatusField(StatusError, ValueError):
    """Say that the kind's status model has no such field, so that the server would drop it."""

    retryable = False


class TooManyStatusWrites(ReconcilerError, AssertionError):
    """Say that a guarded cycle wrote an object's status more than once, and where from."""


def describe(mutations: Sequence[Mutation]) -> str:
    """Name mutations by verb and path, without their values: a status may hold what a log must not."""
    named = [f"{m.verb} {', '.join(map(format_path, m.paths))}".rstrip() for m in mutations[:MAX_NAMED]]
    more = len(mutations) - len(named)
    return "; ".join(named) + (f"; and {more} more" if more else "")
