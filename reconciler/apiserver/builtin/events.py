"""Events in their two forms: that of the core group, in which they are stored, and that of events.k8s.io."""

from __future__ import annotations

from reconciler.wire import JSONObject

__all__ = ["from_events_group", "to_events_group"]

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
