"""Invalid arguments of a manager are refused immediately, with advice."""

from __future__ import annotations

import pytest

from reconciler import Client, Manager
from reconciler.apiserver import APIServer
from reconciler.controller import Reconciler
from reconciler.errors import ConfigurationError


class ByKey(Reconciler):
    async def reconcile(self, request):
        pass


async def test_transport_instead_of_a_client() -> None:
    async with APIServer() as server:
        with pytest.raises(ConfigurationError, match=r"takes a Client.*Client\(apiserver\)"):
            Manager(server)  # type: ignore[arg-type]


async def test_manager_instead_of_a_client() -> None:
    async with APIServer() as server, Client(server) as client:
        with pytest.raises(ConfigurationError, match="`reconciler run` passes the manager itself"):
            Manager(Manager(client))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("reconciler", "options", "message"),
    [
        (ByKey(), {"resource": "nodes"}, "resource: 'nodes' is not a valid kind"),
        (ByKey(), {}, "does not state its kind"),
        (ByKey, {}, r"pass an instance, ByKey\(\)"),
        (ByKey, {"resource": "v1/Node"}, r"pass an instance, ByKey\(\)"),
        (ByKey(), {"resource": "v1/Node", "owns": "v1/Pod"}, "owns must be a sequence"),
    ],
)
async def test_controller_that_cannot_be_added(reconciler, options, message) -> None:
    async with APIServer() as server, Client(server) as client:
        manager = Manager(client)
        with pytest.raises(ConfigurationError, match=message):
            manager.add_controller(reconciler, **options)
        manager.add_controller(ByKey(), resource="v1/Node")  # the failed attempt leaves nothing behind
        assert len(manager.statistics().controllers) == 1
