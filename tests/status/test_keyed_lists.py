"""Keyed lists: what each append and upsert costs, and that an index finds what a search would."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.status import StatusBatcher
from reconciler.status.mutations import Append, ApplyStatistics, Upsert, apply_all, item_key, same_key
from tests.depth import examples
from tests.status.scripted import ScriptedServer

pytestmark = pytest.mark.virtual_time

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([0.0, 1.0, 1.5, "", "1", "a"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=4,
)
items = st.dictionaries(st.sampled_from(["id", "of"]), json_values, max_size=2)


@settings(deadline=None, max_examples=examples(500))
@given(items | st.just(1), items)
def test_keys_are_equal_as_json_is(left: Any, right: dict[str, Any]) -> None:
    key = ("id", "of")
    assert (item_key(left, key) == item_key(right, key)) == same_key(left, right, key)


class Searching:
    """A model of appends and upserts that searches the list."""

    def __init__(self, items: list[dict[str, Any]]) -> None:
        self.items = items

    def append(self, item: dict[str, Any], keep_last: int | None, key: tuple[str, ...] | None) -> None:
        if key is None or not any(same_key(each, item, key) for each in self.items):
            self.items = [*self.items, item][-(keep_last or 100) :]

    def upsert(self, item: dict[str, Any], key: tuple[str, ...]) -> None:
        for position, each in enumerate(self.items):
            if same_key(each, item, key):
                self.items[position] = item
                return
        self.items.append(item)


numbered = st.fixed_dictionaries({"id": st.integers(0, 5), "of": st.integers(0, 2)})


@settings(deadline=None, max_examples=examples(500))
@given(
    st.lists(numbered, max_size=6),
    st.lists(
        st.tuples(
            st.sampled_from(["append", "upsert"]),
            numbered,
            st.sampled_from([None, 2, 4]),
            st.sampled_from([None, ("id",), ("id", "of")]),
        ),
        max_size=12,
    ),
)
def test_an_index_finds_what_a_search_would(start: list[dict[str, Any]], steps: list[Any]) -> None:
    expected = Searching(list(start))
    mutations: list[Any] = []
    for verb, item, keep_last, key in steps:
        if verb == "append":
            mutations.append(Append(("log",), item, keep_last, key))
            expected.append(item, keep_last, key)
        else:
            mutations.append(Upsert(("log",), item, key or ("id",)))
            expected.upsert(item, key or ("id",))
    found, _ = apply_all(mutations, {"log": start})
    assert found["log"] == expected.items


def test_a_mutation_that_fails_changes_nothing() -> None:
    status = {"log": [{"id": 1}], "dropped": "text"}
    with pytest.raises(TypeError):
        Append(("log",), {"id": 2}, 1, ("id",), ("dropped",)).apply(status, ApplyStatistics())
    assert status == {"log": [{"id": 1}], "dropped": "text"}


async def calls_of(size: int, strategy: str, verb: str, keep_last: int | None) -> int:
    """Return the calls of functions in a block that adds as many items to a keyed list as it has."""
    start = [{"id": f"old-{number}", "text": "x"} for number in range(size)]
    server = ScriptedServer({"log": start})
    document = server.document()
    owned = {f'k:{{"id":"{item["id"]}"}}': {".": {}, "f:id": {}, "f:text": {}} for item in start}
    entry = {"manager": "kube-reconciler", "operation": "Apply", "fieldsV1": {"f:status": {"f:log": owned}}}
    document["metadata"]["managedFields"] = [entry]
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    async with StatusBatcher(server.writer(), document, strategy=strategy) as status:
        sys.setprofile(count)
        for number in range(size):
            item = {"id": f"new-{number}", "text": "y"}
            if verb == "append":
                status.append("log", item, key="id", keep_last=keep_last)
            else:
                status.upsert("log", item, key="id")
        await status.flush()
        sys.setprofile(None)
    assert len(server.status["log"]) == (keep_last or 2 * size)
    return calls


@pytest.mark.parametrize(
    ("strategy", "verb", "bounded"),
    [
        ("merge", "append", False),
        ("merge", "append", True),
        ("merge", "upsert", False),
        ("update", "append", False),
        ("apply", "append", False),
    ],
)
async def test_items_of_a_keyed_list_cost_the_same_whatever_its_length(strategy, verb, bounded) -> None:
    few, many = [await calls_of(size, strategy, verb, size if bounded else None) for size in (50, 500)]
    assert many < 11 * few
