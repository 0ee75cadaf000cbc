"""Hold what reading and writing share."""

from __future__ import annotations

from typing import Any

from reconciler.client._answers import decode
from reconciler.client._connection import ClientStatistics, Connection
from reconciler.client._requests import FieldValidation, object_path, write_options
from reconciler.client._retry import Repeat, Trail
from reconciler.errors import NotServed
from reconciler.http import HTTPRequest, HTTPResponse
from reconciler.meta import Request, ResourceType, request_of
from reconciler.objects import AnyResource, KindLike, Unstructured, from_document, gvk_from, resource_type_from

__all__ = ["ClientBase", "is_dry_run"]


class ClientBase:
    """Know the connection, the field manager and how kinds are served."""

    _connection: Connection
    _field_manager: str

    @property
    def field_manager(self) -> str:
        """Return the name that writes are recorded under in ``metadata.managedFields``."""
        return self._field_manager

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        """Send a request once, as it is, and return the answer whatever its status.

        For paths that no verb serves. User-Agent and Accept are added where they are missing. A cancelled call may have
        been executed.

        Raises:
            NotSent: the connection could not be made.
            OutcomeUnknown: it may have reached the server, but no answer came.
        """
        return await self._connection.send(request)

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

    def _wrote(self, rt: ResourceType, verb: str, request: Request, answer: bytes) -> None:
        """Hear of every write of an object that succeeded; does nothing here, for a cache to override.

        Args:
            rt: how the kind is served.
            verb: create, update, patch, apply or delete.
            request: the object's name and namespace.
            answer: the object as stored; for delete, a Status where the server does not return the object.
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
            dry_run=dry_run or self._connection.dry_run,
            field_manager=field_manager or self._field_manager,
            field_validation=field_validation,
        )

    async def _execute(
        self, rt: ResourceType, request: HTTPRequest, repeat: Repeat, trail: Trail | None = None
    ) -> HTTPResponse:
        try:
            return await self._connection.execute(request, repeat, trail)
        except NotServed:
            self._connection.discovery.forget(rt.gvk)
            raise

    async def _get_live(
        self, kind: KindLike, name: str, namespace: str | None, subresource: str | None = None
    ) -> dict[str, Any]:
        rt = await self.resource_type(kind)
        request = self._connection.request("GET", object_path(rt, name, namespace, subresource))
        return decode(request, await self._execute(rt, request, Repeat.UNKNOWN))

    def _take(
        self, rt: ResourceType, kind: KindLike, verb: str, request: HTTPRequest, response: HTTPResponse
    ) -> AnyResource | Unstructured:
        """Read the answer to a write, and let `_wrote` hear of it if it is the object and was stored."""
        document = decode(request, response)
        if document.get("kind", rt.gvk.kind) != rt.gvk.kind:
            return Unstructured(document)  # a subresource of a kind of its own
        if not is_dry_run(request):
            self._wrote(rt, verb, request_of(document), response.body)
        return from_document(kind, document)


def is_dry_run(request: HTTPRequest) -> bool:
    """Say whether a write was only checked."""
    return ("dryRun", "All") in request.query
