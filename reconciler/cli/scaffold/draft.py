"""A project in memory: the files that a command adds or changes, and the manifests that follow from them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reconciler.cli.scaffold.edits import add_resource, add_to_function
from reconciler.cli.scaffold.rendering import NewKind, certificate_files, import_line, kind_files, webhook_files
from reconciler.errors import ConfigurationError

__all__ = ["Draft"]

_KUSTOMIZATION = "deploy/kustomization.yaml"


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
                            shutil.copytree(self.root / name, copy / name, ignore=_not_copied)
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
        for path, text in certificate_files(kind).items():
            if self._present(path) is None:
                self.files[path] = text
        before = self._present(_KUSTOMIZATION)
        after = None if before is None else add_resource(before, "certificates.yaml")
        if after is None:
            self.notes.append(f"add certificates.yaml to the resources of {_KUSTOMIZATION}")
        elif after != before:
            self.files[_KUSTOMIZATION] = after


def _not_copied(folder: str, names: Sequence[str]) -> set[str]:
    """Return the entries of a directory other than code: caches, links to nothing or to a parent, special files."""
    here = Path(folder)
    return {
        name
        for name in names
        if name == "__pycache__"
        or not ((here / name).is_file() or (here / name).is_dir())
        or here.resolve().is_relative_to((here / name).resolve())
    }


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
