"""Controllers on the official synchronous client work unchanged: one with its own watch, one on the informer."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import queue
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.informer import SharedInformer
from urllib3.exceptions import ProtocolError

from reconciler import Client
from reconciler.apiserver import APIServer
from tests.foreign.story import FINALIZER, GROUP, PATIENCE, PLURAL, VERSION, child_of, follow, status_of

ADDRESS = {"group": GROUP, "version": VERSION, "namespace": "default", "plural": PLURAL}


class Worker:
    """Reconcile one Database."""

    def __init__(self, api: client.ApiClient) -> None:
        self.core = client.CoreV1Api(api)
        self.custom = client.CustomObjectsApi(api)

    def reconcile(self, obj: dict[str, Any]) -> None:
        metadata = obj["metadata"]
        name, finalizers = metadata["name"], metadata.get("finalizers", [])
        if metadata.get("deletionTimestamp"):
            if FINALIZER in finalizers:
                kept = [one for one in finalizers if one != FINALIZER]
                self.custom.patch_namespaced_custom_object(
                    **ADDRESS, name=name, body={"metadata": {"finalizers": kept}}
                )
            return
        if FINALIZER not in finalizers:
            body = {"metadata": {"finalizers": [*finalizers, FINALIZER]}}
            self.custom.patch_namespaced_custom_object(**ADDRESS, name=name, body=body)
        child = child_of(obj)
        try:
            self.core.create_namespaced_config_map("default", child)
        except ApiException as error:
            if error.status != 409:
                raise
            self.core.patch_namespaced_config_map(child["metadata"]["name"], "default", {"data": child["data"]})
        if obj.get("status") != status_of(obj):
            self.custom.patch_namespaced_custom_object_status(**ADDRESS, name=name, body={"status": status_of(obj)})


@pytest.fixture
def api(kubeconfig: Path) -> client.ApiClient:
    return config.new_client_from_config(str(kubeconfig))


async def test_a_controller_with_its_own_watch_works_unchanged(server: APIServer, api: client.ApiClient) -> None:
    worker, stream = Worker(api), watch.Watch()

    def run() -> None:
        listed = worker.custom.list_namespaced_custom_object(**ADDRESS)
        for obj in listed["items"]:
            worker.reconcile(obj)
        for event in stream.stream(
            worker.custom.list_namespaced_custom_object,
            **ADDRESS,
            resource_version=listed["metadata"]["resourceVersion"],
        ):
            if event["type"] != "DELETED":
                worker.reconcile(event["object"])

    working = asyncio.create_task(asyncio.to_thread(run))
    await follow(server, "OpenAPI-Generator")
    stream.stop()  # it closes the socket under its own reader, or sees a clean end
    server.cut_watches()
    with contextlib.suppress(ProtocolError):
        await asyncio.wait_for(working, PATIENCE)


async def test_its_informer_recovers_from_cut_watches_and_compaction(server: APIServer, api: client.ApiClient) -> None:
    core = client.CoreV1Api(api)
    informer = SharedInformer(core.list_namespaced_config_map, namespace="default", label_selector="app=demo")
    seen: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
    for kind in ("ADDED", "MODIFIED", "DELETED"):
        informer.add_event_handler(kind, functools.partial(_note, seen, kind))
    informer.start()
    async with Client(server) as user:
        await user.create(_settings("a"))
        assert await _next(seen) == ("ADDED", "a")
        await user.patch("v1/ConfigMap", "a", "default", patch={"data": {"x": "1"}})
        assert await _next(seen) == ("MODIFIED", "a")
        server.faults.add(status=503, verb="watch", times=1)
        server.cut_watches()
        await user.create(_settings("b"))
        assert await _next(seen) == ("ADDED", "b")
        server.cut_watches()
        await user.delete("v1/ConfigMap", "a", "default")
        server.compact()
        found = [await _next(seen) for _ in range(2)]
        assert sorted(found) == [("DELETED", "a"), ("MODIFIED", "b")] or found == [("DELETED", "a")] * 2
    assert informer.cache.list_keys() == ["default/b"]
    stopping = asyncio.create_task(asyncio.to_thread(informer.stop))
    while not stopping.done():
        server.cut_watches()  # its thread blocks until it can read something
        await asyncio.sleep(0.01)


def _settings(name: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default", "labels": {"app": "demo"}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}


def _note(seen: queue.SimpleQueue[tuple[str, str]], kind: str, obj: Any) -> None:
    seen.put((kind, obj.metadata.name))


async def _next(seen: queue.SimpleQueue[tuple[str, str]]) -> tuple[str, str]:
    return await asyncio.to_thread(seen.get, timeout=PATIENCE)
