"""The parts that decide whether ``nox -s peers`` passes: cases of the reports, exceptions, the table of the docs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.peers.__main__ import PAGE, Result
from tests.peers.suites import Cases, Suite, read_ginkgo, read_junit, suites

EXCEPTIONS: dict[str, dict[str, str]] = json.loads(Path(__file__).with_name("exceptions.json").read_text())
JUNIT = """<testsuites><testsuite>
<testcase classname="kr8s.tests.test_api" name="test_a"/>
<testcase classname="kr8s.tests.test_api" name="test_b"><failure message="m"/></testcase>
<testcase classname="kr8s.tests.test_api" name="test_c"><skipped/></testcase>
<testcase classname="kr8s.tests.test_api" name="test_d"><error/></testcase>
</testsuite></testsuites>"""


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
    rows = [line.split("|")[1].strip() for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    assert set(suites()) <= set(rows), "write the table with 'nox -s peers -- --docs'"
    assert set(EXCEPTIONS) <= set(suites())
    assert all(reason for reasons in EXCEPTIONS.values() for reason in reasons.values())
