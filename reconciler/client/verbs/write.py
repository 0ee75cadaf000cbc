"""Write whole objects: create, update."""

from __future__ import annotations

from typing import Any, TypeVar, overload

from reconciler.client.session.answers import decode, label
from reconciler.client.session.requests import (
    FieldValidation,
    ObjectLike,
    Own,
    encode,
    kind_of,
)
from reconciler.client.session.retry import Repeat, Trail
from reconciler.client.verbs.base import ClientBase, Write
from reconciler.errors import AlreadyExists, NotFound, OutcomeUnknown
from reconciler.http import HTTPRequest, HTTPResponse
from reconciler.meta import controller_of, merge_diff, merge_patch, name_of, namespace_of, request_of
from reconciler.objects import AnyResource, Unstructured, to_document

__all__ = ["Writer"]

R = TypeVar("R", bound=AnyResource)


class Writer(ClientBase):
    """Write to the server; what is returned is its answer."""

    @overload
    async def create(
        self,
        obj: R,
        *,
        dry_run: bool = False,
        field_manager: str | None = None,
        field_validation: FieldValidation | None = None,
    ) -> R: ...
    @overload
    async def create(
        self,
        obj: ObjectLike,
        *,
        dry_run: bool = False,
        field_manager: str | None = None,
        field_validation: FieldValidation | None = None,
    ) -> Unstructured: ...
    async def create(
        self,
        obj: AnyResource | ObjectLike,
        *,
        dry_run: bool = False,
        field_manager: str | None = None,
        field_validation: FieldValidation | None = None,
    ) -> AnyResource | Unstructured:
        """Store a new object and return it as stored. A cancelled call may have stored it.

        A creation by name is repeated when its outcome is unknown. If the name is then taken, the object is returned
        if it is provably the one that was sent: it has the controller that was sent, and all fields; otherwise
        `OutcomeUnknown` is raised. One with ``generateName`` is never repeated.

        Args:
            obj: a Resource, an Unstructured, a dict, or a model of an official client.
            dry_run: let the server check, default and answer, but store nothing.
            field_manager: the name that the write is recorded under; the client's by default.
            field_validation: what the server does about unknown fields: ``"Ignore"``, ``"Warn"``, ``"Strict"``.

        Raises:
            AlreadyExists: the name is taken.
            Invalid: validation refused the object.
            APIError: another failure, typed.
            OutcomeUnknown: it may have been stored, but no answer came.
            NotSent: the connection could not be made.
            ValueError: apiVersion, kind or the namespace of a namespaced kind is missing.
        """
        document = to_document(obj)
        kind = kind_of(obj, document)
        rt = await self._served(kind, *request_of(document))
        document = self._placed(rt, document)
        name, namespace = name_of(document), namespace_of(document)
        if rt.namespaced and not namespace:
            raise ValueError(f"{rt.gvk.kind} {name!r} needs a namespace")
        options = self._options(dry_run=dry_run, field_manager=field_manager, field_validation=field_validation)
        if name:
            self._object_path(rt, name, namespace)  # an invalid name is refused here
        path = self._collection_path(rt, namespace)
        request = self._connection.request("POST", path, options, body=encode(document))
        write = self._write(rt, "create", request_of(document), dry_run=dry_run)
        trail = Trail()
        try:
            repeat = Repeat.UNKNOWN if name else Repeat.REFUSED
            response = await self._execute_write(write, request, repeat, trail)
        except AlreadyExists as error:
            if not trail.unknown:
                raise
            response = await self._created_before(write, request, document, error)
        return self._take(write, kind, request, response)

    async def _created_before(
        self, write: Write, request: HTTPRequest, sent: dict[str, Any], error: AlreadyExists
    ) -> HTTPResponse:
        """Return the stored object if an attempt whose answer was lost provably made it."""
        get = self._connection.request("GET", self._object_path(write.rt, *write.key))
        try:
            response = await self._execute(write.rt, get, Repeat.UNKNOWN)
            stored = decode(get, response)
        except NotFound:
            response, stored = None, {}
        wanted, found = controller_of(sent), controller_of(stored)
        ours = wanted is not None and found is not None and wanted.get("uid") == found.get("uid")
        if response is not None and ours and not merge_diff(stored, merge_patch(stored, sent)):
            return response
        if write.stores:
            self._unsure(write.rt, write.key)
        raise OutcomeUnknown(
            f"{label(request)}: the answer to the first attempt was lost, and now {name_of(sent)!r} exists: read it, "
            "and compare, to learn whether it was stored by that attempt or by somebody else"
        ) from error

    @overload
    async def update(
        self,
        obj: R,
        *,
        subresource: Own | None = None,
        dry_run: bool = False,
        field_manager: str | None = None,
        field_validation: FieldValidation | None = None,
    ) -> R: ...
    @overload
    async def update(
        self,
        obj: ObjectLike,
        *,
        subresource: Own | None = None,
        dry_run: bool = False,
        field_manager: str | None = None,
        field_validation: FieldValidation | None = None,
    ) -> Unstructured: ...
    async def update(
        self,
        obj: AnyResource | ObjectLike,
        *,
        subresource: Own | None = None,
        dry_run: bool = False,
        field_manager: str | None = None,
        field_validation: FieldValidation | None = None,
    ) -> AnyResource | Unstructured:
        """Replace an object by another version of it, and return what is stored. A cancelled call may have done it.

        Of a typed Resource, the document that it was read from is sent with the model's changes laid over it, so that
        fields which the model does not know survive. The resourceVersion in the object is the condition.

        Args:
            obj: a Resource, an Unstructured, a dict, or a model of an official client.
            subresource: ``"status"`` writes the status alone; None everything else.
            dry_run: let the server check, default and answer, but store nothing.
            field_manager: the name that the write is recorded under; the client's by default.
            field_validation: what the server does about unknown fields: ``"Ignore"``, ``"Warn"``, ``"Strict"``.

        Raises:
            Conflict: the stored version is another one: read again.
            NotFound: there is no such object.
            Invalid: validation refused the object.
            APIError: another failure, typed.
            OutcomeUnknown: it may have been done, but no answer came. Never repeated: a second try could meet its own
                first one as a conflict.
            NotSent: the connection could not be made.
        """
        document = to_document(obj)
        kind = kind_of(obj, document)
        rt = await self._served(kind, *request_of(document))
        document = self._placed(rt, document)
        options = self._options(dry_run=dry_run, field_manager=field_manager, field_validation=field_validation)
        write = self._write(rt, "update", request_of(document), dry_run=dry_run)
        path = self._object_path(rt, *write.key, subresource)
        request = self._connection.request("PUT", path, options, body=encode(document))
        response = await self._execute_write(write, request, Repeat.REFUSED)
        return self._take(write, kind, request, response)
