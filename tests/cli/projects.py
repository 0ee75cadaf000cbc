"""Projects of ``reconciler new`` for these tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.test_command_line import run

ROOT = Path(__file__).parents[2]


def new(capsys: pytest.CaptureFixture[str], here: Path, name: str = "website", *options: str) -> Path:
    code, _, err = run(capsys, "new", name, *options)
    assert (code, err) == (0, "")
    return here / name


def passes(directory: Path, *command: str) -> str:
    """Run a module of Python in a project, and return its output."""
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=directory, capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def snapshot(directory: Path) -> dict[str, str]:
    """Return the text of each file by its path."""
    return {
        path.relative_to(directory).as_posix(): path.read_text()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def documents(directory: Path) -> list[dict[str, Any]]:
    """Return the manifests of a project that an API server stores."""
    base = [file for file in sorted((directory / "deploy" / "base").iterdir()) if file.name != "kustomization.yaml"]
    return [each for file in base for each in yaml.safe_load_all(file.read_text())]
