"""Requests to what is outside the cluster, through `ExternalClient`: sent, recorded, replayed, left out by a plan."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
from aiohttp import web

from reconciler import Outcome, Reconciler, Request, Result
from reconciler.controller.effects import EffectCall, use_effect_handler
from reconciler.recording import ExternalClient, ExternalResponse
from reconciler.recording.recording import RecordingReader
from reconciler.recording.records import EffectStep
from reconciler.testing import replay
from tests.recording.test_replay import config_map, only, record

PASSWORD = "correct-horse-battery-staple"


async def bank(scope: Any, receive: Any, send: Any) -> None:
    """An ASGI application that answers with what it was asked."""
    await receive()
    Copies.asked += 1
    headers = [(b"content-type", b"application/json"), (b"set-cookie", f"session={PASSWORD}".encode())]
    await send({"type": "http.response.start", "status": 201, "headers": headers})
    await send({"type": "http.response.body", "body": b'{"id": "a-%d"}' % Copies.asked})


class Copies(Reconciler):
    """Stores the number of an account for each ConfigMap."""

    asked = 0

    async def reconcile(self, request: Request) -> Outcome:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(bank), base_url="https://bank.example.com") as http:
            response = await ExternalClient(http).request(
                f"/accounts/{request.name}", "POST", headers={"authorization": f"Bearer {PASSWORD}"}
            )
        assert isinstance(response, ExternalResponse)
        await self.client.apply(config_map(f"copy-{request.name}", account=response.json()["id"]))
        return Result(requeue_after=response.status)


def test_a_replay_gets_the_recorded_response(tmp_path: Path) -> None:
    record(tmp_path / "r", Copies(), config_map("a"))
    asked = Copies.asked
    found = only(replay(tmp_path / "r", Copies))
    assert (found.differences, found.unreproducible, found.replayed.requeue_after) == ((), (), 201)
    assert Copies.asked == asked == 1


def test_a_recording_has_no_secrets_of_requests_and_responses(tmp_path: Path) -> None:
    record(tmp_path / "r", Copies(), config_map("a"))
    steps = [step for each in RecordingReader(tmp_path / "r").records() for step in each.steps]
    (step,) = [step for step in steps if isinstance(step, EffectStep)]
    assert (step.name, step.key) == ("request", "/accounts/a")
    assert PASSWORD.encode() not in bytes(step.arguments) + bytes(step.value)


async def answer(request: web.Request) -> web.Response:
    return web.Response(text=request.method, status=418, headers={"X-Path": request.path})


async def test_aiohttp_and_httpx_give_the_same() -> None:
    application = web.Application()
    application.router.add_route("*", "/{tail:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/a"
    async with aiohttp.ClientSession() as session, httpx.AsyncClient() as client:
        for each in (session, client):
            response = await ExternalClient(each).request(url, "PUT")
            assert (response.status, response.headers["x-path"], response.text) == (418, "/a", "PUT")
    await runner.cleanup()


class _Planning:
    planning = True

    async def __call__(self, call: EffectCall, /) -> Any:
        return call.planned()


def test_a_plan_sends_nothing() -> None:
    async def ask() -> ExternalResponse:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(bank)) as http:
            return await ExternalClient(http).request("https://bank.example.com/a", "DELETE")

    asked = Copies.asked
    with use_effect_handler(_Planning()):
        response = asyncio.run(ask())
    assert (response.status, Copies.asked) == (503, asked)
    assert response.text == "DELETE https://bank.example.com/a is not sent while planning"


def test_a_huge_body_is_left_out_of_a_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconciler.recording.collector._MAX_VALUE", 30)
    record(tmp_path / "r", Copies(), config_map("a"))
    steps = [step for each in RecordingReader(tmp_path / "r").records() for step in each.steps]
    (step,) = [step for step in steps if isinstance(step, EffectStep)]
    assert step.left_out > 30
    assert step.value.startswith(b'"[left out: %d bytes; a recording keeps at most' % step.left_out)
    (difference, *_) = only(replay(tmp_path / "r", Copies)).differences
    assert f"needs the {step.left_out} bytes that request(/accounts/a) returned, which the recording" in difference


def test_something_else_is_refused() -> None:
    with pytest.raises(TypeError, match=r"'session' is not an aiohttp\.ClientSession or httpx\.AsyncClient"):
        ExternalClient("session")
