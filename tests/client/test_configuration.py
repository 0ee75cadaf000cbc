"""Where `Client.from_config` looks, what it loads, and what it says when something is wrong."""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml
from aiohttp import web

from reconciler.client import Client, RetryPolicy, _configuration, _credentials
from reconciler.errors import ConfigurationError, NotSent, Unauthorized
from reconciler.http import HTTPRequest

SECRET = "hunter2-secret"

# kubernetes_asyncio calls it, where Python 3.12 and later disapprove.
pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utc:DeprecationWarning")


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(_configuration, "SERVICE_ACCOUNT", tmp_path / "serviceaccount")


def kubeconfig(
    path: Path, *, server: str = "http://127.0.0.1:1", name: str = "main", current: str | None = "main", **user: Any
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    document: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": server}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "users": [{"name": name, "user": user or {"token": SECRET}}],
    }
    if current is not None:
        document["current-context"] = current
    path.write_text(yaml.safe_dump(document))
    return path


def change(path: Path, section: str, **values: Any) -> None:
    document = yaml.safe_load(path.read_text())
    document[section][0][section.removesuffix("s")] |= values
    path.write_text(yaml.safe_dump(document))


def in_pod(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, token: str | None = SECRET) -> Path:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "1")
    folder = tmp_path / "serviceaccount"
    folder.mkdir()
    (folder / "ca.crt").write_bytes(trustme.CA().cert_pem.bytes())
    if token is not None:
        (folder / "token").write_text(token)
    return folder


async def host_of(client: Client) -> str:
    async with client:
        return str(client._connection.transport._transport._host)  # type: ignore[attr-defined]


async def problem(**options: Any) -> str:
    """Return what opening a client raises, which is one line without secrets."""
    with pytest.raises(ConfigurationError) as caught:
        async with Client.from_config(**options):
            pass
    text = str(caught.value)
    assert "\n" not in text
    assert SECRET not in text
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    return text


class Server:
    """Answer with 200 to the tokens that are good, else with 401, and remember which came."""

    def __init__(self) -> None:
        self.good: set[str] = set()
        self.tokens: list[str] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        self.tokens.append(token)
        if token in self.good:
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
    request = client._connection.request("GET", "/api/v1/things/n")
    await client._connection.once(request)


# where it looks


async def test_nothing_is_read_before_the_client_is_opened(tmp_path: Path) -> None:
    client = Client.from_config(kubeconfig=tmp_path / "later")
    with pytest.raises(NotSent, match=r"not open: use 'async with Client\.from_config\(\)"):
        await client.send(HTTPRequest("GET", "/x"))
    kubeconfig(tmp_path / "later", server="http://127.0.0.1:2")
    assert await host_of(client) == "http://127.0.0.1:2"
    assert await host_of(client) == "http://127.0.0.1:2"


async def test_the_search_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = kubeconfig(tmp_path / "home/.kube/config", server="http://home")
    assert await host_of(Client.from_config()) == "http://home"
    in_pod(monkeypatch, tmp_path)
    assert await host_of(Client.from_config()) == "https://127.0.0.1:1"
    assert await host_of(Client.from_config(context="main")) == "http://home"
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "env", server="http://env")))
    assert await host_of(Client.from_config()) == "http://env"
    assert await host_of(Client.from_config(kubeconfig=str(home))) == "http://home"


async def test_a_pod_without_token_falls_back_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_pod(monkeypatch, tmp_path, token=None)
    assert "this pod has no service account token" in await problem()
    kubeconfig(tmp_path / "home/.kube/config", server="http://home")
    assert await host_of(Client.from_config()) == "http://home"


async def test_several_files_are_merged_and_the_first_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = kubeconfig(tmp_path / "one", server="http://one")
    two = kubeconfig(tmp_path / "two", server="http://two", name="other", current="other")
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join([str(tmp_path / "missing"), str(one), str(two)]))
    assert await host_of(Client.from_config()) == "http://one"
    assert await host_of(Client.from_config(context="other")) == "http://two"


# what it says


async def test_nothing_found_says_where_it_looked() -> None:
    text = await problem()
    assert "KUBECONFIG is not set, this is no pod, and" in text
    assert ".kube/config does not exist: set KUBECONFIG, or give kubeconfig=" in text


async def test_a_missing_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = tmp_path / "missing"
    assert f"kubeconfig {missing} does not exist" in await problem(kubeconfig=missing)
    monkeypatch.setenv("KUBECONFIG", str(missing))
    assert f"kubeconfig {missing} (from KUBECONFIG) does not exist" in await problem()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (f"a: [1,\ntoken: {SECRET}: {{", "is no YAML: look at line 2"),
        ("", "holds no clusters"),
        (f"- {SECRET}", "holds no clusters"),
        ("clusters: 3", "clusters must be a list of entries with names"),
        (f"users: [{{user: {SECRET}}}]", "users must be a list of entries with names"),
        ("clusters: []", "names no current-context: give context=, it knows none"),
    ],
)
async def test_a_broken_file_is_named(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "config"
    path.write_text(content)
    text = await problem(kubeconfig=path)
    assert words in text
    assert str(path) in text


async def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert f"kubeconfig {tmp_path} cannot be read: Is a directory" in await problem(kubeconfig=tmp_path)


async def test_contexts_that_cannot_be_used(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path / "config", current=None)
    assert "names no current-context: give context=, it knows main" in await problem(kubeconfig=path)
    assert "has no context 'nope': it knows main" in await problem(kubeconfig=path, context="nope")
    change(path, "contexts", user="nobody")
    assert "context 'main' names user 'nobody', which is not in it" in await problem(kubeconfig=path, context="main")
    change(path, "contexts", cluster="")
    assert "context 'main' names no cluster" in await problem(kubeconfig=path, context="main")


async def test_a_server_without_scheme_is_refused(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path / "config", server="example.com:6443")
    assert "cluster 'main' has server 'example.com:6443': write it as https://" in await problem(kubeconfig=path)


@pytest.mark.parametrize(
    ("section", "values", "words"),
    [
        ("clusters", {"certificate-authority": "ca.crt"}, "certificate-authority of cluster 'main' cannot be read"),
        ("clusters", {"certificate-authority-data": "%%%"}, "(certificate-authority-data) is no base64"),
        ("users", {"client-certificate": "/nowhere", "client-key": "/nowhere"}, "client-certificate of user 'main'"),
        ("users", {"tokenFile": "/nowhere"}, "tokenFile of user 'main' cannot be read: /nowhere: No such file"),
    ],
)
async def test_files_that_a_kubeconfig_names_must_be_there(
    tmp_path: Path, section: str, values: Any, words: str
) -> None:
    path = kubeconfig(tmp_path / "config", server="https://127.0.0.1:1", username="x", password=SECRET)
    change(path, section, **values)
    assert words in await problem(kubeconfig=path)


async def test_certificates_that_are_none(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path / "config", server="https://127.0.0.1:1")
    nonsense = base64.b64encode(b"nonsense").decode()
    change(path, "users", **{"client-certificate-data": nonsense, "client-key-data": nonsense})
    assert "the client certificate cannot be used" in await problem(kubeconfig=path)
    change(path, "clusters", **{"certificate-authority-data": nonsense})
    assert "the certificate authority cannot be used" in await problem(kubeconfig=path)


async def test_incomplete_users_show_no_secret(tmp_path: Path) -> None:
    path = kubeconfig(
        tmp_path / "config",
        **{"auth-provider": {"name": "oidc", "config": {"refresh-token": SECRET}}},
    )
    assert "the credentials of user 'main' cannot be loaded: ConfigException" in await problem(kubeconfig=path)


async def test_a_service_account_that_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = in_pod(monkeypatch, tmp_path)
    (folder / "ca.crt").write_text("")
    assert "service account of this pod" in (text := await problem())
    assert "cannot be used: Cert file exists but empty." in text
    (folder / "ca.crt").write_text("nonsense")
    assert "the certificate authority cannot be used" in await problem()


@pytest.mark.virtual_time
async def test_under_virtual_time_opening_says_why_it_does_not_work(tmp_path: Path) -> None:
    assert "cannot run under virtual time" in await problem(kubeconfig=kubeconfig(tmp_path / "config"))


# credentials


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
        monkeypatch.setattr(_credentials, "_LOOK_EVERY", 0.0)
        await ask(client)
    assert server.tokens == ["one", "one", "two"]


async def test_a_token_of_the_service_account_that_is_refused_is_read_again(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = in_pod(monkeypatch, tmp_path, token="one")
    async with Client.from_config() as client:
        client._connection.transport._transport._host = server.url  # type: ignore[attr-defined]
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
    monkeypatch.setattr(_credentials, "_LOOK_EVERY", 0.0)
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


async def test_a_plugin_that_fails_later_leaves_the_token_that_is_there(
    tmp_path: Path, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    path = kubeconfig(tmp_path / "config", server=server.url, **plugin(tmp_path))
    async with Client.from_config(kubeconfig=path, retry=RetryPolicy(attempts=1)) as client:
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


async def test_client_certificates_are_shown(tmp_path: Path) -> None:
    authority = trustme.CA()
    mine = authority.issue_cert("client@example.com")

    def data(*blobs: trustme.Blob) -> str:
        return base64.b64encode(b"".join(blob.bytes() for blob in blobs)).decode()

    path = kubeconfig(
        tmp_path / "config",
        server="https://127.0.0.1:1",
        **{"client-certificate-data": data(*mine.cert_chain_pems), "client-key-data": data(mine.private_key_pem)},
    )
    change(path, "clusters", **{"certificate-authority-data": data(authority.cert_pem)})
    seen: list[Any] = []

    async def handle(request: web.BaseRequest) -> web.Response:
        assert request.transport is not None
        seen.append(request.transport.get_extra_info("peercert"))
        return web.json_response({})

    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(tls)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    change(path, "clusters", server=f"https://127.0.0.1:{runner.addresses[0][1]}")
    async with Client.from_config(kubeconfig=path) as client:
        await ask(client)
    await runner.cleanup()
    assert seen[0]["subjectAltName"] == (("email", "client@example.com"),)
