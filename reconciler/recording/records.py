"""Records of reconciles: what each one read, wrote, was told and returned, in order, as data.

Random numbers belong to it: a recorder keeps what each reconcile drew, and a replay returns it again.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

import msgspec

from reconciler.controller.reconcile.explanation import ReconcileFailure
from reconciler.meta import Request


class ReadStep(msgspec.Struct, array_like=True, tag="read", gc=False):
    """The read of one object from the cache.

    Attributes:
        at: seconds since the reconcile began.
        kind: such as ``"apps/v1/Deployment"``.
        name: the object's name.
        namespace: its namespace; None for a cluster-scoped kind.
        version: its resourceVersion; None if there was no such object.
        data: the document as the cache has it; empty if there was no such object.
    """

    at: float
    kind: str
    name: str
    namespace: str | None
    version: str | None = None
    data: bytes = b""

    @property
    def request(self) -> Request:
        """Return the object's key."""
        return Request(self.name, self.namespace)


class ListStep(msgspec.Struct, array_like=True, tag="list", gc=False):
    """A list of objects from the cache.

    Attributes:
        at: seconds since the reconcile began.
        kind: such as ``"apps/v1/Deployment"``.
        namespace: the namespace that was listed; None for all.
        labels: the label selector; ``""`` for none.
        fields: the field selector; ``""`` for none.
        items: the objects, in order.
    """

    at: float
    kind: str
    namespace: str | None
    labels: str
    fields: str
    items: list[ReadStep]


class RequestStep(msgspec.Struct, array_like=True, tag="request", gc=False):
    """A request to the API server, and its response.

    Attributes:
        at: seconds since the reconcile began, when it was sent.
        seconds: how long the response took.
        method: the HTTP method.
        target: path and query.
        content_type: of the body; ``""`` without one.
        body: the body of the request.
        status: the status code; 0 if there was no response.
        response: the body of the response.
        retry_after: the header of the response; ``""`` for none.
        error: the class of the error that was raised in place of a response, ``"module:Class"``; ``""`` for none.
        message: the text of that error.
    """

    at: float
    seconds: float
    method: str
    target: str
    content_type: str
    body: bytes
    status: int = 0
    response: bytes = b""
    retry_after: str = ""
    error: str = ""
    message: str = ""

    @property
    def is_write(self) -> bool:
        """Return whether the request changes something, unless it was refused or is a dry run."""
        return self.method not in ("GET", "HEAD")

    @property
    def path(self) -> str:
        """Return the path without the query."""
        return self.target.partition("?")[0]


class EffectStep(msgspec.Struct, array_like=True, tag="effect", gc=False):
    """A call of a method that is declared with `effect`.

    Attributes:
        at: seconds since the reconcile began.
        name: the name of the method.
        key: what the effect concerns: its first argument.
        arguments: all arguments as JSON; what JSON cannot express is its ``repr``.
        value: the result as JSON.
        error: the class of the exception that was raised instead, ``"module:Class"``; ``""`` for none.
        message: the text of that exception.
        attributes: its attributes as JSON.
        left_out: size in bytes of a result that is too large for a recording; `value` says so.
    """

    at: float
    name: str
    key: str
    arguments: bytes
    value: bytes = b"null"
    error: str = ""
    message: str = ""
    attributes: bytes = b"{}"
    left_out: int = 0


class LogStep(msgspec.Struct, array_like=True, tag="log", gc=False):
    """A log record.

    Attributes:
        at: seconds since the reconcile began.
        level: such as ``"WARNING"``.
        logger: the name of the logger.
        message: the formatted message.
    """

    at: float
    level: str
    logger: str
    message: str


Step = ReadStep | ListStep | RequestStep | EffectStep | LogStep


class WakeUp(msgspec.Struct, array_like=True, gc=False):
    """A change of an object that enqueued the key.

    Attributes:
        kind: such as ``"apps/v1/Deployment"``.
        name: the object's name.
        namespace: its namespace; None for a cluster-scoped kind.
        type: ``"added"``, ``"updated"`` or ``"deleted"``.
        version: its resourceVersion; None for the new object of the key.
        at: the wall time of the watch event.
        managers: the field managers of a new object.
        versions: the object before and after an update.
        managed_fields: the managedFields after an update, as JSON; empty if they are not known.
    """

    kind: str
    name: str
    namespace: str | None
    type: str
    version: str | None
    at: datetime
    managers: tuple[str, ...] = ()
    versions: list[ReadStep] = []
    managed_fields: bytes = b""

    @property
    def request(self) -> Request:
        """Return the object's key."""
        return Request(self.name, self.namespace)


class ReconcileRecord(msgspec.Struct, gc=False):
    """One reconcile: why it ran, its steps in order, and how it ended.

    Attributes:
        id: the reconcile id, as in its log records.
        controller: the controller's name.
        kind: the primary kind, such as ``"example.com/v1/Database"``.
        name: the name of the object.
        namespace: its namespace; None for a cluster-scoped object.
        started: the wall time at which it began.
        reasons: why it ran.
        attempt: consecutive failures before it.
        priority: of the key in the queue.
        wake_ups: the changes that enqueued the key; empty if another reason did.
        steps: what it read, wrote, called and logged, in order.
        times: the wall times that it read from the clock, in order.
        draws: the random numbers and bytes that it drew, in order.
        seconds: its duration; 0 while it is in progress.
        result: how it ended, as in the metrics; ``"cancelled"`` by the shutdown; ``""`` while it is in progress.
        requeue_after: the delay in seconds that it returned; None for none.
        failure: how it failed; None if it did not.
        overtaken: whether the object changed during the reconcile, so that another one followed.
    """

    id: str
    controller: str
    kind: str
    name: str
    namespace: str | None
    started: datetime
    reasons: tuple[str, ...]
    attempt: int = 0
    priority: int = 0
    wake_ups: tuple[WakeUp, ...] = ()
    steps: list[Step] = msgspec.field(default_factory=list)
    times: list[datetime] = msgspec.field(default_factory=list)
    draws: list[Any] = msgspec.field(default_factory=list)
    seconds: float = 0.0
    result: str = ""
    requeue_after: float | None = None
    failure: ReconcileFailure | None = None
    overtaken: bool = False

    @property
    def request(self) -> Request:
        """Return the key."""
        return Request(self.name, self.namespace)

    @property
    def ended(self) -> datetime:
        """Return the wall time at which it ended."""
        return self.started.astimezone(UTC) + timedelta(seconds=self.seconds)

    @property
    def writes(self) -> list[RequestStep]:
        """Return the requests that write, in order."""
        return [step for step in self.steps if isinstance(step, RequestStep) and step.is_write]


DocumentKey = tuple[str, str, str | None, str | None]


def reads_of(record: ReconcileRecord) -> list[ReadStep]:
    """Return the reads of a record, those of its lists included."""
    steps = [each for each in record.steps if isinstance(each, (ReadStep, ListStep))]
    return [read for each in steps for read in (each.items if isinstance(each, ListStep) else [each])]


def documents_of(record: ReconcileRecord) -> list[ReadStep]:
    """Return everything in a record that has a document: its reads, and the objects that enqueued its key."""
    return reads_of(record) + [read for each in record.wake_ups for read in each.versions]


def document_key(read: ReadStep) -> DocumentKey:
    """Return what identifies the document of a read."""
    return read.kind, read.name, read.namespace, read.version


Draw = Callable[[Callable[[], Any]], Any]
"""Called for each number; its argument draws one from the usual source."""


@contextlib.contextmanager
def drawn_through(draw: Draw) -> Iterator[None]:
    """Draw all numbers of `random`, `secrets` and `uuid.uuid4` through a function until the block ends.

    That includes `os.urandom`. A function of `random` that a module imported by name before is not included, and
    neither is a `random.Random` of your own.
    """
    drawn, bits, system = random.random, random.getrandbits, os.urandom

    class DrawnRandom(random.Random):
        def random(self) -> float:
            return float(draw(drawn))

        def getrandbits(self, k: int, /) -> int:
            if k > 64:  # MessagePack has no such numbers
                return int.from_bytes(bytes(draw(lambda: bits(k).to_bytes((k + 7) // 8)))) & (1 << k) - 1
            return int(draw(lambda: bits(k)))

    def urandom(size: int, /) -> bytes:
        return bytes(draw(lambda: system(size)))

    through = DrawnRandom()
    with contextlib.ExitStack() as stack:
        for name in random.__all__:
            if isinstance(getattr(getattr(random, name), "__self__", None), random.Random) and name not in _STATE:
                stack.enter_context(mock.patch.object(random, name, getattr(through, name)))
        stack.enter_context(mock.patch.object(random, "_urandom", urandom))
        stack.enter_context(mock.patch.object(os, "urandom", urandom))
        yield


_STATE = frozenset({"seed", "getstate", "setstate"})
"""Functions that act on the usual generator itself."""
