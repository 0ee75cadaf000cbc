"""Make of a request what one channel is given."""

from __future__ import annotations

from reconciler.notification._message import Link, Message
from reconciler.notification._redaction import Redactor
from reconciler.notification._resource import NotificationRequest
from reconciler.notification._status import ChannelStatus

__all__ = ["compose"]


def compose(obj: NotificationRequest, channel: ChannelStatus, redactor: Redactor) -> Message:
    """Return the message for the next attempt on a channel; every text that a person wrote is redacted.

    Recipients are those that the request names for the channel's kind: ``slack`` for ``slack:oncall``.
    """
    clean, spec = redactor.redact, obj.spec
    return Message(
        name=obj.name,
        namespace=obj.namespace or "",
        uid=obj.uid,
        type=spec.type,
        priority=spec.priority,
        subject=clean(spec.subject),
        body=clean(spec.body),
        channel=channel.name,
        attempt=channel.attempts + 1,
        recipients=tuple((spec.recipients or {}).get(channel.name.partition(":")[0], ())),
        extensions={key: clean(value) for key, value in (spec.extensions or {}).items()},
        links=tuple(
            Link(service=link.service, url=clean(link.url), label=clean(link.label)) for link in spec.action_links or ()
        ),
    )
