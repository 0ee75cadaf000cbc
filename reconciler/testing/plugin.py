"""The pytest plugin: marks such as ``virtual_time`` and ``control_plane``, and fixtures for API servers.

``apiserver`` is an embedded server in the test's process, and ``client`` is connected to it. ``control_plane`` is a
real server, and ``cluster`` runs a test on both. ``status_guard`` fails a test in which a reconcile writes a status
more than once.

pytest loads the plugin through its entry point. The hooks import what they need, so that a test run without these
features costs nothing.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from reconciler.apiserver import APIServer
    from reconciler.client import Client
    from reconciler.status import guard
    from reconciler.testing.cluster import Cluster
    from reconciler.testing.control_plane import ControlPlane

_MARKS = (
    "virtual_time: run the test and its async fixtures in virtual time, where sleeping takes no time",
    "kubernetes_version(version): the embedded servers of the fixtures are of this version, such as '1.34'",
    "control_plane: the test needs a real kube-apiserver and is skipped without --control-plane",
)
_OPTION = "--control-plane"
_VERSION_OPTION = "--kubernetes-version"
_SKIPPED = f"needs a real kube-apiserver: pytest {_OPTION}"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options for tests that need a real control plane, and for explorations."""
    group = parser.getgroup("kube-reconciler")
    group.addoption("--explore-run", metavar="RUN", help="repeat one run of an exploration, from the end of its report")
    group.addoption("--explore-html", metavar="FILE", help="write the report of a failed exploration as a page, too")
    group.addoption(
        _VERSION_OPTION,
        metavar="VERSION",
        help="version of Kubernetes of the fixtures' embedded servers, such as 1.34; default: the newest",
    )
    group.addoption(
        _OPTION,
        action="store_true",
        default=False,
        help="run the tests marked control_plane on a real etcd and kube-apiserver; fail if the binaries are missing",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks."""
    for mark in _MARKS:
        config.addinivalue_line("markers", mark)
    # looptime's plugin gets the current loop around every test. Before a loop is set, Python up to 3.13 would create
    # one, which nothing closes.
    asyncio.set_event_loop(None)


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(collector: pytest.Module | pytest.Class, obj: object) -> None:
    """Let pytest-asyncio run coroutines marked ``virtual_time`` in every mode."""
    if not inspect.iscoroutinefunction(obj) or not collector.config.pluginmanager.hasplugin("asyncio"):
        return
    marks = [mark.name for mark in (*getattr(obj, "pytestmark", ()), *collector.iter_markers())]
    if "virtual_time" in marks and "asyncio" not in marks:
        pytest.mark.asyncio(obj)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip tests that need a real control plane unless they were requested."""
    if config.getoption(_OPTION):
        return
    for item in items:
        if item.get_closest_marker("control_plane") is not None:
            item.add_marker(pytest.mark.skip(reason=_SKIPPED))


def pytest_report_collectionfinish(config: pytest.Config, items: list[pytest.Item]) -> list[str]:
    """Report in the header which tests are not run."""
    left_out = sum(item.get_closest_marker("control_plane") is not None for item in items)
    if config.getoption(_OPTION) or not left_out:
        return []
    return [f"not run: {left_out} tests on a real kube-apiserver (pytest {_OPTION} runs them)"]


_STARTED = pytest.StashKey[float]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the timelines of a failed test's API servers to its report."""
    report = yield
    if report.when == "setup":
        item.stash[_STARTED] = call.start
    if report.failed and report.when != "teardown" and call.excinfo is not None:
        report.sections.extend(_sections(item, call.excinfo, item.stash[_STARTED]))
    return report


_MOST_OBJECTS = 20


def _sections(
    item: pytest.Item, excinfo: pytest.ExceptionInfo[BaseException], started: float
) -> Iterator[tuple[str, str]]:
    """Yield the title and text of a report section for each API server of a failed test.

    Servers are found among the values of its fixtures and the local variables of the functions in the traceback.

    Args:
        item: the test.
        excinfo: the failure.
        started: when its setup began, in seconds since the epoch.
    """
    seen: set[int] = set()
    for thing in _things(item, excinfo):
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        try:
            found = _section(thing, seen, started)
        except Exception as error:  # noqa: BLE001 - a failure here must not hide the test's
            found = "what happened on the API server", f"unknown: {type(error).__name__}: {error}"
        if found is not None:
            yield found


def _things(item: pytest.Item, excinfo: pytest.ExceptionInfo[BaseException]) -> Iterator[object]:
    values = list(getattr(item, "funcargs", {}).values())
    # A cluster shows its own part of a server, so it precedes the server itself.
    yield from sorted(values, key=lambda value: type(value).__name__ != "Cluster")
    frames = [(entry.name, entry.frame.f_locals) for entry in excinfo.traceback]
    # What failed in its constructor has nothing to show.
    unfinished = {id(variables.get("self")) for name, variables in frames if name == "__init__"}
    for _, variables in frames:
        yield from [value for value in variables.values() if id(value) not in unfinished]


def _section(thing: Any, seen: set[int], started: float) -> tuple[str, str] | None:
    # Looked up, not imported: a test run that uses none of these pays nothing.
    if _is(thing, "reconciler.testing.cluster", "Cluster"):
        seen.add(id(thing.server))
        return _format_section(f"what happened on the {thing.kind} API server", thing.timeline())
    if _is(thing, "reconciler.apiserver", "APIServer"):
        touched = Counter(
            f"{entry.resource}/{entry.name}" + (f" in {entry.namespace}" if entry.namespace else "")
            for entry in thing.log.writes()
        )
        return _format_section("what happened on the embedded API server", thing.log.timeline(), touched)
    if _is(thing, "reconciler.testing.control_plane", "ControlPlane"):
        from reconciler.testing.cluster import format_audit_records

        since = datetime.fromtimestamp(started, UTC)
        records = [record for record in thing.audit() if record.received >= since]
        return _format_section("what happened on the real API server", format_audit_records(records))
    return None


def _is(thing: object, module: str, name: str) -> bool:
    loaded = sys.modules.get(module)
    # Not isinstance: a mock can pretend to be an instance.
    return loaded is not None and issubclass(type(thing), getattr(loaded, name))


def _format_section(title: str, lines: list[str], touched: Counter[str] | None = None) -> tuple[str, str] | None:
    if not lines:
        return None
    head = []
    if touched:
        shown = [f"{name} ({count})" for name, count in touched.most_common(_MOST_OBJECTS)]
        more = f" and {len(touched) - _MOST_OBJECTS} more" if len(touched) > _MOST_OBJECTS else ""
        head = [f"objects by writes: {', '.join(shown)}{more}"]
    return title, "\n".join([*head, *lines])


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_asyncio_loop_factories(
    config: pytest.Config,  # noqa: ARG001 - hooks are called by name
    item: pytest.Item,
) -> Generator[None, Mapping[str, Callable[[], asyncio.AbstractEventLoop]] | None, Any]:
    """Replace the event loop of marked tests; leave the others unchanged."""
    factories = yield
    if item.get_closest_marker("virtual_time") is None:
        return factories or {"asyncio": asyncio.new_event_loop}
    return {"virtual": _virtual_loop}


def _virtual_loop() -> asyncio.AbstractEventLoop:
    from reconciler.clock import current_clock
    from reconciler.testing.virtual_clock import VirtualClock, new_virtual_loop

    loop = new_virtual_loop()
    clock = current_clock()
    if isinstance(clock, VirtualClock):
        clock.follow(loop)
    return loop


@pytest.fixture(autouse=True)
def _virtual_clock(request: pytest.FixtureRequest) -> Generator[None]:
    if request.node.get_closest_marker("virtual_time") is None:
        yield
        return
    parameters = getattr(getattr(request.node, "callspec", None), "marks", ())
    if any(mark.name == "virtual_time" for mark in parameters):
        # pytest-asyncio chooses the event loop before there are parameters, so time would never pass.
        pytest.fail("virtual_time is the mark of a test, not of a parameter: mark the test, or split it", pytrace=False)
    from reconciler.clock import use_clock
    from reconciler.meta.cycle import seeded_reconcile_ids
    from reconciler.testing.virtual_clock import VirtualClock

    with use_clock(VirtualClock()), seeded_reconcile_ids():
        yield


@pytest.fixture
def status_guard() -> Generator[guard]:
    """Fail the test if a reconcile writes an object's status more than once, over any client; yield the `guard`.

    A test that runs several reconciles of one object within a second must mark each: ``with status_guard.cycle(obj):``.
    """
    from reconciler.status import guard

    watching = guard.install(fail=True)
    yield watching
    watching.uninstall()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fail a passing test at its end if its ``status_guard`` recorded a violation."""
    result = yield
    watching = getattr(item, "funcargs", {}).get("status_guard")
    if watching is None:
        return result
    from reconciler.status import TooManyStatusWrites, guard

    if isinstance(watching, guard):
        try:
            watching.check()
        except TooManyStatusWrites as error:
            pytest.fail(str(error), pytrace=False)
    return result


@pytest.fixture(scope="session")
def control_plane(request: pytest.FixtureRequest) -> Generator[ControlPlane]:
    """Yield a running `ControlPlane` for the whole session; its audit log contains the bodies of requests.

    The binaries must already exist (``reconciler envtest build``): building them takes longer than a test may.
    """
    if not request.config.getoption(_OPTION):
        pytest.skip(_SKIPPED)
    from reconciler.testing.control_plane import ControlPlane
    from reconciler.testing.control_plane.binaries import BinariesMissing, binaries_path

    try:
        binaries = binaries_path()
    except BinariesMissing as error:
        pytest.fail(str(error), pytrace=False)
    with ControlPlane(binaries=binaries, audit_level="Request") as plane:
        yield plane


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests with the fixture ``cluster`` on the embedded server and on a real one."""
    if "cluster" in metafunc.fixturenames:
        real = pytest.param("real", marks=pytest.mark.control_plane)
        metafunc.parametrize("_cluster_kind", ["embedded", real], indirect=True)


@pytest.fixture
def _cluster_kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


async def _cluster(_cluster_kind: str, request: pytest.FixtureRequest) -> AsyncGenerator[Cluster]:
    """Yield an API server with a namespace of its own; the test runs once on each of two servers.

    It always runs on the embedded server, and with ``--control-plane`` on a real kube-apiserver.
    """
    from reconciler.testing.cluster import embedded_cluster, real_cluster

    if _cluster_kind == "embedded":
        async with embedded_cluster(_kubernetes_version(request)) as cluster:
            yield cluster
    else:
        async with real_cluster(request.getfixturevalue("control_plane")) as cluster:
            yield cluster


def _kubernetes_version(request: pytest.FixtureRequest) -> str | None:
    """Return the version of Kubernetes of a test: that of its mark, else that of the command line."""
    mark = request.node.get_closest_marker("kubernetes_version")
    if mark is None:
        chosen: str | None = request.config.getoption(_VERSION_OPTION)
        return chosen
    return next((str(each) for each in (*mark.args, *mark.kwargs.values())), "")


async def _apiserver(request: pytest.FixtureRequest) -> AsyncGenerator[APIServer]:
    """Yield an embedded API server; see `reconciler.apiserver.APIServer`."""
    from reconciler.apiserver import APIServer

    async with APIServer(version=_kubernetes_version(request)) as server:
        yield server


async def _client(apiserver: APIServer) -> AsyncGenerator[Client]:
    """Yield a client of the embedded server, without sockets."""
    from reconciler.client import Client

    async with Client(apiserver) as client:
        yield client


try:
    import pytest_asyncio
except ModuleNotFoundError:  # only these fixtures need it
    pass
else:
    cluster = pytest_asyncio.fixture(_cluster, name="cluster")
    apiserver = pytest_asyncio.fixture(_apiserver, name="apiserver")
    client = pytest_asyncio.fixture(_client, name="client")
