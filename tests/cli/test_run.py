"""``reconciler run`` from start to exit, in a separate process against the embedded API server."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from reconciler import Client
from reconciler.apiserver import APIServer

OPERATOR = """
import threading
from reconciler import Reconciler

class Maps(Reconciler):
    async def reconcile(self, request):
        print("reconciled", request.name, flush=True)

class Hangs(Reconciler):
    def reconcile(self, request):
        print("reconciled", request.name, flush=True)
        threading.Event().wait()

def maps(manager):
    manager.add_controller(Maps(), resource="v1/ConfigMap")

async def maps_async(manager):
    manager.add_controller(Maps(), resource="v1/ConfigMap")

def hangs(manager):
    manager.add_controller(Hangs(), resource="v1/ConfigMap")
"""

PROGRAM = """
import sys
import reconciler.manager.lifecycle as lifecycle
lifecycle.CANCEL_TIMEOUT = 0.2
from reconciler.cli import main
main(sys.argv[1:])
"""


async def run_until_reconciled(directory: Path, target: str, *options: str) -> tuple[int, str]:
    """Run a target until it has reconciled an object, send SIGTERM, and return exit code and standard error."""
    (directory / "an_operator.py").write_text(OPERATOR)
    async with APIServer() as server, Client(server) as client:
        server.write_kubeconfig(directory / "kubeconfig")
        await client.create(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "default"}}
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            PROGRAM,
            "run",
            target,
            "--kubeconfig",
            "kubeconfig",
            *options,
            cwd=directory,
            env=os.environ,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        assert await process.stdout.readline() == b"reconciled a\n"
        process.send_signal(signal.SIGTERM)
        _, err = await process.communicate()
    return process.returncode or 0, err.decode()


async def test_sigterm_drains_and_exits_with_0(tmp_path: Path) -> None:
    code, err = await run_until_reconciled(tmp_path, "an_operator:maps")
    assert code == 0
    assert "started controllers: configmap" in err
    assert "SIGTERM received: draining" in err
    assert "Traceback" not in err


async def test_setup_function_may_be_async(tmp_path: Path) -> None:
    code, _ = await run_until_reconciled(tmp_path, "an_operator:maps_async")
    assert code == 0


async def test_hung_thread_does_not_block_the_exit(tmp_path: Path) -> None:
    code, err = await run_until_reconciled(tmp_path, "an_operator:hangs", "--grace-period", "0.2")
    assert code == 1
    assert "did not stop within the grace period of 0.2 s" in err
    assert "default/a in progress" in err
    assert "Traceback" not in err


async def test_uvloop_is_used_if_installed(tmp_path: Path) -> None:
    (tmp_path / "which.py").write_text(
        "import asyncio\nfrom reconciler.cli.run import _loop_factory\n"
        "with asyncio.Runner(loop_factory=_loop_factory()) as runner:\n"
        "    print(type(runner.get_loop()).__module__)\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(tmp_path / "which.py"), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert out.decode().strip() == "uvloop"
