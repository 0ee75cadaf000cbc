"""The entries of keys, their order, timers of waiting ones, waiting workers, and adds from other threads.

Ready entries are ordered by priority, first in first out within one, without starvation; optionally in groups. Timers
are a heap with lazy deletion, with one alarm in the event loop for the earliest one.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import logging
import operator
import threading
from bisect import insort
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable, Mapping
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

import msgspec

from reconciler.errors import RepeatedFailures

_log = logging.getLogger("reconciler.workqueue")

K = TypeVar("K", bound=Hashable)

MAX_REASONS = 32
"""How many different reasons an entry stores. Further ones count as an add without a reason."""

Reasons = str | set[str] | None
"""None: none is left. ``""`` is the reason of an add without one; it keeps the entry pending like any other.

Nearly every entry has one reason, so a set is allocated for the second one only.
"""


class QueueEntry(msgspec.Struct, Generic[K], eq=False, gc=False):
    """A key that is ready, waiting or in progress, exactly one of the three.

    An entry in progress does not change. What its key is added for in the meantime is another entry, `next`, which is
    ready or waiting. These always hold:

    * a pending entry waits while it has a timer, and is ready otherwise;
    * an entry is in the ready order exactly when it is ready and not the `next` of another;
    * an entry that was withdrawn or is done is in no structure at all.

    The garbage collector does not track it: nothing that it refers to leads back to it, unless a key refers to the
    queue. Ten thousand keys that wait for a retry would be most of what a full collection examines.

    Attributes:
        key: the key.
        reasons: why it is pending; once it is in progress, those whose delay had ended.
        priority: the highest one that was given.
        ready_at: monotonic second from which `get` could have returned it; stale while it is waiting.
        later: monotonic second of each reason that waits for a time of its own; None unless reasons with different
            times were merged. A reason that is not in it is due when the entry is ready.
        by_timer: whether its timer made it ready, and no add without delay has followed; stale while it is waiting.
        due: monotonic second at which it becomes ready; None without a timer.
        group: its group in the ready order; None if the queue has no groups, or before it is ready.
        timer: stamp of its item in the heap of timers; stale without a timer.
        limited: whether the rate limiter was charged for it.
        started_at: monotonic second at which `get` returned it; None until then.
        next: the pending entry of a key in progress, if it was added again; None otherwise.
    """

    key: K
    reasons: Reasons
    priority: int
    ready_at: float
    later: dict[str, float] | None = None
    by_timer: bool = False
    due: float | None = None
    group: Hashable = None
    timer: int = 0
    limited: bool = False
    started_at: float | None = None
    next: QueueEntry[K] | None = None

    @property
    def pending(self) -> QueueEntry[K] | None:
        """The entry of the key that is ready or waiting: this one, or the next; None if there is none."""
        return self if self.started_at is None else self.next

    def merge_reason(self, reason: str, due: float | None) -> None:
        """Add a reason to a pending entry.

        Args:
            reason: the reason.
            due: monotonic second from which it applies; None for now.
        """
        reasons, later, timer = self.reasons, self.later, self.due
        if later is None and (due is not None or timer is not None):
            # Until now, all reasons of a waiting entry waited for its timer.
            later = self.later = {} if timer is None else dict.fromkeys(_as_set(reasons), timer)
        if later is not None:
            if due is None:
                later.pop(reason, None)
            elif reason in later:
                later[reason] = min(due, later[reason])
            elif reason not in _as_set(reasons) and len(later) < MAX_REASONS:
                later[reason] = due
        self.reasons = reason if reasons is None else with_reason(reasons, reason)


def due_reasons(reasons: Reasons, later: Mapping[str, float] | None, now: float) -> Reasons:
    """Return the reasons that apply at a time: without those of timers that have not ended, unless all are."""
    if not later or not isinstance(reasons, set):
        return reasons
    return {reason for reason in reasons if later.get(reason, now) <= now} or reasons


def _as_set(reasons: Reasons) -> set[str]:
    if reasons is None:
        return set()
    return {reasons} if isinstance(reasons, str) else reasons


def with_reason(reasons: str | set[str], reason: str) -> str | set[str]:
    """Return the reasons with one more; a set is changed in place."""
    if isinstance(reasons, str):
        return reasons if reasons == reason else {reasons, reason}
    if reason not in reasons:
        reasons.add(reason if len(reasons) < MAX_REASONS else "")
    return reasons


def without_reason(reasons: Reasons, reason: str) -> tuple[bool, Reasons]:
    """Return whether a reason was there, and the remaining ones; a set is changed in place."""
    if not isinstance(reasons, set):
        return (True, None) if reasons == reason else (False, reasons)
    if reason not in reasons:
        return False, reasons
    reasons.remove(reason)
    return True, reasons or None


def named(reasons: Reasons) -> frozenset[str]:
    """Return the reasons without the empty one."""
    if not reasons:
        return frozenset()
    return _alone(reasons) if isinstance(reasons, str) else _shared(frozenset(reasons) - {""})


@functools.lru_cache(maxsize=256)  # nearly every key has one reason, one of a few
def _alone(reason: str) -> frozenset[str]:
    return frozenset((reason,))


@functools.lru_cache(maxsize=256)  # or one of a few sets, of which the history keeps one for each reconcile
def _shared(reasons: frozenset[str]) -> frozenset[str]:
    return reasons


STARVATION_LIMIT = 100
"""How many keys in a row come from the highest priority while a lower one waits.

The next key is then the one that has been ready longest in any lower priority. So the low priorities together get one
key in 101, oldest first, and the wait of a key is bounded by the number of keys that were ready before it.
"""


class ReadyOrder(Generic[K]):
    """Ready entries, in one insertion-ordered level per priority.

    Removing an entry from the middle is O(1), so nothing stale is ever left behind. Opening a level is linear in the
    number of levels, which is the number of priorities in use.

    Attributes:
        size: the number of entries.
        urgent: how many of them have a priority of 0 or more.
    """

    __slots__ = ("_levels", "_passed", "_position", "_priorities", "size", "urgent")

    def __init__(self) -> None:
        self.size = 0
        self.urgent = 0
        self._levels: dict[int, OrderedDict[QueueEntry[K], int]] = {}  # with the position of each entry among all
        self._position = 0
        self._priorities: list[int] = []  # of all levels, ascending; a level that `pop` emptied is removed later
        self._passed = 0  # keys in a row from the highest priority while a lower one waited

    def push(self, entry: QueueEntry[K]) -> None:
        """Add an entry at the end of the level of its priority."""
        self.size += 1
        self.urgent += entry.priority >= 0
        self._position += 1
        try:
            self._levels[entry.priority][entry] = self._position
        except KeyError:
            self._levels[entry.priority] = OrderedDict({entry: self._position})
            insort(self._priorities, entry.priority)

    def remove(self, entry: QueueEntry[K]) -> None:
        """Remove an entry, wherever it is."""
        self.size -= 1
        self.urgent -= entry.priority >= 0
        level = self._levels[entry.priority]
        del level[entry]
        if not level:
            self._close(entry.priority)

    def reprioritize(self, entry: QueueEntry[K], priority: int) -> None:
        """Move an entry to the end of the level of another priority."""
        self.remove(entry)
        entry.priority = priority
        self.push(entry)

    def pop(self, *, urgent: bool = False) -> QueueEntry[K]:
        """Remove and return the next entry; there must be one.

        Args:
            urgent: take an entry of the highest priority, even if one of a lower priority has waited for long.
        """
        level = self._levels[self._priorities[-1]]
        while not level:
            del self._levels[self._priorities.pop()]
            level = self._levels[self._priorities[-1]]
        if len(level) == self.size:
            self._passed = 0
        elif urgent or self._passed < STARVATION_LIMIT:
            self._passed += 1
        else:
            self._passed = 0
            level = self._longest_waiting()
        entry, _ = level.popitem(False)  # not last=False, which costs half as much again
        self.size -= 1
        self.urgent -= entry.priority >= 0
        return entry

    def shrink(self) -> None:
        """Release the memory of the largest backlog so far; there must be no entries."""
        self._levels.clear()
        self._priorities.clear()

    def sizes(self) -> Counter[int]:
        """Return the number of entries of each priority. Thread-safe."""
        return Counter({priority: len(level) for priority, level in list(self._levels.items()) if level})

    def _longest_waiting(self) -> OrderedDict[QueueEntry[K], int]:
        """Return the level below the highest one whose first entry came first; one of them must have an entry."""
        for priority in [priority for priority, level in self._levels.items() if not level]:
            self._close(priority)
        below = [self._levels[priority] for priority in self._priorities[:-1]]
        return min(below, key=lambda level: next(iter(level.values())))

    def _close(self, priority: int) -> None:
        self._priorities.remove(priority)
        del self._levels[priority]


class FairOrder(Generic[K]):
    """Ready entries in groups that take turns, round-robin: one key per group and turn.

    Within a group the order is that of `ReadyOrder`; priorities are not compared across groups. With n groups that have
    ready entries, each of them gets every nth key. A group without ready entries costs no memory.

    Args:
        group_of: returns the group of a key.

    Raises:
        TypeError: `group_of` is a coroutine function.

    Attributes:
        size: the number of entries.
        urgent: how many of them have a priority of 0 or more.
    """

    __slots__ = ("_failures", "_group_of", "_groups", "_urgent_groups", "size", "urgent")

    def __init__(self, group_of: Callable[[K], Hashable]) -> None:
        if inspect.iscoroutinefunction(group_of):
            raise TypeError(f"fair_by must be a plain function, since nothing awaits its result; {group_of!r} is async")
        self.size = 0
        self.urgent = 0
        self._group_of = group_of
        self._failures = RepeatedFailures(_log, logging.ERROR, "fair_by failed on %s, which is in the group None now")
        self._groups: OrderedDict[Hashable, ReadyOrder[K]] = OrderedDict()
        self._urgent_groups: OrderedDict[Hashable, None] = OrderedDict()  # they take turns while nothing else may

    def push(self, entry: QueueEntry[K]) -> None:
        """Add an entry at the end of the level of its priority in its group; a new group takes its turn last."""
        name = entry.group = self._name_group(entry.key)
        group = self._groups.get(name)
        if group is None:
            group = self._groups[name] = ReadyOrder()
        group.push(entry)
        self._count(name, entry.priority, 1)

    def remove(self, entry: QueueEntry[K]) -> None:
        """Remove an entry, wherever it is."""
        self._groups[entry.group].remove(entry)
        self._count(entry.group, entry.priority, -1)

    def reprioritize(self, entry: QueueEntry[K], priority: int) -> None:
        """Move an entry to the end of the level of another priority in its group. The group keeps its turn."""
        before = entry.priority
        self._groups[entry.group].reprioritize(entry, priority)
        self._count(entry.group, before, -1)
        self._count(entry.group, priority, 1)

    def pop(self, *, urgent: bool = False) -> QueueEntry[K]:
        """Remove and return the next entry; there must be one.

        Args:
            urgent: take an entry of a priority of 0 or more; there must be one. The groups that have some take turns.
        """
        name = next(iter(self._urgent_groups if urgent else self._groups))
        entry = self._groups[name].pop(urgent=urgent)
        self._groups.move_to_end(name)
        if name in self._urgent_groups:
            self._urgent_groups.move_to_end(name)
        self._count(name, entry.priority, -1)
        return entry

    def _count(self, name: Hashable, priority: int, change: int) -> None:
        """Count an entry that was added to a group, or removed from it; forget a group that is empty."""
        self.size += change
        group = self._groups[name]
        if priority >= 0:
            self.urgent += change
            if group.urgent:
                self._urgent_groups.setdefault(name)
            else:
                self._urgent_groups.pop(name, None)
        if not group.size:
            del self._groups[name]

    def shrink(self) -> None:
        """Release the memory of the largest backlog so far; there must be no entries."""
        self._groups.clear()
        self._urgent_groups.clear()

    def sizes(self) -> Counter[int]:
        """Return the number of entries of each priority. Thread-safe."""
        found: Counter[int] = Counter()
        for group in list(self._groups.values()):
            found.update(group.sizes())
        return found

    def _name_group(self, key: K) -> Hashable:
        """Return the group of a key; None if the function fails, since an error here would lose the key."""
        try:
            name = self._group_of(key)
            hash(name)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - user code
            self._failures.log(error, key)
            return None
        return name


def as_priority(priority: int) -> int:
    """Return a priority as an int.

    Raises:
        TypeError: it is not an integer, so it could not be compared with other priorities.
    """
    try:
        return operator.index(priority)
    except TypeError:
        raise TypeError(f"priority must be an integer, not {priority!r}") from None


_SLACK = 64
"""Stale items that the heap may have beyond the number of valid ones."""


class Timers(Generic[K]):
    """The waiting entries, ordered by the time at which they become ready.

    A heap item is valid while `_waiting` has its stamp. Moving or clearing a timer leaves a stale item behind. The heap
    is rebuilt as soon as the stale items outnumber the valid ones by more than `_SLACK`, which costs O(1) per timer on
    average. An item has numbers only, so the garbage collector soon ignores it.
    """

    __slots__ = ("_heap", "_stamp", "_waiting")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []
        self._stamp = 0
        self._waiting: dict[int, QueueEntry[K]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def set(self, entry: QueueEntry[K], due: float) -> None:
        """Set or move the timer of an entry."""
        if entry.due is not None:
            self.clear(entry)
        self._stamp += 1
        entry.due = due
        entry.timer = self._stamp
        self._waiting[self._stamp] = entry
        heappush(self._heap, (due, self._stamp))

    def clear(self, entry: QueueEntry[K]) -> None:
        """Clear the timer of an entry, which must have one."""
        entry.due = None
        del self._waiting[entry.timer]
        self._compact()

    def next_due(self) -> float | None:
        """Return the monotonic second of the earliest timer, None without timers."""
        heap = self._heap
        while heap:
            due, stamp = heap[0]
            if stamp in self._waiting:
                return due
            heappop(heap)
        return None

    def pop_due(self, now: float) -> QueueEntry[K] | None:
        """Return an entry whose timer has expired, and clear the timer; None if there is none."""
        due = self.next_due()
        if due is None or due > now:
            return None
        _, stamp = heappop(self._heap)
        entry = self._waiting[stamp]
        self.clear(entry)
        return entry

    def drop_all(self) -> list[QueueEntry[K]]:
        """Drop all timers, and return their entries, which are neither ready nor waiting any more."""
        entries = list(self._waiting.values())
        self._waiting.clear()
        self._heap.clear()
        return entries

    def _compact(self) -> None:
        heap, waiting = self._heap, self._waiting
        if not waiting:
            heap.clear()
            waiting.clear()  # a dict that was emptied item by item keeps its largest size
        elif len(heap) > 2 * len(waiting) + _SLACK:
            heap[:] = [item for item in heap if item[1] in waiting]
            heapify(heap)


class Waiters:
    """Tasks that wait to be woken, first in first out.

    Attributes:
        futures: one for each task.
    """

    __slots__ = ("futures",)

    def __init__(self) -> None:
        self.futures: deque[asyncio.Future[None]] = deque()

    async def wait(self) -> None:
        """Wait to be woken. Cancellation passes a wake-up that came at the same moment on to the next task."""
        woken = asyncio.get_running_loop().create_future()
        self.futures.append(woken)
        try:
            await woken
        except BaseException:
            if woken.done() and not woken.cancelled():
                self.wake_one()
            else:
                with contextlib.suppress(ValueError):
                    self.futures.remove(woken)
            raise

    def wake_one(self) -> None:
        """Wake the task that has waited longest, if there is one. None wakes in a loop that is closed."""
        while self.futures:
            future = self.futures.popleft()
            if not (future.done() or future.get_loop().is_closed()):
                future.set_result(None)
                return

    def wake_all(self) -> None:
        """Wake every task."""
        while self.futures:
            self.wake_one()

    def clear(self) -> None:
        """Drop tasks of an event loop that has ended."""
        self.futures.clear()


class Inbox(Generic[K]):
    """Adds from other threads that the event loop has not processed yet.

    The loop is woken once for many adds. Adds of one key with one reason are merged as the queue would merge them, so
    the inbox stays small even if threads are faster than the loop.

    Args:
        deliver: called in the loop's thread with key, monotonic due time or None, priority and reason.
        lost: called in any thread with the number of adds that are dropped because the loop is closed.
    """

    __slots__ = ("_deliver", "_items", "_lock", "_loop", "_lost")

    def __init__(self, deliver: Callable[[K, float | None, int, str], None], lost: Callable[[int], None]) -> None:
        self._deliver = deliver
        self._lost = lost
        self._lock = threading.Lock()
        self._items: dict[tuple[K, str], tuple[float | None, int]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wake this loop from now on; called in its thread."""
        with self._lock:
            self._loop = loop
        self.take()

    def put(self, key: K, due: float | None, priority: int, reason: str) -> None:
        """Store an add, from any thread; before the queue has a loop, the add waits for it."""
        with self._lock:
            wake = not self._items
            earlier = self._items.get((key, reason))
            if earlier is not None:
                due = None if due is None or earlier[0] is None else min(due, earlier[0])
                priority = max(priority, earlier[1])
            self._items[key, reason] = (due, priority)
            if not wake or self._loop is None:
                return
            try:
                self._loop.call_soon_threadsafe(self.take)
            except RuntimeError:  # the loop is closed
                self._items.clear()
                self._lost(1)

    def take(self) -> None:
        """Deliver all adds; called in the loop's thread."""
        with self._lock:
            items, self._items = self._items, {}
        for (key, reason), (due, priority) in items.items():
            self._deliver(key, due, priority, reason)
