"""The webhook server over HTTPS: status codes, certificate rotation, and its place in the manager."""

from __future__ import annotations

import asyncio
import io
import json
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
from prometheus_client import CollectorRegistry

from reconciler import Client, Manager
from reconciler._core import certificates
from reconciler.apiserver import APIServer
from reconciler.errors import ConfigurationError
from reconciler.http import HTTPRequest, HTTPResponse
from reconciler.webhook import Converter, WebhookServer, webhook_configurations
from tests.manager.working import RecordingReconciler, config_map
from tests.ports import held_port
from tests.webhook.database import Defaults, Rules, database, write_certificate
from tests.webhook.test_reviews import conversion, converter, old, review

PATH = "/validate-webhook-example-com-v1-database"


@asynccontextmanager
async def serving(server: WebhookServer) -> AsyncIterator[str]:
    task = asyncio.create_task(server.run())
    try:
        async with asyncio.timeout(10):
            while server._bound is None:
                await asyncio.sleep(0.01)
                if task.done():
                    await task
        yield f"https://127.0.0.1:{server.port}"
    finally:
        task.cancel()
        await asyncio.wait({task})


@pytest.fixture
def port() -> Iterator[int]:
    with held_port() as port:
        yield port


@pytest.fixture
def ca() -> trustme.CA:
    return trustme.CA()


def trusting(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return context


async def post(
    url: str, body: bytes | io.BytesIO, ca: trustme.CA, *, content_type: str = "application/json"
) -> tuple[int, bytes]:
    async with aiohttp.ClientSession() as session:
        headers = {"content-type": content_type}
        async with session.post(url, data=body, headers=headers, ssl=trusting(ca)) as response:
            return response.status, await response.read()


async def test_each_invalid_request_has_its_status_code(tmp_path: Path, ca: trustme.CA) -> None:
    write_certificate(tmp_path, ca)
    server = WebhookServer("127.0.0.1:0", certificates=tmp_path)
    server.add(Rules())
    body = review("CREATE", database("db1", 5))
    async with serving(server) as url:
        assert (await post(url + PATH, body, ca))[0] == 200
        assert (await post(url + PATH, b"", ca))[0] == 400
        assert (await post(url + PATH, body, ca, content_type="text/plain"))[0] == 400
        assert (await post(url + PATH, io.BytesIO(b"x" * (7 * 1024 * 1024 + 1)), ca))[0] == 413
        assert (await post(url + "/elsewhere", body, ca))[0] == 404
        async with aiohttp.ClientSession() as session, session.get(url + PATH, ssl=trusting(ca)) as response:
            assert response.status == 405


async def test_rotated_certificate_is_used_without_a_restart(
    tmp_path: Path, ca: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "INTERVAL", 0.05)
    write_certificate(tmp_path, ca)
    server = WebhookServer("127.0.0.1:0", certificates=tmp_path)
    server.add(Rules())
    other = trustme.CA()
    body = review("CREATE", database("db1", 5))
    async with serving(server) as url:
        assert (await post(url + PATH, body, ca))[0] == 200
        (tmp_path / "tls.key").write_text("half a key")
        await asyncio.sleep(0.2)
        assert (await post(url + PATH, body, ca))[0] == 200
        write_certificate(tmp_path, other)
        async with asyncio.timeout(10):
            while True:
                try:
                    assert (await post(url + PATH, body, other))[0] == 200
                    break
                except aiohttp.ClientConnectorCertificateError:
                    await asyncio.sleep(0.05)
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await post(url + PATH, body, ca)


async def test_client_without_the_required_certificate_is_refused(tmp_path: Path, ca: trustme.CA) -> None:
    write_certificate(tmp_path, ca)
    (tmp_path / "clients.pem").write_bytes(ca.cert_pem.bytes())
    server = WebhookServer("127.0.0.1:0", certificates=tmp_path, client_ca=tmp_path / "clients.pem")
    server.add(Rules())
    async with serving(server) as url:
        with pytest.raises((aiohttp.ClientError, OSError)):
            await post(url + PATH, review("CREATE", database("db1", 5)), ca)
        context = trusting(ca)
        ca.issue_cert("apiserver@example.com").configure_cert(context)
        async with (
            aiohttp.ClientSession() as session,
            session.post(url + PATH, json={"kind": "x"}, ssl=context) as response,
        ):
            assert response.status == 400


async def test_a_manager_serves_its_webhooks_if_it_has_a_certificate(tmp_path: Path, ca: trustme.CA, port: int) -> None:
    write_certificate(tmp_path, ca)
    async with APIServer() as server, Client(server) as client:
        address = f"127.0.0.1:{port}"
        manager = Manager(client, webhooks=address, webhook_certificates=tmp_path)
        manager.add_webhooks(Rules(), Defaults())
        async with manager.running():
            status, body = await post(f"https://{address}{PATH}", review("CREATE", database("db1", 51)), ca)
            assert (status, json.loads(body)["response"]["allowed"]) == (200, False)


@pytest.mark.virtual_time
async def test_a_manager_without_a_certificate_knows_its_webhooks_but_does_not_serve_them() -> None:
    async with APIServer() as server, Client(server) as client:
        manager = Manager(client)
        manager.add_webhooks(Rules(), Defaults())
        async with manager.running():
            validating, mutating = webhook_configurations(manager.webhooks, name="databases", url="https://localhost")
    assert validating["webhooks"][0]["clientConfig"] == {"url": f"https://localhost{PATH}"}
    assert mutating["kind"] == "MutatingWebhookConfiguration"


@pytest.mark.parametrize("certificate", [True, False])
async def test_a_manager_does_not_take_a_webhook_that_cannot_be_served(
    tmp_path: Path, ca: trustme.CA, certificate: bool
) -> None:
    write_certificate(tmp_path, ca)
    manager = Manager(Client(APIServer()), webhook_certificates=tmp_path if certificate else None)
    only = converter()
    manager.add_webhooks(only)
    with pytest.raises(ConfigurationError, match=r"the webhook path /convert\S* is already used"):
        manager.add_webhooks(converter())
    with pytest.raises(TypeError, match="takes instances of Validator, Defaulter and Converter, not 3"):
        manager.add_webhooks(3)  # type: ignore[arg-type]
    assert manager.webhooks == (only,)


async def test_a_manager_has_one_webhook_server(tmp_path: Path, ca: trustme.CA) -> None:
    write_certificate(tmp_path, ca)
    own = WebhookServer("127.0.0.1:0", certificates=tmp_path)
    for first, second in ((Rules(), own), (own, Rules()), (own, own)):
        manager = Manager(Client(APIServer()), webhook_certificates=tmp_path)
        manager.add_webhooks(first)
        for _ in range(2):
            with pytest.raises(ConfigurationError, match="the manager already has a webhook server"):
                manager.add_webhooks(second)


async def test_a_manager_whose_certificate_cannot_be_loaded_refuses_webhooks(tmp_path: Path) -> None:
    async with APIServer() as server, Client(server) as client:
        manager = Manager(client, webhook_certificates=tmp_path)
        with pytest.raises(ConfigurationError, match="cannot load the webhook certificate"):
            manager.add_webhooks(Rules())


async def test_manager_serves_webhooks_and_is_ready_when_they_listen(tmp_path: Path, ca: trustme.CA) -> None:
    write_certificate(tmp_path, ca)
    webhooks = WebhookServer("127.0.0.1:0", certificates=tmp_path)
    webhooks.add(Rules())
    async with APIServer() as server, Client(server) as client:
        manager = Manager(client, metrics="127.0.0.1:0", health="127.0.0.1:0")
        manager.add_webhooks(webhooks)
        async with manager.running(), aiohttp.ClientSession() as session:
            async with asyncio.timeout(10):
                while True:
                    async with session.get(f"{manager.health_url}/readyz/webhooks") as response:
                        if response.status == 200:
                            break
                    await asyncio.sleep(0.01)
            url = f"https://127.0.0.1:{webhooks.port}{PATH}"
            assert (await post(url, review("CREATE", database("db1", 51)), ca))[0] == 200
            async with session.get(f"{manager.metrics_url}/metrics") as response:
                text = await response.text()
    assert f'controller_runtime_webhook_requests_total{{code="200",webhook="{PATH}"}} 1.0' in text
    assert f'controller_runtime_webhook_latency_seconds_count{{webhook="{PATH}"}} 1.0' in text


async def test_requests_are_counted_from_zero_and_failures_separately(tmp_path: Path, ca: trustme.CA) -> None:
    write_certificate(tmp_path, ca)
    webhooks = WebhookServer("127.0.0.1:0", certificates=tmp_path)
    webhooks.add(Rules())
    registry = CollectorRegistry()
    webhooks.observe(registry)
    webhooks.add(converter())

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"controller_runtime_{name}", labels)

    assert value("webhook_requests_total", webhook=PATH, code="500") == 0.0
    assert value("webhook_requests_total", webhook="/convert-webhook-example-com-database", code="200") == 0.0
    assert value("webhook_latency_seconds_bucket", webhook=PATH, le="1e-08") == 0.0
    assert value("webhook_latency_seconds_bucket", webhook=PATH, le="1000.0") == 0.0
    assert registry.get_sample_value("certwatcher_read_certificate_total") == 1.0
    async with serving(webhooks) as url:
        await post(url + PATH, review("UPDATE", database("db1", 13), database("db1", 5)), ca)
        assert (value("webhook_panics_total"), value("conversion_webhook_panics_total")) == (1.0, 0.0)
        await post(url + PATH, review("UPDATE", database("db1", 4), database("db1", 5)), ca)
        await post(url + "/convert-webhook-example-com-database", conversion(old("much")), ca)
        assert (value("webhook_panics_total"), value("conversion_webhook_panics_total")) == (1.0, 1.0)
        assert value("webhook_requests_total", webhook=PATH, code="200") == 2.0


class NeedsWebhook:
    """An API server that needs the webhooks to list a kind, and counts failed calls."""

    def __init__(self, server: APIServer, webhooks: WebhookServer) -> None:
        self._server = server
        self._webhooks = webhooks
        self.refused = 0

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        if "configmaps" in request.path and self._webhooks._bound is None:
            self.refused += 1
        return await self._server.send(request)


async def test_webhooks_listen_before_the_cache_lists(tmp_path: Path, ca: trustme.CA) -> None:
    """Lists of a kind with several versions need the conversion webhook, which may be this process."""
    write_certificate(tmp_path, ca)
    webhooks = WebhookServer("127.0.0.1:0", certificates=tmp_path)
    webhooks.add(converter())
    async with APIServer() as server:
        transport = NeedsWebhook(server, webhooks)
        manager = Manager(Client(transport))
        manager.add_webhooks(webhooks)
        manager.add_controller(RecordingReconciler(), resource="v1/ConfigMap")
        await manager.cache.informer("v1/ConfigMap")
        async with manager.running():
            webhooks.check_started()
        assert server.requests(resource="configmaps")
        assert transport.refused == 0


async def test_webhooks_answer_until_the_controllers_have_stopped(tmp_path: Path, ca: trustme.CA) -> None:
    write_certificate(tmp_path, ca)
    webhooks = WebhookServer("127.0.0.1:0", certificates=tmp_path)
    webhooks.add(Rules())
    begun, answers = asyncio.Event(), []

    async def work(_: object) -> None:
        begun.set()
        while manager.statistics().state == "running":  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)  # parts that stop before the webhooks have stopped by now
        url = f"https://127.0.0.1:{webhooks.port}{PATH}"
        answers.append((await post(url, review("CREATE", database("db1", 5)), ca))[0])

    async with APIServer() as server, Client(server) as client:
        await client.create(config_map("a"))
        manager = Manager(client)
        manager.add_webhooks(webhooks)
        manager.add_controller(RecordingReconciler(work), resource="v1/ConfigMap")
        async with manager.running():
            await begun.wait()
        assert answers == [200]
        with pytest.raises(ConfigurationError, match="is not listening"):
            webhooks.check_started()


async def test_webhook_that_cannot_listen_fails_the_start(tmp_path: Path, ca: trustme.CA) -> None:
    write_certificate(tmp_path, ca)
    first = WebhookServer("127.0.0.1:0", certificates=tmp_path)
    async with serving(first), APIServer() as server, Client(server) as client:
        manager = Manager(client)
        manager.add_webhooks(WebhookServer(f"127.0.0.1:{first.port}", certificates=tmp_path))
        with pytest.raises(ConfigurationError, match="cannot listen on 127"):
            await manager.run()


def test_invalid_webhooks_are_refused_immediately(tmp_path: Path, ca: trustme.CA) -> None:
    with pytest.raises(ConfigurationError, match=r"tls\.crt, tls\.key"):
        WebhookServer(certificates=tmp_path / "nowhere")
    write_certificate(tmp_path, ca)
    with pytest.raises(ConfigurationError, match="is not a valid address"):
        WebhookServer("nine", certificates=tmp_path)
    server = WebhookServer(certificates=tmp_path)
    wrong: Any = Rules
    with pytest.raises(TypeError, match="instances"):
        server.add(wrong)
    server.add(Rules())
    server.add(Rules())

    class Same(Defaults):
        path = Rules().served_at

    with pytest.raises(ConfigurationError, match="another type"):
        server.add(Same())
    server.add(Converter("webhook.example.com", "Database", hub="v1"))
    with pytest.raises(ConfigurationError, match="is already used"):
        server.add(Converter("webhook.example.com", "Database", hub="v2"))
