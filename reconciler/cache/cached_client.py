"""Read declared kinds from the cache and write to the server; what was written is read back at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, overload

import msgspec

from reconciler.cache.cache import Cache
from reconciler.cache.errors import CacheNotSynced, NotCached
from reconciler.cache.informer import Informer
from reconciler.cache.store.object import CachedObject
from reconciler.cache.store.overlay import OverlayExpired
from reconciler.cache.store.selector import LabelSelector, format_labels, matches_fields, parse_fields
from reconciler.client import Client, InvalidItem, ListResult, Selector
from reconciler.errors import NotFound
from reconciler.meta import GroupVersionKind, Request, ResourceType, current_cycle, parse_version
from reconciler.objects import AnyResource, InvalidObject, KindLike, Unstructured, from_document, gvk_from

__all__ = ["CachedClient"]

READ_TIMEOUT = 30.0
"""Seconds that a read waits for the initial list of its kind."""

R = TypeVar("R", bound=AnyResource)
T = TypeVar("T")


class CachedClient(Client):
    """Be a `Client` whose `get` and `list` answer from a cache, without a request.

    What comes back is a private copy; changing it changes nothing else. This process's own writes through this client,
    and through its `live`, are seen at once, before the watch tells of them. Where the answer to a write does not say
    what is stored (it was lost, `delete_all_of` deleted many, ``"scale"`` changed the object behind it), the next read
    of what may have changed asks the server, once. Everything but `get` and `list` speaks to the server.

    A kind that the cache does not hold is an error, not a request: a read that silently costs a request each time, or
    starts a watch of the whole cluster, is found late. `live` reads from the server.

    Args:
        client: sends the requests.
        cache: answers the reads, and is notified of the writes.
    """

    def __init__(self, client: Client, cache: Cache) -> None:
        self.session = client.session.observed_by(cache)
        self._cache = cache

    @property
    def live(self) -> Client:
        """Return the client that reads the server. Writes through it are laid over the cache like those of this one."""
        return Client.over(self.session)

    @overload
    async def get(self, kind: type[R], name: str, namespace: str | None = None) -> R: ...
    @overload
    async def get(self, kind: str | GroupVersionKind, name: str, namespace: str | None = None) -> Unstructured: ...
    async def get(self, kind: KindLike, name: str, namespace: str | None = None) -> AnyResource | Unstructured:
        """Read one object from the cache.

        Waits up to 30 s for the kind's initial list. Cancellation changes nothing.

        Args:
            kind: a `Resource` class, ``"group/version/Kind"`` or a GroupVersionKind.
            name: the object's name.
            namespace: its namespace; None for cluster-scoped kinds.

        Raises:
            NotFound: the cache holds no such object.
            NotCached: the kind, or the namespace, is not cached; `live` reads it.
            CacheNotSynced: there is no initial list after 30 s.
            ValueError: a namespaced kind without namespace.
            InvalidObject: the object cannot be decoded, or does not fit the class.
        """
        gvk = gvk_from(kind)
        informer, namespace = await self._informer(gvk, namespace)
        request = _request(informer.resource, name, namespace)
        cached = await self._read(informer, lambda: informer.overlay.get(request))
        if cached is None:
            raise _not_found(informer.resource, request)
        cycle = current_cycle.get()
        if cycle is not None:
            cycle.saw(gvk, request, cached.uid, cached.version)
        return from_document(kind, cached.decode())

    @overload
    async def list(
        self,
        kind: type[R],
        namespace: str | None = None,
        *,
        label_selector: Selector | None = None,
        field_selector: Selector | None = None,
        limit: int = 500,
    ) -> ListResult[R]: ...
    @overload
    async def list(
        self,
        kind: str | GroupVersionKind,
        namespace: str | None = None,
        *,
        label_selector: Selector | None = None,
        field_selector: Selector | None = None,
        limit: int = 500,
    ) -> ListResult[Unstructured]: ...
    async def list(
        self,
        kind: KindLike,
        namespace: str | None = None,
        *,
        label_selector: Selector | None = None,
        field_selector: Selector | None = None,
        limit: int = 500,  # noqa: ARG002 - the cache has no pages
    ) -> ListResult[Any]:
        """Read objects from the cache, in the order of namespace and name.

        Waits up to 30 s for the kind's initial list. An object that cannot be decoded or does not fit the class is left
        out, named in `ListResult.invalid`, and logged once a version. Cancellation changes nothing.

        Args:
            kind: a `Resource` class, ``"group/version/Kind"`` or a GroupVersionKind.
            namespace: None for all that are cached, or for cluster-scoped kinds.
            label_selector: text in the API's syntax, or a mapping of what must be equal.
            field_selector: the same for ``metadata.name``, ``metadata.namespace``, and each field that the informer's
                store has an index of, under the field's path.
            limit: means nothing here.

        Raises:
            NotCached: the kind, the namespace, or a field of the selector is not cached; `live` reads it.
            CacheNotSynced: there is no initial list after 30 s.
            ValueError: a selector cannot be read.
        """
        gvk = gvk_from(kind)
        informer, namespace = await self._informer(gvk, namespace)
        fields = parse_fields(format_labels(field_selector) or "")
        cached_objects = await self._read(informer, lambda: _by_fields(informer, namespace, fields))
        labels = LabelSelector(format_labels(label_selector) or "")
        selected = [cached for cached in cached_objects if labels.matches(cached.labels)]
        selected.sort(key=lambda cached: (cached.namespace or "", cached.name))
        self._report(gvk, selected)
        found, invalid = [], []
        for cached in selected:
            try:
                found.append(from_document(kind, cached.decode()))
            except InvalidObject as error:
                invalid.append(InvalidItem(cached.name, cached.namespace, str(cached.version), error))
        self.session.connection.invalid_items.log(gvk, invalid)
        return ListResult(found, informer.version(namespace), invalid)

    async def _informer(self, gvk: GroupVersionKind, namespace: str | None) -> tuple[Informer, str | None]:
        """Return what answers a read, when it is ready, and the namespace to read in."""
        informer = self._cache.find(gvk, namespace or self.session.options.namespace)
        if not informer.synced:
            if not self._cache.started:
                raise CacheNotSynced(f"{gvk} cannot be read before the cache is started; client.live can")
            await informer.wait_synced(READ_TIMEOUT)
        return informer, self.session.options.namespace_for(informer.resource, namespace)

    async def peek(self, kind: KindLike, request: Request) -> CachedObject | None:
        """Return what `get` would read, as it is cached and undecoded; None when the cache holds no such object.

        It is no read of the reconcile that it is called in. Cancellation changes nothing.

        Args:
            kind: a `Resource` class, ``"group/version/Kind"`` or a GroupVersionKind.
            request: the object's key.

        Raises:
            NotCached, CacheNotSynced: as `get`.
        """
        informer, _ = await self._informer(gvk_from(kind), request.namespace)
        return await self._read(informer, lambda: informer.overlay.get(request))

    async def _read(self, informer: Informer, read: Callable[[], T]) -> T:
        """Read from the overlay; what the watch has not told for too long, and what is in doubt, from the server."""
        while True:
            try:
                return read()
            except OverlayExpired as expired:
                # Another write may come into doubt meanwhile, hence the loop; each turn settles what it met.
                for namespace, doubt in expired.namespaces.items():
                    await self._renew_all(informer, namespace, doubt)
                for request, entry in expired.objects.items():
                    await self._renew(informer, request, entry)

    async def _renew(self, informer: Informer, request: Request, entry: object) -> None:
        """Ask the server for one object, and believe the answer until the watch has passed it."""
        overlay, before = informer.overlay, informer.overlay.seen(request)
        # Not a get: whoever may list and watch need not be allowed to get.
        found = await self.live.list(informer.gvk, request.namespace, field_selector={"metadata.name": request.name})
        if found.invalid:
            overlay.settled(request, entry)
        elif not found:
            overlay.absent(request, entry, before)
        for one in found:
            overlay.settled(request, entry)
            informer.wrote("get", request, msgspec.json.encode(one.to_dict()))

    async def _renew_all(self, informer: Informer, namespace: str | None, doubt: object) -> None:
        """Ask the server for all objects of a namespace, and believe the answer until the watch has passed it."""
        overlay, scope = informer.overlay, informer.scope
        found = await self.live.list(
            informer.gvk, namespace, label_selector=scope.labels, field_selector=scope.field_selector
        )
        overlay.settled(namespace, doubt)
        present = {one.key for one in found} | {one.key for one in found.invalid}
        version = parse_version(found.resource_version)
        for cached in overlay.seen_in(namespace):
            if cached.request in present:
                continue
            if not isinstance(version, int) or not isinstance(cached.version, int):
                overlay.doubt(cached.request)  # nobody can tell which is newer
            elif cached.version <= version:
                overlay.deleted(cached.request, cached.uid)
        for one in found:
            informer.wrote("get", one.key, msgspec.json.encode(one.to_dict()))

    @staticmethod
    def _report(gvk: GroupVersionKind, found: Sequence[CachedObject]) -> None:
        cycle = current_cycle.get()
        if cycle is None:
            return
        for cached in found:
            if cached.request == cycle.request:
                cycle.saw(gvk, cached.request, cached.uid, cached.version)


def _request(resource: ResourceType, name: str, namespace: str | None) -> Request:
    if resource.namespaced and not namespace:
        raise ValueError(f"{resource.gvk.kind} {name!r} needs a namespace")
    return Request(name, namespace if resource.namespaced else None)


def _by_fields(
    informer: Informer, namespace: str | None, fields: Sequence[tuple[str, str, str]]
) -> Sequence[CachedObject]:
    """Return what the fields of a selector leave: by an index where they need one, else by the key."""
    namespace = namespace if informer.resource.namespaced else None
    of_key = tuple(field for field in fields if field[0] in ("metadata.name", "metadata.namespace"))
    indexed = [field for field in fields if field not in of_key]
    found: Sequence[CachedObject] | None = None
    for path, operator, value in indexed:
        if operator != "=" or not informer.store.has_index(path):
            raise NotCached(
                f"{informer.gvk} cannot be selected by {path}{operator}{value} in the cache: add an index of that name "
                "(informer.store.add_index) and ask for equality, or read it from the server with client.live"
            )
        matching = informer.overlay.by_index(path, value, namespace)
        kept = {cached.request for cached in matching}
        found = matching if found is None else [cached for cached in found if cached.request in kept]
    if found is None:
        found = informer.overlay.list(namespace)
    return [cached for cached in found if matches_fields(of_key, cached.request)]


def _not_found(resource: ResourceType, request: Request) -> NotFound:
    group = resource.gvk.group
    plural = f"{resource.plural}.{group}" if group else resource.plural
    message = f'{plural} "{request.name}" not found'
    details = {"name": request.name, "group": group, "kind": resource.plural}
    return NotFound(
        message,
        status=404,
        reason="NotFound",
        body={
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": "NotFound",
            "details": {key: value for key, value in details.items() if value},
            "code": 404,
        },
        request=f"get {request} from the cache",
    )
