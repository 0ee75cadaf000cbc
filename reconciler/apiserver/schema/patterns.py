"""Read regular expressions in Go's syntax: find what is wrong, and write them for the library that matches."""

from __future__ import annotations

import re

from reconciler.apiserver.cel.engine import pattern_problem as engine_problem

__all__ = ["ecma_pattern", "pattern_problem"]

_CLASSES = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "ascii": r"\x00-\x7F",
    "blank": r"\t ",
    "cntrl": r"\x00-\x1F\x7F",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": r"!-\/:-@\[-`{-~",
    "space": r"\t\n\v\f\r ",
    "upper": "A-Z",
    "word": "0-9A-Za-z_",
    "xdigit": "0-9A-Fa-f",
}
_GOS_OWN = re.compile(
    r"\\Q(?P<literal>.*?)(?:\\E|\Z)|\\x\{(?P<point>[0-9A-Fa-f]+)\}|"
    r"\\(?P<property>[pP])(?P<letter>[A-Z])|\\(?P<escaped>.)|(?P<named>\(\?P<)|\[:(?P<class>\w+):\]",
    re.DOTALL,
)
_FLAGS = re.compile(r"(\^?)\(\?([ims]+)\)")


def ecma_pattern(pattern: str) -> str:
    """Return a pattern in the syntax of ECMAScript, in which JSON Schema has them."""
    pattern = _GOS_OWN.sub(_in_ecma, pattern)
    flags = _FLAGS.match(pattern)
    return f"{flags[1]}(?{flags[2]}:{pattern[flags.end() :]})" if flags else pattern


def _in_ecma(found: re.Match[str]) -> str:
    if found["literal"] is not None:
        return re.sub(r"[\\^$.*+?()\[\]{}|/-]", r"\\\g<0>", found["literal"])
    if found["point"]:
        return f"\\u{{{found['point']}}}"
    if found["letter"]:
        return f"\\{found['property']}{{{found['letter']}}}"
    if found["named"]:
        return "(?<"
    if found["class"]:
        return _CLASSES.get(found["class"], found[0])
    return {"A": "^", "z": "$"}.get(found["escaped"], found[0])


def pattern_problem(pattern: str) -> str:
    """Return what is wrong with a pattern in the words of Go's parser, or nothing."""
    try:
        return engine_problem(pattern)
    except ModuleNotFoundError:
        return _problem(pattern)


def _problem(pattern: str) -> str:
    """Find it without the engine, whose library is not installed everywhere."""
    try:
        re.compile(ecma_pattern(pattern).replace("(?<", "(?P<").replace("(?P<=", "(?<=").replace("(?P<!", "(?<!"))
    except re.error as error:
        if "missing )" in error.msg or "unterminated subpattern" in error.msg:
            return f"error parsing regexp: missing closing ): `{pattern}`"
        if "unterminated character set" in error.msg:
            return f"error parsing regexp: missing closing ]: `{pattern[error.pos or 0 :]}`"
        return f"error parsing regexp: {error.msg}: `{pattern}`"
    return ""
