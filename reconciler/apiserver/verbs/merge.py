"""The merge of server-side apply: applied configurations, pruning, and schema errors, as in structured-merge-diff."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from reconciler._core.wire import JSONObject, JSONValue
from reconciler.apiserver.encoding.text import GO_TYPES, go_json, go_syntax, go_value, quoted
from reconciler.apiserver.managed_fields import FieldSet, is_granular, items_by_element, path_element
from reconciler.apiserver.schema.shape import ANYTHING, Node
from reconciler.apiserver.schema.validation import item_key

__all__ = [
    "merge",
    "prune",
    "type_errors",
]


_NO_KEY: Mapping[type, str] = {
    dict: "associative list without keys has an element that's a map type",
    list: "not supported: associative list with lists as elements",
    type(None): "associative list without keys has an element that's an explicit null",
}


def merge(live: JSONValue, config: JSONValue, node: Node) -> JSONValue:
    """Return a value with an applied one merged into it; unchanged parts are shared.

    A null does not replace a granular object or list that has content.
    """
    if config is None and live and is_granular(live, node):
        return live
    if node.map_type != "atomic" and isinstance(live, dict) and isinstance(config, dict):
        merged = dict(live)
        for key, value in config.items():
            merged[key] = merge(live[key], value, node.child(key) or ANYTHING) if key in live else value
        return merged
    if node.list_type in ("set", "map") and isinstance(live, list) and isinstance(config, list):
        return _merge_lists(live, config, node)
    return config


def _merge_lists(live: list[JSONValue], config: list[JSONValue], node: Node) -> list[JSONValue]:
    """Merge lists by path element.

    Items in both lists are in the applied order; items that are only live keep their place. Duplicates among the live
    items stay unless the item is applied, which then replaces them all.
    """
    schema = node.items or ANYTHING
    left, right = [path_element(item, node) for item in live], [path_element(item, node) for item in config]
    old, new = items_by_element(live, node), dict(zip(right, config, strict=True))
    shared = [element for element in right if element in old]
    found: list[JSONValue] = []
    done: set[str] = set()
    at, to = 0, 0

    def take(element: str) -> None:
        known = old.get(element, ())
        found.append(merge(known[0], new[element], schema) if len(known) == 1 else new[element])
        done.add(element)
        if shared and shared[0] == element:
            del shared[0]

    while at < len(left) or to < len(right):
        if at < len(left) and to < len(right):
            if left[at] == right[to]:
                take(right[to])
                at, to = at + 1, to + 1
                continue
            if left[at] in new and shared and shared[0] != left[at]:
                at += 1
                continue
        if at < len(left):
            if left[at] not in new:
                found.append(live[at])
                at += 1
                continue
            if left[at] in done:
                at += 1
        if to < len(right):
            take(right[to])
            to += 1
    return found


def prune(value: JSONValue, last: FieldSet, managed: FieldSet, node: Node) -> JSONValue:
    """Return a value without what its manager applied last time and no manager owns any more.

    An object or list that loses all its content becomes null, as in the real server's library.
    """
    if isinstance(value, dict):
        kept = _pruned_members(value, last, managed, node)
        return kept if kept or not value else None
    if isinstance(value, list) and node.list_type in ("set", "map"):
        items = list(_pruned_items(value, last, managed, node))
        return items if items or not value else None
    return value


def _pruned_members(value: JSONObject, last: FieldSet, managed: FieldSet, node: Node) -> JSONObject:
    kept = dict(value)
    for element, below in last.items():
        key = element[2:]
        if element == "." or key not in kept:
            continue
        if element not in managed:
            del kept[key]
        elif below:
            kept[key] = prune(kept[key], below, managed[element], node.child(key) or ANYTHING)
    return kept


def _pruned_items(value: list[JSONValue], last: FieldSet, managed: FieldSet, node: Node) -> Iterator[JSONValue]:
    for item in value:
        element = path_element(item, node)
        below = last.get(element)
        if below is None or element in managed:
            yield prune(item, below, managed[element], node.items or ANYTHING) if below else item


def type_errors(value: JSONValue, node: Node, path: str = "") -> Iterator[str]:
    """Yield how an applied configuration violates the schema, in the words of structured-merge-diff."""
    if node is ANYTHING or value is None:
        return
    if node.type == "object" or node.properties:
        yield from _object_problems(value, node, path)
    elif node.type == "array":
        yield from _list_problems(value, node, path)
    else:
        problem = _scalar_problem(value, node)
        if problem:
            yield f"{path}: {problem}"


def _object_problems(value: JSONValue, node: Node, path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{path}: expected map, got {_boxed(value)}"
        return
    for key, member in value.items():
        child = node.child(key)
        if child is None:
            if not node.preserve:
                yield f"{path}.{key}: field not declared in schema"
        else:
            yield from type_errors(member, child, f"{path}.{key}")


def _list_problems(value: JSONValue, node: Node, path: str) -> Iterator[str]:
    if not isinstance(value, list):
        yield f"{path}: expected list, got {_boxed(value)}"
        return
    seen: set[str] = set()
    for index, item in enumerate(value):
        where = f"[{index}]"
        if node.list_type in ("set", "map"):
            problem = _key_error(item, node)
            if problem:
                # structured-merge-diff reports nothing more about such a list.
                yield f"{path}: element {index}: {problem}"
                return
            element, where = path_element(item, node), _bracketed(item, node)
            if element in seen:
                yield f"{path}: duplicate entries for key {where}"
            seen.add(element)
        if node.items is not None:
            yield from type_errors(item, node.items, f"{path}{where}")


def _key_error(item: JSONValue, node: Node) -> str:
    """Return why an item of a set or keyed list has no path element, or nothing."""
    if node.list_type == "set":
        return _NO_KEY.get(type(item), "")
    if not isinstance(item, dict):
        return f"associative list with keys may not have {'a null element' if item is None else 'non-map elements'}"
    if path_element(item, node) != "k:{}":
        return ""
    keys = go_json(list(node.map_keys)).replace('","', '" "')
    return (
        f"associative list with keys has an element that omits all key fields {keys} (and doesn't have default values "
        "for any key fields)"
    )


def _bracketed(item: JSONValue, node: Node) -> str:
    if node.list_type == "set":
        return f"[={_shown(item)}]"
    return f"[{','.join(f'{key}={_shown(value)}' for key, value in sorted(item_key(item, node).items()))}]"


def _shown(value: JSONValue) -> str:
    """Return a value as structured-merge-diff shows it in a path."""
    if isinstance(value, dict):
        return "".join(f"{key}={_shown(member)}" for key, member in value.items())
    if isinstance(value, list):
        return f"[{','.join(map(_shown, value))}]"
    return quoted(value)


def _scalar_problem(value: JSONValue, node: Node) -> str:
    if node.format == "quantity" or (node.type == "string" and node.format not in ("", "byte")):
        return "" if not isinstance(value, (dict, list)) else f"expected any scalar, got {_boxed(value)}"
    if not node.type:
        return ""
    if node.type in ("integer", "number"):
        fits = isinstance(value, (int, float)) and not isinstance(value, bool)
        return "" if fits else f"expected numeric (int or float), got {GO_TYPES[type(value)]}"
    if node.type == "boolean":
        return "" if isinstance(value, bool) else f"expected boolean, got {_boxed(value)}"
    shown = f"&value.valueUnstructured{{Value:{go_syntax(value)}}}"
    return "" if isinstance(value, str) else f"expected string, got {shown}"


def _boxed(value: JSONValue) -> str:
    """Return a value as structured-merge-diff shows it in an error."""
    return f"&{{{go_value(value)}}}"
