"""An API server that answers as scripted by a test, and records its requests."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from reconciler._core.wire import UNDECODABLE
from reconciler.cache import CachedObject
from reconciler.cache.decoding import WireReader, cached_object
from reconciler.cache.reflector import Reflector
from reconciler.errors import error_from_response
from reconciler.http import HTTPResponse
from reconciler.meta import GroupVersionKind, Request
from reconciler.meta.documents import Version, is_older, parse_version
from reconciler.meta.metadata import ResourceType

GVK = GroupVersionKind("example.com", "v1", "Database")
DATABASES = ResourceType(GVK, "databases", namespaced=True, subresources=frozenset({"status"}))


def document(
    name: str, version: int | str, *, uid: str | None = None, namespace: str = "prod", **more: Any
) -> dict[str, Any]:
    """Return an object; `more` are further top-level members, of which ``metadata`` is merged."""
    metadata = {"name": name, "namespace": namespace, "uid": uid or f"uid-{name}", "resourceVersion": str(version)}
    metadata |= more.pop("metadata", {})
    return {"apiVersion": GVK.api_version, "kind": GVK.kind, "metadata": metadata, **more}


def cached(name: str, version: int | str, **more: Any) -> CachedObject:
    return cached_object(document(name, version, **more))


def line(type: str, obj: dict[str, Any]) -> bytes:
    return msgspec.json.encode({"type": type, "object": obj}) + b"\n"


def added(name: str, version: int, **more: Any) -> bytes:
    return line("ADDED", document(name, version, **more))


def modified(name: str, version: int, **more: Any) -> bytes:
    return line("MODIFIED", document(name, version, **more))


def deleted(name: str, version: int, **more: Any) -> bytes:
    return line("DELETED", document(name, version, **more))


def bookmark(version: int, *, ends_initial: bool = False) -> bytes:
    annotations = {"annotations": {"k8s.io/initial-events-end": "true"}} if ends_initial else {}
    return line(
        "BOOKMARK",
        {"kind": GVK.kind, "apiVersion": GVK.api_version, "metadata": {"resourceVersion": str(version), **annotations}},
    )


def status(code: int, reason: str = "", message: str = "no", **details: Any) -> dict[str, Any]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": message,
        "details": details,
    }


def error_line(code: int, reason: str = "", message: str = "no", **details: Any) -> bytes:
    return line("ERROR", status(code, reason, message, **details))


def refused(
    code: int, reason: str = "", message: str = "no", *, retry_after: float | None = None, **details: Any
) -> Exception:
    return error_from_response(code, status(code, reason, message, **details), retry_after=retry_after)


HOLD = object()
"""Let a stream stay open and silent."""

TIMEOUT = object()
"""Let a stream stay open and silent until the timeout that the client has asked for."""


@dataclass
class Asked:
    """One recorded request."""

    verb: str
    namespace: str | None
    query: dict[str, str]
    at: float
    metadata_only: bool = False
    closed: bool = False

    @property
    def version(self) -> str | None:
        return self.query.get("resourceVersion")

    @property
    def streams(self) -> bool:
        return self.query.get("sendInitialEvents") == "true"


@dataclass
class Script:
    """A source whose lists and watches are answered in the scripted order; afterwards it stays silent.

    Unless a list is scripted next, a look-up of an object that it has sent shows that nothing was undone.
    """

    answers: deque[tuple[str, Any]] = field(default_factory=deque)
    asked: list[Asked] = field(default_factory=list)
    looked_up: list[Asked] = field(default_factory=list)
    sent: dict[str, dict[str, Any]] = field(default_factory=dict)
    version: Version = 0

    def list(self, *objects: dict[str, Any], version: int | str, token: str = "") -> None:
        metadata = {"resourceVersion": str(version), **({"continue": token} if token else {})}
        self.answers.append(
            ("list", msgspec.json.encode({"kind": "DatabaseList", "metadata": metadata, "items": objects}))
        )

    def recognized(self, *names: str, version: int) -> None:
        """List the newest of the objects that `streamed` has listed, as a reflector requests after trouble."""
        self.list(*(document(name, len(names)) for name in names[-1:]), version=version)

    def refuse_list(self, error: Exception) -> None:
        self.answers.append(("list", error))

    def watch(self, *parts: Any) -> None:
        """Open a stream: bytes are chunks, numbers are seconds, an exception breaks it; HOLD and TIMEOUT wait."""
        self.answers.append(("watch", parts))

    def refuse_watch(self, error: Exception) -> None:
        self.answers.append(("watch", error))

    def refuse(self, error: Exception, times: int = 1) -> None:
        """Reject every request."""
        self.answers.extend([("anything", error)] * times)

    def streamed(self, *names: str, version: int, then: Sequence[Any] = (HOLD,)) -> None:
        """Open a stream with a complete list of objects, each of version 1 and up."""
        initial = [added(name, number) for number, name in enumerate(names, 1)]
        self.watch(*initial, bookmark(version, ends_initial=True), *then)

    async def raw_list(
        self,
        rt: ResourceType,
        namespace: str | None = None,
        query: Sequence[tuple[str, str]] = (),
        *,
        metadata_only: bool = False,
    ) -> bytes:
        if looks_up(query) and self.version and (not self.answers or self.answers[0][0] == "watch"):
            self.looked_up.append(
                Asked("list", namespace, dict(query), asyncio.get_running_loop().time(), metadata_only)
            )
            name = dict(query).get("fieldSelector", "").rpartition("=")[2]
            found = [self.sent[name]] if name in self.sent else []
            return msgspec.json.encode({"metadata": {"resourceVersion": str(self.version)}, "items": found})
        answer = await self._answer("list", namespace, query, metadata_only)
        assert isinstance(answer, bytes)
        if not looks_up(query):
            self._record("LIST", answer)
        return answer

    def _record(self, type: str, text: bytes) -> None:
        """Record the objects and versions in what the client receives: a list, a line or an object."""
        with contextlib.suppress(*UNDECODABLE, AttributeError, KeyError, TypeError):
            document = msgspec.json.decode(text)
            if type == "LINE":
                self._record(document["type"], msgspec.json.encode(document["object"]))
                return
            version = parse_version(document["metadata"]["resourceVersion"])
            self.version = self.version if is_older(version, self.version) else version
            if type == "LIST":
                self.sent.clear()
                for listed in document["items"]:
                    self._record("ADDED", msgspec.json.encode(listed))
            elif type in ("ADDED", "MODIFIED"):
                self.sent[document["metadata"]["name"]] = document
            elif type == "DELETED":
                self.sent.pop(document["metadata"]["name"], None)

    async def pages_are_cached(self) -> bool:
        return False

    def forget(self, rt: ResourceType) -> None:
        pass

    async def open_watch(
        self,
        rt: ResourceType,
        namespace: str | None = None,
        query: Sequence[tuple[str, str]] = (),
        *,
        metadata_only: bool = False,
    ) -> HTTPResponse:
        parts = await self._answer("watch", namespace, query, metadata_only)
        asked = self.asked[-1]

        async def close() -> None:
            asked.closed = True

        return HTTPResponse(200, chunks=self._chunks(parts, float(asked.query["timeoutSeconds"])), on_close=close)

    async def resource_type(self, kind: object) -> ResourceType:
        return DATABASES

    async def _answer(
        self, verb: str, namespace: str | None, query: Sequence[tuple[str, str]], metadata_only: bool
    ) -> Any:
        self.asked.append(Asked(verb, namespace, dict(query), asyncio.get_running_loop().time(), metadata_only))
        if not self.answers:
            await asyncio.Event().wait()
        expected, answer = self.answers.popleft()
        assert expected in (verb, "anything"), (
            f"the script expects a {expected} now, but was asked to {verb}: {self.asked}"
        )
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _chunks(self, parts: Sequence[Any], longest: float) -> AsyncIterator[bytes]:
        for part in parts:
            if isinstance(part, bytes):
                for text in part.splitlines():
                    self._record("LINE", text)
                yield part
            elif isinstance(part, BaseException):
                raise part
            elif part is HOLD:
                await asyncio.Event().wait()
            else:
                await asyncio.sleep(longest if part is TIMEOUT else part)


def looks_up(query: Sequence[tuple[str, str]]) -> bool:
    """Return whether a list verifies the history: of one object by name, or of any object."""
    return dict(query).get("limit") == "1" or "metadata.name=" in dict(query).get("fieldSelector", "")


class RecordedListing:
    """A list in progress that a `Recorder` receives when it is complete."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._objects: dict[Request, CachedObject] = {}

    def __len__(self) -> int:
        return len(self._objects)

    def add(self, cached: CachedObject) -> None:
        self._objects[cached.request] = cached

    def discard(self, request: Request) -> None:
        self._objects.pop(request, None)

    async def finish(self, version: Version, *, restarted: bool, exact: bool = False) -> bool:
        return await self._recorder.replace(list(self._objects.values()), version, restarted=restarted)


class Recorder:
    """A sink that records what it receives, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.objects: dict[str, CachedObject] = {}
        self.deleted: CachedObject | None = None

    async def begin_list(self, *, at_once: bool) -> RecordedListing:
        return RecordedListing(self)

    async def replace(self, objects: Sequence[CachedObject], version: Version, *, restarted: bool) -> bool:
        names = sorted(obj.name for obj in objects)
        self.objects, self.deleted = {obj.name: obj for obj in objects}, None
        self.told.append(("restart" if restarted else "list", names, version))
        return restarted

    def apply(self, type: str, cached: CachedObject, received: object = None) -> None:
        self.told.append((type, cached.name, cached.version))
        if type == "DELETED":
            self.objects.pop(cached.name, None)
            self.deleted = cached
        else:
            self.objects[cached.name] = cached

    def advance(self, version: Version) -> None:
        self.told.append(("BOOKMARK", version))

    def newest(self, most: int) -> Sequence[CachedObject]:
        return sorted(self.objects.values(), key=lambda obj: obj.version, reverse=True)[:most]

    def written(self) -> Version | None:
        return None


class Mirror:
    """A reflector on a script, and what it delivered."""

    def __init__(
        self,
        script: Script,
        *,
        namespace: str | None = "prod",
        seed: int = 0,
        in_pages: bool = False,
        reader: WireReader | None = None,
    ) -> None:
        self.sink = Recorder()
        self.reflector = Reflector(
            script,
            DATABASES,
            namespace,
            sink=self.sink,
            reader=reader or WireReader(GVK),
            in_pages=in_pages,
            rng=random.Random(seed),
        )

    @property
    def told(self) -> list[tuple[Any, ...]]:
        return self.sink.told

    async def run(self, seconds: float) -> None:
        """Run the reflector for some (virtual) seconds."""
        task = asyncio.create_task(self.reflector.run())
        await asyncio.sleep(seconds)
        assert not task.done(), task.exception()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
