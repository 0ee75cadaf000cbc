"""Redaction of secrets with a known form: private keys, tokens, authentication schemes, and URLs.

Each function is called if its hints are in the text, and gets their places.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from reconciler._core.redaction.names import BLANK, PLACEHOLDER, Hints, backslashes_before

_KEY_BEGIN = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_KEY_END = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|[\"'`]")


def redact_private_keys(text: str, _hints: Sequence[int]) -> str:
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
_SCHEME = re.compile(
    rf"(?:\b|(?<=\\[nrt]))(bearer|basic|negotiate|token|apikey)({BLANK}{{1,40}}|%20|\+)", re.IGNORECASE
)
_CREDENTIALS = re.compile(r"[A-Za-z0-9+/._~=-]{6,}+")


def redact_logins(text: str, _hints: Sequence[int]) -> str:
    """Replace the passwords of a ``.netrc``."""
    return _LOGIN.sub(rf"\1{PLACEHOLDER}", text)


def redact_schemes(text: str, hints: Sequence[int]) -> str:
    """Replace the credentials after the name of an authentication scheme, unless they are an ordinary word."""
    out: list[str] = []
    done = position = 0
    for hint in hints:
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


def redact_urls(text: str, hints: Sequence[int]) -> str:
    """Replace passwords and lone tokens before the ``@`` of a URL, and the secret paths of incoming webhooks."""
    out: list[str] = []
    done = position = 0
    ends, ats, spaces = _Ahead(_AUTHORITY_END, text), _Ahead(_AT, text), _Ahead(_SPACE, text)
    for hint in hints:
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
    return "".join([*out, text[done:]])


def redact_database_logins(text: str, _hints: Sequence[int]) -> str:
    """Replace the passwords of database addresses, such as ``user:password@tcp(host)``."""
    return _DATABASE_LOGIN.sub(rf"\1{PLACEHOLDER}", text)


def _last_at(text: str, begin: int, end: int) -> int:
    at = text.rfind("@", begin, end)
    return at if at >= 0 else next((found.start() for found in _AT.finditer(text, begin, end)), -1)


_PORT = re.compile(rf"(?:\[[^\]\s]{{0,64}}\]|[^:%\s]*+){_COLON}\d*\Z")


def _has_port(text: str, begin: int, end: int) -> bool:
    return end - begin > 300 or _PORT.match(text[begin:end]) is not None


_FORMS: tuple[tuple[str, str], ...] = (
    # The beginnings and the rest. Prefixes and alphabets are those that the services document.
    ("ghp_ gho_ ghu_ ghs_ ghr_ github_pat_", r"[A-Za-z0-9_-]{16,}"),
    ("glpat- glptt- gldt- glrt- glcbt- glsoat- glft- glimt- glagent- glffct- gloas-", r"[A-Za-z0-9_.-]{16,}"),
    ("xoxa- xoxb- xoxc- xoxd- xoxe- xoxo- xoxp- xoxr- xoxs- xapp- xoxe.xox", r"[A-Za-z0-9_%-]{16,}"),  # Slack
    ("sk- pk- rk-", r"(?:(?:live|test|ant|proj|or|svcacct)[-_])?[A-Za-z0-9_-]{16,}"),  # Stripe, OpenAI, Anthropic
    ("sk.eyJ", r"[A-Za-z0-9_.-]{16,}"),  # Mapbox
    ("gsk_ xai- pplx- r8_ hf_ nvapi- tgp_v1_ csk- fw_ jina_ lsv2_pt_ lsv2_sk_ phc_ phx_", r"[A-Za-z0-9_-]{16,}"),
    ("AKIA ASIA ABIA ACCA AROA AIDA", r"[A-Z0-9]{16}(?![A-Za-z0-9])"),  # AWS
    ("ABSK bedrock-api-key-", r"[A-Za-z0-9+/=]{40,}"),  # Amazon Bedrock
    ("LTAI", r"[A-Za-z0-9]{12,30}(?![A-Za-z0-9])"),  # Alibaba
    ("AKID", r"[A-Za-z0-9]{32}(?![A-Za-z0-9])"),  # Tencent
    ("YC", r"[A-Za-z0-9_-]{38}(?![A-Za-z0-9_-])"),  # Yandex
    ("AQVN t1.", r"[A-Za-z0-9_.=-]{30,}"),  # Yandex
    ("ocid1.", r"[a-z0-9.]{60,}"),  # Oracle
    ("AIza", r"[A-Za-z0-9_-]{30,}"),  # Google
    ("ya29. GOCSPX-", r"[A-Za-z0-9_.-]{16,}"),
    ("npm_ pypi- rubygems_ dckr_pat_ dckr_oat_", r"[A-Za-z0-9_-]{16,}"),
    ("whsec_ sq0atp- sq0csp- sq0idp- EAAA", r"[A-Za-z0-9_+/=-]{16,}"),  # Stripe, Square
    ("shpat_ shpca_ shppa_ shpss_", r"[A-Za-z0-9_-]{16,}"),  # Shopify
    ("SG.", r"[A-Za-z0-9_.-]{20,}"),  # SendGrid
    ("key- xkeysib-", r"[0-9a-f]{32}[A-Za-z0-9-]*"),  # Mailgun, Brevo
    ("SK AK", r"[0-9a-f]{32}(?![A-Za-z0-9])"),  # Twilio
    ("hvs. hvb. hvr. s.", r"[A-Za-z0-9_.-]{24,}"),  # Vault
    ("sha256~", r"[A-Za-z0-9_-]{40,}"),  # OpenShift
    ("dt0c01. dt0s01. dt0s16.", r"[A-Z0-9]{24}\\.[A-Z0-9]{64}"),  # Dynatrace
    ("dnkey- endr+ tk-us- CLOJARS_ API-", r"[A-Za-z0-9_=-]{24,}"),  # Defined, Endor, Scalingo, Clojars, Octopus
    ("EZAK EZTK", r"[A-Za-z0-9]{54}(?![A-Za-z0-9])"),  # EasyPost
    ("FLWSECK_TEST- FLWSECK-", r"[A-Za-z0-9-]{12,}"),  # Flutterwave
    ("fio-u- rdme_ ico- tfp_ sm_aat_ sm_pat_ sm_sat_ p8e- patx_", r"[A-Za-z0-9_=-]{16,}"),
    ("duffel_live_ duffel_test_ shippo_live_ shippo_test_ rzp_live_ rzp_test_", r"[A-Za-z0-9_=-]{12,}"),
    ("access-sandbox- access-development- access-production-", r"[0-9a-f-]{36}"),  # Plaid
    ("A3-", r"[A-Z0-9]{6}-[A-Z0-9-]{20,}"),  # 1Password
    ("GR1348941 4b1d", r"[A-Za-z0-9_-]{20,}"),  # GitLab runner, ClickHouse
    ("v1.0-", r"[0-9a-f]{24}-[0-9a-f]{100,}"),  # Cloudflare
    ("secret_ ntn_", r"[A-Za-z0-9]{40,}"),  # Notion
    ("cio- eu01xx NRRA- NRRA_ api_org_ sgp_ slk_ sk_prod_ pcsk_ r_ cfut_ cfat_", r"[A-Za-z0-9_-]{28,}"),
    ("AGE-SECRET-KEY-1", r"[A-Z0-9]{16,}"),
    ("doo_v1_ dop_v1_ dor_v1_ dp.pt. dp.st. dp.ct. dp.scim. dp.audit.", r"[A-Za-z0-9_.+/=-]{16,}"),
    ("fo1_ fm1_ fm2_ dapi", r"[A-Za-z0-9_.+/=-]{16,}"),
    ("NRAK- NRII- NRJS- PMAK- HRKU- CFPAT-", r"[A-Za-z0-9_-]{16,}"),
    ("glsa_ glc_ sntrys_ sntryu_ lin_api_ lin_oauth_ figd_ ntn_ nfp_", r"[A-Za-z0-9_.+/=-]{16,}"),
    ("ATATT3 ATCTT3 ATBB", r"[A-Za-z0-9_=-]{16,}"),  # Atlassian
    ("pat", r"[A-Za-z0-9]{14}\.[0-9a-f]{32,}"),  # Airtable
    ("sbp_ sbs_ sb_secret_", r"[A-Za-z0-9_-]{16,}"),  # Supabase
    ("pul- tskey- pscale_tkn_ pscale_pw_ pscale_oauth_ pnu_ bkua_ CCIPAT_ AKCp", r"[A-Za-z0-9_.-]{16,}"),
    ("sl.", r"[A-Za-z0-9_-]{60,}"),  # Dropbox
    ("eyJ ops_eyJ", r"[A-Za-z0-9_-]{12,}(?:\.[A-Za-z0-9_-]*+)*+"),  # JWT, 1Password
    ("LS0tLS1CRUdJTiB", r"[QSFPE][A-Za-z0-9+/=_-]{16,}"),  # a private key in base64
)

_INNER: dict[str, tuple[range, str]] = {
    # A part of the token, how many characters are before it, and the whole token.
    "Q~": (range(4, 5), r"[A-Za-z0-9_~.-]{3}[0-9]Q~[A-Za-z0-9_~.-]{31,34}"),  # Azure
    ".a": (range(14, 15), r"[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_-]{60,70}"),  # Terraform
    "-u": (range(32, 33), r"[0-9a-f]{32}-us[0-9]{1,2}(?![A-Za-z0-9])"),  # Mailchimp
    ":A": (range(8, 11), r"[0-9]{8,10}:AA[A-Za-z0-9_-]{30,}"),  # Telegram
    ".G": (
        range(23, 30),
        r"[MNO][A-Za-z0-9_-]{22,28}\.G[A-Za-z0-9_-]{5}\.[A-Za-z0-9_-]{27,38}(?![A-Za-z0-9_-])",
    ),  # Discord
}


def _spelled(prefixes: str) -> Iterator[str]:
    """Yield each prefix. Some tools write ``_`` for ``-`` at its end, and the other way round."""
    for prefix in prefixes.split():
        yield from {prefix[:-1] + "-", prefix[:-1] + "_"} if prefix[-1] in "-_" else {prefix}


_TOKEN_HINTS = Hints(
    *(prefix for prefixes, _ in _FORMS for prefix in _spelled(prefixes)),
    *("Q~", ".atlasv1.", "-us", ":AA", ".G"),
)
_START = r"(?:(?<![A-Za-z0-9])|(?<=\\[nrt])|(?<=%[0-9a-fA-F]{2}))"
_TOKENS = re.compile(
    f"{_START}(?:" + "|".join(f"(?:{'|'.join(map(re.escape, _spelled(hints)))}){rest}" for hints, rest in _FORMS) + ")"
)
_INNER_TOKENS = {part: (before, re.compile(_START + form)) for part, (before, form) in _INNER.items()}


def redact_tokens(text: str, hints: Sequence[int]) -> str:
    """Replace tokens with a known form."""
    out: list[str] = []
    done = 0
    for hint in hints:
        if hint < done:
            continue
        found = _TOKENS.match(text, hint) or _inner(text, hint, done)
        if found is not None:
            out += [text[done : found.start()], PLACEHOLDER]
            done = found.end()
    return "".join([*out, text[done:]])


def _inner(text: str, hint: int, after: int) -> re.Match[str] | None:
    before, pattern = _INNER_TOKENS.get(text[hint : hint + 2], _NONE)
    tried = (pattern.match(text, hint - count) for count in before if hint - count >= after)
    return next((found for found in tried if found is not None), None)


_NONE = (range(0), re.compile(""))

FORMS: tuple[tuple[Hints, Callable[[str, Sequence[int]], str]], ...] = (
    (Hints("-----BEGIN"), redact_private_keys),
    (Hints("//", "/\\", "%2f", "252f"), redact_urls),
    (Hints("@(", "@tcp", "@udp", "@unix"), redact_database_logins),
    (_TOKEN_HINTS, redact_tokens),
    (Hints("login"), redact_logins),
)
SCHEMES = (Hints("bearer", "basic", "negotiate", "token", "apikey"), redact_schemes)
"""The forms, in the order in which they are redacted, each with the hints without which text has none of it. Schemes
come last, after the values of names."""
