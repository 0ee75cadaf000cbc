"""Regular expressions in Go's syntax: their errors, and their translation for the library that matches them.

``patterns.json`` has the POSIX classes, and Go's messages by those of RE2.
"""

from __future__ import annotations

import functools
import re
from typing import Any

from reconciler.apiserver.encoding.data_files import recorded

__all__ = ["ecma_pattern", "pattern_problem"]

_GO_SYNTAX = re.compile(
    r"\\Q(?P<literal>.*?)(?:\\E|\Z)|\\x\{(?P<point>[0-9A-Fa-f]+)\}|"
    r"\\(?P<property>[pP])(?P<letter>[A-Z])|\\(?P<escaped>.)|(?P<named>\(\?P<)|\[:(?P<class>\w+):\]",
    re.DOTALL,
)
_FLAGS = re.compile(r"(\^?)\(\?([ims]+)\)")


def ecma_pattern(pattern: str) -> str:
    """Return a pattern in the syntax of ECMAScript, which JSON Schema uses."""
    pattern = _GO_SYNTAX.sub(_to_ecma, pattern)
    flags = _FLAGS.match(pattern)
    return f"{flags[1]}(?{flags[2]}:{pattern[flags.end() :]})" if flags else pattern


def _to_ecma(found: re.Match[str]) -> str:
    if found["literal"] is not None:
        return re.sub(r"[\\^$.*+?()\[\]{}|/-]", r"\\\g<0>", found["literal"])
    if found["point"]:
        return f"\\u{{{found['point']}}}"
    if found["letter"]:
        return f"\\{found['property']}{{{found['letter']}}}"
    if found["named"]:
        return "(?<"
    if found["class"]:
        return str(recorded("schema/patterns.json")["classes"].get(found["class"], found[0]))
    return {"A": "^", "z": "$"}.get(found["escaped"], found[0])


def pattern_problem(pattern: str) -> str:
    """Return the error of Go's parser for a pattern, or an empty string if it is valid.

    RE2, which the CEL engine contains, finds the error. Without the engine, an optional dependency, Python's parser
    does, with fewer of Go's messages.
    """
    try:
        outcome = _matcher().eval(data={"pattern": pattern})
    except ModuleNotFoundError:
        return _problem_without_engine(pattern)
    if outcome.type().name() != "ERROR":
        return ""
    problem, _, part = str(outcome.value()).partition("invalid regular expression: ")[2].partition(": ")
    if part.startswith("(?<"):
        problem, part = "invalid named capture", pattern[pattern.index("(?<") :]
    return f"error parsing regexp: {recorded('schema/patterns.json')['messages'].get(problem, problem)}: `{part}`"


@functools.cache
def _matcher() -> Any:
    from cel_expr_python import cel  # type: ignore[import-untyped]

    return cel.NewEnv(variables={"pattern": cel.Type.STRING}).compile("''.matches(pattern)")


def _problem_without_engine(pattern: str) -> str:
    try:
        re.compile(ecma_pattern(pattern).replace("(?<", "(?P<").replace("(?P<=", "(?<=").replace("(?P<!", "(?<!"))
    except re.error as error:
        if "missing )" in error.msg or "unterminated subpattern" in error.msg:
            return f"error parsing regexp: missing closing ): `{pattern}`"
        if "unterminated character set" in error.msg:
            return f"error parsing regexp: missing closing ]: `{pattern[error.pos or 0 :]}`"
        return f"error parsing regexp: {error.msg}: `{pattern}`"
    return ""
