"""kopf: handlers for creation and resumption that set the status, everything optional switched off."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any

import kopf
from kopf._cogs.clients import patching

from tests.benchmarks.contenders.protocol import Options, Reporter, commands, condition, obey, parse, timestamp

KIND = ("bench.example.com", "v1", "widgets")


def register(options: Options, reporter: Reporter) -> None:
    """Register the handlers."""

    @kopf.on.startup()
    def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
        settings.posting.enabled = False  # no Event a handler
        settings.scanning.disabled = True

    @kopf.on.login()
    def login(**given: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_kubeconfig(**given)

    @kopf.on.resume(*KIND)
    @kopf.on.create(*KIND)
    @kopf.on.update(*KIND, field="spec")
    async def reconcile(patch: kopf.Patch, meta: kopf.Meta, **_: Any) -> None:
        reporter.reconciles += 1
        patch.status["run"] = options.run
        patch.status["observedGeneration"] = meta["generation"]
        patch.status["conditions"] = [condition(timestamp())]

    if options.requeue:

        @kopf.timer(*KIND, interval=options.requeue, initial_delay=options.requeue)
        async def again(**_: Any) -> None:
            reporter.reconciles += 1

    # kopf patches after the handler; what counts is the response to that.
    original = patching.patch_obj

    async def counted(*args: Any, **kwargs: Any) -> Any:
        sets_status = "status" in kwargs["patch"]
        result = await original(*args, **kwargs)
        if sets_status:
            reporter.wrote()
        return result

    patching.patch_obj = counted


async def main(options: Options) -> None:
    """Run the operator until the input ends."""
    reporter = Reporter(options.count)
    lines = commands()
    logging.getLogger("kopf").setLevel(logging.ERROR)
    register(options, reporter)
    os.environ["KUBECONFIG"] = options.kubeconfig
    reporter.mark("ready")
    await anext(lines)
    stop = asyncio.Event()
    operator = asyncio.create_task(kopf.operator(standalone=True, namespaces=[options.namespace], stop_flag=stop))
    obeying = asyncio.create_task(obey(reporter, lines))
    await asyncio.wait({operator, obeying}, return_when=asyncio.FIRST_COMPLETED)
    stop.set()
    await operator


if __name__ == "__main__":
    asyncio.run(main(parse()))
