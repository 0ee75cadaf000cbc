"""The forms of documents of built-in kinds.

They have fields that Go writes even if empty: structs and numbers. Events have two forms: that of the core group, in
which they are stored, and that of events.k8s.io.
"""

from __future__ import annotations

from reconciler.apiserver.builtin.kinds import KindInfo
from reconciler.apiserver.builtin.types import built_in_node
from reconciler.apiserver.encoding.data_files import recorded
from reconciler.wire import JSONObject

__all__ = ["filled", "from_events_group", "shown_empty", "skeleton_of", "to_events_group"]


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


_NAMES = {
    "involvedObject": "regarding",
    "message": "note",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
    "reportingComponent": "reportingController",
}
_BACK = {new: old for old, new in _NAMES.items()}


def to_events_group(doc: JSONObject) -> JSONObject:
    """Return an Event of the core group as one of events.k8s.io/v1."""
    shown = {_NAMES.get(key, key): value for key, value in doc.items() if value != ""}
    return {**shown, "apiVersion": "events.k8s.io/v1"}


def from_events_group(doc: JSONObject) -> JSONObject:
    """Return an Event of events.k8s.io/v1 as one of the core group."""
    stored = {_BACK.get(key, key): value for key, value in doc.items()}
    for key in ("reportingComponent", "reportingInstance"):
        stored.setdefault(key, "")
    return {**stored, "apiVersion": "v1"}
