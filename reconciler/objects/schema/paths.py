"""JSONPaths of printer columns, selectable fields and the scale subresource, followed through a schema."""

from __future__ import annotations

import re
from difflib import get_close_matches

from reconciler.wire import JSONObject

__all__ = ["InvalidPath", "schema_at"]

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
