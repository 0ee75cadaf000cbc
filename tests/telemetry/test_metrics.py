"""Metrics in a scrape: controller-runtime's names, labels and buckets, and correct numbers."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections import Counter

import pytest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from reconciler.controller.controller import ControllerStatistics
from reconciler.controller.reconcile.cycle import UnsavedStatistics
from reconciler.controller.wake.echo import EchoStatistics
from reconciler.telemetry.controllers import MAX_LABELS
from reconciler.telemetry.registry import MetricsRegistry
from reconciler.workqueue import WorkQueue


def samples(metrics: MetricsRegistry) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    _, body = metrics.render()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse(body.decode())
        for sample in family.samples
    }


def value(metrics: MetricsRegistry, name: str, /, **labels: str) -> float:
    return samples(metrics)[name, tuple(sorted(labels.items()))]


def bounds(metrics: MetricsRegistry, name: str) -> list[str]:
    _, body = metrics.render()
    lines = [line for line in body.decode().splitlines() if line.startswith(f"{name}_bucket")]
    return [line.partition('le="')[2].partition('"')[0] for line in lines]


def statistics_of_a_controller() -> ControllerStatistics:
    return ControllerStatistics(
        name="database",
        workers=4,
        active=3,
        reconciles=6,
        results=Counter(success=1, error=2, requeue_after=3),
        reasons=Counter(event=2, owned=1),
        terminal_errors=4,
        timeouts=5,
        panics=6,
        cancelled=7,
        storms=8,
        echo=EchoStatistics(known=0, in_progress=0, dropped=9, overtaken=0),
        unsaved=UnsavedStatistics(kept=0, blocked=0, dropped=0),
        mapper_errors=10,
        mapper_pending=0,
        unmapped=11,
        queue=WorkQueue[str]().statistics(),
    )


def test_metric_names_of_controller_runtime_are_exported() -> None:
    metrics = MetricsRegistry()
    WorkQueue[str](metrics=metrics.queue("database"))
    metrics.controller("database").watch(statistics_of_a_controller)
    metrics.leader("operator")
    metrics.requests.count("200", "GET", "10.0.0.1:443")
    _, body = metrics.render()
    families = [family for family in parse(body.decode()) if family.samples]
    types = {family.name: (family.type, frozenset(family.samples[0].labels)) for family in families}
    queue, controller = frozenset({"name", "controller"}), frozenset({"controller"})
    expected = {
        "workqueue_depth": ("gauge", queue | {"priority"}),
        "workqueue_adds": ("counter", queue),
        "workqueue_queue_duration_seconds": ("histogram", queue | {"le"}),
        "workqueue_work_duration_seconds": ("histogram", queue | {"le"}),
        "workqueue_unfinished_work_seconds": ("gauge", queue),
        "workqueue_longest_running_processor_seconds": ("gauge", queue),
        "workqueue_retries": ("counter", queue),
        "controller_runtime_reconcile": ("counter", controller | {"result"}),
        "controller_runtime_reconcile_errors": ("counter", controller),
        "controller_runtime_terminal_reconcile_errors": ("counter", controller),
        "controller_runtime_reconcile_panics": ("counter", controller),
        "controller_runtime_reconcile_timeouts": ("counter", controller),
        "controller_runtime_reconcile_time_seconds": ("histogram", controller | {"le"}),
        "controller_runtime_max_concurrent_reconciles": ("gauge", controller),
        "controller_runtime_active_workers": ("gauge", controller),
        "leader_election_master_status": ("gauge", frozenset({"name"})),
        "leader_election_slowpath": ("counter", frozenset({"name"})),
        "rest_client_requests": ("counter", frozenset({"code", "method", "host"})),
    }
    assert {name: types.get(name) for name in expected} == expected
    assert {"process_cpu_seconds", "python_info", "python_gc_collections"} <= types.keys()


def test_counters_of_an_idle_controller_are_exported_as_zero() -> None:
    metrics = MetricsRegistry()
    idle = dataclasses.replace(statistics_of_a_controller(), results=Counter(), terminal_errors=0)
    metrics.controller("database").watch(lambda: idle)
    for result in ("success", "error", "requeue", "requeue_after"):
        assert value(metrics, "controller_runtime_reconcile_total", controller="database", result=result) == 0


def test_buckets_are_those_of_client_go_and_controller_runtime() -> None:
    metrics = MetricsRegistry()
    WorkQueue[str](metrics=metrics.queue("database"))
    metrics.controller("database")
    expected = ["1e-08", "1e-07", "1e-06", "9.999999999999999e-06", "9.999999999999999e-05", "0.001", "0.01"]
    assert bounds(metrics, "workqueue_queue_duration_seconds")[:5] == expected[:5]
    assert len(bounds(metrics, "workqueue_work_duration_seconds")) == 13
    reconcile = bounds(metrics, "controller_runtime_reconcile_time_seconds")
    assert (len(reconcile), reconcile[0], reconcile[-2:]) == (41, "0.005", ["60.0", "+Inf"])


@pytest.mark.virtual_time
async def test_a_queue_is_measured() -> None:
    metrics = MetricsRegistry()
    queue: WorkQueue[str] = WorkQueue(metrics=metrics.queue("database"))
    labels = {"name": "database", "controller": "database"}
    for key in "abc":
        queue.add(key)
    queue.add("d", priority=-100)
    queue.add("e", after=10)
    await asyncio.sleep(0.5)
    await queue.get()
    await asyncio.sleep(2)
    await queue.get()
    await asyncio.sleep(1)
    assert value(metrics, "workqueue_depth", priority="0", **labels) == 1
    assert value(metrics, "workqueue_depth", priority="-100", **labels) == 1
    assert value(metrics, "workqueue_adds_total", **labels) == 4
    assert value(metrics, "workqueue_retries_total", **labels) == 1
    assert value(metrics, "reconciler_workqueue_waiting", **labels) == 1
    assert value(metrics, "workqueue_unfinished_work_seconds", **labels) == 4
    assert value(metrics, "workqueue_longest_running_processor_seconds", **labels) == 3
    assert value(metrics, "workqueue_queue_duration_seconds_sum", **labels) == 3
    assert value(metrics, "workqueue_queue_duration_seconds_count", **labels) == 2
    assert value(metrics, "workqueue_queue_duration_seconds_bucket", le="1.0", **labels) == 1
    queue.done("a")
    assert value(metrics, "workqueue_work_duration_seconds_sum", **labels) == 3
    await queue.shutdown()
    assert value(metrics, "reconciler_workqueue_dropped_total", **labels) == 3
    assert value(metrics, "workqueue_depth", priority="-100", **labels) == 0


@pytest.mark.virtual_time
async def test_number_of_series_for_priorities_is_bounded() -> None:
    metrics = MetricsRegistry()
    queue: WorkQueue[int] = WorkQueue(metrics=metrics.queue("q"))
    for number in range(100):
        queue.add(number, priority=number)
    for _ in range(2):
        depth = {labels: number for (name, labels), number in samples(metrics).items() if name == "workqueue_depth"}
        assert len(depth) == MAX_LABELS + 1
        assert sum(depth.values()) == 100


def test_a_controller_is_measured() -> None:
    metrics = MetricsRegistry()
    controller = metrics.controller("database")
    controller.watch(statistics_of_a_controller)
    for seconds in (0.2, 3, 0.2):
        controller.observe_reconcile_duration(seconds)
    name = {"controller": "database"}
    assert value(metrics, "controller_runtime_reconcile_total", result="success", **name) == 1
    assert value(metrics, "controller_runtime_reconcile_total", result="requeue_after", **name) == 3
    assert value(metrics, "controller_runtime_reconcile_total", result="requeue", **name) == 0
    assert value(metrics, "controller_runtime_reconcile_errors_total", **name) == 2
    assert value(metrics, "controller_runtime_terminal_reconcile_errors_total", **name) == 4
    assert value(metrics, "controller_runtime_reconcile_timeouts_total", **name) == 5
    assert value(metrics, "controller_runtime_reconcile_panics_total", **name) == 6
    assert value(metrics, "controller_runtime_reconcile_time_seconds_sum", **name) == pytest.approx(3.4)
    assert value(metrics, "controller_runtime_reconcile_time_seconds_bucket", le="0.2", **name) == 2
    assert value(metrics, "controller_runtime_max_concurrent_reconciles", **name) == 4
    assert value(metrics, "controller_runtime_active_workers", **name) == 3
    assert value(metrics, "reconciler_reconcile_reasons_total", reason="event", **name) == 2
    assert value(metrics, "reconciler_reconcile_reasons_total", reason="owned", **name) == 1
    assert value(metrics, "reconciler_echoes_dropped_total", **name) == 9
    assert value(metrics, "reconciler_storms_total", **name) == 8
    assert value(metrics, "reconciler_mapper_errors_total", **name) == 10
    assert value(metrics, "reconciler_unmapped_total", **name) == 11


def test_status_writes_are_counted_from_any_thread() -> None:
    metrics = MetricsRegistry()
    status = metrics.status("database")

    def flush() -> None:
        for _ in range(500):
            status.flushed(written=True, suppressed=False, conflicts=1, replays=2, fields=3, seconds=0.01)
            status.flushed(written=False, suppressed=True, conflicts=0, replays=0, fields=0, seconds=0)
            status.flushed(written=False, suppressed=False, conflicts=0, replays=0, fields=0, seconds=20)

    threads = [threading.Thread(target=flush) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in ("written", "suppressed", "not_written"):
        assert value(metrics, "reconciler_status_flushes_total", controller="database", result=result) == 2000
    assert value(metrics, "reconciler_status_conflicts_total", controller="database") == 2000
    assert value(metrics, "reconciler_status_replays_total", controller="database") == 4000
    assert value(metrics, "reconciler_status_fields_total", controller="database") == 6000
    assert value(metrics, "reconciler_status_flush_seconds_count", controller="database") == 6000


def test_leadership_and_requests_are_exported() -> None:
    metrics = MetricsRegistry()
    leader = metrics.leader("operator")
    assert value(metrics, "leader_election_master_status", name="operator") == 0
    leader.leading = True
    leader.slow_paths += 1
    metrics.requests.count("409", "PATCH", "host")
    metrics.requests.count("409", "PATCH", "host")
    assert value(metrics, "leader_election_master_status", name="operator") == 1
    assert value(metrics, "leader_election_slowpath_total", name="operator") == 1
    assert value(metrics, "rest_client_requests_total", code="409", method="PATCH", host="host") == 2


def test_same_name_returns_the_same_counters_per_registry() -> None:
    one, two = MetricsRegistry(), MetricsRegistry()
    assert one.controller("a") is one.controller("a")
    assert one.queue("a") is one.queue("a")
    assert one.controller("a") is not two.controller("a")


def test_collectors_of_the_user_are_scraped() -> None:
    class Mine:
        def collect(self):
            family = CounterMetricFamily("mine", "My own.")
            family.add_metric([], 42)
            yield family

    metrics = MetricsRegistry()
    metrics.registry.register(Mine())
    assert value(metrics, "mine_total") == 42


def test_accept_header_selects_the_format() -> None:
    metrics = MetricsRegistry()
    metrics.controller("database").watch(statistics_of_a_controller)
    kind, body = metrics.render("application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert any(family.name == "controller_runtime_reconcile" for family in parse_openmetrics(body.decode()))
    kind, _ = metrics.render()
    assert kind.startswith("text/plain")


@pytest.mark.virtual_time
async def test_scrape_in_a_thread_while_the_queue_is_in_use() -> None:
    metrics = MetricsRegistry()
    queue: WorkQueue[int] = WorkQueue(metrics=metrics.queue("q"))
    errors: list[BaseException] = []
    stop = threading.Event()

    def scrape() -> None:
        try:
            while not stop.is_set():
                list(metrics.collect())
        except Exception as error:  # noqa: BLE001 - reported to the test
            errors.append(error)

    thread = threading.Thread(target=scrape)
    thread.start()
    for number in range(5000):
        queue.add(number, priority=number % 50)
        if number % 3:
            key = await queue.get()
            queue.add(key)
            queue.done(key)
    stop.set()
    thread.join()
    assert errors == []


def test_counters_implement_the_protocols() -> None:
    from reconciler.controller.observers import ControllerMetrics
    from reconciler.status.recording import StatusMetrics
    from reconciler.workqueue import QueueMetrics

    metrics = MetricsRegistry()
    queue: QueueMetrics = metrics.queue("a")
    controller: ControllerMetrics = metrics.controller("a")
    status: StatusMetrics = metrics.status("a")
    for protocol, counters in ((QueueMetrics, queue), (ControllerMetrics, controller), (StatusMetrics, status)):
        wanted = {name for name in vars(protocol) if not name.startswith("_")}
        assert wanted <= set(dir(counters))
