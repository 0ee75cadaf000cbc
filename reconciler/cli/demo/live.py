"""The demo in the browser: the same notification, in real time and with short delays, in the console."""

from __future__ import annotations

import asyncio
import itertools

from reconciler.cli.demo.scenario import new_notification, running_operator
from reconciler.cli.options import options_as_typed

__all__ = ["run_live"]

_POLICY = {"maxAttempts": 5, "initialBackoffSeconds": 2, "backoffMultiplier": 2, "maxBackoffSeconds": 480, "jitter": 0}
"""That of the demo on the terminal, with a fifteenth of its delays."""

_PERIOD = 60.0
"""Seconds between two notifications; the retries of one take 30."""


def run_live(address: str, *, naive: bool) -> int:
    """Serve the console of an operator that retries notifications, until interrupted.

    Args:
        address: where the console is served.
        naive: whether to use the naive reconciler.

    Raises:
        ConfigurationError: the address is invalid, or cannot be listened on.
        KeyboardInterrupt: always, in the end.
    """
    with options_as_typed(security="the option security= of your own Manager"):
        asyncio.run(_serve(address, naive=naive))
    return 0


async def _serve(address: str, *, naive: bool) -> None:
    async with running_operator(naive=naive, console=address, grace_period=1) as (_, client, manager):
        key = f"controller={manager.controllers[0].name}&namespace=default&name=disk-full-1"
        when = "Retried at once" if naive else "Retried after 2, 6, 14 and 30 s"
        print(
            f"{when}: a notification, through the channel 'file', which always fails.\n"
            f"Its timeline: {manager.console_url}/key?{key}\n"
            f"Everything:   {manager.console_url}/\n"
            "Ctrl-C ends.",
            flush=True,
        )
        for number in itertools.count(1):
            await client.create(new_notification(f"disk-full-{number}", _POLICY))
            await asyncio.sleep(_PERIOD)
