"""Fair queuing of requests for delivery slots.

A slot is permission for one delivery on one channel. A due request asks for a slot on each of its channels, delivers on
the channels where it gets one, and waits in a queue for the others without holding a worker. When its turn comes, its
slots are reserved and its key is enqueued. Invariants:

* **Round robin by namespace.** A slot of a channel goes to the namespace that was served there least recently. If
  several channels have free slots, the namespace that was served least recently on any channel goes first.
* **A namespace keeps its rate**, if a policy sets one: it is passed over until its next delivery may start.
* **Priorities apply within a namespace**, and none starves: each step of priority counts as `PRIORITY_BOOST` seconds of
  waiting.
* **Workers are left for others.** A namespace, and a channel, starts another delivery only while more workers are free
  than it already holds. So however many requests of one namespace meet hanging receivers, other namespaces find a
  worker.
* **Waiting is free**: no attempt, no status write, no timer of the key, no request to the API server. The exception is
  a receiver that is down, which can last: each request is woken once to record it.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable, Mapping

from reconciler._core.lru import LRU
from reconciler.clock import current_clock
from reconciler.controller.reconciler import ControllerBinding
from reconciler.meta import Request
from reconciler.notification.api import Priority
from reconciler.notification.channel import Channel, ChannelRegistry
from reconciler.notification.channels.limits import LimitedChannel, Limiter
from reconciler.notification.policies import PolicyTable

PRIORITY_BOOST = 3600.0
"""Seconds of waiting that one step of priority is worth."""

OFFER_TIMEOUT = 60.0
"""Seconds after which slots that were offered to a key go to others, if the key was not reconciled."""

HISTORY_LIMIT = 10_000
"""Maximum (channel, namespace) pairs whose last turn is remembered. A forgotten one counts as served least recently."""

_PRIORITY_STEPS: dict[Priority, int] = {"Low": 0, "Medium": 1, "High": 2, "Critical": 3}


class FairQueue:
    """The delivery slots of all channels, and the requests that wait for one. For one event loop.

    Args:
        channels: the channels. A channel of a receiver has limits of its own.
        binding: the controller, which enqueues a key whose turn has come.
        max_deliveries: maximum concurrent deliveries on all channels.
        policies: the rates of namespaces.
    """

    def __init__(
        self, channels: ChannelRegistry, binding: ControllerBinding, *, max_deliveries: int, policies: PolicyTable
    ) -> None:
        self.binding = binding
        self._policies = policies
        self._channels = channels
        self._workers = binding.workers
        self._max_deliveries = max_deliveries
        self._queues: dict[str, _ChannelQueue] = {}
        self._held: dict[Request, dict[str, Limiter | None]] = {}
        self._in_progress: set[Request] = set()
        self._requests_by_namespace: Counter[str] = Counter()  # requests that hold slots
        self._slots = 0
        self._slots_by_channel: Counter[str] = Counter()
        self._slots_by_namespace: Counter[str] = Counter()
        self._served: LRU[tuple[str, str], int] = LRU(HISTORY_LIMIT)  # last turn by (channel, namespace); "" is any
        self._turn = 0
        self._offers: dict[Request, asyncio.TimerHandle] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._assignment: asyncio.Handle | None = None

    def acquire(
        self,
        request: Request,
        priority: Priority,
        channels: Iterable[str],
        *,
        outage_recorded: Collection[str] = (),
    ) -> Collection[str]:
        """Return the channels to call now; the request waits in the queues of the others.

        A channel that does not exist or whose receiver is down is called without a slot and fails at once, which is
        recorded: the status shows it, and the wait has an end. After that the request waits in the queue.

        Args:
            request: the key, which must be in progress; it gets no further slots until `release_all`.
            priority: priority of the request.
            channels: the due channels. Slots of other channels are released.
            outage_recorded: those of them whose outage is in the request's status. The request is woken when the
                receiver of any other channel goes down.
        """
        failing, wanted = set(), []
        for name in channels:
            channel = self._channels.get(name)
            limiter = self._limiter_of(channel)
            is_down = limiter is not None and name not in outage_recorded and limiter.is_down(request.namespace or "")
            if channel is None or is_down:
                failing.add(name)
            else:
                wanted.append(name)
        self._in_progress.add(request)
        self._cancel_offer(request)
        for name in [name for name in self._held.get(request, ()) if name not in wanted]:
            self.release(request, name)
        self._leave_queues(request, except_for=wanted)
        for name in wanted:
            if name not in self._held.get(request, ()):
                queue = self._queues.setdefault(name, _ChannelQueue())
                queue.join(request, priority, outage_recorded=name in outage_recorded)
        self._assign(request)
        return failing.union(self._held.get(request, ()))

    def queued(self, request: Request) -> frozenset[str]:
        """Return the channels for which a request waits."""
        return frozenset(name for name, queue in self._queues.items() if request in queue)

    def waits_for(self, request: Request) -> str | None:
        """Return what a request waits for, with the name of what refuses a slot; None if it is in no queue."""
        texts = [f"a slot of {name}: {self._refusal(name, request.namespace or '')}" for name in self.queued(request)]
        return "; ".join(sorted(texts)) or None

    def _refusal(self, name: str, namespace: str) -> str:
        limiter = self._limiter(name)
        if (quota := self._policies.rate_refusal(namespace)) is not None:
            return quota
        if limiter is not None and limiter.is_down(namespace):
            return f"its circuit breaker is open for {max(0.0, limiter.wait(namespace)):.0f} s"
        if limiter is not None and (seconds := limiter.wait(namespace)) > 0:
            return f"its rate limit, {seconds:.0f} s"
        return f"{len(self._queues[name])} requests wait for it"

    def lengths(self) -> dict[str, int]:
        """Return the number of waiting requests by channel, for channels with a queue."""
        return {name: len(queue) for name, queue in self._queues.items()}

    def release(self, request: Request, channel: str) -> None:
        """Release the slot on one channel: the delivery has ended or will not be made."""
        held = self._held.get(request, {})
        if channel not in held:
            return
        limiter = held.pop(channel)
        namespace = request.namespace or ""
        self._slots -= 1
        _decrement(self._slots_by_channel, channel)
        _decrement(self._slots_by_namespace, namespace)
        if not held:
            del self._held[request]
            _decrement(self._requests_by_namespace, namespace)
        if limiter is not None:
            limiter.release(namespace)
        self._assign_soon()

    def release_all(self, request: Request, *, keep_queued: bool) -> None:
        """Release all slots of a request at the end of its reconcile.

        Args:
            request: the key.
            keep_queued: whether it keeps its places in the queues. A request that has not called `acquire` since its
                last turn leaves them anyway: it no longer wants to deliver.
        """
        self._cancel_offer(request)
        if not (keep_queued and request in self._in_progress):
            self._leave_queues(request)
        self._in_progress.add(request)
        for name in list(self._held.get(request, ())):
            self.release(request, name)
        self._in_progress.remove(request)
        self._assign_soon()

    # Assignment of free slots

    def _assign_soon(self) -> None:
        """Assign the free slots once everything that frees slots now has done so: deliveries tend to end together."""
        if self._assignment is None and self._queues and self.binding.loop is not None:
            self._assignment = asyncio.get_running_loop().call_soon(self._assign)

    def _assign(self, current: Request | None = None) -> None:
        """Assign all free slots. The request `current` is in progress and needs no wake-up."""
        if self._assignment is not None:
            self._assignment.cancel()
            self._assignment = None
        if self.binding.loop is None:  # it has stopped
            return
        limiters = {name: self._limiter(name) for name in self._queues}
        self._wake_for_outages(limiters)
        while (found := self._next(current, limiters)) is not None:
            name, request = found
            self._hold(request, name, limiters[name])
            if request != current and request not in self._offers:
                self._offers[request] = asyncio.get_running_loop().call_later(OFFER_TIMEOUT, self._withdraw, request)
                self._wake(request)
        self._set_timer(limiters)

    def _wake(self, request: Request) -> None:
        self.binding.enqueue(request, "delivery slot", priority=1)

    def _wake_for_outages(self, limiters: Mapping[str, Limiter | None]) -> None:
        for name, limiter in limiters.items():
            queue = self._queues[name]
            if limiter is not None and limiter.is_down(limiter.only_for):
                for request in list(queue.outage_unrecorded):
                    if limiter.is_down(request.namespace or ""):
                        queue.leave(request)
                        self._wake(request)
                self._drop_if_empty(name)

    def _next(self, current: Request | None, limiters: Mapping[str, Limiter | None]) -> tuple[str, Request] | None:
        """Return the channel and the request of the next slot, or None."""
        if len(self._held) >= self._workers and current not in self._held:
            return None
        found: tuple[str, Request] | None = None
        for name, queue in self._queues.items():
            request = self._first(name, queue, current, limiters[name])
            if request is not None and (found is None or self._last_turn(request) < self._last_turn(found[1])):
                found = name, request
        return found

    def _first(
        self, name: str, queue: _ChannelQueue, current: Request | None, limiter: Limiter | None
    ) -> Request | None:
        down_for = None
        if limiter is not None:
            if limiter.wait(None) > 0:
                return None
            down_for = limiter.only_for
        excluded = self._in_progress - {current}
        for namespace in sorted(queue.namespaces, key=lambda namespace: self._served.get((name, namespace), 0)):
            pacer = self._policies.pacer(namespace)
            if pacer is not None and pacer.wait() > 0:
                continue
            if limiter is not None and namespace == down_for and limiter.wait(namespace) > 0:
                continue
            if self._has_room(name, namespace):
                request = queue.first(namespace, excluded=excluded)
                if request is not None:
                    return request
            elif current is not None and current in self._held and current in queue and current.namespace == namespace:
                return current if self._has_room(name, None) else None
        return None

    def _has_room(self, name: str, namespace: str | None) -> bool:
        """Return whether a delivery may start on a channel; the namespace is None for a request that holds slots."""
        workers = self._workers - len(self._held) + (namespace is None)
        slots = self._max_deliveries - self._slots
        if self._slots_by_channel[name] >= min(workers, slots):
            return False
        return namespace is None or (
            self._requests_by_namespace[namespace] < workers and self._slots_by_namespace[namespace] < slots
        )

    def _hold(self, request: Request, name: str, limiter: Limiter | None) -> None:
        namespace = request.namespace or ""
        if limiter is not None:
            limiter.acquire(namespace)
        if request not in self._held:
            self._held[request] = {}
            self._requests_by_namespace[namespace] += 1
        self._held[request][name] = limiter
        self._slots += 1
        self._slots_by_channel[name] += 1
        self._slots_by_namespace[namespace] += 1
        self._turn += 1
        self._served[name, namespace] = self._served["", namespace] = self._turn
        if (pacer := self._policies.pacer(namespace)) is not None:
            pacer.charge()
        self._queues[name].leave(request)
        self._drop_if_empty(name)

    def _leave_queues(self, request: Request, *, except_for: Iterable[str] = ()) -> None:
        for name in [name for name, queue in self._queues.items() if name not in except_for and request in queue]:
            self._queues[name].leave(request)
            self._drop_if_empty(name)

    def _drop_if_empty(self, name: str) -> None:
        if not self._queues[name].namespaces:
            del self._queues[name]

    def _last_turn(self, request: Request) -> int:
        return self._served.get(("", request.namespace or ""), 0)

    def _limiter(self, name: str) -> Limiter | None:
        return self._limiter_of(self._channels.get(name))

    def _limiter_of(self, channel: Channel | None) -> Limiter | None:
        if not isinstance(channel, LimitedChannel):
            return None
        if self._assign_soon not in channel.limiter.listeners:
            channel.limiter.listeners.append(self._assign_soon)
        return channel.limiter

    def _cancel_offer(self, request: Request) -> None:
        if (offer := self._offers.pop(request, None)) is not None:
            offer.cancel()

    def _withdraw(self, request: Request) -> None:
        self.release_all(request, keep_queued=False)

    def _set_timer(self, limiters: Mapping[str, Limiter | None]) -> None:
        """Assign again when the first limiter or namespace with a known waiting time has a free slot."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._queues:
            return
        found = [limiter for name in self._queues if (limiter := limiters[name]) is not None]
        waits = [limiter.wait(namespace) for limiter in found for namespace in {None, limiter.only_for}]
        pacers = map(self._policies.pacer, {each for queue in self._queues.values() for each in queue.namespaces})
        waits += [pacer.wait() for pacer in pacers if pacer is not None]
        soonest = min((wait for wait in waits if 0 < wait < math.inf), default=None)
        if soonest is not None:
            self._timer = asyncio.get_running_loop().call_later(soonest, self._assign)


class _ChannelQueue:
    """The requests that wait for one channel: a queue for each priority of each namespace.

    Attributes:
        namespaces: the queues of each namespace, by priority, with the times of joining.
        outage_unrecorded: the requests to wake when the channel's receiver goes down.
    """

    def __init__(self) -> None:
        self.namespaces: dict[str, dict[int, OrderedDict[Request, float]]] = {}
        self._steps: dict[Request, int] = {}
        self.outage_unrecorded: OrderedDict[Request, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._steps)

    def __contains__(self, request: object) -> bool:
        return request in self._steps

    def join(self, request: Request, priority: Priority, *, outage_recorded: bool) -> None:
        """Append a request; a request that already waits keeps its place."""
        if outage_recorded:
            self.outage_unrecorded.pop(request, None)
        else:
            self.outage_unrecorded[request] = None
        if request in self._steps:
            return
        step = self._steps[request] = _PRIORITY_STEPS[priority]
        queues = self.namespaces.setdefault(request.namespace or "", {})
        queues.setdefault(step, OrderedDict())[request] = current_clock().monotonic() - step * PRIORITY_BOOST

    def leave(self, request: Request) -> None:
        """Remove a request."""
        step = self._steps.pop(request)
        self.outage_unrecorded.pop(request, None)
        namespace = request.namespace or ""
        queues = self.namespaces[namespace]
        del queues[step][request]
        if not queues[step]:
            del queues[step]
        if not queues:
            del self.namespaces[namespace]

    def first(self, namespace: str, *, excluded: Collection[Request]) -> Request | None:
        """Return the next request of a namespace."""
        heads = [
            next((entry for entry in queue.items() if entry[0] not in excluded), None)
            for queue in self.namespaces[namespace].values()
        ]
        found = min((head for head in heads if head is not None), key=lambda head: head[1], default=None)
        return None if found is None else found[0]


def _decrement(counts: Counter[str], name: str) -> None:
    counts[name] -= 1
    if not counts[name]:
        del counts[name]
