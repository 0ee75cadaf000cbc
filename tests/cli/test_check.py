"""``reconciler check``: an operator under disturbances, from the command line."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.test_command_line import run

OPERATOR = """
from pydantic import Field, field_validator
from reconciler import ConditionedStatus, Model, Resource, ResourceReconciler, Result

class SiteSpec(Model):
    pages: int = Field(default=1, ge=0, le=9)
    title: str = "none"

class SiteStatus(ConditionedStatus):
    config_map: str | None = None

class Site(Resource[SiteSpec, SiteStatus], group="example.com", version="v1"):
    "A site."

def content(site):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": site.name, "namespace": site.namespace},
            "data": {"pages": str(site.spec.pages), "title": site.spec.title}}

class Good(ResourceReconciler[Site]):
    async def reconcile_object(self, site, status):
        await self.client.apply(content(site), owner=site)
        status.set(config_map=site.name)

class Forgetful(ResourceReconciler[Site]):
    async def reconcile_object(self, site, status):
        body = content(site)
        owner = {"apiVersion": "example.com/v1", "kind": "Site", "name": site.name, "uid": site.metadata.uid}
        body["metadata"]["ownerReferences"] = [{**owner, "controller": True, "blockOwnerDeletion": True}]
        if site.status.config_map is None:
            body["metadata"]["generateName"] = body["metadata"].pop("name") + "-"
            body = await self.client.create(body)
        else:
            body["metadata"]["name"] = site.status.config_map
            await self.client.apply(body)
        status.set(config_map=body["metadata"]["name"])

class Counting(ResourceReconciler[Site]):
    count = 0
    async def reconcile_object(self, site, status):
        if site.status.config_map is None:
            Counting.count += 1
            status.set(config_map=f"site-{Counting.count}")

class Unstable(ResourceReconciler[Site]):
    async def reconcile_object(self, site, status):
        status.set(config_map=(site.status.config_map or "") + "x")

class Restless(ResourceReconciler[Site]):
    async def reconcile_object(self, site, status):
        status.set(config_map="x" if site.status.config_map == "y" else "y")
        return Result(again=True)

def add(manager):
    manager.add_controller(Good(), owns=["v1/ConfigMap"])

instance = Good()
"""
EXAMPLE = """
apiVersion: v1
kind: Secret
metadata: {name: key, namespace: default}
---
apiVersion: example.com/v1
kind: Site
metadata: {name: blog, namespace: default}
spec: {pages: 3}
"""
CRD = Path(__file__).parents[1] / "explore" / "site_crd.yaml"
SHORT = ("--example", "site.yaml", "--owns", "v1/ConfigMap", "--runs", "3")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "checked_operator.py").write_text(OPERATOR)
    (tmp_path / "site.yaml").write_text(EXAMPLE)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name == "checked_operator":
            del sys.modules[name]


def test_a_correct_operator_passes_and_the_table_says_what_was_tried(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "check", "checked_operator:Good", *SHORT, "--junit", "results/check.xml")
    assert code == 0
    assert "changes: undisturbed runs\n" in err
    assert "nothing was found" in out
    assert "changes  │ crash" in out
    assert "deletion │ crash" in out
    suites = ET.parse("results/check.xml").getroot()
    assert [suite.get("name") for suite in suites] == [
        f"checked_operator:Good {each}" for each in ("changes", "deletion")
    ]
    assert [(suite.get("tests"), suite.get("failures")) for suite in suites] == [("4", "0"), ("4", "0")]


def test_each_field_is_changed(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(
        capsys, "check", "checked_operator:add", "--example", "site.yaml", "--runs", "1", "--output=json"
    )
    assert code == 0
    assert json.loads(out)["changed"] == ["spec.pages", "spec.title"]


def test_a_failure_is_reported_with_the_command_that_repeats_it(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "check", "checked_operator:Forgetful", *SHORT, "--junit", "check.xml")
    assert code == 1
    assert "the process is killed right after create configmaps" in out
    assert "ConfigMap was created 2 times for Site default/blog" in out
    assert "checked_operator.py:" in out
    assert "1 failure\n" in out
    line = out.partition("--repeat '")[2].partition("'")[0]
    assert line.startswith("changes seed=0 ")
    failures = ET.parse("check.xml").getroot().findall(".//failure")
    assert ["ConfigMap was created 2 times" in str(each.text) for each in failures] == [True]
    code, again, _ = run(capsys, "check", "checked_operator:Forgetful", *SHORT, "--repeat", line)
    assert code == 1
    assert "ConfigMap was created 2 times for Site default/blog" in again
    assert run(capsys, "check", "checked_operator:Good", *SHORT, "--repeat", "changes seed=0")[0] == 0


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("Counting", "deterministic: two undisturbed runs with the same seed differ at call"),
        ("Unstable", "stable: nothing had changed, and yet a further reconcile wrote"),
        ("Restless", "settles: the operator still works after"),
    ],
)
def test_what_is_wrong_without_a_disturbance_is_the_first_finding(
    capsys: pytest.CaptureFixture[str], target: str, says: str
) -> None:
    code, out, _ = run(capsys, "check", f"checked_operator:{target}", *SHORT)
    assert code == 1
    assert "Nothing was disturbed yet, and already this is wrong." in out
    assert says in out


BAD = "kind: Site\napiVersion: example.com/v1\nmetadata: {name: blog}\nspec: {pages: 77}\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["checked_operator:Good", "--example", "bad.yaml"], "refuses Site blog: spec.pages: Invalid value: 77"),
        (["checked_operator:Good", "--example", "none.yaml"], "cannot read none.yaml"),
        (["checked_operator:Good", "--example", "other.yaml"], "contains Secret, but the operator reconciles Site.ex"),
        (["checked_operator:Good", "--example", "nameless.yaml"], "Site has no metadata.name"),
        (["checked_operator:instance", "--example", "site.yaml"], "pass the class Good"),
        (["checked_operator:Bad", "--example", "site.yaml"], "has no 'Bad'"),
        (["no_such_module:Bad", "--example", "site.yaml"], "no module 'no_such_module'"),
        (["--example", "site.yaml"], "pass either MODULE:ATTR, or --exec"),
        (["a:b", "--exec", "x", "--example", "site.yaml"], "pass either MODULE:ATTR, or --exec"),
        (["--exec", "./x", "--example", "site.yaml"], "--exec needs the CustomResourceDefinition of the example"),
        (["--exec", "'x", "--objects", str(CRD), "--example", "site.yaml"], "is not a command: No closing quotation"),
        (["checked_operator:Good", *SHORT, "--repeat", "nonsense"], "--repeat must begin with changes or deletion"),
        (["checked_operator:Good", *SHORT, "--repeat", "changes nonsense"], "'nonsense' is not a disturbance"),
    ],
)
def test_mistakes_are_one_line(capsys: pytest.CaptureFixture[str], here: Path, arguments: list[str], says: str) -> None:
    (here / "bad.yaml").write_text(BAD)
    (here / "nameless.yaml").write_text(BAD.replace("name: blog", ""))
    (here / "other.yaml").write_text(EXAMPLE.partition("---")[0])
    code, out, err = run(capsys, "check", *arguments)
    assert (code, out) == (1, "")
    assert says in err
    assert err.count("\n") == 1


PROGRAM = """
import asyncio, os, sys
sys.path.insert(0, os.getcwd())
import checked_operator
from reconciler import Client, Manager

async def main():
    async with Client.from_config() as client:
        manager = Manager(client)
        manager.add_controller(getattr(checked_operator, sys.argv[1])(), owns=["v1/ConfigMap"])
        await manager.run()

asyncio.run(main())
"""


@pytest.fixture
def program(here: Path) -> str:
    (here / "manager.py").write_text(PROGRAM)
    return f"{sys.executable} manager.py"


def with_exec(command: str, *more: str) -> list[str]:
    return [
        "check",
        "--exec",
        command,
        "--objects",
        str(CRD),
        "--example",
        "site.yaml",
        "--runs",
        "1",
        "--budget",
        "60",
        *more,
    ]


@pytest.mark.thorough
@pytest.mark.timeout(400)
def test_a_program_is_disturbed_over_sockets(capsys: pytest.CaptureFixture[str], program: str) -> None:
    code, out, err = run(capsys, *with_exec(f"{program} Good"))
    assert code == 0, out
    assert "recreation: undisturbed runs\n" in err
    assert "nothing was found" in out


@pytest.mark.timeout(240)
def test_a_bug_of_a_program_is_found(capsys: pytest.CaptureFixture[str], program: str) -> None:
    code, out, _ = run(capsys, *with_exec(f"{program} Forgetful"))
    assert code == 1
    assert "the process is killed right after create configmaps" in out
    assert "ConfigMap was created 2 times for Site default/blog" in out
    assert f"reconciler check --exec '{program} Forgetful'" in out


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("sleep 1000", "the program did not connect within 2 s: it sent no request, and printed nothing"),
        ("sh -c 'echo no config; exit 3'", "it ended with exit code 3; it printed:"),
        ("./not-there", "it ended with exit code 127"),
    ],
)
def test_a_program_that_never_connects_is_named(capsys: pytest.CaptureFixture[str], command: str, says: str) -> None:
    code, out, _ = run(capsys, *with_exec(command, "--settle-timeout", "2"))
    assert code == 2
    assert says in out
