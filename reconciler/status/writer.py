"""Say what a batcher needs of a client: one consistent read, and a write that is sent once."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Literal, Protocol

from reconciler.meta import GroupVersionKind, Request

__all__ = ["StatusWriter", "Strategy", "SyncStatusWriter"]

Strategy = Literal["merge", "update", "apply"]
"""How a status is sent: ``"merge"`` (RFC 7386 merge patch), ``"update"`` (PUT) or ``"apply"`` (server-side apply)."""


class StatusWriter(Protocol):
    """Read one object, and write its status, over an asynchronous client.

    A writer may have more attributes. ``field_manager`` (str): the manager that its writes are recorded under; with it,
    fields that this manager owns are overwritten on a newer version, and ``strategy="apply"`` is possible.
    ``former_field_manager`` (str): a name that it used before; applies take over the fields of that name.
    ``warnings`` (sequence of str): the ``Warning`` headers of the last answer, named when the server dropped a field.
    ``client`` (an object that can be referred to weakly): the client that several writers share. What is learned of the
    server belongs to it, and ends with it; without it that belongs to the writer.
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
        """Return what names server, client and field manager: only batchers of equal identity share a write."""
        ...

    async def read(self) -> dict[str, Any]:
        """Return the whole object by a consistent GET (no ``resourceVersion`` parameter, no cache).

        Cancellation changes nothing.

        Raises:
            APIError: the server's failure, typed.
            TransportError: no answer.
        """
        ...

    async def write(
        self, body: dict[str, Any], *, strategy: Strategy = "merge", subresource: str | None = "status"
    ) -> dict[str, Any]:
        """Send a body once and return the object in the answer; no layer below repeats it.

        Cancellation may leave it applied: the batcher shields the call, and waits at most for its ``flush_timeout``.

        Args:
            body: a merge patch; for an update the object without spec, its status whole; or the applied configuration.
                It names the resourceVersion it is conditional on, and neither apiVersion nor kind.
            strategy: ``"merge"``, ``"update"`` or ``"apply"``; the last one is sent with force.
            subresource: None writes the main resource.

        Raises:
            NotSent: the connection could not be made.
            OutcomeUnknown: it may have reached the server, but no answer came.
            APIError: the server's failure, typed.
        """
        ...


class SyncStatusWriter(Protocol):
    """Read one object, and write its status, over a blocking client; otherwise the same as `StatusWriter`.

    One more attribute is optional: ``request_timeout`` (float). Before each request of a flush the batcher sets it to
    the seconds that the request may take, and the writer raises `OutcomeUnknown` when they have passed. Without it a
    request that stalls takes the whole time of the flush, and its outcome is never read back.
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
        """Return what names server, client and field manager: only batchers of equal identity share a write."""
        ...

    def read(self) -> dict[str, Any]:
        """Return the whole object by a consistent GET."""
        ...

    def write(
        self, body: dict[str, Any], *, strategy: Strategy = "merge", subresource: str | None = "status"
    ) -> dict[str, Any]:
        """Send a body once and return the object in the answer; no layer below repeats it."""
        ...
