"""The view of CEL rules on documents: lists without order, times, absent members, and the document before (26)."""

from __future__ import annotations

from typing import Any

from tests.conformance.api import Api
from tests.conformance.cases._case import case, digest, in_any_order
from tests.conformance.cases.cel_language import refused
from tests.conformance.cases.rules import definition

_TEXT: dict[str, Any] = {"type": "string", "maxLength": 20}
_NUMBER: dict[str, Any] = {"type": "integer"}
_PLACE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "x": _NUMBER,
        "set": {"type": "array", "maxItems": 5, "x-kubernetes-list-type": "set", "items": _TEXT},
        "map": {
            "type": "array",
            "maxItems": 5,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["k"],
            "items": {
                "type": "object",
                "required": ["k"],
                "properties": {"k": _TEXT, "v": _NUMBER, "when": {"type": "string", "format": "date-time"}},
            },
        },
        "atomic": {"type": "array", "maxItems": 5, "x-kubernetes-list-type": "atomic", "items": _TEXT},
        "nested": {"type": "array", "maxItems": 3, "items": {"type": "array", "maxItems": 3, "items": _NUMBER}},
        "deep": {
            "type": "object",
            "maxProperties": 3,
            "additionalProperties": {
                "type": "object",
                "properties": {"y": _NUMBER, "in": _TEXT, "a-b": _TEXT, "a.b": _TEXT, "__x": _TEXT},
            },
        },
        "nul": {"type": "integer", "nullable": True},
        "nulobj": {"type": "object", "nullable": True, "properties": {"y": _NUMBER}},
        "when": {"type": "string", "format": "date-time"},
        "day": {"type": "string", "format": "date"},
        "span": {"type": "string", "format": "duration"},
        "b": {"type": "string", "format": "byte", "maxLength": 20},
        "whens": {"type": "array", "maxItems": 3, "items": {"type": "string", "format": "date-time"}},
        "spans": {
            "type": "object",
            "maxProperties": 3,
            "additionalProperties": {"type": "string", "format": "duration"},
        },
        "ios": {"x-kubernetes-int-or-string": True},
        "ioss": {"type": "array", "maxItems": 3, "items": {"x-kubernetes-int-or-string": True}},
        "e": {"type": "string", "enum": ["A", "B"]},
        "d": {"type": "number"},
        "df": {"type": "integer", "default": 5},
        "bool": {"type": "boolean"},
        "pres": {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "properties": {"y": _NUMBER}},
        "emb": {
            "type": "object",
            "x-kubernetes-embedded-resource": True,
            "properties": {"spec": {"type": "object", "properties": {"y": _NUMBER}}},
        },
        "ip": {"type": "string", "format": "ipv4"},
        "i32": {"type": "integer", "format": "int32"},
        "u": {"type": "string", "format": "uuid"},
        "unset": _TEXT,
        "namespace": _TEXT,
        "package": _TEXT,
    },
}
_VALUE: dict[str, Any] = {
    "x": 1,
    "set": ["a", "b"],
    "map": [{"k": "a", "v": 1, "when": "2020-01-01T00:00:00Z"}, {"k": "b", "v": 2, "when": "2021-01-01T00:00:00Z"}],
    "atomic": ["a", "b"],
    "nested": [[1], [2, 3]],
    "deep": {"p": {"y": 1, "in": "i", "a-b": "ab", "a.b": "dot", "__x": "u"}, "q": {"y": 2}},
    "nul": None,
    "nulobj": None,
    "when": "2026-01-01T00:00:00Z",
    "day": "2026-01-02",
    "span": "90s",
    "b": "YQ==",
    "whens": ["2020-01-01T00:00:00Z"],
    "spans": {"a": "1h"},
    "ios": "5",
    "ioss": [1, "a"],
    "e": "A",
    "d": 1.5,
    "bool": True,
    "pres": {"y": 1, "z": 2},
    "emb": {"apiVersion": "v1", "kind": "K", "metadata": {"name": "a", "labels": {"l": "m"}}, "spec": {"y": 1}},
    "ip": "1.2.3.4",
    "i32": 5,
    "u": "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
    "namespace": "a",
    "package": "c",
}
_CHANGE: dict[str, Any] = {
    "x": 2,
    "set": ["b", "a"],
    "map": [{"k": "b", "v": 2, "when": "2021-01-01T00:00:00Z"}, {"k": "a", "v": 1, "when": "2020-01-01T00:00:00Z"}],
    "atomic": ["b", "a"],
    "when": "2026-01-02T00:00:00Z",
    "span": "2m",
}


def _asked(title: str, lines: str, **more: Any) -> None:
    """Add a case that asks each rule about a place of its own, of a new document and of a changed one."""
    plural = f"documents{digest(title)}"
    kind = plural.title()
    rules = [line for line in lines.split("\n") if line]
    places = {
        f"p{index:02}": {**_PLACE, "x-kubernetes-validations": [{"rule": rule, **more}]}
        for index, rule in enumerate(rules)
    }

    async def ask(api: Api) -> None:
        resource = f"{plural}:{kind}"
        whole = {"metadata": {"name": "a"}, "spec": dict.fromkeys(places, _VALUE)}
        answer = await api.create(resource, whole, query={"dryRun": "All"}, keep=["kind"])
        in_any_order(api)
        causes = (answer.get("details") or {}).get("causes") or []
        failed = {cause["field"].split(".")[1] for cause in causes}
        held = [place for place in places if place not in failed]
        await api.create(resource, {"metadata": {"name": "a"}, "spec": dict.fromkeys(held, _VALUE)}, quiet=True)
        await api.patch(resource, "a", {"spec": dict.fromkeys(held, _CHANGE)}, keep=["kind"])
        in_any_order(api)

    case(f"values that rules see: {title}", definition(plural, kind, {"type": "object", "properties": places}))(ask)


for _title, _lines in [
    (
        "lists of type set and map",
        r"""
self.set == ['b', 'a']
self.set == ['a', 'b']
self.set == ['a']
self.atomic == ['b', 'a']
self.set + ['c', 'a'] == ['a', 'b', 'c']
self.set + ['c'] == ['c', 'b', 'a']
self.atomic + ['a'] == ['a', 'b', 'a']
(self.set + self.set).size() == 2
self.map == self.map
self.map.map(i, i.k) == ['a', 'b']
(self.map + self.map).size() == 2
self.map.exists(i, i.k == 'a' && i.v == 1)
self.map.all(i, i.when < self.when)
self.map[0].when < self.map[1].when
self.map.filter(i, i.v > 1)[0].k == 'b'
self.map.map(i, i.when)[0] < self.when
self.map.size() == 2 && self.map[?1].hasValue()
self.set.exists_one(s, s == 'a')
self.set.all(s, self.set.exists_one(t, s == t))
self.set == oldSelf.set
self.map == oldSelf.map
self.atomic == oldSelf.atomic
oldSelf.map.all(o, self.map.exists(n, n.k == o.k && n.v >= o.v))
self.set.join('-') == 'a-b'
self.set[0].upperAscii() == 'A'
self.set.sort() == ['a', 'b']
self.set.isSorted()
self.set.indexOf('b') == 1
self.atomic.indexOf('b') == 1
sets.equivalent(self.set, ['b', 'a'])
sets.contains(self.set, self.atomic)
self.map.map(i, i.v).sum() == 3
self.map.map(i, i.v).max() == 2
self.map.sortBy(i, -i.v)[0].k == 'b'
self.map.transformMapEntry(i, m, {m.k: m.v}) == {'a': 1, 'b': 2}
self.map.transformMap(i, m, m.v)[1] == 2
self.set == self.atomic
""",
    ),
    (
        "times, durations and bytes",
        r"""
self.day == timestamp('2026-01-02T00:00:00Z')
self.day > self.when
self.span == duration('1m30s')
self.span < duration('1h')
self.when.getHours() == 0
self.when - timestamp('2025-12-31T00:00:00Z') == duration('24h')
self.when + self.span > self.when
string(self.when) == '2026-01-01T00:00:00Z'
string(self.span) == '90s'
self.b == b'a'
self.b.size() == 1
string(self.b) == 'a'
self.whens.all(w, w < self.when)
self.whens[0] < self.when
self.whens.exists(i, w, w < self.when)
self.whens.map(w, w.getFullYear()) == [2020]
self.spans.a == duration('1h')
self.spans['a'] > duration('1m')
self.spans.all(k, self.spans[k] > duration('1m'))
self.spans.all(k, v, v > duration('1m'))
self.when in self.whens
self.when >= oldSelf.when
self.span != oldSelf.span
oldSelf.when < self.when
self.when == self.day
""",
    ),
    (
        "objects, maps and absent members",
        r"""
self.deep.p.y == 1
self.deep['p'].y == 1
self.deep.p.__in__ == 'i'
self.deep.p.a__dash__b == 'ab'
self.deep.p.a__dot__b == 'dot'
self.deep.p.__underscores__x == 'u'
self.deep.all(k, self.deep[k].y > 0)
self.deep.all(k, v, v.y > 0)
self.deep.exists(k, v, k == 'p' && v.y == 1)
self.deep.map(k, self.deep[k].y).sum() == 3
has(self.nul)
has(self.nulobj)
self.nulobj == null
!has(self.nul) || self.nul > 1
self.?nul.hasValue()
self.nulobj.y == 1
self.df == 5
self.pres.y == 1
self.emb.spec.y == 1
self.emb.apiVersion == 'v1'
self.emb.metadata.name == 'a'
self.emb.metadata.generateName == 'a'
has(self.emb.metadata.generateName)
self.unset == 'a'
has(self.unset) && self.unset == 'a'
!has(self.unset)
self.?unset.orValue('z') == 'z'
self.?unset.optMap(u, u == 'a').orValue(true)
self.deep.?p.?y.orValue(0) == 1
self.deep[?'p'].?y.orValue(0) == 1
self.deep.?zz.?y.orValue(7) == 7
self.deep == {}
self.deep == oldSelf.deep
has(oldSelf.unset) || has(self.unset)
self.deep.transformList(k, v, v.y).sum() == 3
self.nul + 1 == 2
self.x == self.nul
[self.x, self.nul].size() == 2
self.namespace == 'a'
!has(self.namespace)
self.__namespace__ == 'a'
self.?package.orValue('') == 'c'
""",
    ),
    (
        "other values",
        r"""
self.nested[1][0] == 2
self.nested.map(n, n.sum()).sum() == 6
self.nested.all(n, n.all(i, i > 0))
self.ios == '5'
self.ios == 5
type(self.ios) == string
type(self.ios) == int ? self.ios > 3 : int(self.ios) > 3
self.ios > 3
self.ioss.all(i, type(i) == int || i == 'a')
self.ioss[0] == 1
self.e == 'C'
self.e in ['A']
self.d > 1
self.d == 1.5
self.d * 2.0 == 3.0
int(self.d) == 1
double(self.x) == 1.0
self.bool
!self.bool
self.bool == true
self.bool ? self.x == 1 : false
self.ip == '1.2.3.4'
ip(self.ip).family() == 4
self.i32 == 5
self.u.size() == 36
self == self
self.x == oldSelf.x
self.x > oldSelf.x
self == oldSelf
self.x + oldSelf.x == 3
self.e.matches('^[A-Z]$')
quantity('1Gi').compareTo(quantity('1024Mi')) == 0
self.x < self.d
self.e == self.u
""",
    ),
]:
    _asked(_title, _lines)

refused(
    "members and their types",
    r"""
self.nested[0][0] == 'a'
self.deep.p.z == 1
self.deep['p'].z == 1
self.deep.all(k, v, v.z > 0)
self.nul == null
self.span > 5
self.when == '2026-01-01T00:00:00Z'
self.b == 'YQ=='
self.pres.z == 2
has(self.pres.z)
self.emb.metadata.labels.l == 'm'
self.x.contains('a')
self.set.contains('a')
self.x.size() == 1
size(self.x) == 1
self.x == 1 && self.d == 1
self.x == self.d
[self.x, self.d].size() == 2
{'a': self.x, 'b': self.e}.size() == 2
self.set == self.nested
self.x ? true : false
self.x && true
self.e || true
self.bool == 'true'
self.set[self.e] == 'a'
""",
    _PLACE,
)

_asked(
    "the document before as an optional",
    r"""
!oldSelf.hasValue() || self.x > oldSelf.value().x
!oldSelf.hasValue() || self.when > oldSelf.value().when
!oldSelf.hasValue() || oldSelf.value().set == self.set
oldSelf.optMap(o, o.x < self.x).orValue(true)
oldSelf.optMap(o, o.when < self.when).orValue(true)
oldSelf.hasValue() ? self.span > oldSelf.value().span : self.span == duration('90s')
self.?when.optMap(w, w.getFullYear() == 2026).orValue(false) || oldSelf.hasValue()
self.?when.orValue(timestamp('2020-01-01T00:00:00Z')) > timestamp('2021-01-01T00:00:00Z') || oldSelf.hasValue()
self.?when.value() > timestamp('2021-01-01T00:00:00Z') || oldSelf.hasValue()
self.?unset.or(self.?e).orValue('z') == 'A' || oldSelf.hasValue()
self.spans[?'a'].optMap(s, s == duration('1h')).orValue(false) || oldSelf.hasValue()
self.?b.optMap(b, b == b'a').orValue(false) || oldSelf.hasValue()
self.whens[?0].optMap(w, w < self.when).orValue(false) || oldSelf.hasValue()
oldSelf.value().x == 1
oldSelf.hasValue() && oldSelf.value() == self
""",
    optionalOldSelf=True,
)
