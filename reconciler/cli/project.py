"""The command ``reconciler new``: a small working project, made from the templates in ``templates/``.

The files are rendered in memory, the manifests follow from them, and then all are written or none.
"""

from __future__ import annotations

import builtins
import importlib.util
import keyword
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

import reconciler
from reconciler.cli.output import render, write_files
from reconciler.errors import ConfigurationError
from reconciler.objects.crd import API_GROUP, CAMEL_CASE

_NAME = re.compile(r"[a-z](_?[a-z0-9])*")
_VERSION = re.compile(r"v[1-9][0-9]*((alpha|beta)[1-9][0-9]*)?")
_LONGEST = 40
_LINE = 120
"""Maximum characters of a line, as the project's settings of ruff say."""

_TAKEN_DIRECTORIES = frozenset({"certs", "deploy", "dist", "examples", "tests"})
_TAKEN_CLASSES = frozenset({"Any", "Field", "Permission", "NotFound", "Converter", *reconciler.__all__})


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKind:
    """The kind of a new project.

    Attributes:
        package: the project's package.
        kind: its name.
        group: its API group.
        versions: its versions; the last one is stored.
        by_key: whether its reconciler gets the name of an object instead of the object.
        webhook: whether it has a validating and a defaulting webhook.
        external: whether its reconciler manages something outside the cluster.
    """

    package: str
    kind: str
    group: str
    versions: Sequence[str]
    by_key: bool
    webhook: bool
    external: bool

    @property
    def snake(self) -> str:
        """Return the kind in snake case."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", self.kind).lower()


def new(
    name: str,
    /,
    *,
    directory: Annotated[Path | None, Parameter(show_default=False)] = None,
    kind: str | None = None,
    group: str = "example.com",
    versions: Annotated[
        str,
        Parameter(help="Versions of the kind, separated by commas; the last is stored, others are converted to it."),
    ] = "v1alpha1",
    webhook: Annotated[bool, Parameter(negative=())] = False,
    by_key: Annotated[
        bool, Parameter(help="Write a reconciler that gets the name of an object instead of the object.", negative=())
    ] = False,
    external: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Write a small operator project that works at once: a kind, a reconciler, tests and manifests.

    Needs no cluster. Afterwards 'pytest', 'reconciler run' and 'kubectl apply -f' work in this order; the output has
    the commands. With several --versions there is a conversion webhook, too.

    Args:
        name: Name of the package, such as 'my_operator'.
        directory: Directory of the project; empty if it exists. Default: NAME.
        kind: The kind in CamelCase, such as 'Database'. Default: named after the package.
        group: API group of the kind: a domain of yours.
        webhook: Add a validating and a defaulting webhook with configuration.
        external: Write a reconciler of something outside the cluster, behind an HTTP API.
    """
    target = directory if directory is not None else Path(name)
    _check_name(name)
    new_kind = NewKind(
        package=name,
        kind=_kind_named_after(name) if kind is None else kind,
        group=group,
        versions=versions.split(","),
        by_key=by_key,
        webhook=webhook,
        external=external,
    )
    _check_kind(new_kind)
    _check_directory(target)
    files = _project_files(new_kind)
    write_files(target, {**files, **_manifests(files)})
    _print_next(target, new_kind)
    return 0


def _kind_named_after(name: str) -> str:
    return "".join(part.capitalize() for part in re.sub(r"_(operator|controller)$", "", name).split("_"))


def _print_next(target: Path, kind: NewKind) -> None:
    directory, library = shlex.quote(str(target)), _library_source()
    print(render("project/next.txt", target=target, directory=directory, library=library, new=kind))


def _library_source() -> str:
    """Return what pip must be given for this library if it is not a release from an index; ends with a space."""
    try:
        url = str(msgspec.json.decode(distribution("kube-reconciler").read_text("direct_url.json") or "")["url"])
    except (PackageNotFoundError, msgspec.DecodeError, KeyError, TypeError):
        return ""
    return shlex.quote(f"kube-reconciler @ {url}") + " "


def _check_name(name: str) -> None:
    """Check the name of a project.

    Raises:
        ConfigurationError: it cannot be that of a package, or a package has it already.
    """
    if not _NAME.fullmatch(name) or len(name) > _LONGEST or keyword.iskeyword(name):
        raise ConfigurationError(
            f"{name!r} is not a valid name of a project: write a Python identifier of lowercase letters, digits and "
            f"underscores, at most {_LONGEST} characters, such as 'my_operator'"
        )
    if name in _TAKEN_DIRECTORIES:
        raise ConfigurationError(f"{name!r} is not a valid name of a project: a directory of it has that name")
    if (place := _installed(name)) is not None:
        raise ConfigurationError(f"{name!r} is the name of an existing package ({place}); choose another")


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


def _check_kind(kind: NewKind) -> None:
    """Check what a user has chosen.

    Raises:
        ConfigurationError: the kind, its group or a version is invalid, or one of its classes would hide another.
    """
    if not CAMEL_CASE.fullmatch(kind.kind) or len(kind.kind) > _LONGEST or keyword.iskeyword(kind.snake):
        raise ConfigurationError(
            f"{kind.kind!r} is not a valid kind: write a word in CamelCase of at most {_LONGEST} letters and digits, "
            "such as 'Database'"
        )
    for taken in (kind.kind, f"{kind.kind}Spec", f"{kind.kind}Status", f"{kind.kind}Reconciler"):
        if hasattr(builtins, taken) or taken in _TAKEN_CLASSES:
            raise ConfigurationError(f"{kind.kind!r} is not a valid kind: {taken} is a class already; choose another")
    if not API_GROUP.fullmatch(kind.group) or len(kind.group) > 253:
        raise ConfigurationError(
            f"{kind.group!r} is not a valid API group: write a domain in lower case with a dot, such as 'example.com'"
        )
    for version in kind.versions:
        if not _VERSION.fullmatch(version) or len(version) > 20:
            raise ConfigurationError(
                f"{version!r} is not a valid version: write one such as 'v1', 'v1beta1', 'v2alpha1'"
            )
    if kind.external and (kind.by_key or len(kind.versions) > 1):
        raise ConfigurationError("--external goes with one version, and without --by-key")
    if not kind.versions or len(set(kind.versions)) != len(kind.versions):
        raise ConfigurationError(f"versions must differ: {', '.join(kind.versions) or 'none is given'}")


def _project_files(kind: NewKind) -> dict[str, str]:
    """Return the files of a project without its manifests, by path."""
    return {path: _render(template, kind, **values) for path, template, values in _templates(kind)}


def _templates(kind: NewKind) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the path of each file, its template and the values that only this template names."""
    package, snake, own = kind.package, kind.snake, "external" if kind.external else "kind"
    older = [{"version": each, "kind": f"{kind.kind}{each.capitalize()}"} for each in kind.versions[:-1]]
    yield "pyproject.toml", "project/pyproject.toml", {}
    yield "README.md", "project/README.md", {}
    yield "Containerfile", "project/Containerfile", {}
    yield ".containerignore", "project/containerignore", {}
    yield ".gitignore", "project/gitignore", {}
    yield ".pre-commit-config.yaml", "project/pre-commit-config.yaml", {}
    yield ".github/workflows/ci.yaml", "project/ci.yaml", {}
    has_certificate = kind.webhook or bool(older)
    yield "deploy/kustomization.yaml", "project/kustomization.yaml", {"has_certificate": has_certificate}
    yield f"{package}/__init__.py", "project/__init__.py", {}
    yield f"{package}/operator.py", "project/operator.py", {"older": older, "webhook": kind.webhook}
    yield f"{package}/kind.py", f"{own}/kind.py", {}
    yield f"{package}/controller.py", f"{own}/controller.py", {}
    yield f"tests/test_{snake}.py", f"{own}/test_kind.py", {}
    yield f"tests/test_{snake}_survives.py", f"{own}/test_survives.py", {}
    yield f"examples/{snake}.yaml", f"{own}/example.yaml", {}
    if kind.external:
        yield f"{package}/service.py", "external/service.py", {}
    for each in older:
        yield f"{package}/{each['version']}.py", "kind/older.py", {"old": each["version"], "old_kind": each["kind"]}
    if older:
        yield f"{package}/conversion.py", "kind/conversion.py", {"older": older}
        yield f"tests/test_{snake}_conversion.py", "kind/test_conversion.py", {"older": older}
    if kind.webhook:
        yield f"{package}/webhook.py", "webhook/webhook.py", {}
        yield f"tests/test_{snake}_webhook.py", "webhook/test_webhook.py", {}
    if has_certificate:
        yield "deploy/certificates.yaml", "webhook/certificates.yaml", {}


def _render(template: str, kind: NewKind, **values: Any) -> str:
    return render(
        template,
        name=kind.package,
        dashed=kind.package.replace("_", "-"),
        library=reconciler.__version__,
        kind=kind.kind,
        snake=kind.snake,
        suffix=kind.snake.replace("_", "-"),
        group=kind.group,
        version=kind.versions[-1],
        by_key=kind.by_key,
        external=kind.external,
        imports=_import_line,
        **values,
    )


def _import_line(module: str, *names: str) -> str:
    """Return an import, formatted as ruff formats it."""
    line = f"from {module} import {', '.join(sorted(names))}"
    if len(line) <= _LINE:
        return line
    return "\n".join([f"from {module} import (", *(f"    {name}," for name in sorted(names)), ")"])


def _manifests(files: Mapping[str, str]) -> dict[str, str]:
    """Return the generated manifests of a project, by path; its code is imported in another process.

    Raises:
        ConfigurationError: they cannot be generated.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            write_files(Path(folder), files)
            _run_manifests(Path(folder))
            return {
                path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
                for path in sorted(Path(folder, "deploy", "base").glob("*.yaml"))
            }
    except OSError as error:
        raise ConfigurationError(f"cannot write a temporary directory: {error}; set TMPDIR to another") from error


def _run_manifests(directory: Path) -> None:
    # Options of this library in the environment are not meant for this command.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RECONCILER_")}
    done = subprocess.run(
        [sys.executable, "-m", "reconciler", "manifests"],
        cwd=directory,
        env={**environment, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise ConfigurationError(f"cannot generate the manifests: {lines[-1].removeprefix('reconciler: ')}")
