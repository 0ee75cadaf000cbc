"""The processes of a control plane: etcd and kube-apiserver in a directory of their own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
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

__all__ = ["ControlPlaneFailed", "ControlPlaneProcesses", "PortTaken", "Process", "write_private"]


_WATCHDOG = 'read -r pid && test "$pid" && { read -r _ || { kill -9 "$pid"; rm -rf "$1"; }; }'
"""The program of a shell whose input is a pipe from this process.

The second `read` fails if this process ends without writing to the pipe.
"""


class Process:
    """A running program whose output goes to a file.

    It does not outlive this process. If this process is killed and cannot call `stop`, a waiting shell kills the
    program and removes the directory.

    Args:
        command: program and arguments.
        log: the file for its output, in a directory that belongs to the control plane; appended to.

    Raises:
        OSError: the program cannot be started.
    """

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self.name = Path(command[0]).name
        self._log = log
        # Separate sessions: Ctrl-C in the terminal reaches only the tests, which then stop everything in order.
        self._watchdog = subprocess.Popen(  # noqa: S603 - ours
            ["/bin/sh", "-c", _WATCHDOG, "sh", str(log.parent)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        _running.add(self)
        try:
            with log.open("ab") as output:
                self._popen = subprocess.Popen(  # noqa: S603 - ours
                    command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
                )
        except BaseException:
            self._stop_watchdog()
            raise
        self._write(f"{self._popen.pid}\n")

    @property
    def pid(self) -> int:
        """Return the program's process id."""
        return self._popen.pid

    def has_ended(self, *, within: float) -> bool:
        """Wait up to `within` seconds for the program to exit; return whether it did."""
        try:
            self._popen.wait(within)
        except subprocess.TimeoutExpired:
            return False
        self._stop_watchdog()  # before the pid is reused
        return True

    def stop(self, *, patience: float) -> None:
        """Terminate the program, and kill it after `patience` seconds; does nothing if it has exited."""
        self._signal(signal.SIGTERM)
        if not self.has_ended(within=patience):
            self._signal(signal.SIGKILL)
            self._popen.wait()
            self._stop_watchdog()

    def log_tail(self) -> str:
        """Return the last five lines of the program's output on one line."""
        text = self._log.read_text(errors="replace") if self._log.exists() else ""
        return " | ".join(text.strip().splitlines()[-5:])

    def _signal(self, number: signal.Signals) -> None:
        if self._popen.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._popen.pid, number)

    def _stop_watchdog(self) -> None:
        """Stop the shell; does nothing if it has exited."""
        if self._watchdog.poll() is None:
            self._write("\n")
            self.close_pipe()
            self._watchdog.wait()

    def _write(self, line: str) -> None:
        assert self._watchdog.stdin is not None  # noqa: S101 - a pipe
        with contextlib.suppress(BrokenPipeError):  # the shell was killed
            self._watchdog.stdin.write(line.encode())
            self._watchdog.stdin.flush()

    def close_pipe(self) -> None:
        """Close this process's end of the pipe to the watchdog."""
        assert self._watchdog.stdin is not None  # noqa: S101 - a pipe
        with contextlib.suppress(BrokenPipeError):
            self._watchdog.stdin.close()


_running: weakref.WeakSet[Process] = weakref.WeakSet()


def _close_pipes_in_child() -> None:
    """Close the pipes in a forked child, which would otherwise keep the shell waiting as long as the child lives."""
    for process in list(_running):
        process.close_pipe()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_pipes_in_child)


_POLL = 0.1
_PATIENCE = 10.0
_SNAPSHOT_TIMEOUT = 30.0
_DATA = "etcd"


class ControlPlaneFailed(ReconcilerError):
    """A program of the control plane did not start; the message ends with its output."""


class PortTaken(ControlPlaneFailed):
    """Another program has taken a port that was free a moment before."""


class _SnapshotPart(msgspec.Struct):
    blob: bytes = b""


class _SnapshotLine(msgspec.Struct):
    result: _SnapshotPart


class ControlPlaneProcesses:
    """The two programs and the directory of one control plane.

    Args:
        binaries: the directory of the programs.
        files: initial contents of the directory, readable only by their owner.
        flags: more arguments for kube-apiserver.
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
        # Also runs if the interpreter exits inside a block.
        self._finalizer = weakref.finalize(self, _stop, self._processes, self.directory)
        self._etcd_url = f"http://127.0.0.1:{etcd_port}"
        self._commands = (
            _etcd_command(binaries, self.directory, self._etcd_url),
            _apiserver_command(binaries, self.directory, self._etcd_url, port, flags),
        )
        self._start()

    def restart(self, *, keep_data: bool, data: Path | None = None) -> None:
        """Restart the programs on the same ports.

        Args:
            keep_data: keep the data of etcd.
            data: a directory to move into the place of etcd's data.
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
            raise ControlPlaneFailed(f"cannot save a snapshot of etcd: {error}") from error

    def restore(self, snapshot: Path, flags: Sequence[str]) -> Path:
        """Return a new data directory for etcd, created from a snapshot.

        Raises:
            BinariesMissing: etcdutl is missing.
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
            raise ControlPlaneFailed(f"etcdutl failed to restore {snapshot}: {words}")
        return target

    def _start(self) -> None:
        etcd, server = self._commands
        self._etcd = self._launch(etcd)
        self._server = self._launch(server)

    def revive(self) -> None:
        """Start the programs that have exited, on the same ports."""
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
        """Stop the programs and remove the directory; does nothing if that was done."""
        self._finalizer()

    def wait_until_ready(self, token: str, timeout: float, cancelled: threading.Event) -> None:
        """Wait until the server serves.

        Raises:
            ControlPlaneFailed: a program exited, it did not serve in time, or the caller cancelled.
        """
        clock = current_clock()
        deadline = clock.monotonic() + timeout
        while not self._is_ready(token):
            for process in (self._etcd, self._server):
                if process.has_ended(within=_POLL / 2):
                    raise _failure(process)
            if cancelled.is_set():
                raise ControlPlaneFailed("starting the control plane was cancelled")
            if clock.monotonic() > deadline:
                raise ControlPlaneFailed(
                    f"kube-apiserver did not serve within {timeout:g} s; its last output: {self._server.log_tail()}"
                )

    def _launch(self, command: Sequence[str]) -> Process:
        process = Process(command, self.directory / f"{Path(command[0]).name}.log")
        self._processes.insert(0, process)
        return process

    def _is_ready(self, token: str) -> bool:
        # The server creates this namespace shortly after it reports that it is ready.
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
            # Not listening yet, not ready yet, or the certificate is incomplete.
            return False


def _stop(processes: Sequence[Process], directory: Path) -> None:
    for process in processes:
        process.stop(patience=_PATIENCE)
    shutil.rmtree(directory, ignore_errors=True)


def _failure(process: Process) -> ControlPlaneFailed:
    words = process.log_tail()
    kind = PortTaken if "address already in use" in words else ControlPlaneFailed
    return kind(f"{process.name} exited immediately; its last output: {words}")


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
        # It waits for token secrets that no controller creates here; envtest disables it, too.
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
    """Write a file that only its owner can read."""
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_bytes(content)
