"""Conversion between documents and the objects that callers pass."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeVar, overload

from reconciler.meta import GroupVersionKind, format_micro_time
from reconciler.objects.builtin import (
    TypedObject,
    is_built_in_class,
    is_built_in_object,
    known_fields,
    model_document,
    model_from_document,
    model_original,
)
from reconciler.objects.kinds import KindLike, gvk_from, is_kind_class
from reconciler.objects.resource import InvalidObject, Resource
from reconciler.objects.unstructured import Unstructured
from reconciler.wire import JSONObject

__all__ = ["documents_to_compare", "from_document", "original_document", "to_document"]

R = TypeVar("R", bound=TypedObject)


@overload
def from_document(kind: type[R], document: JSONObject, *, lenient: bool = False) -> R: ...
@overload
def from_document(kind: str | GroupVersionKind, document: JSONObject, *, lenient: bool = False) -> Unstructured: ...
def from_document(kind: KindLike, document: JSONObject, *, lenient: bool = False) -> TypedObject | Unstructured:
    """Return an object of a kind: an instance of the class if a class is given, else an `Unstructured`.

    List items lack apiVersion and kind; they are added. The document is kept, not copied.

    Args:
        kind: the kind.
        document: the object.
        lenient: accept an object that does not fit the class; see `Resource.from_dict`. One that does not fit a class
            of lightkube is returned as Unstructured.

    Raises:
        InvalidObject: the document does not fit the class, and `lenient` is False.
    """
    if is_kind_class(kind):
        return kind.from_dict(_named(document, kind.gvk), lenient=lenient)
    if is_built_in_class(kind):
        try:
            return model_from_document(kind, _named(document, gvk_from(kind)))
        except InvalidObject:
            if not lenient:
                raise
    return Unstructured(_named(document, gvk_from(kind)))


def _named(document: JSONObject, gvk: GroupVersionKind) -> JSONObject:
    if "kind" in document and "apiVersion" in document:
        return document
    return {"apiVersion": gvk.api_version, "kind": gvk.kind, **document}


def to_document(obj: object) -> JSONObject:
    """Return the document of an object.

    The object may be a Resource, an Unstructured, a mapping (a dict, kopf's body), or a model of lightkube or of an
    official client. A dict is returned as it is; everything else is copied.

    Raises:
        TypeError: the object is none of these.
    """
    if isinstance(obj, dict):
        return obj
    if isinstance(obj, (Resource, Unstructured)):
        return obj.to_dict()
    if isinstance(obj, Mapping):
        return dict(obj)
    if is_built_in_object(obj):
        return model_document(obj)
    if _is_client_model(obj):
        return {name: _plain(value) for name, value in _members(obj)}
    raise TypeError(
        f"{type(obj).__name__} is not a Kubernetes object: pass a Resource, an Unstructured, a dict "
        "or a model of lightkube, kubernetes or kubernetes_asyncio"
    )


def documents_to_compare(base: object, changed: object) -> tuple[JSONObject, JSONObject]:
    """Return two states of an object as documents whose differences are changes that the program made.

    Of objects of lightkube these are the known fields: a copy may have lost the others, which does not remove them.

    Raises:
        TypeError: an argument is not an object.
    """
    if is_built_in_object(base) and is_built_in_object(changed):
        return known_fields(base), known_fields(changed)
    return to_document(base), to_document(changed)


def original_document(obj: object) -> Mapping[str, Any]:
    """Return the document that an object was read from, without later changes; do not modify it.

    Costs nothing, whereas `to_document` copies. For an object that was not read from a document, it returns
    `to_document`.

    Raises:
        TypeError: the argument is not an object.
    """
    read_from = None
    if isinstance(obj, (Resource, Unstructured)):
        read_from = obj._document  # noqa: SLF001 - same package
    elif is_built_in_object(obj):
        read_from = model_original(obj)
    return to_document(obj) if read_from is None else read_from


def _is_client_model(obj: object) -> bool:
    return isinstance(getattr(obj, "attribute_map", None), Mapping) and hasattr(obj, "to_dict")


def _members(model: Any) -> list[tuple[str, Any]]:
    """Return wire name and value of what is set in a generated model; its own ``to_dict`` uses Python names."""
    pairs = [(wire, getattr(model, name)) for name, wire in model.attribute_map.items()]
    return [(wire, value) for wire, value in pairs if value is not None]


def _plain(value: Any) -> Any:
    if _is_client_model(value):
        return {name: _plain(item) for name, item in _members(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, datetime):
        # metav1.MicroTime requires six decimals, metav1.Time accepts them, and the models do not say which a field is.
        return format_micro_time(value)
    return value
