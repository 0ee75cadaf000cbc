"""Record decisions on a batcher, as mutations that may be replayed on a newer version."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel

from reconciler.meta import format_micro_time
from reconciler.notification._resource import TERMINAL_PHASES, NotificationRequestStatus
from reconciler.notification._schedule import Decision
from reconciler.objects import InvalidObject
from reconciler.status import StatusBatcher

__all__ = ["record", "record_refusal"]

_DERIVED = (
    "phase",
    "reason",
    "message",
    "total_attempts",
    "successful_deliveries",
    "failed_deliveries",
    "queued_at",
    "completion_time",
)


def record(
    status: StatusBatcher[NotificationRequestStatus], before: NotificationRequestStatus, decision: Decision
) -> None:
    """Record what a decision changes.

    Attempts and channels go by their keys, so that recording them again on another version adds nothing twice.
    """
    after = decision.status
    for attempt in decision.attempts:
        status.upsert("deliveryAttempts", _document(attempt), key=("channel", "attempt"))
    stored = {channel.name: channel for channel in before.channels}
    for channel in after.channels:
        if channel != stored.get(channel.name):
            status.upsert("channels", _document(channel), key="name")
    # What follows from the ledger is this operator's to say: a foreign value in it must not keep an attempt unsaved.
    status.set(overwrite=True, **after.model_dump(mode="json", include=set(_DERIVED), exclude_none=True))
    _record_condition(status, after.phase or "", after.reason or "", after.message or "")


def record_refusal(status: StatusBatcher[NotificationRequestStatus], error: InvalidObject, *, now: datetime) -> None:
    """Record that a request cannot be read and is given up; a request that has ended stays as it is."""
    if status.current.get("phase") in TERMINAL_PHASES:
        return
    message = f"Not delivered, the request is not valid: {error}"
    status.set(
        phase="Failed", reason="InvalidSpec", message=message, completion_time=format_micro_time(now), overwrite=True
    )
    _record_condition(status, "Failed", "InvalidSpec", message)


def _record_condition(status: StatusBatcher[NotificationRequestStatus], phase: str, reason: str, message: str) -> None:
    status.set_condition("Ready", phase in {"Sent", "PartiallySent"}, reason=reason, message=message)


def _document(model: BaseModel) -> dict[str, Any]:
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)
