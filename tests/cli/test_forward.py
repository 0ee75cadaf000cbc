"""``reconciler explain`` and ``top`` through a forwarded port of the operator's pod."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import trustme
from aiohttp import web

from reconciler import Manager
from reconciler.apiserver import APIServer
from reconciler.cli import endpoint as endpoints
from reconciler.cli import forward
from reconciler.client import Client
from reconciler.controller import Reconciler
from reconciler.manager import EndpointSecurity, LeaderElection
from reconciler.recording import Recording
from reconciler.recording.recording import RecordingReader
from reconciler.testing.control_plane import ControlPlane
from tests.cli.kubelet import Front, Kubelet, serving
from tests.cli.test_explain import error_of, run
from tests.ports import held_port
from tests.real_server import until

IDENTITY = "operator-1_6e0f6f5e-6c5b-4f3c-8a55-3a6d0f4e1a77"


class Maps(Reconciler):
    async def reconcile(self, request: Any, /) -> None:
        raise LookupError("no disk of this size")


def pod(name: str, port: int, **metadata: Any) -> dict[str, Any]:
    container = {"name": "operator", "image": "operator:1", "ports": [{"name": "metrics", "containerPort": port}]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "operator"}, **metadata},
        "spec": {"containers": [container], "nodeName": "node-1"},
    }


def deployment() -> dict[str, Any]:
    selector = {"matchLabels": {"app": "operator"}, "matchExpressions": [{"key": "app", "operator": "Exists"}]}
    template = {"metadata": {"labels": {"app": "operator"}}, "spec": pod("x", 1)["spec"]}
    metadata = {"name": "operator", "namespace": "system"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {"selector": selector, "template": template},
    }


class World:
    """A cluster with an operator in it, and a kubelet.

    Attributes:
        client: for the tests.
        kubelet: the kubelet of all pods.
        kubeconfig: a file; its context has the namespace ``system``.
        port: the port of the operator's metrics.
    """

    def __init__(self, client: Client, kubelet: Kubelet, kubeconfig: Path, port: int) -> None:
        self.client = client
        self.kubelet = kubelet
        self.kubeconfig = kubeconfig
        self.port = port

    async def create_pod(self, name: str, phase: str = "Running", port: int | None = None) -> None:
        await self.client.create(pod(name, port or self.port, namespace="system"))
        await self.client.patch("v1/Pod", name, "system", patch={"status": {"phase": phase}}, subresource="status")

    def arguments(self, *given: str) -> list[str]:
        return [*given, "--kubeconfig", str(self.kubeconfig)]


@contextlib.asynccontextmanager
async def operator(client: Client, **options: Any) -> AsyncIterator[int]:
    """Run an operator that holds the Lease of ``operator-1``, and yield the port of its metrics."""
    election = LeaderElection("operator", namespace="system", identity=IDENTITY)
    manager = Manager(client, metrics="127.0.0.1:0", leader_election=election, grace_period=0, **options)
    made = manager.add_controller(Maps(), resource="v1/ConfigMap")
    async with manager.running():
        while not made.statistics().reconciles:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0)
        yield int((manager.metrics_url or "").rpartition(":")[2])


async def seed(client: Client) -> None:
    await client.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "system"}})
    await client.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "db", "namespace": "system"}})


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with cluster(tmp_path) as world:
        yield world


@contextlib.asynccontextmanager
async def cluster(tmp_path: Path, **options: Any) -> AsyncIterator[World]:
    kubelet = Kubelet()
    async with APIServer() as server, Client(server) as client:
        await seed(client)
        await server.listen()
        origin = server.url
        async with operator(client, **options) as port, kubelet.serving(), Front(origin, kubelet).serving() as url:
            config = server.kubeconfig()
            config["clusters"][0]["cluster"]["server"] = config["clusters"][0]["cluster"]["server"].replace(origin, url)
            config["contexts"][0]["context"]["namespace"] = "system"
            kubeconfig = tmp_path / "kubeconfig"
            kubeconfig.write_text(json.dumps(config))
            yield World(client, kubelet, kubeconfig, port)


async def test_a_recording_is_fetched_from_the_pod(tmp_path: Path, capsys: Any) -> None:
    recording = Recording(tmp_path / "r")
    async with cluster(tmp_path, recording=recording) as world:
        await world.create_pod("operator-1")
        while not recording.statistics().reconciles:
            await asyncio.to_thread(recording._write)
        fetch = world.arguments("recording", "fetch", str(tmp_path / "copy"))
        world.kubelet.status = 403
        code, _, err = await run(capsys, *fetch)
        assert code == 1
        assert "this user may not forward ports (403)" in err
        world.kubelet.status = None
        code, out, err = await run(capsys, *fetch, "--pod", "operator-1")
        assert (code, out.partition(",")[0]) == (0, "1 segments"), err
    assert {each.name for each in RecordingReader(tmp_path / "copy").records()} == {"db"}


async def test_a_recording_that_is_fetched_in_vain_leaves_no_files(tmp_path: Path, capsys: Any) -> None:
    """The connection is lost in the second segment; a segment that is gone is left out; hostile names are refused."""
    answers: dict[str, Any] = {"": ["00000001.segment", "00000002.segment"], "00000001.segment": b"one"}

    async def answer(request: web.Request) -> web.StreamResponse:
        found = answers.get(request.query.get("segment", ""))
        if found is None:
            return web.Response(status=404)
        if found == "lost":
            response = web.StreamResponse(headers={"content-length": "100"})
            await response.prepare(request)
            await response.write(b"half")
            assert request.transport is not None
            request.transport.abort()
            return response
        return web.json_response(found) if isinstance(found, list) else web.Response(body=found)

    app = web.Application()
    app.router.add_get("/debug/recording", answer)
    copy = tmp_path / "copy"
    async with serving(app) as port:
        fetch = ("recording", "fetch", str(copy), "--endpoint", f"http://127.0.0.1:{port}")
        answers["00000002.segment"] = "lost"
        code, _, err = await run(capsys, *fetch)
        assert (code, "the connection was lost before the end of the response" in err) == (1, True), err
        assert list(copy.iterdir()) == []
        for name in ("../00000001.segment", "a\0.segment", "lock", ".segment", "00000001.segment\n"):
            answers[""] = [name]
            code, _, err = await run(capsys, *fetch)
            assert (code, err.count("\n"), "is not that of an operator" in err) == (1, 1, True)
        answers[""], answers["00000002.segment"] = ["00000001.segment", "00000002.segment"], None
        code, out, err = await run(capsys, *fetch)
        assert (code, out) == (0, f"1 segments, 3 bytes, in {copy}\n"), err
    assert [each.name for each in copy.iterdir()] == ["00000001.segment"]


async def test_the_leader_is_found_by_its_lease_and_its_messages_are_shown(world: World, capsys: Any) -> None:
    await world.create_pod("operator-0", port=9)
    await world.create_pod("operator-1")
    code, out, _ = await run(capsys, *world.arguments("explain", "cm", "db"))
    assert code == 0
    assert out.startswith("ConfigMap system/db, controller configmap: ")
    assert "LookupError: no disk of this size" in out  # only local requests get messages
    assert set(world.kubelet.forwarded) == {f"system/operator-1:{world.port}"}


async def test_top_asks_the_leader_of_a_deployment(world: World, capsys: Any) -> None:
    await world.create_pod("operator-0", port=9)
    await world.create_pod("operator-1")
    await world.client.create(deployment())
    code, out, _ = await run(capsys, *world.arguments("top", "--deployment", "operator", "--output=json"))
    assert (code, json.loads(out)["controllers"][0]["name"]) == (0, "configmap")
    assert world.kubelet.forwarded == [f"system/operator-1:{world.port}"]


async def test_a_pod_is_chosen_by_labels_or_by_name(world: World, capsys: Any) -> None:
    await world.create_pod("gone", "Failed")
    await world.create_pod("other")
    for choice in (["--selector=app=operator"], ["--pod", "other"]):
        code, _, _ = await run(capsys, *world.arguments("top", *choice, "--operator-namespace=system"))
        assert (code, world.kubelet.forwarded.pop()) == (0, f"system/other:{world.port}")


async def test_each_thing_that_can_go_wrong_is_one_line_that_says_what_to_do(world: World, capsys: Any) -> None:
    async def error(*choice: str) -> str:
        return await error_of(capsys, *world.arguments("top", *choice))

    assert "'operator-1', which holds the Lease system/operator, is not a pod" in await error()
    assert "there is no pod system/none; choose its namespace with --operator-namespace" in await error("--pod=none")
    assert "there is no Deployment system/none" in await error("--deployment=none")
    assert "there is no pod with the labels 'app=none'" in await error("--selector=app=none")
    assert "--pod and --deployment both choose a pod" in await error("--pod=a", "--deployment=b")
    await world.create_pod("slow", "Pending")
    assert "pod system/slow is Pending, not Running" in await error("--pod=slow")
    assert "no pod with the labels 'app=operator' runs: slow is Pending" in await error("--selector=app=operator")
    await world.create_pod("operator-1")
    with held_port() as free:
        line = f"port {free} of pod system/operator-1: nothing listens there; choose the port of --metrics or --health"
        assert line in await error(f"--port={free}")
    for status, message in {
        401: "the API server refused the credentials of the kubeconfig (401)",
        403: "grant the verbs 'get' and 'create' on 'pods/portforward' in namespace system",
        404: "the pod is gone (404); run the command again",
        500: "the API server did not forward the port (status 500); try 'kubectl port-forward'",
    }.items():
        world.kubelet.status = status
        assert message in await error()


async def test_a_port_of_another_program_is_named(world: World, capsys: Any) -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    await world.create_pod("operator-1")
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    line = await error_of(capsys, *world.arguments("top", f"--port={port}"))
    assert (
        f"port {port} of pod system/operator-1: /debug/keys is not served there (status 404); choose the port" in line
    )
    server.close()


async def test_a_pod_that_does_not_answer_is_given_up(world: World, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(endpoints, "_TIMEOUT", 0.3)
    await world.create_pod("operator-1")
    world.kubelet.hangs = True
    assert "of pod system/operator-1: no response within" in await error_of(capsys, *world.arguments("top"))


async def test_an_api_server_that_opens_no_connection_is_given_up(world: World, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(forward, "_TIMEOUT", 0.1)
    await world.create_pod("operator-1")
    world.kubelet.opens = False
    assert "the API server did not open the connection within 0.1 s" in await error_of(capsys, *world.arguments("top"))


async def test_without_a_cluster_or_a_lease_it_says_what_to_pass(world: World, capsys: Any, tmp_path: Path) -> None:
    missing = await error_of(capsys, "top", "--kubeconfig", str(tmp_path / "none"))
    assert f"kubeconfig {tmp_path / 'none'} does not exist" in missing
    assert missing.endswith("; or pass --endpoint\n")
    await world.client.delete("coordination.k8s.io/v1/Lease", "operator", "system")
    line = await error_of(capsys, *world.arguments("top", "--operator-namespace=default"))
    advice = "choose the operator with --deployment, --selector or --pod, or pass --endpoint"
    assert f"no Lease in namespace default is held by an operator of kube-reconciler; {advice}" in line
    contradiction = await error_of(capsys, *world.arguments("top", "--endpoint=http://127.0.0.1:1", "--pod=a"))
    assert "--endpoint is the address of the operator: omit the options that choose its pod" in contradiction


async def test_a_protected_port_is_asked_over_https_with_the_token(world: World, capsys: Any, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret")
    async with APIServer() as server, Client(server) as client:
        await seed(client)
        async with operator(client, security=EndpointSecurity(token_file=token)) as port:
            await world.create_pod("operator-1", port=port)
            line = await error_of(capsys, *world.arguments("top"))
            assert f"port {port} of pod system/operator-1: the response is not HTTP; if it speaks HTTPS, pass" in line
            arguments = world.arguments("top", "--insecure-skip-tls-verify")
            assert "it needs a token: pass --token-file" in await error_of(capsys, *arguments)
            code, out, _ = await run(capsys, *arguments, f"--token-file={token}")
            assert (code, "configmap" in out) == (0, True)


async def test_several_operators_are_listed(world: World, capsys: Any) -> None:
    annotations = {"app.kubernetes.io/managed-by": "kube-reconciler"}
    metadata = {"name": "other", "namespace": "default", "annotations": annotations}
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata}
    await world.client.create({**lease, "spec": {"holderIdentity": "other-0_1"}})
    line = await error_of(capsys, *world.arguments("top"))
    assert "several operators hold Leases: default/other, system/operator; choose the operator with" in line


@pytest.mark.control_plane
async def test_through_a_real_kube_apiserver(control_plane: ControlPlane, capsys: Any, tmp_path: Path) -> None:
    """The real server forwards to the kubelet of the pod's node, which is the one of these tests."""
    kubelet, authority = Kubelet(), trustme.CA()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    config = control_plane.kubeconfig()
    config["contexts"][0]["context"]["namespace"] = "system"
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(json.dumps(config))
    async with Client.from_config(kubeconfig=kubeconfig) as client, kubelet.serving(tls):
        await seed(client)
        await client.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"}})
        endpoint = {"kubeletEndpoint": {"Port": kubelet.port}}
        status = {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}], "daemonEndpoints": endpoint}
        await client.patch("v1/Node", "node-1", patch={"status": status}, subresource="status")
        async with operator(client) as port:
            world = World(client, kubelet, kubeconfig, port)
            await world.create_pod("operator-1")

            async def failed() -> bool:
                events = await client.list("v1/Event", "system")
                return any(event["involvedObject"]["name"] == "db" for event in events)

            await until(failed)
            _, out, err = await run(capsys, *world.arguments("explain", "cm", "db"))
            assert "LookupError: no disk of this size" in out, err
            assert f"system/operator-1:{port}" in kubelet.forwarded
            line = await error_of(capsys, *world.arguments("top", "--port=1"))
            assert "port 1 of pod system/operator-1: nothing listens there" in line
