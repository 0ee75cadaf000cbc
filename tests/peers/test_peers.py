"""The parts that decide whether ``nox -s ecosystem`` passes: cases, exceptions, the table of the docs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.peers.__main__ import TABLE, Result
from tests.peers.suites import (
    Cases,
    NotAvailable,
    Suite,
    read_ginkgo,
    read_junit,
    read_libtest,
    read_testing,
    suites,
)

EXCEPTIONS: dict[str, dict[str, str]] = json.loads(Path(__file__).with_name("exceptions.json").read_text())
JUNIT = """<testsuites><testsuite>
<testcase classname="kr8s.tests.test_api" name="test_a"/>
<testcase classname="kr8s.tests.test_api" name="test_b"><failure message="m"/></testcase>
<testcase classname="kr8s.tests.test_api" name="test_c"><skipped/></testcase>
<testcase classname="kr8s.tests.test_api" name="test_d"><error/></testcase>
</testsuite></testsuites>"""
LIBTEST = """
running 6 tests
test client::test_a ... ok
test client::test_b ... FAILED
test client::test_c ... ignored, needs a node
test client::test_d - should panic ... ok
test client::test_e ... a warning of a program: all is ok
ok
test client::test_f ... a process that ends
"""
TESTING = """
=== RUN   TestPatch
=== RUN   TestPatch/a
I1201 07:35:11.1 a log without an end of line--- PASS: TestWatch (0.01s)
--- FAIL: TestPatch (1.25s)
    --- PASS: TestPatch/a (0.25s)
        --- PASS: TestPatch/a/deep (0.25s)
    --- FAIL: TestPatch/b (0.00s)
    --- SKIP: TestPatch/c (0.00s)
FAIL
"""


def spec(name: str, state: str, kind: str = "It") -> dict[str, Any]:
    return {"LeafNodeType": kind, "ContainerHierarchyTexts": ["Client", "Get"], "LeafNodeText": name, "State": state}


def result(real: Cases, embedded: Cases, **reasons: str) -> Result:
    suite = Suite("client", "controller-runtime 1", lambda: lambda _kubeconfig, _part: {})
    return Result(suite, {"embedded": embedded, "real": real}, reasons)


def test_cases_of_ginkgo() -> None:
    specs = [spec("a", "passed"), spec("a", "panicked"), spec("b", "pending"), spec("", "failed", "BeforeSuite")]
    assert read_ginkgo([{"SpecReports": specs}, {"SpecReports": None}]) == {
        "Client Get a": "passed",
        "Client Get a (2)": "failed",
        "Client Get b": "skipped",
    }


def test_cases_of_junit() -> None:
    states = ("passed", "failed", "skipped", "failed")
    expected = {f"test_api test_{letter}": state for letter, state in zip("abcd", states, strict=True)}
    assert read_junit(JUNIT) == expected


def test_cases_of_rust() -> None:
    states = ("passed", "failed", "skipped", "passed", "passed")
    expected = {f"client::test_{letter}": state for letter, state in zip("abcde", states, strict=True)}
    assert read_libtest(LIBTEST) == expected


def test_cases_of_go() -> None:
    assert read_testing(TESTING) == {
        "TestWatch": "passed",
        "TestPatch": "failed",
        "TestPatch/a": "passed",
        "TestPatch/a/deep": "passed",
        "TestPatch/b": "failed",
        "TestPatch/c": "skipped",
    }


def test_a_suite_whose_sources_you_fetch_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KUBEBUILDER_CHECKOUT", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(NotAvailable, match=r"set KUBEBUILDER_CHECKOUT to a checkout: git clone https://github\.com/"):
        suites()["cronjob-webhook"].prepare()


def test_a_case_that_only_the_real_server_passes_fails_the_suite_unless_a_reason_is_given() -> None:
    real = {"a": "passed", "b": "passed", "c": "failed", "d": "skipped"}
    found = result(real, {"a": "passed", "c": "passed"})
    assert (found.missing, found.failed) == (["b"], True)
    excused = result(real, {"a": "passed", "b": "failed", "c": "passed"}, b="needs a kubelet")
    assert (excused.missing, excused.failed) == (["b"], False)
    assert excused.row() == "| client | controller-runtime 1 | 2 of 3 | 2 of 3 | 1: needs a kubelet |"
    assert not result(real, real).failed


def test_a_suite_that_shows_nothing_fails() -> None:
    assert result({}, {}).failed
    assert result({"a": "failed"}, {"a": "failed"}).failed


def test_the_docs_and_the_exceptions_name_the_suites() -> None:
    rows = [line.split("|")[1].strip() for line in TABLE.read_text().splitlines() if line.startswith("| ")]
    assert set(suites()) <= set(rows), "write the table with 'nox -s ecosystem -- --docs'"
    assert set(EXCEPTIONS) <= set(suites())
    assert all(reason for reasons in EXCEPTIONS.values() for reason in reasons.values())
