"""Mistakes of a caller are reported before a request is sent."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.apiserver import APIServer
from reconciler.client import Client


@pytest.mark.parametrize("strategy", ["apply", "Merge", ""])
async def test_patch_of_an_unknown_strategy(strategy: str) -> None:
    async with APIServer() as server, Client(server) as client:
        with pytest.raises(ValueError, match="'merge', 'json' or 'strategic'"):
            await client.patch("v1/ConfigMap", "a", "default", patch={}, strategy=strategy)  # type: ignore[arg-type]
        assert not server.requests(verb="patch")


MAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "default"}}
VERBS = {
    "list": lambda c, **options: c.list("v1/ConfigMap", "default", **options),
    "list_metadata": lambda c, **options: c.list_metadata("v1/ConfigMap", "default", **options),
    "list_pages": lambda c, **options: anext(c.list_pages("v1/ConfigMap", "default", **options)),
    "watch": lambda c, **options: anext(c.watch("v1/ConfigMap", "default", **options)),
    "create": lambda c, **options: c.create(MAP, **options),
    "update": lambda c, **options: c.update(MAP, **options),
    "patch": lambda c, **options: c.patch("v1/ConfigMap", "a", "default", patch={}, **options),
    "patch_from": lambda c, **options: c.patch_from(MAP, {**MAP, "data": {"a": "b"}}, **options),
    "apply": lambda c, **options: c.apply(MAP, **options),
    "delete": lambda c, **options: c.delete("v1/ConfigMap", "a", "default", **options),
    "create_subresource": lambda c, **options: c.create_subresource(
        "v1/Pod", "a", "default", subresource="eviction", body={}, **options
    ),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("keyword", ["dryrun", "session", "verb", "metadata_only", "force"])
async def test_unknown_keyword(verb: str, keyword: str) -> None:
    if keyword == "force" and verb == "apply":
        return
    async with APIServer() as server, Client(server) as client:
        options: dict[str, Any] = {keyword: True}
        with pytest.raises(TypeError, match=keyword):
            await VERBS[verb](client, **options)
        assert not server.requests()
