"""Compiles and evaluates CEL: the rules of a schema (``x-kubernetes-validations``), and conditions about any document.

Conditions are the match conditions of webhooks, and the expressions of policies.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from reconciler._core.wire import JSONObject
from reconciler.apiserver.cel import costs
from reconciler.apiserver.cel.engine import require_engine
from reconciler.apiserver.cel.expressions import (
    CheckedCondition,
    CompileError,
    Expression,
    check_condition,
    compile_condition,
    compile_expression,
)
from reconciler.apiserver.cel.model import to_cel
from reconciler.apiserver.encoding.refusals import FieldError, Findings
from reconciler.apiserver.encoding.text import quoted, recorded
from reconciler.apiserver.schema.shape import ANYTHING, NO_DEFAULT, Node
from reconciler.apiserver.schema.validation import item_key

__all__ = [
    "CONDITION_VARIABLES",
    "CompiledRules",
    "Condition",
    "Rule",
    "RuleSet",
    "children",
    "match_conditions",
    "outcome_of",
    "policy_variables",
]


_REASONS = ("FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired")


@dataclass(frozen=True, slots=True)
class Rule:
    """A compiled rule.

    Attributes:
        source: the rule as written.
        program: the compiled expression.
        message: the message to report if the rule is violated, or empty.
        message_program: an expression that computes the message, or None.
        reason: the reason of the error.
        field: the path below the place that the error is about, such as ``.spec``.
        transition: whether the rule uses ``oldSelf``.
        optional: whether ``oldSelf`` is an optional.
        cost: the maximum cost of one evaluation.
        message_cost: the maximum cost of one evaluation of the message; 0 without an expression.
    """

    source: str
    program: Any
    message: str
    message_program: Any
    reason: str
    field: str
    transition: bool
    optional: bool
    cost: int
    message_cost: int


def _has_rules(node: Node) -> bool:
    if node.rules:
        return True
    below = [*node.properties.values(), node.items, node.additional]
    return any(child is not None and child.has_checks and _has_rules(child) for child in below)


def children(node: Node) -> Iterator[tuple[str, Node]]:
    """Yield the places below a place that may have rules, each with its step in the path of the schema."""
    for key, child in node.properties.items():
        if child is not ANYTHING:
            yield f".properties[{key}]", child
    for step, other in ((".additionalProperties", node.additional), (".items", node.items)):
        if other is not None and other is not ANYTHING:
            yield step, other


class CompiledRules:
    """The compiled rules of a schema.

    Attributes:
        rules: the rules of each place, by the place's identity.
        relevant: whether a place or one below it has rules, by the place's identity.
        problems: the errors of the rules, each with the path of its rule below the schema. ``{root}`` in a message
            stands for the path of the schema.

    Raises:
        MissingExtra: the schema has rules, but the CEL engine is not installed; rules are never ignored.
    """

    def __init__(self, root: Node) -> None:
        self.rules: dict[int, list[Rule]] = {}
        self.relevant: dict[int, bool] = {}
        self.problems: list[tuple[str, FieldError]] = []
        self._costs: list[tuple[int, str, str]] = []
        if _has_rules(root):
            require_engine()
            self._place(root, "", correlatable=True, uncorrelated="")
            self._check_costs()

    def _place(self, node: Node, path: str, *, correlatable: bool, uncorrelated: str, times: int | None = 1) -> bool:
        """Compile the rules of a place and of the places below it; return whether there are any.

        Args:
            node: the place.
            path: its path in the schema.
            correlatable: whether an update can tell which old value belongs to a new one.
            uncorrelated: the path of the list below which it cannot, or empty.
            times: how often the place may occur in a document, or None if there is no limit.
        """
        here = False
        if node.rules:
            self.rules[id(node)] = list(self._rules(node, path, correlatable, uncorrelated, times))
            here = True
        for step, child in children(node):
            still = correlatable and (step != ".items" or node.list_type == "map")
            if child.has_checks:
                lost = uncorrelated if still or uncorrelated else path
                more = times if step.startswith(".properties") else costs.occurrences_below(times, node)
                here = self._place(child, path + step, correlatable=still, uncorrelated=lost, times=more) or here
        self.relevant[id(node)] = here
        return here

    def _rules(self, node: Node, path: str, correlatable: bool, uncorrelated: str, times: int | None) -> Iterator[Rule]:
        for index, written in enumerate(node.rules):
            place = f"{path}.x-kubernetes-validations[{index}]"
            try:
                rule = self._rule(written, node, place, correlatable, uncorrelated)
            except CompileError:
                continue
            times_checked = costs.occurrences(node, times)
            self._costs.append((rule.cost * times_checked, place, "rule"))
            self._costs.append((rule.message_cost * times_checked, place, "messageExpression"))
            yield rule

    def _rule(self, rule: JSONObject, node: Node, place: str, correlatable: bool, uncorrelated: str) -> Rule:
        source = str(rule.get("rule") or "")
        optional = rule.get("optionalOldSelf")
        self._check_texts(rule, source, node, place)
        compiled = self._compile(rule, "rule", node, place)
        if compiled.result not in ("bool", "dyn"):
            self._report_struct(rule, "rule", place, "cel expression must evaluate to a bool")
        if compiled.uses_old and not correlatable:
            message = "oldSelf cannot be used on the uncorrelatable portion of the schema within {root}" + uncorrelated
            self._report(place, FieldError.invalid(".rule", source, message))
        if optional is not None and not compiled.uses_old:
            message = "may not be set if oldSelf is not used in rule"
            self._report(place, FieldError.invalid(".optionalOldSelf", optional, message))
        message_program, message_cost = self._message_program(rule, node, place)
        return Rule(
            source,
            compiled.program,
            str(rule.get("message") or "").strip(),
            message_program,
            str(rule.get("reason") or "FieldValueInvalid"),
            str(rule.get("fieldPath") or ""),
            compiled.uses_old,
            bool(optional),
            costs.cost_of(compiled.tree.root, node),
            message_cost,
        )

    def _message_program(self, rule: JSONObject, node: Node, place: str) -> tuple[Any, int]:
        if not rule.get("messageExpression"):
            return None, 0
        try:
            compiled = self._compile(rule, "messageExpression", node, place, "messageExpression ")
        except CompileError:
            return None, 0
        if compiled.result not in ("string", "dyn"):
            self._report_struct(rule, "messageExpression", place, "messageExpression must evaluate to a string")
        return compiled.program, costs.cost_of(compiled.tree.root, node)

    def _compile(self, rule: JSONObject, member: str, node: Node, place: str, prefix: str = "") -> Expression:
        try:
            return compile_expression(str(rule[member]), node, optional_old=bool(rule.get("optionalOldSelf")))
        except CompileError as problem:
            self._report_struct(rule, member, place, f"{prefix}{problem}")
            raise

    def _check_texts(self, rule: JSONObject, source: str, node: Node, place: str) -> None:
        if not source.strip():
            self._report(place, FieldError.required(".rule", "rule is not specified"))
            raise CompileError
        message = str(rule.get("message") or "")
        if message and not message.strip():
            self._report(place, FieldError.invalid(".message", message, "must be non-empty if specified"))
        elif "\n" in message.strip():
            self._report(place, FieldError.invalid(".message", message, "must not contain line breaks"))
        elif not message and "\n" in source.strip() and not rule.get("messageExpression"):
            text = "message must be specified if rule contains line breaks"
            self._report(place, FieldError.required(".message", text))
        reason = rule.get("reason")
        if reason and reason not in _REASONS:
            self._report(place, FieldError.not_supported(".reason", reason, _REASONS))
        field = rule.get("fieldPath")
        if field and not _is_path(str(field), node):
            self._report(place, FieldError.invalid(".fieldPath", field, "must be a valid path"))

    def _report_struct(self, rule: JSONObject, member: str, place: str, message: str) -> None:
        """Report an error of a member of a rule that shows the rule as a Go struct."""
        names = ("Rule", "Message", "MessageExpression", "Reason", "FieldPath", "OptionalOldSelf")
        shown: JSONObject = {name: rule.get(name[0].lower() + name[1:]) for name in names}
        texts = {name: shown[name] or "" for name in ("Rule", "Message", "MessageExpression", "FieldPath")}
        self._report(place, FieldError.invalid_struct(f".{member}", shown | texts, message))

    def _report(self, place: str, error: FieldError) -> None:
        self.problems.append((place, error))

    def _check_costs(self) -> None:
        """Report rules over their budget, and the most expensive rules if all together are over theirs."""
        advice = (
            "try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and "
            "strings are declared"
        )
        for cost, place, part in self._costs:
            if cost > costs.RULE_COST_LIMIT:
                by = costs.excess_factor(cost, costs.RULE_COST_LIMIT)
                message = f"estimated {part} cost exceeds budget by factor of {by} ({advice})"
                self._report(place, FieldError.forbidden(f".{part}", message))
        total = sum(cost for cost, *_ in self._costs)
        if total <= costs.TOTAL_COST_LIMIT:
            return
        for cost, place, part in sorted(self._costs, reverse=True)[:4]:
            if cost > costs.TOTAL_COST_LIMIT // 100:
                message = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"
                self._report(place, FieldError.forbidden(f".{part}", message))
        by = costs.excess_factor(total, costs.TOTAL_COST_LIMIT)
        whole = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema exceeds budget"
        self._report("", FieldError.forbidden("", f"{whole} by factor of {by} ({advice})"))


def _is_path(text: str, node: Node) -> bool:
    if not text.startswith("."):
        return False
    for part in text[1:].split("."):
        found = node.properties.get(part) if part else None
        if found is None:
            return False
        node = found
    return True


_ABSENT = object()
_OVERLOAD = (
    "'no such overload': call arguments did not match a supported operator, function or macro signature for rule: "
)
CONDITION_VARIABLES = ("object", "oldObject", "request")
"""The documents that a match condition of a webhook is about."""


class RuleSet:
    """The compiled rules of a schema. It is true if there are any."""

    def __init__(self, root: Node) -> None:
        self._root = root
        compiled = CompiledRules(root)
        self._rules, self._relevant, self._problems = compiled.rules, compiled.relevant, compiled.problems

    def __bool__(self) -> bool:
        return bool(self._rules)

    def compile_errors(self, path: str) -> list[FieldError]:
        """Return why rules cannot be accepted; the paths begin with `path`."""
        found = []
        for below, error in self._problems:
            message = error.message.replace("{root}", path)
            found.append(FieldError(f"{path}{below}{error.field}", message, error.reason))
        return found

    def default_errors(self, path: str) -> list[FieldError]:
        """Return an error for each default that violates a rule; the paths begin with `path`."""
        return list(self._default_errors(self._root, path)) if self else []

    def _default_errors(self, node: Node, path: str) -> Findings:
        if node.written_default is not NO_DEFAULT and self._relevant.get(id(node)):
            for error in self._evaluate(node.written_default, _ABSENT, node, ""):
                below = "" if error.field == "<nil>" else f".{error.field}"
                yield FieldError(f"{path}.default{below}", error.message, error.reason)
        for step, child in children(node):
            if child.has_checks:
                yield from self._default_errors(child, path + step)

    def errors(self, doc: JSONObject, before: JSONObject | None) -> list[FieldError]:
        """Return an error for each rule that a valid document violates; `before` is the document that it replaces."""
        return list(self._evaluate(doc, _ABSENT if before is None else before, self._root, ""))

    def _evaluate(self, value: Any, before: Any, node: Node, path: str) -> Findings:
        if value is None or not self._relevant.get(id(node)):
            return
        for rule in self._rules.get(id(node), ()):
            error = self._check(rule, value, before, node, path)
            if error is not None:
                yield error
        if isinstance(value, dict):
            for key, member in value.items():
                child = node.child(key)
                if child is not None:
                    old = before.get(key, _ABSENT) if isinstance(before, dict) else _ABSENT
                    place = f"{path}.{key}" if path else key
                    if key not in node.properties:
                        place = f"{path}[{key}]"
                    yield from self._evaluate(member, old, child, place)
        elif isinstance(value, list) and node.items is not None:
            for index, item in enumerate(value):
                old = _same_item(item, before, node)
                yield from self._evaluate(item, old, node.items, f"{path}[{index}]")

    def _check(self, rule: Rule, value: Any, before: Any, node: Node, path: str) -> FieldError | None:
        had = before is not _ABSENT and before is not None
        if rule.transition and not had and not rule.optional:
            return None
        if had and not rule.transition and before == value:
            # An unchanged value is not validated again.
            return None
        data: dict[str, Any] = {"self": to_cel(value, node)}
        if rule.transition:
            data["oldSelf"] = to_cel(before, node) if had else data["self"]
            data["hadOldSelf"] = had
        outcome, problem = run_program(rule.program, data)
        if problem:
            failed = _failure(problem, rule.message or rule.source.strip())
            return FieldError(path or "<nil>", f"Invalid value: {_shown_in_failure(value)}: {failed}")
        if outcome is True:
            return None
        field = f"{path}{rule.field}" if path else rule.field.lstrip(".")
        return FieldError(field or "<nil>", _violation(rule.reason, value, self._message(rule, data)), rule.reason)

    @staticmethod
    def _message(rule: Rule, data: dict[str, Any]) -> str:
        if rule.message_program is not None:
            text, problem = run_program(rule.message_program, data)
            if not problem and isinstance(text, str) and text.strip() and "\n" not in text.strip():
                return text.strip()
        return rule.message or f"failed rule: {rule.source.strip()}"


def run_program(program: Any, data: dict[str, Any]) -> tuple[Any, str]:
    """Return the result of an expression and an empty string, or None and the error message of the engine."""
    try:
        outcome = program.eval(data=data)
    except RuntimeError as error:
        return None, str(error)
    try:
        value = outcome.value()
    except TypeError:
        return None, ""  # a type or an optional, which has no form in Python
    return (None, str(value)) if outcome.type().name() == "ERROR" else (value, "")


def _same_item(item: Any, before: Any, node: Node) -> Any:
    if node.list_type != "map" or not isinstance(before, list):
        return _ABSENT
    wanted = item_key(item, node)
    return next((old for old in before if item_key(old, node) == wanted), _ABSENT)


# Messages.


def problem_in_words(text: str) -> str:
    """Return an error message of the engine in the words of the real server; the first match in the file counts."""
    problem = (text.partition(": ")[2] or text).removesuffix(" [INVALID_ARGUMENT]").removesuffix(" [UNKNOWN]")
    for pattern, message in recorded("cel/messages.json").items():
        if re.search(pattern, problem):
            return re.sub(pattern, message, problem)
    return problem


def _failure(text: str, rule: str) -> str:
    problem = problem_in_words(text)
    return f"{_OVERLOAD}{rule}" if problem.startswith("no such overload") else f"{problem} evaluating rule: {rule}"


def _violation(reason: str, value: Any, message: str) -> str:
    if reason == "FieldValueRequired":
        return f"Required value: {message}"
    if reason == "FieldValueForbidden":
        return f"Forbidden: {message}"
    if reason == "FieldValueDuplicate":
        shown = _shown(value).removesuffix(": ")
        return f"Duplicate value: {shown}" if shown else "Duplicate value"
    return f"Invalid value: {_shown(value)}{message}"


def _shown(value: Any) -> str:
    """Return a value as the message of a violation shows it; objects and lists are not shown."""
    return "" if isinstance(value, (dict, list)) else f"{quoted(value)}: "


def _shown_in_failure(value: Any) -> str:
    """Return a value as the message of a failed evaluation shows it: objects and lists by their type alone."""
    return '"object"' if isinstance(value, dict) else '"array"' if isinstance(value, list) else quoted(value)


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
