"""Fault injection: the requests that a fault hits and its effects on them, and chaos, which is reproducible by a seed.

The effects of a fault are frozen values.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias, TypedDict, Unpack

from reconciler._core.durations import DurationLike, OptionalSeconds
from reconciler._core.wire import JSONObject
from reconciler.apiserver.encoding.refusals import Refusal, qualified
from reconciler.apiserver.encoding.text import recorded
from reconciler.apiserver.requests.routing import Call
from reconciler.apiserver.users import ADMIN
from reconciler.http import HTTPRequest

EventOrder = Literal["before", "after", "late", "seeded"]
"""When watches receive the event of a write, relative to its response; see `ReorderEvents`."""
_WHEN = {False: "", True: " after it took effect"}
OneOrMore: TypeAlias = str | Collection[str]
"""A value, or several of which any matches."""


@dataclass(frozen=True)
class Refuse:
    """The request is answered with an error.

    Attributes:
        status: the HTTP status.
        reason: the reason of the Status; by default the usual one.
        message: the message of the Status; by default the usual one.
        retry_after: the duration (seconds, a timedelta or ``"5s"``) for the Retry-After header and
            ``retryAfterSeconds``.
        after_commit: handle the request first, so that a write takes effect, and then answer with the error.
        as_event: let a watch start, and send it the error as an ERROR event, as the real server does with 410.
    """

    status: int
    reason: str | None = None
    message: str | None = None
    retry_after: OptionalSeconds = OptionalSeconds(None, ValueError)
    after_commit: bool = False
    as_event: bool = False

    def __str__(self) -> str:
        return f"{self.status}{_WHEN[self.after_commit]}"

    def refusal(self, call: Call | None) -> Refusal:
        """Return the error response to a request."""
        known = recorded("statuses.json")
        reason, message = known.get(str(self.status), ("InternalError", "a fault was injected"))
        details: JSONObject = {}
        if call is not None:
            info = call.endpoint.info
            named = {"name": call.name, "group": info.group, "kind": info.plural}
            details = {key: value for key, value in named.items() if value}
            if self.status == 409:
                name = qualified(info.plural, info.group)
                message = f'Operation cannot be fulfilled on {name} "{call.name}": {message}'
        if self.retry_after is not None:
            details["retryAfterSeconds"] = int(self.retry_after)
        return Refusal(
            self.status,
            reason if self.reason is None else self.reason,
            message if self.message is None else self.message,
            details=details or None,
        )


@dataclass(frozen=True, slots=True)
class Lose:
    """The request gets no response: in process `OutcomeUnknown` is raised, over sockets the connection is closed.

    Attributes:
        after_commit: handle the request first, so that a write takes effect.
    """

    after_commit: bool = False

    def __str__(self) -> str:
        return f"response lost{_WHEN[self.after_commit]}"


@dataclass(frozen=True, slots=True)
class Stall:
    """The request is never handled nor answered; the client's timeout applies. A watch starts and stays silent."""

    def __str__(self) -> str:
        return "stall"


@dataclass(frozen=True, slots=True)
class Delay:
    """The request waits before it is handled.

    Attributes:
        seconds: how long; a pair is a range to draw from.
    """

    seconds: float | tuple[float, float]

    def drawn(self, rng: random.Random) -> float:
        """Return how long one request waits."""
        return rng.uniform(*self.seconds) if isinstance(self.seconds, tuple) else self.seconds

    def __str__(self) -> str:
        return "delayed"


@dataclass(frozen=True, slots=True)
class CutWatches:
    """All watches of the request's kind are broken off after the request was handled."""

    def __str__(self) -> str:
        return "cut watches"


@dataclass(frozen=True, slots=True)
class StallWatches:
    """All watches of the request's kind stay open after the request was handled, and receive nothing more."""

    def __str__(self) -> str:
        return "stall watches"


@dataclass(frozen=True, slots=True)
class Stale:
    """A read at resourceVersion "0" shows an earlier state, as a lagging replica does.

    A watch from that state receives what came after it.

    Attributes:
        seconds: the age of that state.
        version: the resourceVersion of that state, in place of its age. The oldest known state is shown if the history
            does not reach it.
    """

    seconds: float = 0.0
    version: int | None = None

    def __str__(self) -> str:
        return f"{self.seconds} s stale" if self.version is None else f"stale: version {self.version}"


@dataclass(frozen=True, slots=True)
class ReorderEvents:
    """The event of a write reaches watches in another order relative to the response.

    Attributes:
        order: ``"before"`` the response, ``"after"`` it, ``"late"`` (50 ms after it), or ``"seeded"``: one of these,
            drawn for each write.
    """

    order: EventOrder

    def __str__(self) -> str:
        if self.order == "seeded":
            return "event at any time"
        return "event late" if self.order == "late" else f"event {self.order} the response"


RequestCallback: TypeAlias = Callable[[HTTPRequest], Awaitable[object] | object]
"""Called with a request; its result is awaited if it is awaitable."""


@dataclass(frozen=True, slots=True)
class Callbacks:
    """Code of the test runs while the server handles the request, such as another client's write.

    An exception reaches the client in place of the response.

    Attributes:
        before: called when the request has arrived, before it takes effect or is refused.
        after: called when the request has taken effect, before the response; not for a request that is not handled.
    """

    before: RequestCallback | None = None
    after: RequestCallback | None = None

    def __str__(self) -> str:
        return " and ".join(filter(None, (self.before and "callback before", self.after and "callback after")))


Effect: TypeAlias = Refuse | Lose | Stall | Delay | CutWatches | StallWatches | Stale | ReorderEvents | Callbacks
"""What a fault does to a request or a watch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """The requests that a fault hits: those that meet every condition that is not None.

    Attributes:
        verb: get, list, watch, create, update, patch, delete or deletecollection.
        resource: the plural name.
        kind: the kind.
        group: the API group.
        name: the object's name.
        namespace: the namespace.
        subresource: ``"status"``; ``""`` for requests to the object itself.
        method: the HTTP method. With only this and `path`, requests that name no kind, such as ``/version``, match too.
        path: the path without the query, as a shell pattern: ``"/apis/example.com/*"``.
        user_agent: a part of the User-Agent header.
        user: the name of the user, as for `APIServer.user`; ``""`` for clients with the server's own token.
    """

    verb: OneOrMore | None = None
    resource: OneOrMore | None = None
    kind: OneOrMore | None = None
    group: OneOrMore | None = None
    name: OneOrMore | None = None
    namespace: OneOrMore | None = None
    subresource: OneOrMore | None = None
    method: OneOrMore | None = None
    path: OneOrMore | None = None
    user_agent: OneOrMore | None = None
    user: OneOrMore | None = None

    def matches(self, call: Call | None, request: HTTPRequest) -> bool:
        """Return whether a request meets the conditions."""
        if self.user_agent is not None:
            agent = request.headers.get("user-agent", "")
            if not any(part in agent for part in _values(self.user_agent)):
                return False
        if self.method is not None and request.method not in _values(self.method):
            return False
        if self.path is not None and not any(fnmatchcase(request.path, each) for each in _values(self.path)):
            return False
        wanted = (
            *(self.verb, self.resource, self.kind, self.group),
            *(self.name, self.namespace, self.subresource, self.user),
        )
        if call is None:
            return all(each is None for each in wanted)
        info = call.endpoint.info
        user = "" if call.user is ADMIN else call.user.name
        found = (
            *(call.verb, info.plural, info.kind, info.group),
            *(call.name, call.namespace, call.subresource, user),
        )
        return all(one is None or other in _values(one) for one, other in zip(wanted, found, strict=True))


ALL_REQUESTS = Match()


def _values(wanted: OneOrMore) -> Collection[str]:
    return (wanted,) if isinstance(wanted, str) else wanted


@dataclass(slots=True, eq=False)
class Fault:
    """A fault of a server, made by `Faults.add`.

    Attributes:
        match: the requests that it hits.
        effects: what it does to them.
        times: how many requests it hits; None for all.
        nth: the first of the matching requests that it hits, counted from 1.
        probability: the share of the matching requests that it hits.
        rng: the source of chance; None for the server's.
        matched: how many requests have matched.
        hits: how many of them it has hit.
    """

    match: Match
    effects: tuple[Effect, ...]
    times: int | None
    nth: int
    probability: float
    rng: random.Random | None = field(repr=False)
    _active: list[Fault] = field(repr=False)
    matched: int = field(default=0, init=False)
    hits: int = field(default=0, init=False)

    def remove(self) -> None:
        """Remove the fault from the server; does nothing if it is used up."""
        if self in self._active:
            self._active.remove(self)

    @property
    def active(self) -> bool:
        """Return whether it can hit more requests."""
        return self in self._active

    @property
    def answers(self) -> bool:
        """Return whether it takes the place of the server's response."""
        return any(isinstance(effect, Refuse | Lose | Stall) for effect in self.effects)

    def __str__(self) -> str:
        """Return its effects in a few words."""
        return ", ".join(map(str, self.effects))


class Strike:
    """The combined effects of all faults that hit one request.

    Attributes:
        effects: the first effect of each kind, by its class; empty if no fault hit.
        delay: seconds to wait first.
        callbacks: those of all faults, in order.
        text: the effects in a few words, for the request log.
    """

    def __init__(self, faults: Sequence[Fault] = (), delay: float = 0.0) -> None:
        self.effects: dict[type, Any] = {}
        for fault in faults:
            for effect in fault.effects:
                self.effects.setdefault(type(effect), effect)
        self.delay = delay
        self.callbacks = [effect for fault in faults for effect in fault.effects if isinstance(effect, Callbacks)]
        self.text = ", ".join(map(str, faults))


NO_STRIKE = Strike()
"""What hits a request without faults."""


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
    user: OneOrMore | None


class FaultOptions(MatchOptions, total=False):
    """The keywords of `Faults.add`: the fields of a `Match`, and short forms of the effects."""

    status: int | None
    """`Refuse` with this status."""
    reason: str | None
    """Of `Refuse`."""
    message: str | None
    """Of `Refuse`."""
    retry_after: DurationLike | None
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
    """`Stale`, by age."""
    stale_version: int | None
    """`Stale`, by version."""
    event_order: EventOrder | None
    """`ReorderEvents`."""
    before: RequestCallback | None
    """Of `Callbacks`."""
    after: RequestCallback | None
    """Of `Callbacks`."""


class Faults:
    """The faults of a server.

    All faults that match a request hit it together: delays add up; of the faults that answer in place of the server
    only the first one hits.

    Args:
        rng: the source of chance.

    Attributes:
        active: the faults that can hit requests.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.active: list[Fault] = []

    def add(
        self,
        match: Match | None = None,
        /,
        *effects: Effect,
        times: int | None = 1,
        nth: int = 1,
        probability: float = 1.0,
        rng: random.Random | None = None,
        **options: Unpack[FaultOptions],
    ) -> Fault:
        """Add a fault that hits the next requests that match.

        ::

            server.faults.add(Match(verb="update", subresource="status"), Refuse(409), times=2)
            server.faults.add(status=409, times=2, verb="update", subresource="status")  # the same
            server.faults.add(lost=True, nth=3, verb="create")  # only the third create

        Args:
            match: the requests; None for all.
            effects: what happens to them.
            times: how many requests are hit, 1 by default; None for all until `Fault.remove`.
            nth: the first of the matching requests that is hit; 1 by default.
            probability: the share of the matching requests that is hit, 1.0 by default.
            rng: the source of chance for `probability` and delays; None for the server's seeded one.
            options: the fields of `match`, and short forms of the effects; see `FaultOptions`.

        Raises:
            TypeError: an unknown keyword.
            ValueError: `nth` is less than 1.
        """
        if nth < 1:
            raise ValueError(f"nth counts the matching requests from 1, so it cannot be {nth}")
        for name in options:
            if name not in FaultOptions.__annotations__:
                raise TypeError(f"Faults.add() got an unexpected keyword argument {name!r}")
        conditions: Any = {name: value for name, value in options.items() if name in _CONDITIONS}
        fault = Fault(
            replace(match or Match(), **conditions),
            (*effects, *_effects(options)),
            times,
            nth,
            probability,
            rng,
            self.active,
        )
        self.active.append(fault)
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
        self.active.clear()

    def strike(self, call: Call | None, request: HTTPRequest) -> Strike:
        """Return the effects of the faults that hit a request, and count the hits."""
        found: list[Fault] = []
        answered = False
        for fault in list(self.active):
            if not fault.match.matches(call, request):
                continue
            fault.matched += 1
            if fault.matched < fault.nth or (answered and fault.answers):
                continue
            if fault.probability < 1.0 and (fault.rng or self._rng).random() >= fault.probability:
                continue
            fault.hits += 1
            if fault.times is not None and fault.hits >= fault.times:
                self.active.remove(fault)
            found.append(fault)
            answered = answered or fault.answers
        delay = sum(
            effect.drawn(fault.rng or self._rng)
            for fault in found
            for effect in fault.effects
            if isinstance(effect, Delay)
        )
        return Strike(found, delay)


def _effects(options: FaultOptions) -> list[Effect]:
    after_commit, expired = options.get("after_commit", False), options.get("expired", False)
    status, latency = options.get("status"), options.get("latency")
    stale, version, order = options.get("stale"), options.get("stale_version"), options.get("event_order")
    before, after = options.get("before"), options.get("after")
    reason, message, retry_after = options.get("reason"), options.get("message"), options.get("retry_after")
    code = 410 if status is None else status
    forms: tuple[tuple[object, Effect], ...] = (
        (latency, Delay(latency or 0.0)),
        (expired or status is not None, Refuse(code, reason, message, retry_after, after_commit, as_event=expired)),
        (options.get("lost"), Lose(after_commit)),
        (options.get("stall"), Stall()),
        (options.get("cut_watches"), CutWatches()),
        (options.get("stall_watches"), StallWatches()),
        (stale is not None or version is not None, Stale(stale or 0.0, version)),
        (order is not None, ReorderEvents(order or "after")),
        (before or after, Callbacks(before, after)),
    )
    return [effect for given, effect in forms if given]
