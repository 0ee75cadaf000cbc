"""The report of a failed test shows what happened on its API servers, in a project that uses the plugin."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.testing.cluster import _pointers

pytest_plugins = "pytester"

HEAD = """
import pytest
from reconciler import Client
from reconciler.apiserver import APIServer

def settings(namespace="default"):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": namespace}}

SECRET = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "default"}}
"""
INI = """
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
"""
EMBEDDED = "*- what happened on the embedded API server -*"


def run(pytester: pytest.Pytester, body: str, *arguments: str) -> pytest.RunResult:
    pytester.makeini(INI)
    pytester.makepyfile(HEAD + body)
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *arguments)


def test_a_failed_test_reports_objects_writers_answers_faults_and_cut_watches(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
@pytest.mark.virtual_time
async def test_it(apiserver, client):
    await client.create(settings())
    fault = apiserver.faults.add(latency=1.5, verb="patch")
    patch = {"data": {"x": "1"}}
    await client.patch("v1/ConfigMap", "a", "default", patch=patch, field_manager="the-manager")
    apiserver.compact()
    await client.delete("v1/ConfigMap", "a", "default")
    assert len(apiserver.log.writes("ConfigMap", "a")) == 1
""",
    )
    result.stdout.fnmatch_lines(
        [
            "*<3 writes*",
            EMBEDDED,
            "objects by writes: configmaps/a in default (3)",
            "2026-01-01 00:00:00.000 create configmaps/a in default by kube-reconciler/*: 201, version *",
            "*:01.500 patch configmaps/a in default by * as the-manager: 200, *, changed /data [[]fault: delayed[]]",
            "2026-01-01 00:00:01.500 history up to version * was compacted",
            "2026-01-01 00:00:01.500 delete configmaps/a in default by kube-reconciler/*: 200, version *",
        ]
    )


def test_a_passing_test_reports_nothing(pytester: pytest.Pytester) -> None:
    result = run(pytester, "async def test_it(client):\n    await client.create(settings())\n", "-rA")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*what happened*")


def test_a_server_created_by_the_test_itself_is_reported_once(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
async def help_with(server):
    async with Client(server) as client:
        await client.create(settings())
        raise RuntimeError

async def test_it():
    async with APIServer() as server:
        await help_with(server)
""",
    )
    result.stdout.fnmatch_lines([EMBEDDED, "objects by writes: configmaps/a in default (1)"])
    assert result.stdout.str().count("what happened on") == 1


def test_neither_a_mock_nor_a_stopped_server_hides_the_failure(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
from unittest import mock
from reconciler.testing.control_plane import ControlPlane

def test_it():
    server, plane = mock.Mock(spec=APIServer), ControlPlane.__new__(ControlPlane)
    raise RuntimeError("the failure")
""",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*RuntimeError: the failure", "*what happened on the API server*", "unknown: *"])
    assert result.stdout.str().count("what happened on") == 1


def test_a_server_that_could_not_be_created_is_not_reported(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
def test_it():
    APIServer(controllers=["unknown"])
""",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*ConfigurationError: unknown controllers 'unknown': choose from *"])
    assert "what happened on" not in result.stdout.str()


def test_a_failing_fixture_is_reported_too(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
@pytest.fixture
async def broken(apiserver, client):
    await client.create(settings())
    raise RuntimeError

def test_it(broken):
    pass
""",
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([EMBEDDED, "*create configmaps/a in default*"])


def test_the_cluster_reports_its_own_namespace(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
async def test_it(cluster):
    await cluster.client.create(settings(cluster.namespace))
    await cluster.client.create(settings("other"))
    assert False
""",
    )
    result.stdout.fnmatch_lines([EMBEDDED, "*create configmaps/a in test-1 by *"])
    assert result.stdout.str().count("create configmaps") == 1


def test_values_are_not_reported(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
async def test_it(client):
    await client.create({**SECRET, "stringData": {"key": "hunter" + "2"}})
    await client.patch("v1/Secret", "s", "default", patch={"stringData": {"key": "hunter" + "3"}})
    assert False
""",
        "--tb=line",
    )
    result.stdout.fnmatch_lines(["*patch secrets/s in default*changed /data*"])
    result.stdout.no_fnmatch_line("*hunter2*")
    result.stdout.no_fnmatch_line("*hunter3*")


@pytest.fixture
def binaries() -> Path:
    from reconciler.testing.control_plane.binaries import binaries_path

    return binaries_path()


@pytest.mark.control_plane
def test_the_real_server_is_reported_from_its_audit_log(
    binaries: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(binaries))  # pytester sets another home directory
    result = run(
        pytester,
        """
async def test_first(cluster):
    await cluster.client.create(settings(cluster.namespace))

@pytest.mark.control_plane
async def test_it(control_plane):
    async with control_plane.client() as client:
        await client.create({**SECRET, "stringData": {"key": "hunter" + "2"}})
        await client.patch("v1/Secret", "s", "default", patch={"stringData": {"key": "hunter" + "3"}})
        assert False

async def test_other(cluster):
    await cluster.client.create(settings(cluster.namespace))
    patch = {"data": {"x": "1", "y": "2"}}
    await cluster.client.patch("v1/ConfigMap", "a", cluster.namespace, patch=patch)
    assert cluster.kind == "embedded"
""",
        "--control-plane",
    )
    result.assert_outcomes(passed=3, failed=2)
    text = result.stdout.str()
    first, second = text.split("what happened on the real API server")[1:]
    assert "create secrets" in first
    assert "patch secrets/s in default by kube-reconciler" in first
    assert "configmaps" not in first.partition("test_other")[0]
    assert ": 200, sent /data/x /data/y" in second
    assert "hunter" not in first.partition("___")[0] + second


@pytest.mark.parametrize(
    ("patch", "said"),
    [
        ({"status": {"phase": "P", "list": [1, 2]}}, ["/status/phase", "/status/list"]),
        ({"metadata": {"labels": None}, "spec": {}}, ["/metadata/labels", "/spec"]),
        ([{"op": "add", "path": "/a/b", "value": {"c": 1}}], ["/a/b"]),
        ({}, []),
        (None, []),
    ],
)
def test_a_patch_in_the_audit_log_is_reported_by_its_pointers(patch: object, said: list[str]) -> None:
    assert _pointers(patch) == said
