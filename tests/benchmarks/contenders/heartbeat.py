"""This library under combined load: many objects, some that always fail, a resync. Does the event loop stay responsive?

A task of its own sleeps a millisecond at a time and notes how long the loop kept it waiting, in wall time and in CPU
time of the loop's thread. The latter is what this library does; the former holds what else the machine was busy with.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import time

from reconciler import Client, Manager, Outcome, Request, ResourceReconciler, StatusBatcher
from tests.benchmarks.contenders.protocol import Options, Reporter, commands, meanwhile, parse
from tests.benchmarks.contenders.widget import Widget, WidgetStatus

_BEAT = 0.001


class Flaky(ResourceReconciler[Widget]):
    """A reconciler that fails for the first objects and succeeds for all others."""

    def __init__(self, options: Options, reporter: Reporter) -> None:
        self.options = options
        self.reporter = reporter

    async def reconcile_object(self, widget: Widget, status: StatusBatcher[WidgetStatus]) -> Outcome:
        self.reporter.reconciles += 1
        if int(widget.name.rpartition("-")[2]) < self.options.failing:
            self.reporter.failures += 1
            raise RuntimeError("this one always fails")
        status.set(run=self.options.run)
        return None

    async def reconcile(self, request: Request, /) -> Outcome:
        outcome = await super().reconcile(request)
        self.reporter.wrote()
        return outcome


async def beat(gaps: list[tuple[float, float]]) -> None:
    """Record how long the loop takes to come back, in wall and CPU seconds."""
    while True:
        wall, used = time.perf_counter(), time.thread_time()
        await asyncio.sleep(_BEAT)
        gaps.append((time.perf_counter() - wall - _BEAT, time.thread_time() - used))


async def main(options: Options) -> None:
    """Run until the input ends; tell the longest gaps with each ``stats``."""
    reporter = Reporter(options.count - options.failing)
    lines = commands()
    gaps: list[tuple[float, float]] = []
    pauses: list[float] = []
    _watch_collector(pauses)
    logging.getLogger("reconciler").addHandler(logging.FileHandler(os.devnull))  # each failure is logged, as always
    logging.getLogger("reconciler").propagate = False
    async with Client.from_config(kubeconfig=options.kubeconfig) as client:
        manager = Manager(client, namespaces=[options.namespace])
        manager.add_controller(Flaky(options, reporter), workers=options.workers)
        informer = await manager.cache.informer(Widget, resync=options.requeue)
        reporter.mark("ready")
        await anext(lines)
        running = asyncio.create_task(manager.run())
        await asyncio.sleep(0)  # the manager collects garbage once, before anything works
        pauses.clear()
        beating = asyncio.create_task(beat(gaps))
        await meanwhile(running, informer.wait_synced())
        reporter.objects = len(informer.store)
        reporter.mark("synced")
        async for _ in lines:
            beating.cancel()  # sorting the gaps takes longer than the library's turns
            reporter.extra = summary(gaps, pauses)
            reporter.mark("stats")
            gaps.clear()
            pauses.clear()
            beating = asyncio.create_task(beat(gaps))
        manager.stop()
        await running
        beating.cancel()


def _watch_collector(pauses: list[float]) -> None:
    begun = 0.0

    def note(phase: str, info: dict[str, int]) -> None:
        nonlocal begun
        if phase == "start":
            begun = time.perf_counter()
        else:
            pauses.append(time.perf_counter() - begun)

    gc.callbacks.append(note)


def summary(gaps: list[tuple[float, float]], pauses: list[float]) -> dict[str, float]:
    """Return the figures, in seconds."""
    walls, used = sorted(gap[0] for gap in gaps), sorted(gap[1] for gap in gaps)
    return {
        "beats": len(gaps),
        "longest": walls[-1],
        "p999": walls[int(len(walls) * 0.999)],
        "longest_cpu": used[-1],
        "longest_gc": max(pauses, default=0.0),
    }


if __name__ == "__main__":
    asyncio.run(main(parse()))
