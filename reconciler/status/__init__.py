"""Write an object's status once per piece of work, however often it is spoken of in between.

`StatusBatcher` records mutations, and sends at most one conditional patch at the end of its block. What it promises:

* Nothing changed by meaning: no request. Something changed and no trouble: one write, no read. In trouble: at most one
  write takes effect per flush; requests are bounded and counted.
* Other writers' fields survive: a write is conditional on the version it was computed for, and replayed on a newer one.
  A value that was decided on an older version never overwrites another writer's decision silently.
* Nothing is counted twice: a lost answer is read back, and only what is the same twice as once is repeated.
* What a server will not store is reported once a kind, and does not make the batcher write for ever.
* What could not be saved goes to the running cycle, and out with the next one.

`guard` is the tool before it: it finds the controller that writes more than once a cycle, over any client.

It works over this library's client, over the official clients, and over anything with `StatusWriter`'s two methods.
Importing it loads the standard library, msgspec, and the rooms meta, http, backoff, clock and errors.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

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
    UnknownStatusField,
)
from reconciler.status.flush.unsaved import Unsaved
from reconciler.status.options import OnError, check_options
from reconciler.status.record.mutations import Mutation
from reconciler.status.statistics import StatusMetrics, StatusStatistics
from reconciler.status.writer import StatusWriter, Strategy, SyncStatusWriter

if TYPE_CHECKING:
    from reconciler.status.write_guard.guard import GuardStatistics, StatusWrite, StatusWrites, guard

__all__ = [
    "GuardStatistics",
    "Mutation",
    "OnError",
    "StatusBatcher",
    "StatusConflict",
    "StatusContested",
    "StatusError",
    "StatusInvalid",
    "StatusMetrics",
    "StatusNotOpen",
    "StatusOutcomeUnknown",
    "StatusRejected",
    "StatusStatistics",
    "StatusSubresourceMissing",
    "StatusTooLarge",
    "StatusUnavailable",
    "StatusWrite",
    "StatusWriter",
    "StatusWrites",
    "Strategy",
    "SyncStatusWriter",
    "TooManyStatusWrites",
    "UnknownStatusField",
    "Unsaved",
    "check_options",
    "guard",
]


def __getattr__(name: str) -> object:
    if name in __all__:  # the guard, which a controller that works well does not need
        return getattr(importlib.import_module("reconciler.status.write_guard.guard"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
