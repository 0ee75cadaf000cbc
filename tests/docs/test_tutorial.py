"""The tutorial works: every command of the page is run, in its order, as a reader would type it."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "first-operator.md"
PROVIDED = re.compile(r"(pip install|python3 -m venv|podman|docker) ?")
"""What the test environment has already, and what needs a container registry."""

READY = {"dev": "started controllers", "apiserver": "API server on", "run": "started controllers"}
"""Commands that run until they are interrupted, and what they print when they are ready."""

PATIENCE = 60
"""Real seconds until a command succeeds, for a machine that is busy."""


def commands() -> list[str]:
    """Return the commands of the page without their comments."""
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    lines = [re.sub(r"\s+# .*", "", line) for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and not PROVIDED.match(line)]


class Shell:
    """A reader's terminals: a directory and an environment, and the programs that are running."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.running: list[subprocess.Popen[bytes]] = []
        self.environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        }

    def type(self, command: str) -> None:
        """Run a command: to its end, or until it says that it is ready."""
        words = shlex.split(command)
        if words[0] == "cd":
            self.directory /= words[1]
        elif words[0] == "export":
            name, _, value = words[1].partition("=")
            self.environment[name] = str(self.directory / value)
        elif words[0] == "reconciler" and words[1] in READY:
            self._start(command, READY[words[1]])
        else:
            self.until_it_succeeds(command)

    def _start(self, command: str, ready: str) -> None:
        log = self.directory.parent / f"{len(self.running)}.log"
        with log.open("wb") as output:
            program = subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                cwd=self.directory,
                env=self.environment,
                stdout=output,
                stderr=output,
            )
        self.running.append(program)
        _wait(lambda: ready in log.read_text() or program.poll() is not None)
        assert program.poll() is None, log.read_text()

    def until_it_succeeds(self, command: str) -> str:
        """Run a command until it exits with 0: the operator may need a moment. Return its output."""
        done: list[subprocess.CompletedProcess[str]] = []

        def succeeds() -> bool:
            done[:] = [
                subprocess.run(
                    ["bash", "-c", command],
                    cwd=self.directory,
                    env=self.environment,
                    capture_output=True,
                    text=True,
                    check=False,
                )
            ]
            return done[0].returncode == 0

        _wait(succeeds, lambda: f"{command}\n{done[0].stdout}{done[0].stderr}")
        return done[0].stdout

    def stop(self) -> None:
        """Interrupt what is running."""
        for program in reversed(self.running):
            program.send_signal(signal.SIGINT)
        for program in self.running:
            program.wait(PATIENCE)


def _wait(condition: Callable[[], bool], explain: Callable[[], str] = str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, explain()
        time.sleep(0.2)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A shell in an empty directory."""
    opened = Shell(tmp_path)
    yield opened
    opened.stop()


@pytest.mark.thorough
@pytest.mark.timeout(400)
def test_every_command_of_the_tutorial_works(shell: Shell) -> None:
    typed = commands()
    assert len(typed) > 12
    for command in typed:
        shell.type(command)
        if command == "cd website":
            shell.environment["PYTHONPATH"] += f"{os.pathsep}{shell.directory}"  # what `pip install -e .` does
        if "kubectl delete configmap" in command:
            name = shlex.split(command)[3]
            shell.until_it_succeeds(f"kubectl get configmap {name}")  # the operator made it again
