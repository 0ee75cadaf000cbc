"""Conversion of Markdown into Slack's own mark-up, which differs in every detail.

Markdown is parsed by markdown-it, whose cost is linear in the text with a limit on nesting.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from reconciler.errors import MissingExtra
from reconciler.notification.redaction.characters import visible

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

__all__ = ["chunks", "escape", "markdown_parser", "mrkdwn"]

NESTING_LIMIT = 20
"""Most levels of quotations and lists, and of brackets. A text with more quotations and lists is shown as it is."""

_RULES = [
    *("fence", "heading", "blockquote", "list"),
    *("backticks", "emphasis", "strikethrough", "link", "image", "autolink", "escape", "newline"),
]
_MARKS = {"strong_open": "*", "strong_close": "*", "em_open": "_", "em_close": "_", "s_open": "~", "s_close": "~"}


@functools.cache
def markdown_parser() -> MarkdownIt:
    """Return the parser.

    Raises:
        MissingExtra: markdown-it-py is not installed.
    """
    try:
        from markdown_it import MarkdownIt
    except ImportError:
        raise MissingExtra("markdown_it", extra="notification", purpose="Slack") from None
    return MarkdownIt("zero", {"maxNesting": NESTING_LIMIT}).enable(_RULES)


def escape(text: str) -> str:
    """Return a text in which nothing is a mention, a channel or a link: ``<!here>`` stays a text.

    A fence stays a text as well; it would swallow the rest if nothing closes it.
    """
    text = visible(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace("```", "`\u200b`\u200b`")


def mrkdwn(text: str) -> str:
    """Return Markdown as Slack shows it: code is kept, links, bold, strike-through and headings are rewritten."""
    tokens = markdown_parser().parse(visible(text))
    if any(token.level >= NESTING_LIMIT - 1 for token in tokens):  # the parser drops what is nested deeper
        return escape(text).strip()
    return _Renderer().render(tokens)


class _Renderer:
    """The rendering of one text: the open containers from the outside, each with the blocks that it has so far."""

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
    """Return the text of tokens without marks, for labels and headings, where Slack shows none."""
    parts = (" " if token.type in ("softbreak", "hardbreak") else token.content for token in tokens)
    return escape("".join(parts)).strip()


def chunks(text: str, size: int, *, most: int) -> list[str]:
    """Split a text at line ends, words or, if nothing else helps, anywhere; what exceeds the last one is cut.

    Args:
        text: what to split.
        size: most characters of a part.
        most: most parts; the last ends with ``…`` when something was cut.
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
    # Not inside of an escape such as &amp;, which would show its letters.
    position = head.rfind("&", size - 6)
    return head[:position] if position > 0 and ";" not in head[position:] else head
