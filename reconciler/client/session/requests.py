"""Put together what a request consists of: paths, selectors, options, bodies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, get_args

import msgspec
from pydantic import BaseModel

from reconciler.meta import GroupVersionKind, Request, ResourceType, gvk_of, request_of, set_controller_reference
from reconciler.objects import AnyResource, KindLike, Unstructured, to_document
from reconciler.objects import Resource as _Resource

__all__ = [
    "CONTENT_TYPES",
    "KEPT_BY_THE_SERVER",
    "ClientModel",
    "FieldValidation",
    "ObjectLike",
    "Own",
    "PatchStrategy",
    "Propagation",
    "Query",
    "Selector",
    "applied",
    "collection_path",
    "delete_options",
    "encode",
    "kind_of",
    "object_path",
    "pairs",
    "patch_body",
    "selectors",
    "split_kind_or_object",
    "write_options",
]

Selector = str | Mapping[str, str]
"""A label or field selector: in the API's syntax (``"app=web,tier!=db"``), or a mapping of what must be equal."""

PatchStrategy = Literal["merge", "json", "strategic"]
"""RFC 7386, RFC 6902, or the strategic merge of built-in kinds."""

FieldValidation = Literal["Ignore", "Warn", "Strict"]
"""What the server does about unknown fields: drop them, drop them with a warning (its default), refuse."""

Propagation = Literal["Foreground", "Background", "Orphan"]
"""What the garbage collector does about the dependents of a deleted object."""

Own = Literal["status"]
"""A subresource that is a part of the object, so that its answers are the whole object."""

Query = Sequence[tuple[str, str]] | Mapping[str, str]
"""Query parameters, decoded."""

CONTENT_TYPES: Mapping[str, str] = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",  # JSON is YAML
}


class ClientModel(Protocol):
    """Be a generated model of ``kubernetes`` or ``kubernetes_asyncio``, told by what their stubs have in common."""

    def to_dict(self) -> Any:
        """Return the model as a dict of Python's names."""
        ...

    def to_str(self) -> str:
        """Return the model for people."""
        ...


ObjectLike = Unstructured | dict[str, Any] | ClientModel
"""An object that is no `Resource`: what is read back is an `Unstructured`."""


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "attribute_map"):
        return to_document(value)
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True, exclude_none=True)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


_encoder = msgspec.json.Encoder(enc_hook=_plain)


def encode(value: object) -> bytes:
    """Return a body as JSON; mappings of any type and models inside of it are written as objects.

    Raises:
        TypeError: something in it is no JSON.
    """
    return _encoder.encode(value)


def kind_of(obj: AnyResource | ObjectLike, document: Mapping[str, Any]) -> KindLike:
    """Return what the answer to a write of `obj` is read as."""
    return type(obj) if isinstance(obj, _Resource) else gvk_of(document)


def split_kind_or_object(
    given: KindLike | AnyResource | ObjectLike,
) -> tuple[KindLike, dict[str, Any] | None]:
    """Return the kind, and the document if an object was given."""
    if isinstance(given, (str, GroupVersionKind, type)):
        return given, None
    document = to_document(given)
    return kind_of(given, document), document


def split_kind_or_key(given: KindLike | AnyResource | ObjectLike) -> tuple[KindLike, Request | None]:
    """Return the kind, and the key if an object was given; its document is not copied for that."""
    if isinstance(given, _Resource):
        return type(given), given.key
    if isinstance(given, Unstructured):
        return given.gvk, given.key
    kind, document = split_kind_or_object(given)
    return kind, None if document is None else request_of(document)


def collection_path(resource: ResourceType, namespace: str | None) -> str:
    """Return the path of a collection, percent-encoded."""
    return resource.path(namespace=namespace)


def object_path(resource: ResourceType, name: str, namespace: str | None, subresource: str | None = None) -> str:
    """Return the path of an object or its subresource, percent-encoded.

    Raises:
        ValueError: no name, no namespace for a namespaced kind, or one that is not valid; see `meta.path_segment`.
    """
    if not name:
        raise ValueError(f"{resource.gvk.kind} needs a name, not {name!r}")
    return resource.path(name, namespace, subresource)


def pairs(query: Query) -> list[tuple[str, str]]:
    """Return query parameters as pairs."""
    return list(query.items() if isinstance(query, Mapping) else query)


def selectors(label_selector: Selector | None, field_selector: Selector | None) -> list[tuple[str, str]]:
    """Return the query parameters of two selectors; an empty one selects everything, as none does."""
    given = (("labelSelector", _selector(label_selector)), ("fieldSelector", _selector(field_selector)))
    return [(name, text) for name, text in given if text]


def _selector(selector: Selector | None) -> str:
    if selector is None or isinstance(selector, str):
        return selector or ""
    return ",".join(f"{key}={value}" for key, value in selector.items())


def write_options(
    *, dry_run: bool, field_manager: str | None = None, field_validation: FieldValidation | None = None
) -> list[tuple[str, str]]:
    """Return the query parameters of a write."""
    given = (
        ("dryRun", "All" if dry_run else None),
        ("fieldManager", field_manager),
        ("fieldValidation", field_validation),
    )
    return [(name, text) for name, text in given if text]


def delete_options(
    *,
    dry_run: bool,
    propagation: Propagation | None,
    grace_period: int | None,
    uid: str | None = None,
    resource_version: str | None = None,
) -> bytes:
    """Return the body of a deletion."""
    given = {"uid": uid, "resourceVersion": resource_version}
    preconditions = {key: value for key, value in given.items() if value}
    options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions"}
    if propagation:
        options["propagationPolicy"] = propagation
    if grace_period is not None:
        options["gracePeriodSeconds"] = grace_period
    if preconditions:
        options["preconditions"] = preconditions
    if dry_run:
        options["dryRun"] = ["All"]
    return encode(options)


def patch_body(
    patch: Mapping[str, Any] | Sequence[Mapping[str, Any]], strategy: PatchStrategy, resource_version: str | None
) -> bytes:
    """Return the body of a patch, conditional on a version if one is given.

    Raises:
        ValueError: there is no such strategy.
        TypeError: an object where the strategy wants a list of operations, or the other way round.
    """
    if strategy not in get_args(PatchStrategy):
        raise ValueError(f"strategy must be 'merge', 'json' or 'strategic', not {strategy!r}; apply() applies")
    if strategy == "json":
        if isinstance(patch, Mapping):
            raise TypeError("a JSON Patch is a list of operations; an object is a patch of strategy 'merge'")
        operations = list(patch)
        if resource_version:
            # Not "test", which the server answers with 422: a replaced version that is stale is answered with 409.
            operations.append({"op": "replace", "path": "/metadata/resourceVersion", "value": resource_version})
        return encode(operations)
    if not isinstance(patch, Mapping):
        raise TypeError(f"a patch of strategy {strategy!r} is an object; a list of operations is of strategy 'json'")
    if resource_version:
        patch = {**patch, "metadata": {**(patch.get("metadata") or {}), "resourceVersion": resource_version}}
    return encode(patch)


KEPT_BY_THE_SERVER = frozenset(
    {
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "generation",
        "managedFields",
        "resourceVersion",
        "selfLink",
        "uid",
    }
)
"""Members of the metadata that only the server writes."""


def applied(
    document: Mapping[str, Any], owner: Mapping[str, Any] | None, resource_version: str | None
) -> dict[str, Any]:
    """Return the document of an apply: without the metadata that the server keeps, with its controller and condition.

    Raises:
        AlreadyOwned: another object is its controller.
        ValueError: the owner was never stored, or cannot own it.
    """
    metadata = document.get("metadata") or {}
    kept = {key: value for key, value in metadata.items() if key not in KEPT_BY_THE_SERVER}
    result = {**document, "metadata": kept}
    if owner is not None:
        set_controller_reference(result, owner)
    if resource_version:
        kept["resourceVersion"] = resource_version
    return result
