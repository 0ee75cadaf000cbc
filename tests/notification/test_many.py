"""Hundreds of requests, 20 workers, 3 channels, and faults on a tenth of all calls and writes.

What is expected is computed by a model of its own, from the same faults: it knows channels, policy and nothing else.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest

from reconciler.notification import (
    DeferredDeliveryError,
    Message,
    NotificationRequest,
    PermanentDeliveryError,
    RetryableDeliveryError,
    UnknownDeliveryError,
)
from tests.notification.world import document, virtual, world

CHANNELS = ("one", "two", "three")
GUARANTEES = ("AtLeastOnce", "Bounded", "AtMostOnce")
ATTEMPTS = 3
SHARE = 0.1
FAULTS = ("busy", "lost", "gone", "deferred", "busy", "crash")


def fate(seed: int, name: str, channel: str, call: int) -> str:
    """Return the fault of the nth call for a request on a channel, or None in nine of ten cases."""
    digest = hashlib.sha256(f"{seed}/{name}/{channel}/{call}".encode()).digest()
    rng = random.Random(digest)
    return rng.choice(FAULTS) if rng.random() < SHARE else "ok"


@dataclass
class Faulty:
    """A slow channel with predetermined faults."""

    name: str
    seed: int
    calls: Counter[str] = field(default_factory=Counter)

    async def deliver(self, message: Message) -> None:
        self.calls[message.name] += 1
        call = self.calls[message.name]
        await asyncio.sleep(random.Random(f"{message.name}{call}").uniform(0.01, 0.5))
        match fate(self.seed, message.name, self.name, call):
            case "busy":
                raise RetryableDeliveryError("503")
            case "lost":
                raise UnknownDeliveryError("no response")
            case "gone":
                raise PermanentDeliveryError("410")
            case "deferred":
                raise DeferredDeliveryError("429", retry_after=7)
            case "crash":
                raise ZeroDivisionError


@dataclass
class Expected:
    """The final state of a channel, and its numbers of calls and attempts."""

    calls: int = 0
    attempts: int = 0
    state: str = ""


def expected(seed: int, name: str, channel: str, guarantee: str) -> Expected:
    found = Expected()
    while not found.state:
        found.calls += 1
        met = fate(seed, name, channel, found.calls)
        if met == "deferred":
            continue
        found.attempts += 1
        if met == "ok":
            found.state = "Delivered"
        elif guarantee == "AtMostOnce" and met in {"lost", "crash"}:
            found.state = "Unknown"
        elif met == "gone" or found.attempts == ATTEMPTS:
            found.state = "Failed"
    return found


def phase(states: set[str]) -> str:
    if states == {"Delivered"}:
        return "Sent"
    return "PartiallySent" if "Delivered" in states else "Failed"


@virtual
@pytest.mark.timeout(120)
@pytest.mark.parametrize(("seed", "requests", "writes_fail"), [(1, 200, False), (2, 500, True)])
async def test_many_requests_end_with_the_exact_number_of_calls(seed: int, requests: int, writes_fail: bool) -> None:
    channels = [Faulty(name, seed) for name in CHANNELS]
    guarantee = {f"n-{number}": GUARANTEES[number % 3] for number in range(requests)}
    async with world() as w:
        if writes_fail:
            rng = random.Random(seed)
            kinds: list[dict[str, Any]] = [{"status": 409}, {"status": 500}, {"status": 503}, {"lost": True}]
            for _ in range(requests * 4 // 10):
                name = rng.choice(list(guarantee))
                w.server.faults.add(subresource="status", name=name, **rng.choice(kinds))
        async with w.operator(*channels, workers=20, rng=random.Random(seed)) as (controller, reconciler):
            for name, wanted in guarantee.items():
                spec = {"delivery": wanted}
                policy = {"maxAttempts": ATTEMPTS, "jitter": 0.2}
                await w.client.create(NotificationRequest.from_dict(document(CHANNELS, name=name, spec=spec, **policy)))
            await asyncio.sleep(20_000)
            statistics, counted = controller.statistics(), reconciler.statistics()
        statuses = {each.name: each.to_dict()["status"] for each in await w.client.list(NotificationRequest, "default")}
        cycles = w.server.log.cycles(NotificationRequest, subresource="status", effective=True)
        written = w.writes

    wanted_of = {
        name: {channel: expected(seed, name, channel, how) for channel in CHANNELS} for name, how in guarantee.items()
    }
    for name, wanted_channels in wanted_of.items():
        status = statuses[name]
        assert status["phase"] == phase({each.state for each in wanted_channels.values()}), name
        assert status["totalAttempts"] == len(status["deliveryAttempts"])
        for entry in status["channels"]:
            each = wanted_channels[entry["name"]]
            assert (entry["state"], entry["attempts"]) == (each.state, each.attempts), (name, entry)
    for channel in channels:
        assert channel.calls == {name: wanted_of[name][channel.name].calls for name in guarantee}
    assert counted.finished == requests
    assert (counted.active, counted.unpublished) == (0, 0)
    most = {"AtLeastOnce": 1, "Bounded": 2, "AtMostOnce": 2}
    assert sum(len(cycle) for cycle in cycles) == written >= requests
    for cycle in cycles:
        assert len(cycle) <= most[guarantee[cycle[0].name]] + writes_fail
    if not writes_fail:
        assert statistics.results["error"] == 0
        assert counted.early == 0
