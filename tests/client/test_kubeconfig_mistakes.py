"""An invalid value in a kubeconfig is an error of one line that names file and field, and shows no secret."""

from __future__ import annotations

import base64
import logging
import traceback
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from reconciler.client import Client
from reconciler.client.pool import excerpt, without_password
from reconciler.errors import NotSent
from reconciler.http import HTTPRequest
from tests.client.kubeconfigs import SECRET, change, kubeconfig, problem
from tests.client.test_credentials import serve

pytestmark = pytest.mark.usefixtures("bare_environment")

JWT = "eyJhbGciOiAibm9uZSJ9.eyJleHAiOiAxLCAibiI6IDF9.signature"
EXEC = {"apiVersion": "client.authentication.k8s.io/v1", "command": "true"}


@pytest.mark.parametrize("wrong", ["false", "true", "", 0, 1, [], {}, "no such thing"])
@pytest.mark.parametrize("field", ["insecure-skip-tls-verify", "disable-compression"])
async def test_an_invalid_boolean_is_refused(tmp_path: Path, field: str, wrong: Any) -> None:
    path = kubeconfig(tmp_path / "config", server="https://127.0.0.1:1")
    change(path, "clusters", **{field: wrong})
    assert f"kubeconfig {path}: cluster 'main': {field} must be true or false, not " in await problem(kubeconfig=path)


@pytest.mark.parametrize("value", [True, False, None])
async def test_verification_is_switched_off_by_true_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, value: Any
) -> None:
    path = kubeconfig(tmp_path / "config", server=f"https://user:{SECRET}@127.0.0.1:1/{SECRET}")
    change(path, "clusters", **{"insecure-skip-tls-verify": value})
    async with Client.from_config(kubeconfig=path) as client:
        settings = client.session.connection.transport._loaded.settings  # type: ignore[attr-defined]
        assert settings.verify_ssl is not True if value else settings.verify_ssl is True
        for _ in range(2):
            with pytest.raises(NotSent):
                await client.send(HTTPRequest("GET", "/x", timeout=5))
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == bool(value)
    assert all("the certificate of https://127.0.0.1:1 is not verified" in text for text in warnings)
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    ("server", "user", "warned"),
    [
        ("http://10.0.0.1:1", {"token": SECRET}, True),
        ("http://10.0.0.1:1", {"username": "u", "password": SECRET}, True),
        (f"http://u:{SECRET}@10.0.0.1:1", {"as": "jane"}, True),
        ("http://10.0.0.1:1", {"as": "jane"}, False),
        ("https://10.0.0.1:1", {"token": SECRET}, False),
        ("http://127.0.0.1:1", {"token": SECRET}, False),
        ("http://localhost:1", {"token": SECRET}, False),
        ("http://[::1]:1", {"token": SECRET}, False),
    ],
)
async def test_unencrypted_credentials_are_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, server: str, user: Any, warned: bool
) -> None:
    async with Client.from_config(kubeconfig=kubeconfig(tmp_path / "config", server=server, **user)):
        pass
    assert caplog.text.count("without encryption") == warned
    assert SECRET not in caplog.text


FIELDS = [
    ("clusters", "server", "text"),
    ("clusters", "tls-server-name", "text"),
    ("clusters", "certificate-authority", "text"),
    ("clusters", "certificate-authority-data", "text"),
    ("clusters", "proxy-url", "text"),
    ("contexts", "cluster", "text"),
    ("contexts", "user", "text"),
    ("contexts", "namespace", "text"),
    ("users", "token", "text"),
    ("users", "tokenFile", "text"),
    ("users", "username", "text"),
    ("users", "password", "text"),
    ("users", "client-certificate", "text"),
    ("users", "client-key-data", "text"),
    ("users", "as", "text"),
    ("users", "as-groups", "a list"),
    ("users", "as-user-extra", "a mapping"),
    ("users", "exec", "a mapping"),
    ("users", "auth-provider", "a mapping"),
]


@pytest.mark.parametrize("wrong", [5, 1.5, True, [[SECRET]], {"a": SECRET}, SECRET], ids=lambda v: type(v).__name__)
@pytest.mark.parametrize(("section", "field", "kind"), FIELDS)
async def test_a_field_of_the_wrong_type_is_named(
    tmp_path: Path, section: str, field: str, kind: str, wrong: Any
) -> None:
    if (kind == "text" and isinstance(wrong, str)) or (kind == "a mapping" and isinstance(wrong, dict)):
        return
    path = kubeconfig(tmp_path / "config")
    change(path, section, **{field: wrong})
    text = await problem(kubeconfig=path)
    if kind == "a list" and isinstance(wrong, list):  # of lists
        field, kind = f"{field}[0]", "text"
    assert f"kubeconfig {path}: {section[:-1]} 'main': {field} must be {kind}, not " in text


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"exec": {**EXEC, "args": "a"}}, "exec: args must be a list, not text"),
        ({"exec": {**EXEC, "args": [1]}}, "exec: args[0] must be text, not a number: put it in quotes"),
        ({"exec": {**EXEC, "env": {"A": SECRET}}}, "exec: env must be a list, not a mapping"),
        ({"exec": {**EXEC, "env": [SECRET]}}, "exec: env[0] must be a mapping, not text"),
        (
            {"exec": {**EXEC, "env": [{"name": "A", "value": 1}]}},
            "exec: env[0]: value must be text, not a number",
        ),
        ({"exec": {**EXEC, "env": [{"value": SECRET}]}}, "exec: env[0] is not a variable"),
        ({"exec": {**EXEC, "command": ["true"]}}, "exec: command must be text, not a list"),
        ({"exec": {**EXEC, "command": ""}}, "exec: the command is missing"),
        ({"exec": {**EXEC, "command": "a\0b"}}, "not a valid command"),
        ({"exec": {**EXEC, "apiVersion": "v9"}}, "exec: apiVersion must be one of client.authentication.k8s.io/v1,"),
        ({"exec": {**EXEC, "provideClusterInfo": "yes"}}, "exec: provideClusterInfo must be true or false"),
        ({"exec": {**EXEC, "interactiveMode": "Always"}}, "exec: the plugin needs a terminal"),
        ({"auth-provider": {"name": 5}}, "auth-provider: name must be text"),
        ({"auth-provider": {"name": "oidc", "config": [1]}}, "auth-provider 'oidc', which is not supported"),
        ({"token": f"{SECRET} and\nmore"}, "the token contains white space"),
        ({"token": "   "}, "the token is empty"),
        ({"as": "a\nb"}, "contains a control character"),
    ],
)
async def test_nested_fields_of_a_user_are_checked(tmp_path: Path, entry: Any, words: str) -> None:
    assert words in await problem(kubeconfig=kubeconfig(tmp_path / "config", **entry))


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
MANY = ", ".join(f"k{number}: *a" for number in range(50))
REPEATED = f"a: &a [{'x,' * 5000}]\nb: &b {{as-user-extra: {{{MANY}}}}}\nusers: [{'{name: u, user: *b},' * 50}]\n"
MERGES = "a0: &a0 {k: v}\n" + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 12))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "has no clusters"),
        (b"\x00\x01\xff\xfe", "is not valid YAML"),
        (bytes(range(256)), "is not valid YAML"),
        (b"\xff\xfe\x00", "is not valid YAML"),
        (b"[" * 100_000, "is invalid"),
        *((text.encode(), "more than 1000000 values: remove aliases") for text in (BOMB, REPEATED, "a: &a [*a]")),
        (MERGES.encode(), "it has a duplicate key or an unsupported tag: look at line 2"),
        (b"&a [*a]", "has no clusters"),
        (f"current-context: a\ncurrent-context: {SECRET}".encode(), "it has a duplicate key"),
        (b"current-context: [a]", "current-context must be text, not a list"),
        (b"current-context: 5", "current-context must be text, not a number"),
        (b"users: [{name: 5}]", "users[0]: name must be text, not a number: put it in quotes"),
        (b"users: [{name: a}, {name: a}]", "there are two users named 'a': remove one"),
        (b"clusters: [{name: a, cluster: [x]}]", "cluster 'a' must be a mapping, not a list"),
        (b"clusters: {a: b}", "clusters must be a list"),
        (b"contexts: [a]", "contexts[0] must be a mapping, not text"),
        (b"a: 9" + b"9" * 5000, "has no current-context"),
        (b"a: 1" + b":1" * 500_000, "has no current-context"),
        (b"a: !!timestamp 2001-99-99", "contains a value that cannot be read"),
        (b"? [a]\n: b", "an unsupported tag"),
        (b"a: !!python/object:os.system x", "an unsupported tag"),
        (f"users: [{{name: a, user: {{token: {SECRET}}}}}]\n: : :".encode(), "is not valid YAML"),
    ],
)
async def test_a_broken_file_is_an_error_of_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "config"
    path.write_bytes(content)
    text = await problem(kubeconfig=path)
    assert words in text
    assert str(path) in text


async def test_an_impossible_path_is_an_error_of_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "does not exist" in await problem(kubeconfig=tmp_path / "none")
    assert "Is a directory" in await problem(kubeconfig=tmp_path)
    assert "larger than 16 MiB" in await problem(kubeconfig="/dev/zero")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path))
    assert "Is a directory" in await problem()
    path = kubeconfig(tmp_path / "config", server="https://127.0.0.1:1")
    change(path, "clusters", **{"certificate-authority": str(tmp_path)})
    assert f"certificate-authority of cluster 'main' cannot be read: {tmp_path}: Is" in await problem(kubeconfig=path)
    change(path, "clusters", **{"certificate-authority-data": "é"})
    assert "(certificate-authority-data) is not valid base64" in await problem(kubeconfig=path)


async def test_base64_with_line_breaks_is_read(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path / "config", server="https://127.0.0.1:1")
    change(path, "clusters", **{"certificate-authority-data": base64.encodebytes(b"nonsense" * 20).decode()})
    assert "the certificate authority cannot be used" in await problem(kubeconfig=path)


@pytest.mark.parametrize(
    "server",
    [
        f"user:{SECRET}@host:6443",
        f"ftp://user:{SECRET}@host",
        f"https://user:{SECRET}@host:99999",
        f"https://user:{SECRET}@/x",
        f"https://user:{SECRET}@host/ {SECRET}",
        f"https://user:{SECRET}@[::1",
        f"https://user:a@{SECRET}@host:x",
    ],
)
@pytest.mark.parametrize("where", ["server", "proxy-url", "HTTPS_PROXY"])
async def test_an_address_is_quoted_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: str, where: str
) -> None:
    path = kubeconfig(tmp_path / "config", server="https://cluster.invalid")
    if where == "HTTPS_PROXY":
        if server.startswith("user:"):
            server = server.replace("6443", "99999")  # without scheme it is one of HTTP
        monkeypatch.setenv("https_proxy", server)
        monkeypatch.setenv("HTTPS_PROXY", server)
        assert "the environment's HTTPS_PROXY is" in await problem(kubeconfig=path)
    else:
        change(path, "clusters", **{where: server})
        assert f"cluster 'main' has {where}" in await problem(kubeconfig=path)


async def test_an_unreachable_proxy_is_named_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = kubeconfig(tmp_path / "config", server="https://cluster.invalid")
    monkeypatch.setenv("https_proxy", f"user:{SECRET}@127.0.0.1:1")
    async with Client.from_config(kubeconfig=path) as client:
        with pytest.raises(NotSent) as caught:
            await client.send(HTTPRequest("GET", "/x", timeout=5))
    assert SECRET not in "".join(traceback.format_exception(caught.value)) + caplog.text


async def test_a_refusing_proxy_is_named_without_secrets(tmp_path: Path) -> None:
    async def refuse(request: web.BaseRequest) -> web.Response:
        return web.Response(status=407, text=SECRET)

    runner, url = await serve(refuse)
    path = kubeconfig(tmp_path / "config", server="https://cluster.invalid")
    change(path, "clusters", **{"proxy-url": url.replace("//", f"//user:{SECRET}@")})
    async with Client.from_config(kubeconfig=path) as client:
        with pytest.raises(NotSent, match="407") as caught:
            await client.send(HTTPRequest("GET", "/x", timeout=5))
    await runner.cleanup()
    assert SECRET not in "".join(traceback.format_exception(caught.value))


# what may be quoted


@pytest.mark.parametrize(
    "text",
    [
        f'{{"kind":"ExecCredential","status":{{"token":"{SECRET}"}}}}',
        f'{{"status": {{"token" : "{SECRET}',
        f'"{{\\"token\\": \\"{SECRET}\\"}}"',
        f"Authorization: Bearer {SECRET}",
        f"authorization: bearer  {SECRET}",
        f"-H 'Authorization: Basic {SECRET}'",
        f"ACCESS_TOKEN={SECRET}",
        f"client_secret: {SECRET}",
        f"password={SECRET}&user=a",
        f"--token {SECRET}",
        f"GET https://user:{SECRET}@host/path",
        f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----",
        f'clientKeyData: "-----BEGIN RSA PRIVATE KEY-----\\n{SECRET}',
    ],
)
def test_secrets_are_hidden_in_what_a_program_printed(text: str) -> None:
    assert "hunter2" not in excerpt(f"failed: {text}")
    assert excerpt(f"failed: {text}").startswith("failed: ")


@pytest.mark.parametrize(
    "secret",
    [JWT, "ya29.a0AfH6SMBx", "AKIAIOSFODNN7EXAMPLE1", "0123456789abcdef" * 4],
    ids=["jwt", "google", "aws", "hex"],
)
def test_random_looking_text_is_hidden(secret: str) -> None:
    assert secret not in excerpt(f"cannot use {secret} here") or len(secret) < 20


def test_useful_text_is_shown() -> None:
    text = "error: SSO session for profile prod has expired: run /usr/local/bin/aws sso login --profile prod"
    assert excerpt(text) == text
    assert len(excerpt("x y" * 10_000)) == 200
    assert excerpt("a\x1b[31mb\x00c\nd") == "a [31mb c d"


def test_addresses_are_shown_without_secrets() -> None:
    assert without_password("https://user:pass@host:1/path?token=x") == "https://host:1"
    assert without_password("user:pass@host:1") == "host:1"
