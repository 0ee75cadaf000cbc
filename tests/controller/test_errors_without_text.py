"""Exceptions of user code whose `__str__` raises: reporting them must not fail."""

from __future__ import annotations

import asyncio

import pytest

from reconciler import Manager, Outcome, Reconciler, Request
from reconciler.apiserver import APIServer
from reconciler.client import Client


class Rude(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Fussy(Reconciler):
    """Fails on one ConfigMap and reconciles the others."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.failed = 0

    async def reconcile(self, request: Request, /) -> Outcome:
        if request.name == "a-bad":
            self.failed += 1
            raise Rude
        self.done.append(request.name)
        return None


@pytest.mark.virtual_time
async def test_a_controller_continues_after_an_error_that_cannot_be_shown(caplog: pytest.LogCaptureFixture) -> None:
    """The handler of `caplog` raises if a record cannot be formatted, as a handler of a user may."""
    async with APIServer() as server, Client(server) as client:
        for name in ("a-bad", "b-good"):
            await client.create(
                {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}}
            )
        manager = Manager(client, namespaces=["default"])
        fussy = Fussy()
        manager.add_controller(fussy, resource="v1/ConfigMap", workers=1)
        async with manager.running():
            await asyncio.sleep(60)
    assert "b-good" in fussy.done
    assert fussy.failed > 3
    assert "Rude" in caplog.text
