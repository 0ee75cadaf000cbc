"""The state space of a kind: two ways to the same spec must end alike, and an invalid spec must destroy nothing."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from pydantic import Field

from reconciler import (
    ConditionedStatus,
    Model,
    Outcome,
    Reconciler,
    Request,
    Resource,
    ResourceReconciler,
    Result,
    StatusBatcher,
)
from reconciler.errors import ConfigurationError, NotFound
from reconciler.objects import rule
from reconciler.testing import explore
from reconciler.testing.explore.state_space import StateReport, StateSpace
from reconciler.testing.explore.strategies import schema_of
from reconciler.testing.world import World


class BarnSpec(Model):
    cows: int = Field(default=1, ge=0, le=9)
    sidecar: str | None = None
    comment: str = ""
    breed: str = "angus"


class BarnStatus(ConditionedStatus):
    cows: int = 0


class Barn(
    Resource[BarnSpec, BarnStatus],
    group="example.com",
    version="v1",
    rules=[rule("self.spec.breed == oldSelf.spec.breed", message="the breed stays")],
):
    """A barn."""


class BarnReconciler(ResourceReconciler[Barn]):
    """Keeps a ConfigMap for the cows, and another one for the sidecar."""

    async def reconcile_object(self, barn: Barn, status: StatusBatcher[BarnStatus]) -> Outcome:
        await self.client.apply(config_map(barn, "cows", str(barn.spec.cows)), owner=barn)
        if barn.spec.sidecar:
            await self.client.apply(config_map(barn, "sidecar", barn.spec.sidecar), owner=barn)
        else:
            await self.remove_sidecar(barn)
        status.set(cows=barn.spec.cows)
        return None

    async def remove_sidecar(self, barn: Barn) -> None:
        with contextlib.suppress(NotFound):
            await self.client.delete("v1/ConfigMap", f"{barn.name}-sidecar", barn.namespace)


def config_map(barn: Any, name: str, value: str) -> dict[str, Any]:
    metadata = {"name": f"{barn.name}-{name}", "namespace": barn.namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"value": value}}


class LeavesSidecar(BarnReconciler):
    async def remove_sidecar(self, barn: Barn) -> None:
        """Forget it."""


class NeverShrinks(BarnReconciler):
    async def reconcile_object(self, barn: Barn, status: StatusBatcher[BarnStatus]) -> Outcome:
        cows = max(barn.spec.cows, barn.status.cows)
        await self.client.apply(config_map(barn, "cows", str(cows)), owner=barn)
        status.set(cows=cows)
        return None


class FailsForMany(BarnReconciler):
    async def reconcile_object(self, barn: Barn, status: StatusBatcher[BarnStatus]) -> Outcome:
        if barn.spec.cows > 5:
            raise RuntimeError("the barn is full")
        return await super().reconcile_object(barn, status)


class NeverRests(BarnReconciler):
    async def reconcile_object(self, barn: Barn, status: StatusBatcher[BarnStatus]) -> Outcome:
        status.set(cows=barn.status.cows + 1)
        return Result(again=True)


class DestroysInvalid(Reconciler):
    """Deletes what it has made when the spec is not as it expects."""

    async def reconcile(self, request: Request) -> Outcome:
        try:
            barn = await self.client.get("example.com/v1/Barn", request.name, request.namespace)
        except NotFound:
            return None
        cows = barn["spec"]["cows"]
        if 0 <= cows <= 9:
            await self.client.apply(config_map(barn, "cows", str(cows)), owner=barn)
        else:
            await self.client.delete("v1/ConfigMap", f"{request.name}-cows", request.namespace)
        return None


def explored(operator: type[Any], *, start: int = 0, examples: int = 3, **options: Any) -> StateReport:
    space = StateSpace(schema_of(Barn), lambda: World(operator, owns=["v1/ConfigMap"], **options), start=start)
    return space.explore(examples)


def test_a_correct_operator_has_no_findings_and_its_useless_field_is_named() -> None:
    report = explored(BarnReconciler)
    assert report.findings == []
    assert report.without_effect == ["spec.comment"]
    assert report.changed == ["spec.cows", "spec.sidecar", "spec.comment"]
    assert report.unchanged == ["spec.breed"]
    assert "a change of spec.comment has no effect" in str(report)


@pytest.mark.parametrize(
    ("operator", "oracle", "says"),
    [
        (LeavesSidecar, "back-again", "+ ConfigMap default/example-sidecar"),
        (NeverShrinks, "same-end", '/data/value: "'),
        (FailsForMany, "no-error", "the barn is full"),
        (NeverRests, "settles", "the operator still works after"),
    ],
)
def test_what_is_wrong_is_found_by_the_oracle_that_names_it(operator: type[Any], oracle: str, says: str) -> None:
    found = {each.oracle: str(each) for each in explored(operator).findings}
    assert oracle in found
    assert says in found[oracle]


def test_an_invalid_spec_must_not_destroy_anything() -> None:
    report = explored(DestroysInvalid, resource=Barn)
    found = {each.oracle: str(each) for each in report.findings}
    assert "an invalid spec destroyed ConfigMap default/example-cows" in found["survives-invalid"]
    assert "which is invalid" in found["survives-invalid"]


def test_a_seed_repeats_a_walk() -> None:
    assert str(explored(LeavesSidecar, start=3, examples=1)) == str(explored(LeavesSidecar, start=3, examples=1))


PREPARED: list[str] = []


@explore.states(Barn, BarnReconciler, owns=["v1/ConfigMap"], examples=2, without_effect=["spec.comment"])
async def test_every_barn(world: explore.World) -> None:
    PREPARED.append(world.name)


def test_the_function_prepares_each_world() -> None:
    PREPARED.clear()
    test_every_barn()
    assert len(PREPARED) > 3


def test_a_field_without_effect_fails_if_it_is_not_expected(capsys: pytest.CaptureFixture[str]) -> None:
    async def nothing(world: explore.World) -> None:
        """Prepare nothing."""

    options: dict[str, Any] = {"owns": ["v1/ConfigMap"], "examples": 2}
    explore.states(Barn, BarnReconciler, **options)(nothing)()
    assert "a change of spec.comment has no effect" in capsys.readouterr().out
    with pytest.raises(explore.ExplorationFailed, match=r"a change of spec\.comment has no effect"):
        explore.states(Barn, BarnReconciler, without_effect=[], **options)(nothing)()


def test_a_kind_of_which_nothing_can_be_drawn_is_named() -> None:
    definition = Barn.crd()
    spec = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    spec["x-kubernetes-validations"] = [{"rule": "false"}]
    space = StateSpace(schema_of(definition), lambda: World(BarnReconciler))
    with pytest.raises(ConfigurationError, match=r"no valid Barn was found.*spec: .*failed rule"):
        space.explore(1)
