"""The command ``reconciler demo``: a notification is retried the naive way and by this library, and what that shows.

The notification has a channel that works and one that fails: the directory of ``file`` is below a regular file, so not
even root can create it.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import logging
import math
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from reconciler._core.wire import JSONObject
from reconciler.apiserver import APIServer
from reconciler.cli.options import CONSOLE_ADDRESS, options_as_typed
from reconciler.cli.output import free_address, print_json, program, render
from reconciler.client import Client
from reconciler.clock import current_clock
from reconciler.controller import Outcome, Reconciler, Result, effect
from reconciler.errors import ConfigurationError, importing
from reconciler.manager import Manager
from reconciler.meta import Request
from reconciler.meta.documents import format_micro_time, parse_time
from reconciler.notification import (
    Channel,
    ConsoleChannel,
    FileChannel,
    Message,
    NotificationReconciler,
    NotificationRequest,
)
from reconciler.recording import Recording
from reconciler.testing import virtual_time

with importing(extra="demo", purpose="the demo"):  # the whole extra at once, before anything is shown
    import jsonschema_rs  # noqa: F401
    import looptime  # noqa: F401
    from rich import box
    from rich.console import Console, Group
    from rich.live import Live
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

_FRAME = 1 / 30
"""Real seconds per frame."""
_SLOW_MOTION = 1 / 500
"""Speed factor of the naive timeline, whose retries are over within half a virtual second."""

_WHAT = "Retried: a notification, through the channel 'file', which always fails."
_TITLES = {True: "Naive: writes the status after each attempt", False: "kube-reconciler: one write, stored due times"}

_TAKE_AWAY = "Take-away: naive status writes undo the backoff; stored due times keep it."


_TERMINAL = {"Sent", "PartiallySent", "Failed"}
_POLICY = {"maxAttempts": 5, "initialBackoffSeconds": 30, "backoffMultiplier": 2, "maxBackoffSeconds": 480, "jitter": 0}
_NAIVE_LATENCY = 0.04
"""Seconds per patch of the naive reconciler; about the latency of a real API server."""


def run_demo(*, speed: float, naive: bool, as_json: bool, record: Path | None = None) -> int:
    """Run the scenario under virtual time and show it: the naive way, then this library's.

    Args:
        speed: virtual seconds per real second; 0 shows the result at once.
        naive: show only the naive way.
        as_json: print only the facts, at once: those of this library, or with `naive` those of the naive way.
        record: record the naive way in this directory.

    Raises:
        ConfigurationError: the speed is negative or not finite.
    """
    if not (speed >= 0 and math.isfinite(speed)):
        raise ConfigurationError(f"--speed must be 0 or a positive number, not {speed}")
    if record is not None and not naive:
        raise ConfigurationError("--record records the naive way: pass --naive, too")
    if as_json:
        print_json(play(naive=naive, record=record))
        return 0
    logging.getLogger("reconciler").addHandler(logging.NullHandler())  # the table shows the failures
    console = Console(highlight=False)
    console.print(_WHAT, soft_wrap=True)
    shown = []
    for way in (True,) if naive else (True, False):
        with _timeline(_TITLES[way], console) as show:
            shown.append(play(naive=way, speed=speed * (_SLOW_MOTION if way else 1), show=show, record=record))
    console.print()
    console.print(_summary(shown))
    console.print(f"\nThe times of the retry policy: {_times(shown[0].policy_attempts_at)}\n", soft_wrap=True)
    console.print(_lesson(shown[0]) if naive else f"{_next_steps()}\n\n{_TAKE_AWAY}", soft_wrap=True)
    return 0


def _next_steps() -> str:
    called = program()
    python = "python" if called == "reconciler" else str(Path(called).with_name("python"))
    return render("demo.txt", program=called, python=python)


@contextlib.contextmanager
def _timeline(title: str, console: Console) -> Iterator[Show]:
    """Provide a function that shows the attempts so far: in a live table on a terminal, line by line elsewhere.

    The table is at most 80 columns wide.
    """
    printed = 0

    def print_lines(attempts: Sequence[Attempt], _: float) -> None:
        nonlocal printed
        for attempt in attempts[printed:]:
            console.print(_line(_cells(attempt)), soft_wrap=True)
        printed = len(attempts)

    def update(attempts: Sequence[Attempt], now: float) -> None:
        clock = Text(f" virtual clock {now:7.2f} s", style="bold")
        live.update(Panel(Group(clock, _table(attempts)), title=title, border_style="cyan", expand=False))

    if not console.is_terminal:
        console.print(f"\n{title}\n{_line(_HEADER)}", soft_wrap=True)
        yield print_lines
        return
    with Live(console=console, refresh_per_second=20, redirect_stdout=False) as live:
        yield update


_HEADER = ("time", "attempt", "channel", "result", "next due", "status writes", "phase")
_WIDTHS = (6, 7, 7, 7, 10, 13, 13)
_JUSTIFY: Sequence[Literal["left", "right"]] = ("right", "right", "left", "left", "right", "right", "left")


def _cells(row: Attempt) -> Sequence[str]:
    due = "-" if row.next_due is None else _seconds(row.next_due)
    if row.next_due is None and row.result == "failure" and row.phase == "Retrying":
        due = "not stored"
    return (_seconds(row.at), str(row.attempt), row.channel, row.result, due, str(row.status_writes), row.phase)


def _table(rows: Sequence[Attempt]) -> Table:
    table = Table(expand=False, box=box.SIMPLE_HEAD, show_edge=False)
    for name, width, justify in zip(_HEADER, _WIDTHS, _JUSTIFY, strict=True):
        table.add_column(name.replace(" ", "\n"), justify=justify, min_width=6 if " " in name else width, no_wrap=True)
    for row in rows:
        cells: list[str | Text] = list(_cells(row))
        cells[3] = Text(row.result, style="green" if row.result == "success" else "red")
        table.add_row(*cells)
    return table


def _line(cells: Sequence[str]) -> str:
    columns = zip(cells, _WIDTHS, _JUSTIFY, strict=True)
    return "  ".join(
        f"{cell:>{width}}" if side == "right" else f"{cell:<{width}}" for cell, width, side in columns
    ).rstrip()


def _summary(shown: Sequence[DemoResult]) -> Table:
    table = Table(title="What happened", box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("", style="bold", no_wrap=True)
    for facts in shown:
        table.add_column("naive" if facts.naive else "kube-reconciler")
    rows: dict[str, Callable[[DemoResult], str]] = {
        "'file' tried at": lambda facts: _times(facts.file_attempts_at).replace(" s,", ","),
        "'console' delivered": lambda facts: (
            "once" if facts.console_deliveries == 1 else f"{facts.console_deliveries} times"
        ),
        "reconciles": lambda facts: str(facts.cycles),
        "status writes": lambda facts: str(facts.status_writes),
        "phase": lambda facts: f"{facts.phase} at {_seconds(facts.phase_at)}",
    }
    for name, value in rows.items():
        table.add_row(name, *(value(facts) for facts in shown))
    return table


def _lesson(facts: DemoResult) -> str:
    return (
        f"{len(facts.file_attempts_at)} attempts in {facts.file_attempts_at[-1]:.2f} s: every status write "
        "enqueued the object,\nand the returned delay was lost. With the protections:  reconciler demo"
    )


def _times(values: Sequence[float]) -> str:
    return ", ".join(_seconds(value) for value in values)


def _seconds(value: float) -> str:
    return f"{value:.0f} s" if float(value).is_integer() else f"{value:.2f} s"


_PERIOD = 60.0
"""Seconds between two notifications in the browser; the retries of one take 30 there."""


def run_live(address: str, *, naive: bool) -> int:
    """Serve the console of an operator that retries notifications, until interrupted.

    Args:
        address: where the console is served.
        naive: whether to use the naive reconciler.

    Raises:
        ConfigurationError: the address is invalid, or cannot be listened on.
        KeyboardInterrupt: always, in the end.
    """
    if address == CONSOLE_ADDRESS:
        address = free_address(address)
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
            await client.create(new_notification(f"disk-full-{number}", {**_POLICY, "initialBackoffSeconds": 2}))
            await asyncio.sleep(_PERIOD)


class Attempt(msgspec.Struct, frozen=True, rename="camel"):
    """A row of the timeline; times are seconds since the notification was created."""

    at: float
    attempt: int
    channel: str
    result: str
    next_due: float | None
    status_writes: int
    phase: str


class DemoResult(msgspec.Struct, rename="camel"):
    """The facts of the scenario, as they are printed as JSON."""

    naive: bool
    file_attempts_at: list[float] = []
    policy_attempts_at: tuple[float, ...] = (0, 30, 90, 210, 450)
    console_deliveries: int = 0
    cycles: int = 0
    status_writes: int = 0
    phase: str = "Pending"
    phase_at: float = 0.0
    attempts: list[Attempt] = []

    def add(self, attempt: Attempt) -> None:
        """Add an attempt."""
        self.attempts.append(attempt)
        if attempt.channel == "file":
            self.file_attempts_at.append(attempt.at)
        self.console_deliveries += attempt.channel == "console" and attempt.result == "success"


Show = Callable[[Sequence[Attempt], float], None]
"""Shows the attempts so far, and the seconds since the notification was created."""


def play(*, naive: bool, speed: float = 0, show: Show = lambda *_: None, record: Path | None = None) -> DemoResult:
    """Run the scenario to its end under virtual time.

    Args:
        naive: run the naive reconciler.
        speed: virtual seconds per real second; 0 for no pauses.
        show: called with each new attempt, and for each frame.
        record: the directory of a recording; None without one.
    """
    with virtual_time():
        return asyncio.run(_play(DemoResult(naive), speed, show, record))


async def _play(facts: DemoResult, speed: float, show: Show, record: Path | None) -> DemoResult:
    async with running_operator(naive=facts.naive, record=record) as (server, client, manager):
        frames = asyncio.create_task(_show_frames(facts, speed, show))
        try:
            await _follow(client, server, facts, show)
        finally:
            frames.cancel()
        await asyncio.sleep(3600)  # nothing may happen any more
        facts.cycles = manager.controllers[0].statistics().reconciles
        facts.status_writes = len(server.requests(subresource="status"))
    return facts


async def _show_frames(facts: DemoResult, speed: float, show: Show) -> None:
    clock = current_clock()
    start = clock.monotonic()
    while True:
        show(facts.attempts, clock.monotonic() - start)
        if speed:
            time.sleep(_FRAME)  # noqa: ASYNC251 - the time of the event loop is virtual
        await asyncio.sleep(speed * _FRAME or 3600)


@contextlib.asynccontextmanager
async def running_operator(
    *, naive: bool, console: str | None = None, grace_period: float = 30, record: Path | None = None
) -> AsyncIterator[tuple[APIServer, Client, Manager]]:
    """Run an operator with a channel that works and one that always fails, on a server of its own.

    Args:
        naive: run the naive reconciler.
        console: ``host:port`` of the console; None without one.
        grace_period: seconds that reconciles in progress have to finish.
        record: the directory of a recording; None without one.
    """
    with tempfile.TemporaryDirectory() as folder:
        channels = _channels(Path(folder))
        async with APIServer() as server, Client(server) as client:
            await server.apply(_without_rules(NotificationRequest.crd()))
            recording = None if record is None else Recording(record)
            manager = Manager(client, console=console, grace_period=grace_period, recording=recording)
            if naive:
                server.faults.add(latency=_NAIVE_LATENCY, times=None, verb="patch")
            (add_naive if naive else add_reconciler)(manager, channels)
            async with manager.running():
                yield server, client, manager


def _without_rules(definition: Any) -> Any:
    """Return a definition without its CEL rules, whose engine is not installed everywhere; the demo breaks none."""
    if isinstance(definition, dict):
        kept = definition.keys() - {"x-kubernetes-validations"}
        return {name: _without_rules(value) for name, value in definition.items() if name in kept}
    return [*map(_without_rules, definition)] if isinstance(definition, list) else definition


def add_naive(manager: Manager, channels: Sequence[Channel] = ()) -> None:
    """Add the naive reconciler to a manager; without channels for a replay, which does not send."""
    channels = channels or _channels(Path())
    manager.add_controller(NaiveReconciler(channels), resource=NotificationRequest)


def add_reconciler(manager: Manager, channels: Sequence[Channel] = ()) -> None:
    """Add the library's reconciler to a manager; without channels for a replay, which does not send."""
    manager.add_controller(NotificationReconciler(channels=channels or _channels(Path())))


def _channels(folder: Path) -> list[Channel]:
    occupied = folder / "occupied"
    if folder != Path():
        occupied.write_text("A regular file where the channel needs a directory.\n")
    return [ConsoleChannel(stream=io.StringIO()), FileChannel(occupied / "notifications")]


def new_notification(name: str, policy: Mapping[str, int]) -> NotificationRequest:
    """Return a notification through both channels."""
    return NotificationRequest.from_dict(
        {
            "metadata": {"name": name, "namespace": "default"},
            "spec": {
                "type": "Escalation",
                "priority": "High",
                "subject": "Disk almost full on node-7",
                "body": "/var/lib is at 93 %.",
                "channels": ["console", "file"],
                "retryPolicy": dict(policy),
            },
        }
    )


async def _follow(client: Client, server: APIServer, facts: DemoResult, show: Show) -> None:
    created = await client.create(new_notification("disk-full", _POLICY))
    clock = current_clock()
    born = clock.now()
    events = client.watch(NotificationRequest, "default", resource_version=created.resource_version)
    async for event in events:
        status = event.object.to_dict().get("status") or {}
        writes = len(server.requests(subresource="status"))
        for entry in (status.get("deliveryAttempts") or [])[len(facts.attempts) :]:
            attempt = Attempt(
                at=round((parse_time(entry["timestamp"]) - born).total_seconds(), 6),
                attempt=entry["attempt"],
                channel=entry["channel"],
                result=entry["result"],
                next_due=_next_due(status, entry["channel"], born),
                status_writes=writes,
                phase=status.get("phase") or "Pending",
            )
            facts.add(attempt)
            show(facts.attempts, attempt.at)
        if status.get("phase") in _TERMINAL:
            facts.phase = status["phase"]
            facts.phase_at = round((clock.now() - born).total_seconds(), 6)
            return


def _next_due(status: JSONObject, channel: str, born: datetime) -> float | None:
    for state in status.get("channels") or ():
        if state.get("name") == channel and state.get("nextAttemptTime"):
            return round((parse_time(state["nextAttemptTime"]) - born).total_seconds(), 6)
    return None


class NaiveReconciler(Reconciler):
    """A reconciler that writes the status while it works; the retry storm of `reconciler demo --naive`.

    It differs from the real reconciler in two ways: it writes each attempt at once, with a plain patch, and it returns
    the delay without storing it. The patch enqueues the object again, which discards the delay, and nothing in the
    object says that it is too early for the next attempt.
    """

    def __init__(self, channels: Sequence[Channel]) -> None:
        super().__init__()
        self._channels: Mapping[str, Channel] = {channel.name: channel for channel in channels}

    async def reconcile(self, request: Request, /) -> Outcome:
        """Deliver through every channel that has not succeeded yet."""
        notification = await self.client.get(NotificationRequest, request.name, request.namespace)
        policy = notification.spec.retry_policy
        document = notification.to_dict()
        attempts: list[JSONObject] = list((document.get("status") or {}).get("deliveryAttempts") or [])
        waiting = False
        for name in notification.spec.channels or ():
            tried = [attempt for attempt in attempts if attempt["channel"] == name]
            if any(attempt["result"] == "success" for attempt in tried) or len(tried) >= policy.max_attempts:
                continue
            error = await self._deliver(notification, name, len(tried) + 1)
            attempts.append(
                {
                    "channel": name,
                    "attempt": len(tried) + 1,
                    "timestamp": format_micro_time(current_clock().now()),
                    "result": "failure" if error else "success",
                    **({"error": error} if error else {}),
                }
            )
            exhausted = error is not None and len(tried) + 1 >= policy.max_attempts
            waiting = waiting or (error is not None and not exhausted)
            await self.client.patch(
                NotificationRequest,
                request.name,
                request.namespace,
                patch={
                    "status": {
                        "deliveryAttempts": attempts,
                        "totalAttempts": len(attempts),
                        "phase": "PartiallySent" if exhausted else "Retrying",
                    }
                },
                subresource="status",
            )
        return Result(requeue_after=policy.initial_backoff_seconds) if waiting else None

    async def _deliver(self, notification: NotificationRequest, name: str, attempt: int) -> str | None:
        message = Message(
            name=notification.name,
            namespace=notification.namespace or "",
            uid=notification.uid,
            type=notification.spec.type,
            priority=notification.spec.priority,
            subject=notification.spec.subject,
            body=notification.spec.body,
            channel=name,
            attempt=attempt,
        )
        try:
            await self.send(f"{message.namespace}/{message.name} to {name}", self._channels[name], message)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - any exception of a channel is a failed attempt
            return str(error)
        return None

    @effect
    async def send(self, _subject: str, channel: Channel, message: Message) -> None:
        """Send a message over a channel."""
        await channel.deliver(message)
