"""``reconciler dev``: a server that stays, and an operator that restarts when a file changes.

Webhooks get a certificate from a new CA of the project.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import importlib.util
import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter

from reconciler._core.wire import JSONObject
from reconciler.cli.crd import own_definitions
from reconciler.cli.options import CONSOLE_ADDRESS, DevOptions, RunOptions, Target
from reconciler.cli.output import (
    exit_with,
    free_address,
    free_port,
    note_endpoint,
    program,
    write_files,
    write_kubeconfig,
)
from reconciler.cli.run import run_target
from reconciler.cli.servers import describe_data, played_controllers
from reconciler.cli.targets import operator_name
from reconciler.errors import ConfigurationError, importing
from reconciler.http import HTTPRequest, HTTPResponse
from reconciler.manager import Manager
from reconciler.objects import Unstructured
from reconciler.webhook import Converter, conversion_configuration, webhook_configurations

_log = logging.getLogger("reconciler.dev")

_FILES = ("ca.crt", "tls.crt", "tls.key")


def certificates(
    directory: Path,
    /,
    *,
    host: Annotated[tuple[str, ...], Parameter(show_default=False)] = ("localhost", "127.0.0.1"),
) -> int:
    """Make a development certificate for webhooks, and a CA for it. Existing files are not overwritten.

    In a cluster the host is that of the webhooks' Service, such as 'my-operator-webhook.default.svc'. In production let
    cert-manager make and renew the certificate.

    Args:
        directory: Directory for ca.crt, tls.crt and tls.key.
        host: Host name or address of the webhooks. Can be repeated.
    """
    write_certificates(directory, host)
    print(f"wrote {', '.join(str(directory / name) for name in _FILES)} for {', '.join(host)}")
    print("They are for development: the key of the CA is not kept.")
    return 0


def write_certificates(directory: Path, hosts: Sequence[str]) -> None:
    """Write ``ca.crt``, ``tls.crt`` and ``tls.key`` for host names or addresses; only their owner may read them.

    Raises:
        ConfigurationError: a host is invalid, a file exists, or one cannot be written.
        MissingExtra: the extra ``develop`` is not installed.
    """
    with importing(extra="develop", purpose="making development certificates"):
        import trustme
    authority = trustme.CA()
    try:
        certificate = authority.issue_cert(*hosts)
    except (ValueError, UnicodeError) as error:
        raise ConfigurationError(f"{', '.join(hosts)}: not valid names of a certificate: {error}") from error
    chain = b"".join(each.bytes() for each in certificate.cert_chain_pems)
    contents = authority.cert_pem.bytes(), chain, certificate.private_key_pem.bytes()
    files = {name: content.decode() for name, content in zip(_FILES, contents, strict=True)}
    write_files(directory, files, mode=0o600)


_SUFFIXES = frozenset({".py", ".toml", ".yaml", ".yml", ".json"})
_IGNORED = frozenset({"__pycache__", "node_modules"})
_CHECK_SECONDS = 5
_WEBHOOK_PAUSE = 0.1
_STOP_SECONDS = 5.0
"""Seconds that the operator has to stop; its own grace period is shorter."""


def dev(
    target: Target,
    *,
    options: DevOptions = DevOptions(),  # noqa: B008 - frozen
) -> int:
    """Run an operator while you write it: on an API server of its own, restarted when a file changes.

    The CRDs of the operator's own kinds and its webhooks are installed at each start, with a development certificate.
    Validators and defaulters are called on both servers, converters on that of --control-plane only: the embedded
    server calls a converter only in its own process, as tests do. The server and its objects stay while the operator
    restarts. If the operator cannot start, the error is shown, and the next change starts it again. Python, YAML, JSON
    and TOML files below the current directory are watched. Ctrl-C ends everything. In a project of 'reconciler new' the
    target is in pyproject.toml.
    """
    if target == "notification" or target.count(":") != 1:
        raise ConfigurationError(f"{target!r} is not a valid target: write MODULE:ATTR, such as 'my_operator:setup'")
    if options.workers < 1:
        raise ConfigurationError(f"--workers must be 1 or more, not {options.workers}")
    if options.control_plane and (options.data is not None or options.controllers):
        raise ConfigurationError(
            "--data and --controller are options of the embedded server: use them without --control-plane"
        )
    with importing(extra="develop", purpose="reconciler dev"):
        import watchfiles  # noqa: F401 - see whether it is installed before anything is started
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(_until_signal(target, options))
    return 0


async def _until_signal(target: str, options: DevOptions) -> None:
    """Run the loop, and cancel it at a signal; a second one kills the operator."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - this is a coroutine
    running = _Operator()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if running.stopping:
            running.kill()
        running.stopping = True
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    with _certificates() as certificates:
        webhooks = f"127.0.0.1:{free_port(9443)}"
        async with _server(options, webhooks, (certificates / "ca.crt").read_bytes()), running:
            process = _process_options(target, options, certificates, webhooks)
            note_endpoint(options.kubeconfig, f"http://{process.run.metrics}")
            await _restart_on_changes(running, process, options)


@contextlib.asynccontextmanager
async def _server(options: DevOptions, webhooks: str, authority: bytes) -> AsyncIterator[None]:
    """Run a server, write its kubeconfig, and print how to use it.

    Args:
        options: those of the command.
        webhooks: ``host:port`` of the operator's webhooks.
        authority: the CA of their certificate.

    Raises:
        ConfigurationError: the kubeconfig cannot be written, or the data directory cannot be used.
    """
    async with contextlib.AsyncExitStack() as stack:
        if options.control_plane:
            from reconciler.testing.control_plane import ControlPlane

            print("starting etcd and kube-apiserver", flush=True)
            plane = await stack.enter_async_context(ControlPlane())
            write: Callable[[Path], object] = plane.write_kubeconfig
            url = plane.url
        else:
            from reconciler.apiserver import APIServer

            server = await stack.enter_async_context(
                APIServer(data=options.data, controllers=played_controllers(options.controllers))
            )
            write, url = server.write_kubeconfig, await server.listen()
            server.connect_webhooks(f"https://{webhooks}", RestartingWebhooks(webhooks, authority))
        write_kubeconfig(write, options.kubeconfig)
        print(f"API server on {url}; {describe_data(options.data)}")
        print("In another terminal:")
        print(f"  export KUBECONFIG={options.kubeconfig.resolve()}", flush=True)
        yield


@contextlib.contextmanager
def _certificates() -> Iterator[Path]:
    """Yield a directory with a certificate for webhooks."""
    with tempfile.TemporaryDirectory() as folder:
        write_certificates(Path(folder), ["127.0.0.1", "localhost"])
        yield Path(folder)


class RestartingWebhooks:
    """The webhooks of an operator that restarts: a request waits until they listen again, or its time is over.

    Args:
        address: ``host:port``.
        authority: the CA of their certificate.
    """

    def __init__(self, address: str, authority: bytes) -> None:
        self._address = address
        self._client = {"caBundle": base64.b64encode(authority).decode()}

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        """Send a review. The API server cancels it after the timeout of the webhook."""
        from reconciler.apiserver.conversion import post_to_webhook

        while True:
            try:
                return await post_to_webhook(f"https://{self._address}{request.path}", request, self._client)
            except ConnectionError:
                await asyncio.sleep(_WEBHOOK_PAUSE)


def _process_options(target: str, options: DevOptions, certificates: Path, webhooks: str) -> ProcessOptions:
    metrics = _with_port(options.metrics or f"127.0.0.1:{free_port(8080)}")
    print(f"  {program()} explain KIND NAME     # elsewhere with --endpoint http://{metrics}", flush=True)
    console = options.console
    if console is None and importlib.util.find_spec("htpy") is not None:
        console = free_address(CONSOLE_ADDRESS)
    if console is not None:
        console = _with_port(console)
        print(f"In a browser: http://{console} is the console.", flush=True)
    return ProcessOptions(
        target=target,
        run=RunOptions(
            kubeconfig=options.kubeconfig,
            namespaces=options.namespaces,
            workers=options.workers,
            metrics=metrics,
            console=console,
            webhooks=webhooks,
            webhook_certificates=certificates,
            grace_period=3.0,
            log_level=options.log_level,
        ),
        alive=-1,
        conversions=options.control_plane,
        started=f"watching {Path.cwd()}; Ctrl-C ends everything",
    )


def _with_port(address: str) -> str:
    """Return an address with a free port in place of port 0: each process of the operator must use the same."""
    return f"{address.removesuffix(':0')}:{free_port(0)}" if address.endswith(":0") else address


async def _restart_on_changes(running: _Operator, process: ProcessOptions, options: DevOptions) -> None:
    from watchfiles import Change, awatch

    root, ignored = Path.cwd(), options.kubeconfig.resolve()

    def matters(change: Change, path: str) -> bool:  # noqa: ARG001 - watchfiles calls it
        place = Path(path)
        parts = place.relative_to(root).parts if place.is_relative_to(root) else place.parts
        hidden = any(part in _IGNORED or part.startswith(".") for part in parts)
        return not hidden and place.suffix in _SUFFIXES and place != ignored

    await running.start(process, options.check)
    async for changes in awatch(root, watch_filter=matters):
        files = sorted({str(Path(path).relative_to(root)) for _, path in changes})
        shown = ", ".join(files[:3]) + (f" and {len(files) - 3} more" if len(files) > 3 else "")
        print(f"{shown} changed: restarting", flush=True)
        await running.stop()
        await running.start(process, options.check)


@dataclass(slots=True)
class _Operator:
    """The process of the operator, in a session of its own, so that everything that it starts ends with it."""

    stopping: bool = False
    _process: asyncio.subprocess.Process | None = None
    _watcher: asyncio.Task[None] | None = None
    _alive: int | None = field(default=None)
    _check: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *_: object) -> None:
        self.stopping = True
        await self.stop()

    async def start(self, options: ProcessOptions, example: Path | None = None) -> None:
        """Start the process, and a check of the operator with an example, if there is one."""
        end, self._alive = os.pipe()
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "reconciler.cli.dev",
                msgspec.json.encode(msgspec.structs.replace(options, alive=end), enc_hook=str).decode(),
                pass_fds=[end],
                start_new_session=True,
            )
        finally:
            os.close(end)
        self._watcher = asyncio.create_task(self._report_end(self._process))
        if example is not None:
            command = ["check", options.target, "--example", str(example), "--budget", str(_CHECK_SECONDS)]
            self._check = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "reconciler", *command, stdin=asyncio.subprocess.DEVNULL, start_new_session=True
            )

    async def stop(self) -> None:
        """Stop the process, and wait until it has ended."""
        check, self._check = self._check, None
        if check is not None and check.returncode is None:
            _kill(check)
            await check.wait()
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            if self._watcher is not None:
                self._watcher.cancel()
            try:
                async with asyncio.timeout(_STOP_SECONDS):
                    await process.wait()
            except TimeoutError:
                print("the operator does not stop: killing it", flush=True)
            finally:
                _kill(process)
            await process.wait()
        if self._alive is not None:
            os.close(self._alive)
            self._alive = None

    def kill(self) -> None:
        """Kill the process and all that it started."""
        if self._process is not None:
            _kill(self._process)

    async def _report_end(self, process: asyncio.subprocess.Process) -> None:
        code = await process.wait()
        if not self.stopping:
            print(f"the operator has ended with exit code {code}; it starts again when a file changes", flush=True)


def _kill(process: asyncio.subprocess.Process) -> None:
    """Kill the processes of a session, whose first one may have ended already."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


class ProcessOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator's process is started with, as JSON.

    Attributes:
        target: the target of ``reconciler run``.
        run: its options.
        alive: a pipe that is closed when the starting process ends.
        conversions: whether the server calls conversion webhooks of another process.
        started: a line that is printed when everything listens and is configured.
    """

    target: str
    run: RunOptions
    alive: int
    conversions: bool
    started: str


def main(text: str) -> int:
    """Run the operator; return the exit code."""
    options = msgspec.json.decode(text, type=ProcessOptions, dec_hook=lambda kind, value: kind(value))
    threading.Thread(target=_end_with, args=(options.alive,), daemon=True).start()

    async def install(manager: Manager) -> None:
        await _install(manager, options)
        manager.add(tell_started, leader_only=False)  # it runs when the webhooks listen and the cache is synced

    async def tell_started() -> None:
        print(options.started, flush=True)

    return run_target(options.target, options.run, prepare=install)


def _end_with(alive: int) -> None:
    """Wait until the other end of a pipe is closed, then end this process and all that it started."""
    os.read(alive, 1)
    os.killpg(os.getpgrp(), signal.SIGKILL)


async def _install(manager: Manager, options: ProcessOptions) -> None:
    """Create or replace the definitions and the webhook configurations of the operator."""
    certificates = options.run.webhook_certificates or Path()
    url, authority = f"https://{options.run.webhooks}", (certificates / "ca.crt").read_bytes()
    converters = [each for each in manager.webhooks if isinstance(each, Converter)]
    conversions = {
        (each.group, each.kind): conversion_configuration(each, url=url, ca_bundle=authority) for each in converters
    }
    if converters and not options.conversions:
        _log.warning(
            "%s: the converter is not called here, so an object read in another version lacks the fields that differ; "
            "'reconciler dev --control-plane' calls it, and so do tests on the embedded API server",
            ", ".join(sorted(each.kind for each in converters)),
        )
    for document in (
        *own_definitions(manager, options.target, conversions if options.conversions else None),
        *webhook_configurations(manager.webhooks, name=operator_name(options.target), url=url, ca_bundle=authority),
    ):
        await _put(manager, document)


async def _put(manager: Manager, document: JSONObject) -> None:
    def replace(current: Unstructured) -> None:
        for key in document.keys() - {"apiVersion", "kind", "metadata"}:
            current[key] = document[key]

    await manager.client.live.create_or_update(document, replace)


if __name__ == "__main__":
    exit_with(lambda: main(sys.argv[1]))
