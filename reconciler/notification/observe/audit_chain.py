"""The hash chain of an audit file: each line has the SHA-256 of the line before it.

A line that is changed, removed or inserted breaks the chain behind it. Lines that are removed from the end are noticed
only by comparing with a noted hash of the last line, which `reconciler audit` prints.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec.json

from reconciler.wire import JSONObject

__all__ = ["FIRST", "AuditLine", "chained", "hash_of", "last_line", "read_chain"]

FIRST = "0" * 64
"""The hash before the first line of all."""

TAIL_BYTES = 262_144
"""Bytes at the end of a file that are read to find its last line. A line has at most about 100 KiB."""


def hash_of(line: bytes) -> str:
    """Return the hash of a line, without its line break."""
    return hashlib.sha256(line.rstrip(b"\n")).hexdigest()


def chained(records: Iterable[JSONObject], previous: str) -> tuple[bytes, str]:
    """Return the lines of records that follow the line with this hash, and the hash of the last one."""
    lines: list[bytes] = []
    for record in records:
        lines.append(msgspec.json.encode({**record, "previous": previous}))
        previous = hash_of(lines[-1])
    return b"".join(line + b"\n" for line in lines), previous


def last_line(tail: bytes) -> bytes:
    """Return the last line in the end of a file; an unterminated one counts."""
    return tail.rstrip(b"\n").rpartition(b"\n")[2]


@dataclass(frozen=True, slots=True)
class AuditLine:
    """A line of an audit file.

    Attributes:
        number: its number, from 1.
        record: its content; empty if it is not valid.
        problem: why it does not follow the line before it, or is not valid; empty if all is well.
        hash: its hash.
    """

    number: int
    record: JSONObject
    problem: str
    hash: str


def read_chain(lines: Iterable[bytes]) -> Iterator[AuditLine]:
    """Yield the lines of a file, each checked against the one before it.

    The first line may follow a line of an older file, so any hash is accepted there.
    """
    previous: str | None = None
    for number, line in enumerate(lines, start=1):
        problem = ""
        try:
            record: Any = msgspec.json.decode(line)
        except msgspec.DecodeError:
            record, problem = {}, "is not complete" if not line.endswith(b"\n") else "is not valid JSON"
        if not isinstance(record, dict):
            record, problem = {}, "is not a record"
        if not problem and previous is not None and record.get("previous") != previous:
            problem = "does not follow the line before it: a line was changed, removed or inserted"
        previous = hash_of(line)
        yield AuditLine(number, record, problem, previous)
