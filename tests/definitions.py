"""CustomResourceDefinitions for tests."""

from __future__ import annotations

from typing import Any


def definition(group: str, kind: str, *versions: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """Return the definition of a namespaced kind; `spec` has further members of its ``spec``, or other values."""
    singular = kind.lower()
    names = {"plural": f"{singular}s", "singular": singular, "kind": kind, "listKind": f"{kind}List"}
    members = {"group": group, "scope": "Namespaced", "names": names, "versions": list(versions)}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{singular}s.{group}"},
        "spec": members | spec,
    }


def version(name: str, schema: dict[str, Any], *, storage: bool = True, **more: Any) -> dict[str, Any]:
    """Return a served version of a kind."""
    return {"name": name, "served": True, "storage": storage, "schema": {"openAPIV3Schema": schema}, **more}
