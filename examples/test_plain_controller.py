"""Tests of an unmodified plain controller on the embedded API server: pytest examples/test_plain_controller.py.

kube-reconciler provides the fixtures ``apiserver`` and ``client``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from kubernetes_asyncio import client as k8s
from kubernetes_asyncio import config

from examples.plain_controller import Controller
from reconciler import Client
from reconciler.apiserver import APIServer

CRD = Path(__file__).with_name("cabinet.yaml")
AGENT = "OpenAPI-Generator"


@pytest.fixture
async def controller(apiserver: APIServer, tmp_path: Path) -> AsyncIterator[Controller]:
    await apiserver.apply(CRD)
    configuration = k8s.Configuration()
    kubeconfig = apiserver.write_kubeconfig(tmp_path / "kubeconfig")
    await config.load_kube_config(str(kubeconfig), client_configuration=configuration)
    async with k8s.ApiClient(configuration) as api_client:
        yield Controller(api_client)


@asynccontextmanager
async def running(work: Any) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def create_cabinets(client: Client, *names: str) -> None:
    for name in names:
        metadata = {"name": name, "namespace": "default"}
        document = {"apiVersion": "example.com/v1", "kind": "Cabinet", "metadata": metadata, "spec": {"drawers": 3}}
        await client.create(document)


async def wait_for_config_map(client: Client, name: str, within: float = 30) -> None:
    await client.wait_for(
        "v1/ConfigMap", name, "default", until=lambda obj: obj.to_dict()["data"] == {"drawers": "3"}, timeout=within
    )


async def test_before_misses_objects_created_after_the_watch_was_cut(
    apiserver: APIServer, client: Client, controller: Controller
) -> None:
    async with running(controller.watch_before()):
        await create_cabinets(client, "oak")
        await wait_for_config_map(client, "oak")
        apiserver.faults.add(verb="watch", status=503, user_agent=AGENT)
        apiserver.cut_watches("cabinets")
        await create_cabinets(client, "elm")
        with pytest.raises(TimeoutError):
            await wait_for_config_map(client, "elm", within=1)


async def test_after_misses_nothing_across_cut_watches_and_restarts(
    apiserver: APIServer, client: Client, controller: Controller
) -> None:
    async with running(controller.watch_after()):
        await create_cabinets(client, "oak")
        await wait_for_config_map(client, "oak")
        apiserver.faults.add(verb="watch", status=503, user_agent=AGENT)
        apiserver.cut_watches("cabinets")
        await create_cabinets(client, "elm")
        await wait_for_config_map(client, "elm")
        await apiserver.restart()
        await create_cabinets(client, "yew")
        await wait_for_config_map(client, "yew")


async def test_before_stops_at_the_first_failure(apiserver: APIServer, client: Client, controller: Controller) -> None:
    with apiserver.faults.chaos(seed=1, rate=0.6, user_agent=AGENT):
        working = asyncio.create_task(controller.watch_before())
        await create_cabinets(client, *(f"cabinet-{number}" for number in range(10)))
        done, _ = await asyncio.wait([working], timeout=30)
    assert working in done
    assert isinstance(working.exception(), (k8s.ApiException, aiohttp.ClientError))


@pytest.mark.parametrize("seed", [1, 2])
async def test_after_converges_despite_random_faults(
    apiserver: APIServer, client: Client, controller: Controller, seed: int
) -> None:
    names = [f"cabinet-{number}" for number in range(10)]
    async with running(controller.watch_after()):
        with apiserver.faults.chaos(seed=seed, rate=0.3, user_agent=AGENT) as chaos:
            await create_cabinets(client, *names)
            for name in names:
                await wait_for_config_map(client, name)
    assert sum(chaos.hits.values()) > 0
    print(apiserver.log.writes("ConfigMap", "cabinet-0", by=AGENT))
