"""Tell people of a request by Kubernetes Events, when something changed and not otherwise."""

from __future__ import annotations

from collections.abc import Callable

from reconciler.events import EventRecorder
from reconciler.notification.ledger.recorded import Recorded

__all__ = ["Announcer"]


class Announcer:
    """Emit an Event when the phase of a request changed.

    Args:
        events: returns the recorder; asked at each use, since a reconciler has none before it belongs to a controller.
    """

    def __init__(self, events: Callable[[], EventRecorder]) -> None:
        self._events = events

    def recorded(self, record: Recorded) -> None:
        """Emit what changed; a repeated run of the same pass changes nothing any more."""
        after = record.after
        if after.phase == record.before.phase:
            return
        events = self._events()
        tell = events.warning if after.phase in {"Failed", "PartiallySent"} else events.normal
        tell(record.request, after.reason or "", after.message or "")
