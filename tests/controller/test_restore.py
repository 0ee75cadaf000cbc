"""A restored backup of etcd: versions go back, uids stay. The informer is a fake."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from reconciler.cache import CacheEvent, EventType
from reconciler.cache.decoding import cached_object
from reconciler.controller import Controller
from reconciler.controller.wake.handlers import LOW_PRIORITY
from reconciler.meta import Request
from reconciler.meta.cycle import current_cycle
from tests.controller.conftest import KeyReconciler, Widget, quiet

pytestmark = pytest.mark.virtual_time


class Informer:
    """An informer whose server is the test."""

    resource = Widget.resource_type
    last_error = None

    def __init__(self) -> None:
        self.store: dict[Request, object] = {}
        self.handlers: list = []
        self.restarts: list = []

    def add_handler(self, handler, *, existing=True):
        self.handlers.append(handler)
        return SimpleNamespace(remove=lambda: self.handlers.remove(handler))

    async def deliver_existing(self, registration) -> None:
        pass

    def on_restart(self, callback) -> None:
        self.restarts.append(callback)

    async def wait_synced(self, _seconds=None) -> None:
        pass

    def put(self, name: str, version: int) -> CacheEvent:
        metadata = {"name": name, "namespace": "ns", "uid": f"uid-of-{name}", "resourceVersion": str(version)}
        new = cached_object({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": metadata})
        old = self.store.get(new.request)
        self.store[new.request] = new
        return CacheEvent(EventType.UPDATED if old else EventType.ADDED, old=old, new=new)

    def change(self, name: str, version: int) -> None:
        event = self.put(name, version)
        for handler in self.handlers:
            handler(event)


class Store(dict):
    def __iter__(self):
        return iter(self.values())


@pytest.fixture
async def informer():
    made = Informer()
    made.store = Store()
    return made


@pytest.fixture
async def reconciler(informer):
    async def body(reconciler, request):
        cached = informer.store[request]
        current_cycle.get().saw(Widget.gvk, request, cached.uid, cached.version)
        reconciler.seen.append((request.name, cached.version, sorted(reconciler.run.reasons), reconciler.run.priority))

    made = KeyReconciler(body)
    made.seen = []

    async def find(kind):
        return informer

    cache = SimpleNamespace(informer=find)
    live = SimpleNamespace(session=SimpleNamespace(connection=SimpleNamespace(rng=None)))
    client = SimpleNamespace(live=live, through=lambda _wrap: client)
    controller = Controller(made, resource=Widget, cache=cache, client=client)
    await controller.start()
    yield made
    await controller.stop()


async def test_lower_versions_after_a_restore_are_news(informer, reconciler) -> None:
    informer.change("a", 500)
    informer.change("still", 400)
    await quiet()
    reconciler.seen.clear()
    events = [informer.put("a", 20)]
    for callback in informer.restarts:
        callback()
    for event in events:
        informer.handlers[0](event)
    await quiet()
    assert reconciler.seen == [("a", 20, ["event", "restart"], 0), ("still", 400, ["restart"], LOW_PRIORITY)]
    reconciler.seen.clear()
    informer.change("a", 21)
    await quiet()
    assert reconciler.seen == [("a", 21, ["event"], 0)]


async def test_lower_versions_without_a_restore_are_not_news(informer, reconciler) -> None:
    informer.change("a", 500)
    await quiet()
    reconciler.seen.clear()
    informer.change("a", 20)
    await quiet()
    assert reconciler.seen == []
