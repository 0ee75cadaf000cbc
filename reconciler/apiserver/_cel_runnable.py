"""Turn a compiled CEL expression into one that the engine can run.

The engine compiles some things that it cannot run, and functions from outside cannot return optionals. So calls of the
former are given another name, and calls of the latter are wrapped: what is empty becomes no value. Wrapped as well are
texts of the document that stand for times, durations or bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from reconciler.apiserver._wire import read_fields, write_field

__all__ = ["runnable"]

_RENAMED = {"cel.@mapInsert": "@mapInsert"}
_OPTIONAL = frozenset({"format.named", "validate"})
_ID, _CALL, _STRUCT = 2, 6, 8
_BELOW: Mapping[int, frozenset[int]] = {
    5: frozenset({1}),
    _CALL: frozenset({1, 3}),
    7: frozenset({1}),
    9: frozenset({2, 4, 5, 6, 7}),
}
"""The fields of selections, calls, lists and comprehensions that hold expressions."""


@dataclass(frozen=True, slots=True)
class _Changes:
    """Say what is changed, by the number of the expression.

    Attributes:
        names: how functions are called.
        conversions: the formats of texts that stand for something else.
    """

    names: Mapping[int, str]
    conversions: Mapping[int, str]


def runnable(serialized: bytes, runs_as: Mapping[str, str], conversions: Mapping[int, str]) -> bytes:
    """Return a compiled expression, ready to run.

    Args:
        serialized: what ``Expression.serialize`` returns.
        runs_as: the names under which overloads are carried out that have one of their own, by their identity.
        conversions: the formats of texts that stand for something else, by the number of the expression.
    """
    checked = b""
    for number, value in read_fields(serialized):
        if number == 2 and isinstance(value, bytes):
            checked = value
    names = {key: runs_as[overload] for key, overload in _overloads(checked) if overload in runs_as}
    changes = _Changes(names, conversions)
    done = b"".join(
        write_field(number, _expression(value, changes) if number == 4 and isinstance(value, bytes) else value)
        for number, value in read_fields(checked)
    )
    return b"".join(write_field(number, done if number == 2 else value) for number, value in read_fields(serialized))


def _overloads(checked: bytes) -> Iterator[tuple[int, str]]:
    """Yield which overload each call is of, where that is certain."""
    for number, entry in read_fields(checked):
        if number == 2 and isinstance(entry, bytes):
            found = dict(read_fields(entry))
            reference = found.get(2, b"")
            named = [
                value.decode()
                for part, value in (read_fields(reference) if isinstance(reference, bytes) else ())
                if part == 3 and isinstance(value, bytes)
            ]
            key = found.get(1, 0)
            if isinstance(key, int) and len(named) == 1:
                yield key, named[0]


def _expression(message: bytes, changes: _Changes) -> bytes:
    identity, optional, done = 0, False, b""
    for number, value in read_fields(message):
        changed = value
        if number == _ID and isinstance(value, int):
            identity = value
        elif number == _STRUCT and isinstance(value, bytes):
            changed = _struct(value, changes)
        elif number in _BELOW and isinstance(value, bytes):
            changed, called = _node(value, _BELOW[number], changes)
            if number == _CALL:
                optional = called in _OPTIONAL
                changed = _renamed(changed, changes.names.get(identity) or _RENAMED.get(called, called))
        done += write_field(number, changed)
    if optional:
        return _wrapped(done, "optional.ofNonZeroValue", identity)
    return _wrapped(done, f"@{changes.conversions[identity]}", identity) if identity in changes.conversions else done


def _node(message: bytes, below: frozenset[int], changes: _Changes) -> tuple[bytes, str]:
    """Return a message with its expressions made ready, and the text in its second field."""
    done, text = b"", ""
    for number, value in read_fields(message):
        if number in below and isinstance(value, bytes):
            done += write_field(number, _expression(value, changes))
        else:
            text = value.decode() if number == 2 and isinstance(value, bytes) else text
            done += write_field(number, value)
    return done, text


def _struct(message: bytes, changes: _Changes) -> bytes:
    entries = frozenset({3, 4})
    return b"".join(
        write_field(number, _node(value, entries, changes)[0] if number == 2 and isinstance(value, bytes) else value)
        for number, value in read_fields(message)
    )


def _renamed(call: bytes, name: str) -> bytes:
    return b"".join(write_field(number, name.encode() if number == 2 else value) for number, value in read_fields(call))


def _wrapped(expression: bytes, function: str, identity: int) -> bytes:
    call = write_field(2, function.encode()) + write_field(3, expression)
    return write_field(_ID, identity + 1_000_000) + write_field(_CALL, call)
