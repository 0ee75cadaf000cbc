"""The commands ``reconciler plan`` and ``reconciler fork``.

The cluster is read on an event loop of its own, since the plan's time is virtual, and asked by dry runs only.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec

from reconciler._core.wire import JSONObject
from reconciler.apiserver import APIServer
from reconciler.apiserver.fork import NAMESPACES, Fork, ForkChange, ReadOnlyTransport
from reconciler.apiserver.state import DEFINITIONS, private_file, read_state
from reconciler.cli.endpoint import printable
from reconciler.cli.options import ForkOptions, PlanOptions, RunOptions
from reconciler.cli.output import ThreadsLeft, print_json, running_dev
from reconciler.cli.plan.document import OperatorPlan, compare
from reconciler.cli.plan.engine import Bounds, make_plan
from reconciler.cli.progress import Progress
from reconciler.cli.run import operator_setup
from reconciler.client import Client
from reconciler.client.configuration import ConfiguredTransport
from reconciler.client.requests import CONTENT_TYPES, SERVER_METADATA, failure
from reconciler.clock import current_clock, keep_system_clock
from reconciler.errors import ConfigurationError
from reconciler.http import HTTPRequest, HTTPResponse, Transport
from reconciler.manager.endpoints.server import LoopThread
from reconciler.meta.documents import merge_diff, parse_time
from reconciler.telemetry import TextFormatter
from reconciler.testing import virtual_time

T = TypeVar("T")

_DRY_RUN = ("dryRun", "All")
_SECONDS = 65.0
_THREAD_ENDS = 0.2
"""Seconds that a thread without work takes to end at most."""


class DryRunTransport(ReadOnlyTransport):
    """A transport that also sends requests with ``dryRun=All``: the cluster checks them, and stores nothing."""

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        """Send a GET request or a dry run once. A cancelled call has no effect either.

        Raises:
            NotSent: it is something else, or there was no connection.
            OutcomeUnknown: there was no response.
        """
        send = self._transport.send if _DRY_RUN in request.query else super().send
        return await send(request)


class ClusterThread:
    """A connection to a cluster on an event loop in a thread, for code in virtual time; use it with ``with``.

    Args:
        kubeconfig: the path of the kubeconfig; None for the usual places.
        context: the context in it; None for the current one.
        dry_runs: whether dry runs are sent as well. Otherwise only GET requests are.
    """

    def __init__(self, kubeconfig: Path | None, context: str | None, *, dry_runs: bool) -> None:
        self._configured = ConfiguredTransport(kubeconfig=kubeconfig, context=context)
        self._transport = (DryRunTransport if dry_runs else ReadOnlyTransport)(self._configured)
        self._thread = LoopThread("cluster")

    def __enter__(self) -> Self:
        """Read the configuration.

        Raises:
            ConfigurationError: there is none, or it cannot be used.
        """
        try:
            self._thread.start(self._open()).result()
        except BaseException:
            asyncio.run(self._thread.stop())
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.start(self._configured.close()).result()
        asyncio.run(self._thread.stop())

    async def _open(self) -> None:
        keep_system_clock()  # of the thread
        await self._configured.open()

    async def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        # Virtual time does not pass while an executor works.
        return await asyncio.get_running_loop().run_in_executor(None, self._thread.start(work).result)

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        """Send a request that changes nothing. Cancellation does not end it."""
        return await self._wait(self._transport.send(request))

    async def pause(self, seconds: float) -> None:
        """Wait in real time."""
        await self._wait(asyncio.sleep(seconds))


async def ask(cluster: Transport, change: ForkChange) -> str:
    """Send a change to a cluster as dry runs; return why it refuses, or an empty text.

    Raises:
        TransportError: the cluster does not respond.
    """
    for request in _dry_runs(change):
        response = await cluster.send(request)
        # A status that the kind has no subresource for is part of the object.
        if response.status >= 400 and not (response.status == 404 and request.path.endswith("/status")):
            return failure(request, response, current_clock().now()).message
    return ""


def _dry_runs(change: ForkChange) -> Iterator[HTTPRequest]:
    before, after = change.before, change.after
    document: JSONObject = after or before or {}
    version, metadata = document["apiVersion"], document["metadata"]
    path = f"/apis/{version}" if "/" in version else f"/api/{version}"
    if metadata.get("namespace"):
        path += f"/namespaces/{metadata['namespace']}"
    path += f"/{change.resource.partition('.')[0]}"
    if before is None:
        yield _request("POST", path, _clean(document), "application/json")
        return
    path += f"/{metadata['name']}"
    if after is None or metadata.get("deletionTimestamp"):
        yield _request("DELETE", path, None, "application/json")
        return
    patch = merge_diff(_clean(before), _clean(after))
    status = patch.pop("status", None)
    if patch:
        yield _request("PATCH", path, patch, CONTENT_TYPES["merge"])
    if status is not None:
        yield _request("PATCH", f"{path}/status", {"status": status}, CONTENT_TYPES["merge"])


def _clean(document: JSONObject) -> JSONObject:
    metadata = {key: value for key, value in document["metadata"].items() if key not in SERVER_METADATA}
    return {**document, "metadata": metadata}


def _request(method: str, path: str, body: JSONObject | None, content_type: str) -> HTTPRequest:
    headers = {"accept": "application/json", "content-type": content_type, "user-agent": "kube-reconciler plan"}
    content = b"" if body is None else msgspec.json.encode(body)
    query = (_DRY_RUN, ("fieldManager", "reconciler-plan"))
    return HTTPRequest(method, path, query if body is not None else query[:1], headers, content, timeout=_SECONDS)


_STATE = b'{"format":"kube-reconciler state'
_COMPARISONS = 5
"""How often another version is run again because it asked for a kind that the file did not have."""


def print_plan(target: str, options: PlanOptions, *, as_json: bool) -> int:
    """Print what an operator would do; return the exit code."""
    if options.ask_cluster and options.fork is not None:
        raise ConfigurationError("--ask-cluster needs the cluster: omit --fork")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextFormatter.for_stream(sys.stderr))
    level = "CRITICAL" if options.log_level is None else options.log_level.upper()
    logging.basicConfig(level=level, handlers=[handler])
    threads, executor = set(threading.enumerate()), ThreadPoolExecutor()
    with contextlib.ExitStack() as stack:
        runner = stack.enter_context(contextlib.closing(asyncio.Runner()))  # makes its event loop in virtual time
        try:
            with contextlib.redirect_stdout(sys.stderr):  # what the operator prints is not the plan
                plan, other = _plans(target, options, handler, runner, executor)
        except asyncio.CancelledError:
            raise ConfigurationError(f"{target}: the operator cancelled all tasks, also those of the plan") from None
        except KeyboardInterrupt:
            print("reconciler: interrupted, so there is no plan", file=sys.stderr)
            raise
        found = plan if other is None else compare(plan, other)
        color = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        print_json(found) if as_json else print("\n".join(printable(found).lines(color=color)))
        executor.shutdown(wait=False)  # its idle threads end
        left = [each for each in threading.enumerate() if each not in threads and not each.daemon]
        for thread in left:
            thread.join(_THREAD_ENDS)
        if plan.incomplete and any(each.is_alive() for each in left):
            stack.pop_all()  # the event loop would wait for them, and nothing can end them
            raise ThreadsLeft(found.exit_code)
    return found.exit_code


def _plans(
    target: str, options: PlanOptions, handler: logging.Handler, runner: asyncio.Runner, executor: ThreadPoolExecutor
) -> tuple[OperatorPlan, OperatorPlan | None]:
    # A plan writes no audit file.
    flags = replace(options.notification, audit_file=None)
    run_options = RunOptions(workers=options.workers, notification=flags)
    setup = operator_setup(target, run_options, handler)
    progress = Progress()
    bounds = Bounds(options.hours, options.rounds, options.seconds)
    with contextlib.ExitStack() as stack:
        cluster, snapshot, epoch = None, b"", current_clock().now().replace(microsecond=0)
        if options.fork is None:
            dev = running_dev(options.kubeconfig, options.context)
            kubeconfig = options.kubeconfig if dev is None else dev[0]
            cluster = stack.enter_context(ClusterThread(kubeconfig, options.context, dry_runs=options.ask_cluster))
        else:
            snapshot, epoch = _read_fork(options.fork)

        async def work() -> tuple[OperatorPlan, OperatorPlan | None]:
            asyncio.get_running_loop().set_default_executor(executor)
            async with contextlib.AsyncExitStack() as servers:
                if cluster is None:
                    server = await servers.enter_async_context(APIServer())
                    await server.restore(snapshot)
                else:
                    forking = APIServer.fork(
                        cluster,
                        namespaces=options.namespaces,
                        copy_secrets=options.secrets,
                        progress=lambda kind, objects: progress.update(f"copied {objects} {kind}"),
                    )
                    server = await servers.enter_async_context(forking)
                namespaces = list(options.namespaces)
                progress.phase(f"running {target} on a copy of the cluster")
                plan = await make_plan(
                    target,
                    setup,
                    server,
                    bounds=bounds,
                    namespaces=namespaces,
                    progress=lambda reconciles: progress.update(f"{reconciles} reconciles"),
                )
                fork = server.forked
                assert fork is not None  # noqa: S101 - a plan has one
                if options.only is not None:
                    _narrow(plan, fork, *options.only)
                    if options.compare is None:
                        _check_found(plan, fork, *options.only)
                await _ask(plan, fork, cluster if options.ask_cluster else None)
                other = None
                if options.compare is not None:
                    other = await _other_plan(target, options, fork)
                    if options.only is not None:
                        _narrow(other, fork, *options.only)
                return plan, other

        stack.enter_context(virtual_time(epoch))
        stack.callback(progress.close)
        return runner.run(work())


def _read_fork(path: Path) -> tuple[bytes, datetime]:
    """Return a file of ``reconciler fork``, and when it was written."""
    content = _content_of("--fork", path)
    report = read_state(content, f"--fork {path}").fork
    if report is None:
        raise ConfigurationError(
            f"--fork {path} is a snapshot of a server, not of a fork: write it with 'reconciler fork'"
        )
    try:
        return content, parse_time(report.taken)
    except ValueError as error:
        raise ConfigurationError(f"--fork {path} is damaged: {error}") from None


def _narrow(plan: OperatorPlan, fork: Fork, kind: str, key: str) -> None:
    """Leave in a plan what concerns one object: its own change, and what its reconciles do."""
    wanted = fork.find(kind).info.kind
    plan.objects = [
        each
        for each in plan.objects
        if str(each) == f"{wanted} {key}" or any((by.kind, by.object) == (wanted, key) for by in each.by)
    ]
    plan.errors = [each for each in plan.errors if each.object == key]
    plan.effects = [each for each in plan.effects if key in each.objects]
    plan.outside = [each for each in plan.outside if key in each.objects or each.objects == [""]]
    plan.unrest, plan.timers = [], []
    plan.notes.append(f"only what concerns {wanted} {key} is shown")


def _check_found(plan: OperatorPlan, fork: Fork, kind: str, key: str) -> None:
    found = fork.find(kind)
    if not plan.objects and not plan.errors and key not in found.store.objects:
        raise ConfigurationError(
            f"--only {kind} {key}: no such object was copied or planned; write NAMESPACE/NAME as 'reconciler plan' does"
        )


async def _ask(plan: OperatorPlan, fork: Fork, cluster: ClusterThread | None) -> None:
    """Ask the cluster about each change; without one, note what was not asked."""
    if cluster is None:
        names = [*(f"webhook {name}" for name in fork.unasked), *(f"policy {name}" for name in fork.policies())]
        if names:
            plan.notes.append(f"not asked, and counted as allowing: {', '.join(names)}; --ask-cluster asks them")
        return
    objects = {each.key: each for each in plan.objects}
    changes = list(fork.changes())
    new = {(each.resource, each.key) for each in changes if each.before is None}
    for change in changes:
        document = change.after or change.before or {}
        namespace = document["metadata"].get("namespace") or ""
        group = document["apiVersion"].rpartition("/")[0]
        planned = objects.get((group, document["kind"], namespace, document["metadata"]["name"]))
        if planned is None:
            continue
        if (NAMESPACES, namespace) in new or (DEFINITIONS, change.resource) in new:
            plan.notes.append(f"{planned} was not asked about: the cluster lacks its namespace or definition")
        else:
            planned.refused = await ask(cluster, change)


async def _other_plan(target: str, options: PlanOptions, fork: Fork) -> OperatorPlan:
    """Return the plan to compare with: a file of one, or that of another process on the same fork."""
    given = str(options.compare)
    if given.endswith(".json"):
        return _decoded(_content_of("--compare", Path(given)), given)
    python, module = (given, target) if os.access(given, os.X_OK) and Path(given).is_file() else (sys.executable, given)
    attempts = 0
    while True:
        attempts += 1
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, "fork")
            _write_private(path, fork.pristine().lines())
            plan = _run_other([python, "-m", "reconciler", "plan", module, "--fork", str(path)], options, given)
        missing = plan.fork.missing.keys() - fork.report.missing.keys() - fork.before.keys()
        if not missing or options.fork is not None or attempts == _COMPARISONS:
            return plan
        for kind in missing:
            await fork.copy(kind)


def _run_other(command: list[str], options: PlanOptions, given: str) -> OperatorPlan:
    bounds = [f"--{name}={getattr(options, name)}" for name in ("hours", "rounds", "seconds", "workers")]
    scope = [f"--namespace={name}" for name in options.namespaces]
    ended = subprocess.run([*command, "--output=json", *bounds, *scope], capture_output=True, check=False)  # noqa: S603
    if not ended.stdout:
        reason = ended.stderr.decode(errors="replace").strip().splitlines()
        raise ConfigurationError(f"--compare {given}: {reason[-1] if reason else f'exit code {ended.returncode}'}")
    return _decoded(ended.stdout, given)


def _content_of(option: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{option} {path}: {error.strerror}") from error


def _decoded(content: bytes, given: str) -> OperatorPlan:
    try:
        return msgspec.json.decode(content, type=OperatorPlan)
    except msgspec.MsgspecError as error:
        raise ConfigurationError(f"--compare {given}: not a plan of 'reconciler plan --output json': {error}") from None


def write_fork(path: Path, options: ForkOptions) -> int:
    """Write a fork of a cluster to a file; return the exit code."""
    if path.exists() and not (path.is_file() and path.read_bytes()[: len(_STATE)] == _STATE):
        raise ConfigurationError(
            f"--output {path} exists and is not a file of an earlier fork, so it is not overwritten"
        )
    selectors = dict(_split(each) for each in options.selectors)
    with Progress() as progress:
        progress.phase("copying the cluster")
        lines, fork = asyncio.run(_forked(options, selectors, progress))
    _write_private(path, lines)
    report = fork.report
    print(f"{path}: {sum(report.copied.values())} objects of {len(report.copied)} kinds of {report.server_version}")
    for kind, message in report.denied.items():
        print(f"reconciler: {kind} could not be listed, and is missing: {message}", file=sys.stderr)
    if options.secrets:
        print("reconciler: the file has the values of Secrets", file=sys.stderr)
    return 0


def _split(selector: str) -> tuple[str, str]:
    kind, _, labels = selector.partition(":")
    if not labels:
        raise ConfigurationError(f"--selector must be KIND:LABELS, such as 'pods:app=web', not {selector!r}")
    return kind, labels


async def _forked(options: ForkOptions, selectors: dict[str, str], progress: Progress) -> tuple[list[bytes], Fork]:
    async with Client.from_config(kubeconfig=options.kubeconfig, context=options.context) as client:
        forking = APIServer.fork(
            client,
            kinds=options.kinds,
            namespaces=options.namespaces,
            selectors=selectors,
            copy_secrets=options.secrets,
            progress=lambda kind, objects: progress.update(f"copied {objects} {kind}"),
        )
        async with forking as server:
            fork = server.forked
            assert fork is not None  # noqa: S101 - a fork has one
            if not options.kinds:
                await fork.copy_all()
            return list(fork.pristine().lines()), fork


def _write_private(path: Path, lines: Iterator[bytes] | list[bytes]) -> None:
    new = path.with_name(f"{path.name}.new")
    try:
        with private_file(new) as file:
            file.writelines(lines)
        new.replace(path)
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror}") from error
