"""Checks of models that a structural schema cannot express, unions, and JSONPaths followed through a schema.

The paths are those of printer columns, selectable fields and the scale subresource.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import AliasChoices, BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from reconciler._core import wire
from reconciler._core.wire import JSONObject
from reconciler.errors import ReconcilerError
from reconciler.objects.fields import wire_message


class SchemaError(ReconcilerError, TypeError):
    """A field that the API cannot express; the message has ``Model.field``, the reason, and what to write instead."""


def refusal(where: str, what: str, instead: str) -> SchemaError:
    """Return the error for a field: where it is, what is wrong, and what to write instead."""
    return SchemaError(f"{where} {what}: {instead}")


recorded = functools.partial(wire.recorded, "reconciler.objects")
"""Returns the content of a JSON file beside this module; it must not be changed."""


_STEP = re.compile(
    r"\.(?P<name>(?:\\.|[^.\[\]\\])+)"
    r"|\['(?P<quoted>(?:\\.|[^'\\])+)'\]"
    r"|(?P<items>\[(?:-?\d+|\*|\?\(.*?\)|-?\d*:-?\d*(?::\d+)?)\])"
)


class InvalidPath(ValueError):
    """A path that leads to no field; the message has the step that fails."""


def schema_at(schema: JSONObject, path: str) -> JSONObject:
    """Return the schema of the field that a path names, such as ``.spec.ports[0].number``.

    Below a field of any type it is empty, since every path exists there.

    Raises:
        InvalidPath: the path is malformed, or names a field that the schema does not have.
    """
    if not path.startswith("."):
        raise InvalidPath(f"{path!r} is not a JSONPath: it starts with a dot, like '.status.phase'")
    at = 0
    while at < len(path):
        step = _STEP.match(path, at)
        if step is None:
            raise InvalidPath(f"{path!r} is not a JSONPath: {path[at:]!r} is not a name or an index")
        schema = _items(schema, path[:at]) if step["items"] else _member(schema, _name(step), path[:at])
        at = step.end()
    return schema


def _name(step: re.Match[str]) -> str:
    return re.sub(r"\\(.)", r"\1", step["name"] or step["quoted"])


def _is_open(schema: JSONObject) -> bool:
    return not schema or bool(schema.get("x-kubernetes-preserve-unknown-fields"))


def _items(schema: JSONObject, path: str) -> JSONObject:
    if "items" in schema:
        items: JSONObject = schema["items"]
        return items
    if _is_open(schema) or "additionalProperties" in schema:
        return schema.get("additionalProperties") or {}
    raise InvalidPath(f"{path} is not a list")


def _member(schema: JSONObject, name: str, path: str) -> JSONObject:
    properties = schema.get("properties") or {}
    if name in properties:
        found: JSONObject = properties[name]
        return found
    if "additionalProperties" in schema:
        return schema["additionalProperties"] or {}
    if _is_open(schema):
        return {}
    if schema.get("type") == "array":
        raise InvalidPath(f"{path} is a list: write {path}[0].{name} or {path}[*].{name}")
    if not properties:
        raise InvalidPath(f"{path} has no fields, and so no {name!r}")
    near = get_close_matches(name, properties, n=1)
    hint = f"did you mean {path}.{near[0]}?" if near else f"its fields are {', '.join(properties)}"
    raise InvalidPath(f"{path or 'the object'} has no field {name!r}: {hint}")


_SCALARS = frozenset({"string", "integer", "number", "boolean"})
_RULES = "x-kubernetes-validations"
_CEL_WORDS = re.compile(
    "true|false|null|in|as|break|const|continue|else|for|function|if|import|let|loop|package|namespace|return|var|void|"
    "while"
)


def scalar_union(parts: list[JSONObject]) -> JSONObject | None:
    """Return the union of scalars of one type, or of integers and numbers; None if the parts are something else."""
    types = {part.get("type") for part in parts}
    if types == {"integer", "number"}:
        parts = [{**part, "type": "number", "format": "double"} for part in parts]
        types = {"number"}
    if len(types) != 1 or not types <= _SCALARS or any(key.startswith("x-") for part in parts for key in part):
        return None
    if all("enum" in part for part in parts):
        values = dict.fromkeys(value for part in parts for value in part["enum"])
        return {"type": parts[0]["type"], "enum": list(values)}
    constraints: list[JSONObject] = []
    for part in parts:
        constraint = {key: value for key, value in part.items() if key not in {"type", "description", "default"}}
        if constraint not in constraints:
            constraints.append(constraint)
    kind = {"type": parts[0]["type"]}
    if {} in constraints:
        return kind
    return kind | (constraints[0] if len(constraints) == 1 else {"anyOf": constraints})


def discriminated_union(tag: str, variants: Mapping[str, JSONObject], where: str) -> JSONObject:
    """Return one object with the fields of all variants, and CEL rules that admit only those of the variant in use.

    A default stays only if all variants have it: the server would add it to each of them.

    Args:
        tag: the wire name of the discriminator.
        variants: the schemas, by the value of the discriminator.
        where: the field, for errors.

    Raises:
        SchemaError: two variants have a field of one name and different types.
    """
    properties: JSONObject = {}
    for value, variant in variants.items():
        for name, schema in variant.get("properties", {}).items():
            known = properties.setdefault(name, schema)
            if name != tag and _without_default(known) != _without_default(schema):
                raise refusal(
                    where,
                    f"is a union whose models have different fields {name!r} ({value} and another)",
                    "give them different names, or the same type, constraints and description",
                )
    every = [variant.get("properties", {}) for variant in variants.values()]
    shared = {name: schema for name, schema in properties.items() if all(schema == each.get(name) for each in every)}
    properties = {name: shared.get(name) or _without_default(schema) for name, schema in properties.items()}
    properties[tag] = {"type": "string", "enum": list(variants)}
    required = [
        name
        for name in properties
        if name == tag or all(name in variant.get("required", ()) for variant in variants.values())
    ]
    rules: list[JSONObject] = []
    for value, variant in variants.items():
        rules += _rules(tag, value, variant, properties, required)
    return {"type": "object", "properties": properties, "required": required, _RULES: rules}


def _without_default(schema: JSONObject) -> JSONObject:
    return {key: value for key, value in schema.items() if key != "default"}


def _rules(tag: str, value: str, variant: JSONObject, properties: JSONObject, required: list[str]) -> list[JSONObject]:
    other = f"self.{cel_name(tag)} != {json.dumps(value)}"
    own = variant.get("properties", {})
    needed = [name for name in variant.get("required", ()) if name not in required]
    foreign = [name for name in properties if name not in own]
    named = {name: cel_name(name) for name in (*needed, *foreign)}
    rules: list[JSONObject] = [
        *({"rule": f"{other} || has(self.{named[key]})", "message": f"{tag} {value} needs {key}"} for key in needed),
        *({"rule": f"{other} || !has(self.{named[key]})", "message": f"{tag} {value} has no {key}"} for key in foreign),
    ]
    for rule in variant.get(_RULES, ()):
        before = f" || oldSelf.{cel_name(tag)} != {json.dumps(value)}" if _is_transition(rule) else ""
        rules.append({**rule, "rule": f"{other}{before} || ({rule['rule']})"} | _message(rule))
    return rules


def _is_transition(rule: JSONObject) -> bool:
    return "oldSelf" in str(rule["rule"]) and not rule.get("optionalOldSelf")


def _message(rule: JSONObject) -> JSONObject:
    """Return the message of a rule that had none: the server's default would be the rule with its new condition."""
    return {} if "message" in rule or "messageExpression" in rule else {"message": f"failed rule: {rule['rule']}"}


def cel_name(name: str) -> str:
    """Return a property's name as CEL expressions write it."""
    if _CEL_WORDS.fullmatch(name):
        return f"__{name}__"
    name = name.replace("__", "__underscores__").replace(".", "__dot__")
    return name.replace("-", "__dash__").replace("/", "__slash__")


_INT64 = 2**63
_TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
}
_ZONE = re.compile(r"(?:Z|[+-]\d\d:\d\d)$")


def check_models(model: type[BaseModel]) -> None:
    """Check a model and those in its fields.

    Raises:
        SchemaError: two fields have one wire name, a field is read and written under different names, a computed field
            would be written, or a default does not fit its own field.
    """
    for each in _reachable(model, {}):
        taken: dict[str, str] = {}
        for name, field in each.model_fields.items():
            wire, where = _wire_name(each, name, field), f"{each.__name__}.{name}"
            if wire in taken:
                raise refusal(where, f"has the wire name {wire!r} of {taken[wire]}", "set another alias=")
            taken[wire] = name
            _check_field_default(each, name, field)
        for name in each.model_computed_fields:
            raise refusal(
                f"{each.__name__}.{name}", "is a computed field, which the server would remove", "make it a property"
            )


def _reachable(model: type[BaseModel], seen: dict[type[BaseModel], None]) -> Iterator[type[BaseModel]]:
    if model in seen:
        return
    seen[model] = None
    yield model
    for field in model.model_fields.values():
        for part in _models(field.annotation):
            yield from _reachable(part, seen)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _wire_name(model: type[BaseModel], name: str, field: FieldInfo) -> str:
    written = field.serialization_alias or field.alias or name
    read = field.validation_alias or field.alias or name
    names = read.choices if isinstance(read, AliasChoices) else [read]
    if names[0] != written:
        raise refusal(
            f"{model.__name__}.{name}",
            f"is read as {names[0]!r} and written as {written!r}",
            "a field has one wire name: set alias= instead of validation_alias= or serialization_alias=",
        )
    return written


def _check_field_default(model: type[BaseModel], name: str, field: FieldInfo) -> None:
    default = field.default
    if default is PydanticUndefined or default is None:
        return
    try:
        model.__pydantic_validator__.validate_assignment(model.model_construct(), name, default)
    except ValidationError as error:
        own = {name, _wire_name(model, name, field)}
        for problem in error.errors(include_url=False, include_context=False):
            if problem["loc"] and problem["loc"][0] in own and not problem["type"].startswith("frozen"):
                what = wire_message(problem["msg"][:1].lower() + problem["msg"][1:])
                raise refusal(
                    f"{model.__name__}.{name}", f"has a default that does not fit ({what})", "change one of them"
                ) from None
    except Exception:  # noqa: BLE001 - a user's validator of the whole model sees only defaults here
        return


def check_default(where: str, default: Any) -> None:
    """Raise SchemaError for a default with a number that JSON or int64 does not have."""
    if isinstance(default, float) and not math.isfinite(default):
        raise refusal(where, f"has the default {default}, which JSON cannot express", "set a finite default, or None")
    if isinstance(default, int) and not -_INT64 <= default < _INT64:
        raise refusal(where, "has a default beyond 64 bits, which the server cannot read", "use a string")
    for value in default.values() if isinstance(default, dict) else default if isinstance(default, list) else ():
        check_default(where, value)


def check_default_type(where: str, schema: JSONObject) -> None:
    """Raise SchemaError for a default whose wire form is not of the schema's type, or has no time zone."""
    default, kind = schema.get("default"), schema.get("type")
    if default is None or kind not in _TYPES:
        return
    if not isinstance(default, _TYPES[kind]) or (isinstance(default, bool) and kind != "boolean"):
        raise refusal(
            where,
            f"has the type {kind}, and a default that is written as {type(default).__name__}",
            "add pydantic.WithJsonSchema with the type that its serializer writes",
        )
    if schema.get("format") == "date-time" and not _ZONE.search(str(default)):
        raise refusal(where, "has a default without a time zone", "write datetime(…, tzinfo=UTC), use AwareDatetime")


# An escape, a bracket expression, the start of a group, a possessive quantifier; what is not named is not looked at.
_REGEX_PART = re.compile(
    r"\\(?P<escape>.)|\[\^?\]?(?:\[:\^?\w+:\]|\\.|[^\]\\])*\]|\(\?(?P<group>P=|P>|<[=!]|[=!>#(R&]|\d)|(?P<more>[*+?}]\+)",
    re.DOTALL,
)
_GROUPS = {"=": "a lookahead", "!": "a lookahead", "<=": "a lookbehind", "<!": "a lookbehind", ">": "an atomic group"}


def check_pattern(where: str, pattern: str) -> None:
    """Raise SchemaError for a regular expression that is valid in Python, but not in RE2, the server's engine."""
    for part in _REGEX_PART.finditer(pattern):
        what = None
        if part["group"]:
            what = _GROUPS.get(part["group"], f"(?{part['group']}")
        elif part["escape"] and part["escape"] in "123456789":
            what = f"the backreference {part[0]}"
        elif part["escape"] == "Z":
            raise refusal(where, r"has a pattern with \Z, which RE2 calls \z", "end the pattern with $")
        elif part["more"]:
            what = f"the possessive quantifier {part[0]}"
        if what:
            raise refusal(
                where, f"has a pattern with {what}, which RE2, the server's engine, does not support", "use a CEL rule"
            )
