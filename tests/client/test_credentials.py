"""Credentials: what is sent, and how changes of tokens, plugins and certificates are followed."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import ssl
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web

from reconciler.client import Client, Retries
from reconciler.client import credentials as _credentials
from reconciler.errors import NotSent, TransportError, Unauthorized
from tests.client.kubeconfigs import SECRET, change, in_pod, kubeconfig, problem

pytestmark = pytest.mark.usefixtures("bare_environment")


class Server:
    """A server that answers 200 to valid tokens and 401 to others, and remembers which came."""

    def __init__(self) -> None:
        self.good: set[str] = set()
        self.good_if: Any = self.good.__contains__
        self.headers: Any = {}
        self.tokens: list[str] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        self.tokens.append(token)
        self.headers = request.headers
        if self.good_if(token):
            return web.json_response({"kind": "Thing", "apiVersion": "v1", "metadata": {"name": "n"}})
        return web.json_response({"kind": "Status", "code": 401, "reason": "Unauthorized"}, status=401)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    runner = web.ServerRunner(web.Server(server.handle))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield server
    await runner.cleanup()


async def ask(client: Client) -> None:
    request = client.session.connection.request("GET", "/api/v1/things/n")
    await client.session.connection.once(request)


async def test_a_token_is_sent(tmp_path: Path, server: Server) -> None:
    server.good.add(SECRET)
    async with Client.from_config(kubeconfig=kubeconfig(tmp_path / "config", server=server.url)) as client:
        await ask(client)
    assert server.tokens == [SECRET]


async def test_a_token_file_is_read_again_after_a_minute(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("one\n")
    server.good |= {"one", "two"}
    path = kubeconfig(tmp_path / "config", server=server.url, tokenFile="token")
    async with Client.from_config(kubeconfig=path) as client:
        await ask(client)
        (tmp_path / "token").write_text("two\n")
        await ask(client)
        monkeypatch.setattr(_credentials, "_REFRESH_EVERY", 0.0)
        await ask(client)
    assert server.tokens == ["one", "one", "two"]


async def test_a_token_of_the_service_account_that_is_refused_is_read_again(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = in_pod(monkeypatch, tmp_path, token="one")
    async with Client.from_config() as client:
        redirect(client, server.url)
        (folder / "token").write_text("two")
        server.good.add("two")
        await ask(client)
    assert server.tokens == ["one", "two"]


def plugin(tmp_path: Path, *, expires: str | None = None, fails: bool = False) -> dict[str, Any]:
    """Write an exec plugin that counts its runs and gives token1, token2…"""
    script = tmp_path / "plugin"
    status = f'"expirationTimestamp": "{expires}", ' if expires else ""
    script.write_text(
        f"#!{sys.executable}\n"
        "import pathlib, sys\n"
        f"runs = pathlib.Path({str(tmp_path / 'runs')!r})\n"
        "count = int(runs.read_text()) + 1 if runs.exists() else 1\n"
        "runs.write_text(str(count))\n"
        f"if {fails!r}: sys.exit('please log in')\n"
        'print(\'{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {'
        f"{status}"
        '"token": "token%d"}}\' % count)\n'
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(script)}}


@pytest.mark.parametrize("expires", [None, "2999-01-01T00:00:00Z"])
async def test_an_exec_plugin_gives_the_token_and_runs_again_when_it_is_refused(
    tmp_path: Path, server: Server, expires: str | None
) -> None:
    path = kubeconfig(tmp_path / "config", server=server.url, **plugin(tmp_path, expires=expires))
    server.good |= {"token1", "token2"}
    async with Client.from_config(kubeconfig=path) as client:
        for _ in range(3):
            await ask(client)
        server.good.remove("token1")
        await asyncio.gather(*(ask(client) for _ in range(5)))
        await ask(client)
    assert (tmp_path / "runs").read_text() == "2"
    assert server.tokens.count("token2") == 6


async def test_an_exec_plugin_runs_again_when_its_token_expires(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_credentials, "_REFRESH_EVERY", 0.0)
    server.good |= {f"token{number}" for number in range(9)}
    (tmp_path / "far").mkdir()
    far = kubeconfig(tmp_path / "a", server=server.url, **plugin(tmp_path / "far", expires="2999-01-01T00:00:00Z"))
    async with Client.from_config(kubeconfig=far) as client:
        await ask(client)
        await ask(client)
    assert (tmp_path / "far" / "runs").read_text() == "1"
    past = kubeconfig(tmp_path / "b", server=server.url, **plugin(tmp_path, expires="2001-01-01T00:00:00Z"))
    async with Client.from_config(kubeconfig=past) as client:
        await ask(client)
        await ask(client)
    assert server.tokens[-2:] == ["token2", "token3"]


async def test_a_plugin_that_fails_later_leaves_the_current_token(
    tmp_path: Path, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    path = kubeconfig(tmp_path / "config", server=server.url, **plugin(tmp_path))
    async with Client.from_config(kubeconfig=path, retries=Retries(attempts=1)) as client:
        plugin(tmp_path, fails=True)
        for _ in range(3):
            with pytest.raises(Unauthorized):
                await ask(client)
    assert server.tokens == ["token1"] * 3
    assert (tmp_path / "runs").read_text() == "2"
    messages = [record.getMessage() for record in caplog.records if record.name == "reconciler.client"]
    assert messages == ["the credentials could not be renewed: exec: process returned 1. please log in"]


async def test_a_plugin_that_cannot_run_is_named(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path / "config", **plugin(tmp_path, fails=True))
    assert "user 'main' cannot be loaded: exec: process returned 1. please log in" in await problem(kubeconfig=path)
    command = str(tmp_path / "no-such-plugin")
    change(path, "users", exec={"apiVersion": "client.authentication.k8s.io/v1", "command": command})
    assert f"{command}: No such file or directory" in await problem(kubeconfig=path)


async def test_a_token_file_that_is_refused_is_read_again_at_once(tmp_path: Path, server: Server) -> None:
    (tmp_path / "token").write_text("one")
    path = kubeconfig(tmp_path / "config", server=server.url, tokenFile="token", token="counts less, as in client-go")
    async with Client.from_config(kubeconfig=path) as client:
        (tmp_path / "token").write_text("two")
        server.good.add("two")
        await ask(client)
    assert server.tokens == ["one", "two"]


async def test_a_token_file_that_is_renewed_after_its_first_refusal_is_used(tmp_path: Path, server: Server) -> None:
    (tmp_path / "token").write_text("one")
    path = kubeconfig(tmp_path / "config", server=server.url, tokenFile="token")
    async with Client.from_config(kubeconfig=path) as client:
        for _ in range(2):
            with pytest.raises(Unauthorized):
                await ask(client)
        (tmp_path / "token").write_text("two")
        server.good.add("two")
        await asyncio.gather(*(ask(client) for _ in range(5)))
    assert server.tokens.count("two") == 5


async def test_a_token_file_that_is_missing_for_a_moment_leaves_the_current_token(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_credentials, "_REFRESH_EVERY", 0.0)
    (tmp_path / "token").write_text("one")
    server.good |= {"one", "two"}
    async with Client.from_config(
        kubeconfig=kubeconfig(tmp_path / "config", server=server.url, tokenFile="token")
    ) as client:
        (tmp_path / "token").unlink()
        await ask(client)
        (tmp_path / "token").write_text("two")
        await ask(client)
    assert server.tokens == ["one", "two"]
    assert "the credentials could not be renewed: " in caplog.text


async def test_the_token_of_the_service_account_is_read_again_after_a_minute(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = in_pod(monkeypatch, tmp_path, token="one")
    server.good |= {"one", "two"}
    async with Client.from_config() as client:
        redirect(client, server.url)
        await ask(client)
        (folder / "token").write_text("two")
        await ask(client)
        monkeypatch.setattr(_credentials, "_REFRESH_EVERY", 0.0)
        await ask(client)
    assert server.tokens == ["one", "one", "two"]


async def test_impersonation_headers_are_sent_with_each_request(tmp_path: Path, server: Server) -> None:
    server.good.add(SECRET)
    user = {"token": SECRET, "as": "jane", "as-uid": "7", "as-groups": ["dev"]}
    async with Client.from_config(kubeconfig=kubeconfig(tmp_path / "config", server=server.url, **user)) as client:
        await ask(client)
    assert [server.headers[f"Impersonate-{what}"] for what in ("User", "Uid", "Group")] == ["jane", "7", "dev"]


async def test_a_name_and_password_are_sent(tmp_path: Path, server: Server) -> None:
    user = kubeconfig(tmp_path / "config", server=server.url, username="u", password=SECRET)
    async with Client.from_config(kubeconfig=user) as client:
        with pytest.raises(Unauthorized):
            await ask(client)
    assert base64.b64decode(server.tokens[0].removeprefix("Basic ")).decode() == f"u:{SECRET}"


async def test_a_relative_plugin_path_starts_from_the_folder_of_the_kubeconfig(tmp_path: Path, server: Server) -> None:
    server.good.add("token1")
    given = plugin(tmp_path)
    given["exec"]["command"] = "./plugin"
    async with Client.from_config(kubeconfig=kubeconfig(tmp_path / "config", server=server.url, **given)) as client:
        await ask(client)
    assert server.tokens == ["token1"]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({}, "exec: the plugin gave neither a token nor a client certificate"),
        ({"clientCertificateData": SECRET}, "exec: the plugin gave a client certificate or its key, but not both"),
        ({"token": SECRET, "expirationTimestamp": "soon"}, "an invalid expirationTimestamp: 'soon'"),
    ],
)
async def test_an_unusable_credential_of_a_plugin_is_an_error_that_says_why(
    tmp_path: Path, status: Any, words: str
) -> None:
    assert words in await problem(kubeconfig=kubeconfig(tmp_path / "config", **static_plugin(tmp_path, status)))


# certificates


def redirect(client: Client, url: str) -> None:
    """Send the requests of a client of a service account to a server without TLS."""
    transport: Any = client.session.connection.transport
    transport._loaded.settings.host = url
    transport._open = transport._connections(transport._loaded)


async def serve(handler: Any, tls: ssl.SSLContext | None = None) -> tuple[web.ServerRunner, str]:
    runner = web.ServerRunner(web.Server(handler))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    return runner, f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"


class TLSServer:
    """A server that wants client certificates of its authority, and remembers whose came; those revoked get a 401."""

    def __init__(self) -> None:
        self.authority = trustme.CA()
        self.seen: list[str] = []
        self.revoked: set[str] = set()
        self.held = asyncio.Event()
        self.url = ""

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        name = request.transport.get_extra_info("peercert")["subjectAltName"][0][1]
        self.seen.append(name)
        if name in self.revoked:
            return web.json_response({"kind": "Status", "code": 401, "reason": "Unauthorized"}, status=401)
        if request.query.get("watch"):
            stream = web.StreamResponse()
            await stream.prepare(request)
            await stream.write(b'{"type":"BOOKMARK","object":{}}\n')
            await self.held.wait()
            await stream.write(b'{"type":"BOOKMARK","object":{"last":true}}\n')
            return stream
        return web.json_response({"kind": "Thing", "apiVersion": "v1", "metadata": {"name": "n"}})

    def context(self) -> ssl.SSLContext:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.verify_mode = ssl.CERT_REQUIRED
        self.authority.configure_trust(tls)
        self.authority.issue_cert("127.0.0.1").configure_cert(tls)
        return tls

    def certificate(self, name: str) -> tuple[bytes, bytes]:
        mine = self.authority.issue_cert(name)
        return b"".join(blob.bytes() for blob in mine.cert_chain_pems), mine.private_key_pem.bytes()


@pytest.fixture
async def tls_server() -> AsyncIterator[TLSServer]:
    server = TLSServer()
    runner, server.url = await serve(server, server.context())
    yield server
    server.held.set()
    await runner.cleanup()


def trusting(path: Path, server: TLSServer) -> Path:
    change(
        path, "clusters", **{"certificate-authority-data": base64.b64encode(server.authority.cert_pem.bytes()).decode()}
    )
    return path


def static_plugin(tmp_path: Path, status: Any) -> dict[str, Any]:
    """Write an exec plugin that gives what stands in a file."""
    (tmp_path / "status").write_text(json.dumps(status))
    script = tmp_path / "plugin"
    head = '{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": '
    script.write_text(
        f"#!{sys.executable}\nimport pathlib\n"
        f"print({head!r} + pathlib.Path({str(tmp_path / 'status')!r}).read_text() + '}}')\n"
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(script)}}


def certificate_status(server: TLSServer, name: str, **more: str) -> dict[str, str]:
    certificate, key = server.certificate(name)
    return {"clientCertificateData": certificate.decode(), "clientKeyData": key.decode(), **more}


def modes(paths: list[str]) -> list[int]:
    return [stat.S_IMODE(Path(path).stat().st_mode) for path in paths if Path(path).exists()]


async def test_client_certificates_are_sent(tmp_path: Path, tls_server: TLSServer) -> None:
    certificate, key = (base64.b64encode(pem).decode() for pem in tls_server.certificate("client@example.com"))
    user = {"client-certificate-data": certificate, "client-key-data": key}
    path = trusting(kubeconfig(tmp_path / "config", server=tls_server.url, **user), tls_server)
    async with Client.from_config(kubeconfig=path) as client:
        await ask(client)
    assert tls_server.seen == ["client@example.com"]


async def test_a_certificate_of_a_plugin_that_is_refused_is_replaced_without_restart(
    tmp_path: Path, tls_server: TLSServer
) -> None:
    given = static_plugin(tmp_path, certificate_status(tls_server, "one@example.com"))
    path = trusting(kubeconfig(tmp_path / "config", server=tls_server.url, **given), tls_server)
    async with Client.from_config(kubeconfig=path) as client:
        await ask(client)
        (tmp_path / "status").write_text(json.dumps(certificate_status(tls_server, "two@example.com")))
        await ask(client)
        tls_server.revoked.add("one@example.com")
        await asyncio.gather(*(ask(client) for _ in range(5)))
        loaded: Any = client.session.connection.transport._loaded  # type: ignore[attr-defined]
        files = [loaded.settings.cert_file, loaded.settings.key_file]
        assert modes(files) == [0o600, 0o600]
    assert tls_server.seen[:2] == ["one@example.com"] * 2
    assert tls_server.seen.count("two@example.com") == 5
    assert modes(files) == []


async def test_a_certificate_of_a_plugin_is_replaced_before_it_expires(
    tmp_path: Path, tls_server: TLSServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_credentials, "_REFRESH_EVERY", 0.0)
    soon = certificate_status(tls_server, "one@example.com", expirationTimestamp="2001-01-01T00:00:00Z")
    given = static_plugin(tmp_path, soon)
    path = trusting(kubeconfig(tmp_path / "config", server=tls_server.url, **given), tls_server)
    async with Client.from_config(kubeconfig=path) as client:
        await ask(client)
        late = certificate_status(tls_server, "two@example.com", expirationTimestamp="2999-01-01T00:00:00Z")
        (tmp_path / "status").write_text(json.dumps(late))
        await ask(client)
        (tmp_path / "status").write_text("a plugin that is not run is not asked")
        await ask(client)
    assert tls_server.seen == ["one@example.com", "two@example.com", "two@example.com"]


async def test_a_plugin_may_give_a_token_and_a_certificate(tmp_path: Path, tls_server: TLSServer) -> None:
    given = static_plugin(tmp_path, certificate_status(tls_server, "one@example.com", token=SECRET))
    path = trusting(kubeconfig(tmp_path / "config", server=tls_server.url, **given), tls_server)
    async with Client.from_config(kubeconfig=path) as client:
        await ask(client)
        configuration = client.session.connection.transport._loaded.settings  # type: ignore[attr-defined]
        assert await configuration.get_api_key_with_prefix("BearerToken") == f"Bearer {SECRET}"
    assert tls_server.seen == ["one@example.com"]


async def test_changed_certificate_files_are_used_and_open_streams_continue(
    tmp_path: Path, tls_server: TLSServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def issue(name: str) -> None:
        for path, pem in zip((tmp_path / "tls.crt", tmp_path / "tls.key"), tls_server.certificate(name), strict=True):
            path.write_bytes(pem)

    issue("one@example.com")
    files = {"client-certificate": "tls.crt", "client-key": "tls.key"}
    path = trusting(kubeconfig(tmp_path / "config", server=tls_server.url, **files), tls_server)
    async with Client.from_config(kubeconfig=path) as client:
        transport: Any = client.session.connection.transport
        watch = await client.session.connection.once(
            client.session.connection.request("GET", "/api/v1/things", [("watch", "true")], stream=True)
        )
        chunks = aiter(watch.chunks)  # type: ignore[arg-type]
        await anext(chunks)
        issue("two@example.com")
        await ask(client)
        monkeypatch.setattr(_credentials, "_REFRESH_EVERY", 0.0)
        await ask(client)
        (old,) = transport._retired
        assert old.is_in_use
        tls_server.held.set()
        assert b"last" in await anext(chunks)
        await watch.close()
        assert not old.is_in_use
        await watch.close()
    assert tls_server.seen == ["one@example.com", "one@example.com", "two@example.com"]


async def test_invalid_new_certificates_leave_the_current_connections(
    tmp_path: Path, tls_server: TLSServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_credentials, "_REFRESH_EVERY", 0.0)
    for name, pem in zip(("tls.crt", "tls.key"), tls_server.certificate("one@example.com"), strict=True):
        (tmp_path / name).write_bytes(pem)
    files = {"client-certificate": "tls.crt", "client-key": "tls.key"}
    path = trusting(kubeconfig(tmp_path / "config", server=tls_server.url, **files), tls_server)
    async with Client.from_config(kubeconfig=path) as client:
        (tmp_path / "tls.crt").write_text("half of a certif")
        with caplog.at_level(logging.WARNING):
            await ask(client)
            await ask(client)
    assert tls_server.seen == ["one@example.com"] * 2
    assert caplog.text.count("new certificates cannot be used") == 1


async def test_a_client_certificate_that_is_renewed_after_its_first_refusal_is_used(
    tmp_path: Path, tls_server: TLSServer
) -> None:
    def issue(server: TLSServer, name: str) -> None:
        for path, pem in zip((tmp_path / "tls.crt", tmp_path / "tls.key"), server.certificate(name), strict=True):
            path.write_bytes(pem)

    issue(TLSServer(), "stranger@example.com")
    files = {"client-certificate": "tls.crt", "client-key": "tls.key"}
    path = trusting(kubeconfig(tmp_path / "config", server=tls_server.url, **files), tls_server)
    async with Client.from_config(kubeconfig=path, retries=Retries(attempts=1)) as client:
        for _ in range(2):
            with pytest.raises(TransportError):
                await ask(client)
        issue(tls_server, "one@example.com")
        await ask(client)
    assert tls_server.seen == ["one@example.com"]


async def test_a_changed_certificate_authority_is_used(tmp_path: Path, tls_server: TLSServer) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.crt"))
    for name, pem in zip(("tls.crt", "tls.key"), tls_server.certificate("one@example.com"), strict=True):
        (tmp_path / name).write_bytes(pem)
    files = {"client-certificate": "tls.crt", "client-key": "tls.key"}
    path = kubeconfig(tmp_path / "config", server=tls_server.url, **files)
    change(path, "clusters", **{"certificate-authority": "ca.crt"})
    async with Client.from_config(kubeconfig=path, retries=Retries(attempts=1)) as client:
        for _ in range(2):
            with pytest.raises(NotSent, match="not trusted"):
                await ask(client)
        tls_server.authority.cert_pem.write_to_path(str(tmp_path / "ca.crt"))
        await ask(client)
    assert tls_server.seen == ["one@example.com"]
