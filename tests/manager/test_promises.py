"""The guarantees of a lease, one by one.

See test_leader.py for who may acquire a lease when, and test_process.py for real processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from typing import Any

import pytest

from reconciler import Manager, Outcome, ResourceReconciler, StatusBatcher
from reconciler.apiserver import APIServer
from reconciler.client import Client
from reconciler.controller import Reconciler
from reconciler.errors import APIError, TransportError
from reconciler.http import HTTPRequest, HTTPResponse
from reconciler.manager import GracePeriodExceeded, LeadershipLost, NotLeader, lifecycle
from reconciler.manager.runnables import ManagerError
from reconciler.meta import Request
from reconciler.objects import Unstructured
from tests.manager.test_leader import KIND, LateResponses, elected, election, in_background, now, record, replica
from tests.manager.working import RecordingReconciler, config_map

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "a", "namespace": "default"},
    "spec": {"containers": [{"name": "c", "image": "i"}]},
}

PARTITIONS: dict[str, dict[str, Any]] = {
    "nothing comes back": {"stall": True},
    "everything is refused": {"status": 503},
    "answers get lost": {"lost": True, "after_commit": True},
    "only the lease": {"resource": "leases", "status": 503},
}


class StatusWriter(ResourceReconciler[Unstructured], resource="v1/Pod"):
    """A reconciler that writes a word into the status."""

    def __init__(self, word: str) -> None:
        self.word = word

    async def reconcile_object(self, obj: Unstructured, status: StatusBatcher, /) -> Outcome:
        status.set(message=self.word)
        return None


def writer(transport: Any, word: str, **options: Any) -> Manager:
    manager = Manager(Client(transport, user_agent=word), leader_election=election(word), **options)
    manager.add_controller(StatusWriter(word))
    return manager


# (1) The deadline, and (3) the fence


class RequestTimes:
    """A transport that records the start time of each request."""

    def __init__(self, server: APIServer) -> None:
        self._server = server
        self.started: list[tuple[float, str, str]] = []

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        self.started.append((now(), request.method, request.path))
        return await self._server.send(request)


@pytest.mark.virtual_time
@pytest.mark.parametrize("partition", PARTITIONS)
async def test_partitioned_leader_starts_no_request_after_the_deadline(
    server: APIServer, client: Client, partition: str
) -> None:
    detached: list[asyncio.Task[None]] = []

    async def stubborn() -> None:
        """Keep writing, even after the reconcile was cancelled."""
        while True:
            with contextlib.suppress(APIError, TransportError, TimeoutError, NotLeader):
                await manager.client.live.patch(KIND, "a", "default", patch={"data": {"at": str(now())}})
            await asyncio.sleep(0.25)

    async def work(_: Request) -> None:
        detached.append(asyncio.create_task(stubborn()))
        while True:
            with contextlib.suppress(APIError, TransportError, TimeoutError, NotLeader):
                await manager.client.live.get(KIND, "a", "default")
            await asyncio.sleep(0.25)

    await client.create(config_map("a"))
    sent = RequestTimes(server)
    manager = Manager(Client(sent, rng=random.Random(1), user_agent="one"), leader_election=election("one"))
    manager.add_controller(RecordingReconciler(work), resource=KIND)
    async with in_background(manager) as running:
        await asyncio.sleep(8.1)
        renewed = max(at for at, method, path in sent.started if method == "PUT" and path.endswith("operator"))
        server.faults.add(user_agent="one", times=None, **PARTITIONS[partition])
        await asyncio.wait({running})
        assert isinstance(running.exception(), LeadershipLost)
        await asyncio.sleep(100)
    for task in detached:
        task.cancel()
    await asyncio.wait(detached)
    assert sent.started[-1][0] > renewed + 8, "it went on until then"
    assert sent.started[-1][0] <= renewed + 10


@pytest.mark.virtual_time
async def test_lease_duration_counts_from_the_start_of_the_renewal(server: APIServer) -> None:
    manager = Manager(Client(LateResponses(server, 3), user_agent="one"), leader_election=election("one"))
    async with manager.running():
        began = now()
        await elected(manager)
        assert now() - began >= 3
        assert manager._elector is not None
        assert manager._elector._watchdog._until == pytest.approx(began + 15, abs=0.01)


# (4) Status writes are conditional


class LateNetwork:
    """A transport that delivers status writes late, even if their senders were cancelled."""

    def __init__(self, server: APIServer, seconds: float) -> None:
        self._server = server
        self._seconds = seconds
        self.answers: list[int] = []

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        if request.method in ("PATCH", "PUT") and request.path.endswith("/status"):
            return await asyncio.shield(asyncio.create_task(self._late(request)))
        return await self._server.send(request)

    async def _late(self, request: HTTPRequest) -> HTTPResponse:
        await asyncio.sleep(self._seconds)
        answer = await self._server.send(request)
        self.answers.append(answer.status)
        return answer


@pytest.mark.virtual_time
async def test_late_write_of_a_former_leader_is_refused_and_not_merged(server: APIServer, client: Client) -> None:
    await client.create(POD)
    network = LateNetwork(server, 60)
    async with in_background(first := writer(network, "one")) as running:
        await elected(first)
        server.faults.add(user_agent="one", resource="leases", stall=True, times=None)
        async with writer(server, "two").running() as second:
            await asyncio.wait({running})
            assert isinstance(running.exception(), LeadershipLost)
            assert network.answers == []
            await elected(second)
            await asyncio.sleep(100)
            assert set(network.answers) == {409}  # one per attempt of the first leader
            assert (await client.get("v1/Pod", "a", "default")).to_dict()["status"]["message"] == "two"


# (5) The lease is released after everything has ended


class ResponseLog:
    """A transport that records the responses in order."""

    def __init__(self, server: APIServer) -> None:
        self._server = server
        self.answered: list[str] = []

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        answer = await self._server.send(request)
        self.answered.append(f"{request.method} {request.path.rsplit('/', 1)[-1]}")
        return answer


@pytest.mark.virtual_time
async def test_lease_is_released_after_the_last_flush(server: APIServer, client: Client) -> None:
    await client.create(POD)
    server.faults.add(subresource="status", latency=1.5)
    noted = ResponseLog(server)
    async with writer(noted, "one", grace_period=0).running() as manager:
        await elected(manager)
        await asyncio.sleep(0.5)
        assert "PATCH status" not in noted.answered, "it is on its way"
    assert (await record(client))["holderIdentity"] == ""
    ends = [each for each in noted.answered if each in ("PATCH status", "PUT operator")]
    assert ends[-2:] == ["PATCH status", "PUT operator"]


class ThreadReconciler(Reconciler):
    def __init__(self) -> None:
        self.started, self.end, self.ended = threading.Event(), threading.Event(), threading.Event()

    def reconcile(self, request: Request, /) -> Outcome:
        self.started.set()
        self.end.wait()
        self.ended.set()
        return None


async def test_lease_is_not_released_while_a_thread_runs(
    server: APIServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "CANCEL_TIMEOUT", 0.2)
    await client.create(config_map("a"))
    reconciler = ThreadReconciler()
    manager = Manager(Client(server, user_agent="one"), leader_election=election("one"), grace_period=0)
    manager.add_controller(reconciler, resource=KIND)
    with pytest.raises(GracePeriodExceeded, match="default/a in progress"):
        async with manager.running():
            await asyncio.to_thread(reconciler.started.wait)
    assert manager._elector is not None
    manager._elector._watchdog.disarm()  # it would exit the test process
    worked_on, holder = not reconciler.ended.is_set(), (await record(client))["holderIdentity"]
    reconciler.end.set()
    await asyncio.to_thread(reconciler.ended.wait)
    assert (worked_on, holder) == (True, "one"), "left to expire"
    with pytest.raises(NotLeader):
        manager.check_leader()


async def test_lease_is_released_when_the_thread_has_ended(server: APIServer, client: Client) -> None:
    await client.create(config_map("a"))
    reconciler = ThreadReconciler()
    manager = Manager(Client(server, user_agent="one"), leader_election=election("one"))
    manager.add_controller(reconciler, resource=KIND)
    async with manager.running():
        await asyncio.to_thread(reconciler.started.wait)
        reconciler.end.set()
    assert reconciler.ended.is_set()
    assert (await record(client))["holderIdentity"] == ""


# (6) A process that lost the lease never leads again


@pytest.mark.virtual_time
async def test_process_that_lost_the_lease_does_not_take_part_again(server: APIServer, client: Client) -> None:
    await client.create(config_map("a"))
    working = RecordingReconciler()
    async with in_background(manager := replica(server, "one", working)) as running:
        await elected(manager)
        server.faults.add(user_agent="one", resource="leases", status=503, times=None)
        await asyncio.wait({running})
        assert isinstance(running.exception(), LeadershipLost)
    server.faults.clear()
    before = len(server.requests(user_agent="one"))
    await client.create(config_map("b"))
    await asyncio.sleep(100)
    assert len(server.requests(user_agent="one")) == before
    assert working.started == ["a"]
    assert manager.statistics().leading is False
    with pytest.raises(ManagerError, match="runs only once"):
        await manager.run()
    async with replica(server, "two").running() as second:
        assert await elected(second) <= 15 + 4.5
