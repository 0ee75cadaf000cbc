"""Stacks of threads: with musl they are small, and C code that is deep in a document would end the process."""

from __future__ import annotations

import resource
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from reconciler import Manager
from reconciler.client import Client

MUSL = 2**20  # bytes, of Python on Alpine; a thread of glibc has what the limit of the process is when it starts
PROGRAM = """
import asyncio, resource, sys
from pathlib import Path
import msgspec
from reconciler import Client, Manager, Reconciler, Recording
from reconciler.apiserver import APIServer

resource.setrlimit(resource.RLIMIT_STACK, (8 * 2**20, resource.getrlimit(resource.RLIMIT_STACK)[1]))  # main thread
sys.setrecursionlimit(9_000)  # so many levels of C code are allowed by Python 3.12 and newer without this line
deep = 1
for _ in range(8_000):
    deep = {"password": deep}

class InThread(Reconciler):
    def reconcile(self, request):
        return print("in a thread:", len(msgspec.json.encode(msgspec.json.decode(msgspec.json.encode(deep)))))

class Sending(Reconciler):
    async def reconcile(self, request):
        await self.client.patch("v1/ConfigMap", request.name, request.namespace, patch={"data": deep})

async def main():
    async with APIServer() as server, Client(server) as client:
        manager = Manager(client, recording=Recording(sys.argv[2]))
        manager.add_controller({"InThread": InThread, "Sending": Sending}[sys.argv[1]](), resource="v1/ConfigMap")
        async with manager.running():
            metadata = {"name": "a", "namespace": "default"}
            await client.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
            async with asyncio.timeout(30):
                while not manager.recording.statistics().reconciles:
                    await asyncio.sleep(0.05)
    print("recorded")

asyncio.run(main())
"""


def with_stacks_as_on_musl() -> None:
    resource.setrlimit(resource.RLIMIT_STACK, (MUSL, resource.getrlimit(resource.RLIMIT_STACK)[1]))


@pytest.mark.parametrize(
    ("kind", "lines"), [("InThread", ["in a thread: 104001", "recorded"]), ("Sending", ["recorded"])]
)
def test_a_document_with_thousands_of_levels_does_not_end_the_process(
    kind: str, lines: list[str], tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, kind, tmp_path / "recording"],
        preexec_fn=with_stacks_as_on_musl,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == lines


async def test_a_size_that_the_program_has_set_is_kept(client: Client) -> None:
    before = threading.stack_size(3 * 2**20)
    try:
        async with Manager(client).running():
            pass
        assert threading.stack_size(0) == 3 * 2**20
    finally:
        threading.stack_size(before)
