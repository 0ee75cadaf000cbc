"""A shard in a separate process. It writes a line to a file when a reconcile starts and when it ends.

Usage: shard_process.py KUBECONFIG NAMESPACE SHARD FILE
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from pathlib import Path

from reconciler.client import Client
from reconciler.controller import Outcome, Reconciler, Result
from reconciler.manager import Manager, ShardRing
from reconciler.meta import Request

KIND = "v1/ConfigMap"
RING = "maps"


class LoggingReconciler(Reconciler):
    """A reconciler that takes a while, writes, and requeues."""

    def __init__(self, file: Path, shard: str) -> None:
        # Unbuffered: the file must contain the reconciles that a killed process has started.
        self._file = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._shard = shard
        self._rng = random.Random(shard)

    async def reconcile(self, request: Request, /) -> Outcome:
        self._note("begin", request)
        try:
            await asyncio.sleep(self._rng.uniform(0.02, 0.2))
            patch = {"data": {"by": self._shard}}
            await self.client.patch(KIND, request.name, request.namespace, patch=patch)
        finally:
            self._note("end", request)
        return Result(requeue_after=self._rng.uniform(0.2, 0.6))

    def _note(self, what: str, request: Request) -> None:
        # One clock for all processes of the machine, which cannot be set.
        os.write(self._file, f"{time.monotonic():.6f} {self._shard} {what} {request.name}\n".encode())


async def main(kubeconfig: str, namespace: str, shard: str, file: str) -> None:
    ring = ShardRing(
        RING, [KIND], shard=shard, namespace=namespace, lease_duration=6, renew_deadline=5, retry_period=0.5
    )
    async with Client.from_config(kubeconfig=kubeconfig, user_agent=shard) as client:
        manager = Manager(client, namespaces=[namespace], sharding=ring, grace_period=5)
        manager.add_controller(LoggingReconciler(Path(file), shard), resource=KIND, workers=4)
        await manager.run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:5]))
