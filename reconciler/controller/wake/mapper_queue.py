"""Calls of mappers outside the event delivery: bounded in time, number and memory, with retries.

`MapperQueue` stores the versions of objects that are not mapped yet: those of an ``async`` mapper, and those that a
plain one failed on. A call has a timeout. An object that fails is retried with backoff for as long as it exists. A
deleted object is given up when it has failed for `RETRY_TIMEOUT` seconds, so that it does not cost memory forever. Each
object that is given up is counted and logged, since nothing else shows that its keys are not enqueued.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from reconciler.cache import CachedObject, CacheEvent
from reconciler.clock import Clock
from reconciler.controller.wake.watches import wait_at_most
from reconciler.errors import describe_error
from reconciler.meta import Request
from reconciler.workqueue import ExponentialBackoff, QueueShutDown, WorkQueue

CONCURRENT_CALLS = 10
"""Concurrent calls of an ``async`` mapper, so that one that hangs does not block the others."""

RETRY_TIMEOUT = 600.0
"""Seconds for which a deleted object is retried before it is given up: longer than an API server takes to restart.

The failure of an object that exists is logged again after these seconds."""

MAX_VERSIONS = 100
"""The limit of versions of one object that wait to be mapped; beyond it the oldest is given up."""

MAX_SUPERSEDED = 10_000
"""The limit of waiting versions of all objects of a watch that are no longer in the cache, so that they cost memory.

Beyond it the oldest version of the object being added is given up."""

_log = logging.getLogger("reconciler.controller")


class _Version(NamedTuple):
    """A version of an object, the priority of its keys, and the event that it is part of."""

    obj: CachedObject
    priority: int
    event: CacheEvent


class _Pending:
    """The versions of one object that are not mapped yet.

    Attributes:
        versions: the oldest first.
        gone: whether the object is deleted, so that the last version is not in the cache.
        since: monotonic second of the failure that was logged last; None if the object has changed since.
    """

    __slots__ = ("gone", "since", "versions")

    def __init__(self) -> None:
        self.versions: list[_Version] = []
        self.gone = False
        self.since: float | None = None

    @property
    def superseded(self) -> int:
        """Return how many versions are not in the cache."""
        return max(0, len(self.versions) - (not self.gone))


class MapperQueue:
    """The objects of one watch that wait for their mapper.

    Every version of an object is mapped, the newest first, since each may have other keys.

    Args:
        name: the mapper and the kind, for messages.
        map_object: maps one object and enqueues the keys; gets the object, the priority and the event.
        timeout: seconds for a call.
        workers: concurrent calls.
        retry_priority: of an object that failed; a low one, so that it does not delay those not tried yet.
        clock: times the retries.

    Attributes:
        errors: calls that failed or took too long.
        dropped: versions that were given up.
    """

    def __init__(
        self,
        name: str,
        map_object: Callable[[CachedObject, int, CacheEvent], Awaitable[None]],
        *,
        timeout: float,
        workers: int,
        retry_priority: int,
        clock: Clock,
    ) -> None:
        self._name = name
        self._map_object = map_object
        self._timeout = timeout
        self._workers = workers
        self._retry_priority = retry_priority
        self._now = clock.monotonic
        self._queue: WorkQueue[Request] = WorkQueue(
            name="mapper", rate_limiter=ExponentialBackoff(0.1, 60.0), clock=clock
        )
        self._pending: dict[Request, _Pending] = {}
        self._superseded = 0
        self._untried: set[Request] = set()
        self._tried = asyncio.Event()
        self._tried.set()
        self.errors = 0
        self.dropped = 0

    @property
    def pending(self) -> int:
        """Return how many versions wait. Thread-safe."""
        return sum(len(pending.versions) for pending in list(self._pending.values()))

    @property
    def untried(self) -> int:
        """Return how many objects have not been tried since their last change."""
        return len(self._untried)

    def submit(self, obj: CachedObject, priority: int, event: CacheEvent) -> None:
        """Enqueue an object to be mapped.

        Args:
            obj: a version of it.
            priority: of its keys.
            event: the event that the version is part of.
        """
        self._keep(obj, priority, event)
        self._untried.add(obj.request)
        self._tried.clear()
        self._queue.add(obj.request, priority=priority)

    def retry(self, obj: CachedObject, priority: int, event: CacheEvent, error: BaseException) -> None:
        """Enqueue an object whose mapper has just failed, to be mapped again with backoff."""
        self._keep(obj, priority, event)
        self._failed(obj.request, error)

    def record_deletion(self, key: Request) -> None:
        """Retry an object that was deleted for a limited time; the deletion itself need not be mapped."""
        pending = self._pending.get(key)
        if pending is not None and not pending.gone:
            pending.gone, pending.since = True, None
            self._superseded += 1

    async def settled(self, seconds: float) -> bool:
        """Wait until each object submitted so far was tried once; return False if that takes longer.

        Cancellation changes nothing.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._tried.wait()
        except TimeoutError:
            return False
        return True

    def start(self, name: str) -> list[asyncio.Task[None]]:
        """Start the workers; each ends after `stop`, or raises the `BaseException` that a mapper raised."""
        return [asyncio.create_task(self._work(), name=f"{name} {number}") for number in range(self._workers)]

    async def stop(self) -> None:
        """Accept no more objects. Cancel the workers afterwards: objects that are not mapped by then are dropped."""
        await self._queue.shutdown()

    async def _work(self) -> None:
        try:
            with contextlib.suppress(QueueShutDown):
                while True:
                    async with self._queue.item() as key:
                        await self._map(key)
        finally:
            self._tried.set()  # a BaseException ends the controller, whose start must not wait for the other objects

    async def _map(self, key: Request) -> None:
        pending, started = self._pending.get(key), self._now()
        failure: Exception | None = None
        for version in reversed(pending.versions[:] if pending is not None else []):
            try:
                await wait_at_most(self._timeout, self._map_object(*version))
            except Exception as error:  # noqa: BLE001 - it is logged, counted and tried again
                failure = error
                # It hangs, or all fail slowly: stop here, so that other objects get their turn.
                if self._now() - started >= self._timeout:
                    break
            else:
                self._remove(key, [version])
        self._untried.discard(key)
        if not self._untried:
            self._tried.set()
        if failure is not None:
            self._failed(key, failure)
        elif key not in self._pending:
            self._queue.forget(key)

    def _failed(self, key: Request, error: BaseException) -> None:
        self.errors += 1
        pending, now = self._pending.get(key), self._now()
        if pending is None:  # it was given up in between because too many waited
            return
        is_due = pending.since is not None and now - pending.since >= RETRY_TIMEOUT
        if is_due and pending.gone:
            self._give_up(key, pending, error)
            return
        if is_due or pending.since is None:
            pending.since = now
            _log.error(
                "mapper %s failed on %s and is retried with backoff: %s",
                self._name,
                key,
                describe_error(error),
                exc_info=error,
            )
        self._queue.add_rate_limited(key, priority=self._retry_priority)

    def _give_up(self, key: Request, pending: _Pending, error: BaseException) -> None:
        failed_for = self._now() - (pending.since or 0.0)
        number = len(pending.versions)
        self._remove(key, pending.versions[:])
        self._queue.forget(key)
        self.dropped += number
        _log.error(
            "mapper %s has failed on %s, which was deleted, for %.0f s and is not called again, so the keys of %s are "
            "not enqueued: %s",
            self._name,
            key,
            failed_for,
            "the object" if number == 1 else f"its last {number} versions",
            describe_error(error),
        )

    def _keep(self, obj: CachedObject, priority: int, event: CacheEvent) -> None:
        key = obj.request
        pending = self._pending.setdefault(key, _Pending())
        before = pending.superseded
        last = pending.versions[-1].obj if pending.versions else None
        if last is None or (last.uid, last.version) != (
            obj.uid,
            obj.version,
        ):  # the old object of an update is the last new one
            pending.versions.append(_Version(obj, priority, event))
        pending.gone, pending.since = event.new is None, None
        self._superseded += pending.superseded - before
        while pending.versions and (len(pending.versions) > MAX_VERSIONS or self._superseded > MAX_SUPERSEDED):
            self._remove(key, pending.versions[:1])
            self.dropped += 1
            if self.dropped & (self.dropped - 1) == 0:  # each time the number has doubled
                _log.warning(
                    "mapper %s is too slow or fails: %d versions of objects were given up, most recently of %s, so "
                    "their keys are not enqueued",
                    self._name,
                    self.dropped,
                    key,
                )

    def _remove(self, key: Request, versions: list[_Version]) -> None:
        pending = self._pending[key]
        before = pending.superseded
        pending.versions = [each for each in pending.versions if all(each is not other for other in versions)]
        self._superseded += pending.superseded - before
        if not pending.versions:
            del self._pending[key]
