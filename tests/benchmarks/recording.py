"""The cost of a recording: the CPU of a reconcile with one to that without, both measured in one process.

``python -m tests.benchmarks.recording`` prints the ratio: the median over pairs that are measured one after the other,
in alternating order. The embedded API server is part of both.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from reconciler import Client, Manager, Outcome, Recording, ResourceReconciler, StatusBatcher
from reconciler.apiserver import APIServer
from tests.benchmarks.contenders.widget import Widget, WidgetStatus, widget

OBJECTS = 200
ROUNDS = 5
REPETITIONS = 12


class Rounds(ResourceReconciler[Widget]):
    """Writes a status that differs in each round."""

    number = 0

    async def reconcile_object(self, widget: Widget, status: StatusBatcher[WidgetStatus]) -> Outcome:
        status.set(run=f"round {self.number}")
        status.set_condition("Ready", True, reason="Provisioned", message="1 of 1")
        return None


async def microseconds(client: Client, recording: Recording | None) -> float:
    """Return the CPU of one reconcile, in the best of some rounds over all objects."""
    reconciler = Rounds()
    manager = Manager(client, recording=recording)
    controller = manager.add_controller(reconciler, workers=4)
    rounds = []
    async with manager.running():
        await asyncio.sleep(0.1)
        gc.collect()
        gc.freeze()  # as `Manager.run` does
        for _ in range(ROUNDS):
            Rounds.number += 1
            done = controller.statistics().reconciles + OBJECTS
            began = time.process_time()
            for key in list(controller.history.keys()):
                controller.enqueue(key)
            while controller.statistics().reconciles < done:  # noqa: ASYNC110 - an observer would be measured as well
                await asyncio.sleep(0.02)
            if recording is not None:
                await asyncio.to_thread(recording._write)
            rounds.append((time.process_time() - began) / OBJECTS * 1e6)
    return min(rounds[1:])  # the first one also lists and decodes


async def measure() -> tuple[Sequence[float], Sequence[float]]:
    """Return the figures without a recording, and with one, pair by pair."""
    without, recorded = [], []
    async with APIServer() as server, Client(server) as client:
        await server.apply(Widget)
        for number in range(OBJECTS):
            await server.apply(widget(number, "default"))
        for number in range(REPETITIONS):
            for records in (number % 2 == 0, number % 2 == 1):
                with tempfile.TemporaryDirectory() as directory:
                    recording = Recording(Path(directory) / "recording") if records else None
                    (recorded if records else without).append(await microseconds(client, recording))
    return without, recorded


def main() -> None:
    """Print the ratio."""
    without, recorded = asyncio.run(measure())
    ratios = sorted(each / base for base, each in zip(without, recorded, strict=True))
    sys.stdout.write(
        f"without: {statistics.median(without):.0f} µs of CPU per reconcile; recorded: "
        f"{statistics.median(recorded):.0f} µs; ratio {statistics.median(ratios):.3f} "
        f"({ratios[0]:.3f} to {ratios[-1]:.3f})\n"
    )


if __name__ == "__main__":
    main()
