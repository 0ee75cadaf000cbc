"""``reconciler explain`` and ``reconciler top`` against a running operator."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from reconciler import Manager
from reconciler.apiserver import APIServer
from reconciler.cli import main
from reconciler.cli.top import print_top
from reconciler.client import Client
from reconciler.controller import Controller, Reconciler, Result
from reconciler.meta import Request
from reconciler.workqueue import ExponentialBackoff


class Maps(Reconciler):
    async def reconcile(self, request: Any, /) -> Result | None:
        if request.name == "fails":
            raise LookupError("no disk of this size")
        return Result(requeue_after=3600) if request.name == "waits" else None


@pytest_asyncio.fixture
async def endpoint() -> AsyncIterator[str]:
    async with APIServer() as server, Client(server) as client:
        for name in ("busy", "fails", "idle", "waits"):
            await client.create(
                {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}}
            )
        manager = Manager(client, metrics="127.0.0.1:0", grace_period=0)
        made = manager.add_controller(Maps(), resource="v1/ConfigMap", rate_limiter=ExponentialBackoff(60, 600))
        async with manager.running():
            await reconciled(made, 4)
            for number in range(5, 24):  # a hot key
                made.enqueue(Request("busy", "default"))
                await reconciled(made, number)
            yield manager.metrics_url or ""


async def reconciled(controller: Controller, number: int) -> None:
    while controller.statistics().reconciles < number:  # noqa: ASYNC110 - there is no event to wait for
        await asyncio.sleep(0)


async def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run a command in a thread, since the operator is in this one."""

    def call() -> int:
        with pytest.raises(SystemExit) as exit_:
            main(arguments)
        return int(exit_.value.code or 0)

    code = await asyncio.to_thread(call)
    output = capsys.readouterr()
    return code, output.out, output.err


async def error_of(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 1) -> str:
    found, out, err = await run(capsys, *arguments)
    assert (found, out, len(err.splitlines())) == (code, "", 1), err
    assert err.startswith("reconciler: ")
    return err


async def test_a_failing_object_is_told_as_a_person_would(capsys: Any, endpoint: str) -> None:
    code, out, _ = await run(capsys, "explain", "ConfigMap", "default/fails", "--endpoint", endpoint)
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "ConfigMap default/fails, controller configmap: waiting"
    assert lines[1].startswith("  It ran last ")
    assert lines[1].endswith("because the object appeared or changed.")
    assert lines[2].startswith("  The reconcile took ")
    assert lines[2].endswith("ms and failed.")
    assert lines[3] == "    LookupError: no disk of this size"
    assert lines[4].startswith("      cli/test_explain.py:")
    assert lines[4].endswith(" in reconcile")
    assert lines[5].startswith("    Its log records have the reconcile_id ")
    assert lines[6] == "  The status was not written."
    assert lines[7].startswith(("  It runs next in 60 s, at ", "  It runs next in 59 s, at "))
    assert lines[8:] == ["  It waits for the backoff after 1 failure.", "  It failed once in a row."]


@pytest.mark.parametrize("kind", ["configmap", "configmaps", "ConfigMap", "v1/ConfigMap"])
async def test_an_idle_object_and_a_waiting_one(capsys: Any, endpoint: str, kind: str) -> None:
    _, idle, _ = await run(capsys, "explain", kind, "default/idle", f"--endpoint={endpoint}/")
    assert "ms and succeeded." in idle
    assert "No next run is planned." in idle
    assert "It waits for a change of the object" in idle
    _, waits, _ = await run(capsys, "explain", kind, "default/waits", f"--endpoint={endpoint}")
    assert "and succeeded, to run again after 60 min." in waits
    assert "It waits for the delay that a reconcile returned." in waits


async def test_json_has_the_facts(capsys: Any, endpoint: str) -> None:
    _, out, _ = await run(capsys, "explain", "configmap", "default/fails", "--endpoint", endpoint, "--output", "json")
    (controller,) = json.loads(out)["controllers"]
    (key,) = controller["keys"]
    assert (key["name"], key["failures"], key["runs"][0]["error"]["type"]) == ("fails", 1, "LookupError")


async def test_an_unknown_kind_or_object_is_one_line(capsys: Any, endpoint: str) -> None:
    line = await error_of(capsys, "explain", "Widget", "default/fails", "--endpoint", endpoint)
    assert line == "reconciler: no controller of this process reconciles 'Widget'; it reconciles ConfigMap\n"
    line = await error_of(capsys, "explain", "ConfigMap", "default/other", "--endpoint", endpoint)
    assert "ConfigMap default/other is not in the cache of the operator" in line
    assert "NAMESPACE/NAME" in await error_of(capsys, "explain", "ConfigMap", "idle", "--endpoint", endpoint)
    for key in ("a/b/c", "/b", "a/", ""):
        line = await error_of(capsys, "explain", "ConfigMap", key, "--endpoint", endpoint)
        assert f"{key!r} is not a valid object: write NAMESPACE/NAME" in line


async def test_top_shows_controllers_failing_keys_and_where_they_are(capsys: Any, endpoint: str) -> None:
    code, out, _ = await run(capsys, "top", "--endpoint", endpoint)
    assert code == 0
    heads = [line.split()[0] for line in out.splitlines() if line.strip()]
    assert heads[:3] == ["CONTROLLER", "configmap", "FAILING"]
    assert out.splitlines()[1].split() == ["configmap", "ConfigMap", "0/1", "0", "2", "23", "1", "1"]
    (failing,) = [line for line in out.splitlines() if line.startswith("default/fails")]
    assert "LookupError: no disk" in failing


async def test_top_shows_keys_that_are_reconciled_too_often(capsys: Any, endpoint: str) -> None:
    _, out, _ = await run(capsys, "top", "--endpoint", endpoint)
    (head,) = [number for number, line in enumerate(out.splitlines()) if line.startswith("HOT KEY")]
    hot = out.splitlines()[head + 1]
    assert hot.split()[:3] == ["default/busy", "configmap", "enqueue"]
    assert float(hot.split()[3]) > 100


async def test_top_as_json_and_repeatedly(capsys: Any, endpoint: str) -> None:
    _, out, _ = await run(capsys, "top", "--endpoint", endpoint, "--output", "json")
    assert json.loads(out)["controllers"][0]["waiting"] == 2
    pauses: list[float] = []

    def interrupted_at_the_second(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            raise InterruptedError

    for as_json in (True, False):
        pauses.clear()
        with pytest.raises(InterruptedError):
            await asyncio.to_thread(
                print_top, endpoint=endpoint, watch=5.0, as_json=as_json, sleep=interrupted_at_the_second
            )
        assert pauses == [5.0, 5.0]
        out = capsys.readouterr().out
        assert len([line for line in out.splitlines() if line.startswith('{"now"')]) == (2 if as_json else 0)
    for text in ("0", "-1", "nan", "inf"):
        line = await error_of(capsys, "top", "--endpoint", endpoint, f"--watch={text}")
        assert "--watch must be a number of seconds above 0" in line


COMMANDS = [("explain", "ConfigMap", "default/a"), ("top",)]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
@pytest.mark.parametrize(
    "text", ["localhost:8080", "8080", "", "ftp://a", "http://", "http://a:99999", "http://a:b", "http://a b:1"]
)
async def test_an_invalid_endpoint_is_named(capsys: Any, command: tuple[str, ...], text: str) -> None:
    line = await error_of(capsys, *command, f"--endpoint={text}")
    assert f"--endpoint {text!r} is not a valid address: write 'http://HOST:PORT'" in line


@pytest.fixture
def banner() -> Iterator[str]:
    """Serve a port that does not speak HTTP."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        try:
            while True:
                connection, _ = listener.accept()
                connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")
                connection.close()
        except OSError:
            pass

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"127.0.0.1:{listener.getsockname()[1]}"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
async def test_an_endpoint_that_is_not_the_operators_is_one_line_of_advice(
    capsys: Any, command: tuple[str, ...], banner: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        unused = f"http://127.0.0.1:{free.getsockname()[1]}"
    assert "nothing listens there; pass the address of --metrics" in await error_of(
        capsys, *command, f"--endpoint={unused}"
    )
    assert "unknown host 'no-such-host.invalid'" in await error_of(
        capsys, *command, "--endpoint=http://no-such-host.invalid:8080"
    )
    assert "the response is not HTTP" in await error_of(capsys, *command, f"--endpoint=http://{banner}")
    assert "TLS" in await error_of(capsys, *command, f"--endpoint=https://{banner}")
    async with APIServer() as server:
        await server.listen()
        assert "/debug/keys is not served there (status 4" in await error_of(
            capsys, *command, f"--endpoint={server.url}"
        )


@pytest.mark.parametrize("command", [("explain",), ("explain", "ConfigMap")])
async def test_a_usage_error_names_the_help(capsys: Any, command: tuple[str, ...]) -> None:
    assert f"See 'reconciler {command[0]} --help'" in await error_of(capsys, *command, code=2)
