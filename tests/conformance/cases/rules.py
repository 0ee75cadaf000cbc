"""CEL rules: what they see, what they say, and which are refused with their definition (15 and 16)."""

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


def _case(number: str, title: str) -> Any:
    return case(number, title, RULED)


async def _create(api: Api, spec: dict[str, Any]) -> None:
    await api.create(R, ruled(**spec), keep=["spec"])
    in_any_order(api)


table(
    "15.01",
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
        ("a quantity that is none", {"quantity": "much"}),
        ("URLs", {"host": "http://x.y"}),
        ("a URL that is none", {"host": "nowhere"}),
        ("times", {"when": "2019-01-01T00:00:00Z"}),
        ("durations", {"span": "2h"}),
        ("int or string, an int", {"either": 11}),
        ("int or string, a string", {"either": "y"}),
        ("several rules of several places", {"a": 13, "b": 3, "low": 2, "high": 1, "host": "x"}),
        ("rules are not asked when the shape is wrong", {"a": "x", "b": 3}),
        ("rules are asked when only an enum is wrong", {"mode": "C", "b": 3}),
        ("an optional old value on create", {"first": 2}),
        (
            "what all rules allow",
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
    "15.26",
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


@_case("15.34", "a rule at the root sees the name")
async def _(api: Api) -> None:
    await api.create(R, ruled("a-long-long-name"))


@_case("15.35", "a status write is held by the rules of the status alone")
async def _(api: Api) -> None:
    await api.create(R, ruled(a=1), quiet=True)
    await api.patch(R, "a", {"status": {"n": 1}}, "status", keep=["status"])


@_case("15.36", "an apply is held by rules")
async def _(api: Api) -> None:
    await api.apply(R, "a", ruled(b=3))
    await api.apply(R, "a", ruled(once="x"), keep=["spec"])
    await api.apply(R, "a", ruled(once="y"))


# which rules are refused


async def _defined(api: Api, spec: dict[str, Any]) -> None:
    plural = api.ns.replace("-", "")
    body = definition(plural, "Kind" + plural, spec)
    await api.call(
        "POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", body, query={"dryRun": "All"}, keep=["none"]
    )


def _ruled(rule: str, spec: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    base = spec or {
        "type": "object",
        "properties": {
            "x": {"type": "integer"},
            "s": {"type": "string", "maxLength": 50},
            "l": {"type": "array", "maxItems": 9, "items": {"type": "string", "maxLength": 50}},
        },
    }
    return {**base, "x-kubernetes-validations": [{"rule": rule, **more}]}


_FREE: dict[str, Any] = {"type": "array", "items": {"type": "array", "items": {"type": "string"}}}

table(
    "16.01",
    [
        ("a rule that is empty", _ruled("")),
        ("a rule with a syntax error", _ruled("self.x ==")),
        ("a rule that names no field", _ruled("self.y == 1")),
        ("a rule that is no truth", _ruled("self.x + 1")),
        ("a rule that compares types", _ruled("self.x == 'a'")),
        ("an unknown function", _ruled("self.s.shout() == 'A'")),
        ("an unknown variable", _ruled("other == 1")),
        ("an unknown reason", _ruled("self.x > 0", reason="Bad")),
        ("a field path that leads nowhere", _ruled("self.x > 0", fieldPath=".y")),
        ("a field path that is none", _ruled("self.x > 0", fieldPath="x")),
        ("a message with a line break", _ruled("self.x > 0", message="a\nb")),
        ("a message of blanks", _ruled("self.x > 0", message="  ")),
        ("a rule with a line break and no message", _ruled("self.x > 0 &&\nself.x < 5")),
        ("a message expression that is no text", _ruled("self.x > 0", messageExpression="self.x")),
        ("a message expression with an error", _ruled("self.x > 0", messageExpression="self.y")),
        ("optionalOldSelf without oldSelf", _ruled("self.x > 0", optionalOldSelf=True)),
        (
            "oldSelf in an item of a list that is no map",
            {
                "type": "object",
                "properties": {
                    "l": {
                        "type": "array",
                        "maxItems": 3,
                        "items": {"type": "integer", "x-kubernetes-validations": [{"rule": "self == oldSelf"}]},
                    }
                },
            },
        ),
        (
            "a rule that is affordable in an unbounded list",
            {
                "type": "object",
                "properties": {
                    "l": {
                        "type": "array",
                        "items": {
                            "type": "string",
                            "maxLength": 10,
                            "x-kubernetes-validations": [{"rule": "self == 'x'"}],
                        },
                    }
                },
            },
        ),
        (
            "the same rule on a bounded list is fine",
            {
                "type": "object",
                "properties": {
                    "l": {
                        "type": "array",
                        "maxItems": 5,
                        "items": {
                            "type": "string",
                            "maxLength": 5,
                            "x-kubernetes-validations": [{"rule": "self.contains('x')"}],
                        },
                    }
                },
            },
        ),
        ("strings: format", _ruled("'%s is %d'.format([self.s, self.x]) == 'a is 1'")),
        (
            "lists: sum, min, max, indexOf, isSorted",
            _ruled("self.l.isSorted() && self.l.indexOf('a') < 1 && [1, 2].sum() == 3 && [1].min() == 1"),
        ),
        (
            "strings: split, join, replace, lower",
            _ruled(
                "self.s.lowerAscii().split(',').size() > 1 && self.l.join('-') == 'a' && "
                "self.s.replace('a', 'b') == 'b'"
            ),
        ),
        ("regular expressions: find, matches", _ruled("self.s.matches('^[a-z]+$') && self.s.find('[0-9]') == ''")),
        (
            "IP addresses and networks",
            _ruled("isIP(self.s) && ip(self.s).family() == 4 || cidr('10.0.0.0/8').containsIP('10.1.2.3')"),
        ),
        ("semantic versions", _ruled("isSemver(self.s) && semver(self.s).major() == 1")),
        ("sets", _ruled("sets.contains(self.l, ['a']) && sets.intersects(self.l, ['b'])")),
        ("optional types", _ruled("self.?s.orValue('x') == 'x'")),
        ("sizes of texts and lists", _ruled("size(self.s) > 1 && self.l.size() < 3")),
        ("a ternary, has and in", _ruled("has(self.s) ? self.s in ['a', 'b'] : true")),
        (
            "a name that is escaped",
            {
                "type": "object",
                "properties": {"in": {"type": "integer"}, "a-b": {"type": "integer"}, "x__y": {"type": "integer"}},
                "x-kubernetes-validations": [
                    {"rule": "self.__in__ > 0 && self.a__dash__b > 0 && self.x__underscores__y > 0"}
                ],
            },
        ),
        (
            "a rule over unbounded lists in lists costs too much",
            {
                "type": "object",
                "properties": {
                    "l": {
                        **_FREE,
                        "x-kubernetes-validations": [
                            {"rule": "self.all(a, a.all(b, self.all(c, c.all(d, d != b || d == 'x'))))"}
                        ],
                    }
                },
            },
        ),
        (
            "a rule of each item of an unbounded list costs too much",
            {
                "type": "object",
                "properties": {
                    "l": {
                        "type": "array",
                        "items": {"type": "string", "x-kubernetes-validations": [{"rule": "self.contains('x')"}]},
                    }
                },
            },
        ),
    ],
)(_defined)


_TEXT = {"type": "string"}


def _over(items: dict[str, Any], rule: str, **bounds: int) -> dict[str, Any]:
    """Return a spec with a list, and a rule of the whole list."""
    rules = [{"rule": rule}]
    return {
        "type": "object",
        "properties": {"l": {"type": "array", "items": items, **bounds, "x-kubernetes-validations": rules}},
    }


async def _priced(api: Api, spec: dict[str, Any]) -> None:
    """Define it, and note whether the server finds it too dear."""
    await _defined(api, spec)
    body = api.transcript[-1]["body"]
    if body.get("status") == "Failure":
        body["details"]["causes"] = [cause["field"].rpartition(".")[2] for cause in body["details"]["causes"]]
        del body["message"]


table(
    "16.50",
    [
        (
            "the price of a text that is searched",
            _ruled("self.t.contains('x')", {"type": "object", "properties": {"t": _TEXT}}),
        ),
        (
            "the price of a text that is matched",
            _ruled("self.t.matches('^[a-z]*$')", {"type": "object", "properties": {"t": _TEXT}}),
        ),
        ("the price of an unbounded list of numbers", _over({"type": "integer"}, "self.all(x, x > 0)")),
        ("the price of an unbounded list of texts", _over(_TEXT, "self.all(x, x != 'a')")),
        ("the price of an unbounded list of texts that are searched", _over(_TEXT, "self.all(x, x.contains('a'))")),
        (
            "the price of a list of short texts that are searched",
            _over({**_TEXT, "maxLength": 10}, "self.all(x, x.contains('a'))"),
        ),
        (
            "the price of comparing all with all, of ten",
            _over(_TEXT, "self.all(x, self.exists_one(y, x == y))", maxItems=10),
        ),
        (
            "the price of comparing all with all, of a hundred",
            _over({**_TEXT, "maxLength": 50}, "self.all(x, self.exists_one(y, x == y))", maxItems=100),
        ),
        (
            "the price of comparing all with all, of a thousand",
            _over({**_TEXT, "maxLength": 50}, "self.all(x, self.exists_one(y, x == y))", maxItems=1000),
        ),
        (
            "the price of comparing all with all, unbounded",
            _over({"type": "integer"}, "self.all(x, self.exists_one(y, x == y))"),
        ),
        ("the price of a size", _over(_TEXT, "self.size() < 5")),
        ("the price of an in", _over(_TEXT, "'a' in self")),
        (
            "the price of a rule of each value of a map",
            {
                "type": "object",
                "properties": {
                    "m": {
                        "type": "object",
                        "additionalProperties": {"type": "integer", "x-kubernetes-validations": [{"rule": "self > 0"}]},
                    }
                },
            },
        ),
        (
            "the price of a rule of each object of a list",
            {
                "type": "object",
                "properties": {
                    "l": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
                            "x-kubernetes-validations": [{"rule": "self.a < self.b"}],
                        },
                    }
                },
            },
        ),
        (
            "the price of a rule of each object of a list in a list",
            {
                "type": "object",
                "properties": {
                    "l": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "properties": {
                                "k": {
                                    "type": "array",
                                    "items": {"type": "integer", "x-kubernetes-validations": [{"rule": "self > 0"}]},
                                }
                            },
                        },
                    }
                },
            },
        ),
        (
            "the price of a filter and a map",
            _over({"type": "integer"}, "self.filter(x, x > 1).map(x, x * 2).size() > 0", maxItems=1000),
        ),
        ("the price of quantities", _over({**_TEXT, "maxLength": 20}, "self.all(x, isQuantity(x))", maxItems=1000)),
    ],
)(_priced)
