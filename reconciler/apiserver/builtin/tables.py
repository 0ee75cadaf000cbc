"""The tables of built-in kinds: the columns of all of them, and those of API services, revisions and requests."""

from __future__ import annotations

from datetime import datetime, timedelta

from reconciler.apiserver.builtin.columns import Column, built_in_columns, show_age, value_at
from reconciler.wire import JSONObject

__all__ = ["table_columns"]

_NAME, _AGE = built_in_columns("", "")
_NONE = "<none>"


def _condition(doc: JSONObject, kind: str) -> JSONObject:
    return next((each for each in value_at(doc, "status.conditions", ()) if each.get("type") == kind), {})


def _request_status(doc: JSONObject, _now: datetime) -> str:
    decided = next((kind for kind in ("Denied", "Approved") if _condition(doc, kind)), "Pending")
    failed = ",Failed" if _condition(doc, "Failed") else ""
    return f"{decided}{failed}{',Issued' if value_at(doc, 'status.certificate') else ''}"


def _requested_duration(doc: JSONObject, now: datetime) -> str:
    seconds = value_at(doc, "spec.expirationSeconds")
    return _NONE if seconds is None else show_age((now - timedelta(seconds=seconds)).isoformat(), now)


def _controller(doc: JSONObject, _now: datetime) -> str:
    for owner in value_at(doc, "metadata.ownerReferences", ()):
        if owner.get("controller"):
            group = owner.get("apiVersion", "").rpartition("/")[0]
            return f"{owner.get('kind', '').lower()}{f'.{group}' if group else ''}/{owner.get('name')}"
    return _NONE


def _api_service(doc: JSONObject, _now: datetime) -> str:
    service = value_at(doc, "spec.service")
    return f"{service.get('namespace')}/{service.get('name')}" if service else "Local"


def _availability(doc: JSONObject, _now: datetime) -> str:
    found = _condition(doc, "Available")
    status, reason = found.get("status", "Unknown"), found.get("reason")
    return f"{status} ({reason})" if reason and status != "True" else str(status)


_OTHERS: dict[tuple[str, str], tuple[Column, ...]] = {
    ("apps", "controllerrevisions"): (
        _NAME,
        Column("Controller", "string", _controller),
        Column("Revision", "string", lambda doc, _now: value_at(doc, "revision", 0)),
        _AGE,
    ),
    ("apiregistration.k8s.io", "apiservices"): (
        _NAME,
        Column("Service", "string", _api_service),
        Column("Available", "string", _availability),
        _AGE,
    ),
    ("certificates.k8s.io", "certificatesigningrequests"): (
        _NAME,
        _AGE,
        Column("SignerName", "string", lambda doc, _now: value_at(doc, "spec.signerName") or _NONE),
        Column("Requestor", "string", lambda doc, _now: value_at(doc, "spec.username", "")),
        Column("RequestedDuration", "string", _requested_duration),
        Column("Condition", "string", _request_status),
    ),
}


def table_columns(group: str, plural: str) -> tuple[Column, ...]:
    """Return the columns of a built-in kind; name and age by default."""
    return _OTHERS.get((group, plural)) or built_in_columns(group, plural)
