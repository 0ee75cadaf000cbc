"""CEL rules that are refused with their definition: those that do not compile or cost too much (16)."""

from __future__ import annotations

from typing import Any

from tests.conformance.api import Api
from tests.conformance.cases._case import table
from tests.conformance.cases.rules import definition


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
    [
        ("a rule that is empty", _ruled("")),
        ("a rule with a syntax error", _ruled("self.x ==")),
        ("a rule that names no field", _ruled("self.y == 1")),
        ("a rule that is not a boolean", _ruled("self.x + 1")),
        ("a rule that compares types", _ruled("self.x == 'a'")),
        ("an unknown function", _ruled("self.s.shout() == 'A'")),
        ("an unknown variable", _ruled("other == 1")),
        ("an unknown reason", _ruled("self.x > 0", reason="Bad")),
        ("a field path that leads nowhere", _ruled("self.x > 0", fieldPath=".y")),
        ("an invalid field path", _ruled("self.x > 0", fieldPath="x")),
        ("a message with a line break", _ruled("self.x > 0", message="a\nb")),
        ("a message of blanks", _ruled("self.x > 0", message="  ")),
        ("a rule with a line break and no message", _ruled("self.x > 0 &&\nself.x < 5")),
        ("a message expression that is not a string", _ruled("self.x > 0", messageExpression="self.x")),
        ("a message expression with an error", _ruled("self.x > 0", messageExpression="self.y")),
        (
            "a message expression that is too expensive",
            _ruled("self.x > 0", messageExpression="'x: ' + string(self.x)"),
        ),
        ("a rule that concatenates string()", _ruled("'x: ' + string(self.x) != 'x: 1'")),
        ("a message expression that formats", _ruled("self.x > 0", messageExpression="'x: %d'.format([self.x])")),
        ("optionalOldSelf without oldSelf", _ruled("self.x > 0", optionalOldSelf=True)),
        (
            "oldSelf in an item of a list that is not a map",
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
    [
        (
            "the estimated cost of a string that is searched",
            _ruled("self.t.contains('x')", {"type": "object", "properties": {"t": _TEXT}}),
        ),
        (
            "the estimated cost of a string that is matched",
            _ruled("self.t.matches('^[a-z]*$')", {"type": "object", "properties": {"t": _TEXT}}),
        ),
        ("the estimated cost of an unbounded list of numbers", _over({"type": "integer"}, "self.all(x, x > 0)")),
        ("the estimated cost of an unbounded list of strings", _over(_TEXT, "self.all(x, x != 'a')")),
        (
            "the estimated cost of an unbounded list of strings that are searched",
            _over(_TEXT, "self.all(x, x.contains('a'))"),
        ),
        (
            "the estimated cost of a list of short texts that are searched",
            _over({**_TEXT, "maxLength": 10}, "self.all(x, x.contains('a'))"),
        ),
        (
            "the estimated cost of comparing all with all, of ten",
            _over(_TEXT, "self.all(x, self.exists_one(y, x == y))", maxItems=10),
        ),
        (
            "the estimated cost of comparing all with all, of a hundred",
            _over({**_TEXT, "maxLength": 50}, "self.all(x, self.exists_one(y, x == y))", maxItems=100),
        ),
        (
            "the estimated cost of comparing all with all, of a thousand",
            _over({**_TEXT, "maxLength": 50}, "self.all(x, self.exists_one(y, x == y))", maxItems=1000),
        ),
        (
            "the estimated cost of comparing all with all, unbounded",
            _over({"type": "integer"}, "self.all(x, self.exists_one(y, x == y))"),
        ),
        ("the estimated cost of a size", _over(_TEXT, "self.size() < 5")),
        ("the estimated cost of an in", _over(_TEXT, "'a' in self")),
        (
            "the estimated cost of a rule of each value of a map",
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
            "the estimated cost of a rule of each object of a list",
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
            "the estimated cost of a rule of each object of a list in a list",
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
            "the estimated cost of a filter and a map",
            _over({"type": "integer"}, "self.filter(x, x > 1).map(x, x * 2).size() > 0", maxItems=1000),
        ),
        (
            "the estimated cost of quantities",
            _over({**_TEXT, "maxLength": 20}, "self.all(x, isQuantity(x))", maxItems=1000),
        ),
    ],
)(_priced)


_MEMBERS = ("a", "b", "c", "d", "e", "f")


def _each(rule: str) -> dict[str, Any]:
    """Return a spec with an unbounded list of objects, and a rule of each."""
    members = {key: {"type": "string", "maxLength": 20} for key in _MEMBERS}
    items = {"type": "object", "properties": members, "x-kubernetes-validations": [{"rule": rule}]}
    return {"type": "object", "properties": {"l": {"type": "array", "items": items}}}


table(
    [
        ("the estimated cost of asking for six members", _each(" || ".join(f"has(self.{key})" for key in _MEMBERS))),
        (
            "the estimated cost of a choice",
            _each("has(self.a) ? has(self.b) && has(self.c) : has(self.d) && has(self.e)"),
        ),
        ("the estimated cost of many comparisons", _each(" && ".join(f"self.{key} != 'x'" for key in _MEMBERS))),
        (
            "the estimated cost of a prefix",
            _over(_TEXT, "self.all(x, !x.startsWith('envoy.filters.http'))", maxItems=8),
        ),
        (
            "the estimated cost of a suffix",
            _over(_TEXT, "self.all(x, !x.endsWith('.svc.cluster.local'))", maxItems=1000),
        ),
        (
            "the estimated cost of presence compared",
            _over(_each("true")["properties"]["l"]["items"], "self.all(x, has(x.a) == has(x.b))"),
        ),
        (
            "the estimated cost of a list whose items need members",
            _over(
                {
                    "type": "object",
                    "required": ["status", "type"],
                    "properties": {"status": _TEXT, "type": {"type": "string", "maxLength": 300}},
                },
                "self.exists(c, c.type == 'Ready' && c.status == 'True')",
            ),
        ),
    ],
)(_priced)
