"""The templates, and the texts that are made from them."""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import reconciler
from reconciler.cli.output import render
from reconciler.errors import ConfigurationError
from reconciler.objects.declaration import API_GROUP, CAMEL_CASE

_LINE = 120
"""Maximum characters of a line, as the project's settings of ruff say."""

_VERSION = re.compile(r"v[1-9][0-9]*((alpha|beta)[1-9][0-9]*)?")
_LONGEST = 40
_TAKEN = frozenset({"Any", "Field", "Permission", "NotFound", "Converter", *reconciler.__all__})


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKind:
    """A kind to be written.

    Attributes:
        package: the project's package.
        module: the package of the kind's modules.
        kind: its name.
        group: its API group.
        versions: its versions; the last one is stored.
        by_key: whether its reconciler gets the name of an object instead of the object.
        external: whether its reconciler manages something outside the cluster.
    """

    package: str
    module: str
    kind: str
    group: str
    versions: Sequence[str]
    by_key: bool
    external: bool = False

    @property
    def snake(self) -> str:
        """Return the kind in snake case."""
        return snake_case(self.kind)


def check_kind(kind: NewKind) -> None:
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
        if hasattr(builtins, taken) or taken in _TAKEN:
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
        raise ConfigurationError("--external goes with one version, and without --by-key: 'reconciler add' adds others")
    if not kind.versions or len(set(kind.versions)) != len(kind.versions):
        raise ConfigurationError(f"versions must differ: {', '.join(kind.versions) or 'none is given'}")


def snake_case(kind: str) -> str:
    """Return a name in CamelCase in snake case."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", kind).lower()


def import_line(module: str, *names: str) -> str:
    """Return an import, formatted as ruff formats it."""
    line = f"from {module} import {', '.join(sorted(names))}"
    if len(line) <= _LINE:
        return line
    return "\n".join([f"from {module} import (", *(f"    {name}," for name in sorted(names)), ")"])


def project_files(package: str, kind: NewKind) -> dict[str, str]:
    """Return the files of a project without kinds, by path."""
    paths = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        "Containerfile": "Containerfile",
        "containerignore": ".containerignore",
        "gitignore": ".gitignore",
        "pre-commit-config.yaml": ".pre-commit-config.yaml",
        "ci.yaml": ".github/workflows/ci.yaml",
        "kustomization.yaml": "deploy/kustomization.yaml",
        "__init__.py": f"{package}/__init__.py",
        "operator.py": f"{package}/operator.py",
    }
    return {path: _render(f"project/{template}", kind) for template, path in paths.items()}


def kind_files(kind: NewKind) -> dict[str, str]:
    """Return the files of a kind with its controller and its tests, by path."""
    folder = kind.module.replace(".", "/")
    older = [{"version": each, "kind": f"{kind.kind}{each.capitalize()}"} for each in kind.versions[:-1]]
    templates = "external" if kind.external else "kind"
    files = {
        f"{folder}/kind.py": _render(f"{templates}/kind.py", kind),
        f"{folder}/controller.py": _render(f"{templates}/controller.py", kind),
        f"tests/test_{kind.snake}.py": _render(f"{templates}/test_kind.py", kind),
        f"tests/test_{kind.snake}_survives.py": _render(f"{templates}/test_survives.py", kind),
        f"examples/{kind.snake}.yaml": _render(f"{templates}/example.yaml", kind),
    }
    if kind.external:
        files[f"{folder}/service.py"] = _render("external/service.py", kind)
    if kind.module != kind.package:
        files[f"{folder}/__init__.py"] = _render("kind/package.py", kind)
    for each in older:
        files[f"{folder}/{each['version']}.py"] = _render(
            "kind/older.py", kind, old=each["version"], old_kind=each["kind"]
        )
    if older:
        files[f"{folder}/conversion.py"] = _render("kind/conversion.py", kind, older=older)
        files[f"tests/test_{kind.snake}_conversion.py"] = _render("kind/test_conversion.py", kind, older=older)
    return files


def webhook_files(kind: NewKind, *, kind_module: str) -> dict[str, str]:
    """Return the files of the webhooks of a kind that is in a module, by path."""
    modules = {"kind_module": kind_module, "webhook_module": f"{kind.module}.webhook"}
    return {
        f"{kind.module.replace('.', '/')}/webhook.py": _render("webhook/webhook.py", kind, **modules),
        f"tests/test_{kind.snake}_webhook.py": _render("webhook/test_webhook.py", kind, **modules),
    }


def certificate_files(kind: NewKind) -> dict[str, str]:
    """Return the files of the webhooks' certificate, by path."""
    return {"deploy/certificates.yaml": _render("webhook/certificates.yaml", kind)}


def _render(template: str, kind: NewKind, **values: Any) -> str:
    return render(
        template,
        name=kind.package,
        dashed=kind.package.replace("_", "-"),
        library=reconciler.__version__,
        module=kind.module,
        kind=kind.kind,
        snake=kind.snake,
        suffix=kind.snake.replace("_", "-"),
        group=kind.group,
        version=kind.versions[-1],
        by_key=kind.by_key,
        external=kind.external,
        imports=import_line,
        **values,
    )
