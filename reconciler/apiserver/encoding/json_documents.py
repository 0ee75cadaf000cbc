"""JSON and YAML in request bodies, decoded as kube-apiserver decodes it, with limits; members of documents.

The limits are on nesting, and in YAML on aliases.
"""

from __future__ import annotations

import functools
import json
import math
import re
from typing import Any

import msgspec

from reconciler._core.wire import MAX_LEVELS, JSONObject, exceeds_max_levels, use_kubernetes_scalars
from reconciler.apiserver.encoding.text import quoted, recorded

_INT64 = 2**63
_TOO_DEEP = "exceeded max depth"
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
_NOT_UTF8 = re.compile("[\udc80-\udcff]")
_LARGE_NUMBER = re.compile(rb"[0-9]{309}|[eE]\+?[0-9]{3}")
_LARGE_INTEGER = re.compile(rb"[0-9]{19}")
_VALUE = "looking for beginning of value"
_LITERALS = {"t": "true", "f": "false", "n": "null"}
_CUT_NUMBER = re.compile(r"\.|[eE][+-]?")
_ALLOWED_ALIASES, _SMALL_DOCUMENT = 100, 1000
_MERGE, _ALLOWED_MERGES = "tag:yaml.org,2002:merge", 100
_SHOWN_DUPLICATES = 100
_EXPANDED_TEXT = 2**24  # characters
_STRICTER_FROM, _STRICTEST_FROM = 400_000, 4_000_000


class InvalidJSON(ValueError):
    """Malformed JSON, or JSON that a document must not contain; the message is that of Go's decoder."""


class OutOfRange(InvalidJSON):
    """A number that does not fit into a float64.

    Args:
        number: the number as written.
        document: the decoded value, with infinity in place of the number.
    """

    def __init__(self, number: str, document: Any) -> None:
        super().__init__(f"json: cannot unmarshal number {number} into Go value of type float64")
        self.number = number
        self.document = document


def _go_number(text: str) -> int | float:
    """Parse a number with a point or exponent; Go writes 1.0 as 1, so 1 is what gets stored."""
    value = float(text)
    return int(value) if value.is_integer() and abs(value) < _INT64 else value


_decoder = msgspec.json.Decoder(float_hook=_go_number)


def read_json(body: bytes, *, lenient: bool = True) -> Any:
    """Decode a request body; a lenient decoder replaces invalid UTF-8 and lone surrogates with U+FFFD, as Go's does.

    Raises:
        InvalidJSON: the body is not valid JSON, or is nested too deeply.
        OutOfRange: a number does not fit into a float64.
    """
    if _LARGE_NUMBER.search(body):
        _check_numbers(_with_replacements(body))
    try:
        try:
            found = _decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            readable = _with_replacements(body) if lenient else body
            if readable == body:
                raise
            found = _decoder.decode(readable)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise InvalidJSON(_parse_problem(body)) from None
    except RecursionError:
        raise InvalidJSON(_depth_problem(body)) from None
    if body.count(b"{") + body.count(b"[") > MAX_LEVELS and exceeds_max_levels(found):
        raise InvalidJSON(_depth_problem(body))
    return found


def as_interface(value: Any) -> Any:
    """Return a value as Go decodes it where it knows no type: an integer of more than 64 bits is a float."""
    if type(value) is int:
        return value if -_INT64 <= value < _INT64 else _go_number(str(value))
    if isinstance(value, dict):
        return {key: as_interface(member) for key, member in value.items()}
    return [as_interface(item) for item in value] if isinstance(value, list) else value


def has_large_integers(body: bytes) -> bool:
    """Return whether a request body may have integers of more than 64 bits."""
    return _LARGE_INTEGER.search(body) is not None


def _depth_problem(body: bytes) -> str:
    depth = 0
    for found in _TOKEN.finditer(body):
        depth += {b"{": 1, b"[": 1, b"}": -1, b"]": -1}.get(found[0], 0)
        if depth > MAX_LEVELS:
            return f"invalid character '{found[0].decode()}' {_TOO_DEEP}"
    return _TOO_DEEP


def _check_numbers(body: bytes) -> None:
    beyond: list[str] = []

    def read(text: str) -> float:
        value = float(text)
        if math.isinf(value):
            beyond.append(text)
        return value

    try:
        document = json.loads(body, parse_int=read, parse_float=read, parse_constant=_reject_constant)
    except (ValueError, RecursionError):
        return  # the decoder reports what is wrong
    if beyond:
        raise OutOfRange(beyond[0], document)


def _with_replacements(body: bytes) -> bytes:
    """Return a body with U+FFFD in place of invalid UTF-8 and lone surrogates."""
    text = _NOT_UTF8.sub("\ufffd", body.decode(errors="surrogateescape")).encode()
    return _ESCAPE.sub(lambda found: rb"\ufffd" if found[1] else found[0], text)


def _parse_problem(body: bytes) -> str:
    """Return why a body is not valid JSON, as encoding/json words it."""
    text = body.decode("latin-1")
    try:
        json.loads(text, parse_constant=_reject_constant, parse_int=float)
    except json.JSONDecodeError as error:
        return _problem_at(text, error)
    except ValueError as error:
        return str(error)
    except RecursionError:
        return _depth_problem(body)
    return "invalid JSON"


def _problem_at(text: str, error: json.JSONDecodeError) -> str:
    # By the beginnings of Python's messages: how far after Python's position Go's decoder stops, and what it expects.
    known_errors = recorded("encoding/json_errors.json").items()
    skipped, expected = next((value for start, value in known_errors if error.msg.startswith(start)), (0, _VALUE))
    at = error.pos + skipped
    if error.msg.startswith("Expecting value") and text[at : at + 1] in _LITERALS:
        word = _LITERALS[text[at]]
        known = next(index for index in range(1, 6) if text[at : index + at] != word[:index]) - 1
        found = text[at + known : at + known + 1] or " "  # what Go reports at the end of the input
        return f"invalid character {_character(found)} in literal {word} (expecting {_character(word[known])})"
    if error.msg.startswith("Expecting value") and text[at : at + 1] == "-":
        at, expected = at + 1, "in numeric literal"
    elif error.msg.startswith(("Expecting ',' delimiter", "Extra data")):
        number = _CUT_NUMBER.match(text, at) if text[at - 1 : at].isdecimal() else None
        if number is not None:
            where = "after decimal point in" if number[0] == "." else "in exponent of"
            at, expected = number.end(), f"{where} numeric literal"
        else:
            expected = "after top-level value" if error.msg.startswith("Extra") else "after object key:value pair"
    rest = text[at:].lstrip(" \t\r\n") if expected.startswith(("looking", "after")) else text[at:]
    if not rest or error.msg.startswith("Unterminated"):
        return "unexpected end of JSON input"
    return f"invalid character {_character(rest[0])} {expected}"


def _character(letter: str) -> str:
    """Return a character in single quotes, as encoding/json writes it."""
    return {"'": "'\\''", '"': "'\"'"}.get(letter, f"'{quoted(letter)[1:-1]}'")


def _reject_constant(name: str) -> None:
    """Raise ValueError for NaN and the infinities, which Python accepts and JSON does not."""
    raise ValueError(f"invalid character '{name.lstrip('-')[0]}' looking for beginning of value")


def value_at(doc: Any, path: str, default: Any = None) -> Any:
    """Return the value at a dotted path of a document, which may begin with a dot, or the default."""
    for part in path.removeprefix(".").split("."):
        doc = doc.get(part) if isinstance(doc, dict) else None
    return default if doc is None else doc


def merge_patch(target: Any, patch: Any) -> Any:
    """Return `target` with an RFC 7386 merge patch applied; unchanged parts are shared with `target`.

    Nulls are removed at any depth of what the patch adds, also in items of lists, as on the real server.
    """
    if not isinstance(patch, dict):
        return _without_nulls(patch)
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            merged[key] = merge_patch(merged.get(key), value)
        else:
            merged[key] = _without_nulls(value)
    return merged


def _without_nulls(value: Any) -> Any:
    """Remove null fields of the objects in a list; null items stay."""
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    if isinstance(value, dict):
        return {key: _without_nulls(member) for key, member in value.items() if member is not None}
    return value


def condition_of(doc: JSONObject, kind: str) -> JSONObject:
    """Return the condition of a type in the status of an object; an empty one if it has none."""
    return next((each for each in value_at(doc, "status.conditions", ()) if each.get("type") == kind), {})


def with_condition(conditions: list[JSONObject] | None, condition: JSONObject, now: str) -> list[JSONObject]:
    """Return conditions with one of them set; it keeps its transition time as long as its status is the same."""
    old = next((each for each in conditions or () if each.get("type") == condition["type"]), {})
    since = old.get("lastTransitionTime") if old.get("status") == condition["status"] else now
    changed = {**condition, "lastTransitionTime": since}
    kept = [changed if each is old else each for each in conditions or ()]
    return kept if old else [*kept, changed]


class InvalidYAML(ValueError):
    """Malformed YAML, or YAML that JSON cannot express."""


def decode_yaml(body: bytes) -> tuple[Any, list[str]]:
    """Decode a YAML document; return its value and a warning for each duplicate key.

    Raises:
        InvalidYAML: the body is not valid YAML, is nested too deeply, or is expanded excessively by aliases.
    """
    import yaml

    try:
        loader = _loader()(body)
        return _plain(loader.get_single_data()), loader.duplicate_keys
    except InvalidYAML:
        raise
    except yaml.YAMLError as error:
        raise InvalidYAML(str(error)) from None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # PyYAML's constructors raise any of these for a scalar that does not fit its tag.
        raise InvalidYAML(f"yaml: {error}") from None


@functools.cache
def _loader() -> type[Any]:
    """Return a loader class that reads scalars as Kubernetes does, and records duplicate keys."""
    import yaml
    from yaml.composer import Composer
    from yaml.constructor import SafeConstructor
    from yaml.resolver import Resolver

    # The C parser is several times faster. Its own composer is not used: it recurses without a limit.
    parser: Any = getattr(yaml, "cyaml").CParser if yaml.__with_libyaml__ else None  # noqa: B009 - it is not in the stubs
    bases = (yaml.SafeLoader,) if parser is None else (Composer, parser, SafeConstructor, Resolver)

    class Loader(*bases):  # type: ignore[misc]
        def __init__(self, body: bytes) -> None:
            for base in bases:
                base.__init__(self, *([body] if base in (parser, yaml.SafeLoader) else ()))
            self.duplicate_keys: list[str] = []
            self.open: list[str | None] = []

        def compose_node(self, parent: Any, index: Any) -> Any:
            event = self.peek_event()
            if event.anchor is not None and event.anchor in self.open and isinstance(event, yaml.AliasEvent):
                raise InvalidYAML(f"yaml: anchor '{event.anchor}' value contains itself")
            self.open.append(event.anchor)
            if len(self.open) > MAX_LEVELS + 1:
                raise InvalidYAML("yaml: exceeded max depth")
            node = super().compose_node(parent, index)
            self.open.pop()
            return node

        def get_single_node(self) -> Any:
            node = super().get_single_node()
            if node is not None:
                _check_aliases(node)
            return node

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen: set[str] = set()
            for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
                if not isinstance(key, yaml.ScalarNode):
                    continue
                if key.value in seen and len(self.duplicate_keys) < _SHOWN_DUPLICATES:
                    line = key.start_mark.line + 1
                    self.duplicate_keys.append(f'line {line}: key "{key.value}" already set in map')
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    use_kubernetes_scalars(Loader)
    return Loader


def _check_aliases(root: Any) -> None:
    """Reject a document that is nested too deeply through aliases or consists mostly of repetition.

    The limits on repeated nodes are those of go-yaml. It does not limit repeated text.
    """
    known: dict[int, tuple[int, int, int]] = {}

    def measure(node: Any) -> tuple[int, int, int]:
        """Return the number of nodes, levels and characters that a node expands to."""
        if id(node) not in known:
            inner = node.value if isinstance(node.value, list) else ()
            # PyYAML deletes merge keys from the list one by one, in quadratic time.
            if sum(isinstance(each, tuple) and each[0].tag == _MERGE for each in inner) > _ALLOWED_MERGES:
                raise InvalidYAML(f"yaml: more than {_ALLOWED_MERGES} merge keys in a mapping")
            parts = [measure(part) for each in inner for part in (each if isinstance(each, tuple) else (each,))]
            levels = max([below for _, below, _ in parts], default=0) + isinstance(node.value, list)
            if levels > MAX_LEVELS:
                raise InvalidYAML("yaml: exceeded max depth")
            length = sum(length for _, _, length in parts) if inner else len(node.value)
            known[id(node)] = 1 + sum(count for count, _, _ in parts), levels, length
        return known[id(node)]

    nodes, _, length = measure(root)
    if length > _EXPANDED_TEXT:
        raise InvalidYAML("yaml: document contains excessive aliasing")
    repeated = nodes - len(known)
    share = 0.99 - 0.89 * min(1.0, max(0.0, (nodes - _STRICTER_FROM) / (_STRICTEST_FROM - _STRICTER_FROM)))
    if repeated > _ALLOWED_ALIASES and nodes > _SMALL_DOCUMENT and repeated > share * nodes:
        raise InvalidYAML("yaml: document contains excessive aliasing")


def _plain(value: Any) -> Any:
    """Return a value made of JSON types; values shared by aliases are copied."""
    if isinstance(value, dict):
        return {_key(key, member): _plain(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidYAML(f"json: unsupported value: {_non_finite(value)}")
        return int(value) if value.is_integer() and abs(value) < 2**63 else value
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, str):
        value.encode()  # raises ValueError for a lone surrogate, which only the Python parser accepts
    if value is None or isinstance(value, (str, int)):
        return value
    raise InvalidYAML(f"yaml: a {type(value).__name__} has no form in JSON")


def _key(key: Any, member: Any) -> str:
    if isinstance(key, str):
        return str(_plain(key))
    if isinstance(key, bool):
        return "true" if key else "false"
    if isinstance(key, int):
        return str(key)
    if isinstance(key, float):
        return f"{key:g}" if math.isfinite(key) else f"{_non_finite(key).lower().replace('+', '').replace('-', '-.')}"
    kind = "%!s(<nil>), key: <nil>" if key is None else f"{type(key).__name__}, key: {key}"
    raise InvalidYAML(f"unsupported map key of type: {kind}, value: {quoted(_plain(member))}")


def _non_finite(value: float) -> str:
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
