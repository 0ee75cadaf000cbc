"""The command line with protected endpoints: ``run``, ``manifests``, ``explain`` and ``top``."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import trustme

from reconciler import Client, Manager
from reconciler.apiserver import APIServer
from reconciler.manager import EndpointSecurity
from tests.cli.test_explain import Maps, error_of, reconciled, run
from tests.webhook.database import write_certificate

TOKEN = "s3cret-of-the-endpoints"
EXPLAIN = ("explain", "ConfigMap", "default/a")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Return a directory with a certificate, its CA and tokens."""
    ca = trustme.CA()
    write_certificate(tmp_path / "tls", ca)
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    (tmp_path / "wrong").write_text("another")
    (tmp_path / "empty").touch()
    (tmp_path / "not.pem").write_text("nothing")
    return tmp_path


@pytest_asyncio.fixture
async def endpoint(files: Path) -> AsyncIterator[str]:
    async with APIServer() as server, Client(server) as client:
        await client.create(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "default"}}
        )
        security = EndpointSecurity(token_file=files / "token", certificates=files / "tls")
        manager = Manager(client, metrics="127.0.0.1:0", security=security)
        made = manager.add_controller(Maps(), resource="v1/ConfigMap")
        async with manager.running():
            await reconciled(made, 1)
            yield manager.metrics_url or ""


async def test_token_and_ca_are_passed(capsys: Any, endpoint: str, files: Path) -> None:
    options = ("--endpoint", endpoint, "--token-file", str(files / "token"))
    for trust in (("--ca-file", str(files / "ca.pem")), ("--insecure-skip-tls-verify",)):
        code, out, err = await run(capsys, *EXPLAIN, *options, *trust, "--output=json")
        assert (code, err) == (0, "")
        assert json.loads(out)["controllers"][0]["name"] == "configmap"


async def test_each_mistake_is_one_line(capsys: Any, endpoint: str, files: Path) -> None:
    async def said(*options: str, endpoint: str = endpoint) -> str:
        line = await error_of(capsys, *EXPLAIN, "--endpoint", endpoint, *options)
        assert TOKEN not in line
        return line

    ca, token = ("--ca-file", str(files / "ca.pem")), ("--token-file", str(files / "token"))
    assert "the certificate is not trusted: unable to get local issuer certificate; pass --ca-file" in await said(
        *token
    )
    assert "it needs a token: pass --token-file" in await said(*ca)
    assert "the operator answered 401: the token is not valid" in await said(*ca, "--token-file", str(files / "wrong"))
    assert "--token-file '/nowhere': cannot read the token: No such file" in await said("--token-file", "/nowhere")
    assert "the file is empty" in await said("--token-file", str(files / "empty"))
    assert "--ca-file /nowhere: cannot read the certificates: No such file" in await said("--ca-file", "/nowhere")
    assert "cannot read the certificates: not a PEM file" in await said("--ca-file", str(files / "not.pem"))
    plain = endpoint.replace("https", "http")
    assert "the response is not HTTP; try https://" in await said(*token, endpoint=plain)
    host = endpoint.replace("127.0.0.1", "127.0.0.2")  # nothing, or a name that the certificate does not have
    await said(*ca, *token, endpoint=host)


async def test_run_serves_https_and_asks_for_the_token(capsys: Any, files: Path) -> None:
    (files / "an_operator.py").write_text(
        "from reconciler import Reconciler\n"
        "class Maps(Reconciler):\n"
        "    async def reconcile(self, request): ...\n"
        "def maps(manager): manager.add_controller(Maps(), resource='v1/ConfigMap')\n"
    )
    async with APIServer() as server:
        await server.listen()
        server.write_kubeconfig(files / "kubeconfig")
        options = ["--metrics=127.0.0.1:0", "--token-file=token", "--certificates=tls", "--kubeconfig=kubeconfig"]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "reconciler", "run", "an_operator:maps", *options, cwd=files, env=os.environ,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stderr is not None
        lines = []
        while "started controllers" not in (line := (await process.stderr.readline()).decode()):
            assert line
            lines.append(line)
        (url,) = (word.rstrip(",\n") for line in lines for word in line.split() if word.startswith("https://"))
        access = ("--ca-file", str(files / "ca.pem"), "--token-file", str(files / "token"))
        assert "ConfigMap default/a is not in the cache" in await error_of(capsys, *EXPLAIN, "--endpoint", url, *access)
        assert "needs a token" in await error_of(capsys, *EXPLAIN, "--endpoint", url, *access[:2])
        process.send_signal(signal.SIGTERM)
        rest = (await process.communicate())[1].decode()
    assert process.returncode == 0
    assert TOKEN not in "".join(lines) + rest


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--token-file=/nowhere"], "--token-file='/nowhere': cannot read the token: No such file or directory"),
        (["--token-file=x", "--authentication=kubernetes"], "set only one of --authentication and --token-file"),
        (["--certificates=/nowhere", "--no-tls"], "certificates are not used without TLS"),
        (["--console=0.0.0.0:0"], "or ask for a token with --token-file or --authentication\n"),
        (["--console=0.0.0.0:0", "--tls"], "--console='0.0.0.0:0': other machines could read it"),
        (["--certificates=/nowhere"], "cannot load the endpoint certificate (tls.crt, tls.key) in /nowhere: No such"),
    ],
)
async def test_run_names_wrong_options(capsys: Any, tmp_path: Path, options: list[str], text: str) -> None:
    async with APIServer() as server:
        await server.listen()
        path = server.write_kubeconfig(tmp_path / "kubeconfig")
        line = await error_of(
            capsys,
            "run",
            "examples.database_operator:add_controllers",
            "--metrics=127.0.0.1:0",
            f"--kubeconfig={path}",
            *options,
        )
    assert text in line


async def test_manifests_with_authentication_have_the_roles(capsys: Any) -> None:
    target = "examples.database_operator:add_controllers"
    _, out, _ = await run(capsys, "manifests", target, "--authentication=kubernetes", "--output=json")
    roles = {each["metadata"]["name"]: each for each in json.loads(out)["items"] if each["kind"] == "ClusterRole"}
    assert {"database-operator-metrics-reader", "database-operator-debug-reader"} < roles.keys()
    assert any("tokenreviews" in rule["resources"] for rule in roles["database-operator"]["rules"])
    _, out, _ = await run(capsys, "manifests", target, "--output=json")
    assert "tokenreviews" not in out


async def test_the_notification_installation_can_authenticate_its_clients(capsys: Any) -> None:
    _, out, _ = await run(capsys, "manifests", "notification", "--authentication=kubernetes", "--output=json")
    found = {(each["kind"], each["metadata"]["name"]): each for each in json.loads(out)["items"]}
    assert "authentication: kubernetes\n" in found["ConfigMap", "notification-operator"]["data"]["config.yaml"]
    assert ("ClusterRole", "notification-operator-metrics-reader") in found
    (endpoint,) = found["ServiceMonitor", "notification-operator"]["spec"]["endpoints"]
    assert (endpoint["scheme"], endpoint["tlsConfig"]) == ("https", {"insecureSkipVerify": True})
