"""The documents of ValidatingAdmissionPolicies and their bindings, which the server validates and stores."""

from __future__ import annotations

from typing import Any

from tests.apiserver.admission_world import GADGETS, GROUP, Scenario, World, on_both

SCENARIOS: list[Scenario] = []
POLICY: dict[str, Any] = {
    "matchConstraints": {"resourceRules": [{**GADGETS, "operations": ["CREATE", "UPDATE"]}]},
    "validations": [{"expression": "object.spec.size <= 5"}],
}
BINDING: dict[str, Any] = {"policyName": "p", "validationActions": ["Deny"]}


async def said(world: World, kind: str, spec: dict[str, Any]) -> str:
    document = {"apiVersion": GROUP, "kind": kind, "metadata": {"name": world.ns}, "spec": spec}
    return (await world.try_to(world.client.create(document, dry_run=True))).partition(" is invalid: ")[2]


async def invalid_policies_are_rejected(world: World) -> None:
    for change, words in INVALID_POLICIES:
        assert (await said(world, "ValidatingAdmissionPolicy", {**POLICY, **change})).startswith(words)
    for change, words in INVALID_BINDINGS:
        assert await said(world, "ValidatingAdmissionPolicyBinding", {**BINDING, **change}) == words


SCENARIOS.append(invalid_policies_are_rejected)
INVALID_POLICIES: list[tuple[dict[str, Any], str]] = [
    ({"failurePolicy": "No"}, 'spec.failurePolicy: Unsupported value: "No": supported values: "Fail", "Ignore"'),
    ({"matchConstraints": {"resourceRules": []}}, "spec.matchConstraints.resourceRules: Required value"),
    (
        {"validations": []},
        "[spec.validations: Required value: validations or auditAnnotations must contain at least one item, spec.audit",
    ),
    ({"validations": [{"expression": " "}]}, "spec.validations[0].expression: Required value: expression is not "),
    (
        {"validations": [{"expression": "true", "reason": "Because"}]},
        'spec.validations[0].reason: Unsupported value: "Because": supported values: "Forbidden", "Invalid", ',
    ),
    (
        {"variables": [{"name": "a b", "expression": "1"}]},
        'spec.variables[0].name: Invalid value: "a b": must be a valid CEL identifier',
    ),
    (
        {"variables": [{"name": "in", "expression": "1"}]},
        'spec.variables[0].name: Invalid value: "in": must be a valid CEL identifier',
    ),
    (
        {"validations": [{"expression": "true", "reason": "Unauthorized"}]},
        'spec.validations[0].reason: Unsupported value: "Unauthorized": supported values: "Forbidden", "Invalid", "Req',
    ),
    (
        {"paramKind": {"apiVersion": "a/b/c", "kind": "A"}},
        'spec.paramKind.apiVersion: Invalid value: "a/b/c": unexpected GroupVersion string: a/b/c',
    ),
    ({"paramKind": {"apiVersion": "v1", "kind": ""}}, "spec.paramKind.kind: Required value"),
]
INVALID_BINDINGS: list[tuple[dict[str, Any], str]] = [
    ({"policyName": ""}, "spec.policyName: Required value"),
    ({"validationActions": []}, "spec.validationActions: Required value: at least one validation action is required"),
    (
        {"validationActions": ["Stop"]},
        'spec.validationActions[0]: Unsupported value: "Stop": supported values: "Audit", "Deny", "Warn"',
    ),
    ({"paramRef": {"name": "x"}}, "spec.paramRef.parameterNotFoundAction: Required value"),
    (
        {"paramRef": {"parameterNotFoundAction": "Deny"}},
        "spec.paramRef: Required value: one of name or selector must be specified",
    ),
]
test_embedded_server_rejects_policies, test_real_server_rejects_policies_the_same_way = on_both(SCENARIOS)
