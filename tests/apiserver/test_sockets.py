"""The server over sockets: token, streams, lost responses, restarts.

Controllers of other libraries are in tests/foreign.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import ssl
import stat
import urllib.request
from pathlib import Path
from typing import Any

import aiohttp
import kubernetes
import kubernetes_asyncio
import pytest

from reconciler import Client
from reconciler.apiserver import APIServer
from reconciler.errors import ConfigurationError
from tests.apiserver.api import CONFIG_MAPS, WIDGETS, widget


@pytest.fixture
async def session(server: APIServer) -> Any:
    headers = {"authorization": f"Bearer {server.token}"}
    async with aiohttp.ClientSession(server.url, headers=headers) as opened:
        yield opened


async def test_a_request_without_the_token_is_refused(server: APIServer) -> None:
    async with aiohttp.ClientSession(server.url) as session:
        for headers in ({}, {"authorization": "Bearer wrong"}):
            async with session.get("/api", headers=headers) as answer:
                assert answer.status == 401
                assert (await answer.json())["reason"] == "Unauthorized"
        async with session.get("/wrong/api") as answer:
            assert answer.status == 401
        async with session.get(f"/{server.token}/api") as answer:
            assert answer.status == 200


async def test_the_token_differs_from_server_to_server() -> None:
    assert APIServer(seed=1).token != APIServer(seed=1).token


async def test_objects_are_created_and_deleted(server: APIServer, session: aiohttp.ClientSession) -> None:
    async with session.post(WIDGETS, json=widget("a", foo=1)) as answer:
        assert answer.status == 201
        assert answer.headers.getall("warning") == ['299 - "unknown field \\"spec.foo\\""']
    async with session.get(f"{WIDGETS}?labelSelector=a%3Db&limit=5") as answer:
        assert (await answer.json())["items"] == []
    async with session.get("/nowhere") as answer:
        assert (answer.status, await answer.text()) == (404, "404 page not found\n")


async def test_a_watch_streams_and_its_end_frees_it(server: APIServer, session: aiohttp.ClientSession) -> None:
    async with session.get(f"{WIDGETS}?watch=1") as answer:
        await session.post(WIDGETS, json=widget("a"))
        event = json.loads(await answer.content.readline())
        assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "a")
        assert server.statistics().watches == 1
    await session.post(WIDGETS, json=widget("b"))
    for _ in range(1000):
        if server.statistics().watches == 0:
            break
        await asyncio.sleep(0.01)
    assert server.statistics().watches == 0


async def test_a_lost_response_closes_the_connection(server: APIServer, session: aiohttp.ClientSession) -> None:
    server.faults.add(lost=True, after_commit=True, verb="create")
    with pytest.raises(aiohttp.ClientError):
        await session.post(WIDGETS, json=widget("a"))
    async with session.get(f"{WIDGETS}/a") as answer:
        assert answer.status == 200


async def test_a_restart_closes_connections(server: APIServer, session: aiohttp.ClientSession) -> None:
    async with session.get(f"{WIDGETS}?watch=1") as answer:
        await server.restart()
        with pytest.raises(aiohttp.ClientError):
            await answer.content.read()
    async with session.get(WIDGETS) as answer:
        assert answer.status == 200


async def test_only_its_owner_can_read_a_kubeconfig(server: APIServer, tmp_path: Path) -> None:
    path = server.write_kubeconfig(tmp_path / "kubeconfig")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    content = json.loads(path.read_text())
    assert content["clusters"][0]["cluster"]["server"] == f"{server.url}/{server.token}"
    path.chmod(0o644)
    server.write_kubeconfig(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_the_url_is_bound_at_its_first_use_and_stays(server: APIServer) -> None:
    url = server.url
    assert url.startswith("http://127.0.0.1:")
    assert server.url == url
    assert await server.listen() == await server.listen("localhost") == url
    for other in ({"port": 1}, {"host": "::1"}):
        with pytest.raises(ConfigurationError, match=rf"already listens on {url}; call listen\(\) before"):
            await server.listen(**other)
    with pytest.raises(ConfigurationError, match="loopback only"):
        await server.listen("0.0.0.0")


@pytest.mark.virtual_time
async def test_under_virtual_time_there_are_no_sockets(server: APIServer) -> None:
    with pytest.raises(ConfigurationError, match="virtual time"):
        _ = server.url
    with pytest.raises(ConfigurationError, match="virtual time"):
        await server.listen()


async def test_listening_needs_the_async_with_block() -> None:
    with pytest.raises(ConfigurationError, match="inside 'async with'"):
        _ = APIServer().url


async def test_the_first_use_of_the_url_may_be_in_a_thread(server: APIServer) -> None:
    def fetch() -> int:
        with urllib.request.urlopen(f"{server.url}/{server.token}/healthz") as answer:
            return int(answer.status)

    assert await asyncio.to_thread(fetch) == 200


async def test_kubernetes_asyncio_works_unchanged(server: APIServer, tmp_path: Path) -> None:
    path = server.write_kubeconfig(tmp_path / "kubeconfig")
    configuration = kubernetes_asyncio.client.Configuration()
    await kubernetes_asyncio.config.load_kube_config(str(path), client_configuration=configuration)
    async with kubernetes_asyncio.client.ApiClient(configuration) as client:
        core = kubernetes_asyncio.client.CoreV1Api(client)
        custom = kubernetes_asyncio.client.CustomObjectsApi(client)
        version = await kubernetes_asyncio.client.VersionApi(client).get_code()
        assert (version.major, version.minor) == ("1", "36")
        made = await core.create_namespaced_config_map("default", {"metadata": {"name": "a"}, "data": {"x": "1"}})
        assert made.metadata.uid
        watch = kubernetes_asyncio.watch.Watch()
        seen = []
        async for event in watch.stream(core.list_namespaced_config_map, "default", timeout_seconds=5):
            seen.append((event["type"], event["object"].metadata.name))
            watch.stop()
        assert seen == [("ADDED", "a")]
        await custom.create_namespaced_custom_object("example.com", "v1", "default", "widgets", widget("w"))
        patched = await custom.patch_namespaced_custom_object_status(
            "example.com",
            "v1",
            "default",
            "widgets",
            "w",
            {"status": {"phase": "P"}},
            _content_type="application/merge-patch+json",
        )
        assert patched["status"] == {"phase": "P"}
        lease = {"metadata": {"name": "l"}, "spec": {"holderIdentity": "me", "leaseDurationSeconds": 15}}
        held = await kubernetes_asyncio.client.CoordinationV1Api(client).create_namespaced_lease("default", lease)
        assert held.spec.holder_identity == "me"
        with pytest.raises(kubernetes_asyncio.client.ApiException) as refused:
            await custom.get_namespaced_custom_object("example.com", "v1", "default", "widgets", "zz")
        assert refused.value.status == 404


async def test_the_synchronous_client_works_from_a_thread(server: APIServer, tmp_path: Path) -> None:
    path = server.write_kubeconfig(tmp_path / "kubeconfig")

    def work() -> list[str]:
        client = kubernetes.config.new_client_from_config(str(path))
        core = kubernetes.client.CoreV1Api(client)
        core.create_namespaced_config_map("default", {"metadata": {"name": "a"}})
        names = [item.metadata.name for item in core.list_namespaced_config_map("default").items]
        kinds = kubernetes.client.ApiextensionsV1Api(client).list_custom_resource_definition().items
        return names + [kind.spec.names.kind for kind in kinds]

    assert await asyncio.to_thread(work) == ["a", "Widget"]


async def test_openapi_links_contain_the_token(server: APIServer) -> None:
    def fetch(path: str) -> Any:
        with urllib.request.urlopen(f"{server.url}{path}") as answer:
            return json.load(answer)

    index = await asyncio.to_thread(fetch, f"/{server.token}/openapi/v3")
    link = index["paths"]["apis/example.com/v1"]["serverRelativeURL"]
    document = await asyncio.to_thread(fetch, link)
    assert "com.example.v1.Widget" in document["components"]["schemas"]


def test_the_token_is_not_printed() -> None:
    server = APIServer()
    assert server.token not in repr(server)


async def test_protobuf_is_refused(session: aiohttp.ClientSession) -> None:
    headers = {"content-type": "application/vnd.kubernetes.protobuf"}
    async with session.post(CONFIG_MAPS, data=b"k8s\0", headers=headers) as answer:
        assert answer.status == 415


async def test_a_body_over_etcds_limit_arrives_and_is_refused(session: aiohttp.ClientSession) -> None:
    body = io.BytesIO(json.dumps({"metadata": {"name": "a"}, "data": {"x": "y" * 2_000_000}}).encode())
    async with session.post(CONFIG_MAPS, data=body, headers={"content-type": "application/json"}) as answer:
        assert (answer.status, (await answer.json())["message"]) == (500, "etcdserver: request is too large")


async def test_over_tls_a_client_needs_the_token(tmp_path: Path) -> None:
    async with APIServer(tls=True) as server, aiohttp.ClientSession() as session:
        cluster = server.kubeconfig()["clusters"][0]["cluster"]
        context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        for token, status in (("", 401), ("other", 401), (server.token, 200)):
            headers = {"authorization": f"Bearer {token}"} if token else {}
            async with session.get(f"{cluster['server']}/api/v1/namespaces", ssl=context, headers=headers) as response:
                assert response.status == status
        async with Client.from_config(kubeconfig=server.write_kubeconfig(tmp_path / "kubeconfig")) as client:
            assert "default" in {each.name for each in await client.list("v1/Namespace")}


ORIGIN = {"origin": "http://example.com"}
"""What the real server requires of a WebSocket."""


async def test_a_watch_over_a_websocket_has_an_event_in_each_message(
    server: APIServer, session: aiohttp.ClientSession
) -> None:
    await session.post(WIDGETS, json=widget("a"))
    await session.post(WIDGETS, json=widget("b"))
    async with session.ws_connect(f"{WIDGETS}?watch=true", headers=ORIGIN, protocols=["any"]) as socket:
        assert socket.protocol == "any"
        seen = [await socket.receive_json() for _ in range(2)]
        await session.delete(f"{WIDGETS}/a")
        seen.append(await socket.receive_json())
        assert [(event["type"], event["object"]["metadata"]["name"]) for event in seen] == [
            ("ADDED", "a"),
            ("ADDED", "b"),
            ("DELETED", "a"),
        ]
        assert server.statistics().watches == 1
    async with asyncio.timeout(5):
        while server.statistics().watches:  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0)
    async with session.ws_connect(f"{WIDGETS}?watch=true&timeoutSeconds=1", headers=ORIGIN) as socket:
        await socket.receive_json()
        closed = await socket.receive()
        assert (closed.type, closed.data) == (aiohttp.WSMsgType.CLOSE, 1000)


async def test_a_cut_watch_closes_its_websocket(server: APIServer, session: aiohttp.ClientSession) -> None:
    async with session.ws_connect(f"{WIDGETS}?watch=true", headers=ORIGIN) as socket:
        server.cut_watches()
        assert (await socket.receive()).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)


async def test_a_websocket_may_send_its_token_as_a_protocol(server: APIServer) -> None:
    token = base64.urlsafe_b64encode(server.token.encode()).decode().rstrip("=")
    protocols = [f"base64url.bearer.authorization.k8s.io.{token}", "base64.binary.k8s.io"]
    async with aiohttp.ClientSession(server.url) as session:
        async with session.ws_connect(f"{WIDGETS}?watch=true", headers=ORIGIN, protocols=protocols) as socket:
            assert socket.protocol == "base64.binary.k8s.io"
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await session.ws_connect(f"{WIDGETS}?watch=true", headers=ORIGIN, protocols=protocols[:1])
        assert caught.value.status == 401


@pytest.mark.parametrize(
    ("path", "headers", "protocols", "status"),
    [
        (f"{WIDGETS}?watch=true", {}, [], 403),
        (f"{WIDGETS}?watch=true", ORIGIN, ["a", "b"], 400),
        (f"{WIDGETS}?watch=true&resourceVersion=x", ORIGIN, [], 500),
        ("/api/v1/namespaces/default/pods/absent/exec?command=ls", ORIGIN, ["v5.channel.k8s.io"], 404),
        ("/api/v1/namespaces/default/pods/p/exec?command=ls", ORIGIN, ["v5.channel.k8s.io"], 501),
        ("/api/v1/namespaces/default/pods/p/portforward", ORIGIN, ["v4.channel.k8s.io"], 501),
        ("/api/v1/namespaces/default/services/kubernetes/proxy/x", ORIGIN, [], 501),
    ],
)
async def test_a_websocket_is_refused_at_once(
    server: APIServer,
    session: aiohttp.ClientSession,
    path: str,
    headers: dict[str, str],
    protocols: list[str],
    status: int,
) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}
    await server.apply({**pod, "spec": {"containers": [{"name": "c", "image": "i"}]}})
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await session.ws_connect(path, headers=headers, protocols=protocols)
    assert caught.value.status == status
