"""Structural schemas: pruning, defaulting and validation of documents, with the error messages of kube-apiserver.

A `Node` describes one place in a document. `prune_and_default` returns a document that shares all unchanged parts with
its argument, so the parts of a stored document are not processed again. jsonschema-rs validates; a `SchemaValidator`
turns its errors into the messages that users see through ``kubectl``. Most are in ``schema_messages.json``: the reason
and the message of each keyword. A message that begins with an empty value concerns no field.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from reconciler._core.wire import JSONObject
from reconciler.apiserver.encoding.formats import FORMATS, INTEGER_RANGES, NUMBER_RANGES, ecma_pattern
from reconciler.apiserver.encoding.refusals import FieldError, Findings
from reconciler.apiserver.encoding.text import quoted, recorded
from reconciler.apiserver.encoding.versions import NEWEST, has_feature
from reconciler.errors import importing

NO_DEFAULT: Any = object()
"""The absence of a default; None is not used, since null can be a default."""
_PRUNED: Any = object()
"""Stands for the value of a member that is removed."""
_EMPTY: JSONObject = {}


@dataclass(slots=True, eq=False)
class Node:
    """One place of a compiled schema.

    Attributes:
        type: ``"object"``, ``"array"``, …; empty where any type is allowed.
        format: such as ``"date-time"``, or empty.
        properties: the named members of an object.
        items: the items of a list, or None.
        additional: the other members of an object, or None if none are allowed.
        preserve: whether unknown members are kept.
        embedded: whether the object is itself a Kubernetes object.
        nullable: whether null is kept.
        default: the default value with the defaults inside it, or `NO_DEFAULT`.
        written_default: the default value as in the schema, or `NO_DEFAULT`.
        complete: returns an object of a built-in type with the defaults of its members, or None.
        defaults: the members that have defaults.
        list_type: ``atomic``, ``set`` or ``map``.
        map_keys: the members that identify an item of a list of type map.
        map_type: ``granular`` or ``atomic``.
        merge_key: the member that identifies an item in a strategic merge patch, or empty.
        required: the required members of an object.
        merge: whether a strategic merge patch merges the list instead of replacing it.
        int_or_string: whether the value is an integer or a string.
        max_size: the maximum number of characters, items or members, or None.
        name: the Go type of a built-in object, or empty.
        rules: the CEL rules of this place, as written.
        has_checks: whether this place or one below has rules, or is a list with unique items.
    """

    type: str = ""
    format: str = ""
    properties: dict[str, Node] = field(default_factory=dict)
    items: Node | None = None
    additional: Node | None = None
    preserve: bool = False
    embedded: bool = False
    nullable: bool = False
    default: Any = NO_DEFAULT
    written_default: Any = NO_DEFAULT
    complete: Callable[[JSONObject], JSONObject] | None = None
    defaults: list[tuple[str, Node]] = field(default_factory=list)
    list_type: str = "atomic"
    map_keys: tuple[str, ...] = ()
    map_type: str = "granular"
    merge_key: str = ""
    required: tuple[str, ...] = ()
    merge: bool = False
    int_or_string: bool = False
    max_size: int | None = None
    name: str = ""
    rules: list[JSONObject] = field(default_factory=list)
    has_checks: bool = False

    def child(self, key: str) -> Node | None:
        """Return the place of a member, or None if the schema does not allow it."""
        found = self.properties.get(key)
        return self.additional if found is None else found


ANYTHING = Node(preserve=True, nullable=True)
"""A place that accepts and keeps any value."""


def compile_schema(schema: JSONObject, *, root: bool = False) -> Node:
    """Return the compiled form of a structural schema; at the root, apiVersion, kind and metadata are always known."""
    node = Node(
        str(schema.get("type") or ""),
        str(schema.get("format") or ""),
        preserve=bool(schema.get("x-kubernetes-preserve-unknown-fields")),
        embedded=bool(schema.get("x-kubernetes-embedded-resource")),
        nullable=bool(schema.get("nullable")),
        required=tuple(schema.get("required") or ()),
        int_or_string=bool(schema.get("x-kubernetes-int-or-string")),
        list_type=str(schema.get("x-kubernetes-list-type") or "atomic"),
        map_keys=tuple(schema.get("x-kubernetes-list-map-keys") or ()),
        map_type=str(schema.get("x-kubernetes-map-type") or "granular"),
        rules=list(schema.get("x-kubernetes-validations") or ()),
        max_size=_max_size(schema),
    )
    for key, member in (schema.get("properties") or {}).items():
        if not (root and key == "metadata"):
            node.properties[key] = compile_schema(member)
    if isinstance(items := schema.get("items"), dict):
        node.items = compile_schema(items)
    if isinstance(additional := schema.get("additionalProperties"), dict):
        node.additional = compile_schema(additional)
    elif additional is True:
        node.additional = ANYTHING
    if root or node.embedded:
        for key in ("apiVersion", "kind", "metadata"):
            node.properties.setdefault(key, ANYTHING)
    if "default" in schema:
        node.default = node.written_default = schema["default"]
    _finish(node)
    return node


def _max_size(schema: JSONObject) -> int | None:
    if schema.get("enum"):
        return max(len(str(value)) for value in schema["enum"])
    for key in ("maxLength", "maxItems", "maxProperties"):
        if isinstance(schema.get(key), int):
            size: int = schema[key]
            return size
    return None


def _finish(node: Node) -> None:
    below = [*node.properties.values(), *(child for child in (node.items, node.additional) if child is not None)]
    node.has_checks = bool(node.rules) or node.list_type in ("set", "map") or any(child.has_checks for child in below)
    for key, child in node.properties.items():
        if child.default is not NO_DEFAULT and (child.default is not None or child.nullable):
            # Defaults inside a default are filled in once, here.
            child.default = prune_and_default(child.default, child, "", [])
            node.defaults.append((key, child))


def prune_and_default(value: Any, node: Node, path: str, unknown: list[str], before: Any = NO_DEFAULT) -> Any:
    """Return a value with its unknown members pruned and its defaults filled in; the value is never changed.

    The dotted paths of the pruned members are added to `unknown`. Parts that are the same Python object in the stored
    value are left alone.
    """
    if value is before:
        return value
    if isinstance(value, dict):
        return _prune_object(value, node, path, unknown, before)
    if isinstance(value, list) and node.items is not None:
        return _prune_list(value, node.items, path, unknown, before)
    return value


def prune(value: Any, node: Node) -> Any:
    """Return a value with its unknown members pruned; the value is never changed."""
    if isinstance(value, dict):
        members = ((key, member, node.child(key)) for key, member in value.items())
        return {
            key: member if child is None else prune(member, child)
            for key, member, child in members
            if child is not None or node.preserve
        }
    if isinstance(value, list) and node.items is not None:
        return [prune(item, node.items) for item in value]
    return value


def _prune_object(value: JSONObject, node: Node, path: str, unknown: list[str], before: Any) -> JSONObject:
    changes: JSONObject = {}
    earlier = before if isinstance(before, dict) else _EMPTY
    prefix = f"{path}." if path else ""
    get = node.properties.get
    for key, member in value.items():
        child = get(key) or node.additional
        if child is None:
            if not node.preserve:
                unknown.append(f"{prefix}{key}")
                changes[key] = _PRUNED
        elif member is None:
            if not child.nullable:
                changes[key] = _PRUNED
        elif isinstance(member, (dict, list)) and child is not ANYTHING:
            pruned = prune_and_default(member, child, f"{prefix}{key}", unknown, earlier.get(key, NO_DEFAULT))
            if pruned is not member:
                changes[key] = pruned
        elif node.embedded and key == "metadata" and isinstance(member, dict):
            changes[key] = _embedded_metadata(member, f"{prefix}{key}", unknown)
    for key, child in node.defaults:
        if key not in value or changes.get(key) is _PRUNED:
            changes[key] = child.default
    if not changes:
        return value
    return {key: member for key, member in {**value, **changes}.items() if member is not _PRUNED}


def _prune_list(value: list[Any], node: Node, path: str, unknown: list[str], before: Any) -> list[Any]:
    earlier = before if isinstance(before, list) else ()
    pairs = zip(value, itertools.chain(earlier, itertools.repeat(NO_DEFAULT)), strict=False)
    pruned = [prune_and_default(item, node, f"{path}[{at}]", unknown, old) for at, (item, old) in enumerate(pairs)]
    return value if all(new is old for new, old in zip(pruned, value, strict=True)) else pruned


def _embedded_metadata(metadata: JSONObject, path: str, unknown: list[str]) -> JSONObject:
    known = recorded("builtin/types.json")["types"]["meta.v1.ObjectMeta"]
    foreign = [key for key in metadata if key not in known]
    unknown.extend(f"{path}.{key}" for key in foreign)
    return {key: value for key, value in metadata.items() if key not in foreign} if foreign else metadata


WRITTEN_PATTERN = "x-written-pattern"
"""The keyword under which a schema keeps a pattern as written, since ``pattern`` holds its translation."""
_NOT_OF_TYPE = 'Invalid value: "": Checked value must be of type '
_STARTS = {"TooLong": "Too long", "TooMany": "Too many"}
_NUMBER_FORMATS = frozenset(form for forms in NUMBER_RANGES.values() for form in forms)
_FORMAT_OF_LIMIT: dict[Any, str] = {
    limit: f"{kind} with format {form}"
    for kind, forms in NUMBER_RANGES.items()
    for form, limits in forms.items()
    for limit in limits
}


class SchemaFinding(NamedTuple):
    """A field error and the path of the value that it is about."""

    path: tuple[str | int, ...]
    error: FieldError


class SchemaValidator:
    """A validator of values by one schema.

    Args:
        schema: the structural schema.
        root: the member of the object that the values are; empty for whole objects. Paths and fields begin with it; the
            messages do not, as in the real server.
        release: the version of Kubernetes of the server.

    Raises:
        MissingExtra: jsonschema-rs is not installed.
        ValueError: the schema cannot be compiled, for example because a pattern is not a regular expression.
    """

    def __init__(self, schema: JSONObject, root: str = "", *, release: str = NEWEST) -> None:
        purpose = "the embedded API server's validation of custom resources"
        with importing(extra="apiserver", purpose=purpose):
            import jsonschema_rs
        self._root = root
        self._number_formats = has_feature("NumberFormats", release)
        self._schema = _plain_schema(schema)
        try:
            self._validator = jsonschema_rs.Draft4Validator(
                self._schema, formats=FORMATS, validate_formats=True, ignore_unknown_formats=True
            )
        except jsonschema_rs.ValidationError as error:
            raise ValueError(f"the embedded API server cannot compile this schema: {error.message}") from None

    def findings(self, value: Any) -> list[SchemaFinding]:
        """Return the errors of a value."""
        if self._validator.is_valid(value):
            return []
        start = (self._root,) if self._root else ()
        found = self._translated(self._validator.iter_errors(value))
        return [SchemaFinding((*start, *path), error) for path, error in found]

    def _translated(self, errors: Iterable[Any]) -> Iterator[SchemaFinding]:
        """Yield the field errors for errors of jsonschema-rs."""
        wrong_lengths: set[tuple[Any, ...]] = set()
        for place, group in itertools.groupby(errors, key=_all_of):
            branches: set[Any] = set()
            for error in group:
                branches.add(None if place is None else list(error.schema_path)[len(place[0])])
                yield from self._one(error, wrong_lengths)
            if place is not None:
                yield self._not_all(place, branches)

    def _one(self, error: Any, wrong_lengths: set[tuple[Any, ...]]) -> Iterator[SchemaFinding]:
        name, path = path_of(error.instance_path), tuple(error.instance_path)
        checked = (path, tuple(error.schema_path)[:-1])
        if error.kind.name in ("maxLength", "minLength"):
            wrong_lengths.add(checked)
        elif error.kind.name == "pattern" and checked in wrong_lengths:
            # The real server does not match a string of the wrong length.
            return
        keyword = error.kind.name
        of_format = _FORMAT_OF_LIMIT.get(getattr(error.kind, "limit", None), "")
        if of_format.startswith("integer") and "allOf" in error.schema_path and isinstance(error.instance, float):
            return  # it has the wrong type, which is another error
        schema: JSONObject = functools.reduce(operator.getitem, checked[1], self._schema)
        field = ".".join(filter(None, (self._root, name)))
        if self._is_map_key(path) and keyword != "pattern":
            name = f".{name}"
        form = schema.get("format", "")
        if form in _NUMBER_FORMATS and not self._number_formats:
            form = ""
        if keyword == "type" and form and not isinstance(error.instance, (str, list, type(None))):
            found: Iterable[FieldError] = _wrong_format(error.instance, form, name, field)
        elif keyword in _COMPUTED:
            found = _COMPUTED[keyword](error, name, field)
        else:
            found = (_message(error, name, field, schema.get(WRITTEN_PATTERN, "")),)
        yield from (
            SchemaFinding(path, each)
            for each in found
            if self._number_formats or not each.message.startswith(_NOT_OF_TYPE)
        )
        if error.kind.name in ("oneOf", "anyOf"):
            # The real server adds the errors of the branch that came closest.
            branches: list[list[Any]] = sorted(error.kind.context, key=len)
            yield from self._translated(branches[0])

    def _is_map_key(self, path: tuple[str | int, ...]) -> bool:
        """Return whether a path begins with a key of a map that is validated alone: its name begins with a dot."""
        begins = path[0] if self._root and path else 0
        return isinstance(begins, str) and begins not in (self._schema.get("properties") or {})

    def _not_all(self, place: tuple[Any, ...], branches: set[Any]) -> SchemaFinding:
        schema_path, path = place
        schema: Any = functools.reduce(operator.getitem, schema_path, self._schema)
        # The last part may be the range of an integer format, which is not a branch as written.
        none = "" if len(branches) < len(schema) else ". None validated"
        message = f'Invalid value: "": "{path_of(path)}" must validate all the schemas (allOf){none}'
        return SchemaFinding(path, FieldError("<nil>", message))


def _all_of(error: Any) -> tuple[Any, ...] | None:
    """Return the paths, in the schema and in the value, of the innermost allOf around an error; None without one."""
    steps = list(error.schema_path)
    if "allOf" not in steps or getattr(error.kind, "limit", None) in _FORMAT_OF_LIMIT:
        return None
    at = len(steps) - 1 - steps[::-1].index("allOf")
    return tuple(steps[: at + 1]), tuple(error.instance_path)


def _wrong_format(value: Any, form: str, name: str, field: str) -> list[FieldError]:
    shown = "" if isinstance(value, bool) else {int: "int64", float: "float64"}.get(type(value), "")
    message = f'Invalid value: "{shown}": {name} in body must be of type {form}: "{shown}"'
    found = [FieldError(field, message, "FieldValueTypeInvalid")]
    if shown and form in INTEGER_RANGES:
        found.append(_not_of_format(f"integer with format {form}", name))
    return found


def path_of(parts: Sequence[str | int]) -> str:
    """Return the path of a value as kube-apiserver writes it."""
    path = ""
    for part in parts:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def json_type(value: Any) -> str:
    """Return the name of a value's JSON type; integers beyond 64 bits are numbers."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer" if -(2**63) <= value < 2**63 else "number"
    return {float: "number", str: "string", list: "array", dict: "object"}.get(type(value), "null")


def _message(error: Any, name: str, field: str, pattern: str) -> FieldError:
    keyword, value, limit = error.kind.name, error.instance, getattr(error.kind, "limit", None)
    if "allOf" in error.schema_path and keyword in ("maximum", "minimum") and limit in _FORMAT_OF_LIMIT:
        return _not_of_format(_FORMAT_OF_LIMIT[limit], name)
    reason, text = recorded("schema_messages.json").get(
        keyword, ("Invalid", "{value}: {name} in body is not valid: {message}")
    )
    shown = text.format(
        kind=error.kind,
        name=name,
        message=error.message,
        pattern=pattern,
        factor=quoted(getattr(error.kind, "multiple_of", None)),
        value=quoted(value),
        limit=quoted(limit),
        count=len(value) if isinstance(value, (dict, list)) else 0,
        items="item" if limit == 1 else "items",
    )
    where = "<nil>" if text.startswith('"":') else field
    return FieldError(where, f"{_STARTS.get(reason, 'Invalid value')}: {shown}", f"FieldValue{reason}")


def _not_of_format(form: str, name: str) -> FieldError:
    return FieldError("<nil>", f"{_NOT_OF_TYPE}{form} in {name}")


def _type(error: Any, name: str, field: str) -> Findings:
    found = json_type(error.instance)
    kinds = [kind for kind in error.kind.types if kind != "null"]
    # A string with a format accepts lists, which the message does not mention.
    wanted = ",".join(kind for kind in kinds if kind != "array" or len(kinds) == 1)
    message = f'Invalid value: "{found}": {name} in body must be of type {wanted}: "{found}"'
    yield FieldError(field, message, "FieldValueTypeInvalid")
    if wanted == "integer" and found == "number":
        yield _not_of_format("integer (default format)", name)


def _required(error: Any, _name: str, field: str) -> Findings:
    missing = error.kind.property
    yield FieldError.required(f"{field}.{missing}" if field else missing)


def _enum(error: Any, _name: str, field: str) -> Findings:
    options = (option[1:-1] if option.startswith('"') else option for option in map(quoted, error.kind.options))
    yield FieldError.not_supported(field, error.instance, options)


def _one_of(error: Any, name: str, _field: str) -> Findings:
    valid = sum(not branch for branch in error.kind.context)
    found = f"Found {valid} valid alternatives" if valid else "Found none valid"
    yield FieldError("<nil>", f'Invalid value: "": "{name}" must validate one and only one schema (oneOf). {found}')


_COMPUTED: dict[str, Callable[[Any, str, str], Findings]] = {
    "enum": _enum,
    "oneOf": _one_of,
    "required": _required,
    "type": _type,
}


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
    limits = NUMBER_RANGES.get(str(kind), {}).get(str(form))
    if form in FORMATS or limits:
        plain["format"] = form
    for key in ("allOf", "anyOf", "oneOf"):
        if schema.get(key):
            plain[key] = [_plain_schema(part) for part in schema[key]]
    if limits:
        plain.setdefault("allOf", []).append({"minimum": limits[0], "maximum": limits[1]})
    if schema.get("properties"):
        plain["properties"] = {key: _plain_schema(part) for key, part in schema["properties"].items()}
    for key in ("not", "items", "additionalProperties"):
        if schema.get(key) and isinstance(schema[key], dict):
            plain[key] = _plain_schema(schema[key])
    if schema.get("x-kubernetes-embedded-resource"):
        plain["required"] = [*plain.get("required", ()), "apiVersion", "kind"]
    return plain


def _kept(schema: JSONObject) -> JSONObject:
    """Return the keywords that have the same meaning in JSON Schema."""
    kept = recorded("schema_keywords.json")["validating"]
    plain = {key: schema[key] for key in kept if key in schema and _is_usable(key, schema[key])}
    if "pattern" in plain:
        plain |= {"pattern": ecma_pattern(schema["pattern"]), WRITTEN_PATTERN: schema["pattern"]}
    return plain


def _is_usable(keyword: str, value: Any) -> bool:
    """Return whether a bound can be compiled; the real server accepts the others and ignores them."""
    if keyword == "multipleOf":
        return bool(value > 0)
    return not keyword.startswith(("max", "min")) or keyword in ("maximum", "minimum") or value >= 0


def duplicates(value: Any, node: Node, path: tuple[str | int, ...] = ()) -> Iterator[SchemaFinding]:
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


def _duplicate_items(items: list[Any], node: Node, path: tuple[str | int, ...]) -> Iterator[SchemaFinding]:
    seen: dict[str, int] = {}
    for index, item in enumerate(items):
        key = item_key(item, node)
        shown = quoted(key)
        seen[shown] = seen.get(shown, 0) + 1
        if seen[shown] == 2:
            yield SchemaFinding(path, FieldError.duplicate(f"{path_of(path)}[{index}]", key))


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
