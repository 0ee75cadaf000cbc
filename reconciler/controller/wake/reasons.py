"""Name why a key runs.

A reason is a word, or a word and a detail (``"owned: Deployment"``). The words are few, so that metrics can be labelled
with them; the echo rule takes back `EVENT` and no other.
"""

from __future__ import annotations

__all__ = [
    "AGAIN",
    "DELETED",
    "DRAIN",
    "ENQUEUE",
    "EVENT",
    "OWNED",
    "REQUEUE_AFTER",
    "RESTART",
    "RESYNC",
    "RETRY",
    "REWRITTEN",
    "SOURCE",
    "WATCHED",
    "detailed",
    "word",
]

EVENT = "event"
"""The primary object appeared or changed: the only reason that is compared with what was considered."""

DELETED = "deleted"
"""The primary object went, or another one took its name."""

DRAIN = "drain"
"""The primary object is to be handed over to another process."""

RESYNC = "resync"
"""The cache repeated what it holds."""

REWRITTEN = "rewritten"
"""The primary object's content changed without a new version, as when a CRD gains a default: never an own write."""

RESTART = "restart"
"""The server's history went back (a restored backup), so that everything counts as unseen."""

OWNED = "owned"
"""An object that the primary one owns changed."""

WATCHED = "watched"
"""A mapper named the key for a change of another object."""

SOURCE = "source"
"""A source of the controller's own named the key."""

ENQUEUE = "enqueue"
"""`Controller.enqueue` was called."""

REQUEUE_AFTER = "requeue_after"
"""A reconcile asked for a delay. The next run takes it along, also one that something else wakes before it is over."""

AGAIN = "again"
"""A reconcile asked to run once more."""

RETRY = "retry"
"""A reconcile failed, and its back-off is over."""


def detailed(reason: str, detail: str) -> str:
    """Return a reason with a detail; without a detail the word alone."""
    return f"{reason}: {detail}" if detail else reason


def word(reason: str) -> str:
    """Return a reason without its detail: what a metric is labelled with."""
    return reason.partition(":")[0]
