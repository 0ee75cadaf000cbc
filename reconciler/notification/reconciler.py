"""Carry requests through their passes: read, decide, deliver, record. The decisions themselves are in `_schedule`."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import ClassVar

from reconciler.clock import Clock, current_clock
from reconciler.controller import Outcome, Permission, ResourceReconciler, Result
from reconciler.errors import error_text
from reconciler.meta import Request
from reconciler.notification.api.types import (
    TERMINAL_PHASES,
    ChannelStatus,
    NotificationRequest,
    NotificationRequestStatus,
)
from reconciler.notification.channel import Channel, ChannelRegistry, installed_channels
from reconciler.notification.channels import ConsoleChannel, LogChannel
from reconciler.notification.delivery.deliverer import Deliverer, compose
from reconciler.notification.delivery.fair_queue import Turns
from reconciler.notification.delivery.schedule import (
    Decision,
    Delivery,
    Plan,
    channels_of,
    is_deferred,
    next_due,
    plan,
    settle,
)
from reconciler.notification.ledger.live_reads import Newest, delete_finished
from reconciler.notification.ledger.mutations import (
    MESSAGE_LIMIT,
    record,
    record_refusal,
    record_resolution,
    withdraw_intents,
)
from reconciler.notification.ledger.write_ahead import Intents
from reconciler.notification.observe.outbox import Announcer, NotificationStatistics, Observer, Outbox, Recorded
from reconciler.notification.redaction.redactor import Redactor
from reconciler.notification.routing.router import Resolution, Router, attributes_of
from reconciler.objects import InvalidObject
from reconciler.status import OnError, StatusBatcher, StatusError

__all__ = ["NotificationReconciler"]

WAIT_IN_PLACE = 0.05
"""A run that comes this many seconds before the due time waits for it, since another run would cost more. Timers and
wall clocks drift apart by less in a wait of the longest back-off."""

STALE_RETRY = 1.0
"""Seconds until a request is looked at again whose newest version this process has not seen yet. The event that brings
it comes first, as a rule."""

ROUTING_RETRY = 5.0
"""Seconds until a request is looked at again that has to wait for a routing configuration."""

UNSAVED_LIMIT = 500
"""Requests whose results could not be saved, from which on no other one is delivered. Far below what a controller keeps
(1000), for a result that is lost would mean a call that is made again."""

_SHORTEST = 0.001
"""Least seconds that a requeue may have."""


class _Waits(Exception):
    """The end of a pass in which every due channel waits for a turn: it has no outcome, so not even that is written."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__()
        self.outcome = outcome


class NotificationReconciler(ResourceReconciler[NotificationRequest]):
    """Deliver NotificationRequests over channels, and try again by each request's policy.

    ::

        reconciler = NotificationReconciler(channels=[ConsoleChannel(), FileChannel("/var/log/notifications")])
        manager.add_controller(reconciler, workers=10)

    Args:
        channels: what ``spec.channels`` can name. Defaults to console, log and what `installed_channels` finds. A
            `ChannelRegistry` is used as it is, so that channels can come and go.
        router: resolves requests that name no channels. Default: none, and such a request ends Failed.
        observers: hear of each pass once its status is written: audit, metrics. The events are told anyway.
        redactor: takes secrets out of everything that leaves. Default: what has the form of one.
        timeout: seconds that one delivery may take; then its outcome is unknown. Give a controller timeout, if any,
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
    permissions: ClassVar[Sequence[Permission] | None] = (Permission(NotificationRequest, "delete"),)

    def __init__(
        self,
        channels: Iterable[Channel] | ChannelRegistry | None = None,
        *,
        router: Router | None = None,
        observers: Iterable[Observer] = (),
        redactor: Redactor | None = None,
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
        self.channels = channels if isinstance(channels, ChannelRegistry) else ChannelRegistry(channels)
        self._router = router
        self._redactor = redactor or Redactor()
        self._deliverer = Deliverer(
            self.channels,
            timeout=timeout,
            max_concurrent=max_concurrent,
            redactor=self._redactor,
            now=self._now,
            clock=clock,
        )
        self._max_concurrent = max_concurrent
        self._turns_of: tuple[object, Turns] | None = None
        self._outbox = Outbox([Announcer(lambda: self.events), *observers])
        self._newest = Newest()
        self._intents = Intents(self._now, self.check_leader)
        self._rng = rng
        self._clock = clock
        self._wakes: dict[Request, datetime] = {}
        self._unsaved: set[Request] = set()
        self._open: dict[Request, tuple[str, StatusBatcher[NotificationRequestStatus]]] = {}
        self._counts: dict[str, int] = {}
        self._active = 0

    def statistics(self) -> NotificationStatistics:
        """Return the counts at this moment."""
        return NotificationStatistics(
            **self._counts,
            live_reads=self._newest.reads,
            active=self._active,
            waiting=sum(self.waiting().values()),
            untold=self._outbox.dropped,
        )

    def waiting(self) -> dict[str, int]:
        """Return how many requests wait for a turn on each channel on which any does."""
        return self._turns_of[1].lengths() if self._turns_of is not None else {}

    def fair_by(self, request: Request, /) -> str | None:
        """Return the namespace of a key: namespaces take turns at the workers."""
        return request.namespace

    def pool_size(self, workers: int, /) -> int:
        """Return twice the workers: so many for the deliveries of one namespace, and as many for the others."""
        return 2 * workers

    @property
    def clock_offset(self) -> timedelta:
        """Return how far the API server's clock is ahead of this machine's; see `Client.clock_offset`."""
        return self._binding.client.clock_offset if self._binding is not None else timedelta()

    async def reconcile(self, request: Request, /) -> Outcome:
        """Reconcile a key; a request that its model refuses ends Failed, since no repetition makes it valid.

        That takes a server which does not validate, or a definition of the kind older or laxer than this model.
        Cancellation: see `reconcile_object`.
        """
        saved = ended = True
        try:
            outcome = await super().reconcile(request)
        except _Waits as waits:
            return waits.outcome
        except StatusError:
            saved = ended = False
            raise
        except InvalidObject as error:
            async with StatusBatcher(
                self.client, NotificationRequest, name=request.name, namespace=request.namespace
            ) as status:
                record_refusal(status, self._redactor.brief(error_text(error), MESSAGE_LIMIT), now=self._now())
            return None
        except BaseException:
            ended = False
            raise
        finally:
            due = self._wakes.pop(request, None)
            self._commit(request, saved=saved)
            self._turns.release(request, stay=ended)
        # The controller counts a delay from here. The status write has taken its time since the delay was reckoned.
        return outcome if due is None or outcome is None else self._outcome(due)

    async def reconcile_object(
        self, obj: NotificationRequest, status: StatusBatcher[NotificationRequestStatus], /
    ) -> Outcome:
        """Run one pass: deliver what is due, or wait for the rest of the time.

        Cancellation records the deliveries that had ended or been sent; the others are no attempts and are made in a
        later run.
        """
        self._open[obj.key] = obj.uid, status
        before = self._intents.without_unmade(obj, status)
        if before.phase in TERMINAL_PHASES:
            return await self._retire(obj)
        if obj.spec.channels is None and not before.channels:
            if not await self._is_newest(obj, before):
                return Result(requeue_after=STALE_RETRY)
            resolution = self._resolve(obj)
            before = await self._freeze(obj, status, resolution)
            if resolution is not None and resolution.pending:
                return Result(requeue_after=ROUTING_RETRY)
        channels = channels_of(obj.spec, before)
        found = await self._plan(obj, channels, before)
        if not found.due:
            return self._wait(obj, channels, before, found, status)
        if due := self._take_turns(obj, found.due):
            return await self._deliver(obj, channels, before, due, status)
        wake = next_due(found.waiting, now=self._now(), in_line=self._turns.waiting(obj.key))
        raise _Waits(None if wake is None else self._outcome(wake))

    # The steps of a pass

    async def _deliver(
        self,
        obj: NotificationRequest,
        channels: Sequence[str],
        before: NotificationRequestStatus,
        due: Sequence[ChannelStatus],
        status: StatusBatcher[NotificationRequestStatus],
    ) -> Outcome:
        behind = obj.key in self._unsaved
        if not behind and len(self._unsaved) >= UNSAVED_LIMIT:
            return Result(requeue_after=STALE_RETRY)
        self._unsaved.add(obj.key)  # from now on there may be a result; `_commit` knows whether it was saved
        if not await self._is_newest(obj, before):
            return Result(requeue_after=STALE_RETRY)
        intents = await self._intents.announce(obj, due, status, behind=behind)
        results: list[Delivery] = []
        self._active += 1
        try:
            await self._deliverer.deliver(
                compose(obj, due, self._redactor),
                results,
                ended=lambda channel: self._turns.finish(obj.key, channel),
            )
        except BaseException:
            made = self._settle(obj, channels, before, results, status).attempts if results else ()
            withdraw_intents(status, intents, unless=made)
            raise
        finally:
            self._active -= 1
        decision = self._settle(obj, channels, before, results, status)
        withdraw_intents(status, intents, unless=decision.attempts)
        return self._next(obj, decision)

    @property
    def _turns(self) -> Turns:
        binding = self._binding
        assert binding is not None  # noqa: S101 - it reconciles
        if self._turns_of is None or self._turns_of[0] is not binding:
            turns = Turns(
                self.channels,
                workers=binding.workers,
                most=self._max_concurrent,
                wake=lambda request: binding.enqueue(request, "turn", priority=1),
                is_over=lambda: binding.loop is None,
            )
            self._turns_of = binding, turns
        return self._turns_of[1]

    def _take_turns(self, obj: NotificationRequest, due: Sequence[ChannelStatus]) -> Sequence[ChannelStatus]:
        """Return the channels to call now; for the others the request waits in line.

        A channel that is not there, or whose receiver is down, refuses at once, which is recorded: it shows in the
        status, and waiting for it has an end. Once it is recorded that the receiver is down, the request waits in line.
        """
        now = self._now()
        told = {channel.name for channel in due if is_deferred(channel, now=now)}
        refused = {
            channel.name
            for channel in due
            if channel.name not in self.channels or (channel.name not in told and self._turns.is_down(channel.name))
        }
        wanted = [channel.name for channel in due if channel.name not in refused]
        taken = self._turns.take(obj.key, obj.uid, obj.spec.priority, wanted, told=told)
        return [channel for channel in due if channel.name in taken | refused]

    def _resolve(self, obj: NotificationRequest) -> Resolution | None:
        if self._router is None:
            return None
        resolution = self._router.resolve(attributes_of(obj))
        return (
            replace(resolution, problem=self._redactor.redact(resolution.problem)) if resolution.problem else resolution
        )

    async def _freeze(
        self,
        obj: NotificationRequest,
        status: StatusBatcher[NotificationRequestStatus],
        resolution: Resolution | None,
    ) -> NotificationRequestStatus:
        """Write the channels of a request before its first call, so that no other configuration is ever asked."""
        after = record_resolution(status, obj.status, resolution, now=self._now())
        if resolution is not None and resolution.problem:
            self.events.warning(obj, "RoutingConfigurationRefused", resolution.problem)
        if after.channels:
            await status.flush()
            self._newest.remember(obj.uid, after)
        return after

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
            return self._next(obj, self._settle(obj, channels, before, (), status))
        if found.wait is None:
            return None
        self._count("early")
        return Result(requeue_after=max(found.wait, _SHORTEST))

    async def _is_newest(self, obj: NotificationRequest, status: NotificationRequestStatus) -> bool:
        if await self._newest.is_newest(self.client, obj, status):
            return True
        self._count("stale")
        return False

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
            self._newest.remember(obj.uid, decision.status)
        else:
            self._newest.forget(obj.uid)
            self._intents.forget(obj.uid)
        record(status, before, decision)
        tried = {delivery.channel for delivery in results}
        made = Recorded(
            request=obj,
            before=before,
            after=decision.status,
            attempts=decision.attempts,
            deferred=tuple(
                channel.name
                for channel in decision.status.channels
                if channel.name in tried and channel.reason == "Deferred"
            ),
        )
        self._outbox.add(made)
        self._count_in(made)
        return decision

    async def _retire(self, obj: NotificationRequest) -> Outcome:
        """Delete a request whose time after its end is over; wait for it otherwise."""
        ttl, ended = obj.spec.ttl_seconds_after_finished, obj.status.completion_time
        if ttl is None or ended is None:
            return None
        expires = ended + timedelta(seconds=ttl)
        if expires > self._now():
            return self._outcome(expires)
        deleted = await delete_finished(self.client, obj)
        if deleted is None:
            return Result(requeue_after=STALE_RETRY)
        if deleted:
            self._count("expired")
        return None

    # What others hear

    def _commit(self, request: Request, *, saved: bool) -> None:
        """Tell of what is durable now; what could not be written is told with the cycle that writes it."""
        uid, status = self._open.pop(request, ("", None))
        if not saved or (status is not None and status.failure is not None):
            self._unsaved.add(request)
            return
        self._unsaved.discard(request)
        self._outbox.commit(uid)

    def _count_in(self, made: Recorded) -> None:
        for attempt in made.attempts:
            self._count("delivered" if attempt.result == "success" else "failed")
        for _ in made.deferred:
            self._count("deferred")
        if made.finished:
            self._count("finished")

    def _count(self, what: str) -> None:
        self._counts[what] = self._counts.get(what, 0) + 1

    # Small things

    def _next(self, obj: NotificationRequest, decision: Decision) -> Outcome:
        if decision.next_due is not None:
            in_line = self._turns.waiting(obj.key)
            due = next_due(decision.status.channels, now=self._now(), in_line=in_line)
            if due is None:
                return None
            self._wakes[obj.key] = due
            return self._outcome(due)
        ttl = obj.spec.ttl_seconds_after_finished
        return None if ttl is None else Result(requeue_after=max(float(ttl), _SHORTEST))

    def _outcome(self, due: datetime) -> Outcome:
        return Result(requeue_after=max((due - self._now()).total_seconds(), _SHORTEST), priority=0)

    def _now(self) -> datetime:
        """Return the API server's time: another machine may act upon what is stored."""
        return (self._clock or current_clock()).now() + self.clock_offset
