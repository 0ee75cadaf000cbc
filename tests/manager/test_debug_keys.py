"""``/debug/keys``: the latest reconciles of each key over HTTP."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import aiohttp
import msgspec
import pytest_asyncio

from reconciler import Manager
from reconciler.client import Client
from reconciler.clock import current_clock
from reconciler.controller import Result
from reconciler.errors import TerminalError
from reconciler.manager.endpoints.handlers import Turns
from reconciler.manager.endpoints.keys import KeysDocument, ReportedProcess, debug_keys
from reconciler.manager.endpoints.server import EndpointRequest
from reconciler.meta import Request
from reconciler.workqueue import ExponentialBackoff
from tests.manager.working import RecordingReconciler, config_map

KIND = "v1/ConfigMap"
SECRET = "hunter2"


async def work(request: Any) -> Result | None:
    if request.name == "fails":
        raise LookupError(f"no disk for {SECRET}")
    if request.name == "broken":
        raise TerminalError("never")
    return Result(requeue_after=3600) if request.name == "waits" else None


@pytest_asyncio.fixture
async def manager(client: Client) -> Any:
    for name in ("broken", "fails", "idle", "waits"):
        await client.create(config_map(name) | {"data": {"password": SECRET}})
    manager = Manager(client, metrics="127.0.0.1:0", grace_period=0)
    made = manager.add_controller(RecordingReconciler(work), resource=KIND, rate_limiter=ExponentialBackoff(60, 600))
    async with manager.running():
        while made.statistics().reconciles < 4:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0)
        yield manager


async def get(manager: Manager, query: str = "", **headers: str) -> dict[str, Any]:
    url = f"{manager.metrics_url}/debug/keys{query}"
    async with aiohttp.ClientSession() as http, http.get(url, headers=headers) as answer:
        assert answer.status == 200
        found: dict[str, Any] = json.loads(await answer.text())
        return found


async def test_failing_keys_come_first_and_idle_ones_are_shown(manager: Manager) -> None:
    document = await get(manager)
    (controller,) = document["controllers"]
    assert document["role"] == "running"
    assert (controller["name"], controller["kind"], controller["api_version"]) == ("configmap", "ConfigMap", "v1")
    assert (controller["reconciles"], controller["errors"], controller["waiting"]) == (4, 2, 2)
    assert [key["name"] for key in controller["keys"]] == ["broken", "fails", "idle", "waits"]
    assert [key["state"] for key in controller["keys"]] == ["idle", "waiting", "idle", "waiting"]


async def test_a_key_is_explained_by_name(manager: Manager) -> None:
    (controller,) = (await get(manager, "?name=fails&namespace=default"))["controllers"]
    (key,) = controller["keys"]
    assert key["waits_for"] == "the backoff after 1 failure"
    assert (key["failures"], key["next_reasons"], key["cached"]) == (1, ["retry"], True)
    assert 50 < key["due_in_seconds"] <= 60
    (run,) = key["runs"]
    assert (run["reasons"], run["result"], run["status_written"]) == (["event"], "error", False)
    assert run["error"]["traceback"][-1].startswith("manager/test_debug_keys.py:")
    assert (datetime.now(UTC) - datetime.fromisoformat(run["started"])).total_seconds() < 60


async def test_what_reads_the_document_loses_nothing_of_it(manager: Manager) -> None:
    for query in ("", "?name=fails&namespace=default"):
        document = await get(manager, query)
        assert json.loads(msgspec.json.encode(msgspec.convert(document, KeysDocument))) == document


async def test_an_unknown_key_is_explained(manager: Manager) -> None:
    (controller,) = (await get(manager, "?name=other&namespace=default"))["controllers"]
    (key,) = controller["keys"]
    assert (key["state"], key["cached"], key["runs"]) == ("unknown", False, [])


async def test_keys_are_selected(manager: Manager) -> None:
    assert (await get(manager, "?controller=other"))["controllers"] == []
    (controller,) = (await get(manager, "?limit=1"))["controllers"]
    assert (len(controller["keys"]), controller["keys_left_out"]) == (1, 3)
    (controller,) = (await get(manager, "?namespace=elsewhere"))["controllers"]
    assert controller["keys"] == []
    (controller,) = (await get(manager, "?name=idle"))["controllers"]
    assert [key["name"] for key in controller["keys"]] == ["idle"]


async def test_no_limit_makes_an_answer_hold_the_event_loop_for_long(manager: Manager) -> None:
    (made,) = manager.controllers
    for number in range(600):
        made.queue.add(Request(f"later-{number}", "default"), after=3600)
    for path in ("debug/keys", "debug/queue"):
        async with aiohttp.ClientSession() as http, http.get(f"{manager.metrics_url}/{path}?limit=999999") as answer:
            (controller,) = json.loads(await answer.text())["controllers"]
        assert len(controller["keys"]) == 500
        assert controller["keys_left_out"] >= 600 - 500


async def test_only_a_local_request_gets_messages_of_errors_and_nobody_gets_values(manager: Manager) -> None:
    query = "?name=fails&namespace=default"
    local = json.dumps(await get(manager, query))
    assert f"no disk for {SECRET}" in local
    for header in ("x-forwarded-for", "X-Forwarded-Proto", "x-envoy-attempt-count", "forwarded", "via"):
        remote = json.dumps(await get(manager, query, **{header: "10.1.2.3"}))
        assert "LookupError" in remote
        assert SECRET not in remote
    for host in ("localhost:8080", "LOCALHOST", "[::1]:80", "127.0.0.1"):
        assert SECRET in json.dumps(await get(manager, query, host=host))
    for host in ("example.com:8080", "localhost.example.com", "127.0.0.1.example.com", ""):
        page = json.dumps(await get(manager, query, host=host))  # of a page whose name resolves to this machine
        assert SECRET not in page
    others = [await get(manager, f"?name={name}&namespace=default") for name in ("broken", "idle", "waits")]
    assert SECRET not in json.dumps(others)


async def test_only_a_local_request_gets_values_of_changed_fields_and_nobody_gets_secrets(manager: Manager) -> None:
    change = {"data": {"color": "blue", "password": f"new {SECRET}"}}
    await manager.client.patch("v1/ConfigMap", "idle", "default", patch=change)
    query = "?name=idle&namespace=default"
    while len((await get(manager, query))["controllers"][0]["keys"][0]["runs"]) < 2:
        pass
    local, remote = await get(manager, query), await get(manager, query, via="10.1.2.3")
    found = [document["controllers"][0]["keys"][0]["runs"][0]["changes"][0]["fields"] for document in (local, remote)]
    for fields, color in zip(found, ('"blue"', None), strict=True):
        assert {each["path"]: each.get("after") for each in fields} == {"data.color": color, "data.password": None}
    assert SECRET not in json.dumps([local, remote])


async def test_others_run_between_the_answers_to_many_requests_at_once() -> None:
    turns: list[int] = []

    def controllers() -> list[Any]:
        turns.append(iterations)
        return []

    shared = Turns(current_clock())
    clock = current_clock()
    process = ReportedProcess(controllers=controllers, role=lambda: "running", waits=tuple, shard=None, clock=clock)
    keys = debug_keys(process, shared)
    queue = debug_keys(process, shared, queued=True)
    requests = [asyncio.create_task(each(EndpointRequest("", [], ""))) for each in [keys, queue] * 10]
    iterations = 0
    while not all(request.done() for request in requests):
        iterations += 1
        await asyncio.sleep(0)
    assert len(set(turns)) == len(requests)
