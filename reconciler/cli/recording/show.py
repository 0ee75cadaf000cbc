"""The command ``reconciler recording show``: the timeline of an object, and which reconcile wrote which field."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any

import msgspec

from reconciler._core.wire import UNDECODABLE, JSONObject
from reconciler.cli.endpoint import printable
from reconciler.cli.explain import field_text, result_text
from reconciler.cli.output import print_json
from reconciler.controller.wake.change import differences, format_fields
from reconciler.controller.wake.reasons import because
from reconciler.errors import ConfigurationError, MissingExtra
from reconciler.manager.endpoints.keys import ChangeReport, ErrorReport, FieldReport, KeyReport, RunReport
from reconciler.meta import Request
from reconciler.meta.documents import human_duration
from reconciler.recording.recording import RecordingReader, ServedKind
from reconciler.recording.records import EffectStep, LogStep, ReadStep, ReconcileRecord, RequestStep


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which reconciles of a recording are meant.

    Attributes:
        kind: the kind of the object, in any case, or the name of the controller; None for any.
        key: ``NAMESPACE/NAME`` or ``NAME``; None for any.
        since: ``--from``: a time of day, or a date and time, in UTC.
        until: ``--to``, in the same form.
        reconcile: the id of one reconcile, or its beginning.
    """

    kind: str | None = None
    key: str | None = None
    since: str | None = None
    until: str | None = None
    reconcile: str | None = None

    def read(self, recording: Path) -> tuple[list[ReconcileRecord], dict[str, ServedKind], list[str]]:
        """Return the reconciles of a recording, oldest first, the kinds, and what could not be read.

        Raises:
            ConfigurationError: it is not a recording, or nothing in it is meant.
        """
        reader = RecordingReader(recording)
        everything = sorted(reader.records(), key=lambda record: record.started)
        if not everything:
            raise ConfigurationError(f"{recording} contains no reconciles")
        latest = everything[-1].started
        since, until = _moment("--from", self.since, latest), _moment("--to", self.until, latest)
        found = [
            record
            for record in everything
            if self._is_meant(record)
            and (since is None or record.ended >= since)
            and (until is None or record.started <= until)
        ]
        if not found:
            raise ConfigurationError(self._missing(recording, everything))
        return found, reader.kinds, reader.problems

    def _is_meant(self, record: ReconcileRecord) -> bool:
        kind = record.kind.rpartition("/")[2].lower()
        kinds = {kind, f"{kind}s", record.kind.lower(), record.controller.lower()}
        keys = {str(record.request), record.name}
        return (
            (self.kind is None or self.kind.lower() in kinds)
            and (self.key is None or self.key in keys)
            and (self.reconcile is None or record.id.startswith(self.reconcile))
        )

    def _missing(self, recording: Path, everything: list[ReconcileRecord]) -> str:
        if self.reconcile is not None:
            return f"{recording} contains no reconcile whose id begins with {self.reconcile!r}"
        objects = list(dict.fromkeys(f"{each.kind.rpartition('/')[2]} {each.request}" for each in everything))
        span = f"{everything[0].started:%Y-%m-%dT%H:%M:%SZ} to {everything[-1].started:%Y-%m-%dT%H:%M:%SZ}"
        more = f" and {len(objects) - 5} more" if len(objects) > 5 else ""
        return f"{recording} contains no such reconcile; it has {', '.join(objects[:5])}{more}, from {span}"


def _moment(option: str, text: str | None, latest: datetime) -> datetime | None:
    """Return the time of an option; a time of day belongs to the day of the latest reconcile."""
    if text is None:
        return None
    try:
        if ":" in text and "-" not in text:
            return datetime.combine(latest.astimezone(UTC).date(), time.fromisoformat(text), UTC)
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(
            f"{option} {text!r} is not a time: write 03:12, 03:12:30 or 2026-01-31T03:12"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


_MAX_FIELDS = 20
_MAX_VALUE = 100


class RecordedWrite(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A write of a recorded reconcile, and the fields that it changed."""

    method: str
    path: str
    status: int
    error: str = ""
    fields: tuple[FieldReport, ...] = ()


class RecordReport(RunReport, kw_only=True, omit_defaults=True):
    """A recorded reconcile."""

    kind: str
    namespace: str | None = None
    name: str
    controller: str
    reads: int
    written: tuple[RecordedWrite, ...]
    effects: tuple[str, ...] = ()
    logs: tuple[str, ...] = ()


def show_recording(recording: Path, selection: Selection, *, html: Path | None, as_json: bool) -> int:
    """Print the reconciles of an object; without one, the objects of the recording.

    Args:
        recording: the directory, or a segment.
        selection: which reconciles.
        html: write the timeline to this file instead.
        as_json: print JSON.

    Raises:
        ConfigurationError: it is not a recording, nothing in it is meant, or the file cannot be written.
    """
    records, _, problems = selection.read(recording)
    reports = [printable(each) for each in _reports(records)]
    for problem in problems:
        print(f"reconciler: {problem}", file=sys.stderr)
    if html is not None:
        _write_html(html, reports)
    elif as_json:
        print_json(reports)
    elif selection.key is None and selection.reconcile is None:
        print("\n".join(_objects(reports)))
    else:
        print("\n\n".join("\n".join(_object(each)) for each in _by_object(reports).values()))
    return 0


def _reports(records: Sequence[ReconcileRecord]) -> Iterator[RecordReport]:
    known: dict[tuple[str, Request], JSONObject] = {}
    for record in records:
        written = []
        for step in record.steps:
            if isinstance(step, ReadStep) and step.data:
                known[step.kind, step.request] = _decoded(step.data)
            elif isinstance(step, RequestStep) and step.is_write:
                written.append(_write(step, known))
        steps = record.steps
        yield RecordReport(
            kind=record.kind,
            namespace=record.namespace,
            name=record.name,
            controller=record.controller,
            started=record.started,
            seconds=record.seconds,
            reasons=record.reasons,
            changes=tuple(
                ChangeReport(
                    at=each.at,
                    type=each.type,
                    kind=each.kind.rpartition("/")[2],
                    namespace=each.namespace,
                    name=each.name,
                    version=each.version,
                    fields=(),
                )
                for each in record.wake_ups
            ),
            result=record.result,
            requeue_after_seconds=record.requeue_after,
            writes=len(written),
            echoes_dropped=0,
            status_written=any(each.path.endswith("/status") and each.status < 300 for each in written),
            changed_meanwhile=record.overtaken,
            reconcile_id=record.id,
            error=_error(record),
            reads=sum(not isinstance(step, (LogStep, EffectStep)) for step in steps) - len(written),
            written=tuple(written),
            effects=tuple(_effect(step) for step in steps if isinstance(step, EffectStep)),
            logs=tuple(f"{step.level} {step.message}" for step in steps if isinstance(step, LogStep)),
        )


def _decoded(data: bytes) -> JSONObject:
    try:
        found = msgspec.json.decode(data)
    except UNDECODABLE:
        return {}
    return found if isinstance(found, dict) else {}


def _write(step: RequestStep, known: dict[tuple[str, Request], JSONObject]) -> RecordedWrite:
    after = _decoded(step.response)
    fields: tuple[FieldReport, ...] = ()
    metadata = after.get("metadata") or {}
    if 200 <= step.status < 300 and metadata.get("name"):
        key = f"{after.get('apiVersion')}/{after.get('kind')}", Request(metadata["name"], metadata.get("namespace"))
        fields = tuple(_fields(known.get(key, {}), after))
        known[key] = after
    return RecordedWrite(method=step.method, path=step.path, status=step.status, error=step.error, fields=fields)


def _fields(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[FieldReport]:
    for each in list(differences(before, after))[:_MAX_FIELDS]:
        old, new = (None if value is None else _value(value) for value in (each.before, each.after))
        change = "added" if old is None else "removed" if new is None else "changed"
        yield FieldReport(path=format_fields(each.path), change=change, before=old, after=new)


def _value(value: object) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _MAX_VALUE else f"{text[: _MAX_VALUE - 1]}…"


def _error(record: ReconcileRecord) -> ErrorReport | None:
    return None if record.failure is None else ErrorReport(**msgspec.structs.asdict(record.failure))


def _effect(step: EffectStep) -> str:
    if step.error:
        return f"{step.name}({step.key}), which raised {step.error.rpartition(':')[2]}: {step.message}"
    return f"{step.name}({step.key}) → {_value(msgspec.Raw(step.value))}"


def _by_object(reports: Sequence[RecordReport]) -> dict[str, list[RecordReport]]:
    found: dict[str, list[RecordReport]] = {}
    for each in reports:
        title = f"{each.kind} {Request(each.name, each.namespace)}, controller {each.controller}"
        found.setdefault(title, []).append(each)
    return found


def _objects(reports: Sequence[RecordReport]) -> Iterator[str]:
    for title, runs in _by_object(reports).items():
        errors = sum(run.error is not None for run in runs)
        writes = sum(len(run.written) for run in runs)
        yield f"{title}: {_count(runs)}, {errors} failed, {writes} writes, {_span(runs)}"


def _count(runs: Sequence[RecordReport]) -> str:
    return "1 reconcile" if len(runs) == 1 else f"{len(runs)} reconciles"


def _span(runs: Sequence[RecordReport]) -> str:
    first, last = runs[0].started.astimezone(UTC), runs[-1].started.astimezone(UTC)
    return f"from {first:%Y-%m-%dT%H:%M:%SZ} to {last:%H:%M:%SZ}"


def _object(runs: Sequence[RecordReport]) -> Iterator[str]:
    first = runs[0]
    kind, key = first.kind.rpartition("/")[2], Request(first.name, first.namespace)
    yield f"{kind} {key}, controller {first.controller}: {_count(runs)} {_span(runs)}"
    for run in runs:
        started = f"{run.started.astimezone(UTC):%H:%M:%S.%f}"[:-3]
        yield f"  {started}  {run.reconcile_id}"
        yield f"    because {because(run.reasons)}; took {human_duration(run.seconds)} and {result_text(run)}"
        for change in run.changes:
            yield f"    {change.kind} {change} was {change.type}"
        for write in run.written:
            yield f"    {write.method} {write.path}: {write.error.rpartition(':')[2] or write.status}"
            yield from (f"      {field.path}{field_text(field)}" for field in write.fields)
        yield from (f"    called {each}" for each in run.effects)
        yield from (f"    logged {each}" for each in run.logs)
        if run.error is not None:
            yield f"    {run.error.type}: {run.error.message}"
            yield from (f"      {frame}" for frame in run.error.traceback)


def _write_html(path: Path, reports: Sequence[RecordReport]) -> None:
    """Write the timelines of the objects as one page, drawn as the console draws them."""
    try:
        from reconciler.manager.console.recorded import recorded_page
    except ModuleNotFoundError as error:
        raise MissingExtra("htpy", extra="console", purpose="--html") from error
    pages = []
    for title, runs in _by_object(reports).items():
        latest = max(runs, key=lambda run: run.started).started
        key = KeyReport(
            namespace=runs[0].namespace,
            name=runs[0].name,
            state="recorded",
            waits_for="",
            failures=0,
            reconciles_per_minute=0.0,
            cached=True,
            runs=tuple(reversed(runs)),
        )
        pages.append((title, msgspec.to_builtins(key), latest))
    try:
        path.touch()
        path.chmod(0o600)
        path.write_text(recorded_page(pages), encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror}") from error
