"""The state space of a kind: two ways to the same spec must end alike, and an invalid spec must destroy nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import Field

from reconciler import ConditionedStatus, Model, Outcome, Resource, ResourceReconciler, StatusBatcher
from reconciler.errors import ConfigurationError, NotFound
from reconciler.objects import Unstructured, rule
from reconciler.testing.explore.states import StateReport, StateSpace
from reconciler.testing.explore.strategies import schema_of
from reconciler.testing.world import World


class BarnSpec(Model):
    cows: int = Field(default=1, ge=0, le=9)
    sidecar: str | None = None
    comment: str = ""
    breed: str = Field(default="angus", json_schema_extra={"x-kubernetes-validations": []})


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
        try:
            await self.client.delete("v1/ConfigMap", f"{barn.name}-sidecar", barn.namespace)
        except NotFound:
            pass


def config_map(barn: Barn, name: str, value: str) -> dict[str, Any]:
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
        return self.again()

    def again(self) -> Outcome:
        from reconciler import Result

        return Result(again=True)


class CleansUpInvalid(ResourceReconciler[Unstructured]):
    """An operator that deletes what it has made when the spec is invalid."""


def explored(operator: type[Any], *, examples: int = 6, start: int = 0, **options: Any) -> StateReport:
    space = StateSpace(schema_of(Barn), lambda: World(operator, owns=["v1/ConfigMap"]), start=start, **options)
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
        (LeavesSidecar, "same-end", "+ ConfigMap default/example-sidecar"),
        (NeverShrinks, "back-again", '/data/value: "'),
        (FailsForMany, "no-error", "the barn is full"),
        (NeverRests, "settles", "the operator still works after"),
    ],
)
def test_what_is_wrong_is_found_by_the_oracle_that_names_it(
    operator: type[Any], oracle: str, says: str
) -> None:
    found = {each.oracle: str(each) for each in explored(operator).findings}
    assert oracle in found
    assert says in found[oracle]


def test_an_invalid_spec_must_not_destroy_anything() -> None:
    class Destroys(BarnReconciler):
        async def reconcile(self, request: Any) -> Outcome:
            barn = await self.client.get(Unstructured.for_kind("example.com/v1", "Barn"), request.name, request.namespace)
            return await super().reconcile(request)

    report = explored(Destroys)
    assert report.findings == []


def test_a_seed_repeats_a_walk() -> None:
    assert str(explored(LeavesSidecar, start=3)) == str(explored(LeavesSidecar, start=3))
