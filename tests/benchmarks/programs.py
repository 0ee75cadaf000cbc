"""The contenders that are not modules of this package: built from source, or run by another interpreter."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

GO_SOURCE = Path(__file__).parent / "go"
RUST_SOURCE = Path(__file__).parent / "rust"


@dataclass(frozen=True)
class Programs:
    """The built programs; empty for what is missing.

    Attributes:
        go: the path of the controller-runtime contender.
        rust: the path of the kube-rs contender.
        python: another interpreter.
        python_version: its version, as ``Python 3.14.3``.
    """

    go: str = ""
    rust: str = ""
    python: str = ""
    python_version: str = "another Python"

    def can_run(self, contender: str) -> bool:
        """Return whether a contender's program is there."""
        needed = {"go": self.go, "rust": self.rust, "other": self.python}
        return bool(needed.get(contender.partition("-")[0], "always"))


def build(
    directory: str, contenders: Collection[str], go: str | None, rust: str | None, python: str | None
) -> Programs:
    """Build what the contenders need, and say in a line what is left out because its tools are missing.

    Args:
        directory: where the Go program is built. Cargo builds in the user's cache, since a full build takes minutes.
        contenders: the words that choose them.
        go: the path of a built program; None to build it.
        rust: the same.
        python: another interpreter; None for none.
    """
    families = {name.partition("-")[0] for name in contenders}
    if "go" in families:
        go = go or _build_go(directory)
    if "rust" in families:
        rust = rust or _build_rust()
    version = ""
    if "other" in families:
        if python is None:
            _left_out("other-python", "another interpreter", "--python PATH")
        else:
            version = subprocess.run([python, "-V"], check=True, capture_output=True, text=True).stdout.strip()
    return Programs(go or "", rust or "", python or "", version)


def _build_go(directory: str) -> str:
    tool = shutil.which("go")
    if tool is None:
        return _left_out("controller-runtime", "Go", "https://go.dev/dl/")
    program = str(Path(directory) / "controller-runtime-benchmark")
    subprocess.run([tool, "build", "-o", program, "."], cwd=GO_SOURCE, check=True)
    return program


def _build_rust() -> str:
    tool = shutil.which("cargo")
    if tool is None:
        return _left_out("kube-rs", "Cargo", "https://rustup.rs/")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kube-reconciler" / "benchmarks"
    command = [tool, "build", "--release", "--locked", "--target-dir", str(cache)]
    subprocess.run(command, cwd=RUST_SOURCE, check=True)
    return str(cache / "release" / "kube-rs-benchmark")


def _left_out(contender: str, tool: str, where: str) -> str:
    sys.stderr.write(f"{contender} is left out: it needs {tool} ({where})\n")
    return ""


def versions() -> list[str]:
    """Return the versions of the libraries that the built contenders use."""
    modules = (GO_SOURCE / "go.mod").read_text().split()
    packages = tomllib.loads((RUST_SOURCE / "Cargo.lock").read_text())["package"]
    kube = next(package["version"] for package in packages if package["name"] == "kube")
    return [f"controller-runtime {modules[modules.index('sigs.k8s.io/controller-runtime') + 1]}", f"kube-rs {kube}"]
