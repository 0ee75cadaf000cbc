"""The Discord channel: an embed to a channel webhook."""

from __future__ import annotations

import msgspec.json
from pydantic import Field

from reconciler._core.wire import JSONObject
from reconciler.notification.channels.http_channel import HTTPConfig, OutgoingRequest
from reconciler.notification.credentials import Credentials
from reconciler.notification.message import Message, footer
from reconciler.notification.redaction.text import visible, visible_line

__all__ = ["DiscordConfig", "discord_embed"]

TITLE_LIMIT = 256
DESCRIPTION_LIMIT = 4_096
TOTAL_LIMIT = 6_000
"""Limits of an embed in UTF-16 code units: Discord's documentation, "Embed limits"."""

_COLOURS = {"Critical": 0xD32F2F, "High": 0xF57C00, "Medium": 0x1976D2, "Low": 0x757575}
_RESOLVED = 0x388E3C


class DiscordConfig(HTTPConfig):
    """The options of a Discord receiver. The URL of a webhook is a secret, so set `url_credential`."""

    rate_per_minute: float | None = Field(default=30.0, gt=0)
    """Maximum messages a minute. Discord names no fixed limit; 30 is what a channel's webhooks allow today. Its
    responses 429 are honored as well."""

    def outgoing(self, message: Message, credentials: Credentials) -> OutgoingRequest:
        """Return the request with the embed of a message. No mention in it notifies anybody."""
        document = {"embeds": [discord_embed(message)], "allowed_mentions": {"parse": []}}
        return OutgoingRequest(self.current_url(credentials), msgspec.json.encode(document))


def discord_embed(message: Message) -> JSONObject:
    """Return the embed for a message, within Discord's limits. Discord shows the body as Markdown."""
    title = _cut(visible_line(message.subject), TITLE_LIMIT)
    links = "\n".join(f"[{_label(link.label)}]({visible(link.url)})" for link in message.links[:5])
    room = min(DESCRIPTION_LIMIT, TOTAL_LIMIT - TITLE_LIMIT - len(footer(message)))
    links = links if _units(links) <= room // 2 else ""
    body = _cut(visible(message.body), room - _units(links) - 2)
    return {
        "title": title,
        "description": f"{body}\n\n{links}" if links else body,
        "color": _RESOLVED if message.action == "Resolve" else _COLOURS.get(message.priority, _COLOURS["Medium"]),
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
