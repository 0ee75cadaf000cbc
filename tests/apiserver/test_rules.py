"""CEL rules: the values that they see, when they are evaluated, and the errors of invalid rules."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.apiserver import APIServer
from tests.apiserver.api import DEFINITIONS, WIDGETS, Api, definition, widget

pytestmark = pytest.mark.virtual_time


def rules(*texts: str | dict[str, Any]) -> dict[str, Any]:
    return {"x-kubernetes-validations": [{"rule": text} if isinstance(text, str) else text for text in texts]}


async def serving(properties: dict[str, Any], **more: Any) -> tuple[APIServer, Api]:
    server = await APIServer().__aenter__()
    await server.apply(definition(spec={"type": "object", "properties": properties, **more}))
    return server, Api(server)


_CASES: list[tuple[str, dict[str, Any], Any, list[tuple[str, str]]]] = [
    (
        "message",
        {"type": "integer", **rules({"rule": "self > 3", "message": "must be big"})},
        3,
        [("spec.x", "Invalid value: 3: must be big")],
    ),
    (
        "no message",
        {"type": "integer", **rules("self > 3")},
        3,
        [("spec.x", "Invalid value: 3: failed rule: self > 3")],
    ),
    (
        "list",
        {"type": "array", "items": {"type": "string"}, "maxItems": 5, **rules("self.all(y, y.size() > 1)")},
        ["a"],
        [("spec.x", "Invalid value: failed rule: self.all(y, y.size() > 1)")],
    ),
    (
        "forbidden",
        {"type": "string", **rules({"rule": "self == 'a'", "reason": "FieldValueForbidden"})},
        "b",
        [("spec.x", "Forbidden: failed rule: self == 'a'")],
    ),
    (
        "duplicate",
        {"type": "string", **rules({"rule": "self == 'a'", "reason": "FieldValueDuplicate"})},
        "b",
        [("spec.x", 'Duplicate value: "b"')],
    ),
    (
        "number",
        {"type": "number", **rules("self * 2.0 < 10.0")},
        5,
        [("spec.x", "Invalid value: 5: failed rule: self * 2.0 < 10.0")],
    ),
    (
        "quantity",
        {"type": "string", **rules("quantity(self).isLessThan(quantity('1Gi'))")},
        "2Gi",
        [("spec.x", "Invalid value: \"2Gi\": failed rule: quantity(self).isLessThan(quantity('1Gi'))")],
    ),
    (
        "url",
        {"type": "string", **rules("isURL(self) && url(self).getScheme() == 'https'")},
        "http://a",
        [("spec.x", "Invalid value: \"http://a\": failed rule: isURL(self) && url(self).getScheme() == 'https'")],
    ),
    (
        "address",
        {"type": "string", **rules("isIP(self) && ip(self).family() == 4")},
        "::1",
        [("spec.x", 'Invalid value: "::1": failed rule: isIP(self) && ip(self).family() == 4')],
    ),
    (
        "sorted",
        {"type": "array", "items": {"type": "integer"}, **rules("self.isSorted()")},
        [2, 1],
        [("spec.x", "Invalid value: failed rule: self.isSorted()")],
    ),
    (
        "names",
        {
            "type": "object",
            "properties": {"if": {"type": "string"}, "x-y": {"type": "string"}},
            **rules("self.__if__ == self.x__dash__y"),
        },
        {"if": "a", "x-y": "b"},
        [("spec.x", "Invalid value: failed rule: self.__if__ == self.x__dash__y")],
    ),
    (
        "times",
        {
            "type": "object",
            "properties": {
                "a": {"type": "string", "format": "date-time"},
                "b": {"type": "string", "format": "date-time"},
            },
            **rules("self.a < self.b"),
        },
        {"a": "2026-01-01T10:00:00+02:00", "b": "2026-01-01T07:00:00Z"},
        [("spec.x", "Invalid value: failed rule: self.a < self.b")],
    ),
    (
        "duration",
        {
            "type": "object",
            "properties": {"d": {"type": "string", "format": "duration"}},
            **rules("self.d < duration('1h')"),
        },
        {"d": "90m"},
        [("spec.x", "Invalid value: failed rule: self.d < duration('1h')")],
    ),
    (
        "message expression",
        {
            "type": "object",
            "properties": {"k": {"type": "string"}},
            **rules({"rule": "self.k == 'a'", "messageExpression": "'not ' + self.k", "fieldPath": ".k"}),
        },
        {"k": "b"},
        [("spec.x.k", "Invalid value: not b")],
    ),
]


@pytest.mark.parametrize(("schema", "value", "causes"), [case[1:] for case in _CASES], ids=[case[0] for case in _CASES])
async def test_a_violated_rule_is_reported(schema: dict[str, Any], value: Any, causes: list[tuple[str, str]]) -> None:
    server, api = await serving({"x": schema})
    async with server:
        reply = await api.post(WIDGETS, widget("a", x=value))
        assert reply.status == 422
        assert reply.causes == causes


async def test_a_transition_rule_is_evaluated_only_on_updates() -> None:
    server, api = await serving({"x": {"type": "string", **rules({"rule": "self == oldSelf", "message": "immutable"})}})
    async with server:
        assert (await api.post(WIDGETS, widget("a", x="1"))).status == 201
        assert (await api.patch(f"{WIDGETS}/a", {"spec": {"x": "2"}})).causes == [
            ("spec.x", 'Invalid value: "2": immutable')
        ]
        assert (await api.patch(f"{WIDGETS}/a", {"metadata": {"labels": {"a": "b"}}})).status == 200
        assert (await api.patch(f"{WIDGETS}/a", {"spec": {"x": None}})).status == 200
        assert (await api.patch(f"{WIDGETS}/a", {"spec": {"x": "3"}})).status == 200


async def test_a_transition_rule_ignores_a_create() -> None:
    server, api = await serving({"x": {"type": "integer", **rules({"rule": "self > oldSelf", "message": "grows"})}})
    async with server:
        assert (await api.post(WIDGETS, widget("a", x=1))).status == 201
        assert (await api.patch(f"{WIDGETS}/a", {"spec": {"x": 0}})).status == 422
        assert (await api.patch(f"{WIDGETS}/a", {"spec": {"x": 2}})).status == 200


async def test_a_rule_ignores_values_that_an_update_leaves_unchanged() -> None:
    server, api = await serving({"x": {"type": "integer"}, "y": {"type": "integer"}})
    async with server:
        await api.post(WIDGETS, widget("a", x=1, y=1))
        strict = {"x": {"type": "integer", **rules("self > 5")}, "y": {"type": "integer"}}
        await server.apply(definition(spec={"type": "object", "properties": strict}))
        assert (await api.patch(f"{WIDGETS}/a", {"spec": {"y": 2}})).status == 200
        assert (await api.patch(f"{WIDGETS}/a", {"spec": {"x": 2}})).status == 422
        assert (await api.patch(f"{WIDGETS}/a", {"spec": {"x": 6}})).status == 200


async def test_a_rule_with_optional_old_self_is_evaluated_on_creates_too() -> None:
    rule = {
        "rule": "oldSelf.hasValue() ? self > oldSelf.value() : self == 1",
        "optionalOldSelf": True,
        "message": "one by one",
    }
    server, api = await serving({"x": {"type": "integer", **rules(rule)}})
    async with server:
        assert (await api.post(WIDGETS, widget("a", x=2))).status == 422
        assert (await api.post(WIDGETS, widget("a", x=1))).status == 201
        assert (await api.patch(f"{WIDGETS}/a", {"spec": {"x": 0}})).status == 422
        assert (await api.patch(f"{WIDGETS}/a", {"spec": {"x": 2}})).status == 200


async def test_items_of_a_map_list_are_compared_by_key() -> None:
    item = {
        "type": "object",
        "required": ["k"],
        "properties": {
            "k": {"type": "string"},
            "v": {"type": "integer", **rules({"rule": "self >= oldSelf", "message": "grows"})},
        },
    }
    schema = {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": item}
    server, api = await serving({"x": schema})
    async with server:
        await api.post(WIDGETS, widget("a", x=[{"k": "a", "v": 5}]))
        moved = [{"k": "b", "v": 0}, {"k": "a", "v": 6}]
        assert (await api.patch(f"{WIDGETS}/a", {"spec": {"x": moved}})).status == 200
        shrunk = [{"k": "b", "v": 0}, {"k": "a", "v": 5}]
        assert (await api.patch(f"{WIDGETS}/a", {"spec": {"x": shrunk}})).causes == [
            ("spec.x[1].v", "Invalid value: 5: grows")
        ]


async def test_rules_are_skipped_for_an_invalid_object() -> None:
    server, api = await serving({"x": {"type": "integer", **rules("self > 3")}, "y": {"type": "integer"}})
    async with server:
        reply = await api.post(WIDGETS, widget("a", x=1, y="x"))
        assert [field for field, _ in reply.causes] == ["<nil>", "spec.y"]
        assert "some validation rules were not checked because the object was invalid" in reply["message"]


async def test_rules_at_the_root_see_name_and_status() -> None:
    schema = {
        "type": "object",
        "properties": {
            "spec": {"type": "object"},
            "status": {"type": "object", "properties": {"n": {"type": "integer"}}},
        },
        **rules("self.metadata.name.size() < 5", "!has(self.status) || self.status.n < 10"),
    }
    async with APIServer() as server:
        await server.apply(definition(schema=schema))
        api = Api(server)
        long = await api.post(WIDGETS, widget("toolong"))
        assert long.causes == [("<nil>", "Invalid value: failed rule: self.metadata.name.size() < 5")]
        await api.post(WIDGETS, widget("a"))
        high = await api.patch(f"{WIDGETS}/a/status", {"status": {"n": 10}})
        assert high.causes == [("<nil>", "Invalid value: failed rule: !has(self.status) || self.status.n < 10")]


_BROKEN: list[tuple[str, dict[str, Any], str]] = [
    (
        "syntax",
        {"type": "integer", **rules("self >")},
        "compilation failed: ERROR: <input>:1:7: Syntax error: mismatched input",
    ),
    (
        "types",
        {"type": "integer", **rules("self > 'x'")},
        "found no matching overload for '_>_' applied to '(int, string)'",
    ),
    ("no bool", {"type": "integer", **rules("self + 1")}, "cel expression must evaluate to a bool"),
    ("empty", {"type": "integer", **rules("")}, "rule: Required value: rule is not specified"),
    (
        "member",
        {"type": "object", "properties": {"b": {"type": "string"}}, **rules("self.zz == 'x'")},
        "ERROR: <input>:1:5: undefined field 'zz'\n | self.zz == 'x'\n | ....^",
    ),
    (
        "item member",
        {
            "type": "array",
            "items": {"type": "object", "properties": {"b": {"type": "string"}}},
            **rules("self.all(i, i.zz == 'x')"),
        },
        "undefined field 'zz'",
    ),
    ("function", {"type": "string", **rules("frobnicate(self)")}, "undeclared reference to 'frobnicate'"),
    (
        "message",
        {"type": "integer", **rules({"rule": "self > 1", "message": "a\nb"})},
        'message: Invalid value: "a\\nb": must not contain line breaks',
    ),
    ("reason", {"type": "integer", **rules({"rule": "self > 1", "reason": "Foo"})}, 'reason: Unsupported value: "Foo"'),
    (
        "path",
        {
            "type": "object",
            "properties": {"b": {"type": "string"}},
            **rules({"rule": "has(self.b)", "fieldPath": ".zz"}),
        },
        'fieldPath: Invalid value: ".zz": must be a valid path',
    ),
    (
        "old",
        {"type": "array", "items": {"type": "integer", **rules("self == oldSelf")}},
        "oldSelf cannot be used on the uncorrelatable portion of the schema",
    ),
    (
        "optional",
        {"type": "integer", **rules({"rule": "self > 1", "optionalOldSelf": True})},
        "may not be set if oldSelf is not used in rule",
    ),
]


@pytest.mark.parametrize(("schema", "says"), [case[1:] for case in _BROKEN], ids=[case[0] for case in _BROKEN])
async def test_an_invalid_rule_rejects_the_definition(api: Api, schema: dict[str, Any], says: str) -> None:
    reply = await api.post(DEFINITIONS, definition("Gadget", spec={"type": "object", "properties": {"a": schema}}))
    assert reply.status == 422
    assert says in reply["message"]


async def test_a_failed_evaluation_rejects_the_object() -> None:
    server, api = await serving(
        {"x": {"type": "object", "properties": {"a": {"type": "string"}}, **rules("self.a == 'x'")}}
    )
    async with server:
        reply = await api.post(WIDGETS, widget("a", x={}))
        assert reply.status == 422
        assert "no such key: a evaluating rule: self.a == 'x'" in reply["message"]
