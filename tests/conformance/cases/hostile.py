"""Requests that no well-meaning client sends: too large, too deep, cut off, garbled (32)."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

from tests.conformance.api import APPLY, JSON_PATCH, MERGE, STRATEGIC, Api
from tests.conformance.cases._case import case, table
from tests.conformance.cases.rules import definition

_LIMIT = 3 * 1024 * 1024
_DEPTH = 20_000
_NAME = {"metadata": {"name": "a"}}
_LOOSE = definition("looses", "Loose", {"type": "object", "x-kubernetes-preserve-unknown-fields": True})


def _nested(depth: int = _DEPTH, *, opening: str = '{"a":', closing: str = "}") -> bytes:
    return (opening * depth + "1" + closing * depth).encode()


def _gzip(data: bytes) -> bytes:
    """Return data in gzip's format; the header of `gzip.compress` depends on Python's version."""
    return zlib.compress(data, 9, wbits=31)


def _map(data: bytes, *, meta: bytes = b"") -> bytes:
    """Return a ConfigMap in JSON whose data has one member, as it is given."""
    return b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"%s},"data":{"k":%s}}' % (meta, data)


def _loose(value: bytes) -> bytes:
    """Return an object of the loose custom kind in JSON whose spec has one member, as it is given."""
    return (
        b'{"apiVersion":"conformance.reconciler.dev/v1","kind":"Loose","metadata":{"name":"a"},"spec":{"k":%s}}' % value
    )


@case("bodies of more than 3 MiB", _LOOSE)
async def _(api: Api) -> None:
    large = b" " * (_LIMIT + 1)
    await api.create("configmaps", _NAME, quiet=True)
    await api.call("POST", api.path("configmaps"), large)
    await api.call("PUT", api.path("configmaps", "a"), large)
    for content in (MERGE, JSON_PATCH, STRATEGIC):
        await api.call("PATCH", api.path("configmaps", "a"), large, content=content)
    await api.call("PATCH", api.path("configmaps", "a"), large, content=APPLY, query={"fieldManager": "one"})
    await api.call("DELETE", api.path("configmaps", "a"), large)
    await api.call("DELETE", api.path("configmaps"), large)
    await api.call("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", large)
    await api.call("POST", api.path("looses:Loose"), large)
    await api.call("POST", api.path("configmaps"), b" " * _LIMIT)


@case("JSON that is nested too deeply", _LOOSE)
async def _(api: Api) -> None:
    await api.create("configmaps", _NAME, quiet=True)
    await api.create("looses:Loose", _NAME, quiet=True)
    for body in (_nested(), _nested(opening="[", closing="]"), _map(_nested())):
        await api.call("POST", api.path("configmaps"), body)
    await api.call("POST", api.path("looses:Loose"), _loose(_nested()))
    await api.call("PUT", api.path("looses:Loose", "a"), _loose(_nested()))
    for content in (MERGE, STRATEGIC):
        await api.call("PATCH", api.path("configmaps", "a"), b'{"data":%s}' % _nested(), content=content)
    await api.call("PATCH", api.path("looses:Loose", "a"), b'{"spec":%s}' % _nested(), content=MERGE)
    patch = b'[{"op":"add","path":"/spec/k","value":%s}]' % _nested()
    await api.call("PATCH", api.path("looses:Loose", "a"), patch, content=JSON_PATCH)
    await api.call(
        "DELETE", api.path("configmaps", "a"), b'{"kind":"DeleteOptions","apiVersion":"v1","x":%s}' % _nested()
    )


@case("JSON patches of too many operations and too many copied bytes", _LOOSE)
async def _(api: Api) -> None:
    await api.create("configmaps", {**_NAME, "data": {"k": "v" * 1000}}, quiet=True)
    operation = {"op": "test", "path": "/data/none", "value": None}
    await api.patch("configmaps", "a", [operation] * 10_001, content=JSON_PATCH)
    await api.patch("configmaps", "a", [operation] * 10_000, content=JSON_PATCH, keep=["kind"])
    doubling = [{"op": "copy", "from": "/data", "path": f"/data/k{index}"} for index in range(40)]
    await api.patch("configmaps", "a", doubling, content=JSON_PATCH)
    await api.patch(
        "configmaps", "a", [{"op": "copy", "from": "/data/k", "path": "/data/b"}] * 9000, content=JSON_PATCH
    )


_TEXTS = (
    ("lone surrogates", rb'"a\ud800b\udc00"'),
    ("a surrogate beside another escape", rb'"\ud800\u0041\\ud800"'),
    ("a pair of surrogates", rb'"\ud83d\ude00"'),
    ("bytes that are no UTF-8", b'"a\xff\xfeb"'),
    ("surrogates in UTF-8", b'"\xed\xa0\x80"'),
    ("a cut sequence of UTF-8", b'"\xe2\x82"'),
    ("an escaped NUL", rb'"a\u0000b"'),
    ("a NUL", b'"a\0b"'),
)


async def _text(api: Api, value: bytes) -> None:
    await api.call("POST", api.path("configmaps"), _map(value), keep=["data"])
    await api.call("POST", api.path("looses:Loose"), _loose(value), keep=["spec"])
    await api.call("POST", api.path("looses:Loose"), _loose(b"{%s:1}" % value).replace(b'"a"', b'"b"'), keep=["spec"])
    for plural in ("configmaps", "looses:Loose"):
        await api.call("POST", api.path(plural), _loose(b"1").replace(b'"name":"a"', b'"name":%s' % value))
    await api.create("looses:Loose", {"metadata": {"name": "c"}}, quiet=True)
    await api.call("PATCH", api.path("looses:Loose", "c"), b'{"spec":{"k":%s}}' % value, content=MERGE, keep=["spec"])
    await api.call("PATCH", api.path("looses:Loose", "c"), b'{"metadata":{"labels":{"k":%s}}}' % value, content=MERGE)
    patch = b'[{"op":"add","path":"/spec","value":{%s:%s}}]' % (value, value)
    await api.call("PATCH", api.path("looses:Loose", "c"), patch, content=JSON_PATCH, keep=["spec"])


table([(f"texts with {title}", value) for title, value in _TEXTS])(_text, _LOOSE)


_NUMBERS = (b"1e400", b"-1e400", b"1" + b"0" * 400, b"1" + b"0" * 5000, b"1e-400", b"-0", b"1E2", b"NaN", b"01", b"1.")


@case("numbers that are out of range or invalid", _LOOSE)
async def _(api: Api) -> None:
    await api.create("looses:Loose", {"metadata": {"name": "b"}}, quiet=True)
    for value in _NUMBERS:
        await api.call("POST", api.path("looses:Loose"), _loose(value), query={"dryRun": "All"}, keep=["spec"])
        await api.call(
            "PATCH", api.path("looses:Loose", "b"), b'{"spec":{"k":%s}}' % value, content=MERGE, keep=["spec"]
        )


@case("bodies that are not JSON", _LOOSE)
async def _(api: Api) -> None:
    await api.create("configmaps", _NAME, quiet=True)
    bodies = (
        b"",
        b"\xef\xbb\xbf{}",
        b"\0",
        b"{",
        b'{"a"',
        b'{"a":1,}',
        b"[1,]",
        b'"a',
        b"tru",
        b"{}{}",
        b"\xff",
        b"nul",
    )
    for body in bodies:
        await api.call("POST", api.path("configmaps"), body)
        await api.call("POST", api.path("looses:Loose"), body)
        await api.call("PATCH", api.path("configmaps", "a"), body, content=MERGE, keep=["kind"])
        await api.call("PATCH", api.path("configmaps", "a"), body, content=JSON_PATCH, keep=["kind"])
        await api.call("PATCH", api.path("configmaps", "a"), body, content=STRATEGIC, keep=["kind"])


def _applied(text: str) -> bytes:
    lines = [
        "apiVersion: conformance.reconciler.dev/v1",
        "kind: Loose",
        "metadata: {name: a}",
        "spec:",
        *text.split("\n"),
    ]
    return "\n".join(lines[:4] + [f"  {line}" for line in lines[4:]]).encode()


_BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "\n".join(
    f"{name}: &{name} [{','.join([f'*{last}'] * 9)}]" for last, name in zip("abcdefgh", "bcdefghi", strict=True)
)
_MERGED = "b0: &b0 {x: 1}\n" + "\n".join(
    f"b{index}: &b{index} {{<<: [{','.join([f'*b{index - 1}'] * 5)}], y{index}: 1}}" for index in range(1, 20)
)


@case("YAML that multiplies or contains itself", _LOOSE)
async def _(api: Api) -> None:
    for text in (_BOMB, _MERGED, "k: &a [*a]", "k: &a {b: *a}"):
        await api.apply("looses:Loose", "a", _applied(text), keep=["kind"])


@case("YAML with scalars and keys that JSON has not", _LOOSE)
async def _(api: Api) -> None:
    texts = ("null: 1", "~: 1", "true: 1", "1.5: 1", "1: 1", "k: .nan", "k: .inf", "k: !!binary aGk=", "k: !!str 1")
    for text in texts:
        await api.apply("looses:Loose", "a", _applied(text), force=True, keep=["spec"])


_CONTINUES = (
    b"{}",
    b"[]",
    b'{"v":"meta.k8s.io/v1","rv":"a","start":"x"}',
    b'{"v":"meta.k8s.io/v1","rv":1,"start":5}',
    b'{"v":"meta.k8s.io/v1","rv":1e400,"start":"x"}',
    b'{"v":"meta.k8s.io/v1","rv":99999999999999999999999,"start":"x"}',
    b'{"v":"x","rv":1,"start":"x"}',
    b'{"v":"meta.k8s.io/v1","rv":1,"start":"../../x"}',
    b"\xff",
    b"null",
)


@case("invalid continue tokens", _LOOSE)
async def _(api: Api) -> None:
    for token in (*(base64.urlsafe_b64encode(raw).decode().rstrip("=") for raw in _CONTINUES), "%", "a", "é"):
        await api.call("GET", api.path("configmaps"), query={"limit": "1", "continue": token}, keep=["kind"])


_INTEGERS = ("-1", "9223372036854775807", "9223372036854775808", "9" * 40, "1_0", " 1", "+1", "٣", "²", "0x1", "1.0")


@case("numbers in parameters", _LOOSE)
async def _(api: Api) -> None:
    for value in _INTEGERS:
        await api.call("GET", api.path("configmaps"), query={"limit": value}, keep=["kind"])
        await api.call("GET", api.path("configmaps"), query={"timeoutSeconds": value}, keep=["kind"])
        await api.call("DELETE", api.path("configmaps", "none"), query={"gracePeriodSeconds": value})
        if value != "9223372036854775807":
            await api.call("GET", api.path("configmaps"), query={"resourceVersion": value}, keep=["kind"])
            await api.call("GET", api.path("configmaps", "none"), query={"resourceVersion": value})


@case("options of deletions, evictions, bindings and reviews with members of other types", _LOOSE)
async def _(api: Api) -> None:
    options = {"kind": "DeleteOptions", "apiVersion": "v1"}
    values: tuple[Any, ...] = (1, 1.5, "x", True, [], [1], {"a": 1})
    for key in ("gracePeriodSeconds", "preconditions", "orphanDependents", "propagationPolicy", "dryRun"):
        for value in values:
            await api.call("DELETE", api.path("configmaps", "none"), {**options, key: value})
    await api.call("DELETE", api.path("configmaps", "none"), {**options, "preconditions": {"uid": 1}})
    reviews = "/apis/authorization.k8s.io/v1"
    for value in (
        1,
        "x",
        [],
        {"resourceAttributes": 1},
        {"resourceAttributes": {"verb": 1}},
        {"nonResourceAttributes": []},
    ):
        for kind in ("SelfSubjectAccessReview", "SubjectAccessReview"):
            body = {"kind": kind, "apiVersion": "authorization.k8s.io/v1", "spec": value}
            await api.call("POST", f"{reviews}/{kind.lower()}s", body, keep=["kind"])


@case("directives of strategic merge patches with members of other types", _LOOSE)
async def _(api: Api) -> None:
    await api.create("configmaps", {"metadata": {"name": "a", "finalizers": ["example.com/a"]}}, quiet=True)
    for value in (1, "x", True, {}, {"a": 1}):
        for key in ("$deleteFromPrimitiveList/finalizers", "$setElementOrder/finalizers", "$retainKeys"):
            await api.patch("configmaps", "a", {"metadata": {key: value}}, content=STRATEGIC, keep=["kind"])


@case("encodings and character sets", _LOOSE)
async def _(api: Api) -> None:
    body = json.dumps({"apiVersion": "v1", "kind": "ConfigMap", **_NAME}).encode()
    for encoding in ("gzip", "deflate", "br", "zstd", "x"):
        await api.call("POST", api.path("configmaps"), body, headers={"content-encoding": encoding}, keep=["kind"])
        await api.call("DELETE", api.path("configmaps", "a"), quiet=encoding != "x", keep=["kind"])
    packed = _gzip(b" " * (_LIMIT + 1))
    for content in (packed, packed[:50], _gzip(body)):
        await api.call("POST", api.path("configmaps"), content, headers={"content-encoding": "gzip"}, keep=["kind"])
    for kind in (
        "application/json; charset=utf-16",
        "application/json;",
        ";",
        "APPLICATION/JSON",
        "text/plain",
        "a/b;c",
    ):
        await api.call("POST", api.path("configmaps"), body, content=kind, query={"dryRun": "All"}, keep=["kind"])


@case("invalid selectors", _LOOSE)
async def _(api: Api) -> None:
    for text in (
        "(" * 1000,
        "!" * 1000,
        "a in (" * 100,
        "a>9223372036854775808",
        "a>1_0",
        "a>²",
        "a=b" * 50,
        "\\" * 99,
        ",,",
    ):
        await api.call("GET", api.path("configmaps"), query={"labelSelector": text}, keep=["kind"])
        await api.call("GET", api.path("configmaps"), query={"fieldSelector": text}, keep=["kind"])


@case("versions in documents that are not numbers", _LOOSE)
async def _(api: Api) -> None:
    await api.create("configmaps", _NAME, quiet=True)
    for version in ("²", "٣", "9" * 40, "-1", "18446744073709551616", "18446744073709551615", "00"):
        await api.put("configmaps", "a", {"metadata": {"name": "a", "resourceVersion": version}})
        await api.create(
            "configmaps",
            {"metadata": {"name": "b", "resourceVersion": version}},
            query={"dryRun": "All"},
            keep=["kind"],
        )


@case("warnings of members and finalizers with odd names", _LOOSE)
async def _(api: Api) -> None:
    for name in ("\0", "a\r\nb: c", "\u2028", "a.b", "[0]", '"', "\\", "\x7f"):
        await api.create("configmaps", {**_NAME, name: 1}, query={"dryRun": "All"}, keep=["kind"])
        await api.create("configmaps", {**_NAME, name: 1}, query={"dryRun": "All", "fieldValidation": "Strict"})
        await api.create("looses:Loose", {"metadata": {"name": "a", "finalizers": [name]}}, query={"dryRun": "All"})


_RANGES = definition(
    "numbers",
    "Number",
    {
        "type": "object",
        "properties": {
            "i": {"type": "integer"},
            "i32": {"type": "integer", "format": "int32"},
            "i64": {"type": "integer", "format": "int64"},
            "n": {"type": "number"},
            "f": {"type": "number", "format": "float"},
            "items": {"type": "array", "items": {"type": "integer"}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        },
    },
)
_LARGE = (
    b"9223372036854775808",
    b"-9223372036854775809",
    b"9223372036854775807",
    b"1" + 30 * b"0",
    b"3000000000",
    b"1e39",
)


@case("numbers beyond their types in custom objects", _RANGES)
async def _(api: Api) -> None:
    for key in (b"i", b"i32", b"i64", b"n", b"f", b"items", b"free"):
        for number in _LARGE if key.startswith(b"i") else _LARGE[2:]:
            value = {b"items": b"[%b]", b"free": b'{"a":[%b]}'}.get(key, b"%b") % number
            head = b'{"apiVersion":"conformance.reconciler.dev/v1","kind":"Number","metadata":{"name":"a"},'
            body = head + b'"spec":{"%b":%b}}'
            await api.call("POST", api.path("numbers:Number"), body % (key, value), query={"dryRun": "All"})


@case("numbers beyond their types in built-in objects")
async def _(api: Api) -> None:
    body = b'{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"a"},"spec":{"%b":%b}}'
    for number in _LARGE[:-1]:
        for key in (b"replicas", b"minReadySeconds"):
            await api.call("POST", api.path("deployments"), body % (key, number), query={"dryRun": "All"})


@case("numbers beyond their types in a schema")
async def _(api: Api) -> None:
    large, path = "1" + 30 * "0", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    for kind, members in (
        ("integer", {"default": large}),
        ("integer", {"default": "9223372036854775808"}),
        ("integer", {"default": "9223372036854775807"}),
        ("integer", {"default": "-1e30"}),
        ("integer", {"format": '"int32"', "default": "3000000000"}),
        ("integer", {"format": '"int64"', "default": large}),
        ("integer", {"maximum": large, "minimum": f"-{large}"}),
        ("integer", {"multipleOf": large}),
        ("integer", {"enum": f"[{large}]"}),
        ("number", {"default": large}),
        ("number", {"format": '"float"', "default": "1e39"}),
        ("number", {"format": '"int32"', "default": "3000000000"}),
        ("string", {"maxLength": large}),
        ("string", {"minLength": "-9223372036854775809"}),
        ("array", {"items": '{"type":"integer"}', "maxItems": "9223372036854775808"}),
        ("array", {"items": '{"type":"integer"}', "default": f"[{large}]"}),
        ("object", {"properties": '{"b":{"type":"integer"}}', "default": f'{{"b":{large}}}'}),
        ("object", {"maxProperties": large}),
    ):
        member = ",".join([f'"type":"{kind}"', *(f'"{key}":{value}' for key, value in members.items())])
        template = json.dumps(definition("larges", "Large", {"type": "object", "properties": {"a": "MEMBER"}}))
        body = template.replace('"MEMBER"', f"{{{member}}}").encode()
        await api.call("POST", path, body, query={"dryRun": "All"}, keep=["kind"])
