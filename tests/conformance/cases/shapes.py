"""Shapes of custom objects beyond the common ones: formats, junctors, embedded objects, nulls (18)."""

from __future__ import annotations

from typing import Any

from tests.conformance.api import Api
from tests.conformance.cases._case import case, in_any_order, table
from tests.conformance.cases.definitions import definition

_FORMATS = (
    "date",
    "date-time",
    "duration",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "cidr",
    "mac",
    "uri",
    "uuid",
    "uuid4",
    "byte",
    "password",
    "isbn",
    "creditcard",
    "ssn",
    "hexcolor",
    "rgbcolor",
    "bsonobjectid",
    "k8s-short-name",
    "k8s-long-name",
)
_MEMBER = {"type": "object", "properties": {"x": {"type": "string", "default": "d"}}}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        **{form.replace("-", ""): {"type": "string", "format": form} for form in _FORMATS},
        "int32": {"type": "integer", "format": "int32"},
        "int64": {"type": "integer", "format": "int64"},
        "float": {"type": "number", "format": "float"},
        "double": {"type": "number", "format": "double"},
        "multiple": {"type": "integer", "multipleOf": 3},
        "below": {"type": "number", "maximum": 5, "exclusiveMaximum": True},
        "one": {
            "type": "object",
            "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
            "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
        },
        "any": {
            "type": "object",
            "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
            "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
        },
        "all": {"type": "string", "allOf": [{"minLength": 2}, {"pattern": "^a"}]},
        "never": {"type": "string", "not": {"enum": ["bad"]}},
        "few": {"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 1, "maxProperties": 2},
        "some": {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1, "maxItems": 3},
        "numbers": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "integer"}},
        "keyed": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["k", "l"],
            "items": {
                "type": "object",
                "required": ["k"],
                "properties": {
                    "k": {"type": "string"},
                    "l": {"type": "integer", "default": 1},
                    "v": {"type": "string"},
                },
            },
        },
        "template": {
            "type": "object",
            "x-kubernetes-embedded-resource": True,
            "x-kubernetes-preserve-unknown-fields": True,
        },
        "strictTemplate": {"type": "object", "x-kubernetes-embedded-resource": True, "properties": {"spec": _MEMBER}},
        "maybe": {**_MEMBER, "nullable": True},
        "never_null": _MEMBER,
        "nulls": {"type": "array", "items": {"type": "string", "nullable": True}},
        "strings": {"type": "array", "items": {"type": "string"}},
        "defaulted": {**_MEMBER, "default": {}},
        "defaultedList": {"type": "array", "items": _MEMBER, "default": [{}]},
        "mapOf": {"type": "object", "additionalProperties": _MEMBER},
        "choice": {"type": "string", "enum": ["A", "B", ""]},
        "number_choice": {"type": "integer", "enum": [1, 2]},
        "free": {"x-kubernetes-preserve-unknown-fields": True},
        "half": {
            "type": "object",
            "x-kubernetes-preserve-unknown-fields": True,
            "properties": {"known": {"type": "object", "properties": {"x": {"type": "string"}}}},
        },
        "either": {"x-kubernetes-int-or-string": True, "pattern": "^[0-9]+%?$"},
        "atomic": {
            "type": "object",
            "x-kubernetes-map-type": "atomic",
            "properties": {"x": {"type": "string"}, "y": {"type": "string"}},
        },
        "constant": {"type": "string", "minLength": 1, "maxLength": 3, "pattern": "^[a-z]+$"},
    },
}
SHAPED = definition(
    "shapes", "Shape", {"name": "v1", "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": SCHEMA}}}}
)
P = "shapes:Shape"


async def _create(api: Api, *specs: dict[str, Any]) -> None:
    for index, spec in enumerate(specs):
        await api.create(P, {"metadata": {"name": f"o{index}"}, "spec": spec}, keep=["spec"])
        in_any_order(api)


def _format(name: str, *values: str) -> tuple[Any, ...]:
    return (f"the format {name}", *({name.replace("-", ""): value} for value in values))


table(
    [
        _format("date", "2026-02-28", "2026-02-30", "28.2.2026", ""),
        _format(
            "date-time",
            "2026-01-01T00:00:00Z",
            "2026-01-01T00:00:00+01:00",
            "2026-01-01 00:00:00Z",
            "2026-01-01",
            "2026-01-01T25:00:00Z",
        ),
        _format("duration", "1h30m", "10", "3 days", "1w", "-5s", "soon"),
        _format("email", "a@b.c", "a@b", "nobody"),
        _format("hostname", "a.b-c.de", "localhost", "-a", "a_b", "A.BC", "a.b", "10.0.0.1", "a..bc"),
        _format("ipv4", "10.0.0.1", "10.0.0.256", "::1", "010.0.0.1"),
        _format("ipv6", "::1", "10.0.0.1", "fe80::1%eth0", "g::1"),
        _format("cidr", "10.0.0.0/8", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0"),
        _format("mac", "01:23:45:67:89:ab", "01-23-45-67-89-ab", "0123.4567.89ab", "01:23"),
        _format("uri", "https://a.b/c?d=e", "/a/b", "a b", "nothing", "://x"),
        _format("uuid", "11111111-2222-3333-4444-555555555555", "11111111222233334444555555555555", "x"),
        _format("uuid4", "11111111-2222-4333-8444-555555555555", "11111111-2222-3333-4444-555555555555"),
        _format("byte", "YWJj", "YWI=", "a", "not base64!"),
        _format("password", "anything goes"),
        _format("isbn", "978-3-16-148410-0", "0321751043", "123"),
        _format("creditcard", "4111111111111111", "1234"),
        _format("ssn", "111-22-3333", "111 22 3333", "111223333", "1"),
        _format("hexcolor", "#ffffff", "#fff", "ffffff", "#ggg"),
        _format("rgbcolor", "rgb(1,2,3)", "rgb(1, 2, 300)", "red"),
        _format("bsonobjectid", "507f1f77bcf86cd799439011", "x"),
        _format("k8s-short-name", "a-b", "A", "a.b", "a" * 64),
        _format("k8s-long-name", "a.b-c", "A.b", "a..b", f"{'a' * 64}.b"),
        ("the format int32", {"int32": 2147483647}, {"int32": 2147483648}),
        ("the format int64", {"int64": 9223372036854775807}, {"int64": 1.0}, {"int64": 1e3}, {"int64": 1.5}),
        ("the formats float and double", {"float": 1.5, "double": 1}, {"float": "1"}),
        ("multipleOf", {"multiple": 9}, {"multiple": 10}),
        ("an exclusive maximum", {"below": 4.9}, {"below": 5}),
        ("oneOf", {"one": {"a": "x"}}, {"one": {}}, {"one": {"a": "x", "b": "y"}}),
        ("anyOf", {"any": {"a": "x", "b": "y"}}, {"any": {}}),
        ("allOf", {"all": "ab"}, {"all": "a"}, {"all": "b"}),
        ("not", {"never": "good"}, {"never": "bad"}),
        ("minProperties and maxProperties", {"few": {}}, {"few": {"a": 1, "b": 2, "c": 3}}, {"few": {"a": "x"}}),
        ("minItems and maxItems", {"some": []}, {"some": [1, 2, 3, 4]}, {"some": [-1]}, {"some": ["x", 1.5]}),
        ("a set of numbers", {"numbers": [1, 2]}, {"numbers": [1, 1]}, {"numbers": [1, 2, 1, 2]}),
        (
            "a map with two keys, one of which has a default",
            {"keyed": [{"k": "a"}, {"k": "a", "l": 2}]},
            {"keyed": [{"k": "a"}, {"k": "a", "l": 1}]},
            {"keyed": [{"l": 1}]},
        ),
        (
            "an embedded object",
            {
                "template": {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "metadata": {"name": "x", "bogus": 1},
                    "spec": {"any": 1},
                }
            },
        ),
        (
            "an embedded object needs apiVersion and kind",
            {"template": {"spec": {}}},
            {"template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "Bad Name"}}},
        ),
        (
            "an embedded object with a schema",
            {
                "strictTemplate": {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "metadata": {"labels": {"a": "b"}},
                    "spec": {"y": 1},
                    "more": 1,
                }
            },
        ),
        ("null where it is allowed", {"maybe": None}),
        ("null where it is not", {"never_null": None, "strings": None}),
        ("null in a list", {"nulls": ["a", None]}, {"strings": ["a", None]}),
        ("defaults below defaults", {}, {"defaulted": {"x": "y"}, "defaultedList": []}, {"defaulted": None}),
        ("defaults in a map's values", {"mapOf": {"a": {}, "b": {"x": "y", "z": 1}}}),
        ("an enum with an empty text", {"choice": ""}, {"choice": "C"}),
        ("an enum of numbers", {"number_choice": 2}, {"number_choice": 3}, {"number_choice": "1"}),
        ("a field that keeps anything", {"free": [1, {"a": None}]}, {"free": "x"}, {"free": {"a": {"b": None}}}),
        (
            "known fields below preserve-unknown-fields are pruned inside",
            {"half": {"known": {"x": "a", "y": 1}, "unknown": {"z": 1}}},
        ),
        ("int or string with a pattern", {"either": "5%"}, {"either": 5}, {"either": "x"}, {"either": 1.5}),
        ("lengths count letters", {"constant": "äöü"}, {"constant": ""}, {"constant": "abcd"}),
        ("many findings in one document", {"constant": "", "int32": "x", "some": [], "choice": "C", "one": {}}),
        ("numbers that are whole are kept as they are", {"double": 1.0, "float": 1e2, "int64": 100000000000000000}),
    ],
)(_create, SHAPED)


@case("an atomic map is owned as a whole", SHAPED)
async def _(api: Api) -> None:
    api.with_owners = True
    await api.apply(P, "a", {"metadata": {"name": "a"}, "spec": {"atomic": {"x": "1"}}})
    await api.apply(P, "a", {"metadata": {"name": "a"}, "spec": {"atomic": {"y": "1"}}}, "two")
    await api.apply(P, "a", {"metadata": {"name": "a"}, "spec": {"atomic": {"y": "1"}}}, "two", force=True)


@case("a list with two keys is owned by both", SHAPED)
async def _(api: Api) -> None:
    api.with_owners = True
    await api.apply(P, "a", {"metadata": {"name": "a"}, "spec": {"keyed": [{"k": "a", "v": "1"}, {"k": "a", "l": 2}]}})


@case("an invalid value may stay when an update does not change it (ratcheting)", SHAPED)
async def _(api: Api) -> None:
    await api.create(P, {"metadata": {"name": "a"}, "spec": {"choice": "A", "few": {"a": 1}}}, quiet=True)
    await api.patch(P, "a", {"spec": {"few": {"b": "x"}}})
    await api.patch(P, "a", {"metadata": {"labels": {"x": "y"}}}, keep=["metadata.labels", "metadata.generation"])


@case("a PUT with null members", SHAPED)
async def _(api: Api) -> None:
    made = await api.create(P, {"metadata": {"name": "a"}, "spec": {"choice": "A"}}, quiet=True)
    made["spec"] = {"choice": None, "maybe": None, "nulls": [None]}
    await api.put(P, "a", made, keep=["spec"])
