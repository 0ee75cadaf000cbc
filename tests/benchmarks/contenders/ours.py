"""This library: a Manager with a ResourceReconciler, as the documentation shows it, with no option but the workers."""

from __future__ import annotations

import asyncio

from reconciler import Client, Manager, Outcome, Reconciler, Request, ResourceReconciler, Result, StatusBatcher
from tests.benchmarks.contenders.protocol import MANAGER, Options, Reporter, commands, meanwhile, obey, parse
from tests.benchmarks.contenders.widget import Widget, WidgetStatus

POD = "v1/Pod"


class WidgetReconciler(ResourceReconciler[Widget]):
    """A reconciler that writes the status once."""

    def __init__(self, options: Options, reporter: Reporter) -> None:
        self.options = options
        self.reporter = reporter
        if options.write == "patch":
            self.status_strategy = "merge"  # type: ignore[misc]
        self.outcome = Result(requeue_after=options.requeue) if options.requeue else None
        self.batchers: dict[Request, StatusBatcher[WidgetStatus]] = {}

    async def reconcile_object(self, widget: Widget, status: StatusBatcher[WidgetStatus]) -> Outcome:
        self.batchers[widget.key] = status
        status.set(run=self.options.run)
        status.set_condition("Ready", True, reason="Provisioned", message="1 of 1")
        return self.outcome

    async def reconcile(self, request: Request, /) -> Outcome:
        # Around the whole cycle, since the write comes at its end.
        self.reporter.reconciles += 1
        outcome = await super().reconcile(request)
        if self.batchers.pop(request).written:
            self.reporter.wrote()
        return outcome


class WidgetReader(ResourceReconciler[Widget]):
    """A reconciler that writes nothing."""

    def __init__(self, reporter: Reporter) -> None:
        self.reporter = reporter

    async def reconcile_object(self, widget: Widget, status: StatusBatcher[WidgetStatus]) -> Outcome:
        self.reporter.reconciled()
        return None


class PodReader(Reconciler):
    """The same for pods, which are read as they are."""

    def __init__(self, reporter: Reporter) -> None:
        self.reporter = reporter

    async def reconcile(self, request: Request, /) -> Outcome:
        await self.client.get(POD, request.name, request.namespace)
        self.reporter.reconciled()
        return None


def count(reporter: Reporter) -> None:
    """Count an object."""
    reporter.objects += 1


async def main(options: Options) -> None:
    """Do one piece of work."""
    reporter = Reporter(options.count)
    lines = commands()
    async with Client.from_config(kubeconfig=options.kubeconfig, field_manager=MANAGER) as client:
        manager = Manager(client, namespaces=[options.namespace])
        informer = await manager.cache.informer(Widget if options.kind == "Widget" else POD)
        if options.work == "read" and options.kind == "Pod":
            manager.add_controller(PodReader(reporter), resource=POD, workers=options.workers)
        elif options.work == "read":
            manager.add_controller(WidgetReader(reporter), workers=options.workers)
        elif options.work == "converge":
            manager.add_controller(
                WidgetReconciler(options, reporter),
                workers=1 if options.adaptive == "1" else options.workers,
                adaptive_concurrency=options.adaptive == "on",
            )
        else:
            informer.add_handler(lambda _: count(reporter))
        reporter.mark("ready")
        await anext(lines)
        running = asyncio.create_task(manager.run())
        await meanwhile(running, informer.wait_synced())
        reporter.mark("synced")
        await obey(reporter, lines)
        manager.stop()
        await running


def run(options: Options) -> None:
    """Run on the loop that was chosen."""
    if options.loop == "uvloop":
        import uvloop

        uvloop.run(main(options))
    else:
        asyncio.run(main(options))


if __name__ == "__main__":
    run(parse())
