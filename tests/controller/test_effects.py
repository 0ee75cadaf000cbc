"""Effects: calls outside the cluster that tests count and plans leave out."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from reconciler import Outcome, Reconciler, Request, effect
from reconciler.controller.effects import EffectCall, effects_of, use_effect_handler


class Welcoming(Reconciler):
    """Sends one message; a mapping records it."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.planned: list[bool] = []

    @effect(once=True, planned=lambda key, text: f"planned {key} {text}")
    async def welcome(self, key: str, text: str = "hello") -> str:
        self.sent.append(key)
        return f"sent {text}"

    @effect
    async def look(self) -> int:
        return 7

    async def reconcile(self, request: Request) -> Outcome:
        self.planned.append(self.planning)
        await self.welcome(request.name)
        return None


class Planned:
    """Answers each effect as a plan does."""

    planning = True

    def __init__(self) -> None:
        self.calls: list[EffectCall] = []

    async def __call__(self, call: EffectCall) -> Any:
        self.calls.append(call)
        return call.planned()


async def test_an_effect_is_called_as_if_it_were_not_decorated() -> None:
    reconciler = Welcoming()
    assert await reconciler.welcome("a", text="hi") == "sent hi"
    assert reconciler.sent == ["a"]
    assert not reconciler.planning


async def _welcome(reconciler: Welcoming) -> str:
    return await reconciler.welcome("a", text="hello")


async def test_a_handler_decides_what_an_effect_does_also_in_tasks() -> None:
    reconciler, handler = Welcoming(), Planned()
    with use_effect_handler(handler):
        assert await asyncio.create_task(_welcome(reconciler)) == "planned a hello"
        assert reconciler.planning
        await reconciler.look()
    assert reconciler.sent == []
    assert [(call.name, call.key) for call in handler.calls] == [("welcome", "a"), ("look", "")]
    assert await handler.calls[1].run() == 7


@pytest.mark.parametrize("argument", [{"metadata": {"name": "a", "namespace": "b", "uid": "1"}}])
async def test_an_object_as_the_first_argument_stands_for_its_name(argument: Any) -> None:
    reconciler, handler = Welcoming(), Planned()
    with use_effect_handler(handler):
        await reconciler.welcome(argument, text="x")
    assert handler.calls[0].key == "b/a"


def test_a_plain_method_is_refused() -> None:
    with pytest.raises(TypeError, match=r"effect is for an 'async def' method: .*charge is not one"):

        class _(Welcoming):
            @effect  # type: ignore[arg-type]
            def charge(self) -> None: ...


def test_the_declared_effects_of_a_class_are_found() -> None:
    assert {name: each.once for name, each in effects_of(Welcoming).items()} == {"welcome": True, "look": False}
