"""Channels that are created from the receivers of a routing configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reconciler.errors import ConfigurationError
from reconciler.notification.channel import Channel
from reconciler.notification.channels.email import EmailChannel, EmailConfig
from reconciler.notification.channels.limits import LimitedChannel
from reconciler.notification.channels.slack import SlackChannel, SlackConfig
from reconciler.notification.channels.webhook import WebhookChannel, WebhookConfig
from reconciler.notification.credentials import Credentials
from reconciler.notification.routing import ReceiverConfig, RoutingConfig

__all__ = ["RECEIVER_KINDS", "ReceiverChannels"]

RECEIVER_KINDS: Mapping[str, type[ReceiverConfig]] = {
    "webhook": WebhookConfig,
    "slack": SlackConfig,
    "email": EmailConfig,
}
"""The models of ``webhook_configs``, ``slack_configs`` and ``email_configs``."""


class ReceiverChannels:
    """A factory for the channels of receivers.

    Args:
        credentials: the source of the secrets that the receivers name.
    """

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def build(self, name: str, config: ReceiverConfig) -> Channel:
        """Return a new channel of this name, with the limits of its receiver.

        Raises:
            ConfigurationError: the channel cannot be created.
            MissingExtra: a library that the channel needs is not installed.
        """
        channel: Channel
        match config:
            case SlackConfig():
                channel = SlackChannel(name, config, self._credentials)
            case WebhookConfig():
                channel = WebhookChannel(name, config, self._credentials)
            case EmailConfig():
                channel = EmailChannel(name, config, self._credentials)
            case _:
                raise ConfigurationError(f"{name}: unknown receiver type {type(config).__name__}")
        return LimitedChannel(channel, config)

    def missing_credentials(self, config: RoutingConfig) -> Sequence[str]:
        """Return a sentence for each credential that a configuration names and that does not exist."""
        return self._credentials.missing(
            name
            for receiver in config.receivers.values()
            for _, entry in receiver.configured
            for name in entry.credential_names()
        )
