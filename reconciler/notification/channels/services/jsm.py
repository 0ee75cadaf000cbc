"""The Jira Service Management channel: alerts of its operations, which were Opsgenie's.

Atlassian no longer sells Opsgenie and turns it off in April 2027. Its alert API lives on here, with the same fields and
the same ``GenieKey``; Opsgenie itself works with `url` set to ``https://api.opsgenie.com/v2/alerts``.
"""

from __future__ import annotations

from typing import Literal
from urllib.parse import quote

import msgspec.json
from pydantic import BaseModel, ConfigDict, Field, model_validator

from reconciler._core.wire import JSONObject
from reconciler.notification.channels.http_channel import ConnectionConfig, OutgoingRequest, WebURL
from reconciler.notification.credentials import Credentials
from reconciler.notification.message import Message
from reconciler.notification.redaction.text import shortened, visible, visible_line

__all__ = ["JSMConfig", "Responder", "jsm_alert"]

MESSAGE_LIMIT = 130
DESCRIPTION_LIMIT = 15_000
DETAILS_LIMIT = 8_000
TAG_LIMIT = 50
TAGS = 20
"""Limits of an alert in characters, and of its tags in number: Opsgenie's documentation, "Alerts and alert fields"."""

_PRIORITIES = {"Critical": "P1", "High": "P2", "Medium": "P3", "Low": "P5"}
_ACTIONS = {"Acknowledge": "acknowledge", "Resolve": "close"}


class Responder(BaseModel):
    """A responder of an alert."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["team", "user", "escalation", "schedule"]
    """The kind of the responder."""

    id: str | None = None
    """Identifier of the responder; Jira Service Management needs it."""

    name: str | None = None
    """Name of the responder; Opsgenie accepts it instead of an identifier."""

    @model_validator(mode="after")
    def _check_name(self) -> Responder:
        if (self.id is None) == (self.name is None):
            raise ValueError("set exactly one of id and name")
        return self


class JSMConfig(ConnectionConfig):
    """The options of a Jira Service Management receiver."""

    api_key_credential: str
    """Name of the credential that holds the API key of the integration."""

    url: WebURL = "https://api.atlassian.com/jsm/ops/integration/v2/alerts"
    """The URL of the alerts."""

    responders: list[Responder] = Field(default_factory=list)
    """Who is notified: ``[{type: team, id: …}]``. Default: as the integration says."""

    tags: list[str] = Field(default_factory=list, max_length=TAGS)
    """Tags of the alerts."""

    def outgoing(self, message: Message, credentials: Credentials) -> OutgoingRequest:
        """Return the request that creates, acknowledges or closes the alert of a message.

        Raises:
            RetryableDeliveryError: the credential does not exist.
        """
        headers = {"Authorization": f"GenieKey {credentials.get(self.api_key_credential)}"}
        action = _ACTIONS.get(message.action)
        if action is not None:
            url = f"{self.url.rstrip('/')}/{quote(message.incident_key, safe='')}/{action}?identifierType=alias"
            document: JSONObject = {"source": "kube-reconciler", "note": shortened(visible_line(message.subject), 500)}
        else:
            url = self.url
            document = {
                **jsm_alert(message),
                "tags": [shortened(tag, TAG_LIMIT) for tag in self.tags],
                "responders": [responder.model_dump(exclude_none=True) for responder in self.responders],
            }
        return OutgoingRequest(url, msgspec.json.encode(document), headers)


def jsm_alert(message: Message) -> JSONObject:
    """Return the alert for a message, within the service's limits.

    The key of the incident is ``alias``, so repeated attempts count in the same alert.
    """
    return {
        "message": shortened(visible_line(message.subject), MESSAGE_LIMIT),
        "alias": message.incident_key,
        "description": shortened(visible(message.body), DESCRIPTION_LIMIT),
        "priority": _PRIORITIES.get(message.priority, "P3"),
        "entity": f"{message.namespace}/{message.name}",
        "source": "kube-reconciler",
        "details": _details(message),
    }


def _details(message: Message) -> dict[str, str]:
    links = {f"link: {link.label}": link.url for link in message.links}
    details: dict[str, str] = {}
    left = DETAILS_LIMIT
    for name, value in {"type": message.type, **message.extensions, **links}.items():
        left -= len(name) + len(value)
        if left < 0:
            break
        details[visible_line(name)] = visible_line(value)
    return details
