"""The notification operator survives what explorations do to it."""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable

import pytest

from reconciler import Manager, ObjectMeta
from reconciler.notification import (
    ConsoleChannel,
    Message,
    NotificationOperator,
    NotificationOptions,
    NotificationRequest,
    NotificationRequestSpec,
    RetryableDeliveryError,
)
from reconciler.notification.api import DeliveryGuarantee
from reconciler.testing.explore import Budget, World
from reconciler.testing.explore.exploration import Exploration
from reconciler.testing.explore.oracles import ORACLES
from reconciler.testing.explore.run import Subject
from tests.depth import THOROUGH


class BusyChannel:
    """A channel in memory whose first attempt fails."""

    name = "busy"

    async def deliver(self, message: Message) -> None:
        if message.attempt == 1:
            raise RetryableDeliveryError("busy: try later")


def add_controllers(manager: Manager) -> None:
    channels = [ConsoleChannel(io.StringIO()), BusyChannel()]
    NotificationOperator(NotificationOptions(console=False, channels=channels)).add_to(manager)


def alarms(delivery: DeliveryGuarantee) -> Callable[[World], Awaitable[None]]:
    def alarm(name: str, channels: list[str], seconds: int | None = None) -> NotificationRequest:
        spec = NotificationRequestSpec(
            type="Escalation",
            subject="Disk almost full",
            body="93 %",
            channels=channels,
            delivery=delivery,
            ttl_seconds_after_finished=seconds,
        )
        return NotificationRequest(metadata=ObjectMeta(name=name, namespace="default"), spec=spec)

    async def scenario(world: World) -> None:
        """Alarm over a channel that must be tried again, and with a request that is deleted ten minutes later."""
        kept = await world.create(alarm("kept", ["console", "busy"]))
        await world.settle()
        await world.create(alarm("expiring", ["console", "log"], 600))
        await world.settle()
        await world.settle(horizon=700)
        await world.delete(kept)

    return scenario


@pytest.mark.parametrize("delivery", ["AtLeastOnce", "Bounded", "AtMostOnce"])
def test_the_notification_operator_survives(delivery: DeliveryGuarantee) -> None:
    # Under the other guarantees a status rightly says that an attempt was lost, or its outcome is unknown.
    oracles = [name for name in ORACLES if name != "final-state" or delivery == "AtLeastOnce"]
    budget = None if THOROUGH else Budget(runs=16)
    outcome = Exploration(Subject(add_controllers, alarms(delivery)), budget=budget, oracles=oracles).explore()
    assert [str(finding) for failure in outcome.failures for finding in failure.findings] == []
    assert sum(outcome.tried.values()) > 0
