"""Alerts in: Alertmanager's and Grafana's webhooks become NotificationRequests, once for each state of a group."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import hashlib
import io
import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from reconciler import Client, Manager
from reconciler.apiserver import APIServer
from reconciler.errors import ConfigurationError
from reconciler.notification import NotificationOperator, NotificationOptions, NotificationRequest
from tests.notification.world import Recorder, document

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
async def operator(tmp_path: Path, *channels: Any, **options: Any) -> AsyncIterator[tuple[APIServer, Client, str]]:
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "alerts").write_text(TOKEN)
    async with APIServer() as server, Client(server) as client:
        await server.apply(NotificationRequest)
        manager = Manager(client)
        running = NotificationOperator(
            NotificationOptions(
                console=False,
                log=False,
                channels=channels,
                credentials=tmp_path / "credentials",
                alertmanager_webhook="127.0.0.1:0",
                alert_token="alerts",
                **options,
            )
        )
        running.add_to(manager)
        async with manager.running():
            assert running.alerts is not None
            await running.alerts.listening()
            yield server, client, f"http://127.0.0.1:{running.alerts.port}/"


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"any:{password}".encode()).decode()


async def post(url: str, payload: Any, *, auth: str | None = f"Bearer {TOKEN}") -> tuple[int, str]:
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    headers = {"Authorization": auth} if auth is not None else {}
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, data=io.BytesIO(body), headers=headers) as response,
    ):
        return response.status, await response.text()


def changed(**members: Any) -> dict[str, Any]:
    return {**copy.deepcopy(ALERTMANAGER), **members}


async def requests(client: Client) -> list[NotificationRequest]:
    return sorted(await client.list(NotificationRequest, "default"), key=lambda found: found.metadata.uid or "")


async def test_nobody_without_the_token_can_take_the_name_of_an_alert_before(tmp_path: Path) -> None:
    def digest(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    content = "\n".join(["firing", *(f"{each['fingerprint']}@{each['startsAt']}" for each in ALERTMANAGER["alerts"])])
    squatted = document(["log"], name=f"alert-{digest(ALERTMANAGER['groupKey'])}-{digest(content)}")
    async with operator(tmp_path) as (_, client, url):
        await client.create(squatted)
        status, text = await post(url, ALERTMANAGER)
        assert (status, "created" in text) == (200, True)
        assert len(await requests(client)) == 2
        assert "exists already" in (await post(url, ALERTMANAGER))[1]


async def test_a_group_becomes_one_request_with_all_that_routing_and_people_need(tmp_path: Path) -> None:
    async with operator(tmp_path) as (_, client, url):
        assert (await post(url, ALERTMANAGER))[0] == 200
        (found,) = await requests(client)
    spec = found.spec
    assert (spec.type, spec.priority, spec.sender) == ("Escalation", "Critical", "alertmanager")
    assert spec.subject == "[FIRING:2] DiskFull"
    assert "**DiskFull** /var is full on node-7\nnode=node-7, severity=critical, team=storage" in spec.body
    assert spec.extensions == {
        "alertname": "DiskFull",
        "severity": "critical",
        "team": "storage",
        "receiver": "operator",
        "status": "firing",
    }
    assert spec.incident is not None
    assert spec.incident.action == "Trigger"
    assert spec.correlation_id == ALERTMANAGER["groupKey"]
    assert spec.action_links is not None
    assert [link.service for link in spec.action_links] == ["alertmanager", "prometheus", "prometheus"]


async def test_grafana_s_title_message_and_links_are_used(tmp_path: Path) -> None:
    async with operator(tmp_path) as (_, client, url):
        assert (await post(url, GRAFANA))[0] == 200
        (found,) = await requests(client)
    assert (found.spec.subject, found.spec.sender) == ("[FIRING:1] DiskFull storage", "grafana")
    assert found.spec.body == "**Firing**\n\nValue: B=93"
    assert found.spec.action_links is not None
    assert "https://grafana.example.com/d/abc" in {link.url for link in found.spec.action_links}


async def test_a_blank_title_or_message_of_a_template_loses_no_alert(tmp_path: Path) -> None:
    async with operator(tmp_path) as (_, client, url):
        assert (await post(url, {**GRAFANA, "title": " \n", "message": "\t"}))[0] == 200
        (found,) = await requests(client)
    assert found.spec.subject.startswith("[FIRING:1] ")
    assert found.spec.body == "firing"


async def test_repeats_make_no_request_and_a_resolved_group_is_told_once(tmp_path: Path) -> None:
    resolved = changed(status="resolved", alerts=[{**each, "status": "resolved"} for each in ALERTMANAGER["alerts"]])
    later = changed(alerts=[{**each, "startsAt": "2026-01-02T00:00:00Z"} for each in ALERTMANAGER["alerts"]])
    shuffled = changed(alerts=ALERTMANAGER["alerts"][::-1])
    async with operator(tmp_path) as (_, client, url):
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


async def test_another_alert_in_the_group_is_told(tmp_path: Path) -> None:
    more = {**ALERTMANAGER["alerts"][0], "fingerprint": "f" * 16}
    async with operator(tmp_path) as (_, client, url):
        await post(url, ALERTMANAGER)
        await post(url, changed(alerts=[*ALERTMANAGER["alerts"], more]))
        assert len(await requests(client)) == 2


@pytest.mark.parametrize(
    ("auth", "status"),
    [
        (None, 401),
        ("Bearer wrong", 401),
        (TOKEN, 401),
        ("Basic !!", 401),
        (basic(TOKEN), 200),
        (basic("x"), 401),
    ],
)
async def test_only_who_knows_the_token_is_heard(auth: str | None, status: int, tmp_path: Path) -> None:
    async with operator(tmp_path) as (_, client, url):
        assert (await post(url, ALERTMANAGER, auth=auth))[0] == status
        assert len(await requests(client)) == (status == 200)


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (b"{", "invalid JSON"),
        (b"[" * 100_000, "invalid JSON"),
        (b"[]", "not a payload"),
        ({**ALERTMANAGER, "groupKey": ""}, "groupKey"),
        ({**ALERTMANAGER, "alerts": []}, "alerts"),
        ({**ALERTMANAGER, "status": "smoking"}, "status: Input should be 'firing' or 'resolved'"),
    ],
)
async def test_an_invalid_payload_is_refused_with_the_place(payload: Any, text: str, tmp_path: Path) -> None:
    async with operator(tmp_path) as (_, client, url):
        status, answer = await post(url, payload)
        assert (status, await requests(client)) == (400, [])
        assert text in answer


async def test_hostile_and_huge_groups_still_make_a_valid_request(tmp_path: Path) -> None:
    labels = {f"label-{number}": "\N{PILE OF POO}" * 1100 for number in range(70)}
    alerts = [
        {
            **ALERTMANAGER["alerts"][0],
            "fingerprint": str(n),
            "generatorURL": "javascript:x",
            "labels": {"severity": "💩" * 50},
        }
        for n in range(500)
    ]
    hostile = changed(groupKey="k" * 5000, commonLabels=labels, groupLabels=labels, alerts=alerts, truncatedAlerts=9)
    async with operator(tmp_path) as (_, client, url):
        assert (await post(url, hostile))[0] == 200
        (found,) = await requests(client)
    assert found.spec.priority == "Medium"
    assert len(found.spec.subject) == 500
    assert found.spec.body.endswith("and 459 more")
    assert len(found.spec.correlation_id or "") <= 128


async def test_a_server_that_is_down_makes_the_sender_repeat(tmp_path: Path) -> None:
    async with operator(tmp_path) as (server, client, url):
        server.faults.add(status=503, times=None, verb="create", resource="notificationrequests")
        assert (await post(url, ALERTMANAGER))[0] == 503
        server.faults.clear()
        server.faults.add(status=403, times=1, verb="create", resource="notificationrequests")
        assert (await post(url, ALERTMANAGER))[0] == 422
        assert (await post(url, ALERTMANAGER))[0] == 200
        assert len(await requests(client)) == 1


async def test_other_paths_methods_and_sizes_are_refused(tmp_path: Path) -> None:
    async with operator(tmp_path) as (_, _client, url), aiohttp.ClientSession() as session:
        async with session.get(url) as response:
            assert response.status == 405
        async with session.post(url + "other") as response:
            assert response.status == 404
        assert (await post(url, b"x" * (5 << 20)))[0] == 413


def test_a_webhook_for_alerts_needs_a_token(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="needs the name of a credential with the senders' token"):
        NotificationOperator(NotificationOptions(alertmanager_webhook=":9095", credentials=tmp_path))


@pytest.mark.parametrize("address", ["9095", ":port", "127.0.0.1:65536"])
def test_an_invalid_address_for_alerts_is_an_error_before_anything_starts(address: str, tmp_path: Path) -> None:
    options = NotificationOptions(alertmanager_webhook=address, alert_token="alerts", credentials=tmp_path)
    with pytest.raises(ConfigurationError, match=f"alertmanager_webhook='{address}' is not a valid address"):
        NotificationOperator(options).add_to(Manager(Client(APIServer())))


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
    async with operator(tmp_path, pager, routing_file=routing) as (_, client, url):
        webhook = {
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
            yaml.safe_dump({"route": route, "receivers": [{"name": "operator", "webhook_configs": [webhook]}]})
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
