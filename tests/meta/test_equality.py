"""Equality of JSON values by meaning."""

from __future__ import annotations

import copy
import types
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.meta import equal
from reconciler.meta.documents import merge_diff, merge_patch, without_nulls

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 2), st.floats(-2, 2).map(round), st.sampled_from(["", "1"])
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("abc"), inner, max_size=3)),
    max_leaves=10,
)
documents = st.dictionaries(st.sampled_from("abc"), values, max_size=3)


def meaning(value: Any) -> Any:
    """Return a form in which Python's equality is right: a second definition of equality."""
    if isinstance(value, dict):
        return ("object", frozenset((k, meaning(v)) for k, v in value.items() if v is not None))
    if isinstance(value, list):
        return ("list", tuple(map(meaning, value)))
    if isinstance(value, bool):
        return ("bool", value)
    return ("number", value) if isinstance(value, (int, float)) else ("other", value)


@given(values, values)
def test_two_values_are_equal_when_their_meaning_is(left, right):
    assert equal(left, right) == (meaning(left) == meaning(right))
    assert equal(left, copy.deepcopy(left))
    assert equal(left, right) == equal(right, left)


@pytest.mark.parametrize(
    ("left", "right"),
    [(True, 1), (False, 0), (1, "1"), (None, False), ([1], [True]), ({"a": 1}, {"a": True}), ([], {}), ({}, None)],
)
def test_values_that_python_confuses_are_different(left, right):
    assert not equal(left, right)
    assert not equal(right, left)


@pytest.mark.parametrize(
    ("left", "right"), [(1, 1.0), ({"a": None}, {}), ([{"a": None}], [{}]), ({"a": {"b": None}}, {"a": {}})]
)
def test_values_with_the_same_meaning_are_equal(left, right):
    assert equal(left, right)
    assert equal(right, left)


def test_any_mapping_is_an_object():
    view = types.MappingProxyType({"a": 1})
    assert equal(view, {"a": 1})
    assert equal({"a": 1, "b": None}, view)
    assert equal(view, types.MappingProxyType({"a": 1.0}))
    assert not equal(view, {"a": True})


@given(documents, documents)
def test_applying_the_diff_of_two_documents_gives_the_second(old, new):
    before = copy.deepcopy((old, new))
    patch = merge_diff(old, new)
    assert equal(merge_patch(old, patch), without_nulls(new))
    assert (patch == {}) == equal(old, new)
    assert equal((old, new)[0], before[0])
    assert equal((old, new)[1], before[1])
