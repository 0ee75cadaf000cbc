"""``reconciler new``: the project that it writes works at once, and invalid input writes nothing."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconciler.testing import Cluster
from tests.cli.test_command_line import run
from tests.prose.__main__ import findings

ROOT = Path(__file__).parents[2]
LONGEST = "the_longest_name_that_a_project_can_have"

# A cold mypy reads all that the project imports.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty directory, and let other processes find this library."""
    monkeypatch.chdir(tmp_path)
    for variable in ("PYTHONPATH", "MYPYPATH"):
        monkeypatch.setenv(variable, str(ROOT))
    return tmp_path


def project(capsys: pytest.CaptureFixture[str], here: Path, name: str = "website") -> Path:
    code, out, err = run(capsys, "new", name)
    assert (code, err) == (0, "")
    assert out.splitlines()[1:] == [
        f"  cd {name}",
        "  python3 -m venv .venv && . .venv/bin/activate && pip install -e '.[dev]'",
        "  pytest",
    ]
    return here / name


def passes(directory: Path, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=directory, capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def documents(deploy: Path) -> list[dict[str, Any]]:
    return [each for file in sorted(deploy.iterdir()) for each in yaml.safe_load_all(file.read_text())]


@pytest.mark.thorough
def test_the_tests_of_the_project_pass_and_the_linters_are_content(
    capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    directory = project(capsys, here, "website_operator")
    assert "1 passed" in passes(directory, "pytest", "-q", "-p", "no:cacheprovider", "-W", "error")
    passes(directory, "ruff", "check", "--no-cache", ".")
    passes(directory, "ruff", "format", "--no-cache", "--check", ".")
    passes(directory, "mypy", "--cache-dir", str(here / "cache"))
    texts = [path for suffix in ("py", "md") for path in directory.rglob(f"*.{suffix}")]
    assert [finding for path in texts for finding in findings(path)] == []


def test_the_test_of_the_project_fails_without_the_reconciler(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    directory = project(capsys, here)
    controller = directory / "website" / "controller.py"
    text = controller.read_text()
    assert "await self.client.apply" in text
    controller.write_text(text.replace("await self.client.apply(config_map_for(obj), owner=obj)", "pass"))
    with pytest.raises(AssertionError, match="1 failed"):
        passes(directory, "pytest", "-q", "-p", "no:cacheprovider")


def test_the_longest_name_is_formatted_too(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    directory = project(capsys, here, LONGEST)
    passes(directory, "ruff", "check", "--no-cache", ".")
    passes(directory, "ruff", "format", "--no-cache", "--check", ".")
    assert run(capsys, "new", LONGEST + "s")[0] == 1


async def test_api_servers_accept_the_manifests(
    capsys: pytest.CaptureFixture[str], here: Path, cluster: Cluster
) -> None:
    directory = project(capsys, here, "null")  # a name that YAML would read as something else, were it not quoted
    found = documents(directory / "deploy")
    assert {each["kind"] for each in found} >= {"CustomResourceDefinition", "ClusterRole", "Role", "Deployment"}
    for each in found:
        if each["kind"] == "CustomResourceDefinition":
            await cluster.install(each)
            continue
        if "namespace" in each["metadata"]:
            each["metadata"]["namespace"] = cluster.namespace
        await cluster.client.create(each, field_validation="Strict")
    example = yaml.safe_load((directory / "example.yaml").read_text())
    example["metadata"]["namespace"] = cluster.namespace
    await cluster.client.create(example, field_validation="Strict")


def test_the_manifests_fit_together(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    directory = project(capsys, here, "web_site")
    by_kind = {each["kind"]: each for each in documents(directory / "deploy")}
    pod = by_kind["Deployment"]["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == by_kind["ServiceAccount"]["metadata"]["name"] == "web-site"
    lease = next(rule for rule in by_kind["Role"]["rules"] if "resourceNames" in rule)
    assert f"--leader-election={lease['resourceNames'][0]}" in pod["containers"][0]["args"]
    assert (
        by_kind["Deployment"]["spec"]["selector"]["matchLabels"]
        == (by_kind["Deployment"]["spec"]["template"]["metadata"]["labels"])
    )


def test_the_commands_of_its_readme_print_the_manifests_again(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    directory = project(capsys, here)
    lines = [line for line in (directory / "README.md").read_text().splitlines() if "> deploy/" in line]
    assert len(lines) == 2
    for line in lines:
        command, _, file = line.partition(" > ")
        assert passes(directory, *command.split()) == (directory / file).read_text()


def test_an_empty_directory_is_filled_and_others_can_read_it(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    (here / "a b").mkdir()
    code, out, _ = run(capsys, "new", "website", "--directory", "a b")
    assert code == 0
    assert "  cd 'a b'" in out
    assert (here / "a b" / "website" / "kind.py").exists()
    assert run(capsys, "new", "website")[0] == 0
    assert stat.S_IMODE((here / "website").stat().st_mode) == stat.S_IMODE((here / "a b").stat().st_mode)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("my-operator", "Python identifier"),
        ("MyOperator", "Python identifier"),
        ("2fast", "Python identifier"),
        ("", "Python identifier"),
        ("../up", "Python identifier"),
        ("größe", "Python identifier"),
        ("class", "Python identifier"),
        ("true", "True is a class already"),
        ("model", "Model is a class already"),
        ("permission", "Permission is a class already"),
        ("conditioned", "ConditionedStatus is a class already"),
        ("deploy", "a directory of it has that name"),
        ("json", "is the name of an existing package"),
        ("yaml", "is the name of an existing package"),
    ],
)
def test_an_invalid_name_is_one_line_and_writes_nothing(
    capsys: pytest.CaptureFixture[str], here: Path, name: str, says: str
) -> None:
    code, out, err = run(capsys, "new", name)
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert says in err
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("directory", "says"),
    [("full", "is not empty"), ("full/file", "is not a directory"), ("full/file/below", "full/file/below")],
)
def test_an_invalid_directory_is_one_line_and_stays_as_it_is(
    capsys: pytest.CaptureFixture[str], here: Path, directory: str, says: str
) -> None:
    (here / "full").mkdir()
    (here / "full" / "file").write_text("mine")
    code, out, err = run(capsys, "new", "website", "--directory", directory)
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert says in err
    assert [path.name for path in here.rglob("*")] == ["full", "file"]
    assert (here / "full" / "file").read_text() == "mine"


@pytest.mark.parametrize("exists", [False, True], ids=["new", "existing"])
def test_a_project_that_cannot_be_written_leaves_nothing(
    capsys: pytest.CaptureFixture[str], here: Path, *, exists: bool
) -> None:
    # The names of some files have room in a path that the system accepts, those of others have not.
    room = os.pathconf(here, "PC_PATH_MAX") - len("/pyproject.toml\0") - len(str(here))
    target = Path(str(here) + "/long" * (room // 5 - 1) + "/" + "x" * (room % 5 + 4))
    (target if exists else target.parent).mkdir(parents=True)
    before = sorted(here.rglob("*"))
    code, out, err = run(capsys, "new", "website", "--directory", str(target))
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert "cannot write /" in err
    assert "File name too long" in err
    assert len(err) < 12_000, "one reason, not that of each file"
    assert sorted(here.rglob("*")) == before


def test_a_missing_temporary_directory_is_one_line(
    capsys: pytest.CaptureFixture[str], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(here / "none"))
    code, out, err = run(capsys, "new", "website")
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert "cannot write a temporary directory: [Errno 2] No such file" in err
    assert list(here.iterdir()) == []


def test_options_in_the_environment_do_not_change_the_manifests(
    capsys: pytest.CaptureFixture[str], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = project(capsys, here)
    monkeypatch.setenv("RECONCILER_CRD_OUTPUT", "json")
    monkeypatch.setenv("RECONCILER_MANIFESTS_NAMESPACE", "other")
    assert run(capsys, "new", "website", "--directory", "again")[0] == 0
    for file in ("crd.yaml", "rbac.yaml"):
        assert (here / "again" / "deploy" / file).read_text() == (plain / "deploy" / file).read_text()


def test_the_tutorial_shows_the_files_as_they_are(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    directory = project(capsys, here)
    tutorial = (ROOT / "docs" / "first-operator.md").read_text()
    for file in ("website/kind.py", "website/controller.py", "tests/test_website.py"):
        text = (directory / file).read_text()
        body = text.partition('"""\n\n')[2]
        own = re.compile(
            r"\nfrom website(?:\.kind)? import \(\n.*?\)\n", re.DOTALL
        )  # one page needs no imports of its own
        assert f"```python\n{own.sub('', body)}```" in tutorial, file
