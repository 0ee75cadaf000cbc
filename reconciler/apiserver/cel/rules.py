"""Compile and evaluate the CEL rules of a schema (``x-kubernetes-validations``)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from reconciler.apiserver.cel.compiler import Refused, compile_source
from reconciler.apiserver.cel.costs import MOST_OF_A_RULE, MOST_OF_ALL, cost_of, factor, how_often, times_more
from reconciler.apiserver.cel.engine import require_engine
from reconciler.apiserver.cel.model import to_cel
from reconciler.apiserver.cel.problems import not_held, shown_in_failure, what_failed
from reconciler.apiserver.encoding.refusals import FieldError
from reconciler.apiserver.encoding.text import go_json, quoted
from reconciler.apiserver.schema.shape import ANYTHING, NO_DEFAULT, Node
from reconciler.apiserver.schema.validation import item_key

__all__ = ["RuleSet"]

_REASONS = ("FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired")
_ABSENT = object()


@dataclass(slots=True)
class _Rule:
    """Hold one compiled rule.

    Attributes:
        source: the rule as written.
        program: the compiled expression.
        message: what to say when it does not hold, or empty.
        message_program: an expression that says it better, or None.
        reason: the reason of the finding.
        field: the path below the place, such as ``.spec``, that the finding is about.
        transition: whether it compares with the value before.
        optional: whether ``oldSelf`` is an optional.
        cost: what asking it once costs at most.
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


class RuleSet:
    """Hold the rules of a schema, compiled.

    Args:
        root: the schema.

    Raises:
        MissingExtra: there are rules and no engine for them is installed: rules are never left out.
    """

    def __init__(self, root: Node) -> None:
        self._root = root
        self._rules: dict[int, list[_Rule]] = {}
        self._ruled: dict[int, bool] = {}
        self._problems: list[tuple[str, FieldError]] = []
        if _has_rules(root):
            require_engine()
            self._costs: list[tuple[int, str]] = []
            self._compile(root, "", correlatable=True, uncorrelated="")
            self._check_costs()

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
        """Return which defaults the rules forbid; the paths begin with `path`."""
        return list(self._default_errors(self._root, path)) if self else []

    def _default_errors(self, node: Node, path: str) -> Iterator[FieldError]:
        if node.default is not NO_DEFAULT and self._ruled.get(id(node)):
            for error in self._evaluate(node.default, _ABSENT, node, ""):
                below = "" if error.field == "<nil>" else f".{error.field}"
                yield FieldError(f"{path}.default{below}", error.message, error.reason)
        for step, child in _below(node):
            if child.watched:
                yield from self._default_errors(child, path + step)

    def errors(self, doc: dict[str, Any], before: dict[str, Any] | None) -> list[FieldError]:
        """Return the rules that do not hold.

        Args:
            doc: a document that has the right shape.
            before: the document that it replaces, or None.
        """
        return list(self._evaluate(doc, _ABSENT if before is None else before, self._root, ""))

    # compiling

    def _check_costs(self) -> None:
        """Refuse rules that cost too much: each for itself, and the dearest ones when all together do."""
        advice = (
            "try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and "
            "strings are declared"
        )
        for cost, place in self._costs:
            if cost > MOST_OF_A_RULE:
                by = factor(cost, MOST_OF_A_RULE)
                message = f"Forbidden: estimated rule cost exceeds budget by factor of {by} ({advice})"
                self._refuse(place, ".rule", message, "FieldValueForbidden")
        total = sum(cost for cost, _ in self._costs)
        if total <= MOST_OF_ALL:
            return
        for cost, place in sorted(self._costs, reverse=True)[:4]:
            if cost > MOST_OF_ALL // 100:
                part = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"
                message = f"Forbidden: {part}"
                self._refuse(place, ".rule", message, "FieldValueForbidden")
        by = factor(total, MOST_OF_ALL)
        whole = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema exceeds budget"
        self._refuse("", "", f"Forbidden: {whole} by factor of {by} ({advice})", "FieldValueForbidden")

    def _compile(self, node: Node, path: str, *, correlatable: bool, uncorrelated: str, times: int | None = 1) -> bool:
        here = False
        if node.rules:
            compiled = []
            for index, rule in enumerate(node.rules):
                place = f"{path}.x-kubernetes-validations[{index}]"
                try:
                    compiled.append(self._compile_rule(rule, node, place, correlatable, uncorrelated))
                    self._costs.append((compiled[-1].cost * how_often(node, times), place))
                except Refused:
                    continue
            self._rules[id(node)] = compiled
            here = True
        for step, child in _below(node):
            still = correlatable and (step != ".items" or node.list_type == "map")
            if child.watched:
                lost = uncorrelated if still or uncorrelated else path
                more = times if step.startswith(".properties") else times_more(times, node)
                here = self._compile(child, path + step, correlatable=still, uncorrelated=lost, times=more) or here
        self._ruled[id(node)] = here
        return here

    def _compile_rule(
        self, rule: dict[str, Any], node: Node, place: str, correlatable: bool, uncorrelated: str
    ) -> _Rule:
        source = str(rule.get("rule") or "")
        self._check_texts(rule, source, place)
        try:
            compiled = compile_source(source, node, optional_old=bool(rule.get("optionalOldSelf")))
        except Refused as problem:
            self._refuse(place, ".rule", f"Invalid value: {_shown(rule)}: {problem}")
            raise
        if compiled.result not in ("bool", "dyn"):
            message = f"Invalid value: {_shown(rule)}: cel expression must evaluate to a bool"
            self._refuse(place, ".rule", message)
        optional = rule.get("optionalOldSelf")
        if compiled.uses_old and not correlatable:
            message = (
                f"Invalid value: {quoted(source)}: oldSelf cannot be used on the uncorrelatable portion of the schema "
                f"within {{root}}{uncorrelated}"
            )
            self._refuse(place, ".rule", message)
        if optional is not None and not compiled.uses_old:
            message = f"Invalid value: {quoted(optional)}: may not be set if oldSelf is not used in rule"
            self._refuse(place, ".optionalOldSelf", message)
        message_program = None
        if rule.get("messageExpression"):
            try:
                said = compile_source(
                    str(rule["messageExpression"]), node, optional_old=bool(rule.get("optionalOldSelf"))
                )
                message_program = said.program
                if said.result not in ("string", "dyn"):
                    message = f"Invalid value: {_shown(rule)}: messageExpression must evaluate to a string"
                    self._refuse(place, ".messageExpression", message)
            except Refused as problem:
                message = f"Invalid value: {_shown(rule)}: messageExpression {problem}"
                self._refuse(place, ".messageExpression", message)
        return _Rule(
            source,
            compiled.program,
            str(rule.get("message") or "").strip(),
            message_program,
            str(rule.get("reason") or "FieldValueInvalid"),
            str(rule.get("fieldPath") or ""),
            compiled.uses_old,
            bool(optional),
            cost_of(compiled.tree.root, node),
        )

    def _check_texts(self, rule: dict[str, Any], source: str, place: str) -> None:
        if not source.strip():
            self._refuse(place, ".rule", "Required value: rule is not specified", "FieldValueRequired")
            raise Refused
        message = str(rule.get("message") or "")
        if message and not message.strip():
            self._refuse(place, ".message", f"Invalid value: {quoted(message)}: must be non-empty if specified")
        elif "\n" in message.strip():
            self._refuse(place, ".message", f"Invalid value: {quoted(message)}: must not contain line breaks")
        elif not message and "\n" in source.strip() and not rule.get("messageExpression"):
            text = "Required value: message must be specified if rule contains line breaks"
            self._refuse(place, ".message", text, "FieldValueRequired")
        reason = rule.get("reason")
        if reason and reason not in _REASONS:
            known = ", ".join(f'"{name}"' for name in _REASONS)
            text = f"Unsupported value: {quoted(reason)}: supported values: {known}"
            self._refuse(place, ".reason", text, "FieldValueNotSupported")
        field = rule.get("fieldPath")
        if field and not _is_path(str(field), self._node_of(place)):
            self._refuse(place, ".fieldPath", f"Invalid value: {quoted(field)}: must be a valid path")

    def _refuse(self, place: str, field: str, message: str, reason: str = "FieldValueInvalid") -> None:
        self._problems.append((place, FieldError(field, message, reason)))

    def _node_of(self, place: str) -> Node:
        node = self._root
        for step, key in re.findall(r"\.(properties|items|additionalProperties)(?:\[([^\]]*)\])?", place):
            found = (
                node.properties.get(key) if step == "properties" else node.items if step == "items" else node.additional
            )
            if found is None:
                break
            node = found
        return node

    # evaluating

    def _evaluate(self, value: Any, before: Any, node: Node, path: str) -> Iterator[FieldError]:
        if value is None or not self._ruled.get(id(node)):
            return
        for rule in self._rules.get(id(node), ()):
            error = self._ask(rule, value, before, node, path)
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

    def _ask(self, rule: _Rule, value: Any, before: Any, node: Node, path: str) -> FieldError | None:
        had = before is not _ABSENT and before is not None
        if rule.transition and not had and not rule.optional:
            return None
        if had and not rule.transition and before == value:
            # What an update leaves as it was is not held against it.
            return None
        data: dict[str, Any] = {"self": to_cel(value, node)}
        if rule.transition:
            data["oldSelf"] = to_cel(before, node) if had else data["self"]
            data["hadOldSelf"] = had
        outcome, problem = _evaluated(rule.program, data)
        if problem:
            failed = what_failed(problem, rule.message or rule.source.strip())
            return FieldError(path or "<nil>", f"Invalid value: {shown_in_failure(value)}: {failed}")
        if outcome is True:
            return None
        field = f"{path}{rule.field}" if path else rule.field.lstrip(".")
        return FieldError(field or "<nil>", not_held(rule.reason, value, self._message(rule, data)), rule.reason)

    @staticmethod
    def _message(rule: _Rule, data: dict[str, Any]) -> str:
        if rule.message_program is not None:
            text, problem = _evaluated(rule.message_program, data)
            if not problem and isinstance(text, str) and text.strip() and "\n" not in text.strip():
                return text.strip()
        return rule.message or f"failed rule: {rule.source.strip()}"


def _evaluated(program: Any, data: dict[str, Any]) -> tuple[Any, str]:
    """Return the result of an expression, or how the engine says that there is none."""
    try:
        outcome = program.eval(data=data)
    except RuntimeError as error:
        return None, str(error)
    if outcome.type().name() == "ERROR":
        return None, str(outcome.value())
    return outcome.value(), ""


def _same_item(item: Any, before: Any, node: Node) -> Any:
    if node.list_type != "map" or not isinstance(before, list):
        return _ABSENT
    wanted = item_key(item, node)
    return next((old for old in before if item_key(old, node) == wanted), _ABSENT)


def _below(node: Node) -> Iterator[tuple[str, Node]]:
    """Yield the places below a place that rules may stand at, with the step in a schema's path."""
    for key, child in node.properties.items():
        if child is not ANYTHING:
            yield f".properties[{key}]", child
    for step, other in ((".additionalProperties", node.additional), (".items", node.items)):
        if other is not None and other is not ANYTHING:
            yield step, other


def _has_rules(node: Node) -> bool:
    if node.rules:
        return True
    below = [*node.properties.values(), node.items, node.additional]
    return any(child is not None and child.watched and _has_rules(child) for child in below)


def _is_path(text: str, node: Node) -> bool:
    if not text.startswith("."):
        return False
    for part in text[1:].split("."):
        found = node.properties.get(part) if part else None
        if found is None:
            return False
        node = found
    return True


def _shown(rule: dict[str, Any]) -> str:
    return go_json(
        {
            "Rule": rule.get("rule") or "",
            "Message": rule.get("message") or "",
            "MessageExpression": rule.get("messageExpression") or "",
            "Reason": rule.get("reason"),
            "FieldPath": rule.get("fieldPath") or "",
            "OptionalOldSelf": rule.get("optionalOldSelf"),
        },
        sort=False,
    )
