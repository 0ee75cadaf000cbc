"""``metadata.managedFields``: which manager set which field, and through which operation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from reconciler.apiserver.ownership.field_sets import FieldSet, compare, difference, intersection, union
from reconciler.apiserver.requests.routing import Call
from reconciler.apiserver.schema.shape import Node
from reconciler.wire import JSONObject, JSONValue, ManagedFieldsEntry

__all__ = [
    "NO_RESET_FIELDS",
    "Change",
    "ManagedFields",
    "ManagerKey",
    "ResetFields",
    "manager_key",
    "manager_of",
    "ownable_content",
    "reset_fields_of",
    "sort_entries",
]

_MAX_UPDATERS = 10
"""How many entries with operation Update an object keeps; older ones are merged."""

_UNTRACKED = frozenset(
    {"creationTimestamp", "generation", "managedFields", "name", "namespace", "resourceVersion", "selfLink", "uid"}
)
"""The fields of metadata that have no owner."""


@dataclass(slots=True, eq=False)
class ManagerKey:
    """The identity of a manager: one name is several managers if operation, version or subresource differ.

    A manager that applies keeps its identity when it moves to another API version.
    """

    manager: str
    operation: str
    api_version: str
    subresource: str = ""

    @classmethod
    def of(cls, entry: ManagedFieldsEntry) -> ManagerKey:
        """Return the identity of the manager of an entry."""
        return cls(*(str(entry.get(name) or "") for name in ("manager", "operation", "apiVersion", "subresource")))

    def _identity(self) -> tuple[str, str, str, str]:
        version = "" if self.operation == "Apply" else self.api_version
        return (self.manager, self.operation, version, self.subresource)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ManagerKey) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def __str__(self) -> str:
        words = [f'"{self.manager}"']
        if self.subresource:
            words.append(f'with subresource "{self.subresource}"')
        if self.operation == "Update":
            words.append(f"using {self.api_version}")
        return " ".join(words)

    def entry(self, fields: FieldSet, time: str) -> ManagedFieldsEntry:
        """Return the entry for ``managedFields``, without a time if `time` is empty."""
        entry = {
            "manager": self.manager,
            "operation": self.operation,
            "apiVersion": self.api_version,
            "time": time,
            "fieldsType": "FieldsV1",
            "fieldsV1": fields,
            "subresource": self.subresource,
        }
        return cast("ManagedFieldsEntry", {name: value for name, value in entry.items() if value != ""})


def manager_of(call: Call) -> str:
    """Return the name of the manager that a request writes as: ``fieldManager``, or the start of the User-Agent."""
    asked = call.query.get("fieldManager", "")
    if asked:
        return asked
    agent = call.request.headers.get("user-agent", "").partition("/")[0]
    name = "".join(letter for letter in agent if letter.isprintable())
    return name[:128] or "unknown"


def manager_key(call: Call, operation: str) -> ManagerKey:
    """Return the identity of the manager that a request writes as."""
    return ManagerKey(manager_of(call), operation, call.endpoint.api_version, call.subresource)


def ownable_content(call: Call, doc: Mapping[str, Any]) -> JSONObject:
    """Return the part of a document whose fields a request can own.

    A request to ``/status`` of a custom kind owns the status alone; of a built-in kind also metadata. Any other request
    owns everything but the status, if that is a subresource. ``metadata`` is always present, so that it never counts as
    an added field itself.
    """
    info = call.endpoint.info
    untracked = _UNTRACKED
    if call.subresource == "status":
        content = {"status": doc["status"]} if "status" in doc else {}
        if call.endpoint.resource.custom:
            return content
        untracked = untracked | {*info.fixed_in_status}
    else:
        excluded = {"apiVersion", "kind", "metadata", *(("status",) if "status" in call.endpoint.subresources else ())}
        if info.plural == "namespaces":
            excluded.add("spec")
        content = {key: value for key, value in doc.items() if key not in excluded}
    metadata = doc.get("metadata") or {}
    content["metadata"] = {key: value for key, value in metadata.items() if key not in untracked}
    return content


@dataclass(frozen=True)
class ResetFields:
    """The changes of a request to fields that it cannot write, such as the status outside the subresource.

    These changes are not stored. The real server excludes them from the comparison only for managers of the request's
    version: managers that wrote in another version lose the fields.
    """

    changed: FieldSet
    removed: FieldSet

    @staticmethod
    def seen_by(other: ManagerKey, key: ManagerKey, fields: FieldSet, reset: FieldSet) -> FieldSet:
        """Return the changes of a request by `key` that affect the manager `other`."""
        return union(fields, reset) if reset and other.api_version != key.api_version else fields


NO_RESET_FIELDS = ResetFields({}, {})


def reset_fields_of(call: Call, before: Mapping[str, Any], after: Mapping[str, Any]) -> ResetFields:
    """Return what a request to a whole custom object would change of a status that is a subresource."""
    endpoint = call.endpoint
    if call.subresource or not endpoint.resource.custom or "status" not in endpoint.subresources:
        return NO_RESET_FIELDS
    old, new = before.get("status"), after.get("status")
    if old is new:
        return NO_RESET_FIELDS
    one, other = ({} if status is None else {"status": status} for status in (old, new))
    return ResetFields(*compare(one, other, endpoint.schema))


class Change(NamedTuple):
    """The effect of an apply.

    Attributes:
        before: the content before.
        after: the content after.
        reset: what the request would change of fields that it cannot write.
        changes_unowned: whether it also asks for other values of fields that have no owner.
    """

    before: JSONValue
    after: JSONValue
    reset: ResetFields = NO_RESET_FIELDS
    changes_unowned: bool = False


class ManagedFields:
    """The field owners of one object while a request changes it.

    Attributes:
        sets: the fields of each manager.
    """

    def __init__(self, entries: Sequence[ManagedFieldsEntry], now: str) -> None:
        self._before = list(entries)
        self._now = now
        self._unstamped: ManagerKey | None = None
        self._actor: ManagerKey | None = None
        self.sets: dict[ManagerKey, FieldSet] = {}
        for entry in entries:
            # The last of several entries with one identity counts.
            self.sets[ManagerKey.of(entry)] = entry.get("fieldsV1") or {}

    def update(
        self, key: ManagerKey, before: JSONValue, after: JSONValue, schema: Node, reset: ResetFields = NO_RESET_FIELDS
    ) -> None:
        """Give a manager the fields that its update changed, and take from the others what it changed or removed."""
        self._actor = key
        changed, removed = compare(before, after, schema)
        self._take(key, changed, removed, reset)
        if not changed and not removed:
            return
        mine = union(difference(self.sets.get(key, {}), removed), changed)
        self._set(key, mine)

    def conflicts(
        self, key: ManagerKey, before: JSONValue, after: JSONValue, schema: Node, reset: ResetFields = NO_RESET_FIELDS
    ) -> dict[ManagerKey, FieldSet]:
        """Return the fields of other managers that an apply would change."""
        changed, _ = compare(before, after, schema)
        found = {}
        for other, fields in self.sets.items():
            if other != key:
                both = intersection(fields, reset.seen_by(other, key, changed, reset.changed))
                if both:
                    found[other] = both
        return found

    def apply(self, key: ManagerKey, fields: FieldSet, change: Change, schema: Node) -> None:
        """Give a manager exactly the fields that it applied, and take from the others what that changed or removed."""
        self._actor = key
        changed, removed = compare(change.before, change.after, schema)
        self._take(key, changed, removed, change.reset)
        # Replaces the key too: an applier moves to the version that it applies in.
        self.sets.pop(key, None)
        self._set(key, fields)
        if not changed and not removed and not change.changes_unowned and change.before == change.after:
            # Taking ownership of values that are already set does not update the time.
            self._unstamped = key

    def _take(self, key: ManagerKey, changed: FieldSet, removed: FieldSet, reset: ResetFields) -> None:
        for other in list(self.sets):
            if other != key:
                theirs = difference(self.sets[other], reset.seen_by(other, key, changed, reset.changed))
                self._set(other, difference(theirs, reset.seen_by(other, key, removed, reset.removed)))

    def _set(self, key: ManagerKey, fields: FieldSet) -> None:
        if fields:
            self.sets[key] = fields
        else:
            self.sets.pop(key, None)

    def entries(self) -> list[ManagedFieldsEntry]:
        """Return the new ``managedFields``; entries that did not change keep their time."""
        earlier = {ManagerKey.of(entry): entry for entry in self._before}
        found: list[ManagedFieldsEntry] = []
        for key, fields in self.sets.items():
            known = earlier.get(key)
            if known is not None and known.get("fieldsV1") == fields and known["apiVersion"] == key.api_version:
                found.append(known)
            elif key == self._unstamped or (known is not None and key != self._actor):
                # A manager that only loses fields keeps its time, or stays without one.
                found.append(key.entry(fields, "" if known is None else known.get("time", "")))
            else:
                found.append(key.entry(fields, self._now))
        return _capped(sort_entries(found), self._now)


def sort_entries(entries: Iterable[ManagedFieldsEntry]) -> list[ManagedFieldsEntry]:
    """Return entries in the order of ``managedFields``."""
    order = ("operation", "time", "manager", "apiVersion", "subresource")
    return sorted(entries, key=lambda entry: [entry.get(name, "") for name in order])


def _capped(entries: list[ManagedFieldsEntry], now: str) -> list[ManagedFieldsEntry]:
    """Merge the oldest entries with operation Update if there are more than `_MAX_UPDATERS`."""
    updaters = [entry for entry in entries if entry.get("operation") == "Update"]
    surplus = len(updaters) - _MAX_UPDATERS
    if surplus <= 0:
        return entries
    merged: FieldSet = {}
    for entry in updaters[: surplus + 1]:
        merged = union(merged, entry.get("fieldsV1") or {})
    oldest = ManagerKey.of(updaters[0])
    ancient = ManagerKey("ancient-changes", oldest.operation, oldest.api_version).entry(merged, now)
    kept = [entry for entry in entries if entry not in updaters[: surplus + 1]]
    return sort_entries([*kept, ancient])
