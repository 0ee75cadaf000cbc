"""Run the demo: the scenario on virtual time, paced for the eye, and the table at the end."""

from __future__ import annotations

import asyncio
import math
import sys
import time

import msgspec

from reconciler.cli.demo.scenario import Facts, play
from reconciler.cli.demo.timeline import TimelineView
from reconciler.errors import ConfigurationError
from reconciler.testing import virtual_time

__all__ = ["run_demo"]

_FRAME = 1 / 30
"""Real seconds between two frames."""
_SLOW_MOTION = 1 / 300
"""The storm is over in half a virtual second; shown this much slower, the eye can follow."""


def run_demo(*, speed: float, naive: bool, as_json: bool) -> int:
    """Play and show the scenario.

    Args:
        speed: virtual seconds in one real second; 0 for at once.
        naive: show the storm instead.
        as_json: print the facts only, at once.

    Raises:
        ConfigurationError: the speed is negative or not finite.
    """
    if not (speed >= 0 and math.isfinite(speed)):
        raise ConfigurationError(f"--speed must be 0 or a positive number of virtual seconds a second, not {speed}")
    if as_json:
        facts = _play(naive=naive, speed=0, view=None)
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(facts.to_dict())).decode() + "\n")
        return 0
    title = "a controller that writes status while it works" if naive else "one status write a cycle, waits stored"
    with TimelineView(title) as view:
        facts = _play(naive=naive, speed=speed * (_SLOW_MOTION if naive else 1), view=view)
    view.close(facts)
    return 0


def _play(*, naive: bool, speed: float, view: TimelineView | None) -> Facts:
    done = False

    def on_tick(now: float) -> None:
        if view is not None and not done:
            view.tick(now)
            if speed:
                time.sleep(_FRAME)

    def on_attempt(attempt: object) -> None:
        if view is not None:
            view.add(attempt)  # type: ignore[arg-type]

    with virtual_time():
        return asyncio.run(play(naive=naive, on_attempt=on_attempt, on_tick=on_tick, tick=speed * _FRAME or 3600))
