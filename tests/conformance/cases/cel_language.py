"""The language of CEL rules: what expressions answer, and which are refused with their definition (26)."""

from __future__ import annotations

from typing import Any

from tests.conformance.api import Api
from tests.conformance.cases._case import case, digest
from tests.conformance.cases.cel_functions import PLACE, answered_each
from tests.conformance.cases.rules import definition

answered_each(
    [
        (
            "sets and strings",
            r"""
sets.contains([1, 2], [1])
sets.contains([1], [1, 2])
sets.equivalent([1, 1], [1])
sets.intersects([1], [2])
sets.contains(self.l, ['a'])
'hello'.charAt(1) == 'e'
'hello'.indexOf('l') == 2
'hello'.indexOf('l', 3) == 3
'hello'.lastIndexOf('l') == 3
'hello'.lastIndexOf('l', 2) == 2
'ABC'.lowerAscii() == 'abc'
'abc'.upperAscii() == 'ABC'
'hello'.replace('l', 'L') == 'heLLo'
'hello'.replace('l', 'L', 1) == 'heLlo'
'a,b,c'.split(',') == ['a', 'b', 'c']
'a,b,c'.split(',', 2) == ['a', 'b,c']
'hello'.substring(1) == 'ello'
'hello'.substring(1, 3) == 'el'
'  a '.trim() == 'a'
strings.quote('a"b') == '"a\\"b"'
'%s %d %.2f %x %e %b %o'.format(['a', 1, 2.5, 255, 1.0, 5, 8]) == 'x'
'%s'.format([[1, 2]]) == '[1, 2]'
'%s'.format([null]) == 'null'
""",
        ),
        (
            "optionals",
            r"""
optional.of(1).hasValue()
optional.none().hasValue()
optional.ofNonZeroValue(0).hasValue()
self.?s.orValue('x') == 'abc'
self.m[?'a'].orValue(5) == 1
self.m[?'zz'].orValue(5) == 5
self.m.?a.orValue(5) == 1
self.l[?5].hasValue()
optional.of(1).or(optional.of(2)).value() == 1
optional.none().value() == 1
optional.of(1).optMap(x, x + 1).value() == 2
optional.of(1).optFlatMap(x, optional.of(x + 1)).value() == 2
{?'a': optional.of(1)} == {'a': 1}
[?optional.none(), 1] == [1]
""",
        ),
        (
            "numbers and conversions",
            r"""
self.x < 1.5
self.d < 2
1 in self.n
'a' in self.m
self.x / 0 == 1
self.x % 0 == 1
9223372036854775807 + self.x > 0
-9223372036854775808 - self.x > 0
uint(-self.x) == 1u
int(2.9) == 2
int('12') == 12
double('1.5') == 1.5
bool('true')
string(1.0) == '1'
string(true) == 'true'
bytes('a') == b'a'
string(b'a') == 'a'
duration('1h').getHours() == 1
duration(self.s).getHours() == 1
timestamp(self.s) == timestamp('2020-01-01T00:00:00Z')
timestamp('2020-01-01T00:00:00Z').getFullYear() == 2020
timestamp('2020-01-01T00:00:00Z').getDayOfWeek('America/New_York') == 2
timestamp('2020-01-01T00:00:00Z') + duration('24h') == timestamp('2020-01-02T00:00:00Z')
timestamp('2020-01-02T00:00:00Z') - timestamp('2020-01-01T00:00:00Z') == duration('24h')
type(self.x) == int
type(self) == map
dyn(self.x) == 'a'
""",
        ),
        (
            "lookups",
            r"""
self.m['zz'] == 1
self.l[9] == 'a'
self.n[-1] == 1
has(self.m.a)
has(self.m.zz)
has(self.x)
size(self.m) == 2
self.s + self.s == 'abcabc'
self.s > 'abb'
self.l + ['c'] == ['a', 'b', 'c']
self.m == {'a': 1, 'b': 2}
self.os[0] == self.os[0]
self.os[0].y == 1
self.os.map(o, o.y) == [1, 2]
self.os.map(o, o.y > 1, o.y) == [2]
self.os.filter(o, o.y > 1).size() == 1
self.os.exists_one(o, o.y == 1)
self.os == []
{'a': 1}.a == 1
self.x > 0 || self.m['zz'] > 0
self.m['zz'] > 0 || self.x > 0
self.m['zz'] > 0 && self.x > 5
""",
        ),
        (
            "times, formats and literals",
            r"""
self.when > timestamp('2020-01-01T00:00:00Z')
self.when.getFullYear() == 2026
self.span == duration('1m')
self.os.all(o, o.t < self.when)
self.e == 'A'
self.ios == 1
self.ios == 'a'
self.b == bytes('a')
self.emb.metadata.name == 'a'
self.emb.kind == 'K'
quantity(self.s).isLessThan(quantity('1'))
'\u00e9'.size() == 1
size(bytes('\u00e9')) == 2
"abc".contains('b') && 'abc'.startsWith('a') && 'abc'.endsWith('c')
self.s.split('').size() == 3
oldSelf.x == 1
[optional.of(1)].size() == 1
self.os.all(o, has(o.y))
int(timestamp('2020-01-01T00:00:00Z')) == 1577836800
string(timestamp('2020-01-01T00:00:00Z')) == '2020-01-01T00:00:00Z'
string(duration('90s')) == '90s'
self.d == 1.0
[1, 2] == [1, 2]
[1, 2][0] == 1
self.e in ['A', 'B']
self.m.exists(k, k == 'a' && self.m[k] == 1)
[[1, 2], [3]].map(x, x.sum()) == [3, 3]
self.l.join(',').split(',') == self.l
self.s.format([]) == 'abc'
""",
        ),
    ],
)


def refused(title: str, lines: str, place: dict[str, Any] = PLACE) -> None:
    """Add a case that defines a kind for each expression about a place."""
    plural = f"refused{digest(title)}"

    async def define(api: Api) -> None:
        for line in lines.split("\n"):
            if line:
                spec = {**place, "x-kubernetes-validations": [{"rule": line}]}
                await api.call(
                    "POST",
                    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
                    definition(plural, plural.title(), spec),
                    query={"dryRun": "All"},
                    keep=["kind"],
                )

    case(f"which rules are refused: {title}")(define)


for _title, _lines in (
    *[
        (
            "formats and comprehensions",
            r"""
format.dns1123Label()
format.dns1123Label().validate('a')
format.dns1123Label().validate(1).hasValue()
format.nope().validate('a').hasValue()
self.s.validate('x').hasValue()
self.m.transformMap(k, v, v)
self.m.all(k, v, v)
self.m.all(k, v, k > 1)
self.x.all(k, v, true)
self.m.all(k, v, undefinedvar)
self.os.all(i, o, o.z > 0)
""",
        ),
        (
            "functions of the libraries",
            r"""
[[1, [2]]].flatten(2).size() == 2
[1, 2].first() == 1
self.l.indexOf(1) == 1
[1, 'a'].sum() == 1
['a'].sum() == 'a'
'abc'.find('[') == ''
'abc'.matches('[')
self.s.find('a(?=b)') == 'a'
url('https://a/') == 'https://a/'
string(url('https://a/')) == 'https://a/'
quantity('50k').add('20k') == quantity('70k')
quantity('100M').isGreaterThan('50M')
quantity('100M') > quantity('50M')
quantity(1) == quantity('1')
quantity('1') == semver('1.0.0')
quantity('1').major() == 1
string(quantity('1')) == '1'
sets.intersects([1], ['a'])
'abc'.reverse() == 'cba'
self.?missing.orValue('x') == 'abc'
self.?none.hasValue()
math.greatest(1, 2) == 2
base64.encode(b'a') == 'YQ=='
base64.decode('YQ==') == b'a'
hash('a') == 1
json.marshal('a') == 'a'
regex.extract('a', 'a').hasValue()
'a'.reverse() == 'a'
""",
        ),
        (
            "types and literals",
            r"""
self.x == 1.0
self.x in self.l
int('x') == 1
double('x') == 1.5
bool('x')
duration('1x').getHours() == 1
timestamp('x') == timestamp('x')
has(self.nope)
{1: 'a', 'b': 2} == {}
[1, 'a'] == []
true ? 1 : 'a'
!self.x
-self.s == ''
self.any.x == 1
now() > timestamp('2020-01-01T00:00:00Z')
jsonpatch.escapeKey('a') == 'a'
self.os.all(o, has(o.z))
1 == 1.0
self.x == 1u
self.x + 1u == 2u
'a' == 1
null == self.s
self.s == null
self.l['0'] == 'a'
self.x.y == 1
self.s.y == 1
'abc'[0] == 'a'
"\d" == 'd'
self.s ==
self.s == 'unterminated
foo(self.s)
""",
        ),
    ],
):
    refused(_title, _lines)
