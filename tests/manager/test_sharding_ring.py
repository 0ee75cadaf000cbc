"""A shard of a ring: its Lease, its watches, drains, moved objects, and the handover, under virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from reconciler import Manager, Request, Resource, ResourceReconciler, Result
from reconciler.apiserver import APIServer, LoggedRequest
from reconciler.client import Client
from reconciler.controller import Outcome, Predicate, Watch, generation_changed
from reconciler.errors import ConfigurationError, Conflict
from reconciler.http import HTTPRequest, HTTPResponse, Transport
from reconciler.manager import LeaderElection, LeadershipLost, NotLeader, ShardRing
from reconciler.objects import ConditionedStatus, Model, ObjectMeta
from reconciler.status import StatusBatcher
from tests.manager.sharder import LEASE, RING_LABEL, Sharder
from tests.manager.working import RecordingReconciler

pytestmark = pytest.mark.virtual_time

MAP = "v1/ConfigMap"
SHARD = "shard.alpha.sharding.timebertt.dev/apps"
DRAIN = "drain.alpha.sharding.timebertt.dev/apps"


class AppSpec(Model):
    size: int = 1


class AppStatus(ConditionedStatus):
    by: str | None = None


class App(Resource[AppSpec, AppStatus], group="example.com", version="v1"):
    """A sharded kind."""


def app(name: str, **labels: str) -> App:
    return App(metadata=ObjectMeta(name=name, namespace="default", labels=labels), spec=AppSpec())


def config_map(name: str, **labels: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default", "labels": labels},
        "data": {},
    }


def mine(name: str, shard: str = "one") -> dict[str, Any]:
    document = config_map(name)
    document["metadata"]["labels"] = {SHARD: shard}
    return document


def ring(shard: str = "one", **options: Any) -> ShardRing:
    return ShardRing("apps", [MAP, App], shard=shard, namespace="default", **options)


class RecordingTransport:
    """A transport that records requests."""

    def __init__(self, server: APIServer) -> None:
        self.server = server
        self.sent: list[HTTPRequest] = []

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        self.sent.append(request)
        return await self.server.send(request)


def shard(server: Transport, name: str, working: Any = None, **options: Any) -> Manager:
    manager = Manager(Client(server, user_agent=name), sharding=ring(name), namespaces=["default"])
    if working is not None:
        manager.add_controller(working, resource=MAP, **options)
    return manager


async def label(client: Client, name: str, **labels: str | None) -> None:
    """Set labels; ``shard`` and ``drain`` stand for the ring's labels."""
    keys = {"shard": SHARD, "drain": DRAIN}
    patch = {"metadata": {"labels": {keys.get(key, key): value for key, value in labels.items()}}}
    await client.patch(MAP, name, "default", patch=patch)


async def labels_of(client: Client, name: str) -> dict[str, str]:
    return (await client.get(MAP, name, "default")).to_dict()["metadata"].get("labels") or {}


@contextlib.asynccontextmanager
async def at_work(server: Transport, name: str, working: Any, **options: Any) -> AsyncIterator[Manager]:
    async with shard(server, name, working, **options).running() as manager:
        await asyncio.sleep(3)
        assert manager.statistics().leading
        yield manager


# The Lease


async def test_shard_holds_a_lease_with_its_name_and_releases_it(server: APIServer, client: Client) -> None:
    async with at_work(server, "one", RecordingReconciler()):
        lease = (await client.get(LEASE, "one", "default")).to_dict()
        assert lease["metadata"]["labels"] == {RING_LABEL: "apps"}
        assert lease["spec"]["holderIdentity"] == "one"
        assert lease["spec"]["leaseDurationSeconds"] == 15
    lease = (await client.get(LEASE, "one", "default")).to_dict()
    assert lease["spec"]["holderIdentity"] == ""
    assert lease["metadata"]["labels"] == {RING_LABEL: "apps"}


async def test_sharder_labels_on_the_lease_are_kept(server: APIServer, client: Client) -> None:
    async with at_work(server, "one", RecordingReconciler()):
        await client.patch(
            LEASE, "one", "default", patch={"metadata": {"labels": {"state": "ready", RING_LABEL: None}}}
        )
        await asyncio.sleep(10)
        lease = (await client.get(LEASE, "one", "default")).to_dict()
        assert lease["metadata"]["labels"] == {"state": "ready", RING_LABEL: "apps"}


async def test_nothing_runs_before_the_lease_is_held(server: APIServer, client: Client) -> None:
    await client.create(mine("a"))
    spec = {"holderIdentity": "sharder", "leaseDurationSeconds": 15}
    metadata = {"name": "one", "namespace": "default"}
    await client.create({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec})
    working = RecordingReconciler()
    async with shard(server, "one", working).running():
        await asyncio.sleep(14)
        assert working.started == []
        await asyncio.sleep(10)
        assert working.started == ["a"]


async def test_shard_stops_writing_when_the_sharder_acquires_its_lease(server: APIServer, client: Client) -> None:
    await client.create(mine("a"))
    refused: list[Exception] = []

    async def write(request: Request) -> None:
        try:
            await asyncio.sleep(30)
        finally:
            try:
                await manager.client.patch(MAP, "a", "default", patch={"data": {"late": "yes"}})
            except NotLeader as error:
                refused.append(error)

    manager = shard(server, "one", RecordingReconciler(write))

    async def run() -> None:
        async with manager.running():
            await asyncio.sleep(5)
            await client.patch(LEASE, "one", "default", patch={"spec": {"holderIdentity": "sharder"}})
            await asyncio.sleep(60)

    with pytest.raises(LeadershipLost, match="sharder acquired it"):
        await run()
    assert len(refused) == 1
    assert (await client.get(MAP, "a", "default")).to_dict().get("data", {}) == {}


async def test_shard_that_cannot_renew_stops_at_the_deadline(server: APIServer, client: Client) -> None:
    await client.create(mine("a"))
    started: list[float] = []

    async def often(_: Request) -> Result:
        started.append(asyncio.get_running_loop().time())
        return Result(requeue_after=0.1)

    async def run() -> None:
        async with shard(server, "one", RecordingReconciler(often)).running():
            await asyncio.sleep(5)
            server.faults.add(status=503, resource="leases", times=None)
            await asyncio.sleep(60)

    began = asyncio.get_running_loop().time()
    with pytest.raises(LeadershipLost, match="not renewed within 10 s"):
        await run()
    assert max(started) - began == pytest.approx(14, abs=0.2), "the last renewal began after 4 s"


async def test_second_ring_with_the_same_shard_name_is_an_error_at_the_start(client: Client, server: APIServer) -> None:
    def of(ring: str, name: str = "one", **options: Any) -> Manager:
        sharding = ShardRing(ring, [MAP], shard=name, namespace="default")
        return Manager(Client(server), sharding=sharding, namespaces=["default"], **options)

    async with of("apps").running():
        for start in (of("maps").run, of("maps").running().__aenter__):
            with pytest.raises(ConfigurationError, match=r"Lease default/one, .*pass another shard="):
                await start()
        async with of("maps", "two").running() as other:
            await asyncio.sleep(3)
            assert other.statistics().leading
    async with of("maps").running() as later:
        await asyncio.sleep(3)
        assert later.statistics().leading


# Watches


async def test_only_objects_labeled_with_the_shard_are_watched(server: APIServer, client: Client) -> None:
    await server.apply(App)
    for name, owner in (("a", "one"), ("b", "two")):
        await client.create(mine(name, owner))
    await client.create(config_map("nobodys"))
    working, recording = RecordingReconciler(), RecordingTransport(server)
    async with at_work(
        recording, "one", working, watches=[Watch(App, mapper=lambda _: []), Watch("v1/Secret")]
    ) as manager:
        assert working.started == ["a"]
        assert manager.cache.statistics().objects == 1
        await client.create(mine("c"))
        await asyncio.sleep(1)
        assert working.started == ["a", "c"]
    watches = [each for each in recording.sent if ("watch", "true") in each.query]
    asked = {each.path.rpartition("/")[2]: dict(each.query).get("labelSelector") for each in watches}
    assert asked == {"configmaps": f"{SHARD}=one", "apps": f"{SHARD}=one", "secrets": None}


async def test_events_for_objects_of_other_shards_enqueue_nothing(server: APIServer, client: Client) -> None:
    await client.create(mine("a"))
    await client.create(mine("b", "two"))
    working = RecordingReconciler()
    async with at_work(server, "one", working, watches=[Watch("v1/Secret")]) as manager:
        for name in ("a", "b"):
            await client.create(
                {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "default"}}
            )
        await asyncio.sleep(1)
        assert working.started == ["a", "a"]
        assert manager.statistics().controllers[0].reconciles == 2


# Drain


async def test_drain_is_acknowledged_by_one_conditional_patch_instead_of_a_reconcile(
    server: APIServer, client: Client
) -> None:
    await client.create(mine("a"))
    working, recording = RecordingReconciler(), RecordingTransport(server)
    async with at_work(recording, "one", working) as manager:
        await label(client, "a", drain="true", other="stays")
        asked_at = (await client.get(MAP, "a", "default")).resource_version
        await asyncio.sleep(1)
        assert await labels_of(client, "a") == {"other": "stays"}
        assert working.started == ["a"]
        [patch] = [each for each in recording.sent if each.method == "PATCH"]
        metadata = json.loads(patch.body or b"")["metadata"]
        assert patch.headers["content-type"] == "application/merge-patch+json"
        assert metadata == {"labels": {SHARD: None, DRAIN: None}, "resourceVersion": asked_at}
        assert list(manager.controllers[0].queue.keys()) == []
        assert manager.cache.statistics().objects == 0


@pytest.mark.parametrize("predicate", [generation_changed, Predicate(lambda _: False, name="nothing")])
async def test_predicates_do_not_hide_a_drain(
    server: APIServer, client: Client, predicate: Callable[[Any], bool]
) -> None:
    await client.create(mine("a"))
    async with at_work(server, "one", RecordingReconciler(), predicates=[predicate]):
        await label(client, "a", drain="")
        await asyncio.sleep(1)
        assert await labels_of(client, "a") == {}


async def test_drain_waits_for_the_reconcile_in_progress(server: APIServer, client: Client) -> None:
    await client.create(mine("a"))
    working = RecordingReconciler(lambda _: asyncio.sleep(20))
    async with at_work(server, "one", working):
        await label(client, "a", drain="true")
        await asyncio.sleep(10)
        assert working.ended == []
        assert SHARD in await labels_of(client, "a"), "nobody else may begin yet"
        await asyncio.sleep(10)
        assert working.ended == ["a"]
        assert await labels_of(client, "a") == {}


class OwnerReporter(ResourceReconciler[App]):
    """A reconciler that writes its shard into the status after a while."""

    def __init__(self, by: str) -> None:
        self.by = by
        self.runs = 0

    async def reconcile_object(self, obj: App, status: StatusBatcher[AppStatus], /) -> Outcome:
        self.runs += 1
        await asyncio.sleep(10)
        status.set(by=self.by)
        return None


async def test_drain_that_arrives_with_a_status_write_is_not_taken_for_an_echo(
    server: APIServer, client: Client
) -> None:
    await server.apply(App)
    await client.create(App(metadata=ObjectMeta(name="a", namespace="default", labels={SHARD: "one"}), spec=AppSpec()))
    manager = shard(server, "one")
    manager.add_controller(telling := OwnerReporter("one"))
    async with manager.running():
        await asyncio.sleep(5)
        await client.patch(App, "a", "default", patch={"metadata": {"labels": {DRAIN: "true"}}})
        await asyncio.sleep(20)
        found = await client.get(App, "a", "default")
        assert telling.runs == 1
        assert found.status.by == "one", "it was still this shard's when the status was written"
        assert found.metadata.labels == {}


async def test_drain_is_acknowledged_on_the_newest_version_after_conflicts(server: APIServer, client: Client) -> None:
    await client.create(mine("a"))
    async with at_work(server, "one", RecordingReconciler()):
        server.faults.add(latency=5, verb="patch", user_agent="one")
        await label(client, "a", drain="true")
        await asyncio.sleep(1)
        await client.patch(MAP, "a", "default", patch={"data": {"by": "another"}})
        await asyncio.sleep(10)
        found = (await client.get(MAP, "a", "default")).to_dict()
        assert found["metadata"].get("labels", {}) == {}
        assert found["data"] == {"by": "another"}
    answers = [each.status for each in server.requests(verb="patch", resource="configmaps", user_agent="one")]
    assert answers == [409, 200]


async def test_withdrawn_drain_is_reconciled_instead(server: APIServer, client: Client) -> None:
    await client.create(mine("a"))
    working = RecordingReconciler()
    async with at_work(server, "one", working):
        server.faults.add(latency=5, verb="patch", user_agent="one")
        await label(client, "a", drain="true")
        await asyncio.sleep(1)
        await label(client, "a", drain=None)
        await asyncio.sleep(20)
        assert await labels_of(client, "a") == {SHARD: "one"}
        assert working.started[:2] == ["a", "a"]


async def test_late_drain_leaves_the_object_to_its_new_shard(server: APIServer, client: Client) -> None:
    await client.create(mine("a"))
    working = RecordingReconciler()
    async with at_work(server, "one", working):
        server.faults.add(latency=5, verb="patch", user_agent="one")
        await label(client, "a", drain="true")
        await asyncio.sleep(1)
        await label(client, "a", drain=None, shard="two")
        await asyncio.sleep(20)
        assert await labels_of(client, "a") == {SHARD: "two"}
        assert working.started == ["a"]


@pytest.mark.parametrize("seconds", [(20.0, 0.0), (0.0, 20.0), (8.0, 20.0), (20.0, 20.0)])
async def test_drain_waits_for_every_controller_of_the_kind(
    server: APIServer, client: Client, seconds: tuple[float, float]
) -> None:
    await client.create(mine("a"))
    manager = shard(server, "one")
    first, second = (RecordingReconciler(lambda _, each=each: asyncio.sleep(each)) for each in seconds)
    manager.add_controller(first, resource=MAP, name="first")
    manager.add_controller(second, resource=MAP, name="second")
    async with manager.running():
        await asyncio.sleep(3)
        await label(client, "a", drain="true")
        await asyncio.sleep(15)
        assert SHARD in await labels_of(client, "a"), "one of them still reconciles it"
        await asyncio.sleep(10)
        assert (first.ended, second.ended) == (["a"], ["a"])
        assert await labels_of(client, "a") == {}
        assert [list(each.queue.keys()) for each in manager.controllers] == [[], []]


async def test_no_controller_of_the_kind_begins_during_a_handover(server: APIServer, client: Client) -> None:
    await client.create(mine("a"))
    manager = shard(server, "one")
    drained, woken = RecordingReconciler(), RecordingReconciler()
    manager.add_controller(drained, resource=MAP, name="drained")
    other = manager.add_controller(woken, resource=MAP, name="woken")
    async with manager.running():
        await asyncio.sleep(3)
        server.faults.add(latency=5, verb="patch", user_agent="one")
        await client.patch(MAP, "a", "default", patch={"data": {"by": "another"}})
        await asyncio.sleep(1)
        before = len(woken.started)
        await label(client, "a", drain="true")
        await asyncio.sleep(1)
        other.enqueue(Request("a", "default"))
        await asyncio.sleep(10)
        assert await labels_of(client, "a") == {}
        assert len(woken.started) == before


async def test_drain_that_is_withdrawn_while_another_controller_reconciles(server: APIServer, client: Client) -> None:
    await client.create(mine("a"))
    manager = shard(server, "one")

    async def later(_: Request) -> Result:
        return Result(requeue_after=30)

    slow, quick = RecordingReconciler(lambda _: asyncio.sleep(20)), RecordingReconciler(later)
    manager.add_controller(slow, resource=MAP, name="slow")
    manager.add_controller(quick, resource=MAP, name="quick", predicates=[generation_changed])
    async with manager.running():
        await asyncio.sleep(3)
        await label(client, "a", drain="true")
        await asyncio.sleep(1)
        await label(client, "a", drain=None)
        await asyncio.sleep(50)
        assert await labels_of(client, "a") == {SHARD: "one"}
        assert len(slow.ended) == 2
        assert len(quick.ended) == 3, "at the start, when the drain is withdrawn, and after its delay"


# Objects that move


async def test_moved_label_drops_a_delayed_key(server: APIServer, client: Client) -> None:
    await client.create(mine("a"))

    async def later(_: Request) -> Result:
        return Result(requeue_after=60)

    working = RecordingReconciler(later)
    async with at_work(server, "one", working) as manager:
        await label(client, "a", shard="two")
        await asyncio.sleep(1)
        assert list(manager.controllers[0].queue.keys()) == []
        await asyncio.sleep(100)
        assert working.started == ["a"]


async def test_moved_label_ends_the_backoff(server: APIServer, client: Client) -> None:
    await client.create(mine("a"))

    async def fail(_: Request) -> None:
        raise ValueError("again")

    working = RecordingReconciler(fail)
    async with at_work(server, "one", working) as manager:
        await label(client, "a", shard="two")
        await asyncio.sleep(1)
        before = len(working.started)
        await asyncio.sleep(2000)
        assert len(working.started) == before
        assert manager.controllers[0].queue.retries(Request("a", "default")) == 0


async def test_label_is_checked_again_before_a_delayed_reconcile(server: APIServer, client: Client) -> None:
    """An own write has moved the object, and its watch event has not arrived yet."""
    await client.create(mine("a"))

    async def later(_: Request) -> Result:
        return Result(requeue_after=30)

    working = RecordingReconciler(later)
    async with at_work(server, "one", working) as manager:
        server.faults.add(status=503, verb="watch", times=None)
        server.cut_watches()
        await label(manager.client, "a", shard="two")
        await asyncio.sleep(40)
        assert working.started == ["a"]


async def test_key_that_moves_during_a_reconcile_writes_no_status(server: APIServer, client: Client) -> None:
    await server.apply(App)
    await client.create(App(metadata=ObjectMeta(name="a", namespace="default", labels={SHARD: "one"}), spec=AppSpec()))
    first, second = shard(server, "one"), shard(server, "two")
    first.add_controller(one := OwnerReporter("one"))
    second.add_controller(two := OwnerReporter("two"))
    async with first.running(), second.running():
        await asyncio.sleep(5)
        assert (one.runs, two.runs) == (1, 0)
        await client.patch(App, "a", "default", patch={"metadata": {"labels": {SHARD: "two"}}})
        await asyncio.sleep(30)
        assert (one.runs, two.runs) == (1, 1)
        assert (await client.get(App, "a", "default")).status.by == "two"
    accepted = [each.user_agent for each in server.requests(subresource="status", name="a") if each.status == 200]
    assert accepted == ["two"]


class Hesitant(ResourceReconciler[App]):
    """A reconciler that writes whatever a reconcile can write, after a while."""

    finalizer = "example.com/hesitant"
    kstatus_conditions = True

    def __init__(self, by: str, write: Callable[[Hesitant, App], Any]) -> None:
        self.by = by
        self.write = write
        self.finalized: list[str] = []

    async def _hesitate(self, obj: App) -> None:
        await asyncio.sleep(10)
        written = self.write(self, obj) if obj.spec.size > 1 else None
        if written is not None:
            await written

    async def reconcile_object(self, obj: App, status: StatusBatcher[AppStatus], /) -> Outcome:
        await self._hesitate(obj)
        status.set(by=self.by)
        return None

    async def finalize(self, obj: App, status: StatusBatcher[AppStatus], /) -> Outcome:
        await self._hesitate(obj)
        self.finalized.append(self.by)
        return None


async def in_thread(working: Hesitant, obj: App) -> None:
    await asyncio.to_thread(lambda: working.wait(working.client.create(config_map("made"))))


async def read_again(working: Hesitant, obj: App) -> None:
    for _ in range(3):
        with contextlib.suppress(Conflict):
            stored = await working.client.live.get(App, obj.name, "default")
            await working.client.update(stored)
            return


WRITES: dict[str, Callable[[Hesitant, App], Any]] = {
    "nothing but the status": lambda _working, _obj: None,
    "an Event": lambda working, obj: working.events.normal(obj, "Worked", "done"),
    "an owned object": lambda working, obj: working.client.apply(config_map("made"), owner=obj),
    "its finalizer": lambda working, obj: working.client.patch(
        App, obj.name, "default", patch={"metadata": {"finalizers": []}}
    ),
    "in a thread": in_thread,
    "after it has read again": read_again,
}


def writes_of(server: APIServer, shard: str) -> list[LoggedRequest]:
    sent = server.requests(user_agent=shard, namespace="default")
    return [each for each in sent if each.method != "GET" and each.resource != "leases"]


@pytest.mark.parametrize("deleted", [False, True], ids=["", "deleted"])
@pytest.mark.parametrize("write", WRITES)
async def test_reconcile_whose_object_moves_writes_nothing(
    server: APIServer, client: Client, write: str, deleted: bool
) -> None:
    await server.apply(App)
    await client.create(app("a", **{SHARD: "one"}))
    first, second = shard(server, "one"), shard(server, "two")
    controller = first.add_controller(Hesitant("one", WRITES[write]))
    second.add_controller(two := Hesitant("two", lambda _working, _obj: None))
    async with first.running(), second.running():
        await asyncio.sleep(5)
        await client.patch(App, "a", "default", patch={"spec": {"size": 2}})
        if deleted:
            await client.delete(App, "a", "default")
        await asyncio.sleep(10)  # the first reconcile has ended, and the next one is in progress
        server.log.clear()
        before = controller.statistics()
        await client.patch(App, "a", "default", patch={"metadata": {"labels": {SHARD: "two"}}})
        await asyncio.sleep(30)
        after = controller.statistics()
        assert (before.active, after.active) == (1, 0)
        assert (after.results["error"], after.unsaved.kept, len(controller.queue)) == (0, 0, 0)
        assert two.finalized == (["two"] if deleted else [])
    assert writes_of(server, "one") == []


@pytest.mark.parametrize("deleted", [False, True], ids=["added", "removed"])
async def test_finalizer_is_left_to_the_new_shard_although_the_watch_lags(
    server: APIServer, client: Client, deleted: bool
) -> None:
    await server.apply(App)
    made = app("a", **{SHARD: "one"})
    if deleted:
        made.metadata.finalizers = [Hesitant.finalizer]
    await client.create(made)
    if deleted:
        await client.delete(made)
    manager = shard(server, "one")
    manager.add_controller(Hesitant("one", lambda _working, _obj: None))
    server.faults.add(latency=15, verb="patch", user_agent="one")
    async with manager.running():
        await asyncio.sleep(5)
        for verb in ("list", "watch"):
            server.faults.add(status=503, verb=verb, user_agent="one", times=None)
        server.cut_watches()
        await client.patch(App, "a", "default", patch={"metadata": {"labels": {SHARD: "two"}}})
        await asyncio.sleep(60)
        assert (await client.get(App, "a", "default")).metadata.finalizers == ([Hesitant.finalizer] if deleted else [])
    assert [each.status for each in writes_of(server, "one")] == [409]


async def test_event_of_the_last_reconcile_before_a_handover_is_not_lost(server: APIServer, client: Client) -> None:
    await server.apply(App)
    made = app("a", **{SHARD: "one"})
    made.spec.size = 2
    await client.create(made)
    manager = shard(server, "one")
    manager.add_controller(Hesitant("one", WRITES["an Event"]))
    server.faults.add(status=503, verb="create", resource="events", times=1)
    async with manager.running():
        await asyncio.sleep(5)
        await client.patch(App, "a", "default", patch={"metadata": {"labels": {DRAIN: "true"}}})
        await asyncio.sleep(20)
        assert (await client.get(App, "a", "default")).metadata.labels == {}
    assert [event["reason"] for event in await client.list("v1/Event", "default")] == ["Worked"]


async def test_deleted_objects_are_not_reconciled(server: APIServer, client: Client) -> None:
    await client.create(mine("a"))
    working = RecordingReconciler()
    async with at_work(server, "one", working) as manager:
        await client.delete(MAP, "a", "default")
        await asyncio.sleep(10)
        assert working.started == ["a"]
        assert list(manager.controllers[0].queue.keys()) == []


# With a sharder


class Log:
    """A log of reconciles by shard that detects overlaps."""

    def __init__(self) -> None:
        self.in_hand: dict[str, str] = {}
        self.overlaps: list[tuple[str, str, str]] = []
        self.last: dict[str, str] = {}

    def working(self, shard: str) -> RecordingReconciler:
        async def work(request: Request) -> Result:
            if request.name in self.in_hand:
                self.overlaps.append((request.name, self.in_hand[request.name], shard))
            self.in_hand[request.name] = self.last[request.name] = shard
            try:
                await asyncio.sleep(0.7)
            finally:
                self.in_hand.pop(request.name, None)
            return Result(requeue_after=1)

        return RecordingReconciler(work)


async def test_each_key_has_exactly_one_shard_while_shards_come_and_go(server: APIServer, client: Client) -> None:
    names = {f"map-{number}" for number in range(30)}
    for name in names:
        await client.create(config_map(name))
    log = Log()

    async def all_worked() -> dict[str, str]:
        log.last.clear()
        await asyncio.sleep(20)
        return dict(log.last)

    async with Sharder(client, "apps", MAP, "default").running() as sharder, contextlib.AsyncExitStack() as stack:
        third = contextlib.AsyncExitStack()
        for name in ("one", "two"):
            await stack.enter_async_context(shard(server, name, log.working(name), workers=4).running())
        await third.enter_async_context(shard(server, "three", log.working("three"), workers=4).running())
        await asyncio.sleep(30)
        before = await all_worked()
        assert set(before) == names
        assert set(before.values()) == {"one", "two", "three"}
        await third.aclose()
        without = await all_worked()
        assert set(without) == names
        assert set(without.values()) == {"one", "two"}
        moved_by_force, drained = sharder.forced, sharder.drained
        assert moved_by_force > 0
        await stack.enter_async_context(shard(server, "four", log.working("four"), workers=4).running())
        await asyncio.sleep(20)
        after = await all_worked()
        assert set(after) == names
        assert set(after.values()) == {"one", "two", "four"}
        assert sharder.drained > drained
        assert sharder.forced == moved_by_force, "from living shards objects are drained"
        assert log.overlaps == []


# Configuration and permissions


async def test_ring_and_leader_election_exclude_each_other(client: Client) -> None:
    with pytest.raises(ConfigurationError, match="exclude each other"):
        Manager(client, sharding=ring(), leader_election=LeaderElection("operator", namespace="default"))
    with pytest.raises(ConfigurationError, match="takes a ShardRing or a ShardByIndex"):
        Manager(client, sharding="apps")  # type: ignore[arg-type]


async def test_controller_of_a_kind_that_is_not_sharded_is_refused(client: Client) -> None:
    manager = Manager(client, sharding=ShardRing("apps", ["v1/Secret"], shard="one", namespace="default"))
    with pytest.raises(ConfigurationError, match="not among the kinds="):
        manager.add_controller(RecordingReconciler(), resource=MAP)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ShardRing("", [MAP], shard="one"), "ring name"),
        (lambda: ShardRing("a" * 64, [MAP], shard="one"), "at most 63"),
        (lambda: ShardRing("apps", [MAP], shard="One"), "shard name 'One'"),
        (lambda: ShardRing("apps", [], shard="one"), "is not a sequence of kinds"),
        (lambda: ShardRing("apps", "v1/ConfigMap", shard="one"), "is not a sequence of kinds"),  # type: ignore[arg-type]
        (lambda: ShardRing("apps", ["nonsense"], shard="one"), "nonsense"),
        (lambda: ShardRing("apps", [MAP], shard="one", lease_duration=5), "are inconsistent"),
    ],
)
def test_invalid_ring_is_refused(make: Callable[[], ShardRing], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make()


def test_shard_is_named_after_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "operator-5vwpj")
    assert ShardRing("apps", [MAP]).name == "operator-5vwpj"


async def test_ring_needs_a_namespace_for_its_lease(client: Client) -> None:
    with pytest.raises(ConfigurationError, match="pass namespace="):
        Manager(client, sharding=ShardRing("apps", [MAP], shard="one"))
    watched = Manager(client, sharding=ShardRing("apps", [MAP], shard="one"), namespaces=["prod"])
    assert watched.statistics().shard == "one"


async def test_roles_allow_leases_of_any_name_and_drains(client: Client) -> None:
    manager = Manager(client, sharding=ring(), namespaces=["default"])
    manager.add_controller(RecordingReconciler(), resource=MAP)
    roles = [each for each in manager.rbac("apps") if each["kind"] in ("Role", "ClusterRole")]
    rules = {resource: rule for role in roles for rule in role["rules"] for resource in rule["resources"]}
    assert set(rules["leases"]["verbs"]) == {"create", "get", "update"}
    assert "resourceNames" not in rules["leases"]
    assert set(rules["configmaps"]["verbs"]) == {"get", "list", "watch", "patch"}
