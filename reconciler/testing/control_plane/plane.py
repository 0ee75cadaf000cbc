"""One control plane: start, restart and stop it, connect to it, and read its audit log."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import csv
import io
import os
import secrets
import textwrap
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import msgspec

from reconciler._core.durations import DurationLike, seconds_of
from reconciler._core.wire import UNDECODABLE, JSONObject, json_members
from reconciler.meta.documents import parse_time
from reconciler.testing.control_plane.binaries import BinariesMissing, find_or_build, write_private
from reconciler.testing.control_plane.process import ControlPlaneProcesses, PortTaken

if TYPE_CHECKING:
    from reconciler.client import Client

PROBE = "control-plane-probe"
"""The user of the readiness probe; its requests are not recorded."""

AuditLevel = Literal["Metadata", "Request", "RequestResponse"]


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One request in the audit log.

    Attributes:
        verb: ``"get"``, ``"list"``, ``"watch"``, ``"create"``, ``"update"``, ``"patch"``, ``"delete"``,
            ``"deletecollection"``.
        resource: the plural; ``""`` for a path that is not a resource.
        subresource: such as ``"status"``; ``""`` for the resource itself.
        name: the object's name; ``""`` for collections, and for creations at level Metadata.
        namespace: its namespace; ``""`` for none.
        code: the HTTP status of the response.
        user: the user who sent the request.
        user_agent: the program that sent it.
        uri: path and query.
        received: when it was received, UTC.
        stage: ``"ResponseComplete"``, or ``"ResponseStarted"`` for a running watch.
        request_object: the body, at level Request and above; otherwise None, also if it cannot be decoded.
        response_object: the response's body, at level RequestResponse; otherwise None.
    """

    verb: str
    resource: str
    subresource: str
    name: str
    namespace: str
    code: int
    user: str
    user_agent: str
    uri: str
    received: datetime
    stage: str
    request_object: JSONObject | None = None
    response_object: JSONObject | None = None


def audit_policy(level: AuditLevel) -> JSONObject:
    """Return the policy: `level` for all requests, no contents of secrets, and none of the server's own requests."""
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            {"level": "None", "users": ["system:apiserver", PROBE]},
            {
                "level": "Metadata",
                "resources": [{"group": "", "resources": ["secrets", "serviceaccounts/token"]}],
            },
            {"level": level},
        ],
    }


def read_audit_log(path: Path) -> Iterator[AuditRecord]:
    """Yield the records of a log in the order of their responses, without an incomplete last line."""
    if not path.exists():
        return
    for line in path.read_bytes().splitlines(keepends=True):
        if line.endswith(b"\n"):
            yield _record(_entry(line))


def _entry(line: bytes) -> JSONObject:
    """Return an entry; without the bodies if they are nested too deeply to be decoded."""
    try:
        return msgspec.json.decode(line, type=JSONObject)
    except UNDECODABLE:
        members = json_members(line)
        kept = members.keys() - {"requestObject", "responseObject"}
        return {name: msgspec.json.decode(members[name]) for name in kept}


def _record(entry: JSONObject) -> AuditRecord:
    reference = entry.get("objectRef") or {}
    return AuditRecord(
        verb=entry["verb"],
        resource=reference.get("resource", ""),
        subresource=reference.get("subresource", ""),
        name=reference.get("name", ""),
        namespace=reference.get("namespace", ""),
        code=(entry.get("responseStatus") or {}).get("code", 0),
        user=(entry.get("user") or {}).get("username", ""),
        user_agent=entry.get("userAgent", ""),
        uri=entry["requestURI"],
        received=parse_time(entry["requestReceivedTimestamp"]),
        stage=entry["stage"],
        request_object=entry.get("requestObject"),
        response_object=entry.get("responseObject"),
    )


ADMIN = "admin"
CONTROLLER_MANAGER = "system:kube-controller-manager"
"""The user of the cluster's own controllers."""
_ATTEMPTS = 5
"""Number of starts if another program takes a port that was free a moment before; envtest's number."""


class ControlPlane:
    """A real etcd and kube-apiserver on loopback, and kube-controller-manager if wanted.

    ::

        async with ControlPlane() as plane, plane.client() as client: ...

    ``with`` works as well, and so do `start` and `stop` without a block. It is not bound to an event loop.

    Args:
        binaries: the directory with etcd and kube-apiserver. Defaults to `binaries_path`, where they are built if
            missing.
        users: more users and their groups, beside ``"admin"``, who may do everything. RBAC decides what they may do.
        audit_level: what the audit log contains of a request. Defaults to ``"Metadata"``.
        apiserver_flags: more arguments for kube-apiserver, such as ``"--feature-gates=X=true"``.
        controller_manager: run the cluster's own controllers, too: garbage collection, Deployments, Jobs and so on. No
            pod runs, since there are no nodes. Defaults to False.
        start_timeout: the duration (seconds, a timedelta or ``"1m"``) for one start. Defaults to 60.
    """

    def __init__(
        self,
        *,
        binaries: str | os.PathLike[str] | None = None,
        users: Mapping[str, Sequence[str]] | None = None,
        audit_level: AuditLevel = "Metadata",
        apiserver_flags: Sequence[str] = (),
        controller_manager: bool = False,
        start_timeout: DurationLike = 60.0,
    ) -> None:
        self._binaries = Path(binaries) if binaries is not None else None
        all_powerful = ["system:masters"]
        own = dict.fromkeys((ADMIN, PROBE, CONTROLLER_MANAGER), all_powerful)
        self._groups: dict[str, Sequence[str]] = {**(users or {}), **own}
        self._tokens = {user: secrets.token_urlsafe(24) for user in self._groups}
        self._audit_level: AuditLevel = audit_level
        self._flags = tuple(apiserver_flags)
        self._controller_manager = controller_manager
        self._start_timeout = seconds_of("start_timeout", start_timeout)
        self._cancelled = threading.Event()
        self._running: ControlPlaneProcesses | None = None

    def start(self) -> None:
        """Start the programs and wait until they serve; does nothing if they are running.

        Raises:
            BinariesMissing: the binaries are missing and cannot be built.
            ControlPlaneFailed: a program exited, or did not serve in time.
        """
        if self._running is not None:
            return
        binaries = self._binaries or find_or_build(controller_manager=self._controller_manager)
        self._running = self._launch(binaries)
        for user in self._groups:
            self.write_kubeconfig(self._kubeconfig_path(user), user=user)

    def stop(self) -> None:
        """Stop the programs and remove their data; does nothing if they are not running."""
        running, self._running = self._running, None
        if running is not None:
            running.stop()

    async def restart(self, *, keep_data: bool = True) -> None:
        """Restart etcd and kube-apiserver at the same address; return when they serve.

        Credentials stay valid. If cancelled, the restart continues in its thread.

        Args:
            keep_data: False discards all objects, as when etcd is set up from nothing: versions start again.

        Raises:
            ControlPlaneFailed: a program exited, or did not serve in time.
        """
        await asyncio.to_thread(self._restart, keep_data=keep_data)

    async def snapshot(self, path: str | os.PathLike[str]) -> Path:
        """Write a snapshot of etcd to a file, as ``etcdctl snapshot save`` does, and return its path.

        If cancelled, the write continues in its thread.

        Raises:
            ControlPlaneFailed: etcd does not answer.
            OSError: the file cannot be written.
        """
        place = Path(path)
        await asyncio.to_thread(self._processes.save_snapshot, place)
        return place

    async def restore(self, snapshot: str | os.PathLike[str], *, bump_revision: int | None = None) -> None:
        """Restore etcd from a snapshot with ``etcdutl snapshot restore``; return when both programs serve again.

        They are stopped during the restore, and serve at the same address. Credentials stay valid. If cancelled, the
        restore continues in its thread.

        Args:
            snapshot: a file written by `snapshot`.
            bump_revision: increase the versions by this much and mark older ones as compacted (``--bump-revision``,
                ``--mark-compacted``), as recommended for Kubernetes. None, the default, continues from the version of
                the snapshot, so that versions are used a second time.

        Raises:
            BinariesMissing: etcdutl is missing.
            ControlPlaneFailed: the snapshot cannot be restored, and nothing was stopped; or a program exited, or did
                not serve in time.
        """
        flags = [] if bump_revision is None else [f"--bump-revision={bump_revision}", "--mark-compacted"]

        def restore() -> None:
            self._restart(keep_data=False, data=self._processes.restore(Path(snapshot), flags))

        await asyncio.to_thread(restore)

    def _restart(self, *, keep_data: bool, data: Path | None = None) -> None:
        self._processes.restart(keep_data=keep_data, data=data)
        self._processes.wait_until_ready(self._tokens[PROBE], self._start_timeout, self._cancelled)

    async def revive(self) -> None:
        """Start the programs that have exited, for example by a signal from the test; return when they serve.

        Running programs are left alone. If cancelled, the start continues in its thread.

        Raises:
            ControlPlaneFailed: a program exited, or did not serve in time.
        """

        def again() -> None:
            self._processes.revive()
            self._processes.wait_until_ready(self._tokens[PROBE], self._start_timeout, self._cancelled)

        await asyncio.to_thread(again)

    def pid(self, program: Literal["etcd", "kube-apiserver", "kube-controller-manager"]) -> int:
        """Return the process id of a program, for signals such as SIGKILL and SIGSTOP.

        Raises:
            RuntimeError: the control plane is not running.
        """
        return self._processes.pid(program)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        """Call `start` in a thread. Cancellation aborts the start and leaves nothing behind."""
        self._cancelled.clear()
        starting = asyncio.create_task(asyncio.to_thread(self.start))
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            self._cancelled.set()
            await asyncio.wait({starting})
            self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Call `stop` in a thread. If cancelled, it continues in its thread."""
        await asyncio.to_thread(self.stop)

    @property
    def url(self) -> str:
        """Return the server's address, ``https://127.0.0.1:<port>``.

        Raises:
            RuntimeError: it is not running.
        """
        return self._processes.url

    @property
    def directory(self) -> Path:
        """Return the directory of data and logs; it is removed when the control plane stops.

        Raises:
            RuntimeError: it is not running.
        """
        return self._processes.directory

    @property
    def kubectl(self) -> Path:
        """Return the kubectl of the same version.

        Raises:
            RuntimeError: it is not running.
            BinariesMissing: kubectl is missing.
        """
        path = self._processes.binaries / "kubectl"
        if not os.access(path, os.X_OK):
            raise BinariesMissing(f"no kubectl in {path.parent}: build it with 'reconciler envtest build'")
        return path

    @property
    def kubeconfig_path(self) -> Path:
        """Return a kubeconfig file for the admin; it is removed when the control plane stops.

        Raises:
            RuntimeError: it is not running.
        """
        return self._kubeconfig_path(ADMIN)

    def kubeconfig(self, *, user: str = ADMIN) -> JSONObject:
        """Return a kubeconfig for a user.

        Raises:
            RuntimeError: it is not running.
            KeyError: there is no such user.
        """
        name = "control-plane"
        authority = base64.b64encode(self._processes.authority.read_bytes()).decode()
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": {"server": self.url, "certificate-authority-data": authority}}],
            "users": [{"name": user, "user": {"token": self._tokens[user]}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": user, "namespace": "default"}}],
            "current-context": name,
        }

    def write_kubeconfig(self, path: str | os.PathLike[str], *, user: str = ADMIN) -> Path:
        """Write a user's kubeconfig, readable only by its owner, and return its path.

        Raises:
            RuntimeError: it is not running.
            KeyError: there is no such user.
            OSError: the file cannot be written.
        """
        place = Path(path)
        write_private(place, msgspec.json.encode(self.kubeconfig(user=user)) + b"\n")
        return place

    def client(self, *, user: str = ADMIN) -> Client:
        """Return a client for the server, to be opened with ``async with``.

        Raises:
            RuntimeError: it is not running.
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
        """Return the answered requests, oldest first; an argument of None matches all.

        A running watch appears once, an ended one twice (see `AuditRecord.stage`). The record of a request is written
        before the end of its response, unless the response is longer than a few kilobytes.

        Args:
            verb: such as ``"patch"``.
            resource: the plural.
            subresource: such as ``"status"``; ``""`` for the resource itself.
            name: the object's name.
            namespace: its namespace; ``""`` for none.
            user: the user who sent the request.

        Raises:
            RuntimeError: it is not running.
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
        records = read_audit_log(self._processes.directory / "audit.log")
        return [record for record in records if all(getattr(record, key) == value for key, value in given.items())]

    @property
    def _processes(self) -> ControlPlaneProcesses:
        if self._running is None:
            raise RuntimeError("the control plane is not running: use it inside its block")
        return self._running

    def _launch(self, binaries: Path) -> ControlPlaneProcesses:
        for _ in range(_ATTEMPTS - 1):
            with contextlib.suppress(PortTaken):
                return self._launch_once(binaries)
        return self._launch_once(binaries)

    def _launch_once(self, binaries: Path) -> ControlPlaneProcesses:
        token = self._tokens[CONTROLLER_MANAGER] if self._controller_manager else None
        running = ControlPlaneProcesses(binaries, self._files(), self._flags, manager_token=token)
        try:
            running.wait_until_ready(self._tokens[PROBE], self._start_timeout, self._cancelled)
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


_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""The order of P-256 (SEC 2, 2.4.2)."""

_P256 = bytes.fromhex("06082a8648ce3d030107")
"""The object identifier 1.2.840.10045.3.1.7, encoded."""


def new_private_key() -> str:
    """Return a new P-256 private key as PEM (RFC 5915), to sign service account tokens.

    A key on this curve is a random number, and the public key may be omitted, so no library is needed.
    """
    number = secrets.randbelow(_ORDER - 1) + 1
    body = b"\x02\x01\x01" + _der(0x04, number.to_bytes(32)) + _der(0xA0, _P256)
    text = base64.b64encode(_der(0x30, body)).decode()
    return "\n".join(["-----BEGIN EC PRIVATE KEY-----", *textwrap.wrap(text, 64), "-----END EC PRIVATE KEY-----", ""])


def _der(tag: int, content: bytes) -> bytes:
    return bytes([tag, len(content)]) + content
