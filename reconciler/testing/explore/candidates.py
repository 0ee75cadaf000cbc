"""The disturbances that a reference run suggests, the most telling first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import replace

from reconciler.testing.explore.disturbances import Disturbance
from reconciler.testing.explore.points import Moment, moments_of
from reconciler.testing.explore.run import Run

_WEIGHTS = {
    ("crash", "after"): 9,
    ("lag", ""): 8,
    ("crash", "effect"): 8,
    ("crash", "before"): 7,
    ("lag", "point"): 7,
    ("travel", ""): 7,
    ("lose", "after"): 6,
    ("foreign", "recreate"): 6,
    ("foreign", "touch"): 5,
    ("cancel", "after"): 5,
    ("foreign", "owner"): 4,
    ("cancel", "effect"): 4,
    ("lose", "before"): 4,
    ("foreign", "delete"): 4,
    ("refuse", "500"): 4,
    ("cancel", "before"): 3,
    ("refuse", "webhook"): 3,
    ("foreign", "change"): 3,
    ("slow", ""): 3,
    ("refuse", "429"): 2,
    ("handover", ""): 2,
    ("shutdown", ""): 2,
}
"""How telling each kind of disturbance is: the higher, the earlier it is tried."""


def candidates(run: Run, families: Collection[str], *, pairs: bool = False) -> list[tuple[Disturbance, ...]]:
    """Return the disturbances of a run, the most telling first; each kind of disturbance takes its turn.

    Args:
        run: the reference run.
        families: the families of disturbances to choose from.
        pairs: whether each crash is also combined with each window in which watches lag.
    """
    moments = moments_of(run)
    steps = sum(event.what == "step" for event in run.trace)
    ranked: list[tuple[int, int, Disturbance]] = []
    ranks: Counter[tuple[str, str, int]] = Counter()
    found = [(each, telling) for each, telling in _all(run, moments, steps) if each.family in families]
    for each, _ in sorted(found, key=lambda pair: -pair[1]):
        kind = _kind(each)
        group = (*kind, min(each.steps, 2))
        ranked.append((ranks[group], -_WEIGHTS[kind], each))
        ranks[group] += 1
    ranked.sort(key=lambda entry: entry[:2])
    chosen = [each for _, _, each in ranked]
    windows = [each for each in chosen if each.family == "lag"]
    crashes = [each for each in chosen if each.family == "crash" and not each.steps]
    combined = [(window, crash) for crash in crashes for window in windows] if pairs else []
    return [*((each,) for each in chosen), *combined]


def _kind(each: Disturbance) -> tuple[str, str]:
    if each.family == "lag":
        return "lag", "point" if each.point is not None else ""
    return each.family, each.variant if (each.family, each.variant) in _WEIGHTS else ""


def _all(run: Run, moments: list[Moment], steps: int) -> Iterator[tuple[Disturbance, int]]:
    for moment in moments:
        if moment.point.verb == "effect":
            yield from _at_effect(moment, steps)
        else:
            yield from _at_request(run, moment, steps)
    for step in range(1, steps + 1):
        for kind in run.watched:
            for length in (1, 2, 3):
                if step + length - 1 <= steps:
                    yield Disturbance("lag", "", None, kind, step, length), length
    yield from _travels(run, moments)


def _at_effect(moment: Moment, steps: int) -> Iterator[tuple[Disturbance, int]]:
    yield Disturbance("crash", "effect", moment.point), moment.telling
    yield Disturbance("crash", "before", moment.point), moment.telling
    yield Disturbance("cancel", "effect", moment.point), moment.telling
    yield Disturbance("cancel", "before", moment.point), moment.telling
    for later in (1, 2):
        if moment.step + later <= steps:
            yield Disturbance("crash", "effect", moment.point, steps=later), moment.telling


def _at_request(run: Run, moment: Moment, steps: int) -> Iterator[tuple[Disturbance, int]]:
    point, telling = moment.point, moment.telling
    for variant in ("before", "after"):
        yield Disturbance("crash", variant, point), telling
        yield Disturbance("lose", variant, point), telling
        yield Disturbance("cancel", variant, point), telling
        for later in (1, 2):
            if moment.step + later <= steps:
                yield Disturbance("crash", variant, point, steps=later), telling
    for variant in ("429", "500", "webhook"):
        yield Disturbance("refuse", variant, point), telling
    for family in ("shutdown", "handover", "slow"):
        yield Disturbance(family, "", point), telling
    yield Disturbance("foreign", "owner", point), telling
    if point.verb != "create":
        yield Disturbance("foreign", "touch", point), telling
        if moment.owned and point.resource in run.watched:
            yield Disturbance("foreign", "change", point), telling
            yield Disturbance("foreign", "delete", point), telling
        if moment.owned:
            yield Disturbance("foreign", "recreate", point), telling + 2 * moment.deletes
    if point.resource in run.watched:
        yield Disturbance("lag", "", point), telling


def _travels(run: Run, moments: list[Moment]) -> Iterator[tuple[Disturbance, int]]:
    """Yield restarts after which a read at version 0 shows a state that mattered: a deletion, or an earlier spec."""
    if not any(event.text == "at version 0" for event in run.trace):
        return
    requests = [(moment, moment.point.find(run.trace)) for moment in moments if moment.point.verb != "effect"]
    past: dict[int, int] = {}
    for event in run.trace:
        for moment, struck in requests:
            if struck is event:
                for version, telling in past.items():
                    yield Disturbance("travel", str(version), moment.point), moment.telling + telling
        for change in event.changes:
            if change.after is not None:
                dying = "deletionTimestamp" in change.after["metadata"]
                past[int(change.after["metadata"]["resourceVersion"])] = 5 * dying + 2 * (event.author == "user")


def without_windows(disturbances: tuple[Disturbance, ...]) -> Iterator[tuple[Disturbance, ...]]:
    """Yield simpler forms of disturbances: single ones of a pair, and shorter windows."""
    if len(disturbances) > 1:
        yield from ((each,) for each in disturbances)
    for number, each in enumerate(disturbances):
        shorter = [0] if each.family == "crash" else range(1, each.steps) if each.point is None else []
        for steps in shorter:
            if steps < each.steps:
                yield (*disturbances[:number], replace(each, steps=steps), *disturbances[number + 1 :])
