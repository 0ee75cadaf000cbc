"""Malicious receivers: whatever they respond, a delivery ends in limited time and memory with a limited text."""

from __future__ import annotations

import asyncio
import gzip
import tracemalloc

import pytest

from reconciler.notification import (
    DeliveryError,
    PermanentDeliveryError,
    RetryableDeliveryError,
    UnknownDeliveryError,
)
from reconciler.notification.channels.email import EmailChannel, EmailConfig
from tests.notification.receivers import Behaviour, Receiver, answer, endless, receiver
from tests.notification.test_receivers import NOBODY, message, outcome, sent, webhook


def raw(*parts: bytes, pause: float = 0.0, repeat: bytes = b"", reset: bool = False) -> Behaviour:
    """Write the first bytes once, then the others as long as the client reads."""

    async def behave(_: Receiver, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
        await writer.drain()
        if reset:
            writer.transport.abort()
            raise ConnectionResetError
        while repeat:
            writer.write(repeat)
            await writer.drain()
            await asyncio.sleep(pause)

    return behave


OK = b"HTTP/1.1 200 OK\r\n"
BROKEN = b"HTTP/1.1 500 X\r\n"
BOMB = gzip.compress(b"x" * 50_000_000)


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        (endless(200), type(None)),
        (endless(500), RetryableDeliveryError),
        (endless(404), PermanentDeliveryError),
        (raw(BROKEN + b"content-length: 9\r\n\r\n", repeat=b"", reset=True), RetryableDeliveryError),
        (raw(OK + b"content-length: 9\r\n\r\nx", reset=True), type(None)),
        (raw(OK + b"content-length: 9\r\n", reset=True), UnknownDeliveryError),
        (raw(OK, repeat=b"x-more: " + b"y" * 1000 + b"\r\n"), UnknownDeliveryError),
        (raw(OK + b"x-long: ", repeat=b"y" * 65_536), UnknownDeliveryError),
        (raw(OK, repeat=b"x: y\r\n", pause=0.01), UnknownDeliveryError),
        (raw(repeat=b"HTTP/1.1 103 Early Hints\r\n\r\n", pause=0.001), UnknownDeliveryError),
        (raw(b"HTTP/1.1 101 Switching\r\n\r\n"), PermanentDeliveryError),
        (raw(BROKEN + b"content-length: 100\r\n\r\n", repeat=b"x", pause=0.05), RetryableDeliveryError),
        (raw(BROKEN + b"transfer-encoding: chunked\r\n\r\n", repeat=b"1\r\nx\r\n", pause=0.05), RetryableDeliveryError),
        (answer(500, BOMB, Content_Encoding="gzip"), RetryableDeliveryError),
        (answer(400, b"\x1b[31m\x00" + "ä".encode() * 5000), PermanentDeliveryError),
    ],
)
async def test_a_delivery_ends_whatever_the_receiver_answers(
    behaviour: Behaviour, kind: type[DeliveryError | None]
) -> None:
    async with asyncio.timeout(20), receiver(behaviour) as target:
        tracemalloc.start()
        try:
            error = await sent(webhook(target, timeout=1))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert type(error) is kind
    assert peak < 20_000_000
    assert len(str(error or "")) < 2_100
    assert str(error).isprintable()


async def test_a_compressed_answer_is_neither_asked_for_nor_unpacked() -> None:
    async with receiver(answer(400, BOMB, Content_Encoding="gzip")) as target:
        error = await sent(webhook(target))
    assert target.requests[0].headers["accept-encoding"] == "identity"
    assert str(error) == "HTTP 400: (compressed response)"


async def test_an_invalid_retry_after_is_ignored() -> None:
    dates = "Fri, 31 Dec 9999 23:59:59 -2359", "Fri, 31 Dec 99999 23:59:59 GMT", "1 Jan 2020 00:00:00 +99999999999999"
    for asked in ("9" * 400, "1e999", "-5", "inf", "nan", *dates):
        error = await outcome(answer(503, Retry_After=asked))
        assert isinstance(error, RetryableDeliveryError)
        assert error.retry_after is None or 0 < error.retry_after < 1e12


@pytest.mark.parametrize("host", ["169.254.169.254", "[fe80::1]".strip("[]"), "100.100.100.200", "2852039166"])
async def test_a_mail_server_is_not_looked_for_at_a_metadata_address(host: str) -> None:
    config = EmailConfig(host=host, sender="n@example.com", to=["a@example.com"])
    error = await sent(EmailChannel("email:x", config, NOBODY), message(channel="email:x"))
    assert type(error) is PermanentDeliveryError
