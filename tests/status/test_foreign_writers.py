"""Batchers among foreign writers on an API server: nothing is lost, nothing counted twice, no flush writes twice.

In each example, replicas of one controller work on one object at once while others write to the same status, in an
interleaving that hypothesis chooses. Then the object is compared with arithmetic, and the requests with the log of the
server: the request log of the embedded one, the audit log of the real one.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st
from pydantic import Field

from reconciler.apiserver import APIServer
from reconciler.client import Client
from reconciler.errors import Conflict
from reconciler.meta.field_managers import program_name
from reconciler.objects import ConditionedStatus, Model, Resource, schema_extra
from reconciler.status import StatusBatcher, StatusConflict, StatusError, StatusOutcomeUnknown
from reconciler.status.recording import StatusStatistics
from reconciler.status.writer import Strategy
from reconciler.testing import virtual_time
from reconciler.testing.cluster import Cluster, embedded_cluster, real_cluster
from tests.depth import examples

OTHER = "other-manager"
OWN = program_name()
KIND = "writers.example.com/v1/Busy"
TICK = 0.004
"""Seconds: about a request, less than a batcher's first pause."""

PHASES = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)  # explaining takes minutes

_numbers = itertools.count(1)


class Spec(Model):
    size: int = 1


class Entry(Model):
    id: str
    n: int = 0


class Status(ConditionedStatus):
    total: int | None = None
    log: list[str] | None = None
    ledger: list[Entry] | None = Field(
        default=None, json_schema_extra=schema_extra(list_type="map", list_map_keys=("id",))
    )
    deep: dict[str, int] | None = None
    phase: str | None = None
    theirs: int | None = None
    last_write: str | None = None


class Busy(Resource[Spec, Status], group="writers.example.com", version="v1"):
    """An object with many writers."""


keyed = [
    st.tuples(st.just("append-key"), st.integers(1, 3)),
    st.tuples(st.just("upsert"), st.integers(1, 3)),
    st.tuples(st.just("remove-item"), st.integers(1, 3)),
    st.tuples(st.just("deep"), st.integers(1, 9)),
    st.tuples(st.just("condition"), st.sampled_from(["Ready", "Healthy"])),
]
counting = [st.tuples(st.just("increment"), st.integers(-2, 3))]
ordered = [
    st.tuples(st.just("append"), st.integers(1, 9)),
    st.tuples(st.just("mutate"), st.integers(1, 2)),
]
waits = st.integers(0, 4)


def cycles(operations: list[Any]) -> st.SearchStrategy[Any]:
    """One replica: reconciles of (pause before, operations, pause inside)."""
    block = st.lists(st.one_of(*operations), min_size=1, max_size=4)
    return st.lists(st.tuples(waits, block, waits), min_size=1, max_size=3)


foreign = st.lists(
    st.tuples(waits, st.sampled_from(["increment", "append", "upsert", "deep", "condition", "spec", "annotate"])),
    max_size=6,
)


@dataclass
class Replica:
    """One process of the controller, and what it has successfully requested."""

    name: str
    total: int = 0
    log: list[str] = field(default_factory=list)
    ledger: dict[str, int] = field(default_factory=dict)
    deep: int | None = None
    conditions: set[str] = field(default_factory=set)
    statistics: list[StatusStatistics] = field(default_factory=list)
    errors: list[StatusError] = field(default_factory=list)
    doubtful: list[int] = field(default_factory=list)  # what each flush with an unknown outcome adds to the total

    async def work(self, client: Client, name: str, namespace: str, plan: Any, **options: Any) -> None:
        for number, (pause, operations, inside) in enumerate(plan):
            await asyncio.sleep(pause * TICK)
            obj = (await client.get(KIND, name, namespace)).to_dict()
            batcher: StatusBatcher[Any] = StatusBatcher(client, obj, **options)
            try:
                async with batcher as status:
                    for index, operation in enumerate(operations):
                        self.record(status, f"{self.name}-{number}-{index}", *operation)
                    await asyncio.sleep(inside * TICK)
            except StatusError as error:
                self.errors.append(error)
                if isinstance(error, StatusOutcomeUnknown):
                    self.doubtful.append(sum(v for verb, v in operations if verb in ("increment", "mutate")))
            else:
                for index, operation in enumerate(operations):
                    self.remember(f"{self.name}-{number}-{index}", *operation)
            self.statistics.append(batcher.statistics())

    def record(self, status: StatusBatcher[Any], mark: str, verb: str, value: Any) -> None:
        entry = {"id": f"{self.name}-{value}", "n": len(mark)}
        match verb:
            case "increment":
                status.increment("total", value)
            case "mutate":
                status.mutate(lambda s: s.update(total=s.get("total", 0) + value))
            case "append":
                status.append("log", mark)
            case "append-key":
                status.append("ledger", entry, key="id")
            case "upsert":
                status.upsert("ledger", entry, key="id")
            case "remove-item":
                status.remove("ledger", item={"id": entry["id"]})
            case "deep":
                status.set(f"deep.{self.name}", value)
            case _:
                status.set_condition(f"{self.name}{value}", True, reason="Tested")

    def remember(self, mark: str, verb: str, value: Any) -> None:
        key = f"{self.name}-{value}"
        match verb:
            case "increment" | "mutate":
                self.total += value
            case "append":
                self.log.append(mark)
            case "append-key":
                self.ledger.setdefault(key, len(mark))
            case "upsert":
                self.ledger[key] = len(mark)
            case "remove-item":
                self.ledger.pop(key, None)
            case "deep":
                self.deep = value
            case _:
                self.conditions.add(f"{self.name}{value}")


class Foreigners:
    """Other writers, which read, change and write back with compare-and-swap, as a careful client does."""

    def __init__(self, client: Client, name: str, namespace: str) -> None:
        self.client = client
        self.key = (name, namespace)
        self.total = self.fields = 0
        self.log: list[str] = []
        self.ledger: list[str] = []
        self.conditions: list[str] = []

    async def work(self, plan: Any) -> None:
        for number, (pause, what) in enumerate(plan):
            await asyncio.sleep(pause * TICK)
            await self.act(what, f"theirs-{number}")

    async def act(self, what: str, mark: str) -> None:
        match what:
            case "spec":
                await self.client.patch(KIND, *self.key, patch={"spec": {"size": len(mark)}})
            case "annotate":
                await self.client.patch(KIND, *self.key, patch={"metadata": {"annotations": {mark: "x"}}})
            case "increment":
                await self.change(lambda s: s.update(total=s.get("total", 0) + 1))
                self.total += 1
            case "append":
                await self.change(lambda s: s.setdefault("log", []).append(mark))
                self.log.append(mark)
            case "upsert":
                await self.change(lambda s: s.setdefault("ledger", []).append({"id": mark, "n": 0}))
                self.ledger.append(mark)
            case "condition":
                condition = {"type": mark, "status": "True", "reason": "Theirs", "message": ""}
                await self.change(
                    lambda s: s.setdefault("conditions", []).append(
                        {**condition, "lastTransitionTime": "2026-01-01T00:00:00Z"}
                    )
                )
                self.conditions.append(mark)
            case _:
                await self.change(lambda s: s.update(theirs=s.get("theirs", 0) + 1))
                self.fields += 1

    async def change(self, change: Callable[[dict[str, Any]], object]) -> None:
        while True:
            document = (await self.client.get(KIND, *self.key)).to_dict()
            status = document.get("status") or {}
            change(status)
            body = {"metadata": {"resourceVersion": document["metadata"]["resourceVersion"]}, "status": status}
            try:
                await self.client.patch(KIND, *self.key, patch=body, subresource="status", field_manager=OTHER)
            except Conflict:
                await asyncio.sleep(TICK / 3)
            else:
                return


async def play(
    cluster: Cluster,
    plans: list[Any],
    foreign_plan: Any,
    *,
    strategy: Strategy,
    **options: Any,
) -> tuple[str, dict[str, Any], list[Replica], Foreigners]:
    """Run an example; return the object's name, its final status, and both sides."""
    server = cluster.server
    other = Client(server, user_agent="others") if isinstance(server, APIServer) else cluster.client
    name = f"busy-{next(_numbers)}"
    document = {
        "apiVersion": Busy.gvk.api_version,
        "kind": "Busy",
        "metadata": {"name": name, "namespace": cluster.namespace},
        "spec": {"size": 1},
    }
    await other.create(document)
    begin = {"status": {"phase": "New"}}
    await other.patch(KIND, name, cluster.namespace, patch=begin, subresource="status", field_manager="creator")
    replicas = [Replica(f"r{number}") for number in range(len(plans))]
    others = Foreigners(other, name, cluster.namespace)
    await asyncio.gather(
        others.work(foreign_plan),
        *(
            replica.work(cluster.client, name, cluster.namespace, plan, strategy=strategy, **options)
            for replica, plan in zip(replicas, plans, strict=True)
        ),
    )
    status = (await cluster.client.get(KIND, name, cluster.namespace)).to_dict().get("status") or {}
    return name, status, replicas, others


def assert_foreign_survives(status: dict[str, Any], others: Foreigners) -> None:
    assert status.get("theirs", 0) == others.fields
    assert [entry for entry in status.get("log", []) if entry.startswith("theirs")] == others.log
    assert [e["id"] for e in status.get("ledger", []) if e["id"].startswith("theirs")] == others.ledger
    assert [c["type"] for c in status.get("conditions", []) if c["type"].startswith("theirs")] == others.conditions


def assert_own_is_there_once(status: dict[str, Any], replicas: list[Replica], others: Foreigners) -> None:
    assert status.get("total", 0) == others.total + sum(replica.total for replica in replicas)
    for replica in replicas:
        assert [entry for entry in status.get("log", []) if entry.startswith(replica.name)] == replica.log
        mine = {e["id"]: e["n"] for e in status.get("ledger", []) if e["id"].startswith(replica.name)}
        assert mine == replica.ledger
        assert status.get("deep", {}).get(replica.name) == replica.deep
        assert {
            c["type"] for c in status.get("conditions", []) if c["type"].startswith(replica.name)
        } == replica.conditions


@dataclass(frozen=True)
class Write:
    """One status write in the log of a server."""

    manager: str
    code: int


def writes(cluster: Cluster, name: str) -> list[Write]:
    """Return the server's own log of the status writes after the first one, the creator's."""
    if isinstance(cluster.server, APIServer):
        logged = cluster.server.requests(name=name, namespace=cluster.namespace, subresource="status")
        logged = [entry for entry in logged if entry.verb in ("patch", "update")]
        return [Write(entry.field_manager, entry.status) for entry in logged][1:]
    audited = cluster.server.audit(name=name, namespace=cluster.namespace, subresource="status")
    audited = [record for record in audited if record.verb in ("patch", "update")]
    return [Write(OTHER if f"fieldManager={OTHER}" in record.uri else OWN, record.code) for record in audited][1:]


def assert_the_log_agrees(cluster: Cluster, name: str, replicas: list[Replica]) -> None:
    """At most one write of a flush was applied, and the batchers' counts equal the server's."""
    codes = Counter(write.code for write in writes(cluster, name) if write.manager == OWN)
    flushes = [statistics for replica in replicas for statistics in replica.statistics]
    assert all(one.flushes == 1 and one.attempts <= 5 and one.reads <= 5 for one in flushes)
    assert codes[200] == sum(one.written + one.ignored for one in flushes)
    assert codes[409] == sum(one.conflicts for one in flushes)
    assert sum(codes.values()) == sum(one.attempts for one in flushes)


def on_the_embedded_server(scenario: Callable[[Cluster], Any]) -> None:
    async def run() -> list[Replica]:
        async with embedded_cluster() as cluster:
            await cluster.install(Busy)
            assert isinstance(cluster.server, APIServer)
            cluster.server.faults.add(latency=TICK / 4, times=None)
            replicas: list[Replica] = await scenario(cluster)
            return replicas

    with virtual_time():
        replicas = asyncio.run(run())
    event(f"{sum(len(r.errors) for r in replicas)} errors, {sum(len(r.doubtful) for r in replicas)} of them doubtful")
    event(f"{sum(s.replays for r in replicas for s in r.statistics) > 0} replays")


two_replicas = st.lists(cycles(keyed + counting + ordered), min_size=1, max_size=2)
two_appliers = st.lists(cycles(keyed + counting), min_size=1, max_size=2)


async def judge(cluster: Cluster, plans: list[Any], foreign_plan: Any, strategy: Strategy) -> list[Replica]:
    name, status, replicas, others = await play(cluster, plans, foreign_plan, strategy=strategy)
    errors = [error for replica in replicas for error in replica.errors]
    assert all(isinstance(error, StatusConflict) for error in errors), errors
    assert_foreign_survives(status, others)
    assert_own_is_there_once(status, replicas, others)
    if strategy != "apply":
        assert_the_log_agrees(cluster, name, replicas)
    return replicas


@settings(deadline=None, max_examples=examples(100), phases=PHASES)
@given(two_replicas, foreign)
def test_merge_patches_of_replicas_among_foreign_writers_add_up(plans: list[Any], foreign_plan: Any) -> None:
    on_the_embedded_server(lambda cluster: judge(cluster, plans, foreign_plan, "merge"))


@settings(deadline=None, max_examples=examples(60), phases=PHASES)
@given(two_replicas, foreign)
def test_updates_of_replicas_among_foreign_writers_add_up(plans: list[Any], foreign_plan: Any) -> None:
    on_the_embedded_server(lambda cluster: judge(cluster, plans, foreign_plan, "update"))


@settings(deadline=None, max_examples=examples(60), phases=PHASES)
@given(two_appliers, foreign)
def test_applies_of_replicas_among_foreign_writers_add_up(plans: list[Any], foreign_plan: Any) -> None:
    on_the_embedded_server(lambda cluster: judge(cluster, plans, foreign_plan, "apply"))


FAULTS: dict[str, dict[str, Any]] = {
    "409": {"status": 409},
    "429": {"status": 429, "retry_after": 0},
    "500": {"status": 500},
    "504 applied": {"status": 504, "after_commit": True},
    "lost": {"lost": True},
    "lost applied": {"lost": True, "after_commit": True},
}


@settings(deadline=None, max_examples=examples(150), phases=PHASES)
@given(
    cycles(keyed + counting + ordered),
    foreign,
    st.lists(st.sampled_from(sorted(FAULTS)), max_size=5),
    st.booleans(),
)
def test_under_failures_nothing_is_lost_silently_and_nothing_is_counted_twice(
    plan: Any, foreign_plan: Any, kinds: list[str], with_token: bool
) -> None:
    async def scenario(cluster: Cluster) -> list[Replica]:
        assert isinstance(cluster.server, APIServer)
        for kind in kinds:
            cluster.server.faults.add(**FAULTS[kind], verb="patch", subresource="status", user_agent="kube-reconciler")
        options = {"token": "lastWrite"} if with_token else {}
        _, status, (replica,), others = await play(cluster, [plan], foreign_plan, strategy="merge", **options)
        assert_foreign_survives(status, others)
        if not replica.doubtful:
            assert_own_is_there_once(status, [replica], others)
            return [replica]
        totals = {others.total + replica.total}
        for doubt in replica.doubtful:
            totals |= {total + doubt for total in totals}
        assert status.get("total", 0) in totals
        log, names = status.get("log", []), [entry["id"] for entry in status.get("ledger", [])]
        assert len(log) == len(set(log)), "nothing is stored twice"
        assert len(names) == len(set(names))
        assert set(replica.log) <= set(log), "what was reported as written is stored"
        return [replica]

    on_the_embedded_server(scenario)


# The same on a real server, checked against its audit log.


@pytest.fixture
async def real(control_plane: Any) -> AsyncIterator[Cluster]:
    async with real_cluster(control_plane) as cluster:
        await cluster.install(Busy)
        yield cluster


def examples(operations: list[Any], number: int) -> list[tuple[list[Any], Any]]:
    """Return examples that are the same in every run."""
    found: list[tuple[list[Any], Any]] = []

    @settings(max_examples=number, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.lists(cycles(operations), min_size=2, max_size=2), foreign)
    def collect(plans: list[Any], foreign_plan: Any) -> None:
        found.append((plans, foreign_plan))

    collect()
    return found[-number:]


@pytest.mark.control_plane
@pytest.mark.timeout(300)
@pytest.mark.parametrize("strategy", ["merge", "update", "apply"])
async def test_on_a_real_server_replicas_among_foreign_writers_add_up(real: Cluster, strategy: Strategy) -> None:
    replayed = 0
    for plans, foreign_plan in examples(keyed + counting + ([] if strategy == "apply" else ordered), 60):
        replicas = await judge(real, plans, foreign_plan, strategy)
        replayed += sum(statistics.replays for replica in replicas for statistics in replica.statistics)
    assert replayed > 20, "the examples must contain conflicts"
