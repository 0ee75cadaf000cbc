"""The pod of an operator, and the port at which it serves ``/debug/keys``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from reconciler.cli.options import PodOptions
from reconciler.client import Client, ListOptions
from reconciler.errors import Forbidden, NotFound, ReconcilerError
from reconciler.manager.election.options import LEASE_ANNOTATIONS
from reconciler.wire import JSONObject

__all__ = ["Pod", "PodError", "find_pod"]

_PORT_NAMES = ("metrics", "health", "http-metrics")
_DEFAULT_PORT = 8080
_MAX_NAMED = 5
"""Pods or Leases that a message names."""


class PodError(ReconcilerError):
    """The operator's pod was not found, or its port cannot be forwarded; the message says what to do."""


class Pod(NamedTuple):
    """A pod, and the port to forward."""

    namespace: str
    name: str
    port: int

    def __str__(self) -> str:
        return f"port {self.port} of pod {self.namespace}/{self.name}"


async def find_pod(client: Client, options: PodOptions, *, namespace: str) -> Pod:
    """Return the pod to ask: the one that is named, else the leader, else any that is ready.

    Args:
        client: the cluster.
        options: choose the pod.
        namespace: of the kubeconfig's context.

    Raises:
        PodError: there is none, or it does not run.
        APIError, TransportError: the API server cannot be asked.
    """
    given = [name for name in ("pod", "deployment", "selector") if getattr(options, name) is not None]
    if len(given) > 1:
        raise PodError(f"--{given[0]} and --{given[1]} both choose a pod: use one of them")
    where = options.operator_namespace or namespace
    if options.pod is not None:
        return _running(await _named(client, options.pod, where), options)
    if given:
        pods, what = await _selected(client, options, where)
        leader = await _leader_of(client, pods, where) if len(pods) > 1 else None
        return _running(leader or _readiest(pods, what), options)
    return _running(await _leader(client, options.operator_namespace, where), options)


async def _named(client: Client, name: str, namespace: str) -> JSONObject:
    try:
        return (await client.get("v1/Pod", name, namespace)).to_dict()
    except NotFound:
        raise PodError(f"there is no pod {namespace}/{name}; choose its namespace with --operator-namespace") from None


async def _selected(client: Client, options: PodOptions, namespace: str) -> tuple[list[JSONObject], str]:
    """Return the pods of a Deployment or with labels, and what to call them."""
    if options.deployment is None:
        selector, what = options.selector or "", f"with the labels {options.selector!r}"
    else:
        what = f"of Deployment {namespace}/{options.deployment}"
        try:
            deployment = (await client.get("apps/v1/Deployment", options.deployment, namespace)).to_dict()
        except NotFound:
            message = f"there is no Deployment {namespace}/{options.deployment}"
            raise PodError(f"{message}; choose its namespace with --operator-namespace") from None
        selector = _selector_text(deployment["spec"]["selector"])
    pods = [pod.to_dict() for pod in (await client.list("v1/Pod", namespace, label_selector=selector))]
    if not pods:
        raise PodError(f"there is no pod {what} in namespace {namespace}")
    return pods, what


def _selector_text(selector: JSONObject) -> str:
    """Return a label selector as text."""
    parts = [f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items()]
    for each in selector.get("matchExpressions") or []:
        key, values = each["key"], ",".join(each.get("values") or ())
        form = {"In": "{} in ({})", "NotIn": "{} notin ({})", "Exists": "{}", "DoesNotExist": "!{}"}[each["operator"]]
        parts.append(form.format(key, values))
    return ",".join(parts)


async def _leader_of(client: Client, pods: Sequence[JSONObject], namespace: str) -> JSONObject | None:
    """Return the pod that holds a Lease of this library; None if none does, or if Leases may not be read."""
    try:
        holders = {holder for _, holder in await _holders(client, namespace)}
    except Forbidden:
        return None
    return next((pod for pod in pods if pod["metadata"]["name"] in holders), None)


def _readiest(pods: Sequence[JSONObject], what: str) -> JSONObject:
    running = [pod for pod in pods if _phase(pod) == "Running"]
    if not running:
        states = ", ".join(f"{pod['metadata']['name']} is {_phase(pod)}" for pod in pods[:_MAX_NAMED])
        raise PodError(f"no pod {what} runs: {states}")
    return next((pod for pod in running if _is_ready(pod)), running[0])


async def _leader(client: Client, chosen: str | None, namespace: str) -> JSONObject:
    """Return the only pod that holds a Lease of this library."""
    advice = "choose the operator with --deployment, --selector or --pod, or pass --endpoint"
    try:
        held, where = await _holders(client, chosen), f"in namespace {chosen}" if chosen else "in the cluster"
    except Forbidden:
        held, where = await _holders(client, namespace), f"in namespace {namespace}"
    if not held:
        raise PodError(f"no Lease {where} is held by an operator of kube-reconciler; {advice}")
    if len({holder for _, holder in held}) > 1:
        names = ", ".join(f"{lease[0]}/{lease[1]}" for lease, _ in held[:_MAX_NAMED])
        raise PodError(f"several operators hold Leases: {names}; {advice}")
    (found, lease), holder = held[0]
    try:
        return (await client.get("v1/Pod", holder, found)).to_dict()
    except NotFound:
        message = f"{holder!r}, which holds the Lease {found}/{lease}, is not a pod in the namespace of the Lease"
        raise PodError(f"{message}; {advice}") from None


async def _holders(client: Client, namespace: str | None) -> list[tuple[tuple[str, str], str]]:
    """Return the Leases of this library that are held, and the host names of their holders."""
    options: ListOptions = {} if namespace else {"field_selector": "metadata.namespace!=kube-node-lease"}
    found = []
    for lease in await client.list("coordination.k8s.io/v1/Lease", namespace, **options):
        document = lease.to_dict()
        holder, separator, _ = str((document.get("spec") or {}).get("holderIdentity") or "").rpartition("_")
        if separator and LEASE_ANNOTATIONS.items() <= (document["metadata"].get("annotations") or {}).items():
            found.append(((document["metadata"]["namespace"], document["metadata"]["name"]), holder))
    return found


def _running(pod: JSONObject, options: PodOptions) -> Pod:
    """Return the pod and its port.

    Raises:
        PodError: it does not run.
    """
    metadata = pod["metadata"]
    name = f"{metadata['namespace']}/{metadata['name']}"
    if _phase(pod) != "Running":
        raise PodError(f"pod {name} is {_phase(pod)}, not Running: look at 'kubectl describe pod'")
    return Pod(metadata["namespace"], metadata["name"], options.port or _port(pod))


def _port(pod: JSONObject) -> int:
    ports: list[Any] = [
        port for container in pod["spec"].get("containers") or () for port in container.get("ports") or ()
    ]
    by_name = {port.get("name"): port["containerPort"] for port in ports}
    found = [by_name[name] for name in _PORT_NAMES if name in by_name]
    if not found and len(ports) == 1:
        found = [ports[0]["containerPort"]]
    return int(found[0]) if found else _DEFAULT_PORT


def _phase(pod: JSONObject) -> str:
    if pod["metadata"].get("deletionTimestamp"):
        return "Terminating"
    return str((pod.get("status") or {}).get("phase") or "Unknown")


def _is_ready(pod: JSONObject) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(each.get("type") == "Ready" and each.get("status") == "True" for each in conditions)
