"""Requests per second that the embedded API server answers over sockets on one core.

The server runs in a process of its own on one core, the client on another. The client writes ready-made requests to a
few keep-alive connections and only counts answers, so that it is not the limit. Two rates are printed: by the wall
clock, which the machine's other work disturbs, and per second of the server's own CPU time. The ratios at the end
compare phases of one run: they show if a request costs more with many objects, or after many requests.
With ``--watchers``, that many watches are open during the whole run, which then ends with a deletecollection; the
server's memory is printed, and how many events each watch received.

    python tests/benchmarks/apiserver_rate.py [--quick] [--uvloop] [--watchers 50]
"""

# ruff: noqa: T201 - a script that prints its findings

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

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
        loop = asyncio.get_running_loop()
        # A line on standard input asks for the CPU time used so far and the memory; its end asks to stop.
        while await loop.run_in_executor(None, sys.stdin.readline):
            pages = int(Path("/proc/self/statm").read_text().split()[1])  # noqa: ASYNC240 - not a disk
            print(time.process_time(), pages * os.sysconf("SC_PAGE_SIZE") / 1e6, flush=True)


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
            at = lower.find(b"content-length:")
            end = lower.find(b"\r\n", at)
            length = int(lower[at + 15 : end if end >= 0 else None])
            if len(self._buffer) < head + 4 + length:
                break
            self._counted(int(self._buffer[9:12]))
            self._buffer = self._buffer[head + 4 + length :]
            answered += 1
        if answered:
            self._open -= answered
            self._send(answered)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the server closed the connection"))


class _Watcher(asyncio.Protocol):
    """A watch that counts its events, and notices its end."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self.events = 0
        self.ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self.events += data.count(b'{"type":')
        self.ended |= b'{"type":"ERROR"' in data or data.endswith(b"0\r\n\r\n")

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = True


class Bench:
    """A client of one server process."""

    def __init__(self, *, uvloop: bool) -> None:
        command = [sys.executable, __file__, "--serve", *(["--uvloop"] if uvloop else [])]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) > 1:
            os.sched_setaffinity(self._process.pid, {cores[0]})
            os.sched_setaffinity(0, set(cores[1:]))
        assert self._process.stdout is not None
        found = json.loads(self._process.stdout.readline())
        self.host, _, port = found["url"].removeprefix("http://").rpartition(":")
        self.port = int(port)
        self._token = found["token"]

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(20)

    def _cpu(self) -> float:
        return self._usage()[0]

    def megabytes(self) -> float:
        """Return the resident memory of the server in megabytes."""
        return self._usage()[1]

    def _usage(self) -> tuple[float, float]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        cpu, memory = map(float, self._process.stdout.readline().split())
        return cpu, memory

    def request(self, method: str, path: str, body: Any = None, content: str = "application/json") -> bytes:
        """Return the bytes of one request."""
        payload = b"" if body is None else json.dumps(body).encode()
        lines = [
            f"{method} {path} HTTP/1.1",
            f"Host: {self.host}:{self.port}",
            f"Authorization: Bearer {self._token}",
            "User-Agent: bench/1",
            "Accept: application/json",
        ]
        if payload:
            lines += [f"Content-Type: {content}", f"Content-Length: {len(payload)}"]
        return "\r\n".join([*lines, "", ""]).encode() + payload

    async def measure(self, name: str, requests: list[bytes], *, expected: int) -> Measured:
        """Send all requests and return how fast they were answered."""
        codes: list[int] = []
        shared = iter(requests)
        loop = asyncio.get_running_loop()
        cpu, wall = self._cpu(), time.perf_counter()
        opened = [
            await loop.create_connection(lambda: _Connection(shared, codes.append), self.host, self.port)
            for _ in range(CONNECTIONS)
        ]
        await asyncio.gather(*(protocol.done for _, protocol in opened))
        wall, cpu = time.perf_counter() - wall, self._cpu() - cpu
        wrong = {code for code in codes if code != expected}
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


async def _run_watched(bench: Bench, *, size: int, many: int, watchers: int) -> list[Measured]:
    loop = asyncio.get_running_loop()
    request = bench.request("GET", f"{GROUP}?watch=1&timeoutSeconds=3600")
    opened = [
        (await loop.create_connection(lambda: _Watcher(request), bench.host, bench.port))[1] for _ in range(watchers)
    ]

    async def followed(events: int) -> None:
        while any(each.events < events and not each.ended for each in opened):  # noqa: ASYNC110 - counted in a protocol
            await asyncio.sleep(0.05)
        ended = sum(each.ended for each in opened)
        print(f"{events} events: {watchers - ended} of {watchers} watches are open, {bench.megabytes():.0f} MB")

    print(f"at the start: {bench.megabytes():.0f} MB")
    creates = [bench.request("POST", GROUP, _object(f"db{number}")) for number in range(many)]
    found = [await bench.measure(f"create {many}, {watchers} watches", creates, expected=201)]
    await followed(many)
    gets = [bench.request("GET", f"{GROUP}/db{number % many}") for number in range(size)]
    found.append(await bench.measure("get, many objects", gets, expected=200))
    began = time.perf_counter()
    await bench.measure("deletecollection", [bench.request("DELETE", GROUP)], expected=200)
    await followed(2 * many)
    print(f"deletecollection of {many}: {time.perf_counter() - began:.1f} s")
    return found


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
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        if options.uvloop:
            import uvloop

            uvloop.run(_serve())
        else:
            asyncio.run(_serve())
        return
    bench = Bench(uvloop=options.uvloop)
    try:
        size, many, past = (500, 2_000, 5_000) if options.quick else (5_000, 20_000, 50_000)
        if options.watchers:
            found = asyncio.run(_run_watched(bench, size=size, many=many, watchers=options.watchers))
        else:
            found = asyncio.run(_run(bench, size=size, many=many, past=past))
    finally:
        bench.close()
    compared = {} if options.watchers else ratios(found)
    for measured in found:
        print(f"{measured.name:34} {measured.requests:7} {measured.wall:8.0f}/s {measured.cpu:8.0f}/CPU s")
    for name, ratio in compared.items():
        print(f"{name:44} x {ratio:.2f}")
    print(json.dumps({"phases": [asdict(measured) for measured in found], "ratios": compared}))


if __name__ == "__main__":
    main()
