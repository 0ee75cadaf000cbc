"""The fields in which two versions of an object differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from reconciler.meta import equal

__all__ = ["Difference", "Item", "Path", "differences", "format_fields"]

_LIST_KEYS = ("name", "type", "key", "uid", "ip", "containerPort", "port")
"""Members that identify an item of a list, as in the built-in kinds; the first one that fits is used."""

_MAX_DEPTH = 50
_MAX_NAME = 80
_MAX_PATH = 200

_UNINTERESTING = ("managedFields", "resourceVersion", "generation", "selfLink")  # of the metadata


class Item(NamedTuple):
    """An item of a list in a path.

    Attributes:
        label: such as ``"name=web"``, or the index.
        position: its index.
        value: the item.
    """

    label: str
    position: int
    value: Any


Path = tuple[str | Item, ...]
"""The members and items that lead to a field."""


class Difference(NamedTuple):
    """A field that differs.

    Attributes:
        path: the path to it.
        before: its value; None if it was absent.
        after: its value; None if it is absent.
    """

    path: Path
    before: Any
    after: Any


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Difference]:
    """Yield the fields in which two versions differ: those of the metadata last, without those that the server keeps.

    Objects that appear or disappear are compared member by member. Items of lists are compared by their name, type or
    key if all have one, and by their index otherwise. A list of strings or numbers is one field, and so is everything
    deeper than 50 levels.
    """
    for name in sorted({*old, *new}, key=lambda name: (name == "metadata", name == "status", name)):
        yield from _compare((name,), old.get(name), new.get(name))


def format_fields(path: Path) -> str:
    """Return a path as text, such as ``spec.containers[name=web].image``; at most 200 characters."""
    text = ""
    for step in path:
        if isinstance(step, Item):
            text += f"[{_shortened(step.label)}]"
        else:
            text += f"[{_shortened(step)}]" if "." in step or "/" in step else f".{_shortened(step)}"
    text = text.removeprefix(".")
    return text if len(text) <= _MAX_PATH else f"{text[: _MAX_PATH - 1]}…"


def _compare(path: Path, old: Any, new: Any) -> Iterator[Difference]:
    if old == new:  # in C, which matters for large objects
        return
    kinds = {type(value) for value in (old, new) if value is not None}
    if len(path) < _MAX_DEPTH and kinds == {dict} and (old or new):
        before, after = old or {}, new or {}
        for name in dict.fromkeys((*before, *after)):
            if path == ("metadata",) and name in _UNINTERESTING:
                continue
            yield from _compare((*path, name), before.get(name), after.get(name))
    elif len(path) < _MAX_DEPTH and kinds == {list} and _are_objects([*(old or ()), *(new or ())]):
        before, after = _items(old or [], new or [])
        for label in dict.fromkeys((*before, *after)):
            item = after.get(label) or before[label]
            yield from _compare((*path, item), _value(before, label), _value(after, label))
    elif not equal(old, new):
        yield Difference(path, old, new)


def _are_objects(items: list[Any]) -> bool:
    return bool(items) and all(isinstance(item, dict) for item in items)


def _value(items: dict[str, Item], label: str) -> Any:
    return items[label].value if label in items else None


def _items(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> tuple[dict[str, Item], dict[str, Item]]:
    """Return the items of two lists by their labels."""
    for key in _LIST_KEYS:
        if _identifies(key, old) and _identifies(key, new):
            return _labeled(old, key), _labeled(new, key)
    return _labeled(old, None), _labeled(new, None)


def _identifies(key: str, items: list[dict[str, Any]]) -> bool:
    values = [item.get(key) for item in items]
    return all(isinstance(value, (str, int)) for value in values) and len({str(each) for each in values}) == len(values)


def _labeled(items: list[dict[str, Any]], key: str | None) -> dict[str, Item]:
    labels = (str(index) if key is None else f"{key}={item[key]}" for index, item in enumerate(items))
    return {label: Item(label, index, item) for index, (label, item) in enumerate(zip(labels, items, strict=True))}


def _shortened(name: str) -> str:
    name = "".join(sign if sign.isprintable() else "�" for sign in name[: _MAX_NAME + 1])
    return name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 1]}…"
