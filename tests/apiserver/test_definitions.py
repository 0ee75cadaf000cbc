"""Invalid CustomResourceDefinitions and the error messages of the real server."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from reconciler.apiserver import APIServer
from tests.apiserver.api import DEFINITIONS, WIDGETS, Api, Reply, definition, widget

pytestmark = pytest.mark.virtual_time

HERE = "spec.validation.openAPIV3Schema.properties[spec].properties[a]"
_ITEM = {"type": "object", "properties": {"k": {"type": "string"}}}

_SCHEMAS: list[tuple[str, dict[str, Any], str]] = [
    ("no type", {}, f"{HERE}.type: Required value: must not be empty for specified object fields"),
    ("no items", {"type": "array"}, f"{HERE}.items: Required value: must be specified"),
    ("reference", {"$ref": "#/x"}, f"{HERE}.$ref: Forbidden: $ref is not supported"),
    (
        "unique",
        {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
        "uniqueItems: Forbidden: uniqueItems cannot",
    ),
    (
        "both",
        {"type": "object", "additionalProperties": {"type": "string"}, "properties": {"x": {"type": "string"}}},
        "additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
    ),
    (
        "type in anyOf",
        {"type": "string", "anyOf": [{"type": "string"}]},
        f"{HERE}.anyOf[0].type: Forbidden: must be empty to",
    ),
    ("other type", {"type": "foo"}, f'{HERE}.type: Unsupported value: "foo": supported values: "array", "boolean"'),
    (
        "default",
        {"type": "integer", "default": "x"},
        f'{HERE}.default: Invalid value: "string":  in body must be of type integer',
    ),
    (
        "default not pruned",
        {"type": "object", "properties": {"x": {"type": "string"}}, "default": {"y": 1}},
        f'{HERE}.default: Invalid value: {{"y":1}}: must not have unknown fields',
    ),
    (
        "default without the defaults inside",
        {"type": "object", "default": {}, "required": ["x"], "properties": {"x": {"type": "integer", "default": 1}}},
        f"{HERE}.default.x: Required value",
    ),
    (
        "rule on a default without the defaults inside",
        {
            "type": "object",
            "default": {},
            "properties": {"x": {"type": "integer", "default": 1}},
            "x-kubernetes-validations": [{"rule": "has(self.x)"}],
        },
        f"{HERE}.default: Invalid value: failed rule: has(self.x)",
    ),
    (
        "map type of a list",
        {"type": "array", "items": {"type": "string"}, "x-kubernetes-map-type": "atomic"},
        f'{HERE}.type: Invalid value: "array": must be object if x-kubernetes-map-type is specified',
    ),
    (
        "preserve",
        {"type": "object", "x-kubernetes-preserve-unknown-fields": False},
        "Invalid value: false: must be true or undefined",
    ),
    (
        "pattern",
        {"type": "string", "pattern": "("},
        "must be a valid regular expression, but isn't: error parsing regexp: missing closing )",
    ),
    (
        "list type",
        {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "x"},
        'Unsupported value: "x": supported values: "atomic"',
    ),
    (
        "no keys",
        {"type": "array", "items": _ITEM, "x-kubernetes-list-type": "map"},
        "x-kubernetes-list-map-keys: Required value: must not be empty",
    ),
    (
        "optional key",
        {"type": "array", "items": _ITEM, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]},
        "so it must have a default or be a required property",
    ),
    (
        "set of objects",
        {"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "set"},
        "must be atomic as item of a list",
    ),
    (
        "embedded",
        {"type": "object", "x-kubernetes-embedded-resource": True},
        "must not be empty if x-kubernetes-embedded-resource is true",
    ),
    (
        "two types",
        {"type": ["string", "null"]},
        "json: cannot unmarshal array into Go struct field JSONSchemaProps.spec.versions.schema",
    ),
    ("number", {"type": "integer", "exclusiveMinimum": 5}, "properties.properties.exclusiveMinimum of type bool"),
]


@pytest.mark.parametrize(("schema", "says"), [case[1:] for case in _SCHEMAS], ids=[case[0] for case in _SCHEMAS])
async def test_a_schema_that_is_not_structural_is_rejected(api: Api, schema: dict[str, Any], says: str) -> None:
    spec = {"type": "object", "properties": {"a": schema}}
    reply = await api.post(DEFINITIONS, definition("Gadget", spec=spec))
    assert reply.status in (400, 422)
    assert says in reply["message"]
    assert (await api.get("/apis/example.com/v1/gadgets")).status == 404


def changed(**changes: Any) -> dict[str, Any]:
    gadget = definition("Gadget")
    gadget["spec"].update(changes)
    return gadget


_SPECS: list[tuple[str, dict[str, Any], str]] = [
    ("name", {**definition("Gadget"), "metadata": {"name": "foo"}}, 'must be spec.names.plural+"."+spec.group'),
    ("scope", changed(scope="Foo"), 'spec.scope: Unsupported value: "Foo": supported values: "Cluster", "Namespaced"'),
    ("group", changed(group="X"), 'spec.group: Invalid value: "X": a lowercase RFC 1123 subdomain'),
    ("protected", changed(group="foo.k8s.io"), "protected groups must have approval annotation"),
    ("versions", changed(versions=[]), "must have exactly one version marked as storage version"),
    (
        "unknown fields",
        changed(preserveUnknownFields=True),
        "spec.preserveUnknownFields: Invalid value: true: cannot set to true",
    ),
    ("webhook", changed(conversion={"strategy": "Webhook"}), "required when strategy is set to Webhook"),
    (
        "schema",
        definition("Gadget", schema={"properties": {"spec": {"type": "object"}}}),
        "must not be empty at the root",
    ),
    (
        "metadata",
        definition(
            "Gadget",
            schema={
                "type": "object",
                "properties": {"metadata": {"type": "object", "properties": {"x": {"type": "string"}}}},
            },
        ),
        "must not specify anything other than name and generateName",
    ),
    *(
        (
            f"{name} as {wrong}",
            definition("Gadget", schema={"type": "object", "properties": {name: {"type": wrong}}}),
            f'properties[{name}].type: Invalid value: "{wrong}": must be {right}',
        )
        for name, wrong, right in (
            ("apiVersion", "object", "string"),
            ("kind", "integer", "string"),
            ("metadata", "string", "object"),
        )
    ),
    (
        "kind of an embedded object",
        definition(
            "Gadget",
            schema={
                "type": "object",
                "properties": {
                    "a": {
                        "type": "object",
                        "x-kubernetes-embedded-resource": True,
                        "x-kubernetes-preserve-unknown-fields": True,
                        "properties": {"kind": {"type": "integer"}},
                    }
                },
            },
        ),
        'properties[a].properties[kind].type: Invalid value: "integer": must be string',
    ),
    (
        "map at the root",
        definition("Gadget", schema={"type": "object", "additionalProperties": {"type": "string"}}),
        "additionalProperties: Forbidden: must not be used at the root",
    ),
    (
        "null as a schema",
        definition("Gadget", schema={"type": "object", "properties": {"a": None}}),
        "properties[a].type: Required value: must not be empty for specified object fields",
    ),
    (
        "column",
        definition("Gadget", additionalPrinterColumns=[{"name": "A", "type": "x", "jsonPath": "spec"}]),
        "must be one of boolean,date,integer,number,string",
    ),
    (
        "selectable",
        definition("Gadget", selectableFields=[{"jsonPath": ".spec.zz"}]),
        "is an invalid path: does not refer to a valid field",
    ),
    (
        "scale",
        definition("Gadget", subresources={"scale": {"specReplicasPath": "x", "statusReplicasPath": ".spec"}}),
        "must be a simple json path starting with .",
    ),
]


@pytest.mark.parametrize(("body", "says"), [case[1:] for case in _SPECS], ids=[case[0] for case in _SPECS])
async def test_an_invalid_definition_is_rejected(api: Api, body: dict[str, Any], says: str) -> None:
    reply = await api.post(DEFINITIONS, body)
    assert reply.status == 422
    assert says in reply["message"]


async def test_immutable_fields_of_a_definition(server: APIServer, api: Api) -> None:
    place = f"{DEFINITIONS}/widgets.example.com"
    scope = await api.patch(place, {"spec": {"scope": "Cluster"}})
    assert scope.causes == [("spec.scope", 'Invalid value: "Cluster": field is immutable')]
    kind = await api.patch(place, {"spec": {"names": {"kind": "Gizmo"}}})
    assert ("spec.names.kind", 'Invalid value: "Gizmo": field is immutable') in kind.causes


async def test_unknown_keywords_and_formats_cause_warnings(api: Api) -> None:
    spec = {"type": "object", "properties": {"a": {"type": "string", "format": "odd", "foo": 1}}}
    reply = await api.post(DEFINITIONS, definition("Gadget", spec=spec))
    place = "spec.versions[0].schema.openAPIV3Schema.properties.spec.properties.a.foo"
    assert reply.warnings == [f'299 - "unknown field \\"{place}\\""', '299 - "unrecognized format \\"odd\\""']


async def test_a_changed_definition_is_served_at_once(server: APIServer, api: Api) -> None:
    place = f"{DEFINITIONS}/widgets.example.com"
    before = await api.get(place)
    spec = {"type": "object", "properties": {"other": {"type": "string"}}}
    await server.apply(definition(spec=spec))
    after = await api.get(place)
    assert after["metadata"]["generation"] == before["metadata"]["generation"] + 1
    made = await api.post(
        "/apis/example.com/v1/namespaces/default/widgets",
        {
            "apiVersion": "example.com/v1",
            "kind": "Widget",
            "metadata": {"name": "a"},
            "spec": {"other": "x", "size": 1},
        },
    )
    assert made["spec"] == {"other": "x"}


async def test_a_definition_that_was_refused_is_refused_again(api: Api) -> None:
    body = definition("Gadget", spec={"type": "object", "properties": {"a": {"type": "integer", "default": "x"}}})
    message = 'Invalid value: "string":  in body must be of type integer: "string"'
    refused = await api.post(DEFINITIONS, body)
    assert refused.causes == [(f"{HERE}.default", message)]
    async with APIServer() as other:
        assert (await Api(other).post(DEFINITIONS, body)).causes == refused.causes
    first, second = *body["spec"]["versions"], *definition()["spec"]["versions"]
    body["spec"]["versions"] = [first, {**second, "name": "v2", "storage": False}]
    place = HERE.replace("spec.validation", "spec.versions[0].schema")
    assert (await api.post(DEFINITIONS, body)).causes == [(f"{place}.default", message)]


async def test_servers_do_not_influence_each_other() -> None:
    kind, roles = "/apis/example.com/v1", "/apis/rbac.authorization.k8s.io/v1/clusterroles"
    places = ("/apis", kind, "/apis/apps/v1", f"/openapi/v3{kind}", DEFINITIONS, WIDGETS, roles)

    async def seen(server: APIServer) -> list[Reply]:
        return [await Api(server).get(place) for place in places]

    async with APIServer(rbac=True) as one:
        fresh = one.snapshot()
        await one.apply(definition(), widget())
        documents, before = copy.deepcopy(one.objects()), await seen(one)
        async with APIServer(rbac=True, seed=1) as other:
            api = Api(other)
            await other.apply(definition(spec={"type": "object"}), widget("b"))
            await api.patch(f"{DEFINITIONS}/widgets.example.com", {"spec": {"names": {"shortNames": ["w"]}}})
            await api.patch(f"{roles}/admin", {"metadata": {"labels": {"changed": "true"}}})
            await api.patch(f"{roles}/system:basic-user", {"rules": []})
            await api.delete(f"{roles}/view")
            assert [reply != known for reply, known in zip(await seen(other), before, strict=True)] == [
                False,
                True,
                False,
                True,
                True,
                True,
                True,
            ]
            await api.delete(f"{DEFINITIONS}/widgets.example.com")
            assert (await api.get(kind)).status == 404
        assert (one.objects(), await seen(one)) == (documents, before)
    async with APIServer(rbac=True) as third:
        assert third.snapshot() == fresh
