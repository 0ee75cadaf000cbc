"""Lead while a lease is ours, and stop in time when it is not.

What is promised, and what cannot be (a lease is time-based exclusion, no fencing token):

1. This process gives up at the *deadline*: the start of its last renewal that succeeded, plus the renew deadline, by a
   clock that goes on while the machine is suspended. Whether another's lease is over is judged by the local time since
   its record was last seen to change, never by the times in the record, so that clocks may differ. They must run at the
   same rate.
2. An OS thread ends the process at the lease's end if workers have not stopped by then (see `_watchdog`), so a blocked
   loop or a hung thread cannot outlive the lease by more than the scheduler's delay.
3. Each write of the manager's client begins with `Elector.check`, which compares clocks and refuses. What is left is
   the window between that check and the socket, and a process that is stopped inside it.
4. Status writes are conditional, so one that comes too late is refused by the server and not merged.
5. The lease is released only when every worker, thread and flush has ended; otherwise it is left to expire.
6. Lost is lost: the manager ends, and a new process takes part again.

So there is at most one leader as long as no process is paused for longer than lies between the renew deadline and the
lease's duration. Effects outside the cluster may be repeated once a fail-over.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from reconciler.backoff import longest_retry_after, retry_after_delay
from reconciler.client import Client
from reconciler.clock import Clock, boottime_of
from reconciler.errors import AlreadyExists, APIError, Conflict, NotFound, TransportError
from reconciler.events import EventRecorder
from reconciler.manager.election.options import LeaderElection
from reconciler.manager.election.watchdog import Watchdog
from reconciler.manager.errors import LeadershipLost, NotLeader
from reconciler.meta import format_micro_time
from reconciler.telemetry import LeaderCounters

__all__ = ["Elector"]

_log = logging.getLogger("reconciler.manager")

API = "coordination.k8s.io/v1"
LEASE = f"{API}/Lease"

EVENTS_TIMEOUT = 1.0
"""Seconds for the event of a clean end to be sent; nobody waits for it any longer."""

_FAILURES = (APIError, TransportError, TimeoutError)


class Elector:
    """Take part in one election, once.

    Args:
        client: reads and writes the lease; it must not repeat requests by itself, nor be fenced.
        election: with namespace and identity.
        counters: is told whether this process leads.
        clock: source of time.
        rng: spreads the attempts of several processes.
        watchdog: ends the process when workers outlive the lease.
        labels: put on the lease, beside those that others have put there. Default: none.
        events: tells about the lease who began and who ceased to lead; it is run and closed here. Default: nothing is
            told.

    Attributes:
        elected: set when this process has become leader; stays set.
        holder: who leads, as far as is known; ``""`` for nobody.
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
        self._where = f"{election.namespace}/{election.name}"
        self._counters = counters
        self._clock = clock
        self._now = boottime_of(clock)
        self._rng = rng
        self._watchdog = watchdog
        self._labels = dict(labels or {})
        self._events = events
        self._recording: asyncio.Task[None] | None = None
        self._lease: dict[str, Any] | None = None  # as last answered
        self._observed: dict[str, Any] | None = None  # the other's record, and when it was first seen so
        self._observed_at = -math.inf
        self._renewed_at = -math.inf  # when the last request that succeeded began
        self._under_way = False  # an attempt whose outcome is not known
        self._asked = 0.0  # seconds that the server asked to wait when the last attempt failed
        self._ended = False
        self._released = False
        self.elected = asyncio.Event()
        self.holder = ""

    # What others ask

    @property
    def leading(self) -> bool:
        """Say whether this process may act as leader at this moment; from any thread."""
        return not self._ended and self.elected.is_set() and self._now() < self._deadline

    def check(self) -> None:
        """Return if this process may act as leader at this moment; from any thread.

        Raises:
            NotLeader: it may not: never elected, the deadline is over, or the leadership was given up.
        """
        if not self.leading:
            raise NotLeader(
                f"{self._identity} does not lead (lease {self._where}, {self.holder or 'nobody'} holds it): "
                "nothing was sent"
            )

    def check_renewed(self) -> None:
        """Return unless this process leads although its lease is over; for a health check.

        Raises:
            NotLeader: the lease is over and nobody has noticed.
        """
        over = self._now() - (self._renewed_at + self._election.lease_duration)
        if self.elected.is_set() and not self._ended and over > 0:
            raise NotLeader(f"the lease {self._where} has ended {over:.0f} s ago")

    # The election

    async def run(self) -> None:
        """Become leader, set `elected`, and stay it until cancelled.

        Cancellation stops the renewals; nothing is released. A request under way may still take effect, which `release`
        finds out.

        Raises:
            LeadershipLost: the lease was not renewed before the deadline, or another process holds it.
        """
        while True:
            if await self._attempt():
                break
            # A candidate that waits for longer would find a lease that is free too late.
            asked = min(self._asked, self._election.lease_duration)
            await asyncio.sleep(max(self._election.look_again(self._rng.random()), asked))
        _log.info("became leader: %s holds the lease %s", self._identity, self._where)
        self._counters.leading = True
        self.elected.set()
        self._watchdog.start()
        self._tell("became leader")
        try:
            await self._stay()
        finally:
            self._counters.leading = False

    async def release(self) -> None:
        """Give the lease back so that another process need not wait for its end; only when nothing works any more.

        Fails silently: then the lease expires. Cancellation leaves it to expire, too.
        """
        lost, self._ended = self._ended, True
        self._watchdog.disarm()
        if not lost and (self.elected.is_set() or self._under_way):
            await self._give_back_in_time()
        await self._end_telling()

    async def abandon(self) -> None:
        """Lead no more and leave the lease to expire; whatever still runs has until then to end."""
        self._ended = True
        await self._end_telling()

    async def _give_back_in_time(self) -> None:
        with contextlib.suppress(*_FAILURES):
            async with asyncio.timeout(self._election.renew_deadline):
                while True:
                    if await self._give_back():
                        break
                    await asyncio.sleep(self._election.retry_period / 10)

    @property
    def _deadline(self) -> float:
        return self._renewed_at + self._election.renew_deadline

    async def _stay(self) -> None:
        failure = "the last renewal took too long"
        while True:
            left = self._deadline - self._now()
            # A server that sheds load is obeyed as far as there is time: half of it is left for the next attempts.
            pause = max(self._election.retry_period, min(self._asked, left / 2))
            await asyncio.sleep(max(0.0, min(pause, left)))
            left = self._deadline - self._now()
            if left <= 0:
                raise self._lost(f"not renewed within {self._election.renew_deadline:g} s: {failure}")
            try:
                if not await self._renew(left):
                    raise self._lost(f"{self.holder} has taken it")
                self._asked = 0.0
            except _FAILURES as error:
                failure = str(error) or "no answer"
                self._asked = retry_after_delay(longest_retry_after(error), self._rng)
                _log.warning("lease %s not renewed, %.1f s left: %s", self._where, left, failure)

    def _lost(self, why: str) -> LeadershipLost:
        self._ended = True
        self._counters.leading = False
        return LeadershipLost(
            f"{self._identity} has lost the lease {self._where}: {why}. The process must end; "
            "a new one takes part again"
        )

    async def _attempt(self) -> bool:
        self._under_way = True  # and stays so if it is cancelled
        self._asked = 0.0
        try:
            leads = await self._renew(self._election.renew_deadline)
        except (Conflict, AlreadyExists):
            leads = False  # somebody else was faster; the next look shows who
        except _FAILURES as error:
            leads = False
            self._asked = retry_after_delay(longest_retry_after(error), self._rng)
            _log.warning("cannot become leader yet, lease %s: %s", self._where, str(error) or "no answer in time")
        self._under_way = False
        return leads

    async def _renew(self, limit: float) -> bool:
        """Renew or take the lease; False when another process holds it.

        Args:
            limit: seconds that are left; an attempt takes half of the renew deadline at most, so that there is time for
                a second one.
        """
        async with asyncio.timeout(min(limit, max(1.0, self._election.renew_deadline / 2))):
            if self._lease is not None and self.elected.is_set():
                try:
                    return await self._write(self._lease)
                except APIError as error:
                    if error.retry_after:
                        raise
                    self._counters.slow_paths += 1
            return await self._look_and_take()

    async def _look_and_take(self) -> bool:
        try:
            lease = (await self._client.get(LEASE, self._election.name, self._election.namespace)).to_dict()
        except NotFound:
            return await self._create()
        record = lease.get("spec") or {}
        self._see_holder(str(record.get("holderIdentity") or ""))
        if record != self._observed:
            self._observed, self._observed_at = record, self._now()
        if self.holder not in ("", self._identity):
            over = self._observed_at + float(record.get("leaseDurationSeconds") or 0)
            if self._now() < over:
                return False
        return await self._write(lease)

    async def _create(self) -> bool:
        metadata: dict[str, Any] = {"name": self._election.name, "namespace": self._election.namespace}
        if self._labels:
            metadata["labels"] = self._labels
        started, stamp = self._now(), self._clock.now()
        document = {"apiVersion": API, "kind": "Lease", "metadata": metadata}
        answer = await self._client.create({**document, "spec": self._record({}, stamp)})
        self._renewed(answer.to_dict(), started)
        return True

    async def _write(self, lease: dict[str, Any]) -> bool:
        started, stamp = self._now(), self._clock.now()
        if self._labels:
            metadata = lease.get("metadata") or {}
            lease = {**lease, "metadata": {**metadata, "labels": {**(metadata.get("labels") or {}), **self._labels}}}
        answer = await self._client.update({**lease, "spec": self._record(lease.get("spec") or {}, stamp)})
        self._renewed(answer.to_dict(), started)
        return True

    def _renewed(self, answer: dict[str, Any], started: float) -> None:
        self._lease, self._renewed_at, self.holder = answer, started, self._identity
        self._watchdog.extend(started + self._election.lease_duration)

    def _see_holder(self, holder: str) -> None:
        if holder not in (self.holder, "", self._identity):
            _log.info("%s holds the lease %s", holder, self._where)
        self.holder = holder

    # What others are told

    def _tell(self, what: str) -> None:
        if self._events is None or self._lease is None:
            return
        if self._recording is None:
            self._recording = asyncio.create_task(self._events.run(), name=f"events of the lease {self._where}")
        self._events.normal(
            {"apiVersion": API, "kind": "Lease", **self._lease}, "LeaderElection", f"{self._identity} {what}"
        )

    async def _end_telling(self) -> None:
        if self._events is not None and self._recording is not None:
            await self._events.close(EVENTS_TIMEOUT if self._released else 0.0)
            await asyncio.wait({self._recording})

    # The lease's record

    def _record(self, before: dict[str, Any], stamp: datetime) -> dict[str, Any]:
        """Return the record that makes this process the holder, or keeps it so."""
        ours = before.get("holderIdentity") == self._identity
        transitions = int(before.get("leaseTransitions") or 0)
        now = format_micro_time(stamp)
        return {
            **before,
            "holderIdentity": self._identity,
            "leaseDurationSeconds": math.ceil(self._election.lease_duration),
            "acquireTime": before.get("acquireTime") if ours else now,
            "renewTime": now,
            "leaseTransitions": transitions + (not ours and bool(before)),
        }

    async def _give_back(self) -> bool:
        try:
            lease = (await self._client.get(LEASE, self._election.name, self._election.namespace)).to_dict()
            record = lease.get("spec") or {}
            if record.get("holderIdentity") != self._identity:
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
        _log.info("released the lease %s", self._where)
        self._tell("stopped leading")
        return True
