"""A plan as text: diffs, the reconciles that did them, and a summary."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from reconciler.cli.plan.document import OperatorPlan, PlannedObject, PlannedTimer, Unrest
from reconciler.meta.documents import human_duration

_COLORS = {"-": "31", "+": "32", "@": "36"}
_SIGNS = {"created": "+", "changed": "~", "deleted": "-"}
_MOST = 3
_MANY = 20


def plan_lines(plan: OperatorPlan, *, color: bool) -> Iterator[str]:
    """Yield the lines of a plan; diffs have the colors of ``kubectl diff``."""
    for each in plan.objects:
        yield from _object_lines(each, color=color)
    yield from _section(
        "Errors", [f"{each.controller} {each.object}: {each.error}{_at(each.place)}" for each in plan.errors]
    )
    effects = [f"{each.controller}: {each.name} {each.key}{_times(each.calls)}" for each in plan.effects]
    yield from _section("Effects outside of the cluster, which were not called", effects)
    outside = [
        f"{each.controller or 'operator'}: {each.name}{_times(each.calls)}{_at(each.key)}" for each in plan.outside
    ]
    yield from _section("Requests of other libraries, which were not sent; a fork cannot stand in for them", outside)
    yield from _section("Never at rest", [_unrest_line(each) for each in plan.unrest])
    yield from _section("Timers", [_timer_line(each) for each in plan.timers])
    yield from _section("Note", plan.notes)
    yield summary(plan)


def _object_lines(planned: PlannedObject, *, color: bool) -> Iterator[str]:
    yield _paint(f"{_SIGNS[planned.action]} {planned} is {planned.action}", "1", color=color)
    shown = [str(each) for each in planned.by[:_MOST]] + [f"{len(planned.by) - _MOST} more"] * (len(planned.by) > _MOST)
    yield f"  by {', '.join(shown) or 'the cluster itself, which follows a change of another object'}"
    if planned.waits_for:
        yield f"  its deletion waits for the finalizers {', '.join(planned.waits_for)}"
    if planned.refused:
        yield _paint(f"  the cluster refuses this: {planned.refused}", "31", color=color)
    if planned.diff and planned.action != "deleted":
        yield from (_paint(line, _COLORS.get(line[:1], "0"), color=color) for line in planned.diff.splitlines())
    yield ""


def _unrest_line(each: Unrest) -> str:
    what = f"{_count(each.objects, each.kind)} {_verb('change', each.objects)} again at each reconcile"
    return f"{what} of {each.controller}: {', '.join(map(_dotted, each.fields))} ({each.example})"


def _timer_line(each: PlannedTimer) -> str:
    act = _verb("act", each.objects)
    return f"{_count(each.objects, 'object')} of {each.controller} {act} again in {human_duration(each.seconds)}"


def _section(title: str, lines: Sequence[str]) -> Iterator[str]:
    if lines:
        yield f"{title}:"
        yield from (f"  {line}" for line in lines[:_MANY])
        if len(lines) > _MANY:
            yield f"  and {len(lines) - _MANY} more"
        yield ""


def summary(plan: OperatorPlan) -> str:
    """Return the last line of a plan."""
    counts = [f"{sum(each.action == action for each in plan.objects)} {action}" for action in _SIGNS]
    refused = sum(bool(each.refused) for each in plan.objects)
    more = [(len(plan.errors), "error"), (len(plan.effects), "effect"), (plan.events, "Event"), (refused, "refusal")]
    counts += [_count(number, name) for number, name in more if number]
    return f"Plan: {', '.join(counts)}; {_count(plan.reconciles, 'reconcile')}."


def _count(number: int, name: str) -> str:
    return f"{number} {name}" if number == 1 else f"{number} {name}s"


def _verb(name: str, number: int) -> str:
    return f"{name}s" if number == 1 else name


def _times(calls: int) -> str:
    return "" if calls == 1 else f", {calls} times"


def _at(place: str) -> str:
    return f" ({place})" if place else ""


def _dotted(pointer: str) -> str:
    return pointer.removeprefix("/").replace("/", ".")


def _paint(text: str, code: str, *, color: bool) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if color and code != "0" else text
