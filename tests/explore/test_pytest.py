"""`explore.operator` in a project that uses it: the report, the page, and the line that repeats a run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler import Manager
from reconciler.errors import ConfigurationError
from reconciler.testing import explore
from tests.explore.test_explore import BoatReconciler

TESTS = """
import os
import pytest
from reconciler.testing import explore
from tests.explore.test_explore import Berthing, BoatReconciler, lifecycle

@pytest.fixture
def name():
    return "ida"

@explore.operator(Berthing, owns=["v1/ConfigMap"], budget=20)
async def test_berths(world: explore.World, name: str) -> None:
    assert name == "ida"
    await lifecycle(world)

@explore.operator(BoatReconciler, owns=["v1/ConfigMap"], budget=explore.Budget(runs=5), without=["stable"])
async def test_boats(world):
    await lifecycle(world)
"""
ROOT = Path(__file__).parents[2]


def pytest_in(directory: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """Run pytest on a project of its own; return its exit code and output."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *arguments]
    variables = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    variables |= {"PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run(command, cwd=directory, env=variables, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("project")
    (directory / "pytest.ini").write_text("[pytest]\n")
    (directory / "test_harbor.py").write_text(TESTS)
    return directory


def report_of(output: str) -> str:
    return output[output.index("The operator does not survive") : output.index("--explore-run=")]


def test_a_failure_is_a_report_that_ends_with_the_line_that_repeats_it(project: Path) -> None:
    code, output = pytest_in(project, "--explore-html=report.html", PYTHONHASHSEED="1")
    assert code == 1
    assert "1 failed, 1 passed" in output
    assert "counts: ConfigMap was created 2 times for Boat default/ida" in output
    assert re.search(r"operator 1 +creates configmaps/berth-\w+: version \d+ +\[test_explore.py:\d+ in", output)
    assert "is killed" in output
    assert "The line of the decisive request: test_explore.py:" in output
    page = (project / "report.html").read_text()
    assert 'class="timeline"' in page
    assert "http" not in re.sub(r"http://www\.w3\.org\S*", "", page)
    found = re.search(r"pytest '(.*)' --explore-run='(.*)'", output)
    assert found is not None
    code, again = pytest_in(project, found[1], f"--explore-run={found[2]}", PYTHONHASHSEED="2")
    assert code == 1
    assert report_of(again).partition("tried ")[0] == report_of(output).partition("tried ")[0]


def test_an_invalid_line_is_an_error(project: Path) -> None:
    code, output = pytest_in(project, "test_harbor.py::test_boats", "--explore-run=nonsense")
    assert code == 1
    assert "'nonsense' is not a disturbance: copy the line of a report" in output


def test_what_cannot_be_explored_is_refused() -> None:
    def add(manager: Manager) -> None: ...

    with pytest.raises(ConfigurationError, match="owns: a function that adds controllers sets their options itself"):
        explore.operator(add, owns=["v1/ConfigMap"])
    with pytest.raises(ConfigurationError, match="seconds must be seconds above 0"):
        explore.operator(BoatReconciler, budget=0)
    with pytest.raises(TypeError, match="'async def' function that takes a World"):

        @explore.operator(BoatReconciler)
        def test_plain(world: explore.World) -> None: ...  # type: ignore[arg-type]
