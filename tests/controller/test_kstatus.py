"""The conditions Reconciling and Stalled, by the rules of kstatus."""

from __future__ import annotations

import asyncio

import pytest

from reconciler.controller import Outcome, ResourceReconciler, Result
from reconciler.errors import ConfigurationError, TerminalError
from reconciler.objects import Model, Resource
from reconciler.workqueue import ExponentialBackoff
from tests.controller.conftest import Widget, WidgetReconciler, WidgetStatus, World, quiet

pytestmark = pytest.mark.virtual_time


class Kept(WidgetReconciler):
    """Reconciles with the conditions; the body is a function of the number of earlier reconciles."""

    kstatus_conditions = True


class NoSuchPlan(TerminalError):
    """A terminal error of the user."""


def ends(*outcomes: Exception | Outcome):
    """Return a body that ends each reconcile with one of these, and with None afterwards."""
    left = list(outcomes)

    async def body(reconciler, obj, status):
        outcome = left.pop(0) if left else None
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return body


async def conditions(world: World) -> dict[str, tuple[str, str, str, int | None]]:
    status: WidgetStatus = (await world.read()).status
    return {c.type: (c.status, c.reason, c.message, c.observed_generation) for c in status.conditions}


SLOW = {"rate_limiter": ExponentialBackoff(100, 100)}


async def test_object_that_is_ready_has_neither(world: World) -> None:
    await world.start(Kept(ends(None, Result(requeue_after=10))))
    await world.widget()
    await quiet(60)
    assert await conditions(world) == {}
    assert world.status_writes() == 1


async def test_pending_retry_is_reconciling_and_written_once(world: World) -> None:
    await world.start(Kept(ends(*[RuntimeError("no disk")] * 5)), rate_limiter=ExponentialBackoff(10, 10))
    await world.widget()
    await quiet(45)
    assert await conditions(world) == {"Reconciling": ("True", "ProgressingWithRetry", "RuntimeError: no disk", 1)}
    assert (await world.read()).status.observed_generation is None
    assert world.status_writes() == 1  # the same again writes nothing
    await quiet(60)
    assert await conditions(world) == {}
    assert (await world.read()).status.observed_generation == 1
    assert world.status_writes() == 2


async def test_terminal_error_is_stalled_until_a_change_helps(world: World) -> None:
    reconciler = Kept(ends(NoSuchPlan("use a or b"), NoSuchPlan("use a or b"), RuntimeError("no"), None))
    controller = await world.start(reconciler, **SLOW)
    stored = await world.widget()
    await quiet(60)
    assert await conditions(world) == {"Stalled": ("True", "NoSuchPlan", "NoSuchPlan: use a or b", 1)}
    assert (await world.read()).status.observed_generation == 1
    controller.enqueue(stored.key)
    await quiet(60)
    assert world.status_writes() == 1
    await world.resize(2)
    await quiet(60)
    assert await conditions(world) == {"Reconciling": ("True", "ProgressingWithRetry", "RuntimeError: no", 2)}
    assert (await world.read()).status.observed_generation == 1
    await quiet(60)
    assert await conditions(world) == {}
    assert (await world.read()).status.observed_generation == 2
    assert world.status_writes() == len(reconciler.runs) - 1 == 3


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Fehlär", "Fehlr"),
        ("Ошибка", "TerminalError"),
        ("No such plan", "Nosuchplan"),
        ("_1_NoPlan_", "NoPlan"),
        ("Bad[int]", "Badint"),
        ("X" * 1023 + "_Y", "X" * 1023),
    ],
)
async def test_terminal_error_of_any_name_is_stalled(world: World, name: str, reason: str) -> None:
    await world.start(Kept(ends(type(name, (TerminalError,), {})("no"))), **SLOW)
    await world.widget()
    await quiet(60)
    found = await conditions(world)
    assert found["Stalled"][1] == reason
    assert world.status_writes() == 1


@pytest.mark.parametrize(("error", "type"), [(TerminalError, "Stalled"), (RuntimeError, "Reconciling")])
async def test_text_that_is_not_valid_unicode_is_written(world: World, error, type) -> None:
    controller = await world.start(Kept(ends(error("no file \udcff.txt"))), **SLOW)
    await world.widget()
    await quiet(60)
    assert (await conditions(world))[type][2] == f"{error.__name__}: no file ?.txt"
    assert controller.statistics().reconciles == 1


async def test_retry_that_ends_with_a_terminal_error_is_stalled_only(world: World) -> None:
    await world.start(Kept(ends(RuntimeError("no"), TerminalError("never"))))
    await world.widget()
    await quiet(60)
    assert list(await conditions(world)) == ["Stalled"]


async def test_steps_are_reconciling_until_the_last(world: World) -> None:
    seen = []

    async def body(reconciler, obj, status):
        seen.append([(c.type, c.reason) for c in obj.status.conditions])
        return Result(again=True) if len(seen) < 3 else None

    await world.start(Kept(body))
    await world.widget()
    await quiet(60)
    assert seen == [[], [("Reconciling", "Progressing")], [("Reconciling", "Progressing")]]
    assert await conditions(world) == {}
    assert world.status_writes() == 2


async def test_timeout_is_reconciling_but_a_shutdown_is_not(world: World) -> None:
    async def body(reconciler, obj, status):
        await asyncio.sleep(1000)

    controller = await world.start(Kept(body), timeout=5, **SLOW)
    await world.widget()
    await quiet(10)
    [(name, (status, reason, message, _))] = (await conditions(world)).items()
    assert (name, status, reason) == ("Reconciling", "True", "ProgressingWithRetry")
    assert "timeout" in message
    await world.widget("other")
    await quiet(1)
    await controller.stop(grace=0)
    assert (await world.read("other")).status.conditions == []


async def test_conditions_of_the_body_stay(world: World) -> None:
    async def body(reconciler, obj, status):
        status.set_condition("Ready", len(reconciler.runs) > 1, reason="Tried")
        if len(reconciler.runs) == 1:
            raise RuntimeError("no")

    await world.start(Kept(body), **SLOW)
    await world.widget()
    await quiet(10)
    assert {name: c[0] for name, c in (await conditions(world)).items()} == {"Ready": "False", "Reconciling": "True"}
    await quiet(200)
    assert {name: c[0] for name, c in (await conditions(world)).items()} == {"Ready": "True"}


async def test_deleted_object_keeps_what_it_has(world: World) -> None:
    class Cleaning(Kept):
        async def finalize(self, obj, status):
            raise RuntimeError("no")

    await world.start(Cleaning())
    await world.widget()
    await quiet(10)
    await world.foreign.delete(Widget, "w", "ns")
    await quiet(60)
    assert await conditions(world) == {}


async def test_without_the_attribute_nothing_is_recorded(world: World) -> None:
    await world.start(WidgetReconciler(ends(RuntimeError("no"), TerminalError("never"))))
    await world.widget()
    await quiet(60)
    assert await conditions(world) == {}


async def test_long_message_is_truncated(world: World) -> None:
    await world.start(Kept(ends(TerminalError("x" * 100_000))))
    await world.widget()
    await quiet(60)
    assert len((await conditions(world))["Stalled"][2]) == 1024


class Bare(Resource[Model, Model], group="example.com", version="v1"):
    """A kind without conditions."""


class BareReconciler(ResourceReconciler[Bare]):
    kstatus_conditions = True

    async def reconcile_object(self, obj, status, /):
        return None


async def test_status_without_conditions_is_refused(world: World) -> None:
    with pytest.raises(ConfigurationError, match="derive Model from ConditionedStatus"):
        world.controller(BareReconciler())
