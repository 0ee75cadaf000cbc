"""Turn a compiled CEL expression into one that the engine can run.

The engine compiles some things that it cannot run, and functions from outside cannot return optionals. So calls of the
former are given another name, and calls of the latter are wrapped: what is empty becomes no value. Wrapped as well are
texts of the document that stand for times, durations or bytes. Lists of type set or map are compared and added by
functions that know no order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from reconciler.apiserver.encoding.protobuf_wire import read_fields, write_field

__all__ = ["runnable"]

_RENAMED = {"cel.@mapInsert": "@mapInsert"}
_OPTIONAL = frozenset({"format.named", "validate"})
_ID, _CALL, _STRUCT = 2, 6, 8
_BEYOND = 1_000_000
"""Beyond the numbers that the engine gives to expressions."""
_BELOW: Mapping[int, frozenset[int]] = {
    5: frozenset({1}),
    _CALL: frozenset({1, 3}),
    7: frozenset({1}),
    9: frozenset({2, 4, 5, 6, 7}),
}
"""The fields of selections, calls, lists and comprehensions that hold expressions."""


@dataclass(frozen=True, slots=True)
class Changes:
    """Say what is changed of an expression.

    Attributes:
        names: the names under which overloads are carried out that have one of their own, by their identity.
        conversions: the formats of texts that stand for something else, by the number of the expression.
        unordered: the keys of lists that are compared or added without regard to order, by the number of the call.
        optional_old: ``oldSelf`` is an optional, which has a value if ``hadOldSelf`` is true.
    """

    names: Mapping[str, str]
    conversions: Mapping[int, str]
    unordered: Mapping[int, tuple[str, ...]]
    optional_old: bool


def runnable(serialized: bytes, changes: Changes) -> bytes:
    """Return a compiled expression, ready to run.

    Args:
        serialized: what ``Expression.serialize`` returns.
        changes: what is changed of it.
    """
    checked = b""
    for number, value in read_fields(serialized):
        if number == 2 and isinstance(value, bytes):
            checked = value
    names = changes.names
    rewriter = _Rewriter({key: names[found] for key, found in _overloads(checked) if found in names}, changes)
    done = b"".join(
        write_field(number, rewriter.expression(value) if number == 4 and isinstance(value, bytes) else value)
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


_READERS = {"date-time": "timestamp"}
"""What reads a format if not a function of its own; the engine's, which leaves times alone."""
_UNORDERED = {"_!=_": "@differ", "_+_": "@join", "_==_": "@same"}
"""What is called where lists of type set or map are compared or added."""


class _Rewriter:
    """Rewrite expressions.

    Args:
        names: how functions are called, by the number of the call.
        changes: what else is changed.
    """

    def __init__(self, names: Mapping[int, str], changes: Changes) -> None:
        self._names = names
        self._conversions = changes.conversions
        self._unordered = changes.unordered
        self._optional_old = changes.optional_old

    def expression(self, message: bytes) -> bytes:
        """Return an expression, ready to run."""
        identity, optional, done = 0, False, b""
        for number, value in read_fields(message):
            changed = value
            if number == _ID and isinstance(value, int):
                identity = value
            elif number == _STRUCT and isinstance(value, bytes):
                changed = self._struct(value)
            elif number in _BELOW and isinstance(value, bytes):
                changed, called = self._node(value, _BELOW[number])
                if number == _CALL:
                    optional = called in _OPTIONAL
                    changed = self._call(changed, called, identity)
            done += write_field(number, changed)
        if optional:
            return _wrapped(done, "optional.ofNonZeroValue", identity)
        if self._optional_old and done.endswith(_OLD):
            return _old_as_optional(done, identity)
        form = self._conversions.get(identity)
        return _wrapped(done, _READERS.get(form, f"@{form}"), identity) if form else done

    def _call(self, call: bytes, called: str, identity: int) -> bytes:
        keys = self._unordered.get(identity)
        if keys is not None:
            return _renamed(call, _UNORDERED[called]) + write_field(3, _texts(keys, identity))
        return _renamed(call, self._names.get(identity) or _RENAMED.get(called, called))

    def _node(self, message: bytes, below: frozenset[int]) -> tuple[bytes, str]:
        """Return a message with its expressions made ready, and the text in its second field."""
        done, text = b"", ""
        for number, value in read_fields(message):
            if number in below and isinstance(value, bytes):
                done += write_field(number, self.expression(value))
            else:
                text = value.decode() if number == 2 and isinstance(value, bytes) else text
                done += write_field(number, value)
        return done, text

    def _struct(self, message: bytes) -> bytes:
        entries = frozenset({3, 4})
        return b"".join(
            write_field(number, self._node(value, entries)[0] if number == 2 and isinstance(value, bytes) else value)
            for number, value in read_fields(message)
        )


_OLD = write_field(4, write_field(1, b"oldSelf"))


def _old_as_optional(old: bytes, identity: int) -> bytes:
    """Return the expression ``hadOldSelf ? optional.of(oldSelf) : optional.none()``."""

    def numbered(step: int, expression: bytes) -> bytes:
        return write_field(_ID, identity + step * _BEYOND) + expression

    had = numbered(2, write_field(4, write_field(1, b"hadOldSelf")))
    none = numbered(3, write_field(_CALL, write_field(2, b"optional.none")))
    either = write_field(2, b"_?_:_") + b"".join(
        write_field(3, part) for part in (had, _wrapped(old, "optional.of", identity), none)
    )
    return numbered(4, write_field(_CALL, either))


def _renamed(call: bytes, name: str) -> bytes:
    return b"".join(write_field(number, name.encode() if number == 2 else value) for number, value in read_fields(call))


def _wrapped(expression: bytes, function: str, identity: int) -> bytes:
    call = write_field(2, function.encode()) + write_field(3, expression)
    return write_field(_ID, identity + _BEYOND) + write_field(_CALL, call)


def _texts(texts: tuple[str, ...], identity: int) -> bytes:
    """Return the expression of a list of texts."""
    items = b""
    for index, text in enumerate(texts, 1):
        constant = write_field(_ID, identity + index * _BEYOND) + write_field(3, write_field(6, text.encode()))
        items += write_field(1, constant)
    return write_field(_ID, identity + (len(texts) + 1) * _BEYOND) + write_field(7, items)
