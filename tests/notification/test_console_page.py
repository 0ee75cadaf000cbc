"""The console's page of receivers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import yaml

from reconciler import Client, Manager
from reconciler.apiserver import APIServer
from reconciler.notification import NotificationOperator, NotificationOptions, NotificationRequest
from tests.notification.receivers import answer, receiver
from tests.notification.world import Recorder, document


async def page(manager: Manager, query: str = "") -> str:
    async with aiohttp.ClientSession() as session, session.get(f"{manager.console_url}/receivers{query}") as response:
        assert response.status == 200
        return await response.text()


async def test_the_page_shows_breaker_limits_last_error_and_the_timeline_of_a_request(tmp_path: Path) -> None:
    routing = tmp_path / "routing.yaml"
    async with (
        receiver(answer(503, b"<b>token=hunter2x</b>")) as broken,
        APIServer() as server,
        Client(server) as client,
    ):
        entry = {"url": broken.url, "allow_local_addresses": True, "breaker_failures": 1, "rate_per_minute": 600}
        routing.write_text(
            yaml.safe_dump({"route": {"receiver": "ops"}, "receivers": [{"name": "ops", "webhook_configs": [entry]}]})
        )
        await server.apply(NotificationRequest)
        manager = Manager(client, console="127.0.0.1:0")
        options = NotificationOptions(console=False, log=False, channels=[Recorder("pager")], routing_file=routing)
        NotificationOperator(options).add_to(manager)
        async with manager.running():
            assert "No attempt since the start of the process." in await page(manager)
            await client.create(document([], name="routed"))
            await client.create(document(["pager"], name="paged"))
            for name, phase in (("routed", "Retrying"), ("paged", "Sent")):
                await client.wait_for(
                    NotificationRequest,
                    name,
                    "default",
                    until=lambda found, phase=phase: found.status.phase == phase,
                    timeout=20,
                )
            async with asyncio.timeout(20):  # the page is notified after the status is written
                whole = ""
                while "default/routed" not in whole or "default/paged" not in whole:
                    whole = await page(manager)
            one = await page(manager, "?request=default/paged")
            hostile = await page(manager, "?channel=%3Cscript%3E")
    assert 'class="pill bad">open<' in whole
    assert "600 a minute, 4 at a time" in whole
    assert "attempt 2 on webhook:ops" in whole
    assert "token=[REDACTED]" in whole
    assert "hunter2x" not in whole
    assert "<b>token" not in whole
    assert "default/routed" not in one.partition("Attempts of")[2]
    assert "default/paged" in one
    assert "<script>" not in hostile.partition("<body")[2]
