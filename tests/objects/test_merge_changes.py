"""Merging changes over a document: laws that hold for any document and any change."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.meta import equal
from reconciler.meta.documents import copy_json
from reconciler.objects.resource import merge_changes

KNOWN, UNKNOWN = ["a", "b", "c"], ["u1", "u2"]
scalars = st.booleans() | st.integers(-2, 2) | st.sampled_from(["x", "y"])


def json_with(keys: list[str]) -> st.SearchStrategy[Any]:
    def extend(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(keys), inner, max_size=4)

    return st.recursive(scalars, extend, max_leaves=12)


def known_part(value: Any) -> Any:
    """Return what a model that knows only `KNOWN` keeps of a document."""
    if isinstance(value, dict):
        return {key: known_part(item) for key, item in value.items() if key not in UNKNOWN}
    if isinstance(value, list):
        return [known_part(item) for item in value]
    return value


@settings(deadline=None)
@given(document=json_with(KNOWN + UNKNOWN), after=json_with(KNOWN))
def test_the_models_part_of_the_result_equals_the_model(document: Any, after: Any) -> None:
    assert equal(known_part(merge_changes(document, known_part(document), after)), after)


@settings(deadline=None)
@given(document=json_with(KNOWN + UNKNOWN))
def test_without_a_change_the_result_is_the_document(document: Any) -> None:
    result = merge_changes(document, known_part(document), known_part(document))
    assert result == document


@settings(deadline=None)
@given(document=json_with(KNOWN + UNKNOWN), after=json_with(KNOWN))
def test_unknown_members_of_objects_that_stay_objects_survive(document: Any, after: Any) -> None:
    def check(old: Any, new: Any) -> None:
        if isinstance(old, dict) and isinstance(new, dict):
            for key in old.keys() & set(UNKNOWN):
                assert new[key] == old[key]
            for key in old.keys() & new.keys():
                check(old[key], new[key])

    check(document, merge_changes(document, known_part(document), after))


@settings(deadline=None)
@given(document=json_with(KNOWN + UNKNOWN), after=json_with(KNOWN))
def test_neither_argument_is_changed_or_shared(document: Any, after: Any) -> None:
    before_document, before_after = copy_json(document), copy_json(after)
    result = merge_changes(document, known_part(document), after)
    spoil(result)
    assert document == before_document
    assert after == before_after


def spoil(value: Any) -> None:
    if isinstance(value, dict):
        for item in value.values():
            spoil(item)
        value["spoilt"] = True
    elif isinstance(value, list):
        for item in value:
            spoil(item)
        value.append("spoilt")


def test_equal_items_do_not_exchange_their_unknown_fields() -> None:
    document = [{"a": 1, "u1": 1}, {"a": 1, "u1": 2}, {"a": 2, "u1": 3}]
    assert merge_changes(document, known_part(document), [{"a": 1}, {"a": 1}]) == document[:2]


def test_a_new_item_never_inherits_from_a_removed_one() -> None:
    document = [{"a": 1, "u1": 1}, {"a": 2, "u1": 2}]
    assert merge_changes(document, known_part(document), [{"a": 3}, {"a": 1}]) == [{"a": 3}, {"a": 1, "u1": 1}]


def test_a_copy_of_an_item_does_not_copy_its_unknown_fields() -> None:
    document = [{"a": 1, "u1": 1}]
    assert merge_changes(document, known_part(document), [{"a": 2}, {"a": 1}, {"a": 1}]) == [
        {"a": 2},
        {"a": 1, "u1": 1},
        {"a": 1},
    ]


def test_a_list_whose_items_the_model_dropped_is_replaced_when_it_changes() -> None:
    assert merge_changes(["x", "x", "y"], ["x", "y"], ["y", "z"]) == ["y", "z"]
    assert merge_changes(["x", "x", "y"], ["x", "y"], ["x", "y"]) == ["x", "x", "y"]
