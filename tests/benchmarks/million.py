"""A million objects in one process: the memory and the CPU of a cache of a generated cluster.

``python -m tests.benchmarks.million`` prints the figures. A transport in the same process generates the pages and the
events of pods of 3.2 KB, since no API server with a million objects fits a small machine. Its CPU is measured and
subtracted. Time is virtual.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import random
import resource
import sys
import time
import uuid
from array import array
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec

from reconciler import Client
from reconciler.cache import Cache, CacheEvent, EventType
from reconciler.http import HTTPRequest, HTTPResponse
from reconciler.meta import GroupVersionKind
from reconciler.meta.metadata import ResourceType
from reconciler.testing import virtual_time

PODS_PER_NAMESPACE = 1000

PODS_PER_OWNER = 10

POD = json.dumps(json.loads(Path(__file__).with_name("pod.json").read_text()), separators=(",", ":"))
"""The document of a pod, with a place for each text that is its own."""


PODS = ResourceType(GroupVersionKind("", "v1", "Pod"), "pods", namespaced=True)


class GeneratedCluster:
    """A transport to a cluster of pods that exist only as numbers and versions.

    Attributes:
        cpu: seconds of CPU that it took to generate what was sent.
        bytes: length of the pages that were sent.
    """

    def __init__(self, count: int) -> None:
        self.cpu = 0.0
        self.bytes = 0
        self.version = count + 1
        self._versions = array("Q", range(1, count + 1))  # 0 for a pod that is deleted
        self._lines: asyncio.Queue[bytes] = asyncio.Queue()
        self._rng = random.Random(7)

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        """Answer a list, a watch, or the question for the server's version."""
        query = dict(request.query)
        if request.path == "/version":
            return HTTPResponse(200, body=b'{"major":"1","minor":"36","gitVersion":"v1.36.0"}')
        if request.stream:
            self._lines = asyncio.Queue()
            return HTTPResponse(200, chunks=self._chunks())
        with self._generating():
            body = self._page(query)
        self.bytes += len(body)
        return HTTPResponse(200, body=body)

    def change(self, count: int) -> None:
        """Send events of random pods."""
        with self._generating():
            lines = [self._changed(self._rng.randrange(len(self._versions))) for _ in range(count)]
        self._lines.put_nowait(b"".join(lines))

    def change_unseen(self, changes: int, deletions: int) -> None:
        """Change and delete random pods without events; the versions before are no longer known."""
        numbers = self._rng.sample(range(len(self._versions)), changes + deletions)
        for number in numbers[:changes]:
            self._changed(number)
        for number in numbers[changes:]:
            self._versions[number] = 0

    def cut(self, *, expired: bool = False) -> None:
        """End the watch; if it is expired, with an error that requires a list."""
        if expired:
            gone = {"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old"}
            self._lines.put_nowait(msgspec.json.encode({"type": "ERROR", "object": gone}) + b"\n")
        self._lines.put_nowait(b"")

    def _changed(self, number: int) -> bytes:
        self.version += 1
        self._versions[number] = self.version
        return b'{"type":"MODIFIED","object":%b}\n' % self._pod(number)

    def _pod(self, number: int) -> bytes:
        version, owner = self._versions[number], number // PODS_PER_OWNER
        own, shared = random.Random(number), random.Random(-owner)
        namespace = f"namespace-{number // PODS_PER_NAMESPACE:04}"
        name = f"app-{number % PODS_PER_NAMESPACE:04}-{_text(shared, 10)}-{_text(own, 5)}"
        container, times = _text(own, 64), [f"{own.randrange(60):02}" for _ in range(9)]
        address = (own.randrange(256), own.randrange(256))
        sums = (_text(shared, 64), _text(own, 64))
        metadata = (name, namespace, _uid(own), version, times[8], *sums, container, *address, _uid(shared))
        spec = (_text(own, 5), _text(own, 3))
        status = (*times[:4], own.randrange(256), *address, *times[4:8], _text(shared, 64), container)
        return (POD % (*metadata, *spec, *status)).encode()

    def _page(self, query: dict[str, str]) -> bytes:
        if "fieldSelector" in query:
            _, _, name = query["fieldSelector"].rpartition("=")
            found = [
                each for each in range(int(name[4:8]), len(self._versions), PODS_PER_NAMESPACE) if self._versions[each]
            ]
            items = [pod for each in found if name in (pod := self._pod(each)).decode()]
            return self._list(items, "")
        begin = int(query.get("continue", "0"))
        end = min(begin + int(query["limit"]), len(self._versions))
        items = [self._pod(number) for number in range(begin, end) if self._versions[number]]
        return self._list(items, str(end) if end < len(self._versions) else "")

    def _list(self, items: list[bytes], token: str) -> bytes:
        metadata = f'{{"resourceVersion":"{self.version}","continue":"{token}"}}'.encode()
        return b'{"kind":"PodList","apiVersion":"v1","metadata":%b,"items":[%b]}' % (metadata, b",".join(items))

    async def _chunks(self) -> AsyncIterator[bytes]:
        lines = self._lines
        while True:
            try:
                async with asyncio.timeout(60):
                    chunk = await lines.get()
            except TimeoutError:
                if not lines.empty():
                    continue  # a bookmark must not overtake them
                mark = {"kind": "Pod", "apiVersion": "v1", "metadata": {"resourceVersion": str(self.version)}}
                chunk = msgspec.json.encode({"type": "BOOKMARK", "object": mark}) + b"\n"
            if not chunk:
                return
            yield chunk

    @contextlib.contextmanager
    def _generating(self) -> Iterator[None]:
        began = time.process_time()
        yield
        self.cpu += time.process_time() - began


def _text(rng: random.Random, length: int) -> str:
    return f"{rng.getrandbits(4 * length):0{length}x}"


def _uid(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128)))


class Measured:
    """The CPU of the cache and the memory of the process, printed for each step."""

    def __init__(self, cluster: GeneratedCluster) -> None:
        self._cluster = cluster
        self._began = self._cpu()

    def _cpu(self) -> float:
        return time.process_time() - self._cluster.cpu

    def step(self, what: str, *, seconds: float = 0.0) -> None:
        """Print what a step took; with its virtual seconds, the share of a core."""
        gc.collect()
        cpu, self._began = self._cpu() - self._began, self._cpu()
        share = f", {cpu / seconds:.1%} of a core" if seconds else ""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        say(f"{what:<44} {cpu:8.2f} s of CPU{share}; RSS {rss():5.0f} MB, highest so far {peak:5.0f} MB")


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def rss() -> float:
    """Return the resident memory of the process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


async def measure(count: int, minutes: int) -> None:
    """Print the figures of a cache of so many pods.

    Args:
        count: pods.
        minutes: virtual minutes of events, for the growth.
    """
    cluster = GeneratedCluster(count)
    events: dict[EventType, int] = dict.fromkeys(EventType, 0)

    def on_event(event: CacheEvent) -> None:
        events[event.type] += 1

    async with Client(cluster) as client, Cache(client) as cache:
        measured = Measured(cluster)
        informer = await cache.informer(PODS)
        informer.add_handler(on_event)
        await informer.wait_synced()
        measured.step(f"synced {count:,} pods of {cluster.bytes // count:,} bytes")
        await asyncio.sleep(600)
        measured.step("idle for ten minutes")
        for _ in range(60):
            cluster.change(1000)
            await asyncio.sleep(1)
        measured.step("1,000 events a second for a minute", seconds=60)
        await asyncio.sleep(300)
        measured.step("idle again")
        cluster.cut()
        await asyncio.sleep(5)
        measured.step("the watch is restarted")
        events = dict.fromkeys(EventType, 0)
        cluster.change_unseen(count // 100, 100)
        cluster.cut(expired=True)
        await asyncio.sleep(30)
        measured.step("listed again, 1 % changed, 100 deleted")
        if (events[EventType.UPDATED], events[EventType.DELETED]) != (count // 100, 100):
            raise SystemExit(f"the list delivered other events than its changes: {events}")
        for _ in range(minutes * 60):
            cluster.change(100)
            await asyncio.sleep(1)
        measured.step(f"{minutes} minutes with 100 events a second", seconds=minutes * 60)
        await asyncio.sleep(300)
        measured.step("idle again")


def main() -> None:
    """Measure a million pods, or as many as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=1_000_000)
    parser.add_argument("--minutes", type=int, default=60)
    given = parser.parse_args()
    say(f"RSS before: {rss():.0f} MB")
    with virtual_time():
        asyncio.run(measure(given.objects, given.minutes))


if __name__ == "__main__":
    main()
