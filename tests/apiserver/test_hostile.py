"""Hostile requests: each is answered as by kube-apiserver, and the server answers the next one.

The conformance cases of theme 32 compare the responses with the real server's. These tests cover what cannot be
compared: this server's own limits, costs, sockets.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest

from reconciler.apiserver import APIServer
from reconciler.apiserver.cluster import contents_of
from reconciler.apiserver.definitions import check_schema
from reconciler.apiserver.encoding import formats
from reconciler.apiserver.serving.request_log import ServerAction
from reconciler.errors import APIError
from reconciler.http import HTTPRequest
from tests.apiserver.api import (
    APPLY,
    CONFIG_MAPS,
    DEFINITIONS,
    JSON_PATCH,
    MERGE,
    STRATEGIC,
    WIDGETS,
    Api,
    definition,
    widget,
)

LEVELS = 128


def nested(levels: int, opening: str = '{"a":', closing: str = "}") -> str:
    return opening * levels + "1" + closing * levels


def loose(value: str, name: str = "a") -> bytes:
    """Return a widget in JSON with a value in its schemaless field."""
    head = '{"apiVersion":"example.com/v1","kind":"Widget"'
    return f'{head},"metadata":{{"name":"{name}"}},"spec":{{"any":{value}}}}}'.encode()


# nesting


@pytest.mark.parametrize("levels", [LEVELS - 2, LEVELS - 1, 500, 900, 1500, 100_000])
@pytest.mark.parametrize("kind", ["application/json", "application/yaml", MERGE, APPLY, JSON_PATCH])
async def test_documents_are_refused_beyond_a_nesting_limit(api: Api, kind: str, levels: int) -> None:
    await api.make("a")
    value = nested(levels)
    if kind in (MERGE, APPLY):
        answer = await api.patch(f"{WIDGETS}/a", loose(value), kind, **({"fieldManager": "x"} if kind == APPLY else {}))
    elif kind == JSON_PATCH:
        body = f'[{{"op":"add","path":"/spec/any","value":{value}}}]'.encode()
        answer = await api.patch(f"{WIDGETS}/a", body, kind)
    else:
        answer = await api.post(WIDGETS, loose(value, "b"), type=kind)
    if levels == LEVELS - 2:
        assert answer.status in (200, 201)
        assert (await api.get(WIDGETS)).status == 200
    else:
        assert answer.status in (400, 422)
    assert (await api.get(f"{WIDGETS}/a")).status == 200


@pytest.mark.parametrize("levels", [500, 30_000])
async def test_every_body_has_a_nesting_limit(api: Api, levels: int) -> None:
    value = nested(levels).encode()
    await api.post(CONFIG_MAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}})
    reviews = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    schema = json.dumps(definition("Deep", spec={"type": "object", "properties": {"x": "HERE"}}))
    deep = nested(levels, '{"type":"object","properties":{"a":', "}}")
    answers = [
        await api.patch(f"{CONFIG_MAPS}/a", value, STRATEGIC),
        await api.delete(f"{CONFIG_MAPS}/a", b'{"kind":"DeleteOptions","apiVersion":"v1","x":%b}' % value),
        await api.post(reviews, value),
        await api.put("/apis/apps/v1/namespaces/default/deployments/a/scale", value),
        await api.post(DEFINITIONS, schema.replace('"HERE"', deep).encode()),
    ]
    assert {answer.status for answer in answers} == {400}
    assert (await api.get(f"{CONFIG_MAPS}/a")).status == 200


async def test_a_json_patch_cannot_exceed_the_nesting_limit(api: Api) -> None:
    await api.make("a", any={})
    deeper = [{"op": "copy", "from": "/spec/any", "path": "/spec/any" + "/k" * level} for level in range(1, 300)]
    chained = [{"op": "add", "path": "/spec/any" + "/k" * level, "value": {}} for level in range(1, 1000)]
    moved = [
        step
        for at in range(1, 200)
        for step in (
            {"op": "add", "path": f"/spec/any/m{at}", "value": {}},
            {"op": "move", "from": f"/spec/any/m{at - 1}", "path": f"/spec/any/m{at}/k"},
        )
    ]
    for patch in (deeper, chained, [{"op": "add", "path": "/spec/any/m0", "value": {}}, *moved]):
        assert (await api.patch(f"{WIDGETS}/a", patch, JSON_PATCH)).status == 422
    assert (await api.get(f"{WIDGETS}/a"))["spec"]["any"] == {}


async def test_a_json_patch_does_not_change_its_arguments(api: Api) -> None:
    await api.make("a", any={"x": {"y": [1, 2]}})
    patch = [
        {"op": "copy", "from": "/spec/any/x", "path": "/spec/any/z"},
        {"op": "add", "path": "/spec/any/z/y/-", "value": 3},
        {"op": "test", "path": "/spec/any/x/y", "value": [1, 2]},
        {"op": "test", "path": "/spec/any/none", "value": 1},
    ]
    assert (await api.patch(f"{WIDGETS}/a", patch, JSON_PATCH)).status == 422
    assert (await api.get(f"{WIDGETS}/a"))["spec"]["any"] == {"x": {"y": [1, 2]}}
    changed = await api.patch(f"{WIDGETS}/a", patch[:3], JSON_PATCH)
    assert changed["spec"]["any"] == {"x": {"y": [1, 2]}, "z": {"y": [1, 2, 3]}}


async def test_apply_refuses_documents_beyond_the_nesting_limit(server: APIServer) -> None:
    document = json.loads(loose(nested(500)))
    with pytest.raises(APIError, match="exceeded max depth"):
        await server.apply(document)


# costs


async def test_aliases_cannot_exceed_the_nesting_limit(api: Api) -> None:
    lines = ["a0: &a0 {x: 1}", *(f"a{at}: &a{at} {{k: *a{at - 1}}}" for at in range(1, 300))]
    body = b"apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: a}\nspec:\n  any:\n"
    body += "\n".join(f"    {line}" for line in lines).encode()
    answer = await api.patch(f"{WIDGETS}/a", body, APPLY, fieldManager="x")
    assert (answer.status, "exceeded max depth" in answer["message"]) == (400, True)


async def test_exponential_patterns_are_matched_in_linear_time(api: Api) -> None:
    rules = [{"rule": "self.find('^(([a-z])+.)+[A-Z]([a-z])+$') == ''"}]
    code = {"type": "string", "maxLength": 100, "pattern": "^(a|a?)+$", "x-kubernetes-validations": rules}
    made = await api.post(DEFINITIONS, definition("Costly", spec={"type": "object", "properties": {"code": code}}))
    assert made.status == 201, made.body
    path = WIDGETS.replace("widgets", "costlys")
    assert (await api.post(path, widget("a", kind="Costly", code="a" * 100))).status == 201
    assert (await api.post(path, widget("b", kind="Costly", code="a" * 99 + "!"))).status == 422


@pytest.mark.parametrize("pattern", [r"\C", "(?U)a+", "(" * 900 + ")" * 900])
async def test_a_pattern_that_cannot_be_matched_is_refused_with_its_definition(api: Api, pattern: str) -> None:
    spec = {"type": "object", "properties": {"a": {"type": "string", "pattern": pattern}}}
    answer = await api.post(DEFINITIONS, definition("Odd", spec=spec))
    assert answer.status == 422
    assert answer.causes[0][0].startswith("spec.validation.openAPIV3Schema")


def forget_patterns() -> None:
    for remembered in (formats.compiled_pattern, check_schema, contents_of):
        remembered.cache_clear()


@pytest.mark.parametrize("pattern", ["(" * 900 + ")" * 900, "a{99999999999}", "(?=a)b", "(a", "[b-a]"])
async def test_a_pattern_is_refused_without_re2_as_well(
    api: Api, pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_patterns()
    monkeypatch.setitem(sys.modules, "re2", None)
    spec = {"type": "object", "properties": {"a": {"type": "string", "pattern": pattern}}}
    answer = await api.post(DEFINITIONS, definition("Odd", spec=spec))
    assert answer.status == 422
    assert answer.causes[0][0].endswith("properties[a].pattern")
    assert "must be a valid regular expression, but isn't: error parsing regexp: " in answer["message"]


@pytest.mark.parametrize("re2", [True, False], ids=["re2", "without re2"])
@pytest.mark.parametrize("pattern", [r"^\Qa.b\E$", r"^a\x{2e}b$", r"^\pL[[:punct:]](?P<b>\p{Greek}|b)\z"])
async def test_literal_parts_of_patterns_are_matched_as_in_go(
    api: Api, pattern: str, re2: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_patterns()
    if not re2:
        monkeypatch.setitem(sys.modules, "re2", None)
    spec = {"type": "object", "properties": {"a": {"type": "string", "pattern": pattern}}}
    assert (await api.post(DEFINITIONS, definition("Literal", spec=spec))).status == 201
    path = WIDGETS.replace("widgets", "literals")
    assert (await api.post(path, widget("a", kind="Literal", a="a.b"))).status == 201
    assert (await api.post(path, widget("b", kind="Literal", a="axb"))).status == 422


@pytest.mark.parametrize("text", [" " * 300_000 + "(", "(" * 300_000, "a in (" * 50_000, "\\" * 100_001, "," * 300_000])
async def test_selectors_of_any_size_are_answered(api: Api, text: str) -> None:
    for parameter in ("labelSelector", "fieldSelector"):
        assert (await api.get(WIDGETS, **{parameter: text})).status in (200, 400)


async def test_lists_of_many_items_are_answered(api: Api) -> None:
    owners = [{"apiVersion": "v1", "kind": "X", "name": "n", "uid": str(at)} for at in range(10_000)]
    await api.post(CONFIG_MAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}})
    assert (await api.post(WIDGETS, widget("a", meta={"ownerReferences": owners}))).status == 201
    twice = {"metadata": {"ownerReferences": owners}}
    assert (await api.patch(f"{CONFIG_MAPS}/a", twice, STRATEGIC)).status == 200
    assert (await api.patch(f"{CONFIG_MAPS}/a", twice, STRATEGIC)).status == 200


# texts


async def test_requests_with_lone_surrogates_are_answered(server: APIServer) -> None:
    for path, query, agent in (
        (f"{CONFIG_MAPS}/\ud800", (), "x"),
        (CONFIG_MAPS, (("labelSelector", "\udcff"),), "\udcff"),
    ):
        answer = await server.send(HTTPRequest("GET", path, query=query, headers={"user-agent": agent}))
        assert answer.status in (400, 404)
        json.loads(answer.body)


async def test_no_request_can_forge_a_log_line(server: APIServer, api: Api) -> None:
    forged = "\r\n2026-01-01 \u2028\u2029\x85\x0b\x1b[31mdelete widgets/a"
    await api.call("PUT", f"{WIDGETS}/{forged}", widget(forged), agent=forged)
    await api.call("DELETE", f"/{forged}", agent=forged)
    await api.post(WIDGETS, widget(forged), agent=forged)
    await api.call(f"GET{forged}", WIDGETS, agent=forged)
    server.log.note(ServerAction(datetime.now(tz=UTC), forged))
    lines = [str(entry) for entry in server.log] + [entry.summary() for entry in server.log]
    lines += list(map(str, server.log.timeline()))
    for line in lines:
        assert line.isprintable(), line
    writes = server.log.writes("Widget")
    assert len(str(writes).splitlines()) == len(writes)


async def test_names_and_methods_in_the_log_are_bounded(server: APIServer, api: Api) -> None:
    await api.get(f"{WIDGETS}/{'a' * 100_000}")
    await api.call("X" * 100_000, WIDGETS)
    assert all(len(str(entry)) < 2000 for entry in server.log)


# sockets


async def _raw(server: APIServer, *parts: bytes) -> bytes:
    host, port = server.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    for part in parts:
        writer.write(part)
    answer = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    return answer


async def test_a_request_without_the_token_is_refused_before_its_body_is_read(server: APIServer) -> None:
    head = b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999\r\n" % WIDGETS.encode()
    for token in (b"", b"authorization: Bearer wrong\r\n", b"authorization: Bearer \xff\xe9\r\n"):
        assert (await _raw(server, head, token, b"\r\n")).startswith(b"HTTP/1.1 401 ")


async def test_bodies_over_sockets_are_bounded(server: APIServer) -> None:
    headers = {"authorization": f"Bearer {server.token}", "content-type": "application/json"}
    chunked = (b" " * 1_000_000 for _ in range(4))

    async def chunks() -> Any:
        for chunk in chunked:
            yield chunk

    async with aiohttp.ClientSession(server.url, headers=headers) as session:
        for body in (io.BytesIO(b" " * (3 * 1024 * 1024 + 1)), chunks()):
            async with session.post(WIDGETS, data=body) as answer:
                assert answer.status == 413
                status = await answer.json()
                assert status["message"] == "Request entity too large: limit is 3145728"
                assert status["reason"] == "RequestEntityTooLarge"
        async with session.get(WIDGETS) as answer:
            assert answer.status == 200


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "nonsense"])
async def test_a_content_encoding_is_not_decoded(
    server: APIServer, encoding: str, caplog: pytest.LogCaptureFixture
) -> None:
    headers = {"authorization": f"Bearer {server.token}", "content-encoding": encoding}
    bomb = gzip.compress(b" " * 100_000_000)
    async with aiohttp.ClientSession(server.url, headers=headers) as session:
        for body in (bomb, bomb[:50], b"\x1f\x8b"):
            async with session.post(WIDGETS, data=body, headers={"content-type": "application/json"}) as answer:
                assert answer.status == 400
                assert "couldn't get version/kind" in (await answer.json())["message"]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /api/v1/namespaces/default/configmaps/\xff\xfe HTTP/1.1\r\nhost: x\r\n",
        b"GET /api/v1/namespaces/default/configmaps/%00%2F%ff HTTP/1.1\r\nhost: x\r\n",
        b"GET /api/v1/namespaces/default/configmaps?labelSelector=%ff%zz&&=&a HTTP/1.1\r\nhost: x\r\n",
        b"GET /../..//api//v1 HTTP/1.1\r\nhost: x\r\n",
        b"OPTIONS * HTTP/1.1\r\nhost: x\r\n",
        b"FOO /api HTTP/1.1\r\nhost: x\r\n",
        b"GET /api HTTP/1.1\r\nhost: x\r\nuser-agent: \xff\x01\r\n",
        b"GET /api HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: x\r\n",
        b"GET /api HTTP/1.1\r\nhost: x\r\n" + b"x: y\r\n" * 5000,
        b"GET /%b HTTP/1.1\r\nhost: x\r\n" % (b"a" * 2_000_000),
        b"POST /api HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n",
        b"POST /api HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_malformed_requests_get_an_error_and_no_traceback(
    server: APIServer, request_: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await _raw(server, request_, b"authorization: Bearer %b\r\n\r\n" % server.token.encode())
    assert 200 <= int(answer.split()[1]) < 500
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert (await _raw(server, b"GET /%b/api HTTP/1.1\r\nhost: x\r\n\r\n" % server.token.encode())).split()[1] == b"200"


# numbers


@pytest.mark.parametrize("quantity", ["1e999999999", "1e-999999999", "9" * 5000, "9" * 5000 + "Ki", "1e91"])
async def test_a_quantity_with_an_endless_number_of_digits_is_refused(api: Api, quantity: str) -> None:
    container = {"name": "a", "image": "a", "resources": {"limits": {"memory": quantity}}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [container]}}
    answer = await api.post("/api/v1/namespaces/default/pods", pod)
    assert (answer.status, "quantities must match" in answer.body["message"]) == (400, True)
