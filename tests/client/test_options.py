"""Clients with other options: one namespace, dry runs, a field manager."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from reconciler import Model, ObjectMeta, Resource
from reconciler.client import Client
from reconciler.meta import Request
from reconciler.meta.field_managers import program_name


class Database(Resource[Model], group="example.com", version="v1"):
    """A database."""


def database(name: str = "db1", namespace: str | None = None) -> Database:
    return Database(metadata=ObjectMeta(name=name, namespace=namespace), spec=Model())


STORED = {
    "apiVersion": "example.com/v1",
    "kind": "Database",
    "metadata": {"name": "db1", "namespace": "prod", "uid": "u1", "resourceVersion": "7"},
    "spec": {},
}
DATABASES = "/apis/example.com/v1/namespaces/prod/databases"


@pytest.fixture
def client(script: Any) -> Client:
    return Client(script)


@pytest.fixture
def prod(client: Client) -> Client:
    return client.in_namespace("prod")


# one namespace

CALLS: dict[str, Any] = {
    "get": lambda c, *ns: c.get(Database, "db1", *ns),
    "get_metadata": lambda c, *ns: c.get_metadata(Database, "db1", *ns),
    "patch": lambda c, *ns: c.patch(Database, "db1", *ns, patch={}),
    "delete": lambda c, *ns: c.delete(Database, "db1", *ns),
    "get_subresource": lambda c, *ns: c.get_subresource(Database, "db1", *ns, subresource="scale"),
    "create_subresource": lambda c, *ns: c.create_subresource(Database, "db1", *ns, subresource="x", body={}),
    "status": lambda c, *ns: c.status_writer(Database, "db1", *ns).write({}),
    "create": lambda c, *ns: c.create(database("db1", *ns)),
    "update": lambda c, *ns: c.update(database("db1", *ns)),
    "apply": lambda c, *ns: c.apply(database("db1", *ns)),
    "patch_from": lambda c, *ns: c.patch_from(
        database("db1", *ns).to_dict(), {**database("db1", *ns).to_dict(), "spec": {"a": 1}}
    ),
    "list": lambda c, *ns: c.list(Database, *ns),
    "list_metadata": lambda c, *ns: c.list_metadata(Database, *ns),
    "delete_all_of": lambda c, *ns: c.delete_all_of(Database, *ns),
}


@pytest.mark.parametrize("verb", CALLS)
async def test_a_client_of_one_namespace_fills_the_namespace_in(script: Any, prod: Client, verb: str) -> None:
    script.answers({"metadata": {}, "items": []} if "list" in verb else STORED)
    await CALLS[verb](prod)
    assert script.last.path.startswith(DATABASES)


@pytest.mark.parametrize("verb", CALLS)
async def test_a_client_of_one_namespace_refuses_another_before_anything_is_sent(
    script: Any, prod: Client, verb: str
) -> None:
    with pytest.raises(ValueError, match=r"for namespace 'prod', not for Database in 'test': omit the namespace"):
        await CALLS[verb](prod, "test")
    assert script.requests == []


async def test_objects_sent_by_a_client_of_one_namespace_contain_it(script: Any, prod: Client) -> None:
    given = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}
    script.answers(given)
    await prod.create(given)
    assert script.body["metadata"] == {"name": "c", "namespace": "prod"}
    assert given["metadata"] == {"name": "c"}


async def test_watches_of_a_client_of_one_namespace_are_limited_to_it(script: Any, prod: Client) -> None:
    script.streams()
    assert [event async for event in prod.watch(Database)] == []
    assert script.last.path == DATABASES


async def test_a_client_of_one_namespace_does_not_affect_cluster_scoped_kinds(script: Any, prod: Client) -> None:
    script.answers({"kind": "Node", "metadata": {"name": "n"}})
    await prod.get("v1/Node", "n")
    assert script.last.path == "/api/v1/nodes/n"


async def test_an_owner_is_found_in_the_namespace_that_is_filled_in(script: Any, prod: Client) -> None:
    script.answers(STORED)
    await prod.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}, owner=STORED)
    assert script.body["metadata"]["ownerReferences"][0]["uid"] == "u1"


def test_the_namespace_of_a_client_cannot_be_changed(prod: Client) -> None:
    assert prod.in_namespace("prod").field_manager == program_name()
    with pytest.raises(ValueError, match="for namespace 'prod', not for 'test'"):
        prod.in_namespace("test")
    with pytest.raises(ValueError, match="needs the name"):
        prod.in_namespace("")


# other options


@pytest.mark.parametrize("verb", [verb for verb in CALLS if not verb.startswith(("get", "list"))])
async def test_dry_run_of_a_client_cannot_be_turned_off(script: Any, prod: Client, observer: Any, verb: str) -> None:
    dry = prod.with_options(dry_run=True).with_options(dry_run=False)
    script.answers(STORED)
    await CALLS[verb](observer.of(dry))
    assert script.query.get("dryRun") == "All" or script.body["dryRun"] == ["All"]
    assert not observer.notified


async def test_the_field_manager_is_the_call_s_or_the_client_s(script: Any, client: Client) -> None:
    mine = client.with_options(field_manager="mine")
    calls: dict[str, Any] = {
        "create": lambda **o: mine.create(database(namespace="prod"), **o),
        "update": lambda **o: mine.update(database(namespace="prod"), **o),
        "patch": lambda **o: mine.patch(Database, "db1", "prod", patch={}, **o),
        "apply": lambda **o: mine.apply(database(namespace="prod"), **o),
        "token": lambda **o: mine.create_subresource(Database, "db1", "prod", subresource="token", body={}, **o),
    }
    for verb, call in calls.items():
        for options, expected in (({}, "mine"), ({"field_manager": "other"}, "other")):
            script.answers(STORED)
            await call(**options)
            assert script.query["fieldManager"] == expected, verb
    assert (mine.field_manager, client.field_manager) == ("mine", program_name())
    script.answers(STORED)
    await mine.status_writer(Database, "db1", "prod").write({})
    assert script.query["fieldManager"] == "mine"


async def test_the_field_validation_is_the_call_s_or_the_client_s(script: Any) -> None:
    strict = Client(script, field_validation="Strict")
    for client in (strict, Client(script).with_options(field_validation="Strict")):
        script.answers(STORED).answers(STORED)
        await client.create(database(namespace="prod"))
        assert script.query["fieldValidation"] == "Strict"
        await client.create(database(namespace="prod"), field_validation="Ignore")
        assert script.query["fieldValidation"] == "Ignore"


async def test_a_client_with_other_options_shares_everything_else(script: Any, client: Client) -> None:
    other = client.with_options(field_manager="other").in_namespace("prod")
    script.answers(STORED)
    await other.get(Database, "db1")
    assert client.statistics().requests == 1
    assert other.through(lambda transport: transport).field_manager == "other"


def test_batchers_of_a_dry_run_client_do_not_join_others(client: Client) -> None:
    def identity(client: Client) -> object:
        return client.status_writer(Database, "db1", "prod").identity

    assert identity(client.in_namespace("prod")) == identity(client)
    assert identity(client.with_options(dry_run=True)) != identity(client)


# notification of writes


async def test_the_write_of_another_kind_s_subresource_leaves_its_object_in_doubt(
    script: Any, client: Client, observer: Any
) -> None:
    client = observer.of(client)
    script.answers({"kind": "Scale"}).answers({"kind": "Status"}).answers(STORED)
    await client.patch("apps/v1/Deployment", "d", "prod", patch={}, subresource="scale")
    await client.create_subresource("v1/Pod", "p", "prod", subresource="eviction", body={})
    assert observer.doubts == [Request("d", "prod"), Request("p", "prod")]
    await client.update(STORED, subresource="approval")
    assert [(verb, key) for verb, key, _ in observer.writes] == [("update", Request("db1", "prod"))]


def test_help_of_a_verb_names_where_its_keywords_are_described() -> None:
    silent = [
        name
        for name, verb in inspect.getmembers(Client, inspect.isfunction)
        if not name.startswith("_")
        for annotation in verb.__annotations__.values()
        if annotation.startswith("Unpack[") and f"`{annotation[7:-1]}`" not in (verb.__doc__ or "")
    ]
    assert silent == []
