"""The command ``reconciler recording to-test``: a pytest file that replays a part of a recording."""

from __future__ import annotations

import keyword
import re
from collections.abc import Sequence
from pathlib import Path

from reconciler.cli.output import write_files
from reconciler.cli.recording.replay import load_operator
from reconciler.cli.recording.selection import Selection
from reconciler.errors import ConfigurationError
from reconciler.recording.records import ReconcileRecord
from reconciler.recording.segments import write_recording
from reconciler.testing.replaying import Replay, replay_record

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
    found = [replay_record(record, operator, kinds) for record in records]
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
        assertions.append(f"        assert replayed.error is None, replayed  # recorded: {failure.type}")
    if any(len(each.status_writes) > 1 for each in found):
        most = max(len(each.status_writes) for each in found)
        assertions.append(f"        assert len(replayed.status_writes) <= 1, replayed  # recorded: {most}")
    if not assertions:
        assertions.append("        assert not replayed.differences, replayed  # state here what you expect instead")
    return _TEST.format(
        object=subject,
        day=f"{records[0].started:%Y-%m-%d}",
        imports="\n".join((own, library) if together else (library, own)),
        name=stem if not keyword.iskeyword(stem) else f"{stem}_",
        operator=operator,
        assertions="\n".join(assertions),
    )


def _problems(found: Replay) -> list[str]:
    problems = [] if found.error is None else [f"it ends with {found.error}"]
    if len(found.status_writes) > 1:
        problems.append(f"it writes the status {len(found.status_writes)} times")
    return problems


def _identifier(name: str) -> str:
    return re.sub(r"\W+", "_", name)
