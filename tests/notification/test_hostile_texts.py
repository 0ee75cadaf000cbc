"""Hostile texts of users have no effect on channels. Each test passes many texts to one channel.

``FUZZ_EXAMPLES`` says how many texts each test throws (50 by default, 200 in a thorough run), ``FUZZ_SEED`` which (1
by default).
"""

from __future__ import annotations

import asyncio
import email
import email.policy
import io
import json
import logging
import os
import random
import subprocess
import sys
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest

from reconciler.notification import (
    ConsoleChannel,
    Credentials,
    FileChannel,
    LogChannel,
    Message,
    PermanentDeliveryError,
    Redactor,
)
from reconciler.notification.channel import Link
from reconciler.notification.channels import slack
from reconciler.notification.channels.email import EmailChannel, EmailConfig, email_message
from reconciler.notification.channels.slack import SlackConfig, mrkdwn, slack_payload
from reconciler.telemetry import JSONFormatter
from tests.depth import examples
from tests.notification.receivers import mail_server
from tests.notification.steps import steps
from tests.notification.world import Recorder, virtual, world

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", examples(200)))
SEED = int(os.environ.get("FUZZ_SEED", "1"))
SECRET = "s3cr3tValue0123456789abcdef"
CONFIG = EmailConfig(host="localhost", sender="notify@example.com", to=["ann@example.com"], security="none")
LINE_ENDS = ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]
PIECES = [
    *LINE_ENDS,
    *("=?utf-8?q?a=0d=0aBcc:_x?=", "=?utf-8?b?DQpCY2M6IHg=?=", "=?", "?=", "Bcc: eve@example.com", "\x00", "\x1b[2J"),
    *("\u202e", "\u2066", "\ufeff", "\ud800", "\udfff", "\x9b", "[Critical] [Escalation] fake", "🚒", "ü", "\x7f"),
    *("*", "_", "`", "```", "~~", "[", "](", "](https://x)", "> ", "- ", "# ", "<!here>", "<", ">", "&", "|", "!["),
    *(" ", "a", "word ", "\\", '"', "{", "}", ".", "--", "-- \n", "From ", ":", ";", ",", "%0d%0a"),
]
FORMS = [
    "password={}",
    '{{"password": "{}"}}',
    "Authorization: Custom {}",
    "https://user:{}@host/",
    "--password {}",
    "ghp_{}",
    "curl -u user:{}",
    "%70assword%3D{}",
    "Cookie: sid={}",
]


def texts(seed: int) -> list[str]:
    source = random.Random(f"{SEED}.{seed}")
    return ["".join(source.choice(PIECES) for _ in range(source.randint(1, 30))) for _ in range(max(1, EXAMPLES))]


def message(**changes: Any) -> Message:
    members: dict[str, Any] = {
        "name": "disk-full",
        "namespace": "prod",
        "uid": "u-1",
        "type": "Escalation",
        "priority": "High",
        "subject": "Disk almost full",
        "body": "93 %",
        "channel": "c",
    }
    return Message(**{**members, **changes})


def hostile(text: str) -> Message:
    return message(
        subject=text, body=text, extensions={text: text}, links=(Link(service="s", url="https://x/", label=text),)
    )


# Mail


def headers_of(raw: bytes) -> list[str]:
    lines = raw.partition(b"\r\n\r\n")[0].split(b"\r\n")
    return [line.partition(b":")[0].decode() for line in lines if line[:1] > b" "]


EXPECTED = headers_of(email_message(message(), CONFIG).as_bytes())


@pytest.mark.parametrize("seed", range(3))
def test_a_mail_has_the_headers_that_it_should_and_no_others(seed: int) -> None:
    for text in texts(seed):
        raw = email_message(hostile(text), CONFIG).as_bytes()
        assert headers_of(raw) == EXPECTED, text
        head = raw.partition(b"\r\n\r\n")[0]
        assert b"\r" not in head.replace(b"\r\n", b"")
        assert b"\n" not in head.replace(b"\r\n", b"")
        for reader in (email.policy.default, email.policy.SMTP, email.policy.compat32):
            parsed: Any = message_from_bytes(raw, policy=reader)  # type: ignore[arg-type]
            assert parsed["Bcc"] is None
            assert [part.get_content_type() for part in parsed.walk()] == [
                "multipart/alternative",
                "text/plain",
                "text/html",
            ]


@pytest.mark.parametrize(
    "subject",
    ["=?utf-8?q?a=0d=0aBcc:_x?=", "x =?utf-8?b?DQpCY2M6IHg=?= y", "ü" * 500, "a" * 500, "w " * 250, "🚒=?a?q?b?="],
)
def test_a_subject_arrives_unchanged(subject: str) -> None:
    raw = email_message(message(subject=subject), CONFIG).as_bytes()
    assert max(len(line) for line in raw.split(b"\r\n")) <= 998
    parsed: Any = message_from_bytes(raw, policy=email.policy.default)  # type: ignore[arg-type]
    assert parsed["Subject"] == f"[High] {subject}".strip()


@pytest.mark.parametrize(
    "recipient",
    [
        "=?utf-8?q?a=0d=0aBcc:_x?=@example.com",
        "a@b\r\nBcc: c@example.com",
        "Ann <a@example.com>",
        '"a\r\nb"@example.com',
        "a@example.com, b@example.com",
        "a@example.com\x00",
        "a@b>\r\nDATA",
        "\u202ea@example.com",
        "\ud800@example.com",
        "",
    ],
)
def test_an_address_that_is_more_than_one_is_refused(recipient: str) -> None:
    with pytest.raises(PermanentDeliveryError, match="is not a valid email address"):
        email_message(message(recipients=(recipient,)), CONFIG)


async def test_a_mail_server_gets_one_mail_whatever_the_text(tmp_path: Path) -> None:
    async with mail_server(None) as server:
        config = EmailConfig(**{**CONFIG.model_dump(), "port": server.port})
        channel = EmailChannel("email:x", config, Credentials(tmp_path))
        told = [*texts(7)[:20], "a\r\n.\r\nMAIL FROM:<x@y>\r\n", "a\n.\nb", "a\r.\rb", "\n.\n"]
        for text in told:
            await channel.deliver(hostile(text))
    assert len(server.mails) == len(told)
    assert all(mail.rcpt_tos == ["ann@example.com"] for mail in server.mails)
    assert all(headers_of(mail.content or b"") == EXPECTED for mail in server.mails)  # type: ignore[arg-type]


# Console, log, file


def lines_of(text: str) -> list[str]:
    """Split text at all line separators that any program knows, like Python's `str.splitlines`."""
    return text.splitlines()


@pytest.mark.parametrize("seed", range(3))
async def test_only_the_first_line_of_a_message_looks_like_one_on_the_console(seed: int) -> None:
    for text in texts(seed):
        stream = io.StringIO()
        await ConsoleChannel(stream).deliver(hostile(text))
        first, *others = lines_of(stream.getvalue())
        assert first.startswith("[High] [Escalation] ")
        assert not any(line.lstrip("\ufeff").startswith("[") for line in others), text
        assert not set("\x1b\x9b\r\x0b\x0c\x85\u2028\u2029\u202e\u2066\x00\ud800") & set(stream.getvalue())


@pytest.mark.parametrize("seed", range(3))
async def test_a_message_is_one_line_in_the_log(seed: int) -> None:
    logger = logging.Logger("x")  # noqa: LOG001 - one that nobody else knows
    for text in texts(seed):
        stream = io.StringIO()
        handler = logging.StreamHandler(stream)
        logger.handlers = [handler]
        await LogChannel(logger).deliver(hostile(text))
        (line,) = lines_of(stream.getvalue())
        found = json.loads(line)
        assert found["notification"] == "disk-full"
        assert found["body"] == "".join("\ufffd" if "\ud800" <= sign <= "\udfff" else sign for sign in text)
        handler.setFormatter(JSONFormatter())
        await LogChannel(logger).deliver(hostile(text))


def test_a_message_is_one_file_in_the_directory_whatever_it_is_called(tmp_path: Path) -> None:
    directory = tmp_path / "in"
    names = ["..", "../../x", "a/b", "a\x00b", "\n", "." * 300, "ü" * 300, "\ud800", ""]
    for name in names:
        told = message(name=name, namespace=name, uid=f"{names.index(name)}-{name}")
        asyncio.run(FileChannel(directory).deliver(told))
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    files = list(directory.iterdir())
    assert len(files) == len(names)
    assert all(json.loads(file.read_bytes())["body"] == "93 %" for file in files)


# Slack


@pytest.mark.parametrize("seed", range(3))
def test_slack_gets_no_mention_and_no_open_code(seed: int) -> None:
    for text in texts(seed):
        payload = slack_payload(hostile(text))
        json.dumps(payload, ensure_ascii=False).encode()
        for block in payload["blocks"]:
            if block["type"] == "section":
                assert "<!" not in block["text"]["text"], text
                assert block["text"]["text"].count("```") % 2 == 0, text


@pytest.mark.parametrize(
    ("markdown", "shown"),
    [
        ("# Head *x*\ntext", "*Head x*\n\ntext"),
        ("- a\n- b\n  - c", "• a\n• b\n    • c"),
        ("2. x\n3. y", "2. x\n3. y"),
        ("> a **b**\n> c", "> a *b*\n> c"),
        ("```py\na < b\n```", "```a &lt; b```"),
        ("[l|x](https://a/?b=c&d=e)", "<https://a/?b=c&amp;d=e|l/x>"),
        ("![i](https://p)", "<https://p|i>"),
        ("[a](javascript:x) [b](/c)", "[a](javascript:x) b (/c)"),
        ("~~no~~ __b__ *e* a_b_c", "~no~ *b* _e_ a_b_c"),
        ("`c<d` ``a`b``", "`c&lt;d` `a'b`"),
        ("<!here> <@U1> &lt;", "&lt;!here&gt; &lt;@U1&gt; &amp;lt;"),
        ("> " * 40 + "deep", "&gt; " * 40 + "deep"),
    ],
)
def test_markdown_is_converted_to_mrkdwn(markdown: str, shown: str) -> None:
    assert mrkdwn(markdown) == shown


# Redaction before the channels


@virtual
async def test_no_channel_gets_a_secret_and_each_text_is_redacted_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    redacted: list[str] = []
    redact = Redactor.redact
    monkeypatch.setattr(Redactor, "redact", lambda self, text, *of: (redacted.append(text), redact(self, text, *of))[1])
    channels = [Recorder(f"r{number}") for number in range(16)]
    body = "\n".join(form.format(SECRET) for form in FORMS)
    async with world() as w, w.operator(*channels):
        await w.create(
            *(channel.name for channel in channels),
            spec={
                "body": body,
                "subject": f"password={SECRET}",
                "extensions": {"dbPassword": SECRET, "team": "storage", f"token={SECRET}": "x"},
                "actionLinks": [{"service": "s", "url": f"https://x/?token={SECRET}", "label": f"token={SECRET}"}],
            },
        )
        await asyncio.sleep(10)
    assert redacted.count(body) == 1
    for channel in channels:
        (told,) = channel.messages
        assert SECRET not in repr(told)
        assert told.extensions["team"] == "storage"


def test_a_planted_secret_leaves_no_trace_among_hostile_pieces() -> None:
    source = random.Random(SEED)
    # Excludes neighbors that change the form itself, such as a quotation mark inside a name.
    neighbours = [piece for piece in PIECES if not set(piece) & set("\\\"'`{}%=:;,&<>|-_[]().!\ud800\udfff")]
    for _ in range(EXAMPLES):
        before, after = (
            "".join(source.choice(neighbours) for _ in range(source.randint(0, 10))) + "\n" for _ in range(2)
        )
        text = before + source.choice(FORMS).format(SECRET) + "\n" + after
        assert SECRET not in Redactor().redact(text), text
        assert SECRET not in Redactor().redact(json.dumps({"a": [text, json.dumps(text)]})), text


# Exceptions that cannot be shown


class Rude(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


@virtual
async def test_an_error_whose_text_fails_does_not_affect_other_requests() -> None:
    rude, pager = Recorder("rude", [Rude()]), Recorder("pager")
    async with world() as w, w.operator(rude, pager):
        await w.create("rude", "pager", maxAttempts=1)
        await w.create("pager", name="other")
        await asyncio.sleep(100)
        assert (await w.status())["phase"] == "PartiallySent"
        assert (await w.status())["channels"][0]["lastError"] == "Rude"
        assert (await w.status("other"))["phase"] == "Sent"


# The cost


@pytest.mark.parametrize(
    "piece",
    [
        *("[", "![", "[a](", "[a](<b", "*a_ ", "**", "_a__b", "~~a", "`a``b", "> ", "- ", "* a\n", "[a]: b\n", "|a"),
        *("<a ", "<!--", "<http:", "\\*", "# ", "# a\n", "```\n", "\n", "[*`", "[a\n", "> - ", "a *a **a ", "&#x41;"),
    ],
)
def test_the_steps_of_markdown_grow_with_the_text_and_not_faster(piece: str) -> None:
    mrkdwn("warm")
    small, large = ((piece * size)[:size] for size in (1_000, 4_000))
    assert steps(lambda: mrkdwn(large)) <= 5 * steps(lambda: mrkdwn(small)) + 2_000


def test_only_the_part_of_a_body_that_slack_shows_is_converted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slack, "BODY_LIMIT", 3_000)
    slack_payload(message())
    shown, more = (steps(lambda size=size: slack_payload(message(body="[" * size))) for size in (3_000, 6_500))
    assert more <= 1.1 * shown


async def test_the_conversion_does_not_block_the_event_loop(tmp_path: Path) -> None:
    """It runs in a thread, so the event loop continues: a lease is renewed, other requests are delivered."""
    config = SlackConfig(url="http://127.0.0.1:9/", allow_local_addresses=True)
    channel = config.build("slack:x", Credentials(tmp_path))
    task = asyncio.create_task(channel.deliver(message(body="![" * 32_000)))
    turns = 0
    while not task.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns > 10
    assert isinstance(task.exception(), Exception)
    await channel.close()


def test_with_core_alone_texts_are_redacted_and_console_log_and_file_work() -> None:
    program = """
import subprocess
import sys
for name in ("re2", "markdown_it", "minijinja", "aiosmtplib", "aiolimiter"):
    sys.modules[name] = None
import asyncio, tempfile
from reconciler.errors import MissingExtra
from reconciler.notification import *
from reconciler.notification import Redactor
from reconciler.notification.channels.slack import SlackConfig
m = Message(name="n", namespace="d", uid="u", type="Simple", priority="Low", subject="s", channel="c",
            body=Redactor().redact("password=hunter2"))
async def main():
    for channel in (ConsoleChannel(), LogChannel(), FileChannel(tempfile.mkdtemp())):
        await channel.deliver(m)
asyncio.run(main())
try:
    SlackConfig(url="https://x").build("slack:x", Credentials())
except MissingExtra as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "[Low] [Simple] s",
        "password=[REDACTED]",
        "Slack needs markdown_it: pip install 'kube-reconciler[notification]'",
    ]
