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
import random
import resource
import sys
import time
from array import array
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from unittest import mock

import msgspec

from reconciler import Client
from reconciler.cache import Cache, CacheEvent, EventType
from reconciler.http import HTTPRequest, HTTPResponse
from reconciler.meta import GroupVersionKind
from reconciler.meta.metadata import ResourceType
from reconciler.testing import virtual_time
from tests.benchmarks.pods import pod

PODS_PER_NAMESPACE = 1000

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
        return pod(number, f"namespace-{number // PODS_PER_NAMESPACE:04}", self._versions[number])

    def _page(self, query: dict[str, str]) -> bytes:
        if "fieldSelector" in query:
            _, _, name = query["fieldSelector"].rpartition("=")
            numbers = range(int(name[4:8]), len(self._versions), PODS_PER_NAMESPACE)
            found = [self._pod(number) for number in numbers if self._versions[number]]
            return self._list([each for each in found if name in each.decode()], "")
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


class Measured:
    """The CPU of the cache and the memory of the process, printed for each step.

    The transport's callbacks count as well for the longest time that the event loop was held, so it is printed only for
    steps without requests.
    """

    def __init__(self, cluster: GeneratedCluster) -> None:
        self._cluster = cluster
        self._began = self._cpu()
        self._longest = 0.0

    @contextlib.contextmanager
    def watching_the_loop(self) -> Iterator[None]:
        """Measure the CPU of each callback of the event loop."""
        run, watching = asyncio.Handle._run, True

        def measured(handle: asyncio.Handle) -> None:
            began = time.thread_time()
            run(handle)
            if watching:
                self._longest = max(self._longest, time.thread_time() - began)

        with mock.patch.object(asyncio.Handle, "_run", measured):
            yield
        watching = False  # the callback in progress does other things now

    def _cpu(self) -> float:
        return time.process_time() - self._cluster.cpu

    def step(self, what: str, *, seconds: float = 0.0) -> None:
        """Print what a step took; with its virtual seconds, the share of a core."""
        gc.collect()
        cpu, self._began = self._cpu() - self._began, self._cpu()
        share = f", {cpu / seconds:.1%} of a core" if seconds else ""
        if self._longest:
            share, self._longest = f", the loop held for {self._longest * 1000:.1f} ms at most", 0.0
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
        with measured.watching_the_loop():
            handler = informer.add_handler(lambda event: event.object, existing=False)
            await informer.deliver_existing(handler)
        handler.remove()
        measured.step("a new handler over all, in turns")
        informer.resync_every(timedelta(hours=1))
        with measured.watching_the_loop():
            await asyncio.sleep(4500)
        measured.step("a resync of all")


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
