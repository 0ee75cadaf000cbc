"""The protocol between harness and contender: one program, one piece of work, a JSON object a line.

The harness starts a contender with the options below and waits for its mark ``ready``. It then writes ``go``; from
there on the clock runs. It may write ``stats`` at any time and closes the input to end the contender. Each mark
carries the wall time and the CPU time that the process has used so far, as the kernel counts it. Standard library
only, since what is imported here is part of every Python contender's memory.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import time
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from typing import Any

MANAGER = "controller"
"""Under which field manager every contender writes: the objects remember each name, and more of them cost more."""


@dataclass
class Options:
    """The options that the harness passes to a contender.

    Attributes:
        work: ``"converge"`` writes the status of each object, ``"start"`` fills a cache, ``"read"`` does so and
            reconciles each object without a write.
        kind: ``"Widget"`` or ``"Pod"``; a pod for ``"start"`` and ``"read"`` only.
        kubeconfig: how to reach the server.
        namespace: what to watch.
        run: what to write into ``status.run``; differs each time, so that each run has one write to make.
        count: objects; the mark ``done`` comes with the write of the last object. 0: never.
        workers: objects that are worked on side by side.
        requeue: seconds after which each key runs again; 0 for never.
        loop: ``"asyncio"`` or ``"uvloop"``.
        failing: how many of the objects, the first ones, always fail; for the measurement of the loop's gaps.
        sees: ``"nothing"`` or ``"events"``: whether a bare client lists and watches.
        adaptive: ``"on"`` or ``"off"``: whether work of low priority adapts to the server, in this library; ``"1"``:
            one worker instead, the lowest load that such a limit can reach.
        write: ``"update"``, a PUT of the status as controller-runtime's Update sends, or ``"patch"``, a merge patch.
    """

    work: str
    kind: str
    kubeconfig: str
    namespace: str
    run: str
    count: int
    workers: int
    requeue: float
    loop: str
    failing: int
    sees: str
    write: str
    adaptive: str


def parse() -> Options:
    """Read the options from the command line."""
    parser = argparse.ArgumentParser()
    for name in ("work", "kubeconfig", "namespace", "run"):
        parser.add_argument(f"--{name}", default="")
    parser.add_argument("--kind", choices=("Widget", "Pod"), default="Widget")
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--workers", type=int, default=10)
    parser.add_argument("--requeue", type=float, default=0)
    parser.add_argument("--failing", type=int, default=0)
    parser.add_argument("--loop", default="asyncio")
    parser.add_argument("--sees", choices=("nothing", "events"), default="nothing")
    parser.add_argument("--write", choices=("update", "patch"), default="update")
    parser.add_argument("--adaptive", choices=("on", "off", "1"), default="on")
    return Options(**vars(parser.parse_args()))


@dataclass
class Reporter:
    """Counters, and the marks that the harness reads."""

    count: int = 0
    reconciles: int = 0
    writes: int = 0
    failures: int = 0
    objects: int = 0
    extra: dict[str, Any] = field(default_factory=dict)

    def wrote(self) -> None:
        """Count a status write; the last one is the end of the work."""
        self.writes += 1
        if self.writes == self.count:
            self.mark("done")

    def reconciled(self) -> None:
        """Count a reconcile that writes nothing; the last one is the end of the work."""
        self.reconciles += 1
        if self.reconciles == self.count:
            self.mark("done")

    def mark(self, name: str) -> None:
        """Print a mark."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        line = {
            "mark": name,
            "at": time.time(),
            "cpu": usage.ru_utime + usage.ru_stime,
            "reconciles": self.reconciles,
            "writes": self.writes,
            "failures": self.failures,
            "objects": self.objects,
            **self.extra,
        }
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


async def commands() -> AsyncIterator[str]:
    """Yield what the harness writes, until it closes the input."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield line.decode().strip()


async def obey(reporter: Reporter, lines: AsyncIterator[str]) -> None:
    """Answer ``stats`` until the end of the input."""
    async for _ in lines:
        reporter.mark("stats")


async def meanwhile(running: asyncio.Task[None], wait: Coroutine[Any, Any, None]) -> None:
    """Wait for something; the end of the program's task before it is an error, which the harness sees."""
    waiting = asyncio.create_task(wait)
    await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        waiting.cancel()
        await running


def wanted_status(run: str, generation: int) -> dict[str, Any]:
    """Return the status that a contender without a library for it writes."""
    return {"run": run, "observedGeneration": generation, "conditions": [condition(timestamp())]}


def condition(now: str) -> dict[str, Any]:
    """Return the condition that every contender writes."""
    return {"type": "Ready", "status": "True", "reason": "Provisioned", "message": "1 of 1", "lastTransitionTime": now}


def timestamp() -> str:
    """Return the wall time as the API writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
