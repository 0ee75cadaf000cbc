"""`Recording`: a ring of segments on disk, written by a thread, and the reader of its segments.

A segment is a file that can be read by itself, up to where it is torn. It begins with a line that names the format.
Frames follow: the codec (1 byte), the length and the CRC-32 of the payload (4 bytes each, big endian), and the payload:
a compressed `Batch` in MessagePack. Documents are stored once per segment and version.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import re
import struct
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

import msgspec
import zstandard

from reconciler._core.durations import DurationLike, seconds_of
from reconciler._core.redaction.engine import TAIL
from reconciler.cache.decoding import WireReader
from reconciler.errors import ConfigurationError
from reconciler.meta import GroupVersionKind
from reconciler.meta.metadata import ResourceType
from reconciler.recording.collector import ReconcileTrace, RecordSink
from reconciler.recording.records import (
    DocumentKey,
    EffectStep,
    LogStep,
    ReadStep,
    ReconcileRecord,
    RequestStep,
    Step,
    document_key,
    documents_of,
)
from reconciler.recording.redaction import (
    DocumentRedactor,
    ObjectParts,
    RedactKnown,
    object_in,
    redact_request,
    redact_step,
    secret_values,
    without_secret_draws,
)
from reconciler.telemetry.registry import RecordingStatistics

SUFFIX = ".segment"
_NAME = b"kube-reconciler recording "
_FORMAT = b"1"
_FIRST = _NAME + _FORMAT + b"\n"
_FRAME = struct.Struct(">BII")
_ZSTD = 2
_MAX_PAYLOAD = 2**30
"""Bytes of a payload, compressed or not."""


class ServedKind(msgspec.Struct, array_like=True):
    """How a kind is served.

    Attributes:
        kind: such as ``"apps/v1/Deployment"``.
        plural: the name in paths.
        namespaced: whether its objects have a namespace.
        subresources: such as ``["status"]``.
    """

    kind: str
    plural: str
    namespaced: bool
    subresources: list[str]

    @classmethod
    def of(cls, resource: ResourceType) -> ServedKind:
        """Return the entry of a kind."""
        return cls(str(resource.gvk), resource.plural, resource.namespaced, sorted(resource.subresources))

    @property
    def resource(self) -> ResourceType:
        """Return how the kind is served, as the client describes it."""
        gvk = GroupVersionKind.parse(self.kind)
        return ResourceType(gvk, self.plural, self.namespaced, frozenset(self.subresources))


class Batch(msgspec.Struct, array_like=True):
    """What is written at once.

    Attributes:
        kinds: kinds that are new in the segment.
        documents: versions of objects that are new in the segment.
        records: reconciles that ended; their reads have no data.
    """

    kinds: list[ServedKind]
    documents: list[ReadStep]
    records: list[ReconcileRecord]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Batch).decode


_MANAGED_FIELDS = len('"managedFields":,')


def answered_object(step: RequestStep) -> ObjectParts | None:
    """Return the object in the response to a write; None if there is none.

    A cache that has stored the response has the same bytes apart from managedFields, so they need not be stored twice.
    """
    found = object_in(step.response) if 200 <= step.status < 300 and step.is_write else None
    return found if found is not None and found.kind else None


def _key_of(found: ObjectParts) -> DocumentKey:
    metadata = found.metadata
    return f"{found.api_version}/{found.kind}", metadata.name, metadata.namespace, metadata.resource_version


def _length(document: bytes) -> int:
    """Return the bytes of a document, without the line break that a server ends it with."""
    return len(document) - document.endswith(b"\n")


class SegmentWriter:
    """A writer of one segment, which only its owner can read.

    Args:
        path: the new file.

    Attributes:
        path: as given.
        size: bytes that were written.
        known: the documents that it contains, with the length of those that are in a response; 0 for the others.
        kinds: kinds that it contains.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[DocumentKey, int] = {}
        self.kinds: set[GroupVersionKind] = set()
        self._file: BinaryIO = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", buffering=0)
        self.size = _write_all(self._file, _FIRST)
        self._compress = zstandard.ZstdCompressor(level=1).compress

    def frame(self, batch: Batch) -> bytes:
        """Return what is written for a batch."""
        payload = self._compress(_encode(batch))
        return _FRAME.pack(_ZSTD, len(payload), zlib.crc32(payload)) + payload

    def write(self, frame: bytes) -> None:
        """Write a batch; after an error the segment ends before it."""
        try:
            self.size += _write_all(self._file, frame)
        except OSError:
            self._file.truncate(self.size)
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _write_all(file: BinaryIO, data: bytes) -> int:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
    return len(data)


class RecordingReader:
    """A reader of a recording: a directory of segments, or one segment.

    Args:
        path: the directory, or the file.

    Attributes:
        kinds: how the kinds are served, of the segments that were read.
        problems: what could not be read, one line for each segment.

    Raises:
        ConfigurationError: it is not a recording, or cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.kinds: dict[str, ServedKind] = {}
        self.problems: list[str] = []
        self._path = path
        try:
            found = sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]
            self._segments = [each for each in found if each.is_file() or not each.exists()]
            pipes = [each for each in found if each not in self._segments]  # which may block
            self.problems += [f"{each} is not a regular file: it was not read" for each in pipes]
        except OSError as error:
            raise ConfigurationError(f"cannot read the recording {path}: {error.strerror}") from error
        if not self._segments:
            raise ConfigurationError(f"{path} is not a recording: it contains no *{SUFFIX} file")

    def records(self) -> Iterator[ReconcileRecord]:
        """Yield the records, in the order in which the reconciles ended, with the data of their reads.

        A segment that the operator drops meanwhile is left out.

        Raises:
            ConfigurationError: a segment is none, has another format, or cannot be read.
        """
        for segment in self._segments:
            documents: dict[DocumentKey, bytes] = {}
            for batch in self._read(segment):
                self.kinds.update((each.kind, each) for each in batch.kinds)
                documents.update((document_key(each), each.data) for each in batch.documents)
                for record in batch.records:
                    for key, data in _answered(record):
                        documents.setdefault(key, data)
                    for read in documents_of(record):
                        read.data = documents.get(document_key(read), b"")
                    yield record

    def _read(self, segment: Path) -> Iterator[Batch]:
        try:
            yield from self._batches(segment)
        except OSError as error:
            if not isinstance(error, FileNotFoundError) or segment == self._path:
                raise ConfigurationError(f"cannot read the recording {segment}: {error.strerror}") from error

    def _batches(self, segment: Path) -> Iterator[Batch]:
        with segment.open("rb") as file:
            first = file.readline(100)
            if first == _FIRST[: len(first)] != _FIRST:
                if first:  # nothing is in one that has just been created
                    self.problems.append(f"{segment} is torn at byte 0: what follows was not read")
                return
            _check_format(segment, first)
            while header := file.read(_FRAME.size):
                place = file.tell() - len(header)
                codec, size, checksum = _FRAME.unpack(header) if len(header) == _FRAME.size else (0, 1, 0)
                payload = file.read(min(size, _MAX_PAYLOAD))
                if len(payload) < size or zlib.crc32(payload) != checksum:
                    self.problems.append(f"{segment} is torn at byte {place}: what follows was not read")
                    return
                try:
                    batch = _decode(_decompressed(codec, payload))
                except _DAMAGE:
                    self.problems.append(f"{segment} is damaged at byte {place}: what follows was not read")
                    return
                yield batch


def _answered(record: ReconcileRecord) -> Iterator[tuple[DocumentKey, bytes]]:
    """Yield the documents in the responses of a record, as a cache keeps them."""
    for step in record.steps:
        if isinstance(step, RequestStep) and (found := answered_object(step)) is not None:
            key = _key_of(found)
            cached = WireReader(GroupVersionKind.parse(key[0])).read(step.response)
            if cached is not None:
                yield key, cached.data


def _decompressed(codec: int, payload: bytes) -> bytes:
    if codec != _ZSTD or zstandard.frame_content_size(payload) > _MAX_PAYLOAD:
        raise ValueError("not a payload of a writer")
    return zstandard.ZstdDecompressor().decompress(payload, max_output_size=_MAX_PAYLOAD)


_DAMAGE = (ValueError, zstandard.ZstdError)
"""What a payload raises that is not one of a writer's. A `msgspec.DecodeError` is a ValueError."""


def _check_format(segment: Path, first: bytes) -> None:
    if not first.startswith(_NAME):
        raise ConfigurationError(f"{segment} is not a segment of a recording")
    found = first.removeprefix(_NAME).strip()
    if found != _FORMAT:
        raise ConfigurationError(
            f"{segment} has format {found.decode(errors='replace')}, and this version of kube-reconciler reads format "
            f"{_FORMAT.decode()}: use the version that recorded it"
        )


def write_recording(path: Path, records: Sequence[ReconcileRecord], kinds: Sequence[ServedKind]) -> None:
    """Write records to one segment, in place of an existing file.

    Raises:
        ConfigurationError: it cannot be written.
    """
    try:
        path.unlink(missing_ok=True)
        writer = SegmentWriter(path)
        found = [read for record in records for read in documents_of(record)]
        kept = {document_key(read): msgspec.structs.replace(read) for read in found if read.data}
        for read in found:
            read.data = b""
        try:
            writer.write(writer.frame(Batch(list(kinds), list(kept.values()), list(records))))
        finally:
            writer.close()
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror}") from error


_log = logging.getLogger("reconciler.recording")

_INTERVAL = 1.0
"""Seconds between two writes: what a killed process loses at most."""

_MAX_WAITING = 64 * 2**20
"""Bytes that traces in progress and records that wait to be written hold. Reconciles that need more are left out."""

_TRACE = 500
"""Roughly the bytes of a record without its steps."""
_STEP = 200
"""Bytes that a step of a trace takes, such as a read, apart from its documents."""

_PORTION = 8 * 2**20
"""Bytes of records, and of the documents that are new with them, that are written at once, and without waiting for the
rest of the interval."""

_SEGMENTS = 12
"""Segments that a full ring consists of; the oldest is deleted as a whole. Fewer if a segment has a large record."""

_MAX_DOCUMENTS = 100_000
"""Documents of a segment, whose keys are kept in memory while it is written: 30 MB."""

_STOP_TIMEOUT = 5.0
"""Seconds that the end of a process waits for the disk."""

_is_own = re.compile(rf"lock|\d{{8,}}{re.escape(SUFFIX)}").fullmatch
"""Matches the names of a recording's files."""

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}


class _SegmentFile(msgspec.Struct):
    """A segment of the ring.

    Attributes:
        path: the file.
        size: its bytes.
        began: when its first reconcile ended.
        ended: when its last one ended.
    """

    path: Path
    size: int
    began: datetime
    ended: datetime


class Recording(RecordSink):
    """A recording on disk of what the reconciles of a manager depend on: ``Manager(client, recording=Recording(…))``.

    The directory is created if it is missing, and continued if it has a recording. One process at a time can use it.
    Its files can be read by their owner alone. The values of Secrets, and all that looks like a secret, are replaced
    before they are written. A full disk ends the recording and not the operator: an error is logged, and the metric
    ``reconciler_recording_active`` is 0. If reconciles make more than is written, some of them are left out: an error
    says why, and the metric ``reconciler_recording_reconciles_total`` counts them as ``lost``.

    Args:
        directory: the directory.
        keep: how far the recording reaches back: seconds, a timedelta or ``"2h"``, the default. What is older is
            deleted when something is written.
        max: its size on disk at most, such as ``"500MB"`` or a number of bytes. Default 500 MB. A reconcile that takes
            more than half of it, compressed, is left out.

    Raises:
        ConfigurationError: `keep` or `max` is invalid.
    """

    def __init__(
        self, directory: str | os.PathLike[str], *, keep: DurationLike = "2h", max: str | int = "500MB"
    ) -> None:
        self.directory = Path(directory)
        self._keep = timedelta(seconds=seconds_of("keep", keep))
        self._max = _size(max)
        self._kinds: Callable[[], Sequence[ResourceType]] = tuple
        self._waiting: deque[ReconcileTrace] = deque()
        self._lock: BinaryIO | None = None
        self._thread: threading.Thread | None = None
        self._stopping, self._due = threading.Event(), threading.Event()
        self._redactor = DocumentRedactor()
        self._ring: deque[_SegmentFile] = deque()  # oldest first
        self._segment: SegmentWriter | None = None  # of the last one
        self._counting = threading.Lock()
        self._ended = self._written = self._left_out = 0
        self._problem: str | None = None  # why it ended
        self._excess: str | None = None  # why reconciles are left out now
        self._busy_since = self._on_disk = 0.0  # when the thread had to write, and its seconds on the disk since then
        self._on_disk_since: float | None = None
        self.limit = _MAX_WAITING

    def redact(self, known: RedactKnown) -> None:
        """Also remove the secrets that the operator knows.

        Args:
            known: called with text and its namespace, in another thread; returns the text without them.
        """
        self._redactor.known = known

    def start(self, kinds: Callable[[], Sequence[ResourceType]]) -> None:
        """Lock the directory and start the thread.

        Raises:
            ConfigurationError: the directory cannot be used: it has other files, or another process records there.
        """
        self._kinds = kinds
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            others = [each.name for each in self.directory.iterdir() if not (_is_own(each.name) and _is_regular(each))]
            if others:
                raise ConfigurationError(
                    f"cannot record in {self.directory}: it contains other files, such as {min(others)!r}; "
                    "choose an empty or a new directory"
                )
            self._lock = _locked(self.directory / "lock")
            for path in sorted(self.directory.glob(f"*{SUFFIX}")):
                stat = path.stat()
                ended = datetime.fromtimestamp(stat.st_mtime, UTC)
                self._ring.append(_SegmentFile(path, stat.st_size, ended, ended))
        except OSError as error:
            raise ConfigurationError(f"cannot record in {self.directory}: {error.strerror}") from error
        context = contextvars.copy_context()  # has the clock
        self._thread = threading.Thread(
            target=context.run, args=(self._write_until_stopped,), name="recording", daemon=True
        )
        self._thread.start()

    def ended(self, trace: ReconcileTrace) -> None:
        """Pass the record to the thread, which does everything else."""
        self._ended += 1
        if trace.left_out and self._problem is None:
            self._leave_out(1, self._cause(trace))
            return
        held, size = trace.held, _TRACE + _STEP * (len(trace.steps) + len(trace.draft.times))
        with held.lock:
            if self._problem is not None:
                held.added -= trace.size
                return
            trace.size += size
            held.added += size
        held.waiting += trace.size
        self._waiting.append(trace)
        if held.waiting - held.released >= _PORTION:
            self._due.set()

    def _leave_out(self, count: int, cause: str) -> None:
        with self._counting:  # both threads leave reconciles out
            self._left_out += count
            known, self._excess = self._excess, self._excess or cause
        if known is None:
            _log.error("reconciles are left out of the recording: %s", cause)

    def _cause(self, trace: ReconcileTrace) -> str:
        """Return why a trace is left out."""
        most = f"{self.limit // 2**20} MiB"
        if trace.left_out == "running":
            return f"reconciles that still run hold {most} of documents, requests and responses"
        since, now = self._on_disk_since, time.perf_counter()
        on_disk = self._on_disk + (0.0 if since is None else now - since)
        if on_disk * 2 > now - self._busy_since:
            return f"the disk is too slow: {most} wait to be written"
        return f"one thread is too slow to redact and compress what the reconciles make: {most} wait to be written"

    async def stop(self) -> None:
        """Write what is left and unlock the directory. Waits up to 5 s for the disk; cancellation ends the wait."""
        self._stopping.set()
        self._due.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, _STOP_TIMEOUT)
            if self._thread.is_alive():
                _log.warning("the recording lacks the last reconciles: they were not written in %g s", _STOP_TIMEOUT)
        if self._lock is not None:
            self._lock.close()

    def segments(self) -> list[Path]:
        """Return the files, oldest first; the last one grows. Thread-safe."""
        return [each.path for each in list(self._ring)]

    def statistics(self) -> RecordingStatistics:
        """Return the current figures. Thread-safe."""
        size = sum(each.size for each in list(self._ring))
        active = self._thread is not None and self._problem is None and not self._stopping.is_set()
        lost = self._left_out if self._problem is None else self._ended - self._written
        return RecordingStatistics(active, self._written, lost, size, self._problem or self._excess)

    def __str__(self) -> str:
        return str(self.directory)

    # The thread.

    def _write_until_stopped(self) -> None:
        while self._problem is None:
            self._due.wait(_INTERVAL)
            self._due.clear()
            stopping, left_out = self._stopping.is_set(), self._left_out
            try:
                self._write()
            except OSError as error:
                self._end(f"cannot write to {self.directory}: {error.strerror}")
            except Exception:  # noqa: BLE001 - whatever it is, the operator continues
                _log.exception("a defect of the recording")
                self._end("of a defect, see the log")
            with self._counting:
                if self._left_out == left_out:
                    self._excess = None
            if stopping:
                break
        if self._segment is not None:
            self._segment.close()

    def _end(self, problem: str) -> None:
        self._problem = problem
        self._waiting = deque()
        _log.error("the recording ends, the operator continues: %s", problem)

    def _write(self) -> None:
        self._busy_since, self._on_disk = time.perf_counter(), 0.0
        while self._waiting:
            self._write_portion()

    def _write_portion(self) -> None:
        held = self._waiting[0].held
        segment = self._current(self._waiting[0].draft.ended)
        batch, size, released = Batch([], [], []), 0, 0
        most = min(_PORTION, self._max // _SEGMENTS)
        while self._waiting and size < most:
            trace = self._waiting.popleft()
            record, released = trace.record, released + trace.size
            documents = self._prepare(record, segment)
            size += trace.size
            for document in documents:
                size += len(document.data)
            if size > most and batch.records:  # a large record is written by itself, and ends the portion
                self._write_batch(batch, segment)
                batch = Batch([], [], [])
            batch.documents += documents
            batch.records.append(record)
        self._write_batch(batch, segment)
        held.released += released

    def _write_batch(self, batch: Batch, segment: SegmentWriter) -> None:
        new = [each for each in self._kinds() if each.gvk not in segment.kinds]
        batch.kinds = list(map(ServedKind.of, new))
        frame = segment.frame(batch)
        if len(frame) > self._max // 2:
            segment.known.clear()  # since it does not contain the documents of the batch
            self._leave_out(len(batch.records), f"one takes {len(frame)} bytes on disk, more than half of `max`")
            return
        self._drop_old(batch.records[-1].ended, len(frame))
        began = self._on_disk_since = time.perf_counter()
        segment.write(frame)
        self._on_disk_since = None
        self._on_disk += time.perf_counter() - began
        segment.kinds.update(each.gvk for each in new)
        self._ring[-1].size, self._ring[-1].ended = segment.size, batch.records[-1].ended
        self._written += len(batch.records)

    def _prepare(self, record: ReconcileRecord, segment: SegmentWriter) -> list[ReadStep]:
        """Remove the documents from a record, replace all secrets, and return those that are new in the segment."""
        redactor, namespace, reads = self._redactor, record.namespace, documents_of(record)
        documents: list[ReadStep] = []
        redactor.values = secret_values(record, reads)
        said = [_said(step) for step in record.steps] if record.draws else []
        for wake_up in record.wake_ups:
            wake_up.managed_fields = redactor.redact(wake_up.managed_fields, wake_up.namespace)
        for step in record.steps:
            if isinstance(step, RequestStep):
                answer = answered_object(step)
                if answer is not None:
                    managed = bytes(answer.metadata.managed_fields)
                    more = len(managed) + _MANAGED_FIELDS if managed else 0
                    segment.known.setdefault(_key_of(answer), _length(step.response) - more)
                redact_request(step, redactor, namespace, answer)
            elif not isinstance(step, ReadStep):
                redact_step(step, redactor, namespace)
        for read in reads:
            if read.data and segment.known.get(key := document_key(read)) not in (0, _length(read.data)):
                segment.known[key] = 0
                data = redactor.redact(read.data, read.namespace, secret=read.kind == "v1/Secret")
                documents.append(ReadStep(0.0, read.kind, read.name, read.namespace, read.version, data))
            read.data = b""
        if record.failure is not None:
            message = redactor.text(record.failure.message or "", namespace)
            if redactor.values and message.endswith("…"):
                message = message[:-TAIL] + "…"  # which may be the beginning of a value
            record.failure = msgspec.structs.replace(record.failure, message=message)
        if record.draws and said != (clean := [_said(step) for step in record.steps]):
            record.draws = without_secret_draws(record.draws, b"\n".join(clean).decode(errors="replace"))
        return documents

    def _current(self, at: datetime) -> SegmentWriter:
        """Return the segment to write to; a new one if the last one is full."""
        segment = self._segment
        if segment is not None:
            kept = len(segment.known) < _MAX_DOCUMENTS
            if kept and segment.size < self._max / _SEGMENTS and at - self._ring[-1].began < self._keep / _SEGMENTS:
                return segment
            segment.close()
        last = int(self._ring[-1].path.stem) if self._ring else 0
        self._segment = segment = SegmentWriter(self.directory / f"{last + 1:08}{SUFFIX}")
        self._ring.append(_SegmentFile(segment.path, segment.size, at, at))
        return segment

    def _drop_old(self, now: datetime, more: int) -> None:
        """Delete the oldest segments, so that the others are new enough and leave room for so many bytes."""
        while len(self._ring) > 1 and (
            self.statistics().bytes + more > self._max or now - self._ring[0].ended > self._keep
        ):
            self._ring.popleft().path.unlink(missing_ok=True)


def _said(step: Step) -> bytes:
    """Return what a reconcile made itself, with what it drew perhaps; empty for a read."""
    if isinstance(step, RequestStep):
        return step.target.encode(errors="replace") + step.body
    if isinstance(step, EffectStep):
        return step.arguments + step.value + step.message.encode(errors="replace")
    return step.message.encode(errors="replace") if isinstance(step, LogStep) else b""


def _size(most: str | int) -> int:
    found = re.fullmatch(r"(\d{1,12})\s*([KMG][BI]|)B?", str(most).strip().upper())
    size = int(found[1]) * _UNITS[found[2]] if found else 0
    if size < 10**6:
        raise ConfigurationError(f"max must be a size of 1 MB or more, such as '500MB', not {most!r}")
    return size


def _is_regular(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _locked(path: Path) -> BinaryIO:
    """Return an open file that no other process can lock until it is closed."""
    import fcntl

    lock = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = lock.read(20).decode(errors="replace")
        lock.close()
        raise ConfigurationError(
            f"another process ({pid or 'unknown'}) records in {path.parent}: give each process, and each shard, a "
            "directory of its own"
        ) from None
    lock.truncate(0)
    lock.write(str(os.getpid()).encode())
    lock.flush()
    return lock
