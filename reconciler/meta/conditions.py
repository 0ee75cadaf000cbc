"""Keep ``status.conditions`` by the rules of metav1.Condition.

One entry a type; ``lastTransitionTime`` moves only when ``status`` flips.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from reconciler.meta.documents import is_object
from reconciler.meta.scalars import format_time

__all__ = ["condition_is_true", "find_condition", "keep_transition_times", "remove_condition", "set_condition"]


def find_condition(conditions: Sequence[dict[str, Any]], type: str) -> dict[str, Any] | None:
    """Return the condition of a type, or None."""
    for condition in conditions:
        if condition.get("type") == type:
            return condition
    return None


def condition_is_true(conditions: Sequence[dict[str, Any]], type: str) -> bool:
    """Say whether the condition of a type is there and ``"True"``."""
    condition = find_condition(conditions, type)
    return condition is not None and condition.get("status") == "True"


def set_condition(
    conditions: list[dict[str, Any]],
    type: str,
    status: bool | str,
    *,
    reason: str,
    message: str = "",
    observed_generation: int | None = None,
    now: datetime,
) -> bool:
    """Set one condition in place; say whether anything changed.

    Args:
        conditions: the list to change.
        type: the condition's type, unique in the list.
        status: a bool, or ``"True"``, ``"False"``, ``"Unknown"``.
        reason: a CamelCase word for programs; never empty, the API refuses that.
        message: a sentence for people.
        observed_generation: the generation that the condition speaks of.
        now: the time of the transition, used only when the status flips.

    Raises:
        ValueError: the status is none of the three, or the reason is empty.
    """
    text = str(status) if isinstance(status, bool) else status
    if text not in ("True", "False", "Unknown"):
        raise ValueError(f"status of condition {type!r} must be a bool, 'True', 'False' or 'Unknown', not {status!r}")
    if not reason:
        raise ValueError(f"condition {type!r} needs a reason: a CamelCase word")
    wanted: dict[str, Any] = {"type": type, "status": text, "reason": reason, "message": message}
    if observed_generation is not None:
        wanted["observedGeneration"] = observed_generation
    current = find_condition(conditions, type)
    if current is None:
        conditions.append({**wanted, "lastTransitionTime": format_time(now)})
        return True
    if all(current.get(key) == value for key, value in wanted.items()):
        return False
    if current.get("status") != text or not current.get("lastTransitionTime"):
        wanted["lastTransitionTime"] = format_time(now)
    current.update(wanted)
    return True


def keep_transition_times(before: Mapping[str, Any], after: dict[str, Any]) -> None:
    """Give ``conditions`` of a new status, in place, the transition times of the old one where nothing flipped.

    For conditions that were written as a whole, each with the time at which that was done: a transition time that moves
    although ``status`` does not is no news, and would be written for ever. What has no time, old or new, is left alone.
    """
    old, new = before.get("conditions"), after.get("conditions")
    if not (isinstance(old, list) and isinstance(new, list)) or old == new:
        return
    stored = {c["type"]: c for c in old if is_object(c) and isinstance(c.get("type"), str)}
    kept = list(new)
    for index, condition in enumerate(new):
        if not is_object(condition) or not isinstance(condition.get("type"), str):
            continue
        known = stored.get(condition["type"])
        if known is None or known.get("status") != condition.get("status"):
            continue
        time, moved = known.get("lastTransitionTime"), condition.get("lastTransitionTime")
        if time and moved and time != moved:
            kept[index] = {**condition, "lastTransitionTime": time}
    after["conditions"] = kept


def remove_condition(conditions: list[dict[str, Any]], type: str) -> bool:
    """Remove the condition of a type in place; say whether there was one."""
    before = len(conditions)
    conditions[:] = [c for c in conditions if c.get("type") != type]
    return len(conditions) != before
