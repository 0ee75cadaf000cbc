"""CEL conditions about documents of any type: the match conditions of webhooks, and the validations of policies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from reconciler.apiserver.cel.expressions import CheckedCondition, CompileError, check_condition, compile_condition
from reconciler.apiserver.cel.rules import problem_in_words, run_program
from reconciler.wire import JSONObject

__all__ = ["CONDITION_VARIABLES", "Condition", "match_conditions", "outcome_of", "policy_variables"]

CONDITION_VARIABLES = ("object", "oldObject", "request")
"""The documents that a match condition of a webhook is about."""


@dataclass(frozen=True)
class Condition:
    """An expression that is compiled when it is first evaluated.

    Attributes:
        source: the expression as written.
        documents: the names of the documents that it may use.
        results: the types that it may have; empty for any.
        variables: the variables of a policy that it may use as ``variables.name``, by name in the order of their
            definition; None where there are no variables.
    """

    source: str
    documents: Sequence[str]
    results: Sequence[str] = ("bool",)
    variables: Mapping[str, Condition] | None = None

    @cached_property
    def _checked(self) -> CheckedCondition:
        types = None if self.variables is None else {name: each.type for name, each in self.variables.items()}
        return check_condition(self.source, self.documents, self.results, types)

    @property
    def type(self) -> Any:
        """Return the engine's type of the value; None for any, as of an expression that does not compile."""
        try:
            return self._checked.type
        except CompileError:
            return None

    @cached_property
    def _uses(self) -> dict[str, Condition]:
        """Return the variables that the expression uses, and those that these use, in the order of definition."""
        variables = self.variables or {}
        used = {name: variables[name] for name in variables if name in self._checked.variables}
        below = {name for each in used.values() for name in each._uses}  # noqa: SLF001 - the same class
        return {name: each for name, each in variables.items() if name in used or name in below}

    @cached_property
    def _program(self) -> Any:
        return compile_condition(self._checked, {name: each._checked for name, each in self._uses.items()})  # noqa: SLF001

    def evaluate(self, documents: Mapping[str, Any]) -> tuple[Any, str]:
        """Return the value, and an empty string or what went wrong."""
        value, problem = self._evaluate(documents)
        return value, f"expression '{self.source}' resulted in error: {problem}" if problem else ""

    def _evaluate(self, documents: Mapping[str, Any]) -> tuple[Any, str]:
        try:
            value, problem = run_program(self._program, dict(documents))
        except CompileError as error:
            return None, str(error)
        if not problem:
            return value, ""
        for name in self._checked.variables:
            _, failed = self._uses[name]._evaluate(documents)  # noqa: SLF001 - the same class
            if failed:
                return None, f'composited variable "{name}" fails to evaluate: {failed}'
        return None, problem_in_words(problem)

    def check(self) -> None:
        """Raise `CompileError` if the expression does not compile, or its value has another type."""
        _ = self._checked


def match_conditions(document: JSONObject, documents: Sequence[str] = CONDITION_VARIABLES) -> list[Condition]:
    """Return the ``matchConditions`` of a webhook or policy."""
    return [Condition(each["expression"].strip(), documents) for each in document.get("matchConditions") or ()]


def policy_variables(variables: Sequence[Mapping[str, Any]], documents: Sequence[str]) -> dict[str, Condition]:
    """Return the variables of a policy by name; each may use those before it."""
    found: dict[str, Condition] = {}
    for each in variables:
        found[each["name"]] = Condition(each["expression"], documents, (), dict(found))
    return found


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
