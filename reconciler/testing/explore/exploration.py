"""An exploration: reference runs, disturbed runs within a budget, and the shortest run that shows a finding."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reconciler.clock import process_time
from reconciler.errors import ConfigurationError
from reconciler.recording.collector import encoded
from reconciler.testing.differences import ObjectKey, compare_states
from reconciler.testing.explore.candidates import candidates, without_windows
from reconciler.testing.explore.disturbances import FAMILIES, Disturbance
from reconciler.testing.explore.oracles import ORACLES, Finding, Judgement, comparable, judge
from reconciler.testing.explore.run import Run, Subject, execute
from reconciler.testing.trace import TraceEvent

DEFAULT_SECONDS = 30.0
"""The default budget, in seconds of CPU."""


Disturbances = tuple[Disturbance, ...]


@dataclass(frozen=True, slots=True)
class Budget:
    """How much an exploration may cost.

    Attributes:
        seconds: seconds of CPU; None for no limit.
        runs: disturbed runs; None for no limit.
    """

    seconds: float | None = DEFAULT_SECONDS
    runs: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("seconds", self.seconds), ("runs", self.runs)):
            if value is not None and not value > 0:
                raise ConfigurationError(f"budget: {name} must be a positive number, not {value!r}")


@dataclass(slots=True)
class Failure:
    """A run that must not be as it is, as short as possible.

    Attributes:
        findings: what the oracles found.
        disturbances: what was disturbed; empty for the reference run.
        left_out: the steps of the user that are not needed.
        seed: the seed.
        run: the run.
        reference: the undisturbed run with the same steps.
    """

    findings: list[Finding]
    disturbances: Disturbances
    left_out: tuple[int, ...]
    seed: int
    run: Run
    reference: Run

    @property
    def token(self) -> str:
        """Return the text that `Exploration.repeat` takes."""
        steps = ",".join(map(str, self.left_out))
        return " ".join([f"seed={self.seed}", *([f"without={steps}"] if steps else []), *map(str, self.disturbances)])


@dataclass(slots=True)
class Outcome:
    """What an exploration found.

    Attributes:
        failures: the failures; empty if there are none.
        tried: how many disturbances of each family were tried.
        left: how many were not tried, because the budget was used up or a failure was found.
        seconds: the CPU time that it took.
    """

    failures: list[Failure] = field(default_factory=list)
    tried: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def __str__(self) -> str:
        """Return one line: what was tried, and what was not."""
        tried = ", ".join(f"{name} {count}" for name, count in self.tried.items()) or "nothing"
        left = ", ".join(f"{name} {count}" for name, count in self.left.items())
        return f"tried {self.tried.total()} disturbances ({tried})" + (f"; not tried: {left}" if left else "")


class Exploration:
    """An exploration of an operator with one scenario.

    Args:
        subject: the operator and the scenario.
        budget: how much it may cost. Default: 30 s of CPU.
        seed: the seed of everything random. Default 0.
        families: the families of disturbances; see `FAMILIES`. Default: all.
        oracles: the names of the oracles; see `ORACLES`. Default: all.
        pairs: whether crashes are also combined with lagging watches. Default False.
        roles: whether the operator may do only what its roles allow, in the reference run. Default True. Without
            `Reconciler.permissions` of each of its reconcilers, roles say nothing, and are not used.
        exact: whether two undisturbed runs must have the same calls in the same order. Default True.
        clock: returns the seconds of the budget. Default: those of CPU.
        shrinking: how many runs a failure may cost until it is as short as possible. Default 60.

    Raises:
        ConfigurationError: a family or an oracle is unknown.
    """

    def __init__(
        self,
        subject: Subject,
        *,
        budget: Budget | None = None,
        seed: int = 0,
        families: Collection[str] | None = None,
        oracles: Collection[str] | None = None,
        pairs: bool = False,
        roles: bool = True,
        exact: bool = True,
        clock: Callable[[], float] = process_time,
        shrinking: int = 60,
    ) -> None:
        self._families = _checked("disturbance", families, FAMILIES)
        self._oracles = _checked("oracle", oracles, ORACLES)
        self._subject = subject
        self._budget = budget or Budget()
        self._seed = seed
        self._pairs = pairs
        self._roles = roles
        self._exact = exact
        self._clock = clock
        self._shrinking = shrinking
        self._references: dict[tuple[int, ...], tuple[Run, frozenset[tuple[ObjectKey, str]]]] = {}

    def explore(
        self, *, progress: Callable[[Disturbances, list[Finding]], None] | None = None, most: int = 1
    ) -> Outcome:
        """Run the scenario undisturbed, and then with one disturbance at a time, until the budget is used up.

        Args:
            progress: called after each disturbed run with its disturbances and findings. Default: nothing.
            most: after how many failures it stops; each is shrunk. Default 1.
        """
        with _without_logs():
            return self._explore(progress, most)

    def _explore(self, progress: Callable[[Disturbances, list[Finding]], None] | None, most: int) -> Outcome:
        outcome = Outcome()
        failure = self._examine_reference()
        waiting = [] if failure is not None else candidates(self._reference(())[0], self._families, pairs=self._pairs)
        if failure is not None:
            outcome.failures.append(failure)
        began = self._clock()  # the reference runs are not disturbed, and do not count
        for number, disturbances in enumerate(waiting):
            if len(outcome.failures) >= most or self._is_used_up(number, self._clock() - began):
                outcome.left.update(each[-1].family for each in waiting[number:])
                break
            findings = self._attempt(disturbances, ()).findings
            outcome.tried[disturbances[-1].family] += 1
            if progress is not None:
                progress(disturbances, findings)
            if findings and not self._is_known(findings, outcome.failures):
                outcome.failures.append(self._shrink(disturbances, findings))
        outcome.seconds = self._clock() - began
        return outcome

    def repeat(self, token: str) -> Failure:
        """Run what the last line of a report names, and return what is found; its findings may be empty.

        Raises:
            ConfigurationError: the text is not such a line.
        """
        disturbances: list[Disturbance] = []
        left_out: tuple[int, ...] = ()
        seed = self._seed
        for part in token.split():
            if part.startswith("seed=") and part[5:].lstrip("-").isdigit():
                seed = int(part[5:])
            elif part.startswith("without="):
                left_out = tuple(int(each) for each in part[8:].split(",") if each.isdigit())
            else:
                disturbances.append(Disturbance.parse(part))
        self._seed = seed
        if not disturbances:
            return self._examine_reference() or Failure([], (), (), seed, *[self._reference(())[0]] * 2)
        return self._attempt(tuple(disturbances), left_out)

    def _is_used_up(self, runs: int, seconds: float) -> bool:
        budget = self._budget
        return (budget.runs is not None and runs >= budget.runs) or (
            budget.seconds is not None and seconds >= budget.seconds
        )

    @staticmethod
    def _is_known(findings: Sequence[Finding], failures: Sequence[Failure]) -> bool:
        known = {finding.oracle for failure in failures for finding in failure.findings}
        return {finding.oracle for finding in findings} <= known

    # Reference runs

    def _reference(self, left_out: tuple[int, ...]) -> tuple[Run, frozenset[tuple[ObjectKey, str]]]:
        """Return the undisturbed run without some steps, and the fields that another seed changes."""
        found = self._references.get(left_out)
        if not self._references:
            # What modules do once, when they are imported, is over then; some draw random numbers.
            execute(self._subject, seed=self._seed, left_out=left_out)
        if found is None:
            run = execute(self._subject, seed=self._seed, left_out=left_out)
            other = execute(self._subject, seed=self._seed + 1, left_out=left_out)
            varies = frozenset(
                (each.key, field.path)
                for rest in run.rests.keys() & other.rests.keys()
                for each in compare_states(comparable(run.rests[rest]), comparable(other.rests[rest]))
                for field in each.fields
            )
            found = self._references[left_out] = run, varies
        return found

    def _examine_reference(self) -> Failure | None:
        run, _ = self._reference(())
        findings = judge(Judgement(run, run), self._oracles)
        if not findings and self._exact:
            probed = execute(self._subject, seed=self._seed, probes=True)
            findings = judge(Judgement(probed, probed), self._oracles)
            run = probed if findings else run
        if not findings and self._exact:
            again = execute(self._subject, seed=self._seed)
            difference = first_difference(run, again)
            if difference:
                findings = [Finding("deterministic", difference)]
        if not findings and self._roles and "permissions" in self._oracles:
            allowed = execute(self._subject, seed=self._seed, roles=True)
            findings = [Finding("permissions", text) for text in ORACLES["permissions"](Judgement(allowed, allowed))]
        return Failure(findings, (), (), self._seed, run, run) if findings else None

    # Disturbed runs

    def _attempt(self, disturbances: Disturbances, left_out: tuple[int, ...]) -> Failure:
        reference, varies = self._reference(left_out)
        options: dict[str, Any] = {}
        manager_options: dict[str, Any] = {}
        for each in disturbances:
            options |= each.options
            manager_options |= each.manager_options
        run = execute(
            self._subject,
            [each.arm for each in disturbances],
            seed=self._seed,
            left_out=left_out,
            options=options,
            manager_options=manager_options,
        )
        findings = judge(Judgement(run, reference, varies), self._oracles) if run.disturbed else []
        return Failure(findings, disturbances, left_out, self._seed, run, reference)

    def _shrink(self, disturbances: Disturbances, findings: Sequence[Finding]) -> Failure:
        """Leave out steps, and disturbances or a part of them, as long as an oracle that found something still does."""
        oracles = {finding.oracle for finding in findings}
        best, runs = self._attempt(disturbances, ()), self._shrinking
        improved = True
        while improved and runs > 0:
            improved = False
            for smaller in self._smaller(best):
                runs -= 1
                attempt = self._attempt(*smaller)
                reference = judge(Judgement(attempt.reference, attempt.reference), self._oracles)
                if not reference and oracles & {finding.oracle for finding in attempt.findings}:
                    best, improved = attempt, True
                    break
                if runs <= 0:
                    break
        return best

    @staticmethod
    def _smaller(failure: Failure) -> Iterator[tuple[Disturbances, tuple[int, ...]]]:
        steps = sum(event.what == "step" for event in failure.run.trace) + len(failure.left_out)
        for step in range(steps, 0, -1):
            if step not in failure.left_out:
                yield failure.disturbances, tuple(sorted((*failure.left_out, step)))
        for disturbances in without_windows(failure.disturbances):
            yield disturbances, failure.left_out


@contextlib.contextmanager
def _without_logs() -> Iterator[None]:
    """Log nothing: hundreds of processes are disturbed on purpose. A run that is repeated logs as usual."""
    logger = logging.getLogger("reconciler")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


def first_difference(first: Run, second: Run) -> str:
    """Return which call differs between two runs with the same seed; ``""`` if none does."""
    one, other = (
        [(_signature(event), event) for event in run.trace if event.what in ("request", "effect", "begun")]
        for run in (first, second)
    )
    for number, (before, after) in enumerate(zip(one, other, strict=False), 1):
        if before[0] != after[0]:
            line = f" ({before[1].line})" if before[1].line else ""
            return (
                f"two undisturbed runs with the same seed differ at call {number}{line}: {before[0][0]}, and then "
                f"{after[0][0]}. Something in the operator depends on the time, the order of a set, or a module's state"
            )
    if len(one) == len(other):
        return ""
    return f"two undisturbed runs with the same seed have {len(one)} and {len(other)} calls"


def _signature(event: TraceEvent) -> tuple[str, object]:
    if event.effect is not None:
        return f"effect {event.effect.name}({event.effect.key})", encoded(dict(event.effect.arguments))
    if event.request is None:
        return f"reconcile {event.key}", None
    return event.request.summary(), [change.after for change in event.changes]


def _checked(what: str, names: Collection[str] | None, known: Mapping[str, object]) -> Collection[str]:
    if names is None:
        return known
    unknown = [name for name in ([names] if isinstance(names, str) else names) if name not in known]
    if unknown or isinstance(names, str):
        shown = ", ".join(map(repr, unknown)) or repr(names)
        raise ConfigurationError(f"unknown {what} {shown}: pass a list of {', '.join(known)}")
    return names
