"""The PagerDuty channel: events of the Events API v2, which trigger, acknowledge and resolve an incident by its key."""

from __future__ import annotations

import re
from typing import Literal

from reconciler._core.wire import JSONObject
from reconciler.notification.channels.http_channel import ConnectionConfig, OutgoingRequest, WebURL, encoded
from reconciler.notification.credentials import Credentials
from reconciler.notification.errors import PermanentDeliveryError
from reconciler.notification.message import Message
from reconciler.notification.redaction.text import shortened, visible, visible_line

__all__ = ["PagerDutyConfig", "pagerduty_event"]

SIZE_LIMIT = 512_000
"""Maximum bytes of an event. This and the next limit: PagerDuty's developer documentation, "Events API v2"."""

SUMMARY_LIMIT = 1_024

_SEVERITIES = {"Critical": "critical", "High": "error", "Medium": "warning", "Low": "info"}
_ROUTING_KEY = re.compile(r"[A-Za-z0-9]{32}")


class PagerDutyConfig(ConnectionConfig):
    """The options of a PagerDuty receiver."""

    routing_key_credential: str
    """Name of the credential that holds the integration key of a service or an event orchestration."""

    url: WebURL = "https://events.pagerduty.com/v2/enqueue"
    """The URL of the Events API."""

    severity: Literal["critical", "error", "warning", "info"] | None = None
    """Severity of all events. Default: by priority, Critical is critical, High error, Medium warning, Low info."""

    def outgoing(self, message: Message, credentials: Credentials) -> OutgoingRequest:
        """Return the request with the event of a message.

        Raises:
            RetryableDeliveryError: the credential does not exist.
            PermanentDeliveryError: the credential is not an integration key.
        """
        key = credentials.get(self.routing_key_credential)
        if not _ROUTING_KEY.fullmatch(key):
            raise PermanentDeliveryError(
                f"credential {self.routing_key_credential!r} is not an integration key, which has 32 letters and digits"
            )

        def event(shown: Message) -> JSONObject:
            return {"routing_key": key, **pagerduty_event(shown, severity=self.severity)}

        return OutgoingRequest(self.url, encoded(message, event, SIZE_LIMIT))


def pagerduty_event(message: Message, *, severity: str | None = None) -> JSONObject:
    """Return the event for a message, without the integration key.

    The key of the incident is ``dedup_key``, so repeated attempts add to the same alert.
    """
    event: JSONObject = {"event_action": message.action.lower(), "dedup_key": message.incident_key}
    if message.action != "Trigger":
        return event
    details: JSONObject = {
        "body": visible(message.body),
        "notification": message.name,
        "namespace": message.namespace,
        "priority": message.priority,
    }
    if message.extensions:
        details["extensions"] = {visible(name): visible(value) for name, value in message.extensions.items()}
    return {
        **event,
        "client": "kube-reconciler",
        "payload": {
            "summary": shortened(visible_line(message.subject), SUMMARY_LIMIT),
            "source": f"{message.namespace}/{message.name}",
            "severity": severity or _SEVERITIES.get(message.priority, "warning"),
            "component": message.namespace,
            "class": message.type,
            "custom_details": details,
        },
        "links": [{"href": visible(link.url), "text": visible_line(link.label)} for link in message.links],
    }
