"""A recording on disk: what can be read of it, its bounds, its secrets, and what ends it."""

from __future__ import annotations

import asyncio
import base64
import errno
import json
import logging
import os
import random
import secrets
import signal
import stat
import struct
import subprocess
import sys
import threading
import time
import uuid
import zlib
from collections.abc import AsyncIterator, Callable
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


def size_of(directory: Path) -> int:
    """Return the bytes of the segments."""
    return sum(path.stat().st_size for path in directory.glob("*.segment"))


class ReadsWithNeighbors(Reconciler):
    """Reads an object, and so many others."""

    def __init__(self, neighbors: int) -> None:
        self.neighbors = neighbors

    async def reconcile(self, request: Request) -> Outcome:
        for number in range(self.neighbors):
            await self.client.get("v1/ConfigMap", f"o{number}", "default")
        await self.client.get("v1/ConfigMap", request.name, "default")
        return None


@pytest.mark.parametrize("most", [10**6, 5 * 10**6])
@pytest.mark.parametrize(
    ("sizes", "neighbors"),
    [
        ([4_000] * 400, 0),
        ([50_000] * 60, 0),
        ([100_000] * 40, 2),
        ([600_000] * 20, 0),
        ([900_000] * 8, 4),
        ([*[1_000] * 30, 900_000, 80_000] * 4, 1),
    ],
)
async def test_a_burst_never_makes_a_recording_larger_than_max(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: list[int], neighbors: int, most: int
) -> None:
    found: list[int] = []
    write = SegmentWriter.write

    def measured(segment: SegmentWriter, frame: bytes) -> None:
        write(segment, frame)
        found.append(size_of(tmp_path / "r"))

    monkeypatch.setattr(SegmentWriter, "write", measured)
    recording = Recording(tmp_path / "r", max=most)
    async with APIServer() as server, Client(server) as client:
        manager = Manager(client, recording=recording)
        for number, size in enumerate(sizes):
            text = random.Random(number).randbytes(size // 2).hex()
            await client.create({**config_map(f"o{number}"), "data": {"text": text}})
        manager.add_controller(ReadsWithNeighbors(neighbors), resource="v1/ConfigMap", workers=20)
        async with manager.running():
            await asyncio.sleep(1)
    figures = recording.statistics()
    assert max(found, default=0) <= most
    assert figures.bytes == size_of(tmp_path / "r")
    assert figures.reconciles + figures.lost == len(sizes)
    reader = RecordingReader(tmp_path / "r")
    records = list(reader.records())
    assert all(read.data for record in records for read in record.steps if isinstance(read, ReadStep))
    assert reader.kinds if records else figures.lost == len(sizes)
    assert len(records) == len(sizes) or figures.lost or figures.bytes > most / 4


async def test_a_reconcile_that_is_too_large_is_left_out_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recording = Recording(tmp_path / "r", max="1MB")
    async with recorded(recording) as (client, _):
        for name, size in (("a", 10), ("large", 600_000), ("b", 10)):
            await client.create(config_map(name, os.urandom(size).hex()))
        await asyncio.sleep(1)
    figures = recording.statistics()
    records = list(RecordingReader(tmp_path / "r").records())
    assert {record.name for record in records} == {"a", "b"}
    assert figures.lost
    assert figures.reconciles == len(records)
    assert "more than half of `max`" in caplog.text
    assert all(read.data for record in records for read in record.steps if isinstance(read, ReadStep))


async def test_a_recording_that_is_continued_with_less_room_becomes_smaller(tmp_path: Path) -> None:
    for most, name in (("50MB", "a"), ("1MB", "b")):
        async with recorded(Recording(tmp_path / "r", max=most)) as (client, _):
            for number in range(10 if most == "50MB" else 1):
                await client.create(config_map(f"{name}{number}", os.urandom(100_000).hex()))
            await asyncio.sleep(1)
    assert size_of(tmp_path / "r") <= 10**6
    assert "b0" in {record.name for record in RecordingReader(tmp_path / "r").records()}


async def test_a_long_reconcile_does_not_end_what_is_kept(tmp_path: Path) -> None:
    class Waits(Reconciler):
        async def reconcile(self, request: Request) -> Outcome:
            await self.client.get("v1/ConfigMap", request.name, "default")
            if request.name == "long":
                await asyncio.sleep(4 * 3600)
            return None

    recording = Recording(tmp_path / "r", max="1MB")  # so that the second reconcile fills a segment
    async with APIServer() as server, Client(server) as client:
        manager = Manager(client, recording=recording)
        manager.add_controller(Waits(), resource="v1/ConfigMap", workers=2)
        async with manager.running():
            await client.create(config_map("long"))
            await asyncio.sleep(4 * 3600 - 1)
            await client.create(config_map("a", os.urandom(100_000).hex()))
            await asyncio.sleep(0.5)
            await asyncio.to_thread(recording._write)
            await asyncio.sleep(1)
    assert [record.name for record in RecordingReader(tmp_path / "r").records()] == ["a", "long"]


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


@pytest.mark.parametrize("left", [0, 1, 25, 26, 27])
async def test_a_segment_that_is_torn_in_its_first_line_leaves_the_others_readable(tmp_path: Path, left: int) -> None:
    recording = Recording(tmp_path / "r")
    async with recorded(recording) as (client, _):
        await client.create(config_map("a"))
        await asyncio.sleep(10)
    whole = len(list(RecordingReader(tmp_path / "r").records()))
    for name in ("00000000.segment", "00000002.segment"):
        (tmp_path / "r" / name).write_bytes(b"kube-reconciler recording 1\n"[:left])
    reader = RecordingReader(tmp_path / "r")
    assert len(list(reader.records())) == whole > 0
    assert len([each for each in reader.problems if "is torn at byte 0" in each]) == (2 if left else 0)


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
        list(RecordingReader(tmp_path).records())


async def test_a_recording_is_read_while_the_operator_begins_and_drops_segments(tmp_path: Path) -> None:
    async with recorded(Recording(tmp_path)) as (client, _):
        await client.create(config_map("a"))
        await asyncio.sleep(10)
    (tmp_path / "00000000.segment").write_bytes((tmp_path / "00000001.segment").read_bytes())
    (tmp_path / "00000002.segment").touch()
    reader = RecordingReader(tmp_path)
    (tmp_path / "00000000.segment").unlink()
    assert len(list(reader.records())) > 0
    assert not reader.problems


@pytest.mark.parametrize("name", ["lock", "00000001.segment"])
async def test_a_directory_with_links_to_other_files_is_refused(tmp_path: Path, name: str) -> None:
    (thesis := tmp_path / "thesis.txt").write_text("mine")
    (directory := tmp_path / "r").mkdir()
    (directory / name).symlink_to(thesis)
    with pytest.raises(ConfigurationError, match=f"contains other files, such as '{name}'"):
        async with recorded(Recording(directory)):
            pass
    assert thesis.read_text() == "mine"


def test_a_directory_without_segments_is_not_a_recording(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is not a recording: it contains no"):
        RecordingReader(tmp_path)


def test_a_pipe_is_no_segment(tmp_path: Path) -> None:
    pipe = tmp_path / "00000001.segment"
    os.mkfifo(pipe)
    for path in (tmp_path, pipe):
        with pytest.raises(ConfigurationError, match="is not a recording: it contains no"):
            RecordingReader(path)


async def test_a_pipe_beside_segments_is_named_and_not_read(tmp_path: Path) -> None:
    async with recorded(Recording(tmp_path)) as (client, _):
        await client.create(config_map("a"))
        await asyncio.sleep(10)
    os.mkfifo(pipe := tmp_path / "00000002.segment")
    reader = RecordingReader(tmp_path)
    assert len(list(reader.records())) > 0
    assert reader.problems == [f"{pipe} is not a regular file: it was not read"]
    with pytest.raises(ConfigurationError, match=r"contains other files, such as '00000002\.segment'"):
        async with recorded(Recording(tmp_path)):
            pass


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
        assert recording.statistics().lost == 2  # what could not be written
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


class Large(Reconciler):
    """Reads an object and writes it with another text of so many characters."""

    def __init__(self, size: int, gate: asyncio.Event | None = None) -> None:
        self.size, self.gate = size, gate

    async def reconcile(self, request: Request) -> Outcome:
        found = (await self.client.get("v1/ConfigMap", request.name, "default")).to_dict()["data"]
        if len(found["text"]) != self.size:
            await self.client.patch("v1/ConfigMap", request.name, "default", patch={"data": {"text": "x" * self.size}})
        if self.gate is not None:
            await self.gate.wait()
        return None


@asynccontextmanager
async def growing(recording: Recording, reconciler: Large, objects: int) -> AsyncIterator[None]:
    """Run a reconciler over so many objects until it waits for something."""
    async with APIServer() as server, Client(server) as client:
        manager = Manager(client, recording=recording)
        manager.add_controller(reconciler, resource="v1/ConfigMap", workers=objects)
        async with manager.running():
            for number in range(objects):
                await client.create({**config_map(f"o{number}"), "data": {"text": ""}})
            await asyncio.sleep(0.5)
            yield


@pytest.mark.parametrize(("objects", "size"), [(100, 5_000), (5, 300_000)])
async def test_what_running_reconciles_hold_is_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objects: int, size: int
) -> None:
    monkeypatch.setattr(recording_module, "_MAX_WAITING", 500_000)
    recording, gate = Recording(tmp_path / "r"), asyncio.Event()
    async with growing(recording, Large(size, gate), objects):
        gate.set()
        await asyncio.sleep(1)
        assert recording.statistics().active
        assert "reconciles that still run hold" in str(recording.statistics().problem)
        await asyncio.to_thread(recording._write)
    lost = recording.statistics().lost
    records = list(RecordingReader(tmp_path / "r").records())
    assert 0 < lost < 2 * objects
    assert len(records) == recording.statistics().reconciles > 0
    kept = sum(len(step.response) for each in records for step in each.steps if isinstance(step, RequestStep))
    assert kept <= 500_000


class Reads(Reconciler):
    """Reads an object."""

    async def reconcile(self, request: Request) -> Outcome:
        await self.client.get("v1/ConfigMap", request.name, "default")
        return None


async def test_versions_that_only_waiting_records_have_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording_module, "_MAX_WAITING", 3_000_000)
    monkeypatch.setattr(recording_module, "_INTERVAL", 3600.0)
    recording = Recording(tmp_path / "r")
    async with APIServer() as server, Client(server) as client:
        manager = Manager(client, recording=recording)
        manager.add_controller(Reads(), resource="v1/ConfigMap")
        async with manager.running():
            await client.create({**config_map("a"), "data": {"text": ""}})
            for number in range(20):
                await client.patch("v1/ConfigMap", "a", "default", patch={"data": {"text": str(number % 10) * 300_000}})
                await asyncio.sleep(1)
            assert 0 < recording.statistics().lost < 20


async def test_a_recording_continues_when_what_waits_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(recording_module, "_MAX_WAITING", 100_000)
    monkeypatch.setattr(recording_module, "_INTERVAL", 3600.0)
    recording = Recording(tmp_path / "r")
    async with growing(recording, Large(20_000), 10):
        assert "disk" not in str(recording.statistics().problem)  # which has not been asked for anything
        assert "one thread is too slow to redact" in caplog.text
        recording._due.set()
        while recording.statistics().problem is not None:
            await asyncio.to_thread(time.sleep, 0.001)
        lost = recording.statistics().lost
        assert lost
        assert recording.statistics().active
        assert caplog.text.count("left out of the recording") == 1
    assert recording.statistics().lost == lost
    assert len(list(RecordingReader(tmp_path / "r").records())) == recording.statistics().reconciles > 0


def is_mostly_on_disk(recording: Recording) -> bool:
    """Return whether the thread has waited for the disk longer than it has computed."""
    since, now = recording._on_disk_since, time.perf_counter()
    return since is not None and 2 * (now - since) > now - recording._busy_since


async def test_a_disk_that_is_too_slow_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(recording_module, "_MAX_WAITING", 200_000)
    monkeypatch.setattr(recording_module, "_PORTION", 1)
    written = threading.Event()
    write = SegmentWriter.write
    monkeypatch.setattr(SegmentWriter, "write", lambda *args: written.wait() and write(*args))
    recording = Recording(tmp_path / "r")
    try:
        async with APIServer() as server, Client(server) as client:
            manager = Manager(client, recording=recording)
            manager.add_controller(Large(20_000), resource="v1/ConfigMap")
            async with manager.running():
                for number in range(20):
                    await client.create({**config_map(f"o{number}"), "data": {"text": ""}})
                    await asyncio.sleep(0.5)
                    while not is_mostly_on_disk(recording):
                        await asyncio.to_thread(time.sleep, 0.001)
                assert "the disk is too slow" in str(recording.statistics().problem)
                assert recording.statistics().active
                written.set()
    finally:
        written.set()


async def test_a_stop_that_does_not_wait_for_the_disk_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    written = threading.Event()
    write = SegmentWriter.write
    monkeypatch.setattr(SegmentWriter, "write", lambda *args: written.wait() and write(*args))
    monkeypatch.setattr(recording_module, "_STOP_TIMEOUT", 0.01)
    recording = Recording(tmp_path / "r")
    async with recorded(recording) as (client, _):
        await client.create(config_map("a"))
        await asyncio.sleep(1)
    assert "the recording lacks the last reconciles" in caplog.text
    written.set()
    assert recording._thread is not None
    await asyncio.to_thread(recording._thread.join)


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


class ReadsItsWrite(Reconciler):
    """Changes a ConfigMap and reads it again."""

    async def reconcile(self, request: Request) -> Outcome:
        await self.client.patch("v1/ConfigMap", request.name, request.namespace, patch={"data": {"size": "1"}})
        await self.client.get("v1/ConfigMap", request.name, request.namespace)
        return None


async def test_a_read_of_an_own_write_has_the_document_of_the_response(tmp_path: Path) -> None:
    async with APIServer() as server, Client(server) as client:
        manager = Manager(client, recording=Recording(tmp_path / "r"))
        manager.add_controller(ReadsItsWrite(), resource="v1/ConfigMap")
        async with manager.running():
            await client.create(config_map("a"))
            await asyncio.sleep(2)
    write, read = next(RecordingReader(tmp_path / "r").records()).steps
    assert isinstance(write, RequestStep)
    assert isinstance(read, ReadStep)
    assert json.loads(read.data)["data"] == json.loads(write.response)["data"]
    replays = await asyncio.to_thread(lambda: list(replay(tmp_path / "r", ReadsItsWrite)))
    assert [each.differences for each in replays] == [()] * len(replays)


class Passwords(Reconciler):
    """Draws a password and writes it."""

    def __init__(self, draw: Callable[[], str], written: dict[str, Any]) -> None:
        self.draw, self.written = draw, written

    async def reconcile(self, request: Request) -> Outcome:
        if request.name != "a":
            return None
        metadata = {"name": f"drawn-{uuid.uuid4()}", "namespace": "default"}
        text = json.dumps({"apiVersion": "v1", "metadata": metadata, **self.written}).replace("DRAWN", self.draw())
        await self.client.apply(json.loads(text))
        return None


@pytest.mark.parametrize(
    "draw",
    [
        lambda: secrets.token_hex(8),
        lambda: secrets.token_urlsafe(16),
        lambda: str(uuid.uuid4()),
        lambda: "".join(secrets.choice("0123456789abcdef") for _ in range(16)),
        lambda: "".join(random.choice("0123456789abcdef") for _ in range(16)),
        lambda: "".join(random.choices("0123456789abcdef", k=16)),
    ],
)
@pytest.mark.parametrize(
    "written",
    [
        {"kind": "Secret", "stringData": {"any": "DRAWN"}},
        {"kind": "ConfigMap", "data": {"password": "DRAWN"}},
        {"kind": "ConfigMap", "data": {"settings": "db_password=DRAWN"}},
    ],
)
async def test_random_numbers_that_may_be_a_password_are_not_on_disk(
    tmp_path: Path, draw: Callable[[], str], written: dict[str, Any]
) -> None:
    async with APIServer() as server, Client(server) as client:
        manager = Manager(client, recording=Recording(tmp_path / "r"))
        manager.add_controller(Passwords(draw, written), resource="v1/ConfigMap")
        async with manager.running():
            await client.create(config_map("a"))
            await asyncio.sleep(0.1)
    record = next(RecordingReader(tmp_path / "r").records())
    name, *others = record.draws
    assert str(uuid.UUID(bytes=name, version=4)) in repr(record.steps)  # it is in the clear
    assert set(others) == {None}


class Logins(Reconciler):
    """Quotes the password of a Secret everywhere, and tells a provider a new one."""

    @effect
    async def register(self, user: str, password: str) -> None:
        """Register a user with the provider."""

    async def reconcile(self, request: Request) -> Outcome:
        found = (await self.client.get("v1/Secret", "login", "default")).to_dict()["data"]
        password = base64.b64decode(found["password"]).decode()
        log.warning("logging in with %r", password)
        for line in base64.b64decode(found["key"]).decode().splitlines():
            log.warning(line)
        note = {"note": f"somebody uses {password}, which is {found['password']}"}
        await self.client.patch("v1/ConfigMap", "a", "default", patch={"metadata": {"annotations": note}})
        login = f"{request.name}:{password}".encode()
        log.warning("sending X-Login: %s", base64.b64encode(login).decode())
        data = {"auth.json": base64.urlsafe_b64encode(login).decode(), "digits": login.hex()}
        await self.client.patch("v1/ConfigMap", "a", "default", patch={"data": data})
        await self.register(login.hex().upper(), secrets.token_hex(8))
        raise ValueError(f"refused: {password} {'-' * 470} {password}")  # cut within the second one


async def test_values_of_a_secret_are_replaced_wherever_the_reconcile_repeats_them(tmp_path: Path) -> None:
    key = "".join(f"{'aB3dE5fG7h' * 5}{number}\n" for number in range(40))
    values = {"username": "somebody", "password": 'correct "horse"', "key": key}
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
    assert "correct" not in text
    assert "horse" not in text
    assert "aB3dE5fG7h" not in text
    assert base64.b64encode(values["password"].encode()).decode() not in text
    assert base64.b64encode(b"a:" + values["password"].encode()).decode()[3:-2] not in text
    assert values["password"].encode().hex() not in text.lower()
    assert "logging in with '[REDACTED]'" in text
    assert "somebody uses [REDACTED]" in text
    assert "refused: [REDACTED]" in text
    assert all(draw is None for record in records for draw in record.draws)
    replays = await asyncio.to_thread(lambda: list(replay(tmp_path / "r", Logins)))
    assert [difference for each in replays for difference in each.differences] == []
