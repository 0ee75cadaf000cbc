"""Settings of the whole suite: it runs on all cores, and reports at the end what it did not run."""

from __future__ import annotations

import gc
import importlib.util
import os
import shutil
import signal
import sys
import threading
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.depth import THOROUGH

if TYPE_CHECKING:
    from playwright.sync_api import Browser

_ENGINES = {"cel_expr_python": "cel_expr_python", "google-re2": "re2"}
_MISSING_ENGINES = [name for name, module in _ENGINES.items() if importlib.util.find_spec(module) is None]

_CHROMIUM_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option for the pictures of the docs."""
    parser.addoption("--pictures", action="store_true", help="browser tests write their screenshots to docs/console")


def pytest_configure(config: pytest.Config) -> None:
    """Draw the same examples in each run, unless there is a seed; let tests interrupt the processes that they start."""
    _keep_bytecode(config.rootpath / ".pytest_cache" / "bytecode")
    # Hypothesis' profile for CI: no example fails by its duration. It is loaded before modules with tests use it.
    ci, drawn = settings.get_profile("ci"), config.getoption("--hypothesis-seed") is not None
    settings.register_profile("suite", ci, derandomize=not drawn)
    settings.load_profile("suite")
    threading.stack_size(8 * 2**20)  # what glibc gives: many tests run a command in a thread, which musl gives 1 MB
    # A shell ignores SIGINT in what it starts in the background.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _keep_bytecode(directory: Path) -> None:
    """Compile each module once, although PYTHONDONTWRITEBYTECODE is set; none is written beside its source.

    Otherwise each worker of xdist and each of the hundred processes that tests start compiles all that it imports,
    which takes most of its time.
    """
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
        sys.dont_write_bytecode = False
        sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"] = str(directory)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Use all cores for the whole suite, unless ``-n`` is given. A part of it starts sooner in one process.

    Tests wait for processes and sockets in a fifth of their time, and on a real API server in two thirds, so three or
    four of them share two cores.
    """
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    alone = config.option.usepdb or config.option.collectonly or "PYTEST_XDIST_WORKER" in os.environ
    if whole and not alone and config.option.numprocesses is None:
        cores = len(os.sched_getaffinity(0))
        config.option.numprocesses = min(2 * cores if config.getoption("--control-plane") else (3 * cores + 1) // 2, 8)
        config.option.dist = "worksteal"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection() -> Generator[None, object, object]:
    """Exclude the modules and tests from garbage collections: half a million objects, which live as long as the run.

    Full collections would examine them a few hundred times. The other collections are ten times as rare as by default.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.set_threshold(10_000, 10, 10)
        gc.enable()
        gc.collect()
        gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what takes long or needs a browser, unless it is asked for; give tests on a real server time to start it."""
    for item in items:
        if "browser" not in config.option.markexpr and item.get_closest_marker("browser") is not None:
            item.add_marker(pytest.mark.skip(reason="needs chromium: pytest -m browser"))
        if not THOROUGH and item.get_closest_marker("thorough") is not None:
            item.add_marker(pytest.mark.skip(reason="takes long: nox -s thorough"))
        if item.get_closest_marker("control_plane") is not None:  # the first one in a process starts the server, too
            limit = item.get_closest_marker("timeout")
            item.add_marker(pytest.mark.timeout(max(300, limit.args[0] if limit else 0)), append=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Skip what fails for want of an engine that musl has no wheels of, and escape lone surrogates in captured output.

    xdist cannot send surrogates, and one such log line ends the whole run.
    """
    report = yield
    if report.failed and any(f"needs {name}" in str(report.longrepr) for name in _MISSING_ENGINES):
        report.outcome, report.longrepr = (
            "skipped",
            (str(item.path), 0, "needs the extra cel or re2, see docs/testing.md"),
        )
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many tests did not run, and why."""
    reasons: Counter[str] = Counter()
    for report in terminalreporter.stats.get("skipped", []):
        _, _, reason = report.longrepr
        reasons[reason.removeprefix("Skipped: ")] += 1
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"not run: {count} ({reason})")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A Chromium without a window. There is one for all tests: playwright runs once in a process."""
    from playwright.sync_api import sync_playwright

    path = (
        os.environ.get("CHROMIUM")
        or shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )
    assert path is not None, "install Chromium, for example with 'apt-get install chromium', or set CHROMIUM"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()
