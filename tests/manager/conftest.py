"""An API server and a client on it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from reconciler.apiserver import APIServer
from reconciler.client import Client


@pytest_asyncio.fixture
async def server() -> AsyncIterator[APIServer]:
    async with APIServer() as server:
        yield server


@pytest_asyncio.fixture
async def client(server: APIServer) -> AsyncIterator[Client]:
    async with Client(server) as client:
        yield client
