"""Predicates: which events pass."""

from __future__ import annotations

import pytest

from reconciler.cache import CacheEvent, EventType
from reconciler.cache.decoding import cached_object
from reconciler.controller import (
    Predicate,
    annotations_changed,
    generation_changed,
    labels_changed,
    labels_match,
    resource_version_changed,
)
from reconciler.controller.wake.handlers import matters
from reconciler.meta import GroupVersionKind

GVK = GroupVersionKind("example.com", "v1", "Widget")


def obj(version: int = 1, **metadata):
    return cached_object(
        {
            "apiVersion": "example.com/v1",
            "kind": "Widget",
            "metadata": {"name": "w", "namespace": "ns", "uid": "u", "resourceVersion": str(version)} | metadata,
        }
    )


def update(old, new) -> CacheEvent:
    return CacheEvent(EventType.UPDATED, old=old, new=new)


CHANGES = {
    generation_changed: ({"generation": 1}, {"generation": 2}),
    labels_changed: ({"labels": {"a": "1"}}, {"labels": {"a": "2"}}),
    annotations_changed: ({"annotations": {"a": "1"}}, {"annotations": {"a": "2"}}),
    resource_version_changed: ({"resourceVersion": "1"}, {"resourceVersion": "2"}),
}


@pytest.mark.parametrize("predicate", CHANGES, ids=repr)
def test_change_predicates_pass_their_change_and_no_other(predicate):
    for other, (before, after) in CHANGES.items():
        same = {"generation": 1}
        event = update(obj(**(same | before)), obj(**(same | after)))
        assert predicate(event) is (predicate is other)


@pytest.mark.parametrize("predicate", CHANGES, ids=repr)
def test_change_predicates_judge_updates_alone(predicate):
    one = obj(generation=1)
    assert predicate(CacheEvent(EventType.ADDED, new=one))
    assert predicate(CacheEvent(EventType.DELETED, old=one))
    assert predicate(CacheEvent(EventType.RESYNC, old=one, new=one))


def test_generation_changed_passes_everything_of_kinds_without_generation():
    assert generation_changed(update(obj(1), obj(2)))


def test_generation_changed_passes_the_mark_of_deletion():
    dying = obj(2, generation=1, deletionTimestamp="2026-01-01T00:00:00Z")
    assert generation_changed(update(obj(1, generation=1), dying))


@pytest.mark.parametrize("predicate", CHANGES, ids=repr)
def test_another_object_of_the_same_name_is_no_update(predicate):
    same = {"generation": 1, "resourceVersion": "1"}
    assert not predicate(update(obj(**same), obj(**same)))
    assert predicate(update(obj(**same), obj(**same, uid="another")))


def test_labels_match_passes_what_is_selected_or_was():
    web, bare = obj(labels={"app": "web", "tier": "a"}), obj()
    for predicate in (labels_match("app=web, tier in (a,b)"), labels_match({"app": "web"})):
        assert predicate(CacheEvent(EventType.ADDED, new=web))
        assert predicate(CacheEvent(EventType.DELETED, old=web))
        assert predicate(update(web, bare))  # it left the selection
        assert predicate(update(bare, web))
        assert not predicate(update(bare, bare))
        assert not predicate(CacheEvent(EventType.ADDED, new=bare))
    with pytest.raises(ValueError, match="not a valid label requirement"):
        labels_match("app in web")


def test_events_are_passed_by_type():
    ignores_deletions = ~Predicate.of_types(EventType.DELETED)
    assert repr(ignores_deletions) == "~of_types(DELETED)"
    assert not ignores_deletions(CacheEvent(EventType.DELETED, old=obj()))
    assert ignores_deletions(CacheEvent(EventType.ADDED, new=obj()))


def test_predicates_combine():
    yes = Predicate(lambda event: True, name="yes")
    no = Predicate(lambda event: False, name="no")
    event = CacheEvent(EventType.ADDED, new=obj())
    assert [(yes & no)(event), (yes | no)(event), (~no)(event)] == [False, True, True]
    assert repr((yes & ~no) | no) == "((yes & ~no) | no)"

    def plain(event) -> bool:
        return False

    assert not (yes & plain)(event)
    assert repr(yes | plain) == "(yes | plain)"


def test_predicate_of_the_object_judges_the_new_one_and_the_last_of_a_deletion():
    def labelled(one) -> bool:
        return "a" in one.labels

    predicate = Predicate.of_object(labelled)
    assert repr(predicate) == "labelled"
    bare, with_label = obj(1), obj(2, labels={"a": "1"})
    assert predicate(update(bare, with_label))
    assert not predicate(update(with_label, bare))
    assert predicate(CacheEvent(EventType.DELETED, old=with_label))


def test_all_predicates_must_pass_and_none_lets_everything_pass():
    event = CacheEvent(EventType.ADDED, new=obj())
    assert matters([], event)
    assert not matters([lambda event: True, lambda event: False], event)
