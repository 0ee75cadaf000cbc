"""A recording on disk: what can be read of it, its bounds, its secrets, and what ends it."""

from __future__ import annotations

import asyncio
import base64
import errno
import logging
import os
import secrets
import signal
import stat
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import zstandard

from reconciler import Client, Manager, Outcome, Reconciler, Recording, Request, effect
from reconciler.apiserver import APIServer
from reconciler.errors import ConfigurationError
from reconciler.recording import recording as recording_module
from reconciler.recording.recording import RecordingReader, SegmentWriter
from reconciler.recording.records import ReadStep, RequestStep
from reconciler.testing import replay

pytestmark = pytest.mark.virtual_time

TOKEN = "ghp_" + "a1B2" * 9
log = logging.getLogger("operator")


class Marks(Reconciler):
    """Counts the reconciles of a ConfigMap in it, and copies it into a Secret."""

    async def reconcile(self, request: Request) -> Outcome:
        found = (await self.client.get("v1/ConfigMap", request.name, request.namespace)).to_dict()
        log.warning("token=%s", TOKEN)
        await self.client.patch(
            "v1/ConfigMap", request.name, request.namespace, patch={"metadata": {"labels": {"seen": "yes"}}}
        )
        await self.client.apply(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": request.name, "namespace": "default"},
                "stringData": {"any": found["data"]["note"]},
            }
        )
        return None


def config_map(name: str, note: str = "s3cr3t-note") -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default"}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata,
        "data": {"note": note, "password": "hunter22"},
    }


@asynccontextmanager
async def recorded(recording: Recording) -> AsyncIterator[tuple[Client, Manager]]:
    async with APIServer() as server, Client(server) as client:
        manager = Manager(client, recording=recording)
        manager.add_controller(Marks(), resource="v1/ConfigMap")
        async with manager.running():
            yield client, manager


async def test_what_was_recorded_can_be_read(tmp_path: Path) -> None:
    async with recorded(Recording(tmp_path / "r")) as (client, _):
        for name in "ab":
            await client.create(config_map(name))
        await asyncio.sleep(10)
    reader = RecordingReader(tmp_path / "r")
    records = list(reader.records())
    assert {record.name for record in records} == {"a", "b"}
    reads = [step for record in records for step in record.steps if isinstance(step, ReadStep)]
    assert all(b'"resourceVersion":"%s"' % str(read.version).encode() in read.data for read in reads)
    assert reader.kinds["v1/ConfigMap"].plural == "configmaps"
    assert reader.problems == []


async def test_no_secret_is_on_disk_and_the_files_are_private(tmp_path: Path) -> None:
    async with recorded(Recording(tmp_path / "r")) as (client, _):
        await client.create(config_map("a"))
        await asyncio.sleep(10)
    records = list(RecordingReader(tmp_path / "r").records())
    text = repr(records)
    assert "hunter22" not in text
    assert TOKEN not in text
    secret = next(step for step in records[0].steps if isinstance(step, RequestStep) and "/secrets/" in step.path)
    assert b"s3cr3t-note" not in secret.body
    assert b"czNjcjN0LW5vdGU" not in secret.response  # in base64
    assert b'"any"' in secret.body
    assert stat.S_IMODE((tmp_path / "r").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "r").iterdir()} == {0o600}


async def test_the_ring_is_bounded(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "r", keep="10m", max="1MB")
    async with recorded(recording) as (client, _):
        await client.create(config_map("a"))
        for number in range(40):
            await client.patch("v1/ConfigMap", "a", "default", patch={"data": {"note": str(number)}})
            await asyncio.sleep(60)
            await asyncio.to_thread(recording._write)
    assert recording.statistics().bytes <= 10**6
    first, *_, last = RecordingReader(tmp_path / "r").records()
    assert 540 <= (last.started - first.started).total_seconds() <= 720


async def test_size_bounds_the_ring(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "r", max="1MiB")
    async with recorded(recording) as (client, _):
        await client.create(config_map("a"))
        for _number in range(60):
            note = os.urandom(15_000).hex()
            await client.patch("v1/ConfigMap", "a", "default", patch={"data": {"note": note}})
            await asyncio.sleep(1)
            await asyncio.to_thread(recording._write)
    size = sum(path.stat().st_size for path in (tmp_path / "r").iterdir())
    assert 2**19 < size <= 2**20 + 10
    assert recording.statistics().bytes == size - (tmp_path / "r" / "lock").stat().st_size


async def test_a_torn_segment_is_read_up_to_the_tear(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "r")
    async with recorded(recording) as (client, _):
        for name in "abc":
            await client.create(config_map(name))
            await asyncio.sleep(10)
            await asyncio.to_thread(recording._write)
    (segment,) = (tmp_path / "r").glob("*.segment")
    whole = len(list(RecordingReader(tmp_path / "r").records()))
    os.truncate(segment, segment.stat().st_size - 7)
    reader = RecordingReader(tmp_path / "r")
    assert 0 < len(list(reader.records())) < whole
    assert "is torn at byte" in reader.problems[0]


@pytest.mark.parametrize("codec", [1, 2, 7])
@pytest.mark.parametrize("payload", [b"", b"no frame", zlib.compress(b"no batch"), zstandard.compress(b"no batch")])
def test_a_segment_with_something_else_in_it_is_read_up_to_there(tmp_path: Path, codec: int, payload: bytes) -> None:
    header = struct.pack(">BII", codec, len(payload), zlib.crc32(payload))
    (tmp_path / "1.segment").write_bytes(b"kube-reconciler recording 1\n" + header + payload)
    reader = RecordingReader(tmp_path)
    assert list(reader.records()) == []
    assert "is damaged at byte 28" in reader.problems[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"kube-reconciler recording 9\n", "has format 9, and this version of kube-reconciler reads format 1"),
        (b"\x00\x01 something", "is not a segment of a recording"),
    ],
)
def test_a_file_of_another_format_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "00000001.segment").write_bytes(content)
    with pytest.raises(ConfigurationError, match=message):
        RecordingReader(tmp_path)


def test_a_directory_without_segments_is_not_a_recording(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is not a recording: it contains no"):
        RecordingReader(tmp_path)


async def test_a_directory_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match=r"contains other files, such as .thesis\.txt"):
        async with recorded(Recording(tmp_path)):
            pass
    assert sorted(tmp_path.iterdir()) == [tmp_path / "thesis.txt"]  # noqa: ASYNC240


async def test_segments_that_a_recording_did_not_write_are_not_deleted_by_it(tmp_path: Path) -> None:
    (tmp_path / "test_storm.segment").write_text("of a test")
    with pytest.raises(ConfigurationError, match=r"contains other files, such as .test_storm\.segment"):
        async with recorded(Recording(tmp_path)):
            pass


async def test_two_processes_cannot_share_a_directory(tmp_path: Path) -> None:
    async with recorded(Recording(tmp_path / "r")):
        with pytest.raises(ConfigurationError, match=rf"another process \({os.getpid()}\) records in .*each shard"):
            async with recorded(Recording(tmp_path / "r")):
                pass


async def test_a_recording_is_continued(tmp_path: Path) -> None:
    for _ in range(2):
        async with recorded(Recording(tmp_path / "r")) as (client, _manager):
            await client.create(config_map("a"))
            await asyncio.sleep(10)
    assert len(list((tmp_path / "r").glob("*.segment"))) == 2


@pytest.mark.parametrize("options", [{"keep": "soon"}, {"keep": "-2h"}, {"max": "much"}, {"max": "3KB"}, {"max": -1}])
def test_invalid_options(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        Recording("r", **options)


async def test_a_full_disk_ends_the_recording_and_not_the_operator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    recording = Recording(tmp_path / "r")
    async with recorded(recording) as (client, manager):
        monkeypatch.setattr(SegmentWriter, "write", full)
        await client.create(config_map("a"))
        await asyncio.sleep(10)
        assert recording._thread is not None
        await asyncio.to_thread(recording._thread.join)
        await client.create(config_map("b"))
        await asyncio.sleep(10)
        assert (await client.get("v1/ConfigMap", "b", "default")).to_dict()["metadata"]["labels"]
        _, body = manager.metrics.render()
    assert b"reconciler_recording_active 0.0" in body
    assert "No space left on device" in caplog.text
    assert recording.statistics().lost


async def test_a_slow_disk_ends_the_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording_module, "_MAX_WAITING", 2000)
    monkeypatch.setattr(recording_module, "_INTERVAL", 3600.0)
    recording = Recording(tmp_path / "r")
    async with recorded(recording) as (client, _):
        for name in "abc":
            await client.create(config_map(name))
        await asyncio.sleep(10)
        assert "too slow" in str(recording.statistics().problem)


PROGRAM = """
import asyncio, sys
from reconciler import Client, Manager, Recording
from reconciler.apiserver import APIServer
from tests.recording.test_recording import Marks, config_map

async def main():
    async with APIServer() as server, Client(server) as client:
        manager = Manager(client, recording=Recording(sys.argv[1]))
        manager.add_controller(Marks(), resource="v1/ConfigMap")
        async with manager.running():
            await client.create(config_map("a"))
            await asyncio.sleep(3600)

asyncio.run(main())
"""


def test_a_killed_process_leaves_a_readable_recording(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path / "r")], cwd=Path(__file__).parents[2])
    try:
        while not [path for path in tmp_path.glob("r/*.segment") if path.stat().st_size > 100]:
            time.sleep(0.05)
            assert process.poll() is None
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert {record.name for record in RecordingReader(tmp_path / "r").records()} == {"a"}


class Passwords(Reconciler):
    """Writes a password that it draws into a Secret."""

    async def reconcile(self, request: Request) -> Outcome:
        await self.client.apply(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": request.name, "namespace": "default"},
                "stringData": {"password": secrets.token_hex(8)},
            }
        )
        return None


async def test_random_numbers_of_a_reconcile_that_writes_a_secret_are_not_on_disk(tmp_path: Path) -> None:
    async with APIServer() as server, Client(server) as client:
        manager = Manager(client, recording=Recording(tmp_path / "r"))
        manager.add_controller(Passwords(), resource="v1/ConfigMap")
        async with manager.running():
            await client.create(config_map("a"))
            await asyncio.sleep(10)
    (record,) = RecordingReader(tmp_path / "r").records()
    assert record.draws == []


class Logins(Reconciler):
    """Quotes the password of a Secret everywhere, and tells a provider a new one."""

    @effect
    async def register(self, user: str, password: str) -> None:
        """Register a user with the provider."""

    async def reconcile(self, request: Request) -> Outcome:
        found = (await self.client.get("v1/Secret", "login", "default")).to_dict()["data"]
        password = base64.b64decode(found["password"]).decode()
        log.warning("logging in with %r", password)
        note = {"note": f"somebody uses {password}, which is {found['password']}"}
        await self.client.patch("v1/ConfigMap", "a", "default", patch={"metadata": {"annotations": note}})
        await self.register(request.name, secrets.token_hex(8))
        raise ValueError(f"refused: {password}")


async def test_values_of_a_secret_are_replaced_wherever_the_reconcile_repeats_them(tmp_path: Path) -> None:
    values = {"username": "somebody", "password": 'correct "horse"'}
    login = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login", "namespace": "default"}}
    async with APIServer() as server, Client(server) as client:
        await client.create({**login, "stringData": values})
        manager = Manager(client, recording=Recording(tmp_path / "r"))
        manager.add_controller(Logins(), resource="v1/ConfigMap", owns=["v1/Secret"])
        async with manager.running():
            await client.create(config_map("a"))
            await asyncio.sleep(2)
    records = list(RecordingReader(tmp_path / "r").records())
    text = repr(records)
    assert "horse" not in text
    assert base64.b64encode(values["password"].encode()).decode() not in text
    assert "logging in with '[REDACTED]'" in text
    assert "somebody uses [REDACTED]" in text
    assert "refused: [REDACTED]" in text
    assert all(draw is None for record in records for draw in record.draws)
    replays = await asyncio.to_thread(lambda: list(replay(tmp_path / "r", Logins)))
    assert [difference for each in replays for difference in each.differences] == []
