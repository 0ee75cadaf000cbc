"""A reconciler that tests control, and objects for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from reconciler.controller import Outcome, Reconciler
from reconciler.meta import Request


class RecordingReconciler(Reconciler):
    """A reconciler that records each reconcile and then calls a function."""

    def __init__(self, work: Callable[[Request], Awaitable[Any]] | None = None) -> None:
        self.started: list[str] = []
        self.ended: list[str] = []
        self.cancelled: list[str] = []
        self._work = work

    async def reconcile(self, request: Request, /) -> Outcome:
        self.started.append(request.name)
        try:
            result = await self._work(request) if self._work is not None else None
        except asyncio.CancelledError:
            self.cancelled.append(request.name)
            raise
        self.ended.append(request.name)
        return result


def config_map(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": {}}
