"""The reports that a cycle records, and those that it ignores."""

from __future__ import annotations

import asyncio
import os

import pytest

from reconciler.controller.reconcile.cycle import Reconcile, ReconcileContext, ReconcileRun, UnsavedStore
from reconciler.controller.wake.echo import EchoTracker
from reconciler.meta import GroupVersionKind, Request

GVK = GroupVersionKind("example.com", "v1", "Widget")
KEY, OTHER = Request("w", "ns"), Request("other", "ns")


@pytest.fixture
def tracker() -> EchoTracker[Request]:
    made: EchoTracker[Request] = EchoTracker()
    made.begin(KEY)
    return made


@pytest.fixture
async def cycle(tracker) -> Reconcile:
    run = ReconcileRun("widget", KEY, frozenset({"event"}), 2, 0)
    made = Reconcile(ReconcileContext(GVK, tracker, UnsavedStore(), asyncio.get_running_loop()), run)
    made.set_basis("u", 5)
    return made


async def test_reads_and_writes_of_the_own_object_are_recorded(cycle, tracker) -> None:
    cycle.saw(GVK, KEY, "u", 5)
    cycle.wrote(GVK, KEY, "u", before=5, after=6, exact=True)
    tracker.finish(KEY)
    assert tracker.seen(KEY) == 6


@pytest.mark.parametrize(
    ("gvk", "request_"),
    [
        (GVK, OTHER),
        (GVK, Request("w", "elsewhere")),
        (GVK._replace(kind="Gadget"), KEY),
        (GVK._replace(group="other.io"), KEY),
    ],
)
async def test_other_objects_and_kinds_are_ignored(cycle, tracker, gvk, request_) -> None:
    cycle.saw(GVK, KEY, "u", 5)
    cycle.saw(gvk, request_, "u", 3)
    cycle.wrote(gvk, request_, "u", before=5, after=6, exact=True)
    tracker.finish(KEY)
    assert tracker.seen(KEY) == 5
    assert tracker.seen(OTHER) is None


async def test_another_version_of_the_api_is_the_same_kind(cycle, tracker) -> None:
    cycle.saw(GVK._replace(version="v1beta1"), KEY, "u", 5)
    tracker.finish(KEY)
    assert tracker.seen(KEY) == 5


async def test_another_object_of_the_same_name_is_ignored(cycle, tracker) -> None:
    cycle.saw(GVK, KEY, "u", 5)
    cycle.saw(GVK, KEY, "another", 3)
    cycle.wrote(GVK, KEY, "another", before=5, after=6, exact=True)
    tracker.finish(KEY)
    assert tracker.seen(KEY) == 5


async def test_reports_after_the_end_are_ignored(cycle, tracker) -> None:
    """They come from a task that outlived its reconcile, while the key is in progress again."""
    cycle.saw(GVK, KEY, "u", 5)
    cycle.end(0.1)
    tracker.finish(KEY)
    tracker.begin(KEY)
    tracker.set_basis(KEY, 5)
    cycle.saw(GVK, KEY, "u", 3)
    cycle.wrote(GVK, KEY, "u", before=3, after=9, exact=True)
    tracker.finish(KEY)
    assert tracker.seen(KEY) == 5


async def test_reports_of_a_thread_are_transferred_to_the_loop(cycle, tracker) -> None:
    """Reports of a blocking batcher in a thread arrive before the end of the reconcile does."""

    def body():
        cycle.saw(GVK, KEY, "u", 5)
        cycle.wrote(GVK, KEY, "u", before=5, after=6, exact=True)
        cycle.keep_unsaved("u", "mutations")
        return cycle.take_unsaved("u")

    async def reconcile():
        return await asyncio.get_running_loop().run_in_executor(None, body)

    assert await asyncio.create_task(reconcile()) == "mutations"  # as a worker awaits it
    cycle.end(0.1)
    tracker.finish(KEY)
    assert tracker.seen(KEY) == 6


async def test_log_fields_describe_the_reconcile(cycle) -> None:
    assert cycle.run.log_fields() == {
        "controller": "widget",
        "object_namespace": "ns",
        "object_name": "w",
        "reconcile_id": cycle.reconcile_id,
        "reasons": ["event"],
        "attempt": 2,
    }
    assert (cycle.gvk, cycle.request, cycle.controller) == (GVK, KEY, "widget")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_ids_differ_in_forked_processes() -> None:
    """Each child prints the id of its first reconcile."""
    told = []
    for _ in range(2):
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(write, ReconcileRun("widget", KEY, frozenset(), 0, 0).reconcile_id.encode())
            os._exit(0)
        os.close(write)
        os.waitpid(child, 0)
        told.append(os.read(read, 100))
        os.close(read)
    assert len(set(told)) == 2
