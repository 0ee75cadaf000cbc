"""The test suites of other projects: fetched through the package managers, built once, run against a server."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Cases", "NotAvailable", "Suite", "read_ginkgo", "read_junit", "suites"]

_HERE = Path(__file__).parent
_ENVTEST = _HERE.parents[1] / "reconciler" / "testing" / "envtest"
_TIMEOUT_SECONDS = 900

Cases = dict[str, str]
"""The state of each test case by its name: passed, failed or skipped."""


class NotAvailable(Exception):
    """The sources of a suite cannot be fetched or built; the message is the output of the package manager."""


@dataclass(frozen=True)
class Suite:
    """A test suite of another project.

    Attributes:
        name: its name on the command line.
        project: the project with its version.
        prepare: fetches and builds it; returns the function that runs a part of it with a kubeconfig.
        parts: the parts that run on a server of their own: expressions of Ginkgo's focus, or of pytest's ``-k``.
    """

    name: str
    project: str
    prepare: Callable[[], Callable[[Path, str], Cases]]
    parts: Sequence[str] = ("",)


def suites() -> dict[str, Suite]:
    """Return the suites by name."""
    found: dict[str, Suite] = {}
    for project in json.loads((_HERE / "suites.json").read_text()):
        module, _, version = project["source"].partition("@")
        for name, suite in project["suites"].items():
            if "main" in project:
                prepare = functools.partial(_prepare_own, _HERE / project["main"], version, name, suite["skip"])
                shown = f"{module.rpartition('/')[2]} {version.removeprefix('v')}"
            elif version:
                prepare = functools.partial(_prepare_go, module, version, name, suite["package"])
                shown = f"{module.rpartition('/')[2]} {version.removeprefix('v')}"
            else:
                prepare = functools.partial(_prepare_python, project, suite["tests"])
                shown = module.replace("==", " ")
            found[name] = Suite(name, shown, prepare, suite.get("parts", [""]))
    return found


def _cache(*names: str) -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home, "kube-reconciler", "peers", *names)


def _output_of(*command: str, directory: Path | None = None) -> str:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotAvailable(f"{' '.join(command)}: {done.stderr.strip()[-2000:]}")
    return done.stdout


# Go


def _prepare_go(module: str, version: str, name: str, package: str) -> Callable[[Path, str], Cases]:
    """Build the test binary of a package into the user's cache, unless it is there."""
    root = _cache(f"{module.rpartition('/')[2]}@{version}")
    binary = root.with_suffix(f"{root.suffix}.bin") / f"{name}.test"
    if not root.exists():
        if shutil.which("go") is None:
            raise NotAvailable("this needs Go: install it (https://go.dev/dl)")
        fetched = json.loads(_output_of("go", "mod", "download", "-json", f"{module}@{version}"))["Dir"]
        _complete(root, lambda new: shutil.copytree(fetched, new, copy_function=shutil.copyfile))
    if not binary.exists():
        _output_of("go", "test", "-c", "-o", str(binary), f"./{package}", directory=_writable(root))
    return functools.partial(_run_go, binary, root / package)


def _prepare_own(main: Path, version: str, name: str, skip: str) -> Callable[[Path, str], Cases]:
    """Build a test binary of our own from packages of Kubernetes, whose versions are those of the control plane."""
    root = _cache(f"{main.parent.name}@{version}")
    binary = root / f"{name}.test"
    if not binary.exists():
        if shutil.which("go") is None:
            raise NotAvailable("this needs Go: install it (https://go.dev/dl)")
        _complete(root, lambda new: _build_own(main, new, binary.name))
    return functools.partial(_run_go, binary, root, arguments=(f"-ginkgo.skip={skip}",))


def _build_own(main: Path, directory: Path, binary: str) -> None:
    shutil.copytree(_ENVTEST, directory, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    shutil.copy(main, directory)
    for command in (("mod", "tidy"), ("test", "-c", "-o", binary, ".")):
        _output_of("go", *command, directory=directory)


def _writable(root: Path) -> Path:
    """Make a copy of a Go module writable: its folders in Go's cache are not."""
    for folder in (root, *(path for path in root.rglob("*") if path.is_dir())):
        folder.chmod(0o755)
    return root


def _complete(target: Path, make: Callable[[Path], object]) -> None:
    """Make a directory that has its name only once it is complete."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="new-", dir=target.parent) as scratch:
        new = Path(scratch, "new")
        make(new)
        new.rename(target)


def _run_go(binary: Path, package: Path, kubeconfig: Path, part: str, *, arguments: Sequence[str] = ()) -> Cases:
    report = kubeconfig.with_name("report.json")
    command = [str(binary), f"-ginkgo.json-report={report}", "-ginkgo.no-color", *arguments]
    if part:
        command.append(f"-ginkgo.focus={part}")
    _run(command, package, {"KUBECONFIG": str(kubeconfig), "USE_EXISTING_CLUSTER": "true"})
    return read_ginkgo(json.loads(report.read_text()) if report.exists() else [])


def read_ginkgo(report: Sequence[Mapping[str, Any]]) -> Cases:
    """Return the cases in a JSON report of Ginkgo."""
    found: Cases = {}
    for each in report:
        for spec in each["SpecReports"] or ():
            if spec["LeafNodeType"] != "It":
                continue
            name = " ".join([*(spec["ContainerHierarchyTexts"] or ()), spec["LeafNodeText"]])
            state = {"passed": "passed", "skipped": "skipped", "pending": "skipped"}.get(spec["State"], "failed")
            found[_unique(name, found)] = state
    return found


# Python


def _prepare_python(project: Mapping[str, Any], tests: Sequence[str]) -> Callable[[Path, str], Cases]:
    """Unpack the source distribution, and install what its tests need into an environment of their own."""
    source = project["source"]
    root = _cache(source)
    if not root.exists():
        _complete(root, lambda new: _unpack(source, new))
    requirements = [source, *project["requirements"]]
    environment = _cache(f"{source}.{hashlib.sha256(repr(requirements).encode()).hexdigest()[:8]}.venv")
    if not environment.exists():
        _complete(environment, lambda new: _install(requirements, new))
    for unwanted in project.get("remove", ()):
        (root / unwanted).unlink(missing_ok=True)
    command = [str(environment / "bin" / "python"), "-m", "pytest", f"--timeout={project.get('timeout', 60)}", *tests]
    return functools.partial(_run_python, command, root)


def _unpack(requirement: str, target: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        pip = (sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "-d", scratch)
        _output_of(*pip, requirement)
        (archive,) = Path(scratch).iterdir()
        with tarfile.open(archive) as packed:
            packed.extractall(scratch, filter="data")
        (unpacked,) = (path for path in Path(scratch).iterdir() if path.is_dir())
        shutil.copytree(unpacked, target)


def _install(requirements: Sequence[str], target: Path) -> None:
    venv.create(target, with_pip=True)
    _output_of(str(target / "bin" / "python"), "-m", "pip", "install", "-q", *requirements)


def _run_python(command: Sequence[str], root: Path, kubeconfig: Path, part: str) -> Cases:
    report = kubeconfig.with_name("report.xml")
    # Short tracebacks, because pytest looks up the source of others, which can end a run after a timeout. What a suite
    # leaves to the garbage collector depends on when that runs.
    plugins = ("-p", "peer_fixtures", "-p", "no:cacheprovider", "-p", "no:unraisableexception")
    options = [*plugins, "-W", "ignore::ResourceWarning", "--tb=native", f"--junit-xml={report}", "-k", part]
    _run(
        [*command, "-q", "-o", "addopts=", *options],
        root,
        {"KUBECONFIG": str(kubeconfig), "PYTHONPATH": str(_HERE / "python")},
    )
    return read_junit(report.read_text() if report.exists() else "<testsuites/>")


def read_junit(report: str) -> Cases:
    """Return the cases in a JUnit report."""
    found: Cases = {}
    for case in ET.fromstring(report).iter("testcase"):
        outcomes = {child.tag for child in case}
        state = "failed" if outcomes & {"failure", "error"} else "skipped" if "skipped" in outcomes else "passed"
        found[_unique(f"{case.get('classname', '').rpartition('.')[2]} {case.get('name')}", found)] = state
    return found


def _unique(name: str, known: Cases) -> str:
    """Return a name, numbered if another case has it."""
    numbered = (name if number == 1 else f"{name} ({number})" for number in itertools.count(1))
    return next(each for each in numbered if each not in known)


def _run(command: Sequence[str], directory: Path, variables: Mapping[str, str]) -> None:
    """Run a suite; its report tells the outcome, its output is kept beside the kubeconfig."""
    output = Path(variables["KUBECONFIG"]).with_name("output.log")
    with output.open("w") as log, contextlib.suppress(subprocess.TimeoutExpired):  # without a report, no case passes
        subprocess.run(
            command,
            cwd=directory,
            env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **variables},
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
