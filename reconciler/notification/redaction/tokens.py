"""Redaction of what is known by its beginning: private keys, tokens, credentials behind a scheme."""

from __future__ import annotations

import re

from reconciler.notification.redaction.marks import PLACEHOLDER, backslashes_before

__all__ = ["redact_private_keys", "redact_schemes", "redact_tokens"]

_KEY_BEGIN = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_KEY_END = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|[\"'`]")


def redact_private_keys(text: str) -> str:
    """Replace private keys in PEM; one without an end goes to the end of the quotation or text that it is in."""
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


_TOKENS = re.compile(
    r"""(?:(?<![A-Za-z0-9])|(?<=\\[nrt]))(?:
    (?:gh[opsur]|github_pat|npm|dop_v1|shp(?:at|ca|pa|ss)|lin_api|hf|figd|sntrys|pul|whsec|dckr_pat|dckr_oat|glsa|nvapi
        |PMAK|NRAK|tskey|gl(?:pat|ptt|dt|rt|cbt|soat|ft|imt|agent)|xox[a-z]|xapp|sq0[a-z]{3}|rubygems
        |(?:sk|pk|rk)(?:[-_](?:live|test|ant|proj|or|svcacct))?)[-_][A-Za-z0-9_-]{16,}
    |pypi-[A-Za-z0-9_-]{16,}
    |(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}(?![A-Za-z0-9])
    |AIza[A-Za-z0-9_-]{30,} |ya29\.[A-Za-z0-9_.-]{16,} |GOCSPX-[A-Za-z0-9_-]{16,}
    |SG\.[A-Za-z0-9_.-]{20,} |hv[sbr]\.[A-Za-z0-9_.-]{16,} |ATATT3[A-Za-z0-9_=-]{16,}
    |AGE-SECRET-KEY-1[A-Z0-9]{16,} |key-[0-9a-f]{32} |[SA]K[0-9a-f]{32}
    |\d{8,10}:AA[A-Za-z0-9_-]{30,}
    |eyJ[A-Za-z0-9_-]{12,}(?:\.[A-Za-z0-9_-]*+)*+
    |LS0tLS1CRUdJTiB[QSFPE][A-Za-z0-9+/=_-]{16,}
    )""",
    re.VERBOSE,
)
_LOGIN = re.compile(r"(\blogin\s++\S++\s++password\s++)\S++", re.IGNORECASE)
_SCHEME = re.compile(r"(?:\b|(?<=\\[nrt]))(bearer|basic|negotiate|token|apikey)([ \t]{1,8}|%20|\+)", re.IGNORECASE)
_CREDENTIALS = re.compile(r"[A-Za-z0-9+/._~=-]{6,}+")


def redact_tokens(text: str) -> str:
    """Replace tokens that are known by their beginning, and the passwords of a ``.netrc``."""
    return _LOGIN.sub(rf"\1{PLACEHOLDER}", _TOKENS.sub(PLACEHOLDER, text))


def redact_schemes(text: str) -> str:
    """Replace what stands behind the name of an authentication scheme, where it is no word."""
    out: list[str] = []
    done = position = 0
    while found := _SCHEME.search(text, position):
        position = found.end()
        value = _CREDENTIALS.match(text, position)
        if value is not None and _is_credentials(found[1].lower(), value.group().rstrip(".")):
            out += [text[done:position], PLACEHOLDER]
            done = position = value.end()
    return "".join([*out, text[done:]])


def _is_credentials(scheme: str, value: str) -> bool:
    has_digit = any(sign.isdigit() for sign in value)
    if scheme in ("token", "apikey"):
        return len(value) >= 16 and has_digit
    return has_digit or len(value) >= 20 or any(sign.isupper() for sign in value[1:]) or "=" in value
