"""A plain controller on the asyncio part of the official client works unchanged."""

from __future__ import annotations

import asyncio
from pathlib import Path

from kubernetes.aio import client, config, watch
from kubernetes.aio.client.exceptions import ApiException

from reconciler.apiserver import APIServer
from tests.foreign.plain import PlainController
from tests.foreign.story import follow


async def test_a_plain_controller_works_unchanged(server: APIServer, kubeconfig: Path) -> None:
    configuration = client.Configuration()
    await config.load_kube_config(str(kubeconfig), client_configuration=configuration)
    async with client.ApiClient(configuration) as api:
        controller = PlainController(client, watch.Watch, ApiException, api)
        working = asyncio.create_task(controller.run())
        await follow(server, "OpenAPI-Generator")
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
