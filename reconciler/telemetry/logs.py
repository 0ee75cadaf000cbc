"""Log formatters: JSON lines for machines, text lines for people.

Both add the fields of the current reconcile. The library's own records have them in ``extra``; for all other records
they come from the context. Frames of libraries in a traceback are folded.
"""

from __future__ import annotations

import logging
import os
import re
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import msgspec

from reconciler.errors import error_text
from reconciler.meta import Request
from reconciler.meta.cycle import current_cycle

_HERE = str(Path(__file__).resolve().parent.parent) + "/"
_PYTHON = tuple({sysconfig.get_path(name).rstrip("/") + "/" for name in ("stdlib", "platstdlib")})
_INSTALLED = ("/site-packages/", "/dist-packages/")
_FRAME = re.compile(r'(?P<margin>[ |+-]*)File "(?P<file>.*)", line (?P<line>\d+)')


class CodeOrigin(NamedTuple):
    """The owner of a file.

    Attributes:
        owner: ``"reconciler"``, ``"Python"``, the name of an installed package, or ``""`` for code that is not
            installed.
        path: the file's path, short for code that is installed.
    """

    owner: str
    path: str


@lru_cache(1024)
def code_origin(filename: str) -> CodeOrigin:
    """Return where the code in a file comes from."""
    if filename.startswith(_HERE):
        return CodeOrigin("reconciler", "reconciler/" + filename.removeprefix(_HERE))
    for folder in _INSTALLED:
        _, found, rest = filename.rpartition(folder)
        if found:
            return CodeOrigin(rest.partition("/")[0].removesuffix(".py"), rest)
    for folder in _PYTHON:
        if filename.startswith(folder):
            return CodeOrigin("Python", filename.removeprefix(folder))
    return CodeOrigin("Python" if filename.startswith("<frozen ") else "", filename)


def own_frames(filenames: Iterable[str]) -> Sequence[bool]:
    """Return for each frame of a stack, outermost first, whether it is the program's own code.

    Own code is not installed. If all code is installed, as in most images, it is the package of the outermost frame
    that belongs neither to Python nor to this library.
    """
    owners = [code_origin(filename).owner for filename in filenames]
    own = "" if "" in owners else next((each for each in owners if each not in ("Python", "reconciler")), "")
    return [each == own for each in owners]


class _TracebackFrame(NamedTuple):
    """A frame of a formatted traceback: its lines, or a line outside of frames if `file` is empty."""

    margin: str
    file: str
    line: str
    text: list[str]


def fold_traceback(text: str) -> str:
    """Replace successive frames of libraries in a formatted traceback by one line, which names the last of them.

    A traceback without a frame of the program's own code is returned as it is.
    """
    frames = _frames(text)
    flags = iter(own_frames(each.file for each in frames if each.file))
    folded = [bool(each.file) and not next(flags) for each in frames]
    if sum(folded) == sum(bool(each.file) for each in frames):
        return text
    lines: list[str] = []
    for (is_folded, _), group in groupby(zip(folded, frames, strict=True), key=lambda pair: (pair[0], pair[1].margin)):
        run = [frame for _, frame in group]
        lines += [_folded(run)] if is_folded else [line for frame in run for line in frame.text]
    return "\n".join(lines)


def _frames(text: str) -> list[_TracebackFrame]:
    """Split a formatted traceback, or a chain or group of them, into frames and other lines."""
    frames: list[_TracebackFrame] = []
    for line in text.split("\n"):
        found = _FRAME.match(line)
        last = frames[-1] if frames else None
        if found is not None:
            frames.append(_TracebackFrame(found["margin"], found["file"], found["line"], [line]))
        elif last is not None and last.file and line.startswith((last.margin + "  ", last.margin + "[Previous line")):
            last.text.append(line)
        else:
            frames.append(_TracebackFrame("", "", "", [line]))
    return frames


def _folded(frames: list[_TracebackFrame]) -> str:
    places = [code_origin(each.file) for each in frames]
    owners = ", ".join(dict.fromkeys(place.owner for place in places))
    count = f"{len(frames)} frames" if len(frames) > 1 else "1 frame"
    return f"{frames[-1].margin}... {count} of {owners}, the last at {places[-1].path}:{frames[-1].line}"


_STANDARD = frozenset(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {"message", "asctime", "taskName"}
_WIDTHS = len("WARNING"), len("reconciler.controller")
_CYAN, _DIM = "36", "2"
_COLORS = {"DEBUG": _DIM, "WARNING": "33", "ERROR": "31", "CRITICAL": "1;31"}
_FORGED = re.compile(r"(?<=[\n\r])(?=\d{4}-\d\d-\d\dT)")
"""The start of a line that looks like that of a record."""

_IN_BRACKETS = ("controller", "object_namespace", "object_name", "reconcile_id")


class NamedValues:
    """A log message of named values: one line, aligned lines on a terminal, fields in JSON.

    Args:
        title: what they are about.
        values: by name.
    """

    def __init__(self, title: str, values: Mapping[str, str]) -> None:
        self.title = title
        self.values = values

    def __str__(self) -> str:
        return f"{self.title}: " + ", ".join(f"{name} {value}" for name, value in self.values.items())

    def lines(self) -> str:
        """Return the title, and below it a line for each value."""
        width = max(map(len, self.values), default=0)
        return "\n".join([self.title, *(f"  {name:<{width}}  {value}" for name, value in self.values.items())])


class JSONFormatter(logging.Formatter):
    """A formatter that writes a record as one JSON object: time, level, logger, message, and everything in ``extra``.

    During a reconcile it adds ``controller``, ``object_namespace``, ``object_name`` and ``reconcile_id``. The traceback
    of an exception is the field ``exception``. Values that JSON does not support are written as their ``str``.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Format a record as a line of JSON."""
        fields = {
            **_fields(record),
            "time": _stamp(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if isinstance(record.msg, NamedValues):
            fields["facts"] = dict(record.msg.values)
        if exception := _exception(self, record):
            fields["exception"] = exception
        order = ("time", "level", "logger", "message")
        return _encode({name: fields[name] for name in (*order, *(name for name in fields if name not in order))})


class TextFormatter(logging.Formatter):
    """A formatter for people: time, level, logger, reconcile in brackets, message, and the rest of ``extra``.

    ``2026-01-01T00:00:00.000Z INFO  reconciler.controller [database prod/db1 3f2a91c0] reconciled``

    Args:
        aligned: whether level and logger have a fixed width and named values have lines of their own, for a
            terminal. Default False.
        color: whether to color level, reconcile and ``extra``. Default False.
    """

    def __init__(self, *, aligned: bool = False, color: bool = False) -> None:
        super().__init__()
        self._level_width, self._logger_width = _WIDTHS if aligned else (5, 0)
        self._aligned, self._color = aligned, color

    @classmethod
    def for_stream(cls, stream: TextIO) -> TextFormatter:
        """Return a formatter for a stream: with aligned columns and color on a terminal, plain otherwise.

        The environment variable ``NO_COLOR`` disables color if it is not empty, as https://no-color.org says;
        ``TERM=dumb`` does the same.
        """
        terminal = stream.isatty()
        color = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        return cls(aligned=terminal, color=color)

    def format(self, record: logging.LogRecord) -> str:
        """Format a record as a line of text, with type and text of an exception.

        Its traceback follows on its own lines. In it, successive frames of libraries are folded into one line, unless
        there are no others. A further line that looks like the start of a record is indented.
        """
        fields = _fields(record)
        controller, namespace, name, reconcile_id = (_shown(fields.pop(field, None) or "") for field in _IN_BRACKETS)
        key = str(Request(name, namespace or None)) if name else ""
        where = " ".join(part for part in (controller, key, reconcile_id[:8]) if part)
        level = self._paint(_COLORS.get(record.levelname, ""), f"{record.levelname:<{self._level_width}}")
        parts = [_stamp(record), level, f"{record.name:<{self._logger_width}}"]
        parts += [self._paint(_CYAN, f"[{where}]")] if where else []
        parts += [record.msg.lines() if self._aligned and isinstance(record.msg, NamedValues) else _headline(record)]
        parts += [self._paint(_DIM, f"{name}={_shown(value)}") for name, value in fields.items()]
        line = " ".join(parts)
        exception = fold_traceback(_exception(self, record))
        return _FORGED.sub("  ", f"{line}\n{exception}" if exception else line)

    def _paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._color and code else text


def _headline(record: logging.LogRecord) -> str:
    """Return the message, followed by the exception's type and text unless it contains them."""
    message = record.getMessage()
    error = record.exc_info[1] if record.exc_info else None
    if error is None:
        return message
    name, text = type(error).__name__, error_text(error)
    if text in message:
        return message
    return f"{message}: {name}" if text == name else f"{message}: {name}: {text}"


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """Return the fields of the reconcile, followed by the record's ``extra``."""
    extra = {name: value for name, value in record.__dict__.items() if name not in _STANDARD}
    return {**_reconcile_fields(), **extra}


def _reconcile_fields() -> Mapping[str, Any]:
    cycle = current_cycle.get()
    if cycle is None:
        return {}
    # The protocol, which packages below the controller share, has neither the id nor the controller's name.
    known = {
        "controller": getattr(cycle, "controller", None),
        "object_namespace": cycle.request.namespace,
        "object_name": cycle.request.name,
        "reconcile_id": getattr(cycle, "reconcile_id", None),
    }
    return {name: value for name, value in known.items() if value is not None}


def _stamp(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def _exception(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts = []
    if record.exc_info and record.exc_info[0] is not None:
        parts.append(formatter.formatException(record.exc_info))
    elif record.exc_text:
        parts.append(record.exc_text)
    if record.stack_info:
        parts.append(formatter.formatStack(record.stack_info))
    return "\n".join(parts)


def _encode(fields: Mapping[str, Any]) -> str:
    plain = {name: _plain(value) for name, value in fields.items()}
    try:
        return msgspec.json.encode(plain, enc_hook=str).decode()
    except Exception:  # noqa: BLE001 - foreign code; a bad extra must not lose the log line
        return msgspec.json.encode({name: _encodable(value) for name, value in plain.items()}, enc_hook=str).decode()


def _encodable(value: Any) -> Any:
    try:
        msgspec.json.encode(value, enc_hook=str)
    except Exception:  # noqa: BLE001 - foreign code
        return _shown(value).encode(errors="backslashreplace").decode()
    return value


def _shown(value: Any) -> str:
    """Return a value as text, or its type's name if its ``__str__`` raises."""
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - foreign code
        return f"<{type(value).__name__}>"


def _plain(value: Any) -> Any:
    return _shown(value) if isinstance(value, tuple) and hasattr(value, "_fields") else value
