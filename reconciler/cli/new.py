"""The command ``reconciler new``: a small working project.

Each file below ``templates/`` is a `string.Template`; its path without ``.tmpl`` is the path in the project. The CRD
and the roles are not templates: the commands that print them later print them here, too.
"""

from __future__ import annotations

import builtins
import contextlib
import importlib.util
import keyword
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from string import Template

import reconciler
from reconciler.errors import ConfigurationError

__all__ = ["create_project"]

_TEMPLATES = Path(__file__).parent / "templates"
_NAME = re.compile(r"[a-z](_?[a-z0-9])*")
_LONGEST = 40
_TAKEN_DIRECTORIES = frozenset({"deploy", "dist", "tests"})
_TAKEN_CLASSES = frozenset({"Any", "Field", "Permission", *reconciler.__all__})


def create_project(name: str, directory: Path | None) -> int:
    """Write a project, and print the next commands.

    Args:
        name: the name of its package, such as ``my_operator``. The kind is derived from it: ``My``.
        directory: where to write it; must be empty if it exists. Default: a directory of that name.

    Raises:
        ConfigurationError: the name or the directory is invalid; nothing is written.
    """
    target = directory if directory is not None else Path(name)
    values = _values(name)
    _check_directory(target)
    try:
        with tempfile.TemporaryDirectory() as folder:
            draft = Path(folder, "project")
            draft.mkdir()  # with the usual permissions; those of a temporary directory exclude others
            _render(draft, values)
            _generate(draft / "deploy", draft, values)
            _copy(draft, target)
    except OSError as error:
        raise ConfigurationError(f"cannot write a temporary directory: {error}; set TMPDIR to another") from error
    print(f"created {target}: the kind {values['kind']}, its reconciler, a test, and the manifests. Next:")
    print(f"  cd {shlex.quote(str(target))}")
    print("  python3 -m venv .venv && . .venv/bin/activate && pip install -e '.[dev]'")
    print("  pytest")
    return 0


def _values(name: str) -> dict[str, str]:
    """Return the values of the templates' variables.

    Raises:
        ConfigurationError: the name cannot be that of a package, or the kind would hide something that it needs.
    """
    if not _NAME.fullmatch(name) or len(name) > _LONGEST or keyword.iskeyword(name):
        raise ConfigurationError(
            f"{name!r} is not a valid name of a project: write a Python identifier of lowercase letters, digits and "
            f"underscores, at most {_LONGEST} characters, such as 'my_operator'"
        )
    kind = "".join(part.capitalize() for part in re.sub(r"_(operator|controller)$", "", name).split("_"))
    for taken in (kind, f"{kind}Spec", f"{kind}Status", f"{kind}Reconciler"):
        if hasattr(builtins, taken) or taken in _TAKEN_CLASSES:
            raise ConfigurationError(
                f"{name!r} is not a valid name of a project: {taken} is a class already; choose another"
            )
    if name in _TAKEN_DIRECTORIES:
        raise ConfigurationError(f"{name!r} is not a valid name of a project: a directory of it has that name")
    if (place := _installed(name)) is not None:
        raise ConfigurationError(f"{name!r} is the name of an existing package ({place}); choose another")
    return {
        "name": name,
        "dashed": name.replace("_", "-"),
        "kind": kind,
        "version": reconciler.__version__,
    }


def _installed(name: str) -> str | None:
    """Return where a package that can be imported comes from; None if there is none of this name."""
    spec = importlib.util.find_spec(name)
    return None if spec is None else spec.origin  # a directory without Python files has no origin


def _check_directory(target: Path) -> None:
    try:
        if any(target.iterdir()):
            raise ConfigurationError(f"{target} is not empty: choose another --directory")
    except FileNotFoundError:
        return
    except NotADirectoryError as error:
        raise ConfigurationError(f"{target} is not a directory: choose another --directory") from error
    except OSError as error:
        raise ConfigurationError(f"cannot read {target}: {error.strerror}") from error


def _copy(draft: Path, target: Path) -> None:
    """Copy the project; after a failure, remove what was copied."""
    existed = target.exists()
    try:
        shutil.copytree(draft, target, dirs_exist_ok=True)
    except BaseException as error:
        for written in draft.iterdir() if existed else ():
            if written.is_dir():
                shutil.rmtree(target / written.name, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    (target / written.name).unlink()
        if not existed:
            shutil.rmtree(target, ignore_errors=True)
        if not isinstance(error, OSError):
            raise
        # copytree goes on after a failure, and raises all of them as a list of source, target and message.
        reason = error.args[0][0][2] if isinstance(error, shutil.Error) else error.strerror or error
        raise ConfigurationError(f"cannot write {target}: {reason}") from error


def _render(draft: Path, values: dict[str, str]) -> None:
    renamed = {
        "gitignore": ".gitignore",
        "containerignore": ".containerignore",
        "tests/test_package.py": f"tests/test_{values['name']}.py",
    }
    for template in sorted(_TEMPLATES.rglob("*.tmpl")):
        path = template.relative_to(_TEMPLATES).with_suffix("").as_posix()
        path = renamed.get(path, re.sub(r"^package/", f"{values['name']}/", path))
        file = draft / path
        file.parent.mkdir(exist_ok=True)
        file.write_text(Template(template.read_text(encoding="utf-8")).substitute(values), encoding="utf-8")


def _generate(deploy: Path, draft: Path, values: dict[str, str]) -> None:
    """Write the CRD and the roles, by the commands of the project's README."""
    name = values["name"]
    commands = {
        "crd.yaml": ["crd", f"{name}:{values['kind']}"],
        "rbac.yaml": ["manifests", f"{name}:add_controllers", "--leader-election", values["dashed"]],
    }
    # Options of this library in the environment are not meant for these commands.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RECONCILER_")}
    for file, arguments in commands.items():
        done = subprocess.run(  # noqa: S603 - this library's own commands
            [sys.executable, "-m", "reconciler", *arguments],
            cwd=draft,
            env={**environment, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ConfigurationError(f"cannot generate deploy/{file}: {done.stderr.strip()}")
        (deploy / file).write_text(done.stdout, encoding="utf-8")
