"""The recorder: callers never wait, the server is never flooded, dropped events are counted."""

import asyncio
import random
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from pydantic import BaseModel

from reconciler.clock import current_clock
from reconciler.errors import (
    NotSent,
    OutcomeUnknown,
    ReconcilerError,
    error_from_response,
)
from reconciler.events import EventRecorder
from reconciler.objects import ObjectMeta, Resource, Unstructured

pytestmark = pytest.mark.virtual_time


class Spec(BaseModel):
    size: int = 1


class Database(Resource[Spec], group="example.com", version="v1"):
    pass


POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web", "namespace": "prod", "uid": "u1", "resourceVersion": "7"},
}
NODE = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}


class Server:
    """A server that stores Events by name and fails on demand."""

    def __init__(self) -> None:
        self.events: dict[tuple[str, str], dict[str, Any]] = {}
        self.requests: list[tuple[str, float]] = []
        self.failures: list[Exception] = []
        self.lose_answers = False
        self.hang = False

    async def create(self, obj: dict[str, Any], /) -> dict[str, Any]:
        await self._request("create")
        key = obj["metadata"]["namespace"], obj["metadata"]["name"]
        if key in self.events:
            raise error_from_response(409, {"reason": "AlreadyExists", "message": "exists"})
        self.events[key] = obj
        if self.lose_answers:
            self.lose_answers = False
            raise OutcomeUnknown("reset")
        return obj

    async def patch(
        self, kind: str, name: str, namespace: str | None = None, /, *, patch: dict[str, Any]
    ) -> dict[str, Any]:
        assert kind == "v1/Event"
        assert namespace is not None
        await self._request("patch")
        if (namespace, name) not in self.events:
            raise error_from_response(404, {"reason": "NotFound", "message": "gone"})
        self.events[namespace, name] |= patch
        return self.events[namespace, name]

    async def _request(self, verb: str) -> None:
        self.requests.append((verb, current_clock().monotonic()))
        if self.hang:
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        if self.failures:
            raise self.failures.pop(0)

    @property
    def verbs(self) -> list[str]:
        return [verb for verb, _ in self.requests]

    def only(self) -> dict[str, Any]:
        (event,) = self.events.values()
        return event


@pytest.fixture
def server() -> Server:
    return Server()


@pytest_asyncio.fixture
async def events(server: Server) -> AsyncIterator[EventRecorder]:
    recorder = EventRecorder(server, source="database-controller", rng=random.Random(1))
    task = asyncio.create_task(recorder.run())
    yield recorder
    await recorder.close()
    await task


async def settle() -> None:
    await asyncio.sleep(1)


async def test_event_as_sent_to_the_server(events: EventRecorder, server: Server) -> None:
    await asyncio.sleep(90.5)
    events.normal(POD, "Started", "it runs")
    await settle()
    event = server.only()
    name = event["metadata"].pop("name")
    assert event == {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"namespace": "prod"},
        "involvedObject": {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": "web",
            "namespace": "prod",
            "uid": "u1",
            "resourceVersion": "7",
        },
        "type": "Normal",
        "reason": "Started",
        "message": "it runs",
        "source": {"component": "database-controller"},
        "reportingComponent": "database-controller",
        "reportingInstance": "",
        "count": 1,
        "firstTimestamp": "2026-01-01T00:01:30Z",
        "lastTimestamp": "2026-01-01T00:01:30Z",
    }
    assert name.startswith("web.")
    assert int(name.removeprefix("web."), 16) > 0


async def test_warning_with_a_host(server: Server) -> None:
    recorder = EventRecorder(server, source="c", host="pod-1")
    task = asyncio.create_task(recorder.run())
    recorder.warning(POD, "Failed", "no")
    await recorder.close()
    await task
    assert server.only()["type"] == "Warning"
    assert server.only()["source"] == {"component": "c", "host": "pod-1"}
    assert server.only()["reportingInstance"] == "pod-1"


@pytest.mark.parametrize(
    "obj",
    [
        Database(metadata=ObjectMeta(name="db1", namespace="prod", uid="u1"), spec=Spec()),
        Unstructured(
            {
                "apiVersion": "example.com/v1",
                "kind": "Database",
                "metadata": {"name": "db1", "namespace": "prod", "uid": "u1"},
            }
        ),
    ],
    ids=["Resource", "Unstructured"],
)
async def test_all_forms_of_objects_are_accepted(events: EventRecorder, server: Server, obj: object) -> None:
    events.normal(obj, "Made", "m")
    await settle()
    assert server.only()["involvedObject"] == {
        "apiVersion": "example.com/v1",
        "kind": "Database",
        "name": "db1",
        "namespace": "prod",
        "uid": "u1",
    }


async def test_event_of_a_cluster_scoped_object_is_in_default(events: EventRecorder, server: Server) -> None:
    events.normal(NODE, "Ready", "m")
    await settle()
    assert server.only()["metadata"]["namespace"] == "default"
    assert "namespace" not in server.only()["involvedObject"]


async def test_identical_events_raise_the_count_by_patch(events: EventRecorder, server: Server) -> None:
    for _ in range(3):
        events.normal(POD, "Started", "it runs")
        await asyncio.sleep(60)
    assert server.verbs == ["create", "patch", "patch"]
    assert server.only()["count"] == 3
    assert server.only()["firstTimestamp"] == "2026-01-01T00:00:00Z"
    assert server.only()["lastTimestamp"] == "2026-01-01T00:02:00Z"
    assert (events.statistics().created, events.statistics().patched) == (1, 2)


async def test_a_patch_answered_404_creates_the_event_again(events: EventRecorder, server: Server) -> None:
    events.normal(POD, "Started", "it runs")
    await settle()
    server.events.clear()
    events.normal(POD, "Started", "it runs")
    await settle()
    assert server.verbs == ["create", "patch", "create"]
    assert server.only()["count"] == 2


async def test_combined_events_are_one_event_on_the_server(events: EventRecorder, server: Server) -> None:
    for n in range(15):
        events.normal(POD, "Attempted", f"attempt {n}")
    await settle()
    assert len(server.events) == 10
    combined = [e for e in server.events.values() if e["message"].startswith("(combined from similar events): ")]
    assert [(e["count"], e["message"]) for e in combined] == [(6, "(combined from similar events): attempt 14")]


async def test_endless_events_of_an_object_are_limited_to_25(events: EventRecorder, server: Server) -> None:
    for _ in range(100):
        events.normal(POD, "Started", "it runs")
    await settle()
    assert len(server.requests) == 25
    assert events.statistics().filtered == 75


async def test_events_at_the_same_time_have_different_names(events: EventRecorder, server: Server) -> None:
    for n in range(5):
        events.normal(POD, "Started", f"{n}")
    await settle()
    assert len(server.events) == 5


async def test_long_name_is_truncated_for_the_timestamp(events: EventRecorder, server: Server) -> None:
    events.normal(POD | {"metadata": {"name": "x" * 253, "namespace": "prod"}}, "Started", "m")
    await settle()
    assert len(server.only()["metadata"]["name"]) == 253


async def test_name_truncated_at_a_dot_stays_valid(events: EventRecorder, server: Server) -> None:
    events.normal(POD | {"metadata": {"name": "x" * 230 + "." * 23, "namespace": "prod"}}, "Started", "m")
    await settle()
    assert ".." not in server.only()["metadata"]["name"]


async def test_message_that_is_not_valid_utf8_is_repaired(events: EventRecorder, server: Server) -> None:
    events.normal(POD, "Started", "a\udc80b")
    await settle()
    assert server.only()["message"] == "a?b"


async def test_reason_that_is_not_valid_utf8_is_repaired(events: EventRecorder, server: Server) -> None:
    events.normal(POD, "No\ud800File", "m")
    await settle()
    assert server.only()["reason"] == "No?File"


async def test_an_error_in_place_of_its_text_is_refused_and_not_shown(events: EventRecorder, server: Server) -> None:
    error: Any = ValueError("p4ssw0rd")
    for reason, message in (("Failed", error), (error, "m"), ("Failed", None)):
        with pytest.raises(TypeError, match="of an event must be a str, not ") as caught:
            events.warning(POD, reason, message)
        assert "p4ssw0rd" not in str(caught.value)
    await settle()
    assert server.events == {}
    assert events.statistics().recorded == 0


@pytest.mark.parametrize("letter", ["x", "é", "😀"])
async def test_message_is_truncated_to_1024_bytes_at_a_character_boundary(
    events: EventRecorder, server: Server, letter: str
) -> None:
    events.normal(POD, "Started", letter * 1025)
    await settle()
    message = server.only()["message"]
    assert 1020 < len(message.encode()) <= 1024
    assert message == letter * (len(message) - 1) + "…"


async def test_short_message_is_not_truncated(events: EventRecorder, server: Server) -> None:
    events.normal(POD, "Started", "x" * 1024)
    await settle()
    assert server.only()["message"] == "x" * 1024


@pytest.mark.parametrize(
    "failure",
    [NotSent("refused"), OutcomeUnknown("reset"), error_from_response(503), error_from_response(429)],
    ids=lambda e: type(e).__name__,
)
async def test_transient_failure_is_retried(events: EventRecorder, server: Server, failure: Exception) -> None:
    server.failures = [failure, failure]
    events.normal(POD, "Started", "it runs")
    await asyncio.sleep(60)
    first, second, third = [at for _, at in server.requests]
    assert 0 <= second - first < 10
    assert third - second == 10
    assert server.only()["count"] == 1


async def test_event_is_abandoned_after_twelve_attempts(events: EventRecorder, server: Server) -> None:
    server.failures = [NotSent("refused")] * 13
    events.normal(POD, "Started", "it runs")
    await asyncio.sleep(3600)
    assert len(server.requests) == 12
    assert events.statistics().abandoned == 1
    assert server.events == {}


async def test_first_delay_is_a_random_fraction_of_ten_seconds(server: Server) -> None:
    delays = []
    for seed in range(5):
        server = Server()
        server.failures = [NotSent("refused")]
        recorder = EventRecorder(server, source="c", rng=random.Random(seed))
        recorder.normal(POD, "Started", "it runs")
        task = asyncio.create_task(recorder.run())
        await asyncio.sleep(20)
        await recorder.close()
        await task
        (_, first), (_, second) = server.requests
        delays.append(second - first)
    assert len(set(delays)) == 5
    assert all(0 <= delay < 10 for delay in delays)


@pytest.mark.parametrize("status", [400, 403, 404, 422])
async def test_rejected_event_is_not_retried(events: EventRecorder, server: Server, status: int) -> None:
    server.failures = [error_from_response(status)]
    events.normal(POD, "Started", "it runs")
    events.normal(POD, "Stopped", "it stopped")
    await asyncio.sleep(60)
    assert server.verbs == ["create", "create"]
    assert events.statistics().rejected == 1
    assert server.only()["reason"] == "Stopped"


async def test_event_stored_by_an_attempt_with_a_lost_response_is_not_duplicated(
    events: EventRecorder, server: Server
) -> None:
    server.lose_answers = True
    events.normal(POD, "Started", "it runs")
    await asyncio.sleep(60)
    assert server.verbs == ["create", "create"]
    assert server.only()["count"] == 1
    assert events.statistics().created == 1


@pytest.mark.parametrize("fault", [ReconcilerError("not the leader"), ZeroDivisionError()], ids=["ours", "bug"])
async def test_exception_of_the_client_does_not_stop_the_recorder(
    events: EventRecorder, server: Server, fault: Exception
) -> None:
    server.failures = [fault]
    events.normal(POD, "Started", "it runs")
    events.normal(POD, "Stopped", "it stopped")
    await settle()
    assert server.only()["reason"] == "Stopped"
    assert events.statistics().rejected == 1


async def test_events_recorded_before_run_wait(server: Server) -> None:
    recorder = EventRecorder(server, source="c")
    recorder.normal(POD, "Started", "it runs")
    assert recorder.statistics().waiting == 1
    task = asyncio.create_task(recorder.run())
    await settle()
    assert len(server.events) == 1
    await recorder.close()
    await task


async def test_full_queue_drops_and_counts(server: Server) -> None:
    recorder = EventRecorder(server, source="c")
    for n in range(10_005):
        recorder.normal(POD, "Started", f"{n}")
    assert recorder.statistics().waiting == 10_000
    assert recorder.statistics().dropped == 5
    assert recorder.statistics().recorded == 10_005


async def test_events_from_threads(events: EventRecorder, server: Server) -> None:
    asyncio.get_running_loop().set_debug(True)  # refuses unsafe calls from other threads
    await settle()
    threads = [threading.Thread(target=events.normal, args=(POD, "Started", f"{n}")) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    await settle()
    assert len(server.events) == 5


async def test_close_sends_queued_events_and_accepts_no_more(server: Server) -> None:
    recorder = EventRecorder(server, source="c")
    task = asyncio.create_task(recorder.run())
    for n in range(5):
        recorder.normal(POD, "Started", f"{n}")
    await recorder.close()
    await task
    assert len(server.events) == 5
    recorder.normal(POD, "Started", "late")
    assert recorder.statistics().dropped == 1
    assert recorder.statistics().waiting == 0


async def test_close_drops_events_not_sent_in_time(server: Server) -> None:
    recorder = EventRecorder(server, source="c")
    task = asyncio.create_task(recorder.run())
    server.hang = True
    for n in range(5):
        recorder.normal(POD, "Started", f"{n}")
    before = current_clock().monotonic()
    await recorder.close(timeout=3)
    await task
    assert current_clock().monotonic() - before == 3
    assert recorder.statistics().dropped == 5


async def test_close_without_run_drops_queued_events(server: Server) -> None:
    recorder = EventRecorder(server, source="c")
    recorder.normal(POD, "Started", "it runs")
    await recorder.close()
    assert recorder.statistics().dropped == 1
    await recorder.run()
    assert server.requests == []


async def test_cancelled_run_stops_and_drops(server: Server) -> None:
    recorder = EventRecorder(server, source="c")
    task = asyncio.create_task(recorder.run())
    server.hang = True
    recorder.normal(POD, "Started", "1")
    recorder.normal(POD, "Started", "2")
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert recorder.statistics().dropped == 2
    await recorder.close()


async def test_run_can_be_called_only_once(events: EventRecorder) -> None:
    await settle()
    with pytest.raises(RuntimeError, match="already running"):
        await events.run()


async def test_invalid_arguments_are_refused_at_the_call(events: EventRecorder) -> None:
    with pytest.raises(ValueError, match="needs a reason"):
        events.normal(POD, "", "m")
    with pytest.raises(TypeError, match="the message of an event must be a str, not OSError"):
        events.normal(POD, "Lost", OSError("lost"))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="the reason of an event must be a str, not dict: pass obj, reason, message"):
        events.normal("Started", POD, "m")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="it has no name"):
        events.normal({"apiVersion": "v1", "kind": "Pod", "metadata": {}}, "Started", "m")
    with pytest.raises(ValueError, match="has no apiVersion or no kind"):
        events.normal({"metadata": {"name": "a"}}, "Started", "m")
    with pytest.raises(TypeError, match="not a Kubernetes object"):
        events.normal(3, "Started", "m")
