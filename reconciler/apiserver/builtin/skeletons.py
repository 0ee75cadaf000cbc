"""The fields that documents of built-in kinds always have: structs and numbers that Go writes even if empty."""

from __future__ import annotations

from reconciler.apiserver.builtin.kinds import KindInfo
from reconciler.apiserver.builtin.types import built_in_node
from reconciler.apiserver.encoding.data_files import recorded
from reconciler.wire import JSONObject

__all__ = ["filled", "shown_empty", "skeleton_of"]

_EXCLUDED = frozenset({"customresourcedefinitions"})
"""The kinds whose fields are set elsewhere."""


def skeleton_of(info: KindInfo, version: str) -> JSONObject:
    """Return the fields that an empty document of a built-in kind has besides its type; a required field is None."""
    node = None if info.plural in _EXCLUDED else built_in_node(info.group, version, info.kind)
    found: JSONObject = {"metadata": {}}
    for key in ("spec", "status"):
        child = node.properties.get(key) if node is not None else None
        if child is not None and child.properties:
            found[key] = {}
    always: JSONObject = recorded("builtin/skeletons.json").get(f"{info.group}/{info.plural}", {})
    return found | always


def shown_empty(info: KindInfo, skeleton: JSONObject) -> JSONObject:
    """Return the fields of the object in a bookmark, besides its metadata."""
    shown = {key: value for key, value in skeleton.items() if key != "metadata"}
    if info.replicas_in_bookmarks:
        shown["spec"] = {"replicas": 0, **shown["spec"]}
    return shown


def filled(document: JSONObject, skeleton: JSONObject) -> JSONObject:
    """Return a document with the missing fields of a skeleton added, except nulls; complete parts are shared."""
    missing = {}
    for key, empty in skeleton.items():
        if empty is None:
            continue
        value = document.get(key)
        if value is None:
            missing[key] = filled({}, empty) if isinstance(empty, dict) else empty
        elif isinstance(empty, dict) and isinstance(value, dict):
            whole = filled(value, empty)
            if whole is not value:
                missing[key] = whole
    return {**document, **missing} if missing else document
