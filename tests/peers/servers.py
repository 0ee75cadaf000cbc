"""The two servers that the suites run against, each in a process of its own and with its own data."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

__all__ = ["SERVERS", "serve"]

SERVERS = {"embedded": ("apiserver", "--tls", "--rbac"), "real": ("envtest", "up")}
"""The commands of ``reconciler`` that start a server."""

_START_SECONDS = 60.0


@contextlib.contextmanager
def serve(server: str, directory: Path, arguments: Sequence[str] = ()) -> Iterator[Path]:
    """Run a server, and give the path of its kubeconfig.

    Args:
        server: one of `SERVERS`.
        directory: an empty directory for the kubeconfig and the server's output.
        arguments: more arguments of the command.

    Raises:
        RuntimeError: the server has not started; the message is its output.
    """
    directory.mkdir(parents=True)
    kubeconfig, output = directory / "kubeconfig", directory / "server.log"
    command = [sys.executable, "-m", "reconciler", *SERVERS[server], "--kubeconfig", str(kubeconfig), *arguments]
    with output.open("w") as log, subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True) as process:
        try:
            deadline = time.monotonic() + _START_SECONDS
            while not kubeconfig.exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the {server} server has not started: {output.read_text()}")
                time.sleep(0.05)
            yield kubeconfig
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
