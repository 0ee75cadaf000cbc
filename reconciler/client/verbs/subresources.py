"""Read and write subresources that are no part of the object: scale, eviction, token, binding, approval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciler.client.session.requests import CONTENT_TYPES, ClientModel, FieldValidation, encode
from reconciler.client.session.retry import Repeat
from reconciler.client.verbs.base import ClientBase, Write
from reconciler.http import HTTPRequest
from reconciler.objects import AnyResource, KindLike, Unstructured, to_document

__all__ = ["Body", "Subresources"]

Body = Mapping[str, Any] | AnyResource | ClientModel
"""What is sent to a subresource: a document, or a model of it."""


class Subresources(ClientBase):
    """Speak to subresources by their names. `patch` serves any of them too, `update` and `apply` the status."""

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
        body: Body,
        dry_run: bool = False,
        field_manager: str | None = None,
        field_validation: FieldValidation | None = None,
    ) -> Unstructured:
        """POST to a subresource: ``"eviction"``, ``"token"``, ``"binding"``. A cancelled call may have done it.

        Args:
            kind: the kind of the object, not of the body.
            name: the object's name.
            namespace: its namespace; None for cluster-scoped kinds.
            subresource: its name in the path.
            body: an Eviction, a TokenRequest, a Binding.
            dry_run: let the server check and answer, but do nothing.
            field_manager: the client's by default.
            field_validation: the client's by default.

        Raises:
            TooManyRequests: an eviction that a disruption budget forbids, not repeated; or overload.
            NotFound: there is no such object or subresource.
            APIError: another failure, typed.
            OutcomeUnknown: it may have been done, but no answer came. Never repeated.
            NotSent: the connection could not be made.
        """
        rt = await self._served(kind, name, namespace)
        request = self._connection.request(
            "POST",
            self._object_path(rt, name, namespace, subresource),
            self._options(dry_run=dry_run, field_manager=field_manager, field_validation=field_validation),
            body=_encoded(body),
        )
        return await self._send_write(
            self._write(rt, "update", self._key(rt, name, namespace), dry_run=dry_run), request
        )

    async def update_subresource(
        self,
        kind: KindLike,
        name: str,
        namespace: str | None = None,
        *,
        subresource: str,
        body: Body,
        dry_run: bool = False,
        field_manager: str | None = None,
        field_validation: FieldValidation | None = None,
    ) -> Unstructured:
        """PUT to a subresource, as ``"scale"`` or ``"approval"``. A cancelled call may have done it.

        Args:
            kind: the kind of the object, not of the body.
            name: the object's name.
            namespace: its namespace; None for cluster-scoped kinds.
            subresource: its name in the path.
            body: a Scale; for ``"approval"`` and the like the whole object. A resourceVersion in it is the condition.
            dry_run: let the server check and answer, but do nothing.
            field_manager: the client's by default.
            field_validation: the client's by default.

        Raises:
            Conflict: the resourceVersion in the body is not the stored one.
            NotFound: there is no such object or subresource.
            APIError: another failure, typed.
            OutcomeUnknown: it may have been done, but no answer came. Never repeated.
            NotSent: the connection could not be made.
        """
        rt = await self._served(kind, name, namespace)
        request = self._connection.request(
            "PUT",
            self._object_path(rt, name, namespace, subresource),
            self._options(dry_run=dry_run, field_manager=field_manager, field_validation=field_validation),
            body=_encoded(body),
        )
        return await self._send_write(
            self._write(rt, "update", self._key(rt, name, namespace), dry_run=dry_run), request
        )

    async def apply_subresource(
        self,
        kind: KindLike,
        name: str,
        namespace: str | None = None,
        *,
        subresource: str,
        body: Body,
        force: bool = True,
        dry_run: bool = False,
        field_manager: str | None = None,
    ) -> Unstructured:
        """Apply to a subresource of a kind of its own, as ``"scale"``. A cancelled call may have done it.

        Args:
            kind: the kind of the object, not of the body.
            name: the object's name.
            namespace: its namespace; None for cluster-scoped kinds.
            subresource: its name in the path; for ``"status"`` there is `apply`.
            body: the fields that this manager wants to own, with apiVersion and kind.
            force: take over fields that other managers own (default); else `FieldManagerConflict` is raised.
            dry_run: let the server check and answer, but do nothing.
            field_manager: the client's by default.

        Raises:
            FieldManagerConflict: without force, another manager owns a field.
            NotFound: there is no such object or subresource.
            APIError: another failure, typed.
            OutcomeUnknown: it may have been done, but no answer came. Never repeated.
            NotSent: the connection could not be made.
        """
        rt = await self._served(kind, name, namespace)
        options = self._options(dry_run=dry_run, field_manager=field_manager)
        request = self._connection.request(
            "PATCH",
            self._object_path(rt, name, namespace, subresource),
            [*options, *([("force", "true")] if force else [])],
            body=_encoded(body),
            content_type=CONTENT_TYPES["apply"],
        )
        return await self._send_write(
            self._write(rt, "apply", self._key(rt, name, namespace), dry_run=dry_run), request
        )

    async def _send_write(self, write: Write, request: HTTPRequest) -> Unstructured:
        response = await self._execute_write(write, request, Repeat.REFUSED)
        answer = self._take(write, write.rt.gvk, request, response)
        assert isinstance(answer, Unstructured)  # noqa: S101 - no class was asked for
        return answer


def _encoded(body: Body) -> bytes:
    return encode(body if isinstance(body, Mapping) else to_document(body))
