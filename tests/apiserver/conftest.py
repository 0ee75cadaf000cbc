"""A server with a custom kind, and a client of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from reconciler.apiserver import APIServer
from tests.apiserver.api import Api, definition


@pytest.fixture
async def server() -> AsyncIterator[APIServer]:
    async with APIServer(provision_namespaces=False) as running:
        await running.apply(definition())
        yield running


@pytest.fixture
def api(server: APIServer) -> Api:
    return Api(server)
