"""An operator that delivers notifications, which are written as NotificationRequest objects.

A request is delivered over each of its channels once. Failed deliveries are retried by the request's policy.
Guarantees:

* A channel that has delivered is not called again by this process. Another process calls it again only if this one died
  between the call and the write of its result.
* Waits are stored in the status, in the API server's time, and checked first: no watch event, restart, write by someone
  else or wrong clock makes an attempt early.
* There are at most ``maxAttempts`` calls on a channel, plus one for each such death. Under ``Bounded`` and
  ``AtMostOnce`` there are never more, and under the latter a call whose outcome is unknown is never repeated.
* A reconcile makes one status write; two where attempts are written ahead of their calls. The phase becomes terminal
  with the last attempt, and then never changes.
* Exceptions of one channel do not affect other channels, and text that looks like a secret never reaches the status.

Reading order: `reconciler` (a reconcile from top to bottom), `schedule` (all decisions, as pure functions),
`fair_queue` (who delivers next), `api` (the kind).
"""

from reconciler.notification.api import ChannelPolicy, NotificationRequest, NotificationRequestSpec, RetryPolicy
from reconciler.notification.audit import AuditLog
from reconciler.notification.channel import (
    Channel,
    DeferredDeliveryError,
    DeliveryError,
    Message,
    PermanentDeliveryError,
    RetryableDeliveryError,
    UnknownDeliveryError,
)
from reconciler.notification.channels.local import ConsoleChannel, FileChannel, LogChannel
from reconciler.notification.credentials import Credentials
from reconciler.notification.observers import NotificationMetrics
from reconciler.notification.operator import NotificationOperator, NotificationOptions
from reconciler.notification.reconciler import NotificationReconciler
from reconciler.notification.redaction import Redactor

__all__ = [
    "AuditLog",
    "Channel",
    "ChannelPolicy",
    "ConsoleChannel",
    "Credentials",
    "DeferredDeliveryError",
    "DeliveryError",
    "FileChannel",
    "LogChannel",
    "Message",
    "NotificationMetrics",
    "NotificationOperator",
    "NotificationOptions",
    "NotificationReconciler",
    "NotificationRequest",
    "NotificationRequestSpec",
    "PermanentDeliveryError",
    "Redactor",
    "RetryPolicy",
    "RetryableDeliveryError",
    "UnknownDeliveryError",
]
