"""The audit log: who was told what and when, one line of JSON for each attempt."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from reconciler.notification import AuditLog, NotificationRequest, Redactor
from reconciler.notification.api import DeliveryAttempt, NotificationRequestStatus
from reconciler.notification.schedule import StatusChange
from tests.notification.test_observability import lines
from tests.notification.world import Recorder, document, virtual, world


def change(name: str = "disk-full", **spec: Any) -> StatusChange:
    made = document(["email:ops"], name=name, spec=spec)
    made["metadata"]["uid"] = f"uid-{name}"
    after = NotificationRequestStatus()
    attempt = DeliveryAttempt.model_validate(
        {"channel": "email:ops", "attempt": 1, "timestamp": "2026-01-01T00:00:00Z", "result": "success"}
    )
    request = NotificationRequest.from_dict(made)
    return StatusChange(request=request, before=after, after=after, attempts=(attempt,))


async def written(file: Path, *changes: StatusChange) -> None:
    """Run an audit log, as one process would."""
    log = AuditLog(file)
    running = asyncio.create_task(log.run())
    for each in changes:
        log.status_saved(each)
    await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait({running})


@virtual
async def test_a_line_says_who_was_told_what_and_when(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    log = AuditLog(file, redact=Redactor().redact)
    running = asyncio.create_task(log.run())
    spec = {
        "subject": "Login failed with password=hunter2x\nfor ann",
        "sender": "ci",
        "incident": {"key": "login", "action": "Resolve"},
        "correlationId": "trace-7",
        "recipients": {"pager": ["ann"]},
    }
    async with world() as w, w.operator(Recorder("pager", [ConnectionError("down"), None]), observers=[log]):
        await w.create("pager", name="told", spec=spec)
        await asyncio.sleep(1000)
    running.cancel()
    await asyncio.wait({running})
    first, second, finished = lines(file)
    assert (first["sender"], first["incident"], first["action"]) == ("ci", "login", "Resolve")
    assert (first["correlationId"], first["recipients"]) == ("trace-7", ["ann"])
    assert (first["error"], second["result"]) == ("ConnectionError: down", "success")
    assert first["subject"] == "Login failed with password=[REDACTED]\nfor ann"
    assert first["time"].startswith("2026-01-01T00:00:00")
    assert (finished["phase"], finished["reason"]) == ("Sent", "AllDeliveriesSucceeded")


async def test_a_rotated_file_is_followed_by_a_new_one(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    log = AuditLog(file)
    running = asyncio.create_task(log.run())
    for name in ("a", "b"):
        log.status_saved(change(name))
        async with asyncio.timeout(10):
            while log.statistics().waiting:  # noqa: ASYNC110 - written by a thread
                await asyncio.sleep(0.01)
        if name == "a":
            file.rename(tmp_path / "audit.1.jsonl")
    running.cancel()
    await asyncio.wait({running})
    assert [line["name"] for line in lines(tmp_path / "audit.1.jsonl")] == ["a"]
    assert [line["name"] for line in lines(file)] == ["b"]


async def test_a_line_that_a_crash_cut_short_spoils_no_other(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    await written(file, change("a"))
    with file.open("ab") as stream:
        stream.write(b'{"time":"2026')
    await written(file, change("b"), change("c"))
    content = file.read_text().splitlines()
    assert [index for index, line in enumerate(content) if not line.endswith("}")] == [1]
    assert len(content) == 4


@pytest.mark.parametrize("target", ["audit.jsonl", "-"])
async def test_a_hostile_subject_is_one_line_without_control_characters(
    target: str, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    await written(Path(target), change("a", subject="x\u2028y\x1b[2J\n2026   success", sender="\u202eevil"))
    content = capsysbinary.readouterr().out if target == "-" else (tmp_path / target).read_bytes()
    assert content.count(b"\n") == 1
    assert not {"\x1b", "\u202e", "\u2028"} & set(content.decode())
