"""The libraries that Kubernetes gives to CEL rules: what their functions answer, each in a rule of its own (26)."""

from __future__ import annotations

from typing import Any

from tests.conformance.api import Api
from tests.conformance.cases._case import case, digest, in_any_order
from tests.conformance.cases.rules import definition

_TEXT: dict[str, Any] = {"type": "string", "maxLength": 20}
PLACE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "b": {**_TEXT, "format": "byte"},
        "d": {"type": "number"},
        "e": {"type": "string", "enum": ["A", "B"]},
        "emb": {"type": "object", "x-kubernetes-embedded-resource": True, "x-kubernetes-preserve-unknown-fields": True},
        "ios": {"x-kubernetes-int-or-string": True},
        "l": {"type": "array", "maxItems": 3, "items": {"type": "string", "maxLength": 5}},
        "m": {"type": "object", "maxProperties": 3, "additionalProperties": {"type": "integer"}},
        "n": {"type": "array", "maxItems": 3, "items": {"type": "integer"}},
        "o": {"type": "object", "properties": {"y": {"type": "integer"}}},
        "os": {
            "type": "array",
            "maxItems": 3,
            "items": {
                "type": "object",
                "properties": {"t": {"type": "string", "format": "date-time"}, "y": {"type": "integer"}},
            },
        },
        "s": _TEXT,
        "span": {"type": "string", "format": "duration"},
        "when": {"type": "string", "format": "date-time"},
        "x": {"type": "integer"},
    },
}
"""What the rules are about."""

VALUE: dict[str, Any] = {
    "any": {"x": 1},
    "b": "YQ==",
    "d": 1,
    "e": "A",
    "emb": {"apiVersion": "v1", "kind": "K", "metadata": {"name": "a"}},
    "ios": 1,
    "l": ["a", "b"],
    "m": {"a": 1, "b": 2},
    "n": [1, 2],
    "o": {"y": 1},
    "os": [{"t": "2020-01-01T00:00:00Z", "y": 1}, {"t": "2020-01-01T00:00:00Z", "y": 2}],
    "s": "abc",
    "span": "1m",
    "when": "2026-01-01T00:00:00Z",
    "x": 1,
}


def answered(title: str, rules: list[dict[str, Any]]) -> None:
    """Add a case that asks each rule about a place of its own, so that the response tells of each."""
    plural = f"asked{digest(title)}"
    places = {f"p{index:02}": {**PLACE, "x-kubernetes-validations": [rule]} for index, rule in enumerate(rules)}
    kind = plural.title()

    async def ask(api: Api) -> None:
        await api.create(
            f"{plural}:{kind}", {"metadata": {"name": "a"}, "spec": dict.fromkeys(places, VALUE)}, keep=["kind"]
        )
        in_any_order(api)

    case(title, definition(plural, kind, {"type": "object", "properties": places}))(ask)


def answered_each(groups: list[tuple[str, str]]) -> None:
    """Add a case for each group of expressions, one in each line."""
    for title, lines in groups:
        answered(f"results of rules: {title}", [{"rule": line} for line in lines.split("\n") if line])


answered_each(
    [
        (
            "named formats",
            r"""
format.dns1123Label().validate(self.s).hasValue()
!format.dns1123Label().validate('abc').hasValue()
format.dns1123Label().validate('A_').hasValue()
format.dns1123Label().validate('A_').value()[0] == 'x'
format.dns1123Subdomain().validate('a.b').orValue([]).size() == 0
format.dns1123LabelPrefix().validate('a-').hasValue()
!format.dns1123SubdomainPrefix().validate('a.b-').hasValue()
!format.dns1035LabelPrefix().validate('a-').hasValue()
format.labelValue().validate('').hasValue()
format.uri().validate('http://a/b c').hasValue()
!format.uuid().validate('6ba7b810-9dad-11d1-80b4-00c04fd430c8').hasValue()
format.byte().validate('').hasValue()
format.byte().validate('YQ==').hasValue()
format.date().validate('2020-12-01').hasValue()
format.datetime().validate('2020-12-01T10:00:00Z').hasValue()
format.named('dns1123Label').hasValue()
format.named('nope').hasValue()
format.named('uri').value().validate('http://a').hasValue()
format.named('uuid').value().validate('x').hasValue()
format.named('email').hasValue()
format.named('nope').value().validate('x').hasValue()
format.dns1123Label() == format.dns1123Label()
format.dns1123Label() == format.uuid()
format.named('uri').value() == format.uri()
self.l.all(i, !format.dns1123Label().validate(i).hasValue())
self.m.all(k, v, !format.dns1123Label().validate(k).hasValue() && v > 0)
format.dns1123Label().validate('A').orValue(['z'])[0].contains('RFC')
format.dns1123Label().validate('A').optMap(x, x.size()).orValue(0) == 2
""",
        ),
        (
            "comprehensions of two variables",
            r"""
self.m.all(k, v, k != '' && v > 0)
self.m.all(k, v, v > 1)
self.l.all(i, v, i < 2)
self.l.all(i, v, v == 'a')
self.m.exists(k, v, v == 2)
self.m.exists(k, v, v == 9)
self.l.exists(i, v, i == 1 && v == 'b')
self.m.existsOne(k, v, v > 0)
self.m.existsOne(k, v, v > 1)
self.m.exists_one(k, v, v > 1)
self.l.existsOne(i, v, v == 'a')
self.m.transformList(k, v, v + 1).sum() == 5
self.m.transformList(k, v, v > 1, k) == ['b']
self.m.transformMap(k, v, v * 2) == {'a': 2, 'b': 4}
self.m.transformMap(k, v, v > 1, v * 2) == {'b': 4}
self.l.transformMap(i, v, v + '!')[1] == 'b!'
self.m.transformMapEntry(k, v, {v: k}) == {1: 'a', 2: 'b'}
self.m.transformMapEntry(k, v, v > 1, {k + 'x': v}) == {'bx': 2}
self.m.transformMapEntry(k, v, {'same': k}).size() == 1
self.l.transformMapEntry(i, v, {v: i}) == {'a': 0, 'b': 1}
self.os.all(i, o, o.y > 0)
self.os.transformList(i, o, o.y) == [1, 2]
self.os.transformMapEntry(i, o, {string(o.y): o}).size() == 2
self.os.exists(i, o, i > 0 && self.os[i - 1].y < o.y)
self.l.all(i, a, self.l.all(j, b, i == j || a != b))
self.m.map(k, self.m[k]).sum() == 3
self.m.filter(k, self.m[k] > 1) == ['b']
self.m.all(k, k != '')
""",
        ),
        (
            "functions of lists",
            r"""
[3, 1, 2].sort() == [1, 2, 3]
[[1], [2, 3]].flatten() == [1, 2, 3]
[1, 2, 3].slice(0, 2) == [1, 2]
[1, 2, 3].slice(1, 9) == [1]
[1, 1, 2].distinct() == [1, 2]
[1, 2].reverse() == [2, 1]
lists.range(3) == [0, 1, 2]
self.os.sortBy(o, -o.y)[0].y == 2
[1, 2].first().value() == 1
[1, 2].last().value() == 2
self.l.first().orValue('') == 'a'
[1, 2, 2].indexOf(2) == 1
[1, 2, 2].lastIndexOf(2) == 2
self.l.indexOf('b') == 1
[1, 2].sum() == 3
[1.5, 2.5].sum() == 4.0
[duration('1m'), duration('1s')].sum() == duration('61s')
[1, 2].min() == 1
[].max() == 1
self.n.filter(i, i > 100).max() == 1
self.n.filter(i, i > 100).sum() == 0
[1, 2].isSorted()
[2, 1].isSorted()
[true, false].isSorted()
[timestamp('2020-01-01T00:00:00Z')].min() == timestamp('2020-01-01T00:00:00Z')
""",
        ),
        (
            "regular expressions",
            r"""
'abc 123'.find('[0-9]+') == '123'
'abc 123 456'.findAll('[0-9]+') == ['123', '456']
'abc 123 456'.findAll('[0-9]+', 1) == ['123']
'abc 123 456'.findAll('[0-9]*').size() == 3
self.s.matches(self.l[0])
self.s.matches('(?P<x>a)')
self.s.find('(?i)ABC') == 'abc'
'abc'.findAll('b', 0) == []
""",
        ),
        (
            "URLs",
            r"""
isURL('https://user:pass@example.com:80/path?query=val#fragment')
isURL('../relative')
isURL('nope')
isURL('/abs')
isURL('https://a:b:c/')
isURL('https://a b/')
isURL('mailto:x@y')
isURL('')
url('https://example.com:80/').getHost() == 'example.com:80'
url('https://[::1]:80/').getHost() == '[::1]:80'
url('https://[::1]:80/').getHostname() == '::1'
url('https://EXAMPLE.com/').getHostname() == 'EXAMPLE.com'
url('https://example.com:80/').getPort() == '80'
url('https://example.com/').getPort() == ''
url('https://example.com/path with spaces/').getEscapedPath() == '/path%20with%20spaces/'
url('https://example.com').getEscapedPath() == ''
url('https://example.com/path?k1=a&k2=b&k2=c').getQuery() == {'k1': ['a'], 'k2': ['b', 'c']}
url('https://example.com/path?').getQuery() == {}
url('https://example.com/path?k').getQuery() == {'k': ['']}
url('HTTPS://example.com/').getScheme() == 'https'
url('../x').getHost() == ''
url('/path').getHost() == ''
url('https://a/') == url('https://a/')
url('https://a/').getHost().size() > 100
""",
        ),
        (
            "quantities",
            r"""
quantity('1.5G') == quantity('1500M')
quantity('1') == quantity('1.0')
quantity('50k').add(quantity('20k')) == quantity('70k')
quantity('50k').add(20) == quantity('50020')
quantity('50k').sub(20000) == quantity('30k')
quantity('') == quantity('0')
isQuantity('1,3G')
isQuantity('1.3Gi')
isQuantity('1e3')
isQuantity('1E3')
isQuantity('.5')
isQuantity('5.')
isQuantity('+5m')
isQuantity('1 ')
isQuantity('1Ki1')
quantity('0.5').isInteger()
quantity('1e3').isInteger()
quantity('1500m').asInteger() == 1
quantity('50k').asInteger() == 50000
quantity('9999999999999999999999999999999999999G').asInteger() == 1
quantity('9999999999999999999999999999999999999G').isInteger()
quantity('50k').asApproximateFloat() == 50000.0
quantity('0.1').asApproximateFloat() == 0.1
sign(quantity('-1')) == -1
quantity('50M').compareTo(quantity('50Mi')) == -1
quantity('100M').isLessThan(quantity('50M'))
quantity('100M').isGreaterThan(quantity('50M'))
""",
        ),
        (
            "IP addresses",
            r"""
isIP('127.0.0.1')
isIP('127.0.0.01')
isIP('::ffff:1.2.3.4')
isIP('fe80::1%eth0')
isIP('1.2.3')
ip('127.0.0.1').family() == 4
ip('::1').family() == 6
ip('127.0.0.256').family() == 4
ip('::ffff:1.2.3.4').family() == 6
ip('fe80::1%eth0').family() == 6
ip('0.0.0.0').isUnspecified()
ip('127.0.0.1').isLoopback()
ip('224.0.0.1').isLinkLocalMulticast()
ip('224.0.1.1').isLinkLocalMulticast()
ip('ff02::1').isLinkLocalMulticast()
ip('ff05::1').isLinkLocalMulticast()
ip('169.254.169.254').isLinkLocalUnicast()
ip('fe80::1').isLinkLocalUnicast()
ip('255.255.255.255').isGlobalUnicast()
ip('0.0.0.0').isGlobalUnicast()
ip('192.168.0.1').isGlobalUnicast()
ip('ff00::1').isGlobalUnicast()
ip('fe80::1').isGlobalUnicast()
ip('10.0.0.1') == ip('10.0.0.1')
ip('::1') == ip('0:0::1')
ip.isCanonical('2001:DB8::ABCD')
ip.isCanonical('2001:db8::abcd')
ip.isCanonical('x')
string(ip('0:0::1')) == '::1'
""",
        ),
        (
            "networks",
            r"""
isCIDR('192.168.0.0/16')
isCIDR('192.168.0.1/16')
isCIDR('192.168.0.0/33')
isCIDR('192.168.0.0')
isCIDR('::ffff:1.2.3.4/24')
isCIDR('10.0.0.0/08')
cidr('192.168.0.0/33').prefixLength() == 1
cidr('x').prefixLength() == 1
cidr('192.168.0.0/24').containsIP(ip('192.168.0.1'))
cidr('192.168.0.0/24').containsIP('192.168.1.1')
cidr('192.168.0.0/24').containsIP('x')
cidr('192.168.0.0/16').containsCIDR(cidr('192.168.10.0/24'))
cidr('192.168.0.0/16').containsCIDR('192.168.0.0/8')
cidr('192.168.0.1/24').ip().family() == 4
cidr('192.168.0.1/24').ip() == ip('192.168.0.1')
cidr('192.168.0.1/24').masked() == cidr('192.168.0.0/24')
cidr('192.168.0.1/24') == cidr('192.168.0.0/24')
cidr('192.168.0.1/24').prefixLength() == 24
string(cidr('192.168.0.1/24')) == '192.168.0.1/24'
""",
        ),
        (
            "semantic versions",
            r"""
semver('1.2.3').compareTo(semver('2.0.0')) == -1
semver('1.2.3') == semver('1.2.3+b')
semver('1.2.3-alpha').isLessThan(semver('1.2.3'))
semver('1.2.3-alpha.1').isLessThan(semver('1.2.3-alpha.beta'))
semver('v1.0.0').major() == 1
semver('v1.0.0', true).major() == 1
semver('1.0', true) == semver('1.0.0')
semver('01.01.01', true).minor() == 1
semver('01.01.01').minor() == 1
semver('1.0').minor() == 1
semver('Three').minor() == 1
semver('1.0-a', true).minor() == 0
isSemver('1.0.0')
isSemver('v1.0')
isSemver('v1.0', true)
isSemver('1.0.0-01')
isSemver('1.0.0-')
isSemver('')
semver('1.2.3').patch() == 3
""",
        ),
    ],
)

_COMPLAINTS = r"""
byte %
date 2020-13-01
datetime 2020-12-01
dns1035Label 1a
dns1035LabelPrefix 1-
dns1123Label A_
dns1123Label a.b
dns1123LabelPrefix -
dns1123Subdomain a..b
dns1123SubdomainPrefix a..-
labelValue -a
labelValue aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
dns1123Label aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
qualifiedName a/b/c
qualifiedName A@/b
qualifiedName /b
qualifiedName a/
uri nope
uri http://[::1
uri a b://x
uri http://a:b
uri http://a b/
uri :x
uri /a%zz
uuid x
"""
answered(
    "error messages of named formats",
    [
        {
            "rule": "size(self.s) > 9",
            "messageExpression": f"format.{name}().validate('{text}').orValue(['nothing'])[0]",
        }
        for name, _, text in (line.partition(" ") for line in _COMPLAINTS.split("\n") if line)
    ],
)
