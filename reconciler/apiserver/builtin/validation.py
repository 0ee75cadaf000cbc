"""Validation of built-in kinds: of whole objects, and of the fields that an update may not change."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from reconciler.apiserver.builtin.cells import value_at
from reconciler.apiserver.builtin.events import check_core_event, check_event
from reconciler.apiserver.builtin.pod_validation import (
    check_pod_spec,
    check_pod_update,
    check_port,
    choice,
    difference,
    without_empty,
)
from reconciler.apiserver.builtin.policy_validation import check_binding, check_policy
from reconciler.apiserver.builtin.preparation import admitted_pod_spec
from reconciler.apiserver.builtin.registrations import check_api_service, check_revision
from reconciler.apiserver.builtin.webhook_validation import check_webhooks
from reconciler.apiserver.encoding.refusals import FieldError
from reconciler.apiserver.encoding.text import go_json
from reconciler.apiserver.schema.names import CONFIG_KEY_MESSAGE, is_config_key
from reconciler.wire import JSONObject

__all__ = ["selects", "validation_errors"]

Findings = Iterator[FieldError]
Check = Callable[[JSONObject, JSONObject | None], Findings]
UpdateCheck = Callable[[JSONObject, JSONObject], Findings]


# Configuration and leases.


def _check_immutable(doc: JSONObject, before: JSONObject | None, *members: str) -> Findings:
    """Check that the content of an object with ``immutable: true`` does not change."""
    if before is None or not before.get("immutable"):
        return
    changed = [key for key in members if doc.get(key) != before.get(key)]
    if not doc.get("immutable"):
        changed.insert(0, "immutable")
    for key in changed:
        yield FieldError.forbidden(key, "field is immutable when `immutable` is set")


def _check_keys(doc: JSONObject, *members: str) -> Findings:
    for member in members:
        for key in doc.get(member) or ():
            if not is_config_key(key):
                yield FieldError.invalid(f"{member}[{key}]", key, CONFIG_KEY_MESSAGE)


def _check_config_map(doc: JSONObject, before: JSONObject | None) -> Findings:
    yield from _check_immutable(doc, before, "data", "binaryData")
    for key in doc.get("data") or ():
        if key in (doc.get("binaryData") or ()):
            yield FieldError.invalid(f"data[{key}]", key, "duplicate of key present in binaryData")
    yield from _check_keys(doc, "data", "binaryData")


def _check_secret(doc: JSONObject, before: JSONObject | None) -> Findings:
    if before is not None and doc.get("type") != before.get("type"):
        yield FieldError.invalid("type", str(doc.get("type")), "field is immutable")
    yield from _check_immutable(doc, before, "data")
    yield from _check_keys(doc, "data")


def _check_lease(doc: JSONObject, _before: JSONObject | None) -> Findings:
    spec = doc.get("spec") or {}
    duration, transitions = spec.get("leaseDurationSeconds"), spec.get("leaseTransitions")
    if duration is not None and duration <= 0:
        yield FieldError.invalid("spec.leaseDurationSeconds", duration, "must be greater than 0")
    if transitions is not None and transitions < 0:
        yield FieldError.invalid("spec.leaseTransitions", transitions, "must be greater than or equal to 0")


# Pods and workloads.

_UPDATABLE_IN_STATEFUL_SETS = (
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
)


def _check_pod(doc: JSONObject, before: JSONObject | None) -> Findings:
    spec = doc.get("spec") or {}
    yield from check_pod_spec(spec, "spec")
    if before is None and spec.get("ephemeralContainers"):
        yield FieldError.forbidden("spec.ephemeralContainers", "cannot be set on create")
    if before is not None and spec != before.get("spec"):
        known = before.get("spec") or {}
        yield from check_pod_update(admitted_pod_spec(spec, known), known)


def _workload_check(kind: str) -> Check:
    """Return the check of a kind that manages the pods of its selector."""

    def check(doc: JSONObject, before: JSONObject | None) -> Findings:
        spec = doc.get("spec") or {}
        replicas = spec.get("replicas")
        if isinstance(replicas, int) and replicas < 0:
            yield FieldError.invalid("spec.replicas", replicas, "must be greater than or equal to 0")
        yield from _check_selector(spec, kind)
        template = spec.get("template") or {}
        inner = template.get("spec") or {}
        yield from check_pod_spec(inner, "spec.template.spec")
        policy = inner.get("restartPolicy")
        if policy in ("Never", "OnFailure"):
            yield from choice("spec.template.spec.restartPolicy", policy, ("Always",))
        if kind == "deployment":
            yield from _check_deployment_strategy(spec.get("strategy") or {})
        if kind == "statefulset":
            yield from _check_update_strategy(spec.get("updateStrategy") or {})
        if before is not None:
            yield from _check_workload_update(kind, spec, before.get("spec") or {})

    return check


def _check_selector(spec: JSONObject, kind: str) -> Findings:
    selector = spec.get("selector")
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels")
    if selector is None:
        yield FieldError.required("spec.selector")
    elif not selector:
        yield FieldError.invalid("spec.selector", {}, f"empty selector is invalid for {kind}")
        return
    if not selects(selector or {}, labels or {}):
        yield FieldError.invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")


def selects(selector: JSONObject, labels: dict[str, str]) -> bool:
    """Return whether a label selector matches labels; an empty selector matches nothing."""
    if not selector:
        return False
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_meets(labels, term) for term in selector.get("matchExpressions") or ())


def _meets(labels: dict[str, str], term: JSONObject) -> bool:
    key, values = term.get("key", ""), term.get("values") or ()
    operator = term.get("operator")
    if operator in ("Exists", "DoesNotExist"):
        return (key in labels) is (operator == "Exists")
    return (labels.get(key) in values) is (operator == "In")


def _check_deployment_strategy(strategy: JSONObject) -> Findings:
    kind = strategy.get("type")
    if kind not in ("Recreate", "RollingUpdate"):
        shown = go_json({"Type": kind or "", "RollingUpdate": strategy.get("rollingUpdate")}, sort=False)
        message = f'Unsupported value: {shown}: supported values: "Recreate", "RollingUpdate"'
        yield FieldError("spec.strategy", message, "FieldValueNotSupported")
    elif kind == "Recreate" and strategy.get("rollingUpdate"):
        message = "may not be specified when strategy `type` is 'Recreate'"
        yield FieldError.forbidden("spec.strategy.rollingUpdate", message)


def _check_update_strategy(strategy: JSONObject) -> Findings:
    rolling = strategy.get("rollingUpdate")
    if strategy.get("type") == "OnDelete" and rolling is not None:
        shown = {"Partition": rolling.get("partition", 0), "MaxUnavailable": rolling.get("maxUnavailable")}
        message = "only allowed for updateStrategy 'RollingUpdate'"
        yield FieldError.invalid_struct("spec.updateStrategy.rollingUpdate", shown, message)


def _check_workload_update(kind: str, spec: JSONObject, before: JSONObject) -> Findings:
    if kind == "statefulset":
        fixed = (spec.keys() | before.keys()) - set(_UPDATABLE_IN_STATEFUL_SETS)
        if any(spec.get(key) != before.get(key) for key in fixed):
            names = ", ".join(f"'{name}'" for name in _UPDATABLE_IN_STATEFUL_SETS[:-1])
            message = f"updates to statefulset spec for fields other than {names} and 'minReadySeconds' are forbidden"
            yield FieldError.forbidden("spec", message)
    elif spec.get("selector") != before.get("selector"):
        yield FieldError.invalid("spec.selector", spec.get("selector"), "field is immutable")


def _check_job(doc: JSONObject, _before: JSONObject | None) -> Findings:
    yield from _check_job_template((doc.get("spec") or {}).get("template") or {}, "spec.template.spec")


def _check_cron_job(doc: JSONObject, _before: JSONObject | None) -> Findings:
    spec = doc.get("spec") or {}
    yield from _check_schedule(str(spec.get("schedule") or ""), "spec.schedule")
    template = ((spec.get("jobTemplate") or {}).get("spec") or {}).get("template") or {}
    yield from _check_job_template(template, "spec.jobTemplate.spec.template.spec")


_SPACES = re.compile(r"\s+")


def _check_schedule(schedule: str, path: str) -> Findings:
    """Check that a schedule has five fields or is a macro such as ``@daily``."""
    fields = _SPACES.split(schedule.strip())
    if not schedule:
        yield FieldError.required(path)
    elif len(fields) != 5 and not schedule.startswith("@"):
        message = f"expected exactly 5 fields, found {len(fields)}: [{' '.join(fields)}]"
        yield FieldError.invalid(path, schedule, message)


def _check_job_template(template: JSONObject, path: str) -> Findings:
    inner = template.get("spec") or {}
    yield from check_pod_spec(inner, path)
    if inner.get("restartPolicy") == "Always":
        yield FieldError.required(f"{path}.restartPolicy", 'valid values: "OnFailure", "Never"')


# Other kinds.


def _check_service(doc: JSONObject, _before: JSONObject | None) -> Findings:
    spec = doc.get("spec") or {}
    ports, kind = spec.get("ports") or [], spec.get("type")
    if not ports and kind != "ExternalName" and spec.get("clusterIP") != "None":
        yield FieldError.required("spec.ports")
    for index, port in enumerate(ports):
        path = f"spec.ports[{index}]"
        if len(ports) > 1 and not port.get("name"):
            yield FieldError.required(f"{path}.name")
        yield from check_port(f"{path}.port", port.get("port", 0))
        yield from check_port(f"{path}.targetPort", port.get("targetPort"))
    yield from choice("spec.type", kind, ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort"))
    if kind == "ExternalName" and not spec.get("externalName"):
        yield FieldError.required("spec.externalName")


def _check_budget(doc: JSONObject, _before: JSONObject | None) -> Findings:
    spec = doc.get("spec") or {}
    if spec.get("minAvailable") is not None and spec.get("maxUnavailable") is not None:
        shown = {
            "MinAvailable": spec["minAvailable"],
            "Selector": spec.get("selector"),
            "MaxUnavailable": spec["maxUnavailable"],
            "UnhealthyPodEvictionPolicy": spec.get("unhealthyPodEvictionPolicy"),
        }
        yield FieldError.invalid_struct("spec", shown, "minAvailable and maxUnavailable cannot be both set")


def _check_role(doc: JSONObject, _before: JSONObject | None) -> Findings:
    for index, rule in enumerate(doc.get("rules") or ()):
        if not rule.get("verbs"):
            yield FieldError.required(f"rules[{index}].verbs", "verbs must contain at least one value")


def _check_binding(doc: JSONObject, _before: JSONObject | None) -> Findings:
    role = doc.get("roleRef") or {}
    kind = role.get("kind", "")
    if kind not in ("Role", "ClusterRole"):
        yield FieldError.not_supported("roleRef.kind", kind, ("Role", "ClusterRole"))
    if not role.get("name"):
        yield FieldError.required("roleRef.name")


# Updates.


def _immutable(*paths: str) -> UpdateCheck:
    """Return the check that fields do not change."""

    def check(doc: JSONObject, before: JSONObject) -> Findings:
        for path in paths:
            yield from _check_unchanged(doc, before, path)

    return check


def _check_unchanged(doc: JSONObject, before: JSONObject, path: str) -> Findings:
    value = value_at(doc, path)
    if without_empty(value) != without_empty(value_at(before, path)):
        yield FieldError.invalid(path, value, "field is immutable")


def _check_binding_update(doc: JSONObject, before: JSONObject) -> Findings:
    role = doc.get("roleRef") or {}
    if role != (before.get("roleRef") or {}):
        shown = {"APIGroup": role.get("apiGroup") or "", "Kind": role.get("kind") or "", "Name": role.get("name") or ""}
        yield FieldError.invalid_struct("roleRef", shown, "cannot change roleRef")


def _check_priority_class_update(doc: JSONObject, before: JSONObject) -> Findings:
    if (doc.get("value") or 0) != (before.get("value") or 0):
        yield FieldError.forbidden("value", "may not be changed in an update.")
    yield from _check_unchanged(doc, before, "preemptionPolicy")


def _check_service_update(doc: JSONObject, before: JSONObject) -> Findings:
    spec, known = doc.get("spec") or {}, before.get("spec") or {}
    address, old = spec.get("clusterIP"), known.get("clusterIP")
    moves = "ExternalName" in (spec.get("type"), known.get("type"))
    if address and old and address != old and not moves:
        yield FieldError.invalid("spec.clusterIPs[0]", [address], "may not change once set")


def _check_claim_update(doc: JSONObject, before: JSONObject) -> Findings:
    spec, known = doc.get("spec") or {}, before.get("spec") or {}
    kept = dict(spec)
    # The volume and the storage class may be set once; a bound claim may be resized.
    free = [key for key in ("volumeName", "storageClassName") if not known.get(key)]
    if value_at(doc, "status.phase") == "Bound":
        free += ["resources", "volumeAttributesClassName"]
    for key in free:
        kept[key] = known.get(key)
    if without_empty(kept) != without_empty(known):
        excepted = "spec is immutable after creation except resources.requests and volumeAttributesClassName"
        yield FieldError.forbidden("spec", f"{excepted} for bound claims\n{difference(known, kept)}")


_BESIDES_THE_SOURCE = frozenset(
    {
        "accessModes",
        "capacity",
        "claimRef",
        "mountOptions",
        "nodeAffinity",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "volumeAttributesClassName",
        "volumeMode",
    }
)


def _check_volume_update(doc: JSONObject, before: JSONObject) -> Findings:
    source, known = (
        {key: value for key, value in (each.get("spec") or {}).items() if key not in _BESIDES_THE_SOURCE}
        for each in (doc, before)
    )
    if without_empty(source) != without_empty(known):
        path = "spec.persistentvolumesource"
        yield FieldError.forbidden(path, f"{path} is immutable after creation\n{difference(known, source)}")
    if value_at(doc, "spec.volumeMode") != value_at(before, "spec.volumeMode"):
        yield FieldError.invalid("volumeMode", value_at(doc, "spec.volumeMode"), "field is immutable")


_IMMUTABLE_IN_JOBS = ("completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy")


def _check_job_update(doc: JSONObject, before: JSONObject) -> Findings:
    spec, known = doc.get("spec") or {}, before.get("spec") or {}
    if spec.get("selector") != known.get("selector") and not spec.get("manualSelector"):
        yield FieldError.invalid("spec.selector", spec.get("selector"), "`selector` not auto-generated")
    completions = spec.get("completions")
    if spec.get("completionMode") != "Indexed":
        yield from _check_unchanged(doc, before, "spec.completions")
    elif completions not in (known.get("completions"), None, spec.get("parallelism")):
        message = "can only be modified in tandem with spec.parallelism"
        yield FieldError.invalid("spec.completions", completions, message)
    yield from _check_unchanged(doc, before, "spec.selector")
    if not known.get("suspend"):
        # The template of a suspended job may change; which fields of it may is not checked.
        yield from _check_unchanged(doc, before, "spec.template")
    for key in _IMMUTABLE_IN_JOBS:
        yield from _check_unchanged(doc, before, f"spec.{key}")


_CHECKS: dict[tuple[str, str], Check] = {
    ("", "configmaps"): _check_config_map,
    ("", "events"): check_core_event,
    ("", "pods"): _check_pod,
    ("", "secrets"): _check_secret,
    ("", "services"): _check_service,
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations"): check_webhooks,
    ("admissionregistration.k8s.io", "validatingadmissionpolicies"): check_policy,
    ("admissionregistration.k8s.io", "validatingadmissionpolicybindings"): check_binding,
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations"): check_webhooks,
    ("apiregistration.k8s.io", "apiservices"): check_api_service,
    ("apps", "controllerrevisions"): check_revision,
    ("apps", "daemonsets"): _workload_check("daemonset"),
    ("apps", "deployments"): _workload_check("deployment"),
    ("apps", "replicasets"): _workload_check("replicaset"),
    ("apps", "statefulsets"): _workload_check("statefulset"),
    ("batch", "cronjobs"): _check_cron_job,
    ("batch", "jobs"): _check_job,
    ("coordination.k8s.io", "leases"): _check_lease,
    ("events.k8s.io", "events"): check_event,
    ("policy", "poddisruptionbudgets"): _check_budget,
    ("rbac.authorization.k8s.io", "rolebindings"): _check_binding,
    ("rbac.authorization.k8s.io", "roles"): _check_role,
}
_UPDATE_CHECKS: dict[tuple[str, str], UpdateCheck] = {
    ("", "persistentvolumeclaims"): _check_claim_update,
    ("", "persistentvolumes"): _check_volume_update,
    ("", "services"): _check_service_update,
    ("batch", "jobs"): _check_job_update,
    ("discovery.k8s.io", "endpointslices"): _immutable("addressType"),
    ("networking.k8s.io", "ingressclasses"): _immutable("spec.controller"),
    ("rbac.authorization.k8s.io", "clusterrolebindings"): _check_binding_update,
    ("rbac.authorization.k8s.io", "rolebindings"): _check_binding_update,
    ("scheduling.k8s.io", "priorityclasses"): _check_priority_class_update,
    ("storage.k8s.io", "storageclasses"): _immutable("provisioner", "parameters", "reclaimPolicy", "volumeBindingMode"),
}


def validation_errors(group: str, plural: str, doc: JSONObject, before: JSONObject | None) -> list[FieldError]:
    """Return the errors of an object of a built-in kind.

    Args:
        group: the group of the kind.
        plural: the kind's plural name.
        doc: the object.
        before: the stored object on an update.
    """
    check, check_update = _CHECKS.get((group, plural)), _UPDATE_CHECKS.get((group, plural))
    errors = [] if check is None else list(check(doc, before))
    if check_update is not None and before is not None:
        errors += check_update(doc, before)
    return errors
