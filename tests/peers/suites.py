"""The test suites of other projects: fetched through the package managers, built once, run against a server."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import xml.etree.ElementTree as ET
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = [
    "Cases",
    "NotAvailable",
    "Play",
    "Suite",
    "read_ginkgo",
    "read_junit",
    "read_libtest",
    "read_testing",
    "suites",
]

_HERE = Path(__file__).parent
_ENVTEST = _HERE.parents[1] / "reconciler" / "testing" / "envtest"
_TIMEOUT_SECONDS = 900
_TESTING = re.compile(r"--- (?P<outcome>PASS|FAIL|SKIP): (?P<name>\S+) \([\d.]+s\)$", re.MULTILINE)

Cases = dict[str, str]
"""The state of each test case by its name: passed, failed or skipped."""

Play = Callable[[Path, str], Cases]
"""Runs a part of a suite with the kubeconfig of a server."""


class NotAvailable(Exception):
    """The sources of a suite cannot be fetched or built; the message says why."""


@dataclass(frozen=True)
class Suite:
    """A test suite of another project.

    Attributes:
        name: its name on the command line.
        project: the project with its version.
        prepare: fetches and builds it; returns the function that runs a part of it with a kubeconfig.
        parts: the parts that run on a server of their own: expressions of Ginkgo's focus or of pytest's
            ``-k``, or a substring of the names in Rust.
        arguments: more arguments of the command that starts the embedded server.
        real: those of the real one.
        alone: whether it runs on one server at a time, because it listens on a fixed port.
        checkout: the environment variable that names a checkout of its repository, if you must fetch it.
    """

    name: str
    project: str
    prepare: Callable[[], Play]
    parts: Sequence[str] = ("",)
    arguments: Sequence[str] = ()
    real: Sequence[str] = ()
    alone: bool = False
    checkout: str = ""


@dataclass(frozen=True)
class Project:
    """A project with test suites.

    Attributes:
        name: what its package manager or its repository calls it.
        version: the version that is fetched.
        options: its entry in ``suites.json``.
    """

    name: str
    version: str
    options: Mapping[str, Any]

    @property
    def checkout(self) -> str:
        """Return the environment variable for a checkout of the repository, or nothing if a proxy has the sources."""
        name = self.name.rpartition("/")[2].upper().replace("-", "_")
        return f"{name}_CHECKOUT" if "checkout" in self.options else ""

    @property
    def title(self) -> str:
        """Return the name and the version for a table."""
        return f"{self.name.rpartition('/')[2]} {self.version.removeprefix('v')}"

    def cache(self, suffix: str = "") -> Path:
        """Return the directory of this version in the user's cache."""
        return _cache(f"{self.name.rpartition('/')[2]}@{self.version}{suffix}")


def suites() -> dict[str, Suite]:
    """Return the suites by name."""
    preparations: dict[str, Callable[[Project, str, Mapping[str, Any]], Play]] = {
        "go": _prepare_go,
        "kubernetes": _prepare_kubernetes,
        "program": _prepare_program,
        "written": _prepare_written,
        "checkout": _prepare_checkout,
        "python": _prepare_python,
        "cargo": _prepare_cargo,
    }
    found: dict[str, Suite] = {}
    for options in json.loads((_HERE / "suites.json").read_text()):
        name, version = re.split("==|@", options["source"])
        project = Project(name, version, options)
        for suite, settings in options["suites"].items():
            prepare = functools.partial(preparations[options["with"]], project, suite, settings)
            arguments = settings.get("arguments", options.get("arguments", ()))
            real = options.get("real", ())
            parts = settings.get("parts", [""])
            alone = settings.get("alone", False)
            found[suite] = Suite(suite, project.title, prepare, parts, arguments, real, alone, project.checkout)
    return found


def _cache(*names: str) -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home, "kube-reconciler", "peers", *names)


def _output_of(*command: str, directory: Path | None = None) -> str:
    if shutil.which(command[0]) is None:
        raise NotAvailable(f"this needs {command[0]}: install it")
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotAvailable(f"{' '.join(command)}: {done.stderr.strip()[-2000:]}")
    return done.stdout


# Go


def _prepare_go(project: Project, name: str, settings: Mapping[str, Any]) -> Play:
    """Build the test binary of a package into the user's cache, unless it is there."""
    root = project.cache()
    binary = project.cache(".bin") / f"{name}.test"
    if not root.exists():
        _complete(root, lambda new: _copy_module(project, new))
    package = settings["package"]
    if not binary.exists():
        _output_of("go", "test", "-mod=mod", "-c", "-o", str(binary), f"./{package}", directory=root)
    run = _run_testing if project.options.get("testing") else _run_ginkgo
    return functools.partial(run, binary, root / package)


def _copy_module(project: Project, target: Path) -> None:
    """Copy a Go module, change its requirements, and make the manifests that its makefile makes for kustomize."""
    options = project.options
    if "checkout" in options:
        _copy_checkout(project, target)
    else:
        fetched = json.loads(_output_of("go", "mod", "download", "-json", f"{project.name}@{project.version}"))["Dir"]
        shutil.copytree(fetched, target, copy_function=shutil.copyfile)
        _writable(target)
    if "edit" in options:
        _output_of("go", "mod", "edit", *options["edit"], directory=target)
    for manifest, directory in options.get("kustomize", {}).items():
        made = target / manifest
        made.parent.mkdir(parents=True, exist_ok=True)
        made.write_text(_output_of("kubectl", "kustomize", str(target / directory)))


def _copy_checkout(project: Project, target: Path) -> None:
    """Copy a directory of a repository, or all of it, in the wanted version, whatever the checkout's version is."""
    if project.checkout not in os.environ:
        raise NotAvailable(f"set {project.checkout} to a checkout: git clone https://{project.name}")
    with tempfile.TemporaryDirectory() as scratch:
        archive = Path(scratch, "archive.tar")
        directory = project.options["checkout"]
        command = ("archive", f"--output={archive}", f"{project.version}:{directory}")
        _output_of("git", "-C", os.environ[project.checkout], *command)
        with tarfile.open(archive) as packed:
            packed.extractall(target, filter="data")


def _prepare_program(project: Project, _name: str, settings: Mapping[str, Any]) -> Play:
    """Build a program of Kubernetes, for tests of our own that find it in the environment variable PROGRAM."""
    package = project.options["program"]
    name = package.rpartition("/")[2]
    binary = _cache(f"{name}@{project.version}") / name
    if not binary.exists():
        _complete(binary.parent, lambda new: _build_from_envtest(new, ("build", "-o", name, package)))
    command = [sys.executable, "-m", "pytest", *(str(_HERE / test) for test in settings["tests"])]
    return functools.partial(_run_python, command, _HERE, variables={"PROGRAM": str(binary)})


def _prepare_kubernetes(project: Project, name: str, settings: Mapping[str, Any]) -> Play:
    """Build a test binary of our own from packages of Kubernetes, whose versions are those of the control plane."""
    main = _HERE / project.options["main"]
    root = project.cache()
    binary = root / f"{name}.test"
    if not binary.exists():
        build = ("test", "-c", "-o", binary.name, ".")
        _complete(root, lambda new: _build_from_envtest(new, ("mod", "tidy"), build, main=main))
    return functools.partial(_run_ginkgo, binary, root, arguments=(f"-ginkgo.skip={settings['skip']}",))


def _build_from_envtest(directory: Path, *commands: Sequence[str], main: Path | None = None) -> None:
    """Run commands of Go in a module with the versions of the control plane."""
    shutil.copytree(_ENVTEST, directory, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    if main is not None:
        shutil.copy(main, directory)
    for command in commands:
        _output_of("go", *command, directory=directory)


def _writable(root: Path) -> None:
    """Make a copy of a Go module writable: its folders in Go's cache are not."""
    for folder in (root, *(path for path in root.rglob("*") if path.is_dir())):
        folder.chmod(0o755)


def _complete(target: Path, make: Callable[[Path], object]) -> None:
    """Make a directory that has its name only once it is complete."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="new-", dir=target.parent) as scratch:
        new = Path(scratch, "new")
        make(new)
        new.rename(target)


def _run_ginkgo(binary: Path, package: Path, kubeconfig: Path, part: str, *, arguments: Sequence[str] = ()) -> Cases:
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


def _run_testing(binary: Path, package: Path, kubeconfig: Path, part: str) -> Cases:
    variables = {"KUBECONFIG": str(kubeconfig), "USE_EXISTING_CLUSTER": "true"}
    _run([str(binary), "-test.v", f"-test.run={part}"], package, variables)
    return read_testing(kubeconfig.with_name("output.log").read_text(errors="replace"))


def read_testing(output: str) -> Cases:
    """Return the cases in the verbose output of Go's package testing: tests and their subtests."""
    states = {"PASS": "passed", "FAIL": "failed", "SKIP": "skipped"}
    return {found["name"]: states[found["outcome"]] for found in _TESTING.finditer(output)}


# Python


def _prepare_python(project: Project, _name: str, settings: Mapping[str, Any]) -> Play:
    """Unpack the source distribution, and install what its tests need into an environment of their own."""
    source, options = f"{project.name}=={project.version}", project.options
    root = project.cache()
    if not root.exists():
        _complete(root, lambda new: _unpack(source, new))
    requirements = [source, *options["requirements"]]
    environment = project.cache(f".{hashlib.sha256(repr(requirements).encode()).hexdigest()[:8]}.venv")
    if not environment.exists():
        _complete(environment, lambda new: _install(requirements, new))
    for unwanted in options.get("remove", ()):
        (root / unwanted).unlink(missing_ok=True)
    command = [str(environment / "bin" / "python"), "-m", "pytest", f"--timeout={options.get('timeout', 60)}"]
    return functools.partial(_run_python, [*command, *settings["tests"]], root)


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


def _run_python(
    command: Sequence[str], root: Path, kubeconfig: Path, part: str, variables: Mapping[str, str] | None = None
) -> Cases:
    report = kubeconfig.with_name("report.xml")
    # Short tracebacks, because pytest looks up the source of others, which can end a run after a timeout. What a suite
    # leaves to the garbage collector depends on when that runs.
    plugins = ("-p", "peer_fixtures", "-p", "no:cacheprovider", "-p", "no:unraisableexception")
    options = [*plugins, "-W", "ignore::ResourceWarning", "--tb=native", f"--junit-xml={report}", "-k", part]
    _run(
        [*command, "-q", "-o", "addopts=", *options],
        root,
        {"KUBECONFIG": str(kubeconfig), "PYTHONPATH": str(_HERE / "python"), **(variables or {})},
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


# Tests of our own for clients of other languages


def _prepare_written(project: Project, name: str, _settings: Mapping[str, Any]) -> Play:
    """Copy the tests of our own for a client, and let its package manager install the client."""
    sources = _HERE / project.options["directory"]
    files = sorted(path for path in sources.rglob("*") if path.is_file())
    content = repr([(str(path.relative_to(sources)), path.read_bytes()) for path in files])
    root = project.cache(f".{hashlib.sha256(content.encode()).hexdigest()[:8]}")
    if not root.exists():
        _complete(root, lambda new: _install_client(project, sources, new))
    return functools.partial(_run_written, project, root)


def _install_client(project: Project, sources: Path, target: Path) -> None:
    shutil.copytree(sources, target)
    _output_of(*(part.format(version=project.version) for part in project.options["install"]), directory=target)


def _prepare_checkout(project: Project, _name: str, _settings: Mapping[str, Any]) -> Play:
    """Build a project from a checkout of its repository, with the commands of its entry."""

    def build(new: Path) -> None:
        _copy_checkout(project, new)
        _output_of(*project.options["install"], directory=new)

    root = project.cache()
    if not root.exists():
        _complete(root, build)
    return functools.partial(_run_written, project, root)


def _run_written(project: Project, root: Path, kubeconfig: Path, part: str) -> Cases:
    where = project.options.get("reports")
    reports = kubeconfig.with_name("reports") if where is None else root / where
    shutil.rmtree(reports, ignore_errors=True)
    reports.mkdir(parents=True)
    values = {"version": project.version, "reports": reports, "part": part}
    _run([part.format_map(values) for part in project.options["run"]], root, {"KUBECONFIG": str(kubeconfig)})
    found: Cases = {}
    for report in sorted(reports.glob("*.xml")):
        found |= read_junit(report.read_text())
    return found


# Rust

_LIBTEST = re.compile(
    r"^test (?P<name>\S+)(?: - should panic)? \.\.\. (?:(?!test ).*\n)*?(?P<outcome>ok|FAILED|ignored)(?:, .*)?$",
    re.MULTILINE,
)
"""A test of Rust's harness; what a program that it starts prints comes before the outcome."""


def _prepare_cargo(project: Project, crate: str, _settings: Mapping[str, Any]) -> Play:
    """Build the tests of a project's crates, unless they are in the user's cache."""
    root = project.cache()
    if not root.exists():
        _complete(root, lambda new: _build_crates(project, new))
    return functools.partial(_run_cargo, root / f"{crate}.test", root / crate)


def _build_crates(project: Project, target: Path) -> None:
    """Build the tests of crates in a workspace, as in their repository.

    Published crates have lost the dependencies of their tests on their siblings.
    """
    crates = project.options["suites"]
    _fetch_crates(crates, project.version, target)
    for crate, suite in crates.items():
        siblings = (f'[dev-dependencies.{name}]\npath = "../{name}"\n' for name in suite.get("siblings", ()))
        with (target / crate / "Cargo.toml").open("a") as manifest:
            manifest.write("\n" + "".join(siblings))
    workspace = f'[workspace]\nresolver = "2"\nmembers = {json.dumps(list(crates))}\n[profile.dev]\ndebug = false\n'
    patches = "".join(f'{crate} = {{ path = "{crate}" }}\n' for crate in crates)
    (target / "Cargo.toml").write_text(f"{workspace}[patch.crates-io]\n{patches}")
    build = ("cargo", "test", "--workspace", "--lib", "--no-run", "--features", project.options["features"])
    for line in _output_of(*build, "--message-format=json-render-diagnostics", directory=target).splitlines():
        message = json.loads(line)
        if message.get("executable"):
            shutil.copy(message["executable"], target / f"{Path(message['manifest_path']).parent.name}.test")
    shutil.rmtree(target / "target", ignore_errors=True)


def _fetch_crates(crates: Collection[str], version: str, target: Path) -> None:
    """Copy the sources of crates: Cargo fetches those that a package depends on."""
    with tempfile.TemporaryDirectory() as scratch:
        needs = "".join(f'{crate} = "={version}"\n' for crate in crates)
        manifest = '[package]\nname = "fetch"\nedition = "2021"\n[lib]\npath = "lib.rs"\n'
        Path(scratch, "lib.rs").touch()
        Path(scratch, "Cargo.toml").write_text(f"{manifest}[dependencies]\n{needs}")
        metadata = json.loads(_output_of("cargo", "metadata", "--format-version=1", directory=Path(scratch)))
    for package in metadata["packages"]:
        if package["name"] in crates:
            shutil.copytree(Path(package["manifest_path"]).parent, target / package["name"])


def _run_cargo(binary: Path, package: Path, kubeconfig: Path, part: str) -> Cases:
    # The tests that need a cluster are those that are ignored by default.
    _run([str(binary), "--ignored", "--test-threads=1", part], package, {"KUBECONFIG": str(kubeconfig)})
    return read_libtest(kubeconfig.with_name("output.log").read_text(errors="replace"))


def read_libtest(output: str) -> Cases:
    """Return the cases in the output of Rust's test harness; a test that has not ended is none."""
    states = {"ok": "passed", "FAILED": "failed", "ignored": "skipped"}
    return {found["name"]: states[found["outcome"]] for found in _LIBTEST.finditer(output)}


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
