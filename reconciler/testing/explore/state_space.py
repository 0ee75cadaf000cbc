"""The state space of a kind: where two ways to the same spec end must not differ.

Each pair of specs A and B is walked in a world of its own, A, then B, then A again, and compared with worlds in which B
and A are created at once. For each field of the spec there is a pair that differs in this field alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from reconciler._core.wire import JSONObject
from reconciler.apiserver.encoding.text import recorded
from reconciler.apiserver.state import read_state
from reconciler.errors import ConfigurationError, importing
from reconciler.meta.documents import copy_json, merge_diff, without_nulls
from reconciler.objects import Resource
from reconciler.testing.differences import ObjectDifference, ObjectKey, compare_states, describe_key, key_of
from reconciler.testing.explore.pytest_tests import ExplorationFailed
from reconciler.testing.explore.run import Subject
from reconciler.testing.explore.strategies import (
    Kind,
    Schema,
    field_paths,
    field_values,
    invalid_documents,
    replaced,
    schema_of,
    steps_of,
    valid_documents,
    wrong_alone,
)
from reconciler.testing.operator_process import OperatorFailed
from reconciler.testing.virtual_clock import virtual_time
from reconciler.testing.world import NotSettled, World

with importing(extra="testing", purpose="exploring the states of a kind"):
    from hypothesis import HealthCheck, Phase, given, seed, settings
    from hypothesis.errors import Unsatisfiable

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

Oracle = Literal["same-end", "back-again", "survives-invalid", "settles", "no-error"]
_NOT_STATE = frozenset({"leases.coordination.k8s.io", "events", "events.events.k8s.io"})
_ATTEMPTS_PER_FIELD = 3
_MOST_SHRINKS = 20
_MOST_RECONCILES = 200
_VALUES = 8
"""How many values of a field are tried."""
_COMBINED = frozenset({"allOf", "anyOf", "oneOf", "not", "format", "uniqueItems", "x-kubernetes-validations"})
"""Keywords that a looser schema lacks, besides those of single values."""


@dataclass(frozen=True, slots=True)
class StateFinding:
    """Something wrong on the way through the specs.

    Attributes:
        oracle: the name of what is violated. ``"same-end"``: B reached through A is B from nothing. ``"back-again"``:
            A → B → A ends as A. ``"survives-invalid"``: an invalid spec destroys nothing. ``"settles"``: the operator
            comes to rest. ``"no-error"``: it does not fail for a valid spec.
        steps: what the user did.
        text: what is wrong.
        differences: what differs, if states were compared.
    """

    oracle: Oracle
    steps: tuple[str, ...]
    text: str
    differences: tuple[ObjectDifference, ...] = ()

    def __str__(self) -> str:
        """Return lines for people."""
        steps = (f"  the user {step}" for step in self.steps)
        differences = (f"  {line}" for each in self.differences for line in str(each).splitlines())
        return "\n".join([f"{self.oracle}: {self.text}", *steps, *differences])


@dataclass(slots=True)
class StateReport:
    """The result of a walk through the specs of a kind.

    Attributes:
        kind: the kind.
        seed: the seed.
        worlds: how many lives of the operator were run.
        specs: how many different specs were applied.
        findings: what is wrong, each oracle once, with the shortest steps that were found.
        changed: the fields of the spec that were changed alone.
        without_effect: those of them whose change had no effect.
        unchanged: the fields that could not be changed alone, because no valid object differs only there.
    """

    kind: str
    seed: int
    worlds: int = 0
    specs: int = 0
    findings: list[StateFinding] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    without_effect: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """Return lines for people."""
        counts = f"{self.specs} specs in {self.worlds} worlds, {len(self.changed)} fields changed alone"
        lines = [f"{self.kind}: {counts}, seed {self.seed}", *map(str, self.findings)]
        lines += [f"a change of {path} has no effect" for path in self.without_effect]
        lines += [
            f"{path} was not changed: no valid object was found that differs only there" for path in self.unchanged
        ]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class _Stop:
    """The state after a step of the user."""

    objects: list[JSONObject]
    problem: tuple[Oracle, str] | None
    effects: int


class StateSpace:
    """A walk through the specs of a kind, each part in a world of its own.

    Args:
        schema: the kind.
        new_world: returns a new world with the operator.
        prepare: called with each world before the first object is created. Default: nothing.
        start: the seed of what is drawn. Default 0.
        name: the name of the object.
        namespace: its namespace.
        fields: strategies of single fields; see `objects`.
        invalid: draws invalid documents. Default: one wrong value each.
    """

    def __init__(
        self,
        schema: Schema,
        new_world: Callable[[], World],
        prepare: Callable[[World], Awaitable[object]] | None = None,
        *,
        start: int = 0,
        name: str = "example",
        namespace: str = "default",
        fields: Mapping[str, SearchStrategy[Any]] | None = None,
        invalid: SearchStrategy[Any] | None = None,
    ) -> None:
        self._schema = schema
        self._new_world = new_world
        self._prepare = prepare
        self._seed = start
        self._fields = fields or {}
        self._valid = valid_documents(schema, name=name, namespace=namespace, fields=fields)
        self._invalid = invalid_documents(schema, self._valid) if invalid is None else invalid
        self._fresh: dict[bytes, _Stop] = {}
        self.report = StateReport(schema.kind, start)

    def explore(self, examples: int) -> StateReport:
        """Walk through the specs, and return what was found.

        Args:
            examples: how many objects are drawn for pairs; each field is changed in addition.

        Raises:
            ConfigurationError: no valid object could be drawn.
            OperatorFailed: the operator does not start.
        """
        drawn = draw(self._valid, examples, self._seed)
        if not drawn:
            raise ConfigurationError(
                f"no valid {self._schema.kind} was found; pass strategies of your own with fields=. The last one was "
                f"refused: {'; '.join(self._schema.refusals)}"
            )
        walks: list[Callable[[], object]] = [
            functools.partial(self._change, path, drawn) for path in field_paths(self._schema)
        ]
        walks += [functools.partial(self._pair, *pair) for pair in itertools.pairwise(drawn)]
        for walk in walks:
            walk()
            if any(each.oracle == "settles" for each in self.report.findings):
                return self.report  # an operator that never rests would only cost time
        wrong = self._wrong(drawn, examples)
        for number, document in enumerate(wrong):
            self._survive(drawn[number % len(drawn)], document)
        self.report.specs = len(self._fresh) + len(wrong)
        return self.report

    def _wrong(self, drawn: Sequence[JSONObject], examples: int) -> list[JSONObject]:
        """Return invalid documents that a looser schema accepts: for each field one, where possible, and drawn ones."""
        loose = schema_of(_loosened(self._schema.definition))
        single = [
            next((each for each in wrong_alone(self._schema, drawn, path) if not loose.problems(each)), None)
            for path in field_paths(self._schema)
        ]
        others = draw(self._invalid, examples, self._seed)
        return [each for each in (*single, *others) if each is not None and not loose.problems(each)]

    # The walks

    def _change(self, path: str, drawn: Sequence[JSONObject]) -> None:
        """Change one field alone, in several objects until it has an effect."""
        tried = False
        for before, after in itertools.islice(self._neighbors(path, drawn), _ATTEMPTS_PER_FIELD):
            tried = True
            if self._pair(before, after):
                break
        else:
            (self.report.without_effect if tried else self.report.unchanged).append(path)
        if tried:
            self.report.changed.append(path)

    def _neighbors(self, path: str, drawn: Sequence[JSONObject]) -> Iterator[tuple[JSONObject, JSONObject]]:
        for document in drawn:
            changed = changed_alone(self._schema, document, path, self._fields, seed=self._seed)
            if changed is not None:
                yield document, changed

    def _pair(self, before: JSONObject, after: JSONObject) -> bool:
        """Walk from one spec to another and back, and return whether the change had an effect.

        Does nothing if the server refuses one of the changes.
        """
        if self._schema.problems(after, before) or self._schema.problems(before, after):
            return False
        finding, effect = self._walk(before, after)
        if finding is not None and not any(each.oracle == finding.oracle for each in self.report.findings):
            self.report.findings.append(self._shrunk(finding, before, after))
        return effect

    def _walk(self, before: JSONObject, after: JSONObject) -> tuple[StateFinding | None, bool]:
        first, second = self._from_nothing(before), self._from_nothing(after)
        steps = [_creation(before), _change(before, after), _change(after, before)]
        for stop, document in ((first, before), (second, after)):
            if stop.problem is not None:
                return StateFinding(stop.problem[0], (_creation(document),), stop.problem[1]), True
        stops = self._run(before, after, before)
        for number, stop in enumerate(stops):
            if stop.problem is not None:
                return StateFinding(stop.problem[0], tuple(steps[: number + 1]), stop.problem[1]), True
        effect = stops[1].effects > 0 or bool(self._changes(stops[0].objects, stops[1].objects))
        if differences := compare_states(second.objects, stops[1].objects):
            text = "the state differs from that of an object that is created with this spec"
            return StateFinding("same-end", tuple(steps[:2]), text, tuple(differences)), effect
        if differences := compare_states(first.objects, stops[2].objects):
            text = "the state after the way back differs from the first one"
            return StateFinding("back-again", tuple(steps), text, tuple(differences)), effect
        return None, effect

    def _changes(self, before: list[JSONObject], after: list[JSONObject]) -> list[ObjectDifference]:
        """Return what a change of the spec changed besides the spec."""
        return [
            each
            for each in compare_states(before, after)
            if not self._is_primary(each.key) or any(not part.path.startswith("/spec") for part in each.fields)
        ]

    def _is_primary(self, key: ObjectKey) -> bool:
        return key[0] == f"{self._schema.kind}.{self._schema.definition['spec']['group']}"

    def _survive(self, valid: JSONObject, invalid: JSONObject) -> None:
        if any(each.oracle == "survives-invalid" for each in self.report.findings):
            return
        steps: tuple[str, ...] = (_creation(valid), f"{_change(valid, invalid)}, which is invalid")
        first, second, last = self._run(valid, invalid, valid, loose=True)
        before, after = _identities(first.objects), _identities(second.objects)
        lost = [describe_key(key) for key, uid in before.items() if after.get(key) != uid and not self._is_primary(key)]
        if lost:
            text = f"an invalid spec destroyed {', '.join(lost)}"
            self.report.findings.append(StateFinding("survives-invalid", steps, text))
        elif first.problem is None and (differences := compare_states(first.objects, last.objects)):
            text = "after an invalid spec, the state of the valid one does not come back"
            steps = (*steps, _change(invalid, valid))
            self.report.findings.append(StateFinding("survives-invalid", steps, text, tuple(differences)))

    def _shrunk(self, finding: StateFinding, before: JSONObject, after: JSONObject) -> StateFinding:
        """Return the finding of the smallest change that was found to show it."""
        for _ in range(_MOST_SHRINKS):
            for smaller in _smaller(before, after):
                if self._schema.problems(smaller[0]) or self._schema.problems(smaller[1]):
                    continue
                found, _ = self._walk(*smaller)
                if found is not None and found.oracle == finding.oracle:
                    finding, (before, after) = found, smaller
                    break
            else:
                return finding
        return finding

    # The worlds

    def _from_nothing(self, document: JSONObject) -> _Stop:
        """Return the state of an object that is created with a spec."""
        encoded = _encoded(document)
        if encoded not in self._fresh:
            self._fresh[encoded] = self._run(document)[0]
        return self._fresh[encoded]

    def _run(self, *documents: JSONObject, loose: bool = False) -> list[_Stop]:
        """Create the first object in a new world, change it to each of the others, and return the state after each.

        Args:
            documents: the object, and what it becomes.
            loose: let the server accept invalid values, as one with an older, looser schema has stored them.
        """
        self.report.worlds += 1
        with virtual_time():
            return asyncio.run(self._live(documents, loose=loose))

    async def _live(self, documents: Sequence[JSONObject], *, loose: bool) -> list[_Stop]:
        async with self._new_world() as world:
            await world.start()
            await world.server.apply(_loosened(self._schema.definition) if loose else self._schema.definition)
            if self._prepare is not None:
                await self._prepare(world)
            stops: list[_Stop] = []
            for number, document in enumerate(documents):
                seen = len(world.trace)
                if number == 0:
                    await world.create(copy_json(document))
                else:
                    patch = merge_diff(documents[number - 1]["spec"], document.get("spec") or {})
                    await world.patch(document, {"spec": patch})
                stops.append(await self._settled(world, seen))
            return stops

    async def _settled(self, world: World, seen: int) -> _Stop:
        problem: tuple[Oracle, str] | None = None
        try:
            await world.settle(reconciles=_MOST_RECONCILES)
        except NotSettled as error:
            problem = "settles", str(error)
        except OperatorFailed as error:
            problem = "no-error", str(error)
        happened = world.trace.events[seen:]
        last = {event.key: event.error for event in happened if event.what == "done"}
        failed = [f"the reconcile of {key} fails for a valid spec: {error!r}" for key, error in last.items() if error]
        if failed and problem is None:
            problem = "no-error", failed[0]
        effects = sum(event.what == "effect" for event in happened)
        return _Stop(objects_in(world), problem, effects)


def draw(strategy: SearchStrategy[Any], number: int, start: int) -> list[Any]:
    """Return different values of a strategy, as plain JSON, the simplest ones first; fewer if it has not so many."""
    found: dict[bytes, Any] = {}

    @seed(start)
    @settings(
        max_examples=4 * number,
        database=None,
        phases=[Phase.generate],
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )
    @given(strategy)
    def collect(value: Any) -> None:
        value = value.to_dict() if isinstance(value, Resource) else value
        found.setdefault(_encoded(value), value)

    with contextlib.suppress(Unsatisfiable):
        collect()
    return list(found.values())[:number]


def changed_alone(
    schema: Schema, document: JSONObject, path: str, own: Mapping[str, SearchStrategy[Any]] | None = None, *, seed: int
) -> JSONObject | None:
    """Return a valid document that differs in one field alone, with its defaults; None if none was found."""
    steps = steps_of(path)
    for value in reversed(draw(field_values(schema, path, own or {}), _VALUES, seed)):
        try:
            changed = replaced(document, steps, value)
        except LookupError:
            return None
        if schema.problems(changed, document) or schema.problems(changed) or schema.unfit(changed):
            continue
        completed: JSONObject = without_nulls(schema.complete(changed))
        if _encoded(completed) != _encoded(document):
            return completed
    return None


def objects_in(world: World) -> list[JSONObject]:
    """Return what is stored in a world, without Events and Leases."""
    state = read_state(world.server.snapshot(), "the world")
    return [each for resource, found in state.objects.items() if resource not in _NOT_STATE for each in found.values()]


def _identities(objects: list[JSONObject]) -> dict[ObjectKey, str]:
    return {key_of(each): str(each["metadata"].get("uid")) for each in objects}


def _encoded(document: Any) -> bytes:
    return msgspec.json.encode(document, order="sorted")


def _creation(document: JSONObject) -> str:
    spec = msgspec.json.encode(document.get("spec")).decode()
    return f"creates {document['kind']} {document['metadata']['name']} with the spec {spec}"


def _change(before: JSONObject, after: JSONObject) -> str:
    patch = merge_diff(before.get("spec") or {}, after.get("spec") or {})
    return f"changes the spec: {msgspec.json.encode(patch).decode()}"


def _smaller(before: JSONObject, after: JSONObject) -> Iterator[tuple[JSONObject, JSONObject]]:
    """Yield pairs of objects with one member of the spec less, or less different."""
    first, second = before["spec"], after["spec"]
    for name in sorted(first.keys() | second.keys()):
        if name in first and name in second and first[name] != second[name]:
            yield before, {**after, "spec": {**second, name: first[name]}}
        if name in first or name in second:
            less = ({key: value for key, value in spec.items() if key != name} for spec in (first, second))
            yield {**before, "spec": next(less)}, {**after, "spec": next(less)}


def _loosened(schema: Any) -> Any:
    """Return a definition whose schema has the structure alone, and accepts values that the model may refuse."""
    if isinstance(schema, dict):
        dropped = {*recorded("schema_keywords.json")["validating"], *_COMBINED} - {"required"}
        return {
            key: {name: _loosened(each) for name, each in value.items()} if key == "properties" else _loosened(value)
            for key, value in schema.items()
            if key not in dropped
        }
    return [_loosened(each) for each in schema] if isinstance(schema, list) else schema


def states(
    kind: Kind,
    reconciler: object,
    /,
    *,
    owns: Sequence[object] = (),
    examples: int = 8,
    seed: int = 0,
    fields: Mapping[str, SearchStrategy[Any]] | None = None,
    invalid: SearchStrategy[Any] | None = None,
    without_effect: Collection[str] | None = None,
    name: str = "example",
    namespace: str = "default",
    definitions: Sequence[object] = (),
    **options: Any,
) -> Callable[[Callable[[World], Awaitable[object]]], Callable[[], None]]:
    """Make a pytest test that walks through the specs of a kind.

    Where A → B → A ends, a new A must end, and B reached through A must be B from nothing. An invalid spec must not
    destroy what a valid one has built. Each field of the spec is changed alone at least once, and the report names the
    fields whose change has no effect. The decorated function is ``async``, takes a `World`, and creates what must exist
    before.

    Args:
        kind: the kind: a Resource class, or a CustomResourceDefinition as a document or the path of a file.
        reconciler: the operator, as for `operator`.
        owns: the kinds that its objects own, as for `Manager.add_controller`.
        examples: how many objects are drawn. Default 8.
        seed: the seed of what is drawn. Default 0.
        fields: strategies of single fields; see `objects`.
        invalid: draws invalid objects. Default: a valid one with one wrong value.
        without_effect: the fields whose change may have no effect; others fail the test. Default: they are only named.
        name: the name of the object.
        namespace: its namespace.
        definitions: CustomResourceDefinitions and other objects that exist before.
        options: further options of the controllers.

    Raises:
        ConfigurationError: an argument is invalid, or no valid object can be drawn.
    """
    if owns:
        options["owns"] = list(owns)
    subject = Subject(reconciler, _nothing, options, definitions)
    world = functools.partial(subject.new_world, seed=seed, roles=False, options={}, manager={})

    def decorate(prepare: Callable[[World], Awaitable[object]]) -> Callable[[], None]:
        @functools.wraps(prepare)
        def test() -> None:
            __tracebackhide__ = True
            space = StateSpace(
                schema_of(kind),
                world,
                prepare,
                start=seed,
                name=name,
                namespace=namespace,
                fields=fields,
                invalid=invalid,
            )
            report = space.explore(examples)
            useless = (
                [] if without_effect is None else [each for each in report.without_effect if each not in without_effect]
            )
            if report.findings or useless:
                raise ExplorationFailed(str(report))
            print(report)  # noqa: T201 - pytest shows it with -s and -rP

        del test.__wrapped__  # pytest would take the world for a fixture
        return test

    return decorate


async def _nothing(_world: World) -> None:
    """Do nothing: the walks are the scenario."""
