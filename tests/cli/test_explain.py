"""``reconciler explain`` against a running operator."""

from __future__ import annotations

import asyncio
import http.server
import json
import re
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from reconciler import Manager
from reconciler.apiserver import APIServer
from reconciler.cli import endpoint as endpoints
from reconciler.cli import main
from reconciler.client import Client
from reconciler.controller import Controller, Reconciler, Result
from reconciler.meta import Request
from reconciler.objects import Model, ObjectMeta, Resource
from reconciler.workqueue import ExponentialBackoff
from tests.ports import held_port


class Maps(Reconciler):
    async def reconcile(self, request: Any, /) -> Result | None:
        if request.name == "fails":
            raise LookupError("no disk of this size")
        return Result(requeue_after=3600) if request.name == "waits" else None


@pytest.fixture(autouse=True)
def _not_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)


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
    assert re.fullmatch(rf"  The reconcile took {DURATION} and failed\.", lines[2])
    assert lines[3] == "    LookupError: no disk of this size"
    assert lines[4].startswith("      cli/test_explain.py:")
    assert lines[4].endswith(" in reconcile")
    assert lines[5].startswith("    Its log records have the reconcile_id ")
    assert lines[6] == "  The status was not written."
    assert re.match(rf"  It runs next in {DURATION}, at ", lines[7])
    assert lines[8:] == ["  It waits for the backoff after 1 failure."]


@pytest.mark.parametrize("kind", ["configmap", "configmaps", "ConfigMap", "CM", "v1/ConfigMap"])
async def test_an_idle_object_and_a_waiting_one(capsys: Any, endpoint: str, kind: str) -> None:
    _, idle, _ = await run(capsys, "explain", kind, "default/idle", f"--endpoint={endpoint}/")
    assert re.search(rf"  The reconcile took {DURATION} and succeeded\.", idle)
    assert "No next run is planned." in idle
    assert "It waits for a change of the object" in idle
    _, waits, _ = await run(capsys, "explain", kind, "default/waits", f"--endpoint={endpoint}")
    assert "and succeeded, to run again after 60 min." in waits
    assert "It waits for the delay that a reconcile returned." in waits


@pytest.mark.parametrize("key", [["idle"], ["idle", "-n", "default"], ["default/idle", "--namespace=default"]])
async def test_a_name_alone_is_in_the_given_namespace_or_the_default_one(
    capsys: Any, endpoint: str, key: list[str], monkeypatch: Any, tmp_path: Path
) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    _, out, _ = await run(capsys, "explain", "cm", *key, "--endpoint", endpoint)
    assert out.startswith("ConfigMap default/idle, controller configmap: idle")
    line = await error_of(capsys, "explain", "cm", "default/idle", "--namespace=other", "--endpoint", endpoint)
    assert "--namespace other and 'default/idle' contradict each other" in line


async def test_a_name_alone_is_in_the_namespace_of_the_context(capsys: Any, endpoint: str, tmp_path: Path) -> None:
    contexts = [{"name": name, "context": {"cluster": "c", "user": "u", "namespace": name}} for name in ("a", "b")]
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(json.dumps({"contexts": contexts, "current-context": "a"}))
    for context, expected in (([], "a/idle"), (["--context", "b"], "b/idle")):
        given = ["--kubeconfig", str(kubeconfig), *context]
        line = await error_of(capsys, "explain", "cm", "idle", "--endpoint", endpoint, *given)
        assert f"ConfigMap {expected} is not in the cache of the operator" in line
    line = await error_of(capsys, "explain", "cm", "idle", "--endpoint", endpoint, *given[:-1], "none")
    assert "has no context 'none': its contexts are a, b" in line


async def test_the_names_of_a_custom_kind_and_of_a_cluster_scoped_one(capsys: Any) -> None:
    class Gadget(Resource[Model, Model], group="example.com", version="v1", short_names=["gd"], scope="Cluster"):
        pass

    async with APIServer() as server, Client(server) as client:
        await server.apply(Gadget)
        await client.create(Gadget(metadata=ObjectMeta(name="g"), spec=Model()))
        manager = Manager(client, metrics="127.0.0.1:0", grace_period=0)
        made = manager.add_controller(Maps(), resource=Gadget)
        async with manager.running():
            await reconciled(made, 1)
            url = f"--endpoint={manager.metrics_url}"
            for kind in ("gd", "gadget", "gadgets", "Gadget.example.com", "gadgets.v1.example.com", "gd.example.com"):
                _, out, err = await run(capsys, "explain", kind, "g", url)
                assert out.startswith("Gadget g, controller gadget: idle"), err
            line = await error_of(capsys, "explain", "gd", "default/g", url)
            assert "Gadget is cluster-scoped: write the name without a namespace" in line
            await error_of(capsys, "explain", "gadgets.example.org", "g", url)


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
    line = await error_of(capsys, "explain", "ConfigMap", "team-a/idle", "--endpoint", endpoint)
    assert "ConfigMap team-a/idle is not in the cache of the operator" in line
    assert "it knows default/idle" in line
    for key in ("a/b/c", "/b", "a/", "", "a\udcff", "a\x1b[2J"):
        line = await error_of(capsys, "explain", "ConfigMap", key, "--endpoint", endpoint)
        assert f"{key!r} is not a valid object: write NAMESPACE/NAME or NAME" in line


async def test_without_an_endpoint_it_says_how_to_forward_one(
    capsys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    for command in (EXPLAIN, ("recording", "fetch", "copy")):
        line = await error_of(capsys, *command)
        assert "'kubectl port-forward deploy/NAME 8080', and pass --endpoint http://127.0.0.1:8080" in line


DURATION = "[0-9.]+ m?s"
EXPLAIN = ("explain", "ConfigMap", "default/a")


@pytest.mark.parametrize(
    "text",
    [
        "localhost:8080",
        "8080",
        "",
        "ftp://a",
        "http://",
        "http://a:99999",
        "http://a:b",
        "http://a b:1",
        "http://a..b:1",
    ],
)
async def test_an_invalid_endpoint_is_named(capsys: Any, text: str) -> None:
    line = await error_of(capsys, *EXPLAIN, f"--endpoint={text}")
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


async def test_an_endpoint_that_is_not_the_operators_is_one_line_of_advice(capsys: Any, banner: str) -> None:
    with held_port() as unused:
        assert "nothing listens there; pass the address of --metrics" in await error_of(
            capsys, *EXPLAIN, f"--endpoint=http://127.0.0.1:{unused}"
        )
    assert "unknown host 'no-such-host.invalid'" in await error_of(
        capsys, *EXPLAIN, "--endpoint=http://no-such-host.invalid:8080"
    )
    assert "the response is not HTTP" in await error_of(capsys, *EXPLAIN, f"--endpoint=http://{banner}")
    assert "TLS" in await error_of(capsys, *EXPLAIN, f"--endpoint=https://{banner}")
    for path in ("/\xfc", "/\x7f"):
        assert "is not a valid address" in await error_of(capsys, *EXPLAIN, f"--endpoint=http://{banner}{path}")
    async with APIServer() as server:
        await server.listen()
        assert "/debug/keys is not served there (status 4" in await error_of(
            capsys, *EXPLAIN, f"--endpoint={server.url}"
        )


@pytest.fixture
def stranger() -> Iterator[Callable[[bytes], str]]:
    """Return a function that serves an answer, and an endless one if it is empty."""
    servers: list[http.server.HTTPServer] = []
    closed = threading.Event()

    def serve(answer: bytes) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(answer)
                if not answer:
                    closed.wait(30)

            def log_message(self, *_: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    closed.set()
    for server in servers:
        server.shutdown()
        server.server_close()


def document(**run: Any) -> dict[str, Any]:
    """Return a document with one failing key, whose texts have markup of rich and escape sequences of terminals."""
    latest = {"started": "2026-01-01T00:00:00.000000Z", "seconds": 1.0, "reasons": ["event"], "result": "error"}
    latest |= {"status_written": False, "changed_meanwhile": False, "reconcile_id": "3f2a91c0", **run}
    latest["error"] = {"type": "E", "message": "\x1b[2Jgone\nforged", "traceback": ["a.py:1"], "timed_out": False}
    key = {"name": "a[/bold]", "state": "idle", "waits_for": "\x9b2Ja change", "failures": 1, "cached": True}
    key |= {"reconciles_per_minute": 5, "runs": [latest]}
    found = {"name": "c[bold]", "kind": "Widget", "api_version": "v1", "workers": 1, "active": 0, "ready": 0}
    found |= {"waiting": 0, "reconciles": 1, "errors": 1, "keys_failing": 1, "keys": [key]}
    return {"now": "2026-01-01T00:01:00.000000Z", "role": "new[/x]", "controllers": [found]}


async def test_terminals_do_not_obey_the_answer(capsys: Any, stranger: Callable[[bytes], str]) -> None:
    url = stranger(json.dumps(document()).encode())
    _, told, _ = await run(capsys, "explain", "widget", "a[/bold]", "--endpoint", url)
    assert "    E: \\x1b[2Jgone\n      forged\n" in told
    assert r"It waits for \x9b2Ja change." in told
    assert "This process is new[/x], so it does not reconcile." in told
    assert all(each.isprintable() for each in told.split("\n"))


async def test_an_unknown_result_is_shown_as_it_is(capsys: Any, stranger: Callable[[bytes], str]) -> None:
    url = stranger(json.dumps(document(result="deferred")).encode())
    _, told, _ = await run(capsys, "explain", "widget", "a[/bold]", "--endpoint", url)
    assert "The reconcile took 1 s and deferred." in told


async def test_every_time_of_rfc_3339_is_read(capsys: Any, stranger: Callable[[bytes], str]) -> None:
    url = stranger(json.dumps(document(started="2026-01-01t00:00:00z")).encode())
    _, told, _ = await run(capsys, "explain", "widget", "a[/bold]", "--endpoint", url)
    assert "It ran last 60 s ago, at 2026-01-01T00:00:00Z," in told


async def test_another_document_is_one_line_of_advice(capsys: Any, stranger: Callable[[bytes], str]) -> None:
    others = [
        b"<html>",
        b"\xff",
        b"[]",
        b'{"controllers": []}',
        b'{"now": "2026-01-01T00:00:00Z", "role": "running", "controllers": [1]}',
        b"[" * 100_000,
        b'{"now": "2026-01-01T00:00:00Z", "role": "running", "controllers": [], "more": '
        + b"[" * 200
        + b"]" * 200
        + b"}",
        json.dumps(document(started="2026-01-01T00:00:00")).encode(),
        json.dumps(document(seconds="1")).encode(),
    ]
    for answer in others:
        line = await error_of(capsys, *EXPLAIN, "--endpoint", stranger(answer))
        assert "the response is not that of an operator of kube-reconciler" in line


async def test_an_answer_has_an_end(
    capsys: Any, stranger: Callable[[bytes], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "_MAX_BYTES", 1000)
    line = await error_of(capsys, *EXPLAIN, "--endpoint", stranger(b" " * 1001))
    assert "the response has more than 1000 bytes" in line
    monkeypatch.setattr(endpoints, "_COMPLETE_TIMEOUT", 0.1)
    line = await error_of(capsys, *EXPLAIN, "--endpoint", stranger(b""))
    assert "no end of it within 0.1 s" in line


@pytest.mark.parametrize("command", [("explain",), ("explain", "ConfigMap")])
async def test_a_usage_error_names_the_help(capsys: Any, command: tuple[str, ...]) -> None:
    assert f"See 'reconciler {command[0]} --help'" in await error_of(capsys, *command, code=2)


async def test_the_change_that_woke_an_object_is_told_with_its_writer(capsys: Any) -> None:
    async with APIServer() as server, Client(server, field_manager="kubectl-edit") as client:
        metadata = {"name": "idle", "namespace": "default"}
        await client.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"size": "2"}})
        manager = Manager(client, metrics="127.0.0.1:0", grace_period=0)
        made = manager.add_controller(Maps(), resource="v1/ConfigMap")
        async with manager.running():
            await reconciled(made, 1)
            change = {"data": {"size": "3", "token": "hunter2"}, "metadata": {"labels": {"app": "db"}}}
            await client.patch("v1/ConfigMap", "idle", "default", patch=change)
            await reconciled(made, 2)
            change = {"data": {"size": "4", "token": "hunter3"}, "metadata": {"labels": {"app": None}}}
            await client.patch("v1/ConfigMap", "idle", "default", patch=change)
            await reconciled(made, 3)
            url = manager.metrics_url or ""
            _, out, _ = await run(capsys, "explain", "configmap", "default/idle", "--endpoint", url)
    assert out.splitlines()[2:6] == [
        "    ConfigMap default/idle was updated by kubectl-edit:",
        '      data.size: "3" → "4"',
        "      data.token was changed",
        '      metadata.labels.app was removed: "db"',
    ]
