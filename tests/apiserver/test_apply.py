"""Server-side apply: what is merged, who owns what, and what conflicts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.apiserver.builtin.kinds import place_of
from reconciler.apiserver.managed_fields import compare, difference, fields_of, intersection, paths, union
from reconciler.apiserver.schema import compile_schema
from tests.apiserver.api import CONFIG_MAPS, WIDGETS, Api, widget

pytestmark = pytest.mark.virtual_time


def owners(reply: Any) -> dict[str, Any]:
    return {
        f"{entry['manager']} {entry['operation']}{' ' + entry['subresource'] if 'subresource' in entry else ''}": entry[
            "fieldsV1"
        ]
        for entry in reply["metadata"].get("managedFields", [])
    }


async def test_an_apply_creates_and_then_merges(api: Api) -> None:
    made = await api.apply(f"{WIDGETS}/a", widget("a", size=2, tags=["x"], items=[{"k": "a", "v": 1}], nest={"a": "q"}))
    assert made.status == 201
    assert owners(made) == {
        "one Apply": {
            "f:spec": {
                "f:items": {'k:{"k":"a"}': {".": {}, "f:k": {}, "f:v": {}}},
                "f:nest": {"f:a": {}},
                "f:size": {},
                "f:tags": {'v:"x"': {}},
            }
        }
    }
    other = await api.apply(f"{WIDGETS}/a", widget("a", tags=["y"], items=[{"k": "b"}]), "two")
    assert other["spec"]["tags"] == ["x", "y"]
    assert other["spec"]["items"] == [{"k": "a", "v": 1}, {"k": "b", "v": 7}]
    assert owners(other)["two Apply"]["f:spec"]["f:items"] == {'k:{"k":"b"}': {".": {}, "f:k": {}}}


async def test_the_same_apply_again_changes_nothing(api: Api) -> None:
    made = await api.apply(f"{WIDGETS}/a", widget("a", size=2))
    again = await api.apply(f"{WIDGETS}/a", widget("a", size=2))
    assert again.body == made.body


async def test_an_omitted_field_is_removed_unless_another_manager_owns_it(api: Api) -> None:
    await api.apply(f"{WIDGETS}/a", widget("a", meta={"labels": {"l": "1"}}, size=2, tags=["x"], nest={"a": "q"}))
    await api.apply(f"{WIDGETS}/a", widget("a", size=2, tags=["y"]), "two")
    left = await api.apply(f"{WIDGETS}/a", widget("a", code="ab"))
    assert left["spec"] == {"size": 2, "tags": ["y"], "code": "ab"}
    assert "labels" not in left["metadata"]
    nothing = await api.apply(f"{WIDGETS}/a", {key: value for key, value in widget("a").items() if key != "spec"})
    assert nothing["spec"] == {"size": 2, "tags": ["y"]}
    assert list(owners(nothing)) == ["two Apply"]


async def test_a_conflict_names_managers_and_fields(api: Api) -> None:
    await api.apply(f"{WIDGETS}/a", widget("a", size=2, items=[{"k": "a", "v": 1}]))
    one = await api.apply(f"{WIDGETS}/a", widget("a", size=3), "two")
    assert (one.status, one["reason"]) == (409, "Conflict")
    assert one["message"] == 'Apply failed with 1 conflict: conflict with "one": .spec.size'
    assert one["details"]["causes"] == [
        {"reason": "FieldManagerConflict", "message": 'conflict with "one"', "field": ".spec.size"}
    ]
    two = await api.apply(f"{WIDGETS}/a", widget("a", size=3, items=[{"k": "a", "v": 2}]), "two")
    assert two["message"] == (
        'Apply failed with 2 conflicts: conflicts with "one":\n- .spec.size\n- .spec.items[k="a"].v'
    )


async def test_force_takes_ownership_of_the_field(api: Api) -> None:
    await api.apply(f"{WIDGETS}/a", widget("a", size=2, code="ab"))
    forced = await api.apply(f"{WIDGETS}/a", widget("a", size=3), "two", force="true")
    assert forced["spec"] == {"size": 3, "code": "ab"}
    assert owners(forced) == {"one Apply": {"f:spec": {"f:code": {}}}, "two Apply": {"f:spec": {"f:size": {}}}}


async def test_the_same_value_is_owned_by_both(api: Api) -> None:
    await api.apply(f"{WIDGETS}/a", widget("a", size=2))
    shared = await api.apply(f"{WIDGETS}/a", widget("a", size=2), "two")
    assert owners(shared) == {"one Apply": {"f:spec": {"f:size": {}}}, "two Apply": {"f:spec": {"f:size": {}}}}
    kept = await api.apply(f"{WIDGETS}/a", widget("a", code="ab"))
    assert kept["spec"]["size"] == 2


async def test_updates_own_what_they_change(api: Api) -> None:
    await api.apply(f"{WIDGETS}/a", widget("a", size=2))
    changed = await api.patch(f"{WIDGETS}/a", {"spec": {"size": 7, "map": {"z": 1}}}, agent="kubectl/1.36")
    assert owners(changed) == {"kubectl Update": {"f:spec": {"f:map": {".": {}, "f:z": {}}, "f:size": {}}}}
    refused = await api.apply(f"{WIDGETS}/a", widget("a", size=8))
    assert refused["message"] == (
        'Apply failed with 1 conflict: conflict with "kubectl" using example.com/v1: .spec.size'
    )
    named = await api.patch(f"{WIDGETS}/a", {"spec": {"code": "ab"}}, fieldManager="me")
    assert owners(named)["me Update"] == {"f:spec": {"f:code": {}}}


async def test_status_is_owned_separately(api: Api) -> None:
    await api.apply(f"{WIDGETS}/a", widget("a", size=2))
    body = {**widget("a", size=9), "status": {"phase": "P"}}
    applied = await api.apply(f"{WIDGETS}/a/status", body)
    assert (applied["spec"], applied["status"]) == ({"size": 2}, {"phase": "P"})
    assert owners(applied) == {
        "one Apply": {"f:spec": {"f:size": {}}},
        "one Apply status": {"f:status": {"f:phase": {}}},
    }
    await api.patch(f"{WIDGETS}/a/status", {"status": {"n": 1}}, fieldManager="up")
    refused = await api.apply(f"{WIDGETS}/a/status", {**widget("a"), "status": {"n": 2}}, "three")
    assert 'conflict with "up" with subresource "status" using example.com/v1: .status.n' in refused["message"]
    assert (await api.apply(f"{WIDGETS}/zz/status", {**widget("zz"), "status": {}})).status == 404


async def test_a_stale_version_and_a_wrong_uid_conflict(api: Api) -> None:
    made = await api.apply(f"{WIDGETS}/a", widget("a", size=2))
    await api.apply(f"{WIDGETS}/a", widget("a", size=3))
    stale = await api.apply(f"{WIDGETS}/a", widget("a", meta={"resourceVersion": made.version}, size=4))
    assert "the object has been modified" in stale["message"]
    absent = await api.apply(f"{WIDGETS}/b", widget("b", meta={"uid": "x"}))
    assert "uid mismatch: the provided object specified uid x, and no existing object was found" in absent["message"]


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"foo": 1}, ".spec.foo: field not declared in schema"),
        ({"size": "x"}, ".spec.size: expected numeric (int or float), got string"),
        ({"tags": ["a", "a"]}, '.spec.tags: duplicate entries for key [="a"]'),
        ({"items": [{"k": "a"}, {"k": "a"}]}, '.spec.items: duplicate entries for key [k="a"]'),
        ({"items": [{"v": 1}]}, ".spec.items: element 0: associative list with keys has an element that omits all key"),
        ({"nest": 1}, ".spec.nest: expected map, got &{1}"),
    ],
)
async def test_a_configuration_that_violates_the_schema_is_a_server_error(
    api: Api, spec: dict[str, Any], says: str
) -> None:
    reply = await api.apply(f"{WIDGETS}/a", widget("a", **spec))
    assert reply.status == 500
    prefix = "failed to create typed patch object (/a; example.com/v1, Kind=Widget): "
    assert reply["message"].startswith(prefix + says)


async def test_invalid_configurations(api: Api) -> None:
    no_manager = await api.call("PATCH", f"{WIDGETS}/a", widget("a"), type="application/apply-patch+yaml")
    assert no_manager["message"].endswith("fieldManager: Required value: is required for apply patch")
    assert (await api.apply(f"{WIDGETS}/a", b""))["message"] == "invalid object type: /, Kind="
    held = await api.apply(f"{WIDGETS}/a", widget("a", meta={"managedFields": []}))
    assert held["message"] == "metadata.managedFields must be nil"
    renamed = await api.apply(f"{WIDGETS}/a", widget("b"))
    assert renamed["message"] == "the name of the object (b) does not match the name on the URL (a)"


async def test_yaml_is_applied(api: Api) -> None:
    made = await api.apply(f"{WIDGETS}/a", b"apiVersion: example.com/v1\nkind: Widget\nspec: {size: 4}\n")
    assert made["spec"] == {"size": 4}


async def test_ownership_can_be_reset_and_restarts_with_the_next_apply(api: Api) -> None:
    await api.apply(f"{WIDGETS}/a", widget("a", size=2))
    reset = await api.patch(f"{WIDGETS}/a", {"metadata": {"managedFields": [{}]}})
    assert "managedFields" not in reset["metadata"]
    ignored = await api.patch(f"{WIDGETS}/a", {"spec": {"size": 3}})
    assert "managedFields" not in ignored["metadata"]
    refused = await api.apply(f"{WIDGETS}/a", widget("a", size=9))
    assert 'conflict with "before-first-apply" using example.com/v1: .spec.size' in refused["message"]


async def test_a_value_that_becomes_empty_becomes_null_which_a_schema_may_refuse(api: Api) -> None:
    await api.apply(f"{WIDGETS}/a", widget("a", size=2))
    await api.apply(f"{WIDGETS}/a/status", {**widget("a"), "status": {"phase": "P"}})
    refused = await api.apply(f"{WIDGETS}/a/status", {**widget("a"), "status": {}})
    assert refused.causes == [("status", 'Invalid value: "null":  in body must be of type object: "null"')]


async def test_built_in_kinds_merge_by_their_types(api: Api) -> None:
    place = f"{CONFIG_MAPS}/a"
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"x": "1"}}
    made = await api.apply(place, body)
    assert owners(made) == {"one Apply": {"f:data": {"f:x": {}}}}
    merged = await api.apply(place, {**body, "data": {"y": "2"}}, "two")
    assert merged["data"] == {"x": "1", "y": "2"}
    unknown = await api.apply(place, {**body, "foo": 1})
    assert unknown["message"].endswith("(/a; /v1, Kind=ConfigMap): .foo: field not declared in schema")


async def test_updaters_are_bounded(api: Api) -> None:
    await api.make("a")
    for index in range(15):
        reply = await api.patch(f"{WIDGETS}/a", {"spec": {"map": {f"k{index}": 1}}}, fieldManager=f"m{index:02}")
    entries = reply["metadata"]["managedFields"]
    assert len(entries) == 10
    assert any(entry["manager"] == "ancient-changes" for entry in entries)


# the algebra of field sets

_names = st.sampled_from(["f:a", "f:b", "f:c"])
_sets = st.recursive(
    st.just({}),
    lambda inner: st.dictionaries(_names, inner, min_size=1, max_size=3).flatmap(
        lambda found: st.booleans().map(lambda member: {".": {}, **found} if member else found)
    ),
    max_leaves=12,
)
_roots = st.dictionaries(_names, _sets, max_size=3)


@given(_roots, _roots)
@settings(deadline=None)
def test_field_sets_behave_like_sets_of_paths(one: dict[str, Any], other: dict[str, Any]) -> None:
    left, right = set(paths(one)), set(paths(other))
    assert set(paths(union(one, other))) == left | right
    assert set(paths(difference(one, other))) == left - right
    assert set(paths(intersection(one, other))) == left & right


_place = place_of(
    compile_schema(
        {
            "type": "object",
            "properties": {
                "m": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "s": {"type": "array", "items": {"type": "integer"}, "x-kubernetes-list-type": "set"},
                "l": {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["k"],
                    "items": {"type": "object", "properties": {"k": {"type": "integer"}, "v": {"type": "integer"}}},
                },
            },
        }
    )
)
_numbers = st.integers(0, 3)
_values = st.recursive(_numbers, lambda inner: st.dictionaries(st.sampled_from("xyz"), inner, max_size=3), max_leaves=6)
_documents = st.fixed_dictionaries(
    {},
    optional={
        "m": st.dictionaries(st.sampled_from("xyz"), _values, max_size=3),
        "s": st.lists(_numbers, unique=True, max_size=4),
        "l": st.lists(
            st.fixed_dictionaries({"k": _numbers}, optional={"v": _numbers}),
            unique_by=lambda item: item["k"],
            max_size=4,
        ),
    },
)


@given(_documents, _documents)
@settings(deadline=None)
def test_a_comparison_finds_exactly_the_differences(before: dict[str, Any], after: dict[str, Any]) -> None:
    changed, removed = compare(before, after, _place)
    had, has = set(paths(fields_of(before, _place, whole=True))), set(paths(fields_of(after, _place, whole=True)))
    assert has - had <= set(paths(changed)) <= has
    assert had - has <= set(paths(removed)) <= had
    assert (not changed and not removed) == (_unordered(before) == _unordered(after))


def _unordered(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document with its keyed lists sorted, because nobody owns their order."""
    return {key: sorted(value, key=str) if key in ("s", "l") else value for key, value in document.items()}
