"""The fields that enqueued a key, and their writers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import msgspec
import pytest

from reconciler.cache import CachedObject, CacheEvent, EventType
from reconciler.cache.decoding import cached_object
from reconciler.clock import current_clock
from reconciler.controller import Watch
from reconciler.controller.reconcile.cycle import Reconcile, ReconcileContext, ReconcileRun, UnsavedStore
from reconciler.controller.reconcile.explanation import KeyExplanation
from reconciler.controller.wake.change import MAX_FIELDS, ChangeLog, ObjectChange
from reconciler.controller.wake.echo import EchoTracker
from reconciler.meta import GroupVersionKind, Request
from tests.controller.conftest import Widget, WidgetReconciler, World, quiet

pytestmark = pytest.mark.virtual_time

KEY = Request("w", "ns")
CONFIG = GroupVersionKind("", "v1", "ConfigMap")

Told = list[tuple[str, str | None, str | None, tuple[str, ...]]]


def told(change: ObjectChange) -> Told:
    return [(field.path, field.before, field.after, field.managers) for field in change.fields()[0]]


async def woken(world: World, change: Callable[[], Awaitable[Any]], body: Any = None, **options: Any) -> KeyExplanation:
    """Return the explanation after a change of a reconciled widget."""
    await world.widget(ownerReferences=[])
    controller = await world.start(WidgetReconciler(body), **options)
    await quiet(5)
    await change()
    await quiet(5)
    return controller.explain(KEY)


async def test_a_change_is_told_with_its_field_and_its_writer(world: World) -> None:
    first, second = (await woken(world, lambda: world.resize(3))).runs
    assert first.changes == ()  # the object existed when the controller started
    (change,) = second.changes
    assert (change.type, change.gvk.kind, change.request) == ("updated", "Widget", KEY)
    assert told(change) == [("spec.size", "1", "3", ("foreign",))]
    assert 0 <= (second.started - change.at).total_seconds() < 1


async def test_a_new_object_is_told_with_its_writer(world: World) -> None:
    controller = await world.start(WidgetReconciler())
    await world.widget()
    await quiet()
    (run,) = controller.explain(KEY).runs
    (change,) = run.changes
    assert (change.type, change.request, change.managers, told(change)) == ("added", KEY, ("foreign",), [])


async def test_a_deletion_is_told(world: World) -> None:
    found = await woken(world, lambda: world.foreign.delete(Widget, "w", "ns"))
    assert [change.type for change in found.runs[-1].changes] == ["deleted"]


async def test_an_object_that_is_deleted_before_its_first_reconcile_is_told_as_deleted(world: World) -> None:
    controller = await world.start(WidgetReconciler(), debounce=3)
    await world.widget()
    await quiet()
    assert [change.type for change in controller.explain(KEY).next_changes] == ["added"]
    await world.foreign.delete(Widget, "w", "ns")
    await quiet()
    assert [change.type for change in controller.explain(KEY).next_changes] == ["deleted"]


async def test_an_object_that_is_replaced_is_told_as_deleted_and_added(world: World) -> None:
    async def replace() -> None:
        await world.foreign.delete(Widget, "w", "ns")
        await world.widget()

    found = await woken(world, replace, debounce=3)
    assert [change.type for change in found.runs[-1].changes] == ["deleted", "added"]


async def test_several_changes_before_a_reconcile_are_one_from_the_first_to_the_last(world: World) -> None:
    async def change() -> None:
        await world.resize(2)
        await asyncio.sleep(1)
        await world.resize(5)

    (change_,) = (await woken(world, change, debounce=3)).runs[-1].changes
    assert told(change_) == [("spec.size", "1", "5", ("foreign",))]


async def test_a_change_during_a_reconcile_is_told_without_its_own_writes(world: World) -> None:
    async def body(reconciler: Any, widget: Widget, status: Any) -> None:
        if widget.spec.size == 1:
            await status.flush()
            await asyncio.sleep(1)
            await world.resize(2)
            await asyncio.sleep(1)
            status.set(phase="Later")

    found = await woken(world, quiet, body)
    first, second = found.runs
    assert (first.overtaken, first.changes) == (True, ())
    assert told(second.changes[0]) == [("spec.size", "1", "2", ("foreign",))]


async def test_an_echo_wakes_nothing_and_is_not_told_later(world: World) -> None:
    found = await woken(world, quiet)
    world.controllers[0].enqueue(KEY)
    await quiet()
    assert [run.changes for run in world.controllers[0].explain(KEY).runs] == [(), ()]
    assert (found.next_changes, found.current_changes) == ((), ())


async def test_a_key_in_progress_tells_what_woke_it(world: World) -> None:
    async def body(reconciler: Any, widget: Widget, _: Any) -> None:
        if widget.spec.size == 2:
            await asyncio.sleep(100)

    found = await woken(world, lambda: world.resize(2), body)
    assert found.state == "in progress"
    assert told(found.current_changes[0]) == [("spec.size", "1", "2", ("foreign",))]


async def test_a_waiting_key_tells_what_enqueued_it(world: World) -> None:
    found = await woken(world, lambda: world.resize(2), debounce=60)
    assert (found.state, found.next_reasons) == ("waiting", {"event"})
    assert told(found.next_changes[0]) == [("spec.size", "1", "2", ("foreign",))]


async def map_to_w(_: Any) -> Iterable[Request]:
    return [KEY]


@pytest.mark.parametrize("mapper", [lambda _: [KEY], map_to_w], ids=["plain", "async"])
async def test_a_change_of_a_watched_object_is_told(world: World, mapper: Any) -> None:
    config: dict[str, Any] = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "ns"}}
    await world.foreign.create({**config, "data": {"color": "red"}})

    async def change() -> None:
        await world.client.patch("v1/ConfigMap", "c", "ns", patch={"data": {"color": "blue"}}, field_manager="kubectl")

    found = await woken(world, change, watches=[Watch("v1/ConfigMap", mapper=mapper)])
    (change_,) = found.runs[-1].changes
    assert (change_.gvk, change_.request) == (CONFIG, Request("c", "ns"))
    assert told(change_) == [("data.color", '"red"', '"blue"', ("kubectl",))]


async def test_a_new_object_that_wakes_another_of_its_kind_is_told_under_its_own_name(world: World) -> None:
    found = await woken(
        world, lambda: world.widget("other"), watches=[Watch(Widget, mapper=lambda widget: [KEY])], debounce=3
    )
    assert [(each.type, each.request.name) for each in found.runs[-1].changes] == [("added", "other")]


async def test_a_creation_is_told_though_a_watched_object_was_deleted_after_it(world: World) -> None:
    config: dict[str, Any] = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "ns"}}
    await world.foreign.create(config)
    controller = await world.start(
        WidgetReconciler(), watches=[Watch("v1/ConfigMap", mapper=lambda _: [KEY])], debounce=3
    )
    await quiet(5)
    await world.widget()
    await world.foreign.delete("v1/ConfigMap", "c", "ns")
    await quiet(5)
    assert [(each.type, each.gvk.kind) for each in controller.explain(KEY).runs[-1].changes] == [("added", "Widget")]


async def test_a_change_that_a_list_revealed_has_no_writer(world: World) -> None:
    await world.widget()
    controller = await world.start(WidgetReconciler())
    await quiet(5)
    world.server.cut_watches()
    await world.resize(4)
    world.server.compact()
    await quiet(60)
    (change,) = controller.explain(KEY).runs[-1].changes
    assert told(change) == [("spec.size", "1", "4", ())]


# The documents


def document(version: int = 1, kind: str = "ConfigMap", **fields: Any) -> dict[str, Any]:
    metadata = {"name": "w", "namespace": "ns", "uid": "u", "resourceVersion": str(version)}
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata | fields.pop("metadata", {}), **fields}


def changed(
    before: dict[str, Any], after: dict[str, Any], managed: Any = None, kind: str = "ConfigMap"
) -> ObjectChange:
    """Return the change that the log tells of an update."""
    log = ChangeLog(GroupVersionKind("example.com", "v1", "Widget"), current_clock())
    log.event(
        KEY, GroupVersionKind("", "v1", kind), update(document(1, kind, **before), document(2, kind, **after), managed)
    )
    (change,) = log.pending(KEY)
    return change


def update(before: dict[str, Any], after: dict[str, Any], managed: Any = None) -> CacheEvent:
    sent = {**after, "metadata": after["metadata"] | {"managedFields": managed}}
    received = msgspec.Raw(msgspec.json.encode(sent))
    return CacheEvent(EventType.UPDATED, old=cached_object(before), new=cached_object(after), received=received)


def paths(change: ObjectChange) -> list[str]:
    return [field.path for field in change.fields()[0]]


def test_items_are_found_by_name_and_metadata_comes_last() -> None:
    web, log = {"name": "web", "image": "a:1"}, {"name": "log", "image": "b"}
    change = changed(
        {"metadata": {"labels": {"example.com/x": "1"}}, "spec": {"containers": [web, log], "args": ["a"]}},
        {"metadata": {"labels": {}}, "spec": {"containers": [log, web | {"image": "a:2"}], "args": ["a", "b"]}},
    )
    assert told(change) == [
        ("spec.containers[name=web].image", '"a:1"', '"a:2"', ()),
        ("spec.args", '["a"]', '["a","b"]', ()),
        ("metadata.labels[example.com/x]", '"1"', None, ()),
    ]
    assert [field.change for field in change.fields()[0]] == ["changed", "changed", "removed"]


def test_each_field_has_its_own_writer() -> None:
    managed = [
        {"manager": "apply", "time": "2026-01-01T00:00:01Z", "fieldsV1": {"f:spec": {"f:a": {}, "f:atomic": {}}}},
        {"manager": "hpa", "time": "2026-01-01T00:00:02Z", "fieldsV1": {"f:spec": {"f:b": {}}}},
        {
            "manager": "kubelet",
            "subresource": "status",
            "time": "2026-01-01T00:00:03Z",
            "fieldsV1": {"f:status": {"f:conditions": {'k:{"type":"Ready"}': {"f:status": {}}}}},
        },
        {"manager": "late", "time": "2026-01-01T00:00:04Z", "fieldsV1": {"f:spec": {"f:other": {}}}},
    ]
    before = {
        "spec": {"a": 1, "b": 1, "atomic": {"x": 1}, "gone": 1},
        "status": {"conditions": [{"type": "Ready", "status": "0"}]},
    }
    after = {"spec": {"a": 2, "b": 2, "atomic": {"x": 2}}, "status": {"conditions": [{"type": "Ready", "status": "1"}]}}
    assert {path: managers for path, _, _, managers in told(changed(before, after, managed))} == {
        "spec.a": ("apply",),
        "spec.b": ("hpa",),
        "spec.atomic.x": ("apply",),
        "spec.gone": ("late",),  # nobody owns a removed field: the writer of the latest change
        "status.conditions[type=Ready].status": ("kubelet",),
    }


@pytest.mark.parametrize(
    "managed", [None, 3, [], [3], [{"manager": 3}], [{"fieldsV1": 3}], [{"fieldsV1": {"f:data": 3}}]]
)
def test_managed_fields_of_another_form_are_no_writer(managed: Any) -> None:
    assert told(changed({"data": {"a": "1"}}, {"data": {"a": "2"}}, managed)) == [("data.a", '"1"', '"2"', ())]


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        ({"data": {"a": "b64"}}, {"data": {"a": "hunter2"}}, "Secret"),
        ({"spec": {"password": "x"}}, {"spec": {"password": "hunter2"}}, "Widget"),
        ({"spec": {"auth": {"value": "x"}}}, {"spec": {"auth": {"value": "hunter2"}}}, "Widget"),
        ({"env": [{"name": "DB_PASS", "value": ""}]}, {"env": [{"name": "DB_PASS", "value": "hunter2"}]}, "Pod"),
        *(
            ({"env": before}, {"env": after}, "Pod")
            for name in ({"name": "DB_PASS"}, {"id": "db-password"}, {"type": "a", "key": "apiToken"}, {"Name": "pwd"})
            for before, after in (
                ({**name, "value": ""}, {**name, "value": "hunter2"}),
                ([{**name, "value": ""}] * 2, [{**name, "value": "hunter2"}] * 2),
                ([{**name, "value": "hunter2"}] * 2, [{"name": "A", "value": "b"}] * 2),
            )
        ),
        ({"args": []}, {"args": ["mysql", "--password", "hunter2"]}, "Pod"),
        ({"data": {"url": ""}}, {"data": {"url": "postgres://me:hunter2@db/x"}}, "ConfigMap"),
        ({"data": {"file": ""}}, {"data": {"file": "user: me\nword: hunter2"}}, "ConfigMap"),
        ({"data": {"json": ""}}, {"data": {"json": ' {"word": "hunter2"}'}}, "ConfigMap"),
        ({"data": {"line": ""}}, {"data": {"line": "db.password=hunter2"}}, "ConfigMap"),
    ],
)
def test_secrets_are_not_shown(before: Any, after: Any, kind: str) -> None:
    change = changed(before, after, kind=kind)
    assert paths(change)
    assert "hunter2" not in repr(change.fields())


def test_long_text_and_many_fields_are_cut() -> None:
    name, value = "n" * 5000, "v " * 50_000
    change = changed({"data": {}}, {"data": {name: value} | {f"k{number}": "x" for number in range(100)}})
    fields, left_out = change.fields()
    assert (len(fields), left_out) == (MAX_FIELDS, 101 - MAX_FIELDS)
    assert max(len(field.path) for field in fields) <= 200
    assert max(len(field.after or "") for field in fields) == 100


def test_documents_that_are_nested_deeply_are_compared_as_far_as_possible() -> None:
    def nested(levels: int, value: Any) -> Any:
        for _ in range(levels):
            value = {"a": value}
        return value

    assert len(paths(changed(nested(100, 1), nested(100, 2)))) == 1
    old, new = (
        CachedObject(request=KEY, uid="u", version=1, data=b'{"spec":' + b'{"a":' * 50_000 + text + b"}" * 50_001)
        for text in (b"1", b"2")
    )
    log = ChangeLog(CONFIG, current_clock())
    log.event(KEY, CONFIG, CacheEvent(EventType.UPDATED, old=old, new=new, received=msgspec.Raw(new.data)))
    assert log.pending(KEY)[0].fields() == ([], 1)


# The memory


def large(version: int, name: str) -> dict[str, Any]:
    return document(version, metadata={"name": name, "uid": name}, data={"text": f"{version}" * 10_000})


async def test_the_memory_is_bounded_and_quiet_keys_are_not_displaced_by_a_busy_one() -> None:
    context = ReconcileContext(CONFIG, EchoTracker(), UnsavedStore(), asyncio.get_running_loop())
    log = ChangeLog(GroupVersionKind("example.com", "v1", "Widget"), current_clock(), budget=1_000_000)

    def wake(name: str) -> Any:
        key = Request(name, "ns")
        log.event(key, CONFIG, update(large(1, name), large(2, name)))
        reconcile = Reconcile(context, ReconcileRun("widget", key, frozenset(), 0, 0))
        log.begun(reconcile)
        return reconcile.changes

    quiet_ = wake("quiet")
    for _ in range(200):
        busy = wake("busy")
    assert len(quiet_.objects) == len(busy.objects) == 1
    for number in range(200):
        last = wake(f"w{number}")
    assert (quiet_.objects, busy.objects, len(last.objects)) == ((), (), 1)


def test_an_object_that_is_larger_than_the_memory_is_not_kept() -> None:
    log = ChangeLog(CONFIG, current_clock(), budget=1000)
    log.event(KEY, CONFIG, update(large(1, "w"), large(2, "w")))
    assert log.pending(KEY) == ()
    log.event(KEY, CONFIG, update(document(3, data={}), document(4, data={"a": "b"})))
    assert len(log.pending(KEY)) == 1


def test_changes_that_were_dropped_while_their_key_waits_are_counted_when_they_grow_again() -> None:
    size = changed({"data": {"text": "1" * 10_000}}, {"data": {"text": "2" * 10_000}}).size
    log = ChangeLog(CONFIG, current_clock(), budget=2 * size + size // 2)
    for _ in range(5):
        for name in ("a", "b", "c"):
            log.event(Request(name, "ns"), CONFIG, update(large(1, name), large(2, name)))
            assert len(log.pending(Request(name, "ns"))) == 1
    assert sum(len(log.pending(Request(name, "ns"))) for name in ("a", "b", "c")) == 2


def test_further_objects_are_left_out() -> None:
    log = ChangeLog(CONFIG, current_clock())
    for number in range(9):
        log.event(KEY, CONFIG, update(large(1, f"c{number}"), large(2, f"c{number}")))
    assert [change.request.name for change in log.pending(KEY)] == ["c0", "c1", "c2", "c3", "c4"]
