"""The timeline of a key: what woke it, its reconciles, its writes and its waits, on one time axis."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from reconciler._core.wire import JSONObject
from reconciler.controller.wake import reasons
from reconciler.meta.documents import human_duration

Lane = Literal["woken by", "reconciles", "writes", "waits"]

_STEPS = (
    *(each / 1000 for each in (1, 2, 5, 10, 20, 50, 100, 200, 500)),
    *(1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800),
    *(3600 * each for each in (1, 2, 6, 12, 24, 48, 168, 720, 8760)),
)
"""Seconds between two ticks of the axis."""

_MAX_TICKS = 7

_FUTURE = 1.0
"""The highest share of the past that the axis shows of the future."""

_SHORTEST = 10.0
"""Seconds that the axis shows at least."""

_SHORTEST_REMEMBERED = 0.01
"""Seconds that the axis shows at least, from the first to the last reconcile."""

_NOTICEABLE = 0.01
"""Seconds from a change to its reconcile that are drawn as a wait."""

_MARGIN = 0.02

_TIMERS = {reasons.RETRY: "retry", reasons.REQUEUE_AFTER: "delay", reasons.AGAIN: "again"}


@dataclass(frozen=True, slots=True)
class Mark:
    """Something on the timeline.

    Attributes:
        lane: where it is drawn.
        kind: how it is drawn.
        start, end: seconds before now (negative), or after; equal for a moment.
        text: what it is.
        run: the id of its reconcile, see `run_id`; None for none.
    """

    lane: Lane
    kind: str
    start: float
    end: float
    text: str
    run: str | None = None


@dataclass(frozen=True, slots=True)
class Tick:
    """A labeled time of the axis, in seconds before or after now."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """The timeline of a key.

    Attributes:
        start, end: the ends of the axis, in seconds before and after now.
        ticks: the labeled times.
        marks: what is drawn, in the order of drawing.
        beyond: seconds until the next reconcile, if that is beyond the end.
    """

    start: float
    end: float
    ticks: tuple[Tick, ...]
    marks: tuple[Mark, ...]
    beyond: float | None

    def place(self, at: float) -> float:
        """Return where a time is on the axis: 0 is its start, 1 its end."""
        return min(1.0, max(0.0, (at - self.start) / (self.end - self.start)))


def timeline_of(key: JSONObject, now: datetime, span: float | Literal["all", "reconciles"] = "all") -> Timeline:
    """Return the timeline of a key.

    Args:
        key: the key, from `read_document`, with its reconciles.
        now: the time of that document.
        span: what is shown: seconds of the past, and the future; ``"all"`` of the past that is remembered, and the
            future; only from the first to the last of the ``"reconciles"``.
    """
    marks = tuple(_marks(key, now))
    first = min((mark.start for mark in marks), default=0.0)
    due = key.get("due_in_seconds")
    if span == "reconciles":
        start, end = (
            first,
            max((mark.end for mark in marks if mark.run is not None and mark.lane != "waits"), default=0.0),
        )
    else:
        past = max(-first, _SHORTEST) if span == "all" else span
        start, end = -past, 0.0 if due is None else min(due, past * _FUTURE)
    margin = max(end - start, _SHORTEST_REMEMBERED) * _MARGIN
    start, end = start - margin, end + 2 * margin
    shown = tuple(mark for mark in marks if mark.end >= start and mark.start <= end)
    return Timeline(
        start,
        end,
        tuple(_ticks(start, end, now)),
        shown,
        due if due is not None and due > end and span != "reconciles" else None,
    )


def run_id(run: JSONObject) -> str:
    """Return an id of a reconcile that stays when there are newer ones."""
    return "run-" + "".join(each for each in run["started"] if each.isdigit())


def _marks(key: JSONObject, now: datetime) -> Iterator[Mark]:
    runs = list(reversed(key["runs"]))
    starts = [(datetime.fromisoformat(run["started"]) - now).total_seconds() for run in runs]
    progress = key.get("in_progress_seconds")
    next_start = None if progress is None else -progress
    for position, run in enumerate(runs):
        name = run_id(run)
        start, end = starts[position], starts[position] + run["seconds"]
        following = starts[position + 1] if position + 1 < len(runs) else next_start
        if (wait := _wait(key, run, following)) is not None:
            yield Mark("waits", wait[0], end, wait[1], wait[2], name)
        yield from _causes(run["reasons"], run.get("changes", []), start, now, name)
        yield Mark("reconciles", _result(run), start, end, f"{run['result']}, {human_duration(run['seconds'])}", name)
        if run["writes"]:
            what = "status written" if run["status_written"] else "written"
            yield Mark("writes", "write", end, end, f"{what} ({run['writes']})", name)
        if run["echoes_dropped"]:
            text = f"the watch event of it was dropped ({run['echoes_dropped']})"
            yield Mark("writes", "echo", end, end, text, name)
    if progress is not None:
        yield from _causes(key.get("current_reasons", []), key.get("current_changes", []), -progress, now)
        yield Mark("reconciles", "active", -progress, 0.0, f"in progress for {human_duration(progress)}")
    elif "ready_seconds" in key:
        ready = key["ready_seconds"]
        yield from _causes(key.get("next_reasons", []), key.get("next_changes", []), -ready, now)
        yield Mark("waits", "queue", -ready, 0.0, f"ready for {human_duration(ready)}, waits for a worker")
    if "due_in_seconds" in key:
        due = key["due_in_seconds"]
        yield Mark("reconciles", "next", due, due, f"next in {human_duration(due)}")


def _wait(key: JSONObject, run: JSONObject, following: float | None) -> tuple[str, float, str] | None:
    """Return how a reconcile made its key wait: the kind, the end, and a text; None if it did not."""
    error = run.get("error")
    if error is not None:
        kind, text = "retry", "backoff after the failure"
    elif "requeue_after_seconds" in run:
        kind, text = "delay", f"delay of {human_duration(run['requeue_after_seconds'])}"
    elif run["result"] == "requeue":
        kind, text = "again", "backoff after Result(again=True)"
    else:
        return None
    if following is not None:
        return kind, following, text
    if error is not None and error["terminal"]:
        return None
    return (kind, key["due_in_seconds"], text) if "due_in_seconds" in key else None


def _causes(
    words: list[str], changes: list[JSONObject], start: float, now: datetime, run: str | None = None
) -> Iterator[Mark]:
    """Yield the changes that woke a key, when they were noticed, and their wait; without any, the reasons."""
    for change in changes:
        at = min(start, (datetime.fromisoformat(change["at"]) - now).total_seconds())
        yield Mark("woken by", "change", at, at, f"{change['kind']} {change['name']} was {change['type']}", run)
        if start - at > _NOTICEABLE:
            yield Mark("waits", "queue", at, start, f"waited {human_duration(start - at)} for its turn", run)
    if not changes:
        yield Mark("woken by", _cause(words), start, start, ", ".join(words) or "no reason", run)


def _cause(causes: list[str]) -> str:
    """Return the kind of what woke a key: a change, or one of the timers."""
    words = [reasons.word(cause) for cause in causes]
    changes = [word for word in words if word not in _TIMERS]
    return "change" if changes or not words else _TIMERS[words[0]]


def _result(run: JSONObject) -> str:
    return {"error": "error", "cancelled": "cancelled"}.get(run["result"], "success")


def _ticks(start: float, end: float, now: datetime) -> Iterator[Tick]:
    step = next((step for step in _STEPS if (end - start) / step <= _MAX_TICKS), _STEPS[-1])
    epoch = now.timestamp()
    number = int((epoch + start) // step) + 1
    while number * step <= epoch + end:
        time = datetime.fromtimestamp(round(number * step, 3), UTC)
        yield Tick(number * step - epoch, _label(time, step))
        number += 1


def _label(time: datetime, step: float) -> str:
    if step < 1:
        return f"{time:%M:%S}.{time.microsecond // 1000:03}".rstrip("0")
    return f"{time:%H:%M:%S}" if step < 60 else f"{time:%H:%M}" if step < 86_400 else f"{time:%d %b}"
