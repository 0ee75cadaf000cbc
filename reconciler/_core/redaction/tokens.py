"""Tokens that are recognized by their form alone, whatever stands before them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from reconciler._core.redaction.hints import PLACEHOLDER, Hints

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


TOKEN_HINTS = Hints(
    *(prefix for prefixes, _ in _FORMS for prefix in _spelled(prefixes)),
    *("Q~", ".atlasv1.", "-us", ":AA", ".G"),
)
_START = r"(?:(?<![A-Za-z0-9])|(?<=\\[nrt]))"
_TOKENS = re.compile(
    f"{_START}(?:" + "|".join(f"(?:{'|'.join(map(re.escape, _spelled(hints)))}){rest}" for hints, rest in _FORMS) + ")"
)
_INNER_TOKENS = {part: (before, re.compile(_START + form)) for part, (before, form) in _INNER.items()}


def redact_tokens(text: str) -> str:
    """Replace tokens with a known form."""
    out: list[str] = []
    done = 0
    for hint in TOKEN_HINTS.starts(text):
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
