"""Mutated requests: the server answers any bytes without an internal error, and then answers a valid request.

One test sends requests in process, the other raw bytes over a socket. ``FUZZ_EXAMPLES`` sets the number of requests
(2000 and 300 by default), ``FUZZ_SEED`` the seed (1 by default). A failure reports the seed and the number of the
request. Time is virtual in process, so that no watch or fault makes the test wait.
"""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import os
import random
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlencode

import pytest

from reconciler.apiserver import APIServer
from reconciler.apiserver.serving import listener
from reconciler.http import HTTPRequest
from tests.apiserver.api import (
    APPLY,
    CONFIG_MAPS,
    DEFINITIONS,
    JSON_PATCH,
    MERGE,
    STRATEGIC,
    WIDGETS,
    definition,
    widget,
)

SEED = int(os.environ.get("FUZZ_SEED", "1"))
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "2000"))
PODS = "/api/v1/namespaces/default/pods"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
REVIEWS = "/apis/authorization.k8s.io/v1"

REAL_FAILURES = re.compile(
    r"etcdserver: request is too large|failed to create (manager|typed)|failed to convert|resourceVersion|strconv\.|"
    r"unknown patch type|list element types|does not contain declared merge key|"
    r"The order in patch list|expected a \[\]interface|target\.|Internal error occurred|content is not a list|"
    r"more than one PodDisruptionBudget|: (expected|field not declared)"
)
"""What is said with status 500, as by the real server."""


@dataclass
class Sent:
    """A request before it is serialized."""

    method: str
    path: str
    body: Any = None
    kind: str = "application/json"
    query: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None

    def content(self) -> bytes:
        """Return the bytes of the body."""
        if self.raw is not None:
            return self.raw
        return b"" if self.body is None else json.dumps(self.body).encode()


POD_SPEC = {
    "containers": [{"name": "c", "image": "x", "env": [{"name": "A", "value": "b"}], "ports": [{"containerPort": 1}]}]
}
TEMPLATE = {"metadata": {"labels": {"a": "b"}}, "spec": POD_SPEC}
DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "d"},
    "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": TEMPLATE},
}
CONFIG_MAP = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "c", "labels": {"a": "b"}, "finalizers": ["example.com/f"], "ownerReferences": []},
    "data": {"k": "v"},
    "binaryData": {"b": "aGk="},
}
RULED = definition(
    "Ruled",
    spec={
        "type": "object",
        "properties": {"n": {"type": "integer", "x-kubernetes-validations": [{"rule": "self > 0 && self < 10"}]}},
    },
    additionalPrinterColumns=[{"name": "n", "type": "integer", "jsonPath": ".spec.n"}],
)
DELETE_OPTIONS = {
    "kind": "DeleteOptions",
    "apiVersion": "v1",
    "gracePeriodSeconds": 0,
    "preconditions": {"uid": "x"},
    "propagationPolicy": "Foreground",
    "dryRun": ["All"],
}
WHOLE = widget("a", size=2, tags=["x"], items=[{"k": "a", "v": 1}], any={"x": {"y": [1, "2", None]}}, port="http")
SEEDS: list[Sent] = [
    Sent("GET", WIDGETS, query={"limit": "1", "labelSelector": "a in (b,c),!d", "fieldSelector": "metadata.name=a"}),
    Sent("GET", WIDGETS, query={"watch": "1", "timeoutSeconds": "1", "allowWatchBookmarks": "true"}),
    Sent("GET", WIDGETS, query={"watch": "1", "sendInitialEvents": "1", "resourceVersionMatch": "NotOlderThan"}),
    Sent("GET", WIDGETS, query={"continue": "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiJ4In0", "limit": "1"}),
    Sent("GET", f"{WIDGETS}/a", query={"resourceVersion": "1"}, headers={"accept": "application/json;as=Table;v=v1"}),
    Sent("GET", CONFIG_MAPS, headers={"accept": "application/yaml"}),
    Sent("GET", "/openapi/v3"),
    Sent("GET", "/apis", headers={"accept": "application/json;as=APIGroupDiscoveryList;v=v2;g=apidiscovery.k8s.io"}),
    Sent("POST", WIDGETS, WHOLE, query={"fieldValidation": "Strict", "dryRun": "All"}),
    Sent("POST", WIDGETS, WHOLE, "application/yaml"),
    Sent("POST", CONFIG_MAPS, CONFIG_MAP),
    Sent(
        "POST",
        CONFIG_MAPS,
        None,
        "application/vnd.kubernetes.protobuf",
        raw=b"k8s\0\n\x0f\n\x02v1\x12\tConfigMap\x12\n\n\x03\n\x01a",
    ),
    Sent("POST", PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": POD_SPEC}),
    Sent("POST", DEPLOYMENTS, DEPLOYMENT),
    Sent("POST", DEFINITIONS, RULED),
    Sent("PUT", f"{DEFINITIONS}/ruleds.example.com", RULED),
    Sent("POST", WIDGETS.replace("widgets", "ruleds"), {**widget("r", kind="Ruled"), "spec": {"n": 3}}),
    Sent("PUT", f"{WIDGETS}/a", WHOLE),
    Sent("PUT", f"{WIDGETS}/a/status", {**WHOLE, "status": {"phase": "x"}}),
    Sent("PATCH", f"{WIDGETS}/a", {"spec": {"size": 3, "any": {"x": None}}}, MERGE),
    Sent("PATCH", f"{WIDGETS}/a", WHOLE, APPLY, query={"fieldManager": "fuzz", "force": "true"}),
    Sent("PATCH", f"{CONFIG_MAPS}/c", CONFIG_MAP, APPLY, query={"fieldManager": "fuzz", "force": "true"}),
    Sent(
        "PATCH",
        f"{WIDGETS}/a",
        [
            {"op": "test", "path": "/spec/size", "value": 1},
            {"op": "add", "path": "/spec/any/x", "value": {"k": [1]}},
            {"op": "copy", "from": "/spec/any", "path": "/spec/any/y"},
            {"op": "move", "from": "/spec/any/y", "path": "/spec/any/x/z"},
            {"op": "remove", "path": "/spec/any/x/k/0"},
        ],
        JSON_PATCH,
    ),
    Sent(
        "PATCH",
        f"{CONFIG_MAPS}/c",
        {"data": {"k": None}, "metadata": {"finalizers": ["a/b"], "$setElementOrder/finalizers": ["a/b"]}},
        STRATEGIC,
    ),
    Sent("PATCH", f"{DEPLOYMENTS}/d", {"spec": {"template": {"spec": POD_SPEC}}}, STRATEGIC),
    Sent("PATCH", f"{DEPLOYMENTS}/d/scale", {"spec": {"replicas": 2}}, MERGE),
    Sent("DELETE", f"{WIDGETS}/a", DELETE_OPTIONS),
    Sent("DELETE", CONFIG_MAPS, {**DELETE_OPTIONS, "preconditions": None}, query={"labelSelector": "a=b"}),
    Sent("POST", f"{PODS}/p/eviction", {"kind": "Eviction", "apiVersion": "policy/v1", "metadata": {"name": "p"}}),
    Sent(
        "POST",
        f"{PODS}/p/binding",
        {"kind": "Binding", "apiVersion": "v1", "metadata": {"name": "p"}, "target": {"name": "n"}},
    ),
    Sent(
        "POST",
        f"{REVIEWS}/selfsubjectaccessreviews",
        {"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}},
    ),
]
VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1.5,
    2**63,
    -(2**63) - 1,
    10**30,
    "",
    "x",
    "\0",
    "é\u2028",
    "../..",
    "x" * 300,
    [],
    {},
    [None],
    [[]],
    {"": ""},
    {"a": {"b": []}},
    "$patch",
    "9" * 100,
    "2024-01-01T00:00:00Z",
    "1Gi",
    [{}],
    {"$patch": "replace"},
]
TEXTS = [
    "",
    "0",
    "-1",
    "1",
    "true",
    "x",
    "²",
    "%00",
    "a=b",
    "a in (",
    "!",
    ",",
    "\0",
    "9" * 50,
    "é",
    "application/json",
    "é" * 50,
]
BYTES = [
    b"\xff",
    b"\0",
    b'"',
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\\ud800",
    b"\\u0000",
    b"1e400",
    b"NaN",
    b"9" * 400,
    b"&a",
    b"*a",
    b"!!int",
    b"\n",
    b"- ",
    b"? ",
    b"<<: ",
    b"\xef\xbb\xbf",
    b"{" * 300,
    b"[" * 300,
    b'{"a":' * 300,
]
NAMES = [
    "$patch",
    "$retainKeys",
    "$setElementOrder/a",
    "metadata",
    "spec",
    "status",
    "name",
    "",
    "\0",
    "kind",
    "x" * 300,
]


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the containers of a document, each with a key or an index."""
    for key, member in list(value.items()) if isinstance(value, dict) else list(enumerate(value)):
        yield value, key
        if isinstance(member, (dict, list)):
            yield from _places(member)


def mutated(rng: random.Random) -> Sent:
    """Return a valid request with a few mutations."""
    chosen = rng.choice(SEEDS)
    sent = replace(
        chosen, body=json.loads(json.dumps(chosen.body)), query=dict(chosen.query), headers=dict(chosen.headers)
    )
    for _ in range(rng.randrange(4)):
        what = rng.random()
        if what < 0.45 and isinstance(sent.body, (dict, list)) and (places := list(_places(sent.body))):
            holder, key = rng.choice(places)
            if isinstance(holder, dict) and rng.random() < 0.25:
                holder[rng.choice(NAMES)] = holder.pop(key) if rng.random() < 0.5 else holder[key]
            elif rng.random() < 0.15:
                del holder[key]
            else:
                holder[key] = copy.deepcopy(rng.choice(VALUES))
        elif what < 0.6:
            content = bytearray(sent.content())
            at = rng.randrange(len(content) + 1)
            content[at : at + rng.choice((0, 0, 1, 5))] = rng.choice(BYTES)
            sent.raw = bytes(content[: rng.randrange(len(content) + 1)] if rng.random() < 0.2 else content)
        elif what < 0.75:
            name = rng.choice(
                [*sent.query, "limit", "resourceVersion", "continue", "watch", "fieldManager", "dryRun", "force"]
            )
            sent.query[name] = rng.choice(TEXTS)
        elif what < 0.85:
            parts = sent.path.split("/")
            parts[rng.randrange(len(parts))] = rng.choice([*TEXTS, "..", "%2F", "%ff", "%zz", "status", "scale"])
            sent.path = "/".join(parts)
        elif what < 0.9:
            sent.method = rng.choice(["GET", "PUT", "POST", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "FOO"])
        elif what < 0.95:
            sent.kind = rng.choice(
                [MERGE, APPLY, JSON_PATCH, STRATEGIC, "application/yaml", "text/plain", "", *TEXTS[:6]]
            )
        else:
            sent.headers[rng.choice(["accept", "user-agent", "x-reconcile-id"])] = rng.choice(TEXTS)
    return sent


async def prepare(server: APIServer) -> None:
    await server.apply(definition())
    for sent in SEEDS:
        if sent.method == "POST" and sent.raw is None and not sent.query:
            headers = {"content-type": sent.kind}
            await server.send(HTTPRequest("POST", sent.path, headers=headers, body=sent.content()))


def problem(status: int, body: bytes) -> str:
    """Return what is wrong with a response."""
    if status not in range(200, 600):
        return f"status {status}"
    if status != 500:
        return ""
    try:
        message = json.loads(body)["message"]
    except (ValueError, KeyError, TypeError):
        return f"500 without a Status: {body[:200]!r}"
    return "" if REAL_FAILURES.search(message) else f"500: {message}"


@pytest.mark.virtual_time
@pytest.mark.timeout(60 + EXAMPLES)
async def test_mutated_requests_in_the_process(caplog: pytest.LogCaptureFixture) -> None:
    rng = random.Random(SEED)
    async with APIServer(seed=SEED) as server:
        await prepare(server)
        for number in range(EXAMPLES):
            sent = mutated(rng)
            headers = {"content-type": sent.kind, **sent.headers}
            query = tuple(sent.query.items())
            request = HTTPRequest(sent.method, sent.path, query=query, headers=headers, body=sent.content())
            told = f"FUZZ_SEED={SEED}, request {number}: {request!r:.2000}"
            try:
                answer = await server.send(request)
            except Exception as error:
                raise AssertionError(told) from error
            if answer.chunks is not None:
                await answer.close()
            assert not problem(answer.status, answer.body), f"{problem(answer.status, answer.body)}; {told}"
            if number % 50 == 0:
                listed = await server.send(HTTPRequest("GET", WIDGETS))
                assert (listed.status, json.loads(listed.body)["kind"]) == (200, "WidgetList"), told
                assert all(str(entry).isprintable() for entry in server.log), told
                server.log.clear()
        await prepare(server)
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.timeout(60 + EXAMPLES)
async def test_mutated_requests_over_a_socket(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(SEED)
    # A request that promises more than it sends ends soon.
    monkeypatch.setattr(listener, "_LIMITS", replace(listener._LIMITS, head_seconds=0.1, body_seconds=0.1))
    async with APIServer(seed=SEED) as server:
        await prepare(server)
        host, port = server.url.removeprefix("http://").split(":")
        for number in range(EXAMPLES * 3 // 20):
            sent = mutated(rng)
            raw = bytearray(_written(sent, server.token))
            for _ in range(rng.choice((0, 0, 1, 2))):
                at = rng.randrange(len(raw))
                raw[at : at + rng.randrange(3)] = rng.choice(BYTES)
            told = f"FUZZ_SEED={SEED}, request {number}: {bytes(raw[:2000])!r}"
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(raw)
            answer = await _first_part(reader)
            writer.close()
            if answer:
                status = int(answer.split()[1])
                assert not problem(status, answer.partition(b"\r\n\r\n")[2]), told
        valid = socket.create_connection((host, int(port)))
        valid.sendall(_written(Sent("GET", WIDGETS), server.token))  # before the server accepts it, so it is in time
        reader, writer = await asyncio.open_connection(sock=valid)
        assert (await reader.readline()) == b"HTTP/1.1 200 OK\r\n"
        writer.close()
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def _written(sent: Sent, token: str) -> bytes:
    query = f"?{urlencode(sent.query)}" if sent.query else ""
    content = sent.content()
    headers = {
        "host": "x",
        "authorization": f"Bearer {token}",
        "content-length": str(len(content)),
        "connection": "close",
    }
    headers |= {"content-type": sent.kind, **sent.headers}
    lines = [f"{sent.method} {sent.path}{query} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + content


async def _first_part(reader: asyncio.StreamReader) -> bytes:
    """Return the head of a response and what follows it; empty if the connection is closed without one."""
    received = b""
    try:
        while b"\r\n\r\n" not in received:
            chunk = await reader.read(65_536)
            if not chunk:
                break
            received += chunk
        if received.split()[1:2] == [b"500"]:
            received += await reader.read(65_536)
    except ConnectionError:
        pass
    return received
