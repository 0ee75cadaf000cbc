"""Reads from the API server, past the cache, before an action that cannot be undone.

The cache can lag behind, above all after a failover. A status that this process has just written needs no check; any
other costs one read from the server.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from reconciler._core.lru import LRU
from reconciler.errors import Conflict, NotFound
from reconciler.meta import equal
from reconciler.notification.api.types import NotificationRequest, NotificationRequestStatus

if TYPE_CHECKING:
    from reconciler.cache import CachedClient

__all__ = ["StalenessCheck", "delete_finished"]

PROGRESS_LIMIT = 100_000
"""Maximum requests whose progress is remembered. A forgotten one costs one more read from the server."""

_Progress = frozenset[tuple[str, str, int, datetime | None]]
"""The progress of a request's channels; it never returns to an earlier value."""


class StalenessCheck:
    """A check whether an object is up to date, without a read if this process wrote its status last.

    Attributes:
        reads: number of reads from the server.
    """

    def __init__(self) -> None:
        self._known: LRU[str, _Progress] = LRU(PROGRESS_LIMIT)
        self.reads = 0

    def remember(self, uid: str, status: NotificationRequestStatus) -> None:
        """Remember the status that this process writes."""
        self._known[uid] = _progress(status)

    def forget(self, uid: str) -> None:
        """Forget a request that has ended."""
        self._known.pop(uid, None)

    async def is_up_to_date(
        self, client: CachedClient, obj: NotificationRequest, status: NotificationRequestStatus
    ) -> bool:
        """Return whether no other process has made progress with the request. Cancellation changes nothing."""
        if self._known.get(obj.uid) == _progress(status):
            return True
        self.reads += 1
        try:
            live = await client.live.get(NotificationRequest, obj.name, obj.namespace)
        except NotFound:
            return False
        if live.uid != obj.uid or live.metadata.deletion_timestamp is not None:
            return False
        return live.resource_version == obj.resource_version or equal(
            live.to_dict().get("status"), obj.to_dict().get("status")
        )


def _progress(status: NotificationRequestStatus) -> _Progress:
    return frozenset(
        (channel.name, channel.state, channel.attempts, channel.next_attempt_time) for channel in status.channels
    )


async def delete_finished(client: CachedClient, obj: NotificationRequest) -> bool | None:
    """Delete a request that has ended; return False if it no longer exists, None if it changed and must be read again.

    The deletion is conditional on the version that was just read from the server, so a request that has changed since
    is kept. A cancelled call may have deleted it.
    """
    try:
        live = await client.live.get(NotificationRequest, obj.name, obj.namespace)
        if live.uid != obj.uid or live.status.completion_time != obj.status.completion_time:
            return None
        await client.delete(
            NotificationRequest,
            obj.name,
            obj.namespace,
            uid=live.uid,
            resource_version=live.resource_version,
            propagation="Background",
        )
    except NotFound:
        return False
    except Conflict:
        return None
    return True
