"""Deliver to Slack by an incoming webhook."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec.json
from pydantic import Field

from reconciler.notification.channels.http import HTTPSender
from reconciler.notification.channels.mrkdwn import chunks, escape, markdown_parser, mrkdwn
from reconciler.notification.channels.webhook import HTTPConfig
from reconciler.notification.credentials import Credentials
from reconciler.notification.message import Message
from reconciler.notification.redaction.characters import one_line, visible

__all__ = ["SlackChannel", "SlackConfig", "slack_payload"]

HEADER_LIMIT = 150
SECTION_LIMIT = 3_000
SECTIONS = 10
"""Slack's limits for a header and a section, and how many sections a message gets; it takes 50 blocks in all."""

BODY_LIMIT = SECTIONS * SECTION_LIMIT
"""Characters of a body that are converted: no more are shown."""

FALLBACK_LIMIT = 300
"""Characters of the text that is shown where blocks are not, such as in the pop-up on a phone."""

_EMOJI = {"Critical": "🚨", "High": "⚠️", "Medium": "ℹ️", "Low": "💬"}  # noqa: RUF001 - the sign is meant


class SlackConfig(HTTPConfig):
    """Say how an incoming webhook of Slack is called; its address is a secret, so give `url_credential`."""

    rate_per_minute: float | None = Field(default=60.0, gt=0)
    """Slack takes one message a second for each webhook."""


class SlackChannel:
    """Post messages as blocks: a header, the body as mrkdwn, links as buttons, and what it is about.

    Args:
        name: the channel's name.
        config: the webhook.
        credentials: looked up at each request.

    Raises:
        MissingExtra: markdown-it-py is not installed.
    """

    def __init__(self, name: str, config: SlackConfig, credentials: Credentials) -> None:
        markdown_parser()
        self.name = name
        self._config = config
        self._credentials = credentials
        self._sender = HTTPSender(config.options())

    async def deliver(self, message: Message) -> None:
        """Post the message. Cancellation closes the connection; what was sent stays sent.

        Raises:
            DeliveryError: by what Slack answers; see `HTTPSender.send`.
        """
        body = msgspec.json.encode(await asyncio.to_thread(slack_payload, message))
        headers = {"Content-Type": "application/json; charset=utf-8", "User-Agent": "kube-reconciler"}
        await self._sender.send(message, self._config.address(self._credentials), body, headers)

    async def close(self) -> None:
        """Close the connections. Cancellation leaves them to the loop."""
        await self._sender.close()


def slack_payload(message: Message) -> dict[str, Any]:
    """Return what is posted for a message, within Slack's limits whatever the message is."""
    subject = visible(" ".join(message.subject.split()))
    body = message.body if len(message.body) <= BODY_LIMIT else f"{message.body[:BODY_LIMIT]} …"
    header = _shortened(f"{_EMOJI.get(message.priority, '📢')} {subject}", HEADER_LIMIT)
    blocks: list[dict[str, Any]] = [{"type": "header", "text": {"type": "plain_text", "text": header, "emoji": True}}]
    if len(header) < len(subject):
        blocks.append(_section(f"*{escape(subject)}*"))
    blocks += [_section(part) for part in chunks(mrkdwn(body), SECTION_LIMIT, most=SECTIONS)]
    if message.links:
        buttons = [
            {
                "type": "button",
                "text": {"type": "plain_text", "text": _shortened(visible(one_line(link.label)), 75)},
                "url": visible(link.url),
                "action_id": f"link-{number}",
            }
            for number, link in enumerate(message.links)
        ]
        blocks.append({"type": "actions", "elements": buttons})
    about = f"{message.priority} | {message.type} | {message.namespace}/{message.name}"
    blocks.append({"type": "context", "elements": [{"type": "mrkdwn", "text": escape(about)}]})
    return {"text": escape(_shortened(f"[{message.priority}] {subject}", FALLBACK_LIMIT)), "blocks": blocks}


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


def _shortened(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
