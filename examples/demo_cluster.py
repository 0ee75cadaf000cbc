"""A cluster for the other examples: the embedded API server in a thread. Nothing needs to be installed."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reconciler import Client, ConditionedStatus, Model, Resource
from reconciler.apiserver import APIServer

KIND = "example.com/v1/Message"
GROUP, VERSION, PLURAL = "example.com", "v1", "messages"
NAME = "hello"


class MessageSpec(Model):
    """The desired state of a Message."""

    text: str


class MessageStatus(ConditionedStatus):
    """The observed state of a Message."""

    phase: str | None = None
    attempts: list[dict[str, Any]] | None = None
    total: int | None = None
    started: int | None = None


class Message(Resource[MessageSpec, MessageStatus], group=GROUP, version=VERSION):
    """A message to deliver."""


class Cluster:
    """An API server with the operations that the examples need."""

    def __init__(self, server: APIServer, loop: asyncio.AbstractEventLoop, kubeconfig: str) -> None:
        self.kubeconfig = kubeconfig
        self._server, self._client, self._loop = server, Client(server), loop

    def make(self, namespace: str) -> None:
        """Create a message, as a user would with kubectl."""
        document = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "Message",
            "metadata": {"name": NAME, "namespace": namespace},
            "spec": {"text": "Hello"},
        }
        self._run(self._client.create(document))

    def message(self, namespace: str) -> dict[str, Any]:
        """Return the message."""
        return self._run(self._client.get(KIND, NAME, namespace)).to_dict()

    def status(self, namespace: str) -> dict[str, Any]:
        """Return the status of the message."""
        return self.message(namespace).get("status") or {}

    def wait(self, namespace: str, until: Callable[[dict[str, Any]], bool]) -> None:
        """Wait until the status of the message fulfills a condition."""

        def holds(obj: Any) -> bool:
            return until(obj.to_dict().get("status") or {})

        self._run(self._client.wait_for(KIND, NAME, namespace, until=holds, timeout=60))

    def report(self, namespace: str, *more: str) -> None:
        """Print the number of status writes, and further facts."""
        writes = self.status_writes(namespace)
        count = f"{writes} status write{'' if writes == 1 else 's'}"
        print(f"{namespace + ':':8}{', '.join([count, *more])}", flush=True)

    def status_writes(self, namespace: str) -> int:
        """Return the number of status writes."""
        return len(self._server.requests(verb=("patch", "update"), namespace=namespace, subresource="status"))

    def other_writes(self, namespace: str) -> int:
        """Return the number of writes to the rest of the object."""
        return len(self._server.requests(verb=("patch", "update"), namespace=namespace, subresource=""))

    def close(self, stop: asyncio.Event) -> None:
        """Stop the server."""
        self._loop.call_soon_threadsafe(stop.set)

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Run a cluster during the block, with ``KUBECONFIG`` pointing to it."""
    ready: Future[Cluster] = Future()
    stop = asyncio.Event()

    async def serve(path: Path) -> None:
        async with APIServer() as server:
            await server.listen()
            await server.apply(Message)
            server.write_kubeconfig(path)
            ready.set_result(Cluster(server, asyncio.get_running_loop(), str(path)))
            await stop.wait()

    with tempfile.TemporaryDirectory() as directory, ThreadPoolExecutor(1) as thread:
        path = Path(directory) / "kubeconfig"
        serving = thread.submit(asyncio.run, serve(path))
        serving.add_done_callback(lambda done: ready.done() or ready.set_exception(done.exception() or SystemExit()))
        demo = ready.result(60)
        os.environ["KUBECONFIG"] = str(path)
        try:
            yield demo
        finally:
            demo.close(stop)


def wait_for_kill() -> None:
    """Wait until the parent process kills this process or lets it continue."""
    print("worked", flush=True)
    sys.stdin.readline()


def run_and_kill(script: str, *arguments: str) -> None:
    """Run a script and kill it (SIGKILL) when it has reached `wait_for_kill`."""
    with subprocess.Popen(
        [sys.executable, script, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdout is not None
        line = worker.stdout.readline()
        worker.kill()
    if line != "worked\n":
        raise RuntimeError(f"{script} ended before it reached wait_for_kill()")


def run(script: str, *arguments: str) -> None:
    """Run a script to its end."""
    subprocess.run([sys.executable, script, *arguments], input="\n", stdout=subprocess.DEVNULL, text=True, check=True)
