"""Say in the real server's words that a CEL rule does not hold, or why it could not be evaluated."""

from __future__ import annotations

import re
from typing import Any

from reconciler.apiserver.encoding.text import quoted

__all__ = ["not_held", "shown_in_failure", "what_failed"]

_WORDS: list[tuple[re.Pattern[str], str]] = [
    (re.compile(pattern), said)
    for pattern, said in (
        (r'Key not found in map : "(.*)"', r"no such key: \1"),
        (r"Key not found in map : (.*)", r"no such key: \1"),
        (r"Index error: index=(-?\d+) size=\d+", r"index out of bounds: \1"),
        (r"divide by zero", "division by zero"),
        (
            r"String to Duration conversion failed.*",
            "type conversion error from 'string' to 'google.protobuf.Duration'",
        ),
        (
            r"String to Timestamp conversion failed.*",
            "type conversion error from 'string' to 'google.protobuf.Timestamp'",
        ),
        (r"cannot convert string to (\w+)", r"type conversion error from 'string' to '\1'"),
        (r"Type conversion error from 'string' to '(\w+)'", r"type conversion error from 'string' to '\1'"),
        (r"int64 out of uint64 range", "unsigned integer overflow"),
        (r"No matching overloads found.*", "no such overload"),
        (r"<string>\.charAt\(.*|<string>\.substring\(.*is greater than.*", "index out of range"),
    )
]
_OVERLOAD = (
    "'no such overload': call arguments did not match a supported operator, function or macro signature for rule: "
)


def what_failed(text: str, rule: str) -> str:
    """Return the complaint about a rule.

    Args:
        text: what the engine said.
        rule: the message of the rule, or the rule itself.
    """
    problem = (text.partition(": ")[2] or text).removesuffix(" [INVALID_ARGUMENT]").removesuffix(" [UNKNOWN]")
    for pattern, said in _WORDS:
        if pattern.search(problem):
            problem = pattern.sub(said, problem)
            break
    return f"{_OVERLOAD}{rule}" if problem.startswith("no such overload") else f"{problem} evaluating rule: {rule}"


def not_held(reason: str, value: Any, message: str) -> str:
    """Return the complaint that a rule does not hold.

    Args:
        reason: the reason that the rule gives.
        value: what it was asked about.
        message: its message.
    """
    if reason == "FieldValueRequired":
        return f"Required value: {message}"
    if reason == "FieldValueForbidden":
        return f"Forbidden: {message}"
    if reason == "FieldValueDuplicate":
        shown = _value(value).removesuffix(": ")
        return f"Duplicate value: {shown}" if shown else "Duplicate value"
    return f"Invalid value: {_value(value)}{message}"


def _value(value: Any) -> str:
    """Return how a finding shows a value; objects and lists are not shown."""
    return "" if isinstance(value, (dict, list)) else f"{quoted(value)}: "


def shown_in_failure(value: Any) -> str:
    """Return how a failed evaluation shows a value: the kind of an object or list, or the value itself."""
    return '"object"' if isinstance(value, dict) else '"array"' if isinstance(value, list) else quoted(value)
