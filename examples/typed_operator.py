"""An operator that is typed throughout: quantities and durations in its kind, Deployments as classes of lightkube.

pip install 'kube-reconciler[cli,kinds]'
reconciler crd examples.typed_operator:Cache | kubectl apply -f -
reconciler run examples.typed_operator:add_controllers
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from lightkube.models.apps_v1 import DeploymentSpec
from lightkube.models.core_v1 import Container, PodSpec, PodTemplateSpec, ResourceRequirements
from lightkube.models.meta_v1 import LabelSelector
from lightkube.models.meta_v1 import ObjectMeta as Meta
from lightkube.resources.apps_v1 import Deployment
from pydantic import Field

from reconciler import ConditionedStatus, Manager, Model, Outcome, Resource, ResourceReconciler, StatusBatcher
from reconciler.controller import Permission
from reconciler.objects import Duration, PrinterColumn, Quantity, Scale


class CacheSpec(Model):
    """The desired state of a Cache."""

    replicas: int = Field(default=1, ge=0, le=20)
    memory: Annotated[Quantity, Field(ge=Quantity("64Mi"))] = Quantity("256Mi")
    expiry: Duration = timedelta(hours=1)


class CacheStatus(ConditionedStatus):
    """The observed state of a Cache."""

    replicas: int = 0
    selector: str = ""


class Cache(
    Resource[CacheSpec, CacheStatus],
    group="example.com",
    version="v1",
    printer_columns=(PrinterColumn("Memory", ".spec.memory"),),
    scale=Scale(selector=".status.selector"),
):
    """A cache in memory, run by a Deployment."""


class CacheReconciler(ResourceReconciler[Cache]):
    """Creates one Deployment per Cache and reports its state."""

    permissions = (Permission(Deployment, "apply"),)

    async def reconcile_object(self, cache: Cache, status: StatusBatcher[CacheStatus]) -> Outcome:
        """Apply the Deployment and derive the Cache's status from its status."""
        deployment = await self.client.apply(deployment_for(cache), owner=cache)
        ready = (deployment.status and deployment.status.readyReplicas) or 0
        status.set(replicas=ready, selector=f"cache={cache.name}")
        complete = ready == cache.spec.replicas
        status.set_condition(
            "Ready",
            complete,
            reason="Available" if complete else "Starting",
            message=f"{ready} of {cache.spec.replicas} replicas ready",
        )
        return None


def deployment_for(cache: Cache) -> Deployment:
    """Return the desired Deployment of a Cache; the container has an eighth more memory than the cache may use."""
    labels = {"cache": cache.name}
    container = Container(
        name="cache",
        image="memcached:1.6",
        args=[f"--memory-limit={int(cache.spec.memory) // 2**20}", f"--expiry={cache.spec.expiry.total_seconds():.0f}"],
        resources=ResourceRequirements(limits={"memory": str(cache.spec.memory * 1.125)}),
    )
    return Deployment(
        metadata=Meta(name=cache.name, namespace=cache.namespace, labels=labels),
        spec=DeploymentSpec(
            replicas=cache.spec.replicas,
            selector=LabelSelector(matchLabels=labels),
            template=PodTemplateSpec(metadata=Meta(labels=labels), spec=PodSpec(containers=[container])),
        ),
    )


def add_controllers(manager: Manager) -> None:
    """Add the controllers of this operator to a manager."""
    manager.add_controller(CacheReconciler(), owns=[Deployment])
