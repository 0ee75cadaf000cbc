"""Carry requests through their passes: read, decide, deliver, record. The decisions themselves are in `_schedule`."""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from reconciler.clock import Clock, current_clock
from reconciler.controller import Outcome, ResourceReconciler, Result
from reconciler.errors import NotFound
from reconciler.meta import Request, equal
from reconciler.notification._channel import Channel, ChannelRegistry, installed_channels
from reconciler.notification._console import ConsoleChannel
from reconciler.notification._delivery import Deliverer
from reconciler.notification._log import LogChannel
from reconciler.notification._message import Message
from reconciler.notification._record import record, record_refusal
from reconciler.notification._resource import (
    ChannelStatus,
    NotificationRequest,
    NotificationRequestStatus,
)
from reconciler.notification._schedule import Decision, Delivery, Plan, channels_of, plan, settle
from reconciler.objects import InvalidObject
from reconciler.status import OnError, StatusBatcher

__all__ = ["NotificationReconciler", "NotificationStatistics"]

WAIT_IN_PLACE = 0.05
"""A run that comes this many seconds before the due time waits for it, since another run would cost more. Timers and
wall clocks drift apart by less in a wait of the longest back-off."""

STALE_RETRY = 1.0
"""Seconds until a request is looked at again whose newest version this process has not seen yet. The event that brings
it comes first, as a rule."""

KNOWN_LIMIT = 100_000
"""Requests whose progress is remembered; one that was forgotten costs one more read from the server."""

_SHORTEST = 0.001
"""Least seconds that a requeue may have."""


@dataclass(frozen=True, slots=True)
class NotificationStatistics:
    """Count what a reconciler did since it was made.

    Attributes:
        delivered: attempts that delivered.
        failed: attempts that failed.
        deferred: deliveries that were put off without an attempt.
        early: runs that came before anything was due, and did nothing.
        stale: runs that were put off because the server had a newer version.
        live_reads: reads from the server before a first delivery.
        finished: requests that reached a terminal phase.
    """

    delivered: int = 0
    failed: int = 0
    deferred: int = 0
    early: int = 0
    stale: int = 0
    live_reads: int = 0
    finished: int = 0


class NotificationReconciler(ResourceReconciler[NotificationRequest]):
    """Deliver NotificationRequests over channels, and try again by each request's policy.

    ::

        reconciler = NotificationReconciler(channels=[ConsoleChannel(), FileChannel("/var/log/notifications")])
        manager.add_controller(reconciler, workers=10)

    Args:
        channels: what ``spec.channels`` can name. Defaults to console, log and what `installed_channels` finds.
        timeout: seconds that one delivery may take; then it is a failed attempt. Give a controller timeout, if any,
            that is longer: a reconcile that is cancelled has made no attempt, so it would be repeated for ever.
        max_concurrent: most deliveries at a time over all requests.
        rng: source of the jitter; pass a seeded one for repeatable delays.
        clock: defaults to the clock in force at each use.

    Raises:
        ConfigurationError: two channels have the same name, or one cannot serve.
        ValueError: `timeout` or `max_concurrent` is not above 0.
    """

    # A pass is recorded in one piece, so what was recorded before a cancellation is true as well.
    status_on_error: ClassVar[OnError] = "flush"

    def __init__(
        self,
        channels: Iterable[Channel] | None = None,
        *,
        timeout: float = 30.0,
        max_concurrent: int = 64,
        rng: random.Random | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__()
        if not (timeout > 0 and max_concurrent > 0):
            raise ValueError(f"timeout and max_concurrent must be above 0, not {timeout!r} and {max_concurrent!r}")
        if channels is None:
            channels = [ConsoleChannel(), LogChannel(), *installed_channels()]
        self.channels = ChannelRegistry(channels)
        self._deliverer = Deliverer(self.channels, timeout=timeout, max_concurrent=max_concurrent, clock=clock)
        self._rng = rng
        self._clock = clock
        self._known: OrderedDict[str, _Progress] = OrderedDict()
        self._wakes: dict[Request, datetime] = {}
        self._counts: dict[str, int] = {}

    def statistics(self) -> NotificationStatistics:
        """Return the counts at this moment."""
        return NotificationStatistics(**self._counts)

    async def reconcile(self, request: Request, /) -> Outcome:
        """Reconcile a key; a request that its model refuses ends Failed, since no repetition makes it valid.

        That takes a server which does not validate, or a definition of the kind older or laxer than this model.
        Cancellation: see `reconcile_object`.
        """
        try:
            outcome = await super().reconcile(request)
        except InvalidObject as error:
            async with StatusBatcher(
                self.client, NotificationRequest, name=request.name, namespace=request.namespace
            ) as status:
                record_refusal(status, error, now=self._now())
            return None
        finally:
            next_due = self._wakes.pop(request, None)
        # The controller counts a delay from here. The status write has taken its time since the delay was reckoned.
        return outcome if next_due is None or outcome is None else self._outcome(next_due)

    async def reconcile_object(
        self, obj: NotificationRequest, status: StatusBatcher[NotificationRequestStatus], /
    ) -> Outcome:
        """Run one pass: deliver what is due, or wait for the rest of the time.

        Cancellation records the deliveries that had ended; the others are no attempts and are made in a later run.
        """
        before = obj.status
        channels = channels_of(obj.spec, before)
        found = await self._plan(obj, channels, before)
        if not found.due:
            return self._wait(obj, channels, before, found, status)
        if not await self._is_newest(obj, before):
            self._count("stale")
            return Result(requeue_after=STALE_RETRY)
        results: list[Delivery] = []
        try:
            await self._deliverer.deliver([_message(obj, channel) for channel in found.due], results)
        except BaseException:
            if results:
                self._settle(obj, channels, before, results, status)
            raise
        return self._outcome(self._settle(obj, channels, before, results, status).next_due)

    async def _plan(self, obj: NotificationRequest, channels: Sequence[str], status: NotificationRequestStatus) -> Plan:
        """Say what is due; what is due in a moment is waited for."""
        found = plan(obj.spec, channels, status, now=self._now())
        if found.wait is not None and found.wait <= WAIT_IN_PLACE and not found.amend:
            await asyncio.sleep(found.wait)
            found = plan(obj.spec, channels, status, now=self._now())
        return found

    def _wait(
        self,
        obj: NotificationRequest,
        channels: Sequence[str],
        before: NotificationRequestStatus,
        found: Plan,
        status: StatusBatcher[NotificationRequestStatus],
    ) -> Outcome:
        if found.amend:
            return self._outcome(self._settle(obj, channels, before, (), status).next_due)
        if found.wait is None:
            return None
        self._count("early")
        return Result(requeue_after=max(found.wait, _SHORTEST))

    async def _is_newest(self, obj: NotificationRequest, status: NotificationRequestStatus) -> bool:
        """Say whether nobody has gone further with the request than the version in hand tells.

        A cache can lag behind, after a fail-over above all, and a delivery cannot be taken back. What this process
        recorded last needs no question; anything else costs one read from the server.
        """
        if self._known.get(obj.uid) == _progress(status):
            return True
        self._count("live_reads")
        try:
            newest = await self.client.live.get(NotificationRequest, obj.name, obj.namespace)
        except NotFound:
            return False
        if newest.uid != obj.uid or newest.metadata.deletion_timestamp is not None:
            return False
        return newest.resource_version == obj.resource_version or equal(
            newest.to_dict().get("status"), obj.to_dict().get("status")
        )

    def _settle(
        self,
        obj: NotificationRequest,
        channels: Sequence[str],
        before: NotificationRequestStatus,
        results: Sequence[Delivery],
        status: StatusBatcher[NotificationRequestStatus],
    ) -> Decision:
        decision = settle(obj.spec, channels, before, results, now=self._now(), rng=self._rng)
        if decision.next_due is not None:
            self._wakes[obj.key] = decision.next_due
        record(status, before, decision)
        self._remember(obj, decision, {delivery.channel for delivery in results})
        self._tell(obj, before, decision.status)
        return decision

    def _remember(self, obj: NotificationRequest, decision: Decision, tried: AbstractSet[str]) -> None:
        for attempt in decision.attempts:
            self._count("delivered" if attempt.result == "success" else "failed")
        for channel in decision.status.channels:
            if channel.name in tried and channel.reason == "Deferred":
                self._count("deferred")
        if decision.next_due is None:
            self._count("finished")
            self._known.pop(obj.uid, None)
            return
        self._known[obj.uid] = _progress(decision.status)
        self._known.move_to_end(obj.uid)
        if len(self._known) > KNOWN_LIMIT:
            self._known.popitem(last=False)

    def _tell(
        self, obj: NotificationRequest, before: NotificationRequestStatus, after: NotificationRequestStatus
    ) -> None:
        """Emit an Event when the phase changed; a repeated run of the same pass changes nothing any more."""
        if after.phase == before.phase:
            return
        tell = self.events.warning if after.phase in {"Failed", "PartiallySent"} else self.events.normal
        tell(obj, after.reason or "", after.message or "")

    def _outcome(self, next_due: datetime | None) -> Outcome:
        if next_due is None:
            return None
        return Result(requeue_after=max((next_due - self._now()).total_seconds(), _SHORTEST))

    def _now(self) -> datetime:
        return (self._clock or current_clock()).now()

    def _count(self, what: str) -> None:
        self._counts[what] = self._counts.get(what, 0) + 1


_Progress = frozenset[tuple[str, str, int, datetime | None]]
"""What tells how far the channels of a request are; it never comes back to an earlier value."""


def _progress(status: NotificationRequestStatus) -> _Progress:
    return frozenset(
        (channel.name, channel.state, channel.attempts, channel.next_attempt_time) for channel in status.channels
    )


def _message(obj: NotificationRequest, channel: ChannelStatus) -> Message:
    return Message(
        name=obj.name,
        namespace=obj.namespace or "",
        uid=obj.uid,
        type=obj.spec.type,
        priority=obj.spec.priority,
        subject=obj.spec.subject,
        body=obj.spec.body,
        channel=channel.name,
        attempt=channel.attempts + 1,
    )
