"""Read whatever callers hold as an object or a kind, without importing the libraries that made it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from reconciler.meta import GroupVersionKind, is_object
from reconciler.status.record.json_values import copy_json, written_time

__all__ = ["document_of", "is_kind", "kind_of", "presented"]


def is_kind(obj_or_kind: object) -> bool:
    """Say whether this names a kind, rather than being an object."""
    return isinstance(obj_or_kind, (str, GroupVersionKind, type))


def kind_of(kind: object) -> GroupVersionKind:
    """Return the names of a kind: ``"group/version/Kind"``, a GroupVersionKind, or the class of a Resource.

    Raises:
        ValueError: the text names no kind.
        TypeError: it is something else.
    """
    if isinstance(kind, GroupVersionKind):
        return kind
    if isinstance(kind, str):
        return GroupVersionKind.parse(kind)
    gvk = getattr(kind, "gvk", None)
    if isinstance(gvk, GroupVersionKind):
        return gvk
    raise TypeError(f"{kind!r} names no kind: give 'group/version/Kind', a GroupVersionKind or the class of a Resource")


def document_of(obj: Any) -> Mapping[str, Any]:
    """Return an object as a document, which is not to be changed.

    Of a Resource or an Unstructured it is the document it was read from, so that what the caller did to the object
    since is no part of it.

    Raises:
        TypeError: it is no Kubernetes object.
    """
    if isinstance(obj, dict):
        return obj
    read_from: Any = getattr(obj, "_document", None)
    if is_object(read_from):
        return read_from
    if isinstance(obj, Mapping):
        return obj
    if isinstance(getattr(obj, "attribute_map", None), Mapping):
        document: Mapping[str, Any] = _plain(obj)
        return document
    if hasattr(obj, "to_dict"):
        converted = obj.to_dict()
        if isinstance(converted, Mapping):
            return converted
    raise TypeError(
        f"{type(obj).__name__} is no Kubernetes object: give a dict, a Resource, an Unstructured or a client's model; "
        "or 'group/version/Kind' with name= and namespace="
    )


def presented(document: dict[str, Any], obj_or_kind: Any) -> Any:
    """Return a document in the form that the caller used: Resource, Unstructured, or else a dict of its own.

    A Resource is read leniently: that the status was written must not be hidden by what others wrote elsewhere.
    """
    cls: Any = obj_or_kind if isinstance(obj_or_kind, type) else type(obj_or_kind)
    if hasattr(cls, "from_dict") and hasattr(cls, "status_model"):
        return cls.from_dict(document, lenient=True)
    if cls.__name__ == "Unstructured" and cls.__module__.startswith("reconciler.objects"):
        return cls(document)
    return document


def _plain(value: Any) -> Any:
    """Return a generated model under its names on the wire; its own ``to_dict`` gives Python's."""
    names = getattr(value, "attribute_map", None)
    if isinstance(names, Mapping):
        members = {wire: getattr(value, name) for name, wire in names.items()}
        return {wire: _plain(member) for wire, member in members.items() if member is not None}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, datetime):
        return written_time(value)
    return copy_json(value)
