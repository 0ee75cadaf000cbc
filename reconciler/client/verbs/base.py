"""Hold what reading and writing share."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, NamedTuple

from reconciler.client.session.answers import decode
from reconciler.client.session.defaults import Defaults
from reconciler.client.session.requests import FieldValidation, collection_path, object_path, write_options
from reconciler.client.session.retry import Repeat, Trail, is_unknown
from reconciler.client.session.session import ClientStatistics, Connection, accepted
from reconciler.errors import NotServed
from reconciler.http import HTTPRequest, HTTPResponse
from reconciler.meta import (
    FORMER_FIELD_MANAGER,
    Request,
    ResourceType,
    default_field_manager,
    namespace_of,
    path_segment,
    request_of,
)
from reconciler.objects import (
    AnyResource,
    InvalidObject,
    KindLike,
    Unstructured,
    from_document,
    gvk_from,
    resource_type_from,
)

__all__ = ["ClientBase", "Write"]


class Write(NamedTuple):
    """Hold what is known of a write before it is sent.

    Attributes:
        rt: how the kind is served.
        verb: create, update, patch, apply or delete.
        key: the object's name and namespace; the name is empty where the server makes one up.
        stores: False for a dry run.
    """

    rt: ResourceType
    verb: str
    key: Request
    stores: bool = True


class ClientBase:
    """Know the connection, the options of all calls, and how kinds are served."""

    _connection: Connection
    _defaults: Defaults

    @property
    def field_manager(self) -> str:
        """Return the name that writes are recorded under in ``metadata.managedFields``.

        The default names the program, and inside a reconcile the controller as well.
        """
        return self.field_manager_of(None)

    def field_manager_of(self, controller: str | None) -> str:
        """Return the name that writes in the reconciles of a controller are recorded under.

        Args:
            controller: the controller's name; None for the one whose reconcile is running, if any.
        """
        return self._defaults.field_manager or default_field_manager(self._defaults.program, controller)

    @property
    def _former_field_manager(self) -> str:
        """Return the name that earlier releases used in place of the default one; ``""`` for a chosen name."""
        return FORMER_FIELD_MANAGER if self._defaults.field_manager is None else ""

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        """Send a request once, as it is, and return the answer whatever its status.

        For paths that no verb serves. User-Agent and Accept are added where they are missing. A cancelled call may have
        been executed.

        Raises:
            NotSent: the connection could not be made.
            OutcomeUnknown: it may have reached the server, but no answer came.
        """
        return await self._connection.send(request)

    @property
    def max_streams(self) -> int | None:
        """Return how many watches may be open at once; None if the transport has no limit."""
        return self._connection.max_streams

    @property
    def clock_offset(self) -> timedelta:
        """Return how far the API server's clock is ahead of this machine's; zero while nothing contradicts that.

        By the ``Date`` of its answers; wrong by one second and the time of one exchange at most. Add it to the wall
        time for stamps that other machines act upon.
        """
        return self._connection.server_time.offset

    def statistics(self) -> ClientStatistics:
        """Return what was counted so far, by this client and those that share its connection."""
        return self._connection.statistics()

    async def renew(self) -> bool:
        """Read the credentials anew because the server refused them; say whether they are others now.

        The client does it by itself; this is for a transport that is laid over the client, and for the client over it.
        A cancelled call leaves the credentials that were there.
        """
        return await self._connection.renew()

    async def resource_type(self, kind: KindLike) -> ResourceType:
        """Return how a kind is served: by its class, else by discovery, which is asked once a group and version.

        Cancellation leaves what was known before.

        Raises:
            NotServed: the server serves no such kind.
            ValueError: the text names no kind.
            APIError: discovery failed otherwise.
            TransportError: no answer.
        """
        return resource_type_from(kind) or await self._connection.discovery.find(gvk_from(kind))

    async def _served(self, kind: KindLike, name: str | None = None, namespace: str | None = None) -> ResourceType:
        """Return how a kind is served, for a request about this name and namespace; nothing is asked for invalid ones.

        Raises:
            ValueError: the name or the namespace is not valid.
        """
        if name:
            path_segment(name, "name")
        if namespace is not None:
            path_segment(namespace, "namespace")
        return await self.resource_type(kind)

    def _wrote(self, rt: ResourceType, verb: str, request: Request, answer: bytes) -> None:
        """Hear of every write of an object that succeeded; does nothing here, for a cache to override.

        Args:
            rt: how the kind is served.
            verb: create, update, patch, apply or delete.
            request: the object's name and namespace.
            answer: the object as stored; for delete, a Status where the server does not return the object.
        """

    def _unsure(self, rt: ResourceType, request: Request) -> None:
        """Hear of every write that may have been made although no answer says so; for a cache to override.

        Args:
            rt: how the kind is served.
            request: the object's name and namespace.
        """

    def _options(
        self,
        *,
        dry_run: bool = False,
        field_validation: FieldValidation | None = None,
        field_manager: str | None = None,
    ) -> list[tuple[str, str]]:
        """Return the query parameters of a write."""
        return write_options(
            dry_run=dry_run or self._defaults.dry_run,
            field_manager=field_manager or self.field_manager,
            field_validation=field_validation or self._defaults.field_validation,
        )

    def _object_path(self, rt: ResourceType, name: str, namespace: str | None, subresource: str | None = None) -> str:
        return object_path(rt, name, self._defaults.place(rt, namespace), subresource)

    def _collection_path(self, rt: ResourceType, namespace: str | None) -> str:
        return collection_path(rt, self._defaults.place(rt, namespace))

    def _key(self, rt: ResourceType, name: str, namespace: str | None) -> Request:
        """Return an object's key: without namespace for a cluster-scoped kind, whatever the caller said."""
        return Request(name, self._defaults.place(rt, namespace) if rt.namespaced else None)

    def _write(self, rt: ResourceType, verb: str, key: Request, *, dry_run: bool) -> Write:
        return Write(rt, verb, key, stores=not (dry_run or self._defaults.dry_run))

    def _placed(self, rt: ResourceType, document: dict[str, Any]) -> dict[str, Any]:
        """Return an object's document with its namespace, which the client may know where the object does not."""
        namespace = self._defaults.place(rt, namespace_of(document))
        if namespace == namespace_of(document):
            return document
        return {**document, "metadata": {**(document.get("metadata") or {}), "namespace": namespace}}

    async def _execute(
        self, rt: ResourceType, request: HTTPRequest, repeat: Repeat, trail: Trail | None = None
    ) -> HTTPResponse:
        try:
            return await self._connection.execute(request, repeat, trail)
        except NotServed:
            self._connection.discovery.forget(rt.gvk)
            raise

    async def _execute_write(
        self, write: Write, request: HTTPRequest, repeat: Repeat, trail: Trail | None = None
    ) -> HTTPResponse:
        """Send a write of an object, and let `_unsure` hear of it if nobody can tell what came of it."""
        try:
            return await self._execute(write.rt, request, repeat, trail)
        except BaseException as error:
            self._failed(write, error)
            raise

    def _failed(self, write: Write, error: BaseException) -> None:
        if write.stores and write.key.name and (is_unknown(error) or isinstance(error, asyncio.CancelledError)):
            self._unsure(write.rt, write.key)

    async def _get_live(
        self,
        kind: KindLike,
        name: str,
        namespace: str | None,
        subresource: str | None = None,
        *,
        metadata_only: bool = False,
    ) -> dict[str, Any]:
        rt = await self._served(kind, name, namespace)
        request = self._connection.request(
            "GET",
            self._object_path(rt, name, namespace, subresource),
            accept=accepted("", metadata_only=metadata_only),
        )
        return decode(request, await self._execute(rt, request, Repeat.UNKNOWN))

    def _take(
        self, write: Write, kind: KindLike, request: HTTPRequest, response: HTTPResponse
    ) -> AnyResource | Unstructured:
        """Read the answer to a write, and let it be known what was stored, or that the answer does not say.

        An answer that does not fit the class is read leniently: the write took effect, and an error would deny that.
        """
        try:
            document = decode(request, response)
        except InvalidObject:
            if write.stores and write.key.name:
                self._unsure(write.rt, write.key)
            raise
        own = document.get("kind", write.rt.gvk.kind) == write.rt.gvk.kind
        if write.stores and own:
            self._wrote(write.rt, write.verb, request_of(document), response.body)
        elif write.stores and write.key.name:
            self._unsure(write.rt, write.key)  # a subresource of a kind of its own may have changed its object
        return from_document(kind, document, lenient=True) if own else Unstructured(document)
