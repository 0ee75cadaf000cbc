"""Field validation: unknown and duplicate fields, by kind of request (14)."""

from __future__ import annotations

from typing import Any

from tests.conformance.api import APPLY, GROUP, JSON, JSON_PATCH, MERGE, Api, kind_of
from tests.conformance.cases._case import case, table, widget

_LEVELS = ("Strict", "Warn", "Ignore")


def _text(plural: str, spec: str, name: str = "a") -> bytes:
    head = kind_of(plural)
    return (
        f'{{"apiVersion":"{head["apiVersion"]}","kind":"{head["kind"]}","metadata":{{"name":"{name}"}},{spec}}}'
    ).encode()


async def _created(api: Api, plural: str, spec: str) -> None:
    for level in _LEVELS:
        body = _text(plural, spec, level.lower())
        await api.call("POST", api.path(plural), body, query={"fieldValidation": level})


table(
    [
        ("an unknown field of a custom object", "widgets", '"spec":{"size":1,"bogus":1}'),
        ("an unknown field at the top of a custom object", "widgets", '"spec":{"size":1},"bogus":1'),
        (
            "unknown fields in depth",
            "widgets",
            '"spec":{"size":1,"nested":{"x":1},"ports":[{"name":"p","y":1}],"plain":[{"z":1}]}',
        ),
        ("a duplicate field of a custom object", "widgets", '"spec":{"size":1,"size":2}'),
        ("duplicate and unknown fields together", "widgets", '"spec":{"size":1,"size":2,"b":1,"a":2}'),
        ("a duplicate object", "widgets", '"spec":{"size":1},"spec":{"size":2}'),
        ("a duplicate field below preserve-unknown-fields", "widgets", '"spec":{"size":1,"free":{"x":1,"x":2}}'),
        ("a duplicate key of a map", "widgets", '"spec":{"size":1,"labels":{"x":"1","x":"2"}}'),
        ("an unknown field of a config map", "configmaps", '"data":{"x":"1"},"bogus":1'),
        ("a duplicate key of a config map", "configmaps", '"data":{"x":"1","x":"2"}'),
        ("a duplicate member of a config map", "configmaps", '"immutable":false,"immutable":true'),
        ("an unknown field of a lease", "leases", '"spec":{"holderIdentity":"x","bogus":1}'),
        ("a field in the wrong case", "leases", '"spec":{"HolderIdentity":"x"}'),
        ("unknown fields of a pod", "pods", '"spec":{"containers":[{"name":"a","image":"b","foo":1}],"bar":2}'),
        ("an unknown member of an owner reference", "configmaps", '"data":{}'),
    ],
)(_created)


@case("unknown members of metadata")
async def _(api: Api) -> None:
    for plural in ("widgets", "configmaps"):
        for level in _LEVELS:
            metadata: dict[str, Any] = {"name": level.lower(), "bogus": 1, "labels": {"a": "b"}}
            body = {"metadata": metadata, **({"spec": {"size": 1}} if plural == "widgets" else {})}
            await api.create(plural, body, query={"fieldValidation": level})


@case("unknown fields in a merge patch")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    await api.create("configmaps", {"metadata": {"name": "a"}}, quiet=True)
    for level in _LEVELS:
        query = {"fieldValidation": level}
        await api.patch("widgets", "a", {"spec": {"bogus": 1}, "other": 2}, query=query)
        await api.patch("configmaps", "a", {"bogus": 1}, query=query)


@case("unknown fields in a JSON patch")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    await api.create("configmaps", {"metadata": {"name": "a"}}, quiet=True)
    patch = [{"op": "add", "path": "/bogus", "value": 1}]
    for level in _LEVELS:
        query = {"fieldValidation": level}
        await api.patch("widgets", "a", patch, content=JSON_PATCH, query=query)
        await api.patch("configmaps", "a", patch, content=JSON_PATCH, query=query)


@case("duplicate fields in a merge patch")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a"), quiet=True)
    for level in _LEVELS:
        body = b'{"spec":{"size":2,"size":3}}'
        await api.call("PATCH", api.path("widgets", "a"), body, content=MERGE, query={"fieldValidation": level})


@case("duplicate and unknown fields in an apply")
async def _(api: Api) -> None:
    body = f"apiVersion: {GROUP}/v1\nkind: Widget\nmetadata: {{name: a}}\nspec: {{size: 1, low: 1, low: 2}}\n".encode()
    for level in _LEVELS:
        query = {"fieldValidation": level, "fieldManager": "one"}
        await api.call("PATCH", api.path("widgets", "a"), body, content=APPLY, query=query)
        await api.apply("widgets", "b", {"metadata": {"name": "b"}, "spec": {"size": 1, "bogus": 1}}, query=query)


@case("unknown fields in a PUT, and in one of status")
async def _(api: Api) -> None:
    made = await api.create("widgets", widget("a"), quiet=True)
    made["spec"]["bogus"], made["status"] = 1, {"bogus": 1, "phase": "X"}
    for level in _LEVELS:
        await api.put("widgets", "a", made, query={"fieldValidation": level}, keep=["spec", "status"])
        await api.put(
            "widgets", "a", made, "status", query={"fieldValidation": level, "dryRun": "All"}, keep=["status"]
        )


@case("field validation has three levels; the default is Warn")
async def _(api: Api) -> None:
    await api.create("widgets", widget("a", bogus=1), query={"fieldValidation": "Loose"})
    await api.create("widgets", widget("a", bogus=1))


@case("YAML bodies, with unknown and duplicate fields")
async def _(api: Api) -> None:
    for level in _LEVELS:
        text = (
            f"apiVersion: {GROUP}/v1\nkind: Widget\nmetadata: {{name: {level.lower()}}}\nspec:\n  size: 1\n  bogus: 2\n"
        )
        query = {"fieldValidation": level}
        await api.call("POST", api.path("widgets"), text.encode(), content="application/yaml", query=query)
        text = f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {level.lower()}}}\ndata:\n  x: '1'\n  x: '2'\n"
        await api.call("POST", api.path("configmaps"), text.encode(), content="application/yaml", query=query)


table(
    [
        ("a body that is an array", b"[]"),
        ("a body that is a string", b'"x"'),
        ("a body that is empty", b""),
        (
            "a body without kind",
            b'{"apiVersion":"conformance.reconciler.dev/v1","metadata":{"name":"a"},"spec":{"size":1}}',
        ),
        ("a body without apiVersion", b'{"kind":"Widget","metadata":{"name":"a"},"spec":{"size":1}}'),
        ("a body with trailing text", b'{"apiVersion":"conformance.reconciler.dev/v1","kind":"Widget"} x'),
        ("metadata that is a string", b'{"apiVersion":"conformance.reconciler.dev/v1","kind":"Widget","metadata":"x"}'),
        (
            "metadata that is missing",
            b'{"apiVersion":"conformance.reconciler.dev/v1","kind":"Widget","spec":{"size":1}}',
        ),
        (
            "labels that are a list",
            b'{"apiVersion":"conformance.reconciler.dev/v1","kind":"Widget","metadata":{"name":"a","labels":[]},"spec":{"size":1}}',
        ),
        (
            "a label that is a number",
            b'{"apiVersion":"conformance.reconciler.dev/v1","kind":"Widget","metadata":{"name":"a","labels":{"x":1}},"spec":{"size":1}}',
        ),
        (
            "a name that is a number",
            b'{"apiVersion":"conformance.reconciler.dev/v1","kind":"Widget","metadata":{"name":1},"spec":{"size":1}}',
        ),
        (
            "a spec that is a string",
            b'{"apiVersion":"conformance.reconciler.dev/v1","kind":"Widget","metadata":{"name":"a"},"spec":"x"}',
        ),
        (
            "a spec that is null",
            b'{"apiVersion":"conformance.reconciler.dev/v1","kind":"Widget","metadata":{"name":"a"},"spec":null}',
        ),
    ],
)(lambda api, body: api.call("POST", api.path("widgets"), body, content=JSON))


table(
    [
        ("config map data that is a number", "configmaps", {"data": {"x": 1}}),
        ("config map data that is a list", "configmaps", {"data": ["x"]}),
        ("a key of a config map", "configmaps", {"data": {"bad key": "1"}}),
        ("a key in data and binaryData", "configmaps", {"data": {"x": "1"}, "binaryData": {"x": "MQ=="}}),
        ("secret data that is not base64", "secrets", {"data": {"x": "not base64!"}}),
        ("secret data with line breaks and spare bits", "secrets", {"data": {"x": "YWJj\nYWK=\r\n", "y": "YWJj\n"}}),
        ("secret data with a line break and a blank", "secrets", {"data": {"x": "YWJj\nYW J"}}),
        ("secret data that is a number", "secrets", {"data": {"x": 1}}),
        ("a lease with a bad duration", "leases", {"spec": {"leaseDurationSeconds": 0}}),
        ("a lease with a duration that is a string", "leases", {"spec": {"leaseDurationSeconds": "15"}}),
        ("a lease with a broken time", "leases", {"spec": {"renewTime": "yesterday"}}),
        ("a lease with a time in whole seconds", "leases", {"spec": {"renewTime": "2026-01-01T00:00:00Z"}}),
        ("an integer out of range", "leases", {"spec": {"leaseTransitions": 3000000000}}),
        ("an integer with a fraction", "leases", {"spec": {"leaseTransitions": 1.5}}),
    ],
)(lambda api, plural, body: api.create(plural, {"metadata": {"name": "a"}, **body}))


@case("unknown and duplicate fields of a built-in kind, in the order of the document")
async def _(api: Api) -> None:
    container = '{"name":"a","name":"a","image":"x","bogus":1}'
    await _created(
        api,
        "deployments",
        '"bogus":1,"spec":{"bogus":1,"replicas":1,"replicas":2,"selector":{"matchLabels":{"a":"b"}},"template":'
        f'{{"metadata":{{"labels":{{"a":"b","a":"b"}}}},"more":1,"spec":{{"containers":[{container}]}}}}}},"last":1',
    )
    await _created(api, "configmaps", '"bogus":1,"data":{"x":"1","y":"1","x":"2"},"immutable":false,"immutable":false')
