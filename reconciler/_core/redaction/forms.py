"""Redaction of secrets with a known form: private keys, tokens, authentication schemes, and URLs."""

from __future__ import annotations

import re

from reconciler._core.redaction.hints import PLACEHOLDER, Hints, backslashes_before

_KEY_BEGIN = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
KEY_HINTS = Hints("-----BEGIN")
_KEY_END = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|[\"'`]")


def redact_private_keys(text: str) -> str:
    """Replace PEM private keys; an unterminated one is replaced to the end of its quotation, or of the text."""
    out: list[str] = []
    done = 0
    while begin := _KEY_BEGIN.search(text, done):
        end = _KEY_END.search(text, begin.end())
        stop = len(text) if end is None else end.end()
        if end is not None and end.group() in "\"'`":
            stop = end.start() - backslashes_before(text, end.start(), begin.end())
        out += [text[done : begin.start()], PLACEHOLDER]
        done = stop
    return "".join([*out, text[done:]])


_LOGIN = re.compile(r"(\blogin\s++\S++\s++password\s++)\S++", re.IGNORECASE)
_SCHEME = re.compile(r"(?:\b|(?<=\\[nrt]))(bearer|basic|negotiate|token|apikey)([ \t]{1,8}|%20|\+)", re.IGNORECASE)
SCHEME_HINTS = Hints("bearer", "basic", "negotiate", "token", "apikey")
LOGIN_HINTS = Hints("login")
_CREDENTIALS = re.compile(r"[A-Za-z0-9+/._~=-]{6,}+")


def redact_logins(text: str) -> str:
    """Replace the passwords of a ``.netrc``."""
    return _LOGIN.sub(rf"\1{PLACEHOLDER}", text) if LOGIN_HINTS.is_in(text) else text


def redact_schemes(text: str) -> str:
    """Replace the credentials after the name of an authentication scheme, unless they are an ordinary word."""
    out: list[str] = []
    done = position = 0
    for hint in SCHEME_HINTS.starts(text):
        found = _SCHEME.match(text, hint) if hint >= position else None
        if found is None:
            continue
        position = found.end()
        value = _CREDENTIALS.match(text, position)
        if value is None:
            continue
        if _is_credentials(found[1].lower(), value.group().rstrip(".")):
            out += [text[done:position], PLACEHOLDER]
            done = value.end()
        position = value.end()
    return "".join([*out, text[done:]])


def _is_credentials(scheme: str, value: str) -> bool:
    has_digit = any(sign.isdigit() for sign in value)
    if scheme in ("token", "apikey"):
        return len(value) >= 16 and has_digit
    return has_digit or len(value) >= 20 or any(sign.isupper() for sign in value[1:]) or "=" in value


_COLON = r"(?::|%(?:25)*+3[aA])"
_SLASH = r"(?:\\{0,16}/|%(?:25)*+2[fF])"
_AUTHORITY = re.compile(rf"(?P<scheme>{_COLON})?(?:{_SLASH}){{2}}")
URL_HINTS = Hints("//", "/\\", "%2f", "252f")
DATABASE_HINTS = Hints("@(", "@tcp", "@udp", "@unix")
_AROUND = 40
"""Maximum characters of the two slashes, which may be encoded, before and after a hint."""
_BEFORE = ":\\%0123456789aAfF"
"""The characters before a hint that may belong to it."""

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
_DATABASE_LOGIN = re.compile(r"(?<![^\s\"'=])(\w{1,64}:)[^\s@\"']{1,256}+(?=@(?:tcp|tcp6|unix|udp)?\()")


class _Ahead:
    """The position of a pattern's next match, searched only once for all positions before it."""

    def __init__(self, pattern: re.Pattern[str], text: str) -> None:
        self._pattern = pattern
        self._text = text
        self._from = self._found = 0

    def find(self, position: int) -> int:
        """Find the first match at or after a position, else the length of the text. Positions must not decrease."""
        if position > self._found or self._from == self._found == 0:
            found = self._pattern.search(self._text, position)
            self._found = found.start() if found else len(self._text)
        self._from = position
        return self._found


_USER = re.compile(r"[A-Za-z_-]{1,32}+")
"""A user's name, such as ``git``, and no token."""

_SPACE = re.compile(r"[\s\"'<>`]")


def redact_urls(text: str) -> str:
    """Replace passwords and lone tokens before the ``@`` of a URL, and the secret paths of incoming webhooks."""
    out: list[str] = []
    done = position = 0
    ends, ats, spaces = _Ahead(_AUTHORITY_END, text), _Ahead(_AT, text), _Ahead(_SPACE, text)
    for hint in URL_HINTS.starts(text):
        if hint < position:
            continue
        before = text[max(position, hint - _AROUND) : hint]
        start = hint - len(before) + len(before.rstrip(_BEFORE))
        found = (_AUTHORITY.search if start < hint else _AUTHORITY.match)(text, start, hint + _AROUND)
        if found is None:
            continue
        begin = position = found.end()
        end = ends.find(begin)
        at = _last_at(text, begin, end)
        if at < 0 and _COLON_SIGN.search(text, begin, min(end, begin + 256)) and not _has_port(text, begin, end):
            # A slash in a password ends the authority too early.
            at = ats.find(end)
            at = at if at < spaces.find(end) else -1
        if at >= 0:
            colon = _COLON_SIGN.search(text, begin, at)
            if colon is not None or (found["scheme"] and not _USER.fullmatch(text, begin, at)):
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
    text = "".join([*out, text[done:]])
    return _DATABASE_LOGIN.sub(rf"\1{PLACEHOLDER}", text) if DATABASE_HINTS.is_in(text) else text


def _last_at(text: str, begin: int, end: int) -> int:
    at = text.rfind("@", begin, end)
    return at if at >= 0 else next((found.start() for found in _AT.finditer(text, begin, end)), -1)


_PORT = re.compile(rf"(?:\[[^\]\s]{{0,64}}\]|[^:%\s]*+){_COLON}\d*\Z")


def _has_port(text: str, begin: int, end: int) -> bool:
    return end - begin > 300 or _PORT.match(text[begin:end]) is not None
