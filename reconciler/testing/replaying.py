"""Replay: a recorded reconcile runs again, in virtual time and without a cluster, and is compared with the record."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import dis
import functools
import logging
import random
import sys
import sysconfig
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import reconciler
from reconciler._core.user_code import is_cancelled
from reconciler.client import Client
from reconciler.controller import Controller, Reconciler
from reconciler.controller.reconcile.cycle import Reconcile, ReconcileContext, ReconcileRun, UnsavedStore
from reconciler.controller.reconcile.threads import ReconcileThreads
from reconciler.controller.reconcile.worker import run_to_completion
from reconciler.controller.reconciler import bind, binding_of
from reconciler.controller.result import ObjectMoved
from reconciler.controller.wake.echo import EchoTracker
from reconciler.errors import ConfigurationError, describe_error
from reconciler.events import EventRecorder
from reconciler.manager import Manager
from reconciler.manager.setup import setup_function
from reconciler.meta import GroupVersionKind, Request
from reconciler.meta.cycle import current_cycle
from reconciler.meta.documents import parse_version
from reconciler.objects.kinds import KindLike, gvk_from
from reconciler.recording.answers import Answers, RecordedReplayClient, ReplayClient
from reconciler.recording.collector import Collector, Trace
from reconciler.recording.recording import RecordingReader, ServedKind
from reconciler.recording.records import ReadStep, ReconcileRecord, RequestStep, drawn_through
from reconciler.testing.virtual_clock import VirtualClock, virtual_time

Operator = (
    Reconciler
    | type[Reconciler]
    | Sequence[Reconciler | type[Reconciler]]
    | Callable[[Manager], Awaitable[object] | object]
)
"""What ``reconciler run`` takes: a reconciler or its class, several of them, or a function that takes the manager."""


@dataclass(frozen=True, slots=True, repr=False)
class Replay:
    """A recorded reconcile, and what the same reconcile does now.

    Attributes:
        recorded: the record.
        replayed: the record of the same reconcile now.
        differences: how they differ, the first difference first; empty if the writes and the outcome are the same.
        unreproducible: calls whose results are not recorded: ``"operator.py:12 in reconcile calls time.time"``.
    """

    recorded: ReconcileRecord
    replayed: ReconcileRecord
    differences: tuple[str, ...]
    unreproducible: tuple[str, ...]

    @property
    def writes(self) -> list[RequestStep]:
        """Return the requests that the reconcile sends now and that write."""
        return self.replayed.writes

    @property
    def status_writes(self) -> list[RequestStep]:
        """Return those of the writes that concern a status."""
        return [write for write in self.writes if write.path.endswith("/status")]

    @property
    def error(self) -> str | None:
        """Return how the reconcile fails now; None if it does not."""
        failure = self.replayed.failure
        return None if failure is None else f"{failure.type}: {failure.message}"

    def __repr__(self) -> str:
        return f"<Replay of {self}>"

    def __str__(self) -> str:
        recorded = self.recorded
        key = f"{recorded.kind.rpartition('/')[2]} {recorded.request}"
        return f"{key} at {recorded.started:%H:%M:%S}, {recorded.id}"


def replay(recording: str | Path, operator: Operator, *, reconcile: str | None = None) -> list[Replay]:
    """Run recorded reconciles again, in virtual time and without a cluster.

    Reads, responses, times, random numbers and results of effects are those of the recording. Call it outside an event
    loop.

    Args:
        recording: the directory of the recording, or one of its segments.
        operator: the reconciler, its class, several of them, or a function that adds controllers to a manager.
        reconcile: the id of the one reconcile to run, or its beginning. Default: all whose controller exists.

    Raises:
        ConfigurationError: it is not a recording, has no such reconcile, or the operator has no such controller.
        MissingExtra: looptime is not installed.
    """
    reader = RecordingReader(Path(recording))
    records = [each for each in reader.records() if reconcile is None or each.id.startswith(reconcile)]
    if not records:
        what = "no reconcile" if reconcile is None else f"no reconcile whose id begins with {reconcile!r}"
        raise ConfigurationError(f"{recording} contains {what}")
    return list(replay_records(records, operator, reader.kinds))


def replay_records(
    records: Sequence[ReconcileRecord], operator: Operator, kinds: Mapping[str, ServedKind]
) -> Iterator[Replay]:
    """Run recorded reconciles again, except those of controllers that the operator does not have; see `replay`.

    Raises:
        ConfigurationError: it has none of them.
    """
    foreign = None
    replayed = 0
    for record in records:
        try:
            with virtual_time(record.started):
                found = asyncio.run(_replayed(record, operator, kinds))
            yield found
            replayed += 1
        except _NoController as error:
            foreign = error
    if foreign is not None and not replayed:
        raise foreign


class _NoController(ConfigurationError):
    """The operator has no controller for a record."""


async def _replayed(record: ReconcileRecord, operator: Operator, kinds: Mapping[str, ServedKind]) -> Replay:
    answers = Answers(record, kinds)
    client = Client(answers, user_agent=answers.program)
    manager = Manager(client)
    await _add_controllers(manager, operator, record)
    controller = _controller_of(manager, record)
    clock = _ReplayClock(record.started, answers)
    clock.follow(asyncio.get_running_loop())
    collector = Collector(clock, trace := Trace(), answers)
    binding = _bind(controller, client, answers, collector)
    cycle = _cycle_of(record, controller, binding.threads, clock.monotonic())
    answers.elapsed = lambda: clock.monotonic() - cycle.run.since
    timed_out = record.failure is not None and record.failure.timed_out
    unreproducible: dict[str, None] = {}
    stopped = ""

    async def call(current: Reconcile) -> object:
        try:
            return await current.call(controller.reconciler.reconcile, current.request)
        except ObjectMoved:  # ends a reconcile without an error, as its controller does
            return None

    state = random.getstate()
    random.seed(record.id)  # for what was not recorded
    with drawn_through(answers.draw), collector.recording():
        current_cycle.set(cycle)
        collector.begun(cycle)
        clock.replays = True
        with _watched(unreproducible):
            try:
                cycle.completion = await run_to_completion(call, cycle, timeout=record.seconds if timed_out else None)
            except (SystemExit, asyncio.CancelledError) as error:
                if is_cancelled():  # by Ctrl-C
                    raise
                stopped = describe_error(error)
        clock.replays = False
        cycle.end(clock.monotonic() - cycle.run.since)
        collector.ended(cycle)
    random.setstate(state)
    binding.close()
    (replayed,) = trace.records
    if stopped and replayed.result != record.result:
        replayed.result = stopped
    answers.finish(replayed)
    return Replay(record, replayed, tuple(answers.differences), tuple(unreproducible))


async def _add_controllers(manager: Manager, operator: object, record: ReconcileRecord) -> None:
    name = getattr(operator, "__name__", type(operator).__name__)
    if isinstance(operator, Reconciler) or (isinstance(operator, type) and issubclass(operator, Reconciler)):
        declared: KindLike | None = getattr(operator, "resource", None)
        kind, recorded = gvk_from(declared or record.kind), gvk_from(record.kind)
        own = (kind.group, kind.kind) == (recorded.group, recorded.kind)
        options = {"name": record.controller} if own else {}
        setup = setup_function(operator, name, resource=declared or record.kind, **options)
    else:
        setup = setup_function(operator, name)
    await setup(manager)


def _controller_of(manager: Manager, record: ReconcileRecord) -> Controller:
    named = [each for each in manager.controllers if each.name == record.controller]
    of_kind = [each for each in manager.controllers if str(each.kind) == record.kind]
    for controller in (*named, *of_kind):
        return controller
    known = ", ".join(f"{each.name} ({each.kind.kind})" for each in manager.controllers) or "none"
    raise _NoController(
        f"the recording is of controller {record.controller!r} ({record.kind}), and the operator has no such "
        f"controller; it has {known}"
    )


def _bind(controller: Controller, client: Client, answers: Answers, collector: Collector) -> Any:
    """Bind the reconciler of a controller to the answers, in place of a cluster."""
    replaying = ReplayClient.__new__(ReplayClient)
    replaying.session = client.session
    replaying.answers = answers
    own = RecordedReplayClient.over_cached(replaying, collector.clock.monotonic)
    binding = dataclasses.replace(
        binding_of(controller.reconciler, "client"),
        client=own,
        events=EventRecorder(client, source=controller.name, clock=collector.clock),
        clock=collector.clock,
        loop=asyncio.get_running_loop(),
        resource=answers.resource(gvk_from(str(controller.kind))),
        check_leader=None,
    )
    bind(controller.reconciler, binding)
    return binding


def _cycle_of(record: ReconcileRecord, controller: Controller, threads: ReconcileThreads, since: float) -> Reconcile:
    gvk = GroupVersionKind.parse(record.kind)
    tracker: EchoTracker[Request] = EchoTracker()
    tracker.begin(record.request)
    context = ReconcileContext(gvk, tracker, UnsavedStore(), asyncio.get_running_loop(), threads)
    run = ReconcileRun(
        controller=controller.name,
        request=record.request,
        reasons=frozenset(record.reasons),
        attempt=record.attempt,
        priority=record.priority,
        since=since,
        bits=int(record.id.replace("-", ""), 16),
    )
    cycle = Reconcile(context, run)
    for step in record.steps:
        if isinstance(step, ReadStep) and (step.kind, step.request) == (record.kind, record.request) and step.version:
            cycle.set_basis(None, parse_version(step.version))
            break
    return cycle


class _ReplayClock(VirtualClock):
    """A virtual clock whose wall times are the recorded ones, as long as there are any."""

    def __init__(self, epoch: datetime, answers: Answers) -> None:
        super().__init__(epoch)
        self.replays = False
        self._answers = answers

    def now(self) -> datetime:
        return (self._answers.now() if self.replays else None) or super().now()


_CLOCKS = ("time", "monotonic", "perf_counter", "clock_gettime", "process_time", "thread_time")
_UNREPRODUCIBLE = {
    *(("datetime", name) for name in ("now", "utcnow", "today")),
    *(("time", f"{name}{unit}") for name in _CLOCKS for unit in ("", "_ns")),
    *(("time", name) for name in ("sleep", "ctime", "localtime", "gmtime", "asctime", "strftime")),
    *(("_thread", name) for name in ("start_new_thread", "start_joinable_thread")),
    *(("posix", name) for name in ("urandom", "getrandom", "times")),
    *(("random", name) for name in ("random", "getrandbits")),  # imported by name
    ("random.Random", "seed"),  # of a generator of your own
    ("_uuid", "generate_time_safe"),  # of uuid1
    ("_ssl", "RAND_bytes"),
}
"""Functions in C whose results are not recorded, with their class or module."""

_TIME_ARGUMENT = {"ctime": 1, "localtime": 1, "gmtime": 1, "asctime": 1, "strftime": 2}
"""Which argument is the time, in functions that read the clock without it."""


def _place(called: Any) -> str | None:
    """Return the class or module of a function in C."""
    owner = getattr(called, "__self__", None)
    if isinstance(owner, type) and issubclass(owner, date):
        return "datetime"
    if isinstance(owner, random.Random):
        return "random" if owner is _GENERATOR else "random.Random"
    return getattr(called, "__module__", None)


_GENERATOR = vars(random)["_inst"]
"""What the functions of `random` draw from."""


@functools.lru_cache(maxsize=1024)  # each log line formats its time
def _has_time(code: CodeType, place: int, name: str) -> bool:
    """Return whether the call at a place of code passes a time to a function that would read the clock without it."""
    if name not in _TIME_ARGUMENT:
        return False
    instructions = dis.get_instructions(code)
    *_, before, call = (
        each for each in instructions if each.offset == place or (each.offset < place and each.opname != "PRECALL")
    )
    is_none = before.opname.startswith("LOAD_") and before.argval is None
    return call.opname in ("PRECALL", "CALL") and call.arg == _TIME_ARGUMENT[name] and not is_none


_STANDARD = (str(Path(threading.__file__).parent), "<frozen")
_LIBRARIES = (
    sysconfig.get_path("purelib"),  # may be inside that of the standard library
    sysconfig.get_path("platlib"),
    str(Path(reconciler.__file__).parent),
    str(Path(logging.__file__).parent),
)
"""Where files are whose calls do not concern the user: what a library does is not part of the reconcile."""


def _is_between(code: CodeType) -> bool:
    """Return whether code calls for its caller: it is of the standard library, or the event loop's."""
    is_standard = code.co_filename.startswith(_STANDARD) and not code.co_filename.startswith(_LIBRARIES)
    return is_standard or code.co_name == "run_in_executor"


@contextlib.contextmanager
def _watched(found: dict[str, None]) -> Iterator[None]:
    """Note the calls of the user's code that cannot be reproduced, until the block ends."""

    def profile(frame: FrameType, event: str, called: Any) -> None:
        if event != "c_call":
            return
        place = _place(called)
        if (place, called.__name__) not in _UNREPRODUCIBLE or _has_time(frame.f_code, frame.f_lasti, called.__name__):
            return
        if called.__name__ == "seed" and frame.f_locals.get("a") is not None:  # the argument of Random.seed
            return
        caller: FrameType | None = frame
        while caller is not None and _is_between(caller.f_code):
            caller = caller.f_back
        if caller is None or caller.f_code.co_filename.startswith(_LIBRARIES):
            return
        if caller is not frame and called.__name__ == "monotonic":  # of a wait in the standard library
            return
        what = "starts a thread" if place == "_thread" else f"calls {place}.{called.__name__}"
        where = f"{Path(caller.f_code.co_filename).name}:{caller.f_lineno} in {caller.f_code.co_name}"
        found[f"{where} {what}"] = None

    before = sys.getprofile()
    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(before)
        threading.setprofile(None)
