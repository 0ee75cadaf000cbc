"""CEL conditions about documents of any type: the match conditions of webhooks, and the validations of policies."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from reconciler.apiserver.cel.compiler import CompileError, compile_condition
from reconciler.apiserver.cel.rules import problem_in_words, run_program

__all__ = ["CONDITION_VARIABLES", "Condition", "composed", "outcome_of"]

CONDITION_VARIABLES = ("object", "oldObject", "request")
"""The documents that a match condition of a webhook is about."""

_LONGEST = 64 * 1024
"""Characters of an expression with its variables in place; each variable may use those before it twice and more."""

_STRING = r"""\"{3}.*?\"{3}|'{3}.*?'{3}|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'"""
_REFERENCE = re.compile(rf"({_STRING})|\bvariables\s*\.\s*([A-Za-z_]\w*)", re.DOTALL)
"""A string literal, or the use of a variable."""


def composed(source: str, variables: Mapping[str, str]) -> str:
    """Return an expression in which the uses of variables (``variables.name``) are replaced by their expressions.

    Raises:
        CompileError: the result is too long.
    """

    def put(found: re.Match[str]) -> str:
        expression = variables.get(found[2]) if found[2] else None
        return found[0] if expression is None else f"({expression})"

    result = _REFERENCE.sub(put, source)
    if len(result) > _LONGEST:
        raise CompileError(f"compilation failed: the expression has more than {_LONGEST} characters with its variables")
    return result


@dataclass(frozen=True)
class Condition:
    """An expression that is compiled when it is first evaluated.

    Attributes:
        source: the expression as written.
        composed: the expression with its variables in place.
        documents: the names of the documents that it may use.
        result: the type that it must have; empty for any.
    """

    source: str
    composed: str
    documents: Sequence[str]
    result: str = "bool"

    @cached_property
    def _program(self) -> Any:
        return compile_condition(self.composed, self.documents, self.result)

    def evaluate(self, documents: Mapping[str, Any]) -> tuple[Any, str]:
        """Return the value, and an empty string or what went wrong."""
        value, problem = run_program(self._program, dict(documents))
        if problem:
            return None, f"expression '{self.source}' resulted in error: {problem_in_words(problem)}"
        return value, ""

    def check(self) -> None:
        """Compile the expression.

        Raises:
            CompileError: it does not compile.
        """
        _ = self._program


def outcome_of(conditions: Sequence[Condition], documents: Mapping[str, Any]) -> tuple[bool, list[str]]:
    """Return whether no condition is false, and the problems of those that cannot be evaluated.

    If any is false, the problems of the others do not count.
    """
    problems = []
    for condition in conditions:
        value, problem = condition.evaluate(documents)
        if value is False:
            return False, []
        if problem:
            problems.append(problem)
    return True, problems
