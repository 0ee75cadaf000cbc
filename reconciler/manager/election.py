"""Leader election on a Lease: acquires it, renews it, and stops this process from leading before it can expire.

A lease is exclusion by time; there is no fencing token. What is guaranteed, and what is not:

1. This process stops leading at its *deadline*: the start of its last successful renewal plus the renew deadline,
   measured by a clock that also runs while the machine is suspended. Another process's lease expires by local time,
   counted from when its record was last seen to change. The times in the record are ignored, so clocks may differ, but
   they must run at the same rate. A deleted lease counts as just renewed: its holder may not know yet. An annotation
   names the process that wrote the record, so another process of the same identity counts as another holder.
2. An OS thread ends the process when the lease expires if workers have not stopped by then; see `Watchdog`. A blocked
   event loop or a hung thread therefore cannot outlive the lease by more than the scheduler's delay. The thread cannot
   help against native code that holds the interpreter lock, which blocks every thread of the process.
3. Every write of the manager's client first calls `Elector.check`, which compares clocks and refuses the write. The
   window that remains lies between that check and the socket, for a process that is stopped there.
4. Status writes are conditional. The server refuses one that arrives too late; it is not merged.
5. The lease is released only after every worker, thread and flush has ended; otherwise it is left to expire.
6. A process that lost the lease never leads again: the manager ends, and a new process takes part in the election.

So there is at most one leader, provided that no process is paused for longer than the time between the renew deadline
and the lease duration. Effects outside the cluster may be repeated once per failover.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import random
import socket
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

from reconciler._core.backoff import longest_retry_after, retry_after_delay
from reconciler._core.durations import Seconds
from reconciler._core.user_code import is_cancelled
from reconciler._core.wire import JSONObject
from reconciler.client import Client
from reconciler.clock import Clock, boottime_of
from reconciler.errors import AlreadyExists, APIError, ConfigurationError, Conflict, NotFound, TransportError
from reconciler.events import EventRecorder
from reconciler.http import HTTPRequest, HTTPResponse, Transport
from reconciler.manager.runnables import ManagerError
from reconciler.meta.documents import format_micro_time
from reconciler.telemetry.registry import LeaderCounters

_log = logging.getLogger("reconciler.manager")


class LeadershipLost(ManagerError):
    """This process is no longer the leader. It must exit; a new process takes part in the election."""


class NotLeader(ManagerError):
    """A write, or another effect, was refused because this process is not the leader. Nothing was sent."""


_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

LEASE_ANNOTATIONS = {"app.kubernetes.io/managed-by": "kube-reconciler"}
"""The annotations of each lease, by which ``reconciler explain`` finds the leader."""

PROCESS_ANNOTATION = "reconciler.dev/process"
"""The annotation of a lease with a random id of the process that wrote it last."""

_JITTER = 1.2
"""The delay between two attempts to acquire the lease is ``retry_period * (1 … 1 + _JITTER)``; client-go's number."""


@dataclass(frozen=True)
class LeaderElection:
    """Options of a leader election on a Lease (``coordination.k8s.io/v1``). The times default to controller-runtime's.

    A time is seconds, a timedelta, or a text such as ``"15s"``.

    Attributes:
        name: the lease's name; shared by all replicas of this operator, and by nothing else.
        namespace: the lease's namespace. Default: the pod's namespace, or the only namespace that the manager watches.
        identity: the name of this process. Default: the host name and a random id. Another process of the same identity
            counts as another holder: one that starts again after a crash waits until its old lease expires.
        lease_duration: the time after which others may acquire a lease that is not renewed. Default 15.
        renew_deadline: the time after the start of its last successful renewal at which this process stops leading.
            Default 10. Its workers have until `lease_duration` to stop.
        retry_period: the time between renewals. A candidate waits 1 to 2.2 times as long between attempts. Default 2.
        labels: added to the lease's own labels. Default: none.
        warm_up: whether a standby watches and queues while it waits for its election, so that it reconciles as soon as
            it is elected. Before its first reconcile it catches up with the previous leader's writes. A warm standby
            needs the memory and the watches of a leader. Default True.

    Raises:
        ConfigurationError: the name is empty, or the times are inconsistent. Required are ``lease_duration >
            renew_deadline > 1.2 * retry_period`` and a lease duration of at least 1 s.
    """

    name: str
    namespace: str | None = None
    identity: str | None = None
    lease_duration: Seconds = Seconds(15.0)
    renew_deadline: Seconds = Seconds(10.0)
    retry_period: Seconds = Seconds(2.0)
    labels: Mapping[str, str] = field(default_factory=dict)
    warm_up: bool = True

    def __post_init__(self) -> None:
        if not self.name:
            raise ConfigurationError("leader_election='' is not a valid lease name: pass one that all replicas share")
        times = (self.lease_duration, self.renew_deadline, self.retry_period)
        consistent = self.lease_duration > self.renew_deadline > _JITTER * self.retry_period
        if not (consistent and self.lease_duration >= 1):
            raise ConfigurationError(
                f"leader election {self.name!r}: lease_duration={times[0]!r}, renew_deadline={times[1]!r} and "
                f"retry_period={times[2]!r} are inconsistent: required are lease_duration > renew_deadline > "
                f"{_JITTER} * retry_period and lease_duration >= 1 s"
            )

    def next_attempt_delay(self, fraction: float) -> float:
        """Return the seconds until the next attempt to acquire the lease.

        Args:
            fraction: a random number between 0 and 1.
        """
        return self.retry_period * (1 + _JITTER * fraction)


def complete_election(election: str | LeaderElection, namespaces: Sequence[str] | None) -> LeaderElection:
    """Return the options with namespace and identity filled in.

    Raises:
        ConfigurationError: `election` has another type, or the namespace is unknown, so that replicas might use
            different leases.
    """
    election = LeaderElection(election) if isinstance(election, str) else election
    if not isinstance(election, LeaderElection):
        raise ConfigurationError(
            f"leader_election takes the name of the lease, such as 'my-operator', or a LeaderElection, not {election!r}"
        )
    what = f"leader_election={election.name!r}"
    found = lease_namespace(election.namespace, namespaces, what=what, option="LeaderElection.namespace")
    return replace(election, namespace=found, identity=election.identity or f"{socket.gethostname()}_{uuid.uuid4()}")


def lease_namespace(given: str | None, namespaces: Sequence[str] | None, *, what: str, option: str) -> str:
    """Return a lease's namespace: the given one, the pod's own, or the only one that the manager watches.

    Raises:
        ConfigurationError: there is none of these. The message says what needs it, and which option sets it.
    """
    found = given or _pod_namespace()
    if found is not None:
        return found
    if namespaces is None or len(namespaces) != 1:
        raise ConfigurationError(
            f"{what} needs a namespace for its lease: this process does not run in a pod, so pass {option}="
        )
    return namespaces[0]


def _pod_namespace() -> str | None:
    try:
        return _POD_NAMESPACE.read_text().strip() or None
    except OSError:
        return None


EXIT_CODE = 70
"""Exit code of a process whose workers outlived its lease: ``EX_SOFTWARE`` of sysexits.h."""

_INTERVAL = 0.2
"""Seconds between checks. A thread's timeout does not advance while the machine is suspended, so it must be short."""


class Watchdog:
    """A timer that ends the process unless it is extended or disarmed in time.

    Under virtual time it starts no thread.

    Args:
        clock: source of time; suspensions count.
        end: called in the thread when the time is up. Default: one line on stderr, then ``os._exit(70)``.
    """

    def __init__(self, clock: Clock, *, end: Callable[[], None] | None = None) -> None:
        self._now = boottime_of(clock)
        self._virtual = bool(getattr(clock, "virtual", False))
        self._end = end or _exit
        self._until = math.inf
        self._disarmed = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        if self._thread is None and not self._virtual:
            self._thread = threading.Thread(target=self._watch, name="lease watchdog", daemon=True)
            self._thread.start()

    def extend(self, until: float) -> None:
        """Set the time at which the process ends."""
        self._until = until

    def disarm(self) -> None:
        """Stop the thread."""
        self._disarmed.set()

    def _watch(self) -> None:
        while not self._disarmed.wait(min(_INTERVAL, max(0.0, self._until - self._now()))):
            if self._now() >= self._until:
                self._end()
                return


def _exit() -> None:
    # Nothing here may block before the exit, so buffers are not flushed.
    os.write(2, b"the lease expired and workers have not stopped: exiting\n")
    os._exit(EXIT_CODE)


API = "coordination.k8s.io/v1"
LEASE = f"{API}/Lease"

EVENTS_TIMEOUT = 1.0
"""Seconds to wait for the event of a released lease to be sent."""

_FAILURES = (APIError, TransportError, TimeoutError)


class Elector:
    """A participant in one leader election; used once.

    Args:
        client: reads and writes the lease. It must not retry by itself, and its writes must not be fenced.
        election: options with namespace and identity filled in.
        events: records Events about the lease when this process starts and stops leading. The elector runs and closes
            it. Default: no Events.

    Attributes:
        elected: set when this process becomes leader; stays set.
        holder: the last known holder of the lease; ``""`` if nobody holds it.
        lease: namespace and name of the lease, as text.
        last_failure: why the last attempt to acquire the lease got no response; None if it got one.
    """

    def __init__(
        self,
        client: Client,
        election: LeaderElection,
        *,
        counters: LeaderCounters,
        clock: Clock,
        rng: random.Random,
        watchdog: Watchdog,
        labels: Mapping[str, str] | None = None,
        events: EventRecorder | None = None,
    ) -> None:
        self._client = client
        self._election = election
        self._identity = election.identity or ""
        self.lease = f"{election.namespace}/{election.name}"
        self._counters = counters
        self._clock = clock
        self._now = boottime_of(clock)
        self._rng = rng
        self._watchdog = watchdog
        self._labels = dict(labels or {})
        self._events = events
        self._event_task: asyncio.Task[None] | None = None
        self._lease: JSONObject | None = None  # as last returned by the server
        self._existed = False  # whether the lease has existed since this process takes part
        self._observed: JSONObject | None = None  # the record of another holder, and when it was first seen unchanged
        self._observed_at = -math.inf
        self._held_by_other = -math.inf  # until when the lease of another holder is valid, by this process's clock
        self._process = uuid.uuid4().hex
        self._renewed_at = -math.inf  # when the last successful request began
        self._in_flight = False  # an attempt whose outcome is unknown
        self._retry_after = 0.0  # seconds that the server asked to wait when the last attempt failed
        self._ended = False
        self._released = False
        self.elected = asyncio.Event()
        self.holder = ""
        self.last_failure: Exception | None = None

    @property
    def leading(self) -> bool:
        """Return whether this process may act as leader now; safe to call from any thread."""
        return not self._ended and self.elected.is_set() and self._now() < self._deadline

    @property
    def held_until(self) -> datetime | None:
        """Return the wall time at which the lease of another holder expires unless it is renewed; None if not known."""
        if self._held_by_other == -math.inf:
            return None
        return self._clock.now() + timedelta(seconds=self._held_by_other - self._now())

    def check(self) -> None:
        """Raise unless this process may act as leader now; safe to call from any thread.

        Raises:
            NotLeader: this process was never elected, its deadline has passed, or it stopped leading.
        """
        if not self.leading:
            raise NotLeader(
                f"{self._identity} is not the leader: lease {self.lease} is held by {self.holder or 'nobody'}; "
                "nothing was sent"
            )

    def check_renewed(self) -> None:
        """Raise if this process leads although its lease has expired; a health check.

        Raises:
            NotLeader: the lease has expired, and this process has not stopped leading.
        """
        expired = self._now() - (self._renewed_at + self._election.lease_duration)
        if self.elected.is_set() and not self._ended and expired > 0:
            raise NotLeader(f"lease {self.lease} expired {expired:.0f} s ago")

    async def run(self) -> None:
        """Acquire the lease, set `elected`, and renew until cancelled.

        Cancellation stops the renewals and releases nothing. A request in flight may still take effect; `release` finds
        out.

        Raises:
            LeadershipLost: the lease was not renewed before the deadline, or another process holds it.
        """
        while not await self._try_acquire():
            # A candidate that waits longer than a lease lasts would notice too late that it is free.
            asked = min(self._retry_after, self._election.lease_duration)
            await asyncio.sleep(max(self._election.next_attempt_delay(self._rng.random()), asked))
        _log.info("acquired lease %s: %s is the leader", self.lease, self._identity)
        self._counters.leading = True
        self.elected.set()
        self._watchdog.start()
        self._record_event("became leader")
        try:
            await self._keep_renewing()
        finally:
            self._counters.leading = False

    async def release(self) -> None:
        """Release the lease, so that another process does not have to wait until it expires.

        Call it only after everything that depends on the lease has ended. Errors are ignored: the lease then expires.
        Cancellation also leaves it to expire.
        """
        lost, self._ended = self._ended, True
        self._watchdog.disarm()
        if not lost and (self.elected.is_set() or self._in_flight):
            try:
                async with asyncio.timeout(self._election.renew_deadline):
                    while True:
                        if await self._try_release():
                            break
                        await asyncio.sleep(self._election.retry_period / 10)
            except _FAILURES:
                pass
            except asyncio.CancelledError:
                if is_cancelled():
                    raise
        await self._close_events()

    async def abandon(self) -> None:
        """Stop leading and leave the lease to expire; whatever is still running must end before then."""
        self._ended = True
        await self._close_events()

    @property
    def _deadline(self) -> float:
        return self._renewed_at + self._election.renew_deadline

    async def _keep_renewing(self) -> None:
        failure = "the last renewal took too long"
        while True:
            left = self._deadline - self._now()
            # Retry-After is obeyed only for half of the time left, so that further attempts are possible.
            pause = max(self._election.retry_period, min(self._retry_after, left / 2))
            await asyncio.sleep(max(0.0, min(pause, left)))
            left = self._deadline - self._now()
            if left <= 0:
                raise self._lost(f"not renewed within {self._election.renew_deadline:g} s: {failure}")
            try:
                if not await self._renew(left):
                    raise self._lost(f"{self._other_holder} acquired it")
                self._retry_after = 0.0
            except _FAILURES as error:
                failure = _headline(error)
                self._retry_after = retry_after_delay(longest_retry_after(error), self._rng)
                _log.warning("failed to renew lease %s, retrying for %.1f s: %s", self.lease, left, failure)

    def _lost(self, why: str) -> LeadershipLost:
        self._ended = True
        self._counters.leading = False
        return LeadershipLost(
            f"{self._identity} lost lease {self.lease}: {why}. End this process; a new one takes part in the election"
        )

    async def _try_acquire(self) -> bool:
        self._in_flight = True  # stays True if cancelled
        self._retry_after = 0.0
        failure: Exception | None = None
        try:
            leads = await self._renew(self._election.renew_deadline)
        except (Conflict, AlreadyExists) as error:
            if isinstance(error, AlreadyExists):
                self._existed, self._observed = True, {}  # not read yet
            leads = False  # another candidate was faster; the next attempt shows which
        except _FAILURES as error:
            leads, failure = False, error
            self._retry_after = retry_after_delay(longest_retry_after(error), self._rng)
            _log.warning("failed to acquire lease %s, retrying: %s", self.lease, _headline(error))
        self._in_flight = False
        self.last_failure = failure
        return leads

    async def _renew(self, limit: float) -> bool:
        """Renew or acquire the lease; return False if another process holds it.

        Args:
            limit: seconds left. An attempt takes at most half of the renew deadline, to leave time for a second one.
        """
        async with asyncio.timeout(min(limit, max(1.0, self._election.renew_deadline / 2))):
            if self._lease is not None and self.elected.is_set():
                try:
                    return await self._write(self._lease)
                except APIError as error:
                    if error.retry_after:
                        raise
                    self._counters.slow_paths += 1
            return await self._read_and_acquire()

    async def _read_and_acquire(self) -> bool:
        try:
            lease = (await self._client.get(LEASE, self._election.name, self._election.namespace)).to_dict()
        except NotFound:
            self._observe_deletion()
            return False if self._now() < self._held_by_other else await self._create()
        self._observe_holder(lease)
        return False if self._now() < self._held_by_other else await self._write(lease)

    async def _create(self) -> bool:
        metadata = {"name": self._election.name, "namespace": self._election.namespace}
        started = self._now()
        response = await self._client.create(self._held({"apiVersion": API, "kind": "Lease", "metadata": metadata}))
        return self._note_renewal(response.to_dict(), started)

    async def _write(self, lease: JSONObject) -> bool:
        started = self._now()
        response = await self._client.update(self._held(lease))
        return self._note_renewal(response.to_dict(), started)

    def _note_renewal(self, response: JSONObject, started: float) -> bool:
        """Note the response to a write; return False if it names another holder, as a webhook may."""
        self._observe_holder(response)
        if self.holder != self._identity:
            return False
        self._lease, self._renewed_at, self._held_by_other = response, started, -math.inf
        self._watchdog.extend(started + self._election.lease_duration)
        return True

    def _observe_holder(self, lease: JSONObject) -> None:
        record = lease.get("spec") or {}
        self._existed = True
        if record != self._observed:
            self._observed, self._observed_at = record, self._now()
        before, self.holder = self._other_holder, str(record.get("holderIdentity") or "")
        self._held_by_other = -math.inf
        if not self.holder or self._wrote(lease):
            return
        lasts = float(record.get("leaseDurationSeconds") or self._election.lease_duration)
        self._held_by_other = self._observed_at + lasts
        if self._other_holder != before:
            _log.info("new leader elected: %s holds lease %s", self._other_holder, self.lease)

    def _observe_deletion(self) -> None:
        """Wait as for a lease that was just renewed: its last holder, perhaps one that was never seen, may still lead.

        A process that has never seen the lease creates it at once, as the first process of all does.
        """
        if not self._existed or self.elected.is_set():
            return
        if self._observed is not None:
            self._observed, self._observed_at = None, self._now()
        self._held_by_other = self._observed_at + self._election.lease_duration

    def _wrote(self, lease: JSONObject) -> bool:
        """Return whether this process wrote the record: it has our identity, and no other process names itself."""
        if self.holder != self._identity:
            return False
        written_by = ((lease.get("metadata") or {}).get("annotations") or {}).get(PROCESS_ANNOTATION)
        return written_by == self._process or (written_by is None and self.elected.is_set())

    @property
    def _other_holder(self) -> str:
        """Return the name of another holder for messages; ``""`` if there is none."""
        if self._held_by_other == -math.inf:
            return ""
        return self.holder if self.holder != self._identity else f"another process of the same identity {self.holder}"

    def _record_event(self, what: str) -> None:
        if self._events is None or self._lease is None:
            return
        if self._event_task is None:
            self._event_task = asyncio.create_task(self._events.run(), name=f"events of lease {self.lease}")
        self._events.normal(
            {"apiVersion": API, "kind": "Lease", **self._lease}, "LeaderElection", f"{self._identity} {what}"
        )

    async def _close_events(self) -> None:
        if self._events is not None and self._event_task is not None:
            await self._events.close(EVENTS_TIMEOUT if self._released else 0.0)
            await asyncio.wait({self._event_task})

    def _held(self, lease: JSONObject) -> JSONObject:
        """Return the lease as held by this process from now on."""
        metadata = dict(lease.get("metadata") or {})
        own = {**LEASE_ANNOTATIONS, PROCESS_ANNOTATION: self._process}
        metadata["annotations"] = {**(metadata.get("annotations") or {}), **own}
        if self._labels:
            metadata["labels"] = {**(metadata.get("labels") or {}), **self._labels}
        before = lease.get("spec") or {}
        ours = before.get("holderIdentity") == self._identity
        transitions = int(before.get("leaseTransitions") or 0)
        now = format_micro_time(self._clock.now())
        spec = {
            **before,
            "holderIdentity": self._identity,
            "leaseDurationSeconds": math.ceil(self._election.lease_duration),
            "acquireTime": before.get("acquireTime") if ours else now,
            "renewTime": now,
            "leaseTransitions": transitions + (not ours and bool(before)),
        }
        return {**lease, "metadata": metadata, "spec": spec}

    async def _try_release(self) -> bool:
        try:
            lease = (await self._client.get(LEASE, self._election.name, self._election.namespace)).to_dict()
            record = lease.get("spec") or {}
            self.holder = str(record.get("holderIdentity") or "")
            if not self._wrote(lease):
                return True
            now = format_micro_time(self._clock.now())
            empty = {"holderIdentity": "", "leaseDurationSeconds": 1, "acquireTime": now, "renewTime": now}
            await self._client.update({**lease, "spec": {**record, **empty}})
        except NotFound:
            return True
        except Conflict:
            return False
        self.holder = ""
        self._released = True
        _log.info("released lease %s", self.lease)
        self._record_event("stopped leading")
        return True


def _headline(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error) or 'no response in time'}"


class UrgentTransport:
    """A transport whose requests do not wait for others in progress; for the renewals of a lease."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        """Send a request over the connections that are reserved for urgent ones."""
        return await self._transport.send(replace(request, urgent=True))


class FencedTransport:
    """A transport that refuses writes while this process is not the leader.

    Args:
        check: raises if this process must not write.
    """

    def __init__(self, transport: Transport, check: Callable[[], None]) -> None:
        self._transport = transport
        self._check = check

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        """Send a request if it only reads, or if this process is the leader now.

        The only window for a late write lies between this check and the socket.

        Raises:
            NotLeader: this process is not the leader; nothing was sent.
        """
        if request.method not in ("GET", "HEAD"):
            self._check()
        return await self._transport.send(request)
