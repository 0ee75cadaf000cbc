"""The batcher's way to write inside a kopf handler: through kopf's own patch, so that kopf sends no additional request.

kopf collects in the ``patch`` of a handling cycle what its handlers want to change, and sends it when they have ended.
A batcher leaves one function in ``patch.fns`` (`StatusFunction`). kopf runs it on the newest body that it knows, and
sends what it changed as a JSON patch that tests the resourceVersion. If that is refused, kopf keeps the function and
runs it again on another version: for a handler of changes on the next one, since kopf receives the versions one by one
and runs no such handlers meanwhile; for a timer or a daemon on any later one, when it runs again. kopf also repeats a
request whose response was lost, and the repetition conflicts with its own first copy. So the function is called once,
and once more for each refusal, and must find out by itself whether what it passed to kopf is stored:

* Yes, if the token has its mark; without a token, if the status has the computed values and nobody else can have
  written them. Then nothing is left to do.
* No, if the marks show that its own is missing, or if it is the next version and has other values. Also if a list that
  others only append to lacks its items, or if one of the fields has the value and the owners of before. Then another
  writer was first, and the mutations are replayed on the newer version, by the rules of
  `reconciler.status.replay`.
* Otherwise it is unknown. Then only mutations that may be repeated are replayed; the others are dropped, with an error
  in the log.

In addition:

* The server never accepts it, because the CRD's schema forbids it. kopf treats that as a conflict too, and runs none of
  the object's handlers while it holds something back. So the function gives the status up after a number of versions,
  with an error in the log. It does not do so within the first seconds, since during a burst of changes kopf tries
  versions that were overtaken long ago.

The function never raises: kopf would keep it and get the same error with every event.

kopf is recognized by the module of its class; it is not imported.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from reconciler.meta import equal, request_of
from reconciler.meta.documents import (
    Version,
    copy_json,
    format_micro_time,
    format_path,
    get_path,
    is_newer,
    is_older,
    merge_diff,
    merge_patch,
    parse_version,
    set_path,
)
from reconciler.meta.metadata import WRITE_METHODS, gvk_of, keep_transition_times, uid_of, version_of
from reconciler.status.documents import document_of, is_kind, owned_by_others_only, owners_of, owns
from reconciler.status.mutations import ApplyStatistics, Mutation, Path, apply_all, leaves
from reconciler.status.replay import has_mark, marks_at, select_replayable, with_mark
from reconciler.status.strategies import FlushPolicy, ObjectVersion
from reconciler.status.writer import SentWrite, Target

if TYPE_CHECKING:
    from reconciler._core.wire import JSONObject, ManagedFieldsEntry

OLDEST = (1, 44, 5)
"""The functions of 1.44.0 to 1.44.4 get a body that they cannot change if kopf has nothing else to patch."""

FIELD_MANAGER = "kopf"
"""The API server takes it from kopf's User-Agent, ``kopf/<version>``."""

PREFIX = "kopf.zalando.org"

_lock = threading.Lock()
"""Guards the search for a function in a patch: handlers that are plain functions run in threads."""

_logger = logging.getLogger("reconciler.status")


class KopfPatch:
    """The target of a batcher inside a kopf handler.

    Args:
        patch: the handler's ``patch``.
        body: its ``body``.

    Attributes:
        client: kopf itself, which all patches of the process share.
        field_manager: the name that the API server records, since kopf does not send one.
        warnings: always empty, since kopf receives the responses.
        unsupported: why a strategy cannot be sent.

    Raises:
        TypeError: the body is a kind, or belongs to another object than the patch; or kopf is older than 1.44.5.
        ValueError: the body was never stored.
    """

    field_manager = FIELD_MANAGER
    warnings: Sequence[str] = ()
    unsupported: Mapping[str, str] = dict.fromkeys(
        WRITE_METHODS.keys() - {"merge"},
        "needs a client: inside kopf the write is a JSON patch of kopf's, conditional on a version",
    )

    def __init__(self, patch: Any, body: Any) -> None:
        if is_kind(body):
            raise TypeError("inside a kopf handler pass the handler's body: StatusBatcher(patch, body)")
        _check_version(patch)
        document = document_of(body)
        original = getattr(patch, "_original", None)
        if original is not None and uid_of(original) != uid_of(document):
            raise TypeError(
                "kopf's patch writes the handled object only: pass the handler's whole body. For another object pass "
                "StatusBatcher a client"
            )
        if not version_of(document):
            raise ValueError("this body has no resourceVersion: pass the body that kopf passes to the handler")
        self.client = sys.modules["kopf"]
        self._patch = patch
        self._body = body
        self._base: Mapping[str, Any] = {}
        self.gvk = gvk_of(document)
        self.request = request_of(document)

    @property
    def identity(self) -> Hashable:
        """Return what identifies the patch."""
        return "kopf", id(self._patch)

    def document(self) -> Mapping[str, Any]:
        """Return the object as the handler sees it: its body, with the status changes in its patch applied."""
        document = document_of(self._body)
        pending = self._patch.get("status")
        base = merge_patch(copy_json(document.get("status") or {}), copy_json(pending or {}))
        self._base = base
        function = self._function()
        if function is None:
            return {**document, "status": base}
        return {**document, "status": function.apply_to(ObjectVersion.of({**document, "status": base}))}

    def take(self, mutations: Sequence[Mutation], target: Target, policy: FlushPolicy, counts: dict[str, int]) -> None:
        """Leave mutations to kopf, which sends them with its patch when the handlers of the cycle have ended.

        Args:
            mutations: in the order of their calls.
            target: the object.
            policy: its token, limit, flush_timeout and rng are used.
            counts: the batcher's counters.
        """
        with _lock:
            function = self._function()
            if function is None:
                function = StatusFunction(target, policy)
                self._patch.fns.append(function)
            function.add(mutations, self._base, counts, in_background=_is_in_background())

    def _function(self) -> StatusFunction | None:
        """Return the function that a batcher has left in the patch."""
        return next((fn for fn in self._patch.fns if isinstance(fn, StatusFunction)), None)


def _check_version(patch: Any) -> None:
    version = getattr(sys.modules.get("kopf"), "__version_tuple__", ())
    if not hasattr(patch, "fns") or version[:3] < OLDEST:
        found = ".".join(map(str, version[:3])) or "an older one"
        raise TypeError(f"StatusBatcher(patch, body) needs kopf {'.'.join(map(str, OLDEST))} or newer, not {found}")


def _is_in_background() -> bool:
    """Return whether the running handler is a timer or a daemon."""
    cause_var = getattr(sys.modules.get("kopf._core.actions.execution"), "cause_var", None)
    return cause_var is not None and type(cause_var.get(None)).__name__ == "DaemonCause"


@dataclass(frozen=True, slots=True)
class _Group:
    """The mutations that one batcher recorded.

    Attributes:
        mutations: in the order of their calls.
        base: the status that they were recorded on, without what earlier batchers left in the same patch.
        counts: the batcher's counters.
    """

    mutations: Sequence[Mutation]
    base: Mapping[str, Any]
    counts: dict[str, int]


@dataclass(frozen=True, slots=True)
class _PassedStatus:
    """A status that was passed to kopf.

    Attributes:
        before: the version that it is conditional on.
        computed: the whole status.
        paths: the paths that changed.
        groups: how many of the groups, from the first, it contains.
        mark: the id that was left at the token's path; ``""`` without a token.
        write: the same as the other patches of the process see it.
    """

    before: ObjectVersion
    computed: Mapping[str, Any]
    paths: Sequence[Path]
    groups: int
    mark: str
    write: SentWrite


class StatusFunction:
    """The one function that all batchers of a kopf patch leave there.

    Args:
        target: the object.
        policy: ``limit`` versions are tried, and more until ``flush_timeout`` is over, each at most ``limit`` times;
            the ``token`` is left as in any other write.
    """

    def __init__(self, target: Target, policy: FlushPolicy) -> None:
        self._target = target
        self._policy = policy
        self._lock = threading.RLock()
        self._groups: list[_Group] = []
        self._sent: list[_PassedStatus] = []  # all on the newest version that the function was called with
        self._tries: Counter[str] = Counter()
        self._tried_for = 0.0  # seconds
        self._last_try = 0.0
        self._held = False  # kopf has called the function, and has not run a handler with a batcher since
        self._in_background = False
        self._last_paths: Sequence[Path] = ()
        self._sender = object()

    def __repr__(self) -> str:
        """Return verbs and object, without values: kopf logs it."""
        verbs = [mutation.verb for group in self._groups for mutation in group.mutations]
        return f"<status of {self._target}: {', '.join(verbs)}>"

    def add(
        self, mutations: Sequence[Mutation], base: Mapping[str, Any], counts: dict[str, int], *, in_background: bool
    ) -> None:
        """Take over what a batcher recorded, in a timer or a daemon, or in another handler."""
        with self._lock:
            self._in_background |= in_background
            self._groups.append(_Group(tuple(mutations), base, counts))

    def apply_to(self, seen: ObjectVersion) -> JSONObject:
        """Apply everything taken over so far to the status of the handler that is about to run, and return it."""
        with self._lock:
            self._held = False
            waiting = self._waiting(seen, self._answers(seen))
            try:
                return apply_all([mutation for group in waiting for mutation in group.mutations], seen.status)[0]
            except Exception:  # noqa: BLE001 - another writer's version does not match; reported when kopf calls
                return dict(seen.status)

    def __call__(self, body: JSONObject) -> None:
        """Change the status of a body in place."""
        with self._lock:
            seen = ObjectVersion.of(body)
            answers = self._answers(seen)
            held, self._held = self._held, True
            if answers:
                self._settle(seen, answers)
            if self._groups:
                self._count_try(seen.version)
            computed = self._computed(seen.status, seen.managed_fields)
            paths = list(leaves(merge_diff(seen.status, computed)))
            if paths:
                self._remember(seen, computed, paths)
                body["status"] = computed
            elif held:
                _trigger_event(body, self._policy)

    def _answers(self, seen: ObjectVersion) -> Sequence[bool | None]:
        """Return for each status passed to kopf whether it is stored, or None if that is unknown.

        Nothing is returned for a version on which no answer is needed: one that is not newer than the version that they
        were conditional on. A status that is sent on it again is refused if one of them was stored.
        """
        if not self._sent or not is_newer(_version(seen), _version(self._sent[-1].before)):
            return ()
        is_next = self._held and not self._in_background
        return [self._is_stored(sent, seen, is_next=is_next) for sent in self._sent]

    def _is_stored(self, sent: _PassedStatus, seen: ObjectVersion, *, is_next: bool) -> bool | None:
        """Return whether a version newer than the one that a status was conditional on shows that it is stored.

        Args:
            sent: the status.
            seen: the version.
            is_next: whether there is no other version between the two.
        """
        token = self._policy.token
        if token is not None:
            stored = has_mark(sent.mark, marks_at(sent.before.status, token), marks_at(seen.status, token))
            return False if stored is None and is_next else stored
        if not all(equal(get_path(seen.status, path), get_path(sent.computed, path)) for path in sent.paths):
            if is_next or any(_lacks_items(seen.status, sent, path) for path in sent.paths):
                return False
            untouched = [_is_untouched(path, sent.before, seen) for path in sent.paths]  # it would have changed all
            alone = not self._target.memory.may_be_of_another(sent.write)  # nobody has restored a value
            return False if all(untouched) or (alone and any(untouched)) else None
        if all(mutation.idempotent for group in self._groups[: sent.groups] for mutation in group.mutations):
            return True
        # The same number can be the sum of another writer's additions. The managedFields show who wrote it.
        written = [path for path in sent.paths if get_path(seen.status, path) is not None]
        if any(owned_by_others_only(seen.managed_fields, FIELD_MANAGER, path) for path in written):
            return False if is_next else None
        return None if self._target.memory.may_be_of_another(sent.write) else True

    def _waiting(self, seen: ObjectVersion, answers: Sequence[bool | None]) -> list[_Group]:
        """Return what must still be written, without what may be stored and must not be applied twice."""
        stored = max((sent.groups for sent, answer in zip(self._sent, answers, strict=False) if answer), default=0)
        unknown = [sent for sent, answer in zip(self._sent, answers, strict=False) if answer is None]
        if stored or not unknown:
            return self._groups[stored:]
        return [
            replace(
                group,
                mutations=[
                    mutation
                    for mutation in group.mutations
                    if all(
                        number >= sent.groups or mutation.may_be_repeated(sent.before.status, seen.status)
                        for sent in unknown
                    )
                ],
            )
            for number, group in enumerate(self._groups)
        ]

    def _settle(self, seen: ObjectVersion, answers: Sequence[bool | None]) -> None:
        """Leave out what is stored, and what may be and must not be applied twice."""
        waiting = self._waiting(seen, answers)
        for sent, answer in zip(self._sent, answers, strict=True):
            if answer is False:
                self._target.memory.refused(sent.write)
        if True in answers:
            self._tries.clear()
        else:
            for group in self._groups[: self._sent[-1].groups]:
                group.counts["unknown" if None in answers else "conflicts"] += 1
                group.counts["replays"] += 1
            kept = {id(mutation) for group in waiting for mutation in group.mutations}
            dropped = [each for group in self._groups for each in group.mutations if id(each) not in kept]
            if dropped:
                _logger.error(
                    "it is unknown whether kopf wrote the status of %s, since its fields have been changed again. "
                    "Dropped, because it could count twice: %s. With token=, batchers recognize what they wrote",
                    self._target,
                    ", ".join(sorted({_described(mutation) for mutation in dropped})),
                )
        self._groups = [group for group in waiting if group.mutations]
        self._sent.clear()

    def _count_try(self, version: str) -> None:
        """Count a try on a version; give everything up if there were too many."""
        limit, timeout = self._policy.limit, self._policy.flush_timeout
        now = self._policy.clock.monotonic()
        if self._tries:  # the process may have been stopped in between, so one pause is not enough
            self._tried_for += min(now - self._last_try, timeout / 2)
        else:
            self._tried_for = 0.0
        self._last_try = now
        self._tries[version] += 1
        if self._tries[version] <= limit and (len(self._tries) <= limit or self._tried_for <= timeout):
            return
        _logger.error(
            "kopf could not write the status of %s in %d attempts: either another writer was faster each time, or the "
            "schema of the CRD does not allow it. Not written: %s",
            self._target,
            self._tries.total() - 1,
            ", ".join(sorted({f"status.{format_path(path)}" for path in self._last_paths})),
        )
        for group in self._groups:
            group.counts["failed"] += 1
        self._groups.clear()
        self._sent.clear()
        self._tries.clear()

    def _computed(self, status: Mapping[str, Any], managed_fields: Sequence[ManagedFieldsEntry]) -> JSONObject:
        computed: JSONObject = copy_json(status)
        statistics = ApplyStatistics()
        for group in self._groups:
            replayable = select_replayable(
                group.mutations, group.base, status, owned=partial(owns, managed_fields, FIELD_MANAGER)
            )
            if replayable.contested:
                group.counts["contested"] += len(replayable.contested)
                _logger.warning(
                    "another writer changed %s of %s while the kopf handler ran; its value stays. Use "
                    "set(…, overwrite=True) if only this operator decides the field",
                    ", ".join(sorted({f"status.{format_path(path)}" for path in replayable.paths})),
                    self._target,
                )
            for mutation in replayable.kept:
                self._apply(mutation, computed, statistics)
        keep_transition_times(status, computed)
        return computed

    def _apply(self, mutation: Mutation, computed: JSONObject, statistics: ApplyStatistics) -> None:
        try:
            mutation.apply(computed, statistics)
        except Exception:
            _logger.exception(
                "%s of %s cannot be applied to another writer's version of %s and is dropped",
                mutation.verb,
                ", ".join(map(format_path, mutation.paths)) or "the status",
                self._target,
            )

    def _remember(self, before: ObjectVersion, computed: JSONObject, paths: Sequence[Path]) -> None:
        self._last_paths = paths
        mark, token = self._policy.new_mark(), self._policy.token
        if token is not None:
            set_path(computed, token, with_mark(marks_at(before.status, token), mark))
        if self._sent and is_older(_version(before), _version(self._sent[-1].before)):
            return  # a newer version exists, so it is refused
        write = SentWrite(self._sender, before.uid, _version(before), frozenset(path[0] for path in paths))
        self._target.memory.sent(write)
        self._sent.append(_PassedStatus(before, copy_json(computed), paths, len(self._groups), mark, write))


def _version(seen: ObjectVersion) -> Version:
    return parse_version(seen.version)


def _is_untouched(path: Path, before: ObjectVersion, now: ObjectVersion) -> bool:
    """Return whether a field has the value and the owners of an earlier version."""
    if not equal(get_path(now.status, path), get_path(before.status, path)):
        return False
    return owners_of(now.managed_fields, path) == owners_of(before.managed_fields, path)


def _lacks_items(status: Mapping[str, Any], sent: _PassedStatus, path: Path) -> bool:
    """Return whether a list that others only append to does not continue with the items that were passed to kopf.

    The write was conditional, so its items would be the first ones after those of the version that it was computed on.
    """
    now, before, computed = (get_path(each, path) or [] for each in (status, sent.before.status, sent.computed))
    if not (isinstance(now, list) and isinstance(before, list) and isinstance(computed, list)):
        return False
    is_appended = len(computed) > len(before) and equal(computed[: len(before)], before)
    return is_appended and equal(now[: len(before)], before) and not equal(now[: len(computed)], computed)


def _described(mutation: Mutation) -> str:
    where = ", ".join(f"status.{format_path(path)}" for path in mutation.paths)
    return f"{mutation.verb} {where}" if where else mutation.verb


def _trigger_event(body: JSONObject, policy: FlushPolicy) -> None:
    """Change an annotation so that kopf gets another event of the object, as kopf does after a delay.

    While kopf holds back a patch, it runs none of the handlers that look for changes, and relies on the event of that
    patch. If nothing is left to patch, there is no such event, and a skipped change would wait for the next one.
    """
    annotations = (body.get("metadata") or {}).get("annotations") or {}
    prefixes = {prefix for prefix, _, name in (key.partition("/") for key in annotations) if name == "kopf-managed"}
    if any(key.startswith(f"{PREFIX}/") for key in annotations):
        prefixes.add(PREFIX)
    for prefix in sorted(prefixes)[:1]:
        annotations[f"{prefix}/touch-dummy"] = format_micro_time(policy.clock.now())
