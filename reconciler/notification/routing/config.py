"""The routing configuration: a tree of routes and the receivers, parsed with all errors at once."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from reconciler.errors import ConfigurationError
from reconciler.notification.channel import CHANNEL_PATTERN, Channel
from reconciler.notification.credentials import Credentials
from reconciler.notification.redaction.text import listed, shortened
from reconciler.notification.routing.matchers import Matcher, MatcherError, Operator, parse_matchers
from reconciler.notification.routing.yaml import PROBLEM_LIMIT, TEXT_LIMIT, Path, Problem, Source, read_yaml

__all__ = ["Receiver", "ReceiverConfig", "Route", "RoutingConfig", "RoutingConfigError", "read_routing"]


@dataclass(frozen=True, slots=True)
class Route:
    """A node of the routing tree, with Alertmanager's semantics: requests that match go to a receiver or a child route.

    Attributes:
        receiver: the receiver if no child route matches.
        matchers: all must match; no matchers match everything.
        routes: child routes, in order. The first match ends the search, unless that route continues.
        continues: whether the search continues with the next sibling after a match (``continue`` in the file).
    """

    receiver: str
    matchers: tuple[Matcher, ...] = ()
    routes: tuple[Route, ...] = ()
    continues: bool = False

    def receivers(self, attributes: Mapping[str, str]) -> tuple[str, ...]:
        """Return the receivers for these attributes, in order, without duplicates; empty if nothing matches."""
        return tuple(dict.fromkeys(route.receiver for route in self.matching(attributes)))

    def matching(self, attributes: Mapping[str, str]) -> Iterator[Route]:
        """Yield the matching routes without matching children, in order."""
        if not all(matcher.matches(attributes) for matcher in self.matchers):
            return
        reached = False
        for route in self.routes:
            below = tuple(route.matching(attributes))
            yield from below
            reached = reached or bool(below)
            if below and not route.continues:
                break
        if not reached:
            yield self


ROUTE_LIMIT = 10_000
"""Maximum routes of a configuration."""

NAMES_SHOWN = 20
"""Maximum names that an error message lists."""

_CONFIGS = "_configs"
_UNUSED = (
    "group_by",
    "group_wait",
    "group_interval",
    "repeat_interval",
    "mute_time_intervals",
    "active_time_intervals",
)
"""Keys of Alertmanager's routes that have no effect here; accepted, so that its files can be used unchanged."""


class ReceiverConfig(BaseModel):
    """The base class of the entries under ``<kind>_configs`` of a receiver. Unknown keys are rejected."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)

    def credential_names(self) -> Sequence[str]:
        """Return the names of the credentials that the entry refers to: the values of options such as ``x_credential``.

        An option ``x_credentials`` is a mapping whose values are names.
        """
        options = [(name.rpartition("_")[2], getattr(self, name)) for name in type(self).model_fields]
        single = [value for kind, value in options if kind == "credential" and value is not None]
        return [*single, *(name for kind, value in options if kind == "credentials" for name in value.values())]

    def build(self, name: str, credentials: Credentials) -> Channel:
        """Return a new channel of this name.

        Raises:
            ConfigurationError: the channel cannot be created.
            MissingExtra: a library that the channel needs is not installed.
        """
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Receiver:
    """A receiver: a named set of channels.

    Attributes:
        name: the name that routes use.
        channels: names of the operator's channels.
        configured: the receiver's own channels: name and configuration of each.
    """

    name: str
    channels: tuple[str, ...] = ()
    configured: tuple[tuple[str, ReceiverConfig], ...] = ()

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Return the names of all channels of the receiver, in order, without duplicates."""
        return tuple(dict.fromkeys([*self.channels, *(name for name, _ in self.configured)]))


@dataclass(frozen=True, slots=True)
class RoutingConfig:
    """A valid routing configuration.

    Attributes:
        route: the root route, which matches everything.
        receivers: the receivers by name.
    """

    route: Route
    receivers: Mapping[str, Receiver]


class RoutingConfigError(ConfigurationError):
    """An invalid routing configuration, with all errors in it.

    Attributes:
        problems: the errors, sorted by line.
    """

    def __init__(self, name: str, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems))
        lines = [str(problem) for problem in self.problems[:PROBLEM_LIMIT]]
        lines += [f"… and {len(self.problems) - PROBLEM_LIMIT} more"] if len(self.problems) > PROBLEM_LIMIT else []
        listed = "".join(f"\n  {line}" for line in lines)
        super().__init__(f"invalid routing configuration {name}:{listed}")


def read_routing(
    text: str, *, name: str = "", kinds: Mapping[str, type[ReceiverConfig]], channels: Sequence[str] | None = None
) -> RoutingConfig:
    """Parse a routing configuration.

    Args:
        text: YAML in Alertmanager's format, with ``route`` and ``receivers``.
        name: name of the file or object, for errors.
        kinds: the model of each kind of receiver configuration: ``slack`` for ``slack_configs``.
        channels: names that are valid under ``channels`` of a receiver; None accepts every well-formed name.

    Raises:
        RoutingConfigError: the configuration is invalid; lists all errors with their lines.
        MissingExtra: RE2 is not installed, and a matcher has a regular expression.
    """
    source = read_yaml(text)
    if source.problems:
        raise RoutingConfigError(name, source.problems)
    if not isinstance(source.data, dict):
        raise RoutingConfigError(name, [Problem(0, "", "the configuration is empty: it needs a route and receivers")])
    parser = _Parser(source, kinds, channels)
    receivers = parser.receivers()
    route = parser.root(receivers)
    if source.problems or route is None:
        raise RoutingConfigError(name, source.problems)
    return RoutingConfig(route, receivers)


C = TypeVar("C", bound=list[Any] | dict[Any, Any])


class _Parser:
    """A parser that collects all errors of a document.

    Args:
        channels: names of the existing channels; None if they are unknown.
    """

    def __init__(
        self, source: Source, kinds: Mapping[str, type[ReceiverConfig]], channels: Sequence[str] | None
    ) -> None:
        self._source = source
        self._add_problem = source.add_problem
        self._kinds = kinds
        self._channels = channels
        self._known_channels = _listed(channels or ())
        self._known_receivers = ""
        self._routes_left = ROUTE_LIMIT
        for key in source.data:
            if key not in {"route", "receivers"}:
                self._add_problem((str(key),), "unknown key; expected route or receivers")

    # Receivers

    def receivers(self) -> dict[str, Receiver]:
        found: dict[str, Receiver] = {}
        entries = self._source.data.get("receivers")
        if not entries:
            self._add_problem(("receivers",), "at least one receiver is required")
        for index, entry in enumerate(self._collection(("receivers",), entries, list)):
            path: Path = ("receivers", index)
            receiver = self._receiver(path, entry)
            if receiver is None:
                continue
            if receiver.name in found:
                self._add_problem((*path, "name"), f"duplicate receiver name {_quoted(receiver.name)}")
            found[receiver.name] = receiver
        self._known_receivers = _listed(found)
        return found

    def _receiver(self, path: Path, entry: Any) -> Receiver | None:
        if not isinstance(entry, dict):
            self._add_problem(path, "a receiver must be a mapping with a name")
            return None
        name = entry.get("name")
        if not isinstance(name, str) or not name:
            self._add_problem(path, "a receiver needs a name")
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
                self._add_problem((*path, str(key)), f"unknown key; a receiver has {known}")
        return Receiver(name, tuple(dict.fromkeys(channels)), tuple(configured))

    def _channel_names(self, path: Path, value: Any) -> list[str]:
        names: list[str] = []
        for index, name in enumerate(self._collection(path, value, list)):
            if not isinstance(name, str) or not re.match(CHANNEL_PATTERN, name):
                self._add_problem((*path, index), f"{_quoted(name)} is not a valid channel name")
            elif self._channels is not None and name not in self._channels:
                text = f"unknown channel {name!r}; registered channels: {self._known_channels}"
                self._add_problem((*path, index), text)
            else:
                names.append(name)
        return names

    def _configured(self, path: Path, kind: str, receiver: str, value: Any) -> list[tuple[str, ReceiverConfig]]:
        entries = self._collection(path, value, list)
        found: list[tuple[str, ReceiverConfig]] = []
        for index, entry in enumerate(entries):
            name = f"{kind}:{receiver[:64]}" if len(entries) == 1 else f"{kind}:{receiver[:64]}:{index}"
            if len(name) > 63 or not re.match(CHANNEL_PATTERN, name):
                self._add_problem(
                    path,
                    f"{name!r} would not be a valid channel name: use only letters, digits and -_. in the receiver's "
                    "name, so that the channel name has at most 63 characters",
                )
                continue
            try:
                found.append((name, self._kinds[kind].model_validate(entry)))
            except ValidationError as error:
                for each in error.errors(include_url=False, include_input=False):
                    text = each["msg"]
                    if each["type"] == "extra_forbidden":
                        text = f"unknown option; the options are {', '.join(sorted(self._kinds[kind].model_fields))}"
                    self._add_problem((*path, index, *each["loc"]), text)
        return found

    # Routes

    def root(self, receivers: Mapping[str, Receiver]) -> Route | None:
        entry = self._source.data.get("route")
        if not isinstance(entry, dict):
            self._add_problem(("route",), "the root route is missing: it must be a mapping with a receiver")
            return None
        if entry.get("receiver") in (None, ""):
            self._add_problem(("route",), "the root route needs a receiver, for requests that no other route matches")
        for key in ("matchers", "match", "match_re"):
            if entry.get(key):
                self._add_problem(("route", key), "the root route matches everything: move this to a child route")
        if entry.get("continue"):
            self._add_problem(("route", "continue"), "the root route has no siblings to continue with: remove continue")
        return self._route(("route",), entry, "", receivers)

    def _route(self, path: Path, entry: Any, inherited: str, receivers: Mapping[str, Receiver]) -> Route | None:
        if not isinstance(entry, dict):
            self._add_problem(path, "a route must be a mapping")
            return None
        self._routes_left -= 1
        if self._routes_left < 0:
            self._add_problem(path, f"more than {ROUTE_LIMIT} routes")
            return None
        receiver = self._receiver_of(path, entry, inherited, receivers)
        continues = entry.get("continue", False)
        if not isinstance(continues, bool):
            self._add_problem((*path, "continue"), f"must be true or false, not {_quoted(continues)}")
        for key in entry:
            if key not in {"receiver", "continue", "matchers", "match", "match_re", "routes", *_UNUSED}:
                self._add_problem(
                    (*path, str(key)),
                    "unknown key; a route has receiver, matchers, match, match_re, continue, routes",
                )
        routes = [
            self._route((*path, "routes", index), child, receiver, receivers)
            for index, child in enumerate(self._collection((*path, "routes"), entry.get("routes"), list))
        ]
        return Route(
            receiver,
            tuple(self._matchers(path, entry)),
            tuple(route for route in routes if route is not None),
            continues is True,
        )

    def _receiver_of(self, path: Path, entry: Any, inherited: str, receivers: Mapping[str, Receiver]) -> str:
        receiver = entry.get("receiver")
        if receiver in (None, ""):
            return inherited
        if not isinstance(receiver, str) or receiver not in receivers:
            self._add_problem(
                (*path, "receiver"),
                f"unknown receiver {_quoted(receiver)}; defined receivers: {self._known_receivers}",
            )
        return str(receiver)

    def _matchers(self, path: Path, entry: Any) -> list[Matcher]:
        found: list[Matcher] = []
        for index, text in enumerate(self._collection((*path, "matchers"), entry.get("matchers"), list)):
            if not isinstance(text, str):
                problem = f"a matcher must be a string such as 'team = storage', not {_quoted(text)}"
                self._add_problem((*path, "matchers", index), problem)
                continue
            try:
                found += parse_matchers(text)
            except MatcherError as error:
                self._add_problem((*path, "matchers", index), str(error))
        operators: tuple[tuple[str, Operator], ...] = (("match", "="), ("match_re", "=~"))
        for key, operator in operators:
            for name, value in self._collection((*path, key), entry.get(key), dict).items():
                try:
                    found.append(Matcher(str(name), operator, str(value)))
                except MatcherError as error:
                    self._add_problem((*path, key, str(name)), str(error))
        return found

    # Shapes

    def _collection(self, path: Path, value: Any, kind: type[C]) -> C:
        """Return a list or a mapping, which is empty if it is absent or of another type."""
        if isinstance(value, kind):
            return value
        if value is not None:
            # The value itself may be a secret URL.
            expected = "list" if kind is list else "mapping"
            self._add_problem(path, f"must be a {expected}, not a {type(value).__name__}")
        return kind()


_short = reprlib.Repr()
_short.maxlevel, _short.maxstring, _short.maxother = 2, 80, 80


def _listed(names: Iterable[str]) -> str:
    return shortened(listed(sorted(names), NAMES_SHOWN), TEXT_LIMIT)


def _quoted(value: Any) -> str:
    """Return the beginning of a value, for an error message."""
    return _short.repr(value)
