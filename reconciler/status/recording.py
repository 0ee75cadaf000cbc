"""The state of one open batcher: what was read, recorded, sent and counted. No I/O; thread-safe."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, Protocol

import msgspec

from reconciler._core.user_code import FAILURES, log_metrics_failure
from reconciler.meta.cycle import Cycle, current_cycle
from reconciler.meta.documents import copy_json, format_path, get_path, merge_diff, parse_version
from reconciler.meta.metadata import uid_of
from reconciler.status.documents import owns
from reconciler.status.errors import StatusError, StatusNotOpen, listed
from reconciler.status.flush import Flush
from reconciler.status.mutations import ApplyStatistics, Mutation, Path, apply_all, leaves
from reconciler.status.replay import UnansweredWrites, Unsaved, marks_at, select_replayable
from reconciler.status.requests import Outcome
from reconciler.status.strategies import FlushPolicy, ObjectVersion
from reconciler.status.writer import Target

if TYPE_CHECKING:
    from reconciler._core.wire import JSONObject
    from reconciler.status.clients import ClientBinding


@dataclass(frozen=True, slots=True)
class StatusStatistics:
    """The counters of one batcher since it was opened.

    Attributes:
        flushes: ends of a block and checkpoints, with or without a request.
        written: flushes whose write took effect.
        suppressed: flushes that had nothing to write.
        ignored: flushes whose write succeeded although nothing of it was stored: the CRD lacks the fields.
        dropped: flushes that found the object deleted, or another one under its name.
        failed: flushes that raised.
        attempts: write requests.
        reads: read requests, including those at opening and those counted as read backs.
        read_backs: times that the object was read back after an unknown outcome.
        conflicts: writes refused because the object was newer, none of them caused by the batcher's own writes.
        replays: times that mutations were applied to a version that the caller had not seen.
        unknown: writes whose response was lost.
        contested: times that another writer had changed a field that was set.
        fields: paths that those writes contained.
        trimmed: list entries dropped by ``keep_last``.
        pruned: fields found that the server does not store, each reported once.
    """

    flushes: int = 0
    written: int = 0
    suppressed: int = 0
    ignored: int = 0
    dropped: int = 0
    failed: int = 0
    attempts: int = 0
    reads: int = 0
    read_backs: int = 0
    conflicts: int = 0
    replays: int = 0
    unknown: int = 0
    contested: int = 0
    fields: int = 0
    trimmed: int = 0
    pruned: int = 0


_ZEROS = {field.name: 0 for field in fields(StatusStatistics)}


class StatusMetrics(Protocol):
    """An observer of flushes. It is called on the thread that flushes, so it must be quick.

    What it raises is logged once and ignored: the status is written.
    """

    def flushed(
        self, *, written: bool, suppressed: bool, conflicts: int, replays: int, fields: int, seconds: float
    ) -> None:
        """Called after each flush.

        Args:
            written: a write took effect.
            suppressed: there was nothing to write. If neither is true, it failed, the object is gone, or the server
                stored nothing of what was sent.
            conflicts: writes refused because the object was newer.
            replays: times that mutations were applied to a newer version.
            fields: paths that the write contained; 0 if there was none.
            seconds: how long it took.
        """


_COUNTER_OF = {
    "written": "written",
    "unchanged": "suppressed",
    "ignored": "ignored",
    "gone": "dropped",
    "failed": "failed",
}

_NOT_READ = ObjectVersion("", "", None, {})

_logger = logging.getLogger("reconciler.status")


class StatusRecording:
    """The version that one open batcher has read, and the mutations that it has recorded, until they are written.

    A batcher that joins another one records into the recording of that one.

    Args:
        binding: the object and the client.
        policy: how to send.
        driver: an `AsyncDriver` or a `BlockingDriver`, as the client needs; performs the flushes, one after the other.

    Attributes:
        is_started: whether it was ever open.
        is_open: whether mutations are accepted.
        written: whether a write took effect; None before the end of the block.
        document: the newest response or read; None while it is the given object.
        uid: of the object that may be written; ``""`` before it is known.
        tip: the newest known version; none that was read before it is open.
        flush_timeout: seconds for one flush.
        counts: the counters of `StatusStatistics`.
        earlier: the closed one that it continues, until its first flush; see `continued`.
    """

    def __init__(self, binding: ClientBinding, policy: FlushPolicy, driver: Any) -> None:
        self.binding = binding
        self.target = Target(binding.writer.gvk, binding.writer.request, binding.writer)
        self.policy = policy
        self.driver = driver
        self.flush_timeout = policy.flush_timeout
        self.counts = dict(_ZEROS)
        self.is_started = self.is_open = False
        self.written: bool | None = None
        self.document: JSONObject | None = None
        self.uid = ""
        self._metrics = policy.metrics
        self._cycle: Cycle | None = None
        self._lock = threading.RLock()
        self.earlier: StatusRecording | None = None
        self.tip = _NOT_READ
        self._base: JSONObject = {}  # the status that is recorded on
        self._carried: list[Mutation] = []  # from an earlier reconcile, which could not save them
        self._unanswered: UnansweredWrites | None = None  # writes of what is carried
        self._in_flight: list[Mutation] = []  # of the flush in progress, except what was withdrawn since
        self._recorded: list[Mutation] = []
        self._returned: dict[int, Mutation] = {}  # those of them that are in the error of a checkpoint, by their id()
        self._working: JSONObject | None = None  # see `_working_status`; None until it is needed
        self._statistics = ApplyStatistics()

    @property
    def join_key(self) -> Hashable:
        """Return what batchers that join have in common: server, client, field manager, object, how it is written."""
        policy, target = self.policy, self.target
        identity = target.writer.identity, target.gvk, target.request
        return self.binding.is_async, identity, policy.strategy.is_owned, policy.subresource

    def open(self, tip: ObjectVersion, uid: str = "") -> None:
        """Start on a version: report it to the running reconcile, and take over what an earlier one could not save.

        Args:
            tip: the version.
            uid: of the object that may be written; ``""`` for that of the version.
        """
        self.uid = uid or tip.uid
        self.tip, self._base = tip, tip.status
        self._start()
        cycle = self._running_cycle()
        own = self.target.gvk
        # The API version is a representation of the object; it does not identify another object.
        if cycle is None or cycle.request != self.target.request or cycle.gvk[::2] != own[::2]:
            return
        self._cycle = cycle
        if tip.version:
            cycle.saw(own, self.target.request, tip.uid, parse_version(tip.version))
        unsaved = cycle.take_unsaved(self.uid)
        if isinstance(unsaved, Unsaved):
            self._take_over(unsaved)

    def continued(self, binding: ClientBinding, policy: FlushPolicy, flush_timeout: float) -> StatusRecording:
        """Return a new one that starts where this closed one ends, for a batcher that outlives the one it joined.

        It sends as this one did, since its first version has what that requires. While the last flush has not ended,
        what that writes is the base for recording. The first flush starts from the result, since the driver lets
        flushes take turns. The reconcile is not notified, since its body has ended.
        """
        policy = msgspec.structs.replace(policy, strategy=self.policy.strategy, flush_timeout=flush_timeout)
        later = StatusRecording(binding, policy, self.driver)
        later._running_cycle()
        later.earlier = self
        later._start_from(self)
        later._base = self.current()
        later._start()
        return later

    def _start(self) -> None:
        """Accept mutations, and let batchers inside the block find this recording."""
        self.is_started = self.is_open = True
        _open_recordings.set((*filter(_is_open, _open_recordings.get()), weakref.ref(self)))

    def _running_cycle(self) -> Cycle | None:
        """Return the running reconcile; its metrics are used if none were given."""
        cycle = current_cycle.get()
        if self._metrics is None and cycle is not None:
            self._metrics = cycle.status_metrics
        return cycle

    def _start_from(self, earlier: StatusRecording) -> None:
        with earlier._lock:
            self.uid, self.document, self.tip = earlier.uid, earlier.document, earlier.tip
        self._base, self._working = self.tip.status, None
        if not self.tip.around and self.document is not None:  # the last version was taken without its frame
            around = self.policy.snapshot(self.document).around
            self.tip = msgspec.structs.replace(self.tip, around=around)

    # Recording.

    def record(self, mutations: Sequence[Mutation], into: list[Mutation] | None = None) -> None:
        """Apply mutations to the working status, and keep them.

        Args:
            mutations: in the order of their calls. If one cannot be applied, those before it are kept.
            into: a list that those which are kept are added to as well.

        Raises:
            StatusNotOpen: the block has not started, or has ended; nothing was recorded.
            PathError, TypeError: a mutation cannot be applied.
        """
        with self._lock:
            if not self.is_open:
                raise self.not_open()
            for mutation in mutations:
                if not self._returned or id(mutation) not in self._returned:
                    working = self._working if self._working is not None else self._working_status()
                    if working is not self._base or not mutation.leaves_unchanged(working):
                        if working is self._base:
                            working = self._working = copy_json(working)
                        mutation.apply(working, self._statistics)
                    self._recorded.append(mutation)
                if into is not None:
                    into.append(mutation)

    def has_recorded(self, wanted: Callable[[Mutation], bool]) -> bool:
        """Return whether a mutation that has not been written fits."""
        with self._lock:
            return any(map(wanted, self._recorded))

    def withdraw(self, unwanted: Callable[[Mutation], bool]) -> None:
        """Forget recorded mutations that have not been sent; those in flight are not sent again."""
        with self._lock:
            for recorded in (self._in_flight, self._recorded):
                recorded[:] = [mutation for mutation in recorded if not unwanted(mutation)]
            self._returned = {key: each for key, each in self._returned.items() if not unwanted(each)}
            self._working = None

    def current(self, path: Path = ()) -> Any:
        """Return a private copy of the status with everything recorded applied, or of one field of it.

        Raises:
            StatusNotOpen: the block has not started.
        """
        if not self.is_started:
            raise self.not_open()
        with self._lock:
            working = self._working_status()
            return copy_json(get_path(working, path) if path else working)

    def close(self) -> None:
        """Accept no more mutations."""
        with self._lock:
            self.is_open = False

    def not_open(self) -> StatusNotOpen:
        """Return the error for a use outside the block."""
        return StatusNotOpen(
            f"the status of {self.target} can be recorded only inside the `with` block of its batcher."
        )

    # Flushing.

    def checkpoint(self) -> Awaitable[None]:
        """Write now what is recorded; see `StatusBatcher.flush`."""
        if not self.is_started:
            raise self.not_open()
        if not self.is_open:
            raise StatusNotOpen(f"the status of {self.target} was flushed when the batcher's block ended.")
        if self.binding.kopf is not None:
            raise TypeError(
                "inside kopf nothing is written before the handlers of the cycle have ended: for a checkpoint open "
                "the batcher over a client, with the same body"
            )
        ended: Awaitable[None] = self.driver.flush(self, checkpoint=True)
        return ended

    def hand_over(self) -> Sequence[Mutation]:
        """Remove and return what is recorded, for someone else to write; nothing if it would not change the status."""
        with self._lock:
            mutations = tuple(self._recorded)
            fields = list(leaves(merge_diff(self._base, self._working_status())))
            self._recorded, self._working = [], None
        self.counts["trimmed"] += self._statistics.trimmed
        if not fields:
            self.written = False
        self._end("handed over to kopf" if fields else "unchanged", fields=fields)
        return mutations if fields else ()

    def begin(self, *, checkpoint: bool) -> Flush | None:
        """Start a flush of what is recorded; None if it ended without I/O.

        Raises:
            StatusContested: another writer changed a field that is set, which an earlier checkpoint found.
        """
        with self._lock:
            if self.earlier is not None:
                self._start_from(self.earlier)
                self.earlier = None
            mutations, carried = (*self._carried, *self._recorded), self._carried
            computed = self._working_status() if mutations else self._base
            # Nearly always no mutation has changed the status, so that a flush would end without a request.
            same = computed is self.tip.status and self.tip.uid == self.uid and self._unanswered is None
            unchanged, statistics = same or not mutations, self._statistics
            self._carried, self._recorded, self._returned, self._working = [], [], {}, None
            if not unchanged:
                self._in_flight = list(mutations)
                if computed is self._base:
                    computed = copy_json(computed)
                if self.is_open:  # `current` continues from a copy
                    self._working, self._statistics = copy_json(computed), ApplyStatistics()
        if unchanged:
            self.counts["trimmed"] += statistics.trimmed if mutations else 0
            self._end("unchanged")
            return None
        flush = Flush(
            self.target,
            self.policy,
            self.counts,
            tip=self.tip,
            base=self._base,
            mutations=mutations,
            carried=carried,
            uid=self.uid,
            checkpoint=checkpoint,
            unanswered=self._unanswered,
        )
        try:
            if flush.start(computed, statistics):
                return flush
        except Exception as error:
            self.fail(flush, error)
            raise
        self.finish(flush)
        return None

    def finish(self, flush: Flush) -> None:
        """Take over the result of a flush, and report it to the reconcile."""
        result = flush.result
        assert result is not None  # noqa: S101 - no effect follows
        with self._lock:
            self.document = result.document or self.document
            self.tip, self._base, self._working = result.tip, result.base, None
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
        self._end(result.outcome, flush, fields=result.fields)

    def fail(self, flush: Flush, error: BaseException) -> None:
        """Take back a flush that failed permanently.

        What it could not save stays recorded after a checkpoint, and at the end of the block goes to the reconcile. The
        exception is what may have been applied and must not be applied twice: it is only in the error. With a token
        everything stays, since the next flush can find out whether this one was applied.
        """
        attempts, unanswered = flush.attempts, flush.unanswered
        carried_ids = set(map(id, flush.carried))
        own = [each for each in attempts.mutations if id(each) not in carried_ids]
        with self._lock:
            wanted = set(map(id, self._in_flight))
            kept = [
                each
                for each in attempts.mutations
                if id(each) in wanted and (unanswered is not None or attempts.may_repeat(each))
            ]
            self._in_flight, self._working, self._unanswered = [], None, unanswered
            if flush.checkpoint:
                self._carried = [each for each in kept if id(each) in carried_ids]
                self._returned = {id(each): each for each in kept if id(each) not in carried_ids}
                self._recorded = [*self._returned.values(), *self._recorded]
        if not flush.checkpoint:
            if kept and self._cycle is not None:
                self._cycle.keep_unsaved(self.uid, Unsaved.of(kept, self._base, unanswered))
        elif isinstance(error, StatusError):
            error.unsaved = tuple(own)
        self._end("failed", flush, error)

    def _take_over(self, unsaved: Unsaved) -> None:
        manager, fields = self.target.field_manager, self.tip.managed_fields
        mutations: Sequence[Mutation] = unsaved.mutations
        if unsaved.unanswered is not None:
            if self.policy.token is None:
                mutations = unsaved.unanswered.repeatable(mutations)
            else:
                marks, version = marks_at(self.tip.status, self.policy.token), parse_version(self.tip.version)
                mutations, self._unanswered = unsaved.unanswered.settle(marks, version, mutations)
        replayable = select_replayable(
            mutations, unsaved.base, self.tip.status, owned=lambda path: owns(fields, manager, path)
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

    def _working_status(self) -> JSONObject:
        """Return the base with carried and recorded applied; the base itself while they leave it unchanged."""
        if self._working is None:
            mutations = (*self._carried, *self._in_flight, *self._recorded)
            self._working, self._statistics = (
                apply_all(mutations, self._base) if mutations else (self._base, ApplyStatistics())
            )
        return self._working

    def _end(
        self,
        outcome: Outcome | Literal["failed", "handed over to kopf"],
        flush: Flush | None = None,
        error: BaseException | None = None,
        fields: Sequence[Path] = (),
    ) -> None:
        """Count, log and report the end of a flush; of one that ended without I/O if none was pending."""
        counts = self.counts
        counts["flushes"] += 1
        if outcome in _COUNTER_OF:
            counts[_COUNTER_OF[outcome]] += 1
        before: Mapping[str, int] = counts if flush is None else flush.counts_before
        seconds = 0.0 if flush is None else self.policy.clock.monotonic() - flush.started
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
                f": {listed(map(format_path, fields))}" if fields else "",  # never their values
            )
        if self._metrics is not None:
            try:
                self._metrics.flushed(
                    written=outcome in {"written", "handed over to kopf"},
                    suppressed=outcome == "unchanged",
                    conflicts=conflicts,
                    replays=replays,
                    fields=len(fields),
                    seconds=seconds,
                )
            except FAILURES:
                log_metrics_failure(self._metrics.flushed)


_open_recordings: ContextVar[tuple[weakref.ref[StatusRecording], ...]] = ContextVar("open_recordings", default=())
"""Those of the open batchers around the running code: tasks and ``asyncio.to_thread`` see what was open where they were
created. One that has been closed since is never found, and the variable keeps none alive."""


def find_open(recording: StatusRecording, document: Mapping[str, Any]) -> StatusRecording | None:
    """Find the innermost open recording that a new one can join; None if there is none.

    Args:
        recording: the new one.
        document: its object; ``{}`` if it was named without being read, which matches any object of that name.
    """
    for ref in filter(_is_open, reversed(_open_recordings.get())):
        other = ref()
        if other is None or other.join_key != recording.join_key:
            continue
        if uid_of(document) in ("", other.uid):
            return other
    return None


def _is_open(ref: weakref.ref[StatusRecording]) -> bool:
    recording = ref()
    return recording is not None and recording.is_open
