"""The cells of the tables of built-in kinds that need more than the value at a path."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from reconciler.wire import JSONObject

__all__ = [
    "NONE",
    "UNKNOWN",
    "UNSET",
    "Cell",
    "age",
    "amounts",
    "containers",
    "csr_state",
    "endpoints",
    "event_age",
    "event_object",
    "event_source",
    "external_addresses",
    "hpa_targets",
    "job_completions",
    "job_duration",
    "job_status",
    "joined",
    "named",
    "node_address",
    "node_kernel",
    "node_roles",
    "node_status",
    "param_ref",
    "seconds",
    "selector",
    "service_ports",
    "shortened",
    "show_age",
    "state",
    "subjects",
    "value_at",
]

Cell = Callable[[JSONObject, datetime], Any]

NONE, UNSET, UNKNOWN = "<none>", "<unset>", "<unknown>"


def show_age(text: str, now: datetime) -> str:
    """Return the time since a timestamp, as ``kubectl`` shows it."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return "<invalid>"
    return UNKNOWN if moment.tzinfo is None else _human_duration(now - moment)


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


def age(path: str, default: str = UNKNOWN) -> Cell:
    """Return the cell with the time since that at a path."""

    def cell(doc: JSONObject, now: datetime) -> str:
        found = value_at(doc, path)
        return show_age(str(found), now) if found else default

    return cell


def joined(values: Iterable[Any], default: str = NONE) -> str:
    """Return values with commas between them, or the default."""
    return ",".join(str(value) for value in values) or default


def shortened(values: Sequence[Any], most: int = 3, separator: str = ",") -> str:
    """Return the first values, and how many more there are."""
    shown = separator.join(str(value) for value in values[:most]) or NONE
    return f"{shown} + {len(values) - most} more..." if len(values) > most else shown


def containers(path: str, key: str) -> Cell:
    """Return the cell with the names or images of the containers of a pod spec."""
    return lambda doc, _now: joined((each.get(key, "") for each in value_at(doc, f"{path}.containers", ())), "")


def selector(path: str) -> Cell:
    """Return the cell with a map of labels, or a label selector."""

    def cell(doc: JSONObject, _now: datetime) -> str:
        found = value_at(doc, path, {})
        labels = found.get("matchLabels", {}) if "matchLabels" in found or "matchExpressions" in found else found
        return joined(f"{key}={labels[key]}" for key in sorted(labels))

    return cell


def named(path: str, *parts: str, default: str = NONE, separator: str = "/") -> Cell:
    """Return the cell with the parts of a reference at a path, such as kind and name."""

    def cell(doc: JSONObject, _now: datetime) -> str:
        found = value_at(doc, path)
        return separator.join(str(found[part]) for part in parts if found.get(part)) if found else default

    return cell


def param_ref(doc: JSONObject, now: datetime) -> str:
    """Return the parameters of an admission policy's binding."""
    ref = value_at(doc, "spec.paramRef", {})
    if ref.get("name"):
        return f"{ref.get('namespace') or '*'}/{ref['name']}"
    return str(selector("spec.paramRef.selector")(doc, now)) if ref else UNSET


def state(path: str, name: str, *, default: str = UNKNOWN, reason: bool = False) -> Cell:
    """Return the cell with the status of a condition.

    Args:
        path: where the conditions are.
        name: the type of the condition.
        default: the cell if there is no such condition.
        reason: whether to show why it is not true.
    """

    def cell(doc: JSONObject, _now: datetime) -> str:
        found = [each for each in value_at(doc, path, ()) if each.get("type") == name]
        if not found:
            return default
        status = str(found[0].get("status"))
        why = found[0].get("reason") if reason and status != "True" else ""
        return f"{status} ({why})" if why else status

    return cell


def csr_state(doc: JSONObject, _now: datetime) -> str:
    """Return the state of a CertificateSigningRequest."""
    met = {each.get("type") for each in value_at(doc, "status.conditions", ())}
    shown = "Denied" if "Denied" in met else "Approved" if "Approved" in met else "Pending"
    issued = ",Issued" if value_at(doc, "status.certificate") else ""
    return f"{shown}{',Failed' if 'Failed' in met else ''}{issued}"


def seconds(path: str) -> Cell:
    """Return the cell with a number of seconds as a duration."""

    def cell(doc: JSONObject, _now: datetime) -> str:
        found = value_at(doc, path)
        return NONE if found is None else _human_duration(timedelta(seconds=found))

    return cell


def subjects(kind: str) -> Cell:
    """Return the cell with the subjects of a role binding that are of a kind."""

    def cell(doc: JSONObject, _now: datetime) -> str:
        found = (each for each in doc.get("subjects") or () if each.get("kind") == kind)
        shown = (
            f"{each.get('namespace', '')}/{each['name']}" if kind == "ServiceAccount" else each["name"]
            for each in found
        )
        return ", ".join(shown)

    return cell


def amounts(*, limits: bool) -> Cell:
    """Return the cell with the used and the hard amounts of a ResourceQuota, of limits or of everything else."""

    def cell(doc: JSONObject, _now: datetime) -> str:
        hard, used = value_at(doc, "status.hard", {}), value_at(doc, "status.used", {})
        chosen = [name for name in sorted(hard) if name.startswith("limits.") is limits]
        return ", ".join(f"{name}: {used.get(name, 0)}/{hard[name]}" for name in chosen)

    return cell


def endpoints(doc: JSONObject, _now: datetime) -> str:
    """Return the first addresses of Endpoints."""
    found: list[str] = []
    for subset in doc.get("subsets") or ():
        addresses = [str(each.get("ip")) for each in subset.get("addresses") or ()]
        ports = [port.get("port") for port in subset.get("ports") or ()]
        found += [f"{address}:{port}" for port in ports for address in addresses] if ports else addresses
    return shortened(found)


_METRICS = {
    "External": "external",
    "Pods": "pods",
    "Object": "object",
    "Resource": "resource",
    "ContainerResource": "containerResource",
}


def hpa_targets(doc: JSONObject, _now: datetime) -> str:
    """Return the metrics of a HorizontalPodAutoscaler with their current and target values."""
    now = value_at(doc, "status.currentMetrics", ())
    metrics = enumerate(value_at(doc, "spec.metrics", ()))
    return shortened([_metric(each, now[index] if index < len(now) else {}) for index, each in metrics], 2, ", ")


def _metric(metric: JSONObject, status: JSONObject) -> str:
    member = _METRICS.get(str(metric.get("type")), "")
    spec, current = metric.get(member) or {}, value_at(status, f"{member}.current", {})
    target = spec.get("target") or {}
    named_first = member in ("resource", "containerResource")
    start = f"{spec.get('name')}: " if named_first else ""
    if "averageValue" in target:
        average = " (avg)" if member in ("external", "object") else ""
        return f"{start}{current.get('averageValue', UNKNOWN)}/{target['averageValue']}{average}"
    if not named_first:
        return f"{current.get('value', UNKNOWN)}/{target.get('value')}"
    used, wanted = current.get("averageUtilization"), target.get("averageUtilization")
    return f"{start}{UNKNOWN if used is None else f'{used}%'}/{'<auto>' if wanted is None else f'{wanted}%'}"


def service_ports(doc: JSONObject, _now: datetime) -> str:
    """Return the ports of a Service."""
    shown = []
    for port in value_at(doc, "spec.ports", ()):
        node = f":{port['nodePort']}" if port.get("nodePort") else ""
        shown.append(f"{port.get('port')}{node}/{port.get('protocol', 'TCP')}")
    return joined(shown)


def external_addresses(doc: JSONObject, _now: datetime) -> str:
    """Return the addresses of a Service outside the cluster."""
    kind, addresses = value_at(doc, "spec.type"), list(value_at(doc, "spec.externalIPs", ()))
    if kind == "ExternalName":
        return str(value_at(doc, "spec.externalName", ""))
    if kind != "LoadBalancer":
        return joined(addresses)
    given = value_at(doc, "status.loadBalancer.ingress", ())
    return joined([*(each.get("ip") or each.get("hostname") for each in given), *addresses], "<pending>")


def node_status(doc: JSONObject, _now: datetime) -> str:
    """Return whether a Node is ready and schedulable."""
    ready = [each for each in value_at(doc, "status.conditions", ()) if each.get("type") == "Ready"]
    shown = "Unknown" if not ready else "Ready" if ready[0].get("status") == "True" else "NotReady"
    return f"{shown},SchedulingDisabled" if value_at(doc, "spec.unschedulable") else shown


def node_roles(doc: JSONObject, _now: datetime) -> str:
    """Return the roles of a Node, which are labels."""
    prefix = "node-role.kubernetes.io/"
    return joined(
        sorted(key.removeprefix(prefix) for key in value_at(doc, "metadata.labels", {}) if key.startswith(prefix))
    )


def node_address(kind: str) -> Cell:
    """Return the cell with the first address of a type."""

    def cell(doc: JSONObject, _now: datetime) -> str:
        found = [each.get("address") for each in value_at(doc, "status.addresses", ()) if each.get("type") == kind]
        return str(found[0]) if found else NONE

    return cell


def node_kernel(doc: JSONObject, _now: datetime) -> str:
    """Return the kernel and the architecture of a Node."""
    info = value_at(doc, "status.nodeInfo", {})
    architecture = f" ({info['architecture']})" if info.get("architecture") else ""
    return f"{info.get('kernelVersion') or UNKNOWN}{architecture}"


def job_status(doc: JSONObject, _now: datetime) -> str:
    """Return the state of a Job."""
    met = [each.get("type") for each in value_at(doc, "status.conditions", ()) if each.get("status") == "True"]
    dying = ("Terminating",) if value_at(doc, "metadata.deletionTimestamp") else ()
    ranked = ("Complete", "Failed", *dying, "Suspended", "FailureTarget", "SuccessCriteriaMet")
    return next((kind for kind in ranked if kind in met or kind in dying), "Running")


def job_completions(doc: JSONObject, _now: datetime) -> str:
    """Return how many pods of a Job have succeeded, of how many."""
    done, wanted = value_at(doc, "status.succeeded", 0), value_at(doc, "spec.completions")
    parallelism = value_at(doc, "spec.parallelism", 0)
    if wanted is not None:
        return f"{done}/{wanted}"
    return f"{done}/1 of {parallelism}" if parallelism > 1 else f"{done}/1"


def job_duration(doc: JSONObject, now: datetime) -> str:
    """Return how long a Job has run."""
    start, end = value_at(doc, "status.startTime"), value_at(doc, "status.completionTime")
    return show_age(start, datetime.fromisoformat(end) if end else now) if start else ""


def event_age(*paths: str) -> Cell:
    """Return the cell with the time since the first that is set."""

    def cell(doc: JSONObject, now: datetime) -> str:
        found = next((value for path in paths if (value := value_at(doc, path))), None)
        return show_age(str(found), now) if found else UNKNOWN

    return cell


def event_object(doc: JSONObject, _now: datetime) -> str:
    """Return the object of an Event."""
    about = doc.get("involvedObject") or {}
    kind = str(about.get("kind") or "").lower()
    return f"{kind}/{about['name']}" if about.get("name") else kind


def event_source(doc: JSONObject, _now: datetime) -> str:
    """Return who reported an Event."""
    source = doc.get("source") or {}
    component = source.get("component") or doc.get("reportingComponent") or ""
    instance = source.get("host") or doc.get("reportingInstance") or ""
    return f"{component}, {instance}" if instance else str(component)
