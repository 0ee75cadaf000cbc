"""Start, reach and stop one control plane."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import csv
import io
import os
import secrets
import shutil
import socket
import ssl
import tempfile
import threading
import urllib.error
import urllib.request
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec

from reconciler.clock import current_clock
from reconciler.errors import ReconcilerError
from reconciler.testing.control_plane._audit import PROBE, AuditLevel, AuditRecord, audit_policy, read_audit_log
from reconciler.testing.control_plane._binaries import BinariesMissing, find_or_build
from reconciler.testing.control_plane._keys import new_private_key
from reconciler.testing.control_plane._process import Process

if TYPE_CHECKING:
    from reconciler.client import Client

__all__ = ["ControlPlane", "ControlPlaneFailed"]

ADMIN = "admin"
_ATTEMPTS = 5
"""Starts before giving up, when another program took a port that was free a moment ago; envtest's number."""
_POLL = 0.1
_PATIENCE = 10.0
_DATA = "etcd"


class ControlPlaneFailed(ReconcilerError):
    """Say that a program of the control plane did not start, with its last words."""


class ControlPlane:
    """Be a real etcd and kube-apiserver on loopback, for as long as the block lasts.

    ::

        async with ControlPlane() as plane, plane.client() as client: ...

    ``with`` works as well, and `start` and `stop` without a block. It belongs to no event loop.

    Args:
        binaries: the directory with etcd and kube-apiserver. Defaults to `binaries_path`, where they are built if need
            be.
        users: further users and their groups, beside ``"admin"``, who may do everything. They may do what RBAC
            allows them.
        audit_level: what the audit log holds of a request. Defaults to ``"Metadata"``.
        apiserver_flags: further arguments of kube-apiserver, such as ``"--feature-gates=X=true"``.
        start_timeout: seconds for one start. Defaults to 60.
    """

    def __init__(
        self,
        *,
        binaries: str | os.PathLike[str] | None = None,
        users: Mapping[str, Sequence[str]] | None = None,
        audit_level: AuditLevel = "Metadata",
        apiserver_flags: Sequence[str] = (),
        start_timeout: float = 60.0,
    ) -> None:
        self._binaries = Path(binaries) if binaries is not None else None
        all_powerful = ["system:masters"]
        self._groups: dict[str, Sequence[str]] = {**(users or {}), ADMIN: all_powerful, PROBE: all_powerful}
        self._tokens = {user: secrets.token_urlsafe(24) for user in self._groups}
        self._audit_level: AuditLevel = audit_level
        self._flags = tuple(apiserver_flags)
        self._start_timeout = start_timeout
        self._given_up = threading.Event()
        self._running: _Running | None = None

    def start(self) -> None:
        """Start both programs and wait until they serve; nothing if they run.

        Raises:
            BinariesMissing: there are none and they cannot be built.
            ControlPlaneFailed: a program ended at once, or did not serve in time.
        """
        if self._running is not None:
            return
        self._running = self._launched(self._binaries or find_or_build())
        for user in self._groups:
            self.write_kubeconfig(self._kubeconfig_path(user), user=user)

    def stop(self) -> None:
        """Stop both programs and remove their data; nothing if they do not run."""
        running, self._running = self._running, None
        if running is not None:
            running.stop()

    async def restart(self, *, keep_data: bool = True) -> None:
        """Stop etcd and kube-apiserver and start them anew at the same address; return when they serve.

        Credentials stay valid. Cancellation leaves the restart to its thread.

        Args:
            keep_data: False loses all objects, as when etcd is set up from nothing: versions begin anew.

        Raises:
            ControlPlaneFailed: a program ended at once, or did not serve in time.
        """

        def again() -> None:
            self._run.restart(keep_data=keep_data)
            self._run.wait_until_ready(self._tokens[PROBE], self._start_timeout, self._given_up)

        await asyncio.to_thread(again)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        """Do what `start` does. Cancellation gives up starting and leaves nothing behind."""
        self._given_up.clear()
        starting = asyncio.create_task(asyncio.to_thread(self.start))
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            self._given_up.set()
            await asyncio.wait({starting})
            self.stop()
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Do what `stop` does. Cancellation lets the stopping go on in its thread."""
        await asyncio.to_thread(self.stop)

    @property
    def url(self) -> str:
        """Return the server's address, ``https://127.0.0.1:<port>``.

        Raises:
            RuntimeError: it does not run.
        """
        return self._run.url

    @property
    def directory(self) -> Path:
        """Return the directory of data and logs, which goes when the control plane stops.

        Raises:
            RuntimeError: it does not run.
        """
        return self._run.directory

    @property
    def kubectl(self) -> Path:
        """Return the kubectl of the same version.

        Raises:
            RuntimeError: it does not run.
            BinariesMissing: it is not among the binaries.
        """
        path = self._run.binaries / "kubectl"
        if not os.access(path, os.X_OK):
            raise BinariesMissing(f"no kubectl in {path.parent}: build it with 'reconciler envtest build'")
        return path

    @property
    def kubeconfig_path(self) -> Path:
        """Return a kubeconfig file for the admin, which goes when the control plane stops.

        Raises:
            RuntimeError: it does not run.
        """
        return self._kubeconfig_path(ADMIN)

    def kubeconfig(self, *, user: str = ADMIN) -> dict[str, Any]:
        """Return a kubeconfig that reaches the server as a user.

        Raises:
            RuntimeError: it does not run.
            KeyError: there is no such user.
        """
        name = "control-plane"
        authority = base64.b64encode(self._run.authority.read_bytes()).decode()
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": {"server": self.url, "certificate-authority-data": authority}}],
            "users": [{"name": user, "user": {"token": self._tokens[user]}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": user, "namespace": "default"}}],
            "current-context": name,
        }

    def write_kubeconfig(self, path: str | os.PathLike[str], *, user: str = ADMIN) -> Path:
        """Write the kubeconfig of a user, readable by its owner only, and return its path.

        Raises:
            RuntimeError: it does not run.
            KeyError: there is no such user.
            OSError: the file cannot be written.
        """
        place = Path(path)
        _write_private(place, msgspec.json.encode(self.kubeconfig(user=user)) + b"\n")
        return place

    def client(self, *, user: str = ADMIN) -> Client:
        """Return a client for the server, to be opened with ``async with``.

        Raises:
            RuntimeError: it does not run.
            KeyError: there is no such user.
        """
        from reconciler.client import Client

        self._tokens[user]
        return Client.from_config(kubeconfig=self._kubeconfig_path(user))

    def audit(
        self,
        *,
        verb: str | None = None,
        resource: str | None = None,
        subresource: str | None = None,
        name: str | None = None,
        namespace: str | None = None,
        user: str | None = None,
    ) -> list[AuditRecord]:
        """Return the requests that were answered, oldest first; an argument of None matches all.

        A watch that goes on is there once, one that has ended twice (see `AuditRecord.stage`). The line of a request is
        written before the end of its answer, unless that is longer than a few kilobytes.

        Args:
            verb: such as ``"patch"``.
            resource: the plural.
            subresource: such as ``"status"``; ``""`` for the resource itself.
            name: the object's name.
            namespace: its namespace; ``""`` for none.
            user: who asked.

        Raises:
            RuntimeError: it does not run.
        """
        wanted = {
            "verb": verb,
            "resource": resource,
            "subresource": subresource,
            "name": name,
            "namespace": namespace,
            "user": user,
        }
        given = {key: value for key, value in wanted.items() if value is not None}
        records = read_audit_log(self._run.directory / "audit.log")
        return [record for record in records if all(getattr(record, key) == value for key, value in given.items())]

    @property
    def _run(self) -> _Running:
        if self._running is None:
            raise RuntimeError("the control plane does not run: use it inside of its block")
        return self._running

    def _launched(self, binaries: Path) -> _Running:
        for _ in range(_ATTEMPTS - 1):
            with contextlib.suppress(_PortTaken):
                return self._launched_once(binaries)
        return self._launched_once(binaries)

    def _launched_once(self, binaries: Path) -> _Running:
        running = _Running(binaries, self._files(), self._flags)
        try:
            running.wait_until_ready(self._tokens[PROBE], self._start_timeout, self._given_up)
        except BaseException:
            running.stop()
            raise
        return running

    def _kubeconfig_path(self, user: str) -> Path:
        return self.directory / f"{user.replace('/', '_')}.kubeconfig"

    def _files(self) -> Mapping[str, bytes]:
        rows = [[self._tokens[user], user, user, ",".join(groups)] for user, groups in self._groups.items()]
        return {
            "tokens.csv": _csv(rows),
            "policy.json": msgspec.json.encode(audit_policy(self._audit_level)),
            "accounts.key": new_private_key().encode(),
        }


def _csv(rows: Sequence[Sequence[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


class _PortTaken(ControlPlaneFailed):
    pass


class _Running:
    """Be the two programs and the directory of one start."""

    def __init__(self, binaries: Path, files: Mapping[str, bytes], flags: Sequence[str]) -> None:
        self.binaries = binaries
        self.directory = Path(tempfile.mkdtemp(prefix="control-plane-"))
        self.authority = self.directory / "certificates" / "apiserver.crt"
        for name, content in files.items():
            _write_private(self.directory / name, content)
        etcd_port, port = _free_ports(2)
        self.url = f"https://127.0.0.1:{port}"
        self._processes: list[Process] = []
        # Also when the interpreter ends in the middle of a block.
        self._finalizer = weakref.finalize(self, _stop, self._processes, self.directory)
        etcd_url = f"http://127.0.0.1:{etcd_port}"
        self._commands = (
            _etcd_command(binaries, self.directory, etcd_url),
            _apiserver_command(binaries, self.directory, etcd_url, port, flags),
        )
        self._start()

    def restart(self, *, keep_data: bool) -> None:
        """Stop the programs and start them anew on the same ports."""
        for process in self._processes:
            process.stop(patience=_PATIENCE)
        self._processes.clear()
        if not keep_data:
            shutil.rmtree(self.directory / _DATA)
        self._start()

    def _start(self) -> None:
        etcd, server = self._commands
        self._etcd = self._launch(etcd)
        self._server = self._launch(server)

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
    kind = _PortTaken if "address already in use" in words else ControlPlaneFailed
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


def _write_private(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_bytes(content)
