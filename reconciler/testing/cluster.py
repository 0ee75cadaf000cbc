"""Run one test on two API servers: the embedded one and a real one."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from reconciler.apiserver import APIServer
from reconciler.client import Client
from reconciler.errors import NotServed
from reconciler.objects import Unstructured
from reconciler.testing.timeline import format_audit_records

if TYPE_CHECKING:
    from reconciler.testing.control_plane import ControlPlane

__all__ = ["Cluster", "embedded_cluster", "real_cluster"]

_CRD = "apiextensions.k8s.io/v1/CustomResourceDefinition"
_SERVED_WITHIN = 30.0
"""Seconds in which a real server serves a new kind; usually it takes one."""

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Cluster:
    """Be an API server that a test runs on, with a namespace of its own.

    Attributes:
        kind: which server it is.
        client: speaks to it as an administrator, with a user agent of its own.
        namespace: made for this test.
        server: the `APIServer` or `ControlPlane` itself, for what only one of them has.
    """

    kind: Literal["embedded", "real"]
    client: Client
    namespace: str
    server: APIServer | ControlPlane

    async def install(self, *kinds: type[Any] | Mapping[str, Any]) -> None:
        """Create or change CustomResourceDefinitions; return when they are served.

        Cancellation leaves those before it in place.

        Args:
            kinds: classes with a ``crd()``, or CustomResourceDefinitions.

        Raises:
            APIError: the server refused one.
            TimeoutError: a kind was not served in time.
        """
        for kind in kinds:
            document: dict[str, Any] = dict(kind) if isinstance(kind, Mapping) else kind.crd()
            if isinstance(self.server, APIServer):
                await self.server.apply(document)
            else:
                await _install(self.client, document)

    def writes(self, *, name: str, subresource: str = "status") -> list[int]:
        """Return the HTTP status of each write to an object in this test's namespace, oldest first.

        Read from the request log of the embedded server, and from the audit log of the real one.

        Args:
            name: the object's name.
            subresource: ``""`` for the object itself. Default ``"status"``.
        """
        if isinstance(self.server, APIServer):
            logged = self.server.requests(name=name, namespace=self.namespace, subresource=subresource)
            return [entry.status for entry in logged if entry.verb in {"patch", "update"}]
        audited = self.server.audit(name=name, namespace=self.namespace, subresource=subresource)
        return [record.code for record in audited if record.verb in {"patch", "update"}]

    def timeline(self) -> list[str]:
        """Return what happened to the objects in this test's namespace, a line each, oldest first.

        Writes with who, answer and what changed; on the embedded server also the faults that struck, and what happened
        to the server itself. On the real one it is read from the audit log, which knows what a patch has sent instead.
        A test that fails has this in its report.
        """
        if isinstance(self.server, APIServer):
            return self.server.log.timeline(namespace=self.namespace)
        return format_audit_records(self.server.audit(namespace=self.namespace))


@contextlib.asynccontextmanager
async def embedded_cluster() -> AsyncIterator[Cluster]:
    """Give an embedded server in this process."""
    async with APIServer() as server, Client(server) as client:
        yield await _with_namespace("embedded", client, server)


@contextlib.asynccontextmanager
async def real_cluster(plane: ControlPlane) -> AsyncIterator[Cluster]:
    """Give a real server that runs already."""
    async with plane.client() as client:
        yield await _with_namespace("real", client, plane)


async def _with_namespace(
    kind: Literal["embedded", "real"], client: Client, server: APIServer | ControlPlane
) -> Cluster:
    namespace = f"test-{next(_numbers)}"
    await client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    return Cluster(kind, client, namespace, server)


async def _install(client: Client, document: dict[str, Any]) -> None:
    def replace(current: Unstructured) -> None:
        current["spec"] = document["spec"]

    await client.create_or_update(document, replace)
    await client.wait_for(_CRD, document["metadata"]["name"], until=_is_established, timeout=_SERVED_WITHIN)
    spec = document["spec"]
    version = next(version["name"] for version in spec["versions"] if version["served"])
    async with asyncio.timeout(_SERVED_WITHIN):
        while True:
            # Established is said a moment before the paths are there.
            with contextlib.suppress(NotServed):
                await client.list(f"{spec['group']}/{version}/{spec['names']['kind']}", limit=1)
                return
            await asyncio.sleep(0.1)


def _is_established(crd: Any) -> bool:
    conditions = (crd.to_dict().get("status") or {}).get("conditions") or []
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)
