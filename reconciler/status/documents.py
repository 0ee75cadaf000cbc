"""The objects that callers have, as JSON documents, and the owners of their status fields.

Models, dataclasses and objects of other clients become plain JSON. The libraries that they come from are recognized,
not imported.

A set of owned fields is a tree (FieldsV1): ``f:name`` is a member, ``k:{…}`` an item of a keyed list, ``v:…`` an item
of a set, ``.`` the value itself. An empty tree is a leaf: the manager owns the value as a whole.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any

import msgspec

from reconciler.meta import GroupVersionKind
from reconciler.meta.documents import format_micro_time, format_time, is_object, plain_model

if TYPE_CHECKING:
    from reconciler._core.wire import JSONObject, ManagedFieldsEntry
    from reconciler.status.mutations import Path

_PLAIN = frozenset({str, bool, int, type(None)})
"""Types whose values are JSON as they are; a float may be infinite."""


def is_kind(obj_or_kind: object) -> bool:
    """Return whether this names a kind; False for an object."""
    return isinstance(obj_or_kind, (str, GroupVersionKind, type))


def kind_of(kind: object) -> GroupVersionKind:
    """Return the group, version and kind of ``"group/version/Kind"``, a GroupVersionKind or a Resource class.

    Raises:
        ValueError: the string is not a valid kind.
        TypeError: it is something else.
    """
    if isinstance(kind, GroupVersionKind):
        return kind
    if isinstance(kind, str):
        return GroupVersionKind.parse(kind)
    gvk = getattr(kind, "gvk", None)
    if isinstance(gvk, GroupVersionKind):
        return gvk
    raise TypeError(f"{kind!r} is not a valid kind: pass 'group/version/Kind', a GroupVersionKind or a Resource class")


def document_of(obj: Any) -> Mapping[str, Any]:
    """Return an object as a document. Do not change it.

    For a Resource or an Unstructured it is the document that the object was read from: changes that the caller has made
    to the object since are not part of it.

    Raises:
        TypeError: it is not a Kubernetes object.
    """
    if isinstance(obj, dict):
        return obj
    read_from: Any = getattr(obj, "_document", None)
    if type(read_from) is dict or is_object(read_from):
        return read_from
    if isinstance(obj, Mapping):
        return obj
    if isinstance(getattr(obj, "attribute_map", None), Mapping):
        document: Mapping[str, Any] = plain_model(obj, _timestamp)
        return document
    if hasattr(obj, "to_dict"):
        converted = obj.to_dict()
        if isinstance(converted, Mapping):
            return converted
    raise TypeError(
        f"{type(obj).__name__} is not a Kubernetes object: pass a dict, a Resource, an Unstructured or a client's "
        "model; or 'group/version/Kind' with name= and namespace="
    )


def in_form_of(obj_or_kind: Any, document: JSONObject) -> Any:
    """Return a document in the form of the caller's object: a Resource, an Unstructured, or else the dict itself.

    A Resource is read leniently: an invalid value that someone else wrote elsewhere must not hide a successful write.
    """
    cls: Any = obj_or_kind if isinstance(obj_or_kind, type) else type(obj_or_kind)
    if hasattr(cls, "from_dict") and hasattr(cls, "status_model"):
        return cls.from_dict(document, lenient=True)
    if cls.__name__ == "Unstructured" and cls.__module__.startswith("reconciler.objects"):
        return cls(document)
    return document


def digest(value: Any) -> bytes:
    """Return a short fingerprint of a JSON value; the order of keys does not matter."""
    encoded = msgspec.json.encode(value, order="deterministic")
    return hashlib.blake2b(encoded, digest_size=16).digest()


def to_json(value: Any, where: str = "value") -> Any:
    """Return a private copy of `value` as JSON.

    Accepts pydantic models (the fields that were set, under their wire names), dataclasses, enums, tuples, sets
    (sorted), quantities, IP addresses and networks, and datetimes with a time zone. Those become RFC 3339 in UTC, with
    six digits of the second unless it is whole.

    Raises:
        TypeError: the value cannot be JSON; the message has its path, not the value.
        ValueError: a number is not finite, a datetime has no time zone, or there is a lone surrogate.
    """
    converted = value if type(value) in _PLAIN else _converted(value, where)
    try:
        msgspec.json.encode(converted)
    except UnicodeEncodeError:
        raise ValueError(
            f"{where} has a lone surrogate, which UTF-8 cannot represent, as in the name of a file that is not valid "
            "UTF-8; write text.encode(errors='replace').decode()"
        ) from None
    return converted


def _converted(value: Any, where: str) -> Any:
    if type(value) in _PLAIN:
        return value
    if isinstance(value, Mapping):
        return {
            key if type(key) is str else _key(key, where): item
            if type(item) in _PLAIN
            else _converted(item, f"{where}.{key}")
            for key, item in value.items()
        }
    if isinstance(value, AbstractSet):
        value = sorted(value, key=str)
    if isinstance(value, (list, tuple)):
        return [_converted(item, f"{where}[{index}]") for index, item in enumerate(value)]
    return _scalar(value, where) if isinstance(value, (Enum, str, int, float, datetime)) else _model(value, where)


def _scalar(value: Enum | str | float | datetime, where: str) -> Any:
    if isinstance(value, Enum):
        return _converted(value.value, where)
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(f"{where} is a datetime without a time zone; write datetime.now(UTC)")
        return _timestamp(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where} is not a finite number, which JSON cannot represent")
    return next(kind(value) for kind in (str, int, float) if isinstance(value, kind))


def _key(key: object, where: str) -> str:
    if isinstance(key, Enum):
        key = key.value
    if not isinstance(key, str):
        raise TypeError(f"a key of {where} is a {type(key).__name__}; JSON keys are strings")
    return key


def _timestamp(moment: datetime) -> str:
    """Return a time as the API writes it: in UTC, with six digits of the second unless it is whole."""
    return format_micro_time(moment) if moment.microsecond else format_time(moment)


def _model(value: Any, where: str) -> Any:
    if hasattr(value, "model_dump"):
        return _converted(value.model_dump(mode="json", by_alias=True, exclude_unset=True), where)
    if hasattr(value, "__pydantic_serializer__"):  # a Quantity, a dataclass of pydantic
        return _converted(value.__pydantic_serializer__.to_python(value, mode="json"), where)
    if type(value).__module__ == "ipaddress":
        return str(value)
    try:
        return _converted(msgspec.to_builtins(value), where)
    except TypeError:
        raise TypeError(f"{where} is a {type(value).__name__}, which JSON cannot represent") from None


FieldTree = Mapping[str, Any]


def field_trees(managed_fields: Sequence[ManagedFieldsEntry]) -> Iterator[tuple[str, FieldTree]]:
    """Yield the manager and the tree below ``status`` of each entry of ``managedFields`` that has one."""
    for entry in managed_fields:
        tree = (entry.get("fieldsV1") or {}).get("f:status")
        if isinstance(tree, Mapping):
            yield str(entry.get("manager", "")), tree


def owns(managed_fields: Sequence[ManagedFieldsEntry], manager: str, path: Path) -> bool:
    """Return whether a manager owns the status field at a path."""
    return any(_covers(tree, path) for name, tree in field_trees(managed_fields) if name == manager)


def owned_by_others_only(managed_fields: Sequence[ManagedFieldsEntry], manager: str, path: Path) -> bool:
    """Return whether the status field at a path has owners, and this manager is not one of them."""
    owners = owners_of(managed_fields, path)
    return bool(owners) and manager not in owners


def owners_of(managed_fields: Sequence[ManagedFieldsEntry], path: Path) -> set[str]:
    """Return the managers that own the status field at a path."""
    return {name for name, tree in field_trees(managed_fields) if _covers(tree, path)}


def _covers(tree: FieldTree, path: Path) -> bool:
    for depth, key in enumerate(path):
        child = tree.get(f"f:{key}")
        if not isinstance(child, Mapping):
            return depth > 0 and not tree
        tree = child
    return True
