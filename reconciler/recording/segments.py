"""Segments: the files of a recording. Each can be read by itself, up to where it is torn.

A segment begins with a line that names the format. Frames follow: the codec (1 byte), the length and the CRC-32 of the
payload (4 bytes each, big endian), and the payload: a compressed `Batch` in MessagePack. Documents are stored once per
segment and version.
"""

from __future__ import annotations

import importlib
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from reconciler._core.wire import UNDECODABLE
from reconciler.cache.decoding import WireReader
from reconciler.errors import ConfigurationError
from reconciler.meta import GroupVersionKind
from reconciler.meta.metadata import ResourceType
from reconciler.recording.records import (
    DocumentKey,
    ReadStep,
    ReconcileRecord,
    RequestStep,
    document_key,
    reads_of,
)

SUFFIX = ".segment"
_NAME = b"kube-reconciler recording "
_FORMAT = b"1"
_FRAME = struct.Struct(">BII")
_ZLIB, _ZSTD = 1, 2
_MAX_PAYLOAD = 2**30


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


class _AnswerMetadata(msgspec.Struct, rename="camel", gc=False):
    name: str = ""
    namespace: str | None = None
    resource_version: str = ""
    managed_fields: msgspec.Raw = msgspec.Raw(b"")


class _Answer(msgspec.Struct, rename="camel", gc=False):
    api_version: str
    kind: str
    metadata: _AnswerMetadata


_decode_answer = msgspec.json.Decoder(_Answer).decode
_MANAGED_FIELDS = len('"managedFields":,')


def answered_document(step: RequestStep) -> tuple[DocumentKey, int] | None:
    """Return the key of the object in a response, and its length without managedFields; None if there is none.

    A cache that has stored the response has the same bytes, so they need not be stored twice.
    """
    if not 200 <= step.status < 300 or not step.is_write:
        return None
    try:
        answer = _decode_answer(step.response)
    except UNDECODABLE:
        return None
    metadata = answer.metadata
    managed = len(bytes(metadata.managed_fields))
    key = f"{answer.api_version}/{answer.kind}", metadata.name, metadata.namespace, metadata.resource_version
    return key, len(step.response.rstrip()) - (managed + _MANAGED_FIELDS if managed else 0)


class SegmentWriter:
    """A writer of one segment, which only its owner can read.

    Args:
        path: the new file.

    Attributes:
        path: as given.
        size: bytes that were written.
        known: keys of the documents that it contains.
        answers: lengths of the documents that responses in it contain.
        kinds: kinds that it contains.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: set[DocumentKey] = set()
        self.answers: dict[DocumentKey, int] = {}
        self.kinds: set[str] = set()
        self._file: BinaryIO = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", buffering=0)
        self.size = _write_all(self._file, _NAME + _FORMAT + b"\n")
        self._zstd = _zstd()

    def write(self, batch: Batch) -> None:
        """Write a batch; after an error the segment ends before it."""
        payload = _encode(batch)
        payload = zlib.compress(payload, 1) if self._zstd is None else self._zstd.compress(payload)
        header = _FRAME.pack(_ZLIB if self._zstd is None else _ZSTD, len(payload), zlib.crc32(payload))
        try:
            self.size += _write_all(self._file, header + payload)
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


def _zstd() -> Any | None:
    """Return Python's module for Zstandard; None before Python 3.14."""
    try:
        return importlib.import_module("compression.zstd")
    except ImportError:
        return None


class RecordingReader:
    """A reader of a recording: a directory of segments, or one segment.

    Args:
        path: the directory, or the file.

    Attributes:
        kinds: how the kinds are served, of the segments that were read.
        problems: what could not be read, one line for each segment.

    Raises:
        ConfigurationError: it is not a recording, or has another format.
    """

    def __init__(self, path: Path) -> None:
        self.kinds: dict[str, ServedKind] = {}
        self.problems: list[str] = []
        try:
            self._segments = sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]
            for segment in self._segments:
                _check_format(segment)
        except OSError as error:
            raise ConfigurationError(f"cannot read the recording {path}: {error.strerror}") from error
        if not self._segments:
            raise ConfigurationError(f"{path} is not a recording: it contains no *{SUFFIX} file")

    def records(self) -> Iterator[ReconcileRecord]:
        """Yield the records, in the order in which the reconciles ended, with the data of their reads."""
        for segment in self._segments:
            documents: dict[DocumentKey, bytes] = {}
            for batch in self._batches(segment):
                self.kinds.update((each.kind, each) for each in batch.kinds)
                documents.update((document_key(each), each.data) for each in batch.documents)
                for record in batch.records:
                    for read in reads_of(record):
                        read.data = documents.get(document_key(read), b"")
                    documents.update(_answered(record))
                    yield record

    def _batches(self, segment: Path) -> Iterator[Batch]:
        with segment.open("rb") as file:
            file.readline()
            while header := file.read(_FRAME.size):
                place = file.tell() - len(header)
                codec, size, checksum = _FRAME.unpack(header) if len(header) == _FRAME.size else (0, 1, 0)
                payload = file.read(min(size, _MAX_PAYLOAD))
                if len(payload) < size or zlib.crc32(payload) != checksum:
                    self.problems.append(f"{segment} is torn at byte {place}: what follows was not read")
                    return
                yield _decode(_decompressed(codec, payload, segment))


def _answered(record: ReconcileRecord) -> Iterator[tuple[DocumentKey, bytes]]:
    """Yield the documents in the responses of a record, as a cache keeps them."""
    for step in record.steps:
        if isinstance(step, RequestStep) and (found := answered_document(step)) is not None:
            cached = WireReader(GroupVersionKind.parse(found[0][0])).read(step.response)
            if cached is not None:
                yield found[0], cached.data


def _decompressed(codec: int, payload: bytes, segment: Path) -> bytes:
    if codec == _ZLIB:
        return zlib.decompress(payload)
    zstd = _zstd()
    if codec != _ZSTD or zstd is None:
        raise ConfigurationError(f"{segment} is compressed with Zstandard: read it with Python 3.14 or newer")
    return bytes(zstd.decompress(payload))


def _check_format(segment: Path) -> None:
    with segment.open("rb") as file:
        first = file.readline(100)
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
        documents = {document_key(read): read for record in records for read in reads_of(record) if read.data}
        kept = [msgspec.structs.replace(read) for read in documents.values()]
        for read in documents.values():
            read.data = b""
        try:
            writer.write(Batch(list(kinds), kept, list(records)))
        finally:
            writer.close()
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror}") from error
