"""The operator is killed fifty times at random points and keeps its guarantees about lost and repeated calls.

Real processes of ``reconciler run notification`` over sockets, with channels of a third party that note each call in a
file (`ledger_channels`). The calls in the file are compared with the statuses of the requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from reconciler.notification import NotificationRequest
from reconciler.testing import Cluster

HERE = Path(__file__).parent
KILLS = 50
REQUESTS = 500
CHANNELS = ("one", "two", "three")
GUARANTEES = ("AtLeastOnce", "Bounded", "AtMostOnce")
ATTEMPTS = 3
LONG = 100.0
"""Seconds without progress after which the test fails."""

Key = tuple[str, str]
"""The name of a request and of a channel."""


@dataclass
class Starter:
    """A runner that starts and kills processes of the operator, one after the other."""

    process: asyncio.subprocess.Process
    operator: int | None = None

    async def start(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.write(b"run\n")
        self.operator = await self._number()
        return self.operator

    async def kill(self) -> None:
        assert self.operator is not None
        os.kill(self.operator, signal.SIGKILL)
        ended = await self._number()
        self.operator = None
        assert ended == -signal.SIGKILL, "the operator ended before it was killed"

    async def _number(self) -> int:
        assert self.process.stdout is not None
        async with asyncio.timeout(LONG):
            return int(await self.process.stdout.readline())


def install_channels(directory: Path) -> None:
    """Create a distribution that offers the channels by entry points."""
    metadata = directory / "ledger_channels-1.0.dist-info"
    metadata.mkdir(parents=True)
    (directory / "ledger_channels.py").write_text((HERE / "ledger_channels.py").read_text())
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: ledger-channels\nVersion: 1.0\n")
    points = "".join(f"{name} = ledger_channels:{name}\n" for name in CHANNELS)
    (metadata / "entry_points.txt").write_text(f"[reconciler.channels]\n{points}")


@contextlib.asynccontextmanager
async def started(*command: str, tmp_path: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    path = os.pathsep.join([str(tmp_path / "site"), str(HERE.parents[1])])
    with (tmp_path / "errors").open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *command,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path, "CALLS": str(tmp_path / "calls")},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


@contextlib.asynccontextmanager
async def starting(*options: str, tmp_path: Path) -> AsyncIterator[Starter]:
    async with started(str(HERE / "starter.py"), *options, tmp_path=tmp_path) as process:
        starter = Starter(process)
        try:
            yield starter
        finally:
            if starter.operator is not None:
                await starter.kill()


def spec(number: int) -> dict[str, Any]:
    policy = {"maxAttempts": ATTEMPTS, "initialBackoffSeconds": 1, "maxBackoffSeconds": 1, "jitter": 0}
    return {
        "type": "Simple",
        "subject": "s",
        "body": "b",
        "channels": list(CHANNELS),
        "delivery": GUARANTEES[number % 3],
        "retryPolicy": policy,
    }


def request(number: int, namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": "notify.reconciler.dev/v1alpha1",
        "kind": "NotificationRequest",
        "metadata": {"name": f"n-{number}", "namespace": namespace},
        "spec": spec(number),
    }


def written(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


async def until_it_calls(file: Path) -> None:
    before = size(file)
    async with asyncio.timeout(LONG):
        while size(file) == before:  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.005)


async def all_ended(cluster: Cluster, calls: Path) -> list[dict[str, Any]]:
    """Wait until all requests have ended; fail only if there is no call for `LONG` seconds."""
    async with asyncio.timeout(LONG) as deadline:
        written_before = size(calls)
        while True:
            found = await cluster.client.list(NotificationRequest, cluster.namespace)
            if all(each.status.completion_time is not None for each in found):
                return [each.to_dict() for each in found]
            await asyncio.sleep(0.5)
            if size(calls) > written_before:
                written_before = size(calls)
                deadline.reschedule(asyncio.get_running_loop().time() + LONG)


@pytest.mark.timeout(1800)
async def test_fifty_kills_lose_no_request_and_take_no_channel_over_its_bound(cluster: Cluster, tmp_path: Path) -> None:
    await cluster.install(NotificationRequest)
    cluster.server.write_kubeconfig(tmp_path / "kubeconfig")
    install_channels(tmp_path / "site")
    options = ["run", "notification", "--kubeconfig", "kubeconfig", "--namespace", cluster.namespace, "--workers", "20"]
    rng, calls, killed = random.Random(7), tmp_path / "calls", set[int]()
    numbers = iter(range(REQUESTS))
    async with starting(*options, tmp_path=tmp_path) as starter:
        for life in range(KILLS):
            killed.add(await starter.start())
            for _ in range(REQUESTS // KILLS):
                await cluster.client.create(request(next(numbers), cluster.namespace))
            if life % 5:
                await until_it_calls(calls)
            await asyncio.sleep(rng.uniform(0, 0.2))
            await starter.kill()
    command = "from reconciler.cli import main; main()"
    async with started("-c", command, *options, tmp_path=tmp_path) as last:
        found = await all_ended(cluster, calls)
        last.terminate()
        assert await last.wait() == 0
    judge(found, written(calls), killed)


def judge(found: list[dict[str, Any]], ledger: list[dict[str, Any]], killed: set[int]) -> None:
    """Compare the statuses with the recorded calls."""
    assert len(found) == REQUESTS
    called: dict[Key, list[dict[str, Any]]] = defaultdict(list)
    ended: dict[Key, list[dict[str, Any]]] = defaultdict(list)
    for entry in ledger:
        (called if entry["what"] == "call" else ended)[entry["request"], entry["channel"]].append(entry)
    doubled = 0
    for each in found:
        name, how, status = each["metadata"]["name"], each["spec"]["delivery"], each["status"]
        assert {channel["name"] for channel in status["channels"]} == set(CHANNELS)
        for channel in status["channels"]:
            key = name, channel["name"]
            attempts = [entry for entry in status["deliveryAttempts"] if entry["channel"] == channel["name"]]
            assert len(attempts) == channel["attempts"] <= ATTEMPTS
            assert [entry["attempt"] for entry in attempts] == list(range(1, len(attempts) + 1))
            # A channel counts as delivered only if it recorded the delivery.
            succeeded = [entry["attempt"] for entry in attempts if entry["result"] == "success"]
            assert (channel["state"] == "Delivered") == bool(succeeded)
            assert set(succeeded) <= {end["attempt"] for end in ended[key] if end["what"] == "delivered"}
            times = Counter(call["attempt"] for call in called[key])
            doubled += sum(times.values()) - len(times)
            if how == "AtLeastOnce":
                hit = at_least_once(called[key], killed)
                assert len(called[key]) <= ATTEMPTS + hit
            else:
                assert set(times.values()) <= {1}, "an attempt that was counted is made once"
                assert len(called[key]) <= ATTEMPTS
            if how == "AtMostOnce":
                never_repeated(channel, attempts, called[key])
    assert doubled, "no kill came between a call and its record, so nothing was tested"


def at_least_once(calls: list[dict[str, Any]], killed: set[int]) -> int:
    """Return the number of kills between a call and its record; no process makes the same attempt twice."""
    made = Counter((call["attempt"], call["process"]) for call in calls)
    assert set(made.values()) <= {1}
    repeated = [
        call for number, call in enumerate(calls) if call["attempt"] in {c["attempt"] for c in calls[number + 1 :]}
    ]
    assert {call["process"] for call in repeated} <= killed
    return len(repeated)


def never_repeated(channel: dict[str, Any], attempts: list[dict[str, Any]], calls: list[dict[str, Any]]) -> None:
    """Check that an attempt of unknown outcome is the last one."""
    unknown = [entry["attempt"] for entry in attempts if entry["result"] == "unknown"]
    assert (channel["state"] == "Unknown") == bool(unknown)
    if unknown:
        assert unknown == [len(attempts)]
        assert max((call["attempt"] for call in calls), default=0) <= unknown[0]
