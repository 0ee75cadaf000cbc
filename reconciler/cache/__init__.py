"""Keep local copies of objects up to date, and read from them."""

from reconciler.cache._object import CachedObject, CacheEvent, EventType, OwnerReference

__all__ = ["CacheEvent", "CachedObject", "EventType", "OwnerReference"]
