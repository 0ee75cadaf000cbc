"""The hash chain of an audit file: each line has the hash of the line before it.

A line that is changed, removed or inserted breaks the chain behind it, unless all lines behind it are written anew.
With a key (HMAC) only its owner can do that. A change of the last line, and the removal of lines from the end, are
found by comparing with a noted hash of an earlier last line, which `reconciler audit` prints.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec.json

from reconciler._core.wire import JSONObject

__all__ = ["FIRST", "AuditLine", "chained", "hash_of", "last_line", "read_chain"]

FIRST = "0" * 64
"""The hash before the first line of all."""

TAIL_BYTES = 262_144
"""Bytes at the end of a file that are read to find its last line. A line has at most about 100 KiB."""


def hash_of(line: bytes, key: bytes = b"") -> str:
    """Return the SHA-256 of a line without its line break; the HMAC if there is a key."""
    line = line.rstrip(b"\n")
    return (hmac.new(key, line, hashlib.sha256) if key else hashlib.sha256(line)).hexdigest()


def chained(records: Iterable[JSONObject], previous: str, key: bytes = b"") -> tuple[bytes, str]:
    """Return the lines of records that follow the line with this hash, and the hash of the last one."""
    lines: list[bytes] = []
    for record in records:
        lines.append(msgspec.json.encode({**record, "previous": previous}))
        previous = hash_of(lines[-1], key)
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


def read_chain(lines: Iterable[bytes], key: bytes = b"") -> Iterator[AuditLine]:
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
        previous = hash_of(line, key)
        yield AuditLine(number, record, problem, previous)
