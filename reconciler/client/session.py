"""The session of a client: the internal interface that the verbs, the cache, the status writer and controllers use.

Other packages use `Client.session` where no verb exists: pages of a list and watches as bytes, notification of writes,
the field manager of a controller, the limit of streams. Users do not need it, and it may change with any release.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from reconciler._core.wire import JSONObject
from reconciler.client.connection import JSON, Connection, accept_header
from reconciler.client.requests import FieldValidation, ObjectLike, Query, answer_kind, decode, encode, query_pairs
from reconciler.client.retry import RetryOn, RetryState, is_unknown
from reconciler.errors import APIError, Conflict, InvalidResponse, NotFound, NotServed, error_text
from reconciler.http import HTTPRequest, HTTPResponse
from reconciler.meta import GroupVersionKind, Request, request_of
from reconciler.meta.cycle import current_cycle
from reconciler.meta.field_managers import current_controller, default_field_manager
from reconciler.meta.metadata import WRITE_METHODS, ResourceType, namespace_of, path_segment
from reconciler.objects import InvalidObject, Unstructured
from reconciler.objects.kinds import KindLike, TypedObject, from_document, gvk_from, resource_type_from, to_document


@dataclass(frozen=True, slots=True)
class Options:
    """The defaults that a client adds to calls.

    Attributes:
        program: the beginning of the default field manager.
        field_manager: the field manager of writes; None for the default.
        field_validation: what the server does about unknown fields; None for the server's default, which warns.
        dry_run: writes are checked and not stored. No call can turn it off.
        namespace: the only namespace that the client uses; None for any.
    """

    program: str
    field_manager: str | None = None
    field_validation: FieldValidation | None = None
    dry_run: bool = False
    namespace: str | None = None

    def namespace_for(self, resource: ResourceType, namespace: str | None) -> str | None:
        """Return the namespace of a call: the one given, or the client's only one.

        Raises:
            ValueError: the client is limited to another namespace.
        """
        if self.namespace is None or not resource.namespaced:
            return namespace
        if namespace and namespace != self.namespace:
            raise ValueError(
                f"this client is for namespace {self.namespace!r}, not for {resource.gvk.kind} in {namespace!r}: omit "
                "the namespace, or use the client that this one was made from"
            )
        return self.namespace


class WriteObserver(Protocol):
    """A listener that is notified of a client's writes; dry runs are not writes. A cache is one."""

    def begin_write(self, resource: ResourceType, request: Request) -> object:
        """Called before a write is sent; the result is passed to `record_write`."""

    def record_write(self, resource: ResourceType, verb: str, request: Request, answer: bytes, begun: Any) -> None:
        """Called after each successful write of an object.

        Args:
            resource: how the kind is served.
            verb: create, update, patch, apply or delete.
            request: the object's name and namespace.
            answer: the object as stored; after a delete, a Status if the server does not return the object.
            begun: the result of `begin_write`.
        """

    def invalidate(self, resource: ResourceType, request: Request) -> None:
        """Called when an object may have been written, but no response says so.

        Args:
            resource: how the kind is served.
            request: the object's name and namespace.
        """

    def invalidate_all(self, resource: ResourceType, namespace: str | None) -> None:
        """Called when any object may have been written or deleted, whatever the response was.

        Args:
            resource: how the kind is served.
            namespace: their namespace; None for a cluster-scoped kind.
        """


@dataclass(slots=True)
class PendingWrite:
    """A write that is about to be sent.

    Attributes:
        request: what is sent.
        resource: how the kind is served.
        verb: create, update, patch, apply or delete.
        key: the object's name and namespace; the name is empty if the server generates it.
        observer: is notified of the write; None for nobody, and for a dry run.
        begun: what the observer returned before the write was sent.
        state: whether an attempt may have taken effect.
    """

    request: HTTPRequest
    resource: ResourceType
    verb: str
    key: Request
    observer: WriteObserver | None
    begun: object
    state: RetryState = field(default_factory=RetryState)

    def record(self, answer: bytes, key: Request | None = None) -> None:
        """Notify the observer of the object as stored; `key` is its key, if the server generated the name."""
        if self.observer is not None:
            self.observer.record_write(self.resource, self.verb, key or self.key, answer, self.begun)

    def invalidate(self) -> None:
        """Notify the observer that an object may have been written; if the server generates its name, any object."""
        if self.observer is None:
            return
        if self.key.name:
            self.observer.invalidate(self.resource, self.key)
        else:
            self.observer.invalidate_all(self.resource, self.key.namespace if self.resource.namespaced else None)

    def failed(self, error: BaseException) -> None:
        """Notify the observer if the write, which ended with `error`, may have taken effect."""
        if is_unknown(error) or isinstance(error, asyncio.CancelledError):
            self.invalidate()


@dataclass(frozen=True, slots=True)
class ClientSession:
    """A connection, the options of one client on it, and the observer of its writes.

    Attributes:
        connection: sends the requests; shared by clients.
        options: what is added to calls.
        observer: is notified of writes; None for nobody.
    """

    connection: Connection
    options: Options
    observer: WriteObserver | None = None

    def observed_by(self, observer: WriteObserver) -> ClientSession:
        """Return this session with another observer of its writes."""
        return replace(self, observer=observer)

    # The client itself.

    def field_manager(self, controller: str | None = None) -> str:
        """Return the field manager of writes.

        Args:
            controller: the name of the controller that writes; None for the one whose reconcile is running, if any.
        """
        if self.options.field_manager:
            return self.options.field_manager
        return default_field_manager(self.options.program, current_controller() if controller is None else controller)

    # Kinds, names and paths.

    async def resource_type(self, kind: KindLike) -> ResourceType:
        """Return how a kind is served; see `Client.resource_type`."""
        return resource_type_from(kind) or await self.connection.discovery.find(gvk_from(kind))

    async def resource_for(self, kind: KindLike, name: str | None = None, namespace: str | None = None) -> ResourceType:
        """Return how a kind is served, after checking the name and the namespace of the request.

        Raises:
            ValueError: the name or the namespace is invalid.
        """
        known = resource_type_from(kind)
        if name:
            path_segment(name, "name")
        if namespace is not None:
            path_segment(namespace, "namespace")
        return known or await self.connection.discovery.find(gvk_from(kind))

    def object_path(
        self, resource: ResourceType, name: str, namespace: str | None, subresource: str | None = None
    ) -> str:
        """Return the path of an object or of its subresource, percent-encoded.

        Raises:
            ValueError: the name, or the namespace of a namespaced kind, is missing or invalid; see `path_segment`.
        """
        return _path_of(resource, name, self.options.namespace_for(resource, namespace), subresource)

    def collection_path(self, resource: ResourceType, namespace: str | None) -> str:
        """Return the path of a collection."""
        return resource.path(namespace=self.options.namespace_for(resource, namespace))

    def key(self, resource: ResourceType, name: str, namespace: str | None) -> Request:
        """Return an object's key: without namespace for a cluster-scoped kind, whatever the call says."""
        return Request(name, self.options.namespace_for(resource, namespace) if resource.namespaced else None)

    def with_namespace(self, resource: ResourceType, document: JSONObject) -> JSONObject:
        """Return an object's document with the client's namespace filled in."""
        given = namespace_of(document)
        namespace = self.options.namespace_for(resource, given)
        if namespace == given:
            return document
        return {**document, "metadata": {**(document.get("metadata") or {}), "namespace": namespace}}

    async def resolve(self, obj: TypedObject | ObjectLike) -> tuple[KindLike, ResourceType, Request, JSONObject]:
        """Find out the kind of an object, how it is served, and its key; its document has the client's namespace."""
        document = to_document(obj)
        kind, key = answer_kind(obj, document), request_of(document)
        resource = await self.resource_for(kind, *key)
        namespace = self.options.namespace_for(resource, key.namespace)
        if namespace != key.namespace:
            key, document = Request(key.name, namespace), self.with_namespace(resource, document)
        return kind, resource, key, document

    # Reads.

    async def execute(
        self, resource: ResourceType, request: HTTPRequest, retry_on: RetryOn, attempts: RetryState | None = None
    ) -> HTTPResponse:
        """Send a request with retries; see `Connection.execute`. A kind that is not served is discovered again."""
        try:
            return await self.connection.execute(request, retry_on, attempts)
        except NotServed:
            self.forget(resource)
            raise

    def forget(self, rt: ResourceType) -> None:
        """Discover a kind again when it is next used: what was known of it proved wrong."""
        self.connection.discovery.forget(rt.gvk)

    async def get(
        self,
        kind: KindLike,
        name: str,
        namespace: str | None,
        subresource: str | None = None,
        *,
        metadata_only: bool = False,
    ) -> JSONObject:
        """Return the document of an object or of its subresource, read from the server."""
        resource = await self.resource_for(kind, name, namespace)
        path = self.object_path(resource, name, namespace, subresource)
        request = self.connection.request("GET", path, accept=accept_header(metadata_only=metadata_only))
        return decode(request, await self.execute(resource, request, RetryOn.UNKNOWN))

    def list_request(
        self, resource: ResourceType, namespace: str | None, query: Query, *, metadata_only: bool = False
    ) -> HTTPRequest:
        """Return the request for one page of a list."""
        path = self.collection_path(resource, namespace)
        accept = accept_header(is_list=True, metadata_only=metadata_only)
        return self.connection.request("GET", path, query_pairs(query), accept=accept)

    def watch_request(
        self, resource: ResourceType, namespace: str | None, query: Query, *, metadata_only: bool = False
    ) -> HTTPRequest:
        """Return the request for a watch; ``watch=true`` is added."""
        path = self.collection_path(resource, namespace)
        pairs = [("watch", "true"), *(pair for pair in query_pairs(query) if pair[0] != "watch")]
        return self.connection.request(
            "GET", path, pairs, accept=accept_header(metadata_only=metadata_only), stream=True
        )

    async def raw_list(
        self, rt: ResourceType, namespace: str | None = None, query: Query = (), *, metadata_only: bool = False
    ) -> bytes:
        """Read one page of a list, without retries, and return its bytes. Cancellation has no effect on the server.

        Args:
            rt: how the kind is served; see `resource_type`.
            namespace: None for all namespaces, or for a cluster-scoped kind.
            query: parameters, such as limit and continue.
            metadata_only: request PartialObjectMetadata.

        Raises:
            APIError: the server reported a failure.
            TransportError: there was no response.
        """
        request = self.list_request(rt, namespace, query, metadata_only=metadata_only)
        return (await self.connection.once(request)).body

    async def pages_are_cached(self) -> bool:
        """Return whether the server answers pages of a list from memory; see `DiscoveryCache.pages_are_cached`."""
        return await self.connection.discovery.pages_are_cached()

    async def open_watch(
        self, rt: ResourceType, namespace: str | None = None, query: Query = (), *, metadata_only: bool = False
    ) -> HTTPResponse:
        """Open a watch, without retries, and return the response with its stream of chunks. The caller closes it.

        Cancellation closes the connection.

        Args:
            rt: how the kind is served; see `resource_type`.
            namespace: None for all namespaces, or for a cluster-scoped kind.
            query: parameters; ``watch=true`` is added.
            metadata_only: request PartialObjectMetadata.

        Raises:
            APIError: the server reported a failure.
            TransportError: there was no response.
        """
        return await self.connection.once(self.watch_request(rt, namespace, query, metadata_only=metadata_only))

    # Writes.

    def write_options(
        self,
        *,
        dry_run: bool = False,
        field_validation: FieldValidation | None = None,
        field_manager: str | None = None,
    ) -> list[tuple[str, str]]:
        """Build the query parameters of a write."""
        query = [("fieldManager", field_manager or self.field_manager())]
        if dry_run or self.options.dry_run:
            query.insert(0, ("dryRun", "All"))
        if validation := field_validation or self.options.field_validation:
            query.append(("fieldValidation", validation))
        return query

    def begin_write(
        self,
        verb: str,
        resource: ResourceType,
        key: Request,
        body: bytes,
        *,
        subresource: str | None = None,
        path: str = "",
        query: Sequence[tuple[str, str]] = (),
        method: str = "PATCH",
        content_type: str = JSON,
        dry_run: bool = False,
    ) -> PendingWrite:
        """Prepare a write of an object, and notify the observer that it begins, unless it is a dry run.

        Raises:
            ValueError: the name, or the namespace of a namespaced kind, is missing or invalid.
        """
        path = path or _path_of(resource, *key, subresource)
        request = self.connection.request(method, path, query, body=body, content_type=content_type)
        dry_run = dry_run or self.options.dry_run or ("dryRun", "All") in query
        observer = None if dry_run else self.observer
        begun = observer.begin_write(resource, key) if observer is not None else None
        return PendingWrite(request, resource, verb, key, observer, begun)

    async def execute_write(self, write: PendingWrite, retry_on: RetryOn) -> HTTPResponse:
        """Send a write with retries. The observer is notified if its outcome is unknown."""
        try:
            return await self.execute(write.resource, write.request, retry_on, write.state)
        except BaseException as error:
            write.failed(error)
            raise

    def accept(self, write: PendingWrite, kind: KindLike, response: HTTPResponse) -> TypedObject | Unstructured:
        """Read the response to a write, notify the observer of what was stored, and return the object.

        A response that does not fit the class is read leniently: the write took effect, and an error would deny that.
        """
        try:
            document = decode(write.request, response)
        except InvalidObject:
            write.invalidate()
            raise
        if document.get("kind", write.resource.gvk.kind) != write.resource.gvk.kind:
            write.invalidate()  # a subresource with its own kind may have changed the object
            return Unstructured(document)
        write.record(response.body, request_of(document))
        return from_document(kind, document, lenient=True)

    async def store(self, write: PendingWrite, kind: KindLike) -> TypedObject | Unstructured:
        """Send a write that must not take effect twice, and return the object as stored."""
        return self.accept(write, kind, await self.execute_write(write, RetryOn.REFUSED))


def _path_of(resource: ResourceType, name: str, namespace: str | None, subresource: str | None) -> str:
    if not name:
        raise ValueError(f"{resource.gvk.kind} needs a name, not {name!r}")
    return resource.path(name, namespace, subresource)


class ClientStatusWriter:
    """A reader of one object and a writer of its status, which sends each write once.

    Args:
        session: sends the requests, and notifies its observer of the writes.
        kind: the object's kind.
        gvk: the same.
        request: the object's name and namespace.

    Attributes:
        gvk: the object's kind.
        request: its name and namespace.
        warnings: the ``Warning`` headers of the last response.
        client: what clients on one connection share; the batcher attaches its knowledge of the server to it.
        rng: the client's source of jitter.
    """

    def __init__(self, session: ClientSession, kind: KindLike, gvk: GroupVersionKind, request: Request) -> None:
        self.gvk = gvk
        self.request = request
        self.warnings: Sequence[str] = ()
        self._cycle = current_cycle.get()
        self.client: object = session.connection.discovery
        self.rng = session.connection.rng
        self._session = session
        self._kind = kind

    @property
    def field_manager(self) -> str:
        """The field manager of the writes: of the reconcile that was running when this writer was made."""
        return self._session.field_manager(getattr(self._cycle, "controller", ""))

    @property
    def identity(self) -> Hashable:
        """Identifies server, credentials, field manager and dry run: equal for clients that share a connection."""
        return (self._session.connection.identity, self.field_manager, self._session.options.dry_run)

    async def read(self) -> JSONObject:
        """Read the whole object from the server, consistently. Cancellation has no effect on the server.

        Raises:
            NotFound: the object does not exist.
            APIError: the server reported another failure.
            TransportError: there was no response after all attempts.
        """
        return await self._session.get(self._kind, *self.request)

    async def write(
        self,
        body: JSONObject,
        *,
        strategy: Literal["merge", "update", "apply"] = "merge",
        subresource: str | None = "status",
    ) -> JSONObject:
        """Send a body once and return the object in the response. A cancelled call may have been executed.

        If the server refuses it because the object is newer or gone, the next read through the cache asks the server.

        Args:
            body: for ``"merge"`` a merge patch; for ``"update"`` the object without spec, with the whole status; for
                ``"apply"`` the configuration to apply. It contains the resourceVersion that it requires.
            strategy: ``"merge"``, ``"update"`` or ``"apply"``, which is sent with force.
            subresource: None to write the main resource.

        Raises:
            NotSent: the connection could not be made.
            OutcomeUnknown: the request may have reached the server, but there was no response.
            APIError: the server reported a failure.
        """
        session = self._session
        # A class states its resource type; the path that is made of it is checked.
        resource = resource_type_from(self._kind) or await session.resource_for(self._kind, *self.request)
        method = WRITE_METHODS[strategy]
        options = [*session.write_options(field_manager=self.field_manager), *method.parameters]
        if strategy != "merge":
            body = {"apiVersion": self.gvk.api_version, "kind": self.gvk.kind, **body}
        data = encode(body)
        write = session.begin_write(
            "patch" if strategy == "merge" else strategy,
            resource,
            session.key(resource, *self.request),
            data,
            subresource=subresource,
            query=options,
            method=method.http,
            content_type=method.content_type,
        )
        try:
            response = await session.connection.once(write.request)
            try:
                answer = decode(write.request, response)
            except (APIError, InvalidObject) as error:  # as of a proxy's sign-in page; it may have been applied
                raise InvalidResponse(error_text(error)) from error
        except BaseException as error:
            write.failed(error)
            if isinstance(error, (Conflict, NotFound)):
                write.invalidate()  # the cache is behind: read the server, unless the next attempt succeeds
            raise
        self.warnings = response.warnings
        write.record(response.body)
        return answer
