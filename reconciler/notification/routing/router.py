"""Say which channels a request goes to when it names none: the seam between the passes and the routing.

Keep the configuration in force, and exchange it as a whole.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from reconciler.errors import error_text
from reconciler.notification.api.types import NotificationRequest
from reconciler.notification.channel import Channel, ChannelRegistry
from reconciler.notification.routing.config import ReceiverConfig, RoutingConfig, RoutingConfigError, read_routing
from reconciler.notification.routing.yaml import Problem

__all__ = ["Resolution", "Router", "RoutingObserver", "RoutingStatistics", "RoutingTable", "attributes_of"]

_log = logging.getLogger("reconciler.notification")


@dataclass(frozen=True, slots=True)
class Resolution:
    """Hold where a request goes.

    Attributes:
        receivers: names of the receivers that were reached, in order, each once.
        channels: names of their channels, in order, each once; empty when they have none.
        problem: why a newer configuration of the routing is not in force; None when it is the newest.
        pending: whether there is no configuration yet, so that the request has to wait. Default False.
    """

    receivers: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    problem: str | None = None
    pending: bool = False


@runtime_checkable
class Router(Protocol):
    """Resolve the attributes of a request to receivers and channels."""

    def resolve(self, attributes: Mapping[str, str]) -> Resolution:
        """Return where a request with these attributes goes; the same for the same attributes and configuration."""
        ...


def attributes_of(obj: NotificationRequest) -> dict[str, str]:
    """Return what routing can match: the extensions, and over them ``type``, ``priority``, ``namespace``, ``name``."""
    return {
        **(obj.spec.extensions or {}),
        "type": obj.spec.type,
        "priority": obj.spec.priority,
        "namespace": obj.namespace or "",
        "name": obj.name,
    }


OWNER = "routing"
"""Under what the registry keeps the channels of receivers."""

Build = Callable[[str, ReceiverConfig], Channel]
"""Makes the channel of a name from what is configured for it."""


@dataclass(frozen=True, slots=True)
class RoutingStatistics:
    """Count what became of configurations.

    Attributes:
        loaded: how many were put in force.
        refused: how many were not, and left the one before in force.
        receivers: of the configuration in force.
        digest: the first 12 characters of the SHA-256 of the configuration in force; empty when there is none.
    """

    loaded: int
    refused: int
    receivers: int
    digest: str


class RoutingObserver(Protocol):
    """Hear of configurations that are loaded."""

    def loaded(self, table: RoutingTable) -> None:
        """Take note of a configuration that is in force now."""
        ...

    def refused(self, table: RoutingTable, error: Exception) -> None:
        """Take note of one that cannot be used."""
        ...


class RoutingTable:
    """Resolve requests by the configuration in force.

    A new one is read, checked and its channels are made before anything changes; then routes and channels change in one
    step, and a receiver that is configured as before keeps its channel. One that cannot be used changes nothing, and
    `problem` says what is wrong with it until the next good one. Requests wait while there was none at all.

    Args:
        channels: the operator's channels; those of the receivers come and go in it.
        kinds: the model of each kind of receiver configuration, ``slack`` for ``slack_configs``.
        build: makes the channel of a receiver.
        check: raises, or returns what is wrong, for a configuration that is right in itself, such as credentials that
            are missing. Default: nothing to check.
        observers: hear of each load.
    """

    def __init__(
        self,
        channels: ChannelRegistry,
        *,
        kinds: Mapping[str, type[ReceiverConfig]] | None = None,
        build: Build | None = None,
        check: Callable[[RoutingConfig], Sequence[str]] | None = None,
        observers: Sequence[RoutingObserver] = (),
    ) -> None:
        self._channels = channels
        self._kinds = dict(kinds or {})
        self._build = build
        self._check = check
        self._observers = tuple(observers)
        self._config: RoutingConfig | None = None
        self._digest = ""
        self._refused_digest = ""
        self._loaded = 0
        self._refused = 0
        self.problem: str | None = None
        self._made: dict[str, tuple[ReceiverConfig, Channel]] = {}
        channels.expect(OWNER)

    @property
    def config(self) -> RoutingConfig | None:
        """Return the configuration in force, None before the first."""
        return self._config

    def statistics(self) -> RoutingStatistics:
        """Return the counts at this moment."""
        receivers = len(self._config.receivers) if self._config is not None else 0
        return RoutingStatistics(self._loaded, self._refused, receivers, self._digest[:12])

    def load(self, text: str, *, name: str = "") -> bool:
        """Put a configuration in force; return whether it is another one than before.

        Args:
            text: YAML.
            name: of the file or object, for errors and logs.

        Raises:
            RoutingConfigError: it cannot be used; the one before stays in force.
        """
        digest = hashlib.sha256(text.encode()).hexdigest()
        if digest == self._digest:
            self.problem = None
            return False
        if digest == self._refused_digest:
            return False
        try:
            config, made = self._prepared(text, name)
        except Exception as error:
            self._refuse(digest, error)
            raise
        self._channels.replace(OWNER, [channel for _, channel in made.values()])
        self._made = made
        self._config, self._digest, self._refused_digest, self.problem = config, digest, "", None
        self._loaded += 1
        _log.info("routing configuration %s is in force: %d receivers", name, len(config.receivers))
        for observer in self._observers:
            observer.loaded(self)
        return True

    def resolve(self, attributes: Mapping[str, str]) -> Resolution:
        """Return where a request with these attributes goes; it waits while there is no configuration."""
        if self._config is None:
            return Resolution(problem=self.problem, pending=True)
        receivers = self._config.route.receivers(attributes)
        channels = [name for receiver in receivers for name in self._config.receivers[receiver].channel_names]
        return Resolution(receivers, tuple(dict.fromkeys(channels)), self.problem)

    def _prepared(self, text: str, name: str) -> tuple[RoutingConfig, dict[str, tuple[ReceiverConfig, Channel]]]:
        """Return a configuration and its channels; one that is configured as before is kept, with what it counts."""
        config = read_routing(text, name=name, kinds=self._kinds, channels=self._channels.names(but=OWNER))
        wrong = self._check(config) if self._check is not None else ()
        if wrong:
            raise RoutingConfigError(name, [Problem(0, "", each) for each in wrong])
        if self._build is None:
            return config, {}
        made: dict[str, tuple[ReceiverConfig, Channel]] = {}
        for receiver in config.receivers.values():
            for channel, entry in receiver.configured:
                before = self._made.get(channel)
                made[channel] = before if before and before[0] == entry else (entry, self._build(channel, entry))
        return config, made

    def _refuse(self, digest: str, error: Exception) -> None:
        self.problem = error_text(error)
        self._refused_digest = digest
        self._refused += 1
        stays = "the one before stays in force" if self._config is not None else "there is none in force"
        _log.error("%s; %s", self.problem, stays)
        for observer in self._observers:
            observer.refused(self, error)
