"""The scenario of the demo, and the naive reconciler that it can run instead of the real one.

A NotificationRequest has a channel that works and one that fails: the directory of ``file`` is below a regular file, so
not even root can create it.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from reconciler._core.wire import JSONObject
from reconciler.apiserver import APIServer
from reconciler.client import Client
from reconciler.clock import current_clock
from reconciler.controller import Outcome, Reconciler, Result, effect
from reconciler.manager import Manager
from reconciler.meta import Request
from reconciler.meta.documents import format_micro_time, parse_time
from reconciler.notification import (
    Channel,
    ConsoleChannel,
    FileChannel,
    Message,
    NotificationReconciler,
    NotificationRequest,
)
from reconciler.recording import Recording

_TERMINAL = {"Sent", "PartiallySent", "Failed"}
_POLICY = {"maxAttempts": 5, "initialBackoffSeconds": 30, "backoffMultiplier": 2, "maxBackoffSeconds": 480, "jitter": 0}
_NAIVE_LATENCY = 0.04
"""Seconds per patch of the naive reconciler; about the latency of a real API server."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A row of the timeline; times are seconds since the notification was created."""

    at: float
    number: int
    channel: str
    result: str
    next_due: float | None
    status_writes: int
    phase: str


@dataclass(slots=True)
class DemoResult:
    """The result of the scenario."""

    naive: bool
    attempts: list[Attempt] = field(default_factory=list)
    policy: tuple[float, ...] = (0, 30, 90, 210, 450)
    cycles: int = 0
    status_writes: int = 0
    phase: str = "Pending"
    phase_at: float = 0.0

    @property
    def console_deliveries(self) -> int:
        """Return the number of deliveries by the working channel."""
        return sum(1 for attempt in self.attempts if attempt.channel == "console" and attempt.result == "success")

    def attempts_of(self, channel: str) -> list[float]:
        """Return the times of a channel's attempts, in seconds."""
        return [attempt.at for attempt in self.attempts if attempt.channel == channel]

    def to_dict(self) -> JSONObject:
        """Return the facts as JSON, in camelCase like the API."""
        return {
            "naive": self.naive,
            "fileAttemptsAt": self.attempts_of("file"),
            "policyAttemptsAt": list(self.policy),
            "consoleDeliveries": self.console_deliveries,
            "cycles": self.cycles,
            "statusWrites": self.status_writes,
            "phase": self.phase,
            "phaseAt": self.phase_at,
            "attempts": [
                {
                    "at": attempt.at,
                    "attempt": attempt.number,
                    "channel": attempt.channel,
                    "result": attempt.result,
                    "nextDue": attempt.next_due,
                    "statusWrites": attempt.status_writes,
                    "phase": attempt.phase,
                }
                for attempt in self.attempts
            ],
        }


async def play(
    *,
    naive: bool,
    on_attempt: Callable[[Attempt], None],
    on_tick: Callable[[float], None],
    tick: float,
    record: Path | None = None,
) -> DemoResult:
    """Run the scenario to its end.

    Args:
        naive: run the naive reconciler.
        on_attempt: called with each attempt when its watch event arrives.
        on_tick: called with the current time.
        tick: seconds of virtual time between calls of `on_tick`.
        record: the directory of a recording; None without one.

    Cancellation stops the manager and the server and leaves nothing behind.
    """
    facts = DemoResult(naive=naive)
    async with running_operator(naive=naive, record=record) as (server, client, manager):
        start = current_clock().monotonic()
        ticker = asyncio.create_task(_report_time(start, on_tick, tick))
        try:
            await _follow(client, server, facts, on_attempt)
        finally:
            ticker.cancel()
        await asyncio.sleep(3600)  # nothing may happen any more
        facts.cycles = manager.controllers[0].statistics().reconciles
        facts.status_writes = len(server.requests(subresource="status"))
    return facts


@contextlib.asynccontextmanager
async def running_operator(
    *, naive: bool, console: str | None = None, grace_period: float = 30, record: Path | None = None
) -> AsyncIterator[tuple[APIServer, Client, Manager]]:
    """Run an operator with a channel that works and one that always fails, on a server of its own.

    Args:
        naive: run the naive reconciler.
        console: ``host:port`` of the console; None without one.
        grace_period: seconds that reconciles in progress have to finish.
        record: the directory of a recording; None without one.
    """
    with tempfile.TemporaryDirectory() as folder:
        channels = _channels(Path(folder))
        async with APIServer() as server, Client(server) as client:
            await server.apply(NotificationRequest)
            recording = None if record is None else Recording(record)
            manager = Manager(client, console=console, grace_period=grace_period, recording=recording)
            if naive:
                server.faults.add(latency=_NAIVE_LATENCY, times=None, verb="patch")
            (add_naive if naive else add_reconciler)(manager, channels)
            async with manager.running():
                yield server, client, manager


def add_naive(manager: Manager, channels: Sequence[Channel] = ()) -> None:
    """Add the naive reconciler to a manager; without channels for a replay, which does not send."""
    channels = channels or _channels(Path())
    manager.add_controller(NaiveReconciler(channels), resource=NotificationRequest)


def add_reconciler(manager: Manager, channels: Sequence[Channel] = ()) -> None:
    """Add the library's reconciler to a manager; without channels for a replay, which does not send."""
    manager.add_controller(NotificationReconciler(channels=channels or _channels(Path())))


def _channels(folder: Path) -> list[Channel]:
    occupied = folder / "occupied"
    if folder != Path():
        occupied.write_text("A regular file where the channel needs a directory.\n")
    return [ConsoleChannel(stream=io.StringIO()), FileChannel(occupied / "notifications")]


def new_notification(name: str, policy: Mapping[str, int]) -> NotificationRequest:
    """Return a notification through both channels."""
    return NotificationRequest.from_dict(
        {
            "metadata": {"name": name, "namespace": "default"},
            "spec": {
                "type": "Escalation",
                "priority": "High",
                "subject": "Disk almost full on node-7",
                "body": "/var/lib is at 93 %.",
                "channels": ["console", "file"],
                "retryPolicy": dict(policy),
            },
        }
    )


async def _follow(client: Client, server: APIServer, facts: DemoResult, on_attempt: Callable[[Attempt], None]) -> None:
    created = await client.create(new_notification("disk-full", _POLICY))
    clock = current_clock()
    born = clock.now()
    events = client.watch(NotificationRequest, "default", resource_version=created.resource_version)
    async for event in events:
        status = event.object.to_dict().get("status") or {}
        writes = len(server.requests(subresource="status"))
        for entry in (status.get("deliveryAttempts") or [])[len(facts.attempts) :]:
            attempt = Attempt(
                at=round((parse_time(entry["timestamp"]) - born).total_seconds(), 6),
                number=entry["attempt"],
                channel=entry["channel"],
                result=entry["result"],
                next_due=_next_due(status, entry["channel"], born),
                status_writes=writes,
                phase=status.get("phase") or "Pending",
            )
            facts.attempts.append(attempt)
            on_attempt(attempt)
        if status.get("phase") in _TERMINAL:
            facts.phase = status["phase"]
            facts.phase_at = round((clock.now() - born).total_seconds(), 6)
            return


def _next_due(status: JSONObject, channel: str, born: datetime) -> float | None:
    for state in status.get("channels") or ():
        if state.get("name") == channel and state.get("nextAttemptTime"):
            return round((parse_time(state["nextAttemptTime"]) - born).total_seconds(), 6)
    return None


async def _report_time(start: float, on_tick: Callable[[float], None], tick: float) -> None:
    clock = current_clock()
    while True:
        on_tick(clock.monotonic() - start)
        await asyncio.sleep(tick)


class NaiveReconciler(Reconciler):
    """A reconciler that writes the status while it works; the retry storm of `reconciler demo --naive`.

    It differs from the real reconciler in two ways: it writes each attempt at once, with a plain patch, and it returns
    the delay without storing it. The patch enqueues the object again, which discards the delay, and nothing in the
    object says that it is too early for the next attempt.
    """

    def __init__(self, channels: Sequence[Channel]) -> None:
        super().__init__()
        self._channels: Mapping[str, Channel] = {channel.name: channel for channel in channels}

    async def reconcile(self, request: Request, /) -> Outcome:
        """Deliver through every channel that has not succeeded yet."""
        notification = await self.client.get(NotificationRequest, request.name, request.namespace)
        policy = notification.spec.retry_policy
        document = notification.to_dict()
        attempts: list[JSONObject] = list((document.get("status") or {}).get("deliveryAttempts") or [])
        waiting = False
        for name in notification.spec.channels or ():
            tried = [attempt for attempt in attempts if attempt["channel"] == name]
            if any(attempt["result"] == "success" for attempt in tried) or len(tried) >= policy.max_attempts:
                continue
            error = await self._deliver(notification, name, len(tried) + 1)
            attempts.append(
                {
                    "channel": name,
                    "attempt": len(tried) + 1,
                    "timestamp": format_micro_time(current_clock().now()),
                    "result": "failure" if error else "success",
                    **({"error": error} if error else {}),
                }
            )
            exhausted = error is not None and len(tried) + 1 >= policy.max_attempts
            waiting = waiting or (error is not None and not exhausted)
            await self.client.patch(
                NotificationRequest,
                request.name,
                request.namespace,
                patch={
                    "status": {
                        "deliveryAttempts": attempts,
                        "totalAttempts": len(attempts),
                        "phase": "PartiallySent" if exhausted else "Retrying",
                    }
                },
                subresource="status",
            )
        return Result(requeue_after=policy.initial_backoff_seconds) if waiting else None

    async def _deliver(self, notification: NotificationRequest, name: str, attempt: int) -> str | None:
        message = Message(
            name=notification.name,
            namespace=notification.namespace or "",
            uid=notification.uid,
            type=notification.spec.type,
            priority=notification.spec.priority,
            subject=notification.spec.subject,
            body=notification.spec.body,
            channel=name,
            attempt=attempt,
        )
        try:
            await self.send(f"{message.namespace}/{message.name} to {name}", self._channels[name], message)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - any exception of a channel is a failed attempt
            return str(error)
        return None

    @effect
    async def send(self, _subject: str, channel: Channel, message: Message) -> None:
        """Send a message over a channel."""
        await channel.deliver(message)
