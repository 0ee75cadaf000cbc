"""The command ``reconciler run``."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path

from reconciler._version import __version__
from reconciler.cli.options import RunOptions, options_as_typed
from reconciler.cli.targets import load_target
from reconciler.client import Client
from reconciler.errors import ConfigurationError
from reconciler.manager import GracePeriodExceeded, LeaderElection, Manager
from reconciler.manager.setup import setup_function
from reconciler.recording import Recording
from reconciler.telemetry import JSONFormatter, TextFormatter

_log = logging.getLogger("reconciler.run")


Prepare = Callable[[Manager], Awaitable[None]]


def run(
    target: str,
    /,
    *,
    options: RunOptions = RunOptions(),  # noqa: B008 - frozen
    config: Path | None = None,  # noqa: ARG001 - read by `config_sources` before the command line is parsed
) -> int:
    """Run controllers against a cluster until SIGTERM.

    ATTR is a Reconciler (class or instance), a sequence of them, or a function, plain or async, that takes the Manager
    and adds controllers to it. The command line takes precedence over environment variables, which take precedence over
    the file of --config.

    Args:
        target: MODULE:ATTR, or 'notification' for the built-in notification operator.
        config: YAML file with these options as keys, without the leading dashes.
    """
    return run_target(target, options)


def run_target(target: str, options: RunOptions, *, prepare: Prepare | None = None) -> int:
    """Run a target until SIGTERM; return the exit code.

    Args:
        target: what to run.
        options: how to run it.
        prepare: called when the controllers have been added, before they start.

    Raises:
        ConfigurationError: an option is invalid; the message names it as typed on the command line.
    """
    if options.workers < 1:
        raise ConfigurationError(f"--workers must be 1 or more, not {options.workers}")
    if "" in options.namespaces:
        raise ConfigurationError("--namespace must not be empty")
    setup = operator_setup(target, options, _configure_logging(options))
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_run(setup, options, prepare=prepare, program=program_name(target)))
    return 0


def operator_setup(target: str, options: RunOptions, handler: logging.Handler) -> Prepare:
    """Return the function that adds the controllers of a target to a manager.

    Args:
        target: what to run.
        options: how to run it.
        handler: the handler of log records, from which the notification operator keeps its secrets.

    Raises:
        ConfigurationError: the target does not exist, or an option is invalid.
    """
    found: object = _notification(options, handler) if target == "notification" else load_target(target)
    return setup_function(found, target, workers=options.workers)


def program_name(target: str) -> str:
    """Return the name of a target for field managers and the User-Agent, so that programs differ."""
    return "notification-operator" if target == "notification" else target.partition(":")[0]


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's event loop if the extra ``fast`` is installed; None for asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _run(setup: Prepare, options: RunOptions, *, prepare: Prepare | None, program: str) -> None:
    async with Client.from_config(
        kubeconfig=str(options.kubeconfig) if options.kubeconfig else None,
        context=options.context,
        user_agent=f"{program} kube-reconciler/{__version__}",
    ) as client:
        with options_as_typed(security="--token-file or --authentication"):
            election = options.leader_election and LeaderElection(
                options.leader_election, namespace=options.leader_election_namespace
            )
            manager = Manager(
                client,
                namespaces=list(options.namespaces) or None,
                leader_election=election,
                metrics=options.metrics,
                health=options.health,
                console=options.console,
                webhooks=options.webhooks,
                webhook_certificates=options.webhook_certificates,
                security=options.security.to_security(),
                grace_period=options.grace_period,
                recording=None if options.record is None else Recording(options.record),
            )
        await setup(manager)
        if prepare is not None:
            await prepare(manager)
        if manager.webhooks and options.webhook_certificates is None and prepare is None:
            _log.info("webhooks are not served: pass --webhook-certificates to serve them")
        try:
            with options_as_typed():
                await manager.run()
        except GracePeriodExceeded as error:
            # Whatever did not stop, most likely a thread, would keep the process running.
            print(f"reconciler: {error}", file=sys.stderr, flush=True)
            os._exit(1)


def notification_setup() -> Callable[[Manager], object]:
    """Return the function that adds the notification operator with all defaults to a manager."""
    return _notification(RunOptions(), logging.NullHandler())


def _notification(options: RunOptions, handler: logging.Handler) -> Callable[[Manager], object]:
    """Return the function that adds the notification operator to a manager.

    Raises:
        ConfigurationError: an option is invalid.
    """
    from reconciler.notification import NotificationOperator, NotificationOptions
    from reconciler.notification.redaction import RedactingFormatter

    operator = NotificationOperator(NotificationOptions(workers=options.workers, **asdict(options.notification)))
    handler.setFormatter(RedactingFormatter(handler.formatter or logging.Formatter(), operator.redactor))
    return operator.add_to


def _configure_logging(options: RunOptions) -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JSONFormatter() if options.log_format == "json" else TextFormatter.for_stream(sys.stderr))
    logging.basicConfig(level=options.log_level.upper(), handlers=[handler])
    return handler
