"""The report of a failure, as text and as a page: what happened, what is wrong, and the line that repeats it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from reconciler.errors import describe_error
from reconciler.meta import Request
from reconciler.testing.explore.exploration import Failure, Outcome
from reconciler.testing.trace import TraceEvent, WorldTrace, is_bookkeeping

if TYPE_CHECKING:
    from reconciler.manager.console.timeline import Mark

_MOST_LINES = 80
_VERBS = {
    "create": "creates",
    "update": "updates",
    "patch": "patches",
    "delete": "deletes",
    "deletecollection": "deletes all",
    "get": "reads",
    "list": "lists",
}


def report(failure: Failure, outcome: Outcome, *, repeat: str) -> str:
    """Return the report of a failure.

    Args:
        failure: the failure.
        outcome: what was tried.
        repeat: the command that repeats the run.
    """
    if failure.disturbances:
        title = f"The operator does not survive this: {'; '.join(each.describe() for each in failure.disturbances)}."
    else:
        title = "Nothing was disturbed yet, and already this is wrong."
    findings = [str(finding).replace("\n", "\n  ") for finding in failure.findings]
    parts = [
        title,
        "\n".join(["What is wrong:", *(f"  {text}" for text in findings)]),
        "\n".join(["What happened, in seconds:", *_limited(list(_told(failure.run.trace)))]),
        *([line] if (line := _decisive(failure)) else []),
        str(outcome) + ".",
        f"Repeat exactly this run, also under a debugger:\n  {repeat}",
    ]
    return "\n\n".join(parts)


def _limited(lines: list[str]) -> list[str]:
    if len(lines) <= _MOST_LINES:
        return lines
    half = _MOST_LINES // 2
    return [*lines[:half], f"  ({len(lines) - 2 * half} lines are left out)", *lines[-half:]]


def _decisive(failure: Failure) -> str:
    """Return which line of the operator sent the request that was disturbed; ``""`` if that is unknown."""
    for each in failure.disturbances:
        event = None if each.point is None else each.point.find(failure.run.trace)
        if event is not None and event.line:
            return f"The line of the decisive request: {event.line}"
    return ""


def _told(trace: WorldTrace) -> Iterator[str]:
    """Yield what happened, one line each: the virtual second, who, and what."""
    versions: dict[Request, int] = {}
    for event in trace:
        for change in event.changes:
            metadata = change.document["metadata"]
            versions[Request(metadata["name"], metadata.get("namespace"))] = int(metadata["resourceVersion"])
        text = describe(event, versions)
        if text:
            yield f"  {event.at:8.3f}  {_who(event):<10}  {text}"


def _who(event: TraceEvent) -> str:
    if event.what == "disturbed":
        return "!"
    return f"operator {event.process}" if event.process else event.author


def describe(event: TraceEvent, versions: dict[Request, int]) -> str:
    """Return what happened, in words; ``""`` for what need not be told.

    Args:
        event: the event.
        versions: the newest version of each object so far.
    """
    reasons = ", ".join(sorted(event.run.reasons)) if event.run is not None else ""
    failed = f": {describe_error(event.error)}" if event.error is not None else ""
    texts = {
        "started": "starts, with empty memory",
        "ended": "is killed" if event.text else f"ends{failed}",
        "event": f"is told: {event.text}",
        "begun": f"reconciles {event.key} ({reasons})",
    }
    if event.what == "done":
        return _done(event, versions)
    if event.effect is not None:
        return f"effect: {event.effect.name}({event.effect.key}){_from(event)}"
    return _request(event) if event.request is not None else texts.get(event.what, event.text)


def _done(event: TraceEvent, versions: dict[Request, int]) -> str:
    assert event.key is not None  # noqa: S101 - a reconcile has a key
    newest = versions.get(event.key)
    seen = "no object" if event.basis is None else f"version {event.basis}"
    stale = f", while the newest was {newest}" if newest is not None and newest != event.basis else ""
    outcome = f"fails: {describe_error(event.error)}" if event.error is not None else "is done"
    return f"{outcome} with {event.key}, of which it knew {seen}{stale}"


def _request(event: TraceEvent) -> str:
    entry = event.request
    assert entry is not None  # noqa: S101 - a request has an entry
    if is_bookkeeping(entry) or (not entry.writes and not event.line) or event.author == "user":
        return ""
    what = "/".join(part for part in (entry.resource, entry.name, entry.subresource) if part)
    outcome = f"version {entry.after}" if entry.effective else f"{entry.status or 'no response'} {entry.reason}".strip()
    changed = f", changing {' '.join(entry.changed)}" if entry.changed else ""
    at = f" {event.text}" if event.text else ""
    return f"{_VERBS.get(entry.verb, entry.verb)} {what}{at}: {outcome}{changed}{_from(event)}"


def _from(event: TraceEvent) -> str:
    return f"    [{event.line}]" if event.line else ""


_TICKS = 8


def page_of(failure: Failure, *, title: str, text: str) -> str:
    """Return the page as HTML, which needs nothing else.

    Args:
        failure: the failure.
        title: the name of the test.
        text: the report as text.
    """
    from reconciler.manager.console.html import section, timeline, whole_page  # raises for a missing extra
    from reconciler.manager.console.timeline import Tick, Timeline

    events = list(failure.run.trace)
    marks = tuple(_marks(events))
    step = max(1, len(events) // _TICKS)
    ticks = tuple(Tick(number - len(events), f"{events[number].at:g} s") for number in range(0, len(events), step))
    drawn = Timeline(-float(len(events)), 0.0, ticks, marks, None)
    import htpy as h

    body = [
        h.h1[title],
        section("What is wrong", h.ul[[h.li[str(finding)] for finding in failure.findings]]),
        section("What happened, in order", timeline(drawn)),
        section("Report", h.pre[text]),
    ]
    return whole_page(f"{title} · explore", body)


def _marks(events: list[TraceEvent]) -> Iterator[Mark]:
    """Yield the marks; the axis is the order of what happened."""
    from reconciler.manager.console.timeline import Mark

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
