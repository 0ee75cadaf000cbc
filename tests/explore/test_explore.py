"""Explorations find what a crash, a late view or a lost response breaks, and nothing in an operator that is correct."""

from __future__ import annotations

import secrets
from typing import Any

import pytest

from reconciler import (
    ConditionedStatus,
    Model,
    ObjectMeta,
    Outcome,
    Permission,
    Resource,
    ResourceReconciler,
    Result,
    StatusBatcher,
    effect,
)
from reconciler.errors import ConfigurationError
from reconciler.meta import set_controller_reference
from reconciler.testing.explore import Budget, World
from reconciler.testing.explore.disturbances import FAMILIES, Disturbance
from reconciler.testing.explore.exploration import Exploration, Failure
from reconciler.testing.explore.exploration import Outcome as Explored
from reconciler.testing.explore.run import Subject
from tests.depth import THOROUGH


class BoatSpec(Model):
    length: int = 1


class BoatStatus(ConditionedStatus):
    length: int = 0
    berth: str = ""


class Boat(Resource[BoatSpec, BoatStatus], group="example.com", version="v1"):
    """A boat in the harbor."""


class BoatReconciler(ResourceReconciler[Boat]):
    """Owns a ConfigMap for each boat; correct."""

    async def reconcile_object(self, boat: Boat, status: StatusBatcher[BoatStatus]) -> Outcome:
        berth = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": boat.name, "namespace": "default"}}
        await self.client.apply(berth | {"data": {"length": str(boat.spec.length)}}, owner=boat)
        status.set(length=boat.spec.length)
        return None


async def lifecycle(world: World) -> None:
    boat = await world.create(Boat(metadata=ObjectMeta(name="ida", namespace="default"), spec=BoatSpec(length=7)))
    await world.settle()
    await world.patch(boat, {"spec": {"length": 9}})
    await world.settle()
    await world.delete(boat)


def explored(operator: object, scenario: Any = lifecycle, runs: int | None = None, **options: Any) -> Explored:
    subject = Subject(operator, scenario, {"owns": ["v1/ConfigMap"]})
    return Exploration(subject, budget=Budget(seconds=60, runs=runs), **options).explore()


def the_failure(operator: object, scenario: Any = lifecycle, **options: Any) -> Failure:
    [failure] = explored(operator, scenario, **options).failures
    return failure


def oracles_of(failure: Failure) -> set[str]:
    return {finding.oracle for finding in failure.findings}


def test_a_correct_operator_survives_everything() -> None:
    outcome = explored(BoatReconciler, runs=None if THOROUGH else 50)
    assert [str(finding) for failure in outcome.failures for finding in failure.findings] == []
    assert outcome.tried.total() >= 50
    assert {*outcome.tried} == {*FAMILIES} - {"travel"}
    assert THOROUGH or str(outcome).count("; not tried: ") == 1


class Berthing(ResourceReconciler[Boat]):
    """Draws a name for each berth and records it afterwards: a crash in between leaves a berth over."""

    async def reconcile_object(self, boat: Boat, status: StatusBatcher[BoatStatus]) -> Outcome:
        if not boat.status.berth:
            name = f"berth-{secrets.token_hex(4)}"
            berth = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}}
            set_controller_reference(berth, boat)
            await self.client.create(berth)
            status.set(berth=name)
        return None


def test_a_random_name_that_is_recorded_too_late_is_found_and_the_scenario_is_shrunk() -> None:
    failure = the_failure(Berthing)
    assert "counts" in oracles_of(failure)
    assert "ConfigMap was created 2 times for Boat default/ida" in str(failure.findings[0])
    assert failure.left_out == (2, 3)
    assert [each.family for each in failure.disturbances] == ["crash"]


def test_a_report_line_repeats_the_run() -> None:
    failure = the_failure(Berthing)
    again = Exploration(Subject(Berthing, lifecycle, {"owns": ["v1/ConfigMap"]})).repeat(failure.token)
    assert list(map(str, again.findings)) == list(map(str, failure.findings))
    assert [event.what for event in again.run.trace] == [event.what for event in failure.run.trace]


class Counting(BoatReconciler):
    """Writes in each reconcile."""

    async def reconcile_object(self, boat: Boat, status: StatusBatcher[BoatStatus]) -> Outcome:
        status.set(length=boat.status.length + 1)
        return None


def test_an_operator_that_is_not_stable_is_found_undisturbed() -> None:
    async def create(world: World) -> None:
        await world.create(Boat(metadata=ObjectMeta(name="ida", namespace="default"), spec=BoatSpec()))

    failure = the_failure(Counting, create)
    assert oracles_of(failure) == {"stable"}
    assert failure.disturbances == ()


class Registering(BoatReconciler):
    """Registers each boat outside, and forgets it if it is killed at the wrong moment."""

    registered: bool = False

    @effect(once=True)
    async def christen(self, uid: str) -> None:
        """Christen."""

    @effect
    async def register(self, uid: str) -> None:
        """Register."""

    @effect(undoes="register")
    async def unregister(self, uid: str) -> None:
        """Unregister."""

    async def reconcile_object(self, boat: Boat, status: StatusBatcher[BoatStatus]) -> Outcome:
        await self.register(str(boat.metadata.uid))
        status.set(length=boat.spec.length)
        return None

    async def finalize(self, boat: Boat, status: StatusBatcher[BoatStatus]) -> Outcome:
        await self.unregister(str(boat.metadata.uid))
        return None


class Christening(Registering):
    async def reconcile_object(self, boat: Boat, status: StatusBatcher[BoatStatus]) -> Outcome:
        if not boat.status.length:
            await self.christen(str(boat.metadata.uid))
        status.set(length=boat.spec.length)
        return None


class Forgetting(Registering):
    async def finalize(self, boat: Boat, status: StatusBatcher[BoatStatus]) -> Outcome:
        return None


def test_effects_that_are_balanced_are_no_finding() -> None:
    assert explored(Registering, runs=None if THOROUGH else 40).failures == []


def test_an_effect_that_happens_once_more_after_a_crash_is_found() -> None:
    failure = the_failure(Christening)
    assert "effects" in oracles_of(failure)
    assert "is declared to happen once" in str(failure.findings[0])


def test_an_effect_that_is_never_undone_is_found_undisturbed() -> None:
    failure = the_failure(Forgetting)
    assert (oracles_of(failure), failure.disturbances) == ({"effects"}, ())


class Edging(BoatReconciler):
    """Acts only on what it has not seen in this process."""

    def __init__(self) -> None:
        self.lengths: dict[str, int] = {}

    async def reconcile_object(self, boat: Boat, status: StatusBatcher[BoatStatus]) -> Outcome:
        grown = boat.spec.length - self.lengths.get(boat.name, boat.spec.length)
        self.lengths[boat.name] = boat.spec.length
        if grown or not boat.status.length:
            status.set(length=(boat.status.length or boat.spec.length) + grown)
        return None


def test_memory_that_a_restart_loses_is_found() -> None:
    failure = the_failure(Edging)
    assert "final-state" in oracles_of(failure)
    assert "/status/length: 9 → 7" in str(failure.findings[0])


def test_an_operator_that_is_not_deterministic_is_told_which_call_differs() -> None:
    class Global(BoatReconciler):
        seen: list[str] = []

        async def reconcile_object(self, boat: Boat, status: StatusBatcher[BoatStatus]) -> Outcome:
            if not boat.status.berth:
                self.seen.append(boat.name)
                status.set(berth=f"b{len(self.seen)}")
            return None

    failure = the_failure(Global)
    assert oracles_of(failure) == {"deterministic"}
    assert "update boats/ida/status" in str(failure.findings[0])


class Undeclared(BoatReconciler):
    """Writes ConfigMaps without a permission for it."""

    permissions = [Permission("v1/Secret", "get")]


class Declared(BoatReconciler):
    permissions = [Permission("v1/ConfigMap", "create", "patch", "update", "delete")]


def test_a_permission_that_is_not_declared_is_found() -> None:
    assert oracles_of(the_failure(Undeclared)) == {"permissions"}
    assert explored(Declared, runs=1).failures == []


def test_checks_of_the_scenario_are_asked() -> None:
    async def watched(world: World) -> None:
        world.always(lambda: all(boat.status.length < 9 for boat in world.objects(Boat)))
        await lifecycle(world)

    async def wrong_in_the_end(world: World) -> None:
        world.finally_(lambda: world.objects(Boat) != [])
        await lifecycle(world)

    for scenario in (watched, wrong_in_the_end):
        failure = the_failure(BoatReconciler, scenario)
        assert (oracles_of(failure), failure.disturbances) == ({"asserted"}, ())


def test_an_assertion_about_what_the_operator_did_holds_also_in_windows() -> None:
    async def asserting(world: World) -> None:
        boat = await world.create(Boat(metadata=ObjectMeta(name="ida", namespace="default"), spec=BoatSpec(length=7)))
        await world.settle()
        assert (await world.client.get(Boat, "ida", "default")).status.length == 7
        await world.patch(boat, {"spec": {"length": 9}})
        await world.settle()
        assert (await world.client.get(Boat, "ida", "default")).status.length == 9

    assert explored(BoatReconciler, asserting, runs=None if THOROUGH else 40).failures == []


def test_an_operator_that_fails_in_every_reconcile_is_the_first_finding() -> None:
    class Failing(BoatReconciler):
        async def reconcile_object(self, boat: Boat, status: StatusBatcher[BoatStatus]) -> Outcome:
            raise ValueError("no such berth")

    failure = the_failure(Failing)
    assert (oracles_of(failure), failure.disturbances) == ({"errors"}, ())


def test_an_operator_that_never_rests_is_the_first_finding() -> None:
    class Restless(BoatReconciler):
        async def reconcile_object(self, boat: Boat, status: StatusBatcher[BoatStatus]) -> Outcome:
            return Result(again=True)

    failure = the_failure(Restless)
    assert oracles_of(failure) == {"settles"}
    assert "Boat default/ida" in str(failure.findings[0])


@pytest.mark.parametrize(
    "options",
    [{"families": ["crashes"]}, {"oracles": "stable"}, {"families": []} | {"oracles": ["x"]}],
)
def test_unknown_names_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="unknown"):
        Exploration(Subject(BoatReconciler, lifecycle), **options)


@pytest.mark.parametrize("token", ["crash", "crash.after@x", "flood.after@a,b,c,d,e,1+0", "seed=x"])
def test_a_line_that_no_report_has_is_refused(token: str) -> None:
    with pytest.raises(ConfigurationError, match="copy the line of a report"):
        Exploration(Subject(BoatReconciler, lifecycle)).repeat(token)


def test_a_disturbance_is_its_text() -> None:
    text = "crash.after@patch,configmaps,default,ida,,2+1"
    assert str(Disturbance.parse(text)) == text
    assert str(Disturbance.parse("lag.@boats:2+3")) == "lag.@boats:2+3"
