"""Stand-ins for the cluster's own controllers: workloads and their pods, claims, endpoints, disruption budgets.

They are controllers of this library, and clients of a server like any other. Their status is that of
kube-controller-manager 1.36; their pods run without nodes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from reconciler._workloads.base import AFTER, EXIT_CODE, PodRunner, WorkloadReconciler
from reconciler._workloads.claims import Claims, provide_class
from reconciler._workloads.deployments import Deployments, ReplicaSets
from reconciler._workloads.jobs import Jobs
from reconciler._workloads.selected import DisruptionBudgets, Endpoints
from reconciler._workloads.sets import DaemonSets, StatefulSets
from reconciler.client import Client
from reconciler.clock import Clock, current_clock
from reconciler.http import HTTPRequest, HTTPResponse, Transport
from reconciler.manager import Manager

__all__ = ["AFTER", "EXIT_CODE", "WorkloadControllers"]


_STAND_INS: dict[str, tuple[type[WorkloadReconciler], ...]] = {
    "deployments": (Deployments, ReplicaSets),
    "statefulsets": (StatefulSets,),
    "daemonsets": (DaemonSets,),
    "jobs": (Jobs,),
    "pods": (),
    "claims": (Claims,),
    "endpoints": (Endpoints,),
    "disruptionbudgets": (DisruptionBudgets,),
}
_NAME = "stand-in-"
_POD_OWNERS = {
    "deployments": "ReplicaSet",
    "statefulsets": "StatefulSet",
    "daemonsets": "DaemonSet",
    "jobs": "Job",
    "pods": "",
}


def _is_not_chatter(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR or not str(getattr(record, "controller", "")).startswith(_NAME)


class _WithoutWarnings:
    """A transport that drops the warnings of a server: those about Endpoints would be for the test's author."""

    def __init__(self, server: Transport) -> None:
        self._server = server

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        response = await self._server.send(request)
        response.warnings = ()
        return response


class WorkloadControllers:
    """The stand-ins for some controllers, connected to a server.

    Args:
        server: what the controllers send their requests to.
        delays: the seconds until a pod is ready, or ends, by controller; those without pods ignore it. A controller
            that is not among them does not run.
        clock: the source of time. Default: the current clock.
    """

    def __init__(self, server: Transport, delays: Mapping[str, float], *, clock: Clock | None = None) -> None:
        clock = clock or current_clock()
        self._client = Client(_WithoutWarnings(server), user_agent="kube-controller-manager", clock=clock)
        self._manager = Manager(self._client, grace_period=0)
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._binds_claims = "claims" in delays
        owners = {_POD_OWNERS[name]: delay for name, delay in delays.items() if name in _POD_OWNERS}
        stand_ins = [stand_in(clock) for name in delays for stand_in in _STAND_INS[name]]
        for each in [*stand_ins, PodRunner(clock, owners)] if owners else stand_ins:
            name = f"{_NAME}{type(each).__name__.lower()}"
            self._manager.add_controller(
                each,
                resource=each.kind,
                owns=each.owned_kinds,
                watches=each.watches(),
                name=name,
                failure_events=False,
            )

    async def start(self) -> None:
        """Start the controllers and wait until they run. Cancellation stops them.

        Raises:
            Exception: they cannot be started.
        """
        started = asyncio.Event()
        # A rollout that takes no time looks like a tight loop.
        logging.getLogger("reconciler.controller").addFilter(_is_not_chatter)
        # A task of its own, since start and stop may be called in different ones.
        self._task = asyncio.create_task(self._run(started), name="stand-ins")
        waiting = asyncio.create_task(started.wait())
        try:
            await asyncio.wait({self._task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await self.stop()
            raise
        finally:
            waiting.cancel()
        if self._task.done():
            await self._task

    async def _run(self, started: asyncio.Event) -> None:
        async with self._client, self._manager.running():
            if self._binds_claims:
                await provide_class(self._client)
            started.set()
            await self._stop.wait()

    async def stop(self) -> None:
        """Stop the controllers and wait until they have ended; does nothing if they do not run.

        Cancellation ends the wait only: the controllers stop.
        """
        task, self._task = self._task, None
        self._stop.set()
        if task is not None:
            await asyncio.wait({task})
            if not task.cancelled():
                task.result()
