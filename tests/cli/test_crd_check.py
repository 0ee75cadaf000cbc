"""``reconciler crd --check``: what the comparison prints, its exit codes, and files that cannot be compared."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml

from tests.cli.test_command_line import run

KINDS = """
from reconciler import Model, Resource
from pydantic import Field

class Spec(Model):
    size: int = Field(ge=1, le={most})

class Disk(Resource[Spec], group="example.com", version="v1"):
    "A disk."

class OldSpec(Model):
    gigabytes: int

class OldDisk(Resource[OldSpec], group="example.com", version="v1beta1", kind="Disk", storage=False):
    "A disk."

class Tape(Resource[Spec], group="example.com", version="v1"):
    "A tape."
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name, most in (("wide_kinds", 100), ("narrow_kinds", 50)):
        monkeypatch.delitem(sys.modules, name, raising=False)
        (tmp_path / f"{name}.py").write_text(KINDS.replace("{most}", str(most)))
    return tmp_path


def write_old(capsys: pytest.CaptureFixture[str], *targets: str) -> None:
    code, out, _ = run(capsys, "crd", *targets)
    assert code == 0
    Path("old.yaml").write_text(out)


def test_the_same_class_has_no_changes(capsys: pytest.CaptureFixture[str]) -> None:
    write_old(capsys, "wide_kinds:Disk")
    code, out, err = run(capsys, "crd", "wide_kinds:Disk", "--check", "old.yaml")
    assert (code, out, err) == (0, "0 breaking and 0 harmless changes since old.yaml\n", "")


def test_a_breaking_change_exits_1_and_says_where_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    write_old(capsys, "wide_kinds:Disk")
    code, out, err = run(capsys, "crd", "narrow_kinds:Disk", "--check", "old.yaml")
    assert (code, err) == (1, "")
    assert out.splitlines() == [
        "breaking  disks.example.com: v1: spec.size: maximum changed from 100 to 50 (values above it are refused)",
        "1 breaking and 0 harmless changes since old.yaml",
    ]
    write_old(capsys, "narrow_kinds:Disk")
    code, out, _ = run(capsys, "crd", "wide_kinds:Disk", "--check", "old.yaml")
    assert code == 0
    assert out.splitlines()[0] == "harmless  disks.example.com: v1: spec.size: maximum changed from 50 to 100"


def test_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    write_old(capsys, "wide_kinds:Disk")
    code, out, _ = run(capsys, "crd", "narrow_kinds:Disk", "--check", "old.yaml", "--output", "json")
    assert code == 1
    assert json.loads(out) == {
        "breaking": True,
        "changes": [
            {
                "crd": "disks.example.com",
                "path": "v1: spec.size",
                "change": "maximum changed from 100 to 50",
                "breaking": True,
                "reason": "values above it are refused",
            }
        ],
    }


def test_classes_of_one_kind_are_versions_of_one_definition(capsys: pytest.CaptureFixture[str]) -> None:
    write_old(capsys, "wide_kinds:Disk", "wide_kinds:OldDisk", "wide_kinds:Tape")
    assert [len(each["spec"]["versions"]) for each in yaml.safe_load_all(Path("old.yaml").read_text())] == [2, 1]
    assert run(capsys, "crd", "wide_kinds:Tape", "--check", "old.yaml")[0] == 0
    code, out, _ = run(capsys, "crd", "wide_kinds:Disk", "--check", "old.yaml")
    assert code == 1
    assert "v1beta1: version removed (requests for this version fail)" in out
    write_old(capsys, "wide_kinds:Disk")
    code, out, _ = run(capsys, "crd", "wide_kinds:Disk", "wide_kinds:OldDisk", "--check", "old.yaml")
    assert code == 1
    assert "spec.conversion: missing: v1 and v1beta1 differ in spec.gigabytes" in out


def test_two_files_can_be_compared_and_a_list_is_read(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    write_old(capsys, "wide_kinds:Disk")
    documents = list(yaml.safe_load_all((here / "old.yaml").read_text()))
    (here / "list.json").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": documents}))
    (here / "new.yaml").write_text("apiVersion: v1\nkind: Namespace\n---\n" + (here / "old.yaml").read_text())
    assert run(capsys, "crd", "new.yaml", "--check", "list.json")[0] == 0


def test_the_only_definition_is_compared_even_under_another_name(capsys: pytest.CaptureFixture[str]) -> None:
    write_old(capsys, "wide_kinds:Tape")
    code, out, _ = run(capsys, "crd", "wide_kinds:Disk", "--check", "old.yaml")
    assert code == 1
    assert "spec.names.kind: changed from Tape to Disk" in out


NESTED = "[" * 300 + "]" * 300


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "No such file"),
        ("", "does not contain a CustomResourceDefinition"),
        ("kind: [", "cannot read the definitions in old.yaml"),
        ("a: &a [1]\nb: [*a, *a]\n", "line 2: aliases are not supported"),
        (NESTED, "more than 200 levels"),
        ("- 1\n---\ntext\n", "does not contain a CustomResourceDefinition"),
        ("kind: CustomResourceDefinition\napiVersion: apiextensions.k8s.io/v1beta1\n", "apiextensions.k8s.io/v1"),
        ("kind: CustomResourceDefinition\napiVersion: apiextensions.k8s.io/v1\nspec: 3\n", "does not contain"),
        ("\0", "cannot read the definitions in old.yaml"),
    ],
)
def test_a_file_that_cannot_be_compared_is_one_line(
    capsys: pytest.CaptureFixture[str], here: Path, content: str | None, says: str
) -> None:
    if content is not None:
        (here / "old.yaml").write_text(content)
    code, out, err = run(capsys, "crd", "wide_kinds:Disk", "--check", "old.yaml")
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert says in err


def test_a_kind_that_the_file_does_not_have_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    write_old(capsys, "wide_kinds:Tape", "notification")
    code, _, err = run(capsys, "crd", "wide_kinds:Disk", "--check", "old.yaml")
    assert code == 1
    assert "does not contain a definition of disks.example.com: it has tapes.example.com" in err


def test_an_added_kind_is_harmless_and_a_removed_one_is_breaking(
    capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    write_old(capsys, "wide_kinds:Disk")
    (here / "old.yaml").rename(here / "one.yaml")
    write_old(capsys, "wide_kinds:Disk", "wide_kinds:Tape")
    code, out, _ = run(capsys, "crd", "old.yaml", "--check", "one.yaml")
    assert (code, out.splitlines()[0]) == (0, "harmless  tapes.example.com: kind: added")
    code, out, _ = run(capsys, "crd", "wide_kinds:Disk", "wide_kinds:Tape", "--check", "one.yaml")
    assert (code, out.splitlines()[0]) == (0, "harmless  tapes.example.com: kind: added")
    code, out, _ = run(capsys, "crd", "one.yaml", "--check", "old.yaml")
    assert (code, out.splitlines()[0]) == (
        1,
        "breaking  tapes.example.com: kind: removed (its objects are deleted with it)",
    )
    assert run(capsys, "crd", "wide_kinds:Disk", "--check", "old.yaml")[0] == 0, "a class stands for itself only"
