"""A corpus of secrets and of innocent text, generated from the formats that services document.

No secret is written down here: values are drawn from the alphabets and lengths below, with a fixed seed, when the
corpus is used. The formats are those of the services' public documentation in 2026.
"""

from __future__ import annotations

import base64
import json
import random
import string
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote

__all__ = ["SERVICES", "Sample", "innocent_lines", "manual_lines", "samples"]

ALNUM = string.ascii_letters + string.digits
WORD = ALNUM + "_-"
LOWER = string.ascii_lowercase + string.digits
UPPER = string.ascii_uppercase + string.digits
HEX = "0123456789abcdef"
BASE64 = ALNUM + "+/"

Part = str | tuple[str, int]
"""A fixed text, or an alphabet and a number of characters."""

PREFIXED: dict[str, tuple[Part, ...]] = {
    "GitHub, classic": ("ghp_", (ALNUM, 36)),
    "GitHub, fine-grained": ("github_pat_", (ALNUM, 22), "_", (ALNUM, 59)),
    "GitHub App": ("ghs_", (ALNUM, 36)),
    "GitLab": ("glpat-", (WORD, 20)),
    "GitLab runner": ("glrt-", (WORD, 20)),
    "Bitbucket": ("ATBB", (ALNUM, 32)),
    "Atlassian": ("ATATT3xFfGF0", (WORD, 180)),
    "Slack bot": ("xoxb-", (string.digits, 12), "-", (string.digits, 12), "-", (ALNUM, 24)),
    "Slack app": ("xapp-1-A", (UPPER, 10), "-", (string.digits, 13), "-", (HEX, 64)),
    "AWS": ("AKIA", (UPPER, 16)),
    "Google API": ("AIza", (WORD, 35)),
    "Google OAuth": ("GOCSPX-", (WORD, 28)),
    "Azure": ((ALNUM, 3), "8Q~", (ALNUM, 34)),
    "Stripe": ("sk_live_", (ALNUM, 24)),
    "Stripe restricted": ("rk_live_", (ALNUM, 24)),
    "Square": ("sq0csp-", (WORD, 43)),
    "Shopify": ("shpat_", (HEX, 32)),
    "Twilio": ("SK", (HEX, 32)),
    "SendGrid": ("SG.", (WORD, 22), ".", (WORD, 43)),
    "Mailgun": ("key-", (HEX, 32)),
    "Mailchimp": ((HEX, 32), "-us12"),
    "Brevo": ("xkeysib-", (HEX, 64), "-", (ALNUM, 16)),
    "npm": ("npm_", (ALNUM, 36)),
    "PyPI": ("pypi-AgEIcHlwaS5vcmc", (WORD, 70)),
    "RubyGems": ("rubygems_", (HEX, 48)),
    "Docker Hub": ("dckr_pat_", (WORD, 27)),
    "Artifactory": ("AKCp", (ALNUM, 69)),
    "OpenAI": ("sk-proj-", (WORD, 48)),
    "Anthropic": ("sk-ant-api03-", (WORD, 93), "AA"),
    "Hugging Face": ("hf_", (ALNUM, 34)),
    "Groq": ("gsk_", (ALNUM, 52)),
    "xAI": ("xai-", (ALNUM, 80)),
    "Replicate": ("r8_", (ALNUM, 37)),
    "Perplexity": ("pplx-", (ALNUM, 48)),
    "Vault": ("hvs.", (WORD, 90)),
    "Terraform": ((ALNUM, 14), ".atlasv1.", (WORD, 67)),
    "Pulumi": ("pul-", (HEX, 40)),
    "DigitalOcean": ("dop_v1_", (HEX, 64)),
    "Fly.io": ("fm2_", (BASE64, 60)),
    "Heroku": ("HRKU-AA", (WORD, 58)),
    "Netlify": ("nfp_", (ALNUM, 36)),
    "Tailscale": ("tskey-auth-", (ALNUM, 17), "-", (ALNUM, 32)),
    "Databricks": ("dapi", (HEX, 32)),
    "PlanetScale": ("pscale_tkn_", (WORD, 43)),
    "Supabase": ("sbp_", (HEX, 40)),
    "Doppler": ("dp.pt.", (ALNUM, 43)),
    "1Password": ("ops_eyJ", (BASE64.replace("+/", ""), 200)),
    "Grafana": ("glsa_", (ALNUM, 32), "_", (HEX, 8)),
    "New Relic": ("NRAK-", (UPPER, 27)),
    "Sentry": ("sntrys_eyJ", (WORD, 120)),
    "Postman": ("PMAK-", (HEX, 24), "-", (HEX, 34)),
    "Linear": ("lin_api_", (ALNUM, 40)),
    "Notion": ("ntn_", (ALNUM, 46)),
    "Figma": ("figd_", (WORD, 40)),
    "Airtable": ("pat", (ALNUM, 14), ".", (HEX, 64)),
    "Contentful": ("CFPAT-", (WORD, 43)),
    "Mapbox": ("sk.eyJ", (ALNUM, 80), ".", (WORD, 22)),
    "Dropbox": ("sl.", (WORD, 135)),
    "CircleCI": ("CCIPAT_", (ALNUM, 22), "_", (HEX, 40)),
    "Buildkite": ("bkua_", (HEX, 40)),
    "Prefect": ("pnu_", (ALNUM, 36)),
    "Telegram": ((string.digits[1:], 10), ":AA", (WORD, 33)),
    "Discord bot": ("M", (ALNUM, 25), ".G", (WORD, 5), ".", (ALNUM, 38)),
    "age": ("AGE-SECRET-KEY-1", (UPPER, 58)),
    "JSON Web Token": ("eyJhbGciOiJIUzI1NiJ9.eyJ", (ALNUM, 60), ".", (WORD, 43)),
}
"""Secrets that are recognized by their form, by service."""

NAMED: dict[str, tuple[str, tuple[Part, ...]]] = {
    "AWS secret key": ("aws_secret_access_key", ((BASE64, 40),)),
    "Azure storage": ("AccountKey", ((BASE64, 86), "==")),
    "Cloudflare": ("CLOUDFLARE_API_TOKEN", ((WORD, 40),)),
    "Datadog": ("DD_API_KEY", ((HEX, 32),)),
    "PagerDuty": ("pagerduty_token", ((WORD, 20),)),
    "Opsgenie": ("opsgenie_api_key", ((HEX, 8), "-", (HEX, 4), "-", (HEX, 4), "-", (HEX, 4), "-", (HEX, 12))),
    "Okta": ("okta_api_token", ("00", (WORD, 40))),
    "Splunk": ("splunk_hec_token", ((HEX, 8), "-", (HEX, 4), "-", (HEX, 4), "-", (HEX, 4), "-", (HEX, 12))),
    "Snyk": ("SNYK_TOKEN", ((HEX, 8), "-", (HEX, 4), "-", (HEX, 4), "-", (HEX, 4), "-", (HEX, 12))),
    "Fastly": ("fastly_api_key", ((WORD, 32),)),
    "Auth0": ("clientSecret", ((WORD, 64),)),
    "database": ("DB_PASSWORD", ((ALNUM + "!#*+-._~", 20),)),
    "human": ("password", ((string.ascii_lowercase, 8), (string.digits, 2))),
}
"""Secrets of no particular form, which are recognized by their name, by service."""

SERVICES = (*PREFIXED, *NAMED)


@dataclass(frozen=True, slots=True)
class Sample:
    """A text with one secret.

    Attributes:
        service: the service.
        form: how the secret is written.
        text: the text.
        secret: the secret as it is spelled in the text.
        kept: pieces of the text that are not secret and must stay.
    """

    service: str
    form: str
    text: str
    secret: str
    kept: tuple[str, ...]


def samples(each: int = 4, *, seed: int = 20_260_101) -> Iterator[Sample]:
    """Yield samples of every service in every form that suits it."""
    source = random.Random(seed)
    for service, parts in PREFIXED.items():
        for _ in range(each):
            secret = _drawn(parts, source)
            yield from (*_bare(service, secret), *_named(service, "apiKey", secret))
    for service, (name, parts) in NAMED.items():
        for _ in range(each):
            yield from _named(service, name, _drawn(parts, source))


def _drawn(parts: tuple[Part, ...], source: random.Random) -> str:
    return "".join(
        part if isinstance(part, str) else "".join(source.choice(part[0]) for _ in range(part[1])) for part in parts
    )


def _bare(service: str, secret: str) -> Iterator[Sample]:
    """Yield forms without a name that says what the value is."""
    forms = {
        "log, sentence": (
            f'level=info msg="login with {secret} failed" pod=web-1',
            secret,
            ("level=info", "pod=web-1"),
        ),
        "JSON, neutral name": (json.dumps({"note": secret, "pod": "web-1"}), secret, ('"note"', '"pod": "web-1"')),
        "shell, argument": (f"deploy --to prod {secret} --wait", secret, ("deploy --to prod", "--wait")),
        "URL, path": (
            f"GET https://api.example.com/v1/{secret}/items 200",
            secret,
            ("https://api.example.com/v1/", "200"),
        ),
    }
    for form, (text, spelled, kept) in forms.items():
        yield Sample(service, form, text, spelled, kept)


def _named(service: str, name: str, secret: str) -> Iterator[Sample]:
    """Yield forms with a name."""
    inner = json.dumps({name: secret, "pod": "web-1"})
    encoded = quote(secret, safe="")
    forms = {
        "JSON": (json.dumps({"pod": "web-1", name: secret}), secret, ('"pod": "web-1"', f'"{name}"')),
        "JSON in JSON": (json.dumps({"body": inner, "code": 200}), secret, ('"code": 200', "web-1")),
        "YAML": (f"pod: web-1\n{name}: {secret}\nreplicas: 3\n", secret, ("pod: web-1", "replicas: 3")),
        "URL, query": (f"https://x.example/a?page=2&{name}={encoded}&sort=up", encoded, ("page=2", "sort=up")),
        "URL, login": (
            f"https://ann:{encoded}@git.example.com/a.git",
            encoded,
            ("https://ann:", "@git.example.com/a.git"),
        ),
        "header": (
            f"Host: x.example\nX-{name}: {secret}\nAccept: text/plain",
            secret,
            ("Host: x.example", "Accept: text/plain"),
        ),
        "header, bearer": (
            f"curl -H 'Authorization: Bearer {secret}' https://x.example",
            secret,
            ("curl -H", "https://x.example"),
        ),
        "shell, export": (f"export {name}='{secret}' && make", secret, ("export", "&& make")),
        "shell, option": (f"tool --{name} {secret} --verbose", secret, ("tool", "--verbose")),
        "log": (f"time=12:00 level=warn {name}={secret} attempt=3", secret, ("level=warn", "attempt=3")),
        "percent-encoded": (quote(f"page=2&{name}={secret}", safe=""), encoded, ("page%3D2",)),
        "escaped": (json.dumps(inner)[1:-1], secret, ("web-1",)),
        "prose": (f"pod web-1: the {name} is {secret} until Monday", secret, ("pod web-1", "until Monday")),
    }
    for form, (text, spelled, kept) in forms.items():
        yield Sample(service, form, text, spelled, kept)


def innocent_lines(count: int = 4_000, *, seed: int = 20_260_102) -> Iterator[str]:
    """Yield lines without secrets, as clusters and tools write them."""
    source = random.Random(seed)

    def draw(alphabet: str, length: int) -> str:
        return "".join(source.choice(alphabet) for _ in range(length))

    def uuid() -> str:
        return "-".join(draw(HEX, length) for length in (8, 4, 4, 4, 12))

    makers = (
        lambda: f"Pulled image registry.example.com/app@sha256:{draw(HEX, 64)} in {source.randint(1, 9)}.2s",
        lambda: f"commit {draw(HEX, 40)} by ann, {source.randint(1, 99)} files changed",
        lambda: f'pod/web-{draw(LOWER, 10)}-{draw(LOWER, 5)} uid={uuid()} resourceVersion="{draw(string.digits, 9)}"',
        lambda: f"prompt_tokens: {source.randint(1, 9999)}, max_tokens={source.randint(1, 9999)}, token_count=12",
        lambda: (
            f"GET /api/v1/namespaces/kube-system/secrets?limit=500&resourceVersion=0 200 {draw(string.digits, 3)}ms"
        ),
        lambda: f"password policy: at least {source.randint(8, 20)} characters; passwords expire after 90 days",
        lambda: f"secretName: web-tls-{draw(LOWER, 5)}",
        lambda: f"the key {draw(string.ascii_lowercase, 6)} is not in the map; primary key id, sort key name",
        lambda: (
            f"https://grafana.example.com/d/{draw(WORD, 9)}/nodes?orgId=1&from=now-1h&var-node=n-{source.randint(1, 9)}"
        ),
        lambda: f"10.0.{source.randint(0, 255)}.{source.randint(0, 255)}:8443 -> node-7.example.com, version 1.30.3",
        lambda: (
            f'{{"level":"info","ts":{source.randint(10**9, 2 * 10**9)},"msg":"reconciled","controller":"db","count":3}}'
        ),
        lambda: f"author: monkey{source.randint(1, 99)}, keyboard layout us, authority none, compass north",
        lambda: f"data: {base64.b64encode(draw(string.ascii_lowercase + ' ', 30).encode()).decode()}",
        lambda: f'ETag: "{draw(HEX, 32)}" Last-Modified: Tue, 0{source.randint(1, 9)} Jan 2026 00:00:00 GMT',
        lambda: f"user {draw(string.ascii_lowercase, 6)}@example.com signed in from Berlin, session duration 3h",
        lambda: "Bearer authentication is required; basic health checks pass; token bucket is full",
    )
    for number in range(count):
        yield makers[number % len(makers)]()


def manual_lines() -> Iterator[str]:
    """Yield the lines of the reference manual of Python's language, of the running version."""
    from pydoc_data.topics import topics

    for topic in topics.values():
        yield from (line for line in topic.splitlines() if line.strip())
