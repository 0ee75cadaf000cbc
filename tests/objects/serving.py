"""Serving a kind that a test defines."""

from __future__ import annotations

import contextlib

from reconciler._core.wire import JSONObject
from reconciler.client import Client
from reconciler.errors import NotFound
from reconciler.meta import condition_is_true
from reconciler.objects import AnyResource, Unstructured

__all__ = ["serve"]

CRD = "apiextensions.k8s.io/v1/CustomResourceDefinition"


async def serve(client: Client, kind: type[AnyResource], document: JSONObject | None = None) -> None:
    """Create the CRD under Strict validation, and wait until the kind is served; replace one of another test."""
    crd = kind.crd()["metadata"]["name"]
    with contextlib.suppress(NotFound):
        await client.delete(CRD, crd)
        await client.wait_gone(CRD, crd, timeout=30)
    await client.create(document or kind.crd(), field_validation="Strict")
    await client.wait_for(CRD, crd, until=established, timeout=30)
    for _ in range(500):
        with contextlib.suppress(NotFound):
            await client.list(kind)
            return
    raise AssertionError(f"{crd} is established and not served")


def established(crd: Unstructured) -> bool:
    return condition_is_true((crd.get("status") or {}).get("conditions") or [], "Established")
