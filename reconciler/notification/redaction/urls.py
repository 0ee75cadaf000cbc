"""Redaction of URLs: logins, lone tokens, and the paths of incoming webhooks."""

from __future__ import annotations

import re

from reconciler.notification.redaction.marks import PLACEHOLDER

__all__ = ["redact_urls"]

_COLON = r"(?::|%(?:25)*+3[aA])"
_SLASH = r"(?:\\{0,16}/|%(?:25)*+2[fF])"
_AUTHORITY = re.compile(rf"(?P<scheme>{_COLON})?(?:{_SLASH}){{2}}")
_AUTHORITY_END = re.compile(r"[\s/?#\"'<>\\`]|%(?:25)*+(?:2[fF3]|3[fF])")
_AT = re.compile(r"@|%(?:25)*+40")
_COLON_SIGN = re.compile(_COLON)
_WEBHOOK_PATH = re.compile(
    r"(?:\\{0,16}/[\w.~-]{1,64}){0,2}?\\{0,16}/"
    r"(?:services|workflows|triggers|api/webhooks|webhook[a-z0-9]{0,8}|hooks?|integrations?|with/key)\\{0,16}/"
    r"|\\{0,16}/bot(?=\d{5})",
    re.IGNORECASE,
)
_PATH = re.compile(r"[^\s\"'<>`\\]++(?:\\{1,16}(?=/)[^\s\"'<>`\\]++)*+")
_DATABASE_LOGIN = re.compile(r"(?<![^\s\"'=])(\w{1,64}:)[^\s@\"']{1,256}(?=@(?:tcp|tcp6|unix|udp)?\()")


class _Ahead:
    """The next place at which a pattern matches, found once for all positions before it."""

    def __init__(self, pattern: re.Pattern[str], text: str) -> None:
        self._pattern = pattern
        self._text = text
        self._from = self._found = 0

    def find(self, position: int) -> int:
        """Return the first match at or behind a position, the text's length if there is none.

        Positions must not go backwards.
        """
        if position > self._found or self._from == self._found == 0:
            found = self._pattern.search(self._text, position)
            self._found = found.start() if found else len(self._text)
        self._from = position
        return self._found


_SPACE = re.compile(r"[\s\"'<>`]")


def redact_urls(text: str) -> str:
    """Replace passwords and lone tokens before the ``@`` of a URL, and the secret paths of incoming webhooks."""
    out: list[str] = []
    done = position = 0
    ends, ats, spaces = _Ahead(_AUTHORITY_END, text), _Ahead(_AT, text), _Ahead(_SPACE, text)
    while found := _AUTHORITY.search(text, position):
        begin = position = found.end()
        end = ends.find(begin)
        at = _last_at(text, begin, end)
        if at < 0 and _COLON_SIGN.search(text, begin, min(end, begin + 256)) and not _has_port(text, begin, end):
            # A slash in a password ends the authority too early.
            at = ats.find(end)
            at = at if at < spaces.find(end) else -1
        if at >= 0:
            colon = _COLON_SIGN.search(text, begin, at)
            if colon is not None or found["scheme"]:
                secret = colon.end() if colon is not None else begin
                if secret < at:
                    out += [text[done:secret], PLACEHOLDER]
                    done = at
            position = at
            end = ends.find(at)
        path = _WEBHOOK_PATH.match(text, end) if found["scheme"] else None
        rest = _PATH.match(text, path.end()) if path is not None else None
        if path is not None and rest is not None:
            out += [text[done : path.end()], PLACEHOLDER]
            done = position = rest.end()
    return _DATABASE_LOGIN.sub(rf"\1{PLACEHOLDER}", "".join([*out, text[done:]]))


def _last_at(text: str, begin: int, end: int) -> int:
    at = text.rfind("@", begin, end)
    return at if at >= 0 else next((found.start() for found in _AT.finditer(text, begin, end)), -1)


_PORT = re.compile(rf"(?:\[[^\]\s]{{0,64}}\]|[^:%\s]*+){_COLON}\d*\Z")


def _has_port(text: str, begin: int, end: int) -> bool:
    return end - begin > 300 or _PORT.match(text[begin:end]) is not None
