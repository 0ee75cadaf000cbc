"""Calls of mappers outside the event delivery: bounded in time, number and memory, and repeated when they fail.

`MapperQueue` holds the versions of objects that are not mapped yet: those of an ``async`` mapper, and those that a
plain one failed on. A call has a timeout. An object that fails is retried with backoff, and given up when it has failed
for `PATIENCE` seconds without a change. What is given up is counted and logged with the object, since nobody else knows
which keys are not woken.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from reconciler.cache import CachedObject
from reconciler.clock import Clock
from reconciler.controller.metrics import ControllerMetrics
from reconciler.controller.wake.calls import bounded
from reconciler.meta import Request
from reconciler.workqueue import ExponentialBackoff, QueueShutDown, WorkQueue

__all__ = ["CONCURRENT_CALLS", "PATIENCE", "MapperQueue"]

CONCURRENT_CALLS = 10
"""Objects that an ``async`` mapper is called for side by side, so that one that hangs does not hold up the others."""

PATIENCE = 600.0
"""Seconds for which an object is mapped again before it is given up: longer than an API server takes to restart."""

MAX_VERSIONS = 100
"""Versions of one object that wait to be mapped; beyond it the oldest is given up."""

MAX_SUPERSEDED = 10_000
"""Versions of all objects of a watch that wait and that the cache does not hold (any more), so that it costs memory to
keep them; beyond it the oldest of the object at hand is given up."""

_log = logging.getLogger("reconciler.controller")


class _Version(NamedTuple):
    """A version of an object, and the priority of the keys that it names."""

    obj: CachedObject
    priority: int


class _Pending:
    """The versions of one object that are not mapped yet.

    Attributes:
        versions: the oldest first.
        gone: whether the object is deleted, so that the cache does not hold the last version.
        since: monotonic second of the first failure since the object changed last; None while there is none.
    """

    __slots__ = ("gone", "since", "versions")

    def __init__(self) -> None:
        self.versions: list[_Version] = []
        self.gone = False
        self.since: float | None = None

    @property
    def superseded(self) -> int:
        """Return how many versions the cache does not hold."""
        return max(0, len(self.versions) - (not self.gone))


class MapperQueue:
    """The objects of one watch that wait for their mapper.

    Every version of an object is mapped, since each may name other keys; the newest first.

    Args:
        name: the mapper and the kind, for messages.
        map_object: maps one object and enqueues the keys; gets the object and the priority.
        timeout: seconds for a call.
        workers: objects that are mapped side by side.
        retry_priority: of an object that failed; a low one, so that it does not hold up those not tried yet.
        clock: times the retries.
        metrics: told of failures and of what is given up.

    Attributes:
        errors: calls that failed or took too long.
        dropped: versions that were given up.
    """

    def __init__(
        self,
        name: str,
        map_object: Callable[[CachedObject, int], Awaitable[None]],
        *,
        timeout: float,
        workers: int,
        retry_priority: int,
        clock: Clock,
        metrics: ControllerMetrics,
    ) -> None:
        self._name = name
        self._map_object = map_object
        self._timeout = timeout
        self._workers = workers
        self._retry_priority = retry_priority
        self._now = clock.monotonic
        self._metrics = metrics
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
        """Return how many versions wait."""
        return sum(len(pending.versions) for pending in self._pending.values())

    @property
    def untried(self) -> int:
        """Return how many objects have not been mapped once since they changed."""
        return len(self._untried)

    def submit(self, obj: CachedObject, priority: int, *, gone: bool = False) -> None:
        """Enqueue an object to be mapped.

        Args:
            obj: a version of it.
            priority: of the keys that it names.
            gone: whether the object is deleted.
        """
        self._keep(obj, priority, gone=gone)
        self._untried.add(obj.request)
        self._tried.clear()
        self._queue.add(obj.request, priority=priority)

    def retry(self, obj: CachedObject, priority: int, error: BaseException, *, gone: bool = False) -> None:
        """Enqueue an object whose mapper has just failed, to be mapped again with backoff."""
        self._keep(obj, priority, gone=gone)
        self._failed(obj.request, error)

    async def settled(self, seconds: float) -> bool:
        """Wait until each object submitted so far was tried once; return False if it takes longer than that.

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
        """Take no more objects. Cancel the workers afterwards: what is not mapped by then is dropped."""
        await self._queue.shutdown()

    async def _work(self) -> None:
        with contextlib.suppress(QueueShutDown):
            while True:
                async with self._queue.item() as key:
                    await self._map(key)

    async def _map(self, key: Request) -> None:
        pending, started = self._pending.get(key), self._now()
        failure: Exception | None = None
        for version in reversed(pending.versions[:] if pending is not None else []):
            error = await self._call(version)
            if error is None:
                self._remove(key, [version])
                continue
            failure = error
            if self._now() - started >= self._timeout:  # it hangs, or all are slow to fail: the others wait
                break
        self._untried.discard(key)
        if not self._untried:
            self._tried.set()
        if failure is not None:
            self._failed(key, failure)
        elif key not in self._pending:
            self._queue.forget(key)

    async def _call(self, version: _Version) -> Exception | None:
        """Map one version; return why that failed."""
        try:
            await bounded(self._map_object(*version), self._timeout)
        except Exception as error:  # noqa: BLE001 - it is logged, counted and tried again
            return error
        return None

    def _failed(self, key: Request, error: BaseException) -> None:
        self.errors += 1
        self._metrics.mapper_failed()
        pending, now = self._pending.get(key), self._now()
        if pending is None:  # too many waited, so that it was given up meanwhile
            return
        if pending.since is None:
            pending.since = now
            _log.error("mapper %s failed on %s: %s; it is called again", self._name, key, _text(error), exc_info=error)
        if now - pending.since < PATIENCE:
            self._queue.add_rate_limited(key, priority=self._retry_priority)
            return
        number = len(pending.versions)
        self._remove(key, pending.versions[:])
        self._queue.forget(key)
        self._count_dropped(number)
        _log.error(
            "mapper %s has failed on %s for %.0f s and is not called again before the object changes; the keys that %s "
            "would have named are not woken: %s",
            self._name,
            key,
            now - pending.since,
            "it" if number == 1 else f"its last {number} versions",
            _text(error),
        )

    def _keep(self, obj: CachedObject, priority: int, *, gone: bool) -> None:
        key = obj.request
        pending = self._pending.setdefault(key, _Pending())
        before = pending.superseded
        last = pending.versions[-1].obj if pending.versions else None
        if last is None or (last.uid, last.version) != (obj.uid, obj.version):  # an update names the last new one again
            pending.versions.append(_Version(obj, priority))
        pending.gone, pending.since = gone, None
        self._superseded += pending.superseded - before
        while pending.versions and (len(pending.versions) > MAX_VERSIONS or self._superseded > MAX_SUPERSEDED):
            self._remove(key, pending.versions[:1])
            self._count_dropped(1)
            if self.dropped & (self.dropped - 1) == 0:  # each time their number has doubled
                _log.warning(
                    "mapper %s is too slow or fails: %d versions of objects were not mapped, the last one of %s; "
                    "the keys that they would have named are not woken",
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

    def _count_dropped(self, versions: int) -> None:
        self.dropped += versions
        self._metrics.unmapped(versions)


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
