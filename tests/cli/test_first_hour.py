"""The stumbles of a first hour: commands that work as printed, and screens that find the running operator."""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from reconciler import Client, Model, Resource
from reconciler.apiserver import APIServer
from reconciler.cli import main
from reconciler.cli.dev import RestartingWebhooks, write_certificates
from reconciler.cli.options import CONSOLE_ADDRESS
from reconciler.cli.output import free_address, note_endpoint, noted_endpoint, program
from reconciler.errors import APIError
from reconciler.webhook import AdmissionRequest, Denied, Validator, WebhookServer, webhook_configurations


def test_the_program_is_called_by_the_path_that_works(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / ".venv" / "bin" / "reconciler"
    script.parent.mkdir(parents=True)
    script.touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(script)])
    monkeypatch.setenv("PATH", "/nowhere")
    assert program() == ".venv/bin/reconciler"
    monkeypatch.setenv("PATH", str(script.parent))
    assert program() == "reconciler"


def test_the_demo_prints_commands_that_work_and_how_long_they_take(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    script = tmp_path / "bin" / "reconciler"
    script.parent.mkdir()
    script.touch(mode=0o755)
    monkeypatch.setattr(sys, "argv", [str(script)])
    with pytest.raises(SystemExit, match="0"):
        main(["demo", "--speed", "0"])
    out, err = capsys.readouterr()
    assert f"  {script} apiserver notification" in out
    assert f"  {script.with_name('python')} examples/notification/receiver.py" in out
    assert "7.5 minutes" in out
    assert "attempt 1 of" not in err  # what the operator logs is in the table


def test_a_port_that_is_in_use_is_not_taken() -> None:
    host, _, port = free_address("127.0.0.1:0").rpartition(":")
    with socket.create_server((host, int(port))):
        assert free_address(f"127.0.0.1:{port}") != f"127.0.0.1:{port}"
    assert CONSOLE_ADDRESS == "127.0.0.1:8082"


async def test_the_running_operator_of_a_project_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    file = Path("reconciler.kubeconfig")
    async with APIServer() as server:
        await server.listen()
        server.write_kubeconfig(file)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            note_endpoint(file, url)
            assert noted_endpoint(file) == url
            async with Client.from_config(kubeconfig=file) as client:  # it is a kubeconfig all the same
                assert await client.list("v1/Namespace")
        assert noted_endpoint(file) is None  # it does not run any more
    assert file.stat().st_mode & 0o077 == 0  # noqa: ASYNC240
    for text in ("", "[]", "extensions: [1]", "extensions: [{name: reconciler.dev}]"):
        file.write_text(text)  # noqa: ASYNC240
        assert noted_endpoint(file) is None


class SmallSpec(Model):
    size: int = 1
    name: str = ""


class Small(Resource[SmallSpec, Model], group="example.com", version="v1"):
    """Something small."""


class SizeValidator(Validator[Small]):
    def validate_create(self, obj: Small, request: AdmissionRequest, /) -> None:
        if obj.spec.size > 3:
            raise Denied("too large", causes=[("spec.size", "at most 3"), ("spec.name", "must say why")])


async def test_webhooks_wait_out_a_restart_and_say_what_refuses(tmp_path: Path) -> None:
    write_certificates(tmp_path, ["127.0.0.1"])
    authority = (tmp_path / "ca.crt").read_bytes()
    address = free_address("127.0.0.1:0")
    validator = SizeValidator()
    async with APIServer() as server, Client(server) as client:
        await server.apply(Small)
        for each in webhook_configurations([validator], name="s", url=f"https://{address}", ca_bundle=authority):
            await client.create(each)
        small: dict[str, Any] = {
            "apiVersion": "example.com/v1",
            "kind": "Small",
            "metadata": {"name": "a", "namespace": "default"},
            "spec": {"size": 4},
        }
        with pytest.raises(APIError) as refused:
            await client.create(small)
        assert f"dial tcp {address}: connect: connection refused" in str(refused.value)
        assert "[Errno" not in str(refused.value)
        assert "('127" not in str(refused.value)
        server.connect_webhooks(f"https://{address}", RestartingWebhooks(address, authority))
        creating = asyncio.create_task(client.create(small))
        await asyncio.sleep(0.3)
        assert not creating.done()
        webhooks = WebhookServer(address, certificates=tmp_path)
        webhooks.add(validator)
        running = asyncio.create_task(webhooks.run())
        with pytest.raises(APIError, match="denied the request: too large") as denied:
            await creating
        running.cancel()
        await asyncio.wait({running})
    # kubectl prints the causes of one document, and only the message if there are several.
    assert "spec.size: at most 3" in str(denied.value)
    assert "spec.name: must say why" in str(denied.value)
    assert [each.field for each in denied.value.causes] == ["spec.size", "spec.name"]
