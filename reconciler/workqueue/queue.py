"""The work queue: one entry a key, one place in the order, one timer.

How it works: `_entries` has one `Entry` for each key that is in hand, ready or waiting, and no other. Ready entries
that are not in hand stand in `_order`, waiting ones in `_timers`; the loop has one timer, for the earliest of them.
Workers that find nothing wait for a future, which only wakes them: a key stays in the order until a worker takes it, so
that a worker which is cancelled in between has nothing to lose.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from collections.abc import Callable, Hashable

from reconciler.clock import Clock, current_clock
from reconciler.errors import ReconcilerError
from reconciler.workqueue.alarm import Alarm
from reconciler.workqueue.entry import Entry, K
from reconciler.workqueue.inbox import Inbox
from reconciler.workqueue.item import QueueItem
from reconciler.workqueue.limiters import ExponentialBackoff, RateLimiter, when_duplicate
from reconciler.workqueue.metrics import QueueMetrics
from reconciler.workqueue.reasons import with_reason, without_reason
from reconciler.workqueue.state import QueueState

__all__ = ["QueueShutDown", "WorkQueue"]

_TIMERS_A_TURN = 1000
"""How many timers are served before the loop may do something else."""


class QueueShutDown(ReconcilerError):
    """Tell a worker that no key will come any more."""


class WorkQueue(QueueState[K]):
    """Hand keys to workers: each to one at a time, as often as needed and no more.

    For one event loop; it can be made, and added to, before there is one. Other threads may call `add` and
    `add_threadsafe`. What is guaranteed: the room's docstring.

    Args:
        name: for error messages and statistics. Defaults to ``""``.
        rate_limiter: decides the delays of `add_rate_limited`. Defaults to ``ExponentialBackoff(0.005, 1000)``,
            controller-runtime's default.
        clock: source of monotonic time. Defaults to the clock in force.
        metrics: measures waits and runs. Defaults to nobody.
        fair_by: returns the group of a key, such as its namespace. Groups that have ready keys take turns, one hand-out
            each, and priorities count within a group. Defaults to one group.
    """

    def __init__(
        self,
        *,
        name: str = "",
        rate_limiter: RateLimiter | None = None,
        clock: Clock | None = None,
        metrics: QueueMetrics | None = None,
        fair_by: Callable[[K], Hashable] | None = None,
    ) -> None:
        limiter = rate_limiter or ExponentialBackoff(0.005, 1000)
        super().__init__(name, limiter, (clock or current_clock()).monotonic, fair_by)
        self._metrics = metrics
        self._drainers: list[asyncio.Future[None]] = []
        self._stopped = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.get_ident()  # the loop's; before there is a loop, the one that made the queue
        self._unbound = True  # something may wait for the loop to be known
        self._alarm = Alarm(self._now, self._fire)
        self._inbox: Inbox[K] = Inbox(self._deliver, self._count_dropped)
        if metrics is not None:
            metrics.watch(self.statistics)
        with contextlib.suppress(RuntimeError):  # made before there is a loop, it meets it in the first call of `get`
            self._bind()

    # Adding

    def add(self, key: K, *, after: float | None = None, priority: int = 0, reason: str = "") -> None:
        """Make a key ready now, or after a delay; a key that is in hand runs once more afterwards.

        A key has one timer: a plain add drops it, a delay keeps the earlier of two times, and on a key that is ready it
        moves nothing, for the run that comes takes everything along. The highest priority given counts; a key that is
        raised goes last in its new priority. Once a shutdown has begun, adds are dropped and counted; while it drains,
        adds without delay to keys that are ready or in hand still hold.

        Called in another thread, this is `add_threadsafe`.

        Args:
            key: what to hand out.
            after: seconds; None, 0 or less is now.
            priority: higher ones are handed out first. Defaults to 0.
            reason: a word that tells why, for `run_of`, `retract` and `explain`. An add without one counts as a reason
                of its own. A key remembers `MAX_REASONS` of them.

        Raises:
            ValueError: the delay is not finite.
        """
        if threading.get_ident() != self._thread:
            self.add_threadsafe(key, after=after, priority=priority, reason=reason)
            return
        if after is not None and not math.isfinite(after):
            raise ValueError(f"after must be a finite number of seconds, not {after!r}")
        entry = self._entries.get(key)
        if self._closing and not self._still_holds(entry, after):
            self._count_dropped(1)
            return
        if entry is None:
            entry = self._entries[key] = Entry(key)
        if entry.reasons is None:
            entry.reasons = reason
            entry.priority = priority
        else:
            entry.reasons = with_reason(entry.reasons, reason)
            if priority > entry.priority:
                self._raise(entry, priority)
        if after is not None and after > 0:
            self._delay(entry, self._now() + after)
        elif not entry.ready:
            self._make_ready(entry)

    def add_rate_limited(self, key: K, *, priority: int = 0, reason: str = "", at_least: float = 0.0) -> None:
        """Add a key after the delay that the rate limiter says, which counts this as a failure.

        A key that is ready, or waits by the rate limiter already, is a duplicate: its failure counts, but it is not
        charged to what keys share (see `TokenBucket`).

        Args:
            key: what to hand out.
            priority: as in `add`.
            reason: as in `add`.
            at_least: seconds that the delay has at least, whatever the rate limiter says. Defaults to 0.

        Raises:
            ValueError: the rate limiter answered a delay that is not finite.
            RuntimeError: called outside the thread of the queue's event loop.
        """
        self._check_thread()
        entry = self._entries.get(key)
        if self._closing and (entry is None or not entry.ready):
            self._count_dropped(1)
            return
        duplicate = entry is not None and (entry.ready or entry.limited)
        delay = when_duplicate(self._limiter, key) if duplicate else self._limiter.when(key)
        self.add(key, after=max(delay, at_least), priority=priority, reason=reason)
        self._entries[key].limited = True

    def add_threadsafe(self, key: K, *, after: float | None = None, priority: int = 0, reason: str = "") -> None:
        """Add a key from any thread; the same as `add` as soon as the loop gets to it.

        Before the queue has met its loop the add waits for that; after the loop is closed it is dropped and counted.

        Raises:
            ValueError: the delay is not finite.
        """
        if after is not None and not math.isfinite(after):
            raise ValueError(f"after must be a finite number of seconds, not {after!r}")
        self._inbox.put(key, None if after is None else self._now() + after, priority, reason)

    def retract(self, key: K, reason: str) -> bool:
        """Take one reason back; with the last one goes the pending run, readiness and timer.

        For a key in hand this concerns the run after the one in hand. Other reasons keep the run where it is: a timer
        that a plain add has dropped does not come back.

        Returns:
            Whether the reason was pending.

        Raises:
            RuntimeError: called outside the thread of the queue's event loop.
        """
        self._check_thread()
        entry = self._entries.get(key)
        if entry is None:
            return False
        found, entry.reasons = without_reason(entry.reasons, reason)
        if found and entry.reasons is None:
            self._withdraw(entry)
            if entry.run_since is None:
                del self._entries[key]
            self._stop_if_drained()
        return found

    def forget(self, key: K) -> None:
        """End the key's history with the rate limiter; what is pending stays pending.

        Its next failure is not a duplicate, so it is charged to what keys share.
        """
        self._limiter.forget(key)
        entry = self._entries.get(key)
        if entry is not None:
            entry.limited = False

    # Working

    async def get(self) -> K:
        """Wait for a key and take it in hand; give it back with `done`.

        Cancellation leaves the queue as it was: the key goes to the next worker. A key that was returned is in hand, so
        use `item` where something may come between.

        Raises:
            QueueShutDown: the queue is shut down and, if it drains, nothing is ready or in hand any more.
            RuntimeError: the queue belongs to another event loop, which is running.
        """
        if self._unbound or threading.get_ident() != self._thread:
            self._bind()
        while not self._order.size:
            if self._stopped:
                raise QueueShutDown(f"work queue {self._name!r} is shut down")
            await self._wait()
        entry = self._order.pop()
        now = self._now()
        entry.run_since = now
        entry.run_reasons = entry.reasons
        entry.run_priority = entry.priority
        entry.reasons = None
        entry.ready = entry.limited = False
        self._in_hand.add(entry)
        self._ready -= 1
        self._hand_outs += 1
        if self._metrics is not None:
            self._metrics.handed_out(now - entry.ready_at)
        return entry.key

    def done(self, key: K) -> None:
        """Give a key back; if it was added meanwhile, it goes to the tail of its priority.

        Raises:
            ValueError: the key is not in hand.
            RuntimeError: called outside the thread of the queue's event loop.
        """
        self._check_thread()
        entry = self._entries.get(key)
        if entry is None or entry.run_since is None:
            raise ValueError(f"{key!r} is not in hand: done is called once for each key that get returned")
        now = self._now()
        if self._metrics is not None:
            self._metrics.finished(now - entry.run_since)
        self._in_hand.discard(entry)
        entry.run_since = None
        if entry.ready:
            entry.ready_at = now
            self._order.push(entry)
            self._wake()
        elif entry.due is None:
            del self._entries[key]
        if self._closing:
            self._stop_if_drained()

    def item(self) -> QueueItem[K]:
        """Return an ``async with`` block that takes a key on entry and gives it back on exit.

        Cancellation while it waits leaves the queue as it was; inside the block it gives the key back.

        Raises:
            QueueShutDown: on entry, as `get` does.
        """
        return QueueItem(self.get, self.done)

    # Ending

    async def shutdown(self, *, drain: bool = False) -> None:
        """Take no more adds and let the workers go.

        Without `drain`, ready keys are dropped and every `get` raises at once; keys in hand stay in their workers'
        hands. With it, `get` goes on until nothing is ready and nothing in hand, and so long this call waits; a key
        that is added while it is in hand still runs. Timers are dropped in both cases. What is dropped is counted in
        the statistics.

        May be called by several, and again: a shutdown without `drain` ends a draining one, and all who wait for it.
        Whoever drains must leave the keys to workers, and must not hold one.

        Cancellation stops the waiting, not the shutdown.

        Args:
            drain: wait for what is ready and in hand. Bound the time with `asyncio.timeout`, then shut down without.
        """
        self._bind()
        self._inbox.take()
        self._closing = True
        self._drop_timers()
        if drain:
            self._stop_if_drained()
        else:
            self._stop()
        if self._stopped:
            return
        drained = asyncio.get_running_loop().create_future()
        self._drainers.append(drained)
        try:
            await drained
        finally:
            with contextlib.suppress(ValueError):
                self._drainers.remove(drained)

    # Inside

    def _still_holds(self, entry: Entry[K] | None, after: float | None) -> bool:
        """Say whether an add during a shutdown is covered by what was promised."""
        if entry is None or self._stopped:
            return False
        return entry.ready or (entry.run_since is not None and (after is None or after <= 0))

    def _delay(self, entry: Entry[K], due: float) -> None:
        self._delayed_adds += 1
        if not entry.ready and (entry.due is None or due < entry.due):
            self._timers.set(entry, due)
            if due < self._alarm.at:
                self._arm()

    def _deliver(self, key: K, due: float | None, priority: int, reason: str) -> None:
        self.add(key, after=None if due is None else due - self._now(), priority=priority, reason=reason)

    def _make_ready(self, entry: Entry[K]) -> None:
        if entry.due is not None:
            self._timers.clear(entry)
        entry.ready = True
        entry.ready_at = self._now()
        self._ready += 1
        self._adds += 1
        if entry.run_since is None:
            self._order.push(entry)
            if self._workers:
                self._wake()

    def _raise(self, entry: Entry[K], priority: int) -> None:
        if entry.ready and entry.run_since is None:
            self._order.reprioritize(entry, priority)
        else:
            entry.priority = priority

    def _withdraw(self, entry: Entry[K]) -> None:
        """Make an entry neither ready nor waiting."""
        entry.reasons = None
        entry.limited = False
        if entry.due is not None:
            self._timers.clear(entry)
        if entry.ready:
            entry.ready = False
            self._ready -= 1
            if entry.run_since is None:
                self._order.remove(entry)

    async def _wait(self) -> None:
        """Wait until there may be something to do."""
        self._bind()
        self._order.shrink()
        if not self._entries:
            self._entries.clear()  # deleting one after the other keeps the room of all
        woken = asyncio.get_running_loop().create_future()
        self._workers.append(woken)
        try:
            await woken
        except BaseException:
            if woken.done() and not woken.cancelled():
                self._wake()  # this wake-up was for somebody who can take a key
            else:
                with contextlib.suppress(ValueError):
                    self._workers.remove(woken)
            raise

    def _wake(self) -> None:
        while self._workers:
            worker = self._workers.popleft()
            if not worker.done():
                worker.set_result(None)
                return

    def _drop_timers(self) -> None:
        while (entry := self._timers.pop_due(math.inf)) is not None:
            self._dropped_timers += 1
            entry.reasons = None
            entry.limited = False
            if entry.run_since is None:
                del self._entries[entry.key]
        self._alarm.cancel()

    def _stop_if_drained(self) -> None:
        if self._closing and not self._ready and not self._in_hand:
            self._stop()

    def _stop(self) -> None:
        """Drop what is ready, let go of all who wait."""
        self._stopped = True
        for entry in [entry for entry in self._entries.values() if entry.ready]:
            self._withdraw(entry)
            if entry.run_since is None:
                del self._entries[entry.key]
            self._dropped_ready += 1
        for waiter in (*self._workers, *self._drainers):
            if not waiter.done():
                waiter.set_result(None)
        self._workers.clear()
        self._drainers.clear()

    def _count_dropped(self, adds: int) -> None:
        self._dropped_adds += adds

    # The loop and its timer

    def _check_thread(self) -> None:
        if threading.get_ident() != self._thread:
            raise self._belongs_elsewhere()

    def _belongs_elsewhere(self) -> RuntimeError:
        return RuntimeError(
            f"work queue {self._name!r} belongs to the event loop of another thread: only add and add_threadsafe "
            "may be called here"
        )

    def _bind(self) -> None:
        """Adopt the loop that this runs in: take what other threads added, set the timer.

        Raises:
            RuntimeError: the queue belongs to another loop, which is running.
        """
        loop = asyncio.get_running_loop()
        if loop is self._loop and not self._unbound:
            return
        if loop is not self._loop:
            if self._loop is not None and self._loop.is_running():
                raise self._belongs_elsewhere()
            self._thread = threading.get_ident()
            self._alarm.cancel()
            self._workers.clear()  # they waited in a loop that has ended
            self._drainers.clear()
            self._loop = loop
            self._inbox.bind(loop)
        self._unbound = False
        self._arm()

    def _arm(self) -> None:
        due = self._timers.next_due()
        if due is None:
            return
        if self._loop is None or self._loop.is_closed():
            self._unbound = True  # the next `get` sets the timer
        else:
            self._alarm.set(due, self._loop)

    def _fire(self) -> None:
        now = self._now()
        for _ in range(_TIMERS_A_TURN):
            entry = self._timers.pop_due(now)
            if entry is None:
                break
            self._make_ready(entry)
        self._arm()
