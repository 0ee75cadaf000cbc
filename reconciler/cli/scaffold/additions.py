"""The command ``reconciler add``: another kind, or webhooks of a kind, in a project that exists."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from reconciler.cli.pyproject import read_pyproject
from reconciler.cli.scaffold.draft import Draft
from reconciler.cli.scaffold.edits import find_classes, find_function, parse_module
from reconciler.cli.scaffold.rendering import NewKind, check_kind, snake_case
from reconciler.cli.writing import write_files
from reconciler.errors import ConfigurationError

__all__ = ["add_kind", "add_webhook"]

_TARGET = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


@dataclass(frozen=True, slots=True)
class _Project:
    """A project in the current directory.

    Attributes:
        package: its package.
        function: the name of the function that adds the controllers.
        operator: the path of the module with that function.
        manifests: the directory of the generated manifests; None if they are not kept.
        kinds: the modules and groups of its Resource classes by name.
    """

    package: str
    function: str
    operator: str
    manifests: str | None
    kinds: dict[str, tuple[str, str | None]]


def add_kind(name: str, *, group: str | None, versions: Sequence[str], by_key: bool) -> int:
    """Add a kind with its reconciler, tests and an example to the project in the current directory.

    Raises:
        ConfigurationError: the name or an option is invalid, or there is no such project; nothing is written.
    """
    project = _project()
    groups = [found for _, found in project.kinds.values() if found]
    kind = NewKind(
        package=project.package,
        module=f"{project.package}.{snake_case(name)}",
        kind=name,
        group=group or (groups[0] if groups else "example.com"),
        versions=versions,
        by_key=by_key,
    )
    check_kind(kind)
    if name in project.kinds:
        raise ConfigurationError(f"the project has a kind {name} already, in {project.kinds[name][0]}")
    if (module := Path(project.package, f"{kind.snake}.py")).exists():
        raise ConfigurationError(f"{module} exists: choose another name")
    draft = _draft(project)
    draft.add_kind(kind)
    return _finish(project, draft)


def add_webhook(name: str) -> int:
    """Add a validator and a defaulter of a kind to the project in the current directory.

    Raises:
        ConfigurationError: there is no such project or kind; nothing is written.
    """
    project = _project()
    if name not in project.kinds:
        known = ", ".join(project.kinds) or "none"
        raise ConfigurationError(f"no Resource class {name!r} in {project.package}: its kinds are {known}")
    module, group = project.kinds[name]
    kind = NewKind(
        package=project.package,
        module=module.rpartition(".")[0] or module,
        kind=name,
        group=group or "example.com",
        versions=("v1",),
        by_key=False,
    )
    draft = _draft(project)
    draft.add_webhook(kind, kind_module=module)
    return _finish(project, draft)


def _draft(project: _Project) -> Draft:
    return Draft(Path(), project.operator, project.function)


def _finish(project: _Project, draft: Draft) -> int:
    if project.manifests is not None:
        draft.generate_manifests(project.package, project.manifests)
    else:
        draft.notes.append("generate the manifests again")
    write_files(Path(), draft.files, known=draft.known)
    for path in sorted(draft.files):
        print(f"{'changed' if path in draft.known else 'created'} {path}")
    for note in draft.notes:
        print(f"to do: {note}")
    return 0


def _project() -> _Project:
    """Return the project in the current directory.

    Raises:
        ConfigurationError: there is none, or its function that adds the controllers is not found.
    """
    options = _manifest_options()
    target = options.get("target")
    if not isinstance(target, str) or not _TARGET.fullmatch(target):
        raise ConfigurationError(
            "pyproject.toml does not have target = 'PACKAGE:FUNCTION' in [tool.reconciler.manifests]: "
            "'reconciler new' writes a project with it"
        )
    module, _, function = target.partition(":")
    package = module.partition(".")[0]
    modules = {path: parse_module(path, text) for path, text in _sources(package)}
    found = [path for path, tree in modules.items() if find_function(tree, function)]
    if len(found) != 1:
        where = " and ".join(found) or f"no module of {package}"
        raise ConfigurationError(f"{function}() must be defined once, to add the controllers; it is in {where}")
    kinds = {
        name: (path.removesuffix(".py").removesuffix("/__init__").replace("/", "."), group)
        for path, tree in modules.items()
        for name, group in find_classes(tree).items()
    }
    return _Project(package, function, found[0], _manifest_directory(options.get("directory")), kinds)


def _manifest_directory(given: object) -> str | None:
    if given is None:
        return None
    path = PurePosixPath(given) if isinstance(given, str) else PurePosixPath()
    if not path.parts or path.is_absolute() or ".." in path.parts:
        raise ConfigurationError(
            f"pyproject.toml: directory = {given!r} in [tool.reconciler.manifests] is not a directory of the project: "
            "write one such as 'deploy/base'"
        )
    return path.as_posix()


def _manifest_options() -> dict[str, Any]:
    document = read_pyproject()
    if document is None:
        raise ConfigurationError("no pyproject.toml here: run it in a project of 'reconciler new'")
    for name in ("tool", "reconciler", "manifests"):
        document = document.get(name, {})
        if not isinstance(document, dict):
            return {}
    return document


def _sources(package: str) -> Iterator[tuple[str, str]]:
    """Yield path and text of each module of a package.

    Raises:
        ConfigurationError: a module cannot be read.
    """
    for path in sorted(Path(package).rglob("*.py")):
        if not path.is_file():  # an editor's lock is a link to nothing
            continue
        try:
            yield path.as_posix(), path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"cannot read {path}: {error}") from error
