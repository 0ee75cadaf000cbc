"""Compare what two servers answered, and show it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from tests.conformance.api import normalize, ranked_versions
from tests.conformance.differential.player import Entry, Step

_WIDTH = 74
_ECHO = re.compile(r'(patch: Invalid value: |^Invalid value: )"\{.*\}"', re.DOTALL)
"""A document in a complaint about it, whose members each server writes in an order of its own."""
_UNDECLARED = re.compile(r"(failed to create typed patch object \(.*?\): ).*field not declared in schema.*", re.DOTALL)
_PRECONDITION = re.compile(r"(ResourceVersion in (?:the )?(?:precondition|record) \()(\d+)(\))")


def normalized(answers: Sequence[Entry], ns: str) -> list[Entry]:
    """Return answers with what two servers cannot share replaced."""
    ranks, uids = ranked_versions(answers), dict[str, str]()
    return [_settled(normalize(entry, ranks, uids, owners=True), ranks, ns) for entry in answers]


def _settled(value: Any, ranks: Mapping[str, str], ns: str) -> Any:
    if isinstance(value, str):
        text = _PRECONDITION.sub(lambda found: f"{found[1]}{ranks.get(found[2], found[2])}{found[3]}", value)
        return re.sub(rf"\b{re.escape(ns)}\b", "<ns>", _left_out(text))
    if isinstance(value, list):
        return [_settled(item, ranks, ns) for item in value]
    if isinstance(value, dict):
        value = _once(value)
        return {
            _settled(key, ranks, ns): _managers(item) if key == "managedFields" else _settled(item, ranks, ns)
            for key, item in value.items()
        }
    return value


def _once(body: dict[str, Any]) -> dict[str, Any]:
    """Return a Status of several findings or conflicts with each of them once, in an order of its own."""
    causes = body["details"].get("causes") or [] if isinstance(body.get("details"), dict) else []
    if body.get("reason") not in ("Invalid", "Conflict") or len(causes) < 2:
        return body
    found = sorted({json.dumps(cause, sort_keys=True) for cause in causes})
    if body["reason"] == "Conflict":
        return {**body, "details": {**body["details"], "causes": [json.loads(text) for text in found]}}
    message = body["message"].partition(" is invalid: ")[0]
    return {**body, "message": message, "details": {**body["details"], "causes": [json.loads(text) for text in found]}}


def _left_out(text: str) -> str:
    text = _UNDECLARED.sub(r"\1undeclared fields", _ECHO.sub(r"\1<document>", text))
    first, several, rest = text.partition("errors:\n")
    return f"{first}{several}" + "\n".join(sorted(rest.splitlines()))


def _managers(entries: Any) -> Any:
    """Return managedFields without the entries of the player, who is no part of the sequence."""
    if not isinstance(entries, list):
        return entries
    return [entry for entry in entries if not isinstance(entry, dict) or entry.get("manager") != "garbage-collector"]


# to show


def first_difference(one: Sequence[Entry], other: Sequence[Entry]) -> int | None:
    """Return the index of the first step whose responses differ, None when all agree."""
    return next((index for index, (a, b) in enumerate(zip_longest(one, other)) if a != b), None)


def comparison(steps: Sequence[Step], embedded: Sequence[Entry], real: Sequence[Entry]) -> str:
    """Return the sequence in lines, with both answers side by side where they differ."""
    lines = ["the embedded server and the real one disagree:"]
    for index, step in enumerate(steps):
        mine, theirs = _entry(embedded, index), _entry(real, index)
        agreed = mine == theirs
        lines.append(f"{' ' if agreed else '>'} {index:2} {said(step)}")
        if agreed:
            lines.append(f"       both: {_short(mine)}")
        else:
            lines.extend(f"     {line}" for line in _columns(mine, theirs))
    return "\n".join(lines)


def said(step: Step) -> str:
    """Return a step in one line, and its body in a second."""
    if "watch" in step:
        return f"WATCH {step['watch']}{_query(step)}"
    line = f"{step['method']} {step['path']}{_query(step)}"
    notes = [f"as {step['type']}"] if "type" in step else []
    if "base" in step:
        notes.append(f"the last {step['base']} with")
    if "accept" in step:
        notes.append(f"accept {step['accept']}")
    if "text" in step:
        notes.append(repr(step["text"]))
    elif "body" in step:
        notes.append(json.dumps(step["body"], ensure_ascii=False))
    return f"{line} {' '.join(notes)}" if notes else line


def _query(step: Step) -> str:
    return "?" + "&".join(f"{key}={value}" for key, value in step["query"].items()) if step.get("query") else ""


def _entry(entries: Sequence[Entry], index: int) -> Entry:
    return entries[index] if index < len(entries) else {}


def _short(entry: Entry) -> str:
    if "events" in entry:
        kinds = [event["type"] if isinstance(event, dict) else event for event in entry["events"]]
        return f"{entry['status']} {' '.join(kinds)}"
    body = entry.get("body")
    if isinstance(body, dict) and body.get("kind") == "Status":
        return f"{entry['status']} {body.get('message') or body.get('status')}"
    return f"{entry.get('status')}"


def _columns(embedded: Entry, real: Entry) -> Iterator[str]:
    yield f"  {'embedded':{_WIDTH}} | real"
    if embedded.get("status") != real.get("status"):
        # One of them went another way: the rest has nothing to do with one another.
        embedded, real = _outlined(embedded), _outlined(real)
    rows = list(_aligned(_pretty(embedded), _pretty(real)))
    shown = {near for at, (a, b) in enumerate(rows) if a != b for near in range(at - 3, at + 4)}
    skipped = False
    for at, (a, b) in enumerate(rows):
        if at not in shown:
            if not skipped:
                yield "  …"
            skipped = True
            continue
        skipped = False
        mark = " " if a == b else "≠"
        for left, right in zip_longest(_folded(a), _folded(b), fillvalue=""):
            yield f"{mark} {left:{_WIDTH}} | {right}"


def _outlined(entry: Entry) -> Entry:
    body = entry.get("body")
    if not isinstance(body, dict) or "events" in entry:
        return entry
    return {**entry, "body": body if body.get("kind") == "Status" else {key: body.get(key) for key in ("kind", "spec")}}


def _aligned(one: list[str], other: list[str]) -> Iterator[tuple[str, str]]:
    from difflib import SequenceMatcher

    for _, i, j, k, m in SequenceMatcher(None, one, other, autojunk=False).get_opcodes():
        yield from zip_longest(one[i:j], other[k:m], fillvalue="")


def _pretty(entry: Entry) -> list[str]:
    return json.dumps(entry, indent=1, sort_keys=True, ensure_ascii=False).splitlines()


def _folded(line: str) -> list[str]:
    return [line[at : at + _WIDTH] for at in range(0, len(line), _WIDTH)] or [""]
