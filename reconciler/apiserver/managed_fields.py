"""``metadata.managedFields``: which manager set which field, through which operation, and the sets of fields."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast

import msgspec

from reconciler._core.wire import JSONObject, JSONValue, ManagedFieldsEntry
from reconciler.apiserver.encoding.text import go_json
from reconciler.apiserver.schema import ANYTHING, Node, item_key

if TYPE_CHECKING:
    from reconciler.apiserver.verbs.routing import Call


FieldSet: TypeAlias = dict[str, "FieldSet"]

_SELF = "."
_LEAF: FieldSet = {}


def _parts(fields: FieldSet) -> tuple[bool, FieldSet]:
    """Return whether a path element is itself a member, and the set below it."""
    if not fields:
        return True, fields
    if _SELF in fields:
        return True, {element: below for element, below in fields.items() if element != _SELF}
    return False, fields


def _joined(member: bool, below: FieldSet) -> FieldSet | None:
    """Return the set of a path element, or None if it is empty."""
    if not below:
        return {} if member else None
    return {_SELF: {}, **below} if member else below


def union(one: FieldSet, other: FieldSet) -> FieldSet:
    """Return the fields in either set; both are roots."""
    found = dict(one)
    for element, below in other.items():
        mine = found.get(element)
        if mine is None or mine is below:
            found[element] = below
        elif element != _SELF:
            (my_self, my_below), (its_self, its_below) = _parts(mine), _parts(below)
            found[element] = _joined(my_self or its_self, union(my_below, its_below)) or {}
    return found


def difference(one: FieldSet, other: FieldSet) -> FieldSet:
    """Return the fields in the first set but not in the other; both are roots."""
    return _combined(one, other, common=False)


def intersection(one: FieldSet, other: FieldSet) -> FieldSet:
    """Return the fields in both sets; both are roots."""
    return _combined(one, other, common=True)


def _combined(one: FieldSet, other: FieldSet, *, common: bool) -> FieldSet:
    """Return the fields in the first set that are in the other, or are not."""
    found = {}
    for element, mine in one.items():
        its = other.get(element)
        if its is None:
            if not common:
                found[element] = mine
            continue
        (my_self, my_below), (its_self, its_below) = _parts(mine), _parts(its)
        left = _joined(my_self and its_self is common, _combined(my_below, its_below, common=common))
        if left is not None:
            found[element] = left
    return found


def _sorted(fields: FieldSet) -> FieldSet:
    """Return a set in the order of structured-merge-diff."""
    return {element: _sorted(fields[element]) for element in sorted(fields, key=_rank)} if fields else fields


@functools.lru_cache(maxsize=4096)
def _rank(element: str) -> tuple[int, Any]:
    """Return the sort key of a path element: the set itself, then fields, keys of items, values, and indexes."""
    kind, _, text = element.partition(":")
    content = text if kind in (".", "f") else _value_rank(msgspec.json.decode(text))
    return ".fkvi".index(kind), content


def _value_rank(value: JSONValue) -> tuple[int, Any]:
    if isinstance(value, dict):
        return 4, [(key, _value_rank(value[key])) for key in sorted(value)]
    if isinstance(value, list):
        return 3, [*map(_value_rank, value)]
    if isinstance(value, bool) or value is None:
        return 5 if value is None else 2, value
    return (1 if isinstance(value, str) else 0), value


def paths(fields: FieldSet, prefix: str = "") -> Iterator[str]:
    """Yield the members as the real server writes paths, the members of a level before those below it."""
    deeper = []
    for element, below in sorted(fields.items()):
        member, rest = _parts(below)
        path = f"{prefix}{_shown(element)}"
        if member:
            yield path
        if rest:
            deeper.append((path, rest))
    for path, rest in deeper:
        yield from paths(rest, path)


def _shown(element: str) -> str:
    kind, _, text = element.partition(":")
    if kind == "f":
        return f".{text}"
    if kind == "v":
        return f"[={text}]"
    if kind == "k":
        keys = msgspec.json.decode(text)
        return f"[{','.join(f'{key}={go_json(value)}' for key, value in keys.items())}]"
    return f"[{text}]"


def path_element(item: JSONValue, node: Node) -> str:
    """Return the path element of an item of a list of type set or map."""
    if node.list_type == "map":
        return f"k:{go_json(item_key(item, node))}"
    return f"v:{go_json(item)}"


def items_by_element(items: list[JSONValue], node: Node) -> dict[str, list[JSONValue]]:
    """Return the items of a list of type set or map by path element; duplicates share one."""
    found: dict[str, list[JSONValue]] = {}
    for item in items:
        found.setdefault(path_element(item, node), []).append(item)
    return found


class _Duplicates(list[JSONValue]):
    """Items of a list that share a path element, and are owned together."""


def _children(value: JSONValue, node: Node) -> Iterable[tuple[str, JSONValue, Node]]:
    """Return the path elements, values and schemas below a value; nothing for an atomic value."""
    if isinstance(value, dict):
        if node.map_type == "atomic":
            return ()
        known, other = node.properties, node.additional or ANYTHING
        return [(f"f:{key}", member, known.get(key, other)) for key, member in value.items()]
    if isinstance(value, list) and node.list_type != "atomic":
        items = node.items or ANYTHING
        return [
            (element, found[0] if len(found) == 1 else _Duplicates(found), items)
            for element, found in items_by_element(value, node).items()
        ]
    return ()


def is_granular(value: JSONValue, node: Node) -> bool:
    """Return whether the parts of a value are owned one by one."""
    if isinstance(value, dict):
        return node.map_type != "atomic"
    return isinstance(value, list) and node.list_type != "atomic"


def fields_of(value: JSONValue, node: Node, *, whole: bool) -> FieldSet:
    """Return the set of fields below a value.

    Of a whole value, as for added ones, objects and lists are members themselves; otherwise, as for applied values,
    only leaves and items of lists are.
    """
    found: FieldSet = {}
    for element, child, schema in _children(value, node):
        if not whole and not child and isinstance(child, list) and schema.list_type != "atomic":
            # An applier owns only the items of a granular list, so nothing of an empty one.
            continue
        inner = _LEAF if isinstance(child, _Duplicates) else fields_of(child, schema, whole=whole)
        if not whole and child and not inner and isinstance(child, dict) and is_granular(child, schema):
            # It contains only lists without an owned item.
            continue
        counts = whole or schema is ANYTHING or not element.startswith("f:")
        found[element] = {_SELF: {}, **inner} if inner and counts else inner
    return found


def compare(before: JSONValue, after: JSONValue, node: Node) -> tuple[FieldSet, FieldSet]:
    """Return the fields below a value that were added or modified, and those that were removed."""
    changed: FieldSet = {}
    removed: FieldSet = {}
    old = {element: (value, schema) for element, value, schema in _children(before, node)}
    for element, value, schema in _children(after, node):
        if element not in old:
            changed[element] = _added(value, schema)
            continue
        earlier, _ = old.pop(element)
        if earlier is value or (earlier == value and type(earlier) is type(value)):
            continue
        more, less = _compare_values(earlier, value, schema)
        if more is not None:
            changed[element] = more
        if less is not None:
            removed[element] = less
    for element, (value, schema) in old.items():
        removed[element] = _added(value, schema)
    return changed, removed


def _compare_values(earlier: JSONValue, value: JSONValue, schema: Node) -> tuple[FieldSet | None, FieldSet | None]:
    """Return the changed and removed fields of a value that exists on both sides; None for nothing."""
    if isinstance(earlier, _Duplicates) or isinstance(value, _Duplicates):
        less = None if type(earlier) is type(value) else _added(earlier, schema)
        return _added(value, schema), less
    if is_granular(value, schema) and is_granular(earlier, schema):
        below_changed, below_removed = compare(earlier, value, schema)
        return below_changed or None, below_removed or None
    if earlier is None and is_granular(value, schema):
        # The field existed, though empty: its content is new, not the field itself.
        return fields_of(value, schema, whole=True), None
    if value is None and is_granular(earlier, schema):
        return None, fields_of(earlier, schema, whole=True) or None
    return _added(value, schema), fields_of(earlier, schema, whole=True) or None


def _added(value: JSONValue, schema: Node) -> FieldSet:
    """Return the set of a value that exists on one side only, and everything below it."""
    below = _LEAF if isinstance(value, _Duplicates) else fields_of(value, schema, whole=True)
    return {_SELF: {}, **below} if below else below


_MAX_UPDATERS = 10
"""How many entries with operation Update an object keeps; older ones are merged."""

_UNTRACKED = frozenset(
    {"creationTimestamp", "generation", "managedFields", "name", "namespace", "resourceVersion", "selfLink", "uid"}
)
"""The fields of metadata that have no owner."""


@dataclass(slots=True, unsafe_hash=True)
class ManagerKey:
    """The identity of a manager: one name is several managers if operation, version or subresource differ.

    A manager that applies keeps its identity when it moves to another API version.
    """

    manager: str
    operation: str
    api_version: str = field(compare=False)
    subresource: str = ""
    _version: str = field(init=False)

    def __post_init__(self) -> None:
        self._version = "" if self.operation == "Apply" else self.api_version

    @classmethod
    def of(cls, entry: ManagedFieldsEntry) -> ManagerKey:
        """Return the identity of the manager of an entry."""
        return cls(*(str(entry.get(name) or "") for name in ("manager", "operation", "apiVersion", "subresource")))

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
            "fieldsV1": _sorted(fields),
            "subresource": self.subresource,
        }
        return cast("ManagedFieldsEntry", {name: value for name, value in entry.items() if value != ""})


def manager_of(call: Call) -> str:
    """Return the name of the manager that a request writes as: ``fieldManager``, or the start of the User-Agent."""
    if asked := call.query.get("fieldManager", ""):
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


class ResetFields(NamedTuple):
    """The changes of a request to fields that it cannot write, such as the status outside the subresource.

    These changes are not stored. The real server excludes them from the comparison only for managers of the request's
    version: managers that wrote in another version lose the fields.
    """

    changed: FieldSet = _LEAF
    removed: FieldSet = _LEAF


NO_RESET_FIELDS = ResetFields()


def _seen_by(other: ManagerKey, key: ManagerKey, fields: FieldSet, reset: FieldSet) -> FieldSet:
    """Return the changes of a request by `key` that affect the manager `other`."""
    return union(fields, reset) if reset and other.api_version != key.api_version else fields


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


class FieldManager:
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
                found[other] = intersection(fields, _seen_by(other, key, changed, reset.changed))
        return {other: fields for other, fields in found.items() if fields}

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
                theirs = difference(self.sets[other], _seen_by(other, key, changed, reset.changed))
                self._set(other, difference(theirs, _seen_by(other, key, removed, reset.removed)))

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
