"""The changes that a reconcile makes to objects other than its own, for the detection of tight loops."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from reconciler._core.wire import JSONObject
from reconciler.cache import Cache, CachedObject, Informer
from reconciler.cache.overlay import Baseline
from reconciler.controller.reconcile.cycle import current_reconcile
from reconciler.meta import Request
from reconciler.meta.reference import ResourceType
from reconciler.objects import InvalidObject

__all__ = ["OwnChanges"]


class OwnChanges:
    """The observer of a controller's writes: notifies the reconcile if one changed another object, and the cache.

    Only cached objects count, since no other one can enqueue a key. A write that only confirms what is stored, such as
    an apply of the same configuration, is not a change.

    Args:
        cache: observes the writes as well.
    """

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self.begin_write = cache.begin_write
        self.invalidate = cache.invalidate
        self.invalidate_all = cache.invalidate_all

    def record_write(
        self, resource: ResourceType, verb: str, request: Request, answer: bytes, begun: Mapping[Informer, Baseline]
    ) -> None:
        """Called after each successful write of an object."""
        cycle = current_reconcile()
        if cycle is None or cycle.changed_others or cycle.is_own(resource.gvk, request):
            self._cache.record_write(resource, verb, request, answer, begun)
            return
        before = [
            (informer, informer.overlay.peek(request))
            for informer in self._cache.informers
            if informer.gvk == resource.gvk and informer.covers(request.namespace)
        ]
        self._cache.record_write(resource, verb, request, answer, begun)
        cycle.changed_others = any(_is_changed(informer, old, request) for informer, old in before)


def _is_changed(informer: Informer, before: CachedObject | None, request: Request) -> bool:
    """Return whether a write changed an object; another writer may have changed its status in between."""
    after = informer.overlay.peek(request)
    if before is None or after is None:
        return before is not after
    if before.version == after.version:
        return False
    with contextlib.suppress(InvalidObject):
        return not informer.scope.whole or _desired(before) != _desired(after)
    return True


def _desired(cached: CachedObject) -> JSONObject:
    document = cached.decode()
    document.pop("status", None)
    document["metadata"] = {
        k: v for k, v in document["metadata"].items() if k not in ("resourceVersion", "managedFields")
    }
    return document
