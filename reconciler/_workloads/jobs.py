"""The stand-in for the Job controller, and for the one that removes finished Jobs after their time to live."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from reconciler._core.wire import JSONObject
from reconciler._workloads import base
from reconciler.clock import Clock

_INDEX = "batch.kubernetes.io/job-completion-index"
_MANAGER = "kubernetes.io/job-controller"
_BACKOFF, _MAX_BACKOFF = 10.0, 600.0
"""Seconds until the next pod after the first failure, which double with each one, and their limit."""
_SETTLED = 0.1
"""Seconds in which a suite that created a Job may set its status; under virtual time, whose times are exact, none."""


class _Pods:
    """The pods of a Job by their state."""

    def __init__(self, pods: Sequence[JSONObject]) -> None:
        self.active = [pod for pod in pods if base.is_active(pod)]
        self.succeeded = _in_phase(pods, "Succeeded")
        self.failed = _in_phase(pods, "Failed")
        self.terminating = sum(map(base.is_terminating, pods))


class Jobs(base.WorkloadReconciler):
    """Creates the pods of Jobs, counts those that have ended, and finishes the Jobs.

    Pod failure policies, success policies and limits of single indexes are ignored. A Job whose status another client
    has written is left to it: suites for envtest, which runs no controllers, set the status of Jobs themselves.
    """

    kind = "batch/v1/Job"

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self._first_seen: dict[str, float] = {}

    async def sync(self, doc: JSONObject) -> float | None:
        """Create or delete pods, and write the status."""
        if doc["spec"].get("managedBy", _MANAGER) != _MANAGER:
            return None
        if _has_status_of_others(doc):
            return None
        left = self._until_settled(doc)
        if left > 0:
            return left
        finished = _finished(doc)
        if finished is not None:
            return await self._expire(doc, finished)
        pods, status = _Pods(await self.owned(base.POD, doc)), dict(doc.get("status") or {})
        result = self._result(doc, status, pods)
        wait: float | None = None
        if result is not None or doc["spec"].get("suspend"):
            await self.delete(pods.active)
            if result is not None and result[0] == "Failed":
                pods.failed += pods.active
            pods.active = []
        else:
            status.setdefault("startTime", self.now())
            wait = await self._create(doc, pods)
        _count(doc, status, pods)
        self._set_conditions(doc, status, result)
        await self.write_status(doc, status)
        limit = doc["spec"].get("activeDeadlineSeconds")
        deadline = limit - self.age(status["startTime"]) if limit and result is None and "startTime" in status else None
        waits = [max(0.001, each) for each in (wait, deadline) if each is not None]
        return min(waits) if waits else 0.0 if result else None

    def _until_settled(self, doc: JSONObject) -> float:
        """Return the seconds until the first write to the status of a new Job."""
        uid, now = doc["metadata"]["uid"], self.clock.monotonic()
        if doc.get("status") or getattr(self.clock, "virtual", False):
            self._first_seen.pop(uid, None)
            return 0.0
        # An entry of a Job that was deleted at once stays, until a second has passed.
        self._first_seen = {key: since for key, since in self._first_seen.items() if now - since < 1.0 or key == uid}
        return self._first_seen.setdefault(uid, now) + _SETTLED - now

    async def _expire(self, doc: JSONObject, finished: JSONObject) -> float | None:
        live = doc["spec"].get("ttlSecondsAfterFinished")
        if live is None:
            return None
        left: float = live - self.age(finished["lastTransitionTime"])
        if left > 0:
            return left
        await self.client.delete(doc, propagation="Background")
        return None

    # pods

    async def _create(self, doc: JSONObject, pods: _Pods) -> float | None:
        """Create the missing pods; return the seconds until more may be created after a failure."""
        spec = doc["spec"]
        parallel, completions = spec["parallelism"], spec.get("completions")
        if completions is not None:
            wanted = min(parallel, completions - len(pods.succeeded))
        else:
            wanted = len(pods.active) if pods.succeeded else parallel
        await self.delete(pods.active[max(wanted, 0) :])
        missing = wanted - len(pods.active)
        if missing <= 0:
            return None
        left = self._backoff(pods.failed)
        if left > 0:
            return left
        indexes = iter(sorted(set(range(completions or 0)) - set(_indexes([*pods.active, *pods.succeeded]))))
        for _ in range(missing):
            if spec.get("completionMode") == "Indexed":
                await self.client.create(_indexed(doc, next(indexes)))
            else:
                await self.client.create(base.pod_of(doc))
        return None

    def _backoff(self, failed: Sequence[JSONObject]) -> float:
        if not failed:
            return 0.0
        latest = min(self.age(_ended_at(pod)) for pod in failed)
        return float(min(_BACKOFF * 2 ** (len(failed) - 1), _MAX_BACKOFF) - latest)

    # status

    def _result(self, doc: JSONObject, status: JSONObject, pods: _Pods) -> tuple[str, str, str] | None:
        """Return the condition that finishes a Job, its reason and its message; None while it runs."""
        spec = doc["spec"]
        if len(pods.failed) > spec["backoffLimit"]:
            return "Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit"
        limit, started = spec.get("activeDeadlineSeconds"), status.get("startTime")
        if limit and started and self.age(started) >= limit and not spec.get("suspend"):
            return "Failed", "DeadlineExceeded", "Job was active longer than specified deadline"
        completions, succeeded = spec.get("completions"), len(pods.succeeded)
        done = (succeeded and not pods.active) if completions is None else succeeded >= completions
        return ("Complete", "CompletionsReached", "Reached expected number of succeeded pods") if done else None

    def _set_conditions(self, doc: JSONObject, status: JSONObject, result: tuple[str, str, str] | None) -> None:
        wanted: list[tuple[str, str, str, str]] = []
        conditions = status.get("conditions") or []
        suspended = any(each["type"] == "Suspended" and each["status"] == "True" for each in conditions)
        if result is not None:
            final, reason, message = result
            before = "SuccessCriteriaMet" if final == "Complete" else "FailureTarget"
            wanted += [(before, "True", reason, message), (final, "True", reason, message)]
            if final == "Complete":
                status["completionTime"] = self.now()
        elif doc["spec"].get("suspend"):
            status.pop("startTime", None)
            wanted.append(("Suspended", "True", "JobSuspended", "Job suspended"))
        elif suspended:
            status["startTime"] = self.now()
            wanted.append(("Suspended", "False", "JobResumed", "Job resumed"))
        for kind, value, reason, message in wanted:
            new = {"type": kind, "status": value, "lastProbeTime": self.now(), "reason": reason, "message": message}
            conditions = base.set_condition(conditions, new, self.now())
        if conditions:
            status["conditions"] = conditions


def _count(doc: JSONObject, status: JSONObject, pods: _Pods) -> None:
    """Set the counts of a status."""
    counts = {
        "active": len(pods.active),
        # A pod that was removed after it ended was counted before.
        "succeeded": max(len(pods.succeeded), status.get("succeeded", 0)),
        "failed": max(len(pods.failed), status.get("failed", 0)),
    }
    for name in counts:
        status.pop(name, None)
    status |= base.without_zeros(counts)
    status["ready"] = sum(base.ready_since(pod) is not None for pod in pods.active)
    status["terminating"] = pods.terminating
    status["uncountedTerminatedPods"] = {}
    if doc["spec"].get("completionMode") == "Indexed" and pods.succeeded:
        status["completedIndexes"] = _as_ranges(_indexes(pods.succeeded))


def _has_status_of_others(doc: JSONObject) -> bool:
    """Return whether another client has written the status: it lacks a member that the Job controller always writes."""
    status = doc.get("status") or {}
    return bool(status) and "uncountedTerminatedPods" not in status


def _finished(doc: JSONObject) -> JSONObject | None:
    conditions = (doc.get("status") or {}).get("conditions") or ()
    final = (each for each in conditions if each["type"] in ("Complete", "Failed") and each["status"] == "True")
    return next(final, None)


def _in_phase(pods: Iterable[JSONObject], phase: str) -> list[JSONObject]:
    return [pod for pod in pods if (pod.get("status") or {}).get("phase") == phase]


def _ended_at(pod: JSONObject) -> str:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    times = [each["lastTransitionTime"] for each in conditions if each["type"] == "Ready"]
    return str(times[0] if times else pod["metadata"]["creationTimestamp"])


def _indexed(doc: JSONObject, index: int) -> JSONObject:
    pod = base.pod_of(doc, {_INDEX: str(index)}, generateName=f"{doc['metadata']['name']}-{index}-")
    pod["metadata"]["annotations"] = {**(pod["metadata"].get("annotations") or {}), _INDEX: str(index)}
    return pod


def _indexes(pods: Iterable[JSONObject]) -> list[int]:
    found = ((pod["metadata"].get("annotations") or {}).get(_INDEX) for pod in pods)
    return sorted({int(each) for each in found if each is not None})


def _as_ranges(numbers: Sequence[int]) -> str:
    """Return numbers in the form of ``completedIndexes``, such as ``0-2,5``."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    # Two numbers in a row are written as a list.
    parts = (
        str(first) if first == last else f"{first}{',' if last - first == 1 else '-'}{last}" for first, last in ranges
    )
    return ",".join(parts)
