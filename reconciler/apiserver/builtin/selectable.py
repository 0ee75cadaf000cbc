"""The fields of built-in kinds that field selectors accept, besides name and namespace."""

from __future__ import annotations

from collections.abc import Callable

from reconciler.apiserver.encoding.json_documents import value_at
from reconciler.wire import JSONObject

__all__ = ["FieldReader", "field_reader", "selectable_fields"]

FieldReader = Callable[[JSONObject], str]
"""Returns the text of a field of a stored document; empty if the field is missing."""

_OF_A_REFERENCE = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
_SELECTABLE: dict[tuple[str, str], tuple[str, ...]] = {
    ("", "pods"): (
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "status.phase",
        "status.nominatedNodeName",
    ),
    ("", "events"): (
        *(f"involvedObject.{member}" for member in _OF_A_REFERENCE),
        "reason",
        "reportingComponent",
        "type",
    ),
    ("events.k8s.io", "events"): ("reason", "type"),
    ("", "secrets"): ("type",),
    ("", "nodes"): ("spec.unschedulable",),
    ("", "namespaces"): ("status.phase",),
    ("", "services"): ("spec.clusterIP", "spec.type"),
    ("", "replicationcontrollers"): ("status.replicas",),
    ("batch", "jobs"): ("status.successful",),
    ("certificates.k8s.io", "certificatesigningrequests"): ("spec.signerName",),
}


def field_reader(path: str) -> FieldReader:
    """Return a function that reads the text at a dotted path of a document; empty if the field is missing."""

    def read(doc: JSONObject) -> str:
        found = value_at(doc, path, "")
        return str(found).lower() if isinstance(found, bool) else str(found)

    return read


def _first_address(doc: JSONObject) -> str:
    addresses = value_at(doc, "status.podIPs") or [{"ip": value_at(doc, "status.podIP", "")}]
    return str(addresses[0].get("ip") or "")


_OTHERS: dict[tuple[str, str], dict[str, FieldReader]] = {
    ("", "pods"): {
        "spec.host": field_reader("spec.nodeName"),
        "spec.hostNetwork": lambda doc: str(bool(value_at(doc, "spec.hostNetwork"))).lower(),
        "status.podIP": _first_address,
        "status.podIPs": lambda _doc: "",  # accepted, and the same for all pods
    },
    ("", "events"): {
        "source": lambda doc: str(value_at(doc, "source.component") or doc.get("reportingComponent") or ""),
    },
    # Events are stored as those of the core group.
    ("events.k8s.io", "events"): {
        "reportingController": field_reader("reportingComponent"),
        **{f"regarding.{member}": field_reader(f"involvedObject.{member}") for member in _OF_A_REFERENCE},
    },
}


def selectable_fields(group: str, plural: str) -> dict[str, FieldReader]:
    """Return the fields of a kind that field selectors accept, with their readers."""
    found = {path: field_reader(path) for path in _SELECTABLE.get((group, plural), ())}
    return {**found, **_OTHERS.get((group, plural), {})}
