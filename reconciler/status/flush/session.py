"""The state of one open batcher: what was read, recorded and sent. No I/O; thread-safe."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from reconciler._core.cancellation import FAILURES
from reconciler._core.cycle import Cycle, current_cycle
from reconciler._core.hooks import log_metrics_failure, report
from reconciler.meta.documents import format_path, get_path, identical, merge_diff
from reconciler.meta.scalars import parse_version
from reconciler.status.errors import StatusError, StatusNotOpen, listed
from reconciler.status.flush.core import Flush
from reconciler.status.flush.effects import Effect, Effects, FlushResult, Outcome, Sleep, Target
from reconciler.status.flush.replay import UnansweredWrites, Unsaved, marks_at, select_replayable
from reconciler.status.options import Policy
from reconciler.status.record.conversion import copy_json
from reconciler.status.record.mutations import ApplyStatistics, Mutation, Path, apply_all, leaves
from reconciler.status.record.snapshot import Snapshot, owns
from reconciler.status.statistics import StatusMetrics

if TYPE_CHECKING:
    from reconciler._core.wire import JSONObject, ManagedFieldsEntry

__all__ = ["PendingFlush", "Session"]

_COUNTER_OF = {
    "written": "written",
    "unchanged": "suppressed",
    "ignored": "ignored",
    "gone": "dropped",
    "failed": "failed",
}

_NOT_READ = Snapshot("", "", None, {})

_logger = logging.getLogger("reconciler.status")


class PendingFlush(msgspec.Struct):
    """A flush in progress.

    Attributes:
        flush: the flush.
        effects: its effects, started.
        effect: the first one.
        checkpoint: whether it was requested inside the block.
        carried: the mutations from an earlier batcher.
        started: monotonic seconds.
        counts: the counters at its start.
    """

    flush: Flush
    effects: Effects
    effect: Effect
    checkpoint: bool
    carried: Sequence[Mutation]
    started: float
    counts: Mapping[str, int]


class Session:
    """The state between the start and the end of a batcher's block.

    Args:
        target: the object and the client.
        policy: how to send.
        metrics: notified of each flush.
        uid: of the object that the batcher was given; ``""`` if it is known only after the first read.
        counts: counters that the first read has already increased.

    Attributes:
        written: whether a write took effect; None before the end of the block.
        document: the newest response or read; None while it is the given object.
    """

    def __init__(
        self, target: Target, policy: Policy, *, metrics: StatusMetrics | None, uid: str, counts: dict[str, int]
    ) -> None:
        self.target = target
        self.policy = policy
        self.counts = counts
        self.written: bool | None = None
        self.document: JSONObject | None = None
        self._metrics = metrics
        self._uid = uid
        self._cycle: Cycle | None = None
        self._lock = threading.RLock()
        self._open = False
        self._earlier: Session | None = None  # see `continue_from`
        self._tip = _NOT_READ
        self._base: Mapping[str, Any] = {}  # the status that is recorded on
        self._carried: list[Mutation] = []  # from an earlier reconcile, which could not save them
        self._unanswered: UnansweredWrites | None = None  # writes of what is carried
        self._in_flight: list[Mutation] = []  # of the flush in progress, except what was withdrawn since
        self._recorded: list[Mutation] = []
        self._returned: dict[int, Mutation] = {}  # those of them that are in the error of a checkpoint, by their id()
        self._working: Mapping[str, Any] | None = None  # see `_working_status`; None until it is needed
        self._statistics = ApplyStatistics()

    @property
    def uid(self) -> str:
        """Return the uid of the object that may be written."""
        return self._uid

    @property
    def is_open(self) -> bool:
        """Return whether mutations are accepted."""
        return self._open

    @property
    def follows(self) -> bool:
        """Return whether its next flush comes after the last one of the session that it continues."""
        return self._earlier is not None

    @property
    def generation(self) -> int | None:
        """Return the generation of the version that was read; None if each write of the status raises it."""
        return None if self.policy.subresource is None else self._tip.generation

    @property
    def managed_fields(self) -> Sequence[ManagedFieldsEntry]:
        """Return the managedFields of the version that was read; empty if they are not known."""
        return self._tip.managed_fields

    def open(self, tip: Snapshot) -> None:
        """Start on a version: report it to the running reconcile, and take over what an earlier one could not save."""
        self._uid = self._uid or tip.uid
        self._tip, self._base = tip, tip.status
        self._open = True
        cycle = current_cycle.get()
        if cycle is None or not self._is_object_of(cycle):
            return
        self._cycle = cycle
        if tip.version:
            cycle.saw(self.target.gvk, self.target.request, tip.uid, parse_version(tip.version))
        unsaved = cycle.take_unsaved(self._uid)
        if isinstance(unsaved, Unsaved):
            self._take_over(unsaved)

    def continue_from(self, earlier: Session) -> None:
        """Start where a closed session ends, and send as it did, since its first snapshot has what that requires.

        While its last flush has not ended, what that writes is the base for recording. The first flush starts from the
        result, since the driver lets flushes take turns. The reconcile is not notified, since its body has ended.
        """
        self.policy = msgspec.structs.replace(self.policy, strategy=earlier.policy.strategy)
        self._earlier = earlier
        self._start_from(earlier)
        self._base = earlier.current()
        self._open = True

    def _start_from(self, earlier: Session) -> None:
        with earlier._lock:
            self._uid, self.document, self._tip = earlier.uid, earlier.document, earlier._tip
        self._base, self._working = self._tip.status, None
        if not self._tip.around and self.document is not None:  # the last version was taken without its frame
            around = self.policy.snapshot(self.document).around
            self._tip = msgspec.structs.replace(self._tip, around=around)

    # Recording.

    def record(self, mutation: Mutation) -> None:
        """Apply a mutation to the working status, and keep it.

        Raises:
            StatusNotOpen: the block has not started, or has ended.
            PathError, TypeError: it cannot be applied; nothing was recorded.
        """
        with self._lock:
            if not self._open:
                raise StatusNotOpen(
                    f"the status of {self.target} can be recorded only inside the `with` block of its batcher."
                )
            if self._returned and id(mutation) in self._returned:
                return
            working = self._working_status()
            if working is not self._base or not mutation.leaves_unchanged(working):
                mutation.apply(self._private_working_status(), self._statistics)
            self._recorded.append(mutation)

    def withdraw(self, unwanted: Callable[[Mutation], bool]) -> None:
        """Forget recorded mutations that have not been sent; those in flight are not sent again."""
        with self._lock:
            for recorded in (self._in_flight, self._recorded):
                recorded[:] = [mutation for mutation in recorded if not unwanted(mutation)]
            self._returned = {key: each for key, each in self._returned.items() if not unwanted(each)}
            self._working = None

    def current(self) -> JSONObject:
        """Return a private copy of the status with everything recorded applied."""
        with self._lock:
            copied: JSONObject = copy_json(self._working_status())
            return copied

    def get(self, path: Path) -> Any:
        """Return a private copy of one field of the current status."""
        with self._lock:
            return copy_json(get_path(self._working_status(), path))

    def close(self) -> None:
        """Accept no more mutations."""
        with self._lock:
            self._open = False

    # Flushing.

    def hand_over(self) -> Sequence[Mutation]:
        """Remove and return what is recorded, for someone else to write; nothing if it would not change the status."""
        with self._lock:
            mutations = tuple(self._recorded)
            fields = [path for path, _ in leaves(merge_diff(self._base, self._working_status()))]
            self._recorded, self._working = [], None
        self.counts["flushes"] += 1
        self.counts["trimmed"] += self._statistics.trimmed
        if not fields:
            self.counts["suppressed"] += 1
            self.written = False
        outcome = "handed over to kopf" if fields else "unchanged"
        _logger.debug("status of %s: %s, %d fields%s", self.target, outcome, len(fields), _FieldList(fields))
        if self._metrics is not None:
            report(
                self._metrics.flushed,
                written=bool(fields),
                suppressed=not fields,
                conflicts=0,
                replays=0,
                fields=len(fields),
                seconds=0.0,
            )
        return mutations if fields else ()

    def begin(self, *, checkpoint: bool) -> PendingFlush | None:
        """Start a flush of what is recorded; None if it ended without I/O.

        Raises:
            StatusContested: another writer changed a field that is set, which an earlier checkpoint found.
        """
        with self._lock:
            if self._earlier is not None:
                self._start_from(self._earlier)
                self._earlier = None
            mutations, carried = (*self._carried, *self._recorded), self._carried
            unchanged = not mutations or self._changes_nothing()
            computed, statistics = ({}, self._statistics) if unchanged else self._release_working_status()
            self._carried, self._recorded, self._returned = [], [], {}
            if unchanged:
                self._working = None
            else:
                self._in_flight = list(mutations)
        if unchanged:
            self.counts["trimmed"] += statistics.trimmed if mutations else 0
            self._end("unchanged")
            return None
        started, counts = self.policy.clock.monotonic(), dict(self.counts)
        flush = Flush(
            self.target,
            self.policy,
            self.counts,
            tip=self._tip,
            base=self._base,
            mutations=mutations,
            uid=self._uid,
            checkpoint=checkpoint,
            unanswered=self._unanswered,
        )
        pending = PendingFlush(flush, flush.run(computed, statistics), Sleep(0), checkpoint, carried, started, counts)
        try:
            pending.effect = next(pending.effects)
        except StopIteration as stop:
            self.finish(pending, stop.value)
            return None
        except Exception as error:
            self.fail(pending, error)
            raise
        return pending

    def finish(self, pending: PendingFlush, result: FlushResult) -> None:
        """Take over the result of a flush, and report it to the reconcile."""
        with self._lock:
            self.document = result.document or self.document
            self._tip, self._base, self._working = result.tip, result.base, None
            self._in_flight, self._unanswered = [], None
        self.counts["trimmed"] += result.trimmed
        self.counts["fields"] += len(result.fields)
        if result.outcome == "written":
            self.written = True
        if self._cycle is not None:
            for before, after, exact in result.reports:
                self._cycle.wrote(
                    self.target.gvk, self.target.request, result.tip.uid, before=before, after=after, exact=exact
                )
        if result.outcome == "gone":
            _logger.info("%s was deleted: what was recorded for its status is dropped", self.target)
        self._end(result.outcome, pending, fields=result.fields)

    def fail(self, pending: PendingFlush, error: BaseException) -> None:
        """Take back a flush that failed permanently.

        What it could not save stays recorded after a checkpoint, and at the end of the block goes to the reconcile. The
        exception is what may have been applied and must not be applied twice: it is only in the error. With a token
        everything stays, since the next flush can find out whether this one was applied.
        """
        attempts, unanswered = pending.flush.attempts, pending.flush.unanswered
        carried_ids = set(map(id, pending.carried))
        own = [each for each in attempts.mutations if id(each) not in carried_ids]
        with self._lock:
            wanted = set(map(id, self._in_flight))
            kept = [
                each
                for each in attempts.mutations
                if id(each) in wanted and (unanswered is not None or attempts.may_repeat(each))
            ]
            self._in_flight, self._working, self._unanswered = [], None, unanswered
            if pending.checkpoint:
                self._carried = [each for each in kept if id(each) in carried_ids]
                self._returned = {id(each): each for each in kept if id(each) not in carried_ids}
                self._recorded = [*self._returned.values(), *self._recorded]
        if not pending.checkpoint:
            if kept and self._cycle is not None:
                self._cycle.keep_unsaved(self._uid, Unsaved.of(kept, self._base, unanswered))
        elif isinstance(error, StatusError):
            error.unsaved = tuple(own)
        self._end("failed", pending, error)

    def _is_object_of(self, cycle: Cycle) -> bool:
        # The API version is a representation of the object; it does not identify another object.
        own, cycles = self.target.gvk, cycle.gvk
        return self.target.request == cycle.request and (own.group, own.kind) == (cycles.group, cycles.kind)

    def _take_over(self, unsaved: Unsaved) -> None:
        manager, fields = self.target.field_manager, self._tip.managed_fields
        mutations: Sequence[Mutation] = unsaved.mutations
        if unsaved.unanswered is not None:
            if self.policy.token is None:
                mutations = unsaved.unanswered.repeatable(mutations)
            else:
                marks, version = marks_at(self._tip.status, self.policy.token), parse_version(self._tip.version)
                mutations, self._unanswered = unsaved.unanswered.settle(marks, version, mutations)
        replayable = select_replayable(
            mutations, unsaved.base, self._tip.status, owned=lambda path: owns(fields, manager, path)
        )
        self.counts["contested"] += len(replayable.contested)
        try:
            self._working, self._statistics = apply_all(replayable.kept, self._base)
        except Exception:
            _logger.exception(
                "what an earlier reconcile recorded for %s can no longer be applied and is dropped: %s",
                self.target,
                listed(unsaved.paths),
            )
            self.counts["contested"] += len(replayable.kept)
            return
        self._carried = replayable.kept

    def _working_status(self) -> Mapping[str, Any]:
        """Return the base with carried and recorded applied; the base itself while they leave it unchanged."""
        if self._working is None:
            mutations = (*self._carried, *self._in_flight, *self._recorded)
            self._working, self._statistics = (
                apply_all(mutations, self._base) if mutations else (self._base, ApplyStatistics())
            )
        return self._working

    def _private_working_status(self) -> JSONObject:
        """Return the working status to be changed in place."""
        if self._working is self._base:
            self._working = copy_json(self._base)
        private: JSONObject = self._working_status()  # type: ignore[assignment]
        return private

    def _release_working_status(self) -> tuple[JSONObject, ApplyStatistics]:
        """Return the working status for a flush to keep; while the block is open, `current` continues from a copy."""
        computed, statistics = self._private_working_status(), self._statistics
        if self._open:
            self._working, self._statistics = copy_json(computed), ApplyStatistics()
        else:
            self._working = None
        return computed, statistics

    def _changes_nothing(self) -> bool:
        """Return whether a flush would certainly end without a request; most reconciles of an object change nothing."""
        tip, working = self._tip, self._working_status()
        is_current = self._base is tip.status and tip.uid == self._uid and self._unanswered is None
        return is_current and (working is tip.status or identical(tip.status, working))

    def _end(
        self,
        outcome: Outcome | Literal["failed"],
        pending: PendingFlush | None = None,
        error: BaseException | None = None,
        fields: Sequence[Path] = (),
    ) -> None:
        """Count, log and report the end of a flush; of one that ended without I/O if none was pending."""
        counts = self.counts
        counts["flushes"] += 1
        counts[_COUNTER_OF[outcome]] += 1
        before: Mapping[str, int] = counts if pending is None else pending.counts
        seconds = 0.0 if pending is None else self.policy.clock.monotonic() - pending.started
        conflicts, replays = counts["conflicts"] - before["conflicts"], counts["replays"] - before["replays"]
        if _logger.isEnabledFor(logging.DEBUG):
            _logger.debug(
                "status of %s: %s in %.3f s, %d writes, %d reads, %d conflicts, %d replays, %d fields%s",
                self.target,
                outcome if error is None else type(error).__name__,
                seconds,
                counts["attempts"] - before["attempts"],
                counts["reads"] - before["reads"],
                conflicts,
                replays,
                len(fields),
                _FieldList(fields),
            )
        if self._metrics is not None:
            try:
                self._metrics.flushed(
                    written=outcome == "written",
                    suppressed=outcome == "unchanged",
                    conflicts=conflicts,
                    replays=replays,
                    fields=len(fields),
                    seconds=seconds,
                )
            except FAILURES:
                log_metrics_failure(self._metrics.flushed)


class _FieldList:
    """The names of fields, never their values, formatted only if a log line is really written."""

    def __init__(self, fields: Sequence[Path]) -> None:
        self._fields = fields

    def __str__(self) -> str:
        return f": {listed(map(format_path, self._fields))}" if self._fields else ""
