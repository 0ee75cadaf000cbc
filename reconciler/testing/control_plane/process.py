"""The processes of a control plane: etcd, kube-apiserver and the controllers in a directory of their own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from reconciler._core.certificates import client_tls_context
from reconciler.clock import current_clock
from reconciler.errors import ReconcilerError
from reconciler.testing.control_plane.binaries import (
    ETCD_DATA,
    BinariesMissing,
    apiserver_command,
    etcd_command,
    manager_certificate,
    manager_command,
    write_manager_kubeconfig,
    write_private,
)

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


class ControlPlaneFailed(ReconcilerError):
    """A program of the control plane did not start; the message ends with its output."""


class PortTaken(ControlPlaneFailed):
    """Another program has taken a port that was free a moment before."""


class _SnapshotPart(msgspec.Struct):
    blob: bytes = b""


class _SnapshotLine(msgspec.Struct):
    result: _SnapshotPart


class ControlPlaneProcesses:
    """The programs and the directory of one control plane.

    Args:
        binaries: the directory of the programs.
        files: initial contents of the directory, readable only by their owner.
        flags: more arguments for kube-apiserver.
        manager_token: the token of kube-controller-manager; None to run none.
    """

    def __init__(
        self, binaries: Path, files: Mapping[str, bytes], flags: Sequence[str], *, manager_token: str | None
    ) -> None:
        self.binaries = binaries
        self.directory = Path(tempfile.mkdtemp(prefix="control-plane-"))
        self.authority = self.directory / "certificates" / "apiserver.crt"
        for name, content in files.items():
            write_private(self.directory / name, content)
        (etcd_port, port, manager_port), held = _hold_ports(3)
        self._manager_url: str | None = None
        self._manager: Process | None = None
        self.url = f"https://127.0.0.1:{port}"
        if manager_token is not None:
            self._manager_url = f"https://127.0.0.1:{manager_port}"
            write_manager_kubeconfig(self.directory, self.url, manager_token)
        self._processes: list[Process] = []
        # Also runs if the interpreter exits inside a block.
        self._finalizer = weakref.finalize(self, _stop, self._processes, self.directory, held)
        self._etcd_url = f"http://127.0.0.1:{etcd_port}"
        self._commands = (
            etcd_command(binaries, self.directory, self._etcd_url),
            apiserver_command(binaries, self.directory, self._etcd_url, port, flags),
            manager_command(binaries, self.directory, manager_port),
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
        self._manager = None
        if not keep_data:
            shutil.rmtree(self.directory / ETCD_DATA)
        if data is not None:
            data.rename(self.directory / ETCD_DATA)
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
        etcd, server, _ = self._commands
        self._etcd = self._launch(etcd)
        self._server = self._launch(server)

    def revive(self) -> None:
        """Start the programs that have exited, on the same ports."""
        etcd, server, _ = self._commands
        if self._etcd.has_ended(within=_POLL):
            self._processes.remove(self._etcd)
            self._etcd = self._launch(etcd)
        if self._server.has_ended(within=_POLL):
            self._processes.remove(self._server)
            self._server = self._launch(server)
        if self._manager is not None and self._manager.has_ended(within=_POLL):
            self._processes.remove(self._manager)
            self._manager = None
        running = (self._manager, self._server, self._etcd)  # the order in which they are stopped
        self._processes[:] = [process for process in running if process is not None]

    def pid(self, program: str) -> int:
        """Return the process id of a program."""
        return {process.name: process.pid for process in self._processes}[program]

    def stop(self) -> None:
        """Stop the programs and remove the directory; does nothing if that was done."""
        self._finalizer()

    def wait_until_ready(self, token: str, timeout: float, cancelled: threading.Event) -> None:
        """Wait until the server serves; then start the controllers, and wait until they run.

        Raises:
            ControlPlaneFailed: a program exited, it did not serve in time, or the caller cancelled.
        """
        deadline = current_clock().monotonic() + timeout
        self._wait(lambda: self._is_ready(token), self._server, timeout, deadline, cancelled)
        if self._manager_url is not None:
            # It gives up after some seconds without a server.
            self._manager = self._manager or self._launch(self._commands[2])
            health, certificate = f"{self._manager_url}/healthz", manager_certificate(self.directory)
            self._wait(lambda: _answers(health, token, certificate), self._manager, timeout, deadline, cancelled)

    def _wait(
        self,
        is_ready: Callable[[], bool],
        awaited: Process,
        timeout: float,
        deadline: float,
        cancelled: threading.Event,
    ) -> None:
        clock = current_clock()
        while not is_ready():
            for process in reversed(self._processes):
                if process.has_ended(within=_POLL / 2):
                    raise _failure(process)
            if cancelled.is_set():
                raise ControlPlaneFailed("starting the control plane was cancelled")
            if clock.monotonic() > deadline:
                raise ControlPlaneFailed(
                    f"{awaited.name} did not serve within {timeout:g} s; its last output: {awaited.log_tail()}"
                )

    def _launch(self, command: Sequence[str]) -> Process:
        process = Process(command, self.directory / f"{Path(command[0]).name}.log")
        self._processes.insert(0, process)
        return process

    def _is_ready(self, token: str) -> bool:
        # The server creates this namespace and this service shortly after it reports that it is ready.
        paths = ("/readyz", "/api/v1/namespaces/default", "/api/v1/namespaces/default/services/kubernetes")
        return all(_answers(self.url + path, token, self.authority) for path in paths)


def _answers(url: str, token: str, authority: Path) -> bool:
    if not authority.exists():
        return False
    request = urllib.request.Request(url, headers={"authorization": f"Bearer {token}"})  # noqa: S310 - ours
    try:
        context = client_tls_context(authority)
        with urllib.request.urlopen(request, context=context, timeout=5) as answer:  # noqa: S310 - ours
            return bool(answer.status == 200)
    except urllib.error.HTTPError as answer:  # not ready yet
        answer.close()
        return False
    except OSError:  # not listening yet, or the certificate is incomplete
        return False


def _stop(processes: Sequence[Process], directory: Path, held: Sequence[socket.socket]) -> None:
    for process in processes:
        process.stop(patience=_PATIENCE)
    for port in held:
        port.close()
    shutil.rmtree(directory, ignore_errors=True)


def _failure(process: Process) -> ControlPlaneFailed:
    words = process.log_tail()
    kind = PortTaken if "address already in use" in words else ControlPlaneFailed
    return kind(f"{process.name} exited immediately; its last output: {words}")


def _hold_ports(count: int) -> tuple[list[int], list[socket.socket]]:
    """Return free ports, and sockets that keep them from other programs before our programs start and between starts.

    On Linux, ours can listen nevertheless: both sockets have SO_REUSEADDR, and only one listens.
    """
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in held]
    if sys.platform != "linux":
        for one in held:
            one.close()
    return ports, held
