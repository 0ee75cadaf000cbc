"""A real control plane with objects in it, which also counts what was written."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import re
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from reconciler.client import Client
from reconciler.testing.cluster import Cluster
from reconciler.testing.control_plane import ControlPlane
from tests.benchmarks.contenders.widget import Widget, widget
from tests.benchmarks.processes import cpu

FLAGS = ["--audit-log-path="]  # an audit log would double the cost of every request
"""Flags of kube-apiserver; the command line adds others."""

_SEEDERS = 16
_BATCH = 128  # etcd's default limit of a transaction
_COUNTED = re.compile(r"^apiserver_request_total\{(.*)\} (\S+)$", re.MULTILINE)


class Server:
    """A control plane of its own, without an audit log."""

    def __init__(self, plane: ControlPlane, client: Client) -> None:
        self.plane = plane
        self.client = client
        self._namespaces = 0

    async def namespace(self, name: str) -> str:
        """Make a namespace."""
        await self.client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        return name

    async def seed(self, namespace: str, count: int, make: Callable[[int, str], dict[str, Any]] = widget) -> None:
        """Make a namespace with objects in it."""
        await self.namespace(namespace)
        numbers = iter(range(count))

        async def work() -> None:
            for number in numbers:
                await self.client.create(make(number, namespace))

        await asyncio.gather(*(work() for _ in range(_SEEDERS)))

    async def fill(self, path: str, objects: Iterable[tuple[str, bytes]]) -> None:
        """Store objects in etcd, where kube-apiserver finds them: a hundred thousand in half a minute.

        Args:
            path: where objects of the kind are, such as ``"pods/default"``.
            objects: name and JSON of each one, as the server would have stored it.
        """
        assert self.plane._running is not None
        url = f"{self.plane._running._etcd_url}/v3/kv/txn"
        puts = (
            {"requestPut": {"key": _base64(f"/registry/{path}/{name}".encode()), "value": _base64(document)}}
            for name, document in objects
        )
        while batch := list(itertools.islice(puts, _BATCH)):
            request = urllib.request.Request(url, json.dumps({"success": batch}).encode())
            with await asyncio.to_thread(urllib.request.urlopen, request):
                pass

    async def writes(self, plural: str = "widgets") -> dict[str, int]:
        """Return how many writes of a kind the server has executed, by verb and subresource."""
        answer = await self.client.session.connection.once(self.client.session.connection.request("GET", "/metrics"))
        found: dict[str, int] = {}
        for labels, value in _COUNTED.findall(answer.body.decode()):
            named = dict(re.findall(r'(\w+)="([^"]*)"', labels))
            if named["resource"] == plural and named["verb"] in ("PATCH", "PUT", "APPLY") and named["code"] == "200":
                key = "status" if named["subresource"] == "status" else "main"
                found[key] = found.get(key, 0) + int(float(value))
        return found

    def cpu(self) -> float:
        """Return the CPU seconds that kube-apiserver and etcd have used together."""
        running = self.plane._running
        assert running is not None
        return sum(cpu(process._popen.pid) for process in running._processes)


def _base64(text: bytes) -> str:
    return base64.b64encode(text).decode()


@contextlib.asynccontextmanager
async def server() -> AsyncIterator[Server]:
    """Start a control plane that serves widgets."""
    plane = ControlPlane(apiserver_flags=FLAGS, start_timeout=300)
    async with plane, plane.client() as client:
        await Cluster("real", client, "default", plane).install(Widget)
        yield Server(plane, client)
