"""The whole state of a cluster as lines of JSON, and the directory from which the next server continues.

A file holds a snapshot, and a line for each commit after it. The lines of a request are written before its response, so
a server that is killed loses nothing that it has answered. They are not synced to the disk one by one: a machine that
loses power may lose the last seconds.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, NamedTuple

import msgspec

from reconciler._core.wire import UNDECODABLE, JSONObject
from reconciler.apiserver.cluster import APIResource, ClusterStorage
from reconciler.apiserver.encoding.refusals import qualified
from reconciler.apiserver.store import Stored, encode
from reconciler.errors import ConfigurationError

DEFINITIONS = "customresourcedefinitions.apiextensions.k8s.io"

_FORMAT = "kube-reconciler state, version 1"
_MAX_VERSION = 2**62
"""The newest version to start at: clients and etcd count with 64 bits, and the writes after it need room."""

_TOKEN = re.compile("[0-9a-f]{32}")
_MIN_RECORDS = 10_000
"""How many records a file has at least before a new snapshot replaces it."""


class ForkReport(msgspec.Struct, rename="camel", omit_defaults=True):
    """What a fork has of a cluster. Kinds have the names of resources, such as ``deployments.apps``.

    Attributes:
        server_version: the version of the cluster, such as ``v1.34.1``.
        taken: when the copy began, an RFC 3339 time.
        namespaces: the namespaces of which objects are copied; empty for all.
        selectors: the label selector of each kind that has one.
        copied: the number of objects that were copied of each kind.
        denied: the kinds that the user may not list, with the server's message; they look empty.
        missing: the kinds that were asked for and that the fork does not have, with the reason.
        replaced: how many values of Secrets were replaced.
    """

    server_version: str = ""
    taken: str = ""
    namespaces: list[str] = msgspec.field(default_factory=list)
    selectors: dict[str, str] = msgspec.field(default_factory=dict)
    copied: dict[str, int] = msgspec.field(default_factory=dict)
    denied: dict[str, str] = msgspec.field(default_factory=dict)
    missing: dict[str, str] = msgspec.field(default_factory=dict)
    replaced: int = 0


class State(NamedTuple):
    """The objects of a cluster at one version.

    Attributes:
        version: the newest resourceVersion.
        objects: the stored documents by key, by resource, such as ``deployments.apps``.
        fork: what it has of another cluster, if it is a fork.
    """

    version: int
    objects: dict[str, dict[str, JSONObject]]
    fork: ForkReport | None = None

    def lines(self) -> Iterator[bytes]:
        """Yield the lines of a snapshot."""
        count, fork = sum(map(len, self.objects.values())), {} if self.fork is None else {"fork": self.fork}
        yield encode({"format": _FORMAT, "resourceVersion": self.version, "objects": count, **fork}) + b"\n"
        for name, documents in self.objects.items():
            for document in documents.values():
                yield b'{"resource":"%b","object":%b}\n' % (name.encode(), encode(document))

    def bumped(self, by: int | None) -> State:
        """Return the state with its version increased; None leaves it.

        Raises:
            ConfigurationError: the number is less than 1, or the version would be too large.
        """
        if by is not None and by < 1:
            raise ConfigurationError(f"bump_revision must be 1 or more, not {by}")
        version = self.version + (by or 0)
        if version > _MAX_VERSION:
            raise ConfigurationError(f"the server's version would be {version}: the limit is {_MAX_VERSION}")
        return self._replace(version=version)


class _Header(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    format: Literal["kube-reconciler state, version 1"]
    resource_version: Annotated[int, msgspec.Meta(ge=1)]
    objects: Annotated[int, msgspec.Meta(ge=0)]
    fork: ForkReport | None = None


class _Record(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    """An object that was stored, or the key of one that was removed and the version of the server then."""

    resource: str
    object: JSONObject | None = None
    removed: str = ""
    resource_version: int = 0


class _Owner(msgspec.Struct):
    uid: str = ""


class _StoredMetadata(msgspec.Struct, rename="camel"):
    """The metadata of a stored object, as far as the server relies on it."""

    name: str
    uid: str
    resource_version: Annotated[str, msgspec.Meta(pattern="^[1-9][0-9]{0,18}$")]
    namespace: str = ""
    finalizers: list[str] | None = None
    owner_references: list[_Owner] | None = None


class StoredObject(msgspec.Struct):
    """A stored object, as far as the server relies on it."""

    metadata: _StoredMetadata


def resource_name(resource: APIResource) -> str:
    """Return the plural and the group of the stored kind."""
    return qualified(resource.info.plural, resource.info.internal_group)


def record_of(resource: APIResource, old: Stored | None, new: Stored | None, version: int) -> bytes:
    """Return the line for a commit; `version` is the server's after it."""
    name = resource_name(resource)
    if new is not None:
        return b'{"resource":"%b","object":%b}\n' % (name.encode(), new.encoded(resource.api_version))
    removed = "" if old is None else old.key
    return encode({"resource": name, "removed": removed, "resourceVersion": version}) + b"\n"


def state_of(cluster: ClusterStorage, fork: ForkReport | None = None) -> State:
    """Return the state of a cluster; of a fork, with what it has of the other cluster."""
    resources = [resource for resource in cluster.registry.resources() if resource.info.stored_as is None]
    objects = {
        resource_name(resource): {key: stored.doc for key, stored in resource.store.objects.items()}
        for resource in resources
    }
    return State(cluster.revisions.current, objects, fork)


def read_state(content: bytes, source: str) -> State:
    """Return the state after a snapshot and the records that follow it; errors name the source.

    A last record without its end is ignored: the process was killed while it wrote it, before it sent the response.

    Raises:
        ConfigurationError: they are not a snapshot, or a part of one; the message names the line.
    """
    if not isinstance(content, bytes):
        wanted = "pass what snapshot() returned; read_bytes() of a path reads it"  # type: ignore[unreachable]
        raise ConfigurationError(f"{source} must be bytes, not {type(content).__name__}: {wanted}")
    first, *lines, _ = content.split(b"\n") if b"\n" in content else (b"", b"")
    try:
        header = msgspec.json.decode(first, type=_Header)
    except UNDECODABLE:
        raise ConfigurationError(f"{source} was not written by an embedded API server") from None
    if len(lines) < header.objects:
        raise ConfigurationError(f"{source} is cut off: it has {len(lines)} of {header.objects} objects")
    version = header.resource_version
    objects: dict[str, dict[str, JSONObject]] = {}
    decoder = msgspec.json.Decoder(_Record)
    for number, line in enumerate(lines, 2):
        try:
            version = max(version, _replay(objects, decoder.decode(line)))
        except UNDECODABLE as error:
            raise ConfigurationError(f"{source} is damaged in line {number}: {error}") from None
    return State(version, objects, header.fork)


def _replay(objects: dict[str, dict[str, Any]], record: _Record) -> int:
    found = objects.setdefault(record.resource, {})
    if record.object is None:
        found.pop(record.removed, None)
        return record.resource_version
    metadata = msgspec.convert(record.object, StoredObject).metadata
    found[f"{metadata.namespace}/{metadata.name}" if metadata.namespace else metadata.name] = record.object
    return int(metadata.resource_version)


class DataDirectory:
    """A directory that one server at a time keeps its state in; created if it is missing, readable only by its owner.

    Git ignores it: it contains Secrets and the token.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._place = path / "state.jsonl"
        self._lock: BinaryIO | None = None
        self._file: BinaryIO | None = None
        self._records = 0
        self._unwritten = b""

    def open(self, token: str) -> tuple[State | None, str]:
        """Lock the directory; return the state, or None if it has none, and its token: the given one if it is new.

        Raises:
            ConfigurationError: another server uses the directory, or it cannot be used, or the state is damaged.
        """
        try:
            self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = _locked(self._path / "lock")
            kept = self._path / "token"
            known = kept.read_text(errors="replace") if kept.exists() else ""
            (self._path / ".gitignore").write_text("*\n")
            if not _TOKEN.fullmatch(known):
                known = token
                with private_file(kept) as file:
                    file.write(known.encode())
            return self._read(), known
        except FileExistsError:
            raise ConfigurationError(f"cannot keep the data in {self._path}: it is not a directory") from None
        except OSError as error:
            raise ConfigurationError(f"cannot keep the data in {self._path}: {error.strerror}") from error
        except ValueError as error:  # such as a null character
            raise ConfigurationError(f"cannot keep the data in {str(self._path)!r}: {error}") from error

    def _read(self) -> State | None:
        if not self._place.exists():
            return None
        try:
            return read_state(self._place.read_bytes(), str(self._place))
        except ConfigurationError as error:
            raise ConfigurationError(f"{error}: to start empty, delete the directory") from None

    def replace(self, cluster: ClusterStorage) -> None:
        """Replace the file by a snapshot of a cluster.

        Raises:
            ConfigurationError: the file cannot be written; the old one stays.
        """
        new = self._place.with_suffix(".new")
        try:
            with private_file(new) as file:
                file.writelines(state_of(cluster).lines())
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._place)
            opened = self._place.open("ab", buffering=0)
        except OSError as error:
            raise ConfigurationError(f"cannot write {self._place}: {error.strerror}") from error
        if self._file is not None:
            self._file.close()
        self._file, self._records, self._unwritten = opened, 0, b""

    def write(
        self, cluster: ClusterStorage, commits: Sequence[tuple[APIResource, Stored | None, Stored | None]]
    ) -> None:
        """Write the records of commits.

        Raises:
            ConfigurationError: they cannot be written yet. The next call writes them, too.
        """
        version = cluster.revisions.current
        self._unwritten += b"".join(record_of(resource, old, new, version) for resource, old, new in commits)
        self._records += len(commits)
        # A changed definition may change the stored objects of its kind without commits.
        redefined = any(old and new and resource_name(resource) == DEFINITIONS for resource, old, new in commits)
        if redefined or self._has_outgrown(cluster):
            self.replace(cluster)
        elif self._file is not None:
            self._append(self._file)

    def _has_outgrown(self, cluster: ClusterStorage) -> bool:
        if self._records <= _MIN_RECORDS:
            return False
        return self._records > 2 * sum(len(resource.store.objects) for resource in cluster.registry.resources())

    def _append(self, file: BinaryIO) -> None:
        try:
            while self._unwritten:
                self._unwritten = self._unwritten[file.write(self._unwritten) :]
        except OSError as error:
            raise ConfigurationError(f"cannot write {self._place}: {error.strerror}") from error

    def close(self) -> None:
        """Close the file and unlock the directory."""
        for file in (self._file, self._lock):
            if file is not None:
                file.close()
        self._file = self._lock = None


def _locked(path: Path) -> BinaryIO:
    """Return an open file that no other process can lock until it is closed."""
    import fcntl

    lock = path.open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise ConfigurationError(
            f"another server keeps its data in {path.parent}: stop it, or choose another directory"
        ) from None
    return lock


def private_file(path: Path) -> BinaryIO:
    """Return a new file that only its owner can read, opened for writing; an earlier one is removed."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
