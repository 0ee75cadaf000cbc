"""Write-ahead attempts: under ``Bounded`` and ``AtMostOnce`` an attempt is written to the status before its call.

A write-ahead attempt is an entry of ``deliveryAttempts`` with the result ``unknown``, which the real result replaces.
If the process dies in between, the entry remains and counts as made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from reconciler._core.lru import LRU
from reconciler.client import Client
from reconciler.notification.api.types import (
    ChannelStatus,
    DeliveryAttempt,
    NotificationRequest,
    NotificationRequestStatus,
)
from reconciler.notification.ledger.mutations import RequestStatusBatcher, remove_write_ahead, upsert_attempts
from reconciler.status import StatusBatcher

__all__ = ["WriteAhead"]

UNCALLED_LIMIT = 10_000
"""Maximum requests whose uncalled attempts are remembered. For a forgotten one, such an attempt counts as made."""


class WriteAhead:
    """The attempts that are written ahead of their calls, and those among them that no call followed.

    Such an attempt may still end up in the status: its write failed with an unknown outcome, or finished too late.
    Without this memory it would look like the call of a process that died.
    """

    def __init__(self, now: Callable[[], datetime], check_leader: Callable[[], None]) -> None:
        self._now = now
        self._check_leader = check_leader
        self._uncalled: LRU[str, tuple[DeliveryAttempt, ...]] = LRU(UNCALLED_LIMIT)

    async def write(
        self,
        obj: NotificationRequest,
        due: Sequence[ChannelStatus],
        status: RequestStatusBatcher,
        *,
        client: Client,
        has_unsaved_results: bool,
    ) -> Sequence[DeliveryAttempt]:
        """Write what the status must hold before the calls, and return the write-ahead attempts.

        Results of an earlier reconcile that are not saved yet are saved first, so that at most the calls of one
        reconcile are unrecorded at any time. If cancelled, the attempts are removed again by this reconcile's flush or
        by the next reconcile.

        Raises:
            StatusError: the write failed, so no channel may be called.
            NotLeader: another process is the leader.
        """
        self._check_leader()
        attempts: tuple[DeliveryAttempt, ...] = ()
        if obj.spec.delivery != "AtLeastOnce":
            now = self._now()
            attempts = tuple(
                DeliveryAttempt(channel=channel.name, attempt=channel.attempts + 1, timestamp=now, result="unknown")
                for channel in due
            )
        try:
            if attempts or has_unsaved_results:
                async with StatusBatcher(client, obj, on_error="discard") as intent:  # joins `status`
                    upsert_attempts(intent, attempts)
                    await intent.flush()
                self._check_leader()
        except BaseException:
            if attempts:
                self._uncalled[obj.uid] = (*self._uncalled.get(obj.uid, ()), *attempts)
            remove_write_ahead(status, attempts)
            raise
        return attempts

    def without_uncalled(self, obj: NotificationRequest, status: RequestStatusBatcher) -> NotificationRequestStatus:
        """Return the stored status without attempts that this process wrote ahead and never made; remove them as well.

        The timestamp distinguishes them from attempts of other processes, whose calls may have been made.
        """
        uncalled = self._uncalled.get(obj.uid)
        if uncalled is None:
            return obj.status
        attempts = obj.status.delivery_attempts
        remove_write_ahead(status, [attempt for attempt in attempts if attempt in uncalled])
        made = [attempt for attempt in attempts if attempt not in uncalled]
        return obj.status.model_copy(update={"delivery_attempts": made})

    def forget(self, uid: str) -> None:
        """Forget a request that has ended."""
        self._uncalled.pop(uid, None)
