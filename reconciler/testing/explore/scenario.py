"""The scenarios of an example: create it and change each field of its spec; create and delete it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from reconciler._core.wire import JSONObject
from reconciler.errors import ConfigurationError
from reconciler.meta.documents import copy_json, merge_diff, without_nulls
from reconciler.testing.explore.run import Scenario
from reconciler.testing.explore.state_space import changed_alone
from reconciler.testing.explore.strategies import Schema, field_paths
from reconciler.testing.world import World


@dataclass(frozen=True)
class ExampleScenarios:
    """What users do with an example.

    Attributes:
        example: the object.
        others: what must exist before it.
        changes: a merge patch of the spec for each field that is changed.
        unchanged: the fields for which no other valid value was found.
    """

    example: JSONObject
    others: Sequence[JSONObject] = ()
    changes: Mapping[str, JSONObject] = field(default_factory=dict)
    unchanged: Sequence[str] = ()

    @classmethod
    def of(
        cls, example: JSONObject, schema: Schema | None, *, others: Sequence[JSONObject] = (), seed: int = 0
    ) -> ExampleScenarios:
        """Return the scenarios of an example, with another valid value for each field of its spec.

        Raises:
            ConfigurationError: the schema refuses the example.
        """
        if schema is None:
            return cls(example, others)
        if problems := schema.problems(example) or schema.unfit(example):
            name = example["metadata"].get("name")
            raise ConfigurationError(f"the API server refuses {schema.kind} {name}: {'; '.join(problems)}")
        changes: dict[str, JSONObject] = {}
        unchanged: list[str] = []
        current: JSONObject = without_nulls(schema.complete(example))
        for path in field_paths(schema):
            changed = changed_alone(schema, current, path, seed=seed)
            if changed is None:
                unchanged.append(path)
            else:
                changes[path] = merge_diff(current.get("spec") or {}, changed["spec"])
                current = changed
        return cls(example, others, changes, unchanged)

    @property
    def scenarios(self) -> dict[str, Scenario]:
        """Return the scenarios by their names."""
        return {"changes": self.change, "deletion": self.delete}

    async def change(self, world: World) -> None:
        """Create the example, and change each field. Cancellation leaves the rest undone."""
        await self._create(world)
        for patch in self.changes.values():
            await world.patch(self.example, {"spec": patch})
            await world.settle()

    async def delete(self, world: World) -> None:
        """Create and delete the example. Cancellation leaves the rest undone."""
        await self._create(world)
        await world.delete(self.example)
        await world.settle()

    async def _create(self, world: World) -> None:
        await world.server.apply(*self.others)
        await world.create(copy_json(self.example))
        await world.settle()
