"""A generator of reconciler/apiserver/bootstrap.json: the roles and bindings that a real API server brings.

Run it with a kubeconfig of an API server that has just started to update them to a newer Kubernetes::

    kubectl get -A -o json clusterroles,clusterrolebindings,roles,rolebindings > roles.json
    python tests/apiserver/generate_roles.py < roles.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parents[2] / "reconciler" / "apiserver" / "access" / "bootstrap.json"
_MARK = "kubernetes.io/bootstrapping"
"""The label that all of them have; the server adds it, and the annotation that goes with it."""


def shortened(found: dict[str, Any]) -> dict[str, Any]:
    """Return what distinguishes a role or binding from the others."""
    metadata = found["metadata"]
    labels = {key: value for key, value in metadata["labels"].items() if key != _MARK}
    kept = {"name": metadata["name"], "namespace": metadata.get("namespace"), "labels": labels}
    members = ("rules", "aggregationRule", "roleRef", "subjects")
    return {
        "kind": found["kind"],
        "metadata": {key: value for key, value in kept.items() if value},
        **{key: found[key] for key in members if found.get(key)},
    }


def main() -> None:
    """Write the roles and bindings, one a line."""
    items = [each for each in json.load(sys.stdin)["items"] if _MARK in each["metadata"].get("labels", {})]
    lines = (json.dumps(shortened(each), separators=(",", ":"), sort_keys=True) for each in items)
    TARGET.write_text("[\n" + ",\n".join(lines) + "\n]\n")


if __name__ == "__main__":
    main()
