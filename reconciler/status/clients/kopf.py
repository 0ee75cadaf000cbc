"""The batcher's way to write inside a kopf handler: through kopf's own patch, so that kopf sends no additional request.

kopf collects in the ``patch`` of a handling cycle what its handlers want to change, and sends it when they have ended.
A batcher leaves one function in ``patch.fns`` (`StatusFunction`). kopf runs it on the newest body that it knows, and
sends what it changed as a JSON patch that tests the resourceVersion. If that is refused, kopf keeps the function and
runs it again on the next version that it receives. So the function is called once, and once more for each refusal, and
must find out by itself what a refusal means:

* Another writer was first: the mutations are replayed on the newer version, by the rules of
  `reconciler.status.flush.replay`.
* kopf repeats a request whose response was lost, and the repetition conflicts with its own first copy. Then the new
  status is stored already, and nothing is applied twice.
* The server never accepts it, because the CRD's schema forbids it. kopf treats that as a conflict too, and runs none of
  the object's handlers while it holds something back. So the function gives the status up after a number of versions,
  with an error in the log. It does not do so within the first seconds, since during a burst of changes kopf tries
  versions that were overtaken long ago.

The function never raises: kopf would keep it and get the same error with every event.

kopf is recognized by the module of its class; it is not imported.
"""

from __future__ import annotations

import logging
import math
import sys
import threading
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from reconciler.meta import (
    equal,
    format_micro_time,
    format_path,
    get_path,
    gvk_of,
    keep_transition_times,
    merge_diff,
    merge_patch,
    request_of,
    set_path,
    uid_of,
    version_of,
)
from reconciler.status.flush.effects import Target
from reconciler.status.flush.replay import select_replayable
from reconciler.status.options import Policy
from reconciler.status.record.conversion import copy_json, document_of, is_kind
from reconciler.status.record.mutations import ApplyStatistics, Mutation, Path, apply_all, leaves
from reconciler.status.record.snapshot import owned_by_others_only, owns

if TYPE_CHECKING:
    from reconciler.wire import JSONObject, ManagedFieldsEntry

__all__ = ["KopfPatch", "is_kopf_patch"]

OLDEST = (1, 44, 5)
"""The functions of 1.44.0 to 1.44.4 get a body that they cannot change if kopf has nothing else to patch."""

FIELD_MANAGER = "kopf"
"""The API server takes it from kopf's User-Agent, ``kopf/<version>``."""

PREFIX = "kopf.zalando.org"

_lock = threading.Lock()
"""Guards the search for a function in a patch: handlers that are plain functions run in threads."""

_logger = logging.getLogger("reconciler.status")


def is_kopf_patch(api: object) -> bool:
    """Return whether this is the ``patch`` of a kopf handler."""
    return any(cls.__name__ == "Patch" and cls.__module__.startswith("kopf.") for cls in type(api).__mro__)


class KopfPatch:
    """The target of a batcher inside a kopf handler.

    Args:
        patch: the handler's ``patch``.
        body: its ``body``.

    Attributes:
        field_manager: the name that the API server records, since kopf does not send one.
        warnings: always empty, since kopf receives the responses.

    Raises:
        TypeError: the body is a kind, or belongs to another object than the patch; or kopf is older than 1.44.5.
        ValueError: the body was never stored.
    """

    field_manager = FIELD_MANAGER
    warnings: Sequence[str] = ()

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
        managed_fields = (document.get("metadata") or {}).get("managedFields") or ()
        return {**document, "status": function.apply_to(base, managed_fields)}

    def take(self, mutations: Sequence[Mutation], target: Target, policy: Policy, counts: dict[str, int]) -> None:
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
            function.add(mutations, self._base, counts)

    def _function(self) -> StatusFunction | None:
        """Return the function that a batcher has left in the patch."""
        return next((fn for fn in self._patch.fns if isinstance(fn, StatusFunction)), None)


def _check_version(patch: Any) -> None:
    version = getattr(sys.modules.get("kopf"), "__version_tuple__", ())
    if not hasattr(patch, "fns") or version[:3] < OLDEST:
        found = ".".join(map(str, version[:3])) or "an older one"
        raise TypeError(f"StatusBatcher(patch, body) needs kopf {'.'.join(map(str, OLDEST))} or newer, not {found}")


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
class _Sent:
    """A status that was passed to kopf.

    Attributes:
        computed: the whole status.
        paths: the paths that changed.
        groups: how many of the groups, from the first, it contains.
        mark: the id that was left at the token's path; ``""`` without a token.
    """

    computed: Mapping[str, Any]
    paths: Sequence[Path]
    groups: int
    mark: str


class StatusFunction:
    """The one function that all batchers of a kopf patch leave there.

    Args:
        target: the object.
        policy: ``limit`` versions are tried, and more until ``flush_timeout`` is over, each at most ``limit`` times;
            the ``token`` is left as in any other write.
    """

    def __init__(self, target: Target, policy: Policy) -> None:
        self._target = target
        self._policy = policy
        self._lock = threading.RLock()
        self._groups: list[_Group] = []
        self._sent: list[_Sent] = []
        self._tries: Counter[str] = Counter()
        self._deadline = math.inf  # set by the first try
        self._held = False  # kopf has called the function, and has not run a handler with a batcher since

    def __repr__(self) -> str:
        """Return verbs and object, without values: kopf logs it."""
        verbs = [mutation.verb for group in self._groups for mutation in group.mutations]
        return f"<status of {self._target}: {', '.join(verbs)}>"

    def add(self, mutations: Sequence[Mutation], base: Mapping[str, Any], counts: dict[str, int]) -> None:
        """Take over what a batcher recorded."""
        with self._lock:
            self._groups.append(_Group(tuple(mutations), base, counts))

    def apply_to(self, status: Mapping[str, Any], managed_fields: Sequence[ManagedFieldsEntry]) -> JSONObject:
        """Return a status with everything taken over so far applied, for the handler that is about to run.

        Args:
            status: the status of the handler's body.
            managed_fields: the body's.
        """
        with self._lock:
            self._held = False
            waiting = self._groups[self._count_stored(status, managed_fields) :]
            try:
                return apply_all([mutation for group in waiting for mutation in group.mutations], status)[0]
            except Exception:  # noqa: BLE001 - another writer's version does not match; reported when kopf calls
                return dict(status)

    def __call__(self, body: JSONObject) -> None:
        """Change the status of a body in place."""
        with self._lock:
            metadata: Mapping[str, Any] = body.get("metadata") or {}
            managed_fields = tuple(metadata.get("managedFields") or ())
            status: Mapping[str, Any] = body.get("status") or {}
            held, self._held = self._held, True
            if self._sent:
                self._drop_stored(status, managed_fields)
            if self._groups:
                self._count_try(str(metadata.get("resourceVersion") or ""))
            computed = self._computed(status, managed_fields)
            paths = [path for path, _ in leaves(merge_diff(status, computed))]
            if paths:
                self._remember(computed, paths)
                body["status"] = computed
            elif held:
                _trigger_event(body, self._policy)

    def _drop_stored(self, status: Mapping[str, Any], managed_fields: Sequence[ManagedFieldsEntry]) -> None:
        """Drop the groups that this version shows to be stored; the others were refused."""
        stored = self._count_stored(status, managed_fields)
        if stored:
            del self._groups[:stored]
            self._sent.clear()
            self._tries.clear()
            return
        for group in self._groups[: self._sent[-1].groups]:
            group.counts["conflicts"] += 1
            group.counts["replays"] += 1

    def _count_stored(self, status: Mapping[str, Any], managed_fields: Sequence[ManagedFieldsEntry]) -> int:
        """Return how many of the groups, from the first, a version shows to be stored."""
        return next((sent.groups for sent in reversed(self._sent) if self._is_stored(sent, status, managed_fields)), 0)

    def _is_stored(self, sent: _Sent, status: Mapping[str, Any], managed_fields: Sequence[ManagedFieldsEntry]) -> bool:
        token = self._policy.token
        if token is not None and sent.mark:
            return bool(get_path(status, token) == sent.mark)
        if not all(equal(get_path(status, path), get_path(sent.computed, path)) for path in sent.paths):
            return False
        if all(mutation.idempotent for group in self._groups[: sent.groups] for mutation in group.mutations):
            return True
        # The same number can be the sum of another writer's additions. The managedFields show who wrote it.
        return not any(
            owned_by_others_only(managed_fields, FIELD_MANAGER, path)
            for path in sent.paths
            if get_path(status, path) is not None
        )

    def _count_try(self, version: str) -> None:
        """Count a try on a version; give everything up if there were too many."""
        limit = self._policy.limit
        now = self._policy.clock.monotonic()
        if not self._tries:
            self._deadline = now + self._policy.flush_timeout
        self._tries[version] += 1
        if self._tries[version] <= limit and (len(self._tries) <= limit or now <= self._deadline):
            return
        _logger.error(
            "kopf could not write the status of %s in %d attempts: either another writer was faster each time, or the "
            "schema of the CRD does not allow it. Not written: %s",
            self._target,
            self._tries.total() - 1,
            ", ".join(sorted({f"status.{format_path(path)}" for sent in self._sent for path in sent.paths})),
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

    def _remember(self, computed: JSONObject, paths: Sequence[Path]) -> None:
        mark = self._policy.new_mark()
        if self._policy.token is not None:
            set_path(computed, self._policy.token, mark)
        self._sent.append(_Sent(copy_json(computed), paths, len(self._groups), mark))


def _trigger_event(body: JSONObject, policy: Policy) -> None:
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
