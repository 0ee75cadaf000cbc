"""The CronJob of the kubebuilder book: it runs Jobs on a schedule, reports those that run, and deletes old ones."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from pydantic import Field

from reconciler import (
    ConditionedStatus,
    Model,
    ObjectMeta,
    Outcome,
    Resource,
    ResourceReconciler,
    Result,
    StatusBatcher,
)
from reconciler.clock import current_clock
from reconciler.controller import Permission
from reconciler.errors import NotFound
from reconciler.meta import set_controller_reference
from reconciler.meta.metadata import controller_of
from reconciler.testing.explore import World

JOB = "batch/v1/Job"
SCHEDULED_AT = "batch.example.com/scheduled-at"
HOUR = 3600


class CronJobSpec(Model):
    every: int = Field(default=HOUR, ge=60, description="Seconds between two runs, counted from the epoch")
    starting_deadline_seconds: int | None = None
    concurrency_policy: Literal["Allow", "Forbid", "Replace"] = "Allow"
    suspend: bool = False
    image: str = "busybox"
    successful_jobs_history_limit: int | None = None
    failed_jobs_history_limit: int | None = None


class CronJobStatus(ConditionedStatus):
    active: list[str] = []
    last_schedule_time: datetime | None = None


class CronJob(Resource[CronJobSpec, CronJobStatus], group="batch.example.com", version="v1"):
    """A Job that runs again and again."""


class CronJobReconciler(ResourceReconciler[CronJob]):
    """Creates a Job for the latest missed run, unless its time is over or another one forbids it."""

    permissions = (Permission(JOB, "get", "list", "watch", "create", "delete"),)

    async def reconcile_object(self, cron: CronJob, status: StatusBatcher[CronJobStatus]) -> Outcome:
        jobs = [job.to_dict() for job in await self.client.list(JOB, cron.namespace)]
        jobs = [job for job in jobs if (controller_of(job) or {}).get("uid") == cron.uid]
        active = [job for job in jobs if not ended(job)]
        latest = max(map(scheduled_at, jobs), default=cron.status.last_schedule_time)
        status.set(active=sorted(job["metadata"]["name"] for job in active), last_schedule_time=latest)
        await self.delete_old(jobs, "Failed", cron.spec.failed_jobs_history_limit)
        await self.delete_old(jobs, "Complete", cron.spec.successful_jobs_history_limit)
        if cron.spec.suspend:
            return None
        now = current_clock().now()
        missed, following = self.schedule(cron, latest, now)
        if missed is not None and await self.may_run(cron, active):
            await self.client.create(job_for(cron, missed))
        return Result(requeue_after=max((following - now).total_seconds(), 0.001))

    def schedule(self, cron: CronJob, latest: datetime | None, now: datetime) -> tuple[datetime | None, datetime]:
        """Return the latest missed run, and the next one."""
        earliest = latest or cron.metadata.creation_timestamp or now
        if cron.spec.starting_deadline_seconds is not None:
            earliest = max(earliest, now - timedelta(seconds=cron.spec.starting_deadline_seconds))
        passed = int(now.timestamp()) // cron.spec.every * cron.spec.every
        run = datetime.fromtimestamp(passed, UTC)
        return run if run > earliest else None, run + timedelta(seconds=cron.spec.every)

    async def may_run(self, cron: CronJob, active: list[dict[str, Any]]) -> bool:
        """Return whether the policy allows another Job; deletes those that it replaces."""
        if cron.spec.concurrency_policy == "Replace":
            for job in active:
                await self.delete(job)
        return cron.spec.concurrency_policy != "Forbid" or not active

    async def delete_old(self, jobs: list[dict[str, Any]], how: str, limit: int | None) -> None:
        """Delete all but the latest Jobs that ended in one way."""
        if limit is not None:
            found = sorted((job for job in jobs if ended(job) == how), key=scheduled_at)
            for job in found[: max(len(found) - limit, 0)]:
                await self.delete(job)

    async def delete(self, job: dict[str, Any]) -> None:
        with contextlib.suppress(NotFound):
            await self.client.delete(job)


def ended(job: dict[str, Any]) -> str:
    """Return ``"Complete"`` or ``"Failed"``, and ``""`` for a Job that runs."""
    conditions = (job.get("status") or {}).get("conditions") or ()
    return next((each["type"] for each in conditions if each["status"] == "True"), "")


def scheduled_at(job: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(job["metadata"]["annotations"][SCHEDULED_AT])


def job_for(cron: CronJob, run: datetime) -> dict[str, Any]:
    """Return the Job of a run; its name is that of the run, so that no run has two."""
    metadata = {
        "name": f"{cron.name}-{int(run.timestamp())}",
        "namespace": cron.namespace,
        "annotations": {SCHEDULED_AT: run.isoformat()},
    }
    pod = {"restartPolicy": "Never", "containers": [{"name": "work", "image": cron.spec.image}]}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"template": {"spec": pod}}}
    set_controller_reference(job, cron)
    return job


async def two_runs(world: World) -> None:
    """Let a Job run, end it as its controller does, let the next one run, and delete the CronJob."""
    spec = CronJobSpec(successful_jobs_history_limit=0, concurrency_policy="Forbid")
    made = await world.create(CronJob(metadata=ObjectMeta(name="backup", namespace="default"), spec=spec))
    await world.settle()
    await asyncio.sleep(HOUR)
    await world.settle()
    [job] = await world.client.list(JOB, made.namespace)
    now = current_clock().now().strftime("%Y-%m-%dT%H:%M:%SZ")
    conditions = [
        {"type": each, "status": "True", "lastTransitionTime": now} for each in ("SuccessCriteriaMet", "Complete")
    ]
    ending = {"startTime": now, "completionTime": now, "conditions": conditions}
    await world.patch(job, {"status": ending}, subresource="status")
    await world.settle()
    await world.patch(made, {"spec": {"image": "busybox:2"}})
    await asyncio.sleep(HOUR)
    await world.settle()
    await world.delete(made)
