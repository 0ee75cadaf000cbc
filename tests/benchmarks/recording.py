"""The cost of a recording: the CPU of a reconcile with one to that without, both measured in one process.

``python -m tests.benchmarks.recording`` prints the ratio: the median over pairs of rounds, one with and one without, of
two managers that run side by side. The order alternates. The embedded API server is part of both; with
``--control-plane`` the server is a real one, in processes of its own, whose CPU is not counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from reconciler import Client, Manager, Outcome, Recording, ResourceReconciler, StatusBatcher
from reconciler.apiserver import APIServer
from reconciler.controller import Controller
from reconciler.testing import Cluster
from reconciler.testing.control_plane import ControlPlane
from tests.benchmarks.contenders.widget import Widget, WidgetStatus, widget

OBJECTS = 100
WARM_UP = 4
PAIRS = 40


class Rounds(ResourceReconciler[Widget]):
    """Writes a status that differs in each round."""

    number = 0

    async def reconcile_object(self, widget: Widget, status: StatusBatcher[WidgetStatus]) -> Outcome:
        status.set(run=f"round {self.number}")
        status.set_condition("Ready", True, reason="Provisioned", message="1 of 1")
        return None


async def start(
    recording: Recording | None, stack: contextlib.AsyncExitStack, plane: ControlPlane | None
) -> Controller:
    """Return a controller of a manager of its own, on an embedded server of its own or in a namespace of a real one."""
    namespace = "plain" if recording is None else "recorded"
    if plane is None:
        server = await stack.enter_async_context(APIServer())
        client = await stack.enter_async_context(Client(server))
        await server.apply(Widget)
    else:
        client = await stack.enter_async_context(plane.client())
        await client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    for number in range(OBJECTS):
        await client.create(widget(number, namespace))
    manager = Manager(client, recording=recording, namespaces=[namespace])
    controller = manager.add_controller(Rounds(), workers=4)
    await stack.enter_async_context(manager.running())
    await asyncio.sleep(0.1 if plane is None else 2)
    return controller


async def microseconds(controller: Controller, recording: Recording | None) -> float:
    """Return the CPU of one reconcile: the mean of a round over all objects, with what the writer does."""
    Rounds.number += 1
    done = controller.statistics().reconciles + OBJECTS
    began = time.process_time()
    for key in list(controller.history.keys()):
        controller.enqueue(key)
    while controller.statistics().reconciles < done:  # noqa: ASYNC110 - an observer would be measured as well
        await asyncio.sleep(0.01)
    if recording is not None:
        recording._write()
    return (time.process_time() - began) / OBJECTS * 1e6


async def measure(plane: ControlPlane | None) -> tuple[Sequence[float], Sequence[float]]:
    """Return the figures without a recording, and with one, pair by pair."""
    without: list[float] = []
    recorded: list[float] = []
    async with contextlib.AsyncExitStack() as stack:
        if plane is not None:
            await Cluster("real", await stack.enter_async_context(plane.client()), "default", plane).install(Widget)
        recording = Recording(Path(stack.enter_context(tempfile.TemporaryDirectory())) / "recording")
        sides = [
            (await start(None, stack, plane), None, without),
            (await start(recording, stack, plane), recording, recorded),
        ]
        for number in range(WARM_UP + PAIRS):
            if number == WARM_UP:
                gc.collect()
                gc.freeze()  # as `Manager.run` does
            for controller, own, figures in sides if number % 2 else reversed(sides):
                figures.append(await microseconds(controller, own))
    return without[WARM_UP:], recorded[WARM_UP:]


def main() -> None:
    """Print the ratio."""
    with ControlPlane() if "--control-plane" in sys.argv else contextlib.nullcontext() as plane:
        without, recorded = asyncio.run(measure(plane))
    ratios = sorted(each / base for base, each in zip(without, recorded, strict=True))
    quarter = len(ratios) // 4
    sys.stdout.write(
        f"without: {statistics.median(without):.0f} µs of CPU per reconcile; recorded: "
        f"{statistics.median(recorded):.0f} µs; ratio {statistics.median(ratios):.3f} "
        f"({ratios[quarter]:.3f} to {ratios[-quarter]:.3f} in the middle half of {len(ratios)} pairs)\n"
    )


if __name__ == "__main__":
    main()
