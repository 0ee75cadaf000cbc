"""An operator with a console, and objects in every state: ``python -m tests.manager.console.scene`` prints its URL.

The browser tests look at it, and the pictures of the docs show it.
"""

from __future__ import annotations

import asyncio
import contextlib

from pydantic import Field

from reconciler import (
    Client,
    ConditionedStatus,
    Manager,
    Model,
    ObjectMeta,
    Outcome,
    Resource,
    ResourceReconciler,
    Result,
    StatusBatcher,
    TerminalError,
)
from reconciler.apiserver import APIServer
from reconciler.manager import LeaderElection
from reconciler.workqueue import ExponentialBackoff

SECRET = "hunter2-hunter2"
MARKUP = "<b>large</b>"


class DatabaseSpec(Model):
    size: int = Field(default=10)
    password: str = ""


class DatabaseStatus(ConditionedStatus):
    phase: str | None = None


class Database(Resource[DatabaseSpec, DatabaseStatus], group="example.com", version="v1"):
    """A database."""


class DatabaseReconciler(ResourceReconciler[Database]):
    async def reconcile_object(self, db: Database, status: StatusBatcher[DatabaseStatus]) -> Outcome:
        match db.name:
            case "orders":
                raise LookupError("no disk of 400 GB in zone eu-1a: 3 of 3 requests were refused")
            case "reports":
                raise TerminalError(f"size {db.spec.size} is below the minimum of 10 for the class {MARKUP}")
            case "hangs":
                await asyncio.sleep(3600)
        await asyncio.sleep(0.02)
        status.set(phase="Ready")
        return Result(requeue_after=20 + len(db.name)) if db.namespace == "team-b" else None


class Backup(Resource[DatabaseSpec, DatabaseStatus], group="example.com", version="v1"):
    """A backup."""


class BackupReconciler(ResourceReconciler[Backup]):
    async def reconcile_object(self, backup: Backup, status: StatusBatcher[DatabaseStatus]) -> Outcome:
        await asyncio.sleep(0.05)
        status.set(phase="Done")
        return Result(requeue_after=2)


async def main() -> None:
    async with APIServer() as server, Client(server) as client:
        await server.apply(Database, Backup)
        for number in range(24):
            name = f"cache-{number}"
            metadata = ObjectMeta(name=name, namespace="team-b")
            await client.create(Database(metadata=metadata, spec=DatabaseSpec(size=number + 10)))
        for name in ("orders", "customers", "reports", "hangs"):
            size = 1 if name == "reports" else 100
            metadata = ObjectMeta(name=name, namespace="team-a")
            await client.create(Database(metadata=metadata, spec=DatabaseSpec(size=size, password=SECRET)))
        for number in range(6):
            metadata = ObjectMeta(name=f"nightly-{number}", namespace="team-a")
            await client.create(Backup(metadata=metadata, spec=DatabaseSpec()))
        manager = Manager(
            client, console="127.0.0.1:0", leader_election=LeaderElection("database-operator", namespace="ops")
        )
        limiter = ExponentialBackoff(0.5, 600, jitter=0)
        manager.add_controller(DatabaseReconciler(), workers=4, stuck_after=10, rate_limiter=limiter)
        manager.add_controller(BackupReconciler(), workers=2)
        async with manager.running():
            print(manager.console_url, flush=True)  # noqa: T201 - for the process that has started this one
            for size in range(101, 10_000):
                await asyncio.sleep(2)
                patch = {"spec": {"size": size, "password": f"{SECRET}-{size}"}}
                await client.patch(Database, "customers", "team-a", patch=patch, field_manager="kubectl-edit")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
