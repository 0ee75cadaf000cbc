"""JSON text split one level at a time, without recursion, for documents that a decoder rejects.

A decoder rejects a whole document for one value in it: nested too deeply, or text that is not Unicode. These functions
only find where values begin and end, and return them verbatim.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

__all__ = ["UNDECODABLE", "json_elements", "json_members"]


UNDECODABLE = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)
"""The exceptions of a msgspec decoder."""

_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"|[{}\[\],:]', re.DOTALL)


def json_members(text: bytes) -> dict[str, bytes]:
    """Return the members of an object, each value verbatim; the last one if a key is repeated.

    Raises:
        ValueError: the text is not a JSON object, judged by its outer level.
    """
    members: dict[str, bytes] = {}
    for part in _parts(text, b"{}"):
        key, colon, value = _split(part)
        if not colon:
            raise ValueError("member without a value")
        try:
            members[msgspec.json.decode(key, type=str)] = value
        except UNDECODABLE as error:
            raise ValueError(f"invalid key: {error}") from None
    return members


def json_elements(text: bytes) -> list[bytes]:
    """Return the elements of an array, verbatim.

    Raises:
        ValueError: the text is not a JSON array, judged by its outer level.
    """
    return list(_parts(text, b"[]"))


def _parts(text: bytes, brackets: bytes) -> Iterator[bytes]:
    text = text.strip()
    if text[:1] != brackets[:1] or text[-1:] != brackets[1:]:
        raise ValueError(f"not enclosed in {brackets[:1].decode()} and {brackets[1:].decode()}")
    depth, start = 0, 1
    for token in _TOKEN.finditer(text):
        mark = text[token.start() : token.start() + 1]
        if mark in b"{[":
            depth += 1
        elif mark in b"}]":
            depth -= 1
        if depth == 0 or (depth == 1 and mark == b","):
            part = text[start : token.start()].strip()
            if part:
                yield part
            start = token.end()
        if depth == 0:
            break
    if depth or start != len(text):
        raise ValueError("unbalanced brackets")


def _split(member: bytes) -> tuple[bytes, bytes, bytes]:
    found = _TOKEN.match(member)
    if found is None:
        return member, b"", b""
    rest = member[found.end() :].lstrip()
    return found[0], rest[:1] if rest[:1] == b":" else b"", rest[1:].strip()
