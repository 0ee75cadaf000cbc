"""Defaulting, pruning and validation of custom objects by their schema."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.apiserver import APIServer
from tests.apiserver.api import DEFINITIONS, WIDGETS, Api, definition, widget

pytestmark = pytest.mark.virtual_time


async def test_defaults_are_filled_in_where_the_parent_exists(api: Api) -> None:
    made = await api.post(WIDGETS, widget("a", nest={}, items=[{"k": "x"}]))
    assert made["spec"] == {"size": 3, "nest": {"a": "x"}, "items": [{"k": "x", "v": 7}]}
    bare = await api.post(WIDGETS, {**widget("b"), "spec": {}})
    assert bare["spec"] == {"size": 3}
    none = await api.post(WIDGETS, {key: value for key, value in widget("c").items() if key != "spec"})
    assert "spec" not in none.body


async def test_unknown_fields_are_pruned_except_below_preserve_unknown_fields(api: Api) -> None:
    body = {**widget("a", foo=1, nest={"b": 1}, items=[{"k": "x", "z": 1}], any={"x": {"y": 1}}), "extra": 1}
    body["metadata"]["bar"] = 1
    made = await api.post(WIDGETS, body)
    assert made["spec"] == {"size": 3, "nest": {"a": "x"}, "items": [{"k": "x", "v": 7}], "any": {"x": {"y": 1}}}
    assert "extra" not in made.body
    assert made.warnings == [
        f'299 - "unknown field \\"{path}\\""'
        for path in ("metadata.bar", "extra", "spec.foo", "spec.items[0].z", "spec.nest.b")
    ]


async def test_strict_validation_rejects_unknown_fields(api: Api) -> None:
    refused = await api.post(WIDGETS, widget("a", foo=1, nest={"b": 1}), fieldValidation="Strict")
    assert refused.status == 400
    assert refused["message"] == (
        'Widget in version "v1" cannot be handled as a Widget: strict decoding error: '
        'unknown field "spec.foo", unknown field "spec.nest.b"'
    )
    await api.make("a")
    patched = await api.patch(f"{WIDGETS}/a", {"spec": {"foo": 1}}, fieldValidation="Strict")
    assert patched.status == 422
    assert patched["message"].startswith(' "" is invalid: patch: Invalid value: "{')
    assert patched["message"].endswith('strict decoding error: unknown field "spec.foo"')
    silent = await api.post(WIDGETS, widget("b", foo=1), fieldValidation="Ignore")
    assert (silent.status, silent.warnings) == (201, [])


async def test_a_duplicate_key_causes_a_warning_or_an_error(api: Api) -> None:
    body = b'{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"a"},"spec":{"size":1,"size":2}}'
    refused = await api.post(WIDGETS, body, fieldValidation="Strict")
    assert refused["message"].endswith('strict decoding error: duplicate field "spec.size"')
    made = await api.post(WIDGETS, body)
    assert made["spec"] == {"size": 2}
    assert made.warnings == ['299 - "duplicate field \\"spec.size\\""']


async def test_null_is_dropped_where_it_is_not_nullable(api: Api) -> None:
    made = await api.post(WIDGETS, widget("a", size=None, color=None, note=None, map={"x": None, "y": 1}, nest=None))
    assert made["spec"] == {"size": 3, "note": None, "map": {"y": 1}}
    kept = await api.post(WIDGETS, widget("b", any={"x": None, "y": [{"z": None}]}))
    assert kept["spec"]["any"] == {"x": None, "y": [{"z": None}]}


_WRONG: list[tuple[dict[str, Any], list[tuple[str, str]]]] = [
    ({"size": "x"}, [("spec.size", 'Invalid value: "string": spec.size in body must be of type integer: "string"')]),
    ({"size": True}, [("spec.size", 'Invalid value: "boolean": spec.size in body must be of type integer: "boolean"')]),
    (
        {"size": 1.5},
        [
            ("<nil>", 'Invalid value: "": Checked value must be of type integer (default format) in spec.size'),
            ("spec.size", 'Invalid value: "number": spec.size in body must be of type integer: "number"'),
        ],
    ),
    ({"size": 0}, [("spec.size", "Invalid value: 0: spec.size in body should be greater than or equal to 1")]),
    ({"size": 11}, [("spec.size", "Invalid value: 11: spec.size in body should be less than or equal to 10")]),
    ({"color": "green"}, [("spec.color", 'Unsupported value: "green": supported values: "red", "blue"')]),
    ({"code": "A"}, [("spec.code", 'Invalid value: "A": spec.code in body should be at least 2 chars long')]),
    ({"code": "ABC"}, [("spec.code", "Invalid value: \"ABC\": spec.code in body should match '^[a-z]+$'")]),
    ({"code": "abcdef"}, [("spec.code", "Too long: may not be more than 5 bytes")]),
    ({"when": "soon"}, [("spec.when", 'Invalid value: "soon": spec.when in body must be of type date-time: "soon"')]),
    (
        {"small": 2**31},
        [("<nil>", 'Invalid value: "": Checked value must be of type integer with format int32 in spec.small')],
    ),
    ({"tags": ["a", "b", "a"]}, [("spec.tags[2]", 'Duplicate value: "a"')]),
    ({"items": [{"k": "a"}, {"k": "a"}]}, [("spec.items[1]", 'Duplicate value: {"k":"a"}')]),
    ({"items": [{"v": 1}]}, [("spec.items[0].k", "Required value")]),
    ({"items": [{"k": str(i)} for i in range(4)]}, [("spec.items", "Too many: 4: must have at most 3 items")]),
    (
        {"items": [None]},
        [("spec.items[0]", 'Invalid value: "null": spec.items[0] in body must be of type object: "null"')],
    ),
    (
        {"map": {"a": "x"}},
        [("spec.map.a", 'Invalid value: "string": spec.map.a in body must be of type integer: "string"')],
    ),
    (
        {"port": 1.5},
        [("spec.port", 'Invalid value: "number": spec.port in body must be of type integer,string: "number"')],
    ),
    (
        {"size": "x", "color": "green"},
        [
            ("spec.color", 'Unsupported value: "green": supported values: "red", "blue"'),
            ("spec.size", 'Invalid value: "string": spec.size in body must be of type integer: "string"'),
        ],
    ),
]


@pytest.mark.parametrize(("spec", "causes"), _WRONG, ids=[str(case[0])[:30] for case in _WRONG])
async def test_an_invalid_value_is_reported(api: Api, spec: dict[str, Any], causes: list[tuple[str, str]]) -> None:
    reply = await api.post(WIDGETS, widget("a", **spec))
    assert (reply.status, reply["reason"]) == (422, "Invalid")
    assert reply.causes == causes
    assert reply["details"]["kind"] == "Widget"
    assert (await api.get(f"{WIDGETS}/a")).status == 404


@pytest.mark.parametrize(
    ("form", "good", "bad"),
    [
        ("date-time", ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00.5+01:00"], ["2026-01-01", "2026-13-01T00:00:00Z"]),
        ("date", ["2026-02-29"], ["2026-02-30", "x"]),
        ("duration", ["1h", "1.5s", "3 days"], ["x", ""]),
        ("email", ["a@b.c"], ["ab"]),
        ("uri", ["http://x/y", "/x"], ["x y"]),
        ("ipv4", ["1.2.3.4"], ["::1", "1.2.3"]),
        ("ipv6", ["::1"], ["1.2.3.4"]),
        ("cidr", ["10.0.0.0/8"], ["10.0.0.0"]),
        ("mac", ["00:11:22:33:44:55"], ["00:11"]),
        ("uuid", ["11111111-2222-4333-8444-555555555555"], ["1"]),
        ("uuid4", ["11111111-2222-4333-8444-555555555555"], ["11111111-2222-3333-8444-555555555555"]),
        ("byte", ["aGk="], ["???"]),
        ("hostname", ["a.b-c.de"], ["-a", "a_b"]),
        ("hexcolor", ["#fff"], ["#ff"]),
        ("rgbcolor", ["rgb(1,2,3)"], ["rgb(1,2,300)"]),
        ("isbn", ["0-306-40615-2", "978-3-16-148410-0"], ["1"]),
        ("creditcard", ["4111111111111111"], ["4111111111111112"]),
        ("anything", ["x", ""], []),
    ],
)
async def test_a_format(form: str, good: list[str], bad: list[str]) -> None:
    async with APIServer() as server:
        await server.apply(definition(spec={"type": "object", "properties": {"x": {"type": "string", "format": form}}}))
        api = Api(server)
        for index, text in enumerate(good):
            assert (await api.post(WIDGETS, widget(f"g{index}", x=text))).status == 201, text
        for text in bad:
            assert (await api.post(WIDGETS, widget("bad", x=text))).status == 422, text


@pytest.mark.parametrize(
    ("schema", "value", "says"),
    [
        (
            {"oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
            {},
            "must validate one and only one schema (oneOf). Found none valid",
        ),
        (
            {"oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
            {"a": "1", "b": "1"},
            "(oneOf). Found 2 valid alternatives",
        ),
        ({"anyOf": [{"required": ["a"]}, {"required": ["b"]}]}, {}, "must validate at least one schema (anyOf)"),
        ({"not": {"required": ["a"]}}, {"a": "1"}, "must not validate the schema (not)"),
        ({"minProperties": 1}, {}, "should have at least 1 properties"),
        ({"maxProperties": 1}, {"a": "1", "b": "1"}, "Too many: 2: must have at most 1 item"),
    ],
)
async def test_conditions_on_whole_objects(schema: dict[str, Any], value: dict[str, str], says: str) -> None:
    properties = {"a": {"type": "string"}, "b": {"type": "string"}}
    spec = {"type": "object", "properties": {"x": {"type": "object", "properties": properties, **schema}}}
    async with APIServer() as server:
        await server.apply(definition(spec=spec))
        reply = await Api(server).post(WIDGETS, widget("a", x=value))
        assert reply.status == 422
        assert says in reply["message"]


async def test_status_is_validated_alone_and_without_its_name(api: Api) -> None:
    await api.make("a")
    reply = await api.patch(f"{WIDGETS}/a/status", {"status": {"phase": 1}})
    assert reply.causes == [
        ("status.phase", 'Invalid value: "integer": phase in body must be of type string: "integer"')
    ]


async def test_an_update_ignores_errors_in_unchanged_values(server: APIServer, api: Api) -> None:
    await api.post(WIDGETS, widget("a", size=9, tags=["x"], items=[{"k": "a", "v": 50}]))
    tight = definition()
    spec = tight["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    narrow = {**spec["properties"]["items"]["items"]["properties"], "v": {"type": "integer", "maximum": 20}}
    items = {**spec["properties"]["items"]["items"], "properties": narrow}
    size = {**spec["properties"]["size"], "maximum": 5}
    properties = {**spec["properties"], "size": size, "items": {**spec["properties"]["items"], "items": items}}
    await server.apply(definition(spec={**spec, "properties": properties}))
    assert (await api.patch(f"{WIDGETS}/a", {"spec": {"tags": ["y"]}})).status == 200
    assert (
        await api.patch(f"{WIDGETS}/a", {"spec": {"items": [{"k": "b", "v": 1}, {"k": "a", "v": 50}]}})
    ).status == 200
    assert (await api.patch(f"{WIDGETS}/a", {"spec": {"size": 8}})).status == 422
    assert (await api.patch(f"{WIDGETS}/a", {"spec": {"items": [{"k": "a", "v": 51}]}})).status == 422


async def test_a_changed_schema_applies_to_stored_objects(server: APIServer, api: Api) -> None:
    (made,) = await api.make("a")
    spec = {"type": "object", "properties": {"color": {"type": "string", "default": "red"}}}
    await server.apply(definition(spec=spec))
    found = await api.get(f"{WIDGETS}/a")
    assert found["spec"] == {"color": "red"}
    assert found.version == made.version


async def test_embedded_objects_keep_only_known_metadata(server: APIServer) -> None:
    embedded = {
        "type": "object",
        "x-kubernetes-embedded-resource": True,
        "properties": {"data": {"type": "string"}},
    }
    async with APIServer() as own:
        await own.apply(definition(spec={"type": "object", "properties": {"inner": embedded}}))
        api = Api(own)
        inner = {"apiVersion": "v1", "kind": "X", "metadata": {"name": "n", "bad": 1}, "data": "d", "more": 1}
        made = await api.post(WIDGETS, widget("a", inner=inner))
        assert made["spec"]["inner"] == {"apiVersion": "v1", "kind": "X", "metadata": {"name": "n"}, "data": "d"}
        missing = await api.post(WIDGETS, widget("b", inner={"data": "d"}))
        assert [field for field, _ in missing.causes] == ["spec.inner.apiVersion", "spec.inner.kind"]


async def test_an_object_is_served_in_several_versions(server: APIServer, api: Api) -> None:
    gadget = definition("Gadget")
    (version,) = gadget["spec"]["versions"]
    gadget["spec"]["versions"] = [
        {**version, "name": "v1beta1", "storage": False, "deprecated": True},
        {**version, "name": "v1"},
        {**version, "name": "v2", "storage": False, "served": False},
    ]
    await server.apply(gadget)
    old, new = (f"/apis/example.com/{name}/namespaces/default/gadgets" for name in ("v1beta1", "v1"))
    made = await api.post(old, {**widget("a", kind="Gadget"), "apiVersion": "example.com/v1beta1"})
    assert made["apiVersion"] == "example.com/v1beta1"
    assert made.warnings == ['299 - "example.com/v1beta1 Gadget is deprecated"']
    found = await api.get(f"{new}/a")
    assert (found["apiVersion"], found["metadata"]["uid"]) == ("example.com/v1", made["metadata"]["uid"])
    assert (await api.get("/apis/example.com/v2/namespaces/default/gadgets")).status == 404
    group = await api.get("/apis/example.com")
    assert [entry["version"] for entry in group["versions"]] == ["v1", "v1beta1"]
    stream = await api.watch(old)
    assert (await stream.next())["object"]["apiVersion"] == "example.com/v1beta1"


async def test_a_definition_is_established_at_once(api: Api) -> None:
    made = await api.post(DEFINITIONS, definition("Gadget"))
    assert made["status"] == {"acceptedNames": {"kind": "", "plural": ""}, "conditions": None, "storedVersions": ["v1"]}
    found = await api.get(f"{DEFINITIONS}/gadgets.example.com")
    assert [(one["type"], one["status"]) for one in found["status"]["conditions"]] == [
        ("NamesAccepted", "True"),
        ("Established", "True"),
    ]
    assert found["status"]["acceptedNames"] == found["spec"]["names"]
    assert found["spec"]["names"] == {
        "plural": "gadgets",
        "kind": "Gadget",
        "singular": "gadget",
        "listKind": "GadgetList",
    }


async def test_scale_is_served_as_a_scale_object(server: APIServer, api: Api) -> None:
    scale = {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}
    await server.apply(definition("Gadget", subresources={"status": {}, "scale": scale}))
    path = "/apis/example.com/v1/namespaces/default/gadgets"
    await api.post(path, widget("a", kind="Gadget", replicas=2))
    found = await api.get(f"{path}/a/scale")
    assert (found["kind"], found["spec"], found["status"]) == ("Scale", {"replicas": 2}, {"replicas": 0})
    patched = await api.patch(f"{path}/a/scale", {"spec": {"replicas": 5}})
    assert patched["spec"] == {"replicas": 5}
    whole = await api.get(f"{path}/a")
    assert (whole["spec"]["replicas"], whole["metadata"]["generation"]) == (5, 2)
    stale = {**found.body, "spec": {"replicas": 7}}
    assert (await api.put(f"{path}/a/scale", stale)).status == 409
