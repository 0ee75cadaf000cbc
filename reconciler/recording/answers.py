"""Answers from a record: what a reconcile that runs again reads, and where it differs from the recorded one.

Nothing leaves the process. A request is answered by the recorded response to the same request, at the recorded time. A
write that was not recorded is a difference; its answer is computed from the latest recorded version of the object.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, unquote

import msgspec
from pydantic import TypeAdapter

from reconciler._core.redaction import redact
from reconciler._core.wire import UNDECODABLE, JSONObject
from reconciler.cache import CachedClient, CachedObject
from reconciler.cache.decoding import cached_object
from reconciler.cache.informer import Informer
from reconciler.cache.store import IdleObject
from reconciler.controller.effects import EffectCall
from reconciler.controller.wake.change import differences, format_fields
from reconciler.errors import ReconcilerError
from reconciler.http import HTTPRequest, HTTPResponse
from reconciler.meta import GroupVersionKind, Request
from reconciler.meta.documents import merge_patch
from reconciler.meta.metadata import ResourceType
from reconciler.objects.kinds import KindLike, gvk_from
from reconciler.recording.collector import RecordedClient, bounded, encoded, key_of
from reconciler.recording.recording import ServedKind
from reconciler.recording.records import EffectStep, ListStep, ReadStep, ReconcileRecord, RequestStep, reads_of
from reconciler.recording.redaction import DocumentRedactor, redact_request

_MAX_FIELDS = 5
_MAX_VALUE = 100


class NotRecorded(ReconcilerError):
    """A reconcile that runs again asked for something that the recording does not have."""


class Answers:
    """The answers to one reconcile that runs again.

    Args:
        record: the recorded reconcile.
        kinds: how the kinds of the recording are served.

    Attributes:
        differences: how the reconcile differs from the recorded one so far, in order.
        elapsed: returns the seconds since the reconcile began.
        program: the beginning of the field managers in the record; None if it does not tell.
    """

    def __init__(self, record: ReconcileRecord, kinds: Mapping[str, ServedKind]) -> None:
        self.record = record
        self.differences: list[str] = []
        self.elapsed: Callable[[], float] = lambda: 0.0
        self.program = _program(record)
        self._kinds = {each.kind: each.resource for each in kinds.values()}
        self._requests = [step for step in record.steps if isinstance(step, RequestStep)]
        self._effects = [step for step in record.steps if isinstance(step, EffectStep)]
        self._lists = [step for step in record.steps if isinstance(step, ListStep)]
        self._used: dict[str, RequestStep] = {}
        self._times = iter(record.times)
        self._draws = iter(record.draws)
        self._random = random.Random(record.id)  # noqa: S311 - for what was not recorded
        self._versions = itertools.count(1)
        self._redactor = DocumentRedactor()
        self._reads: dict[tuple[str, Request], list[ReadStep]] = {}
        for read in reads_of(record):
            self._reads.setdefault((_kind_name(read.kind), read.request), []).append(read)
        self._written: dict[tuple[str, Request], JSONObject] = {}

    # Reads from the cache.

    def resource(self, gvk: GroupVersionKind) -> ResourceType:
        """Return how a kind is served, as recorded, or as most kinds are."""
        return self._kinds.get(str(gvk)) or ResourceType(gvk, f"{gvk.kind.lower()}s", namespaced=True)

    def read(self, gvk: GroupVersionKind, request: Request) -> CachedObject | None:
        """Return the object that the reconcile read; the last one again, if it reads more often.

        Raises:
            NotRecorded: it did not read this object.
        """
        key = (_kind_name(str(gvk)), request)
        if key in self._written:
            return cached_object(self._written[key])
        reads = self._reads.get(key)
        if reads is None:
            raise self._missing(f"reads {gvk} {request}")
        read = reads.pop(0) if len(reads) > 1 else reads[0]
        return cached_object(msgspec.json.decode(read.data)) if read.data else None

    def list(self, gvk: GroupVersionKind, namespace: str | None, labels: str, fields: str) -> list[CachedObject]:
        """Return the objects that the reconcile listed.

        Raises:
            NotRecorded: it did not list these.
        """
        clean = self._redactor.text(labels), self._redactor.text(fields)
        asked = [each for each in self._lists if (each.namespace, each.labels, each.fields) == (namespace, *clean)]
        same = [each for each in asked if _kind_name(each.kind) == _kind_name(str(gvk))]
        if not same:
            selectors = "".join(f", {text}" for text in (labels, fields) if text)
            raise self._missing(f"lists {gvk} in {namespace or 'all namespaces'}{selectors}")
        if len(same) > 1:
            self._lists.remove(same[0])
        return [cached_object(msgspec.json.decode(each.data)) for each in same[0].items]

    # Requests.

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        """Return the recorded response to a request, when its time has come.

        Raises:
            NotRecorded: it reads something that was not recorded.
            ReconcilerError: an error was recorded in place of a response.
        """
        if request.method == "GET" and request.path.count("/") == (2 if request.path.startswith("/api/") else 3):
            return self._discovery(request.path)
        asked = RequestStep(
            self.elapsed(), 0.0, request.method, request.target, request.headers.get("content-type", ""), request.body
        )
        redact_request(asked, self._redactor, self.record.namespace)
        step = self._recorded(asked)
        if step is None:
            return self._computed(asked, request)
        await asyncio.sleep(max(0.0, step.at + step.seconds - self.elapsed()))
        if step.error.endswith(":CancelledError"):
            await asyncio.Event().wait()
        if step.error:
            raise _exception(step)
        if asked.is_write and step.status < 300:
            self._remember(step.response)
        headers = {"content-type": "application/json"} | ({"retry-after": step.retry_after} if step.retry_after else {})
        return HTTPResponse(step.status, headers, step.response)

    def _recorded(self, asked: RequestStep) -> RequestStep | None:
        """Return the recorded request that is the same; None for a write that was not recorded."""
        changed = bool(self.differences) and not asked.is_write and self._key_at(asked.path) in self._written
        for step in () if changed else self._requests:
            if step.method == asked.method and step.target == asked.target and _same_body(step, asked):
                self._requests.remove(step)
                self._used[step.target] = step
                return step
        if asked.is_write:
            expected = next((each for each in self._requests if each.is_write), None)
            self.differences.append(_difference(expected, asked))
            if expected is not None:
                self._requests.remove(expected)
            return None
        if asked.target in self._used and not changed:
            return self._used[asked.target]
        found = self._object_at(asked.path)
        if found is not None:
            return RequestStep(asked.at, 0.0, "GET", asked.target, "", b"", 200, msgspec.json.encode(found))
        raise self._missing(f"sends GET {asked.target}")

    def _computed(self, asked: RequestStep, request: HTTPRequest) -> HTTPResponse:
        """Return the likely response to a write that was not recorded."""
        before = self._object_at(asked.path) or {}
        try:
            body = msgspec.json.decode(request.body or b"{}")
        except UNDECODABLE:
            body = {}
        if asked.method == "DELETE":
            return HTTPResponse(200, {}, msgspec.json.encode(before or {"kind": "Status", "status": "Success"}))
        if asked.method == "PUT" and asked.path.endswith("/status"):
            body = {"status": body.get("status")}
        elif asked.method == "PUT":
            before = {"status": before["status"]} if "status" in before else {}
        after = merge_patch(before, body) if isinstance(body, dict) else before
        metadata = {"uid": f"00000000-0000-4000-8000-{next(self._versions):012}", **(after.get("metadata") or {})}
        known = str((before.get("metadata") or {}).get("resourceVersion", ""))
        metadata["resourceVersion"] = str((int(known) if known.isdecimal() else 0) + next(self._versions))
        after = {**after, "metadata": metadata}
        response = msgspec.json.encode(after)
        self._remember(response)
        return HTTPResponse(201 if asked.method == "POST" else 200, {"content-type": "application/json"}, response)

    def _remember(self, response: bytes) -> None:
        """Let later reads see a write that was answered otherwise than recorded, or after which nothing was read."""
        document = msgspec.json.decode(response)
        metadata = document.get("metadata") if isinstance(document, dict) else None
        if not isinstance(metadata, dict) or document.get("kind") in (None, "Status"):
            return
        kind = _kind_name(f"{document.get('apiVersion')}/{document['kind']}")
        key = kind, Request(metadata.get("name", ""), metadata.get("namespace"))
        if self.differences or len(self._reads.get(key, ())) < 2:
            self._written[key] = document

    def _object_at(self, path: str) -> JSONObject | None:
        """Return the newest version of the object at a path, as far as it is known."""
        key = self._key_at(path)
        if key is None:
            return None
        reads = self._reads.get(key)
        known = None if reads is None or not reads[-1].data else msgspec.json.decode(reads[-1].data)
        return self._written.get(key, known)

    def _key_at(self, path: str) -> tuple[str, Request] | None:
        for kind, resource in self._kinds.items():
            root = f"{resource.gvk.path}/"
            namespace, parts = None, path.removeprefix(root).split("/")
            if resource.namespaced and parts[0] == "namespaces" and len(parts) > 2:
                namespace, parts = parts[1], parts[2:]
            if path.startswith(root) and len(parts) > 1 and parts[0] == resource.plural:
                return _kind_name(kind), Request(unquote(parts[1]), namespace)
        return None

    def _discovery(self, path: str) -> HTTPResponse:
        verbs = ["get", "list", "watch", "create", "update", "patch", "delete"]
        resources = [
            {"name": name, "kind": each.gvk.kind, "namespaced": each.namespaced, "verbs": verbs}
            for each in self._kinds.values()
            if each.gvk.path == path
            for name in (each.plural, *(f"{each.plural}/{sub}" for sub in each.subresources))
        ]
        body = {"kind": "APIResourceList", "groupVersion": path.split("/", 2)[-1], "resources": resources}
        return HTTPResponse(200, {"content-type": "application/json"}, msgspec.json.encode(body))

    def _missing(self, what: str) -> NotRecorded:
        self.differences.append(f"{what}, which the recording does not have")
        return NotRecorded(f"the reconcile {what}, which the recording does not have")

    # Everything else that a reconcile depends on.

    planning = False

    async def __call__(self, call: EffectCall, /) -> Any:
        """Return the recorded result of an effect, or raise its exception.

        Raises:
            NotRecorded: the effect was not called, or with other arguments.
        """
        arguments = self._redactor.redact(bounded(encoded(dict(call.arguments)))[0])
        key = self._redactor.text(key_of(call))
        same = [each for each in self._effects if each.name == call.name and each.key == key]
        step = next((each for each in same if _equal(each.arguments, arguments)), same[0] if same else None)
        if step is None:
            raise self._missing(f"calls {call.name}({key})")
        if not _equal(step.arguments, arguments):
            self.differences.append(f"{call.name}({key}): {_fields(step.arguments, arguments)}")
        self._effects.remove(step)
        if step.error:
            raise _exception(step)
        if step.left_out:
            raise self._missing(f"needs the {step.left_out} bytes that {call.name}({key}) returned")
        return _typed(msgspec.json.decode(step.value), call)

    def now(self) -> datetime | None:
        """Return the next wall time that was recorded; None if there are no more."""
        return next(self._times, None)

    def draw(self, make: Callable[[], Any]) -> Any:
        """Return the next random number that was recorded; another one of its kind if there are no more."""
        fresh: Any = make()
        if isinstance(fresh, bytes):
            fresh = self._random.randbytes(len(fresh))
        value: Any = next(self._draws, None)
        fits = type(value) is type(fresh) and (not isinstance(value, bytes) or len(value) == len(fresh))
        return value if fits else fresh

    def finish(self, replayed: ReconcileRecord) -> None:
        """Compare how the reconcile ended with the recorded end, and what it did not do."""
        self.differences += [f"does not send {_label(each)}" for each in self._requests if each.is_write]
        self.differences += [f"does not call {each.name}({each.key})" for each in self._effects]
        before, after = ending(self.record), ending(replayed)
        kept, cut, _ = before.partition("…")
        if before != after and not (cut and after.startswith(kept)):
            self.differences.append(f"ends otherwise: {before} → {after}")


class ReplayClient(CachedClient):
    """A cached client that reads from `Answers`."""

    answers: Answers

    async def peek(self, kind: KindLike, request: Request) -> CachedObject | None:
        """Return the object that `get` would read."""
        return self.answers.read(gvk_from(kind), request)

    async def _find(self, informer: Informer, request: Request) -> CachedObject | None:
        return self.answers.read(informer.gvk, request)

    async def _select(
        self, informer: Informer, namespace: str | None, labels: str, fields: str
    ) -> Sequence[CachedObject | IdleObject]:
        return self.answers.list(informer.gvk, namespace, labels, fields)

    async def _informer(self, gvk: GroupVersionKind, namespace: str | None) -> tuple[Informer, str | None]:
        return typing.cast("Informer", _Kind(gvk, self.answers.resource(gvk))), namespace


class RecordedReplayClient(RecordedClient, ReplayClient):
    """A client that reads from `Answers`, and is recorded."""


class _Kind(typing.NamedTuple):
    """What a client needs of an informer, apart from its objects."""

    gvk: GroupVersionKind
    resource: ResourceType

    def version(self, _namespace: str | None) -> str:
        return ""


def ending(record: ReconcileRecord) -> str:
    """Return how a reconcile ended, in a few words."""
    if record.failure is not None:
        return f"{record.failure.type}: {record.failure.message}"
    return record.result if record.requeue_after is None else f"{record.result} {record.requeue_after:g} s"


def _program(record: ReconcileRecord) -> str | None:
    """Return the name of the recorded program, as far as its writes tell."""
    for write in record.writes:
        for name, value in parse_qsl(write.target.partition("?")[2]):
            if name == "fieldManager" and value.endswith(f"/{record.controller}"):
                return value.removesuffix(f"/{record.controller}")
    return None


def _kind_name(kind: str) -> str:
    """Return a kind without its version: every version has the same objects."""
    group, _, name = kind.rpartition("/")
    return f"{group.rpartition('/')[0]}/{name}"


def _label(step: RequestStep) -> str:
    return f"{step.method} {unquote(step.path)}"


def _same_body(one: RequestStep, other: RequestStep) -> bool:
    return one.content_type == other.content_type and _equal(one.body, other.body)


def _equal(one: bytes, other: bytes) -> bool:
    if one == other:
        return True
    try:
        return bool(msgspec.json.decode(one) == msgspec.json.decode(other))
    except UNDECODABLE:
        return False


def _difference(expected: RequestStep | None, asked: RequestStep) -> str:
    if expected is None:
        return f"sends {_label(asked)}, and the recorded reconcile sent no further write"
    if (expected.method, expected.path) != (asked.method, asked.path):
        return f"sends {_label(asked)} in place of {_label(expected)}"
    if expected.target != asked.target:
        return f"sends {asked.method} {asked.target} in place of {expected.target}"
    return f"sends {_label(asked)} with other fields: {_fields(expected.body, asked.body)}"


def _fields(before: bytes, after: bytes) -> str:
    try:
        old, new = msgspec.json.decode(before), msgspec.json.decode(after)
    except UNDECODABLE:
        return "the bodies differ"
    if not isinstance(old, dict) or not isinstance(new, dict):
        return f"{_short(old)} → {_short(new)}"
    found = list(differences(old, new))
    texts = [
        f"{format_fields(each.path)}: {_short(each.before)} → {_short(each.after)}" for each in found[:_MAX_FIELDS]
    ]
    more = [f"and {len(found) - _MAX_FIELDS} more"] if len(found) > _MAX_FIELDS else []
    return "; ".join([*texts, *more]) or "only in what the server keeps, such as the resourceVersion"


def _short(value: object) -> str:
    text = "absent" if value is None else redact(msgspec.json.encode(value).decode())
    return text if len(text) <= _MAX_VALUE else f"{text[: _MAX_VALUE - 1]}…"


def _exception(step: RequestStep | EffectStep) -> BaseException:
    """Return an exception of the recorded class, with its attributes; a `ReconcilerError` if there is no such class.

    Nothing is imported for it: a recording may come from somebody else.
    """
    module, _, name = step.error.partition(":")
    try:
        kind: Any = sys.modules[module]
        for part in name.split("."):
            kind = getattr(kind, part)
        if not issubclass(kind, BaseException):
            raise TypeError
        error = kind.__new__(kind, step.message)
        if isinstance(step, EffectStep):
            vars(error).update(msgspec.json.decode(step.attributes))
    except (KeyError, AttributeError, TypeError, ValueError):
        return ReconcilerError(f"{name}: {step.message}")
    error.args = (step.message,)
    return typing.cast("BaseException", error)


def _typed(value: object, call: EffectCall) -> object:
    """Return a result as the method declares it; as plain JSON if it declares nothing that can be read."""
    try:
        hints = typing.get_type_hints(getattr(call.run, "func", call.run))
        return TypeAdapter(hints["return"]).validate_python(value)
    except Exception:  # noqa: BLE001 - whatever the annotation is
        return value
