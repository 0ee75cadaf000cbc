"""The reasons that keys are enqueued for.

A reason is a word, or a word with a detail (``"owned: Deployment"``). The words are few, so metrics can use them as
labels. `EVENT` is the only one that the echo rule applies to.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

EVENT = "event"
"""The primary object appeared or changed: the only reason that is compared with the observed version."""

DELETED = "deleted"
"""The primary object was deleted, or another one took its name."""

DRAIN = "drain"
"""The primary object must be handed over to another process."""

RESYNC = "resync"
"""The cache repeated the objects in its store."""

REWRITTEN = "rewritten"
"""The primary object's content changed without a new version, as when a CRD gains a default: never an own write."""

RESTART = "restart"
"""The server's history went back (a restored backup), so every object counts as not observed."""

OWNED = "owned"
"""An object that the primary one owns changed."""

WATCHED = "watched"
"""A mapper returned the key for a change of another object."""

SOURCE = "source"
"""A source of the controller enqueued the key."""

ENQUEUE = "enqueue"
"""`Controller.enqueue` was called."""

REQUEUE_AFTER = "requeue_after"
"""A reconcile returned a delay, which has elapsed. A reconcile that something else caused earlier replaces it."""

AGAIN = "again"
"""A reconcile returned ``Result(again=True)``."""

RETRY = "retry"
"""A reconcile failed, and its backoff has elapsed."""


def detailed(reason: str, detail: str) -> str:
    """Return a reason with a detail; without a detail the word alone."""
    return f"{reason}: {detail}" if detail else reason


def word(reason: str) -> str:
    """Return a reason without its detail, as a metric label."""
    return reason.partition(":")[0]


@functools.lru_cache(maxsize=256)  # called in every reconcile, with few different reasons
def words(reasons: frozenset[str]) -> frozenset[str]:
    """Return reasons without their details."""
    return frozenset(map(word, reasons))


_DESCRIPTIONS = {
    EVENT: "the object appeared or changed",
    DELETED: "the object was deleted, or another one took its name",
    DRAIN: "another process takes the object over",
    RESYNC: "the cache repeated its objects",
    REWRITTEN: "the content of the object changed without a new version",
    RESTART: "the history of the API server went back",
    OWNED: "an object that it owns changed",
    WATCHED: "a watched object changed",
    SOURCE: "a source enqueued it",
    ENQUEUE: "the operator enqueued it",
    REQUEUE_AFTER: "the delay that a reconcile returned had passed",
    AGAIN: "the previous reconcile asked for one more",
    RETRY: "the backoff after a failure had passed",
}


def because(reasons: Iterable[str]) -> str:
    """Return reasons as a clause: ``"the object appeared or changed, and an object that it owns changed (Secret)"``.

    Reasons that differ in their detail only are named once, with all details.
    """
    details: dict[str, list[str]] = {}
    for reason in reasons:
        name, _, detail = reason.partition(": ")
        details.setdefault(name, []).extend([detail] if detail else ())
    clauses = [
        _DESCRIPTIONS.get(name, name) + (f" ({', '.join(each)})" if each else "") for name, each in details.items()
    ]
    *others, last = clauses or ["of an unnamed reason"]
    return f"{', '.join(others)}, and {last}" if others else last
