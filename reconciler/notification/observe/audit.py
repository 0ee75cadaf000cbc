"""Write down what was delivered, for those who must be able to show it: JSON lines, after the durable write."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec.json

from reconciler.clock import Clock, current_clock
from reconciler.errors import ConfigurationError
from reconciler.meta import format_micro_time
from reconciler.notification.observe.outbox import Recorded

__all__ = ["AuditLog", "AuditStatistics"]

_log = logging.getLogger("reconciler.notification")

RETRY = 5.0
"""Seconds until a file that could not be written is tried again."""


@dataclass(frozen=True, slots=True)
class AuditStatistics:
    """Count audit records.

    Attributes:
        written: lines that are in the file.
        waiting: lines that wait.
        dropped: lines that were lost, because the file could not be written for too long.
    """

    written: int
    waiting: int
    dropped: int


class AuditLog:
    """Append a line for each attempt, and one for each request that ended, to a file.

    A line is a JSON object: ``time``, ``event`` (``notification.attempted`` or ``notification.finished``),
    ``namespace``, ``name``, ``uid``, ``type``, ``priority``; for an attempt ``channel``, ``attempt``, ``result``
    (``success``, ``failure``, ``unknown``), ``error`` (redacted), ``durationSeconds``, ``idempotencyKey``; for an end
    ``phase``, ``reason``, ``attempts``. Subject and body are not in it.

    A line is written once its status write is durable, so each attempt has one line at most; a process that dies in
    between loses it. Give it to the reconciler as an observer, and to the manager to run.

    Args:
        path: the file; made if it is missing, with permission 0600. It is opened for each batch, so it may be moved
            away by a log rotation at any time.
        limit: lines that wait in memory. Default 10000; the oldest are dropped first, and counted.
        clock: defaults to the clock in force at each use.
    """

    def __init__(self, path: str | os.PathLike[str], *, limit: int = 10_000, clock: Clock | None = None) -> None:
        self._path = Path(path)
        self._limit = limit
        self._clock = clock
        self._waiting: deque[bytes] = deque()
        self._some = asyncio.Event()
        self._written = 0
        self._dropped = 0

    def check(self) -> None:
        """Try whether the file can be written, for a start that should fail at once.

        Raises:
            ConfigurationError: it cannot.
        """
        try:
            self._append(b"")
        except OSError as error:
            raise ConfigurationError(
                f"the audit file {self._path} cannot be written: {error.strerror or error}"
            ) from error

    def statistics(self) -> AuditStatistics:
        """Return the counts at this moment."""
        return AuditStatistics(self._written, len(self._waiting), self._dropped)

    def recorded(self, record: Recorded) -> None:
        """Put the lines of a pass in the queue."""
        for line in self._lines(record):
            if len(self._waiting) >= self._limit:
                self._waiting.popleft()
                self._dropped += 1
            self._waiting.append(msgspec.json.encode(line) + b"\n")
        self._some.set()

    async def run(self) -> None:
        """Write what waits until it is cancelled; then once more, and what cannot be written is counted as lost."""
        writing: asyncio.Task[None] | None = None
        told = False
        try:
            while True:
                await self._some.wait()
                self._some.clear()
                writing = asyncio.create_task(asyncio.to_thread(self._write))
                try:
                    await asyncio.shield(writing)
                    told = False
                except OSError as error:
                    if not told:
                        _log.error("the audit file %s cannot be written: %s", self._path, error)
                    told = True
                    await asyncio.sleep(RETRY)
                    self._some.set()
        finally:
            if writing is not None:
                await asyncio.wait([writing])  # or its lines would be written twice
            with contextlib.suppress(OSError):
                self._write()
            self._dropped += len(self._waiting)
            self._waiting.clear()
            if self._dropped:
                _log.error("%d audit records were lost", self._dropped)

    def _write(self) -> None:
        """Write in one piece what waits now; lines leave the queue only when they are written."""
        batch = list(self._waiting)
        if not batch:
            return
        self._append(b"".join(batch))
        self._written += len(batch)
        for line in batch:
            if self._waiting and self._waiting[0] is line:  # else it was dropped meanwhile, to make room
                self._waiting.popleft()

    def _append(self, content: bytes) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "ab", buffering=0) as file:
            file.write(content)

    def _lines(self, record: Recorded) -> list[dict[str, Any]]:
        obj, after = record.request, record.after
        time = format_micro_time((self._clock or current_clock()).now())

        def line(event: str, **members: Any) -> dict[str, Any]:
            about = {"namespace": obj.namespace, "name": obj.name, "uid": obj.uid}
            kind = {"type": obj.spec.type, "priority": obj.spec.priority}
            return {"time": time, "event": event, **about, **kind, **members}

        lines = [
            line(
                "notification.attempted",
                channel=attempt.channel,
                attempt=attempt.attempt,
                result=attempt.result,
                **({"error": attempt.error} if attempt.error else {}),
                durationSeconds=attempt.duration_seconds,
                idempotencyKey=f"{obj.uid}/{attempt.channel}",
            )
            for attempt in record.attempts
        ]
        if record.finished:
            lines.append(
                line("notification.finished", phase=after.phase, reason=after.reason, attempts=after.total_attempts)
            )
        return lines
