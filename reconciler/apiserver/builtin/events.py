"""Events in their two forms: that of the core group, in which they are stored, and that of events.k8s.io."""

from __future__ import annotations

from reconciler.wire import JSONObject

__all__ = [
    "finish_core_event",
    "finish_event",
    "from_events_group",
    "to_events_group",
]

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


def finish_core_event(doc: JSONObject, _before: JSONObject | None) -> None:
    """Set the fields that Events of the core group always have, if only to empty values."""
    for key in ("eventTime", "firstTimestamp", "lastTimestamp"):
        doc.setdefault(key, None)
    for key in ("reportingComponent", "reportingInstance"):
        doc.setdefault(key, "")


def finish_event(doc: JSONObject, _before: JSONObject | None) -> None:
    """Set the fields that Events of events.k8s.io always have, if only to empty values."""
    for key in ("eventTime", "deprecatedFirstTimestamp", "deprecatedLastTimestamp"):
        doc.setdefault(key, None)
