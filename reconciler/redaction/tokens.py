"""Tokens that are recognized by their form alone, whatever stands before them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from reconciler.redaction.hints import Hints
from reconciler.redaction.quotes import PLACEHOLDER

__all__ = ["TOKEN_HINTS", "redact_tokens"]

_FORMS: tuple[tuple[str, str], ...] = (
    # The beginnings and the rest. Prefixes and alphabets are those that the services document.
    ("ghp_ gho_ ghu_ ghs_ ghr_ github_pat_", r"[A-Za-z0-9_-]{16,}"),
    ("glpat- glptt- gldt- glrt- glcbt- glsoat- glft- glimt- glagent-", r"[A-Za-z0-9_.-]{16,}"),
    ("xoxa- xoxb- xoxc- xoxd- xoxe- xoxo- xoxp- xoxr- xoxs- xapp- xoxe.xox", r"[A-Za-z0-9_%-]{16,}"),  # Slack
    ("sk- pk- rk-", r"(?:(?:live|test|ant|proj|or|svcacct)[-_])?[A-Za-z0-9_-]{16,}"),  # Stripe, OpenAI, Anthropic
    ("sk.eyJ", r"[A-Za-z0-9_.-]{16,}"),  # Mapbox
    ("gsk_ xai- pplx- r8_ hf_ nvapi-", r"[A-Za-z0-9_-]{16,}"),
    ("AKIA ASIA ABIA ACCA", r"[A-Z0-9]{16}(?![A-Za-z0-9])"),  # AWS
    ("AIza", r"[A-Za-z0-9_-]{30,}"),  # Google
    ("ya29. GOCSPX-", r"[A-Za-z0-9_.-]{16,}"),
    ("npm_ pypi- rubygems_ dckr_pat_ dckr_oat_", r"[A-Za-z0-9_-]{16,}"),
    ("whsec_ sq0atp- sq0csp- sq0idp- EAAA", r"[A-Za-z0-9_+/=-]{16,}"),  # Stripe, Square
    ("shpat_ shpca_ shppa_ shpss_", r"[A-Za-z0-9_-]{16,}"),  # Shopify
    ("SG.", r"[A-Za-z0-9_.-]{20,}"),  # SendGrid
    ("key- xkeysib-", r"[0-9a-f]{32}[A-Za-z0-9-]*"),  # Mailgun, Brevo
    ("SK AK", r"[0-9a-f]{32}(?![A-Za-z0-9])"),  # Twilio
    ("hvs. hvb. hvr.", r"[A-Za-z0-9_.-]{16,}"),  # Vault
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

_INNER: tuple[tuple[str, str], ...] = (
    # A part of the token, and the whole token, which is at most 100 characters long.
    ("Q~", r"[A-Za-z0-9_~.-]{3}[0-9]Q~[A-Za-z0-9_~.-]{31,34}"),  # Azure
    (".atlasv1.", r"[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_-]{60,70}"),  # Terraform
    ("-us", r"[0-9a-f]{32}-us[0-9]{1,2}(?![A-Za-z0-9])"),  # Mailchimp
    (
        ".G .X .Y",  # the time of a token, the same for years
        r"[MNO][A-Za-z0-9_-]{22,28}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,38}(?![A-Za-z0-9_-])",  # Discord
    ),
    (":AA", r"[0-9]{8,10}:AA[A-Za-z0-9_-]{30,}"),  # Telegram
)


def _spelled(prefixes: str) -> Iterator[str]:
    """Yield each prefix. Some tools write ``_`` for ``-`` at its end, and the other way round."""
    for prefix in prefixes.split():
        yield from {prefix[:-1] + "-", prefix[:-1] + "_"} if prefix[-1] in "-_" else {prefix}


TOKEN_HINTS = Hints(
    *(prefix for prefixes, _ in _FORMS for prefix in _spelled(prefixes)),
    *(part for parts, _ in _INNER for part in parts.split()),
)
_START = r"(?:(?<![A-Za-z0-9])|(?<=\\[nrt]))"
_TOKENS = re.compile(
    f"{_START}(?:" + "|".join(f"(?:{'|'.join(map(re.escape, _spelled(hints)))}){rest}" for hints, rest in _FORMS) + ")"
)
_INNER_TOKENS = re.compile(_START + "(?:" + "|".join(form for _, form in _INNER) + ")")
_BEFORE, _AFTER = 40, 100
"""Maximum characters of an inner token before and after the start of its hint."""


def redact_tokens(text: str) -> str:
    """Replace tokens with a known form."""
    out: list[str] = []
    done = 0
    for hint in TOKEN_HINTS.starts(text):
        if hint < done:
            continue
        found = _TOKENS.match(text, hint)
        if found is None and text[hint] in "-.:Q":
            found = _INNER_TOKENS.search(text, max(done, hint - _BEFORE), hint + _AFTER)
        if found is not None:
            out += [text[done : found.start()], PLACEHOLDER]
            done = found.end()
    return "".join([*out, text[done:]])
