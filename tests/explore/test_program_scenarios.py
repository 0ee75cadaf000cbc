"""What users do with an example of a program: which fields matter, and a field that is set back."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from reconciler import ConditionedStatus, Model, Resource, ResourceReconciler
from reconciler.errors import NotFound
from reconciler.objects import rule
from reconciler.testing.explore.scenarios import ExampleScenarios, ProgramScenarios
from reconciler.testing.explore.strategies import schema_of
from reconciler.testing.world import World


class PageSpec(Model):
    title: str = "none"
    comment: str = ""
    draft: bool = False


class Page(
    Resource[PageSpec, ConditionedStatus],
    group="example.com",
    version="v1",
    rules=[rule("!self.spec.draft || self.spec.comment == ''", message="a draft has no comment")],
):
    """A page."""


class Publisher(ResourceReconciler[Page]):
    """Writes the title and whether it is a draft."""

    keeps_drafts = False

    async def reconcile_object(self, page: Page, status: Any) -> None:
        await self.client.apply(self._text(page, "title", page.spec.title), owner=page)
        if page.spec.draft:
            await self.client.apply(self._text(page, "draft", "yes"), owner=page)
        elif not self.keeps_drafts:
            with contextlib.suppress(NotFound):
                await self.client.delete("v1/ConfigMap", f"{page.name}-draft", page.namespace)

    @staticmethod
    def _text(page: Page, name: str, text: str) -> dict[str, Any]:
        metadata = {"name": f"{page.name}-{name}", "namespace": page.namespace}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"text": text}}


class Hoarder(Publisher):
    """Keeps what a draft had, when it is no draft any more."""

    keeps_drafts = True


def scenarios() -> ProgramScenarios:
    example = {
        "apiVersion": "example.com/v1",
        "kind": "Page",
        "metadata": {"name": "home", "namespace": "default"},
        "spec": {"title": "Home"},
    }
    return ProgramScenarios(ExampleScenarios.of(example, schema_of(Page), alone=True))


@pytest.mark.virtual_time
async def test_the_fields_that_change_another_object_are_found_even_if_they_are_refused_together() -> None:
    found = scenarios()
    async with World(Publisher, owns=["v1/ConfigMap"]) as world:
        await found.find_fields(world)
    assert sorted(found.matter) == ["spec.draft", "spec.title"]
    assert list(found.scenarios) == ["recreation", *found.matter]


@pytest.mark.virtual_time
@pytest.mark.parametrize(("operator", "is_right"), [(Publisher, True), (Hoarder, False)])
async def test_a_field_that_is_set_back_restores_the_state(operator: type[Publisher], is_right: bool) -> None:
    there_and_back = scenarios().of_field("spec.draft")
    assert there_and_back is not None
    async with World(operator, owns=["v1/ConfigMap"]) as world:
        await there_and_back(world)
        (check,) = world.final_checks
        if is_right:
            check()
        else:
            with pytest.raises(AssertionError, match=r"spec\.draft has its first value again") as caught:
                check()
            assert "+ ConfigMap default/home-draft" in str(caught.value)
