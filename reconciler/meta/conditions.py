"""``status.conditions``, by the rules of metav1.Condition.

There is one entry per type, and ``lastTransitionTime`` changes only when ``status`` does.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeGuard

from reconciler.meta.documents import format_time, is_object

if TYPE_CHECKING:
    from reconciler._core.wire import JSONObject

_NAME = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_PREFIX = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/"

CONDITION_STRINGS: Mapping[str, JSONObject] = {
    "type": {"type": "string", "maxLength": 316, "pattern": rf"^({_PREFIX})?({_NAME})$"},
    "reason": {
        "type": "string",
        "minLength": 1,
        "maxLength": 1024,
        "pattern": r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
    },
    "message": {"type": "string", "maxLength": 32768},
}
"""The schemas of a condition's strings, which are those of metav1.Condition."""

_RULES = {
    "type": "a qualified name of at most 316 characters, such as 'Ready' or 'example.com/Ready'",
    "reason": "a word of 1 to 1024 letters, digits, '_', ',' and ':' that begins with a letter and does not end with "
    "',' or ':', such as 'NotReady'",
}


def check_condition(type: object, reason: object, message: object) -> None:
    """Check the strings of a condition whose schema is that of metav1.Condition.

    Raises:
        ValueError: the API server would refuse one of them. The message has the field, the rule and the value; of
            `message` only the length, since it may contain anything.
    """
    _check_words(type, reason)
    limit = CONDITION_STRINGS["message"]["maxLength"]
    if not isinstance(message, str) or len(message) > limit:
        shown = f"one of {len(message)}" if isinstance(message, str) else f"a {message.__class__.__name__}"
        raise ValueError(f"message of condition {type!r} must be a string of at most {limit} characters, not {shown}")


@functools.lru_cache(maxsize=1024)  # a program uses few, each in every reconcile
def _check_words(type: object, reason: object) -> None:
    for name, given in (("type", type), ("reason", reason)):
        schema = CONDITION_STRINGS[name]
        text = given.value if isinstance(given, Enum) else given
        if isinstance(text, str) and len(text) <= schema["maxLength"] and re.fullmatch(schema["pattern"], text):
            continue
        of = "a condition" if name == "type" else f"condition {type!r:.100}"
        raise ValueError(f"{name} of {of} must be {_RULES[name]}, not {given!r:.100}")


def are_conditions(value: Any) -> TypeGuard[list[JSONObject]]:
    """Return whether a value is a list of nothing but objects."""
    return isinstance(value, list) and set(map(type, value)) <= {dict}


def find_condition(conditions: Sequence[JSONObject], type: str) -> JSONObject | None:
    """Return the condition of a type, or None."""
    for condition in conditions:
        if condition.get("type") == type:
            return condition
    return None


def condition_is_true(conditions: Sequence[JSONObject], type: str) -> bool:
    """Return whether the condition of a type exists and is ``"True"``."""
    condition = find_condition(conditions, type)
    return condition is not None and condition.get("status") == "True"


def set_condition(
    conditions: list[JSONObject],
    type: str,
    status: bool | str,
    *,
    reason: str,
    message: str = "",
    observed_generation: int | None = None,
    now: datetime,
) -> bool:
    """Set one condition in place; return whether anything changed.

    Args:
        conditions: the list to change.
        type: the condition's type, unique in the list.
        status: a bool, or ``"True"``, ``"False"``, ``"Unknown"``.
        reason: a machine-readable CamelCase word; the API rejects an empty one.
        message: a sentence for people.
        observed_generation: the generation that the condition describes.
        now: the transition time, used only if the status changes.

    Raises:
        ValueError: the status is invalid, or the reason is empty.
    """
    wanted = _condition(type, status, reason, message, observed_generation)
    current = find_condition(conditions, type)
    if current is None:
        conditions.append({**wanted, "lastTransitionTime": format_time(now)})
        return True
    if wanted.items() <= current.items():
        return False
    if current.get("status") != wanted["status"] or not current.get("lastTransitionTime"):
        wanted["lastTransitionTime"] = format_time(now)
    current.update(wanted)
    return True


def has_condition(
    conditions: Sequence[JSONObject],
    type: str,
    status: bool | str,
    *,
    reason: str,
    message: str = "",
    observed_generation: int | None = None,
) -> bool:
    """Return whether `set_condition` would change nothing, with the same arguments.

    Raises:
        ValueError: as `set_condition`.
    """
    current = find_condition(conditions, type)
    wanted = _condition(type, status, reason, message, observed_generation)
    return current is not None and wanted.items() <= current.items()


def _condition(type: str, status: bool | str, reason: str, message: str, observed_generation: int | None) -> JSONObject:
    text = str(status) if isinstance(status, bool) else status
    if text not in ("True", "False", "Unknown"):
        raise ValueError(f"status of condition {type!r} must be a bool, 'True', 'False' or 'Unknown', not {status!r}")
    if not reason:
        raise ValueError(f"condition {type!r} needs a reason: a CamelCase word")
    condition: JSONObject = {"type": type, "status": text, "reason": reason, "message": message}
    if observed_generation is not None:
        condition["observedGeneration"] = observed_generation
    return condition


def keep_transition_times(before: Mapping[str, Any], after: JSONObject) -> None:
    """Copy transition times of unchanged conditions from an old status to a new one, in place.

    For conditions that were written as a whole, each with the time of that write: a transition time that changes while
    ``status`` does not carries no information, and would cause a write every time. Conditions without a time, old or
    new, are left unchanged.
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


def remove_condition(conditions: list[JSONObject], type: str) -> bool:
    """Remove the condition of a type in place; return whether there was one."""
    before = len(conditions)
    conditions[:] = [c for c in conditions if c.get("type") != type]
    return len(conditions) != before
