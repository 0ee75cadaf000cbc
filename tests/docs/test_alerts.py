"""The example for alerts: Alertmanager's and Grafana's webhooks become NotificationRequests, once for each state."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import importlib
import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web

from reconciler import Client, Manager
from reconciler.apiserver import APIServer
from reconciler.notification import NotificationOperator, NotificationOptions, NotificationRequest
from tests.notification.world import Recorder

TOKEN = "senders-token"

ALERTMANAGER: dict[str, Any] = {
    "version": "4",
    "groupKey": '{}/{team="storage"}:{alertname="DiskFull"}',
    "truncatedAlerts": 0,
    "status": "firing",
    "receiver": "operator",
    "groupLabels": {"alertname": "DiskFull"},
    "commonLabels": {"alertname": "DiskFull", "severity": "critical", "team": "storage"},
    "commonAnnotations": {},
    "externalURL": "http://alertmanager.example.com:9093",
    "alerts": [
        {
            "status": "firing",
            "labels": {"alertname": "DiskFull", "severity": "critical", "team": "storage", "node": f"node-{number}"},
            "annotations": {"summary": f"/var is full on node-{number}"},
            "startsAt": "2026-01-01T00:00:00Z",
            "endsAt": "0001-01-01T00:00:00Z",
            "generatorURL": f"http://prometheus.example.com/graph?g0.expr=disk&node={number}",
            "fingerprint": f"{number:016x}",
        }
        for number in (7, 8)
    ],
}
"""A payload as Alertmanager's documentation describes it (version 4)."""

GRAFANA = {
    **ALERTMANAGER,
    "version": "1",
    "orgId": 1,
    "title": "[FIRING:1] DiskFull storage",
    "state": "alerting",
    "message": "**Firing**\n\nValue: B=93",
    "alerts": [
        {
            **ALERTMANAGER["alerts"][0],
            "valueString": "[ var='B' labels={} value=93 ]",
            "dashboardURL": "https://grafana.example.com/d/abc",
            "silenceURL": "https://grafana.example.com/alerting/silence/new",
        }
    ],
}
"""The same with the members that Grafana's documentation adds."""


@contextlib.asynccontextmanager
async def webhook() -> AsyncIterator[tuple[APIServer, Client, str]]:
    example = importlib.import_module("examples.notification.alerts")
    async with APIServer() as server, Client(server) as client:
        await server.apply(NotificationRequest)
        runner = web.AppRunner(example.application(client, "default", TOKEN))
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield server, client, f"http://127.0.0.1:{runner.addresses[0][1]}/"
        finally:
            await runner.cleanup()


async def post(url: str, payload: Any, *, auth: str | None = f"Bearer {TOKEN}") -> tuple[int, str]:
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    headers = {"Authorization": auth} if auth is not None else {}
    async with aiohttp.ClientSession() as session, session.post(url, data=body, headers=headers) as response:
        return response.status, await response.text()


def changed(**members: Any) -> dict[str, Any]:
    return {**copy.deepcopy(ALERTMANAGER), **members}


async def requests(client: Client) -> list[NotificationRequest]:
    return sorted(await client.list(NotificationRequest, "default"), key=lambda found: found.metadata.uid or "")


async def test_a_group_becomes_one_request_with_all_that_routing_and_people_need() -> None:
    async with webhook() as (_, client, url):
        assert await post(url, ALERTMANAGER) == (200, "created\n")
        (found,) = await requests(client)
    spec = found.spec
    assert (spec.type, spec.priority, spec.sender) == ("Escalation", "Critical", "alerts")
    assert spec.subject == "[firing] DiskFull"
    assert spec.body == "/var is full on node-7\n/var is full on node-8"
    assert spec.extensions == ALERTMANAGER["commonLabels"]
    assert spec.incident is not None
    assert spec.incident.action == "Trigger"


async def test_grafana_s_title_and_message_are_used() -> None:
    async with webhook() as (_, client, url):
        assert (await post(url, GRAFANA))[0] == 200
        (found,) = await requests(client)
    assert (found.spec.subject, found.spec.body) == ("[FIRING:1] DiskFull storage", "**Firing**\n\nValue: B=93")


async def test_nobody_without_the_token_can_take_the_name_of_an_alert_before() -> None:
    async with webhook() as (_, client, url):
        await post(url, ALERTMANAGER)
        (found,) = await requests(client)
        example = importlib.import_module("examples.notification.alerts")
        squatted = example.request_for(ALERTMANAGER, "default", "guessed").name
        assert squatted != found.name


async def test_repeats_make_no_request_and_a_resolved_group_is_told_once() -> None:
    resolved = changed(status="resolved", alerts=[{**each, "status": "resolved"} for each in ALERTMANAGER["alerts"]])
    later = changed(alerts=[{**each, "startsAt": "2026-01-02T00:00:00Z"} for each in ALERTMANAGER["alerts"]])
    shuffled = changed(alerts=ALERTMANAGER["alerts"][::-1])
    async with webhook() as (_, client, url):
        answers = await asyncio.gather(*(post(url, ALERTMANAGER) for _ in range(5)), post(url, shuffled))
        assert {status for status, _ in answers} == {200}
        assert len(await requests(client)) == 1
        for _ in range(3):
            assert (await post(url, resolved))[0] == 200
        assert len(await requests(client)) == 2
        assert (await post(url, later))[0] == 200  # it fires again
        found = await requests(client)
    assert sorted(each.spec.incident.action for each in found if each.spec.incident) == [
        "Resolve",
        "Trigger",
        "Trigger",
    ]
    assert len({each.spec.incident.key for each in found if each.spec.incident}) == 1


async def test_another_alert_in_the_group_is_told() -> None:
    more = {**ALERTMANAGER["alerts"][0], "fingerprint": "f" * 16}
    async with webhook() as (_, client, url):
        await post(url, ALERTMANAGER)
        await post(url, changed(alerts=[*ALERTMANAGER["alerts"], more]))
        assert len(await requests(client)) == 2


@pytest.mark.parametrize("auth", [None, "Bearer wrong", TOKEN, "Basic !!"])
async def test_nobody_without_the_token_creates_a_request(auth: str | None) -> None:
    async with webhook() as (_, client, url):
        assert (await post(url, ALERTMANAGER, auth=auth))[0] == 401
        assert await requests(client) == []


@pytest.mark.parametrize("payload", [b"{", b"[]", {**ALERTMANAGER, "alerts": [{}]}, {"status": "firing"}])
async def test_an_invalid_payload_is_refused(payload: Any) -> None:
    async with webhook() as (_, client, url):
        assert (await post(url, payload))[0] == 400
        assert await requests(client) == []


async def test_a_server_that_is_down_makes_the_sender_repeat() -> None:
    async with webhook() as (server, client, url):
        server.faults.add(status=403, times=1, verb="create", resource="notificationrequests")
        assert (await post(url, ALERTMANAGER))[0] == 500
        assert (await post(url, ALERTMANAGER))[0] == 200
        assert len(await requests(client)) == 1


# A real Alertmanager


@pytest.mark.skipif(not shutil.which(os.environ.get("ALERTMANAGER", "alertmanager")), reason="needs alertmanager")
@pytest.mark.timeout(120)
async def test_a_real_alertmanager_tells_once_and_then_resolves(tmp_path: Path) -> None:
    pager = Recorder("pager")
    binary = shutil.which(os.environ.get("ALERTMANAGER", "alertmanager"))
    assert binary is not None
    routing = tmp_path / "routing.yaml"
    routing.write_text(
        yaml.safe_dump({"route": {"receiver": "x"}, "receivers": [{"name": "x", "channels": ["pager"]}]})
    )
    async with webhook() as (_, client, url), operator(client, pager, routing):
        receiver = {
            "url": url,
            "send_resolved": True,
            "http_config": {"authorization": {"type": "Bearer", "credentials": TOKEN}},
        }
        route = {
            "receiver": "operator",
            "group_by": ["alertname"],
            "group_wait": "1s",
            "group_interval": "1s",
            "repeat_interval": "1s",
        }
        config = tmp_path / "alertmanager.yaml"
        config.write_text(
            yaml.safe_dump({"route": route, "receivers": [{"name": "operator", "webhook_configs": [receiver]}]})
        )
        process = await asyncio.create_subprocess_exec(
            binary,
            f"--config.file={config}",
            f"--storage.path={tmp_path / 'data'}",
            "--web.listen-address=127.0.0.1:19093",
            "--cluster.listen-address=",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            await _alert("firing")
            await _until(lambda: len(pager.messages) == 1)
            await asyncio.sleep(5)  # Alertmanager repeats every second
            assert len(await requests(client)) == 1
            await _alert("resolved")
            await _until(lambda: len(pager.messages) == 2)
            await asyncio.sleep(3)
        finally:
            process.terminate()
            await process.wait()
        assert len(await requests(client)) == 2
    assert [message.action for message in pager.messages] == ["Trigger", "Resolve"]
    assert pager.messages[0].incident_key == pager.messages[1].incident_key
    assert pager.messages[0].priority == "Critical"


@contextlib.asynccontextmanager
async def operator(client: Client, pager: Recorder, routing: Path) -> AsyncIterator[None]:
    manager = Manager(client)
    options = NotificationOptions(console=False, log=False, channels=[pager], routing_file=routing)
    NotificationOperator(options).add_to(manager)
    async with manager.running():
        yield


async def _alert(status: str) -> None:
    """Send an alert to Alertmanager's API, as Prometheus does, once it listens."""
    alert = {
        "labels": {"alertname": "DiskFull", "severity": "critical"},
        "annotations": {"summary": "/var is full"},
        "startsAt": "2026-01-01T00:00:00Z",
        "endsAt": "2099-01-01T00:00:00Z" if status == "firing" else "2026-01-01T00:00:01Z",
    }
    async with asyncio.timeout(60), aiohttp.ClientSession() as session:
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.post("http://127.0.0.1:19093/api/v2/alerts", json=[alert]) as response:
                    assert response.status == 200, await response.text()
                    return
            await asyncio.sleep(0.2)


async def _until(condition: Any) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what is awaited happens in another process
            await asyncio.sleep(0.1)
