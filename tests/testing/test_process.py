"""A program of the control plane ends with the process that started it, in any case."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.testing.control_plane.process import Process, _hold_ports

_STARTS_ONE = """
import os, sys, time
from pathlib import Path
from reconciler.testing.control_plane.process import Process
process = Process(["sleep", "1000"], Path(sys.argv[1]) / "sleep.log")
child = os.fork() if sys.argv[2] == "True" else 0
if child or sys.argv[2] == "False":
    print(process._popen.pid, child, flush=True)
time.sleep(1000)
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="waits for a foreign process as Linux lets one")
@pytest.mark.parametrize("forks", [False, True], ids=["alone", "with a forked child"])
def test_program_and_directory_are_removed_when_their_process_is_killed(tmp_path: Path, *, forks: bool) -> None:
    directory = tmp_path / "plane"
    directory.mkdir()
    command = [sys.executable, "-c", _STARTS_ONE, str(directory), str(forks)]
    owner = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    program, child = (int(number) for number in owner.stdout.readline().split())
    try:
        with open_pidfd(program) as end:
            os.kill(owner.pid, signal.SIGKILL)
            owner.wait()
            select.select([end], [], [])  # the test's own timeout ends the wait
        while directory.exists():  # the shell removes it after that
            os.sched_yield()
    finally:
        owner.stdout.close()
        if child:
            os.kill(child, signal.SIGKILL)


@contextlib.contextmanager
def open_pidfd(pid: int) -> Iterator[int]:
    descriptor = os.pidfd_open(pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not let a port be kept for a program")
def test_a_port_is_kept_from_other_programs_and_not_from_ours() -> None:
    (port,), (held,) = _hold_ports(1)
    with held, socket.socket() as other:
        with pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
        for _ in range(2):
            with socket.create_server(("127.0.0.1", port)) as ours:
                socket.create_connection(ours.getsockname()).close()


def test_a_program_that_was_stopped_leaves_its_directory_and_no_shell(tmp_path: Path) -> None:
    process = Process(["sleep", "1000"], tmp_path / "sleep.log")
    process.stop(patience=10)
    process.stop(patience=10)
    assert (tmp_path / "sleep.log").exists()
    assert process._watchdog.returncode == 0
    assert process.has_ended(within=0)


def test_a_program_that_cannot_be_started_leaves_no_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class Remembered(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Remembered)
    with pytest.raises(FileNotFoundError):
        Process([str(tmp_path / "missing")], tmp_path / "log")
    assert [shell.poll() is not None for shell in started] == [True]
    assert tmp_path.exists()


def test_a_program_that_has_exited_is_not_killed_again(tmp_path: Path) -> None:
    """Its pid may have been reused."""
    process = Process(["true"], tmp_path / "log")
    assert process.has_ended(within=30)
    assert process._watchdog.returncode == 0
    process.stop(patience=10)
