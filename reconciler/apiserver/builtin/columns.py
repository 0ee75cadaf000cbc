"""The table columns of built-in kinds, as ``kubectl get`` shows them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from reconciler.wire import JSONObject

__all__ = ["Column", "built_in_columns", "show_age", "value_at"]

Cell = Callable[[JSONObject, datetime], Any]


class Column(NamedTuple):
    """A column: its title, type, cell function and priority; 1 is shown only by ``-o wide``."""

    name: str
    type: str
    cell: Cell
    priority: int = 0


_NONE, _UNSET, _UNKNOWN = "<none>", "<unset>", "<unknown>"


def show_age(text: str, now: datetime) -> str:
    """Return the time since a timestamp, as ``kubectl`` shows it."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return "<invalid>"
    return _UNKNOWN if moment.tzinfo is None else _human_duration(now - moment)


def _human_duration(passed: timedelta) -> str:
    """Return a duration as ``kubectl`` shows ages, with at most two units."""
    seconds = int(passed.total_seconds())
    if seconds < -1:
        return "<invalid>"
    seconds = max(seconds, 0)
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    for bound, unit, major, rest, minor in (
        (120, "s", seconds, 0, ""),
        (600, "m", minutes, seconds % 60, "s"),
        (3 * 3600, "m", minutes, 0, ""),
        (8 * 3600, "h", hours, minutes % 60, "m"),
        (48 * 3600, "h", hours, 0, ""),
        (8 * 86400, "d", days, hours % 24, "h"),
        (730 * 86400, "d", days, 0, ""),
        (2920 * 86400, "y", days // 365, days % 365, "d"),
    ):
        if seconds < bound:
            return f"{major}{unit}{rest}{minor}" if rest else f"{major}{unit}"
    return f"{days // 365}y"


def value_at(doc: Any, path: str, default: Any = None) -> Any:
    """Return the value at a dotted path of a document, or the default."""
    for part in path.split("."):
        doc = doc.get(part) if isinstance(doc, dict) else None
    return default if doc is None else doc


def _at(path: str, default: Any = "") -> Cell:
    return lambda doc, _now: value_at(doc, path, default)


def _since(path: str, default: str = _UNKNOWN) -> Cell:
    def cell(doc: JSONObject, now: datetime) -> str:
        found = value_at(doc, path)
        return show_age(str(found), now) if found else default

    return cell


def _count(*paths: str) -> Cell:
    return lambda doc, _now: sum(len(value_at(doc, path, ())) for path in paths)


def _of(left: str, right: str) -> Cell:
    return lambda doc, _now: f"{value_at(doc, left, 0)}/{value_at(doc, right, 0)}"


def _joined(values: Sequence[Any]) -> str:
    return ",".join(str(value) for value in values)


def _selector(path: str) -> Cell:
    def cell(doc: JSONObject, _now: datetime) -> str:
        found = value_at(doc, path, {})
        labels = found.get("matchLabels", {}) if "matchLabels" in found or "matchExpressions" in found else found
        return _joined([f"{key}={labels[key]}" for key in sorted(labels)]) or _NONE

    return cell


_NAME = Column("Name", "string", _at("metadata.name"))
_AGE = Column("Age", "string", _since("metadata.creationTimestamp"))
_CREATED = Column("Created At", "date", _at("metadata.creationTimestamp"))


_WEBHOOKS = (_NAME, Column("Webhooks", "integer", _count("webhooks")), _AGE)


def _param_kind(doc: JSONObject, _now: datetime) -> str:
    kind = value_at(doc, "spec.paramKind")
    return f"{kind.get('apiVersion')}/{kind.get('kind')}" if kind else _UNSET


def _param_ref(doc: JSONObject, now: datetime) -> str:
    ref = value_at(doc, "spec.paramRef", {})
    if ref.get("name"):
        return f"{ref.get('namespace') or '*'}/{ref['name']}"
    return _selector("spec.paramRef.selector")(doc, now) if ref else _UNSET


def _pod_ready(doc: JSONObject, _now: datetime) -> str:
    states = value_at(doc, "status.containerStatuses", ())
    return f"{sum(bool(state.get('ready')) for state in states)}/{len(value_at(doc, 'spec.containers', ()))}"


def _pod_status(doc: JSONObject, _now: datetime) -> str:
    shown = value_at(doc, "status.reason") or value_at(doc, "status.phase", "")
    for state in value_at(doc, "status.containerStatuses", ()):
        for kind in ("waiting", "terminated"):
            shown = value_at(state, f"state.{kind}.reason") or shown
    return "Terminating" if value_at(doc, "metadata.deletionTimestamp") else str(shown)


def _pod_restarts(doc: JSONObject, _now: datetime) -> str:
    return str(sum(state.get("restartCount", 0) for state in value_at(doc, "status.containerStatuses", ())))


def _gates(doc: JSONObject, _now: datetime) -> str:
    gates = [gate.get("conditionType") for gate in value_at(doc, "spec.readinessGates", ())]
    met = {each.get("type") for each in value_at(doc, "status.conditions", ()) if each.get("status") == "True"}
    return f"{sum(gate in met for gate in gates)}/{len(gates)}" if gates else _NONE


def _ports(doc: JSONObject, _now: datetime) -> str:
    shown = []
    for port in value_at(doc, "spec.ports", ()):
        node = f":{port['nodePort']}" if port.get("nodePort") else ""
        shown.append(f"{port.get('port')}{node}/{port.get('protocol', 'TCP')}")
    return _joined(shown) or _NONE


def _external(doc: JSONObject, _now: datetime) -> str:
    kind, addresses = value_at(doc, "spec.type"), list(value_at(doc, "spec.externalIPs", ()))
    if kind == "ExternalName":
        return str(value_at(doc, "spec.externalName", ""))
    if kind == "LoadBalancer":
        given = value_at(doc, "status.loadBalancer.ingress", ())
        addresses = [each.get("ip") or each.get("hostname") for each in given] + addresses
        return _joined(addresses) or "<pending>"
    return _joined(addresses) or _NONE


def _node_status(doc: JSONObject, _now: datetime) -> str:
    ready = [each for each in value_at(doc, "status.conditions", ()) if each.get("type") == "Ready"]
    shown = "Unknown" if not ready else "Ready" if ready[0].get("status") == "True" else "NotReady"
    return f"{shown},SchedulingDisabled" if value_at(doc, "spec.unschedulable") else shown


def _roles(doc: JSONObject, _now: datetime) -> str:
    prefix = "node-role.kubernetes.io/"
    found = sorted(key.removeprefix(prefix) for key in value_at(doc, "metadata.labels", {}) if key.startswith(prefix))
    return _joined(found) or _NONE


def _address(kind: str) -> Cell:
    def cell(doc: JSONObject, _now: datetime) -> str:
        found = [each.get("address") for each in value_at(doc, "status.addresses", ()) if each.get("type") == kind]
        return str(found[0]) if found else _NONE

    return cell


def _job_status(doc: JSONObject, _now: datetime) -> str:
    met = [each.get("type") for each in value_at(doc, "status.conditions", ()) if each.get("status") == "True"]
    for kind in ("Complete", "Failed", "SuccessCriteriaMet", "FailureTarget"):
        if kind in met:
            return kind
    if value_at(doc, "metadata.deletionTimestamp"):
        return "Terminating"
    return "Suspended" if "Suspended" in met else "Running"


def _job_duration(doc: JSONObject, now: datetime) -> str:
    start, end = value_at(doc, "status.startTime"), value_at(doc, "status.completionTime")
    if not start:
        return ""
    return show_age(start, datetime.fromisoformat(end) if end else now)


def _event_seen(doc: JSONObject, now: datetime) -> str:
    seen = value_at(doc, "series.lastObservedTime") or doc.get("lastTimestamp") or doc.get("eventTime")
    return show_age(str(seen), now) if seen else _UNKNOWN


def _event_began(doc: JSONObject, now: datetime) -> str:
    began = doc.get("firstTimestamp") or doc.get("eventTime")
    return show_age(str(began), now) if began else _UNKNOWN


def _event_object(doc: JSONObject, _now: datetime) -> str:
    about = doc.get("involvedObject") or {}
    kind = str(about.get("kind") or "").lower()
    return f"{kind}/{about['name']}" if about.get("name") else kind


def _event_source(doc: JSONObject, _now: datetime) -> str:
    source = doc.get("source") or {}
    component = source.get("component") or doc.get("reportingComponent") or ""
    instance = source.get("host") or doc.get("reportingInstance") or ""
    return f"{component}, {instance}" if instance else str(component)


def _event_count(doc: JSONObject, _now: datetime) -> str:
    return str(value_at(doc, "series.count") or doc.get("count") or 1)


_EVENTS = (
    Column("Last Seen", "string", _event_seen),
    Column("Type", "string", _at("type")),
    Column("Reason", "string", _at("reason")),
    Column("Object", "string", _event_object),
    Column("Subobject", "string", _at("involvedObject.fieldPath"), 1),
    Column("Source", "string", _event_source, 1),
    Column("Message", "string", lambda doc, _now: str(doc.get("message") or "").strip()),
    Column("First Seen", "string", _event_began, 1),
    Column("Count", "string", _event_count, 1),
    _NAME._replace(priority=1),
)


def _template(path: str = "spec.template.spec") -> tuple[Column, Column]:
    def listed(key: str) -> Cell:
        return lambda doc, _now: _joined([each.get(key, "") for each in value_at(doc, f"{path}.containers", ())])

    return Column("Containers", "string", listed("name"), 1), Column("Images", "string", listed("image"), 1)


def _numbers(**paths: str) -> tuple[Column, ...]:
    return tuple(Column(name.replace("_", "-"), "integer", _at(path, 0)) for name, path in paths.items())


_SELECTOR = Column("Selector", "string", _selector("spec.selector"), 1)
_REPLICAS = _numbers(Desired="spec.replicas", Current="status.replicas", Ready="status.readyReplicas")
_DAEMONS = _numbers(
    Desired="status.desiredNumberScheduled",
    Current="status.currentNumberScheduled",
    Ready="status.numberReady",
    Up_to_date="status.updatedNumberScheduled",
    Available="status.numberAvailable",
)


def _text(path: str, default: str = _NONE) -> Cell:
    return lambda doc, _now: str(value_at(doc, path, default) or default)


_TABLES: dict[tuple[str, str], tuple[Column, ...]] = {
    ("", "namespaces"): (_NAME, Column("Status", "string", _at("status.phase")), _AGE),
    ("", "configmaps"): (_NAME, Column("Data", "string", _count("data", "binaryData")), _AGE),
    ("", "secrets"): (_NAME, Column("Type", "string", _at("type")), Column("Data", "string", _count("data")), _AGE),
    ("", "events"): _EVENTS,
    ("events.k8s.io", "events"): _EVENTS,
    ("", "services"): (
        _NAME,
        Column("Type", "string", _at("spec.type")),
        Column("Cluster-IP", "string", _text("spec.clusterIP")),
        Column("External-IP", "string", _external),
        Column("Port(s)", "string", _ports),
        _AGE,
        _SELECTOR,
    ),
    ("", "pods"): (
        _NAME,
        Column("Ready", "string", _pod_ready),
        Column("Status", "string", _pod_status),
        Column("Restarts", "string", _pod_restarts),
        _AGE,
        Column("IP", "string", _text("status.podIP"), 1),
        Column("Node", "string", _text("spec.nodeName"), 1),
        Column("Nominated Node", "string", _text("status.nominatedNodeName"), 1),
        Column("Readiness Gates", "string", _gates, 1),
    ),
    ("", "nodes"): (
        _NAME,
        Column("Status", "string", _node_status),
        Column("Roles", "string", _roles),
        _AGE,
        Column("Version", "string", _at("status.nodeInfo.kubeletVersion")),
        Column("Internal-IP", "string", _address("InternalIP"), 1),
        Column("External-IP", "string", _address("ExternalIP"), 1),
        Column("OS-Image", "string", _text("status.nodeInfo.osImage", _UNKNOWN), 1),
        Column("Kernel-Version", "string", _text("status.nodeInfo.kernelVersion", _UNKNOWN), 1),
        Column("Container-Runtime", "string", _text("status.nodeInfo.containerRuntimeVersion", _UNKNOWN), 1),
    ),
    ("", "limitranges"): (_NAME, _CREATED),
    ("", "replicationcontrollers"): (_NAME, *_REPLICAS, _AGE, *_template(), _SELECTOR),
    ("apps", "deployments"): (
        _NAME,
        Column("Ready", "string", _of("status.readyReplicas", "spec.replicas")),
        Column("Up-to-date", "string", _at("status.updatedReplicas", 0)),
        Column("Available", "string", _at("status.availableReplicas", 0)),
        _AGE,
        *_template(),
        _SELECTOR,
    ),
    ("apps", "replicasets"): (_NAME, *_REPLICAS, _AGE, *_template(), _SELECTOR),
    ("apps", "statefulsets"): (
        _NAME,
        Column("Ready", "string", _of("status.readyReplicas", "spec.replicas")),
        _AGE,
        *_template(),
    ),
    ("apps", "daemonsets"): (
        _NAME,
        *_DAEMONS,
        Column("Node Selector", "string", _selector("spec.template.spec.nodeSelector")),
        _AGE,
        *_template(),
        _SELECTOR,
    ),
    ("batch", "jobs"): (
        _NAME,
        Column("Status", "string", _job_status),
        Column("Completions", "string", _of("status.succeeded", "spec.completions")),
        Column("Duration", "string", _job_duration),
        _AGE,
        *_template(),
        _SELECTOR,
    ),
    ("batch", "cronjobs"): (
        _NAME,
        Column("Schedule", "string", _at("spec.schedule")),
        Column("Timezone", "string", _text("spec.timeZone")),
        Column("Suspend", "boolean", lambda doc, _now: str(value_at(doc, "spec.suspend", False))),
        Column("Active", "integer", _count("status.active")),
        Column("Last Schedule", "string", _since("status.lastScheduleTime", _NONE)),
        _AGE,
        *_template("spec.jobTemplate.spec.template.spec"),
        Column("Selector", "string", _selector("spec.jobTemplate.spec.selector"), 1),
    ),
    ("coordination.k8s.io", "leases"): (_NAME, Column("Holder", "string", _at("spec.holderIdentity")), _AGE),
    ("policy", "poddisruptionbudgets"): (
        _NAME,
        Column("Min Available", "string", _text("spec.minAvailable", "N/A")),
        Column("Max Unavailable", "string", _text("spec.maxUnavailable", "N/A")),
        Column("Allowed Disruptions", "integer", _at("status.disruptionsAllowed", 0)),
        _AGE,
    ),
    ("rbac.authorization.k8s.io", "roles"): (_NAME, _CREATED),
    ("rbac.authorization.k8s.io", "clusterroles"): (_NAME, _CREATED),
    ("apiextensions.k8s.io", "customresourcedefinitions"): (_NAME, _CREATED),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations"): _WEBHOOKS,
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations"): _WEBHOOKS,
    ("admissionregistration.k8s.io", "validatingadmissionpolicies"): (
        _NAME,
        Column("Validations", "integer", _count("spec.validations")),
        Column("ParamKind", "string", _param_kind),
        _AGE,
    ),
    ("admissionregistration.k8s.io", "validatingadmissionpolicybindings"): (
        _NAME,
        Column("PolicyName", "string", _at("spec.policyName")),
        Column("ParamRef", "string", _param_ref),
        _AGE,
    ),
}


def built_in_columns(group: str, plural: str) -> tuple[Column, ...]:
    """Return the columns of a built-in kind; name and age by default."""
    return _TABLES.get((group, plural), (_NAME, _AGE))
