"""The demo on the terminal and in the browser: the naive timeline, this library's, and what they show."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from reconciler.cli.demo_scenario import Attempt, DemoResult, new_notification, play, running_operator
from reconciler.cli.options import CONSOLE_ADDRESS, options_as_typed
from reconciler.cli.output import free_address, print_json, program
from reconciler.errors import ConfigurationError, MissingExtra
from reconciler.testing import virtual_time

try:  # the whole extra at once, before anything is shown
    import jsonschema_rs  # noqa: F401
    import looptime  # noqa: F401
    from rich import box
    from rich.console import Console, Group, RenderableType
    from rich.live import Live
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text
except ModuleNotFoundError as error:
    raise MissingExtra(error.name or "rich", extra="demo", purpose="the demo") from error


_FRAME = 1 / 30
"""Real seconds per frame."""
_SLOW_MOTION = 1 / 500
"""Speed factor of the naive timeline, whose retries are over within half a virtual second."""

_WHAT = "Retried: a notification, through the channel 'file', which always fails."
_TITLES = {True: "Naive: writes the status after each attempt", False: "kube-reconciler: one write, stored due times"}

_NEXT_STEPS = """\
Go on from here, in a clone of the repository: each line in its own terminal,
the last two after "export KUBECONFIG=reconciler.kubeconfig". The retries of
the notification take 7.5 minutes, as above.
  {program} apiserver notification
  {python} examples/notification/receiver.py
  {program} run notification --routing-file examples/notification/receiver.yaml
  kubectl apply -f examples/notification.yaml && kubectl get notif -w
Or write an operator of your own:  {program} new my_operator"""

_TAKE_AWAY = "Take-away: naive status writes undo the backoff; stored due times keep it."


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
        facts = _play(naive=naive, speed=0, view=None, record=record)
        print_json(facts.to_dict())
        return 0
    logging.getLogger("reconciler").addHandler(logging.NullHandler())  # the table shows the failures
    console = Console(highlight=False)
    console.print(_WHAT, soft_wrap=True)
    shown = []
    for way in (True,) if naive else (True, False):
        with TimelineView(_TITLES[way], console) as view:
            shown.append(_play(naive=way, speed=speed * (_SLOW_MOTION if way else 1), view=view, record=record))
    console.print()
    console.print(_summary(shown))
    console.print(f"\nThe times of the retry policy: {_times(shown[0].policy)}\n", soft_wrap=True)
    console.print(_lesson(shown[0]) if naive else f"{_next_steps()}\n\n{_TAKE_AWAY}", soft_wrap=True)
    return 0


def _next_steps() -> str:
    called = program()
    python = "python" if called == "reconciler" else str(Path(called).with_name("python"))
    return _NEXT_STEPS.format(program=called, python=python)


def _play(*, naive: bool, speed: float, view: TimelineView | None, record: Path | None = None) -> DemoResult:
    def on_tick(now: float) -> None:
        if view is not None:
            view.tick(now)
            if speed:
                time.sleep(_FRAME)

    def on_attempt(attempt: Attempt) -> None:
        if view is not None:
            view.add(attempt)

    with virtual_time():
        tick = speed * _FRAME or 3600
        return asyncio.run(play(naive=naive, on_attempt=on_attempt, on_tick=on_tick, tick=tick, record=record))


class TimelineView:
    """A table of attempts: live on a terminal, line by line elsewhere. It is at most 80 columns wide.

    Args:
        title: the title of the table.
        console: where it is shown.
    """

    def __init__(self, title: str, console: Console) -> None:
        self._console = console
        self._title = title
        self._rows: list[Attempt] = []
        self._now = 0.0
        self._live = Live(
            get_renderable=self._render, console=self._console, refresh_per_second=20, redirect_stdout=False
        )

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        else:
            self._console.print(f"\n{self._title}\n{_line(_HEADER)}", soft_wrap=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def tick(self, now: float) -> None:
        """Set the time, in seconds since the notification was created."""
        self._now = now

    def add(self, attempt: Attempt) -> None:
        """Add an attempt."""
        self._rows.append(attempt)
        if not self._console.is_terminal:
            self._console.print(_line(_cells(attempt)), soft_wrap=True)

    def _render(self) -> RenderableType:
        clock = Text(f" virtual clock {self._now:7.2f} s", style="bold")
        return Panel(Group(clock, _table(self._rows)), title=self._title, border_style="cyan", expand=False)


_HEADER = ("time", "attempt", "channel", "result", "next due", "status writes", "phase")
_WIDTHS = (6, 7, 7, 7, 10, 13, 13)
_JUSTIFY: Sequence[Literal["left", "right"]] = ("right", "right", "left", "left", "right", "right", "left")


def _cells(row: Attempt) -> Sequence[str]:
    due = "-" if row.next_due is None else _seconds(row.next_due)
    if row.next_due is None and row.result == "failure" and row.phase == "Retrying":
        due = "not stored"
    return (_seconds(row.at), str(row.number), row.channel, row.result, due, str(row.status_writes), row.phase)


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
        "'file' tried at": lambda facts: _times(facts.attempts_of("file")).replace(" s,", ","),
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
        f"{len(facts.attempts_of('file'))} attempts in {facts.attempts_of('file')[-1]:.2f} s: every status write "
        "enqueued the object,\nand the returned delay was lost. With the protections:  reconciler demo"
    )


def _times(values: Sequence[float]) -> str:
    return ", ".join(_seconds(value) for value in values)


def _seconds(value: float) -> str:
    return f"{value:.0f} s" if float(value).is_integer() else f"{value:.2f} s"


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
            await client.create(new_notification(f"disk-full-{number}", _POLICY))
            await asyncio.sleep(_PERIOD)
