"""Audit log, metrics and redaction: correct values, after the status write, without secrets."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from reconciler.errors import ConfigurationError
from reconciler.notification import (
    AuditLog,
    Credentials,
    DeferredDeliveryError,
    NotificationMetrics,
    NotificationOperator,
    NotificationOptions,
    NotificationRequest,
    PermanentDeliveryError,
    Redactor,
    RetryableDeliveryError,
)
from reconciler.notification.channel import ChannelRegistry
from reconciler.notification.redaction import RedactingFormatter
from tests.notification.world import Recorder, virtual, world

BUSY = RetryableDeliveryError("503")


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def values(registry: CollectorRegistry) -> dict[str, float]:
    text = generate_latest(registry).decode()
    pairs = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in pairs}


# Audit


@virtual
async def test_each_attempt_and_each_finished_request_is_one_audit_line(tmp_path: Path) -> None:
    audit = AuditLog(tmp_path / "audit.jsonl")
    writing = asyncio.create_task(audit.run())
    async with world() as w, w.operator(Recorder("pager", [BUSY, None]), observers=[audit]):
        created = await w.create("pager")
        await asyncio.sleep(1000)
    writing.cancel()
    await asyncio.wait({writing})
    found = lines(tmp_path / "audit.jsonl")
    assert [(line["event"], line.get("attempt"), line.get("result", line.get("phase"))) for line in found] == [
        ("notification.attempted", 1, "failure"),
        ("notification.attempted", 2, "success"),
        ("notification.finished", None, "Sent"),
    ]
    assert found[0]["uid"] == created.uid
    assert found[0]["error"] == "503"
    assert found[0]["idempotencyKey"] == f"{created.uid}/pager"
    assert not any("93 %" in json.dumps(line) for line in found), "what was said is not the audit's business"
    assert (tmp_path / "audit.jsonl").stat().st_mode & 0o777 == 0o600


@virtual
async def test_an_unwritable_audit_file_delays_nothing_and_lost_lines_are_counted(tmp_path: Path) -> None:
    directory = tmp_path / "gone"
    audit = AuditLog(directory / "audit.jsonl", limit=3)
    writing = asyncio.create_task(audit.run())
    async with world() as w, w.operator(Recorder("pager"), observers=[audit]):
        for number in range(4):
            await w.create("pager", name=f"n-{number}")
        await asyncio.sleep(100)
        assert (await w.status("n-3"))["phase"] == "Sent"
        assert (audit.statistics().waiting, audit.statistics().dropped) == (3, 5)
        directory.mkdir()
        await asyncio.sleep(10)
    writing.cancel()
    await asyncio.wait({writing})
    gap, *written = lines(directory / "audit.jsonl")
    assert (gap["event"], gap["count"], len(written)) == ("audit.dropped", 5, 3)
    assert audit.statistics().written == 3


def test_an_unwritable_audit_file_is_an_error_at_startup(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot write the audit file .*: No such file"):
        NotificationOperator(NotificationOptions(audit_file=tmp_path / "a" / "b"))


# Metrics


@virtual
async def test_every_metric_has_the_correct_value() -> None:
    registry = CollectorRegistry()
    metrics = NotificationMetrics(registry)
    pager = Recorder("pager", [BUSY, DeferredDeliveryError("open", retry_after=5), None])
    file = Recorder("file", [PermanentDeliveryError("410")])
    async with world() as w, w.operator(pager, file, observers=[metrics]) as (_, reconciler):
        metrics.watch(reconciler=reconciler)
        assert values(registry)["notification_reconciler_active"] == 0
        await w.create("pager", "file")
        await w.create("file", name="other")
        await asyncio.sleep(1000)
    found = values(registry)
    for name, value in {
        'notification_delivery_attempts_total{channel="pager",result="failure"}': 1,
        'notification_delivery_attempts_total{channel="pager",result="success"}': 1,
        'notification_delivery_attempts_total{channel="file",result="failure"}': 2,
        'notification_delivery_duration_seconds_count{channel="pager"}': 2,
        'notification_delivery_retries_total{channel="pager",reason="Deferred"}': 1,
        'notification_deliveries_deferred_total{channel="pager"}': 1,
        'notification_requests_finished_total{phase="PartiallySent"}': 1,
        'notification_requests_finished_total{phase="Failed"}': 1,
        'notification_request_duration_seconds_count{phase="PartiallySent"}': 1,
        'notification_channel_health_score{channel="pager"}': 0.5,
        'notification_channel_health_score{channel="file"}': 0,
        "notification_reconciler_active": 0,
    }.items():
        assert found[name] == value, name


@virtual
async def test_active_counts_the_requests_that_are_being_delivered() -> None:
    slow = Recorder("slow", action=lambda: asyncio.sleep(10))
    async with world() as w, w.operator(slow, workers=5) as (_, reconciler):
        for number in range(3):
            await w.create("slow", name=f"n-{number}")
        await asyncio.sleep(5)
        assert reconciler.statistics().active == 3
        await asyncio.sleep(10)
        assert reconciler.statistics().active == 0


# Redaction


PLANTED = {
    "password": "correct-horse-battery",
    "token": "zx81-QL-4711",
    "hook": "https://hooks.example/services/T0AAAA/B0BBBB/abcdefgh1234",
}


@virtual
async def test_b12_no_planted_secret_leaves_by_any_way(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in PLANTED.items():
        (tmp_path / name).write_text(value)
    credentials = Credentials(tmp_path)
    redactor = Redactor(credentials.values)
    caplog.set_level(logging.DEBUG)
    registry = CollectorRegistry()
    metrics, audit = NotificationMetrics(registry), AuditLog(tmp_path / "audit.jsonl")
    secrets = [*PLANTED.values(), "ghp_0123456789abcdefghijklmnopqrstuvwxyz", "hunter2hunter2"]
    chatty = Recorder("chatty", [RuntimeError(" and ".join([*secrets[:-1], f"password={secrets[-1]}"])), None])
    writing = asyncio.create_task(audit.run())
    formatter = RedactingFormatter(caplog.handler.formatter or logging.Formatter(), redactor)
    monkeypatch.setattr(caplog.handler, "formatter", formatter)
    async with world() as w, w.operator(chatty, observers=[metrics, audit], redactor=redactor) as (_, reconciler):
        logging.getLogger("reconciler.notification").warning("sending with %s", PLANTED["token"])
        text = f"try {secrets[0]} or {secrets[3]}"
        links = [{"service": "x", "url": f"{PLANTED['hook']}?a=1", "label": "x"}]
        await w.create("chatty", spec={"body": text, "extensions": {"a": secrets[1]}, "actionLinks": links})
        await asyncio.sleep(1000)
        status = json.dumps(await w.status())
        events = json.dumps([event.to_dict() for event in await w.client.list("v1/Event", "default")])
        assert (await w.status())["phase"] == "Sent"
        assert reconciler.statistics().failed == 1
    writing.cancel()
    await asyncio.wait({writing})
    message = chatty.messages[0]
    delivered = f"{message.subject} {message.body} {dict(message.extensions)} {message.links}"
    printed = capsys.readouterr()
    leaks = {
        "status": status,
        "events": events,
        "log": caplog.text,
        "metrics": generate_latest(registry).decode(),
        "audit": (tmp_path / "audit.jsonl").read_text(),
        "message": delivered,
        "output": printed.out + printed.err,
    }
    for way, said in leaks.items():
        for secret in [*secrets, "abcdefgh1234"]:
            assert secret not in said, way
    assert "[REDACTED]" in status


def test_a_value_that_was_rotated_away_is_still_a_secret(tmp_path: Path) -> None:
    credentials = Credentials(tmp_path)
    (tmp_path / "token").write_text("first-token")
    assert credentials.get("token") == "first-token"
    (tmp_path / "token").write_text("second-token")
    assert credentials.get("token") == "second-token"
    assert Redactor(credentials.values).redact("first-token, second-token") == "[REDACTED], [REDACTED]"


def test_credentials_are_files_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "..data").mkdir()
    (tmp_path / "..data" / "token").write_text(" secret\n")
    (tmp_path / "token").symlink_to("..data/token")
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "directory").mkdir()
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    credentials = Credentials(tmp_path)
    assert credentials.get("token") == "secret"
    for name in ("empty", "directory", "..data", ".hidden", "../token", "", "binary", "nothing"):
        with pytest.raises(RetryableDeliveryError, match=r"credential '.*' not found"):
            credentials.get(name)
    assert list(credentials.missing(["token", "nothing", "nothing"])) == [
        f"credential 'nothing' not found in {tmp_path}"
    ]
    assert "secret" not in repr(credentials)


def test_a_missing_credentials_directory_is_an_error_at_startup(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot read the credentials directory"):
        NotificationOperator(NotificationOptions(credentials=tmp_path / "nowhere"))


@virtual
async def test_observers_are_notified_of_an_attempt_whose_request_was_deleted(tmp_path: Path) -> None:
    audit = AuditLog(tmp_path / "audit.jsonl")
    writing = asyncio.create_task(audit.run())
    pager = Recorder("pager", action=lambda: asyncio.sleep(10))
    async with world() as w, w.operator(pager, observers=[audit]):
        await w.create("pager")
        await asyncio.sleep(5)
        await w.client.delete(NotificationRequest, "disk-full", "default")
        await asyncio.sleep(100)
    writing.cancel()
    await asyncio.wait({writing})
    assert [line["event"] for line in lines(tmp_path / "audit.jsonl")] == [
        "notification.attempted",
        "notification.finished",
    ]


@virtual
async def test_a_replaced_channel_is_closed_after_its_deliveries() -> None:
    closed: list[str] = []

    class Closing(Recorder):
        async def close(self) -> None:
            closed.append(self.name)

    registry = ChannelRegistry([Recorder("console")], close_after=20)
    running = asyncio.create_task(registry.run())
    kept, replaced = Closing("kept"), Closing("replaced")
    registry.replace([kept, replaced])
    registry.replace([kept])
    await asyncio.sleep(19)
    assert closed == []
    await asyncio.sleep(2)
    assert closed == ["replaced"]
    running.cancel()
    await asyncio.wait({running})
    assert closed == ["replaced", "kept"]
