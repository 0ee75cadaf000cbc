"""The reconciler of NotificationRequests: read, decide, deliver, record. `schedule` makes the decisions."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import ClassVar

from reconciler._core.durations import DurationLike, seconds_of
from reconciler._core.lru import LRU
from reconciler.clock import Clock, current_clock
from reconciler.controller import Outcome, Permission, ResourceReconciler, Result
from reconciler.controller.reconcile.cycle import current_reconcile
from reconciler.errors import error_text
from reconciler.meta import Request
from reconciler.notification.api import (
    TERMINAL_PHASES,
    ChannelStatus,
    DeliveryAttempt,
    NotificationRequest,
    NotificationRequestStatus,
)
from reconciler.notification.channel import Channel, ChannelRegistry, installed_channels
from reconciler.notification.channels.limits import Pacer
from reconciler.notification.channels.local import ConsoleChannel, LogChannel
from reconciler.notification.delivery import (
    MESSAGE_LIMIT,
    Deliverer,
    Progress,
    RequestStatusBatcher,
    attempts_ahead,
    build_messages,
    delete_finished,
    is_too_large,
    is_up_to_date,
    progress_of,
    recipients_of,
    remove_write_ahead,
    routing_failure,
    set_change,
    set_ended,
    set_failed,
    set_routing,
    set_routing_condition,
    upsert_attempt,
)
from reconciler.notification.fair_queue import FairQueue
from reconciler.notification.observers import (
    AttemptLog,
    EventEmitter,
    NotificationStatistics,
    Observer,
    Outbox,
)
from reconciler.notification.policies import KeysByNamespace, PolicyRefusal, PolicyTable, may_deliver
from reconciler.notification.redaction import Redactor
from reconciler.notification.router import Resolution, Router, attributes_of, fallback_reason
from reconciler.notification.schedule import (
    Delivery,
    Plan,
    StatusChange,
    after_completion,
    channels_of,
    is_deferred,
    next_due,
    plan,
    settle,
)
from reconciler.objects import InvalidObject
from reconciler.status import StatusBatcher, StatusConflict, StatusError, StatusInvalid, StatusTooLarge
from reconciler.status.strategies import OnError

WAIT_IN_PLACE = 0.05
"""A reconcile at most this many seconds before the due time waits for it, which is cheaper than another reconcile.
Timers and wall clocks drift apart by less during the longest backoff."""

STALE_RETRY = 1.0
"""Seconds until a request is reconciled again whose latest version is not in the cache yet. Usually the watch event of
that version comes first."""

ROUTING_RETRY = 5.0
"""Seconds until a request that waits for a routing configuration is reconciled again."""

GIVEN_UP_LIMIT = 10_000
"""Maximum requests that are remembered because not even their end could be saved. A forgotten one is called again."""

PROGRESS_LIMIT = 100_000
"""Maximum requests whose progress is remembered. A forgotten one costs one more read from the server."""

UNCALLED_LIMIT = 10_000
"""Maximum requests whose attempts without a call are remembered: written ahead, in a write that failed with an unknown
outcome or finished too late. Without this memory they would look like the calls of a process that died."""

_MIN_REQUEUE = 0.001
"""Minimum seconds of a requeue, which must be above 0."""


class _AllQueued(Exception):
    """Raised to end a reconcile in which all due channels wait for a slot, so that nothing at all is written."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__()
        self.outcome = outcome


@dataclass(frozen=True, slots=True)
class _NotStarted:
    """The outcome of a reconcile that does not start the deliveries of a request."""

    outcome: Outcome


@dataclass(slots=True)
class _CurrentRequest:
    """A request while it is reconciled.

    Attributes:
        obj: the request, as the reconcile read it.
        key: its name and namespace.
        uid: its uid.
        status: the batcher of its status.
        before: its status without attempts that were never made, and with the channels once it is routed.
        due: when it must be reconciled again for its next delivery; None if there is none.
    """

    obj: NotificationRequest
    key: Request
    uid: str
    status: RequestStatusBatcher
    before: NotificationRequestStatus
    due: datetime | None = None


class NotificationReconciler(ResourceReconciler[NotificationRequest]):
    """A reconciler that delivers NotificationRequests over channels, and retries by each request's policy.

    ::

        reconciler = NotificationReconciler(channels=[ConsoleChannel(), FileChannel("/var/log/notifications")])
        manager.add_controller(reconciler, workers=10)

    Args:
        channels: the channels that ``spec.channels`` can name. Default: console, log, and the result of
            `installed_channels`. A `ChannelRegistry` is used as it is, so channels can be added and removed later.
        router: resolves requests that name no channels. Default: none, and such requests end ``Failed``.
        observers: called after each status write, such as audit and metrics. Events are emitted in any case.
        redactor: removes secrets from everything that leaves the process. Default: removes what looks like a secret.
        timeout: the duration (seconds, a timedelta or ``"30s"``) that one delivery may take; then its outcome is
            unknown. A controller timeout, if any, must be longer: a cancelled reconcile makes no attempt, so it would
            be repeated endlessly.
        max_concurrent: maximum concurrent deliveries over all requests.
        fallback: name of the channel for requests that name no channels and for which routing selects none. Default:
            none, and such requests end ``Failed``.
        policies: what the namespaces may do. Default: everything.
        rng: source of the jitter; pass a seeded one for repeatable delays.
        clock: gives the time of attempts. Default: `current_clock()` at each use.

    Raises:
        ConfigurationError: two channels have the same name, or a channel is invalid.
        ValueError: `timeout` or `max_concurrent` is not above 0.
    """

    # A reconcile records its results in one step, so what was recorded before a cancellation is complete.
    status_on_error: ClassVar[OnError] = "flush"
    permissions: ClassVar[Sequence[Permission] | None] = (Permission(NotificationRequest, "delete"),)

    def __init__(
        self,
        channels: Iterable[Channel] | ChannelRegistry | None = None,
        *,
        router: Router | None = None,
        observers: Iterable[Observer] = (),
        redactor: Redactor | None = None,
        timeout: DurationLike = 30.0,
        max_concurrent: int = 64,
        fallback: str | None = None,
        policies: PolicyTable | None = None,
        rng: random.Random | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__()
        timeout = seconds_of("timeout", timeout)
        if max_concurrent < 1:
            raise ValueError(f"max_concurrent must be 1 or more, not {max_concurrent!r}")
        if channels is None:
            channels = [ConsoleChannel(), LogChannel(), *installed_channels()]
        self.channels = channels if isinstance(channels, ChannelRegistry) else ChannelRegistry(channels)
        self._router = router
        self._fallback = fallback
        self._policies = policies or PolicyTable()
        self._redactor = redactor or Redactor()
        self._deliverer = Deliverer(
            self.channels,
            timeout=timeout,
            redactor=self._redactor,
            now=self._now,
        )
        self._max_concurrent = max_concurrent
        self._slots: FairQueue | None = None
        self._outbox = Outbox([EventEmitter(self), AttemptLog(), *observers])
        self._quota_events = Pacer(60)
        self._refusals: LRU[Request, str] = LRU(GIVEN_UP_LIMIT)  # of requests whose latest delivery was deferred
        self._written: LRU[str, Progress] = LRU(PROGRESS_LIMIT)  # of the status that this process wrote last
        self._uncalled: LRU[str, tuple[DeliveryAttempt, ...]] = LRU(UNCALLED_LIMIT)
        self._rng = rng
        self._clock = clock
        self._unsaved = KeysByNamespace()
        self._given_up: LRU[str, None] = LRU(GIVEN_UP_LIMIT)
        self._open: dict[Request, _CurrentRequest] = {}
        self._counts: Counter[str] = Counter()
        self._active = 0

    def statistics(self) -> NotificationStatistics:
        """Return the current counts."""
        return NotificationStatistics(
            **self._counts,
            **self._outbox.counts,
            active=self._active,
            waiting=sum(self.waiting().values()),
            unpublished=self._outbox.dropped,
        )

    def waiting(self) -> dict[str, int]:
        """Return the number of requests that wait for a delivery slot, by channel."""
        return self._slots.lengths() if self._slots is not None else {}

    def fair_by(self, request: Request, /) -> str | None:
        """Return the namespace of a key: workers are shared fairly between namespaces."""
        return request.namespace

    def waits_for(self, request: Request, /) -> str | None:
        """Return which channel or policy makes a request wait."""
        queued = None if self._slots is None else self._slots.waits_for(request)
        return queued or self._refusals.get(request)

    def pool_size(self, workers: int, /) -> int:
        """Return twice the workers: as many for the deliveries of one namespace as for all others."""
        return 2 * workers

    @property
    def clock_offset(self) -> timedelta:
        """Return how far the API server's clock is ahead of this machine's; see `Client.clock_offset`."""
        return self._binding.client.clock_offset if self._binding is not None else timedelta()

    async def reconcile(self, request: Request, /) -> Outcome:
        """Reconcile a key. A request that the model rejects ends ``Failed``, because no retry makes it valid.

        That happens if the API server does not validate, or if its CRD is older or less strict than the model.
        Cancellation: see `reconcile_object`.
        """
        saved = ended = True
        try:
            outcome = await super().reconcile(request)
        except _AllQueued as queued:
            return queued.outcome
        except StatusError as error:
            saved = ended = False
            if not isinstance(error, (StatusInvalid, StatusTooLarge)):
                raise
            outcome = await self._fail_unsaved(request, error)
            saved = True
        except InvalidObject as error:
            await self._fail_invalid(request, error)
            return None
        except BaseException:
            ended = False
            raise
        finally:
            current = self._open.pop(request, None)
            if current is None:
                self._policies.unfinished.discard(request)  # the object is gone, or is being deleted
            self._publish(request, current, saved=saved)
            self._queue.release_all(request, keep_queued=ended)
        if current is None or current.due is None:
            return outcome
        # The controller counts the delay from here, and the status write has taken time since it was computed.
        return self._requeue_at(current.due)

    async def reconcile_object(self, obj: NotificationRequest, status: RequestStatusBatcher, /) -> Outcome:
        """Deliver to the channels that are due, or wait until some are.

        If cancelled, deliveries that have ended or been sent are recorded. The others do not count as attempts and are
        made by a later reconcile.
        """
        # Read
        key, uid = obj.key, obj.metadata.uid
        if uid in self._given_up:
            return None
        current = self._open[key] = _CurrentRequest(obj, key, uid, status, self._without_uncalled(obj, uid, status))
        if current.before.phase in TERMINAL_PHASES:
            self._policies.unfinished.discard(key)
            return await self._expire(obj)
        if not current.before.channels:
            not_started = await self._start(current)
            if not_started is not None:
                return not_started.outcome
        if obj.spec.dry_run:
            return self._end_dry_run(current)
        self._policies.unfinished.add(key)
        # Decide
        now, found = await self._plan(current)
        if not found.due:
            return self._wait(current, found)
        due = self._acquire_slots(current, found.due, now)
        if not due:
            self._report_quota(obj)
            wake = next_due(found.waiting, now=now, queued=self._queue.queued(key))
            raise _AllQueued(None if wake is None else self._requeue_at(wake))
        # Deliver and record
        return await self._deliver(current, due)

    # Read

    def _without_uncalled(
        self, obj: NotificationRequest, uid: str, status: RequestStatusBatcher
    ) -> NotificationRequestStatus:
        """Return the stored status without attempts that this process wrote ahead and never made; remove them as well.

        The timestamp distinguishes them from attempts of other processes, whose calls may have been made.
        """
        uncalled = self._uncalled.get(uid)
        if uncalled is None:
            return obj.status
        attempts = obj.status.delivery_attempts
        remove_write_ahead(status, [attempt for attempt in attempts if attempt in uncalled])
        made = [attempt for attempt in attempts if attempt not in uncalled]
        return obj.status.model_copy(update={"delivery_attempts": made})

    async def _start(self, current: _CurrentRequest) -> _NotStarted | None:
        """Check and route a request that has no channels yet; return None once its deliveries can start."""
        if not self._policies.is_complete:
            return _NotStarted(Result(requeue_after=STALE_RETRY))
        obj, spec = current.obj, current.obj.spec
        resolution = self._resolve(obj) if spec.channels is None else None
        channels = spec.channels or (resolution.channels if resolution is not None else ())
        refusal = self._policies.refusal(current.key.namespace or "", spec, channels)
        refusal = refusal or self._policies.quota_refusal(current.key)
        if refusal is None and is_too_large(obj, channels):
            message = "Not delivered because the request is too large to record all its attempts"
            refusal = PolicyRefusal("RequestTooLarge", message)
        if refusal is None and spec.channels is not None:
            return None
        failure = routing_failure(resolution)
        if resolution is not None and refusal is None and failure is None:
            is_latest = await self._save_routing(current, resolution)
        else:
            is_latest = await self._is_up_to_date(current)
        if not is_latest:
            return _NotStarted(Result(requeue_after=STALE_RETRY))
        if refusal is not None:
            return _NotStarted(self._end(current, phase="Failed", reason=refusal.reason, message=refusal.message))
        if failure is not None:
            set_routing_condition(current.status, *failure)
        if resolution is not None and resolution.problem:
            self.events.warning(obj, "RoutingConfigurationRefused", resolution.problem)
        if resolution is not None and resolution.fallback:
            text = f"channel {', '.join(resolution.channels)} is used: {resolution.fallback}"
            self.events.warning(obj, "RoutingFallback", text)
        pending = resolution is not None and resolution.pending
        return _NotStarted(Result(requeue_after=ROUTING_RETRY)) if pending else None

    def _resolve(self, obj: NotificationRequest) -> Resolution | None:
        found = None if self._router is None else self._router.resolve(attributes_of(obj))
        if self._fallback is not None and (reason := fallback_reason(found)):
            found = Resolution(channels=(self._fallback,), fallback=reason)
        if found is None:
            return None
        problem, fallback = (
            self._redactor.redact(text, obj.namespace or "") for text in (found.problem, found.fallback)
        )
        return replace(found, problem=problem, fallback=fallback)

    def _end(self, current: _CurrentRequest, **members: str) -> Outcome:
        """End a request without a delivery, with these members of its status."""
        now = self._now()
        step, step_time = after_completion(now, current.obj.spec.ttl_seconds_after_finished)
        after = current.before.model_copy(
            update={**members, "completion_time": now, "next_step": step, "next_step_time": step_time}
        )
        set_ended(current.status, after)
        self._outbox.add(StatusChange(request=current.obj, before=current.before, after=after))
        self._policies.unfinished.discard(current.key)
        return self._expiry(current.obj)

    def _end_dry_run(self, current: _CurrentRequest) -> Outcome:
        names = channels_of(current.obj.spec, current.before)
        unknown = [name for name in names if name not in self.channels]
        would = "; ".join(
            name + (f" to {', '.join(recipients)}" if recipients else "")
            for name in names
            if name not in unknown
            for recipients in [recipients_of(current.obj, name)]
        )
        message = f"Dry run: would deliver over {would or 'no channel'}"
        message += f"; unknown channels: {', '.join(unknown)}" if unknown else ""
        return self._end(current, phase="DryRun", reason="DryRun", message=message[:MESSAGE_LIMIT])

    async def _save_routing(self, current: _CurrentRequest, resolution: Resolution) -> bool:
        """Write the channels of a request before its first delivery, so that later routing changes do not affect it.

        Returns False as `_flush_ahead` does.
        """
        channels = [ChannelStatus(name=name, reason="Routed") for name in resolution.channels]
        routed = current.before.model_copy(update={"channels": channels, "queued_at": self._now()})
        if not await self._flush_ahead(current, lambda intent: set_routing(intent, routed, resolution)):
            return False
        current.before = routed
        self._written[current.uid] = progress_of(routed)
        return True

    async def _is_up_to_date(self, current: _CurrentRequest) -> bool:
        """Return whether no other process has made progress; read from the server unless this one wrote the status."""
        written = self._written.get(current.uid)
        if written is not None and written == progress_of(current.before):
            return True
        self._counts["live_reads"] += 1
        if await is_up_to_date(self.client, current.key, current.obj):
            return True
        self._counts["stale"] += 1
        return False

    # Decide

    async def _plan(self, current: _CurrentRequest) -> tuple[datetime, Plan]:
        """Find out what is due, after a short wait if that is enough; return the time as well."""
        now = self._now()
        found = plan(current.obj.spec, current.before, now=now)
        if found.wait is not None and found.wait <= WAIT_IN_PLACE and not found.needs_repair:
            await asyncio.sleep(found.wait)
            now = self._now()
            found = plan(current.obj.spec, current.before, now=now)
        return now, found

    def _wait(self, current: _CurrentRequest, found: Plan) -> Outcome:
        if found.needs_repair:
            return self._requeue(current, self._record(current, ()))
        if found.wait is None:
            return None
        self._counts["early"] += 1
        return Result(requeue_after=max(found.wait, _MIN_REQUEUE))

    def _report_quota(self, obj: NotificationRequest) -> None:
        """Record an Event on a request that waits for a quota; of many requests, on one a second."""
        quota = self._policies.rate_refusal(obj.namespace or "")
        if quota is not None and self._quota_events.wait() <= 0:
            self._quota_events.charge()
            self.events.normal(obj, "WaitsForQuota", quota.partition(";")[0])  # without the seconds, it is counted

    @property
    def _queue(self) -> FairQueue:
        """Return the queue for delivery slots; a new one whenever the reconciler is added to another controller."""
        binding = self._binding
        assert binding is not None  # noqa: S101 - it reconciles
        if self._slots is None or self._slots.binding is not binding:
            self._slots = FairQueue(
                self.channels, binding, max_deliveries=self._max_concurrent, policies=self._policies
            )
        return self._slots

    def _acquire_slots(
        self, current: _CurrentRequest, due: Sequence[ChannelStatus], now: datetime
    ) -> Sequence[ChannelStatus]:
        """Return the channels to call now; the request waits in the queues of the others."""
        acquired = self._queue.acquire(
            current.key,
            current.obj.spec.priority,
            [channel.name for channel in due],
            outage_recorded={channel.name for channel in due if is_deferred(channel, now=now)},
        )
        return [channel for channel in due if channel.name in acquired]

    # Deliver

    async def _deliver(self, current: _CurrentRequest, due: Sequence[ChannelStatus]) -> Outcome:
        key, status = current.key, current.status
        has_unsaved_results = key in self._unsaved
        if not may_deliver(key, self._unsaved):
            return Result(requeue_after=STALE_RETRY)
        self._unsaved.add(key)  # from here on there may be a result; `_publish` removes the key once it is saved
        ahead: Sequence[DeliveryAttempt] = ()
        if current.obj.spec.delivery != "AtLeastOnce":
            ahead = attempts_ahead(due, now=self._now())
        elif not await self._is_up_to_date(current):
            return Result(requeue_after=STALE_RETRY)
        self.check_leader()
        if (ahead or has_unsaved_results) and not await self._write_ahead(current, ahead):
            return Result(requeue_after=STALE_RETRY)
        results: list[Delivery] = []
        self._active += 1
        try:
            await self._deliverer.deliver(
                build_messages(current.obj, due, self._redactor),
                results,
                ended=lambda channel: self._queue.release(key, channel),
            )
        except BaseException:
            made = self._record(current, results).attempts if results else ()
            remove_write_ahead(status, ahead, except_for=made)
            raise
        finally:
            self._active -= 1
        change = self._record(current, results)
        remove_write_ahead(status, ahead, except_for=change.attempts)
        return self._requeue(current, change)

    async def _write_ahead(self, current: _CurrentRequest, attempts: Sequence[DeliveryAttempt]) -> bool:
        """Write what the status must hold before the calls: these attempts, and results that are not saved yet.

        So at most the calls of one reconcile are unrecorded at any time. If it fails or is cancelled, the attempts are
        removed again by this reconcile's flush or by the next reconcile. Returns False as `_flush_ahead` does.

        Raises:
            StatusError: the write failed, so no channel may be called.
            NotLeader: another process is the leader.
        """
        is_latest = False
        try:
            is_latest = await self._flush_ahead(current, lambda intent: intent.record(*map(upsert_attempt, attempts)))
        finally:
            if not is_latest:
                if attempts:
                    self._uncalled[current.uid] = (*self._uncalled.get(current.uid, ()), *attempts)
                remove_write_ahead(current.status, attempts)
        return is_latest

    async def _flush_ahead(self, current: _CurrentRequest, record: Callable[[RequestStatusBatcher], object]) -> bool:
        """Write what must be stored before the calls; return False if the request is not at the version that was read.

        Such a write finds out what a read from the server would have found out: progress of another process, and the
        deletion of the request. If it fails, what `record` recorded is withdrawn.
        """
        is_latest = False
        with contextlib.suppress(StatusConflict):
            async with StatusBatcher(self.client, current.obj, on_error="discard") as intent:  # joins `status`
                record(intent)
                await intent.flush()
            is_latest = not current.status.statistics().dropped
        self.check_leader()
        self._counts["stale"] += not is_latest
        return is_latest

    # Record

    def _record(self, current: _CurrentRequest, results: Sequence[Delivery]) -> StatusChange:
        """Compute the new status from the results, and record it on the batcher and in the outbox."""
        now = max([each.ended for each in results], default=None) or self._now()
        change = settle(current.obj, current.before, results, now=now, rng=self._rng)
        key, uid = current.key, current.uid
        if change.after.phase not in TERMINAL_PHASES:
            self._written[uid] = progress_of(change.after)
        else:
            self._written.pop(uid, None)
            self._uncalled.pop(uid, None)
            self._policies.unfinished.discard(key)
        set_change(current.status, change)
        self._refusals.pop(key, None)
        if change.deferred:
            errors = [channel.last_error or "" for channel in change.after.channels if channel.name in change.deferred]
            self._refusals[key] = "; ".join(errors)
        self._outbox.add(change)
        return change

    async def _fail_invalid(self, request: Request, error: InvalidObject) -> None:
        text = f"Not delivered because the request is invalid: {error_text(error)}"
        async with StatusBatcher(
            self.client, NotificationRequest, name=request.name, namespace=request.namespace, strategy="update"
        ) as status:
            set_failed(
                status,
                "InvalidSpec",
                self._redactor.brief(text, MESSAGE_LIMIT, request.namespace or ""),
                now=self._now(),
            )

    async def _fail_unsaved(self, request: Request, error: StatusError) -> Outcome:
        """End a request whose status the server refuses and would refuse again, with a status that fits.

        If the server refuses even that, this process does not deliver the request again.
        """
        read = await self.client.peek(NotificationRequest, request)
        if read is None:
            return None
        obj = read.read_as(NotificationRequest, lenient=True)
        cycle = current_reconcile()
        if cycle is not None:
            cycle.take_unsaved(obj.uid)  # otherwise they would be written with the end, and be refused again
            cycle.unsaved.unblock(request)
        text = self._redactor.brief(
            f"Not delivered further because its status is refused: {error_text(error)}", 512, request.namespace or ""
        )
        try:
            async with StatusBatcher(self.client, obj, strategy="update") as status:
                set_failed(status, "StatusRefused", text, now=self._now())
                status.set(overwrite=True, delivery_attempts=[])
        except (StatusInvalid, StatusTooLarge):
            self._given_up[obj.uid] = None
        self._open.pop(request, None)
        self._outbox.publish(obj.uid)
        return self._expiry(obj)

    async def _expire(self, obj: NotificationRequest) -> Outcome:
        """Delete a finished request after ``ttlSecondsAfterFinished``, or wait until then."""
        ttl, ended = obj.spec.ttl_seconds_after_finished, obj.status.completion_time
        if ttl is None or ended is None:
            return None
        expires = ended + timedelta(seconds=ttl)
        if expires > self._now():
            return self._requeue_at(expires)
        deleted = await delete_finished(self.client, obj)
        if deleted is None:
            return Result(requeue_after=STALE_RETRY)
        if deleted:
            self._counts["expired"] += 1
        return None

    def _publish(self, request: Request, current: _CurrentRequest | None, *, saved: bool) -> None:
        """Notify the observers of what was saved. Unsaved changes wait for the reconcile that saves them."""
        if not saved or (current is not None and current.status.failure is not None):
            self._unsaved.add(request)
            return
        self._unsaved.discard(request)
        if current is not None:
            self._outbox.publish(current.uid)

    # Requeue

    def _requeue(self, current: _CurrentRequest, change: StatusChange) -> Outcome:
        if change.after.phase in TERMINAL_PHASES:
            return self._expiry(change.request)
        queued = self._queue.queued(current.key)
        current.due = next_due(change.after.channels, now=self._now(), queued=queued)
        return None if current.due is None else self._requeue_at(current.due)

    def _expiry(self, obj: NotificationRequest) -> Outcome:
        ttl = obj.spec.ttl_seconds_after_finished
        return None if ttl is None else Result(requeue_after=max(float(ttl), _MIN_REQUEUE))

    def _requeue_at(self, due: datetime) -> Outcome:
        return Result(requeue_after=max((due - self._now()).total_seconds(), _MIN_REQUEUE), priority=0)

    def _now(self) -> datetime:
        """Return the API server's time, because other machines act on what is stored."""
        if self._binding is None:
            return (self._clock or current_clock()).now()
        return self._binding.client.session.connection.server_clock.now(self._clock)
