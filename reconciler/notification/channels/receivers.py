"""Channels that are created from the receivers of a routing configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reconciler.notification.channel import Channel
from reconciler.notification.channels.apprise import AppriseConfig
from reconciler.notification.channels.email import EmailConfig
from reconciler.notification.channels.http import WebhookConfig
from reconciler.notification.channels.limits import LimitedChannel, LimitsConfig, NamespacedChannel
from reconciler.notification.channels.services import (
    CloudEventsConfig,
    DiscordConfig,
    JSMConfig,
    MattermostConfig,
    PagerDutyConfig,
    TeamsConfig,
)
from reconciler.notification.channels.slack import SlackConfig
from reconciler.notification.credentials import Credentials
from reconciler.notification.routing.config import ReceiverConfig, RoutingConfig

RECEIVER_KINDS: Mapping[str, type[LimitsConfig]] = {
    "webhook": WebhookConfig,
    "slack": SlackConfig,
    "email": EmailConfig,
    "teams": TeamsConfig,
    "pagerduty": PagerDutyConfig,
    "jsm": JSMConfig,
    "discord": DiscordConfig,
    "mattermost": MattermostConfig,
    "cloudevents": CloudEventsConfig,
    "apprise": AppriseConfig,
}
"""The models of ``webhook_configs``, ``slack_configs`` and so on. A model builds its own channel."""


class ReceiverChannels:
    """A factory for the channels of receivers.

    Args:
        credentials: the source of the secrets that the receivers name.
    """

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def build(self, name: str, config: ReceiverConfig) -> Channel:
        """Build a channel of this name, with the limits of its receiver.

        Raises:
            ConfigurationError: the channel cannot be created.
            MissingExtra: a library that the channel needs is not installed.
        """
        if not isinstance(config, LimitsConfig):
            return config.build(name, self._credentials)
        if config.credentials_of == "operator":
            return LimitedChannel(config.build(name, self._credentials), config)
        config.build(name, self._credentials)  # reports a missing library or a wrong template now
        return NamespacedChannel(
            name,
            lambda namespace: LimitedChannel(config.build(name, self._credentials.of_namespace(namespace)), config),
        )

    def missing_credentials(self, config: RoutingConfig) -> Sequence[str]:
        """Return a sentence for each credential that a configuration names and that does not exist."""
        return self._credentials.missing(
            name
            for receiver in config.receivers.values()
            for _, entry in receiver.configured
            if not (isinstance(entry, LimitsConfig) and entry.credentials_of == "namespace")
            for name in entry.credential_names()
        )
