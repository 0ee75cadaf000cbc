"""The faults of a server, and the ways to add them, also at random: chaos, reproducible by a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from types import TracebackType
from typing import Any, Self, TypedDict, Unpack

from reconciler.apiserver.fault_effects import (
    CutWatches,
    Delay,
    Effect,
    EventOrder,
    Fault,
    Lose,
    Match,
    OneOrMore,
    Refuse,
    ReorderEvents,
    Stale,
    Stall,
    StallWatches,
    Strike,
)
from reconciler.apiserver.requests.routing import Call
from reconciler.http import HTTPRequest

_WRITES = ("create", "update", "patch", "delete")

_FAILURES: Mapping[str, tuple[Effect, tuple[str, ...] | None]] = {
    "500": (Refuse(500), None),
    "503": (Refuse(503), None),
    "429": (Refuse(429, retry_after=1.0), None),
    "lost": (Lose(), None),
    "409": (Refuse(409), ("update", "patch")),
    "500 after the write": (Refuse(500, after_commit=True), _WRITES),
    "lost after the write": (Lose(after_commit=True), _WRITES),
    "410": (Refuse(410, as_event=True), ("watch",)),
    "cut watches": (CutWatches(), _WRITES),
}
"""Faults that a request, or its kind's watches, must recover from, and the verbs that they apply to."""

_IRREGULARITIES: Mapping[str, tuple[Effect, tuple[str, ...] | None]] = {
    "stale": (Stale(2.0), ("get", "list", "watch")),
    "event order": (ReorderEvents("seeded"), _WRITES),
}
"""What a healthy server does as well, so that it may happen more often."""
_CONDITIONS = frozenset(each.name for each in fields(Match))


@dataclass(frozen=True, eq=False)
class Chaos:
    """The faults of one call of `Faults.chaos`. `stop`, or the end of a ``with`` block, removes them.

    Attributes:
        faults: each fault by a name that says what it does.
    """

    faults: Mapping[str, Fault]

    @property
    def hits(self) -> dict[str, int]:
        """Return how many requests each fault has hit."""
        return {name: fault.hits for name, fault in self.faults.items()}

    def stop(self) -> None:
        """Remove the faults; does nothing if they are removed already."""
        for fault in self.faults.values():
            fault.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def plan(
    *, rate: float, latency: float, without: Sequence[str], match: Match
) -> Iterator[tuple[str, Match, Effect, float]]:
    """Yield the name, the requests, the effect and the probability of the faults of `Faults.chaos`.

    Raises:
        ValueError: `rate` is not between 0 and 1, or `without` has an unknown name.
    """
    known = [*_FAILURES, *_IRREGULARITIES, "latency"]
    unknown = set(without) - set(known)
    if unknown:
        raise ValueError(f"unknown kind of chaos: {', '.join(sorted(unknown))}; known are {', '.join(known)}")
    if not 0 <= rate <= 1:
        raise ValueError(f"rate is a share of the requests, from 0 to 1, not {rate}")
    kinds = [(name, *kind, rate / len(_FAILURES)) for name, kind in _FAILURES.items()]
    kinds += [(name, *kind, min(1.0, 2 * rate)) for name, kind in _IRREGULARITIES.items()]
    if latency:
        kinds.append(("latency", Delay((0.0, latency)), None, 0.5))
    for name, effect, verbs, probability in kinds:
        both = _intersection(match, verbs)
        if name not in without and both != ():
            yield name, replace(match, verb=both), effect, probability


def _intersection(match: Match, verbs: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Return the verbs that a match and a kind of fault have in common; None for all."""
    if match.verb is None:
        return verbs
    wanted = (match.verb,) if isinstance(match.verb, str) else tuple(match.verb)
    return wanted if verbs is None else tuple(verb for verb in wanted if verb in verbs)


class MatchOptions(TypedDict, total=False):
    """The fields of a `Match`, as keywords."""

    verb: OneOrMore | None
    resource: OneOrMore | None
    kind: OneOrMore | None
    group: OneOrMore | None
    name: OneOrMore | None
    namespace: OneOrMore | None
    subresource: OneOrMore | None
    method: OneOrMore | None
    path: OneOrMore | None
    user_agent: OneOrMore | None


class FaultOptions(MatchOptions, total=False):
    """The keywords of `Faults.add`: the fields of a `Match`, and short forms of the effects."""

    status: int | None
    """`Refuse` with this status."""
    reason: str | None
    """Of `Refuse`."""
    message: str | None
    """Of `Refuse`."""
    retry_after: float | None
    """Of `Refuse`."""
    expired: bool
    """`Refuse` with 410, for a watch as an ERROR event."""
    lost: bool
    """`Lose`."""
    after_commit: bool
    """Of `Refuse` and `Lose`."""
    stall: bool
    """`Stall`."""
    latency: float | tuple[float, float]
    """`Delay`."""
    cut_watches: bool
    """`CutWatches`."""
    stall_watches: bool
    """`StallWatches`."""
    stale: float | None
    """`Stale`."""
    event_order: EventOrder | None
    """`ReorderEvents`."""


class Faults:
    """The faults of a server.

    All faults that match a request hit it together: delays add up; of the faults that answer in place of the server
    only the first one hits.

    Args:
        rng: the source of chance.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._active: list[Fault] = []
        self._no_strike = Strike((), rng)

    def add(
        self,
        match: Match | None = None,
        /,
        *effects: Effect,
        times: int | None = 1,
        probability: float = 1.0,
        rng: random.Random | None = None,
        **options: Unpack[FaultOptions],
    ) -> Fault:
        """Add a fault that hits the next requests that match.

        ::

            server.faults.add(Match(verb="update", subresource="status"), Refuse(409), times=2)
            server.faults.add(status=409, times=2, verb="update", subresource="status")  # the same

        Args:
            match: the requests; None for all.
            effects: what happens to them.
            times: how many requests are hit, 1 by default; None for all until `Fault.remove`.
            probability: the share of the matching requests that is hit, 1.0 by default.
            rng: the source of chance for `probability` and delays; None for the server's seeded one.
            options: the fields of `match`, and short forms of the effects; see `FaultOptions`.

        Raises:
            TypeError: an unknown keyword.
        """
        for name in options:
            if name not in FaultOptions.__annotations__:
                raise TypeError(f"Faults.add() got an unexpected keyword argument {name!r}")
        conditions: Any = {name: value for name, value in options.items() if name in _CONDITIONS}
        fault = Fault(
            replace(match or Match(), **conditions),
            (*effects, *_effects(options)),
            times,
            probability,
            rng,
            self._active,
        )
        self._active.append(fault)
        return fault

    def chaos(
        self,
        *,
        seed: int = 0,
        rate: float = 0.1,
        latency: float = 0.0,
        without: Sequence[str] = (),
        **match: Unpack[MatchOptions],
    ) -> Chaos:
        """Add many kinds of faults at random, until `Chaos.stop` or the end of a ``with`` block.

        About `rate` of the requests are refused (409, 429, 500, 503), lost, answered with an error after the write has
        taken effect, or break off the watches of their kind; a watch may start with 410. Twice as often, a read at
        version "0" is up to two seconds stale, and the event of a write comes before the response or 50 ms after it.

        Args:
            seed: the seed of everything that is drawn; 0 by default.
            rate: the share of the requests, from 0 to 1; 0.1 by default.
            latency: half of the requests take up to this many seconds longer; 0 by default.
            without: what must not happen: "409", "410", "429", "500", "503", "lost", "500 after the write",
                "lost after the write", "cut watches", "stale", "event order", "latency".
            match: the fields of a `Match`: ``user_agent="my-operator"`` spares the test's own client.

        Raises:
            ValueError: `rate` is not between 0 and 1, or `without` has an unknown name.
        """
        rng = random.Random(seed)  # noqa: S311 - reproducible on purpose
        planned = list(plan(rate=rate, latency=latency, without=without, match=Match(**match)))
        return Chaos(
            {
                name: self.add(requests, effect, times=None, probability=probability, rng=rng)
                for name, requests, effect, probability in planned
            }
        )

    def clear(self) -> None:
        """Remove all faults."""
        self._active.clear()

    def strike(self, call: Call | None, request: HTTPRequest) -> Strike:
        """Return the effects of the faults that hit a request, and count the hits."""
        found: list[Fault] = []
        answered = False
        for fault in list(self._active):
            if (answered and fault.answers) or not fault.match.matches(call, request):
                continue
            if fault.probability < 1.0 and (fault.rng or self._rng).random() >= fault.probability:
                continue
            fault.hits += 1
            if fault.times is not None and fault.hits >= fault.times:
                self._active.remove(fault)
            found.append(fault)
            answered = answered or fault.answers
        return Strike(found, self._rng) if found else self._no_strike


def _effects(options: FaultOptions) -> list[Effect]:
    after_commit, expired = options.get("after_commit", False), options.get("expired", False)
    status, latency = options.get("status"), options.get("latency")
    stale, order = options.get("stale"), options.get("event_order")
    reason, message, retry_after = options.get("reason"), options.get("message"), options.get("retry_after")
    code = 410 if status is None else status
    forms: tuple[tuple[object, Effect], ...] = (
        (latency, Delay(latency or 0.0)),
        (expired or status is not None, Refuse(code, reason, message, retry_after, after_commit, as_event=expired)),
        (options.get("lost"), Lose(after_commit)),
        (options.get("stall"), Stall()),
        (options.get("cut_watches"), CutWatches()),
        (options.get("stall_watches"), StallWatches()),
        (stale is not None, Stale(stale or 0.0)),
        (order is not None, ReorderEvents(order or "after")),
    )
    return [effect for given, effect in forms if given]
