"""Keep local copies of objects up to date, tell who wants to know, and read from them.

A `Cache` shares `Informer` objects; each mirrors one kind into a `Store` and tells handlers of each change. A
`CachedClient` reads from there and writes to the server.

It promises:

* Nothing that the server or the network does ends a watch: every failure is followed by a delay with jitter, and then
  by a resume or a new list, whichever is right for it.
* The store never goes back: a list is consistent or not older than what is known, and a lower version of the same
  object is left out. If the server's own versions fall, as after a restore of etcd, everything starts anew and says so.
* The store has a change before a handler hears of it, and what a handler hears, replayed, gives the store. Deletions
  that no event told of are found by the next list.
* Objects are held as the bytes that came; a reader gets a copy of its own and cannot harm another one.
* A process reads what it has written, before the watch tells of it.
"""

from reconciler.cache.cache import Cache, CacheStatistics
from reconciler.cache.cached_client import CachedClient
from reconciler.cache.decoding import cached_object
from reconciler.cache.errors import CacheNotSynced, Failure, NotCached
from reconciler.cache.handlers import Handler, HandlerRegistration
from reconciler.cache.informer import Informer, InformerStatistics
from reconciler.cache.object import CachedObject, CachedOwner, CacheEvent, EventType
from reconciler.cache.overlay import OverlayStatistics
from reconciler.cache.scope import HashRange, LabelSelector, Partition, Scope, Transform
from reconciler.cache.store import Store, StoreStatistics, owner_uids
from reconciler.cache.watch import ReflectorStatistics

__all__ = [
    "Cache",
    "CacheEvent",
    "CacheNotSynced",
    "CacheStatistics",
    "CachedClient",
    "CachedObject",
    "CachedOwner",
    "EventType",
    "Failure",
    "Handler",
    "HandlerRegistration",
    "HashRange",
    "Informer",
    "InformerStatistics",
    "LabelSelector",
    "NotCached",
    "OverlayStatistics",
    "Partition",
    "ReflectorStatistics",
    "Scope",
    "Store",
    "StoreStatistics",
    "Transform",
    "cached_object",
    "owner_uids",
]
