"""Check values against a structural schema and complain in the API server's words.

jsonschema-rs decides; its findings are put into words here, since they reach users through ``kubectl``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reconciler.apiserver._formats import FORMATS, INTEGER_RANGES
from reconciler.apiserver._schema import NO_DEFAULT, Node
from reconciler.apiserver._status import FieldError
from reconciler.apiserver._text import quoted
from reconciler.errors import MissingExtra

__all__ = ["Finding", "SchemaValidator", "duplicates", "item_key", "plain_schema", "untouched"]

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


@dataclass(frozen=True, slots=True)
class Finding:
    """Hold a complaint and the path of the value that it is about."""

    path: tuple[str | int, ...]
    error: FieldError


class SchemaValidator:
    """Validate values with one schema.

    Args:
        schema: the structural schema as JSON.

    Raises:
        MissingExtra: jsonschema-rs is not installed.
        ValueError: the schema cannot be compiled, such as for a pattern that is no regular expression.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        try:
            import jsonschema_rs
        except ModuleNotFoundError as error:
            purpose = "the embedded API server's validation of custom resources"
            raise MissingExtra("jsonschema_rs", extra="apiserver", purpose=purpose) from error
        self._schema = plain_schema(schema)
        self._validator = jsonschema_rs.Draft4Validator(
            self._schema, formats=FORMATS, validate_formats=True, ignore_unknown_formats=True
        )

    def findings(self, value: Any, root: str = "") -> list[Finding]:
        """Return what is wrong with a value.

        Args:
            value: the value.
            root: the path of the value in the object, which fields begin with; the words do not, as in the real server.
        """
        if self._validator.is_valid(value):
            return []
        return list(_worded(self._validator.iter_errors(value), root))


def plain_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema in JSON Schema draft 4, without Kubernetes' own keywords."""
    plain: dict[str, Any] = {key: schema[key] for key in _KEPT if key in schema and _makes_sense(key, schema[key])}
    kind = schema.get("type")
    types = ["integer", "string"] if schema.get("x-kubernetes-int-or-string") else [kind] if kind else []
    if types:
        plain["type"] = [*types, "null"] if schema.get("nullable") else types
    form = schema.get("format")
    if form in FORMATS:
        plain["format"] = form
    for key in ("allOf", "anyOf", "oneOf"):
        if schema.get(key):
            plain[key] = [plain_schema(part) for part in schema[key]]
    if form in INTEGER_RANGES and kind in ("integer", "number"):
        low, high = INTEGER_RANGES[form]
        plain.setdefault("allOf", []).append({"minimum": low, "maximum": high})
    if schema.get("not"):
        plain["not"] = plain_schema(schema["not"])
    if schema.get("properties"):
        plain["properties"] = {key: plain_schema(part) for key, part in schema["properties"].items()}
    if isinstance(schema.get("items"), Mapping):
        plain["items"] = plain_schema(schema["items"])
    if isinstance(schema.get("additionalProperties"), Mapping):
        plain["additionalProperties"] = plain_schema(schema["additionalProperties"])
    if schema.get("x-kubernetes-embedded-resource"):
        plain["required"] = [*plain.get("required", ()), "apiVersion", "kind"]
    return plain


def _makes_sense(key: str, value: Any) -> bool:
    """Tell whether a bound can be compiled; the real server accepts the others and does not look at them."""
    if key == "multipleOf":
        return bool(value > 0)
    return not key.startswith(("max", "min")) or key in ("maximum", "minimum") or value >= 0


def _worded(errors: Iterable[Any], root: str) -> Iterator[Finding]:
    lengths: set[tuple[str | int, ...]] = set()
    for error in errors:
        name = _path(error.instance_path)
        field = (f"{root}{name}" if name.startswith("[") else f"{root}.{name}") if root and name else root or name
        path = tuple(error.instance_path)
        if error.kind.name in ("maxLength", "minLength"):
            lengths.add(path)
        elif error.kind.name == "pattern" and path in lengths:
            # A string of the wrong length is not asked for its letters.
            continue
        for found in _WORDS.get(error.kind.name, _other)(error, name, field):
            yield Finding(path, found)
        if error.kind.name in ("oneOf", "anyOf"):
            # The real server goes on with the complaints of the branch that came closest.
            branches: list[list[Any]] = sorted(error.kind.context, key=len)
            yield from _worded(branches[0], root)


def _path(parts: Sequence[str | int]) -> str:
    path = ""
    for part in parts:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def _json_type(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer" if -(2**63) <= value < 2**63 else "number"
    return {float: "number", str: "string", list: "array", dict: "object"}.get(type(value), "null")


_Words = Callable[[Any, str, str], Iterator[FieldError]]


def _type(error: Any, name: str, field: str) -> Iterator[FieldError]:
    found = _json_type(error.instance)
    wanted = ",".join(kind for kind in error.kind.types if kind != "null")
    message = f'Invalid value: "{found}": {name} in body must be of type {wanted}: "{found}"'
    yield FieldError(field, message, "FieldValueTypeInvalid")
    if wanted == "integer" and found == "number":
        yield FieldError(
            "<nil>", f'Invalid value: "": Checked value must be of type integer (default format) in {name}'
        )


def _required(error: Any, _name: str, field: str) -> Iterator[FieldError]:
    missing = error.kind.property
    yield FieldError(f"{field}.{missing}" if field else missing, "Required value", "FieldValueRequired")


def _enum(error: Any, _name: str, field: str) -> Iterator[FieldError]:
    options = ", ".join(
        option if option.startswith('"') else f'"{option}"' for option in map(quoted, error.kind.options)
    )
    message = f"Unsupported value: {quoted(error.instance)}: supported values: {options}"
    yield FieldError(field, message, "FieldValueNotSupported")


def _format(error: Any, name: str, field: str) -> Iterator[FieldError]:
    shown = quoted(error.instance)
    message = f"Invalid value: {shown}: {name} in body must be of type {error.kind.format}: {shown}"
    yield FieldError(field, message, "FieldValueTypeInvalid")


def _bound(inclusive: str, exclusive: str) -> _Words:
    def words(error: Any, name: str, field: str) -> Iterator[FieldError]:
        limit = error.kind.limit
        form = _INTEGER_FORMATS.get(limit) if "allOf" in error.schema_path else None
        if form:
            message = f'Invalid value: "": Checked value must be of type integer with format {form} in {name}'
            yield FieldError("<nil>", message)
            return
        how = exclusive if error.kind.name.startswith("exclusive") else inclusive
        shown = quoted(error.instance)
        yield FieldError(field, f"Invalid value: {shown}: {name} in body should be {how} {quoted(limit)}")

    return words


_INTEGER_FORMATS = {limit: form for form, limits in INTEGER_RANGES.items() for limit in limits}


def _too_long(error: Any, _name: str, field: str) -> Iterator[FieldError]:
    yield FieldError(field, f"Too long: may not be more than {error.kind.limit} bytes", "FieldValueTooLong")


def _too_short(error: Any, name: str, field: str) -> Iterator[FieldError]:
    shown = quoted(error.instance)
    yield FieldError(field, f"Invalid value: {shown}: {name} in body should be at least {error.kind.limit} chars long")


def _pattern(error: Any, name: str, field: str) -> Iterator[FieldError]:
    shown = quoted(error.instance)
    yield FieldError(field, f"Invalid value: {shown}: {name} in body should match '{error.kind.pattern}'")


def _too_many(error: Any, _name: str, field: str) -> Iterator[FieldError]:
    limit = error.kind.limit
    message = f"Too many: {len(error.instance)}: must have at most {limit} item{'' if limit == 1 else 's'}"
    yield FieldError(field, message, "FieldValueTooMany")


def _too_few(what: str) -> _Words:
    def words(error: Any, name: str, field: str) -> Iterator[FieldError]:
        count, limit = len(error.instance), error.kind.limit
        yield FieldError(field, f"Invalid value: {count}: {name} in body should have at least {limit} {what}")

    return words


def _multiple(error: Any, name: str, field: str) -> Iterator[FieldError]:
    factor = quoted(error.kind.multiple_of)
    yield FieldError(field, f"Invalid value: {quoted(error.instance)}: {name} in body should be a multiple of {factor}")


def _any_of(_error: Any, name: str, _field: str) -> Iterator[FieldError]:
    yield FieldError("<nil>", f'Invalid value: "": "{name}" must validate at least one schema (anyOf)')


def _one_of(error: Any, name: str, _field: str) -> Iterator[FieldError]:
    valid = sum(not branch for branch in error.kind.context)
    found = f"Found {valid} valid alternatives" if valid else "Found none valid"
    message = f'Invalid value: "": "{name}" must validate one and only one schema (oneOf). {found}'
    yield FieldError("<nil>", message)


def _not(_error: Any, name: str, _field: str) -> Iterator[FieldError]:
    yield FieldError("<nil>", f'Invalid value: "": "{name}" must not validate the schema (not)')


def _other(error: Any, name: str, field: str) -> Iterator[FieldError]:
    yield FieldError(field, f"Invalid value: {quoted(error.instance)}: {name} in body is not valid: {error.message}")


_WORDS: dict[str, _Words] = {
    "anyOf": _any_of,
    "enum": _enum,
    "exclusiveMaximum": _bound("less than or equal to", "less than"),
    "exclusiveMinimum": _bound("greater than or equal to", "greater than"),
    "format": _format,
    "maxItems": _too_many,
    "maxLength": _too_long,
    "maxProperties": _too_many,
    "maximum": _bound("less than or equal to", "less than"),
    "minItems": _too_few("items"),
    "minLength": _too_short,
    "minProperties": _too_few("properties"),
    "minimum": _bound("greater than or equal to", "greater than"),
    "multipleOf": _multiple,
    "not": _not,
    "oneOf": _one_of,
    "pattern": _pattern,
    "required": _required,
    "type": _type,
}


def duplicates(value: Any, node: Node, path: tuple[str | int, ...] = ()) -> Iterator[Finding]:
    """Yield the items that stand twice in lists of type set or map."""
    if not node.watched:
        return
    if isinstance(value, dict):
        for key, member in value.items():
            child = node.child(key)
            if child is not None:
                yield from duplicates(member, child, (*path, key))
    elif isinstance(value, list):
        if node.list_type in ("set", "map"):
            yield from _twice(value, node, path)
        if node.items is not None:
            for index, item in enumerate(value):
                yield from duplicates(item, node.items, (*path, index))


def _twice(items: list[Any], node: Node, path: tuple[str | int, ...]) -> Iterator[Finding]:
    seen: set[str] = set()
    for index, item in enumerate(items):
        shown = quoted(item_key(item, node))
        if shown in seen:
            error = FieldError(f"{_path(path)}[{index}]", f"Duplicate value: {shown}", "FieldValueDuplicate")
            yield Finding(path, error)
        seen.add(shown)


def item_key(item: Any, node: Node) -> Any:
    """Return what tells an item of a list of type set or map from the others."""
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
    """Tell whether an update left the value at a path as it was: then what is wrong with it is not held against it.

    Items of lists are followed only where the list's type says which item is which.
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
