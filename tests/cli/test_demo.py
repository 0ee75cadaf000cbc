"""``reconciler demo``: both timelines, within 80 columns and 15 seconds, and the commands that it offers next."""

from __future__ import annotations

import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.cli import demo
from tests.cli.test_command_line import run

ROOT = Path(__file__).parents[2]
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def test_it_says_what_is_retried_plays_both_ways_and_ends_with_the_take_away(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, _ = run(capsys, "demo", "--speed", "0")
    lines = out.splitlines()
    assert code == 0
    assert lines[0].startswith("Retried: ")
    naive = next(number for number, line in enumerate(lines) if line.startswith("Naive"))
    ours = next(number for number, line in enumerate(lines) if line.startswith("kube-reconciler"))
    assert naive < ours
    assert sum("failure" in line for line in lines[naive:ours]) == sum("failure" in line for line in lines[ours:]) == 5
    assert lines[-1].startswith("Take-away: ")


def test_naive_alone_stays_alone(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "demo", "--naive", "--speed", "0")
    assert (code, "not stored" in out, "With the protections:  reconciler demo" in out) == (0, True, True)
    assert "kube-reconciler:" not in out


def test_a_pipe_gets_lines_of_at_most_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "demo", "--speed", "0")
    assert [line for line in out.splitlines() if len(line) > 80] == []


def test_a_terminal_of_80_columns_cuts_nothing() -> None:
    read, write = pty.openpty()
    command = [sys.executable, "-m", "reconciler", "demo", "--speed", "0"]
    environment = {**os.environ, "COLUMNS": "80", "LINES": "50", "TERM": "xterm"}
    with subprocess.Popen(command, stdout=write, stderr=write, env=environment) as process:
        os.close(write)
        shown = b"".join(iter(lambda: _read(read), b""))
        assert process.wait(30) == 0
    os.close(read)
    lines = ESCAPES.sub("", shown.decode()).splitlines()
    assert not any("…" in line for line in lines)
    assert max(map(len, lines)) <= 80
    last = [line for line in lines if line.startswith("│") and "PartiallySent" in line]
    assert [line.split()[1:5] for line in last if "450" in line][-1] == ["450", "s", "5", "file"]


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # the other end is closed
        return b""


def test_it_pauses_for_less_than_15_seconds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(demo.time, "sleep", pauses.append)
    assert run(capsys, "demo")[0] == 0
    assert 5 < sum(pauses) < 10


# The commands that the demo offers next


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Copy the examples, with retries a second apart and a receiver on a free port that refuses two deliveries."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    request = tmp_path / "examples" / "notification.yaml"
    text = request.read_text()
    for field, value in (("initialBackoffSeconds", 1), ("backoffMultiplier", 1), ("maxBackoffSeconds", 1)):
        text, found = re.subn(rf"{field}: \d+", f"{field}: {value}", text)
        assert found == 1
    request.write_text(text)
    return tmp_path


class Terminals:
    """Commands that run at once, each as if in a terminal of its own."""

    def __init__(self, directory: Path) -> None:
        bin_ = Path(sys.executable).parent
        self._directory = directory
        self._environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("RECONCILER_")},
            "PATH": f"{bin_}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "KUBECONFIG": "reconciler.kubeconfig",
        }
        self._processes: list[subprocess.Popen[str]] = []

    def __call__(self, command: str) -> subprocess.Popen[str]:
        """Start a command."""
        process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            cwd=self._directory,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._processes.append(process)
        return process

    def end(self) -> None:
        """End all commands and what they started."""
        for process in self._processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.fixture
def terminals(clone: Path) -> Iterator[Terminals]:
    started = Terminals(clone)
    yield started
    started.end()


def line_with(process: subprocess.Popen[str], word: str) -> str:
    """Read the output of a command until a line contains the word."""
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if word in line:
            return line
    raise AssertionError("".join(seen))


def test_the_commands_after_the_demo_show_the_retries_of_a_receiver_that_comes_back(
    capsys: pytest.CaptureFixture[str], clone: Path, terminals: Terminals
) -> None:
    _, out, _ = run(capsys, "demo", "--speed", "0")
    offered = out.partition("Go on from here")[2]
    server, receiver, operator, kubectl = (line.strip() for line in re.findall(r"^  .*$", offered, re.MULTILINE))

    line_with(terminals(server), "API server on")
    pager = terminals(f"{receiver} --port 0 --failures 2")
    url = line_with(pager, "refuses 2 deliveries").split()[0]
    routing = clone / "examples" / "notification" / "receiver.yaml"
    assert "http://127.0.0.1:8099/" in routing.read_text()
    routing.write_text(routing.read_text().replace("http://127.0.0.1:8099/", url))
    line_with(terminals(operator), "started controllers")

    watch = terminals(kubectl)
    timeline_ = [line_with(watch, "Retrying"), line_with(watch, "Retrying"), line_with(watch, "Sent")]
    assert [line.split()[4] for line in timeline_] == ["1", "2", "3"]
    answers = [line_with(pager, f"attempt {attempt}") for attempt in (1, 2, 3)]
    assert [answer.split()[3] for answer in answers] == ["503", "503", "200"]


@pytest.mark.parametrize("missing", ["looptime", "jsonschema_rs", "rich"])
def test_a_missing_package_is_one_line_before_anything_is_shown(missing: str, tmp_path: Path) -> None:
    (tmp_path / f"{missing}.py").write_text(f"raise ModuleNotFoundError('not installed', name={missing!r})")
    command = [sys.executable, "-m", "reconciler", "demo", "--speed", "0"]
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": paths}, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"reconciler: the demo needs {missing}: pip install 'kube-reconciler[demo]'\n"
