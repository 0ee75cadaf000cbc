"""The comparison of two plans on the same fork: only what differs."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from reconciler._core.wire import JSONObject
from reconciler.cli.plan.document import OperatorPlan, PlannedObject, unified_diff
from reconciler.meta.documents import human_duration
from reconciler.testing.differences import compare_states, describe_key


class ObjectComparison(msgspec.Struct, frozen=True, rename="camel"):
    """An object that two plans leave differently.

    Attributes:
        object: kind, namespace and name.
        diff: what differs, from the other plan to this one.
    """

    object: str
    diff: str


class Comparison(msgspec.Struct, frozen=True, rename="camel"):
    """What differs between two plans.

    Attributes:
        target: the operator.
        other: the operator that it is compared with.
        objects: the objects that they leave differently.
        only: errors, effects, unrest and timers of this operator alone.
        only_other: those of the other alone.
    """

    target: str
    other: str
    objects: list[ObjectComparison]
    only: list[str]
    only_other: list[str]

    @property
    def exit_code(self) -> int:
        """0 if nothing differs, and 2 otherwise."""
        return 2 if self.objects or self.only or self.only_other else 0

    def lines(self, *, color: bool) -> Iterator[str]:
        """Yield the comparison as text."""
        colors = {"-": "31", "+": "32", "@": "36"}
        for each in self.objects:
            yield each.object
            for line in each.diff.splitlines():
                code = colors.get(line[:1]) if color else None
                yield line if code is None else f"\x1b[{code}m{line}\x1b[0m"
            yield ""
        for name, found in ((self.target, self.only), (self.other, self.only_other)):
            if found:
                yield f"Only {name}:"
                yield from (f"  {each}" for each in found)
                yield ""
        differ = f"{len(self.objects)} objects differ" if len(self.objects) != 1 else "1 object differs"
        yield f"Comparison of {self.target} with {self.other}: {differ}."


def compare(plan: OperatorPlan, other: OperatorPlan) -> Comparison:
    """Return what a plan does differently from another one."""
    own, others = ({each.key: each for each in one.objects} for one in (plan, other))
    keys = own.keys() | others.keys()
    states = [
        [found for key in keys if (found := _left(one.get(key), another.get(key))) is not None]
        for one, another in ((others, own), (own, others))
    ]
    objects = [
        ObjectComparison(
            f"{describe_key(each.key)}",
            unified_diff(describe_key(each.key), each.before, each.after, (other.target, plan.target)),
        )
        for each in compare_states(*states)
    ]
    said = [set(_sayings(one)) for one in (plan, other)]
    return Comparison(plan.target, other.target, objects, sorted(said[0] - said[1]), sorted(said[1] - said[0]))


def _left(planned: PlannedObject | None, other: PlannedObject | None) -> JSONObject | None:
    """Return how a plan leaves an object: as it was, if only the other plan changes it."""
    if planned is not None:
        return None if planned.action == "deleted" else planned.after
    return None if other is None else other.before


def _sayings(plan: OperatorPlan) -> Iterator[str]:
    for error in plan.errors:
        yield f"error of {error.controller} {error.object}: {error.error}"
    for call in (*plan.effects, *plan.outside):
        yield f"effect of {call.controller}: {call.name} {call.key}"
    for unrest in plan.unrest:
        yield f"never at rest: {unrest.objects} {unrest.kind} ({', '.join(unrest.fields)})"
    for timer in plan.timers:
        yield f"{timer.objects} objects of {timer.controller} act again in {human_duration(timer.seconds)}"
