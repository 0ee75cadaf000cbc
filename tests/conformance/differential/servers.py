"""Play sequences on both servers."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from reconciler.apiserver import APIServer
from reconciler.http import HTTPRequest
from reconciler.testing.control_plane import ControlPlane
from tests.conformance.api import Send
from tests.conformance.differential.answers import normalized
from tests.conformance.differential.kinds import DEFINITIONS
from tests.conformance.differential.player import Entry, Player, Step

_ATTEMPTS = 200
"""How often a new kind is looked for, every 0.1 s."""


async def on_embedded(steps: Sequence[Step]) -> list[Entry]:
    """Return what a new embedded server answers."""
    async with APIServer(provision_namespaces=False) as server:
        await server.apply(*DEFINITIONS)
        return await _played(server.send, steps, "differential-0", controllers=True)


async def _played(send: Send, steps: Sequence[Step], ns: str, *, controllers: bool) -> list[Entry]:
    return normalized(await Player(send, ns, controllers=controllers).play(steps), ns)


class RealServer:
    """Play sequences on a real server that runs, each in a namespace of its own."""

    def __init__(self, send: Send, runner: asyncio.Runner) -> None:
        self._send = send
        self._runner = runner
        self._numbers = itertools.count(1)

    def play(self, steps: Sequence[Step]) -> list[Entry]:
        """Return what it answers."""
        ns = f"differential-{next(self._numbers)}"
        return self._runner.run(_played(self._send, steps, ns, controllers=False))


@contextmanager
def real_server(plane: ControlPlane) -> Iterator[RealServer]:
    """Install the kinds on a real server and give a way to play on it."""
    with asyncio.Runner() as runner:
        client = runner.run(plane.client().__aenter__())
        try:
            runner.run(_install(client.send))
            yield RealServer(client.send, runner)
        finally:
            runner.run(client.__aexit__(None, None, None))


async def _install(send: Send) -> None:
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    for definition in DEFINITIONS:
        body = json.dumps(definition).encode()
        made = await send(HTTPRequest("POST", definitions, headers={"content-type": "application/json"}, body=body))
        assert made.status in (201, 409), made.body
    for path in _collections(DEFINITIONS):
        for _ in range(_ATTEMPTS):
            if (await send(HTTPRequest("GET", path))).status == 200:
                break
            await asyncio.sleep(0.1)
        else:
            raise AssertionError(f"{path} was not served in time")


def _collections(definitions: Sequence[dict[str, Any]]) -> Iterator[str]:
    for definition in definitions:
        spec = definition["spec"]
        for version in spec["versions"]:
            yield f"/apis/{spec['group']}/{version['name']}/{spec['names']['plural']}"
