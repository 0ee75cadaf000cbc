"""One test on two API servers: the embedded one and a real one."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from reconciler._core.wire import JSONObject
from reconciler.apiserver import APIServer
from reconciler.client import Client
from reconciler.errors import NotServed
from reconciler.objects import Unstructured

if TYPE_CHECKING:
    from reconciler.testing.control_plane import ControlPlane
    from reconciler.testing.control_plane.plane import AuditRecord

_CRD = "apiextensions.k8s.io/v1/CustomResourceDefinition"
_SERVED_WITHIN = 30.0
"""Seconds within which a real server serves a new kind; it usually takes one."""

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Cluster:
    """An API server for a test, with a namespace of its own.

    Attributes:
        kind: which server it is.
        client: a client with administrator rights and its own user agent.
        namespace: created for this test.
        server: the `APIServer` or `ControlPlane` itself, for features that only one of them has.
    """

    kind: Literal["embedded", "real"]
    client: Client
    namespace: str
    server: APIServer | ControlPlane

    async def install(self, *kinds: type[Any] | Mapping[str, Any]) -> None:
        """Create or update CustomResourceDefinitions, and wait until they are served.

        If cancelled, the definitions already created remain.

        Args:
            kinds: classes with a ``crd()``, or CustomResourceDefinitions.

        Raises:
            APIError: the server rejected a definition.
            TimeoutError: a kind was not served in time.
        """
        for kind in kinds:
            document: JSONObject = dict(kind) if isinstance(kind, Mapping) else kind.crd()
            if isinstance(self.server, APIServer):
                await self.server.apply(document)
            else:
                await _install(self.client, document)

    @contextlib.asynccontextmanager
    async def service_account(self, name: str, namespace: str | None = None) -> AsyncIterator[Client]:
        """Yield a client with the permissions of a service account: those of the roles that are bound to it.

        A real server notices a new binding a moment after it was created.

        Args:
            name: the name of the service account.
            namespace: its namespace; that of the test by default.

        Raises:
            NotFound: there is no such service account.
        """
        namespace = namespace or self.namespace
        if isinstance(self.server, APIServer):
            async with Client(self.server.service_account(name, namespace)) as client:
                yield client
            return
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"}
        answer = await self.client.create_subresource(
            "v1/ServiceAccount", name, namespace, subresource="token", body=request
        )
        with tempfile.TemporaryDirectory() as directory:
            path = _write_kubeconfig(Path(directory, "kubeconfig"), self.server, answer["status"]["token"])
            async with Client.from_config(kubeconfig=path) as client:
                yield client

    def writes(self, *, name: str, subresource: str = "status") -> list[int]:
        """Return the HTTP status of each write to an object in this test's namespace, oldest first.

        They come from the request log of the embedded server, or the audit log of the real one.

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
        """Return what happened to the objects in this test's namespace, one line per event, oldest first.

        Each write has its author, the response and the changed fields. The embedded server also lists injected faults
        and its own restarts. The real server's audit log contains the sent fields instead of the changed ones. The
        report of a failed test includes these lines.
        """
        if isinstance(self.server, APIServer):
            return self.server.log.timeline(namespace=self.namespace)
        return format_audit_records(self.server.audit(namespace=self.namespace))


def _write_kubeconfig(path: Path, plane: ControlPlane, token: str) -> Path:
    """Write a kubeconfig with a token, in a directory that only its owner can read, and return its path."""
    kubeconfig = plane.kubeconfig()
    kubeconfig["users"][0]["user"] = {"token": token}
    path.write_bytes(msgspec.json.encode(kubeconfig))
    return path


@contextlib.asynccontextmanager
async def embedded_cluster(version: str | None = None) -> AsyncIterator[Cluster]:
    """Yield an embedded server in this process; roles limit what users may do, as on a real one."""
    async with APIServer(rbac=True, version=version) as server, Client(server) as client:
        yield await _with_namespace("embedded", client, server)


@contextlib.asynccontextmanager
async def real_cluster(plane: ControlPlane) -> AsyncIterator[Cluster]:
    """Yield a real server that is already running."""
    async with plane.client() as client:
        yield await _with_namespace("real", client, plane)


async def _with_namespace(
    kind: Literal["embedded", "real"], client: Client, server: APIServer | ControlPlane
) -> Cluster:
    namespace = f"test-{next(_numbers)}"
    await client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    return Cluster(kind, client, namespace, server)


async def _install(client: Client, document: JSONObject) -> None:
    def replace(current: Unstructured) -> None:
        current["spec"] = document["spec"]

    await client.create_or_update(document, replace)
    await client.wait_for(_CRD, document["metadata"]["name"], until=_is_established, timeout=_SERVED_WITHIN)
    spec = document["spec"]
    served = [version["name"] for version in spec["versions"] if version["served"]]
    async with asyncio.timeout(_SERVED_WITHIN):
        for version in served:
            kind = f"{spec['group']}/{version}/{spec['names']['kind']}"
            # The condition Established becomes true shortly before the paths are served, one version after the other.
            while not await _is_served(client, kind):  # noqa: ASYNC110 - there is no event to wait for
                await asyncio.sleep(0.1)


async def _is_served(client: Client, kind: str) -> bool:
    try:
        async with contextlib.aclosing(client.list_pages(kind, limit=1)) as pages:
            await anext(pages)
    except NotServed:
        return False
    return True


def _is_established(crd: Any) -> bool:
    conditions = (crd.to_dict().get("status") or {}).get("conditions") or []
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)


_MOST_LINES = 200
_WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})


def format_audit_records(records: Iterable[AuditRecord]) -> list[str]:
    """Return the writes of an audit log, one line each: time, request, user agent, status, and the sent fields."""
    lines = [_format_record(record) for record in records if record.verb in _WRITES]
    left_out = len(lines) - _MOST_LINES
    return lines if left_out <= 0 else [f"({left_out} earlier lines omitted)", *lines[-_MOST_LINES:]]


def _format_record(record: AuditRecord) -> str:
    what = "/".join(part for part in (record.resource, record.name, record.subresource) if part)
    where = f" in {record.namespace}" if record.namespace else ""
    moment = record.received.isoformat(sep=" ", timespec="milliseconds").partition("+")[0]
    sent = " ".join(_pointers(record.request_object)) if record.verb == "patch" else ""
    return f"{moment} {record.verb} {what}{where} by {record.user_agent}: {record.code}" + (
        f", sent {sent}" * bool(sent)
    )


def _pointers(patch: Any, path: str = "") -> list[str]:
    """Return the paths in a merge patch, down to its leaves; names only, no values."""
    if isinstance(patch, list):
        return [str(step.get("path", "")) for step in patch if isinstance(step, dict)] if not path else [path]
    if not isinstance(patch, dict) or not patch:
        return [path] if path else []
    return [pointer for key, value in patch.items() for pointer in _pointers(value, f"{path}/{key}")][:64]
