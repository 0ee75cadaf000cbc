"""The operator that a browser looks at."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def operator() -> Iterator[str]:
    """The URL of the console of an operator."""
    with running_operator() as (address, _):
        yield address


@contextlib.contextmanager
def running_operator() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run an operator during the block; yield the URL of its console, and its process."""
    command = [sys.executable, "-m", "tests.manager.console.scene"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    with process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip(), process
        finally:
            process.kill()


@pytest.fixture(scope="session")
def pictures(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory for screenshots: that of the docs with ``--pictures``, a temporary one otherwise."""
    if request.config.getoption("--pictures"):
        return ROOT / "docs" / "console"
    return tmp_path_factory.mktemp("pictures")
