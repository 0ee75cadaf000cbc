"""An exploration: reference runs, disturbed runs within a budget, and the shortest run that shows a finding."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from reconciler._core.durations import OptionalSeconds
from reconciler.clock import process_time
from reconciler.errors import ConfigurationError
from reconciler.recording.collector import encoded
from reconciler.testing.differences import ObjectKey, compare_states
from reconciler.testing.explore.disturbances import FAMILIES, Disturbance
from reconciler.testing.explore.oracles import ORACLES, Finding, Judgement, comparable, judge
from reconciler.testing.explore.points import Moment, moments_of
from reconciler.testing.explore.run import Run, RunInterrupted, Subject, execute
from reconciler.testing.operator_process import OperatorFailed
from reconciler.testing.trace import TraceEvent

DEFAULT_SECONDS = 30.0
"""The default budget, in seconds of CPU."""


Disturbances = tuple[Disturbance, ...]


@dataclass(frozen=True)
class Budget:
    """How much an exploration may cost.

    Attributes:
        seconds: the CPU time (seconds, a timedelta or ``"1m"``); None for no limit.
        runs: disturbed runs; None for no limit.
    """

    seconds: OptionalSeconds = OptionalSeconds(DEFAULT_SECONDS)
    runs: int | None = None

    def __post_init__(self) -> None:
        if self.runs is not None and not self.runs > 0:
            raise ConfigurationError(f"budget: runs must be a positive number, not {self.runs!r}")


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
        seconds: the time that it took, as the budget counts it.
        undecided: why nothing could be judged, such as a budget that the undisturbed runs used up; ``""`` otherwise.
    """

    failures: list[Failure] = field(default_factory=list)
    tried: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    undecided: str = ""

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
        jobs: how many runs there are at once, which needs a subject in real time. Default 1.

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
        jobs: int = 1,
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
        self._jobs = jobs
        self._stopped = False
        self._references: dict[tuple[int, ...], tuple[Run, frozenset[tuple[ObjectKey, str]]]] = {}

    def explore(
        self,
        *,
        progress: Callable[[Disturbances, list[Finding]], None] | None = None,
        most: int = 1,
        known: Collection[str] = (),
    ) -> Outcome:
        """Run the scenario undisturbed, and then with one disturbance at a time, until the budget is used up.

        Args:
            progress: called after each disturbed run with its disturbances and findings. Default: nothing.
            most: after how many failures it stops; each is shrunk. Default 1.
            known: findings of other scenarios, as text; they do not count as failures. Default: none.
        """
        with _without_logs():
            return self._explore(progress, most, known)

    def stop(self) -> None:
        """End the exploration soon, also from another thread or a signal handler; `explore` returns what it found."""
        self._stopped = True
        self._subject.interrupt()

    def _explore(
        self, progress: Callable[[Disturbances, list[Finding]], None] | None, most: int, known: Collection[str]
    ) -> Outcome:
        outcome = Outcome()
        began = self._clock()
        waiting: list[Disturbances] = []
        try:
            with self._interrupted_after_the_budget():
                failure = self._examine_reference()
                if failure is not None and not self._exact and isinstance(failure.run.error, OperatorFailed):
                    outcome.undecided = str(failure.run.error)
                elif failure is not None:
                    outcome.failures.append(failure)
                else:
                    waiting = candidates(self._reference(())[0], self._families, pairs=self._pairs)
                for attempt in self._attempts(waiting, began, lambda: len(outcome.failures) >= most):
                    outcome.tried[attempt.disturbances[-1].family] += 1
                    if progress is not None:
                        progress(attempt.disturbances, attempt.findings)
                    is_news = any(str(each) not in known for each in attempt.findings)
                    if is_news and not self._is_known(attempt.findings, outcome.failures):
                        outcome.failures.append(self._shrink(attempt))
        except RunInterrupted:
            if not waiting and not outcome.failures:
                outcome.undecided = "the undisturbed runs did not end within the budget"
        outcome.left.update(each[-1].family for each in waiting[outcome.tried.total() :])
        if outcome.left and not outcome.tried:
            outcome.undecided = outcome.undecided or "the budget was used up before anything was disturbed"
        outcome.seconds = self._clock() - began
        return outcome

    def _attempts(
        self, waiting: Sequence[Disturbances], began: float, is_enough: Callable[[], bool]
    ) -> Iterator[Failure]:
        """Yield the disturbed runs in the order of their disturbances, until the budget is used up.

        Raises:
            RunInterrupted: the budget ended during a run.
        """

        def goes_on(number: int) -> bool:
            return not (self._stopped or is_enough() or self._is_used_up(number, self._clock() - began))

        if self._jobs == 1:
            for number, disturbances in enumerate(waiting):
                if not goes_on(number):
                    return
                yield self._attempt(disturbances, ())
            return
        with ThreadPoolExecutor(self._jobs) as pool:
            running: deque[Future[Failure]] = deque()
            try:
                for number, disturbances in enumerate(waiting):
                    if not goes_on(number):
                        break
                    running.append(pool.submit(self._attempt, disturbances, ()))
                    if len(running) == self._jobs:
                        yield running.popleft().result()
                while running and not is_enough():
                    yield running.popleft().result()
            finally:
                for each in running:
                    each.cancel()
                if running:
                    self._subject.interrupt()

    @contextlib.contextmanager
    def _interrupted_after_the_budget(self) -> Iterator[None]:
        """Interrupt runs in real time when the budget ends; those in virtual time are short."""
        seconds = self._budget.seconds
        timer = None if seconds is None or self._exact else threading.Timer(seconds, self.stop)
        if timer is not None:
            timer.daemon = True
            timer.start()
        try:
            yield
        finally:
            if timer is not None:
                timer.cancel()

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
        if not self._references and self._exact:
            # What modules do once, when they are imported, is over then; some draw random numbers.
            execute(self._subject, seed=self._seed, left_out=left_out)
        if found is None:
            run, other = self._undisturbed(left_out)
            varies = frozenset(
                (each.key, field.path)
                for rest in run.rests.keys() & other.rests.keys()
                for each in compare_states(comparable(run.rests[rest]), comparable(other.rests[rest]))
                for field in each.fields
            )
            found = self._references[left_out] = run, varies
        return found

    def _undisturbed(self, left_out: tuple[int, ...]) -> tuple[Run, Run]:
        """Return undisturbed runs with two seeds, at once if there may be several."""
        seeds = self._seed, self._seed + 1
        if self._jobs == 1:
            run, other = (execute(self._subject, seed=seed, left_out=left_out) for seed in seeds)
            return run, other
        with ThreadPoolExecutor(len(seeds)) as pool:
            run, other = pool.map(lambda seed: execute(self._subject, seed=seed, left_out=left_out), seeds)
            return run, other

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

    def _shrink(self, failure: Failure) -> Failure:
        """Leave out steps, and disturbances or a part of them, as long as an oracle that found something still does."""
        oracles = {finding.oracle for finding in failure.findings}
        best, runs = failure, self._shrinking
        improved = True
        while improved and runs > 0:
            improved = False
            for smaller in self._smaller(best):
                runs -= 1
                try:
                    attempt = self._attempt(*smaller)
                except RunInterrupted:
                    return best
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


_WEIGHTS = {
    ("crash", "after"): 9,
    ("lag", ""): 8,
    ("crash", "effect"): 8,
    ("crash", "before"): 7,
    ("lag", "point"): 7,
    ("travel", ""): 7,
    ("lose", "after"): 6,
    ("foreign", "recreate"): 6,
    ("foreign", "touch"): 5,
    ("cancel", "after"): 5,
    ("foreign", "owner"): 4,
    ("cancel", "effect"): 4,
    ("lose", "before"): 4,
    ("foreign", "delete"): 4,
    ("refuse", "500"): 4,
    ("cancel", "before"): 3,
    ("refuse", "webhook"): 3,
    ("foreign", "change"): 3,
    ("slow", ""): 3,
    ("refuse", "429"): 2,
    ("handover", ""): 2,
    ("shutdown", ""): 2,
}
"""How telling each kind of disturbance is: the higher, the earlier it is tried."""


def candidates(run: Run, families: Collection[str], *, pairs: bool = False) -> list[tuple[Disturbance, ...]]:
    """Return the disturbances of a run, the most telling first; each kind of disturbance takes its turn.

    Args:
        run: the reference run.
        families: the families of disturbances to choose from.
        pairs: whether each crash is also combined with each window in which watches lag.
    """
    moments = moments_of(run)
    steps = sum(event.what == "step" for event in run.trace)
    ranked: list[tuple[int, int, Disturbance]] = []
    ranks: Counter[tuple[str, str, int]] = Counter()
    found = [(each, telling) for each, telling in _all(run, moments, steps) if each.family in families]
    for each, _ in sorted(found, key=lambda pair: -pair[1]):
        kind = _kind(each)
        group = (*kind, min(each.steps, 2))
        ranked.append((ranks[group], -_WEIGHTS[kind], each))
        ranks[group] += 1
    ranked.sort(key=lambda entry: entry[:2])
    chosen = [each for _, _, each in ranked]
    windows = [each for each in chosen if each.family == "lag"]
    crashes = [each for each in chosen if each.family == "crash" and not each.steps]
    combined = [(window, crash) for crash in crashes for window in windows] if pairs else []
    return [*((each,) for each in chosen), *combined]


def _kind(each: Disturbance) -> tuple[str, str]:
    if each.family == "lag":
        return "lag", "point" if each.point is not None else ""
    return each.family, each.variant if (each.family, each.variant) in _WEIGHTS else ""


def _all(run: Run, moments: list[Moment], steps: int) -> Iterator[tuple[Disturbance, int]]:
    for moment in moments:
        if moment.point.verb == "effect":
            yield from _at_effect(moment, steps)
        else:
            yield from _at_request(run, moment, steps)
    for step in range(1, steps + 1):
        for kind in run.watched:
            for length in (1, 2, 3):
                if step + length - 1 <= steps:
                    yield Disturbance("lag", "", None, kind, step, length), length
    yield from _travels(run, moments)


def _at_effect(moment: Moment, steps: int) -> Iterator[tuple[Disturbance, int]]:
    yield Disturbance("crash", "effect", moment.point), moment.telling
    yield Disturbance("crash", "before", moment.point), moment.telling
    yield Disturbance("cancel", "effect", moment.point), moment.telling
    yield Disturbance("cancel", "before", moment.point), moment.telling
    for later in (1, 2):
        if moment.step + later <= steps:
            yield Disturbance("crash", "effect", moment.point, steps=later), moment.telling


def _at_request(run: Run, moment: Moment, steps: int) -> Iterator[tuple[Disturbance, int]]:
    point, telling = moment.point, moment.telling
    for variant in ("before", "after"):
        yield Disturbance("crash", variant, point), telling
        yield Disturbance("lose", variant, point), telling
        yield Disturbance("cancel", variant, point), telling
        for later in (1, 2):
            if moment.step + later <= steps:
                yield Disturbance("crash", variant, point, steps=later), telling
    for variant in ("429", "500", "webhook"):
        yield Disturbance("refuse", variant, point), telling
    for family in ("shutdown", "handover", "slow"):
        yield Disturbance(family, "", point), telling
    yield Disturbance("foreign", "owner", point), telling
    if point.verb != "create":
        yield Disturbance("foreign", "touch", point), telling
        if moment.owned and point.resource in run.watched:
            yield Disturbance("foreign", "change", point), telling
            yield Disturbance("foreign", "delete", point), telling
        if moment.owned:
            yield Disturbance("foreign", "recreate", point), telling + 2 * moment.deletes
    if point.resource in run.watched:
        yield Disturbance("lag", "", point), telling


def _travels(run: Run, moments: list[Moment]) -> Iterator[tuple[Disturbance, int]]:
    """Yield restarts after which a read at version 0 shows a state that mattered: a deletion, or an earlier spec."""
    if not any(event.text == "at version 0" for event in run.trace):
        return
    requests = [(moment, moment.point.find(run.trace)) for moment in moments if moment.point.verb != "effect"]
    past: dict[int, int] = {}
    for event in run.trace:
        for moment, struck in requests:
            if struck is event:
                for version, telling in past.items():
                    yield Disturbance("travel", str(version), moment.point), moment.telling + telling
        for change in event.changes:
            if change.after is not None:
                dying = "deletionTimestamp" in change.after["metadata"]
                past[int(change.after["metadata"]["resourceVersion"])] = 5 * dying + 2 * (event.author == "user")


def without_windows(disturbances: tuple[Disturbance, ...]) -> Iterator[tuple[Disturbance, ...]]:
    """Yield simpler forms of disturbances: single ones of a pair, and shorter windows."""
    if len(disturbances) > 1:
        yield from ((each,) for each in disturbances)
    for number, each in enumerate(disturbances):
        shorter = [0] if each.family == "crash" else range(1, each.steps) if each.point is None else []
        for steps in shorter:
            if steps < each.steps:
                yield (*disturbances[:number], replace(each, steps=steps), *disturbances[number + 1 :])
