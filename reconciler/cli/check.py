"""The command ``reconciler check``: the scenarios of an example, and what disturbs an operator in them."""

from __future__ import annotations

import asyncio
import shlex
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from reconciler._core.wire import JSONObject
from reconciler.apiserver import APIServer
from reconciler.apiserver.manifests import documents_of
from reconciler.cli.options import CheckOptions
from reconciler.cli.output import print_json, write_files
from reconciler.cli.servers import load_object
from reconciler.cli.targets import load_target
from reconciler.client import Client
from reconciler.clock import current_clock, process_time
from reconciler.errors import ConfigurationError, importing
from reconciler.manager import Manager
from reconciler.manager.setup import setup_function
from reconciler.meta.documents import copy_json, merge_diff, without_nulls
from reconciler.objects import Resource
from reconciler.testing.explore.disturbances import FAMILIES
from reconciler.testing.explore.exploration import Budget, Disturbances, Exploration, Outcome
from reconciler.testing.explore.oracles import Finding
from reconciler.testing.explore.program import ProgramSubject
from reconciler.testing.explore.report import report
from reconciler.testing.explore.run import Scenario, Subject
from reconciler.testing.explore.state_space import changed_alone
from reconciler.testing.explore.strategies import Schema, field_paths, schema_of
from reconciler.testing.world import World

with importing(extra="cli", purpose="'reconciler check'"):
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.table import Table

_PROGRAM_FAMILIES = ("crash", "lag", "travel", "lose", "refuse", "foreign", "shutdown")
"""What disturbs a program from outside."""
_BUDGET, _PROGRAM_BUDGET = 30.0, 120.0
_WIDE = 120
"""Columns of the table elsewhere than on a terminal."""


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


@dataclass(slots=True)
class CheckOutcome:
    """The result of one scenario.

    Attributes:
        outcome: what was found, and what was not tried.
        runs: the disturbed runs, each with what the oracles found.
        reports: the reports of the failures.
    """

    outcome: Outcome = field(default_factory=Outcome)
    runs: list[tuple[str, str, list[Finding]]] = field(default_factory=list)
    reports: list[str] = field(default_factory=list)


def run_check(target: str | None, options: CheckOptions) -> int:
    """Check an operator; return 1 if something was found.

    Raises:
        ConfigurationError: the target, the example or an option is invalid.
    """
    if (target is None) == (options.exec is None):
        raise ConfigurationError("pass either MODULE:ATTR, or --exec with the command of a program")
    things = [*map(load_object, options.objects)]
    definitions = [dict(document) for thing in things for document in documents_of(thing)]
    if options.exec is None:
        assert target is not None  # noqa: S101 - one of them is given
        subject, example = _module(target, definitions, options)
        command = f"reconciler check {shlex.quote(target)}"
    else:
        subject, example = _program(options.exec, definitions, options)
        command = f"reconciler check --exec {shlex.quote(options.exec)}"
    command += "".join(f" --objects {shlex.quote(each)}" for each in options.objects)
    command += "".join(f" --owns {shlex.quote(each)}" for each in options.owns)
    command += f" --example {shlex.quote(str(options.example))}"
    results = _explored(subject, example.scenarios, options, command)
    name = target or str(options.exec)
    if options.junit is not None:
        options.junit.unlink(missing_ok=True)
        write_files(options.junit.parent, {options.junit.name: _junit(name, results)})
    print_json(_document(name, example, results)) if options.output == "json" else _print(example, results)
    return int(any(result.outcome.failures for result in results.values()))


# What is checked


def _module(target: str, definitions: Sequence[JSONObject], options: CheckOptions) -> tuple[Subject, ExampleScenarios]:
    found = load_target(target)
    controllers = {"owns": list(options.owns)} if options.owns else {}
    kinds = asyncio.run(_kinds(found, target, controllers))
    document, others = _example(options.example, list(kinds))
    kind = kinds[_kind(document)] or _crds(definitions).get(_kind(document))
    schema = None if kind is None else schema_of(kind)
    example = ExampleScenarios.of(document, schema, others=others, seed=options.seed)
    return Subject(found, example.change, controllers, definitions), example


async def _kinds(found: object, target: str, options: Mapping[str, Any]) -> dict[str, type[Resource] | None]:
    """Return the kinds that the operator reconciles, each with its class."""
    manager = Manager(Client(APIServer()))
    await setup_function(found, target, **options)(manager)
    kinds: dict[str, type[Resource] | None] = {}
    for controller in manager.controllers:
        classes = [each for each in controller.kinds if isinstance(each, type) and issubclass(each, Resource)]
        gvk = controller.kind
        name = f"{gvk.kind}.{gvk.group}" if gvk.group else gvk.kind
        kinds[name] = next((each for each in classes if each.gvk == gvk), None)
    return kinds


def _program(
    command: str, definitions: Sequence[JSONObject], options: CheckOptions
) -> tuple[Subject, ExampleScenarios]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ConfigurationError(f"--exec {command!r} is not a command: {error}") from error
    if not words:
        raise ConfigurationError("--exec needs the command of a program")
    crds = _crds(definitions)
    if not crds:
        raise ConfigurationError("--exec needs the CustomResourceDefinition of the example: pass --objects FILE")
    document, others = _example(options.example, list(crds))
    schema = schema_of(crds[_kind(document)])
    example = ExampleScenarios.of(document, schema, others=others, seed=options.seed)
    resource = schema.definition["spec"]["names"]["plural"]
    limit = options.settle_timeout
    return ProgramSubject(
        None, example.change, definitions=definitions, command=words, resource=resource, limit=limit
    ), example


def _crds(definitions: Sequence[JSONObject]) -> dict[str, JSONObject]:
    """Return the CustomResourceDefinitions by their kinds."""
    found = [each for each in definitions if each.get("kind") == "CustomResourceDefinition"]
    return {f"{each['spec']['names']['kind']}.{each['spec']['group']}": each for each in found}


def _example(path: Path, kinds: Sequence[str]) -> tuple[JSONObject, list[JSONObject]]:
    """Return the first object of a file that has one of the kinds, and the other objects.

    Raises:
        ConfigurationError: the file cannot be read, or has no such object.
    """
    documents = [dict(each) for each in documents_of(path)]
    for number, document in enumerate(documents):
        if _kind(document) in kinds:
            if not isinstance(document.get("metadata"), dict) or not document["metadata"].get("name"):
                raise ConfigurationError(f"{path}: {document['kind']} has no metadata.name")
            return document, documents[:number] + documents[number + 1 :]
    found = ", ".join(dict.fromkeys(map(_kind, documents))) or "nothing"
    raise ConfigurationError(f"{path} contains {found}, but the operator reconciles {', '.join(kinds) or 'nothing'}")


def _kind(document: JSONObject) -> str:
    group = str(document.get("apiVersion", "")).rpartition("/")[0]
    return f"{document.get('kind')}.{group}" if group else str(document.get("kind"))


# The runs


def _explored(
    subject: Subject, scenarios: Mapping[str, Scenario], options: CheckOptions, command: str
) -> dict[str, CheckOutcome]:
    is_program = isinstance(subject, ProgramSubject)
    budget = options.budget or (_PROGRAM_BUDGET if is_program else _BUDGET)
    chosen, _, token = (options.repeat or "").partition(" ")
    if options.repeat and chosen not in scenarios:
        raise ConfigurationError(f"--repeat must begin with {' or '.join(scenarios)}: copy the line of a report")
    results: dict[str, CheckOutcome] = {}
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    console = Console(stderr=True)
    silent = options.repeat is not None or not console.is_terminal  # a live display disturbs a debugger
    with Progress(*columns, console=console, transient=True, disable=silent) as bar:
        for name, scenario in scenarios.items():
            if options.repeat and name != chosen:
                continue
            result = results[name] = CheckOutcome()
            task = bar.add_task(f"{name}: reference runs")
            exploration = Exploration(
                replace(subject, scenario=scenario),
                budget=Budget(seconds=budget / len(scenarios), runs=options.runs),
                seed=options.seed,
                families=_PROGRAM_FAMILIES if is_program else FAMILIES,
                exact=not is_program,
                roles=not is_program,
                clock=current_clock().monotonic if is_program else process_time,
                shrinking=3 if is_program else 60,
            )

            def note(
                disturbances: Disturbances, findings: list[Finding], result: CheckOutcome = result, name: str = name
            ) -> None:
                text = "; ".join(each.describe() for each in disturbances)
                result.runs.append((" ".join(map(str, disturbances)), text, findings))
                bar.update(task, description=f"{name}, run {len(result.runs)}: {text[:80]}")  # noqa: B023 - called here

            if options.repeat:
                failure = exploration.repeat(token)
                result.outcome = Outcome([failure] if failure.findings else [])
            else:
                result.outcome = exploration.explore(progress=note)
            for each in result.outcome.failures:
                repeat = f"{command} --repeat {shlex.quote(f'{name} {each.token}')}"
                result.reports.append(report(each, result.outcome, repeat=repeat))
            if result.reports:  # the next scenario would most likely show the same
                break
    return results


# The output


def _print(example: ExampleScenarios, results: Mapping[str, CheckOutcome]) -> None:
    table = Table("scenario", "disturbance", "tried", "failed", "not tried")
    for name, result in results.items():
        failed = Counter(_family(run) for run, _, findings in result.runs if findings)
        for family in FAMILIES:
            tried, left = result.outcome.tried[family], result.outcome.left[family]
            if tried or left:
                table.add_row(name, family, str(tried), str(failed[family] or ""), str(left or ""))
    console = Console(width=None if sys.stdout.isatty() else _WIDE)
    if table.row_count:
        console.print(table)
    for text in (text for result in results.values() for text in result.reports):
        print(f"\n{text}")
    for path in example.unchanged:
        print(f"{path} was not changed: no other valid value was found")
    if not any(result.runs or result.reports for result in results.values()):
        print("nothing can be disturbed: the operator sends no write")
    failures = sum(len(result.outcome.failures) for result in results.values())
    print(f"\n{failures} failure{'s' * (failures > 1)}" if failures else "nothing was found")


def _document(name: str, example: ExampleScenarios, results: Mapping[str, CheckOutcome]) -> JSONObject:
    return {
        "target": name,
        "changed": list(example.changes),
        "unchanged": list(example.unchanged),
        "scenarios": {
            scenario: {
                "runs": [
                    {"disturbance": run, "text": text, "findings": [str(each) for each in findings]}
                    for run, text, findings in result.runs
                ],
                "notTried": dict(result.outcome.left),
                "failures": [
                    {"findings": [str(finding) for finding in each.findings], "repeat": f"{scenario} {each.token}"}
                    for each in result.outcome.failures
                ],
            }
            for scenario, result in results.items()
        },
    }


def _junit(name: str, results: Mapping[str, CheckOutcome]) -> str:
    """Return the results as JUnit XML: a test case for the reference run, and one for each disturbed run."""
    suites = ET.Element("testsuites")
    for scenario, result in results.items():
        suite = ET.SubElement(suites, "testsuite", name=f"{name} {scenario}", tests=str(len(result.runs) + 1))
        undisturbed = [each for each in result.outcome.failures if not each.disturbances]
        findings = [finding for each in undisturbed for finding in each.findings]
        for run, text, found in [("undisturbed", "nothing is disturbed", findings), *result.runs]:
            case = ET.SubElement(suite, "testcase", classname=f"{name}.{scenario}", name=run)
            if found:
                failure = ET.SubElement(case, "failure", message=text)
                failure.text = "\n".join(map(str, found))
        suite.set("failures", str(len(suite.findall("testcase/failure"))))
    return ET.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def _family(run: str) -> str:
    return run.rpartition(" ")[2].partition(".")[0]
