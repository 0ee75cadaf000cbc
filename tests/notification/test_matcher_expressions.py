"""Regular expressions of matchers: RE2's syntax and meaning, on an engine that is there on every platform."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.errors import _GLIBC_ONLY
from reconciler.notification.matchers import Matcher, MatcherError

_PARTS = r"""a b é . \d \D \w \W \s \S \b \B [ab] [^a] [[a] []a] [^]a] [a&&b] [a~~b] [[:alpha:]x] [\w-] [^\W] \Qa.b[\E {
 a{ {a} a{2} (a) (?i:K) (?i) (?s) (?<n>b)
 (?P<m>\d+) (?<k>[[a]) (?P<o> (?i: (?-s: )
 \. \< \_ \101 \x41 \x{e9} \pL \p{Lu} ^ $ \A \z | * + ? {1,2} {,2} *? \n & ~
 - ] (
 \ \1 \8 \u1234 \e (?x) (?=a) (?R) [\[] [a\]b] \Z"""
PARTS = _PARTS.split()
LETTERS = "abéAkK\u212a1\u0663_ \n\u00a0-[]{}&~.<,2\u0301"


@given(st.lists(st.sampled_from(PARTS), max_size=5).map("".join), st.lists(st.text(LETTERS, max_size=5), max_size=5))
def test_an_expression_means_what_it_means_to_re2(expression: str, texts: list[str]) -> None:
    re2 = pytest.importorskip("re2", reason="there is nothing to compare with")
    options = re2.Options()
    options.log_errors = False
    try:
        expected = re2.compile(f"(?:{expression})", options)
        re2.compile(expression, options)
    except re2.error:
        with pytest.raises(MatcherError):
            Matcher("x", "=~", expression)
        return
    try:
        matcher = Matcher("x", "=~", expression)
    except MatcherError as error:
        refused = "duplicate capture group name|repetition operator missing expression"  # Go refuses the first, too
        assert re.search(refused, str(error))  # noqa: PT017
        return
    for text in texts:
        assert matcher.matches({"x": text}) == (expected.fullmatch(text) is not None)


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("(", "unclosed group"),
        ("a)(b", "unopened group"),
        ("a**", r"\* repeats a repetition"),
        (r"(a)\1", r"\\1 is not valid in RE2's syntax|backreferences"),
        ("(?=a)", r"\(\?=a\) is not valid in RE2's syntax"),
        ("(a{1000}){1000}", "exceeds size limit"),
        ("(" * 100_000, ""),
    ],
)
def test_an_invalid_or_huge_expression_is_an_error(expression: str, reason: str) -> None:
    with pytest.raises(MatcherError, match=f"^invalid regular expression .*{reason}"):
        Matcher("x", "=~", expression)


@pytest.mark.parametrize("part", [r"\x{", r"\Qa", "(?", "(?P<n", "[:a", "{1", "{1,", "[", "a|"])
def test_a_hostile_expression_is_read_in_linear_time(part: str) -> None:
    with contextlib.suppress(MatcherError):
        Matcher("x", "=~", part * 50_000)


@pytest.mark.parametrize("expression", ["(a+)+b", "(a|a)*b", "(.*)*b", "(a?){500}b"])
def test_a_hostile_value_is_matched_in_linear_time(expression: str) -> None:
    assert Matcher("x", "!~", expression).matches({"x": "a" * 200_000})


def test_matchers_and_redaction_work_without_the_packages_that_have_no_wheels_for_musl() -> None:
    program = """
import sys
sys.modules.update(re2=None, cel_expr_python=None)
from reconciler.errors import MissingExtra
from reconciler.notification import NotificationOperator, NotificationOptions, Redactor
from reconciler.notification.matchers import parse_matchers
print([each.matches({"team": "storage"}) for each in parse_matchers('team =~ "sto.*", team !~ "net|db"')])
print(Redactor(lambda: ["pass phrase", "phrase two"]).redact("a pass phrase two b"))
try:
    NotificationOperator(NotificationOptions(redact=["x"]))
except MissingExtra as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "[True, True]",
        "a [REDACTED] b",
        f"a pattern of secrets needs google-re2: pip install 'kube-reconciler[re2]' ({_GLIBC_ONLY})",
    ]
