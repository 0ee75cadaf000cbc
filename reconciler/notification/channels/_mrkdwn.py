"""Turn Markdown into Slack's own mark-up, which differs in every detail."""

from __future__ import annotations

import re

__all__ = ["chunks", "escape", "mrkdwn"]

_FENCE = re.compile(r"```[^\n`]*\n?(.*?)```", re.DOTALL)
_CODE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"!?\[([^\]\n]*)\]\((https?://[^\s)<>|]+)(?:\s+\"[^\"\n]*\")?\)")
_BOLD = re.compile(r"(\*\*|__)(?=\S)(.+?)(?<=\S)\1")
_STRIKE = re.compile(r"~~(?=\S)(.+?)(?<=\S)~~")
_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)
_BLANK = re.compile(r"\n{3,}")
_PLACE = re.compile("\x00(\\d+)\x00")


def escape(text: str) -> str:
    """Return a text in which nothing is a mention, a channel or a link: ``<!here>`` stays a text."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def mrkdwn(text: str) -> str:
    """Return Markdown as Slack shows it: code is kept, links, bold, strike-through and headings are rewritten."""
    kept: list[str] = []

    def keep(made: str) -> str:
        kept.append(made)
        return f"\x00{len(kept) - 1}\x00"

    text = text.replace("\x00", "")
    text = _FENCE.sub(lambda each: keep(f"```{escape(each[1])}```") if each[1].strip() else "", text)
    text = text.replace("```", "`\u200b`\u200b`")  # a fence that nothing closes would swallow the rest
    text = _CODE.sub(lambda each: keep(f"`{escape(each[1])}`"), text)
    text = _LINK.sub(lambda each: keep(f"<{escape(each[2])}|{escape(each[1] or each[2]).replace('|', '/')}>"), text)
    text = re.sub(r"^&gt;", ">", escape(text), flags=re.MULTILINE)  # quotations are written alike in both
    text = _HEADING.sub(lambda each: f"**{each[1].strip('*_ ')}**", text)
    text = _BOLD.sub(r"*\2*", text)
    text = _STRIKE.sub(r"~\1~", text)
    text = _BLANK.sub("\n\n", text)
    while _PLACE.search(text):
        text = _PLACE.sub(lambda each: kept[int(each[1])], text)
    return text.strip()


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
