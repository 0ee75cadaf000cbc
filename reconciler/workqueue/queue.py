"""The work queue: one entry per key, in at most one place of the order, with at most one timer.

How it works: `_entries` has one `QueueEntry` for each key that is in progress, ready or waiting, and no others. If a
key is added while it is in progress, its entry has a `next`. Ready entries are in `_order`, waiting ones in `_timers`.
The event loop has one timer, for the earliest of them. Workers that find no key wait for a future, which only wakes
them: the key stays in the order until a worker takes it, so a worker that is cancelled in between has nothing to lose.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from threading import get_ident
from typing import Generic, NamedTuple, Protocol

from reconciler._core.durations import DurationLike, seconds_of
from reconciler._core.user_code import FAILURES, log_metrics_failure
from reconciler.clock import Clock, current_clock
from reconciler.errors import ReconcilerError
from reconciler.workqueue.concurrency_limit import ConcurrencyLimit
from reconciler.workqueue.order import (
    FairOrder,
    Inbox,
    K,
    QueueEntry,
    ReadyOrder,
    Timers,
    Waiters,
    as_priority,
    due_reasons,
    named,
    without_reason,
)
from reconciler.workqueue.rate_limiters import RateLimiter, guarded_limiter, when_duplicate

_TIMERS_PER_TURN = 200
"""How many timers are processed before the loop may do something else: about a millisecond of work."""


_MANY_TIMERS = 1000
_SHARED_WAKE_UP = 0.1
"""From this number of timers on, those that expire within these seconds share a wake-up of the event loop. Ten thousand
keys at rest then wake it 10 times a second instead of 167 times, and most of them find the processor's caches warm."""


_LONGEST_SLEEP = 86_400.0
"""The longest time in seconds for which the loop's timer is set, since some loops have a limit."""


class InProgress(NamedTuple, Generic[K]):
    """A key that `WorkQueue.get` has returned and that is not done.

    Attributes:
        key: the key.
        reasons: the named reasons that it was queued for, without those of delays that had not ended.
        priority: the priority that it was queued with.
        since: monotonic second at which `get` returned it.
        by_timer: whether only its timer made it ready, and no add without delay.
    """

    key: K
    reasons: frozenset[str]
    priority: int
    since: float
    by_timer: bool = False


@dataclass(frozen=True, slots=True)
class Explanation(Generic[K]):
    """The state of a key in the queue, and why; ``str`` gives one readable line.

    Attributes:
        key: the key.
        in_progress: seconds since `get` returned it, None when it is not in progress.
        current_reasons: the named reasons that it is in progress for.
        ready: seconds since it became ready (for a key in progress, since it was added again); None when it is not.
        due: seconds until its timer makes it ready, None without one. An expired timer gives 0.
        priority: of the pending entry, None when none is pending.
        reasons: the named reasons of the pending entry.
        next_reasons: those of `reasons` that the processing will have if it begins now, or when the timer ends.
        failures: the failures that the rate limiter has recorded.
    """

    key: K
    in_progress: float | None = None
    current_reasons: frozenset[str] = frozenset()
    ready: float | None = None
    due: float | None = None
    priority: int | None = None
    reasons: frozenset[str] = frozenset()
    next_reasons: frozenset[str] = frozenset()
    failures: int = 0

    @property
    def is_active(self) -> bool:
        """Return whether the key is in progress or ready."""
        return self.in_progress is not None or self.ready is not None

    def __str__(self) -> str:
        parts = []
        if self.in_progress is not None:
            parts.append(f"in progress for {self.in_progress:.3g} s{_because(self.current_reasons)}")
        if self.ready is not None and self.in_progress is None:
            parts.append(f"ready for {self.ready:.3g} s, {self._pending()}")
        elif self.ready is not None:
            parts.append(f"queued again {self.ready:.3g} s ago, {self._pending()}")
        if self.due is not None:
            parts.append(f"due in {self.due:.3g} s, {self._pending()}")
        if self.failures:
            parts.append("1 failure" if self.failures == 1 else f"{self.failures} failures")
        return f"{self.key}: {'; '.join(parts) or 'not queued'}"

    def _pending(self) -> str:
        return f"priority {self.priority}{_because(self.next_reasons)}"


def _because(reasons: frozenset[str]) -> str:
    return f" ({', '.join(sorted(reasons))})" if reasons else ""


@dataclass(frozen=True, slots=True)
class QueueStatistics:
    """The counters and the state of a queue at one moment.

    Attributes:
        name: the queue's name.
        ready: keys that are processed as soon as a worker is free, including those that are in progress as well.
        ready_by_priority: the same, for each priority that has any.
        waiting: keys with a timer.
        in_progress: keys in progress.
        idle_workers: calls of `get` that wait.
        adds: how often a key became ready.
        gets: how often `get` returned a key.
        delayed_adds: adds with a delay, including rate-limited ones.
        dropped_adds: adds that came after the shutdown began.
        dropped_ready: ready keys that a shutdown dropped.
        dropped_timers: timers that a shutdown dropped.
        longest_in_progress: seconds since `get` returned the oldest key in progress; 0.0 when there is none.
        unfinished_work: sum of those seconds over all keys in progress.
        shutting_down: whether a shutdown has begun.
        low_limit: how many keys of a negative priority may be in progress now; None without a limit.
    """

    name: str
    ready: int
    ready_by_priority: Mapping[int, int]
    waiting: int
    in_progress: int
    idle_workers: int
    adds: int
    gets: int
    delayed_adds: int
    dropped_adds: int
    dropped_ready: int
    dropped_timers: int
    longest_in_progress: float
    unfinished_work: float
    shutting_down: bool
    low_limit: int | None = None


class QueueMetrics(Protocol):
    """The metrics of one queue: how long keys wait, and how long they are in progress.

    Everything else is a counter or a state that the queue has anyway, so it is read from the queue's statistics when
    somebody asks. The methods are called while the queue works: they must be quick. What the
    two that observe durations raise is logged once and ignored.
    """

    def watch(self, statistics: Callable[[], QueueStatistics], /) -> None:
        """Called once, when the queue is created, with the function that returns its statistics."""

    def observe_queue_duration(self, seconds: float, /) -> None:
        """Called when `get` returns a key, with the time that the key was ready."""

    def observe_work_duration(self, seconds: float, /) -> None:
        """Called when a key is done, with the time that it was in progress."""


class QueueShutDown(ReconcilerError):
    """The error raised in workers when the queue is shut down and has no keys left."""


class WorkQueue(Generic[K]):
    """A queue of keys for workers: each key is processed by one worker at a time, as often as needed and no more.

    For one event loop; you can create it, and add keys, before there is one. Other threads may call `add` and
    `add_threadsafe`. The docstring of `reconciler.workqueue` lists the guarantees.

    Args:
        name: for error messages and statistics. Defaults to ``""``.
        rate_limiter: computes the delays of `add_rate_limited`. Defaults to ``ExponentialBackoff(0.005, 1000)``,
            controller-runtime's default.
        clock: source of monotonic time. Defaults to the current clock.
        metrics: receives the durations of waits and processing. Defaults to None.
        fair_by: returns the group of a key, such as its namespace. Groups that have ready keys take turns, one key per
            turn, and priorities count within a group. It is called once each time that a key becomes ready; if it
            fails, the error is logged and the key is in the group None. Defaults to one group.
        low_limit: limits how many keys of a negative priority are in progress. Defaults to no limit.

    Attributes:
        low_limit: as given.

    Raises:
        TypeError: `rate_limiter` is not a rate limiter, or `fair_by` is a coroutine function.
    """

    def __init__(
        self,
        *,
        name: str = "",
        rate_limiter: RateLimiter | None = None,
        clock: Clock | None = None,
        metrics: QueueMetrics | None = None,
        fair_by: Callable[[K], Hashable] | None = None,
        low_limit: ConcurrencyLimit | None = None,
    ) -> None:
        self._name = name
        self.low_limit = low_limit
        if low_limit is not None:
            low_limit.on_raise = self._wake_for_low
        self._limiter = guarded_limiter(rate_limiter)
        self._now = (clock or current_clock()).monotonic
        self._observe_wait = None if metrics is None else metrics.observe_queue_duration
        self._observe_work = None if metrics is None else metrics.observe_work_duration
        self._entries: dict[K, QueueEntry[K]] = {}
        self._order: ReadyOrder[K] | FairOrder[K] = ReadyOrder() if fair_by is None else FairOrder(fair_by)
        self._timers: Timers[K] = Timers()
        self._in_progress: set[QueueEntry[K]] = set()
        self._workers = Waiters()
        self._drainers = Waiters()
        self._closing = False
        self._stopped = False
        self._adds = self._gets = self._delayed_adds = 0
        self._dropped_adds = self._dropped_ready = self._dropped_timers = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = get_ident()  # the loop's; before there is a loop, the one that created the queue
        self._unbound = True  # whether something waits for the loop to be known
        self._alarm: asyncio.TimerHandle | None = None  # the one timer that the queue has in the loop
        self._alarm_at = math.inf
        self._inbox: Inbox[K] = Inbox(self._deliver, self._count_dropped)
        if metrics is not None:
            metrics.watch(self.statistics)
        with contextlib.suppress(RuntimeError):  # created before there is a loop, it binds in the first call of `get`
            self._bind()

    # Adding keys

    def add(self, key: K, *, after: DurationLike | None = None, priority: int = 0, reason: str = "") -> None:
        """Make a key ready now, or after a delay; a key in progress is processed once more afterwards.

        A key has one timer: a plain add drops it, a delay keeps the earlier of two times, and a delay on a ready key
        changes nothing, since its processing covers everything. The highest priority given counts; a key whose
        priority is raised goes last in its new priority. Once a shutdown has begun, adds are dropped and counted;
        while the queue drains, adds without delay to keys that are ready or in progress still count.

        Called in another thread, this is `add_threadsafe`.

        Args:
            key: the key.
            after: a duration: seconds, a timedelta or ``"30s"``; None, 0 or less is now. In a queue with a thousand
                timers a key may be ready 0.1 s later, so that several share a wake-up.
            priority: keys with a higher one come first. Defaults to 0.
            reason: a word that says why, for `in_progress`, `retract` and `explain`. An add without one counts as a
                reason of its own. A key stores up to `MAX_REASONS` of them. The processing covers all of them, and
                `in_progress` reports those whose delay had ended.

        Raises:
            ValueError: the delay is not a duration, or not finite.
            TypeError: the delay is not a number, or the priority is not an integer.
        """
        if get_ident() != self._thread:
            self.add_threadsafe(key, after=after, priority=priority, reason=reason)
            return
        if after is not None and not (type(after) is float and -math.inf < after < math.inf):
            after = seconds_of("after", after, signed=True)
        if type(priority) is not int:
            priority = as_priority(priority)
        head = self._entries.get(key)
        if self._closing and not self._is_covered(head, after):
            self._count_dropped(1)
            return
        now = self._now()
        due = None if after is None or after <= 0 else now + after
        if head is None:
            entry = self._entries[key] = QueueEntry(key, reason, priority, now)
        elif (pending := head if head.started_at is None else head.next) is None:
            entry = head.next = QueueEntry(key, reason, priority, now)
        else:
            self._merge(pending, priority, reason, due)
            return
        if due is not None:
            self._delayed_adds += 1
            self._set_timer(entry, due)
            return
        self._adds += 1
        if head is None:
            self._order.push(entry)
            if self._workers.futures:
                self._workers.wake_one()

    def add_rate_limited(self, key: K, *, priority: int = 0, reason: str = "", at_least: DurationLike = 0.0) -> None:
        """Add a key after the delay that the rate limiter computes, which counts this as a failure.

        A key that is ready, or already waits because of the rate limiter, is a duplicate: its failure counts, but it is
        not charged to what keys share (see `TokenBucket`).

        Args:
            key: the key.
            priority: as in `add`.
            reason: as in `add`.
            at_least: the minimum delay, a duration as in `add`, whatever the rate limiter returns. Defaults to 0.

        Raises:
            RuntimeError: called outside the thread of the queue's event loop.
            ValueError: `at_least` is not a duration of 0 or more.
        """
        self._check_thread()
        least = seconds_of("at_least", at_least, zero=True)  # before the failure counts
        entry = self._pending(key)
        if self._closing and (entry is None or entry.due is not None):
            self._count_dropped(1)
            return
        duplicate = entry is not None and (entry.due is None or entry.limited)
        delay = when_duplicate(self._limiter, key) if duplicate else self._limiter.when(key)
        self.add(key, after=max(delay, least), priority=priority, reason=reason)
        entry = self._pending(key)
        assert entry is not None  # noqa: S101 - it was added
        entry.limited = True

    def add_threadsafe(self, key: K, *, after: DurationLike | None = None, priority: int = 0, reason: str = "") -> None:
        """Add a key from any thread; the effect of `add` follows when the loop processes it.

        An add before the queue has a loop waits for it; an add after the loop is closed is dropped and counted.

        Raises:
            ValueError: the delay is not a duration, or not finite.
            TypeError: the delay is not a number, or the priority is not an integer.
        """
        due = None if after is None else self._now() + seconds_of("after", after, signed=True)
        self._inbox.put(key, due, as_priority(priority), reason)

    def retract(self, key: K, reason: str) -> bool:
        """Remove one reason from a key; without any reason left, the key is neither ready nor waiting.

        For a key in progress this concerns the processing after the current one. Other reasons keep the key where it
        is: a timer that a plain add has dropped does not come back.

        Returns:
            Whether the reason was pending.

        Raises:
            RuntimeError: called outside the thread of the queue's event loop.
        """
        self._check_thread()
        entry = self._pending(key)
        if entry is None:
            return False
        found, entry.reasons = without_reason(entry.reasons, reason)
        if entry.later is not None:
            entry.later.pop(reason, None)
        if found and entry.reasons is None:
            self._withdraw(entry)
            self._stop_if_drained()
        return found

    def forget(self, key: K) -> None:
        """Reset the rate limiter for a key; what is pending stays pending.

        Its next failure is not a duplicate, so it is charged to what keys share.
        """
        self._limiter.forget(key)
        if (pending := self._pending(key)) is not None:
            pending.limited = False

    # Processing keys

    async def get(self) -> K:
        """Wait for a key and return it; it is in progress until you call `done`.

        `take` does the same, and says why the key was queued.

        Cancellation leaves the queue unchanged: the key goes to the next worker. A key that was returned is in
        progress, so use `item` if the code before `done` may raise or be cancelled.

        Raises:
            QueueShutDown: the queue is shut down and, if it drains, nothing is ready or in progress any more.
            RuntimeError: the queue belongs to another event loop, which is running.
        """
        return (await self.take()).key

    async def take(self) -> InProgress[K]:
        """Wait for a key as `get` does, and return it with what `in_progress` says of it.

        Cancellation takes no key.
        """
        if self._unbound or get_ident() != self._thread:
            self._bind()
        limit, order = self.low_limit, self._order
        while True:
            # The limit is only asked while a key of a negative priority is ready.
            urgent = limit is not None and order.size > order.urgent and limit.full
            if order.urgent if urgent else order.size:
                break
            if self._stopped:
                raise QueueShutDown(f"work queue {self._name!r} is shut down")
            if urgent:
                self._set_alarm()  # the limit may rise although no key in progress ends
            await self._wait()
        entry = order.pop(urgent=urgent)
        if limit is not None and entry.priority < 0:
            limit.begin()
        now = entry.started_at = self._now()
        if entry.later:
            entry.reasons = due_reasons(entry.reasons, entry.later, now)
        self._in_progress.add(entry)
        self._gets += 1
        taken = InProgress(entry.key, named(entry.reasons), entry.priority, now, entry.by_timer)
        if self._observe_wait is not None:
            try:
                self._observe_wait(now - entry.ready_at)
            except FAILURES:
                log_metrics_failure(self._observe_wait)
        return taken

    def done(self, key: K) -> None:
        """Mark a key as processed; if it was added in between, it goes to the tail of its priority.

        Raises:
            ValueError: the key is not in progress.
            RuntimeError: called outside the thread of the queue's event loop.
        """
        if get_ident() != self._thread:
            raise self._wrong_thread()
        entry = self._entries.pop(key, None)  # nearly every key is not pending again
        if entry is None or entry.started_at is None:
            if entry is not None:
                self._entries[key] = entry
            raise ValueError(f"{key!r} is not in progress: call done once for each key that get returned")
        now = self._now()
        if self._observe_work is not None:
            try:
                self._observe_work(now - entry.started_at)
            except FAILURES:
                log_metrics_failure(self._observe_work)
        self._in_progress.discard(entry)
        if self.low_limit is not None and entry.priority < 0:
            self.low_limit.end()
            if self._workers.futures and self._loop is not None and not self._loop.is_closed():
                # Not at once: nearly always the caller takes the next key, and a worker woken for it would find none.
                self._loop.call_soon(self._wake_for_low)
        pending = entry.next
        if pending is not None:
            self._entries[key] = pending
            if pending.due is None:
                pending.ready_at = now
                self._order.push(pending)
                self._workers.wake_one()
        if self._closing:
            self._stop_if_drained()

    @contextlib.asynccontextmanager
    async def item(self) -> AsyncIterator[K]:
        """Get a key on entry of an ``async with`` block and mark it done on exit.

        Cancellation while it waits leaves the queue unchanged; inside the block it marks the key done.

        Raises:
            QueueShutDown: on entry, as `get` does.
        """
        key = await self.get()
        try:
            yield key
        finally:
            self.done(key)

    async def shutdown(self, *, drain: bool = False) -> None:
        """Shut the queue down: drop all further adds, and let the workers end.

        Without `drain`, ready keys are dropped and every `get` raises at once; keys in progress stay so until `done`.
        With it, `get` works until nothing is ready or in progress, and this call waits for that; a key that is added
        while it is in progress is still processed. Timers are dropped in both cases. The statistics count what is
        dropped.

        It may be called concurrently and repeatedly: a shutdown without `drain` ends a draining one, and every call
        that waits for it. A caller that drains must leave the keys to workers, and must not hold one itself.

        Cancellation stops the waiting, not the shutdown.

        Args:
            drain: wait for what is ready and in progress. Limit it with `asyncio.timeout`, then shut down without.
        """
        self._bind()
        self._inbox.take()
        self._closing = True
        self._drop_timers()
        if drain:
            self._stop_if_drained()
        else:
            self._stop()
        if not self._stopped:
            await self._drainers.wait()

    # Inspecting the queue

    def __len__(self) -> int:
        """Return the number of ready keys, including those that are in progress and processed once more."""
        return self._order.size + len(self._ready_next())

    @property
    def name(self) -> str:
        """Return the name of the queue."""
        return self._name

    @property
    def active(self) -> int:
        """Return the number of keys in progress. Thread-safe."""
        return len(self._in_progress)

    @property
    def shutting_down(self) -> bool:
        """Return whether a shutdown has begun, so that adds are dropped."""
        return self._closing

    def in_progress(self, key: K) -> InProgress[K] | None:
        """Return why and since when a key is in progress; None if it is not."""
        entry = self._entries.get(key)
        if entry is None or entry.started_at is None:
            return None
        return InProgress(key, named(entry.reasons), entry.priority, entry.started_at, entry.by_timer)

    def reasons(self, key: K) -> frozenset[str]:
        """Return the named reasons that a key is pending for; `in_progress` has those of a key in progress."""
        entry = self._pending(key)
        return frozenset() if entry is None else named(entry.reasons)

    def retries(self, key: K) -> int:
        """Return how many failures of a key the rate limiter has recorded."""
        return self._limiter.retries(key)

    def __contains__(self, key: object) -> bool:
        """Return whether a key is in progress, ready or waiting."""
        return key in self._entries

    def keys(self) -> list[K]:
        """Return all keys that are in progress, ready or waiting."""
        return list(self._entries)

    def explain(self, key: K) -> Explanation[K]:
        """Return the state of a key, since when, and why."""
        entry, now = self._entries.get(key), self._now()
        pending = None if entry is None else entry.pending
        found = Explanation(key, failures=self._limiter.retries(key))
        if entry is not None and entry.started_at is not None:
            found = replace(found, in_progress=now - entry.started_at, current_reasons=named(entry.reasons))
        if pending is None:
            return found
        waits = pending.due is not None
        next_reasons = due_reasons(pending.reasons, pending.later, now if pending.due is None else pending.due)
        return replace(
            found,
            ready=None if waits else now - pending.ready_at,
            due=None if pending.due is None else max(0.0, pending.due - now),
            priority=pending.priority,
            reasons=named(pending.reasons),
            next_reasons=named(next_reasons),
        )

    def statistics(self) -> QueueStatistics:
        """Return a snapshot of the queue's counters and state. Thread-safe."""
        now = self._now()
        ages = [now - entry.started_at for entry in list(self._in_progress) if entry.started_at is not None]
        by_priority = self._order.sizes()
        by_priority.update(entry.priority for entry in self._ready_next())
        ready = by_priority.total()
        return QueueStatistics(
            name=self._name,
            ready=ready,
            ready_by_priority=dict(by_priority),
            waiting=len(self._timers),
            in_progress=len(ages),
            idle_workers=len(self._workers.futures),
            adds=self._adds,
            gets=self._gets,
            delayed_adds=self._delayed_adds,
            dropped_adds=self._dropped_adds,
            dropped_ready=self._dropped_ready,
            dropped_timers=self._dropped_timers,
            longest_in_progress=max(ages, default=0.0),
            unfinished_work=math.fsum(ages),
            shutting_down=self._closing,
            low_limit=None if self.low_limit is None else self.low_limit.limit,
        )

    # Changing entries

    def _pending(self, key: K) -> QueueEntry[K] | None:
        """Return the entry of a key that is ready or waiting."""
        entry = self._entries.get(key)
        return None if entry is None else entry.pending

    def _ready_next(self) -> list[QueueEntry[K]]:
        """Return the ready entries of keys in progress. Thread-safe."""
        following = [entry.next for entry in list(self._in_progress)]
        return [entry for entry in following if entry is not None and entry.due is None]

    def _is_covered(self, head: QueueEntry[K] | None, after: float | None) -> bool:
        """Return whether a draining shutdown still accepts an add."""
        if head is None or self._stopped:
            return False
        in_progress = head.started_at is not None
        pending = head.pending
        return (pending is not None and pending.due is None) or (in_progress and (after is None or after <= 0))

    def _merge(self, entry: QueueEntry[K], priority: int, reason: str, due: float | None) -> None:
        """Add a reason to a pending entry, which may make it ready, or earlier.

        Args:
            entry: the entry.
            priority: of the add.
            reason: of the add.
            due: monotonic second of the add; None for now.
        """
        entry.merge_reason(reason, due)
        if priority > entry.priority:
            if entry.due is None and self._is_head(entry):
                self._order.reprioritize(entry, priority)
                self._workers.wake_one()  # it may have waited for the limit of low priority
            else:
                entry.priority = priority
        if due is not None:
            self._delayed_adds += 1
            if entry.due is not None and due < entry.due:
                self._set_timer(entry, due)
        elif entry.due is None:
            entry.by_timer = False
        else:
            self._timers.clear(entry)
            self._make_ready(entry, self._now())

    def _is_head(self, entry: QueueEntry[K]) -> bool:
        """Return whether a pending entry does not wait for the end of the processing of its key in progress."""
        return self._entries[entry.key] is entry

    def _set_timer(self, entry: QueueEntry[K], due: float) -> None:
        self._timers.set(entry, due)
        if due < self._alarm_at:
            self._set_alarm()

    def _deliver(self, key: K, due: float | None, priority: int, reason: str) -> None:
        self.add(key, after=None if due is None else due - self._now(), priority=priority, reason=reason)

    def _make_ready(self, entry: QueueEntry[K], now: float, *, by_timer: bool = False) -> None:
        entry.by_timer = by_timer
        entry.ready_at = now
        self._adds += 1
        if self._entries[entry.key] is entry:  # not the next one of a key in progress
            self._order.push(entry)
            if self._workers.futures:
                self._workers.wake_one()

    def _withdraw(self, entry: QueueEntry[K]) -> None:
        """Remove a ready or waiting entry."""
        if entry.due is not None:
            self._timers.clear(entry)
        elif self._is_head(entry):
            self._order.remove(entry)
        self._discard(entry)

    def _discard(self, entry: QueueEntry[K]) -> None:
        if self._is_head(entry):
            del self._entries[entry.key]
        else:
            self._entries[entry.key].next = None

    def _wake_for_low(self) -> None:
        """Wake the workers that may take keys of a negative priority now."""
        if self.low_limit is not None and self._workers.futures:
            for _ in range(min(self.low_limit.limit - self.low_limit.in_use, self._order.size)):
                self._workers.wake_one()

    async def _wait(self) -> None:
        """Wait until there may be something to do."""
        self._bind()
        if not self._order.size:
            self._order.shrink()
        if not self._entries:
            self._entries.clear()  # a dict that was emptied item by item keeps its largest size
        await self._workers.wait()

    # Shutting down

    def _drop_timers(self) -> None:
        for entry in self._timers.drop_all():
            self._dropped_timers += 1
            self._discard(entry)
        self._cancel_alarm()

    def _stop_if_drained(self) -> None:
        if self._closing and not self._order.size and not self._in_progress:
            self._stop()

    def _stop(self) -> None:
        """Drop ready keys, and wake every task that waits."""
        self._stopped = True
        for entry in [entry.pending for entry in self._entries.values()]:
            if entry is not None:  # it is ready: the timers were dropped before
                self._withdraw(entry)
                self._dropped_ready += 1
        self._workers.wake_all()
        self._drainers.wake_all()

    def _count_dropped(self, adds: int) -> None:
        self._dropped_adds += adds

    # The event loop and its timer

    def _check_thread(self) -> None:
        if get_ident() != self._thread:
            raise self._wrong_thread()

    def _wrong_thread(self) -> RuntimeError:
        return RuntimeError(
            f"work queue {self._name!r} belongs to another thread's event loop: use add_threadsafe here"
        )

    def _bind(self) -> None:
        """Bind the queue to the running loop: process adds from other threads, set the timer.

        Raises:
            RuntimeError: the queue belongs to another loop, which is running.
        """
        loop = asyncio.get_running_loop()
        if loop is self._loop and not self._unbound:
            return
        if loop is not self._loop:
            if self._loop is not None and self._loop.is_running():
                raise self._wrong_thread()
            self._thread = get_ident()
            self._cancel_alarm()
            self._workers.clear()  # they waited in a loop that has ended
            self._drainers.clear()
            self._loop = loop
            self._inbox.bind(loop)
        self._unbound = False
        self._set_alarm()

    def _set_alarm(self, not_before: float = -math.inf) -> None:
        due = self._timers.next_due()
        limit = self.low_limit
        if limit is not None and self._order.size and limit.full and limit.rises_at < math.inf:
            due = limit.rises_at if due is None else min(due, limit.rises_at)
        if due is None:
            return
        due = max(due, not_before)
        if self._loop is None or self._loop.is_closed():
            self._unbound = True  # the next `get` sets the timer
        elif due < self._alarm_at:
            self._cancel_alarm()
            self._alarm_at = due
            delay = min(max(0.0, due - self._now()), _LONGEST_SLEEP)
            self._alarm = self._loop.call_at(self._loop.time() + delay, self._on_alarm)

    def _cancel_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm, self._alarm_at = None, math.inf

    def _on_alarm(self) -> None:
        self._cancel_alarm()
        now = self._now()
        if self.low_limit is not None:
            self.low_limit.update()
        for _ in range(_TIMERS_PER_TURN):
            entry = self._timers.pop_due(now)
            if entry is None:
                not_before = now + _SHARED_WAKE_UP if len(self._timers) >= _MANY_TIMERS else now
                self._set_alarm(not_before)
                return
            self._make_ready(entry, now, by_timer=True)
        self._set_alarm()
