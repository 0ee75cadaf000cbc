"""Unsaved status mutations: kept, applied first by the next reconcile, and before the body if they were refused."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest

from reconciler.cache import EventType
from reconciler.controller import Predicate, Reconciler, Result
from reconciler.controller.reconcile.cycle import UnsavedStore
from reconciler.controller.wake.predicates import Unsharded
from reconciler.errors import NotFound
from reconciler.http import HTTPRequest, HTTPResponse
from reconciler.meta import Request
from reconciler.status import StatusBatcher, StatusError
from reconciler.workqueue import ExponentialBackoff, MaxOf, TokenBucket
from tests.controller.conftest import KeyReconciler, Widget, WidgetReconciler, World, quiet

KEY = Request("w", "ns")


class TestStore:
    def test_is_taken_once(self):
        store = UnsavedStore()
        store.keep(KEY, "uid", "mutations")
        assert KEY in store
        assert store.take(KEY, "uid") == "mutations"
        assert store.take(KEY, "uid") is None

    def test_mutations_of_another_uid_are_dropped(self):
        store = UnsavedStore()
        store.keep(KEY, "old", "mutations")
        assert store.take(KEY, "new") is None
        assert store.take(KEY, "old") is None

    def test_is_bounded_and_counts_what_it_drops(self):
        store = UnsavedStore(limit=2)
        for number in range(5):
            store.keep(Request(f"w{number}", "ns"), "uid", number)
            store.block(Request(f"w{number}", "ns"), "uid", 1)
        statistics = store.statistics()
        assert (statistics.kept, statistics.blocked, statistics.dropped) == (2, 2, 3)
        assert store.take(Request("w4", "ns"), "uid") == 4

    def test_only_kept_mutations_can_be_blocked_and_are_new_once(self):
        store = UnsavedStore()
        assert not store.block(KEY, "uid", 1)
        store.keep(KEY, "uid", "mutations")
        assert not store.block(KEY, "another", 1)
        assert store.block(KEY, "uid", 1)
        assert not store.block(KEY, "uid", 1)
        assert store.is_blocked(KEY, "uid", 1)
        assert not store.is_blocked(KEY, "another", 1)

    def test_stays_blocked_while_a_batcher_holds_it(self):
        store = UnsavedStore()
        store.keep(KEY, "uid", "mutations")
        store.block(KEY, "uid", 1)
        store.take(KEY, "uid")
        assert not store.is_blocked(KEY, "uid", 1)
        store.keep(KEY, "uid", "mutations")
        assert store.is_blocked(KEY, "uid", 1)
        store.unblock(KEY)
        assert not store.is_blocked(KEY, "uid", 1)

    def test_blocks_one_generation(self):
        store = UnsavedStore()
        store.keep(KEY, "uid", "mutations")
        assert store.block(KEY, "uid", 1)
        assert not store.is_blocked(KEY, "uid", 2)
        assert store.block(KEY, "uid", 2)
        assert store.is_blocked(KEY, "uid", 2)

    def test_deletion_forgets(self):
        store = UnsavedStore()
        store.keep(KEY, "uid", "mutations")
        store.block(KEY, "uid", 1)
        store.forget(KEY)
        assert store.statistics().kept == store.statistics().blocked == 0


async def deliver_once(reconciler, obj, status):
    """A reconciler that must act once, and records that it has acted."""
    if not obj.status.runs:
        reconciler.delivered = getattr(reconciler, "delivered", 0) + 1
        status.increment("runs")


@pytest.mark.virtual_time
async def test_next_reconcile_sees_unsaved_mutations_and_saves_them(world: World) -> None:
    reconciler = WidgetReconciler(deliver_once)
    world.server.faults.add(subresource="status", status=409, times=5)
    controller = await world.start(reconciler)
    await world.widget()
    await quiet(600)
    assert reconciler.delivered == 1
    assert len(reconciler.runs) == 2
    assert (await world.read()).status.runs == 1
    assert controller.statistics().unsaved.kept == 0


@pytest.mark.virtual_time
async def test_while_the_server_refuses_the_body_does_not_run(world: World) -> None:
    reconciler = WidgetReconciler(deliver_once)
    fault = world.server.faults.add(subresource="status", status=403, times=None)
    controller = await world.start(reconciler)
    await world.widget()
    await quiet(600)
    assert (len(reconciler.runs), reconciler.delivered) == (1, 1)
    assert controller.statistics().unsaved.kept == controller.statistics().unsaved.blocked == 1
    assert 5 < fault.hits < 30  # with backoff
    fault.remove()
    await quiet(1200)
    assert reconciler.delivered == 1
    assert (await world.read()).status.runs == 1
    assert controller.statistics().unsaved.kept == controller.statistics().unsaved.blocked == 0
    assert controller.queue.retries(KEY) == 0


class Webhook:
    """An admission webhook of the status, which a server calls before it stores a write."""

    def __init__(self, *, slow: bool = False) -> None:
        self.is_up = False
        self.slow = slow

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        if self.is_up:
            review = json.loads(request.body)
            response = {"uid": review["request"]["uid"], "allowed": True}
            return HTTPResponse(200, body=json.dumps({**review, "request": None, "response": response}).encode())
        if self.slow:
            await asyncio.sleep(3600)
        return HTTPResponse(503)

    async def install(self, world: World) -> None:
        world.server.connect_webhooks("https://webhook.example", self)
        rule = {"apiGroups": ["example.com"], "apiVersions": ["v1"], "operations": ["*"], "resources": ["*/status"]}
        hook = {
            "name": "v.example.com",
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "clientConfig": {"url": "https://webhook.example/v"},
            "rules": [rule],
            "timeoutSeconds": 1,
        }
        kind = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration"}
        await world.foreign.create({**kind, "metadata": {"name": "v"}, "webhooks": [hook]})


@pytest.mark.virtual_time
@pytest.mark.parametrize("slow", [False, True])
async def test_while_an_admission_webhook_is_down_a_reconcile_costs_one_request(world: World, slow: bool) -> None:
    reconciler, webhook = WidgetReconciler(deliver_once), Webhook(slow=slow)
    await webhook.install(world)
    controller = await world.start(reconciler)
    await world.widget()
    await quiet(600)
    assert (len(reconciler.runs), reconciler.delivered) == (1, 1)
    assert kept(controller) == (1, 1)
    sent = world.server.requests(user_agent="controller", name="w")
    assert len(sent) == controller.statistics().results["error"] > 5
    assert {each.subresource for each in sent} == {"status"}
    webhook.is_up = True
    await quiet(1200)
    assert reconciler.delivered == 1
    assert (await world.read()).status.runs == 1
    assert kept(controller) == (0, 0)


@pytest.mark.virtual_time
async def test_while_the_credentials_are_refused_the_body_does_not_run(world: World) -> None:
    reconciler = WidgetReconciler(deliver_once)
    fault = world.server.faults.add(subresource="status", status=401, times=None)
    controller = await world.start(reconciler)
    await world.widget()
    await quiet(600)
    assert (len(reconciler.runs), reconciler.delivered) == (1, 1)
    assert kept(controller) == (1, 1)
    fault.remove()
    await quiet(1200)
    assert (await world.read()).status.runs == 1
    assert kept(controller) == (0, 0)


@pytest.mark.virtual_time
async def test_refused_status_becomes_one_warning_event_and_a_log_line(world: World, caplog) -> None:
    world.server.faults.add(subresource="status", status=403, times=None)
    await world.start(WidgetReconciler())
    await world.widget()
    await quiet(600)
    events = [e for e in await world.foreign.list("v1/Event", "ns") if e["reason"] == "StatusNotSaved"]
    assert len(events) == 1
    assert events[0]["type"] == "Warning"
    assert "phase" in events[0]["message"]
    lines = [r.message for r in caplog.records if r.levelname == "ERROR"]
    assert lines[0].startswith(
        "widget failed on ns/w and is not reconciled until its status can be saved, which is retried with backoff, "
        "or its spec changes: StatusRejected: "
    )
    assert all("on ns/w" in line and "is not reconciled until" in line for line in lines)


@pytest.mark.virtual_time
async def test_error_of_the_body_and_refused_status_are_both_in_the_log(world: World, caplog) -> None:
    async def body(reconciler, obj, status):
        status.increment("runs")
        raise RuntimeError("no disk")

    world.server.faults.add(subresource="status", status=403, times=None)
    await world.start(WidgetReconciler(body))
    await world.widget()
    await quiet(0.001)
    first, second = [r.message for r in caplog.records if r.levelname == "ERROR"]
    assert first.startswith("the status of ns/w cannot be saved: ")
    assert second == (
        "widget failed on ns/w and is not reconciled until its status can be saved, which is retried with backoff, "
        "or its spec changes: RuntimeError: no disk"
    )


@pytest.mark.virtual_time
async def test_new_spec_is_reconciled_and_its_failure_is_retried(world: World, caplog) -> None:
    async def body(reconciler, obj, status):
        if obj.spec.size == 2:
            raise RuntimeError("no disk")

    fault = world.server.faults.add(subresource="status", status=403, times=None)
    await world.start(WidgetReconciler(body))
    await world.widget()
    await quiet(0.001)
    fault.remove()
    await world.resize(2)
    await quiet(0.001)
    assert caplog.records[-1].message == "widget failed on ns/w and is retried with backoff: RuntimeError: no disk"


@pytest.mark.virtual_time
async def test_refusal_after_a_failing_body_blocks_too(world: World) -> None:
    async def body(reconciler, obj, status):
        status.increment("runs")
        raise RuntimeError("no")

    reconciler = WidgetReconciler(body)
    world.server.faults.add(subresource="status", status=422, times=None)
    await world.start(reconciler)
    await world.widget()
    await quiet(600)
    assert len(reconciler.runs) == 1


@pytest.mark.virtual_time
async def test_misuse_of_the_batcher_does_not_block_the_body(world: World) -> None:
    async def body(reconciler, obj, status):
        if len(reconciler.runs) == 1:
            status.set(nonsense=1)

    reconciler = WidgetReconciler(body)
    await world.start(reconciler)
    await world.widget()
    await quiet(60)
    assert len(reconciler.runs) == 2
    assert (await world.read()).status.phase == "Ready"


@pytest.mark.virtual_time
async def test_deleted_object_leaves_nothing_behind(world: World) -> None:
    world.server.faults.add(subresource="status", status=403, times=None)
    controller = await world.start(WidgetReconciler())
    await world.widget()
    await quiet(60)
    await world.foreign.delete(Widget, "w", "ns")
    await quiet(600)
    assert controller.statistics().unsaved.kept == controller.statistics().unsaved.blocked == 0


@pytest.mark.virtual_time
async def test_plain_reconcilers_own_batcher_keeps_its_mutations_as_well(world: World) -> None:
    class ByKey(Reconciler):
        runs = 0

        async def reconcile(self, request):
            self.runs += 1
            obj = await self.client.get(Widget, *request)
            async with StatusBatcher(self.client, obj) as status:
                if not status.current.get("runs"):
                    status.increment("runs")
            return None if self.runs > 1 else Result(requeue_after=1)

    reconciler = ByKey()
    world.server.faults.add(subresource="status", status=409, times=5)
    await world.start(reconciler, resource=Widget)
    await world.widget()
    await quiet(600)
    assert (await world.read()).status.runs == 1
    assert reconciler.runs == 2


@pytest.mark.virtual_time
async def test_what_each_retry_records_again_is_kept_once(world: World) -> None:
    async def body(reconciler, obj, status):
        status.increment("runs")
        status.set_condition("Ready", False, reason="Down", message=f"attempt {len(reconciler.runs)}")

    reconciler = WidgetReconciler(body)
    fault = world.server.faults.add(subresource="status", status=409, times=None)
    controller = await world.start(reconciler)
    await world.widget()
    await quiet(3600)
    assert len(reconciler.runs) > 15
    unsaved = controller._unsaved.entries[KEY][1]
    assert [mutation.verb for mutation in unsaved.mutations] == ["set", "set", "increment", "set_condition", "set"]
    fault.remove()
    await quiet(3600)
    assert (await world.read()).status.runs == len(reconciler.runs)


async def refusing(world: World, body=None, **options):
    """Start a controller whose status writes are refused."""
    world.server.faults.add(subresource="status", status=403, times=None)
    reconciler = WidgetReconciler(body)
    return reconciler, await world.start(reconciler, **options)


def kept(controller) -> tuple[int, int]:
    statistics = controller.statistics()
    return statistics.unsaved.kept, statistics.unsaved.blocked


@pytest.mark.virtual_time
@pytest.mark.parametrize("predicates", [[], [~Predicate.of_types(EventType.DELETED)]])
async def test_object_deleted_while_it_is_reconciled_leaves_nothing_behind(world: World, predicates) -> None:
    async def body(reconciler, obj, status):
        await world.foreign.delete(Widget, "w", "ns")
        await asyncio.sleep(1)  # the event comes first, then saving the status fails

    reconciler, controller = await refusing(world, body, predicates=predicates)
    await world.widget()
    await quiet(0.5)
    assert len(reconciler.runs) == 1
    await quiet(600)
    assert kept(controller) == (0, 0)
    assert controller.queue.retries(KEY) == 0


@pytest.mark.virtual_time
async def test_deletion_that_a_predicate_drops_leaves_nothing_behind(world: World) -> None:
    _, controller = await refusing(world, predicates=[~Predicate.of_types(EventType.DELETED)])
    await world.widget()
    await quiet(60)
    assert kept(controller) == (1, 1)
    await world.foreign.delete(Widget, "w", "ns")
    await quiet(0.1)
    assert kept(controller) == (0, 0)


@pytest.mark.virtual_time
async def test_object_replaced_while_it_is_reconciled_leaves_nothing_behind(world: World) -> None:
    """The reconcile of the new object opens no batcher that would drop the mutations of the old one."""

    class ByKey(Reconciler):
        runs = 0

        async def reconcile(self, request):
            self.runs += 1
            if self.runs > 1:
                return
            obj = await self.client.get(Widget, *request)
            with contextlib.suppress(StatusError):
                async with StatusBatcher(self.client, obj) as status:
                    status.set(phase="Ready")
                    await world.foreign.delete(Widget, "w", "ns")
                    await world.widget()
                    await asyncio.sleep(1)

    world.server.faults.add(subresource="status", status=403, times=None)
    controller = await world.start(ByKey(), resource=Widget)
    await world.widget()
    await quiet(600)
    assert kept(controller) == (0, 0)


@pytest.mark.virtual_time
async def test_key_of_another_shard_leaves_nothing_behind(world: World) -> None:
    class Leaving(Unsharded):
        sharded = True
        admitted = True

        async def may_reconcile(self, request):
            return self.admitted

    responsibility = Leaving()
    _, controller = await refusing(world, shard_filter=responsibility)
    await world.widget()
    await quiet(10)
    assert kept(controller) == (1, 1)
    responsibility.admitted = False
    await quiet(600)
    assert kept(controller) == (0, 0)
    assert controller.queue.retries(KEY) == 0
    assert not controller.queue.keys()


@pytest.mark.virtual_time
async def test_task_that_outlives_its_reconcile_leaves_nothing_behind(world: World) -> None:
    tasks = []

    async def outlive(client, obj):
        with contextlib.suppress(StatusError):
            async with StatusBatcher(client, obj, join=False) as status:
                status.set(phase="Late")
                await asyncio.sleep(100)

    class ByKey(Reconciler):
        async def reconcile(self, request):
            with contextlib.suppress(NotFound):
                obj = await self.client.get(Widget, *request)
                tasks.append(asyncio.create_task(outlive(self.client, obj)))

    world.server.faults.add(subresource="status", status=403, times=None)
    controller = await world.start(ByKey(), resource=Widget)
    await world.widget()
    await quiet()
    await world.foreign.delete(Widget, "w", "ns")
    await quiet(600)
    assert all(task.done() for task in tasks)
    assert kept(controller) == (0, 0)


@pytest.mark.virtual_time
async def test_failures_of_a_deleted_object_are_forgotten(world: World) -> None:
    async def body(reconciler, request):
        raise RuntimeError("no")

    limiter = MaxOf(ExponentialBackoff(1, 1000), TokenBucket(0.01, 1))
    controller = await world.start(KeyReconciler(body), resource=Widget, rate_limiter=limiter)
    await world.widget()
    await quiet(400)
    before = controller.queue.retries(KEY)
    await world.foreign.delete(Widget, "w", "ns")
    await quiet(0.1)
    assert controller.queue.retries(KEY) == 1 < before  # the reconcile after the deletion


@pytest.mark.virtual_time
@pytest.mark.parametrize("event_order", ["before", "after", "late", "seeded"], indirect=True)
@pytest.mark.parametrize("applied", [True, False])
@pytest.mark.parametrize("writes", [1, 2])
async def test_a_token_decides_later_whether_a_write_without_response_was_applied(
    world: World, applied: bool, writes: int
) -> None:
    """An increment is neither lost nor made twice, although no flush could learn whether its write was applied."""

    async def body(reconciler, request):
        obj = await reconciler.client.get(Widget, *request)
        async with StatusBatcher(reconciler.client, obj, token="foreign") as status:
            status.increment("runs")

    reconciler = KeyReconciler(body)
    controller = await world.start(reconciler, resource=Widget)
    await world.widget()
    await quiet(60)
    world.server.faults.add(
        subresource="status", user_agent="controller", times=writes, lost=True, after_commit=applied
    )
    unreadable = world.server.faults.add(verb="get", name="w", user_agent="controller", stall=True, times=None)
    controller.enqueue(KEY)
    await quiet(30 * writes)
    unreadable.remove()
    await quiet(600)
    assert controller.statistics().results["error"] >= 1
    assert (await world.read()).status.runs == len(reconciler.runs)
    assert controller.statistics().unsaved.kept == 0


@pytest.mark.virtual_time
async def test_without_a_token_a_doubtful_write_is_not_repeated(world: World) -> None:
    tokens: list[str | None] = [None, "foreign", None]

    async def body(reconciler, request):
        obj = await reconciler.client.get(Widget, *request)
        async with StatusBatcher(reconciler.client, obj, token=tokens[min(len(reconciler.runs), 3) - 1]) as status:
            status.increment("runs")

    reconciler = KeyReconciler(body)
    controller = await world.start(reconciler, resource=Widget)
    await world.widget()
    await quiet(60)
    world.server.faults.add(subresource="status", lost=True, after_commit=True)
    unreadable = world.server.faults.add(verb="get", name="w", user_agent="controller", stall=True, times=None)
    controller.enqueue(KEY)
    await quiet(9)
    await quiet(2)
    unreadable.remove()
    await quiet(600)
    assert (await world.read()).status.runs == len(reconciler.runs)
