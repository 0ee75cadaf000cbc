"""Delete requests that have ended, and never one that is not what it seems."""

from __future__ import annotations

from reconciler.cache import CachedClient
from reconciler.errors import Conflict, NotFound
from reconciler.notification.api.resource import NotificationRequest

__all__ = ["delete_finished"]


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
