"""The report of a failure as a page of its own, with the console's timeline; its axis is the order of what happened."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.errors import MissingExtra
from reconciler.testing.explore.exploration import Failure
from reconciler.testing.explore.report import describe
from reconciler.testing.trace import TraceEvent

try:
    import htpy as h

    from reconciler.manager.console.html import section, standalone_page, timeline
    from reconciler.manager.console.timeline import Mark, Tick, Timeline
except ModuleNotFoundError as error:
    raise MissingExtra(error.name or "htpy", extra="console", purpose="reports as pages") from error

_TICKS = 8


def page_of(failure: Failure, *, title: str, text: str) -> str:
    """Return the page as HTML, which needs nothing else.

    Args:
        failure: the failure.
        title: the name of the test.
        text: the report as text.
    """
    events = list(failure.run.trace)
    marks = tuple(_marks(events))
    step = max(1, len(events) // _TICKS)
    ticks = tuple(Tick(number - len(events), f"{events[number].at:g} s") for number in range(0, len(events), step))
    drawn = Timeline(-float(len(events)), 0.0, ticks, marks, None)
    wrong = [h.li[str(finding)] for finding in failure.findings]
    body = [
        h.h1[title],
        section("What is wrong", h.ul[wrong]),
        section("What happened, in order", timeline(drawn)),
        section("Report", h.pre[text]),
    ]
    return standalone_page(f"{title} · explore", body)


def _marks(events: list[TraceEvent]) -> Iterator[Mark]:
    began: dict[str, int] = {}
    down: int | None = None
    for number, event in enumerate(events):
        at = float(number - len(events))
        said = describe(event, {})
        text = f"{event.at:g} s: {said}"
        if event.what == "begun" and event.run is not None:
            began[event.run.reconcile_id] = number
        elif event.what == "done" and event.run is not None:
            start = float(began.pop(event.run.reconcile_id, number) - len(events))
            yield Mark("reconciles", "error" if event.error is not None else "success", start, at, text)
        elif event.what == "ended":
            down = number
            for start in began.values():
                yield Mark("reconciles", "cancelled", float(start - len(events)), at, "killed in progress")
            began.clear()
        elif event.what == "started" and down is not None:
            yield Mark("waits", "retry", float(down - len(events)), at, "no process of the operator runs")
            down = None
        elif event.what in ("step", "event", "disturbed"):
            yield Mark("woken by", "change" if event.what != "disturbed" else "error", at, at, text)
        elif said and (event.effect is not None or (event.request is not None and event.request.effective)):
            yield Mark("writes", "write", at, at, text)
