"""Fixtures: a server that serves Databases, and the kubeconfig for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from reconciler.apiserver import APIServer
from tests.foreign.story import DEFINITION


@pytest.fixture
async def server() -> AsyncIterator[APIServer]:
    async with APIServer() as running:
        await running.apply(DEFINITION)
        yield running


@pytest.fixture
def kubeconfig(server: APIServer, tmp_path: Path) -> Path:
    return server.write_kubeconfig(tmp_path / "kubeconfig")
