"""Clients of other languages in one command, as the page about them says; ``nox -s ecosystem`` runs them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
INFORMED = ["inform add", "inform update", "inform delete"]
WATCHED = ["watch ADDED", "watch MODIFIED", "watch DELETED"]
CLIENTS = {
    "java": ("mvn -q -B compile exec:java -Dexec.mainClass=foreign.Watching", [*WATCHED, *INFORMED, "exec refused"]),
    "javascript": ("npm install --silent --no-package-lock && node watching.js", INFORMED),
}

pytestmark = pytest.mark.skipif("ECOSYSTEM" not in os.environ, reason="runs in nox -s ecosystem: it installs packages")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("language", CLIENTS)
def test_a_client_sees_a_config_map_come_and_go(language: str, tmp_path: Path) -> None:
    command, expected = CLIENTS[language]
    shutil.copytree(HERE / language, tmp_path, dirs_exist_ok=True)
    server = [sys.executable, "-m", "reconciler", "apiserver", "--tls", "--exec", command]
    done = subprocess.run(server, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert re.findall(r"(?:watch|inform|exec) \w+", done.stdout) == expected, done.stderr
    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(900)
@pytest.mark.parametrize("controllers", ["none", "jobs"])
def test_the_cron_job_suite_of_kubebuilder_passes(controllers: str, tmp_path: Path) -> None:
    """It needs a checkout of kubebuilder, whose directory the environment names."""
    checkout = os.environ.get("KUBEBUILDER_CHECKOUT")
    if checkout is None:
        pytest.skip("KUBEBUILDER_CHECKOUT is not set: git clone https://github.com/kubernetes-sigs/kubebuilder")
    project = Path(checkout, "docs/book/src/cronjob-tutorial/testdata/project")
    server = [
        sys.executable,
        "-m",
        "reconciler",
        "apiserver",
        "--kubeconfig",
        str(tmp_path / "config"),
        "--controller",
        controllers,
    ]
    done = subprocess.run(
        [*server, "--exec", "go test ./internal/controller"], cwd=project, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
