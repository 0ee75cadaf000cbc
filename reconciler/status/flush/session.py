"""Keep the state of one open batcher: what was read, what was recorded, what was sent. No I/O; safe in threads."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from reconciler.meta import Cycle, current_cycle, format_path, get_path, merge_diff, parse_version
from reconciler.status.errors import MAX_NAMED, StatusConflict, StatusContested, StatusError, StatusNotOpen
from reconciler.status.flush.core import Flush
from reconciler.status.flush.effects import Effect, Flow, Flushed, Outcome, Policy, Sleep, Target
from reconciler.status.flush.managed_fields import owns
from reconciler.status.flush.replay import sift
from reconciler.status.flush.unsaved import Doubts, Unsaved
from reconciler.status.record.json_values import copy_json
from reconciler.status.record.mutations import Context, Mutation, Path, apply_all, leaves
from reconciler.status.record.snapshot import Snapshot
from reconciler.status.statistics import StatusMetrics

__all__ = ["Pending", "Session"]

_COUNTED_AS = {
    "written": "written",
    "unchanged": "suppressed",
    "ignored": "ignored",
    "gone": "dropped",
    "failed": "failed",
}

_logger = logging.getLogger("reconciler.status")


class Pending(msgspec.Struct):
    """Be a flush that was begun.

    Attributes:
        flush: the flush.
        flow: its effects, begun.
        effect: the first one.
        checkpoint: whether it was asked for inside the block.
        carried: the mutations that come from an earlier batcher.
        started: monotonic seconds.
        before: the counters when it began.
    """

    flush: Flush
    flow: Flow
    effect: Effect
    checkpoint: bool
    carried: Sequence[Mutation]
    started: float
    before: Mapping[str, int]


class Session:
    """Be the state between the beginning and the end of a batcher's block.

    Args:
        target: the object and the client.
        policy: how to send.
        metrics: hears of each flush.
        uid: of the object that the batcher was given; ``""`` when it is known only from the first read.
        counts: counters that were begun before the session, by the first read.
    """

    def __init__(
        self, target: Target, policy: Policy, *, metrics: StatusMetrics | None, uid: str, counts: dict[str, int]
    ) -> None:
        self.target = target
        self.policy = policy
        self.counts = counts
        self.written: bool | None = None
        self.document: dict[str, Any] | None = None  # the newest answer or read; None while it is the object given
        self._metrics = metrics
        self._uid = uid
        self._cycle: Cycle | None = None
        self._lock = threading.RLock()
        self._open = False
        self._tip = Snapshot("", "", None, {})
        self._considered: Mapping[str, Any] = {}
        self._carried: list[Mutation] = []
        self._doubts: Doubts | None = None  # about writes of what is carried
        self._recorded: list[Mutation] = []
        self._failed: list[Mutation] = []  # of a checkpoint, unless recorded again
        self._working: dict[str, Any] | None = None  # considered, with carried and recorded applied; made when needed
        self._context = Context()

    @property
    def uid(self) -> str:
        """Return the uid of the object that may be written."""
        return self._uid

    @property
    def is_open(self) -> bool:
        """Say whether mutations are accepted."""
        return self._open

    @property
    def generation(self) -> int | None:
        """Return the generation of the version that was read; None where each write of the status raises it."""
        subresource, target = self.policy.subresource, self.target
        raised = subresource is None or (subresource == "auto" and target.memory.lacks_subresource(target.gvk))
        return None if raised else self._tip.generation

    @property
    def managed_fields(self) -> Sequence[Mapping[str, Any]]:
        """Return who owns what of the version that was read; empty when that is not known."""
        return self._tip.managed_fields

    def open(self, tip: Snapshot) -> None:
        """Begin on a version: tell the running cycle, and take over what an earlier one could not save."""
        self._uid = self._uid or tip.uid
        self._tip, self._considered = tip, tip.status
        self._open = True
        cycle = current_cycle.get()
        if cycle is None or not self._is_of(cycle):
            return
        self._cycle = cycle
        if tip.version:
            cycle.saw(self.target.gvk, self.target.request, tip.uid, parse_version(tip.version))
        unsaved = cycle.take_unsaved(self._uid)
        if isinstance(unsaved, Unsaved):
            self._carry(unsaved)

    def follow(self, earlier: Session) -> None:
        """Begin where a closed session ended, and send as it did, since its first snapshot holds what that takes.

        Its cycle is not told, since the body of that has ended.
        """
        self.policy = msgspec.structs.replace(self.policy, strategy=earlier.policy.strategy)
        with earlier._lock:
            self._uid, self.document, self._tip = earlier.uid, earlier.document, earlier._tip
        self._considered = self._tip.status
        if not self._tip.frame and self.document is not None:  # of the last version it was not taken
            frame = self.policy.snapshot(self.document).frame
            self._tip = msgspec.structs.replace(self._tip, frame=frame)
        self._open = True

    def record(self, mutation: Mutation) -> None:
        """Apply a mutation to the working status, and keep it.

        Raises:
            StatusNotOpen: the block has ended, or not begun.
            PathError, TypeError: it cannot be applied; nothing was recorded.
        """
        with self._lock:
            if not self._open:
                raise StatusNotOpen(f"the status of {self.target} is recorded inside the batcher's block only.")
            mutation.apply(self._work(), self._context)
            self._recorded.append(mutation)
            if self._failed:
                self._failed = [failed for failed in self._failed if failed is not mutation]

    def withdraw(self, unwanted: Callable[[Mutation], bool]) -> None:
        """Forget recorded mutations that have not been sent."""
        with self._lock:
            kept = [mutation for mutation in self._recorded if not unwanted(mutation)]
            if len(kept) != len(self._recorded):
                self._recorded, self._working = kept, None

    def current(self) -> dict[str, Any]:
        """Return a private copy of the status with everything recorded laid over it."""
        with self._lock:
            copied: dict[str, Any] = copy_json(self._work())
            return copied

    def get(self, path: Path) -> Any:
        """Return a private copy of one field of it."""
        with self._lock:
            # While a checkpoint is on its way, what it took is in the working status alone.
            untouched = self._working is None and not self._carried and not self._recorded
            return copy_json(get_path(self._considered if untouched else self._work(), path))

    def close(self, *, in_error: bool) -> None:
        """Accept no more mutations.

        Args:
            in_error: whether the block ended with an exception. If not, it handled every failed checkpoint.
        """
        with self._lock:
            self._open = False
            if not in_error:
                self._failed = []

    def hand_over(self) -> Sequence[Mutation]:
        """Take out what is recorded, for somebody else to write; nothing when it would change nothing."""
        with self._lock:
            mutations = tuple(self._recorded)
            fields = [path for path, _ in leaves(merge_diff(self._considered, self._work()))]
            self._recorded, self._working = [], None
        self.counts["flushes"] += 1
        self.counts["trimmed"] += self._context.trimmed
        if not fields:
            self.counts["suppressed"] += 1
            self.written = False
        outcome = "handed over" if fields else "unchanged"
        _logger.debug("status of %s: %s, %d fields%s", self.target, outcome, len(fields), _Named(fields))
        if self._metrics is not None:
            self._metrics.flushed(
                written=bool(fields), suppressed=not fields, conflicts=0, replays=0, fields=len(fields), seconds=0.0
            )
        return mutations if fields else ()

    def begin(self, *, checkpoint: bool) -> Pending | None:
        """Take what is recorded into a flush; None when that ended without I/O.

        Raises:
            StatusContested: another writer changed what is to be set, which a checkpoint left to be found.
        """
        started, before = self.policy.clock.monotonic(), dict(self.counts)
        with self._lock:
            mutations, carried = (*self._carried, *self._recorded), self._carried
            computed, context = self._handed_over() if mutations else ({}, Context())
            self._carried, self._recorded = [], []
        flush = Flush(
            self.target,
            self.policy,
            self.counts,
            tip=self._tip,
            considered=self._considered,
            mutations=mutations,
            uid=self._uid,
            checkpoint=checkpoint,
            doubts=self._doubts,
        )
        pending = Pending(flush, flush.run(computed, context), Sleep(0), checkpoint, carried, started, before)
        if not mutations:
            self._end(pending, "unchanged")
            return None
        try:
            pending.effect = next(pending.flow)
        except StopIteration as stop:
            self.finish(pending, stop.value)
            return None
        except Exception as error:
            self.fail(pending, error)
            raise
        return pending

    def finish(self, pending: Pending, flushed: Flushed) -> None:
        """Take over the result of a flush, and tell the cycle."""
        with self._lock:
            self.document = flushed.document or self.document
            self._tip, self._considered, self._working = flushed.tip, flushed.considered, None
            self._doubts = None
        self.counts["trimmed"] += flushed.trimmed
        self.counts["fields"] += len(flushed.fields)
        if flushed.outcome == "written":
            self.written = True
        if self._cycle is not None:
            for before, after, exact in flushed.reports:
                self._cycle.wrote(
                    self.target.gvk, self.target.request, flushed.tip.uid, before=before, after=after, exact=exact
                )
        if flushed.outcome == "gone":
            _logger.info("%s is gone: what was recorded for its status is dropped", self.target)
        self._end(pending, flushed.outcome, fields=flushed.fields)

    def fail(self, pending: Pending, error: BaseException) -> None:
        """Take back a flush that failed for good.

        After a checkpoint the caller's own mutations are in the error, and the caller's again; those of an earlier
        cycle go out with the next flush. At the end of the block, all that may be tried again goes to the cycle: with
        a token everything, since the next flush can tell whether this one was applied.
        """
        flush = pending.flush
        doubts = flush.doubts
        known = {id(mutation) for mutation in pending.carried}
        carried = [each for each in flush.mutations if id(each) in known and (doubts or flush.may_repeat(each))]
        others = [each for each in flush.mutations if id(each) not in known]
        recorded = [each for each in others if (doubts and not pending.checkpoint) or flush.may_repeat(each)]
        with self._lock:
            self._working = None
            self._doubts = doubts
            if pending.checkpoint:
                self._carried = carried
                if not isinstance(error, (StatusConflict, StatusContested)):
                    self._failed += recorded
        if not pending.checkpoint:
            self._failed += [*carried, *recorded]
            self.keep_failed()
        elif isinstance(error, StatusError):
            error.unsaved = tuple(others)
        self._end(pending, "failed", error)

    def keep_failed(self) -> None:
        """Leave what could not be saved to the running cycle, if this is its object, for the next one."""
        failed, self._failed = self._failed, []
        if failed and self._cycle is not None:
            self._cycle.keep_unsaved(self._uid, Unsaved.of(failed, self._considered, self._doubts))

    def _is_of(self, cycle: Cycle) -> bool:
        # The version of the API names a form of the object, not another object.
        own, cycles = self.target.gvk, cycle.gvk
        return self.target.request == cycle.request and (own.group, own.kind) == (cycles.group, cycles.kind)

    def _carry(self, unsaved: Unsaved) -> None:
        manager, fields = self.target.field_manager, self._tip.managed_fields
        mutations: Sequence[Mutation] = unsaved.mutations
        if unsaved.doubts is not None:
            if self.policy.token is None:
                mutations = unsaved.doubts.undecided(mutations)
            else:
                token, version = get_path(self._tip.status, self.policy.token), parse_version(self._tip.version)
                mutations, self._doubts = unsaved.doubts.settle(token, version, mutations)
        sifted = sift(mutations, unsaved.considered, self._tip.status, owned=lambda path: owns(fields, manager, path))
        self.counts["contested"] += len(sifted.contested)
        try:
            self._working, self._context = apply_all(sifted.kept, self._considered)
        except Exception:
            _logger.exception(
                "what an earlier cycle recorded for %s cannot be applied any more and is dropped: %s",
                self.target,
                ", ".join(unsaved.paths),
            )
            self.counts["contested"] += len(sifted.kept)
            return
        self._carried = sifted.kept

    def _work(self) -> dict[str, Any]:
        if self._working is None:
            self._working, self._context = apply_all((*self._carried, *self._recorded), self._considered)
        return self._working

    def _handed_over(self) -> tuple[dict[str, Any], Context]:
        """Return the working status for a flush to keep; while the block is open, `current` goes on from a copy."""
        computed, context = self._work(), self._context
        if self._open:
            self._working, self._context = copy_json(computed), Context()
        else:
            self._working = None
        return computed, context

    def _end(
        self,
        pending: Pending,
        outcome: Outcome | Literal["failed"],
        error: BaseException | None = None,
        fields: Sequence[Path] = (),
    ) -> None:
        self.counts["flushes"] += 1
        self.counts[_COUNTED_AS[outcome]] += 1
        seconds = self.policy.clock.monotonic() - pending.started
        counts, before = self.counts, pending.before
        conflicts = counts["conflicts"] - before.get("conflicts", 0)
        replays = counts["replays"] - before.get("replays", 0)
        if _logger.isEnabledFor(logging.DEBUG):
            _logger.debug(
                "status of %s: %s in %.3f s, %d writes, %d reads, %d conflicts, %d replays, %d fields%s",
                self.target,
                outcome if error is None else type(error).__name__,
                seconds,
                counts["attempts"] - before.get("attempts", 0),
                counts["reads"] - before.get("reads", 0),
                conflicts,
                replays,
                len(fields),
                _Named(fields),
            )
        if self._metrics is not None:
            self._metrics.flushed(
                written=outcome == "written",
                suppressed=outcome == "unchanged",
                conflicts=conflicts,
                replays=replays,
                fields=len(fields),
                seconds=seconds,
            )


class _Named:
    """Name fields when a log line is really made; the names, never the values."""

    def __init__(self, fields: Sequence[Path]) -> None:
        self._fields = fields

    def __str__(self) -> str:
        named = [format_path(path) for path in self._fields[:MAX_NAMED]]
        return (": " + ", ".join(named) if named else "") + (", …" if len(self._fields) > MAX_NAMED else "")
