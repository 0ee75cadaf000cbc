"""Name the errors of cached reads."""

from __future__ import annotations

from reconciler.errors import ReconcilerError

__all__ = ["CacheNotSynced", "NotCached"]


class NotCached(ReconcilerError):
    """Say that no informer holds what was asked for, and that ``client.live`` reads it from the server."""


class CacheNotSynced(ReconcilerError):
    """Say which informers have no complete list yet, and what the server answered them last."""
