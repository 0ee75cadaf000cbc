"""A typical operator on kopf that creates a ConfigMap for each Cabinet. Tested in test_kopf_operator.py.

It has two versions, selected by namespace: before and after the test found a bug.
"""

from __future__ import annotations

from typing import Any

import kopf
from kubernetes import client, config

CABINETS = ("example.com", "v1", "cabinets")


def core() -> client.CoreV1Api:
    """Return the API for ConfigMaps."""
    return client.CoreV1Api(config.new_client_from_config())


def contents(name: str, drawers: int) -> dict[str, Any]:
    """Return the desired ConfigMap of a Cabinet."""
    child = {"metadata": {"name": name}, "data": {"drawers": str(drawers)}}
    kopf.adopt(child)
    return child


@kopf.on.create(*CABINETS, backoff=0.2, when=lambda namespace, **_: namespace == "before")
def before(spec: kopf.Spec, name: str, namespace: str, patch: kopf.Patch, **_: Any) -> None:
    """Create the ConfigMap. This fails if the response is lost."""
    core().create_namespaced_config_map(namespace, contents(name, spec["drawers"]))
    patch.status["drawers"] = spec["drawers"]


@kopf.on.create(*CABINETS, backoff=0.2, when=lambda namespace, **_: namespace == "after")
def after(spec: kopf.Spec, name: str, namespace: str, patch: kopf.Patch, **_: Any) -> None:
    """Create the ConfigMap, unless it already exists."""
    try:
        core().create_namespaced_config_map(namespace, contents(name, spec["drawers"]))
    except client.ApiException as error:
        if error.status != 409:
            raise
    patch.status["drawers"] = spec["drawers"]
