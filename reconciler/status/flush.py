"""One flush, from the recorded mutations to a response, without I/O.

A `Flush` is a generator of effects (`ReadObject`, `WriteStatus`, `Pause`). A driver, blocking or asynchronous,
performs each one and sends the result, or throws the error, back into it. So the semantics exist once:

* A write is *applied* (2xx), *refused* (4xx, 429, connection not made, stopped in admission) or *unknown* (no
  response, any other 5xx).
* Refused because of the resourceVersion: the object is read again. Under another uid nothing is written; otherwise the
  mutations are replayed on the newer version.
* Unknown: the object is read back before anything else. If it still has the old version, the same bytes are sent again,
  since compare-and-swap makes a late first copy harmless. If a newer version shows what was written, the write was
  applied. Otherwise it cannot be told, and mutations are replayed only if they are idempotent. From then on a 409 may
  come from our own first copy, so it is read back like an unknown outcome.
* A checkpoint never replays.
* There are at most `FlushPolicy.limit` writes and as many reads.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from reconciler.errors import (
    APIError,
    Conflict,
    NotFound,
    NotSent,
    NotServed,
    ReconcilerError,
    TooManyRequests,
    TransportError,
    error_text,
)
from reconciler.meta import equal
from reconciler.meta.cycle import current_cycle
from reconciler.meta.documents import format_path, get_path, identical, merge_diff, parse_version, set_path
from reconciler.meta.metadata import keep_transition_times
from reconciler.status.documents import owners_of, owns
from reconciler.status.errors import StatusContested, StatusRejected, StatusSubresourceMissing, listed
from reconciler.status.fields import forms_of
from reconciler.status.mutations import ApplyStatistics, Mutation, Path, apply_all, leaves
from reconciler.status.replay import UnansweredWrites, has_mark, marks_at, select_replayable, with_mark
from reconciler.status.requests import Effect, Effects, FlushRequests, FlushResult, Outcome, WriteReport, is_final
from reconciler.status.strategies import DesiredStatus, FlushPolicy, ObjectVersion
from reconciler.status.writer import Target

if TYPE_CHECKING:
    from reconciler._core.wire import JSONObject

_logger = logging.getLogger("reconciler.status")


@dataclass(frozen=True, slots=True)
class _Resend:
    """The instruction to send the same bytes again."""


@dataclass(frozen=True, slots=True)
class _NewVersion:
    """The instruction to continue on another version.

    Attributes:
        document: the whole object.
        snapshot: the same.
        same_status: whether nobody else can have changed the status since the version before.
    """

    document: JSONObject
    snapshot: ObjectVersion
    same_status: bool = False


_Step = FlushResult | _NewVersion
_Steps = Generator[Effect, Any, _Step]
_SendSteps = Generator[Effect, Any, _Step | _Resend]


class Flush:
    """One flush.

    Args:
        target: the object and the client.
        policy: how to send.
        counts: counters to add to; shared by all flushes of a batcher.
        tip: the newest known version that the batcher may write on.
        base: the status that the mutations were recorded on.
        mutations: in the order of their calls.
        uid: of the object that the batcher was opened on; ``""`` accepts any.
        checkpoint: raise on a conflict instead of replaying.
        carried: those of the mutations that are from an earlier reconcile.
        unanswered: earlier writes of some of the mutations, which may have been applied; None if there are none.

    Attributes:
        attempts: its requests and errors.
        effect: the one to perform next.
        result: its result, once there is no other effect.
        started: monotonic seconds.
        counts_before: the counters at its start.
    """

    effect: Effect
    result: FlushResult | None = None

    def __init__(
        self,
        target: Target,
        policy: FlushPolicy,
        counts: dict[str, int],
        *,
        tip: ObjectVersion,
        base: JSONObject,
        mutations: Sequence[Mutation],
        uid: str,
        checkpoint: bool = False,
        carried: Sequence[Mutation] = (),
        unanswered: UnansweredWrites | None = None,
    ) -> None:
        self.checkpoint = checkpoint
        self.carried = carried
        self.started = policy.clock.monotonic()
        self.counts_before = dict(counts)
        self.attempts = FlushRequests(target, policy, counts, mutations)
        self._target = target
        self._policy = policy
        self._counts = counts
        self._tip = tip
        self._base = base
        self._uid = uid
        self._unanswered = unanswered
        self._sent_on = tip
        self._mark = policy.new_mark() if policy.token is not None else ""
        self._document: JSONObject | None = None
        self._read_owners = False
        self._took_over = False
        self._reports: tuple[WriteReport, ...] = ()

    def start(self, computed: JSONObject, statistics: ApplyStatistics) -> bool:
        """Start; return whether there is an effect to perform.

        Args:
            computed: the result of the mutations on the base; it is changed.
            statistics: what else applying them did.

        Raises:
            StatusError: it failed permanently; `FlushRequests.may_repeat` returns what may be tried again later.
        """
        self._effects = self._run(computed, statistics)
        return self.resume()

    def resume(self, answer: JSONObject | None = None, error: Exception | None = None) -> bool:
        """Continue with the answer to the effect, or its error; return whether another effect follows.

        Raises:
            Exception: the flush failed permanently.
        """
        try:
            self.effect = self._effects.send(answer) if error is None else self._effects.throw(error)
        except StopIteration as stop:
            self.result = stop.value
            return False
        return True

    def _run(self, computed: JSONObject, statistics: ApplyStatistics) -> Effects:
        """Yield effects until the flush has ended; none if there is nothing to write."""
        if self._is_foreign(self._tip):
            return self._gone()
        tip = self._tip
        if self._base is tip.status or equal(self._base, tip.status):
            desired = self._desired(tip, self.attempts.mutations, computed, statistics)
        elif self.checkpoint:
            raise self.attempts.conflict()
        else:
            desired = self._replayed_on(tip)
        while desired.diff:
            prepared = (yield from self._prepare_apply(desired)) if self._policy.strategy.is_owned else None
            step = prepared or (yield from self._send(desired))
            if isinstance(step, FlushResult):
                return step
            if self._is_foreign(step.snapshot) or self._is_taken(step.document):
                return self._gone()
            self._document = step.document
            self._settle(step.snapshot)
            if step.same_status:
                applied = apply_all(desired.mutations, step.snapshot.status)
                desired = self._desired(step.snapshot, desired.mutations, *applied)
            else:
                desired = self._replayed_on(step.snapshot)
        tip = desired.tip
        return FlushResult("unchanged", self._document, tip, tip.status, self._reports, trimmed=desired.trimmed)

    @property
    def unanswered(self) -> UnansweredWrites | None:
        """Return the writes that may have been applied and that a later flush can settle by the token, if any.

        Without a token nothing can settle them: see `FlushRequests.may_repeat`.
        """
        if not self._mark or not self.attempts.is_unknown:
            return self._unanswered
        sent_on = self._sent_on
        writes = self._unanswered or UnansweredWrites(self._marks_in(sent_on), parse_version(sent_on.version))
        return writes.with_write(self._mark, self.attempts.mutations)

    def _marks_in(self, snapshot: ObjectVersion) -> tuple[str, ...]:
        return marks_at(snapshot.status, self._policy.token)

    def _settle(self, fresh: ObjectVersion) -> None:
        """Leave out what an earlier write turns out to have stored."""
        if self._unanswered is not None:
            kept, self._unanswered = self._unanswered.settle(
                self._marks_in(fresh), parse_version(fresh.version), self.attempts.mutations
            )
            self.attempts.mutations = tuple(kept)

    # The desired status.

    def _replayed_on(self, tip: ObjectVersion) -> DesiredStatus:
        mutations = self.attempts.mutations
        replayable = select_replayable(
            mutations,
            self._base,
            tip.status,
            owned=partial(owns, tip.managed_fields, self._target.field_manager),
            reset=partial(self._was_reset, tip),
        )
        if replayable.contested:
            self._counts["contested"] += 1
            paths = sorted(set(map(format_path, replayable.paths)))
            raise StatusContested(
                f"another writer changed {listed(paths)} of {self._target} since it was read. Decide again based on "
                "the current status, or use set(…, overwrite=True).",
                paths=paths,
                unsaved=mutations,
            )
        try:
            computed, statistics = apply_all(replayable.kept, tip.status)
        except Exception as error:
            raise StatusContested(
                f"what was recorded for {self._target} cannot be applied to another writer's version of it: "
                f"{error_text(error)}.",
                unsaved=mutations,
            ) from error
        self._counts["replays"] += 1
        return self._desired(tip, replayable.kept, computed, statistics)

    def _desired(
        self, tip: ObjectVersion, mutations: Sequence[Mutation], computed: JSONObject, statistics: ApplyStatistics
    ) -> DesiredStatus:
        """Return what to write on a version for the result of the mutations, which is changed."""
        policy, memory = self._policy, self.attempts.memory
        if "conditions" in computed:
            keep_transition_times(tip.status, computed)
        diff = merge_diff(tip.status, computed)
        forms = forms_of(policy.typed) if diff else None
        if forms is not None:
            kept = forms.keep(tip.status, computed)
            if kept is not computed:  # rare, and costs a second diff
                computed, diff = kept, merge_diff(tip.status, kept)
        if diff and memory.answers:
            paths = list(leaves(diff))
            if memory.foresees(tip.uid, paths, computed, tip.status, policy.clock):
                computed, diff = tip.status, {}  # it was sent before, and the server stored this instead
        if diff and policy.token is not None:
            set_path(computed, policy.token, with_mark(self._marks_in(tip), self._mark))
            diff = merge_diff(tip.status, computed)
        return DesiredStatus(tip, mutations, computed, diff, statistics.trimmed, policy.strategy)

    def _was_reset(self, fresh: ObjectVersion, path: Path) -> bool:
        """Return whether another writer undid a value that this flush may have written, as far as the owners show."""
        before, after = owners_of(self._tip.managed_fields, path), owners_of(fresh.managed_fields, path)
        manager = self._target.field_manager
        known = bool(manager and self._tip.managed_fields and fresh.managed_fields)
        return self.attempts.uncertain and known and before != after and manager not in after

    # One write, and what its outcome means.

    def _prepare_apply(self, desired: DesiredStatus) -> Generator[Effect, Any, _Step | None]:
        """Make sure that this manager's own fields are known, and owned through applies only; None if they are."""
        if not desired.tip.managed_fields and not self._read_owners:
            self._read_owners = True
            document = yield from self.attempts.read(desired)
            if document is None:
                return self._gone()
            fresh = self._policy.snapshot(document)
            same = fresh.version == desired.tip.version
            if self.checkpoint and not same:
                raise self.attempts.conflict()
            return _NewVersion(document, fresh, same_status=same)
        takeover = None if self._took_over else self._policy.strategy.takeover(self._target, desired)
        if takeover is None:
            return None
        self._took_over = True
        step = yield from self._send(takeover)
        if isinstance(step, FlushResult) and step.document is not None:
            self._reports = step.reports
            return _NewVersion(step.document, step.tip, same_status=equal(step.tip.status, desired.tip.status))
        return step

    def _send(self, desired: DesiredStatus) -> _Steps:
        while True:
            self._sent_on = desired.tip
            try:
                answer = yield from self.attempts.write(desired)
                stored = self._policy.snapshot(answer, last=not self.checkpoint)
            except Exception as error:
                if isinstance(error, ReconcilerError) and not isinstance(error, (TransportError, APIError)):
                    raise
                if not isinstance(error, (TransportError, APIError, OSError)):  # as of a response that is not an object
                    _logger.warning(
                        "%s of the client does not show whether the status of %s was written, so it is read back",
                        type(error).__name__,
                        self._target,
                    )
                self.attempts.last = error
                step = yield from self._failed(desired, error)
            else:
                step = self._applied(desired, answer, stored)
            if not isinstance(step, _Resend):
                return step

    def _applied(self, desired: DesiredStatus, answer: JSONObject, stored: ObjectVersion) -> FlushResult:
        if self._policy.subresource is None and desired.left_no_trace_in(stored.status):
            raise StatusRejected(
                f"the server ignored the status in a write of the main resource of {self._target}: its kind has the "
                "status subresource. Open the batcher with subresource='status', the default.",
                unsaved=self.attempts.mutations,
            )
        exact = self._is_as_expected(desired, stored) and self._changed_only_status(desired, stored)
        reports = self._reports
        if stored.version:
            reports += (WriteReport(parse_version(desired.tip.version), parse_version(stored.version), exact),)
        # If the version is the same, nothing was stored: the server pruned all that was sent, or had it already.
        outcome: Outcome = "ignored" if stored.version and stored.version == desired.tip.version else "written"
        return FlushResult(outcome, answer, stored, stored.status, reports, desired.fields, desired.trimmed)

    def _changed_only_status(self, desired: DesiredStatus, stored: ObjectVersion) -> bool:
        """Return whether a write changed nothing but the status.

        The generation shows it, except in a write of the main resource, which itself raises the generation.
        """
        if self._policy.subresource is None:
            return stored.rest == desired.tip.rest
        return stored.generation == desired.tip.generation

    def _failed(self, desired: DesiredStatus, error: Exception) -> _SendSteps:
        if is_final(error):
            raise self.attempts.refused(desired, error) from error
        if isinstance(error, (NotSent, TooManyRequests)):
            yield from self.attempts.pause(error)
            return _Resend()
        if isinstance(error, Conflict):
            return (yield from self._conflicted(desired, error))
        if isinstance(error, NotFound):
            return (yield from self._not_found(desired, error))
        self.attempts.uncertain = True
        self._counts["unknown"] += 1
        return (yield from self._read_back(desired, error))

    def _conflicted(self, desired: DesiredStatus, error: Conflict) -> _SendSteps:
        if self.attempts.uncertain:
            return (yield from self._read_back(desired, error))
        self._counts["conflicts"] += 1
        if self.checkpoint:
            raise self.attempts.conflict() from error
        if not self.attempts.can_write:
            raise self.attempts.exhausted() from error
        yield from self.attempts.pause(error)
        document = yield from self.attempts.read(desired)
        return self._gone() if document is None else _NewVersion(document, self._policy.snapshot(document))

    def _not_found(self, desired: DesiredStatus, error: NotFound) -> _SendSteps:
        if isinstance(error, NotServed):
            raise self.attempts.refused(desired, error) from error
        document = yield from self.attempts.read(desired)
        if document is None or self._is_foreign(self._policy.snapshot(document)):
            return self._gone()
        if self._policy.subresource is None or desired.strategy.is_to_main:
            raise self.attempts.refused(desired, error) from error
        raise StatusSubresourceMissing(
            f"{self._target} exists, but its kind is served without the {self._policy.subresource!r} subresource. Add "
            "'subresources: {status: {}}' to this version in the CRD, or write the object itself: "
            "status_subresource=False at the Resource class, status_subresource = None in a ResourceReconciler, "
            "subresource=None of a StatusBatcher",
            unsaved=self.attempts.mutations,
        ) from error

    def _read_back(self, desired: DesiredStatus, error: Exception) -> _SendSteps:
        self._counts["read_backs"] += 1
        yield from self.attempts.pause(error)
        document = yield from self.attempts.read(desired)
        if document is None:
            return self._gone()
        fresh = self._policy.snapshot(document)
        if self._is_foreign(fresh):
            return self._gone()
        if fresh.version == desired.tip.version:
            yield from self.attempts.obey_retry_after(error)
            return _Resend()
        applied = self._was_applied(desired, fresh)
        if applied:
            return FlushResult(
                "written", document, fresh, desired.computed, self._reports, desired.fields, desired.trimmed
            )
        if applied is False:
            self.attempts.uncertain = False  # the version has moved on, so the request can no longer be applied
        repeatable = all(m.may_be_repeated(desired.tip.status, fresh.status) for m in desired.mutations)
        if applied is None and (self.checkpoint or not repeatable):
            raise self.attempts.unknown(
                "the response was lost, and another writer has changed the object since"
            ) from error
        if self.checkpoint:
            raise self.attempts.conflict() from error
        return _NewVersion(document, fresh)

    def _was_applied(self, desired: DesiredStatus, fresh: ObjectVersion) -> bool | None:
        """Return whether a newer version shows that the write was applied; None if it cannot be told."""
        if self._mark:
            return has_mark(self._mark, self._marks_in(desired.tip), self._marks_in(fresh))
        missing = desired.missing_in(fresh.status)
        if missing and not self._is_foreseen(missing, desired, fresh):
            return None
        if all(m.idempotent for m in desired.mutations):
            return True
        # The same number can be the sum of another writer's additions. The server's managedFields show the manager that
        # wrote it, but not which of its flushes did.
        manager, sent = self._target.field_manager, self.attempts.sent
        written = [path for path in desired.fields if get_path(fresh.status, path) is not None]
        own = bool(manager) and all(owns(fresh.managed_fields, manager, path) for path in written)
        alone = sent is not None and not self.attempts.memory.may_be_of_another(sent)
        return True if own and alone else None

    def _is_as_expected(self, desired: DesiredStatus, stored: ObjectVersion) -> bool:
        """Return whether the server stored what was computed, or changed it in the same way as before."""
        if identical(stored.status, desired.computed) or equal(stored.status, desired.computed):
            return True
        different = list(leaves(merge_diff(stored.status, desired.computed)))
        if self._is_foreseen(different, desired, stored):
            return True
        memory = self.attempts.memory
        memory.learn(stored.uid, different, desired.computed, stored.status, self._policy.clock)
        missing, pruned = memory.report(self._target.gvk, desired.computed, stored.status)
        cycle = current_cycle.get()
        if missing and cycle is not None and cycle.request == self._target.request:
            fields = listed(f"status.{format_path(path)}" for path in missing)
            cycle.warn(
                "StatusFieldNotStored", f"the server did not store {fields}: the schema in the CRD has no such field"
            )
        if pruned:
            self._counts["pruned"] += len(pruned)
            _logger.warning(
                "the server did not store %s of %s (%s): its schema has no such field. Write names as on the wire, and "
                "add the field to the CRD of your own kind. It is sent again when the status of an object changes",
                listed(f"status.{format_path(path)}" for path in pruned),
                self._target.gvk,
                "; ".join(f"Warning: {text}" for text in self._target.warnings) or "no Warning header",
            )
        return False

    def _is_foreseen(self, paths: Sequence[Path], desired: DesiredStatus, stored: ObjectVersion) -> bool:
        return self.attempts.memory.foresees(stored.uid, paths, desired.computed, stored.status, self._policy.clock)

    def _is_foreign(self, snapshot: ObjectVersion) -> bool:
        """Return whether this is another object of the same name."""
        return bool(self._uid) and snapshot.uid != self._uid

    def _is_taken(self, document: JSONObject) -> bool:
        """Return whether another process is responsible for the object by now: then that one writes its status."""
        cycle = current_cycle.get()
        return cycle is not None and not cycle.may_write(self._target.gvk, self._target.request, document)

    def _gone(self) -> FlushResult:
        return FlushResult("gone", None, self._tip, self._base)
