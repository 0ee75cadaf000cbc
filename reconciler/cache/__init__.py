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
from reconciler.cache.errors import CacheNotSynced, NotCached
from reconciler.cache.handlers import Handler, HandlerRegistration
from reconciler.cache.informer import Informer
from reconciler.cache.reflector.failures import Failure
from reconciler.cache.reflector.wire import Transform, cached_object
from reconciler.cache.scope import Scope
from reconciler.cache.statistics import InformerStatistics, ReflectorStatistics
from reconciler.cache.store.index import owner_uids
from reconciler.cache.store.object import CachedObject, CacheEvent, EventType, OwnerReference
from reconciler.cache.store.overlay import OverlayStatistics
from reconciler.cache.store.partition import HashRange, Partition
from reconciler.cache.store.selector import LabelSelector
from reconciler.cache.store.store import Store, StoreStatistics

__all__ = [
    "Cache",
    "CacheEvent",
    "CacheNotSynced",
    "CacheStatistics",
    "CachedClient",
    "CachedObject",
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
    "OwnerReference",
    "Partition",
    "ReflectorStatistics",
    "Scope",
    "Store",
    "StoreStatistics",
    "Transform",
    "cached_object",
    "owner_uids",
]
