"""Texts of users that try to be something else: headers of a mail, lines of a log, a YAML document without bounds."""

from __future__ import annotations

import email
import email.policy
import io
import json
import logging

import pytest

from reconciler.notification import ConsoleChannel
from reconciler.notification.channels import EmailConfig, LogChannel
from reconciler.notification.channels._email import email_message
from reconciler.notification.channels._mrkdwn import mrkdwn
from reconciler.notification.routing._yaml import read_yaml
from tests.notification.test_channels import message as make_message
from tests.notification.test_redaction import _steps as steps_of

LINE_ENDS = ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"]
CONTROLS = ["\x1b[2K", "\x9b2K", "\u202e", "\u2066", "\x00", "\x08", "\ud800"]
SUBJECTS = [
    "=?utf-8?q?a=0d=0aBcc:_thief=40example.com?=",
    "=?utf-8?b?YQ0KQmNjOiB0aGllZkBleGFtcGxlLmNvbQ0KDQpib2R5?=",
    "a\r\nBcc: thief@example.com\r\n\r\nbody",
    "a\nBcc: thief@example.com",
    "\u2028Bcc: thief@example.com",
    "x" * 5000,
    "é" * 2000,
    "\ud800 lone",
    "\u202egnp.exe",
    "",
]


def mail_of(subject: str, **changes: object) -> bytes:
    config = EmailConfig(host="127.0.0.1", sender="op@example.com", to=["me@example.com"])
    return email_message(make_message(subject=subject, **changes), config).as_bytes()


@pytest.mark.parametrize("subject", SUBJECTS)
@pytest.mark.parametrize("policy", [email.policy.default, email.policy.compat32, email.policy.SMTP])
def test_a_subject_never_becomes_another_header_or_a_body(subject: str, policy: email.policy.Policy) -> None:
    names = [name for name, _ in email.message_from_bytes(mail_of("harmless"), policy=policy).items()]
    raw = mail_of(subject)
    parsed = email.message_from_bytes(raw, policy=policy)
    assert [name for name, _ in parsed.items()] == names
    assert b"\nBcc:" not in raw.partition(b"\r\n\r\n")[0]
    raw.decode("ascii")
    assert max(map(len, raw.split(b"\r\n"))) <= 998


@pytest.mark.parametrize("character", [*LINE_ENDS, *CONTROLS])
@pytest.mark.parametrize("where", ["subject", "body"])
async def test_no_line_on_the_console_looks_like_another_message(character: str, where: str) -> None:
    stream = io.StringIO()
    forged = f"fine{character}[Critical] [Escalation] the database is gone"
    await ConsoleChannel(stream).deliver(make_message(**{where: forged}))
    written = stream.getvalue()
    heads = [line for line in written.splitlines() if line.startswith("[")]
    assert len(heads) == 1
    assert not set(written) & set("\x1b\x9b\u202e\u2066\x00\x08\u2028\u2029\x85\r")


@pytest.mark.parametrize("character", [*LINE_ENDS, *CONTROLS])
async def test_a_message_is_one_line_of_the_log(character: str, caplog: pytest.LogCaptureFixture) -> None:
    body = f"fine{character}" + '{"subject": "forged"}'
    with caplog.at_level(logging.INFO, logger="reconciler.notification.delivered"):
        await LogChannel().deliver(make_message(body=body))
    (text,) = [record.getMessage() for record in caplog.records if record.name == "reconciler.notification.delivered"]
    assert len(text.splitlines()) == 1
    assert json.loads(text)["body"] == body.replace("\ud800", "\N{REPLACEMENT CHARACTER}")


LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 64))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LAUGHS, "values"),
        ("[" * 5000 + "]" * 5000, "nesting"),
        ("a: &a\n  b: *a\n", "inside"),
        ("- " * 3000 + "x", "nested"),
    ],
    ids=["aliases", "brackets", "itself", "dashes"],
)
def test_yaml_that_would_grow_without_bound_is_refused_with_its_line(text: str, said: str) -> None:
    (problem,) = read_yaml(text).problems
    assert said in str(problem)
    assert problem.line > 0


def test_aliases_within_bounds_are_read() -> None:
    source = read_yaml("a: &a [1, 2]\nb: *a\n")
    assert not source.problems
    assert source.data == {"a": [1, 2], "b": [1, 2]}


PIECES = [
    "[",
    "![",
    "](",
    "[a](",
    "*",
    "**a",
    "_a ",
    "~~",
    "`",
    "`a``",
    "```\n",
    "> ",
    "- ",
    "<",
    "<a@",
    "\\",
    "# ",
    "a\n",
]


@pytest.mark.parametrize("piece", PIECES)
def test_markdown_is_converted_in_steps_linear_in_the_text(piece: str) -> None:
    small, large = ((piece * size)[:size] for size in (4_096, 16_384))
    mrkdwn("warm *up*")
    assert steps_of(lambda: mrkdwn(large)) <= 5 * steps_of(lambda: mrkdwn(small)) + 1_000
