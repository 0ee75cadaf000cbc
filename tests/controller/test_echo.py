"""Each row of the echo table, on the tracker alone."""

from __future__ import annotations

import itertools

import pytest

from reconciler.controller.wake.echo import EchoTracker, Wake


@pytest.fixture
def tracker() -> EchoTracker[str]:
    return EchoTracker()


def cycle(tracker: EchoTracker[str], *versions: int | str) -> Wake | None:
    """Record a reconcile that starts at the first version and writes the others, each on the previous one."""
    tracker.begin("k")
    tracker.set_basis("k", versions[0])
    for before, after in itertools.pairwise(versions):
        tracker.record_write("k", before=before, after=after, exact=True)
    return tracker.finish("k")


def test_every_event_of_an_unknown_key_is_enqueued(tracker):
    assert tracker.must_enqueue("k", 1)


def test_the_version_read_is_observed_after_the_reconcile(tracker):
    cycle(tracker, 5)
    assert not tracker.must_enqueue("k", 5)
    assert not tracker.must_enqueue("k", 4)
    assert tracker.must_enqueue("k", 6)


def test_own_write_on_tip_is_observed_and_its_late_event_is_dropped(tracker):
    cycle(tracker, 5, 6)
    assert not tracker.must_enqueue("k", 6)
    assert tracker.must_enqueue("k", 7)


def test_event_before_the_answer_to_our_write_does_not_overtake(tracker):
    tracker.begin("k")
    tracker.set_basis("k", 5)
    assert not tracker.must_enqueue("k", 6)  # whether it is an echo is not known yet
    tracker.record_write("k", before=5, after=6, exact=True)
    assert not tracker.finish("k")


def test_event_after_the_answer_and_before_the_end_does_not_overtake(tracker):
    tracker.begin("k")
    tracker.set_basis("k", 5)
    tracker.record_write("k", before=5, after=6, exact=True)
    assert not tracker.must_enqueue("k", 6)  # seen rises only at the end of the reconcile
    assert not tracker.finish("k")


def test_foreign_change_while_in_progress_overtakes(tracker):
    tracker.begin("k")
    tracker.set_basis("k", 5)
    tracker.must_enqueue("k", 6)
    assert tracker.finish("k")


def test_foreign_change_after_our_write_overtakes(tracker):
    tracker.begin("k")
    tracker.set_basis("k", 5)
    tracker.record_write("k", before=5, after=6, exact=True)
    tracker.must_enqueue("k", 6)
    tracker.must_enqueue("k", 7)
    assert tracker.finish("k")


def test_event_of_the_version_read_does_not_overtake(tracker):
    tracker.begin("k")
    tracker.set_basis("k", 5)
    tracker.must_enqueue("k", 5)  # the store already had it
    assert not tracker.finish("k")


def test_replay_on_a_foreign_version_is_not_own(tracker):
    tracker.begin("k")
    tracker.set_basis("k", 5)
    tracker.record_write("k", before=6, after=7, exact=True)  # 6 is foreign: the write was replayed on it
    tracker.finish("k")
    assert tracker.must_enqueue("k", 7)  # as after a list that shows only 7


def test_nothing_is_own_after_a_replay(tracker):
    tracker.begin("k")
    tracker.set_basis("k", 5)
    tracker.record_write("k", before=6, after=7, exact=True)
    tracker.record_write("k", before=7, after=8, exact=True)
    tracker.finish("k")
    assert tracker.must_enqueue("k", 8)


def test_answer_that_differs_from_what_was_computed_is_not_own(tracker):
    tracker.begin("k")
    tracker.set_basis("k", 5)
    tracker.record_write("k", before=5, after=6, exact=False)  # a webhook wrote into our version
    tracker.finish("k")
    assert tracker.must_enqueue("k", 6)


def test_event_after_a_lost_response_wakes_once(tracker):
    cycle(tracker, 5)
    assert tracker.must_enqueue("k", 6)
    cycle(tracker, 6)
    assert not tracker.must_enqueue("k", 6)


def test_no_op_write_changes_nothing(tracker):
    cycle(tracker, 5, 5)
    assert tracker.seen("k") == 5


def test_the_lowest_version_read_is_the_basis(tracker):
    tracker.begin("k")
    tracker.set_basis("k", 7)
    tracker.record_read("k", 5)
    tracker.record_read("k", 9)
    tracker.record_write("k", before=7, after=10, exact=True)
    tracker.finish("k")
    assert tracker.seen("k") == 5


def test_a_read_newer_than_the_store_is_not_the_basis(tracker):
    tracker.begin("k")
    tracker.set_basis("k", 5)
    tracker.record_read("k", 6)  # read from the server; something else was read before, through whatever client
    tracker.record_write("k", before=6, after=7, exact=True)
    tracker.must_enqueue("k", 6)
    assert tracker.finish("k")
    assert tracker.seen("k") == 5


def test_store_that_is_behind_own_writes_keeps_the_chain(tracker):
    cycle(tracker, 5, 6)
    assert cycle(tracker, 5) is None  # the store does not have 6 yet
    tracker.begin("k")
    tracker.set_basis("k", 5)
    tracker.record_write("k", before=6, after=7, exact=True)
    tracker.must_enqueue("k", 6)
    tracker.must_enqueue("k", 7)
    assert tracker.finish("k") is None
    assert tracker.seen("k") == 7


def test_own_writes_on_a_foreign_version_count_once_that_is_observed(tracker):
    tracker.begin("k")
    tracker.set_basis("k", 5)
    tracker.record_write("k", before=6, after=7, exact=True)  # 6 is foreign
    tracker.must_enqueue("k", 6)
    assert tracker.finish("k")
    tracker.begin("k")
    tracker.set_basis("k", 6)  # the store is behind
    tracker.record_write("k", before=7, after=8, exact=True)
    tracker.must_enqueue("k", 7)
    assert tracker.finish("k") is None
    assert tracker.seen("k") == 8
    assert not tracker.must_enqueue("k", 8)


def test_object_that_was_absent_at_the_start_is_not_observed(tracker):
    tracker.begin("k")
    tracker.set_basis("k", None)
    tracker.record_read("k", 5)
    tracker.record_write("k", before=5, after=6, exact=True)
    tracker.must_enqueue("k", 5)
    assert tracker.finish("k")
    assert tracker.seen("k") is None


def test_held_events_are_one_wake_up_with_the_highest_priority_and_the_earliest_time(tracker):
    tracker.begin("k")
    tracker.set_basis("k", 5)
    tracker.must_enqueue("k", 6, Wake(-100, 30.0))
    tracker.must_enqueue("k", 7, Wake(0, 40.0))
    assert tracker.finish("k") == Wake(0, 30.0)
    tracker.begin("k")
    tracker.set_basis("k", 7)
    tracker.must_enqueue("k", 8, Wake(0, 30.0))
    tracker.must_enqueue("k", 9, Wake(0, None))
    assert tracker.finish("k") == Wake(0, None)


def test_reading_back_an_own_write_keeps_the_tip(tracker):
    tracker.begin("k")
    tracker.set_basis("k", 5)
    tracker.record_write("k", before=5, after=6, exact=True)
    tracker.record_read("k", 6)
    tracker.record_read("k", 5)  # a helper still has the object from the start of the reconcile
    tracker.finish("k")
    assert tracker.seen("k") == 6


def test_write_on_another_version_than_the_basis_is_not_own(tracker):
    tracker.begin("k")
    tracker.set_basis("k", 4)
    tracker.record_write("k", before=5, after=6, exact=True)
    tracker.finish("k")
    assert tracker.seen("k") == 4


def test_seen_never_falls(tracker):
    cycle(tracker, 9)
    cycle(tracker, 5)  # a read from a cache that is behind
    assert tracker.seen("k") == 9


def test_reconcile_without_a_reported_read_observes_the_version_at_its_start(tracker):
    cycle(tracker, 5)
    tracker.begin("k")
    tracker.set_basis("k", 6)
    tracker.must_enqueue("k", 7)
    assert tracker.finish("k")
    assert tracker.seen("k") == 6


def test_deletion_forgets_the_observed_version(tracker):
    cycle(tracker, 5)
    tracker.forget("k")
    assert tracker.must_enqueue("k", 3)
    assert tracker.statistics().known == 0


def test_deletion_while_in_progress_leaves_nothing_behind(tracker):
    tracker.begin("k")
    tracker.set_basis("k", 5)
    tracker.forget("k")
    tracker.record_write("k", before=5, after=6, exact=True)
    tracker.finish("k")
    assert tracker.statistics().known == 0
    assert tracker.statistics().in_progress == 0


def test_restored_backup_forgets_all_versions_and_the_reads_in_progress(tracker):
    cycle(tracker, 500)
    tracker.begin("other")
    tracker.set_basis("other", 600)
    tracker.forget_all()
    tracker.finish("other")
    assert tracker.must_enqueue("k", 20)
    assert tracker.must_enqueue("other", 21)


def test_two_trackers_are_independent(tracker):
    cycle(tracker, 5, 6)
    assert EchoTracker[str]().must_enqueue("k", 6)


def test_without_own_writes_the_echo_wakes_as_in_controller_runtime():
    tracker: EchoTracker[str] = EchoTracker(own_writes=False)
    tracker.begin("k")
    tracker.set_basis("k", 5)
    tracker.record_write("k", before=5, after=6, exact=True)
    tracker.must_enqueue("k", 6)
    assert tracker.finish("k")
    assert tracker.must_enqueue("k", 6)


def test_drops_and_overtaken_reconciles_are_counted(tracker):
    cycle(tracker, 5)
    tracker.must_enqueue("k", 5)
    tracker.begin("k")
    tracker.set_basis("k", 5)
    tracker.must_enqueue("k", 6)
    tracker.finish("k")
    assert (tracker.statistics().dropped, tracker.statistics().overtaken) == (1, 1)


class TestOpaqueVersions:
    """Versions that are not numbers: only membership in the chain of the last reconcile counts."""

    def test_versions_of_the_chain_are_dropped(self, tracker):
        cycle(tracker, "a", "b", "c")
        assert [tracker.must_enqueue("k", v) for v in "abc"] == [False, False, False]

    def test_any_other_version_is_news_even_an_older_one(self, tracker):
        cycle(tracker, "m")
        assert tracker.must_enqueue("k", "a")
        assert tracker.must_enqueue("k", "z")

    def test_only_the_last_reconcile_counts(self, tracker):
        cycle(tracker, "a", "b")
        cycle(tracker, "c")
        assert tracker.must_enqueue("k", "b")
        assert not tracker.must_enqueue("k", "c")

    def test_event_before_the_answer_does_not_overtake(self, tracker):
        tracker.begin("k")
        tracker.set_basis("k", "a")
        tracker.must_enqueue("k", "b")
        tracker.record_write("k", before="a", after="b", exact=True)
        assert not tracker.finish("k")

    def test_foreign_event_among_own_ones_overtakes(self, tracker):
        tracker.begin("k")
        tracker.set_basis("k", "a")
        tracker.must_enqueue("k", "x")
        tracker.must_enqueue("k", "b")
        tracker.record_write("k", before="a", after="b", exact=True)
        assert tracker.finish("k")

    def test_two_different_first_reads_observe_nothing(self, tracker):
        tracker.begin("k")
        tracker.set_basis("k", "b")
        tracker.record_read("k", "a")
        tracker.finish("k")
        assert tracker.must_enqueue("k", "a")
        assert tracker.must_enqueue("k", "b")

    def test_memory_of_a_reconcile_is_bounded(self, tracker):
        tracker.begin("k")
        tracker.set_basis("k", "0")
        for n in range(1000):
            tracker.must_enqueue("k", f"v{n}")
        assert tracker.finish("k")
