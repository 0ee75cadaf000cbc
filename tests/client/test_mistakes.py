"""Mistakes of a caller are reported before a request is sent."""

from __future__ import annotations

import pytest

from reconciler.apiserver import APIServer
from reconciler.client import Client


@pytest.mark.parametrize("strategy", ["apply", "Merge", ""])
async def test_patch_of_an_unknown_strategy(strategy: str) -> None:
    async with APIServer() as server, Client(server) as client:
        with pytest.raises(ValueError, match="'merge', 'json' or 'strategic'"):
            await client.patch("v1/ConfigMap", "a", "default", patch={}, strategy=strategy)  # type: ignore[arg-type]
        assert not server.requests(verb="patch")
