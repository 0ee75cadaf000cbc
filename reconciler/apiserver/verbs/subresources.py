"""Documents that are answered or acted on and never stored: reviews, tokens, and the eviction and binding of pods.

``kubectl auth can-i`` and programs that check their permissions send reviews.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from reconciler._core.wire import JSONObject
from reconciler.apiserver.access import AccessControl
from reconciler.apiserver.builtin.checks import selects
from reconciler.apiserver.builtin.rule_table import violations
from reconciler.apiserver.cluster import ClusterStorage, timestamp
from reconciler.apiserver.encoding.json_documents import condition_of, value_at
from reconciler.apiserver.encoding.refusals import FieldError, Refusal
from reconciler.apiserver.requests.bodies import check_write_options
from reconciler.apiserver.requests.routing import ACTIONS, Call
from reconciler.apiserver.store import Stored
from reconciler.apiserver.users import ISSUER, Attributes, InvalidToken, Tokens, UserInfo
from reconciler.apiserver.verbs.decoding import read_unstored_object
from reconciler.apiserver.verbs.delete import Deleter, check_preconditions
from reconciler.apiserver.verbs.write_rules import WriteResult, check_namespace, uid_conflict

_EVERYTHING = {
    "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
    "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    "incomplete": False,
}
_RESOURCE_RULE = ("verbs", "apiGroups", "resources", "resourceNames")
_KIND, _GROUP = "TokenRequest", "authentication.k8s.io"
_DEFAULT_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Reviews:
    """The implementation of reviews."""

    access: AccessControl
    now: Callable[[], str]

    def create(self, call: Call) -> WriteResult:
        """Answer a review."""
        return WriteResult(201, document=self._answer(call))

    def _answer(self, call: Call) -> JSONObject:
        info, user, namespace = call.endpoint.info, call.user, call.namespace
        group, kind = info.group, info.kind
        document = read_unstored_object(call.request, kind)
        spec = document.get("spec") or {}
        if kind == "TokenReview" and not spec.get("token"):
            raise Refusal.bad_request("token is required for TokenReview in authentication")
        placed = {**document, "metadata": {"namespace": namespace}}
        if found := violations(f"{group.partition('.')[0]}.v1.{kind}", placed, None):
            raise Refusal.invalid("", group, "", found)
        answer: JSONObject = {"kind": kind, "apiVersion": f"{group}/v1"}
        if kind == "SelfSubjectReview":
            return {**answer, "metadata": {"creationTimestamp": self.now()}, "status": {"userInfo": user.info()}}
        answer |= {"metadata": {"namespace": namespace} if namespace else {}, "spec": spec}
        if kind == "SelfSubjectRulesReview":
            if not spec.get("namespace"):
                raise Refusal.bad_request("no namespace on request")
            return {**answer, "spec": {}, "status": self._rules(user, spec["namespace"])}
        if kind == "TokenReview":
            return {**answer, "status": self._token(spec["token"], spec.get("audiences") or ())}
        if not kind.startswith("Self"):
            user = UserInfo(spec.get("user") or "", tuple(spec.get("groups") or ()))
        allowed, reason = self.access.decide(user, _attributes(spec))
        return {**answer, "status": {"allowed": allowed, **({"reason": reason} if reason else {})}}

    def _rules(self, user: UserInfo, namespace: str) -> JSONObject:
        if self.access.roles is None:
            return _EVERYTHING
        rules = [rule for _, rule in self.access.roles.grants(user, namespace).rules]
        return {
            "resourceRules": [
                {key: rule[key] for key in _RESOURCE_RULE if rule.get(key)} for rule in rules if rule.get("resources")
            ],
            "nonResourceRules": [
                {key: rule[key] for key in ("verbs", "nonResourceURLs")}
                for rule in rules
                if rule.get("nonResourceURLs")
            ],
            "incomplete": False,
        }

    def _token(self, token: str, audiences: Sequence[str]) -> JSONObject:
        try:
            user, met = self.access.tokens.authenticate(token, audiences)
        except InvalidToken as error:
            problem = "invalid bearer token"
            return {"user": {}, "error": f"[{problem}, {error}]" if str(error) else problem}
        return {"authenticated": True, "user": user.info(), "audiences": met}


def _attributes(spec: JSONObject) -> Attributes:
    asked = spec.get("resourceAttributes")
    if asked is None:
        asked = spec["nonResourceAttributes"]
        return Attributes(asked.get("verb") or "", asked.get("path") or "")
    members = ("group", "resource", "subresource", "namespace", "name")
    return Attributes(asked.get("verb") or "", "", *(asked.get(member) or "" for member in members))


@dataclass(frozen=True, slots=True)
class TokenRequests:
    """The implementation of ``serviceaccounts/NAME/token``."""

    cluster: ClusterStorage
    tokens: Tokens

    def create(self, call: Call) -> WriteResult:
        """Issue a token."""
        check_write_options(call)
        document = read_unstored_object(call.request, _KIND)
        metadata, spec = document.get("metadata") or {}, document.get("spec") or {}
        check_namespace(call, metadata)
        if metadata.get("name") not in (None, "", call.name):
            words = "must match the service account name if specified"
            raise Refusal.invalid(
                _KIND, _GROUP, call.name, [FieldError.invalid("metadata.name", metadata["name"], words)]
            )
        account = call.existing()
        if metadata.get("uid") not in (None, "", account.uid):
            words = f"does not match the UID of the service account ({account.uid})"
            raise Refusal.conflict(
                _KIND, _GROUP, call.name, f"the UID in the token request ({metadata['uid']}) {words}"
            )
        seconds = spec.get("expirationSeconds")
        seconds = _DEFAULT_SECONDS if seconds is None else seconds
        if found := violations("authentication.v1.TokenRequest", document, None):
            raise Refusal.invalid(_KIND, _GROUP, "", found)
        if spec.get("boundObjectRef"):
            raise Refusal.bad_request("the embedded API server binds no tokens to objects: leave out boundObjectRef")
        audiences = spec.get("audiences") or [ISSUER]
        token = self.tokens.issue(account, audiences, seconds)
        now = self.cluster.clock.now()
        known = {"name": call.name, "namespace": call.namespace, "uid": account.uid}
        answer = {
            "kind": _KIND,
            "apiVersion": f"{_GROUP}/v1",
            "metadata": {**metadata, **known, "creationTimestamp": timestamp(now)},
            "spec": {"audiences": audiences, "expirationSeconds": seconds, "boundObjectRef": None},
            "status": {"token": token, "expirationTimestamp": timestamp(now + timedelta(seconds=seconds))},
        }
        return WriteResult(201, document=answer)


_DONE = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
_FORBIDDEN = "Cannot evict pod as it would violate the pod's disruption budget."
_MANY = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
_MAX_DISRUPTED_PODS = 2000
"""How many disrupted pods a budget may list; ``MaxDisruptedPodSize`` of the real server."""


@dataclass(frozen=True, slots=True)
class PodSubresources:
    """The implementation of the eviction and binding of pods; it raises a `Refusal` as the real server."""

    cluster: ClusterStorage
    deleter: Deleter

    def create(self, call: Call) -> WriteResult:
        """Evict or bind a pod."""
        kind = ACTIONS[call.subresource]
        dry_run = check_write_options(call)
        document = read_unstored_object(call.request, kind)
        metadata = document.get("metadata") or {}
        check_namespace(call, metadata)
        call.name = call.name or str(metadata.get("name") or "")
        if metadata.get("name", "") != call.name:
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
