"""The store and its indexes."""

from __future__ import annotations

import tracemalloc
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from reconciler.cache import CachedObject, owner_uids
from reconciler.cache.handlers import unchanged
from reconciler.cache.store import WritableStore
from reconciler.meta import Request
from tests.cache.scripted import cached


@pytest.fixture
def store() -> WritableStore:
    return WritableStore()


def names(found: Any) -> list[str]:
    return sorted(obj.name for obj in found)


def colors(doc: dict[str, Any]) -> list[str]:
    return doc["spec"]["colors"]


def test_objects_are_found_by_key_and_by_namespace(store: WritableStore) -> None:
    for name, namespace in (("a", "x"), ("b", "x"), ("a", "y")):
        store.put(cached(name, 1, namespace=namespace))
    store.put(cached("cluster", 1, namespace=""))
    found = store.get(Request("a", "y"))
    assert found is not None
    assert found.namespace == "y"
    assert store.get(Request("b", "y")) is None
    assert store.get(Request("a", "z")) is None
    assert store.get(Request("cluster")) is not None
    assert names(store.list("x")) == ["a", "b"]
    assert store.list("z") == []
    assert len(store) == len(store.list()) == 4
    assert Request("a", "x") in store
    assert "a" not in store


def test_a_list_is_a_snapshot(store: WritableStore) -> None:
    store.put(cached("a", 1))
    before = store.list()
    iterator = iter(store)
    store.put(cached("b", 2))
    assert names(before) == ["a"]
    assert names(iterator) == ["a"]


async def test_what_changes_before_its_turn_is_left_out(store: WritableStore) -> None:
    for number in range(250):
        store.put(cached(f"o-{number:03d}", number))
    found = []
    async for obj in unchanged(store):
        found.append(obj.name)
        if obj.name == "o-120":
            store.put(cached("o-200", 300))
            store.discard(cached("o-201", 1).request)
    assert sorted({f"o-{number:03d}" for number in range(250)} - set(found)) == ["o-200", "o-201"]


def test_an_index_has_many_values_for_one_object(store: WritableStore) -> None:
    store.add_index("color", colors)
    store.put(cached("a", 1, spec={"colors": ["red", "blue", "red"]}))
    store.put(cached("b", 2, spec={"colors": ["blue"]}))
    store.put(cached("c", 3, spec={"colors": []}))
    assert names(store.by_index("color", "blue")) == ["a", "b"]
    assert names(store.by_index("color", "red")) == ["a"]
    assert store.by_index("color", "green") == []


def test_an_index_follows_changes_and_deletions(store: WritableStore) -> None:
    store.add_index("color", colors)
    store.put(cached("a", 1, spec={"colors": ["red"]}))
    store.put(cached("a", 2, spec={"colors": ["blue"]}))
    assert store.by_index("color", "red") == []
    assert [obj.version for obj in store.by_index("color", "blue")] == [2]
    store.discard(Request("a", "prod"))
    assert store.by_index("color", "blue") == []
    assert store.statistics().indexes == {"color": 0}


def test_an_index_may_be_added_later(store: WritableStore) -> None:
    store.put(cached("a", 1, spec={"colors": ["red"]}))
    store.add_index("color", colors)
    assert names(store.by_index("color", "red")) == ["a"]


def test_a_failing_index_is_counted_and_the_object_is_stored(store: WritableStore) -> None:
    store.add_index("color", colors)
    store.put(cached("a", 1))
    assert store.get(Request("a", "prod")) is not None
    assert store.statistics().index_errors == 1


def test_a_single_string_is_one_value(store: WritableStore) -> None:
    store.add_index("name", lambda doc: doc["metadata"]["name"])
    store.put(cached("abc", 1))
    assert names(store.by_index("name", "abc")) == ["abc"]


def test_owners_are_indexed_without_decoding(store: WritableStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CachedObject, "decode", None)
    store.add_object_index("owner", owner_uids)
    owner = {"apiVersion": "v1", "kind": "K", "name": "o"}
    store.put(cached("a", 1, metadata={"ownerReferences": [owner | {"uid": "1"}, owner | {"uid": "2"}]}))
    assert names(store.by_index("owner", "1")) == names(store.by_index("owner", "2")) == ["a"]


def test_unknown_and_duplicate_indexes_are_errors(store: WritableStore) -> None:
    store.add_index("color", colors)
    with pytest.raises(ValueError, match=r"no index 'size'.*existing: color"):
        store.by_index("size", "1")
    with pytest.raises(ValueError, match="index 'color' already exists"):
        store.add_index("color", colors)


def test_statistics_count_objects_and_bytes(store: WritableStore) -> None:
    first, second, other = cached("a", 1), cached("a", 2, spec={"x": "y" * 100}), cached("b", 3)
    for obj in (first, second, other):
        store.put(obj)
    store.discard(other.request)
    store.discard(other.request)
    assert (store.statistics().objects, store.statistics().bytes) == (1, len(second.data))


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.sampled_from(["x", "y", ""]),
            st.none() | st.lists(st.sampled_from("rgb"), max_size=3),
        )
    )
)
def test_store_and_index_behave_like_a_plain_dict(steps: list[tuple[str, str, list[str] | None]]) -> None:
    store = WritableStore()
    store.add_index("color", colors)
    model: dict[Request, list[str]] = {}
    for number, (name, namespace, values) in enumerate(steps):
        request = Request(name, namespace or None)
        if values is None:
            store.discard(request)
            model.pop(request, None)
        else:
            store.put(cached(name, number, namespace=namespace, spec={"colors": values}))
            model[request] = values
    assert {obj.request for obj in store} == set(model)
    assert len(store) == len(model)
    assert store.statistics().bytes == sum(len(obj.data) for obj in store)
    inverse: defaultdict[str, set[Request]] = defaultdict(set)
    for request, values in model.items():
        for value in values:
            inverse[value].add(request)
    assert {value: {obj.request for obj in store.by_index("color", value)} for value in inverse} == inverse
    assert store.statistics().indexes == {"color": len(inverse)}


def test_objects_that_come_and_go_leave_no_memory_behind() -> None:
    store = WritableStore(lambda _: cached("a", 1))  # one that compresses
    tracemalloc.start()
    try:
        for number in range(10_000):
            # Not decoded with it: the interpreter keeps a table of the namespaces that were decoded.
            job = replace(cached(f"job-{number}", number), request=Request(f"job-{number}", f"run-{number}"))
            store.put(job)
            store.discard(job.request)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(store) == 0
    assert taken < 400_000  # the decoder keeps the labels of 1,024 objects
