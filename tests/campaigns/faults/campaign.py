"""The campaign: requests, replicas and faults, drawn from a seed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reconciler import Client
from reconciler.errors import AlreadyExists, APIError, TransportError
from reconciler.notification import NotificationRequest
from reconciler.testing.control_plane import ControlPlane
from tests.campaigns.faults import channels, receiver
from tests.campaigns.faults.replica import Replica

NAMESPACE = "default"
GUARANTEES = ("AtLeastOnce", "Bounded", "AtMostOnce")
ATTEMPTS = 4
POLICY = {"maxAttempts": ATTEMPTS, "initialBackoffSeconds": 4, "maxBackoffSeconds": 8, "jitter": 0.1}
LEASE = "campaign"
STOPPED = 20.0
"""Seconds of a stop of the leader: longer than the lease, so that another one leads meanwhile."""

FAULTS = (
    "kill the operator",
    "kill the API server",
    "kill etcd",
    "restart both",
    "stop the leader",
    "stop the API server",
    "restore etcd",
    "step a clock",
)


@dataclass
class Restore:
    """A restore of etcd: writes between the snapshot and the restore are lost."""

    snapshot: float
    began: float
    ended: float


@dataclass
class Campaign:
    """One campaign.

    Args:
        seed: draws the order of the faults, their times and their targets.
        requests: number of NotificationRequests.
        faults: how often each of `FAULTS` happens.
        until: the monotonic second by which the campaign must have ended.
    """

    seed: int
    requests: int
    faults: Counter[str]
    until: float
    plane: ControlPlane
    client: Client
    directory: Path
    replicas: list[Replica] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    restores: list[Restore] = field(default_factory=list)
    exit_codes: list[int | None] = field(default_factory=list)
    found: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)
        self._documents: dict[str, dict[str, Any]] = {}

    async def run(self) -> None:
        """Inject all faults, and wait until every request has ended."""
        order = list(self.faults.elements())
        self._rng.shuffle(order)
        numbers = iter(range(self.requests))
        share = -(-self.requests // (len(order) + 1))
        for position, fault in enumerate(order, 1):
            await self._create(numbers, share)
            await self._until_it_calls()
            await asyncio.sleep(self._rng.uniform(0, 0.5))
            _say(f"{position}/{len(order)} {fault}")
            await self._play(fault)
            self.done[fault] += 1
        await self._create(numbers, self.requests)
        await self._all_ended()
        self.exit_codes = [await replica.end() for replica in self.replicas]

    async def _play(self, fault: str) -> None:
        match fault:
            case "kill the operator":
                leader = self._leader()
                others = [replica for replica in self.replicas if replica is not leader]
                await (leader if self._rng.random() < 0.5 else self._rng.choice(others)).kill()
            case "kill the API server":
                await self._kill("kube-apiserver")
            case "kill etcd":
                await self._kill("etcd")
            case "restart both":
                await self.plane.restart()
            case "stop the leader":
                await self._leader().stop_for(STOPPED)
            case "stop the API server":
                pid = self.plane.pid("kube-apiserver")
                os.kill(pid, signal.SIGSTOP)
                await asyncio.sleep(self._rng.uniform(2, 14))
                os.kill(pid, signal.SIGCONT)
            case "restore etcd":
                await self._restore()
            case "step a clock":
                replica = self._leader() if self._rng.random() < 0.8 else self._rng.choice(self.replicas)
                replica.set_clock(self._rng.choice([-7200, -30, 0, 30, 7200]))
                await asyncio.sleep(self._rng.uniform(1, 6))

    async def _kill(self, program: Any) -> None:
        os.kill(self.plane.pid(program), signal.SIGKILL)
        await asyncio.sleep(self._rng.uniform(0, 2))
        await self.plane.revive()

    async def _restore(self) -> None:
        """Take a snapshot while there are no writes, and restore it after a while."""
        stops = [asyncio.create_task(replica.stop_for(2)) for replica in self.replicas]
        await asyncio.sleep(1)
        moment = time.time()
        path = await self.plane.snapshot(self.directory / f"snapshot-{moment}")
        await asyncio.gather(*stops)
        await asyncio.sleep(self._rng.uniform(3, 8))
        began = time.time()
        await self.plane.restore(path, bump_revision=self._rng.choice([None, 1_000_000]))
        self.restores.append(Restore(moment, began, time.time()))
        for name in self._documents:  # requests created after the snapshot are gone; create them again
            await self._ask_for(name)

    def _leader(self) -> Replica:
        """Return the replica that made the last call."""
        made = channels.calls(self.directory / "calls")
        last = made[-1]["process"] if made else None
        for replica in self.replicas:
            if any(life.pid == last for life in replica.lives):
                return replica
        return self.replicas[0]

    # Requests

    async def _create(self, numbers: Iterator[int], count: int) -> None:
        for _, number in zip(range(count), numbers, strict=False):
            name = f"n-{number}"
            self._documents[name] = _request(name, GUARANTEES[number % 3])
            await self._ask_for(name)

    async def _ask_for(self, name: str) -> None:
        while True:
            try:
                await self.client.create(self._documents[name])
            except AlreadyExists:
                return
            except (APIError, TransportError, TimeoutError):
                self._check_time()
                await asyncio.sleep(0.2)

    async def _until_it_calls(self) -> None:
        file = self.directory / "calls"
        before = file.stat().st_size if file.exists() else 0
        while not file.exists() or file.stat().st_size == before:
            self._check_time()
            await asyncio.sleep(0.02)

    async def _all_ended(self) -> None:
        while True:
            with contextlib.suppress(APIError, TransportError, TimeoutError):
                listed = [each.to_dict() for each in await self.client.list(NotificationRequest, NAMESPACE)]
                if all((each.get("status") or {}).get("completionTime") for each in listed):
                    self.found = listed
                    return
            self._check_time()
            await asyncio.sleep(1)

    def _check_time(self) -> None:
        if time.monotonic() > self.until:
            raise TimeoutError("the campaign has not ended within its bound")


def _request(name: str, guarantee: str) -> dict[str, Any]:
    spec = {"type": "Simple", "subject": "s", "body": "b", "channels": list(channels.NAMES), "delivery": guarantee}
    return {
        "apiVersion": "notify.reconciler.dev/v1alpha1",
        "kind": "NotificationRequest",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {**spec, "retryPolicy": POLICY},
    }


@contextlib.asynccontextmanager
async def prepared(*, seed: int, requests: int, faults: Counter[str], minutes: float) -> AsyncIterator[Campaign]:
    """Start a control plane and two replicas; stop them in any case."""
    users = {f"replica-{number}": ["system:masters"] for number in range(2)}
    with tempfile.TemporaryDirectory(prefix="campaign-") as place:
        directory = Path(place)
        channels.install(directory / "site")
        async with (
            _receiver(directory / "calls") as port,
            ControlPlane(users=users, audit_level="Request") as plane,
            plane.client() as client,
        ):
            await client.apply(NotificationRequest.crd())
            until = time.monotonic() + minutes * 60
            campaign = Campaign(seed, requests, faults, until, plane, client, directory)
            try:
                for user in users:
                    config = plane.write_kubeconfig(directory / f"{user}.kubeconfig", user=user)
                    options = ["run", "notification", "--kubeconfig", str(config), "--namespace", NAMESPACE]
                    options += ["--workers", "20", "--leader-election", LEASE]
                    campaign.replicas.append(Replica(user, options, directory, port))
                yield campaign
            except BaseException:
                for replica in campaign.replicas:
                    log = directory / f"{replica.user}.log"
                    _say(f"{replica.user}: {log.read_text()[-2000:] if log.exists() else 'no log'}")
                raise
            finally:
                for replica in campaign.replicas:
                    await replica.abandon()


@contextlib.asynccontextmanager
async def _receiver(file: Path) -> AsyncIterator[str]:
    """Start the receiver in a process of its own; yield its port."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, receiver.__file__, str(file), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.stdin.close()
        await process.wait()


def _say(text: str) -> None:
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stdout.flush()
