"""ValidatingAdmissionPolicies: the embedded server applies them as a real kube-apiserver does."""

from __future__ import annotations

from typing import Any

from tests.apiserver.admission_world import GADGETS, GROUP, Scenario, World, eventually, on_both

POLICY, BINDING = "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"
SCENARIOS: list[Scenario] = []


def scenario(body: Scenario) -> Scenario:
    """Run a scenario on both servers."""
    SCENARIOS.append(body)
    return body


def named(world: World, kind: str, spec: dict[str, Any], number: int = 0) -> dict[str, Any]:
    return {"apiVersion": GROUP, "kind": kind, "metadata": {"name": f"{world.ns}-{number}"}, "spec": spec}


def policy(world: World, **spec: Any) -> dict[str, Any]:
    base = {
        "matchConstraints": {"resourceRules": [{**GADGETS, "operations": ["CREATE", "UPDATE"]}]},
        "validations": [{"expression": "object.spec.size <= 5"}],
    }
    return named(world, POLICY, {**base, **spec})


async def install(world: World, made: dict[str, Any], number: int = 0, **binding: Any) -> None:
    """Create a policy with a binding for the namespace of the scenario, and wait until it is applied."""
    only_here = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": world.ns}}}
    spec = {"policyName": made["metadata"]["name"], "validationActions": ["Deny"], "matchResources": only_here}
    probe = {"expression": "object.metadata.name != 'probe'", "message": "it is applied"}
    made["spec"]["validations"] = [probe, *made["spec"]["validations"]]
    for document in (made, named(world, BINDING, {**spec, **binding}, number)):
        world.configurations.append(document)
        await world.client.create(document)


async def applied(world: World) -> None:
    probe = world.gadget("probe", size=1)
    await eventually(
        lambda: world.try_to(world.client.create(probe, dry_run=True)), lambda said: "it is applied" in said
    )


async def said(world: World, **spec: Any) -> str:
    """Return what is said about a gadget, without what all denials begin with."""
    begins = 'gadgets.admission.reconciler.dev "g" is forbidden: '
    found = await world.try_to(world.client.create(world.gadget(**spec), dry_run=True))
    return found.replace(begins, "").replace(f"ValidatingAdmissionPolicy '{world.ns}-0' with binding ", "")


@scenario
async def a_policy_denies_what_its_validations_do_not_allow(world: World) -> None:
    messages = [
        {"expression": "object.spec.size <= 5"},
        {"expression": "object.spec.size <= 6", "message": "too large", "reason": "Forbidden"},
        {
            "expression": "object.spec.size <= 7",
            "message": "too large",
            "messageExpression": "'size ' + string(object.spec.size) + ' is too large'",
            "reason": "RequestEntityTooLarge",
        },
        {
            "expression": "object.spec.size <= 8",
            "message": "fallback",
            "messageExpression": "string(object.spec.nothing)",
        },
    ]
    for number, validation in enumerate(messages):
        made = named(world, POLICY, policy(world, validations=[validation])["spec"], number)
        await install(world, made, number)
        await applied(world)
        denied = await world.try_to(world.client.create(world.gadget(size=9), dry_run=True))
        binding = world.configurations.pop()
        where = f"ValidatingAdmissionPolicy '{world.ns}-{number}' with binding '{world.ns}-{number}' denied request"
        reason, code = [("Invalid", 422), ("Forbidden", 403), ("RequestEntityTooLarge", 413), ("Invalid", 422)][number]
        message = ["failed expression: object.spec.size <= 5", "too large", "size 9 is too large", "fallback"][number]
        assert denied == f'{code} {reason}: gadgets.admission.reconciler.dev "g" is forbidden: {where}: {message}'
        await world.client.delete(f"{GROUP}/{BINDING}", binding["metadata"]["name"])
        await eventually(lambda: said(world, size=9), lambda found: found == "allowed")


@scenario
async def variables_are_computed_when_they_are_used(world: World) -> None:
    made = policy(
        world,
        variables=[
            {"name": "size", "expression": "object.spec.size"},
            {"name": "double", "expression": "variables.size * 2"},
            {"name": "broken", "expression": "object.spec.nothing"},
        ],
        validations=[
            {"expression": "variables.double <= 10", "messageExpression": "'double is ' + string(variables.double)"},
            {"expression": "'variables.size' != '' && variables.size != 4"},
        ],
    )
    await install(world, made)
    await applied(world)
    assert await said(world, size=5) == "allowed"
    assert await said(world, size=6) == f"422 Invalid: '{world.ns}-0' denied request: double is 12"
    assert await said(world, size=4) == (
        f"422 Invalid: '{world.ns}-0' denied request: failed expression: 'variables.size' != '' && variables.size != 4"
    )


@scenario
async def parameters_come_from_objects(world: World) -> None:
    for name, limit in (("low", "3"), ("high", "6")):
        metadata = {"name": name, "namespace": world.ns, "labels": {"limits": "yes"}}
        await world.client.create(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"limit": limit}}
        )
    made = policy(
        world,
        paramKind={"apiVersion": "v1", "kind": "ConfigMap"},
        validations=[
            {
                "expression": "object.spec.size <= int(params.data.limit)",
                "messageExpression": "'at most ' + params.data.limit",
            }
        ],
    )
    every = {"selector": {"matchLabels": {"limits": "yes"}}, "parameterNotFoundAction": "Deny"}
    await install(world, made, paramRef=every)
    await applied(world)
    assert await said(world, size=3) == "allowed"
    assert await said(world, size=5) == f"422 Invalid: '{world.ns}-0' denied request: at most 3"
    await world.client.delete_all_of("v1/ConfigMap", world.ns, label_selector="limits=yes")
    none = "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"
    wanted = f"422 Invalid: '{world.ns}-0' denied request: {none}"
    await eventually(lambda: said(world, size=1), lambda found: found == wanted)


@scenario
async def a_policy_can_warn_instead(world: World) -> None:
    await install(world, policy(world), validationActions=["Warn", "Audit"])
    await world.client.create(world.gadget("fine", size=1), dry_run=True)
    await eventually(lambda: warned(world), lambda found: found != "")
    place = f"ValidatingAdmissionPolicy '{world.ns}-0' with binding '{world.ns}-0'"
    assert await warned(world) == f"Validation failed for {place}: failed expression: object.spec.size <= 5"


async def warned(world: World) -> str:
    assert await said(world, size=9) == "allowed"
    found = [each.getMessage() for each in world.log.records if "warning for" in each.msg]
    return found[-1].partition(": ")[2] if found else ""


@scenario
async def failure_policy_decides_about_expressions_that_fail(world: World) -> None:
    await install(world, policy(world, validations=[{"expression": "object.spec.note != 'x'"}]))
    await applied(world)
    problem = "expression 'object.spec.note != 'x'' resulted in error: no such key: note"
    assert await said(world, size=1) == f"422 Invalid: '{world.ns}-0' denied request: {problem}"
    assert await said(world, note="y") == "allowed"
    assert "failed expression" in await said(world, note="x")


@scenario
async def only_what_matches_is_validated(world: World) -> None:
    rules = {
        "resourceRules": [{**GADGETS, "operations": ["CREATE"]}],
        "excludeResourceRules": [{**GADGETS, "operations": ["*"], "resourceNames": ["free"]}],
    }
    made = policy(
        world,
        matchConstraints=rules,
        matchConditions=[{"name": "colored", "expression": "object.spec.color == 'red' || request.name == 'probe'"}],
        validations=[{"expression": "namespaceObject.metadata.name != request.namespace", "message": "all are denied"}],
    )
    await install(world, made)
    await applied(world)
    assert await said(world, color="red") == f"422 Invalid: '{world.ns}-0' denied request: all are denied"
    assert await said(world, color="blue") == "allowed"
    assert await world.try_to(world.client.create(world.gadget("free", color="red"), dry_run=True)) == "allowed"


VARIABLES = {
    "size": "object.spec.size // the size",
    "double": "variables.size\n+ variables.size",
    "nothing": "object.spec.nothing",
    "maybe": "object.spec.?size",
    "kind": "type(object.spec.size)",
    "gibibyte": "quantity('1Gi')",
    "unsigned": "[1u, 2u]",
    "spec": "object.spec",
    "power0": "object.spec.size",
    **{f"power{number}": f"variables.power{number - 1} + variables.power{number - 1}" for number in range(1, 20)},
}
USES_OF_VARIABLES = [
    "variables.size <= 5 // variables.nothing isn't used",
    "// it's a comment\nvariables // and another\n.size <= 5",
    "variables.double <= 10",
    "variables.size <= 5 || variables.nothing == 1",
    "'''it's variables.nothing''' != '' && variables.size <= 5",
    r"r'\\' == '\\\\' && variables.size <= 5",
    "has(variables.size) && has(variables.double) && variables.size <= 5",
    "has(variables.spec.size) && !has(variables.spec.nothing) && variables.size <= 5",
    "[{'spec': {'size': 100}}].all(object, variables.size <= 5)",
    "[{'size': 1}].all(variables, variables.size == 1) && variables.size <= 5",
    "{'variables': {'size': 3}}.variables.size == 3 && .variables.size <= 5",
    "variables.maybe.orValue(9) <= 5",
    "variables.kind == int && variables.size <= 5",
    "variables.gibibyte.isGreaterThan(quantity('1M')) && variables.size <= 5",
    "variables.unsigned[0] + 1u == variables.unsigned[1] && variables.size <= 5",
    "variables.power19 <= 5 * 524288",
    "request.userInfo.username != '' && request.kind.kind == 'Gadget' && variables.size <= 5",
    "request.resource.resource == 'gadgets' && variables.size <= 5",
    "request.requestKind.version + request.requestResource.version == 'v1v1' && variables.size <= 5",
    "request.operation == 'CREATE' && request.dryRun && request.name.startsWith('n') && variables.size <= 5",
    "request.namespace == namespaceObject.metadata.name && has(namespaceObject.status.phase) && variables.size <= 5",
]


@scenario
async def variables_can_be_used_anywhere_in_an_expression(world: World) -> None:
    made = policy(
        world,
        variables=[{"name": name, "expression": expression} for name, expression in VARIABLES.items()],
        validations=[
            {"expression": f"object.metadata.name != 'n{number}' || (\n{expression}\n)"}
            for number, expression in enumerate(USES_OF_VARIABLES)
        ],
    )
    await install(world, made)
    await applied(world)
    for number, expression in enumerate(USES_OF_VARIABLES):
        small, large = world.gadget(f"n{number}", size=5), world.gadget(f"n{number}", size=6)
        assert await world.try_to(world.client.create(small, dry_run=True)) == "allowed", expression
        failed = 'composited variable "nothing" fails to evaluate' if "|| variables" in expression else "failed expr"
        assert failed in await world.try_to(world.client.create(large, dry_run=True)), expression


@scenario
async def an_update_sees_the_old_object(world: World) -> None:
    await world.client.create(world.gadget(size=3))
    made = policy(
        world,
        validations=[
            {"expression": "oldObject == null || object.spec.size >= oldObject.spec.size", "message": "it shrinks"}
        ],
    )
    await install(world, made)
    await applied(world)
    kind = "admission.reconciler.dev/v1/Gadget"
    shrink = world.client.patch(kind, "g", world.ns, patch={"spec": {"size": 2}})
    assert (await world.try_to(shrink)).endswith("denied request: it shrinks")
    grow = world.client.patch(kind, "g", world.ns, patch={"spec": {"size": 4}})
    assert await world.try_to(grow) == "allowed"


@scenario
async def invalid_policies_are_rejected(world: World) -> None:
    for change, words in INVALID_POLICIES:
        found = await world.try_to(world.client.create(policy(world, **change), dry_run=True))
        assert found.partition(" is invalid: ")[2].startswith(words), found
    base = {"policyName": "p", "validationActions": ["Deny"]}
    for change, words in INVALID_BINDINGS:
        document = named(world, BINDING, {**base, **change})
        found = await world.try_to(world.client.create(document, dry_run=True))
        assert found.partition(" is invalid: ")[2] == words


INVALID_POLICIES: list[tuple[dict[str, Any], str]] = [
    ({"failurePolicy": "No"}, 'spec.failurePolicy: Unsupported value: "No": supported values: "Fail", "Ignore"'),
    (
        {"matchConstraints": {"resourceRules": []}},
        "spec.matchConstraints.resourceRules: Required value",
    ),
    (
        {"validations": []},
        "[spec.validations: Required value: validations or auditAnnotations must contain at least one item, spec.audit",
    ),
    ({"validations": [{"expression": " "}]}, "spec.validations[0].expression: Required value: expression is not "),
    (
        {"validations": [{"expression": "object.x =="}]},
        'spec.validations[0].expression: Invalid value: "object.x ==": compilation failed: ERROR: <input>:1:12: Syntax',
    ),
    (
        {"validations": [{"expression": "'text'"}]},
        "spec.validations[0].expression: Invalid value: \"'text'\": must evaluate to bool but got string",
    ),
    (
        {"validations": [{"expression": "params.x"}]},
        'spec.validations[0].expression: Invalid value: "params.x": compilation failed: ERROR: <input>:1:1: undeclared',
    ),
    (
        {"validations": [{"expression": "true", "messageExpression": "object.spec.note"}]},
        'spec.validations[0].messageExpression: Invalid value: "object.spec.note": must evaluate to string but got dyn',
    ),
    (
        {"validations": [{"expression": "true", "reason": "Because"}]},
        'spec.validations[0].reason: Unsupported value: "Because": supported values: "Forbidden", "Invalid", ',
    ),
    (
        {"variables": [{"name": "a b", "expression": "1"}]},
        'spec.variables[0].name: Invalid value: "a b": must be a valid CEL identifier',
    ),
    (
        {"validations": [{"expression": "request.operatoin == 'CREATE'"}]},
        "spec.validations[0].expression: Invalid value: \"request.operatoin == 'CREATE'\": compilation failed: ERROR: ",
    ),
    (
        {"validations": [{"expression": "has(namespaceObject.metadata.label)"}]},
        'spec.validations[0].expression: Invalid value: "has(namespaceObject.metadata.label)": compilation failed: ERR',
    ),
    (
        {"variables": [{"name": "in", "expression": "1"}]},
        'spec.variables[0].name: Invalid value: "in": must be a valid CEL identifier',
    ),
    (
        {"variables": [{"name": "x", "expression": "variables.y"}, {"name": "y", "expression": "1"}]},
        'spec.variables[0].expression: Invalid value: "variables.y": compilation failed: ERROR: <input>:1:10: undefine',
    ),
    (
        {"variables": [{"name": "x", "expression": "'a'"}], "validations": [{"expression": "variables.x <= 5"}]},
        'spec.validations[0].expression: Invalid value: "variables.x <= 5": compilation failed: ERROR: <input>:1:13: ',
    ),
    (
        {"validations": [{"expression": "object.spec.size"}]},
        'spec.validations[0].expression: Invalid value: "object.spec.size": must evaluate to bool but got dyn',
    ),
    (
        {"validations": [{"expression": "true", "reason": "Unauthorized"}]},
        'spec.validations[0].reason: Unsupported value: "Unauthorized": supported values: "Forbidden", "Invalid", "Req',
    ),
    (
        {"auditAnnotations": [{"key": "a", "valueExpression": "1"}]},
        'spec.auditAnnotations[0].valueExpression: Invalid value: "1": must evaluate to one of [string null_type] but ',
    ),
    (
        {"paramKind": {"apiVersion": "a/b/c", "kind": "A"}},
        'spec.paramKind.apiVersion: Invalid value: "a/b/c": unexpected GroupVersion string: a/b/c',
    ),
    (
        {"paramKind": {"apiVersion": "v1", "kind": ""}},
        "spec.paramKind.kind: Required value",
    ),
]
INVALID_BINDINGS: list[tuple[dict[str, Any], str]] = [
    ({"policyName": ""}, "spec.policyName: Required value"),
    ({"validationActions": []}, "spec.validationActions: Required value: at least one validation action is required"),
    (
        {"validationActions": ["Stop"]},
        'spec.validationActions[0]: Unsupported value: "Stop": supported values: "Audit", "Deny", "Warn"',
    ),
    (
        {"paramRef": {"name": "x"}},
        "spec.paramRef.parameterNotFoundAction: Required value",
    ),
    (
        {"paramRef": {"parameterNotFoundAction": "Deny"}},
        "spec.paramRef: Required value: one of name or selector must be specified",
    ),
]
test_embedded_server_applies_policies, test_real_server_applies_policies_the_same_way = on_both(SCENARIOS)
