"""The CloudEvents channel: one event over HTTP for each message, in structured or binary mode.

CloudEvents 1.0.2 and its HTTP protocol binding. Consumers recognize a repeated event by ``source`` and ``id``, which
are the same for all attempts.
"""

from __future__ import annotations

from typing import Literal
from urllib.parse import quote

from pydantic import Field

from reconciler._core.wire import JSONObject
from reconciler.notification.channels.http_channel import HTTPConfig, OutgoingRequest, encoded
from reconciler.notification.credentials import Credentials
from reconciler.notification.message import Message, message_document

__all__ = ["CloudEventsConfig"]

SIZE_LIMIT = 65_536
"""Maximum bytes of an event: every consumer should accept 64 KiB (CloudEvents 1.0.2, "Size limits")."""

_VISIBLE_ASCII = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')


class CloudEventsConfig(HTTPConfig):
    """The options of a receiver of CloudEvents."""

    mode: Literal["structured", "binary"] = "structured"
    """``structured`` puts the attributes into the body, ``binary`` into headers."""

    type: str = Field(default="dev.reconciler.notification", min_length=1)
    """Beginning of the event's type; ``.Escalation`` or another type of request follows."""

    max_bytes: int = Field(default=SIZE_LIMIT, ge=4_096)
    """Maximum bytes of a body; the end of a longer message is dropped."""

    def outgoing(self, message: Message, credentials: Credentials) -> OutgoingRequest:
        """Return the request with the event of a message."""
        attributes = {
            "specversion": "1.0",
            "id": message.idempotency_key,
            "source": f"/apis/notify.reconciler.dev/namespaces/{message.namespace}",
            "type": f"{self.type}.{message.type}",
            "subject": message.name,
        }
        url = self.current_url(credentials)
        if self.mode == "binary":
            headers = {f"ce-{name}": quote(value, safe=_VISIBLE_ASCII) for name, value in attributes.items()}
            return OutgoingRequest(url, encoded(message, message_document, self.max_bytes), headers)

        def event(shown: Message) -> JSONObject:
            return {**attributes, "datacontenttype": "application/json", "data": message_document(shown)}

        headers = {"Content-Type": "application/cloudevents+json"}
        return OutgoingRequest(url, encoded(message, event, self.max_bytes), headers)
