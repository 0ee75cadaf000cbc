"""The client side of a `StatusBatcher`: reads one object, and writes its status."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Literal

from reconciler._core.cycle import current_cycle
from reconciler._core.wire import JSONObject
from reconciler.client.requests import encode
from reconciler.client.responses import decode
from reconciler.client.session import ClientSession
from reconciler.errors import APIError, Conflict, InvalidResponse, NotFound, error_text
from reconciler.http import HTTPRequest, HTTPResponse
from reconciler.meta import GroupVersionKind, Request
from reconciler.meta.reference import WRITE_METHODS
from reconciler.objects import InvalidObject
from reconciler.objects.kinds import KindLike, gvk_from


class ClientStatusWriter:
    """A reader of one object and a writer of its status, which sends each write once.

    Args:
        session: sends the requests, and notifies its observer of the writes.
        kind: the object's kind.
        request: the object's name and namespace.

    Attributes:
        gvk: the object's kind.
        request: its name and namespace.
        warnings: the ``Warning`` headers of the last response.
        rng: the client's source of jitter.
    """

    def __init__(self, session: ClientSession, kind: KindLike, request: Request) -> None:
        self.gvk: GroupVersionKind = gvk_from(kind)
        self.request = request
        self.warnings: Sequence[str] = ()
        self.rng = session.connection.rng
        self._cycle = current_cycle.get()
        self._session = session
        self._kind = kind

    @property
    def field_manager(self) -> str:
        """The field manager of the writes: of the reconcile that was running when this writer was made."""
        return self._session.field_manager(getattr(self._cycle, "controller", ""))

    @property
    def former_field_manager(self) -> str:
        """The name that earlier releases used in its place; ``""`` if there was none."""
        return self._session.former_field_manager

    @property
    def client(self) -> object:
        """The object that clients on one connection share; the batcher attaches its knowledge of the server to it."""
        return self._session.connection.discovery

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
        resource = await session.resource_for(self._kind, *self.request)
        method = WRITE_METHODS[strategy]
        options = [*session.write_options(field_manager=self.field_manager), *method.parameters]
        if strategy != "merge":
            body = {"apiVersion": self.gvk.api_version, "kind": self.gvk.kind, **body}
        write = session.begin_write(
            "patch" if strategy == "merge" else strategy,
            resource,
            session.key(resource, *self.request),
            path=session.object_path(resource, *self.request, subresource),
            query=options,
            body=encode(body),
            method=method.http,
            content_type=method.content_type,
        )
        try:
            response = await session.connection.once(write.request)
            answer = _object_in(write.request, response)
        except BaseException as error:
            write.failed(error)
            if isinstance(error, (Conflict, NotFound)):
                write.invalidate()  # the cache is behind: read the server, unless the next attempt succeeds
            raise
        self.warnings = response.warnings
        write.record(response.body)
        return answer


def _object_in(request: HTTPRequest, response: HTTPResponse) -> JSONObject:
    """Return the object in the response to a write.

    Raises:
        InvalidResponse: there is none, as in a proxy's sign-in page; the write may have been applied.
    """
    try:
        return decode(request, response)
    except (APIError, InvalidObject) as error:
        raise InvalidResponse(error_text(error)) from error
