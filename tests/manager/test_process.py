"""Real processes in real time: signals, and the lease's guarantees for stopped, blocked and hung processes."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from reconciler.apiserver import APIServer
from reconciler.client import Client
from reconciler.clock import boottime_of, current_clock
from reconciler.controller import Outcome, Reconciler, ResourceReconciler
from reconciler.manager import Manager
from reconciler.objects import Unstructured
from reconciler.status import StatusBatcher
from tests.manager.operator_process import LEASE
from tests.manager.test_promises import POD
from tests.manager.working import config_map

SCRIPT = Path(__file__).with_name("operator_process.py")
LONG = 50.0

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


async def test_sigterm_drains_and_exits_with_0(server: APIServer, tmp_path: Path) -> None:
    async with child(server, tmp_path, "slow") as operator:
        await operator.says("reconciling")
        operator.process.send_signal(signal.SIGTERM)
        await operator.says("reconciled")
        await operator.says("left")
        assert await operator.ends() == 0


async def test_second_signal_exits_immediately_with_1(server: APIServer, tmp_path: Path) -> None:
    async with child(server, tmp_path, "endless") as operator:
        await operator.says("reconciling")
        operator.process.send_signal(signal.SIGINT)
        operator.process.send_signal(signal.SIGTERM)
        assert await operator.ends() == 1
        assert "again: exiting immediately" in await operator.errors()


HUNG = (
    "GracePeriodExceeded: did not stop within the grace period of 0.2 s: controller configmap (default/a in progress)"
)


@pytest.mark.parametrize("mode", ["hung", "hunginwait", "hungfinalize"])
async def test_hung_thread_does_not_keep_the_process_running(server: APIServer, tmp_path: Path, mode: str) -> None:
    async with child(server, tmp_path, mode, "short") as operator:
        await operator.says("reconciling")
        operator.process.send_signal(signal.SIGTERM)
        assert await operator.ends() == 1
        errors = await operator.errors()
        assert HUNG in errors
        assert "gave up waiting for the threads of the reconciles of default/a" in errors


async def test_hung_thread_of_a_leader_does_not_keep_the_process_running(server: APIServer, tmp_path: Path) -> None:
    """The lease is left to expire: the thread may run until the process has exited."""
    async with child(server, tmp_path, "hung", "leader", "short") as operator:
        await operator.says("reconciling")
        operator.process.send_signal(signal.SIGTERM)
        assert await operator.ends() in {1, 70}
        assert HUNG in await operator.errors()
    async with Client(server) as client:
        lease = await client.get("coordination.k8s.io/v1/Lease", "operator", "default")
    assert lease["spec"]["holderIdentity"] == "child"


async def test_keyboard_interrupt_ends_a_block_with_a_hung_thread(server: APIServer, tmp_path: Path) -> None:
    async with child(server, tmp_path, "hung", "short", "running") as operator:
        await operator.says("reconciling")
        operator.process.send_signal(signal.SIGINT)
        assert await operator.ends() == -signal.SIGINT  # Python's exit code after a KeyboardInterrupt
        errors = await operator.errors()
        assert "gave up waiting for the threads of the reconciles of default/a" in errors
        assert "KeyboardInterrupt" in errors


@pytest.mark.parametrize("mode", ["blocking", "hung"])
async def test_blocked_loop_or_hung_thread_does_not_outlive_the_lease(
    server: APIServer, tmp_path: Path, mode: str
) -> None:
    async with child(server, tmp_path, mode, "leader") as operator:
        await operator.says("reconciling")
        server.faults.add(resource="leases", user_agent="child", status=503, times=None)
        assert await operator.ends() == 70  # by itself, long before the block or the thread would end
        assert "the lease expired and workers have not stopped" in await operator.errors()


async def test_process_stopped_past_its_lease_starts_no_further_write(server: APIServer, tmp_path: Path) -> None:
    async with child(server, tmp_path, "writing", "leader") as operator, Client(server) as client:
        await operator.says("reconciling")
        async with asyncio.timeout(LONG):
            while len(writes(server)) < 5:  # noqa: ASYNC110 - only the server knows what the child has sent
                await asyncio.sleep(0.01)
        operator.process.send_signal(signal.SIGSTOP)
        async with successor(client):
            # Requests that were in flight when the process was stopped do not count.
            before = len(writes(server))
            operator.process.send_signal(signal.SIGCONT)
            assert await operator.ends() in (1, 70)
            # One write can have passed the fence without reaching the socket when the process was stopped: the window
            # of time-based leases. Any further write would have passed the fence after the lease expired.
            assert len(writes(server)) - before <= 1


@contextlib.asynccontextmanager
async def successor(client: Client, *controllers: Reconciler) -> AsyncIterator[Manager]:
    """Another process that leads after the child's lease has expired."""
    other = Manager(client, leader_election=replace(LEASE, identity="other"))
    for each in controllers:
        other.add_controller(each)
    async with other.running():
        async with asyncio.timeout(LONG):
            while not other.statistics().leading:  # noqa: ASYNC110 - there is no event to wait for
                await asyncio.sleep(0.01)
        yield other


class SuccessorReconciler(ResourceReconciler[Unstructured], resource="v1/Pod"):
    """A reconciler that writes the status once, as the next leader."""

    def __init__(self) -> None:
        self.done = asyncio.Event()

    async def reconcile_object(self, obj: Unstructured, status: StatusBatcher, /) -> Outcome:
        status.set(message="other")
        await status.flush()
        self.done.set()
        return None


async def test_status_writes_of_a_process_stopped_past_its_lease_are_refused(server: APIServer, tmp_path: Path) -> None:
    async with Client(server) as client:
        await client.create(POD)
        async with child(server, tmp_path, "recording", "leader") as operator:
            await operator.says("reconciling")
            async with asyncio.timeout(LONG):
                while len(server.requests(subresource="status", user_agent="child")) < 5:  # noqa: ASYNC110 - see above
                    await asyncio.sleep(0.01)
            operator.process.send_signal(signal.SIGSTOP)
            taken = SuccessorReconciler()
            async with successor(client, taken), asyncio.timeout(LONG):
                await taken.done.wait()
                operator.process.send_signal(signal.SIGCONT)
                assert await operator.ends() in (1, 70)
                pod = await client.get("v1/Pod", "a", "default")
                assert pod.to_dict()["status"]["message"] == "other"
            written = server.requests(subresource="status", effective=True)
            assert [each.user_agent for each in written].count("child") == len(written) - 1
            assert written[-1].user_agent != "child"


async def test_process_stopped_past_its_lease_takes_at_most_one_step_that_was_already_checked(
    server: APIServer, tmp_path: Path
) -> None:
    async with child(server, tmp_path, "delivering", "leader") as operator, Client(server) as client:
        await operator.says("reconciling")
        operator.process.send_signal(signal.SIGSTOP)
        async with successor(client):
            took_over = boottime_of(current_clock())()
            operator.process.send_signal(signal.SIGCONT)
            assert operator.process.stdout is not None
            rest = (await operator.process.stdout.read()).decode().splitlines()
            assert await operator.ends() in (1, 70)
    moments = [float(line.split()[1]) for line in rest if line.startswith("delivered")]
    assert len([each for each in moments if each > took_over]) <= 1


async def test_partitioned_process_exits_and_writes_nothing_after_the_takeover(
    server: APIServer, tmp_path: Path
) -> None:
    async with child(server, tmp_path, "writing", "leader") as operator, Client(server) as client:
        await operator.says("reconciling")
        server.faults.add(resource="leases", user_agent="child", stall=True, times=None)
        async with successor(client):
            before = len(writes(server))
            assert await operator.ends() == 1
            assert 0 < before <= len(writes(server)) <= before + 1  # see above
        assert "LeadershipLost: child lost lease default/operator: not renewed" in await operator.errors()


async def test_standby_takes_over_from_a_killed_leader(server: APIServer, tmp_path: Path) -> None:
    async with child(server, tmp_path, "writing", "leader") as operator, Client(server) as client:
        await operator.says("reconciling")
        operator.process.kill()
        async with successor(client) as other:
            assert other.statistics().leading


def writes(server: APIServer) -> list[object]:
    return [*server.requests(verb="patch", resource="configmaps", user_agent="child")]
