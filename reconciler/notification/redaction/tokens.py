"""Tokens that are recognized by their form alone, whatever stands before them."""

from __future__ import annotations

import re

from reconciler.notification.redaction.hints import Hints
from reconciler.notification.redaction.text import PLACEHOLDER

__all__ = ["TOKEN_HINTS", "redact_tokens"]

_FORMS: tuple[tuple[str, str], ...] = (
    # The beginning, which is the hint, and the rest. Prefixes and alphabets are those that the services document.
    (r"gh[opsur][-_]|github_pat[-_]", r"[A-Za-z0-9_-]{16,}"),
    (r"gl(?:pat|ptt|dt|rt|cbt|soat|ft|imt|agent)[-_]", r"[A-Za-z0-9_.-]{16,}"),
    (r"xox[a-z][-_]|xapp[-_]|xoxe\.xox", r"[A-Za-z0-9_-]{16,}"),  # Slack
    (r"[spr]k[-_]", r"(?:(?:live|test|ant|proj|or|svcacct)[-_])?[A-Za-z0-9_-]{16,}"),  # Stripe, OpenAI, Anthropic
    (r"sk\.eyJ", r"[A-Za-z0-9_.-]{16,}"),  # Mapbox
    (r"gsk_|xai-|pplx-|r8_|hf[-_]|nvapi[-_]", r"[A-Za-z0-9_-]{16,}"),
    (r"A(?:KIA|SIA|BIA|CCA)", r"[A-Z0-9]{16}(?![A-Za-z0-9])"),  # AWS
    (r"AIza", r"[A-Za-z0-9_-]{30,}"),  # Google
    (r"ya29\.|GOCSPX-", r"[A-Za-z0-9_.-]{16,}"),
    (r"npm[-_]|pypi-|rubygems[-_]|dckr_[po]at[-_]", r"[A-Za-z0-9_-]{16,}"),
    (r"whsec[-_]|sq0[a-z]{3}[-_]|EAAA", r"[A-Za-z0-9_+/=-]{16,}"),  # Stripe, Square
    (r"shp(?:at|ca|pa|ss)[-_]", r"[A-Za-z0-9_-]{16,}"),  # Shopify
    (r"SG\.", r"[A-Za-z0-9_.-]{20,}"),  # SendGrid
    (r"key-|xkeysib-", r"[0-9a-f]{32}[A-Za-z0-9-]*"),  # Mailgun, Brevo
    (r"[SA]K[0-9a-f]{4}", r"[0-9a-f]{28}(?![A-Za-z0-9])"),  # Twilio
    (r"hv[sbr]\.", r"[A-Za-z0-9_.-]{16,}"),  # Vault
    (r"AGE-SECRET-KEY-1", r"[A-Z0-9]{16,}"),
    (r"do[opr]_v1[-_]|dp\.(?:pt|st|ct|scim|audit)\.|fo1_|fm[12]_|dapi", r"[A-Za-z0-9_.+/=-]{16,}"),
    (r"NR(?:AK|II|JS)[-_]|PMAK[-_]|HRKU-|CFPAT-", r"[A-Za-z0-9_-]{16,}"),
    (r"gl(?:sa|c)[-_]|sntry[su][-_]|lin_(?:api|oauth)[-_]|figd[-_]|ntn_|nfp_", r"[A-Za-z0-9_.+/=-]{16,}"),
    (r"ATATT3|ATCTT3|ATBB", r"[A-Za-z0-9_=-]{16,}"),  # Atlassian
    (r"pat[A-Za-z0-9]{14}\.", r"[0-9a-f]{32,}"),  # Airtable
    (r"sb(?:p|s|_secret)_", r"[A-Za-z0-9_-]{16,}"),  # Supabase
    (r"pul[-_]|tskey[-_]|pscale_(?:tkn|pw|oauth)_|pnu_|bk[a-z]{2}_|CCIPAT_|AKCp", r"[A-Za-z0-9_.-]{16,}"),
    (r"sl\.", r"[A-Za-z0-9_-]{60,}"),  # Dropbox
    (r"(?:ops_)?eyJ", r"[A-Za-z0-9_-]{12,}(?:\.[A-Za-z0-9_-]*+)*+"),  # 1Password, JWT
    (r"[0-9]{8}", r"[0-9]{0,2}:AA[A-Za-z0-9_-]{30,}"),  # Telegram
    (r"LS0tLS1CRUdJTiB[QSFPE]", r"[A-Za-z0-9+/=_-]{16,}"),  # a private key in base64
)

_INNER: tuple[tuple[str, str], ...] = (
    # A hint inside the token, and the whole token, which is at most 100 characters long.
    (r"[0-9]Q~", r"[A-Za-z0-9_~.-]{3}[0-9]Q~[A-Za-z0-9_~.-]{31,34}"),  # Azure
    (r"\.atlasv1\.", r"[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_-]{60,70}"),  # Terraform
    (r"-us[0-9]", r"[0-9a-f]{32}-us[0-9]{1,2}(?![A-Za-z0-9])"),  # Mailchimp
    (
        r"\.[A-Za-z0-9_-]{6}\.",
        r"[MNO][A-Za-z0-9_-]{22,28}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,38}(?![A-Za-z0-9_-])",  # Discord
    ),
)

TOKEN_HINTS = Hints(
    *(hint for hint, _ in _FORMS if hint != r"[0-9]{8}"), r"[0-9]{8,10}:AA", *(hint for hint, _ in _INNER)
)
_START = r"(?:(?<![A-Za-z0-9])|(?<=\\[nrt]))"
_TOKENS = re.compile(_START + "(?:" + "|".join(f"(?:{hint}){rest}" for hint, rest in _FORMS) + ")")
_INNER_TOKENS = re.compile(_START + "(?:" + "|".join(form for _, form in _INNER) + ")")
_BEFORE, _AFTER = 32, 100
"""Maximum characters of an inner token before and after the start of its hint."""


def redact_tokens(text: str) -> str:
    """Replace tokens with a known form."""
    out: list[str] = []
    done = 0
    for hint in TOKEN_HINTS.starts(text):
        if hint < done:
            continue
        found = _TOKENS.match(text, hint)
        if found is None and text[hint] in "-.0123456789":
            found = _INNER_TOKENS.search(text, max(done, hint - _BEFORE), hint + _AFTER)
        if found is not None:
            out += [text[done : found.start()], PLACEHOLDER]
            done = found.end()
    return "".join([*out, text[done:]])
