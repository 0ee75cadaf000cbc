"""The channels of this library. `reconciler.notification.channel` defines the `Channel` protocol.

``console``, ``log`` and ``file`` need no configuration. The others are created from the receivers of a routing
configuration, each with its receiver's limits (`LimitedChannel`).
"""

from reconciler.notification.channel import message_document
from reconciler.notification.channels.email import EmailChannel, EmailConfig
from reconciler.notification.channels.http import WebhookChannel, WebhookConfig
from reconciler.notification.channels.limits import (
    BreakerState,
    CircuitBreaker,
    LimitedChannel,
    Limiter,
    LimitsConfig,
    Pacer,
)
from reconciler.notification.channels.local import ConsoleChannel, FileChannel, LogChannel
from reconciler.notification.channels.receivers import RECEIVER_KINDS, ReceiverChannels
from reconciler.notification.channels.slack import SlackChannel, SlackConfig

__all__ = [
    "RECEIVER_KINDS",
    "BreakerState",
    "CircuitBreaker",
    "ConsoleChannel",
    "EmailChannel",
    "EmailConfig",
    "FileChannel",
    "LimitedChannel",
    "Limiter",
    "LimitsConfig",
    "LogChannel",
    "Pacer",
    "ReceiverChannels",
    "SlackChannel",
    "SlackConfig",
    "WebhookChannel",
    "WebhookConfig",
    "message_document",
]
