"""The cluster's own controllers that a server plays: their names, delays and lifecycle."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from reconciler.clock import Clock
from reconciler.errors import ConfigurationError
from reconciler.http import Transport

if TYPE_CHECKING:
    from reconciler.testing.workloads.controllers import WorkloadControllers

__all__ = ["IMMEDIATE", "StandIns"]

IMMEDIATE = ("garbage", "namespaces")
"""The controllers that are a part of each write."""

_STAND_INS = ("deployments", "statefulsets", "daemonsets", "jobs")
_SECONDS = 1.0


class StandIns:
    """The stand-ins of a server, which are clients of it.

    A mapping gives each the seconds until its pods are ready, or end.

    Raises:
        ConfigurationError: a controller is unknown, or its seconds are not a number, negative or infinite.
    """

    def __init__(self, server: Transport, controllers: Collection[str] | Mapping[str, float], clock: Clock) -> None:
        known = (*IMMEDIATE, *_STAND_INS)
        unknown = {controllers} if isinstance(controllers, str) else set(controllers) - set(known)
        if unknown:
            shown = ", ".join(sorted(map(str, unknown)))
            raise ConfigurationError(f"unknown controllers {shown!r}: choose from {', '.join(known)}")
        chosen = controllers if isinstance(controllers, Mapping) else dict.fromkeys(controllers, _SECONDS)
        self._delays = {name: chosen[name] for name in _STAND_INS if name in chosen}
        for name, delay in self._delays.items():
            if not isinstance(delay, int | float) or not 0 <= delay < math.inf:
                raise ConfigurationError(f"the delay of {name} must be 0 or more seconds, not {delay!r}")
        self._server = server
        self._clock = clock
        self._running: WorkloadControllers | None = None

    async def start(self) -> None:
        """Start them, if there are any. Cancellation stops them."""
        if self._delays:
            from reconciler.testing.workloads.controllers import WorkloadControllers

            self._running = WorkloadControllers(self._server, self._delays, clock=self._clock)
            await self._running.start()

    async def stop(self) -> None:
        """Stop them, if they run. If cancelled, they stop by themselves."""
        running, self._running = self._running, None
        if running is not None:
            await running.stop()
