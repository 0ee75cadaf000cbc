"""A server with admission webhooks, embedded or real, for one scenario.

The embedded server calls the webhooks in process and under virtual time, the real one over HTTPS.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web

from reconciler import Client
from reconciler.apiserver import APIServer
from reconciler.errors import APIError
from reconciler.http import HTTPRequest, HTTPResponse
from reconciler.testing.control_plane import ControlPlane
from tests.definitions import definition, version
from tests.webhook.database import write_certificate

GROUP = "admissionregistration.k8s.io/v1"
GADGET_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "properties": {
                "size": {"type": "integer", "minimum": 0},
                "color": {"type": "string", "default": "grey"},
                "note": {"type": "string"},
            },
        },
        "status": {
            "type": "object",
            "properties": {"phase": {"type": "string"}, "replicas": {"type": "integer"}},
        },
    },
}
SUBRESOURCES = {"status": {}, "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.replicas"}}
GADGET_DEFINITION = definition(
    "admission.reconciler.dev",
    "Gadget",
    *(version(name, GADGET_SCHEMA, storage=name == "v1", subresources=SUBRESOURCES) for name in ("v1", "v1beta1")),
)
GADGETS = {"apiGroups": ["admission.reconciler.dev"], "apiVersions": ["v1"], "resources": ["gadgets"]}
Respond = Callable[[dict[str, Any]], dict[str, Any] | bytes]


class Hooks:
    """A webhook server that responds as a scenario says, and keeps what it was asked.

    Attributes:
        requests: the requests of all reviews, by the path of the webhook.
    """

    def __init__(self) -> None:
        self.requests: dict[str, list[dict[str, Any]]] = {}
        self._responses: dict[str, Respond] = {"/probe": lambda _: {"allowed": False}}

    def on(self, path: str, respond: Respond) -> None:
        """Respond to the reviews of one path."""
        self._responses[path] = respond

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        """Respond to a review."""
        review = json.loads(request.body)
        asked = review["request"]
        self.requests.setdefault(request.path, []).append(asked)
        found = self._responses[request.path](asked)
        if found == b"never":
            await asyncio.sleep(3600)
        if isinstance(found, bytes):
            return HTTPResponse(503 if found == b"broken" else 200, body=found)
        response = {"uid": asked["uid"], "allowed": True, **found}
        return HTTPResponse(200, body=json.dumps({**review, "request": None, "response": response}).encode())


def patch(*operations: dict[str, Any]) -> dict[str, Any]:
    """Return the response of a webhook that changes the object."""
    return {"patchType": "JSONPatch", "patch": base64.b64encode(json.dumps(operations).encode()).decode()}


async def eventually(ask: Callable[[], Awaitable[str]], until: Callable[[str], bool]) -> None:
    """Ask until the response is as wanted; a real server notices new configurations and kinds a moment later."""
    for _ in range(300):
        if until(await ask()):
            return
        await asyncio.sleep(0.1)
    raise AssertionError("the server has not noticed a new configuration or kind within 30 s")


class World:
    """A server with webhooks, for one scenario.

    Attributes:
        client: a client of the server.
        hooks: the webhooks.
        ns: the namespace of the scenario.
        log: what the client logs.
    """

    def __init__(self, client: Client, at: dict[str, Any], ns: str, log: pytest.LogCaptureFixture) -> None:
        self.client, self.hooks, self.ns, self.log = client, Hooks(), ns, log
        self._at = at
        self.configurations: list[dict[str, Any]] = []

    def hook(self, path: str, **members: Any) -> dict[str, Any]:
        """Return the entry of a webhook in a configuration."""
        base = {
            "name": f"{path.strip('/')}.admission.reconciler.dev",
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "clientConfig": self._client(path),
            "rules": [{**GADGETS, "operations": ["CREATE", "UPDATE"]}],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self.ns}},
        }
        return {**base, **members}

    def _client(self, path: str) -> dict[str, Any]:
        return {**self._at, "url": self._at["url"] + path}

    async def install(self, kind: str, *hooks: dict[str, Any]) -> None:
        """Create a configuration, and wait until the server calls its webhooks."""
        label = f"probe-{len(self.configurations)}"
        probe = self.hook(
            "/probe",
            name=f"{label}.admission.reconciler.dev",
            rules=[{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["CREATE"]}],
            objectSelector={"matchLabels": {label: "yes"}},
        )
        name = f"{self.ns}-{len(self.configurations)}"
        made = {"apiVersion": GROUP, "kind": kind, "metadata": {"name": name}, "webhooks": [*hooks, probe]}
        self.configurations.append(made)
        await self.client.create(made)
        probe = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "probe", "namespace": self.ns, "labels": {label: "yes"}},
        }
        await eventually(lambda: self.try_to(self.client.create(probe, dry_run=True)), lambda said: said != "allowed")

    def gadget(self, name: str = "g", version: str = "v1", **spec: Any) -> dict[str, Any]:
        """Return a gadget."""
        return {
            "apiVersion": f"admission.reconciler.dev/{version}",
            "kind": "Gadget",
            "metadata": {"name": name, "namespace": self.ns},
            "spec": spec,
        }

    async def catch_up(self) -> None:
        """Let the server's cache contain all writes; a consistent list waits for that.

        A real server that begins a patch or a deletion on an old version repeats it, and calls the webhooks again.
        """
        await self.client.list(KIND, self.ns)

    async def create(self, document: dict[str, Any], **options: Any) -> dict[str, Any]:
        """Create an object and return it."""
        return (await self.client.create(document, **options)).to_dict()

    @staticmethod
    async def try_to(write: Awaitable[Any]) -> str:
        """Make a write and return ``allowed``, or the code and the message of the refusal."""
        try:
            await write
        except APIError as error:
            return f"{error.status} {error.reason}: {error.message}"
        return "allowed"


KIND = "admission.reconciler.dev/v1/Gadget"
MUTATING, VALIDATING = "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"
Scenario = Callable[[World], Awaitable[None]]


async def on_embedded(body: Scenario, log: pytest.LogCaptureFixture) -> None:
    """Run a scenario on the embedded server."""
    async with APIServer() as server, Client(server) as client:
        await server.apply(GADGET_DEFINITION)
        ns = "scenario"
        await client.create(_namespace(ns))
        world = World(client, {"url": "https://webhooks.example"}, ns, log)
        server.connect_webhooks("https://webhooks.example", world.hooks)
        await body(world)


async def on_real(body: Scenario, plane: ControlPlane, directory: Path, log: pytest.LogCaptureFixture) -> None:
    """Run a scenario on a real server."""
    at: dict[str, Any] = {}
    async with plane.client() as client:
        await client.apply(GADGET_DEFINITION, force=True)
        ns = body.__name__.replace("_", "-")[:50]
        await client.create(_namespace(ns))
        world = World(client, at, ns, log)
        async with over_https(world.hooks, directory) as address:
            at.update(address)
            try:
                await eventually(
                    lambda: world.try_to(client.create(world.gadget("ready"), dry_run=True)),
                    lambda said: said == "allowed",
                )
                await body(world)
            finally:
                for made in world.configurations:
                    await client.delete(f"{GROUP}/{made['kind']}", made["metadata"]["name"])


def _namespace(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}},
    }


@asynccontextmanager
async def over_https(hooks: Hooks, directory: Path) -> AsyncIterator[dict[str, Any]]:
    """Serve webhooks over HTTPS, and yield their place for ``clientConfig``."""
    import ssl

    ca = trustme.CA()
    write_certificate(directory, ca)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(directory / "tls.crt", directory / "tls.key")

    async def handle(request: web.BaseRequest) -> web.Response:
        found = await hooks.send(HTTPRequest("POST", request.path, body=await request.read()))
        response = web.Response(status=found.status, body=found.body, content_type="application/json")
        response.force_close()
        return response

    runner = web.ServerRunner(web.Server(handle), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        (address, *_) = runner.addresses
        bundle = base64.b64encode(ca.cert_pem.bytes()).decode()
        yield {"url": f"https://127.0.0.1:{address[1]}", "caBundle": bundle}
    finally:
        await runner.cleanup()
        await asyncio.sleep(0.05)  # TLS connections close a moment later


def on_both(scenarios: Sequence[Scenario]) -> tuple[Callable[..., Awaitable[None]], Callable[..., Awaitable[None]]]:
    """Return the tests of scenarios: on the embedded server, and on a real one."""
    each = pytest.mark.parametrize("body", scenarios, ids=lambda body: body.__name__)

    @pytest.mark.virtual_time
    @each
    async def embedded(body: Scenario, caplog: pytest.LogCaptureFixture) -> None:
        await on_embedded(body, caplog)

    @pytest.mark.control_plane
    @each
    async def real(
        body: Scenario, control_plane: ControlPlane, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        await on_real(body, control_plane, tmp_path, caplog)

    return embedded, real
