"""The state of a server in a directory, from which the next server continues.

A file holds a snapshot, and a line for each commit after it. The lines of a request are written before its response, so
a server that is killed loses nothing that it has answered. They are not synced to the disk one by one: a machine that
loses power may lose the last seconds.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from reconciler.apiserver.storage.cluster import Cluster
from reconciler.apiserver.storage.registry import Resource
from reconciler.apiserver.storage.state import DEFINITIONS, State, read_state, record_of, resource_name, snapshot_of
from reconciler.apiserver.storage.store import Stored
from reconciler.errors import ConfigurationError

__all__ = ["DataDirectory"]

_TOKEN = re.compile("[0-9a-f]{32}")
_MIN_RECORDS = 10_000
"""How many records a file has at least before a new snapshot replaces it."""


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
                with _private(kept) as file:
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

    def replace(self, cluster: Cluster) -> None:
        """Replace the file by a snapshot of a cluster.

        Raises:
            ConfigurationError: the file cannot be written; the old one stays.
        """
        new = self._place.with_suffix(".new")
        try:
            with _private(new) as file:
                file.writelines(snapshot_of(cluster))
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._place)
            opened = self._place.open("ab", buffering=0)
        except OSError as error:
            raise ConfigurationError(f"cannot write {self._place}: {error.strerror}") from error
        if self._file is not None:
            self._file.close()
        self._file, self._records, self._unwritten = opened, 0, b""

    def write(self, cluster: Cluster, commits: Sequence[tuple[Resource, Stored | None, Stored | None]]) -> None:
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

    def _has_outgrown(self, cluster: Cluster) -> bool:
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


def _private(path: Path) -> BinaryIO:
    """Return a new file that only its owner can read."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
