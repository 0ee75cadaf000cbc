"""Every mistake on the command line results in one line with advice, never in a traceback."""

from __future__ import annotations

import errno
import os
import re
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.cli import main

OPERATOR = """
from reconciler import Manager, Model, Reconciler, Resource, ResourceReconciler

class Spec(Model):
    size: int = 1

class Thing(Resource[Spec], group="example.com", version="v1"):
    "A thing."

class Good(ResourceReconciler[Thing]):
    async def reconcile_object(self, obj, status):
        pass

class NeedsArgument(Good):
    def __init__(self, color):
        pass

class Unfinished(ResourceReconciler[Thing]):
    pass

class NoKind(Reconciler):
    async def reconcile(self, request):
        pass

def no_parameters():
    pass

async def fails_later(manager: Manager):
    manager.add_controller(Good())
    raise LookupError("no such color")
"""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Create modules in the current directory; remove them from `sys.modules` afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delenv("KUBECONFIG", raising=False)
    (tmp_path / "an_operator.py").write_text(OPERATOR)
    (tmp_path / "no_python.py").write_text("this is invalid Python\n")
    (tmp_path / "needs_more.py").write_text("\nimport no_such_library\n")
    (tmp_path / "fails_itself.py").write_text("\n\nraise RuntimeError('the flag is missing')\n")
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def kubeconfig(tmp_path: Path) -> str:
    """Write a valid kubeconfig of a server that does not exist."""
    path = tmp_path / "kubeconfig"
    path.write_text(
        '{"apiVersion": "v1", "kind": "Config", "current-context": "x",'
        '"clusters": [{"name": "x", "cluster": {"server": "http://127.0.0.1:1"}}],'
        '"users": [{"name": "x", "user": {"token": "t"}}],'
        '"contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}]}'
    )
    return str(path)


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 1) -> str:
    """Run a command that must fail with one line, and return the line."""
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    err = capsys.readouterr().err
    assert exit_.value.code == code
    assert len(err.splitlines()) == 1, err
    assert err.startswith("reconciler: ")
    return err


@pytest.mark.parametrize("command", ["run", "crd"])
@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("no_python:Thing", ["cannot import module 'no_python'", "SyntaxError", "no_python.py, line 1"]),
        ("needs_more:Thing", ["cannot import module 'needs_more'", "'no_such_library'", "needs_more.py, line 2"]),
        (
            "fails_itself:Thing",
            ["cannot import module 'fails_itself'", "flag is missing", "fails_itself.py, line 3"],
        ),
        (".:Thing", ["cannot import module"]),
    ],
)
def test_module_that_cannot_be_imported(capsys, modules: Path, command: str, target: str, says: list[str]) -> None:
    line = error_of(capsys, command, target)
    assert all(part in line for part in says), line


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("an_operator:NeedsArgument", "NeedsArgument cannot be created without arguments: TypeError"),
        ("an_operator:Unfinished", "Unfinished cannot be created without arguments: TypeError"),
        ("an_operator:no_parameters", "must be a Reconciler"),
        ("an_operator:NoKind", "does not state its kind"),
        ("an_operator:Thing", "must be a Reconciler"),
        ("an_operator:fails_later", "no such color"),
    ],
)
def test_target_that_cannot_be_run(capsys, modules: Path, kubeconfig: str, target: str, says: str) -> None:
    assert says in error_of(capsys, "run", target, "--kubeconfig", kubeconfig)


@pytest.mark.parametrize("option", ["--metrics", "--health", "--console"])
def test_address_in_use(capsys, modules: Path, kubeconfig: str, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        line = error_of(capsys, "run", "an_operator:Good", "--kubeconfig", kubeconfig, f"{option}={address}")
    assert address in line
    assert os.strerror(errno.EADDRINUSE) in line
    assert option in line


def test_console_that_others_could_read(capsys, modules: Path, kubeconfig: str) -> None:
    line = error_of(capsys, "run", "an_operator:Good", "--kubeconfig", kubeconfig, "--console=0.0.0.0:8082")
    assert line.startswith("reconciler: --console='0.0.0.0:8082': other machines could read it")
    assert line.rstrip().endswith("ask for a token with --token-file or --authentication")


@pytest.mark.parametrize("address", ["nonsense", ":99999", "127.0.0.1"])
def test_invalid_address(capsys, modules: Path, kubeconfig: str, address: str) -> None:
    line = error_of(capsys, "run", "an_operator:Good", "--kubeconfig", kubeconfig, "--metrics", address)
    assert "host:port" in line


@pytest.mark.parametrize(
    "arguments", [["--workers", "0"], ["--leader-election", ""], ["--namespace", ""], ["--grace-period", "-1"]]
)
def test_option_out_of_range(capsys, modules: Path, kubeconfig: str, arguments: list[str]) -> None:
    error_of(capsys, "run", "an_operator:Good", "--kubeconfig", kubeconfig, *arguments)


def test_lease_without_namespace(capsys, modules: Path, kubeconfig: str) -> None:
    arguments = ["run", "an_operator:Good", "--kubeconfig", kubeconfig, "--leader-election", "a-lease"]
    assert "pass --leader-election-namespace" in error_of(capsys, *arguments)
    # With it, the next mistake is reported.
    line = error_of(capsys, *arguments, "--leader-election-namespace", "default", "--metrics", "nonsense")
    assert "host:port" in line


def test_unknown_context(capsys, modules: Path, kubeconfig: str) -> None:
    line = error_of(capsys, "run", "an_operator:Good", "--kubeconfig", kubeconfig, "--context", "y")
    assert "'y'" in line
    assert "its contexts are x" in line


def test_no_kubeconfig(capsys, modules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(modules))
    line = error_of(capsys, "run", "an_operator:Good")
    assert "KUBECONFIG" in line


def test_directory_that_cannot_be_written(capsys, modules: Path, kubeconfig: str) -> None:
    (modules / "a-file").write_text("")
    line = error_of(
        capsys, "run", "notification", "--kubeconfig", kubeconfig, "--notification-directory", "a-file/below"
    )
    assert "a-file/below" in line
    assert "'file'" in line


@pytest.mark.parametrize("port", ["-1", "65536", "99999999999"])
def test_invalid_port(capsys, modules: Path, port: str) -> None:
    line = error_of(capsys, "apiserver", f"--port={port}", code=2)
    assert "--port" in line
    assert "Must be >= 0" in line or "Must be <= 65535" in line


def test_port_in_use(capsys, modules: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = error_of(capsys, "apiserver", "--port", str(port))
    assert f"127.0.0.1:{port}" in line
    assert "choose port 0" in line


def test_kubeconfig_that_cannot_be_written(capsys, modules: Path) -> None:
    line = error_of(capsys, "apiserver", "--kubeconfig", str(modules))
    assert "--kubeconfig" in line


def test_document_that_is_not_an_object(capsys, modules: Path) -> None:
    (modules / "broken.yaml").write_text("kind: [")
    assert "broken.yaml" in error_of(capsys, "apiserver", "broken.yaml")
    (modules / "half.yaml").write_text("kind: Thing\n")
    assert "half.yaml" in error_of(capsys, "apiserver", "half.yaml")


def test_environment_is_checked_like_the_command_line(capsys, modules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECONCILER_RUN_WORKERS", "many")
    assert "RECONCILER_RUN_WORKERS" in error_of(capsys, "run", "an_operator:Good", code=2)


@pytest.mark.parametrize(
    ("module", "extra", "arguments"),
    [
        ("cyclopts", "cli", ["demo"]),
        ("rich", "demo", ["demo"]),
        ("looptime", "demo", ["demo"]),
        ("jinja2", "cli", ["new", "website"]),
        ("watchfiles", "develop", ["dev", "website:setup"]),
        ("trustme", "develop", ["certificates", "certs"]),
        ("htpy", "console", ["demo", "--console"]),
        ("jsonschema_rs", "demo", ["demo", "--output", "json"]),
        ("cel_expr_python", "cel", ["apiserver", "notification"]),
        ("re2", "re2", ["run", "notification", "--redact", "x"]),
        ("hypothesis", "testing", ["check", "website:setup", "--example", "example.yaml"]),
    ],
)
def test_missing_extra(module: str, extra: str, arguments: list[str], tmp_path: Path) -> None:
    program = f"import sys; sys.modules[{module!r}] = None; from reconciler.cli import main; main({arguments})"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=os.environ, cwd=tmp_path, check=False
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert f"pip install 'kube-reconciler[{extra}]'" in done.stderr


def test_the_demo_needs_no_package_without_wheels_for_musl(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules.update(cel_expr_python=None, re2=None);"
        "from reconciler.cli import main; main(['demo', '--output', 'json'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr


def test_no_extra_but_those_that_are_named_has_a_package_without_wheels_for_musl() -> None:
    extras = tomllib.loads(Path("pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extra in extras.keys() - {"cel", "re2", "demo", "develop", "all", "dev"}:
        for requirement in extras[extra]:
            assert not re.match(r"google-re2|cel-expr-python|ahocorasick-rs", requirement), extra
            assert not re.search(r"\[.*\b(cel|re2|demo|develop|all|dev)\b", requirement), extra


def test_crd_needs_no_other_extras() -> None:
    extras = ["looptime", "jsonschema_rs", "cel_expr_python", "jsonpatch", "kubernetes", "uvloop"]
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({extras}));"
        "from reconciler.cli import main; main(['crd', 'notification'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "kind: CustomResourceDefinition" in done.stdout
