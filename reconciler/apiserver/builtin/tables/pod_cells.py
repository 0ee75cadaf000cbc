"""The cells of the table of pods: what their containers are doing."""

from __future__ import annotations

from datetime import datetime

from reconciler.apiserver.builtin.tables.cells import NONE, show_age
from reconciler.apiserver.encoding.json_documents import condition_of, value_at
from reconciler.wire import JSONObject

__all__ = ["pod_ready", "pod_restarts", "pod_status", "readiness_gates"]


def _sidecars(doc: JSONObject) -> set[str]:
    """Return the names of the init containers that keep running."""
    containers = value_at(doc, "spec.initContainers", ())
    return {str(each.get("name")) for each in containers if each.get("restartPolicy") == "Always"}


def _statuses(doc: JSONObject, *, init: bool = False) -> list[JSONObject]:
    return list(value_at(doc, "status.initContainerStatuses" if init else "status.containerStatuses", ()))


def _ended(state: JSONObject) -> str:
    """Return how a container ended."""
    if state.get("reason"):
        return str(state["reason"])
    return f"Signal:{state['signal']}" if state.get("signal") else f"ExitCode:{state.get('exitCode', 0)}"


def _initializing(doc: JSONObject) -> tuple[int, str] | None:
    """Return which init container has not finished, and what it is doing; None if all have, or a condition says so."""
    if condition_of(doc, "Initialized").get("status") == "True":
        return None
    sidecars = _sidecars(doc)
    for index, status in enumerate(_statuses(doc, init=True)):
        state = status.get("state") or {}
        ended, waiting = state.get("terminated"), state.get("waiting") or {}
        if (ended and not ended.get("exitCode")) or (status.get("name") in sidecars and status.get("started")):
            continue
        if ended:
            return index, _ended(ended)
        if waiting.get("reason") not in (None, "", "PodInitializing"):
            return index, str(waiting["reason"])
        return index, f"{index}/{len(value_at(doc, 'spec.initContainers', ()))}"
    return None


def pod_ready(doc: JSONObject, _now: datetime) -> str:
    """Return how many containers are ready, of how many."""
    sidecars, initializing = _sidecars(doc), _initializing(doc)
    before = _statuses(doc, init=True)[: None if initializing is None else initializing[0]]
    ready = sum(bool(each.get("ready")) for each in before if each.get("name") in sidecars and each.get("started"))
    if initializing is None:
        running = (each for each in _statuses(doc) if (each.get("state") or {}).get("running") is not None)
        ready += sum(bool(each.get("ready")) for each in running)
    return f"{ready}/{len(value_at(doc, 'spec.containers', ())) + len(sidecars)}"


def pod_status(doc: JSONObject, _now: datetime) -> str:
    """Return what a pod is doing: its phase, or why a container does not run."""
    phase, reason = str(value_at(doc, "status.phase", "")), value_at(doc, "status.reason")
    if value_at(doc, "metadata.deletionTimestamp"):
        if reason == "NodeLost":
            return "Unknown"
        if phase not in ("Succeeded", "Failed"):
            return "Terminating"
    shown = str(reason or phase)
    if condition_of(doc, "PodScheduled").get("reason") == "SchedulingGated":
        shown = "SchedulingGated"
    initializing = _initializing(doc)
    return f"Init:{initializing[1]}" if initializing is not None else _containers_status(doc, shown)


def _containers_status(doc: JSONObject, shown: str) -> str:
    running, failed = False, ""
    for status in reversed(_statuses(doc)):
        state = status.get("state") or {}
        waiting, ended = state.get("waiting") or {}, state.get("terminated")
        if waiting.get("reason"):
            shown = str(waiting["reason"])
        elif ended:
            shown = _ended(ended)
            failed = shown if ended.get("exitCode") else failed
        elif status.get("ready") and state.get("running") is not None:
            running = True
    if shown != "Completed":
        return shown
    ready = condition_of(doc, "Ready").get("status") == "True"
    return "Running" if running and ready else failed or ("NotReady" if running else shown)


def pod_restarts(doc: JSONObject, now: datetime) -> str:
    """Return how often containers were restarted, and when the last of them was."""
    sidecars, initializing = _sidecars(doc), _initializing(doc)
    init = _statuses(doc, init=True)
    if initializing is None:
        counted = [each for each in init if each.get("name") in sidecars] + _statuses(doc)
    else:
        counted = init[: initializing[0] + 1]
    restarts = sum(each.get("restartCount", 0) for each in counted)
    ends = [end for each in counted if (end := value_at(each, "lastState.terminated.finishedAt"))]
    return f"{restarts} ({show_age(max(ends), now)} ago)" if restarts and ends else str(restarts)


def readiness_gates(doc: JSONObject, _now: datetime) -> str:
    """Return how many readiness gates are met, of how many."""
    gates = [gate.get("conditionType") for gate in value_at(doc, "spec.readinessGates", ())]
    met = {each.get("type") for each in value_at(doc, "status.conditions", ()) if each.get("status") == "True"}
    return f"{sum(gate in met for gate in gates)}/{len(gates)}" if gates else NONE
