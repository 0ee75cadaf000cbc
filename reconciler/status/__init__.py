"""The status batcher: one status write per reconcile, however often the status changes in between.

`StatusBatcher` records mutations, and sends at most one conditional write at the end of its block. Its guarantees:

* If nothing changed by meaning, there is no request. Otherwise there is one write and no read, unless something fails.
  Then at most one write takes effect per flush, and the requests are bounded and counted.
* Other writers' fields survive: a write is conditional on the version that it was computed for, and replayed on a newer
  one. A value that was decided on an older version never silently overwrites another writer's decision.
* Nothing is counted twice: after a lost response the object is read back, and only idempotent mutations are repeated.
* What a server does not store is reported once per kind, and does not make the batcher write indefinitely.
* What could not be saved is kept by the running reconcile, and goes out with the next one.

`guard` finds controllers that need the batcher: those that write a status more than once per cycle, over any client.

The batcher works over this library's client, the official clients, and anything with the two methods of `StatusWriter`.
Importing it loads only the standard library, msgspec, and the packages meta, http, backoff, clock and errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reconciler._core import lazy_names as _lazy_names
from reconciler.status.batcher import StatusBatcher
from reconciler.status.errors import (
    StatusConflict,
    StatusContested,
    StatusError,
    StatusInvalid,
    StatusNotOpen,
    StatusOutcomeUnknown,
    StatusRejected,
    StatusSubresourceMissing,
    StatusTooLarge,
    StatusUnavailable,
    TooManyStatusWrites,
)
from reconciler.status.writer import StatusWriter, SyncStatusWriter

if TYPE_CHECKING:
    from reconciler.status.write_guard import guard

__all__ = [
    "StatusBatcher",
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
    "StatusWriter",
    "SyncStatusWriter",
    "TooManyStatusWrites",
    "guard",
]


if not TYPE_CHECKING:  # otherwise type checkers accept every name
    # The guard is for debugging and tests.
    __getattr__ = _lazy_names(__name__, {"write_guard": "guard"})
