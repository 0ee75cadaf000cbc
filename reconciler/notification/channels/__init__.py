"""Deliver messages: one module a medium. What a channel is stands in `reconciler.notification.channel`.

``console``, ``log`` and ``file`` serve as they are. ``webhook``, ``slack`` and ``email`` are made from the receivers of
a routing configuration, each inside its receiver's limits (`_guarded`): a rate, a number at a time, a circuit breaker.
"""

from reconciler.notification.channels.email import EmailChannel, EmailConfig
from reconciler.notification.channels.limits import BreakerState, CircuitBreaker, Gate, GuardedChannel, GuardedConfig
from reconciler.notification.channels.local import ConsoleChannel, FileChannel, LogChannel
from reconciler.notification.channels.receivers import RECEIVER_KINDS, ReceiverChannels
from reconciler.notification.channels.slack import SlackChannel, SlackConfig
from reconciler.notification.channels.webhook import WebhookChannel, WebhookConfig
from reconciler.notification.message import message_document

__all__ = [
    "RECEIVER_KINDS",
    "BreakerState",
    "CircuitBreaker",
    "ConsoleChannel",
    "EmailChannel",
    "EmailConfig",
    "FileChannel",
    "Gate",
    "GuardedChannel",
    "GuardedConfig",
    "LogChannel",
    "ReceiverChannels",
    "SlackChannel",
    "SlackConfig",
    "WebhookChannel",
    "WebhookConfig",
    "message_document",
]
