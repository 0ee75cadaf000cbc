"""Play a sequence of steps to an API server and write down what it answered.

A step is plain JSON, so that it can be recorded. What only the server knows is written as a reference and filled in
when the step is played: ``<ns>``, ``<version widgets/a -1>`` (the last version seen of an object, 0 for the first),
``<uid widgets/a>``, ``<generated 0>`` (the first generated name) and ``<continue>`` (the last token). What was never
seen becomes something that fits nothing; a parameter is left out then.

A step with ``needs`` is played only if there is an object at that path.

Steps of the form ``{"watch": path, "query": …, "marker": …}`` open a watch. It is read when all steps are played, up to
a marker: an object that the watch is known to select, written after everything else.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reconciler.http import HTTPRequest, HTTPResponse
from tests.conformance.api import APPLY, JSON, JSON_PATCH, MERGE, STRATEGIC, Send
from tests.conformance.differential.kinds import BY_PLURAL, DEPOT, GROUP, Kind

Step = Mapping[str, Any]
Entry = dict[str, Any]

CONTENT = {"json": JSON, "merge": MERGE, "json-patch": JSON_PATCH, "strategic": STRATEGIC, "apply": APPLY}
"""The media types by the words that steps use; any other word is sent as it is."""

MARKER = f"{GROUP}/marker"
"""The annotation by which a watch knows its last event."""

_REFERENCE = re.compile(r"<(version|uid|generated|continue|ns)(?: ([^ >]+))?(?: (-?\d+))?>")
_NOBODY = "11111111-2222-3333-4444-555555555555"
_COLLECTED = {"orphan", "foregroundDeletion"}
_PATIENCE = 30.0
"""Seconds for a marker to arrive; it takes milliseconds, unless the machine is busy."""


@dataclass
class Memory:
    """Hold what a server has told so far."""

    ns: str
    versions: dict[str, list[str]] = field(default_factory=dict)
    uids: dict[str, str] = field(default_factory=dict)
    last: dict[str, dict[str, Any]] = field(default_factory=dict)
    generated: list[str] = field(default_factory=list)
    token: str = ""

    def learn(self, plural: str, answer: Any) -> None:
        """Remember the objects and the token of a response."""
        if not isinstance(answer, dict):
            return
        metadata = answer.get("metadata")
        if not isinstance(metadata, dict):
            return
        if metadata.get("continue"):
            self.token = metadata["continue"]
        for item in answer.get("items") or []:
            self.learn(plural, item)
        if not metadata.get("name") or not metadata.get("resourceVersion"):
            return
        key, name = f"{plural}/{metadata['name']}", metadata["name"]
        seen = self.versions.setdefault(key, [])
        if metadata["resourceVersion"] not in seen:
            seen.append(metadata["resourceVersion"])
        self.uids[key] = metadata["uid"]
        if answer.get("kind") == BY_PLURAL[plural].name:
            self.last[key] = answer
        if name.startswith("generated-") and name not in self.generated:
            self.generated.append(name)

    def resolve(self, value: Any) -> Any:
        """Return a value with its references filled in."""
        if isinstance(value, str):
            return _REFERENCE.sub(lambda found: self._meaning(*found.groups()), value)
        if isinstance(value, dict):
            return {self.resolve(key): self.resolve(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.resolve(item) for item in value]
        return value

    def knows(self, value: str) -> bool:
        """Tell whether all references of a text have been seen."""
        return all(self._found(*found.groups()) for found in _REFERENCE.finditer(value))

    def _meaning(self, what: str, key: str | None, index: str | None) -> str:
        nothing = {"version": "7", "uid": _NOBODY, "generated": "never-generated", "continue": ""}
        return self._found(what, key, index) or nothing[what]

    def _found(self, what: str, key: str | None, index: str | None) -> str | None:
        if what == "ns":
            return self.ns
        if what == "uid":
            return self.uids.get(key or "")
        if what == "continue":
            return self.token
        seen = self.versions.get(key or "", []) if what == "version" else self.generated
        at = int(index if index is not None else key if what == "generated" and key else -1)
        return seen[at] if -len(seen) <= at < len(seen) else None


class Player:
    """Be the client of one sequence.

    Args:
        send: reaches the server.
        ns: a namespace for this sequence alone.
        controllers: whether other programs do what is left to controllers; if not, the player does.

    Attributes:
        answers: what was answered, one entry a step.
    """

    def __init__(self, send: Send, ns: str, *, controllers: bool) -> None:
        self._send = send
        self._controllers = controllers
        self._watches: list[_Watched] = []
        self.memory = Memory(ns)
        self.answers: list[Entry] = []

    async def play(self, steps: Sequence[Step]) -> list[Entry]:
        """Play all steps, read the watches, tidy up; return the entries."""
        await self._quiet("POST", "/api/v1/namespaces", {"metadata": {"name": self.memory.ns}})
        try:
            for step in steps:
                self.answers.append(await (self._watch(step) if "watch" in step else self._call(step)))
            for number, watched in enumerate(self._watches):
                await self._mark(watched, str(number))
            for watched in self._watches:
                await watched.read()
        finally:
            for watched in self._watches:
                await watched.response.close()
            await self._tidy()
        return self.answers

    async def _call(self, step: Step) -> Entry:
        path, method = self.memory.resolve(step["path"]), step["method"]
        if "needs" in step and (await self._quiet("GET", self.memory.resolve(step["needs"]))).status != 200:
            return {"status": "not sent", "body": None}
        plural = _plural(step["path"])
        query = {
            key: self.memory.resolve(value)
            for key, value in step.get("query", {}).items()
            if not isinstance(value, str) or self.memory.knows(value)
        }
        if query.get("resourceVersion") == "0" or (method == "GET" and "resourceVersion" in query):
            await self._settle(path)
        response = await self._send(self._request(method, path, query, step))
        body = _decoded(response.body)
        self.memory.learn(plural, body)
        if method == "DELETE" and not self._controllers:
            await self._collect(plural, path)
        entry: Entry = {"status": response.status, "body": body}
        if response.warnings:
            entry["warnings"] = list(response.warnings)
        return entry

    def _request(self, method: str, path: str, query: Mapping[str, str], step: Step) -> HTTPRequest:
        headers = {"accept": step.get("accept", JSON), "user-agent": "differential/1"}
        content = b""
        if "text" in step:
            content = step["text"].encode()
        elif "body" in step:
            body = self.memory.resolve(step["body"])
            if "base" in step:
                body = merged(self.memory.last.get(step["base"], {}), body)
            content = json.dumps(body).encode()
        if content:
            word = step.get("type", "json")
            headers["content-type"] = CONTENT.get(word, word)
        return HTTPRequest(method, path, query=tuple(query.items()), headers=headers, body=content, timeout=30)

    async def _watch(self, step: Step) -> Entry:
        path = self.memory.resolve(step["watch"])
        query = {
            key: self.memory.resolve(value) for key, value in step.get("query", {}).items() if self.memory.knows(value)
        }
        await self._settle(path)
        response = await self._send(
            HTTPRequest(
                "GET",
                path,
                query=(("watch", "true"), *query.items()),
                headers={"accept": step.get("accept", JSON)},
                stream=True,
                timeout=30,
            )
        )
        entry: Entry = {"status": response.status}
        if response.chunks is None:
            entry["body"] = _decoded(response.body)
        else:
            entry["events"] = []
            self._watches.append(_Watched(response, step, entry["events"]))
        return entry

    # what is not compared

    async def _quiet(
        self, method: str, path: str, body: Any = None, content: str = JSON, query: Mapping[str, str] | None = None
    ) -> HTTPResponse:
        content_type = {} if body is None else {"content-type": content}
        request = HTTPRequest(
            method,
            path,
            query=tuple((query or {}).items()),
            headers={"accept": JSON, "user-agent": "differential/1", **content_type},
            body=b"" if body is None else json.dumps(body).encode(),
            timeout=30,
        )
        return await self._send(request)

    async def _settle(self, path: str) -> None:
        """Wait until the server's cache, from which reads at a version come, has seen what was written."""
        if not self._controllers:
            collection = path[: path.index(_plural(path)) + len(_plural(path))]
            await self._quiet("GET", collection)

    async def _collect(self, plural: str, path: str) -> None:
        """Take the finalizers of the garbage collector from what dies; no object of a sequence has dependents."""
        kind = BY_PLURAL[plural]
        collection = self.memory.resolve(kind.collection())
        dying = [self.memory.last.get(f"{plural}/{path.rpartition('/')[2]}")] if not path.endswith(plural) else []
        found = _decoded((await self._quiet("GET", collection)).body) if not dying else {"items": dying}
        for item in found.get("items") or []:
            name = (item or {}).get("metadata", {}).get("name")
            current = _decoded((await self._quiet("GET", f"{collection}/{name}")).body) if name else {}
            metadata = current.get("metadata") or {}
            kept = [mark for mark in metadata.get("finalizers") or [] if mark not in _COLLECTED]
            if metadata.get("deletionTimestamp") and kept != (metadata.get("finalizers") or []):
                patch = {"metadata": {"finalizers": kept}}
                collector = {"fieldManager": "garbage-collector"}
                await self._quiet("PATCH", f"{collection}/{name}", patch, MERGE, collector)

    async def _mark(self, watched: _Watched, number: str) -> None:
        """Write the object whose event ends the reading of a watch."""
        kind: Kind = BY_PLURAL[_plural(watched.step["watch"])]
        watched.number = number
        marker = self.memory.resolve(watched.step["marker"])
        name = marker["metadata"].get("name") or f"zz-marker-{number}"
        metadata = {**marker["metadata"], "name": name, "annotations": {MARKER: number}}
        path = self.memory.resolve(kind.collection())
        body = {**marker, "apiVersion": kind.api_version(), "kind": kind.name, "metadata": metadata}
        made = await self._quiet("POST", path, body, query={"fieldManager": "marker"})
        if made.status == 409:
            patch = {"metadata": {"annotations": {MARKER: number}}}
            await self._quiet("PATCH", f"{path}/{name}", patch, MERGE, {"fieldManager": "marker"})

    async def _tidy(self) -> None:
        """Remove what is not in the sequence's namespace."""
        found = _decoded((await self._quiet("GET", DEPOT.collection())).body)
        for item in found.get("items") or []:
            path = f"{DEPOT.collection()}/{item['metadata']['name']}"
            if item["metadata"].get("finalizers"):
                await self._quiet("PATCH", path, {"metadata": {"finalizers": None}}, MERGE)
            await self._quiet("DELETE", path)


@dataclass
class _Watched:
    """Be an open watch."""

    response: HTTPResponse
    step: Step
    events: list[Any]
    number: str = ""

    async def read(self) -> None:
        """Collect the events up to the marker; note its absence."""
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._read()
        except TimeoutError:
            self.events.append("the marker did not come")

    async def _read(self) -> None:
        buffer = b""
        assert self.response.chunks is not None
        async for chunk in self.response.chunks:
            buffer += chunk
            *lines, buffer = buffer.split(b"\n")
            for line in lines:
                event = json.loads(line)
                if self._is_marker(event, self.number):
                    return
                if not self._is_marker(event) and not _is_periodic(event):
                    self.events.append(event)
        self.events.append("end of stream")

    @staticmethod
    def _is_marker(event: Any, number: str | None = None) -> bool:
        with contextlib.suppress(KeyError, TypeError):
            found = event["object"]["metadata"]["annotations"][MARKER]
            return number is None or found == number
        return False


def _is_periodic(event: Any) -> bool:
    """Tell whether an event is a bookmark that comes when a server likes."""
    return event["type"] == "BOOKMARK" and not event["object"]["metadata"].get("annotations")


def merged(base: Any, patch: Any) -> Any:
    """Return a document with a merge patch laid over it."""
    if not isinstance(patch, dict):
        return patch
    result = dict(base) if isinstance(base, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def _plural(path: str) -> str:
    return next((part for part in path.split("/") if part in BY_PLURAL), "configmaps")


def _decoded(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode(errors="replace").strip()
