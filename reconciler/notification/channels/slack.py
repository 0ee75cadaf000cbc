"""The Slack channel: messages to an incoming webhook, with Markdown converted to Slack's mrkdwn.

Markdown is parsed by markdown-it with a limit on nesting, so that the cost is linear in the length of the text.
"""

from __future__ import annotations

import asyncio
import functools
import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec.json
from pydantic import Field

from reconciler._core.wire import JSONObject
from reconciler.errors import importing
from reconciler.notification.channel import Message, footer
from reconciler.notification.channels.http import HTTPChannel, HTTPConfig, OutgoingRequest
from reconciler.notification.credentials import Credentials
from reconciler.notification.redaction import shortened, visible, visible_line

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

HEADER_LIMIT = 150
SECTION_LIMIT = 3_000
SECTIONS = 10
"""Slack's limits for a header and a section, and the maximum sections of a message; Slack accepts 50 blocks in all."""

BODY_LIMIT = SECTIONS * SECTION_LIMIT
"""Maximum characters of a body that are converted; the rest is dropped."""

FALLBACK_LIMIT = 300
"""Maximum characters of the text that is shown instead of blocks, such as in push notifications."""

_EMOJI = {"Critical": "🚨", "High": "⚠️", "Medium": "ℹ️", "Low": "💬"}  # noqa: RUF001 - the sign is meant

NESTING_LIMIT = 20
"""Maximum nesting of quotations and lists, and of brackets. A body with deeper quotations or lists is not converted."""

_RULES = [
    *("fence", "heading", "blockquote", "list"),
    *("backticks", "emphasis", "strikethrough", "link", "image", "autolink", "escape", "newline"),
]
_MARKS = {"strong_open": "*", "strong_close": "*", "em_open": "_", "em_close": "_", "s_open": "~", "s_close": "~"}


class SlackConfig(HTTPConfig):
    """The options of a Slack receiver. The URL of an incoming webhook is a secret, so set `url_credential`."""

    rate_per_minute: float | None = Field(default=60.0, gt=0)
    """Maximum messages a minute; Slack accepts one message a second for each webhook."""

    def build(self, name: str, credentials: Credentials) -> HTTPChannel:
        """Build a channel of this name.

        Raises:
            MissingExtra: markdown-it-py is not installed.
        """
        markdown_parser()
        return super().build(name, credentials)

    async def outgoing(self, message: Message, credentials: Credentials) -> OutgoingRequest:
        """Return the request with the blocks of a message: a header, the body as mrkdwn, buttons, and a context line.

        The conversion runs in a thread, also after cancellation.
        """
        body = msgspec.json.encode(await asyncio.to_thread(slack_payload, message))
        headers = {"Content-Type": "application/json; charset=utf-8"}
        return OutgoingRequest(self.current_url(credentials), body, headers)


def slack_payload(message: Message) -> JSONObject:
    """Return the payload for a message. It is within Slack's limits for any message."""
    subject = visible(" ".join(message.subject.split()))
    body = message.body if len(message.body) <= BODY_LIMIT else f"{message.body[:BODY_LIMIT]} …"
    header = shortened(f"{_EMOJI.get(message.priority, '📢')} {subject}", HEADER_LIMIT)
    blocks: list[JSONObject] = [{"type": "header", "text": {"type": "plain_text", "text": header, "emoji": True}}]
    if len(header) < len(subject):
        blocks.append(_section(f"*{escape(subject)}*"))
    blocks += [_section(part) for part in chunks(mrkdwn(body), SECTION_LIMIT, most=SECTIONS)]
    if message.links:
        buttons = [
            {
                "type": "button",
                "text": {"type": "plain_text", "text": shortened(visible_line(link.label), 75)},
                "url": visible(link.url),
                "action_id": f"link-{number}",
            }
            for number, link in enumerate(message.links)
        ]
        blocks.append({"type": "actions", "elements": buttons})
    blocks.append({"type": "context", "elements": [{"type": "mrkdwn", "text": escape(footer(message))}]})
    return {"text": escape(shortened(f"[{message.priority}] {subject}", FALLBACK_LIMIT)), "blocks": blocks}


def _section(text: str) -> JSONObject:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


# Markdown


@functools.cache
def markdown_parser() -> MarkdownIt:
    """Return the Markdown parser.

    Raises:
        MissingExtra: markdown-it-py is not installed.
    """
    with importing(extra="notification", purpose="Slack"):
        from markdown_it import MarkdownIt
    return MarkdownIt("zero", {"maxNesting": NESTING_LIMIT}).enable(_RULES)


def escape(text: str) -> str:
    """Return the text escaped so that Slack finds no mention, channel or link in it, such as ``<!here>``.

    Code fences are escaped as well, because an unclosed one would swallow the rest of the message.
    """
    return html.escape(visible(text), quote=False).replace("```", "`\u200b`\u200b`")


def mrkdwn(text: str) -> str:
    """Return Markdown converted to mrkdwn: code is kept; links, bold, strikethrough and headings are rewritten."""
    tokens = markdown_parser().parse(visible(text))
    if any(token.level >= NESTING_LIMIT - 1 for token in tokens):  # the parser drops deeper levels
        return escape(text).strip()
    return _SlackRenderer().render(tokens)


class _SlackRenderer:
    """The rendering of one text: a stack of open containers, each with its blocks so far."""

    def __init__(self) -> None:
        self._blocks: list[list[str]] = [[]]
        self._numbers: list[int | None] = []
        self._is_heading = False

    def render(self, tokens: Sequence[Token]) -> str:
        for token in tokens:
            self._token(token)
        return "\n\n".join(self._blocks[0]).strip()

    def _token(self, token: Token) -> None:
        match token.type:
            case "inline":
                text = _plain(token.children or ()) if self._is_heading else _inline(token.children or ())
                self._add(f"*{text}*" if self._is_heading and text else text)
            case "heading_open" | "heading_close":
                self._is_heading = token.type == "heading_open"
            case "fence":
                if token.content.strip():
                    code = escape(token.content.removesuffix("\n"))
                    self._add(f"```{code}```")
            case "bullet_list_open" | "ordered_list_open":
                start = token.attrGet("start")
                self._numbers.append(int(1 if start is None else start) if token.type == "ordered_list_open" else None)
                self._blocks.append([])
            case "blockquote_open" | "list_item_open":
                self._blocks.append([])
            case "blockquote_close":
                inner = "\n\n".join(self._blocks.pop())
                self._add("\n".join(f"> {line}" for line in inner.split("\n")))
            case "list_item_close":
                inner = "\n".join(self._blocks.pop()).replace("\n", "\n    ")
                self._add(f"{self._marker()} {inner}")
            case "bullet_list_close" | "ordered_list_close":
                self._numbers.pop()
                self._add("\n".join(self._blocks.pop()))

    def _add(self, block: str) -> None:
        self._blocks[-1].append(block)

    def _marker(self) -> str:
        number = self._numbers[-1]
        if number is None:
            return "•"
        self._numbers[-1] = number + 1
        return f"{number}."


def _inline(tokens: Sequence[Token]) -> str:
    out: list[str] = []
    position = 0
    while position < len(tokens):
        token = tokens[position]
        position += 1
        match token.type:
            case "text" | "text_special":
                out.append(escape(token.content))
            case "code_inline":
                out.append(f"`{escape(token.content).replace('`', chr(39))}`")
            case "softbreak" | "hardbreak":
                out.append("\n")
            case "image":
                out.append(_link(str(token.attrGet("src") or ""), _plain(token.children or ())))
            case "link_open":
                end = next(place for place in range(position, len(tokens)) if tokens[place].type == "link_close")
                out.append(_link(str(token.attrGet("href") or ""), _plain(tokens[position:end])))
                position = end + 1
            case mark:
                out.append(_MARKS.get(mark, ""))
    return "".join(out)


def _link(address: str, label: str) -> str:
    if not address.startswith(("http://", "https://", "mailto:")):
        return f"{label} ({escape(address)})" if address else label
    address = escape(address).replace("|", "%7C")
    return f"<{address}|{label.replace('|', '/') or address}>"


def _plain(tokens: Sequence[Token]) -> str:
    """Return the text of tokens without markup, for labels and headings, where Slack supports none."""
    parts = (" " if token.type in ("softbreak", "hardbreak") else token.content for token in tokens)
    return escape("".join(parts)).strip()


def chunks(text: str, size: int, *, most: int) -> list[str]:
    """Return the text split into at most `most` parts of at most `size` characters.

    It is split at line ends, at words or, if necessary, anywhere. If text is dropped, the last part ends with ``…``.
    """
    parts: list[str] = []
    while text:
        if len(text) <= size:
            parts.append(text)
            break
        if len(parts) == most - 1:
            parts.append(_cut(text, size - 2).rstrip() + " …")
            break
        part = _cut(text, size)
        parts.append(part.rstrip("\n"))
        text = text[len(part) :].lstrip("\n")
    return parts


def _cut(text: str, size: int) -> str:
    head = text[:size]
    for end in ("\n", " "):
        position = head.rfind(end)
        if position > size // 2:
            return head[:position]
    # Not inside an escape such as &amp;, which would then be visible.
    position = head.rfind("&", size - 6)
    return head[:position] if position > 0 and ";" not in head[position:] else head
