"""The audit trail: who was told what and when, in a file that shows any change."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from reconciler.cli import main
from reconciler.errors import ConfigurationError
from reconciler.notification import AuditLog, NotificationOperator, NotificationOptions, NotificationRequest, Redactor
from reconciler.notification.api import DeliveryAttempt, NotificationRequestStatus
from reconciler.notification.schedule import StatusChange
from tests.notification.test_observability import lines
from tests.notification.world import Recorder, document, virtual, world


def audit(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(["audit", *arguments])
    out, err = capsys.readouterr()
    code = end.value.code
    return (code if isinstance(code, int) else 1), out, err


def change(name: str = "disk-full", **spec: Any) -> StatusChange:
    made = document(["email:ops"], name=name, spec=spec)
    made["metadata"]["uid"] = f"uid-{name}"
    after = NotificationRequestStatus()
    attempt = DeliveryAttempt.model_validate(
        {"channel": "email:ops", "attempt": 1, "timestamp": "2026-01-01T00:00:00Z", "result": "success"}
    )
    request = NotificationRequest.from_dict(made)
    return StatusChange(request=request, before=after, after=after, attempts=(attempt,))


async def written(file: Path, *changes: StatusChange, **options: Any) -> None:
    """Run an audit log, as one process would."""
    log = AuditLog(file, **options)
    running = asyncio.create_task(log.run())
    for each in changes:
        log.status_saved(each)
    await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait({running})


@virtual
async def test_one_command_answers_who_was_told_what_and_when(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
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
        await w.create("pager", name="other")
        await asyncio.sleep(1000)
    running.cancel()
    await asyncio.wait({running})
    first = lines(file)[0]
    assert (first["sender"], first["incident"], first["action"]) == ("ci", "login", "Resolve")
    assert (first["correlationId"], first["recipients"]) == ("trace-7", ["ann"])
    code, out, err = audit(capsys, str(file), "--request", "default/told")
    rows = out.splitlines()
    assert (code, len(rows)) == (0, 4)
    assert rows[0].split() == ["TIME", "REQUEST", "WHO", "RESULT", "WHAT", "SENDER", "INCIDENT"]
    assert rows[1].startswith("2026-01-01T00:00:00")
    assert "pager to ann   unknown: ConnectionError: down" in rows[1] or "failure: ConnectionError: down" in rows[1]
    assert "Login failed with password=[REDACTED] for ann   ci       login Resolve" in rows[2]
    assert "Sent AllDeliveriesSucceeded" in rows[3]
    assert "the chain is complete; hash of the last line: " in err
    assert audit(capsys, str(file), "--request", "nobody")[1].count("\n") == 1
    records = [json.loads(line) for line in audit(capsys, str(file), "--output", "json")[1].splitlines()]
    assert records == lines(file)


@pytest.mark.parametrize("tampering", ["change", "remove", "insert", "swap", "truncate a line"])
async def test_any_change_of_the_file_is_named_with_its_line(
    tampering: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "audit.jsonl"
    await written(file, *(change(f"n-{number}") for number in range(6)))
    content = file.read_bytes().splitlines(keepends=True)
    match tampering:
        case "change":
            content[2] = content[2].replace(b'"n-2"', b'"n-9"')
        case "remove":
            del content[3]
        case "insert":
            content.insert(3, content[1])
        case "swap":
            content[2], content[3] = content[3], content[2]
        case _:
            content[2] = content[2][:40] + b"\n"
    file.write_bytes(b"".join(content))
    code, _, err = audit(capsys, str(file))
    assert code == 1
    assert f"{file}: line {3 if tampering in ('swap', 'truncate a line') else 4} " in err


async def test_lines_that_are_removed_from_the_end_or_written_anew_lack_the_expected_hash(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "audit.jsonl"
    await written(file, *(change(f"n-{number}") for number in range(3)))
    noted = audit(capsys, str(file))[2].split()[-1]
    await written(file, change("later"))
    assert audit(capsys, str(file), "--expect", noted)[0] == 0
    rotated = tmp_path / "audit.jsonl.1"
    content = file.read_bytes().splitlines(keepends=True)
    rotated.write_bytes(content[-1])
    assert audit(capsys, str(rotated), "--expect", json.loads(content[-1])["previous"])[0] == 0
    anew = tmp_path / "anew"
    await written(anew, *(change(f"m-{number}") for number in range(5)))
    file.write_bytes(b"".join(content[:2]))
    for each in (file, anew):
        assert audit(capsys, str(each))[0] == 0
        code, _, err = audit(capsys, str(each), "--expect", noted)
        assert (code, "no line has the expected hash" in err) == (1, True)


async def test_without_its_key_nobody_can_write_a_chain_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, key = tmp_path / "audit.jsonl", tmp_path / "key"
    key.write_text("k3y\n")
    operator = NotificationOperator(
        NotificationOptions(console=False, credentials=tmp_path, audit_file=file, audit_key="key")
    )
    assert operator.audit is not None
    for name in ("a", "b", "c"):
        operator.audit.status_saved(change(name))
    operator.audit._write()
    assert audit(capsys, str(file), "--key-file", str(key))[0] == 0
    forged = tmp_path / "forged"
    await written(forged, change("a"), change("b"))
    assert audit(capsys, str(forged), "--key-file", str(key))[0] == 1
    with pytest.raises(ConfigurationError, match=r"cannot read the key of the audit file: .*'missing'"):
        NotificationOperator(NotificationOptions(credentials=tmp_path, audit_file=file, audit_key="missing"))


async def test_a_restart_and_a_rotation_continue_the_chain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "audit.jsonl"
    await written(file, change("a"), change("b"))
    await written(file, change("c"))
    assert audit(capsys, str(file))[0] == 0
    log = AuditLog(file)
    running = asyncio.create_task(log.run())
    for name in ("d", "e"):
        log.status_saved(change(name))
        async with asyncio.timeout(10):
            while log.statistics().waiting:  # noqa: ASYNC110 - written by a thread
                await asyncio.sleep(0.01)
        if name == "d":
            file.rename(tmp_path / "audit.1.jsonl")
    running.cancel()
    await asyncio.wait({running})
    whole = tmp_path / "whole.jsonl"
    whole.write_bytes((tmp_path / "audit.1.jsonl").read_bytes() + file.read_bytes())
    assert audit(capsys, str(file))[0] == 0
    assert audit(capsys, str(whole))[0] == 0
    assert len(lines(whole)) == 5


async def test_a_line_that_a_crash_cut_short_is_named_and_the_chain_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "audit.jsonl"
    await written(file, change("a"))
    with file.open("ab") as stream:
        stream.write(b'{"time":"2026')
    await written(file, change("b"), change("c"))
    code, out, err = audit(capsys, str(file))
    assert (code, err.count("line ")) == (1, 1)
    assert "line 2 is not valid JSON" in err
    assert "default/c" in out


async def test_a_hostile_subject_is_one_line_without_control_characters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "audit.jsonl"
    await written(file, change("a", subject="x\u2028y\x1b[2J\n2026 default/b   root   success", sender="\u202eevil"))
    out = audit(capsys, str(file))[1]
    assert out.count("\n") == 2
    assert "\x1b" not in out
    assert "\u202e" not in out


def test_a_file_that_does_not_exist_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = audit(capsys, str(tmp_path / "none"))
    assert (code, out) == (1, "")
    assert "cannot read" in err
