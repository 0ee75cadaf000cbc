"""The commands about recordings: ``recording show``, ``recording fetch``, ``recording to-test`` and ``replay``."""

from __future__ import annotations

import contextlib
import keyword
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from reconciler._core.wire import UNDECODABLE
from reconciler.apiserver.state import private_file
from reconciler.cache import CachedObject, CacheEvent, EventType
from reconciler.cache.decoding import WireReader
from reconciler.cli.endpoint import EndpointError, PathNotServed, printable, read_debug
from reconciler.cli.explain import by_text, change_lines, field_text, result_text
from reconciler.cli.options import AccessFlags
from reconciler.cli.output import print_json, write_files
from reconciler.cli.progress import Progress
from reconciler.cli.targets import load_target
from reconciler.controller.wake.change import FieldChange, ObjectChange
from reconciler.controller.wake.reasons import because
from reconciler.errors import ConfigurationError
from reconciler.manager.endpoints.keys import ChangeReport, KeyReport, RunReport, change_report
from reconciler.meta import GroupVersionKind, Request
from reconciler.meta.documents import human_duration
from reconciler.meta.metadata import gvk_of
from reconciler.recording.recording import SUFFIX, RecordingReader, ServedKind, write_recording
from reconciler.recording.records import EffectStep, LogStep, ReadStep, ReconcileRecord, RequestStep, WakeUp
from reconciler.testing.replaying import Replay, replay_records


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
            raise ConfigurationError("; ".join([f"{recording} contains no reconciles", *reader.problems]))
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


_MAX_VALUE = 100


class RecordedWrite(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A write of a recorded reconcile, and the fields that it changed; those of others name their managers."""

    method: str
    path: str
    status: int
    error: str = ""
    fields: tuple[FieldChange, ...] = ()
    fields_left_out: int = 0


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
    known: dict[tuple[str, Request], CachedObject] = {}
    for record in records:
        written = []
        for version in (version for each in record.wake_ups for version in each.versions):
            if (told := _cached(version.data, version.kind)) is not None:
                known[version.kind, version.request] = told
        for step in record.steps:
            if isinstance(step, ReadStep) and (read := _cached(step.data, step.kind)) is not None:
                known[step.kind, step.request] = read
            elif isinstance(step, RequestStep) and step.is_write:
                written.append(_write(step, known, record.started))
        steps = record.steps
        yield RecordReport(
            kind=record.kind,
            namespace=record.namespace,
            name=record.name,
            controller=record.controller,
            started=record.started,
            seconds=record.seconds,
            reasons=record.reasons,
            changes=tuple(map(_change, record.wake_ups)),
            result=record.result,
            requeue_after_seconds=record.requeue_after,
            writes=len(written),
            echoes_dropped=0,
            status_written=any(each.path.endswith("/status") and each.status < 300 for each in written),
            changed_meanwhile=record.overtaken,
            reconcile_id=record.id,
            error=record.failure,
            reads=sum(not isinstance(step, (LogStep, EffectStep)) for step in steps) - len(written),
            written=tuple(written),
            effects=tuple(_effect(step) for step in steps if isinstance(step, EffectStep)),
            logs=tuple(f"{step.level} {step.message}" for step in steps if isinstance(step, LogStep)),
        )


def _cached(data: bytes, kind: str) -> CachedObject | None:
    """Return a document of a kind as a cache has it; None if it is not an object."""
    try:
        found = WireReader(GroupVersionKind.parse(kind)).read(data)
    except (ValueError, *UNDECODABLE):
        return None
    return found if found is not None and found.problem is None else None


def _kind_in(response: bytes) -> str:
    try:
        return str(gvk_of(msgspec.json.decode(response, type=dict[str, Any])))
    except (ValueError, *UNDECODABLE):
        return ""


def _change(wake_up: WakeUp) -> ChangeReport:
    versions = [_cached(each.data, each.kind) for each in wake_up.versions]
    if len(versions) == 2 and versions[0] is not None and versions[1] is not None:
        gvk, managed = GroupVersionKind.parse(wake_up.kind), wake_up.managed_fields or b"null"
        return _update(gvk, versions[0], versions[1], b'{"metadata":{"managedFields":' + managed + b"}}", wake_up.at)
    return ChangeReport(
        at=wake_up.at,
        type=wake_up.type,
        kind=wake_up.kind.rpartition("/")[2],
        namespace=wake_up.namespace,
        name=wake_up.name,
        version=wake_up.version,
        managers=wake_up.managers,
        fields=(),
    )


def _update(gvk: GroupVersionKind, old: CachedObject, new: CachedObject, received: bytes, at: datetime) -> ChangeReport:
    event = CacheEvent(EventType.UPDATED, old, new, received=msgspec.Raw(received))
    return change_report(ObjectChange.of(gvk, event, at))


def _write(step: RequestStep, known: dict[tuple[str, Request], CachedObject], at: datetime) -> RecordedWrite:
    """Return a write, and in which fields the response differs from the version that the reconcile knew."""
    written = RecordedWrite(method=step.method, path=step.path, status=step.status, error=step.error)
    kind = _kind_in(step.response) if 200 <= step.status < 300 else ""
    after = _cached(step.response, kind)
    if after is None:
        return written
    gvk = GroupVersionKind.parse(kind)
    metadata = {"name": after.name, "namespace": after.namespace}
    empty = msgspec.json.encode({"apiVersion": gvk.api_version, "kind": gvk.kind, "metadata": metadata})
    before = known.get((kind, after.request)) or msgspec.structs.replace(after, data=empty)
    known[kind, after.request] = after
    change = _update(gvk, before, after, step.response, at)
    own = dict(parse_qsl(step.target.partition("?")[2])).get("fieldManager")
    written.fields = tuple(
        msgspec.structs.replace(field, managers=()) if own is None or own in field.managers else field
        for field in change.fields
    )
    written.fields_left_out = change.fields_left_out
    return written


def _value(value: object) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _MAX_VALUE else f"{text[: _MAX_VALUE - 1]}…"


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
        yield from change_lines(run.changes)
        for write in run.written:
            yield f"    {write.method} {write.path}: {write.error.rpartition(':')[2] or write.status}"
            yield from (f"      {each.path}{field_text(each)}{by_text(each.managers)}" for each in write.fields)
            if write.fields_left_out:
                yield f"      and {write.fields_left_out} more fields"
        yield from (f"    called {each}" for each in run.effects)
        yield from (f"    logged {each}" for each in run.logs)
        if run.error is not None:
            yield f"    {run.error.type}: {run.error.message}"
            yield from (f"      {frame}" for frame in run.error.traceback)


def _write_html(path: Path, reports: Sequence[RecordReport]) -> None:
    """Write the timelines of the objects as one page, drawn as the console draws them."""
    from reconciler.manager.console.html import recorded_page

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
        with private_file(path) as file:
            file.write(recorded_page(pages).encode())
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror}") from error


_PATH = "/debug/recording"


def fetch_recording(endpoint: str, access: AccessFlags, directory: Path) -> int:
    """Copy the segments of an operator's recording to a directory, whose files only their owner can read.

    Args:
        endpoint: the operator's.
        access: the token to send, and which certificates to trust.
        directory: a new or an empty directory.

    Raises:
        ConfigurationError: the directory is in use, or cannot be written.
        EndpointError: the operator cannot be asked, does not record, or refuses.
    """
    progress = Progress()
    progress.phase("copying the recording")
    try:
        names = msgspec.json.decode(read_debug(endpoint, access, _PATH), type=list[str])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        names = [""]
    if not all(map(_is_segment, names)):
        raise EndpointError(f"--endpoint {endpoint}: the response is not that of an operator")
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(not each.name.endswith(_PART) for each in directory.iterdir()):
            raise ConfigurationError(f"{directory} is not empty: choose another directory")
        with contextlib.ExitStack() as undo:
            copies = [_Copy(directory / f"{name}{_PART}", progress) for name in names]
            for copy in copies:
                undo.callback(copy.path.unlink, missing_ok=True)
            undo.callback(progress.close)
            for name, copy in zip(names, copies, strict=True):
                copy.fetch(endpoint, access, name, sum(each.size for each in copies))
            found = [copy for copy in copies if copy.path.exists()]
            for copy in found:
                copy.path.rename(copy.path.with_suffix(""))
    except OSError as error:
        raise ConfigurationError(f"cannot write to {directory}: {error.strerror}") from error
    print(f"{len(found)} segments, {sum(each.size for each in found):,} bytes, in {directory}")
    return 0


_PART = ".part"
_MAX_BYTES = 2**34
"""Bytes of a recording that is copied; the operator's own bound, 500 MB by default, should be far below."""

_is_segment = re.compile(rf"[0-9]{{8,20}}{re.escape(SUFFIX)}").fullmatch


class _Copy:
    """The copy of a segment; it has another name until all are complete."""

    def __init__(self, path: Path, progress: Progress) -> None:
        self.path = path
        self.size = 0
        self._progress = progress

    def fetch(self, endpoint: str, access: AccessFlags, name: str, before: int) -> None:
        """Copy a segment, unless the operator has dropped it in the meantime; `before` bytes are of other segments."""

        def write(chunk: bytes) -> None:
            self.size += len(chunk)
            if before + self.size > _MAX_BYTES:
                raise EndpointError(f"--endpoint {endpoint}: the recording has more than {_MAX_BYTES:,} bytes")
            try:
                file.write(chunk)
            except OSError as error:  # which is not one of the connection
                raise ConfigurationError(f"cannot write {self.path}: {error.strerror}") from error
            self._progress.update(f"{before + self.size:,} bytes")

        try:
            with private_file(self.path) as file:
                read_debug(endpoint, access, _PATH, sink=write, segment=name)
        except PathNotServed:
            self.path.unlink()


_MAX_DIFFERENCES = 5


def replay_recording(recording: Path, selection: Selection, target: str, *, as_json: bool) -> int:
    """Replay reconciles and print whether they do the same; return 1 if one differs.

    Args:
        recording: the directory, or a segment.
        selection: which reconciles.
        target: MODULE:ATTR as for ``reconciler run``, or ``notification``.
        as_json: print JSON.

    Raises:
        ConfigurationError: it is not a recording, nothing in it is meant, or the operator has no such controller.
        MissingExtra: looptime is not installed.
    """
    records, kinds, problems = selection.read(recording)
    operator = load_operator(target)
    replays: list[Replay] = []
    left, interrupt = "of other controllers", None
    try:
        with Progress() as progress:
            progress.phase(f"replaying {len(records)} reconciles")
            for each in replay_records(records, operator, kinds):
                replays.append(each)
                if not as_json:
                    progress.close()
                    print("\n".join(printable(_lines(each))), flush=True)
                progress.update(f"{len(replays)} replayed")
    except KeyboardInterrupt as error:
        left, interrupt = "after the interrupt", error
    differ = sum(bool(each.differences) for each in replays)
    if as_json:
        print_json([_document(each) for each in replays])
    else:
        for problem in problems:
            print(problem)
        if len(replays) < len(records):
            print(f"{len(records) - len(replays)} reconciles {left} were not replayed")
        if len(replays) > 1:
            print(f"\n{len(replays)} reconciles: {len(replays) - differ} the same, {differ} different")
    if interrupt is not None:
        raise interrupt
    return 1 if differ else 0


def load_operator(target: str) -> Any:
    """Return what `reconciler.testing.replay` takes: a reconciler, its class, or a function that takes the manager.

    Raises:
        ConfigurationError: the target does not exist, or is something else.
    """
    if target == "notification":
        from reconciler.cli.run import notification_setup

        return notification_setup()
    return load_target(target)


def _lines(found: Replay) -> list[str]:
    if not found.differences:
        lines = [f"{found}: same writes, same outcome"]
    else:
        first, *others = found.differences
        lines = [f"{found}: different", f"  first difference: {first}"]
        lines += [f"  then: {each}" for each in others[:_MAX_DIFFERENCES]]
        if len(others) > _MAX_DIFFERENCES:
            lines.append(f"  and {len(others) - _MAX_DIFFERENCES} more")
    return [*lines, *(f"  cannot be replayed: {each}, whose result is not recorded" for each in found.unreproducible)]


def _document(found: Replay) -> dict[str, object]:
    recorded = found.recorded
    return {
        "reconcile_id": recorded.id,
        "kind": recorded.kind,
        "namespace": recorded.namespace,
        "name": recorded.name,
        "started": recorded.started,
        "same": not found.differences,
        "differences": found.differences,
        "unreproducible": found.unreproducible,
        "error": found.error,
        "writes": [{"method": each.method, "path": each.path, "body": _body(each.body)} for each in found.writes],
    }


def _body(body: bytes) -> object:
    try:
        return msgspec.json.decode(body) if body else None
    except msgspec.DecodeError:
        return body.decode(errors="replace")


def check_choice(selection: Selection, *, everything: bool) -> None:
    """Raise unless the options say which reconciles to replay.

    Raises:
        ConfigurationError: neither an id, an object nor --all was given.
    """
    if not everything and selection == Selection():
        raise ConfigurationError("say what to replay: --reconcile ID, --object KIND NAMESPACE/NAME, or --all")


_TEST = '''"""Replays what was recorded of {object} on {day}."""

from pathlib import Path

{imports}

RECORDING = Path(__file__).with_suffix(".segment")


def {name}() -> None:
    for replayed in replay(RECORDING, {operator}):
{assertions}
'''


def write_test(recording: Path, selection: Selection, target: str, output: Path | None) -> int:
    """Write a test, and beside it the part of the recording that it needs.

    Args:
        recording: the directory, or a segment.
        selection: which reconciles.
        target: MODULE:ATTR of the reconciler, or of the function that adds the controllers.
        output: the test file. Default: ``test_NAME.py`` in the current directory.

    Raises:
        ConfigurationError: nothing in the recording is meant, it is of several objects, the operator has no such
            controller, or the files exist or cannot be written.
    """
    records, kinds, _ = selection.read(recording)
    objects = list(dict.fromkeys(f"{each.kind.rpartition('/')[2]} {each.request}" for each in records))
    if len(objects) > 1:
        raise ConfigurationError(
            f"the test would be of {len(objects)} objects, such as {objects[0]} and {objects[1]}: choose one with "
            "--object, or one reconcile with --reconcile"
        )
    operator = load_operator(target)
    found = list(replay_records(records, operator, kinds))
    output = output or Path(f"test_{_identifier(records[0].name)}.py")
    if output.suffix != ".py" or not output.stem.startswith("test_"):
        raise ConfigurationError(f"--output {output}: pytest finds files that are called test_NAME.py")
    data = output.with_suffix(".segment")
    if data.exists() or output.exists():
        raise ConfigurationError(f"{data if data.exists() else output} exists already: choose another --output")
    write_files(output.parent, {output.name: _text(objects[0], output.stem, target, records, found)}, mode=0o644)
    write_recording(data, records, list(kinds.values()))
    failing = [each for each in found if _problems(each)]
    print(f"wrote {output} and {data}")
    if failing:
        print(f"the test fails now, in {len(failing)} of {len(found)} reconciles: {'; '.join(_problems(failing[0]))}")
    else:
        print(f"nothing failed in what was recorded: state in {output} what you expect")
    return 0


def _text(subject: str, stem: str, target: str, records: Sequence[ReconcileRecord], found: Sequence[Replay]) -> str:
    if target == "notification":
        operator = "NotificationReconciler(channels=[])"
        own = "from reconciler.notification import NotificationReconciler"
    else:
        module, _, attribute = target.partition(":")
        operator = attribute
        own = f"from {module} import {attribute.partition('.')[0]}"
    library = "from reconciler.testing import replay"
    together = own.startswith("from reconciler.") or own < library
    assertions = []
    if any(each.recorded.failure is not None for each in found):
        failure = next(each.recorded.failure for each in found if each.recorded.failure is not None)
        assertions.append(f"        assert replayed.error is None, replayed  # recorded: {_quiet(failure.type)}")
    if any(len(each.status_writes) > 1 for each in found):
        most = max(len(each.status_writes) for each in found)
        assertions.append(f"        assert len(replayed.status_writes) <= 1, replayed  # recorded: {most}")
    if not assertions:
        assertions.append("        assert not replayed.differences, replayed  # state here what you expect instead")
    return _TEST.format(
        object=_quiet(subject),
        day=f"{records[0].started:%Y-%m-%d}",
        imports="\n".join((own, library) if together else (library, own)),
        name=stem if not keyword.iskeyword(stem) else f"{stem}_",
        operator=operator,
        assertions="\n".join(assertions),
    )


def _quiet(text: str) -> str:
    """Return text of the recording that ends neither a comment nor a docstring."""
    return re.sub(r"[^\w ./:-]", "?", text)


def _problems(found: Replay) -> list[str]:
    problems = [] if found.error is None else [f"it ends with {found.error}"]
    if len(found.status_writes) > 1:
        problems.append(f"it writes the status {len(found.status_writes)} times")
    return problems


def _identifier(name: str) -> str:
    return re.sub(r"\W+", "_", name)
