"""The echo rule against every order of reads, writes, responses and events that hypothesis finds.

The model server knows which version carries a change that the controller did not make. Two things must hold:

* *nothing is lost*: when all events have arrived and nothing is queued, a cycle has read every foreign change;
* *no echo*: a run for no other reason than an event has a version to show that no cycle had considered.

The readings of the rule that lose work (or bring the echo back) are written down as mutants, and the machine must find
each of them out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from reconciler.controller.reconcile.cycle import Reconcile, ReconcileContext, ReconcileRun, UnsavedStore
from reconciler.controller.wake.echo import EchoTracker, Wake
from reconciler.meta import GroupVersionKind, Request
from reconciler.meta.documents import Version
from tests.depth import examples

GVK = GroupVersionKind("example.com", "v1", "Tree")
A, B = Request("a", "ns"), Request("b", "ns")
KINDS = st.sampled_from(["plain", "no-op", "webhook"])
BASES = st.sampled_from(["tip", "cache"])
DOORS = st.sampled_from(["cache", "store", "server"])
OUTCOMES = st.sampled_from(["done", "requeue_after"])


class Rule:
    """The rule under test; mutants replace parts of it."""

    loop = asyncio.new_event_loop()

    def __init__(self) -> None:
        self.tracker: EchoTracker[Request] = self.make_tracker()

    def make_tracker(self) -> EchoTracker[Request]:
        return EchoTracker()

    def make_cycle(self, key: Request) -> Reconcile:
        run = ReconcileRun("trees", key, frozenset(), 0, 0)
        return Reconcile(ReconcileContext(GVK, self.tracker, UnsavedStore(), self.loop), run)

    def wrote_unconditionally(self, key: Request, after: Version) -> None:
        """Called for an unconditional write: nothing is recorded."""


@dataclass
class Write:
    """A conditional write of the batcher whose response has not arrived."""

    before: int
    after: int
    exact: bool


@dataclass
class Obj:
    """An object on the server, in the cache and in the controller's queue."""

    version: int = 0
    foreign: int = 0  # the newest version with a foreign change that a reconcile must still read
    undelivered: list[int] = field(default_factory=list)
    store: int = 0
    overlay: int = 0

    observed: int = -1  # the newest basis of a reconcile
    chain_top: int = -1  # the newest version that own writes led to, from the stored one at the start
    delivered: int = -1  # the newest version that an event brought

    reasons: set[str] = field(default_factory=set)
    timer: bool = False
    owed: bool = False  # another source enqueued the key since it was last in progress

    cycle: Reconcile | None = None
    basis: int | None = None  # the oldest version read
    tip: int | None = None  # what the batcher writes on
    chain: int = -1
    links: dict[int, int] = field(default_factory=dict)  # own writes: no version lies between the two
    pending: Write | None = None


def when(condition: Callable[[Obj], object]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Restrict a rule to states of object a in which it has an effect, so that no step is wasted."""
    return precondition(lambda self: bool(condition(self.objects[A])))


class EchoMachine(RuleBasedStateMachine):
    """Everything happens to object a; object b is one of the same kind that a's reconciles write to."""

    make_rule: type[Rule] = Rule
    opaque = False

    def __init__(self) -> None:
        super().__init__()
        self.rule = self.make_rule()
        self.clock = 0
        self.objects = {A: Obj(), B: Obj()}
        for key in self.objects:
            self._commit(key, foreign=True)
            self._deliver(key)
        self.run_of_b()

    # the server

    def _commit(self, key: Request, *, foreign: bool) -> int:
        obj = self.objects[key]
        self.clock += 1
        obj.version = self.clock
        obj.undelivered.append(self.clock)
        if foreign:
            obj.foreign = self.clock
        return self.clock

    def _wire(self, version: int) -> Version:
        return f"v{version}" if self.opaque else version

    @rule()
    def foreign_change(self) -> None:
        self._commit(A, foreign=True)

    # the watch

    def _event(self, key: Request, version: int) -> None:
        obj = self.objects[key]
        obj.delivered = max(obj.delivered, version)
        if self.rule.tracker.must_enqueue(key, self._wire(version)):
            self._add(key, "event")

    def _add(self, key: Request, reason: str) -> None:
        obj = self.objects[key]
        obj.reasons.add(reason)
        obj.timer = False

    def _deliver(self, key: Request) -> None:
        obj = self.objects[key]
        obj.store = obj.undelivered.pop(0)
        self._event(key, obj.store)

    @when(lambda a: a.undelivered)
    @rule()
    def next_event(self) -> None:
        self._deliver(A)

    @when(lambda a: len(a.undelivered) > 1)
    @rule()
    def relist_shows_the_newest_alone(self) -> None:
        obj = self.objects[A]
        obj.undelivered.clear()
        obj.store = obj.version
        self._event(A, obj.version)

    @precondition(lambda self: not self.opaque)
    @rule(back=st.integers(0, 3))
    def event_is_repeated_or_stale(self, back: int) -> None:
        self._event(A, max(1, self.objects[A].store - back))

    @rule()
    def another_source_asks(self) -> None:
        self.objects[A].owed = True
        self._add(A, "owned")

    @rule(restored=st.booleans())
    def history_breaks(self, restored: bool) -> None:
        if restored:
            self._restore_backup()
        else:
            self._recreate()

    def _recreate(self) -> None:
        obj = self.objects[A]
        self._commit(A, foreign=True)
        obj.undelivered.clear()
        obj.overlay, obj.store, obj.basis, obj.tip, obj.pending = 0, obj.version, None, None, None
        obj.observed = obj.chain_top = -1
        obj.links.clear()
        self.rule.tracker.forget(A)
        self._add(A, "deleted")
        self._event(A, obj.version)

    def _restore_backup(self) -> None:
        self.clock = 0
        self.rule.tracker.forget_all()
        for key, obj in self.objects.items():
            self._commit(key, foreign=True)
            obj.undelivered.clear()
            obj.store, obj.overlay, obj.delivered = obj.version, 0, obj.version
            obj.observed = obj.chain_top = -1
            obj.links.clear()
            obj.basis = obj.tip = obj.pending = None
            self._add(key, "restart")

    # the worker

    def _take(self, key: Request) -> None:
        obj = self.objects[key]
        if obj.reasons == {"event"} and not self.opaque:
            assert obj.delivered > obj.chain_top, f"echo: {key} runs for {obj.delivered}, considered {obj.chain_top}"
        obj.reasons, obj.timer, obj.owed = set(), False, False
        obj.basis = obj.tip = obj.pending = None
        obj.chain = self._linked(obj, max(obj.store, obj.chain_top))
        self.rule.tracker.begin(key)
        obj.cycle = self.rule.make_cycle(key)
        obj.cycle.set_basis("uid", self._wire(obj.store))

    @staticmethod
    def _linked(obj: Obj, version: int) -> int:
        while version in obj.links:
            version = obj.links[version]
        return version

    def _read(self, key: Request, door: str = "cache") -> None:
        """Read through the cached client, which reports it, or through the informer's store or the live client."""
        obj = self.objects[key]
        version = {"cache": max(obj.store, obj.overlay), "store": obj.store, "server": obj.version}[door]
        obj.basis = version if obj.basis is None else min(obj.basis, version)
        obj.tip = version if obj.tip is None else obj.tip
        if door == "cache":
            obj.cycle.saw(GVK, key, "uid", self._wire(version))

    @when(lambda a: a.cycle is None and (a.reasons or a.timer))
    @rule(door=DOORS)
    def take(self, door: str) -> None:
        self._take(A)
        self._read(A, door)

    @when(lambda a: a.cycle is None and (a.reasons or a.timer))
    @rule(kind=KINDS, outcome=OUTCOMES)
    def whole_cycle(self, kind: str, outcome: str) -> None:
        self._take(A)
        self._read(A)
        self._send("tip", kind)
        self._answer()
        self._finish(A, outcome)

    @when(lambda a: a.cycle and a.basis)
    @rule(door=DOORS)
    def user_reads_again(self, door: str) -> None:
        self._read(A, door)

    @when(lambda a: a.cycle and a.tip and not a.pending)
    @rule(basis=BASES, kind=KINDS)
    def batcher_sends(self, basis: str, kind: str) -> None:
        self._send(basis, kind)

    @when(lambda a: a.cycle and a.tip and not a.pending)
    @rule(basis=BASES, kind=KINDS)
    def batcher_sends_and_hears(self, basis: str, kind: str) -> None:
        self._send(basis, kind)
        self._answer()

    def _send(self, basis: str, kind: str) -> None:
        obj = self.objects[A]
        before = obj.tip if basis == "tip" else max(obj.store, obj.overlay)
        if before != obj.version:  # 409: it re-reads and replays on what is there
            before = obj.version
        exact = kind != "webhook"
        after = before if kind == "no-op" else self._commit(A, foreign=not exact)
        obj.pending = Write(before, after, exact)

    @when(lambda a: a.pending)
    @rule()
    def answer_arrives(self) -> None:
        self._answer()

    def _answer(self) -> None:
        obj = self.objects[A]
        write, obj.pending = obj.pending, None
        obj.overlay = max(obj.overlay, write.after)
        if write.exact and write.before == obj.tip:
            obj.tip = write.after
        if write.exact and write.before != write.after:
            obj.links[write.before] = write.after
            obj.chain = self._linked(obj, obj.chain)
        before, after = self._wire(write.before), self._wire(write.after)
        obj.cycle.wrote(GVK, A, "uid", before=before, after=after, exact=write.exact)

    @when(lambda a: a.pending)
    @rule()
    def answer_is_lost(self) -> None:
        self.objects[A].pending = None

    @when(lambda a: a.cycle)
    @rule()
    def user_patches_own_object(self) -> None:
        self.objects[A].overlay = self._commit(A, foreign=True)

    @when(lambda a: a.cycle)
    @rule()
    def batcher_writes_unconditionally(self) -> None:
        obj = self.objects[A]
        obj.overlay = self._commit(A, foreign=False)
        self.rule.wrote_unconditionally(A, self._wire(obj.overlay))

    @when(lambda a: a.cycle)
    @rule()
    def cycle_writes_b(self) -> None:
        child = self.objects[B]
        before = child.version
        child.overlay = self._commit(B, foreign=True)
        cycle = self.objects[A].cycle
        cycle.wrote(GVK, B, "uid", before=self._wire(before), after=self._wire(child.overlay), exact=True)

    @precondition(lambda self: self.objects[B].undelivered)
    @rule()
    def event_of_b(self) -> None:
        self._deliver(B)

    @precondition(lambda self: self.objects[B].reasons)
    @rule()
    def run_of_b(self) -> None:
        self._take(B)
        self._read(B)
        self._finish(B, "done")

    @when(lambda a: a.cycle)
    @rule(outcome=OUTCOMES)
    def finish(self, outcome: str) -> None:
        self._finish(A, outcome)

    def _finish(self, key: Request, outcome: str) -> None:
        obj = self.objects[key]
        obj.cycle.end(0.1)
        if self.rule.tracker.finish(key) is not None:
            self._add(key, "event")
        obj.timer = outcome == "requeue_after" and not obj.reasons
        obj.cycle = obj.pending = None
        if obj.basis is not None:
            obj.observed = max(obj.observed, obj.basis)
            obj.chain_top = max(obj.chain_top, obj.chain)

    @invariant()
    def what_rests_has_missed_nothing(self) -> None:
        for key, obj in self.objects.items():
            if obj.cycle is None and not obj.reasons and not obj.undelivered:
                assert not obj.owed, f"{key}: the run that another source asked for is lost"
                assert obj.observed >= obj.foreign, f"{key}: change {obj.foreign} lost, observed {obj.observed}"

    def teardown(self) -> None:
        """Deliver everything: the controller must come to rest within a few reconciles."""
        for key, obj in self.objects.items():
            for _ in range(5):
                if obj.cycle is not None:
                    self._finish(key, "done")
                while obj.undelivered:
                    self._deliver(key)
                self.what_rests_has_missed_nothing()
                if not obj.reasons:
                    break
                self._take(key)
                self._read(key)
            assert not obj.reasons, f"{key} does not come to rest"


class OpaqueEchoMachine(EchoMachine):
    opaque = True


FULL = settings(
    deadline=None, max_examples=examples(150), stateful_step_count=40, suppress_health_check=list(HealthCheck)
)
HUNT = settings(
    deadline=None,
    max_examples=3000,
    stateful_step_count=30,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)

TestEchoRule = EchoMachine.TestCase
TestEchoRule.settings = FULL
TestOpaqueVersions = OpaqueEchoMachine.TestCase
TestOpaqueVersions.settings = FULL


# Plausible readings of the rule that lose work


class _BasisIsWhatTheBatcherTook(EchoTracker[Request]):
    """The version that the flush was conditional on counts as observed, whether the reconcile read it or not."""

    def record_write(self, key, *, before, after, exact):
        progress = self._in_progress[key]
        progress.tip = before
        super().record_write(key, before=before, after=after, exact=exact)


class _SetOfOwnVersions(EchoTracker[Request]):
    """An event is an echo if its version is among the responses to own writes, including replays."""

    def __init__(self) -> None:
        super().__init__()
        self.own: dict[Request, set[Version]] = {}
        self.newest: dict[Request, Version] = {}

    def record_write(self, key, *, before, after, exact):
        self.own.setdefault(key, set()).add(after)

    def must_enqueue(self, key, version, wake=Wake()):  # noqa: B008
        self.newest[key] = version
        return version not in self.own.get(key, ()) and super().must_enqueue(key, version, wake)

    def finish(self, key):
        super().finish(key)
        return Wake() if self.newest.get(key) not in self.own.get(key, ()) else None


class _UnconditionalWriteIsOwn(Rule):
    """An apply or a plain merge patch without a resourceVersion counts as own."""

    def wrote_unconditionally(self, key, after):
        if self.tracker.in_progress(key):
            self.tracker._in_progress[key].tip = after


class _AnyKeyCycle(Reconcile):
    """A write to any object of the kind counts as observed by that object's reconcile."""

    def wrote(self, gvk, request, uid, *, before, after, exact):
        if request == self.request:
            super().wrote(gvk, request, uid, before=before, after=after, exact=exact)
        elif isinstance(after, int):
            self._context.tracker._seen[request] = after


class _AnswerNeedNotBeExact(EchoTracker[Request]):
    """A change by a webhook in our own version goes unnoticed."""

    def record_write(self, key, *, before, after, exact):
        super().record_write(key, before=before, after=after, exact=True)


class _EveryReadMovesTheBasis(EchoTracker[Request]):
    """The newest version read counts, although the reconcile started with an older one."""

    def record_read(self, key, version):
        progress = self._in_progress[key]
        if not progress.void:
            progress.basis = progress.tip = version


class _FirstReportedReadIsTheBasis(EchoTracker[Request]):
    """An earlier read through another client, which is not reported, does not count."""

    def set_basis(self, key, version):
        super().set_basis(key, version)
        self._in_progress[key].basis = self._in_progress[key].tip = None

    def record_read(self, key, version):
        progress = self._in_progress[key]
        if progress.basis is None and not progress.void:
            progress.basis = progress.tip = version
        super().record_read(key, version)


class _LateIsIgnored(EchoTracker[Request]):
    """All events during a reconcile count as echoes."""

    def finish(self, key):
        super().finish(key)


class _RestoreIsIgnored(EchoTracker[Request]):
    """Versions are assumed never to go back."""

    def forget_all(self):
        pass


class _OwnWritesAreNews(EchoTracker[Request]):
    """No echo rule: each own write wakes the controller."""

    def __init__(self) -> None:
        super().__init__(own_writes=False)


def _with_tracker(tracker: type[EchoTracker[Request]]) -> type[Rule]:
    return type(tracker.__name__, (Rule,), {"make_tracker": lambda self: tracker()})


def _with_cycle(cycle: type[Reconcile]) -> type[Rule]:
    def make_cycle(self: Rule, key: Request) -> Reconcile:
        run = ReconcileRun("trees", key, frozenset(), 0, 0)
        return cycle(ReconcileContext(GVK, self.tracker, UnsavedStore(), self.loop), run)

    return type(cycle.__name__, (Rule,), {"make_cycle": make_cycle})


MUTANTS = {
    "1 the basis is what the batcher took at flush": _with_tracker(_BasisIsWhatTheBatcherTook),
    "2 a set of own versions": _with_tracker(_SetOfOwnVersions),
    "3 an unconditional write counts as own": _UnconditionalWriteIsOwn,
    "4 a cycle's write marks any key": _with_cycle(_AnyKeyCycle),
    "the response need not be exact": _with_tracker(_AnswerNeedNotBeExact),
    "every read moves the basis": _with_tracker(_EveryReadMovesTheBasis),
    "the first reported read is the basis": _with_tracker(_FirstReportedReadIsTheBasis),
    "late events are ignored": _with_tracker(_LateIsIgnored),
    "a restored backup is ignored": _with_tracker(_RestoreIsIgnored),
    "own writes are news": _with_tracker(_OwnWritesAreNews),
}


@pytest.mark.thorough
@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS.keys())
def test_the_machine_detects_the_wrong_reading(mutant):
    machine = type("Mutant", (EchoMachine,), {"make_rule": mutant})
    with pytest.raises(AssertionError, match=r"lost|echo|rest"):
        run_state_machine_as_test(machine, settings=HUNT)
