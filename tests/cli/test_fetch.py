"""``reconciler recording fetch`` from a running operator, and from other endpoints."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiohttp import web

from reconciler import Manager
from reconciler.apiserver import APIServer
from reconciler.client import Client
from reconciler.controller import Reconciler
from reconciler.recording import Recording
from reconciler.recording.recording import RecordingReader
from tests.cli.test_explain import run


class Maps(Reconciler):
    async def reconcile(self, request: Any, /) -> None:
        return None


@contextlib.asynccontextmanager
async def serving(app: web.Application) -> AsyncIterator[int]:
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def test_a_recording_is_fetched_from_the_endpoint(tmp_path: Path, capsys: Any) -> None:
    recording = Recording(tmp_path / "r")
    async with APIServer() as server, Client(server) as client:
        await client.create(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "db", "namespace": "default"}}
        )
        manager = Manager(client, metrics="127.0.0.1:0", grace_period=0, recording=recording)
        manager.add_controller(Maps(), resource="v1/ConfigMap")
        async with manager.running():
            while not recording.statistics().reconciles:
                await asyncio.to_thread(recording._write)
            endpoint = ("--endpoint", manager.metrics_url or "")
            code, out, err = await run(capsys, "recording", "fetch", str(tmp_path / "copy"), *endpoint)
    assert (code, out.partition(",")[0]) == (0, "1 segments"), err
    assert {each.name for each in RecordingReader(tmp_path / "copy").records()} == {"db"}


async def test_a_recording_that_is_fetched_in_vain_leaves_no_files(tmp_path: Path, capsys: Any) -> None:
    """The connection is lost in the second segment; a segment that is gone is left out; hostile names are refused."""
    answers: dict[str, Any] = {"": ["00000001.segment", "00000002.segment"], "00000001.segment": b"one"}

    async def answer(request: web.Request) -> web.StreamResponse:
        found = answers.get(request.query.get("segment", ""))
        if found is None:
            return web.Response(status=404)
        if found == "lost":
            response = web.StreamResponse(headers={"content-length": "100"})
            await response.prepare(request)
            await response.write(b"half")
            assert request.transport is not None
            request.transport.abort()
            return response
        return web.json_response(found) if isinstance(found, list) else web.Response(body=found)

    app = web.Application()
    app.router.add_get("/debug/recording", answer)
    copy = tmp_path / "copy"
    async with serving(app) as port:
        fetch = ("recording", "fetch", str(copy), "--endpoint", f"http://127.0.0.1:{port}")
        answers["00000002.segment"] = "lost"
        code, _, err = await run(capsys, *fetch)
        assert (code, "the connection was lost before the end of the response" in err) == (1, True), err
        assert list(copy.iterdir()) == []
        for name in ("../00000001.segment", "a\0.segment", "lock", ".segment", "00000001.segment\n"):
            answers[""] = [name]
            code, _, err = await run(capsys, *fetch)
            _progress, error = err.splitlines()
            assert (code, "is not that of an operator" in error) == (1, True)
        answers[""], answers["00000002.segment"] = ["00000001.segment", "00000002.segment"], None
        code, out, err = await run(capsys, *fetch)
        assert (code, out) == (0, f"1 segments, 3 bytes, in {copy}\n"), err
    assert [each.name for each in copy.iterdir()] == ["00000001.segment"]
