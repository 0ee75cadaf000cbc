"""The transport wrappers of a manager's client."""

from __future__ import annotations

import pytest

from reconciler import Manager
from reconciler.apiserver import APIServer
from reconciler.client import Client
from reconciler.errors import OutcomeUnknown


async def test_requests_are_counted_by_code_method_and_host(server: APIServer, tmp_path) -> None:
    server.write_kubeconfig(tmp_path / "kubeconfig")
    async with Client.from_config(kubeconfig=tmp_path / "kubeconfig") as client:
        manager = Manager(client)
        await manager.client.live.list("v1/ConfigMap", "default")
        server.faults.add(verb="list", lost=True, times=None)
        with pytest.raises(OutcomeUnknown):
            await manager.client.live.list("v1/ConfigMap", "default")
    host = server.url.removeprefix("http://")
    counts = dict(manager.metrics.requests.samples())
    assert counts["200", "GET", host] >= 1
    assert counts["<error>", "GET", host] >= 1
