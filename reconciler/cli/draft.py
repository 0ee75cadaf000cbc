"""A project in memory: the files that a command adds or changes, and the manifests that follow from them.

New files are made from templates. Edits of others are small: an import, a statement at the end of a function, an item
of a list in YAML. Nothing is formatted anew, and a file in which the place for an edit cannot be found is refused.
"""

from __future__ import annotations

import ast
import builtins
import io
import keyword
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import reconciler
from reconciler.cli.output import render
from reconciler.errors import ConfigurationError
from reconciler.objects.crd import API_GROUP, CAMEL_CASE

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


def parse_module(path: str, text: str) -> ast.Module:
    """Return the syntax tree of a module.

    Raises:
        ConfigurationError: it is not valid Python.
    """
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        where = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        reason = error.msg if isinstance(error, SyntaxError) else error
        raise ConfigurationError(f"{path}{where}: not valid Python: {reason}") from error


def find_classes(tree: ast.Module) -> dict[str, str | None]:
    """Return the Resource classes of a module by name, each with its API group; None if that is not a literal."""
    return {
        node.name: group
        for node in tree.body
        if isinstance(node, ast.ClassDef) and {"group", "version"} <= (keywords := _keywords(node)).keys()
        for group in [keywords["group"]]
    }


def _keywords(node: ast.ClassDef) -> dict[str | None, str | None]:
    return {
        each.arg: each.value.value
        if isinstance(each.value, ast.Constant) and isinstance(each.value.value, str)
        else None
        for each in node.keywords
    }


def add_to_function(path: str, text: str, function: str, *, imports: str, name: str, statement: str) -> str:
    """Return a module with an import and a statement at the end of a function.

    Args:
        path: the module's path, for messages.
        text: the module.
        function: the name of a function at its top level.
        imports: the import.
        name: what it imports.
        statement: the statement, in which ``{0}`` is the function's first parameter.

    Raises:
        ConfigurationError: the function cannot be extended, or a name is in use.
    """
    end_of_line, text = _line_ending(text), text.replace("\r\n", "\n")
    tree = parse_module(path, text)
    found = find_function(tree, function)
    if found is None or not found.args.args:
        raise ConfigurationError(f"{path}: no function {function!r} with a parameter")
    statement = statement.format(found.args.args[0].arg)
    if re.search(rf"\b{name}\b", text):
        raise ConfigurationError(f"{path}: the name {name} is in use already")
    last = found.body[-1]
    if last.lineno == found.lineno or isinstance(last, ast.Return | ast.Raise):
        raise ConfigurationError(f"{path}: {function} ends with a return or is a single line: add '{statement}' first")
    lines = io.StringIO(text).readlines()  # splitlines would also split at a form feed, where Python does not
    indentation = re.match(r"\s*", lines[last.lineno - 1])
    end, at = last.end_lineno or last.lineno, _import_position(tree, imports)
    lines[end - 1] = lines[end - 1].rstrip("\n") + "\n"
    lines.insert(end, f"{indentation[0] if indentation else '    '}{statement}\n")
    before = lines[at - 1] if at else "\n"
    own = any(_module(node).partition(".")[0] == _first_part(imports) for node in tree.body)
    separator = "" if own or not before.strip() else "\n"
    lines.insert(at, f"{separator}{imports}\n")
    changed = "".join(lines)
    parse_module(path, changed)
    return changed.replace("\n", end_of_line)


def add_resource(text: str, resource: str) -> str | None:
    """Return a kustomization with one more resource; None if there is no list of resources in the usual form."""
    end_of_line, lines = _line_ending(text), io.StringIO(text.replace("\r\n", "\n")).readlines()
    for position, line in enumerate(lines):
        if re.fullmatch(r"resources:\s*", line):
            end = position + 1
            while end < len(lines) and (item := re.match(r"(\s*- )(\S+)", lines[end])):
                if item[2] == resource:
                    return text
                end += 1
            if end == position + 1:
                return None
            prefix = re.match(r"\s*- ", lines[end - 1])
            lines[end - 1] = lines[end - 1].rstrip("\n") + "\n"
            lines.insert(end, f"{prefix[0] if prefix else '  - '}{resource}\n")
            return "".join(lines).replace("\n", end_of_line)
    return None


def _line_ending(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def find_function(tree: ast.Module, name: str) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    """Return the function of a module with a name; None if there is none."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
            return node
    return None


def _module(node: ast.stmt) -> str:
    return node.module or "" if isinstance(node, ast.ImportFrom) and not node.level else ""


def _first_part(imports: str) -> str:
    return imports.split()[1].partition(".")[0]


def _import_position(tree: ast.Module, imports: str) -> int:
    """Return the line after which an import belongs: among those of the same package, by name, or after all others."""
    module, package = imports.split()[1], _first_part(imports)
    existing = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    own = [node for node in existing if _module(node).partition(".")[0] == package]
    earlier = [node for node in own if _module(node) <= module]
    if earlier:
        return earlier[-1].end_lineno or 0
    if own:
        return own[0].lineno - 1
    if existing:
        return existing[-1].end_lineno or 0
    first = tree.body[0] if tree.body else None
    has_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    return (first.end_lineno or 0) if first is not None and has_docstring else 0


_CERTIFICATES, _KUSTOMIZATION = "deploy/certificates.yaml", "deploy/kustomization.yaml"


@dataclass(slots=True)
class Draft:
    """The changes of a project.

    Attributes:
        root: the directory of the project; None for a new one.
        operator: the path of the module with the function that adds the controllers.
        function: the name of that function.
        files: the new texts by path.
        known: the present texts of the files that are changed.
        notes: what the user must do because it could not be done.
    """

    root: Path | None
    operator: str
    function: str
    files: dict[str, str] = field(default_factory=dict)
    known: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add_kind(self, kind: NewKind) -> None:
        """Add a kind with its controller, and with its conversion if it has several versions."""
        self._create(kind_files(kind))
        self._call(f"{kind.module}.controller", f"add_{kind.snake}_controller", "{name}({manager})")
        if len(kind.versions) > 1:
            self._call(f"{kind.module}.conversion", f"{kind.snake}_converter", "{manager}.add_webhooks({name})")
            self._add_certificates(kind)

    def add_webhook(self, kind: NewKind, *, kind_module: str) -> None:
        """Add a validator and a defaulter of a kind that is in a module."""
        self._create(webhook_files(kind, kind_module=kind_module))
        self._call(f"{kind.module}.webhook", f"add_{kind.snake}_webhooks", "{name}({manager})")
        self._add_certificates(kind)

    def generate_manifests(self, package: str, directory: str) -> None:
        """Add the manifests that follow from the changes; the code is imported in another process.

        Args:
            package: the project's package.
            directory: the directory of the generated manifests.

        Raises:
            ConfigurationError: they cannot be generated.
        """
        try:
            with tempfile.TemporaryDirectory() as folder:
                copy = Path(folder)
                if self.root is not None:
                    for name in {package, Path(directory).parts[0]}:
                        if (self.root / name).exists():
                            shutil.copytree(self.root / name, copy / name, symlinks=True, ignore=_not_copied)
                    shutil.copy(self.root / "pyproject.toml", copy)
                for path, text in self.files.items():
                    (copy / path).parent.mkdir(parents=True, exist_ok=True)
                    (copy / path).write_text(text, encoding="utf-8")
                _run_manifests(copy, self.root)
                generated = {
                    f"{directory}/{file.name}": file.read_text(encoding="utf-8")
                    for file in (copy / directory).glob("*.yaml")
                }
        except (OSError, shutil.Error) as error:
            raise ConfigurationError(f"cannot write a temporary directory: {error}; set TMPDIR to another") from error
        for path, text in sorted(generated.items()):
            if self._present(path) != text:
                self.files[path] = text

    def _create(self, files: Mapping[str, str]) -> None:
        for path in files:
            if path in self.files or (self.root is not None and (self.root / path).exists()):
                raise ConfigurationError(f"{path} exists, and is not overwritten: choose another name, or move it")
        self.files |= files

    def _present(self, path: str) -> str | None:
        """Return a file's text with the changes so far, and remember what is on the disk."""
        if path in self.files:
            return self.files[path]
        if self.root is None or not (self.root / path).exists():
            return None
        try:
            self.known[path] = (self.root / path).read_bytes().decode()  # with its line endings
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"cannot read {path}: {error}") from error
        return self.known[path]

    def _call(self, module: str, name: str, statement: str) -> None:
        text = self._present(self.operator) or ""
        statement = statement.replace("{name}", name).replace("{manager}", "{0}")
        self.files[self.operator] = add_to_function(
            self.operator, text, self.function, imports=import_line(module, name), name=name, statement=statement
        )

    def _add_certificates(self, kind: NewKind) -> None:
        """Add the certificate of the webhooks, unless the project has it."""
        if self._present(_CERTIFICATES) is None:
            self.files[_CERTIFICATES] = _render("webhook/certificates.yaml", kind)
        before = self._present(_KUSTOMIZATION)
        after = None if before is None else add_resource(before, "certificates.yaml")
        if after is None:
            self.notes.append(f"add certificates.yaml to the resources of {_KUSTOMIZATION}")
        elif after != before:
            self.files[_KUSTOMIZATION] = after


def _not_copied(folder: str, names: Sequence[str]) -> set[str]:
    """Return the entries of a directory other than code: caches, links to nothing, special files."""
    code = {name for name in names if Path(folder, name).is_file() or Path(folder, name).is_dir()}
    return {*names} - code | {"__pycache__"}


def _run_manifests(directory: Path, project: Path | None) -> None:
    # Options of this library in the environment are not meant for this command.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RECONCILER_")}
    paths = [environment.get("PYTHONPATH"), None if project is None else str(project.resolve())]
    done = subprocess.run(
        [sys.executable, "-m", "reconciler", "manifests"],
        cwd=directory,
        env={
            **environment,
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise ConfigurationError(f"cannot generate the manifests: {lines[-1].removeprefix('reconciler: ')}")
