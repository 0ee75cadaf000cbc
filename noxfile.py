"""Nox sessions: the usual checks, and those that take longer than a change should wait for: ``nox -s SESSION``.

The sessions use the environment that nox runs in.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import zipfile
from pathlib import Path

import nox

nox.options.sessions = ["lint", "tests"]

FAST_SUITES = ("client", "cache", "webhook", "recorder")


def taken(arguments: list[str], option: str, default: str) -> str:
    """Remove an option from the arguments and return its value."""
    if option not in arguments:
        return default
    at = arguments.index(option)
    value = arguments[at + 1]
    del arguments[at : at + 2]
    return value


@nox.session(python=False)
def lint(session: nox.Session) -> None:
    """Check form, types and imports."""
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("python", "-m", "tests.prose")
    session.run("lint-imports")
    session.run("mypy")
    session.run("pyright")


@nox.session(python=False)
def tests(session: nox.Session) -> None:
    """Run all tests on the embedded server; arguments go to pytest."""
    session.run("pytest", "-q", *session.posargs)


@nox.session(python=False)
def pythons(session: nox.Session) -> None:
    """Run all tests in other Pythons, each in an environment of its own; arguments are their paths or names."""
    for number, python in enumerate(session.posargs or ["python3.12", "python3.13"]):
        programs = Path(session.create_tmp(), f"python-{number}", "bin")
        session.run(python, "-m", "venv", "--clear", str(programs.parent), external=True)
        session.run(str(programs / "pip"), "install", "-q", "-e", ".[dev,all]")
        session.run(str(programs / "python"), "-m", "pytest", "-q")


@nox.session(python=False)
def dist(session: nox.Session) -> None:
    """Build wheel and sdist, check what they contain, use each in empty environments, and run the tests of the sdist.

    Arguments are the Pythons to install into; the default is the one that nox runs in.
    """
    directory = Path(session.create_tmp())
    shutil.rmtree(directory, ignore_errors=True)
    built = directory / "dist"
    session.run("python", "-m", "build", "--outdir", str(built), ".")
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    session.run("twine", "check", "--strict", str(wheel), str(sdist))
    session.run("check-wheel-contents", str(wheel))
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    tracked = session.run("git", "ls-files", "reconciler", silent=True, log=False).split()
    if packed != set(tracked):
        session.error(f"the wheel is not what reconciler/ is in git: {sorted(packed ^ set(tracked))}")
    for number, python in enumerate(session.posargs or [sys.executable]):
        for artifact in (wheel, sdist) if number == 0 else (wheel,):
            fresh = directory / f"{number}-{artifact.suffix[1:]}"
            session.run(python, "-m", "venv", str(fresh), external=True)
            _use(session, artifact.resolve(), (fresh / "bin").resolve())
    _test_sdist(session, sdist.resolve(), (directory / "0-gz" / "bin").resolve())


def _use(session: nox.Session, artifact: Path, programs: Path) -> None:
    """Do what a new user does: look at the demo, follow its first command, create a project, run its tests."""
    reconciler = str(programs / "reconciler")
    with session.chdir(programs.parent):
        session.run(str(programs / "pip"), "install", "-q", str(artifact))
        session.run(str(programs / "python"), "-c", "from reconciler import Client, Manager, Resource, StatusBatcher")
        session.run(str(programs / "pip"), "install", "-q", f"{artifact}[demo]")
        session.run(str(programs / "python"), "-m", "reconciler", "--version")
        session.run(reconciler, "demo", "--output", "json", "--speed", "0", silent=True)
        session.run(reconciler, "apiserver", "notification", "--exec", "true", silent=True)
        session.run(str(programs / "pip"), "install", "-q", f"{artifact}[cli,testing]")
        session.run(reconciler, "new", "website", silent=True)
        with session.chdir("website"):
            session.run(str(programs / "python"), "-m", "pytest", "-q", env={"PYTHONPATH": "."})


SDIST_SUITES = ("meta", "workqueue", "controller", "cache")


def _test_sdist(session: nox.Session, sdist: Path, programs: Path) -> None:
    """Unpack the sdist, and run some of its tests in the environment into which it is installed."""
    unpacked = programs.parent / "sdist"
    shutil.unpack_archive(sdist, unpacked, filter="data")
    session.run(str(programs / "pip"), "install", "-q", "pytest-timeout")
    with session.chdir(next(unpacked.iterdir())):
        tests = [f"tests/{name}" for name in SDIST_SUITES]
        session.run(str(programs / "python"), "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests)


@nox.session(python=False)
def controllers(session: nox.Session) -> None:
    """Build kube-controller-manager, and run the tests that need it; needs Go."""
    session.run("reconciler", "envtest", "build", "--controller-manager")
    tests = ["tests/testing/test_controller_manager.py", "tests/testing/test_workloads.py"]
    session.run("pytest", "-q", "-n0", "--control-plane", "-m", "control_plane", *tests)


@nox.session(python=False)
def alertmanager(session: nox.Session) -> None:
    """Build Alertmanager from its Go module, and let it send alerts to the notification operator; needs Go."""
    directory = Path(session.create_tmp()).resolve()
    module = "github.com/prometheus/alertmanager/cmd/alertmanager@v0.28.1"
    session.run("go", "install", module, env={"GOBIN": str(directory)}, external=True)
    test = "tests/docs/test_alerts.py"
    session.run("pytest", "-q", "-n0", "-k", "real", test, env={"ALERTMANAGER": str(directory / "alertmanager")})


@nox.session(python=False)
def ecosystem(session: nox.Session) -> None:
    """Run the test suites of other projects on the embedded and a real server; a workflow does it every week.

    The first build needs Go, kubectl, Cargo, npm and Maven. Arguments go to ``python -m tests.peers``: the names of
    suites, such as ``-- client cache``, and ``--docs``, which writes the table of the docs. KUBEBUILDER_CHECKOUT and
    JAVA_OPERATOR_SDK_CHECKOUT name checkouts of projects whose suites are left out without them.
    """
    session.run("python", "-m", "tests.peers", *session.posargs)


@nox.session(python=False)
def peers(session: nox.Session) -> None:
    """Run the suites of `ecosystem` that take a few minutes; needs Go. Every change is tested with them."""
    session.run("python", "-m", "tests.peers", *(session.posargs or FAST_SUITES))


@nox.session(python=False)
def programs(session: nox.Session) -> None:
    """Run ``reconciler check --exec`` with programs in Go and over kopf; arguments go to pytest."""
    test = "tests/explore/test_programs.py"
    session.run("pytest", "-q", "-n0", test, *session.posargs, env={"CHECK_PROGRAMS": "1"})


@nox.session(python=False)
def browser(session: nox.Session) -> None:
    """Look at the docs and the console in Chromium; ``-- --pictures`` writes the pictures of the docs."""
    session.run("pytest", "-q", "-n0", "-m", "browser", *session.posargs)


@nox.session(python=False)
def thorough(session: nox.Session) -> None:
    """Run the property tests with all their examples, and the tests that take long; arguments go to pytest."""
    session.run("pytest", "-q", "-m", "hypothesis or thorough", *session.posargs, env={"TEST_DEPTH": "thorough"})


@nox.session(python=False)
def campaign(session: nox.Session) -> None:
    """Compare the embedded server with a real one in thousands of random sequences.

    ``-- --examples N`` sets their number; the default is that of the environment variable DIFFERENTIAL_EXAMPLES, or
    3000. DIFFERENTIAL_SEED draws the sequences of an earlier campaign again. Other arguments go to pytest.
    """
    arguments = list(session.posargs)
    examples = taken(arguments, "--examples", os.environ.get("DIFFERENTIAL_EXAMPLES", "3000"))
    test = "tests/conformance/differential/test_differential.py::test_both_servers_answer_alike"
    command = ["pytest", "-q", "-s", "--control-plane", test, *arguments]
    session.run(*command, env={"DIFFERENTIAL_EXAMPLES": examples})


@nox.session(python=False)
def chaos(session: nox.Session) -> None:
    """Run whole operators on virtual time against injected failures of every kind, from many seeds.

    ``-- --seeds N --first S`` sets how many, and the first one; the defaults are those of the environment variables
    CHAOS_SEEDS and CHAOS_FIRST, or 500 from 1000. Other arguments go to pytest.
    """
    arguments = list(session.posargs)
    seeds = taken(arguments, "--seeds", os.environ.get("CHAOS_SEEDS", "500"))
    first = taken(arguments, "--first", os.environ.get("CHAOS_FIRST", "1000"))
    session.run("pytest", "-q", "tests/chaos", *arguments, env={"CHAOS_SEEDS": seeds, "CHAOS_FIRST": first})


@nox.session(name="campaign-faults", python=False)
def campaign_faults(session: nox.Session) -> None:
    """Kill, stop and restore everything under a notification operator on a real control plane; 15 minutes at most.

    Arguments go to ``python -m tests.campaigns.faults``; ``-- --help`` lists them.
    """
    session.run("python", "-m", "tests.campaigns.faults", *session.posargs)


@nox.session(name="campaign-overlay", python=False)
def campaign_overlay(session: nox.Session) -> None:
    """Compare cached reads with a model of the server, the watch and all writers.

    Arguments go to ``python -m tests.campaigns.overlay``; ``-- --help`` lists them.
    """
    session.run("python", "-m", "tests.campaigns.overlay", *session.posargs)


@nox.session(python=False)
def fuzz(session: nox.Session) -> None:
    """Run the fuzz tests with many examples: answers of servers, requests to the embedded one, mails, users' texts.

    FUZZ_EXAMPLES sets how many each test draws, 20000 by default; FUZZ_SEED draws those of an earlier run again. The
    seed is printed. Other arguments go to pytest.
    """
    seed = os.environ.get("FUZZ_SEED") or str(random.SystemRandom().randrange(10**9))
    files = sorted(str(path) for path in Path("tests").rglob("test_*.py") if "FUZZ_EXAMPLES" in path.read_text())
    if not files:
        session.error("there are no fuzz tests")
    session.log(f"FUZZ_SEED={seed}")
    variables = {"FUZZ_EXAMPLES": os.environ.get("FUZZ_EXAMPLES", "20000"), "FUZZ_SEED": seed}
    limit = ["--timeout", "1800", f"--hypothesis-seed={seed}"]
    session.run("pytest", "-q", *limit, *files, *session.posargs, env=variables)


@nox.session(python=False)
def alerts(session: nox.Session) -> None:
    """Test the alert rules of the docs with promtool, which is built from Go modules: some minutes the first time."""
    session.run("python", "-m", "tests.alerts")


@nox.session(python=False)
def dashboards(session: nox.Session) -> None:
    """Let Prometheus, built from Go modules, watch operators for three minutes, and draw the dashboards of the docs.

    Arguments go to ``python -m tests.dashboards``; ``-- --help`` lists them.
    """
    session.run("python", "-m", "tests.dashboards", *session.posargs)


@nox.session(python=False)
def mutants(session: nox.Session) -> None:
    """Change the source in small ways and see whether the tests notice.

    Arguments go to ``python -m tests.mutants``; ``-- --help`` lists them.
    """
    session.run("python", "-m", "tests.mutants", *session.posargs)
