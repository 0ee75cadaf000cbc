"""Spans as shown in a tracing system, and no cost if the package is not installed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from reconciler import Client, Manager, Outcome, Reconciler, Request, Result, StatusBatcher, TerminalError
from reconciler.apiserver import APIServer
from reconciler.controller import ResourceReconciler
from reconciler.objects import Unstructured
from reconciler.telemetry.tracing import tracer


class Maps(Reconciler):
    def __init__(self) -> None:
        self.fails: BaseException | None = None

    async def reconcile(self, request: Request, /) -> Outcome:
        if self.fails is not None:
            raise self.fails
        await self.client.live.get("v1/ConfigMap", request.name, request.namespace)
        return Result(requeue_after=60)


class Pods(ResourceReconciler[Unstructured], resource="v1/Pod"):
    async def reconcile_object(self, obj: Unstructured, status: StatusBatcher, /) -> Outcome:
        status.set(phase="Running")
        return None


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    made = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(made))
    # There is no public way to set a second provider, or to go back: other tests count the calls without spans.
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    tracer.cache_clear()
    yield made
    tracer.cache_clear()


def named(spans: InMemorySpanExporter, name: str) -> ReadableSpan:
    return next(span for span in spans.get_finished_spans() if span.name == name)


async def reconciled(reconciler: Reconciler, document: dict[str, object], resource: str) -> None:
    async with APIServer() as server, Client(server) as client:
        manager = Manager(client)
        manager.add_controller(reconciler, resource=resource)
        async with manager.running():
            await client.create(document)
            await asyncio.sleep(1)


def config_map() -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "default"}}


@pytest.mark.virtual_time
async def test_reconcile_is_a_span_with_its_requests_as_children(spans: InMemorySpanExporter) -> None:
    await reconciled(Maps(), config_map(), "v1/ConfigMap")
    reconcile = named(spans, "reconcile configmap")
    paths = {str((each.attributes or {}).get("url.path")): each for each in spans.get_finished_spans()}
    get = paths["/api/v1/namespaces/default/configmaps/a"]
    attributes = dict(reconcile.attributes or {})
    identity = str(attributes.pop("reconciler.id"))
    assert len(identity) == 36
    assert attributes == {
        "k8s.object.name": "a",
        "k8s.namespace.name": "default",
        "reconciler.controller": "configmap",
        "reconciler.reasons": ("event",),
        "reconciler.attempt": 0,
        "reconciler.result": "requeue_after",
        "reconciler.requeue_after": 60.0,
    }
    assert get.name == "GET configmaps"
    assert get.parent is not None
    assert get.parent.span_id == reconcile.context.span_id
    assert dict(get.attributes or {})["http.response.status_code"] == 200
    assert dict(get.attributes or {})["url.path"] == "/api/v1/namespaces/default/configmaps/a"


@pytest.mark.virtual_time
async def test_status_write_is_a_child_of_its_reconcile(spans: InMemorySpanExporter) -> None:
    containers = [{"name": "c", "image": "i"}]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "default"}}
    await reconciled(Pods(), {**pod, "spec": {"containers": containers}}, "v1/Pod")
    write = named(spans, "PATCH pods/status")
    assert write.parent is not None
    reconcile = named(spans, "reconcile pod")
    assert write.parent.span_id == reconcile.context.span_id
    flushes = [dict(event.attributes or {}) for event in reconcile.events if event.name == "status flush"]
    assert flushes == [
        {
            "reconciler.status.written": True,
            "reconciler.status.suppressed": False,
            "reconciler.status.conflicts": 0,
            "reconciler.status.replays": 0,
            "reconciler.status.fields": 1,
        }
    ]


@pytest.mark.virtual_time
@pytest.mark.parametrize(
    ("error", "result"), [(ValueError("broken"), "error"), (TerminalError("hopeless"), "terminal_error")]
)
async def test_an_error_is_recorded(spans: InMemorySpanExporter, error: Exception, result: str) -> None:
    maps = Maps()
    maps.fails = error
    await reconciled(maps, config_map(), "v1/ConfigMap")
    span = named(spans, "reconcile configmap")
    assert dict(span.attributes or {})["reconciler.result"] == result
    assert span.status.status_code is trace.StatusCode.ERROR
    assert span.events[0].name == "exception"


class Slow(Reconciler):
    async def reconcile(self, request: Request, /) -> Outcome:
        await asyncio.sleep(60)
        return None


@pytest.mark.virtual_time
async def test_a_timeout_is_recorded_as_an_error(spans: InMemorySpanExporter, apiserver: APIServer) -> None:
    async with Client(apiserver) as client:
        manager = Manager(client)
        manager.add_controller(Slow(), resource="v1/ConfigMap", timeout=5)
        async with manager.running():
            await client.create(config_map())
            await asyncio.sleep(6)
    span = named(spans, "reconcile configmap")
    assert dict(span.attributes or {})["reconciler.result"] == "error"
    assert span.status.status_code is trace.StatusCode.ERROR
    assert span.events[0].name == "exception"


def test_without_the_package_nothing_is_traced_or_imported() -> None:
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from reconciler.telemetry.tracing import tracer\n"
        "assert tracer() is None\n"
        "import reconciler.manager\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry.')]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_a_provider_a_reconcile_creates_no_span() -> None:
    program = """
import asyncio
import contextlib
from unittest import mock
from opentelemetry import trace
from reconciler import Client, Manager, ResourceReconciler
from reconciler.apiserver import APIServer
from reconciler.objects import Unstructured

class Maps(ResourceReconciler[Unstructured], resource="v1/ConfigMap"):
    async def reconcile_object(self, obj, status):
        return None

async def main():
    async with APIServer() as server, Client(server) as client:
        manager = Manager(client)
        controller = manager.add_controller(Maps())
        with contextlib.ExitStack() as stack:
            starts = [
                stack.enter_context(mock.patch.object(made, name))
                for made in (trace.ProxyTracer, trace.NoOpTracer)
                for name in ("start_as_current_span", "start_span")
            ]
            async with manager.running():
                metadata = {"name": "m", "namespace": "default"}
                await client.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
                while not controller.statistics().reconciles:
                    await asyncio.sleep(0.01)
            assert not [start for start in starts if start.called]

asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
