"""The routing configuration: a tree of routes and the receivers, read from YAML with all errors at once."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reconciler._core.wire import use_kubernetes_scalars
from reconciler.errors import ConfigurationError
from reconciler.notification.channel import CHANNEL_PATTERN, Channel, DurationSeconds
from reconciler.notification.credentials import Credentials
from reconciler.notification.matchers import Matcher, MatcherError, Operator, parse_matchers
from reconciler.notification.redaction import listed, shortened

Path = tuple[str | int, ...]
"""The keys and indexes that lead to a value from the top of the document."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """An error in a document.

    Attributes:
        line: line number from 1; 0 for the document as a whole.
        place: path of the value, such as ``route.routes[0].receiver``.
        message: what is wrong, and what to do.
    """

    line: int
    place: str
    message: str

    def __str__(self) -> str:
        place = f"{self.place}: " if self.place else ""
        return f"line {self.line}: {place}{self.message}" if self.line else f"{place}{self.message}"


class _TooLarge(Exception):
    """Raised with a path and the limit that the document exceeds there."""


@dataclass(slots=True)
class YAMLDocument:
    """A document with line numbers and the errors found so far.

    Attributes:
        data: the document.
        lines: the line of each value, by its path.
        problems: the errors.
        nodes: number of values, after expanding aliases.
        length: number of characters in them.
    """

    data: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    nodes: int = 0
    length: int = 0

    def add_problem(self, path: Path, message: str) -> None:
        """Add an error at a path, with the line of the nearest existing value."""
        if len(self.problems) > PROBLEM_COUNT_LIMIT:
            return
        line = next((self.lines[path[:end]] for end in range(len(path), -1, -1) if path[:end] in self.lines), 0)
        self.problems.append(Problem(line, place_of(path), shortened(message, TEXT_LIMIT)))

    def read(self, node: yaml.Node, path: Path = ()) -> None:
        """Note the lines of a value and of what is in it, count them, and report duplicate keys.

        Raises:
            _TooLarge: with its aliases expanded the document exceeds a limit.
        """
        self.lines.setdefault(path, node.start_mark.line + 1)
        self.nodes += 1
        self.length += len(node.value) if isinstance(node, yaml.ScalarNode) else 0
        if len(path) >= NESTING_LIMIT:
            raise _TooLarge(path[:1], _NESTED)
        if self.nodes > NODE_LIMIT or self.length > SIZE_LIMIT:
            what = f"{NODE_LIMIT} values" if self.nodes > NODE_LIMIT else f"{SIZE_LIMIT} characters"
            raise _TooLarge(path[:1], f"more than {what} after expanding aliases")
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self.read(item, (*path, index))
        elif isinstance(node, yaml.MappingNode):
            self._read_mapping(node, path)

    def _read_mapping(self, node: yaml.MappingNode, path: Path) -> None:
        seen: set[str] = set()
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                self.add_problem(path, f"a list or mapping cannot be a key, on line {line}")
                continue
            inner = (*path, key.value)
            if key.value in seen:
                self.add_problem(inner, f"duplicate key {shortened(key.value, 80)!r}, also on line {line}")
            seen.add(key.value)
            self.lines.setdefault(inner, line)
            self.read(value, inner)


def place_of(path: Path) -> str:
    """Return a path in the notation ``route.routes[0].receiver``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
        if len(text) > TEXT_LIMIT:
            return shortened(text, TEXT_LIMIT)
    return text


SIZE_LIMIT = 1_048_576
"""Maximum characters in a document: the limit of a ConfigMap."""

NESTING_LIMIT = 64
"""Maximum nesting of mappings and lists."""

NODE_LIMIT = 250_000
"""Maximum values in a document after expanding aliases."""

TEXT_LIMIT = 1000
"""Maximum characters of the place and of the message of an error."""

PROBLEM_COUNT_LIMIT = 1000
"""Maximum errors that are collected for a document."""

PROBLEM_LIMIT = 50
"""Maximum errors that a message lists."""


class _RoutingLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """A loader that reads numbers and timestamps as Kubernetes does."""


use_kubernetes_scalars(_RoutingLoader)


_NESTED = f"nested more than {NESTING_LIMIT} levels deep after expanding aliases"


def read_yaml(text: str) -> YAMLDocument:
    """Parse one YAML document; syntax errors, duplicate keys and exceeded limits become problems."""
    source = YAMLDocument()
    if len(text) > SIZE_LIMIT:
        source.add_problem((), f"the document has {len(text)} characters; the maximum is {SIZE_LIMIT}")
        return source
    loader = _RoutingLoader(text)
    try:
        _check_levels(source, text)
        node = loader.get_single_node()
        if node is not None:
            source.read(node)
            if not source.problems:  # the time to merge many duplicates of the key << is quadratic
                source.data = loader.construct_document(node)
    except _TooLarge as error:
        source.add_problem(*error.args)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        text = ", ".join(part for part in (error.context, error.problem) if part)
        source.problems.append(Problem(mark.line + 1 if mark else 0, "", f"invalid YAML: {text}"))
    except (yaml.YAMLError, ValueError) as error:
        source.add_problem((), f"invalid YAML: {error}")
    finally:
        loader.dispose()
    return source


def _check_levels(source: YAMLDocument, text: str) -> None:
    """Raise `_TooLarge` if values are nested too deeply for the loader, which recurses without a limit."""
    level = 0
    for event in yaml.parse(text, Loader=_RoutingLoader):
        level += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if level > NESTING_LIMIT:
            source.lines[()] = event.start_mark.line + 1 if event.start_mark else 0
            raise _TooLarge((), _NESTED)


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
    """The base class of the entries under ``<kind>_configs`` of a receiver: the options that any kind has.

    Unknown keys are rejected.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)

    rate_per_minute: float | None = Field(default=None, gt=0)
    """Maximum messages a minute. Others wait, which uses no attempt. Default: no limit."""

    max_concurrent: int = Field(default=4, ge=1)
    """Maximum concurrent messages; others wait."""

    breaker_failures: int = Field(default=5, ge=1)
    """Consecutive failures that open the circuit breaker."""

    breaker_open_seconds: DurationSeconds = Field(default=30.0, gt=0)
    """Seconds until an open circuit breaker lets one message through as a probe."""

    credentials_of: Literal["operator", "namespace"] = "operator"
    """Whose credentials the receiver uses: the operator's, or those of the request's namespace."""

    def credential_names(self) -> Sequence[str]:
        """Return the names of the credentials that the entry refers to: the values of options such as ``x_credential``.

        An option ``x_credentials`` is a mapping whose values are names.
        """
        options = [(name.rpartition("_")[2], getattr(self, name)) for name in type(self).model_fields]
        single = [value for kind, value in options if kind == "credential" and value is not None]
        return [*single, *(name for kind, value in options if kind == "credentials" for name in value.values())]

    def build(self, name: str, credentials: Credentials) -> Channel:
        """Build a channel of this name.

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
        self, source: YAMLDocument, kinds: Mapping[str, type[ReceiverConfig]], channels: Sequence[str] | None
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
