"""Run reconcilers against a cluster."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from reconciler._version import __version__
from reconciler.cli.adder import adder_of
from reconciler.cli.options import NotificationFlags
from reconciler.cli.targets import load_target
from reconciler.client import Client
from reconciler.manager import GracePeriodExceeded, Manager
from reconciler.telemetry import JSONFormatter, TextFormatter

__all__ = ["RunOptions", "run_target"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Hold what a person chose on the command line."""

    kubeconfig: Path | None
    context: str | None
    namespaces: Sequence[str]
    workers: int
    leader_election: str | None
    leader_election_namespace: str | None
    metrics: str | None
    health: str | None
    grace_period: float
    notification: NotificationFlags
    log_format: str
    log_level: str


def run_target(target: str, options: RunOptions) -> int:
    """Run what `target` names until SIGTERM; return the exit code."""
    handler = _configure_logging(options)
    found: object = _notification(options, handler) if target == "notification" else load_target(target)
    add = adder_of(found, target, workers=options.workers)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_run(add, options, program=_program_of(target)))
    return 0


def _program_of(target: str) -> str:
    """Return what a target is called in field managers and in the User-Agent; all of them run as ``reconciler``."""
    return "notification-operator" if target == "notification" else target.partition(":")[0]


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's event loop where the extra ``fast`` is installed; None is asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _run(add: Callable[[Manager], Awaitable[None]], options: RunOptions, *, program: str) -> None:
    async with Client.from_config(
        kubeconfig=str(options.kubeconfig) if options.kubeconfig else None,
        context=options.context,
        user_agent=f"{program} kube-reconciler/{__version__}",
    ) as client:
        manager = Manager(
            client,
            namespaces=list(options.namespaces) or None,
            leader_election=options.leader_election,
            leader_election_namespace=options.leader_election_namespace,
            metrics=options.metrics,
            health=options.health,
            grace_period=options.grace_period,
        )
        await add(manager)
        try:
            await manager.run()
        except GracePeriodExceeded as error:
            # What has not ended, a thread above all, would hold the process for as long as it likes.
            print(f"reconciler: {error}", file=sys.stderr, flush=True)
            os._exit(1)


def _notification(options: RunOptions, handler: logging.Handler) -> Callable[[Manager], object]:
    """Return what adds the notification operator; what is wrong with its options is told now."""
    from reconciler.notification import NotificationOperator, NotificationOptions, RedactingFilter

    flags = options.notification
    operator = NotificationOperator(
        NotificationOptions(
            console=flags.console,
            log=flags.log_channel,
            directory=flags.notification_directory,
            credentials=flags.credentials,
            routing_file=flags.routing_file,
            routing_config_map=flags.routing_config_map,
            audit_file=flags.audit_file,
            timeout=flags.delivery_timeout,
            max_concurrent=flags.max_deliveries,
            workers=options.workers,
        )
    )
    handler.addFilter(RedactingFilter(operator.redactor))
    return operator.add_to


def _configure_logging(options: RunOptions) -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JSONFormatter() if options.log_format == "json" else TextFormatter())
    logging.basicConfig(level=options.log_level.upper(), handlers=[handler])
    return handler
