"""Compiles, limits and evaluates CEL: the rules of a schema (``x-kubernetes-validations``), and conditions of webhooks.

Rules that the real server rejects as too expensive are rejected by a cost estimate. It follows the outline of the
server's library: a step costs one, a string costs a tenth of its length, and the body of a loop costs as often as the
list may have items. Estimates are low rather than high: the unknown sizes of computed values count as zero, except that
of ``string(…)``, which has no limit in a concatenation. So every rule that is rejected here is rejected by the real
server, but a rule that exceeds the budget slightly may be accepted.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from reconciler._core.wire import JSONObject
from reconciler.apiserver.cel.expressions import CompileError, Expression, check_condition, compile_expression
from reconciler.apiserver.cel.syntax_tree import Expr, to_cel
from reconciler.apiserver.encoding.refusals import FieldError, Findings
from reconciler.apiserver.encoding.text import quoted, recorded
from reconciler.apiserver.encoding.versions import has_feature
from reconciler.apiserver.schema import NO_DEFAULT, Node, item_key, json_type

RULE_COST_LIMIT = 10_000_000
"""The budget of one rule; apiextensions' ``StaticEstimatedCostLimit``."""

TOTAL_COST_LIMIT = 100_000_000
"""The budget of all rules of a schema; apiextensions' ``StaticEstimatedCRDCostLimit``."""

_UNLIMITED = 2**64
_LARGEST_REQUEST = 3 * 1024 * 1024
_MAX_LENGTHS = {"date": 10, "date-time": 35, "datetime": 35, "duration": 32, "uuid": 36, "ipv4": 15, "ipv6": 45}
_MIN_LENGTHS = {"date": 12, "date-time": 22, "duration": 4}
_STRING_FUNCTIONS = frozenset({"contains", "matches", "find", "split", "replace", "lowerAscii", "upperAscii"})
_ADVICE = (
    "try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are "
    "declared"
)


def _max_size(node: Node | None) -> int:
    """Return the maximum number of characters, items or members: the schema's limit, or what fits into a request."""
    if node is None:
        return 0
    if node.max_size is not None:
        return node.max_size
    if node.type == "string":
        return _MAX_LENGTHS.get(node.format, _LARGEST_REQUEST)
    if node.type == "array":
        return _LARGEST_REQUEST // (_min_bytes(node.items) + 1)
    if node.type == "object" and node.additional is not None:
        return _LARGEST_REQUEST // (_min_bytes(node.additional) + 4)
    return 1


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


def _excess(cost: int, most: int) -> str:
    """Return by which factor a cost exceeds its limit, with advice, as messages show it."""
    times = cost / most
    shown = "more than 100" if times > 100 else f"{times:.6f}".rstrip("0").rstrip(".")
    return f"by factor of {shown}x ({_ADVICE})"


def _cost(expr: Expr, places: Mapping[int, Node]) -> int:
    """Return the maximum cost of one evaluation of an expression."""
    costs = [_cost(part, places) for part in expr.parts]
    if expr.kind == "ident":
        return 1
    if expr.kind == "select":
        return sum(costs) + (not expr.test)
    if expr.kind == "loop":
        over, first, condition, step, result = costs
        return over + first + _max_size(places.get(expr.parts[0].id)) * (condition + step) + result
    if expr.kind != "call" or expr.name in ("_&&_", "_||_"):
        return sum(costs)
    if expr.name == "_?_:_":
        return costs[0] + max(costs[1:])
    return sum(costs) + 1 + _sizes(expr, [places.get(part.id) for part in expr.parts])


def _sizes(expr: Expr, places: list[Node | None]) -> int:
    """Return the part of a function's cost that depends on the sizes of its arguments."""
    if expr.name == "_+_" and any(part.kind == "call" and part.name == "string" for part in expr.parts):
        return _UNLIMITED
    known = [place for place in places if place is not None and place.type]
    if expr.name in ("endsWith", "startsWith"):
        asked = places[-1]
        return len(expr.parts[-1].text) // 10 if asked is None else _max_size(asked) // 10
    if expr.name in _STRING_FUNCTIONS and known and places[0] is not None:
        searched = len(expr.parts[1].text) if len(expr.parts) > 1 else 0
        return _max_size(places[0]) // 10 * max(1, searched // (4 if expr.name == "matches" else 10))
    if expr.name in ("_==_", "_!=_") and len(known) == 2:
        return min(map(_max_size, known)) // 10
    return _max_size(places[-1]) if expr.name == "@in" else 0


_REASONS = ("FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired")


class ValidationRule(NamedTuple):
    """A compiled rule.

    Attributes:
        written: the rule as in the schema.
        program: the compiled expression.
        message_program: an expression that computes the message, or None.
        transition: whether the rule uses ``oldSelf``.
    """

    written: JSONObject
    program: Any
    message_program: Any
    transition: bool

    @property
    def source(self) -> str:
        """The expression."""
        return str(self.written["rule"]).strip()

    @property
    def message(self) -> str:
        """The message to report if the rule is violated, or empty."""
        return str(self.written.get("message") or "").strip()


class _Position(NamedTuple):
    """A place of a schema.

    Attributes:
        path: its path in the schema.
        uncorrelated: the path of the list below which an update cannot tell which old value belongs to a new one, or
            None.
        times: how often the place may occur in a document, or None if there is no limit.
    """

    path: str = ""
    uncorrelated: str | None = None
    times: int | None = 1

    def below(self, node: Node, step: str) -> _Position:
        """Return the position of a place below the node at this one."""
        uncorrelated, times = self.uncorrelated, self.times
        if step == ".items" and node.list_type != "map" and uncorrelated is None:
            uncorrelated = self.path
        if not step.startswith(".properties"):
            times = None if times is None or node.max_size is None else times * node.max_size
        return _Position(self.path + step, uncorrelated, times)


def _children(node: Node) -> Iterator[tuple[str, Node]]:
    """Yield the places below a place that may have rules, each with its step in the path of the schema."""
    for key, child in node.properties.items():
        if child.has_checks:
            yield f".properties[{key}]", child
    for step, other in ((".additionalProperties", node.additional), (".items", node.items)):
        if other is not None and other.has_checks:
            yield step, other


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


class RuleSet:
    """The compiled rules of a schema. It is true if there are any.

    Args:
        root: the compiled schema.
        release: the version of Kubernetes of the server.

    Raises:
        MissingExtra: the schema has rules, but the CEL engine is not installed; rules are never ignored.
    """

    def __init__(self, root: Node, release: str) -> None:
        self._root = root
        self._shows_values = has_feature("ValuesInRuleErrors", release)
        self._rules: dict[int, list[ValidationRule]] = {}
        # The places that have rules, or of which one below has.
        self._relevant: set[int] = set()
        # Each with the path of its rule below the schema. ``{root}`` in a message stands for the path of the schema.
        self._problems: list[tuple[str, FieldError]] = []
        self._costs: list[tuple[int, str, str]] = []
        self._compile_place(root, _Position())
        self._check_costs()

    def __bool__(self) -> bool:
        return bool(self._rules)

    def _compile_place(self, node: Node, at: _Position) -> bool:
        """Compile the rules of a place and of the places below it; return whether there are any."""
        for index, written in enumerate(node.rules):
            with contextlib.suppress(CompileError):
                rule = self._rule(written, node, at._replace(path=f"{at.path}.x-kubernetes-validations[{index}]"))
                self._rules.setdefault(id(node), []).append(rule)
        below = [self._compile_place(child, at.below(node, step)) for step, child in _children(node)]
        if node.rules or any(below):
            self._relevant.add(id(node))
        return id(node) in self._relevant

    def _rule(self, rule: JSONObject, node: Node, at: _Position) -> ValidationRule:
        source = str(rule.get("rule") or "")
        self._check_texts(rule, source, node, at.path)
        compiled = self._compile(rule, "rule", node, at)
        if compiled.result not in ("bool", "dyn"):
            self._report_struct(rule, "rule", at.path, "cel expression must evaluate to a bool")
        if compiled.uses_old and at.uncorrelated is not None:
            message = "oldSelf cannot be used on the uncorrelatable portion of the schema within {root}"
            self._report(at.path, FieldError.invalid(".rule", source, message + at.uncorrelated))
        if rule.get("optionalOldSelf") is not None and not compiled.uses_old:
            message = "may not be set if oldSelf is not used in rule"
            self._report(at.path, FieldError.invalid(".optionalOldSelf", rule["optionalOldSelf"], message))
        message_program = None
        if rule.get("messageExpression"):
            with contextlib.suppress(CompileError):
                computed = self._compile(rule, "messageExpression", node, at)
                message_program = computed.program
                if computed.result not in ("string", "dyn"):
                    wrong = "messageExpression must evaluate to a string"
                    self._report_struct(rule, "messageExpression", at.path, wrong)
        return ValidationRule(rule, compiled.program, message_program, compiled.uses_old)

    def _compile(self, rule: JSONObject, member: str, node: Node, at: _Position) -> Expression:
        try:
            found = compile_expression(str(rule[member]), node, optional_old=bool(rule.get("optionalOldSelf")))
        except CompileError as problem:
            prefix = "" if member == "rule" else f"{member} "
            self._report_struct(rule, member, at.path, f"{prefix}{problem}")
            raise
        times = _LARGEST_REQUEST // (_min_bytes(node) + 1) if at.times is None else at.times
        self._costs.append((_cost(found.root, found.places) * times, at.path, member))
        return found

    def _check_texts(self, rule: JSONObject, source: str, node: Node, path: str) -> None:
        if not source.strip():
            self._report(path, FieldError.required(".rule", "rule is not specified"))
            raise CompileError
        message = str(rule.get("message") or "")
        if message and not message.strip():
            self._report(path, FieldError.invalid(".message", message, "must be non-empty if specified"))
        elif "\n" in message.strip():
            self._report(path, FieldError.invalid(".message", message, "must not contain line breaks"))
        elif not message and "\n" in source.strip() and not rule.get("messageExpression"):
            text = "message must be specified if rule contains line breaks"
            self._report(path, FieldError.required(".message", text))
        reason = rule.get("reason")
        if reason and reason not in _REASONS:
            self._report(path, FieldError.not_supported(".reason", reason, _REASONS))
        field = rule.get("fieldPath")
        if field and not _is_path(str(field), node):
            self._report(path, FieldError.invalid(".fieldPath", field, "must be a valid path"))

    def _report_struct(self, rule: JSONObject, member: str, path: str, message: str) -> None:
        """Report an error of a member of a rule that shows the rule as a Go struct."""
        names = ("Rule", "Message", "MessageExpression", "Reason", "FieldPath", "OptionalOldSelf")
        shown: JSONObject = {name: rule.get(name[0].lower() + name[1:]) for name in names}
        texts = {name: shown[name] or "" for name in ("Rule", "Message", "MessageExpression", "FieldPath")}
        self._report(path, FieldError.invalid_struct(f".{member}", shown | texts, message))

    def _report(self, path: str, error: FieldError) -> None:
        self._problems.append((path, error))

    def _check_costs(self) -> None:
        """Report rules over their budget, and the most expensive rules if all together are over theirs."""
        for cost, path, part in self._costs:
            if cost > RULE_COST_LIMIT:
                message = f"estimated {part} cost exceeds budget {_excess(cost, RULE_COST_LIMIT)}"
                self._report(path, FieldError.forbidden(f".{part}", message))
        total = sum(cost for cost, *_ in self._costs)
        if total <= TOTAL_COST_LIMIT:
            return
        for cost, path, part in sorted(self._costs, reverse=True)[:4]:
            if cost > TOTAL_COST_LIMIT // 100:
                message = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"
                self._report(path, FieldError.forbidden(f".{part}", message))
        whole = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema exceeds budget"
        self._report("", FieldError.forbidden("", f"{whole} {_excess(total, TOTAL_COST_LIMIT)}"))

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
        if node.written_default is not NO_DEFAULT and id(node) in self._relevant:
            for error in self._evaluate(node.written_default, _ABSENT, node, ""):
                below = "" if error.field == "<nil>" else f".{error.field}"
                yield FieldError(f"{path}.default{below}", error.message, error.reason)
        for step, child in _children(node):
            yield from self._default_errors(child, path + step)

    def errors(self, doc: JSONObject, before: JSONObject | None) -> list[FieldError]:
        """Return an error for each rule that a valid document violates; `before` is the document that it replaces."""
        return list(self._evaluate(doc, _ABSENT if before is None else before, self._root, ""))

    def _evaluate(self, value: Any, before: Any, node: Node, path: str) -> Findings:
        if value is None or id(node) not in self._relevant:
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
        if rule.transition and not had and not rule.written.get("optionalOldSelf"):
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
            failed = _failure(problem, rule.message or rule.source)
            return FieldError(path or "<nil>", f"Invalid value: {self._shown(value)}: {failed}")
        if outcome is True:
            return None
        field = f"{path}{rule.written.get('fieldPath') or ''}".lstrip(".")
        reason = str(rule.written.get("reason") or "FieldValueInvalid")
        hidden = self._shows_values and isinstance(value, (dict, list))
        shown = "" if hidden else f"{self._shown(value)}: "
        return FieldError(field or "<nil>", _violation(reason, shown, self._message(rule, data)), reason)

    def _shown(self, value: Any) -> str:
        """Return a value as a message shows it: objects and lists by their type alone, before 1.35 all values."""
        by_type = isinstance(value, (dict, list)) or not self._shows_values
        return f'"{json_type(value)}"' if by_type else quoted(value)

    @staticmethod
    def _message(rule: ValidationRule, data: dict[str, Any]) -> str:
        if rule.message_program is not None:
            text, problem = run_program(rule.message_program, data)
            if not problem and isinstance(text, str) and text.strip() and "\n" not in text.strip():
                return text.strip()
        return rule.message or f"failed rule: {rule.source}"


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


def _violation(reason: str, shown: str, message: str) -> str:
    if reason == "FieldValueRequired":
        return f"Required value: {message}"
    if reason == "FieldValueForbidden":
        return f"Forbidden: {message}"
    if reason == "FieldValueDuplicate":
        return f"Duplicate value: {shown}".removesuffix(": ")
    return f"Invalid value: {shown}{message}"


def conditions_met(webhook: JSONObject, documents: Mapping[str, Any]) -> tuple[bool, list[str]]:
    """Return whether no match condition of a webhook is false, and the problems of those that cannot be evaluated.

    If any is false, the problems of the others do not count.
    """
    problems = []
    for each in webhook.get("matchConditions") or ():
        source = each["expression"].strip()
        try:
            value, problem = run_program(check_condition(source), dict(documents))
        except CompileError as error:
            value, problem = None, str(error)
        else:
            problem = problem and problem_in_words(problem)
        if value is False:
            return False, []
        if problem:
            problems.append(f"expression '{source}' resulted in error: {problem}")
    return True, problems
