"""Breaking and harmless changes of a CustomResourceDefinition."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.objects import compare_crds
from reconciler.objects.compatibility import CRDChange

Document = dict[str, Any]

STRING = {"type": "string"}
INTEGER = {"type": "integer", "format": "int64"}


def version(name: str, fields: Document, *, required: list[str] | None = None, **others: Any) -> Document:
    spec = {"type": "object", "properties": fields} | ({"required": required} if required else {})
    schema = {"type": "object", "properties": {"spec": spec}}
    head = {"name": name, "served": True, "storage": True, "subresources": {"status": {}}}
    return {**head, "schema": {"openAPIV3Schema": schema}, **others}


def crd(*versions: Document, **spec: Any) -> Document:
    names = {"kind": "Thing", "plural": "things", "singular": "thing", "listKind": "ThingList", "shortNames": ["th"]}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.example.com"},
        "spec": {
            "group": "example.com",
            "names": names,
            "scope": "Namespaced",
            "versions": list(versions) or [version("v1", {"a": STRING})],
        }
        | spec,
    }


def field(before: Document | None, after: Document | None) -> list[CRDChange]:
    """Return the changes if only the schema of the field ``a`` changes; None for a schema without it."""
    return compare_crds(*(crd(version("v1", {} if each is None else {"a": each})) for each in (before, after)))


def rule(text: str) -> Document:
    return {"type": "string", "x-kubernetes-validations": [{"rule": text}]}


@pytest.mark.parametrize(
    ("before", "after", "what"),
    [
        (STRING, None, "field removed"),
        (STRING, INTEGER, "type changed from string to integer"),
        ({"x-kubernetes-int-or-string": True}, STRING, "type changed from integer or string to string"),
        (STRING, STRING | {"enum": ["x"]}, 'enum ["x"] added'),
        (STRING | {"enum": ["x", "y"]}, STRING | {"enum": ["x"]}, "value y removed from the enum"),
        (INTEGER, INTEGER | {"minimum": 1}, "minimum 1 added"),
        (INTEGER | {"minimum": 1}, INTEGER | {"minimum": 2}, "minimum changed from 1 to 2"),
        (INTEGER | {"maximum": 2}, INTEGER | {"maximum": 1}, "maximum changed from 2 to 1"),
        (INTEGER | {"maximum": 2}, INTEGER | {"maximum": 2, "exclusiveMaximum": True}, "exclusiveMaximum true added"),
        (STRING | {"maxLength": 9}, STRING | {"maxLength": 8}, "maxLength changed from 9 to 8"),
        (STRING | {"pattern": "a"}, STRING | {"pattern": "b"}, "pattern changed from a to b"),
        (INTEGER | {"multipleOf": 2}, INTEGER | {"multipleOf": 4}, "multipleOf changed from 2 to 4"),
        (INTEGER, {"type": "integer", "format": "int32"}, "format changed from int64 to int32"),
        (STRING | {"default": "x"}, STRING | {"default": "y"}, "default changed from x to y"),
        (STRING, STRING | {"default": "y"}, "default y added"),
        (STRING | {"default": "x"}, STRING, "default x removed"),
        (STRING | {"nullable": True}, STRING, "nullable true removed"),
        (STRING, rule("self != ''"), "rule self != '' added"),
        (
            {"type": "array", "items": STRING},
            {"type": "array", "items": STRING, "x-kubernetes-list-type": "set"},
            "x-kubernetes-list-type changed from atomic to set",
        ),
        (
            {"type": "object", "x-kubernetes-map-type": "atomic"},
            {"type": "object"},
            "x-kubernetes-map-type changed from atomic to granular",
        ),
        (
            {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            {"type": "object"},
            "unknown fields are not preserved any more",
        ),
        (
            {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "properties": {"b": INTEGER}},
            "field added",
        ),
        (
            {"type": "object", "additionalProperties": STRING},
            {"type": "object", "properties": {}},
            "other keys are not allowed any more",
        ),
        (
            {"type": "object", "properties": {"b": INTEGER}},
            {"type": "object", "additionalProperties": STRING},
            "type changed from integer to string",
        ),
        (
            {"type": "array", "items": {"type": "object", "properties": {"b": INTEGER}}},
            {"type": "array", "items": {"type": "object", "properties": {"b": INTEGER}, "required": ["b"]}},
            "required now",
        ),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_a_narrower_field_is_breaking(before: Document | None, after: Document | None, what: str) -> None:
    broken = [change for change in field(before, after) if change.breaking]
    assert [change.what for change in broken] == [what]
    assert broken[0].path.startswith("v1: spec.a")


@pytest.mark.parametrize(
    ("before", "after", "what"),
    [
        (None, STRING, "field added"),
        ({"type": "integer"}, {"type": "number"}, "type changed from integer to number"),
        (STRING, {"x-kubernetes-int-or-string": True}, "type changed from string to integer or string"),
        (STRING, {"x-kubernetes-preserve-unknown-fields": True}, "type changed from string to any"),
        (INTEGER | {"minimum": 2}, INTEGER | {"minimum": 1}, "minimum changed from 2 to 1"),
        (INTEGER | {"minimum": 2}, INTEGER, "minimum 2 removed"),
        (INTEGER | {"multipleOf": 4}, INTEGER | {"multipleOf": 2}, "multipleOf changed from 4 to 2"),
        (STRING | {"enum": ["x"]}, STRING | {"enum": ["x", "y"]}, "value y added to the enum"),
        (rule("true"), STRING, "rule true removed"),
    ],
)
def test_a_wider_field_is_harmless(before: Document | None, after: Document | None, what: str) -> None:
    changes = field(before, after)
    assert next(change.what for change in changes) == what
    assert not [change for change in changes if change.breaking]


def test_descriptions_are_not_compared() -> None:
    assert field(STRING, STRING | {"description": "A text."}) == []


@pytest.mark.parametrize("default", [{}, {"default": "x"}])
def test_a_field_that_becomes_required_is_breaking_unless_it_has_a_default(default: Document) -> None:
    schema = STRING | default
    old, new = (crd(version("v1", {"a": schema}, required=required)) for required in (None, ["a"]))
    assert [change.breaking for change in compare_crds(old, new)] == [not default]
    assert [change.breaking for change in compare_crds(new, old)] == [False]


def test_a_new_required_field_is_breaking() -> None:
    changes = compare_crds(crd(version("v1", {})), crd(version("v1", {"a": STRING}, required=["a"])))
    assert [(change.what, change.breaking) for change in changes] == [("required now", True), ("field added", False)]


def test_a_default_for_what_was_required_is_harmless() -> None:
    old, new = crd(version("v1", {"a": STRING}, required=["a"])), crd(version("v1", {"a": STRING | {"default": "x"}}))
    assert [change for change in compare_crds(old, new) if change.breaking] == []


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"group": "example.org"}, "spec.group"),
        ({"scope": "Cluster"}, "spec.scope"),
        (
            {"names": {"kind": "Thin", "plural": "things", "singular": "thing", "listKind": "ThingList"}},
            "spec.names.kind",
        ),
        (
            {"names": {"kind": "Thing", "plural": "thingies", "singular": "thing", "listKind": "ThingList"}},
            "spec.names.plural",
        ),
    ],
)
def test_other_names_are_breaking(spec: Document, path: str) -> None:
    changes = compare_crds(crd(), crd(**spec))
    assert path in [change.path for change in changes if change.breaking]


@pytest.mark.parametrize("omitted", [{}, {"singular": "", "listKind": None}])
def test_names_that_the_server_adds_may_be_omitted(omitted: Document) -> None:
    short = crd(names={"kind": "Thing", "plural": "things", "shortNames": ["th"], **omitted})
    assert compare_crds(short, crd()) == compare_crds(crd(), short) == []
    other = crd(names={"kind": "Thing", "plural": "things", "shortNames": ["th"], "singular": "it"})
    assert [change.path for change in compare_crds(short, other)] == ["spec.names.singular"]


def test_versions_that_are_removed_or_not_served_are_breaking() -> None:
    v1 = version("v1", {"a": STRING})
    beta = version("v1beta1", {"a": STRING}, storage=False)
    both = crd(v1, beta)
    (removed,) = compare_crds(both, crd(v1))
    assert (removed.path, removed.what, removed.why) == (
        "v1beta1",
        "version removed",
        "requests for this version fail",
    )
    (hidden,) = compare_crds(both, crd(v1, beta | {"served": False}))
    assert (hidden.path, hidden.breaking) == ("v1beta1", True)
    assert [change.breaking for change in compare_crds(crd(v1), both)] == [False]


def test_a_stored_version_must_stay() -> None:
    v1, beta = version("v1", {"a": STRING}), version("v1beta1", {"a": STRING}, storage=False)
    installed = crd(v1, beta) | {"status": {"storedVersions": ["v1beta1", "v1"]}}
    (removed,) = compare_crds(installed, crd(v1))
    assert removed.why == "stored objects cannot be read any more"
    moved = compare_crds(crd(v1 | {"storage": False}, beta | {"storage": True}), crd(v1, beta))
    assert [(change.path, change.what, change.breaking) for change in moved] == [
        ("v1", "is the stored version now", False)
    ]


def test_versions_that_differ_need_a_conversion() -> None:
    old = version("v1beta1", {"text": STRING}, storage=False)
    new = version("v1", {"message": STRING})
    before = crd(old | {"storage": True})
    broken = [change for change in compare_crds(before, crd(new, old)) if change.breaking]
    assert [change.what for change in broken] == [
        "missing: v1 and v1beta1 differ in spec.message",
        "missing: v1 and v1beta1 differ in spec.text",
    ]
    webhook = {"conversion": {"strategy": "Webhook", "webhook": {}}}
    assert [change for change in compare_crds(before, crd(new, old, **webhook)) if change.breaking] == []
    (gone,) = [change for change in compare_crds(crd(new, old, **webhook), crd(new, old)) if change.breaking]
    assert gone.path == "spec.conversion.strategy"
    assert compare_crds(crd(new, old), crd(new, old)) == [], "what is missing in both is not a change"


def test_a_version_with_one_more_optional_field_needs_no_conversion() -> None:
    old = version("v1beta1", {"a": STRING}, storage=False)
    new = version("v1", {"a": STRING, "b": STRING})
    changes = compare_crds(crd(old | {"storage": True}), crd(new, old))
    assert [change for change in changes if change.breaking] == []


@pytest.mark.parametrize(
    ("before", "after", "path"),
    [
        ({"status": {}}, {}, "v1: subresources.status"),
        ({}, {"status": {}}, "v1: subresources.status"),
        ({"scale": {"specReplicasPath": ".spec.a"}}, {}, "v1: subresources.scale"),
        (
            {"scale": {"specReplicasPath": ".spec.a"}},
            {"scale": {"specReplicasPath": ".spec.b"}},
            "v1: subresources.scale",
        ),
    ],
)
def test_subresources(before: Document, after: Document, path: str) -> None:
    changes = compare_crds(*(crd(version("v1", {"a": STRING}, subresources=each)) for each in (before, after)))
    assert [(change.path, change.breaking) for change in changes] == [(path, True)]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["", "object"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=4,
)
KEYWORDS = [
    "type",
    "enum",
    "minimum",
    "multipleOf",
    "required",
    "properties",
    "items",
    "additionalProperties",
    "default",
]


@given(st.dictionaries(st.sampled_from(KEYWORDS), JSON), st.dictionaries(st.sampled_from(KEYWORDS), JSON))
def test_any_documents_can_be_compared_and_equal_ones_have_no_changes(before: Document, after: Document) -> None:
    field(before, after)
    assert field(before, copy.deepcopy(before)) == []
    assert all(isinstance(change, CRDChange) for change in compare_crds(before, {"spec": after}))
