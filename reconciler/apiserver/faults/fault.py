"""A fault: which requests it matches, what it does to them, and how many it has hit."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TypeAlias, TypeVar

from reconciler.apiserver.faults.effects import Delay, Effect, Lose, Refuse, Stall
from reconciler.apiserver.requests.routing import Call
from reconciler.http import HTTPRequest

__all__ = ["Fault", "Match", "OneOrMore", "Strike"]

OneOrMore: TypeAlias = str | Collection[str]
"""A value, or several of which any matches."""


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


_E = TypeVar("_E")


class Strike:
    """The combined effects of all faults that hit one request; false if none did.

    Attributes:
        delay: seconds to wait first.
    """

    def __init__(self, faults: Sequence[Fault], rng: random.Random) -> None:
        self._faults = faults
        self._effects = [effect for fault in faults for effect in fault.effects]
        self.delay = sum(
            _seconds(effect, fault.rng or rng)
            for fault in faults
            for effect in fault.effects
            if isinstance(effect, Delay)
        )

    def effect(self, kind: type[_E]) -> _E | None:
        """Return the first effect of a kind, or None."""
        return next((effect for effect in self._effects if isinstance(effect, kind)), None)

    def __bool__(self) -> bool:
        return bool(self._faults)

    def __str__(self) -> str:
        """Return the effects in a few words, for the request log."""
        return ", ".join(map(str, self._faults))


def _seconds(delay: Delay, rng: random.Random) -> float:
    return rng.uniform(*delay.seconds) if isinstance(delay.seconds, tuple) else delay.seconds
