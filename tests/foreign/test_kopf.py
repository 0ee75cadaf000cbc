"""A controller on kopf works unchanged: handlers, its own finalizer, an adopted child, a daemon of the event stream."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import kopf
import yaml
from kubernetes import client, config

from reconciler.apiserver import APIServer
from tests.foreign.story import GROUP, PATIENCE, PLURAL, VERSION, follow

ADDRESS = (GROUP, VERSION, PLURAL)


def _operator(kubeconfig: Path) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()
    core = client.CoreV1Api(config.new_client_from_config(str(kubeconfig)))

    @kopf.on.login(registry=registry)
    def login(**_: Any) -> kopf.ConnectionInfo:
        content = yaml.safe_load(kubeconfig.read_text())
        address, user = content["clusters"][0]["cluster"]["server"], content["users"][0]["user"]
        return kopf.ConnectionInfo(server=address, token=user["token"], default_namespace="default")

    @kopf.on.create(*ADDRESS, registry=registry)
    def create(spec: Any, name: str, patch: Any, **_: Any) -> None:
        child = {"metadata": {"name": f"{name}-settings"}, "data": {"size": str(spec["size"])}}
        kopf.adopt(child)
        core.create_namespaced_config_map("default", child)
        patch.status.update(phase="Ready", size=spec["size"])

    @kopf.on.update(*ADDRESS, field="spec.size", registry=registry)
    async def update(new: int, name: str, patch: Any, **_: Any) -> None:
        body = {"data": {"size": str(new)}}
        await asyncio.to_thread(core.patch_namespaced_config_map, f"{name}-settings", "default", body)
        patch.status["size"] = new

    @kopf.on.delete(*ADDRESS, registry=registry)
    def delete(name: str, **_: Any) -> None:
        core.delete_namespaced_config_map(f"{name}-settings", "default")

    return registry


async def test_a_controller_works_unchanged(server: APIServer, kubeconfig: Path) -> None:
    stop, ready = threading.Event(), threading.Event()
    settings = kopf.OperatorSettings()
    settings.persistence.finalizer = "example.com/cleanup"
    registry = _operator(kubeconfig)

    def run() -> None:
        # On its own loop: when kopf stops, it ends all tasks of its loop that were started after it.
        asyncio.run(
            kopf.operator(
                registry=registry,
                settings=settings,
                namespaces=["default"],
                standalone=True,
                stop_flag=stop,
                ready_flag=ready,
            )
        )

    working = asyncio.create_task(asyncio.to_thread(run))
    await asyncio.to_thread(ready.wait, PATIENCE)
    await follow(server, "kopf")
    stop.set()
    await asyncio.wait_for(working, PATIENCE)
