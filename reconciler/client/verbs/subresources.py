"""Subresources with a kind of their own: scale, eviction, token, binding, approval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from reconciler.client.session.connection import JSON
from reconciler.client.session.requests import CONTENT_TYPES, ClientModel, FieldValidation, encode
from reconciler.client.session.retry import RetryOn
from reconciler.client.session.session import Session
from reconciler.objects import AnyResource, KindLike, Unstructured, to_document

__all__ = ["Body", "write_subresource"]

Body = Mapping[str, Any] | AnyResource | ClientModel
"""What is sent to a subresource: a document, or a model of it."""

_METHODS = {"create": "POST", "update": "PUT", "apply": "PATCH"}


async def write_subresource(
    session: Session,
    verb: Literal["create", "update", "apply"],
    kind: KindLike,
    name: str,
    namespace: str | None,
    *,
    subresource: str,
    body: Body,
    force: bool = False,
    dry_run: bool = False,
    field_manager: str | None = None,
    field_validation: FieldValidation | None = None,
) -> Unstructured:
    """Send a body to a subresource and return the answer."""
    resource = await session.resource_for(kind, name, namespace)
    options = session.write_options(dry_run=dry_run, field_manager=field_manager, field_validation=field_validation)
    request = session.connection.request(
        _METHODS[verb],
        session.object_path(resource, name, namespace, subresource),
        [*options, ("force", "true")] if force else options,
        body=encode(body if isinstance(body, Mapping) else to_document(body)),
        content_type=CONTENT_TYPES["apply"] if verb == "apply" else JSON,
    )
    # To an observer, a POST is an update of the object that the subresource belongs to.
    written = "apply" if verb == "apply" else "update"
    write = session.write(resource, written, session.key(resource, name, namespace), dry_run=dry_run)
    response = await session.execute_write(write, request, RetryOn.REFUSED)
    answer = session.accept(write, resource.gvk, request, response)
    assert isinstance(answer, Unstructured)  # noqa: S101 - no class was asked for
    return answer
