"""Lay a model's changes over the document that it was read from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciler.meta import equal

__all__ = ["copy_json", "overlay"]


def copy_json(value: Any) -> Any:
    """Return a copy that shares no dict and no list with `value`."""
    if isinstance(value, Mapping):
        return {key: copy_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [copy_json(item) for item in value]
    return value


def overlay(document: Any, before: Any, after: Any) -> Any:
    """Return a copy of `document` with what changed from `before` to `after`.

    Args:
        document: what was read.
        before: what the model makes of `document`: without fields that it does not know, with its defaults.
        after: what the model says now.

    What did not change keeps the document's own words: a number stays as it was written, a default stays unsaid. A
    member that is in `before` and no longer in `after` is removed; one that is in `document` alone was never the
    model's and stays. In lists an unchanged item keeps its document wherever it moved to; if none
    moved and none was added or removed, the changed ones are paired by position.
    """
    if equal(before, after):
        return copy_json(document)
    if isinstance(after, Mapping) and isinstance(before, Mapping) and isinstance(document, Mapping):
        return _overlay_object(document, before, after)
    if isinstance(after, list) and isinstance(before, list) and isinstance(document, list):
        return _overlay_list(document, before, after)
    return copy_json(after)


def _overlay_object(document: Mapping[str, Any], before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    result = {key: copy_json(value) for key, value in document.items() if key in after or key not in before}
    for key, value in after.items():
        if not equal(before.get(key), value):
            result[key] = overlay(document.get(key), before.get(key), value)
    return result


def _overlay_list(document: list[Any], before: list[Any], after: list[Any]) -> list[Any]:
    if len(document) != len(before):
        return [copy_json(item) for item in after]
    origin = _origins(before, after)
    in_place = len(before) == len(after) and all(position == index for position, index in origin.items())
    result: list[Any] = []
    for position, item in enumerate(after):
        index = origin.get(position)
        if index is not None:
            result.append(copy_json(document[index]))
        elif in_place:
            result.append(overlay(document[position], before[position], item))
        else:
            result.append(copy_json(item))
    return result


def _origins(before: list[Any], after: list[Any]) -> dict[int, int]:
    """Return, for each position of `after` whose item was in `before`, where it was; each origin once."""
    origin = {at: at for at, (old, new) in enumerate(zip(before, after, strict=False)) if equal(old, new)}
    free = [index for index in range(len(before)) if index not in origin]
    for position in range(len(after)):
        if position not in origin:
            index = next((index for index in free if equal(before[index], after[position])), None)
            if index is not None:
                origin[position] = index
                free.remove(index)
    return origin
