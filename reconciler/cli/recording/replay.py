"""The command ``reconciler replay``: recorded reconciles run again on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from reconciler.cli.output import print_json
from reconciler.cli.recording.selection import Selection
from reconciler.cli.targets import load_target
from reconciler.errors import ConfigurationError
from reconciler.testing.replaying import Replay, replay_record

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
    for record in records:
        replays.append(replay_record(record, operator, kinds))
        if not as_json:
            print("\n".join(_lines(replays[-1])), flush=True)
    differ = sum(bool(each.differences) for each in replays)
    if as_json:
        print_json([_document(each) for each in replays])
    else:
        for problem in problems:
            print(problem)
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
