"""Scenarios: what users do with an example, and what they do in a file of their own."""

from __future__ import annotations

import inspect
import runpy
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reconciler._core.wire import JSONObject
from reconciler.errors import APIError, ConfigurationError
from reconciler.meta.documents import copy_json, get_path, merge_diff, merge_patch, without_nulls
from reconciler.testing.differences import ObjectDifference, compare_states, key_of
from reconciler.testing.explore.oracles import comparable
from reconciler.testing.explore.run import Scenario
from reconciler.testing.explore.state_space import changed_alone
from reconciler.testing.explore.strategies import Schema, field_paths
from reconciler.testing.world import World

_GROUP = 8
"""How many fields are changed at once, to see whether one of them matters."""
_MOST_FIELDS = 8
"""How many fields that matter have scenarios of their own."""
_CLUSTERS = frozenset({"Pod", "ReplicaSet.apps", "ControllerRevision.apps", "PersistentVolume"})
"""Kinds that the cluster writes, and that remember what has been."""


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
        cls,
        example: JSONObject,
        schema: Schema | None,
        *,
        others: Sequence[JSONObject] = (),
        seed: int = 0,
        alone: bool = False,
    ) -> ExampleScenarios:
        """Return the scenarios of an example, with another valid value for each field of its spec.

        Args:
            example: the object.
            schema: its schema. None: no field is changed.
            others: what must exist before it. Default: nothing.
            seed: the seed of the values. Default 0.
            alone: whether each change begins with the example. Default False: with the change before it.

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
                continue
            changes[path] = merge_diff(current.get("spec") or {}, changed["spec"])
            if not alone:
                current = changed
        return cls(example, others, changes, unchanged)

    @property
    def scenarios(self) -> dict[str, Scenario]:
        """Return the scenarios by their names."""
        return {"changes": self.change, "deletion": self.delete}

    async def change(self, world: World) -> None:
        """Create the example, and change each field. Cancellation leaves the rest undone."""
        await self.create(world)
        for patch in self.changes.values():
            await world.patch(self.example, {"spec": patch})
            await world.settle()

    async def delete(self, world: World) -> None:
        """Create and delete the example. Cancellation leaves the rest undone."""
        await self.create(world)
        await world.delete(self.example)
        await world.settle()

    async def create(self, world: World) -> None:
        """Create the example. Cancellation leaves it open whether it was created."""
        await world.server.apply(*self.others)
        await world.create(copy_json(self.example))
        await world.settle()


@dataclass(frozen=True)
class ProgramScenarios:
    """What users do with an example of a program, which takes its time: few scenarios, the most telling first.

    Attributes:
        of_example: the example and the values of its fields.
        matter: the fields whose change changes more than the example, as far as they are known; see `find_fields`.
    """

    of_example: ExampleScenarios
    matter: list[str] = field(default_factory=list)

    @property
    def scenarios(self) -> dict[str, Scenario]:
        """Return the scenarios by their names: those of the fields have the fields' names."""
        of_fields = {path: self._there_and_back(path) for path in self.matter[:_MOST_FIELDS]}
        return {"recreation": self.recreate, **of_fields}

    def of_field(self, path: str) -> Scenario | None:
        """Return the scenario of a field; None if the field has no other value."""
        return self._there_and_back(path) if path in self.of_example.changes else None

    async def recreate(self, world: World) -> None:
        """Create, delete, and create again under the same name. Cancellation leaves the rest undone."""
        await self.of_example.delete(world)
        await world.create(copy_json(self.of_example.example))
        await world.settle()

    async def find_fields(self, world: World) -> None:
        """Find the fields that matter, those of the example first: change several at once, and part those that do.

        Cancellation leaves the fields that are known by then.
        """
        await self.of_example.create(world)
        example = self.of_example.example
        paths = sorted(
            self.of_example.changes, key=lambda path: (get_path(example, path.split(".")) is None, path.count("."))
        )
        groups = [paths[start : start + _GROUP] for start in range(0, len(paths), _GROUP)]
        while groups and len(self.matter) < _MOST_FIELDS:
            group = groups.pop(0)
            if not await self._matters(world, group):
                continue
            if len(group) == 1:
                self.matter.extend(group)
            else:
                half = len(group) // 2
                groups[:0] = [group[:half], group[half:]]

    async def _matters(self, world: World, paths: Sequence[str]) -> bool:
        """Change fields and set them back; return whether that may have changed another object."""
        before = self._others(world)
        try:
            for path in paths:
                await world.patch(self.of_example.example, {"spec": self.of_example.changes[path]})
            await world.settle()
            matters = bool(compare_states(before, self._others(world)))
        except APIError:
            matters = len(paths) > 1  # refused together, they may be accepted alone
        for path in paths:
            await world.patch(self.of_example.example, {"spec": self._back(path)})
        await world.settle()
        return matters

    def _others(self, world: World) -> list[JSONObject]:
        """Return the objects besides the example."""
        own = key_of(self.of_example.example)
        return [each for each in comparable(world.server.objects()) if key_of(each) != own]

    def _back(self, path: str) -> JSONObject:
        """Return the merge patch of the spec that takes a change back."""
        spec = self.of_example.example.get("spec") or {}
        return merge_diff(merge_patch(spec, self.of_example.changes[path]), spec)

    def _there_and_back(self, path: str) -> Scenario:
        async def there_and_back(world: World) -> None:
            await self.of_example.create(world)
            before = world.server.objects()
            await world.patch(self.of_example.example, {"spec": self.of_example.changes[path]})
            await world.settle()
            await world.patch(self.of_example.example, {"spec": self._back(path)})
            await world.settle()
            after = world.server.objects()
            world.finally_(lambda: _check_same(path, before, after))

        return there_and_back


def _check_same(path: str, before: Sequence[JSONObject], after: Sequence[JSONObject]) -> None:
    found = [each for each in compare_states(*map(_of_program, (before, after))) if _is_news(each)]
    if found:
        shown = "\n".join(map(str, found))
        raise AssertionError(f"{path} has its first value again, but the state is another one:\n{shown}")


def _of_program(objects: Sequence[JSONObject]) -> list[JSONObject]:
    return [each for each in comparable(list(objects)) if key_of(each)[0] not in _CLUSTERS]


def _is_news(difference: ObjectDifference) -> bool:
    """Return whether a difference is more than what counts changes: a revision, or a condition."""
    return difference.what != "changed" or any(
        "revision" not in each.path.lower() and not each.path.startswith("/status/conditions")
        for each in difference.fields
    )


@dataclass(frozen=True)
class ScenarioFile:
    """A Python file with scenarios, and with what a program needs.

    Each ``async`` function of one parameter, the `World`, is a scenario, unless its name begins with an underscore. The
    names ``environment`` and ``served_until`` are what the attributes say.

    Attributes:
        scenarios: the scenarios by their names, in their order.
        environment: variables of the program.
        served_until: the version of Kubernetes until which removed versions of kinds are served; None for none.
    """

    scenarios: Mapping[str, Scenario]
    environment: Mapping[str, str] = field(default_factory=dict)
    served_until: str | None = None

    @classmethod
    def load(cls, path: Path) -> ScenarioFile:
        """Run the file, and return what it defines.

        Raises:
            ConfigurationError: it cannot be read, it fails, or a name in it is not what it must be.
        """
        try:
            found = runpy.run_path(str(path))
        except OSError as error:
            raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
        except SyntaxError as error:
            raise ConfigurationError(f"{path}, line {error.lineno}: {error.msg}") from error
        except Exception as error:
            line = next(
                (
                    each.lineno
                    for each in reversed(traceback.extract_tb(error.__traceback__))
                    if each.filename == str(path)
                ),
                0,
            )
            raise ConfigurationError(f"{path}, line {line}: {type(error).__name__}: {error}") from error
        scenarios = {
            name: each
            for name, each in found.items()
            if inspect.iscoroutinefunction(each) and not name.startswith("_") and each.__module__ == "<run_path>"
        }
        if not scenarios:
            raise ConfigurationError(f"{path} has no scenario: write 'async def NAME(world)', for each of them")
        for name, each in scenarios.items():
            if len(inspect.signature(each).parameters) != 1:
                raise ConfigurationError(f"{path}: the scenario {name} must have one parameter, the world")
        environment = found.get("environment", {})
        if not isinstance(environment, dict) or not all(
            isinstance(each, str) for pair in environment.items() for each in pair
        ):
            raise ConfigurationError(f"{path}: environment must be a dict of strings, not {environment!r}")
        served_until = found.get("served_until")
        if served_until is not None and not isinstance(served_until, str):
            raise ConfigurationError(f"{path}: served_until must be a version such as '1.21', not {served_until!r}")
        return cls(scenarios, environment, served_until)
