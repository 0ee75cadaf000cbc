"""Unions that a structural schema can express: of scalars of one type, and of models with a discriminator."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from reconciler.objects.schema.refusal import refusal
from reconciler.wire import JSONObject

__all__ = ["cel_name", "discriminated_union", "scalar_union"]

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
        return {
            "type": parts[0]["type"],
            "enum": list(dict.fromkeys(value for part in parts for value in part["enum"])),
        }
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
