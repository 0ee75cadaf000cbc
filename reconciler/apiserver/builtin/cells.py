"""The table columns of built-in kinds, as ``kubectl get`` shows them.

Their definitions in ``columns.json`` are recorded from a real API server. ``cells.json`` lists their cells by kind and
column, under ``*`` those of all kinds:

* ``path|default``: the value at a path, or the default, which may be missing;
* ``#path path``: the number of items of lists and maps;
* ``=template``: a text with ``{path}`` or ``{path|'text'}``, of which the first that is set is shown, with ``:lower``
  in lower case; a part in brackets is left out if none is set;
* ``condition ? cell : cell``: one cell if a condition of rules is met, another one if it is not;
* ``@function``: a function of this module of the object, the current time, and the arguments after it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from reconciler._core.wire import JSONObject
from reconciler.apiserver.builtin.rule import ValuePlace, condition, getter
from reconciler.apiserver.encoding.json_documents import condition_of, value_at
from reconciler.apiserver.encoding.text import go_json, recorded
from reconciler.apiserver.encoding.versions import NEWEST, recorded_for

Cell = Callable[[JSONObject, datetime], Any]

NONE, UNSET, UNKNOWN = "<none>", "<unset>", "<unknown>"
_PLACEHOLDER = re.compile(r"\{([^}]+)\}")
_STEP = re.compile(
    r"\.([^.\[\]]+)|\['([^']*)'\]|\[(-?\d+|\*)\]|\[\?\(@\.([\w.-]+)\s*==\s*(?:'([^']*)'|\"([^\"]*)\"|(\w+))\)\]"
)
_MODES = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}


def show_age(text: str, now: datetime) -> str:
    """Return the time since a timestamp, as ``kubectl`` shows it."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return "<invalid>"
    return UNKNOWN if moment.tzinfo is None else _kubectl_duration(now - moment)


def _kubectl_duration(passed: timedelta) -> str:
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


def joined(values: Iterable[Any], default: str = NONE) -> str:
    """Return values with commas between them, or the default."""
    return ",".join(str(value) for value in values) or default


def shortened(values: Sequence[Any], most: int = 3, separator: str = ",") -> str:
    """Return the first values, and how many more there are."""
    shown = separator.join(str(value) for value in values[:most]) or NONE
    return f"{shown} + {len(values) - most} more..." if len(values) > most else shown


# The functions that ``cells.json`` names, with their arguments.


def age(doc: JSONObject, now: datetime, *paths: str, default: str = UNKNOWN) -> str:
    """Return the time since the first of some times that is set."""
    return next((show_age(str(value), now) for path in paths if (value := value_at(doc, path))), default)


def selector(doc: JSONObject, _now: datetime, path: str) -> str:
    """Return a map of labels, or a label selector."""
    found = value_at(doc, path, {})
    labels = found.get("matchLabels", {}) if "matchLabels" in found or "matchExpressions" in found else found
    return joined(f"{key}={labels[key]}" for key in sorted(labels))


def state(doc: JSONObject, _now: datetime, name: str, default: str = UNKNOWN, reason: str = "") -> str:
    """Return the status of a condition, and with `reason` why it is not true; the default if there is none."""
    found = condition_of(doc, name)
    status = str(found.get("status"))
    why = found.get("reason") if reason and status != "True" else ""
    return default if not found else f"{status} ({why})" if why else status


def seconds(doc: JSONObject, _now: datetime, path: str) -> str:
    """Return a number of seconds as a duration."""
    found = value_at(doc, path)
    return NONE if found is None else _kubectl_duration(timedelta(seconds=found))


def subjects(doc: JSONObject, _now: datetime, kind: str) -> str:
    """Return the subjects of a role binding that are of a kind."""
    found = (each for each in doc.get("subjects") or () if each.get("kind") == kind)
    accounts = kind == "ServiceAccount"
    return ", ".join(f"{each.get('namespace', '')}/{each['name']}" if accounts else each["name"] for each in found)


def amounts(doc: JSONObject, _now: datetime, kind: str) -> str:
    """Return the used and the hard amounts of a ResourceQuota: of ``limits``, or of everything else."""
    hard, used = value_at(doc, "status.hard", {}), value_at(doc, "status.used", {})
    chosen = [name for name in sorted(hard) if name.startswith("limits.") is (kind == "limits")]
    return ", ".join(f"{name}: {used.get(name, 0)}/{hard[name]}" for name in chosen)


def listed(doc: JSONObject, _now: datetime, path: str, default: str = "") -> str:
    """Return the values at a path with ``[]``."""
    return joined(_values(doc, path), default)


def some(doc: JSONObject, _now: datetime, path: str, default: str) -> str:
    """Return the first values at a path with ``[]``, and how many more there are."""
    found = list(filter(None, _values(doc, path)))
    return shortened(found) if found else default


def _values(doc: JSONObject, path: str) -> list[Any]:
    return ["" if value is None else value for value in getter(path)(ValuePlace(doc, None, ""))]


def first(doc: JSONObject, _now: datetime, path: str, key: str, kind: str = "") -> str:
    """Return a member of the first item of a list, or of the first one of a type."""
    items = (each for each in value_at(doc, path, ()) if not kind or each.get("type") == kind)
    return next((str(each.get(key)) for each in items), NONE)


def modes(doc: JSONObject, _now: datetime, path: str) -> str:
    """Return access modes in their short form."""
    return joined((mode for name, mode in _MODES.items() if name in value_at(doc, path, ())), "")


def csr_state(doc: JSONObject, _now: datetime) -> str:
    """Return the state of a CertificateSigningRequest."""
    met = {each.get("type") for each in value_at(doc, "status.conditions", ())}
    shown = "Denied" if "Denied" in met else "Approved" if "Approved" in met else "Pending"
    issued = ",Issued" if value_at(doc, "status.certificate") else ""
    return f"{shown}{',Failed' if 'Failed' in met else ''}{issued}"


def endpoints(doc: JSONObject, _now: datetime) -> str:
    """Return the first addresses of Endpoints."""
    found: list[str] = []
    for subset in doc.get("subsets") or ():
        addresses = [str(each.get("ip")) for each in subset.get("addresses") or ()]
        ports = [port.get("port") for port in subset.get("ports") or ()]
        found += [f"{address}:{port}" for port in ports for address in addresses] if ports else addresses
    return shortened(found)


def hpa_targets(doc: JSONObject, _now: datetime) -> str:
    """Return the metrics of a HorizontalPodAutoscaler with their current and target values."""
    now = value_at(doc, "status.currentMetrics", ())
    metrics = enumerate(value_at(doc, "spec.metrics", ()))
    return shortened([_metric(each, now[index] if index < len(now) else {}) for index, each in metrics], 2, ", ")


def _metric(metric: JSONObject, status: JSONObject) -> str:
    kind = str(metric.get("type"))
    member = kind[:1].lower() + kind[1:]
    spec, current = metric.get(member) or {}, value_at(status, f"{member}.current", {})
    target, of_resource = spec.get("target") or {}, member in ("resource", "containerResource")
    usual, sign = ("averageUtilization", "%") if of_resource else ("value", "")
    form, sign = ("averageValue", "") if "averageValue" in target else (usual, sign)
    now, wanted = current.get(form), target.get(form)
    shown = f"{UNKNOWN if now is None else f'{now}{sign}'}/{'<auto>' if wanted is None else f'{wanted}{sign}'}"
    average = " (avg)" if form == "averageValue" and member in ("external", "object") else ""
    return f"{spec.get('name')}: {shown}" if of_resource else f"{shown}{average}"


def service_ports(doc: JSONObject, _now: datetime) -> str:
    """Return the ports of a Service."""
    shown = []
    for port in value_at(doc, "spec.ports", ()):
        node = f":{port['nodePort']}" if port.get("nodePort") else ""
        shown.append(f"{port.get('port')}{node}/{port.get('protocol', 'TCP')}")
    return joined(shown)


def balancer_addresses(doc: JSONObject, _now: datetime) -> str:
    """Return the addresses of a Service with a load balancer outside the cluster."""
    given = value_at(doc, "status.loadBalancer.ingress", ())
    addresses = [each.get("ip") or each.get("hostname") for each in given]
    return joined([*addresses, *value_at(doc, "spec.externalIPs", ())], "<pending>")


def node_status(doc: JSONObject, _now: datetime) -> str:
    """Return whether a Node is ready and schedulable."""
    ready = condition_of(doc, "Ready")
    shown = "Unknown" if not ready else "Ready" if ready.get("status") == "True" else "NotReady"
    return f"{shown},SchedulingDisabled" if value_at(doc, "spec.unschedulable") else shown


def node_roles(doc: JSONObject, _now: datetime) -> str:
    """Return the roles of a Node, which are labels."""
    prefix = "node-role.kubernetes.io/"
    return joined(
        sorted(key.removeprefix(prefix) for key in value_at(doc, "metadata.labels", {}) if key.startswith(prefix))
    )


def job_duration(doc: JSONObject, now: datetime) -> str:
    """Return how long a Job has run."""
    start, end = value_at(doc, "status.startTime"), value_at(doc, "status.completionTime")
    return show_age(start, datetime.fromisoformat(end) if end else now) if start else ""


def slice_ports(doc: JSONObject, _now: datetime) -> str:
    """Return the first ports of an EndpointSlice."""
    ports = (port.get("port", port.get("name") or "*") for port in doc.get("ports") or ())
    return shortened(list(ports)) if doc.get("ports") else UNSET


def ingress_addresses(doc: JSONObject, _now: datetime) -> str:
    """Return the addresses of an Ingress."""
    given = value_at(doc, "status.loadBalancer.ingress", ())
    return joined(sorted({each.get("ip") or each.get("hostname") or "" for each in given}), "")


def claim_state(doc: JSONObject, _now: datetime) -> str:
    """Return the state of a ResourceClaim."""
    dying, allocated = value_at(doc, "metadata.deletionTimestamp"), value_at(doc, "status.allocation")
    states = ["deleted"] if dying else [] if allocated else ["pending"]
    if allocated:
        states += ["allocated", *(["reserved"] if value_at(doc, "status.reservedFor") else [])]
    return joined(states, "")


def controller(doc: JSONObject, _now: datetime) -> str:
    """Return the controller of an object."""
    for owner in value_at(doc, "metadata.ownerReferences", ()):
        if owner.get("controller"):
            group = str(owner.get("apiVersion", "")).rpartition("/")[0]
            return f"{owner['kind'].lower()}{'.' if group else ''}{group}/{owner['name']}"
    return NONE


def _sidecars(doc: JSONObject) -> set[str]:
    """Return the names of the init containers that keep running."""
    containers = value_at(doc, "spec.initContainers", ())
    return {str(each.get("name")) for each in containers if each.get("restartPolicy") == "Always"}


def _statuses(doc: JSONObject, *, init: bool = False) -> list[JSONObject]:
    return list(value_at(doc, "status.initContainerStatuses" if init else "status.containerStatuses", ()))


def _ended(state: JSONObject) -> str:
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


class Column(NamedTuple):
    """A column: its definition in a Table, and its cell function."""

    definition: JSONObject
    cell: Cell


def _cell(form: str) -> Cell:
    asked, mark, choice = form.partition(" ? ")
    if mark:
        then, otherwise = map(_cell, choice.split(" : ", 1))
        applies = condition(asked)
        return lambda doc, now: (then if applies(ValuePlace(doc, None, "")) else otherwise)(doc, now)
    if form.startswith("@"):
        return _function(*form[1:].split())
    if form.startswith("#"):
        paths = form[1:].split()
        return lambda doc, _now: sum(len(value_at(doc, path, ())) for path in paths)
    if form.startswith("="):
        parts = re.split(r"\[([^]]*)\]", form[1:])  # every other one is optional
        return lambda doc, _now: "".join(_filled(doc, part, at % 2 == 1) for at, part in enumerate(parts)).strip()
    path, _, text = form.partition("|")
    default: Any = {"0": 0, "1": 1, "false": False, "true": True}.get(text, text)
    return lambda doc, _now: default if (found := value_at(doc, path)) in (None, "") else found


def _filled(doc: JSONObject, template: str, optional: bool) -> str:
    """Return a part of a template with its values; nothing for an optional part that lacks one."""
    values = {each: _chosen(doc, each) for each in _PLACEHOLDER.findall(template)}
    return "" if optional and not all(values.values()) else _PLACEHOLDER.sub(lambda found: values[found[1]], template)


def _chosen(doc: JSONObject, choices: str) -> str:
    paths, _, lower = choices.partition(":")
    found = (path[1:-1] if path[0] == "'" else str(value_at(doc, path, "")) for path in paths.split("|"))
    text = next(filter(None, found), "")
    return text.lower() if lower else text


def _function(name: str, *arguments: str) -> Cell:
    found = globals()[name]
    plain = [each for each in arguments if "=" not in each]
    named = dict(each.split("=") for each in arguments if "=" in each)
    return lambda doc, now: found(doc, now, *plain, **named)


@functools.cache
def built_in_columns(group: str, plural: str, release: str = NEWEST) -> tuple[Column, ...]:
    """Return the columns of a built-in kind in a Kubernetes version."""
    kind, forms = f"{group}/{plural}", recorded("builtin/tables/cells.json")
    known = forms["*"] | forms.get(kind, {})
    columns = recorded_for("builtin/tables/columns.json", release)[kind]
    return tuple(Column(each, _cell(known[each["name"]])) for each in columns)


def custom_columns(declared: Sequence[Mapping[str, Any]]) -> tuple[Column, ...]:
    """Return the columns of a custom kind: its name, and those that its definition declares, or its age."""
    name, age = built_in_columns("", "serviceaccounts")
    default = {**age.definition, "jsonPath": ".metadata.creationTimestamp", "type": "date"}
    return name, *(Column(_definition(each), _declared_cell(each)) for each in declared or (default,))


def _definition(column: Mapping[str, Any]) -> JSONObject:
    described = f"Custom resource definition column (in JSONPath format): {column['jsonPath']}"
    return {
        "name": column["name"],
        "type": column["type"],
        "format": column.get("format") or "",
        "description": column.get("description") or described,
        "priority": column.get("priority") or 0,
    }


def _declared_cell(column: Mapping[str, Any]) -> Cell:
    kind = column["type"]

    def cell(doc: JSONObject, now: datetime) -> Any:
        found = _json_path(doc, column["jsonPath"])
        if found is None or (kind == "integer" and not isinstance(found, (int, float))):
            return None
        if kind == "date":
            return show_age(str(found), now)
        return go_json(found) if kind == "string" and not isinstance(found, str) else found

    return cell


def _json_path(doc: Any, path: str) -> Any:
    """Return the first value at a JSON path as printer columns use it; None if there is none."""
    found = [doc]
    for match in _STEP.finditer(path):
        name, quoted_name, index, key, *values = match.groups()
        name = name if name is not None else quoted_name
        if name is not None:
            found = [item[name] for item in found if isinstance(item, dict) and name in item]
        elif index == "*":
            found = [member for item in found if isinstance(item, list) for member in item]
        elif index is not None:
            at = int(index)
            found = [item[at] for item in found if isinstance(item, list) and -len(item) <= at < len(item)]
        else:
            wanted = next(value for value in values if value is not None)
            members = (member for item in found if isinstance(item, list) for member in item)
            found = [member for member in members if isinstance(member, dict) and str(member.get(key)) == wanted]
    return found[0] if found else None
