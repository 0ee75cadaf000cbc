"""A model of an API server for one kind: compare-and-swap, pruning, field owners, and failures on demand.

It is independent of the code under test where that matters: it has its own merge, comparison and field ownership.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from reconciler.errors import APIError, OutcomeUnknown, error_from_response
from reconciler.meta import GroupVersionKind, Request

GVK = GroupVersionKind("example.com", "v1", "Database")
KEY = Request("db1", "prod")

Doc = dict[str, Any]
Trouble = Callable[["ScriptedServer", Callable[[], Doc]], Doc]


def api_error(status: int, reason: str = "", message: str = "no", **details: Any) -> APIError:
    body = {"kind": "Status", "status": "Failure", "reason": reason, "message": message, "code": status}
    if details:
        body["details"] = details
    return error_from_response(status, body, request="PATCH /the/path")


def refused(error: Exception) -> Trouble:
    """The server does not execute the request."""

    def trouble(server: ScriptedServer, execute: Callable[[], Doc]) -> Doc:
        raise error

    return trouble


def lost(error: Exception | None = None) -> Trouble:
    """The server executes the request, but the response is lost."""

    def trouble(server: ScriptedServer, execute: Callable[[], Doc]) -> Doc:
        with contextlib.suppress(APIError):  # refused, but the response is lost
            execute()
        raise error or OutcomeUnknown("connection reset")

    return trouble


def never_arrived(error: Exception | None = None) -> Trouble:
    """The request was sent, but never arrived."""
    return refused(error or OutcomeUnknown("connection reset"))


def late(server_events: int = 1) -> Trouble:
    """The response is lost, and the server executes the request only after a number of further requests."""

    def trouble(server: ScriptedServer, execute: Callable[[], Doc]) -> Doc:
        server.delayed.append([server_events, execute])
        raise OutcomeUnknown("timed out")

    return trouble


def meanwhile(change: Callable[[ScriptedServer], object]) -> Trouble:
    """Another writer acts before the request is executed."""

    def trouble(server: ScriptedServer, execute: Callable[[], Doc]) -> Doc:
        change(server)
        return execute()

    return trouble


def then(first: Trouble, second: Trouble) -> Trouble:
    def trouble(server: ScriptedServer, execute: Callable[[], Doc]) -> Doc:
        return first(server, lambda: second(server, execute))

    return trouble


class Identity:
    """The identity of a server, which its memory belongs to."""


@dataclass
class ScriptedServer:
    status: Doc = field(default_factory=dict)
    generation: int = 1
    unknown_fields: frozenset[str] = frozenset()  # pruned, at any depth
    has_subresource: bool = True
    track_owners: bool = True
    version: int = 100
    exists: bool = True
    uid: str = "uid-1"
    writes: list[tuple[Doc, str, str | None]] = field(default_factory=list)
    reads: int = 0
    applied: int = 0
    on_write: deque[Trouble] = field(default_factory=deque)
    on_read: deque[Trouble] = field(default_factory=deque)
    delayed: list[list[Any]] = field(default_factory=list)
    owners: dict[tuple[str, ...], str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    identity: object = field(default_factory=Identity)
    latency: float = 0.0

    def document(self) -> Doc:
        metadata: Doc = {
            "name": KEY.name,
            "namespace": KEY.namespace,
            "uid": self.uid,
            "resourceVersion": str(self.version),
            "generation": self.generation,
        }
        if self.track_owners and self.owners:
            metadata["managedFields"] = self._managed_fields()
        document = {"apiVersion": GVK.api_version, "kind": GVK.kind, "metadata": metadata, "spec": {"size": 1}}
        if self.status:
            document["status"] = self.status
        return copy.deepcopy(document)

    # Other writers.

    def foreign(self, change: Callable[[Doc], object], manager: str = "other") -> None:
        before = copy.deepcopy(self.status)
        change(self.status)
        self._store(before, self.status, manager)

    def change_spec(self) -> None:
        self.generation += 1
        self.version += 1

    def annotate(self) -> None:
        self.version += 1

    def delete(self) -> None:
        self.exists = False
        self.version += 1

    def recreate(self) -> None:
        self.exists = True
        self.uid = "uid-2"
        self.status = {}
        self.owners = {}
        self.version += 1

    # The batcher's client.

    def get(self) -> Doc:
        self.reads += 1
        try:
            return self._troubled(self.on_read, self._get)
        finally:
            self._run_delayed()

    def patch(self, body: Doc, strategy: str, subresource: str | None, manager: str) -> Doc:
        body = copy.deepcopy(body)
        self.writes.append((body, strategy, subresource))
        try:
            return self._troubled(self.on_write, lambda: self._patch(body, strategy, subresource, manager))
        finally:
            self._run_delayed()

    def writer(self, manager: str = "kube-reconciler") -> Writer:
        return Writer(self, manager)

    def blocking_writer(self, manager: str = "kube-reconciler") -> BlockingWriter:
        return BlockingWriter(self, manager)

    def _troubled(self, plan: deque[Trouble], execute: Callable[[], Doc]) -> Doc:
        return plan.popleft()(self, execute) if plan else execute()

    def _run_delayed(self) -> None:
        for entry in list(self.delayed):
            entry[0] -= 1
            if entry[0] < 0:
                self.delayed.remove(entry)
                with contextlib.suppress(APIError):
                    entry[1]()

    def _get(self) -> Doc:
        if not self.exists:
            raise api_error(404, "NotFound", 'databases "db1" not found', name="db1")
        return self.document()

    def _patch(self, body: Doc, strategy: str, subresource: str | None, manager: str) -> Doc:
        if not self.exists or (subresource == "status" and not self.has_subresource):
            raise api_error(404, "NotFound", 'databases "db1" not found', name="db1")
        metadata = body.get("metadata", {})
        assert "uid" not in metadata, "a uid in a patch is not a precondition"
        if strategy == "update":
            assert metadata.get("name") == KEY.name, "an update must name its object"
            assert "resourceVersion" in metadata, "an update without a version overwrites everything"
        if metadata.get("resourceVersion", str(self.version)) != str(self.version):
            raise api_error(409, "Conflict", "the object has been modified")
        self.warnings.clear()
        if subresource is None and self.has_subresource:
            return self.document()
        before = self.status
        sent = body.get("status", {})
        after = self._pruned(copy.deepcopy(sent) if strategy == "update" else merge(before, sent))
        if same(before, after):
            return self.document()
        self.status = after
        self.applied += 1
        if subresource is None:
            self.generation += 1
        self._store(before, after, manager)
        return self.document()

    def _pruned(self, value: Any, path: str = "status") -> Any:
        if isinstance(value, dict):
            for key in value.keys() & self.unknown_fields:
                self.warnings.append(f'unknown field "{path}.{key}"')
            return {
                key: self._pruned(item, f"{path}.{key}")
                for key, item in value.items()
                if key not in self.unknown_fields and item is not None
            }
        if isinstance(value, list):
            return [self._pruned(item, path) for item in value]
        return value

    def _store(self, before: Doc, after: Doc, manager: str) -> None:
        self.version += 1
        old, new = leaves(before), leaves(after)
        for path in old.keys() | new.keys():
            if path not in new:
                self.owners.pop(path, None)
            elif path not in old or not same(old[path], new[path]):
                self.owners[path] = manager

    def _managed_fields(self) -> list[Doc]:
        trees: dict[str, Doc] = {}
        for path, manager in self.owners.items():
            node = trees.setdefault(manager, {}).setdefault("f:status", {})
            for key in path:
                node = node.setdefault(f"f:{key}", {})
        return [
            {"manager": m, "operation": "Update", "subresource": "status", "fieldsV1": tree}
            for m, tree in trees.items()
        ]


@dataclass
class Writer:
    server: ScriptedServer
    field_manager: str
    gvk: GroupVersionKind = GVK
    request: Request = KEY

    @property
    def identity(self) -> Any:
        return (id(self.server.identity), self.field_manager)

    @property
    def client(self) -> Any:
        return self.server.identity

    @property
    def warnings(self) -> list[str]:
        return self.server.warnings

    async def read(self) -> Doc:
        await asyncio.sleep(self.server.latency)
        return self.server.get()

    async def write(self, body: Doc, *, strategy: str = "merge", subresource: str | None = "status") -> Doc:
        await asyncio.sleep(self.server.latency)
        return self.server.patch(body, strategy, subresource, self.field_manager)


@dataclass
class BlockingWriter:
    server: ScriptedServer
    field_manager: str
    gvk: GroupVersionKind = GVK
    request: Request = KEY

    @property
    def identity(self) -> Any:
        return (id(self.server.identity), self.field_manager)

    @property
    def client(self) -> Any:
        return self.server.identity

    def read(self) -> Doc:
        return self.server.get()

    def write(self, body: Doc, *, strategy: str = "merge", subresource: str | None = "status") -> Doc:
        return self.server.patch(body, strategy, subresource, self.field_manager)


def merge(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = copy.deepcopy(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


def leaves(value: Doc, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    found: dict[tuple[str, ...], Any] = {}
    for key, item in value.items():
        if isinstance(item, dict) and item:
            found |= leaves(item, (*path, key))
        else:
            found[*path, key] = item
    return found


def same(left: Any, right: Any) -> bool:
    """JSON equality: True is not 1."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return isinstance(left, bool) == isinstance(right, bool) and left == right
