"""A program of the control plane ends with the process that started it, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.testing.control_plane._process import Process

_STARTS_ONE = """
import sys, time
from pathlib import Path
from reconciler.testing.control_plane._process import Process
process = Process(["sleep", "1000"], Path(sys.argv[1]) / "sleep.log")
print(process._popen.pid, flush=True)
time.sleep(1000)
"""


def wait_for_the_end_of(pid: int) -> None:
    """Wait for a program that is no child of this process; the test's own timeout ends the waiting."""
    descriptor = os.pidfd_open(pid)
    try:
        os.set_blocking(descriptor, True)
        import select

        select.select([descriptor], [], [])
    finally:
        os.close(descriptor)


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="waits for a foreign process as Linux lets one")
def test_a_program_and_its_directory_go_when_their_process_is_killed(tmp_path: Path) -> None:
    directory = tmp_path / "plane"
    directory.mkdir()
    owner = subprocess.Popen([sys.executable, "-c", _STARTS_ONE, str(directory)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    with owner:
        pid = int(owner.stdout.readline())
        os.kill(owner.pid, signal.SIGKILL)
    wait_for_the_end_of(pid)
    while directory.exists():  # the shell removes it after that
        os.sched_yield()


def test_a_program_that_was_stopped_leaves_its_directory_and_no_shell(tmp_path: Path) -> None:
    process = Process(["sleep", "1000"], tmp_path / "sleep.log")
    process.stop(patience=10)
    process.stop(patience=10)
    assert (tmp_path / "sleep.log").exists()
    assert process._executor.returncode == 0
    assert process.has_ended(within=0)
