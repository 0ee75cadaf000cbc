"""Validation of values by a structural schema, with the error messages of kube-apiserver.

jsonschema-rs validates; a `Translator` turns its errors into the messages that users see through ``kubectl``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from reconciler.apiserver.encoding.refusals import FieldError
from reconciler.apiserver.encoding.text import quoted
from reconciler.apiserver.schema.formats import FORMATS, INTEGER_RANGES
from reconciler.apiserver.schema.messages import WRITTEN_PATTERN, Finding, Translator, path_of
from reconciler.apiserver.schema.patterns import ecma_pattern
from reconciler.apiserver.schema.shape import NO_DEFAULT, Node
from reconciler.errors import MissingExtra
from reconciler.wire import JSONObject

__all__ = ["SchemaValidator", "duplicates", "item_key", "untouched"]

_KEPT = (
    "enum",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "pattern",
    "required",
)


class SchemaValidator:
    """A validator of values by one schema.

    Raises:
        MissingExtra: jsonschema-rs is not installed.
        ValueError: the schema cannot be compiled, for example because a pattern is not a regular expression.
    """

    def __init__(self, schema: JSONObject) -> None:
        try:
            import jsonschema_rs
        except ModuleNotFoundError as error:
            purpose = "the embedded API server's validation of custom resources"
            raise MissingExtra("jsonschema_rs", extra="apiserver", purpose=purpose) from error
        self._schema = _plain_schema(schema)
        try:
            self._validator = jsonschema_rs.Draft4Validator(
                self._schema, formats=FORMATS, validate_formats=True, ignore_unknown_formats=True
            )
        except jsonschema_rs.ValidationError as error:
            raise ValueError(f"the embedded API server cannot compile this schema: {error.message}") from None

    def findings(self, value: Any, root: str = "") -> list[Finding]:
        """Return the errors of a value.

        Their fields begin with `root`, the path of the value in the object; the messages do not, as in the real server.
        """
        if self._validator.is_valid(value):
            return []
        return list(Translator(self._schema, root).findings(self._validator.iter_errors(value)))


def _plain_schema(schema: JSONObject) -> JSONObject:
    """Return a schema in JSON Schema draft 4, without the keywords of Kubernetes."""
    plain = _kept(schema)
    kind = schema.get("type")
    types = ["integer", "string"] if schema.get("x-kubernetes-int-or-string") else [kind] if kind else []
    form = schema.get("format")
    if kind == "string" and form in FORMATS:
        # The real server leaves the check of lists to the format, which checks only strings.
        types = [*types, "array"]
    if types:
        plain["type"] = [*types, "null"] if schema.get("nullable") else types
    if form in FORMATS or form in INTEGER_RANGES or form in ("float", "double"):
        plain["format"] = form
    for key in ("allOf", "anyOf", "oneOf"):
        if schema.get(key):
            plain[key] = [_plain_schema(part) for part in schema[key]]
    if form in INTEGER_RANGES and kind in ("integer", "number"):
        low, high = INTEGER_RANGES[form]
        plain.setdefault("allOf", []).append({"minimum": low, "maximum": high})
    if schema.get("not"):
        plain["not"] = _plain_schema(schema["not"])
    if schema.get("properties"):
        plain["properties"] = {key: _plain_schema(part) for key, part in schema["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            plain[key] = _plain_schema(schema[key])
    if schema.get("x-kubernetes-embedded-resource"):
        plain["required"] = [*plain.get("required", ()), "apiVersion", "kind"]
    return plain


def _kept(schema: JSONObject) -> JSONObject:
    """Return the keywords that have the same meaning in JSON Schema."""
    plain = {key: schema[key] for key in _KEPT if key in schema and _is_usable(key, schema[key])}
    if "pattern" in plain:
        plain |= {"pattern": ecma_pattern(schema["pattern"]), WRITTEN_PATTERN: schema["pattern"]}
    return plain


def _is_usable(keyword: str, value: Any) -> bool:
    """Return whether a bound can be compiled; the real server accepts the others and ignores them."""
    if keyword == "multipleOf":
        return bool(value > 0)
    return not keyword.startswith(("max", "min")) or keyword in ("maximum", "minimum") or value >= 0


def duplicates(value: Any, node: Node, path: tuple[str | int, ...] = ()) -> Iterator[Finding]:
    """Yield an error for each duplicate item in lists of type set or map."""
    if not node.has_checks:
        return
    if isinstance(value, dict):
        for key, member in value.items():
            child = node.child(key)
            if child is not None:
                yield from duplicates(member, child, (*path, key))
    elif isinstance(value, list):
        if node.list_type in ("set", "map"):
            yield from _duplicate_items(value, node, path)
        if node.items is not None:
            for index, item in enumerate(value):
                yield from duplicates(item, node.items, (*path, index))


def _duplicate_items(items: list[Any], node: Node, path: tuple[str | int, ...]) -> Iterator[Finding]:
    seen: dict[str, int] = {}
    for index, item in enumerate(items):
        key = item_key(item, node)
        shown = quoted(key)
        seen[shown] = seen.get(shown, 0) + 1
        if seen[shown] == 2:
            yield Finding(path, FieldError.duplicate(f"{path_of(path)}[{index}]", key))


def item_key(item: Any, node: Node) -> Any:
    """Return what identifies an item in a list of type set or map."""
    if node.list_type != "map" or not isinstance(item, dict):
        return item
    found = {}
    for key in node.map_keys:
        if key in item:
            found[key] = item[key]
        else:
            child = None if node.items is None else node.items.properties.get(key)
            if child is not None and child.default is not NO_DEFAULT:
                found[key] = child.default
    return found


def untouched(path: Sequence[str | int], after: Any, before: Any, node: Node | None) -> bool:
    """Return whether an update left the value at a path unchanged, so that its errors are ignored.

    Items of lists are compared only where the list's type identifies them.
    """
    if after == before:
        return True
    if not path or node is None:
        return False
    step, rest = path[0], path[1:]
    if isinstance(after, dict) and isinstance(before, dict) and isinstance(step, str):
        if step not in after or step not in before:
            return False
        return untouched(rest, after[step], before[step], node.child(step))
    if isinstance(after, list) and isinstance(before, list) and isinstance(step, int) and node.list_type == "map":
        wanted = item_key(after[step], node)
        for item in before:
            if item_key(item, node) == wanted:
                return untouched(rest, after[step], item, node.items)
    return False
