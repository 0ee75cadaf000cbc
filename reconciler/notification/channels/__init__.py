"""Deliver messages: one module a medium. What a channel is stands in `reconciler.notification.channel`.

``console``, ``log`` and ``file`` serve as they are. ``webhook``, ``slack`` and ``email`` are made from the receivers of
a routing configuration, each inside its receiver's limits (`_guarded`): a rate, a number at a time, a circuit breaker.
"""

from reconciler.notification.channels.breaker import BreakerState, CircuitBreaker
from reconciler.notification.channels.configured import RECEIVER_KINDS, ReceiverChannels
from reconciler.notification.channels.console import ConsoleChannel
from reconciler.notification.channels.document import message_document
from reconciler.notification.channels.email import EmailChannel, EmailConfig
from reconciler.notification.channels.file import FileChannel
from reconciler.notification.channels.gate import Gate
from reconciler.notification.channels.guarded import GuardedChannel, GuardedConfig
from reconciler.notification.channels.log import LogChannel
from reconciler.notification.channels.slack import SlackChannel, SlackConfig
from reconciler.notification.channels.webhook import WebhookChannel, WebhookConfig

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
