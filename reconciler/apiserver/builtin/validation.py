"""Check Pods, workloads and Services: what has to be there, and what cannot be changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from reconciler.apiserver.builtin.pod_changes import check_pod_changes
from reconciler.apiserver.builtin.pod_validation import check_pod_spec, check_schedule, choice, in_range, required
from reconciler.apiserver.builtin.preparation import admitted_pod_spec
from reconciler.apiserver.encoding.refusals import FieldError
from reconciler.apiserver.encoding.text import go_json, quoted

__all__ = ["WORKLOAD_CHECKS", "selects"]

Check = Callable[[dict[str, Any], dict[str, Any] | None], list[FieldError]]
Findings = Iterator[FieldError]
_KEPT_BY_STATEFUL_SETS = (
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
)


def _listed(check: Callable[[dict[str, Any], dict[str, Any] | None], Findings]) -> Check:
    return lambda doc, before: list(check(doc, before))


def _pod(doc: dict[str, Any], before: dict[str, Any] | None) -> Findings:
    spec = doc.get("spec") or {}
    yield from check_pod_spec(spec, "spec")
    if before is not None and spec != before.get("spec"):
        known = before.get("spec") or {}
        yield from check_pod_changes(admitted_pod_spec(spec, known), known)


def _workload(kind: str) -> Check:
    """Make the check of kinds that keep pods which they select."""

    def check(doc: dict[str, Any], before: dict[str, Any] | None) -> Findings:
        spec = doc.get("spec") or {}
        replicas = spec.get("replicas")
        if isinstance(replicas, int) and replicas < 0:
            message = f"Invalid value: {replicas}: must be greater than or equal to 0"
            yield FieldError("spec.replicas", message)
        yield from _check_selector(spec, kind)
        template = spec.get("template") or {}
        inner = template.get("spec") or {}
        yield from check_pod_spec(inner, "spec.template.spec")
        policy = inner.get("restartPolicy")
        if policy in ("Never", "OnFailure"):
            yield from choice("spec.template.spec.restartPolicy", policy, ("Always",))
        if kind == "deployment":
            yield from _check_strategy(spec.get("strategy") or {})
        if kind == "statefulset":
            yield from _check_update(spec.get("updateStrategy") or {})
        if before is not None:
            yield from _check_kept(kind, spec, before.get("spec") or {})

    return _listed(check)


def _check_selector(spec: dict[str, Any], kind: str) -> Findings:
    selector = spec.get("selector")
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels")
    if selector is None:
        yield required("spec.selector")
    elif not selector:
        yield FieldError("spec.selector", f"Invalid value: {{}}: empty selector is invalid for {kind}")
        return
    if not selects(selector or {}, labels or {}):
        message = f"Invalid value: {go_json(labels)}: `selector` does not match template `labels`"
        yield FieldError("spec.template.metadata.labels", message)


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Tell whether a selector that is not empty selects labels."""
    if not selector:
        return False
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_meets(labels, term) for term in selector.get("matchExpressions") or ())


def _meets(labels: dict[str, str], term: dict[str, Any]) -> bool:
    key, values = term.get("key", ""), term.get("values") or ()
    operator = term.get("operator")
    if operator in ("Exists", "DoesNotExist"):
        return (key in labels) is (operator == "Exists")
    return (labels.get(key) in values) is (operator == "In")


def _check_strategy(strategy: dict[str, Any]) -> Findings:
    kind = strategy.get("type")
    if kind not in ("Recreate", "RollingUpdate"):
        shown = go_json({"Type": kind or "", "RollingUpdate": strategy.get("rollingUpdate")}, sort=False)
        message = f'Unsupported value: {shown}: supported values: "Recreate", "RollingUpdate"'
        yield FieldError("spec.strategy", message, "FieldValueNotSupported")
    elif kind == "Recreate" and strategy.get("rollingUpdate"):
        message = "Forbidden: may not be specified when strategy `type` is 'Recreate'"
        yield FieldError("spec.strategy.rollingUpdate", message, "FieldValueForbidden")


def _check_update(strategy: dict[str, Any]) -> Findings:
    rolling = strategy.get("rollingUpdate")
    if strategy.get("type") == "OnDelete" and rolling is not None:
        shown = {"Partition": rolling.get("partition", 0), "MaxUnavailable": rolling.get("maxUnavailable")}
        message = f"Invalid value: {go_json(shown, sort=False)}: only allowed for updateStrategy 'RollingUpdate'"
        yield FieldError("spec.updateStrategy.rollingUpdate", message)


def _check_kept(kind: str, spec: dict[str, Any], before: dict[str, Any]) -> Findings:
    if kind == "statefulset":
        fixed = (spec.keys() | before.keys()) - set(_KEPT_BY_STATEFUL_SETS)
        if any(spec.get(key) != before.get(key) for key in fixed):
            names = ", ".join(f"'{name}'" for name in _KEPT_BY_STATEFUL_SETS[:-1])
            words = f"updates to statefulset spec for fields other than {names} and 'minReadySeconds' are forbidden"
            yield FieldError("spec", f"Forbidden: {words}", "FieldValueForbidden")
    elif spec.get("selector") != before.get("selector"):
        message = f"Invalid value: {go_json(spec.get('selector'))}: field is immutable"
        yield FieldError("spec.selector", message)


def _job(doc: dict[str, Any], _before: dict[str, Any] | None) -> Findings:
    yield from _job_template((doc.get("spec") or {}).get("template") or {}, "spec.template.spec")


def _cron_job(doc: dict[str, Any], _before: dict[str, Any] | None) -> Findings:
    spec = doc.get("spec") or {}
    yield from check_schedule(str(spec.get("schedule") or ""), "spec.schedule")
    template = ((spec.get("jobTemplate") or {}).get("spec") or {}).get("template") or {}
    yield from _job_template(template, "spec.jobTemplate.spec.template.spec")


def _job_template(template: dict[str, Any], path: str) -> Findings:
    inner = template.get("spec") or {}
    yield from check_pod_spec(inner, path)
    if inner.get("restartPolicy") == "Always":
        yield required(f"{path}.restartPolicy", 'valid values: "OnFailure", "Never"')


def _service(doc: dict[str, Any], _before: dict[str, Any] | None) -> Findings:
    spec = doc.get("spec") or {}
    ports, kind = spec.get("ports") or [], spec.get("type")
    if not ports and kind != "ExternalName" and spec.get("clusterIP") != "None":
        yield required("spec.ports")
    for index, port in enumerate(ports):
        path = f"spec.ports[{index}]"
        if len(ports) > 1 and not port.get("name"):
            yield required(f"{path}.name")
        yield from in_range(f"{path}.port", port.get("port", 0))
        yield from in_range(f"{path}.targetPort", port.get("targetPort"))
    yield from choice("spec.type", kind, ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort"))
    if kind == "ExternalName" and not spec.get("externalName"):
        yield required("spec.externalName")


def _budget(doc: dict[str, Any], _before: dict[str, Any] | None) -> Findings:
    spec = doc.get("spec") or {}
    if spec.get("minAvailable") is not None and spec.get("maxUnavailable") is not None:
        shown = {
            "MinAvailable": spec["minAvailable"],
            "Selector": spec.get("selector"),
            "MaxUnavailable": spec["maxUnavailable"],
            "UnhealthyPodEvictionPolicy": spec.get("unhealthyPodEvictionPolicy"),
        }
        message = f"Invalid value: {go_json(shown, sort=False)}: minAvailable and maxUnavailable cannot be both set"
        yield FieldError("spec", message)


def _role(doc: dict[str, Any], _before: dict[str, Any] | None) -> Findings:
    for index, rule in enumerate(doc.get("rules") or ()):
        if not rule.get("verbs"):
            yield required(f"rules[{index}].verbs", "verbs must contain at least one value")


def _binding(doc: dict[str, Any], _before: dict[str, Any] | None) -> Findings:
    role = doc.get("roleRef") or {}
    kind = role.get("kind", "")
    if kind not in ("Role", "ClusterRole"):
        message = f'Unsupported value: {quoted(kind)}: supported values: "Role", "ClusterRole"'
        yield FieldError("roleRef.kind", message, "FieldValueNotSupported")
    if not role.get("name"):
        yield required("roleRef.name")


WORKLOAD_CHECKS: dict[tuple[str, str], Check] = {
    ("", "pods"): _listed(_pod),
    ("", "services"): _listed(_service),
    ("apps", "daemonsets"): _workload("daemonset"),
    ("apps", "deployments"): _workload("deployment"),
    ("apps", "replicasets"): _workload("replicaset"),
    ("apps", "statefulsets"): _workload("statefulset"),
    ("batch", "cronjobs"): _listed(_cron_job),
    ("batch", "jobs"): _listed(_job),
    ("policy", "poddisruptionbudgets"): _listed(_budget),
    ("rbac.authorization.k8s.io", "rolebindings"): _listed(_binding),
    ("rbac.authorization.k8s.io", "roles"): _listed(_role),
}
"""What is wrong with an object of a kind, given the stored one on an update."""
