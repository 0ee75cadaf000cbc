"""The notification operator with three channels in memory: what it costs beside the deliveries themselves."""

from __future__ import annotations

import asyncio

from reconciler import Client, Manager
from reconciler.notification import Message, NotificationReconciler
from tests.benchmarks.contenders.protocol import Options, Reporter, commands, obey, parse

CHANNELS = ("first", "second", "third")


class Memory:
    """A channel that delivers immediately, and counts."""

    def __init__(self, name: str, options: Options, reporter: Reporter) -> None:
        self.name = name
        self._total = options.count * len(CHANNELS)
        self._reporter = reporter

    async def deliver(self, message: Message) -> None:
        self._reporter.objects += 1
        if self._reporter.objects == self._total:
            self._reporter.mark("delivered")


async def main(options: Options) -> None:
    """Deliver until the input ends."""
    reporter = Reporter(options.count)
    lines = commands()
    async with Client.from_config(kubeconfig=options.kubeconfig) as client:
        manager = Manager(client, namespaces=[options.namespace])
        channels = [Memory(name, options, reporter) for name in CHANNELS]
        manager.add_controller(NotificationReconciler(channels=channels), workers=options.workers)
        reporter.mark("ready")
        await anext(lines)
        async with manager.running():
            reporter.mark("synced")
            await obey(reporter, lines)


if __name__ == "__main__":
    asyncio.run(main(parse()))
