"""Watchdogs of reconciles: those that do not end, with the line of code where each one waits, and tight loops.

A parent that rewrites its child in every reconcile, or two controllers that fight over one field: each looks like a
busy, healthy controller. More than ten reconciles of one key within ten seconds that nobody asked for are reported
once, with their reasons. A reconcile is asked for if it is a retry with backoff, the next step of
``Result(again=True)``, or the end of a delay. A reconcile because of other objects counts
only if the one before it changed another object. Otherwise it is not part of a loop: the Deployments of a key become
ready, and each of their changes enqueues it. Steps of ``Result(again=True)`` that do not end are reported as well. If
thousands of keys are in a tight loop, they have one cause: a few of them are logged, the others are counted.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import sys
import sysconfig
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from itertools import islice
from types import AsyncGeneratorType, CoroutineType, FrameType, GeneratorType, TracebackType
from typing import Any, NamedTuple

import msgspec

from reconciler.clock import Clock
from reconciler.controller.observers import ReconcileObserver
from reconciler.controller.reconcile.cycle import Reconcile, ReconcileRun
from reconciler.controller.wake import reasons as words
from reconciler.meta import Request
from reconciler.meta.documents import human_duration
from reconciler.telemetry.logs import code_origin, own_frames

_MAX_FRAMES = 6
_MAX_CHAIN = 200

_STANDARD = tuple({sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")})


class Frame(NamedTuple):
    """A line of a function, as ``file.py:12 in function``."""

    path: str
    line: int
    function: str

    def __str__(self) -> str:
        # The last two parts of the path: enough to find the file, and nothing about the machine.
        return f"{'/'.join(self.path.replace(chr(92), '/').split('/')[-2:])}:{self.line} in {self.function}"


class CodePlace(msgspec.Struct, frozen=True, omit_defaults=True):
    """The place where a reconcile in progress is.

    Attributes:
        frames: the frames of your code, innermost last, such as ``"db/operator.py:12 in reconcile_object"``; six at
            most.
        waits_in: the innermost frame, if it is not one of yours, such as ``"asyncio/locks.py:213 in Event.wait"``.
    """

    frames: tuple[str, ...] = ()
    waits_in: str | None = None

    def __str__(self) -> str:
        if not self.frames:
            return self.waits_in or "an unknown place"
        return self.frames[-1] + (f", which waits in {self.waits_in}" if self.waits_in else "")


def frames_of(traceback: TracebackType | None) -> tuple[str, ...]:
    """Return the frames of your code in a traceback, and the innermost one if it is not this library's.

    Without any of your code it is the innermost one alone.
    """
    frames = _frames(traceback)
    own = _own(frames)
    if frames and (not own or (frames[-1] not in own and code_origin(frames[-1].path).owner != "reconciler")):
        own.append(frames[-1])
    return tuple(str(each) for each in own[-_MAX_FRAMES:])


def is_foreign(error: BaseException) -> bool:
    """Return whether none of your code is in the traceback of an error, of its causes and of the parts of a group."""
    linked: BaseException | None = error
    while linked is not None:
        parts = linked.exceptions if isinstance(linked, BaseExceptionGroup) else ()
        if _own(_frames(linked.__traceback__)) or not all(map(is_foreign, parts)):
            return False
        linked = linked.__cause__ or linked.__context__
    return True


def place_of(reconcile: Reconcile | None) -> CodePlace | None:
    """Return where a reconcile in progress is; None if it has not begun yet. Call it on the event loop."""
    if reconcile is None or reconcile.task is None:
        return None
    thread = reconcile.thread
    return place_of_task(reconcile.task) if thread is None else place_of_thread(thread)


def place_of_task(task: asyncio.Task[Any]) -> CodePlace:
    """Return where a task is, and what it waits for: also in tasks, groups and generators that it awaits."""
    return _place([_frame(each) for each in islice(_chain(task), _MAX_CHAIN)])


def place_of_thread(thread: int) -> CodePlace:
    """Return where a thread is."""
    frame, frames = sys._current_frames().get(thread), []  # noqa: SLF001 - documented, despite its name
    while frame is not None:
        frames.append(_frame(frame))
        frame = frame.f_back
    return _place(frames[::-1])


def _frames(traceback: TracebackType | None) -> list[Frame]:
    frames = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        frames.append(Frame(code.co_filename, traceback.tb_lineno, code.co_name))
        traceback = traceback.tb_next
    return frames


def _place(frames: Sequence[Frame]) -> CodePlace:
    own = _own(frames)
    inner = str(frames[-1]) if frames and frames[-1] not in own else None
    return CodePlace(tuple(str(each) for each in own[-_MAX_FRAMES:]), inner)


def _own(frames: Sequence[Frame]) -> list[Frame]:
    """Return the frames of your code."""
    return [each for each, is_own in zip(frames, own_frames(each.path for each in frames), strict=True) if is_own]


def _frame(frame: FrameType) -> Frame:
    return Frame(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_qualname.replace("<locals>.", ""))


def _chain(awaited: object) -> Iterator[FrameType]:
    """Yield the frames of a task or coroutine and of everything that it awaits, outermost first."""
    frame: FrameType | None = None
    while awaited is not None:
        if isinstance(awaited, CoroutineType):
            inner, awaited = awaited.cr_frame, awaited.cr_await
        elif isinstance(awaited, AsyncGeneratorType):
            inner, awaited = awaited.ag_frame, awaited.ag_await
        elif isinstance(awaited, GeneratorType):
            inner, awaited = awaited.gi_frame, awaited.gi_yieldfrom
        elif isinstance(awaited, asyncio.Task):
            inner, awaited = None, awaited.get_coro()
        else:
            inner, awaited = None, _behind(awaited, frame)
        if inner is not None:
            frame = inner
            yield inner


def _behind(awaited: object, frame: FrameType | None) -> object | None:
    """Return what an awaitable without a frame waits for: a coroutine that it wraps, or a task that is not done.

    Args:
        awaited: a future, or what an ``await`` makes of an object.
        frame: of the function that awaits it.
    """
    if isinstance(awaited, asyncio.Future):
        waits: list[Any] = [*getattr(awaited, "_children", ())]  # of `asyncio.gather`
        if not waits and frame is not None and frame.f_code.co_filename.startswith(_STANDARD):
            names = frame.f_locals  # of `asyncio.wait`, `asyncio.wait_for` and `asyncio.TaskGroup`
            waits = [*names.get("fs", ()), names.get("fut"), *getattr(names.get("self"), "_tasks", ())]
        return next((each for each in waits if isinstance(each, asyncio.Task) and not each.done()), None)
    kinds = (CoroutineType, AsyncGeneratorType, GeneratorType, asyncio.Future)
    return next((each for each in gc.get_referents(awaited) if isinstance(each, kinds)), None)


_log = logging.getLogger("reconciler.controller")

STUCK = "ReconcileStuck"
"""The reason of the Warning Event."""

_LONGEST_PAUSE = 3600.0
"""Seconds between two reports of one reconcile at most; Events are kept for an hour. The pause doubles up to that."""


class RunningReconciles(ReconcileObserver):
    """The reconciles in progress of one controller; those that take too long are logged and become Events.

    Args:
        warn: records a Warning Event on the object of a key; None for none.
        clock: source of monotonic time.
        stuck_after: seconds after which a reconcile is reported; None for never.
    """

    def __init__(
        self, warn: Callable[[Request, str, str], None] | None, clock: Clock, stuck_after: float | None
    ) -> None:
        self.stuck_after = stuck_after
        self._warn = warn
        self._clock = clock
        self._running: dict[Request, Reconcile] = {}
        self._next_report: dict[Request, float] = {}  # seconds of the reconcile, of those that were reported
        self._timer: asyncio.TimerHandle | None = None

    def begun(self, reconcile: Reconcile, /) -> None:
        """Note a reconcile. One timer is enough for all that are in progress."""
        self._running[reconcile.request] = reconcile
        if self._timer is None and self.stuck_after is not None:
            call_later, after = asyncio.get_running_loop().call_later, self.stuck_after
            self._timer = call_later(after, self._look, after, context=contextvars.Context())  # not the reconcile's

    def ended(self, reconcile: Reconcile, /) -> None:
        """Forget a reconcile; log the end of one that was reported."""
        self._running.pop(reconcile.request, None)
        if not self._running and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._next_report and self._next_report.pop(reconcile.request, None) is not None:
            run, took = reconcile.run, human_duration(reconcile.seconds)
            fields = run.log_fields()
            _log.info("%s: the reconcile of %s ended after %s", run.controller, run.request, took, extra=fields)

    def of(self, request: Request) -> Reconcile | None:
        """Return the reconcile of a key; None if none is in progress."""
        return self._running.get(request)

    def stop(self) -> None:
        """Report nothing more."""
        self.stuck_after = None
        if self._timer is not None:
            self._timer.cancel()

    def _look(self, stuck_after: float) -> None:
        """Report the reconciles that are in progress for too long, and look again when the next one may be."""
        self._timer, delays = None, []
        for key, reconcile in self._running.items():
            seconds = self._clock.monotonic() - reconcile.run.since
            due = self._next_report.get(key, stuck_after)
            if seconds >= due:
                due = self._next_report[key] = seconds + min(max(seconds, stuck_after), _LONGEST_PAUSE)
                self._report(reconcile, seconds)
            delays.append(due - seconds)
        if delays:
            self._timer = asyncio.get_running_loop().call_later(max(0.001, min(delays)), self._look, stuck_after)

    def _report(self, reconcile: Reconcile, seconds: float) -> None:
        run, place = reconcile.run, place_of(reconcile)
        text = f"in progress for {human_duration(seconds)}, at {place}"
        _log.warning("%s: the reconcile of %s is %s", run.controller, run.request, text, extra=run.log_fields())
        if self._warn is not None:
            self._warn(run.request, STUCK, f"the reconcile is {text}")


_LIMIT = 10
"""Reconciles within a window that are normal."""

_WINDOW = 10.0
"""Seconds."""

_QUIET = 300.0
"""Seconds before the same key is reported again."""

_STEPS = 15
"""Successive steps of ``Result(again=True)`` that are normal."""

_KEYS = 5_000
"""Keys whose latest reconciles are remembered: far more than are reconciled between two of a key in a tight loop."""

_MAX_LOGGED = 10
"""Storms that are logged within a window."""

_ASKED_FOR = frozenset((words.RETRY, words.AGAIN, words.REQUEUE_AFTER))
"""Reasons of reconciles that an earlier reconcile asked for, and whose pace a backoff or a delay sets."""

_OF_OTHERS = frozenset((words.OWNED, words.WATCHED))
"""Words of reasons that name changes of other objects."""

_DELAYED = _ASKED_FOR | {words.ENQUEUE, words.SOURCE}
"""The same, for a key whose timer made it ready: ``enqueue(after=)``."""


@dataclass(frozen=True, slots=True)
class Storm:
    """A tight loop.

    Attributes:
        key: the key that reconciles too often.
        runs: the number of reconciles within ten seconds that nobody asked for, or the number of steps in a row.
        reasons: how many of those reconciles had each reason; one may have several.
        logged: whether to log it; False if too many others were logged within ten seconds.
        last: whether further ones within ten seconds are not logged.
        skipped: how many were not logged since the previous one that was.
        steps: whether it consists of steps of ``Result(again=True)``.
    """

    key: Request
    runs: int
    reasons: Counter[str]
    logged: bool = True
    last: bool = False
    skipped: int = 0
    steps: bool = False

    def __str__(self) -> str:
        reasons = ", ".join(f"{reason} x{count}" for reason, count in self.reasons.most_common()) or "unknown"
        skipped = f"; {self.skipped} other tight loops were counted but not logged" if self.skipped else ""
        more = "; further ones are counted but not logged" if self.last else ""
        if self.steps:
            reasons += "; return requeue_after to wait for something"
        within = "in a row" if self.steps else f"within {_WINDOW:g} s"
        return f"{self.key} was reconciled {self.runs} times {within}, because of: {reasons}{skipped}{more}"


class _UnaskedReconcile(msgspec.Struct, gc=False):
    """A reconcile that nobody asked for, with those of the same key before it.

    A resync makes one for every key at once: the garbage collector need not track them.
    """

    at: float
    reasons: frozenset[str]
    earlier: _UnaskedReconcile | None

    def latest(self, since: float) -> list[_UnaskedReconcile]:
        """Return this one and the earlier ones after a time, one more than the limit at most; forget all others."""
        runs: list[_UnaskedReconcile] = [self]
        while len(runs) <= _LIMIT and (run := runs[-1].earlier) is not None and run.at > since:
            runs.append(run)
        runs[-1].earlier = None
        return runs


class TightLoops(ReconcileObserver):
    """The observer that logs and counts tight loops, by counts in a sliding window.

    Reconciles that were asked for do not count: a retry, ``again``, or a delay, and no other reason.

    Args:
        clock: source of monotonic time.

    Attributes:
        storms: the number of tight loops since the start, logged or not.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._recent: OrderedDict[Request, _UnaskedReconcile] = OrderedDict()
        self._quiet_until: OrderedDict[Request, float] = OrderedDict()
        self._logged_at: deque[float] = deque(maxlen=_MAX_LOGGED)
        self._skipped = 0
        self.storms = 0
        self._changing: set[Request] = set()  # keys whose latest reconcile changed another object

    def begun(self, reconcile: Reconcile, /) -> None:
        """Count a reconcile, unless it was asked for."""
        key, run = reconcile.request, reconcile.run
        caused = key in self._changing
        if caused:
            self._changing.discard(key)
        storm = self.note(key, run.reasons, by_timer=reconcile.by_timer, caused=caused, now=run.since)
        if storm is not None:
            self._report(run, storm)

    def ended(self, reconcile: Reconcile, /) -> None:
        """Remember a reconcile that changed another object, which can enqueue its key again."""
        if reconcile.changed_others:
            self._changing.add(reconcile.request)

    def again(self, reconcile: Reconcile, steps: int, /) -> None:
        """Look for successive steps that do not end."""
        storm = self.note_steps(reconcile.request, steps)
        if storm is not None:
            self._report(reconcile.run, storm)

    def forgotten(self, key: Request, /) -> None:
        """Forget an object that is gone."""
        self._changing.discard(key)

    def note(
        self,
        key: Request,
        reasons: AbstractSet[str],
        *,
        by_timer: bool = False,
        caused: bool = True,
        now: float | None = None,
    ) -> Storm | None:
        """Count a reconcile, unless it was asked for; return a description if the key has started a tight loop.

        Args:
            key: the key.
            reasons: why it runs; without any, it was not asked for.
            by_timer: whether the key's timer made it ready. Default False.
            caused: whether the reconcile before it changed another object, which can be why it runs. Default True.
            now: monotonic second of its start. Default: now.
        """
        asked_for = bool(reasons) and (
            reasons <= _ASKED_FOR
            or (by_timer and words.words(frozenset(reasons)) <= _DELAYED)
            or (not caused and words.words(frozenset(reasons)) - _ASKED_FOR <= _OF_OTHERS)
        )
        if asked_for and not self._recent and not self._quiet_until:  # at rest
            return None
        now = self._clock.monotonic() if now is None else now
        self._drop_idle(now)
        if asked_for:
            return None
        run = self._recent[key] = _UnaskedReconcile(now, frozenset(reasons), self._recent.get(key))
        self._recent.move_to_end(key)
        if len(self._recent) > _KEYS:
            self._recent.popitem(last=False)
        runs = run.latest(now - _WINDOW)
        if len(runs) <= _LIMIT or key in self._quiet_until:
            return None
        return self._found(Storm(key, len(runs), Counter(reason for run in runs for reason in run.reasons)), now)

    def note_steps(self, key: Request, steps: int) -> Storm | None:
        """Return a description if the successive steps of a key seem not to end.

        Args:
            key: the key.
            steps: how many of its reconciles have returned ``Result(again=True)``, one after the other.
        """
        if steps <= _STEPS:
            return None
        now = self._clock.monotonic()
        self._drop_idle(now)
        if key in self._quiet_until:
            return None
        return self._found(Storm(key, steps, Counter({words.AGAIN: steps}), steps=True), now)

    def is_in_loop(self, key: Request) -> bool:
        """Return whether a tight loop of a key was found within the last five minutes: it is not reported again."""
        return self._quiet_until.get(key, 0.0) > self._clock.monotonic()

    def __len__(self) -> int:
        return len(self._recent)

    def _found(self, storm: Storm, now: float) -> Storm:
        self._quiet_until[storm.key] = now + _QUIET
        self.storms += 1
        if self._is_limit_reached(now):
            self._skipped += 1
            return replace(storm, logged=False)
        skipped, self._skipped = self._skipped, 0
        self._logged_at.append(now)
        return replace(storm, last=self._is_limit_reached(now), skipped=skipped)

    def _is_limit_reached(self, now: float) -> bool:
        return len(self._logged_at) == _MAX_LOGGED and self._logged_at[0] > now - _WINDOW

    def _drop_idle(self, now: float) -> None:
        while self._recent and next(iter(self._recent.values())).at <= now - _WINDOW:
            self._recent.popitem(last=False)
        while self._quiet_until and next(iter(self._quiet_until.values())) <= now:
            self._quiet_until.popitem(last=False)

    def _report(self, run: ReconcileRun, storm: Storm) -> None:
        if storm.logged:
            _log.warning("%s reconciles in a tight loop: %s", run.controller, storm, extra=run.log_fields())
