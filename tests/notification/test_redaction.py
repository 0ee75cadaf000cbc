"""Redaction of texts, errors and log records."""

from __future__ import annotations

import base64
import binascii
import importlib
import io
import json
import logging
import os
import pkgutil
import re
import sys
from collections.abc import Callable
from typing import Any
from unittest.mock import patch
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler._core import redaction as room
from reconciler._core.redaction import redact as redact_forms
from reconciler.notification import Redactor, RetryableDeliveryError
from reconciler.notification.redaction import ERROR_LIMIT, SCAN_LIMIT, KnownSecrets, RedactingFormatter
from reconciler.telemetry import JSONFormatter, TextFormatter
from tests.depth import examples
from tests.notification.steps import steps

redact = redact_forms
describe = Redactor().describe
SECRET = "s3cr3tValue0123456789abcdef"
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", examples(200)))


@pytest.mark.parametrize(
    "text",
    [
        f"GET https://user:{SECRET}@example.com/x failed",
        f"redis://:{SECRET}@cache:6379",
        f"https://{SECRET}@example.com",
        f"https://hooks.slack.com/services/T000/B000/{SECRET}",
        f"https://discord.com/api/webhooks/1/{SECRET}",
        f"POST https://x.webhook.office.com/webhookb2/{SECRET}: 410",
        f"https://e.com/?apiKey={SECRET}&token={SECRET}",
        f"Authorization: Bearer {SECRET}",
        f'{{"authorization": "Basic {SECRET}"}}',
        f"sent Bearer {SECRET} to",
        f"password={SECRET}",
        f"PASSWORD : {SECRET}",
        f'{{"client_secret":"{SECRET}"}}',
        f"{{'aws_secret_access_key': '{SECRET} {SECRET}'}}",
        f'pwd: "{SECRET} b c"',
        f"X-Api-Key={SECRET}, next",
        f"ghp_{SECRET}",
        f"xoxb-{SECRET}",
        f"sk-{SECRET}",
        f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.{SECRET}",
        f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET}\n-----END RSA PRIVATE KEY-----",
        f"-----BEGIN PRIVATE KEY-----\n{SECRET}",
        # Headers of every scheme
        f'Authorization: Digest username="bob", response="{SECRET}", realm="x"',
        f"Authorization: Token {SECRET}",
        f"Authorization: Custom a {SECRET}",
        f"authorization=ApiKey {SECRET}",
        f"proxy-authorization: Negotiate {SECRET}",
        f"curl -H 'Authorization: Token {SECRET}' https://x",
        f"('Authorization', 'Basic {SECRET}')",
        f"[(b'host', b'example.com'), (b'X-Api-Key', b'{SECRET}')]",
        f"(b'authorization', b'Custom a {SECRET}')",
        f"sent Bearer            {SECRET} to",
        f"sent Bearer\N{NO-BREAK SPACE}{SECRET} to",
        f"api_key\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{SECRET}",
        f"map[Authorization:[Basic {SECRET}]]",
        f"Cookie: a=b; c={SECRET}",
        f"Set-Cookie: sid={SECRET}; Path=/",
        # Quoted and escaped
        f'x {{\\"password\\": \\"{SECRET} {SECRET}\\"}} y',
        f'x {{\\\\\\"password\\\\\\": \\\\\\"{SECRET} {SECRET}\\\\\\"}}',
        f"b'token': b'{SECRET}'",
        f"password='a'\\''{SECRET}'",
        f"password: 'a''{SECRET}'",
        f"&quot;password&quot;:&quot;{SECRET}&quot;",
        f"%22password%22%3A%22{SECRET}%22",
        f"\\u0070assword={SECRET}",
        f"password\\u003d{SECRET}",
        f"<password>{SECRET}</password>",
        f'<add key="Password" value="{SECRET}"/>',
        f"{{'credentials': {{'user': 'x', 'pw': '{SECRET}'}}}}",
        f'Traceback\n  File "x"\nValueError: password="{SECRET}"',
        f"password => '{SECRET}'",
        f"password = pa,{SECRET}",
        f"password=pa&{SECRET}",
        f"AccountKey={SECRET}==;EndpointSuffix=x",
        f"token: Bearer {SECRET}",
        f"api key: {SECRET}",
        f"CREATE USER x PASSWORD '{SECRET}'",
        # Queries
        f"https://x/?sig={SECRET}&a=b",
        f"%70assword%3D{SECRET}",
        f"%2570assword%253D{SECRET}",
        f"password%3D{SECRET}%26a%3Db",
        f"?key={SECRET}",
        f"X-Amz-Signature={SECRET}",
        # URLs
        f"https://user:pa/{SECRET}@host/",
        f"https://u:p@{SECRET}@host/",
        f"https%3A%2F%2Fuser%3A{SECRET}%40host",
        f"https:\\/\\/user:{SECRET}@host",
        f"https://api.telegram.org/bot123456:{SECRET}/send",
        f"user:{SECRET}@tcp(localhost:3306)/db",
        # Files and command lines
        f"export DB_PASSWORD='{SECRET}'",
        f"DB_PASSWORD_PROD={SECRET}",
        f"aws_session_token = {SECRET}",
        f"_authToken={SECRET}",
        f"auth={SECRET}",
        f"passphrase: correct horse {SECRET}",
        f"- name: DB_PASSWORD\n  value: {SECRET}",
        f"- value: {SECRET}\n  name: DB_PASSWORD",
        f"env {{'value': '{SECRET}', 'name': 'DB_PASSWORD'}}, {{'value': 'fast', 'name': 'MODE'}}",
        f'<env value="{SECRET}" name="DB_PASSWORD"/>',
        f"password:\n  {SECRET}\n",
        f"password: |\n  {SECRET}\n  {SECRET}\nnext: 1",
        f"tokens:\n  - {SECRET}\n  - {SECRET}\n",
        f"machine x login y password {SECRET}",
        f"--password {SECRET}",
        f"curl -u user:{SECRET} https://x",
        f"curl --user 'user:{SECRET} x' y",
        f"curl --user=user:{SECRET}",
        f"['-u', 'user:{SECRET}']",
        f"LS0tLS1CRUdJTiBSU0EgUFJJVkFURSBLRVk{SECRET}",
        # JSON
        f'["--password", "{SECRET}"]',
        f'["-u", "user:{SECRET}"]',
        f'{{"\\u0070assword": "{SECRET}"}}',
        json.dumps([{"name": "DB_PASSWORD", "value": SECRET}]),
        json.dumps([{"value": SECRET, "name": "DB_PASSWORD", "key": "a"}, {"value": "fast", "name": "MODE"}]),
        json.dumps([{"op": "add", "path": "/spec/password", "value": SECRET}]),
        json.dumps({"Authorization": [f"Basic {SECRET}"]}),
        json.dumps({"auth": SECRET}),
        json.dumps({"password": [SECRET, {"a": SECRET}]}),
        json.dumps({"a": json.dumps({"password": SECRET, "b": json.dumps({"token": SECRET})})}),
        json.dumps({"a": f"GET /\nAuthorization: Custom {SECRET}\nHost: x"}),
    ],
)
def test_a_secret_leaves_no_trace(text: str) -> None:
    clean = redact(text)
    assert SECRET not in clean
    assert "[REDACTED]" in clean
    assert redact(clean) == clean
    quoted = json.dumps({"error": f"failed:\n{text}"})
    assert SECRET not in redact(quoted)
    assert SECRET not in redact(f"said {quoted} to me")
    json.loads(redact(quoted))


@pytest.mark.parametrize(
    "text",
    [
        "cannot write /var/log/notifications/a.json: Permission denied",
        "Cannot connect to host hooks.example.com:443 ssl:default [Connection refused]",
        "503 Service Unavailable, try again in 30 s",
        "version 1.2.3.4 of task-sk-proj-zone on disk-skew",
        "no token found",
        "https://example.com/path?page=2&sort=asc",
        "basic authentication is not enough",
        "Basic Information about Bearer Authentication",
        '{"tokens_total": 12}',
        '{"max_tokens": 4096, "key": "x", "primary_key": 1, "password": null}',
        "max_tokens: 4096",
        "token_count=5",
        "password policy",
        "password policy: 12 characters",
        "keyboard: us",
        "monkey=1",
        "tokenizer: x",
        "secretary: Ann",
        "author: bob",
        "partition key: 5",
        "token bucket: full",
        "the tests pass: see the log",
        "mailto:bob@example.com",
        "https://example.com:8080/@user",
        "see http://a/b:c@d",
        "git@github.com:org/x",
        "docker run -u 1000:1000 x",
        "50%25 off",
    ],
)
def test_a_text_without_secrets_is_unchanged(text: str) -> None:
    assert redact(text) == text


def test_the_rest_of_a_query_after_a_secret_is_unchanged() -> None:
    assert redact("https://e.com/?token=abc&page=2") == "https://e.com/?token=[REDACTED]&page=2"


def test_the_text_is_redacted_before_it_is_cut() -> None:
    text = describe(RetryableDeliveryError("x" * (ERROR_LIMIT - 12) + f" password={SECRET}"))
    assert len(text) <= ERROR_LIMIT
    assert SECRET[:4] not in text


def test_an_error_text_is_limited_and_has_no_control_characters() -> None:
    text = describe(ValueError("\x1b[31m\ud800" + "y" * 100_000))
    assert len(text) == ERROR_LIMIT
    assert text.startswith("ValueError: [31m")
    text.encode()


def test_an_exception_other_than_a_delivery_error_starts_with_its_type() -> None:
    assert describe(RetryableDeliveryError("503")) == "503"
    assert describe(KeyError("x")) == "KeyError: 'x'"
    assert describe(ConnectionResetError()) == "ConnectionResetError"
    assert describe(RetryableDeliveryError()) == "RetryableDeliveryError"


def test_an_exception_whose_text_fails_is_named_by_type() -> None:
    assert describe(Rude()) == "Rude"


@pytest.mark.parametrize(
    "hostile",
    ["a" * 100_000, "://" * 30_000, "token" * 20_000, "password=" * 10_000, "bearer " * 15_000, "-----BEGIN " * 9_000],
)
def test_a_hostile_text_does_not_hang(hostile: str) -> None:
    assert len(describe(ValueError(hostile))) <= ERROR_LIMIT


# JSON in, JSON out

_PIECES = st.sampled_from(
    [
        *(
            "password",
            "token",
            "tokens",
            "Authorization",
            "name",
            "value",
            "auth",
            "Cookie",
            "DB_PASSWORD",
            "é",
            "\u2028",
        ),
        *("secret: x", "password=x", "Bearer abc123DEF", "https://u:p@h/", 'x"y', "'", "\\", "\n", "[REDACTED]", "-u"),
        *(
            "--password",
            "a:b",
            '{"password":1}',
            'password: "',
            "-----BEGIN PRIVATE KEY-----",
            "password:\n  a",
            "\ud800",
        ),
        *("ghp_0123456789abcdefABCD", "%22password%22%3A%22x", "://", "@", "{", "}", "[", ",", "=", ":", " ", "<", "&"),
    ]
)
_TEXTS = st.lists(_PIECES | st.text(max_size=4), max_size=10).map("".join)
_DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _TEXTS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(_TEXTS | _PIECES, inner, max_size=4) | inner.map(json.dumps)
    ),
    max_leaves=20,
)


@settings(deadline=None, max_examples=EXAMPLES)
@given(_DOCUMENTS, st.sampled_from([None, 1]), st.booleans())
def test_json_stays_json_and_a_second_redaction_changes_nothing(document: Any, indent: int | None, ascii: bool) -> None:
    clean = redact(json.dumps(document, indent=indent, ensure_ascii=ascii))
    json.loads(clean)
    assert redact(clean) == clean


@settings(deadline=None, max_examples=EXAMPLES)
@given(_TEXTS)
def test_a_second_redaction_changes_nothing(text: str) -> None:
    clean = redact(text)
    assert redact(clean) == clean


@settings(deadline=None, max_examples=EXAMPLES)
@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1), st.integers(0, 3))
def test_a_password_of_any_characters_leaves_no_trace_in_json(password: str, depth: int) -> None:
    text = json.dumps({"before": 1, "password": password, "after": [2]})
    for _ in range(depth):
        text = json.dumps({"body": text})
    found = json.loads(redact(text))
    for _ in range(depth):
        found = json.loads(found["body"])
    assert found == {"before": 1, "password": "[REDACTED]", "after": [2]}


def test_everything_but_secrets_keeps_its_spelling() -> None:
    text = '{ "a" : 1.50e3, "b":"\\u00e9\\/", "password" :"x" ,"c": [null,true] }'
    assert redact(text) == text.replace('"x"', '"[REDACTED]"')


# The cost


@pytest.mark.parametrize(
    "piece",
    [
        *("a ", "password=", 'password="', '"password":"', "\\", '\\"', "%25", "%70", "://", "a://b:c", "@", "secret "),
        *(
            "-----BEGIN ",
            "-----BEGIN PRIVATE KEY-----",
            "password:\n",
            "password: |\n",
            "bearer ",
            "login ",
            "eyJ-",
            "-u ",
        ),
        *('Authorization: a="', "authorization", "{", "'", "&#0", "<password>", '{"a":', '["', "password = ("),
    ],
)
def test_the_steps_grow_with_the_text_and_not_faster(piece: str) -> None:
    small, large = ((piece * size)[:size] for size in (8_192, 32_768))
    assert steps(lambda: redact(large)) <= 5 * steps(lambda: redact(small)) + 1_000


def test_no_pattern_of_the_redaction_can_look_back_over_what_it_took() -> None:
    """Unlimited repetitions are possessive or end a pattern, so no search looks at a character twice."""
    modules = [importlib.import_module(each.name) for each in pkgutil.walk_packages(room.__path__, f"{room.__name__}.")]
    patterns = [value for module in modules for value in vars(module).values() if isinstance(value, re.Pattern)]
    assert len(patterns) > 20
    for pattern in patterns:
        assert not re.search(r"(?<!\\)[)\]\w.][*+](?![+])[^|)]*[)\]\w.][*+](?![+])", pattern.pattern), pattern.pattern


# Log records


def _logged(caplog_handler: logging.Handler, redactor: Redactor, call: Callable[[logging.Logger], None]) -> str:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(RedactingFormatter(caplog_handler.formatter or logging.Formatter(), redactor))
    logger = logging.Logger("x")  # noqa: LOG001 - one that nobody else knows
    logger.addHandler(handler)
    call(logger)
    return stream.getvalue()


class Rude(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize("formatter", [logging.Formatter(), JSONFormatter(), TextFormatter()])
def test_no_part_of_a_log_record_keeps_a_secret(formatter: logging.Formatter) -> None:
    handler = logging.NullHandler()
    handler.setFormatter(formatter)

    def log(logger: logging.Logger) -> None:
        try:
            raise ValueError(f"password={SECRET}")
        except ValueError:
            logger.exception("token=%s", SECRET, stack_info=True, extra={"api_key": SECRET, "url": f"//a:{SECRET}@b"})

    text = _logged(handler, Redactor(), log)
    assert SECRET not in text
    assert "ValueError: password=[REDACTED]" in text


@pytest.mark.parametrize("formatter", [logging.Formatter(), JSONFormatter(), TextFormatter()])
def test_a_record_that_cannot_be_formatted_is_logged_and_ends_nothing(formatter: logging.Formatter) -> None:
    handler = logging.NullHandler()
    handler.setFormatter(formatter)
    text = _logged(
        handler, Redactor(), lambda logger: logger.error("it failed: %s", Rude(SECRET), exc_info=Rude(SECRET))
    )
    assert "it failed: %s" in text
    assert "RuntimeError" in text
    assert SECRET not in text


# Known secrets


def test_a_known_secret_is_found_in_other_spellings() -> None:
    secret = 'p"a\\s/s wörd'
    redactor = Redactor(lambda: [secret])
    for spelling in (secret, json.dumps(secret), json.dumps(secret, ensure_ascii=False), quote(secret, safe="")):
        assert redactor.redact(f"a {spelling} b").strip('"') in ("a [REDACTED] b", 'a "[REDACTED]" b')


def test_a_known_secret_behind_a_long_one_is_not_cut_in_two() -> None:
    secret = "z" * 40
    error = RetryableDeliveryError('password="' + "x" * (SCAN_LIMIT - 30) + '" ' + secret)
    assert "zz" not in Redactor(lambda: [secret]).describe(error)
    assert "zz" not in describe(RetryableDeliveryError('password="' + "x" * (SCAN_LIMIT - 30) + '" ghp_' + secret))


def test_a_known_secret_is_found_between_other_blanks() -> None:
    redactor = Redactor(lambda: ["correct horse  battery"])
    for text in ("correct horse battery", "correct\u00a0horse\u2003battery", "correct\nhorse \t battery"):
        assert redactor.redact(f"a  {text}\n b") == "a  [REDACTED]\n b"


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode, binascii.hexlify])
@pytest.mark.parametrize("before", ["", "u:", "us:", "use:"])
def test_an_encoded_text_with_a_known_secret_is_found(encode: Callable[[bytes], bytes], before: str) -> None:
    redactor = Redactor(lambda: ["k?~ sword  fish"])
    encoded = encode(f"{before}k?~ sword  fish".encode()).decode()
    for text in (encoded, encoded.rstrip("="), f'{{"auth": "{encoded}"}}'):
        found = redactor.redact_known(f"sent {text} to it")
        assert "[REDACTED]" in found
        assert encoded[8:14] not in found
        assert found.endswith(" to it")


@given(
    st.lists(st.text("ab\u00fc ", min_size=4, max_size=6).map(str.strip).filter(lambda word: len(word) > 3)),
    st.text("ab\u00fc \ud800", max_size=40),
)
def test_known_secrets_are_found_alike_with_and_without_the_library(words: list[str], text: str) -> None:
    found = KnownSecrets(frozenset(words)).replaced(text)
    with patch.dict(sys.modules, {"ahocorasick": None}):
        assert KnownSecrets(frozenset(words)).replaced(text) == found
