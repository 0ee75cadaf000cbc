"""The `Resource` base class: your own kind as a class, with its names, spec and status."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from inspect import signature
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Never, Self, cast, get_args

from pydantic import BaseModel, ValidationError
from typing_extensions import TypeVar

from reconciler._core.wire import JSONObject
from reconciler.errors import ReconcilerError
from reconciler.meta import GroupVersionKind, Request, equal, request_of
from reconciler.meta.documents import copy_json
from reconciler.meta.metadata import ResourceType, name_of, namespace_of
from reconciler.objects.crd import (
    Definition,
    Scope,
    check_deprecated,
    check_names,
    check_paths,
    columns_of,
    generate_crd,
    models_of,
    plural_of,
    string_tuple,
    typed_tuple,
)
from reconciler.objects.fields import wire_message
from reconciler.objects.markers import CELRule, PrinterColumn, Scale
from reconciler.objects.model import ConditionedStatus, ObjectMeta, read_leniently

SpecT_co = TypeVar("SpecT_co", bound=BaseModel, default=Any, covariant=True)
StatusT_co = TypeVar("StatusT_co", bound=BaseModel, default=ConditionedStatus, covariant=True)


class InvalidObject(ReconcilerError, ValueError):
    """A document that does not fit its model. The message has the object, the fields and the reasons, but no values.

    Attributes:
        problems: (path, message), in the order of the document.
    """

    def __init__(self, subject: str, problems: Sequence[tuple[str, str]]) -> None:
        self.problems = tuple(problems)
        super().__init__(f"{subject}: " + "; ".join(f"{path}: {text}" for path, text in problems))


class Resource(Generic[SpecT_co, StatusT_co]):
    """An object of your own kind; subclass it with the models of its spec and status.

    ::

        class Database(Resource[DatabaseSpec, DatabaseStatus], group="example.com", version="v1", short_names=("db",)):
            \"\"\"A database (becomes the description in the CRD).\"\"\"

    The models are subclasses of `Model`, or plain pydantic models whose field names are then the wire names. The status
    model can be omitted (`ConditionedStatus`). It must be constructible without arguments, since a new object has no
    status.

    Class keywords:
        group: the API group, a domain with a dot.
        version: such as ``"v1"`` or ``"v1alpha1"``.
        kind: defaults to the class's name.
        plural: the name in paths; defaults to the kind in lower case with s, es or ies.
        singular: defaults to the kind in lower case.
        scope: ``"Namespaced"`` (default) or ``"Cluster"``.
        short_names: for ``kubectl get``.
        categories: groups of kinds for ``kubectl get``, such as ``"all"``.
        printer_columns: columns of ``kubectl get``; after them come those of `ConditionedStatus`: Ready, Reason, Age.
        selectable_fields: JSONPaths that field selectors may use (``".spec.color"``), at most eight.
        rules: CEL rules on the whole object; see `rule`.
        scale: the paths of the scale subresource, for ``kubectl scale`` and HorizontalPodAutoscalers; see `Scale`.
        deprecated: True, or the warning that clients of this version get. Default False.
        storage: whether this version is the stored one (default). Exactly one version of a kind is.
        served: whether the API serves this version (default).

    Attributes:
        metadata: name, namespace, labels and the rest.
        spec: the desired state.
        status: the observed state; never None. An object without a status reads as the model's defaults.
        problems: (path, message) of each field that does not fit its model; empty unless the object was read leniently
            (`from_dict`). A part with such a field is read-only: `to_dict` returns it as it was read.
        gvk: the kind.
        resource_type: how the kind is served.

    Raises:
        TypeError: at the class line, if a keyword is unknown, or a name or a model is invalid; in the constructor, if a
            part is not an instance of its model.
        SchemaError: at the class line (a TypeError, too), if a path of a column, of a selectable field or of `scale` is
            not in the models.
    """

    gvk: ClassVar[GroupVersionKind]
    resource_type: ClassVar[ResourceType]
    spec_model: ClassVar[type[BaseModel]]
    status_model: ClassVar[type[BaseModel]]
    definition: ClassVar[Definition]

    metadata: ObjectMeta
    spec: SpecT_co
    status: StatusT_co
    problems: Sequence[tuple[str, str]] = ()
    _document: Mapping[str, Any] | None
    _head: ClassVar[Mapping[str, str]]  # apiVersion and kind, as every document begins

    def __init_subclass__(
        cls,
        *,
        group: str,
        version: str,
        kind: str | None = None,
        plural: str | None = None,
        singular: str | None = None,
        scope: Scope = "Namespaced",
        short_names: Sequence[str] = (),
        categories: Sequence[str] = (),
        printer_columns: Sequence[PrinterColumn] = (),
        selectable_fields: Sequence[str] = (),
        rules: Sequence[CELRule] = (),
        scale: Scale | None = None,
        status_subresource: bool = True,
        deprecated: bool | str = False,
        storage: bool = True,
        served: bool = True,
        **unknown: Never,
    ) -> None:
        super().__init_subclass__()
        if unknown:
            known = [
                name for name, p in signature(Resource.__init_subclass__).parameters.items() if p.kind is p.KEYWORD_ONLY
            ]
            raise TypeError(f"{cls.__name__}: unknown class keyword {', '.join(unknown)}; known are {', '.join(known)}")
        kind = kind or cls.__name__
        plural = plural or plural_of(kind)
        singular = singular or kind.lower()
        short_names = string_tuple(cls.__name__, "short_names", short_names)
        categories = string_tuple(cls.__name__, "categories", categories)
        columns = typed_tuple(
            cls.__name__, "printer_columns", printer_columns, PrinterColumn, "PrinterColumn('Phase', '.status.phase')"
        )
        if scale is not None and not isinstance(scale, Scale):
            raise TypeError(f"{cls.__name__}: scale must be a Scale, not {scale!r}: write scale=Scale()")
        names = {"group": [group], "version": [version], "kind": [kind], "plural": [plural], "singular": [singular]}
        check_names(cls.__name__, {**names, "short_names": short_names, "categories": categories})
        if scope not in get_args(Scope):
            raise TypeError(f"{cls.__name__}: scope={scope!r} must be 'Namespaced' or 'Cluster'")
        cls.spec_model, cls.status_model = models_of(cls, Resource)
        cls.gvk = GroupVersionKind(group, version, kind)
        cls._head = {"apiVersion": cls.gvk.api_version, "kind": kind}
        subresources = frozenset(["status"] * status_subresource + ["scale"] * (scale is not None))
        cls.resource_type = ResourceType(
            cls.gvk, plural, scope == "Namespaced", subresources, singular, tuple(short_names)
        )
        cls.definition = Definition(
            singular=singular,
            short_names=short_names,
            categories=categories,
            own_columns=columns,
            printer_columns=columns_of(columns, cls.status_model),
            selectable_fields=string_tuple(cls.__name__, "selectable_fields", selectable_fields),
            rules=typed_tuple(cls.__name__, "rules", rules, CELRule, "rule('self.spec.size > 0')"),
            scale=scale,
            deprecated=check_deprecated(cls.__name__, deprecated),
            storage=storage,
            served=served,
            description=cls.__dict__.get("__doc__") or "",
        )
        check_paths(cls)

    def __init__(self, *, metadata: ObjectMeta, spec: SpecT_co, status: StatusT_co | None = None) -> None:
        _check_part(self, "metadata", metadata, ObjectMeta)
        _check_part(self, "spec", spec, self.spec_model)
        self.metadata = metadata
        self.spec = spec
        if status is None:
            self.status = cast("StatusT_co", self.status_model())
        else:
            _check_part(self, "status", status, self.status_model)
            self.status = status
        self._document = None

    @classmethod
    def from_dict(cls, document: Mapping[str, Any], *, lenient: bool = False) -> Self:
        """Read an object from its document, which is kept and must not be changed afterwards.

        Args:
            document: the object as the API serves it.
            lenient: accept an object that does not fit its models, for code that must handle it anyway, such as a
                finalizer. Valid fields are typed, invalid ones are as in the document, missing ones are None, and
                `problems` names them. Default False.

        Raises:
            InvalidObject: the object is of another kind, or a field does not fit its model and `lenient` is False.
        """
        document = _checked(cls, document)
        problems: list[tuple[str, str]] = []
        obj = cls.__new__(cls)
        obj.metadata = _read(document, "metadata", ObjectMeta, problems)
        obj.spec = _read(document, "spec", cls.spec_model, problems)
        obj.status = _read(document, "status", cls.status_model, problems)
        if problems and not lenient:
            raise InvalidObject(f"{cls.gvk.kind} {_object_name(document)} does not fit its model", problems)
        if problems:
            obj.problems = tuple(problems)
        obj._document = document  # noqa: SLF001 - its own
        return obj

    @classmethod
    def from_valid(cls, document: JSONObject) -> Self:
        """Read an object whose document fitted its models before; each part is read when it is used.

        Args:
            document: the object; kept, and must not be changed afterwards. A list item, which lacks apiVersion and
                kind, is copied.
        """
        obj = cls.__new__(cls)
        complete = "kind" in document and "apiVersion" in document
        obj._document = document if complete else {**cls._head, **document}  # noqa: SLF001 - its own
        return obj

    if not TYPE_CHECKING:  # otherwise every attribute would exist for type checkers

        def __getattr__(self, name: str) -> Any:
            """Read a part of an object that was made by `from_valid`."""
            document = self.__dict__.get("_document")
            if document is None or name not in _PARTS:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            problems: list[tuple[str, str]] = []
            model = ObjectMeta if name == "metadata" else getattr(type(self), f"{name}_model")
            part = self.__dict__[name] = _read(document, name, model, problems)
            if problems:  # a validator of the user that does not always say the same
                self.problems = (*self.problems, *problems)
            return part

    def to_dict(self) -> JSONObject:
        """Return the object as a document, a private copy.

        It is the document that the object was read from, with later changes applied: fields unknown to the models are
        kept, a field set to None is removed, a status that was never set is absent.
        """
        document = self._document if self._document is not None else {}
        result = {key: copy_json(value) for key, value in document.items() if key not in _PARTS}
        result = {**self._head, **{key: value for key, value in result.items() if key not in self._head}}
        result["metadata"] = self._part("metadata", ObjectMeta, exclude_defaults=True)
        if self._document is None:
            result["spec"] = _dump(self.spec)
        elif (spec := self._part("spec", self.spec_model)) or "spec" in document:
            result["spec"] = spec
        if (status := self._part("status", self.status_model)) or "status" in document:
            result["status"] = status
        return result

    def copy(self) -> Self:
        """Return a copy; a change of one does not change the other. It is the base that `Client.patch_from` needs."""
        return copy.deepcopy(self)

    def _part(self, part: str, model: type[BaseModel], *, exclude_defaults: bool = False) -> Any:
        """Return a part as sent to the server; a part that does not fit its model as it was read."""
        read = (self._document or {}).get(part)
        if part not in self.__dict__ or any(
            path.partition(".")[0].partition("[")[0] == part for path, _ in self.problems
        ):
            return copy_json(read)
        return _updated_document(read, getattr(self, part), model, exclude_defaults=exclude_defaults)

    @classmethod
    def crd(cls) -> JSONObject:
        """Return the kind's CustomResourceDefinition as a document.

        Raises:
            SchemaError: a model has a field whose type the API cannot express.
        """
        return generate_crd(cls)

    @property
    def name(self) -> str:
        """Return the object's name."""
        return self.metadata.name if "metadata" in self.__dict__ else self.key.name

    @property
    def namespace(self) -> str | None:
        """Return its namespace; None for a cluster-scoped object."""
        return self.metadata.namespace if "metadata" in self.__dict__ else self.key.namespace

    @property
    def uid(self) -> str:
        """Return its uid; ``""`` before it was stored."""
        return self.metadata.uid

    @property
    def resource_version(self) -> str:
        """Return its version; ``""`` before it was stored."""
        return self.metadata.resource_version

    @property
    def generation(self) -> int | None:
        """Return the generation of its desired state; None before it was stored."""
        return self.metadata.generation

    @property
    def labels(self) -> Mapping[str, str]:
        """Return its labels."""
        return self.metadata.labels

    @property
    def annotations(self) -> Mapping[str, str]:
        """Return its annotations."""
        return self.metadata.annotations

    @property
    def key(self) -> Request:
        """Return its name and namespace: the key in a queue."""
        if self._document is not None and "metadata" not in self.__dict__:
            return request_of(self._document)
        return Request(self.metadata.name, self.metadata.namespace)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Resource) or type(self) is not type(other):
            return NotImplemented
        return self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.key}>"


AnyResource = Resource[Any, Any]
"""A Resource with any spec and status, for annotations."""

_PARTS = frozenset({"metadata", "spec", "status"})


def _read(document: Mapping[str, Any], part: str, model: type[BaseModel], problems: list[tuple[str, str]]) -> Any:
    """Read a part of a document as its model; if it does not fit, read it leniently and add its problems."""
    data = document.get(part)
    if data is None:
        data = {}
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems += [
            (_field_path(part, problem["loc"]), wire_message(problem["msg"]))
            for problem in error.errors(include_url=False, include_context=False, include_input=False)
        ]
    except Exception as error:  # noqa: BLE001 - a user's validator may raise anything
        problems.append((part, f"a validator of {model.__name__} raised {type(error).__name__}"))
    return read_leniently(model, data)


def _field_path(part: str, location: tuple[int | str, ...]) -> str:
    return part + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location)


def _dump(model: BaseModel, *, exclude_defaults: bool = False) -> JSONObject:
    return model.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=exclude_defaults)


def _updated_document(
    document: Mapping[str, Any] | None, model: BaseModel, model_type: type[BaseModel], *, exclude_defaults: bool = False
) -> JSONObject:
    # The document is parsed again here, so that reading an object, which is far more frequent, costs no second dump.
    document = document or {}
    before = _dump(model_type.model_validate(document), exclude_defaults=exclude_defaults)
    result: JSONObject = merge_changes(document, before, _dump(model, exclude_defaults=exclude_defaults))
    return result


def _checked(cls: type[AnyResource], document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Check that a document is of the kind of a class; return it with apiVersion and kind, which list items lack."""
    api_version, kind, head = document.get("apiVersion"), document.get("kind"), cls._head
    if (api_version or head["apiVersion"], kind or head["kind"]) != (head["apiVersion"], head["kind"]):
        raise InvalidObject(
            f"{_object_name(document)} cannot be read as {cls.__name__}",
            [("apiVersion, kind", f"{api_version}/{kind}, not {cls.gvk}")],
        )
    return document if api_version and kind else {**document, **head}


def _object_name(document: Mapping[str, Any]) -> str:
    """Return namespace and name of a document, for an error message."""
    return str(Request(name_of(document), namespace_of(document)))


def _check_part(obj: AnyResource, part: str, value: object, model: type[BaseModel]) -> None:
    if not isinstance(value, model):
        kind = type(obj).__name__
        raise TypeError(
            f"{part} of {kind} must be a {model.__name__}, not {type(value).__name__}; {kind}.from_dict reads documents"
        )


def merge_changes(document: Any, before: Any, after: Any) -> Any:
    """Return a copy of `document` with the changes from `before` to `after`.

    What did not change keeps its form in the document: a number stays as it was written, an omitted default stays
    omitted. A member in `before` but not in `after` is removed; one that is only in `document` was never the model's
    and is kept. In lists, an unchanged item keeps its document wherever it moved to. If no item was moved, added or
    removed, changed items are paired by position.

    Args:
        document: what was read.
        before: the model's form of `document`: without fields that it does not know, with its defaults.
        after: the model's current form.
    """
    if equal(before, after):
        return copy_json(document)
    if isinstance(after, Mapping) and isinstance(before, Mapping) and isinstance(document, Mapping):
        return _merge_object(document, before, after)
    if isinstance(after, list) and isinstance(before, list) and isinstance(document, list):
        return _merge_list(document, before, after)
    return copy_json(after)


def _merge_object(document: Mapping[str, Any], before: Mapping[str, Any], after: Mapping[str, Any]) -> JSONObject:
    result = {key: copy_json(value) for key, value in document.items() if key in after or key not in before}
    for key, value in after.items():
        if not equal(before.get(key), value):
            result[key] = merge_changes(document.get(key), before.get(key), value)
    return result


def _merge_list(document: list[Any], before: list[Any], after: list[Any]) -> list[Any]:
    if len(document) != len(before):
        return [copy_json(item) for item in after]
    origin = _origins(before, after)
    in_place = len(before) == len(after) and all(position == index for position, index in origin.items())
    result: list[Any] = []
    for position, item in enumerate(after):
        index = origin.get(position)
        if index is not None:
            result.append(copy_json(document[index]))
        elif in_place:
            result.append(merge_changes(document[position], before[position], item))
        else:
            result.append(copy_json(item))
    return result


def _origins(before: list[Any], after: list[Any]) -> dict[int, int]:
    """Return, for each position of `after` whose item was in `before`, its earlier position; each is used once."""
    origin = {at: at for at, (old, new) in enumerate(zip(before, after, strict=False)) if equal(old, new)}
    free = [index for index in range(len(before)) if index not in origin]
    for position in range(len(after)):
        if position not in origin:
            index = next((index for index in free if equal(before[index], after[position])), None)
            if index is not None:
                origin[position] = index
                free.remove(index)
    return origin
