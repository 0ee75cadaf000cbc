"""Compilation of the CEL rules of a schema (``x-kubernetes-validations``), with the errors of kube-apiserver."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reconciler.apiserver.cel.checker import check_expression, instantiation_problem
from reconciler.apiserver.cel.costs import (
    RULE_COST_LIMIT,
    TOTAL_COST_LIMIT,
    cost_of,
    excess_factor,
    occurrences,
    occurrences_below,
)
from reconciler.apiserver.cel.engine import (
    cel_type,
    checking_environment,
    named_types,
    require_engine,
    running_environment,
)
from reconciler.apiserver.cel.functions import functions
from reconciler.apiserver.cel.model import type_of
from reconciler.apiserver.cel.request_fields import unknown_fields
from reconciler.apiserver.cel.rewriting import Changes, referenced_names, runnable
from reconciler.apiserver.cel.syntax_tree import Tree, read_tree
from reconciler.apiserver.encoding.refusals import FieldError
from reconciler.apiserver.schema.shape import ANYTHING, Node
from reconciler.wire import JSONObject

__all__ = [
    "CheckedCondition",
    "CompileError",
    "CompiledRules",
    "Rule",
    "check_condition",
    "children",
    "compile_condition",
    "compile_rules",
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


@dataclass(slots=True)
class CompiledRules:
    """The compiled rules of a schema.

    Attributes:
        rules: the rules of each place, by the place's identity.
        relevant: whether a place or one below it has rules, by the place's identity.
        problems: the errors of the rules, each with the path of its rule below the schema. ``{root}`` in a message
            stands for the path of the schema.
    """

    rules: dict[int, list[Rule]] = field(default_factory=dict)
    relevant: dict[int, bool] = field(default_factory=dict)
    problems: list[tuple[str, FieldError]] = field(default_factory=list)


def compile_rules(root: Node) -> CompiledRules:
    """Compile the rules of a schema.

    Raises:
        MissingExtra: the schema has rules, but the CEL engine is not installed; rules are never ignored.
    """
    if not _has_rules(root):
        return CompiledRules()
    require_engine()
    return _SchemaCompiler(root).compile()


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


class _SchemaCompiler:
    """A compiler of the rules of one schema."""

    def __init__(self, root: Node) -> None:
        self._root = root
        self._compiled = CompiledRules()
        self._costs: list[tuple[int, str, str]] = []

    def compile(self) -> CompiledRules:
        self._place(self._root, "", correlatable=True, uncorrelated="")
        self._check_costs()
        return self._compiled

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
            self._compiled.rules[id(node)] = list(self._rules(node, path, correlatable, uncorrelated, times))
            here = True
        for step, child in children(node):
            still = correlatable and (step != ".items" or node.list_type == "map")
            if child.has_checks:
                lost = uncorrelated if still or uncorrelated else path
                more = times if step.startswith(".properties") else occurrences_below(times, node)
                here = self._place(child, path + step, correlatable=still, uncorrelated=lost, times=more) or here
        self._compiled.relevant[id(node)] = here
        return here

    def _rules(self, node: Node, path: str, correlatable: bool, uncorrelated: str, times: int | None) -> Iterator[Rule]:
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

    def _rule(self, rule: JSONObject, node: Node, place: str, correlatable: bool, uncorrelated: str) -> Rule:
        source = str(rule.get("rule") or "")
        optional = rule.get("optionalOldSelf")
        self._check_texts(rule, source, node, place)
        try:
            compiled = _compile_expression(source, node, optional_old=bool(optional))
        except CompileError as problem:
            self._report(place, FieldError.invalid_struct(".rule", _struct(rule), str(problem)))
            raise
        if compiled.result not in ("bool", "dyn"):
            message = "cel expression must evaluate to a bool"
            self._report(place, FieldError.invalid_struct(".rule", _struct(rule), message))
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
            cost_of(compiled.tree.root, node),
            message_cost,
        )

    def _message_program(self, rule: JSONObject, node: Node, place: str) -> tuple[Any, int]:
        source = str(rule.get("messageExpression") or "")
        if not source:
            return None, 0
        try:
            compiled = _compile_expression(source, node, optional_old=bool(rule.get("optionalOldSelf")))
        except CompileError as problem:
            message = f"messageExpression {problem}"
            self._report(place, FieldError.invalid_struct(".messageExpression", _struct(rule), message))
            return None, 0
        if compiled.result not in ("string", "dyn"):
            message = "messageExpression must evaluate to a string"
            self._report(place, FieldError.invalid_struct(".messageExpression", _struct(rule), message))
        return compiled.program, cost_of(compiled.tree.root, node)

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

    def _report(self, place: str, error: FieldError) -> None:
        self._compiled.problems.append((place, error))

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


def _struct(rule: JSONObject) -> JSONObject:
    """Return a rule as the Go struct that messages show."""
    return {
        "Rule": rule.get("rule") or "",
        "Message": rule.get("message") or "",
        "MessageExpression": rule.get("messageExpression") or "",
        "Reason": rule.get("reason"),
        "FieldPath": rule.get("fieldPath") or "",
        "OptionalOldSelf": rule.get("optionalOldSelf"),
    }


@dataclass(frozen=True, slots=True)
class CheckedCondition:
    """An expression about documents of any type that compiles.

    Attributes:
        type: the engine's type of its value; None if a variable cannot be declared with it.
        variables: the variables that it uses itself, in the order of their names.
        tree: the compiled expression.
    """

    type: Any
    variables: tuple[str, ...]
    tree: Tree


def check_condition(
    source: str, documents: Sequence[str], results: Sequence[str], variables: Mapping[str, Any] | None
) -> CheckedCondition:
    """Check an expression about documents of any type.

    Args:
        source: the expression.
        documents: the names of the documents.
        results: the types that it may have, of ``bool``, ``string`` and ``null_type``; empty for any.
        variables: the types of the variables that it may use as ``variables.name``, None for any type; None for a
            policy without variables.

    Raises:
        CompileError: it does not compile, or its result has another type.
        MissingExtra: the CEL engine is not installed.
    """
    require_engine()
    dyn = cel_type("dyn")
    declared = {_VARIABLE + name: kind or dyn for name, kind in (variables or {}).items()}
    environment = checking_environment({**dict.fromkeys(documents, dyn), **declared}, functions)
    try:
        expression = _compiled(source, environment, variables or ())
    except CompileError as error:
        words = str(error)
        if variables is not None:
            words = _UNDEFINED.sub(r"undefined field '\1'", words)
        raise CompileError(_first_names(words)) from None
    found = expression.return_type()
    name = "null_type" if found.name() == "NULL" else str(found.name()).lower()
    if results and name not in results:
        wanted = results[0] if len(results) == 1 else f"one of [{' '.join(results)}]"
        raise CompileError(f"must evaluate to {wanted} but got {name}")
    tree = read_tree(expression.serialize())
    undefined = [(tree.positions.get(place, 0), f"undefined field '{field}'") for place, field in unknown_fields(tree)]
    _check_tree(source, tree, undefined)
    used = {name.removeprefix(_VARIABLE) for name in referenced_names(tree) if name.startswith(_VARIABLE)}
    return CheckedCondition(None if name.startswith(_UNDECLARABLE) else found, tuple(sorted(used)), tree)


def compile_condition(checked: CheckedCondition, variables: Mapping[str, CheckedCondition]) -> Any:
    """Return the program of an expression.

    Args:
        checked: the expression.
        variables: the variables that it uses, and those that these use; each after those that it uses.

    Raises:
        CompileError: there are too many variables for the engine, about forty.
    """
    bound = [(_VARIABLE + name, each.tree) for name, each in variables.items()]
    changes = Changes(_runs_as(), {}, {}, False)
    try:
        return running_environment(functions).deserialize(runnable(checked.tree, changes, bound))
    except RuntimeError:
        raise CompileError(f"compilation failed: the expression uses too many variables: {len(bound)}") from None


_VARIABLE = "variables."
_UNDECLARABLE = ("optional_type", "type")
"""The types of values that the engine does not accept for a variable."""
_UNDEFINED = re.compile(r"undeclared reference to 'variables\.(\w+)[\w.]*' \(in container ''\)")


_TEST = re.compile(r"\bhas\s*\(\s*variables\s*\.\s*(\w+)\s*\)")


def _without_tests(source: str, variables: Collection[str]) -> str:
    """Return an expression with ``true`` for the test of whether a variable exists, which the engine takes for its use.

    The length of the lines stays.
    """

    def known(found: re.Match[str]) -> str:
        rest = re.sub(r"[^\n]", " ", found[0][4:])
        return f"true{rest}" if found[1] in variables and "\n" not in found[0][:4] else found[0]

    return _TEST.sub(known, source)


_UNDECLARED = re.compile(
    r"<input>:(\d+):(\d+): undeclared reference to '(\w+)\.[\w.]+' \(in container ''\)\n \| (.*)\n \| \.*\^"
)


def _first_names(text: str) -> str:
    """Return an error message of the engine that points at the unknown name itself, not at a member of it."""

    def first(found: re.Match[str]) -> str:
        line, column, name, shown = found.groups()
        at = max(shown.rfind(name, 0, int(column)), 0)
        reference = f"<input>:{line}:{at + 1}: undeclared reference to '{name}' (in container '')"
        return f"{reference}\n | {shown}\n | {'.' * at}^"

    return _UNDECLARED.sub(first, text)


# Single expressions.


class CompileError(Exception):
    """An expression that does not compile."""


@dataclass(frozen=True, slots=True)
class _Expression:
    """A compiled expression.

    Attributes:
        program: the expression, ready to run.
        result: the type of its result, such as ``bool``; ``dyn`` if it is unknown.
        tree: its syntax tree, with macros expanded.
        uses_old: whether it uses ``oldSelf``.
    """

    program: Any
    result: str
    tree: Tree
    uses_old: bool


def _compile_expression(source: str, node: Node, *, optional_old: bool) -> _Expression:
    """Compile an expression about a place.

    Args:
        source: the expression.
        node: the place.
        optional_old: ``oldSelf`` is an optional, which has a value if ``hadOldSelf`` is true.

    Raises:
        CompileError: it does not compile.
    """
    kind = cel_type(_type_name(node))
    variables = {"self": kind, "oldSelf": cel_type("dyn") if optional_old else kind}
    expression = _compiled(source, checking_environment(variables, functions))
    tree = read_tree(expression.serialize())
    checked = check_expression(tree, node, optional_old=optional_old)
    _check_tree(source, tree, checked.problems)
    program = running_environment(functions).deserialize(
        runnable(tree, Changes(_runs_as(), checked.conversions, checked.unordered, optional_old))
    )
    return _Expression(program, checked.result or expression.return_type().name().lower(), tree, checked.uses_old)


def _compiled(source: str, environment: Any, variables: Collection[str] = ()) -> Any:
    """Return an expression as the engine compiles it."""
    compiled = _without_tests(_with_one_spelling(source, environment), variables)
    try:
        return environment.compile(compiled)
    except RuntimeError as error:
        raise CompileError(f"compilation failed: {_as_real_server(str(error), compiled, source)}") from None


def _check_tree(source: str, tree: Tree, problems: Sequence[tuple[int, str]]) -> None:
    if problems:
        raise CompileError(_with_source_lines(source, problems))
    if problem := instantiation_problem(tree.root):
        raise CompileError(f"program instantiation failed: {problem}")


@functools.cache
def _runs_as() -> Mapping[str, str]:
    return {function.runs_as: function.runs_as for function in functions() if function.runs_as}


_EXISTS_ONE = re.compile(r"\bexists_one\b")


def _with_one_spelling(source: str, environment: Any) -> str:
    """Return an expression with ``exists_one`` with two variables spelled ``existsOne``, as the engine spells it."""
    if "exists_one" not in source:
        return source
    try:
        tree = read_tree(environment.compile(source, disable_check=True).serialize())
    except RuntimeError:
        return source
    for expr in tree.root.walk():
        if expr.kind == "call" and expr.name == "exists_one" and len(expr.parts) == 4:
            at = [match.start() for match in _EXISTS_ONE.finditer(source, 0, tree.positions.get(expr.id, 0))]
            if at:
                source = f"{source[: at[-1]]}existsOne {source[at[-1] + len('exists_one') :]}"
    return source


_MISMATCH = re.compile(r"(<input>:(\d+):(\d+): found no matching overload for '([\w.]+)' applied to ')\((.*)\)'")


def _as_real_server(text: str, compiled: str, source: str) -> str:
    """Return an error message of the engine as the real server words it, with the receiver of a call apart."""
    text = text.removeprefix("INVALID_ARGUMENT: ").removesuffix(" [INVALID_ARGUMENT]")
    for changed, line in zip(compiled.split("\n"), source.split("\n"), strict=True):
        text = text.replace(f" | {changed}", f" | {line}")
    lines = source.split("\n")

    def receiver_first(found: re.Match[str]) -> str:
        before = lines[int(found[2]) - 1][: int(found[3]) - 1].rstrip()
        if not before.endswith(f".{found[4]}"):
            return found[0]
        first, rest = _split_first(found[5])
        return f"{found[1]}{first}.({rest})'"

    return _MISMATCH.sub(receiver_first, named_types(_in_order(text)))


_ERROR_LINE = re.compile(r"ERROR: <input>:(\d+):(\d+): ")


def _in_order(text: str) -> str:
    """Return error messages in the order of their positions."""

    def position(error: str) -> tuple[int, int]:
        found = _ERROR_LINE.match(error)
        return (int(found[1]), int(found[2])) if found else (0, 0)

    return "\n".join(sorted(re.split(r"\n(?=ERROR: )", text), key=position))


def _split_first(types: str) -> tuple[str, str]:
    """Return the first of several types, and the rest."""
    depth = 0
    for at, letter in enumerate(types):
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            return types[:at], types[at + 1 :].lstrip()
    return types, ""


def _with_source_lines(source: str, problems: Iterable[tuple[int, str]]) -> str:
    """Return error messages with the source lines that they point at."""
    lines = []
    for position, problem in problems:
        before = source[:position]
        line, column = before.count("\n"), position - (before.rfind("\n") + 1)
        shown = source.split("\n")[line]
        lines.append(f"ERROR: <input>:{line + 1}:{column + 1}: {problem}\n | {shown}\n | {'.' * column}^")
    return "compilation failed: " + "\n".join(lines)


def _type_name(node: Node) -> str:
    if node.type == "object" and not type_of(node):
        return "map(string, dyn)"
    return type_of(node).replace("object", "map(string, dyn)") or "dyn"
