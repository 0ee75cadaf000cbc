"""A client that reads declared kinds from the cache, sees its own writes immediately, and writes to the server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, TypeVar, Unpack

from reconciler.cache.cache import Cache
from reconciler.cache.informer import Informer
from reconciler.cache.overlay import OverlayExpired
from reconciler.cache.scope import LabelSelector, format_labels, matches_fields, parse_fields
from reconciler.cache.store import CachedObject, IdleObject, restored
from reconciler.cache.watch import CacheNotSynced, NotCached
from reconciler.client import Client, ListResult
from reconciler.client.requests import InvalidItem, ListOptions, Selector
from reconciler.errors import APIError, error_from_response
from reconciler.meta import GroupVersionKind, Request
from reconciler.meta.cycle import current_cycle
from reconciler.meta.documents import parse_version
from reconciler.meta.metadata import ResourceType
from reconciler.objects import InvalidObject
from reconciler.objects.kinds import KindLike, KindOf, R, gvk_from

READ_TIMEOUT = 30.0
"""Seconds that a read waits for the initial list of its kind."""

MOST_REQUESTS = 100
"""Objects that a read requests one by one; if more are unconfirmed, it waits for a list of the kind."""

T = TypeVar("T")


class CachedClient(Client):
    """A `Client` whose `get` and `list` are answered by a cache, without a request.

    Results are private copies. This process's own writes through this client, and through its `live`, are visible
    immediately, before the watch delivers them. If the response to a write does not tell what is stored (it was lost,
    `delete_all_of` deleted many objects, ``"scale"`` changed the object behind it), the next read of the affected
    objects asks the server, once. All other methods talk to the server.

    Reading a kind that is not cached is an error, not a request: a read that silently costs a request each time, or
    starts a watch of the whole cluster, would go unnoticed. Use `live` to read from the server.

    Args:
        client: sends the requests.
        cache: answers the reads, and is notified of the writes.
    """

    def __init__(self, client: Client, cache: Cache) -> None:
        self.session = client.session.observed_by(cache)
        self._cache = cache

    @property
    def live(self) -> Client:
        """Return a client that reads from the server. Its writes are applied to the cache as well."""
        return Client.over(self.session)

    async def get(self, kind: KindOf[R], name: str, namespace: str | None = None) -> R:
        """Return one object from the cache.

        Waits up to 30 s for the kind's initial list. Cancellation changes nothing.

        Args:
            kind: a `Resource` class, ``"group/version/Kind"`` or a GroupVersionKind.
            name: the object's name.
            namespace: its namespace; None for cluster-scoped kinds.

        Raises:
            NotFound: the cache has no such object.
            NotCached: the kind, or the namespace, is not cached; `live` reads it.
            CacheNotSynced: the initial list is not complete after 30 s.
            ValueError: the kind is namespaced and no namespace is given.
            InvalidObject: the object cannot be decoded, or does not fit the class.
        """
        gvk = gvk_from(kind)
        informer, namespace = await self._informer(gvk, namespace)
        request = _request(informer.resource, name, namespace)
        cached = await self._find(informer, request)
        if cached is None:
            raise _not_found(informer.resource, request)
        cycle = current_cycle.get()
        if cycle is not None:
            cycle.saw(gvk, request, cached.uid, cached.version)
        return cached.read_as(kind)

    async def list(
        self, kind: KindOf[R], namespace: str | None = None, **options: Unpack[ListOptions]
    ) -> ListResult[R]:
        """Return objects from the cache, sorted by namespace and name.

        Waits up to 30 s for the kind's initial list. An object that cannot be decoded or does not fit the class is left
        out, listed in `ListResult.invalid`, and logged once per version. Cancellation changes nothing.

        Args:
            kind: a `Resource` class, ``"group/version/Kind"`` or a GroupVersionKind.
            namespace: None for all that are cached, or for cluster-scoped kinds.
            options: ``label_selector``: text in the API's syntax, or a mapping of required values. ``field_selector``:
                the same for ``metadata.name``, ``metadata.namespace``, and each field for which the informer's store
                has an index named after the field's path. ``limit`` is ignored: the cache has no pages.

        Raises:
            NotCached: the kind, the namespace, or a field of the selector is not cached; `live` reads it.
            CacheNotSynced: the initial list is not complete after 30 s.
            ValueError: a selector is malformed.
        """
        return await self._list(kind, namespace, **options)

    async def _list(
        self,
        kind: KindLike,
        namespace: str | None,
        label_selector: Selector | None = None,
        field_selector: Selector | None = None,
        limit: int = 0,  # noqa: ARG002 - the cache has no pages
    ) -> ListResult[Any]:
        gvk = gvk_from(kind)
        informer, namespace = await self._informer(gvk, namespace)
        selected = await self._select(
            informer, namespace, format_labels(label_selector) or "", format_labels(field_selector) or ""
        )
        self._report(gvk, selected)
        found, invalid = [], []
        for cached in selected:
            try:
                found.append(cached.read_as(kind))
            except InvalidObject as error:
                version = str(restored(cached).version)
                invalid.append(InvalidItem(cached.request.name, cached.request.namespace, version, error))
        self.session.connection.invalid_items.log(gvk, invalid)
        return ListResult(found, informer.version(namespace), invalid)

    async def _informer(self, gvk: GroupVersionKind, namespace: str | None) -> tuple[Informer, str | None]:
        """Return the synced informer for a read, and the namespace to read."""
        informer = self._cache.find(gvk, namespace or self.session.options.namespace)
        if not informer.synced:
            if not self._cache.started:
                raise CacheNotSynced(f"{gvk} cannot be read before the cache is started; use client.live")
            await informer.wait_synced(READ_TIMEOUT)
        return informer, self.session.options.namespace_for(informer.resource, namespace)

    async def peek(self, kind: KindLike, request: Request) -> CachedObject | None:
        """Return the object that `get` would read, cached and undecoded; None if the cache has no such object.

        It does not count as a read of the current reconcile. Cancellation changes nothing.

        Args:
            kind: a `Resource` class, ``"group/version/Kind"`` or a GroupVersionKind.
            request: the object's key.

        Raises:
            NotCached, CacheNotSynced: as `get`.
        """
        gvk, namespace = gvk_from(kind), request.namespace
        informer = self._cache.find(gvk, namespace or self.session.options.namespace)
        if not informer.synced:
            informer, _ = await self._informer(gvk, namespace)
        if self.session.options.namespace is not None:
            self.session.options.namespace_for(informer.resource, namespace)
        try:  # nearly every read of a reconcile ends here
            return informer.overlay.get(request)
        except OverlayExpired:
            return await self._read(informer, lambda: informer.overlay.get(request))

    async def _find(self, informer: Informer, request: Request) -> CachedObject | None:
        """Return one object; None if the cache has no such object."""
        return await self._read(informer, lambda: informer.overlay.get(request))

    async def _select(
        self, informer: Informer, namespace: str | None, labels: str, fields: str
    ) -> Sequence[CachedObject | IdleObject]:
        """Return the objects that match both selectors, sorted by namespace and name."""
        pairs = parse_fields(fields)
        found = await self._read(informer, lambda: _by_fields(informer, namespace, pairs))
        if labels:
            selector = LabelSelector(labels)
            found = [cached for cached in map(restored, found) if selector.matches(cached.labels)]
        selected = sorted(found, key=attrgetter("request.name"))
        return selected if namespace else sorted(selected, key=lambda each: each.request.namespace or "")

    async def _read(self, informer: Informer, read: Callable[[], T]) -> T:
        """Read from the overlay; read expired and unknown entries from the server."""
        while True:
            try:
                return read()
            except OverlayExpired as expired:
                # Another object may become unknown while waiting, hence the loop; each turn resolves what it met.
                if expired.everything or len(expired.objects) > MOST_REQUESTS:
                    await informer.catch_up(READ_TIMEOUT)
                    continue
                for namespace in expired.namespaces:
                    await self._ask(informer, namespace)
                for request in expired.objects:
                    if request.namespace not in expired.namespaces:
                        await self._ask(informer, request.namespace, request.name)

    async def _ask(self, informer: Informer, namespace: str | None, name: str | None = None) -> None:
        """Ask the server for one object, or all of a namespace; the response counts until the watch has passed it."""
        scope, baseline = informer.scope, informer.overlay.list_baseline(namespace, name)
        fields = [scope.field_selector, f"metadata.name={name}" if name is not None else None]
        # Not a get: a client that may list and watch may not be allowed to get.
        found = await self.live.list(
            informer.gvk,
            namespace,
            label_selector=scope.labels,
            field_selector=",".join(text for text in fields if text) or None,
        )
        if name is None and not isinstance(parse_version(found.resource_version), int):
            await informer.catch_up(READ_TIMEOUT)  # it has no order, so only the watch's own list can be newer
        else:
            informer.record_list(found, baseline)

    @staticmethod
    def _report(gvk: GroupVersionKind, found: Sequence[CachedObject | IdleObject]) -> None:
        cycle = current_cycle.get()
        if cycle is None:
            return
        for each in found:
            if each.request == cycle.request:
                cached = restored(each)
                cycle.saw(gvk, cached.request, cached.uid, cached.version)


def _request(resource: ResourceType, name: str, namespace: str | None) -> Request:
    if resource.namespaced and not namespace:
        raise ValueError(f"{resource.gvk.kind} {name!r} needs a namespace")
    return Request(name, namespace if resource.namespaced else None)


def _by_fields(
    informer: Informer, namespace: str | None, fields: Sequence[tuple[str, str, str]]
) -> Sequence[CachedObject | IdleObject]:
    """Return the objects that match the fields of a selector, through an index or by key."""
    namespace = namespace if informer.resource.namespaced else None
    of_key = tuple(field for field in fields if field[0] in ("metadata.name", "metadata.namespace"))
    indexed = [field for field in fields if field not in of_key]
    found: Sequence[CachedObject | IdleObject] | None = None
    for path, operator, value in indexed:
        if operator != "=" or not informer.store.has_index(path):
            raise NotCached(
                f"{informer.gvk} cannot be selected by {path}{operator}{value} in the cache: declare the index with "
                f'manager.cache.add_index("{informer.gvk}", "{path}") and ask for equality, or use client.live'
            )
        matching = informer.overlay.by_index(path, value, namespace)
        kept = {cached.request for cached in matching}
        found = matching if found is None else [cached for cached in found if cached.request in kept]
    if found is None:
        found = informer.overlay.list(namespace)
    return [cached for cached in found if matches_fields(of_key, cached.request)]


def _not_found(resource: ResourceType, request: Request) -> APIError:
    group = resource.gvk.group
    message = f'{resource.plural}{"." if group else ""}{group} "{request.name}" not found'
    details = {"name": request.name, "group": group, "kind": resource.plural}
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "code": 404,
        "message": message,
        "reason": "NotFound",
        "details": {key: text for key, text in details.items() if text},
    }
    return error_from_response(404, body, request=f"get {request} from the cache")
