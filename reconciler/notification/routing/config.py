"""Walk a tree of routes, as Alertmanager does.

Read a routing configuration as a whole: the tree of routes and the receivers, or every mistake in it at once.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError

from reconciler.errors import ConfigurationError
from reconciler.notification.channel import CHANNEL_PATTERN
from reconciler.notification.routing.matchers import Matcher, MatcherError, Operator, parse_matchers
from reconciler.notification.routing.yaml import PROBLEM_LIMIT, Path, Problem, Source, read_yaml

__all__ = ["Receiver", "ReceiverConfig", "Route", "RoutingConfig", "RoutingConfigError", "read_routing"]


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


ROUTE_LIMIT = 10_000
"""Most routes of a configuration, and receivers."""

NAMES_SHOWN = 20
"""Names that an error lists of what there is."""

_CONFIGS = "_configs"
_UNUSED = (
    "group_by",
    "group_wait",
    "group_interval",
    "repeat_interval",
    "mute_time_intervals",
    "active_time_intervals",
)
"""Keys of Alertmanager's routes that a notification has no use for; accepted, so that its files can be taken over."""


class ReceiverConfig(BaseModel):
    """Be the base of what one entry under ``<kind>_configs`` of a receiver says; unknown keys are refused."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)

    def credential_names(self) -> Sequence[str]:
        """Return the names of the credentials that it refers to."""
        return ()


@dataclass(frozen=True, slots=True)
class Receiver:
    """Say over which channels a receiver is reached.

    Attributes:
        name: what routes call it.
        channels: names of channels that the operator has.
        configured: channels that exist for this receiver alone: their names and what is configured.
    """

    name: str
    channels: tuple[str, ...] = ()
    configured: tuple[tuple[str, ReceiverConfig], ...] = ()

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Return the names of all its channels, in order, each once."""
        return tuple(dict.fromkeys([*self.channels, *(name for name, _ in self.configured)]))


@dataclass(frozen=True, slots=True)
class RoutingConfig:
    """Hold a configuration that was found right.

    Attributes:
        route: the root of the tree; it matches everything.
        receivers: by name.
    """

    route: Route
    receivers: Mapping[str, Receiver]


class RoutingConfigError(ConfigurationError):
    """Say everything that is wrong with a routing configuration.

    Attributes:
        problems: what is wrong where, by line.
    """

    def __init__(self, name: str, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems))
        told = [str(problem) for problem in self.problems[:PROBLEM_LIMIT]]
        told += [f"… and {len(self.problems) - PROBLEM_LIMIT} more"] if len(self.problems) > PROBLEM_LIMIT else []
        listed = "".join(f"\n  {problem}" for problem in told)
        super().__init__(f"the routing configuration {name} cannot be used:{listed}")


def read_routing(
    text: str, *, name: str = "", kinds: Mapping[str, type[ReceiverConfig]], channels: Sequence[str] | None = None
) -> RoutingConfig:
    """Read a configuration.

    Args:
        text: YAML, as Alertmanager has it: ``route`` and ``receivers``.
        name: of the file or object, for the error.
        kinds: the model of each kind: ``slack`` for entries of ``slack_configs``.
        channels: names that receivers can give under ``channels``; None accepts every name that is well formed.

    Raises:
        RoutingConfigError: it cannot be used; with every mistake and its line.
        MissingExtra: RE2 is not installed, and a matcher has an expression.
    """
    source = read_yaml(text)
    if source.problems:
        raise RoutingConfigError(name, source.problems)
    if not isinstance(source.data, dict):
        raise RoutingConfigError(name, [Problem(0, "", "it is empty: it needs a route and receivers")])
    reader = _Reader(source, kinds, channels)
    receivers = reader.receivers()
    route = reader.root(receivers)
    if source.problems or route is None:
        raise RoutingConfigError(name, source.problems)
    return RoutingConfig(route, receivers)


class _Reader:
    """Read the parts of a document and note what is wrong with them.

    Args:
        source: the document.
        kinds: the model of each kind of receiver configuration.
        channels: names of channels that there are; None when that is not known.
    """

    def __init__(
        self, source: Source, kinds: Mapping[str, type[ReceiverConfig]], channels: Sequence[str] | None
    ) -> None:
        self._source = source
        self._kinds = kinds
        self._channels = channels
        self._left = ROUTE_LIMIT
        for key in source.data:
            if key not in {"route", "receivers"}:
                self._complain((str(key),), "there is no such key here: it has route and receivers")

    # Receivers

    def receivers(self) -> dict[str, Receiver]:
        found: dict[str, Receiver] = {}
        entries = self._list(("receivers",), required=True)
        for index, entry in enumerate(entries):
            path: Path = ("receivers", index)
            receiver = self._receiver(path, entry)
            if receiver is None:
                continue
            if receiver.name in found:
                self._complain((*path, "name"), f"two receivers are called {receiver.name!r}")
            found[receiver.name] = receiver
        return found

    def _receiver(self, path: Path, entry: Any) -> Receiver | None:
        if not isinstance(entry, dict):
            self._complain(path, "a receiver is a mapping with a name")
            return None
        name = entry.get("name")
        if not isinstance(name, str) or not name:
            self._complain(path, "a receiver needs a name")
            return None
        channels: list[str] = []
        configured: list[tuple[str, ReceiverConfig]] = []
        for key, value in entry.items():
            if key == "name":
                continue
            if key == "channels":
                channels = self._channel_names((*path, key), value)
            elif isinstance(key, str) and key.endswith(_CONFIGS) and key.removesuffix(_CONFIGS) in self._kinds:
                configured += self._configured((*path, key), key.removesuffix(_CONFIGS), name, value)
            else:
                known = ", ".join(["name", "channels", *(f"{kind}{_CONFIGS}" for kind in sorted(self._kinds))])
                self._complain((*path, str(key)), f"a receiver has no such key: it has {known}")
        return Receiver(name, tuple(dict.fromkeys(channels)), tuple(configured))

    def _channel_names(self, path: Path, value: Any) -> list[str]:
        names: list[str] = []
        for index, name in enumerate(self._items(path, value)):
            if not isinstance(name, str) or not re.match(CHANNEL_PATTERN, name):
                self._complain((*path, index), f"{_shown(name)} is not a valid channel name")
            elif self._channels is not None and name not in self._channels:
                known = _listed(self._channels)
                self._complain((*path, index), f"no channel is called {name!r} here; there are: {known}")
            else:
                names.append(name)
        return names

    def _configured(self, path: Path, kind: str, receiver: str, value: Any) -> list[tuple[str, ReceiverConfig]]:
        entries = self._items(path, value)
        found: list[tuple[str, ReceiverConfig]] = []
        for index, entry in enumerate(entries):
            name = f"{kind}:{receiver}" if len(entries) == 1 else f"{kind}:{receiver}:{index}"
            if len(name) > 63 or not re.match(CHANNEL_PATTERN, name):
                self._complain(
                    path,
                    f"its channel would be called {name!r}: name the receiver with letters, digits and -_. only, "
                    "so that this has 63 characters at most",
                )
                continue
            try:
                found.append((name, self._kinds[kind].model_validate(entry)))
            except ValidationError as error:
                for each in error.errors(include_url=False, include_input=False):
                    self._complain((*path, index, *each["loc"]), each["msg"])
        return found

    # Routes

    def root(self, receivers: Mapping[str, Receiver]) -> Route | None:
        entry = self._source.data.get("route")
        if not isinstance(entry, dict):
            self._complain(("route",), "the root route is missing: it is a mapping with a receiver")
            return None
        if entry.get("receiver") in (None, ""):
            self._complain(("route",), "the root route needs a receiver, for what no other route matches")
        for key in ("matchers", "match", "match_re"):
            if entry.get(key):
                self._complain(("route", key), "the root route matches everything: move this into a route below it")
        if entry.get("continue"):
            self._complain(("route", "continue"), "nothing lies behind the root route to continue with")
        return self._route(("route",), entry, "", receivers)

    def _route(self, path: Path, entry: Any, inherited: str, receivers: Mapping[str, Receiver]) -> Route | None:
        if not isinstance(entry, dict):
            self._complain(path, "a route is a mapping")
            return None
        self._left -= 1
        if self._left < 0:
            self._complain(path, f"there are more than {ROUTE_LIMIT} routes")
            return None
        receiver = self._receiver_of(path, entry, inherited, receivers)
        goes_on = entry.get("continue", False)
        if not isinstance(goes_on, bool):
            self._complain((*path, "continue"), f"true or false, not {_shown(goes_on)}")
        for key in entry:
            if key not in {"receiver", "continue", "matchers", "match", "match_re", "routes", *_UNUSED}:
                self._complain(
                    (*path, str(key)),
                    "a route has no such key: it has receiver, matchers, match, match_re, continue, routes",
                )
        routes = [
            self._route((*path, "routes", index), child, receiver, receivers)
            for index, child in enumerate(self._items((*path, "routes"), entry.get("routes")))
        ]
        return Route(
            receiver,
            tuple(self._matchers(path, entry)),
            tuple(route for route in routes if route is not None),
            goes_on is True,
        )

    def _receiver_of(self, path: Path, entry: Any, inherited: str, receivers: Mapping[str, Receiver]) -> str:
        receiver = entry.get("receiver")
        if receiver in (None, ""):
            return inherited
        if not isinstance(receiver, str) or receiver not in receivers:
            self._complain(
                (*path, "receiver"), f"no receiver is called {_shown(receiver)}; there are: {_listed(receivers)}"
            )
        return str(receiver)

    def _matchers(self, path: Path, entry: Any) -> list[Matcher]:
        found: list[Matcher] = []
        for index, text in enumerate(self._items((*path, "matchers"), entry.get("matchers"))):
            if not isinstance(text, str):
                self._complain(
                    (*path, "matchers", index), f"a matcher is a text such as 'team = storage', not {_shown(text)}"
                )
                continue
            try:
                found += parse_matchers(text)
            except MatcherError as error:
                self._complain((*path, "matchers", index), str(error))
        operators: tuple[tuple[str, Operator], ...] = (("match", "="), ("match_re", "=~"))
        for key, operator in operators:
            for name, value in self._mapping((*path, key), entry.get(key)).items():
                try:
                    found.append(Matcher(str(name), operator, str(value)))
                except MatcherError as error:
                    self._complain((*path, key, str(name)), str(error))
        return found

    # Shapes

    def _list(self, path: Path, *, required: bool) -> list[Any]:
        value = self._source.data.get(path[0])
        if required and not value:
            self._complain(path, "at least one is needed")
        return self._items(path, value)

    def _items(self, path: Path, value: Any) -> list[Any]:
        if value is None:
            return []
        if not isinstance(value, list):
            self._complain(path, f"a list, not {_shown(value)}")
            return []
        return value

    def _mapping(self, path: Path, value: Any) -> dict[Any, Any]:
        if value is None:
            return {}
        if not isinstance(value, dict):
            self._complain(path, f"a mapping, not {_shown(value)}")
            return {}
        return value

    def _complain(self, path: Path, message: str) -> None:
        self._source.complain(path, message)


_short = reprlib.Repr()
_short.maxlevel, _short.maxstring, _short.maxother = 2, 80, 80


def _shown(value: Any) -> str:
    """Return a value as an error quotes it: by its beginning."""
    return _short.repr(value)


def _listed(names: Iterable[str]) -> str:
    """Return the first names of what there is."""
    ordered = sorted(names)
    more = f" and {len(ordered) - NAMES_SHOWN} more" if len(ordered) > NAMES_SHOWN else ""
    return (", ".join(ordered[:NAMES_SHOWN]) or "none") + more
