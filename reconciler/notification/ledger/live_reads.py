"""Know whether the version in hand is the newest, before something is done that cannot be taken back.

A cache can lag behind, after a fail-over above all. What this process recorded last needs no question; anything else
costs one read from the server.


Delete requests that have ended, and never one that is not what it seems.
"""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime
from typing import TYPE_CHECKING

from reconciler.cache import CachedClient
from reconciler.errors import Conflict, NotFound
from reconciler.meta import equal
from reconciler.notification.api.types import NotificationRequest, NotificationRequestStatus

if TYPE_CHECKING:
    from reconciler.cache import CachedClient

__all__ = ["Newest", "delete_finished"]


KNOWN_LIMIT = 100_000
"""Requests whose progress is remembered; one that was forgotten costs one more read from the server."""

_Progress = frozenset[tuple[str, str, int, datetime | None]]
"""What tells how far the channels of a request are; it never comes back to an earlier value."""


class Newest:
    """Remember how far each request was when this process last wrote it."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, _Progress] = OrderedDict()
        self.reads = 0

    def remember(self, uid: str, status: NotificationRequestStatus) -> None:
        """Note what was recorded."""
        self._known[uid] = _progress(status)
        self._known.move_to_end(uid)
        if len(self._known) > KNOWN_LIMIT:
            self._known.popitem(last=False)

    def forget(self, uid: str) -> None:
        """Let go of a request that has ended."""
        self._known.pop(uid, None)

    async def is_newest(
        self, client: CachedClient, obj: NotificationRequest, status: NotificationRequestStatus
    ) -> bool:
        """Say whether nobody has gone further with the request than `obj` tells. A cancelled call changes nothing."""
        if self._known.get(obj.uid) == _progress(status):
            return True
        self.reads += 1
        try:
            newest = await client.live.get(NotificationRequest, obj.name, obj.namespace)
        except NotFound:
            return False
        if newest.uid != obj.uid or newest.metadata.deletion_timestamp is not None:
            return False
        return newest.resource_version == obj.resource_version or equal(
            newest.to_dict().get("status"), obj.to_dict().get("status")
        )


def _progress(status: NotificationRequestStatus) -> _Progress:
    return frozenset(
        (channel.name, channel.state, channel.attempts, channel.next_attempt_time) for channel in status.channels
    )


async def delete_finished(client: CachedClient, obj: NotificationRequest) -> bool | None:
    """Delete a request that has ended; return False if it is gone, None if it has to be looked at again.

    The deletion is conditional on the version read from the server just before: a request that somebody touched since
    stays. A cancelled call may have deleted it.
    """
    try:
        newest = await client.live.get(NotificationRequest, obj.name, obj.namespace)
        if newest.uid != obj.uid or newest.status.completion_time != obj.status.completion_time:
            return None
        await client.delete(
            NotificationRequest,
            obj.name,
            obj.namespace,
            uid=newest.uid,
            resource_version=newest.resource_version,
            propagation="Background",
        )
    except NotFound:
        return False
    except Conflict:
        return None
    return True
