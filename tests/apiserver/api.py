"""A client of the embedded API server in raw bytes, and the kinds that the tests use."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from reconciler.apiserver import APIServer
from reconciler.http import HTTPRequest, HTTPResponse

MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"

WIDGETS = "/apis/example.com/v1/namespaces/default/widgets"
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

SPEC: dict[str, Any] = {
    "type": "object",
    "properties": {
        "size": {"type": "integer", "minimum": 1, "maximum": 10, "default": 3},
        "color": {"type": "string", "enum": ["red", "blue"]},
        "code": {"type": "string", "pattern": "^[a-z]+$", "minLength": 2, "maxLength": 5},
        "when": {"type": "string", "format": "date-time"},
        "small": {"type": "integer", "format": "int32"},
        "note": {"type": "string", "nullable": True},
        "tags": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
        "items": {
            "type": "array",
            "maxItems": 3,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["k"],
            "items": {
                "type": "object",
                "required": ["k"],
                "properties": {"k": {"type": "string"}, "v": {"type": "integer", "default": 7}},
            },
        },
        "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "map": {"type": "object", "additionalProperties": {"type": "integer"}},
        "nest": {"type": "object", "properties": {"a": {"type": "string", "default": "x"}}},
        "port": {"x-kubernetes-int-or-string": True},
        "replicas": {"type": "integer"},
    },
}
STATUS: dict[str, Any] = {
    "type": "object",
    "properties": {"phase": {"type": "string"}, "n": {"type": "integer"}, "replicas": {"type": "integer"}},
}


def definition(
    kind: str = "Widget",
    *,
    spec: Mapping[str, Any] | None = None,
    schema: Mapping[str, Any] | None = None,
    scope: str = "Namespaced",
    subresources: Mapping[str, Any] | None = None,
    **version: Any,
) -> dict[str, Any]:
    """Return a CustomResourceDefinition."""
    plural = f"{kind.lower()}s"
    properties = {"spec": spec or SPEC, "status": STATUS}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.example.com"},
        "spec": {
            "group": "example.com",
            "names": {"kind": kind, "plural": plural},
            "scope": scope,
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}} if subresources is None else subresources,
                    "schema": {"openAPIV3Schema": schema or {"type": "object", "properties": properties}},
                    **version,
                }
            ],
        },
    }


def widget(
    name: str = "a", /, *, kind: str = "Widget", meta: Mapping[str, Any] | None = None, **spec: Any
) -> dict[str, Any]:
    """Return a custom object."""
    return {
        "apiVersion": "example.com/v1",
        "kind": kind,
        "metadata": {"name": name, **(meta or {})},
        "spec": spec or {"size": 1},
    }


@dataclass
class Reply:
    """A response."""

    status: int
    body: Any
    warnings: list[str] = field(default_factory=list)
    headers: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, key: str) -> Any:
        return self.body[key]

    @property
    def version(self) -> str:
        """Return the resourceVersion."""
        return str(self.body["metadata"]["resourceVersion"])

    @property
    def causes(self) -> list[tuple[str, str]]:
        """Return field and message of each cause, sorted."""
        return sorted((cause["field"], cause["message"]) for cause in self.body["details"]["causes"])

    @property
    def names(self) -> list[str]:
        """Return the names of a list's items."""
        return [item["metadata"]["name"] for item in self.body["items"]]


class Stream:
    """The events of a watch."""

    def __init__(self, response: HTTPResponse) -> None:
        self.response = response
        self.rest = b""
        self.waiting: list[dict[str, Any]] = []

    async def next(self) -> dict[str, Any]:
        """Return the next event; StopAsyncIteration at the end."""
        while not self.waiting:
            assert self.response.chunks is not None
            self.rest += await anext(self.response.chunks)
            *lines, self.rest = self.rest.split(b"\n")
            self.waiting += [json.loads(line) for line in lines]
        return self.waiting.pop(0)

    async def take(self, count: int) -> list[dict[str, Any]]:
        """Return the given number of events."""
        return [await self.next() for _ in range(count)]

    async def all(self) -> list[dict[str, Any]]:
        """Return the events up to the end."""
        found = []
        try:
            while True:
                found.append(await self.next())
        except StopAsyncIteration:
            return found

    async def quiet(self, seconds: float = 1.0) -> bool:
        """Return whether no event arrives for some seconds."""
        try:
            await asyncio.wait_for(self.next(), seconds)
        except TimeoutError:
            return True
        return False

    async def close(self) -> None:
        """Close the stream."""
        await self.response.close()


class Api:
    """A sender of requests to a server."""

    def __init__(self, server: APIServer) -> None:
        self.server = server

    async def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        type: str | None = "application/json",
        agent: str = "tests/1.0",
        headers: Mapping[str, str] | None = None,
        patience: float | None = None,
        **query: Any,
    ) -> HTTPResponse:
        """Send one request."""
        content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"user-agent": agent, **({"content-type": type} if body is not None and type else {}), **(headers or {})}
        pairs = [(key, str(value)) for key, value in query.items()]
        return await self.server.send(HTTPRequest(method, path, pairs, sent, content, timeout=patience))

    async def call(self, method: str, path: str, body: Any = None, **options: Any) -> Reply:
        """Send one request and decode its response."""
        response = await self.send(method, path, body, **options)
        try:
            found = json.loads(response.body)
        except ValueError:
            found = response.body.decode()
        return Reply(response.status, found, list(response.warnings), response.headers)

    async def get(self, path: str, **options: Any) -> Reply:
        """GET."""
        return await self.call("GET", path, **options)

    async def post(self, path: str, body: Any, **options: Any) -> Reply:
        """POST."""
        return await self.call("POST", path, body, **options)

    async def put(self, path: str, body: Any, **options: Any) -> Reply:
        """PUT."""
        return await self.call("PUT", path, body, **options)

    async def patch(self, path: str, body: Any, type: str = MERGE, **options: Any) -> Reply:
        """PATCH, by default with a merge patch."""
        return await self.call("PATCH", path, body, type=type, **options)

    async def apply(self, path: str, body: Any, manager: str = "one", **options: Any) -> Reply:
        """PATCH with a server-side apply."""
        return await self.call("PATCH", path, body, type=APPLY, fieldManager=manager, **options)

    async def delete(self, path: str, body: Any = None, **options: Any) -> Reply:
        """DELETE."""
        return await self.call("DELETE", path, body, **options)

    async def watch(self, path: str = WIDGETS, **query: Any) -> Stream:
        """Open a watch."""
        response = await self.send("GET", path, watch="1", **query)
        assert response.status == 200, response.body
        return Stream(response)

    async def make(self, *names: str, **options: Any) -> list[Reply]:
        """Create widgets."""
        return [await self.post(WIDGETS, widget(name, **options)) for name in names]
