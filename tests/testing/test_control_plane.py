"""Starting, using and stopping a control plane, with fake programs and with the real ones."""

import asyncio
import contextlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from reconciler.client import Client
from reconciler.clock import SystemClock, use_clock
from reconciler.errors import Forbidden, NotFound
from reconciler.testing.control_plane import ControlPlane
from reconciler.testing.control_plane.binaries import BinariesMissing
from reconciler.testing.control_plane.plane import AuditRecord, new_private_key, read_audit_log
from reconciler.testing.control_plane.process import ControlPlaneFailed


def pretend(directory: Path, **programs: str) -> Path:
    """Write shell scripts under the names of the binaries."""
    for name, script in programs.items():
        path = directory / name.replace("_", "-")
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    return directory


def still_there(pid_file: Path) -> bool:
    try:
        os.kill(int(pid_file.read_text()), 0)
    except ProcessLookupError:
        return False
    return True


def is_empty(directory: Path) -> bool:
    return list(directory.iterdir()) == []


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the data directory of control planes in this test."""
    place = tmp_path / "scratch"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    return place


class UntilBothRun:
    """A clock that reaches the start timeout once both programs run."""

    now = staticmethod(SystemClock().now)

    def __init__(self, directory: Path) -> None:
        self._files = [directory / "etcd.pid", directory / "server.pid"]
        self._time = 0.0

    def monotonic(self) -> float:
        before = self._time
        if all(path.exists() and path.read_text().strip() for path in self._files):
            self._time += 1e6
        return before


class TestWithProgramsThatPretend:
    def test_a_program_that_exits_immediately_is_reported_with_its_output(self, tmp_path: Path, scratch: Path) -> None:
        binaries = pretend(tmp_path, etcd="exec sleep 60", kube_apiserver="echo 'no such flag: --x' >&2; exit 1")
        with pytest.raises(
            ControlPlaneFailed, match=r"^kube-apiserver exited immediately; its last output: no such flag: --x$"
        ):
            ControlPlane(binaries=binaries).start()
        assert is_empty(scratch)

    def test_a_server_that_does_not_serve_in_time_is_an_error(self, tmp_path: Path, scratch: Path) -> None:
        binaries = pretend(
            tmp_path,
            etcd=f"echo $$ > {tmp_path}/etcd.pid; exec sleep 60",
            kube_apiserver=f"echo starting; echo $$ > {tmp_path}/server.pid; exec sleep 60",
        )
        with (
            use_clock(UntilBothRun(tmp_path)),
            pytest.raises(ControlPlaneFailed, match=r"did not serve within 60 s; its last output: starting"),
        ):
            ControlPlane(binaries=binaries).start()
        assert is_empty(scratch)
        assert not still_there(tmp_path / "etcd.pid")
        assert not still_there(tmp_path / "server.pid")

    def test_a_port_taken_by_another_program_causes_another_attempt(self, tmp_path: Path, scratch: Path) -> None:
        binaries = pretend(
            tmp_path,
            etcd=f"echo \"$@\" >> {tmp_path}/calls; echo 'listen: address already in use'; exit 1",
            kube_apiserver="exec sleep 60",
        )
        with pytest.raises(ControlPlaneFailed, match="address already in use"):
            ControlPlane(binaries=binaries).start()
        calls = (tmp_path / "calls").read_text().splitlines()
        assert len(calls) == 5
        assert len(set(calls)) == 5
        assert is_empty(scratch)

    def test_a_missing_program_is_an_error_and_leaves_nothing(self, tmp_path: Path, scratch: Path) -> None:
        binaries = pretend(tmp_path, etcd=f"echo $$ > {tmp_path}/etcd.pid; exec sleep 60")
        with pytest.raises(FileNotFoundError):
            ControlPlane(binaries=binaries).start()
        assert is_empty(scratch)

    async def test_a_cancelled_start_leaves_nothing(self, tmp_path: Path, scratch: Path) -> None:
        binaries = pretend(
            tmp_path,
            etcd=f"mkfifo {tmp_path}/up; echo $$ > {tmp_path}/etcd.pid; echo > {tmp_path}/up; exec sleep 60",
            kube_apiserver="exec sleep 60",
        )

        def wait_for_etcd() -> None:
            while not (tmp_path / "up").exists():
                os.sched_yield()
            (tmp_path / "up").read_text()

        entering = asyncio.create_task(ControlPlane(binaries=binaries).__aenter__())
        await asyncio.to_thread(wait_for_etcd)
        entering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await entering
        assert not still_there(tmp_path / "etcd.pid")
        assert is_empty(scratch)

    def test_a_program_that_ignores_sigterm_is_killed(
        self, tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("reconciler.testing.control_plane.process._PATIENCE", 0.1)
        stubborn = "trap '' TERM; echo $$ > {}; while :; do sleep 1; done"
        binaries = pretend(
            tmp_path,
            etcd=stubborn.format(tmp_path / "etcd.pid"),
            kube_apiserver=stubborn.format(tmp_path / "server.pid"),
        )
        with use_clock(UntilBothRun(tmp_path)), pytest.raises(ControlPlaneFailed, match="did not serve"):
            ControlPlane(binaries=binaries).start()
        assert not still_there(tmp_path / "etcd.pid")
        assert not still_there(tmp_path / "server.pid")

    def test_methods_that_need_a_running_server_raise(self) -> None:
        plane = ControlPlane()
        for use in (lambda: plane.url, lambda: plane.kubeconfig_path, plane.kubeconfig, plane.client, plane.audit):
            with pytest.raises(RuntimeError, match="is not running: use it inside its block"):
                use()
        plane.stop()


def test_the_signing_key_is_a_private_key_of_p_256() -> None:
    key = load_pem_private_key(new_private_key().encode(), None)
    assert isinstance(key, EllipticCurvePrivateKey)
    assert isinstance(key.curve, SECP256R1)
    assert new_private_key() != new_private_key()


def test_the_audit_log_is_read_up_to_the_line_that_is_being_written(tmp_path: Path) -> None:
    entry: dict[str, Any] = {
        "verb": "patch",
        "stage": "ResponseComplete",
        "requestURI": "/apis/x/v1/namespaces/n/y/a/status",
        "user": {"username": "admin"},
        "userAgent": "tests",
        "objectRef": {"resource": "y", "subresource": "status", "name": "a", "namespace": "n"},
        "responseStatus": {"code": 200},
        "requestReceivedTimestamp": "2026-01-01T00:00:00.000000Z",
        "requestObject": {"status": {}},
    }
    bare = {key: entry[key] for key in ("verb", "stage", "requestURI", "requestReceivedTimestamp")}
    log = tmp_path / "audit.log"
    assert list(read_audit_log(log)) == []
    log.write_text(f'{json.dumps(entry)}\n{json.dumps(bare)}\n{{"verb": "ge')
    first, second = read_audit_log(log)
    assert (first.verb, first.resource, first.subresource, first.name, first.code) == ("patch", "y", "status", "a", 200)
    assert first.request_object == {"status": {}}
    assert (second.resource, second.code, second.user) == ("", 0, "")


def test_a_body_that_cannot_be_decoded_does_not_lose_the_record(tmp_path: Path) -> None:
    stamp = "2026-01-01T00:00:00Z"
    entry = f'{{"verb":"create","stage":"ResponseComplete","requestURI":"/x","requestReceivedTimestamp":"{stamp}"'
    (tmp_path / "audit.log").write_text(f'{entry},"requestObject":"\\ud800"}}\n{entry}}}\n')
    assert [(one.verb, one.request_object) for one in read_audit_log(tmp_path / "audit.log")] == [("create", None)] * 2


async def once_allowed(client: Client, name: str) -> str:
    """Read a ConfigMap as soon as the server has received the permission, which reaches it through a watch."""
    for _ in range(500):
        with contextlib.suppress(Forbidden):
            return (await client.get("v1/ConfigMap", name, "default")).name
    raise AssertionError("still forbidden")


@pytest.mark.control_plane
class TestTheRealOne:
    async def test_requests_are_served_and_audited_with_their_user(self, control_plane: ControlPlane) -> None:
        async with control_plane.client() as client:
            await client.create(
                {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "remembered", "namespace": "default"}}
            )
            await client.get("v1/ConfigMap", "remembered", "default")
        (created,) = control_plane.audit(verb="create", resource="configmaps", name="remembered")
        assert (created.code, created.user, created.subresource) == (201, "admin", "")
        assert created.request_object is not None
        assert created.request_object["metadata"]["name"] == "remembered"
        assert len(control_plane.audit(verb="get", resource="configmaps", name="remembered", user="admin")) == 1
        assert control_plane.audit(resource="configmaps", name="remembered", subresource="status") == []

    async def test_no_secret_is_in_the_audit_log(self, control_plane: ControlPlane) -> None:
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "never-logged", "namespace": "default"},
            "stringData": {"key": "hunter2"},
        }
        async with control_plane.client() as client:
            await client.create(secret)
        (created,) = control_plane.audit(verb="create", resource="secrets", name="never-logged", namespace="default")
        assert created.request_object is None
        assert b"hunter2" not in (control_plane.directory / "audit.log").read_bytes()

    def test_kubectl_and_the_kubeconfig_work(self, control_plane: ControlPlane) -> None:
        try:
            kubectl = control_plane.kubectl
        except BinariesMissing:
            pytest.skip("KUBEBUILDER_ASSETS has no kubectl")
        environment = os.environ | {"KUBECONFIG": str(control_plane.kubeconfig_path)}
        done = subprocess.run(
            [kubectl, "get", "namespaces", "-o", "name"], env=environment, capture_output=True, text=True, check=True
        )
        assert "namespace/default" in done.stdout.split()
        assert control_plane.kubeconfig_path.stat().st_mode & 0o077 == 0

    async def test_a_second_control_plane_has_its_own_data_and_users_and_leaves_nothing(
        self, control_plane: ControlPlane
    ) -> None:
        rbac = "rbac.authorization.k8s.io"
        role = {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "readers"},
            "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}],
        }
        binding = {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "readers"},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "readers"},
            "subjects": [{"apiGroup": rbac, "kind": "Group", "name": "readers"}],
        }
        config_map = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "only-here", "namespace": "default"},
        }
        users = {"alice": ["readers", "others"], "bob": []}
        async with ControlPlane(binaries=control_plane.kubectl.parent, users=users) as plane:
            assert plane.url != control_plane.url
            directory = plane.directory
            async with plane.client() as admin, plane.client(user="alice") as alice, plane.client(user="bob") as bob:
                for document in (role, binding, config_map):
                    await admin.create(document)
                assert await once_allowed(alice, "only-here") == "only-here"
                with pytest.raises(Forbidden, match="alice"):
                    await alice.delete("v1/ConfigMap", "only-here", "default")
                with pytest.raises(Forbidden, match="bob"):
                    await bob.get("v1/ConfigMap", "only-here", "default")
            assert [record.code for record in plane.audit(user="bob", resource="configmaps")] == [403]
            with pytest.raises(KeyError):
                plane.client(user="carol")
        assert not directory.exists()
        async with control_plane.client() as client:
            with pytest.raises(NotFound):
                await client.get("v1/ConfigMap", "only-here", "default")

    def test_records_are_what_audit_returns(self, control_plane: ControlPlane) -> None:
        assert all(isinstance(record, AuditRecord) for record in control_plane.audit())
        assert control_plane.audit(user="control-plane-probe") == []
