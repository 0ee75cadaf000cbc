"""The commands ``reconciler routes test``, the receivers that a notification reaches, and ``reconciler audit``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec.json
import yaml

from reconciler._core.wire import JSONObject
from reconciler.cli.output import print_json
from reconciler.errors import ConfigurationError
from reconciler.notification import NotificationRequest
from reconciler.notification.audit import AuditLine, read_chain
from reconciler.notification.channels.services import RECEIVER_KINDS
from reconciler.notification.redaction import one_line, visible
from reconciler.notification.router import attributes_of
from reconciler.notification.routing_config import RoutingConfig, read_routing


def print_routes(file: Path, attributes: Sequence[str], *, request: Path | None, as_json: bool) -> int:
    """Print the receivers and channels that a notification reaches.

    Raises:
        ConfigurationError: a file is invalid; the message lists every mistake.
    """
    config = _read_config(file)
    given = {**(_attributes_of(request) if request is not None else {}), **_parse_attributes(attributes)}
    receivers = config.route.receivers(given)
    channels = tuple(dict.fromkeys(name for each in receivers for name in config.receivers[each].channel_names))
    if as_json:
        answer = {"attributes": given, "receivers": receivers, "channels": channels}
        print_json(answer)
        return 0
    for name in receivers:
        reached = ", ".join(config.receivers[name].channel_names) or "no channels: nobody would be notified"
        sys.stdout.write(f"{name}: {reached}\n")
    return 0


def _read_config(file: Path) -> RoutingConfig:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"cannot read {file}: {reason}") from error
    return read_routing(text, name=str(file), kinds=RECEIVER_KINDS)


def _parse_attributes(attributes: Sequence[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in attributes:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise ConfigurationError(f"{text!r} is not a valid attribute: write NAME=VALUE, such as priority=Critical")
        pairs[name] = value
    return pairs


def _attributes_of(file: Path) -> dict[str, str]:
    """Return the attributes of a NotificationRequest in a file."""
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
        request = NotificationRequest.from_dict(document)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError, yaml.YAMLError) as error:
        raise ConfigurationError(f"--request {file}: not a valid NotificationRequest: {error}") from error
    return attributes_of(request)


_COLUMNS = ("TIME", "REQUEST", "WHO", "RESULT", "WHAT", "SENDER", "INCIDENT")


def print_audit(
    file: Path,
    *,
    request: str | None,
    namespace: str | None,
    as_json: bool,
    expect: str | None = None,
    key_file: Path | None = None,
) -> int:
    """Print the records of an audit file, and check its hash chain; return 1 if the chain is broken.

    Args:
        file: the file, or ``-`` for standard input.
        request: name of a request, or ``NAMESPACE/NAME``; None for all.
        namespace: namespace of the requests; None for all.
        as_json: whether to print the records as they are, one a line.
        expect: a hash that an earlier last line had, and that a line must have; None for any.
        key_file: the file with the key of the chain; None if it has none.

    Raises:
        ConfigurationError: the file cannot be read.
    """
    if request is not None and "/" in request:
        namespace, _, request = request.partition("/")
    problems: list[AuditLine] = []
    rows: list[tuple[str, ...]] = []
    last, is_expected = "", expect is None
    for line in read_chain(_lines(file), b"".join(_lines(key_file)).strip() if key_file is not None else b""):
        last = line.hash
        is_expected = is_expected or expect == line.hash or (line.number == 1 and expect == line.record.get("previous"))
        if line.problem:
            problems.append(line)
        record = line.record
        wanted = {"name": request, "namespace": namespace}
        if not record or any(value is not None and record.get(key) != value for key, value in wanted.items()):
            continue
        if as_json:
            sys.stdout.write(msgspec.json.encode(record).decode() + "\n")
        elif record.get("event") in ("notification.attempted", "notification.finished"):
            rows.append(_row(record))
    if not as_json:
        _print(rows)
    for problem in problems:
        print(f"reconciler: {file}: line {problem.number} {problem.problem}", file=sys.stderr)
    if not is_expected:
        text = "no line has the expected hash: lines were removed from the end, or written anew"
        print(f"reconciler: {file}: {text}", file=sys.stderr)
    elif not problems and last:
        print(f"reconciler: {file}: the chain is complete; hash of the last line: {last}", file=sys.stderr)
    return 1 if problems or not is_expected else 0


def _lines(file: Path) -> Iterator[bytes]:
    try:
        if str(file) == "-":
            yield from sys.stdin.buffer
            return
        with file.open("rb") as stream:
            yield from stream
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror or error}") from error


def _row(record: JSONObject) -> tuple[str, ...]:
    def text(name: str) -> str:
        return visible(one_line(str(record.get(name, ""))))

    who, result = text("channel"), text("result")
    if record.get("recipients"):
        who += " to " + ", ".join(visible(one_line(str(each))) for each in record["recipients"])
    if record["event"] == "notification.finished":
        who, result = "(finished)", " ".join(dict.fromkeys((text("phase"), text("reason"))))
    elif record.get("error"):
        result += f": {text('error')[:60]}"
    incident = f"{text('incident')} {text('action')}".strip()
    return text("time"), f"{text('namespace')}/{text('name')}", who, result, text("subject"), text("sender"), incident


def _print(rows: list[tuple[str, ...]]) -> None:
    table = [_COLUMNS, *rows]
    shown = [index for index in range(len(_COLUMNS)) if index < 5 or any(row[index] for row in rows)]
    widths = {index: max(len(row[index]) for row in table) for index in shown}
    for row in table:
        sys.stdout.write("   ".join(row[index].ljust(widths[index]) for index in shown).rstrip() + "\n")
