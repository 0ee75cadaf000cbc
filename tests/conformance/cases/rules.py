"""CEL rules: what they see and what they say (15)."""

from __future__ import annotations

from typing import Any

from tests.conformance.api import GROUP, Api
from tests.conformance.cases._case import case, in_any_order, table

SPEC: dict[str, Any] = {
    "type": "object",
    "properties": {
        "a": {"type": "integer", "x-kubernetes-validations": [{"rule": "self != 13", "message": "not thirteen"}]},
        "b": {"type": "integer", "x-kubernetes-validations": [{"rule": "self % 2 == 0"}]},
        "text": {
            "type": "string",
            "maxLength": 20,
            "x-kubernetes-validations": [
                {
                    "rule": "self.startsWith('x')",
                    "messageExpression": "'must begin with x, not ' + self.substring(0, 1)",
                }
            ],
        },
        "once": {
            "type": "string",
            "maxLength": 9,
            "x-kubernetes-validations": [
                {"rule": "self == oldSelf", "reason": "FieldValueForbidden", "message": "fixed"}
            ],
        },
        "grow": {
            "type": "integer",
            "x-kubernetes-validations": [{"rule": "self >= oldSelf", "message": "only upwards"}],
        },
        "first": {
            "type": "integer",
            "x-kubernetes-validations": [
                {
                    "rule": "oldSelf.hasValue() ? self > oldSelf.value() : self == 1",
                    "optionalOldSelf": True,
                    "message": "from one on",
                }
            ],
        },
        "items": {
            "type": "array",
            "maxItems": 5,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": {"type": "string", "maxLength": 9}, "v": {"type": "integer"}},
                "x-kubernetes-validations": [
                    {"rule": "!has(self.v) || !has(oldSelf.v) || self.v >= oldSelf.v", "message": "v only rises"}
                ],
            },
            "x-kubernetes-validations": [
                {"rule": "self.all(i, !has(i.v) || i.v < 100)", "message": "v below 100"},
                {"rule": "self.exists(i, i.name == 'main') || size(self) == 0", "message": "one is main"},
            ],
        },
        "map": {
            "type": "object",
            "maxProperties": 5,
            "additionalProperties": {
                "type": "integer",
                "x-kubernetes-validations": [{"rule": "self > 0", "message": "positive"}],
            },
        },
        "low": {"type": "number"},
        "high": {"type": "number"},
        "when": {"type": "string", "format": "date-time"},
        "span": {"type": "string", "format": "duration"},
        "quantity": {"type": "string", "maxLength": 20},
        "host": {"type": "string", "maxLength": 50},
        "either": {"x-kubernetes-int-or-string": True},
        "mode": {"type": "string", "enum": ["A", "B"]},
        "aOnly": {"type": "string", "maxLength": 9},
        "need": {"type": "string", "maxLength": 9},
        "dup": {"type": "string", "maxLength": 9},
    },
    "x-kubernetes-validations": [
        {
            "rule": "!has(self.low) || !has(self.high) || self.low <= self.high",
            "message": "low above high",
            "fieldPath": ".low",
        },
        {
            "rule": "!has(self.aOnly) || self.mode == 'A'",
            "message": "aOnly needs mode A",
            "fieldPath": ".aOnly",
            "reason": "FieldValueInvalid",
        },
        {
            "rule": "!has(self.dup) || has(self.need)",
            "message": "need comes with dup",
            "fieldPath": ".need",
            "reason": "FieldValueRequired",
        },
        {
            "rule": "!has(self.dup) || self.dup != 'twice'",
            "message": "only once",
            "fieldPath": ".dup",
            "reason": "FieldValueDuplicate",
        },
        {
            "rule": "!has(self.quantity) || quantity(self.quantity).isGreaterThan(quantity('1Gi'))",
            "message": "more than 1Gi",
        },
        {
            "rule": "!has(self.host) || isURL(self.host) && url(self.host).getScheme() == 'https'",
            "message": "https only",
        },
        {"rule": "!has(self.when) || self.when > timestamp('2020-01-01T00:00:00Z')", "message": "not before 2020"},
        {"rule": "!has(self.span) || self.span < duration('1h')", "message": "below an hour"},
        {
            "rule": "!has(self.either) || (type(self.either) == int ? self.either < 10 : self.either == 'x')",
            "message": "int below 10 or x",
        },
    ],
}


def definition(plural: str, kind: str, spec: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return a definition of a kind with rules."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {"plural": plural, "kind": kind},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "properties": {
                                "spec": spec,
                                "status": {"type": "object", "properties": {"n": {"type": "integer"}}},
                            },
                            **more,
                        }
                    },
                    "subresources": {"status": {}},
                }
            ],
        },
    }


RULED = definition(
    "ruleds",
    "Ruled",
    SPEC,
    **{"x-kubernetes-validations": [{"rule": "self.metadata.name.size() < 10", "message": "short names"}]},
)
R = "ruleds:Ruled"


def ruled(name: str = "a", /, **spec: Any) -> dict[str, Any]:
    """Return an object of the kind with rules."""
    return {"metadata": {"name": name}, "spec": spec}


def _case(title: str) -> Any:
    return case(title, RULED)


async def _create(api: Api, spec: dict[str, Any]) -> None:
    await api.create(R, ruled(**spec), keep=["spec"])
    in_any_order(api)


table(
    [
        ("a message", {"a": 13}),
        ("no message: the rule is shown", {"b": 3}),
        ("a message that is computed", {"text": "abc"}),
        ("a rule about another field", {"low": 2, "high": 1}),
        ("a field path and a reason", {"aOnly": "x", "mode": "B"}),
        ("a rule that fails to evaluate", {"aOnly": "x"}),
        ("the reason Required", {"dup": "x"}),
        ("the reason Duplicate", {"dup": "twice", "need": "x"}),
        ("a rule over all items", {"items": [{"name": "main", "v": 100}]}),
        ("a rule that wants one item", {"items": [{"name": "x"}]}),
        ("two rules of a list fail", {"items": [{"name": "x", "v": 100}]}),
        ("a rule of a map's values", {"map": {"x": 0, "y": 1}}),
        ("quantities", {"quantity": "1Mi"}),
        ("an invalid quantity", {"quantity": "much"}),
        ("URLs", {"host": "http://x.y"}),
        ("an invalid URL", {"host": "nowhere"}),
        ("times", {"when": "2019-01-01T00:00:00Z"}),
        ("durations", {"span": "2h"}),
        ("int or string, an int", {"either": 11}),
        ("int or string, a string", {"either": "y"}),
        ("several rules of several places", {"a": 13, "b": 3, "low": 2, "high": 1, "host": "x"}),
        ("rules are not asked when the shape is wrong", {"a": "x", "b": 3}),
        ("rules are asked when only an enum is wrong", {"mode": "C", "b": 3}),
        ("an optional old value on create", {"first": 2}),
        (
            "values that satisfy all rules",
            {
                "a": 1,
                "b": 2,
                "text": "xy",
                "once": "z",
                "grow": 1,
                "first": 1,
                "items": [{"name": "main", "v": 1}],
                "map": {"x": 1},
                "low": 1,
                "high": 1.5,
                "when": "2026-01-01T00:00:00Z",
                "span": "10m",
                "quantity": "2Gi",
                "host": "https://x.y",
                "either": "x",
                "mode": "A",
                "aOnly": "x",
                "need": "n",
                "dup": "once",
            },
        ),
    ],
)(_create, RULED)


async def _change(api: Api, spec: dict[str, Any], change: dict[str, Any]) -> None:
    await api.create(R, ruled(**spec), quiet=True)
    await api.patch(R, "a", {"spec": change}, keep=["spec"])


table(
    [
        ("a transition rule with a reason", {"once": "x"}, {"once": "y"}),
        ("a transition rule is not asked when the field is new", {"a": 1}, {"once": "y"}),
        ("a transition rule is not asked when the field goes", {"once": "x"}, {"once": None}),
        ("a transition rule that allows one direction", {"grow": 2}, {"grow": 1}),
        ("an optional old value on update", {"first": 1}, {"first": 1, "a": 1}),
        ("an optional old value that may rise", {"first": 1}, {"first": 2}),
        (
            "transition rules of items are matched by key",
            {"items": [{"name": "main", "v": 5}, {"name": "x", "v": 1}]},
            {"items": [{"name": "x", "v": 2}, {"name": "main", "v": 4}]},
        ),
        (
            "a new item has no old value",
            {"items": [{"name": "main", "v": 5}]},
            {"items": [{"name": "main", "v": 5}, {"name": "x", "v": 1}]},
        ),
    ],
)(_change, RULED)


@_case("a rule at the root sees the name")
async def _(api: Api) -> None:
    await api.create(R, ruled("a-long-long-name"))


@_case("a status write is held by the rules of the status alone")
async def _(api: Api) -> None:
    await api.create(R, ruled(a=1), quiet=True)
    await api.patch(R, "a", {"status": {"n": 1}}, "status", keep=["status"])


@_case("an apply is held by rules")
async def _(api: Api) -> None:
    await api.apply(R, "a", ruled(b=3))
    await api.apply(R, "a", ruled(once="x"), keep=["spec"])
    await api.apply(R, "a", ruled(once="y"))
