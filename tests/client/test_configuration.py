"""The configurations that `Client.from_config` finds and loads, and its errors."""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
from pathlib import Path
from typing import Any

import pytest

from reconciler.client import Client
from reconciler.errors import NotSent, TransportError
from reconciler.http import HTTPRequest
from tests.client.kubeconfigs import SECRET, change, in_pod, kubeconfig, problem
from tests.client.test_sockets import OK, Server, serving

# kubernetes_asyncio calls it, where Python 3.12 and later disapprove.
pytestmark = [
    pytest.mark.usefixtures("bare_environment"),
    pytest.mark.filterwarnings("ignore:datetime.datetime.utc:DeprecationWarning"),
]


async def host_of(client: Client) -> str:
    async with client:
        return str(client.session.connection.transport._loaded.settings.host)  # type: ignore[attr-defined]


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


async def test_without_a_configuration_the_error_lists_the_places_searched() -> None:
    text = await problem()
    assert "KUBECONFIG is not set, this is not a pod, and" in text
    assert ".kube/config does not exist: set KUBECONFIG, or pass the path of a kubeconfig" in text


async def test_a_missing_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = tmp_path / "missing"
    assert f"kubeconfig {missing} does not exist" in await problem(kubeconfig=missing)
    monkeypatch.setenv("KUBECONFIG", str(missing))
    assert f"kubeconfig {missing} (from KUBECONFIG) does not exist" in await problem()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (f"a: [1,\ntoken: {SECRET}: {{", "is not valid YAML: look at line 2"),
        ("", "has no clusters"),
        (f"- {SECRET}", "has no clusters"),
        ("clusters: 3", "clusters must be a list, not a number"),
        (f"users: [{{user: {SECRET}}}]", "users[0]: user must be a mapping, not text"),
        (f"users: [{{name: a, user: {{5: {SECRET}}}}}]", "user 'a' has a key that is not text: put it in quotes"),
        ("users: [{name: a, user: {as-user-extra: {a: b}}}]", "user 'a': as-user-extra[*] must be a list, not text"),
        ("users: [{user: {}}]", "users[0]: object missing required field `name`"),
        (f"users: [{{name: '', user: {{token: {SECRET}}}}}]", "users[0]: name: expected `str` of length >= 1"),
        ("clusters: []", "has no current-context: choose a context, its contexts are none"),
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
    assert "has no current-context: choose a context, its contexts are main" in await problem(kubeconfig=path)
    assert "has no context 'nope': its contexts are main" in await problem(kubeconfig=path, context="nope")
    change(path, "contexts", user="nobody")
    assert "context 'main' names user 'nobody', which does not exist" in await problem(kubeconfig=path, context="main")
    change(path, "contexts", cluster="")
    assert "context 'main' has no cluster" in await problem(kubeconfig=path, context="main")


async def test_a_server_without_scheme_is_refused(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path / "config", server="example.com:6443")
    assert "cluster 'main' has server 'example.com:6443': write it as https://" in await problem(kubeconfig=path)


@pytest.mark.parametrize(
    ("section", "values", "words"),
    [
        ("clusters", {"certificate-authority": "ca.crt"}, "certificate-authority of cluster 'main' cannot be read"),
        ("clusters", {"certificate-authority-data": "%%%"}, "(certificate-authority-data) is not valid base64"),
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


async def test_nothing_about_tls_is_read_for_a_server_without_tls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object, **_options: object) -> ssl.SSLContext:
        raise ssl.SSLError

    monkeypatch.setattr(ssl, "create_default_context", read)
    assert await host_of(Client.from_config(kubeconfig=kubeconfig(tmp_path / "a", server="http://a"))) == "http://a"
    assert "the certificate authority cannot be used" in await problem(
        kubeconfig=kubeconfig(tmp_path / "b", server="https://b")
    )


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_invalid_certificates_are_refused(tmp_path: Path, scheme: str) -> None:
    path = kubeconfig(tmp_path / "config", server=f"{scheme}://127.0.0.1:1")
    nonsense = base64.b64encode(b"nonsense").decode()
    change(path, "users", **{"client-certificate-data": nonsense, "client-key-data": nonsense})
    assert "the client certificate cannot be used" in await problem(kubeconfig=path)
    change(path, "clusters", **{"certificate-authority-data": nonsense})
    assert "the certificate authority cannot be used" in await problem(kubeconfig=path)


@pytest.mark.parametrize(
    ("name", "plugin"),
    [
        ("oidc", "the exec plugin kubelogin (kubectl oidc-login)"),
        ("gcp", "the exec plugin gke-gcloud-auth-plugin"),
        ("openstack", "an exec plugin"),
    ],
)
async def test_an_auth_provider_is_an_error_that_names_the_exec_plugin(tmp_path: Path, name: str, plugin: str) -> None:
    provider = {"name": name, "config": {"id-token": SECRET, "refresh-token": SECRET}}
    path = kubeconfig(tmp_path / "config", **{"auth-provider": provider})
    expected = f"user 'main' has auth-provider '{name}', which is not supported: configure {plugin} instead"
    assert expected in await problem(kubeconfig=path)


async def test_an_unsupported_impersonation_is_refused_and_not_ignored(tmp_path: Path) -> None:
    for more in ({"as-groups": ["a", "b"]}, {"as-user-extra": {"a": ["b"]}}):
        path = kubeconfig(tmp_path / "config", token=SECRET, **{"as": "jane", **more})
        assert "user 'main' impersonates with several as-groups" in await problem(kubeconfig=path)


async def test_a_broken_service_account_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = in_pod(monkeypatch, tmp_path)
    (folder / "ca.crt").write_text("")
    assert "service account of this pod" in (text := await problem())
    assert "cannot be used: Cert file is empty:" in text
    (folder / "ca.crt").write_text("nonsense")
    assert "the certificate authority cannot be used" in await problem()


@pytest.mark.parametrize("how", ["in the kubeconfig", "in the environment", "in a pod"])
async def test_requests_go_through_the_configured_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    async def ok(server: Server, start: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)

    async with serving(ok) as proxy:
        address = f"http://127.0.0.1:{proxy.port}"
        path = kubeconfig(tmp_path / "config", server="http://cluster.invalid")
        if how == "in the kubeconfig":
            change(path, "clusters", **{"proxy-url": address})
        else:
            monkeypatch.setenv("http_proxy", address)
            monkeypatch.setenv("https_proxy", address)
        if how == "in a pod":
            in_pod(monkeypatch, tmp_path)
            monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
        async with Client.from_config(kubeconfig=None if how == "in a pod" else path) as client:
            if how == "in a pod":  # TLS through the proxy would need a certificate; that it is asked is enough
                with pytest.raises(TransportError):
                    await client.send(HTTPRequest("GET", "/x", timeout=5))
            else:
                await client.send(HTTPRequest("GET", "/x"))
    start, headers, _ = proxy.requests[0]
    if how == "in a pod":
        assert start == "CONNECT 10.0.0.1:1 HTTP/1.1"
    else:
        assert (start, headers["authorization"]) == ("GET http://cluster.invalid/x HTTP/1.1", f"Bearer {SECRET}")


@pytest.mark.virtual_time
async def test_opening_under_virtual_time_is_refused_with_a_reason(tmp_path: Path) -> None:
    assert "cannot run under virtual time" in await problem(kubeconfig=kubeconfig(tmp_path / "config"))
