"""The command ``reconciler new``: a small working project."""

from __future__ import annotations

import importlib.util
import keyword
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reconciler.cli.scaffold.draft import Draft
from reconciler.cli.scaffold.rendering import NewKind, check_kind, project_files
from reconciler.cli.writing import write_files
from reconciler.errors import ConfigurationError

__all__ = ["ProjectOptions", "create_project"]

_NAME = re.compile(r"[a-z](_?[a-z0-9])*")
_LONGEST = 40
_TAKEN_DIRECTORIES = frozenset({"certs", "deploy", "dist", "examples", "tests"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectOptions:
    """The options of ``reconciler new``, as its ``--help`` describes them."""

    kind: str | None
    group: str
    versions: Sequence[str]
    by_key: bool
    webhook: bool


def create_project(name: str, directory: Path | None, options: ProjectOptions) -> int:
    """Write a project, and print the next commands.

    Args:
        name: the name of its package, such as ``my_operator``. The kind is named after it, ``My``, unless the options
            have one.
        directory: where to write it; must be empty if it exists. Default: a directory of that name.
        options: what it contains.

    Raises:
        ConfigurationError: the name, an option or the directory is invalid; nothing is written.
    """
    target = directory if directory is not None else Path(name)
    _check_name(name)
    kind = NewKind(
        package=name,
        module=name,
        kind=_kind_named_after(name) if options.kind is None else options.kind,
        group=options.group,
        versions=options.versions,
        by_key=options.by_key,
    )
    check_kind(kind)
    _check_directory(target)
    draft = Draft(None, f"{name}/operator.py", "add_controllers", project_files(name, kind))
    draft.add_kind(kind)
    if options.webhook:
        draft.add_webhook(kind, kind_module=f"{name}.kind")
    draft.generate_manifests(name, "deploy/base")
    write_files(target, draft.files)
    _print_next(target, kind)
    return 0


def _kind_named_after(name: str) -> str:
    return "".join(part.capitalize() for part in re.sub(r"_(operator|controller)$", "", name).split("_"))


def _print_next(target: Path, kind: NewKind) -> None:
    example = f"kubectl apply -f examples/{kind.snake}.yaml"
    print(f"created {target}: the kind {kind.kind}, its reconciler, tests, and the manifests. Next:")
    print(f"  cd {shlex.quote(str(target))}")
    print("  python3 -m venv .venv && . .venv/bin/activate && pip install -e '.[dev]'")
    print("  pytest")
    print("  reconciler dev")
    print("The last command runs the operator on an API server of its own.")
    print("In a second terminal, in the same directory:")
    print("  export KUBECONFIG=reconciler.kubeconfig")
    print(f"  {example}")
    print("On a cluster, instead of 'reconciler dev':")
    print("  kubectl apply -f deploy/base/crd.yaml")
    print(f"  reconciler run {kind.package}:add_controllers")
    print(f"  {example}")


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
