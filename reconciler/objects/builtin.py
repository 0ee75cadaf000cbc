"""Built-in kinds as classes: those of lightkube, such as ``lightkube.resources.apps_v1.Deployment``.

A class of ``lightkube.resources`` is a kind, and its instances are objects, wherever one is passed. They are msgspec
structs; lightkube itself is not imported here. An instance that was read keeps its document, so that writing it back
preserves the fields that the class does not know.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol, TypeVar, cast

import msgspec
from typing_extensions import TypeIs

from reconciler._core.wire import JSONObject
from reconciler.meta import GroupVersionKind
from reconciler.meta.documents import format_micro_time
from reconciler.meta.metadata import name_of
from reconciler.objects.resource import InvalidObject, merge_changes


class TypedObject(Protocol):
    """An object whose kind is a class: an instance of a `Resource`, or of a class of ``lightkube.resources``."""

    @property
    def metadata(self) -> Any:
        """Return the object's metadata."""

    def to_dict(self) -> JSONObject:
        """Return the object as a document."""
        ...


class BuiltInObject(TypedObject, Protocol):
    """An object of a built-in kind: an instance of a class of ``lightkube.resources``."""

    _api_info: Any


B = TypeVar("B", bound=BuiltInObject)

_DOCUMENT, _DEEPCOPY = "_document", "__deepcopy__"


def is_built_in_class(kind: object) -> TypeIs[type[BuiltInObject]]:
    """Return whether a kind is given as a class of ``lightkube.resources``."""
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct) and hasattr(kind, "_api_info")


def is_built_in_object(obj: object) -> TypeIs[BuiltInObject]:
    """Return whether an object is an instance of a class of ``lightkube.resources``."""
    return is_built_in_class(type(obj))


def class_gvk(kind: type[BuiltInObject]) -> GroupVersionKind:
    """Return the kind of a class.

    Raises:
        TypeError: the class is a subresource, such as DeploymentStatus.
    """
    info = kind._api_info  # noqa: SLF001 - what lightkube.core.resource.api_info returns
    if info.parent is not None:
        raise TypeError(f"{kind.__name__} is a subresource of {info.parent.kind}: use {info.parent.kind}")
    return GroupVersionKind(info.resource.group, info.resource.version, info.resource.kind)


def model_from_document(kind: type[B], document: JSONObject) -> B:
    """Read an object from its document, which is kept and must not be changed afterwards.

    Raises:
        InvalidObject: the document does not fit the class.
    """
    try:
        obj = msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        text, _, path = str(error).partition(" - at `$")
        problem = (path.rstrip("`").lstrip(".") or "object", text)
        raise InvalidObject(f"{kind.__name__} {name_of(document)} does not fit its class", [problem]) from None
    _keep(obj, document)
    return obj


def known_fields(obj: BuiltInObject) -> JSONObject:
    """Return the fields that the class of an object knows, as sent."""
    # metav1.MicroTime requires six decimals, metav1.Time accepts them.
    plain = msgspec.to_builtins(obj, builtin_types=(datetime,))
    return cast("JSONObject", _with_text_times(plain))


def model_document(obj: BuiltInObject) -> JSONObject:
    """Return an object as a document: the one that it was read from, with later changes applied."""
    document = vars(obj).get(_DOCUMENT)
    if document is None:
        return known_fields(obj)
    before = known_fields(msgspec.convert(document, type(obj)))
    return cast("JSONObject", merge_changes(document, before, known_fields(obj)))


def model_original(obj: BuiltInObject) -> Mapping[str, Any] | None:
    """Return the document that an object was read from; None if it was not read."""
    return vars(obj).get(_DOCUMENT)


def _keep(obj: BuiltInObject, document: Mapping[str, Any]) -> None:
    vars(obj).update({_DOCUMENT: document, _DEEPCOPY: _DeepCopy(obj)})


class _DeepCopy:
    """The ``__deepcopy__`` of an object that was read: a struct's own would leave the document behind."""

    __slots__ = ("_obj",)

    def __init__(self, obj: BuiltInObject) -> None:
        self._obj = weakref.ref(obj)  # not a cycle: objects are many

    def __call__(self, memo: dict[int, Any]) -> BuiltInObject:
        obj = self._obj()
        assert obj is not None  # noqa: S101 - it is being copied
        make, arguments = cast("tuple[Any, ...]", obj.__reduce__())[:2]
        copied: BuiltInObject = make(*copy.deepcopy(arguments, memo))
        _keep(copied, vars(obj)[_DOCUMENT])
        return copied


def _with_text_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_text_times(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_text_times(item) for item in value]
    return format_micro_time(value) if isinstance(value, datetime) else value
