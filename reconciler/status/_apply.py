"""Compute what a server-side apply has to say."""

from __future__ import annotations

from typing import Any

from reconciler.meta import GroupVersionKind, Request
from reconciler.status._snapshot import Snapshot

__all__ = ["applied_configuration"]


def applied_configuration(
    gvk: GroupVersionKind, request: Request, manager: str, *, tip: Snapshot, computed: dict[str, Any]
) -> dict[str, Any]:
    """Return the configuration."""
    metadata: dict[str, Any] = {"name": request.name, "resourceVersion": tip.version}
    if request.namespace:
        metadata["namespace"] = request.namespace
    return {"apiVersion": gvk.api_version, "kind": gvk.kind, "metadata": metadata, "status": computed}
