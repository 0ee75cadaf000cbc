"""The process of the operator under ``reconciler dev``: it installs its definitions, and runs like ``reconciler run``.

It is started with its options as JSON. It ends with the process that started it, even if that was killed.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from pathlib import Path

import msgspec

from reconciler._core.wire import JSONObject
from reconciler.cli.crd import own_definitions
from reconciler.cli.options import RunOptions
from reconciler.cli.output import exit_with
from reconciler.cli.run import run_target
from reconciler.cli.targets import operator_name
from reconciler.manager import Manager
from reconciler.objects import Unstructured
from reconciler.webhook import Converter, conversion_configuration, webhook_configurations

_log = logging.getLogger("reconciler.dev")


class ProcessOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of the operator's process.

    Attributes:
        target: the target of ``reconciler run``.
        alive: a pipe that is closed when the starting process ends.
        kubeconfig: the server.
        namespaces: the namespaces to watch; empty for all.
        workers: concurrent reconciles per controller.
        metrics: ``host:port`` for metrics and the debug paths.
        console: ``host:port`` for the console; None without one.
        log_level: the lowest level that is logged.
        webhooks: ``host:port`` for webhooks.
        certificates: the directory with their certificate, and that of its CA.
        conversions: whether the server calls conversion webhooks of another process.
        started: a line that is printed when everything listens and is configured.
    """

    target: str
    alive: int
    kubeconfig: str
    namespaces: tuple[str, ...]
    workers: int
    metrics: str
    console: str | None
    log_level: str
    webhooks: str
    certificates: str
    conversions: bool
    started: str


def main(text: str) -> int:
    """Run the operator; return the exit code."""
    options = msgspec.json.decode(text, type=ProcessOptions)
    threading.Thread(target=_end_with, args=(options.alive,), daemon=True).start()

    async def install(manager: Manager) -> None:
        await _install(manager, options)
        manager.add(tell_started, leader_only=False)  # it runs when the webhooks listen and the cache is synced

    async def tell_started() -> None:
        print(options.started, flush=True)

    return run_target(
        options.target,
        RunOptions(
            kubeconfig=Path(options.kubeconfig),
            namespaces=options.namespaces,
            workers=options.workers,
            metrics=options.metrics,
            console=options.console,
            log_level=options.log_level,  # type: ignore[arg-type]
            webhooks=options.webhooks,
            webhook_certificates=Path(options.certificates),
            grace_period=3.0,
        ),
        prepare=install,
    )


def _end_with(alive: int) -> None:
    """Wait until the other end of a pipe is closed, then end this process and all that it started."""
    os.read(alive, 1)
    os.killpg(os.getpgrp(), signal.SIGKILL)


async def _install(manager: Manager, options: ProcessOptions) -> None:
    """Create or replace the definitions and the webhook configurations of the operator."""
    url, authority = f"https://{options.webhooks}", Path(options.certificates, "ca.crt").read_bytes()
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
