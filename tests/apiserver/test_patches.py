"""JSON merge patches, JSON patches and strategic merge patches."""

from __future__ import annotations

import copy
from typing import Any

import jsonpatch
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.apiserver.builtin.kinds import built_in_node, place_of
from reconciler.apiserver.encoding.json_documents import merge_patch
from reconciler.apiserver.verbs.patches import PatchFailed, json_patch, strategic_merge

_json = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text("ab", max_size=2),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "c/d", "e~f"]), inner, max_size=3)
    ),
    max_leaves=12,
)
_objects = st.dictionaries(st.sampled_from(["a", "b", "c/d", "e~f"]), _json, max_size=4)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(member) for key, member in value.items() if member is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _rfc(target: Any, patch: Any) -> Any:
    """Return the result of a merge patch by the algorithm of RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _rfc(result.get(key), value)
    return result


@given(_objects.map(_without_nulls), _objects)
@settings(deadline=None)
def test_a_merge_patch_is_rfc_7386_with_nulls_stripped_inside_lists(
    target: dict[str, Any], patch: dict[str, Any]
) -> None:
    untouched = copy.deepcopy(target)
    assert merge_patch(target, patch) == _without_nulls(_rfc(target, patch))
    assert target == untouched


def test_a_merge_patch_shares_unchanged_parts() -> None:
    target = {"a": {"x": 1}, "b": {"y": 2}}
    assert merge_patch(target, {"b": {"y": 3}})["a"] is target["a"]


@given(_objects, _objects)
@settings(deadline=None)
def test_a_json_patch_turns_one_document_into_the_other(one: dict[str, Any], other: dict[str, Any]) -> None:
    operations = jsonpatch.make_patch(one, other).patch
    untouched = copy.deepcopy(one)
    assert json_patch(one, operations) == other
    assert one == untouched


@pytest.mark.parametrize(
    ("operations", "result"),
    [
        ([{"op": "add", "path": "/l/-", "value": 9}], {"l": [1, 2, 9], "m": {"x": 1}}),
        ([{"op": "add", "path": "/l/0", "value": 9}], {"l": [9, 1, 2], "m": {"x": 1}}),
        ([{"op": "replace", "path": "/m/new", "value": 9}], {"l": [1, 2], "m": {"x": 1, "new": 9}}),
        ([{"op": "move", "from": "/m/x", "path": "/y"}], {"l": [1, 2], "m": {}, "y": 1}),
        ([{"op": "copy", "from": "/l/0", "path": "/m/z"}], {"l": [1, 2], "m": {"x": 1, "z": 1}}),
        ([{"op": "test", "path": "/m/x", "value": 1.0}], {"l": [1, 2], "m": {"x": 1}}),
        ([{"op": "test", "path": "/nowhere", "value": None}], {"l": [1, 2], "m": {"x": 1}}),
        ([{"op": "remove", "path": "/l/1"}], {"l": [1], "m": {"x": 1}}),
    ],
)
def test_operations_of_json_patches(operations: list[dict[str, Any]], result: Any) -> None:
    assert json_patch({"l": [1, 2], "m": {"x": 1}}, operations) == result


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "remove", "path": "/nowhere"},
        {"op": "add", "path": "/nowhere/deep", "value": 1},
        {"op": "add", "path": "/l/5", "value": 1},
        {"op": "add", "path": "/l/01", "value": 1},
        {"op": "replace", "path": "/l/-", "value": 1},
        {"op": "test", "path": "/l/0", "value": True},
        {"op": "frob", "path": "/l"},
        {"op": "remove", "path": ""},
        {"op": "add", "path": "l", "value": 1},
        {"op": "add", "value": 1},
        {"op": "move", "from": "/nowhere", "path": "/x"},
        "x",
    ],
)
def test_operations_that_cannot_be_applied(operation: Any) -> None:
    with pytest.raises(PatchFailed):
        json_patch({"l": [1]}, [operation])


_place = place_of(built_in_node("apps", "v1", "Deployment"))


def _pods(*containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {"spec": {"template": {"spec": {"containers": list(containers), **spec}}}}


def _names(doc: dict[str, Any]) -> list[str]:
    return [item["name"] for item in doc["spec"]["template"]["spec"]["containers"]]


def test_a_strategic_patch_merges_containers_by_name() -> None:
    before = _pods({"name": "a", "image": "1"}, {"name": "b", "image": "1"})
    after = strategic_merge(before, _pods({"name": "b", "image": "2"}), _place)
    assert after == _pods({"name": "a", "image": "1"}, {"name": "b", "image": "2"})


def test_a_new_item_of_a_strategic_patch_comes_first() -> None:
    after = strategic_merge(_pods({"name": "a"}, {"name": "b"}), _pods({"name": "new"}), _place)
    assert _names(after) == ["new", "a", "b"]


def test_the_order_of_items_can_be_given() -> None:
    patch = _pods({"name": "c"}, **{"$setElementOrder/containers": [{"name": "b"}, {"name": "c"}, {"name": "a"}]})
    assert _names(strategic_merge(_pods({"name": "a"}, {"name": "b"}), patch, _place)) == ["b", "c", "a"]


def test_items_are_deleted_and_lists_replaced_by_directives() -> None:
    before = _pods({"name": "a"}, {"name": "b"})
    assert _names(strategic_merge(before, _pods({"name": "a", "$patch": "delete"}), _place)) == ["b"]
    assert _names(strategic_merge(before, _pods({"$patch": "replace"}, {"name": "z"}), _place)) == ["z"]


def test_lists_without_a_key_are_replaced_and_primitive_ones_merged() -> None:
    before = {"metadata": {"finalizers": ["a/a", "b/b"]}, "spec": {"selector": {"matchLabels": {"x": "1"}}}}
    joined = strategic_merge(before, {"metadata": {"finalizers": ["c/c"]}}, _place)
    assert joined["metadata"]["finalizers"] == ["c/c", "a/a", "b/b"]
    less = strategic_merge(before, {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a/a"]}}, _place)
    assert less["metadata"]["finalizers"] == ["b/b"]
    command = strategic_merge(
        _pods({"name": "a", "command": ["x", "y"]}), _pods({"name": "a", "command": ["z"]}), _place
    )
    assert command["spec"]["template"]["spec"]["containers"][0]["command"] == ["z"]


def test_maps_are_replaced_and_emptied_by_directives() -> None:
    before = {"metadata": {"labels": {"a": "1", "b": "2"}}}
    assert strategic_merge(before, {"metadata": {"labels": {"$patch": "replace", "c": "3"}}}, _place) == {
        "metadata": {"labels": {"c": "3"}}
    }
    assert strategic_merge(before, {"metadata": {"labels": {"$retainKeys": ["b"]}}}, _place) == {
        "metadata": {"labels": {"b": "2"}}
    }
    assert strategic_merge(before, {"metadata": {"labels": None}}, _place) == {"metadata": {}}
