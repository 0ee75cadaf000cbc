"""The pytest plugin, in a project that uses it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

MARKED = """
import pytest

@pytest.mark.control_plane
def test_real(control_plane):
    assert control_plane.url

def test_plain():
    pass
"""
PLAIN = """
import asyncio, gc
import pytest

def test_first():
    pass

@pytest.mark.virtual_time
async def test_virtual():
    await asyncio.sleep(3600)

def test_last():
    gc.collect()
"""


def pytest_in(directory: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """Run pytest on a project of its own; return its exit code and output."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "KUBEBUILDER"))}
    done = subprocess.run(
        command, cwd=directory, env=variables | environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_mode = auto\nfilterwarnings = error\naddopts = --strict-markers\n"
        "asyncio_default_fixture_loop_scope = function\n"
    )
    return tmp_path


def test_without_the_option_marked_tests_are_skipped_and_the_header_reports_it(project: Path) -> None:
    (project / "test_it.py").write_text(MARKED)
    code, output = pytest_in(project, "-rs")
    assert code == 0
    assert "1 passed, 1 skipped" in output
    assert "needs a real kube-apiserver: pytest --control-plane" in output
    head = output.partition("test_it.py")[0]
    assert "not run: 1 tests on a real kube-apiserver (pytest --control-plane runs them)" in head


def test_with_the_option_a_missing_binary_fails(project: Path, tmp_path: Path) -> None:
    (project / "test_it.py").write_text(MARKED)
    code, output = pytest_in(project, "--control-plane", KUBEBUILDER_ASSETS=str(tmp_path))
    assert code == 1
    assert "1 passed, 1 error" in output
    assert "no etcd and no kube-apiserver in KUBEBUILDER_ASSETS" in output
    assert "Traceback" not in output
    assert "not run:" not in output


def test_the_fixture_alone_skips_without_the_option(project: Path) -> None:
    (project / "test_it.py").write_text("def test_real(control_plane):\n    pass\n")
    code, output = pytest_in(project)
    assert code == 0
    assert "1 skipped" in output


def test_the_fixtures_have_the_version_of_the_command_line_or_of_the_mark(project: Path) -> None:
    (project / "test_it.py").write_text(
        "import pytest\nfrom reconciler.http import HTTPRequest\n"
        "async def test_asked(apiserver):\n"
        "    assert b'v1.33' in (await apiserver.send(HTTPRequest('GET', '/version'))).body\n"
        "@pytest.mark.kubernetes_version('1.35')\n"
        "async def test_marked(cluster):\n"
        "    assert b'v1.35' in (await cluster.server.send(HTTPRequest('GET', '/version'))).body\n"
        "@pytest.mark.kubernetes_version\n"
        "async def test_empty(apiserver):\n"
        "    pass\n"
    )
    _, output = pytest_in(project, "--kubernetes-version", "v1.33.2")
    assert "2 passed, 1 skipped, 1 error" in output
    assert "cannot be Kubernetes '': choose one of 1.33" in output


def test_a_project_without_marked_tests_gets_no_header_line(project: Path) -> None:
    (project / "test_it.py").write_text("def test_plain():\n    pass\n")
    assert "kube-apiserver" not in pytest_in(project)[1]


def test_virtual_time_of_a_parameter_fails_instead_of_hanging(project: Path) -> None:
    (project / "test_it.py").write_text(
        "import asyncio, pytest\n"
        "@pytest.mark.parametrize('x', [pytest.param(1, marks=pytest.mark.virtual_time), 2])\n"
        "async def test_it(x):\n"
        "    await asyncio.sleep(3600 if x == 1 else 0)\n"
    )
    code, output = pytest_in(project)
    assert code == 1
    assert "virtual_time is the mark of a test, not of a parameter" in output
    assert "1 passed, 1 error" in output


def test_plain_tests_next_to_virtual_ones_leave_no_loop_open(project: Path) -> None:
    (project / "test_it.py").write_text(PLAIN)
    code, output = pytest_in(project)
    assert code == 0, output


GUARDED = """
import pytest
from reconciler.objects import Model, ObjectMeta, Resource

class Spec(Model):
    size: int = 1

class Thing(Resource[Spec], group="example.com", version="v1"):
    pass

@pytest.fixture
async def thing(apiserver, client):
    await apiserver.apply(Thing)
    return await client.create(Thing(metadata=ObjectMeta(name="t", namespace="default"), spec=Spec()))

async def write(client, generation):
    body = {"status": {"observedGeneration": generation}}
    await client.patch(Thing, "t", "default", patch=body, subresource="status")

async def test_once(client, thing, status_guard):
    await write(client, 1)

async def test_twice(client, thing, status_guard):
    await write(client, 1)
    await write(client, 2)

async def test_two_cycles(client, thing, status_guard):
    for generation in (1, 2):
        with status_guard.cycle(thing):
            await write(client, generation)

async def test_not_guarded(client, thing):
    await write(client, 1)
    await write(client, 2)
"""


def test_the_status_guard_fails_a_test_whose_reconcile_writes_twice_and_shows_both_stacks(project: Path) -> None:
    (project / "test_it.py").write_text(GUARDED)
    code, output = pytest_in(project)
    assert code == 1
    assert "1 failed, 3 passed" in output
    assert "2 status writes to things.example.com default/t in one cycle" in output
    assert output.count("in test_twice\n") >= 2


STRICT = """
import asyncio
import pytest

@pytest.mark.virtual_time
async def test_alone(client):
    await asyncio.sleep(3600)
    assert await client.get("v1/Namespace", "default")

@pytest.mark.virtual_time
class TestInAClass:
    async def test_method(self):
        await asyncio.sleep(3600)

@pytest.mark.asyncio
@pytest.mark.virtual_time
async def test_with_the_other_mark():
    await asyncio.sleep(3600)

@pytest.mark.virtual_time
def test_plain():
    pass
"""


@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_the_mark_virtual_time_is_enough_in_each_mode_of_pytest_asyncio(project: Path, mode: str) -> None:
    (project / "test_it.py").write_text(STRICT)
    code, output = pytest_in(project, "-o", f"asyncio_mode={mode}")
    assert (code, "4 passed" in output) == (0, True), output
