"""The timeline of the demo on the terminal."""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import msgspec

from reconciler.cli.demo.scenario import Attempt, Facts, play
from reconciler.errors import ConfigurationError, MissingExtra
from reconciler.testing import virtual_time

try:
    from rich.console import Console, Group, RenderableType
    from rich.live import Live
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text
except ModuleNotFoundError as error:
    raise MissingExtra("rich", extra="cli", purpose="the demo") from error

__all__ = ["run_demo"]

_FRAME = 1 / 30
"""Real seconds per frame."""
_SLOW_MOTION = 1 / 300
"""Speed factor of the naive demo, whose retries are over within half a virtual second."""

_NEXT_STEPS = """\
Next steps:
  reconciler demo --naive                        the same without the protections
  reconciler apiserver notification              an API server for kubectl; it prints the KUBECONFIG to export
  reconciler run notification                    in another terminal: the operator, against that server
  kubectl apply -f examples/notification.yaml    and watch:  kubectl get notif -w"""


def run_demo(*, speed: float, naive: bool, as_json: bool) -> int:
    """Run the scenario under virtual time and show it.

    Args:
        speed: virtual seconds per real second; 0 shows the result at once.
        naive: run the naive reconciler instead.
        as_json: print only the facts, at once.

    Raises:
        ConfigurationError: the speed is negative or not finite.
    """
    if not (speed >= 0 and math.isfinite(speed)):
        raise ConfigurationError(f"--speed must be 0 or a positive number, not {speed}")
    if as_json:
        facts = _play(naive=naive, speed=0, view=None)
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(facts.to_dict())).decode() + "\n")
        return 0
    title = (
        "naive: status is written after each attempt" if naive else "one status write per reconcile, due times stored"
    )
    with TimelineView(title) as view:
        facts = _play(naive=naive, speed=speed * (_SLOW_MOTION if naive else 1), view=view)
    view.close(facts)
    return 0


def _play(*, naive: bool, speed: float, view: TimelineView | None) -> Facts:
    done = False

    def on_tick(now: float) -> None:
        if view is not None and not done:
            view.tick(now)
            if speed:
                time.sleep(_FRAME)

    def on_attempt(attempt: object) -> None:
        if view is not None:
            view.add(attempt)  # type: ignore[arg-type]

    with virtual_time():
        return asyncio.run(play(naive=naive, on_attempt=on_attempt, on_tick=on_tick, tick=speed * _FRAME or 3600))


class TimelineView:
    """A table of attempts: live on a terminal, line by line elsewhere.

    Args:
        title: the title of the table.
        console: the console. Default: standard output.
    """

    def __init__(self, title: str, console: Console | None = None) -> None:
        self._console = console or Console()
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
            self._console.print(self._title)
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
            self._console.print(_line(attempt), soft_wrap=True)

    def close(self, facts: Facts) -> None:
        """Print the summary and the next steps."""
        self._console.print(_summary(facts))
        self._console.print(_NEXT_STEPS if not facts.naive else Text(_lesson(facts)), highlight=False, soft_wrap=True)

    def _render(self) -> RenderableType:
        table = _table(self._rows)
        clock = Text(f"virtual clock  {self._now:7.2f} s", style="bold")
        return Panel(Group(clock, table), title=self._title, border_style="cyan", expand=False)


def _table(rows: Sequence[Attempt]) -> Table:
    table = Table(expand=False)
    for name in ("time", "attempt", "channel", "result", "next due", "status writes", "phase"):
        table.add_column(name, justify="right" if name in {"time", "attempt", "next due", "status writes"} else "left")
    for row in rows:
        style = "green" if row.result == "success" else "red"
        table.add_row(
            _seconds(row.at),
            str(row.number),
            row.channel,
            Text(row.result, style=style),
            _due(row),
            str(row.status_writes),
            row.phase,
        )
    return table


def _line(row: Attempt) -> str:
    writes = "1 status write " if row.status_writes == 1 else f"{row.status_writes} status writes"
    return (
        f"{_seconds(row.at):>9}  {row.channel:<8} attempt {row.number}  {row.result:<8}  next due: {_due(row):<12}"
        f"{writes}  {row.phase}"
    )


def _due(row: Attempt) -> str:
    if row.next_due is not None:
        return _seconds(row.next_due)
    return "not stored" if row.result == "failure" and row.phase == "Retrying" else "-"


def _summary(facts: Facts) -> Table:
    table = Table(title="What happened", show_header=False, expand=False)
    table.add_column("what", style="bold")
    table.add_column("value")
    table.add_row("attempts of 'file' at", ", ".join(_seconds(at) for at in facts.attempts_of("file")))
    table.add_row("times of the retry policy", ", ".join(_seconds(at) for at in facts.policy))
    table.add_row(
        "'console' delivered", "once" if facts.console_deliveries == 1 else f"{facts.console_deliveries} times"
    )
    table.add_row("reconciles", str(facts.cycles))
    table.add_row("status writes", str(facts.status_writes))
    table.add_row("phase", f"{facts.phase} at {_seconds(facts.phase_at)}")
    return table


def _lesson(facts: Facts) -> str:
    return (
        f"{len(facts.attempts_of('file'))} attempts in {facts.attempts_of('file')[-1]:.2f} s: every status write "
        "enqueued the object, and the returned delay was lost.\nWith the protections:  reconciler demo"
    )


def _seconds(value: float) -> str:
    return f"{value:.0f} s" if float(value).is_integer() else f"{value:.2f} s"
