"""The built-in channels, and the registry."""

from __future__ import annotations

import io
import json
import logging
import stat
import threading
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest

from reconciler.errors import ConfigurationError
from reconciler.notification import Channel, ConsoleChannel, FileChannel, LogChannel, Message, RetryableDeliveryError
from reconciler.notification import channel as channel_module
from reconciler.notification.channel import ChannelRegistry, installed_channels
from reconciler.notification.channels import local


def message(**changes: Any) -> Message:
    values: dict[str, Any] = {
        "name": "disk-full",
        "namespace": "prod",
        "uid": "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
        "type": "Escalation",
        "priority": "High",
        "subject": "Disk almost full",
        "body": "93 %\nsince noon",
        "channel": "file",
        "attempt": 2,
    }
    return Message(**(values | changes))


def files(directory: Path) -> list[Path]:
    return sorted(directory.iterdir())


class Pager:
    name = "pager"

    async def deliver(self, message: Message) -> None: ...


# Messages


def test_the_idempotency_key_is_the_same_for_all_attempts_and_differs_by_channel_and_uid() -> None:
    assert message(attempt=1).idempotency_key == message(attempt=2).idempotency_key
    assert len({m.idempotency_key for m in (message(), message(channel="log"), message(uid="other"))}) == 3


def test_requests_of_the_same_name_do_not_share_an_idempotency_key() -> None:
    """B16: a bare name collides across namespaces and with a recreated request."""
    assert message(uid="a").idempotency_key != message(uid="b").idempotency_key


# Console


async def test_console_prints_priority_type_subject_and_body() -> None:
    stream = io.StringIO()
    await ConsoleChannel(stream).deliver(message())
    assert stream.getvalue() == "[High] [Escalation] Disk almost full\n93 %\nsince noon\n"


async def test_console_writes_to_standard_output_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    await ConsoleChannel().deliver(message())
    assert capsys.readouterr().out.startswith("[High] [Escalation] Disk almost full\n")


async def test_console_replaces_control_characters_in_a_body() -> None:
    stream = io.StringIO()
    await ConsoleChannel(stream).deliver(message(subject="a\nb\x1b[2J", body="c\rd\te\x00"))
    assert stream.getvalue() == "[High] [Escalation] a b�[2J\nc�d\te�\n"


# Log


async def test_log_writes_one_json_object_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="reconciler.notification.delivered"):
        await LogChannel().deliver(message(channel="log"))
    (record,) = caplog.records
    assert "\n" not in record.getMessage()
    assert json.loads(record.getMessage()) == {
        "notification": "disk-full",
        "namespace": "prod",
        "uid": "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
        "type": "Escalation",
        "priority": "High",
        "subject": "Disk almost full",
        "body": "93 %\nsince noon",
        "channel": "log",
        "attempt": 2,
        "idempotencyKey": "6ba7b810-9dad-11d1-80b4-00c04fd430c8/log",
    }


# File


async def test_file_creates_the_directory_and_writes_a_file_with_mode_0600(tmp_path: Path) -> None:
    await FileChannel(tmp_path / "a" / "b").deliver(message())
    (file,) = files(tmp_path / "a" / "b")
    assert file.name == "prod_disk-full_6ba7b810-9dad-11d1-80b4-00c04fd430c8_2.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert json.loads(file.read_text())["subject"] == "Disk almost full"


async def test_file_mode_is_an_option(tmp_path: Path) -> None:
    await FileChannel(tmp_path, mode=0o644).deliver(message())
    (file,) = files(tmp_path)
    assert stat.S_IMODE(file.stat().st_mode) == 0o644


async def test_a_slow_disk_does_not_block_the_event_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []
    monkeypatch.setattr(local, "_write_atomically", lambda *_: threads.append(threading.get_ident()))
    await FileChannel(tmp_path).deliver(message())
    assert len(threads) == 1
    assert threads != [threading.get_ident()]


async def test_file_names_differ_by_namespace_name_uid_and_attempt(tmp_path: Path) -> None:
    channel = FileChannel(tmp_path)
    for changes in ({}, {"namespace": "dev"}, {"name": "other"}, {"uid": "other"}, {"attempt": 3}):
        await channel.deliver(message(**changes))
    assert len(files(tmp_path)) == 5


async def test_a_repeated_attempt_replaces_its_own_file(tmp_path: Path) -> None:
    channel = FileChannel(tmp_path)
    await channel.deliver(message())
    await channel.deliver(message())
    assert len(files(tmp_path)) == 1


async def test_file_stays_in_its_directory_whatever_the_names_are(tmp_path: Path) -> None:
    channel = FileChannel(tmp_path / "in")
    await channel.deliver(message(name="../../etc/x", namespace="..", uid="/../" + "u" * 300))
    await channel.deliver(message(name="n" * 253, namespace="s" * 63))
    assert [path.name for path in files(tmp_path)] == ["in"]
    assert len(files(tmp_path / "in")) == 2


async def test_file_errors_are_retryable_and_leave_no_partial_file(tmp_path: Path) -> None:
    """NT-BUG-006: a directory that could not be created was a permanent failure."""
    occupied = tmp_path / "occupied"
    occupied.write_text("a file")
    with pytest.raises(RetryableDeliveryError, match=r"Not a directory|File exists"):
        await FileChannel(occupied / "n").deliver(message())
    target = tmp_path / "dir" / "prod_disk-full_6ba7b810-9dad-11d1-80b4-00c04fd430c8_2.json"
    target.mkdir(parents=True)
    with pytest.raises(RetryableDeliveryError, match="cannot write"):
        await FileChannel(tmp_path / "dir").deliver(message())
    assert files(tmp_path / "dir") == [target]


def test_an_unwritable_directory_is_an_error_at_startup(tmp_path: Path) -> None:
    FileChannel(tmp_path / "a" / "b").check()
    assert files(tmp_path / "a" / "b") == []
    (tmp_path / "occupied").touch()
    with pytest.raises(ConfigurationError, match=r"'file' cannot write to .*occupied"):
        FileChannel(tmp_path / "occupied" / "n").check()


# Registry


def test_the_registry_finds_channels_by_name() -> None:
    pager = Pager()
    registry = ChannelRegistry([pager, ConsoleChannel()])
    assert registry.get("pager") is pager
    assert registry.get("nobody") is None
    assert (list(registry), "console" in registry) == (["console", "pager"], True)
    assert isinstance(pager, Channel)


@pytest.mark.parametrize("name", ["", "-a", "a b", "a/b", "x" * 64, None, 3])
def test_an_invalid_channel_name_is_rejected(name: Any) -> None:
    pager = Pager()
    pager.name = name
    with pytest.raises(ConfigurationError, match=r"spec\.channels"):
        ChannelRegistry([pager])


def test_duplicate_channel_names_are_rejected() -> None:
    with pytest.raises(ConfigurationError, match="'pager'"):
        ChannelRegistry([Pager(), Pager()])


@pytest.mark.parametrize("thing", [object(), Pager, "console", None])
def test_an_object_that_is_not_a_channel_is_rejected(thing: Any) -> None:
    """B11: an incomplete service of the right type failed only at the first delivery."""
    with pytest.raises(ConfigurationError, match="is not a channel"):
        ChannelRegistry([thing])


def entry(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, "reconciler.channels")


def test_installed_channels_are_created_from_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    found = EntryPoints([entry("log", "reconciler.notification:LogChannel")])
    monkeypatch.setattr(channel_module, "entry_points", lambda group: found.select(group=group))
    assert [channel.name for channel in installed_channels()] == ["log"]


@pytest.mark.parametrize("value", ["reconciler.nowhere:Channel", "reconciler.notification:FileChannel"])
def test_a_broken_entry_point_is_named_in_the_error(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setattr(channel_module, "entry_points", lambda group: EntryPoints([entry("mine", value)]))
    with pytest.raises(ConfigurationError, match=f"'mine'.*{value}"):
        installed_channels()
