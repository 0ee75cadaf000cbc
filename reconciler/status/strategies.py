"""The options of a batcher, a version of the object, the status that it should get, and the request body for it.

A server-side apply must contain everything that its manager owns. An apply that leaves out a field which its manager
applied before gives the field up, and a field without owners is removed. So each apply repeats what the manager owns
according to the ``managedFields`` of the version read, with the changes made. In a keyed list (``listType=map``) each
item has its own owners. The owners' trees, or the key of a mutation, show that a list is keyed; any other list belongs
to one manager as a whole.
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import msgspec

from reconciler._core.backoff import Backoff
from reconciler.clock import Clock
from reconciler.meta import equal
from reconciler.meta.documents import copy_json, format_path, get_path, is_object, merge_patch
from reconciler.meta.field_managers import union_of_fields
from reconciler.meta.metadata import WRITE_METHODS
from reconciler.status.documents import FieldTree, digest, field_trees
from reconciler.status.mutations import (
    Append,
    Mutation,
    Path,
    RemoveItem,
    SetCondition,
    Upsert,
    first_by_key,
    item_key,
    leaves,
)
from reconciler.status.writer import Strategy, Target

if TYPE_CHECKING:
    from reconciler._core.wire import JSONObject, ManagedFieldsEntry
    from reconciler.status.recording import StatusMetrics

BACKOFF = Backoff(base=0.01, factor=4, maximum=1.0, jitter=0.5)
"""Before each retry: about 10, 40, 160, 640 ms. client-go's RetryOnConflict starts at 10 ms as well. The jitter keeps
replicas that collided once from colliding again."""

OnError = Literal["flush", "ledgers", "discard"]
"""What a block that ends with an exception writes: everything recorded, everything except decided values, or
nothing."""

_ON_ERROR = get_args(OnError)


def check_options(strategy: Strategy, on_error: OnError, subresource: str | None, max_conflicts: int = 5) -> None:
    """Check a batcher's options, whatever its client is. A batcher does it itself.

    Raises:
        ValueError: an option is out of range, or cannot be combined with another one.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy must be 'merge', 'update' or 'apply', not {strategy!r}")
    if subresource not in ("status", None):
        raise ValueError(f"subresource must be 'status' or None, not {subresource!r}")
    if STRATEGIES[strategy].is_whole and subresource != "status":
        raise ValueError(f"strategy={strategy!r} needs subresource='status': elsewhere it would write the whole object")
    if on_error not in _ON_ERROR:
        raise ValueError(f"on_error must be 'flush', 'ledgers' or 'discard', not {on_error!r}")
    if max_conflicts < 1:
        raise ValueError(f"max_conflicts must be 1 or more, not {max_conflicts!r}")


_MOVED = ("resourceVersion", "generation", "managedFields")
_NOT_SENT = frozenset({"managedFields", "uid"})
_NOT_KEPT = frozenset({"apiVersion", "kind", "metadata", "spec", "status"})


class ObjectVersion(msgspec.Struct, frozen=True):
    """A version of the object; later changes to the caller's object do not affect it.

    Attributes:
        version: its resourceVersion; ``""`` if it was never stored.
        uid: its uid; ``""`` if it was never stored.
        generation: its generation; None for kinds without one.
        status: ``{}`` if it has none. Do not change it.
        managed_fields: as the server keeps them; empty if they were stripped.
        rest: fingerprint of everything except the status and what every write changes; empty unless requested.
        around: what `frame` is made of: the members beside spec and status; empty unless requested. It may have those
            two as well. Do not change it.
    """

    version: str
    uid: str
    generation: int | None
    status: JSONObject
    managed_fields: tuple[ManagedFieldsEntry, ...] = ()
    rest: bytes = b""
    around: Mapping[str, Any] = msgspec.field(default_factory=dict)

    @classmethod
    def of(
        cls, document: Mapping[str, Any], *, with_rest: bool = False, with_frame: bool = False, private: bool = False
    ) -> ObjectVersion:
        """Return the snapshot of a whole object.

        Args:
            document: the object.
            with_rest: compute `rest` too, for writes to the main resource.
            with_frame: keep what `frame` needs, for updates.
            private: nobody can change the document's metadata, so it is shared.

        Raises:
            TypeError: its status is not an object.
        """
        metadata, status = document.get("metadata") or {}, document.get("status") or {}
        generation, entries = metadata.get("generation"), metadata.get("managedFields") or ()
        are_objects = type(entries) is list and set(map(type, entries)) <= {dict}
        if type(status) is not dict and not is_object(status):
            raise TypeError(f"the status is a {type(status).__name__}, not an object, so it has no fields to record")
        around: Mapping[str, Any] = document if with_frame else {}
        if around and not private:
            around = copy_json({name: value for name, value in document.items() if name not in ("spec", "status")})
        return cls(
            version=str(metadata.get("resourceVersion") or ""),
            uid=str(metadata.get("uid") or ""),
            generation=generation if isinstance(generation, int) else None,
            status=copy_json(status),
            managed_fields=tuple(entries) if are_objects else (),
            rest=_rest(document) if with_rest else b"",
            around=around,
        )

    @property
    def frame(self) -> JSONObject:
        """Return what an update sends around the status. Do not change its values.

        It has the metadata, which a status write may change for some kinds, and the members beside spec and status. The
        server keeps those members in any case. But if an update leaves one out, the server forgets who owns its fields
        (seen on kube-apiserver 1.36), and a later apply would not remove them. The spec does not have this problem.
        """
        metadata = {name: value for name, value in self.around["metadata"].items() if name not in _NOT_SENT}
        kept = {member: value for member, value in self.around.items() if member not in _NOT_KEPT}
        return {**kept, "metadata": metadata}


def _rest(document: Mapping[str, Any]) -> bytes:
    metadata = {k: v for k, v in (document.get("metadata") or {}).items() if k not in _MOVED}
    return digest({**{k: v for k, v in document.items() if k != "status"}, "metadata": metadata})


class FlushPolicy(msgspec.Struct, frozen=True):
    """The options of a batcher that decide when, what and how it sends.

    Attributes:
        strategy: merge patch, update or apply.
        subresource: ``"status"``; None is the main resource.
        clock: the time of what is learned about the server.
        rng: jitter and ids.
        limit: the most writes, and the most reads, that one flush makes.
        token: the path where a write leaves a random id, which shows whether a write with a lost response was applied.
        typed: the class of the object that was given, or the given class.
        flush_timeout: seconds for one flush; inside kopf, where a retry costs an event, the least before giving up.
        on_error: what to write if the block ends with an exception.
        join: whether to join an open batcher.
        metrics: notified of each flush; None for those of the running reconcile.
    """

    strategy: StatusStrategy
    subresource: str | None
    clock: Clock
    rng: random.Random
    limit: int = 5
    token: Path | None = None
    typed: type = dict
    flush_timeout: float = 10.0
    on_error: OnError = "flush"
    join: bool = True
    metrics: StatusMetrics | None = None

    def snapshot(self, document: Mapping[str, Any], *, last: bool = False, private: bool = False) -> ObjectVersion:
        """Return what this kind of write needs of an object.

        Args:
            document: the whole object.
            last: no write follows, so the frame of an update is not needed.
            private: nobody can change the document's metadata.
        """
        with_frame = self.strategy.is_whole and not last
        return ObjectVersion.of(document, with_rest=self.subresource is None, with_frame=with_frame, private=private)

    def new_mark(self) -> str:
        """Return a random id to leave at the token's path; ``""`` without a token."""
        return f"{self.rng.getrandbits(64):016x}" if self.token is not None else ""


ListKeys = dict[Path, Path]
"""The members that identify an item, for each keyed list."""


class DesiredStatus(msgspec.Struct, frozen=True):
    """The status that one version should get.

    Attributes:
        tip: the version.
        mutations: what was applied to it.
        computed: the whole status afterwards.
        diff: the merge patch from the stored to the computed status; empty if there is nothing to write.
        trimmed: list entries that ``keep_last`` dropped.
        strategy: how to send it.
    """

    tip: ObjectVersion
    mutations: Sequence[Mutation]
    computed: JSONObject
    diff: JSONObject
    trimmed: int
    strategy: StatusStrategy

    @property
    def fields(self) -> Sequence[Path]:
        """Return the paths to write."""
        return list(leaves(self.diff))

    def missing_in(self, status: Mapping[str, Any]) -> Sequence[Path]:
        """Return the paths to write at which a status does not have the computed value."""
        return [path for path in self.fields if not equal(get_path(status, path), get_path(self.computed, path))]

    def left_no_trace_in(self, status: Mapping[str, Any]) -> bool:
        """Return whether a status is still the old one although there was something to write."""
        return bool(self.diff) and equal(status, self.tip.status)


class StatusStrategy:
    """A way to send a status; this one sends a merge patch of what changed.

    Attributes:
        name: as callers and writers know it.
        is_whole: whether the body has the whole status, with what surrounds it.
        is_owned: whether the body has everything that the field manager owns, so that the owners must be known.
        is_to_main: whether it is sent to the main resource in any case.
    """

    name: Strategy = "merge"
    is_whole = False
    is_owned = False
    is_to_main = False

    @property
    def verb(self) -> Literal["update", "patch"]:
        """Return the verb that a role must allow."""
        return WRITE_METHODS[self.name].verb

    def check(self, mutation: Mutation, managed_fields: Sequence[ManagedFieldsEntry]) -> None:
        """Check that a mutation can be sent. A merge patch and an update can send every one."""

    def body(self, target: Target, desired: DesiredStatus) -> JSONObject:  # noqa: ARG002 - for overrides
        """Return what to send."""
        return {"metadata": {"resourceVersion": desired.tip.version}, "status": desired.diff}

    def takeover(self, target: Target, desired: DesiredStatus) -> DesiredStatus | None:  # noqa: ARG002
        """Return a write that must come first; None if there is none."""
        return None


class UpdateStrategy(StatusStrategy):
    """A PUT of the whole status."""

    name = "update"
    is_whole = True

    def body(self, target: Target, desired: DesiredStatus) -> JSONObject:  # noqa: ARG002
        """Return the frame of the version with the status that the patch would lead to on the server."""
        tip = desired.tip  # its `computed` may have a null where a field is removed
        return {**tip.frame, "status": merge_patch(tip.status, desired.diff)}


class ApplyStrategy(StatusStrategy):
    """A server-side apply of everything that the field manager owns."""

    name = "apply"
    is_owned = True

    def check(self, mutation: Mutation, managed_fields: Sequence[ManagedFieldsEntry]) -> None:
        """Check that an apply of a mutation does not take over a list that several managers share.

        Raises:
            ValueError: it adds to a list without a key, or to one that belongs to one manager as a whole.
        """
        if not isinstance(mutation, (Append, Upsert, RemoveItem)):
            return
        where = format_path(mutation.path)
        if not isinstance(mutation, RemoveItem) and not mutation.key:
            raise ValueError(
                f"append to {where!r} would take over the whole list from other managers: with "
                "strategy='apply' pass key=, and make the list listType=map in the CRD; or use strategy='merge'"
            )
        for manager, tree in field_trees(managed_fields):
            if _is_leaf(tree, mutation.path):
                raise ValueError(
                    f"{where!r} belongs to {manager!r} as a whole, because the list is not listType=map in the CRD; "
                    "with strategy='apply' it cannot be shared: use strategy='merge'"
                )

    def body(self, target: Target, desired: DesiredStatus) -> JSONObject:
        """Return the configuration to apply."""
        tip, mutations = desired.tip, desired.mutations
        owned: JSONObject = {}
        keys: ListKeys = {m.path: m.key for m in mutations if isinstance(m, (Append, Upsert)) and m.key}
        keys |= {m.path: ("type",) for m in mutations if isinstance(m, SetCondition)}
        for name, tree in field_trees(tip.managed_fields):
            _find_keys(tree, (), keys)
            if name == target.field_manager:
                owned = union_of_fields(owned, tree)
        name, namespace = target.request
        metadata = {"name": name, "resourceVersion": tip.version} | ({"namespace": namespace} if namespace else {})
        status = _applied(tip.status, desired.computed, owned, (), keys)
        body = {"status": status} if isinstance(status, dict) else {}
        return {"apiVersion": target.gvk.api_version, "kind": target.gvk.kind, "metadata": metadata, **body}

    def takeover(self, target: Target, desired: DesiredStatus) -> DesiredStatus | None:
        """Return the write that makes earlier patches of this manager count as applied; None if there are none.

        It changes managedFields only, and is conditional like any other write. It goes to the main resource, because a
        write to ``/status`` does not change managedFields like this (seen on kube-apiserver 1.36).

        Fields of the status that the manager owns through earlier patches would outlive an apply that leaves them out.
        """
        managed_fields = _as_applied(desired.tip.managed_fields, target.field_manager)
        if managed_fields is None:
            return None
        return DesiredStatus(desired.tip, (), desired.tip.status, {}, 0, _TakeoverStrategy(managed_fields))


class _TakeoverStrategy(StatusStrategy):
    """A merge patch of the managed fields."""

    is_to_main = True

    def __init__(self, managed_fields: Sequence[Mapping[str, Any]]) -> None:
        self._managed_fields = managed_fields

    def body(self, target: Target, desired: DesiredStatus) -> JSONObject:  # noqa: ARG002
        """Return the new managed fields."""
        return {"metadata": {"resourceVersion": desired.tip.version, "managedFields": self._managed_fields}}


STRATEGIES: Mapping[str, StatusStrategy] = {
    each.name: each for each in (StatusStrategy(), UpdateStrategy(), ApplyStrategy())
}


def _as_applied(managed_fields: Sequence[ManagedFieldsEntry], manager: str) -> Sequence[JSONObject] | None:
    """Return managed fields in which a manager applied what it patched of the status; None if it patched nothing.

    client-go's ``csaupgrade`` does the same.
    """
    entries: list[JSONObject] = [{**entry, "fieldsV1": dict(entry.get("fieldsV1") or {})} for entry in managed_fields]
    own = [entry for entry in entries if entry.get("manager") == manager]
    patched = [
        entry
        for entry in own
        if entry.get("operation") == "Update" and isinstance(entry["fieldsV1"].get("f:status"), Mapping)
    ]
    if not patched:
        return None
    places = {entry.get("subresource") for entry in patched}
    applied = [entry for entry in own if entry.get("operation") == "Apply" and entry.get("subresource") in places]
    tree: JSONObject = {}
    for entry in applied:
        tree = union_of_fields(tree, entry["fieldsV1"])
    for entry in patched:
        tree = union_of_fields(tree, {"f:status": entry["fieldsV1"].pop("f:status")})
    united = {**(applied or patched)[0], "operation": "Apply", "fieldsV1": tree}
    kept = [entry for entry in entries if entry not in applied and (entry not in patched or entry["fieldsV1"])]
    return [*kept, united]


def _applied(old: Any, new: Any, tree: FieldTree | None, path: Path, keys: ListKeys) -> Any:
    """Return the part of a value that is owned or changed; None if there is no such part."""
    if equal(old, new):
        return None if tree is None else _owned_part(new, tree, keys.get(path))
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return _applied_members(old, new, tree or {}, path, keys)
    if isinstance(old, list) and isinstance(new, list) and path in keys and _have_keys(new, keys[path]):
        return _applied_items(old, new, tree or {}, path, keys)
    return copy_json(new)


def _applied_members(
    old: Mapping[str, Any], new: Mapping[str, Any], tree: FieldTree, path: Path, keys: ListKeys
) -> JSONObject | None:
    applied: JSONObject = {}
    for member, value in new.items():
        part = _applied(old.get(member), value, tree.get(f"f:{member}"), (*path, member), keys)
        if part is not None:
            applied[member] = part
    if not applied and _is_hollow(new):
        return None  # kube-apiserver turns a named object that loses all its members into null, and refuses it with 422
    return applied if applied or not path or "." in tree else None


def _is_hollow(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(_is_hollow, value.values()))


def _have_keys(items: list[Any], key: Path) -> bool:
    return all(isinstance(item, Mapping) and item.keys() >= set(key) for item in items)


def _applied_items(old: list[Any], new: list[Any], tree: FieldTree, path: Path, keys: ListKeys) -> list[Any]:
    applied, key = [], keys[path]
    before, owned = first_by_key(old, key), _item_trees(tree, key)
    for item in new:
        found = item_key(item, key)
        part = _applied(before.get(found), item, owned.get(found), (*path, "*"), keys)
        if part is not None:
            applied.append({**{member: item[member] for member in key}, **part})
    return applied


def _owned_part(value: Any, tree: FieldTree, key: Path | None) -> Any:
    """Return the part of a value that a tree covers; None if it covers nothing of it."""
    if not tree.keys() - {"."}:
        return copy_json(value) if not tree or not value else None
    if isinstance(value, Mapping):
        parts = {name[2:]: _owned_part(value[name[2:]], sub, None) for name, sub in tree.items() if name[2:] in value}
        owned = {name: part for name, part in parts.items() if part is not None}
        return owned if owned or "." in tree else None
    if isinstance(value, list):
        return _owned_items(value, tree, key)
    return copy_json(value)


def _owned_items(items: list[Any], tree: FieldTree, key: Path | None) -> list[Any]:
    owned = [copy_json(item) for item in items if f"v:{_encoded(item)}" in tree]
    if key is None:
        return owned
    trees = _item_trees(tree, key)
    for item in items:
        sub = trees.get(item_key(item, key)) if _have_keys([item], key) else None
        if sub is not None:
            owned.append({**{member: item[member] for member in key}, **(_owned_part(item, sub, None) or {})})
    return owned


def _item_trees(tree: FieldTree, key: Path) -> dict[Hashable, FieldTree]:
    """Return what is owned of each item of a keyed list."""
    named = ((msgspec.json.decode(name[2:]), sub) for name, sub in tree.items() if name.startswith("k:"))
    return {item_key(members, key): sub for members, sub in named if members.keys() <= set(key)}


def _find_keys(tree: FieldTree, path: Path, keys: ListKeys) -> None:
    for name, sub in tree.items():
        if name.startswith("k:"):
            keys.setdefault(path, tuple(msgspec.json.decode(name[2:])))
            _find_keys(sub, (*path, "*"), keys)
        elif name.startswith("f:"):
            _find_keys(sub, (*path, name[2:]), keys)


def _is_leaf(tree: FieldTree, path: Path) -> bool:
    for member in path:
        child = tree.get(f"f:{member}")
        if not isinstance(child, Mapping):
            return False
        tree = child
    return not tree


def _encoded(value: Any) -> str:
    return msgspec.json.encode(value, order="deterministic").decode()
