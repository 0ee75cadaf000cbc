"""Validation of ValidatingAdmissionPolicies and their bindings."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from reconciler.apiserver.builtin.webhook_validation import check_conditions, check_expression, check_rule, choice
from reconciler.apiserver.cel.conditions import CONDITION_VARIABLES, Condition
from reconciler.apiserver.cel.model import RESERVED_WORDS
from reconciler.apiserver.encoding.refusals import FieldError
from reconciler.apiserver.schema.names import subdomain_problems
from reconciler.wire import JSONObject

__all__ = ["check_binding", "check_policy", "policy_documents"]

Findings = Iterator[FieldError]

_ACTIONS = ("Audit", "Deny", "Warn")
_NOT_FOUND_ACTIONS = ("Deny", "Allow")
_POLICIES = ("Fail", "Ignore")
_REASONS = ("Forbidden", "Invalid", "RequestEntityTooLarge")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def policy_documents(spec: JSONObject) -> tuple[str, ...]:
    """Return the names of the documents that the expressions of a policy may use, besides its variables."""
    params = ("params",) if spec.get("paramKind") else ()
    return (*CONDITION_VARIABLES, "namespaceObject", *params)


def check_policy(doc: JSONObject, before: JSONObject | None) -> Findings:
    """Yield the errors of a ValidatingAdmissionPolicy."""
    spec = doc.get("spec") or {}
    if before is not None and spec == before.get("spec"):
        return
    yield from choice("spec.failurePolicy", spec.get("failurePolicy"), _POLICIES)
    if spec.get("paramKind") is not None:
        yield from _check_param_kind(spec["paramKind"], "spec.paramKind")
    if spec.get("matchConstraints") is None:
        yield FieldError.required("spec.matchConstraints")
    else:
        yield from _check_match(spec["matchConstraints"], "spec.matchConstraints")
        if not spec["matchConstraints"].get("resourceRules"):
            yield FieldError.required("spec.matchConstraints.resourceRules")
    documents = policy_documents(spec)
    params = [name for name in documents if name != "namespaceObject"]
    yield from check_conditions(spec.get("matchConditions") or (), "spec.matchConditions", set(), params)
    variables: dict[str, Condition] | None = {} if spec.get("variables") else None
    for index, variable in enumerate(spec.get("variables") or ()):
        name, condition = (
            variable.get("name") or "",
            Condition(variable.get("expression") or "", documents, (), variables),
        )
        yield from _check_variable(name, condition, f"spec.variables[{index}]")
        variables = {**(variables or {}), name: condition}

    def condition_of(source: str | None, *results: str) -> Condition:
        return Condition(source or "", documents, results, variables)

    if not spec.get("validations") and not spec.get("auditAnnotations"):
        for member in ("validations", "auditAnnotations"):
            words = "validations or auditAnnotations must contain at least one item"
            yield FieldError.required(f"spec.{member}", words)
    for index, validation in enumerate(spec.get("validations") or ()):
        yield from _check_validation(validation, f"spec.validations[{index}]", condition_of)
    for index, annotation in enumerate(spec.get("auditAnnotations") or ()):
        condition = condition_of(annotation.get("valueExpression"), "string", "null_type")
        yield from _check_expression(condition, f"spec.auditAnnotations[{index}].valueExpression")


def _check_param_kind(kind: JSONObject, path: str) -> Findings:
    for member in ("apiVersion", "kind"):
        if not kind.get(member):
            yield FieldError.required(f"{path}.{member}")
    version = kind.get("apiVersion") or ""
    if version.count("/") > 1:
        yield FieldError.invalid(f"{path}.apiVersion", version, f"unexpected GroupVersion string: {version}")


def _check_match(match: JSONObject, path: str) -> Findings:
    yield from choice(f"{path}.matchPolicy", match.get("matchPolicy"), ("Equivalent", "Exact"))
    for member in ("resourceRules", "excludeResourceRules"):
        for index, rule in enumerate(match.get(member) or ()):
            yield from check_rule(rule, f"{path}.{member}[{index}]")


def _check_variable(name: str, condition: Condition, path: str) -> Findings:
    if not name.strip():
        yield FieldError.required(f"{path}.name", "name is not specified")
    elif not _IDENTIFIER.fullmatch(name) or name in RESERVED_WORDS:
        yield FieldError.invalid(f"{path}.name", name, "must be a valid CEL identifier")
    yield from _check_expression(condition, f"{path}.expression")


def _check_validation(validation: JSONObject, path: str, condition_of: Callable[..., Condition]) -> Findings:
    yield from _check_expression(condition_of(validation.get("expression"), "bool"), f"{path}.expression")
    computed, message = validation.get("messageExpression") or "", validation.get("message") or ""
    if computed and not computed.strip():
        yield FieldError.invalid(f"{path}.messageExpression", computed, "must be non-empty if specified")
    elif computed:
        yield from check_expression(condition_of(computed, "string"), f"{path}.messageExpression")
    if message and not message.strip():
        yield FieldError.invalid(f"{path}.message", message, "must be non-empty if specified")
    elif "\n" in message.strip():
        yield FieldError.invalid(f"{path}.message", message, "must not contain line breaks")
    yield from choice(f"{path}.reason", validation.get("reason"), _REASONS)


def _check_expression(condition: Condition, path: str) -> Findings:
    if condition.source.strip():
        yield from check_expression(condition, path)
    else:
        yield FieldError.required(path, "expression is not specified")


def check_binding(doc: JSONObject, _before: JSONObject | None) -> Findings:
    """Yield the errors of a ValidatingAdmissionPolicyBinding."""
    spec = doc.get("spec") or {}
    name = spec.get("policyName") or ""
    if not name:
        yield FieldError.required("spec.policyName")
    else:
        yield from (FieldError.invalid("spec.policyName", name, problem) for problem in subdomain_problems(name))
    if spec.get("paramRef") is not None:
        yield from _check_params(spec["paramRef"], "spec.paramRef")
    if spec.get("matchResources") is not None:
        yield from _check_match(spec["matchResources"], "spec.matchResources")
    yield from _check_actions(spec.get("validationActions") or [], "spec.validationActions")


def _check_params(ref: JSONObject, path: str) -> Findings:
    if ref.get("name") and ref.get("selector") is not None:
        for member in ("name", "selector"):
            yield FieldError.forbidden(f"{path}.{member}", "name and selector are mutually exclusive")
    if not ref.get("name") and ref.get("selector") is None:
        yield FieldError.required(path, "one of name or selector must be specified")
    action = ref.get("parameterNotFoundAction")
    if not action:
        yield FieldError.required(f"{path}.parameterNotFoundAction")
    else:
        yield from choice(f"{path}.parameterNotFoundAction", action, _NOT_FOUND_ACTIONS)


def _check_actions(actions: Sequence[str], path: str) -> Findings:
    for index, action in enumerate(actions):
        yield from choice(f"{path}[{index}]", action, _ACTIONS)
        if action in actions[:index]:
            yield FieldError.duplicate(f"{path}[{index}]", action)
    if {"Deny", "Warn"} <= set(actions):
        words = (
            "must not contain both Deny and Warn (repeating the same validation failure information in the API "
            "response and headers serves no purpose)"
        )
        yield FieldError.invalid(path, actions, words)
    if not actions:
        yield FieldError.required(path, "at least one validation action is required")
