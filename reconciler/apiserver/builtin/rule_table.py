"""The interpreter of ``rules.txt``, the rules of the built-in kinds.

The file has sections for types of ``types.json``, one or several, and in each a line for each rule, in the order of
the errors of the real server::

    PATH[,PATH…] CHECK[!|?] [ARGUMENT…] [at=PATH] [show=VALUE] [if CONDITION [and CONDITION…]][: MESSAGE]
    > MEMBER [at=PATH] [if CONDITION]
    - MEMBER

The second form applies the rules of the member's type here; ``>>`` does even if the member is missing, and the third
form never does. Other members follow after the last rule; the checks ``selector`` and ``one`` follow their members
themselves. The checks are those of `reconciler.apiserver.builtin.checks`. Most accept an empty value unless they
have a ``!``, or a missing one if they have a ``?``.

A PATH is relative to the object of the section's type. It begins with ``^`` for the object around it, with ``/`` for
the whole document, and with ``@`` for the stored object on an update. ``.`` is the object itself, ``list[]`` is each
item, ``list[0]`` one of them, ``map{}`` each key, ``map<key>`` one entry, and ``conditions[Ready|Failed]`` the
condition of one of these types whose status is True.

A CONDITION is a path whose value is set, ``!path``, ``path=a|b``, ``path!=a|b``, ``path<5``, ``path>5``, or ``~member``
for an object in that member and ``!~member`` for one that is not; after ``=.`` comes the path of the other value.
``at`` is the path that the error names; ``show`` is the value that it shows: ``none``, ``bytes`` for their number,
another path, or JSON, in which members get their values.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from reconciler._core.wire import JSONObject
from reconciler.apiserver.builtin.checks import CHECKS, EAGER, selects
from reconciler.apiserver.builtin.kinds import member_types
from reconciler.apiserver.builtin.rule import Check, FieldRule, ValuePlace, condition, getter, named, read_rule
from reconciler.apiserver.encoding.refusals import FieldError, Findings
from reconciler.apiserver.encoding.text import data_file

Step = Callable[[ValuePlace, list[FieldError]], None]


def violations(name: str, value: JSONObject, before: JSONObject | None, path: str = "") -> list[FieldError]:
    """Return the errors of an object of a type of ``types.json``; `before` is the stored object on an update."""
    errors: list[FieldError] = []
    _check(name, ValuePlace(value, before, path), errors)
    return errors


def _check(name: str, place: ValuePlace, errors: list[FieldError]) -> None:
    for step in _plan(name):
        step(place, errors)


@functools.cache
def _sections() -> dict[str, list[str]]:
    text = data_file("builtin/rules/rules.txt").decode()
    sections = (section.split("\n") for section in text.split("\n[")[1:])
    return {
        name: [line for line in lines if line and line[0] != "#"]
        for head, *lines in sections
        for name in head.rstrip("]").split()
    }


def section_names() -> list[str]:
    """Return the names of the types that have rules."""
    return list(_sections())


def section_lines(name: str) -> list[str]:
    """Return the lines of the section of a type; none if it has no rules."""
    return _sections().get(name, [])


@functools.cache
def _has_rules(name: str) -> bool:
    """Return whether a type has rules, or one below it."""
    seen, waiting = {name}, [name]
    while waiting:
        each = waiting.pop()
        if each in _sections():
            return True
        below = {*member_types(each).values()} - seen
        seen |= below
        waiting += below
    return False


@functools.cache
def _plan(name: str) -> tuple[Step, ...]:
    members, steps, done = member_types(name), [], {"metadata"}
    for line in section_lines(name):
        if line[0] == ">":
            head, _, when = line.partition(" if ")
            mark, member, *where = head.split()
            done.add(member)
            at = where[0].removeprefix("at=") if where else None
            steps.append(_follow(member, members[member], at, when, always=mark == ">>"))
        elif line[0] == "-":
            done.add(line[2:])
        elif line.startswith(". one "):
            words, _, message = line.removeprefix(". one ").partition(": ")
            done.update(words.split())
            steps.append(_follow_one(words.split(), members, message))
        else:
            steps.append(read_rule(line, _CHECKS, {*EAGER, "selector"}))
            done |= {line.split()[0]} if line.split()[1] == "selector" else set()
    rest = (key for key, below in members.items() if key not in done and _has_rules(below))
    return (*steps, *(_follow(key, members[key]) for key in rest))


def _follow(key: str, name: str, at: str | None = None, when: str = "", *, always: bool = False) -> Step:
    applies = condition(when) if when else None

    def step(place: ValuePlace, errors: list[FieldError]) -> None:
        if applies is not None and not applies(place):
            return
        value, before = place.value.get(key), (place.before or {}).get(key)
        if value == before and before is not None:
            return  # it was valid when it was stored
        path = named(place, f"{place.path}.{key}" if place.path else key, at)
        if isinstance(value, list):
            for index, item in enumerate(value):
                _check(name, ValuePlace(item, None, f"{path}[{index}]", place), errors)
        elif value is not None or always:
            _check(name, ValuePlace(value or {}, before, path, place), errors)

    return step


def _follow_one(keys: list[str], members: dict[str, str], message: str) -> Step:
    """Return the step that checks the first member that is set, and refuses the others."""

    def step(place: ValuePlace, errors: list[FieldError]) -> None:
        found = [key for key in keys if place.value.get(key) is not None]
        for key in found[:1]:
            _follow(key, members[key])(place, errors)
        errors += (FieldError.forbidden(f"{place.path}.{key}", message) for key in found[1:])

    return step


def _selector(rule: FieldRule, place: ValuePlace, value: Any, path: str) -> Findings:
    """Check the selector of a workload: it must be valid, and match the labels of the template."""
    labels = getter("template.metadata.labels")(place)
    if value is None and rule.arguments != ("daemonset",):
        yield FieldError.required(path)
    elif value == {} and rule.arguments:
        yield FieldError.invalid(path, {}, f"empty selector is invalid for {rule.arguments[0]}")
        return
    if problems := violations("meta.v1.LabelSelector", value or {}, None, path):
        yield from problems
        yield rule.invalid(place, value, path)
    elif not selects(value or {}, labels or {}):
        where = f"{place.path}.template.metadata.labels"
        yield FieldError.invalid(where, labels, "`selector` does not match template `labels`")


_CHECKS: dict[str, Check] = {**CHECKS, "selector": _selector}
