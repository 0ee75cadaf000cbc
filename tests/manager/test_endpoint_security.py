"""TLS and authentication of the manager's endpoints, on the embedded API server."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import trustme

from reconciler import Manager
from reconciler._core import certificates
from reconciler.apiserver import APIServer
from reconciler.client import Client
from reconciler.errors import ConfigurationError
from reconciler.manager import EndpointSecurity
from reconciler.manager.endpoints import server
from tests.manager.working import RecordingReconciler, config_map
from tests.ports import held_port
from tests.webhook.database import write_certificate

TOKEN = "s3cret-of-the-endpoints"


@pytest_asyncio.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def get(
    http: aiohttp.ClientSession, url: str, token: str | None = None, *, trust: Any = False, **headers: str
) -> tuple[int, str]:
    if token is not None:
        headers["authorization"] = f"Bearer {token}"
    async with http.get(url, headers=headers, ssl=trust) as answer:
        return answer.status, await answer.text()


# A fixed token


async def test_metrics_and_debug_need_the_token_and_probes_do_not(client: Client, http: aiohttp.ClientSession) -> None:
    manager = Manager(client, metrics="127.0.0.1:0", health="127.0.0.1:0", security=EndpointSecurity(token=TOKEN))
    async with manager.running():
        assert manager.metrics_url is not None
        assert manager.metrics_url.startswith("https://127.0.0.1:")
        for path in ("metrics", "debug/queue", "debug/keys"):
            url = f"{manager.metrics_url}/{path}"
            assert await get(http, url) == (401, "401: send 'Authorization: Bearer TOKEN'\n")
            for wrong in ("wrong", TOKEN[:-1], f"{TOKEN}x", TOKEN.upper(), "é"):
                assert (await get(http, url, wrong))[0] == 401
            assert (await get(http, url, TOKEN))[0] == 200
        for path in ("healthz", "readyz", "readyz/manager"):
            assert await get(http, f"{manager.health_url}/{path}") == (200, "ok")
        for path in ("debug/queue", "debug/keys", "metrics"):
            assert (await get(http, f"{manager.health_url}/{path}", TOKEN))[0] == 404


async def test_a_shared_address_serves_open_probes_over_https(client: Client, http: aiohttp.ClientSession) -> None:
    with held_port() as port:
        address = f"127.0.0.1:{port}"
        async with Manager(client, metrics=address, health=address, security=EndpointSecurity(token=TOKEN)).running():
            assert await get(http, f"https://{address}/healthz") == (200, "ok")
            assert (await get(http, f"https://{address}/metrics"))[0] == 401
            assert (await get(http, f"https://{address}/debug/keys", TOKEN))[0] == 200


async def test_a_browser_is_asked_for_the_token_as_a_password(client: Client, http: aiohttp.ClientSession) -> None:
    async with Manager(client, metrics="127.0.0.1:0", security=EndpointSecurity(token=TOKEN)).running() as manager:
        url = f"{manager.metrics_url}/debug/keys"
        for accept, challenge in (("text/html,*/*", 'Basic realm="token", charset="UTF-8"'), ("*/*", "Bearer")):
            async with http.get(url, headers={"accept": accept}, ssl=False) as answer:
                assert (answer.status, answer.headers["www-authenticate"]) == (401, challenge)
        for pair, status in ((f"me:{TOKEN}", 200), (f":{TOKEN}", 200), (f"{TOKEN}:", 401), (TOKEN, 401)):
            basic = "Basic " + base64.b64encode(pair.encode()).decode()
            assert (await get(http, url, authorization=basic))[0] == status
        for garbage in ("Basic", "Basic !!!", "Basic /w==", f"Token {TOKEN}", TOKEN, "Bearer", "Bearer a b"):
            assert (await get(http, url, authorization=garbage))[0] == 401


async def test_two_authorization_headers_are_refused(client: Client, http: aiohttp.ClientSession) -> None:
    async with Manager(client, metrics="127.0.0.1:0", security=EndpointSecurity(token=TOKEN)).running() as manager:
        headers = [("authorization", f"Bearer {TOKEN}"), ("authorization", "Bearer x")]
        async with http.get(f"{manager.metrics_url}/metrics", headers=headers, ssl=False) as answer:
            assert answer.status == 401


async def test_a_token_file_that_rotates_is_read_again(
    client: Client, http: aiohttp.ClientSession, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    manager = Manager(client, metrics="127.0.0.1:0", security=EndpointSecurity(token_file=file, tls=False))
    async with manager.running():
        url = f"{manager.metrics_url}/metrics"
        assert url.startswith("http://")
        assert (await get(http, url, TOKEN))[0] == 200
        file.write_text("another")
        assert (await get(http, url, TOKEN))[0] == 401
        assert (await get(http, url, "another"))[0] == 200
        for content in ("", " \n", "é"):
            file.write_text(content)
            assert (await get(http, url, "another"))[0] == 503
        file.unlink()
        assert (await get(http, url, "another"))[0] == 503
    assert f"token_file='{file}'" in caplog.text


async def test_no_token_is_logged_or_printed(
    client: Client, http: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    security = EndpointSecurity(token=TOKEN)
    async with Manager(client, metrics="127.0.0.1:0", security=security).running() as manager:
        answers = [await get(http, f"{manager.metrics_url}/metrics", token) for token in (TOKEN, "guess-1", "guess-2")]
    assert [status for status, _ in answers] == [200, 401, 401]
    assert "refused a request for /metrics with 401: the token is not valid" in caplog.text
    for text in (caplog.text, repr(security), answers[1][1]):
        assert TOKEN not in text
        assert "guess" not in text


async def test_an_authenticated_user_sees_messages_of_errors(client: Client, http: aiohttp.ClientSession) -> None:
    async def work(_: object) -> None:
        raise LookupError("no disk")

    await client.create(config_map("a"))
    manager = Manager(client, metrics="127.0.0.1:0", security=EndpointSecurity(token=TOKEN), grace_period=0)
    made = manager.add_controller(RecordingReconciler(work), resource="v1/ConfigMap")
    async with manager.running():
        while not made.statistics().reconciles:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0)
        url = f"{manager.metrics_url}/debug/keys"
        _, text = await get(http, url, TOKEN, host="operator.example.com")
        assert json.loads(text)["controllers"][0]["keys"][0]["runs"][0]["error"]["message"] == "no disk"


# TLS


async def test_the_certificate_of_a_directory_is_used_and_reloaded(
    client: Client, http: aiohttp.ClientSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "INTERVAL", 0.01)
    first, second = trustme.CA(), trustme.CA()
    write_certificate(tmp_path, first)
    manager = Manager(client, metrics="127.0.0.1:0", security=EndpointSecurity(certificates=tmp_path))
    async with manager.running(), asyncio.timeout(30):
        url = f"{manager.metrics_url}/metrics"
        assert (await get(http, url, trust=trusting(first)))[0] == 200
        write_certificate(tmp_path, second)
        while True:
            async with aiohttp.ClientSession() as other:
                try:
                    assert (await get(other, url, trust=trusting(second)))[0] == 200
                    break
                except aiohttp.ClientConnectorCertificateError:
                    await asyncio.sleep(0.01)


def trusting(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    ca.configure_trust(context)
    return context


async def test_the_self_signed_certificate_is_new_at_each_start(client: Client) -> None:
    seen = set()
    for _ in range(2):
        async with Manager(client, metrics="127.0.0.1:0", security=EndpointSecurity()).running() as manager:
            host, _, port = (manager.metrics_url or "").removeprefix("https://").partition(":")
            pem = await asyncio.to_thread(ssl.get_server_certificate, (host, int(port)))
            seen.add(pem)
            context = ssl.create_default_context(cadata=pem)
            async with aiohttp.ClientSession() as http:
                for name in ("127.0.0.1", "localhost"):
                    assert (await get(http, f"https://{name}:{port}/metrics", trust=context))[0] == 200
                with pytest.raises(aiohttp.ClientConnectorCertificateError):
                    await get(http, f"{manager.metrics_url}/metrics", trust=True)
    assert len(seen) == 2


async def test_certificates_that_cannot_be_used_are_one_line(client: Client, tmp_path: Path) -> None:
    async def error() -> str:
        with pytest.raises(ConfigurationError) as raised:
            await Manager(client, metrics="127.0.0.1:0", security=EndpointSecurity(certificates=tmp_path)).run()
        start = f"cannot load the endpoint certificate (tls.crt, tls.key) in {tmp_path}: "
        assert str(raised.value).startswith(start)
        return str(raised.value).removeprefix(start)

    assert await error() == "No such file or directory"
    write_certificate(tmp_path, trustme.CA())
    key = (tmp_path / "tls.key").read_bytes()
    write_certificate(tmp_path, trustme.CA())
    (tmp_path / "tls.key").write_bytes(key)
    assert await error() == "the key is not that of the certificate"
    for content in (b"", b"nothing", (tmp_path / "tls.crt").read_bytes()):
        (tmp_path / "tls.key").write_bytes(content)
        assert (await error()).startswith("a file is not a certificate, or a key without a password, in PEM")


def test_another_type_of_security_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="security takes an EndpointSecurity, not str"):
        Manager(Client(APIServer()), security="kubernetes")  # type: ignore[arg-type]


# Options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"authentication": "rbac"}, "authentication='rbac' is not valid: use 'kubernetes', or a token"),
        ({"token": ""}, "token is empty"),
        ({"token": "a b"}, "token is empty, or has characters that cannot be sent in a header"),
        ({"token": "a\nb"}, "token is empty, or has characters"),
        ({"token": "a", "token_file": "b"}, "set only one of authentication, token and token_file"),
        ({"token": "a", "authentication": "kubernetes"}, "set only one of"),
        ({"token_file": "/nowhere/token"}, "token_file='/nowhere/token': cannot read the token: No such file"),
        ({"certificates": "/c", "tls": False}, "certificates are not used without TLS"),
    ],
)
def test_invalid_options_are_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        EndpointSecurity(**options)
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


# The console


async def test_the_console_beyond_loopback_asks_for_the_token(client: Client, http: aiohttp.ClientSession) -> None:
    with pytest.raises(ConfigurationError, match="other machines could read it"):
        Manager(client, console="0.0.0.0:0", security=EndpointSecurity())
    manager = Manager(client, console="0.0.0.0:0", security=EndpointSecurity(token=TOKEN))
    async with manager.running():
        url = (manager.console_url or "").replace("0.0.0.0", "127.0.0.1")
        assert url.startswith("https://")
        for path in ("", "/static/console.js", "/keys", "/nothing"):
            assert (await get(http, f"{url}{path}", accept="text/html"))[0] == 401
        basic = "Basic " + base64.b64encode(f"me:{TOKEN}".encode()).decode()
        status, page = await get(http, url, authorization=basic, accept="text/html", host="operator.example.com")
        assert (status, "<html" in page) == (200, True)
        headers = {"authorization": basic, "accept": "text/event-stream"}
        async with http.get(url, headers=headers, ssl=False) as stream:
            assert stream.status == 200
            assert (await stream.content.readline()).startswith(b"data: ")


async def test_a_live_page_ends_after_a_minute_so_that_the_browser_authenticates_again(
    client: Client, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_STREAM_SECONDS", 0.0)
    headers = {"authorization": f"Bearer {TOKEN}", "accept": "text/event-stream"}
    manager = Manager(client, console="127.0.0.1:0", security=EndpointSecurity(token=TOKEN))
    async with manager.running(), http.get(manager.console_url or "", headers=headers, ssl=False) as stream:
        assert (await stream.read()).startswith(b"data: ")


async def test_a_live_page_ends_with_the_manager_and_not_before(client: Client, http: aiohttp.ClientSession) -> None:
    manager = Manager(client, console="127.0.0.1:0", security=EndpointSecurity(token=TOKEN))
    async with asyncio.timeout(30):
        async with manager.running():
            headers = {"authorization": f"Bearer {TOKEN}", "accept": "text/event-stream"}
            stream = await http.get(manager.console_url or "", headers=headers, ssl=False)
            assert (await stream.content.readline()).startswith(b"data: <!doctype html>")
        await stream.content.read()
