"""The Microsoft Teams channel: Adaptive Cards to a workflow that starts when a webhook request is received."""

from __future__ import annotations

from pydantic import Field

from reconciler._core.wire import JSONObject
from reconciler.notification.channels.http_channel import HTTPConfig, OutgoingRequest, encoded
from reconciler.notification.credentials import Credentials
from reconciler.notification.message import Message
from reconciler.notification.redaction.text import shortened, visible, visible_line

__all__ = ["TeamsConfig", "teams_card"]

SIZE_LIMIT = 28_000
"""Maximum bytes of a message: Teams accepts 28 KB (Microsoft Learn, "Format cards", and "Limits of webhooks")."""

ACTIONS = 6
"""Maximum buttons: Teams shows six actions of a card."""

_COLOURS = {"Critical": "attention", "High": "warning", "Medium": "accent", "Low": "default"}


class TeamsConfig(HTTPConfig):
    """The options of a Teams receiver. The URL of a workflow is a secret, so set `url_credential`."""

    rate_per_minute: float | None = Field(default=100.0, gt=0)
    """Maximum messages a minute; the Teams connector of Power Automate accepts 100 calls in 60 seconds."""

    def outgoing(self, message: Message, credentials: Credentials) -> OutgoingRequest:
        """Return the request with the card of a message."""
        return OutgoingRequest(self.current_url(credentials), encoded(message, teams_card, SIZE_LIMIT))


def teams_card(message: Message) -> JSONObject:
    """Return the Adaptive Card for a message, in the envelope of workflows. Teams shows the body as Markdown."""
    subject = visible_line(message.subject)
    facts = [("Priority", message.priority), ("Type", message.type), ("Request", f"{message.namespace}/{message.name}")]
    if message.action != "Trigger":
        facts.append(("Incident", f"{message.incident_key} ({message.action})"))
    colour = "good" if message.action == "Resolve" else _COLOURS.get(message.priority, "default")
    card: JSONObject = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "msteams": {"width": "Full"},
        "body": [
            {"type": "TextBlock", "text": subject, "size": "Large", "weight": "Bolder", "wrap": True, "color": colour},
            {"type": "TextBlock", "text": visible(message.body), "wrap": True},
            {"type": "FactSet", "facts": [{"title": title, "value": value} for title, value in facts]},
        ],
    }
    if message.links:
        card["actions"] = [
            {"type": "Action.OpenUrl", "title": shortened(visible_line(link.label), 75), "url": visible(link.url)}
            for link in message.links[:ACTIONS]
        ]
    content = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
    return {"type": "message", "attachments": [content]}
