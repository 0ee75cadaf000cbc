"""The Mattermost channel: a message to an incoming webhook."""

from __future__ import annotations

import msgspec.json
from pydantic import Field

from reconciler._core.wire import JSONObject
from reconciler.notification.channels.http_channel import HTTPConfig, OutgoingRequest
from reconciler.notification.credentials import Credentials
from reconciler.notification.message import Message, footer
from reconciler.notification.redaction.text import one_line, shortened, visible, visible_line

__all__ = ["MattermostConfig", "mattermost_post"]

TEXT_LIMIT = 16_383
"""Maximum characters of a post: Mattermost's documentation, "Incoming webhooks"."""

PRIORITIES = {"Critical": "urgent", "High": "important"}


class MattermostConfig(HTTPConfig):
    """The options of a Mattermost receiver. The URL of a webhook is a secret, so set `url_credential`."""

    channel: str | None = Field(default=None, min_length=1)
    """Channel to post to, if the webhook is not locked to one. Default: the webhook's."""

    def outgoing(self, message: Message, credentials: Credentials) -> OutgoingRequest:
        """Return the request with the post of a message."""
        document = mattermost_post(message)
        if self.channel is not None:
            document["channel"] = self.channel
        return OutgoingRequest(self.current_url(credentials), msgspec.json.encode(document))


def mattermost_post(message: Message) -> JSONObject:
    """Return the post for a message. Mattermost shows it as Markdown; mentions in it notify nobody."""
    links = " | ".join(f"[{visible_line(link.label)}]({visible(link.url)})" for link in message.links)
    links = links if len(links) <= TEXT_LIMIT // 2 else ""
    foot = f"_{_unmentioned(footer(message))}_"
    head = f"#### {_unmentioned(one_line(message.subject))}\n"
    tail = f"\n{links}\n{foot}" if links else f"\n{foot}"
    body = shortened(_unmentioned(message.body), TEXT_LIMIT - len(head) - len(tail))
    post: JSONObject = {"text": head + body + tail, "username": "notifications"}
    if message.priority in PRIORITIES and message.action == "Trigger":
        post["priority"] = {"priority": PRIORITIES[message.priority]}
    return post


def _unmentioned(text: str) -> str:
    """Return the text with a zero-width space after each ``@``, so that it mentions nobody."""
    return visible(text).replace("@", "@\u200b")
