"""Leader election: who leads when, which writes are refused, and the content of the lease."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from reconciler import Manager
from reconciler.apiserver import APIServer
from reconciler.client import Client
from reconciler.clock import current_clock
from reconciler.errors import ConfigurationError
from reconciler.http import HTTPRequest, HTTPResponse
from reconciler.manager import LeaderElection, LeadershipLost, NotLeader
from reconciler.manager.election import PROCESS_ANNOTATION
from reconciler.manager.runnables import ManagerError
from tests.manager.working import RecordingReconciler, config_map

pytestmark = pytest.mark.virtual_time

KIND = "v1/ConfigMap"
LEASE = "coordination.k8s.io/v1/Lease"
FAR = 1000.0
ANOTHER_PROCESS = {"metadata": {"annotations": {PROCESS_ANNOTATION: "another"}}}


def now() -> float:
    return asyncio.get_running_loop().time()


def election(identity: str, **times: float) -> LeaderElection:
    return LeaderElection("operator", namespace="default", identity=identity, **times)


def replica(server: APIServer, identity: str, working: RecordingReconciler | None = None, **options: Any) -> Manager:
    """Return the manager of one of several processes; its requests contain its identity."""
    times = options.pop("times", {})
    manager = Manager(
        Client(server, rng=random.Random(identity), user_agent=identity),
        leader_election=election(identity, **times),
        **options,
    )
    manager.add_controller(working or RecordingReconciler(), resource=KIND)
    return manager


async def record(client: Client) -> dict[str, Any]:
    lease = await client.get(LEASE, "operator", "default")
    spec: dict[str, Any] = lease.to_dict()["spec"]
    return spec


@contextlib.asynccontextmanager
async def in_background(manager: Manager) -> AsyncIterator[asyncio.Task[None]]:
    """Run a manager in the background during the block."""
    task = asyncio.create_task(manager.run())
    await asyncio.sleep(0.001)
    try:
        yield task
    finally:
        manager.stop()
        await asyncio.gather(task, return_exceptions=True)  # asyncio logs what nobody retrieves, at any later moment


async def elected(manager: Manager) -> float:
    """Wait until a manager leads; return the seconds that it took."""
    before = now()
    while not manager.statistics().leading:  # noqa: ASYNC110 - there is no event to wait for
        await asyncio.sleep(0.01)
    return now() - before


# One process


async def test_single_process_leads_immediately_and_writes_the_lease(server: APIServer, client: Client) -> None:
    working = RecordingReconciler()
    await client.create(config_map("a"))
    async with replica(server, "one", working).running() as manager:
        await asyncio.sleep(1)
        assert manager.statistics().leading
        assert working.ended == ["a"]
        assert await record(client) == {
            "holderIdentity": "one",
            "leaseDurationSeconds": 15,
            "acquireTime": "2026-01-01T00:00:00.000000Z",
            "renewTime": "2026-01-01T00:00:00.000000Z",
            "leaseTransitions": 0,
        }


async def test_lease_is_renewed_every_two_seconds_without_reading_it(server: APIServer, client: Client) -> None:
    async with replica(server, "one").running():
        await asyncio.sleep(20.5)
        found = await record(client)
        assert (found["acquireTime"], found["renewTime"]) == (
            "2026-01-01T00:00:00.000000Z",
            "2026-01-01T00:00:20.000000Z",
        )
        assert len(server.requests(verb="update", resource="leases")) == 10
        assert len(server.requests(verb="get", resource="leases", user_agent="one")) == 1


async def test_clean_stop_releases_the_lease_after_the_workers_ended(server: APIServer, client: Client) -> None:
    await client.create(config_map("a"))
    working = RecordingReconciler(lambda _: asyncio.sleep(20))
    async with replica(server, "one", working).running():
        await asyncio.sleep(1)
    assert working.ended == ["a"]
    found = await record(client)
    assert (found["holderIdentity"], found["leaseDurationSeconds"]) == ("", 1)
    releases = server.requests(verb="update", resource="leases")
    assert (releases[-1].time - releases[0].time).total_seconds() > 15, "it was renewed during the drain"


async def test_lease_is_not_released_while_a_worker_runs(server: APIServer, client: Client) -> None:
    end = asyncio.Event()

    async def stubborn(_: object) -> None:
        while not end.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await end.wait()

    await client.create(config_map("a"))
    manager = replica(server, "one", RecordingReconciler(stubborn), grace_period=5)
    task = asyncio.create_task(manager.run())
    await asyncio.sleep(1)
    manager.stop()
    await asyncio.wait({task})
    assert "default/a in progress" in str(task.exception())
    assert (await record(client))["holderIdentity"] == "one"
    renewals = len(server.requests(verb="update", resource="leases"))
    await asyncio.sleep(30)
    assert len(server.requests(verb="update", resource="leases")) == renewals, "it is left to expire"
    end.set()


async def test_change_of_the_lease_by_others_is_tolerated(server: APIServer, client: Client) -> None:
    async with replica(server, "one").running() as manager:
        await asyncio.sleep(5)
        await client.patch(LEASE, "operator", "default", patch={"metadata": {"labels": {"a": "b"}}})
        await asyncio.sleep(60)
        assert manager.statistics().leading
        assert manager.metrics.leader("operator").slow_paths == 1
        lease = await client.get(LEASE, "operator", "default")
        assert lease.to_dict()["metadata"]["labels"] == {"a": "b"}


async def test_lease_has_the_given_labels(server: APIServer, client: Client) -> None:
    election = LeaderElection("operator", namespace="default", labels={"app": "operator"})
    async with Manager(client, leader_election=election).running() as manager:
        await elected(manager)
        assert (await client.get(LEASE, "operator", "default")).to_dict()["metadata"]["labels"] == {"app": "operator"}


async def test_leader_creates_a_deleted_lease_again(server: APIServer, client: Client) -> None:
    async with replica(server, "one").running() as manager:
        await asyncio.sleep(5)
        await client.delete(LEASE, "operator", "default")
        await asyncio.sleep(5)
        assert manager.statistics().leading
        assert (await record(client))["holderIdentity"] == "one"


async def test_short_outage_is_tolerated(server: APIServer, client: Client) -> None:
    async with replica(server, "one").running() as manager:
        await asyncio.sleep(5)
        server.faults.add(resource="leases", status=503, times=3)
        await asyncio.sleep(60)
        assert manager.statistics().leading


async def test_lost_responses_to_own_writes_are_tolerated(server: APIServer, client: Client) -> None:
    server.faults.add(resource="leases", verb="create", after_commit=True, lost=True)
    async with replica(server, "one").running() as manager:
        assert await elected(manager) < 5
        server.faults.add(resource="leases", verb="update", after_commit=True, status=500, times=2)
        await asyncio.sleep(60)
        assert manager.statistics().leading
        assert (await record(client))["leaseTransitions"] == 0


@pytest.mark.parametrize(("asked", "attempts"), [(3, [4, 7.15, 9.58, 11.58]), (60, [4, 8, 10])])
async def test_retry_after_takes_at_most_half_of_the_time_that_is_left(
    server: APIServer, asked: float, attempts: list[float]
) -> None:
    began, manager = current_clock().now(), replica(server, "one")
    async with in_background(manager) as running:
        await asyncio.sleep(3)
        server.faults.add(verb="update", resource="leases", status=429, retry_after=asked, times=None)
        await asyncio.wait({running})
        assert now() == pytest.approx(12, abs=0.1), "ten seconds after the renewal at 2 s"
    renewals = [(each.time - began).total_seconds() for each in server.requests(verb="update", resource="leases")]
    assert [time for time in renewals if time > 3] == pytest.approx(attempts, abs=0.2)


async def test_metrics_show_who_leads(server: APIServer) -> None:
    async with replica(server, "one").running() as manager, replica(server, "two").running() as other:
        await asyncio.sleep(10)
        assert 'leader_election_master_status{name="operator"} 1.0' in manager.metrics.render()[1].decode()
        assert 'leader_election_master_status{name="operator"} 0.0' in other.metrics.render()[1].decode()
    assert not manager.metrics.leader("operator").leading


async def test_events_about_the_lease_show_who_leads(server: APIServer, client: Client) -> None:
    async with replica(server, "one").running() as manager:
        await elected(manager)
        await asyncio.sleep(1)
        lease = await client.get(LEASE, "operator", "default")
    events = sorted(
        (each.to_dict() for each in await client.list("v1/Event")), key=lambda each: each["metadata"]["name"]
    )
    assert [(each["type"], each["reason"], each["message"]) for each in events] == [
        ("Normal", "LeaderElection", "one became leader"),
        ("Normal", "LeaderElection", "one stopped leading"),
    ]
    assert events[0]["involvedObject"]["uid"] == lease.uid
    assert events[0]["source"] == {"component": "leader-election"}


async def test_forbidden_events_do_not_delay_the_election(server: APIServer, client: Client) -> None:
    server.faults.add(resource="events", stall=True, times=None)
    async with replica(server, "one").running() as manager:
        assert await elected(manager) < 0.1
        await asyncio.sleep(60)
        assert manager.statistics().leading
        before = now()
    assert now() - before <= 1.1
    assert (await record(client))["holderIdentity"] == ""


async def test_standby_logs_the_leader_once(server: APIServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "reconciler.manager")
    async with replica(server, "one").running() as first:
        await elected(first)
        async with replica(server, "two").running():
            await asyncio.sleep(60)
    assert [each for each in caplog.messages if each.startswith("new leader")] == [
        "new leader elected: one holds lease default/operator"
    ]


# Two processes


async def test_second_process_waits_and_runs_no_controller(server: APIServer, client: Client) -> None:
    await client.create(config_map("a"))
    working = RecordingReconciler()
    async with replica(server, "one").running(), replica(server, "two", working).running() as second:
        await asyncio.sleep(FAR)
        assert second.statistics().leading is False
        assert second.statistics().state == "running"
        assert working.started == []


async def test_standby_takes_over_soon_after_a_release(server: APIServer, client: Client) -> None:
    await client.create(config_map("a"))
    working = RecordingReconciler()
    async with in_background(first := replica(server, "one")) as running:
        await elected(first)
        async with replica(server, "two", working).running() as second:
            await asyncio.sleep(100)
            first.stop()
            await running
            assert await elected(second) <= 4.5
            await asyncio.sleep(1)
            assert working.ended == ["a"]
            assert (await record(client))["leaseTransitions"] == 1


async def test_new_process_acquires_a_released_lease_immediately(server: APIServer) -> None:
    async with replica(server, "one").running() as first:
        await elected(first)
    async with replica(server, "two").running() as second:
        assert await elected(second) < 0.1


async def test_standby_takes_over_from_a_silent_leader_when_its_lease_expires(
    server: APIServer, client: Client
) -> None:
    await client.create(config_map("a"))
    async with in_background(first := replica(server, "one")) as running, replica(server, "two").running() as second:
        await elected(first)
        await asyncio.sleep(30.5 - now())
        last = now() - 0.5
        server.faults.add(user_agent="one", stall=True, times=None)
        await asyncio.wait({running})
        assert isinstance(running.exception(), LeadershipLost)
        assert now() == pytest.approx(last + 10, abs=0.1)
        await elected(second)
        # The standby reads the lease every 2 to 4.4 s, so it may have seen the last renewal that much later.
        assert last + 15 <= now() <= last + 15 + 2 * 4.4 + 0.1
        assert (await record(client))["leaseTransitions"] == 1
        server.faults.clear()


async def test_expiry_does_not_depend_on_the_times_in_the_lease(server: APIServer, client: Client) -> None:
    """Another machine's clock may be years off: expiry depends on how long the record has not changed locally."""
    await client.create(
        {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": "operator", "namespace": "default"},
            "spec": {
                "holderIdentity": "years ago",
                "leaseDurationSeconds": 15,
                "acquireTime": "2001-01-01T00:00:00.000000Z",
                "renewTime": "2001-01-01T00:00:00.000000Z",
            },
        }
    )
    async with replica(server, "one").running() as manager:
        assert 15 <= await elected(manager) <= 15 + 4.5


async def test_expiry_uses_the_duration_of_the_holder(server: APIServer) -> None:
    first = replica(server, "one", times={"lease_duration": 60, "renew_deadline": 40, "retry_period": 5})
    async with in_background(first) as running:
        await elected(first)
        async with replica(server, "two").running() as second:
            await asyncio.sleep(1)
            server.faults.add(user_agent="one", stall=True, times=None)
            assert 59 <= await elected(second) <= 60 + 2 * 4.4
            assert running.done()
            server.faults.clear()


async def test_leadership_is_lost_immediately_when_another_holder_is_seen(server: APIServer, client: Client) -> None:
    manager = replica(server, "one")
    async with in_background(manager) as running:
        await asyncio.sleep(5)
        await client.patch(LEASE, "operator", "default", patch={"spec": {"holderIdentity": "usurper"}})
        await asyncio.sleep(2.1)
        assert isinstance(running.exception(), LeadershipLost)
        assert "usurper acquired it" in str(running.exception())


async def test_processes_of_the_same_identity_do_not_lead_together(server: APIServer) -> None:
    first, second = replica(server, "one"), replica(server, "one")
    async with in_background(first) as running, second.running():
        await elected(first)
        for _ in range(300):
            await asyncio.sleep(0.1)
            assert not second.statistics().leading
        assert first.statistics().leading
        first.stop()
        await running
        assert await elected(second) < 5


async def test_process_that_starts_again_waits_for_the_lease_it_left_behind(server: APIServer) -> None:
    first = replica(server, "one")
    async with in_background(first) as running:
        await elected(first)
        server.faults.add(resource="leases", stall=True, times=None)
        await asyncio.wait({running})
        assert isinstance(running.exception(), LeadershipLost)
        server.faults.clear()
    async with replica(server, "one").running() as again:
        assert 15 <= await elected(again) <= 15 + 4.5


async def test_a_standby_of_the_same_identity_does_not_release_the_lease(server: APIServer, client: Client) -> None:
    async with replica(server, "one").running() as leader:
        await elected(leader)
        async with replica(server, "one").running():
            server.faults.add(resource="leases", verb="get", latency=1, times=None)
            await asyncio.sleep(4)  # its attempt is in flight when it stops
        server.faults.clear()
        await asyncio.sleep(5)
        assert leader.statistics().leading
        assert (await record(client))["leaseTransitions"] == 0


@pytest.mark.parametrize("process", [None, "another"])
async def test_a_lease_of_another_process_of_the_same_identity_is_left_to_expire(
    server: APIServer, client: Client, process: str | None
) -> None:
    async with replica(server, "one").running():
        pass
    spec = {"holderIdentity": "one", "leaseDurationSeconds": 15}
    patch = {"metadata": {"annotations": {PROCESS_ANNOTATION: process}}, "spec": spec}
    await client.patch(LEASE, "operator", "default", patch=patch)
    async with replica(server, "one").running() as manager:
        assert 15 <= await elected(manager) <= 15 + 4.5


async def test_leadership_is_lost_to_another_process_of_the_same_identity(server: APIServer, client: Client) -> None:
    manager = replica(server, "one")
    async with in_background(manager) as running:
        await asyncio.sleep(5)
        await client.patch(LEASE, "operator", "default", patch=ANOTHER_PROCESS)
        await asyncio.sleep(2.1)
        assert "another process of the same identity one acquired it" in str(running.exception())


async def test_the_lease_of_another_process_of_the_same_identity_is_not_released(
    server: APIServer, client: Client
) -> None:
    async with replica(server, "one").running() as manager:
        await elected(manager)
        await client.patch(LEASE, "operator", "default", patch=ANOTHER_PROCESS)
    assert (await record(client))["holderIdentity"] == "one"


@pytest.mark.parametrize("unread", [False, True])
async def test_a_deleted_lease_is_acquired_when_its_leader_must_have_stopped(
    server: APIServer, client: Client, unread: bool
) -> None:
    first, second = replica(server, "one"), replica(server, "two")
    async with in_background(first):
        await elected(first)
        if unread:  # all that the second one learns of the lease is that it exists
            server.faults.add(user_agent="two", verb="get", resource="leases", status=404)
        async with second.running():
            await asyncio.sleep(0.5)
            server.faults.add(user_agent="one", resource="leases", stall=True, times=None)
            await client.delete(LEASE, "operator", "default")
            assert 15 <= await elected(second) <= 15 + 2 * 4.5


async def test_deleted_lease_is_left_to_the_leader_that_does_not_know_yet(server: APIServer, client: Client) -> None:
    async with replica(server, "one").running() as leader, replica(server, "two").running() as standby:
        await elected(leader)
        await asyncio.sleep(10)
        server.faults.add(user_agent="one", resource="leases", stall=True)  # the leader's next renewal comes later
        await client.delete(LEASE, "operator", "default")
        for _ in range(200):
            await asyncio.sleep(0.1)
            assert not standby.statistics().leading
        assert leader.statistics().leading


async def test_lease_without_a_duration_is_respected(server: APIServer, client: Client) -> None:
    async with replica(server, "one").running() as leader, replica(server, "two").running() as standby:
        await elected(leader)
        for _ in range(20):
            await client.patch(LEASE, "operator", "default", patch={"spec": {"leaseDurationSeconds": None}})
            await asyncio.sleep(1.3)
            assert leader.statistics().leading
            assert not standby.statistics().leading


async def test_removed_annotations_do_not_cost_the_lead(server: APIServer, client: Client) -> None:
    async with replica(server, "one").running() as leader:
        await elected(leader)
        await client.patch(LEASE, "operator", "default", patch={"metadata": {"annotations": None}})
        await asyncio.sleep(30)
        assert leader.statistics().leading
    assert (await record(client))["holderIdentity"] == ""


class RenamedHolder:
    """A server whose responses to writes of the lease name another holder, as after a mutating webhook."""

    def __init__(self, server: APIServer) -> None:
        self.server = server
        self.renames = True

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        response = await self.server.send(request)
        if not self.renames or request.method == "GET" or "/leases" not in request.path or not request.body:
            return response
        return replace(response, body=response.body.replace(b'"one"', b'"webhook"'))


async def test_lease_is_not_held_if_the_response_names_another_holder(server: APIServer) -> None:
    transport = RenamedHolder(server)
    manager = Manager(Client(transport), leader_election=election("one"))
    async with in_background(manager) as running:
        await asyncio.sleep(30)
        assert not manager.statistics().leading
        transport.renames = False
        await elected(manager)
        transport.renames = True
        await asyncio.sleep(2.1)
        assert isinstance(running.exception(), LeadershipLost)
        assert "webhook acquired it" in str(running.exception())


# Losing the lease


async def test_partitioned_leader_starts_no_write_after_the_deadline(server: APIServer, client: Client) -> None:
    """The lease cannot be renewed, but all other requests succeed: only the fence decides what is sent."""

    async def work(request: Any) -> None:
        while True:
            await manager.client.patch(KIND, request.name, "default", patch={"data": {"at": str(now())}})
            await asyncio.sleep(0.25)

    await client.create(config_map("a"))
    manager = replica(server, "one", RecordingReconciler(work))
    async with in_background(manager) as running:
        await asyncio.sleep(8.1)
        server.faults.add(resource="leases", status=503, times=None)
        await asyncio.wait({running})
        assert isinstance(running.exception(), LeadershipLost)
        writes = server.requests(verb="patch", resource="configmaps", user_agent="one")
        start = writes[0].time
        assert 17.5 <= (writes[-1].time - start).total_seconds() <= 18
        assert now() == pytest.approx(18, abs=0.1), "no grace period"


async def test_workers_are_cancelled_before_the_block_when_leadership_is_lost(
    server: APIServer, client: Client
) -> None:
    await client.create(config_map("a"))
    working = RecordingReconciler(lambda _: asyncio.sleep(FAR))
    manager = replica(server, "one", working)

    async def block() -> None:
        async with manager.running():
            try:
                await asyncio.sleep(FAR)
            finally:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(5)
                assert working.cancelled == ["a"]

    server.faults.add(resource="leases", verb="update", status=503, times=None)
    with pytest.raises(LeadershipLost, match="not renewed within 10 s"):
        await block()


async def test_losing_the_lease_during_the_drain_cuts_it_short(server: APIServer, client: Client) -> None:
    await client.create(config_map("a"))
    working = RecordingReconciler(lambda _: asyncio.sleep(FAR))
    manager = replica(server, "one", working, grace_period=500)
    async with in_background(manager) as running:
        await asyncio.sleep(1)
        manager.stop()
        await asyncio.sleep(100)
        assert not running.done()
        server.faults.add(resource="leases", status=503, times=None)
        await asyncio.wait({running})
        assert isinstance(running.exception(), LeadershipLost)
        assert working.cancelled == ["a"]
        assert now() < 115
        server.faults.clear()
        assert (await record(client))["holderIdentity"] == "one", "a lease that was lost is not released"


# Fence


async def test_only_writes_are_refused_while_not_leading(server: APIServer, client: Client) -> None:
    await client.create(config_map("a"))
    async with replica(server, "one").running() as leader, replica(server, "two").running() as standby:
        await asyncio.sleep(5)
        await leader.client.patch(KIND, "a", "default", patch={"data": {"a": "b"}})
        leader.check_leader()
        with pytest.raises(NotLeader, match=r"two is not the leader: lease default/operator is held by one"):
            await standby.client.patch(KIND, "a", "default", patch={"data": {"a": "c"}})
        with pytest.raises(NotLeader):
            await standby.client.live.delete(KIND, "a", "default")
        with pytest.raises(NotLeader):
            standby.check_leader()
        assert (await standby.client.live.get(KIND, "a", "default")).to_dict()["data"] == {"a": "b"}
    assert server.requests(user_agent="two", resource="configmaps", verb={"patch", "delete"}) == []
    with pytest.raises(NotLeader):
        leader.check_leader()


async def test_client_of_the_caller_is_not_fenced(server: APIServer, client: Client) -> None:
    async with replica(server, "one").running():
        manager = Manager(client, leader_election=election("two"))
        async with manager.running():
            await client.create(config_map("a"))


# Stopping before being elected


async def test_stopping_standby_never_leads(server: APIServer, client: Client) -> None:
    await client.create(config_map("a"))
    working, ran = RecordingReconciler(), asyncio.Event()

    async def only_leader() -> None:
        ran.set()

    async with replica(server, "one").running():
        standby = replica(server, "two", working)
        standby.add(only_leader, leader_only=True)
        async with standby.running():
            await asyncio.sleep(30)
        assert (await record(client))["holderIdentity"] == "one"
        await asyncio.sleep(60)
    assert not ran.is_set()
    assert working.started == []


class LateResponses:
    """A transport that delays the responses to writes until after they have taken effect."""

    def __init__(self, server: APIServer, seconds: float) -> None:
        self._server = server
        self.seconds = seconds

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        answer = await self._server.send(request)
        if request.method != "GET":
            await asyncio.sleep(self.seconds)
        return answer


async def test_lease_acquired_during_the_stop_is_released(server: APIServer, client: Client) -> None:
    manager = Manager(Client(LateResponses(server, 3)), leader_election=election("one"))
    async with manager.running():
        await asyncio.sleep(1)
        assert (await record(client))["holderIdentity"] == "one"
        assert not manager.statistics().leading
    assert (await record(client))["holderIdentity"] == ""


async def test_deadline_counts_from_the_start_of_the_successful_request(server: APIServer) -> None:
    late = LateResponses(server, 0)
    manager = Manager(Client(late, user_agent="one"), leader_election=election("one"))
    async with in_background(manager) as running:
        await asyncio.sleep(9)
        late.seconds = 4  # the renewal that starts at 10 gets its response at 14
        await asyncio.sleep(4)
        server.faults.add(user_agent="one", stall=True, times=None)
        await asyncio.wait({running})
        assert now() == pytest.approx(20, abs=0.2)


async def test_lease_of_another_holder_is_not_released(server: APIServer, client: Client) -> None:
    async with replica(server, "one").running():
        await asyncio.sleep(4.5)
        await client.patch(LEASE, "operator", "default", patch={"spec": {"holderIdentity": "usurper"}})
    assert (await record(client))["holderIdentity"] == "usurper"


async def test_standby_leaves_nothing_behind(server: APIServer) -> None:
    async with replica(server, "one").running():
        await asyncio.sleep(1)
        before = asyncio.all_tasks()
        async with replica(server, "two").running():
            await asyncio.sleep(5)
        assert asyncio.all_tasks() == before


async def test_stop_during_the_start_of_controllers_stops_them(server: APIServer, client: Client) -> None:
    before = asyncio.all_tasks()
    server.faults.add(resource="configmaps", status=503, times=None)
    working = RecordingReconciler()
    async with replica(server, "one", working).running() as manager:
        await elected(manager)
        await asyncio.sleep(5)
    assert asyncio.all_tasks() == before
    server.faults.clear()
    await client.create(config_map("a"))
    await asyncio.sleep(100)
    assert working.started == []


class SuspendedClock:
    """The clock of a machine that was suspended: boot time has advanced, timers have not."""

    virtual = True

    def __init__(self) -> None:
        self.suspended = 0.0

    def monotonic(self) -> float:
        return now()

    def boottime(self) -> float:
        return 1e6 + now() + self.suspended

    def now(self) -> datetime:
        return current_clock().now()


async def test_no_write_passes_after_a_suspension_before_timers_fire(server: APIServer, client: Client) -> None:
    """A step that was queued before the suspension runs first afterwards."""
    await client.create(config_map("a"))
    clock = SuspendedClock()
    manager = Manager(Client(server, clock=clock, user_agent="one"), leader_election=election("one"))
    async with in_background(manager) as running:
        await asyncio.sleep(5)
        await manager.client.live.patch(KIND, "a", "default", patch={"data": {"a": "1"}})
        clock.suspended = 9
        with pytest.raises(NotLeader):
            await manager.client.live.patch(KIND, "a", "default", patch={"data": {"a": "2"}})
        await asyncio.wait({running})
        assert isinstance(running.exception(), LeadershipLost)
    assert len(server.requests(verb="patch", user_agent="one")) == 1


async def test_leader_only_runnables_run_while_leading(server: APIServer) -> None:
    story: list[str] = []

    async def only_leader() -> None:
        story.append("starts")
        try:
            await asyncio.sleep(FAR)
        finally:
            story.append("ends")

    async with replica(server, "one").running() as first:
        await elected(first)
        second = replica(server, "two")
        second.add(only_leader, leader_only=True)
        second.add(lambda: asyncio.sleep(0))
        async with second.running():
            await asyncio.sleep(5)
            assert story == []
            first.add(only_leader, leader_only=True)
            await asyncio.sleep(1)
            assert story == ["starts"]
    assert story == ["starts", "ends"]


async def test_leader_that_cannot_sync_stops(server: APIServer, client: Client) -> None:
    manager = replica(server, "one")
    manager.add_controller(RecordingReconciler(), resource="example.com/v1/Nothing", sync_timeout=5)
    with pytest.raises(Exception, match="could not be listed"):
        await manager.run()
    assert (await record(client))["holderIdentity"] == ""


# Configuration


@pytest.mark.parametrize(
    "times",
    [
        {"lease_duration": 10.0},
        {"renew_deadline": 15.0},
        {"retry_period": 9.0},
        {"retry_period": 0.0},
        {"lease_duration": 0.9, "renew_deadline": 0.5, "retry_period": 0.1},
        {"lease_duration": float("inf")},
        {"renew_deadline": float("nan")},
    ],
)
def test_inconsistent_times_are_refused(times: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=r"are inconsistent|must be seconds above 0"):
        election("one", **times)


def test_lease_needs_a_name_and_a_namespace(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    client = Client(APIServer())
    with pytest.raises(ConfigurationError, match="is not a valid lease name"):
        Manager(client, leader_election="")
    with pytest.raises(ConfigurationError, match=r"takes the name of the lease, such as 'my-operator'.*, not True"):
        Manager(client, leader_election=True)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"LeaderElection\.namespace="):
        Manager(client, leader_election="operator")
    with pytest.raises(ConfigurationError, match=r"LeaderElection\.namespace="):
        Manager(client, leader_election="operator", namespaces=["a", "b"])
    Manager(client, leader_election="operator", namespaces=["prod"])
    Manager(client, leader_election=LeaderElection("operator", namespace="prod"))
    (tmp_path / "namespace").write_text("prod\n")
    monkeypatch.setattr("reconciler.manager.election._POD_NAMESPACE", tmp_path / "namespace")
    Manager(client, leader_election="operator")


async def test_identities_are_unique(server: APIServer, client: Client) -> None:
    holders = set()
    for _ in range(2):
        async with Manager(client, leader_election=LeaderElection("operator", namespace="default")).running() as one:
            await elected(one)
            holders.add((await record(client))["holderIdentity"])
    assert len(holders) == 2


async def test_a_renewal_that_is_cancelled_by_others_ends_the_manager(server: APIServer) -> None:
    """Such as by a transport of the user that shares a task with other requests; the lease would expire unnoticed."""

    class Cancelled:
        def __init__(self, below: Any) -> None:
            self._below = below

        async def send(self, request: HTTPRequest) -> HTTPResponse:
            if request.method == "PUT" and now() >= 10:
                raise asyncio.CancelledError
            response: HTTPResponse = await self._below.send(request)
            return response

    manager = Manager(Client(server).through(Cancelled), leader_election=election("one"))
    with pytest.raises(ManagerError, match="leader election was cancelled, but not by the manager"):
        await manager.run()
    assert now() < 15
