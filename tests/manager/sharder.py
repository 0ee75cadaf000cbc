"""The other side of a ring: a minimal sharder that implements the contract of kubernetes-controller-sharding.

It watches Leases and objects, assigns objects by rendezvous hash, drains objects that belong to another shard, and
moves the objects of a dead shard by force. A shard whose Lease has expired is dead once the sharder has acquired the
Lease itself, so that the shard cannot come back in the meantime.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from typing import Any

from reconciler.cache import Cache, CachedObject
from reconciler.client import Client
from reconciler.clock import current_clock
from reconciler.errors import APIError, TransportError
from reconciler.objects.kinds import KindLike

LEASE = "coordination.k8s.io/v1/Lease"
RING_LABEL = "alpha.sharding.timebertt.dev/controllerring"


class Sharder:
    """A sharder that assigns the objects of one kind to the shards of a ring.

    Args:
        client: reads and writes.
        ring: the ring's name.
        kind: the kind to assign.
        namespace: the namespace of Leases and objects.
    """

    def __init__(self, client: Client, ring: str, kind: KindLike, namespace: str) -> None:
        self._client = client
        self._kind = kind
        self._namespace = namespace
        self.ring = ring
        self.shard_label = f"shard.alpha.sharding.timebertt.dev/{ring}"
        self.drain_label = f"drain.alpha.sharding.timebertt.dev/{ring}"
        self.alive: list[str] = []
        self.drained = 0
        self.forced = 0
        self._observed: dict[str, tuple[Any, float]] = {}
        self._news = asyncio.Event()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Sharder]:
        """Run during the block."""
        async with Cache(self._client, namespaces=[self._namespace]) as cache:
            leases = await cache.informer(LEASE, label_selector={RING_LABEL: self.ring})
            objects = await cache.informer(self._kind, metadata_only=True)
            await cache.wait_synced(30)
            for informer in (leases, objects):
                informer.add_handler(lambda _: self._news.set())

            async def work() -> None:
                while True:
                    self._news.clear()
                    with contextlib.suppress(APIError, TransportError):  # it tries again
                        self.alive = [each.name for each in leases.store.list() if await self._is_alive(each)]
                        await asyncio.gather(*map(self._assign, objects.store.list()))
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(0.2):  # `wait_for` of Python 3.11 may swallow a cancellation
                            await self._news.wait()

            task = asyncio.create_task(work())
            try:
                yield self
            finally:
                task.cancel()
                await asyncio.wait({task})

    async def _is_alive(self, lease: CachedObject) -> bool:
        document = lease.decode()
        spec = document["spec"]
        now = current_clock().monotonic()
        if self._observed.get(lease.name, (None, 0))[0] != spec:
            self._observed[lease.name] = spec, now
        if spec.get("holderIdentity") != lease.name:
            return False
        if now < self._observed[lease.name][1] + spec["leaseDurationSeconds"]:
            return True
        await self._client.update({**document, "spec": {**spec, "holderIdentity": "sharder"}})
        return False

    async def _assign(self, obj: CachedObject) -> None:
        if not self.alive:
            return
        wanted = max(self.alive, key=lambda shard: hashlib.sha256(f"{shard}/{obj.name}".encode()).digest())
        has = obj.labels.get(self.shard_label)
        if has == wanted:
            return
        labels: dict[str, str | None] = {self.shard_label: wanted, self.drain_label: None}
        if has in self.alive:
            if self.drain_label in obj.labels:
                return
            self.drained += 1
            labels = {self.drain_label: "true"}
        elif has is not None:
            self.forced += 1
        with contextlib.suppress(APIError):  # another writer was faster: its watch event follows
            await self._client.patch(
                self._kind,
                obj.name,
                obj.namespace,
                patch={"metadata": {"resourceVersion": str(obj.version), "labels": labels}},
            )
