"""Know which attempts were counted before a call that then was not made."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from reconciler.notification._status import DeliveryAttempt, NotificationRequestStatus

__all__ = ["Unmade"]

UNMADE_LIMIT = 10_000
"""Requests that are remembered. Of one that was forgotten, an attempt that was not made counts as made."""


class Unmade:
    """Remember intents that no call followed, although they may be written: their write failed, or came too late.

    Without that an intent which this process wrote for nothing would look like the call of a process that died.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[DeliveryAttempt, ...]] = OrderedDict()

    def add(self, uid: str, intents: Sequence[DeliveryAttempt]) -> None:
        """Note that no call followed these intents, and none will."""
        self._known[uid] = (*self._known.get(uid, ()), *intents)
        if len(self._known) > UNMADE_LIMIT:
            self._known.popitem(last=False)

    def among(self, uid: str, status: NotificationRequestStatus) -> tuple[DeliveryAttempt, ...]:
        """Return which of a request's entries are such intents. Its time tells it from another process's intent."""
        known = self._known.get(uid)
        if known is None:
            return ()
        return tuple(entry for entry in status.delivery_attempts if entry.result == "unknown" and entry in known)

    def forget(self, uid: str) -> None:
        """Let go of a request that has ended."""
        self._known.pop(uid, None)
