"""Bugs B1 to B18 of the original that other files do not cover. They must be absent here.

B1, B2, B6, B8 to B10 stand in test_operator; B3, B4, B5, B7, B12 and B14 there and where their parts are tested.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from reconciler.notification import (
    Credentials,
    Message,
    NotificationRequest,
    RetryableDeliveryError,
)
from reconciler.notification.channels.http import WebhookConfig
from reconciler.notification.channels.slack import SlackConfig, slack_payload
from tests.notification.receivers import answer, receiver
from tests.notification.world import DOWN, Recorder, virtual, world

BUSY = RetryableDeliveryError("503")


def message(**changes: Any) -> Message:
    members: dict[str, Any] = {
        "name": "disk-full",
        "namespace": "prod",
        "uid": "u-1",
        "type": "Escalation",
        "priority": "High",
        "subject": "Disk",
        "body": "93 %",
        "channel": "slack:oncall",
    }
    return Message(**{**members, **changes})


class Broken:
    """A channel that crashes, as one without its configuration does."""

    name = "broken"

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._client: Any = None

    async def deliver(self, message: Message) -> None:
        self.messages.append(message)
        self._client.send(message)


@virtual
async def test_b11_a_crashing_channel_has_correct_attempt_numbers_and_does_not_affect_other_requests() -> None:
    broken, pager = Broken(), Recorder("pager")
    async with world() as w, w.operator(broken, pager) as (_, reconciler):
        await w.create("broken", "pager", maxAttempts=3)
        await w.create("pager", name="other")
        await asyncio.sleep(1000)
        status, other = await w.status(), await w.status("other")
        assert reconciler.statistics().active == 0
    assert [each.attempt for each in broken.messages] == [1, 2, 3]
    assert (status["phase"], other["phase"], len(pager.calls)) == ("PartiallySent", "Sent", 2)
    assert "AttributeError" in status["channels"][0]["lastError"]


@pytest.mark.parametrize("body", ["ü" * 65_536, "🚒" * 40_000, "&<>" * 20_000, "`" * 65_536, "# x\n" * 10_000, " "])
def test_b13_slack_messages_are_within_the_limits_and_no_character_is_split(body: str) -> None:
    payload = slack_payload(message(subject="🚒" * 500, body=body))
    header, *_ = payload["blocks"]
    assert len(header["text"]["text"]) <= 150
    sections = [block["text"]["text"] for block in payload["blocks"] if block["type"] == "section"]
    assert all(0 < len(text) <= 3000 for text in sections)
    assert len(payload["blocks"]) <= 50
    json.dumps(payload, ensure_ascii=False).encode()


async def test_b15_a_rotated_url_is_used_by_the_next_message_without_reloading_the_routing(tmp_path: Path) -> None:
    async with receiver(answer(200)) as old, receiver(answer(200)) as new:
        (tmp_path / "hook").write_text(old.url)
        config = WebhookConfig(url_credential="hook", allow_local_addresses=True)
        channel = config.build("webhook:oncall", Credentials(tmp_path))
        await channel.deliver(message())
        (tmp_path / "hook").write_text(new.url)
        await channel.deliver(message(uid="u-2"))
        await channel.close()
        assert (len(old.requests), len(new.requests)) == (1, 1)


@virtual
async def test_b16_requests_with_one_name_in_two_namespaces_and_a_recreated_one_have_different_keys() -> None:
    pager = Recorder("pager")
    async with world() as w, w.operator(pager):
        await w.client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "prod"}})
        await w.create("pager")
        elsewhere = NotificationRequest.from_dict(
            {**(await w.client.get(NotificationRequest, "disk-full", "default")).to_dict(), "status": {}}
            | {"metadata": {"name": "disk-full", "namespace": "prod"}}
        )
        await w.client.create(elsewhere)
        await asyncio.sleep(1)
        await w.client.delete(NotificationRequest, "disk-full", "default")
        await w.create("pager")
        await asyncio.sleep(1)
    assert len({each.idempotency_key for each in pager.messages}) == len(pager.messages) == 3


@virtual
async def test_b17_a_recreated_request_is_not_delivered_concurrently_with_the_deleted_one() -> None:
    running, most = 0, 0

    async def work() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(10)
        running -= 1

    pager = Recorder("pager", action=work)
    async with world() as w, w.operator(pager, workers=10):
        for _ in range(3):
            await w.create("pager")
            await asyncio.sleep(1)
            await w.client.delete(NotificationRequest, "disk-full", "default")
        await w.create("pager")
        await asyncio.sleep(100)
        assert (await w.status())["phase"] == "Sent"
    assert most == 1
    assert pager.messages[-1].uid != pager.messages[0].uid


@virtual
async def test_b18_long_error_texts_of_a_receiver_are_cut_in_status_and_events() -> None:
    long = RetryableDeliveryError("no " * 100_000)
    pager, other = Recorder("pager", [long]), Recorder("other", [DOWN])
    async with world() as w, w.operator(pager, other):
        await w.create("pager", "other", maxAttempts=10, initialBackoffSeconds=1, maxBackoffSeconds=1)
        for number in range(50):
            await w.annotate(str(number))
            await asyncio.sleep(1)
        status = await w.status()
        events = [event.to_dict() for event in await w.client.list("v1/Event", "default")]
    assert len(status["deliveryAttempts"]) == 20
    assert all(len(entry.get("error", "")) <= 512 for entry in status["deliveryAttempts"])
    assert len(status["message"]) <= 1024
    assert len(events) == 2
    assert [event.get("count", 1) for event in events] == [1, 1]


def test_b5_and_b13_the_rate_limit_of_slack_is_respected() -> None:
    assert SlackConfig(url_credential="hook").rate_per_minute == 60
