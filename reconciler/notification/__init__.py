"""Deliver notifications: an operator for NotificationRequest, built on the rest of this library.

A request names channels, and is delivered over each of them once. What fails is tried again by the request's policy.
The guarantees:

* A channel that has delivered is not called again by this process, and by another one only when this one died between
  the call and the write of its result.
* Waits are stored in the status, in the API server's time, and checked first: no event, restart, foreign write or wrong
  clock brings an attempt forward.
* Real calls on a channel are at most ``maxAttempts``, plus one for each such death; under ``Bounded`` and
  ``AtMostOnce`` never more, and under the latter none is repeated whose outcome is not known.
* One status write a cycle, two where attempts are counted before their calls. The phase is terminal with the last
  attempt, and then never changes.
* Nothing that a channel raises harms another channel, and no secret that has the form of one reaches the status.

Read on: `_resource` (the kind), `_schedule` (all decisions, as pure functions), `_delivery` (the calls), `_reconciler`.
"""

from reconciler.notification.api.types import (
    ActionLink,
    ChannelStatus,
    DeliveryAttempt,
    NotificationRequest,
    NotificationRequestSpec,
    NotificationRequestStatus,
    RetryPolicy,
)
from reconciler.notification.channel import Channel, ChannelRegistry, installed_channels
from reconciler.notification.channels import ConsoleChannel, FileChannel, LogChannel
from reconciler.notification.credentials import Credentials
from reconciler.notification.errors import (
    DeferredDeliveryError,
    DeliveryError,
    PermanentDeliveryError,
    RetryableDeliveryError,
    UnknownDeliveryError,
)
from reconciler.notification.message import Link, Message
from reconciler.notification.observe.audit import AuditLog
from reconciler.notification.observe.metrics import NotificationMetrics
from reconciler.notification.observe.outbox import NotificationStatistics, Observer, StatusChange
from reconciler.notification.operator import NotificationOperator, NotificationOptions
from reconciler.notification.reconciler import NotificationReconciler
from reconciler.notification.redaction.redactor import RedactingFilter, Redactor
from reconciler.notification.routing.router import Resolution, Router, attributes_of

__all__ = [
    "ActionLink",
    "AuditLog",
    "Channel",
    "ChannelRegistry",
    "ChannelStatus",
    "ConsoleChannel",
    "Credentials",
    "DeferredDeliveryError",
    "DeliveryAttempt",
    "DeliveryError",
    "FileChannel",
    "Link",
    "LogChannel",
    "Message",
    "NotificationMetrics",
    "NotificationOperator",
    "NotificationOptions",
    "NotificationReconciler",
    "NotificationRequest",
    "NotificationRequestSpec",
    "NotificationRequestStatus",
    "NotificationStatistics",
    "Observer",
    "PermanentDeliveryError",
    "RedactingFilter",
    "Redactor",
    "Resolution",
    "RetryPolicy",
    "RetryableDeliveryError",
    "Router",
    "StatusChange",
    "UnknownDeliveryError",
    "attributes_of",
    "installed_channels",
]
