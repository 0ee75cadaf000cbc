"""The audit log: a JSON line for each attempt and each finished request, after the status write."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec.json

from reconciler._core.wire import JSONObject
from reconciler.clock import current_clock
from reconciler.errors import ConfigurationError
from reconciler.meta.documents import format_micro_time
from reconciler.notification.channel import idempotency_key
from reconciler.notification.delivery import recipients_of
from reconciler.notification.redaction import escaped
from reconciler.notification.schedule import StatusChange

_log = logging.getLogger("reconciler.notification")

RETRY = 5.0
"""Seconds between attempts to write to a file that could not be written."""


@dataclass(frozen=True, slots=True)
class AuditStatistics:
    """Counts of audit records.

    Attributes:
        written: lines written to the file.
        waiting: lines waiting to be written.
        dropped: lines lost because the file could not be written for too long.
    """

    written: int
    waiting: int
    dropped: int


class AuditLog:
    """An observer that appends a line to a file for each attempt and each finished request.

    A line is a JSON object with ``time``, ``event``, ``namespace``, ``name``, ``uid``, ``type``, ``priority``,
    ``subject`` (redacted) and, if the request has them, ``sender``, ``incident``, ``action`` and ``correlationId``. The
    events are ``notification.attempted`` with ``channel``, ``recipients``, ``attempt``, ``result`` (``success``,
    ``failure``, ``unknown``), ``error`` (redacted), ``durationSeconds`` and ``idempotencyKey``;
    ``notification.finished`` with ``phase``, ``reason`` and ``attempts``; and ``audit.dropped`` with the ``count`` of
    lines that were lost. The body is not included.

    A line is written after its status write, so each attempt has at most one line. A process that dies in between loses
    it. Pass the log to the reconciler as an observer, and add it to the manager to run it.

    Args:
        path: the file, created with mode 0600 if it does not exist; ``-`` for standard output. It is opened for each
            batch, so a log rotation may rename it at any time.
        limit: maximum lines that wait in memory. Default 10000; the oldest are dropped first, and counted.
        redact: called with text and the namespace of its request. Default: no change.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        limit: int = 10_000,
        redact: Callable[[str, str], str] = lambda text, _: text,
    ) -> None:
        self._redact = redact
        self._reported = 0  # dropped lines that the file tells of
        self._path = Path(path)
        self._limit = limit
        self._waiting: deque[JSONObject] = deque()
        self._has_lines = asyncio.Event()
        self._written = 0
        self._dropped = 0

    def check(self) -> None:
        """Check that the file can be written, to fail at startup rather than later.

        Raises:
            ConfigurationError: the file cannot be written.
        """
        try:
            self._append([])
        except OSError as error:
            raise ConfigurationError(f"cannot write the audit file {self._path}: {error.strerror or error}") from error

    def statistics(self) -> AuditStatistics:
        """Return the current counts."""
        return AuditStatistics(self._written, len(self._waiting), self._dropped)

    def status_saved(self, change: StatusChange, /) -> None:
        """Queue the lines for a saved status change."""
        for line in self._lines(change):
            if len(self._waiting) >= self._limit:
                self._waiting.popleft()
                self._dropped += 1
            self._waiting.append(line)
        self._has_lines.set()

    async def run(self) -> None:
        """Write queued lines until cancelled, then write once more; lines that cannot be written count as lost."""
        writing: asyncio.Task[None] | None = None
        logged = False
        try:
            while True:
                await self._has_lines.wait()
                self._has_lines.clear()
                writing = asyncio.create_task(asyncio.to_thread(self._write))
                try:
                    await asyncio.shield(writing)
                    logged = False
                except OSError as error:
                    if not logged:
                        _log.error("cannot write the audit file %s, retrying every %g s: %s", self._path, RETRY, error)
                    logged = True
                    await asyncio.sleep(RETRY)
                    self._has_lines.set()
        finally:
            if writing is not None:
                await asyncio.wait([writing])  # otherwise its lines would be written twice
            with contextlib.suppress(OSError):
                self._write()
            self._dropped += len(self._waiting)
            self._waiting.clear()
            if self._dropped:
                _log.error("audit file %s: %d records were lost", self._path, self._dropped)

    def _write(self) -> None:
        """Write the queued lines in one batch; lines leave the queue only after they are written."""
        batch = list(self._waiting)
        if not batch:
            return
        dropped = self._dropped - self._reported
        gap: list[JSONObject] = [{"time": self._time(), "event": "audit.dropped", "count": dropped}] if dropped else []
        self._append([*gap, *batch])
        self._reported += dropped
        self._written += len(batch)
        for line in batch:
            if self._waiting and self._waiting[0] is line:  # otherwise it was dropped to make room
                self._waiting.popleft()

    def _append(self, records: Sequence[JSONObject]) -> None:
        """Append records to the file, or write them to standard output."""
        lines = (escaped(msgspec.json.encode(record).decode()) + "\n" for record in records)
        content = "".join(lines).encode()
        if str(self._path) == "-":
            sys.stdout.buffer.write(content)
            sys.stdout.flush()
            return
        descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "r+b", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 1))
            if content and file.read(1) not in (b"", b"\n"):  # a line cut short by a process that died, or a full disk
                content = b"\n" + content
            if content and file.write(content) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _time(self) -> str:
        return format_micro_time(current_clock().now())

    def _lines(self, change: StatusChange) -> list[JSONObject]:
        obj, after = change.request, change.after
        namespace = obj.namespace or ""
        spec, time = obj.spec, self._time()
        known = {
            "sender": spec.sender,
            "incident": spec.incident.key if spec.incident is not None else None,
            "action": spec.incident.action if spec.incident is not None else None,
            "correlationId": spec.correlation_id,
        }
        about = {
            "namespace": obj.namespace,
            "name": obj.name,
            "uid": obj.uid,
            "type": spec.type,
            "priority": spec.priority,
            "subject": self._redact(spec.subject, namespace),
            **{name: self._redact(value, namespace) for name, value in known.items() if value},
        }

        def line(event: str, **members: Any) -> JSONObject:
            return {"time": time, "event": event, **about, **members}

        lines = [
            line(
                "notification.attempted",
                channel=attempt.channel,
                **({"recipients": list(to)} if (to := recipients_of(obj, attempt.channel)) else {}),
                attempt=attempt.attempt,
                result=attempt.result,
                **({"error": attempt.error} if attempt.error else {}),
                durationSeconds=attempt.duration_seconds,
                idempotencyKey=idempotency_key(obj.uid, attempt.channel),
            )
            for attempt in change.attempts
        ]
        if change.finished:
            lines.append(
                line("notification.finished", phase=after.phase, reason=after.reason, attempts=after.total_attempts)
            )
        return lines
