"""The interface between a batcher and a client: a consistent read, and a write that is sent once."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Literal, Protocol

from reconciler.meta import GroupVersionKind, Request

if TYPE_CHECKING:
    from reconciler._core.wire import JSONObject

__all__ = ["StatusWriter", "Strategy", "SyncStatusWriter"]

Strategy = Literal["merge", "update", "apply"]
"""How a status is sent: ``"merge"`` (RFC 7386 merge patch), ``"update"`` (PUT) or ``"apply"`` (server-side apply)."""


class StatusWriter(Protocol):
    """The protocol for reading one object and writing its status over an asynchronous client.

    A writer may have more attributes:

    * ``field_manager`` (str): the manager that its writes are recorded under. With it, fields that this manager owns
      are overwritten on a newer version, and ``strategy="apply"`` is possible.
    * ``former_field_manager`` (str): a name that it used before; applies take over the fields of that name.
    * ``warnings`` (sequence of str): the ``Warning`` headers of the last response, logged if the server drops a field.
    * ``client`` (an object that supports weak references): the client that several writers share. What is learned about
      the server is kept for it, and ends with it; without this attribute it is kept for the writer.
    """

    @property
    def gvk(self) -> GroupVersionKind:
        """Return the object's kind."""
        ...

    @property
    def request(self) -> Request:
        """Return the object's name and namespace."""
        ...

    @property
    def identity(self) -> Hashable:
        """Return what identifies server, client and field manager: only batchers of equal identity share a write."""
        ...

    async def read(self) -> JSONObject:
        """Return the whole object by a consistent GET (no ``resourceVersion`` parameter, no cache).

        Cancellation has no effect on the server.

        Raises:
            APIError: the server's failure, typed.
            TransportError: no response.
        """
        ...

    async def write(
        self, body: JSONObject, *, strategy: Strategy = "merge", subresource: str | None = "status"
    ) -> JSONObject:
        """Send a body once and return the object in the response; no lower layer may repeat it.

        A cancelled call may have been executed: the batcher shields the call, and waits at most its ``flush_timeout``.

        Args:
            body: a merge patch; for an update the object without spec, with its whole status; or the applied
                configuration. It contains the resourceVersion that it is conditional on, and neither apiVersion nor
                kind.
            strategy: ``"merge"``, ``"update"`` or ``"apply"``; the last is sent with force.
            subresource: None writes the main resource.

        Raises:
            NotSent: the connection failed, so the server did not get it.
            OutcomeUnknown: it may have reached the server, but there was no response. An exception of another type,
                as of a response that is not JSON, is treated in the same way.
            APIError: the server's failure, typed.
        """
        ...


class SyncStatusWriter(Protocol):
    """The protocol for reading one object and writing its status over a blocking client; see `StatusWriter`.

    One more attribute is optional: ``request_timeout`` (float). Before each request of a flush the batcher sets it to
    the seconds that the request may take, and the writer raises `OutcomeUnknown` when they have passed. Without it a
    stalled request uses up the time of the flush, and its outcome is never read back.
    """

    @property
    def gvk(self) -> GroupVersionKind:
        """Return the object's kind."""
        ...

    @property
    def request(self) -> Request:
        """Return the object's name and namespace."""
        ...

    @property
    def identity(self) -> Hashable:
        """Return what identifies server, client and field manager: only batchers of equal identity share a write."""
        ...

    def read(self) -> JSONObject:
        """Return the whole object by a consistent GET."""
        ...

    def write(
        self, body: JSONObject, *, strategy: Strategy = "merge", subresource: str | None = "status"
    ) -> JSONObject:
        """Send a body once and return the object in the response; no lower layer may repeat it."""
        ...
