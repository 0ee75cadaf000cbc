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

from reconciler.notification._audit import AuditLog
from reconciler.notification._channel import Channel, ChannelRegistry, installed_channels
from reconciler.notification._credentials import Credentials
from reconciler.notification._errors import (
    DeferredDeliveryError,
    DeliveryError,
    PermanentDeliveryError,
    RetryableDeliveryError,
    UnknownDeliveryError,
)
from reconciler.notification._message import Link, Message
from reconciler.notification._metrics import NotificationMetrics
from reconciler.notification._operator import NotificationOperator, NotificationOptions
from reconciler.notification._reconciler import NotificationReconciler
from reconciler.notification._recorded import Observer, Recorded
from reconciler.notification._redaction import RedactingFilter, Redactor
from reconciler.notification._resolution import Resolution, Router, attributes_of
from reconciler.notification._resource import NotificationRequest
from reconciler.notification._spec import ActionLink, NotificationRequestSpec, RetryPolicy
from reconciler.notification._statistics import NotificationStatistics
from reconciler.notification._status import ChannelStatus, DeliveryAttempt, NotificationRequestStatus
from reconciler.notification.channels import ConsoleChannel, FileChannel, LogChannel

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
    "Recorded",
    "RedactingFilter",
    "Redactor",
    "Resolution",
    "RetryPolicy",
    "RetryableDeliveryError",
    "Router",
    "UnknownDeliveryError",
    "attributes_of",
    "installed_channels",
]
