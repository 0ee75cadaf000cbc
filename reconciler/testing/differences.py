"""The difference of two states of a cluster, with generated names, uids, versions and times matched up, not ignored."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from reconciler._core.redaction import PLACEHOLDER, is_secret_name
from reconciler._core.wire import JSONObject

ObjectKey = tuple[str, str, str]
"""The kind with its API group, the namespace (``""`` for none), and the name of an object."""

_BOOKKEEPING = ("managedFields", "resourceVersion", "generation", "selfLink")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
_RANDOM_SUFFIX = re.compile(r"(?<=[-._a-z])(?=[a-z0-9]*\d)[a-z0-9]{4,}$")
"""The end of a generated name: four characters or more with a digit."""
_ABSENT = object()
_MAX_CHARACTERS = 120


@dataclass(frozen=True, slots=True)
class FieldDifference:
    """A field in which two versions of an object differ.

    Attributes:
        path: a JSON pointer, such as ``/spec/replicas``.
        before: the value before; None if there was none.
        after: the value after; None if there is none.
        hidden: whether the values may be secret, so that `str` does not show them.
    """

    path: str
    before: Any
    after: Any
    hidden: bool

    def __str__(self) -> str:
        if self.hidden:
            states = [PLACEHOLDER if value is not None else "nothing" for value in (self.before, self.after)]
            if states[0] == states[1]:
                return f"{self.path}: another value (hidden)"
            return f"{self.path}: {states[0]} → {states[1]}"
        return f"{self.path}: {_shown(self.before)} → {_shown(self.after)}"


@dataclass(frozen=True, slots=True)
class ObjectDifference:
    """An object that differs between two states.

    Attributes:
        what: ``"created"`` only the state after has it, ``"deleted"`` only the state before, ``"changed"`` both.
        key: its key; of the state before, if both have it.
        before: its document before; None if it is created.
        after: its document after; None if it is deleted.
        fields: the fields that differ; empty unless it is changed.
    """

    what: Literal["created", "changed", "deleted"]
    key: ObjectKey
    before: JSONObject | None
    after: JSONObject | None
    fields: tuple[FieldDifference, ...] = ()

    def __str__(self) -> str:
        """Return lines for people: the object, and each field that differs."""
        signs = {"created": "+", "changed": "~", "deleted": "-"}
        return "\n".join([f"{signs[self.what]} {describe_key(self.key)}", *(f"    {each}" for each in self.fields)])


def key_of(document: Mapping[str, Any]) -> ObjectKey:
    """Return the key of an object, without the API version, which names a representation."""
    metadata = document["metadata"]
    group = str(document.get("apiVersion", "")).rpartition("/")[0]
    kind = f"{document.get('kind', '')}.{group}" if group else str(document.get("kind", ""))
    return kind, str(metadata.get("namespace") or ""), str(metadata.get("name", ""))


def describe_key(key: ObjectKey) -> str:
    """Return an object's kind, namespace and name for people, such as ``Deployment default/web``."""
    kind, namespace, name = key
    return f"{kind.partition('.')[0]} {namespace}/{name}" if namespace else f"{kind.partition('.')[0]} {name}"


def compare_states(
    before: Iterable[JSONObject],
    after: Iterable[JSONObject],
    *,
    varies: Callable[[ObjectKey, str], bool] = lambda _key, _path: False,
) -> list[ObjectDifference]:
    """Compare two sets of objects, and return the differences in the order of their keys.

    Objects are matched by kind, namespace and name, and then by the part of a name that was not generated. A value is
    equal to another one if it names the matched object, its uid or its version, or if both are times. A field that only
    one of them has differs. Versions, generations and managed fields of the objects themselves are not compared, and
    ``observedGeneration`` by whether it is the current one.

    Args:
        before: the documents of the first state.
        after: the documents of the second.
        varies: returns whether values at a path of an object may differ, if both are there and have the same type.
            Default: none may.
    """
    old, new = {key_of(each): each for each in before}, {key_of(each): each for each in after}
    pairs = _matched(old, new)
    names = _Names(old, new, pairs)
    found = [ObjectDifference("deleted", key, old[key], None) for key in old if key not in pairs]
    found += [ObjectDifference("created", key, None, new[key]) for key in new.keys() - set(pairs.values())]
    for key, other in pairs.items():
        hides = key[0] == "Secret"
        fields = tuple(
            FieldDifference(path, first, second, (hides and _is_data(path)) or is_secret_name(path.rpartition("/")[2]))
            for path, first, second in _unequal(_comparable(old[key]), _comparable(new[other]), "", names)
            if not (varies(key, path) and type(first) is type(second))
        )
        if fields:
            found.append(ObjectDifference("changed", key, old[key], new[other], fields))
    return sorted(found, key=lambda each: each.key)


def _matched(old: Mapping[ObjectKey, JSONObject], new: Mapping[ObjectKey, JSONObject]) -> dict[ObjectKey, ObjectKey]:
    """Return the keys of the objects that both states have, by the keys of the first."""
    pairs = {key: key for key in old if key in new}
    waiting: defaultdict[ObjectKey, list[ObjectKey]] = defaultdict(list)
    for key in sorted(new.keys() - old.keys(), key=lambda each: _age(new[each])):
        waiting[_without_random(key, new[key])].append(key)
    for key in sorted(old.keys() - new.keys(), key=lambda each: _age(old[each])):
        like = waiting.get(_without_random(key, old[key]))
        if like:
            pairs[key] = like.pop(0)
    return pairs


def _age(document: JSONObject) -> tuple[str, int]:
    metadata = document["metadata"]
    version = str(metadata.get("resourceVersion", ""))
    return str(metadata.get("creationTimestamp", "")), int(version) if version.isdigit() else 0


def _without_random(key: ObjectKey, document: JSONObject) -> ObjectKey:
    kind, namespace, name = key
    prefix = document["metadata"].get("generateName")
    return kind, namespace, prefix if prefix and name.startswith(prefix) else _RANDOM_SUFFIX.sub("*", name)


class _Names:
    """Which names, uids and versions of two states stand for the same objects."""

    def __init__(
        self,
        old: Mapping[ObjectKey, JSONObject],
        new: Mapping[ObjectKey, JSONObject],
        pairs: Mapping[ObjectKey, ObjectKey],
    ) -> None:
        self._renamed: dict[str, str] = {}
        self._versions: set[tuple[str, str]] = set()
        for key, other in pairs.items():
            first, second = old[key]["metadata"], new[other]["metadata"]
            for field in ("uid", "name"):
                if first.get(field) != second.get(field):
                    self._renamed[str(second.get(field))] = str(first.get(field))
            self._versions.add((str(first.get("resourceVersion")), str(second.get("resourceVersion"))))
        longest_first = sorted(self._renamed, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def equal(self, first: str, second: str) -> bool:
        """Return whether a string of the first state means the same as one of the second."""
        if first == second or (first, second) in self._versions:
            return True
        if self._pattern is not None and self._pattern.sub(lambda each: self._renamed[each.group()], second) == first:
            return True
        return bool(_TIME.search(first)) and _TIME.sub("", first) == _TIME.sub("", second)


def _comparable(document: JSONObject) -> JSONObject:
    metadata = {name: value for name, value in document["metadata"].items() if name not in _BOOKKEEPING}
    found = {**document, "metadata": metadata}
    found.pop("apiVersion", None)
    generation = document["metadata"].get("generation")
    return {name: _with_observed(value, generation) for name, value in found.items()}


def _with_observed(value: Any, generation: object) -> Any:
    if isinstance(value, dict):
        return {
            name: ("current" if each == generation else "old")
            if name == "observedGeneration"
            else _with_observed(each, generation)
            for name, each in value.items()
        }
    return [_with_observed(each, generation) for each in value] if isinstance(value, list) else value


def _unequal(first: Any, second: Any, path: str, names: _Names) -> Iterator[tuple[str, Any, Any]]:
    """Yield the paths at which two documents differ, and both values; None for one that is absent."""
    if isinstance(first, dict) and isinstance(second, dict):
        for name in [*first, *(name for name in second if name not in first)]:
            inner = f"{path}/{name.replace('~', '~0').replace('/', '~1')}"
            yield from _unequal(first.get(name, _ABSENT), second.get(name, _ABSENT), inner, names)
    elif isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        for number, (one, other) in enumerate(zip(first, second, strict=True)):
            yield from _unequal(one, other, f"{path}/{number}", names)
    elif isinstance(first, str) and isinstance(second, str):
        if not names.equal(first, second):
            yield path, first, second
    elif type(first) is not type(second) or first != second:
        yield path, None if first is _ABSENT else first, None if second is _ABSENT else second


def _is_data(path: str) -> bool:
    return path.startswith(("/data", "/stringData"))


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]}…"
