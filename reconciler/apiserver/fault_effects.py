"""A fault: which requests it matches, what it does to them, and how many it has hit.

The effects of a fault on a request are frozen values.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal, TypeAlias, TypeVar

from reconciler._core.wire import JSONObject
from reconciler.apiserver.encoding.refusals import Refusal, qualified
from reconciler.apiserver.encoding.text import recorded
from reconciler.apiserver.requests.routing import Call
from reconciler.http import HTTPRequest

__all__ = [
    "CutWatches",
    "Delay",
    "Effect",
    "EventOrder",
    "Fault",
    "Lose",
    "Match",
    "OneOrMore",
    "Refuse",
    "ReorderEvents",
    "Stale",
    "Stall",
    "StallWatches",
    "Strike",
]


EventOrder = Literal["before", "after", "late", "seeded"]
"""When watches receive the event of a write, relative to its response; see `ReorderEvents`."""
_WHEN = {False: "", True: " after it took effect"}
OneOrMore: TypeAlias = str | Collection[str]
"""A value, or several of which any matches."""
_E = TypeVar("_E")


@dataclass(frozen=True, slots=True)
class Refuse:
    """The request is answered with an error.

    Attributes:
        status: the HTTP status.
        reason: the reason of the Status; by default the usual one.
        message: the message of the Status; by default the usual one.
        retry_after: seconds for the Retry-After header and ``retryAfterSeconds``.
        after_commit: handle the request first, so that a write takes effect, and then answer with the error.
        as_event: let a watch start, and send it the error as an ERROR event, as the real server does with 410.
    """

    status: int
    reason: str | None = None
    message: str | None = None
    retry_after: float | None = None
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

    Attributes:
        seconds: the age of that state.
    """

    seconds: float

    def __str__(self) -> str:
        return f"{self.seconds} s stale"


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


Effect: TypeAlias = Refuse | Lose | Stall | Delay | CutWatches | StallWatches | Stale | ReorderEvents
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
        wanted = (self.verb, self.resource, self.kind, self.group, self.name, self.namespace, self.subresource)
        if call is None:
            return all(each is None for each in wanted)
        info = call.endpoint.info
        found = (call.verb, info.plural, info.kind, info.group, call.name, call.namespace, call.subresource)
        return all(one is None or other in _values(one) for one, other in zip(wanted, found, strict=True))


def _values(wanted: OneOrMore) -> Collection[str]:
    return (wanted,) if isinstance(wanted, str) else wanted


@dataclass(slots=True, eq=False)
class Fault:
    """A fault of a server, made by `Faults.add`.

    Attributes:
        match: the requests that it hits.
        effects: what it does to them.
        times: how many requests it hits; None for all.
        probability: the share of the matching requests that it hits.
        rng: the source of chance; None for the server's.
        hits: how many requests it has hit.
    """

    match: Match
    effects: tuple[Effect, ...]
    times: int | None
    probability: float
    rng: random.Random | None = field(repr=False)
    _active: list[Fault] = field(repr=False)
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
    """The combined effects of all faults that hit one request; false if none did.

    Attributes:
        delay: seconds to wait first.
    """

    def __init__(self, faults: Sequence[Fault], rng: random.Random) -> None:
        self._faults = faults
        self._effects = [effect for fault in faults for effect in fault.effects]
        self.delay = sum(
            effect.drawn(fault.rng or rng) for fault in faults for effect in fault.effects if isinstance(effect, Delay)
        )

    def effect(self, kind: type[_E]) -> _E | None:
        """Return the first effect of a kind, or None."""
        return next((effect for effect in self._effects if isinstance(effect, kind)), None)

    def __bool__(self) -> bool:
        return bool(self._faults)

    def __str__(self) -> str:
        """Return the effects in a few words, for the request log."""
        return ", ".join(map(str, self._faults))
