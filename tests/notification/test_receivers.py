"""Real receivers that misbehave: the result of each response, timeout or certificate."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import ssl
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
import trustme

from reconciler.errors import ConfigurationError
from reconciler.notification import (
    Credentials,
    DeferredDeliveryError,
    DeliveryError,
    Message,
    PermanentDeliveryError,
    Redactor,
    RetryableDeliveryError,
    UnknownDeliveryError,
)
from reconciler.notification.channel import Link
from reconciler.notification.channels.email import EmailChannel, EmailConfig
from reconciler.notification.channels.http import HTTPChannel, WebhookConfig
from reconciler.notification.channels.limits import LimitedChannel
from reconciler.notification.channels.slack import SlackConfig
from reconciler.notification.routing_config import ReceiverConfig
from tests.notification.receivers import (
    Behaviour,
    MailServer,
    Receiver,
    answer,
    endless,
    garbage,
    mail_server,
    receiver,
    reset,
    server_context,
    slow,
    stall,
)

NOBODY = Credentials()


def message(**changes: Any) -> Message:
    members: dict[str, Any] = {
        "name": "disk-full",
        "namespace": "prod",
        "uid": "u-1",
        "type": "Escalation",
        "priority": "High",
        "subject": "Disk almost full",
        "body": "93 % of **/data**",
        "channel": "webhook:oncall",
    }
    return Message(**{**members, **changes})


def webhook(target: Receiver, credentials: Credentials = NOBODY, **options: Any) -> HTTPChannel:
    config = {"url": target.url, "allow_local_addresses": True, "timeout": 5, **options}
    return WebhookConfig(**config).build("webhook:oncall", credentials)


async def sent(channel: Any, told: Message | None = None) -> DeliveryError | None:
    """Deliver, and return the delivery error, if any; a channel must raise nothing else."""
    try:
        await channel.deliver(told or message())
    except DeliveryError as error:
        return error
    finally:
        close = getattr(channel, "close", None)
        if close is not None:
            await close()
    return None


async def outcome(behaviour: Behaviour, **options: Any) -> DeliveryError | None:
    async with receiver(behaviour) as target:
        return await sent(webhook(target, **options))


# HTTP: every class of answer


@pytest.mark.parametrize("status", [200, 201, 202, 204])
async def test_any_success_is_a_delivery_whatever_the_body_says(status: int) -> None:
    assert await outcome(answer(status, b"{not json" if status != 204 else b"")) is None


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 410, 413, 422])
async def test_a_client_error_is_permanent(status: int) -> None:
    error = await outcome(answer(status, b"no such\n channel"))
    assert type(error) is PermanentDeliveryError
    assert str(error) == f"HTTP {status}: no such channel"


@pytest.mark.parametrize(
    ("status", "doubtful"),
    [(408, False), (425, False), (500, True), (502, True), (503, False), (504, True), (599, False)],
)
async def test_a_server_error_is_retryable(status: int, doubtful: bool) -> None:
    error = await outcome(answer(status))
    assert type(error) is RetryableDeliveryError
    assert (error.doubtful, error.retry_after) == (doubtful, None)


@pytest.mark.parametrize("status", [301, 302, 307, 308, 304])
async def test_a_redirect_is_not_followed(status: int) -> None:
    async with receiver(answer(status, location="http://elsewhere.example/")) as target:
        error = await sent(webhook(target))
        assert len(target.requests) == 1
    assert type(error) is PermanentDeliveryError
    assert "redirects are not followed" in str(error)


@pytest.mark.parametrize(("asked", "seconds"), [("7", 7.0), ("soon", None), ("", None), ("-3", None)])
async def test_retry_after_in_seconds_is_returned(asked: str, seconds: float | None) -> None:
    error = await outcome(answer(503, retry_after=asked))
    assert isinstance(error, RetryableDeliveryError)
    assert error.retry_after == seconds
    limited = await outcome(answer(429, retry_after=asked))
    assert isinstance(limited, DeferredDeliveryError)
    assert limited.retry_after == (seconds or 60.0)


async def test_retry_after_may_be_a_date() -> None:
    asked = format_datetime(datetime.now(UTC) + timedelta(seconds=120), usegmt=True)
    error = await outcome(answer(503, retry_after=asked))
    assert isinstance(error, RetryableDeliveryError)
    assert error.retry_after is not None
    assert 60 < error.retry_after <= 120


@pytest.mark.parametrize("hours", [2, -2])
async def test_a_date_to_retry_at_counts_from_the_date_of_the_response(hours: float) -> None:
    now = datetime.now(UTC) + timedelta(hours=hours)
    date, asked = (format_datetime(now + timedelta(seconds=seconds), usegmt=True) for seconds in (0, 120))
    error = await outcome(answer(503, retry_after=asked, Date=date))
    assert isinstance(error, RetryableDeliveryError)
    assert error.retry_after == 120


# HTTP: no response


async def test_an_unreachable_receiver_got_nothing() -> None:
    async with receiver() as target:
        pass
    told = message()
    error = await sent(webhook(target), told)
    assert type(error) is RetryableDeliveryError
    assert "cannot connect" in str(error)
    assert not told.is_sent


@pytest.mark.parametrize("behaviour", [reset(), stall(), garbage()])
async def test_a_receiver_that_does_not_respond_may_have_the_message(behaviour: Behaviour) -> None:
    told = message()
    async with receiver(behaviour) as target:
        error = await sent(webhook(target, timeout=2), told)
    assert type(error) is UnknownDeliveryError
    assert told.is_sent


async def test_an_endless_or_slow_response_body_does_not_block() -> None:
    async with asyncio.timeout(50):
        error = await outcome(endless())
        assert str(error).startswith("HTTP 500: xxx")
        assert len(str(error)) < 2_100
        assert isinstance(await outcome(slow(), timeout=0.5), (RetryableDeliveryError, UnknownDeliveryError))
        assert await outcome(endless(200)) is None


async def test_b14_a_delivery_that_is_cancelled_says_whether_it_was_sent() -> None:
    async with receiver(stall()) as target:
        told, channel = message(), webhook(target)
        task = asyncio.create_task(channel.deliver(told))
        while not target.requests:  # noqa: ASYNC110 - the server is another program in spirit
            await asyncio.sleep(0.01)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await channel.close()
        assert told.is_sent


# TLS


async def test_a_certificate_of_a_configured_private_authority_is_trusted(tmp_path: Path) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    async with receiver(tls=server_context(ca)) as target:
        assert await sent(webhook(target, ca_file=str(tmp_path / "ca.pem"))) is None
        error = await sent(webhook(target))
    assert type(error) is RetryableDeliveryError
    assert "certificate is not trusted" in str(error)
    assert len(target.requests) == 1


async def test_the_certificate_of_the_receiver_itself_is_trusted_if_it_is_configured(tmp_path: Path) -> None:
    """As kubectl does, and in every version of Python."""
    issued = trustme.CA().issue_cert("127.0.0.1", "localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issued.configure_cert(context)
    issued.cert_chain_pems[0].write_to_path(tmp_path / "ca.pem")
    async with receiver(tls=context) as target:
        assert await sent(webhook(target, ca_file=str(tmp_path / "ca.pem"))) is None


async def test_an_expired_or_foreign_certificate_gets_no_message(tmp_path: Path) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    past = datetime.now(UTC) - timedelta(days=1)
    expired = server_context(ca, not_after=past)
    foreign = server_context(ca, "elsewhere.example")
    for context, words in ((expired, "expired"), (foreign, "ostname")):
        async with receiver(tls=context) as target:
            error = await sent(webhook(target, ca_file=str(tmp_path / "ca.pem")))
            assert target.requests == []
        assert type(error) is RetryableDeliveryError
        assert words in str(error)


# Where a message may go


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/",
        "http://localhost:1/",
        "http://[::1]:1/",
        "http://[::ffff:127.0.0.1]:1/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[fe80::1]/",
        "http://0.0.0.0:1/",
        "http://127.1:1/",
        "http://2130706433:1/",
        "http://0x7f000001:1/",
    ],
)
async def test_a_loopback_address_is_blocked_unless_allowed(url: str) -> None:
    error = await sent(WebhookConfig(url=url).build("webhook:x", NOBODY))
    assert type(error) is PermanentDeliveryError
    assert "allow_local_addresses" in str(error)


async def test_a_url_credential_with_another_scheme_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "hook").write_text("file:///etc/passwd\n")
    config = WebhookConfig(url_credential="hook")
    error = await sent(config.build("webhook:x", Credentials(tmp_path)))
    assert type(error) is PermanentDeliveryError
    assert "passwd" not in str(error)


async def test_a_proxy_is_used_and_sees_the_receiver_s_name() -> None:
    async with receiver() as proxy:
        config = WebhookConfig(
            url="http://hooks.example/x", proxy=f"http://localhost:{proxy.port}", allow_local_addresses=True
        )
        assert await sent(config.build("webhook:x", NOBODY)) is None
    assert proxy.requests[0].path == "http://hooks.example/x"


# The webhook's request


async def test_a_webhook_gets_the_message_as_json_with_an_idempotency_key() -> None:
    told = message(
        recipients=("ann",),
        extensions={"team": "storage"},
        links=(Link(service="grafana", url="https://g/x", label="G"),),
    )
    async with receiver() as target:
        assert await sent(webhook(target), told) is None
    (request,) = target.requests
    assert (request.method, request.headers["content-type"]) == ("POST", "application/json")
    assert request.headers["idempotency-key"] == "u-1/webhook:oncall"
    assert json.loads(request.body) == {
        "notification": "disk-full",
        "namespace": "prod",
        "uid": "u-1",
        "type": "Escalation",
        "priority": "High",
        "subject": "Disk almost full",
        "body": "93 % of **/data**",
        "channel": "webhook:oncall",
        "attempt": 1,
        "idempotencyKey": "u-1/webhook:oncall",
        "recipients": ["ann"],
        "extensions": {"team": "storage"},
        "actionLinks": [{"service": "grafana", "url": "https://g/x", "label": "G"}],
    }


async def test_headers_and_the_signature_use_the_current_credentials(tmp_path: Path) -> None:
    for name, value in (("token", "Bearer t1"), ("key", "k1")):
        (tmp_path / name).write_text(value + "\n")
    async with receiver() as target:
        channel = webhook(
            target,
            Credentials(tmp_path),
            headers={"X-Team": "storage"},
            header_credentials={"Authorization": "token"},
            hmac_credential="key",
        )
        await channel.deliver(message())
        (tmp_path / "token").write_text("Bearer t2")
        (tmp_path / "key").write_text("k2")
        await channel.deliver(message(attempt=2))
        await channel.close()
    first, second = target.requests
    assert (first.headers["x-team"], first.headers["authorization"]) == ("storage", "Bearer t1")
    assert second.headers["authorization"] == "Bearer t2"
    for request, key in ((first, b"k1"), (second, b"k2")):
        digest = hmac.new(key, request.body, hashlib.sha256).hexdigest()
        assert request.headers["x-signature-256"] == f"sha256={digest}"


async def test_a_configured_header_replaces_the_default() -> None:
    async with receiver() as target:
        channel = webhook(target, headers={"content-type": "text/plain", "user-agent": "mine"})
        assert await sent(channel) is None
    assert (target.requests[0].headers["content-type"], target.requests[0].headers["user-agent"]) == (
        "text/plain",
        "mine",
    )


async def test_a_missing_credential_is_retryable(tmp_path: Path) -> None:
    async with receiver() as target:
        channel = webhook(target, Credentials(tmp_path), header_credentials={"Authorization": "token"})
        error = await sent(channel)
        assert type(error) is RetryableDeliveryError
        assert "credential 'token' not found" in str(error)
        (tmp_path / "token").write_text("x")
        assert await sent(channel) is None


async def test_a_template_renders_the_body_and_what_a_message_lacks_is_empty() -> None:
    members = ("subject", "extensions.team", "incident.key", "actionLinks[0].url", "sender")
    template = f"[{', '.join(f'{{{{ {name} | tojson }}}}' for name in members)}]"
    async with receiver() as target:
        told = message(
            subject='say "hi"',
            extensions={"team": "storage"},
            incident="disk",
            links=(Link(service="s", url="https://x.example", label="x"),),
            sender="ci",
        )
        assert await sent(webhook(target, template=template), told) is None
        assert await sent(webhook(target, template=template), message()) is None
    first, second = (json.loads(request.body) for request in target.requests)
    assert first == ['say "hi"', "storage", "disk", "https://x.example", "ci"]
    assert second == ["Disk almost full", None, None, None, None]


@pytest.mark.parametrize(
    "source",
    ["{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}", "{{ 'a' * 1000000000 }}"],
)
async def test_a_template_that_would_never_end_is_stopped(source: str) -> None:
    async with receiver() as target, asyncio.timeout(50):
        error = await sent(webhook(target, template=source))
        assert target.requests == []
    assert type(error) is PermanentDeliveryError


async def test_an_invalid_template_is_an_error_when_it_is_loaded() -> None:
    async with receiver() as target:
        with pytest.raises(ConfigurationError, match="invalid template of webhook:oncall"):
            webhook(target, template="{% if %}")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "set exactly one of url and url_credential"),
        ({"url": "https://a", "url_credential": "b"}, "set exactly one of url and url_credential"),
        ({"url": "ftp://a"}, "pattern"),
        ({"url": "https://a", "headers": {"Host": "b"}}, "the channel sets it"),
        ({"url": "https://a", "headers": {"X-A": "b\r\nX-C: d"}}, "line break"),
        ({"url": "https://a", "headers": {"X A": "b"}}, "not a valid header name"),
        ({"url": "https://a", "methd": "PUT"}, "Extra inputs"),
    ],
)
def test_an_invalid_webhook_configuration_is_rejected(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        WebhookConfig(**options)


async def test_b12_no_error_contains_the_secret_url(tmp_path: Path) -> None:
    async with receiver(answer(404, b"no /hook/T0P5ECRET here"), reset(), stall(), garbage(), answer(500)) as target:
        (tmp_path / "url").write_text(target.url)
        credentials = Credentials(tmp_path)
        config = WebhookConfig(url_credential="url", allow_local_addresses=True, timeout=0.3)
        channel = config.build("webhook:x", credentials)
        redactor = Redactor(credentials.values)
        texts = [redactor.describe(error) for _ in range(5) if (error := await sent(channel)) is not None]
    async with receiver() as gone:
        (tmp_path / "url").write_text(gone.url)
    texts.append(redactor.describe(await sent(channel) or ValueError()))
    assert len(texts) == 6
    assert not any("T0P5ECRET" in text for text in texts), texts


# Slack


async def test_slack_gets_blocks_within_its_limits(tmp_path: Path) -> None:
    told = message(
        channel="slack:oncall",
        subject="S" * 500,
        body="**bold** [run](https://r.example/b?a=1&b=2) <!here> " + "word " * 20_000,
        links=(Link(service="grafana", url="https://g.example/", label="Dashboard " * 10),),
    )
    async with receiver() as target:
        (tmp_path / "hook").write_text(target.url)
        config = SlackConfig(url_credential="hook", allow_local_addresses=True)
        assert await sent(config.build("slack:oncall", Credentials(tmp_path)), told) is None
    payload = json.loads(target.requests[0].body)
    header, *sections, actions, context = payload["blocks"]
    assert header["text"]["type"] == "plain_text"
    assert len(header["text"]["text"]) <= 150
    assert len(payload["blocks"]) <= 50
    texts = [section["text"]["text"] for section in sections]
    assert all(0 < len(text) <= 3000 for text in texts)
    assert texts[0] == f"*{'S' * 500}*"
    assert texts[1].startswith("*bold* <https://r.example/b?a=1&amp;b=2|run> &lt;!here&gt; word")
    assert texts[-1].endswith("…")
    assert len(actions["elements"][0]["text"]["text"]) <= 75
    assert context["elements"][0]["text"] == "High | Escalation | prod/disk-full"


# Mail


def mail_config(server: MailServer, tmp_path: Path, **options: Any) -> EmailConfig:
    known: dict[str, Any] = {
        "host": "localhost",
        "port": server.port,
        "username": "operator",
        "password_credential": "smtp",
        "sender": "notify@example.com",
        "to": ["ann@example.com", "bob@example.com"],
        "ca_file": str(tmp_path / "ca.pem"),
        "timeout": 5,
        **options,
    }
    return EmailConfig(**known)


@pytest.fixture
def ca(tmp_path: Path) -> trustme.CA:
    made = trustme.CA()
    made.cert_pem.write_to_path(tmp_path / "ca.pem")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "smtp").write_text("hunter2!\n")
    return made


def mail(server: MailServer, tmp_path: Path, **options: Any) -> EmailChannel:
    return EmailChannel("email:oncall", mail_config(server, tmp_path, **options), Credentials(tmp_path / "secrets"))


async def test_a_mail_goes_out_over_tls_with_a_login_as_text_and_html(ca: trustme.CA, tmp_path: Path) -> None:
    told = message(
        channel="email:oncall",
        subject="Ümläut & <b>",
        body="first\n<script>alert(1)</script>",
        links=(Link(service="g", url="https://g.example/?a=1&b=2", label="Look"),),
    )
    async with mail_server(server_context(ca)) as server:
        channel = mail(server, tmp_path)
        assert await sent(channel, told) is None
        assert await sent(channel, message(channel="email:oncall", attempt=2)) is None
    assert server.logins == [("operator", "hunter2!")] * 2
    envelope = server.mails[0]
    assert envelope.rcpt_tos == ["ann@example.com", "bob@example.com"]
    parsed: Any = message_from_bytes(envelope.content or b"", policy=policy.default)  # type: ignore[arg-type]
    assert parsed["Subject"] == "[High] Ümläut & <b>"
    text, page = parsed.get_body(("plain",)).get_content(), parsed.get_body(("html",)).get_content()
    assert text.startswith("first\r\n<script>")
    assert "Look: https://g.example/?a=1&b=2" in text
    assert "<script>" not in page
    again: Any = message_from_bytes(server.mails[1].content or b"", policy=policy.default)  # type: ignore[arg-type]
    assert again["Message-ID"] == parsed["Message-ID"]


async def test_recipients_of_the_request_take_precedence_over_those_of_the_receiver(
    ca: trustme.CA, tmp_path: Path
) -> None:
    async with mail_server(server_context(ca)) as server:
        assert await sent(mail(server, tmp_path), message(recipients=("eve@example.com",))) is None
        error = await sent(mail(server, tmp_path, to=[]))
        bad = await sent(mail(server, tmp_path), message(recipients=("a@b\r\nBcc: all@example.com",)))
    assert server.mails[0].rcpt_tos == ["eve@example.com"]
    assert len(server.mails) == 1
    assert type(error) is type(bad) is PermanentDeliveryError


async def test_an_email_is_seven_bit_and_a_non_ascii_address_is_permanent(ca: trustme.CA, tmp_path: Path) -> None:
    async with mail_server(server_context(ca)) as server:
        assert await sent(mail(server, tmp_path), message(subject="🚒 ä", body="ü" * 2000)) is None
        error = await sent(mail(server, tmp_path), message(recipients=("jürgen@example.com",)))
    content: Any = server.mails[0].content
    assert max(content) < 128
    assert max(len(line) for line in content.split(b"\r\n")) < 999
    assert type(error) is PermanentDeliveryError


@pytest.mark.parametrize(
    ("refuse", "kind", "words"),
    [
        ({"DATA": "451 try later"}, RetryableDeliveryError, "451 try later"),
        ({"DATA": "554 spam"}, PermanentDeliveryError, "554 spam"),
        (
            {"ann@example.com": "550 unknown", "bob@example.com": "550 unknown"},
            PermanentDeliveryError,
            "rejected all recipients: 550 unknown",
        ),
        ({"ann@example.com": "450 try again later"}, RetryableDeliveryError, "450 try again later"),
        ({"ann@example.com": "550 unknown"}, type(None), ""),
    ],
)
async def test_rejections_of_a_mail_server_are_retryable_or_permanent(
    ca: trustme.CA, tmp_path: Path, refuse: dict[str, str], kind: type, words: str
) -> None:
    async with mail_server(server_context(ca)) as server:
        server.refuse = refuse
        error = await sent(mail(server, tmp_path))
    assert type(error) is kind
    assert words in str(error)


@pytest.mark.parametrize(
    ("refuse", "state"),
    [
        ({"ann@example.com": "450 mailbox busy"}, "closed"),
        ({"ann@example.com": "452 4.2.2 mailbox full"}, "closed"),
        ({"ann@example.com": "451 4.3.0 local error"}, "open"),
        ({"DATA": "450 try later"}, "open"),
    ],
)
async def test_a_refusal_of_one_recipient_does_not_count_against_the_mail_server(
    ca: trustme.CA, tmp_path: Path, refuse: dict[str, str], state: str
) -> None:
    async with mail_server(server_context(ca)) as server:
        server.refuse = refuse
        channel = LimitedChannel(mail(server, tmp_path), ReceiverConfig(breaker_failures=2))
        errors = [await sent(channel) for _ in range(2)]
    assert [type(error) for error in errors] == [RetryableDeliveryError] * 2
    assert channel.breaker.state == state


async def test_a_mail_server_that_cannot_be_trusted_gets_no_password(ca: trustme.CA, tmp_path: Path) -> None:
    async with mail_server(server_context(trustme.CA())) as server:
        error = await sent(mail(server, tmp_path))
        assert server.logins == []
    assert type(error) is RetryableDeliveryError
    assert "certificate is not trusted" in str(error)
    async with mail_server(None) as plain:
        error = await sent(mail(plain, tmp_path))
        assert plain.logins == []
        assert plain.mails == []
    assert isinstance(error, DeliveryError)


async def test_a_wrong_password_is_retryable_and_never_in_the_error(ca: trustme.CA, tmp_path: Path) -> None:
    (tmp_path / "secrets" / "smtp").write_text("wr0ngpassword")
    async with mail_server(server_context(ca)) as server:
        error = await sent(mail(server, tmp_path))
    assert type(error) is RetryableDeliveryError
    assert "wr0ngpassword" not in str(error)


async def test_an_unreachable_mail_server_got_nothing(ca: trustme.CA, tmp_path: Path) -> None:
    async with mail_server(server_context(ca)) as server:
        pass
    assert type(await sent(mail(server, tmp_path))) is RetryableDeliveryError


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"username": None}, "must be set together"),
        ({"security": "none"}, "unencrypted"),
        ({"sender": "no address"}, "pattern"),
    ],
)
def test_mail_that_cannot_work_is_refused_when_it_is_configured(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        mail_config(MailServer(port=25), Path(), **options)


@pytest.mark.parametrize("before", range(230, 270, 4))
async def test_a_secret_that_a_receiver_repeats_is_not_cut_in_two(tmp_path: Path, before: int) -> None:
    secret = "hunter2-" * 4
    (tmp_path / "token").write_text(secret)
    credentials = Credentials(tmp_path)
    assert secret in credentials.values()
    error = await outcome(answer(500, b"x" * before + secret.encode()))
    assert "hunt" not in Redactor(credentials.values).describe(error or ValueError())
