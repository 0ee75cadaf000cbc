"""What a recording adds to a reconcile, in calls of this library's functions. Never in seconds."""

from __future__ import annotations

import asyncio
import cProfile
from pathlib import Path

import pytest

from reconciler import Client, Manager
from reconciler.apiserver import APIServer
from reconciler.recording import Recording, Trace
from reconciler.recording.collector import RecordedClient
from tests.benchmarks.contenders.widget import Widget, widget
from tests.benchmarks.test_counts import Once, library_calls

pytestmark = pytest.mark.virtual_time

OBJECTS = 100


async def calls(trace: Trace | None, parts: tuple[str, ...]) -> float:
    """Return the calls for each object, of modules whose path has one of these parts."""
    async with APIServer() as server, Client(server) as client:
        await server.apply(Widget)
        for number in range(OBJECTS):
            await server.apply(widget(number, "default"))
        manager = Manager(client, recording=trace)
        controller = manager.add_controller(Once(), workers=10)
        assert isinstance(controller.reconciler.client, RecordedClient) == (trace is not None)
        profile = cProfile.Profile()
        async with manager.running():
            profile.enable()
            await asyncio.sleep(60)
            profile.disable()
        assert controller.statistics().reconciles == OBJECTS
    return library_calls(profile, parts) / OBJECTS


async def test_a_recording_adds_few_calls_and_none_if_it_is_off() -> None:
    assert await calls(None, ("/recording/",)) == 0
    found = await calls(Trace(), ("/recording/",))
    assert 0 < found <= 22  # 21.2; each locks what several threads count


async def test_the_thread_makes_few_calls_for_a_reconcile_whose_documents_it_knows(tmp_path: Path) -> None:
    await calls(trace := Trace(), ())
    recording = Recording(tmp_path)
    profile = cProfile.Profile()
    for write in (recording._write, lambda: profile.runcall(recording._write)):
        for each in trace.traces:
            recording.ended(each)
        write()
    assert recording.statistics().reconciles == 2 * OBJECTS
    assert recording._segment is not None
    recording._segment.close()
    assert 0 < library_calls(profile, ("/recording/",)) / OBJECTS <= 63  # 61.2
