"""Objects in long lists that no decoder takes: found in a bounded number of steps, in turns of the event loop."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import msgspec
import pytest

from reconciler import Request
from reconciler._core.wire import json_members
from tests.cache.scripted import GVK, HOLD, Script, bookmark, document, line, refused
from tests.cache.test_informer import make, running

pytestmark = pytest.mark.virtual_time

ITEMS = 500
BAD = (0, 1, 250, 499)
CONTENT = {f"key-{number}": [number, {"value": "x"}] for number in range(100)}
"""1,100 tokens of JSON."""


def deep(levels: int, inner: bytes = b"1") -> bytes:
    return b'{"a":' * levels + inner + b"}" * levels


LEVELS = 12_000
"""More than the decoder takes: about 1,000 in Python 3.11, and 10,000 since 3.12."""

HOSTILE = {
    "deep": deep(LEVELS),
    "deep and wide": b"[" + b'{"a":[[[[[[[[]]]]]]]]},' * 20_000 + deep(LEVELS) + b"]",
    "wide levels": b'[{"a":1},{"b":[]},' * LEVELS + b"1" + b"]" * LEVELS,
    "brackets in strings": b"[" + b'"[{\\"[{",' * 20_000 + deep(LEVELS) + b"]",
    "a long string": b'"' + b"x" * 1_000_000 + b'\\ud800"',
}


class Steps:
    """The number of lines of Python that the library executes, and the most in one turn of the event loop."""

    def __init__(self) -> None:
        self.all = 0
        self.longest_turn = 0
        self._before = 0

    def tick(self) -> None:
        self.longest_turn = max(self.longest_turn, self.all - self._before)
        self._before = self.all
        asyncio.get_running_loop().call_soon(self.tick)

    def trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if "/reconciler/" not in frame.f_code.co_filename:
            return None
        self.all += event == "line"
        return self.trace


@contextmanager
def counted() -> Iterator[Steps]:
    steps, before = Steps(), sys.gettrace()
    sys.settrace(steps.trace)
    try:
        yield steps
    finally:
        sys.settrace(before)


def marked(text: bytes, value: bytes) -> bytes:
    return text.replace(b'"MARK"', value)


def objects(*, where: str) -> list[dict[str, Any]]:
    more: dict[str, Any] = {"spec": "MARK"} if where == "spec" else {"metadata": {"managedFields": "MARK"}}
    return [document(f"n{number}", 1, status=CONTENT, **(more if number in BAD else {})) for number in range(ITEMS)]


@pytest.mark.parametrize("streamed", [False, True], ids=["pages", "streamed"])
@pytest.mark.parametrize(("value", "where"), [*((value, "spec") for value in HOSTILE), ("deep", "managedFields")])
async def test_hostile_objects_in_a_long_list_take_a_bounded_number_of_steps(
    value: str, where: str, *, streamed: bool
) -> None:
    script, text = Script(), HOSTILE[value]
    listed = objects(where=where)
    if streamed:
        lines = [marked(line("ADDED", each), text) for each in listed]
        script.watch(b"".join(lines), bookmark(9, ends_initial=True), HOLD)
    else:
        script.refuse_watch(refused(400))
        script.list(*listed, version=9)
        script.answers[-1] = ("list", marked(script.answers[-1][1], text))
        script.watch(HOLD)
    informer = make(script)
    with counted() as steps:
        asyncio.get_running_loop().call_soon(steps.tick)
        async with running(informer, 0):
            await informer.wait_synced()
            assert len(informer.store) == ITEMS
            assert informer.store.statistics().unreadable == len(BAD)
            assert informer.store.get(Request("n3", "prod")).decode()["status"] == CONTENT
    assert steps.all < ITEMS * 150
    assert steps.longest_turn < ITEMS * 75


@pytest.mark.parametrize("name", ["metadata", "kind"])
def test_an_object_with_many_members_is_read_in_a_bounded_number_of_steps(name: str) -> None:
    wide = {f"key-{number}": number for number in range(50_000)}
    text = msgspec.json.encode({"apiVersion": GVK.api_version, **wide, name: "x", "spec": "MARK"})
    with counted() as steps:
        assert json_members(marked(text, HOSTILE["deep"]), name) == {name: b'"x"'}
    assert steps.all < 500
