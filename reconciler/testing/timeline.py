"""Timelines in the report of a failed test: the requests to its API servers and their effects."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

    from reconciler.testing.control_plane.plane import AuditRecord

_MOST_LINES = 200
_MOST_OBJECTS = 20
_WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})


def sections(
    item: pytest.Item, excinfo: pytest.ExceptionInfo[BaseException], started: float
) -> Iterator[tuple[str, str]]:
    """Yield the title and text of a report section for each API server of a failed test.

    Servers are found among the values of its fixtures and the local variables of the functions in the traceback.

    Args:
        item: the test.
        excinfo: the failure.
        started: when its setup began, in seconds since the epoch.
    """
    seen: set[int] = set()
    for thing in _things(item, excinfo):
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        try:
            found = _section(thing, seen, started)
        except Exception as error:  # noqa: BLE001 - a failure here must not hide the test's
            found = "what happened on the API server", f"unknown: {type(error).__name__}: {error}"
        if found is not None:
            yield found


def _things(item: pytest.Item, excinfo: pytest.ExceptionInfo[BaseException]) -> Iterator[object]:
    values = list(getattr(item, "funcargs", {}).values())
    # A cluster shows its own part of a server, so it precedes the server itself.
    yield from sorted(values, key=lambda value: type(value).__name__ != "Cluster")
    frames = [(entry.name, entry.frame.f_locals) for entry in excinfo.traceback]
    # What failed in its constructor has nothing to show.
    unfinished = {id(variables.get("self")) for name, variables in frames if name == "__init__"}
    for _, variables in frames:
        yield from [value for value in variables.values() if id(value) not in unfinished]


def _section(thing: Any, seen: set[int], started: float) -> tuple[str, str] | None:
    # Looked up, not imported: a test run that uses none of these pays nothing.
    if _is(thing, "reconciler.testing.cluster", "Cluster"):
        seen.add(id(thing.server))
        return _format_section(f"what happened on the {thing.kind} API server", thing.timeline())
    if _is(thing, "reconciler.apiserver", "APIServer"):
        touched = Counter(
            f"{entry.resource}/{entry.name}" + (f" in {entry.namespace}" if entry.namespace else "")
            for entry in thing.log.writes()
        )
        return _format_section("what happened on the embedded API server", thing.log.timeline(), touched)
    if _is(thing, "reconciler.testing.control_plane", "ControlPlane"):
        since = datetime.fromtimestamp(started, UTC)
        records = [record for record in thing.audit() if record.received >= since]
        return _format_section("what happened on the real API server", format_audit_records(records))
    return None


def _is(thing: object, module: str, name: str) -> bool:
    loaded = sys.modules.get(module)
    # Not isinstance: a mock can pretend to be an instance.
    return loaded is not None and issubclass(type(thing), getattr(loaded, name))


def _format_section(title: str, lines: list[str], touched: Counter[str] | None = None) -> tuple[str, str] | None:
    if not lines:
        return None
    head = []
    if touched:
        shown = [f"{name} ({count})" for name, count in touched.most_common(_MOST_OBJECTS)]
        more = f" and {len(touched) - _MOST_OBJECTS} more" if len(touched) > _MOST_OBJECTS else ""
        head = [f"objects by writes: {', '.join(shown)}{more}"]
    return title, "\n".join([*head, *lines])


def format_audit_records(records: Iterable[AuditRecord]) -> list[str]:
    """Return the writes of an audit log, one line each: time, request, user agent, status, and the sent fields."""
    lines = [_format_record(record) for record in records if record.verb in _WRITES]
    left_out = len(lines) - _MOST_LINES
    return lines if left_out <= 0 else [f"({left_out} earlier lines omitted)", *lines[-_MOST_LINES:]]


def _format_record(record: AuditRecord) -> str:
    what = "/".join(part for part in (record.resource, record.name, record.subresource) if part)
    where = f" in {record.namespace}" if record.namespace else ""
    moment = record.received.isoformat(sep=" ", timespec="milliseconds").partition("+")[0]
    sent = " ".join(_pointers(record.request_object)) if record.verb == "patch" else ""
    return f"{moment} {record.verb} {what}{where} by {record.user_agent}: {record.code}" + (
        f", sent {sent}" * bool(sent)
    )


def _pointers(patch: Any, path: str = "") -> list[str]:
    """Return the paths in a merge patch, down to its leaves; names only, no values."""
    if isinstance(patch, list):
        return [str(step.get("path", "")) for step in patch if isinstance(step, dict)] if not path else [path]
    if not isinstance(patch, dict) or not patch:
        return [path] if path else []
    return [pointer for key, value in patch.items() for pointer in _pointers(value, f"{path}/{key}")][:64]
