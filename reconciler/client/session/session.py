"""The session of a client: the internal interface that the verbs, the cache, the status writer and controllers use.

Other packages use `Client.session` where no verb exists: pages of a list and watches as bytes, notification of writes,
the field manager of a controller, the limit of streams. Users do not need it, and it may change with any release.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

from reconciler._core.field_managers import FORMER_FIELD_MANAGER, default_field_manager
from reconciler._core.wire import JSONObject
from reconciler.client.session.answers import decode
from reconciler.client.session.connection import Connection, accept_header
from reconciler.client.session.requests import (
    FieldValidation,
    ObjectLike,
    Query,
    answer_kind,
    collection_path,
    object_path,
    query_pairs,
    write_options,
)
from reconciler.client.session.retry import Attempts, RetryOn, is_unknown
from reconciler.errors import NotServed
from reconciler.http import HTTPRequest, HTTPResponse
from reconciler.meta import Request, request_of
from reconciler.meta.metadata import namespace_of
from reconciler.meta.reference import ResourceType, path_segment
from reconciler.objects import InvalidObject, Unstructured
from reconciler.objects.builtin import TypedObject
from reconciler.objects.kinds import KindLike, from_document, gvk_from, resource_type_from, to_document

__all__ = ["Options", "Session", "Write", "WriteObserver"]


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


class Write(NamedTuple):
    """A write that is about to be sent.

    Attributes:
        resource: how the kind is served.
        verb: create, update, patch, apply or delete.
        key: the object's name and namespace; the name is empty if the server generates it.
        stores: False for a dry run.
        begun: what the observer returned before the write was sent.
    """

    resource: ResourceType
    verb: str
    key: Request
    stores: bool = True
    begun: object = None


@dataclass(frozen=True, slots=True)
class Session:
    """A connection, the options of one client on it, and the observer of its writes.

    Attributes:
        connection: sends the requests; shared by clients.
        options: what is added to calls.
        observer: is notified of writes; None for nobody.
    """

    connection: Connection
    options: Options
    observer: WriteObserver | None = None

    def observed_by(self, observer: WriteObserver) -> Session:
        """Return this session with another observer of its writes."""
        return replace(self, observer=observer)

    # The client itself.

    def field_manager(self, controller: str | None = None) -> str:
        """Return the field manager of writes.

        Args:
            controller: the name of the controller that writes; None for the one whose reconcile is running, if any.
        """
        return self.options.field_manager or default_field_manager(self.options.program, controller)

    @property
    def former_field_manager(self) -> str:
        """The name that earlier releases used in place of the default field manager; ``""`` if one was chosen."""
        return FORMER_FIELD_MANAGER if self.options.field_manager is None else ""

    @property
    def max_streams(self) -> int | None:
        """The limit of watches that may be open at once; None for no limit."""
        return self.connection.max_streams

    async def renew(self) -> bool:
        """Read the credentials again because the server refused them, and return whether they changed.

        A client renews its credentials by itself. This is for a client on top of another client. A cancelled call
        leaves the credentials as they were.
        """
        return await self.connection.renew()

    # Kinds, names and paths.

    async def resource_type(self, kind: KindLike) -> ResourceType:
        """Return how a kind is served; see `Client.resource_type`."""
        return resource_type_from(kind) or await self.connection.discovery.find(gvk_from(kind))

    async def resource_for(self, kind: KindLike, name: str | None = None, namespace: str | None = None) -> ResourceType:
        """Return how a kind is served, after checking the name and the namespace of the request.

        Raises:
            ValueError: the name or the namespace is invalid.
        """
        if name:
            path_segment(name, "name")
        if namespace is not None:
            path_segment(namespace, "namespace")
        return await self.resource_type(kind)

    def object_path(
        self, resource: ResourceType, name: str, namespace: str | None, subresource: str | None = None
    ) -> str:
        """Return the path of an object or of its subresource."""
        return object_path(resource, name, self.options.namespace_for(resource, namespace), subresource)

    def collection_path(self, resource: ResourceType, namespace: str | None) -> str:
        """Return the path of a collection."""
        return collection_path(resource, self.options.namespace_for(resource, namespace))

    def key(self, resource: ResourceType, name: str, namespace: str | None) -> Request:
        """Return an object's key: without namespace for a cluster-scoped kind, whatever the call says."""
        return Request(name, self.options.namespace_for(resource, namespace) if resource.namespaced else None)

    def with_namespace(self, resource: ResourceType, document: JSONObject) -> JSONObject:
        """Return an object's document with the client's namespace filled in."""
        namespace = self.options.namespace_for(resource, namespace_of(document))
        if namespace == namespace_of(document):
            return document
        return {**document, "metadata": {**(document.get("metadata") or {}), "namespace": namespace}}

    async def resolve(self, obj: TypedObject | ObjectLike) -> tuple[KindLike, ResourceType, JSONObject]:
        """Return the kind of an object, how it is served, and its document with the client's namespace filled in."""
        document = to_document(obj)
        kind = answer_kind(obj, document)
        resource = await self.resource_for(kind, *request_of(document))
        return kind, resource, self.with_namespace(resource, document)

    # Reads.

    async def execute(
        self, resource: ResourceType, request: HTTPRequest, retry_on: RetryOn, attempts: Attempts | None = None
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
        """Return whether the server answers pages of a list from memory; see `Discovery.pages_are_cached`."""
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
        """Return the query parameters of a write."""
        return write_options(
            dry_run=dry_run or self.options.dry_run,
            field_manager=field_manager or self.field_manager(),
            field_validation=field_validation or self.options.field_validation,
        )

    def write(self, resource: ResourceType, verb: str, key: Request, *, dry_run: bool) -> Write:
        """Return the description of a write, which `execute_write` and `accept` need."""
        if dry_run or self.options.dry_run or self.observer is None:
            return Write(resource, verb, key, stores=not (dry_run or self.options.dry_run))
        return Write(resource, verb, key, begun=self.observer.begin_write(resource, key))

    async def execute_write(
        self, write: Write, request: HTTPRequest, retry_on: RetryOn, attempts: Attempts | None = None
    ) -> HTTPResponse:
        """Send a write with retries. The observer is notified if its outcome is unknown."""
        try:
            return await self.execute(write.resource, request, retry_on, attempts)
        except BaseException as error:
            self.failed(write, error)
            raise

    def accept(
        self, write: Write, kind: KindLike, request: HTTPRequest, response: HTTPResponse
    ) -> TypedObject | Unstructured:
        """Return the object in the response to a write, and notify the observer of what was stored.

        A response that does not fit the class is read leniently: the write took effect, and an error would deny that.
        """
        try:
            document = decode(request, response)
        except InvalidObject:
            self.invalidate(write)
            raise
        if document.get("kind", write.resource.gvk.kind) != write.resource.gvk.kind:
            self.invalidate(write)  # a subresource with its own kind may have changed the object
            return Unstructured(document)
        self.record_write(write, response.body, request_of(document))
        return from_document(kind, document, lenient=True)

    def record_write(self, write: Write, answer: bytes, key: Request | None = None) -> None:
        """Notify the observer of a successful write.

        Args:
            write: what was written.
            answer: the object as stored.
            key: the object's key, if the server generated the name.
        """
        if write.stores and self.observer is not None:
            self.observer.record_write(write.resource, write.verb, key or write.key, answer, write.begun)

    def invalidate(self, write: Write) -> None:
        """Notify the observer that an object may have been written; if the server generates its name, any object."""
        if not write.stores or self.observer is None:
            return
        if write.key.name:
            self.observer.invalidate(write.resource, write.key)
        else:
            self.observer.invalidate_all(write.resource, write.key.namespace if write.resource.namespaced else None)

    def failed(self, write: Write, error: BaseException) -> None:
        """Notify the observer if a write that ended with `error` may have taken effect."""
        if is_unknown(error) or isinstance(error, asyncio.CancelledError):
            self.invalidate(write)
