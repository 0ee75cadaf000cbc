"""The request of each verb, and how it reads the response."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import kubernetes_asyncio.client
import pytest

from reconciler import Model, ObjectMeta, Resource, Unstructured
from reconciler.client import Client
from reconciler.errors import BadRequest, Conflict, NotFound, NotServed
from reconciler.http import HTTPRequest
from reconciler.meta import AlreadyOwned, GroupVersionKind, Request
from reconciler.objects import InvalidObject


class DatabaseSpec(Model):
    size: int = 1


class Database(Resource[DatabaseSpec], group="example.com", version="v1"):
    pass


DB_PATH = "/apis/example.com/v1/namespaces/prod/databases"
STORED = {
    "apiVersion": "example.com/v1",
    "kind": "Database",
    "metadata": {"name": "db1", "namespace": "prod", "uid": "u1", "resourceVersion": "7"},
    "spec": {"size": 3, "unknown": "kept"},
}
CONFIG_MAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "prod"}}


@pytest.fixture
def client(script: Any) -> Client:
    return Client(script, field_manager="me")


# get


async def test_a_class_is_read_as_its_instance_and_needs_no_discovery(script: Any, client: Client) -> None:
    script.answers(STORED)
    db = await client.get(Database, "db1", "prod")
    assert type(db) is Database
    assert db.spec.size == 3
    assert (script.last.method, script.last.path) == ("GET", f"{DB_PATH}/db1")
    assert script.discovered == []


@pytest.mark.parametrize("kind", ["v1/Node", GroupVersionKind("", "v1", "Node")])
async def test_any_other_kind_is_read_as_unstructured(script: Any, client: Client, kind: Any) -> None:
    script.answers({"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n"}})
    node = await client.get(kind, "n")
    assert isinstance(node, Unstructured)
    assert node.name == "n"
    assert script.last.path == "/api/v1/nodes/n"


async def test_user_agent_and_accept_headers_are_sent(script: Any) -> None:
    await Client(script.answers(STORED)).get(Database, "db1", "prod")
    assert script.last.headers["user-agent"].startswith("kube-reconciler/")
    assert script.last.headers["accept"] == "application/json"
    await Client(script.answers(STORED), user_agent="db-operator/2").get(Database, "db1", "prod")
    assert script.last.headers["user-agent"] == "db-operator/2"
    assert script.last.timeout == 65


INVALID = [".", "..", "a/b", "a/../b", "a?b", "a#b", "a%2fb", "%2e%2e", "a\nb", "a\x00", "\x7f", "a" * 254]
ONE = {"apiVersion": "v1", "kind": "ConfigMap"}
VERBS: dict[str, Callable[[Client, Any, str, str | None], Any]] = {
    "get": lambda c, kind, name, ns: c.get(kind, name, ns),
    "get_metadata": lambda c, kind, name, ns: c.get_metadata(kind, name, ns),
    "delete": lambda c, kind, name, ns: c.delete(kind, name, ns),
    "patch": lambda c, kind, name, ns: c.patch(kind, name, ns, patch={}),
    "patch status": lambda c, kind, name, ns: c.patch(kind, name, ns, patch={}, subresource="status"),
    "get_subresource": lambda c, kind, name, ns: c.get_subresource(kind, name, ns, subresource="scale"),
    "create_subresource": lambda c, kind, name, ns: c.create_subresource(
        kind, name, ns, subresource="eviction", body={}
    ),
    "wait_for": lambda c, kind, name, ns: c.wait_for(kind, name, ns, until=bool, timeout=1),
    "wait_gone": lambda c, kind, name, ns: c.wait_gone(kind, name, ns, timeout=1),
    "status": lambda c, kind, name, ns: c.status_writer(kind, name, ns).write({}),
    "read status": lambda c, kind, name, ns: c.status_writer(kind, name, ns).read(),
    "create": lambda c, kind, name, ns: c.create({**ONE, "metadata": {"name": name, "namespace": ns}}),
    "update": lambda c, kind, name, ns: c.update({**ONE, "metadata": {"name": name, "namespace": ns}}),
    "apply": lambda c, kind, name, ns: c.apply({**ONE, "metadata": {"name": name, "namespace": ns}}),
    "delete object": lambda c, kind, name, ns: c.delete({**ONE, "metadata": {"name": name, "namespace": ns}}),
    "create_or_update": lambda c, kind, name, ns: c.create_or_update(
        {**ONE, "metadata": {"name": name, "namespace": ns}}, lambda obj: None
    ),
    "patch_from": lambda c, kind, name, ns: c.patch_from(
        {**ONE, "metadata": {"name": name, "namespace": ns}},
        {**ONE, "metadata": {"name": name, "namespace": ns}, "a": 1},
    ),
}


@pytest.mark.parametrize("bad", INVALID)
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("kind", [Database, "v1/ConfigMap", "v1/Node"])
async def test_a_name_that_would_change_the_path_is_refused_before_sending(
    script: Any, client: Client, verb: str, bad: str, kind: Any
) -> None:
    with pytest.raises(ValueError, match="is not valid"):
        await VERBS[verb](client, kind, bad, "prod")
    if kind != "v1/Node":
        with pytest.raises(ValueError, match=r"namespace .* is not valid"):
            await VERBS[verb](client, kind, "a", bad)
    assert (script.requests, script.discovered) == ([], [])


@pytest.mark.parametrize("verb", ["get", "delete", "patch", "get_subresource", "status"])
async def test_an_empty_name_is_refused_before_sending(script: Any, client: Client, verb: str) -> None:
    with pytest.raises(ValueError, match=r"needs a name|needs the object's name|pass the object's name"):
        await VERBS[verb](client, Database, "", "prod")
    assert script.requests == []


async def test_name_and_kind_in_the_wrong_order_are_named(client: Client) -> None:
    with pytest.raises(TypeError, match=r"must be a string, not <class '.*Database'>"):
        await client.get("db1", Database, "prod")  # type: ignore[call-overload]


@pytest.mark.parametrize("bad", ["", *INVALID])
async def test_a_namespace_that_would_change_the_path_is_refused_by_lists_too(
    script: Any, client: Client, bad: str
) -> None:
    for call in (client.list, client.list_metadata, client.delete_all_of):
        with pytest.raises(ValueError, match=r"namespace .* is not valid"):
            await call("v1/ConfigMap", bad)
    for stream in (client.watch("v1/ConfigMap", bad), client.list_pages("v1/ConfigMap", bad)):
        with pytest.raises(ValueError, match=r"namespace .* is not valid"):
            await anext(stream)
    assert (script.requests, script.discovered) == ([], [])


@pytest.mark.parametrize("bad", ["..", "a/../../b", "status?dryRun=All", "a#b", "%2e%2e"])
async def test_subresources_and_kinds_cannot_change_the_path(script: Any, client: Client, bad: str) -> None:
    with pytest.raises(ValueError, match="is not valid"):
        await client.get_subresource(Database, "a", "prod", subresource=bad)
    for kind in (GroupVersionKind(bad, "v1", "Thing"), GroupVersionKind("apps", bad, "Deployment")):
        with pytest.raises(ValueError, match="is not valid"):
            await client.get(kind, "a", "prod")
    assert (script.requests, script.discovered) == ([], [])


async def test_a_namespaced_object_needs_its_namespace(script: Any, client: Client) -> None:
    with pytest.raises(ValueError, match="needs a namespace"):
        await client.get(Database, "db1")
    with pytest.raises(ValueError, match="needs a namespace"):
        await client.create({**CONFIG_MAP, "metadata": {"name": "c"}})
    assert script.requests == []


async def test_names_are_encoded_in_the_path(script: Any, client: Client) -> None:
    await Client(script.answers(STORED)).get(Database, "system:a b\u00e9", "p d")
    assert script.last.path == "/apis/example.com/v1/namespaces/p%20d/databases/system:a%20b%C3%A9"


async def test_an_answer_that_does_not_fit_the_class_names_the_object(script: Any, client: Client) -> None:
    script.answers({**STORED, "spec": {"size": "many"}})
    with pytest.raises(InvalidObject, match=r"prod/db1 .*spec\.size"):
        await client.get(Database, "db1", "prod")


async def test_an_answer_that_is_not_json_is_an_error_that_quotes_it(script: Any, client: Client) -> None:
    script.says(b"<html>sign in</html>")
    with pytest.raises(Exception, match="not a JSON object: '<html>sign in</html>'"):
        await client.get(Database, "db1", "prod")


async def test_a_kind_that_is_not_served_differs_from_a_missing_object(script: Any, client: Client) -> None:
    script.says(b"404 page not found\n", 404)
    with pytest.raises(NotServed, match=f"GET {DB_PATH}/db1: 404: nothing is served"):
        await client.get(Database, "db1", "prod")
    script.refuses(404, "NotFound")
    with pytest.raises(NotFound) as caught:
        await client.get(Database, "db1", "prod")
    assert not isinstance(caught.value, NotServed)


async def test_an_invalid_transport_is_refused_with_a_hint() -> None:
    with pytest.raises(TypeError, match="from_config"):
        Client(object())  # type: ignore[arg-type]


# create


async def test_create_posts_the_document_to_the_collection(script: Any, client: Client) -> None:
    script.answers(STORED, 201)
    db = await client.create(
        Database(metadata=ObjectMeta(name="db1", namespace="prod"), spec=DatabaseSpec(size=3)),
        dry_run=True,
        field_validation="Strict",
    )
    assert (db.uid, db.resource_version) == ("u1", "7")
    assert (script.last.method, script.last.path) == ("POST", DB_PATH)
    assert script.query == {"dryRun": "All", "fieldManager": "me", "fieldValidation": "Strict"}
    assert script.last.headers["content-type"] == "application/json"
    assert script.body["spec"] == {"size": 3}


async def test_dicts_unstructured_and_generated_models_are_objects(script: Any, client: Client) -> None:
    model = kubernetes_asyncio.client.V1ConfigMap(
        api_version="v1",
        kind="ConfigMap",
        metadata=kubernetes_asyncio.client.V1ObjectMeta(name="c", namespace="prod"),
        binary_data={"k": "v"},
    )
    for given in (CONFIG_MAP, Unstructured(CONFIG_MAP), model):
        script.answers(CONFIG_MAP, 201)
        created = await client.create(given)
        assert isinstance(created, Unstructured)
        assert script.last.path == "/api/v1/namespaces/prod/configmaps"
    assert script.body["binaryData"] == {"k": "v"}


async def test_an_object_without_a_kind_is_refused_before_sending(script: Any, client: Client) -> None:
    with pytest.raises(ValueError, match="has no apiVersion or no kind"):
        await client.create({"metadata": {"name": "x"}})
    with pytest.raises(TypeError, match="is not a Kubernetes object"):
        await client.create("v1/ConfigMap")  # type: ignore[call-overload]


# update


async def test_update_of_a_typed_object_sends_the_document_read_with_the_changes_laid_over(
    script: Any, client: Client
) -> None:
    script.answers(STORED).answers(STORED)
    db = await client.get(Database, "db1", "prod")
    db.spec.size = 5
    await client.update(db)
    assert (script.last.method, script.last.path) == ("PUT", f"{DB_PATH}/db1")
    assert script.body["spec"] == {"size": 5, "unknown": "kept"}
    assert script.body["metadata"]["resourceVersion"] == "7"


async def test_update_of_the_status_goes_to_the_subresource(script: Any, client: Client) -> None:
    script.answers(STORED)
    await client.update({**STORED, "status": {}}, subresource="status")
    assert script.last.path == f"{DB_PATH}/db1/status"


# patch


@pytest.mark.parametrize(
    ("strategy", "patch", "content_type"),
    [
        ("merge", {"spec": {"size": 4}}, "application/merge-patch+json"),
        ("strategic", {"spec": {"size": 4}}, "application/strategic-merge-patch+json"),
        ("json", [{"op": "remove", "path": "/spec"}], "application/json-patch+json"),
    ],
)
async def test_each_patch_has_its_content_type(
    script: Any, client: Client, strategy: Any, patch: Any, content_type: str
) -> None:
    script.answers(STORED)
    db = await client.patch(Database, "db1", "prod", patch=patch, strategy=strategy, subresource="status")
    assert type(db) is Database
    assert (script.last.method, script.last.path) == ("PATCH", f"{DB_PATH}/db1/status")
    assert script.last.headers["content-type"] == content_type
    assert script.body == patch


async def test_a_patch_can_require_a_version(script: Any, client: Client) -> None:
    given = {"metadata": {"labels": {"a": "b"}}}
    await Client(script.answers(STORED)).patch(Database, "db1", "prod", patch=given, resource_version="7")
    assert script.body == {"metadata": {"labels": {"a": "b"}, "resourceVersion": "7"}}
    assert given == {"metadata": {"labels": {"a": "b"}}}
    await Client(script.answers(STORED)).patch(Database, "db1", "prod", patch=[], strategy="json", resource_version="7")
    assert script.body == [{"op": "replace", "path": "/metadata/resourceVersion", "value": "7"}]


async def test_a_patch_in_the_wrong_form_is_refused_before_sending(client: Client) -> None:
    with pytest.raises(TypeError, match="use 'merge' for an object"):
        await client.patch(Database, "db1", "prod", patch={}, strategy="json")
    with pytest.raises(TypeError, match="use 'json' for operations"):
        await client.patch(Database, "db1", "prod", patch=[])


async def test_large_integers_keep_their_precision(script: Any, client: Client) -> None:
    script.answers(STORED)
    await client.patch(Database, "db1", "prod", patch={"spec": {"a": 2**63 - 1, "b": 2**63 - 2}})
    assert script.last.body == b'{"spec":{"a":9223372036854775807,"b":9223372036854775806}}'


# apply


async def test_apply_leaves_out_server_metadata_and_forces(script: Any, client: Client) -> None:
    read = {
        **STORED,
        "metadata": {**STORED["metadata"], "managedFields": [{}], "generation": 2, "labels": {"a": "b"}},  # type: ignore[dict-item]
    }
    script.answers(STORED)
    await client.apply(read)
    assert (script.last.method, script.last.path) == ("PATCH", f"{DB_PATH}/db1")
    assert script.last.headers["content-type"] == "application/apply-patch+yaml"
    assert script.query == {"fieldManager": "me", "force": "true"}
    assert script.body["metadata"] == {"name": "db1", "namespace": "prod", "labels": {"a": "b"}}
    assert read["metadata"]["managedFields"] == [{}]


async def test_apply_with_field_manager_force_and_version(script: Any, client: Client) -> None:
    script.answers(STORED)
    await client.apply(STORED, field_manager="other", force=False, resource_version="7", subresource="status")
    assert script.query == {"fieldManager": "other"}
    assert script.body["metadata"]["resourceVersion"] == "7"
    assert script.last.path == f"{DB_PATH}/db1/status"


async def test_apply_with_an_owner_sets_the_controller_reference(script: Any, client: Client) -> None:
    owner = Database.from_dict(STORED)
    script.answers(CONFIG_MAP)
    await client.apply(CONFIG_MAP, owner=owner)
    assert script.body["metadata"]["ownerReferences"] == [
        {
            "apiVersion": "example.com/v1",
            "kind": "Database",
            "name": "db1",
            "uid": "u1",
            "controller": True,
            "blockOwnerDeletion": True,
        }
    ]
    assert "ownerReferences" not in CONFIG_MAP["metadata"]
    other = {**STORED, "metadata": {**STORED["metadata"], "uid": "u2"}}  # type: ignore[dict-item]
    with pytest.raises(AlreadyOwned):
        await client.apply(script.body, owner=other)


# delete


async def test_delete_by_name_sends_its_options(script: Any, client: Client) -> None:
    script.answers({"kind": "Status", "status": "Success"})
    gone = await client.delete(
        Database, "db1", "prod", propagation="Foreground", grace_period=0, uid="u1", resource_version="7", dry_run=True
    )
    assert gone is None
    assert (script.last.method, script.last.path) == ("DELETE", f"{DB_PATH}/db1")
    assert script.body == {
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "propagationPolicy": "Foreground",
        "gracePeriodSeconds": 0,
        "preconditions": {"uid": "u1", "resourceVersion": "7"},
        "dryRun": ["All"],
    }


async def test_delete_of_an_object_requires_its_uid(script: Any, client: Client) -> None:
    held = {**STORED, "metadata": {**STORED["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}}  # type: ignore[dict-item]
    script.answers(held)
    db = await client.delete(Database.from_dict(STORED))
    assert db is not None
    assert db.metadata.deletion_timestamp is not None
    assert script.body["preconditions"] == {"uid": "u1"}


async def test_delete_needs_a_name(script: Any, client: Client) -> None:
    with pytest.raises(ValueError, match="needs a name"):
        await client.delete(Database)
    assert script.requests == []


async def test_delete_all_of_takes_selectors_and_one_namespace(script: Any, client: Client) -> None:
    script.answers({"kind": "DatabaseList", "items": []})
    await client.delete_all_of(
        Database, "prod", label_selector={"a": "b", "c": "d"}, field_selector="metadata.name!=x", grace_period=1
    )
    assert (script.last.method, script.last.path) == ("DELETE", DB_PATH)
    assert script.query == {"labelSelector": "a=b,c=d", "fieldSelector": "metadata.name!=x"}
    with pytest.raises(ValueError, match="needs a namespace"):
        await client.delete_all_of(Database)


@pytest.mark.parametrize("empty", ["", " ", {}])
@pytest.mark.parametrize("selector", ["label_selector", "field_selector"])
async def test_delete_all_of_with_an_empty_selector_deletes_nothing(
    script: Any, client: Client, selector: str, empty: Any
) -> None:
    """The selector was meant to select something, and the server would delete everything."""
    with pytest.raises(ValueError, match=f"{selector} is empty, which selects everything"):
        await client.delete_all_of(Database, "prod", **{selector: empty})
    assert script.requests == []


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.delete(Database, "db1", "prod", uid=""),
        lambda client: client.delete(Database, "db1", "prod", resource_version=""),
        lambda client: client.patch(Database, "db1", "prod", patch={}, resource_version=""),
        lambda client: client.patch(Database, "db1", "prod", patch=[], strategy="json", resource_version=""),
        lambda client: client.apply(Database.from_dict(STORED), resource_version=""),
    ],
)
async def test_an_empty_condition_is_refused(script: Any, client: Client, call: Callable[[Client], Any]) -> None:
    """As of an object that was never stored: the write would have no condition."""
    with pytest.raises(ValueError, match=r"(uid|resource_version) is empty"):
        await call(client)
    assert script.requests == []


@pytest.mark.parametrize("selector", [["a=b"], 5, {"a": None}, {"a": True}])
async def test_a_selector_that_would_select_something_else_is_refused(
    script: Any, client: Client, selector: Any
) -> None:
    for call in (client.list, client.list_metadata, client.delete_all_of):
        with pytest.raises(TypeError, match="selector"):
            await call(Database, "prod", label_selector=selector)
    assert script.requests == []


# subresources


async def test_subresources_with_a_kind_of_their_own(script: Any, client: Client) -> None:
    scale = {"apiVersion": "autoscaling/v1", "kind": "Scale", "spec": {"replicas": 2}}
    path = "/apis/apps/v1/namespaces/prod/deployments/web/scale"
    script.answers(scale).answers(scale).answers({"kind": "Status", "status": "Success"}, 201)
    got = await client.get_subresource("apps/v1/Deployment", "web", "prod", subresource="scale")
    assert got["spec"] == {"replicas": 2}
    patched = await client.patch(
        "apps/v1/Deployment", "web", "prod", patch={"spec": {"replicas": 3}}, subresource="scale"
    )
    assert patched.gvk.kind == "Scale"
    assert (script.last.method, script.last.path) == ("PATCH", path)
    await client.create_subresource("v1/Pod", "p", "prod", subresource="eviction", body={"kind": "Eviction"})
    assert (script.last.method, script.last.path) == ("POST", "/api/v1/namespaces/prod/pods/p/eviction")


# the hook, the raw request, sharing


async def test_an_observer_is_notified_of_every_write(script: Any, client: Client, observer: Any) -> None:
    observed = observer.of(client)
    assert observed.field_manager == "me"
    for _ in range(4):
        script.answers(STORED)
    script.answers({"kind": "Status", "status": "Success"})
    await observed.create(STORED)
    await observed.update(STORED)
    await observed.patch(Database, "db1", "prod", patch={})
    await observed.apply(STORED)
    await observed.delete(Database, "db1", "prod")
    assert [verb for verb, _, _ in observer.writes] == ["create", "update", "patch", "apply", "delete"]
    assert {request for _, request, _ in observer.writes} == {Request("db1", "prod")}
    assert b'"resourceVersion": "7"' in observer.writes[0][2]


async def test_dry_runs_reads_failures_and_other_subresources_are_not_writes(
    script: Any, client: Client, observer: Any
) -> None:
    observed = observer.of(client)
    script.answers(STORED).answers(STORED).answers({"kind": "Status"}).answers({"kind": "Scale", "metadata": {}})
    script.refuses(409, "Conflict").answers(STORED)
    await observed.create(STORED, dry_run=True)
    await observed.patch(Database, "db1", "prod", patch={}, dry_run=True)
    await observed.delete(STORED, dry_run=True)
    await observed.patch("apps/v1/Deployment", "web", "prod", patch={}, subresource="scale")
    with pytest.raises(Conflict):
        await observed.update(STORED)
    await observed.get(Database, "db1", "prod")
    assert observer.writes == []


async def test_live_is_the_client_itself(client: Client) -> None:
    assert client.live is client


async def test_send_sends_a_raw_request(script: Any, client: Client) -> None:
    script.refuses(400, "BadRequest")
    response = await client.send(HTTPRequest("GET", "/version", headers={"accept": "text/plain"}))
    assert response.status == 400
    assert script.last.headers["accept"] == "text/plain"
    assert "user-agent" in script.last.headers


async def test_a_client_can_be_the_transport_of_another(script: Any, client: Client) -> None:
    script.answers(STORED)
    assert (await Client(client, user_agent="outer").get(Database, "db1", "prod")).name == "db1"
    assert script.last.headers["user-agent"] == "outer"


async def test_errors_contain_verb_path_and_status(script: Any, client: Client) -> None:
    script.refuses(400, "BadRequest", "no such field", causes=[{"reason": "R", "message": "m", "field": "spec.x"}])
    with pytest.raises(BadRequest, match=f"POST {DB_PATH}: 400 BadRequest: no such field") as caught:
        await client.create(STORED)
    assert caught.value.causes[0].field == "spec.x"


async def test_models_inside_a_patch_are_serialized(script: Any, client: Client) -> None:
    script.answers(STORED)
    await client.patch(Database, "db1", "prod", patch={"spec": DatabaseSpec(size=4)})
    assert script.body == {"spec": {"size": 4}}
    with pytest.raises(TypeError, match="object cannot be written as JSON"):
        await client.patch(Database, "db1", "prod", patch={"spec": object()})


# patches from one state to another


async def test_a_patch_from_two_states_contains_the_difference(script: Any, client: Client) -> None:
    base = Database.from_dict(STORED)
    changed = Database.from_dict(base.to_dict())
    changed.spec.size = 4
    changed.metadata.labels["a"] = "b"
    script.answers({**STORED, "spec": {"size": 4}})
    stored = await client.patch_from(base, changed)
    assert (type(stored), stored.spec.size) == (Database, 4)
    assert script.last.path == f"{DB_PATH}/db1"
    assert script.last.headers["content-type"] == "application/merge-patch+json"
    assert script.body == {"spec": {"size": 4}, "metadata": {"labels": {"a": "b"}}}
    script.answers(STORED)
    await client.patch_from(base, changed, optimistic_lock=True)
    assert script.body["metadata"]["resourceVersion"] == "7"


async def test_two_states_with_the_same_meaning_need_no_request(script: Any, client: Client) -> None:
    base = {**STORED, "status": {"phase": "A"}}
    later = {**STORED, "metadata": {**STORED["metadata"], "resourceVersion": "9", "labels": None}, "status": {}}
    unchanged = await client.patch_from(base, later)
    assert unchanged.to_dict() == later
    assert script.requests == []
    script.answers(STORED)
    await client.patch_from(base, later, subresource="status")
    assert (script.last.path, script.body) == (f"{DB_PATH}/db1/status", {"status": {"phase": None}})


async def test_a_patch_needs_two_states_of_one_object_and_a_version_to_lock_on(script: Any, client: Client) -> None:
    other = {**STORED, "metadata": {**STORED["metadata"], "uid": "u2"}}
    with pytest.raises(ValueError, match="not two states of one object"):
        await client.patch_from(STORED, other)
    unread = {**STORED, "metadata": {"name": "db1", "namespace": "prod"}}
    with pytest.raises(ValueError, match=r"optimistic_lock: .* has no resourceVersion"):
        await client.patch_from(unread, unread, optimistic_lock=True)
    assert script.requests == []


async def test_models_of_official_clients_inside_a_patch_are_serialized(script: Any, client: Client) -> None:
    port = kubernetes_asyncio.client.V1ServicePort(port=80, target_port=8080)
    script.answers(STORED)
    await client.patch(Database, "db1", "prod", patch={"spec": {"ports": [port]}})
    assert script.body == {"spec": {"ports": [{"port": 80, "targetPort": 8080}]}}


async def test_a_body_of_a_subresource_may_be_a_model(script: Any, client: Client) -> None:
    eviction = kubernetes_asyncio.client.V1Eviction(api_version="policy/v1", kind="Eviction")
    script.answers({"kind": "Status"})
    await client.create_subresource("v1/Pod", "p", "prod", subresource="eviction", body=eviction)
    assert script.body == {"apiVersion": "policy/v1", "kind": "Eviction"}


async def test_apply_to_a_subresource_is_forced_unless_told_otherwise(script: Any, client: Client) -> None:
    for force in (True, False):
        script.answers(STORED)
        await client.apply(STORED, subresource="status", force=force)
        assert (script.last.method, script.query.get("force")) == ("PATCH", "true" if force else None)
        assert script.last.headers["content-type"] == "application/apply-patch+yaml"


@pytest.mark.parametrize(
    ("patch", "path"),
    [
        ({"spec": {"note": "a\ud800b"}}, "spec.note"),
        ({"spec": {"notes": ["a", {"text": "é\udcff"}]}}, "spec.notes.1.text"),
        ({"spec": {"\udcff": 1}}, "spec"),
    ],
)
async def test_a_text_that_cannot_be_encoded_is_named(script: Any, client: Client, patch: Any, path: str) -> None:
    with pytest.raises(ValueError, match=f"^{path} cannot be sent: it contains a lone surrogate, which UTF-8 cannot"):
        await client.patch(Database, "main", "prod", patch=patch)


async def test_a_name_that_cannot_be_encoded_is_refused(script: Any, client: Client) -> None:
    with pytest.raises(ValueError, match="is not valid: it must not be empty"):
        await client.get(Database, "a\udcff", "prod")
