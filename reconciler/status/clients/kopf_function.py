"""Change a status as a function of the version that kopf is about to patch.

kopf runs the functions in ``patch.fns`` on the newest body it knows, and sends what they changed as a JSON patch that
tests the resourceVersion. If that is refused, kopf keeps the functions and runs them again on the next version it
hears of. So this function is called once, or once more for each refusal, and has to tell by itself what a refusal was:

* Another writer was there first: the mutations are replayed on the newer version, as `_replay` allows it.
* kopf repeats a request whose answer was lost, and the repetition meets its own first copy: then the new status is
  there already, and nothing is applied twice.
* The server never takes it, because the CRD's schema forbids it: kopf takes that for a conflict as well, and runs none
  of the object's handlers while it holds something back. After so many versions the status is given up, with an error
  in the log; but not within the first seconds, since kopf tries on versions of a burst that are long overtaken.

It never raises: kopf would keep it and meet the same error with every event.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from reconciler.meta import equal, format_micro_time, format_path, get_path, keep_transition_times, merge_diff, set_path
from reconciler.status.flush.effects import Policy, Target
from reconciler.status.flush.managed_fields import owned_by_others_only, owns
from reconciler.status.flush.replay import sift
from reconciler.status.record.json_values import copy_json
from reconciler.status.record.mutations import Context, Mutation, Path, apply_all, leaves

__all__ = ["FIELD_MANAGER", "StatusFunction"]

FIELD_MANAGER = "kopf"
"""The API server takes it from kopf's User-Agent, ``kopf/<version>``."""

PREFIX = "kopf.zalando.org"

_logger = logging.getLogger("reconciler.status")


@dataclass(frozen=True, slots=True)
class _Group:
    """Be what one batcher recorded.

    Attributes:
        mutations: in the order of their calls.
        considered: the status that they were recorded on, without what earlier batchers left in the same patch.
        counts: the batcher's counters.
    """

    mutations: Sequence[Mutation]
    considered: Mapping[str, Any]
    counts: dict[str, int]


@dataclass(frozen=True, slots=True)
class _Sent:
    """Be what kopf was given last.

    Attributes:
        computed: the whole status.
        paths: those of it that changed.
        groups: how many of the groups, the first ones, it holds.
        mark: the id that was left at the token's path; ``""`` without.
    """

    computed: Mapping[str, Any]
    paths: Sequence[Path]
    groups: int
    mark: str


class StatusFunction:
    """Be the one function that all batchers of one kopf patch leave there.

    Args:
        target: the object.
        policy: ``limit`` versions are tried, and more until ``patience`` is over; each as often as ``limit`` says;
            ``token`` is left as in any other write.
    """

    def __init__(self, target: Target, policy: Policy) -> None:
        self._target = target
        self._policy = policy
        self._lock = threading.RLock()
        self._groups: list[_Group] = []
        self._sent: list[_Sent] = []
        self._tries: Counter[str] = Counter()
        self._deadline = math.inf  # set by the first try
        self._held = False  # kopf took it back, and has run no batcher's handler since

    def __repr__(self) -> str:
        """Say what it is, without a value: kopf logs it."""
        verbs = [mutation.verb for group in self._groups for mutation in group.mutations]
        return f"<status of {self._target}: {', '.join(verbs)}>"

    def add(self, mutations: Sequence[Mutation], considered: Mapping[str, Any], counts: dict[str, int]) -> None:
        """Take over what a batcher recorded."""
        with self._lock:
            self._groups.append(_Group(tuple(mutations), considered, counts))

    def laid_over(self, status: Mapping[str, Any], fields: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return a status with everything taken over so far in place, for the handler that is about to run.

        Args:
            status: as the handler's body has it.
            fields: the body's ``managedFields``.
        """
        with self._lock:
            self._held = False
            waiting = self._groups[self._stored(status, fields) :]
            try:
                return apply_all([mutation for group in waiting for mutation in group.mutations], status)[0]
            except Exception:  # noqa: BLE001 - another writer's version does not fit: said when kopf asks
                return dict(status)

    def __call__(self, body: dict[str, Any]) -> None:
        """Change the status of a body in place."""
        with self._lock:
            metadata: Mapping[str, Any] = body.get("metadata") or {}
            fields = tuple(metadata.get("managedFields") or ())
            status: Mapping[str, Any] = body.get("status") or {}
            held, self._held = self._held, True
            if self._sent:
                self._look_back(status, fields)
            if self._groups:
                self._count_the_try(str(metadata.get("resourceVersion") or ""))
            computed = self._computed(status, fields)
            paths = [path for path, _ in leaves(merge_diff(status, computed))]
            if paths:
                self._remember(computed, paths)
                body["status"] = computed
            elif held:
                _wake(body, self._policy)

    def _look_back(self, status: Mapping[str, Any], fields: Sequence[Mapping[str, Any]]) -> None:
        """Drop what this version shows to be written; the rest was refused."""
        stored = self._stored(status, fields)
        if stored:
            del self._groups[:stored]
            self._sent.clear()
            self._tries.clear()
            return
        for group in self._groups[: self._sent[-1].groups]:
            group.counts["conflicts"] += 1
            group.counts["replays"] += 1

    def _stored(self, status: Mapping[str, Any], fields: Sequence[Mapping[str, Any]]) -> int:
        """Return how many of the groups, the first ones, a version shows to be written."""
        return next((sent.groups for sent in reversed(self._sent) if self._is_there(sent, status, fields)), 0)

    def _is_there(self, sent: _Sent, status: Mapping[str, Any], fields: Sequence[Mapping[str, Any]]) -> bool:
        token = self._policy.token
        if token is not None and sent.mark:
            return bool(get_path(status, token) == sent.mark)
        if not all(equal(get_path(status, path), get_path(sent.computed, path)) for path in sent.paths):
            return False
        if all(mutation.idempotent for group in self._groups[: sent.groups] for mutation in group.mutations):
            return True
        # The same number can be another writer's sum. The server says who wrote it.
        return not any(
            owned_by_others_only(fields, FIELD_MANAGER, path)
            for path in sent.paths
            if get_path(status, path) is not None
        )

    def _count_the_try(self, version: str) -> None:
        limit = self._policy.limit
        now = self._policy.clock.monotonic()
        if not self._tries:
            self._deadline = now + self._policy.patience
        self._tries[version] += 1
        if self._tries[version] <= limit and (len(self._tries) <= limit or now <= self._deadline):
            return
        _logger.error(
            "kopf could not write the status of %s in %d tries. Either another writer was faster each time, or the "
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

    def _computed(self, status: Mapping[str, Any], fields: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        computed: dict[str, Any] = copy_json(status)
        context = Context()
        for group in self._groups:
            sifted = sift(group.mutations, group.considered, status, owned=partial(owns, fields, FIELD_MANAGER))
            if sifted.contested:
                group.counts["contested"] += len(sifted.contested)
                _logger.warning(
                    "another writer changed %s of %s while the kopf handler ran, and theirs stays; "
                    "set(…, overwrite=True) says that this operator alone decides",
                    ", ".join(sorted({f"status.{format_path(path)}" for path in sifted.paths})),
                    self._target,
                )
            for mutation in sifted.kept:
                self._apply(mutation, computed, context)
        keep_transition_times(status, computed)
        return computed

    def _apply(self, mutation: Mutation, computed: dict[str, Any], context: Context) -> None:
        try:
            mutation.apply(computed, context)
        except Exception:
            _logger.exception(
                "%s of %s cannot be applied to another writer's version of %s and is dropped",
                mutation.verb,
                ", ".join(map(format_path, mutation.paths)) or "the status",
                self._target,
            )

    def _remember(self, computed: dict[str, Any], paths: Sequence[Path]) -> None:
        mark = ""
        if self._policy.token is not None:
            mark = f"{self._policy.rng.getrandbits(64):016x}"
            set_path(computed, self._policy.token, mark)
        self._sent.append(_Sent(copy_json(computed), paths, len(self._groups), mark))


def _wake(body: dict[str, Any], policy: Policy) -> None:
    """Make kopf hear of the object once more, as it does after a delay.

    While kopf holds back a patch it runs none of the handlers that look for changes, and counts on the event of that
    patch. When nothing is left to be patched, there is no such event, and a change that was skipped would wait for the
    next one.
    """
    annotations = (body.get("metadata") or {}).get("annotations") or {}
    prefixes = {prefix for prefix, _, name in (key.partition("/") for key in annotations) if name == "kopf-managed"}
    if any(key.startswith(f"{PREFIX}/") for key in annotations):
        prefixes.add(PREFIX)
    for prefix in sorted(prefixes)[:1]:
        annotations[f"{prefix}/touch-dummy"] = format_micro_time(policy.clock.now())
