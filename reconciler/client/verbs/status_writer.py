"""Write one object's status: what a `StatusBatcher` needs of a client."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Literal

from reconciler.client.session.answers import decode
from reconciler.client.session.requests import CONTENT_TYPES, encode
from reconciler.client.session.session import JSON
from reconciler.client.verbs.base import ClientBase
from reconciler.meta import GroupVersionKind, Request
from reconciler.objects import KindLike, gvk_from

__all__ = ["ClientStatusWriter"]


class ClientStatusWriter:
    """Read one object from the server, and send writes of its status once each.

    Args:
        client: sends the requests, and hears of the writes.
        kind: the object's kind.
        request: the object's name and namespace.

    Attributes:
        gvk: the object's kind.
        request: its name and namespace.
        field_manager: the name that writes are recorded under.
        former_field_manager: the name that earlier releases used in its place; ``""`` if there was none.
        warnings: the ``Warning`` headers of the last answer.
    """

    def __init__(self, client: ClientBase, kind: KindLike, request: Request) -> None:
        self.gvk: GroupVersionKind = gvk_from(kind)
        self.request = request
        self.warnings: Sequence[str] = ()
        self.field_manager = client.field_manager
        self.former_field_manager = client._former_field_manager  # noqa: SLF001 - one room
        self._client = client
        self._kind = kind

    @property
    def client(self) -> object:
        """Return what clients with one connection share, to which belongs what is learned over them."""
        return self._client._connection.discovery  # noqa: SLF001 - one room

    @property
    def identity(self) -> Hashable:
        """Return what names server, client, field manager and dry run: equal for clients that share a connection."""
        client = self._client
        return (client._connection.identity, self.field_manager, client._defaults.dry_run)  # noqa: SLF001 - one room

    async def read(self) -> dict[str, Any]:
        """Return the whole object by a consistent GET. Cancellation has no effect on the server.

        Raises:
            NotFound: there is no such object.
            APIError: another failure, typed.
            TransportError: no answer, after all attempts.
        """
        return await self._client._get_live(self._kind, *self.request)  # noqa: SLF001 - one room

    async def write(
        self,
        body: dict[str, Any],
        *,
        strategy: Literal["merge", "update", "apply"] = "merge",
        subresource: str | None = "status",
    ) -> dict[str, Any]:
        """Send a body once and return the object in the answer. A cancelled call may have been executed.

        Args:
            body: a merge patch; for an update the object without spec, its status whole; or the configuration to apply.
                It names the resourceVersion that it is conditional on.
            strategy: ``"merge"``, ``"update"`` or ``"apply"``; the last one is sent with force.
            subresource: None writes the main resource.

        Raises:
            NotSent: the connection could not be made.
            OutcomeUnknown: it may have reached the server, but no answer came.
            APIError: the server's failure, typed.
        """
        client = self._client
        rt = await client._served(self._kind, *self.request)  # noqa: SLF001 - one room
        options = client._options(field_manager=self.field_manager)  # noqa: SLF001 - one room
        if strategy == "apply":
            options.append(("force", "true"))
        if strategy != "merge":
            body = {"apiVersion": self.gvk.api_version, "kind": self.gvk.kind, **body}
        connection = client._connection  # noqa: SLF001 - one room
        request = connection.request(
            "PUT" if strategy == "update" else "PATCH",
            client._object_path(rt, *self.request, subresource),  # noqa: SLF001 - one room
            options,
            body=encode(body),
            content_type=JSON if strategy == "update" else CONTENT_TYPES[strategy],
        )
        verb = "patch" if strategy == "merge" else strategy
        key = client._key(rt, *self.request)  # noqa: SLF001 - one room
        write = client._write(rt, verb, key, dry_run=False)  # noqa: SLF001 - one room
        try:
            response = await connection.once(request)
        except BaseException as error:
            client._failed(write, error)  # noqa: SLF001 - one room
            raise
        self.warnings = response.warnings
        answer = decode(request, response)
        if write.stores:
            client._wrote(rt, verb, key, response.body)  # noqa: SLF001 - one room
        return answer
