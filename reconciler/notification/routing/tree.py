"""Walk a tree of routes, as Alertmanager does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from reconciler.notification.routing.matchers import Matcher

__all__ = ["Route"]


@dataclass(frozen=True, slots=True)
class Route:
    """Send what matches to a receiver, unless a route below is more exact.

    Attributes:
        receiver: where to, when no route below matches.
        matchers: all must match; none matches everything.
        routes: the more exact ones, in order. The first that matches ends the search, unless it says to continue.
        goes_on: whether the search goes on behind this route after it matched (``continue`` in the file).
    """

    receiver: str
    matchers: tuple[Matcher, ...] = ()
    routes: tuple[Route, ...] = ()
    goes_on: bool = False

    def receivers(self, attributes: Mapping[str, str]) -> tuple[str, ...]:
        """Return the receivers that these attributes reach, in order, each once; none when it does not match."""
        return tuple(dict.fromkeys(route.receiver for route in self.matching(attributes)))

    def matching(self, attributes: Mapping[str, str]) -> Iterator[Route]:
        """Yield the routes that these attributes end in, in order."""
        if not all(matcher.matches(attributes) for matcher in self.matchers):
            return
        reached = False
        for route in self.routes:
            below = tuple(route.matching(attributes))
            yield from below
            reached = reached or bool(below)
            if below and not route.goes_on:
                break
        if not reached:
            yield self
