"""The definition of a kind: the class line of a `Resource`, checked, and the CustomResourceDefinition from it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel

from reconciler._core.wire import JSONObject
from reconciler.objects.markers import CELRule, PrinterColumn, Scale
from reconciler.objects.model import ConditionedStatus, Model
from reconciler.objects.schema import first_paragraph, structural_schema
from reconciler.objects.schema_checks import InvalidPath, SchemaError, recorded, refusal, schema_at

if TYPE_CHECKING:
    from reconciler.objects.resource import AnyResource


Scope = Literal["Namespaced", "Cluster"]

T = TypeVar("T")

API_GROUP = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+")
_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
CAMEL_CASE = re.compile(r"[A-Z][A-Za-z0-9]*")
_LONGEST_LABEL = 63  # of RFC 1035
_LONGEST_WARNING = 256  # of apiextensions


@dataclass(frozen=True, slots=True)
class Definition:
    """A kind's class keywords except its names: the input of its CustomResourceDefinition."""

    singular: str
    short_names: tuple[str, ...]
    categories: tuple[str, ...]
    own_columns: tuple[PrinterColumn, ...]
    printer_columns: tuple[PrinterColumn, ...]
    selectable_fields: tuple[str, ...]
    rules: tuple[CELRule, ...]
    scale: Scale | None
    deprecated: bool | str
    storage: bool
    served: bool
    description: str


def plural_of(kind: str) -> str:
    """Return a kind's plural in lower case, by the rules of English.

    That is s; es after a sibilant; ies for a y after a consonant. Give ``plural=`` where the rules are wrong
    (``Mouse``, or a kind that is already a plural).
    """
    word = kind.lower()
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return word + "es"
    if word.endswith("y") and word[-2:-1] not in ("a", "e", "i", "o", "u", ""):
        return word[:-1] + "ies"
    return word + "s"


def string_tuple(owner: str, keyword: str, values: Sequence[str]) -> tuple[str, ...]:
    """Check that a keyword is a sequence of strings; return it as a tuple.

    Raises:
        TypeError: it is a single string, whose letters would become names.
    """
    if isinstance(values, str):
        raise TypeError(f"{owner}: {keyword} must be a sequence of strings: write ({values!r},)")
    return tuple(values)


def typed_tuple(owner: str, keyword: str, values: Iterable[T], kind: type[T], example: str) -> tuple[T, ...]:
    """Check that a keyword is a sequence of declarations; return it as a tuple.

    Raises:
        TypeError: it is a single one, or contains something else.
    """
    if isinstance(values, (str, kind)) or not isinstance(values, Iterable):
        raise TypeError(f"{owner}: {keyword} must be a sequence: write {keyword}=({example},)")
    result = tuple(values)
    wrong = next((value for value in result if not isinstance(value, kind)), None)
    if wrong is not None:
        raise TypeError(f"{owner}: {keyword} contains {wrong!r}, not a {kind.__name__}: write {example}")
    return result


def columns_of(own: tuple[PrinterColumn, ...], status: type[BaseModel]) -> tuple[PrinterColumn, ...]:
    """Return the columns of a kind: its own, and those of its status model, except those of the same name.

    Ages come last, as in Kubernetes' own kinds.
    """
    taken = {column.name.lower() for column in own}
    brought = [column for column in getattr(status, "printer_columns", ()) if column.name.lower() not in taken]
    return tuple(sorted([*own, *brought], key=lambda column: column in brought and column.type == "date"))


def check_deprecated(owner: str, deprecated: bool | str) -> bool | str:
    """Check the keyword ``deprecated``, and return it.

    Raises:
        TypeError: it is text that the API refuses as a warning.
    """
    if not isinstance(deprecated, (bool, str)):
        raise TypeError(f"{owner}: deprecated must be True or a warning, not {deprecated!r}")
    if isinstance(deprecated, str) and (not 0 < len(deprecated) <= _LONGEST_WARNING or not deprecated.isprintable()):
        raise TypeError(
            f"{owner}: deprecated must be True or a warning in one line of at most {_LONGEST_WARNING} characters"
        )
    return deprecated


_NAMES = {
    "group": (API_GROUP, "a domain in lower case with at least one dot, like 'example.com'"),
    "version": (_LABEL, "a word in lower case, like 'v1' or 'v1alpha1'"),
    "kind": (CAMEL_CASE, "a word in CamelCase, like 'Database'"),
    "plural": (_LABEL, "a word in lower case, like 'databases'"),
    "singular": (_LABEL, "a word in lower case, like 'database'"),
    "short_names": (_LABEL, "words in lower case, like 'db'"),
    "categories": (_LABEL, "words in lower case, like 'all'"),
}
"""The form of each name of a kind, and its description."""


def check_names(owner: str, names: Mapping[str, Sequence[str]]) -> None:
    """Check the names of a kind, by keyword, by the API's rules.

    Raises:
        TypeError: a name is invalid; the message has the class, the keyword and the rule.
    """
    for keyword, (pattern, rule) in _NAMES.items():
        for value in names[keyword]:
            if not pattern.fullmatch(value):
                raise TypeError(f"{owner}: {keyword}={value!r} must be {rule}")
            if keyword != "group" and len(value) > _LONGEST_LABEL:
                raise TypeError(f"{owner}: {keyword}={value!r} must have at most {_LONGEST_LABEL} characters")


def models_of(cls: type, base: type) -> tuple[type[BaseModel], type[BaseModel]]:
    """Return the spec and status models that a subclass of the generic `base` names in its brackets.

    Raises:
        TypeError: one is not a pydantic model, or the status model has a field without a default.
    """
    for written in getattr(cls, "__orig_bases__", ()):
        if get_origin(written) is base:
            spec, status = (*get_args(written), ConditionedStatus)[:2]
            return _model(cls, "spec", spec), _status_model(cls, _model(cls, "status", status))
    return Model, ConditionedStatus


def _model(cls: type, part: str, model: Any) -> type[BaseModel]:
    if model is Any:
        return Model if part == "spec" else ConditionedStatus
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise TypeError(f"{cls.__name__}: {part} must be a pydantic model, a class, not {model!r}")
    return model


def _status_model(cls: type, model: type[BaseModel]) -> type[BaseModel]:
    if required := [name for name, field in model.model_fields.items() if field.is_required()]:
        raise TypeError(
            f"{cls.__name__}: {model.__name__}.{required[0]} needs a default, since a new object has no status"
        )
    return model


_COLUMN_TYPES = ("", "string", "integer", "number", "boolean", "date")
_SELECTABLE = frozenset({"string", "boolean", "integer"})
_MOST_SELECTABLE = 8  # of apiextensions


def generate_crd(*versions: type[AnyResource], conversion: Mapping[str, Any] | None = None) -> JSONObject:
    """Generate the CustomResourceDefinition (apiextensions.k8s.io/v1) of a kind as a document.

    Descriptions come from field descriptions and from the first paragraph of class docstrings.

    Args:
        versions: the classes of the kind, one per version; usually one. Names and scope come from the stored version.
        conversion: ``spec.conversion``, as `reconciler.webhook.conversion_configuration` returns it. Default: the
            versions differ in apiVersion only.

    Raises:
        SchemaError: a field's type cannot be expressed, or the classes are not versions of one kind.
    """
    stored = _stored(versions)
    served = [_version(cls) for cls in versions]
    _check_alike(served, stored)
    resource, definition = stored.resource_type, stored.definition
    names = {
        "plural": resource.plural,
        "singular": definition.singular,
        "kind": resource.gvk.kind,
        "listKind": f"{resource.gvk.kind}List",
        "shortNames": list(definition.short_names),
        "categories": list(definition.categories),
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{resource.plural}.{resource.gvk.group}"},
        "spec": {
            "group": resource.gvk.group,
            "names": {key: value for key, value in names.items() if value},
            "scope": "Namespaced" if resource.namespaced else "Cluster",
            "versions": served,
            **({"conversion": dict(conversion)} if conversion else {}),
        },
    }


def _stored(versions: tuple[type[AnyResource], ...]) -> type[AnyResource]:
    if not versions:
        raise SchemaError("a CustomResourceDefinition needs at least one version: pass the class of a Resource")
    kinds = {(cls.gvk.group, cls.gvk.kind, cls.resource_type.plural, cls.resource_type.namespaced) for cls in versions}
    stored = [cls for cls in versions if cls.definition.storage]
    names = ", ".join(str(cls.gvk) for cls in versions)
    if len(kinds) != 1:
        raise SchemaError(f"{names} are not versions of one kind: group, kind, plural and scope must agree")
    if len(stored) != 1 or len({cls.gvk.version for cls in versions}) != len(versions):
        raise SchemaError(f"{names}: versions must differ, and exactly one has storage=True")
    return stored[0]


def _check_alike(versions: list[JSONObject], stored: type[AnyResource]) -> None:
    """Refuse what the server refuses: versions that share their schema, but not their selectable fields."""
    first = versions[0]
    alike = all(version["schema"] == first["schema"] for version in versions)
    if alike and any(version.get("selectableFields") != first.get("selectableFields") for version in versions):
        raise SchemaError(
            f"{stored.__name__}: its versions have the same schema and different selectable_fields, which the server "
            "refuses: give all of them the same selectable_fields"
        )


def _version(cls: type[AnyResource]) -> JSONObject:
    schema = _object_schema(cls)
    _check_paths(cls, schema)
    definition = cls.definition
    version: JSONObject = {
        "name": cls.gvk.version,
        "served": definition.served,
        "storage": definition.storage,
        "schema": {"openAPIV3Schema": schema},
        "subresources": ({"status": {}} if "status" in cls.resource_type.subresources else {})
        | ({"scale": definition.scale.to_dict()} if definition.scale else {}),
    }
    if definition.deprecated:
        version["deprecated"] = True
        if isinstance(definition.deprecated, str):
            version["deprecationWarning"] = definition.deprecated
    if definition.printer_columns:
        version["additionalPrinterColumns"] = [
            column.to_dict(_column_type(schema, column.path)) for column in definition.printer_columns
        ]
    if definition.selectable_fields:
        version["selectableFields"] = [{"jsonPath": path} for path in definition.selectable_fields]
    return version


def check_paths(cls: type[AnyResource]) -> None:
    """Check that the paths of printer columns, selectable fields and scale name fields of the models.

    Models that refer to classes which are not defined yet are checked by `generate_crd`.

    Raises:
        SchemaError: one names no field, or a field of the wrong type, or a field's type cannot be expressed.
    """
    definition = cls.definition
    declared = definition.own_columns or definition.selectable_fields or definition.scale
    if declared and all(_is_complete(model) for model in (cls.spec_model, cls.status_model)):
        _check_paths(cls, _object_schema(cls))


def _is_complete(model: type[BaseModel]) -> bool:
    return model.__pydantic_complete__ or bool(model.model_rebuild(raise_errors=False))


def _check_paths(cls: type[AnyResource], schema: JSONObject) -> None:
    definition = cls.definition
    for column in definition.printer_columns:
        what = f"{cls.__name__}: printer column {column.name!r}"
        if column.name.startswith(".") and not column.path.startswith("."):
            swapped = f"PrinterColumn({column.path!r}, {column.name!r})"
            raise refusal(what, f"has name and path {column.path!r} swapped", f"write {swapped}")
        if not column.name or (column.type or "") not in _COLUMN_TYPES:
            raise refusal(
                what, f"has no name, or the type {column.type!r}", f"types are {', '.join(_COLUMN_TYPES[1:])}"
            )
        _find(_with_metadata(schema), column.path, what)
    if len(definition.selectable_fields) > _MOST_SELECTABLE:
        raise refusal(f"{cls.__name__}: selectable_fields", "has more than eight paths", "a version has at most eight")
    for path in definition.selectable_fields:
        what = f"{cls.__name__}: selectable field {path!r}"
        found = _find(schema, path, what)
        if found.get("type") not in _SELECTABLE or "[" in path:
            raise refusal(what, "is not a string, a boolean or an integer", "name a field of one of these types")
    if definition.scale is not None:
        _check_scale(cls, schema)


def _check_scale(cls: type[AnyResource], schema: JSONObject) -> None:
    scale = cls.definition.scale.to_dict() if cls.definition.scale else {}
    for key, roots, kind in (
        ("specReplicasPath", (".spec.",), "integer"),
        ("statusReplicasPath", (".status.",), "integer"),
        ("labelSelectorPath", (".spec.", ".status."), "string"),
    ):
        if key in scale:
            what = f"{cls.__name__}: scale path {scale[key]!r}"
            if not scale[key].startswith(roots) or "[" in scale[key]:
                raise refusal(what, f"is not a field below {' or '.join(roots)}", "name one, without an index")
            if _find(schema, scale[key], what).get("type") != kind:
                raise refusal(what, f"is not of type {kind}", f"name a field of type {kind}")


def _find(schema: JSONObject, path: str, what: str) -> JSONObject:
    try:
        return schema_at(schema, path)
    except InvalidPath as error:
        raise SchemaError(f"{what}: {error}") from None


def _with_metadata(schema: JSONObject) -> JSONObject:
    """Return a schema with what a path may name below metadata; that of a CRD says only that it is an object."""
    return schema | {"properties": schema["properties"] | {"metadata": recorded("schemas.json")["metadata"]}}


def _object_schema(cls: type[AnyResource]) -> JSONObject:
    spec = structural_schema(cls.spec_model)
    if not spec.get("required"):
        # The server does not apply defaults inside an absent object, and checks rules on a default as it is written.
        members = spec.get("properties", {}).items() if "x-kubernetes-validations" in spec else ()
        spec.setdefault("default", {name: member["default"] for name, member in members if "default" in member})
    schema: JSONObject = {"type": "object"}
    if description := first_paragraph(cls.definition.description):
        schema["description"] = description
    schema["properties"] = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
        "spec": spec,
        "status": _status_schema(cls),
    }
    if spec.get("required"):
        schema["required"] = ["spec"]
    if cls.definition.rules:
        schema["x-kubernetes-validations"] = [rule.to_dict() for rule in cls.definition.rules]
    return schema


def _status_schema(cls: type[AnyResource]) -> JSONObject:
    """Return the schema of the status, always with observedGeneration and conditions.

    A server prunes fields that the schema does not name, and a controller that records conditions would write them
    again and again.
    """
    status = structural_schema(cls.status_model, defaults=False)
    common = structural_schema(ConditionedStatus, defaults=False)["properties"]
    status["properties"] = common | status.get("properties", {})
    return status


def _column_type(schema: JSONObject, path: str) -> str:
    """Return the type of a column from the schema of its path; string if the type is not a column's."""
    found = schema_at(_with_metadata(schema), path)
    if found.get("format") == "date-time":
        return "date"
    kind = str(found.get("type", "string"))
    return kind if kind in {"integer", "number", "boolean"} else "string"
