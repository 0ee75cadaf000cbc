"""Read and write subresources that are no part of the object: scale, eviction, token, binding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciler.client._answers import decode
from reconciler.client._base import ClientBase
from reconciler.client._requests import encode, object_path
from reconciler.client._retry import Repeat
from reconciler.objects import KindLike, Unstructured

__all__ = ["Subresources"]


class Subresources(ClientBase):
    """Speak to subresources by their names. ``"status"`` and ``"scale"`` are also served by `patch`."""

    async def get_subresource(
        self, kind: KindLike, name: str, namespace: str | None = None, *, subresource: str
    ) -> Unstructured:
        """Read a subresource, such as ``"scale"``. Cancellation has no effect on the server.

        Raises:
            NotFound: there is no such object, or it has no such subresource; otherwise the same as `get`.
        """
        return Unstructured(await self._get_live(kind, name, namespace, subresource))

    async def create_subresource(
        self,
        kind: KindLike,
        name: str,
        namespace: str | None = None,
        *,
        subresource: str,
        body: Mapping[str, Any],
        dry_run: bool = False,
    ) -> Unstructured:
        """POST to a subresource: ``"eviction"``, ``"token"``, ``"binding"``. A cancelled call may have done it.

        Raises:
            TooManyRequests: an eviction that a disruption budget forbids, not repeated; or overload.
            NotFound: there is no such object or subresource.
            APIError: another failure, typed.
            OutcomeUnknown: it may have been done, but no answer came. Never repeated.
            NotSent: the connection could not be made.
        """
        return await self._write_subresource("POST", kind, name, namespace, subresource, body=body, dry_run=dry_run)

    async def update_subresource(
        self,
        kind: KindLike,
        name: str,
        namespace: str | None = None,
        *,
        subresource: str,
        body: Mapping[str, Any],
        dry_run: bool = False,
    ) -> Unstructured:
        """PUT to a subresource of a kind of its own, as ``"scale"``. A cancelled call may have done it.

        Raises:
            Conflict: the resourceVersion in the body is not the stored one.
            NotFound: there is no such object or subresource.
            APIError: another failure, typed.
            OutcomeUnknown: it may have been done, but no answer came. Never repeated.
            NotSent: the connection could not be made.
        """
        return await self._write_subresource("PUT", kind, name, namespace, subresource, body=body, dry_run=dry_run)

    async def _write_subresource(
        self,
        method: str,
        kind: KindLike,
        name: str,
        namespace: str | None,
        subresource: str,
        *,
        body: Mapping[str, Any],
        dry_run: bool,
    ) -> Unstructured:
        rt = await self.resource_type(kind)
        path = object_path(rt, name, namespace, subresource)
        options = self._options(dry_run=dry_run)
        request = self._connection.request(method, path, options, body=encode(body))
        response = await self._execute(rt, request, Repeat.REFUSED)
        return Unstructured(decode(request, response))
