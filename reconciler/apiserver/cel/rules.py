"""Compiles, limits and evaluates CEL: the rules of a schema (``x-kubernetes-validations``), and conditions of webhooks.

Rules that the real server rejects as too expensive are rejected by a cost estimate. It follows the outline of the
server's library: a step costs one, a string costs a tenth of its length, and the body of a loop costs as often as the
list may have items. Estimates are low rather than high: the unknown sizes of computed values count as zero, except that
of ``string(…)``, which has no limit in a concatenation. So every rule that is rejected here is rejected by the real
server, but a rule that exceeds the budget slightly may be accepted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from reconciler._core.wire import JSONObject
from reconciler.apiserver.cel.expressions import (
    CompileError,
    Expression,
    check_condition,
    compile_expression,
)
from reconciler.apiserver.cel.functions import require_engine
from reconciler.apiserver.cel.syntax_tree import Expr, member_of, to_cel
from reconciler.apiserver.encoding.refusals import FieldError, Findings
from reconciler.apiserver.encoding.text import quoted, recorded
from reconciler.apiserver.schema import ANYTHING, NO_DEFAULT, Node, item_key

RULE_COST_LIMIT = 10_000_000
"""The budget of one rule; apiextensions' ``StaticEstimatedCostLimit``."""

TOTAL_COST_LIMIT = 100_000_000
"""The budget of all rules of a schema; apiextensions' ``StaticEstimatedCRDCostLimit``."""

_UNLIMITED = 2**64
_LARGEST_REQUEST = 3 * 1024 * 1024
_MAX_LENGTHS = {"date": 10, "date-time": 35, "datetime": 35, "duration": 32, "uuid": 36, "ipv4": 15, "ipv6": 45}
_MIN_LENGTHS = {"date": 12, "date-time": 22, "duration": 4}
_STRING_FUNCTIONS = frozenset({"contains", "matches", "find", "split", "replace", "lowerAscii", "upperAscii"})
Scope = Mapping[str, Node | None]


def _max_size(node: Node) -> int:
    """Return the maximum number of characters, items or members: the schema's limit, or what fits into a request."""
    if node.max_size is not None:
        return node.max_size
    if node.type == "string":
        return _MAX_LENGTHS.get(node.format, _LARGEST_REQUEST)
    if node.type == "array":
        return _LARGEST_REQUEST // (_min_bytes(node.items) + 1)
    if node.type == "object" and node.additional is not None:
        return _LARGEST_REQUEST // (_min_bytes(node.additional) + 4)
    return 1


def occurrences_below(times: int | None, node: Node) -> int | None:
    """Return how often a place below a list or map may occur in a document; None if there is no limit."""
    return None if times is None or node.max_size is None else times * node.max_size


def occurrences(node: Node, times: int | None) -> int:
    """Return how often a place may occur in a document: the limit, or what fits into a request."""
    return _LARGEST_REQUEST // (_min_bytes(node) + 1) if times is None else times


def _min_bytes(node: Node | None) -> int:
    """Return the length of the shortest valid JSON of a value."""
    if node is None or node.type in ("integer", "number"):
        return 1
    if node.type == "boolean":
        return 4
    if node.type == "string":
        return _MIN_LENGTHS.get(node.format, 2)
    needed = ((key, node.properties[key]) for key in node.required if key in node.properties)
    return 2 + sum(len(key) + 4 + _min_bytes(child) for key, child in needed if child.default is NO_DEFAULT)


def cost_of(expr: Expr, node: Node) -> int:
    """Return the maximum cost of one evaluation of a rule at a place."""
    return _cost(expr, {"self": node, "oldSelf": node})[0]


def excess_factor(cost: int, most: int) -> str:
    """Return the factor by which a cost exceeds its limit, as messages show it."""
    times = cost / most
    return "more than 100x" if times > 100 else f"{times:.6f}".rstrip("0").rstrip(".") + "x"


def _cost(expr: Expr, scope: Scope) -> tuple[int, Node | None]:
    """Return the cost of an expression, and its place in the schema if it has one."""
    if expr.kind == "ident":
        return 1, scope.get(expr.name)
    if expr.kind == "select":
        cost, owner = _cost(expr.parts[0], scope)
        if expr.test:
            return cost, None
        known = owner is not None and owner is not ANYTHING
        return cost + 1, member_of(owner, expr.name) if known and owner is not None else None
    if expr.kind == "loop" and len(expr.parts) == 5:
        return _loop(expr, scope), None
    return _call(expr, [_cost(part, scope) for part in expr.parts]), None


def _call(expr: Expr, parts: list[tuple[int, Node | None]]) -> int:
    costs = [cost for cost, _ in parts]
    if expr.kind != "call" or expr.name in ("_&&_", "_||_"):
        return sum(costs)
    if expr.name == "_?_:_":
        return costs[0] + max(costs[1:])
    return sum(costs) + 1 + _sizes(expr, [place for _, place in parts])


def _loop(expr: Expr, scope: Scope) -> int:
    over, place = _cost(expr.parts[0], scope)
    item = None if place is None else place.items
    inner = {**scope, expr.name: item, expr.other: None}
    if expr.second:
        inner |= {expr.name: None, expr.second: None if place is None else place.items or place.additional}
    first, condition, step, result = (_cost(part, inner)[0] for part in expr.parts[1:])
    rounds = 0 if place is None else _max_size(place)
    return over + first + rounds * (condition + step) + result


def _sizes(expr: Expr, places: list[Node | None]) -> int:
    """Return the part of a function's cost that depends on the sizes of its arguments."""
    if expr.name == "_+_" and any(part.kind == "call" and part.name == "string" for part in expr.parts):
        return _UNLIMITED
    known = [place for place in places if place is not None and place.type]
    if expr.name in ("endsWith", "startsWith"):
        asked = places[-1]
        return len(expr.parts[-1].text) // 10 if asked is None else _max_size(asked) // 10
    if expr.name in _STRING_FUNCTIONS and known and places[0] is not None:
        searched = max(1, len(expr.parts[1].text)) if len(expr.parts) > 1 and expr.parts[1].text else 1
        return (
            _max_size(places[0]) // 10 * (max(1, searched // 4) if expr.name == "matches" else max(1, searched // 10))
        )
    if expr.name in ("_==_", "_!=_") and len(known) == 2:
        return min(map(_max_size, known)) // 10
    if expr.name == "@in" and places[-1] is not None:
        return _max_size(places[-1])
    return 0


_REASONS = ("FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired")


@dataclass(frozen=True, slots=True)
class ValidationRule:
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
        self.rules: dict[int, list[ValidationRule]] = {}
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
                more = times if step.startswith(".properties") else occurrences_below(times, node)
                here = self._place(child, path + step, correlatable=still, uncorrelated=lost, times=more) or here
        self.relevant[id(node)] = here
        return here

    def _rules(
        self, node: Node, path: str, correlatable: bool, uncorrelated: str, times: int | None
    ) -> Iterator[ValidationRule]:
        for index, written in enumerate(node.rules):
            place = f"{path}.x-kubernetes-validations[{index}]"
            try:
                rule = self._rule(written, node, place, correlatable, uncorrelated)
            except CompileError:
                continue
            times_checked = occurrences(node, times)
            self._costs.append((rule.cost * times_checked, place, "rule"))
            self._costs.append((rule.message_cost * times_checked, place, "messageExpression"))
            yield rule

    def _rule(self, rule: JSONObject, node: Node, place: str, correlatable: bool, uncorrelated: str) -> ValidationRule:
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
        return ValidationRule(
            source,
            compiled.program,
            str(rule.get("message") or "").strip(),
            message_program,
            str(rule.get("reason") or "FieldValueInvalid"),
            str(rule.get("fieldPath") or ""),
            compiled.uses_old,
            bool(optional),
            cost_of(compiled.tree.root, node),
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
        return compiled.program, cost_of(compiled.tree.root, node)

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
            if cost > RULE_COST_LIMIT:
                by = excess_factor(cost, RULE_COST_LIMIT)
                message = f"estimated {part} cost exceeds budget by factor of {by} ({advice})"
                self._report(place, FieldError.forbidden(f".{part}", message))
        total = sum(cost for cost, *_ in self._costs)
        if total <= TOTAL_COST_LIMIT:
            return
        for cost, place, part in sorted(self._costs, reverse=True)[:4]:
            if cost > TOTAL_COST_LIMIT // 100:
                message = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"
                self._report(place, FieldError.forbidden(f".{part}", message))
        by = excess_factor(total, TOTAL_COST_LIMIT)
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

    def _check(self, rule: ValidationRule, value: Any, before: Any, node: Node, path: str) -> FieldError | None:
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
    def _message(rule: ValidationRule, data: dict[str, Any]) -> str:
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
class MatchCondition:
    """An expression about the documents of a webhook request, compiled when it is first evaluated.

    Attributes:
        source: the expression as written.
    """

    source: str

    @cached_property
    def _program(self) -> Any:
        return check_condition(self.source, CONDITION_VARIABLES)

    def evaluate(self, documents: Mapping[str, Any]) -> tuple[Any, str]:
        """Return the value, and an empty string or what went wrong."""
        try:
            value, problem = run_program(self._program, dict(documents))
        except CompileError as error:
            value, problem = None, str(error)
        else:
            problem = problem and problem_in_words(problem)
        return value, f"expression '{self.source}' resulted in error: {problem}" if problem else ""

    def check(self) -> None:
        """Raise `CompileError` if the expression does not compile, or its value is not a boolean."""
        _ = self._program


def match_conditions(webhook: JSONObject) -> list[MatchCondition]:
    """Return the ``matchConditions`` of a webhook."""
    return [MatchCondition(each["expression"].strip()) for each in webhook.get("matchConditions") or ()]


def outcome_of(conditions: Sequence[MatchCondition], documents: Mapping[str, Any]) -> tuple[bool, list[str]]:
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
