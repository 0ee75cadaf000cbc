"""Forks: copies of a cluster that are made on demand, and that never write to it."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from reconciler import Client
from reconciler.apiserver import APIServer
from reconciler.apiserver.fork import ReadOnlyTransport
from reconciler.errors import ConfigurationError, InvalidResponse, NotFound, NotSent, ServerUnavailable
from reconciler.http import HTTPRequest, HTTPResponse, Transport
from reconciler.testing.control_plane import ControlPlane
from tests.apiserver.api import WIDGETS, Api, definition, widget
from tests.real_server import install

CONFIG_MAP = "v1/ConfigMap"


class Requests:
    """A transport that remembers what was asked for."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.lines: list[str] = []

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        self.lines.append(f"{request.method} {request.target}")
        return await self._transport.send(request)

    def lists_of(self, plural: str) -> int:
        return sum(f"/{plural}?" in line for line in self.lines)


def config_map(name: str, namespace: str = "default", **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, **metadata},
        "data": {"a": "b"},
    }


@pytest.fixture
async def origin() -> AsyncIterator[APIServer]:
    async with APIServer(seed=7) as server:
        await server.apply(definition(), *(config_map(f"c{n}") for n in range(3)))
        await Api(server).post(WIDGETS, widget("w", size=2))
        yield server


@pytest.mark.virtual_time
async def test_a_fork_has_the_objects_and_then_lives_by_itself(origin: APIServer) -> None:
    original = Client(origin)
    before = {each.name: each.to_dict() for each in await original.list(CONFIG_MAP)}
    asked = Requests(origin)
    async with APIServer.fork(asked) as server, Client(server) as client:
        assert asked.lists_of("configmaps") == 0
        assert {each.name: each.to_dict() for each in await client.list(CONFIG_MAP)} == before
        assert (await client.get("example.com/v1/Widget", "w", "default"))["spec"]["size"] == 2
        changed = await client.patch(CONFIG_MAP, "c0", "default", patch={"data": {"a": "c"}})
        assert changed["metadata"]["uid"] == before["c0"]["metadata"]["uid"]
        assert int(changed.resource_version) > max(int(each["metadata"]["resourceVersion"]) for each in before.values())
        await client.delete("example.com/v1/Widget", "w", "default")
        await original.create(config_map("later"))
        assert len(await client.list(CONFIG_MAP)) == 3
    assert {line.partition(" ")[0] for line in asked.lines} == {"GET"}
    assert not [line for line in asked.lines if "watch" in line]
    assert (await original.get(CONFIG_MAP, "c0", "default"))["data"] == {"a": "b"}
    assert asked.lists_of("configmaps") == 1
    assert asked.lists_of("widgets") == 1


@pytest.mark.virtual_time
async def test_named_kinds_are_copied_at_once_and_an_awaited_fork_runs_until_it_is_closed(origin: APIServer) -> None:
    asked = Requests(origin)
    seen: list[tuple[str, int]] = []
    server = await APIServer.fork(
        asked, kinds=["cm", "example.com/v1/Widget"], progress=lambda name, count: seen.append((name, count))
    )
    assert server.forked is not None
    assert server.forked.report.copied["configmaps"] == 3
    assert ("widgets.example.com", 1) in seen
    await server.close()
    with pytest.raises(NotSent):
        await Client(server).list(CONFIG_MAP)
    with pytest.raises(ConfigurationError, match="no kind 'wigdet': did you mean 'widget'"):
        await APIServer.fork(origin, kinds=["wigdet"])


@pytest.mark.virtual_time
async def test_lists_are_read_in_pages_of_namespaces_and_selectors(origin: APIServer) -> None:
    many = (config_map(f"m{n:04}", "other", labels={"n": str(n % 2)}) for n in range(1100))
    await origin.apply(*many)
    asked = Requests(origin)
    async with APIServer.fork(asked, namespaces=["other"], selectors={CONFIG_MAP: "n=1"}) as server:
        client = Client(server)
        assert len(await client.list(CONFIG_MAP)) == 550
        assert {each.namespace for each in await client.list(CONFIG_MAP)} == {"other"}
    lists = [line for line in asked.lines if "/configmaps" in line]
    assert len(lists) == 2
    assert all("/namespaces/other/configmaps?labelSelector=n%3D1&limit=500" in line for line in lists)


@pytest.mark.virtual_time
async def test_a_kind_that_may_not_be_listed_looks_empty_and_is_named() -> None:
    async with APIServer(rbac=True) as origin:
        role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "r"}}
        rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}]
        binding = {**role, "kind": "ClusterRoleBinding"}
        binding |= {"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"}}
        binding |= {"subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "ann"}]}
        await origin.apply(role | {"rules": rules}, binding, config_map("c"))
        async with APIServer.fork(origin.user("ann")) as server, Client(server) as client:
            assert len(await client.list(CONFIG_MAP)) == 1
            assert not await client.list("v1/Secret")
            assert server.forked is not None
            assert 'User "ann" cannot list resource "secrets"' in server.forked.report.denied["secrets"]


@pytest.mark.virtual_time
async def test_values_of_secrets_are_replaced_by_values_of_the_same_shape(origin: APIServer) -> None:
    def encoded(text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    docker = json.dumps({"auths": {"ghcr.io": {"auth": "czNjcjN0", "n": 42, "on": True}}})
    public = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
    values = {"password": "Tr0ub4dor&3", "url": "postgres://ann:hunter2@db.prod:5432/app", "docker": docker}
    values |= {"crt": public, "same": "Tr0ub4dor&3"}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "default"}}
    applied = json.dumps({**secret, "data": {"password": encoded("Tr0ub4dor&3")}})
    annotations = {"kubectl.kubernetes.io/last-applied-configuration": applied}
    secret |= {"data": {name: encoded(value) for name, value in values.items()}}
    await origin.apply({**secret, "metadata": {**secret["metadata"], "annotations": annotations}})
    async with APIServer.fork(origin, kinds=["secrets"]) as server:
        found = (await Client(server).get("v1/Secret", "s", "default"))["data"]
        shown = {name: base64.b64decode(value).decode() for name, value in found.items()}
        assert shown["crt"] == public
        assert shown["same"] == shown["password"] != values["password"]
        assert [sign.isdigit() for sign in shown["password"]] == [sign.isdigit() for sign in values["password"]]
        assert shown["url"][8:11] == "://"
        assert json.loads(shown["docker"])["auths"]["ghcr.io"]["on"] is True
        snapshot = server.snapshot()
        for text in ("Tr0ub4dor", "hunter2", "czNjcjN0", encoded("Tr0ub4dor&3")):
            assert text.encode() not in snapshot
    async with APIServer.fork(origin, kinds=["secrets"], copy_secrets=True) as server:
        assert (await Client(server).get("v1/Secret", "s", "default"))["data"] == secret["data"]


@pytest.mark.virtual_time
async def test_a_snapshot_of_a_fork_is_a_fixture_that_knows_what_it_lacks(origin: APIServer) -> None:
    async with APIServer.fork(origin, kinds=["widgets"]) as server:
        snapshot = server.snapshot()
    async with APIServer() as other, Client(other) as client:
        await other.restore(snapshot)
        assert [each.name for each in await client.list("example.com/v1/Widget")] == ["w"]
        assert other.forked is not None
        assert not other.forked.report.missing
        assert not await client.list(CONFIG_MAP)
        assert other.forked.report.missing == {"configmaps": "it is not in the file"}
        assert (await client.create(config_map("new"))).name == "new"


@pytest.mark.virtual_time
async def test_what_belongs_to_an_owner_of_a_kind_that_is_not_copied_stays(origin: APIServer) -> None:
    client = Client(origin)
    owners = [await client.create(config_map("owner"))]
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "owner", "namespace": "default"}}
    owners.append(await client.create(secret))
    references = [
        {"apiVersion": "v1", "kind": each["kind"], "name": each.name, "uid": each["metadata"]["uid"]} for each in owners
    ]
    await client.create(
        widget("dependent") | {"metadata": {"name": "dependent", "namespace": "default", "ownerReferences": references}}
    )
    async with APIServer.fork(origin, kinds=["widgets", "configmaps"]) as server, Client(server) as fork:
        await fork.delete(CONFIG_MAP, "owner", "default")
        left = await fork.get("example.com/v1/Widget", "dependent", "default")
        assert [each["kind"] for each in left["metadata"]["ownerReferences"]] == ["Secret"]
        await fork.delete("v1/Secret", "owner", "default")
        with pytest.raises(NotFound):
            await fork.get("example.com/v1/Widget", "dependent", "default")


@pytest.mark.virtual_time
async def test_what_belongs_to_an_owner_that_was_not_selected_stays(origin: APIServer) -> None:
    owner = await Client(origin).create(config_map("owner", labels={"a": "b"}))
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    metadata = {"name": "dependent", "namespace": "default", "ownerReferences": [reference]}
    await Client(origin).create(widget("dependent") | {"metadata": metadata})
    forking = APIServer.fork(origin, kinds=["widgets", "configmaps"], selectors={"configmaps": "a=c"})
    async with forking as server, Client(server) as fork:
        patch = {"metadata": {"labels": {"x": "y"}}}
        await fork.patch("example.com/v1/Widget", "dependent", "default", patch=patch)
        assert (await fork.get("example.com/v1/Widget", "dependent", "default"))["metadata"]["labels"] == {"x": "y"}


@pytest.mark.virtual_time
async def test_webhooks_of_the_cluster_are_named_and_not_called(origin: APIServer) -> None:
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["CREATE"]}
    webhook = {
        "name": "deny.example.com",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "clientConfig": {"url": "https://127.0.0.1:1/deny"},
        "rules": [rule],
    }
    kind = "ValidatingWebhookConfiguration"
    configuration = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": "w"}}
    await origin.apply(configuration | {"webhooks": [webhook]})
    async with APIServer.fork(origin) as server, Client(server) as client:
        assert server.forked is not None
        await client.patch(CONFIG_MAP, "c0", "default", patch={"data": {"a": "c"}})
        assert not server.forked.unasked
        await client.create(config_map("new"))
        assert list(server.forked.unasked) == ["deny.example.com"]


class WithExpiringPages:
    """A server whose second page has expired."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        if any(name == "continue" for name, _ in request.query):
            return HTTPResponse(410, {}, b'{"kind": "Status", "reason": "Expired", "code": 410}')
        return await self._transport.send(request)


@pytest.mark.virtual_time
async def test_a_fork_repeats_what_fails_for_a_moment_and_starts_again_when_pages_expire(origin: APIServer) -> None:
    await origin.apply(*(config_map(f"m{n:04}") for n in range(600)))
    origin.faults.add(status=503, times=2, verb="list", resource="configmaps")
    async with APIServer.fork(WithExpiringPages(origin)) as server:
        assert len(await Client(server).list(CONFIG_MAP)) == 603
    origin.faults.add(status=503, times=None, verb="list", resource="configmaps")
    async with APIServer.fork(origin) as server:
        with pytest.raises(ServerUnavailable):
            await server.send(HTTPRequest("GET", "/api/v1/configmaps"))


class Lying:
    """A server whose lists are damaged."""

    def __init__(self, transport: Transport, body: bytes) -> None:
        self._transport, self._body = transport, body

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        if request.path.endswith("/configmaps"):
            return HTTPResponse(200, {}, self._body)
        return await self._transport.send(request)


@pytest.mark.virtual_time
@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b'{"items": 3, "metadata": {}}',
        b'{"items": [{"metadata": {"name": "a"}}], "metadata": {}}',
        b'{"items": [], "metadata": {"continue": "x"}}',
        b'{"items": [{"metadata": {"name": "a", "uid": "u", "resourceVersion": "abc"}}], "metadata": {}}',
    ],
)
async def test_a_list_that_is_none_is_an_error_that_says_so(origin: APIServer, body: bytes) -> None:
    with pytest.raises(InvalidResponse):
        await APIServer.fork(Lying(origin, body), kinds=["configmaps"])


@pytest.mark.virtual_time
async def test_a_cluster_of_another_version_is_noted(origin: APIServer) -> None:
    class Older:
        async def send(self, request: HTTPRequest, /) -> HTTPResponse:
            if request.path == "/version":
                return HTTPResponse(200, {}, b'{"gitVersion": "v1.29.4-gke.100"}')
            if request.path.startswith("/apis/autoscaling/v2/"):
                return HTTPResponse(404, {}, b"404 page not found")
            return await origin.send(request)

    async with APIServer.fork(Older()) as server:
        assert server.forked is not None
        note = server.forked.version_note()
        assert note is not None
        assert "the cluster is v1.29.4-gke.100" in note
        assert not await Client(server).list("autoscaling/v2/HorizontalPodAutoscaler")
    async with APIServer.fork(origin) as server:
        assert server.forked is not None
        assert server.forked.version_note() is None


@pytest.mark.virtual_time
async def test_a_group_that_only_the_cluster_serves_is_named(origin: APIServer) -> None:
    class Aggregated:
        async def send(self, request: HTTPRequest, /) -> HTTPResponse:
            if request.path == "/apis/metrics.k8s.io/v1beta1":
                return HTTPResponse(200, {}, b'{"resources": [{"name": "pods"}]}')
            return await origin.send(request)

    async with APIServer.fork(Aggregated()) as server:
        assert (await server.send(HTTPRequest("GET", "/apis/metrics.k8s.io/v1beta1"))).status == 404
        assert (await server.send(HTTPRequest("GET", "/apis/nothing.io/v1"))).status == 404
        assert server.forked is not None
        assert list(server.forked.report.missing) == ["metrics.k8s.io/v1beta1"]


@pytest.mark.virtual_time
async def test_a_group_whose_server_is_down_is_named(origin: APIServer) -> None:
    class Down:
        async def send(self, request: HTTPRequest, /) -> HTTPResponse:
            if request.path == "/apis/metrics.k8s.io/v1beta1":
                return HTTPResponse(503, {}, b"service unavailable")
            return await origin.send(request)

    async with APIServer.fork(Down()) as server:
        assert (await server.send(HTTPRequest("GET", "/apis/metrics.k8s.io/v1beta1"))).status == 404
        assert server.forked is not None
        assert "503" in server.forked.report.missing["metrics.k8s.io/v1beta1"]


@pytest.mark.control_plane
async def test_a_real_cluster_is_only_read(control_plane: ControlPlane) -> None:
    async with control_plane.client() as client:
        await client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "forked"}})
        await install(client, control_plane, definition())
        for number in range(400):
            await client.create(config_map(f"c{number}", "forked", finalizers=["example.com/keep"]))
        for number in range(50):
            owner = await client.create(
                widget(f"w{number}") | {"metadata": {"name": f"w{number}", "namespace": "forked"}}
            )
            await client.apply(deployment(f"w{number}"), owner=owner)
        lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
        await client.create(lease | {"metadata": {"name": "l", "namespace": "forked"}, "spec": {"holderIdentity": "a"}})
        event = {"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e", "namespace": "forked"}}
        await client.create(event | {"involvedObject": {"namespace": "forked"}, "reason": "R", "type": "Normal"})
        kinds = ["v1/ConfigMap", "apps/v1/Deployment", "example.com/v1/Widget", "coordination.k8s.io/v1/Lease"]
        before = {kind: {each.name: each.to_dict() for each in await client.list(kind, "forked")} for kind in kinds}
        async with (
            Client(client.through(ReadOnlyTransport)) as source,
            APIServer.fork(source) as server,
            Client(server) as fork,
        ):
            for kind in kinds:
                copied = {each.name: each.to_dict() for each in await fork.list(kind, "forked")}
                assert without_order(copied) == without_order(before[kind])
            for number in range(50):
                await fork.delete("example.com/v1/Widget", f"w{number}", "forked")
            assert not await fork.list("apps/v1/Deployment", "forked")
            await fork.delete("v1/ConfigMap", "c0", "forked")
            assert (await fork.get("v1/ConfigMap", "c0", "forked"))["metadata"]["deletionTimestamp"]
        assert len(await client.list("apps/v1/Deployment", "forked")) == 50
        asked = [record for record in control_plane.audit() if record.user_agent == "kube-reconciler fork"]
    assert {record.verb for record in asked} <= {"get", "list"}
    assert {"configmaps", "widgets", "deployments"} <= {record.resource for record in asked}


def deployment(name: str) -> dict[str, Any]:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "forked"},
        "spec": {"selector": {"matchLabels": labels}, "template": template},
    }


def without_order(documents: dict[str, Any]) -> Any:
    return json.loads(json.dumps(documents, sort_keys=True))


async def test_the_transport_of_a_fork_cannot_write(origin: APIServer) -> None:
    reading = ReadOnlyTransport(origin)
    assert (await reading.send(HTTPRequest("GET", "/version"))).status == 200
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        with pytest.raises(NotSent, match="only reads the cluster"):
            await reading.send(HTTPRequest(method, "/api/v1/namespaces/default/configmaps"))
