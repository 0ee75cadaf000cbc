"""Who delivers next: requests that find no place at a receiver wait here, and hold no worker meanwhile.

A place is one delivery at one receiver. A request that is due asks for a place at each of its channels, delivers where
it gets one, and waits in a line for the others; when its turn has come, the places are reserved and its key is run.
What holds:

* **Turns go round by namespace.** A place at a receiver goes to the namespace that was served there longest ago, and
  of several receivers that have places, to the one whose namespace was served longest ago anywhere.
* **Priorities count within a namespace**, and none starves: a request counts as if it had come `BOOST` seconds earlier
  for each step of its priority.
* **Workers are left for others.** A namespace, and a receiver, begins another delivery only while more workers are free
  than it holds already. So however many requests of one namespace meet however many receivers that hang, another
  namespace finds a worker.
* **Waiting is nothing**: no attempt, no write, no timer of the key, no request to the API server. Only of a receiver
  that is down every request is told once, since that can last.

"""

from __future__ import annotations

import asyncio
import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterable

from reconciler.clock import current_clock
from reconciler.meta import Request
from reconciler.notification.api.types import Priority
from reconciler.notification.channel import ChannelRegistry
from reconciler.notification.channels import Gate

__all__ = ["BOOST", "Turns"]


BOOST = 3600.0
"""Seconds of waiting that one step of priority is worth."""

LAPSE = 60.0
"""Seconds after which places that were offered to a key are given to others, if it did not come."""

SERVED_LIMIT = 10_000
"""Turns that are remembered. A namespace that was forgotten counts as one that was served longest ago, as it was."""

_STEPS: dict[Priority, int] = {"Low": 0, "Medium": 1, "High": 2, "Critical": 3}


class Turns:
    """The places of deliveries, and the lines of those that wait for one.

    For one event loop.

    Args:
        channels: the channels; one with a `Gate` as its ``gate`` has limits of its own.
        workers: how many requests can be worked on at a time.
        most: deliveries at a time, over all.
        wake: runs a key whose turn has come.
        is_over: returns whether nobody runs keys any more.
    """

    def __init__(
        self,
        channels: ChannelRegistry,
        *,
        workers: int,
        most: int,
        wake: Callable[[Request], None],
        is_over: Callable[[], bool],
    ) -> None:
        self._channels = channels
        self._workers = workers
        self._most = most
        self._wake = wake
        self._is_over = is_over
        self._lines: dict[str, _Line] = {}
        self._held: dict[Request, dict[str, Gate | None]] = {}
        self._tokens: dict[Request, str] = {}
        self._busy: set[Request] = set()
        self._requests: Counter[str] = Counter()  # that hold places, by namespace
        self._taken = 0  # places
        self._places: Counter[str] = Counter()  # by receiver
        self._places_of: Counter[str] = Counter()  # by namespace
        self._served: OrderedDict[tuple[str, str], int] = OrderedDict()  # when, by receiver ("" is all) and namespace
        self._turn = 0
        self._lapses: dict[Request, asyncio.TimerHandle] = {}
        self._timer: asyncio.TimerHandle | None = None

    def take(
        self, request: Request, uid: str, priority: Priority, channels: Iterable[str], *, told: Collection[str] = ()
    ) -> frozenset[str]:
        """Return the channels at which the request may deliver now; it waits in line for the others.

        Args:
            request: the key, which its worker has in progress; until `release` no turn of it comes.
            uid: of the object.
            priority: of the request.
            channels: those that are due. Places at others are given back.
            told: those of them that may be down while the request waits. It is woken when another one goes down.
        """
        wanted = dict.fromkeys(channels)
        self._busy.add(request)
        self._tokens[request] = uid
        if (lapse := self._lapses.pop(request, None)) is not None:
            lapse.cancel()
        for name in [name for name in self._held.get(request, ()) if name not in wanted]:
            self.finish(request, name)
        self._leave(request, but=wanted)
        for name in wanted:
            if name not in self._held.get(request, ()):
                self._lines.setdefault(name, _Line()).join(request, priority, told=name in told)
        self._serve(request)
        return frozenset(self._held.get(request, ()))

    def waiting(self, request: Request) -> frozenset[str]:
        """Return the channels for which a request waits in line."""
        return frozenset(name for name, line in self._lines.items() if request in line)

    def is_down(self, channel: str) -> bool:
        """Return whether a channel's receiver takes nothing for a while, so that no turn comes soon."""
        gate = self._gate(channel)
        return gate is not None and gate.is_down

    def lengths(self) -> dict[str, int]:
        """Return how many requests wait for each channel for which any does."""
        return {name: len(line) for name, line in self._lines.items()}

    def finish(self, request: Request, channel: str) -> None:
        """Give the place at one channel back: the delivery has ended, or is not made."""
        held = self._held.get(request, {})
        if channel not in held:
            return
        gate = held.pop(channel)
        namespace = request.namespace or ""
        self._taken -= 1
        _take_one(self._places, channel)
        _take_one(self._places_of, namespace)
        if not held:
            del self._held[request]
            _take_one(self._requests, namespace)
        if gate is not None:
            gate.cancel(_token(self._tokens[request], channel))
        self._serve()

    def release(self, request: Request, *, stay: bool) -> None:
        """Give back every place of a request; it stays in the lines that it waits in, or leaves them.

        One that has not asked since its last turn leaves them in any case: it wants nothing any more.
        """
        if (lapse := self._lapses.pop(request, None)) is not None:
            lapse.cancel()
        if not (stay and request in self._busy):
            self._leave(request)
        self._busy.add(request)
        for name in list(self._held.get(request, ())):
            self.finish(request, name)
        self._busy.remove(request)
        if not self.waiting(request):
            self._tokens.pop(request, None)
        self._serve()

    # Inside

    def _serve(self, present: Request | None = None) -> None:
        """Hand out every place that is free; `present` is in progress and need not be woken for one."""
        if self._is_over():
            return
        self._tell_of_those_that_are_down()
        while (found := self._next(present)) is not None:
            name, request = found
            gate = self._gate(name)
            if gate is not None and not gate.reserve(_token(self._tokens[request], name)):
                break
            self._hold(request, name, gate)
            if request != present and request not in self._lapses:
                self._lapses[request] = asyncio.get_running_loop().call_later(LAPSE, self._lapse, request)
                self._wake(request)
        self._set_timer()

    def _tell_of_those_that_are_down(self) -> None:
        for name, line in list(self._lines.items()):
            if line.untold and self.is_down(name):
                for request in list(line.untold):
                    line.leave(request)
                    self._wake(request)
                self._drop_if_empty(name)

    def _next(self, present: Request | None) -> tuple[str, Request] | None:
        """Return who gets the next place, at which receiver."""
        if len(self._held) >= self._workers and present not in self._held:
            return None
        found: tuple[str, Request] | None = None
        for name, line in self._lines.items():
            gate = self._gate(name)
            if gate is not None and gate.wait() > 0:
                continue
            request = self._first(name, line, present)
            if request is not None and (found is None or self._last(request) < self._last(found[1])):
                found = name, request
        return found

    def _first(self, name: str, line: _Line, present: Request | None) -> Request | None:
        for namespace in sorted(line.namespaces, key=lambda namespace: self._served.get((name, namespace), 0)):
            if self._has_room(name, namespace):
                request = line.first(namespace, but=self._busy if present is None else self._busy - {present})
                if request is not None:
                    return request
            elif present is not None and present in self._held and present in line and present.namespace == namespace:
                return present if self._has_room(name, None) else None
        return None

    def _has_room(self, name: str, namespace: str | None) -> bool:
        """Return whether a delivery may begin at a receiver; no namespace for a request that delivers already."""
        workers = self._workers - len(self._held) + (namespace is None)
        places = self._most - self._taken
        if self._places[name] >= min(workers, places):
            return False
        return namespace is None or (self._requests[namespace] < workers and self._places_of[namespace] < places)

    def _hold(self, request: Request, name: str, gate: Gate | None) -> None:
        namespace = request.namespace or ""
        if request not in self._held:
            self._held[request] = {}
            self._requests[namespace] += 1
        self._held[request][name] = gate
        self._taken += 1
        self._places[name] += 1
        self._places_of[namespace] += 1
        self._turn += 1
        for key in ((name, namespace), ("", namespace)):
            self._served[key] = self._turn
            self._served.move_to_end(key)
        while len(self._served) > SERVED_LIMIT:
            self._served.popitem(last=False)
        self._lines[name].leave(request)
        self._drop_if_empty(name)

    def _leave(self, request: Request, *, but: Iterable[str] = ()) -> None:
        for name in [name for name, line in self._lines.items() if name not in but and request in line]:
            self._lines[name].leave(request)
            self._drop_if_empty(name)

    def _drop_if_empty(self, name: str) -> None:
        if not len(self._lines[name]):
            del self._lines[name]

    def _last(self, request: Request) -> int:
        return self._served.get(("", request.namespace or ""), 0)

    def _gate(self, name: str) -> Gate | None:
        gate = getattr(self._channels.get(name), "gate", None)
        if not isinstance(gate, Gate):
            return None
        if self._serve not in gate.listeners:
            gate.listeners.append(self._serve)
        return gate

    def _lapse(self, request: Request) -> None:
        self.release(request, stay=False)

    def _set_timer(self) -> None:
        """Look again when the first of the receivers that say a time has a place."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waits = [gate.wait() for name in self._lines if (gate := self._gate(name)) is not None]
        soonest = min((wait for wait in waits if wait > 0), default=math.inf)
        if math.isfinite(soonest):
            self._timer = asyncio.get_running_loop().call_later(soonest, self._serve)


class _Line:
    """Those that wait for one receiver: a queue for each priority of each namespace.

    Attributes:
        untold: those that want to know when the receiver goes down.
    """

    def __init__(self) -> None:
        self._queues: dict[str, dict[int, OrderedDict[Request, float]]] = {}
        self._steps: dict[Request, int] = {}
        self.untold: OrderedDict[Request, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._steps)

    def __contains__(self, request: object) -> bool:
        return request in self._steps

    @property
    def namespaces(self) -> Iterable[str]:
        """Return those in which requests wait."""
        return self._queues

    def join(self, request: Request, priority: Priority, *, told: bool) -> None:
        """Put a request last; one that waits already keeps its place."""
        if told:
            self.untold.pop(request, None)
        else:
            self.untold[request] = None
        if request in self._steps:
            return
        step = self._steps[request] = _STEPS[priority]
        queues = self._queues.setdefault(request.namespace or "", {})
        queues.setdefault(step, OrderedDict())[request] = current_clock().monotonic() - step * BOOST

    def leave(self, request: Request) -> None:
        """Take a request out, wherever it stands."""
        step = self._steps.pop(request)
        self.untold.pop(request, None)
        namespace = request.namespace or ""
        queues = self._queues[namespace]
        del queues[step][request]
        if not queues[step]:
            del queues[step]
        if not queues:
            del self._queues[namespace]

    def first(self, namespace: str, *, but: Iterable[Request]) -> Request | None:
        """Return the request of a namespace whose turn is next."""
        left_out = frozenset(but)
        heads = [
            next((entry for entry in queue.items() if entry[0] not in left_out), None)
            for queue in self._queues[namespace].values()
        ]
        found = min((head for head in heads if head is not None), key=lambda head: head[1], default=None)
        return None if found is None else found[0]


def _token(uid: str, channel: str) -> str:
    """Return `Message.idempotency_key` of the request's messages on a channel."""
    return f"{uid}/{channel}"


def _take_one(counts: Counter[str], name: str) -> None:
    counts[name] -= 1
    if not counts[name]:
        del counts[name]
