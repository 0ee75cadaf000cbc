"""Carry one flush from the recorded mutations to an answer, without doing any I/O.

`Flush.run` is a generator of effects (`Read`, `Write`, `Sleep`); a driver, blocking or not, carries each out and sends
the result, or throws the error, back in. So the semantics exist once:

* A send is *applied* (2xx), *refused* (4xx, 429, connection not made) or *unknown* (no answer, any other 5xx).
* Refused because of the resourceVersion: read again; under another uid nothing is written; else the mutations are
  replayed on the newer version.
* Unknown: read back before anything else. Still the old version: the same bytes again, since compare-and-swap makes a
  late first copy harmless. A newer version that shows what was written: applied. Otherwise it cannot be told, and only
  mutations that are the same twice as once are replayed. From then on a 409 may come of our own first copy, so it is
  read back like an unknown outcome.
* A checkpoint never replays.
* An unconditional write overwrites whatever is there, so it is repeated without a look.
* At most `Policy.limit` writes and as many reads, whatever happens.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from reconciler.errors import (
    APIError,
    Conflict,
    NotFound,
    NotSent,
    NotServed,
    ServerError,
    TooManyRequests,
    TransportError,
    error_text,
)
from reconciler.meta import current_cycle, equal, format_path, get_path, merge_diff, parse_version
from reconciler.status.errors import (
    StatusContested,
    StatusRejected,
    StatusSubresourceMissing,
)
from reconciler.status.flush.attempts import Attempts
from reconciler.status.flush.desired import Wish, adoption_of, wish_for
from reconciler.status.flush.effects import (
    Effect,
    Flow,
    Flushed,
    Outcome,
    Policy,
    Report,
    Target,
)
from reconciler.status.flush.managed_fields import owners_of, owns
from reconciler.status.flush.refusals import is_final
from reconciler.status.flush.replay import sift
from reconciler.status.flush.unsaved import Doubts
from reconciler.status.record.mutations import DECISIONS, Context, Mutation, Path, apply_all, leaves
from reconciler.status.record.snapshot import Snapshot

__all__ = ["Flush"]

_logger = logging.getLogger("reconciler.status")


@dataclass(frozen=True, slots=True)
class _Again:
    """Send the same bytes once more."""


@dataclass(frozen=True, slots=True)
class _Newer:
    """Go on with this version.

    Attributes:
        document: the whole object.
        snapshot: the same.
        seen: whether nobody else can have changed the status since the one before.
    """

    document: dict[str, Any]
    snapshot: Snapshot
    seen: bool = False


_Step = Flushed | _Newer
_Steps = Generator[Effect, Any, _Step]
_Sends = Generator[Effect, Any, _Step | _Again]


class Flush(Attempts):
    """Be one flush.

    Args:
        target: the object and the client.
        policy: how to send.
        counts: counters to add to; shared by all flushes of a batcher.
        tip: the newest version known that the batcher may write on.
        considered: the status that the mutations were recorded on.
        mutations: in the order of their calls.
        uid: of the object that the batcher was opened on; ``""`` accepts any.
        checkpoint: raise on a conflict instead of replaying.
        doubts: earlier writes of some of the mutations, which may have been applied; None if there are none.
    """

    def __init__(
        self,
        target: Target,
        policy: Policy,
        counts: dict[str, int],
        *,
        tip: Snapshot,
        considered: Mapping[str, Any],
        mutations: Sequence[Mutation],
        uid: str,
        checkpoint: bool = False,
        doubts: Doubts | None = None,
    ) -> None:
        super().__init__(target, policy, counts, mutations)
        self._tip = tip
        self._considered = considered
        self._uid = uid
        self._checkpoint = checkpoint
        self._doubts = doubts
        self._sent_on = tip
        # What depends on what is there is conditional in any case: an earlier cycle may have left such.
        self._conditional = policy.conditional or not all(isinstance(m, DECISIONS) for m in mutations)
        self._mark = f"{policy.rng.getrandbits(64):016x}" if policy.token else ""
        self._document: dict[str, Any] | None = None
        self._read_owners = False
        self._adopted = False
        self._reports: tuple[Report, ...] = ()

    def run(self, computed: dict[str, Any] | None = None, context: Context | None = None) -> Flow:
        """Yield effects until the flush has ended; none, when nothing is to be written.

        Args:
            computed: the result of the mutations on the version considered, if it is known already; taken over.
            context: what applying them did besides.

        Raises:
            StatusError: it failed for good; `may_repeat` says what may be tried again later.
        """
        if self._is_foreign(self._tip):
            return self._gone()
        wish = self._first_wish(computed, context)
        while wish.diff:
            step = yield from self._step(wish)
            if isinstance(step, Flushed):
                return step
            if self._is_foreign(step.snapshot) or self._is_taken(step.document):
                return self._gone()
            self._document = step.document
            self._settle(step.snapshot)
            wish = self._again(wish, step.snapshot) if step.seen else self._replayed(step.snapshot)
        return self._unwritten(wish)

    @property
    def doubts(self) -> Doubts | None:
        """Return the writes that may have been applied, which a later flush can decide by the token; None if none can.

        Without a token nothing can decide it: see `may_repeat`.
        """
        if not self._mark or not self._is_unknown:
            return self._doubts
        sent_on = self._sent_on
        doubts = self._doubts or Doubts(self._token_of(sent_on), parse_version(sent_on.version))
        return doubts.and_sent(self._mark, self.mutations)

    def _token_of(self, snapshot: Snapshot) -> Any:
        return get_path(snapshot.status, self._policy.token or ())

    def _settle(self, fresh: Snapshot) -> None:
        """Leave out what an earlier write turns out to have stored."""
        if self._doubts is not None:
            kept, self._doubts = self._doubts.settle(
                self._token_of(fresh), parse_version(fresh.version), self.mutations
            )
            self.mutations = tuple(kept)

    def _first_wish(self, computed: dict[str, Any] | None, context: Context | None) -> Wish:
        if self._considered is not self._tip.status and not equal(self._considered, self._tip.status):
            if self._checkpoint:
                raise self._conflict("a checkpoint does not replay")
            return self._replayed(self._tip)
        if computed is None:
            computed, context = apply_all(self.mutations, self._tip.status)
        return self._wish(self._tip, self.mutations, computed, context or Context())

    def _wish(self, tip: Snapshot, mutations: Sequence[Mutation], computed: dict[str, Any], context: Context) -> Wish:
        return wish_for(
            self._target,
            self._policy,
            tip=tip,
            mutations=mutations,
            computed=computed,
            context=context,
            mark=self._mark,
            conditional=self._conditional,
        )

    def _replayed(self, tip: Snapshot) -> Wish:
        sifted = sift(
            self.mutations,
            self._considered,
            tip.status,
            owned=partial(owns, tip.managed_fields, self._target.field_manager),
            reset=partial(self._was_reset, tip),
        )
        if sifted.contested:
            self._counts["contested"] += 1
            paths = sorted(set(map(format_path, sifted.paths)))
            raise StatusContested(
                f"another writer changed {', '.join(paths)} of {self._target} since it was read. Decide again on what "
                "is there now, or set(…, overwrite=True).",
                paths=paths,
                unsaved=self.mutations,
            )
        try:
            computed, context = apply_all(sifted.kept, tip.status)
        except Exception as error:
            raise StatusContested(
                f"what was recorded for {self._target} cannot be applied to another writer's version of it: "
                f"{error_text(error)}.",
                unsaved=self.mutations,
            ) from error
        self._counts["replays"] += 1
        return self._wish(tip, sifted.kept, computed, context)

    def _was_reset(self, fresh: Snapshot, path: Path) -> bool:
        """Return whether another writer undid a value that this flush may have written, as far as the owners tell."""
        before, after = owners_of(self._tip.managed_fields, path), owners_of(fresh.managed_fields, path)
        manager = self._target.field_manager
        known = bool(manager and self._tip.managed_fields and fresh.managed_fields)
        return self._uncertain and known and before != after and manager not in after

    def _again(self, wish: Wish, fresh: Snapshot) -> Wish:
        computed, context = apply_all(wish.mutations, fresh.status)
        return self._wish(fresh, wish.mutations, computed, context)

    # One send, and what its outcome means.

    def _step(self, wish: Wish) -> _Steps:
        if self._policy.strategy == "apply":
            prepared = yield from self._prepared(wish)
            if prepared is not None:
                return prepared
        return (yield from self._send(wish))

    def _prepared(self, wish: Wish) -> Generator[Effect, Any, _Step | None]:
        """See to it that this manager's own fields are known, and owned by applies only; None when they are."""
        if not wish.tip.managed_fields and not self._read_owners:
            self._read_owners = True
            document = yield from self._read(wish)
            if document is None:
                return self._gone()
            fresh = self._snapshot(document)
            same = fresh.version == wish.tip.version
            if self._checkpoint and not same:
                raise self._conflict("a checkpoint does not replay")
            return _Newer(document, fresh, seen=same)
        adoption = None if self._adopted else adoption_of(self._target, wish)
        if adoption is None:
            return None
        self._adopted = True
        step = yield from self._send(adoption)
        if isinstance(step, Flushed) and step.document is not None:
            self._reports = step.reports
            return _Newer(step.document, step.tip, seen=equal(step.tip.status, wish.tip.status))
        return step

    def _send(self, wish: Wish) -> _Steps:
        while True:
            self._sent_on = wish.tip
            try:
                answer = yield from self._write(wish)
            except (TransportError, APIError, OSError) as error:
                self._last = error
                step = yield from self._failed(wish, error)
            else:
                step = self._applied(wish, answer)
            if not isinstance(step, _Again):
                return step

    def _failed(self, wish: Wish, error: TransportError | APIError | OSError) -> _Sends:
        if isinstance(error, (NotSent, TooManyRequests)):
            yield from self._pause(error)
            return _Again()
        if isinstance(error, Conflict) and self._conditional:
            return (yield from self._conflicted(wish, error))
        if isinstance(error, NotFound):
            return (yield from self._not_found(wish, error))
        if isinstance(error, APIError) and not (isinstance(error, ServerError) and not is_final(error)):
            raise self._refused(wish, error) from error
        self._uncertain = True
        self._counts["unknown"] += 1
        if not self._conditional:
            yield from self._pause(error)
            return _Again()
        return (yield from self._read_back(wish, error))

    def _applied(self, wish: Wish, answer: dict[str, Any]) -> _Step | _Again:
        stored = self._policy.snapshot(answer, last=not self._checkpoint)
        if self._subresource is None and wish.left_no_trace_in(stored.status):
            return self._has_a_subresource(wish, answer, stored)
        exact = self._is_as_expected(wish, stored) and self._left_the_rest(wish, stored)
        reports = self._reports
        if self._is_foreign(stored):
            _logger.warning(
                "%s was deleted and made again meanwhile; its status was written into the new object, which only a "
                "conditional write avoids",
                self._target,
            )
        if stored.version and self._conditional:
            reports += (Report(parse_version(wish.tip.version), parse_version(stored.version), exact),)
        # Without another version nothing was stored: the server pruned all that was sent, or it was there already.
        outcome: Outcome = "ignored" if stored.version and stored.version == wish.tip.version else "written"
        return Flushed(outcome, answer, stored, stored.status, reports, wish.fields, wish.trimmed)

    def _left_the_rest(self, wish: Wish, stored: Snapshot) -> bool:
        """Say whether a write changed nothing but the status.

        The generation tells it, except in a write of the main resource, which raises the generation by itself.
        """
        if self._subresource is None:
            return stored.rest == wish.tip.rest
        return stored.generation == wish.tip.generation

    def _conflicted(self, wish: Wish, error: Conflict) -> _Sends:
        if self._uncertain:
            return (yield from self._read_back(wish, error))
        self._counts["conflicts"] += 1
        if self._checkpoint:
            raise self._conflict("a checkpoint does not replay") from error
        if self._writes >= self._policy.limit:
            raise self._exhausted() from error
        yield from self._pause(error)
        document = yield from self._read(wish)
        return self._gone() if document is None else _Newer(document, self._snapshot(document))

    def _read_back(self, wish: Wish, error: Exception) -> _Sends:
        self._counts["read_backs"] += 1
        yield from self._pause(error)
        document = yield from self._read(wish)
        if document is None:
            return self._gone()
        fresh = self._snapshot(document)
        if self._is_foreign(fresh):
            return self._gone()
        if fresh.version == wish.tip.version:
            yield from self._heed(error)
            return _Again()
        applied = self._was_applied(wish, fresh)
        if applied:
            return Flushed("written", document, fresh, wish.computed, self._reports, wish.fields, wish.trimmed)
        if applied is False:
            self._uncertain = False  # the version has moved on, so the request can no longer be applied
        repeatable = all(m.may_be_repeated(wish.tip.status, fresh.status) for m in wish.mutations)
        if applied is None and (self._checkpoint or not repeatable):
            raise self._unknown("the answer was lost, and another writer has changed the object since") from error
        if self._checkpoint:
            raise self._conflict("a checkpoint does not replay") from error
        return _Newer(document, fresh)

    def _was_applied(self, wish: Wish, fresh: Snapshot) -> bool | None:
        """Say whether a newer version shows that the write took effect; None when it cannot be told."""
        token = self._policy.token
        if token is not None:
            mark = get_path(fresh.status, token)
            if mark == self._mark:
                return True
            if equal(mark, get_path(wish.tip.status, token)):
                return False
            if self._doubts is not None and any(mark == sent for sent, _ in self._doubts.sends):
                return False  # an earlier write was applied in place of this one
        missing = wish.missing_in(fresh.status)
        if missing and not self._foreseen(missing, wish, fresh):
            return None
        if all(m.idempotent for m in wish.mutations):
            return True
        # The same number can be another writer's sum. The server says who wrote it.
        manager = self._target.field_manager
        written = [path for path in wish.fields if get_path(fresh.status, path) is not None]
        own = not manager or all(owns(fresh.managed_fields, manager, path) for path in written)
        return True if own else None

    def _not_found(self, wish: Wish, error: NotFound) -> _Sends:
        if isinstance(error, NotServed):
            raise self._refused(wish, error) from error
        document = yield from self._read(wish)
        if document is None or self._is_foreign(self._snapshot(document)):
            return self._gone()
        if self._subresource is None or wish.to_main:
            raise self._refused(wish, error) from error
        if self._policy.subresource != "auto":
            raise StatusSubresourceMissing(
                f"{self._target} is there, but its kind is served without the {self._subresource!r} subresource: "
                "the status cannot be written there. Add 'subresources: {status: {}}' to this version in the CRD, or "
                "open the batcher with subresource='auto'.",
                unsaved=self.mutations,
            ) from error
        self._subresource = None
        if self._target.memory.note_subresource(self._target.gvk, missing=True):
            _logger.warning(
                "%s is served without the status subresource: its status is written to the main resource, and each "
                "write raises metadata.generation",
                self._target.gvk,
            )
        return _Again()

    def _has_a_subresource(self, wish: Wish, answer: dict[str, Any], stored: Snapshot) -> _Step | _Again:
        if self._policy.subresource != "auto":
            raise StatusRejected(
                f"the server ignored the status in a write of the main resource of {self._target}: its kind has the "
                "status subresource. Open the batcher with subresource='status', the default.",
                unsaved=self.mutations,
            )
        self._target.memory.note_subresource(self._target.gvk, missing=False)
        self._subresource = "status"
        return _Again() if stored.version == wish.tip.version else _Newer(answer, stored)

    # Ends.

    def _snapshot(self, document: dict[str, Any]) -> Snapshot:
        return self._policy.snapshot(document)

    def _is_foreign(self, snapshot: Snapshot) -> bool:
        return bool(self._uid) and snapshot.uid != self._uid

    def _is_taken(self, document: dict[str, Any]) -> bool:
        """Say whether another process answers for the object by now: its status is that one's to write."""
        cycle = current_cycle.get()
        return cycle is not None and not cycle.may_write(self._target.gvk, self._target.request, document)

    def _gone(self) -> Flushed:
        return Flushed("gone", None, self._tip, self._considered)

    def _unwritten(self, wish: Wish) -> Flushed:
        return Flushed("unchanged", self._document, wish.tip, wish.tip.status, self._reports, trimmed=wish.trimmed)

    def _is_as_expected(self, wish: Wish, stored: Snapshot) -> bool:
        """Return whether the server stored what was computed, or made of it what it made of it before."""
        if equal(stored.status, wish.computed):
            return True
        again = [path for path, _ in leaves(merge_diff(stored.status, wish.computed))]
        if self._foreseen(again, wish, stored):
            return True
        memory = self._target.memory
        memory.learn(stored.uid, again, wish.computed, stored.status, self._policy.clock)
        pruned = memory.report(self._target.gvk, wish.computed, stored.status)
        if pruned:
            self._counts["pruned"] += len(pruned)
            _logger.warning(
                "the server did not store %s of %s (%s): add it to the CRD. It is sent again when the status of an "
                "object changes",
                ", ".join(f"status.{format_path(path)}" for path in pruned),
                self._target.gvk,
                "; ".join(f"Warning: {text}" for text in self._target.warnings()) or "no Warning header",
            )
        return False

    def _foreseen(self, paths: Sequence[Path], wish: Wish, stored: Snapshot) -> bool:
        return self._target.memory.foresees(stored.uid, paths, wish.computed, stored.status, self._policy.clock)
