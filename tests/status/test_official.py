"""The requests for the official clients and their responses, without the clients."""

from __future__ import annotations

import json
import types
from typing import Any

import pytest
import urllib3  # noqa: F401 - a client has it loaded

from reconciler._core.lru import LRU
from reconciler.errors import ConfigurationError, Forbidden, NotServed, ServerError, TooManyRequests
from reconciler.http import HTTPRequest
from reconciler.meta import GroupVersionKind
from reconciler.meta.field_managers import program_name
from reconciler.meta.metadata import ResourceType
from reconciler.status import StatusBatcher, clients
from reconciler.status.clients import BlockingClientWriter, read_answer
from tests.status.scripted import ScriptedServer


def requests(
    obj_or_kind: Any, name: str | None = None, namespace: str | None = None, host: str = "https://host"
) -> BlockingClientWriter:
    client = types.SimpleNamespace(configuration=types.SimpleNamespace(host=host))
    document = obj_or_kind if isinstance(obj_or_kind, dict) else None
    return BlockingClientWriter(
        client, obj_or_kind, document, name=name, namespace=namespace, field_manager="me", timeout=1.0
    )


DISCOVERED = {
    "resources": [
        {"name": "databases/status", "kind": "Database", "namespaced": True},
        {"name": "databases", "kind": "Database", "namespaced": True},
        {"name": "nodes", "kind": "Node", "namespaced": False},
    ]
}


def test_paths_of_groups_and_of_the_core():
    named = requests("example.com/v1/Database", "db1", "prod")
    assert named.gvk.path == "/apis/example.com/v1"
    served = named.learn(DISCOVERED)
    assert named.path(served) == "/apis/example.com/v1/namespaces/prod/databases/db1"
    assert named.path(served, "status") == "/apis/example.com/v1/namespaces/prod/databases/db1/status"
    core = requests(GroupVersionKind("", "v1", "Node"), "n 1")
    assert core.gvk.path == "/api/v1"
    assert core.path(core.learn(DISCOVERED), "status") == "/api/v1/nodes/n%201/status"


def test_discovered_kinds_are_remembered_per_server_and_bounded(monkeypatch):
    requests("example.com/v1/Database", "db1", "prod").learn(DISCOVERED)
    assert requests("example.com/v1/Database", "db2", "prod").served() is not None
    elsewhere = requests("example.com/v1/Database", "a", "b", host="https://other")
    assert elsewhere.served() is None
    monkeypatch.setattr(clients, "_served", LRU(3))
    for number in range(9):
        kind = f"K{number}"
        requests(f"example.com/v1/{kind}", "a").learn({"resources": [{"name": "ks", "kind": kind}]})
    assert len(clients._served) == 3


def test_a_kind_that_is_not_discovered_is_named():
    with pytest.raises(ConfigurationError, match=r"does not serve example\.com/v1/Other"):
        requests("example.com/v1/Other", "a").learn(DISCOVERED)


def test_an_apply_is_forced():
    pod = ResourceType(GroupVersionKind("", "v1", "Pod"), "pods", namespaced=True)
    writer = requests("v1/Pod", "a", "b")
    assert writer.write_request(pod, {}, "merge", "status").query == [("fieldManager", "me")]
    assert writer.write_request(pod, {}, "apply", "status").query == [("fieldManager", "me"), ("force", "true")]


def test_an_item_of_a_list_has_no_kind_and_the_error_says_what_to_do():
    with pytest.raises(ValueError, match="as items of a list do: pass StatusBatcher 'group/version/Kind'"):
        requests({"metadata": {"name": "a"}})


@pytest.mark.parametrize(("kind", "error"), [("Pod", ValueError), (int, TypeError)])
def test_an_invalid_kind_is_refused(kind, error):
    with pytest.raises(error, match="is not a valid kind"):
        requests(kind, "a")


def test_an_answer_is_the_object_and_its_warnings():
    headers = [("Warning", "299 - one"), ("warning", "299 - two"), ("Date", "x")]
    assert read_answer(HTTPRequest("PATCH", "/x"), 200, headers, b'{"a": 1}') == ({"a": 1}, ["299 - one", "299 - two"])


def test_failures_are_typed():
    status = json.dumps({"reason": "Forbidden", "message": "may not", "code": 403}).encode()
    with pytest.raises(Forbidden, match="PATCH /x: 403 Forbidden: may not"):
        read_answer(HTTPRequest("PATCH", "/x"), 403, [], status)
    with pytest.raises(TooManyRequests) as caught:
        read_answer(HTTPRequest("PATCH", "/x"), 429, [("Retry-After", "7")], b"slow down")
    assert caught.value.retry_after == 7.0
    with pytest.raises(NotServed):
        read_answer(HTTPRequest("PATCH", "/x"), 404, [("Content-Type", "text/plain")], b"404 page not found\n")


@pytest.mark.parametrize(
    "body", [b"<html>Welcome</html>", b"[" * 100_000, b'{"a":"\xff"}', b'{"metadata": 5}', b"[1]", b""]
)
def test_a_success_without_an_object_is_an_error_of_a_proxy(body):
    with pytest.raises(ServerError):
        read_answer(HTTPRequest("PATCH", "/x"), 200, [], body)


class Pool:
    """A fake of urllib3's pool manager."""

    def __init__(self, server: ScriptedServer) -> None:
        self.server = server
        self.calls: list[tuple[str, str, Any]] = []

    def request(self, method: str, url: str, *, body: Any, headers: Any, timeout: float, retries: Any) -> Any:
        assert retries is False
        assert 0 < timeout.total <= 10.0
        self.calls.append((method, url, dict(headers)))
        if url.endswith("/apis/example.com/v1"):
            answer: Any = DISCOVERED
        elif method == "PATCH":
            answer = self.server.patch(json.loads(body), "merge", "status", "me")
        else:
            answer = self.server.get()
        return types.SimpleNamespace(status=200, headers={}, data=json.dumps(answer).encode())


def legacy_client(server: ScriptedServer) -> Any:
    """An ApiClient of kubernetes up to version 36, which has no `param_serialize`."""

    class ApiClient:
        configuration = types.SimpleNamespace(host="https://host")
        default_headers = {"User-Agent": "old"}
        rest_client = types.SimpleNamespace(pool_manager=Pool(server))

        def update_params_for_auth(self, headers: Any, queries: Any, auth_settings: Any) -> None:
            assert auth_settings == ["BearerToken"]
            headers["authorization"] = "Bearer x"

    ApiClient.__module__ = "kubernetes.client.api_client"
    return ApiClient()


def test_older_releases_of_the_kubernetes_client_are_supported(server):
    client = legacy_client(server)
    with StatusBatcher(client, server.document()) as status:
        status.set(phase="Ready")
    assert server.status == {"phase": "Ready"}
    method, url, headers = client.rest_client.pool_manager.calls[-1]
    assert method == "PATCH"
    assert url == f"https://host/apis/example.com/v1/namespaces/prod/databases/db1/status?fieldManager={program_name()}"
    assert headers == {
        "User-Agent": "old",
        "Accept": "application/json",
        "Content-Type": "application/merge-patch+json",
        "authorization": "Bearer x",
    }


def test_an_error_that_is_not_a_network_error_is_raised_unchanged(server):
    client = legacy_client(server)
    client.rest_client = types.SimpleNamespace(pool_manager=None)
    with pytest.raises(AttributeError), StatusBatcher(client, server.document()) as status:
        status.set(phase="Ready")


def test_any_mapping_is_an_object(server):
    document = server.document()
    document["metadata"] = types.MappingProxyType(document["metadata"])
    document["status"] = types.MappingProxyType({"log": (1, 2)})
    with StatusBatcher(server.blocking_writer(), types.MappingProxyType(document)) as status:
        assert status.current == {"log": [1, 2]}
        status.set(phase="Ready")
    assert server.status == {"phase": "Ready"}
