"""Do what a controller does that writes status while it works: the storm that `reconciler demo --naive` shows.

It runs on the same runtime as everything else. It differs from the real reconciler in two habits: each attempt is
written at once, with a plain patch; and the delay is only returned, never stored. The patch wakes the controller, the
wake-up forgets the delay, and nothing in the object says that it is too early.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from reconciler.clock import current_clock
from reconciler.controller import Outcome, Reconciler, Result
from reconciler.meta import Request, format_micro_time
from reconciler.notification import Channel, Message, NotificationRequest

__all__ = ["NaiveReconciler"]


class NaiveReconciler(Reconciler):
    """Deliver, write, deliver, write; return the delay and hope."""

    def __init__(self, channels: Sequence[Channel]) -> None:
        super().__init__()
        self._channels: Mapping[str, Channel] = {channel.name: channel for channel in channels}

    async def reconcile(self, request: Request, /) -> Outcome:
        """Try every channel that has not delivered yet."""
        notification = await self.client.get(NotificationRequest, request.name, request.namespace)
        policy = notification.spec.retry_policy
        document = notification.to_dict()
        attempts: list[dict[str, Any]] = list((document.get("status") or {}).get("deliveryAttempts") or [])
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
            await self._channels[name].deliver(message)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a channel raises is a failed attempt
            return str(error)
        return None
