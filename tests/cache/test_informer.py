"""The informer: events, handlers, restarts, resync, on a scripted server."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from reconciler.cache import CachedObject, CacheEvent, CacheNotSynced, EventType
from reconciler.cache.informer import Informer
from reconciler.cache.scope import Scope
from reconciler.cache.watch import in_time
from reconciler.errors import NotServed
from reconciler.meta import Request
from reconciler.meta.metadata import ResourceType
from tests.cache.scripted import (
    DATABASES,
    GVK,
    HOLD,
    Script,
    added,
    bookmark,
    deleted,
    document,
    error_line,
    line,
    modified,
    refused,
)

pytestmark = pytest.mark.virtual_time


@pytest.fixture
def script() -> Script:
    return Script()


def make(script: Script, **scope: Any) -> Informer:
    async def resolve() -> ResourceType:
        return DATABASES

    return Informer(script, Scope(GVK, **scope), resolve=resolve, rng=random.Random(0))


@asynccontextmanager
async def running(informer: Informer, seconds: float = 1.0) -> AsyncIterator[None]:
    task = asyncio.create_task(informer.run())
    await asyncio.sleep(seconds)
    try:
        assert not task.done(), task.exception()
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def summary(event: CacheEvent) -> tuple[Any, ...]:
    old, new = (None if obj is None else obj.version for obj in (event.old, event.new))
    return (event.type.value, event.object.name, old, new)


class Heard:
    """A handler that records its events."""

    def __init__(self) -> None:
        self.events: list[CacheEvent] = []

    def __call__(self, event: CacheEvent) -> None:
        self.events.append(event)

    @property
    def summaries(self) -> list[tuple[Any, ...]]:
        return [summary(event) for event in self.events]

    def clear(self) -> None:
        self.events.clear()

    def replay(self) -> dict[Request, CachedObject]:
        state: dict[Request, CachedObject] = {}
        for event in self.events:
            if event.type is EventType.DELETED:
                del state[event.object.request]
            elif event.type is EventType.ADDED:
                assert event.object.request not in state
                state[event.object.request] = event.object
            else:
                assert event.old is state[event.object.request]
                state[event.object.request] = event.object
        return state


async def test_changes_become_events(script: Script) -> None:
    script.streamed("a", version=7, then=[1.0, modified("a", 8), added("b", 9), deleted("a", 10), HOLD])
    informer, heard = make(script), Heard()
    informer.add_handler(heard)
    async with running(informer, 5):
        assert heard.summaries == [
            ("ADDED", "a", None, 1),
            ("UPDATED", "a", 1, 8),
            ("ADDED", "b", None, 9),
            ("DELETED", "a", 10, None),
        ]
        assert [event.initial for event in heard.events] == [True, False, False, False]
        assert heard.events[-1].final
        assert heard.replay() == {obj.request: obj for obj in informer.store}
        assert informer.version() == "10"


async def test_the_store_is_updated_before_handlers_are_notified(script: Script) -> None:
    script.streamed("a", version=7, then=[modified("a", 8), deleted("a", 9), HOLD])
    informer = make(script)
    seen: list[tuple[Any, ...]] = []

    def handler(event: CacheEvent) -> None:
        found = informer.store.get(event.object.request)
        seen.append((event.type.value, None if found is None else found.version))

    informer.add_handler(handler)
    async with running(informer):
        assert seen == [("ADDED", 1), ("UPDATED", 8), ("DELETED", None)]


async def test_a_late_handler_is_notified_of_existing_objects(script: Script) -> None:
    script.streamed("a", "b", version=7)
    informer, heard = make(script), Heard()
    async with running(informer):
        registration = informer.add_handler(heard)
        assert heard.summaries == [("ADDED", "a", None, 1), ("ADDED", "b", None, 2)]
        assert all(event.initial for event in heard.events)
        assert registration.synced


async def test_many_existing_objects_are_delivered_in_turns_with_other_work(script: Script) -> None:
    names = [f"object-{number:03d}" for number in range(450)]
    script.streamed(*names, version=500)
    informer, heard = make(script), Heard()
    async with running(informer):
        registration = informer.add_handler(heard, existing=False)
        delivering = asyncio.create_task(informer.deliver_existing(registration))
        turns = []
        while not delivering.done():
            await asyncio.sleep(0)
            turns.append(len(heard.events))
        assert turns[:4] == [100, 200, 300, 400]
        assert len(heard.replay()) == 450
        assert all(event.initial for event in heard.events)


async def test_a_registration_is_synced_when_its_initial_list_was_delivered(script: Script) -> None:
    script.watch(5.0, added("a", 1), 5.0, bookmark(7, ends_initial=True), HOLD)
    informer, heard = make(script), Heard()
    registration = informer.add_handler(heard)
    at: list[tuple[float, int]] = []

    async def wait() -> None:
        await registration.wait_synced()
        at.append((asyncio.get_running_loop().time(), len(heard.events)))

    waiter = asyncio.create_task(wait())
    async with running(informer, 9):
        assert not registration.synced
        assert not informer.synced
        await waiter
        assert at == [(10.0, 1)]
        assert registration.synced


async def test_an_empty_list_is_synced_too(script: Script) -> None:
    script.streamed(version=7)
    informer = make(script)
    async with running(informer):
        assert informer.synced


async def test_a_removed_handler_is_not_notified(script: Script) -> None:
    script.streamed("a", version=7, then=[2.0, modified("a", 8), HOLD])
    informer, heard = make(script), Heard()
    registration = informer.add_handler(heard)
    async with running(informer):
        registration.remove()
        registration.remove()
        await asyncio.sleep(5)
        assert len(heard.events) == 1


async def test_a_failing_handler_is_counted_and_does_not_affect_others(
    script: Script, caplog: pytest.LogCaptureFixture
) -> None:
    script.streamed("a", version=7, then=[modified("a", 8), modified("a", 9), HOLD])
    informer, heard = make(script), Heard()

    def broken(event: CacheEvent) -> None:
        raise RuntimeError("broken")

    registration = informer.add_handler(broken)
    informer.add_handler(heard)
    async with running(informer):
        assert len(heard.events) == 3
        assert registration.errors == 3
        assert informer.statistics().handler_errors == 3
        assert [record.levelno for record in caplog.records if "handler failed" in record.message] == [logging.ERROR]


async def test_a_slow_handler_loses_no_event_and_does_not_end_the_watch(script: Script) -> None:
    """A handler that blocks the loop blocks the stream, too. The data waits: it is not lost, and it is not silence."""
    changes = [modified("a", version) for version in range(8, 108)]
    script.streamed("a", version=7, then=[b"".join(changes[:50]), 1.0, *changes[50:], HOLD])
    informer, slow, heard = make(script), Heard(), Heard()
    loop = asyncio.get_running_loop()

    def holds_the_loop(event: CacheEvent) -> None:
        slow(event)
        time.sleep(0.002)

    informer.add_handler(holds_the_loop)
    informer.add_handler(heard)
    began = loop.time()
    async with running(informer, 5):
        assert [event.object.version for event in slow.events] == [1, *range(8, 108)]
        assert slow.summaries == heard.summaries
        assert informer.last_error is None
        assert informer.statistics().reflectors.failures == 0
    assert loop.time() >= began
    assert len(script.asked) == 1


async def test_a_raising_handler_receives_all_later_events(script: Script) -> None:
    script.streamed("a", version=7, then=[*(modified("a", version) for version in range(8, 30)), HOLD])
    informer, heard = make(script), Heard()

    def raises_now_and_then(event: CacheEvent) -> None:
        heard(event)
        if event.object.version % 3 == 0:  # type: ignore[operator]
            raise KeyError("missing")

    informer.add_handler(raises_now_and_then)
    async with running(informer):
        assert [event.object.version for event in heard.events] == [1, *range(8, 30)]
        assert heard.replay().keys() == {Request("a", "prod")}
        assert informer.synced


async def test_a_coroutine_function_is_rejected_as_a_handler_and_as_an_index(script: Script) -> None:
    async def later(event: Any) -> list[str]:
        return []

    informer = make(script)
    with pytest.raises(TypeError, match="a handler of an informer must be a plain function"):
        informer.add_handler(later)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="an index must be a plain function"):
        informer.store.add_index("later", later)  # type: ignore[arg-type]


async def test_a_relist_finds_deletions_and_marks_them_as_not_final(script: Script) -> None:
    script.streamed("a", "b", "c", version=7, then=[modified("b", 8), error_line(410, "Expired")])
    script.watch(added("c", 9), added("d", 10), bookmark(11, ends_initial=True), HOLD)
    informer, heard = make(script), Heard()
    informer.add_handler(heard)
    async with running(informer, 5):
        assert sorted(heard.summaries[4:]) == [
            ("ADDED", "d", None, 10),
            ("DELETED", "a", 1, None),
            ("DELETED", "b", 8, None),
            ("UPDATED", "c", 3, 9),
        ]
        assert [event.final for event in heard.events if event.type is EventType.DELETED] == [False, False]
        assert not any(event.initial for event in heard.events[4:])
        assert heard.replay() == {obj.request: obj for obj in informer.store}


async def test_opaque_versions_are_compared_by_equality(script: Script) -> None:
    def event(type: str, name: str, version: str) -> bytes:
        return line(type, document(name, version))

    script.watch(
        event("ADDED", "a", "x9"),
        event("ADDED", "b", "x1"),
        line("BOOKMARK", {"metadata": {"resourceVersion": "l1", "annotations": {"k8s.io/initial-events-end": "true"}}}),
        event("MODIFIED", "a", "x9"),  # the same again
        event("MODIFIED", "a", "x1"),  # not lower: only different
        event("DELETED", "b", "x0"),
        error_line(410, "Expired"),
    )
    script.watch(
        event("ADDED", "a", "x1"),
        event("ADDED", "c", "x2"),
        line("BOOKMARK", {"metadata": {"resourceVersion": "l0", "annotations": {"k8s.io/initial-events-end": "true"}}}),
        HOLD,
    )
    informer, heard = make(script), Heard()
    informer.add_handler(heard)
    async with running(informer, 5):
        assert heard.summaries == [
            ("ADDED", "a", None, "x9"),
            ("ADDED", "b", None, "x1"),
            ("UPDATED", "a", "x9", "x1"),
            ("DELETED", "b", "x0", None),
            ("ADDED", "c", None, "x2"),
        ]
        assert informer.version() == "l0"
        assert informer.statistics().reflectors.restarts == 0


async def test_another_uid_under_a_name_is_a_deletion_and_a_creation(script: Script) -> None:
    script.streamed("a", version=7, then=[1.0, modified("a", 8, uid="second"), error_line(410, "Expired")])
    script.watch(added("a", 12, uid="third"), bookmark(12, ends_initial=True), HOLD)
    informer, heard = make(script), Heard()
    informer.add_handler(heard)
    async with running(informer, 5):
        assert heard.summaries == [
            ("ADDED", "a", None, 1),
            ("DELETED", "a", 1, None),
            ("ADDED", "a", None, 8),
            ("DELETED", "a", 8, None),
            ("ADDED", "a", None, 12),
        ]
        assert not any(event.final for event in heard.events if event.type is EventType.DELETED)
        assert len(informer.store) == 1


@pytest.mark.parametrize("listed", ["streamed", "pages"])
async def test_an_older_object_in_a_newer_list_means_that_history_was_rewritten(script: Script, listed: str) -> None:
    script.streamed("a", "b", version=7, then=[modified("a", 8), error_line(410, "Expired")])
    if listed == "streamed":
        script.watch(added("a", 5), added("b", 2), bookmark(30, ends_initial=True), HOLD)
    else:
        script.refuse_watch(refused(400))
        script.list(document("b", 2), version=30, token="next")
        script.list(document("a", 5), version=30)
    informer, heard = make(script), Heard()
    informer.add_handler(heard)
    at_restart: list[list[tuple[Any, ...]]] = []
    informer.on_restart(lambda: at_restart.append(heard.summaries))
    async with running(informer, 5):
        assert at_restart == [[("ADDED", "a", None, 1), ("ADDED", "b", None, 2), ("UPDATED", "a", 1, 8)]]
        assert heard.summaries[3:] == [("UPDATED", "a", 8, 5)]
        assert heard.replay() == {obj.request: obj for obj in informer.store}
        assert informer.statistics().reflectors.restarts == 1


@pytest.mark.parametrize("listed", ["streamed", "pages"])
async def test_history_that_was_rewritten_during_the_first_list_is_not_mixed_with_it(
    script: Script, listed: str
) -> None:
    if listed == "streamed":
        script.watch(added("a", 20), added("b", 21))
    else:
        script.refuse_watch(refused(400))
        script.list(document("a", 20), document("b", 21), version=30, token="next")
        script.refuse_list(refused(503))
    script.list(document("a", 5), version=10)
    script.watch(modified("a", 11), HOLD)
    informer, heard, restarts = make(script), Heard(), []
    informer.add_handler(heard)
    informer.on_restart(lambda: restarts.append(1))
    async with running(informer, 30):
        assert {cached.name: cached.version for cached in informer.store} == {"a": 11}
        assert heard.replay() == {obj.request: obj for obj in informer.store}
        assert restarts == [1]


async def test_rewritten_history_is_detected_with_metadata_only_and_in_one_of_several_namespaces(
    script: Script,
) -> None:
    first = added("a", 8, namespace="x")
    script.watch(first, bookmark(9, ends_initial=True), 2.0, error_line(410, "Expired"))
    script.watch(line_of("b", "y"), bookmark(9, ends_initial=True), HOLD)
    script.watch(added("a", 5, namespace="x"), bookmark(30, ends_initial=True), HOLD)
    informer, restarts = make(script, namespaces=("x", "y"), metadata_only=True), []
    informer.on_restart(lambda: restarts.append(1))
    async with running(informer, 5):
        assert restarts == [1]
        assert {cached.name: cached.version for cached in informer.store} == {"a": 5, "b": 1}


async def test_a_list_without_an_own_write_that_it_should_contain_means_rewritten_history(script: Script) -> None:
    script.streamed("a", version=7, then=[2.0, error_line(410, "Expired")])
    script.watch(added("a", 1), bookmark(50, ends_initial=True), HOLD)
    informer, restarts = make(script), []
    informer.on_restart(lambda: restarts.append(1))
    async with running(informer, 1):
        informer.record_write("update", Request("a", "prod"), msgspec.json.encode(document("a", 40)))
        await asyncio.sleep(5)
        assert script.asked[1].version == "40"
        assert restarts == [1]
        assert informer.overlay.get(Request("a", "prod")).version == 1  # type: ignore[union-attr]


async def test_a_consistent_list_older_than_an_own_write_means_rewritten_history(script: Script) -> None:
    script.streamed("a", version=7, then=[2.0, error_line(410, "Expired")])
    for _ in range(5):
        script.refuse_watch(refused(504, "Timeout", "Too large resource version: 40, current: 30", retry_after=1))
    script.watch(added("a", 1), bookmark(30, ends_initial=True), HOLD)
    informer, restarts = make(script), []
    informer.on_restart(lambda: restarts.append(1))
    async with running(informer, 1):
        informer.record_write("update", Request("a", "prod"), msgspec.json.encode(document("a", 40)))
        await asyncio.sleep(60)
        assert restarts == [1]


async def test_an_own_write_during_a_list_does_not_mean_rewritten_history(script: Script) -> None:
    script.streamed("a", version=7, then=[error_line(410, "Expired")])
    script.watch(2.0, added("a", 1), bookmark(30, ends_initial=True), HOLD)
    informer, restarts = make(script), []
    informer.on_restart(lambda: restarts.append(1))
    async with running(informer, 1.9):
        informer.record_write("update", Request("a", "prod"), msgspec.json.encode(document("a", 40)))
        await asyncio.sleep(5)
        assert restarts == []
        assert informer.overlay.get(Request("a", "prod")).version == 40  # type: ignore[union-attr]


async def test_a_list_from_a_lagging_replica_does_not_mean_rewritten_history(script: Script) -> None:
    script.streamed("a", version=7, then=[modified("a", 8), error_line(410, "Expired")])
    script.watch(added("a", 5), bookmark(6, ends_initial=True))
    script.watch(added("a", 8), bookmark(9, ends_initial=True), HOLD)
    informer, heard, restarts = make(script), Heard(), []
    informer.add_handler(heard)
    informer.on_restart(lambda: restarts.append(1))
    async with running(informer, 30):
        assert heard.summaries == [("ADDED", "a", None, 1), ("UPDATED", "a", 1, 8)]
        assert restarts == []
        assert informer.statistics().reflectors.stale_lists == 1


def broken(part: bytes) -> bytes:
    return part.replace(b'"MARK"', b'"\\ud800"')


@pytest.mark.parametrize("listed", ["streamed", "pages"])
async def test_an_object_that_cannot_be_decoded_does_not_block_others(script: Script, listed: str) -> None:
    names = [f"n{number}" for number in range(500)]
    if listed == "streamed":
        lines = [added(name, 1, spec="MARK" if name == "n250" else {}) for name in names]
        script.watch(*map(broken, lines), bookmark(9, ends_initial=True), 1.0, *map(broken, CHANGES), HOLD)
    else:
        script.refuse_watch(refused(400))
        script.list(*(document(name, 1, spec="MARK" if name == "n250" else {}) for name in names), version=9)
        script.answers[-1] = ("list", broken(script.answers[-1][1]))
        script.watch(1.0, *map(broken, CHANGES), HOLD)
    informer, heard = make(script), Heard()
    informer.add_handler(heard)
    async with running(informer, 0.5):
        assert len(informer.store) == 500
        assert informer.statistics().store.unreadable == 1
        await asyncio.sleep(5)
        assert heard.replay() == {obj.request: obj for obj in informer.store}
        assert heard.summaries[500:] == [
            ("UPDATED", "n1", 1, 10),
            ("UPDATED", "n2", 1, 11),
            ("DELETED", "n3", 12, None),
            ("UPDATED", "n250", 1, 13),
            ("UPDATED", "n1", 10, 14),
        ]
        assert informer.statistics().store.unreadable == 1
        assert informer.version() == "14"
        assert informer.last_error is None


CHANGES = [
    modified("n1", 10, spec="MARK"),
    modified("n2", 11, spec={}),
    deleted("n3", 12, spec="MARK"),
    modified("n250", 13, spec={}),
    modified("n1", 14, spec="MARK"),
]


async def test_an_object_that_becomes_unreadable_is_kept_and_logged_once_per_version(
    script: Script, caplog: pytest.LogCaptureFixture
) -> None:
    script.streamed("a", "b", version=7, then=[error_line(410, "Expired")])
    for _ in range(3):
        script.watch(
            broken(added("a", 8, spec="MARK")),
            added("b", 2),
            bookmark(9, ends_initial=True),
            error_line(410, "Expired"),
        )
    informer, heard = make(script), Heard()
    informer.add_handler(heard)
    async with running(informer, 60):
        assert heard.summaries[2:] == [("UPDATED", "a", 1, 8)]
        assert informer.statistics().reflectors.lists == 4
    told = [record.getMessage() for record in caplog.records if "cannot be decoded" in record.getMessage()]
    assert len(told) == 1
    assert "prod/a" in told[0]


async def test_objects_without_a_name_are_ignored_in_lists_and_watches(script: Script) -> None:
    nothing: list[Any] = [None, 5, [], {}, {"metadata": None}, {"metadata": []}, document("", 3)]
    script.refuse_watch(refused(400))
    script.list(document("a", 1), *nothing, document("b", 2), version=7)
    nameless = {**document("", 20), "spec": {}}
    script.watch(*(line("ADDED", each) for each in nothing[:-1]), line("MODIFIED", nameless), 2.0)
    script.watch(HOLD)
    informer = make(script)
    async with running(informer, 30):
        assert {cached.name for cached in informer.store} == {"a", "b"}
        assert informer.statistics().unexpected == 14
        assert informer.statistics().reflectors.failures == 0
        assert script.asked[-1].version == "20"


async def test_the_same_version_again_causes_no_event(script: Script) -> None:
    script.streamed("a", version=7, then=[modified("a", 8), modified("a", 8), error_line(410, "Expired")])
    script.watch(added("a", 8), bookmark(9, ends_initial=True), HOLD)
    informer, heard = make(script), Heard()
    informer.add_handler(heard)
    async with running(informer, 5):
        assert len(heard.events) == 2


async def test_a_deletion_of_an_unknown_object_causes_no_event(script: Script) -> None:
    script.streamed("a", version=7, then=[deleted("b", 8), deleted("a", 9, uid="an older incarnation"), HOLD])
    informer, heard = make(script), Heard()
    informer.add_handler(heard)
    async with running(informer):
        assert len(heard.events) == 1
        assert informer.statistics().stale == 1


async def test_events_without_a_change_still_advance_the_version(script: Script) -> None:
    late = [deleted("b", 8), deleted("a", 9, uid="an older incarnation"), modified("a", 10), bookmark(12)]
    script.streamed("a", version=7, then=[part for each in late for part in (1.0, each)])
    script.watch(HOLD)
    informer, versions = make(script), []
    informer.add_handler(lambda event: versions.append(informer.version("prod")))
    async with running(informer, 0.5):
        for expected in ("7", "8", "9", "10", "12"):
            assert informer.version() == informer.version("prod") == expected
            await asyncio.sleep(1)
        assert versions == ["", "10"]
        assert script.asked[-1].version == "12"


async def test_a_deletion_that_may_be_a_departure_from_the_selector_is_not_final(script: Script) -> None:
    script.streamed("a", version=7, then=[deleted("a", 8), HOLD])
    informer, heard = make(script, label_selector="app=web"), Heard()
    informer.add_handler(heard)
    async with running(informer):
        assert heard.summaries[-1] == ("DELETED", "a", 8, None)
        assert not heard.events[-1].final
    assert script.asked[0].query["labelSelector"] == "app=web"


async def test_each_of_several_namespaces_has_its_own_watch(script: Script) -> None:
    initial = [line_of("a", "x"), bookmark(7, ends_initial=True), HOLD]
    script.watch(*initial)
    script.watch(5.0, line_of("a", "y"), bookmark(5, ends_initial=True), 1.0, error_line(410, "Expired"))
    script.watch(bookmark(9, ends_initial=True), HOLD)
    informer, heard = make(script, namespaces=("x", "y")), Heard()
    informer.add_handler(heard)
    async with running(informer, 3):
        assert not informer.synced
        await asyncio.sleep(5)
        assert informer.synced
        assert [asked.namespace for asked in script.asked] == ["x", "y", "y"]
        assert [obj.namespace for obj in informer.store] == ["x"]
        assert [(event.type.value, event.object.namespace) for event in heard.events] == [
            ("ADDED", "x"),
            ("ADDED", "y"),
            ("DELETED", "y"),
        ]
        assert all(event.initial for event in heard.events[:2])
        assert (informer.version("x"), informer.version("y"), informer.version()) == ("7", "9", "7")


def line_of(name: str, namespace: str) -> bytes:
    return added(name, 1, namespace=namespace)


async def test_when_versions_decrease_everything_is_listed_again(script: Script) -> None:
    script.streamed("a", "b", "c", version=70, then=[modified("a", 80, spec={"size": 8}), 2.0, error_line(410)])
    script.watch(bookmark(6, ends_initial=True))
    restored = [added("a", 3, spec={"size": 1}), added("b", 2), added("c", 4, uid="other"), added("d", 5)]
    script.watch(*restored, bookmark(6, ends_initial=True), modified("a", 7), HOLD)
    informer, heard = make(script), Heard()
    informer.add_handler(heard)
    told: list[Any] = []

    def restarted() -> None:
        # From now on readers must not find objects of the lost history.
        told.append((informer.overlay.get(Request("a", "prod")), len(heard.events), informer.version()))

    def broken() -> None:
        raise RuntimeError("broken")

    informer.on_restart(broken)
    informer.on_restart(restarted)
    async with running(informer, 1):
        informer.record_write("update", Request("a", "prod"), msgspec.json.encode(document("a", 90)))
        await asyncio.sleep(30)
        ((found, heard_before, version),) = told
        assert (found.version, found.decode()["spec"]) == (3, {"size": 1})
        assert heard_before == 4
        assert version == "6"
        assert heard.summaries[4:] == [
            ("UPDATED", "a", 80, 3),
            ("DELETED", "c", 3, None),
            ("ADDED", "c", None, 4),
            ("ADDED", "d", None, 5),
            ("UPDATED", "a", 3, 7),
        ]
        assert heard.replay() == {obj.request: obj for obj in informer.store}
        statistics = informer.statistics()
        assert (statistics.reflectors.restarts, statistics.restart_errors, statistics.overlay.entries) == (1, 1, 0)


async def test_there_is_no_resync_by_default(script: Script) -> None:
    script.streamed("a", version=7, then=[part for n in range(2000) for part in (60.0, bookmark(8 + n))])
    informer, heard = make(script), Heard()
    informer.add_handler(heard)
    async with running(informer, 100_000):
        assert len(heard.events) == 1


async def test_a_resync_repeats_all_objects_with_jitter(script: Script) -> None:
    script.streamed("a", "b", version=7)
    informer = make(script)
    at: list[tuple[float, str]] = []

    def handler(event: CacheEvent) -> None:
        if event.type is EventType.RESYNC:
            assert event.old is event.new
            at.append((asyncio.get_running_loop().time(), event.object.name))

    informer.add_handler(handler)
    informer.resync_every(100)
    async with running(informer, 290):
        assert [name for _, name in at] == ["a", "b"] * 2
        times = [time for time, name in at if name == "a"]
        assert 90 <= times[0] <= 110
        assert 90 <= times[1] - times[0] <= 110
        assert times[0] != times[1] - times[0]


async def test_the_shortest_resync_period_applies_even_if_requested_later(script: Script) -> None:
    script.streamed("a", version=7)
    informer, heard = make(script), Heard()
    informer.add_handler(heard)
    informer.resync_every(1000)
    async with running(informer, 50):
        informer.resync_every(10)
        informer.resync_every(500)
        informer.resync_every(None)
        await asyncio.sleep(100)
        assert 8 <= len(heard.events) - 1 <= 11
    with pytest.raises(ValueError, match="resync must be seconds above 0"):
        informer.resync_every(0)


async def test_discovery_of_a_kind_that_is_not_served_is_retried_with_backoff(script: Script) -> None:
    script.streamed("a", version=7)
    asked: list[float] = []

    async def resolve() -> ResourceType:
        asked.append(asyncio.get_running_loop().time())
        if asked[-1] < 60:
            raise NotServed("example.com/v1/Database is not served", status=404)
        return DATABASES

    informer = Informer(script, Scope(GVK), resolve=resolve, rng=random.Random(0))
    async with running(informer, 30):
        assert sum(at < 1 for at in asked) <= 2
        assert 3 <= len(asked) <= 9
        with pytest.raises(CacheNotSynced, match=r"was not discovered yet: discover example.com/v1/Database: 404"):
            assert informer.resource
        with pytest.raises(CacheNotSynced, match=r"not synced after 1 s: discover .*: 404 Not Found"):
            await informer.wait_synced(1)
        await asyncio.sleep(90)
        assert informer.synced
        assert informer.resource == DATABASES
        assert informer.last_error is None


async def test_a_long_list_yields_to_the_event_loop(script: Script) -> None:
    names = [f"n{number}" for number in range(3000)]
    script.streamed(*names, version=9000)
    informer = make(script)
    progress: list[int] = []
    informer.add_handler(lambda event: None)

    async def watch() -> None:
        while not informer.synced:
            progress.append(len(informer.store))
            await asyncio.sleep(0)

    watcher = asyncio.create_task(watch())
    async with running(informer):
        await watcher
        assert len(informer.store) == 3000
        assert len(set(progress)) > 3


async def test_objects_that_a_list_no_longer_has_are_removed_in_turns_with_other_work(script: Script) -> None:
    names = [f"n{number}" for number in range(3000)]
    script.streamed(*names, version=9000, then=[error_line(410, "Expired")])
    script.watch(added("n0", 1), bookmark(9001, ends_initial=True), HOLD)
    informer = make(script)
    removed: list[int] = []
    turns: list[int] = []

    async def other_work() -> None:
        while informer.version() != "9001":
            turns.append(len(removed))
            await asyncio.sleep(0)

    def handler(event: CacheEvent) -> None:
        if event.type is EventType.DELETED:
            removed.append(len(removed))
            if len(removed) == 1:
                tasks.append(asyncio.create_task(other_work()))

    tasks: list[asyncio.Task[None]] = []
    informer.add_handler(handler)
    async with running(informer, 5):
        assert len(removed) == 2999
        assert len(informer.store) == 1
        assert len(set(turns)) > 3


async def test_a_deletion_that_was_undone_is_noticed_once(script: Script) -> None:
    script.streamed("a", "b", version=7, then=[deleted("b", 8), 20.0])
    script.watch(HOLD)
    script.list(document("b", 2), version=13)
    script.streamed("a", "b", version=14, then=[20.0])
    script.watch(HOLD)
    informer = make(script)
    async with running(informer, 120):
        assert {cached.name for cached in informer.store} == {"a", "b"}
        assert [asked.verb for asked in script.asked] == ["watch", "watch", "list", "watch", "watch"]


async def test_a_backlog_of_events_yields_to_the_event_loop(script: Script) -> None:
    script.streamed("a", version=7, then=[b"".join(modified("a", 8 + number) for number in range(3000)), HOLD])
    informer = make(script)
    versions: set[str] = set()

    async def watch() -> None:
        while informer.version() != "3007":
            versions.add(informer.version())
            await asyncio.sleep(0)

    watcher = asyncio.create_task(watch())
    async with running(informer):
        await watcher
        assert len(versions) > 10


WRITES: list[tuple[str, str, dict[str, Any], list[str]]] = [
    ("create", "b", document("b", 9), ["a", "b"]),
    ("patch", "a", document("a", 9), ["a"]),
    ("apply", "b", document("b", 9), ["a", "b"]),
    ("delete", "a", {"kind": "Status", "status": "Success", "details": {"uid": "uid-a"}}, []),
    ("delete", "a", document("a", 9), []),
    ("delete", "a", document("a", 9, metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"}), []),
    (
        "delete",
        "a",
        document("a", 9, metadata={"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["f"]}),
        ["a"],
    ),
    (
        "delete",
        "a",
        document("a", 9, metadata={"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 30}),
        ["a"],
    ),
    ("patch", "a", document("a", 9, metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"}), []),
    ("patch", "a", {"kind": "Scale", "metadata": {"name": "a", "resourceVersion": "9"}}, ["a"]),
    ("create", "a", {"kind": "Status", "status": "Success"}, ["a"]),
]


@pytest.mark.parametrize(("verb", "name", "answer", "names"), WRITES)
async def test_answers_to_writes_are_interpreted(
    script: Script, verb: str, name: str, answer: dict[str, Any], names: list[str]
) -> None:
    script.streamed("a", version=7)
    informer = make(script)
    async with running(informer):
        informer.record_write(verb, Request(name, "prod"), msgspec.json.encode(answer))
        assert sorted(obj.name for obj in informer.overlay.list()) == names
        informer.record_write(verb, Request(name, "prod"), b"no JSON")


@pytest.mark.parametrize(
    ("scope", "laid_over"),
    [
        ({}, True),
        ({"namespaces": ("prod",)}, True),
        ({"namespaces": ("other",)}, False),
        ({"label_selector": "app=web"}, True),
        ({"label_selector": "app=db"}, False),
        ({"field_selector": "metadata.name=b"}, True),
        ({"field_selector": "metadata.name=a"}, False),
        ({"field_selector": "spec.unknown=a"}, False),
    ],
)
async def test_writes_outside_the_selector_or_namespaces_are_not_laid_over(
    script: Script, scope: dict[str, Any], laid_over: bool
) -> None:
    script.streamed(version=7)
    informer = make(script, **scope)
    async with running(informer):
        answer = document("b", 9, metadata={"labels": {"app": "web"}})
        informer.record_write("create", Request("b", "prod"), msgspec.json.encode(answer))
        assert (informer.overlay.get(Request("b", "prod")) is not None) is laid_over


async def test_own_writes_are_transformed_like_watched_objects(script: Script) -> None:
    def transform(doc: dict[str, Any]) -> dict[str, Any]:
        doc["metadata"]["labels"] = {"seen": "yes"}
        return doc

    script.streamed(version=7)
    informer = make(script, transform=transform, label_selector="app=web")
    async with running(informer):
        answer = document("b", 9, metadata={"labels": {"app": "web"}})
        informer.record_write("create", Request("b", "prod"), msgspec.json.encode(answer))
        found = informer.overlay.get(Request("b", "prod"))
        assert found is not None
        assert found.labels == {"seen": "yes"}


async def test_with_metadata_only_only_metadata_is_requested_and_laid_over(script: Script) -> None:
    script.streamed("a", version=7)
    informer = make(script, metadata_only=True)
    async with running(informer):
        assert script.asked[0].metadata_only
        informer.record_write("update", Request("a", "prod"), msgspec.json.encode(document("a", 9, spec={"size": 1})))
        found = informer.overlay.get(Request("a", "prod"))
        assert found is not None
        assert found.decode() == document("a", 9)


async def test_statistics_are_totals(script: Script) -> None:
    script.streamed("a", version=7, then=[modified("a", 8), bookmark(9), error_line(500, message="tired")])
    script.streamed("a", version=10)
    informer = make(script)
    async with running(informer, 0.2):
        statistics = informer.statistics()
        assert statistics.scope == "example.com/v1/Database"
        assert statistics.synced
        assert (statistics.reflectors.lists, statistics.reflectors.watches, statistics.reflectors.failures) == (1, 1, 1)
        assert (statistics.reflectors.events, statistics.reflectors.bookmarks) == (5, 2)
        assert (statistics.store.objects, statistics.events) == (1, 2)
        assert (
            statistics.last_error == "watch databases.example.com in all namespaces: 500 Internal Server Error: tired"
        )


@pytest.mark.parametrize("part", ["handler", "index", "transform"])
async def test_user_code_that_raises_a_cancellation_does_not_end_the_watch(script: Script, part: str) -> None:
    def cancelled(_: object) -> Any:
        raise asyncio.CancelledError

    informer = make(script, **({"transform": cancelled} if part == "transform" else {}))
    if part == "handler":
        informer.add_handler(cancelled)
    elif part == "index":
        informer.store.add_index("spec.size", cancelled)
    heard = Heard()
    informer.add_handler(heard)
    script.streamed("a", version=7, then=[added("b", 8), HOLD])
    async with running(informer):
        assert [event.object.name for event in heard.events] == ["a", "b"]


async def test_a_timeout_of_something_within_the_time_limit_is_raised_as_it_is() -> None:
    for limit in (None, 60.0):
        with pytest.raises(TimeoutError, match=r"^of the transport$"):
            async with in_time(limit, "not synced", lambda: "no response yet"):
                raise TimeoutError("of the transport")
