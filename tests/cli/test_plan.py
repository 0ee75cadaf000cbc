"""``reconciler plan`` and ``reconciler fork``: what is printed, exit codes, comparisons, and what cannot be planned."""

from __future__ import annotations

import asyncio
import json
import socket
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler import Client, Manager
from reconciler.apiserver import APIServer
from reconciler.cli.output import note_endpoint
from reconciler.cli.plan.command import DryRunTransport
from reconciler.errors import Invalid, NotSent
from reconciler.http import HTTPRequest
from reconciler.notification import NotificationRequest
from reconciler.testing import virtual_time
from reconciler.testing.control_plane import ControlPlane
from tests.cli.test_command_line import run
from tests.real_server import install, until

OPERATOR = """
import asyncio
import signal
import time
import urllib.request
import urllib3
from reconciler import ConditionedStatus, Manager, Model, Resource, ResourceReconciler, Result, effect

class SiteSpec(Model):
    size: int = 1

class SiteStatus(ConditionedStatus):
    phase: str | None = None
    seen: int | None = None

class Site(Resource[SiteSpec, SiteStatus], group="example.com", version="v1"):
    "A site."

class Plain(ResourceReconciler[Site]):
    color = "red"

    @effect(planned="planned")
    async def register(self, site):
        raise AssertionError("an effect was called")

    async def reconcile_object(self, site, status):
        data = {"color": self.color, "size": str(site.spec.size)}
        config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": site.name, "namespace": site.namespace}}
        await self.client.apply(config | {"data": data}, owner=site)
        status.set(phase="Ready")
        return Result(requeue_after=300)

class Blue(Plain):
    color = "blue"

class Registers(Plain):
    async def reconcile_object(self, site, status):
        status.set(phase=await self.register(site))

class Fails(Plain):
    async def reconcile_object(self, site, status):
        if site.name == "bad":
            raise LookupError("no such color")

class Restless(Plain):
    async def reconcile_object(self, site, status):
        if site.name == "bad":
            status.set(seen=(site.status.seen or 0) + 1)
            return Result(requeue_after=60)

class Hot(Plain):
    async def reconcile_object(self, site, status):
        patch = {"metadata": {"labels": {"n": str(int(site.metadata.labels.get("n", 0)) + 1)}}}
        await self.client.patch(Site, site.name, site.namespace, patch=patch)

class Official(Plain):
    def reconcile_object(self, site, status):
        urllib3.PoolManager().request("PATCH", "https://user:pw@10.0.0.1/api/v1/namespaces/default/configmaps/a?x=y")

class Standard(Plain):
    def reconcile_object(self, site, status):
        urllib.request.urlopen(urllib.request.Request("http://127.0.0.1:9/charge", b"1", method="POST"))

class InAThread(Plain):
    async def reconcile_object(self, site, status):
        await asyncio.to_thread(urllib3.PoolManager().request, "POST", "http://127.0.0.1:9/charge")

class Deletes(Plain):
    async def reconcile_object(self, site, status):
        await self.client.delete("v1/Secret", "password", "default")

class Rotates(Plain):
    async def reconcile_object(self, site, status):
        patch = {"data": {"a": "c2VjcmV0"}, "metadata": {"labels": {"rotated": "yes"}}}
        await self.client.patch("v1/Secret", "password", "default", patch=patch)

def ends(manager: Manager):
    async def fall_over():
        raise OSError("the disk is full")
    manager.add_controller(Plain())
    manager.add(fall_over)

def exits(manager: Manager):
    raise SystemExit(3)

class Leaves(Plain):
    async def reconcile_object(self, site, status):
        raise SystemExit(3)

class Spins(Plain):
    async def reconcile_object(self, site, status):
        while True:
            await asyncio.sleep(0)

class Raises(Plain):
    raised = KeyboardInterrupt
    async def reconcile_object(self, site, status):
        raise self.raised("enough")

class Closes(Raises):
    raised = GeneratorExit

class RaisesOwn(Raises):
    raised = type("Own", (BaseException,), {})

class StopsTheLoop(Plain):
    async def reconcile_object(self, site, status):
        asyncio.get_running_loop().stop()

class CancelsAll(Plain):
    async def reconcile_object(self, site, status):
        for task in asyncio.all_tasks():
            task.cancel()

class Blocks(Plain):
    async def reconcile_object(self, site, status):
        await super().reconcile_object(site, status)
        if site.name == "b":
            time.sleep(10_000)

class BlockEach(Plain):
    async def reconcile_object(self, site, status):
        time.sleep(10_000)

class BlocksAtTheEnd(Plain):
    async def reconcile_object(self, site, status):
        try:
            await asyncio.Event().wait()
        finally:
            time.sleep(10_000)

class BlocksAThread(Plain):
    async def reconcile_object(self, site, status):
        await asyncio.to_thread(time.sleep, 10_000)

class IsInterrupted(Plain):
    async def reconcile_object(self, site, status):
        await super().reconcile_object(site, status)
        if site.name == "b":
            signal.raise_signal(signal.SIGINT)
            await asyncio.Event().wait()

class Again(Plain):
    async def reconcile_object(self, site, status):
        return Result(again=True)

def hangs(manager: Manager):
    time.sleep(10_000)

async def waits(manager: Manager):
    await asyncio.Event().wait()

def fails(manager: Manager):
    raise LookupError("no database")

class LeavesLater(Plain):
    async def reconcile_object(self, site, status):
        self.task = asyncio.create_task(super().reconcile_object(site, status))
        self.task.add_done_callback(lambda task: exits(self))
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "sites.py").write_text(OPERATOR)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("sites", None)


def site(name: str) -> dict[str, Any]:
    return {"apiVersion": "example.com/v1", "kind": "Site", "metadata": {"name": name, "namespace": "default"}}


def secret() -> dict[str, Any]:
    metadata = {"name": "password", "namespace": "default"}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": {"a": "aHVudGVyMg==", "b": "Yg=="}}


def test_a_changed_definition_is_part_of_the_plan(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_fork("a")
    changed = OPERATOR.replace("seen: int | None = None", "seen: int | None = None\n    owner: str | None = None")
    Path("newer.py").write_text(changed.replace('phase="Ready"', 'phase="Ready", owner="ann"'))
    _, out, _ = run(capsys, "plan", "newer:Plain", "--fork", "fork")
    sys.modules.pop("newer")
    lines = out.splitlines()
    assert "~ CustomResourceDefinition sites.example.com is changed" in lines
    assert "+  owner: ann" in lines
    assert [line for line in lines if line.startswith("-") and "before/" not in line] == []


def write_fork(*names: str, operator: str = "") -> None:
    """Write the file ``fork`` of a cluster with sites, on which an operator has worked."""
    import sites

    async def work() -> bytes:
        async with APIServer() as cluster:
            await cluster.apply(sites.Site, *map(site, names), secret())
            if operator:
                manager = Manager(Client(cluster, user_agent="sites"))
                manager.add_controller(getattr(sites, operator)())
                async with manager.running():
                    await asyncio.sleep(10)
            async with APIServer.fork(cluster, kinds=["sites", "configmaps", "secrets"]) as server:
                return server.snapshot()

    with virtual_time():
        Path("fork").write_bytes(asyncio.run(work()))


def planned(capsys: pytest.CaptureFixture[str], name: str, *options: str) -> tuple[int, list[str]]:
    code, out, err = run(capsys, "plan", f"sites:{name}", "--fork", "fork", *options)
    assert "Traceback" not in out + err
    return code, out.splitlines()


def as_json(capsys: pytest.CaptureFixture[str], name: str, *options: str) -> Any:
    return json.loads("\n".join(planned(capsys, name, "--output", "json", *options)[1]))


def test_changes_are_shown_with_the_reconcile_and_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    write_fork("a", "b", operator="Plain")
    code, lines = planned(capsys, "Blue")
    assert code == 2
    assert lines[:12] == [
        "~ ConfigMap default/a is changed",
        "  by Site default/a of site (event)",
        "--- before/ConfigMap default/a",
        "+++ after/ConfigMap default/a",
        "@@ -1,6 +1,6 @@",
        " apiVersion: v1",
        " data:",
        "-  color: red",
        "+  color: blue",
        "   size: '1'",
        " kind: ConfigMap",
        " metadata:",
    ]
    assert "  2 objects of site act again in 5 min" in lines
    assert lines[-1] == "Plan: 0 created, 2 changed, 0 deleted; 4 reconciles."


def test_nothing_to_do_exits_0(capsys: pytest.CaptureFixture[str]) -> None:
    write_fork("a", "b", operator="Plain")
    code, lines = planned(capsys, "Plain")
    assert (code, lines[-1]) == (0, "Plan: 0 created, 0 changed, 0 deleted; 2 reconciles.")


def test_created_objects_are_shown_without_what_the_server_sets(capsys: pytest.CaptureFixture[str]) -> None:
    write_fork("a")
    code, lines = planned(capsys, "Plain")
    assert code == 2
    assert "+ ConfigMap default/a is created" in lines
    text = "\n".join(lines)
    assert "+  color: red" in text
    for word in ("uid", "creationTimestamp", "managedFields", "resourceVersion"):
        assert word not in text
    assert "~ Site default/a is changed" in lines


def test_effects_are_listed_and_not_called(capsys: pytest.CaptureFixture[str]) -> None:
    write_fork("a")
    code, lines = planned(capsys, "Registers")
    assert code == 2
    at = lines.index("Effects outside of the cluster, which were not called:")
    assert lines[at + 1] == "  site: register default/a"
    assert "+  phase: planned" in lines


def test_errors_exit_1_and_say_where(capsys: pytest.CaptureFixture[str]) -> None:
    write_fork("bad", "good")
    code, lines = planned(capsys, "Fails")
    assert code == 1
    error = lines[lines.index("Errors:") + 1]
    assert error.startswith("  site default/bad: LookupError: ")
    assert "no such color" in error
    assert "sites.py:" in error


@pytest.mark.parametrize(("name", "field"), [("Restless", "status.seen"), ("Hot", "metadata.labels.n")])
def test_what_never_comes_to_rest_is_found(capsys: pytest.CaptureFixture[str], name: str, field: str) -> None:
    write_fork("bad", *(["good"] * (name == "Restless")))
    code, lines = planned(capsys, name)
    assert code == 2
    found = lines[lines.index("Never at rest:") + 1]
    assert found == f"  1 Site changes again at each reconcile of site: {field} (Site default/bad)"


def test_an_official_client_is_stopped_and_its_line_named(capsys: pytest.CaptureFixture[str]) -> None:
    write_fork("a")
    code, lines = planned(capsys, "Official")
    assert code == 1
    found = next(line for line in lines if "PATCH /api/v1/namespaces/default/configmaps/a" in line)
    assert "sites.py" in found
    assert "pw" not in found


@pytest.mark.parametrize("operator", ["Standard", "InAThread"])
def test_a_request_is_stopped_in_the_standard_library_and_in_threads(
    operator: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_fork("a")
    code, lines = planned(capsys, operator)
    assert code == 1
    found = next(line for line in lines if "POST /charge" in line)
    assert "sites.py" in found
    assert not any("refused" in line for line in lines)


def test_the_same_request_in_another_version_is_no_difference(capsys: pytest.CaptureFixture[str]) -> None:
    write_fork("a")
    Path("newer.py").write_text("\n" + OPERATOR)
    code, lines = planned(capsys, "Standard", "--compare", "newer:Standard")
    assert code == 1
    assert not any(line.startswith("Only ") for line in lines)
    assert "  request of site, not sent: POST /charge" in lines[lines.index("Both:") :]


def test_an_error_in_a_directory_of_any_name_has_its_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_fork("bad")
    Path("reconciler").mkdir()
    Path("reconciler", "elsewhere.py").write_text(OPERATOR)
    monkeypatch.syspath_prepend("reconciler")
    code, out, _ = run(capsys, "plan", "elsewhere:Fails", "--fork", "fork")
    assert code == 1
    assert any("no such color" in line and "elsewhere.py" in line for line in out.splitlines())


def test_secrets_are_masked(capsys: pytest.CaptureFixture[str]) -> None:
    write_fork("a")
    _, lines = planned(capsys, "Rotates")
    assert "-  a: '*** (before)'" in lines
    assert "+  a: '*** (after)'" in lines
    assert "   b: '***'" in lines
    assert "c2VjcmV0" not in "\n".join(lines)
    assert any("2 values of Secrets were replaced" in line for line in lines)
    code, lines = planned(capsys, "Deletes")
    assert code == 2
    assert "- Secret default/password is deleted" in lines


def test_only_one_object_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    write_fork("a", "b", operator="Plain")
    found = as_json(capsys, "Blue", "--only", "site", "default/a")
    assert [each["name"] for each in found["objects"]] == ["a"]


def test_only_shows_the_effects_of_the_object(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_fork("a", "b")
    Path("sites.py").write_text(OPERATOR.replace("self.register(site)", "self.register(site.name + '.example.com')"))
    monkeypatch.delitem(sys.modules, "sites")
    found = as_json(capsys, "Registers", "--only", "site", "default/a")
    assert [each["key"] for each in found["effects"]] == ["a.example.com"]


def test_json_has_the_documents_and_is_compared(capsys: pytest.CaptureFixture[str]) -> None:
    write_fork("a", "b")
    found = as_json(capsys, "Plain")
    assert [each["action"] for each in found["objects"]] == ["created", "created", "changed", "changed"]
    assert found["objects"][0]["after"]["data"] == {"color": "red", "size": "1"}
    assert found["objects"][0]["by"][0]["object"] == "default/a"
    Path("plain.json").write_text(json.dumps(found))
    code, lines = planned(capsys, "Blue", "--compare", "plain.json")
    assert code == 2
    assert lines[:2] == ["ConfigMap default/a", "--- sites:Plain/ConfigMap default/a"]
    assert "-  color: red" in lines
    assert lines[-1] == "Comparison of sites:Blue with sites:Plain: 2 objects differ."
    code, lines = planned(capsys, "Plain", "--compare", "plain.json")
    assert (code, lines) == (0, ["Comparison of sites:Plain with sites:Plain: 0 objects differ."])


def test_a_comparison_says_what_fails_in_both(capsys: pytest.CaptureFixture[str]) -> None:
    write_fork("bad")
    code, lines = planned(capsys, "Fails", "--compare", "sites:Fails")
    assert (code, lines[0]) == (1, "Both:")
    assert "error of site default/bad: LookupError: no such color" in lines[1]
    assert lines[-1] == "Comparison of sites:Fails with sites:Fails: 0 objects differ, and both plans failed."
    code, lines = planned(capsys, "Plain", "--compare", "sites:Fails")
    assert (code, lines[-1].rpartition(", ")[2]) == (1, "and the plan of sites:Fails failed.")


@pytest.mark.parametrize("other", ["sites:Plain", sys.executable])
def test_another_module_and_another_python_are_compared(capsys: pytest.CaptureFixture[str], other: str) -> None:
    write_fork("a")
    code, lines = planned(capsys, "Blue", "--compare", other)
    expected = {
        "sites:Plain": (2, "sites:Plain: 1 object differs."),
        sys.executable: (0, "sites:Blue: 0 objects differ."),
    }
    assert (code, lines[-1]) == (expected[other][0], f"Comparison of sites:Blue with {expected[other][1]}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ends", "the operator did not start: OSError: the disk is full"),
        ("exits", "the operator ended its process: SystemExit(3)"),
        ("Leaves", "the operator ended its process: SystemExit(3)"),
        ("LeavesLater", "the operator ended its process: SystemExit(3)"),
        ("Raises", "the operator ended its process: KeyboardInterrupt('enough')"),
        ("StopsTheLoop", "the operator ended its process: RuntimeError('it stopped the event loop')"),
        ("Closes", "GeneratorExit: enough"),
        ("RaisesOwn", "Own: enough"),
        ("CancelsAll", "the operator cancelled all tasks"),
        ("fails", "LookupError: no database"),
    ],
)
def test_an_operator_that_ends_by_itself(capsys: pytest.CaptureFixture[str], name: str, message: str) -> None:
    write_fork("a")
    code, out, err = run(capsys, "plan", f"sites:{name}", "--fork", "fork")
    assert (code, out) == (1, "")
    _progress, error = err.splitlines()
    assert message in error


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hangs", "EventLoopBlocked: it lets nothing else run at "),
        ("waits", "it had not started after 1 s in which nothing happened"),
    ],
)
def test_an_operator_that_does_not_start(capsys: pytest.CaptureFixture[str], name: str, message: str) -> None:
    write_fork("a")
    code, out, err = run(capsys, "plan", f"sites:{name}", "--fork", "fork", "--seconds", "1")
    assert (code, out) == (1, "")
    _progress, error = err.splitlines()
    assert message in error


@pytest.mark.parametrize(
    ("name", "bound", "why"),
    [
        ("Blocks", "1", "the operator still worked after 1 s in which nothing happened"),
        ("IsInterrupted", "600", "the operator still worked after Ctrl-C"),
    ],
)
def test_a_plan_that_is_broken_off_shows_what_it_found(
    capsys: pytest.CaptureFixture[str], name: str, bound: str, why: str
) -> None:
    write_fork("a", "b")
    code, lines = planned(capsys, name, "--workers", "1", "--seconds", bound)
    assert code == 1
    assert "+ ConfigMap default/a is created" in lines
    found = lines[lines.index("Incomplete:") + 1]
    assert why in found
    assert "sites.py:" in found
    assert lines[-1].startswith("Incomplete plan: ")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("BlocksAThread", "in which nothing happened (site default/a)"),
        ("BlockEach", "in which nothing happened (no object waits) at "),
        ("BlocksAtTheEnd", "no plan: code of the operator cannot be stopped at "),
    ],
)
def test_a_plan_does_not_wait_for_code_that_never_ends(name: str, message: str) -> None:
    write_fork("a", *("b", "c") * (name != "BlocksAThread"))
    command = [sys.executable, "-m", "reconciler", "plan", f"sites:{name}", "--fork", "fork", "--seconds", "1"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 1
    assert message in ended.stdout + ended.stderr


def test_an_incomplete_plan_of_a_cluster_leaves_the_process_that_called_it(capsys: pytest.CaptureFixture[str]) -> None:
    results: list[tuple[int, str, str]] = []

    async def work(cluster: APIServer) -> None:
        cluster.write_kubeconfig("kubeconfig")
        await cluster.apply(site("a"))
        results.append(await asyncio.to_thread(run, capsys, "plan", "sites:Again", "--kubeconfig", "kubeconfig"))

    on_a_cluster(work)
    assert results[0][0] == 1


def test_a_plan_that_did_not_come_to_its_end_does_not_say_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    write_fork("a", operator="Plain")
    code, lines = planned(capsys, "Again")
    assert (code, lines[-1][:27]) == (1, "Incomplete plan: 0 created,")
    found = as_json(capsys, "Again")
    assert found["incomplete"] == "the operator still worked after 10 reconciles of a key (site default/a)"
    Path("again.json").write_text(json.dumps(found))
    code, lines = planned(capsys, "Plain", "--compare", "again.json")
    assert code == 1
    assert f"  sites:Again: {found['incomplete']}; more may change" in lines


def test_only_names_an_object_that_exists(capsys: pytest.CaptureFixture[str]) -> None:
    write_fork("a")
    code, _, err = run(capsys, "plan", "sites:Blue", "--fork", "fork", "--only", "Site", "default/b")
    assert code == 1
    assert "--only Site default/b: no such object was copied or planned" in err


def test_a_reconcile_that_never_waits_is_bounded(capsys: pytest.CaptureFixture[str]) -> None:
    write_fork("a")
    _, lines = planned(capsys, "Spins", "--seconds", "1")
    assert any("the operator still worked after 1 s of CPU time (site default/a)" in line for line in lines)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file"), ("hello\n", "was not written by an embedded API server"), ("plain", "not of a fork")],
)
def test_a_fork_file_that_is_none(capsys: pytest.CaptureFixture[str], content: str | None, message: str) -> None:
    async def snapshot() -> bytes:
        async with APIServer() as server:
            return server.snapshot()

    if content is not None:
        Path("fork").write_bytes(asyncio.run(snapshot()) if content == "plain" else content.encode())
    code, out, err = run(capsys, "plan", "sites:Plain", "--fork", "fork")
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert message in err


def test_a_kubeconfig_that_reaches_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconciler.apiserver.fork._ATTEMPTS", 1)
    code, _, err = run(capsys, "plan", "sites:Plain")
    assert code == 1
    assert "no cluster is configured" in err
    cluster = {"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}
    context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    user = {"name": "u", "user": {"token": "t"}}
    document = {"clusters": [cluster], "contexts": [context], "users": [user], "current-context": "c"}
    Path("kubeconfig").write_text(json.dumps(document))
    for command in (["plan", "sites:Plain"], ["fork", "--output", "new"]):
        code, _, err = run(capsys, *command, "--kubeconfig", "kubeconfig")
        *_progress, err = err.splitlines()
        assert code == 1
        assert "127.0.0.1:1" in err
    assert not Path("new").exists()


def on_a_cluster(work: Callable[[APIServer], Awaitable[None]], *, rbac: bool = False) -> None:
    """Run something beside an embedded server that listens on a socket."""

    async def serve() -> None:
        import sites

        async with APIServer(rbac=rbac) as cluster:
            await cluster.listen()
            await cluster.apply(sites.Site, site("a"), secret())
            await work(cluster)

    asyncio.run(serve())


def test_dependents_of_kinds_that_the_operator_does_not_read_are_deleted_with_their_owner(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def work(cluster: APIServer) -> None:
        cluster.write_kubeconfig("kubeconfig")
        async with Client(cluster) as client:
            owner = await client.get("v1/Secret", "password", "default")
            reference = {"apiVersion": "v1", "kind": "Secret", "name": "password", "uid": owner.uid}
            metadata = {"name": "reader", "namespace": "default", "ownerReferences": [reference]}
            await client.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
        cluster.faults.add(status=500, verb="list", resource="services", times=None)
        arguments = ["plan", "sites:Deletes", "--kubeconfig", "kubeconfig", "--output", "json"]
        plans.append(json.loads((await asyncio.to_thread(run, capsys, *arguments))[1]))

    plans: list[Any] = []
    on_a_cluster(work)
    deleted = {each["name"]: each.get("by", []) for each in plans[0]["objects"] if each["action"] == "deleted"}
    assert deleted.keys() == {"password", "reader"}
    assert deleted["reader"] == []  # the cluster itself
    assert any(note.startswith("services could not be listed") for note in plans[0]["notes"])


def test_the_server_of_a_running_dev_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    codes = []

    async def work(cluster: APIServer) -> None:
        cluster.write_kubeconfig("reconciler.kubeconfig")
        with socket.create_server(("127.0.0.1", 0)) as operator:
            note_endpoint(Path("reconciler.kubeconfig"), f"http://127.0.0.1:{operator.getsockname()[1]}")
            codes.append((await asyncio.to_thread(run, capsys, "plan", "sites:Plain"))[0])
        codes.append((await asyncio.to_thread(run, capsys, "plan", "sites:Plain"))[0])

    on_a_cluster(work)
    assert codes == [2, 1]


def test_a_fork_is_written_for_its_owner_alone_and_planned_without_a_cluster(
    capsys: pytest.CaptureFixture[str],
) -> None:
    results = []

    async def work(cluster: APIServer) -> None:
        cluster.write_kubeconfig("kubeconfig")
        for options in ([], ["--kind", "sites"]):
            arguments = ["fork", "--output", f"fork{len(options)}", "--kubeconfig", "kubeconfig", *options]
            results.append(await asyncio.to_thread(run, capsys, *arguments))

    on_a_cluster(work)
    assert [code for code, _, _ in results] == [0, 0]
    assert stat.S_IMODE(Path("fork0").stat().st_mode) == 0o600
    assert b"hunter2" not in Path("fork0").read_bytes()
    code, out, _ = run(capsys, "plan", "sites:Plain", "--fork", "fork0")
    assert (code, "not in the file" in out) == (2, False)
    code, out, _ = run(capsys, "plan", "sites:Plain", "--fork", "fork2")
    assert "configmaps looks empty to the operator: it is not in the file" in out
    Path("notes.txt").write_text("mine")
    code, _, err = run(capsys, "fork", "--output", "notes.txt")
    assert (code, Path("notes.txt").read_text()) == (1, "mine")
    assert "not overwritten" in err


def test_only_policies_about_what_changes_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    async def work(cluster: APIServer) -> None:
        cluster.write_kubeconfig("kubeconfig")
        async with Client(cluster) as client:
            for name, resource in (("about-configs", "configmaps"), ("about-pods", "pods")):
                rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": [resource]}
                spec = {
                    "matchConstraints": {"resourceRules": [rule]},
                    "validations": [{"expression": "object.metadata.name != 'x'"}],
                }
                kind = {"apiVersion": POLICY, "kind": "ValidatingAdmissionPolicy"}
                await client.create({**kind, "metadata": {"name": name}, "spec": spec})
        printed.append(await asyncio.to_thread(run, capsys, "plan", "sites:Plain", "--kubeconfig", "kubeconfig"))

    printed: list[tuple[int, str, str]] = []
    on_a_cluster(work)
    assert "policy about-configs; --ask-cluster asks them" in printed[0][1]
    assert "about-pods" not in printed[0][1]


def test_the_cluster_is_asked_with_dry_runs_and_its_refusals_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    results, requests = [], []

    async def work(cluster: APIServer) -> None:
        cluster.write_kubeconfig("kubeconfig")
        cluster.faults.add(status=403, message="no red things", verb="create", resource="configmaps")
        cluster.log.clear()
        arguments = ["plan", "sites:Plain", "--kubeconfig", "kubeconfig", "--ask-cluster"]
        results.append(await asyncio.to_thread(run, capsys, *arguments))
        requests.extend(entry for entry in cluster.requests() if entry.method != "GET")
        results.append(await asyncio.to_thread(run, capsys, *arguments[:-1]))

    on_a_cluster(work)
    code, out, _ = results[0]
    assert code == 1
    assert "  the cluster refuses this: no red things" in out.splitlines()
    assert out.splitlines()[-1].startswith("Plan: 1 created, 1 changed, 0 deleted, 1 refusal;")
    assert sorted((entry.verb, entry.resource, entry.effective) for entry in requests) == [
        ("create", "configmaps", False),
        ("patch", "sites", False),
    ]
    assert results[1][0] == 2


def test_the_notification_operator_is_planned(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    spec = {"type": "Simple", "priority": "Low", "subject": "Backup failed", "body": "disk full", "channels": ["file"]}
    request = {"apiVersion": "notify.reconciler.dev/v1alpha1", "kind": "NotificationRequest", "spec": spec}

    async def snapshot() -> bytes:
        async with APIServer() as cluster:
            metadata = {"name": "backup", "namespace": "default"}
            await cluster.apply(NotificationRequest, request | {"metadata": metadata})
            async with APIServer.fork(cluster) as server:
                assert server.forked is not None
                await server.forked.copy_all()
                return server.snapshot()

    Path("fork").write_bytes(asyncio.run(snapshot()))
    options = ["--fork", "fork", "--notification-directory", "sent", "--audit-file", "audit"]
    code, out, _ = run(capsys, "plan", "notification", *options)
    lines = out.splitlines()
    assert code == 2
    assert "  notificationrequest: send default/backup to file" in lines
    assert "+  phase: Sent" in lines
    assert not list(here.glob("sent/*"))
    assert not Path("audit").exists()


async def test_the_transport_that_asks_sends_nothing_but_dry_runs() -> None:
    async with APIServer() as server:
        asking = DryRunTransport(server)
        document = b'{"metadata": {"name": "a"}}'
        headers = {"content-type": "application/json"}
        request = HTTPRequest("POST", "/api/v1/namespaces", (("dryRun", "All"),), headers, document)
        assert (await asking.send(request)).status == 201
        with pytest.raises(NotSent, match="only reads the cluster"):
            await asking.send(replace(request, query=()))


POLICY = "admissionregistration.k8s.io/v1"


async def deny_red(client: Client) -> None:
    """Let the cluster refuse ConfigMaps that are red, by a policy, and wait until it does."""
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}
    red = "!has(object.data) || !('color' in object.data) || object.data.color != 'red'"
    here = {"matchLabels": {"kubernetes.io/metadata.name": "planned"}}
    await client.create(
        {
            "apiVersion": POLICY,
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": "no-red"},
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {"resourceRules": [rule], "namespaceSelector": here},
                "validations": [{"expression": red, "message": "red is not allowed"}],
            },
        }
    )
    await client.create(
        {
            "apiVersion": POLICY,
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": "no-red"},
            "spec": {"policyName": "no-red", "validationActions": ["Deny"]},
        }
    )
    probe = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "probe", "namespace": "planned"}}

    async def refused() -> bool:
        try:
            await client.create(probe | {"data": {"color": "red"}}, dry_run=True)
        except Invalid:
            return True
        return False

    await until(refused)


@pytest.mark.control_plane
async def test_a_plan_of_a_real_cluster_only_reads_and_asks(
    control_plane: ControlPlane, capsys: pytest.CaptureFixture[str]
) -> None:
    import sites

    control_plane.write_kubeconfig("kubeconfig")
    async with control_plane.client() as client:
        await client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "planned"}})
        await install(client, control_plane, sites.Site)
        for name in ("a", "b"):
            await client.create(site(name) | {"metadata": {"name": name, "namespace": "planned"}})
        await deny_red(client)
        arguments = ["--kubeconfig", "kubeconfig", "--namespace", "planned"]
        results = [
            await asyncio.to_thread(run, capsys, "plan", target, *arguments, *more)
            for target, more in (
                ("sites:Plain", []),
                ("sites:Plain", ["--ask-cluster"]),
                ("sites:Blue", ["--ask-cluster"]),
            )
        ]
        assert not [each.name for each in await client.list("v1/ConfigMap", "planned") if each.name in ("a", "b")]
        assert [each.status.phase for each in await client.list(sites.Site, "planned")] == [None, None]
        await client.delete(f"{POLICY}/ValidatingAdmissionPolicyBinding", "no-red")
        await client.delete(f"{POLICY}/ValidatingAdmissionPolicy", "no-red")
    assert [code for code, _, _ in results] == [2, 1, 2], results
    assert "policy no-red; --ask-cluster asks them" in results[0][1]
    assert results[1][1].count("ValidatingAdmissionPolicy 'no-red'") == 2
    assert "refuse" not in results[2][1]
    asked = [
        record
        for record in control_plane.audit()
        if record.user_agent in ("kube-reconciler plan", "kube-reconciler fork")
    ]
    writes = {record.verb for record in asked if "dryRun=All" not in record.uri}
    assert writes <= {"get", "list"}
    assert {record.verb for record in asked} == {"get", "list", "create", "patch"}


def test_a_plan_copies_in_pages_and_reconciles_each_object_a_few_times(capsys: pytest.CaptureFixture[str]) -> None:
    names, results, lists = [f"s{number}" for number in range(600)], [], []

    async def work(cluster: APIServer) -> None:
        cluster.write_kubeconfig("kubeconfig")
        await cluster.apply(*map(site, names))
        cluster.log.clear()
        arguments = ["plan", "sites:Plain", "--kubeconfig", "kubeconfig", "--output", "json"]
        results.append(await asyncio.to_thread(run, capsys, *arguments))
        lists.extend(entry.resource for entry in cluster.requests(verb="list"))

    on_a_cluster(work)
    plan = json.loads(results[0][1])
    assert len(plan["objects"]) == 2 * 601
    assert plan["reconciles"] <= 3 * 601
    assert lists.count("sites") == 2
    assert lists.count("configmaps") == 1
    assert "running sites:Plain on a copy of the cluster" in results[0][2].splitlines()


def test_a_user_with_few_permissions_plans_a_namespace_and_is_told_what_is_missing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    results = []
    kind = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "r", "namespace": "team"}}
    rules = [{"apiGroups": ["example.com"], "resources": ["sites"], "verbs": ["list"]}]
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "ann"}

    async def work(cluster: APIServer) -> None:
        await cluster.apply(
            kind | {"kind": "Role", "rules": rules},
            kind | {"kind": "RoleBinding", "roleRef": role, "subjects": [subject]},
            site("b") | {"metadata": {"name": "b", "namespace": "team"}},
        )
        cluster.user("ann").write_kubeconfig("kubeconfig")
        arguments = ["plan", "sites:Plain", "--kubeconfig", "kubeconfig", "--namespace", "team"]
        results.append(await asyncio.to_thread(run, capsys, *arguments))

    on_a_cluster(work, rbac=True)
    code, out, _ = results[0]
    lines = out.splitlines()
    assert code == 2
    assert "+ ConfigMap team/b is created" in lines
    assert not [line for line in lines if "Namespace" in line and "created" in line]
    said = next(line for line in lines if line.startswith("  configmaps could not be listed"))
    assert said.startswith("  configmaps could not be listed, so the plan takes it that there are none: ")
    assert 'User "ann" cannot list resource "configmaps" in API group "" in the namespace "team"' in said


def test_a_project_names_its_operator(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    write_fork("a")
    (here / "pyproject.toml").write_text("[tool.reconciler.plan]\ntarget = 'sites:Plain'\nfork = 'fork'\n")
    code, out, _ = run(capsys, "plan")
    assert (code, out.splitlines()[-1]) == (2, "Plan: 1 created, 1 changed, 0 deleted; 2 reconciles.")
