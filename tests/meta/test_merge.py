"""RFC 7386 merge patches, and the laws that connect patch, diff and equality."""

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.meta import equal
from reconciler.meta.documents import merge_diff, merge_patch, without_nulls

keys = st.sampled_from(["a", "b", "c"])
scalars = st.none() | st.booleans() | st.integers(-1, 2) | st.sampled_from([0.0, 1.0, 0.5, "", "0", "1", "x"])


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3)


documents = st.recursive(scalars, containers, max_leaves=10)
objects = st.dictionaries(keys, documents, max_size=3)


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_the_cases_of_rfc_7386(target: Any, patch: Any, result: Any) -> None:
    assert merge_patch(target, patch) == result


@settings(deadline=None)
@given(target=documents, patch=documents)
def test_a_patch_changes_neither_argument(target: Any, patch: Any) -> None:
    before = copy.deepcopy((target, patch))
    merge_patch(target, patch)
    assert (target, patch) == before


@settings(deadline=None)
@given(target=documents, patch=documents)
def test_a_patch_applied_twice_is_a_patch_applied_once(target: Any, patch: Any) -> None:
    once = merge_patch(target, patch)
    assert merge_patch(once, patch) == once


@settings(deadline=None)
@given(old=objects, new=objects)
def test_the_diff_turns_old_into_new(old: Any, new: Any) -> None:
    assert equal(merge_patch(old, merge_diff(old, new)), new)


@settings(deadline=None)
@given(old=objects, new=objects)
def test_the_diff_is_empty_exactly_when_both_mean_the_same(old: Any, new: Any) -> None:
    assert (merge_diff(old, new) == {}) is equal(old, new)


@settings(deadline=None)
@given(old=objects, new=objects)
def test_the_diff_contains_only_changes(old: Any, new: Any) -> None:
    patch = merge_diff(old, new)
    for key in patch:
        rest = {k: v for k, v in patch.items() if k != key}
        assert not equal(merge_patch(old, rest), new)


@settings(deadline=None)
@given(old=objects, new=objects)
def test_the_diff_contains_nulls_only_for_deletions(old: Any, new: Any) -> None:
    def check(patch: Any, before: Any) -> None:
        for key, value in patch.items():
            known = before.get(key) if isinstance(before, dict) else None
            if value is None:
                assert known is not None
            elif isinstance(value, dict) and isinstance(known, dict):
                check(value, known)
            else:
                assert equal(value, without_nulls(value))
                assert value == without_nulls(value)

    check(merge_diff(old, new), old)


def test_the_diff_is_in_the_order_of_the_new_document() -> None:
    old = dict.fromkeys("hgfedcba", 1)
    new = dict.fromkeys("xaebyc", 2)
    assert list(merge_diff(old, new)) == list("xaebychgfd")


def test_the_diff_descends_into_objects_and_replaces_whole_lists() -> None:
    old = {"spec": {"size": 1, "keep": True}, "list": [{"a": 1}, {"a": 2}], "gone": 1}
    new = {"spec": {"size": 2, "keep": True}, "list": [{"a": 1}, {"a": 3, "n": None}]}
    assert merge_diff(old, new) == {"spec": {"size": 2}, "list": [{"a": 1}, {"a": 3}], "gone": None}


@pytest.mark.parametrize(("old", "new"), [(1, True), (0, False), (1, "1"), ("", None)])
def test_a_field_changed_to_another_type_is_written(old: Any, new: Any) -> None:
    assert merge_diff({"a": old}, {"a": new}) == {"a": new}


def test_a_field_that_means_the_same_is_not_written() -> None:
    assert merge_diff({"a": 1, "b": [{"c": None}]}, {"a": 1.0, "b": [{}], "d": None}) == {}


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (1, 1.0),
        ({"a": None}, {}),
        ({"a": {"b": None}}, {"a": {}}),
        ([{"a": None}], [{}]),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    ],
)
def test_equal_values(left: Any, right: Any) -> None:
    assert equal(left, right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (True, 1),
        (False, 0),
        (True, 1.0),
        (1, "1"),
        (None, {}),
        (None, False),
        ({"a": None}, {"a": 0}),
        ({"a": {}}, {}),
        ([None], []),
        ([1, 2], [2, 1]),
        ([True], [1]),
        ({}, []),
        ("", None),
    ],
)
def test_different_values(left: Any, right: Any) -> None:
    assert not equal(left, right)
    assert not equal(right, left)


@settings(deadline=None)
@given(value=documents)
def test_equality_is_reflexive_also_over_a_copy(value: Any) -> None:
    assert equal(value, copy.deepcopy(value))


@settings(deadline=None)
@given(left=documents, right=documents)
def test_equality_is_symmetric(left: Any, right: Any) -> None:
    assert equal(left, right) is equal(right, left)


@settings(deadline=None)
@given(one=documents, two=documents, three=documents)
def test_equality_is_transitive(one: Any, two: Any, three: Any) -> None:
    if equal(one, two) and equal(two, three):
        assert equal(one, three)


@settings(deadline=None)
@given(value=documents)
def test_without_nulls_keeps_the_meaning_and_is_idempotent(value: Any) -> None:
    bare = without_nulls(value)
    assert equal(bare, value)
    assert without_nulls(bare) == bare


def test_nulls_that_are_items_are_kept_and_those_inside_items_are_removed() -> None:
    assert without_nulls([None, {"e": None}]) == [None, {}]
