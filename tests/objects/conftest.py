"""The servers that generated CustomResourceDefinitions are tried on."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from reconciler.apiserver import APIServer
from reconciler.client import Client
from reconciler.testing.control_plane import ControlPlane


@pytest_asyncio.fixture(params=["embedded", pytest.param("real", marks=pytest.mark.control_plane)])
async def admin(request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    if request.param == "embedded":
        async with APIServer() as server, Client(server) as client:
            yield client
        return
    plane: ControlPlane = request.getfixturevalue("control_plane")
    async with plane.client() as client:
        yield client
