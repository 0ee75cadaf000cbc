"""``reconciler add``: kinds and webhooks in a project that exists, with the smallest possible change of its files."""

from __future__ import annotations

import difflib
import errno
import itertools
import os
import shutil
from pathlib import Path
from unittest.mock import ANY

import pytest

from reconciler.cli.output import write_files, write_kubeconfig
from reconciler.errors import ConfigurationError
from tests.cli.projects import ROOT, documents, passes, snapshot
from tests.cli.test_command_line import run
from tests.cli.test_new import linted

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a project."""
    directory = tmp_path_factory.mktemp("original") / "website"
    passes(ROOT, "reconciler", "new", "website", "--group", "web.example.com", "--directory", str(directory))
    return directory


@pytest.fixture
def project(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a copy of the project."""
    for variable in ("PYTHONPATH", "MYPYPATH"):
        monkeypatch.setenv(variable, str(ROOT))
    directory = tmp_path / "website"
    shutil.copytree(original, directory, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(directory)
    return directory


def refused(capsys: pytest.CaptureFixture[str], project: Path, *arguments: str) -> str:
    """Run a command that must fail with one line and change nothing; return the line."""
    before = snapshot(project)
    code, out, err = run(capsys, "add", *arguments)
    assert (code, out, len(err.splitlines())) == (1, "", 1), err
    assert snapshot(project) == before
    return err


def added_lines(before: str, after: str) -> list[str]:
    """Return the lines that were added; fail if one was removed."""
    lines = [line for line in difflib.ndiff(before.splitlines(), after.splitlines()) if line[0] in "+-"]
    assert [line for line in lines if line[0] == "-"] == []
    return [line[2:] for line in lines]


def test_kinds_and_webhooks_are_added_with_one_line_and_an_import_each(
    capsys: pytest.CaptureFixture[str], project: Path
) -> None:
    before = snapshot(project)
    for arguments in (
        ["kind", "DatabaseUser", "--versions", "v1beta1,v1", "--by-key"],
        ["webhook", "Website"],
        ["webhook", "DatabaseUser"],
    ):
        code, _, err = run(capsys, "add", *arguments)
        assert (code, err) == (0, "")
    after = snapshot(project)
    changed = {path for path in before if after[path] != before[path] and "deploy/base" not in path}
    assert changed == {"website/operator.py", "deploy/kustomization.yaml"}
    assert added_lines(before["website/operator.py"], after["website/operator.py"]) == [
        "from website.database_user.controller import add_database_user_controller",
        "from website.database_user.conversion import database_user_converter",
        "from website.database_user.webhook import add_database_user_webhooks",
        "from website.webhook import add_website_webhooks",
        "    add_database_user_controller(manager)",
        "    manager.add_webhooks(database_user_converter)",
        "    add_website_webhooks(manager)",
        "    add_database_user_webhooks(manager)",
    ]
    kustomization = "deploy/kustomization.yaml"
    assert added_lines(before[kustomization], after[kustomization]) == ["  - certificates.yaml"]

    linted(project)
    assert "9 passed" in passes(project, "pytest", "-q", "-p", "no:cacheprovider", "-W", "error")
    assert "is up to date" in passes(project, "reconciler", "manifests", "--check")
    found = documents(project)
    groups = [each["spec"]["group"] for each in found if each["kind"] == "CustomResourceDefinition"]
    assert groups == ["web.example.com", "web.example.com"], "a new kind is in the group of the others"
    (validating,) = [each for each in found if each["kind"] == "ValidatingWebhookConfiguration"]
    assert [each["rules"][0]["resources"] for each in validating["webhooks"]] == [["websites"], ["databaseusers"]]


@pytest.mark.thorough
def test_a_project_with_additions_is_typed(capsys: pytest.CaptureFixture[str], project: Path, tmp_path: Path) -> None:
    for arguments in (["kind", "DatabaseUser", "--versions", "v1beta1,v1"], ["webhook", "DatabaseUser"]):
        assert run(capsys, "add", *arguments)[0] == 0
    passes(project, "mypy", "--cache-dir", str(tmp_path / "cache"))


def test_the_output_lists_what_was_created_and_changed(capsys: pytest.CaptureFixture[str], project: Path) -> None:
    code, out, _ = run(capsys, "add", "webhook", "Website")
    assert code == 0
    assert out.splitlines() == [
        "changed deploy/base/deployment.yaml",
        "changed deploy/base/kustomization.yaml",
        "created deploy/base/webhooks.yaml",
        "created deploy/certificates.yaml",
        "changed deploy/kustomization.yaml",
        "created tests/test_website_webhook.py",
        "changed website/operator.py",
        "created website/webhook.py",
    ]


def test_what_a_user_wrote_in_the_changed_files_stays(capsys: pytest.CaptureFixture[str], project: Path) -> None:
    operator = project / "website" / "operator.py"
    text = operator.read_text().replace("(manager: Manager)", "(the_manager: Manager)")
    text = text.replace("controller(manager)", "controller(the_manager)  # a comment,\f with a form feed")
    operator.write_text(text + "\n\nX   =  1 # not formatted")
    operator.chmod(0o640)
    assert run(capsys, "add", "kind", "Disk")[0] == 0
    assert added_lines(text + "\n\nX   =  1 # not formatted", operator.read_text()) == [
        "from website.disk.controller import add_disk_controller",
        "    add_disk_controller(the_manager)",
    ]
    assert operator.stat().st_mode & 0o777 == 0o640


def test_the_line_endings_of_changed_files_stay(capsys: pytest.CaptureFixture[str], project: Path) -> None:
    operator = project / "website" / "operator.py"
    operator.write_bytes(operator.read_bytes().replace(b"\n", b"\r\n"))
    assert run(capsys, "add", "kind", "Disk")[0] == 0
    lines = operator.read_bytes().splitlines(keepends=True)
    assert [line for line in lines if not line.endswith(b"\r\n")] == []
    assert b"    add_disk_controller(manager)\r\n" in lines


def test_a_kustomization_in_another_form_is_left_alone(capsys: pytest.CaptureFixture[str], project: Path) -> None:
    kustomization = project / "deploy" / "kustomization.yaml"
    kustomization.write_text("resources: [base]\n")
    code, out, _ = run(capsys, "add", "webhook", "Website")
    assert code == 0
    assert "to do: add certificates.yaml to the resources of deploy/kustomization.yaml" in out
    assert kustomization.read_text() == "resources: [base]\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["kind", "disk"], "'disk' is not a valid kind"),
        (["kind", "Größe"], "is not a valid kind"),
        (["kind", "X" * 41], "is not a valid kind"),
        (["kind", "Model"], "Model is a class already"),
        (["kind", "None"], "'None' is not a valid kind"),
        (["kind", "Website"], "has a kind Website already, in website.kind"),
        (["kind", "Operator"], "website/operator.py exists"),
        (["kind", "Disk", "--versions", "v1,one"], "'one' is not a valid version"),
        (["kind", "Disk", "--group", "x"], "'x' is not a valid API group"),
        (["webhook", "Disk"], "no Resource class 'Disk' in website: its kinds are Website"),
    ],
)
def test_invalid_input_is_one_line_and_changes_nothing(
    capsys: pytest.CaptureFixture[str], project: Path, arguments: list[str], says: str
) -> None:
    assert says in refused(capsys, project, *arguments)


def test_entries_that_are_no_code_are_passed_over(capsys: pytest.CaptureFixture[str], project: Path) -> None:
    (project / "website" / ".#operator.py").symlink_to("me@host.1234")  # a lock of Emacs
    (project / "website" / "again").symlink_to(".")
    os.mkfifo(project / "website" / "pipe.py")
    assert run(capsys, "add", "kind", "Disk") == (0, ANY, "")


def test_a_file_that_exists_is_not_overwritten(capsys: pytest.CaptureFixture[str], project: Path) -> None:
    (project / "website" / "webhook.py").write_text("no Python\n")
    assert "website/webhook.py, line 1: not valid Python" in refused(capsys, project, "webhook", "Website")
    (project / "website" / "webhook.py").write_text("MINE = 1\n")
    assert "website/webhook.py exists, and is not overwritten" in refused(capsys, project, "webhook", "Website")
    (project / "website" / "webhook.py").unlink()
    (project / "tests" / "test_website_webhook.py").write_text("MINE = 1\n")
    assert "tests/test_website_webhook.py exists" in refused(capsys, project, "webhook", "Website")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("def add_controllers(manager):\n    return None\n", "ends with a return"),
        ("def add_controllers(manager): pass\n", "is a single line"),
        ("def add_controllers():\n    pass\n", "no function 'add_controllers' with a parameter"),
        ("def another(manager):\n    pass\n", "add_controllers() must be defined once"),
        ("add_disk_controller = 1\ndef add_controllers(manager):\n    pass\n", "add_disk_controller is in use already"),
        ("def add_controllers(manager):\n    (\n", "website/operator.py, line 2: not valid Python"),
    ],
)
def test_an_operator_that_cannot_be_extended_is_refused(
    capsys: pytest.CaptureFixture[str], project: Path, body: str, says: str
) -> None:
    (project / "website" / "operator.py").write_text(body)
    assert says in refused(capsys, project, "kind", "Disk")


def test_a_project_whose_code_fails_is_refused(capsys: pytest.CaptureFixture[str], project: Path) -> None:
    operator = project / "website" / "operator.py"
    operator.write_text(operator.read_text() + "\nraise LookupError('no color')\n")
    line = refused(capsys, project, "kind", "Disk")
    assert "cannot generate the manifests" in line
    assert "LookupError: no color" in line


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "no pyproject.toml here"),
        ("[tool", "not a readable TOML file"),
        ("", "does not have target"),
        ("tool = 3", "does not have target"),
        ("[tool.reconciler.manifests]\ntarget = 3", "does not have target"),
        ("[tool.reconciler.manifests]\ntarget = 'absent:setup'", "setup() must be defined once"),
        ("[tool.reconciler.manifests]\ntarget = '/etc:setup'", "does not have target"),
        ("[tool.reconciler.manifests]\ntarget = '..:setup'", "does not have target"),
        *(
            (
                f"[tool.reconciler.manifests]\ntarget = 'website.operator:add_controllers'\ndirectory = {directory}",
                "is not a directory of the project",
            )
            for directory in ("'/'", "''", "'.'", "'deploy/../..'", "3")
        ),
        (f"x = {'[' * 100_000}", "not a readable TOML file"),
    ],
)
def test_a_directory_without_a_project_is_refused(
    capsys: pytest.CaptureFixture[str], project: Path, text: str | None, says: str
) -> None:
    (project / "pyproject.toml").unlink()
    if text is not None:
        (project / "pyproject.toml").write_text(text)
    assert says in refused(capsys, project, "kind", "Disk")


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("at", range(4))
def test_files_that_cannot_all_be_written_are_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, at: int
) -> None:
    (tmp_path / "one.py").write_text("1")
    (tmp_path / "two.py").write_text("2")
    calls, write = itertools.count(), Path.write_bytes

    def failing(path: Path, content: bytes) -> int:
        if next(calls) == at:
            raise error
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", failing)
    files = {"one.py": "changed", "new/three.py": "3", "two.py": "changed", "new/below/four.py": "4"}
    with pytest.raises((ConfigurationError, KeyboardInterrupt)):
        write_files(tmp_path, files, known={"one.py": "1", "two.py": "2"})
    assert snapshot(tmp_path) == {"one.py": "1", "two.py": "2"}
    assert not (tmp_path / "new").exists()


def test_a_file_that_changed_in_the_meantime_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("changed by an editor")
    with pytest.raises(ConfigurationError, match="has just been changed by something else"):
        write_files(tmp_path, {"two.py": "2", "one.py": "changed"}, known={"one.py": "1"})
    assert snapshot(tmp_path) == {"one.py": "changed by an editor"}


def test_a_file_that_exists_stays(tmp_path: Path) -> None:
    (tmp_path / "two.py").symlink_to("nothing")
    with pytest.raises(ConfigurationError, match=r"two\.py exists, and is not overwritten"):
        write_files(tmp_path, {"one.py": "1", "two.py": "2"})
    assert [path.name for path in tmp_path.iterdir()] == ["two.py"]


def test_a_linked_file_is_changed_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "one.py").write_text("1")
    (tmp_path / "one.py").symlink_to("real/one.py")
    write_files(tmp_path, {"one.py": "changed"}, known={"one.py": "1"})
    assert (tmp_path / "one.py").is_symlink()
    assert snapshot(tmp_path) == {"one.py": "changed", "real/one.py": "changed"}


@pytest.mark.parametrize(
    ("present", "kept"),
    [
        (None, False),
        ("", False),
        ('{"clusters": [{"name": "reconciler"}]}', False),
        ("clusters:\n- name: control-plane\ncontexts: []\n", False),  # as 'kubectl config' writes it
        ("clusters:\n- name: production\n", True),
        ("clusters:\n- name: reconciler\n- name: production\n", True),
        ("notes", True),
        ("- [", True),
        ("\x00", True),
    ],
)
def test_only_a_kubeconfig_of_an_earlier_run_is_overwritten(tmp_path: Path, present: str | None, *, kept: bool) -> None:
    path = tmp_path / "config"
    if present is not None:
        path.write_text(present)
    if kept:
        with pytest.raises(ConfigurationError, match="is not that of an earlier run, so it is not overwritten"):
            write_kubeconfig(lambda path: path.write_text("new"), path)
    else:
        write_kubeconfig(lambda path: path.write_text("new"), path)
    assert path.read_text() == (present if kept else "new")
