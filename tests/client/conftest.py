"""A transport that answers from a script and remembers what it was asked."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.client import Client
from reconciler.client import configuration as _configuration
from reconciler.http import HTTPRequest, HTTPResponse
from reconciler.meta import Request
from reconciler.meta.metadata import ResourceType

APIS = {
    "/api/v1": [
        ("pods", "Pod", True),
        ("pods/eviction", "Eviction", True),
        ("nodes", "Node", False),
        ("configmaps", "ConfigMap", True),
    ],
    "/apis/example.com/v1": [("databases", "Database", True), ("databases/status", "Database", True)],
    "/apis/apps/v1": [
        ("deployments", "Deployment", True),
        ("deployments/scale", "Scale", True),
        ("deployments/status", "Deployment", True),
    ],
}


class Script:
    """A transport that answers discovery from a table, and everything else with the next step of a script."""

    def __init__(self) -> None:
        self.steps: deque[HTTPResponse | Exception] = deque()
        self.requests: list[HTTPRequest] = []
        self.discovered: list[str] = []
        self.apis = {path: list(kinds) for path, kinds in APIS.items()}
        self.broken: set[str] = set()
        self.closed = 0

    def answers(self, document: Any = None, status: int = 200, *, warnings: Any = (), **headers: str) -> Script:
        """Answer with JSON; underscores in the names of headers become hyphens."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        body = json.dumps({} if document is None else document).encode()
        self.steps.append(HTTPResponse(status, {"content-type": "application/json", **names}, body, warnings=warnings))
        return self

    def says(self, body: bytes, status: int = 200, **headers: str) -> Script:
        self.steps.append(HTTPResponse(status, headers, body))
        return self

    def refuses(self, code: int, reason: str = "", message: str = "words", **details: Any) -> Script:
        status = {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}
        return self.answers({**status, "details": details}, code)

    def fails(self, error: Exception) -> Script:
        self.steps.append(error)
        return self

    def streams(self, *chunks: bytes, then: Exception | None = None) -> Script:
        async def body() -> AsyncIterator[bytes]:
            for chunk in chunks:
                yield chunk
            if then is not None:
                raise then

        async def close() -> None:
            self.closed += 1

        self.steps.append(HTTPResponse(200, {}, chunks=body(), on_close=close))
        return self

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        if request.path in self.broken:
            self.discovered.append(request.path)
            return HTTPResponse(503, {}, b"service unavailable")
        if request.path in self.apis:
            self.discovered.append(request.path)
            kinds = [{"name": name, "kind": kind, "namespaced": is_} for name, kind, is_ in self.apis[request.path]]
            return HTTPResponse(200, {}, json.dumps({"kind": "APIResourceList", "resources": kinds}).encode())
        if request.path.startswith("/apis/") and request.path.count("/") == 3:
            self.discovered.append(request.path)
            return HTTPResponse(404, {"content-type": "text/plain"}, b"404 page not found\n")
        self.requests.append(request)
        step = self.steps.popleft()
        if isinstance(step, Exception):
            raise step
        return step

    @property
    def last(self) -> HTTPRequest:
        return self.requests[-1]

    @property
    def body(self) -> Any:
        return json.loads(self.last.body)

    @property
    def query(self) -> dict[str, str]:
        return dict(self.last.query)


class Observer:
    """A write observer that remembers its notifications."""

    def __init__(self) -> None:
        self.writes: list[tuple[str, Request, bytes]] = []
        self.doubts: list[Request] = []
        self.doubts_of_all: list[str | None] = []

    def begin_write(self, resource: ResourceType, request: Request) -> None:
        pass

    def record_write(self, resource: ResourceType, verb: str, request: Request, answer: bytes, begun: object) -> None:
        self.writes.append((verb, request, answer))

    def invalidate(self, resource: ResourceType, request: Request) -> None:
        self.doubts.append(request)

    def invalidate_all(self, resource: ResourceType, namespace: str | None) -> None:
        self.doubts_of_all.append(namespace)

    @property
    def notified(self) -> bool:
        return bool(self.writes or self.doubts or self.doubts_of_all)

    def of(self, client: Client) -> Client:
        """Return a client whose writes this observes."""
        return Client.over(client.session.observed_by(self))


@pytest.fixture
def observer() -> Observer:
    return Observer()


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(_configuration, "SERVICE_ACCOUNT", tmp_path / "serviceaccount")
