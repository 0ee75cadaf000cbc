"""Play the scenario of the demo and collect the facts.

A NotificationRequest with a channel that works and one that cannot: the directory of ``file`` leads through a regular
file, so that not even root can make it.
"""

from __future__ import annotations

import asyncio
import io
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from reconciler.apiserver import APIServer
from reconciler.client import Client
from reconciler.clock import current_clock
from reconciler.manager import Manager
from reconciler.meta import parse_time
from reconciler.notification import Channel, ConsoleChannel, FileChannel, NotificationReconciler, NotificationRequest

__all__ = ["Attempt", "Facts", "play"]

_TERMINAL = {"Sent", "PartiallySent", "Failed"}
_POLICY = {"maxAttempts": 5, "initialBackoffSeconds": 30, "backoffMultiplier": 2, "maxBackoffSeconds": 480, "jitter": 0}
_NAIVE_LATENCY = 0.04
"""Seconds that the API server takes to answer the naive reconciler; about what a real one needs."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """Be one row of the timeline; times are seconds since the notification was created."""

    at: float
    number: int
    channel: str
    result: str
    next_due: float | None
    status_writes: int
    phase: str


@dataclass(slots=True)
class Facts:
    """Hold what the scenario came to."""

    naive: bool
    attempts: list[Attempt] = field(default_factory=list)
    policy: tuple[float, ...] = (0, 30, 90, 210, 450)
    cycles: int = 0
    status_writes: int = 0
    phase: str = "Pending"
    phase_at: float = 0.0

    @property
    def console_deliveries(self) -> int:
        """Return how often the working channel delivered."""
        return sum(1 for attempt in self.attempts if attempt.channel == "console" and attempt.result == "success")

    def attempts_of(self, channel: str) -> list[float]:
        """Return when a channel was tried, in seconds."""
        return [attempt.at for attempt in self.attempts if attempt.channel == channel]

    def to_dict(self) -> dict[str, Any]:
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
    *, naive: bool, on_attempt: Callable[[Attempt], None], on_tick: Callable[[float], None], tick: float
) -> Facts:
    """Play the scenario to its end.

    Args:
        naive: run the reconciler that writes status while it works.
        on_attempt: called with each attempt when the watch brings it.
        on_tick: called with the time as it passes.
        tick: seconds of virtual time between two calls of `on_tick`.

    Cancellation stops the manager and the server and leaves nothing behind.
    """
    facts = Facts(naive=naive)
    with tempfile.TemporaryDirectory() as folder:
        occupied = Path(folder, "occupied")
        occupied.write_text("A regular file where the channel wants a directory.\n")
        channels: list[Channel] = [ConsoleChannel(stream=io.StringIO()), FileChannel(occupied / "notifications")]
        async with APIServer() as server, Client(server) as client:
            await server.apply(NotificationRequest)
            manager = Manager(client)
            if naive:
                from reconciler.cli.demo.naive import NaiveReconciler

                server.faults.add(latency=_NAIVE_LATENCY, times=None, verb="patch")
                controller = manager.add_controller(NaiveReconciler(channels), resource=NotificationRequest)
            else:
                controller = manager.add_controller(NotificationReconciler(channels=channels))
            async with manager.running():
                start = current_clock().monotonic()
                ticker = asyncio.create_task(_tell_time(start, on_tick, tick))
                try:
                    await _follow(client, server, facts, on_attempt)
                finally:
                    ticker.cancel()
                await _settle()
                facts.cycles = controller.statistics().reconciles
            facts.status_writes = len(server.requests(verb="patch", subresource="status"))
    return facts


async def _follow(client: Client, server: APIServer, facts: Facts, on_attempt: Callable[[Attempt], None]) -> None:
    created = await client.create(
        NotificationRequest.from_dict(
            {
                "metadata": {"name": "disk-full", "namespace": "default"},
                "spec": {
                    "type": "Escalation",
                    "priority": "High",
                    "subject": "Disk almost full on node-7",
                    "body": "/var/lib is at 93 %.",
                    "channels": ["console", "file"],
                    "retryPolicy": dict(_POLICY),
                },
            }
        )
    )
    clock = current_clock()
    born = clock.now()
    events = client.watch(NotificationRequest, "default", resource_version=created.resource_version)
    async for event in events:
        status = event.object.to_dict().get("status") or {}
        writes = len(server.requests(verb="patch", subresource="status"))
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


def _next_due(status: dict[str, Any], channel: str, born: datetime) -> float | None:
    for state in status.get("channels") or ():
        if state.get("name") == channel and state.get("nextAttemptTime"):
            return round((parse_time(state["nextAttemptTime"]) - born).total_seconds(), 6)
    return None


async def _settle() -> None:
    """Let an hour pass, in which nothing may happen any more."""
    await asyncio.sleep(3600)


async def _tell_time(start: float, on_tick: Callable[[float], None], tick: float) -> None:
    clock = current_clock()
    while True:
        on_tick(clock.monotonic() - start)
        await asyncio.sleep(tick)
