"""Validation of the CEL expressions of webhook configurations and policies; their other fields have rules."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from reconciler.apiserver.cel.conditions import CONDITION_VARIABLES, Condition
from reconciler.apiserver.cel.expressions import CompileError
from reconciler.apiserver.encoding.refusals import FieldError, Findings
from reconciler.wire import JSONObject

__all__ = ["check_policy_expressions", "check_webhook_expressions", "policy_documents"]


def policy_documents(spec: JSONObject) -> tuple[str, ...]:
    """Return the names of the documents that the expressions of a policy may use, besides its variables."""
    params = ("params",) if spec.get("paramKind") else ()
    return (*CONDITION_VARIABLES, "namespaceObject", *params)


def check_webhook_expressions(doc: JSONObject, before: JSONObject | None) -> Findings:
    """Yield the errors of the match conditions of a configuration, except those that the stored one has already."""
    known = {
        condition.get("expression")
        for hook in (before or {}).get("webhooks") or ()
        for condition in hook.get("matchConditions") or ()
    }
    for index, hook in enumerate(doc.get("webhooks") or ()):
        yield from _check_conditions(hook, f"webhooks[{index}]", CONDITION_VARIABLES, known)


def _check_conditions(
    holder: JSONObject, path: str, documents: Sequence[str], known: Collection[str | None] = ()
) -> Findings:
    for index, condition in enumerate(holder.get("matchConditions") or ()):
        if condition.get("expression") not in known:
            source = str(condition.get("expression") or "").strip()
            yield from _check(Condition(source, documents), f"{path}.matchConditions[{index}].expression")


def check_policy_expressions(doc: JSONObject, before: JSONObject | None) -> Findings:
    """Yield the errors of the expressions of a ValidatingAdmissionPolicy."""
    spec = doc.get("spec") or {}
    if before is not None and spec == before.get("spec"):
        return
    documents = policy_documents(spec)
    yield from _check_conditions(spec, "spec", [name for name in documents if name != "namespaceObject"])
    variables: dict[str, Condition] | None = {} if spec.get("variables") else None
    for index, variable in enumerate(spec.get("variables") or ()):
        condition = Condition(variable.get("expression") or "", documents, (), variables)
        yield from _check(condition, f"spec.variables[{index}].expression")
        variables = {**(variables or {}), variable.get("name") or "": condition}
    for member, key, results in _EXPRESSIONS:
        for index, item in enumerate(spec.get(member) or ()):
            condition = Condition(item.get(key) or "", documents, results, variables)
            yield from _check(condition, f"spec.{member}[{index}].{key}")


_EXPRESSIONS = (
    ("validations", "expression", ("bool",)),
    ("validations", "messageExpression", ("string",)),
    ("auditAnnotations", "valueExpression", ("string", "null_type")),
)
"""The expressions of a policy with the types of their values."""


def _check(condition: Condition, path: str) -> Findings:
    """Yield the error of an expression that does not compile, or whose value has another type."""
    try:
        if condition.source.strip():
            condition.check()
    except CompileError as error:
        yield FieldError.invalid(path, condition.source, str(error))
