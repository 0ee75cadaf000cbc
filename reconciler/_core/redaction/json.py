"""Redaction of JSON texts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from reconciler._core.redaction.hints import PLACEHOLDER
from reconciler._core.redaction.names import Kind, kind_of_name, looks_random, strong
from reconciler._core.redaction.values import USER_FLAGS, without_password

_JSON_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"|[^\s"{}\[\]:,]++|[{}\[\]:,]|\s++', re.DOTALL)


def is_json(text: str) -> bool:
    """Return whether a string is JSON that is not nested too deeply for the parser."""
    try:
        json.loads(text, parse_int=bool, parse_float=bool, parse_constant=bool)
    except (ValueError, RecursionError):
        return False
    return True


@dataclass(slots=True)
class _Container:
    """The object or array that is being parsed.

    Attributes:
        is_object: whether it is an object.
        kind: what the surrounding name says about all values in it.
        key: the key whose value comes next; None if a key or an array item comes next.
        named: what the member ``name`` says about the member ``value``.
        before: the previous item of an array.
    """

    is_object: bool
    kind: Kind | None
    key: str | None = None
    named: Kind | None = None
    before: str = ""

    def kind_of_value(self) -> Kind | None:
        """Return what the surrounding and preceding names say about a value."""
        if self.kind is not None:
            return self.kind
        if self.is_object:
            named = self.named if (self.key or "").lower() in {"value", "default"} else None
            return strong(kind_of_name(self.key or ""), '"') or named
        is_name = self.before.startswith("-") or kind_of_name(self.before) == "header"
        return strong(kind_of_name(self.before), '"') if is_name else None


class JSONText:
    """The redaction of one JSON document. Everything that is not redacted is copied verbatim."""

    def __init__(self, redact_text: Callable[[str], str]) -> None:
        self._redact_text = redact_text
        self._frames = [_Container(is_object=False, kind=None)]

    def redact(self, text: str) -> str:
        """Remove secrets from JSON."""
        return "".join(self._token(found.group()) for found in _JSON_TOKEN.finditer(text))

    def _token(self, lexeme: str) -> str:
        frame = self._frames[-1]
        if lexeme in ("{", "["):
            kind = frame.kind_of_value()
            self._frames.append(_Container(is_object=lexeme == "{", kind=None if kind == "mixed" else kind))
        elif lexeme in ("}", "]"):
            self._frames.pop()
        elif lexeme == ",":
            frame.key = None
        elif lexeme.startswith('"'):
            return self._string(frame, lexeme)
        elif lexeme[0] in "-0123456789" and frame.kind_of_value() in ("secret", "header"):
            return f'"{PLACEHOLDER}"'
        return lexeme

    def _string(self, frame: _Container, lexeme: str) -> str:
        text: str = json.loads(lexeme)
        is_key = frame.is_object and frame.key is None
        if is_key:
            frame.key = clean = self._redact_text(text)
        elif text and (kind := frame.kind_of_value()) is not None and (kind != "mixed" or looks_random(text)):
            clean = PLACEHOLDER
        elif frame.before in USER_FLAGS:
            clean = without_password(text)
        else:
            clean = self._redact_text(text)
        if frame.is_object and not is_key and (frame.key or "").lower() in {"name", "key", "header"}:
            frame.named = strong(kind_of_name(clean), '"')
        frame.before = "" if frame.is_object else clean
        return lexeme if clean == text else _quoted(clean)


def _quoted(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:  # lone surrogates, which JSON can only escape
        return json.dumps(text)
    return json.dumps(text, ensure_ascii=False)
