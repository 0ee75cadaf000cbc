"""Keep who owns the replicas of an object when its Scale is written.

The real server lends the owners of the replicas to the Scale, lets them change there, and takes them back. What comes
back is an entry beside the one that the manager had, and of two entries of one manager the last one counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciler.apiserver.ownership.fields import FieldSet, difference, intersection
from reconciler.apiserver.ownership.managers import Entry, Key, in_order, manager_of
from reconciler.apiserver.requests.routing import Call
from reconciler.apiserver.storage.registry import Endpoint

__all__ = ["scaled_entries"]

_SCALE = "autoscaling/v1"


def scaled_entries(call: Call, known: list[Entry], *, path: str, before: int, after: int) -> list[Entry]:
    """Return the ``managedFields`` of an object after a write to its Scale.

    Args:
        call: the request.
        known: the ``managedFields`` before.
        path: the dotted path of the replicas in the object, in the version of the request.
        before: the replicas that the Scale showed.
        after: the replicas that it is to have.
    """
    places = _places(call.endpoint, path)
    parents = {Key(entry): entry for entry in known}
    lent = {_in_scale(key): key for key, entry in parents.items() if _holds(entry, places.get(key.api_version))}
    owners = set(lent)
    if owners and before != after:
        # A Scale does not show zero, so nobody owns it.
        owners = {Key({**_scaler(call), "apiVersion": _SCALE})} if after else set()
    found = []
    for key, entry in parents.items():
        if key.api_version not in places:
            continue
        place = places[key.api_version]
        if not _holds(entry, place) or key in owners:
            owners.discard(key)
            found.append(entry)
        elif rest := difference(entry["fieldsV1"], place or {}):
            found.append({**entry, "fieldsV1": rest})
    mine = places[call.endpoint.api_version] or {}
    found += [_entry(key, call.endpoint.api_version, mine) for key in owners]
    return in_order(found)


def _scaler(call: Call) -> Entry:
    return {"manager": manager_of(call), "operation": "Update", "subresource": "scale"}


def _places(endpoint: Endpoint, path: str) -> Mapping[str, FieldSet | None]:
    """Return where the versions of a kind keep the replicas; None for a version without a Scale."""
    if not endpoint.resource.custom:
        return {endpoint.api_version: _place(path)}
    versions = endpoint.resource.endpoints.values()
    return {each.api_version: None if each.scale is None else _place(each.scale.spec) for each in versions}


def _place(path: str) -> FieldSet:
    fields: FieldSet = {}
    for part in reversed(path.lstrip(".").split(".")):
        fields = {f"f:{part}": fields}
    return fields


def _holds(entry: Entry, place: FieldSet | None) -> bool:
    return place is not None and bool(intersection(entry.get("fieldsV1") or {}, place))


def _in_scale(key: Key) -> Key:
    """Return how the Scale knows a manager."""
    names = {"manager": key.manager, "operation": key.operation, "subresource": key.subresource}
    return Key({**names, "apiVersion": _SCALE})


def _entry(key: Key, api_version: str, fields: FieldSet) -> Entry:
    # The real server gives these no time.
    names: dict[str, Any] = {"manager": key.manager, "operation": key.operation, "subresource": key.subresource}
    return Key({**names, "apiVersion": api_version}).entry(fields, "")
