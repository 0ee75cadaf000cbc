"""Informer caches: local copies of objects, kept up to date by watches, with change notification and cached reads.

A `Cache` shares `Informer` objects. Each informer mirrors one kind into a `Store` and notifies handlers of every
change. A `CachedClient` reads from the stores and writes to the server.

Guarantees:

* No failure of the server or the network ends a watch. Every failure is followed by a jittered delay, and then by a
  resume or a new list, whichever fits the failure.
* The store never goes back in time. A list is consistent or not older than what is known, and an older version of a
  stored object is ignored. If the server's own versions decrease, as after a restore of etcd, everything is listed
  again and a warning is logged.
* The store is updated before handlers are notified, and replaying a handler's events reproduces the store. The next
  list finds deletions for which no event arrived.
* Objects are stored as the bytes received. A reader gets a private copy and cannot corrupt the cache.
* A process reads its own writes, even before the watch delivers them.
"""

from reconciler.cache.cache import Cache
from reconciler.cache.cached_client import CachedClient
from reconciler.cache.scope import LabelSelector, Transform
from reconciler.cache.store import CachedObject, CacheEvent, EventType, owner_uids
from reconciler.cache.watch import CacheNotSynced, NotCached

__all__ = [
    "Cache",
    "CacheEvent",
    "CacheNotSynced",
    "CachedClient",
    "CachedObject",
    "EventType",
    "LabelSelector",
    "NotCached",
    "Transform",
    "owner_uids",
]
