"""Count attempts before their calls, and know of those that were counted for calls that then were not made."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import datetime

from reconciler.notification.api.types import (
    ChannelStatus,
    DeliveryAttempt,
    NotificationRequest,
    NotificationRequestStatus,
)
from reconciler.notification.delivery.schedule import intend
from reconciler.notification.ledger.mutations import record_intents, withdraw_intents
from reconciler.status import StatusBatcher

__all__ = ["Intents"]


UNMADE_LIMIT = 10_000
"""Requests that are remembered. Of one that was forgotten, an attempt that was not made counts as made."""


class Intents:
    """Write intents before calls, and remember those that no call followed.

    They may be written all the same: their write failed, or came too late. Without that memory an intent which this
    process wrote for nothing would look like the call of a process that died.

    Args:
        now: tells the time of stamps.
        check_leader: raises in a process that does not lead.
    """

    def __init__(self, now: Callable[[], datetime], check_leader: Callable[[], None]) -> None:
        self._now = now
        self._check_leader = check_leader
        self._unmade: OrderedDict[str, tuple[DeliveryAttempt, ...]] = OrderedDict()

    async def announce(
        self,
        obj: NotificationRequest,
        due: Sequence[ChannelStatus],
        status: StatusBatcher[NotificationRequestStatus],
        *,
        behind: bool,
    ) -> Sequence[DeliveryAttempt]:
        """Write what has to be written before the calls, and return the attempts that were counted ahead of them.

        A cancelled call leaves the intents to be taken back by the flush of this cycle, or by the next cycle.

        Args:
            obj: the request.
            due: the channels that are about to be called.
            status: the cycle's batcher.
            behind: whether results of an earlier cycle are not saved. They are saved first, so that no more than the
                calls of one pass are ever without a record.

        Raises:
            StatusError: it could not be written, so nobody may be called.
            NotLeader: another process leads.
        """
        self._check_leader()
        intents = () if obj.spec.delivery == "AtLeastOnce" else intend(due, now=self._now())
        record_intents(status, intents)
        try:
            if intents or behind:
                await status.flush()
                self._check_leader()
        except BaseException:
            self._remember(obj.uid, intents)
            withdraw_intents(status, intents)
            raise
        return intents

    def without_unmade(
        self, obj: NotificationRequest, status: StatusBatcher[NotificationRequestStatus]
    ) -> NotificationRequestStatus:
        """Return the stored status without attempts that this process counted and then did not make; take them back.

        The time of an intent tells it from that of another process, whose call may have been made.
        """
        known = self._unmade.get(obj.uid)
        if known is None:
            return obj.status
        entries = obj.status.delivery_attempts
        withdraw_intents(status, [entry for entry in entries if entry in known])
        return obj.status.model_copy(update={"delivery_attempts": [entry for entry in entries if entry not in known]})

    def forget(self, uid: str) -> None:
        """Let go of a request that has ended."""
        self._unmade.pop(uid, None)

    def _remember(self, uid: str, intents: Sequence[DeliveryAttempt]) -> None:
        if not intents:
            return
        self._unmade[uid] = (*self._unmade.get(uid, ()), *intents)
        if len(self._unmade) > UNMADE_LIMIT:
            self._unmade.popitem(last=False)
