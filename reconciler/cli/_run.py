"""Run reconcilers against a cluster."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from reconciler.cli._adder import adder_of
from reconciler.cli._targets import load_target
from reconciler.client import Client
from reconciler.controller import Reconciler
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
    notification_directory: Path | None
    log_format: str
    log_level: str


def run_target(target: str, options: RunOptions) -> int:
    """Run what `target` names until SIGTERM; return the exit code."""
    _configure_logging(options)
    found = _notification(options) if target == "notification" else load_target(target)
    add = adder_of(found, target, workers=options.workers)
    asyncio.run(_run(add, options))
    return 0


async def _run(add: Callable[[Manager], Awaitable[None]], options: RunOptions) -> None:
    async with Client.from_config(
        kubeconfig=str(options.kubeconfig) if options.kubeconfig else None, context=options.context
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


def _notification(options: RunOptions) -> Reconciler:
    from reconciler.notification import (
        Channel,
        ConsoleChannel,
        FileChannel,
        LogChannel,
        NotificationReconciler,
        installed_channels,
    )

    channels: list[Channel] = [ConsoleChannel(), LogChannel(), *installed_channels()]
    if options.notification_directory is not None:
        channel = FileChannel(options.notification_directory)
        channel.check()
        channels.append(channel)
    return NotificationReconciler(channels=channels)


def _configure_logging(options: RunOptions) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JSONFormatter() if options.log_format == "json" else TextFormatter())
    logging.basicConfig(level=options.log_level.upper(), handlers=[handler])
