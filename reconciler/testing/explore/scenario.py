"""The scenario of an example: create it, change each field of its spec, and delete it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from reconciler._core.wire import JSONObject
from reconciler.errors import ConfigurationError
from reconciler.meta.documents import copy_json, merge_diff, without_nulls
from reconciler.testing.explore.states import changed_alone
from reconciler.testing.explore.strategies import Schema, field_paths
from reconciler.testing.world import World

UserStep = Callable[[World], Awaitable[object]]


@dataclass(frozen=True)
class ExampleScenario:
    """What users do with an example. Calling it does all steps in a world, each until the operator rests.

    Attributes:
        example: the object.
        others: what must exist before it.
        schema: the schema of its kind; None for kinds without one, of which no field is changed.
        changes: the object after each change, by the path of the field.
        unchanged: the fields for which no other valid value was found.
    """

    example: JSONObject
    others: Sequence[JSONObject] = ()
    schema: Schema | None = None
    changes: Mapping[str, JSONObject] = field(default_factory=dict)
    unchanged: Sequence[str] = ()

    @classmethod
    def of(
        cls, example: JSONObject, schema: Schema | None, *, others: Sequence[JSONObject] = (), seed: int = 0
    ) -> ExampleScenario:
        """Return the scenario of an example, with another valid value for each field of its spec.

        Raises:
            ConfigurationError: the schema refuses the example.
        """
        if schema is None:
            return cls(example, others)
        name = f"{example.get('kind')} {example['metadata'].get('name', '')}"
        if problems := schema.problems(example) or schema.unfit(example):
            raise ConfigurationError(f"the API server refuses {name}: {'; '.join(problems)}")
        changes: dict[str, JSONObject] = {}
        unchanged = []
        current: JSONObject = without_nulls(schema.complete(example))
        for path in field_paths(schema):
            changed = changed_alone(schema, current, path, seed=seed)
            if changed is None:
                unchanged.append(path)
            else:
                changes[path] = current = changed
        return cls(example, others, schema, changes, unchanged)

    @property
    def steps(self) -> list[UserStep]:
        """Return the steps of the user."""
        example = self.example
        steps: list[UserStep] = [lambda world: world.create(copy_json(example))]
        before = example if self.schema is None else self.schema.complete(example)
        for after in self.changes.values():
            patch = {"spec": merge_diff(before.get("spec") or {}, after.get("spec") or {})}
            steps.append(lambda world, patch=patch: world.patch(example, patch))  # type: ignore[misc]
            before = after
        return [*steps, lambda world: world.delete(example)]

    async def __call__(self, world: World) -> None:
        """Do all steps, each until the operator rests. Cancellation leaves the rest undone."""
        await self.prepare(world)
        for step in self.steps:
            await step(world)
            await world.settle()

    async def prepare(self, world: World) -> None:
        """Create what must exist before the example."""
        await world.server.apply(*self.others)
