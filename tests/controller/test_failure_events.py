"""Events on objects whose reconciles fail, and succeed again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from reconciler._core.redaction import engine
from reconciler.errors import TerminalError
from reconciler.meta import Request
from reconciler.workqueue import ExponentialBackoff, TokenBucket
from tests.controller.conftest import KeyReconciler, Widget, WidgetReconciler, WidgetSpec, World, quiet

pytestmark = pytest.mark.virtual_time


async def events(world: World, name: str = "w") -> list[tuple[str, str, str]]:
    """Return type, reason and message of the Events on an object, in the order of their creation."""
    found = [event for event in await world.foreign.list("v1/Event", "ns") if event["involvedObject"]["name"] == name]
    found.sort(key=lambda event: int(event["metadata"]["name"].rpartition(".")[2], 16))
    return [(event["type"], event["reason"], event["message"]) for event in found]


def failing(*errors: BaseException | None):
    """Return a body that raises one of these per reconcile; None returns; afterwards it succeeds."""
    left = list(errors)

    async def body(reconciler, obj, *_):
        error = left.pop(0) if left else None
        if error is not None:
            raise error

    return body


FAILED = ("Warning", "ReconcileFailed", "RuntimeError: disk is full")
SUCCEEDED = ("Normal", "ReconcileSucceeded", "reconciled without an error again")


async def test_third_failure_in_a_row_is_reported_on_the_object_and_so_is_the_success(world: World) -> None:
    body = failing(*[RuntimeError("disk is full")] * 4)
    controller = await world.start(WidgetReconciler(body), rate_limiter=ExponentialBackoff(1, 1))
    stored = await world.widget()
    await quiet(1.5)
    assert await events(world) == []
    await quiet(1)
    assert await events(world) == [FAILED]
    [event] = await world.foreign.list("v1/Event", "ns")
    about = event["involvedObject"]
    assert (about["apiVersion"], about["kind"], about["namespace"]) == ("example.com/v1", "Widget", "ns")
    assert about["uid"] == stored.metadata.uid
    assert event["source"]["component"] == "widget"
    await quiet(10)
    assert await events(world) == [FAILED, SUCCEEDED]
    controller.enqueue(stored.key)
    await quiet()
    assert len(await events(world)) == 2  # the success is news once


async def test_one_or_two_failures_are_not_reported(world: World) -> None:
    no = RuntimeError("no")
    controller = await world.start(WidgetReconciler(failing(no, no, None, no, no, None, no)))
    await world.widget()
    for _ in range(3):
        await quiet(60)
        controller.enqueue(Request("w", "ns"))
    await quiet(60)
    assert controller.statistics().results["error"] == 5
    assert await events(world) == []


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (TerminalError("no such plan"), "TerminalError: no such plan"),
        (TerminalError(), "TerminalError"),
        (
            ExceptionGroup("all", [TerminalError("a"), TerminalError("b")]),
            "ExceptionGroup: all (2 sub-exceptions): TerminalError: a; TerminalError: b",
        ),
    ],
)
async def test_terminal_error_is_reported_at_once(world: World, error, message) -> None:
    await world.start(WidgetReconciler(failing(error)))
    await world.widget()
    await quiet(60)
    assert await events(world) == [("Warning", "ReconcileFailed", message)]
    await world.resize(2)
    await quiet(60)
    assert await events(world) == [("Warning", "ReconcileFailed", message), SUCCEEDED]


async def test_terminal_error_that_follows_other_failures_is_reported_at_once(world: World) -> None:
    """It is not repeated, so there is no later reconcile that could report it."""
    body = failing(*[RuntimeError("disk is full")] * 3, *[TerminalError("no such plan")] * 3, TerminalError("no disk"))
    controller = await world.start(WidgetReconciler(body), rate_limiter=ExponentialBackoff(1, 1))
    stored = await world.widget()
    await quiet(5)
    assert [message for *_, message in await events(world)] == [FAILED[2], "TerminalError: no such plan"]
    for _ in range(3):
        controller.enqueue(stored.key)
        await quiet(1)
    found = sorted(await world.foreign.list("v1/Event", "ns"), key=lambda event: event["message"])
    expected = [(FAILED[2], 1), ("TerminalError: no disk", 1), ("TerminalError: no such plan", 1)]
    assert [(event["message"], event["count"]) for event in found] == expected


@pytest.mark.parametrize("by_key", [True, False])
async def test_failure_of_a_deleted_object_is_not_reported_on_its_successor(world: World, by_key: bool) -> None:
    async def body(reconciler, *_):
        bodies.append(reconciler.run.reasons)
        if len(bodies) == 1:
            await asyncio.sleep(10)
            raise TerminalError("the first one is wrong")

    bodies: list[frozenset[str]] = []
    if by_key:
        await world.start(KeyReconciler(body), resource=Widget)
    else:
        await world.start(WidgetReconciler(body))
    await world.widget()
    await quiet(5)
    await world.foreign.delete(Widget, "w", "ns")
    await world.widget()
    await quiet(60)
    assert len(bodies) == 2
    assert await events(world) == []


async def test_timeout_is_reported_at_once(world: World) -> None:
    async def body(reconciler, obj, status):
        await asyncio.sleep(1000)

    await world.start(WidgetReconciler(body), timeout=5, rate_limiter=ExponentialBackoff(100, 100))
    await world.widget()
    await quiet(10)
    message = "ReconcileTimeout: the reconcile did not end within 5 s"
    assert await events(world) == [("Warning", "ReconcileFailed", message)]


async def test_refused_status_is_reported_at_once(world: World) -> None:
    world.server.faults.add(subresource="status", status=403, times=None)
    await world.start(WidgetReconciler(), rate_limiter=ExponentialBackoff(100, 100))
    await world.widget()
    await quiet(10)
    [found] = [event for event in await events(world) if event[1] == "ReconcileFailed"]
    assert found[2].startswith("StatusRejected: ")


async def test_failures_that_go_on_are_one_event_with_a_count(world: World) -> None:
    """Once a minute at most, so that an outage is not a flood of writes."""
    await world.start(WidgetReconciler(failing(*[RuntimeError("disk is full")] * 1000)))
    await world.widget()
    await quiet(600)
    [event] = await world.foreign.list("v1/Event", "ns")
    assert 3 <= event["count"] <= 5
    writes = world.server.requests(verb={"create", "patch"}, resource="events")
    assert len(writes) == event["count"]


async def test_failure_of_a_reconciler_by_key_is_reported_on_the_cached_object(world: World) -> None:
    body = failing(*[RuntimeError("disk is full")] * 3)
    await world.start(KeyReconciler(body), resource=Widget)
    await world.widget()
    await quiet(60)
    assert await events(world) == [FAILED, SUCCEEDED]


async def test_limiter_that_does_not_count_failures_is_no_obstacle(world: World) -> None:
    await world.start(WidgetReconciler(failing(*[RuntimeError("disk is full")] * 3)), rate_limiter=TokenBucket(1, 1))
    await world.widget()
    await quiet(60)
    assert await events(world) == [FAILED, SUCCEEDED]


async def test_key_without_an_object_is_not_reported(world: World) -> None:
    body = failing(*[RuntimeError("no")] * 5, TerminalError("no"))
    controller = await world.start(KeyReconciler(body), resource=Widget)
    controller.enqueue(Request("absent", "ns"))
    await quiet(60)
    assert controller.statistics().results["error"] == 6
    assert not await world.foreign.list("v1/Event")


async def test_failures_of_an_object_do_not_count_for_the_next_one_of_its_name(world: World) -> None:
    no = RuntimeError("no")
    body, limiter = failing(no, no, no, no, no), ExponentialBackoff(10, 10)
    controller = await world.start(KeyReconciler(body), resource=Widget, rate_limiter=limiter)
    await world.widget()
    await quiet(15)  # two failures
    await world.foreign.delete(Widget, "w", "ns")
    await quiet()  # one without an object
    await world.widget()
    await quiet(60)  # two more
    assert controller.statistics().results == {"error": 5, "success": 1}
    assert await events(world) == []


async def test_deleted_object_gets_no_event_about_the_success(world: World) -> None:
    controller = await world.start(KeyReconciler(failing(TerminalError("no"))), resource=Widget)
    await world.widget()
    await quiet(60)
    await world.foreign.delete(Widget, "w", "ns")
    await quiet(60)
    await world.widget()
    await quiet(60)
    assert controller.statistics().results["success"] == 2
    assert [reason for _, reason, _ in await events(world)] == ["ReconcileFailed"]


async def test_long_message_is_truncated(world: World) -> None:
    await world.start(WidgetReconciler(failing(TerminalError("x" * 100_000))))
    await world.widget()
    await quiet(60)
    [(_, _, message)] = await events(world)
    assert len(message.encode()) <= 1024


async def test_events_about_failures_can_be_switched_off(world: World) -> None:
    body = failing(*[RuntimeError("no")] * 5, TerminalError("no"))
    await world.start(WidgetReconciler(body), failure_events=False)
    await world.widget()
    await quiet(60)
    assert await events(world) == []


async def test_permission_to_create_events_is_in_the_rules_once(world: World) -> None:
    rules: list[Any] = [rule for rule in world.controller(WidgetReconciler()).access if rule.resource == "events"]
    assert [rule.verbs for rule in rules] == [("create", "patch")]


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("rejected_by", ["the API server", "a model"])
async def test_rejected_values_are_not_in_events_and_conditions(world: World, rejected_by: str, wrapped: bool) -> None:
    """Events are readable for more people than the Secrets that an error may quote."""

    async def body(reconciler, obj, *_):
        try:
            if rejected_by == "a model":
                WidgetSpec.model_validate({"size": "hunter2"})
            metadata = {"name": "child", "namespace": "ns"}
            spec = {"type": "hunter2", "ports": [{"port": 80}]}
            child = {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}
            await reconciler.client.create(child)
        except Exception as error:
            if wrapped:
                raise TerminalError(f"the child cannot be created: {error}") from error
            raise

    reconciler = WidgetReconciler(body)
    reconciler.kstatus_conditions = True
    await world.start(reconciler, rate_limiter=ExponentialBackoff(1, 1))
    await world.widget()
    await quiet(5)
    [(_, reason, message)] = await events(world)
    assert reason == "ReconcileFailed"
    conditions = str((await world.read()).to_dict()["status"]["conditions"])
    field = "size" if rejected_by == "a model" else "spec.type"
    assert field in message
    assert field in conditions
    assert "hunter2" not in message + conditions


async def test_the_text_of_an_error_is_cut_and_searched_for_secrets_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: list[int] = []
    redact = engine.redact
    monkeypatch.setattr(engine, "redact", lambda text: (searched.append(len(text)), redact(text))[1])
    text = "password=hunter2 " + "-" * 1_000_000
    await world.start(WidgetReconciler(failing(*[TerminalError(text)] * 3)))
    await world.widget()
    await quiet()
    [(_, _, message)] = await events(world)
    assert "hunter2" not in message
    assert searched == [engine.ERROR_LIMIT]


async def test_what_looks_like_a_secret_is_not_in_events_conditions_and_explanations(world: World) -> None:
    text = "cannot log in at https://me:hunter2@db/x with password=hunter2; ran ['psql', '--token', 'hunter2']"
    controller = await world.start(WidgetReconciler(failing(TerminalError(text))))
    await world.widget()
    await quiet()
    shown = (
        "cannot log in at https://me:[REDACTED]@db/x with password=[REDACTED]; ran ['psql', '--token', '[REDACTED]']"
    )
    assert await events(world) == [("Warning", "ReconcileFailed", f"TerminalError: {shown}")]
    [run] = controller.explain(Request("w", "ns")).runs
    assert run.failure is not None
    assert run.failure.message == shown
    assert "hunter2" not in repr(await world.read())
