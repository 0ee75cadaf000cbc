"""The status writer of a client."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler import Model, Resource
from reconciler.client import Client
from reconciler.errors import NotSent, OutcomeUnknown, ServerUnavailable, TooManyRequests
from reconciler.meta import GroupVersionKind, Request


class Database(Resource[Model], group="example.com", version="v1"):
    pass


DB = {
    "apiVersion": "example.com/v1",
    "kind": "Database",
    "metadata": {"name": "db1", "namespace": "prod", "uid": "u1", "resourceVersion": "7"},
    "spec": {},
}
PATH = "/apis/example.com/v1/namespaces/prod/databases/db1"


@pytest.fixture
def client(script: Any) -> Client:
    return Client(script, field_manager="me")


async def test_a_writer_is_made_for_an_object_or_for_a_kind_and_a_name(client: Client) -> None:
    for writer in (
        client.status_writer(DB),
        client.status_writer(Database.from_dict(DB)),
        client.status_writer(Database, "db1", "prod"),
        client.status_writer("example.com/v1/Database", "db1", "prod"),
    ):
        assert writer.gvk == GroupVersionKind("example.com", "v1", "Database")
        assert writer.request == Request("db1", "prod")
        assert writer.field_manager == "me"
    with pytest.raises(ValueError, match="pass the object's name"):
        client.status_writer(Database)


async def test_reading_is_a_consistent_get_of_the_whole_object(script: Any, client: Client) -> None:
    script.answers(DB)
    assert await client.status_writer(DB).read() == DB
    assert (script.last.method, script.last.path, script.last.query) == ("GET", PATH, ())


async def test_a_merge_patch_goes_to_the_status(script: Any, client: Client) -> None:
    script.answers(DB, warnings=['299 - "unknown field"'])
    writer = client.status_writer(Database, "db1", "prod")
    assert await writer.write({"metadata": {"resourceVersion": "7"}, "status": {"phase": "Ready"}}) == DB
    assert (script.last.method, script.last.path) == ("PATCH", f"{PATH}/status")
    assert script.last.headers["content-type"] == "application/merge-patch+json"
    assert script.query == {"fieldManager": "me"}
    assert script.body == {"metadata": {"resourceVersion": "7"}, "status": {"phase": "Ready"}}
    assert writer.warnings == ['299 - "unknown field"']


async def test_an_apply_is_forced_and_contains_its_kind(script: Any, client: Client) -> None:
    script.answers(DB)
    await client.status_writer(DB).write({"status": {}}, strategy="apply", subresource=None)
    assert script.last.path == PATH
    assert script.last.headers["content-type"] == "application/apply-patch+yaml"
    assert script.query == {"fieldManager": "me", "force": "true"}
    assert script.body == {"apiVersion": "example.com/v1", "kind": "Database", "status": {}}


@pytest.mark.parametrize(
    "failure", [NotSent("refused"), OutcomeUnknown("reset"), (429, TooManyRequests), (503, ServerUnavailable)]
)
async def test_a_write_is_sent_once_whatever_the_failure(script: Any, client: Client, failure: Any) -> None:
    if isinstance(failure, Exception):
        script.fails(failure)
        expected = type(failure)
    else:
        code, expected = failure
        script.refuses(code)
    with pytest.raises(expected):
        await client.status_writer(DB).write({})
    assert len(script.requests) == 1


async def test_writers_share_an_identity_only_with_the_same_connection_and_field_manager(
    script: Any, client: Client
) -> None:
    identity = client.status_writer(DB).identity
    assert Client.over(client.session).status_writer(Database, "db2", "prod").identity == identity
    assert Client(script, field_manager="me").status_writer(DB).identity != identity
    assert hash(identity)


async def test_the_observer_is_notified_of_the_write(script: Any, client: Client, observer: Any) -> None:
    client = observer.of(client)
    script.answers(DB).answers(DB)
    await client.status_writer(DB).write({})
    await client.status_writer(DB).write({}, strategy="apply")
    script.answers(DB)
    await client.with_options(dry_run=True).status_writer(DB).write({})
    assert [write[:2] for write in observer.writes] == [
        ("patch", Request("db1", "prod")),
        ("apply", Request("db1", "prod")),
    ]
