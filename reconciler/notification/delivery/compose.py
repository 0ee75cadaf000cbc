"""What the channels are given of a request."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reconciler.notification.api.resource import NotificationRequest
from reconciler.notification.api.status import ChannelStatus
from reconciler.notification.message import Link, Message
from reconciler.notification.redaction.redactor import Redactor

__all__ = ["compose"]


def compose(obj: NotificationRequest, channels: Sequence[ChannelStatus], redactor: Redactor) -> list[Message]:
    """Return the messages for the next attempts on these channels; every text that a person wrote is redacted, once.

    Recipients are those that the request names for the channel's kind: ``slack`` for ``slack:oncall``.
    """
    clean, spec = redactor.redact, obj.spec
    shared: dict[str, Any] = {
        "name": obj.name,
        "namespace": obj.namespace or "",
        "uid": obj.uid,
        "type": spec.type,
        "priority": spec.priority,
        "subject": clean(spec.subject),
        "body": clean(spec.body),
        "extensions": {
            clean(key): redactor.redact_member(key, value) for key, value in (spec.extensions or {}).items()
        },
        "links": tuple(
            Link(service=clean(link.service), url=clean(link.url), label=clean(link.label))
            for link in spec.action_links or ()
        ),
    }
    return [
        Message(
            **shared,
            channel=channel.name,
            attempt=channel.attempts + 1,
            recipients=tuple((spec.recipients or {}).get(channel.name.partition(":")[0], ())),
        )
        for channel in channels
    ]
