"""How far four flows walk through the library: its files, calls of its functions, and changes of file.

    python -m tests.benchmarks.flow [--json]

A resumed coroutine counts once. Each flow runs once before it is counted, so imports and caches do not count.
"""

# ruff: noqa: T201 - a script that prints its findings

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import reconciler
from reconciler import Client, Manager, ObjectMeta, Outcome, ResourceReconciler, Result, StatusBatcher
from reconciler.apiserver import APIServer
from reconciler.notification import NotificationOperator, NotificationOptions
from reconciler.testing import virtual_time
from tests.benchmarks.contenders.widget import Widget, WidgetSpec, WidgetStatus
from tests.notification.world import Recorder, world

ROOT = f"{Path(reconciler.__file__).parent}{os.sep}"
SERVER = ("apiserver/", "testing/")
EXAMPLES = Path(__file__).parents[2] / "examples"


class Steps(NamedTuple):
    """The length of a walk."""

    files: int
    calls: int
    changes: int


class Tracer:
    """Records the file of each function of the library that is called, while it is on."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self._frames: set[Any] = set()
        self._on = False

    def __call__(self, frame: Any, event: str, _: Any) -> None:
        """Called by the interpreter for each call and return."""
        if self._on and event == "call" and frame.f_code.co_filename.startswith(ROOT) and frame not in self._frames:
            self._frames.add(frame)
            self.calls.append(frame.f_code.co_filename[len(ROOT) :])

    def start(self) -> None:
        """Forget what was recorded, and record."""
        self.calls, self._frames, self._on = [], set(), True

    def stop(self) -> None:
        """Stop recording."""
        self._on = False


def steps(calls: list[str]) -> Steps:
    """Return the length of a walk from the files of its calls."""
    changes = sum(1 for before, after in pairwise(calls) if before != after)
    return Steps(len(set(calls)), len(calls), changes)


def from_cache(calls: list[str]) -> Steps:
    """Return the walk from the first watch event on, without the server's part."""
    calls = [call for call in calls if not call.startswith(SERVER)]
    return steps(calls[next(index for index, call in enumerate(calls) if call.startswith("cache/")) :])


class Widgets(ResourceReconciler[Widget]):
    """Writes a status for each change."""

    async def reconcile_object(self, widget: Widget, status: StatusBatcher[WidgetStatus]) -> Outcome:
        """Write the size into the status."""
        status.set(run=f"Ready-{widget.spec.size}")
        status.set_condition("Ready", True, reason="Provisioned", message=f"{widget.spec.size} GB")
        return Result(requeue_after=300)


async def event_and_get(tracer: Tracer) -> dict[str, Steps]:
    """Change an object that a controller reconciles, and read it."""
    async with APIServer() as server, Client(server) as client:
        await server.apply(Widget)
        manager = Manager(client)
        manager.add_controller(Widgets())
        async with manager.running():
            metadata = ObjectMeta(name="one", namespace="default")
            await client.create(Widget(metadata=metadata, spec=WidgetSpec(size=3)))
            await asyncio.sleep(5)
            for size in (4, 5):
                widget = await client.get(Widget, "one", "default")
                widget.spec.size = size
                tracer.start()
                await client.update(widget)
                await asyncio.sleep(5)
                tracer.stop()
            event = from_cache(tracer.calls)
            tracer.start()
            await client.get(Widget, "one", "default")
            tracer.stop()
    served = [call for call in tracer.calls if call.startswith(("apiserver/", "http.py", "_core/", "clock.py"))]
    return {"watch event to status write and echo": event, "get, the server's part": steps(served)}


def flush(tracer: Tracer) -> dict[str, Steps]:
    """Write a status with the batcher over an official client."""
    sys.path.insert(0, str(EXAMPLES))
    from demo_cluster import GROUP, NAME, PLURAL, VERSION, cluster
    from kubernetes import client, config

    with cluster() as demo:
        config.load_kube_config(demo.kubeconfig)
        demo.make(namespace="x")
        api = client.CustomObjectsApi()
        for number in (1, 2, 3):
            obj = api.get_namespaced_custom_object(GROUP, VERSION, "x", PLURAL, NAME)
            tracer.start()
            sys.setprofile(tracer)
            with StatusBatcher(api, obj) as status:
                status.append("attempts", {"attempt": number, "result": "ok"}, keep_last=50)
                status.increment("total")
                status.set(phase=f"S{number}")
            sys.setprofile(None)
            tracer.stop()
    return {"flush over an official client": steps(tracer.calls)}


async def notification(tracer: Tracer) -> dict[str, Steps]:
    """Deliver a notification over one channel."""
    async with world() as here:
        options = NotificationOptions(console=False, log=False, channels=[Recorder("pager")])
        manager = Manager(here.client)
        NotificationOperator(options).add_to(manager)
        async with manager.running():
            for name in ("warm", "one"):
                tracer.start()
                await here.create("pager", name=name)
                await asyncio.sleep(5)
                tracer.stop()
    return {"notification over one channel": from_cache(tracer.calls)}


def traced(tracer: Tracer, flow: Callable[[Tracer], Coroutine[Any, Any, dict[str, Steps]]]) -> dict[str, Steps]:
    """Run a flow on virtual time with the tracer in each thread."""
    sys.setprofile(tracer)
    threading.setprofile(tracer)
    try:
        with virtual_time():
            return asyncio.run(flow(tracer))
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]


def measure() -> dict[str, Steps]:
    """Return the length of each walk."""
    tracer = Tracer()
    return traced(tracer, event_and_get) | flush(tracer) | traced(tracer, notification)


def main() -> None:
    """Print the length of each walk."""
    found = measure()
    if "--json" in sys.argv:
        print(json.dumps(found))
        return
    for name, walk in found.items():
        print(f"{name:40} files {walk.files:4}  calls {walk.calls:5}  changes of file {walk.changes:4}")


if __name__ == "__main__":
    main()
