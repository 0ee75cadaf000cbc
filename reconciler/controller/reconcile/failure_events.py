"""Events on the object about reconciles that fail, and about the first one that succeeds afterwards."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from reconciler._core.wire import JSONObject
from reconciler.cache import CachedObject
from reconciler.clock import Clock
from reconciler.controller.reconcile.outcome import Completion, error_message
from reconciler.errors import TerminalError
from reconciler.events import EventRecorder
from reconciler.meta import GroupVersionKind, Request
from reconciler.objects import InvalidObject
from reconciler.status import StatusError

__all__ = ["FAILED", "SUCCEEDED", "FailureEvents"]

FAILED = "ReconcileFailed"
"""The reason of the Warning Event."""

SUCCEEDED = "ReconcileSucceeded"
"""The reason of the Normal Event that follows when the object is reconciled again."""

_FAILURES = 3
"""Failures in a row that are worth an Event: one or two are mostly a conflict, or a cache that is behind."""

_INTERVAL = 60.0
"""Seconds between two Events of one object, so that an outage of something that all objects need is not a flood."""


class _Row(msgspec.Struct, gc=False):
    """Failures in a row of one object.

    Attributes:
        uid: of the object.
        failures: their number.
        reported_at: monotonic second of the latest Event; None if there was none.
        reported: the hash of its message.
    """

    uid: str
    failures: int = 0
    reported_at: float | None = None
    reported: int = 0


class FailureEvents:
    """A recorder of Warning Events on objects whose reconciles fail, and of Normal ones when they succeed again.

    The third failure in a row is reported, and a terminal error, a timeout or a refused status at once; while it
    continues, once a minute. A terminal error is not retried, so one with another text than the latest Event is
    reported at once as well. Keys without an object in the cache are ignored. An object that does not match its
    model has an Event of its own (``InvalidObject``), which does not quote its values as the exception may.

    Args:
        gvk: the primary kind.
        events: records the Events.
        stored: returns the primary object of a key in the informer's store, or None.
        clock: source of monotonic time.
        enabled: False records nothing.

    Attributes:
        failing: the failures in a row of each key that has any.
    """

    def __init__(
        self,
        gvk: GroupVersionKind,
        *,
        events: EventRecorder,
        stored: Callable[[Request], CachedObject | None],
        clock: Clock,
        enabled: bool = True,
    ) -> None:
        self._gvk = gvk
        self._events = events
        self._stored = stored
        self._clock = clock
        self._enabled = enabled
        self.failing: dict[Request, _Row] = {}

    def note(self, key: Request, completion: Completion, *, uid: str | None) -> None:
        """Take note of a reconcile that ended.

        Args:
            key: the key.
            completion: how it ended.
            uid: of the object that it began with; None if that is unknown. An object that has taken the name since is
                not affected.
        """
        if completion.error is None:
            row = self.failing.pop(key, None)
            if row is not None and row.reported_at is not None:
                self._record_success(key, row)
        elif self._enabled and not _has_event(completion.error):
            self._note_failure(key, completion, completion.error, uid)

    def forget(self, key: Request) -> None:
        """Forget the failures of an object that is gone."""
        self.failing.pop(key, None)

    def _note_failure(self, key: Request, completion: Completion, error: Exception, uid: str | None) -> None:
        obj = self._stored(key)
        if obj is None or (uid is not None and uid != obj.uid):
            self.forget(key)
            return
        row = self.failing.get(key)
        if row is None or row.uid != obj.uid:
            row = self.failing[key] = _Row(obj.uid)
        row.failures += 1
        now = self._clock.monotonic()
        if row.failures < _FAILURES and not (completion.terminal or completion.timed_out or _is_refused(error)):
            return
        message = error_message(error)
        is_last_word = completion.terminal and row.reported != hash(message)
        if row.reported_at is None or now - row.reported_at >= _INTERVAL or is_last_word:
            row.reported_at, row.reported = now, hash(message)
            self._events.warning(self._reference(obj), FAILED, message)

    def _record_success(self, key: Request, row: _Row) -> None:
        obj = self._stored(key)
        if obj is not None and obj.uid == row.uid:
            self._events.normal(self._reference(obj), SUCCEEDED, "reconciled without an error again")

    def _reference(self, obj: CachedObject) -> JSONObject:
        metadata = {
            "name": obj.name,
            "namespace": obj.namespace,
            "uid": obj.uid,
            "resourceVersion": str(obj.version),
        }
        present = {key: value for key, value in metadata.items() if value}
        return {"apiVersion": self._gvk.api_version, "kind": self._gvk.kind, "metadata": present}


def _has_event(error: Exception) -> bool:
    """Return whether the error is that of an invalid primary object, which `ResourceReconciler` reports."""
    return isinstance(error, InvalidObject) and isinstance(error, TerminalError)


def _is_refused(error: Exception) -> bool:
    return isinstance(error, StatusError) and not error.retryable
