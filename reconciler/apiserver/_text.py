"""Write values and complaints the way Go's JSON packages do, since clients and tests meet their words."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["go_json", "go_syntax", "go_type", "go_value", "parse_problem", "quoted", "snippet"]


def go_json(value: Any, *, sort: bool = True) -> str:
    """Return compact JSON with HTML characters escaped, and keys sorted unless a Go struct is shown."""
    text = _SORTED.encode(value) if sort else _AS_IS.encode(value)
    if "<" not in text and ">" not in text and "&" not in text:
        return text
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


_SORTED = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)
_AS_IS = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)


def quoted(value: Any) -> str:
    """Return a value as field errors show it."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, int):
        return str(value)
    return go_json(value)


def _number(value: float) -> str:
    text = repr(value)
    if "e" not in text:
        return text.removesuffix(".0")
    mantissa, _, exponent = text.partition("e")
    sign, digits = exponent[0] if exponent[0] in "+-" else "+", exponent.lstrip("+-").zfill(2)
    return f"{mantissa.removesuffix('.0')}e{sign}{digits}"


def go_type(value: Any) -> str:
    """Return the word by which encoding/json calls the type of a JSON value."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (int, float)):
        return "number"
    if isinstance(value, str):
        return "string"
    if isinstance(value, list):
        return "array"
    return "object" if isinstance(value, dict) else "null"


def go_value(value: Any) -> str:
    """Return a value as Go's ``%v`` shows it: ``map[a:1 b:[x y]]``."""
    if isinstance(value, dict):
        return f"map[{' '.join(f'{key}:{go_value(value[key])}' for key in sorted(value))}]"
    if isinstance(value, list):
        return f"[{' '.join(map(go_value, value))}]"
    if value is None:
        return "<nil>"
    return value if isinstance(value, str) else quoted(value)


def go_syntax(value: Any) -> str:
    """Return a value as Go's ``%#v`` shows it: ``map[string]interface {}{"a":1}``."""
    if isinstance(value, dict):
        members = ", ".join(f"{quoted(key)}:{go_syntax(value[key])}" for key in sorted(value))
        return f"map[string]interface {{}}{{{members}}}"
    if isinstance(value, list):
        return f"[]interface {{}}{{{', '.join(map(go_syntax, value))}}}"
    return "interface {}(nil)" if value is None else quoted(value)


def parse_problem(body: bytes) -> str:
    """Return why a body is no JSON, in the words of encoding/json."""
    text = body.decode("latin-1")
    try:
        json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        rest = text[error.pos :].lstrip()
        if not rest or error.msg.startswith("Unterminated"):
            return "unexpected end of JSON input"
        expected = "looking for beginning of value"
        if error.msg.startswith("Expecting property name"):
            expected = "looking for beginning of object key string"
        elif error.msg.startswith("Expecting ',' delimiter"):
            expected = "after object key:value pair"
        elif error.msg.startswith("Expecting ':' delimiter"):
            expected = "after object key"
        elif error.msg.startswith("Extra data"):
            expected = "after top-level value"
        return f"invalid character {_character(rest[0])} {expected}"
    except ValueError as error:
        return str(error)
    return "invalid JSON"


def _character(letter: str) -> str:
    """Return a letter in quotes as Go's strconv.Quote has it."""
    return f"'{letter}'" if " " <= letter < "\x7f" or letter > "\xa0" else f"'\\u{ord(letter):04x}'"


def _refuse_constant(name: str) -> None:
    """Refuse NaN and the infinities, which Python reads and JSON does not have."""
    raise ValueError(f"invalid character '{name.lstrip('-')[0]}' looking for beginning of value")


def snippet(body: bytes) -> str:
    """Return the beginning of a body as complaints about it show it."""
    if not body:
        return "<empty>"
    text = body.decode(errors="replace")
    return f"{text[:30]} ..." if len(text) > 30 else text
