"""The 22 end-to-end scenarios of a notification controller, each with exact expectations.

Every scenario runs the complete operator of `reconciler run notification` on the embedded or on a real server. Backoffs
are multiples of one second, so the timeline 0, 30, 90, 210, 450 s becomes 0, 1, 3, 7, 15 s.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reconciler import Manager
from reconciler.errors import NotFound
from reconciler.meta.documents import parse_time
from reconciler.notification import (
    Message,
    NotificationOperator,
    NotificationOptions,
    NotificationRequest,
    PermanentDeliveryError,
)
from reconciler.testing import Cluster

Scenario = Callable[["Stage"], Awaitable[None]]
SCENARIOS: dict[str, Scenario] = {}


def scenario(theme: str) -> Callable[[Scenario], Scenario]:
    def keep(function: Scenario) -> Scenario:
        SCENARIOS[f"{theme}: {function.__name__.replace('_', ' ')}"] = function
        return function

    return keep


@dataclass
class Pager:
    """A channel that fails a given number of times, or always if None."""

    name: str = "pager"
    fails: int | None = 0
    error: BaseException = field(default_factory=lambda: ConnectionError("line is dead"))
    messages: list[Message] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    async def deliver(self, message: Message) -> None:
        self.messages.append(message)
        self.times.append(asyncio.get_running_loop().time())
        if self.fails is None or len(self.messages) <= self.fails:
            raise self.error

    @property
    def offsets(self) -> list[float]:
        return [time - self.times[0] for time in self.times]


@dataclass
class Stage:
    """The environment of a scenario."""

    cluster: Cluster
    directory: Path
    manager: Manager | None = None

    @asynccontextmanager
    async def operator(self, *channels: Pager, **options: Any) -> AsyncIterator[None]:
        known: dict[str, Any] = {"directory": self.directory / "out", "audit_file": self.directory / "audit", **options}
        operator = NotificationOperator(NotificationOptions(channels=channels, **known))
        self.manager = Manager(self.cluster.client, namespaces=[self.cluster.namespace])
        operator.add_to(self.manager)
        async with self.manager.running():
            yield

    async def request(
        self, *channels: str, name: str = "alert", policy: dict[str, Any] | None = None, **spec: Any
    ) -> str:
        """Create a request and return its uid."""
        document = {
            "apiVersion": "notify.reconciler.dev/v1alpha1",
            "kind": "NotificationRequest",
            "metadata": {"name": name, "namespace": self.cluster.namespace},
            "spec": {
                "type": "Escalation",
                "subject": "Disk almost full",
                "body": "93 %",
                "channels": list(channels),
                "retryPolicy": {"initialBackoffSeconds": 1, "maxBackoffSeconds": 60, "jitter": 0, **(policy or {})},
                **spec,
            },
        }
        return (await self.cluster.client.create(document, field_validation="Strict")).uid

    async def ends(self, name: str = "alert") -> dict[str, Any]:
        """Wait for a terminal phase and return the status."""
        found = await self.cluster.client.wait_for(
            NotificationRequest,
            name,
            self.cluster.namespace,
            until=lambda request: request.status.completion_time is not None,
            timeout=60,
        )
        status: dict[str, Any] = found.to_dict()["status"]
        return status

    async def written(self, name: str = "alert") -> None:
        """Wait for the first status write."""
        async with asyncio.timeout(30):
            while self.writes(name) < 1:  # noqa: ASYNC110 - there is no event to wait for
                await asyncio.sleep(0.05)

    async def idle(self) -> None:
        """Wait until no request is in progress or has a timer: what follows a status write is done, too."""
        assert self.manager is not None
        async with asyncio.timeout(30):
            while any(controller.queue.keys() for controller in self.manager.controllers):  # noqa: ASYNC110 - see above
                await asyncio.sleep(0.05)

    @property
    def exact(self) -> bool:
        """True if time is virtual; otherwise the machine may be slow at any moment."""
        return self.cluster.kind == "embedded"

    def due(self, offsets: list[float], expected: list[float]) -> None:
        """Assert that attempts are never early, and not late where time is exact."""
        assert len(offsets) == len(expected), offsets
        for offset, time in zip(offsets, expected, strict=True):
            assert time - 0.001 <= offset <= (time + 0.1 if self.exact else float("inf")), (offsets, expected)

    def audit(self, event: str | None = None) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in (self.directory / "audit").read_text().splitlines()]
        return [line for line in lines if event is None or line["event"] == f"notification.{event}"]

    def files(self) -> list[Path]:
        return sorted((self.directory / "out").glob("*.json"))

    def writes(self, name: str = "alert") -> int:
        return self.cluster.writes(name=name).count(200)

    def metric(self, line: str) -> float:
        assert self.manager is not None
        text = self.manager.metrics.render()[1].decode()
        found = [each for each in text.splitlines() if each.startswith(f"{line} ")]
        return float(found[0].rpartition(" ")[2]) if found else 0.0


# Lifecycle and audit


@scenario("lifecycle")
async def delivered_request_is_sent_with_one_write(stage: Stage) -> None:
    pager = Pager()
    async with stage.operator(pager):
        await stage.request("pager")
        status = await stage.ends()
    assert (status["phase"], status["reason"]) == ("Sent", "AllDeliveriesSucceeded")
    assert (status["totalAttempts"], status["successfulDeliveries"], status["failedDeliveries"]) == (1, 1, 0)
    assert parse_time(status["queuedAt"]) <= parse_time(status["completionTime"])
    conditions = {each["type"]: (each["status"], each["reason"]) for each in status["conditions"]}
    assert conditions == {"Ready": ("True", "AllDeliveriesSucceeded"), "RoutingResolved": ("True", "ChannelsNamed")}
    assert (len(pager.messages), stage.writes()) == (1, 1)


@scenario("lifecycle")
async def audit_has_one_line_per_attempt_and_one_for_the_result(stage: Stage) -> None:
    async with stage.operator(Pager(fails=1)):
        uid = await stage.request("pager")
        await stage.ends()
    attempts = [(line["uid"], line["channel"], line["attempt"], line["result"]) for line in stage.audit("attempted")]
    assert attempts == [(uid, "pager", 1, "failure"), (uid, "pager", 2, "success")]
    (end,) = stage.audit("finished")
    assert (end["uid"], end["phase"], end["attempts"]) == (uid, "Sent", 2)


@scenario("lifecycle")
async def deleted_request_is_cancelled(stage: Stage) -> None:
    pager = Pager(fails=None)
    async with stage.operator(pager):
        await stage.request("pager", policy={"initialBackoffSeconds": 60})
        await stage.written()
        await stage.cluster.client.delete(NotificationRequest, "alert", stage.cluster.namespace)
        await stage.idle()
        await asyncio.sleep(120 if stage.exact else 0)
        assert len(pager.messages) == 1
    assert stage.audit("finished") == []


@scenario("lifecycle")
async def finished_request_is_deleted_after_its_ttl(stage: Stage) -> None:
    async with stage.operator(Pager()):
        await stage.request("pager", ttlSecondsAfterFinished=1)
        await stage.ends()
        async with asyncio.timeout(20):
            while True:
                try:
                    await stage.cluster.client.get(NotificationRequest, "alert", stage.cluster.namespace)
                except NotFound:
                    break
                await asyncio.sleep(0.1)
    assert [line["phase"] for line in stage.audit("finished")] == ["Sent"]


# Correlation


@scenario("correlation")
async def all_records_of_a_request_have_its_uid(stage: Stage) -> None:
    pager = Pager()
    async with stage.operator(pager):
        uid = await stage.request("pager", "file")
        await stage.ends()
    assert {line["uid"] for line in stage.audit()} == {uid}
    assert json.loads(stage.files()[0].read_text())["uid"] == pager.messages[0].uid == uid
    assert {line["idempotencyKey"] for line in stage.audit("attempted")} == {f"{uid}/pager", f"{uid}/file"}


@scenario("correlation")
async def recreated_request_is_delivered_again(stage: Stage) -> None:
    pager = Pager()
    async with stage.operator(pager):
        first = await stage.request("pager")
        await stage.ends()
        await stage.cluster.client.delete(NotificationRequest, "alert", stage.cluster.namespace)
        second = await stage.request("pager")
        await stage.ends()
    assert [message.uid for message in pager.messages] == [first, second]
    assert [line["uid"] for line in stage.audit("finished")] == [first, second]


@scenario("correlation")
async def extensions_arrive_with_the_message(stage: Stage) -> None:
    async with stage.operator():
        await stage.request("file", extensions={"incident": "INC-7"}, actionLinks=[LINK])
        await stage.ends()
    told = json.loads(stage.files()[0].read_text())
    assert (told["extensions"], told["actionLinks"]) == ({"incident": "INC-7"}, [LINK])


LINK = {"service": "grafana", "url": "https://grafana.example/d/1", "label": "Dashboard"}


# File validation


@scenario("file")
async def file_contains_the_whole_message(stage: Stage) -> None:
    async with stage.operator():
        uid = await stage.request("file", priority="Critical")
        await stage.ends()
    (file,) = stage.files()
    assert json.loads(file.read_text()) == {
        "notification": "alert",
        "namespace": stage.cluster.namespace,
        "uid": uid,
        "type": "Escalation",
        "priority": "Critical",
        "subject": "Disk almost full",
        "body": "93 %",
        "channel": "file",
        "attempt": 1,
        "idempotencyKey": f"{uid}/file",
    }
    assert file.stat().st_mode & 0o777 == 0o600


@scenario("file")
async def files_of_different_requests_do_not_collide(stage: Stage) -> None:
    async with stage.operator():
        for name in ("a", "a-b", "a.b"):
            await stage.request("file", name=name, body=name)
        for name in ("a", "a-b", "a.b"):
            await stage.ends(name)
    assert sorted(json.loads(file.read_text())["body"] for file in stage.files()) == ["a", "a-b", "a.b"]


@scenario("file")
async def large_body_in_any_language_arrives_unchanged(stage: Stage) -> None:
    body = "Größe 漢字 🚨\n" * 4_000
    async with stage.operator():
        await stage.request("file", body=body)
        await stage.ends()
    assert json.loads(stage.files()[0].read_text())["body"] == body


# Failed delivery


@scenario("failure")
async def channel_that_never_works_fails_with_the_last_attempt(stage: Stage) -> None:
    pager = Pager(fails=None)
    async with stage.operator(pager):
        await stage.request("pager", policy={"maxAttempts": 3})
        status = await stage.ends()
    stage.due(pager.offsets, [0, 1, 3])
    assert (status["phase"], status["reason"], status["totalAttempts"]) == ("Failed", "MaxRetriesExhausted", 3)
    assert status["channels"][0]["lastError"] == "ConnectionError: line is dead"
    assert stage.writes() == 3


@scenario("failure")
async def one_failed_channel_of_two_leaves_the_request_partially_sent(stage: Stage) -> None:
    (stage.directory / "out").write_text("in the way")
    pager = Pager()
    async with stage.operator(pager, Pager("file", fails=None), directory=None):
        await stage.request("pager", "file", policy={"maxAttempts": 2})
        status = await stage.ends()
    assert (status["phase"], status["reason"]) == ("PartiallySent", "PartialDeliverySuccess")
    assert {each["name"]: each["state"] for each in status["channels"]} == {"pager": "Delivered", "file": "Failed"}
    assert (len(pager.messages), stage.writes()) == (1, 2)


@scenario("failure")
async def permanent_error_ends_the_request_immediately(stage: Stage) -> None:
    pager = Pager(fails=None, error=PermanentDeliveryError("no such user"))
    async with stage.operator(pager):
        await stage.request("pager")
        status = await stage.ends()
    assert (status["phase"], status["reason"], status["totalAttempts"]) == ("Failed", "AllDeliveriesFailed", 1)
    assert (len(pager.messages), stage.writes()) == (1, 1)


# Metrics


@scenario("metrics")
async def deliveries_are_counted_correctly(stage: Stage) -> None:
    async with stage.operator(Pager(fails=2), Pager("other", fails=None, error=PermanentDeliveryError("410"))):
        await stage.request("pager", "other")
        await stage.ends()
        await stage.idle()
        counted = {
            (channel, result): stage.metric(
                f'notification_delivery_attempts_total{{channel="{channel}",result="{result}"}}'
            )
            for channel in ("pager", "other")
            for result in ("success", "failure")
        }
        assert stage.metric('notification_requests_finished_total{phase="PartiallySent"}') == 1
        assert stage.metric('notification_delivery_retries_total{channel="pager",reason="AttemptFailed"}') == 2
        assert stage.metric('notification_delivery_duration_seconds_count{channel="pager"}') == 3
    assert counted == {
        ("pager", "success"): 1,
        ("pager", "failure"): 2,
        ("other", "success"): 0,
        ("other", "failure"): 1,
    }


@scenario("metrics")
async def controller_metrics_have_the_usual_names(stage: Stage) -> None:
    async with stage.operator(Pager(fails=1)):
        await stage.request("pager")
        await stage.ends()
        await stage.idle()
        controller = 'controller="notificationrequest"'
        assert stage.metric(f'controller_runtime_reconcile_total{{{controller},result="requeue_after"}}') == 1
        assert stage.metric(f'controller_runtime_reconcile_total{{{controller},result="success"}}') == 1
        assert stage.metric(f"controller_runtime_reconcile_errors_total{{{controller}}}") == 0


# Retry and backoff


@scenario("retry")
async def timeline_is_kept_with_one_write_per_reconcile(stage: Stage) -> None:
    pager, dead = Pager(), Pager("dead", fails=None)
    async with stage.operator(pager, dead):
        await stage.request("pager", "dead")
        status = await stage.ends()
    stage.due(dead.offsets, [0, 1, 3, 7, 15])
    assert len(pager.messages) == 1
    assert (status["phase"], status["totalAttempts"], stage.writes()) == ("PartiallySent", 6, 5)


@scenario("retry")
async def recovered_receiver_gets_the_message(stage: Stage) -> None:
    pager = Pager(fails=2)
    async with stage.operator(pager):
        await stage.request("pager")
        status = await stage.ends()
    stage.due(pager.offsets, [0, 1, 3])
    assert (status["phase"], status["totalAttempts"]) == ("Sent", 3)


@scenario("retry")
async def wait_never_exceeds_the_policy(stage: Stage) -> None:
    pager = Pager(fails=None)
    async with stage.operator(pager):
        await stage.request("pager", policy={"maxAttempts": 4, "maxBackoffSeconds": 2})
        await stage.ends()
    stage.due(pager.offsets, [0, 1, 3, 5])


@scenario("retry")
async def writes_by_others_and_restarts_never_advance_an_attempt(stage: Stage) -> None:
    first, second = Pager(fails=None), Pager()
    async with stage.operator(first):
        await stage.request("pager", policy={"initialBackoffSeconds": 3})
        await stage.written()
        for number in range(5):
            patch = {"metadata": {"annotations": {"seen": str(number)}}}
            await stage.cluster.client.patch(NotificationRequest, "alert", stage.cluster.namespace, patch=patch)
            await asyncio.sleep(0.1)
    async with stage.operator(second):
        await stage.ends()
    attempts = [time - first.times[0] for time in (*first.times, *second.times)]
    stage.due(attempts, [0, 3, 9, 21, 45][: len(attempts)])
    assert len(second.messages) == 1
    assert len(first.messages) == 1 or not stage.exact


# Fan-out


@scenario("fan-out")
async def three_channels_get_the_message_once_at_the_same_time(stage: Stage) -> None:
    channels = [Pager("a"), Pager("b"), Pager("c")]
    async with stage.operator(*channels):
        await stage.request("a", "b", "c")
        status = await stage.ends()
    assert [len(channel.messages) for channel in channels] == [1, 1, 1]
    assert (status["phase"], status["successfulDeliveries"], stage.writes()) == ("Sent", 3, 1)


@scenario("fan-out")
async def channel_named_twice_is_used_once(stage: Stage) -> None:
    pager = Pager()
    async with stage.operator(pager):
        await stage.request("pager", "console", "pager")
        status = await stage.ends()
    assert (len(pager.messages), status["phase"], status["totalAttempts"]) == (1, "Sent", 2)


# Priority


@scenario("priority")
async def priority_is_passed_on_and_defaults_to_medium(stage: Stage) -> None:
    pager = Pager()
    async with stage.operator(pager):
        for name in ("Critical", "High", "Low"):
            await stage.request("pager", name=name.lower(), priority=name)
        await stage.request("pager", name="default")
        for name in ("critical", "high", "low", "default"):
            await stage.ends(name)
    told = {message.name: message.priority for message in pager.messages}
    assert told == {"critical": "Critical", "high": "High", "low": "Low", "default": "Medium"}
