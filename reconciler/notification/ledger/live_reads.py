"""Reads from the API server, past the cache, before an action that cannot be undone.

The cache can lag behind, above all after a failover. A status that this process has just written needs no check. Any
other costs one read from the server, unless `OwnWrites` shows that the cache is as current as a read.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from reconciler.errors import Conflict, NotFound
from reconciler.meta import equal, is_newer, parse_version
from reconciler.notification.api.types import NotificationRequest, NotificationRequestStatus
from reconciler.status import StoredWrite

if TYPE_CHECKING:
    from reconciler.cache import CachedClient
    from reconciler.notification.ledger.mutations import RequestStatusBatcher

__all__ = ["OwnWrites", "StalenessCheck", "delete_finished"]

PROGRESS_LIMIT = 100_000
"""Maximum requests whose progress is remembered. A forgotten one costs one more read from the server."""

CURRENT_WITHIN = 0.25
"""Seconds by which the cache may be behind the server and still counts as current. The response to a read from a busy
server may take as long, and the object may change meanwhile, too."""

OWN_WRITE_LIMIT = 64
"""Maximum own writes that are remembered. A forgotten one may cost one more read from the server."""

_Progress = frozenset[tuple[str, str, int, datetime | None]]
"""The progress of a request's channels; it never returns to an earlier value."""


class OwnWrites:
    """This process's latest status writes, which show how far the cache is behind the server.

    A watch delivers changes in the order of their versions. So when it has delivered an own write, the cache contains
    everything that anyone had written before that write was sent. An operator that is busy needs no other check.

    Args:
        monotonic: returns the monotonic seconds of the clock that the batchers use.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._writes: deque[StoredWrite] = deque(maxlen=OWN_WRITE_LIMIT)

    def add(self, status: RequestStatusBatcher) -> None:
        """Remember the last write of a reconcile."""
        if status.last_write is not None:
            self._writes.append(status.last_write)

    async def show_current(self, client: CachedClient, obj: NotificationRequest) -> bool:
        """Return whether an object is the latest version, or was `CURRENT_WITHIN` ago. Cancellation changes nothing."""
        since = self._monotonic() - CURRENT_WITHIN
        reached = client.watched_version(NotificationRequest, obj.namespace)
        if not any(write.began >= since and not is_newer(write.version, reached) for write in self._writes):
            return False
        cached = await client.peek(NotificationRequest, obj.key)
        return cached is not None and cached.version == parse_version(obj.resource_version)


class StalenessCheck:
    """A check whether an object is up to date, without a read if this process wrote its status last.

    Args:
        own_writes: may show it without a read, too.

    Attributes:
        reads: number of reads from the server.
    """

    def __init__(self, own_writes: OwnWrites) -> None:
        self._own_writes = own_writes
        self._known: OrderedDict[str, _Progress] = OrderedDict()
        self.reads = 0

    def remember(self, uid: str, status: NotificationRequestStatus) -> None:
        """Remember the status that this process writes."""
        self._known[uid] = _progress(status)
        self._known.move_to_end(uid)
        if len(self._known) > PROGRESS_LIMIT:
            self._known.popitem(last=False)

    def forget(self, uid: str) -> None:
        """Forget a request that has ended."""
        self._known.pop(uid, None)

    async def is_up_to_date(
        self, client: CachedClient, obj: NotificationRequest, status: NotificationRequestStatus
    ) -> bool:
        """Return whether no other process has made progress with the request. Cancellation changes nothing."""
        if self._known.get(obj.uid) == _progress(status) or await self._own_writes.show_current(client, obj):
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
