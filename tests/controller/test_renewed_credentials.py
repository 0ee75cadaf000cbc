"""Credentials that expire while a controller runs."""

from __future__ import annotations

import random

import pytest

from reconciler.apiserver import APIServer
from reconciler.cache import CachedClient
from reconciler.client import Client
from reconciler.controller import Outcome, Permission
from reconciler.errors import Unauthorized
from reconciler.http import HTTPRequest, HTTPResponse, Transport
from tests.controller.conftest import WidgetReconciler, World, quiet

pytestmark = pytest.mark.virtual_time


class SecretReader(WidgetReconciler):
    """A reconciler that declares its permissions, and reads a Secret from the server."""

    permissions = (Permission("v1/Secret", "list"),)

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[Exception] = []

    async def reconcile_object(self, obj, status, /) -> Outcome:
        try:
            await self.client.live.list("v1/Secret", "ns")
        except Exception as error:
            self.errors.append(error)
            raise
        status.set(phase="Ready")
        return None


class Renewable:
    """A transport whose credentials expire: requests are refused until they are renewed."""

    def __init__(self, server: APIServer) -> None:
        self._server = server
        self.renewals = 0

    def expire(self) -> None:
        self._refusal = self._server.faults.add(verb="list", resource="secrets", status=401, times=None)

    async def send(self, request: HTTPRequest, /) -> HTTPResponse:
        return await self._server.send(request)

    async def renew(self) -> bool:
        self.renewals += 1
        self._refusal.remove()
        return True


async def start(world: World, transport: Transport) -> SecretReader:
    reconciler = SecretReader()
    client = Client(transport, rng=random.Random(1), user_agent="controller")
    world.cached = CachedClient(client, world.cache)
    await world.start(reconciler)
    return reconciler


async def test_expired_credentials_are_renewed_for_the_request_of_a_reconciler(world: World) -> None:
    transport = Renewable(world.server)
    reconciler = await start(world, transport)
    transport.expire()
    await world.widget()
    await quiet()
    assert reconciler.errors == []
    assert (await world.read()).status.phase == "Ready"
    assert transport.renewals == 1


async def test_a_reconciler_gets_the_refusal_if_nothing_can_renew_the_credentials(world: World) -> None:
    reconciler = await start(world, world.server)
    world.server.faults.add(verb="list", resource="secrets", status=401)
    await world.widget()
    await quiet(60)
    assert [type(error) for error in reconciler.errors] == [Unauthorized]
    assert (await world.read()).status.phase == "Ready", "after the retry"
