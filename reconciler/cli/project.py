"""The commands ``reconciler new``, a small working project, and ``reconciler add``, another kind or webhooks in it."""

from __future__ import annotations

import importlib.util
import keyword
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import msgspec
from cyclopts import App, Parameter

from reconciler.cli.draft import (
    Draft,
    NewKind,
    check_kind,
    find_classes,
    find_function,
    parse_module,
    project_files,
    snake_case,
)
from reconciler.cli.output import render, write_files
from reconciler.cli.targets import read_pyproject
from reconciler.errors import ConfigurationError

add = App(name="add", help="Add a kind or a webhook to the project in the current directory.")

_NAME = re.compile(r"[a-z](_?[a-z0-9])*")
_LONGEST = 40
_TAKEN_DIRECTORIES = frozenset({"certs", "deploy", "dist", "examples", "tests"})


Versions = Annotated[
    str,
    Parameter(help="Versions of the kind, separated by commas. The last is stored, the others are converted to it."),
]
ByKey = Annotated[
    bool, Parameter(help="Write a reconciler that gets the name of an object instead of the object.", negative=())
]


def new(
    name: str,
    /,
    *,
    directory: Annotated[Path | None, Parameter(show_default=False)] = None,
    kind: str | None = None,
    group: str = "example.com",
    versions: Versions = "v1alpha1",
    webhook: Annotated[bool, Parameter(negative=())] = False,
    by_key: ByKey = False,
    external: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Write a small operator project that works at once: a kind, a reconciler, tests and manifests.

    Needs no cluster. Afterwards 'pytest', 'reconciler run' and 'kubectl apply -f' work in this order; the output has
    the commands. With several --versions there is a conversion webhook, too. 'reconciler add' adds more later.

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
        module=name,
        kind=_kind_named_after(name) if kind is None else kind,
        group=group,
        versions=versions.split(","),
        by_key=by_key,
        external=external,
    )
    check_kind(new_kind)
    _check_directory(target)
    draft = Draft(None, f"{name}/operator.py", "add_controllers", project_files(name, new_kind))
    draft.add_kind(new_kind)
    if webhook:
        draft.add_webhook(new_kind, kind_module=f"{name}.kind")
    draft.generate_manifests(name, "deploy/base")
    write_files(target, draft.files)
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


@add.command(name="kind")
def add_kind(
    name: str,
    /,
    *,
    group: str | None = None,
    versions: Versions = "v1alpha1",
    by_key: ByKey = False,
) -> int:
    """Add a kind with its reconciler, tests and an example to the project in the current directory.

    Existing files are not overwritten: the function that adds the controllers gets one more line and an import, and the
    manifests are generated again.

    Args:
        name: The kind in CamelCase, such as 'Database'.
        group: API group of the kind. Default: that of the project's kinds.
    """
    project = _project()
    groups = [found for _, found in project.kinds.values() if found]
    kind = NewKind(
        package=project.package,
        module=f"{project.package}.{snake_case(name)}",
        kind=name,
        group=group or (groups[0] if groups else "example.com"),
        versions=versions.split(","),
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


@add.command(name="webhook")
def add_webhook(
    name: Annotated[str, Parameter(name="kind")],
    /,
) -> int:
    """Add a validating and a defaulting webhook of a kind to the project in the current directory.

    Existing files are not overwritten: the function that adds the controllers gets one more line and an import, and
    the manifests are generated again.

    Args:
        name: The name of a Resource class of the project.
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
