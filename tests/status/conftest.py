from __future__ import annotations

from collections.abc import Iterator

import pytest

from reconciler.status import _drivers, _official
from reconciler.status._memory import MEMORY
from tests.status.scripted import ScriptedServer


@pytest.fixture
def server() -> ScriptedServer:
    return ScriptedServer()


@pytest.fixture(autouse=True)
def nothing_learned() -> Iterator[None]:
    MEMORY.clear()
    _official._plurals.clear()
    yield
    MEMORY.clear()


@pytest.fixture(autouse=True)
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What blocking batchers would have slept."""
    pauses: list[float] = []
    monkeypatch.setattr(_drivers, "sleep", pauses.append)
    return pauses
