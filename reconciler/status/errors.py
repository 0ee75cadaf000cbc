"""The errors of the status batcher and its guard.

The tree, under `reconciler.errors.ReconcilerError`::

    StatusError                     what was recorded is not saved.
    ├── StatusConflict              the object is newer, at a checkpoint or again after each replay.
    ├── StatusContested             another writer has changed a field that this batcher sets.
    ├── StatusOutcomeUnknown        the response was lost, and repeating the write could count twice.
    ├── StatusUnavailable           the server was unreachable or overloaded until the time or the requests ran out.
    ├── StatusRejected              the server refused the write; nothing was written.
    │   ├── StatusInvalid           422: fields do not match the kind's schema.
    │   └── StatusTooLarge          the object is beyond the server's limit.
    ├── StatusSubresourceMissing    the kind is served without ``/status``.
    ├── StatusNotOpen               used outside its block.
    └── UnknownStatusField          recording a field that the status model does not have.

and, of the guard::

    TooManyStatusWrites             a cycle wrote a status more than once; an AssertionError as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from reconciler.errors import ReconcilerError
from reconciler.meta.documents import format_path

if TYPE_CHECKING:
    from reconciler.status.mutations import Mutation

MAX_NAMED = 12
"""How many mutations or fields a message names."""

MAX_TEXT = 1000
"""How many characters a message quotes of a server's; a name gets a tenth. The names in a status may be its users'."""


class StatusError(ReconcilerError):
    """An error after which the recorded mutations are not saved.

    Attributes:
        unsaved: the mutations, in the order of their calls; pass them to `StatusBatcher.record` to try again. Those of
            a checkpoint are still recorded, except what must not be repeated; see `StatusBatcher.flush`.
        retryable: whether the same write may succeed later. False: something must change before a retry can help.
    """

    retryable: bool = True

    def __init__(self, message: str, *, unsaved: Sequence[Mutation] = ()) -> None:
        self.unsaved: tuple[Mutation, ...] = tuple(unsaved)
        super().__init__(f"{message} Not saved: {_described(self.unsaved)}." if self.unsaved else message)


class StatusConflict(StatusError):
    """The object is newer than the version that the status was computed for."""


class StatusContested(StatusError):
    """Another writer has changed fields since they were read that this batcher sets.

    Attributes:
        paths: the fields, as ``"a.b"``.
    """

    def __init__(self, message: str, *, paths: Iterable[str] = (), unsaved: Sequence[Mutation] = ()) -> None:
        self.paths = tuple(paths)
        super().__init__(message, unsaved=unsaved)


class StatusOutcomeUnknown(StatusError):
    """It is unknown whether the write took effect, so that repeating it could count twice.

    A controller that must not guess derives counters from entries with a key, or gives the batcher a ``token=``.
    """


class StatusUnavailable(StatusError):
    """No request reached the server in time; nothing was written."""


class StatusRejected(StatusError):
    """The server refused the write, and would refuse it at once again; nothing was written.

    It is `retryable` if an admission webhook did not answer, since nothing here must change until it does.
    """

    retryable = False


class StatusInvalid(StatusRejected):
    """Fields do not match the kind's schema.

    Attributes:
        fields: the paths that the server named.
    """

    def __init__(self, message: str, *, fields: Iterable[str] = (), unsaved: Sequence[Mutation] = ()) -> None:
        self.fields = tuple(fields)
        super().__init__(message, unsaved=unsaved)


class StatusTooLarge(StatusRejected):
    """The object is beyond the server's limit of about 1.5 MiB; the message names the largest fields."""


class StatusSubresourceMissing(StatusError):
    """The kind is served without the ``status`` subresource, so its status cannot be written there."""

    retryable = False


class StatusNotOpen(StatusError):
    """A batcher is used before its block has started or after it has ended."""

    retryable = False


class UnknownStatusField(StatusError, ValueError):
    """The kind's status model has no such field, so that the server would drop it."""

    retryable = False


class TooManyStatusWrites(ReconcilerError, AssertionError):
    """A guarded cycle wrote an object's status more than once; the message has the stack of each write."""


def cut(text: str, limit: int = MAX_TEXT) -> str:
    """Return a text with `limit` characters at most."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def listed(names: Iterable[str], separator: str = ", ") -> str:
    """Return names for a message, each once: the first `MAX_NAMED`, and how many more there are."""
    counts = Counter(names)
    shown = [
        cut(name, MAX_TEXT // 10) + (f" ({count} times)" if count > 1 else "")
        for name, count in islice(counts.items(), MAX_NAMED)
    ]
    more = len(counts) - len(shown)
    return separator.join(shown) + (f"{separator}and {more} more" if more else "")


def _described(mutations: Sequence[Mutation]) -> str:
    """Return verbs and paths without values: a status may contain what a log must not."""
    return listed((f"{m.verb} {', '.join(map(format_path, m.paths))}".rstrip() for m in mutations), "; ")
