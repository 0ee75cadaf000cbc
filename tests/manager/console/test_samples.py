"""The charts and the lags of informers, on virtual time."""

from __future__ import annotations

import asyncio

import pytest

from reconciler import Client, Manager, Reconciler, Result
from reconciler.apiserver import APIServer
from reconciler.clock import current_clock
from reconciler.manager.console.state import Samples
from reconciler.meta import Request


class Steady(Reconciler):
    """A reconciler that takes a second every four seconds, and fails at first."""

    calls = 0

    async def reconcile(self, request: Request, /) -> Result:
        self.calls += 1
        await asyncio.sleep(1)
        if self.calls == 1:
            raise LookupError
        return Result(requeue_after=3)


@pytest.mark.virtual_time
async def test_charts_show_five_minutes_of_rates_and_states() -> None:
    async with APIServer() as server, Client(server) as client:
        await client.create(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "default"}}
        )
        manager = Manager(client)
        manager.add_controller(Steady(), resource="v1/ConfigMap")
        samples = Samples(lambda: manager.controllers, lambda: manager.cache.informers, current_clock())
        assert samples.charts("configmap")["ready"] == []
        assert samples.silence("v1/ConfigMap") is None
        async with manager.running():
            running = asyncio.create_task(samples.run())
            await asyncio.sleep(61)
            charts = samples.charts("configmap")
            assert sum(charts["errors"]) == 30.0  # one in two seconds
            assert sum(charts["reconciles"]) / len(charts["reconciles"]) == pytest.approx(15, abs=1)
            assert set(charts["active"]) == {0, 1}
            assert len(charts["ready"]) == 31
            await client.patch("v1/ConfigMap", "a", "default", patch={"data": {"a": "b"}})
            await asyncio.sleep(10)  # the next bookmark comes after 60
            assert 8 <= (samples.silence("v1/ConfigMap") or 0) <= 10
            await asyncio.sleep(600)
            charts = samples.charts("configmap")
            assert (len(charts["ready"]), len(charts["reconciles"]), sum(charts["errors"])) == (151, 150, 0)
            running.cancel()
