"""The commands that bring recorded reconciles home: ``recording fetch``, ``replay``, and ``recording to-test``."""

from __future__ import annotations

import keyword
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from reconciler.cli.endpoint import EndpointError, printable, read_debug
from reconciler.cli.options import AccessFlags
from reconciler.cli.output import print_json, write_files
from reconciler.cli.recording.show import Selection
from reconciler.cli.targets import load_target
from reconciler.errors import ConfigurationError
from reconciler.recording.recording import SUFFIX, write_recording
from reconciler.recording.records import ReconcileRecord
from reconciler.testing.replaying import Replay, replay_records

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
    try:
        names = msgspec.json.decode(read_debug(endpoint, access, _PATH), type=list[str])
    except msgspec.MsgspecError as error:
        raise EndpointError(f"--endpoint {endpoint}: the response is not that of an operator") from error
    if any(not name.endswith(SUFFIX) or "/" in name or "\\" in name for name in names):
        raise EndpointError(f"--endpoint {endpoint}: the response is not that of an operator")
    size = 0
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise ConfigurationError(f"{directory} is not empty: choose another directory")
        for name in names:
            data = read_debug(endpoint, access, _PATH, segment=name)
            path = directory / name
            path.touch(mode=0o600)
            size += path.write_bytes(data)
    except OSError as error:
        raise ConfigurationError(f"cannot write to {directory}: {error.strerror}") from error
    print(f"{len(names)} segments, {size:,} bytes, in {directory}")
    return 0


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
    for each in replay_records(records, operator, kinds):
        replays.append(each)
        if not as_json:
            print("\n".join(printable(_lines(each))), flush=True)
    differ = sum(bool(each.differences) for each in replays)
    if as_json:
        print_json([_document(each) for each in replays])
    else:
        for problem in problems:
            print(problem)
        if len(replays) < len(records):
            print(f"{len(records) - len(replays)} reconciles of other controllers were not replayed")
        if len(replays) > 1:
            print(f"\n{len(replays)} reconciles: {len(replays) - differ} the same, {differ} different")
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
