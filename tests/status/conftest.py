from __future__ import annotations

import pytest

from reconciler.status import clients as _clients
from reconciler.status import drivers as _drivers
from tests.status.scripted import ScriptedServer


@pytest.fixture
def server() -> ScriptedServer:
    return ScriptedServer()


@pytest.fixture(autouse=True)
def nothing_learned() -> None:
    _clients._served.clear()


@pytest.fixture(autouse=True)
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses of blocking batchers, which are not really slept."""
    pauses: list[float] = []
    monkeypatch.setattr(_drivers, "sleep", pauses.append)
    return pauses
