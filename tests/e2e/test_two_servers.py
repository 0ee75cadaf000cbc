"""Two API servers behind one balancer, one of them lagging or left behind by a restore of etcd."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reconciler import Client, Manager, Request
from reconciler.cache import CacheEvent, EventType
from reconciler.errors import APIError, TransportError
from reconciler.testing.control_plane import ControlPlane
from reconciler.testing.control_plane.binaries import apiserver_command
from reconciler.testing.control_plane.process import Process
from tests import real_server
from tests.cache.test_on_both_servers import until
from tests.e2e.test_server_restart import Lamp, Lamps, lit, shining

pytestmark = [pytest.mark.control_plane, pytest.mark.timeout(240)]


class Relay:
    """A TCP relay to one of several ports, in turns; what comes back can be delayed."""

    def __init__(self, *targets: int) -> None:
        self.targets = list(targets)
        self.delay = 0.0
        self.connections = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[int]:
        server = await asyncio.start_server(self._serve, "127.0.0.1")
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            self.cut()

    def cut(self) -> None:
        """Break off all connections."""
        for task in self._tasks:
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        target = self.targets[self.connections % len(self.targets)]
        streams = [writer]
        try:
            upstream, out = await asyncio.open_connection("127.0.0.1", target)
            streams.append(out)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._copy(reader, out, delayed=False))
                group.create_task(self._copy(upstream, writer, delayed=True))
        except (asyncio.CancelledError, OSError, ExceptionGroup):
            pass  # cut, or a side is gone
        finally:
            self._tasks.discard(task)
            for stream in streams:
                stream.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, delayed: bool) -> None:
        loop, waiting = asyncio.get_running_loop(), asyncio.Queue[tuple[float, bytes]]()

        async def send() -> None:
            while True:
                due, data = await waiting.get()
                await asyncio.sleep(due - loop.time())
                writer.write(data)
                await writer.drain()
                if not data:
                    writer.write_eof() if writer.can_write_eof() else writer.close()
                    return

        sending = asyncio.create_task(send())
        try:
            while data := await reader.read(65536):
                waiting.put_nowait((loop.time() + (self.delay if delayed else 0.0), data))
            waiting.put_nowait((loop.time(), b""))
            await sending
        finally:
            sending.cancel()


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


class Pair:
    """A control plane with a second API server, which reaches etcd through a relay, and a balancer for both."""

    def __init__(self, plane: ControlPlane, second: Process, port: int, etcd: Relay, balancer: Relay) -> None:
        self.plane = plane
        self.second = second
        self.etcd = etcd
        self.balancer = balancer
        self.ports = (port_of(plane.url), port)

    def route(self, *servers: int) -> None:
        """Send new connections to these servers, and break off the others."""
        self.balancer.targets = [self.ports[server] for server in servers]
        self.balancer.cut()


def client_at(plane: ControlPlane, port: int, path: Path) -> Client:
    config: dict[str, Any] = plane.kubeconfig()
    config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{port}"
    path.write_bytes(msgspec.json.encode(config))
    return Client.from_config(kubeconfig=path)


@contextlib.asynccontextmanager
async def pair(tmp_path: Path) -> AsyncIterator[tuple[Pair, Client, Client]]:
    """Yield the servers, a client of the first one, and a client of the balancer."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with ControlPlane() as plane, plane.client() as direct:
        etcd = Relay(port_of(plane._processes._etcd_url))
        balancer = Relay(port_of(plane.url), port)
        async with etcd.running() as etcd_port, balancer.running() as balanced:
            flags = [f"--audit-log-path={tmp_path / 'audit.log'}"]
            binaries, url = plane._processes.binaries, f"http://127.0.0.1:{etcd_port}"
            second = Process(apiserver_command(binaries, plane.directory, url, port, flags), tmp_path / "second.log")
            try:
                async with client_at(plane, port, tmp_path / "second.kubeconfig") as client:
                    await real_server.until(lambda: answers(client))
                await real_server.install(direct, plane, Lamp)
                async with client_at(plane, balanced, tmp_path / "both.kubeconfig") as client:
                    yield Pair(plane, second, port, etcd, balancer), direct, client
            finally:
                await asyncio.to_thread(second.stop, patience=10)


async def answers(client: Client) -> bool:
    with contextlib.suppress(TransportError, APIError):
        await client.list("v1/Namespace")
        return True
    return False


class Watcher:
    """A handler that notes where an object went back in time."""

    def __init__(self) -> None:
        self.versions: dict[str, int] = {}
        self.backwards: list[CacheEvent] = []

    def __call__(self, event: CacheEvent) -> None:
        version = event.object.version
        assert isinstance(version, int)
        if version < self.versions.get(event.object.uid, 0) or (
            event.type is EventType.ADDED and event.object.uid in self.versions
        ):
            self.backwards.append(event)
        self.versions[event.object.uid] = version


async def test_a_lagging_server_delays_but_shows_nothing_twice(tmp_path: Path) -> None:
    async with pair(tmp_path) as (servers, direct, client):
        manager = Manager(client)
        lamps, watcher = Lamps(), Watcher()
        manager.add_controller(lamps, workers=4)
        async with manager.running():
            informer = manager.cache.find(Lamp.gvk)
            informer.add_handler(watcher)
            await lit(direct, "a", "b", "c")
            servers.etcd.delay = 1.0
            for bright in range(2, 7):
                for name in ("a", "b", "c"):
                    await direct.patch(Lamp, name, "default", patch={"spec": {"bright": bright}})
                await lit(direct, f"made-{bright}")
                await direct.delete(Lamp, f"made-{bright}", "default")
                servers.route(bright % 2)  # to the other server
                await shining(direct, "a", bright=bright)
            servers.etcd.delay = 0.0
            for name in ("a", "b", "c"):
                await shining(direct, name, bright=6)
            await until(lambda: {found.name for found in informer.store} == {"a", "b", "c"})
            assert informer.statistics().reflectors.restarts == 0
            assert watcher.backwards == []
            for name in ("a", "b", "c"):  # what it did then, it does once
                await direct.patch(Lamp, name, "default", patch={"spec": {"bright": 100}})
                await shining(direct, name, bright=100)


async def test_a_server_with_the_history_before_a_restore_is_replaced_by_one_with_the_restored(tmp_path: Path) -> None:
    async with pair(tmp_path) as (servers, direct, client):
        servers.route(1)
        manager = Manager(client)
        manager.add_controller(Lamps(), workers=4)
        async with manager.running():
            store = manager.cache.find(Lamp.gvk).store
            await lit(direct, "changed", "deleted")
            backup = await servers.plane.snapshot(tmp_path / "backup.db")
            await direct.patch(Lamp, "changed", "default", patch={"spec": {"bright": 7}})
            await shining(direct, "changed", bright=7)
            await direct.delete(Lamp, "deleted", "default")
            await lit(direct, "made")
            await until(lambda: {found.name for found in store} == {"changed", "made"})
            known = (await direct.list(Lamp, "default")).resource_version
            await servers.plane.restore(backup)  # the second server goes on, with what it had read
            written = 0
            while written <= int(known) + 100:
                config_map = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"value": str(written)}}
                config_map["metadata"] = {"name": "filler", "namespace": "default"}
                written = int((await direct.apply(config_map)).resource_version)
            servers.balancer.targets = [servers.ports[0]]
            await asyncio.to_thread(servers.second.stop, patience=10)  # which ends its watches in order
            await until(lambda: {found.name for found in store} == {"changed", "deleted"})
            await until(lambda: store.get(Request("changed", "default")).decode()["spec"]["bright"] == 1)
            await direct.patch(Lamp, "changed", "default", patch={"spec": {"bright": 9}})
            await shining(direct, "changed", bright=9)
