"""The overlay: own writes over the store, until the watch has passed them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from reconciler.cache import overlay as module
from reconciler.cache.overlay import Overlay, OverlayExpired
from reconciler.cache.store import WritableStore
from reconciler.meta import Request
from reconciler.meta.documents import Version
from tests.cache.scripted import cached
from tests.campaigns.overlay import OverlayModel
from tests.depth import examples

A = Request("a", "prod")


class Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def monotonic(self) -> float:
        return self.time

    def now(self) -> Any:
        raise AssertionError


class World:
    """A store, how far its watch has come, and the overlay."""

    def __init__(self) -> None:
        self.store = WritableStore()
        self.progress: Version | None = 10
        self.clock = Clock()
        self.overlay = Overlay(self.store, lambda _: self.progress, clock=self.clock)

    def watched(self, name: str, version: int, **more: Any) -> None:
        self.store.put(cached(name, version, **more))
        self.progress = version

    def gone(self, name: str, version: int) -> None:
        self.store.discard(Request(name, "prod"))
        self.progress = version

    def version(self, request: Request = A) -> Version | None:
        found = self.overlay.get(request)
        return found.version if found is not None else None

    def names(self) -> list[str]:
        return sorted(obj.name for obj in self.overlay.list())

    @property
    def entries(self) -> int:
        return self.overlay.statistics().entries


@pytest.fixture
def world() -> World:
    return World()


def test_a_creation_is_visible_immediately(world: World) -> None:
    world.overlay.record_write(cached("a", 11))
    assert world.version() == 11
    assert world.names() == ["a"]


def test_an_update_is_visible_immediately_and_dropped_when_the_store_has_it(world: World) -> None:
    world.watched("a", 10)
    world.overlay.record_write(cached("a", 12, spec={"size": 2}))
    assert world.version() == 12
    world.watched("a", 11)
    assert world.version() == 12
    world.watched("a", 12)
    assert world.version() == 12
    assert world.entries == 0


def test_a_newer_foreign_version_replaces_the_own_write(world: World) -> None:
    world.watched("a", 10)
    world.overlay.record_write(cached("a", 12))
    world.watched("a", 13)
    assert world.version() == 13
    assert world.entries == 0


def test_an_answer_that_arrives_after_its_event_is_not_laid_over(world: World) -> None:
    world.watched("a", 12)
    world.overlay.record_write(cached("a", 12))
    world.overlay.record_write(cached("a", 11))
    assert world.entries == 0


def test_an_answer_that_arrives_while_a_list_is_stored_does_not_replace_its_newer_object(world: World) -> None:
    world.store.put(cached("a", 20))
    world.overlay.record_write(cached("a", 15))
    assert world.version() == 20


def test_an_answer_that_arrives_after_the_deletion_does_not_revive_the_object(world: World) -> None:
    world.watched("a", 12)
    world.gone("a", 13)
    world.overlay.record_write(cached("a", 12))
    assert world.version() is None
    assert world.entries == 0


def test_a_deletion_by_others_drops_the_own_write(world: World) -> None:
    world.watched("a", 10)
    world.overlay.record_write(cached("a", 12))
    world.gone("a", 13)
    assert world.version() is None


@pytest.mark.parametrize("progress", [12, 15])
def test_a_list_or_bookmark_at_its_version_drops_the_own_write(world: World, progress: int) -> None:
    world.overlay.record_write(cached("a", 12))
    world.progress = progress
    assert world.names() == []
    assert world.entries == 0


def test_of_answers_in_the_wrong_order_the_newer_one_is_kept(world: World) -> None:
    world.overlay.record_write(cached("a", 13))
    world.overlay.record_write(cached("a", 12))
    assert world.version() == 13


def test_a_deletion_hides_the_object_until_the_watch_delivers_it(world: World) -> None:
    world.watched("a", 10)
    world.overlay.record_deletion(A, "uid-a")
    assert world.version() is None
    assert world.names() == []
    world.watched("a", 11)  # an older event of the same incarnation
    assert world.version() is None
    world.gone("a", 12)
    assert world.version() is None
    assert world.entries == 0


@pytest.mark.parametrize("uid", ["", "uid-of-another"])
def test_after_a_deletion_of_an_unknown_object_the_server_is_asked(world: World, uid: str) -> None:
    world.watched("a", 10)
    world.overlay.record_deletion(A, uid)
    with pytest.raises(OverlayExpired) as caught:
        world.overlay.get(A)
    assert list(caught.value.objects) == [A]
    world.overlay.record_list(12, [], set(), world.overlay.list_baseline("prod", "a"))
    assert world.version() is None
    world.watched("a", 11)
    assert world.version() is None
    world.gone("a", 12)
    assert world.entries == 0


def test_a_deletion_does_not_hide_the_next_incarnation(world: World) -> None:
    world.watched("a", 10, uid="old")
    world.overlay.record_deletion(A, "old")
    world.watched("a", 12, uid="new")
    assert world.version() == 12
    assert world.entries == 0


def test_created_and_deleted_before_the_watch_delivers_either(world: World) -> None:
    world.overlay.record_write(cached("a", 11))
    world.overlay.record_deletion(A, "uid-a")
    assert world.version() is None
    assert world.entries == 1
    world.watched("a", 11)
    assert world.version() is None
    world.gone("a", 12)
    assert world.version() is None
    assert world.entries == 0


def test_deleted_and_created_again_before_the_watch_delivers_either(world: World) -> None:
    world.watched("a", 10, uid="old")
    world.overlay.record_deletion(A, "old")
    world.overlay.record_write(cached("a", 12, uid="new"))
    assert world.version() == 12
    world.overlay.record_deletion(A, "new")
    assert world.version() is None
    world.gone("a", 11)
    assert world.version() is None
    world.watched("a", 12, uid="new")
    assert world.version() is None
    world.gone("a", 13)
    assert world.version() is None
    assert world.entries == 0


def test_a_late_answer_to_a_write_does_not_undo_the_deletion(world: World) -> None:
    world.watched("a", 10)
    world.overlay.record_deletion(A, "uid-a")
    world.overlay.record_write(cached("a", 11))
    assert world.version() is None


def test_a_late_answer_to_a_deletion_does_not_hide_the_next_incarnation(world: World) -> None:
    world.watched("a", 10, uid="old")
    world.overlay.record_write(cached("a", 12, uid="new"))
    world.overlay.record_deletion(A, "old")
    assert world.version() == 12


def test_before_the_first_list_everything_is_kept(world: World) -> None:
    world.progress = None
    world.overlay.record_write(cached("a", 11))
    assert world.version() == 11
    world.progress = 11
    assert world.version() is None


def test_indexes_include_own_writes(world: World) -> None:
    world.store.add_index("color", lambda doc: doc["spec"]["colors"])
    world.watched("a", 10, spec={"colors": ["red"]})
    world.watched("b", 10, spec={"colors": ["red"]})
    world.overlay.record_write(cached("a", 11, spec={"colors": ["blue"]}))
    world.overlay.record_write(cached("c", 12, spec={"colors": ["red"]}))
    world.overlay.record_deletion(Request("b", "prod"), "uid-b")
    assert [obj.name for obj in world.overlay.by_index("color", "red")] == ["c"]
    assert [obj.name for obj in world.overlay.by_index("color", "blue")] == ["a"]
    assert world.overlay.by_index("color", "red", "other") == []


def test_namespaces_are_separate(world: World) -> None:
    world.overlay.record_write(cached("a", 11, namespace="x"))
    assert [obj.name for obj in world.overlay.list("x")] == ["a"]
    assert world.overlay.list("y") == []


@pytest.mark.parametrize("read", [lambda o: o.get(A), lambda o: o.list(), lambda o: o.list("prod")])
def test_after_a_minute_the_server_is_asked_and_the_read_is_counted(
    world: World, read: Callable[[Overlay], object]
) -> None:
    world.watched("a", 10)
    world.overlay.record_write(cached("a", 11))
    world.clock.time = 60.0
    read(world.overlay)
    world.clock.time = 60.1
    with pytest.raises(OverlayExpired) as caught:
        read(world.overlay)
    assert list(caught.value.objects) == [A]
    assert world.overlay.statistics().expired == 1
    with pytest.raises(OverlayExpired):  # until the server was asked
        read(world.overlay)
    world.overlay.record_list(12, [cached("a", 12)], {A}, world.overlay.list_baseline("prod", "a"))
    assert world.version() == 12


def test_a_write_that_the_watch_has_passed_does_not_expire(world: World) -> None:
    world.overlay.record_write(cached("a", 11))
    world.clock.time = 3600.0
    world.watched("a", 11)
    assert world.version() == 11
    assert world.overlay.statistics().expired == 0


def test_a_restart_clears_own_writes(world: World) -> None:
    world.overlay.record_write(cached("a", 11))
    world.overlay.clear()
    assert world.version() is None


def test_opaque_versions_are_replaced_by_the_next_event(world: World) -> None:
    world.progress = "x"
    world.store.put(cached("a", "p"))
    world.overlay.record_write(cached("a", "q"))
    assert world.version() == "q"
    world.store.put(cached("a", "r"))
    assert world.version() == "r"
    assert world.entries == 0


def test_opaque_versions_of_an_answer_that_arrives_after_its_event(world: World) -> None:
    world.progress = "x"
    world.store.put(cached("a", "q"))
    world.overlay.record_write(cached("a", "q"))
    assert world.entries == 0


def test_opaque_versions_of_a_deletion(world: World) -> None:
    world.progress = "x"
    world.store.put(cached("a", "p"))
    world.overlay.record_deletion(A, "uid-a")
    assert world.version() is None
    world.store.put(cached("a", "s", uid="new"))
    assert world.version() == "s"


def test_of_lists_in_the_wrong_order_the_newer_one_is_kept(world: World) -> None:
    first, second = (world.overlay.list_baseline("prod") for _ in range(2))
    world.overlay.record_list(18, [], set(), second)
    world.overlay.record_list(15, [], {A}, first)
    world.watched("a", 16)
    assert world.version() is None
    world.gone("a", 18)
    assert world.version() is None


def test_a_response_that_does_not_end_the_doubt_is_not_forgotten(world: World) -> None:
    earlier = world.overlay.baseline(A)
    world.overlay.invalidate(A)
    later = world.overlay.baseline(A)
    world.overlay.record_write(cached("a", 16), earlier)
    world.overlay.record_write(cached("a", 15), later)  # sent last, executed first
    with pytest.raises(OverlayExpired):
        world.overlay.get(A)
    world.overlay.record_write(cached("a", 17), world.overlay.baseline(A))
    assert world.version() == 17


def test_if_there_are_too_many_own_writes_everything_must_be_listed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CAPACITY", 10)
    for number in range(25):
        world.overlay.record_write(cached(f"n{number}", 11 + number))
    assert (world.entries, world.overlay.statistics().dropped) == (4, 22)
    before = world.overlay.list_baseline()
    for read in (lambda: world.overlay.get(Request("n3", "prod")), world.overlay.list):
        with pytest.raises(OverlayExpired) as caught:
            read()
        assert caught.value.everything
    world.progress = 100
    world.overlay.record_refresh(before)
    assert world.names() == []
    world.overlay.record_write(cached("last", 101))
    assert world.entries == 1


@pytest.mark.parametrize("capacity", [3, 10_000])
def test_a_reader_never_goes_back(monkeypatch: pytest.MonkeyPatch, capacity: int) -> None:
    monkeypatch.setattr(module, "CAPACITY", capacity)
    for seed in range(examples(4000)):
        OverlayModel(seed).run(60)
