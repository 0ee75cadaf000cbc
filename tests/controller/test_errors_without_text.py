"""Exceptions of user code that are hard to handle, as with a `__str__` that raises: reporting them must not fail."""

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


class Incomparable(Exception):
    """A dataclass with an array has such an `__eq__`."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("the truth value of an array is ambiguous")

    __hash__ = None  # type: ignore[assignment]


class WithoutHeader(Exception):
    @property
    def retry_after(self) -> float:
        return float({}["Retry-After"])


def caused_by(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


class Fussy(Reconciler):
    """Fails on one ConfigMap and reconciles the others."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error or Rude()
        self.done: list[str] = []
        self.failed = 0

    async def reconcile(self, request: Request, /) -> Outcome:
        if request.name == "a-bad":
            self.failed += 1
            raise self.error
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


@pytest.mark.virtual_time
@pytest.mark.parametrize(
    "error",
    [
        caused_by(Incomparable("a"), Incomparable("b")),
        caused_by(RuntimeError("no"), WithoutHeader("b")),
    ],
    ids=["incomparable", "without header"],
)
async def test_a_controller_continues_after_any_exception(error: Exception) -> None:
    async with APIServer() as server, Client(server) as client:
        for name in ("a-bad", "b-good"):
            await client.create(
                {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}}
            )
        manager = Manager(client, namespaces=["default"])
        fussy = Fussy(error)
        manager.add_controller(fussy, resource="v1/ConfigMap", workers=1)
        async with manager.running():
            await asyncio.sleep(60)
    assert "b-good" in fussy.done
    assert fussy.failed > 3
