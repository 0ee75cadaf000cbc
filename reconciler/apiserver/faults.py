"""Fault injection: the requests that a fault hits, its effects on them, and chaos, which is reproducible by a seed."""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal, Self, TypeAlias, TypedDict, Unpack, cast, get_args

from reconciler._core.durations import DurationLike, seconds_of
from reconciler._core.wire import JSONObject
from reconciler.apiserver.encoding.refusals import Refusal, qualified
from reconciler.apiserver.encoding.text import recorded
from reconciler.apiserver.users import ADMIN
from reconciler.apiserver.verbs.routing import Call
from reconciler.http import HTTPRequest

EventOrder = Literal["before", "after", "late", "seeded"]
"""When watches receive the event of a write: before its response, after it, 50 ms after it, or any of these, drawn."""

OneOrMore: TypeAlias = str | Collection[str]
"""A value, or several of which any matches."""

RequestCallback: TypeAlias = Callable[[HTTPRequest], Awaitable[object] | object]
"""Called with a request; its result is awaited if it is awaitable. An exception reaches the client as the response."""


class RequestMatch(TypedDict, total=False):
    """The requests that a fault hits: those that meet every condition that is not None."""

    verb: OneOrMore | None
    """get, list, watch, create, update, patch, delete or deletecollection."""
    resource: OneOrMore | None
    """The plural name."""
    kind: OneOrMore | None
    """The kind."""
    group: OneOrMore | None
    """The API group."""
    name: OneOrMore | None
    """The object's name."""
    namespace: OneOrMore | None
    """The namespace."""
    subresource: OneOrMore | None
    """``"status"``; ``""`` for requests to the object itself."""
    method: OneOrMore | None
    """The HTTP method. With only this and `path`, requests that name no kind, such as ``/version``, match too."""
    path: OneOrMore | None
    """The path without the query, as a shell pattern: ``"/apis/example.com/*"``."""
    user_agent: OneOrMore | None
    """A part of the User-Agent header."""
    user: OneOrMore | None
    """The name of the user, as for `APIServer.user`; ``""`` for clients with the server's own token."""


class FaultOptions(RequestMatch, total=False):
    """What a fault does, and the requests that it hits."""

    status: int | None
    """The request is answered with this error."""
    reason: str | None
    """The reason of the error's Status; by default the usual one."""
    message: str | None
    """The message of the error's Status; by default the usual one."""
    retry_after: DurationLike | None
    """The duration (seconds, a timedelta or ``"5s"``) for the Retry-After header and ``retryAfterSeconds``."""
    expired: bool
    """The request is answered with 410; a watch starts, and receives it as an ERROR event, as from the real server."""
    lost: bool
    """There is no response: in process `OutcomeUnknown` is raised, over sockets the connection is closed."""
    after_commit: bool
    """The request is handled before the error or the loss, so that a write takes effect."""
    stall: bool
    """The request is never handled nor answered; the client's timeout applies. A watch starts and stays silent."""
    latency: DurationLike | tuple[DurationLike, DurationLike]
    """The request waits so long before it is handled; a pair is a range to draw from."""
    cut_watches: bool
    """All watches of the request's kind are broken off after the request was handled."""
    stall_watches: bool
    """All watches of the request's kind stay open after the request was handled, and receive nothing more."""
    stale: DurationLike | None
    """A read at resourceVersion "0" shows the state of so long ago, as a lagging replica does."""
    stale_version: int | None
    """The same, but the state at this resourceVersion, or the oldest known one if the history does not reach it."""
    event_order: EventOrder | None
    """When watches receive the event of the write."""
    before: RequestCallback | None
    """Called when the request has arrived, before it takes effect or is refused."""
    after: RequestCallback | None
    """Called when the request has taken effect, before the response; not for a request that is not handled."""


_ANSWERS = frozenset({"status", "lost", "stall"})
_ORDERS = {"before": "event before the response", "after": "event after the response", "late": "event late"}


_KNOWN: dict[str, Collection[str]] = {
    "verb": ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"),
    "event_order": get_args(EventOrder),
}
_RANGES = {"times": (0, math.inf), "nth": (1, math.inf), "probability": (0, 1), "status": (400, 599)} | {
    "stale_version": (0, math.inf)
}


def _check(options: Mapping[str, Any]) -> None:
    """Raise `ValueError` for an option of `Faults.add` that would hit nothing, or fail in a later request."""
    for name, value in options.items():
        values = value if isinstance(value, Collection) and not isinstance(value, str) else (value,)
        if name in _KNOWN and not set(values) <= set(_KNOWN[name]):
            raise ValueError(f"{name}={value!r} is not valid: choose from {', '.join(_KNOWN[name])}")
        low, high = _RANGES.get(name, (0, 0))
        if name in _RANGES and not all(isinstance(each, int | float) and low <= each <= high for each in values):
            raise ValueError(f"{name}={value!r} is not valid: it must be a number from {low} to {high}")


def matches(wanted: RequestMatch, call: Call | None, request: HTTPRequest) -> bool:
    """Return whether a request meets the conditions."""
    found: dict[str, str | None] = {"method": request.method}
    if call is not None:
        info, user = call.endpoint.info, "" if call.user is ADMIN else call.user.name
        found |= {"verb": call.verb, "resource": info.plural, "kind": info.kind, "group": info.group, "user": user}
        found |= {"name": call.name, "namespace": call.namespace, "subresource": call.subresource}
    conditions = cast("Mapping[str, OneOrMore | None]", wanted)
    for name, one in conditions.items():
        values: Collection[str] = (one,) if isinstance(one, str) else one or ()
        if name == "user_agent":
            met = any(part in request.headers.get("user-agent", "") for part in values)
        elif name == "path":
            met = any(fnmatchcase(request.path, pattern) for pattern in values)
        else:
            met = found.get(name) in values
        if one is not None and not met:
            return False
    return True


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

    match: RequestMatch
    effects: FaultOptions
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
        return not _ANSWERS.isdisjoint(self.effects)

    def __str__(self) -> str:
        """Return its effects in a few words."""
        effects = self.effects
        when = " after it took effect" if effects.get("after_commit") else ""
        texts = {
            "latency": "delayed",
            "status": f"{effects.get('status')}{when}",
            "lost": f"response lost{when}",
            "stall": "stall",
            "cut_watches": "cut watches",
            "stall_watches": "stall watches",
            "stale": f"{effects.get('stale')} s stale",
            "stale_version": f"stale: version {effects.get('stale_version')}",
            "event_order": _ORDERS.get(effects.get("event_order") or "", "event at any time"),
            "before": "callback before",
            "after": "callback after",
        }
        return ", ".join(text for name, text in texts.items() if name in effects)


class Strike:
    """The combined effects of all faults that hit one request.

    Attributes:
        faults: the faults.
        effects: what the first fault that has an effect says about it, by effect.
        answer: the effects of the fault that takes the place of the server's response; empty for none.
        delay: seconds to wait first.
        text: the effects in a few words, for the request log.
    """

    def __init__(self, faults: Sequence[Fault] = (), delay: float = 0.0) -> None:
        self.faults = faults
        self.effects = FaultOptions()
        for fault in reversed(faults):
            self.effects.update(fault.effects)
        self.answer = next((fault.effects for fault in faults if fault.answers), FaultOptions())
        self.delay = delay
        self.text = ", ".join(map(str, faults))

    def refusal(self, call: Call | None) -> Refusal | None:
        """Return the error response to a request; None if it is not refused."""
        status = self.answer.get("status")
        if status is None:
            return None
        reason, message = recorded("statuses.json").get(str(status), ("InternalError", "a fault was injected"))
        details: JSONObject = {}
        if call is not None:
            info = call.endpoint.info
            named = {"name": call.name, "group": info.group, "kind": info.plural}
            details = {key: value for key, value in named.items() if value}
            if status == 409:
                name = qualified(info.plural, info.group)
                message = f'Operation cannot be fulfilled on {name} "{call.name}": {message}'
        retry_after = cast("float | None", self.answer.get("retry_after"))
        if retry_after is not None:
            details["retryAfterSeconds"] = int(retry_after)
        reason, message = self.answer.get("reason") or reason, self.answer.get("message") or message
        return Refusal(status, reason, message, details=details or None)


NO_STRIKE = Strike()
"""What hits a request without faults."""


_WRITES = ("create", "update", "patch", "delete")

_FAILURES: Mapping[str, tuple[FaultOptions, tuple[str, ...] | None]] = {
    "500": ({"status": 500}, None),
    "503": ({"status": 503}, None),
    "429": ({"status": 429, "retry_after": 1.0}, None),
    "lost": ({"lost": True}, None),
    "409": ({"status": 409}, ("update", "patch")),
    "500 after the write": ({"status": 500, "after_commit": True}, _WRITES),
    "lost after the write": ({"lost": True, "after_commit": True}, _WRITES),
    "410": ({"expired": True}, ("watch",)),
    "cut watches": ({"cut_watches": True}, _WRITES),
}
"""Faults that a request, or its kind's watches, must recover from, and the verbs that they apply to."""

_IRREGULARITIES: Mapping[str, tuple[FaultOptions, tuple[str, ...] | None]] = {
    "stale": ({"stale": 2.0}, ("get", "list", "watch")),
    "event order": ({"event_order": "seeded"}, _WRITES),
}
"""What a healthy server does as well, so that it may happen more often."""


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

    def __exit__(self, *_: object) -> None:
        self.stop()


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
        *,
        times: int | None = 1,
        nth: int = 1,
        probability: float = 1.0,
        rng: random.Random | None = None,
        **options: Unpack[FaultOptions],
    ) -> Fault:
        """Add a fault that hits the next requests that match.

        ::

            server.faults.add(status=409, times=2, verb="update", subresource="status")
            server.faults.add(lost=True, nth=3, verb="create")  # only the third create

        Args:
            times: how many requests are hit, 1 by default; None for all until `Fault.remove`.
            nth: the first of the matching requests that is hit; 1 by default.
            probability: the share of the matching requests that is hit, 1.0 by default.
            rng: the source of chance for `probability` and delays; None for the server's seeded one.
            options: which requests are hit, and what happens to them; see `FaultOptions`.

        Raises:
            TypeError: an unknown keyword.
            ValueError: a keyword has an invalid value.
        """
        for name in options:
            if name not in FaultOptions.__annotations__:
                raise TypeError(f"Faults.add() got an unexpected keyword argument {name!r}")
        given: dict[str, Any] = {
            key: value for key, value in options.items() if value is not None and value is not False
        }
        _check({"nth": nth, "probability": probability, **({} if times is None else {"times": times}), **given})
        for name in {"latency", "stale", "retry_after"} & given.keys():
            values = given[name]
            pair = name == "latency" and isinstance(values, (tuple, list))
            each = [seconds_of(name, value, zero=True) for value in (values if pair else (values,))]
            given[name] = tuple(each) if pair else each[0]
        match: Any = {name: given.pop(name) for name in RequestMatch.__annotations__ if name in given}
        effects: Any = {"status": 410, **given} if "expired" in given else given
        fault = Fault(match, effects, times, nth, probability, rng, self.active)
        self.active.append(fault)
        return fault

    def chaos(
        self,
        *,
        seed: int = 0,
        rate: float = 0.1,
        latency: DurationLike = 0.0,
        without: Sequence[str] = (),
        **match: Unpack[RequestMatch],
    ) -> Chaos:
        """Add many kinds of faults at random, until `Chaos.stop` or the end of a ``with`` block.

        About `rate` of the requests are refused (409, 429, 500, 503), lost, answered with an error after the write has
        taken effect, or break off the watches of their kind; a watch may start with 410. Twice as often, a read at
        version "0" is up to two seconds stale, and the event of a write comes before the response or 50 ms after it.

        Args:
            seed: the seed of everything that is drawn; 0 by default.
            rate: the share of the requests, from 0 to 1; 0.1 by default.
            latency: half of the requests take up to this duration longer; 0 by default.
            without: what must not happen: "409", "410", "429", "500", "503", "lost", "500 after the write",
                "lost after the write", "cut watches", "stale", "event order", "latency".
            match: which requests may be hit, as for `add`: ``user_agent="my-operator"`` spares the test's own client.

        Raises:
            ValueError: `rate` is not between 0 and 1, or `without` has an unknown name.
        """
        known = [*_FAILURES, *_IRREGULARITIES, "latency"]
        if unknown := set(without) - set(known):
            raise ValueError(f"unknown kind of chaos: {', '.join(sorted(unknown))}; known are {', '.join(known)}")
        if not 0 <= rate <= 1:
            raise ValueError(f"rate is a share of the requests, from 0 to 1, not {rate}")
        rng = random.Random(seed)  # noqa: S311 - reproducible on purpose
        kinds = [(name, *kind, rate / len(_FAILURES)) for name, kind in _FAILURES.items()]
        kinds += [(name, *kind, min(1.0, 2 * rate)) for name, kind in _IRREGULARITIES.items()]
        if longest := seconds_of("latency", latency, zero=True):
            kinds.append(("latency", {"latency": (0.0, longest)}, None, 0.5))
        found: dict[str, Fault] = {}
        for name, effects, verbs, probability in kinds:
            both = _intersection(match.get("verb"), verbs)
            if name not in without and both != ():
                options: FaultOptions = {**match, **effects, "verb": both}
                found[name] = self.add(times=None, probability=probability, rng=rng, **options)
        return Chaos(found)

    def clear(self) -> None:
        """Remove all faults."""
        self.active.clear()

    def strike(self, call: Call | None, request: HTTPRequest) -> Strike:
        """Return the effects of the faults that hit a request, and count the hits."""
        found: list[Fault] = []
        answered = False
        for fault in list(self.active):
            if not matches(fault.match, call, request):
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
        return Strike(found, sum(map(self._delay, found)))

    def _delay(self, fault: Fault) -> float:
        seconds: Any = fault.effects.get("latency", 0.0)
        return (fault.rng or self._rng).uniform(*seconds) if isinstance(seconds, tuple) else seconds


def _intersection(wanted: OneOrMore | None, verbs: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Return the verbs that a condition and a kind of fault have in common; None for all."""
    if wanted is None:
        return verbs
    asked = (wanted,) if isinstance(wanted, str) else tuple(wanted)
    return asked if verbs is None else tuple(verb for verb in asked if verb in verbs)
