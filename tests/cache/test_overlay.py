"""The overlay: own writes over the store, until the watch has passed them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.cache import overlay as module
from reconciler.cache.overlay import Overlay, OverlayExpired
from reconciler.cache.store import WritableStore
from reconciler.meta import Request, Version
from tests.cache.scripted import cached
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


def test_a_deletion_answered_without_a_uid_applies_to_the_visible_object(world: World) -> None:
    world.watched("a", 10)
    world.overlay.record_deletion(A)
    assert world.version() is None
    world.overlay.record_deletion(Request("b", "prod"))
    assert world.entries == 1


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
    world.overlay.resolve(A, caught.value.objects[A])
    assert world.version() == 10


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


def test_nothing_grows_without_bound(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CAPACITY", 10)
    for number in range(25):
        world.overlay.record_write(cached(f"n{number}", 11 + number))
    assert (world.entries, world.overlay.statistics().dropped) == (10, 15)
    world.progress = 100
    world.overlay.record_write(cached("last", 101))
    assert world.entries == 1


class _Server:
    """Versions of one key as stored by a server, and a watch that follows at its own pace."""

    def __init__(self) -> None:
        self.world = World()
        self.version = 10
        self.stored: tuple[int, str] | None = None  # version and uid
        self.history: list[tuple[int, tuple[int, str] | None]] = []  # what the watch will deliver

    def write(self, deletes: bool) -> None:
        self.version += 1
        if deletes:
            if self.stored is None:
                return
            uid, self.stored = self.stored[1], None
            self.world.overlay.record_deletion(A, uid)
        else:
            uid = self.stored[1] if self.stored is not None else f"u{self.version}"
            self.stored = (self.version, uid)
            self.world.overlay.record_write(cached("a", self.version, uid=uid))
        self.history.append((self.version, self.stored))

    def follow(self, steps: int) -> None:
        for version, stored in self.history[:steps]:
            if stored is None:
                self.world.gone("a", version)
            else:
                self.world.watched("a", stored[0], uid=stored[1])
        del self.history[:steps]


@settings(deadline=None, max_examples=examples(300))
@given(st.lists(st.one_of(st.booleans(), st.integers(1, 3)), max_size=25))
def test_a_sole_writer_always_reads_its_last_write(steps: list[bool | int]) -> None:
    server = _Server()
    for step in steps:
        if isinstance(step, bool):
            server.write(step)
        else:
            server.follow(step)
        found = server.world.overlay.get(A)
        assert (None if found is None else (found.version, found.uid)) == server.stored
    server.follow(len(server.history))
    server.world.overlay.get(A)
    assert server.world.entries == 0
