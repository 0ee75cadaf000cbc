"""An operator in a separate process, which tests signal, stop and block. It prints what it does.

Usage: operator_process.py KUBECONFIG MODE [leader] [short] [running]

leader: with leader election. short: with very short timeouts. running: in a block of `Manager.running`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import Sequence

from reconciler.client import Client
from reconciler.clock import boottime_of, current_clock
from reconciler.controller import Outcome, ReconcileCancelled, Reconciler, ResourceReconciler
from reconciler.manager import LeaderElection, Manager, lifecycle
from reconciler.meta import Request
from reconciler.objects import Unstructured
from reconciler.status import StatusBatcher

LEASE = LeaderElection(
    "operator", namespace="default", identity="child", lease_duration=4, renew_deadline=3, retry_period=0.3
)


def report(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - the test reads it


class Slow(Reconciler):
    async def reconcile(self, request: Request, /) -> Outcome:
        report("reconciling")
        await asyncio.sleep(0.5)
        report("reconciled")
        return None


class Endless(Reconciler):
    async def reconcile(self, request: Request, /) -> Outcome:
        report("reconciling")
        await asyncio.sleep(600)
        return None


class Blocking(Reconciler):
    """A reconciler that blocks the event loop."""

    async def reconcile(self, request: Request, /) -> Outcome:
        report("reconciling")
        time.sleep(600)  # noqa: ASYNC251 - the fault that is tested
        return None


class Hung(Reconciler):
    """A reconciler that hangs in a thread."""

    def reconcile(self, request: Request, /) -> Outcome:
        report("reconciling")
        time.sleep(600)
        return None


class HungInWait(Reconciler):
    """A reconciler that hangs in a thread and waits again each time it is told to end."""

    def reconcile(self, request: Request, /) -> Outcome:
        report("reconciling")
        while True:
            with contextlib.suppress(ReconcileCancelled):
                self.wait(asyncio.sleep(600))
            time.sleep(0.01)


class HungFinalize(ResourceReconciler[Unstructured], resource="v1/ConfigMap"):
    """A reconciler that hangs in a thread while an object is deleted."""

    async def reconcile_object(self, obj: Unstructured, status: StatusBatcher, /) -> Outcome:
        await self.client.delete("v1/ConfigMap", obj.name, obj.namespace)

    def finalize(self, obj: Unstructured, status: StatusBatcher, /) -> Outcome:
        report("reconciling")
        time.sleep(600)


class Writing(Reconciler):
    """A reconciler that writes continuously, so that a step is always ready when the process resumes."""

    async def reconcile(self, request: Request, /) -> Outcome:
        report("reconciling")
        number = 0
        while True:
            number += 1
            await self.client.patch("v1/ConfigMap", request.name, request.namespace, patch={"data": {"n": str(number)}})


class Recording(ResourceReconciler[Unstructured], resource="v1/Pod"):
    """A reconciler that writes the status continuously."""

    async def reconcile_object(self, obj: Unstructured, status: StatusBatcher, /) -> Outcome:
        report("reconciling")
        number = 0
        while True:
            number += 1
            status.set(message=f"child {number}")
            await status.flush()


class Delivering(Reconciler):
    """A reconciler with continuous effects outside the cluster, timed by a clock that all processes share."""

    async def reconcile(self, request: Request, /) -> Outcome:
        report("reconciling")
        while True:
            self.check_leader()
            report(f"delivered {boottime_of(current_clock())()}")
            await asyncio.sleep(0)


KINDS = (
    Slow,
    Endless,
    Blocking,
    Hung,
    HungInWait,
    HungFinalize,
    Writing,
    Recording,
    Delivering,
)
MODES = {each.__name__.lower(): each for each in KINDS}


async def main(kubeconfig: str, mode: str, options: Sequence[str]) -> None:
    grace = 30.0
    if "short" in options:
        grace = lifecycle.CANCEL_TIMEOUT = 0.2
    async with Client.from_config(kubeconfig=kubeconfig, user_agent="child") as client:
        manager = Manager(client, leader_election=LEASE if "leader" in options else None, grace_period=grace)
        manager.add_controller(MODES[mode](), resource="v1/Pod" if mode == "recording" else "v1/ConfigMap")
        if "running" in options:
            async with manager.running():
                await asyncio.sleep(600)
        else:
            await manager.run()
    report("left")


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
