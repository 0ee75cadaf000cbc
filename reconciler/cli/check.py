"""The command ``reconciler check``: the scenarios of an example, and what disturbs an operator in them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import sys
import threading
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from reconciler._core.wire import JSONObject
from reconciler.apiserver import APIServer
from reconciler.apiserver.manifests import documents_of
from reconciler.cli.options import CheckOptions
from reconciler.cli.output import print_json, write_files
from reconciler.cli.progress import Progress
from reconciler.cli.servers import load_object
from reconciler.cli.targets import load_target
from reconciler.client import Client
from reconciler.clock import current_clock, process_time
from reconciler.errors import ConfigurationError, importing
from reconciler.manager import Manager
from reconciler.manager.setup import setup_function
from reconciler.objects import Resource
from reconciler.testing.explore.disturbances import FAMILIES
from reconciler.testing.explore.enclosure import missing_for_enclosure
from reconciler.testing.explore.exploration import Budget, Disturbances, Exploration, Outcome
from reconciler.testing.explore.oracles import Finding
from reconciler.testing.explore.program import ProgramSubject
from reconciler.testing.explore.report import page_of, report
from reconciler.testing.explore.run import RunInterrupted, Scenario, Subject, execute
from reconciler.testing.explore.scenarios import ExampleScenarios, ProgramScenarios, ScenarioFile
from reconciler.testing.explore.strategies import schema_of
from reconciler.testing.world import World

with importing(extra="cli", purpose="'reconciler check'"):
    from rich.console import Console
    from rich.table import Table

_PROGRAM_FAMILIES = ("crash", "lag", "travel", "lose", "refuse", "foreign", "shutdown")
"""What disturbs a program from outside."""
_BUDGET, _PROGRAM_BUDGET = 30.0, 540.0
_LEAST = 1.0
"""The shortest budget of a scenario, in seconds."""
_TICK = 0.5
"""Seconds between two looks at whether a line must be shown."""
_BYTES_OF_A_WORLD = 500_000_000
"""What a server, a program and their share of this process take at most, in most cases."""
T = TypeVar("T")
_WIDE = 120
"""Columns of the table elsewhere than on a terminal."""


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


@dataclass(frozen=True)
class Checked:
    """What is checked.

    Attributes:
        name: its name.
        command: the command line, without what repeats a run.
        subject: the operator.
        scenarios: the scenarios by their names, the most telling first.
        example: the example; None for a scenario file alone.
        fields: finds scenarios of the fields of a program's example; None for other operators.
    """

    name: str
    command: str
    subject: Subject
    scenarios: Mapping[str, Scenario]
    example: ExampleScenarios | None = None
    fields: ProgramScenarios | None = None

    @property
    def is_program(self) -> bool:
        """Return whether the operator is a program in another process."""
        return isinstance(self.subject, ProgramSubject)


def run_check(target: str | None, options: CheckOptions) -> int:
    """Check an operator; return 0 if nothing was found, 1 if something was, and 2 if nothing could be judged.

    Raises:
        ConfigurationError: the target, the example or an option is invalid.
    """
    if (target is None) == (options.exec is None):
        raise ConfigurationError("pass either MODULE:ATTR, or --exec with the command of a program")
    things = [*map(load_object, options.objects)]
    definitions = [dict(document) for thing in things for document in documents_of(thing)]
    if target is None:
        checked = _program(str(options.exec), definitions, options)
    else:
        checked = _module(target, definitions, options)
    with Progress() as progress:
        results = _Check(checked, options, progress).run()
    if options.junit is not None:
        options.junit.unlink(missing_ok=True)
        write_files(options.junit.parent, {options.junit.name: _junit(checked.name, results)})
    if options.html is not None:
        write_files(options.html, dict(_pages(checked.name, results)))
    print_json(_document(checked, results)) if options.output == "json" else _print(checked, results)
    if any(result.outcome.failures for result in results.values()):
        return 1
    return 2 if any(result.outcome.undecided for result in results.values()) else 0


# What is checked


def _module(target: str, definitions: Sequence[JSONObject], options: CheckOptions) -> Checked:
    if options.example is None or options.scenario is not None:
        raise ConfigurationError("a Reconciler class needs --example FILE, and takes no --scenario")
    found = load_target(target)
    controllers = {"owns": list(options.owns)} if options.owns else {}
    kinds = asyncio.run(_kinds(found, target, controllers))
    document, others = _example(options.example, list(kinds))
    kind = kinds[_kind(document)] or _crds(definitions).get(_kind(document))
    schema = None if kind is None else schema_of(kind)
    example = ExampleScenarios.of(document, schema, others=others, seed=options.seed)
    subject = Subject(found, example.change, controllers, definitions)
    subject.new_world(seed=0, roles=False, options={}, manager={})  # raises for what is not an operator
    return Checked(target, _command_line(shlex.quote(target), options), subject, example.scenarios, example)


def _command_line(what: str, options: CheckOptions) -> str:
    """Return the command that checks the same, without what repeats a run."""
    paths = {"--example": options.example, "--scenario": options.scenario}
    words = [f"reconciler check {what}"]
    words += [f"--objects {shlex.quote(each)}" for each in options.objects]
    words += [f"--owns {shlex.quote(each)}" for each in options.owns]
    words += [f"{name} {shlex.quote(str(path))}" for name, path in paths.items() if path is not None]
    return " ".join([*words, *(["--open"] if options.open else [])])


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


def _program(command: str, definitions: Sequence[JSONObject], options: CheckOptions) -> Checked:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ConfigurationError(f"--exec {command!r} is not a command: {error}") from error
    if not words:
        raise ConfigurationError("--exec needs the command of a program")
    crds = _crds(definitions)
    if not crds:
        raise ConfigurationError("--exec needs the CustomResourceDefinition of the example: pass --crds FILE")
    file = ScenarioFile({}) if options.scenario is None else ScenarioFile.load(options.scenario)
    example = None
    if options.example is not None:
        document, others = _example(options.example, list(crds))
        schema = schema_of(crds[_kind(document)])
        example = ExampleScenarios.of(document, schema, others=others, seed=options.seed, alone=True)
    elif not file.scenarios:
        raise ConfigurationError("pass --example FILE, --scenario FILE, or both")
    if not options.open and (missing := missing_for_enclosure()):
        raise ConfigurationError(f"{missing}. Or pass --open: the program then reaches the network of this machine")
    subject = ProgramSubject(
        None,
        _nothing,
        definitions=definitions,
        command=words,
        resources=tuple(each["spec"]["names"]["plural"] for each in crds.values()),
        environment=file.environment,
        served_until=file.served_until,
        enclosed=not options.open,
        limit=options.settle_timeout,
    )
    line = _command_line(f"--exec {shlex.quote(command)}", options)
    if example is None or file.scenarios:
        return Checked(command, line, subject, file.scenarios)
    fields = ProgramScenarios(example)
    return Checked(command, line, subject, fields.scenarios, example, fields)


async def _nothing(_world: World) -> None:
    """Do nothing: the scenario is chosen later."""


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


class _Check:
    """The explorations of all scenarios, within one budget.

    Args:
        checked: what is checked.
        options: the options.
        progress: shows what is done.
    """

    def __init__(self, checked: Checked, options: CheckOptions, progress: Progress) -> None:
        self._checked = checked
        self._options = options
        self._progress = progress
        self._clock = current_clock().monotonic if checked.is_program else process_time
        self._until = self._clock() + (options.budget or (_PROGRAM_BUDGET if checked.is_program else _BUDGET))
        self._results: dict[str, CheckOutcome] = {}
        self._known: set[str] = set()
        self._stopped = False
        self._exploration: Exploration | None = None

    def run(self) -> dict[str, CheckOutcome]:
        """Explore the scenarios, or repeat a run; return the results by the names of the scenarios.

        Raises:
            ConfigurationError: the run to repeat is not one of a scenario.
        """
        with self._stopped_by_signals():
            if self._options.repeat is not None:
                self._repeat(self._options.repeat)
                return self._results
            waiting = list(self._checked.scenarios.items())
            fields = self._checked.fields
            while waiting and not self._stopped:
                name, scenario = waiting.pop(0)
                shares = len(waiting) + 1 + (fields is not None)
                self._explore(name, scenario, (self._until - self._clock()) / shares)
                if not self._checked.is_program and self._results[name].reports:
                    break  # the next scenario would most likely show the same
                if fields is not None and not waiting and not self._stopped:
                    self._find_fields(fields)
                    waiting = [each for each in fields.scenarios.items() if each[0] not in self._results]
                    fields = None
            for name, _ in waiting:
                self._results[name] = CheckOutcome(Outcome(undecided="it was not tried: the budget is used up"))
        return self._results

    @contextlib.contextmanager
    def _stopped_by_signals(self) -> Iterator[None]:
        """Let the first SIGINT or SIGTERM end the runs; a second one has its usual effect."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, _frame: object) -> None:
            signal.signal(number, before[signal.Signals(number)])
            self._progress.phase("stopping; what was found follows")
            self._stopped = True
            if self._exploration is not None:
                self._exploration.stop()

        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in before:
            signal.signal(number, stop)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _exploration_of(self, scenario: Scenario, seconds: float) -> Exploration:
        is_program = self._checked.is_program
        self._exploration = Exploration(
            replace(self._checked.subject, scenario=scenario),
            budget=Budget(seconds=max(seconds, _LEAST), runs=self._options.runs),
            seed=self._options.seed,
            families=_PROGRAM_FAMILIES if is_program else FAMILIES,
            exact=not is_program,
            roles=not is_program,
            clock=self._clock,
            shrinking=0 if is_program else 60,
            jobs=(self._options.jobs or _default_jobs()) if is_program else 1,
        )
        return self._exploration

    def _explore(self, name: str, scenario: Scenario, seconds: float) -> None:
        result = self._results[name] = CheckOutcome()
        self._progress.phase(f"{name}: undisturbed runs")
        exploration = self._exploration_of(scenario, seconds)

        def note(disturbances: Disturbances, findings: list[Finding]) -> None:
            text = "; ".join(each.describe() for each in disturbances)
            result.runs.append((" ".join(map(str, disturbances)), text, findings))
            if findings:
                self._progress.phase(f"{name}: found {findings[0]}".partition("\n")[0])
            if findings or len(result.runs) == 1:
                self._progress.phase(f"{name}: disturbed runs")
            self._progress.update(f"{len(result.runs)}, {text[:80]}")

        def explore() -> Outcome:
            return exploration.explore(progress=note, known=self._known)

        result.outcome = self._waited_for(explore) if self._checked.is_program else explore()
        self._known |= {str(each) for failure in result.outcome.failures for each in failure.findings}
        self._add_reports(name, result)

    def _waited_for(self, act: Callable[[], T]) -> T:
        """Call `act` in a thread, and show meanwhile that it goes on: a run takes up to a minute."""
        began = self._clock()
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(act)
            while not future.done():
                wait({future}, timeout=_TICK)
                self._progress.update(f"{self._clock() - began:.0f} s")
            return future.result()

    def _find_fields(self, fields: ProgramScenarios) -> None:
        self._progress.phase("looking for the fields that matter")
        subject = replace(self._checked.subject, scenario=fields.find_fields)
        timer = threading.Timer(max((self._until - self._clock()) / 3, _LEAST), subject.interrupt)
        timer.start()
        try:
            self._waited_for(lambda: execute(subject, seed=self._options.seed))
        except RunInterrupted:
            pass  # the fields that were found by then are known
        finally:
            timer.cancel()

    def _repeat(self, text: str) -> None:
        name, _, token = text.partition(" ")
        fields = self._checked.fields
        scenario = self._checked.scenarios.get(name) or (None if fields is None else fields.of_field(name))
        if scenario is None:
            choices = " or ".join(self._checked.scenarios)
            raise ConfigurationError(f"--repeat must begin with {choices}: copy the line of a report")
        result = self._results[name] = CheckOutcome()
        failure = self._exploration_of(scenario, self._until - self._clock()).repeat(token)
        result.outcome = Outcome([failure] if failure.findings else [])
        self._add_reports(name, result)

    def _add_reports(self, name: str, result: CheckOutcome) -> None:
        for each in result.outcome.failures:
            repeat = f"{self._checked.command} --repeat {shlex.quote(f'{name} {each.token}')}"
            result.reports.append(report(each, result.outcome, repeat=repeat))


def _default_jobs() -> int:
    """Return how many programs can run at once: they wait more than they compute."""
    pages = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(4 * (os.cpu_count() or 1), pages // _BYTES_OF_A_WORLD))


# The output


def _print(checked: Checked, results: Mapping[str, CheckOutcome]) -> None:
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
    unchanged = () if checked.example is None else checked.example.unchanged
    if checked.is_program and unchanged:
        print(f"{len(unchanged)} fields were not changed: no other valid value was found; --output json lists them")
    elif not checked.is_program:
        for path in unchanged:
            print(f"{path} was not changed: no other valid value was found")
    undecided = {name: result.outcome.undecided for name, result in results.items() if result.outcome.undecided}
    for name, why in undecided.items():
        print(f"{name}: {why}")
    if not any(result.runs or result.reports for result in results.values()) and not undecided:
        print("nothing can be disturbed: the operator sends no write")
    if isinstance(checked.subject, ProgramSubject) and not checked.subject.enclosed:
        print("the program ran with --open: it could reach the network of this machine")
    failures = sum(len(result.outcome.failures) for result in results.values())
    print(f"\n{failures} failure{'s' * (failures > 1)}" if failures else "nothing was found")


def _document(checked: Checked, results: Mapping[str, CheckOutcome]) -> JSONObject:
    example = checked.example or ExampleScenarios({})
    return {
        "target": checked.name,
        "changed": list(example.changes),
        "unchanged": list(example.unchanged),
        "scenarios": {
            scenario: {
                "runs": [
                    {"disturbance": run, "text": text, "findings": [str(each) for each in findings]}
                    for run, text, findings in result.runs
                ],
                "notTried": dict(result.outcome.left),
                "undecided": result.outcome.undecided,
                "failures": [
                    {"findings": [str(finding) for finding in each.findings], "repeat": f"{scenario} {each.token}"}
                    for each in result.outcome.failures
                ],
            }
            for scenario, result in results.items()
        },
    }


def _pages(name: str, results: Mapping[str, CheckOutcome]) -> Iterator[tuple[str, str]]:
    """Yield a page for each failure, with the name of its file."""
    for scenario, result in results.items():
        for number, (failure, text) in enumerate(zip(result.outcome.failures, result.reports, strict=True), 1):
            yield f"{scenario}-{number}.html", page_of(failure, title=f"{name}, {scenario}", text=text)


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
