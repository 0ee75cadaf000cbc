"""JSON on the wire: its types, shapes of documents, limits, and texts that a decoder rejects; the scalars of YAML.

`JSONObject` is a document whose shape is not known here. Its values are typed `Any`, as those of `json.loads` are:
a reader narrows what it uses and leaves the rest alone. Where the shape is known, the TypedDicts below say it; a key
that the API server may omit is `NotRequired`.

A decoder rejects a whole document for one value in it: nested too deeply, or text that is not Unicode. The functions
for such documents only find where values begin and end, and return them verbatim, without recursion.

Numbers in YAML are read as Kubernetes reads them: in base 2, 8, 10 and 16, with 64 bits. YAML 1.1 also has numbers in
base 60 (``1:30``), which take quadratic time, and timestamps. Both are text here, as in ``sigs.k8s.io/yaml``.
"""

from __future__ import annotations

import functools
import math
import re
from array import array
from collections.abc import Callable, Iterator
from itertools import accumulate, islice
from typing import Any, NotRequired, TypeAlias, TypedDict

import msgspec

JSONValue: TypeAlias = bool | int | float | str | list["JSONValue"] | dict[str, "JSONValue"] | None
"""Any JSON value."""

JSONObject: TypeAlias = dict[str, Any]
"""A JSON object: the document of a Kubernetes object, or a part of one."""


class ConditionObject(TypedDict):
    """An entry of ``status.conditions``, as metav1.Condition defines it."""

    type: str
    status: str
    """``True``, ``False`` or ``Unknown``."""
    reason: str
    message: str
    lastTransitionTime: str
    """RFC 3339, UTC, in seconds."""
    observedGeneration: NotRequired[int]


class OwnerReferenceObject(TypedDict):
    """An entry of ``metadata.ownerReferences``."""

    apiVersion: str
    kind: str
    name: str
    uid: str
    controller: NotRequired[bool]
    blockOwnerDeletion: NotRequired[bool]


class ManagedFieldsEntry(TypedDict):
    """An entry of ``metadata.managedFields``: the fields that one manager owns through one operation."""

    manager: str
    operation: str
    """``Apply`` or ``Update``."""
    apiVersion: str
    time: NotRequired[str]
    fieldsType: str
    fieldsV1: JSONObject
    subresource: NotRequired[str]


class StatusObject(TypedDict):
    """The ``Status`` document with which an API server refuses a request."""

    kind: str
    apiVersion: str
    metadata: NotRequired[JSONObject]
    status: str
    message: NotRequired[str]
    reason: NotRequired[str]
    details: NotRequired[JSONObject]
    code: NotRequired[int]


MAX_LEVELS = 128
"""Levels of objects and lists in a document. Go's decoder accepts 10,000; Python's stack has room for far fewer."""


def exceeds_max_levels(document: Any) -> bool:
    """Return whether a document in JSON has more than `MAX_LEVELS` levels of objects and lists."""
    layer = [document]
    for _ in range(MAX_LEVELS + 1):
        layer = [each for each in layer if isinstance(each, (dict, list))]
        if not layer:
            return False
        layer = [member for each in layer for member in (each.values() if isinstance(each, dict) else each)]
    return True


UNDECODABLE = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)
"""The exceptions of a msgspec decoder."""

_LEVELS = 32
"""Levels of a value that one match skips: more than objects usually have."""

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'


def _values(levels: int) -> bytes:
    """Return a pattern for the inside of a container: values with a limited number of levels."""
    pattern = flat = rb'[^"\[\]{}]++|' + _STRING
    for _ in range(levels):
        pattern = flat + rb"|[\[{](?:" + pattern + rb")*+[\]}]"
    return rb"(?:" + pattern + rb")*+"


_PART = rb'(?:[^"\[\]{},]++|' + _STRING + rb"|[\[{]" + _values(_LEVELS) + rb"[\]}])*+"

_to_mark = re.compile(_PART + rb"([\[\]{},])", re.DOTALL).match
_to_value = re.compile(rb"(" + _STRING + rb")\s*+:\s*+", re.DOTALL).match
_to_end_of_block = re.compile(rb'(?:[^"]{1,1000}+|' + _STRING + rb"){1,500}+", re.DOTALL).match
_without_strings = functools.partial(re.compile(_STRING, re.DOTALL).sub, b"")
_brackets = re.compile(rb'(?:[^"\[\]{}]++|' + _STRING + rb")*+[\[\]{}]", re.DOTALL).finditer
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
"""Turns brackets into the signed bytes 1 and -1."""
_NO_BRACKETS = bytes({*range(256)} - {*b"[]{}"})
_decode_text = msgspec.json.Decoder(str).decode


def json_members(text: bytes, *names: str) -> dict[str, bytes]:
    """Return the members of an object, each value verbatim; the last one if a key is repeated.

    Args:
        text: the object.
        names: return only the members with these names, which JSON must not escape. Saves a step for each other member.

    Raises:
        ValueError: the text is not a JSON object, judged by its outer level.
    """
    members: dict[str, bytes] = {}
    for part in _split(text, b"{}", names):
        found = _to_value(part)
        if found is None:
            raise ValueError("member without a value")
        try:
            members[_decode_text(found[1])] = part[found.end() :]
        except UNDECODABLE as error:
            raise ValueError(f"invalid key: {error}") from None
    return {name: members[name] for name in names if name in members} if names else members


def json_elements(text: bytes) -> list[bytes]:
    """Return the elements of an array, verbatim.

    Raises:
        ValueError: the text is not a JSON array, judged by its outer level.
    """
    return list(_split(text, b"[]"))


def json_array(text: bytes, name: str) -> int:
    """Find an array that is a member of an object; return where its first element begins.

    Raises:
        ValueError: there is no such member.
    """
    member = _to_member((name,))(text, text.index(b"{") + 1)
    found = _to_value(text, member)
    value = found.end() if found else member
    if found is None or _decode_text(found[1]) != name or text[value : value + 1] != b"[":
        raise ValueError(f"no array {name!r}")
    return value + 1


def json_parts(text: bytes, start: int, names: tuple[str, ...] = ()) -> Iterator[tuple[int, int]]:
    """Yield where each part of an array or object begins and ends; the last end is that of the container.

    Args:
        text: contains the container.
        start: where its first part begins.
        names: leave out the members of an object with other names, except values with many levels.

    Raises:
        ValueError: the container does not end.
    """
    to_member = _to_member(names) if names else None
    at = start
    while True:
        start = at = to_member(text, at) if to_member is not None else at
        while (found := _to_mark(text, at)) and found[1] in b"[{":
            at = _end_of_container(text, found.end())
        if found is None:
            raise ValueError("unbalanced brackets")
        yield start, found.start(1)
        if found[1] != b",":
            return
        at = found.end()


@functools.cache
def _to_member(names: tuple[str, ...]) -> Callable[[bytes, int], int]:
    """Compile a search for the next member with one of these names, or for a value that is too deep."""
    wanted = rb'\s*+"(?:%b)"\s*+:' % "|".join(names).encode()
    match = re.compile(rb"(?:(?!%b)%b,)*+\s*+" % (wanted, _PART), re.DOTALL).match

    def to_member(text: bytes, at: int) -> int:
        found = match(text, at)
        return found.end() if found else at

    return to_member


def _end_of_container(text: bytes, start: int) -> int:
    depth = 1
    while block := _to_end_of_block(text, start):
        steps = _without_strings(block[0]).translate(_STEPS, _NO_BRACKETS)
        depths = list(accumulate(array("b", steps), initial=depth))
        if 0 in depths:
            return next(islice(_brackets(text, start), depths.index(0) - 1, None)).end()
        depth, start = depths[-1], block.end()
    raise ValueError("unbalanced brackets")


def _split(text: bytes, brackets: bytes, names: tuple[str, ...] = ()) -> Iterator[bytes]:
    text = text.strip()
    if text[:1] != brackets[:1] or text[-1:] != brackets[1:]:
        raise ValueError(f"not enclosed in {brackets[:1].decode()} and {brackets[1:].decode()}")
    end = 0
    for start, end in json_parts(text, 1, names):
        if part := text[start:end].strip():
            yield part
    if end != len(text) - 1:
        raise ValueError("unbalanced brackets")


_INT, _FLOAT, _TIMESTAMP = (f"tag:yaml.org,2002:{name}" for name in ("int", "float", "timestamp"))
_INTEGER = re.compile(r"[-+]?(?:0[bB][01_]+|0[oO]?[0-7_]+|0[xX][0-9a-fA-F_]+|[0-9][0-9_]*)\Z")
_DECIMAL = re.compile(r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)\Z|\.(?:nan|NaN|NAN)\Z")
_OCTAL = re.compile(r"[-+]?0[0-7]+\Z")
_NUMBERS = ((_INT, _INTEGER), (_FLOAT, _DECIMAL), (_FLOAT, _NOT_FINITE))
_NUMBER_STARTS = list("-+.0123456789")
_ONE_LETTER_BOOLEAN = re.compile(r"[yYnN]\Z")


def use_kubernetes_scalars(loader: Any) -> None:
    """Make a subclass of PyYAML's safe loader read numbers and timestamps as Kubernetes does."""
    loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in (_INT, _FLOAT, _TIMESTAMP)]
        for first, resolvers in loader.yaml_implicit_resolvers.items()
    }
    for tag, pattern in _NUMBERS:
        loader.add_implicit_resolver(tag, pattern, _NUMBER_STARTS)
    for tag in (_INT, _FLOAT):  # also for values with the tag, which no pattern has matched
        loader.add_constructor(tag, lambda self, node: _read(self.construct_scalar(node)))


def quote_kubernetes_scalars(dumper: Any) -> None:
    """Make a subclass of PyYAML's safe dumper quote text that Kubernetes, too, would read as a number or boolean."""
    for tag, pattern in _NUMBERS:
        dumper.add_implicit_resolver(tag, pattern, _NUMBER_STARTS)
    dumper.add_implicit_resolver("tag:yaml.org,2002:bool", _ONE_LETTER_BOOLEAN, list("yYnN"))


def _read(text: str) -> int | float | str:
    """Read a string as a number; it stays a string if it is not one, or is out of range."""
    digits = text.replace("_", "")
    if _NOT_FINITE.match(text):
        return float(text.replace(".", ""))
    if _INTEGER.match(text):
        try:
            number = int(digits, 8 if _OCTAL.match(digits) else 0)
        except ValueError:  # more digits than Python converts, or 089
            number = 2**64
        if -(2**63) <= number < 2**64:
            return number
    if _DECIMAL.match(digits) and math.isfinite(float(digits)):
        return float(digits)
    return text


@functools.cache
def recorded(package: str, path: str) -> Any:
    """Return the content of a JSON file of a package, which is read once and must not be changed."""
    from importlib import resources  # loads the archives of the standard library, which no batcher needs

    return msgspec.json.decode(resources.files(package).joinpath(path).read_bytes())
