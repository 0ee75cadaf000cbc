"""Run etcd and kube-apiserver in a directory of their own: one start of a control plane."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import urllib.error
import urllib.request
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from reconciler.clock import current_clock
from reconciler.errors import ReconcilerError
from reconciler.testing.control_plane.binaries import BinariesMissing
from reconciler.testing.control_plane.process import Process

__all__ = ["ControlPlaneFailed", "PortTaken", "Running", "write_private"]

_POLL = 0.1
_PATIENCE = 10.0
_SNAPSHOT_TIMEOUT = 30.0
_DATA = "etcd"


class ControlPlaneFailed(ReconcilerError):
    """Say that a program of the control plane did not start, with its last words."""


class PortTaken(ControlPlaneFailed):
    """Say that another program has taken a port that was free a moment ago."""


class _SnapshotPart(msgspec.Struct):
    blob: bytes = b""


class _SnapshotLine(msgspec.Struct):
    result: _SnapshotPart


class Running:
    """Be the two programs and the directory of one start.

    Args:
        binaries: where the programs are.
        files: what the directory holds at the beginning, readable by their owner alone.
        flags: more ones for kube-apiserver.
    """

    def __init__(self, binaries: Path, files: Mapping[str, bytes], flags: Sequence[str]) -> None:
        self.binaries = binaries
        self.directory = Path(tempfile.mkdtemp(prefix="control-plane-"))
        self.authority = self.directory / "certificates" / "apiserver.crt"
        for name, content in files.items():
            write_private(self.directory / name, content)
        etcd_port, port = _free_ports(2)
        self.url = f"https://127.0.0.1:{port}"
        self._processes: list[Process] = []
        # Also when the interpreter ends in the middle of a block.
        self._finalizer = weakref.finalize(self, _stop, self._processes, self.directory)
        self._etcd_url = f"http://127.0.0.1:{etcd_port}"
        self._commands = (
            _etcd_command(binaries, self.directory, self._etcd_url),
            _apiserver_command(binaries, self.directory, self._etcd_url, port, flags),
        )
        self._start()

    def restart(self, *, keep_data: bool, data: Path | None = None) -> None:
        """Stop the programs and start them again on the same ports.

        Args:
            keep_data: keep the data of etcd.
            data: a directory that takes the place of etcd's data; it is moved.
        """
        for process in self._processes:
            process.stop(patience=_PATIENCE)
        self._processes.clear()
        if not keep_data:
            shutil.rmtree(self.directory / _DATA)
        if data is not None:
            data.rename(self.directory / _DATA)
        self._start()

    def save_snapshot(self, path: Path) -> None:
        """Write a snapshot of etcd, as ``etcdctl snapshot save`` does.

        Raises:
            ControlPlaneFailed: etcd does not answer.
        """
        request = urllib.request.Request(f"{self._etcd_url}/v3/maintenance/snapshot", data=b"{}")  # noqa: S310 - ours
        try:
            with urllib.request.urlopen(request, timeout=_SNAPSHOT_TIMEOUT) as answer, path.open("wb") as file:  # noqa: S310 - ours
                for line in answer:
                    file.write(msgspec.json.decode(line, type=_SnapshotLine).result.blob)
        except OSError as error:
            raise ControlPlaneFailed(f"no snapshot of etcd: {error}") from error

    def restored(self, snapshot: Path, flags: Sequence[str]) -> Path:
        """Return a new data directory for etcd, made of a snapshot.

        Raises:
            BinariesMissing: there is no etcdutl.
            ControlPlaneFailed: the snapshot cannot be restored.
        """
        program = self.binaries / "etcdutl"
        if not os.access(program, os.X_OK):
            raise BinariesMissing(f"no etcdutl in {self.binaries}: build it with 'reconciler envtest build'")
        target = self.directory / "restored"
        command = [str(program), "snapshot", "restore", str(snapshot), f"--data-dir={target}", *flags]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - ours
        if done.returncode:
            shutil.rmtree(target, ignore_errors=True)
            words = " | ".join(done.stderr.strip().splitlines()[-5:])
            raise ControlPlaneFailed(f"etcdutl did not restore {snapshot}: {words}")
        return target

    def _start(self) -> None:
        etcd, server = self._commands
        self._etcd = self._launch(etcd)
        self._server = self._launch(server)

    def revive(self) -> None:
        """Start the programs that have ended again, on the same ports."""
        etcd, server = self._commands
        if self._etcd.has_ended(within=_POLL):
            self._processes.remove(self._etcd)
            self._etcd = self._launch(etcd)
        if self._server.has_ended(within=_POLL):
            self._processes.remove(self._server)
            self._server = self._launch(server)
        self._processes[:] = [self._server, self._etcd]  # the order in which they are stopped

    def pid(self, program: str) -> int:
        """Return the process id of a program."""
        return {process.name: process.pid for process in self._processes}[program]

    def stop(self) -> None:
        """Stop the programs, remove the directory; harmless when that was done."""
        self._finalizer()

    def wait_until_ready(self, token: str, timeout: float, given_up: threading.Event) -> None:
        """Wait until the server serves.

        Raises:
            ControlPlaneFailed: a program ended, or it did not serve in time, or the caller gave up.
        """
        clock = current_clock()
        deadline = clock.monotonic() + timeout
        while not self._is_ready(token):
            for process in (self._etcd, self._server):
                if process.has_ended(within=_POLL / 2):
                    raise _failure(process)
            if given_up.is_set():
                raise ControlPlaneFailed("starting the control plane was given up")
            if clock.monotonic() > deadline:
                raise ControlPlaneFailed(
                    f"kube-apiserver did not serve within {timeout:g} s; it said last: {self._server.last_words()}"
                )

    def _launch(self, command: Sequence[str]) -> Process:
        process = Process(command, self.directory / f"{Path(command[0]).name}.log")
        self._processes.insert(0, process)
        return process

    def _is_ready(self, token: str) -> bool:
        # The namespace is made by the server itself, a moment after it says that it is ready.
        return all(self._answers(path, token) for path in ("/readyz", "/api/v1/namespaces/default"))

    def _answers(self, path: str, token: str) -> bool:
        if not self.authority.exists():
            return False
        request = urllib.request.Request(self.url + path, headers={"authorization": f"Bearer {token}"})  # noqa: S310 - ours
        try:
            context = ssl.create_default_context(cafile=self.authority)
            with urllib.request.urlopen(request, context=context, timeout=5) as answer:  # noqa: S310 - ours
                return bool(answer.status == 200)
        except OSError:
            # Not listening yet, not ready yet, or the certificate is half written.
            return False


def _stop(processes: Sequence[Process], directory: Path) -> None:
    for process in processes:
        process.stop(patience=_PATIENCE)
    shutil.rmtree(directory, ignore_errors=True)


def _failure(process: Process) -> ControlPlaneFailed:
    words = process.last_words()
    kind = PortTaken if "address already in use" in words else ControlPlaneFailed
    return kind(f"{process.name} ended at once; it said last: {words}")


def _etcd_command(binaries: Path, directory: Path, url: str) -> list[str]:
    return [
        str(binaries / "etcd"),
        f"--data-dir={directory / _DATA}",
        f"--listen-client-urls={url}",
        f"--advertise-client-urls={url}",
        "--listen-peer-urls=http://127.0.0.1:0",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def _apiserver_command(binaries: Path, directory: Path, etcd: str, port: int, flags: Sequence[str]) -> list[str]:
    return [
        str(binaries / "kube-apiserver"),
        f"--etcd-servers={etcd}",
        f"--cert-dir={directory / 'certificates'}",
        f"--secure-port={port}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--service-account-issuer=https://control-plane.invalid",
        f"--service-account-signing-key-file={directory / 'accounts.key'}",
        f"--service-account-key-file={directory / 'accounts.key'}",
        f"--token-auth-file={directory / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        # It waits for token secrets that no controller makes here; envtest does the same.
        "--disable-admission-plugins=ServiceAccount",
        "--allow-privileged=true",
        "--profiling=false",
        f"--audit-policy-file={directory / 'policy.json'}",
        f"--audit-log-path={directory / 'audit.log'}",
        *flags,
    ]


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def write_private(path: Path, content: bytes) -> None:
    """Write a file that its owner alone can read."""
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_bytes(content)
