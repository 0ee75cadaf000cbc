"""A real process on real time: signals, and what a lease can promise of a process that is stopped, blocked or hung."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import pytest

from reconciler.apiserver import APIServer
from reconciler.client import Client
from reconciler.clock import current_clock
from reconciler.manager import Manager
from tests.manager.operator_process import LEASE
from tests.manager.working import config_map

SCRIPT = Path(__file__).with_name("operator_process.py")
LONG = 30.0

pytestmark = pytest.mark.timeout(90)


@dataclass
class Child:
    process: asyncio.subprocess.Process
    lines: list[str]

    async def says(self, line: str) -> None:
        assert self.process.stdout is not None
        async with asyncio.timeout(LONG):
            while line not in self.lines:
                read = (await self.process.stdout.readline()).decode().rstrip()
                assert read, f"it ended after {self.lines}: {await self.errors()}"
                self.lines.append(read)

    async def errors(self) -> str:
        assert self.process.stderr is not None
        return (await self.process.stderr.read()).decode()

    async def ends(self) -> int:
        async with asyncio.timeout(LONG):
            return await self.process.wait()


@contextlib.asynccontextmanager
async def child(server: APIServer, tmp_path: Path, *arguments: str) -> AsyncIterator[Child]:
    async with Client(server) as client:
        await client.create(config_map("a"))
    kubeconfig = tmp_path / "kubeconfig"
    server.write_kubeconfig(kubeconfig)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(SCRIPT),
        str(kubeconfig),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=SCRIPT.parents[2],
        env={"PYTHONPATH": str(SCRIPT.parents[2])},
    )
    try:
        yield Child(process, [])
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def last_renewal(server: APIServer) -> datetime:
    return server.requests(verb={"create", "update"}, resource="leases", user_agent="child", effective=True)[-1].time


def seconds_since(moment: datetime) -> float:
    return (current_clock().now() - moment).total_seconds()


async def test_sigterm_drains_and_ends_with_0(server: APIServer, tmp_path: Path) -> None:
    async with child(server, tmp_path, "slow") as operator:
        await operator.says("reconciling")
        operator.process.send_signal(signal.SIGTERM)
        await operator.says("reconciled")
        await operator.says("left")
        assert await operator.ends() == 0


async def test_a_second_signal_ends_with_1_at_once(server: APIServer, tmp_path: Path) -> None:
    async with child(server, tmp_path, "endless") as operator:
        await operator.says("reconciling")
        operator.process.send_signal(signal.SIGINT)
        operator.process.send_signal(signal.SIGTERM)
        assert await operator.ends() == 1
        assert "again: exit at once" in await operator.errors()


@pytest.mark.parametrize("mode", ["blocking", "hung"])
async def test_a_blocked_loop_or_a_hung_thread_does_not_outlive_the_lease(
    server: APIServer, tmp_path: Path, mode: str
) -> None:
    async with child(server, tmp_path, mode, "leader") as operator:
        await operator.says("reconciling")
        server.faults.add(resource="leases", user_agent="child", status=503, times=None)
        assert await operator.ends() == 70
        assert seconds_since(last_renewal(server)) < LEASE.lease_duration + 1
        assert "the lease has ended and workers have not stopped" in await operator.errors()


async def test_a_process_that_was_stopped_past_its_lease_begins_no_further_write(
    server: APIServer, tmp_path: Path
) -> None:
    async with child(server, tmp_path, "writing", "leader") as operator, Client(server) as client:
        await operator.says("reconciling")
        async with asyncio.timeout(LONG):
            while len(writes(server)) < 5:  # noqa: ASYNC110 - what the child has sent is known by the server only
                await asyncio.sleep(0.01)
        operator.process.send_signal(signal.SIGSTOP)
        other = Manager(client, leader_election=replace(LEASE, identity="other"))
        async with other.running():
            async with asyncio.timeout(LONG):
                while not other.statistics().leading:  # noqa: ASYNC110 - nothing tells of this moment
                    await asyncio.sleep(0.01)
            # What was on its way when the process was stopped is none of its doing afterwards.
            before = len(writes(server))
            operator.process.send_signal(signal.SIGCONT)
            assert await operator.ends() in (1, 70)
            # One write can have passed the fence when the process was stopped and not reached the socket: the window
            # that time-based leases leave. Any more would have passed it after the lease was over.
            assert len(writes(server)) - before <= 1


def writes(server: APIServer) -> list[object]:
    return [*server.requests(verb="patch", resource="configmaps", user_agent="child")]
