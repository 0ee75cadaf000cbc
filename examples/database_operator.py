"""An operator in one file: a kind, its reconciler, and the process that runs it.

reconciler crd examples.database_operator:Database | kubectl apply -f -
reconciler manifests examples.database_operator:add_controllers | kubectl apply -f -
python examples/database_operator.py
"""

from __future__ import annotations

import asyncio
from typing import Any

from pydantic import Field

from reconciler import (
    Client,
    ConditionedStatus,
    Manager,
    Model,
    Outcome,
    Resource,
    ResourceReconciler,
    Result,
    StatusBatcher,
)
from reconciler.controller import Permission


class DatabaseSpec(Model):
    """The desired state of a Database."""

    size: int = Field(ge=1, le=100, description="Gigabytes")
    image: str = "postgres:17"


class DatabaseStatus(ConditionedStatus):
    """The observed state of a Database."""

    phase: str | None = None
    ready_replicas: int = 0


class Database(Resource[DatabaseSpec, DatabaseStatus], group="example.com", version="v1", short_names=("db",)):
    """A database, run by a Deployment of one replica."""


class DatabaseReconciler(ResourceReconciler[Database]):
    """Creates one Deployment per Database and reports its state."""

    permissions = (Permission("apps/v1/Deployment", "apply"),)

    async def reconcile_object(self, db: Database, status: StatusBatcher[DatabaseStatus]) -> Outcome:
        """Apply the Deployment and derive the Database's status from its status."""
        deployment = await self.client.apply(deployment_for(db), owner=db)
        ready = (deployment.to_dict().get("status") or {}).get("readyReplicas", 0)
        status.set(phase="Ready" if ready else "Provisioning", ready_replicas=ready)
        status.set_condition(
            "Ready",
            bool(ready),
            reason="Available" if ready else "Provisioning",
            message=f"{ready} of 1 replicas ready",
        )
        return Result(requeue_after=300)


def deployment_for(db: Database) -> dict[str, Any]:
    """Return the desired Deployment of a Database."""
    labels = {"app.kubernetes.io/name": "database", "app.kubernetes.io/instance": db.name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": db.name, "namespace": db.namespace, "labels": labels},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "database", "image": db.spec.image}]},
            },
        },
    }


def add_controllers(manager: Manager) -> None:
    """Add this operator's controllers to a manager; also called by ``reconciler run`` and ``reconciler manifests``."""
    manager.add_controller(DatabaseReconciler(), owns=["apps/v1/Deployment"], workers=4)


async def main() -> None:
    """Run until SIGTERM."""
    async with Client.from_config() as client:
        manager = Manager(client)
        add_controllers(manager)
        await manager.run()


if __name__ == "__main__":
    asyncio.run(main())
