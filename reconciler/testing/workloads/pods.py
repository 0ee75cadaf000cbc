"""The pods of the stand-ins: they run, become ready and end without a node."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping

from reconciler.clock import Clock
from reconciler.controller import Outcome, Result
from reconciler.errors import TerminalError
from reconciler.testing.workloads.base import POD, WorkloadReconciler, is_active, ready_since
from reconciler.wire import JSONObject

__all__ = ["AFTER", "EXIT_CODE", "PodRunner"]

AFTER = "testing.reconciler.dev/after"
"""The annotation of a pod with the seconds until it is ready, or ends; ``never`` for a pod that does not."""

EXIT_CODE = "testing.reconciler.dev/exit-code"
"""The annotation of a pod with the exit code of its containers; with one other than 0 the pod fails."""


class PodRunner(WorkloadReconciler):
    """A stand-in for the kubelet: pods run at once, and are ready or end after a delay.

    Args:
        clock: the source of time.
        delays: the seconds by the kind of the controlling owner; other pods are left alone.
    """

    kind = POD
    owned_kinds = ()

    def __init__(self, clock: Clock, delays: Mapping[str, float]) -> None:
        super().__init__(clock)
        self._delays = delays
        self._due: dict[str, float] = {}

    async def sync(self, doc: JSONObject) -> Outcome:
        """Run a pod, or end it when it is time to."""
        metadata = doc["metadata"]
        owner = next((each["kind"] for each in metadata.get("ownerReferences") or () if each.get("controller")), "")
        ends = doc["spec"].get("restartPolicy") != "Always"
        if owner not in self._delays or not is_active(doc) or (ready_since(doc) and not ends):
            return None
        annotations = metadata.get("annotations") or {}
        try:
            delay = self._delays[owner] if AFTER not in annotations else _seconds(annotations[AFTER])
            code = int(annotations.get(EXIT_CODE) or 0)
        except ValueError as error:
            raise TerminalError(f"an annotation of pod {metadata['name']} is invalid: {error}") from None
        # Creation times are whole seconds, so the pod's own age is not exact.
        due = self._due.setdefault(metadata["uid"], self.clock.monotonic() + delay)
        wait = due - self.clock.monotonic()
        if wait > 0:
            await self.write_status(doc, self._running(doc, ready=ends))
            return None if math.isinf(wait) else Result(requeue_after=wait)
        await self.write_status(doc, self._ended(doc, code) if ends or code else self._running(doc, ready=True))
        del self._due[metadata["uid"]]
        return None

    def _running(self, doc: JSONObject, *, ready: bool) -> JSONObject:
        status = doc.get("status") or {}
        if status.get("phase") == "Running" and not ready:
            return dict(status)
        now = self.now()
        started = status.get("startTime") or now
        containers = [
            _container(each, {"running": {"startedAt": started}}, ready=ready) for each in doc["spec"]["containers"]
        ]
        return {
            **status,
            **_address(doc),
            "phase": "Running",
            "startTime": started,
            "conditions": _conditions(now, ready=ready),
            "containerStatuses": containers,
        }

    def _ended(self, doc: JSONObject, code: int) -> JSONObject:
        status, now = doc.get("status") or {}, self.now()
        started = status.get("startTime") or now
        ended = {"exitCode": code, "reason": "Error" if code else "Completed", "startedAt": started, "finishedAt": now}
        containers = [_container(each, {"terminated": ended}, ready=False) for each in doc["spec"]["containers"]]
        return {
            **status,
            **_address(doc),
            "phase": "Failed" if code else "Succeeded",
            "startTime": started,
            "conditions": _conditions(now, ready=False, reason="PodFailed" if code else "PodCompleted"),
            "containerStatuses": containers,
        }


def _seconds(text: str) -> float:
    return math.inf if text == "never" else float(text)


def _address(doc: JSONObject) -> JSONObject:
    """Return an address that most probably no other pod has."""
    number = zlib.crc32(doc["metadata"]["uid"].encode())
    address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    return {"podIP": address, "podIPs": [{"ip": address}]}


def _container(container: JSONObject, state: JSONObject, *, ready: bool) -> JSONObject:
    return {
        "name": container["name"],
        "image": container.get("image", ""),
        "imageID": "",
        "ready": ready,
        "started": "running" in state,
        "restartCount": 0,
        "state": state,
    }


def _conditions(now: str, *, ready: bool, reason: str = "ContainersNotReady") -> list[JSONObject]:
    why = {} if ready else {"reason": reason}
    return [
        {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": now},
        {"type": "Initialized", "status": "True", "lastProbeTime": None, "lastTransitionTime": now},
        *(
            {"type": kind, "status": str(ready), "lastProbeTime": None, "lastTransitionTime": now, **why}
            for kind in ("ContainersReady", "Ready")
        ),
    ]
