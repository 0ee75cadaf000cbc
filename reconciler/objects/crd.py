"""CustomResourceDefinitions: structural schemas generated from pydantic models.

The API supports less than JSON Schema: no references, no unions except integer-or-string, no constraints on keys; and a
null member equals an absent one. A type that cannot be expressed is rejected with the model and the field; it is never
weakened silently.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from inspect import cleandoc
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from pydantic.errors import PydanticInvalidForJsonSchema

from reconciler.errors import ReconcilerError
from reconciler.meta import without_nulls
from reconciler.objects.model import ConditionedStatus
from reconciler.wire import JSONObject

if TYPE_CHECKING:
    from reconciler.objects.resource import AnyResource

__all__ = ["SchemaError", "generate_crd", "structural_schema"]


def generate_crd(*versions: type[AnyResource]) -> JSONObject:
    """Return the CustomResourceDefinition (apiextensions.k8s.io/v1) of a kind as a document.

    Descriptions come from field descriptions and from the first paragraph of class docstrings.

    Args:
        versions: the classes of the kind, one per version; usually one. Names and scope come from the stored version.

    Raises:
        SchemaError: a field's type cannot be expressed, or the classes are not versions of one kind.
    """
    stored = _stored(versions)
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
            "versions": [_version(cls) for cls in versions],
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


def _version(cls: type[AnyResource]) -> JSONObject:
    schema = _object_schema(cls)
    definition = cls.definition
    version: JSONObject = {
        "name": cls.gvk.version,
        "served": definition.served,
        "storage": definition.storage,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
    }
    if definition.printer_columns:
        version["additionalPrinterColumns"] = [
            column.to_dict(_column_type(schema, column.path)) for column in definition.printer_columns
        ]
    if definition.selectable_fields:
        version["selectableFields"] = [{"jsonPath": path} for path in definition.selectable_fields]
    return version


def _object_schema(cls: type[AnyResource]) -> JSONObject:
    spec = structural_schema(cls.spec_model)
    if not spec.get("required"):
        # The server does not apply defaults inside an absent object.
        spec.setdefault("default", {})
    schema: JSONObject = {"type": "object"}
    if description := _first_paragraph(cls.definition.description):
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


def _with_short_description(schema: Mapping[str, Any]) -> JSONObject:
    """Return a class's schema with the first paragraph of its docstring as description."""
    result = dict(schema)
    description = _first_paragraph(str(result.pop("description", "")))
    return result | {"description": description} if description else result


def _first_paragraph(docstring: str) -> str:
    """Return the first paragraph of a docstring, without the sections that follow it."""
    return _PARAGRAPH_END.split(cleandoc(docstring), maxsplit=1)[0].rstrip()


def _column_type(schema: JSONObject, path: str) -> str:
    """Return the type of a column from the schema of its path; string if the path is more than names."""
    if path.startswith(".metadata.") and path.endswith("Timestamp"):
        return "date"
    node: JSONObject = schema
    for name in path.strip(".").split("."):
        node = node.get("properties", {}).get(name, {})
    if node.get("format") == "date-time":
        return "date"
    kind = str(node.get("type", "string"))
    return kind if kind in {"integer", "number", "boolean"} else "string"


def _word_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


_KEPT = _word_set(
    "type format default enum minimum maximum multipleOf minLength maxLength pattern minItems maxItems "
    "minProperties maxProperties example externalDocs"
)
_IGNORED = _word_set("title examples deprecated readOnly contentMediaType contentEncoding $comment")
_HANDLED = _word_set(
    "$defs $ref allOf anyOf const description properties required items additionalProperties uniqueItems "
    "exclusiveMinimum exclusiveMaximum"
)
_KNOWN = _KEPT | _IGNORED | _HANDLED
# The formats that apiextensions checks; others make the server warn. "duration" is missing: pydantic writes ISO 8601,
# and the API expects Go's format.
_FORMATS = _word_set(
    "bsonobjectid byte cidr creditcard date date-time datetime double email float hexcolor hostname int32 int64 ipv4 "
    "ipv6 isbn isbn10 isbn13 mac password rgbcolor ssn uri uuid uuid3 uuid4 uuid5"
)
_NULL = {"type": "null"}
_PARAGRAPH_END = re.compile(
    r"\n[ \t]*\n|^(?:Args|Arguments|Attributes|Example|Examples|Note|Notes|Parameters|Raises):[ \t]*$", re.MULTILINE
)


class SchemaError(ReconcilerError, TypeError):
    """A field that the API cannot express; the message has ``Model.field``, the reason, and what to write instead."""


def structural_schema(model: type[BaseModel], *, defaults: bool = True) -> JSONObject:
    """Return the structural schema of a model.

    Args:
        model: its wire names (aliases) become the properties.
        defaults: whether the server applies the model's defaults. Off for ``status``: if the server added to what a
            controller wrote, each write would look foreign.

    Raises:
        SchemaError: a field has a type that the API cannot express.
    """
    try:
        schema = model.model_json_schema(by_alias=True)
    except PydanticInvalidForJsonSchema as error:
        raise SchemaError(f"{model.__name__}: {error}") from error
    converter = _SchemaConverter(schema.get("$defs", {}), defaults=defaults)
    return converter.schema(_with_short_description(schema), model.__name__)


class _SchemaConverter:
    def __init__(self, definitions: Mapping[str, Any], *, defaults: bool) -> None:
        self._definitions = definitions
        self._defaults = defaults
        self._inside: list[str] = []

    def schema(self, source: Mapping[str, Any], where: str) -> JSONObject:
        """Return the structural form of a schema that does not allow null."""
        for composed in (self._reference, self._all_of, self._any_of):
            result = composed(source, where)
            if result is not None:
                return result
        return self._plain(source, where)

    def nullable(self, source: Mapping[str, Any], where: str) -> JSONObject:
        """Return the structural form of an item or a map's value, where null differs from absence."""
        inner, null = _without_null(source)
        result = self.schema(inner, where)
        return result | {"nullable": True} if null else result

    def _reference(self, source: Mapping[str, Any], where: str) -> JSONObject | None:
        if "$ref" not in source:
            return None
        name = str(source["$ref"]).rpartition("/")[2]
        target = _with_short_description(self._definitions[name])
        if name in self._inside:
            raise _refusal(
                where, f"contains {target.get('title', name)} again", "a schema cannot be recursive; use Any or dict"
            )
        self._inside.append(name)
        siblings = {key: value for key, value in source.items() if key not in {"$ref", "$defs"}}
        owner = str(target.get("title", name)) if "properties" in target else where
        result = self.schema({**target, **siblings}, owner)
        self._inside.pop()
        return result

    def _all_of(self, source: Mapping[str, Any], where: str) -> JSONObject | None:
        parts = source.get("allOf")
        if parts is None:
            return None
        if len(parts) != 1:
            raise _refusal(where, "must match several schemas at once", "write one model with all fields")
        siblings = {key: value for key, value in source.items() if key != "allOf"}
        return self.schema({**parts[0], **siblings}, where)

    def _any_of(self, source: Mapping[str, Any], where: str) -> JSONObject | None:
        parts = source.get("anyOf")
        if parts is None:
            return None
        siblings = {key: value for key, value in source.items() if key != "anyOf"}
        if len(parts) == 1:
            return self.schema({**parts[0], **siblings}, where)
        if sorted(str(part.get("type")) for part in parts) == ["integer", "string"]:
            # Bounds of the number and patterns of the string apply only to values of their type.
            return self._int_or_string({**parts[0], **parts[1], **siblings})
        kinds = " | ".join(str(part.get("type") or part.get("$ref", "?")).rpartition("/")[2] for part in parts)
        raise _refusal(where, f"is a union ({kinds})", "only X | None and int | str can be expressed; use Any")

    def _int_or_string(self, source: Mapping[str, Any]) -> JSONObject:
        result = self._common(source)
        _add_bounds(result, source)
        for key in ("type", "format"):
            result.pop(key, None)
        return result | {"x-kubernetes-int-or-string": True}

    def _plain(self, source: Mapping[str, Any], where: str) -> JSONObject:
        self._check_keys(source, where)
        result = self._common(source)
        if "const" in source:
            result["enum"] = [source["const"]]
        _add_type(result, where)
        _add_bounds(result, source)
        kind = result.get("type")
        if kind == "object":
            self._add_members(result, source, where)
        elif kind == "array":
            self._add_items(result, source, where)
        elif kind is None and "x-kubernetes-int-or-string" not in result:
            result["x-kubernetes-preserve-unknown-fields"] = True
        return result

    def _common(self, source: Mapping[str, Any]) -> JSONObject:
        result = {key: value for key, value in source.items() if key in _KEPT or key.startswith("x-kubernetes-")}
        if description := source.get("description"):
            result["description"] = cleandoc(str(description))
        default = without_nulls(result.pop("default", None))
        if self._defaults and default is not None:
            result["default"] = default
        if result.get("format") not in _FORMATS:
            result.pop("format", None)
        return result

    def _check_keys(self, source: Mapping[str, Any], where: str) -> None:
        for key in source:
            if key not in _KNOWN and not key.startswith("x-kubernetes-"):
                raise _refusal(
                    where,
                    f"needs {key!r} of JSON Schema, which the API does not support",
                    _HINTS.get(key, "use another type"),
                )

    def _add_members(self, result: JSONObject, source: Mapping[str, Any], where: str) -> None:
        properties = source.get("properties") or {}
        others = source.get("additionalProperties")
        if properties:
            if isinstance(others, Mapping) and others:
                raise _refusal(where, "has fields and typed extra fields", "move the extra ones into a dict field")
            result["properties"] = {name: self._member(name, item, where) for name, item in properties.items()}
            if required := source.get("required"):
                result["required"] = list(required)
        elif isinstance(others, Mapping) and others:
            result["additionalProperties"] = self.nullable(others, f"{where}[*]")
        elif others is not None and others is not False:
            result["x-kubernetes-preserve-unknown-fields"] = True

    def _member(self, name: str, source: Mapping[str, Any], owner: str) -> JSONObject:
        where = f"{owner}.{name}"
        inner, null = _without_null(source)
        if null and "default" in inner and inner["default"] is None:
            inner = {key: value for key, value in inner.items() if key != "default"}
        elif null:
            raise _refusal(
                where, "may be null without being None by default", "set the default None: null means absent"
            )
        return self.schema(inner, where)

    def _add_items(self, result: JSONObject, source: Mapping[str, Any], where: str) -> None:
        result["items"] = self.nullable(source.get("items") or {}, f"{where}[]")
        scalar = result["items"].get("type") in {"string", "integer", "number", "boolean"}
        if source.get("uniqueItems") and scalar:
            result.setdefault("x-kubernetes-list-type", "set")


_HINTS = {
    "writeOnly": "pydantic serializes a secret as asterisks; refer to a Secret instead",
    "oneOf": "a union of models cannot be expressed; use one model with optional parts",
    "discriminator": "a union of models cannot be expressed; use one model with optional parts",
    "prefixItems": "use a model, or a list of one type",
    "patternProperties": "use dict[str, …], and a rule on the keys",
    "propertyNames": "use dict[str, …], and a rule on the keys",
}


def _without_null(source: Mapping[str, Any]) -> tuple[Mapping[str, Any], bool]:
    """Return a schema without its null alternative, and whether there was one."""
    if "anyOf" in source and _NULL in source["anyOf"]:
        parts = [part for part in source["anyOf"] if part != _NULL]
        return {**source, "anyOf": parts}, True
    if None in (source.get("enum") or ()):
        return {**source, "enum": [value for value in source["enum"] if value is not None]}, True
    return source, False


def _add_type(result: JSONObject, where: str) -> None:
    if "enum" in result and "type" not in result:
        names = {bool: "boolean", str: "string", int: "integer", float: "number"}
        types = {names.get(type(value), "object") for value in result["enum"]}
        if len(types) != 1 or types == {"object"}:
            raise _refusal(
                where, f"takes values of several types ({', '.join(sorted(types))})", "use values of one type"
            )
        result["type"] = types.pop()
    if result.get("type") == "null":
        raise _refusal(where, "can only be null", "remove the field")
    if result.get("type") == "integer":
        result.setdefault("format", "int64")
    elif result.get("type") == "number":
        result.setdefault("format", "double")


def _add_bounds(result: JSONObject, source: Mapping[str, Any]) -> None:
    """Write exclusive bounds as in JSON Schema draft 4: a number and a flag."""
    for exclusive, bound, tighter in (("exclusiveMinimum", "minimum", max), ("exclusiveMaximum", "maximum", min)):
        limit = source.get(exclusive)
        if limit is not None and tighter(limit, result.get(bound, limit)) == limit:
            result[bound] = limit
            result[exclusive] = True


def _refusal(where: str, what: str, instead: str) -> SchemaError:
    return SchemaError(f"{where} {what}: {instead}")
