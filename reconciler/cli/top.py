"""The command ``reconciler top``: the controllers of an operator, their failing keys and their hot keys."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated

import msgspec
from cyclopts import Parameter

from reconciler.cli.endpoint import find_operator, printable, read_keys
from reconciler.cli.options import AccessFlags, Format, OperatorOptions
from reconciler.cli.output import print_json
from reconciler.errors import ConfigurationError, importing
from reconciler.manager.endpoints.keys import ControllerReport, KeyReport, KeysDocument, rate_text, reasons_text
from reconciler.meta.documents import human_duration

with importing(extra="cli", purpose="'reconciler top'"):
    from rich.console import Console, Group, RenderableType
    from rich.live import Live
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

_MAX_ROWS = 15
"""Busy, failing and hot keys that are shown."""

Found = tuple[ControllerReport, KeyReport]

_NUMBERS = ("ACTIVE ", "READY ", "WAITING ", "RECONCILES ", "ERRORS ", "FAILING ", "UNHEALTHY ")

_HOT = 3.0
"""Reconciles per minute from which a key counts as hot."""


_WIDE = 1000
"""Columns of the output elsewhere than on a terminal."""

_ONE_LINE = 120
"""Columns from which an error is in the line of its key."""

_MAX_NAMED = 5
"""Keys with the same error that are named."""

_LONGEST = 86_400.0
"""Seconds between two updates at most; the system cannot sleep for any number."""


def top(
    *,
    operator: OperatorOptions = OperatorOptions(),  # noqa: B008 - frozen
    access: AccessFlags = AccessFlags(),  # noqa: B008 - frozen
    watch: float | None = None,
    output: Annotated[
        Format, Parameter(help="Output format; 'json' with --watch prints one line per update.")
    ] = "text",
) -> int:
    """Print the controllers of a running operator: queues, workers, failing keys and hot keys.

    Asks a running operator at --endpoint. It must serve --metrics or --health.

    Args:
        watch: Update every so many seconds until interrupted.
    """
    if watch is not None and not 0 < watch <= _LONGEST:
        raise ConfigurationError(f"--watch must be a number of seconds above 0, and at most {_LONGEST:g}, not {watch}")
    _print(functools.partial(read_keys, find_operator(operator).endpoint, access), watch, as_json=output == "json")
    return 0


def _print(ask: Callable[[], KeysDocument], watch: float | None, *, as_json: bool) -> None:
    """Print the document once, or every so many seconds until interrupted."""
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:  # for grep and files: one line a row
        console.width = _WIDE
    # Elsewhere than on a terminal, rich shows a live display only when it ends.
    is_live = watch is not None and console.is_terminal and not as_json
    live = Live(console=console, auto_refresh=False) if is_live else None
    with live or contextlib.nullcontext():
        while True:
            document = ask()
            if live is not None:
                live.update(view(document, console.width), refresh=True)
            elif not as_json:
                console.print(view(document, console.width))
            elif watch is None:
                print_json(document)
            else:
                sys.stdout.write(msgspec.json.encode(document).decode() + "\n")
            sys.stdout.flush()
            if watch is None:
                return
            time.sleep(watch)


def view(document: KeysDocument, width: int) -> RenderableType:
    """Return what is printed of a document on a screen with so many columns."""
    document = printable(document)
    controllers = document.controllers
    parts: list[RenderableType] = [_controllers(controllers)]
    parts += [Text(f"The process waits: {each.text}") for each in document.waits]
    parts += [Text(f"{each.name}: {text}") for each in controllers for text in each.attention]
    keys = [(each, key) for each in controllers for key in each.keys]
    busy = [(each, key) for each, key in keys if key.in_progress_seconds is not None]
    busy.sort(key=lambda found: -(found[1].in_progress_seconds or 0.0))
    failing = [(each, key) for each, key in keys if key.error is not None]
    needy = [(each, key) for each, key in keys if key.attention and key.error is None]
    hot = [(each, key) for each, key in keys if key.reconciles_per_minute >= _HOT]
    hot.sort(key=lambda found: -found[1].reconciles_per_minute)
    if busy:
        table = _table("BUSY KEY", "CONTROLLER", "SINCE", "AT", rows=map(_busy, busy[:_MAX_ROWS]))
        table.caption = _more(sum(each.active for each in controllers), busy)
        parts.append(table)
    if failing:
        parts.append(
            _failing(failing[:_MAX_ROWS], _more(sum(each.keys_failing for each in controllers), failing), width)
        )
    if needy:
        parts.append(_table("NEEDS ATTENTION", "CONTROLLER", "WHY", rows=map(_needy, needy[:_MAX_ROWS])))
    if hot:
        parts.append(_table("HOT KEY", "CONTROLLER", "REASONS", "RATE ", rows=map(_hot, hot[:_MAX_ROWS])))
    if document.role != "running":
        parts.append(Text(f"This process is {document.role}, so it does not reconcile."))
    return Group(*(each for part in parts for each in (part, "")))


def _controllers(controllers: Sequence[ControllerReport]) -> Table:
    columns, rows = ["CONTROLLER", "KIND", *_NUMBERS], []
    for each in controllers:
        numbers = [each.ready, each.waiting, each.reconciles, each.errors, each.keys_failing, each.unhealthy or 0]
        rows.append([each.name, each.kind, f"{each.active}/{each.workers}", *map(str, numbers)])
    if not any(each.unhealthy for each in controllers):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    return _table(*columns, rows=rows)


def _busy(found: Found) -> Sequence[str]:
    controller, key = found
    since = human_duration(key.in_progress_seconds or 0.0) + (" (stuck)" if key.stuck else "")
    return str(key), controller.name, since, str(key.place or "")


def _needy(found: Found) -> Sequence[str]:
    controller, key = found
    return str(key), controller.name, "; ".join(key.attention)


def _hot(found: Found) -> Sequence[str]:
    controller, key = found
    reasons = [reasons_text(key.reasons), *(f"its own write of {path}" for path in key.own_writes)]
    return str(key), controller.name, "; ".join(reasons), rate_text(key.reconciles_per_minute)


def _more(total: int, found: Sequence[Found]) -> str | None:
    """Return how many keys are not among the rows."""
    left = total - min(len(found), _MAX_ROWS)
    return f"{left} more" if left > 0 else None


def _failing(keys: Sequence[Found], more: str | None, width: int) -> RenderableType:
    """Return the failing keys, those with the same error together; on a narrow screen each error has its own line."""
    groups: dict[tuple[str, str], list[KeyReport]] = {}
    for each, key in keys:
        text = ": ".join(part for part in (key.error.type, key.error.message) if part is not None) if key.error else ""
        groups.setdefault((each.name, text), []).append(key)
    rows = [
        (_shown(found), name, text, _next(found[0]), str(max(key.failures for key in found)))
        for (name, text), found in groups.items()
    ]
    if width >= _ONE_LINE:
        table = _table("FAILING KEY", "CONTROLLER", "ERROR", "NEXT", "FAILURES ", rows=rows)
        table.caption = more
        return table
    lines: list[RenderableType] = [Text("FAILING")]
    for (shown, name, text, following, failures), found in zip(rows, groups.values(), strict=True):
        count = f"{len(found)} keys: " if len(found) > 1 else ""
        lines.append(Text(f"{shown} ({name}), {following}, failures: {failures}"))
        lines.append(Padding(Text(count + text, overflow="fold"), (0, 0, 0, 4)))
    return Group(*lines, Text(more or ""))


def _shown(keys: Sequence[KeyReport]) -> str:
    names = ", ".join(map(str, keys[:_MAX_NAMED])) + (", …" if len(keys) > _MAX_NAMED else "")
    return names if len(keys) == 1 else f"{len(keys)} keys: {names}"


def _next(key: KeyReport) -> str:
    if key.in_progress_seconds is not None:
        return f"in progress for {human_duration(key.in_progress_seconds)}"
    if key.ready_seconds is not None:
        return "ready"
    return "after a change" if key.due_in_seconds is None else f"in {human_duration(key.due_in_seconds)}"


def _table(*columns: str, rows: Iterable[Sequence[str]]) -> Table:
    """Return a table; a column whose name ends with a space is one of numbers."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in columns:
        if name.endswith(" "):
            table.add_column(name.strip(), justify="right")
        else:
            table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # not strings, in which brackets are markup
    return table
