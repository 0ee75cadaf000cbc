"""Kinds and objects as callers pass them: how a kind is most likely served, and conversion to and from documents.

Built-in kinds can be given as classes of lightkube, such as ``lightkube.resources.apps_v1.Deployment``, whose instances
are objects then. They are msgspec structs; lightkube itself is not imported here. An instance that was read keeps its
document, so that writing it back preserves the fields that the class does not know.
"""

from __future__ import annotations

import copy
import functools
import weakref
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol, cast, get_args, get_origin

import msgspec
from typing_extensions import TypeIs, TypeVar, get_original_bases

from reconciler._core.wire import JSONObject
from reconciler.errors import ConfigurationError
from reconciler.meta import GroupVersionKind
from reconciler.meta.documents import format_micro_time, plain_model
from reconciler.meta.metadata import ResourceType, name_of
from reconciler.objects.crd import plural_of
from reconciler.objects.resource import AnyResource, InvalidObject, Resource, merge_changes
from reconciler.objects.schema_checks import recorded
from reconciler.objects.unstructured import Unstructured


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


KindLike = str | GroupVersionKind | type[TypedObject]
"""A kind: ``"apps/v1/Deployment"``, a GroupVersionKind, a subclass of Resource, a class of ``lightkube.resources``."""


_parse = functools.lru_cache(maxsize=1024)(GroupVersionKind.parse)  # a program has few kinds, and every verb asks


def gvk_from(kind: KindLike) -> GroupVersionKind:
    """Return the group, version and kind.

    Raises:
        ValueError: the string is not a valid kind.
        TypeError: the argument has another type, or is the bare class Resource.
    """
    if isinstance(kind, GroupVersionKind):
        return kind
    if is_kind_class(kind):
        return kind.gvk
    if is_built_in_class(kind):
        return class_gvk(kind)
    if isinstance(kind, str):
        return _parse(kind)
    raise TypeError(
        f"{kind!r} is not a valid kind: pass 'group/version/Kind', a GroupVersionKind, a subclass of Resource, "
        "or a class of lightkube.resources (those of lightkube.models are only parts)"
    )


def resource_type_from(kind: KindLike) -> ResourceType | None:
    """Return the resource type that a class defines; None if discovery is needed."""
    return kind.resource_type if is_kind_class(kind) else None


def is_kind_class(kind: object) -> TypeIs[type[AnyResource]]:
    """Return whether a kind is given as a class."""
    return isinstance(kind, type) and issubclass(kind, Resource) and kind is not Resource


_IRREGULAR = {("", "Endpoints"): "endpoints"}


def presumed_resource_type(kind: KindLike) -> ResourceType:
    """Return the resource type that a class defines, or that follows from the naming rules of Kubernetes' own kinds.

    A kind given as text that is not built in is assumed to be namespaced and to have a regular plural.

    Raises:
        ValueError: the string is not a valid kind.
        TypeError: the argument is not a kind.
    """
    declared = resource_type_from(kind)
    if declared is not None:
        return declared
    gvk = gvk_from(kind)
    plural = _IRREGULAR.get((gvk.group, gvk.kind)) or plural_of(gvk.kind)
    return ResourceType(gvk, plural, gvk.kind not in _cluster_scoped().get(gvk.group, ()))


def is_built_in(group: str) -> bool:
    """Return whether an API group is one of Kubernetes' own, whose kinds `presumed_resource_type` knows."""
    return group in _cluster_scoped()


def _cluster_scoped() -> Mapping[str, list[str]]:
    """Return the groups of Kubernetes 1.36 with their cluster-scoped kinds; a test compares them with a real server."""
    return cast("Mapping[str, list[str]]", recorded("built_in.json"))


def kind_argument(cls: type, generic: type) -> KindLike | None:
    """Return the kind in the brackets of a generic base class, as in ``ResourceReconciler[Database]``.

    None if the brackets name no kind.

    Args:
        cls: the class; it may derive from the generic class indirectly.
        generic: the base class that takes a kind.

    Raises:
        ConfigurationError: the type argument is not a kind.
    """
    for base in get_original_bases(cls):
        origin = get_origin(base)
        if not (isinstance(origin, type) and issubclass(origin, generic)):
            continue
        for argument in get_args(base):
            if is_kind_class(argument) or is_built_in_class(argument):
                return argument
        argument = get_args(base)[0]
        if isinstance(argument, TypeVar) or argument in (Any, Unstructured):
            return None
        raise ConfigurationError(
            f"{cls.__name__}: {generic.__name__}[{argument!r}] is not a valid kind: use a subclass of Resource, "
            "a class of lightkube.resources, or Unstructured and resource='group/version/Kind'"
        )
    return None


R = TypeVar("R", bound=TypedObject, default=Unstructured)

KindOf = type[R] | str | GroupVersionKind
"""A kind whose objects are of a type: that of the class, or `Unstructured` if there is none."""


def from_document(kind: KindOf[R], document: JSONObject, *, lenient: bool = False) -> R:
    """Read a document as an instance of a class if one is given, else as an `Unstructured`.

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
        return cast("R", kind.from_dict(document, lenient=lenient))
    if is_built_in_class(kind):
        try:
            return cast("R", model_from_document(kind, _named(document, gvk_from(kind))))
        except InvalidObject:
            if not lenient:
                raise
    return cast("R", Unstructured(_named(document, gvk_from(kind))))


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
        # metav1.MicroTime requires six decimals, metav1.Time accepts them, and the models do not say which a field is.
        document: JSONObject = plain_model(obj, format_micro_time)
        return document
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
