"""Admission webhooks: the embedded server calls them as a real kube-apiserver does. Each scenario runs on both."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest

from reconciler import Client
from reconciler.apiserver import APIServer
from reconciler.errors import OutcomeUnknown
from reconciler.http import HTTPRequest, HTTPResponse
from tests.apiserver.admission_world import (
    GADGET_DEFINITION,
    GADGETS,
    GROUP,
    KIND,
    MUTATING,
    VALIDATING,
    Hooks,
    Scenario,
    World,
    on_both,
    over_https,
    patch,
)

SCENARIOS: list[Scenario] = []


def scenario(body: Scenario) -> Scenario:
    """Run a scenario on both servers."""
    SCENARIOS.append(body)
    return body


@scenario
async def a_denial_is_the_response(world: World) -> None:
    said: list[dict[str, Any]] = [
        {"status": {"code": 403, "reason": "Forbidden", "message": "not today"}},
        {"status": {"reason": "TooMuch"}},
        {},
        {"status": {"code": 200, "status": "Success", "message": "contradiction"}},
        {"status": {"code": 422, "reason": "Invalid", "message": "m", "details": {"causes": [{"field": "spec.size"}]}}},
    ]
    world.hooks.on("/v", lambda _: {"allowed": False, **said[0]})
    await world.install(VALIDATING, world.hook("/v"))
    found = []
    while said:
        found.append(await world.try_to(world.client.create(world.gadget())))
        said.pop(0)
    denied = 'admission webhook "v.admission.reconciler.dev" denied the request'
    assert found == [
        f"403 Forbidden: {denied}: not today",
        f"400 TooMuch: {denied}: TooMuch",
        f"400 : {denied} without explanation",
        f"400 : {denied}: contradiction",
        f"422 Invalid: {denied}: m",
    ]


@scenario
async def a_webhook_gets_the_whole_request(world: World) -> None:
    world.hooks.on("/m", lambda _: {})
    world.hooks.on("/v", lambda _: {})
    rules = [{**GADGETS, "operations": ["*"], "resources": ["gadgets", "gadgets/status"]}]
    await world.install(MUTATING, world.hook("/m", rules=rules))
    await world.install(VALIDATING, world.hook("/v", rules=rules))
    made = await world.client.create(world.gadget(size=1), field_manager="tester")
    await world.catch_up()
    await world.client.patch(KIND, "g", world.ns, patch={"spec": {"size": 2}})
    await world.catch_up()
    await world.client.patch(KIND, "g", world.ns, patch={"status": {"phase": "Ready"}}, subresource="status")
    await world.catch_up()
    await world.client.delete(made)
    for path in ("/m", "/v"):
        created, patched, status, deleted = world.hooks.requests[path]
        assert [each["operation"] for each in world.hooks.requests[path]] == ["CREATE", "UPDATE", "UPDATE", "DELETE"]
        for request in world.hooks.requests[path]:
            assert request["kind"] == {"group": "admission.reconciler.dev", "version": "v1", "kind": "Gadget"}
            assert request["requestResource"]["resource"] == request["resource"]["resource"] == "gadgets"
            assert (request["name"], request["namespace"], request["dryRun"]) == ("g", world.ns, False)
        assert created["oldObject"] is None
        assert created["object"]["spec"] == {"size": 1, "color": "grey"}
        assert created["options"]["kind"] == "CreateOptions"
        assert created["options"]["fieldManager"] == "tester"
        assert ("uid" in created["object"]["metadata"]) is (path == "/v")
        assert (patched["oldObject"]["spec"]["size"], patched["object"]["spec"]["size"]) == (1, 2)
        assert patched["options"]["kind"] == "UpdateOptions"
        assert (status["subResource"], status["object"]["status"]) == ("status", {"phase": "Ready"})
        assert "subResource" not in patched
        assert (deleted["object"], deleted["oldObject"]["spec"]["size"]) == (None, 2)
        assert deleted["options"]["kind"] == "DeleteOptions"


@scenario
async def a_rule_names_subresources(world: World) -> None:
    rules = {"/main": ["gadgets"], "/star": ["*"], "/status": ["gadgets/status"], "/all": ["gadgets/*"]}
    for path, resources in rules.items():
        world.hooks.on(path, lambda _: {})
        await world.install(
            VALIDATING,
            world.hook(path, rules=[{**GADGETS, "operations": ["CREATE", "UPDATE"], "resources": resources}]),
        )
    await world.client.create(world.gadget())
    await world.client.patch(KIND, "g", world.ns, patch={"status": {"phase": "Ready"}}, subresource="status")
    asked = {path: [each.get("subResource") for each in world.hooks.requests.get(path, ())] for path in rules}
    assert asked == {"/main": [None], "/star": [None], "/status": ["status"], "/all": [None, "status"]}


@scenario
async def webhooks_see_pods_as_admission_completes_them(world: World) -> None:
    world.hooks.on("/m", lambda _: {})
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}
    await world.install(MUTATING, world.hook("/m", rules=[rule]))
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": world.ns}}
    await world.create({**pod, "spec": {"containers": [{"name": "c", "image": "i"}]}})
    seen = world.hooks.requests["/m"][-1]["object"]["spec"]
    assert (seen["priority"], seen["preemptionPolicy"]) == (0, "PreemptLowerPriority")
    assert {each["tolerationSeconds"] for each in seen["tolerations"]} == {300}


@scenario
async def mutating_webhooks_change_what_is_stored(world: World) -> None:
    world.hooks.on("/m", lambda _: patch({"op": "add", "path": "/spec/note", "value": "by a webhook"}))
    world.hooks.on(
        "/n", lambda asked: patch({"op": "add", "path": "/spec/size", "value": len(asked["object"]["spec"])})
    )
    world.hooks.on("/v", lambda asked: {"allowed": asked["object"]["spec"].get("size") == 2})
    await world.install(MUTATING, world.hook("/m"), world.hook("/n"))
    await world.install(VALIDATING, world.hook("/v"))
    made = await world.create(world.gadget())
    assert made["spec"] == {"color": "grey", "note": "by a webhook", "size": 2}
    (entry,) = made["metadata"]["managedFields"]
    assert "f:note" not in json.dumps(entry["fieldsV1"])


@scenario
async def what_a_webhook_adds_is_validated_and_pruned(world: World) -> None:
    value: list[Any] = [-1, "x", 3]
    world.hooks.on(
        "/m",
        lambda _: patch(
            {"op": "add", "path": "/spec/size", "value": value[0]}, {"op": "add", "path": "/spec/unknown", "value": 1}
        ),
    )
    await world.install(MUTATING, world.hook("/m"))
    invalid = await world.try_to(world.client.create(world.gadget()))
    assert invalid.startswith("422 Invalid")
    assert "spec.size" in invalid
    value.pop(0)
    assert "spec.size" in await world.try_to(world.client.create(world.gadget()))
    value.pop(0)
    assert (await world.create(world.gadget()))["spec"] == {"color": "grey", "size": 3}


@scenario
async def a_webhook_is_asked_again_if_needed(world: World) -> None:
    world.hooks.on(
        "/first",
        lambda asked: patch(
            {"op": "add", "path": "/metadata/labels", "value": {"seen": asked["object"]["spec"].get("note", "nothing")}}
        ),
    )
    world.hooks.on("/second", lambda _: patch({"op": "add", "path": "/spec/note", "value": "late"}))
    await world.install(MUTATING, world.hook("/first", reinvocationPolicy="IfNeeded"), world.hook("/second"))
    made = await world.create(world.gadget())
    assert made["metadata"]["labels"] == {"seen": "late"}
    assert {path: len(found) for path, found in world.hooks.requests.items() if path != "/probe"} == {
        "/first": 2,
        "/second": 1,
    }


@scenario
async def failure_policy_decides_about_failed_calls(world: World) -> None:
    answers: list[Any] = [b"broken", b"no json", b"{}", {"uid": "other"}, {"patch": "e30=", "patchType": "JSONPatch"}]
    world.hooks.on("/v", lambda _: answers[0])
    await world.install(VALIDATING, world.hook("/v"))
    begins = '500 InternalError: Internal error occurred: failed calling webhook "v.admission.reconciler.dev": '
    found = []
    while answers:
        found.append(await world.try_to(world.client.create(world.gadget())))
        answers.pop(0)
    assert all(each.startswith(begins) for each in found)
    assert "failed to call webhook" in found[0]
    rest = [each.removeprefix(begins) for each in found[2:]]
    assert rest[0].startswith(("received invalid webhook response: webhook response was absent", "failed to call"))
    assert rest[1].startswith('received invalid webhook response: expected response.uid="')
    assert rest[2] == "received invalid webhook response: validating webhook may not return response.patch"


@scenario
async def ignored_failures_let_the_write_pass(world: World) -> None:
    world.hooks.on("/v", lambda _: b"broken")
    world.hooks.on("/w", lambda _: b"never")
    await world.install(
        VALIDATING,
        world.hook("/v", failurePolicy="Ignore"),
        world.hook("/w", failurePolicy="Ignore", timeoutSeconds=1),
    )
    assert await world.try_to(world.client.create(world.gadget())) == "allowed"


@scenario
async def a_slow_webhook_is_a_failed_call(world: World) -> None:
    world.hooks.on("/v", lambda _: b"never")
    await world.install(VALIDATING, world.hook("/v", timeoutSeconds=1))
    said = await world.try_to(world.client.create(world.gadget()))
    assert said.startswith("500 InternalError: Internal error occurred: failed calling webhook")
    assert said.endswith("context deadline exceeded")


@scenario
async def only_matching_writes_are_reviewed(world: World) -> None:
    for path in ("/exact", "/equivalent", "/labelled", "/condition", "/elsewhere", "/scale"):
        world.hooks.on(path, lambda _: {})
    beta = [{**GADGETS, "apiVersions": ["v1beta1"], "operations": ["CREATE"]}]
    await world.install(
        VALIDATING,
        world.hook("/exact", rules=beta, matchPolicy="Exact"),
        world.hook("/equivalent", rules=beta),
        world.hook("/labelled", objectSelector={"matchExpressions": [{"key": "watched", "operator": "Exists"}]}),
        world.hook(
            "/condition",
            matchConditions=[
                {"name": "large", "expression": "object.spec.size > 5"},
                {"name": "named", "expression": "request.name.startsWith('l')"},
            ],
        ),
        world.hook("/elsewhere", namespaceSelector={"matchLabels": {"no": "namespace"}}),
        world.hook("/scale", rules=[{**GADGETS, "resources": ["*/scale"], "operations": ["UPDATE"]}]),
    )
    await world.create(world.gadget("small", size=1))
    large = world.gadget("large", size=9)
    large["metadata"]["labels"] = {"watched": "yes"}
    await world.create(large)
    await world.create(world.gadget("old", version="v1beta1", size=9))
    names = {path: [each["name"] for each in found] for path, found in world.hooks.requests.items()}
    assert names == {
        "/probe": names["/probe"],
        "/exact": ["old"],
        "/equivalent": ["small", "large", "old"],
        "/labelled": ["large"],
        "/condition": ["large"],
    }
    assert world.hooks.requests["/equivalent"][0]["object"]["apiVersion"].endswith("/v1beta1")
    assert world.hooks.requests["/equivalent"][0]["requestKind"]["version"] == "v1"


@scenario
async def webhooks_see_and_change_scales(world: World) -> None:
    world.hooks.on("/m", lambda _: patch({"op": "replace", "path": "/spec/replicas", "value": 4}))
    world.hooks.on("/v", lambda asked: {"allowed": asked["object"]["spec"]["replicas"] < 5})
    rules = [{**GADGETS, "resources": ["gadgets/scale"], "operations": ["UPDATE"]}]
    await world.install(MUTATING, world.hook("/m", rules=rules))
    await world.install(VALIDATING, world.hook("/v", rules=rules))
    await world.create(world.gadget(size=1))
    changed = {"spec": {"replicas": 9}}
    scale = await world.client.patch(KIND, "g", world.ns, patch=changed, subresource="scale")
    assert scale["spec"] == {"replicas": 4}
    assert (await world.client.get(KIND, "g", world.ns))["spec"]["size"] == 4
    for path, replicas in (("/m", 9), ("/v", 4)):
        (asked,) = world.hooks.requests[path]
        assert asked["kind"] == asked["requestKind"] == {"group": "autoscaling", "version": "v1", "kind": "Scale"}
        assert (asked["resource"]["resource"], asked["subResource"]) == ("gadgets", "scale")
        assert (asked["object"]["kind"], asked["object"]["spec"]) == ("Scale", {"replicas": replicas})
        assert asked["oldObject"]["spec"] == {"replicas": 1}


@scenario
async def webhooks_cannot_move_objects(world: World) -> None:
    added: list[dict[str, Any]] = []
    world.hooks.on("/m", lambda _: patch(*added))
    await world.install(MUTATING, world.hook("/m"))
    await world.create(world.gadget(size=1))
    said = {}
    for path, value in (("name", "other"), ("namespace", "default"), ("resourceVersion", "1")):
        added[:] = [{"op": "add", "path": f"/metadata/{path}", "value": value}]
        change = world.client.patch(KIND, "g", world.ns, patch={"spec": {"size": 2}})
        said[path] = (await world.try_to(change), await world.try_to(world.client.create(world.gadget("n"))))
    elsewhere = "400 BadRequest: the namespace of the provided object does not match the namespace sent on the request"
    immutable = (
        'Gadget.admission.reconciler.dev "other" is invalid: metadata.name: Invalid value: "other": field is immu'
    )
    assert said["name"][0].startswith(f"422 Invalid: {immutable}")
    assert said["name"][1] == "allowed"
    assert said["namespace"] == (elsewhere, elsewhere)
    assert said["resourceVersion"][0].startswith("409 Conflict: ")
    assert said["resourceVersion"][1] == "500 : resourceVersion should not be set on objects to be created"
    added[:] = [{"op": "remove", "path": "/metadata"}]
    change = world.client.patch(KIND, "g", world.ns, patch={"spec": {"size": 2}})
    assert (await world.try_to(change)).endswith(
        "metadata.resourceVersion: Invalid value: 0: must be specified for an update"
    )
    found = await world.client.get(KIND, "g", world.ns)
    assert (found["metadata"]["name"], found["metadata"]["namespace"], found["spec"]["size"]) == ("g", world.ns, 1)


@scenario
async def a_condition_that_fails_fails_closed(world: World) -> None:
    world.hooks.on("/v", lambda _: {})
    await world.install(
        VALIDATING, world.hook("/v", matchConditions=[{"name": "n", "expression": "object.spec.note == 'x'"}])
    )
    said = await world.try_to(world.client.create(world.gadget()))
    assert said.startswith('403 Forbidden: gadgets.admission.reconciler.dev "g" is forbidden: ')
    assert "no such key: note" in said
    assert "/v" not in world.hooks.requests


@scenario
async def a_dry_run_calls_only_webhooks_without_side_effects(world: World) -> None:
    world.hooks.on("/v", lambda _: {})
    await world.install(VALIDATING, world.hook("/v", sideEffects="NoneOnDryRun"))
    assert await world.try_to(world.client.create(world.gadget(), dry_run=True)) == "allowed"
    assert world.hooks.requests["/v"][0]["dryRun"] is True
    assert world.hooks.requests["/v"][0]["options"]["dryRun"] == ["All"]


@scenario
async def warnings_reach_the_client(world: World) -> None:
    world.hooks.on("/m", lambda _: {"warnings": ["from the first"]})
    world.hooks.on("/v", lambda _: {"warnings": ["from the second"], "allowed": False})
    await world.install(MUTATING, world.hook("/m"))
    await world.install(VALIDATING, world.hook("/v"))
    assert (await world.try_to(world.client.create(world.gadget()))).startswith("400")
    assert [each.getMessage().rpartition(": ")[2] for each in world.log.records if "warning for" in each.msg] == [
        "from the first",
        "from the second",
    ]


@scenario
async def warnings_about_a_deletion_reach_the_client(world: World) -> None:
    world.hooks.on("/v", lambda _: {"warnings": ["it held data"]})
    await world.install(VALIDATING, world.hook("/v", rules=[{**GADGETS, "operations": ["DELETE"]}]))
    await world.client.create(world.gadget())
    await world.catch_up()
    assert await world.try_to(world.client.delete(KIND, "g", world.ns)) == "allowed"
    (record,) = (each for each in world.log.records if "warning for" in each.msg)
    assert record.getMessage().endswith(": it held data")


@scenario
async def deletions_of_a_collection_are_reviewed_one_by_one(world: World) -> None:
    world.hooks.on("/v", lambda asked: {"allowed": asked["oldObject"]["metadata"]["name"] != "kept"})
    await world.install(VALIDATING, world.hook("/v", rules=[{**GADGETS, "operations": ["DELETE"]}]))
    for name in ("a", "kept"):
        await world.create(world.gadget(name))
    denied = await world.try_to(world.client.delete_all_of(KIND, world.ns))
    assert denied.startswith('400 : admission webhook "v.admission.reconciler.dev" denied the request')
    assert [each.name for each in await world.client.list(KIND, world.ns)][-1] == "kept"


@scenario
async def a_write_during_the_review_is_not_lost(world: World) -> None:
    """The reviewed patch is applied again to the new version, and reviewed again."""
    writes: list[asyncio.Task[Any]] = []
    await world.client.create(world.gadget(size=1))

    def review(asked: dict[str, Any]) -> dict[str, Any]:
        if "note" in asked["object"]["spec"] and not writes:
            write = world.client.patch(KIND, "g", world.ns, patch={"metadata": {"labels": {"meanwhile": "yes"}}})
            writes.append(asyncio.get_running_loop().create_task(write))
            return {"wait": True}
        return {}

    world.hooks.on("/v", review)
    await world.install(VALIDATING, world.hook("/v"))
    found = (await world.client.patch(KIND, "g", world.ns, patch={"spec": {"note": "n"}})).to_dict()
    await asyncio.gather(*writes)
    stored = (await world.client.get(KIND, "g", world.ns)).to_dict()
    assert (stored["spec"]["note"], stored["metadata"]["labels"]) == ("n", {"meanwhile": "yes"})
    assert found["spec"]["note"] == "n"


@scenario
async def invalid_configurations_are_rejected(world: World) -> None:
    async def said_about(change: dict[str, Any]) -> str:
        document = {
            "apiVersion": GROUP,
            "kind": VALIDATING,
            "metadata": {"name": f"{world.ns}-bad"},
            "webhooks": [{**world.hook("/v"), **change}],
        }
        said = await world.try_to(world.client.create(document, dry_run=True))
        return said.partition('" is invalid: webhooks[0].')[2]

    for change, words in INVALID:
        assert await said_about(change) == words
    said = await said_about({"matchConditions": [{"name": "c", "expression": "object.spec ="}]})
    assert said.startswith('matchConditions[0].expression: Invalid value: "object.spec =": compilation failed')
    for expression, problem in (
        ("request.kind.zz == 'a'", "undefined field 'zz'"),
        ("[1, 'a'].size() == 2", "expected type 'int' but found 'string'"),
    ):
        assert problem in await said_about({"matchConditions": [{"name": "c", "expression": expression}]})


INVALID: list[tuple[dict[str, Any], str]] = [
    (
        {"name": "short"},
        'name: Invalid value: "short": should be a domain with at least three segments separated by dots',
    ),
    ({"sideEffects": "Some"}, 'sideEffects: Unsupported value: "Some": supported values: "None", "NoneOnDryRun"'),
    ({"sideEffects": None}, "sideEffects: Required value: must specify one of None, NoneOnDryRun"),
    (
        {"admissionReviewVersions": ["v7"]},
        'admissionReviewVersions: Invalid value: ["v7"]: must include at least one of v1, v1beta1',
    ),
    (
        {"timeoutSeconds": 31},
        "timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
    ),
    ({"failurePolicy": "Maybe"}, 'failurePolicy: Unsupported value: "Maybe": supported values: "Fail", "Ignore"'),
    (
        {"clientConfig": {"url": "http://127.0.0.1/"}},
        (
            "clientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; "
            "desired format: https://host[/path]"
        ),
    ),
    ({"clientConfig": {}}, "clientConfig: Required value: exactly one of url or service is required"),
    (
        {"rules": [{**GADGETS, "operations": ["READ"]}]},
        (
            'rules[0].operations[0]: Unsupported value: "READ": '
            'supported values: "*", "CONNECT", "CREATE", "DELETE", "UPDATE"'
        ),
    ),
    (
        {"rules": [{**GADGETS, "operations": ["*", "CREATE"]}]},
        'rules[0].operations: Invalid value: ["*","CREATE"]: if \'*\' is present, must not specify other operations',
    ),
    (
        {"rules": [{**GADGETS, "operations": ["*"], "scope": "All"}]},
        'rules[0].scope: Unsupported value: "All": supported values: "*", "Cluster", "Namespaced"',
    ),
    (
        {"rules": [{**GADGETS, "operations": ["*"], "resources": ["gadgets/*", "gadgets/status"]}]},
        (
            "rules[0].resources[1]: Invalid value: \"gadgets/status\": if 'gadgets/*' is present, "
            "must not specify gadgets/status"
        ),
    ),
]


@scenario
async def a_response_is_never_trusted(world: World) -> None:
    answers: list[dict[str, Any] | bytes] = [
        b"",
        b"null",
        b"[" * 100_000,
        b'{"response": 1}',
        {"patchType": "JSONPatch", "patch": "no base64"},
        {"patchType": "JSONPatch", "patch": base64.b64encode(b'{"op": 1}').decode()},
        {
            "patchType": "Merge",
            "patch": base64.b64encode(b'[{"op": "add", "path": "/spec/size", "value": 1}]').decode(),
        },
        patch({"op": "test", "path": "/spec/size", "value": 7}),
        patch({"op": "replace", "path": "", "value": 7}),
        patch({"op": "add", "path": "/apiVersion", "value": "v7"}),
    ]
    world.hooks.on("/m", lambda _: answers[0])
    await world.install(MUTATING, world.hook("/m"))
    while answers:
        said = await world.try_to(world.client.create(world.gadget()))
        assert said != "allowed", answers[0]
        answers.pop(0)
    assert len(await world.client.list(KIND, world.ns)) == 0


test_embedded_server_calls_webhooks, test_real_server_calls_webhooks_the_same_way = on_both(SCENARIOS)


async def test_a_webhook_is_called_as_envtest_configures_it(tmp_path: Path) -> None:
    hooks = Hooks()
    hooks.on("/v", lambda _: {"allowed": False})
    async with APIServer() as server, Client(server) as client, over_https(hooks, tmp_path) as address:
        await server.apply(GADGET_DEFINITION)
        # Its CA bundle is the certificate of the webhook itself, and the path begins with two slashes.
        bundle = base64.b64encode((tmp_path / "tls.crt").read_bytes()).decode()
        hook = {
            "name": "v.admission.reconciler.dev",
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "clientConfig": {"url": address["url"] + "//v", "caBundle": bundle},
            "rules": [{**GADGETS, "operations": ["CREATE"]}],
        }
        await client.create({"apiVersion": GROUP, "kind": VALIDATING, "metadata": {"name": "v"}, "webhooks": [hook]})
        metadata = {"name": "g", "namespace": "default"}
        gadget = {"apiVersion": "admission.reconciler.dev/v1", "kind": "Gadget", "metadata": metadata}
        said = await World.try_to(client.create(gadget))
        assert said.endswith("denied the request without explanation")


@pytest.mark.virtual_time
@pytest.mark.parametrize("happens", ["kind deleted", "namespace deleted", "restart", "wipe"])
async def test_nothing_is_created_where_nothing_is_served_any_more(happens: str) -> None:
    async with APIServer(provision_namespaces=False) as server, Client(server) as client:

        class Hook:
            async def send(self, request: HTTPRequest, /) -> HTTPResponse:
                if happens == "kind deleted":
                    name = GADGET_DEFINITION["metadata"]["name"]
                    await client.delete("apiextensions.k8s.io/v1/CustomResourceDefinition", name)
                elif happens == "namespace deleted":
                    await client.delete("v1/Namespace", "ns")
                else:
                    await server.restart(wipe=happens == "wipe")
                asked = json.loads(request.body)
                response = {"uid": asked["request"]["uid"], "allowed": True}
                return HTTPResponse(200, body=json.dumps({**asked, "response": response}).encode())

        server.connect_webhooks("https://webhooks.example", Hook())
        await server.apply(GADGET_DEFINITION)
        await client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ns"}})
        hook = {
            "name": "v.admission.reconciler.dev",
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "clientConfig": {"url": "https://webhooks.example/v"},
            "rules": [{**GADGETS, "operations": ["CREATE"]}],
        }
        await client.create({"apiVersion": GROUP, "kind": VALIDATING, "metadata": {"name": "v"}, "webhooks": [hook]})
        metadata = {"name": "g", "namespace": "ns"}
        gadget = {"apiVersion": "admission.reconciler.dev/v1", "kind": "Gadget", "metadata": metadata}
        path = "/apis/admission.reconciler.dev/v1/namespaces/ns/gadgets"
        headers = {"content-type": "application/json"}
        request = HTTPRequest("POST", path, headers=headers, body=json.dumps(gadget).encode())
        if "deleted" in happens:
            assert (await server.send(request)).status == 404
        else:
            with pytest.raises(OutcomeUnknown, match="the server restarted before it answered"):
                await server.send(request)
