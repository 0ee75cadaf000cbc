"""Requests per second that the embedded API server answers over sockets on one core.

The server runs in a process of its own on one core, the client on another. The client writes ready-made requests to a
few keep-alive connections and only counts answers, so that it is not the limit. Two rates are printed: by the wall
clock, which the machine's other work disturbs, and per second of the server's own CPU time. The ratios at the end
compare phases of one run: they show if a request costs more with many objects, or after many requests.
With ``--watchers``, that many watches are open during the whole run, which then ends with a deletecollection, and a
table has the rates and the memory. ``--control-plane`` adds a real kube-apiserver to it, which runs on the same machine
after the embedded server, over TLS; its CPU time and memory include those of its etcd.

    python -m tests.benchmarks.apiserver_rate [--quick] [--uvloop] [--watchers 50 [--control-plane]]
"""

# ruff: noqa: T201 - a script that prints its findings

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reconciler.errors import NotFound

if TYPE_CHECKING:
    from reconciler.testing.control_plane import ControlPlane

CONNECTIONS = 16
"""Each has one request under way, as clients do; there is no pipelining."""

GROUP = "/apis/bench.example.com/v1/namespaces/default/databases"
CRD: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "databases.bench.example.com"},
    "spec": {
        "group": "bench.example.com",
        "scope": "Namespaced",
        "names": {"kind": "Database", "plural": "databases"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "properties": {"size": {"type": "integer", "minimum": 1}, "engine": {"type": "string"}},
                            },
                            "status": {
                                "type": "object",
                                "properties": {"phase": {"type": "string"}, "count": {"type": "integer"}},
                            },
                        },
                    }
                },
            }
        ],
    },
}


@dataclass(frozen=True, slots=True)
class Measured:
    """The results of one phase.

    Attributes:
        name: what was asked.
        requests: how many.
        wall: requests a second by the clock.
        cpu: requests for each second of the server's CPU time.
    """

    name: str
    requests: int
    wall: float
    cpu: float


# the server's process


async def _serve() -> None:
    from reconciler.apiserver import APIServer

    async with APIServer() as server:
        await server.apply(CRD)
        print(json.dumps({"url": server.url, "token": server.token}), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # its end asks to stop


# the client's process


class _Connection(asyncio.Protocol):
    """A connection with pipelined requests; answers are counted by their Content-Length."""

    def __init__(self, requests: Iterator[bytes], counted: Callable[[int], None]) -> None:
        self._requests = requests
        self._counted = counted
        self._buffer = b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._open = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send(1)

    def _send(self, count: int) -> None:
        batch = list(itertools.islice(self._requests, count))
        self._open += len(batch)
        if batch:
            self._transport.write(b"".join(batch))
        elif not self._open and not self.done.done():
            self._transport.close()
            self.done.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        answered = 0
        while True:
            head = self._buffer.find(b"\r\n\r\n")
            if head < 0:
                break
            lower = self._buffer[:head].lower()
            if b"transfer-encoding: chunked" in lower:
                last = self._buffer.find(b"\r\n0\r\n\r\n", head + 4)
                end = len(self._buffer) + 1 if last < 0 else last + 7
            else:
                end = head + 4 + int(lower.partition(b"content-length:")[2].partition(b"\r\n")[0])
            if len(self._buffer) < end:
                break
            self._counted(int(self._buffer[9:12]))
            self._buffer = self._buffer[end:]
            answered += 1
        if answered:
            self._open -= answered
            self._send(answered)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the server closed the connection"))


_EVENT = b'{"type":'


class _Watcher(asyncio.Protocol):
    """A watch that counts its events, and notices its end."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._rest = b""
        self.events = 0
        self.ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        self.events += data.count(_EVENT)
        self._rest = data[1 - len(_EVENT) :]  # shorter than what begins an event
        self.ended |= b'{"type":"ERROR"' in data or data.endswith(b"\r\n0\r\n\r\n")

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = True


@dataclass(frozen=True, slots=True)
class Target:
    """A server to ask.

    Attributes:
        url: its URL.
        token: a bearer token.
        processes: the ids of its processes.
    """

    url: str
    token: str
    processes: tuple[int, ...]


@contextlib.contextmanager
def embedded(*, uvloop: bool) -> Iterator[Target]:
    """Yield an embedded server in a process of its own, on one core; this process uses the others."""
    command = [sys.executable, __file__, "--serve", *(["--uvloop"] if uvloop else [])]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    cores = sorted(os.sched_getaffinity(0))
    try:
        if len(cores) > 1:
            os.sched_setaffinity(process.pid, {cores[0]})
            os.sched_setaffinity(0, set(cores[1:]))
        assert process.stdin is not None
        assert process.stdout is not None
        found = json.loads(process.stdout.readline())
        yield Target(found["url"], found["token"], (process.pid,))
    finally:
        process.communicate(timeout=60)
        os.sched_setaffinity(0, set(cores))


@contextlib.contextmanager
def real() -> Iterator[Target]:
    """Yield a real server with its etcd, which may use all cores."""
    from reconciler.testing.control_plane import ControlPlane

    with ControlPlane(start_timeout=120) as plane:
        asyncio.run(_define(plane))
        token = plane.kubeconfig()["users"][0]["user"]["token"]
        yield Target(plane.url, token, (plane.pid("kube-apiserver"), plane.pid("etcd")))


async def _define(plane: ControlPlane) -> None:
    async with plane.client() as client:
        await client.create(CRD)
        name = CRD["metadata"]["name"]
        established = "apiextensions.k8s.io/v1/CustomResourceDefinition"
        await client.wait_for(
            established, name, until=lambda found: "conditions" in found.get("status", {}), timeout=60
        )
        while True:  # served a moment later
            with contextlib.suppress(NotFound):
                await client.list("bench.example.com/v1/Database", namespace="default")
                return
            await asyncio.sleep(0.1)


class Bench:
    """A client of one server."""

    def __init__(self, target: Target) -> None:
        self._target = target
        scheme, _, address = target.url.partition("://")
        self.host, _, port = address.rpartition(":")
        self.port = int(port)
        self.context = ssl._create_unverified_context() if scheme == "https" else None

    def _cpu(self) -> float:
        stats = (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in self._target.processes)
        return sum(int(each[11]) + int(each[12]) for each in stats) / os.sysconf("SC_CLK_TCK")

    def megabytes(self) -> float:
        """Return the resident memory of the server in megabytes."""
        pages = (int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in self._target.processes)
        return sum(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6

    def request(self, method: str, path: str, body: Any = None, content: str = "application/json") -> bytes:
        """Return the bytes of one request."""
        payload = b"" if body is None else json.dumps(body).encode()
        lines = [
            f"{method} {path} HTTP/1.1",
            f"Host: {self.host}:{self.port}",
            f"Authorization: Bearer {self._target.token}",
            "User-Agent: bench/1",
            "Accept: application/json",
        ]
        if payload:
            lines += [f"Content-Type: {content}", f"Content-Length: {len(payload)}"]
        return "\r\n".join([*lines, "", ""]).encode() + payload

    async def measure(self, name: str, requests: list[bytes], *, expected: int | None) -> Measured:
        """Send all requests and return how fast they were answered, with the status that is expected of each."""
        codes: list[int] = []
        shared = iter(requests)
        loop = asyncio.get_running_loop()
        cpu, wall = self._cpu(), time.perf_counter()
        opened = [
            await loop.create_connection(
                lambda: _Connection(shared, codes.append), self.host, self.port, ssl=self.context
            )
            for _ in range(CONNECTIONS)
        ]
        await asyncio.gather(*(protocol.done for _, protocol in opened))
        wall, cpu = time.perf_counter() - wall, self._cpu() - cpu
        wrong = {code for code in codes if code != expected} if expected is not None else ()
        assert not wrong, f"{name}: answers {wrong}"
        return Measured(name, len(codes), len(codes) / wall, len(codes) / cpu)


def _object(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "bench.example.com/v1",
        "kind": "Database",
        "metadata": {"name": name, "labels": {"app": "bench", "team": "red"}},
        "spec": {"size": 3, "engine": "postgres"},
    }


async def _run(bench: Bench, *, size: int, many: int, past: int) -> list[Measured]:
    found: list[Measured] = []

    async def phase(name: str, requests: list[bytes], expected: int = 200) -> None:
        found.append(await bench.measure(name, requests, expected=expected))

    numbers = itertools.count()

    def creates(count: int) -> list[bytes]:
        return [bench.request("POST", GROUP, _object(f"db{next(numbers)}")) for _ in range(count)]

    def gets(count: int) -> list[bytes]:
        return [bench.request("GET", f"{GROUP}/db{index % 100}") for index in range(count)]

    def patches(count: int) -> list[bytes]:
        merge = "application/merge-patch+json"
        return [
            bench.request("PATCH", f"{GROUP}/db{index % 100}/status", {"status": {"count": next(numbers)}}, merge)
            for index in range(count)
        ]

    await phase("create, up to 100 objects", creates(100), 201)
    await phase("get, first", gets(size))
    await phase("status patch, first", patches(size))
    await phase(f"create, {many} more", creates(many), 201)
    await phase("create, last", creates(size), 201)
    await phase("get, many objects", gets(size))
    await phase("status patch, many objects", patches(size))
    await phase(f"get, {past} requests", gets(past))
    await phase("get, last", gets(size))
    await phase("status patch, last", patches(size))
    return found


@dataclass(frozen=True, slots=True)
class Watched:
    """The results of a run with watches.

    Attributes:
        phases: the rates of creates and gets.
        memory: megabytes at the start, with all objects, and at the end.
        open: how many watches were still open at the end.
        deletion: seconds until the watches had the events of a deletecollection.
    """

    phases: list[Measured]
    memory: list[float]
    open: int
    deletion: float


async def _run_watched(bench: Bench, *, size: int, many: int, watchers: int) -> Watched:
    loop = asyncio.get_running_loop()
    request = bench.request("GET", f"{GROUP}?watch=1&timeoutSeconds=3600")
    opened = [
        (await loop.create_connection(lambda: _Watcher(request), bench.host, bench.port, ssl=bench.context))[1]
        for _ in range(watchers)
    ]

    async def followed(events: int) -> None:
        while any(each.events < events and not each.ended for each in opened):  # noqa: ASYNC110 - counted in a protocol
            await asyncio.sleep(0.05)
        memory.append(bench.megabytes())

    memory = [bench.megabytes()]
    creates = [bench.request("POST", GROUP, _object(f"db{number}")) for number in range(many)]
    found = [await bench.measure(f"create {many}", creates, expected=201)]
    await followed(many)
    gets = [bench.request("GET", f"{GROUP}/db{number % many}") for number in range(size)]
    found.append(await bench.measure(f"get, of {many}", gets, expected=200))
    began = time.perf_counter()
    while any(each.events < 2 * many and not each.ended for each in opened):
        # A real server gives up after a minute, with a part of the objects deleted.
        await bench.measure("deletecollection", [bench.request("DELETE", GROUP)], expected=None)
        await asyncio.sleep(1)
    await followed(2 * many)
    return Watched(found, memory, sum(not each.ended for each in opened), time.perf_counter() - began)


def _print_watched(results: dict[str, Watched], watchers: int) -> None:
    def row(name: str, *cells: str) -> None:
        print(f"{name:44}" + "".join(f"{cell:>20}" for cell in cells))

    found = list(results.values())
    row(f"with {watchers} watches", *results)
    for index, phase in enumerate(found[0].phases):
        row(f"{phase.name}, a second", *(f"{each.phases[index].wall:,.0f}" for each in found))
        row(f"{phase.name}, a second of CPU", *(f"{each.phases[index].cpu:,.0f}" for each in found))
    for index, name in enumerate(("at the start", "with all objects", "at the end")):
        row(f"memory {name}, MB", *(f"{each.memory[index]:,.0f}" for each in found))
    row("deletecollection until all watches have it, s", *(f"{each.deletion:,.1f}" for each in found))
    row("watches open at the end", *(str(each.open) for each in found))


def ratios(found: list[Measured]) -> dict[str, float]:
    """Return how much slower the later phases are, by the server's CPU time; 1 is no slower."""
    cpu = {measured.name: measured.cpu for measured in found}
    return {
        "get: many objects to 100": cpu["get, first"] / cpu["get, many objects"],
        "status patch: many objects to 100": cpu["status patch, first"] / cpu["status patch, many objects"],
        "get: after many requests": cpu["get, many objects"] / cpu["get, last"],
        "status patch: after many requests": cpu["status patch, many objects"] / cpu["status patch, last"],
    }


def main() -> None:
    """Print a table, then the same as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="a tenth of the requests")
    parser.add_argument("--uvloop", action="store_true", help="the server's event loop is uvloop's")
    parser.add_argument("--watchers", type=int, default=0, help="how many watches are open; 0 by default")
    parser.add_argument("--control-plane", dest="real", action="store_true", help="with --watchers: a real one, too")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        if options.uvloop:
            import uvloop

            uvloop.run(_serve())
        else:
            asyncio.run(_serve())
        return
    size, many, past = (500, 2_000, 5_000) if options.quick else (5_000, 20_000, 50_000)
    if options.watchers:
        servers = {"embedded": embedded(uvloop=options.uvloop)} | ({"kube-apiserver": real()} if options.real else {})
        results = {}
        for name, server in servers.items():
            with server as target:
                run = _run_watched(Bench(target), size=size, many=many, watchers=options.watchers)
                results[name] = asyncio.run(run)
        _print_watched(results, options.watchers)
        print(json.dumps({name: asdict(each) for name, each in results.items()}))
        return
    with embedded(uvloop=options.uvloop) as target:
        found = asyncio.run(_run(Bench(target), size=size, many=many, past=past))
    compared = ratios(found)
    for measured in found:
        print(f"{measured.name:34} {measured.requests:7} {measured.wall:8.0f}/s {measured.cpu:8.0f}/CPU s")
    for name, ratio in compared.items():
        print(f"{name:44} x {ratio:.2f}")
    print(json.dumps({"phases": [asdict(measured) for measured in found], "ratios": compared}))


if __name__ == "__main__":
    main()
