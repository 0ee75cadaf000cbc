"""The eviction and binding of pods: documents that act on a pod and are not stored."""

from __future__ import annotations

from dataclasses import dataclass

from reconciler._core.wire import JSONObject
from reconciler.apiserver.builtin.checks import selects
from reconciler.apiserver.encoding.json_documents import condition_of, value_at
from reconciler.apiserver.encoding.refusals import Refusal
from reconciler.apiserver.requests.bodies import check_write_options
from reconciler.apiserver.requests.routing import ACTIONS, Call
from reconciler.apiserver.storage.cluster import Cluster
from reconciler.apiserver.storage.store import Stored
from reconciler.apiserver.verbs.decoding import read_unstored_object
from reconciler.apiserver.verbs.delete import Deleter, check_preconditions
from reconciler.apiserver.verbs.write_rules import WriteResult, check_namespace, uid_conflict

__all__ = [
    "PodSubresources",
]


_DONE = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
_FORBIDDEN = "Cannot evict pod as it would violate the pod's disruption budget."
_MANY = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
_MAX_DISRUPTED_PODS = 2000
"""How many disrupted pods a budget may list; ``MaxDisruptedPodSize`` of the real server."""


@dataclass(frozen=True, slots=True)
class PodSubresources:
    """The implementation of the eviction and binding of pods; it raises a `Refusal` as the real server."""

    cluster: Cluster
    deleter: Deleter

    def create(self, call: Call) -> WriteResult:
        """Evict or bind a pod."""
        kind = ACTIONS[call.subresource]
        dry_run = check_write_options(call)
        document = read_unstored_object(call.request, kind)
        metadata = document.get("metadata") or {}
        check_namespace(call, metadata)
        if metadata.get("name") != call.name:
            raise Refusal.bad_request(f"name in URL does not match name in {kind} object")
        act = self._bind if kind == "Binding" else self._evict
        return act(call, document, dry_run)

    # evictions

    def _evict(self, call: Call, document: JSONObject, dry_run: bool) -> WriteResult:
        options = document.get("deleteOptions") or {}
        dry_run = dry_run or bool(options.get("dryRun"))
        pod = call.existing()
        if not _ignores_budgets(pod.doc):
            self._take_from_budget(call, pod, dry_run)
        check_preconditions(call, pod, options.get("preconditions") or {})
        evicted = pod
        if not dry_run:
            condition = {
                "type": "DisruptionTarget",
                "status": "True",
                "reason": "EvictionByEvictionAPI",
                "message": "Eviction API: evicting",
            }
            evicted = self._set_condition(call, pod, pod.doc, condition)
        gone = self.deleter.delete_stored(call.endpoint.resource, evicted, options, dry_run=dry_run)
        return WriteResult(201, document=_DONE, before=pod, after=gone.after)

    def _set_condition(self, call: Call, pod: Stored, doc: JSONObject, condition: JSONObject) -> Stored:
        """Store a pod with a condition; an unchanged status keeps its transition time."""
        status = doc.get("status") or {}
        conditions: list[JSONObject] = list(status.get("conditions") or ())
        at = next((i for i, each in enumerate(conditions) if each.get("type") == condition["type"]), len(conditions))
        known = conditions[at] if at < len(conditions) else {}
        times = {"lastProbeTime": None, "lastTransitionTime": self.cluster.now()}
        if known.get("status") == condition["status"]:
            times["lastTransitionTime"] = known.get("lastTransitionTime")
        conditions[at : at + 1] = [{**condition, **times}]
        changed = {**doc, "metadata": dict(doc["metadata"]), "status": {**status, "conditions": conditions}}
        if {**changed, "metadata": {}} == {**pod.doc, "metadata": {}} and changed["metadata"] == pod.doc["metadata"]:
            return pod
        return self.cluster.replace(call.endpoint.resource, pod, changed)

    def _take_from_budget(self, call: Call, pod: Stored, dry_run: bool) -> None:
        """Take a disruption from the PodDisruptionBudget that selects a pod, if there is one."""
        budgets = self.cluster.registry.built_in("poddisruptionbudgets", "policy")
        labels = pod.doc["metadata"].get("labels") or {}
        stored = [budgets.store.objects[key] for key in budgets.store.keys(call.namespace)]
        selectors = [(each, value_at(each.doc, "spec.selector")) for each in stored]
        guarding = [each for each, found in selectors if found == {} or selects(found or {}, labels)]
        if len(guarding) > 1:
            raise Refusal(500, "", _MANY)
        if not guarding or _is_unhealthy_and_evictable(pod.doc, guarding[0].doc):
            return
        [budget] = guarding
        status = _after_disruption(budget, call.name, self.cluster.now())
        if not dry_run:
            changed = {**budget.doc, "metadata": dict(budget.doc["metadata"]), "status": status}
            self.cluster.replace(budgets, budget, changed)

    # bindings

    def _bind(self, call: Call, document: JSONObject, dry_run: bool) -> WriteResult:
        target, metadata = document.get("target") or {}, document.get("metadata") or {}
        if target.get("kind") not in (None, "", "Node"):
            known = 'supported values: "Node", "<empty>"'
            raise Refusal(500, "", f'target.kind: Unsupported value: "{target["kind"]}": {known}')
        if not target.get("name"):
            raise Refusal(500, "", "target.name: Required value")
        pod = call.existing()
        if metadata.get("uid") not in (None, "", pod.uid):
            raise uid_conflict(call, metadata["uid"], pod.uid)
        spec = pod.doc.get("spec") or {}
        problem = _binding_problem(pod.doc, spec, call.name)
        if problem:
            raise Refusal.conflict("pods/binding", "", call.name, problem)
        if dry_run:
            return WriteResult(201, document=_DONE, before=pod, after=pod)
        kept = dict(pod.doc["metadata"])
        for key in ("annotations", "labels"):
            if metadata.get(key):
                kept[key] = {**(kept.get(key) or {}), **metadata[key]}
        doc = {**pod.doc, "metadata": kept, "spec": {**spec, "nodeName": target["name"]}}
        bound = self._set_condition(call, pod, doc, {"type": "PodScheduled", "status": "True"})
        return WriteResult(201, document=_DONE, before=pod, after=bound)


def _ignores_budgets(pod: JSONObject) -> bool:
    """Return whether a pod may be evicted without asking budgets: it is pending, finished, or being deleted."""
    phase = (pod.get("status") or {}).get("phase")
    return phase in ("Failed", "Pending", "Succeeded") or bool(pod["metadata"].get("deletionTimestamp"))


def _is_unhealthy_and_evictable(pod: JSONObject, budget: JSONObject) -> bool:
    """Return whether a pod that is not ready may be evicted without taking from a budget."""
    if condition_of(pod, "Ready").get("status") == "True":
        return False
    if (budget.get("spec") or {}).get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
        return True
    status = budget.get("status") or {}
    wanted = status.get("desiredHealthy") or 0
    return wanted > 0 and (status.get("currentHealthy") or 0) >= wanted


def _after_disruption(budget: Stored, pod: str, now: str) -> JSONObject:
    name, status = budget.doc["metadata"]["name"], budget.doc.get("status") or {}
    left, disrupted = status.get("disruptionsAllowed") or 0, status.get("disruptedPods") or {}
    if (status.get("observedGeneration") or 0) < (budget.doc["metadata"].get("generation") or 0):
        raise _too_many(f"The disruption budget {name} is still being processed by the server.", retry_after=10)
    if left < 0:
        raise Refusal.forbidden("poddisruptionbudget", "policy", name, "pdb disruptions allowed is negative")
    if len(disrupted) > _MAX_DISRUPTED_PODS:
        why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller"
        raise Refusal.forbidden("poddisruptionbudget", "policy", name, why)
    if left == 0:
        raise _too_many(_no_disruptions_message(name, status))
    changed = {**status, "disruptionsAllowed": left - 1, "disruptedPods": {**disrupted, pod: now}}
    if left == 1:
        changed["conditions"] = _insufficient_pods(status, now)
    return changed


def _insufficient_pods(status: JSONObject, now: str) -> list[JSONObject]:
    conditions = list(status.get("conditions") or ())
    old = condition_of({"status": status}, "DisruptionAllowed")
    changed = {
        "type": "DisruptionAllowed",
        "status": "False",
        "observedGeneration": status.get("observedGeneration") or 0,
        "lastTransitionTime": old["lastTransitionTime"] if old.get("status") == "False" else now,
        "reason": "InsufficientPods",
        "message": "",
    }
    if not old:
        return [*conditions, changed]
    return [changed if each is old else each for each in conditions]


def _no_disruptions_message(name: str, status: JSONObject) -> str:
    condition = condition_of({"status": status}, "DisruptionAllowed")
    said = condition.get("message") if condition.get("status") == "False" else ""
    allows_none = f"The disruption budget {name} does not allow evicting pods currently"
    if said and condition.get("reason") == "SyncFailed":
        return f"{allows_none} because it failed sync: {said}"
    healthy, wanted = status.get("currentHealthy") or 0, status.get("desiredHealthy") or 0
    if healthy <= wanted:
        return f"The disruption budget {name} needs {wanted} healthy pods and has {healthy} currently"
    return f"{allows_none} ({condition.get('reason')}): {said}" if said else allows_none


def _too_many(why: str, retry_after: int = 0) -> Refusal:
    details: JSONObject = {"causes": [{"reason": "DisruptionBudget", "message": why}]}
    if retry_after:
        details["retryAfterSeconds"] = retry_after
    return Refusal(429, "TooManyRequests", _FORBIDDEN, details=details)


def _binding_problem(pod: JSONObject, spec: JSONObject, name: str) -> str:
    if pod["metadata"].get("deletionTimestamp"):
        return f"pod {name} is being deleted, cannot be assigned to a host"
    if spec.get("nodeName"):
        return f'pod {name} is already assigned to node "{spec["nodeName"]}"'
    return f"pod {name} has non-empty .spec.schedulingGates" if spec.get("schedulingGates") else ""
