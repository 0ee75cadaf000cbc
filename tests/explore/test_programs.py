"""``reconciler check --exec`` with operators of other frameworks: controller-runtime in Go, and kopf."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.test_command_line import run

HERE = Path(__file__).parent
SITE = """
apiVersion: example.com/v1
kind: Site
metadata: {name: blog, namespace: default}
spec: {pages: 3}
"""

pytestmark = [
    pytest.mark.skipif("CHECK_PROGRAMS" not in os.environ, reason="runs in nox -s programs: minutes of real time"),
    pytest.mark.timeout(900),
]


@pytest.fixture
def manager(tmp_path: Path) -> str:
    """Build the controller-runtime program."""
    if (tool := shutil.which("go")) is None:
        pytest.skip("needs Go")
    program = tmp_path / "manager"
    subprocess.run([tool, "build", "-mod=mod", "-o", program, "."], cwd=HERE / "manager", check=True)
    return str(program)


def check(capsys: pytest.CaptureFixture[str], directory: Path, command: str, *more: str) -> tuple[int, str]:
    example = directory / "site.yaml"
    example.write_text(SITE)
    options = ["--objects", str(HERE / "site_crd.yaml"), "--example", str(example), *more]
    code, out, err = run(capsys, "check", "--exec", command, *options)
    assert err == ""
    return code, out


def test_a_controller_runtime_program_passes(capsys: pytest.CaptureFixture[str], tmp_path: Path, manager: str) -> None:
    code, out = check(capsys, tmp_path, manager, "--budget", "60")
    assert (code, "nothing was found" in out) == (0, True), out


def test_a_bug_of_a_controller_runtime_program_is_found(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, manager: str
) -> None:
    code, out = check(capsys, tmp_path, f"{manager} -forgetful")
    assert code == 1
    assert "the process is killed right after create configmaps" in out
    assert "counts: ConfigMap was created 2 times for Site default/blog" in out


def test_a_kopf_operator_passes_and_leaves_no_process(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    operator = tmp_path / "kopf_sites.py"  # its path tells its processes from those of others
    shutil.copy(HERE / operator.name, operator)
    command = f"{sys.executable} -m kopf run --standalone -A {operator}"
    # A process needs some seconds to start, and a run two of them.
    code, out = check(capsys, tmp_path, command, "--budget", "120", "--settle-timeout", "60", "--output", "json")
    results = json.loads(out)["scenarios"]
    assert (code, [each["failures"] for each in results.values()]) == (0, [[], []]), out
    assert min(len(each["runs"]) for each in results.values()) >= 2
    assert str(operator) not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
