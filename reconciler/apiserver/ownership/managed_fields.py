"""Keep ``metadata.managedFields``: who set which field, by which kind of request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from reconciler.apiserver.ownership.field_sets import FieldSet, compare, difference, intersection, union
from reconciler.apiserver.requests.metadata_validation import FIXED_BESIDE_STATUS
from reconciler.apiserver.requests.routing import Call
from reconciler.apiserver.schema.shape import Node

__all__ = [
    "NO_RESET",
    "Change",
    "Entry",
    "Key",
    "Owners",
    "Reset",
    "content_of",
    "in_order",
    "key_for",
    "manager_of",
    "reset_by",
]

Entry = dict[str, Any]
"""One entry of ``managedFields``."""

_MOST_UPDATERS = 10
"""How many entries of operation Update an object keeps; older ones are merged."""

_UNTRACKED = frozenset(
    {
        "creationTimestamp",
        "generation",
        "managedFields",
        "name",
        "namespace",
        "resourceVersion",
        "selfLink",
        "uid",
    }
)
"""The members of metadata that nobody owns."""


def manager_of(call: Call) -> str:
    """Return the name under which a request's changes are kept."""
    asked = call.query.get("fieldManager", "")
    if asked:
        return asked
    agent = call.request.headers.get("user-agent", "").partition("/")[0]
    name = "".join(letter for letter in agent if letter.isprintable())
    return name[:128] or "unknown"


def content_of(call: Call, doc: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a document that a request can own: without status, or status and what is written beside it.

    Metadata is always there, so that it never counts as added itself.
    """
    info = call.endpoint.info
    untracked = _UNTRACKED
    if call.subresource == "status":
        content = {"status": doc["status"]} if "status" in doc else {}
        if call.endpoint.resource.custom:
            return content
        untracked = untracked | set(FIXED_BESIDE_STATUS.get((info.group, info.plural), ()))
    else:
        content = _beside_metadata(call, doc)
    metadata = doc.get("metadata") or {}
    content["metadata"] = {key: value for key, value in metadata.items() if key not in untracked}
    return content


def _beside_metadata(call: Call, doc: Mapping[str, Any]) -> dict[str, Any]:
    apart = {"apiVersion", "kind", "metadata", *(("status",) if "status" in call.endpoint.subresources else ())}
    if call.endpoint.info.plural == "namespaces":
        apart.add("spec")
    return {key: value for key, value in doc.items() if key not in apart}


@dataclass(frozen=True)
class Reset:
    """Hold what a request changed where it may change nothing, such as a status beside the subresource.

    It is not written, but the real server leaves it out of the comparison for managers of the request's version alone:
    those that wrote in another version lose it.
    """

    changed: FieldSet
    removed: FieldSet

    @staticmethod
    def seen_by(other: Key, key: Key, fields: FieldSet, reset: FieldSet) -> FieldSet:
        """Return what a request changed as far as it concerns another manager."""
        return union(fields, reset) if reset and other.api_version != key.api_version else fields


NO_RESET = Reset({}, {})


class Change(NamedTuple):
    """Hold what an apply makes of what.

    Attributes:
        before: the content before.
        after: the content after.
        reset: what the request changed where it may change nothing.
        beside: whether it also asks for another value of what nobody can own.
    """

    before: Any
    after: Any
    reset: Reset = NO_RESET
    beside: bool = False


class Owners:
    """Hold who owns what in one object while a request changes it.

    Args:
        entries: the object's ``managedFields``.
        now: the stamp for entries that change.
    """

    def __init__(self, entries: Sequence[Entry], now: str) -> None:
        self._before = list(entries)
        self._now = now
        self._unstamped: Key | None = None
        self._actor: Key | None = None
        self.sets: dict[Key, FieldSet] = {}
        for entry in entries:
            # Of two entries of one manager the last one counts.
            self.sets[Key(entry)] = entry.get("fieldsV1") or {}

    def update(self, key: Key, before: Any, after: Any, place: Node, reset: Reset = NO_RESET) -> None:
        """Give a manager what its update changed, and take from the others what it changed or removed."""
        self._actor = key
        changed, removed = compare(before, after, place)
        self._take(key, changed, removed, reset)
        if not changed and not removed:
            return
        mine = union(difference(self.sets.get(key, {}), removed), changed)
        self._set(key, mine)

    def conflicts(self, key: Key, before: Any, after: Any, place: Node, reset: Reset = NO_RESET) -> dict[Key, FieldSet]:
        """Return what other managers own of what an apply would change."""
        changed, _ = compare(before, after, place)
        found = {}
        for other, fields in self.sets.items():
            if other != key:
                both = intersection(fields, reset.seen_by(other, key, changed, reset.changed))
                if both:
                    found[other] = both
        return found

    def apply(self, key: Key, fields: FieldSet, change: Change, place: Node) -> None:
        """Give a manager exactly what it applied, and take from the others what that changed or removed."""
        self._actor = key
        changed, removed = compare(change.before, change.after, place)
        self._take(key, changed, removed, change.reset)
        # An applier moves to the version that it applies in.
        self.sets.pop(key, None)
        self._set(key, fields)
        if not changed and not removed and not change.beside and change.before == change.after:
            # Taking over what is there already does not count as a time of change.
            self._unstamped = key

    def _take(self, key: Key, changed: FieldSet, removed: FieldSet, reset: Reset) -> None:
        for other in list(self.sets):
            if other != key:
                theirs = difference(self.sets[other], reset.seen_by(other, key, changed, reset.changed))
                self._set(other, difference(theirs, reset.seen_by(other, key, removed, reset.removed)))

    def _set(self, key: Key, fields: FieldSet) -> None:
        if fields:
            self.sets[key] = fields
        else:
            self.sets.pop(key, None)

    def entries(self) -> list[Entry]:
        """Return the ``managedFields``; entries that did not change keep their stamps."""
        earlier = {Key(entry): entry for entry in self._before}
        found = []
        for key, fields in self.sets.items():
            known = earlier.get(key)
            same = known is not None and known.get("fieldsV1") == fields and known["apiVersion"] == key.api_version
            if same and known is not None:
                found.append(known)
            elif key == self._unstamped or (known is not None and key != self._actor):
                # Who only loses something keeps the time, or lack of one.
                found.append(key.entry(fields, (known or {}).get("time", "")))
            else:
                found.append(key.entry(fields, self._now))
        return _capped(in_order(found), self._now)


class Key:
    """Identify a manager: the same name counts apart by operation, version and subresource."""

    __slots__ = ("api_version", "manager", "operation", "subresource")

    def __init__(self, entry: Mapping[str, Any]) -> None:
        self.manager = str(entry.get("manager") or "")
        self.operation = str(entry.get("operation") or "")
        # An applier stays itself when it moves to another version.
        self.api_version = str(entry.get("apiVersion") or "")
        self.subresource = str(entry.get("subresource") or "")

    def _identity(self) -> tuple[str, str, str, str]:
        version = "" if self.operation == "Apply" else self.api_version
        return (self.manager, self.operation, version, self.subresource)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def __str__(self) -> str:
        words = [f'"{self.manager}"']
        if self.subresource:
            words.append(f'with subresource "{self.subresource}"')
        if self.operation == "Update":
            words.append(f"using {self.api_version}")
        return " ".join(words)

    def entry(self, fields: FieldSet, now: str) -> Entry:
        """Return the entry for ``managedFields``."""
        found = {
            "manager": self.manager,
            "operation": self.operation,
            "apiVersion": self.api_version,
            "time": now,
            "fieldsType": "FieldsV1",
            "fieldsV1": fields,
            "subresource": self.subresource,
        }
        return {name: value for name, value in found.items() if value != ""}


def key_for(call: Call, operation: str) -> Key:
    """Return the identity under which a request's changes are kept."""
    return Key(
        {
            "manager": manager_of(call),
            "operation": operation,
            "apiVersion": call.endpoint.api_version,
            "subresource": call.subresource,
        }
    )


def reset_by(call: Call, before: Mapping[str, Any], after: Mapping[str, Any]) -> Reset:
    """Return what a request for a whole custom object would change of a status that has a subresource."""
    endpoint = call.endpoint
    if call.subresource or not endpoint.resource.custom or "status" not in endpoint.subresources:
        return NO_RESET
    old, new = before.get("status"), after.get("status")
    if old is new:
        return NO_RESET
    one, other = ({} if status is None else {"status": status} for status in (old, new))
    return Reset(*compare(one, other, endpoint.place))


def in_order(entries: Iterable[Entry]) -> list[Entry]:
    """Return entries in the order of ``managedFields``."""
    return sorted(entries, key=_order)


def _order(entry: Entry) -> tuple[str, ...]:
    return (
        entry.get("operation", ""),
        entry.get("time", ""),
        entry.get("manager", ""),
        entry.get("apiVersion", ""),
        entry.get("subresource", ""),
    )


def _capped(entries: list[Entry], now: str) -> list[Entry]:
    """Merge the oldest updaters when there are too many."""
    updaters = [entry for entry in entries if entry.get("operation") == "Update"]
    surplus = len(updaters) - _MOST_UPDATERS
    if surplus <= 0:
        return entries
    merged: FieldSet = {}
    for entry in updaters[: surplus + 1]:
        merged = union(merged, entry.get("fieldsV1") or {})
    ancient = Key({**updaters[0], "manager": "ancient-changes", "subresource": ""}).entry(merged, now)
    kept = [entry for entry in entries if entry not in updaters[: surplus + 1]]
    return in_order([*kept, ancient])
