"""A leader whose credentials are renewed while it leads, over sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from reconciler import Manager
from reconciler.apiserver import APIServer
from reconciler.client import Client
from reconciler.manager import LeaderElection
from tests.client.kubeconfigs import kubeconfig


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.01)


async def test_a_token_that_is_renewed_after_its_first_refusal_does_not_cost_the_lead(
    server: APIServer, tmp_path: Path
) -> None:
    await server.listen()
    (tmp_path / "token").write_text(server.token)
    path = kubeconfig(tmp_path / "config", server=server.url, tokenFile="token")

    def renewals() -> int:
        return len(server.requests(verb="update", resource="leases"))

    async with Client.from_config(kubeconfig=path) as client:
        election = LeaderElection("operator", namespace="default", retry_period=0.2)
        async with Manager(client, leader_election=election).running() as manager:
            await until(lambda: renewals() > 0)
            server._credentials.use("renewed")
            await until(lambda: client.statistics().refused > 2)  # the file was read
            before = renewals()
            (tmp_path / "token").write_text("renewed")
            await until(lambda: renewals() > before)
            assert manager.statistics().leading
