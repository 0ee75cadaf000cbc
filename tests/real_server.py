"""Waiting for what a real server notices a moment later: new kinds, and roles."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

from reconciler import Client
from reconciler.testing import Cluster
from reconciler.testing.control_plane import ControlPlane

PATIENCE = 50.0
"""Seconds, which only end a hanging test."""


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Ask until a condition is true."""
    async with asyncio.timeout(PATIENCE):
        while not await condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.05)


async def install(client: Client, plane: ControlPlane, *kinds: type[Any] | Mapping[str, Any]) -> None:
    """Create or update CustomResourceDefinitions, and wait until they are served."""
    await Cluster("real", client, "default", plane).install(*kinds)


async def notices_roles(client: Client, documents: Sequence[Mapping[str, Any]]) -> None:
    """Wait until a user has all rights of the roles that are bound in these documents.

    The authorizer watches roles and bindings, each kind by itself. So one right does not show that all are noticed.
    """
    for namespace, rules in _bound(documents):

        async def has_all(namespace: str = namespace, rules: list[dict[str, Any]] = rules) -> bool:
            found = await _rights(client, namespace)
            return all(rule in found for rule in rules)

        await until(has_all)


def _bound(documents: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield the rules of each binding, with a namespace in which they hold."""
    for binding in documents:
        namespace = binding["metadata"].get("namespace")
        for role in documents:
            of_binding = (binding.get("roleRef", {}).get("kind"), binding.get("roleRef", {}).get("name"))
            bound = of_binding == (role["kind"], role["metadata"]["name"])
            if bound and role["metadata"].get("namespace") in (None, namespace):
                yield namespace or "default", role["rules"]


async def _rights(client: Client, namespace: str) -> list[dict[str, Any]]:
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "metadata": {}}
    status = (await client.create(review | {"spec": {"namespace": namespace}})).to_dict()["status"]
    rules: list[dict[str, Any]] = [*status["resourceRules"], *status["nonResourceRules"]]
    return rules
