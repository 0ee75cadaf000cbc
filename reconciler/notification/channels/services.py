"""The kinds of receivers of a routing configuration, and those that take one HTTP request for each message.

A service is a configuration, which returns the request.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal
from urllib.parse import quote

import msgspec.json
from pydantic import BaseModel, ConfigDict, Field, model_validator

from reconciler._core.wire import JSONObject
from reconciler.notification.channel import Channel, Message, PermanentDeliveryError, footer, message_document
from reconciler.notification.channels.apprise import AppriseConfig
from reconciler.notification.channels.email import EmailConfig
from reconciler.notification.channels.http import (
    ConnectionConfig,
    HTTPConfig,
    OutgoingRequest,
    WebhookConfig,
    WebURL,
    encoded,
)
from reconciler.notification.channels.limits import LimitedChannel, NamespacedChannel
from reconciler.notification.channels.slack import SlackConfig
from reconciler.notification.credentials import Credentials
from reconciler.notification.redaction import one_line, shortened, visible, visible_line
from reconciler.notification.routing_config import ReceiverConfig, RoutingConfig

DISCORD_TITLE = 256
DISCORD_DESCRIPTION = 4_096
DISCORD_TOTAL = 6_000
"""Limits of an embed in UTF-16 code units: Discord's documentation, "Embed limits"."""

_DISCORD_COLOURS = {"Critical": 0xD32F2F, "High": 0xF57C00, "Medium": 0x1976D2, "Low": 0x757575}
_RESOLVED = 0x388E3C


class DiscordConfig(HTTPConfig):
    """The options of a Discord receiver. The URL of a webhook is a secret, so set `url_credential`."""

    rate_per_minute: float | None = Field(default=30.0, gt=0)
    """Maximum messages a minute. Discord names no fixed limit; 30 is what a channel's webhooks allow today. Its
    responses 429 are honored as well."""

    async def outgoing(self, message: Message, credentials: Credentials) -> OutgoingRequest:
        """Return the request with the embed of a message. No mention in it notifies anybody."""
        document = {"embeds": [discord_embed(message)], "allowed_mentions": {"parse": []}}
        return OutgoingRequest(self.current_url(credentials), msgspec.json.encode(document))


def discord_embed(message: Message) -> JSONObject:
    """Return the embed for a message, within Discord's limits. Discord shows the body as Markdown."""
    title = _cut(visible_line(message.subject), DISCORD_TITLE)
    links = "\n".join(f"[{_label(link.label)}]({visible(link.url)})" for link in message.links[:5])
    room = min(DISCORD_DESCRIPTION, DISCORD_TOTAL - DISCORD_TITLE - len(footer(message)))
    links = links if _units(links) <= room // 2 else ""
    body = _cut(visible(message.body), room - _units(links) - 2)
    return {
        "title": title,
        "description": f"{body}\n\n{links}" if links else body,
        "color": _RESOLVED
        if message.action == "Resolve"
        else _DISCORD_COLOURS.get(message.priority, _DISCORD_COLOURS["Medium"]),
        "footer": {"text": footer(message)},
    }


def _label(label: str) -> str:
    return visible_line(label).replace("[", "(").replace("]", ")")


def _units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def _cut(text: str, limit: int) -> str:
    """Return the text with at most `limit` UTF-16 code units."""
    if _units(text) <= limit:
        return text
    return text.encode("utf-16-le")[: 2 * (limit - 1)].decode("utf-16-le", "ignore") + "…"


MATTERMOST_TEXT = 16_383
"""Maximum characters of a post: Mattermost's documentation, "Incoming webhooks"."""

_MATTERMOST_PRIORITIES = {"Critical": "urgent", "High": "important"}


class MattermostConfig(HTTPConfig):
    """The options of a Mattermost receiver. The URL of a webhook is a secret, so set `url_credential`."""

    channel: str | None = Field(default=None, min_length=1)
    """Channel to post to, if the webhook is not locked to one. Default: the webhook's."""

    async def outgoing(self, message: Message, credentials: Credentials) -> OutgoingRequest:
        """Return the request with the post of a message."""
        document = mattermost_post(message)
        if self.channel is not None:
            document["channel"] = self.channel
        return OutgoingRequest(self.current_url(credentials), msgspec.json.encode(document))


def mattermost_post(message: Message) -> JSONObject:
    """Return the post for a message. Mattermost shows it as Markdown; mentions in it notify nobody."""
    links = " | ".join(f"[{visible_line(link.label)}]({visible(link.url)})" for link in message.links)
    links = links if len(links) <= MATTERMOST_TEXT // 2 else ""
    foot = f"_{_unmentioned(footer(message))}_"
    head = f"#### {_unmentioned(one_line(message.subject))}\n"
    tail = f"\n{links}\n{foot}" if links else f"\n{foot}"
    body = shortened(_unmentioned(message.body), MATTERMOST_TEXT - len(head) - len(tail))
    post: JSONObject = {"text": head + body + tail, "username": "notifications"}
    if message.priority in _MATTERMOST_PRIORITIES and message.action == "Trigger":
        post["priority"] = {"priority": _MATTERMOST_PRIORITIES[message.priority]}
    return post


def _unmentioned(text: str) -> str:
    """Return the text with a zero-width space after each ``@``, so that it mentions nobody."""
    return visible(text).replace("@", "@\u200b")


TEAMS_LIMIT = 28_000
"""Maximum bytes of a message: Teams accepts 28 KB (Microsoft Learn, "Format cards", and "Limits of webhooks")."""

ACTIONS = 6
"""Maximum buttons: Teams shows six actions of a card."""

_TEAMS_COLOURS = {"Critical": "attention", "High": "warning", "Medium": "accent", "Low": "default"}


class TeamsConfig(HTTPConfig):
    """The options of a Teams receiver. The URL of a workflow is a secret, so set `url_credential`."""

    rate_per_minute: float | None = Field(default=100.0, gt=0)
    """Maximum messages a minute; the Teams connector of Power Automate accepts 100 calls in 60 seconds."""

    async def outgoing(self, message: Message, credentials: Credentials) -> OutgoingRequest:
        """Return the request with the card of a message."""
        return OutgoingRequest(self.current_url(credentials), encoded(message, teams_card, TEAMS_LIMIT))


def teams_card(message: Message) -> JSONObject:
    """Return the Adaptive Card for a message, in the envelope of workflows. Teams shows the body as Markdown."""
    subject = visible_line(message.subject)
    facts = [("Priority", message.priority), ("Type", message.type), ("Request", f"{message.namespace}/{message.name}")]
    if message.action != "Trigger":
        facts.append(("Incident", f"{message.incident_key} ({message.action})"))
    colour = "good" if message.action == "Resolve" else _TEAMS_COLOURS.get(message.priority, "default")
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


PAGERDUTY_LIMIT = 512_000
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

    async def outgoing(self, message: Message, credentials: Credentials) -> OutgoingRequest:
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

        return OutgoingRequest(self.url, encoded(message, event, PAGERDUTY_LIMIT))


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


CLOUDEVENTS_LIMIT = 65_536
"""Maximum bytes of an event: every consumer should accept 64 KiB (CloudEvents 1.0.2, "Size limits")."""

_VISIBLE_ASCII = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')


class CloudEventsConfig(HTTPConfig):
    """The options of a receiver of CloudEvents."""

    mode: Literal["structured", "binary"] = "structured"
    """``structured`` puts the attributes into the body, ``binary`` into headers."""

    type: str = Field(default="dev.reconciler.notification", min_length=1)
    """Beginning of the event's type; ``.Escalation`` or another type of request follows."""

    max_bytes: int = Field(default=CLOUDEVENTS_LIMIT, ge=4_096)
    """Maximum bytes of a body; the end of a longer message is dropped."""

    async def outgoing(self, message: Message, credentials: Credentials) -> OutgoingRequest:
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


JSM_MESSAGE = 130
JSM_DESCRIPTION = 15_000
JSM_DETAILS = 8_000
JSM_TAG = 50
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

    async def outgoing(self, message: Message, credentials: Credentials) -> OutgoingRequest:
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
                "tags": [shortened(tag, JSM_TAG) for tag in self.tags],
                "responders": [responder.model_dump(exclude_none=True) for responder in self.responders],
            }
        return OutgoingRequest(url, msgspec.json.encode(document), headers)


def jsm_alert(message: Message) -> JSONObject:
    """Return the alert for a message, within the service's limits.

    The key of the incident is ``alias``, so repeated attempts count in the same alert.
    """
    return {
        "message": shortened(visible_line(message.subject), JSM_MESSAGE),
        "alias": message.incident_key,
        "description": shortened(visible(message.body), JSM_DESCRIPTION),
        "priority": _PRIORITIES.get(message.priority, "P3"),
        "entity": f"{message.namespace}/{message.name}",
        "source": "kube-reconciler",
        "details": _details(message),
    }


def _details(message: Message) -> dict[str, str]:
    links = {f"link: {link.label}": link.url for link in message.links}
    details: dict[str, str] = {}
    left = JSM_DETAILS
    for name, value in {"type": message.type, **message.extensions, **links}.items():
        left -= len(name) + len(value)
        if left < 0:
            break
        details[visible_line(name)] = visible_line(value)
    return details


RECEIVER_KINDS: Mapping[str, type[ReceiverConfig]] = {
    "webhook": WebhookConfig,
    "slack": SlackConfig,
    "email": EmailConfig,
    "teams": TeamsConfig,
    "pagerduty": PagerDutyConfig,
    "jsm": JSMConfig,
    "discord": DiscordConfig,
    "mattermost": MattermostConfig,
    "cloudevents": CloudEventsConfig,
    "apprise": AppriseConfig,
}
"""The models of ``webhook_configs``, ``slack_configs`` and so on. A model builds its own channel."""


def build_channel(name: str, config: ReceiverConfig, credentials: Credentials) -> Channel:
    """Build the channel of a receiver's entry, with the limits of its receiver.

    Raises:
        ConfigurationError: the channel cannot be created.
        MissingExtra: a library that the channel needs is not installed.
    """
    if config.credentials_of == "operator":
        return LimitedChannel(config.build(name, credentials), config)
    config.build(name, credentials)  # reports a missing library or a wrong template now
    return NamespacedChannel(
        name, lambda namespace: LimitedChannel(config.build(name, credentials.of_namespace(namespace)), config)
    )


def missing_credentials(config: RoutingConfig, credentials: Credentials) -> Sequence[str]:
    """Return a sentence for each credential of the operator that a configuration names and that does not exist."""
    entries = [entry for receiver in config.receivers.values() for _, entry in receiver.configured]
    own = [entry for entry in entries if entry.credentials_of == "operator"]
    return credentials.missing(name for entry in own for name in entry.credential_names())
