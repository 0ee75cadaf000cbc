"""The kinds that the sequences of the differential test work on, and what is known of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

GROUP = "differential.reconciler.dev"

_PORTS: dict[str, Any] = {
    "type": "array",
    "x-kubernetes-list-type": "map",
    "x-kubernetes-list-map-keys": ["name", "protocol"],
    "items": {
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"type": "string"},
            "protocol": {"type": "string", "default": "TCP", "enum": ["TCP", "UDP"]},
            "number": {"type": "integer", "minimum": 1},
            "notes": {"type": "object", "additionalProperties": {"type": "string"}},
        },
    },
}
_SPEC: dict[str, Any] = {
    "type": "object",
    "required": ["size"],
    "properties": {
        "size": {"type": "integer", "minimum": 1, "maximum": 100},
        "replicas": {"type": "integer", "minimum": 0},
        "mode": {"type": "string", "enum": ["Fast", "Safe"], "default": "Safe"},
        "code": {"type": "string", "pattern": "^[a-z]+$", "minLength": 2, "maxLength": 5},
        "ratio": {"type": "number", "maximum": 2},
        "even": {"type": "integer", "multipleOf": 2},
        "on": {"type": "boolean"},
        "maybe": {"type": "string", "nullable": True},
        "since": {"type": "string", "format": "date-time"},
        "host": {"type": "string", "format": "ipv4"},
        "raw": {"type": "string", "format": "byte"},
        "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}, "maxItems": 3},
        "ports": _PORTS,
        "plain": {
            "type": "array",
            "x-kubernetes-list-type": "atomic",
            "items": {"type": "object", "properties": {"a": {"type": "string"}}},
        },
        "labels": {"type": "object", "additionalProperties": {"type": "string"}, "maxProperties": 2},
        "whole": {
            "type": "object",
            "x-kubernetes-map-type": "atomic",
            "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}},
        },
        "nested": {
            "type": "object",
            "properties": {
                "depth": {"type": "integer", "default": 3},
                "deeper": {"type": "object", "default": {}, "properties": {"n": {"type": "integer", "default": 1}}},
            },
        },
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "either": {"x-kubernetes-int-or-string": True},
        "fixed": {
            "type": "string",
            "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "fixed cannot change"}],
        },
        "low": {"type": "integer"},
        "high": {"type": "integer"},
    },
    "x-kubernetes-validations": [
        {
            "rule": "!has(self.low) || !has(self.high) || self.low <= self.high",
            "messageExpression": "self.mode == 'Fast' ? 'low is above high, fast' : 'low is above high'",
            "fieldPath": ".low",
        },
        {"rule": "self.size >= oldSelf.size", "message": "size cannot shrink", "reason": "FieldValueForbidden"},
    ],
}
_STATUS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "phase": {"type": "string"},
        "replicas": {"type": "integer"},
        "selector": {"type": "string"},
        "count": {"type": "integer", "default": 0},
        "conditions": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
            "items": {
                "type": "object",
                "required": ["type", "status"],
                "properties": {
                    "type": {"type": "string"},
                    "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
                    "reason": {"type": "string"},
                },
            },
        },
    },
}
# rule: schemas-that-drop
_OLD_SPEC: dict[str, Any] = {
    **_SPEC,
    "properties": {**_SPEC["properties"], "mode": {**_SPEC["properties"]["mode"], "default": "Fast"}},
}
_COLUMNS = [
    {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
    {"name": "Phase", "type": "string", "jsonPath": ".status.phase"},
]


def _version(name: str, spec: dict[str, Any], *, storage: bool, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "served": True,
        "storage": storage,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec, "status": _STATUS}}},
        **more,
    }


def _definition(plural: str, kind: str, scope: str, versions: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": scope,
            "names": {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"},
            "versions": versions,
        },
    }


_SUBRESOURCES = {
    "status": {},
    "scale": {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    },
}
_SELECTABLE = [{"jsonPath": ".spec.mode"}, {"jsonPath": ".spec.size"}, {"jsonPath": ".spec.on"}]

DEFINITIONS = [
    _definition(
        "widgets",
        "Widget",
        "Namespaced",
        [
            _version(
                "v1",
                _SPEC,
                storage=True,
                subresources=_SUBRESOURCES,
                selectableFields=_SELECTABLE,
                additionalPrinterColumns=_COLUMNS,
            ),
            _version("v1beta1", _OLD_SPEC, storage=False, subresources={"status": {}}),
        ],
    ),
    _definition(
        "depots",
        "Depot",
        "Cluster",
        [_version("v1beta1", _OLD_SPEC, storage=False), _version("v1", _SPEC, storage=True)],
    ),
]


@dataclass(frozen=True)
class Kind:
    """Know a kind: where it is served, and which of its parts the sequences touch.

    Attributes:
        versions: the one that is stored first.
        subresources: those that it has.
    """

    plural: str
    name: str
    group: str
    versions: tuple[str, ...] = ("v1",)
    namespaced: bool = True
    subresources: tuple[str, ...] = ()
    custom: bool = False

    def collection(self, version: str = "", *, everywhere: bool = False) -> str:
        """Return the path of the objects; ``<ns>`` stands for the namespace of the sequence."""
        version = version or self.versions[0]
        base = f"/apis/{self.group}/{version}" if self.group else f"/api/{version}"
        space = "/namespaces/<ns>" if self.namespaced and not everywhere else ""
        return f"{base}{space}/{self.plural}"

    def api_version(self, version: str = "") -> str:
        """Return the apiVersion of its objects."""
        version = version or self.versions[0]
        return f"{self.group}/{version}" if self.group else version


WIDGET = Kind("widgets", "Widget", GROUP, ("v1", "v1beta1"), subresources=("status", "scale"), custom=True)
DEPOT = Kind("depots", "Depot", GROUP, ("v1", "v1beta1"), namespaced=False, custom=True)
CONFIG_MAP = Kind("configmaps", "ConfigMap", "")
SECRET = Kind("secrets", "Secret", "")
LEASE = Kind("leases", "Lease", "coordination.k8s.io")
POD = Kind("pods", "Pod", "", subresources=("status",))
DEPLOYMENT = Kind("deployments", "Deployment", "apps", subresources=("status", "scale"))
KINDS = (WIDGET, DEPOT, CONFIG_MAP, SECRET, LEASE, POD, DEPLOYMENT)
BY_PLURAL = {kind.plural: kind for kind in KINDS}
