"""Shards in separate processes over sockets: one is killed, one is added, one is stopped, under load."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest

from reconciler.client import Client
from reconciler.errors import APIError
from reconciler.testing import Cluster
from tests.manager.shard_process import KIND, RING
from tests.manager.sharder import Sharder

SCRIPT = Path(__file__).with_name("shard_process.py")
OBJECTS = 60
LONG = 60.0

pytestmark = pytest.mark.timeout(240)


class Line(NamedTuple):
    at: float
    shard: str
    what: str
    name: str


class Processes:
    """The processes of shards, and the files that they write."""

    def __init__(self, cluster: Cluster, directory: Path) -> None:
        self.cluster = cluster
        self.file = directory / "log"
        self.kubeconfig = directory / "kubeconfig"
        cluster.server.write_kubeconfig(self.kubeconfig)
        self.running: dict[str, asyncio.subprocess.Process] = {}

    async def start(self, shard: str) -> None:
        self.running[shard] = await asyncio.create_subprocess_exec(
            sys.executable,
            str(SCRIPT),
            str(self.kubeconfig),
            self.cluster.namespace,
            shard,
            str(self.file),
            cwd=SCRIPT.parents[2],
            env={"PYTHONPATH": str(SCRIPT.parents[2])},
        )

    async def end(self, shard: str, number: signal.Signals) -> int:
        process = self.running.pop(shard)
        process.send_signal(number)
        async with asyncio.timeout(LONG):
            return await process.wait()

    def lines(self) -> list[Line]:
        if not self.file.exists():
            return []
        found = [line.split() for line in self.file.read_text().splitlines()]
        return sorted(Line(float(at), shard, what, name) for at, shard, what, name in found)

    async def all_reconciled_by(self, shards: set[str], names: set[str]) -> None:
        """Wait until each object is reconciled again, only by these shards, and by each shard at least once."""
        since = time.monotonic()
        async with asyncio.timeout(LONG):
            while True:
                await asyncio.sleep(0.5)
                ended = [line for line in self.lines() if line.at > since and line.what == "end"]
                by = {line.name: line.shard for line in ended}
                if set(by) == names and set(by.values()) == shards:
                    return


@contextlib.asynccontextmanager
async def processes(cluster: Cluster, directory: Path) -> AsyncIterator[Processes]:
    found = Processes(cluster, directory)
    try:
        yield found
    finally:
        for process in found.running.values():
            process.kill()
            await process.wait()


def overlaps(lines: list[Line], killed: str, at: float) -> list[tuple[Line, Line]]:
    """Return pairs of reconciles of one key where the second started before the first ended.

    The reconciles of a killed process ended when it was killed.
    """
    found = []
    by_name = sorted(lines, key=lambda line: line.name)
    for _, of_one in itertools.groupby(by_name, key=lambda line: line.name):
        in_progress: dict[str, Line] = {}
        for line in of_one:
            if line.what == "end":
                in_progress.pop(line.shard, None)
                continue
            if line.at > at:
                in_progress.pop(killed, None)
            found += [(other, line) for other in in_progress.values()]
            in_progress[line.shard] = line
    return found


async def load(client: Client, namespace: str) -> None:
    """Change objects continuously."""
    for number in itertools.count():
        with contextlib.suppress(APIError):
            name = f"map-{number % OBJECTS}"
            await client.patch(KIND, name, namespace, patch={"data": {"n": str(number)}})
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("expected", [[], [(0.2, 0.3)]])
def test_overlaps_are_detected(expected: list[tuple[float, float]]) -> None:
    lines = [Line(0.1, "one", "begin", "a"), Line(0.15, "one", "end", "a"), Line(0.2, "two", "begin", "a")]
    lines += [Line(at, "one", "begin", "a") for _, at in expected]
    assert [(first.at, second.at) for first, second in overlaps(lines, "killed", 0)] == expected


async def test_killing_and_adding_shards_under_load_leaves_each_key_to_exactly_one_shard(
    cluster: Cluster, tmp_path: Path
) -> None:
    names = {f"map-{number}" for number in range(OBJECTS)}
    namespace, client = cluster.namespace, cluster.client
    for name in names:
        await client.create(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}}
        )
    async with Sharder(client, RING, KIND, namespace).running() as sharder, processes(cluster, tmp_path) as shards:
        loading = asyncio.create_task(load(client, namespace))
        for shard in ("one", "two", "three"):
            await shards.start(shard)
        # A real cluster has a ConfigMap of its own in each namespace; the sharder assigns it as well.
        names |= {each.name for each in await client.list(KIND, namespace)}
        await shards.all_reconciled_by({"one", "two", "three"}, names)

        assert await shards.end("two", signal.SIGKILL) == -signal.SIGKILL
        killed_at = time.monotonic()
        await shards.all_reconciled_by({"one", "three"}, names)
        forced = sharder.forced
        assert forced > 0

        await shards.start("four")
        await shards.all_reconciled_by({"one", "three", "four"}, names)
        assert sharder.drained > 0
        assert sharder.forced == forced, "from living shards objects are drained"

        assert await shards.end("one", signal.SIGTERM) == 0
        await shards.all_reconciled_by({"three", "four"}, names)
        loading.cancel()
        await asyncio.wait({loading})

        lines = shards.lines()
        assert overlaps(lines, "two", killed_at) == []
        print(f"{len(lines)} lines, {sharder.drained} drained, {sharder.forced} moved by force")  # noqa: T201 - for -s
        # The last write of each object is that of its shard.
        await asyncio.sleep(1)
        for each in await client.list(KIND, namespace):
            document = each.to_dict()
            assert document["data"]["by"] == document["metadata"]["labels"][sharder.shard_label]
