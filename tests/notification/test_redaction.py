"""What a channel's error may say in a status."""

from __future__ import annotations

import pytest

from reconciler.notification import RetryableDeliveryError
from reconciler.notification._redaction import ERROR_LIMIT, describe, redact

SECRET = "s3cr3tValue0123456789abcdef"


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
    ],
)
def test_a_secret_leaves_no_trace(text: str) -> None:
    assert SECRET not in redact(text)
    assert "[REDACTED]" in redact(text)


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
    ],
)
def test_an_innocent_text_stays_as_it_is(text: str) -> None:
    assert redact(text) == text


def test_what_follows_a_secret_in_a_query_stays() -> None:
    assert redact("https://e.com/?token=abc&page=2") == "https://e.com/?token=[REDACTED]&page=2"


def test_the_text_is_redacted_before_it_is_cut() -> None:
    text = describe(RetryableDeliveryError("x" * (ERROR_LIMIT - 12) + f" password={SECRET}"))
    assert len(text) <= ERROR_LIMIT
    assert SECRET[:4] not in text


def test_an_error_text_is_bounded_and_has_no_control_characters() -> None:
    text = describe(ValueError("\x1b[31m\ud800" + "y" * 100_000))
    assert len(text) == ERROR_LIMIT
    assert text.startswith("ValueError: [31m")
    text.encode()


def test_an_exception_is_named_by_type_unless_a_channel_raised_it_on_purpose() -> None:
    assert describe(RetryableDeliveryError("503")) == "503"
    assert describe(KeyError("x")) == "KeyError: 'x'"
    assert describe(ConnectionResetError()) == "ConnectionResetError"
    assert describe(RetryableDeliveryError()) == "RetryableDeliveryError"


def test_an_exception_that_cannot_even_be_shown_is_named() -> None:
    class Rude(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert describe(Rude()) == "Rude"


@pytest.mark.parametrize(
    "hostile",
    ["a" * 100_000, "://" * 30_000, "token" * 20_000, "password=" * 10_000, "bearer " * 15_000, "-----BEGIN " * 9_000],
)
def test_a_hostile_text_does_not_hang(hostile: str) -> None:
    assert len(describe(ValueError(hostile))) <= ERROR_LIMIT
