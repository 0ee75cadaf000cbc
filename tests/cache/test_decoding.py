"""Decoding of bytes into cached objects."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import tracemalloc
import weakref
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler._core.wire import json_elements, json_members
from reconciler.cache import CachedObject, CacheEvent, EventType
from reconciler.cache.decoding import WireReader, cached_object, decode_line, decode_list, split_list
from reconciler.cache.store import CachedOwner
from reconciler.http import LineSplitter
from reconciler.meta import Request
from reconciler.objects import InvalidObject
from tests.cache.scripted import GVK, cached, document

MANAGED = [{"manager": "m", "operation": "Apply", "fieldsV1": {"f:spec": {".": {}, 'k:{"a":"b"}': {}}}}]


def raw(doc: dict[str, Any]) -> bytes:
    return msgspec.json.encode(doc)


def read(doc: dict[str, Any], **options: Any) -> CachedObject:
    found = WireReader(GVK, **options).read(raw(doc))
    assert found is not None
    return found


@settings(deadline=None)
@given(st.lists(st.text("ab\n", max_size=12)), st.integers(1, 7))
def test_lines_survive_any_chunking(lines: list[str], size: int) -> None:
    stream = "".join(f"{line}\n" for line in lines).encode()
    splitter = LineSplitter()
    found = [line for at in range(0, len(stream), size) for line in splitter.feed(stream[at : at + size])]
    assert found == [line for line in stream.split(b"\n") if line]


def test_a_long_line_costs_no_more_in_small_chunks() -> None:
    splitter = LineSplitter()
    for _ in range(20_000):
        assert splitter.feed(b"x" * 1000) == []
    assert [len(line) for line in splitter.feed(b"\n")] == [20_000_000]


def test_the_fields_that_keys_and_predicates_need_are_read() -> None:
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d", "uid": "u1", "controller": True}
    metadata = {
        "generation": 4,
        "labels": {"app": "web"},
        "annotations": {"note": "x"},
        "finalizers": ["example.com/f"],
        "ownerReferences": [owner],
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "deletionTimestamp": "2026-01-02T00:00:00Z",
    }
    found = cached("a", 7, metadata=metadata)
    assert found.request == Request("a", "prod")
    assert (found.name, found.namespace, found.uid, found.version, found.generation) == ("a", "prod", "uid-a", 7, 4)
    assert found.labels == {"app": "web"}
    assert found.annotations == {"note": "x"}
    assert found.finalizers == ("example.com/f",)
    assert found.owner_references == (CachedOwner("apps/v1", "Deployment", "d", "u1", True),)
    assert found.controller is not None
    assert (found.controller.group, found.controller.kind) == ("apps", "Deployment")
    assert (found.creation_timestamp, found.deletion_timestamp) == ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z")


def test_absent_fields_read_as_empty() -> None:
    found = cached("a", "opaque", namespace="")
    assert found.namespace is None
    assert found.version == "opaque"
    assert (found.generation, found.labels, found.annotations, found.finalizers) == (None, {}, {}, ())
    assert (found.owner_references, found.controller, found.deletion_timestamp) == ((), None, None)


def test_every_decode_is_a_private_copy() -> None:
    found = cached("a", 7, spec={"size": 1})
    first = found.decode()
    first["spec"]["size"] = 99
    assert found.decode()["spec"]["size"] == 1


def test_a_cached_object_is_immutable() -> None:
    found = cached("a", 7, metadata={"labels": {"app": "web"}})
    with pytest.raises(TypeError):
        found.labels["app"] = "db"  # type: ignore[index]
    with pytest.raises(AttributeError):
        found.uid = "other"  # type: ignore[misc]
    found.annotations.clear()  # type: ignore[attr-defined]  # a copy
    assert found.annotations == {}


def test_the_collector_does_not_track_cached_objects() -> None:
    assert not gc.is_tracked(cached("a", 7))


def test_equal_labels_of_many_objects_are_stored_once() -> None:
    labels = {f"example.com/label-{number}": f"value of the label {number}" for number in range(20)}
    lines = [raw(document(f"o{number}", 1, metadata={"labels": labels})) for number in range(200)]
    reader = WireReader(GVK)
    reader.read(lines[0])
    tracemalloc.start()
    try:
        found = [reader.read(line) for line in lines]
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert all(each is not None and each.labels == labels for each in found)
    assert size / len(lines) < len(lines[0]) + 600  # decoded labels of its own would add about 3 KB to each object


def test_objects_with_the_same_owner_share_it() -> None:
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "u-1", "controller": True}
    one, two, other = (
        read(document(name, 1, metadata={"ownerReferences": [owner | {"uid": uid}]}))
        for name, uid in (("a", "u-1"), ("b", "u-1"), ("c", "u-2"))
    )
    assert one.owner_references is two.owner_references
    assert [each.controller.uid for each in (one, other) if each.controller] == ["u-1", "u-2"]


def test_very_many_labels_are_forgotten_with_their_object() -> None:
    reader = WireReader(GVK)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(20):
            labels = {f"example.com/{number}-{each}": "x" for each in range(5_000)}
            found = reader.read(raw(document("o", 1, metadata={"labels": labels})))
            assert found is not None
            assert found.labels == labels
        del labels, found
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 1_000_000  # the labels of one object are more


def test_an_object_does_not_keep_its_response_in_memory() -> None:
    class Page(bytearray):
        pass

    page = Page(raw({"metadata": {"resourceVersion": "7"}, "items": [document("a", 1), document("b", 2)]}))
    gone = weakref.ref(page)
    items = decode_list(page).items
    assert items is not None
    found = WireReader(GVK).read(items[0])
    del items, page
    gc.collect()
    assert gone() is None
    assert found is not None
    assert found.decode()["metadata"]["name"] == "a"


def test_missing_kind_and_version_of_list_items_are_added() -> None:
    item = {
        key: value for key, value in document("a", 1, spec={"size": 1}).items() if key not in ("apiVersion", "kind")
    }
    assert read(item).decode() == document("a", 1, spec={"size": 1})


def test_managed_fields_are_removed_by_default_and_kept_on_request() -> None:
    doc = document("a", 1, metadata={"managedFields": MANAGED}, spec={"size": 1})
    assert read(doc).decode() == document("a", 1, spec={"size": 1})
    assert read(doc, managed_fields=True).decode() == doc


@pytest.mark.parametrize(
    "text",
    [
        '{"apiVersion":"example.com/v1","kind":"Database","metadata":{"managedFields":[{"a":1}],"name":"a"},"spec":{}}',
        '{"apiVersion":"example.com/v1","kind":"Database","metadata":{"name":"a","managedFields":[{"a":1}]},"spec":{}}',
        '{"apiVersion":"example.com/v1","kind":"Database","metadata":{"name":"a","managedFields" : [ {"a":1} ]}}',
        '{"apiVersion":"example.com/v1","kind":"Database","metadata":{"name":"a","managedFields":[]},"spec":{}}',
        '{"apiVersion":"example.com/v1","kind":"Database","metadata":{"name":"a","managedFields":null},"spec":{}}',
        '{"spec":{},"kind":"Database","metadata":{"n":1,"managedFields":[{"managedFields":2}],"name":"a"},"apiVersion":"example.com/v1"}',
    ],
    ids=["first", "last", "spaces", "empty", "null", "nested"],
)
def test_managed_fields_are_removed_at_any_position(text: str) -> None:
    found = WireReader(GVK).read(text.encode())
    assert found is not None
    wanted = msgspec.json.decode(text)
    del wanted["metadata"]["managedFields"]
    assert found.decode() == wanted


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_managed_fields_member_elsewhere_is_kept(where: str) -> None:
    inner = {"metadata": {"managedFields": MANAGED}}
    own = {"metadata": document("a", 1, metadata={"managedFields": MANAGED})["metadata"]}
    head = {"apiVersion": GVK.api_version, "kind": GVK.kind}
    doc = {**head, "spec": inner, **own} if where == "before" else {**head, **own, "spec": inner}
    wanted = {**doc, "metadata": document("a", 1)["metadata"]}
    assert read(doc).decode() == wanted


def test_an_annotation_of_that_name_is_kept() -> None:
    annotations = {"annotations": {"managedFields": "null"}}
    for managed in (MANAGED, None):
        doc = document("a", 1, metadata={**annotations, "managedFields": managed})
        assert read(doc).decode() == document("a", 1, metadata=annotations)


def test_managed_fields_inside_a_string_are_kept() -> None:
    note = '{"metadata":{"managedFields":[{"manager":"m"}]}}'
    doc = document("a", 1, metadata={"annotations": {"last": note}, "managedFields": MANAGED})
    assert read(doc).decode() == document("a", 1, metadata={"annotations": {"last": note}})


@settings(deadline=None)
@given(
    st.dictionaries(
        st.text(max_size=5), st.text() | st.integers(-9, 9) | st.lists(st.text(max_size=9), max_size=3), max_size=4
    )
)
def test_removing_managed_fields_changes_nothing_else(spec: dict[str, Any]) -> None:
    assert read(document("a", 1, metadata={"managedFields": MANAGED}, spec=spec)).decode() == document(
        "a", 1, spec=spec
    )


def test_with_metadata_only_only_metadata_is_kept_of_any_answer() -> None:
    partial = document("a", 1, metadata={"labels": {"x": "y"}}) | {
        "apiVersion": "meta.k8s.io/v1",
        "kind": "PartialObjectMetadata",
    }
    whole = document("a", 1, metadata={"labels": {"x": "y"}, "managedFields": MANAGED}, spec={"size": 1})
    for answer in (partial, whole):
        assert read(answer, metadata_only=True).decode() == document("a", 1, metadata={"labels": {"x": "y"}})


def test_objects_of_another_kind_are_counted_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    reader = WireReader(GVK)
    for doc in (
        {**document("a", 1), "kind": "Table"},
        document("", 1),
        document("a", 1, metadata={"name": 5}),
        [],
        None,
    ):
        assert reader.read(raw(doc)) is None
    assert reader.unexpected == 5
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


DEEP = b'{"a":' * 2000 + b"1" + b"}" * 2000


def read_with(value: bytes, where: str, *, metadata_only: bool) -> CachedObject:
    """Return an object with a raw value in it, after a look at everything else."""
    metadata = {"labels": {"a": "b"}, "annotations": {"c": "d"}, "finalizers": ["x.io/y"], "deletionTimestamp": "now"}
    text = raw(document("a", 7, metadata={**metadata, "managedFields": "managedFields"}, spec="spec"))
    text = text.replace(b':"%b"' % where.encode(), b":" + value)
    reader = WireReader(GVK, metadata_only=metadata_only)
    found = reader.read(text)
    assert found is not None
    assert (found.request, found.uid, found.version) == (Request("a", "prod"), "uid-a", 7)
    assert (dict(found.labels), dict(found.annotations)) == ({"a": "b"}, {"c": "d"})
    assert (found.finalizers, found.deletion_timestamp) == (("x.io/y",), "now")
    return found


@pytest.mark.parametrize("value", [DEEP, b"[" * 5000 + b"]" * 5000])
@pytest.mark.parametrize("where", ["spec", "managedFields"])
@pytest.mark.parametrize("metadata_only", [False, True])
def test_a_deeply_nested_object_is_stored(value: bytes, where: str, *, metadata_only: bool) -> None:
    found = read_with(value, where, metadata_only=metadata_only)
    with contextlib.suppress(InvalidObject):  # if it is too deep for this version of Python
        assert found.decode()["metadata"]["uid"] == "uid-a"


@pytest.mark.parametrize("value", [b'"\\ud800"', b'"\x01"', b"NaN"])
@pytest.mark.parametrize("where", ["spec", "managedFields"])
@pytest.mark.parametrize("metadata_only", [False, True])
def test_an_object_that_cannot_be_decoded_is_stored(value: bytes, where: str, *, metadata_only: bool) -> None:
    found = read_with(value, where, metadata_only=metadata_only)
    assert found.problem
    if not metadata_only and where == "spec":
        with pytest.raises(InvalidObject, match="prod/a cannot be decoded"):
            found.decode()


@pytest.mark.parametrize("field", ["labels", "ownerReferences", "finalizers", "generation", "deletionTimestamp", "uid"])
def test_a_metadata_field_of_the_wrong_type_reads_as_empty(field: str) -> None:
    found = WireReader(GVK).read(raw(document("a", 7, metadata={"labels": {"a": "b"}, field: [5]})))
    assert found is not None
    assert (found.request, found.version) == (Request("a", "prod"), 7)
    assert dict(found.labels) == ({} if field == "labels" else {"a": "b"})
    assert found.problem is not None
    assert field in found.problem
    assert found.decode()["metadata"][field] == [5]


def test_the_last_of_repeated_members_applies_as_in_a_decoder() -> None:
    text = raw(document("a", 7))[:-1] + b',"metadata":{"name":"b","uid":"u"},"spec":' + DEEP + b"}"
    found = WireReader(GVK).read(text)
    assert found is not None
    assert found.name == "b"


@pytest.mark.parametrize(
    "garbage", [b"<html>", b'{"items":{}}', b'{"items":[1', b"", b"[]", b'{"items":[{]}', b'{"a"}']
)
async def test_a_document_that_is_not_a_list_is_rejected(garbage: bytes) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        decode_list(garbage)
    assert await split_list(garbage) is None


@given(
    st.lists(
        st.recursive(
            st.text() | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
        )
    ),
    st.sampled_from([0, 30, 31, 32, 33, 100]),
)
def test_json_members_splits_documents_like_a_decoder(values: list[Any], levels: int) -> None:
    for _ in range(levels):  # fewer and more levels than a match skips
        values = [*values[:1], values]
    assert [json.loads(part) for part in json_elements(json.dumps(values, indent=1).encode())] == values
    members = {str(number): value for number, value in enumerate(values)}
    text = json.dumps(members, ensure_ascii=False).encode()
    assert {key: json.loads(value) for key, value in json_members(text).items()} == members
    assert {key: json.loads(value) for key, value in json_members(text, "1", "2").items()} == {
        key: value for key, value in members.items() if key in ("1", "2")
    }


@given(st.text(alphabet='[]{}",:\\ a1').map(str.encode))
def test_any_text_is_split_or_rejected(text: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert all(part in text for part in json_members(b"{%b}" % text).values())
    with contextlib.suppress(ValueError):
        assert all(part in text for part in json_elements(b"[%b]" % text))


@pytest.mark.parametrize("order", [("metadata", "items"), ("items", "metadata")])
@pytest.mark.parametrize("items", [[], [1, "x", [], {}], [document("a", 1), document("b", 2)]], ids=len)
async def test_a_page_is_split_as_it_is_decoded(order: tuple[str, ...], items: list[Any]) -> None:
    page = {"metadata": {"resourceVersion": "7", "continue": "c"}, "items": items}
    text = json.dumps({"kind": "L", "nested": {"items": [1]}, **{key: page[key] for key in order}}, indent=1).encode()
    assert await split_list(text) == decode_list(text)


def test_a_transform_is_applied_and_cannot_change_the_objects_identity() -> None:
    def transform(doc: dict[str, Any]) -> dict[str, Any]:
        return {"metadata": {"name": "other", "labels": {"team": "x"}}, "spec": {"size": doc["spec"]["size"] + 1}}

    found = read(document("a", 7, spec={"size": 1, "secret": "s"}), transform=transform)
    assert found.decode() == {
        "apiVersion": GVK.api_version,
        "kind": GVK.kind,
        "metadata": {"name": "a", "namespace": "prod", "uid": "uid-a", "resourceVersion": "7", "labels": {"team": "x"}},
        "spec": {"size": 2},
    }
    assert found.labels == {"team": "x"}
    assert b"secret" not in found.data


def test_an_object_is_stored_as_received_if_the_transform_fails() -> None:
    reader = WireReader(GVK, transform=lambda doc: doc["nothing"])
    found = reader.read(raw(document("a", 7)))
    assert found is not None
    assert found.decode() == document("a", 7)
    assert reader.transform_errors == 1


def test_a_document_without_a_name_is_rejected() -> None:
    with pytest.raises(ValueError, match="is not a valid object"):
        cached_object(document("", 1))


def test_the_object_of_an_event_is_the_new_or_the_last_known_one() -> None:
    old, new = cached("a", 1), cached("a", 2)
    assert CacheEvent(EventType.UPDATED, old=old, new=new).object is new
    assert CacheEvent(EventType.DELETED, old=old).object is old


def test_watch_lines_are_decoded() -> None:
    line = decode_line(b'{"type":"ADDED","object":{"a":1},"later":true}')
    assert (line.type, bytes(line.object)) == ("ADDED", b'{"a":1}')
