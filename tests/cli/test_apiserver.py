"""``reconciler apiserver`` in a separate process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.test_command_line import run

CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"kind": "Widget", "plural": "widgets"},
        "versions": [
            {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}},
        ],
    },
}
WIDGET = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}}


class Started:
    """A running server: its process, its output, and requests to it."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.directory = directory
        environment = {key: value for key, value in os.environ.items() if not key.startswith("RECONCILER_")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from reconciler.cli import main; main()", "apiserver", *arguments],
            cwd=directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def ask(self, path: str, method: str = "GET", body: Any = None) -> tuple[int, Any]:
        kubeconfig = json.loads((self.directory / "reconciler.kubeconfig").read_text())
        url = kubeconfig["clusters"][0]["cluster"]["server"] + path
        data = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json"}
        try:
            with urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method)) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        if self.process.poll() is None:
            self.process.send_signal(number)
        _, err = self.process.communicate(timeout=30)
        return self.process.returncode, err


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Started]]:
    started: list[Started] = []

    def begin(*arguments: str) -> Started:
        started.append(Started(tmp_path, *arguments))
        return started[-1]

    yield begin
    for each in started:
        each.end(signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_apiserver_prints_how_to_reach_it_serves_objects_and_stops_cleanly(
    start: Callable[..., Started], tmp_path: Path, number: int
) -> None:
    manifests = tmp_path / "manifests"
    manifests.mkdir()
    (manifests / "crd.yaml").write_text(yaml.safe_dump_all([CRD, WIDGET]))
    server = start(str(manifests))
    assert server.line().startswith("API server on http://127.0.0.1:")
    assert server.line() == "In another terminal:"
    assert server.line() == f"  export KUBECONFIG={tmp_path / 'reconciler.kubeconfig'}"
    assert server.line() == "  kubectl get crd,ns"
    code, found = server.ask("/apis/example.com/v1/namespaces/default/widgets/w")
    assert (code, found["metadata"]["generation"]) == (200, 1)
    assert server.end(number) == (0, "")


def test_data_survives_a_kill_and_is_not_shared(start: Callable[..., Started], tmp_path: Path) -> None:
    def begin() -> Started:
        server = start("--data", "data")
        assert server.line().endswith("; its data is kept in data")
        for _ in range(3):
            server.line()
        return server

    server = begin()
    path = "/api/v1/namespaces/default/configmaps"
    _, made = server.ask(path, "POST", {"metadata": {"name": "a"}})
    code, err = start("--data", "data").end(0)
    assert (code, err.count("\n")) == (1, 1)
    assert "another server keeps its data in data" in err
    server.end(signal.SIGKILL)
    server = begin()
    assert server.ask(f"{path}/a") == (200, made)
    _, second = server.ask(path, "POST", {"metadata": {"name": "b"}})
    assert int(second["metadata"]["resourceVersion"]) == int(made["metadata"]["resourceVersion"]) + 1
    assert server.end() == (0, "")
    (tmp_path / "data" / "state.jsonl").write_bytes(b"\x00" * 1000)
    code, err = start("--data", "data").end(0)
    assert (code, err.count("\n")) == (1, 1)
    assert "state.jsonl was not written by an embedded API server: to start empty, delete the directory" in err


def test_log_option_prints_writes_as_they_happen(start: Callable[..., Started]) -> None:
    server = start("--log", "writes")
    for _ in range(4):
        server.line()
    server.ask("/api/v1/namespaces/default/configmaps")
    settings = {"metadata": {"name": "a"}}
    assert server.ask("/api/v1/namespaces/default/configmaps", "POST", settings)[0] == 201
    _, _, told = server.line().split(" ", 2)
    assert told.startswith("create configmaps/a in default by Python-urllib/")
    assert ": 201, version " in told


def test_rbac_limits_what_users_may_do(start: Callable[..., Started]) -> None:
    server = start("--rbac")
    for _ in range(4):
        server.line()
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    spec = {"user": "jane", "resourceAttributes": {"verb": "list", "resource": "nodes"}}
    code, found = server.ask(path, "POST", {"spec": spec})
    assert (code, found["status"]) == (201, {"allowed": False})


def test_chaos_is_reproducible(start: Callable[..., Started]) -> None:
    def answers() -> list[int]:
        server = start("--chaos", "1", "--seed", "3")
        for _ in range(3):
            server.line()
        found = []
        for _ in range(20):
            try:
                found.append(server.ask("/api/v1/namespaces")[0])
            except (OSError, ValueError):
                found.append(0)
        server.end()
        return found

    first = answers()
    assert len(set(first)) > 2
    assert first == answers()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--prot", "1"], 2, "--prot"),
        (["--port", "x"], 2, "--port"),
        (["--port", "70000"], 2, "65535"),
        (["--port=-1"], 2, "0"),
        (["--log", "all"], 2, "--log"),
        (["--chaos", "1.5"], 2, "--chaos"),
        (["absent.yaml"], 1, "no such file: absent.yaml"),
        (["."], 1, "no YAML or JSON file in ."),
        (["--controller", "none", "--controller", "jobs"], 1, "--controller none excludes other controllers"),
        (["--kubeconfig", "absent/kubeconfig"], 1, "--kubeconfig absent/kubeconfig: cannot write"),
    ],
)
def test_mistake_is_one_line(
    arguments: list[str],
    code: int,
    says: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    found, _, err = run(capsys, "apiserver", *arguments)
    assert (found, len(err.splitlines())) == (code, 1), err
    assert says in err


def test_help_lists_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "apiserver", "--help")
    assert (code, err) == (0, "")
    for word in ("--port", "--kubeconfig", "--log", "--chaos", "--seed", "--rbac"):
        assert word in out


def test_exec_runs_a_command_with_the_kubeconfig_and_exits_with_its_code(tmp_path: Path) -> None:
    command = "cat $KUBECONFIG; echo $USE_EXISTING_CLUSTER; exit 3"
    server = Started(tmp_path, "--exec", command)
    out, err = server.process.communicate(timeout=60)
    kubeconfig, existing = out.splitlines()
    assert json.loads(kubeconfig)["clusters"][0]["cluster"]["server"].startswith("http://127.0.0.1:")
    assert (existing, err, server.process.returncode) == ("true", "", 3)


def test_the_version_of_kubernetes_is_an_option(start: Callable[..., Started]) -> None:
    server = start("--version", "1.34")
    server.line()
    assert server.ask("/version")[1]["minor"] == "34"
    assert server.end() == (0, "")
    _, err = start("--version", "1.20").process.communicate(timeout=60)
    assert (
        err == "reconciler: the embedded API server cannot be Kubernetes '1.20': choose one of 1.33, 1.34, 1.35, 1.36\n"
    )


def test_a_signal_ends_the_command_first(start: Callable[..., Started]) -> None:
    server = start("--exec", "trap 'echo stopped; exit 0' TERM; echo running; while true; do sleep 0.1; done")
    assert server.line() == "running"
    server.process.send_signal(signal.SIGTERM)
    assert server.line() == "stopped"
    assert server.process.wait(30) == 0


def test_without_controllers_a_foreground_deletion_waits(start: Callable[..., Started]) -> None:
    server = start("--controller", "none")
    server.line()
    path = "/api/v1/namespaces/default/configmaps"
    server.ask(path, "POST", {"metadata": {"name": "a"}})
    server.ask(f"{path}/a", "DELETE", {"propagationPolicy": "Foreground"})
    assert server.ask(f"{path}/a")[1]["metadata"]["finalizers"] == ["foregroundDeletion"]
    assert server.end() == (0, "")
