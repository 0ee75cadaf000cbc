"""The routing configuration in use, and its sources: a file, a ConfigMap or a RoutingConfig object."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

from reconciler._core.durations import DurationLike, seconds_of
from reconciler._core.wire import JSONObject
from reconciler.cache import CacheEvent
from reconciler.clock import current_clock
from reconciler.controller import Outcome, Permission, ResourceReconciler, Result
from reconciler.errors import ConfigurationError, error_text
from reconciler.meta.documents import format_micro_time
from reconciler.notification.api import (
    ERROR_LIMIT,
    NotificationRequest,
    RoutingConfigObject,
    RoutingConfigStatus,
    RoutingError,
)
from reconciler.notification.channel import Channel, ChannelRegistry
from reconciler.notification.routing_config import (
    Problem,
    ReceiverConfig,
    RoutingConfig,
    RoutingConfigError,
    read_routing,
)
from reconciler.status import StatusBatcher

if TYPE_CHECKING:
    from reconciler.cache import Cache

_log = logging.getLogger("reconciler.notification")


@dataclass(frozen=True, slots=True)
class Resolution:
    """The receivers and channels of a request.

    Attributes:
        receivers: names of the receivers, in order, without duplicates.
        channels: names of their channels, in order, without duplicates; empty if they have none.
        problem: why the latest routing configuration is not in use; empty if it is.
        pending: whether no configuration has been loaded yet, so that the request must wait. Default False.
        fallback: why the fallback channel is used; empty if it is not.
    """

    receivers: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    problem: str = ""
    pending: bool = False
    fallback: str = ""


@runtime_checkable
class Router(Protocol):
    """The protocol of an object that resolves the attributes of a request to receivers and channels."""

    def resolve(self, attributes: Mapping[str, str]) -> Resolution:
        """Called to resolve a request. Must return the same for the same attributes and configuration."""
        ...


def fallback_reason(found: Resolution | None) -> str:
    """Return why a request needs the fallback channel; empty if it does not.

    A request that waits for the first routing configuration needs it only if that is invalid.

    Args:
        found: what routing selected; None if the operator has no routing.
    """
    if found is None:
        return "the operator has no routing"
    if found.pending:
        return f"the routing configuration is invalid: {found.problem}" if found.problem else ""
    return "" if found.channels else f"the receivers {', '.join(found.receivers) or 'none'} have no channels"


def attributes_of(obj: NotificationRequest) -> dict[str, str]:
    """Return the attributes for routing: the extensions, then ``type``, ``priority``, ``namespace`` and ``name``.

    The latter four take precedence over extensions of the same name.
    """
    return {
        **(obj.spec.extensions or {}),
        "type": obj.spec.type,
        "priority": obj.spec.priority,
        "namespace": obj.namespace or "",
        "name": obj.name,
    }


BUILD_PROBLEM_LIMIT = 10
"""Errors after which no more channels are created, because each template may use its whole CPU time."""

Build = Callable[[str, ReceiverConfig], Channel]
"""Creates the channel of a name from its configuration."""


class RoutingTable:
    """A `Router` that uses the latest valid routing configuration.

    A new configuration is parsed and checked, and its channels are created, before anything changes. Then routes and
    channels change in one step; receivers with an unchanged configuration keep their channels. An invalid configuration
    changes nothing, and `problem` describes it until the next valid one. Requests wait until the first valid one.

    Args:
        channels: the operator's channels; those of the receivers are added and removed.
        kinds: the model of each kind of receiver configuration: ``slack`` for ``slack_configs``.
        build: creates the channel of a receiver.
        check: further checks of a well-formed configuration, such as missing credentials; returns the errors, or
            raises. Default: none.

    Attributes:
        config: the configuration in use; None before the first.
        problem: why the latest configuration is not in use; empty if it is.
        loaded: number of configurations that were loaded.
        refused: number of invalid configurations, which left the previous one in use.
    """

    def __init__(
        self,
        channels: ChannelRegistry,
        *,
        kinds: Mapping[str, type[ReceiverConfig]] | None = None,
        build: Build | None = None,
        check: Callable[[RoutingConfig], Sequence[str]] | None = None,
    ) -> None:
        self._channels = channels
        self._kinds = dict(kinds or {})
        self._build = build
        self._check = check
        self.config: RoutingConfig | None = None
        self._digest = ""
        self._refused_digest = ""
        self.loaded = 0
        self.refused = 0
        self.problem = ""
        self._built: dict[str, tuple[ReceiverConfig, Channel]] = {}
        channels.is_complete = False

    def load(self, text: str, *, name: str = "", again: bool = False, required: bool = False) -> bool:
        """Load a configuration; return whether it differs from the one in use.

        Args:
            text: the configuration as YAML.
            name: name of the file or object, for errors and logs.
            again: whether to check a configuration again that was refused before. Default False.
            required: whether the caller ends the process after an error, so that it is not logged as well. Default
                False.

        Raises:
            RoutingConfigError: the configuration is invalid; the previous one stays in use.
        """
        digest = hashlib.sha256(text.encode()).hexdigest()
        if digest == self._digest:
            self.problem = ""
            return False
        if digest == self._refused_digest and not again:
            return False
        try:
            config, built = self._prepare(text, name)
        except Exception as error:
            self._refuse(digest, error, required=required)
            raise
        self._channels.replace([channel for _, channel in built.values()])
        self._built = built
        self.config, self._digest, self._refused_digest, self.problem = config, digest, "", ""
        self.loaded += 1
        _log.info("loaded routing configuration %s; receivers: %d", name, len(config.receivers))
        return True

    def resolve(self, attributes: Mapping[str, str]) -> Resolution:
        """Select the receivers and channels for these attributes; pending before the first configuration."""
        if self.config is None:
            return Resolution(problem=self.problem, pending=True)
        receivers = self.config.route.receivers(attributes)
        channels = [name for receiver in receivers for name in self.config.receivers[receiver].channel_names]
        return Resolution(receivers, tuple(dict.fromkeys(channels)), self.problem)

    def _prepare(self, text: str, name: str) -> tuple[RoutingConfig, dict[str, tuple[ReceiverConfig, Channel]]]:
        """Return a configuration and its channels. Channels with an unchanged configuration are kept."""
        config = read_routing(text, name=name, kinds=self._kinds, channels=self._channels.own)
        wrong = self._check(config) if self._check is not None else ()
        if wrong:
            raise RoutingConfigError(name, [Problem(0, "", each) for each in wrong])
        if self._build is None:
            return config, {}
        built: dict[str, tuple[ReceiverConfig, Channel]] = {}
        problems: list[Problem] = []
        for receiver in config.receivers.values():
            for channel, entry in receiver.configured:
                before = self._built.get(channel)
                try:
                    built[channel] = before if before and before[0] == entry else (entry, self._build(channel, entry))
                except Exception as error:  # noqa: BLE001 - a wrong template, a missing library, or a broken one
                    problems.append(Problem(0, channel, error_text(error)))
                if len(problems) >= BUILD_PROBLEM_LIMIT:
                    raise RoutingConfigError(name, problems)
        if problems:
            raise RoutingConfigError(name, problems)
        return config, built

    def _refuse(self, digest: str, error: Exception, *, required: bool) -> None:
        before, self.problem = self.problem, error_text(error)
        if before == self.problem and self._refused_digest == digest:
            return
        self._refused_digest = digest
        self.refused += 1
        if required:
            return
        effect = "keeping the previous one" if self.config is not None else "requests without channels wait"
        _log.error("%s; %s", self.problem, effect)


class FileSource:
    """A file that is reloaded when its content changes.

    Only the content counts, not the modification time, because a mounted ConfigMap is replaced by a symbolic link.
    While the file is unreadable or invalid, the previous configuration stays in use.

    Args:
        path: the file.
        table: the routing table to load it into.
        interval: the duration (seconds, a timedelta or ``"5s"``) between reads. Default 5.
    """

    def __init__(self, path: str | os.PathLike[str], table: RoutingTable, *, interval: DurationLike = 5.0) -> None:
        self._path = Path(path)
        self._table = table
        self._interval = seconds_of("interval", interval)

    def load(self) -> None:
        """Load the file now. Call it at startup to fail rather than run without routing.

        Raises:
            ConfigurationError: the file cannot be read, or is invalid.
        """
        try:
            text = self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise ConfigurationError(f"cannot read the routing configuration {self._path}: {reason}") from error
        self._table.load(text, name=str(self._path), required=self._table.config is None)

    async def run(self) -> None:
        """Reload the file on changes until cancelled; the configuration stays in use."""
        logged = ""
        while True:
            await asyncio.sleep(self._interval)
            try:
                self.load()
                logged = ""
            except RoutingConfigError:
                pass  # logged by the table
            except ConfigurationError as error:
                if str(error) != logged:
                    _log.error("%s; keeping the previous one", error)
                logged = str(error)


class ConfigMapSource:
    """A key of a ConfigMap that is reloaded when it changes.

    If the ConfigMap or the key is deleted, the previous configuration stays in use.

    Args:
        cache: the cache that watches the ConfigMap.
        namespace: namespace of the ConfigMap.
        name: name of the ConfigMap.
        table: the routing table to load it into.
        key: the key to read. Default ``routing.yaml``.
    """

    def __init__(
        self, cache: Cache, namespace: str, name: str, table: RoutingTable, *, key: str = "routing.yaml"
    ) -> None:
        self._cache = cache
        self._namespace = namespace
        self._name = name
        self._key = key
        self._table = table

    @property
    def label(self) -> str:
        """Return the name for errors and logs."""
        return f"ConfigMap {self._namespace}/{self._name}, key {self._key}"

    async def run(self) -> None:
        """Reload the ConfigMap on changes until cancelled; the configuration stays in use."""
        informer = await self._cache.informer(
            "v1/ConfigMap", namespaces=[self._namespace], field_selector={"metadata.name": self._name}
        )
        registration = informer.add_handler(self._handle)
        try:
            await asyncio.Event().wait()
        finally:
            registration.remove()

    def _handle(self, event: CacheEvent) -> None:
        if event.new is None:
            _log.warning("%s was deleted; keeping the previous routing configuration", self.label)
            return
        document: JSONObject = event.new.decode()
        text = (document.get("data") or {}).get(self._key)
        if not isinstance(text, str):
            _log.warning("%s not found; keeping the previous routing configuration", self.label)
            return
        with contextlib.suppress(RoutingConfigError):  # logged by the table
            self._table.load(text, name=self.label)


RETRY = 60.0
"""Seconds until an invalid configuration is checked again: a credential that it names may have been added."""


class RoutingConfigReconciler(ResourceReconciler[RoutingConfigObject]):
    """A reconciler that loads the RoutingConfig of one name into a routing table, and writes its status.

    An invalid configuration leaves the previous one in use. So does the deletion of the object.

    Args:
        name: name of the RoutingConfig. Others are ignored.
        redact: redacts the errors. Default: no change.
    """

    permissions: ClassVar[Sequence[Permission] | None] = ()

    def __init__(self, name: str, table: RoutingTable, *, redact: Callable[[str], str] = str) -> None:
        super().__init__()
        self._name = name
        self._table = table
        self._redact = redact

    async def reconcile_object(
        self, obj: RoutingConfigObject, status: StatusBatcher[RoutingConfigStatus], /
    ) -> Outcome:
        """Load the configuration, and record the result."""
        if obj.name != self._name:
            return None
        try:
            changed = self._table.load(obj.spec.config, name=f"RoutingConfig {obj.name}", again=True)
        except RoutingConfigError as error:
            found = [
                RoutingError(line=problem.line, place=problem.place, message=self._redact(problem.message))
                for problem in error.problems[:ERROR_LIMIT]
            ]
            return self._invalid(status, found)
        if changed or obj.status.active_generation != obj.metadata.generation or obj.status.in_force_since is None:
            now = format_micro_time(current_clock().now() + self.client.clock_offset)
            status.set(active_generation=obj.metadata.generation, in_force_since=now)
        status.set(valid=True, errors=[])
        status.set_condition("Ready", True, reason="Loaded", message="the configuration is in use")
        return None

    def _invalid(self, status: StatusBatcher[RoutingConfigStatus], errors: Sequence[RoutingError]) -> Outcome:
        documents = [error.model_dump(mode="json", by_alias=True) for error in errors]
        status.set(valid=False, errors=documents)
        first = errors[0]
        text = f"line {first.line}: {first.place}: {first.message}" if first.line else first.message
        in_use = "the previous one is in use" if self._table.config is not None else "none is in use"
        status.set_condition("Ready", False, reason="Invalid", message=f"{text}; {in_use}")
        return Result(requeue_after=RETRY)
