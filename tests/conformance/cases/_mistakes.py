"""Objects with a mistake: a valid object of each kind, and changes at paths in it."""

from __future__ import annotations

import copy
import itertools
import json
import re
from collections.abc import Sequence
from typing import Any

from tests.conformance.api import Api, resource
from tests.conformance.cases._case import case
from tests.conformance.cases.built_in import OBJECTS, TEMPLATE, filled

Changes = dict[str, Any]
GONE: Any = ...
"""Stands for a member that is removed."""
_DRY = {"dryRun": "All"}
_ONCE = {**TEMPLATE, "spec": {**TEMPLATE["spec"], "restartPolicy": "Never"}}
_NAMED = {"plural": "gizmos", "singular": "gizmo", "kind": "Gizmo", "listKind": "GizmoList"}
_SERVED = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
_VALID: dict[str, dict[str, Any]] = {
    **OBJECTS,
    "services": {"spec": {"selector": {"k": "v"}, "ports": [{"port": 80}]}},
    "jobs": {"spec": {"template": _ONCE}},
    "nodes": {},
    "namespaces": {},
    "persistentvolumes": {
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": "/a"},
            "storageClassName": "s",
        }
    },
    "priorityclasses": {"value": 5},
    "storageclasses": {"provisioner": "example.com/p"},
    "ingressclasses": {"spec": {"controller": "example.com/c"}},
    "runtimeclasses": {"handler": "h"},
    "csidrivers": {"spec": {}},
    "csinodes": {"spec": {"drivers": []}},
    "csistoragecapacities": {"storageClassName": "s", "capacity": "1Gi"},
    "volumeattachments": {"spec": {"attacher": "a", "nodeName": "n", "source": {"persistentVolumeName": "v"}}},
    "volumeattributesclasses": {"driverName": "d", "parameters": {"a": "b"}},
    "prioritylevelconfigurations": {
        "spec": {"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}, "nominalConcurrencyShares": 1}}
    },
    "flowschemas": {"spec": {"priorityLevelConfiguration": {"name": "exempt"}, "matchingPrecedence": 100}},
    "deviceclasses": {"spec": {}},
    "resourceclaims": {"spec": {"devices": {"requests": []}}},
    "controllerrevisions": {"revision": 1, "data": {"a": "b"}},
    "clusterroles": OBJECTS["roles"],
    "clusterrolebindings": {
        "roleRef": {"kind": "ClusterRole", "name": "r", "apiGroup": "rbac.authorization.k8s.io"},
        "subjects": [{"kind": "User", "name": "u"}],
    },
    "customresourcedefinitions": {
        "spec": {"group": "mistakes.example", "scope": "Namespaced", "names": _NAMED, "versions": [_SERVED]}
    },
}
_STEP = re.compile(r"\[(\d+)\]|\['([^']*)'\]|([^.\[\]]+)")


def _change(document: Any, path: str, value: Any) -> None:
    """Set the value at a path such as ``spec.ports[0].name``, or remove it."""
    steps: list[Any] = [int(at) if at else key or name for at, key, name in _STEP.findall(path)]
    for step, after in itertools.pairwise(steps):
        empty: Any = [] if isinstance(after, int) else {}
        if isinstance(step, int) and step == len(document):
            document.append(empty)
        document = document[step] if isinstance(step, int) else document.setdefault(step, empty)
    if value is GONE:
        document.pop(steps[-1], None)
    elif isinstance(steps[-1], int) and steps[-1] == len(document):
        document.append(value)
    else:
        document[steps[-1]] = value


def _object(api: Api, plural: str) -> dict[str, Any]:
    """Return the valid object of a kind; its name is unique if it is not in the namespace of the case."""
    name = "gizmos.mistakes.example" if plural == "customresourcedefinitions" else api.ns
    name = "a" if resource(plural)[2] else name
    return {"metadata": {"name": name}, **copy.deepcopy(filled(_VALID[plural], api.ns))}


def _changed(document: dict[str, Any], changes: Changes) -> dict[str, Any]:
    document = copy.deepcopy(document)
    for path, value in changes.items():
        _change(document, path, value)
    return document


def _shown(changes: Changes) -> str:
    return ", ".join(f"{path} {'missing' if value is GONE else json.dumps(value)}" for path, value in changes.items())


def _below(prefix: str, changes: Changes) -> Changes:
    return {f"{prefix}{path}": value for path, value in changes.items()}


def created(plural: str, rows: Sequence[Changes], prefix: str = "") -> None:
    """Add a case that creates objects of a kind, each with changes at paths that begin with a prefix."""

    async def run(api: Api) -> None:
        for row in rows:
            body = _changed(_object(api, plural), _below(prefix, row))
            await api.create(plural, body, query=_DRY, keep=["kind"])
            api.transcript[-1]["asked"] += f" with {_shown(row)}"

    case(f"{plural} that are created" + (f" with changes at {prefix}" if prefix else ""))(run)


def updated(plural: str, rows: Sequence[tuple[Changes, Changes]], sub: str = "") -> None:
    """Add a case that creates objects of a kind with changes, and then updates them with others."""

    async def run(api: Api) -> None:
        for at, (before, after) in enumerate(rows):
            known = {path: value for path, value in before.items() if not path.startswith("status")}
            stated = {path: value for path, value in before.items() if path.startswith("status")}
            body = _changed(_object(api, plural), known)
            name = body["metadata"]["name"] = f"{body['metadata']['name']}-{at}"
            found = await api.create(plural, body, quiet=True)
            if stated:
                found = await api.put(plural, name, _changed(found, stated), "status", quiet=True)
            await api.put(plural, name, _changed(found, after), sub, query=_DRY, keep=["kind"])
            api.transcript[-1]["asked"] += f" with {_shown(after)}" + (f" after {_shown(before)}" if before else "")
            if not resource(plural)[2]:
                await api.delete(plural, name, quiet=True)

    case(f"{plural} whose {sub or 'spec'} is updated")(run)


def stated(plural: str, rows: Sequence[Changes | tuple[Changes, Changes]]) -> None:
    """Add a case that updates the status of objects of a kind, with changes before if a row has two."""
    pairs = [row if isinstance(row, tuple) else ({}, row) for row in rows]
    updated(plural, [(before, _below("status.", after)) for before, after in pairs], "status")
